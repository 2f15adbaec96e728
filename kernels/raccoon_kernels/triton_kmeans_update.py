# A Triton kernel takes pointers and numbers that no annotation names.
# ruff: noqa: ANN001, ANN201
# mypy: disallow-untyped-defs=False
"""What the last program of a k-means iteration does: add all sums, move the centroids, refill empty clusters."""

import triton
import triton.language as tl


@triton.jit
def update_centroids(
    points_ptr,
    centroids_ptr,
    nearest_ptr,
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
    COUNTS_IN_SUMS: tl.constexpr,
):
    """Add all programs' sums of one clip and move its centroids.

    A point that is not a number may lie nearest to a cluster beyond k: behind the centroids there must be room for
    BLOCK_K of them.
    """
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
        if not COUNTS_IN_SUMS:
            part_counts = counts_ptr + programs[:, None] * BLOCK_K + clusters[None, :]
            counts += tl.sum(tl.load(part_counts, mask=valid, other=0, cache_modifier=".cg"), axis=0)
    sums = tl.reshape(total, [BLOCK_K, BLOCK_D])
    if COUNTS_IN_SUMS:
        # Exact: float32 holds every count up to 16.7 million.
        counts = tl.sum(tl.where((features == D)[None, :], sums, 0.0), axis=1).to(tl.int32)
    is_element = (clusters < k)[:, None] & (features < D)[None, :]
    target = centroids_ptr + clusters[:, None] * D + features[None, :]
    old = tl.load(target, mask=is_element, other=0.0, cache_modifier=".cg")
    means = tl.where(counts[:, None] > 0, sums / tl.maximum(counts, 1).to(tl.float32)[:, None], old)

    if tl.sum(((counts == 0) & (clusters < k)).to(tl.int32), axis=0) > 0:
        for cluster in range(0, k):
            if tl.sum(tl.where(clusters == cluster, counts, 0), axis=0) == 0:
                best = tl.full([], 0.0, dtype=tl.float32)
                best_row = begin
                for start in range(begin, end, BLOCK_N):
                    rows = start + tl.arange(0, BLOCK_N)
                    valid = rows < end
                    nearest = tl.load(nearest_ptr + rows, mask=valid, other=0, cache_modifier=".cg")
                    gaps = tl.zeros([BLOCK_N], dtype=tl.float32)
                    for feature in range(0, D):
                        x = tl.load(points_ptr + tl.cast(feature, tl.int64) * N + rows, mask=valid, other=0.0)
                        c = tl.load(centroids_ptr + nearest * D + feature, cache_modifier=".cg")
                        gaps += (x - c) * (x - c)
                    held = tl.sum(tl.where(nearest[:, None] == clusters[None, :], counts[None, :], 0), axis=1)
                    spare = tl.where(valid & (held > 1), gaps, -1.0)
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
    if BLOCK_K * BLOCK_D < 1024:
        # Few elements for 256 threads: several hold the same ones, and all must have read what one of them overwrites.
        tl.debug_barrier()
    tl.store(target, means, mask=is_element)
    tl.store(shift_ptr, tl.max(tl.sum(difference * difference, axis=1), axis=0))
