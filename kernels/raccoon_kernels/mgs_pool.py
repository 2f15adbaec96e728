"""Masked multi-granular pooling: tokens from features, labels and overlapping clusters, with no mask ever built.

The mask of cluster j is m_j[f, y, x] = membership[f, label(f, y, x), j]. With the adaptive windows Omega_g of the token
grid (t, h, w), those of `adaptive_avg_pool3d`,

    W[g, j] = |{p in Omega_g : m_j(p) = 1}| / |Omega_g|,      token_j = sum_g W[g, j] e_g / sum_g W[g, j]

Two ops: labels and memberships give the integer counts |Omega_g| W (`raccoon::grid_counts`, no gradient: labels and
memberships are discrete), counts and features give the tokens (`raccoon::pool_tokens`, gradient to the features).
Accumulation is float32 (float64 for float64 features); counts are exact. Bytes moved: the labels and the features once,
the counts [t*h*w, k] twice; k masks of F*H*W pixels, which the equation reads as, never exist. Both backends are
deterministic. A NaN in a feature reaches every token of its clip, as in any matrix product.

Source: RACCooN, section 3.1, "e^l = AvgPool(m) (x) e"; dividing by the mask's mass is ours, see docs/differences.md.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from raccoon_kernels.checks import check_label_values, check_labels, check_offsets, is_checked
from raccoon_kernels.dispatch import call, choose
from raccoon_kernels.windows import inverse_areas, padded_clusters, pixel_bags, temporal_windows, uniform_area

FEATURE_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _counts_torch(
    labels: Tensor,
    membership: Tensor,
    grid: Sequence[int],
    frame_offsets: Sequence[int],
    feature_offsets: Sequence[int],
    checked: bool,
) -> Tensor:
    """One frame at a time: its labels reordered by window, then sums of membership rows."""
    (_, height, width), (h, w) = labels.shape, grid
    num_superpixels, k = membership.shape[1:]
    counts = torch.zeros(feature_offsets[-1], h * w, padded_clusters(k), device=labels.device)[..., :k]
    bins: list[list[int]] = [[] for _ in range(labels.shape[0])]
    for index, (start, end) in enumerate(zip(*temporal_windows(frame_offsets, feature_offsets), strict=True)):
        for frame in range(start, end):
            bins[frame].append(index)
    is_exact = height % h == 0 and width % w == 0
    pixels, begins = (None, None) if is_exact else pixel_bags(height, width, h, w, labels.device)
    for frame, label in enumerate(labels):
        if checked:
            check_label_values(label, num_superpixels)
        if pixels is None:
            ids = label.reshape(h, height // h, w, width // w).transpose(1, 2).reshape(h * w, -1).int()
        else:
            ids = label.reshape(-1)[pixels].int()
        # embedding_bag adds rows without gathering them: half the time of a joint histogram, and exact, as float32
        # holds every count up to 16.7 million pixels a window.
        summed = embedding_bag(ids, membership[frame].float(), begins, mode="sum")
        for index in bins[frame]:
            counts[index] += summed
    return counts.unflatten(1, (h, w))


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


def _run_grid_counts(
    labels: Tensor,
    membership: Tensor,
    grid: Sequence[int],
    frame_offsets: Sequence[int],
    feature_offsets: Sequence[int],
    backend: str,
    checked: bool,
) -> Tensor:
    """Count each cluster's pixels in each window: [t, h, w, k] float32, exact integers, in rows of 32 or 64."""
    if choose("grid_counts", backend, labels.device).backend == "triton":
        from raccoon_kernels import triton_mgs

        if checked:
            check_label_values(labels, membership.shape[1])
        return triton_mgs.grid_counts(labels, membership, grid, frame_offsets, feature_offsets)
    return _counts_torch(labels, membership, grid, frame_offsets, feature_offsets, checked)


_grid_counts = torch.library.custom_op("raccoon::grid_counts", _run_grid_counts, mutates_args=())


@_grid_counts.register_fake
def _(
    labels: Tensor,
    membership: Tensor,
    grid: Sequence[int],
    frame_offsets: Sequence[int],
    feature_offsets: Sequence[int],
    backend: str,
    checked: bool,
) -> Tensor:
    k = membership.shape[2]
    shape = (feature_offsets[-1], grid[0], grid[1], padded_clusters(k))
    return labels.new_empty(shape, dtype=torch.float32)[..., :k]


def _run_pool_tokens(
    features: Tensor,
    counts: Tensor,
    image: Sequence[int],
    frame_offsets: Sequence[int],
    feature_offsets: Sequence[int],
    normalize: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Weigh and add the features: tokens [B, k, d] and the weights' sums [B, k]."""
    unsupported = _unsupported(features.dtype)
    if choose("pool_tokens", backend, features.device, unsupported=unsupported).backend == "triton":
        from raccoon_kernels import triton_mgs

        area, inverse = _areas(counts, image, frame_offsets, feature_offsets)
        return triton_mgs.pool_tokens(features, counts, inverse, area or 0, feature_offsets, normalize)
    weights, scale = _weights(counts, features.dtype, image, frame_offsets, feature_offsets)
    masses = _clip_sums(weights.sum((1, 2), dtype=torch.float64), feature_offsets)
    tokens = _tokens_torch(features, weights, feature_offsets)
    tokens *= _token_scale(masses, scale, normalize)[..., None]
    return tokens, (masses * scale).to(weights.dtype)


def _weights(
    counts: Tensor,
    feature_dtype: torch.dtype,
    image: Sequence[int],
    frame_offsets: Sequence[int],
    feature_offsets: Sequence[int],
) -> tuple[Tensor, float]:
    """The weights W as a tensor times a number: the counts themselves where all windows are equally large."""
    dtype = torch.float64 if feature_dtype == torch.float64 else torch.float32
    area, inverse = _areas(counts, image, frame_offsets, feature_offsets, dtype)
    if inverse is None:
        return counts.to(dtype), 1.0 / (area or 1)
    return counts.to(dtype) * inverse[..., None], 1.0


def _areas(
    counts: Tensor,
    image: Sequence[int],
    frame_offsets: Sequence[int],
    feature_offsets: Sequence[int],
    dtype: torch.dtype = torch.float32,
) -> tuple[int | None, Tensor | None]:
    """Either the area of all windows, or one over each window's area [t, h, w]."""
    grid = (counts.shape[1], counts.shape[2])
    area = uniform_area(frame_offsets, feature_offsets, image, grid)
    if area is not None:
        return area, None
    size = (image[0], image[1])
    return None, inverse_areas(tuple(frame_offsets), tuple(feature_offsets), size, grid, dtype, counts.device)


def _unsupported(dtype: torch.dtype) -> str | None:
    return "float64 runs on torch" if dtype == torch.float64 else None


def _token_scale(masses: Tensor, scale: float, normalize: bool) -> Tensor:
    """What the weighted sums [B, k, d] are multiplied by, for masses [B, k] in the weights' own unit."""
    if not normalize:
        return torch.full_like(masses, scale)
    return torch.where(masses > 0, masses, torch.ones_like(masses)).reciprocal()


_pool_tokens = torch.library.custom_op("raccoon::pool_tokens", _run_pool_tokens, mutates_args=())


@_pool_tokens.register_fake
def _(
    features: Tensor,
    counts: Tensor,
    image: Sequence[int],
    frame_offsets: Sequence[int],
    feature_offsets: Sequence[int],
    normalize: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    num_clips, k = len(feature_offsets) - 1, counts.shape[3]
    return (
        features.new_empty(num_clips, k, features.shape[3], dtype=dtype),
        features.new_empty(num_clips, k, dtype=dtype),
    )


def _run_pool_tokens_backward(
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
    if choose("pool_tokens", backend, counts.device, unsupported=_unsupported(dtype)).backend == "triton":
        from raccoon_kernels import triton_mgs

        area, inverse = _areas(counts, image, frame_offsets, feature_offsets)
        share = (_token_scale(masses, 1.0, normalize) / (area or 1))[..., None] * grad_tokens
        return triton_mgs.pool_tokens_backward(share, counts, inverse, area or 0, feature_offsets, dtype)
    weights, scale = _weights(counts, grad_tokens.dtype, image, frame_offsets, feature_offsets)
    # The masses are kept in units of W; the weights carry `scale` outside.
    shared = grad_tokens * (_token_scale(masses, 1.0, normalize) * scale)[..., None].to(grad_tokens.dtype)
    grad = torch.empty(*counts.shape[:3], grad_tokens.shape[2], dtype=dtype, device=counts.device)
    for clip, token in enumerate(shared):
        bins = slice(feature_offsets[clip], feature_offsets[clip + 1])
        grad[bins] = (weights[bins] @ token).to(dtype)
    return grad


_pool_tokens_backward = torch.library.custom_op(
    "raccoon::pool_tokens_backward", _run_pool_tokens_backward, mutates_args=()
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


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    features, counts, *ctx.constants = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(counts, output[1])
    ctx.dtype = features.dtype


def _backward(ctx: Any, grad_tokens: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    grad = _pool_tokens_backward(grad_tokens, *ctx.saved_tensors, ctx.dtype, *ctx.constants)
    return (grad, *[None] * 6)


_pool_tokens.register_autograd(_backward, setup_context=_setup_context)


def _check_inputs(features: Tensor, labels: Tensor, membership: Tensor) -> None:
    if features.dtype not in FEATURE_DTYPES:
        raise TypeError(f"features must be float16, bfloat16, float32 or float64, got {features.dtype}")
    if features.ndim != 4 or features.numel() == 0:
        raise ValueError(f"features must be [t, h, w, d] with no empty axis, got {list(features.shape)}")
    _check_membership(labels, membership)
    if features.device != labels.device:
        raise ValueError(f"features and labels must be on one device, got {features.device} and {labels.device}")


def _check_membership(labels: Tensor, membership: Tensor) -> None:
    check_labels(labels)
    if membership.dtype != torch.bool:
        raise TypeError(f"membership must be bool, got {membership.dtype}; compare it with a threshold first")
    if membership.ndim != 3 or membership.shape[0] != labels.shape[0] or membership.numel() == 0:
        raise ValueError(
            f"membership must be [F, S, k] for labels [F, H, W] = {list(labels.shape)}, got {list(membership.shape)}"
        )
    if membership.device != labels.device:
        raise ValueError(f"membership and labels must be on one device, got {membership.device} and {labels.device}")


def _clip_borders(
    num_frames: int,
    num_bins: int,
    frame_offsets: Sequence[int] | Tensor | None,
    feature_offsets: Sequence[int] | Tensor | None,
) -> tuple[list[int], list[int]]:
    if frame_offsets is None:
        if feature_offsets is not None:
            raise ValueError("feature_offsets needs frame_offsets, got none; pass both for a batch of clips")
        return [0, num_frames], [0, num_bins]
    frames = check_offsets("frame_offsets", frame_offsets, num_frames)
    if feature_offsets is None:
        if num_bins != num_frames:
            raise ValueError(
                f"feature_offsets must be given for a batch with {num_bins} bins of features for {num_frames} frames; "
                "only as many bins as frames share frame_offsets"
            )
        return frames, frames
    bins = check_offsets("feature_offsets", feature_offsets, num_bins)
    if len(bins) != len(frames):
        raise ValueError(f"feature_offsets must hold as many borders as frame_offsets, {len(frames)}, got {len(bins)}")
    return frames, bins


def grid_weights(
    labels: Tensor,
    membership: Tensor,
    size: tuple[int, int, int],
    *,
    backend: str = "auto",
    checked: bool | None = None,
) -> Tensor:
    """Average each cluster's mask over the windows of a token grid, without building a mask.

    Args:
        labels: local superpixel ids [F, H, W]: int16, int32 or int64.
        membership: which superpixel belongs to which cluster, bool [F, S, k].
        size: the token grid (t, h, w).
        backend: "auto", "triton" or "torch".
        checked: whether label values are checked: None checks CPU tensors only.

    Returns:
        The weights W [t, h, w, k] float32 in [0, 1], `adaptive_avg_pool3d` of the masks. No gradient.

    Raises:
        TypeError: labels or membership has another dtype.
        ValueError: shapes do not match, size is not three positive numbers, or (checked) a label is out of range.
        RuntimeError: backend "triton" was asked for and cannot run.

    Source: RACCooN, section 3.1, AvgPool(m).
    """
    _check_membership(labels, membership)
    if len(size) != 3 or min(size) < 1:
        raise ValueError(f"size must be the token grid (t, h, w), three numbers of at least 1, got {tuple(size)}")
    frames, bins = [0, labels.shape[0]], [0, size[0]]
    use_check = is_checked(checked, labels.device)
    counts = call(_grid_counts, _run_grid_counts, labels, membership, list(size[1:]), frames, bins, backend, use_check)
    weights, scale = _weights(counts, torch.float32, labels.shape[1:], frames, bins)
    return weights * scale


def mgs_pool(
    features: Tensor,
    labels: Tensor,
    membership: Tensor,
    *,
    frame_offsets: Sequence[int] | Tensor | None = None,
    feature_offsets: Sequence[int] | Tensor | None = None,
    normalize: bool = True,
    backend: str = "auto",
    checked: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Pool the features under each cluster's mask into one token, without building a mask.

    Args:
        features: features on the token grid [t, h, w, d]: float16, bfloat16, float32 or float64. t may differ from F:
            bins then average several frames, as `adaptive_avg_pool3d` does.
        labels: local superpixel ids [F, H, W]: int16, int32 or int64.
        membership: which superpixel belongs to which cluster, bool [F, S, k].
        frame_offsets: borders [B + 1] of the clips laid end to end along F, rising from 0 to F; None is one clip.
        feature_offsets: the same borders along t; needed where t differs from F.
        normalize: divide each token by its mask's mass, which keeps it on the scale of the features; False gives the
            paper's plain product.
        backend: "auto", "triton" or "torch"; see `raccoon_kernels.dispatch`.
        checked: whether label values are checked: None checks CPU tensors only, True waits for the GPU.

    Returns:
        tokens [k, d] float32 (float64 for float64 features), zero for a cluster without pixels, and valid [k] bool;
        [B, k, d] and [B, k] with frame_offsets. The gradient flows to features.

    Raises:
        TypeError: features, labels or membership has another dtype.
        ValueError: shapes or offsets do not match, or (checked) a label is out of range.
        RuntimeError: backend "triton" was asked for and cannot run.

    Source: RACCooN, section 3.1, equation of e^l; normalisation is ours.
    """
    _check_inputs(features, labels, membership)
    frames, bins = _clip_borders(labels.shape[0], features.shape[0], frame_offsets, feature_offsets)
    image, grid = list(labels.shape[1:]), list(features.shape[1:3])
    use_check = is_checked(checked, labels.device)
    counts = call(_grid_counts, _run_grid_counts, labels, membership, grid, frames, bins, backend, use_check)
    tokens, masses = call(_pool_tokens, _run_pool_tokens, features, counts, image, frames, bins, normalize, backend)
    valid = masses > 0
    if frame_offsets is None:
        return tokens[0], valid[0]
    return tokens, valid
