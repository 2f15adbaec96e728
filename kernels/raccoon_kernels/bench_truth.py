"""The float64 answers that every provider is compared with before it is timed.

The definitions stand in `reference.py`; what would not fit in memory at the benchmark's sizes is computed here a frame
at a time, and a test holds it against the reference at a small size.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property

import torch
from torch import Tensor

from . import reference
from .bench_cases import GRADIENT_OPS, ITERATIONS, Case, Inputs, present


class Truth:
    """The float64 answer of a case: the first tensor of the providers' results, and the gradient of it."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs

    @cached_property
    def result(self) -> Tensor | None:
        """What a provider should return; None for an operation that is not compared."""
        inputs, case = self.inputs, self.inputs.case
        if case.op == "superpixel_mean":
            labels = present(inputs.labels_long)
            return torch.stack([_mean(x, ids, case) for x, ids in zip(present(inputs.x), labels, strict=True)])
        if case.op == "grid_weights":
            return self._weights.flatten(0, 1)
        if case.op == "mgs_pool":
            product = torch.zeros(case.num_clusters, case.dim, dtype=torch.float64, device=inputs.device)
            for weights, features in zip(self._weights, present(inputs.features), strict=True):
                product += weights.t() @ features.flatten(0, 1).double()
            return product / self._mass[:, None]
        if case.op == "overlapping_kmeans":
            return reference.kmeans(present(inputs.points), present(inputs.centroids), num_iterations=ITERATIONS)
        return None

    def gradient(self, at_result: Tensor) -> Iterator[Tensor]:
        """Yield, frame by frame, the gradient at `Inputs.differentiable` for the gradient at the result.

        Both operations with a gradient are linear, so it is written down: a pixel gets its superpixel's gradient over
        its count, a cell's features get the weighted gradients of the tokens. Raises ValueError for another operation.
        """
        case = self.inputs.case
        if case.op == "superpixel_mean":
            for ids, grad in zip(present(self.inputs.labels_long), at_result.double(), strict=True):
                counts = ids.flatten().bincount(minlength=case.num_superpixels).clamp_min(1)
                yield (grad / counts[:, None])[ids.flatten()].t().reshape(-1, *ids.shape)
        elif case.op == "mgs_pool":
            shared = at_result.double() / self._mass[:, None]
            for weights in self._weights:
                yield (weights @ shared).view(case.grid, case.grid, case.dim)
        else:
            raise ValueError(f"only {' and '.join(GRADIENT_OPS)} have a gradient, got {case.op}")

    @cached_property
    def _weights(self) -> Tensor:
        labels, membership = present(self.inputs.labels_long), present(self.inputs.membership)
        size = (1, self.inputs.case.grid, self.inputs.case.grid)
        frames = zip(labels.split(1), membership.split(1), strict=True)
        return torch.stack([reference.grid_weights(ids, member, size).flatten(0, 2) for ids, member in frames])

    @property
    def _mass(self) -> Tensor:
        return self._weights.sum((0, 1)).clamp_min(1e-300)


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


def _mean(frame: Tensor, ids: Tensor, case: Case) -> Tensor:
    flat = ids.flatten()
    counts = flat.bincount(minlength=case.num_superpixels).clamp_min(1)
    sums = torch.zeros(frame.shape[0], case.num_superpixels, dtype=torch.float64, device=frame.device)
    sums.scatter_add_(1, flat.expand(frame.shape[0], -1), frame.flatten(1).double())
    return (sums / counts).t()
