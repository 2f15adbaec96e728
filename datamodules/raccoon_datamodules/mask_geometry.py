"""The geometry of masks: growing, feathering, boxes. Masks are uint8 {0, 1} [F, H, W], 1 = edit here.

Distances are Euclidean, between pixel centres, and exact (Felzenszwalb and Huttenlocher's transform, as OpenCV's
``DIST_MASK_PRECISE`` has it). Each frame's work is confined to the mask's bounding box plus the reach.
"""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray


def binary(mask: ArrayLike) -> NDArray[np.uint8]:
    """Return the mask as uint8 {0, 1} [F, H, W]; bool and any numbers that are only 0 and 1 are taken.

    Raises:
        ValueError: if it is not [F, H, W] with all three at least 1, or holds anything but 0 and 1.
    """
    array = np.asarray(mask)
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"a mask must be [F, H, W], one picture per frame, got shape {list(array.shape)}")
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if array.dtype == np.uint8:
        fits = int(array.max()) <= 1
    else:
        fits = array.dtype.kind in "iuf" and bool(((array == 0) | (array == 1)).all())
    if not fits:
        low, high = (array.min(), array.max()) if array.dtype.kind in "iuf" else (array.dtype, array.dtype)
        raise ValueError(
            f"a mask must hold only 0 and 1 (1 = edit here), got {array.dtype} from {low} to {high}; "
            "compare it with a threshold first, for example mask > 127"
        )
    return array.astype(np.uint8, copy=False)


def _reach(pixels: int) -> int:
    if isinstance(pixels, bool) or not isinstance(pixels, (int, np.integer)) or pixels < 0:
        raise ValueError(f"pixels must be a whole number of at least 0, got {pixels!r}")
    return int(pixels)


def _distances(mask: NDArray[np.uint8], reach: int) -> Iterator[tuple[int, tuple[slice, slice], NDArray[np.float32]]]:
    """For each frame that is not empty: its index, the window within reach, and the distances to the mask there."""
    _, height, width = mask.shape
    for frame, picture in enumerate(mask):
        ys, xs = np.flatnonzero(picture.any(axis=1)), np.flatnonzero(picture.any(axis=0))
        if not ys.size:
            continue
        window = (
            slice(max(int(ys[0]) - reach, 0), min(int(ys[-1]) + reach + 1, height)),
            slice(max(int(xs[0]) - reach, 0), min(int(xs[-1]) + reach + 1, width)),
        )
        outside = np.ascontiguousarray(1 - picture[window])
        distance: Any = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        yield frame, window, distance


def grow(mask: ArrayLike, pixels: int) -> NDArray[np.uint8]:
    """Dilate each frame by a disc: set every pixel whose centre is at most ``pixels`` from a masked pixel's centre.

    mask {0, 1} or bool [F, H, W]; returns uint8 {0, 1} [F, H, W], always a new array.

    Raises:
        ValueError: if the mask is not binary [F, H, W] or pixels is negative or not whole.
    """
    mask, reach = binary(mask), _reach(pixels)
    grown = mask.copy()
    if reach:
        # The squared distances are whole numbers: the step from reach^2 to reach^2 + 1 leaves room for float32.
        limit = reach + 0.25 / reach
        for frame, window, distance in _distances(mask, reach):
            grown[frame][window] = distance <= limit
    return grown


def feather(mask: ArrayLike, pixels: int) -> NDArray[np.float32]:
    """Soften the outer edge: alpha is exactly 1 on the mask and exactly 0 at ``pixels`` and further outside it.

    Between, with t = 1 - distance / pixels, alpha = t^2 (3 - 2t), which is flat at both ends. With ``pixels`` 0 or 1
    alpha is the mask itself: the nearest outside pixel is at distance 1.
    mask {0, 1} or bool [F, H, W]; returns float32 [F, H, W].

    Raises:
        ValueError: if the mask is not binary [F, H, W] or pixels is negative or not whole.
    """
    mask, reach = binary(mask), _reach(pixels)
    alpha = mask.astype(np.float32)
    if reach > 1:
        for frame, window, distance in _distances(mask, reach):
            # In place: these arrays are large and there are many frames.
            np.multiply(distance, -1.0 / reach, out=distance)
            np.add(distance, 1.0, out=distance)
            # 1 - reach * (1 / reach) may miss 0 by a rounding; half a step of the nearest smaller distance is the cut.
            distance[distance < 0.25 / (reach * reach)] = 0.0
            alpha[frame][window] = distance * distance * (3.0 - 2.0 * distance)
    return alpha


def boxes_of(mask: ArrayLike) -> NDArray[np.float32]:
    """Give the tight box around each frame's mask.

    mask {0, 1} or bool [F, H, W]; returns float32 [F, 4] xyxy in [0, 1] (pixel edges over width and height, so a full
    frame is 0, 0, 1, 1); an empty frame is a NaN row.

    Raises:
        ValueError: if the mask is not binary [F, H, W].
    """
    mask = binary(mask)
    _, height, width = mask.shape
    rows: NDArray[np.bool_] = np.any(mask, axis=2)
    columns: NDArray[np.bool_] = np.any(mask, axis=1)
    boxes = np.stack(
        [
            columns.argmax(axis=1) / width,
            rows.argmax(axis=1) / height,
            1 - columns[:, ::-1].argmax(axis=1) / width,
            1 - rows[:, ::-1].argmax(axis=1) / height,
        ],
        axis=1,
    ).astype(np.float32)
    boxes[~np.any(rows, axis=1)] = np.nan
    return boxes


def mask_of_boxes(boxes: ArrayLike, *, height: int, width: int) -> NDArray[np.uint8]:
    """Fill each frame's box: the inverse of `boxes_of` on the pixel grid.

    boxes [F, 4] xyxy in [0, 1]; edges are rounded to the nearest pixel edge and cut at the border of the picture; a box
    of some width that rounds to nothing keeps the pixel it stands in; a NaN row is an empty frame.
    Returns uint8 {0, 1} [F, H, W].

    Raises:
        ValueError: if boxes is not [F, 4], a row is partly NaN or infinite, or a box's right or lower edge comes first.
    """
    array = np.asarray(boxes, dtype=np.float64)
    if array.ndim != 2 or array.shape[1:] != (4,):
        raise ValueError(f"boxes must be [F, 4] (x0, y0, x1, y1 of each frame), got shape {list(array.shape)}")
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be at least 1, got {height} and {width}")
    absent = np.isnan(array).all(axis=1)
    broken = ~absent & ~np.isfinite(array).all(axis=1)
    if broken.any():
        row = int(broken.argmax())
        raise ValueError(f"box {row} must be four finite numbers or four NaN (absent), got {array[row].tolist()}")
    crossed = ~absent & ((array[:, 2] < array[:, 0]) | (array[:, 3] < array[:, 1]))
    if crossed.any():
        row = int(crossed.argmax())
        raise ValueError(f"box {row} must be x0, y0, x1, y1 with x0 <= x1 and y0 <= y1, got {array[row].tolist()}")
    mask = np.zeros((len(array), height, width), dtype=np.uint8)
    for frame in np.flatnonzero(~absent):
        x0, y0, x1, y1 = array[frame]
        mask[frame, _span(y0, y1, height), _span(x0, x1, width)] = 1
    return mask


def _span(low: float, high: float, size: int) -> slice:
    """Cut [low, high] of the unit interval to pixels [first, last)."""
    if high <= 0 or low >= 1 or high == low:
        return slice(0, 0)
    first, last = (int(np.floor(np.clip(edge, 0, 1) * size + 0.5)) for edge in (low, high))
    if last == first:
        first = min(int((max(low, 0) + min(high, 1)) / 2 * size), size - 1)
        last = first + 1
    return slice(first, last)
