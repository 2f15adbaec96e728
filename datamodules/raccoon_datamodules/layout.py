"""The layout: where an object is to be, one box per frame, as text and as numbers.

Two written forms. The paper's (section 3.2; coordinates in [0, 1], at most three decimals)::

    Layouts of Raccoon to be added: {Frame 1: [0.2, 0.0, 0.5, 0.7], Frame 2: [0.2, 0.1, 0.4, 0.65]}

and that of the released model (integers, thousandths of the frame)::

    Frame 1: {'Raccoon': [200, 0, 500, 700]}
    Frame 2: {'Raccoon': [200, 100, 400, 650]}

``0, 0, 0, 0`` is an absent object. Boxes are rounded to thousandths when a layout is made, so both forms read back as
exactly the layout that wrote them. Reading of anything else: `raccoon_datamodules.layout_reader`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raccoon_datamodules.layout_reader import read_layout
from raccoon_datamodules.wording import clean_name, name_key

STEPS = 1000  # a coordinate is a whole number of thousandths of the frame
_UNIT_FRAME = re.compile(r"Frame [0-9]{1,9}: \[" + ", ".join([r"([01]\.[0-9]{1,3})"] * 4) + r"\]")
_THOUSAND_FRAME = re.compile(r"Frame [0-9]{1,9}: \{'(.*)': \[" + ", ".join([r"([0-9]{1,4})"] * 4) + r"\]\}")


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """One box per frame for one object.

    ``name`` is cleaned like an object's name in a paragraph. ``boxes`` float32 [F, 4], xyxy in [0, 1], origin top left,
    x1 < x2 and y1 < y2; a row of NaN = the object is absent in that frame. Construction takes anything array-like and
    rounds to thousandths (a box thinner than a thousandth becomes one thousandth wide). The array is read-only. Two
    layouts are equal when names and boxes are, NaN equal to NaN.

    Raises:
        ValueError: if the name is empty or holds ``": "``, boxes is not [F, 4] with F >= 1, a row is partly NaN, a
            value lies outside [0, 1], or a box has no area; frames are counted from 1 in the message.
    """

    name: str
    boxes: NDArray[np.float32]

    def __post_init__(self) -> None:
        name = clean_name(self.name)
        if not name_key(name) or ": " in name:
            raise ValueError(f"a layout's name must not be empty nor hold ': ', got {self.name!r}")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "boxes", _checked_boxes(name, self.boxes))

    @property
    def num_frames(self) -> int:
        """The number of frames F."""
        return len(self.boxes)

    @property
    def present(self) -> NDArray[np.bool_]:
        """Whether the object is there, bool [F]."""
        present: NDArray[np.bool_] = ~np.isnan(self.boxes[:, 0])
        return present

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Layout):
            return NotImplemented
        return self.name == other.name and np.array_equal(self.boxes, other.boxes, equal_nan=True)

    def __hash__(self) -> int:
        return hash((self.name, self.boxes.shape, np.nan_to_num(self.boxes, nan=-1.0).tobytes()))

    def __str__(self) -> str:
        return self.format()

    def format(self, style: Literal["unit", "thousand"] = "unit") -> str:
        """Write the layout: ``"unit"`` as the paper does, ``"thousand"`` as the released model does.

        Raises:
            ValueError: if style is neither.
        """
        rows = np.rint(np.nan_to_num(self.boxes.astype(np.float64), nan=0.0) * STEPS).astype(int).tolist()
        if style == "unit":
            frames = ", ".join(f"Frame {i}: [{', '.join(map(_decimal, row))}]" for i, row in enumerate(rows, 1))
            return f"Layouts of {self.name} to be added: {{{frames}}}"
        if style == "thousand":
            return "\n".join(f"Frame {i}: {{'{self.name}': {row}}}" for i, row in enumerate(rows, 1))
        raise ValueError(f"style must be 'unit' or 'thousand', got {style!r}")

    @classmethod
    def parse(cls, text: str, *, num_frames: int | None = None, name: str | None = None) -> tuple["Layout", list[str]]:
        """Read a layout in either form, or nearly so; the unit is inferred.

        ``num_frames`` is the number of frames to return (default: the highest frame number in the text); a frame the
        text does not give is absent. ``name`` is used where the text names no object. Returns the layout and notes:
        plain sentences about every guess and everything that was left out or repaired. Canonical text gives no notes.

        Raises:
            TypeError: if text is not a str.
            ValueError: if no frame can be read, or num_frames is not positive.
        """
        if not isinstance(text, str):
            raise TypeError(f"a layout is read from a str, got {type(text).__name__}")
        if num_frames is not None and num_frames < 1:
            raise ValueError(f"num_frames must be at least 1, got {num_frames}")
        layout = _parse_canonical(text)
        if layout is not None and num_frames in (None, layout.num_frames):
            return layout, []
        found_name, boxes, notes = read_layout(text, num_frames=num_frames, name=name)
        return cls(found_name if layout is None else layout.name, boxes.astype(np.float32)), notes

    def resample(self, num_frames: int) -> "Layout":
        """Return the layout for ``num_frames`` frames of the same stretch of time, linear between its boxes.

        Frame j of the result lies at frame ``j * F / num_frames`` of this layout (counting from 0), as clips are
        sampled for the describer (frame ``int(i * n / F)`` of n); past the last box it holds. Between a box and an
        absent frame the nearer one counts, so that an object never fades in from nowhere.

        Raises:
            ValueError: if num_frames is not positive.
        """
        if num_frames < 1:
            raise ValueError(f"num_frames must be at least 1, got {num_frames}")
        if num_frames == self.num_frames:
            return self
        boxes = self.boxes.astype(np.float64)
        last = self.num_frames - 1
        at = np.minimum(np.arange(num_frames) * (self.num_frames / num_frames), last)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, last)
        share = (at - low)[:, None]
        between = boxes[low] * (1 - share) + boxes[high] * share
        nearest = boxes[np.where(share[:, 0] < 0.5, low, high)]
        return Layout(self.name, np.where(np.isnan(between), nearest, between).astype(np.float32))

    def to_json(self) -> dict[str, Any]:
        """Return the layout as plain JSON: ``{"name", "boxes": [[x1, y1, x2, y2] | null, ...]}``."""
        rows = self.boxes.astype(np.float64).round(3).tolist()
        return {
            "name": self.name,
            "boxes": [row if there else None for row, there in zip(rows, self.present, strict=True)],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Layout":
        """Read what `to_json` wrote.

        Raises:
            ValueError: if a key is missing or a value is not what a layout holds.
        """
        try:
            name, rows = data["name"], [[np.nan] * 4 if row is None else row for row in data["boxes"]]
        except (KeyError, TypeError) as err:
            raise ValueError(
                f"a layout's JSON must be {{'name': str, 'boxes': [[x1, y1, x2, y2] or null]}}, got {data!r:.200}"
            ) from err
        return cls(name, np.array(rows, dtype=np.float32))


def _checked_boxes(name: str, given: ArrayLike) -> NDArray[np.float32]:
    """Check boxes and round them to thousandths; float32 [F, 4], read-only."""
    boxes = np.asarray(given, dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) < 1:
        raise ValueError(f"the layout of {name!r} must be boxes [F, 4] with F >= 1, got {list(boxes.shape)}")
    holes = np.count_nonzero(np.isnan(boxes), axis=1)
    absent = holes == 4
    filled = np.where(absent[:, None], (0.0, 0.0, 1.0, 1.0), boxes)
    faults: dict[str, Any] = {
        "must be all numbers or all NaN (absent)": (holes > 0) & (holes < 4),
        # Float32 arithmetic may leave a coordinate a hair outside; that is not the caller's mistake.
        "must lie in [0, 1]": ((filled < -1e-6) | (filled > 1 + 1e-6)).any(axis=1),
        "must have x1 < x2 and y1 < y2 (absent is a row of NaN)": ~(filled[:, :2] < filled[:, 2:]).all(axis=1),
    }
    for fault, rows in faults.items():
        if rows.any():
            frames = np.flatnonzero(rows)
            listed = ", ".join(f"{i + 1}: {boxes[i].tolist()}" for i in frames[:5])
            more = f" and {len(frames) - 5} more" if len(frames) > 5 else ""
            raise ValueError(f"a box of the layout of {name!r} {fault}, got frame {listed}{more}")
    steps = np.clip(np.rint(filled * STEPS), 0, STEPS)
    flat = steps[:, :2] == steps[:, 2:]
    steps[:, :2] -= flat & (steps[:, :2] == STEPS)
    steps[:, 2:] += flat & (steps[:, 2:] < STEPS)
    rounded = np.where(absent[:, None], np.nan, steps / STEPS).astype(np.float32)
    rounded.flags.writeable = False
    return rounded


def _decimal(steps: int) -> str:
    """Write thousandths with as few decimals as say it exactly, at least one: 0.2, 0.65, 1.0."""
    whole, rest = divmod(steps, STEPS)
    return f"{whole}.{f'{rest:03d}'.rstrip('0') or '0'}"


def _parse_canonical(text: str) -> Layout | None:
    """Read exactly what `Layout.format` writes, else None."""
    text = text.strip()
    if text.startswith("Layouts of ") and text.endswith("}"):
        name, _, body = text.removeprefix("Layouts of ").partition(" to be added: {")
        matches = [_UNIT_FRAME.fullmatch(part + "]") for part in body[:-1].removesuffix("]").split("], ")]
        rows = [[float(value) for value in match.groups()] for match in matches if match]
        style: Literal["unit", "thousand"] = "unit"
    else:
        matches = [_THOUSAND_FRAME.fullmatch(line) for line in text.splitlines()]
        name = matches[0][1] if matches and matches[0] else ""
        rows = [[int(value) / STEPS for value in match.groups()[1:]] for match in matches if match]
        style = "thousand"
    if not name or len(rows) != len(matches):
        return None
    try:
        layout = Layout(name, np.array([row if any(row) else [np.nan] * 4 for row in rows], dtype=np.float32))
    except ValueError:
        return None
    return layout if layout.format(style) == text else None
