"""Who is measured: plain torch in several ways, torch.compile of it, other libraries, and this package.

A provider makes, from the inputs of a case, a function of the one tensor that the operation is differentiable in; the
first tensor of its result is what is checked. It
raises `Unavailable` with the reason where it cannot run. Baselines get the labels in int64 free of charge; this
package gets them in the case's dtype.
"""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from . import bench_baselines as plain
from .bench_cases import GRADIENT_OPS, ITERATIONS, Inputs, Op, present
from .bench_report import Kind
from .bench_yardsticks import Function, Unavailable, clip_forward, faiss_kmeans, flash_kmeans
from .mgs_pool import grid_weights, mgs_pool
from .overlapping_kmeans import overlapping_kmeans
from .superpixel_mean import superpixel_mean

Build = Callable[[Inputs], Function]


@dataclass(frozen=True, slots=True)
class Provider:
    """One way to compute an operation."""

    name: str
    kind: Kind
    build: Build
    is_differentiable: bool = True
    is_checked: bool = True  # False for what computes something else, such as an encoder's forward


def providers(op: Op, *, compiled: bool = True) -> list[Provider]:
    """Return the providers of an operation; `compiled` adds torch.compile of the eager ones with and without masks."""
    has_gradient = op in GRADIENT_OPS
    is_checked = op != "pipeline"
    eager = [Provider(name, "eager", build, has_gradient, is_checked) for name, build in _eager(op).items()]
    chosen = list(eager)
    if compiled and op == "overlapping_kmeans":
        # The iteration is compiled, not the loop: unrolled, it is compiled for a minute and runs no faster.
        chosen += [
            Provider(f"compile {name}", "compiled", _clustering_of(torch.compile(function, dynamic=False)), False)
            for name, function in _ITERATIONS.items()
        ]
    elif compiled and op != "pipeline":
        chosen += [
            Provider(f"compile {p.name}", "compiled", _compiled(p.build), has_gradient)
            for p in eager
            if p.name in ("eager-masks", "scatter-add")
        ]
    chosen += [Provider(n, "other", build, False, is_checked) for n, build in _OTHERS.get(op, {}).items()]
    for backend in ("torch", "triton"):
        chosen.append(Provider(f"ours-{backend}", "ours", _OURS[op](backend), has_gradient, is_checked))
    return chosen


def _eager(op: Op) -> dict[str, Build]:
    if op == "superpixel_mean":
        return {name: _mean_of(function) for name, function in _MEANS.items()}
    if op == "grid_weights":
        return {name: _weights_of(function) for name, function in _WEIGHTS.items()}
    if op == "mgs_pool":
        return {name: _tokens_of(function) for name, function in _WEIGHTS.items()}
    if op == "overlapping_kmeans":
        return {name: _clustering_of(function) for name, function in _ITERATIONS.items()}
    return {name: _pipeline_of(*functions) for name, functions in _PIPELINES.items()}


def _mean_of(function: Callable[[Tensor, Tensor, int], Tensor]) -> Build:
    def build(inputs: Inputs) -> Function:
        case, labels = inputs.case, present(inputs.labels_long)
        if function is plain.mean_masks:
            # bool, then float32.
            _need_memory(5 * case.num_points * case.height * case.width, inputs.device)
        return lambda x: function(x, labels, case.num_superpixels)

    return build


def _weights_of(function: Callable[[Tensor, Tensor, int], Tensor]) -> Build:
    def build(inputs: Inputs) -> Function:
        labels, membership, grid = present(inputs.labels_long), present(inputs.membership), inputs.case.grid
        if function is plain.weights_masks:
            # bool, float32, and the copy that pooling makes of a permuted tensor.
            _need_memory(inputs.case.mask_bytes * 9 // 4, inputs.device)
        return lambda _: function(labels, membership, grid)

    return build


def _tokens_of(function: Callable[[Tensor, Tensor, int], Tensor]) -> Build:
    def build(inputs: Inputs) -> Function:
        _weights_of(function)(inputs)  # for its check of the memory
        labels, membership, grid = present(inputs.labels_long), present(inputs.membership), inputs.case.grid
        return lambda features: plain.tokens_of_weights(function(labels, membership, grid), features)

    return build


def _clustering_of(function: Callable[[Tensor, Tensor], Tensor]) -> Build:
    def build(inputs: Inputs) -> Function:
        case, first = inputs.case, present(inputs.centroids)
        if function is plain.iteration_masks:
            _need_memory(8 * case.num_points * case.num_clusters * case.channels, inputs.device)

        def clusters_of(points: Tensor) -> tuple[Tensor, Tensor]:
            centroids = first
            for _ in range(ITERATIONS):
                centroids = function(points, centroids)
            return centroids, plain.top_membership(points, centroids, case.overlap)

        return clusters_of

    return build


def _pipeline_of(
    mean: Callable[[Tensor, Tensor, int], Tensor], weights: Callable[[Tensor, Tensor, int], Tensor]
) -> Build:
    def build(inputs: Inputs) -> Function:
        case, labels, x = inputs.case, present(inputs.labels_long), present(inputs.x)
        if weights is plain.weights_masks:
            _need_memory(case.mask_bytes * 9 // 4, inputs.device)
        rows = _first_rows(inputs)

        def tokens(features: Tensor) -> Tensor:
            points = mean(x, labels, case.num_superpixels).flatten(0, 1)
            centroids = points[rows]
            for _ in range(ITERATIONS):
                centroids = plain.iteration_index_add(points, centroids)
            membership = plain.top_membership(points, centroids, case.overlap)
            membership = membership.view(case.num_frames, case.num_superpixels, case.num_clusters)
            return plain.tokens_of_weights(weights(labels, membership, case.grid), features)

        return tokens

    return build


def _compiled(build: Build) -> Build:
    def compile_it(inputs: Inputs) -> Function:
        # Sizes are constants here: the compiler's best case.
        return torch.compile(build(inputs), dynamic=False)

    return compile_it


def _our_mean(backend: str) -> Build:
    def build(inputs: Inputs) -> Function:
        _need_backend(backend, inputs.device)
        case, labels = inputs.case, present(inputs.labels)
        grid = case.superpixel_grid if case.label_map == "realistic" else None
        return lambda x: superpixel_mean(x, labels, case.num_superpixels, grid=grid, backend=backend)[0]

    return build


def _our_weights(backend: str) -> Build:
    def build(inputs: Inputs) -> Function:
        _need_backend(backend, inputs.device)
        case, membership = inputs.case, present(inputs.membership)
        size = (case.num_frames, case.grid, case.grid)
        return lambda labels: grid_weights(labels, membership, size, backend=backend).flatten(0, 2)

    return build


def _our_tokens(backend: str) -> Build:
    def build(inputs: Inputs) -> Function:
        _need_backend(backend, inputs.device)
        labels, membership = present(inputs.labels), present(inputs.membership)
        return lambda features: mgs_pool(features, labels, membership, backend=backend)[0]

    return build


def _our_clustering(backend: str) -> Build:
    def build(inputs: Inputs) -> Function:
        _need_backend(backend, inputs.device)
        case, first = inputs.case, present(inputs.centroids)

        def clusters_of(points: Tensor) -> tuple[Tensor, Tensor]:
            clusters = overlapping_kmeans(
                points,
                case.num_clusters,
                case.overlap,
                max_iterations=ITERATIONS,
                tolerance=0.0,
                initial=first,
                backend=backend,
            )
            return clusters.centroids, clusters.membership

        return clusters_of

    return build


def _our_pipeline(backend: str) -> Build:
    def build(inputs: Inputs) -> Function:
        _need_backend(backend, inputs.device)
        case, labels, x, rows = inputs.case, present(inputs.labels), present(inputs.x), _first_rows(inputs)
        shape = (case.num_frames, case.num_superpixels, case.num_clusters)

        def tokens(features: Tensor) -> Tensor:
            means, _ = superpixel_mean(x, labels, case.num_superpixels, grid=case.superpixel_grid, backend=backend)
            points = means.flatten(0, 1)
            clusters = overlapping_kmeans(
                points,
                case.num_clusters,
                case.overlap,
                max_iterations=ITERATIONS,
                tolerance=0.0,
                initial=points[rows],
                backend=backend,
            )
            return mgs_pool(features, labels, clusters.membership.view(shape), backend=backend)[0]

        return tokens

    return build


def _first_rows(inputs: Inputs) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randperm(inputs.case.num_points, generator=generator)[: inputs.case.num_clusters]
    return rows.to(inputs.device)


def _need_backend(backend: str, device: torch.device) -> None:
    if backend == "triton" and (device.type != "cuda" or importlib.util.find_spec("triton") is None):
        raise Unavailable("Triton kernels are timed on CUDA tensors; the interpreter's time means nothing")


def _need_memory(num_bytes: int, device: torch.device) -> None:
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        limit = 0.7 * free
    else:
        # A quarter: a CPU's memory is shared, and masks beyond it take minutes a call.
        free = _available_memory()
        limit = 0.25 * free
    if num_bytes > limit:
        raise Unavailable(f"its masks need {num_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")


def _available_memory() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable"):
                return 1024 * int(line.split()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


_MEANS = {
    "eager-masks": plain.mean_masks,
    "scatter-reduce": plain.mean_scatter_reduce,
    "index-add": plain.mean_index_add,
    "scatter-add": plain.mean_scatter_add,
}
_WEIGHTS = {
    "eager-masks": plain.weights_masks,
    "windows": plain.weights_windows,
    "index-add": plain.weights_index_add,
    "scatter-add": plain.weights_scatter_add,
    "bincount": plain.weights_bincount,
    "embedding-bag": plain.weights_embedding_bag,
}
_ITERATIONS = {"eager-masks": plain.iteration_masks, "index-add": plain.iteration_index_add}
_PIPELINES = {
    "eager-masks": (plain.mean_index_add, plain.weights_masks),
    "scatter-add": (plain.mean_scatter_add, plain.weights_scatter_add),
}
_OURS: dict[Op, Callable[[str], Build]] = {
    "superpixel_mean": _our_mean,
    "grid_weights": _our_weights,
    "mgs_pool": _our_tokens,
    "overlapping_kmeans": _our_clustering,
    "pipeline": _our_pipeline,
}
_OTHERS: dict[Op, dict[str, Build]] = {
    "overlapping_kmeans": {"faiss": faiss_kmeans, "flash-kmeans": flash_kmeans},
    "pipeline": {"clip-forward": clip_forward},
}
