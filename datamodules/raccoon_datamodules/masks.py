"""Masks of a video: read, check, grow, feather, boxes. uint8 {0, 1} [F, H, W], 1 = edit here, everywhere."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """The masks of a clip: ``data`` uint8 {0, 1} [F, H, W], 1 = edit here; ``scores`` float32 [F]; ``names``."""

    data: NDArray[np.uint8]
    scores: NDArray[np.float32] | None = None
    names: tuple[str, ...] | None = None


def boxes_of(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Boxes float32 [F, 4] xyxy in [0, 1] around mask [F, H, W]; a NaN row where it is empty."""
    mask = np.asarray(mask)
    height, width = mask.shape[1:]
    boxes = np.full((len(mask), 4), np.nan, dtype=np.float32)
    for frame, picture in enumerate(mask):
        ys, xs = np.flatnonzero(picture.any(1)), np.flatnonzero(picture.any(0))
        if ys.size:
            boxes[frame] = xs[0] / width, ys[0] / height, (xs[-1] + 1) / width, (ys[-1] + 1) / height
    return boxes


def pack(mask: NDArray[np.uint8]) -> dict[str, NDArray]:
    """Bits of a mask, to be stored as npz members."""
    mask = np.asarray(mask)
    return {"bits": np.packbits(mask.astype(bool)), "shape": np.array(mask.shape, dtype=np.int64)}


def unpack(members: dict[str, NDArray]) -> NDArray[np.uint8]:
    """Undo `pack`."""
    shape = tuple(int(n) for n in members["shape"])
    return np.unpackbits(members["bits"], count=int(np.prod(shape))).reshape(shape)
