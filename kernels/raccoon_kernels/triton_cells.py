# A Triton kernel takes pointers and numbers that no annotation names.
# ruff: noqa: ANN001, ANN202
# mypy: disallow-untyped-defs=False
"""Superpixel means of few channels: the partial sums of the cells of a superpixel grid.

A pixel can only belong to the 3x3 cells around its own. A program walks down the rows of some cells and keeps the nine
sums of each pixel column in registers, for three channels and a fourth of ones, which counts. Every pixel is read once.
"""

import torch
import triton
import triton.language as tl

from raccoon_kernels.launch import Launch


@triton.jit
def _superpixel_cells_fwd_kernel(
    x_ptr,
    labels_ptr,
    partials_ptr,  # [groups, cells, 9, 4] float32: three channels' sums and the count of each neighbour
    strays_ptr,  # [programs] int32: whether a pixel lies outside the 3x3 cells
    stride_xf,
    stride_xc,
    stride_xh,
    stride_xw,
    C,
    H,
    W,
    ny,
    nx,
    num_cells,
    CELL_H: tl.constexpr,
    CELL_W: tl.constexpr,
    BLOCK_X: tl.constexpr,
    CELLS: tl.constexpr,
    VECTOR: tl.constexpr,
    UNROLL: tl.constexpr,
    NUM_STAGES: tl.constexpr,
    HAS_ROWS: tl.constexpr,
    IS_INTEGER: tl.constexpr,
):
    lanes = tl.arange(0, CELLS * BLOCK_X)
    cell = tl.program_id(0) * CELLS + lanes // BLOCK_X
    column = lanes % BLOCK_X
    frame = cell // (ny * nx)
    own = cell % (ny * nx)
    cell_y, cell_x = own // nx, own % nx
    y0, x = cell_y * CELL_H, cell_x * CELL_W + column
    in_columns = (cell < num_cells) & (column < CELL_W) & (x < W)
    height = tl.minimum(CELL_H, H - y0)
    # Three channels, and ones in place of a fourth: they count the pixels.
    planes = tl.arange(0, 4)
    channels = tl.program_id(1) * 3 + planes
    is_channel = (planes < 3) & (channels < C)
    label_base = labels_ptr + frame.to(tl.int64) * H * W + y0 * W + x
    x_base = x_ptr + frame.to(tl.int64) * stride_xf + y0.to(tl.int64) * stride_xh + x.to(tl.int64) * stride_xw
    x_base = x_base[None, :] + channels.to(tl.int64)[:, None] * stride_xc
    # As many labels as pixels a thread: they then lie in the same threads, and no value changes threads between the
    # load and the sums.
    label_base = tl.max_contiguous(label_base, [VECTOR])
    # Said of pixels that are not neighbours in memory, this would load the wrong ones.
    if HAS_ROWS:
        x_base = tl.max_contiguous(x_base, [1, VECTOR])

    SUM_TYPE: tl.constexpr = tl.int32 if IS_INTEGER else tl.float32
    s0 = tl.zeros([4, CELLS * BLOCK_X], dtype=SUM_TYPE)
    s1, s2, s3, s4, s5, s6, s7, s8 = s0, s0, s0, s0, s0, s0, s0, s0
    for row in tl.range(0, CELL_H, loop_unroll_factor=UNROLL, num_stages=NUM_STAGES):
        valid = in_columns & (row < height)
        label = tl.load(label_base + row * W, mask=valid, other=-1).to(tl.int32)
        value = tl.load(x_base + row * stride_xh, mask=valid[None, :] & is_channel[:, None], other=0).to(SUM_TYPE)
        value = tl.where((planes == 3)[:, None], 1, value)
        # A pixel that is masked out has label -1, which must not look like a neighbour.
        offset = tl.where(label >= 0, label - own, 1 << 30)[None, :]
        s0 = tl.where(offset == -nx - 1, s0 + value, s0)
        s1 = tl.where(offset == -nx, s1 + value, s1)
        s2 = tl.where(offset == 1 - nx, s2 + value, s2)
        s3 = tl.where(offset == -1, s3 + value, s3)
        s4 = tl.where(offset == 0, s4 + value, s4)
        s5 = tl.where(offset == 1, s5 + value, s5)
        s6 = tl.where(offset == nx - 1, s6 + value, s6)
        s7 = tl.where(offset == nx, s7 + value, s7)
        s8 = tl.where(offset == nx + 1, s8 + value, s8)

    cells = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    position = cells % (ny * nx)
    up, down = position // nx > 0, position // nx < ny - 1
    left, right = position % nx > 0, position % nx < nx - 1
    target = partials_ptr + tl.program_id(1).to(tl.int64) * num_cells * 36 + planes[:, None]
    target += cells.to(tl.int64)[None, :] * 36
    is_cell = (cells < num_cells)[None, :]
    counted = _store_slot(target, s0, up & left, is_cell, CELLS, BLOCK_X)
    counted += _store_slot(target + 4, s1, up, is_cell, CELLS, BLOCK_X)
    counted += _store_slot(target + 8, s2, up & right, is_cell, CELLS, BLOCK_X)
    counted += _store_slot(target + 12, s3, left, is_cell, CELLS, BLOCK_X)
    counted += _store_slot(target + 16, s4, cells >= 0, is_cell, CELLS, BLOCK_X)
    counted += _store_slot(target + 20, s5, right, is_cell, CELLS, BLOCK_X)
    counted += _store_slot(target + 24, s6, down & left, is_cell, CELLS, BLOCK_X)
    counted += _store_slot(target + 28, s7, down, is_cell, CELLS, BLOCK_X)
    counted += _store_slot(target + 32, s8, down & right, is_cell, CELLS, BLOCK_X)
    num_counted = tl.sum(tl.sum(tl.where((planes == 3)[:, None], counted, 0), axis=1), axis=0)
    num_pixels = tl.sum(tl.where(in_columns, tl.maximum(height, 0), 0), axis=0)
    # Every group of channels finds the same.
    tl.store(strays_ptr + tl.program_id(0), (num_counted != num_pixels).to(tl.int32))


@triton.jit
def _store_slot(target, sums, exists, is_cell, CELLS: tl.constexpr, BLOCK_X: tl.constexpr):
    """Add a slot's pixel columns, store sums and counts, and return them whole; no neighbour, no sums."""
    total = tl.sum(tl.reshape(sums, [4, CELLS, BLOCK_X]), axis=2)
    total = tl.where(exists[None, :], total, 0)
    tl.store(target, total.to(tl.float32), mask=is_cell)
    return total.to(tl.int32)


def cells_config(dtype: torch.dtype) -> tuple[int, int, int, int, int | None]:
    """Pixel columns of a program, its warps, rows that are loaded at once, pipeline stages and registers of a thread.

    64 columns in one warp are 4 pixels a thread.
    """
    return 64, 1, (4 if dtype == torch.uint8 else 16), 1, None


def cells_launch(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    grid: tuple[int, int],
    cell: tuple[int, int],
    strides: tuple[int, ...],
) -> tuple[Launch, int, int]:
    """Plan the partial sums of the cells; returns the launch, its programs along the cells, and a program's cells."""
    num_frames, channels, height, width = shape
    (ny, nx), (cell_h, cell_w) = grid, cell
    num_cells = num_frames * ny * nx
    lanes, num_warps, unroll, num_stages, num_registers = cells_config(dtype)
    block_x = triton.next_power_of_2(cell_w)
    cells = max(1, lanes // block_x)
    programs = triton.cdiv(num_cells, cells)
    launch = Launch(
        _superpixel_cells_fwd_kernel,
        (programs, triton.cdiv(channels, 3)),
        (*strides, channels, height, width, ny, nx, num_cells),
        {
            "CELL_H": cell_h,
            "CELL_W": cell_w,
            "BLOCK_X": block_x,
            "CELLS": cells,
            # 16 bytes of float32 or half-precision pixels.
            "VECTOR": min(block_x, 8 if dtype.itemsize == 2 else 4),
            "UNROLL": unroll,
            "NUM_STAGES": num_stages,
            "HAS_ROWS": strides[3] == 1,
            "IS_INTEGER": dtype == torch.uint8,
        },
        num_warps=num_warps * max(1, block_x * cells // lanes),
        **({"maxnreg": num_registers} if num_registers else {}),
    )
    return launch, programs, cells
