"""The slow twins: what the ops compute, written as the equations read.

Everything is float64 and materialised (one-hot assignments, the masks [k, F, H, W], all distances). Tests compare the
ops with these, and the benchmark takes its baseline from here. Nothing else may call them: at 100 frames of 336x336 the
masks alone are 2.3 GB.

Source: RACCooN, section 3.1 (superpixels, overlapping k-means, multi-granular pooling).
"""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d, one_hot


def superpixel_mean(x: Tensor, labels: Tensor, num_superpixels: int) -> tuple[Tensor, Tensor]:
    """Average x [F, C, H, W] over each superpixel; returns means [F, S, C] float64 and counts [F, S] int64."""
    assigned = one_hot(labels.flatten(1).long(), num_superpixels).double()  # [F, HW, S]
    counts = assigned.sum(1)
    pixels = x.double().flatten(2)
    # A masked sum, not a product: zero times a NaN pixel would carry it into every superpixel.
    picked = torch.where(assigned[:, None].bool(), pixels[..., None], 0.0)  # [F, C, HW, S]
    means = picked.sum(2) / counts.clamp(min=1)[:, None]
    return means.transpose(1, 2), counts.long()


def cluster_masks(labels: Tensor, membership: Tensor) -> Tensor:
    """Paint the masks m [k, F, H, W] bool from labels [F, H, W] and membership [F, S, k]."""
    frames = torch.arange(labels.shape[0], device=labels.device)[:, None, None]
    return membership[frames, labels.long()].permute(3, 0, 1, 2)


def grid_weights(labels: Tensor, membership: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Average each mask over the adaptive windows of the token grid (t, h, w); returns [t, h, w, k] float64."""
    masks = cluster_masks(labels, membership).double()
    return adaptive_avg_pool3d(masks[None], size)[0].permute(1, 2, 3, 0)


def mgs_pool(features: Tensor, labels: Tensor, membership: Tensor, *, normalize: bool = True) -> tuple[Tensor, Tensor]:
    """Pool features [t, h, w, d] with the pooled masks; returns tokens [k, d] float64 and valid [k] bool."""
    t, h, w, _ = features.shape
    weights = grid_weights(labels, membership, (t, h, w))
    tokens = torch.einsum("thwk,thwd->kd", weights, features.double())
    mass = weights.sum((0, 1, 2))
    valid = mass > 0
    if normalize:
        tokens = tokens / torch.where(valid, mass, torch.ones_like(mass))[:, None]
    return tokens, valid


def squared_distances(points: Tensor, centroids: Tensor) -> Tensor:
    """Squared Euclidean distances [N, k] float64, from the differences themselves."""
    return (points.double()[:, None] - centroids.double()[None]).square().sum(-1)


def nearest_clusters(points: Tensor, centroids: Tensor, overlap: int) -> Tensor:
    """Membership [N, k] bool of each point in its `overlap` nearest clusters, ties to the lowest index."""
    order = squared_distances(points, centroids).argsort(dim=1, stable=True)[:, :overlap]
    return torch.zeros(points.shape[0], centroids.shape[0], dtype=torch.bool, device=points.device).scatter_(
        1, order, True
    )


def kmeans(points: Tensor, centroids: Tensor, *, num_iterations: int, overlap: int = 1) -> Tensor:
    """Run `num_iterations` of k-means (overlap 1) or (k,l)-means from the given centroids; returns centroids [k, D].

    An empty cluster takes the point farthest from its nearest centroid whose cluster has more than one point, and that
    cluster loses it; where only duplicates are left, it keeps its centroid. Ties go to the lowest row.
    """
    points, centroids = points.double(), centroids.double().clone()
    for _ in range(num_iterations):
        distances = squared_distances(points, centroids)
        nearest = distances.argmin(1)
        member = nearest_clusters(points, centroids, overlap).double()
        sums, counts = member.T @ points, member.sum(0)
        means = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centroids)
        gap = distances.gather(1, nearest[:, None])[:, 0]
        for j in torch.nonzero(counts == 0)[:, 0].tolist():
            free = torch.where(counts[nearest] > 1, gap, torch.full_like(gap, -1.0))
            row = int(free.argmax())
            if free[row] <= 0:
                continue
            donor = int(nearest[row])
            sums[donor] -= points[row]
            counts[donor] -= 1
            means[donor] = sums[donor] / counts[donor]
            means[j], sums[j], counts[j] = points[row], points[row].clone(), 1
            nearest[row] = j
        centroids = means
    return centroids


def okm_images(membership: Tensor, centroids: Tensor) -> Tensor:
    """The image phi [N, D] of each point in OKM: the mean of its clusters' prototypes."""
    member = membership.double()
    return member @ centroids.double() / member.sum(1, keepdim=True)


def objective(points: Tensor, centroids: Tensor, membership: Tensor, algorithm: str) -> Tensor:
    """What the algorithm minimises, float64: OKM's distance to the images, else the members' squared distances."""
    if algorithm == "okm":
        return (points.double() - okm_images(membership, centroids)).square().sum()
    return squared_distances(points, centroids)[membership].sum()
