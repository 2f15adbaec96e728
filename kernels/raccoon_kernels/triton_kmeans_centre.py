# A Triton kernel takes pointers and numbers that no annotation names.
# ruff: noqa: ANN001, ANN202
# mypy: disallow-untyped-defs=False
"""The points of all clips about their means, laid out by feature: what the k-means kernels read.

Two kernels: sums of the points and of their squares in float64, then the means, the centred points, the limits of the
centroids' shifts and everything else that the iterations start from.
"""

from collections.abc import Sequence

import triton
import triton.language as tl

from raccoon_kernels.launch import Launch


@triton.jit
def _kmeans_moments_kernel(
    points_ptr,  # [N, D]
    clips_ptr,  # [B + 1] int64
    moments_ptr,  # [B, programs, 2, BLOCK_D] float64: sums of x - first and of its square
    stride_n,
    stride_d,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    clip = tl.program_id(1).to(tl.int64)
    begin, end = tl.load(clips_ptr + clip), tl.load(clips_ptr + clip + 1)
    features = tl.arange(0, BLOCK_D)
    is_feature = features < D
    base = points_ptr + features.to(tl.int64) * stride_d
    # Sums about the first point: what cancels in the variance is then no large offset.
    first = tl.load(base + begin * stride_n, mask=is_feature, other=0.0).to(tl.float64)
    sums = tl.zeros([BLOCK_D], dtype=tl.float64)
    squares = tl.zeros([BLOCK_D], dtype=tl.float64)
    for start in range(begin + tl.program_id(0) * BLOCK_N, end, tl.num_programs(0) * BLOCK_N):
        rows = start + tl.arange(0, BLOCK_N)
        valid = (rows < end)[:, None] & is_feature[None, :]
        x = tl.load(base[None, :] + rows[:, None] * stride_n, mask=valid, other=0.0).to(tl.float64)
        x = tl.where(valid, x - first[None, :], 0.0)
        sums += tl.sum(x, axis=0)
        squares += tl.sum(x * x, axis=0)
    out = (clip * tl.num_programs(0) + tl.program_id(0)) * 2 * BLOCK_D + features
    tl.store(moments_ptr + out, sums)
    tl.store(moments_ptr + out + BLOCK_D, squares)


@triton.jit
def _kmeans_centre_kernel(
    points_ptr,  # [N, D]
    clips_ptr,  # [B + 1] int64
    moments_ptr,  # [B, programs, 2, BLOCK_D] float64
    initial_ptr,  # [B, k, D]: first centroids; not read where HAS_INITIAL is not set
    columns_ptr,  # [D, N] float32: the centred points
    centre_ptr,  # [B, D] float32
    centroids_ptr,  # [B, k, D] float32
    shifts_ptr,  # [B] float32: set to infinity
    limits_ptr,  # [B] float32: the squared shift that ends a clip's loop
    state_ptr,  # [B, 2] int64: arrivals and releases; set to zero
    iterations_ptr,  # [B] int64: set to zero
    stride_n,
    stride_d,
    N,
    k,
    tolerance,
    num_parts,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_P: tl.constexpr,
    HAS_INITIAL: tl.constexpr,
):
    clip = tl.program_id(1).to(tl.int64)
    begin, end = tl.load(clips_ptr + clip), tl.load(clips_ptr + clip + 1)
    features = tl.arange(0, BLOCK_D)
    is_feature = features < D
    base = points_ptr + features.to(tl.int64) * stride_d
    parts = tl.arange(0, BLOCK_P)
    source = moments_ptr + (clip * num_parts + parts)[:, None] * 2 * BLOCK_D + features[None, :]
    sums = tl.sum(tl.load(source, mask=(parts < num_parts)[:, None], other=0.0), axis=0)
    count = (end - begin).to(tl.float64)
    offset = sums / count
    first = tl.load(base + begin * stride_n, mask=is_feature, other=0.0).to(tl.float64)
    centre = (first + offset).to(tl.float32)
    for start in range(begin + tl.program_id(0) * BLOCK_N, end, tl.num_programs(0) * BLOCK_N):
        rows = start + tl.arange(0, BLOCK_N)
        valid = (rows < end)[:, None] & is_feature[None, :]
        x = tl.load(base[None, :] + rows[:, None] * stride_n, mask=valid, other=0.0).to(tl.float32)
        target = columns_ptr + features.to(tl.int64)[None, :] * N + rows[:, None]
        tl.store(target, x - centre[None, :], mask=valid)
    if tl.program_id(0) == 0:
        squares = tl.sum(tl.load(source + BLOCK_D, mask=(parts < num_parts)[:, None], other=0.0), axis=0)
        variance = tl.sum(tl.where(is_feature, squares / count - offset * offset, 0.0), axis=0) / D
        tl.store(limits_ptr + clip, (variance * tolerance).to(tl.float32))
        tl.store(shifts_ptr + clip, float("inf"))
        tl.store(centre_ptr + clip * D + features, centre, mask=is_feature)
        tl.store(state_ptr + clip * 2 + tl.arange(0, 2), tl.zeros([2], dtype=tl.int64))
        tl.store(iterations_ptr + clip, tl.full([], 0, dtype=tl.int64))
        if HAS_INITIAL:
            clusters = tl.arange(0, BLOCK_K)
            is_element = (clusters < k)[:, None] & is_feature[None, :]
            element = (clip * k + clusters)[:, None] * D + features[None, :]
            initial = tl.load(initial_ptr + element, mask=is_element, other=0.0).to(tl.float32)
            tl.store(centroids_ptr + element, initial - centre[None, :], mask=is_element)


def centre_launches(
    strides: Sequence[int],
    num_points: int,
    features: int,
    k: int,
    *,
    longest: int,
    num_clips: int,
    tolerance: float,
    has_initial: bool,
    max_programs: int,
) -> tuple[Launch, Launch, tuple[int, int, int, int]]:
    """Plan the two kernels; returns their launches and the shape of the float64 sums between them."""
    block_d, block_k = max(8, triton.next_power_of_2(features)), max(16, triton.next_power_of_2(k))
    block_n = max(16, 4096 // block_d)
    parts = min(128, triton.cdiv(longest, block_n))
    blocks = {"D": features, "BLOCK_N": block_n, "BLOCK_D": block_d}
    moments = Launch(_kmeans_moments_kernel, (parts, num_clips), strides, blocks, num_warps=8)
    centre = Launch(
        _kmeans_centre_kernel,
        (min(max_programs, triton.cdiv(longest, block_n)), num_clips),
        (*strides, num_points, k, tolerance, parts),
        {**blocks, "BLOCK_K": block_k, "BLOCK_P": triton.next_power_of_2(parts), "HAS_INITIAL": has_initial},
        num_warps=8,
    )
    return moments, centre, (num_clips, parts, 2, block_d)
