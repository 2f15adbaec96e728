"""The edit plan: what changed between the paragraph of a video and the paragraph the user wants.

Objects are matched by equal names, then by equal descriptions, then by the assignment that maximises the token-F1 of
name and description. A match of the last kind counts when its F1 is at least `ACCEPT` and at least `MARGIN` above the
next best for either object. Whatever else is left over on both sides could mean a change as well as a removal and an
addition; it is refused (`AmbiguousEdit`) with both readings and the flags that say which. What the user says in flags
is never ambiguous: `plan_flags`.

Source: RACCooN, section 3.2 (remove, add and change by editing the paragraph); the matching is ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raccoon.matching import assign, changed_words, marked_words
from raccoon.wishes import add_object, change_object, decisions_of, parse_change, quoted, remove_object, require_object
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.wording import name_key, token_f1, words_of

if TYPE_CHECKING:
    # The sample knows the video libraries, which a plan of texts must not load.
    from raccoon_datamodules.sample import EditKind

__all__ = [
    "AmbiguousEdit",
    "Edit",
    "EditPlan",
    "Reading",
    "add_object",
    "change_object",
    "decisions_of",
    "diff",
    "marked_words",
    "parse_change",
    "plan_flags",
    "remove_object",
    "require_object",
]

ACCEPT = 0.5
MARGIN = 0.1

_Pair = tuple[ObjectDescription, ObjectDescription]


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit of one object.

    ``name`` is the name of what is looked for: that in the old paragraph for a removal or a change, that in the new one
    for an addition. ``before`` is None for an addition, ``after`` for a removal. ``layout`` places an added object,
    where one was given. ``words`` caused the edit, in reading order: ``-word`` went away, ``+word`` came.
    """

    kind: "EditKind"
    name: str
    before: ObjectDescription | None
    after: ObjectDescription | None
    layout: Layout | None = None
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.kind == "change" and self.after is not None:
            return f"change {self.name!r} to {str(self.after)!r}"
        return f"remove {self.name!r}" if self.kind == "remove" else f"add {str(self.after)!r}"

    def to_json(self) -> dict[str, Any]:
        """Return the edit as plain JSON."""
        return {
            "kind": self.kind,
            "name": self.name,
            "before": _object_json(self.before),
            "after": _object_json(self.after),
            "layout": self.layout.to_json() if self.layout is not None else None,
            "words": list(self.words),
        }


@dataclass(frozen=True, slots=True)
class EditPlan:
    """What is to be done: removals and changes in the order of the old paragraph, then additions in that of the new.

    ``scene_changed`` says that the video's description was changed, which no edit covers; ``notes`` are plain sentences
    about that and about everything else that was seen and is not an edit.
    """

    edits: tuple[Edit, ...]
    scene_changed: bool = False
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON; `from_json` reads it."""
        edits = [edit.to_json() for edit in self.edits]
        return {"edits": edits, "scene_changed": self.scene_changed, "notes": list(self.notes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "EditPlan":
        """Read what `to_json` wrote.

        Raises:
            ValueError: if a key is missing or a value is not what a plan holds.
        """
        try:
            edits = tuple(_edit_from_json(item) for item in data["edits"])
            return cls(edits, bool(data["scene_changed"]), tuple(str(note) for note in data["notes"]))
        except (KeyError, TypeError) as err:
            raise ValueError(
                f"a plan's JSON must be {{'edits': [...], 'scene_changed': bool, 'notes': [str]}}, got {data!r:.200}"
            ) from err


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to understand an ambiguous edit: its edits, the flags that say it, the ``decisions`` that choose it."""

    edits: tuple[Edit, ...]
    flags: tuple[str, ...]
    decisions: Mapping[str, str]


class AmbiguousEdit(ValueError):
    """The paragraphs can be understood in two ways; ``readings`` holds both."""

    def __init__(self, readings: Sequence[Reading]) -> None:
        self.readings = tuple(readings)
        ways = "; or ".join(
            f"({letter}) {', '.join(map(str, reading.edits))}: {' '.join(reading.flags)}"
            for letter, reading in zip("ab", self.readings, strict=True)
        )
        super().__init__(f"the edited paragraph can be read in two ways; add the flags of one: {ways}")


def diff(
    before: Paragraph,
    after: Paragraph,
    *,
    layouts: Mapping[str, Layout] | None = None,
    decisions: Mapping[str, str] | None = None,
) -> EditPlan:
    """Plan the edits that lead from one paragraph to the other.

    ``layouts`` gives boxes for added objects, by name. ``decisions`` settles what would be ambiguous:
    ``{"Dog": "remove"}`` (an object of ``before``), ``{"Raccoon": "add"}`` (an object of ``after``),
    ``{"Dog": "-> Raccoon"}`` (the one became the other). Names are compared regardless of case. The order of the
    objects never matters, nor do case, punctuation and white space in a description.

    Raises:
        AmbiguousEdit: if an object went and another came, and they are neither clearly the same nor decided.
        ValueError: if a decision or a layout names an object that is not there, or decisions contradict each other.
    """
    pairs, removed, added = _decided(before, after, decisions or {})
    old = [item for item in before.objects if item not in removed and item not in [pair[0] for pair in pairs]]
    new = [item for item in after.objects if item not in added and item not in [pair[1] for pair in pairs]]
    for find in (_equal_names, _equal_descriptions, _alike):
        found = find(old, new)
        pairs += found
        old = [item for item in old if item not in [pair[0] for pair in found]]
        new = [item for item in new if item not in [pair[1] for pair in found]]
    if old and new:
        raise AmbiguousEdit(_readings(old, new))
    return _plan(before, after, pairs, [*removed, *old], [*added, *new], layouts or {})


def plan_flags(
    before: Paragraph,
    *,
    remove: Sequence[str] = (),
    add: Sequence[str] = (),
    change: Sequence[str] = (),
    layouts: Mapping[str, Layout] | None = None,
) -> tuple[Paragraph, EditPlan]:
    """Plan what flags ask for, and return the paragraph they lead to; never ambiguous.

    ``remove`` holds names, ``add`` ``"Name: description"``, ``change`` ``"Old -> New name: description"``. Removals
    come first, then changes, then additions, whatever their order on the command line.

    Raises:
        ValueError: if an object is not there, or a new name is taken.
    """
    after = before
    decisions: dict[str, str] = {}
    for name in remove:
        decisions[require_object(after, name).name] = "remove"
        after = remove_object(after, name)
    for text in change:
        old, new = parse_change(after, text)
        if before.find(old.name) is not old:
            raise ValueError(f"{old.name!r} is changed twice; say it in one --change")
        after = change_object(after, text)
        decisions[old.name] = f"-> {new.name}"
    additions = []
    for text in add:
        after = add_object(after, text)
        additions.append(after.objects[-1].name)
    pairs, removed, _ = _decided(before, after, decisions)
    added = [item for item in after.objects if item.name in additions]
    # What is neither removed nor changed is untouched; only the pairs that differ become edits.
    return after, _plan(before, after, pairs, removed, added, layouts or {})


def _decided(
    before: Paragraph, after: Paragraph, decisions: Mapping[str, str]
) -> tuple[list[_Pair], list[ObjectDescription], list[ObjectDescription]]:
    """Carry out decisions: the pairs, the removed and the added objects."""
    pairs: list[_Pair] = []
    removed: list[ObjectDescription] = []
    added: list[ObjectDescription] = []
    for name, verdict in decisions.items():
        old = new = None
        if verdict == "add":
            new = require_object(after, name)
            added.append(new)
        elif verdict == "remove":
            old = require_object(before, name)
            removed.append(old)
        elif verdict.startswith("->"):
            old, new = require_object(before, name), require_object(after, verdict.removeprefix("->").strip())
            pairs.append((old, new))
        else:
            raise ValueError(f"a decision must be 'remove', 'add' or '-> NEW NAME', got {verdict!r} for {name!r}")
        for item, used in ((old, [*removed, *(pair[0] for pair in pairs)]), (new, [*added, *(p[1] for p in pairs)])):
            if item is not None and used.count(item) > 1:
                raise ValueError(f"the decisions about {item.name!r} contradict each other: {dict(decisions)}")
    return pairs, removed, added


def _equal_names(old: list[ObjectDescription], new: list[ObjectDescription]) -> list[_Pair]:
    by_key = {name_key(item.name): item for item in new}
    return [(item, by_key[name_key(item.name)]) for item in old if name_key(item.name) in by_key]


def _equal_descriptions(old: list[ObjectDescription], new: list[ObjectDescription]) -> list[_Pair]:
    """Pair objects that are described alike, where that is said of one object on each side."""
    pairs = []
    keys = [[tuple(words_of(item.description)) for item in side] for side in (old, new)]
    for item, key in zip(old, keys[0], strict=True):
        if key and keys[0].count(key) == 1 and keys[1].count(key) == 1:
            pairs.append((item, new[keys[1].index(key)]))
    return pairs


def _alike(old: list[ObjectDescription], new: list[ObjectDescription]) -> list[_Pair]:
    """Pair objects by the best assignment, where it is good enough and clear enough."""
    scores = _scores(old, new)
    pairs = []
    for i, j in assign(scores):
        others = [score for k, score in enumerate(scores[i]) if k != j]
        others += [row[j] for k, row in enumerate(scores) if k != i]
        # 1e-9: a margin of exactly 0.1 must not fail by rounding.
        if scores[i][j] >= ACCEPT and scores[i][j] - max(others, default=0.0) >= MARGIN - 1e-9:
            pairs.append((old[i], new[j]))
    return pairs


def _scores(old: list[ObjectDescription], new: list[ObjectDescription]) -> list[list[float]]:
    new_words = [words_of(str(item)) for item in new]
    return [[token_f1(words_of(str(item)), words) for words in new_words] for item in old]


def _readings(old: list[ObjectDescription], new: list[ObjectDescription]) -> list[Reading]:
    """The likeliest reading and its rival: the next best change, or nothing but removals and additions."""
    scores = _scores(old, new)
    first = assign(scores)
    i, j = max(first, key=lambda pair: scores[pair[0]][pair[1]])
    second: list[tuple[int, int]] = []
    if scores[i][j] >= ACCEPT:  # too close to another pair, then: that one is the rival
        scores[i][j] = -float(len(old) + len(new))
        second = [pair for pair in assign(scores) if pair != (i, j)]
    return [_reading(old, new, first), _reading(old, new, second)]


def _reading(old: list[ObjectDescription], new: list[ObjectDescription], assigned: list[tuple[int, int]]) -> Reading:
    pairs = [(old[i], new[j]) for i, j in assigned]
    removed = [item for item in old if item not in [pair[0] for pair in pairs]]
    added = [item for item in new if item not in [pair[1] for pair in pairs]]
    edits = (
        [_change(*pair) for pair in pairs] + [_removal(item) for item in removed] + [_addition(item) for item in added]
    )
    flags = [f"--change {quoted(f'{before.name} -> {after}')}" for before, after in pairs]
    flags += [f"--remove {quoted(item.name)}" for item in removed]
    flags += [f"--add {quoted(str(item))}" for item in added]
    decisions = {before.name: f"-> {after.name}" for before, after in pairs}
    decisions |= {item.name: "remove" for item in removed} | {item.name: "add" for item in added}
    return Reading(tuple(edits), tuple(flags), decisions)


def _plan(
    before: Paragraph,
    after: Paragraph,
    pairs: list[_Pair],
    removed: list[ObjectDescription],
    added: list[ObjectDescription],
    layouts: Mapping[str, Layout],
) -> EditPlan:
    """Put matched objects into a plan, with its notes."""
    notes: list[str] = []
    partner = {item.name: new for item, new in pairs}
    edits = []
    for item in before.objects:
        if item in removed:
            edits.append(_removal(item))
        elif (new := partner.get(item.name)) is not None and new != item:
            if name_key(new.name) != name_key(item.name) or words_of(new.description) != words_of(item.description):
                edits.append(_change(item, new))
            else:
                notes.append(f"{item.name!r}: only case or punctuation changed; that is no edit")
    boxes = {name_key(name): layout for name, layout in layouts.items()}
    edits += [_addition(item, boxes.pop(name_key(item.name), None)) for item in after.objects if item in added]
    if boxes:
        adds = ", ".join(repr(item.name) for item in added) or "nothing"
        unused = ", ".join(repr(name) for name in layouts if name_key(name) in boxes)
        raise ValueError(f"a layout must belong to an added object; the plan adds {adds}, the layouts name {unused}")
    scene = changed_words(before.description, after.description)
    if scene and not after.description:
        notes.append("the edited paragraph has no description of the video; that is no edit, the objects are")
    elif scene and edits:
        notes.append(f"the description of the video changed too ({_brief(scene)}); only changed objects are edited")
    elif scene:
        notes.append(
            f"only the description of the video changed ({_brief(scene)}), which cannot be planned; "
            "say what is to change in the list of objects"
        )
    elif not edits and not notes:
        notes.append("the two paragraphs say the same")
    return EditPlan(tuple(edits), bool(scene), tuple(notes))


def _change(before: ObjectDescription, after: ObjectDescription) -> Edit:
    return Edit("change", before.name, before, after, None, changed_words(str(before), str(after)))


def _removal(item: ObjectDescription) -> Edit:
    return Edit("remove", item.name, item, None, None, changed_words(str(item), ""))


def _addition(item: ObjectDescription, layout: Layout | None = None) -> Edit:
    return Edit("add", item.name, None, item, layout, changed_words("", str(item)))


def _brief(words: Sequence[str]) -> str:
    return " ".join(words[:8]) + (" ..." if len(words) > 8 else "")


def _object_json(item: ObjectDescription | None) -> dict[str, str] | None:
    return None if item is None else {"name": item.name, "description": item.description}


def _edit_from_json(data: Mapping[str, Any]) -> Edit:
    if data["kind"] not in ("remove", "add", "change"):
        raise ValueError(f"an edit's kind must be 'remove', 'add' or 'change', got {data['kind']!r}")
    before, after = (
        None if data[key] is None else ObjectDescription(data[key]["name"], data[key]["description"])
        for key in ("before", "after")
    )
    if (before is None) != (data["kind"] == "add") or (after is None) != (data["kind"] == "remove"):
        raise ValueError(f"an edit of kind {data['kind']!r} has the wrong objects: before {before}, after {after}")
    layout = None if data["layout"] is None else Layout.from_json(data["layout"])
    return Edit(data["kind"], data["name"], before, after, layout, tuple(data["words"]))
