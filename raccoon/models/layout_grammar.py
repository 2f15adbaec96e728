"""The layouts a describer may write, as an automaton over bytes; see `raccoon.models.grammars`.

Every number is spelled as `Layout.format` spells it and lies where the box stays a box, so what comes out is canonical.
"""

from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from raccoon.models.grammars import Fillers, Loop, State, checked_name
from raccoon_datamodules.layout import STEPS


class LayoutGrammar:
    """The canonical form of a `Layout`: one box for each frame, x1 < x2 and y1 < y2, at least one frame with a box.

    States: ("lit", frame, slot, place, boxes so far); ("num", frame, slot, digits, ...). Slots 0-3 are the coordinates
    of a frame, 4 what follows its box.

    Args:
        name: the object's name.
        num_frames: how many boxes, >= 1.
        style: "unit" (the paper's form, thousandths as decimals) or "thousand" (the released model's).
        allow_absent: whether a frame may say that the object is not to be seen.

    Raises:
        ValueError: if the name is empty, num_frames is not positive or the style unknown.
    """

    def __init__(
        self,
        name: str,
        num_frames: int,
        *,
        style: Literal["unit", "thousand"] = "unit",
        allow_absent: bool = True,
    ) -> None:
        if num_frames < 1:
            raise ValueError(f"num_frames must be at least 1, got {num_frames}")
        if style not in ("unit", "thousand"):
            raise ValueError(f"style must be 'unit' or 'thousand', got {style!r}")
        self.name = checked_name(name)
        self.num_frames = num_frames
        self.style = style
        self.allow_absent = allow_absent
        self.num_names = 0
        self._rests: list[bytes] = [b""]
        self._numbers = _Numbers.of(style)
        self.start: State = ("lit", 0, 0, 0, (), False)

    def step(self, state: State, byte: int, /) -> State | None:
        """See `Grammar.step`."""
        kind, frame, slot, place, box, seen = state
        if kind == "end":
            return None
        if kind == "num":
            digits = place + bytes([byte])
            low, high, zero = self._range(frame, slot, box, seen)
            if self._numbers.can_begin(digits, low, high, zero=zero):
                return ("num", frame, slot, digits, box, seen)
            value = self._numbers.value(place, low, high, zero=zero)
            if value is None:
                return None
            box = (*box, value)
            return self.step(("lit", frame, slot + 1, 0, box if slot < 3 else (), seen or any(box)), byte)
        literal = self._literal(frame, slot)
        if place >= len(literal) or byte != literal[place]:
            return None
        if place + 1 < len(literal):
            return ("lit", frame, slot, place + 1, box, seen)
        if slot < 4:
            return ("num", frame, slot, b"", box, seen)
        return ("lit", frame + 1, 0, 0, (), seen) if frame + 1 < self.num_frames else ("end", 0, 0, 0, (), seen)

    def is_end(self, state: State, /) -> bool:
        """See `Grammar.is_end`."""
        return bool(state[0] == "end")

    def loop(self, state: State, /) -> Loop | None:
        """Never."""
        return None

    def plain(self, state: State, ends_with_space: bool, /) -> State:
        """Never asked for."""
        return state

    def needs_visible(self, state: State, /) -> bool:
        """Never asked for."""
        return False

    def closing(self, state: State, text: bytes, fillers: Fillers, /) -> bytes:
        """See `Grammar.closing`."""
        if state[0] == "end":
            return b""
        kind, frame, slot, place, box, seen = state
        pieces = []
        if kind == "lit":
            pieces.append(self._literal(frame, slot)[place:])
        if slot < 4:
            box = list(box)
            for coordinate in range(slot, 4):
                digits = place if kind == "num" and coordinate == slot else b""
                low, high, zero = self._range(frame, coordinate, tuple(box), seen)
                spelling = self._numbers.shortest(digits, low, high, zero=zero)
                box.append(self._numbers.value(spelling, low, high, zero=zero))
                pieces += [spelling[len(digits) :], self._literal(frame, coordinate + 1)]
        return b"".join(pieces) + self._rest(frame + 1)

    def _rest(self, frame: int) -> bytes:
        """The shortest frames from ``frame`` on; boxes that are there, so that it does not matter what came before."""
        while len(self._rests) <= self.num_frames - frame:
            last = self.num_frames - len(self._rests)
            self._rests.append(self.closing(("lit", last, 0, 0, (), True), b"", Fillers(b"", ())))
        return self._rests[self.num_frames - frame]

    def bound(self, state: State, fillers: Fillers, /) -> tuple[bytes, ...]:
        """See `Grammar.bound`."""
        return (self.closing(state, b"", fillers),) if state[0] != "end" else ()

    def is_guarded(self, state: State, byte: int, /) -> bool:
        """Never."""
        return False

    def is_allowed(self, text: bytes, /) -> bool:
        """Always."""
        return True

    def _literal(self, frame: int, slot: int) -> bytes:
        """What stands before a slot of a frame (counted from 0); slot 4 is what follows the box."""
        if 0 < slot < 4:
            return b", "
        last = frame + 1 == self.num_frames
        if self.style == "unit":
            head = f"Layouts of {self.name} to be added: {{" if frame == 0 else ""
            words = f"{head}Frame {frame + 1}: [" if slot == 0 else "]}" if last else "], "
        else:
            words = f"Frame {frame + 1}: {{'{self.name}': [" if slot == 0 else "]}" if last else "]}\n"
        return words.encode()

    def _range(self, frame: int, slot: int, box: tuple[int, ...], seen: bool) -> tuple[int, int, bool]:
        """Lowest and highest thousandth of a slot, and whether 0 may stand there as part of an absent frame."""
        if slot < 2:
            return 0, STEPS - 1, False
        may_be_absent = self.allow_absent and (seen or frame + 1 < self.num_frames) and box[:2] == (0, 0)
        if slot == 2:
            return box[0] + 1, STEPS, may_be_absent
        if box[2] == 0:
            return 0, 0, True
        return box[1] + 1, STEPS, False


class _Numbers:
    """The canonical spellings of 0 to `STEPS` thousandths, by prefix."""

    def __init__(self, spellings: Sequence[str]) -> None:
        self._values = {spelling.encode(): value for value, spelling in enumerate(spellings)}
        self._by_prefix: dict[bytes, list[int]] = {}
        for spelling, value in self._values.items():
            for length in range(len(spelling) + 1):
                self._by_prefix.setdefault(spelling[:length], []).append(value)
        self._spelling = [spelling.encode() for spelling in spellings]
        self._by_length = {
            prefix: sorted(values, key=lambda value: (len(spellings[value]), value))
            for prefix, values in self._by_prefix.items()
        }

    @staticmethod
    @lru_cache(maxsize=2)
    def of(style: str) -> "_Numbers":
        """The spellings of a style."""
        if style == "thousand":
            return _Numbers([str(value) for value in range(STEPS + 1)])
        decimals = [f"{value / STEPS:.3f}".rstrip("0") for value in range(STEPS + 1)]
        return _Numbers([text + "0" if text.endswith(".") else text for text in decimals])

    def can_begin(self, digits: bytes, low: int, high: int, *, zero: bool) -> bool:
        """Whether a number in [low, high] (or 0, where that is allowed) begins with these digits."""
        values = self._by_prefix.get(digits)
        if values is None:
            return False
        at = bisect_left(values, low)
        return (at < len(values) and values[at] <= high) or (zero and values[0] == 0)

    def value(self, digits: bytes, low: int, high: int, *, zero: bool) -> int | None:
        """The number these digits are, or None."""
        value = self._values.get(digits)
        return value if value is not None and (low <= value <= high or (zero and value == 0)) else None

    def shortest(self, digits: bytes, low: int, high: int, *, zero: bool) -> bytes:
        """The shortest number in [low, high] that begins with these digits; 0 where that is allowed and none does."""
        found = next((value for value in self._by_length[digits] if low <= value <= high), 0)
        return self._spelling[found]
