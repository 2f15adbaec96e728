"""How much a picture moves as a whole: what a painter that needs a camera that stands still has to know beforehand.

Corners are followed from one frame to the next (Lucas and Kanade, pyramidal, as in OpenCV) in eight places of the clip,
outside the mask. The picture is cut into 4 x 4 cells: a moving object fills some of them, a moving camera all, so the
median over the cells is the camera's. Where fewer than six cells have corners to follow nothing is said.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

_PLACES, _CELLS, _LONGER_SIDE = 8, 4, 320
_MIN_CORNERS, _MIN_CELLS = 5, 6


def picture_speed(frames: NDArray[np.uint8], mask: NDArray[np.uint8]) -> float | None:
    """Return the median shift of the picture from a frame to the next, as a share of its width; None if unknown.

    frames uint8 [F, H, W, 3]; mask uint8 {0, 1} [F, H, W], what is not looked at. On thirteen real clips (the first
    three seconds of each): at most 0.0002 for the three whose camera stands still, 0.0008 to 0.026 for the other ten.
    """
    if len(frames) < 2:
        return None
    firsts = np.unique(np.linspace(0, len(frames) - 2, min(_PLACES, len(frames) - 1)).astype(int))
    speeds = [_speed(frames[i : i + 2], mask[i : i + 2]) for i in firsts]
    known = [speed for speed in speeds if speed is not None]
    return float(np.median(known)) if known else None


def _speed(pair: NDArray[np.uint8], mask: NDArray[np.uint8]) -> float | None:
    height, width = pair.shape[1:3]
    scale = min(1.0, _LONGER_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    before, after = (
        cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY) for frame in pair
    )
    covered = cv2.resize(mask.max(axis=0), size, interpolation=cv2.INTER_NEAREST)
    # Away from the mask too: the window of a corner reaches this far.
    free = 1 - cv2.dilate(covered, np.ones((9, 9), np.uint8))
    shifts = []
    for rows in np.array_split(np.arange(size[1]), _CELLS):
        for columns in np.array_split(np.arange(size[0]), _CELLS):
            cell = np.zeros_like(free)
            cell[np.ix_(rows, columns)] = free[np.ix_(rows, columns)]
            corners = cv2.goodFeaturesToTrack(before, 20, 0.05, 3, mask=cell)
            if corners is None or len(corners) < _MIN_CORNERS:
                continue
            followed, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, None, winSize=(15, 15))
            moved = (followed - corners)[found[:, 0] > 0, 0]
            if len(moved) >= _MIN_CORNERS:
                shifts.append(float(np.median(np.hypot(*moved.T))))
    return float(np.median(shifts)) / size[0] if len(shifts) >= _MIN_CELLS else None
