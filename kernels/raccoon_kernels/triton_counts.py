# A Triton kernel takes pointers and numbers that no annotation names.
# ruff: noqa: ANN001, ANN202
# mypy: disallow-untyped-defs=False
"""Grid counts in Triton: how many pixels of each cluster lie in each window.

A superpixel's memberships are packed as 32 counters of 0 or 1 in a few words, and adding the words of the pixels'
superpixels counts 32 clusters at once. Windows of at most 15 rows and 255 pixels in one frame are counted by columns,
several cells a program: four bits hold what a column counts to, so a pixel is one load of 16 bytes and 4 additions; the
columns of a cell are then added in bytes. Other windows are counted in bytes and unpacked after every block of at most
255 pixels. Nothing but labels, the small table and the counts is touched. Deterministic, no atomics.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from raccoon_kernels.launch import Launch, planned
from raccoon_kernels.windows import CLUSTERS_PER_BLOCK, padded_clusters, temporal_windows, window_borders

# Pixel columns of a counting program, each a thread's: four packed counters of its own.
COLUMN_LANES = 32
UNROLL = tl.constexpr(4)


@triton.jit
def _pack_membership_kernel(
    membership_ptr,  # [rows, k] uint8, 0 or 1
    table_ptr,  # [rows, words] int32
    num_rows,
    k,
    words,
    BLOCK_R: tl.constexpr,
    IN_NIBBLES: tl.constexpr,
):
    """Pack 32 clusters into 4 words of nibbles or 8 of bytes; cluster 8w + 4n + j is nibble n of byte j of word w."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    lanes = tl.arange(0, 32)
    clusters = tl.program_id(1) * 32 + lanes
    is_row = (rows < num_rows)[:, None]
    source = membership_ptr + rows[:, None] * k + clusters[None, :]
    values = tl.load(source, mask=is_row & (clusters < k)[None, :], other=0).to(tl.int32)
    if IN_NIBBLES:
        packed = values << (8 * (lanes % 4) + 4 * ((lanes // 4) % 2))[None, :]
        totals = tl.sum(tl.reshape(packed, [BLOCK_R, 4, 8]), axis=2).to(tl.int32)
        word = tl.program_id(1) * 4 + tl.arange(0, 4)
    else:
        packed = values << (8 * (lanes % 4))[None, :]
        totals = tl.sum(tl.reshape(packed, [BLOCK_R, 8, 4]), axis=2).to(tl.int32)
        word = tl.program_id(1) * 8 + tl.arange(0, 8)
    tl.store(table_ptr + rows[:, None] * words + word[None, :], totals, mask=is_row)


@triton.jit
def _grid_counts_columns_kernel(
    labels_ptr,  # [F, H, W]
    table_ptr,  # [F, S, words] int32: eight clusters a word, four bits each
    counts_ptr,  # [F, h, w, stride_g] float32
    scale,  # of the stored counts
    S,
    H,
    W,
    stride_g,
    num_cells,
    h: tl.constexpr,
    w: tl.constexpr,
    words: tl.constexpr,  # known to the compiler, which else could not load four at once
    WINDOW_H: tl.constexpr,
    BLOCK_X: tl.constexpr,
    CELLS: tl.constexpr,
):
    lanes = tl.arange(0, CELLS * BLOCK_X)
    cell = tl.program_id(0) * CELLS + lanes // BLOCK_X
    frame = (cell // (h * w)).to(tl.int64)
    row_index, column_index = (cell // w) % h, cell % w
    y0, y1 = row_index * H // h, ((row_index + 1) * H + h - 1) // h
    x, x1 = column_index * W // w + lanes % BLOCK_X, ((column_index + 1) * W + w - 1) // w
    in_columns = (cell < num_cells) & (x < x1)
    # A label in each thread, which then loads the words of its superpixel itself.
    label_base = tl.max_contiguous(labels_ptr + frame * H * W + y0 * W + x, [1])
    word = tl.program_id(1) * 4 + tl.arange(0, 4)
    table_base = (table_ptr + frame * S * words)[:, None] + word[None, :]
    packed = tl.zeros([CELLS * BLOCK_X, 4], dtype=tl.int32)
    for row in tl.range(0, WINDOW_H, loop_unroll_factor=UNROLL):
        valid = in_columns & (y0 + row < y1)
        label = tl.load(label_base + row * W, mask=valid, other=-1).to(tl.int32)
        # A label outside the range is left out, never clamped.
        valid &= (label >= 0) & (label < S)
        packed += tl.load(table_base + (label * words)[:, None], mask=valid[:, None], other=0)
    cells = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    target = counts_ptr + cells.to(tl.int64)[:, None] * stride_g + word[None, :] * 8
    _store_counts(target, packed & 0x0F0F0F0F, scale, cells < num_cells, CELLS, BLOCK_X)
    _store_counts(target + 4, (packed >> 4) & 0x0F0F0F0F, scale, cells < num_cells, CELLS, BLOCK_X)


@triton.jit
def _store_counts(target, packed, scale, exists, CELLS: tl.constexpr, BLOCK_X: tl.constexpr):
    """Add the pixel columns of each cell in bytes and store the four counts of each word."""
    total = tl.sum(tl.reshape(packed, [CELLS, BLOCK_X, 4]), axis=1).to(tl.int32)
    counts = (total[:, :, None] >> (8 * tl.arange(0, 4))[None, None, :]) & 255
    values = counts.to(tl.float32) * scale
    tl.store(target[:, :, None] + tl.arange(0, 4)[None, None, :], values, mask=exists[:, None, None])


@triton.jit
def _grid_counts_fwd_kernel(
    labels_ptr,  # [F, H, W]
    table_ptr,  # [F, S, words] int32: four clusters a word, one byte each
    counts_ptr,  # [t, h, w, stride_g] float32
    bin_starts_ptr,  # [t] int32: first frame of each temporal bin
    bin_ends_ptr,  # [t] int32
    scale,  # of the stored counts
    S,
    H,
    W,
    h,
    w,
    stride_g,
    words: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_X: tl.constexpr,
    IS_FRAMEWISE: tl.constexpr,
):
    cell = tl.program_id(0)
    bin_index = (cell // (h * w)).to(tl.int64)
    row_index, column_index = (cell // w) % h, cell % w
    y0, y1 = row_index * H // h, ((row_index + 1) * H + h - 1) // h
    x0, x1 = column_index * W // w, ((column_index + 1) * W + w - 1) // w
    if IS_FRAMEWISE:
        first, last = bin_index, bin_index + 1
    else:
        first = tl.load(bin_starts_ptr + bin_index).to(tl.int64)
        last = tl.load(bin_ends_ptr + bin_index).to(tl.int64)

    pixels = tl.arange(0, ROWS * BLOCK_X)
    row, column = pixels // BLOCK_X, pixels % BLOCK_X
    word = tl.program_id(1) * 8 + tl.arange(0, 8)
    shifts = 8 * tl.arange(0, 4)
    counts = tl.zeros([8, 4], dtype=tl.int32)
    for frame in range(first, last):
        for top in range(y0, y1, ROWS):
            for left in range(x0, x1, BLOCK_X):
                y, x = top + row, left + column
                valid = (y < y1) & (x < x1)
                label = tl.load(labels_ptr + frame * H * W + y * W + x, mask=valid, other=-1).to(tl.int32)
                # A label outside the range is left out, never clamped.
                valid &= (label >= 0) & (label < S)
                packed = tl.load(
                    table_ptr + (frame * S + label)[:, None] * words + word[None, :], mask=valid[:, None], other=0
                )
                total = tl.sum(packed, axis=0).to(tl.int32)
                counts += (total[:, None] >> shifts[None, :]) & 255
    clusters = word[:, None] * 4 + tl.arange(0, 4)[None, :]
    tl.store(counts_ptr + cell.to(tl.int64) * stride_g + clusters, counts.to(tl.float32) * scale)


@dataclass(frozen=True, slots=True)
class _Plan:
    pack: Launch
    count: Launch
    table_shape: tuple[int, int, int]
    counts_shape: tuple[int, int, int, int]
    bins: tuple[Tensor, ...]  # first and last frame of each temporal bin, where the counting asks for them


def grid_counts(
    labels: Tensor,
    membership: Tensor,
    grid: Sequence[int],
    frame_offsets: Sequence[int],
    feature_offsets: Sequence[int],
    scale: float = 1.0,
) -> Tensor:
    """Launch the counting: [t, h, w, k] float32, exact integers times `scale`, in rows of a multiple of 32."""
    plan = _plan(
        labels.shape,
        membership.shape,
        tuple(grid),
        tuple(frame_offsets),
        tuple(feature_offsets),
        scale,
        labels.dtype,
        labels.device,
    )
    table = labels.new_empty(plan.table_shape, dtype=torch.int32)
    counts = labels.new_empty(plan.counts_shape, dtype=torch.float32)
    plan.pack(membership.contiguous().view(torch.uint8), table)
    plan.count(labels.contiguous(), table, counts, *plan.bins)
    return counts[..., : membership.shape[2]]


@planned
def _plan(
    label_shape: tuple[int, ...],
    membership_shape: tuple[int, ...],
    grid: tuple[int, ...],
    frame_offsets: tuple[int, ...],
    feature_offsets: tuple[int, ...],
    scale: float,
    label_dtype: torch.dtype,
    device: torch.device,
) -> _Plan:
    (num_frames, height, width), (h, w) = label_shape, grid
    (_, num_superpixels, k), t = membership_shape, feature_offsets[-1]
    padded = padded_clusters(k)
    is_framewise = frame_offsets == feature_offsets
    window_width = max(end - start for start, end in zip(*window_borders(width, w), strict=True))
    window_height = max(end - start for start, end in zip(*window_borders(height, h), strict=True))
    by_columns = is_framewise and window_height <= 15 and window_width * window_height <= 255
    words = padded // (8 if by_columns else 4)
    rows = num_frames * num_superpixels
    pack = Launch(
        _pack_membership_kernel,
        (triton.cdiv(rows, 64), padded // CLUSTERS_PER_BLOCK),
        (rows, k, words),
        {"BLOCK_R": 64, "IN_NIBBLES": by_columns},
        num_warps=4,
    )
    bins: tuple[Tensor, ...] = ()
    if by_columns:
        block_x = triton.next_power_of_2(window_width)
        cells = max(1, COLUMN_LANES // block_x)
        count = Launch(
            _grid_counts_columns_kernel,
            (triton.cdiv(t * h * w, cells), padded // CLUSTERS_PER_BLOCK),
            (scale, num_superpixels, height, width, padded, t * h * w),
            {"h": h, "w": w, "words": words, "WINDOW_H": window_height, "BLOCK_X": block_x, "CELLS": cells},
            num_warps=max(1, block_x * cells // COLUMN_LANES),
        )
    else:
        starts, ends = temporal_windows(frame_offsets, feature_offsets)
        bins = (
            torch.tensor(starts, dtype=torch.int32, device=device),
            torch.tensor(ends, dtype=torch.int32, device=device),
        )
        # A block's valid pixels must not exceed 255, what a byte counts to.
        block_x = min(64, triton.next_power_of_2(window_width))
        used_x = min(block_x, window_width)
        block_rows = min(256 // block_x, triton.next_power_of_2(window_height))
        while block_rows > 1 and min(block_rows, window_height) * used_x > 255:
            block_rows //= 2
        count = Launch(
            _grid_counts_fwd_kernel,
            (t * h * w, padded // CLUSTERS_PER_BLOCK),
            (scale, num_superpixels, height, width, h, w, padded),
            {"words": words, "ROWS": block_rows, "BLOCK_X": block_x, "IS_FRAMEWISE": is_framewise},
            num_warps=2,
        )
    return _Plan(pack, count, (num_frames, num_superpixels, words), (t, h, w, padded), bins)
