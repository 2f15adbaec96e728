"""The forgiving reader of paragraphs: what language models and people write, to a description and a list of objects.

It reads line by line. A line is a heading, the beginning of an object, or more of what came before; which of them
depends on what was read so far (`_Reader`). What one line says is decided in `raccoon_datamodules.paragraph_lines`.
Nothing is dropped without a note, except what carries nothing: headings, rules, code fences, Markdown emphasis. No
input raises, and the work is linear in the length of the text.
"""

from dataclasses import dataclass, field
from typing import Literal

from raccoon_datamodules.paragraph_lines import (
    COLONS,
    SENTENCE_ENDS,
    Line,
    cut_items,
    first_sentence,
    heading_of,
    is_chatter,
    is_label,
    is_phrase,
    is_plain,
    is_short_name,
    names_in,
    open_up,
    read_line,
    split_lines,
    split_name,
)
from raccoon_datamodules.wording import clean_name, name_key, one_line

# A name in a numbered line may be long; in a line that nothing else marks as an object it must look like a name.
LONGEST_NAME = 12


@dataclass(slots=True)
class _Found:
    """An object being read: where it began, how its line began, its name and the pieces of its description."""

    line: Line
    name: str
    parts: list[str] = field(default_factory=list)


def read_paragraph(text: str) -> tuple[str, list[tuple[str, str]], list[str]]:
    """Return the description, the objects as (name, description), and the notes.

    Names are clean, not empty, free of ``": "`` and unique regardless of case, so that a paragraph can be made of them.
    """
    raws = split_lines(text)
    filled = [number for number, raw in enumerate(raws, 1) if one_line(raw)]
    if not filled:
        return "", [], ["the text is empty"]
    reader = _Reader()
    opened = open_up(one_line(raws[filled[0] - 1])) if len(filled) == 1 else []
    if len(opened) > 1:
        reader.notes.append("the text is on one line; it was cut at its headings and numbers")
        raws, numbers = opened, [filled[0]] * len(opened)
    else:
        numbers = list(range(1, len(raws) + 1))
    next_filled = [*filled[1:], 0]
    places = dict(zip(filled, next_filled, strict=True))
    for number, raw in zip(numbers, raws, strict=True):
        if raw and not reader.read_plain(number, raw):
            after = places.get(number, 0) if not opened else 0
            reader.read(read_line(number, raw), raws[after - 1] if after else "")
        elif not raw:
            reader.after_blank = True
        if reader.is_finished:
            break
    return reader.finish()


class _Reader:
    """The state of one reading: before the description, in it, or in the objects."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.state: Literal["start", "description", "objects"] = "start"
        self.description: list[str] = []
        self.has_video_heading = False
        self.has_object_heading = False
        self.objects: list[_Found] = []
        self.style: Literal["number", "bullet", "plain"] | None = None
        self.after_blank = False
        self.is_finished = False
        self.last_number = 0
        self.num_left_out = 0
        self.has_sub_bullets = False

    def read_plain(self, number: int, raw: str) -> bool:
        """Take a line that can only be more of what came before; False if it may be anything else.

        Most lines of a long text are of this kind, and they need none of the patterns.
        """
        if self.after_blank or self.style == "plain" or not is_plain(raw):
            return False
        if self.state == "objects":
            if not self.objects:
                return False
            self.objects[-1].parts.append(raw)
        elif self.description:
            self.description.append(raw)
        else:
            return False
        self.last_number = number
        return True

    def read(self, line: Line, following: str) -> None:
        """Take one line; ``following`` is the next line that is not empty, as it stands, of which the kind matters."""
        if not line.content:
            self.after_blank = True
            return
        if line.is_rule:
            return
        self.last_number = line.number
        before = self.num_left_out
        if not self._read_heading(line):
            if self.state == "objects":
                self._read_in_objects(line, following)
            else:
                self._read_in_description(line, following)
        # What follows talk is likely to be talk as well.
        self.after_blank = self.num_left_out > before

    def _read_heading(self, line: Line) -> bool:
        """Take a heading line; False if it is none, or none here."""
        heading = heading_of(line)
        if heading is None:
            return False
        kind, is_full, rest = heading
        if self.state == "objects" and (line.number_text or line.bullet):
            return False
        if kind == "video":
            if self.state == "objects" and not is_full:
                return False  # "Description: ..." under an object is the object's
            if self.has_video_heading and self.description:
                if self.state == "objects":
                    self._leave_out(line.number, line.content, why="with all that follows: it is a second description")
                    self.is_finished = True
                    return True
                return False
            if self.description:
                self._leave_out(self.description_line, " ".join(self.description))
                self.description = []
            self.has_video_heading = True
            self.state = "description"
        else:
            if self.has_object_heading and self.objects:
                self.notes.append(f"line {line.number}: a second list of objects; it was added to the first")
            self.has_object_heading = True
            self.state = "objects"
        if rest:
            if kind == "video":
                self._add_description(read_line(line.number, rest))
            elif name_key(rest).strip(" .") not in {"none", "n/a", "no objects"}:
                self._read_beside_heading(line.number, rest)
        return True

    def _read_beside_heading(self, number: int, rest: str) -> None:
        """Take what follows the objects' heading on its own line: items, or nothing but names."""
        items = cut_items(rest)
        names = names_in(rest) if len(items) == 1 and not read_line(number, rest).is_marked else []
        if len(items) > 1:
            self.notes.append(f"line {number}: several objects on one line; it was cut at its numbers")
        for piece in names or items:
            inner = read_line(number, piece)
            if names:
                self._start_object(inner)
            else:
                self._read_in_objects(inner, "")

    def _read_in_description(self, line: Line, following: str) -> None:
        if self._starts_objects(line):
            self.state = "objects"
            self._start_object(line)
            return
        is_announcement = line.content.endswith(COLONS) and read_line(0, following).is_marked
        if is_announcement and len(line.content) < 120 and ". " not in line.content:
            # "These are the objects I see:" before a list is a heading in other words.
            self._leave_out(line.number, line.content)
            self.state = "objects"
            self.has_object_heading = True
            return
        is_talk = is_chatter(line.content, at_start=not self.description and not self.objects)
        if is_talk and (not self.description or self.after_blank):
            self._leave_out(line.number, line.content)
            return
        self._add_description(line)

    def _add_description(self, line: Line) -> None:
        if not self.description:
            self.description_line = line.number
        if self.state == "start":
            self.state = "start" if not self.has_video_heading else "description"
        self.description.append(line.content)

    def _starts_objects(self, line: Line) -> bool:
        """Whether an object begins here although no heading announced it."""
        if not line.is_marked and not line.rest.startswith("**"):
            return False
        split = split_name(line.rest)
        if split is None:
            return bool(line.number_text) and is_short_name(line.rest)
        words = len(split[0].split())
        if line.number_text:
            return words <= LONGEST_NAME
        return is_short_name(split[0]) and not is_label(split[0])

    def _read_in_objects(self, line: Line, following: str) -> None:
        current = self.objects[-1] if self.objects else None
        if line.number_text:
            is_nested = current is not None and self.style == "number" and self._is_deeper(line, self.objects[0].line)
            if is_nested and line.value != len(self.objects) + 1:
                self._continue(line)
            elif not line.rest.strip("*_ "):
                self.notes.append(f"line {line.number}: the number {line.number_text!r} has nothing after it; left out")
            else:
                self._start_object(line)
            return
        if line.bullet:
            split = split_name(line.rest)
            is_first = self.style is None
            is_sibling = self.style == "bullet" and not self._is_deeper(line, self.objects[0].line)
            if is_first or (is_sibling and (split is None or not is_label(split[0]))):
                self._start_object(line)
            elif not self._read_addition(line, split, is_item=True):
                self._continue(line)
            return
        self._read_unmarked(line, following, current)

    def _read_unmarked(self, line: Line, following: str, current: _Found | None) -> None:
        split = split_name(line.rest)
        is_heading_like = line.content.endswith(COLONS) and read_line(0, following).is_marked
        is_talk = is_chatter(line.content, at_start=False) or (current is None and is_heading_like)
        if is_talk and (self.after_blank or current is None or line.content[0] in "(*_"):
            self._leave_out(line.number, line.content)
            return
        is_emphasised = line.hash != "" or (split is not None and line.rest.startswith("**") and not split[1])
        is_named = split is not None and is_short_name(split[0]) and not is_label(split[0])
        # A list of bare names, one a line.
        is_bare_name = split is None and is_short_name(line.rest) and not (current is not None and current.parts)
        if self.style in (None, "plain") and (is_named or is_emphasised or is_bare_name):
            self._start_object(line)
        elif current is None:
            self._leave_out(line.number, line.content, why="no object was begun")
        elif not self._read_addition(line, split, is_item=is_emphasised or is_named):
            if self.after_blank and current.parts:
                self.notes.append(f"line {line.number}: stands apart; read as more about {current.name!r}")
            elif split is not None and split[1] and is_phrase(split[0]) and not is_label(split[0]):
                self.notes.append(f"line {line.number}: has no number; read as more about {current.name!r}")
            self._continue(line)

    def _read_addition(self, line: Line, split: tuple[str, str] | None, *, is_item: bool) -> bool:
        """Take a line that a user added to a list without the list's mark; False if it is none.

        It names something, and it does not stand deeper than the list. Unless it looks like an item (capitals, a
        bullet), the description before it must have ended a sentence; under a bullet there must be one.
        """
        if split is None or is_label(split[0]) or self._is_deeper(line, self.objects[0].line):
            return False
        said = self.objects[-1].parts[-1].rstrip() if self.objects[-1].parts else ""
        if line.bullet and (not said or self.has_sub_bullets):
            self.has_sub_bullets = True
            return False
        if not is_item and not (said.endswith(SENTENCE_ENDS) and is_phrase(split[0])):
            return False
        mark = "number" if self.style == "number" else "bullet"
        self.notes.append(f"line {line.number}: has no {mark}; read as the object {clean_name(split[0])!r}")
        self._start_object(line)
        return True

    def _is_deeper(self, line: Line, first: Line) -> bool:
        return line.indent >= first.indent + 2

    def _continue(self, line: Line) -> None:
        """Add a line to the object being read."""
        text = line.rest if line.is_marked else line.content
        parts = self.objects[-1].parts
        if line.bullet:
            # A list of attributes becomes one line: "Color: golden, Action: running".
            text = text.replace("**", "")
            if parts and parts[-1].rstrip()[-1:].isalnum():
                parts[-1] = parts[-1].rstrip() + ","
        label, _, rest = text.partition(":")
        if name_key(label) in {"description", "details"} and rest.strip("* "):
            text = rest.strip("* ")
        parts.append(text)

    def _start_object(self, line: Line) -> None:
        split = split_name(line.rest)
        self.has_sub_bullets = False
        if self.style is None:
            self.style = "number" if line.number_text else "bullet" if line.bullet else "plain"
        if split is None and line.is_object_word and not is_short_name(line.rest):
            # "Object 1: A dog runs." names nothing; the number is all the name there is.
            split = (f"Object {line.value}", line.rest)
        is_sentence = split is None and line.rest.rstrip("*_ ").endswith(SENTENCE_ENDS)
        if is_sentence:
            # "1. A man in a hat. He walks slowly." has no name but its first words.
            self.notes.append(f"line {line.number}: no ':' after a name; the first sentence was read as the name")
            split = first_sentence(line.rest)
        name, rest = split if split is not None else (line.rest, "")
        if name_key(name) in {"name", "object name", "object"} and is_phrase(rest):
            # "Name: Dog", and "Description: ..." on a line of its own.
            name, rest = rest, ""
        name = clean_name(name).strip("".join(COLONS)).strip()
        # The name ends at the first ": "; a name that still holds one came out of emphasis or a full-width colon.
        name, _, more = name.partition(": ")
        rest = f"{more} {rest}".strip()
        if not name_key(name):
            self._leave_out(line.number, line.content, why="it has no name")
            return
        if split is None and len(name.split()) > LONGEST_NAME:
            self.notes.append(f"line {line.number}: no ':' after a name; all of it was read as the name")
        self.objects.append(_Found(line, name, [rest] if rest else []))

    def _leave_out(self, number: int, content: str, *, why: str = "") -> None:
        self.num_left_out += 1
        shown = one_line(content)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        self.notes.append(f"line {number}: left out {shown!r}" + (f", {why}" if why else ""))

    def finish(self) -> tuple[str, list[tuple[str, str]], list[str]]:
        """Return what was read: missing parts noted, equal names told apart."""
        tail = name_key(self.description[-1]) if len(self.description) > 1 and not self.objects else ""
        headings = ("object descriptions", "identified object names and descriptions")
        if len(tail) >= 3 and any(heading.startswith(tail) for heading in headings):
            self._leave_out(self.last_number, self.description.pop(), why="the text seems cut off here")
        description = one_line(" ".join(self.description))
        if not description:
            self.notes.append("there is no description of the video")
        elif not self.has_video_heading:
            self.notes.append("there is no 'Video Description:' heading; the text before the objects was read as it")
        if not self.objects:
            self.notes.append("no objects were found; list them as '1. Name: description'")
        elif not self.has_object_heading:
            line = self.objects[0].line.number
            self.notes.append(f"there is no 'Object Descriptions:' heading; the objects were read from line {line} on")
        return description, self._unique_objects(), self.notes

    def _unique_objects(self) -> list[tuple[str, str]]:
        unique: dict[str, tuple[str, str]] = {}
        # Every name in the text is taken, so that a made-up one never collides with one that follows.
        taken = {name_key(found.name) for found in self.objects}
        originals: dict[str, set[str]] = {}
        next_number: dict[str, int] = {}
        for found in self.objects:
            key, name, line = name_key(found.name), found.name, found.line.number
            description = one_line(" ".join(found.parts))
            if not description:
                is_last = found is self.objects[-1] and found.line.number == self.last_number
                is_cut = is_last and not found.line.content.endswith(SENTENCE_ENDS)
                cut = "; the text may be cut off here" if is_cut and not found.line.ends_with_colon else ""
                self.notes.append(f"line {line}: {name!r} has no description{cut}")
            said = originals.setdefault(key, set())
            if description in said:
                self.notes.append(f"line {line}: {name!r} is repeated word for word; read once")
                continue
            said.add(description)
            if key in unique:
                number = next_number.get(key, 2)
                while name_key(f"{name} ({number})") in taken:
                    number += 1
                next_number[key] = number + 1
                self.notes.append(f"line {line}: a second object called {name!r}; it was renamed '{name} ({number})'")
                name = f"{name} ({number})"
                key = name_key(name)
                taken.add(key)
            unique[key] = (name, description)
        return list(unique.values())
