# A Triton kernel takes pointers and numbers that no annotation names.
# ruff: noqa: ANN001, ANN202
# mypy: disallow-untyped-defs=False
"""Grid counts and token pooling in Triton.

Counts: a superpixel's memberships are packed as 32 counters of 0 or 1 in a few words, and adding the words of the
pixels' superpixels counts 32 clusters at once. Windows of at most 15 rows and 255 pixels in one frame are counted by
columns, several cells a program: four bits hold what a column counts to, so a pixel is one load of 16 bytes and 4
additions; the columns of a cell are then added in bytes. Other windows are counted in bytes and unpacked after every
block of at most 255 pixels. Nothing but labels, the small table and the counts is touched.

Tokens: [clusters, cells] times [cells, d] on the matrix units, split over the cells; the partial sums are added in a
fixed order by a second kernel. Counts up to 256 are exact in bfloat16 (two terms up to 65536) and float32 features are
split into three bfloat16 terms, so nothing is lost. Windows of unequal size have fractional weights and are multiplied
in plain float32. Backward: [cells, clusters] times [clusters, d]. All deterministic, no atomics.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import torch
import triton
import triton.language as tl
from torch import Tensor

from raccoon_kernels.windows import CLUSTERS_PER_BLOCK, padded_clusters, temporal_windows, window_borders

IS_INTERPRETED = bool(triton.knobs.runtime.interpret)

# Programs that the token kernel is split into, about two for each of an H100's 132 multiprocessors.
TARGET_PROGRAMS = 264
# Pixel columns of a counting program: 64 in one warp are 16 registers of packed counters in each thread.
COLUMN_LANES = 64
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
    _store_counts(target, packed & 0x0F0F0F0F, cells < num_cells, CELLS, BLOCK_X)
    _store_counts(target + 4, (packed >> 4) & 0x0F0F0F0F, cells < num_cells, CELLS, BLOCK_X)


@triton.jit
def _store_counts(target, packed, exists, CELLS: tl.constexpr, BLOCK_X: tl.constexpr):
    """Add the pixel columns of each cell in bytes and store the four counts of each word."""
    total = tl.sum(tl.reshape(packed, [CELLS, BLOCK_X, 4]), axis=1).to(tl.int32)
    counts = (total[:, :, None] >> (8 * tl.arange(0, 4))[None, None, :]) & 255
    tl.store(target[:, :, None] + tl.arange(0, 4)[None, None, :], counts.to(tl.float32), mask=exists[:, None, None])


@triton.jit
def _grid_counts_fwd_kernel(
    labels_ptr,  # [F, H, W]
    table_ptr,  # [F, S, words] int32: four clusters a word, one byte each
    counts_ptr,  # [t, h, w, stride_g] float32
    bin_starts_ptr,  # [t] int32: first frame of each temporal bin
    bin_ends_ptr,  # [t] int32
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
    tl.store(counts_ptr + cell.to(tl.int64) * stride_g + clusters, counts.to(tl.float32))


@triton.jit
def _multiply(a, b, A_TERMS: tl.constexpr, B_TERMS: tl.constexpr):
    """Return a @ b: in float32 where A_TERMS is 0, else with the operands cut into bfloat16 terms, small ones first.

    The matrix units truncate when they add, so callers add one product after the other in float32 themselves.
    """
    if A_TERMS == 0:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    a0 = a.to(tl.bfloat16)
    b0 = b.to(tl.bfloat16)
    part = tl.zeros([a.shape[0], b.shape[1]], dtype=tl.float32)
    if B_TERMS > 1:
        rest = b.to(tl.float32) - b0.to(tl.float32)
        b1 = rest.to(tl.bfloat16)
        if B_TERMS > 2:
            part = tl.dot(a0, (rest - b1.to(tl.float32)).to(tl.bfloat16), part)
        part = tl.dot(a0, b1, part)
    if A_TERMS > 1:
        a1 = (a - a0.to(tl.float32)).to(tl.bfloat16)
        if B_TERMS > 1:
            part = tl.dot(a1, b1, part)
        part = tl.dot(a1, b0, part)
    return tl.dot(a0, b0, part)


@triton.jit
def _load_weights(counts_ptr, cells, clusters, valid, stride_g, k, IS_PADDED: tl.constexpr):
    """Load [cells, clusters] of the counts; padded rows need no mask, whose end would split the wide loads."""
    source = counts_ptr + cells[:, None] * stride_g + clusters[None, :]
    if IS_PADDED:
        return tl.load(source, mask=valid[:, None], other=0.0)
    return tl.load(source, mask=valid[:, None] & (clusters < k)[None, :], other=0.0)


@triton.jit
def _pool_tokens_fwd_kernel(
    features_ptr,  # [G, d]
    counts_ptr,  # [G, stride_g] float32
    inverse_ptr,  # [G] float32: one over each window's pixels; not read where IS_UNIFORM
    splits_ptr,  # [num_splits, 2] int64: first and last cell of each split
    partials_ptr,  # [num_splits, k, d] float32
    partial_masses_ptr,  # [num_splits, k] float32
    d,
    k,
    stride_g,
    BLOCK_G: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    A_TERMS: tl.constexpr,
    B_TERMS: tl.constexpr,
    IS_UNIFORM: tl.constexpr,
    IS_PADDED: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    split = tl.program_id(1).to(tl.int64)
    columns = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    clusters = tl.program_id(2) * BLOCK_K + tl.arange(0, BLOCK_K)
    begin, end = tl.load(splits_ptr + 2 * split), tl.load(splits_ptr + 2 * split + 1)
    total = tl.zeros([BLOCK_K, BLOCK_D], dtype=tl.float32)
    masses = tl.zeros([BLOCK_G, BLOCK_K], dtype=tl.float32)
    for start in tl.range(begin, end, BLOCK_G, num_stages=NUM_STAGES):
        cells = start + tl.arange(0, BLOCK_G)
        valid = cells < end
        weights = _load_weights(counts_ptr, cells, clusters, valid, stride_g, k, IS_PADDED)
        if not IS_UNIFORM:
            weights *= tl.load(inverse_ptr + cells, mask=valid, other=0.0)[:, None]
        is_feature = valid[:, None] & (columns < d)[None, :]
        features = tl.load(features_ptr + cells[:, None] * d + columns[None, :], mask=is_feature, other=0.0)
        total += _multiply(tl.trans(weights), features, A_TERMS, B_TERMS)
        masses += weights
    row = split * k + clusters
    tl.store(
        partials_ptr + row[:, None] * d + columns[None, :], total, mask=(clusters < k)[:, None] & (columns < d)[None, :]
    )
    mass = tl.sum(masses, axis=0)
    tl.store(partial_masses_ptr + row, mass, mask=clusters < tl.where(tl.program_id(0) == 0, k, 0))


@triton.jit
def _pool_tokens_combine_kernel(
    partials_ptr,
    partial_masses_ptr,
    clips_ptr,  # [B + 1] int64: first split of each clip
    tokens_ptr,  # [B, k, d] float32
    masses_ptr,  # [B, k] float32, in units of W
    scale,
    d,
    k,
    BLOCK_D: tl.constexpr,
    NORMALIZE: tl.constexpr,
):
    clip = tl.program_id(2).to(tl.int64)
    cluster = tl.program_id(1)
    columns = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    total = tl.zeros([BLOCK_D], dtype=tl.float32)
    mass = 0.0
    for split in range(tl.load(clips_ptr + clip), tl.load(clips_ptr + clip + 1)):
        row = split * k + cluster
        total += tl.load(partials_ptr + row * d + columns, mask=columns < d, other=0.0)
        mass += tl.load(partial_masses_ptr + row)
    if NORMALIZE:
        total = tl.div_rn(total, tl.full([BLOCK_D], 1.0, dtype=tl.float32) * tl.where(mass > 0, mass, 1.0))
    else:
        total = total * scale
    out = clip * k + cluster
    tl.store(tokens_ptr + out * d + columns, total, mask=columns < d)
    tl.store(masses_ptr + out, mass * scale)


@triton.jit
def _pool_tokens_bwd_kernel(
    shared_ptr,  # [B, k, d] float32: the tokens' gradients over the masses
    counts_ptr,  # [G, stride_g] float32
    inverse_ptr,  # [G] float32
    tiles_ptr,  # [num_tiles, 3] int64: first and last cell and the clip of each tile
    grad_ptr,  # [G, d]
    d,
    k,
    stride_g,
    BLOCK_G: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    A_TERMS: tl.constexpr,
    B_TERMS: tl.constexpr,
    IS_UNIFORM: tl.constexpr,
    IS_PADDED: tl.constexpr,
):
    tile = tl.program_id(0).to(tl.int64)
    begin, end = tl.load(tiles_ptr + 3 * tile), tl.load(tiles_ptr + 3 * tile + 1)
    clip = tl.load(tiles_ptr + 3 * tile + 2)
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    clusters = tl.arange(0, BLOCK_K)
    shared = tl.load(
        shared_ptr + (clip * k + clusters)[:, None] * d + columns[None, :],
        mask=(clusters < k)[:, None] & (columns < d)[None, :],
        other=0.0,
    )
    for start in range(begin, end, BLOCK_G):
        cells = start + tl.arange(0, BLOCK_G)
        valid = cells < end
        weights = _load_weights(counts_ptr, cells, clusters, valid, stride_g, k, IS_PADDED)
        if not IS_UNIFORM:
            weights *= tl.load(inverse_ptr + cells, mask=valid, other=0.0)[:, None]
        total = _multiply(weights, shared, A_TERMS, B_TERMS)
        tl.store(
            grad_ptr + cells[:, None] * d + columns[None, :],
            total.to(grad_ptr.dtype.element_ty),
            mask=valid[:, None] & (columns < d)[None, :],
        )


def grid_counts(
    labels: Tensor,
    membership: Tensor,
    grid: Sequence[int],
    frame_offsets: Sequence[int],
    feature_offsets: Sequence[int],
) -> Tensor:
    """Launch the counting: [t, h, w, k] float32 exact integers."""
    num_frames, height, width = labels.shape
    (h, w), (num_superpixels, k), t = grid, membership.shape[1:], feature_offsets[-1]
    padded = padded_clusters(k)
    counts = torch.empty(t, h, w, padded, dtype=torch.float32, device=labels.device)
    is_framewise = list(frame_offsets) == list(feature_offsets)
    window_width = max(end - start for start, end in zip(*window_borders(width, w), strict=True))
    window_height = max(end - start for start, end in zip(*window_borders(height, h), strict=True))
    by_columns = is_framewise and window_height <= 15 and window_width * window_height <= 255
    words = padded // (8 if by_columns else 4)
    table = torch.empty(num_frames, num_superpixels, words, dtype=torch.int32, device=labels.device)
    _pack_membership_kernel[(triton.cdiv(num_frames * num_superpixels, 64), padded // CLUSTERS_PER_BLOCK)](
        membership.contiguous().view(torch.uint8),
        table,
        num_frames * num_superpixels,
        k,
        words,
        BLOCK_R=64,
        IN_NIBBLES=by_columns,
        num_warps=4,
    )
    if by_columns:
        block_x = triton.next_power_of_2(window_width)
        cells = max(1, COLUMN_LANES // block_x)
        _grid_counts_columns_kernel[(triton.cdiv(t * h * w, cells), padded // CLUSTERS_PER_BLOCK)](
            labels.contiguous(),
            table,
            counts,
            num_superpixels,
            height,
            width,
            padded,
            t * h * w,
            h=h,
            w=w,
            words=words,
            WINDOW_H=window_height,
            BLOCK_X=block_x,
            CELLS=cells,
            num_warps=max(1, block_x * cells // COLUMN_LANES),
        )
        return counts[..., :k]
    starts, ends = _bins(tuple(frame_offsets), tuple(feature_offsets), labels.device)
    # A block's valid pixels must not exceed 255, what a byte counts to.
    block_x = min(64, triton.next_power_of_2(window_width))
    used_x = min(block_x, window_width)
    rows = min(256 // block_x, triton.next_power_of_2(window_height))
    while rows > 1 and min(rows, window_height) * used_x > 255:
        rows //= 2
    _grid_counts_fwd_kernel[(t * h * w, padded // CLUSTERS_PER_BLOCK)](
        labels.contiguous(),
        table,
        counts,
        starts,
        ends,
        num_superpixels,
        height,
        width,
        h,
        w,
        padded,
        words=words,
        ROWS=rows,
        BLOCK_X=block_x,
        IS_FRAMEWISE=is_framewise,
        num_warps=2,
    )
    return counts[..., :k]


def _is_padded(counts: Tensor) -> bool:
    """Tell whether every row of the counts is followed by its padding in memory, as `grid_counts` lays them out."""
    row = counts.stride(2)
    end = counts.storage_offset() + (counts[..., 0].numel() - 1) * row + padded_clusters(counts.shape[3])
    return row >= padded_clusters(counts.shape[3]) and end <= counts.untyped_storage().nbytes() // counts.itemsize


def pool_tokens(
    features: Tensor,
    counts: Tensor,
    inverse: Tensor | None,
    area: int,
    feature_offsets: Sequence[int],
    normalize: bool,
) -> tuple[Tensor, Tensor]:
    """Launch the pooling; inverse [t, h, w] float32 is None where all windows hold `area` pixels."""
    counts = _rows(counts)
    _, h, w, d = features.shape
    k = counts.shape[3]
    block_d, block_g, num_warps, num_stages = token_config(d, features.dtype, inverse is None)
    block_k = CLUSTERS_PER_BLOCK
    blocks = triton.cdiv(d, block_d) * triton.cdiv(k, block_k)
    chunk = max(block_g, triton.cdiv(features[..., 0].numel() * blocks, TARGET_PROGRAMS * block_g) * block_g)
    splits, clips = _splits(tuple(feature_offsets), h * w, chunk, features.device)
    partials = torch.empty(splits.shape[0], k, d, dtype=torch.float32, device=features.device)
    partial_masses = torch.empty(splits.shape[0], k, dtype=torch.float32, device=features.device)
    num_clips = len(feature_offsets) - 1
    tokens = torch.empty(num_clips, k, d, dtype=torch.float32, device=features.device)
    masses = torch.empty(num_clips, k, dtype=torch.float32, device=features.device)
    a_terms, b_terms = _terms(inverse is None, area, features.dtype)
    _pool_tokens_fwd_kernel[(triton.cdiv(d, block_d), splits.shape[0], triton.cdiv(k, block_k))](
        features.contiguous(),
        counts,
        counts if inverse is None else inverse,
        splits,
        partials,
        partial_masses,
        d,
        k,
        counts.stride(2),
        BLOCK_G=block_g,
        BLOCK_K=block_k,
        BLOCK_D=block_d,
        A_TERMS=a_terms,
        B_TERMS=b_terms,
        IS_UNIFORM=inverse is None,
        IS_PADDED=_is_padded(counts),
        NUM_STAGES=num_stages,
        num_warps=num_warps,
    )
    combine_d = min(256, triton.next_power_of_2(d))
    _pool_tokens_combine_kernel[(triton.cdiv(d, combine_d), k, num_clips)](
        partials,
        partial_masses,
        clips,
        tokens,
        masses,
        1.0 / area if inverse is None else 1.0,
        d,
        k,
        BLOCK_D=combine_d,
        NORMALIZE=normalize,
        num_warps=4,
    )
    return tokens, masses


def pool_tokens_backward(
    shared: Tensor,
    counts: Tensor,
    inverse: Tensor | None,
    area: int,
    feature_offsets: Sequence[int],
    dtype: torch.dtype,
) -> Tensor:
    """Launch the backward: gradients of the features [t, h, w, d] from the tokens' shares [B, k, d] float32."""
    counts = _rows(counts)
    t, h, w, k = counts.shape
    d = shared.shape[2]
    block_d, block_g, tile, num_warps = backward_config(d)
    tiles = _tiles(tuple(feature_offsets), h * w, tile, counts.device)
    grad = torch.empty(t, h, w, d, dtype=dtype, device=counts.device)
    a_terms, b_terms = _terms(inverse is None, area, torch.float32)
    # What a third term adds is lost when the gradient is rounded to half precision.
    b_terms = b_terms if dtype == torch.float32 else min(b_terms, 2)
    _pool_tokens_bwd_kernel[(tiles.shape[0], triton.cdiv(d, block_d))](
        shared.contiguous(),
        counts,
        counts if inverse is None else inverse,
        tiles,
        grad,
        d,
        k,
        counts.stride(2),
        BLOCK_G=block_g,
        BLOCK_K=triton.next_power_of_2(padded_clusters(k)),
        BLOCK_D=block_d,
        A_TERMS=a_terms,
        B_TERMS=b_terms,
        IS_UNIFORM=inverse is None,
        IS_PADDED=_is_padded(counts) and padded_clusters(k) == triton.next_power_of_2(padded_clusters(k)),
        num_warps=num_warps,
    )
    return grad


def token_config(width: int, dtype: torch.dtype, is_uniform: bool) -> tuple[int, int, int, int]:
    """Features and cells of a block, warps and pipeline stages of the token kernel."""
    block_d = max(16, triton.next_power_of_2(width))
    if not is_uniform:
        # Products in plain float32 take more registers.
        return min(64, block_d), 32, 4, 2
    return min(256, block_d), 32, 4, (3 if dtype == torch.float32 else 4)


def backward_config(width: int) -> tuple[int, int, int, int]:
    """Features and cells of a block, cells of a program and warps of the backward kernel."""
    return min(128, max(16, triton.next_power_of_2(width))), 64, 256, 4


def _rows(counts: Tensor) -> Tensor:
    """The counts with all cells one stride apart, as the kernels address them."""
    _, h, w, _ = counts.shape
    row = counts.stride(2)
    return counts if counts.stride() == (h * w * row, w * row, row, 1) else counts.contiguous()


def _terms(is_uniform: bool, area: int, dtype: torch.dtype) -> tuple[int, int]:
    """How many bfloat16 terms the weights and the other operand need; (0, 0) multiplies in float32."""
    if IS_INTERPRETED or not is_uniform or area > 2**16:
        return 0, 0
    return (1 if area <= 256 else 2), {torch.bfloat16: 1, torch.float16: 2, torch.float32: 3}[dtype]


@lru_cache(maxsize=16)
def _bins(
    frame_offsets: tuple[int, ...], feature_offsets: tuple[int, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    starts, ends = temporal_windows(frame_offsets, feature_offsets)
    return torch.tensor(starts, dtype=torch.int32, device=device), torch.tensor(ends, dtype=torch.int32, device=device)


@lru_cache(maxsize=16)
def _splits(
    feature_offsets: tuple[int, ...], cells_per_bin: int, chunk: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cut each clip's cells into chunks: the chunks' borders [n, 2] and each clip's first chunk [B + 1]."""
    borders, firsts = [], [0]
    for start, end in pairwise(offset * cells_per_bin for offset in feature_offsets):
        borders += [(begin, min(begin + chunk, end)) for begin in range(start, end, chunk)]
        firsts.append(len(borders))
    return torch.tensor(borders, device=device), torch.tensor(firsts, device=device)


@lru_cache(maxsize=16)
def _tiles(feature_offsets: tuple[int, ...], cells_per_bin: int, chunk: int, device: torch.device) -> Tensor:
    """Cut each clip's cells into tiles: first cell, last cell and clip of each [n, 3]."""
    borders, firsts = _splits(feature_offsets, cells_per_bin, chunk, device)
    clips = torch.arange(len(feature_offsets) - 1, device=device).repeat_interleave(firsts.diff())
    return torch.cat([borders, clips[:, None]], 1)
