"""Pasting back, and what is measured of it: outside the grown and feathered mask nothing may change."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.masks import feather, grow


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


@dataclass(frozen=True, slots=True, eq=False)
class SoftMask:
    """A grown and feathered mask, in a fraction of the memory: alpha is kept only where it is not 0.

    ``touched`` uint8 {0, 1} [F, H, W], where alpha > 0; ``shares`` alpha there, float32 in (0, 1], a frame each.
    """

    touched: NDArray[np.uint8]
    shares: tuple[NDArray[np.float32], ...]

    @classmethod
    def of(cls, mask: NDArray[np.uint8], grow_by: int, feather_by: int) -> "SoftMask":
        """Grow and feather a mask uint8 {0, 1} [F, H, W] by pixels, frame by frame."""
        touched, shares = np.zeros_like(mask), []
        for frame, picture in enumerate(mask):
            alpha = feather(grow(picture[None], grow_by), feather_by)[0]
            touched[frame] = alpha > 0
            shares.append(alpha[alpha > 0])
        return cls(touched, tuple(shares))

    def alpha(self) -> Iterator[NDArray[np.float32]]:
        """Yield alpha float32 [H, W] of each frame."""
        for touched, share in zip(self.touched, self.shares, strict=True):
            alpha = np.zeros(touched.shape, dtype=np.float32)
            alpha[touched > 0] = share
            yield alpha


def paste_back(
    source: NDArray[np.uint8], painted: NDArray[np.uint8], alpha: Iterable[NDArray[np.float32]]
) -> NDArray[np.uint8]:
    """Blend painted frames into the source: ``round(alpha * painted + (1 - alpha) * source)``.

    source, painted uint8 [F, H, W, 3]; alpha float32 [0, 1] [F, H, W], or its frames one by one. Where alpha is 0 the
    source is copied, so it is kept bit for bit whatever the painter left there.
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
