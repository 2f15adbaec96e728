"""Checks of labels and offsets that the ops share.

Shapes and dtypes cost nothing and are always checked. Values cost a pass over the labels and, on a GPU, a wait for the
device, so they are checked in *checked mode*: always for CPU tensors, on a GPU only when `checked=True` is passed.
Unchecked, the Triton kernels leave a pixel out whose label lies outside the range: it is never clamped and never read
beyond a tensor's end.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

LABEL_DTYPES = (torch.int16, torch.int32, torch.int64)


def is_checked(checked: bool | None, device: torch.device) -> bool:
    """Resolve the three-valued `checked` argument: None means CPU tensors only."""
    return device.type == "cpu" if checked is None else checked


def check_labels(labels: Tensor) -> None:
    """Check the kind and rank of a label map; raises as `check_label_metadata` does."""
    check_label_metadata(labels.dtype, labels.shape)


def check_label_metadata(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Check the dtype and shape of a label map.

    Raises:
        TypeError: labels is not int16, int32 or int64.
        ValueError: labels is not [F, H, W] with at least one pixel.
    """
    if dtype not in LABEL_DTYPES:
        raise TypeError(f"labels must be int16, int32 or int64, got {dtype}; convert them with labels.int()")
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"labels must be [F, H, W] with at least one pixel, got {list(shape)}")


def check_label_values(labels: Tensor, num_superpixels: int) -> None:
    """Check that every label is a local id; waits for the device on a GPU.

    Raises:
        ValueError: a label lies outside [0, num_superpixels).
    """
    low, high = (int(bound) for bound in labels.aminmax())
    if low < 0 or high >= num_superpixels:
        raise ValueError(
            f"labels must be local ids in [0, {num_superpixels}), got values from {low} to {high}; "
            "number each frame's superpixels from 0, or raise num_superpixels"
        )


def check_offsets(name: str, offsets: Sequence[int] | Tensor, total: int) -> list[int]:
    """Turn the borders of clips into a list and check that they cut [0, total) into non-empty pieces.

    Raises:
        ValueError: offsets do not rise strictly from 0 to total.
    """
    borders = [int(border) for border in offsets.tolist()] if isinstance(offsets, Tensor) else [int(o) for o in offsets]
    if len(borders) < 2 or borders[0] != 0 or borders[-1] != total or any(a >= b for a, b in pairwise(borders)):
        raise ValueError(
            f"{name} must rise strictly from 0 to {total}, one border more than there are clips, got {borders}"
        )
    return borders
