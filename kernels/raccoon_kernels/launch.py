"""Launch Triton kernels with everything worked out once that a call does not change.

`kernel[grid](...)` looks at every argument's type and alignment, makes a key of them and of the options, and searches
its cache with it: 20 to 40 us of Python, as much as the kernels of this package take. A `Launch` keeps what the first
launch compiled and hands later calls' pointers straight to it. A `planned` function works out the grids and constants
for one set of shapes and types; its answers are kept.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

Plan = TypeVar("Plan", bound=Callable[..., Any])

_plans: list[Any] = []
# Plans that a CUDA graph was captured with, by function and arguments: replays read their tensors.
_captured: dict[tuple[Any, ...], Any] = {}
# The compute capability times ten that plans are made for where there is no CUDA device: an H100's and an H200's.
_assumed_capability = 90


def is_capturing() -> bool:
    """Tell whether what is launched now is captured in a CUDA graph instead of run."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def planned(function: Plan) -> Plan:
    """Keep the plans that a function makes, by its arguments, all of which must be hashable.

    The last 64 are kept, and every one that a CUDA graph was captured with.
    """
    kept = lru_cache(maxsize=64)(function)
    _plans.append(kept)

    @wraps(function)
    def plan(*arguments: Any) -> Any:
        made = kept(*arguments)
        if is_capturing():
            _captured[kept, *arguments] = made
        return made

    return plan  # type: ignore[return-value]


def forget_plans() -> None:
    """Drop every plan that no graph holds: what stands in for a kernel must not outlive its purpose."""
    for kept in _plans:
        kept.cache_clear()


def capability(device: torch.device) -> int:
    """Compute capability times ten of a device: what plans that differ between generations of GPUs ask."""
    if device.type != "cuda":
        return _assumed_capability
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@contextmanager
def assumed_capability(value: int) -> Iterator[None]:
    """Plan for another GPU than the one that is assumed where there is none."""
    global _assumed_capability
    kept, _assumed_capability = _assumed_capability, value
    forget_plans()
    try:
        yield
    finally:
        _assumed_capability = kept
        forget_plans()


class Launch:
    """One launch: the kernel, its grid, its numbers and its constants; called with the tensors.

    Args:
        kernel: a `triton.jit` function whose parameters are pointers, then numbers, then constants.
        grid: programs along each axis.
        numbers: the values of the numbers, in the order of the parameters.
        constants: the values of the constants by name, in the order of the parameters.
        options: `num_warps` and what else Triton's compiler is told.
    """

    __slots__ = ("_compiled", "_device", "_rest", "constants", "grid", "kernel", "numbers", "options")

    def __init__(
        self,
        kernel: Any,
        grid: Sequence[int],
        numbers: Sequence[int | float],
        constants: dict[str, Any],
        **options: Any,
    ) -> None:
        self.kernel = kernel
        self.grid = (*grid, *[1] * (3 - len(grid)))
        self.numbers = tuple(numbers)
        self.constants = constants
        self.options = options
        self._rest = (*self.numbers, *constants.values())
        self._compiled: Any = None
        self._device: int | None = None

    def __call__(self, *tensors: Tensor) -> None:
        """Launch on the device and the current stream of the first tensor; every call must pass the same dtypes."""
        device = tensors[0].get_device()
        if device >= 0 and device != torch.cuda.current_device():
            with torch.cuda.device(device):
                self(*tensors)
            return
        # What was compiled for aligned pointers may load 16 bytes at a time.
        bits = 0
        for tensor in tensors:
            bits |= tensor.data_ptr()
        is_aligned = not bits % 16
        if is_aligned and device == self._device:
            self._compiled(*tensors, *self._rest)
            return
        compiled = self.kernel[self.grid](*tensors, *self.numbers, **self.constants, **self.options)
        # The interpreter returns nothing to keep.
        if is_aligned and device >= 0 and hasattr(compiled, "packed_metadata"):
            self._compiled, self._device = compiled[self.grid], device
