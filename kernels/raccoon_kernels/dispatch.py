"""Which implementation of an op runs, and why.

`auto` takes Triton for CUDA tensors when Triton can be imported and the op has a kernel for what was asked; everything
else runs on torch. What is asked for by name works or raises. Triton's interpreter runs the kernels on CPU tensors for
tests: it is used only when `backend="triton"` is asked for and TRITON_INTERPRET=1 was set before the first kernel ran,
because Triton fixes the mode when a kernel is decorated.
"""

import importlib.util
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor

Backend = Literal["auto", "triton", "torch"]
"""The names that every op of this package accepts as `backend`."""

Implementation = TypeVar("Implementation", bound=Callable[..., Any])

_log = logging.getLogger("raccoon_kernels")


@dataclass(frozen=True, slots=True)
class Choice:
    """The implementation that runs and the reason for it in words."""

    backend: Literal["triton", "torch"]
    reason: str


@cache
def has_triton() -> bool:
    """Tell whether Triton is installed, without importing it."""
    return importlib.util.find_spec("triton") is not None


def is_interpreted() -> bool:
    """Tell whether Triton kernels are interpreted on the CPU (TRITON_INTERPRET=1)."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


@cache
def _log_once(op: str, choice: Choice) -> None:
    _log.info("%s runs on %s: %s", op, choice.backend, choice.reason)


@cache
def _triton_choice(op: str, backend: str) -> Choice:
    choice = Choice("triton", "asked for" if backend == "triton" else "cuda tensors")
    if backend == "auto":
        _log_once(op, choice)
    return choice


def choose(op: str, backend: str, device: torch.device, *, unsupported: str | None = None) -> Choice:
    """Choose the implementation of `op` for tensors on `device`.

    Args:
        op: the op's name, for the log and the errors.
        backend: "auto", "triton" or "torch".
        device: where the op's tensors lie.
        unsupported: why the op has no Triton kernel for these arguments, or None when it has one.

    Returns:
        The choice; the choice that `auto` made is logged once for each op and reason.

    Raises:
        ValueError: backend is none of the three names.
        RuntimeError: "triton" was asked for and cannot run here.
    """
    # First what a GPU's every call asks, in as little Python as possible.
    if unsupported is None and device.type == "cuda" and backend in ("auto", "triton") and has_triton():
        return _triton_choice(op, backend)
    if backend not in get_args(Backend):
        raise ValueError(f"backend of {op} must be one of {', '.join(get_args(Backend))}, got {backend!r}")
    if backend == "torch":
        return Choice("torch", "asked for")
    obstacle = None
    if not has_triton():
        obstacle = "triton is not installed (pip install triton)"
    elif unsupported is not None:
        obstacle = unsupported
    elif device.type != "cuda" and not (backend == "triton" and is_interpreted()):
        obstacle = f"the tensors are on {device.type}, and Triton needs CUDA tensors or TRITON_INTERPRET=1"
    if backend == "triton":
        if obstacle is not None:
            raise RuntimeError(f"{op} cannot run with backend='triton': {obstacle}; use backend='torch' or 'auto'")
        return Choice("triton", "asked for")
    choice = Choice("triton", f"{device.type} tensors") if obstacle is None else Choice("torch", obstacle)
    _log_once(op, choice)
    return choice


def without_autocast(implementation: Implementation) -> Implementation:
    """Run what an op stands for outside autocast, which would round the factors of its float32 sums to half precision.

    The first argument of the implementation must be a tensor.
    """

    @wraps(implementation)
    def run(*arguments: Any, **named: Any) -> Any:
        device = next(iter((*arguments, *named.values()))).device.type
        if not torch.is_autocast_enabled(device):
            return implementation(*arguments, **named)
        with torch.autocast(device, enabled=False):
            return implementation(*arguments, **named)

    return run  # type: ignore[return-value]


def call(
    op: Callable[..., Any],
    plain: Callable[..., Any],
    *arguments: Any,
    function: type[torch.autograd.Function] | None = None,
) -> Any:
    """Call an op, or what it stands for where nobody watches.

    The first call of a `torch.library` op imports torch's compiler, which takes 1.7 s of a fresh process, and each call
    goes through layers of Python that take as long as a kernel. Without a compiler tracing or a tensor subclass, the op
    would only call the function, and with a gradient to record, `function`, which is the op's autograd without those
    layers.
    """
    if torch.compiler.is_compiling():
        return op(*arguments)
    needs_gradient = False
    for argument in arguments:
        if isinstance(argument, Tensor):
            if type(argument) not in (Tensor, torch.nn.Parameter):
                return op(*arguments)
            needs_gradient |= argument.requires_grad
    if needs_gradient and torch.is_grad_enabled():
        return op(*arguments) if function is None else function.apply(*arguments)
    return plain(*arguments)
