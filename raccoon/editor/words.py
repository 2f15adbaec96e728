"""Edits said directly: ``--remove NAME``, ``--add "Name: ..."``, ``--change "Name -> New name: ..."``."""

import difflib
from collections.abc import Sequence

from raccoon.plan import Edit, EditPlan
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.wording import name_key, words_of


def plan_of_words(
    *,
    before: Paragraph | None = None,
    remove: Sequence[str] = (),
    add: Sequence[str] = (),
    change: Sequence[str] = (),
) -> tuple[EditPlan, Paragraph | None]:
    """Return the plan that the given words ask for, and the paragraph after it (None where there is none before).

    ``remove`` are names; ``add`` are ``Name: description``; ``change`` are ``Name -> New name: description``, the
    description kept as it was if none is given. With the paragraph ``before``, names are looked up in it regardless of
    case; without it they are taken as they are. Removals come first, then changes, then additions.

    Raises:
        ValueError: if a name is not in the paragraph or is already there, is used twice, or the text has another form.
    """
    edits: list[Edit] = []
    seen: dict[str, str] = {}
    objects = list(before.objects) if before is not None else []
    for name in remove:
        old = _known(name, before, seen)
        objects = [kept for kept in objects if name_key(kept.name) != name_key(old.name)]
        edits.append(Edit("remove", old.name, old, None, None, tuple(words_of(str(old)))))
    for text in change:
        name, arrow, wanted = text.partition("->")
        if not arrow or not name.strip() or not wanted.strip():
            raise ValueError(f"a change must read 'Name -> New name: description', got {text!r}")
        old = _known(name.strip(), before, seen)
        new = ObjectDescription.parse(wanted.strip())
        if not new.description:
            new = ObjectDescription(new.name, old.description)
        objects = [new if name_key(kept.name) == name_key(old.name) else kept for kept in objects]
        edits.append(Edit("change", old.name, old, new, None, tuple(words_of(str(new)))))
    for text in add:
        new = ObjectDescription.parse(text)
        if before is not None and before.find(new.name) is not None:
            raise ValueError(f"{new.name!r} is already in the paragraph; give what is added another name, or change it")
        _once(new.name, seen)
        objects.append(new)
        edits.append(Edit("add", new.name, None, new, None, tuple(words_of(str(new)))))
    if not edits:
        raise ValueError("there is nothing to edit: name something to remove, add or change")
    after = Paragraph(before.description, tuple(objects)) if before is not None else None
    return EditPlan(tuple(edits), False, ()), after


def _known(name: str, before: Paragraph | None, seen: dict[str, str]) -> ObjectDescription:
    found = ObjectDescription(name, "") if before is None else before.find(name)
    if found is None:
        assert before is not None
        near = difflib.get_close_matches(name, before.names, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"there is no {name!r} in the paragraph, it has {', '.join(before.names) or 'no object'}{hint}"
        )
    _once(found.name, seen)
    return found


def _once(name: str, seen: dict[str, str]) -> None:
    if name_key(name) in seen:
        raise ValueError(f"{name!r} is named by two edits; say one edit for each object")
    seen[name_key(name)] = name
