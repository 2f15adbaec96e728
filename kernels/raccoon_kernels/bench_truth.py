"""The float64 answers that every provider is compared with before it is timed.

The definitions stand in `reference.py`; what would not fit in memory at the benchmark's sizes is computed here a frame
at a time, and a test holds it against the reference at a small size.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from . import reference
from .bench_cases import GRADIENT_OPS, ITERATIONS, Case, Inputs, present


def truth(inputs: Inputs) -> Tensor | None:
    """Compute the first tensor of the providers' results in float64; None for an operation that is not compared."""
    case = inputs.case
    if case.op == "superpixel_mean":
        labels = present(inputs.labels_long)
        means = [_mean_f64(frame, ids, case) for frame, ids in zip(present(inputs.x), labels, strict=True)]
        return torch.stack(means)
    if case.op == "grid_weights":
        return torch.cat([_weights_f64(inputs, frame) for frame in range(case.num_frames)])
    if case.op == "mgs_pool":
        product = torch.zeros(case.num_clusters, case.dim, dtype=torch.float64, device=inputs.device)
        mass = torch.zeros(case.num_clusters, 1, dtype=torch.float64, device=inputs.device)
        for frame, features in enumerate(present(inputs.features)):
            weights = _weights_f64(inputs, frame)
            product += weights.t() @ features.flatten(0, 1).double()
            mass += weights.sum(0)[:, None]
        return product / mass.clamp_min(1e-300)
    if case.op == "overlapping_kmeans":
        return reference.kmeans(present(inputs.points), present(inputs.centroids), num_iterations=ITERATIONS)
    return None


def truth_gradient(inputs: Inputs, gradient: Tensor) -> Iterator[Tensor]:
    """Yield, frame by frame, the float64 gradient at the differentiable input for the gradient at the result.

    Both operations with a gradient are linear, so it is written down: a pixel gets its superpixel's gradient over its
    count, a cell's features get the weighted gradients of the tokens. Raises ValueError for another operation.
    """
    case = inputs.case
    if case.op not in GRADIENT_OPS:
        raise ValueError(f"only {' and '.join(GRADIENT_OPS)} have a gradient, got {case.op}")
    if case.op == "superpixel_mean":
        for ids, grad in zip(present(inputs.labels_long), gradient.double(), strict=True):
            counts = ids.flatten().bincount(minlength=case.num_superpixels).clamp_min(1)
            yield (grad / counts[:, None])[ids.flatten()].t().reshape(-1, *ids.shape)
        return
    mass = sum(_weights_f64(inputs, frame).sum(0) for frame in range(case.num_frames))
    shared = gradient.double() / torch.as_tensor(mass).clamp_min(1e-300)[:, None]
    for frame in range(case.num_frames):
        yield (_weights_f64(inputs, frame) @ shared).view(case.grid, case.grid, case.dim)


def relative_error(found: Iterable[Tensor], expected: Iterable[Tensor]) -> tuple[float, float]:
    """Return ||found - expected|| / ||expected|| and the greatest absolute difference, over slices of one tensor.

    NaN where anything found is NaN. Raises ValueError if a slice has another shape than the one expected.
    """
    difference = norm = greatest = 0.0
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape:
            raise ValueError(f"a result must have the reference's shape {list(other.shape)}, got {list(one.shape)}")
        gap = one.double() - other.double()
        difference += float(gap.square().sum())
        norm += float(other.double().square().sum())
        # max() of Python would drop a NaN, torch keeps it.
        greatest = float(torch.maximum(torch.tensor(greatest, dtype=torch.float64), gap.abs().max().cpu()))
    return (difference / max(norm, 1e-300)) ** 0.5, greatest


def _mean_f64(frame: Tensor, ids: Tensor, case: Case) -> Tensor:
    flat = ids.flatten()
    counts = flat.bincount(minlength=case.num_superpixels).clamp_min(1)
    sums = torch.zeros(frame.shape[0], case.num_superpixels, dtype=torch.float64, device=frame.device)
    sums.scatter_add_(1, flat.expand(frame.shape[0], -1), frame.flatten(1).double())
    return (sums / counts).t()


def _weights_f64(inputs: Inputs, frame: int) -> Tensor:
    one = slice(frame, frame + 1)
    labels, membership = present(inputs.labels_long)[one], present(inputs.membership)[one]
    return reference.grid_weights(labels, membership, (1, inputs.case.grid, inputs.case.grid)).flatten(0, 2)
