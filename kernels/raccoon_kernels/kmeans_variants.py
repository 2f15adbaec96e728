"""OKM and NEO-K-Means on torch: the clusterings that let the overlap enter the update.

Both equal k-means at overlap 1 and lower their objective in every step.

Source: Cleuziou 2008 (OKM); Whang, Dhillon and Gleich 2015 (NEO-K-Means).
"""

import torch
from torch import Tensor

from raccoon_kernels.kmeans_lloyd import nearest_clusters, refill_empty, squared_distances, squared_tolerance

# Relative fall of OKM's objective under which it counts as stalled.
OKM_STALL = 1e-9


def okm_assign(points: Tensor, centroids: Tensor, overlap: int, previous: Tensor | None) -> tuple[Tensor, Tensor]:
    """Grow each point's clusters from the nearest while the distance to their mean strictly falls.

    The previous clusters stay where they are better, which makes the objective fall. Returns membership [N, k] bool and
    each point's squared distance to its image [N].
    """
    distances = squared_distances(points, centroids)
    order = distances.argsort(dim=1, stable=True)[:, :overlap]
    image = centroids[order[:, 0]]
    best = (points - image).square().sum(1)
    taken = torch.zeros_like(order, dtype=torch.bool)
    taken[:, 0] = True
    for count in range(1, order.shape[1]):
        candidate = (image * count + centroids[order[:, count]]) / (count + 1)
        distance = (points - candidate).square().sum(1)
        # A point that stopped growing has a gap before this cluster and stays as it is.
        grows = taken[:, count - 1] & (distance < best)
        image = torch.where(grows[:, None], candidate, image)
        best = torch.where(grows, distance, best)
        taken[:, count] = grows
    membership = torch.zeros_like(distances, dtype=torch.bool).scatter_(1, order, taken)
    if previous is not None:
        member = previous.to(points.dtype)
        kept = (points - member @ centroids / member.sum(1, keepdim=True)).square().sum(1)
        keep = kept < best
        membership = torch.where(keep[:, None], previous, membership)
        best = torch.where(keep, kept, best)
    return membership, best


def okm_update(points: Tensor, centroids: Tensor, membership: Tensor) -> Tensor:
    """Move one prototype after the other to its optimum, the others held (Gauss-Seidel)."""
    member = membership.to(points.dtype)
    sizes = member.sum(1, keepdim=True)
    weights = member / sizes.square()
    totals = weights.sum(0)
    centroids = centroids.clone()
    prototype_sums = member @ centroids
    for j in torch.nonzero(totals > 0)[:, 0].tolist():
        others = prototype_sums - centroids[j]
        moved = (weights[:, j] @ (sizes * points - others)) / totals[j]
        prototype_sums += member[:, j : j + 1] * (moved - centroids[j])
        centroids[j] = moved
    return centroids


def okm(
    points: Tensor, centroids: Tensor, *, overlap: int, max_iterations: int, tolerance: float
) -> tuple[Tensor, Tensor, int]:
    """Overlapping k-means with at most `overlap` clusters a point; returns centroids, membership, iterations."""
    limit = squared_tolerance(points, tolerance)
    membership, iterations, last = None, 0, float("inf")
    while iterations < max_iterations:
        iterations += 1
        membership, gaps = okm_assign(points, centroids, overlap, membership)
        objective = float(gaps.sum(dtype=torch.float64))
        moved = okm_update(points, centroids, membership)
        counts = membership.sum(0)
        if bool((counts == 0).any()):
            distances = squared_distances(points, centroids)
            member = nearest_clusters(distances, 1)
            refill_empty(points, distances, member.to(points.dtype).T @ points, counts, moved)
            membership = None
        shift = float((moved - centroids).square().sum(1).max())
        centroids = moved
        if shift <= limit or last - objective <= OKM_STALL * objective:
            break
        last = objective
    return centroids, okm_assign(points, centroids, overlap, membership)[0], iterations


def neo_assign(distances: Tensor, overlap: int) -> Tensor:
    """Every point's nearest cluster, then the globally nearest pairs until the average is `overlap` clusters a point.

    Equal distances are taken in row, then column order.
    """
    num_points, k = distances.shape
    membership = nearest_clusters(distances, 1)
    extra = (overlap - 1) * num_points
    if extra == 0:
        return membership
    remaining = distances.masked_fill(membership, float("inf")).flatten()
    threshold = remaining.kthvalue(extra).values
    below = remaining < threshold
    at = torch.nonzero(remaining == threshold)[: extra - int(below.sum()), 0]
    below[at] = True
    return membership | below.view(num_points, k)


def neo(
    points: Tensor, centroids: Tensor, *, overlap: int, max_iterations: int, tolerance: float
) -> tuple[Tensor, Tensor, int]:
    """NEO-K-Means with alpha = overlap - 1 and no outliers (beta = 0); returns centroids, membership, iterations."""
    limit = squared_tolerance(points, tolerance)
    iterations = 0
    while iterations < max_iterations:
        iterations += 1
        distances = squared_distances(points, centroids)
        member = neo_assign(distances, overlap)
        counts = member.sum(0)
        sums = member.to(points.dtype).T @ points
        moved = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centroids)
        refill_empty(points, distances, sums, counts, moved)
        shift = float((moved - centroids).square().sum(1).max())
        centroids = moved
        if shift <= limit:
            break
    return centroids, neo_assign(squared_distances(points, centroids), overlap), iterations


def merge_nearest(points: Tensor, centroids: Tensor, overlap: int) -> Tensor:
    """Join each k-means cluster with the `overlap` - 1 clusters whose centroids lie nearest to its own."""
    distances = (centroids[:, None] - centroids[None]).square().sum(-1)
    # A cluster is its own nearest even where another centroid coincides with it.
    distances.fill_diagonal_(-1.0)
    joined = nearest_clusters(distances, overlap)
    labels = squared_distances(points, centroids).argmin(1)
    return joined[:, labels].T.contiguous()
