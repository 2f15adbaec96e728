"""The written edits of an annotated clip: a removal and an addition of each object, and changes a model thought of.

Source: RACCooN, section 3.3: removal, addition and change of each object with a mask. Removals and additions follow
from the paragraph and cost no request; for changes, which the paper's authors wrote by hand (A.2), a model can be
asked.
"""

from collections.abc import Mapping

from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.sample import EditPrompt
from raccoon_datamodules.wording import name_key


def without(paragraph: Paragraph, name: str) -> Paragraph:
    """The paragraph without one object's line."""
    return Paragraph(paragraph.description, tuple(o for o in paragraph.objects if name_key(o.name) != name_key(name)))


def simple_edits(paragraph: Paragraph, matches: Mapping[str, str | None]) -> tuple[EditPrompt, ...]:
    """Removal and addition of each object that has a caption; ``matches`` gives the caption's name by object id."""
    edits = []
    for object_id, name in matches.items():
        found = paragraph.find(name) if name else None
        if found is None:
            continue
        rest = without(paragraph, found.name)
        told = f": {found.description.rstrip('.')}" if found.description else ""
        edits.append(EditPrompt("remove", object_id, f"Remove the {found.name}.", paragraph, rest))
        edits.append(EditPrompt("add", object_id, f"Add {found.name}{told}.", rest, paragraph))
    return tuple(edits)


def change_edit(
    paragraph: Paragraph, object_id: str, name: str, instruction: str, changed: ObjectDescription
) -> EditPrompt | None:
    """The edit that puts ``changed`` in the place of one object, or None if its name is another object's already."""
    after = [changed if name_key(o.name) == name_key(name) else o for o in paragraph.objects]
    if len({name_key(item.name) for item in after}) < len(after):
        return None
    return EditPrompt("change", object_id, instruction, paragraph, Paragraph(paragraph.description, tuple(after)))
