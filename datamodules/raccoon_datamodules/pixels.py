"""Frames as training takes them: another size, one frame at a time, and planes of floats instead of 8-bit RGB."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# 8-bit values that are turned into floats at once: with these they stay within a core's second-level cache.
_PIECE = 1 << 18


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
    # Rows first: whole rows are gathered fast, and fewer of them are left for the columns.
    return _any_of(_any_of(mask, height, axis=1), width, axis=2)


def _any_of(mask: NDArray[np.uint8], new: int, *, axis: int) -> NDArray[np.uint8]:
    """Shrink or grow one axis to ``new``: each new pixel is the largest of the old ones that it touches."""
    old, place = mask.shape[axis], np.arange(new)
    first, last = place * old // new, -(-(place + 1) * old // new) - 1
    found = mask.take(first, axis=axis)
    for step in range(1, int((last - first).max()) + 1):
        np.maximum(found, mask.take(np.minimum(first + step, last), axis=axis), out=found)
    return found


def stack_planes(clips: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Clips uint8 [F, H, W, 3] of one size to uint8 [B, F, 3, H, W]."""
    planes = np.empty((len(clips), *_planar(clips[0])), dtype=np.uint8)
    for out, clip in zip(planes, clips, strict=True):
        _split(clip, out)
    return torch.from_numpy(planes)


def float_planes(clips: Sequence[NDArray[np.uint8]], *, divisor: float, minus: float = 0.0) -> Tensor:
    """Clips uint8 [F, H, W, 3] of one size to float32 [B, F, 3, H, W], each value / divisor - minus.

    OpenCV takes pixels apart ten times as fast as a permuted copy of torch's, and each piece is divided straight into
    its place while it is in the processor's cache: most of the time goes into touching new memory, once is enough.
    """
    num_frames, *shape = _planar(clips[0])
    out = np.empty((len(clips), num_frames, *shape), dtype=np.float32)
    step = max(1, _PIECE // (shape[0] * shape[1] * shape[2]))
    planes = np.empty((min(step, num_frames), *shape), dtype=np.uint8)
    for clip, floats in zip(clips, out, strict=True):
        for first in range(0, num_frames, step):
            piece, place = clip[first : first + step], floats[first : first + step]
            _split(piece, planes)
            np.divide(planes[: len(piece)], np.float32(divisor), out=place)
            if minus:
                np.subtract(place, np.float32(minus), out=place)
    return torch.from_numpy(out)


def _planar(clip: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    num_frames, height, width, channels = clip.shape
    return num_frames, channels, height, width


def _split(clip: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Frames [f, H, W, 3] to the first planes [f, 3, H, W] of ``out``."""
    for frame, planes in zip(clip, out, strict=False):
        cv2.split(frame, list(planes))
