"""The operations as plain torch writes them: what the kernels are measured against.

Each function takes the labels in int64, the dtype that torch's scatters want, and accumulates in float32 whatever the
input's dtype, as a careful user would. `*_masks` is the paper's equation read literally: it builds every mask. All of
them are differentiable in their first floating-point argument.
"""

import torch
from torch import Tensor
from torch.nn import functional


def mean_masks(x: Tensor, labels: Tensor, num_superpixels: int) -> Tensor:
    """One mask per superpixel, [F, S, H*W] in float32, times the pixels; x [F, C, H, W] to means [F, S, C]."""
    ids = torch.arange(num_superpixels, device=labels.device)
    masks = (labels.flatten(1)[:, None, :] == ids[None, :, None]).float()
    return torch.bmm(masks, x.flatten(2).transpose(1, 2).float()) / masks.sum(2, keepdim=True).clamp_min(1.0)


def mean_scatter_reduce(x: Tensor, labels: Tensor, num_superpixels: int) -> Tensor:
    """`scatter_reduce` with "mean" over planes, without masks."""
    num_frames, channels = x.shape[:2]
    index = labels.view(num_frames, 1, -1).expand(num_frames, channels, -1)
    means = torch.zeros(num_frames, channels, num_superpixels, device=x.device)
    return means.scatter_reduce(2, index, x.flatten(2).float(), "mean", include_self=False).transpose(1, 2)


def mean_index_add(x: Tensor, labels: Tensor, num_superpixels: int) -> Tensor:
    """`index_add_` of pixel rows into one table for all frames; needs the channels last, so it copies x."""
    num_frames, channels = x.shape[:2]
    offsets = num_superpixels * torch.arange(num_frames, device=x.device)
    ids = (labels + offsets[:, None, None]).flatten()
    rows = x.permute(0, 2, 3, 1).reshape(-1, channels).float()
    sums = torch.zeros(num_frames * num_superpixels, channels, device=x.device).index_add_(0, ids, rows)
    ones = torch.ones(1, device=x.device).expand(ids.numel())
    counts = torch.zeros(num_frames * num_superpixels, device=x.device).index_add_(0, ids, ones)
    return (sums / counts.clamp_min(1.0)[:, None]).view(num_frames, num_superpixels, channels)


def mean_scatter_add(x: Tensor, labels: Tensor, num_superpixels: int) -> Tensor:
    """Planar `scatter_add_`: every plane of every frame scattered with the frame's own ids."""
    num_frames, channels = x.shape[:2]
    flat = labels.view(num_frames, -1)
    index = flat[:, None].expand(num_frames, channels, -1)
    sums = torch.zeros(num_frames, channels, num_superpixels, device=x.device)
    sums = sums.scatter_add_(2, index, x.flatten(2).float())
    ones = torch.ones(1, 1, device=x.device).expand_as(flat)
    counts = torch.zeros(num_frames, num_superpixels, device=x.device).scatter_add_(1, flat, ones)
    return (sums / counts.clamp_min(1.0)[:, None]).transpose(1, 2)


def weights_masks(labels: Tensor, membership: Tensor, grid: int) -> Tensor:
    """Build the masks m in {0,1}^{k x F x H x W} and average-pool them: AvgPool(m); [F*grid*grid, k].

    labels [F, H, W]; membership bool [F, S, k].
    """
    frames = torch.arange(labels.shape[0], device=labels.device)[:, None, None]
    masks = membership[frames, labels].permute(3, 0, 1, 2)
    pooled = functional.adaptive_avg_pool3d(masks.float(), (labels.shape[0], grid, grid))
    return pooled.flatten(1).t()


def weights_windows(labels: Tensor, membership: Tensor, grid: int) -> Tensor:
    """Frame by frame: gather each pixel's membership row and average the window; one frame's masks at a time."""
    num_frames, height, width = labels.shape
    weights = []
    for frame in range(num_frames):
        rows = membership[frame].float()[labels[frame]]
        windows = rows.view(grid, height // grid, grid, width // grid, -1)
        weights.append(windows.mean(dim=(1, 3)).flatten(0, 1))
    return torch.cat(weights)


def weights_scatter_add(labels: Tensor, membership: Tensor, grid: int) -> Tensor:
    """Count the superpixels in each cell by a planar `scatter_add_`, then multiply by the memberships: no masks."""
    num_frames, num_superpixels = membership.shape[:2]
    joint = _joint_ids(labels, num_superpixels, grid).view(num_frames, -1)
    counts = torch.zeros(num_frames, grid * grid * num_superpixels, device=labels.device)
    counts = counts.scatter_add_(1, joint, torch.ones(1, 1, device=labels.device).expand_as(joint))
    return _weights_of_counts(counts, labels, membership, grid)


def weights_index_add(labels: Tensor, membership: Tensor, grid: int) -> Tensor:
    """The same counts by one `index_add_` over all frames."""
    num_frames, num_superpixels = membership.shape[:2]
    table = grid * grid * num_superpixels
    offsets = table * torch.arange(num_frames, device=labels.device)
    joint = (_joint_ids(labels, num_superpixels, grid) + offsets[:, None, None]).flatten()
    ones = torch.ones(1, device=labels.device).expand(joint.numel())
    counts = torch.zeros(num_frames * table, device=labels.device).index_add_(0, joint, ones)
    return _weights_of_counts(counts, labels, membership, grid)


def weights_bincount(labels: Tensor, membership: Tensor, grid: int) -> Tensor:
    """The same counts by `bincount`, frame by frame: the table of one frame stays in the cache."""
    num_superpixels = membership.shape[1]
    joint = _joint_ids(labels, num_superpixels, grid)
    area = labels.shape[1] * labels.shape[2] / grid**2
    weights = []
    for ids, members in zip(joint, membership, strict=True):
        counts = ids.flatten().bincount(minlength=grid * grid * num_superpixels)
        weights.append(counts.view(-1, num_superpixels).float() @ members.float())
    return torch.cat(weights) / area


def weights_embedding_bag(labels: Tensor, membership: Tensor, grid: int) -> Tensor:
    """`embedding_bag` with "mean" over the pixels of each window, the memberships as its table."""
    num_frames, height, width = labels.shape
    num_superpixels, num_clusters = membership.shape[1:]
    offsets = num_superpixels * torch.arange(num_frames, device=labels.device)
    windows = (labels + offsets[:, None, None]).view(num_frames, grid, height // grid, grid, width // grid)
    bags = windows.transpose(2, 3).reshape(num_frames * grid * grid, -1)
    return functional.embedding_bag(bags, membership.view(-1, num_clusters).float(), mode="mean")


def tokens_of_weights(weights: Tensor, features: Tensor) -> Tensor:
    """Multiply grid weights [G, k] with features [t, h, w, d] in the features' dtype; normalised tokens [k, d]."""
    product = weights.to(features.dtype).t() @ features.flatten(0, 2)
    return product.float() / weights.sum(0).clamp_min(1e-12)[:, None]


def iteration_masks(points: Tensor, centroids: Tensor) -> Tensor:
    """One k-means iteration from all N x k x D differences and a mask per cluster; new centroids float32 [k, D]."""
    points = points.float()
    nearest = (points[:, None] - centroids[None]).square().sum(2).argmin(1)
    masks = functional.one_hot(nearest, centroids.shape[0]).float()
    counts = masks.sum(0)[:, None]
    return torch.where(counts > 0, masks.t() @ points / counts.clamp_min(1.0), centroids)


def iteration_index_add(points: Tensor, centroids: Tensor) -> Tensor:
    """One k-means iteration from expanded distances (a matrix product) and `index_add_`; no N x k x D tensor."""
    points = points.float()
    nearest = torch.addmm(centroids.square().sum(1)[None], points, centroids.t(), alpha=-2.0).argmin(1)
    sums = torch.zeros_like(centroids).index_add_(0, nearest, points)
    ones = torch.ones(1, device=points.device).expand(points.shape[0])
    counts = torch.zeros(centroids.shape[0], device=points.device).index_add_(0, nearest, ones)[:, None]
    return torch.where(counts > 0, sums / counts.clamp_min(1.0), centroids)


def top_membership(points: Tensor, centroids: Tensor, overlap: int) -> Tensor:
    """Let every point join its `overlap` nearest centroids; bool [N, k]."""
    distances = torch.addmm(centroids.square().sum(1)[None], points.float(), centroids.t(), alpha=-2.0)
    membership = torch.zeros(distances.shape, dtype=torch.bool, device=points.device)
    return membership.scatter_(1, distances.topk(overlap, largest=False).indices, True)


def _joint_ids(labels: Tensor, num_superpixels: int, grid: int) -> Tensor:
    height, width = labels.shape[1:]
    rows = torch.arange(height, device=labels.device) // (height // grid)
    columns = torch.arange(width, device=labels.device) // (width // grid)
    return labels + num_superpixels * (rows[:, None] * grid + columns[None, :])


def _weights_of_counts(counts: Tensor, labels: Tensor, membership: Tensor, grid: int) -> Tensor:
    num_frames, num_superpixels = membership.shape[:2]
    area = labels.shape[1] * labels.shape[2] / grid**2
    table = counts.view(num_frames, grid * grid, num_superpixels)
    return torch.bmm(table, membership.float()).flatten(0, 1) / area
