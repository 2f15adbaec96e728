"""Pasting back, and what is measured of it: outside the grown and feathered mask nothing may change."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class ContractBroken(RuntimeError):
    """The result does not keep what it must keep of the source."""


@dataclass(frozen=True, slots=True)
class Measurements:
    """What was measured of an edit before encoding.

    ``max_error_outside`` largest difference in [0, 255] outside the region that may change, 0 by contract;
    ``region_fraction`` share of all pixels that may change; ``changed_fraction`` share that did; ``seconds`` per stage.
    """

    max_error_outside: int
    region_fraction: float
    changed_fraction: float
    seconds: dict[str, float]


def paste_back(source: NDArray[np.uint8], painted: NDArray[np.uint8], alpha: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Blend painted frames into the source: ``round(alpha * painted + (1 - alpha) * source)``.

    source, painted uint8 [F, H, W, 3]; alpha float32 [0, 1] [F, H, W]. Where alpha is 0 the source is copied, so it is
    kept bit for bit whatever the painter left there.
    """
    result = source.copy()
    for frame, weight in enumerate(alpha):
        inside = weight > 0
        share = weight[inside][:, None].astype(np.float32)
        blend = share * painted[frame][inside] + (1 - share) * source[frame][inside]
        result[frame][inside] = np.rint(blend).clip(0, 255).astype(np.uint8)
    return result


def max_error_outside(first: NDArray[np.uint8], second: NDArray[np.uint8], region: NDArray[np.uint8]) -> int:
    """Return the largest absolute difference of two clips [F, H, W, 3] outside a region [F, H, W]; 0 if it is all."""
    return max((int(_difference(a, b)[r == 0].max(initial=0)) for a, b, r in zip(first, second, region, strict=True)))


def psnr_outside(first: NDArray[np.uint8], second: NDArray[np.uint8], region: NDArray[np.uint8]) -> float | None:
    """Return the PSNR in dB of two clips outside a region, all frames together; None where they are equal there."""
    total, count = 0.0, 0
    for a, b, r in zip(first, second, region, strict=True):
        outside = _difference(a, b)[r == 0].astype(np.float64)
        total += float((outside**2).sum())
        count += outside.size
    return float(10 * np.log10(255.0**2 * count / total)) if total else None


def changed_fraction(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Return the share of pixels that differ in any channel."""
    changed = sum(int((a != b).any(-1).sum()) for a, b in zip(first, second, strict=True))
    return changed / float(np.prod(first.shape[:3]))


def _difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.maximum(first, second) - np.minimum(first, second)
