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

import torch
from torch import Tensor

from raccoon_kernels.checks import check_labels, check_offsets, is_checked
from raccoon_kernels.dispatch import call
from raccoon_kernels.mgs_counts import grid_counts_op, grid_weights_op, run_grid_counts, run_grid_weights
from raccoon_kernels.mgs_tokens import PoolTokens, pool_tokens_op, run_pool_tokens

FEATURE_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


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
        The weights W [t, h, w, k] float32 in [0, 1], `adaptive_avg_pool3d` of the masks, in rows that are padded to a
        multiple of 32 clusters. No gradient.

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
    grid = list(size[1:])
    weights: Tensor = call(
        grid_weights_op, run_grid_weights, labels, membership, grid, frames, bins, backend, use_check
    )
    return weights


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
    counts = call(grid_counts_op, run_grid_counts, labels, membership, grid, frames, bins, backend, use_check)
    tokens, _, valid = call(
        pool_tokens_op,
        run_pool_tokens,
        features,
        counts,
        image,
        frames,
        bins,
        normalize,
        backend,
        function=PoolTokens,
    )
    if frame_offsets is None:
        return tokens[0], valid[0]
    return tokens, valid
