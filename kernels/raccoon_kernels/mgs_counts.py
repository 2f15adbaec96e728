"""Grid counts: how many pixels of each cluster lie in each window of the token grid (`raccoon::grid_counts`).

No gradient: labels and memberships are discrete.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from raccoon_kernels.checks import check_label_values
from raccoon_kernels.dispatch import choose
from raccoon_kernels.windows import inverse_areas, padded_clusters, pixel_bags, temporal_windows, uniform_area


def run_grid_counts(
    labels: Tensor,
    membership: Tensor,
    grid: Sequence[int],
    frame_offsets: Sequence[int],
    feature_offsets: Sequence[int],
    backend: str,
    checked: bool,
) -> Tensor:
    """Count each cluster's pixels in each window: [t, h, w, k] float32, exact integers, in rows of 32 or 64."""
    if choose("grid_counts", backend, labels.device).backend == "triton":
        from raccoon_kernels import triton_counts

        if checked:
            check_label_values(labels, membership.shape[1])
        return triton_counts.grid_counts(labels, membership, grid, frame_offsets, feature_offsets)
    return _counts_torch(labels, membership, grid, frame_offsets, feature_offsets, checked)


def run_grid_weights(
    labels: Tensor,
    membership: Tensor,
    grid: Sequence[int],
    frame_offsets: Sequence[int],
    feature_offsets: Sequence[int],
    backend: str,
    checked: bool,
) -> Tensor:
    """Count and divide by the windows' pixels: [t, h, w, k] float32 in rows of 32 or 64; one kernel does both."""
    image = labels.shape[1:]
    area = uniform_area(tuple(frame_offsets), tuple(feature_offsets), tuple(image), tuple(grid))
    if area is not None and choose("grid_counts", backend, labels.device).backend == "triton":
        from raccoon_kernels import triton_counts

        if checked:
            check_label_values(labels, membership.shape[1])
        return triton_counts.grid_counts(labels, membership, grid, frame_offsets, feature_offsets, 1.0 / area)
    counts = run_grid_counts(labels, membership, grid, frame_offsets, feature_offsets, backend, checked)
    area, inverse = window_areas(counts, image, frame_offsets, feature_offsets)
    return counts.mul_(1.0 / (area or 1) if inverse is None else inverse[..., None])


def _counts_torch(
    labels: Tensor,
    membership: Tensor,
    grid: Sequence[int],
    frame_offsets: Sequence[int],
    feature_offsets: Sequence[int],
    checked: bool,
) -> Tensor:
    """One frame at a time: its labels reordered by window, then sums of membership rows."""
    (_, height, width), (h, w) = labels.shape, grid
    num_superpixels, k = membership.shape[1:]
    counts = torch.zeros(feature_offsets[-1], h * w, padded_clusters(k), device=labels.device)[..., :k]
    bins: list[list[int]] = [[] for _ in range(labels.shape[0])]
    for index, (start, end) in enumerate(zip(*temporal_windows(frame_offsets, feature_offsets), strict=True)):
        for frame in range(start, end):
            bins[frame].append(index)
    is_exact = height % h == 0 and width % w == 0
    pixels, begins = (None, None) if is_exact else pixel_bags(height, width, h, w, labels.device)
    for frame, label in enumerate(labels):
        if checked:
            check_label_values(label, num_superpixels)
        if pixels is None:
            ids = label.reshape(h, height // h, w, width // w).transpose(1, 2).reshape(h * w, -1).int()
        else:
            ids = label.reshape(-1)[pixels].int()
        # embedding_bag adds rows without gathering them: half the time of a joint histogram, and exact, as float32
        # holds every count up to 16.7 million pixels a window.
        summed = embedding_bag(ids, membership[frame].float(), begins, mode="sum")
        for index in bins[frame]:
            counts[index] += summed
    return counts.unflatten(1, (h, w))


grid_counts_op = torch.library.custom_op("raccoon::grid_counts", run_grid_counts, mutates_args=())


grid_weights_op = torch.library.custom_op("raccoon::grid_weights", run_grid_weights, mutates_args=())


@grid_weights_op.register_fake
@grid_counts_op.register_fake
def _(
    labels: Tensor,
    membership: Tensor,
    grid: Sequence[int],
    frame_offsets: Sequence[int],
    feature_offsets: Sequence[int],
    backend: str,
    checked: bool,
) -> Tensor:
    k = membership.shape[2]
    shape = (feature_offsets[-1], grid[0], grid[1], padded_clusters(k))
    return labels.new_empty(shape, dtype=torch.float32)[..., :k]


def scaled_weights(
    counts: Tensor,
    feature_dtype: torch.dtype,
    image: Sequence[int],
    frame_offsets: Sequence[int],
    feature_offsets: Sequence[int],
) -> tuple[Tensor, float]:
    """The weights W as a tensor times a number: the counts themselves where all windows are equally large."""
    dtype = torch.float64 if feature_dtype == torch.float64 else torch.float32
    area, inverse = window_areas(counts, image, frame_offsets, feature_offsets, dtype)
    if inverse is None:
        return counts.to(dtype), 1.0 / (area or 1)
    return counts.to(dtype) * inverse[..., None], 1.0


def window_areas(
    counts: Tensor,
    image: Sequence[int],
    frame_offsets: Sequence[int],
    feature_offsets: Sequence[int],
    dtype: torch.dtype = torch.float32,
) -> tuple[int | None, Tensor | None]:
    """Either the area of all windows, or one over each window's area [t, h, w]."""
    grid, size = (counts.shape[1], counts.shape[2]), (image[0], image[1])
    frames, bins = tuple(frame_offsets), tuple(feature_offsets)
    area = uniform_area(frames, bins, size, grid)
    if area is not None:
        return area, None
    return None, inverse_areas(frames, bins, size, grid, dtype, counts.device)
