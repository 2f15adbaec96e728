"""Edits said directly: ``--remove NAME``, ``--add "Name: ..."``, ``--change "Name -> New name: ..."``."""

from collections.abc import Mapping, Sequence

from raccoon.plan import EditPlan, plan_flags
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph


def plan_of_words(
    *,
    before: Paragraph | None = None,
    remove: Sequence[str] = (),
    add: Sequence[str] = (),
    change: Sequence[str] = (),
    layouts: Mapping[str, Layout] | None = None,
) -> tuple[EditPlan, Paragraph | None]:
    """Return the plan that the given words ask for, and the paragraph after it (None where there is none before).

    With the paragraph ``before`` this is `raccoon.plan.plan_flags`. Without it the names are taken as they are, so that
    a video with a mask can be edited by somebody who has no paragraph.

    Raises:
        ValueError: if nothing is asked for, a name is not in the paragraph, is already there or is used twice, or the
            text has another form.
    """
    if not (remove or add or change):
        raise ValueError("there is nothing to edit: name something to remove, add or change")
    if before is not None:
        after, plan = plan_flags(before, remove=remove, add=add, change=change, layouts=layouts)
        return plan, after
    # What is to go or to change must be there.
    for text in change:
        if "->" not in text.replace("→", "->"):
            raise ValueError(f"a change must be written 'Old name -> New name: description', got {text!r}")
    names = [*remove, *(text.replace("→", "->").partition("->")[0] for text in change)]
    assumed = Paragraph("", tuple(ObjectDescription(name) for name in names))
    return plan_flags(assumed, remove=remove, add=add, change=change, layouts=layouts)[1], None
