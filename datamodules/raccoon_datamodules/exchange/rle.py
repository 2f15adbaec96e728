"""COCO's run-length encoding of masks: what pycocotools, SAM 2 and most annotation tools read and write.

A mask is walked down its columns; ``counts`` are the lengths of its runs, 0s first. Compressed, each number (from the
fourth on its difference to the one two places before) is written in groups of five bits, lowest first, as characters
from "0" (48) on; the sixth bit says that another group follows, the highest bit of the last group is the sign.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_FIRST = 48


def encode_rle(mask: NDArray[np.uint8]) -> dict[str, Any]:
    """A mask {0, 1} [H, W] as ``{"size": [H, W], "counts": "..."}``, compressed, ready for JSON.

    Raises:
        ValueError: if the mask is not [H, W].
    """
    if mask.ndim != 2:
        raise ValueError(f"a run-length encoded mask is one frame [H, W], got {list(mask.shape)}")
    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    counts = [0, *runs] if flat.size and flat[0] else runs
    return {"size": [int(side) for side in mask.shape], "counts": _compress(counts)}


def decode_rle(value: Any, *, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Undo `encode_rle`: uint8 {0, 1} [H, W]; plain lists of counts are read too.

    Raises:
        ValueError: if the value is no run-length encoding of a mask of this (height, width).
    """
    if not isinstance(value, dict) or "size" not in value or "counts" not in value:
        raise ValueError(f'a run-length encoded mask must be {{"size": [H, W], "counts": ...}}, got {value!r:.100}')
    if value["size"] != list(size):
        raise ValueError(
            f"the mask must be {list(size)} (height, width) like the clip, its size is {value['size']!r:.100}"
        )
    counts = value["counts"]
    # Runs of one pixel at least, but for the first, and at most seven characters each.
    most = size[0] * size[1] + 1
    if isinstance(counts, (str, list)) and len(counts) > (7 * most if isinstance(counts, str) else most):
        raise ValueError(f"the counts of a mask of {list(size)} cannot be {len(counts)} numbers or characters")
    if isinstance(counts, str):
        counts = _decompress(counts)
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError(f"the counts of a mask must be a text or whole numbers from 0 on, got {counts!r:.100}")
    if sum(counts) != size[0] * size[1]:
        raise ValueError(f"the counts of a mask must add up to its {size[0] * size[1]} pixels, got {sum(counts)}")
    flat = np.repeat((np.arange(len(counts)) % 2).astype(np.uint8), counts)
    return np.ascontiguousarray(flat.reshape(size, order="F"))


def _compress(counts: list[int]) -> str:
    out = []
    for place, count in enumerate(counts):
        left = count - counts[place - 2] if place > 2 else count
        while True:
            group, left = left & 31, left >> 5
            is_last = left == (-1 if group & 16 else 0)
            out.append(chr(_FIRST + (group if is_last else group | 32)))
            if is_last:
                break
    return "".join(out)


def _decompress(text: str) -> list[int]:
    counts: list[int] = []
    number = shift = 0
    for character in text:
        group = ord(character) - _FIRST
        # A run is shorter than 2**32: more groups than that needs are damage, and would grow without end.
        if not 0 <= group < 64 or shift > 35:
            raise ValueError(f"the counts of a mask hold a character or number that cannot be there: {text!r:.60}")
        number |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            number -= 1 << shift
        counts.append(number + counts[-2] if len(counts) > 2 else number)
        number = shift = 0
    if shift:
        raise ValueError(f"the counts of a mask are cut off: {text[-20:]!r}")
    return counts
