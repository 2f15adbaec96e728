# A Triton kernel takes pointers and numbers that no annotation names.
# ruff: noqa: ANN001, ANN202
# mypy: disallow-untyped-defs=False
"""The memberships at the end of k-means, from sums of squared differences, and the centroids where the points lie."""

import triton
import triton.language as tl

from raccoon_kernels.launch import Launch

UNROLL = tl.constexpr(8)


@triton.jit
def _distances(
    columns_ptr,
    centroids_ptr,
    rows,
    valid,
    clusters,
    N,
    k,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    # [clusters, points]: a thread then holds all clusters of its points, and the argmin needs no exchange.
    distances = tl.zeros([BLOCK_K, BLOCK_N], dtype=tl.float32)
    for feature in tl.range(0, D, loop_unroll_factor=UNROLL):
        x = tl.load(columns_ptr + rows, mask=valid, other=0.0)
        c = tl.load(centroids_ptr + clusters * D + feature, mask=clusters < k, other=0.0)
        difference = x[None, :] - c[:, None]
        distances += difference * difference
        columns_ptr += N
    return tl.where((clusters < k)[:, None], distances, float("inf"))


@triton.jit
def _kmeans_membership_kernel(
    columns_ptr,  # [D, N] float32
    clips_ptr,  # [B + 1] int64
    centroids_ptr,  # [B, k, D] float32: of the centred points
    centre_ptr,  # [B, D] float32
    membership_ptr,  # [N, k] bool
    placed_ptr,  # [B, k, D] float32: the centroids in the points' own coordinates
    objectives_ptr,  # [B, programs] float64
    N,
    k,
    overlap,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    clip = tl.program_id(1).to(tl.int64)
    begin, end = tl.load(clips_ptr + clip), tl.load(clips_ptr + clip + 1)
    clusters = tl.arange(0, BLOCK_K)
    centroids = centroids_ptr + clip * k * D
    objective = tl.zeros([BLOCK_N], dtype=tl.float32)
    for start in range(begin + tl.program_id(0) * BLOCK_N, end, tl.num_programs(0) * BLOCK_N):
        rows = start + tl.arange(0, BLOCK_N)
        valid = rows < end
        distances = _distances(columns_ptr, centroids, rows, valid, clusters, N, k, D, BLOCK_N, BLOCK_K)
        members = clusters[:, None] == tl.argmin(distances, axis=0)[None, :]
        for _ in range(1, overlap):
            chosen = tl.argmin(tl.where(members, float("inf"), distances), axis=0)
            members = members | (clusters[:, None] == chosen[None, :])
        inside = valid[None, :] & (clusters < k)[:, None]
        tl.store(membership_ptr + rows[None, :] * k + clusters[:, None], members, mask=inside)
        objective += tl.sum(tl.where(members & inside, distances, 0.0), axis=0)
    total = tl.sum(objective.to(tl.float64), axis=0)
    tl.store(objectives_ptr + clip * tl.num_programs(0) + tl.program_id(0), total)
    if tl.program_id(0) == 0:
        features = tl.arange(0, BLOCK_D)
        is_element = (clusters < k)[:, None] & (features < D)[None, :]
        element = clusters[:, None] * D + features[None, :]
        centre = tl.load(centre_ptr + clip * D + features, mask=features < D, other=0.0)
        values = tl.load(centroids + element, mask=is_element, other=0.0) + centre[None, :]
        tl.store(placed_ptr + clip * k * D + element, values, mask=is_element)


def membership_config(block_k: int, block_d: int) -> tuple[int, int]:
    """Points of a block and warps of the membership kernel: a thread for each point, as far as registers go."""
    if block_d <= 16:
        return (128, 4) if block_k <= 32 else (64, 8)
    return (64, 8) if block_k <= 32 else (32, 8)


def membership_launch(
    num_points: int, features: int, k: int, *, longest: int, num_clips: int, overlap: int, max_programs: int
) -> tuple[Launch, tuple[int, int]]:
    """Plan the memberships; returns the launch and the shape of the objectives, a program's each."""
    block_k, block_d = max(16, triton.next_power_of_2(k)), max(16, triton.next_power_of_2(features))
    block_n, num_warps = membership_config(block_k, block_d)
    programs = min(max_programs, triton.cdiv(longest, block_n))
    launch = Launch(
        _kmeans_membership_kernel,
        (programs, num_clips),
        (num_points, k, overlap),
        {"D": features, "BLOCK_N": block_n, "BLOCK_K": block_k, "BLOCK_D": block_d},
        num_warps=num_warps,
    )
    return launch, (num_clips, programs)
