"""The paragraph: the text a video becomes, and the text a user edits.

The canonical form has one line for the description and one for each object::

    Video Description: A caretaker engages with a giant panda in a bamboo forest.

    Object Descriptions:
    1. Giant Panda: A large black and white bear.
    2. Caretaker: An adult in a light grey uniform.

No field holds a line break, so only the beginnings of lines carry structure: a description may say "Object
Descriptions:" or "2. Dog: ..." and still reads back as itself. Reading has two steps. Text whose every line is
canonical (the numbers may have gaps, as they do after a line was deleted) is taken exactly as it stands; all other text
goes to the forgiving reader, `raccoon_datamodules.paragraph_reader`.

Source: RACCooN, sections 3.1 and A.1, figures 2 and 6.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raccoon_datamodules.paragraph_lines import heading_of, read_line, split_lines
from raccoon_datamodules.paragraph_reader import read_paragraph
from raccoon_datamodules.wording import clean_name, name_key, one_line

VIDEO_HEADING = "Video Description:"
OBJECT_HEADING = "Object Descriptions:"
_NUMBER = re.compile(r"[0-9]{1,9}\. ")


@dataclass(frozen=True, slots=True)
class ObjectDescription:
    """One object: its name and what is said about it.

    Construction puts both on one line (see `wording.one_line`) and takes Markdown emphasis off the name. The
    description may be empty. ``str`` is ``Name: description``.

    Raises:
        TypeError: if name or description is not a str.
        ValueError: if the name is empty or holds ``": "``, which ends a name.
    """

    name: str
    description: str = ""

    def __post_init__(self) -> None:
        for field, value in (("name", self.name), ("description", self.description)):
            if not isinstance(value, str):
                raise TypeError(f"an object's {field} must be a str, got {type(value).__name__}: {value!r}")
        name = clean_name(self.name)
        if not name_key(name):
            raise ValueError(f"an object's name must not be empty, got {self.name!r}; write 'Name: description'")
        if ": " in name:
            raise ValueError(
                f"an object's name must not hold ': ', which ends the name, got {name!r}; "
                f"use {name.split(': ')[0]!r} as the name or write the colon without a space"
            )
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "description", one_line(self.description))

    def __str__(self) -> str:
        return f"{self.name}: {self.description}" if self.description else f"{self.name}:"

    @classmethod
    def parse(cls, text: str) -> "ObjectDescription":
        """Read ``Name: description``, as a person types it after ``--add`` or a model answers about one object.

        Text without a colon is a name with an empty description.

        Raises:
            ValueError: if no name is left.
        """
        canonical = _canonical_object(one_line(text))
        if canonical is not None:
            return canonical
        _, found, _ = read_paragraph("Object Descriptions:\n1. " + one_line(text))
        if not found:
            raise ValueError(f"an object must be written 'Name: description', got {text!r}")
        return cls(*found[0])


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A video's description and its objects, in the order they are listed.

    Construction normalises white space and accepts any iterable of objects; names are unique regardless of case.
    ``str`` is the canonical form, and ``Paragraph.parse(str(p)) == (p, [])`` for every paragraph.

    Raises:
        TypeError: if the description is not a str or an object is not an `ObjectDescription`.
        ValueError: if two objects have the same name, regardless of case; the message says which.
    """

    description: str
    objects: tuple[ObjectDescription, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.description, str):
            raise TypeError(f"a paragraph's description must be a str, got {type(self.description).__name__}")
        objects = tuple(self.objects)
        seen: dict[str, str] = {}
        repeated = []
        for item in objects:
            if not isinstance(item, ObjectDescription):
                raise TypeError(f"a paragraph's objects must be ObjectDescription, got {type(item).__name__}: {item!r}")
            key = name_key(item.name)
            if key in seen:
                repeated.append(f"{seen[key]!r} and {item.name!r}")
            seen.setdefault(key, item.name)
        if repeated:
            raise ValueError(
                f"object names must be unique regardless of case, got {', '.join(repeated)}; "
                "tell them apart, for example 'Dog (left)' and 'Dog (right)'"
            )
        object.__setattr__(self, "description", one_line(self.description))
        object.__setattr__(self, "objects", objects)

    def __str__(self) -> str:
        head = f"{VIDEO_HEADING} {self.description}" if self.description else VIDEO_HEADING
        return "\n".join([head, "", OBJECT_HEADING, *(f"{i}. {item}" for i, item in enumerate(self.objects, 1))])

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the objects, in order."""
        return tuple(item.name for item in self.objects)

    def find(self, name: str) -> ObjectDescription | None:
        """Return the object called ``name``, regardless of case, or None."""
        wanted = name_key(name)
        return next((item for item in self.objects if name_key(item.name) == wanted), None)

    @classmethod
    def parse(cls, text: str) -> tuple["Paragraph", list[str]]:
        """Read a paragraph as models and people write it; never raises on a str.

        Returns the paragraph and notes: plain sentences, with line numbers (from 1), about everything that was left
        out, guessed or repaired. Canonical text gives no notes. A name that comes twice becomes ``Name (2)``; an object
        that is repeated word for word is read once.

        Raises:
            TypeError: if text is not a str.
        """
        if not isinstance(text, str):
            raise TypeError(f"a paragraph is read from a str, got {type(text).__name__}")
        canonical = cls._parse_canonical(text)
        if canonical is not None:
            return canonical, []
        description, found, notes = read_paragraph(text)
        return cls(description, tuple(ObjectDescription(*item) for item in found)), notes

    @classmethod
    def _parse_canonical(cls, text: str) -> "Paragraph | None":
        lines = [line for line in (line.rstrip() for line in split_lines(text)) if line]
        if len(lines) < 2 or lines[1] != OBJECT_HEADING or not lines[0].startswith(VIDEO_HEADING):
            return None
        description = lines[0].removeprefix(VIDEO_HEADING).removeprefix(" ")
        if one_line(description) != description or lines[0] != f"{VIDEO_HEADING} {description}".rstrip():
            return None
        objects = []
        for line in lines[2:]:
            number = _NUMBER.match(line)
            item = _canonical_object(line[number.end() :]) if number else None
            if item is None:
                return None
            objects.append(item)
        if len({name_key(item.name) for item in objects}) < len(objects):
            return None
        return cls(description, tuple(objects))

    def to_json(self) -> dict[str, Any]:
        """Return the paragraph as plain JSON: ``{"description", "objects": [{"name", "description"}]}``."""
        objects = [{"name": item.name, "description": item.description} for item in self.objects]
        return {"description": self.description, "objects": objects}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Paragraph":
        """Read what `to_json` wrote.

        Raises:
            ValueError: if a key is missing or a value is not what a paragraph holds.
        """
        try:
            objects = tuple(ObjectDescription(item["name"], item["description"]) for item in data["objects"])
            return cls(data["description"], objects)
        except (KeyError, TypeError) as err:
            raise ValueError(
                "a paragraph's JSON must be {'description': str, 'objects': [{'name': str, 'description': str}]}, "
                f"got {data!r:.200}"
            ) from err


def has_heading(text: str) -> bool:
    """Whether any line of a text is a heading of a paragraph, in any of the forms that `Paragraph.parse` reads."""
    return any(heading_of(read_line(number, raw)) is not None for number, raw in enumerate(split_lines(text), 1))


def _canonical_object(line: str) -> ObjectDescription | None:
    """Read ``Name: description`` where it is exactly what `ObjectDescription` writes, else None."""
    name, colon, description = line.partition(": ")
    if not colon:
        if not line.endswith(":"):
            return None
        name = line[:-1]
    if not name_key(name):
        return None
    item = ObjectDescription(name, description)
    return item if str(item) == line else None
