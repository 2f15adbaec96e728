"""Which way up a picture is shown: the display matrix of phones' clips, applied exactly (no resampling)."""

from typing import Any

import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from numpy.typing import NDArray


def display_matrix(frame: Any) -> tuple[int, int, int, int] | None:
    """The signs of the display matrix (a, b, c, d) rounded to quarter turns, or None where nothing is to be done.

    A stored pixel (x, y) is shown at (a x + c y, b x + d y), up to a shift (ISO/IEC 14496-12, 6.2.2).
    """
    data = frame.side_data.get(SideDataType.DISPLAYMATRIX)
    if data is None:
        return None
    numbers = np.frombuffer(bytes(data), dtype=np.int32)[[0, 1, 3, 4]].astype(np.int64)
    a, b, c, d = (int(number) for number in numbers)
    upright = abs(a) + abs(d) >= abs(b) + abs(c)
    signs = (int(np.sign(a)), 0, 0, int(np.sign(d))) if upright else (0, int(np.sign(b)), int(np.sign(c)), 0)
    return None if signs in ((1, 0, 0, 1), (0, 0, 0, 0)) else signs


def orient(picture: NDArray[np.uint8], matrix: tuple[int, int, int, int] | None) -> NDArray[np.uint8]:
    """Turn a stored picture [H, W, 3] the way it is shown; a view, exact."""
    if matrix is None:
        return picture
    a, b, c, d = matrix
    if a == 0:
        picture, a, d = picture.transpose(1, 0, 2), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def degrees(matrix: tuple[int, int, int, int] | None) -> int:
    """Clockwise degrees of a display matrix; a mirrored picture counts by where its stored right side goes."""
    if matrix is None:
        return 0
    a, b, _, _ = matrix
    return {(1, 0): 0, (0, 1): 90, (-1, 0): 180, (0, -1): 270}[(a, b)]
