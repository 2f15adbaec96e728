# A Triton kernel takes pointers and numbers that no annotation names.
# ruff: noqa: ANN001, ANN202
# mypy: disallow-untyped-defs=False
"""Superpixel means in Triton: partial sums for superpixel grids, a sorted or an atomic path for other label maps.

Grid labels: a pixel can only belong to the 3x3 cells around its own: each cell adds up nine partial sums, every pixel
is read once, and each superpixel then adds its partials in a fixed order. With few channels a program walks down the
rows of some cells and keeps the nine sums of each pixel column in registers. With many, a program takes a tile of 2x2
cells and multiplies its pixels with the one-hot matrix [pixels, 16] of the 4x4 cells around on the matrix units. That
side is exact in bfloat16; float32 pixels are split into three bfloat16 terms, which hold all their 24 bits, and the
products of each block are added in float32 outside the matrix units, whose own additions truncate. A tile with a NaN or
an infinity is added again without products, which would carry it into its neighbours.

Pixels outside the nine cells are added atomically: the result is right for every label map and deterministic where
`grid` keeps its promise.

Other labels: a stable sort by superpixel, then one program a superpixel adds its pixels in order (deterministic), or
atomic additions (faster for few channels).

Backward: grad_x[p] = g[label(p)], a gather; deterministic.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

IS_INTERPRETED = bool(triton.knobs.runtime.interpret)

# How the kernel multiplies: the interpreter computes bfloat16 wrongly and so multiplies in float32.
PLAIN, HALF, SPLIT = 0, 1, 2
# Up to so many channels the nine sums of a pixel column stay in registers; more go to the matrix units.
CELLS_MAX_CHANNELS = 16
# Pixel columns of a program: 64 in one warp are 4 pixels of 2 channels in each thread.
CELLS_LANES = 64
# General labels with at least this many channels are sorted even where atomics are allowed.
SORT_MIN_CHANNELS = 8


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
def _add_without_products(
    x_ptr,
    label_ptr,
    partial_ptr,
    sums_ptr,
    counts_ptr,
    stray_ptr,
    candidates,
    in_columns,
    height,
    stride_xh,
    stride_xw,
    C,
    W,
    S,
    is_counting,
    is_finite,
    BLOCK_X: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Add one channel of a tile by masked sums, and its strays atomically."""
    pixels = tl.arange(0, ROWS * BLOCK_X)
    slots = tl.arange(0, 16)
    row, column = pixels // BLOCK_X, pixels % BLOCK_X
    sums = tl.zeros([16], dtype=tl.float32)
    for top in range(0, height, ROWS):
        valid = in_columns & (top + row < height)
        label = tl.load(label_ptr + (top + row) * W + column, mask=valid, other=-2).to(tl.int32)
        x = tl.load(x_ptr + (top + row) * stride_xh + column * stride_xw, mask=valid, other=0).to(tl.float32)
        is_slot = candidates[:, None] == label[None, :]
        sums += tl.sum(tl.where(is_slot, x[None, :], 0.0), axis=1)
        stray = valid & (tl.sum(is_slot.to(tl.int32), axis=0) == 0) & (label >= 0) & (label < S)
        tl.atomic_add(sums_ptr + label * C, x, mask=stray, sem="relaxed")
        is_counted = stray & (pixels < tl.where(is_counting, ROWS * BLOCK_X, 0))
        tl.atomic_add(counts_ptr + label, 1, mask=is_counted, sem="relaxed")
        tl.atomic_max(stray_ptr, tl.max(stray.to(tl.int32), axis=0), sem="relaxed")
    tl.store(partial_ptr + slots * C, sums, mask=slots < tl.where(is_finite, 0, 16))


@triton.jit
def _superpixel_mean_fwd_kernel(
    x_ptr,
    labels_ptr,
    partials_ptr,  # [F, tiles_y, tiles_x, 16, C] float32
    partial_counts_ptr,  # [F, tiles_y, tiles_x, 16] int32
    sums_ptr,  # [F, S, C] float32, zero: receives pixels outside the 4x4 cells
    counts_ptr,  # [F, S] int32, zero: likewise
    stray_ptr,  # [1] int32: set where there are such pixels
    stride_xf,
    stride_xc,
    stride_xh,
    stride_xw,
    C,
    H,
    W,
    ny,
    nx,
    tiles_y,
    tiles_x,
    CELL_H: tl.constexpr,
    CELL_W: tl.constexpr,
    BLOCK_X: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    MODE: tl.constexpr,
    HALF_TYPE: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    tile = tl.program_id(0)
    frame = (tile // (tiles_y * tiles_x)).to(tl.int64)
    rest = tile % (tiles_y * tiles_x)
    tile_y, tile_x = rest // tiles_x, rest % tiles_x
    y0, x0 = tile_y * (2 * CELL_H), tile_x * (2 * CELL_W)
    height = tl.minimum(2 * CELL_H, H - y0)

    slots = tl.arange(0, 16)
    cell_y, cell_x = 2 * tile_y - 1 + slots // 4, 2 * tile_x - 1 + slots % 4
    inside = (cell_y >= 0) & (cell_y < ny) & (cell_x >= 0) & (cell_x < nx)
    candidates = tl.where(inside, cell_y * nx + cell_x, -1)

    pixels = tl.arange(0, ROWS * BLOCK_X)
    row, column = pixels // BLOCK_X, pixels % BLOCK_X
    channels = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_columns = x0 + column < W
    if BLOCK_X > 2 * CELL_W:
        in_columns &= column < 2 * CELL_W
    label_row = labels_ptr + frame * H * W
    x_base = x_ptr + frame * stride_xf + y0.to(tl.int64) * stride_xh + x0.to(tl.int64) * stride_xw
    x_base = x_base + channels.to(tl.int64)[:, None] * stride_xc + (column * stride_xw)[None, :]

    sums = tl.zeros([BLOCK_C, 16], dtype=tl.float32)
    # Counted by a product with ones, the hits would cost a hundred registers a thread.
    hits = tl.zeros([ROWS * BLOCK_X, 16], dtype=tl.int32)
    for top in tl.range(0, height, ROWS, num_stages=NUM_STAGES):
        y = y0 + top + row
        valid = in_columns & (top + row < height)
        label = tl.load(label_row + y * W + x0 + column, mask=valid, other=-2).to(tl.int32)
        x = tl.load(x_base + ((top + row) * stride_xh)[None, :], mask=valid[None, :] & (channels < C)[:, None], other=0)
        onehot = label[:, None] == candidates[None, :]
        sums = _add_one_hot(x, onehot, sums, MODE, HALF_TYPE)
        hits += onehot.to(tl.int32)
    counts = tl.sum(hits, axis=0)
    out = tile.to(tl.int64) * 16 + slots
    tl.store(partials_ptr + out[None, :] * C + channels[:, None], sums, mask=(channels < C)[:, None])
    tl.store(partial_counts_ptr + out, counts, mask=slots < tl.where(tl.program_id(1) == 0, 16, 0))

    # The two rare cases go channel by channel: held in registers they would cost the common case its speed.
    is_finite = tl.sum(tl.sum(tl.where(sums == sums, 0, 1), axis=1), axis=0) == 0
    is_local = tl.sum(counts, axis=0) == height * tl.minimum(2 * CELL_W, W - x0)
    if not (is_finite & is_local):
        last_channel = tl.minimum(C, tl.program_id(1) * BLOCK_C + BLOCK_C)
        # What is stored below must come after what all threads stored above.
        tl.debug_barrier()
        for channel in range(tl.program_id(1) * BLOCK_C, last_channel):
            plane = x_ptr + frame * stride_xf + tl.cast(channel, tl.int64) * stride_xc
            _add_without_products(
                plane + y0.to(tl.int64) * stride_xh + x0.to(tl.int64) * stride_xw,
                label_row + y0 * W + x0,
                partials_ptr + tile.to(tl.int64) * 16 * C + channel,
                sums_ptr + frame * ny * nx * C + channel,
                counts_ptr + frame * ny * nx,
                stray_ptr,
                candidates,
                in_columns,
                height,
                stride_xh,
                stride_xw,
                C,
                W,
                ny * nx,
                channel == 0,
                is_finite,
                BLOCK_X,
                ROWS,
            )


@triton.jit
def _superpixel_cells_fwd_kernel(
    x_ptr,
    labels_ptr,
    partials_ptr,  # [cells, 9, C] float32
    partial_counts_ptr,  # [cells, 9] int32
    sums_ptr,  # [F, S, C] float32, zero: receives pixels outside the 3x3 cells
    counts_ptr,  # [F, S] int32, zero: likewise
    stray_ptr,  # [1] int32: set where there are such pixels
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
    for row in tl.range(0, CELL_H, loop_unroll_factor=4):
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
    first = partials_ptr + cells.to(tl.int64)[None, :] * 9 * C + channels[:, None]
    first_count = partial_counts_ptr + cells[None, :] * 9 + planes[:, None] * 0
    is_sum = is_channel[:, None] & (cells < num_cells)[None, :]
    is_count = (planes == 3)[:, None] & (cells < tl.where(tl.program_id(1) == 0, num_cells, 0))[None, :]
    counted = _store_slot(s0, up & left, 0, first, first_count, is_sum, is_count, C, CELLS, BLOCK_X)
    counted += _store_slot(s1, up, 1, first, first_count, is_sum, is_count, C, CELLS, BLOCK_X)
    counted += _store_slot(s2, up & right, 2, first, first_count, is_sum, is_count, C, CELLS, BLOCK_X)
    counted += _store_slot(s3, left, 3, first, first_count, is_sum, is_count, C, CELLS, BLOCK_X)
    counted += _store_slot(s4, cells >= 0, 4, first, first_count, is_sum, is_count, C, CELLS, BLOCK_X)
    counted += _store_slot(s5, right, 5, first, first_count, is_sum, is_count, C, CELLS, BLOCK_X)
    counted += _store_slot(s6, down & left, 6, first, first_count, is_sum, is_count, C, CELLS, BLOCK_X)
    counted += _store_slot(s7, down, 7, first, first_count, is_sum, is_count, C, CELLS, BLOCK_X)
    counted += _store_slot(s8, down & right, 8, first, first_count, is_sum, is_count, C, CELLS, BLOCK_X)

    num_pixels = tl.sum(tl.where(in_columns, tl.maximum(height, 0), 0), axis=0)
    if tl.sum(tl.sum(tl.where((planes == 3)[:, None], counted, 0), axis=1), axis=0) != num_pixels:
        for row in range(0, CELL_H):
            valid = in_columns & (row < height)
            label = tl.load(label_base + row * W, mask=valid, other=-1).to(tl.int32)
            near_y = tl.abs(label // nx - cell_y) <= 1
            near_x = tl.abs(label % nx - cell_x) <= 1
            stray = valid & (label >= 0) & (label < ny * nx) & ((near_y & near_x) == 0)
            value = tl.load(x_base + row * stride_xh, mask=stray[None, :] & is_channel[:, None], other=0)
            target = frame.to(tl.int64) * ny * nx + label
            tl.atomic_add(
                sums_ptr + target[None, :] * C + channels[:, None],
                value.to(tl.float32),
                mask=stray[None, :] & is_channel[:, None],
                sem="relaxed",
            )
            is_counted = stray & (lanes < tl.where(tl.program_id(1) == 0, CELLS * BLOCK_X, 0))
            tl.atomic_add(counts_ptr + target, 1, mask=is_counted, sem="relaxed")
            tl.atomic_max(stray_ptr, tl.max(stray.to(tl.int32), axis=0), sem="relaxed")


@triton.jit
def _store_slot(
    sums, exists, slot, first, first_count, is_sum, is_count, C, CELLS: tl.constexpr, BLOCK_X: tl.constexpr
):
    """Add a slot's pixel columns, store its sums and counts, and return them; a neighbour outside the grid has none."""
    total = tl.sum(tl.reshape(sums, [4, CELLS, BLOCK_X]), axis=2)
    total = tl.where(exists[None, :], total, 0)
    tl.store(first + slot * C, total.to(tl.float32), mask=is_sum)
    counts = total.to(tl.int32)
    tl.store(first_count + slot, counts, mask=is_count)
    return counts


@triton.jit
def _superpixel_combine_kernel(
    partials_ptr,
    partial_counts_ptr,
    sums_ptr,  # [F, S, C] float32: sums of the strays
    stray_counts_ptr,  # [F, S] int32
    stray_ptr,
    means_ptr,  # [F, S, C] float32
    counts_ptr,  # [F, S] int32
    num_rows,  # F * S
    C,
    ny,
    nx,
    tiles_y,
    tiles_x,
    BLOCK_S: tl.constexpr,
    BLOCK_C: tl.constexpr,
    IS_TILED: tl.constexpr,
    IS_INTEGER: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_S + tl.arange(0, BLOCK_S)
    channels = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_row = rows < num_rows
    is_element = is_row[:, None] & (channels < C)[None, :]
    frame, cell = rows // (ny * nx), rows % (ny * nx)
    cell_y, cell_x = cell // nx, cell % nx
    has_strays = tl.load(stray_ptr)
    targets = rows[:, None] * C + channels[None, :]
    SUM_TYPE: tl.constexpr = tl.int32 if IS_INTEGER else tl.float32
    # A bound instead of a scalar mask: the interpreter rejects a scalar condition beside a block.
    total = tl.load(
        sums_ptr + targets, mask=is_element & (channels < tl.where(has_strays > 0, C, 0))[None, :], other=0
    ).to(SUM_TYPE)
    count = tl.load(stray_counts_ptr + rows, mask=is_row & (rows < tl.where(has_strays > 0, num_rows, 0)), other=0)
    for i in tl.static_range(4 if IS_TILED else 9):
        if IS_TILED:
            tile_y = (cell_y + 1) // 2 - 1 + i // 2
            tile_x = (cell_x + 1) // 2 - 1 + i % 2
            slot = (cell_y - 2 * tile_y + 1) * 4 + cell_x - 2 * tile_x + 1
        else:
            tile_y = cell_y + 1 - i // 3
            tile_x = cell_x + 1 - i % 3
            slot = i
        valid = is_row & (tile_y >= 0) & (tile_y < tiles_y) & (tile_x >= 0) & (tile_x < tiles_x)
        source = ((frame * tiles_y + tile_y) * tiles_x + tile_x) * (16 if IS_TILED else 9) + slot
        part = partials_ptr + source[:, None] * C + channels[None, :]
        total += tl.load(part, mask=valid[:, None] & (channels < C)[None, :], other=0).to(SUM_TYPE)
        count += tl.load(partial_counts_ptr + source, mask=valid, other=0)
    divisor = tl.maximum(count, 1).to(tl.float32)
    means = tl.div_rn(total.to(tl.float32), tl.broadcast_to(divisor[:, None], [BLOCK_S, BLOCK_C]))
    tl.store(means_ptr + targets, means, mask=is_element)
    tl.store(counts_ptr + rows, count, mask=is_row & (rows < tl.where(tl.program_id(1) == 0, num_rows, 0)))


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
    divisor = tl.full([BLOCK_C], 1, dtype=tl.float32) * tl.maximum(end - start, 1).to(tl.float32)
    tl.store(means_ptr + row * C + channels, tl.div_rn(total.to(tl.float32), divisor), mask=channels < C)


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
    shared_ptr,  # [F, S, C] float32: each superpixel's gradient over its count
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
    source = (frame * S + label)[None, :] * C + channels[:, None]
    is_channel = (channels < C)[:, None]
    shared = tl.load(shared_ptr + source, mask=in_range[None, :] & is_channel, other=0.0)
    target = (frame * C + channels)[:, None] * HW + pixels[None, :]
    tl.store(grad_ptr + target, shared.to(grad_ptr.dtype.element_ty), mask=valid[None, :] & is_channel)


def _power_of_two(number: int) -> int:
    return triton.next_power_of_2(number)


def _mode(dtype: torch.dtype) -> int:
    if IS_INTERPRETED:
        return PLAIN
    return SPLIT if dtype == torch.float32 else HALF


def tile_config(channels: int, dtype: torch.dtype) -> tuple[int, int, int, int]:
    """Channels and pixels of a block, warps and pipeline stages of the tiles."""
    if channels <= 32:
        return 32, 64, 2, 3
    return (64, 64, 4, 3) if dtype == torch.float32 else (64, 128, 4, 3)


def grid_cell(grid: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Height and width in pixels of the cells of a superpixel grid."""
    return -(-height // grid[0]), -(-width // grid[1])


def fits_grid(x: Tensor, grid: tuple[int, int]) -> bool:
    """Tell whether the grid path takes these pixels: tiles of moderate size, and exact sums of uint8 pixels."""
    cell_h, cell_w = grid_cell(grid, *x.shape[2:])
    # 255 * 2^16 is the greatest sum of uint8 pixels that float32 surely holds.
    return 2 * cell_w <= 256 and (x.dtype != torch.uint8 or 4 * cell_h * cell_w <= 2**16)


def superpixel_mean_grid(x: Tensor, labels: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Launch the grid path; returns means [F, S, C], counts [F, S] and whether any pixel strayed, int32 [1]."""
    num_frames, channels, height, width = x.shape
    (ny, nx), (cell_h, cell_w) = grid, grid_cell(grid, height, width)
    is_tiled = channels > CELLS_MAX_CHANNELS
    tiles_y, tiles_x = (-(-height // (2 * cell_h)), -(-width // (2 * cell_w))) if is_tiled else grid
    num_tiles, num_slots = num_frames * tiles_y * tiles_x, 16 if is_tiled else 9
    labels = labels.contiguous()
    partials = torch.empty(num_tiles, num_slots, channels, dtype=torch.float32, device=x.device)
    partial_counts = torch.empty(num_tiles, num_slots, dtype=torch.int32, device=x.device)
    means = torch.empty(num_frames, ny * nx, channels, dtype=torch.float32, device=x.device)
    counts = torch.empty(num_frames, ny * nx, dtype=torch.int32, device=x.device)
    # One fill for all that strays are added to.
    zeros = torch.zeros(means.numel() + counts.numel() + 1, dtype=torch.int32, device=x.device)
    stray_sums, stray_counts, strays = zeros.split([means.numel(), counts.numel(), 1])
    stray_sums = stray_sums.view(torch.float32)
    if is_tiled:
        block_x = _power_of_two(2 * cell_w)
        block_c, pixels, num_warps, num_stages = tile_config(channels, x.dtype)
        _superpixel_mean_fwd_kernel[(num_tiles, triton.cdiv(channels, block_c))](
            x,
            labels,
            partials,
            partial_counts,
            stray_sums,
            stray_counts,
            strays,
            *x.stride(),
            channels,
            height,
            width,
            ny,
            nx,
            tiles_y,
            tiles_x,
            CELL_H=cell_h,
            CELL_W=cell_w,
            BLOCK_X=block_x,
            ROWS=max(1, min(_power_of_two(2 * cell_h), pixels // block_x), 16 // block_x),
            BLOCK_C=block_c,
            MODE=_mode(x.dtype),
            HALF_TYPE=tl.float16 if x.dtype == torch.float16 else tl.bfloat16,
            NUM_STAGES=num_stages,
            num_warps=num_warps,
        )
    else:
        block_x = _power_of_two(cell_w)
        cells = max(1, CELLS_LANES // block_x)
        _superpixel_cells_fwd_kernel[(triton.cdiv(num_tiles, cells), triton.cdiv(channels, 3))](
            x,
            labels,
            partials,
            partial_counts,
            stray_sums,
            stray_counts,
            strays,
            *x.stride(),
            channels,
            height,
            width,
            ny,
            nx,
            num_tiles,
            CELL_H=cell_h,
            CELL_W=cell_w,
            BLOCK_X=block_x,
            CELLS=cells,
            # 16 bytes of float32 or half-precision pixels.
            VECTOR=min(block_x, 8 if x.element_size() == 2 else 4),
            HAS_ROWS=x.stride(3) == 1,
            IS_INTEGER=x.dtype == torch.uint8,
            num_warps=max(1, block_x * cells // CELLS_LANES),
        )
    combine_c = min(64, _power_of_two(channels))
    _superpixel_combine_kernel[(triton.cdiv(num_frames * ny * nx, 32), triton.cdiv(channels, combine_c))](
        partials,
        partial_counts,
        stray_sums,
        stray_counts,
        strays,
        means,
        counts,
        num_frames * ny * nx,
        channels,
        ny,
        nx,
        tiles_y,
        tiles_x,
        BLOCK_S=32,
        BLOCK_C=combine_c,
        IS_TILED=is_tiled,
        IS_INTEGER=x.dtype == torch.uint8,
        num_warps=4,
    )
    return means, counts, strays


def superpixel_mean_general(x: Tensor, labels: Tensor, num_superpixels: int) -> tuple[Tensor, Tensor]:
    """Launch the path for any label map: sorted where determinism or many channels ask for it, else atomic."""
    num_frames, channels, height, width = x.shape
    labels = labels.contiguous()
    is_integer = x.dtype == torch.uint8
    # Integer additions are exact in any order.
    needs_order = torch.are_deterministic_algorithms_enabled() and not is_integer
    if needs_order or channels >= SORT_MIN_CHANNELS:
        return _sorted(x, labels, num_superpixels)
    kind = torch.int32 if is_integer else torch.float32
    sums = torch.zeros(num_frames, num_superpixels, channels, dtype=kind, device=x.device)
    counts = torch.zeros(num_frames, num_superpixels, dtype=torch.int32, device=x.device)
    block = 1024
    _superpixel_atomic_kernel[(triton.cdiv(height * width, block), num_frames)](
        x,
        labels,
        sums,
        counts,
        *x.stride(),
        num_superpixels,
        channels,
        height * width,
        width,
        BLOCK_P=block,
        num_warps=4,
    )
    return sums.float() / counts.clamp(min=1)[..., None], counts


def _sorted(x: Tensor, labels: Tensor, num_superpixels: int) -> tuple[Tensor, Tensor]:
    num_frames, channels, height, width = x.shape
    rows = num_frames * num_superpixels
    firsts = torch.arange(num_frames, device=x.device)[:, None] * num_superpixels
    ids = labels.flatten(1).to(torch.int32 if rows < 2**31 - 1 else torch.int64)
    # A label outside the range is left out: its pixels sort behind the last superpixel.
    keys = torch.where((ids >= 0) & (ids < num_superpixels), ids + firsts.to(ids.dtype), rows).flatten()
    keys, order = keys.sort(stable=True)
    starts = torch.searchsorted(keys, torch.arange(rows + 1, device=x.device, dtype=keys.dtype))
    means = torch.empty(num_frames, num_superpixels, channels, dtype=torch.float32, device=x.device)
    block_c = min(32, _power_of_two(channels))
    _superpixel_sorted_kernel[(rows, triton.cdiv(channels, block_c))](
        x,
        order,
        starts,
        means,
        *x.stride(),
        num_superpixels,
        channels,
        height * width,
        width,
        BLOCK_P=128,
        BLOCK_C=block_c,
        IS_INTEGER=x.dtype == torch.uint8,
        num_warps=4,
    )
    return means, starts.diff().to(torch.int32).view(num_frames, num_superpixels)


def superpixel_mean_backward(shared: Tensor, labels: Tensor, dtype: torch.dtype) -> Tensor:
    """Launch the backward: gradients of x [F, C, H, W] from each superpixel's share [F, S, C] float32."""
    num_frames, num_superpixels, channels = shared.shape
    height, width = labels.shape[1:]
    grad = torch.empty(num_frames, channels, height, width, dtype=dtype, device=labels.device)
    block_p, block_c = 256, min(16, _power_of_two(channels))
    _superpixel_mean_bwd_kernel[(num_frames * triton.cdiv(height * width, block_p), triton.cdiv(channels, block_c))](
        shared.contiguous(),
        labels.contiguous(),
        grad,
        num_superpixels,
        channels,
        height * width,
        BLOCK_P=block_p,
        BLOCK_C=block_c,
        num_warps=4,
    )
    return grad
