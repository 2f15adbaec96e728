# A Triton kernel takes pointers and numbers that no annotation names.
# ruff: noqa: ANN001, ANN201
# mypy: disallow-untyped-defs=False
"""Empty clusters of k-means: each takes the point farthest from its centroid that another cluster can spare."""

import triton
import triton.language as tl


@triton.jit
def refill_empty(
    columns_ptr,  # [D, N] float32
    centroids_ptr,  # [k, D] float32: those that the points were assigned by; overwritten with the new ones
    nearest_ptr,  # [N] int32: the cluster of each point, changed for those that move
    means,  # [BLOCK_D, BLOCK_K]
    sums,  # [BLOCK_D, BLOCK_K]
    counts_ptr,  # [k] int64, `stride` apart
    begin,
    end,
    N,
    k,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    stride: tl.constexpr,
):
    """Give every empty cluster a point, where there is one to spare, and store all centroids."""
    clusters, features = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_D)
    # Beyond the last cluster nothing is empty.
    counts = tl.load(counts_ptr + clusters * stride, mask=clusters < k, other=1, cache_modifier=".cg").to(tl.int32)
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
                    x = tl.load(columns_ptr + tl.cast(feature, tl.int64) * N + rows, mask=valid, other=0.0)
                    old = tl.load(centroids_ptr + nearest * D + feature, cache_modifier=".cg")
                    gaps += (x - old) * (x - old)
                held = tl.sum(tl.where(nearest[:, None] == clusters[None, :], counts[None, :], 0), axis=1)
                spare = tl.where(valid & (held > 1), gaps, -1.0)
                greatest = tl.max(spare, axis=0)
                row = tl.min(tl.where(spare == greatest, rows, end), axis=0)
                # Strictly greater: an earlier block keeps a tie, as the lowest row does.
                best_row = tl.where(greatest > best, row, best_row)
                best = tl.maximum(greatest, best)
            if best > 0:
                donor = tl.load(nearest_ptr + best_row, cache_modifier=".cg")
                x = tl.load(columns_ptr + features.to(tl.int64) * N + best_row, mask=features < D, other=0.0)
                counts = tl.where(clusters == donor, counts - 1, counts)
                counts = tl.where(clusters == cluster, 1, counts)
                sums = tl.where((clusters == donor)[None, :], sums - x[:, None], sums)
                sums = tl.where((clusters == cluster)[None, :], x[:, None], sums)
                changed = (clusters == donor) | (clusters == cluster)
                divided = sums / tl.maximum(counts, 1).to(tl.float32)[None, :]
                means = tl.where(changed[None, :], divided, means)
                # The next search must see the moved point with its new cluster.
                tl.debug_barrier()
                tl.store(nearest_ptr + best_row, cluster)
                tl.debug_barrier()
    # Every thread has read the old ones.
    tl.debug_barrier()
    target = centroids_ptr + clusters[None, :] * D + features[:, None]
    tl.store(target, means, mask=(features < D)[:, None] & (clusters < k)[None, :])
