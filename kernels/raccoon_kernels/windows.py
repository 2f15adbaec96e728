"""The adaptive windows of a token grid: which pixels and frames each cell averages.

The windows are those of `torch.nn.functional.adaptive_avg_pool3d`: cell i of n over a length L covers
[floor(i L / n), ceil((i + 1) L / n)), so neighbours share an element where n does not divide L. Clips of one batch are
laid end to end; a clip's windows never reach into the next.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from raccoon_kernels.launch import planned

# The counts of a cell are laid out for the matrix units: rows of a multiple of 32 clusters.
CLUSTERS_PER_BLOCK = 32


def padded_clusters(num_clusters: int) -> int:
    """How many clusters a row of counts has room for."""
    return -(-num_clusters // CLUSTERS_PER_BLOCK) * CLUSTERS_PER_BLOCK


def window_borders(length: int, num_windows: int) -> tuple[list[int], list[int]]:
    """First and one-past-last element of each of the `num_windows` adaptive windows over `length` elements."""
    starts = [i * length // num_windows for i in range(num_windows)]
    ends = [-(-(i + 1) * length // num_windows) for i in range(num_windows)]
    return starts, ends


def temporal_windows(frame_offsets: Sequence[int], feature_offsets: Sequence[int]) -> tuple[list[int], list[int]]:
    """First and one-past-last frame of each temporal bin, over all clips."""
    starts, ends = [], []
    for clip in range(len(frame_offsets) - 1):
        first = frame_offsets[clip]
        bin_starts, bin_ends = window_borders(
            frame_offsets[clip + 1] - first, feature_offsets[clip + 1] - feature_offsets[clip]
        )
        starts += [first + start for start in bin_starts]
        ends += [first + end for end in bin_ends]
    return starts, ends


@lru_cache(maxsize=64)
def uniform_area(
    frame_offsets: tuple[int, ...], feature_offsets: tuple[int, ...], image: tuple[int, int], grid: tuple[int, int]
) -> int | None:
    """Pixels in every window where all windows of the batch are equally large, else None; kept as `inverse_areas`."""
    (height, width), (h, w) = image, grid
    starts, ends = temporal_windows(frame_offsets, feature_offsets)
    lengths = {end - start for start, end in zip(starts, ends, strict=True)}
    rows = {end - start for start, end in zip(*window_borders(height, h), strict=True)}
    columns = {end - start for start, end in zip(*window_borders(width, w), strict=True)}
    if len(lengths) > 1 or len(rows) > 1 or len(columns) > 1:
        return None
    return lengths.pop() * rows.pop() * columns.pop()


@planned
def inverse_areas(
    frame_offsets: tuple[int, ...],
    feature_offsets: tuple[int, ...],
    image: tuple[int, int],
    grid: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """One over the number of pixels of each window, [t, h, w]; kept, as every step of a run asks."""
    lengths = [
        torch.tensor(ends) - torch.tensor(starts)
        for starts, ends in (
            temporal_windows(frame_offsets, feature_offsets),
            window_borders(image[0], grid[0]),
            window_borders(image[1], grid[1]),
        )
    ]
    areas = lengths[0][:, None, None] * lengths[1][:, None] * lengths[2]
    return areas.double().reciprocal().to(device, dtype)


@planned
def pixel_bags(height: int, width: int, h: int, w: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Flat pixel indices of every window in row order [n] int64, and where each window's begin [h*w] int32."""
    (tops, bottoms), (lefts, rights) = window_borders(height, h), window_borders(width, w)
    pixels, begins, total = [], [], 0
    for top, bottom in zip(tops, bottoms, strict=True):
        for left, right in zip(lefts, rights, strict=True):
            window = torch.arange(top, bottom)[:, None] * width + torch.arange(left, right)
            pixels.append(window.flatten())
            begins.append(total)
            total += window.numel()
    return torch.cat(pixels).to(device), torch.tensor(begins, dtype=torch.int32, device=device)
