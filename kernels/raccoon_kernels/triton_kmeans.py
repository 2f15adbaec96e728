# A Triton kernel takes pointers and numbers that no annotation names.
# ruff: noqa: ANN001, ANN202
# mypy: disallow-untyped-defs=False
"""k-means and (k,l)-means in Triton: one launch an iteration and no wait for the device.

Each program reads blocks of points, forms all distances in registers as sums of squared differences, finds the nearest
clusters by a rolled argmin (ties to the lowest index), and adds the members to sums of its own. The program that
finishes last adds those sums in a fixed order, divides, refills empty clusters by the rule of
`kmeans_lloyd.refill_empty`, and writes how far the centroids moved. Nothing runs once a clip has converged, so the host
asks only now and then, or never inside a CUDA graph. Deterministic: which program is last changes nothing. Clips run
side by side in the second grid axis.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from raccoon_kernels.triton_mgs import _multiply

IS_INTERPRETED = bool(triton.knobs.runtime.interpret)

# Iterations between two looks at whether all clips have converged: a look costs about as much as four iterations.
SYNC_EVERY = 8
# Of an H100 and an H200.
MULTIPROCESSORS = 132
UNROLL = tl.constexpr(8)


@triton.jit
def _distances(
    points_ptr,
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
        x = tl.load(points_ptr + rows, mask=valid, other=0.0)
        c = tl.load(centroids_ptr + clusters * D + feature, mask=clusters < k, other=0.0)
        difference = x[None, :] - c[:, None]
        distances += difference * difference
        points_ptr += N
    return tl.where((clusters < k)[:, None], distances, float("inf"))


@triton.jit
def _nearest_members(distances, clusters, overlap):
    nearest = tl.argmin(distances, axis=0)
    members = clusters[:, None] == nearest[None, :]
    for _ in range(1, overlap):
        chosen = tl.argmin(tl.where(members, float("inf"), distances), axis=0)
        members = members | (clusters[:, None] == chosen[None, :])
    return nearest, members


@triton.jit
def _kmeans_iteration_kernel(
    points_ptr,  # [D, N] float32
    centroids_ptr,  # [B, k, D] float32
    clips_ptr,  # [B + 1] int64
    shifts_ptr,  # [B] float32: the last squared shift
    limits_ptr,  # [B] float32: the shift that ends a clip's loop
    nearest_ptr,  # [N] int32
    gaps_ptr,  # [N] float32: squared distance to the nearest centroid
    sums_ptr,  # [B, programs, BLOCK_K, BLOCK_D] float32
    counts_ptr,  # [B, programs, BLOCK_K] int32
    finished_ptr,  # [B] int32: programs of this launch that are done; zero between launches
    iterations_ptr,  # [B] int64
    N,
    k,
    overlap,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_P: tl.constexpr,
    TERMS: tl.constexpr,
):
    clip = tl.program_id(1).to(tl.int64)
    if tl.load(shifts_ptr + clip) <= tl.load(limits_ptr + clip):
        return
    begin, end = tl.load(clips_ptr + clip), tl.load(clips_ptr + clip + 1)
    clusters = tl.arange(0, BLOCK_K)
    features = tl.arange(0, BLOCK_D)
    num_programs = tl.num_programs(0)
    sums = tl.zeros([BLOCK_K, BLOCK_D], dtype=tl.float32)
    counts = tl.zeros([BLOCK_K], dtype=tl.int32)
    for start in range(begin + tl.program_id(0) * BLOCK_N, end, num_programs * BLOCK_N):
        rows = start + tl.arange(0, BLOCK_N)
        valid = rows < end
        centroids = centroids_ptr + clip * k * D
        distances = _distances(points_ptr, centroids, rows, valid, clusters, N, k, D, BLOCK_N, BLOCK_K)
        nearest, members = _nearest_members(distances, clusters, overlap)
        members = members & valid[None, :]
        tl.store(nearest_ptr + rows, nearest.to(tl.int32), mask=valid)
        tl.store(gaps_ptr + rows, tl.min(distances, axis=0), mask=valid)
        x = tl.load(
            points_ptr + features.to(tl.int64)[None, :] * N + rows[:, None],
            mask=valid[:, None] & (features < D)[None, :],
            other=0.0,
        )
        sums += _multiply(members.to(tl.float32), x, TERMS, 3)
        counts += tl.sum(members.to(tl.int32), axis=1)
    out = clip * num_programs + tl.program_id(0)
    tl.store(sums_ptr + (out * BLOCK_K + clusters)[:, None] * BLOCK_D + features[None, :], sums)
    tl.store(counts_ptr + out * BLOCK_K + clusters, counts)
    # All threads' sums must be written before this program counts as done.
    tl.debug_barrier()
    if tl.atomic_add(finished_ptr + clip, 1, sem="acq_rel") == num_programs - 1:
        tl.store(finished_ptr + clip, 0)
        _update_centroids(
            points_ptr,
            centroids_ptr + clip * k * D,
            nearest_ptr,
            gaps_ptr,
            sums_ptr + clip * num_programs * BLOCK_K * BLOCK_D,
            counts_ptr + clip * num_programs * BLOCK_K,
            shifts_ptr + clip,
            begin,
            end,
            num_programs,
            N,
            k,
            D,
            BLOCK_N,
            BLOCK_K,
            BLOCK_D,
            BLOCK_P,
        )
        tl.store(iterations_ptr + clip, tl.load(iterations_ptr + clip) + 1)


@triton.jit
def _update_centroids(
    points_ptr,
    centroids_ptr,
    nearest_ptr,
    gaps_ptr,
    sums_ptr,
    counts_ptr,
    shift_ptr,
    begin,
    end,
    num_programs,
    N,
    k,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Add all programs' sums of one clip and move its centroids."""
    clusters = tl.arange(0, BLOCK_K)
    features = tl.arange(0, BLOCK_D)
    flat = tl.arange(0, BLOCK_K * BLOCK_D)
    total = tl.zeros([BLOCK_K * BLOCK_D], dtype=tl.float32)
    counts = tl.zeros([BLOCK_K], dtype=tl.int32)
    for first in tl.range(0, num_programs, BLOCK_P, loop_unroll_factor=2):
        programs = first + tl.arange(0, BLOCK_P)
        valid = (programs < num_programs)[:, None]
        # Past the first-level cache, which does not see what other multiprocessors write.
        part = sums_ptr + programs[:, None] * (BLOCK_K * BLOCK_D) + flat[None, :]
        total += tl.sum(tl.load(part, mask=valid, other=0.0, cache_modifier=".cg"), axis=0)
        part_counts = counts_ptr + programs[:, None] * BLOCK_K + clusters[None, :]
        counts += tl.sum(tl.load(part_counts, mask=valid, other=0, cache_modifier=".cg"), axis=0)
    sums = tl.reshape(total, [BLOCK_K, BLOCK_D])
    is_element = (clusters < k)[:, None] & (features < D)[None, :]
    target = centroids_ptr + clusters[:, None] * D + features[None, :]
    old = tl.load(target, mask=is_element, other=0.0)
    means = tl.where(counts[:, None] > 0, sums / tl.maximum(counts, 1).to(tl.float32)[:, None], old)

    if tl.sum(((counts == 0) & (clusters < k)).to(tl.int32), axis=0) > 0:
        for cluster in range(0, k):
            if tl.sum(tl.where(clusters == cluster, counts, 0), axis=0) == 0:
                best = tl.full([], 0.0, dtype=tl.float32)
                best_row = begin
                for start in range(begin, end, BLOCK_N):
                    rows = start + tl.arange(0, BLOCK_N)
                    valid = rows < end
                    nearest = tl.load(nearest_ptr + rows, mask=valid, other=-1, cache_modifier=".cg")
                    gaps = tl.load(gaps_ptr + rows, mask=valid, other=-1.0, cache_modifier=".cg")
                    held = tl.sum(tl.where(nearest[:, None] == clusters[None, :], counts[None, :], 0), axis=1)
                    spare = tl.where(held > 1, gaps, -1.0)
                    greatest = tl.max(spare, axis=0)
                    row = tl.min(tl.where(spare == greatest, rows, end), axis=0)
                    # Strictly greater: an earlier block keeps a tie, as the lowest row does.
                    best_row = tl.where(greatest > best, row, best_row)
                    best = tl.maximum(greatest, best)
                if best > 0:
                    donor = tl.load(nearest_ptr + best_row, cache_modifier=".cg")
                    x = tl.load(points_ptr + features.to(tl.int64) * N + best_row, mask=features < D, other=0.0)
                    counts = tl.where(clusters == donor, counts - 1, counts)
                    counts = tl.where(clusters == cluster, 1, counts)
                    sums = tl.where((clusters == donor)[:, None], sums - x[None, :], sums)
                    sums = tl.where((clusters == cluster)[:, None], x[None, :], sums)
                    changed = (clusters == donor) | (clusters == cluster)
                    divided = sums / tl.maximum(counts, 1).to(tl.float32)[:, None]
                    means = tl.where(changed[:, None], divided, means)
                    # The next search must see the moved point with its new cluster.
                    tl.debug_barrier()
                    tl.store(nearest_ptr + best_row, cluster)
                    tl.debug_barrier()

    difference = tl.where(is_element, means - old, 0.0)
    tl.store(target, means, mask=is_element)
    tl.store(shift_ptr, tl.max(tl.sum(difference * difference, axis=1), axis=0))


@triton.jit
def _kmeans_membership_kernel(
    points_ptr,
    centroids_ptr,
    clips_ptr,
    membership_ptr,  # [N, k] bool
    objectives_ptr,  # [B, programs] float32
    N,
    k,
    overlap,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    clip = tl.program_id(1).to(tl.int64)
    begin, end = tl.load(clips_ptr + clip), tl.load(clips_ptr + clip + 1)
    clusters = tl.arange(0, BLOCK_K)
    objective = tl.zeros([BLOCK_N], dtype=tl.float32)
    for start in range(begin + tl.program_id(0) * BLOCK_N, end, tl.num_programs(0) * BLOCK_N):
        rows = start + tl.arange(0, BLOCK_N)
        valid = rows < end
        centroids = centroids_ptr + clip * k * D
        distances = _distances(points_ptr, centroids, rows, valid, clusters, N, k, D, BLOCK_N, BLOCK_K)
        _, members = _nearest_members(distances, clusters, overlap)
        inside = valid[None, :] & (clusters < k)[:, None]
        tl.store(membership_ptr + rows[None, :] * k + clusters[:, None], members, mask=inside)
        objective += tl.sum(tl.where(members & inside, distances, 0.0), axis=0)
    tl.store(objectives_ptr + clip * tl.num_programs(0) + tl.program_id(0), tl.sum(objective, axis=0))


def block_config(block_k: int, block_d: int) -> tuple[int, int, int]:
    """Points of a block, warps, and programs an iteration.

    The program that is last adds all programs' sums, so more of them pay only where a block takes long.
    """
    if block_d <= 16:
        return (128, 4, MULTIPROCESSORS) if block_k <= 32 else (64, 8, MULTIPROCESSORS)
    return (64, 8, 2 * MULTIPROCESSORS) if block_k <= 32 else (32, 8, 2 * MULTIPROCESSORS)


def lloyd_clips(
    points: Tensor,
    centroids: Tensor,
    clips: Tensor,
    limits: Tensor,
    *,
    longest: int,
    overlap: int,
    update_overlap: int,
    max_iterations: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Launch the iterations of all clips and the final memberships.

    Args:
        points: centred points [D, N] float32, contiguous, clip after clip along N.
        centroids: first centroids [B, k, D] float32; overwritten with the last ones.
        clips: borders [B + 1] int64 on the device.
        limits: squared shift [B] float32 that ends a clip's loop.
        longest: points in the longest clip.
        overlap: clusters of a point in the final membership.
        update_overlap: clusters of a point in the updates.
        max_iterations: at most so many updates.

    Returns:
        membership [N, k] bool, centroids [B, k, D], objective [B] float64 and iterations [B] int64.
    """
    features, num_points = points.shape
    num_clips, k, _ = centroids.shape
    device = points.device
    block_k = max(16, triton.next_power_of_2(k))
    block_d = max(8, triton.next_power_of_2(features))
    block_n, num_warps, max_programs = block_config(block_k, block_d)
    blocks = triton.cdiv(longest, block_n)
    programs = triton.cdiv(blocks, triton.cdiv(blocks, max_programs))
    # 64 sums in the registers of each thread.
    block_p = max(1, min(triton.next_power_of_2(programs), 2048 * num_warps // (block_k * block_d)))
    nearest = torch.empty(num_points, dtype=torch.int32, device=device)
    gaps = torch.empty(num_points, dtype=torch.float32, device=device)
    sums = torch.empty(num_clips, programs, block_k, block_d, dtype=torch.float32, device=device)
    counts = torch.empty(num_clips, programs, block_k, dtype=torch.int32, device=device)
    finished = torch.zeros(num_clips, dtype=torch.int32, device=device)
    shifts = torch.full((num_clips,), float("inf"), device=device)
    iterations = torch.zeros(num_clips, dtype=torch.int64, device=device)
    can_sync = device.type != "cuda" or not torch.cuda.is_current_stream_capturing()
    for iteration in range(max_iterations):
        _kmeans_iteration_kernel[(programs, num_clips)](
            points,
            centroids,
            clips,
            shifts,
            limits,
            nearest,
            gaps,
            sums,
            counts,
            finished,
            iterations,
            num_points,
            k,
            update_overlap,
            D=features,
            BLOCK_N=block_n,
            BLOCK_K=block_k,
            BLOCK_D=block_d,
            BLOCK_P=block_p,
            TERMS=0 if IS_INTERPRETED else 1,
            num_warps=num_warps,
        )
        if can_sync and iteration % SYNC_EVERY == SYNC_EVERY - 1 and bool((shifts <= limits).all()):
            break
    membership = torch.empty(num_points, k, dtype=torch.bool, device=device)
    objectives = torch.empty(num_clips, programs, dtype=torch.float32, device=device)
    _kmeans_membership_kernel[(programs, num_clips)](
        points,
        centroids,
        clips,
        membership,
        objectives,
        num_points,
        k,
        overlap,
        D=features,
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        num_warps=num_warps,
    )
    return membership, centroids, objectives.sum(1, dtype=torch.float64), iterations
