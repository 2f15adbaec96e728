# A Triton kernel takes pointers and numbers that no annotation names.
# ruff: noqa: ANN001, ANN202
# mypy: disallow-untyped-defs=False
"""Token pooling in Triton: sums of features weighed by the grid counts, and their gradient.

[clusters, cells] times [cells, d] on the matrix units, split over the cells; the partial sums are added in a fixed
order by a second kernel. Counts up to 256 are exact in bfloat16 (two terms up to 65536) and float32 features are split
into three bfloat16 terms, so nothing is lost. Windows of unequal size have fractional weights and are multiplied in
plain float32. Backward: [cells, clusters] times [clusters, d]. All deterministic, no atomics.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import triton
import triton.language as tl
from torch import Tensor

from raccoon_kernels.launch import Launch, planned
from raccoon_kernels.triton_products import multiply, num_terms
from raccoon_kernels.windows import CLUSTERS_PER_BLOCK, padded_clusters

# Programs that the token kernel is split into, about two for each of an H100's 132 multiprocessors.
TARGET_PROGRAMS = 264


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
        total += multiply(tl.trans(weights), features, A_TERMS, B_TERMS)
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
    valid_ptr,  # [B, k] bool: whether the cluster has a pixel
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
    tl.store(valid_ptr + out, mass > 0)


@triton.jit
def _pool_tokens_bwd_kernel(
    grad_tokens_ptr,  # [B, k, d] float32
    masses_ptr,  # [B, k] float32, in units of W
    counts_ptr,  # [G, stride_g] float32
    inverse_ptr,  # [G] float32
    tiles_ptr,  # [num_tiles, 3] int64: first and last cell and the clip of each tile
    grad_ptr,  # [G, d]
    scale,  # of the counts
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
    NORMALIZE: tl.constexpr,
):
    tile = tl.program_id(0).to(tl.int64)
    begin, end = tl.load(tiles_ptr + 3 * tile), tl.load(tiles_ptr + 3 * tile + 1)
    clip = tl.load(tiles_ptr + 3 * tile + 2)
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    clusters = tl.arange(0, BLOCK_K)
    shared = tl.load(
        grad_tokens_ptr + (clip * k + clusters)[:, None] * d + columns[None, :],
        mask=(clusters < k)[:, None] & (columns < d)[None, :],
        other=0.0,
    )
    if NORMALIZE:
        mass = tl.load(masses_ptr + clip * k + clusters, mask=clusters < k, other=1.0)
        shared *= (scale / tl.where(mass > 0, mass, 1.0))[:, None]
    else:
        shared *= scale
    for start in range(begin, end, BLOCK_G):
        cells = start + tl.arange(0, BLOCK_G)
        valid = cells < end
        weights = _load_weights(counts_ptr, cells, clusters, valid, stride_g, k, IS_PADDED)
        if IS_PADDED:
            # A copy of the counts need not have copied their padding, and no number times zero is no number.
            weights = tl.where((clusters < k)[None, :], weights, 0.0)
        if not IS_UNIFORM:
            weights *= tl.load(inverse_ptr + cells, mask=valid, other=0.0)[:, None]
        total = multiply(weights, shared, A_TERMS, B_TERMS)
        tl.store(
            grad_ptr + cells[:, None] * d + columns[None, :],
            total.to(grad_ptr.dtype.element_ty),
            mask=valid[:, None] & (columns < d)[None, :],
        )


@dataclass(frozen=True, slots=True)
class _PoolPlan:
    pool: Launch
    combine: Launch
    splits: Tensor
    clips: Tensor
    partials_shape: tuple[int, int, int]
    tokens_shape: tuple[int, int, int]


def pool_tokens(
    features: Tensor,
    counts: Tensor,
    inverse: Tensor | None,
    area: int,
    feature_offsets: Sequence[int],
    normalize: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Launch the pooling; inverse [t, h, w] float32 is None where all windows hold `area` pixels.

    Returns tokens [B, k, d] and masses [B, k] in float32, and whether each cluster has a pixel [B, k].
    """
    counts = _rows(counts)
    plan = _pool_plan(
        features.shape,
        counts.shape[3],
        counts.stride(2),
        _is_padded(counts),
        area if inverse is None else 0,
        tuple(feature_offsets),
        normalize,
        features.dtype,
        features.device,
    )
    partials = counts.new_empty(plan.partials_shape)
    partial_masses = counts.new_empty(plan.partials_shape[:2])
    tokens = counts.new_empty(plan.tokens_shape)
    masses = counts.new_empty(plan.tokens_shape[:2])
    valid = counts.new_empty(plan.tokens_shape[:2], dtype=torch.bool)
    weights = counts if inverse is None else inverse
    plan.pool(features.contiguous(), counts, weights, plan.splits, partials, partial_masses)
    plan.combine(partials, partial_masses, plan.clips, tokens, masses, valid)
    return tokens, masses, valid


@planned
def _pool_plan(
    shape: tuple[int, ...],
    k: int,
    stride: int,
    is_padded: bool,
    area: int,  # 0 where windows differ
    feature_offsets: tuple[int, ...],
    normalize: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> _PoolPlan:
    t, h, w, d = shape
    is_uniform = area > 0
    block_d, block_g, num_warps, num_stages = token_config(d, dtype, is_uniform)
    block_k = CLUSTERS_PER_BLOCK
    blocks = triton.cdiv(d, block_d) * triton.cdiv(k, block_k)
    chunk = max(block_g, triton.cdiv(t * h * w * blocks, TARGET_PROGRAMS * block_g) * block_g)
    borders, firsts = _splits(feature_offsets, h * w, chunk)
    a_terms, b_terms = num_terms(is_uniform, area, dtype)
    pool = Launch(
        _pool_tokens_fwd_kernel,
        (triton.cdiv(d, block_d), len(borders), triton.cdiv(k, block_k)),
        (d, k, stride),
        {
            "BLOCK_G": block_g,
            "BLOCK_K": block_k,
            "BLOCK_D": block_d,
            "A_TERMS": a_terms,
            "B_TERMS": b_terms,
            "IS_UNIFORM": is_uniform,
            "IS_PADDED": is_padded,
            "NUM_STAGES": num_stages,
        },
        num_warps=num_warps,
    )
    num_clips = len(feature_offsets) - 1
    combine_d = min(256, triton.next_power_of_2(d))
    combine = Launch(
        _pool_tokens_combine_kernel,
        (triton.cdiv(d, combine_d), k, num_clips),
        (1.0 / area if is_uniform else 1.0, d, k),
        {"BLOCK_D": combine_d, "NORMALIZE": normalize},
        num_warps=4,
    )
    splits, clips = torch.tensor(borders, device=device), torch.tensor(firsts, device=device)
    return _PoolPlan(pool, combine, splits, clips, (len(borders), k, d), (num_clips, k, d))


@dataclass(frozen=True, slots=True)
class _BackwardPlan:
    spread: Launch
    tiles: Tensor


def pool_tokens_backward(
    grad_tokens: Tensor,
    counts: Tensor,
    masses: Tensor,
    inverse: Tensor | None,
    area: int,
    feature_offsets: Sequence[int],
    normalize: bool,
    dtype: torch.dtype,
) -> Tensor:
    """Launch the backward: gradients of the features [t, h, w, d] from the tokens' [B, k, d] float32."""
    counts = _rows(counts)
    t, h, w = counts.shape[:3]
    plan = _backward_plan(
        counts.shape,
        grad_tokens.shape[2],
        counts.stride(2),
        _is_padded(counts),
        area if inverse is None else 0,
        tuple(feature_offsets),
        normalize,
        dtype,
        counts.device,
    )
    grad = counts.new_empty((t, h, w, grad_tokens.shape[2]), dtype=dtype)
    weights = counts if inverse is None else inverse
    plan.spread(grad_tokens.contiguous(), masses.contiguous(), counts, weights, plan.tiles, grad)
    return grad


@planned
def _backward_plan(
    shape: tuple[int, ...],
    d: int,
    stride: int,
    is_padded: bool,
    area: int,  # 0 where windows differ
    feature_offsets: tuple[int, ...],
    normalize: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> _BackwardPlan:
    _, h, w, k = shape
    is_uniform = area > 0
    block_d, block_g, tile, num_warps = backward_config(d)
    borders, firsts = _splits(feature_offsets, h * w, tile)
    tiles = [(*borders[i], clip) for clip, (a, b) in enumerate(pairwise(firsts)) for i in range(a, b)]
    a_terms, b_terms = num_terms(is_uniform, area, torch.float32)
    block_k = triton.next_power_of_2(padded_clusters(k))
    spread = Launch(
        _pool_tokens_bwd_kernel,
        (len(tiles), triton.cdiv(d, block_d)),
        (1.0 / area if is_uniform else 1.0, d, k, stride),
        {
            "BLOCK_G": block_g,
            "BLOCK_K": block_k,
            "BLOCK_D": block_d,
            "A_TERMS": a_terms,
            # What a third term adds is lost when the gradient is rounded to half precision.
            "B_TERMS": b_terms if dtype == torch.float32 else min(b_terms, 2),
            "IS_UNIFORM": is_uniform,
            "IS_PADDED": is_padded and padded_clusters(k) == block_k,
            "NORMALIZE": normalize,
        },
        num_warps=num_warps,
    )
    return _BackwardPlan(spread, torch.tensor(tiles, device=device))


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


def _is_padded(counts: Tensor) -> bool:
    """Tell whether every row of the counts is followed by its padding in memory, as `grid_counts` lays them out."""
    row = counts.stride(2)
    end = counts.storage_offset() + (counts.numel() // counts.shape[3] - 1) * row + padded_clusters(counts.shape[3])
    return row >= padded_clusters(counts.shape[3]) and end <= counts.untyped_storage().nbytes() // counts.itemsize


def _rows(counts: Tensor) -> Tensor:
    """The counts with all cells one stride apart, as the kernels address them."""
    _, h, w, _ = counts.shape
    row = counts.stride(2)
    return counts if counts.stride() == (h * w * row, w * row, row, 1) else counts.contiguous()


def _splits(feature_offsets: Sequence[int], cells_per_bin: int, chunk: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Cut each clip's cells into chunks: the chunks' first and last cells, and each clip's first chunk [B + 1]."""
    borders, firsts = [], [0]
    for start, end in pairwise(offset * cells_per_bin for offset in feature_offsets):
        borders += [(begin, min(begin + chunk, end)) for begin in range(start, end, chunk)]
        firsts.append(len(borders))
    return borders, firsts
