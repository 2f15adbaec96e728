"""What is said of a clip already, and stays: the text of a released list, of a person, of an earlier run.

The rule, for every sample whose text is not to be written anew as a whole (``--all``):

- The description of the video, each object's words, the lines of the paragraph that are about no mask, further
  phrasings and written edits stay as they are. The annotator never sees a reason to touch them.
- Missing is the description of the video where it is empty, and the words of an object that has a mask and none. A
  line of the paragraph that is about no mask yet may be about such an object, which is asked first; only for what is
  missing then is the model asked to write, and of its answer nothing else is taken.
- A written edit's two paragraphs follow: where they hold what stands in the paragraph, they hold what stands there
  afterwards. An edit is added for an object that has none of its kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.sample import EditPrompt, edits_of
from raccoon_datamodules.view import MemberView
from raccoon_datamodules.wording import name_key


@dataclass(frozen=True, slots=True)
class Standing:
    """The text that a sample has and keeps.

    ``source`` is the paragraph as it is stored, ``paragraph`` the same with what the objects' records say; lines of
    objects that nobody described hold a name only. ``told`` is the name in it of each object that is described, by id;
    ``bare`` that of each object with a mask that is not, "" if it has no line; ``phrasings`` and ``edits`` are as they
    are stored.
    """

    source: Paragraph
    paragraph: Paragraph
    told: Mapping[str, str]
    bare: Mapping[str, str]
    phrasings: tuple[Paragraph, ...] = ()
    edits: tuple[EditPrompt, ...] = ()

    @property
    def free(self) -> tuple[ObjectDescription, ...]:
        """The described lines that are about none of the objects with a mask."""
        taken = {name_key(name) for name in self.told.values()}
        return tuple(item for item in self.paragraph.objects if item.description and name_key(item.name) not in taken)

    @property
    def described(self) -> Paragraph:
        """The paragraph without the lines that say nothing: what a model is shown of it."""
        return Paragraph(self.paragraph.description, tuple(o for o in self.paragraph.objects if o.description))

    def to_json(self) -> dict[str, Any]:
        """What stood, for ``meta.json``: whether the video's description did, and the ids of the objects."""
        return {"description": bool(self.paragraph.description), "objects": list(self.told)}


def standing_of(view: MemberView) -> Standing | None:
    """What is said in a sample, None if nothing is; needs all its ``.json`` members.

    An object is described by its own record, or by the line of the paragraph that has its name; what only one of the
    two says is put into the other.

    Raises:
        MemberError: if a member is missing or damaged.
    """
    reference, *phrasings = view.paragraphs()
    lines = list(reference.objects)
    taken: set[str] = set()
    told, bare = dict[str, str](), dict[str, str]()
    for object_id in view.meta.objects:
        info = view.object(object_id)
        key = name_key(info.name)
        place = next((n for n, o in enumerate(lines) if key and name_key(o.name) == key and key not in taken), None)
        if place is None and not info.description:
            bare[object_id] = ""
            continue
        if place is None:
            place = len(lines)
            lines.append(ObjectDescription(free_name(info.name, object_id, lines), info.description))
        elif not lines[place].description:
            lines[place] = replace(lines[place], description=info.description)
        taken.add(name_key(lines[place].name))
        (told if lines[place].description else bare)[object_id] = lines[place].name
    edits = edits_of(view)
    if not (reference.description or any(item.description for item in lines) or phrasings or edits):
        return None
    return Standing(reference, Paragraph(reference.description, tuple(lines)), told, bare, tuple(phrasings), edits)


def free_name(name: str, object_id: str, lines: "list[ObjectDescription]") -> str:
    """``name``, or where it is none "Object ID", with a number behind it where a line has it already."""
    wanted = name.replace(": ", " ") if name_key(name) else f"Object {object_id}"
    taken = {name_key(item.name) for item in lines}
    found, number = wanted, 1
    while name_key(found) in taken:
        number += 1
        found = f"{wanted} ({number})"
    return found


def filled(standing: Standing, answer: Paragraph, matches: Mapping[str, str | None]) -> Paragraph:
    """The paragraph with what was missing, from ``answer``; ``matches`` names each object's caption, or None, by id.

    A caption takes the place of the line that held its object's name only. Such a line goes where its object has a
    caption elsewhere, and where it has none, unless a written edit is about that object.
    """
    of = {name_key(name): object_id for object_id, name in standing.bare.items() if name}
    new = {i: found for i in standing.bare if (name := matches.get(i)) and (found := answer.find(name)) is not None}
    names = {name_key(item.name) for item in new.values()}
    edited = {edit.object_id for edit in standing.edits}
    lines: list[ObjectDescription] = []
    for item in standing.paragraph.objects:
        owner = None if item.description else of.get(name_key(item.name))
        if owner is None and (item.description or name_key(item.name) not in names):
            lines.append(item)
        elif owner in new:
            lines.append(new.pop(owner))
        elif owner in edited and not matches.get(owner) and name_key(item.name) not in names:
            lines.append(item)
    return Paragraph(standing.paragraph.description or answer.description, (*lines, *new.values()))


def followed(standing: Standing, paragraph: Paragraph, matches: Mapping[str, str | None]) -> tuple[EditPrompt, ...]:
    """The written edits that stand, about the ``paragraph`` that their sample has now."""
    of = {name_key(name): object_id for object_id, name in (*standing.told.items(), *standing.bare.items()) if name}
    now: dict[ObjectDescription, ObjectDescription | None] = {}
    for item in standing.source.objects:
        now[item] = paragraph.find(matches.get(of.get(name_key(item.name), "")) or item.name)
    gained = [item for item in paragraph.objects if item not in now.values()]

    def follow(side: Paragraph, gone: ObjectDescription | None) -> Paragraph:
        is_same = side.description == standing.source.description
        found: dict[str, ObjectDescription] = {}
        for item in (*side.objects, *gained):
            kept = now.get(item, item)
            if kept is not None and kept != gone:
                found.setdefault(name_key(kept.name), kept)
        return Paragraph(paragraph.description if is_same else side.description, tuple(found.values()))

    edits = []
    for edit in standing.edits:
        name = matches.get(edit.object_id)
        own = paragraph.find(name) if name else None
        # The side without the object: it may have come in by a line that is new, or about another name.
        gone = own if edit.object_id in standing.bare or own in gained else None
        before = follow(edit.before, gone if edit.kind == "add" else None)
        edits.append(replace(edit, before=before, after=follow(edit.after, None if edit.kind == "add" else gone)))
    return tuple(edits)
