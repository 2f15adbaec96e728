# ruff: noqa: RUF001 -- full-width punctuation is read on purpose
"""Reading a layout as language models write it: guess the unit, keep what can be kept, say what could not.

A layout is found by its frame marks ("Frame 3"); the first four numbers after a mark, in brackets where there are any,
are its box. Each character is looked at a bounded number of times.
"""

import re

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.wording import clean_name, name_key, one_line

MAX_FRAMES = 10_000
# A mark inside quotes belongs to a name: {'Frame 3': [...]}.
_MARK = re.compile(r"(?<![\w'\"])frames?[ \t_#]{0,3}([0-9]{1,6})(?![0-9])[ \t]?[:：=.)-]?", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,12}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})")
_TITLE = re.compile(r"layouts? (?:of|for) (.{1,300}?)(?: to be added)?\s?[:：]", re.IGNORECASE)
_QUOTED = re.compile(r"\{?\s?(?:'([^'\"\n]{1,300})'|\"([^'\"\n]{1,300})\")\s?:")


def read_layout(
    text: str, *, num_frames: int | None = None, name: str | None = None
) -> tuple[str, NDArray[np.float64], list[str]]:
    """Return the object's name, its boxes [F, 4] xyxy in [0, 1] with NaN rows for absent, and the notes.

    Raises:
        ValueError: if the text holds no frame with four numbers.
    """
    notes: list[str] = []
    marks = list(_MARK.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)] * bool(marks)
    found: dict[int, list[str]] = {}
    order = []
    for mark, end in zip(marks, ends, strict=True):
        index = int(mark[1])
        numbers = _numbers(text[mark.end() : end])
        if len(numbers) != 4:
            notes.append(f"frame {index} needs four numbers and has {len(numbers)}; it was read as absent")
        elif index in found:
            notes.append(f"frame {index} comes twice; the first one was kept")
        else:
            found[index] = numbers
            order.append(index)
    if not found:
        raise ValueError(
            f"no frame could be read from the layout {one_line(text)[:80]!r}; write 'Frame 1: [0.2, 0.0, 0.5, 0.7]' "
            "with left, top, right, bottom from 0 to 1, one for each frame"
        )
    if order != sorted(order):
        notes.append("the frames are not in order; each was put where its number says")
    last = max(int(mark[1]) for mark in marks)
    if min(found) == 0:
        notes.append("the frames are counted from 0; they were read as counted from 1")
        found = {index + 1: numbers for index, numbers in found.items()}
        last += 1
    count = num_frames if num_frames is not None else min(last, MAX_FRAMES)
    beyond = sorted(index for index in found if index > count)
    if beyond:
        notes.append(f"{_frames(beyond)} beyond the last frame, {count}; left out")
    missing = [index for index in range(1, count + 1) if index not in found]
    if missing:
        notes.append(f"{_frames(missing)} not in the text, or not readable; read as absent")
    scale = _scale(found, named=_QUOTED.search(text) is not None, notes=notes)
    boxes = np.full((count, 4), np.nan)
    for index in sorted(found):
        if index <= count:
            box = _box(index, [float(number) / scale for number in found[index]], notes)
            if box is not None:
                boxes[index - 1] = box
    return _name(text, marks[0].start(), name, notes), boxes, notes


def _numbers(segment: str) -> list[str]:
    """The numbers of one frame: those in its first brackets, or all of its line where it has none."""
    opened = segment.find("[") if "[" in segment else segment.find("(")
    if opened >= 0:
        closed = min(
            (at for at in (segment.find("]", opened), segment.find(")", opened)) if at >= 0), default=len(segment)
        )
        segment = segment[opened + 1 : closed]
    else:
        segment = segment.split("\n", 1)[0]
    return _NUMBER.findall(segment[:400])


def _scale(found: dict[int, list[str]], *, named: bool, notes: list[str]) -> float:
    """What to divide the coordinates by: 1 or 1000."""
    numbers = [number for box in found.values() for number in box]
    largest = max(float(number) for number in numbers)
    if any("." in number for number in numbers):
        if largest <= 2:
            return 1.0
        notes.append(f"the coordinates reach {largest:g}; they were taken for thousandths of the frame")
        return 1000.0
    if largest > 1:
        if largest <= 100:
            notes.append(f"the coordinates only reach {largest:g}; they were taken for thousandths of the frame")
        return 1000.0
    if largest == 1 and not named:
        notes.append("the coordinates are only 0 and 1; they were taken for fractions of the frame")
        return 1.0
    return 1000.0


def _box(index: int, box: list[float], notes: list[str]) -> list[float] | None:
    """Check one box in [0, 1]: swap, cut or give up, and say so. None = absent."""
    if not any(box):
        return None
    for low, high, side in ((0, 2, "left and right"), (1, 3, "top and bottom")):
        if box[low] > box[high]:
            notes.append(f"frame {index} has {side} the wrong way round; they were swapped")
            box[low], box[high] = box[high], box[low]
    # Further out than a tenth is another unit (pixels, say), not a slip of the model.
    if min(box) < -0.1 or max(box) > 1.1:
        notes.append(f"frame {index} reaches outside the frame, {_short(box)}; it was read as absent")
        return None
    if min(box) < 0 or max(box) > 1:
        notes.append(f"frame {index} reaches outside the frame, {_short(box)}; it was cut at the border")
        box = [min(max(value, 0.0), 1.0) for value in box]
    if box[0] >= box[2] or box[1] >= box[3]:
        notes.append(f"frame {index} has a box without area, {_short(box)}; it was read as absent")
        return None
    return box


def _name(text: str, first_mark: int, given: str | None, notes: list[str]) -> str:
    """The object's name: from the title, the quotes, the caller, or the "Name: description" line before the frames."""
    candidates = []
    head = text[:first_mark]
    title = _TITLE.search(head[-700:])
    quoted = _QUOTED.search(text, first_mark)
    candidates += [title[1]] if title else []
    candidates += [quoted[1] or quoted[2]] if quoted else []
    candidates += [given] if given is not None else []
    first_line = next((line for line in head.splitlines() if line.strip()), "")
    candidates += [first_line.split(":")[0]] if ":" in first_line else []
    for candidate in candidates:
        name = clean_name(candidate).replace(": ", " ").strip("<> ")
        if name_key(name):
            return name
    notes.append("the text does not name the object; it was called 'Object'")
    return "Object"


def _frames(indices: list[int]) -> str:
    """Name a few frames: "frame 3 is", "frames 3, 4, 7 and 12 more are"."""
    if len(indices) == 1:
        return f"frame {indices[0]} is"
    more = f" and {len(indices) - 6} more" if len(indices) > 6 else ""
    return f"frames {', '.join(map(str, indices[:6]))}{more} are"


def _short(box: list[float]) -> str:
    return f"[{', '.join(f'{value:.3g}' for value in box)}]"
