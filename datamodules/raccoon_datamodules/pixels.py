"""Frames as training takes them: at another size, one frame at a time, and in batches of planes."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def resize(frames: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Frames uint8 [F, H, W, 3] at another (height, width): by area where it shrinks, bilinear where it grows."""
    if frames.shape[1:3] == tuple(size):
        return frames
    return np.stack([resize_frame(frame, size) for frame in frames])


def resize_frame(frame: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """One frame or plane uint8 [H, W, 3] or [H, W] at another (height, width); see `resize`."""
    height, width = size
    if frame.shape[:2] == (height, width):
        return frame
    shrinks = height * width < frame.shape[0] * frame.shape[1]
    out: NDArray[np.uint8] = cv2.resize(
        frame, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return out


def resize_mask(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Mask uint8 {0, 1} [F, H, W] at another (height, width): 1 where any masked pixel falls into the new pixel.

    So a small object never vanishes. The released code resizes bilinearly and takes what is above 0, which misses
    pixels when it shrinks by more than two and spreads by one when it grows.
    """
    height, width = size
    _, old_height, old_width = mask.shape
    if (old_height, old_width) == (height, width):
        return mask
    rows, columns = _touched(old_height, height), _touched(old_width, width)
    # Whole rows are gathered fast, so the columns are laid down as rows for their turn.
    return np.stack([cv2.transpose(_any_of(cv2.transpose(_any_of(plane, rows)), columns)) for plane in mask])


def _touched(old: int, new: int) -> list[NDArray[np.int64]]:
    """For each of ``new`` pixels in a row the old ones that it touches: the first ones, the second ones, and so on."""
    place = np.arange(new)
    first, last = place * old // new, -(-(place + 1) * old // new) - 1
    return [np.minimum(first + step, last) for step in range(int((last - first).max()) + 1)]


def _any_of(plane: NDArray[np.uint8], touched: Sequence[NDArray[np.int64]]) -> NDArray[np.uint8]:
    """Plane [H, W] with rows made anew: each is the largest of the old ones that it touches."""
    found = plane[touched[0]]
    for rows in touched[1:]:
        np.maximum(found, plane[rows], out=found)
    return found


def stack_planes(clips: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Clips uint8 [F, H, W, 3] of one size to uint8 [B, F, 3, H, W]."""
    num_frames, height, width, channels = clips[0].shape
    planes = np.empty((len(clips), num_frames, channels, height, width), dtype=np.uint8)
    for out, clip in zip(planes, clips, strict=True):
        for frame, split in zip(clip, out, strict=True):
            # OpenCV takes pixels apart ten times as fast as a permuted copy of torch's.
            cv2.split(frame, list(split))
    return torch.from_numpy(planes)


def planes_of(clips: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Clips uint8 [F, H, W, 3] of one size to a view [B, F, 3, H, W] of their stack.

    Its pixels still lie together, which costs one copy and no more; `batch` takes them apart where they become floats.
    """
    return torch.from_numpy(np.stack(clips)).permute(0, 1, 4, 2, 3)
