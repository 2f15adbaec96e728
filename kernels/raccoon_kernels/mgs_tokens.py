"""Tokens of weighed features (`raccoon::pool_tokens`), and their gradient.

The weights are the grid counts over the windows' areas; the gradient flows to the features.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from raccoon_kernels.dispatch import choose, without_autocast
from raccoon_kernels.mgs_counts import scaled_weights, window_areas

# A program of the backward kernel holds the gradients of all clusters; those of 65 do not fit into an A100.
MAX_CLUSTERS = 64


def _tokens_torch(features: Tensor, weights_Gk: Tensor, feature_offsets: Sequence[int]) -> Tensor:
    """Sum the features of each clip with the weights; half-precision features are widened a bin at a time."""
    num_bins, h, w, d = features.shape
    weights = weights_Gk.flatten(1, 2)
    rows = features.reshape(num_bins, h * w, d)
    tokens = weights.new_zeros(len(feature_offsets) - 1, weights.shape[2], d)
    step = num_bins if features.dtype == weights.dtype else max(1, 8192 // (h * w))
    for clip, token in enumerate(tokens):
        for start in range(feature_offsets[clip], feature_offsets[clip + 1], step):
            part = slice(start, min(start + step, feature_offsets[clip + 1]))
            token.addmm_(weights[part].flatten(0, 1).T, rows[part].flatten(0, 1).to(weights.dtype))
    return tokens


def _clip_sums(values_tk: Tensor, feature_offsets: Sequence[int]) -> Tensor:
    return torch.stack([values_tk[a:b].sum(0) for a, b in pairwise(feature_offsets)])


@without_autocast
def run_pool_tokens(
    features: Tensor,
    counts: Tensor,
    image: Sequence[int],
    frame_offsets: Sequence[int],
    feature_offsets: Sequence[int],
    normalize: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Weigh and add the features: tokens [B, k, d], the weights' sums [B, k] and whether each is above 0 [B, k]."""
    unsupported = _unsupported(features.dtype, counts.shape[3])
    if choose("pool_tokens", backend, features.device, unsupported=unsupported).backend == "triton":
        from raccoon_kernels import triton_pool

        area, inverse = window_areas(counts, image, frame_offsets, feature_offsets)
        return triton_pool.pool_tokens(features, counts, inverse, area or 0, feature_offsets, normalize)
    weights, scale = scaled_weights(counts, features.dtype, image, frame_offsets, feature_offsets)
    masses = _clip_sums(weights.sum((1, 2), dtype=torch.float64), feature_offsets)
    tokens = _tokens_torch(features, weights, feature_offsets)
    tokens *= _token_scale(masses, scale, normalize)[..., None]
    return tokens, (masses * scale).to(weights.dtype), masses > 0


def _unsupported(dtype: torch.dtype, num_clusters: int) -> str | None:
    if dtype == torch.float64:
        return "float64 runs on torch"
    if num_clusters > MAX_CLUSTERS:
        return f"more than {MAX_CLUSTERS} clusters run on torch, got {num_clusters}"
    return None


def _token_scale(masses: Tensor, scale: float, normalize: bool) -> Tensor:
    """What the weighted sums [B, k, d] are multiplied by, for masses [B, k] in the weights' own unit."""
    if not normalize:
        return torch.full_like(masses, scale)
    return torch.where(masses > 0, masses, torch.ones_like(masses)).reciprocal()


pool_tokens_op = torch.library.custom_op("raccoon::pool_tokens", run_pool_tokens, mutates_args=())


@pool_tokens_op.register_fake
def _(
    features: Tensor,
    counts: Tensor,
    image: Sequence[int],
    frame_offsets: Sequence[int],
    feature_offsets: Sequence[int],
    normalize: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    num_clips, k = len(feature_offsets) - 1, counts.shape[3]
    return (
        features.new_empty(num_clips, k, features.shape[3], dtype=dtype),
        features.new_empty(num_clips, k, dtype=dtype),
        features.new_empty(num_clips, k, dtype=torch.bool),
    )


@without_autocast
def run_pool_tokens_backward(
    grad_tokens: Tensor,
    counts: Tensor,
    masses: Tensor,
    dtype: torch.dtype,
    image: Sequence[int],
    frame_offsets: Sequence[int],
    feature_offsets: Sequence[int],
    normalize: bool,
    backend: str,
) -> Tensor:
    """Spread the tokens' gradients over the cells: the gradient of the features [t, h, w, d]."""
    unsupported = _unsupported(dtype, counts.shape[3])
    if choose("pool_tokens", backend, counts.device, unsupported=unsupported).backend == "triton":
        from raccoon_kernels import triton_pool

        area, inverse = window_areas(counts, image, frame_offsets, feature_offsets)
        return triton_pool.pool_tokens_backward(
            grad_tokens, counts, masses, inverse, area or 0, feature_offsets, normalize, dtype
        )
    weights, scale = scaled_weights(counts, grad_tokens.dtype, image, frame_offsets, feature_offsets)
    # The masses are kept in units of W; the weights carry `scale` outside.
    shared = grad_tokens * (_token_scale(masses, 1.0, normalize) * scale)[..., None].to(grad_tokens.dtype)
    grad = torch.empty(*counts.shape[:3], grad_tokens.shape[2], dtype=dtype, device=counts.device)
    for clip, token in enumerate(shared):
        bins = slice(feature_offsets[clip], feature_offsets[clip + 1])
        grad[bins] = (weights[bins] @ token).to(dtype)
    return grad


_pool_tokens_backward = torch.library.custom_op(
    "raccoon::pool_tokens_backward", run_pool_tokens_backward, mutates_args=()
)


@_pool_tokens_backward.register_fake
def _(
    grad_tokens: Tensor,
    counts: Tensor,
    masses: Tensor,
    dtype: torch.dtype,
    image: Sequence[int],
    frame_offsets: Sequence[int],
    feature_offsets: Sequence[int],
    normalize: bool,
    backend: str,
) -> Tensor:
    return counts.new_empty(*counts.shape[:3], grad_tokens.shape[2], dtype=dtype)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    features, counts, *ctx.constants = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(counts, output[1])
    ctx.dtype = features.dtype


def _backward(ctx: Any, grad_tokens: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    grad = _pool_tokens_backward(grad_tokens, *ctx.saved_tensors, ctx.dtype, *ctx.constants)
    return (grad, *[None] * 6)


pool_tokens_op.register_autograd(_backward, setup_context=_setup_context)


class PoolTokens(torch.autograd.Function):
    """`pool_tokens_op` with its gradient, without the layers of a registered op, which take as long as the kernels."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Run the forward on the arguments of `run_pool_tokens`."""
        output = run_pool_tokens(*inputs)
        _setup_context(ctx, inputs, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_tokens: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradient of the features."""
        counts, masses = ctx.saved_tensors
        image, frame_offsets, feature_offsets, normalize, backend = ctx.constants
        grad = run_pool_tokens_backward(
            grad_tokens, counts, masses, ctx.dtype, image, frame_offsets, feature_offsets, normalize, backend
        )
        return (grad, *[None] * 6)
