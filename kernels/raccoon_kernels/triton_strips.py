# A Triton kernel takes pointers and numbers that no annotation names.
# ruff: noqa: ANN001, ANN202
# mypy: disallow-untyped-defs=False
"""Superpixel means of many channels: the partial sums of strips of a superpixel grid, on the matrix units.

A pixel can only belong to the 3x3 cells around its own. A program walks down a strip of two cells' width and multiplies
its pixels with the one-hot matrix [pixels, 16] of the 4x4 cells around each two rows of cells; a row of cells is stored
when it is behind. The one-hot side is exact in bfloat16; float32 pixels are split into three bfloat16 terms, which hold
all their 24 bits, and the products of each block are added in float32 outside the matrix units, whose own additions
truncate. Every pixel is read once.
"""

import torch
import triton
import triton.language as tl

from raccoon_kernels.launch import Launch
from raccoon_kernels.triton_products import IS_INTERPRETED

# How the kernel multiplies: the interpreter computes bfloat16 wrongly and so multiplies in float32.
PLAIN, HALF, SPLIT = 0, 1, 2


@triton.jit
def _add_one_hot(x_CK, onehot_KS, sums_CS, MODE: tl.constexpr, HALF_TYPE: tl.constexpr):
    if MODE == 0:
        part = tl.dot(x_CK.to(tl.float32), onehot_KS.to(tl.float32), input_precision="ieee")
    elif MODE == 1:
        part = tl.dot(x_CK.to(HALF_TYPE), onehot_KS.to(HALF_TYPE))
    else:
        onehot = onehot_KS.to(tl.bfloat16)
        high = x_CK.to(tl.bfloat16)
        rest = x_CK - high.to(tl.float32)
        middle = rest.to(tl.bfloat16)
        low = (rest - middle.to(tl.float32)).to(tl.bfloat16)
        part = tl.dot(low, onehot)
        part = tl.dot(middle, onehot, part)
        part = tl.dot(high, onehot, part)
    return sums_CS + part


@triton.jit
def _slot_rows(first_row):
    """The row of cells of each slot: of the four around rows first_row and the next, each at its number modulo four."""
    above = first_row - 1
    return above + ((tl.arange(0, 16) // 4 - above) & 3)


@triton.jit
def _candidates(first_row, strip, ny, nx):
    """The superpixel of each slot, -1 outside the grid."""
    rows, columns = _slot_rows(first_row), 2 * strip - 1 + tl.arange(0, 16) % 4
    inside = (columns >= 0) & (columns < nx) & (rows >= 0) & (rows < ny)
    return tl.where(inside, rows * nx + columns, -1)


@triton.jit
def _superpixel_strips_fwd_kernel(
    x_ptr,
    labels_ptr,
    partials_ptr,  # [F, segments, strips, 2 * TILES + 2, 4, C] float32
    partial_counts_ptr,  # [F, segments, strips, 2 * TILES + 2, 4] int32
    strays_ptr,  # [programs] int32: whether a pixel lies outside the cells around, or a sum is not a number
    stride_xf,
    stride_xc,
    stride_xh,
    stride_xw,
    C,
    H,
    W,
    ny,
    nx,
    segments,
    strips,
    CELL_H: tl.constexpr,
    CELL_W: tl.constexpr,
    BLOCK_X: tl.constexpr,
    ROWS: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK_C: tl.constexpr,
    MODE: tl.constexpr,
    HALF_TYPE: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    STEPS: tl.constexpr = (2 * CELL_H + ROWS - 1) // ROWS
    part = tl.program_id(0)
    strip, segment = part % strips, (part // strips) % segments
    frame = (part // (strips * segments)).to(tl.int64)
    first_row = segment * 2 * TILES
    x0 = strip * (2 * CELL_W)
    num_tiles = tl.minimum(TILES, (ny - first_row + 1) // 2)

    slots = tl.arange(0, 16)
    candidates = _candidates(first_row, strip, ny, nx)
    pixels = tl.arange(0, ROWS * BLOCK_X)
    row, column = pixels // BLOCK_X, pixels % BLOCK_X
    channels = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_columns = x0 + column < W
    if BLOCK_X > 2 * CELL_W:
        in_columns &= column < 2 * CELL_W
    labels = labels_ptr + frame * H * W + x0 + (row * W + column)
    x_base = x_ptr + frame * stride_xf + x0.to(tl.int64) * stride_xw
    x_base = x_base + channels.to(tl.int64)[:, None] * stride_xc + (row * stride_xh + column * stride_xw)[None, :]
    out = ((frame * segments + segment) * strips + strip) * (2 * TILES + 2)

    sums = tl.zeros([BLOCK_C, 16], dtype=tl.float32)
    # Counted by a product with ones, the hits would cost a hundred registers a thread.
    hits = tl.zeros([ROWS * BLOCK_X, 16], dtype=tl.int32)
    num_counted = 0
    num_bad = 0
    for step in tl.range(0, num_tiles * STEPS, num_stages=NUM_STAGES):
        tile = step // STEPS
        top = (step % STEPS) * ROWS
        y0 = (first_row + 2 * tile) * CELL_H + top
        valid = in_columns & (row < tl.minimum(2 * CELL_H - top, H - y0))
        label = tl.load(labels + y0 * W, mask=valid, other=-2).to(tl.int32)
        x = tl.load(x_base + y0.to(tl.int64) * stride_xh, mask=valid[None, :] & (channels < C)[:, None], other=0)
        onehot = label[:, None] == candidates[None, :]
        sums = _add_one_hot(x, onehot, sums, MODE, HALF_TYPE)
        hits += onehot.to(tl.int32)
        if step % STEPS == STEPS - 1:
            counts = tl.sum(hits, axis=0)
            row_index = _slot_rows(first_row + 2 * tile)
            # The next tile adds to the lower two rows of cells; the last one leaves nothing.
            is_behind = row_index < first_row + 2 * tile + tl.where(tile == num_tiles - 1, 3, 1)
            place = (out + row_index - first_row + 1) * 4 + slots % 4
            tl.store(
                partials_ptr + place[None, :] * C + channels[:, None],
                sums,
                mask=is_behind[None, :] & (channels < C)[:, None],
            )
            is_count = is_behind & (slots < tl.where(tl.program_id(1) == 0, 16, 0))
            tl.store(partial_counts_ptr + place, counts, mask=is_count)
            num_bad += tl.sum(tl.sum(((sums == sums) == 0).to(tl.int32), axis=1), axis=0)
            num_counted += tl.sum(tl.where(is_behind, counts, 0), axis=0)
            sums = tl.where(is_behind[None, :], 0.0, sums)
            hits = tl.where(is_behind[None, :], 0, hits)
            candidates = _candidates(first_row + 2 * tile + 2, strip, ny, nx)
    rows = tl.minimum(H, (first_row + 2 * num_tiles) * CELL_H) - first_row * CELL_H
    num_pixels = tl.maximum(rows, 0) * tl.maximum(tl.minimum(2 * CELL_W, W - x0), 0)
    is_stray = (num_counted != num_pixels) | (num_bad > 0)
    tl.store(strays_ptr + part * tl.num_programs(1) + tl.program_id(1), is_stray.to(tl.int32))


def strip_config(channels: int, dtype: torch.dtype) -> tuple[int, int, int, int, int, int | None]:
    """Channels and pixels of a block, warps, pipeline stages, tiles of 2x2 cells in a strip, registers of a thread."""
    if channels <= 32:
        return 32, 64, 2, 3, 1, None
    # 168 registers let three programs run on a multiprocessor.
    return (64, 64, 4, 3, 1, 168) if dtype == torch.float32 else (64, 128, 4, 3, 1, None)


def _mode(dtype: torch.dtype) -> int:
    if IS_INTERPRETED:
        return PLAIN
    return SPLIT if dtype == torch.float32 else HALF


def strips_launch(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    grid: tuple[int, int],
    cell: tuple[int, int],
    strides: tuple[int, ...],
) -> tuple[Launch, tuple[int, int, int], int]:
    """Plan the partial sums of the strips; returns the launch, (segments, strips, tiles), and blocks of channels."""
    num_frames, channels, height, width = shape
    (ny, nx), (cell_h, cell_w) = grid, cell
    block_c, pixels, num_warps, num_stages, tiles, num_registers = strip_config(channels, dtype)
    segments, strips = triton.cdiv(triton.cdiv(ny, 2), tiles), triton.cdiv(nx, 2)
    block_x = triton.next_power_of_2(2 * cell_w)
    blocks = triton.cdiv(channels, block_c)
    launch = Launch(
        _superpixel_strips_fwd_kernel,
        (num_frames * segments * strips, blocks),
        (*strides, channels, height, width, ny, nx, segments, strips),
        {
            "CELL_H": cell_h,
            "CELL_W": cell_w,
            "BLOCK_X": block_x,
            "ROWS": max(1, min(triton.next_power_of_2(2 * cell_h), pixels // block_x), 16 // block_x),
            "TILES": tiles,
            "BLOCK_C": block_c,
            "MODE": _mode(dtype),
            "HALF_TYPE": tl.float16 if dtype == torch.float16 else tl.bfloat16,
            "NUM_STAGES": num_stages,
        },
        num_warps=num_warps,
        **({"maxnreg": num_registers} if num_registers else {}),
    )
    return launch, (segments, strips, tiles), blocks
