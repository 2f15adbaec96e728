# A Triton kernel takes pointers and numbers that no annotation names.
# ruff: noqa: ANN001, ANN202
# mypy: disallow-untyped-defs=False
"""Superpixel means on a superpixel grid: partial sums of cells or strips, then each superpixel's own sum.

A pixel can only belong to the 3x3 cells around its own, so a superpixel adds a few partial sums in a fixed order:
deterministic, and no atomics. A program of `triton_cells` or `triton_strips` that meets a pixel outside those cells,
or a product that is not a number, which would reach its neighbours, says so; the superpixels of such a frame are then
added up anew over all its pixels. That is slow, deterministic too, and right for every label map.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from raccoon_kernels.launch import Launch, capability, planned
from raccoon_kernels.triton_cells import cells_launch
from raccoon_kernels.triton_strips import strips_launch

# Up to so many channels the nine sums of a pixel column stay in registers; more go to the matrix units.
CELLS_MAX_CHANNELS = 16


@triton.jit
def _has_strays(strays_ptr, first, last):
    """Tell whether one of the programs first to last met a pixel that its partial sums leave out."""
    found = tl.zeros([128], dtype=tl.int32)
    for start in range(first, last + 1, 128):
        programs = start + tl.arange(0, 128)
        found |= tl.load(strays_ptr + programs, mask=programs <= last, other=0)
    return tl.max(found, axis=0) > 0


@triton.jit
def _add_anew(
    x_ptr,
    labels_ptr,
    means_ptr,
    counts_ptr,
    rows,
    is_row,
    first_frame,
    last_frame,
    first_channel,
    last_channel,
    stride_xf,
    stride_xc,
    stride_xh,
    stride_xw,
    S,
    C,
    HW,
    W,
    BLOCK_S: tl.constexpr,
    IS_INTEGER: tl.constexpr,
):
    """Compute the means of some superpixels from all pixels of their frames, channel by channel."""
    SUM_TYPE: tl.constexpr = tl.int32 if IS_INTEGER else tl.float32
    for channel in range(first_channel, last_channel):
        total = tl.zeros([BLOCK_S], dtype=SUM_TYPE)
        count = tl.zeros([BLOCK_S], dtype=tl.int32)
        for frame in range(first_frame, last_frame + 1):
            plane = x_ptr + frame * stride_xf + tl.cast(channel, tl.int64) * stride_xc
            for start in range(0, HW, 128):
                pixels = start + tl.arange(0, 128)
                label = tl.load(labels_ptr + frame * HW + pixels, mask=pixels < HW, other=-1).to(tl.int32)
                is_label = (label >= 0) & (label < S)
                offset = (pixels // W).to(tl.int64) * stride_xh + (pixels % W).to(tl.int64) * stride_xw
                x = tl.load(plane + offset, mask=is_label, other=0).to(SUM_TYPE)
                hit = (rows[:, None] == (frame * S + label)[None, :]) & is_label[None, :]
                total += tl.sum(tl.where(hit, x[None, :], 0), axis=1)
                count += tl.sum(hit.to(tl.int32), axis=1)
        if IS_INTEGER:
            # In float32 a sum above 16.7 million would be rounded before it is divided.
            means = (total.to(tl.float64) / tl.maximum(count, 1).to(tl.float64)).to(tl.float32)
        else:
            means = tl.div_rn(total.to(tl.float32), tl.maximum(count, 1).to(tl.float32))
        tl.store(means_ptr + rows * C + channel, means, mask=is_row)
        tl.store(counts_ptr + rows, count, mask=is_row & (rows < tl.where(channel == 0, rows + 1, 0)))


@triton.jit
def _superpixel_cells_combine_kernel(
    x_ptr,
    labels_ptr,
    partials_ptr,  # [groups, cells, 9, 4] float32
    strays_ptr,  # [programs] int32
    means_ptr,  # [F, S, C] float32
    counts_ptr,  # [F, S] int32
    stride_xf,
    stride_xc,
    stride_xh,
    stride_xw,
    num_rows,  # F * S
    C,
    HW,
    W,
    ny,
    nx,
    cells_of_program,
    BLOCK_S: tl.constexpr,
    IS_INTEGER: tl.constexpr,
):
    SUM_TYPE: tl.constexpr = tl.int32 if IS_INTEGER else tl.float32
    start = tl.program_id(0) * BLOCK_S
    rows = start.to(tl.int64) + tl.arange(0, BLOCK_S)
    is_row = rows < num_rows
    S = ny * nx
    first_frame, last_frame = start // S, (tl.minimum(start + BLOCK_S, num_rows) - 1) // S
    first_channel = tl.program_id(1) * 3
    first_program = first_frame * S // cells_of_program
    if _has_strays(strays_ptr, first_program, ((last_frame + 1) * S - 1) // cells_of_program):
        _add_anew(
            x_ptr,
            labels_ptr,
            means_ptr,
            counts_ptr,
            rows,
            is_row,
            first_frame.to(tl.int64),
            last_frame.to(tl.int64),
            first_channel,
            tl.minimum(first_channel + 3, C),
            stride_xf,
            stride_xc,
            stride_xh,
            stride_xw,
            S,
            C,
            HW,
            W,
            BLOCK_S,
            IS_INTEGER,
        )
    else:
        cell = (rows % S).to(tl.int32)
        cell_y, cell_x = cell // nx, cell % nx
        planes = tl.arange(0, 4)
        partials_ptr += tl.program_id(1).to(tl.int64) * num_rows * 36
        total = tl.zeros([BLOCK_S, 4], dtype=SUM_TYPE)
        for i in tl.static_range(9):
            # Of the neighbour that the cell is neighbour i of.
            y, x = cell_y + 1 - i // 3, cell_x + 1 - i % 3
            valid = is_row & (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
            source = (rows + (1 - i // 3) * nx + 1 - i % 3) * 36 + i * 4
            part = tl.load(partials_ptr + source[:, None] + planes[None, :], mask=valid[:, None], other=0.0)
            total += part.to(SUM_TYPE)
        count = tl.sum(tl.where((planes == 3)[None, :], total, 0), axis=1).to(tl.int32)
        divisor = tl.maximum(count, 1).to(tl.float32)
        means = tl.div_rn(total.to(tl.float32), tl.broadcast_to(divisor[:, None], [BLOCK_S, 4]))
        channels = first_channel + planes
        is_mean = is_row[:, None] & ((planes < 3) & (channels < C))[None, :]
        tl.store(means_ptr + rows[:, None] * C + channels[None, :], means, mask=is_mean)
        tl.store(counts_ptr + rows, count, mask=rows < tl.where(tl.program_id(1) == 0, num_rows, 0))


@triton.jit
def _superpixel_strips_combine_kernel(
    x_ptr,
    labels_ptr,
    partials_ptr,  # [F, segments, strips, 2 * TILES + 2, 4, C] float32
    partial_counts_ptr,  # [F, segments, strips, 2 * TILES + 2, 4] int32
    strays_ptr,  # [F, segments, strips, blocks] int32
    means_ptr,  # [F, S, C] float32
    counts_ptr,  # [F, S] int32
    stride_xf,
    stride_xc,
    stride_xh,
    stride_xw,
    num_rows,  # F * S
    C,
    HW,
    W,
    ny,
    nx,
    segments,
    strips,
    programs_of_frame,
    TILES: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_C: tl.constexpr,
    IS_INTEGER: tl.constexpr,
):
    SUM_TYPE: tl.constexpr = tl.int32 if IS_INTEGER else tl.float32
    start = tl.program_id(0) * BLOCK_S
    rows = start.to(tl.int64) + tl.arange(0, BLOCK_S)
    is_row = rows < num_rows
    S = ny * nx
    first_frame, last_frame = start // S, (tl.minimum(start + BLOCK_S, num_rows) - 1) // S
    first_channel = tl.program_id(1) * BLOCK_C
    if _has_strays(strays_ptr, first_frame * programs_of_frame, (last_frame + 1) * programs_of_frame - 1):
        _add_anew(
            x_ptr,
            labels_ptr,
            means_ptr,
            counts_ptr,
            rows,
            is_row,
            first_frame.to(tl.int64),
            last_frame.to(tl.int64),
            first_channel,
            tl.minimum(first_channel + BLOCK_C, C),
            stride_xf,
            stride_xc,
            stride_xh,
            stride_xw,
            S,
            C,
            HW,
            W,
            BLOCK_S,
            IS_INTEGER,
        )
    else:
        channels = first_channel + tl.arange(0, BLOCK_C)
        is_channel = (channels < C)[None, :]
        frame, cell = rows // S, (rows % S).to(tl.int32)
        cell_y, cell_x = cell // nx, cell % nx
        # A cell lies in one segment, and on its border in the next one as well; and likewise in two strips.
        own = cell_y // (2 * TILES)
        depth = cell_y % (2 * TILES)
        other = tl.where(depth == 0, own - 1, tl.where(depth == 2 * TILES - 1, own + 1, -1))
        total = tl.zeros([BLOCK_S, BLOCK_C], dtype=SUM_TYPE)
        count = tl.zeros([BLOCK_S], dtype=tl.int32)
        for i in tl.static_range(4):
            segment = own if i < 2 else other
            strip = (cell_x + 1) // 2 - 1 + i % 2
            valid = is_row & (segment >= 0) & (segment < segments) & (strip >= 0) & (strip < strips)
            local_y, local_x = cell_y - segment * 2 * TILES + 1, cell_x - 2 * strip + 1
            source = ((frame * segments + segment) * strips + strip) * (2 * TILES + 2) + local_y
            source = source * 4 + local_x
            part = partials_ptr + source[:, None] * C + channels[None, :]
            total += tl.load(part, mask=valid[:, None] & is_channel, other=0).to(SUM_TYPE)
            count += tl.load(partial_counts_ptr + source, mask=valid, other=0)
        divisor = tl.maximum(count, 1).to(tl.float32)
        means = tl.div_rn(total.to(tl.float32), tl.broadcast_to(divisor[:, None], [BLOCK_S, BLOCK_C]))
        tl.store(means_ptr + rows[:, None] * C + channels[None, :], means, mask=is_row[:, None] & is_channel)
        tl.store(counts_ptr + rows, count, mask=rows < tl.where(tl.program_id(1) == 0, num_rows, 0))


def grid_cell(grid: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Height and width in pixels of the cells of a superpixel grid."""
    return -(-height // grid[0]), -(-width // grid[1])


def fits_grid(x: Tensor, grid: tuple[int, int]) -> bool:
    """Tell whether the grid path takes these pixels: tiles of moderate size, and exact sums of uint8 pixels."""
    height, width = x.shape[2:]
    cell_h, cell_w = grid_cell(grid, height, width)
    # A strip's tile of 256 columns would take more memory than a multiprocessor of an RTX 4090 has.
    if 2 * cell_w > (256 if x.shape[1] <= CELLS_MAX_CHANNELS else 128):
        return False
    # What is added to a program's first address within its cells is counted in 32 bits.
    if max(cell_h * x.stride(2), 256 * x.stride(3)) >= 2**31:
        return False
    # 255 * 2^16 is the greatest sum of uint8 pixels that float32 surely holds, and 2^31 what int32 does.
    return x.dtype != torch.uint8 or (4 * cell_h * cell_w <= 2**16 and 255 * height * width < 2**31)


@dataclass(frozen=True, slots=True)
class _Plan:
    add: Launch
    combine: Launch
    partials_shape: tuple[int, ...]
    counts_shape: tuple[int, ...]  # empty where the counts stand beside the sums
    num_flags: int


def superpixel_mean_grid(x: Tensor, labels: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Launch the grid path; returns means [F, S, C] and counts [F, S]."""
    plan = _plan(x.shape, x.stride(), x.dtype, labels.dtype, grid, x.device)
    labels = labels.contiguous()
    num_frames, channels = x.shape[:2]
    partials = x.new_empty(plan.partials_shape, dtype=torch.float32)
    strays = x.new_empty(plan.num_flags, dtype=torch.int32)
    means = partials.new_empty((num_frames, grid[0] * grid[1], channels))
    counts = strays.new_empty((num_frames, grid[0] * grid[1]))
    if plan.counts_shape:
        partial_counts = strays.new_empty(plan.counts_shape)
        plan.add(x, labels, partials, partial_counts, strays)
        plan.combine(x, labels, partials, partial_counts, strays, means, counts)
    else:
        plan.add(x, labels, partials, strays)
        plan.combine(x, labels, partials, strays, means, counts)
    return means, counts


@planned
def _plan(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: torch.dtype,
    label_dtype: torch.dtype,  # each dtype and device is a plan of its own
    grid: tuple[int, int],
    device: torch.device,
) -> _Plan:
    num_frames, channels, height, width = shape
    ny, nx = grid
    cell = grid_cell(grid, height, width)
    num_rows = num_frames * ny * nx
    # What a thread's registers hold; more would spill.
    block_s = 32 if channels > CELLS_MAX_CHANNELS or capability(device) >= 90 else 16
    common = (*strides, num_rows, channels, height * width, width, ny, nx)
    if channels > CELLS_MAX_CHANNELS:
        add, (segments, strips, tiles), blocks = strips_launch(shape, dtype, grid, cell, strides)
        block_c = min(64, triton.next_power_of_2(channels))
        combine = Launch(
            _superpixel_strips_combine_kernel,
            (triton.cdiv(num_rows, block_s), triton.cdiv(channels, block_c)),
            (*common, segments, strips, segments * strips * blocks),
            {"TILES": tiles, "BLOCK_S": block_s, "BLOCK_C": block_c, "IS_INTEGER": dtype == torch.uint8},
            num_warps=4,
        )
        counts_shape = (num_frames, segments, strips, 2 * tiles + 2, 4)
        flags = num_frames * segments * strips * blocks
        return _Plan(add, combine, (*counts_shape, channels), counts_shape, flags)
    add, programs, cells = cells_launch(shape, dtype, grid, cell, strides)
    groups = triton.cdiv(channels, 3)
    combine = Launch(
        _superpixel_cells_combine_kernel,
        (triton.cdiv(num_rows, block_s), groups),
        (*common, cells),
        {"BLOCK_S": block_s, "IS_INTEGER": dtype == torch.uint8},
        num_warps=1,
    )
    return _Plan(add, combine, (groups, num_rows, 9, 4), (), programs)
