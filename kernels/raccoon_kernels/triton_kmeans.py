"""k-means and (k,l)-means in Triton: an iteration is one launch, a small clip's iterations are one launch together.

Two kernels centre the points and lay them out by feature (`triton_kmeans_centre`), one iterates
(`triton_kmeans_lloyd`), and the memberships at the end come from sums of squared differences
(`triton_kmeans_membership`). Deterministic: which program is last changes nothing. Clips run side by side in the second
grid axis, and a clip that has converged leaves the loop.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from raccoon_kernels.launch import Launch, is_capturing, planned
from raccoon_kernels.triton_kmeans_centre import centre_launches
from raccoon_kernels.triton_kmeans_lloyd import lloyd_launch, num_multiprocessors
from raccoon_kernels.triton_kmeans_membership import membership_launch

# Launches between two looks at whether all clips have converged, where every iteration is a launch.
SYNC_EVERY = 8


@dataclass(frozen=True, slots=True)
class _Plan:
    moments: Launch
    centre: Launch
    lloyd: Launch
    membership: Launch
    num_launches: int
    clips: Tensor
    moments_shape: tuple[int, int, int, int]
    sums_shape: tuple[int, int, int, int]
    objectives_shape: tuple[int, int]


def lloyd_clips(
    points: Tensor,
    initial: Tensor | None,
    offsets: Sequence[int],
    *,
    num_clusters: int,
    overlap: int,
    update_overlap: int,
    max_iterations: int,
    tolerance: float,
    seed: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Launch the centring, the iterations of all clips and the final memberships.

    Args:
        points: [N, D] float32, bfloat16 or float16, clip after clip.
        initial: first centroids [B, k, D] in the points' own coordinates, or None.
        offsets: borders [B + 1] of the clips.
        num_clusters: k.
        overlap: clusters of a point in the final membership.
        update_overlap: clusters of a point in the updates.
        max_iterations: at most so many updates.
        tolerance: of `overlapping_kmeans`.
        seed: gives first centroids [B, k, D] from the centred points [N, D]; asked where `initial` is None.

    Returns:
        The centred points [D, N] and their centroids [B, k, D], membership [N, k] bool, the centroids in the points'
        own coordinates, objective [B] float64 and iterations [B] int64.
    """
    num_points, features = points.shape
    num_clips = len(offsets) - 1
    plan = _plan(
        points.shape,
        points.stride(),
        num_clusters,
        tuple(offsets),
        overlap,
        update_overlap,
        max_iterations,
        tolerance,
        None if initial is None else initial.dtype,
        points.dtype,
        points.device,
    )
    columns = points.new_empty((features, num_points), dtype=torch.float32)
    room = columns.new_empty(((num_clips - 1) * num_clusters + plan.sums_shape[2]) * features)
    centroids = room.as_strided((num_clips, num_clusters, features), (num_clusters * features, features, 1))
    centre = columns.new_empty((num_clips, features))
    shifts, limits = columns.new_empty(num_clips), columns.new_empty(num_clips)
    state = columns.new_empty((num_clips, 2), dtype=torch.int64)
    iterations = columns.new_empty(num_clips, dtype=torch.int64)
    moments = columns.new_empty(plan.moments_shape, dtype=torch.float64)
    plan.moments(points, plan.clips, moments)
    first = centroids if initial is None else initial.contiguous()
    plan.centre(points, plan.clips, moments, first, columns, centre, centroids, shifts, limits, state, iterations)
    if initial is None:
        centroids.copy_(seed(columns.T))
    nearest = columns.new_empty(num_points, dtype=torch.int32)
    sums = columns.new_empty(plan.sums_shape)
    counts = columns.new_empty(plan.sums_shape[:3], dtype=torch.int32)
    for launch in range(plan.num_launches):
        plan.lloyd(columns, plan.clips, centroids, shifts, limits, state, iterations, nearest, sums, counts)
        is_look = launch % SYNC_EVERY == SYNC_EVERY - 1 and launch < plan.num_launches - 1
        if is_look and not is_capturing() and bool((shifts <= limits).all()):
            break
    membership = columns.new_empty((num_points, num_clusters), dtype=torch.bool)
    placed = torch.empty_like(centroids)
    objectives = columns.new_empty(plan.objectives_shape, dtype=torch.float64)
    plan.membership(columns, plan.clips, centroids, centre, membership, placed, objectives)
    return columns, centroids, membership, placed, objectives.sum(1), iterations


@planned
def _plan(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    k: int,
    offsets: tuple[int, ...],
    overlap: int,
    update_overlap: int,
    max_iterations: int,
    tolerance: float,
    initial_dtype: torch.dtype | None,
    dtype: torch.dtype,  # each dtype is a plan of its own
    device: torch.device,
) -> _Plan:
    num_points, features = shape
    num_clips = len(offsets) - 1
    longest = max(end - begin for begin, end in pairwise(offsets))
    resident = num_multiprocessors(device)
    moments, centre, moments_shape = centre_launches(
        strides,
        num_points,
        features,
        k,
        longest=longest,
        num_clips=num_clips,
        tolerance=tolerance,
        has_initial=initial_dtype is not None,
        max_programs=2 * resident,
    )
    lloyd, num_launches, sums_shape = lloyd_launch(
        num_points, features, k, offsets, overlap=update_overlap, max_iterations=max_iterations, device=device
    )
    membership, objectives_shape = membership_launch(
        num_points,
        features,
        k,
        longest=longest,
        num_clips=num_clips,
        overlap=overlap,
        max_programs=8 * resident,
    )
    clips = torch.tensor(offsets, device=device)
    return _Plan(moments, centre, lloyd, membership, num_launches, clips, moments_shape, sums_shape, objectives_shape)
