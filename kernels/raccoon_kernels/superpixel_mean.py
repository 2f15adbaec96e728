"""Average the pixels of each superpixel.

x [F, C, H, W] and labels [F, H, W] of local ids give means [F, S, C] and counts [F, S]; an empty superpixel has mean 0
and count 0. Sums are float32 (float64 for float64 input; exact integers for uint8). The algorithm reads every pixel and
label once: F*H*W*(C*itemsize(x) + itemsize(labels)) bytes. The gradient flows to x and is a gather.

Both backends are deterministic on the CPU. On a GPU the kernels are deterministic with `grid`; without it they use
atomic additions, or a stable sort where `torch.use_deterministic_algorithms` is on or there are many channels.

Source: RACCooN, section 3.1, "mean pixel feature per superpixel"; which features is open, see docs/differences.md.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from raccoon_kernels.checks import check_label_metadata, check_label_values, is_checked
from raccoon_kernels.dispatch import call, choose

X_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8)
# Frames that the CPU converts at a time: the int64 ids of 8 frames of 336x336 are 7 MB, and chunks of 4 to 16 frames
# took the same time.
CPU_CHUNK_FRAMES = 8


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    if dtype == torch.uint8:
        return torch.int64
    return torch.float64 if dtype == torch.float64 else torch.float32


def divide_sums(sums: Tensor, counts: Tensor) -> Tensor:
    """Turn sums [F, C, S] and counts [F, S] into means [F, S, C]; integer sums are divided in float64."""
    divisor = counts.clamp(min=1)[:, None]
    if not sums.is_floating_point():
        return (sums.double() / divisor).float().transpose(1, 2).contiguous()
    return (sums / divisor).transpose(1, 2).contiguous()


def _mean_torch(x: Tensor, labels: Tensor, num_superpixels: int, checked: bool) -> tuple[Tensor, Tensor]:
    num_frames, channels = x.shape[:2]
    dtype = _accumulator(x.dtype)
    sums = torch.zeros(num_frames, channels, num_superpixels, dtype=dtype, device=x.device)
    counts = torch.zeros(num_frames, num_superpixels, dtype=torch.int32, device=x.device)
    # scatter_add_ has no deterministic kernel on CUDA, index_add_ has one and takes it when asked.
    if x.device.type == "cuda" and torch.are_deterministic_algorithms_enabled():
        if checked:
            check_label_values(labels, num_superpixels)
        firsts = torch.arange(num_frames, device=x.device)[:, None]
        ids = (labels.flatten(1).long() + firsts * num_superpixels).flatten()
        rows = torch.zeros(num_frames * num_superpixels, channels + 1, dtype=dtype, device=x.device)
        ones = torch.ones(num_frames, 1, *x.shape[2:], dtype=dtype, device=x.device)
        rows.index_add_(0, ids, torch.cat([x.to(dtype), ones], 1).permute(0, 2, 3, 1).flatten(0, 2))
        rows = rows.view(num_frames, num_superpixels, channels + 1)
        counts = rows[..., channels].round().to(torch.int32)
        return divide_sums(rows[..., :channels].transpose(1, 2), counts), counts
    step = num_frames if x.device.type == "cuda" else CPU_CHUNK_FRAMES
    one = torch.ones((), dtype=torch.int32, device=x.device)
    for start in range(0, num_frames, step):
        frames = slice(start, start + step)
        ids = labels[frames].flatten(1).long()
        if checked:
            check_label_values(ids, num_superpixels)
        values = x[frames].to(dtype).flatten(2)
        sums[frames].scatter_add_(2, ids[:, None].expand(values.shape), values)
        counts[frames].scatter_add_(1, ids, one.expand(ids.shape))
    return divide_sums(sums, counts), counts


def _backward_torch(grad_SC: Tensor, labels: Tensor, dtype: torch.dtype) -> Tensor:
    num_frames, _, channels = grad_SC.shape
    ids = labels.flatten(1).long()[:, None].expand(-1, channels, -1)
    return grad_SC.transpose(1, 2).gather(2, ids).to(dtype).view(num_frames, channels, *labels.shape[1:])


def _unsupported(dtype: torch.dtype) -> str | None:
    return "float64 runs on torch" if dtype == torch.float64 else None


def _mean_triton(
    x: Tensor, labels: Tensor, num_superpixels: int, grid: Sequence[int], checked: bool
) -> tuple[Tensor, Tensor]:
    from raccoon_kernels import triton_superpixel, triton_superpixel_general

    if checked:
        check_label_values(labels, num_superpixels)
    if grid and triton_superpixel.fits_grid(x, (grid[0], grid[1])):
        return triton_superpixel.superpixel_mean_grid(x, labels, (grid[0], grid[1]))
    return triton_superpixel_general.superpixel_mean_general(x, labels, num_superpixels)


def _run_superpixel_mean(
    x: Tensor, labels: Tensor, num_superpixels: int, grid: Sequence[int], backend: str, checked: bool
) -> tuple[Tensor, Tensor]:
    """Run the forward; `grid` is empty for general label maps."""
    if choose("superpixel_mean", backend, x.device, unsupported=_unsupported(x.dtype)).backend == "triton":
        return _mean_triton(x, labels, num_superpixels, grid, checked)
    return _mean_torch(x, labels, num_superpixels, checked)


_superpixel_mean = torch.library.custom_op("raccoon::superpixel_mean", _run_superpixel_mean, mutates_args=())


@_superpixel_mean.register_fake
def _(
    x: Tensor, labels: Tensor, num_superpixels: int, grid: Sequence[int], backend: str, checked: bool
) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    means = x.new_empty(x.shape[0], num_superpixels, x.shape[1], dtype=dtype)
    return means, x.new_empty(x.shape[0], num_superpixels, dtype=torch.int32)


def _run_superpixel_mean_backward(
    grad: Tensor, labels: Tensor, counts: Tensor, dtype: torch.dtype, backend: str
) -> Tensor:
    """Give every pixel its superpixel's gradient over the superpixel's count."""
    if choose("superpixel_mean", backend, grad.device, unsupported=_unsupported(dtype)).backend == "triton":
        from raccoon_kernels import triton_superpixel_general

        return triton_superpixel_general.superpixel_mean_backward(grad, labels, counts, dtype)
    return _backward_torch(grad / counts.clamp(min=1)[..., None], labels, dtype)


_superpixel_mean_backward = torch.library.custom_op(
    "raccoon::superpixel_mean_backward", _run_superpixel_mean_backward, mutates_args=()
)


@_superpixel_mean_backward.register_fake
def _(grad: Tensor, labels: Tensor, counts: Tensor, dtype: torch.dtype, backend: str) -> Tensor:
    return grad.new_empty(grad.shape[0], grad.shape[2], *labels.shape[1:], dtype=dtype)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, labels, _, _, ctx.backend, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(labels, output[1])
    ctx.dtype = x.dtype


def _backward(ctx: Any, grad_means: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    return (_superpixel_mean_backward(grad_means, *ctx.saved_tensors, ctx.dtype, ctx.backend), *[None] * 5)


_superpixel_mean.register_autograd(_backward, setup_context=_setup_context)


class SuperpixelMean(torch.autograd.Function):
    """The op with its gradient, without the layers of a registered op, which take as long as the kernels."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        """Run the forward on the arguments of the op."""
        output = _run_superpixel_mean(*inputs)
        _setup_context(ctx, inputs, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_means: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradient of x."""
        labels, counts = ctx.saved_tensors
        grad = _run_superpixel_mean_backward(grad_means, labels, counts, ctx.dtype, ctx.backend)
        return (grad, *[None] * 5)


@lru_cache(maxsize=64)
def _check_metadata(
    x_dtype: torch.dtype,
    x_shape: tuple[int, ...],
    x_device: torch.device,
    label_dtype: torch.dtype,
    label_shape: tuple[int, ...],
    label_device: torch.device,
    num_superpixels: int,
    grid: tuple[int, ...] | None,
) -> None:
    """Check what costs nothing; what passed is remembered, as a loop asks the same every time."""
    if x_dtype not in X_DTYPES:
        raise TypeError(
            f"x must be float16, bfloat16, float32, float64 or uint8, got {x_dtype}; convert it with x.float()"
        )
    check_label_metadata(label_dtype, label_shape)
    if len(x_shape) != 4 or x_shape[0] != label_shape[0] or x_shape[2:] != label_shape[1:] or x_shape[1] == 0:
        raise ValueError(
            f"x must be [F, C, H, W] with C >= 1 over labels [F, H, W] = {list(label_shape)}, got {list(x_shape)}"
        )
    if x_device != label_device:
        raise ValueError(f"x and labels must be on one device, got {x_device} and {label_device}")
    if num_superpixels < 1:
        raise ValueError(f"num_superpixels must be at least 1, got {num_superpixels}")
    if grid is not None and (len(grid) != 2 or min(grid) < 1 or grid[0] * grid[1] != num_superpixels):
        raise ValueError(f"grid must be (ny, nx) with ny * nx = num_superpixels = {num_superpixels}, got {grid}")


def superpixel_mean(
    x: Tensor,
    labels: Tensor,
    num_superpixels: int,
    *,
    grid: tuple[int, int] | None = None,
    backend: str = "auto",
    checked: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Average the pixels of each superpixel, frame by frame.

    Args:
        x: features [F, C, H, W]: float16, bfloat16, float32, float64 or uint8; any strides.
        labels: local superpixel ids [F, H, W] in [0, num_superpixels): int16, int32 or int64.
        num_superpixels: S, how many ids a frame may use; unused ids are allowed.
        grid: (ny, nx) promises that S = ny*nx cells of ceil(H/ny) x ceil(W/nx) pixels tile the frame and that each
            pixel's label is one of the 3x3 cells around its own, as a superpixel grid gives. The GPU then needs no
            atomics. A frame that breaks the promise stays right and deterministic, but costs milliseconds there.
        backend: "auto", "triton" or "torch"; see `raccoon_kernels.dispatch`.
        checked: whether label values are checked: None checks CPU tensors only, True waits for the GPU.

    Returns:
        means [F, S, C] float32 (float64 for float64 input), 0 for an empty superpixel, and counts [F, S] int32. The
        gradient flows to x.

    Raises:
        TypeError: x or labels has another dtype.
        ValueError: the shapes do not match, grid does not give num_superpixels, or (checked) a label is out of range.
        RuntimeError: backend "triton" was asked for and cannot run.

    Source: RACCooN, section 3.1.
    """
    shape = None if grid is None else tuple(grid)
    # A compiler traces the checks themselves and warns of the cache.
    check = _check_metadata.__wrapped__ if torch.compiler.is_compiling() else _check_metadata
    check(x.dtype, x.shape, x.device, labels.dtype, labels.shape, labels.device, num_superpixels, shape)
    means, counts = call(
        _superpixel_mean,
        _run_superpixel_mean,
        x,
        labels,
        num_superpixels,
        list(grid or ()),
        backend,
        is_checked(checked, x.device),
        function=SuperpixelMean,
    )
    return means, counts
