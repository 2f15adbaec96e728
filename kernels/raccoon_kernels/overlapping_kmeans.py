"""Cluster points so that each may belong to several clusters.

Algorithms, all equal to k-means at overlap 1:

- `topv`, the default: k-means centroids; then every point joins its v nearest clusters. The overlap does not enter the
  centroids, so masks grow with v and stay different.
- `kl`: (k,l)-means, where the v nearest clusters of a point enter the update as well. Clusters may coincide.
- `okm`: OKM; each point's clusters grow from the nearest, at most v, while the mean of their prototypes comes nearer.
- `neo`: NEO-K-Means; v clusters a point on average, from 1 to k each.
- `merge`: k-means; then each cluster is joined with the v - 1 whose centroids lie nearest.

Points are centred, computed with in float32 (float64 for float64 points), seeded by greedy k-means++ from `seed` alone.
Deterministic on the CPU and in the Triton kernels (`topv`, `kl`, `merge`). Bytes moved: N*D*itemsize in each iteration.
No gradient: memberships are discrete.

Source: RACCooN, section 3.1, "overlapping k-means"; which algorithm the authors ran is not published, see
docs/differences.md. Nielsen and Nock 2014; Cleuziou 2008; Whang, Dhillon and Gleich 2015.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from raccoon_kernels import kmeans_variants
from raccoon_kernels.checks import check_offsets, is_checked
from raccoon_kernels.dispatch import call, choose, without_autocast
from raccoon_kernels.kmeans_lloyd import lloyd, nearest_clusters, squared_distances
from raccoon_kernels.kmeans_seeding import seed_centroids, seed_clips
from raccoon_kernels.launch import planned

Algorithm = Literal["topv", "kl", "okm", "neo", "merge"]
"""The names that `overlapping_kmeans` accepts as `algorithm`."""

POINT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, slots=True, eq=False)
class OverlappingKMeans:
    """The outcome of a clustering.

    membership: [N, k] bool, whether point i belongs to cluster j.
    centroids: [k, D] float32 ([B, k, D] with offsets), in the points' own coordinates.
    objective: float64, [] ([B] with offsets): the squared distances to the members' centroids, or with `okm` to the
        mean of each point's centroids.
    iterations: int64, [] ([B] with offsets), how often the centroids were updated.
    algorithm: which of the algorithms ran.
    """

    membership: Tensor
    centroids: Tensor
    objective: Tensor
    iterations: Tensor
    algorithm: str


def _cluster_torch(
    points: Tensor,
    initial: Tensor | None,
    num_clusters: int,
    overlap: int,
    algorithm: str,
    seed: int,
    max_iterations: int,
    tolerance: float,
    offsets: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cluster clip after clip: membership [N, k], centroids [B, k, D], objective [B], iterations [B]."""
    outcomes = []
    for clip, (begin, end) in enumerate(pairwise(offsets)):
        values = points[begin:end]
        # Centring keeps the expanded distances exact enough where features share a large offset.
        centre = values.mean(0, dtype=torch.float64).to(values.dtype)
        values = values - centre
        first = seed_centroids(values, num_clusters, seed) if initial is None else initial[clip] - centre
        membership, centroids, objective, iterations = _cluster_clip(
            values, first, overlap, algorithm, max_iterations, tolerance
        )
        outcomes.append((membership, centroids + centre, objective, iterations))
    memberships, last, objectives, counts = zip(*outcomes, strict=True)
    return (
        torch.cat(memberships),
        torch.stack(last),
        torch.stack(objectives),
        torch.tensor(counts, device=points.device),
    )


def _cluster_clip(
    points: Tensor, centroids: Tensor, overlap: int, algorithm: str, max_iterations: int, tolerance: float
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Cluster one clip's centred points from the given centroids: membership, centroids, objective, iterations."""
    if algorithm in ("okm", "neo"):
        run = kmeans_variants.okm if algorithm == "okm" else kmeans_variants.neo
        centroids, membership, iterations = run(
            points, centroids, overlap=overlap, max_iterations=max_iterations, tolerance=tolerance
        )
    else:
        centroids, iterations = lloyd(
            points,
            centroids,
            overlap=overlap if algorithm == "kl" else 1,
            max_iterations=max_iterations,
            tolerance=tolerance,
        )
        if algorithm == "merge":
            membership = kmeans_variants.merge_nearest(points, centroids, overlap)
        else:
            membership = nearest_clusters(squared_distances(points, centroids), overlap)
    return membership, centroids, _objective(points, centroids, membership, algorithm), iterations


def _cluster_triton(
    points: Tensor,
    initial: Tensor | None,
    num_clusters: int,
    overlap: int,
    algorithm: str,
    seed: int,
    max_iterations: int,
    tolerance: float,
    offsets: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cluster all clips side by side: membership [N, k], centroids [B, k, D], objective [B], iterations [B].

    Every step takes all clips at once: a clip is small work for a GPU, and launches are what a batch would wait for.
    """
    from raccoon_kernels import triton_kmeans

    def seeds(values: Tensor) -> Tensor:
        lengths, rows = _padded_rows(tuple(offsets), points.device)
        return seed_clips(values[rows], lengths, num_clusters, seed)

    columns, centroids, membership, placed, objectives, iterations = triton_kmeans.lloyd_clips(
        points,
        initial,
        offsets,
        num_clusters=num_clusters,
        overlap=1 if algorithm == "merge" else overlap,
        update_overlap=overlap if algorithm == "kl" else 1,
        max_iterations=max_iterations,
        tolerance=tolerance,
        seed=seeds,
    )
    if algorithm == "merge":
        clips = [columns[:, begin:end].T for begin, end in pairwise(offsets)]
        merged = [kmeans_variants.merge_nearest(clip, c, overlap) for clip, c in zip(clips, centroids, strict=True)]
        trios = zip(clips, centroids, merged, strict=True)
        objectives = torch.stack([_objective(clip, c, member, algorithm) for clip, c, member in trios])
        membership = torch.cat(merged)
    return membership, placed, objectives, iterations


@planned
def _padded_rows(offsets: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """The clips' lengths [B], and the rows of each clip's points, then its last one again [B, L]."""
    borders = torch.tensor(offsets, device=device)
    lengths = borders.diff()
    places = torch.arange(max(end - begin for begin, end in pairwise(offsets)), device=device)
    return lengths, borders[:-1, None] + torch.minimum(places, lengths[:, None] - 1)


def _unsupported(points: Tensor, num_clusters: int, algorithm: str) -> str | None:
    """Why the Triton kernels cannot take these points, or None."""
    if algorithm in ("okm", "neo"):
        return f"algorithm {algorithm!r} runs on torch"
    if points.dtype == torch.float64:
        return "float64 runs on torch"
    if num_clusters > 64 or points.shape[1] > 64:
        return f"more than 64 clusters or 64 features run on torch, got {num_clusters} and {points.shape[1]}"
    return None


def _objective(points: Tensor, centroids: Tensor, membership: Tensor, algorithm: str) -> Tensor:
    if algorithm == "okm":
        member = membership.to(points.dtype)
        return (points - member @ centroids / member.sum(1, keepdim=True)).square().sum(dtype=torch.float64)
    # From the differences: what the expanded form rounds would be all that is left of an objective near zero.
    distances = torch.cdist(points, centroids, compute_mode="donot_use_mm_for_euclid_dist").square_()
    return distances.masked_fill_(~membership, 0).sum(dtype=torch.float64)


@without_autocast
def _run_overlapping_kmeans(
    points: Tensor,
    initial: Tensor | None,
    num_clusters: int,
    overlap: int,
    algorithm: str,
    seed: int,
    max_iterations: int,
    tolerance: float,
    offsets: Sequence[int],
    backend: str,
    checked: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cluster each clip: membership [N, k], centroids [B, k, D], objective [B], iterations [B]."""
    if checked and not bool(torch.isfinite(points).all()):
        bad = int((~torch.isfinite(points)).any(1).sum())
        raise ValueError(
            f"points must be finite, got NaN or infinity in {bad} of {points.shape[0]} rows; drop those rows"
        )
    unsupported = _unsupported(points, num_clusters, algorithm)
    choice = choose("overlapping_kmeans", backend, points.device, unsupported=unsupported)
    if choice.backend == "triton":
        cluster = _cluster_triton
    else:
        cluster = _cluster_torch
        precise = torch.float64 if points.dtype == torch.float64 else torch.float32
        points, initial = points.to(precise), None if initial is None else initial.to(precise)
    return cluster(points, initial, num_clusters, overlap, algorithm, seed, max_iterations, tolerance, offsets)


_overlapping_kmeans = torch.library.custom_op("raccoon::overlapping_kmeans", _run_overlapping_kmeans, mutates_args=())


@_overlapping_kmeans.register_fake
def _(
    points: Tensor,
    initial: Tensor | None,
    num_clusters: int,
    overlap: int,
    algorithm: str,
    seed: int,
    max_iterations: int,
    tolerance: float,
    offsets: Sequence[int],
    backend: str,
    checked: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    num_clips = len(offsets) - 1
    dtype = torch.float64 if points.dtype == torch.float64 else torch.float32
    return (
        points.new_empty(points.shape[0], num_clusters, dtype=torch.bool),
        points.new_empty(num_clips, num_clusters, points.shape[1], dtype=dtype),
        points.new_empty(num_clips, dtype=torch.float64),
        points.new_empty(num_clips, dtype=torch.int64),
    )


def overlapping_kmeans(
    points: Tensor,
    num_clusters: int,
    overlap: int,
    *,
    algorithm: Algorithm = "topv",
    seed: int = 0,
    max_iterations: int = 50,
    tolerance: float = 1e-4,
    offsets: Sequence[int] | Tensor | None = None,
    initial: Tensor | None = None,
    backend: str = "auto",
    checked: bool | None = None,
) -> OverlappingKMeans:
    """Cluster points into overlapping clusters; see the module for the algorithms.

    Args:
        points: [N, D] float16, bfloat16, float32 or float64, finite.
        num_clusters: k; may exceed the number of points, and some clusters then stay empty at overlap 1.
        overlap: v, in how many clusters a point is, 1 to k; see each algorithm for how strictly.
        algorithm: "topv", "kl", "okm", "neo" or "merge".
        seed: keys the first centroids, and with them the result.
        max_iterations: at most so many updates of the centroids; 0 keeps the first ones.
        tolerance: the loop ends when no centroid's squared shift exceeds this times the mean variance of a feature.
        offsets: borders [B + 1] of clips laid end to end along N; each clip is clustered as it would be alone.
        initial: first centroids [k, D] ([B, k, D] with offsets) instead of the seeding.
        backend: "auto", "triton" or "torch"; see `raccoon_kernels.dispatch`.
        checked: whether the points are checked to be finite: None checks CPU tensors only, True waits for the GPU.

    Returns:
        The memberships, centroids, objective and iterations, on the points' device.

    Raises:
        TypeError: points has another dtype.
        ValueError: shapes, counts or names are out of range, or (checked) a point is not finite.
        RuntimeError: backend "triton" was asked for and cannot run.

    Source: RACCooN, section 3.1.
    """
    if points.dtype not in POINT_DTYPES:
        raise TypeError(f"points must be float16, bfloat16, float32 or float64, got {points.dtype}")
    if points.ndim != 2 or points.numel() == 0:
        raise ValueError(f"points must be [N, D] with N, D >= 1, got {list(points.shape)}")
    if num_clusters < 1 or not 1 <= overlap <= num_clusters:
        raise ValueError(f"overlap must lie in [1, num_clusters], got overlap {overlap} of {num_clusters} clusters")
    if algorithm not in get_args(Algorithm):
        raise ValueError(f"algorithm must be one of {', '.join(get_args(Algorithm))}, got {algorithm!r}")
    if max_iterations < 0 or tolerance < 0:
        raise ValueError(f"max_iterations and tolerance must not be negative, got {max_iterations} and {tolerance}")
    borders = [0, points.shape[0]] if offsets is None else check_offsets("offsets", offsets, points.shape[0])
    if initial is not None:
        expected = [len(borders) - 1, num_clusters, points.shape[1]]
        if list(initial.shape) != (expected[1:] if offsets is None else expected):
            raise ValueError(
                f"initial must be {expected[1:] if offsets is None else expected}, got {list(initial.shape)}"
            )
        if initial.device != points.device:
            raise ValueError(f"initial must be on the points' device {points.device}, got {initial.device}")
        initial = initial[None] if offsets is None else initial
    membership, centroids, objective, iterations = call(
        _overlapping_kmeans,
        _run_overlapping_kmeans,
        points.detach(),
        initial,
        num_clusters,
        overlap,
        algorithm,
        seed,
        max_iterations,
        tolerance,
        borders,
        backend,
        is_checked(checked, points.device),
    )
    if offsets is None:
        centroids, objective, iterations = centroids[0], objective[0], iterations[0]
    return OverlappingKMeans(membership, centroids, objective, iterations, algorithm)
