"""The wishes a user writes as flags, as functions from paragraph to paragraph.

``--remove "NAME"``, ``--add "Name: description"``, ``--change "Old -> New name: description"``. Every error lists the
names there are and suggests the nearest.
"""

import difflib
import re
from collections.abc import Sequence

from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.wording import name_key, words_of


def remove_object(paragraph: Paragraph, name: str) -> Paragraph:
    """Return the paragraph without the object ``name``, as ``--remove "NAME"`` asks.

    Raises:
        ValueError: if no object has that name; the message lists the names and suggests the nearest.
    """
    found = require_object(paragraph, name)
    return Paragraph(paragraph.description, tuple(item for item in paragraph.objects if item is not found))


def add_object(paragraph: Paragraph, text: str) -> Paragraph:
    """Return the paragraph with one more object, as ``--add "Name: description"`` asks.

    Raises:
        ValueError: if the text names nothing, or there is such an object already.
    """
    item = ObjectDescription.parse(text)
    if (there := paragraph.find(item.name)) is not None:
        raise ValueError(
            f"an added object needs a name of its own, and there is a {there.name!r} already; "
            f"add it under another name, or change it with --change {quoted(f'{there.name} -> {item}')}"
        )
    return Paragraph(paragraph.description, (*paragraph.objects, item))


def change_object(paragraph: Paragraph, text: str) -> Paragraph:
    """Return the paragraph with one object changed, as ``--change "Old -> New name: description"`` asks.

    Without a description the old one is kept; the place in the list is kept.

    Raises:
        ValueError: if the text holds no ``->``, the object is not there, or another has the new name already.
    """
    old, new = parse_change(paragraph, text)
    taken = paragraph.find(new.name)
    if taken is not None and taken is not old:
        raise ValueError(
            f"{old.name!r} cannot become {new.name!r}: there is a {taken.name!r} already; use another name"
        )
    return Paragraph(paragraph.description, tuple(new if item is old else item for item in paragraph.objects))


def parse_change(paragraph: Paragraph, text: str) -> tuple[ObjectDescription, ObjectDescription]:
    """Read ``Old -> New name: description``: the object of the paragraph, and what it becomes.

    Raises:
        ValueError: if the text holds no ``->``, or what stands before it is no object of the paragraph.
    """
    parts = text.replace("→", "->").split("->")
    if len(parts) < 2 or not parts[-1].strip():
        raise ValueError(f"a change must be written 'Old name -> New name: description', got {text!r}")
    # A name may itself hold an arrow: the first cut that names an object counts.
    for cut in range(1, len(parts)):
        old = paragraph.find("->".join(parts[:cut]))
        if old is not None:
            new = ObjectDescription.parse("->".join(parts[cut:]))
            return old, new if new.description else ObjectDescription(new.name, old.description)
    return require_object(paragraph, parts[0]), ObjectDescription.parse(parts[1])  # always raises: it is not there


def decisions_of(
    before: Paragraph,
    after: Paragraph,
    *,
    remove: Sequence[str] = (),
    add: Sequence[str] = (),
    change: Sequence[str] = (),
) -> dict[str, str]:
    """Read the flags as verdicts on what two paragraphs leave open; see ``decisions`` of `raccoon.plan.diff`.

    Raises:
        ValueError: if an object is not in its paragraph, a flag contradicts the paragraphs, or has another form.
    """
    decisions: dict[str, str] = {}
    for name in remove:
        old = require_object(before, name)
        if after.find(old.name) is not None:
            raise ValueError(f"{old.name!r} shall be removed and is still in the edited paragraph; delete its line")
        decisions[old.name] = "remove"
    for text in add:
        new = _as_edited(after, ObjectDescription.parse(text))
        if before.find(new.name) is not None:
            raise ValueError(f"{new.name!r} shall be added and is in the first paragraph already; leave the flag out")
        decisions[new.name] = "add"
    for text in change:
        old, new = parse_change(before, text)
        bare = ObjectDescription(new.name) if new.description == old.description else new
        decisions[old.name] = f"-> {_as_edited(after, bare).name}"
    return decisions


def _as_edited(after: Paragraph, wish: ObjectDescription) -> ObjectDescription:
    """The object of the edited paragraph that a flag names; its description, where given, must be the same."""
    found = require_object(after, wish.name)
    if wish.description and words_of(wish.description) != words_of(found.description):
        raise ValueError(f"a flag describes {found.name!r} otherwise than the edited paragraph: {str(found)!r}")
    return found


def require_object(paragraph: Paragraph, name: str) -> ObjectDescription:
    """Return the object called ``name``, regardless of case.

    Raises:
        ValueError: if there is none; the message lists the names there are and suggests the nearest.
    """
    found = paragraph.find(name)
    if found is not None:
        return found
    if not paragraph.objects:
        raise ValueError(f"there is no object {name!r}: the paragraph lists no objects")
    keys = {name_key(item.name): item.name for item in paragraph.objects}
    wanted = name_key(name)
    near = difflib.get_close_matches(wanted, keys, n=1, cutoff=0.6) or [
        key for key in keys if set(words_of(wanted)) & set(words_of(key))
    ]
    hint = f"; did you mean {keys[near[0]]!r}?" if near else ""
    raise ValueError(f"there is no object {name!r}; the paragraph lists {', '.join(map(repr, paragraph.names))}{hint}")


def quoted(text: str) -> str:
    """Return text in double quotes for a shell."""
    return '"' + re.sub(r'(["\\$`])', r"\\\1", text) + '"'
