# A Triton kernel takes pointers and numbers that no annotation names.
# ruff: noqa: ANN001, ANN202
# mypy: disallow-untyped-defs=False
"""Superpixel means of any label map, and the gradient, which needs no grid either.

Labels that no grid orders: a stable sort by superpixel, then one program a superpixel adds its pixels in order
(deterministic), or atomic additions (faster for few channels).

Backward: grad_x[p] = g[label(p)] / count[label(p)], a gather; deterministic.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from raccoon_kernels.launch import Launch, planned

# Labels with at least this many channels are sorted even where atomics are allowed.
SORT_MIN_CHANNELS = 8
# Frames are the second axis of the atomic kernel's grid, which CUDA limits.
MAX_ATOMIC_FRAMES = 65535


@triton.jit
def _superpixel_sorted_kernel(
    x_ptr,
    order_ptr,  # [F * H * W] int64: pixels, superpixel after superpixel
    starts_ptr,  # [F * S + 1] int64: where each superpixel's pixels begin in `order`
    means_ptr,  # [F, S, C] float32
    stride_xf,
    stride_xc,
    stride_xh,
    stride_xw,
    S,
    C,
    HW,
    W,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    IS_INTEGER: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    channels = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    frame = row // S
    start, end = tl.load(starts_ptr + row), tl.load(starts_ptr + row + 1)
    SUM_TYPE: tl.constexpr = tl.int64 if IS_INTEGER else tl.float32
    total = tl.zeros([BLOCK_C], dtype=SUM_TYPE)
    x_base = x_ptr + frame * stride_xf + channels.to(tl.int64)[:, None] * stride_xc
    for position in range(start, end, BLOCK_P):
        index = position + tl.arange(0, BLOCK_P)
        valid = index < end
        pixel = tl.load(order_ptr + index, mask=valid, other=0) - frame * HW
        offset = (pixel // W) * stride_xh + (pixel % W) * stride_xw
        x = tl.load(x_base + offset[None, :], mask=valid[None, :] & (channels < C)[:, None], other=0)
        total += tl.sum(x.to(SUM_TYPE), axis=1)
    if IS_INTEGER:
        # In float32 a sum above 16.7 million would be rounded before it is divided.
        means = (total.to(tl.float64) / tl.maximum(end - start, 1).to(tl.float64)).to(tl.float32)
    else:
        divisor = tl.full([BLOCK_C], 1, dtype=tl.float32) * tl.maximum(end - start, 1).to(tl.float32)
        means = tl.div_rn(total.to(tl.float32), divisor)
    tl.store(means_ptr + row * C + channels, means, mask=channels < C)


@triton.jit
def _superpixel_atomic_kernel(
    x_ptr,
    labels_ptr,
    sums_ptr,  # [F, S, C] float32 (int32 for uint8 pixels), zero
    counts_ptr,  # [F, S] int32, zero
    stride_xf,
    stride_xc,
    stride_xh,
    stride_xw,
    S,
    C,
    HW,
    W,
    BLOCK_P: tl.constexpr,
):
    frame = tl.program_id(1).to(tl.int64)
    pixels = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    valid = pixels < HW
    label = tl.load(labels_ptr + frame * HW + pixels, mask=valid, other=-1).to(tl.int64)
    valid &= (label >= 0) & (label < S)
    target = frame * S + label
    tl.atomic_add(counts_ptr + target, 1, mask=valid, sem="relaxed")
    x_base = x_ptr + frame * stride_xf + (pixels // W) * stride_xh + (pixels % W) * stride_xw
    for c in range(0, C):
        x = tl.load(x_base, mask=valid, other=0)
        tl.atomic_add(sums_ptr + target * C + c, x.to(sums_ptr.dtype.element_ty), mask=valid, sem="relaxed")
        x_base += stride_xc


@triton.jit
def _superpixel_mean_bwd_kernel(
    grad_means_ptr,  # [F, S, C] float32
    counts_ptr,  # [F, S] int32
    labels_ptr,
    grad_ptr,  # [F, C, H, W]
    S,
    C,
    HW,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    blocks = tl.cdiv(HW, BLOCK_P)
    frame = (tl.program_id(0) // blocks).to(tl.int64)
    pixels = (tl.program_id(0) % blocks) * BLOCK_P + tl.arange(0, BLOCK_P)
    channels = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    valid = pixels < HW
    label = tl.load(labels_ptr + frame * HW + pixels, mask=valid, other=-1).to(tl.int32)
    in_range = (label >= 0) & (label < S)
    row = frame * S + label
    is_channel = (channels < C)[:, None]
    count = tl.maximum(tl.load(counts_ptr + row, mask=in_range, other=1), 1).to(tl.float32)
    source = grad_means_ptr + row[None, :] * C + channels[:, None]
    shared = tl.load(source, mask=in_range[None, :] & is_channel, other=0.0) / count[None, :]
    target = (frame * C + channels)[:, None] * HW + pixels[None, :]
    tl.store(grad_ptr + target, shared.to(grad_ptr.dtype.element_ty), mask=valid[None, :] & is_channel)


def superpixel_mean_general(x: Tensor, labels: Tensor, num_superpixels: int) -> tuple[Tensor, Tensor]:
    """Launch the path for any label map: sorted where determinism or many channels ask for it, else atomic."""
    num_frames, channels, height, width = x.shape
    labels = labels.contiguous()
    is_integer = x.dtype == torch.uint8
    # Integer additions are exact in any order.
    needs_order = torch.are_deterministic_algorithms_enabled() and not is_integer
    if needs_order or channels >= SORT_MIN_CHANNELS or num_frames > MAX_ATOMIC_FRAMES:
        return _sorted(x, labels, num_superpixels)
    kind = torch.float32
    if is_integer:
        kind = torch.int32 if 255 * height * width < 2**31 else torch.int64
    sums = torch.zeros(num_frames, num_superpixels, channels, dtype=kind, device=x.device)
    counts = torch.zeros(num_frames, num_superpixels, dtype=torch.int32, device=x.device)
    launch = _atomic_launch(x.shape, x.stride(), num_superpixels, x.dtype, labels.dtype, x.device)
    launch(x, labels, sums, counts)
    divisor = counts.clamp(min=1)[..., None]
    return (sums.double() / divisor).float() if is_integer else sums / divisor, counts


@planned
def _atomic_launch(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    num_superpixels: int,
    dtype: torch.dtype,  # each dtype and device is a plan of its own
    label_dtype: torch.dtype,
    device: torch.device,
) -> Launch:
    num_frames, channels, height, width = shape
    block = 1024
    return Launch(
        _superpixel_atomic_kernel,
        (triton.cdiv(height * width, block), num_frames),
        (*strides, num_superpixels, channels, height * width, width),
        {"BLOCK_P": block},
        num_warps=4,
    )


def _sorted(x: Tensor, labels: Tensor, num_superpixels: int) -> tuple[Tensor, Tensor]:
    num_frames, channels = x.shape[:2]
    rows = num_frames * num_superpixels
    firsts = torch.arange(num_frames, device=x.device)[:, None] * num_superpixels
    ids = labels.flatten(1).to(torch.int32 if rows < 2**31 - 1 else torch.int64)
    # A label outside the range is left out: its pixels sort behind the last superpixel.
    keys = torch.where((ids >= 0) & (ids < num_superpixels), ids + firsts.to(ids.dtype), rows).flatten()
    keys, order = keys.sort(stable=True)
    starts = torch.searchsorted(keys, torch.arange(rows + 1, device=x.device, dtype=keys.dtype))
    means = torch.empty(num_frames, num_superpixels, channels, dtype=torch.float32, device=x.device)
    launch = _sorted_launch(x.shape, x.stride(), num_superpixels, x.dtype, x.device)
    launch(x, order, starts, means)
    return means, starts.diff().to(torch.int32).view(num_frames, num_superpixels)


@planned
def _sorted_launch(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    num_superpixels: int,
    dtype: torch.dtype,
    device: torch.device,  # each device is a plan of its own
) -> Launch:
    num_frames, channels, height, width = shape
    block_c = min(32, triton.next_power_of_2(channels))
    return Launch(
        _superpixel_sorted_kernel,
        (num_frames * num_superpixels, triton.cdiv(channels, block_c)),
        (*strides, num_superpixels, channels, height * width, width),
        {"BLOCK_P": 128, "BLOCK_C": block_c, "IS_INTEGER": dtype == torch.uint8},
        num_warps=4,
    )


def superpixel_mean_backward(grad_means: Tensor, labels: Tensor, counts: Tensor, dtype: torch.dtype) -> Tensor:
    """Launch the backward: gradients of x [F, C, H, W] from those of the means [F, S, C] float32."""
    num_frames, _, channels = grad_means.shape
    launch = _backward_launch(grad_means.shape, labels.shape, grad_means.dtype, labels.dtype, dtype, labels.device)
    grad = grad_means.new_empty((num_frames, channels, *labels.shape[1:]), dtype=dtype)
    launch(grad_means.contiguous(), counts.contiguous(), labels.contiguous(), grad)
    return grad


@planned
def _backward_launch(
    means_shape: tuple[int, ...],
    label_shape: tuple[int, ...],
    means_dtype: torch.dtype,  # each dtype and device is a plan of its own
    label_dtype: torch.dtype,
    dtype: torch.dtype,
    device: torch.device,
) -> Launch:
    num_frames, num_superpixels, channels = means_shape
    pixels = label_shape[1] * label_shape[2]
    block_p, block_c = 256, min(16, triton.next_power_of_2(channels))
    return Launch(
        _superpixel_mean_bwd_kernel,
        (num_frames * triton.cdiv(pixels, block_p), triton.cdiv(channels, block_c)),
        (num_superpixels, channels, pixels),
        {"BLOCK_P": block_p, "BLOCK_C": block_c},
        num_warps=4,
    )
