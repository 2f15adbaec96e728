"""Frames of a clip as one picture with their numbers drawn on them: how an image model is shown a video.

Source: RACCooN, section 3.3 and A.1 (a "superimage" of uniformly sampled frames with drawn frame ids, figure 6 shows
six); the arrangement, the sizes and the look of the numbers are ours.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

_GAP = 6
# A number is hard to read in a smaller frame; smaller clips are enlarged.
_MIN_SIDE = 192
_OUTLINE = (255, 0, 255)


def uniform_indices(num_frames: int, count: int) -> list[int]:
    """``count`` frame numbers at equal distances, the first and the last frame among them; fewer if there are fewer.

    Raises:
        ValueError: if num_frames or count is not positive.
    """
    if num_frames < 1 or count < 1:
        raise ValueError(f"num_frames and count must be at least 1, got {num_frames} and {count}")
    if count == 1:
        return [num_frames // 2]
    return sorted({int(n) for n in np.linspace(0, num_frames - 1, min(count, num_frames)).round()})


def frame_grid(
    frames: NDArray[np.uint8], *, max_side: int = 1536, outlined: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Arrange frames from the top left to the bottom right, numbered from 1; returns uint8 [H', W', 3].

    ``frames`` uint8 [n, H, W, 3] RGB; ``max_side`` the longest side of the picture in pixels; ``outlined`` uint8
    {0, 1} [n, H, W] a mask whose outline is drawn in magenta. The number of columns is the one whose picture is
    nearest to 4:3.

    Raises:
        ValueError: if there are no frames, max_side is below 64, or the mask does not fit the frames.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        raise ValueError(f"a grid needs frames [n, H, W, 3] with n of at least 1, got {list(frames.shape)}")
    if max_side < 64:
        raise ValueError(f"max_side must be at least 64 pixels, got {max_side}")
    if outlined is not None and outlined.shape != frames.shape[:3]:
        raise ValueError(f"the outlined mask must be {list(frames.shape[:3])} like the frames, got {outlined.shape}")
    width = frames.shape[2]
    columns, size = _arrange(len(frames), frames.shape[1], width, max_side)
    cell_width, cell_height = size
    grid = np.full((*_total(len(frames), columns, size), 3), 255, dtype=np.uint8)
    for number, frame in enumerate(frames):
        shrinks = cell_width < width
        cell = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        if outlined is not None:
            _draw_outline(cell, cv2.resize(outlined[number], size, interpolation=cv2.INTER_NEAREST))
        _draw_number(cell, number + 1)
        top, left = (number // columns) * (cell_height + _GAP), (number % columns) * (cell_width + _GAP)
        grid[top : top + cell_height, left : left + cell_width] = cell
    return grid


def outlined_frame(frame: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame uint8 [H, W, 3] with the outline of a mask uint8 {0, 1} [H, W] drawn as `frame_grid` draws it."""
    drawn = frame.copy()
    _draw_outline(drawn, mask)
    return drawn


def grid_size(count: int, height: int, width: int, *, max_side: int = 1536) -> tuple[int, int]:
    """(height, width) of the picture that `frame_grid` makes of ``count`` frames of this size."""
    return _total(count, *_arrange(count, height, width, max_side))


def _arrange(count: int, height: int, width: int, max_side: int) -> tuple[int, tuple[int, int]]:
    """The number of columns, and (width, height) of a frame in the picture."""
    columns = _columns(count, height, width)
    rows = -(-count // columns)
    scale = max(1.0, _MIN_SIDE / min(height, width))
    room = min((max_side - (columns - 1) * _GAP) / (columns * width), (max_side - (rows - 1) * _GAP) / (rows * height))
    scale = min(scale, room)
    return columns, (max(1, int(width * scale)), max(1, int(height * scale)))


def _total(count: int, columns: int, size: tuple[int, int]) -> tuple[int, int]:
    rows = -(-count // columns)
    return rows * (size[1] + _GAP) - _GAP, columns * (size[0] + _GAP) - _GAP


def _columns(count: int, height: int, width: int) -> int:
    def off(columns: int) -> tuple[float, int]:
        rows = -(-count // columns)
        empty = rows * columns - count
        return abs(np.log((columns * width) / (rows * height) / (4 / 3))) + 0.5 * empty, -columns

    options: Sequence[int] = range(1, count + 1)
    return min(options, key=off)


def _draw_outline(cell: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    found, _ = cv2.findContours(np.ascontiguousarray(mask), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(cell, found, -1, _OUTLINE, max(2, min(cell.shape[:2]) // 120))


def _draw_number(cell: NDArray[np.uint8], number: int) -> None:
    """Draw a white number on a black plate into the top left corner, an eighth of the frame's height."""
    height = max(14, min(cell.shape[:2]) // 8)
    font, thickness = cv2.FONT_HERSHEY_SIMPLEX, max(1, height // 12)
    scale = cv2.getFontScaleFromHeight(font, max(6, int(height * 0.6)), thickness)
    (width, tall), _ = cv2.getTextSize(str(number), font, scale, thickness)
    margin = max(2, (height - tall) // 2)
    cv2.rectangle(cell, (0, 0), (width + 2 * margin, tall + 2 * margin), (0, 0, 0), -1)
    cv2.putText(cell, str(number), (margin, tall + margin), font, scale, (255, 255, 255), thickness, cv2.LINE_AA)
