"""How sure a figure is: percentile bootstrap over scenes.

Scenes are drawn with replacement, not objects or frames: what belongs to one clip errs together.
Source: Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raccoon_datamodules.order import draw

RESAMPLES = 1000
CONFIDENCE = 0.95
# Resamples whose sums exist at once.
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with the bounds between which ``confidence`` of its resamples lie; ``count`` scenes behind it."""

    value: float
    low: float
    high: float
    count: int


def ratio_interval(
    numerators: ArrayLike,
    denominators: ArrayLike | None = None,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """Return sum(numerators) / sum(denominators) with its bootstrap interval.

    Args:
        numerators: [n], one a scene: objects found, say.
        denominators: [n], one a scene: objects to be found. None: 1 for each scene, so that the figure is a mean.
        resamples: how often n scenes are drawn with replacement; a draw whose denominators sum to 0 does not count.
        confidence: in (0, 1); the bounds are the percentiles (1 -+ confidence) / 2 of the resamples.
        seed: of the draws.

    Raises:
        ValueError: if there is no scene, the two have another length or shape, hold what is not finite, the
            denominators sum to 0, or a setting is out of range.
    """
    above = np.asarray(numerators, dtype=np.float64)
    below = np.ones_like(above) if denominators is None else np.asarray(denominators, dtype=np.float64)
    if above.ndim != 1 or above.shape != below.shape or not len(above):
        raise ValueError(
            f"numerators and denominators must be [n] with n >= 1, got {list(above.shape)} and {list(below.shape)}"
        )
    if not (np.isfinite(above).all() and np.isfinite(below).all()):
        raise ValueError("a figure's scores must be finite; cap what can grow without bound, such as a PSNR")
    if not below.sum() > 0:
        raise ValueError("the denominators must sum to more than 0, so that there is something to count; they do not")
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"resamples must be at least 1 and confidence in (0, 1), got {resamples} and {confidence}; 1000 and 0.95 "
            "are usual"
        )
    found = _resampled(above, below, resamples, seed)
    low, high = np.percentile(found, [50 * (1 - confidence), 50 * (1 + confidence)])
    return Interval(float(above.sum() / below.sum()), float(low), float(high), len(above))


def _resampled(above: NDArray[np.float64], below: NDArray[np.float64], resamples: int, seed: int) -> NDArray:
    """The figure of each resample, [at most resamples]."""
    rng = draw(seed, 0, "evaluation/bootstrap")
    found = []
    for start in range(0, resamples, _CHUNK):
        picked = rng.integers(len(above), size=(min(_CHUNK, resamples - start), len(above)))
        sums = below[picked].sum(axis=1)
        found.append(above[picked].sum(axis=1)[sums > 0] / sums[sums > 0])
    every = np.concatenate(found)
    # With one scene in a thousand that has anything to count, no draw may hold it.
    return every if every.size else np.array([above.sum() / below.sum()])
