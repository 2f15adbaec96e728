"""k-means and (k,l)-means on torch: nearest clusters, means, and what becomes of an empty cluster.

Ties go to the lowest index, an empty cluster takes the point farthest from its nearest centroid whose cluster can spare
one, and the loop ends when no centroid moved farther than the tolerance. The Triton kernels follow the same rules.

Source: Lloyd 1982; Nielsen and Nock 2014, arXiv 1406.6314, for members in their l nearest clusters.
"""

import torch
from torch import Tensor


def squared_distances(points: Tensor, centroids: Tensor) -> Tensor:
    """Squared distances [N, k] up to the rounding of the expanded form; points should be centred."""
    norms = points.square().sum(1, keepdim=True)
    distances = torch.addmm(norms + centroids.square().sum(1), points, centroids.T, alpha=-2.0).clamp_(min=0)
    # A matrix product may round equal columns differently, and the tie must go to the lowest index.
    firsts = (centroids[:, None] == centroids[None]).all(-1).to(torch.uint8).argmax(1)
    if points.device.type == "cpu" and torch.equal(firsts, torch.arange(len(firsts))):
        return distances
    return distances.index_select(1, firsts)


def nearest_clusters(distances: Tensor, overlap: int) -> Tensor:
    """Membership [N, k] bool in the `overlap` nearest clusters, ties to the lowest index."""
    order = distances.argmin(1, keepdim=True) if overlap == 1 else distances.argsort(dim=1, stable=True)
    chosen = order[:, :overlap]
    return torch.zeros_like(distances, dtype=torch.bool).scatter_(1, chosen, True)


def member_sums(points: Tensor, distances: Tensor, overlap: int) -> tuple[Tensor, Tensor]:
    """Sums [k, D] and counts [k] of the points in each cluster, added in a fixed order."""
    k = distances.shape[1]
    if overlap == 1 and points.device.type == "cpu":
        nearest = distances.argmin(1)
        sums = points.new_zeros(k, points.shape[1]).index_add_(0, nearest, points)
        return sums, torch.bincount(nearest, minlength=k)
    member = nearest_clusters(distances, overlap)
    return member.to(points.dtype).T @ points, member.sum(0)


def refill_empty(points: Tensor, distances: Tensor, sums: Tensor, counts: Tensor, means: Tensor) -> None:
    """Give each empty cluster, lowest first, the farthest point that another cluster can spare; in place.

    A cluster spares a point while it has more than one. Where every such point lies on its centroid, the cluster stays
    empty and keeps its centroid.
    """
    empty = torch.nonzero(counts == 0)[:, 0].tolist()
    if not empty:
        return
    gaps, nearest = distances.min(1)
    for cluster in empty:
        spare = torch.where(counts[nearest] > 1, gaps, torch.full_like(gaps, -1.0))
        row = int(spare.argmax())
        if spare[row] <= 0:
            continue
        donor = int(nearest[row])
        sums[donor] -= points[row]
        counts[donor] -= 1
        means[donor] = sums[donor] / counts[donor]
        sums[cluster] = means[cluster] = points[row]
        counts[cluster] = 1
        nearest[row] = cluster


def squared_tolerance(points: Tensor, tolerance: float) -> float:
    """The greatest squared shift of a centroid that ends the loop: tolerance times the mean variance of a feature."""
    return tolerance * float(points.double().var(0, correction=0).mean())


def lloyd(
    points: Tensor, centroids: Tensor, *, overlap: int, max_iterations: int, tolerance: float
) -> tuple[Tensor, int]:
    """Iterate from the given centroids [k, D]; returns the last centroids and the number of updates."""
    limit = squared_tolerance(points, tolerance)
    for iteration in range(max_iterations):
        distances = squared_distances(points, centroids)
        sums, counts = member_sums(points, distances, overlap)
        means = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centroids)
        refill_empty(points, distances, sums, counts, means)
        shift = float((means - centroids).square().sum(1).max())
        centroids = means
        if shift <= limit:
            return centroids, iteration + 1
    return centroids, max_iterations
