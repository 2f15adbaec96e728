"""The kernel configurations that are shipped: those that the launchers choose at the sizes this package is made for.

They are not written down a second time. The launchers run on CPU tensors of the real shapes with their kernels
replaced by recorders, and what a launch would specialise on (types, alignment, constants, warps) is read off its
arguments. So `compile_check` compiles what a GPU would run, whatever the launchers' tables say.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

import torch

from .compile_check import ShippedKernel
from .launch import assumed_capability, forget_plans

_FRAMES, _SIDE, _CELLS, _DIM, _CLUSTERS, _OVERLAP = 2, 336, 24, 1024, 25, 6
_SUPERPIXEL_GRID = (21, 21)
_TYPES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.uint8: "u8",
    torch.bool: "i1",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
}
# Kernels that stream the large inputs of their operation: those must load 128 bits at a time. Not so bytes, of which
# a superpixel's row is 16.
_STREAMING = ("_pool_tokens_fwd_kernel", "_superpixel_cells_fwd_kernel", "_superpixel_strips_fwd_kernel")
_DEFAULT_WARPS, _DEFAULT_STAGES = 4, 3  # triton's, where a launch names none


@dataclass(frozen=True, slots=True)
class _Recorder:
    """Stands in for a kernel: a launch is noted, nothing runs."""

    fn: Any
    launches: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    def __getitem__(self, grid: object) -> Callable[..., None]:
        def launch(*args: Any, **constants: Any) -> None:
            self.launches.append((self.fn, args, constants))

        return launch


def shipped_kernels(arch: int) -> tuple[ShippedKernel, ...]:
    """Return every configuration the launchers choose for sm_`arch` at 336x336 in float32, bfloat16 and uint8.

    Must run without TRITON_INTERPRET, because kernels decorated for the interpreter cannot be compiled; needs triton.
    """
    from . import (
        triton_cells,
        triton_counts,
        triton_kmeans,
        triton_kmeans_centre,
        triton_kmeans_lloyd,
        triton_kmeans_membership,
        triton_pool,
        triton_strips,
        triton_superpixel,
        triton_superpixel_general,
    )

    kernels: dict[object, ShippedKernel] = {}
    modules = (triton_superpixel, triton_superpixel_general, triton_counts, triton_pool, triton_kmeans)
    parts = (triton_cells, triton_strips, triton_kmeans_centre, triton_kmeans_lloyd, triton_kmeans_membership)
    with assumed_capability(arch), _recorded(*parts, *modules) as launches:
        for setting, run in _runs(*modules):
            del launches[:]
            run()
            for fn, args, constants in launches:
                kernel = _as_shipped(setting, fn, args, constants)
                types, values = tuple(kernel.signature.items()), tuple(map(str, kernel.constexprs.items()))
                kernels.setdefault((id(fn), types, values, kernel.divisible_by_16, kernel.num_warps), kernel)
    return tuple(kernels.values())


def _runs(
    superpixel: ModuleType, general: ModuleType, counting: ModuleType, pooling: ModuleType, kmeans: ModuleType
) -> Iterator[tuple[str, Callable[[], object]]]:
    num_superpixels = _SUPERPIXEL_GRID[0] * _SUPERPIXEL_GRID[1]
    labels = torch.zeros(_FRAMES, _SIDE, _SIDE, dtype=torch.int32)
    # Colours, colours with places as the clustering of V2P takes them, and features.
    for channels in (3, 5, 64):
        shared = torch.zeros(_FRAMES, num_superpixels, channels)
        pixel_counts = torch.ones(_FRAMES, num_superpixels, dtype=torch.int32)
        # uint8 is what frames are; nothing makes 64 channels of it.
        dtypes = {3: (torch.float32, torch.bfloat16, torch.uint8), 5: (torch.float32,)}
        for dtype in dtypes.get(channels, (torch.float32, torch.bfloat16)):
            x = torch.zeros(_FRAMES, channels, _SIDE, _SIDE, dtype=dtype)
            name = f"{_TYPES[dtype]} C={channels}"
            yield name, partial(superpixel.superpixel_mean_grid, x, labels, _SUPERPIXEL_GRID)
            yield name, partial(general.superpixel_mean_general, x, labels, num_superpixels)
            if dtype.is_floating_point:
                yield name, partial(general.superpixel_mean_backward, shared, labels, pixel_counts, dtype)
    membership = torch.zeros(_FRAMES, num_superpixels, _CLUSTERS, dtype=torch.bool)
    frames = (0, _FRAMES)
    cells = (_CELLS, _CELLS)
    yield f"k={_CLUSTERS}", partial(counting.grid_counts, labels, membership, cells, frames, frames)
    yield f"k={_CLUSTERS} temporal bins", partial(counting.grid_counts, labels, membership, cells, frames, (0, 1))
    # Never filled, as the kernels are recorders here; but in the layout that the pooling kernels get.
    counts = counting.grid_counts(labels, membership, cells, frames, frames)
    inverse = torch.ones(_FRAMES, _CELLS, _CELLS)
    token_grads, masses = torch.zeros(1, _CLUSTERS, _DIM), torch.ones(1, _CLUSTERS)
    area = (_SIDE // _CELLS) ** 2
    for dtype in (torch.float32, torch.bfloat16):
        features = torch.zeros(_FRAMES, _CELLS, _CELLS, _DIM, dtype=dtype)
        for windows, weight in (("equal", None), ("ragged", inverse)):
            name = f"{_TYPES[dtype]} d={_DIM} {windows} windows"
            yield name, partial(pooling.pool_tokens, features, counts, weight, area, frames, True)
            yield (
                name,
                partial(pooling.pool_tokens_backward, token_grads, counts, masses, weight, area, frames, True, dtype),
            )
    num_points = _FRAMES * num_superpixels
    frames_of_points = (0, num_points)
    for dim in (6, 64):
        points, first = torch.zeros(num_points, dim), torch.zeros(1, _CLUSTERS, dim)
        settings = {"num_clusters": _CLUSTERS, "overlap": _OVERLAP, "update_overlap": 1, "max_iterations": 20}
        run = partial(kmeans.lloyd_clips, points, first, frames_of_points, tolerance=1e-4, seed=None, **settings)
        yield f"D={dim}", run


@contextmanager
def _recorded(*modules: ModuleType) -> Iterator[list[tuple[Any, tuple[Any, ...], dict[str, Any]]]]:
    launches: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
    kept = [(m, name, obj) for m in modules for name, obj in vars(m).items() if name.endswith("_kernel")]
    for module, name, fn in kept:
        setattr(module, name, _Recorder(fn, launches))
    # Plans hold the kernels that they launch.
    forget_plans()
    try:
        yield launches
    finally:
        forget_plans()
        for module, name, fn in kept:
            setattr(module, name, fn)


def _as_shipped(setting: str, fn: Any, args: tuple[Any, ...], given: Mapping[str, Any]) -> ShippedKernel:
    """Specialise as Triton's launcher does: an integer 1 becomes a constant, a multiple of 16 is known to be one."""
    options = {name: given[name] for name in ("num_warps", "num_stages", "maxnreg") if name in given}
    values = inspect.signature(fn.fn).bind(*args, **{n: v for n, v in given.items() if n not in options}).arguments
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    divisible: list[str] = []
    for parameter in fn.params:
        name, value = parameter.name, values[parameter.name]
        is_one = type(value) is int and value == 1 and not parameter.do_not_specialize
        if parameter.is_constexpr or is_one:
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name] = "*" + _TYPES[value.dtype]
        elif isinstance(value, int):
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0 and not parameter.do_not_specialize:
                divisible.append(name)
        else:
            signature[name] = "fp32"
    return ShippedKernel(
        name=f"{fn.fn.__name__.strip('_')} {setting}",
        fn=fn,
        signature=signature,
        constexprs=constants,
        num_warps=options.get("num_warps", _DEFAULT_WARPS),
        num_stages=options.get("num_stages", _DEFAULT_STAGES),
        max_registers=options.get("maxnreg"),
        expect_wide_loads=fn.fn.__name__ in _STREAMING and "*u8" not in signature.values(),
        divisible_by_16=tuple(divisible),
    )
