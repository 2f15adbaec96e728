"""A sample's members with its annotation put in: clips and masks stay as they are, byte for byte."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from raccoon_datamodules import members
from raccoon_datamodules.annotate.annotator import Annotation, Clip
from raccoon_datamodules.annotate.frame_grid import uniform_indices
from raccoon_datamodules.annotate.standing import free_name, standing_of
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.sample import EditPrompt, edit_to_json
from raccoon_datamodules.view import MemberView


def is_described(view: MemberView) -> bool:
    """Whether a sample has its text already: a video description, and one of each object that has a mask.

    Needs ``meta.json``, ``paragraph.json`` and the objects' records.
    """
    if view.meta.extra.get("annotation") in ("none", "partial"):
        return False
    reference = view.paragraphs()[0]
    return bool(reference.description) and all(view.object(name).description for name in view.meta.objects)


def clip_of(view: MemberView, num_frames: int, masks: Callable[[str], MemberView], *, anew: bool = False) -> Clip:
    """What the annotator sees of a sample; ``masks`` gives a view that has an object's mask, when it is needed.

    With ``anew`` it does not see what is said of the sample already, and writes all of it.
    """
    indices = tuple(uniform_indices(view.num_frames, num_frames))
    return Clip(
        key=view.key,
        frames=view.clip(indices),
        indices=indices,
        objects=tuple(view.object(object_id) for object_id in view.meta.objects),
        mask=lambda object_id: masks(object_id).mask(object_id, indices),
        standing=None if anew else standing_of(view),
    )


def annotated_members(
    data: Mapping[str, bytes], annotation: Annotation, *, by: Mapping[str, Any], keep_unmatched: bool = False
) -> dict[str, bytes]:
    """The members of a sample (suffix to bytes) with the annotation in the place of what they said before.

    ``by`` says who annotated, for ``meta.json``, beside what the sample said itself and kept. An object that no caption
    is about is left out with its mask, as in the paper, or kept under its own name, without a description, with
    ``keep_unmatched`` or where a written edit that stands is about it. Further phrasings stand unless a person wrote
    the paragraph anew.

    Raises:
        MemberError: if a member is missing or damaged.
    """
    view = MemberView(data)
    by_suffix = {suffix.lower(): suffix for suffix in data}
    stood = annotation.standing
    edited = {edit.object_id for edit in annotation.edits}
    kept = [i for i in view.meta.objects if keep_unmatched or annotation.matches.get(i) or i in edited]
    paragraph, names = _with_unmatched(annotation, view, kept)
    edits = [edit for edit in annotation.edits if edit.object_id in kept]
    told = [_completed(edit, annotation.paragraph, paragraph, names[edit.object_id]) for edit in edits]
    said = {} if stood is None else {"kept": stood.to_json()}
    extra = {**view.meta.extra, "annotation": {**by, "corrected": annotation.is_corrected, **said}}
    phrasings = () if stood is None or annotation.is_corrected else stood.phrasings
    texts = {
        "paragraph": members.paragraph_to_json(paragraph),
        "phrasings": [members.paragraph_to_json(one) for one in phrasings],
    }
    out = {
        members.META: members.dump_meta(replace(view.meta, objects=tuple(kept), extra=extra)),
        members.PARAGRAPH: members.dump_json(texts, members.PARAGRAPH),
        members.EDITS: members.dump_json([edit_to_json(edit) for edit in told], members.EDITS),
        members.VIDEO: view.bytes_of(members.VIDEO),
    }
    for object_id in kept:
        info = view.object(object_id)
        found = paragraph.find(names[object_id])
        description = found.description if found else ""
        if stood is not None and object_id in stood.told and not annotation.is_corrected:
            description = info.description or description
        info = replace(info, name=names[object_id], description=description)
        out[members.object_suffix("object", object_id)] = members.dump_object(info)
        for kind in ("mask", "inpainted"):
            suffix = members.object_suffix(kind, object_id)
            if suffix.lower() in by_suffix:
                out[suffix] = view.bytes_of(suffix)
    others = (suffix for suffix in data if suffix.lower() not in {name.lower() for name in out})
    out.update({suffix: data[suffix] for suffix in others if members.parse_suffix(suffix) is None})
    return out


def _with_unmatched(annotation: Annotation, view: MemberView, kept: list[str]) -> tuple[Paragraph, dict[str, str]]:
    """The paragraph with a line for each kept object that has none, and the name of each kept object."""
    objects, names = list(annotation.paragraph.objects), {}
    for object_id in kept:
        name = annotation.matches.get(object_id)
        if not name:
            bare = "" if annotation.standing is None else annotation.standing.bare.get(object_id, "")
            found = annotation.paragraph.find(bare) if bare else None
            if found is None or found.description:
                found = ObjectDescription(free_name(view.object(object_id).name, object_id, objects))
                objects.append(found)
            name = found.name
        names[object_id] = name
    return Paragraph(annotation.paragraph.description, tuple(objects)), names


def _completed(edit: EditPrompt, before: Paragraph, after: Paragraph, own: str) -> EditPrompt:
    """The edit with the lines that the paragraph gained; ``own`` is the name of its object."""
    gained = after.objects[len(before.objects) :]

    def complete(side: Paragraph, is_without: bool) -> Paragraph:
        more = (item for item in gained if side.find(item.name) is None and not (is_without and item.name == own))
        return Paragraph(side.description, (*side.objects, *more))

    return replace(
        edit, before=complete(edit.before, edit.kind == "add"), after=complete(edit.after, edit.kind != "add")
    )
