"""First centroids: greedy k-means++ in float64.

Each round draws 2 + floor(ln k) candidates with probability proportional to the squared distance to the nearest
centroid so far and keeps the one that lowers the sum most (ties: the first drawn). The uniform numbers come from a CPU
generator keyed by the seed, and the distribution is summed in integers, so every device draws the same points: a float
sum on a GPU may add in any order. Nothing waits for the device.

Source: Arthur and Vassilvitskii 2007, section 4; the greedy variant is theirs too.
"""

import math

import torch
from torch import Tensor

# Distances are counted in units of the greatest one over 2^36, so the sum of 2^26 points stays below 2^63 and what
# rounding leaves of a distance between equal points counts as nothing.
DISTANCE_BITS = 36


def seed_centroids(points: Tensor, num_clusters: int, seed: int) -> Tensor:
    """Choose `num_clusters` of the points [N, D]; returns their values [k, D].

    With fewer than `num_clusters` different points the rest is drawn uniformly, so some centroids coincide.
    """
    num_points = points.shape[0]
    num_trials = 2 + int(math.log(num_clusters))
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(num_clusters, num_trials, dtype=torch.float64, generator=generator).to(points.device)
    values = points.double()
    norms = values.square().sum(1)

    def distances_to(rows: Tensor) -> Tensor:
        chosen = values[rows]
        return (norms[:, None] - 2.0 * (values @ chosen.T) + chosen.square().sum(1)).clamp_(min=0)

    uniform = (draws * num_points).long().clamp_(max=num_points - 1)
    rows = torch.empty(num_clusters, dtype=torch.long, device=points.device)
    rows[0] = uniform[0, 0]
    nearest = distances_to(rows[:1])[:, 0]
    unit = nearest.max().clamp(min=torch.finfo(torch.float64).tiny) / 2.0**DISTANCE_BITS
    for index in range(1, num_clusters):
        cumulative = (nearest / unit).long().cumsum(0)
        target = (draws[index] * cumulative[-1]).long()
        drawn = torch.searchsorted(cumulative, target, right=True).clamp_(max=num_points - 1)
        drawn = torch.where(cumulative[-1] > 0, drawn, uniform[index])
        lowered = torch.minimum(nearest[:, None], distances_to(drawn))
        best = lowered.sum(0).argmin()
        rows[index] = drawn[best]
        nearest = lowered[:, best]
    return points[rows]
