"""Score maps of a clip to a mask: a threshold, regions within frames, tubes of regions through frames."""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

_BINS = 256
# Regions within this many pixels of each other, relative to the frame's shorter side, are one tube's: things move.
_REACH = 0.05


def otsu(values: ArrayLike, *, weights: ArrayLike) -> float:
    """Otsu's threshold of weighted values in [0, 1]: the one that parts them into the two most different classes.

    Source: Otsu, "A threshold selection method from gray-level histograms", 1979.
    """
    counts, edges = np.histogram(np.asarray(values), bins=_BINS, range=(0.0, 1.0), weights=np.asarray(weights))
    middles = (edges[:-1] + edges[1:]) / 2
    mass, moment = np.cumsum(counts), np.cumsum(counts * middles)
    below, above = mass[:-1], mass[-1] - mass[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (moment[:-1] / below - (moment[-1] - moment[:-1]) / above) ** 2
    between = np.nan_to_num(between, nan=0.0)
    # Between two far apart classes every threshold is as good; the middle one is the least sensitive.
    return float(edges[1:-1][between >= between.max()].mean())


def strong_tubes(maps: NDArray[np.float32], *, threshold: float, smallest: float) -> NDArray[np.bool_]:
    """Keep the tubes of a clip's score maps that carry the evidence.

    A region is what is connected within a frame at or above the threshold; regions of neighbouring frames that
    overlap, or nearly so, belong to one tube. A tube's evidence is the sum of its scores.

    Args:
        maps: scores in [0, 1], [F, H, W].
        threshold: smallest score of a region's pixels.
        smallest: tubes of less than this part of the strongest tube's evidence are dropped, and in each frame regions
            of less than this part of the frame's strongest.

    Returns:
        bool [F, H, W].
    """
    reach = max(1, round(_REACH * min(maps.shape[1:])))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    parent: list[int] = []
    evidence: list[float] = []
    numbered = np.full(maps.shape, -1, dtype=np.int32)
    for frame, scores in enumerate(maps):
        count, regions = cv2.connectedComponents((scores >= threshold).astype(np.uint8), connectivity=8)
        sums = np.bincount(regions.ravel(), weights=scores.ravel(), minlength=count)[1:]
        first = len(parent)
        parent += range(first, first + count - 1)
        evidence += sums.tolist()
        numbered[frame] = np.where(regions > 0, regions + (first - 1), -1)
        if frame:
            _link(parent, numbered[frame - 1], numbered[frame], disc)
    if not parent:
        return np.zeros(maps.shape, dtype=np.bool_)
    roots = np.array([_root(parent, i) for i in range(len(parent))])
    of_region = np.array(evidence)
    of_tube = np.bincount(roots, weights=of_region, minlength=len(parent))
    kept = of_tube[roots] >= smallest * of_tube.max()
    tubes = (numbered >= 0) & kept[numbered]
    for frame, tube in enumerate(tubes):
        found = np.unique(numbered[frame][tube])
        if len(found) > 1:
            weak = found[of_region[found] < smallest * of_region[found].max()]
            tube[np.isin(numbered[frame], weak)] = False
    return tubes


def _link(parent: list[int], before: NDArray[np.int32], now: NDArray[np.int32], disc: NDArray[np.uint8]) -> None:
    # Dilating the numbers spreads the largest one; two regions so near each other are rarely of two things.
    near = cv2.dilate((before + 1).astype(np.float32), disc).astype(np.int32) - 1
    both = (near >= 0) & (now >= 0)
    for first, second in {*zip(near[both].tolist(), now[both].tolist(), strict=True)}:
        parent[_root(parent, second)] = _root(parent, first)


def _root(parent: list[int], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return index
