"""Where each edit happens: the mask that was given, found by the grounder, or filled in from a layout."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from raccoon.editor.request import EditRequest, EditStep, MaskSource, PartError, at_work
from raccoon.interfaces import Grounder, GroundRequest, LayoutPlanner, PlanRequest
from raccoon.plan import Edit, EditPlan
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.masks import Masks, check, grow, mask_of_boxes
from raccoon_datamodules.paragraph import ObjectDescription
from raccoon_datamodules.video import Video
from raccoon_datamodules.wording import name_key

# The painter was trained with this one prompt for removals.
REMOVAL_PROMPT = "inpainted background"


def prompt_of(edit: Edit) -> str:
    """Return what is to be painted: the fixed removal prompt, or the new object with its description."""
    if edit.kind == "remove":
        return REMOVAL_PROMPT
    return str(_object_after(edit)).removesuffix(":")


def given_masks(plan: EditPlan, masks: Masks | Mapping[str, Masks] | None) -> dict[int, Masks]:
    """Return the given masks by the number of their edit in the plan.

    Raises:
        ValueError: if one mask is given for several edits, or a name belongs to no edit or to several.
    """
    if masks is None:
        return {}
    names = ", ".join(repr(edit.name) for edit in plan.edits)
    if isinstance(masks, Masks):
        if len(plan.edits) > 1:
            raise ValueError(
                f"one mask cannot stand for {len(plan.edits)} edits ({names}); "
                "give one edit at a time, or a mask for each (--mask NAME=PATH)"
            )
        return {0: masks}
    found: dict[int, Masks] = {}
    for name, mask in masks.items():
        matching = [number for number, edit in enumerate(plan.edits) if name_key(name) in _keys(edit)]
        if len(matching) != 1:
            belongs = "to several edits" if matching else "to no edit"
            raise ValueError(
                f"the mask {name!r} belongs {belongs}; the edits are {names}: name its mask after one of them"
            )
        if matching[0] in found:
            raise ValueError(f"{plan.edits[matching[0]].name!r} has two masks; unite them and give one")
        found[matching[0]] = mask
    return found


def prepare_step(
    edit: Edit,
    request: EditRequest,
    given: Masks | None,
    *,
    grounder: Grounder | None,
    layout_planner: LayoutPlanner | None,
    grow_by: int,
) -> EditStep:
    """Find the mask of one edit and check it, before compute is spent on it; ``grow_by`` is what it will be grown by.

    Raises:
        ValueError: if there is no mask and nobody to find one, or if the mask is wrong (size, count, polarity, empty).
        PartError: if a grounder or layout planner returns something else than its plug point promises.
    """
    video = request.video
    layout = edit.layout
    source: MaskSource = "given"
    maker = "the mask"
    if given is not None:
        mask = given.data
    elif edit.kind != "add" and grounder is not None:
        source, maker = "grounder", f"the mask that {_class_of(grounder)} found"
        mask = _ground(edit, request, grounder)
    elif edit.kind == "add" and (layout is not None or layout_planner is not None):
        source, maker = "layout", "the mask of the layout"
        if layout is None:
            assert layout_planner is not None
            layout = _place(edit, request, layout_planner)
        mask = _mask_of_layout(layout, video)
    else:
        part = "layout planner" if edit.kind == "add" else "grounder"
        raise ValueError(
            f"there is no mask to {edit.kind} {edit.name!r} by, and the recipe has no {part} to find one; "
            "give the mask (--mask PATH)"
        )
    findings = check(mask, num_frames=video.num_frames, height=video.height, width=video.width)
    # Who edits the background on purpose has a mask that looks inverted.
    trusted = ("inverted", "full") if request.trust_masks else ()
    wrong = [finding for finding in findings if finding.severity == "error" and finding.code not in trusted]
    if wrong:
        way_out = "" if any(finding.code not in ("inverted", "full") for finding in wrong) else "; if it is meant so, "
        way_out += "pass --trust-mask" if way_out else ""
        messages = "; ".join(finding.message for finding in wrong)
        raise ValueError(f"{maker} of {edit.name!r} cannot be used: {messages}{way_out}")
    # Growing closes small holes; only those that stay are worth a note.
    strange = [finding for finding in findings if finding.code != "holes"]
    if len(strange) < len(findings):
        grown = check(grow(mask, grow_by), num_frames=video.num_frames, height=video.height, width=video.width)
        strange += [finding for finding in grown if finding.code == "holes"]
    notes = tuple(f"{edit.name}: {finding.message}" for finding in strange)
    paths = {name_key(name): path for name, path in request.mask_paths.items()}
    path = next((paths[key] for key in (*_keys(edit), "") if key in paths), None) if source == "given" else None
    return EditStep(edit, mask, source, prompt_of(edit), layout=layout, mask_path=path, notes=notes)


def _ground(edit: Edit, request: EditRequest, grounder: Grounder) -> NDArray[np.uint8]:
    known = edit.before or edit.after
    name, description = (known.name, known.description) if known is not None else (edit.name, "")
    with at_work(grounder, f"finding {name!r}"):
        found = grounder.ground(
            GroundRequest(request.video, (name,), (description,), options=request.options.get("grounder", {}))
        )
    wanted = (request.video.num_frames, *request.video.size)
    if not isinstance(found, Masks) or found.data.shape != wanted:
        came = list(found.data.shape) if isinstance(found, Masks) else type(found).__name__
        raise PartError(f"{_class_of(grounder)}.ground must return Masks {list(wanted)}, got {came}; mend the grounder")
    if not found.data.any():
        raise ValueError(
            f"{_class_of(grounder)} found no {edit.name!r} in the video; "
            "name it otherwise or give its mask (--mask PATH)"
        )
    return found.data


def _place(edit: Edit, request: EditRequest, planner: LayoutPlanner) -> Layout:
    with at_work(planner, f"placing {edit.name!r}"):
        layout = planner.plan(
            PlanRequest(request.video, _object_after(edit), options=request.options.get("layout_planner", {}))
        )
    if not isinstance(layout, Layout):
        raise PartError(f"{_class_of(planner)}.plan must return a Layout, got {type(layout).__name__}")
    if layout.boxes.shape != (request.video.num_frames, 4):
        raise PartError(
            f"{_class_of(planner)}.plan must return boxes [{request.video.num_frames}, 4], "
            f"got {list(layout.boxes.shape)}"
        )
    return layout


def _mask_of_layout(layout: Layout, video: Video) -> NDArray[np.uint8]:
    if len(layout.boxes) != video.num_frames:
        raise ValueError(
            f"the layout of {layout.name!r} must have a box for each of the {video.num_frames} frames, "
            f"got {len(layout.boxes)}"
        )
    return mask_of_boxes(layout.boxes, height=video.height, width=video.width)


def _object_after(edit: Edit) -> ObjectDescription:
    return edit.after if edit.after is not None else ObjectDescription(edit.name, "")


def _keys(edit: Edit) -> list[str]:
    names = [edit.name, *(known.name for known in (edit.before, edit.after) if known is not None)]
    return [name_key(name) for name in names]


def _class_of(part: object) -> str:
    return type(part).__name__
