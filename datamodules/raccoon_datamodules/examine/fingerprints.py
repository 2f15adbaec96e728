"""What a clip looks like, in a kilobyte: so that copies are found after re-encoding or a change of size.

The hash of a frame: grey (BT.601), shrunk to 32 x 32 by averaging, its two-dimensional DCT-II; of the 64 lowest
frequencies after the constant, in zigzag order, bit i says whether coefficient i lies above the median of the 64. Eight
frames of a clip are hashed, the middles of eight equal parts (a shorter clip's frames come several times). Beside each
hash a thumbnail keeps the colours, which tells apart scenes whose grey shapes happen to agree.

The distance of two clips: each frame of the one takes the nearest hash of the other; the mean of these distances (in
bits of 64), in the direction in which it is larger. The frames need not fall on the same moments, so a clip that was
cut a little stays near, but a clip that only shares a moment with another does not.
"""

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

HASHED_FRAMES = 8
_GREY_SIDE, _THUMBNAIL_SIDE, _BITS = 32, 8, 64
# Standard deviation, in levels of 255, below which a frame has no shapes that a hash could hold.
_PLAIN_BELOW = 2.0


def _zigzag() -> NDArray[np.int64]:
    rows, columns = np.divmod(np.arange(_GREY_SIDE * _GREY_SIDE), _GREY_SIDE)
    diagonal = rows + columns
    # Every other diagonal is walked upwards.
    order = np.lexsort((np.where(diagonal % 2, rows, columns), diagonal))
    return order[1 : 1 + _BITS]


_ORDER = _zigzag()


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """One clip: ``digest``, the sha256 of its file; ``hashes`` uint64 [8]; ``thumbnails`` uint8 [8, 8, 8, 3].

    ``is_plain``: no frame has shapes to compare (black, one colour); such a clip is near to nothing.
    """

    digest: bytes
    hashes: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]
    is_plain: bool


def frame_hash(frame: NDArray[np.uint8]) -> int:
    """The 64-bit perceptual hash of a frame uint8 [H, W, 3] RGB; see the module."""
    grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY).astype(np.float32)
    small = cv2.resize(grey, (_GREY_SIDE, _GREY_SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small).ravel()[_ORDER]
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def fingerprint(frames: NDArray[np.uint8], data: bytes) -> Fingerprint:
    """The fingerprint of a clip: its frames uint8 [F, H, W, 3] RGB and the bytes of its file."""
    chosen = [int((i + 0.5) * len(frames) / HASHED_FRAMES) for i in range(HASHED_FRAMES)]
    side = (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE)
    return Fingerprint(
        digest=hashlib.sha256(data).digest(),
        hashes=np.array([frame_hash(frames[n]) for n in chosen], dtype=np.uint64),
        thumbnails=np.stack([cv2.resize(frames[n], side, interpolation=cv2.INTER_AREA) for n in chosen]),
        is_plain=max(float(frames[n].std(axis=(0, 1)).max()) for n in chosen) < _PLAIN_BELOW,
    )


def distances(
    hashes: NDArray[np.uint64],
    thumbnails: NDArray[np.uint8],
    other_hashes: NDArray[np.uint64],
    other_thumbnails: NDArray[np.uint8],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far n pairs of clips are apart: bits of 64, and levels of 255 of the thumbnails; float64 [n] each.

    ``hashes`` and ``other_hashes`` uint64 [n, 8], the thumbnails uint8 [n, 8, 8, 8, 3]; see the module.
    """
    bits = np.bitwise_count(hashes[:, :, None] ^ other_hashes[:, None, :])
    apart = np.maximum(bits.min(axis=2).mean(axis=1), bits.min(axis=1).mean(axis=1))
    pair = np.arange(len(hashes))[:, None]
    one, other = thumbnails.astype(np.int16), other_thumbnails.astype(np.int16)
    there = np.abs(one - other[pair, bits.argmin(axis=2)]).mean(axis=(1, 2, 3, 4))
    back = np.abs(other - one[pair, bits.argmin(axis=1)]).mean(axis=(1, 2, 3, 4))
    return apart, np.maximum(there, back)
