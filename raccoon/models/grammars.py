"""The texts a describer may write, as automata over bytes: a paragraph, an object's line; `layout_grammar` has layouts.

An automaton reads one byte at a time and knows from each state the shortest way to a complete text. Every complete text
is canonical: `Paragraph.parse`, `ObjectDescription.parse` and `Layout.parse` read it without a note. It is over bytes
because a token may be any of them: a word, a digit, two thirds of a Chinese character. `raccoon.models.decoding` turns
an automaton and a tokenizer into masks over the vocabulary.

States are small tuples; equal states have equal futures, except that a paragraph's names must differ, which depends on
the whole text: such steps are *guarded*, and `is_allowed` looks at the text.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from raccoon_datamodules.paragraph import OBJECT_HEADING, VIDEO_HEADING
from raccoon_datamodules.prompts import MAX_OBJECTS
from raccoon_datamodules.wording import clean_name, name_key

State = tuple[Any, ...]
Loop = Literal["text", "name"]

# What a name cannot hold: the colon ends it, the others are Markdown that reading would take off.
NAME_EXCLUDED = b":*_`"
_NAME_FIRST = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
# Which bytes may follow a prefix of a character: well-formed UTF-8 without what reading drops or takes for white space
# (controls, no-break space, U+1680, U+2000-200F, U+2028-202F, U+205F-206F, U+3000, the byte order mark).
_RANGES: dict[bytes, tuple[tuple[int, int], ...]] = {
    b"\xc2": ((0xA1, 0xBF),),
    b"\xe0": ((0xA0, 0xBF),),
    b"\xed": ((0x80, 0x9F),),
    b"\xf0": ((0x90, 0xBF),),
    b"\xf4": ((0x80, 0x8F),),
    b"\xe1\x9a": ((0x81, 0xBF),),
    b"\xe2\x80": ((0x90, 0xA7), (0xB0, 0xBF)),
    b"\xe2\x81": ((0x80, 0x9E), (0xB0, 0xBF)),
    b"\xe3\x80": ((0x81, 0xBF),),
    b"\xef\xbb": ((0x80, 0xBE),),
}
_ANY = ((0x80, 0xBF),)


@dataclass(frozen=True, slots=True)
class Fillers:
    """The shortest pieces a tokenizer can write where anything may stand: one for text, several for names.

    The names differ from each other regardless of case; the last one takes the most tokens.
    """

    text: bytes
    names: tuple[bytes, ...]


class Grammar(Protocol):
    """An automaton over bytes. ``num_names``: how many different names a text may have to end with."""

    start: State
    num_names: int

    def step(self, state: State, byte: int, /) -> State | None:
        """The state after one more byte, or None where no text goes on so."""
        ...

    def is_end(self, state: State, /) -> bool:
        """Whether the text may end here."""
        ...

    def loop(self, state: State, /) -> Loop | None:
        """Whether the state reads plain words: then bytes 0x20-0x7e lead to ``plain`` of it, see there."""
        ...

    def plain(self, state: State, ends_with_space: bool, /) -> State:
        """The state of a loop after plain words, by whether they end with a space."""
        ...

    def needs_visible(self, state: State, /) -> bool:
        """Whether the next byte of a loop cannot be a space."""
        ...

    def closing(self, state: State, text: bytes, fillers: Fillers, /) -> bytes:
        """The shortest continuation of ``text`` that ends it; what follows its first bytes closes what they lead to."""
        ...

    def bound(self, state: State, fillers: Fillers, /) -> tuple[bytes, ...]:
        """Pieces that together are at least as long as ``closing``, whatever the text was."""
        ...

    def is_guarded(self, state: State, byte: int, /) -> bool:
        """Whether this step must be checked against the whole text."""
        ...

    def is_allowed(self, text: bytes, /) -> bool:
        """Whether a text that took a guarded step can still be completed."""
        ...


def _step_text(inner: bytes, byte: int) -> bytes | None:
    """One byte of free text on one line; None where it cannot stand.

    ``inner`` is b" " where something visible must follow, the bytes of a character that is not complete, or b"".
    """
    if inner in (b"", b" "):
        if byte == 0x20:
            return b" " if inner == b"" else None
        if 0x21 <= byte <= 0x7E:
            return b""
        return bytes([byte]) if 0xC2 <= byte <= 0xF4 else None
    if not any(low <= byte <= high for low, high in _RANGES.get(inner, _ANY)):
        return None
    length = 2 if inner[0] < 0xE0 else 3 if inner[0] < 0xF0 else 4
    return b"" if len(inner) + 1 == length else inner + bytes([byte])


def _close_text(inner: bytes, filler: bytes) -> bytes:
    """The shortest bytes after which a line of free text may end."""
    if inner == b"":
        return b""
    if inner == b" ":
        return filler
    rest = b""
    while (after := inner + rest) and len(after) < (2 if inner[0] < 0xE0 else 3 if inner[0] < 0xF0 else 4):
        rest += bytes([_RANGES.get(after, _ANY)[0][0]])
    return rest


class ParagraphGrammar:
    """The canonical form of a `Paragraph` with different names.

    States: ("lit", literal, place, next state); ("text", n, inner) inside the description of the clip (n = 0) or of
    object n; ("name", n, inner), inner "first" before its first byte.

    Args:
        max_objects: the most objects that are listed.
        min_objects: the fewest.

    Raises:
        ValueError: unless 0 <= min_objects <= max_objects.
    """

    def __init__(self, max_objects: int = MAX_OBJECTS, min_objects: int = 0) -> None:
        if not 0 <= min_objects <= max_objects:
            raise ValueError(f"0 <= min_objects <= max_objects must hold, got {min_objects} and {max_objects}")
        self.max_objects = max_objects
        self.min_objects = min_objects
        self.num_names = max_objects
        self.start: State = ("lit", f"{VIDEO_HEADING} ".encode(), 0, ("text", 0, b" "))

    def step(self, state: State, byte: int, /) -> State | None:
        """See `Grammar.step`."""
        if state[0] == "lit":
            _, literal, place, after = state
            if byte != literal[place]:
                return None
            return ("lit", literal, place + 1, after) if place + 1 < len(literal) else after
        kind, number, inner = state
        if kind == "heading":
            return self.step(self._item(1), byte) if self.max_objects else None
        if kind == "name":
            if inner == b"first":
                return ("name", number, b"") if byte in _NAME_FIRST else None
            if byte == 0x3A:
                return ("lit", b" ", 0, ("text", number, b" ")) if inner == b"" else None
            if byte in NAME_EXCLUDED:
                return None
        elif byte == 0x0A:
            if inner != b"":
                return None
            if number == 0:
                return ("lit", f"\n{OBJECT_HEADING}".encode(), 0, ("heading", 0, b""))
            return self.step(self._item(number + 1), byte) if number < self.max_objects else None
        after_text = _step_text(inner, byte)
        return None if after_text is None else (kind, number, after_text)

    def is_end(self, state: State, /) -> bool:
        """See `Grammar.is_end`."""
        if state[0] == "heading":
            return self.min_objects == 0
        return state[0] == "text" and state[1] >= max(1, self.min_objects) and state[2] == b""

    def loop(self, state: State, /) -> Loop | None:
        """See `Grammar.loop`."""
        return state[0] if state[0] in ("text", "name") and state[2] in (b"", b" ") else None

    def plain(self, state: State, ends_with_space: bool, /) -> State:
        """See `Grammar.plain`."""
        return (state[0], state[1], b" " if ends_with_space else b"")

    def needs_visible(self, state: State, /) -> bool:
        """See `Grammar.needs_visible`."""
        return bool(state[2] == b" ")

    def closing(self, state: State, text: bytes, fillers: Fillers, /) -> bytes:
        """See `Grammar.closing`."""
        if state[0] == "lit":
            _, literal, place, after = state
            rest = literal[place:]
            return rest + self.closing(after, text + rest, fillers)
        kind, number, inner = state
        if kind == "heading":
            return self._missing(0, text, fillers)
        if kind == "text":
            rest = _close_text(inner, fillers.text)
            if number == 0:
                rest += f"\n\n{OBJECT_HEADING}".encode()
            return rest + self._missing(number, text + rest, fillers)
        rest = b"" if inner == b"first" else _close_text(inner, b"")
        names = _names_of(text)
        partial = text.rpartition(b"\n")[2].partition(b". ")[2] + rest
        if inner in (b"first", b" ") or _key(partial) in names:
            rest += next(one for one in fillers.names if _key(partial + one) not in names)
        rest += b": " + fillers.text
        return rest + self._missing(number, text + rest, fillers)

    def bound(self, state: State, fillers: Fillers, /) -> tuple[bytes, ...]:
        """See `Grammar.bound`."""
        if state[0] == "lit":
            return (state[1][state[2] :], *self.bound(state[3], fillers))
        kind, number, inner = state
        done = number if kind != "heading" else 0
        pieces: list[bytes] = []
        if kind == "name":
            if inner not in (b"first", b"", b" "):
                pieces.append(_close_text(inner, b""))
            pieces += [fillers.names[-1], b": ", fillers.text]
        elif kind == "text":
            pieces.append(_close_text(inner, fillers.text))
            if number == 0:
                pieces.append(f"\n\n{OBJECT_HEADING}".encode())
        for missing in range(done + 1, self.min_objects + 1):
            pieces += [f"\n{missing}. ".encode(), fillers.names[-1], b": ", fillers.text]
        return tuple(piece for piece in pieces if piece)

    def is_guarded(self, state: State, byte: int, /) -> bool:
        """A colon ends a name, which must not have come before."""
        return state[0] == "name" and byte == 0x3A

    def is_allowed(self, text: bytes, /) -> bool:
        """Whether all names that are complete differ."""
        names = _names_of(text)
        return len(set(names)) == len(names)

    def _item(self, number: int) -> State:
        return ("lit", f"\n{number}. ".encode(), 0, ("name", number, b"first"))

    def _missing(self, done: int, text: bytes, fillers: Fillers) -> bytes:
        """Items up to ``min_objects``."""
        rest = b""
        for number in range(done + 1, self.min_objects + 1):
            names = _names_of(text + rest)
            name = next(one for one in fillers.names if _key(one) not in names)
            rest += f"\n{number}. ".encode() + name + b": " + fillers.text
        return rest


class LineGrammar:
    """The canonical form of an `ObjectDescription` of a given name: ``Name: description``.

    Raises:
        ValueError: if the name is empty.
    """

    def __init__(self, name: str) -> None:
        self.name = checked_name(name)
        self.num_names = 0
        self.start: State = ("lit", f"{self.name}: ".encode(), 0, ("text", 1, b" "))

    def step(self, state: State, byte: int, /) -> State | None:
        """See `Grammar.step`."""
        if state[0] == "lit":
            _, literal, place, after = state
            if byte != literal[place]:
                return None
            return ("lit", literal, place + 1, after) if place + 1 < len(literal) else after
        after_text = _step_text(state[2], byte)
        return None if after_text is None else ("text", 1, after_text)

    def is_end(self, state: State, /) -> bool:
        """See `Grammar.is_end`."""
        return state[0] == "text" and state[2] == b""

    def loop(self, state: State, /) -> Loop | None:
        """See `Grammar.loop`."""
        return "text" if state[0] == "text" and state[2] in (b"", b" ") else None

    def plain(self, state: State, ends_with_space: bool, /) -> State:
        """See `Grammar.plain`."""
        return ("text", 1, b" " if ends_with_space else b"")

    def needs_visible(self, state: State, /) -> bool:
        """See `Grammar.needs_visible`."""
        return bool(state[2] == b" ")

    def closing(self, state: State, text: bytes, fillers: Fillers, /) -> bytes:
        """See `Grammar.closing`."""
        return b"".join(self.bound(state, fillers))

    def bound(self, state: State, fillers: Fillers, /) -> tuple[bytes, ...]:
        """See `Grammar.bound`."""
        if state[0] == "lit":
            return (state[1][state[2] :] + fillers.text,)
        rest = _close_text(state[2], fillers.text)
        return (rest,) if rest else ()

    def is_guarded(self, state: State, byte: int, /) -> bool:
        """Never."""
        return False

    def is_allowed(self, text: bytes, /) -> bool:
        """Always."""
        return True


def checked_name(name: str) -> str:
    """The cleaned name; ValueError if it is empty or holds what ends a name."""
    cleaned = clean_name(name)
    if not name_key(cleaned) or ": " in cleaned:
        raise ValueError(f"an object's name must not be empty nor hold ': ', got {name!r}")
    return cleaned


def _key(name: bytes) -> str:
    return name_key(name.decode("utf-8", errors="replace"))


def _names_of(text: bytes) -> list[str]:
    """Keys of the names that a paragraph's text has completed."""
    items = [line.partition(b". ")[2].partition(b":") for line in text.split(b"\n")[3:]]
    return [_key(name) for name, colon, _ in items if colon]
