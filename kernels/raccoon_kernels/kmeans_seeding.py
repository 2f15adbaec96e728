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
    lengths = torch.tensor([points.shape[0]], device=points.device)
    return seed_clips(points[None], lengths, num_clusters, seed)[0]


def seed_clips(points: Tensor, lengths: Tensor, num_clusters: int, seed: int) -> Tensor:
    """Seed each clip as it would be alone; the clips take their rounds together, so a batch costs what a clip does.

    Args:
        points: [B, L, D], each clip's points first, then anything finite.
        lengths: int64 [B], the number of points of each clip, 1 to L, on the points' device.
        num_clusters: k.
        seed: the same draws for every clip.

    Returns:
        Values [B, k, D] of the chosen points.
    """
    num_clips, longest, width = points.shape
    num_trials = 2 + int(math.log(num_clusters))
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(num_clusters, num_trials, dtype=torch.float64, generator=generator).to(points.device)
    values = points.double()
    norms = values.square().sum(2)
    present = torch.arange(longest, device=points.device) < lengths[:, None]

    def distances_to(rows: Tensor) -> Tensor:
        chosen = values.gather(1, rows[..., None].expand(-1, -1, width))
        distances = norms[..., None] - 2.0 * (values @ chosen.mT) + chosen.square().sum(2)[:, None]
        # A row beyond a clip's end weighs nothing, so it is never drawn.
        return distances.clamp_(min=0).mul_(present[..., None])

    last = lengths[:, None] - 1
    uniform = torch.minimum((draws * lengths[:, None, None]).long(), last[..., None])
    rows = torch.empty(num_clips, num_clusters, dtype=torch.long, device=points.device)
    rows[:, 0] = uniform[:, 0, 0]
    nearest = distances_to(rows[:, :1])[..., 0]
    unit = nearest.amax(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny) / 2.0**DISTANCE_BITS
    for index in range(1, num_clusters):
        cumulative = (nearest / unit).long().cumsum(1)
        total = cumulative[:, -1:]
        target = (draws[index] * total).long()
        drawn = torch.minimum(torch.searchsorted(cumulative, target, right=True), last)
        drawn = torch.where(total > 0, drawn, uniform[:, index])
        lowered = torch.minimum(nearest[..., None], distances_to(drawn))
        best = lowered.sum(1).argmin(1, keepdim=True)
        rows[:, index] = drawn.gather(1, best)[:, 0]
        nearest = lowered.gather(2, best[:, None].expand(-1, longest, -1))[..., 0]
    return points.gather(1, rows[..., None].expand(-1, -1, width))
