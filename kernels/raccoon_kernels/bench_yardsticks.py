"""What is neither ours nor plain torch: faiss, flash-kmeans, and a CLIP forward to set a pipeline's time against."""

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from .bench_cases import ITERATIONS, Inputs, present

Function = Callable[[Tensor], Tensor | tuple[Tensor, ...]]


class Unavailable(RuntimeError):  # not a fault: the bench reports it as the reason and goes on
    """This provider cannot run this case here; the message is the reason."""


def faiss_kmeans(inputs: Inputs) -> Function:
    """Return k-means and the assignment by faiss on the CPU; raises Unavailable if it is missing or v is not 1."""
    if importlib.util.find_spec("faiss") is None:
        raise Unavailable("faiss is not installed")
    if inputs.case.overlap != 1:
        raise Unavailable("faiss has no overlap: v = 1 only")
    if inputs.device.type != "cpu":
        raise Unavailable("faiss is measured on CPU tensors only")
    import faiss

    num_points, dim = present(inputs.points).shape
    centroids = present(inputs.centroids).numpy()
    # Without these bounds faiss samples the points instead of using them all.
    bounds = {"max_points_per_centroid": num_points, "min_points_per_centroid": 1}
    clustering = faiss.Kmeans(dim, centroids.shape[0], niter=ITERATIONS, **bounds)

    def clusters_of(points: Tensor) -> tuple[Tensor, Tensor]:
        rows = points.float().numpy()
        clustering.train(rows, init_centroids=centroids)
        _, nearest = clustering.index.search(rows, 1)
        return torch.from_numpy(clustering.centroids), torch.from_numpy(nearest)

    return clusters_of


def flash_kmeans(inputs: Inputs) -> Function:
    """Return k-means by flash-kmeans; raises Unavailable where it is not installed, v is not 1, or on a CPU."""
    if importlib.util.find_spec("flash_kmeans") is None:
        raise Unavailable("flash-kmeans is not installed")
    if inputs.case.overlap != 1:
        raise Unavailable("flash-kmeans has no overlap: v = 1 only")
    if inputs.device.type != "cuda":
        raise Unavailable("flash-kmeans runs on CUDA tensors")
    from flash_kmeans import batch_kmeans_Euclid

    first = present(inputs.centroids)

    def clusters_of(points: Tensor) -> tuple[Tensor, Tensor]:
        given = first[None].to(points.dtype)
        made = batch_kmeans_Euclid(points[None], first.shape[0], max_iters=ITERATIONS, init_centroids=given)
        return made[1][0], made[0][0]

    return clusters_of


def clip_forward(inputs: Inputs) -> Function:
    """Return a bfloat16 forward of a ViT-L/14 at 336 over the case's frames; raises Unavailable without a GPU.

    The weights are random: they do not change the time of a dense network.
    """
    if inputs.device.type != "cuda":
        raise Unavailable("a CLIP-L forward is a yardstick for GPUs")
    model = _VisionTower().to(inputs.device, torch.bfloat16).eval().requires_grad_(False)
    frames = torch.randn(inputs.case.num_frames, 3, 336, 336, device=inputs.device, dtype=torch.bfloat16)
    return lambda _: model(frames)


class _Block(nn.Module):
    def __init__(self, dim: int = 1024, num_heads: int = 16) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.before_attention, self.before_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        heads = self.qkv(self.before_attention(x)).view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, dim))
        hidden = self.up(self.before_mlp(x))
        return x + self.down(hidden * torch.sigmoid(1.702 * hidden))  # CLIP's approximation of GELU


class _VisionTower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 1024, 14, 14, bias=False)
        self.blocks = nn.Sequential(*[_Block() for _ in range(24)])

    def forward(self, frames: Tensor) -> Tensor:
        return self.blocks(self.patches(frames).flatten(2).transpose(1, 2))
