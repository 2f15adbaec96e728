"""The editor: plan, masks, paint, paste back, measure.

It knows no model: every part stands behind a Protocol of `raccoon.interfaces`. It holds the preservation contract
itself, so that no painter can break it: what lies outside the grown and feathered mask is the source's own pixels.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raccoon import recipes
from raccoon.editor.paste import (
    ContractBroken,
    Measurements,
    SoftMask,
    changed_fraction,
    max_error_outside,
    paste_back,
)
from raccoon.editor.regions import given_masks, prepare_step
from raccoon.editor.request import (
    PARTS,
    EditorSettings,
    EditProgress,
    EditRequest,
    EditResult,
    EditStep,
    PartError,
    Preparation,
    at_work,
)
from raccoon.interfaces import (
    Describer,
    DescribeRequest,
    Description,
    Grounder,
    LayoutPlanner,
    Painter,
    PaintRequest,
)
from raccoon.plan import EditPlan, diff
from raccoon.provenance import describe_part
from raccoon_datamodules.paragraph import Paragraph


class Editor:
    """Edits a video by its paragraph.

    ``painter`` fills the masked regions; ``grounder`` finds the mask of an object that is named, ``layout_planner``
    places an added one, ``describer`` writes the paragraph before: each is needed only where the request does not
    bring what it would find. ``settings``: see `EditorSettings`.

    Example::

        editor = Editor.from_recipe("pipeline/classical")
        result = editor.edit(EditRequest(video=video, before=before, after=after, masks=masks))
        write_result(result, Path("out.mp4"))

    Raises:
        TypeError: if a part does not offer what its plug point needs.
    """

    def __init__(
        self,
        painter: Painter,
        *,
        grounder: Grounder | None = None,
        layout_planner: LayoutPlanner | None = None,
        describer: Describer | None = None,
        settings: EditorSettings | None = None,
    ) -> None:
        self.painter = painter
        self.grounder = grounder
        self.layout_planner = layout_planner
        self.describer = describer
        self.settings = settings or EditorSettings()
        self.recipe: recipes.Recipe | None = None
        for part, protocol in (
            (painter, Painter),
            (grounder, Grounder),
            (layout_planner, LayoutPlanner),
            (describer, Describer),
        ):
            if part is not None:
                recipes.check(part, protocol)

    @classmethod
    def from_recipe(
        cls, recipe: str | Path | dict[str, Any], overlays: Sequence[str | Path] = (), overrides: Sequence[str] = ()
    ) -> "Editor":
        """Build the editor that a pipeline recipe describes; the arguments are those of `raccoon.recipes.build`.

        Raises:
            ValueError: if the recipe names no painter, or as `raccoon.recipes.build` says.
        """
        built = recipes.build(recipe, overlays, overrides, settings={"editor": EditorSettings})
        if "painter" not in built.parts:
            raise ValueError(f"{built.source}: a pipeline recipe needs the section painter (class_path and init_args)")
        parts = {name: built.parts.get(name) for name in ("grounder", "layout_planner", "describer")}
        editor = cls(built.parts["painter"], **parts, settings=built.settings["editor"])
        editor.recipe = built
        return editor

    def prepare(self, request: EditRequest, *, progress: EditProgress | None = None) -> Preparation:
        """Plan the edits and find and check their masks; nothing is painted.

        Raises:
            ValueError: if there is nothing to edit, the painter cannot do one of the edits, or a mask is missing or
                wrong.
            PartError: if a part does not return what its plug point promises.
        """
        before, plan = self._plan(request)
        self._check_kinds(plan)
        given = given_masks(plan, request.masks)
        grow_by, _ = self.settings.pixels(request.video.size)
        steps = []
        for number, edit in enumerate(plan.edits):
            if progress is not None:
                progress(f"finding {edit.name}", number, len(plan.edits))
            step = prepare_step(
                edit,
                request,
                given.get(number),
                grounder=self.grounder,
                layout_planner=self.layout_planner,
                grow_by=grow_by,
            )
            steps.append(self._with_remarks(step, request))
        return Preparation(before, request.after, plan, tuple(steps))

    def edit(
        self,
        request: EditRequest,
        *,
        prepared: Preparation | None = None,
        progress: EditProgress | None = None,
    ) -> EditResult:
        """Edit a video; several edits are applied in order, each on the result of the one before.

        ``prepared`` is what `prepare` returned for this request, if it was called. ``progress`` is called with the
        stage and how much of it is done.

        Raises:
            ValueError: as `prepare` says.
            PartError: if the painter returns something else than frames uint8 [F, H, W, 3].
            ContractBroken: if anything outside the region changed.
        """
        started = time.perf_counter()
        seconds = {"paint": 0.0, "paste": 0.0}
        if prepared is None:
            prepared = self.prepare(request, progress=progress)
            seconds = {"prepare": time.perf_counter() - started, **seconds}
        video = request.video
        grow_by, feather_by = self.settings.pixels(video.size)
        frames = video.frames
        region = np.zeros(frames.shape[:3], dtype=np.uint8)
        for step in prepared.steps:
            started = time.perf_counter()
            soft = SoftMask.of(step.mask, grow_by, feather_by)
            region |= soft.touched
            seconds["paste"] += time.perf_counter() - started
            started = time.perf_counter()
            painted = self._paint(step, frames, soft.touched, request, progress)
            seconds["paint"] += time.perf_counter() - started
            started = time.perf_counter()
            frames = paste_back(frames, painted, soft.alpha())
            seconds["paste"] += time.perf_counter() - started
        started = time.perf_counter()
        error = max_error_outside(video.frames, frames, region)
        changed = changed_fraction(video.frames, frames)
        seconds["measure"] = time.perf_counter() - started
        if error:
            raise ContractBroken(f"frames changed by up to {error} of 255 outside the mask, where 0 is allowed")
        return EditResult(
            video=video.with_frames(frames),
            source=video,
            plan=prepared.plan,
            steps=prepared.steps,
            region=region,
            measurements=Measurements(error, float(region.mean()), changed, seconds),
            before=prepared.before,
            after=prepared.after,
            seed=request.seed,
            size=request.size,
            options=request.options,
            grow=grow_by,
            feather=feather_by,
            facts=self._facts(),
        )

    def _plan(self, request: EditRequest) -> tuple[Paragraph | None, EditPlan]:
        before, plan = request.before, request.plan
        if plan is None:
            if request.after is None:
                raise ValueError("there is nothing to edit by: give the paragraph after the edit, or a plan")
            before = before or self._describe(request)
            plan = diff(before, request.after, layouts=request.layouts, decisions=request.decisions)
        if not plan.edits:
            why = "; ".join(plan.notes) or "both paragraphs have the same objects"
            raise ValueError(f"the plan has no edit: {why}; delete, add or change the line of an object")
        return before, plan

    def _describe(self, request: EditRequest) -> Paragraph:
        if self.describer is None:
            raise ValueError(
                "the paragraph before the edit is needed, and this recipe has no describer to write it; give it, or "
                "say the edit itself (--remove, --add, --change)"
            )
        with at_work(self.describer, "describing the video"):
            description = self.describer.describe(
                DescribeRequest(request.video, options=request.options.get("describer", {}))
            )
        if not isinstance(description, Description):
            raise PartError(
                f"{type(self.describer).__name__}.describe must return a Description, got {type(description).__name__}"
            )
        return description.paragraph

    def _check_kinds(self, plan: EditPlan) -> None:
        kinds = self.painter.kinds
        if refused := [edit for edit in plan.edits if edit.kind not in kinds]:
            wanted = " and ".join(f"{edit.kind} {edit.name!r}" for edit in refused)
            recipe = f" of the recipe {self.recipe.source}" if self.recipe is not None else ""
            raise ValueError(
                f"the painter {type(self.painter).__name__}{recipe} can {', '.join(sorted(kinds)) or 'do nothing'}, "
                f"it cannot {wanted}; choose a recipe whose painter can (--config)"
            )

    def _with_remarks(self, step: EditStep, request: EditRequest) -> EditStep:
        """Note what the painter says beforehand of its result, where it offers that (see `Painter`)."""
        remarks = getattr(self.painter, "remarks", None)
        if remarks is None:
            return step
        with at_work(self.painter, f"looking at {step.edit.name!r}"):
            said = tuple(f"{step.edit.name}: {remark}" for remark in remarks(request.video, step.mask))
        return replace(step, notes=(*step.notes, *said))

    def _paint(
        self,
        step: EditStep,
        frames: NDArray[np.uint8],
        touched: NDArray[np.uint8],
        request: EditRequest,
        progress: EditProgress | None,
    ) -> NDArray[np.uint8]:
        def report(done: int, total: int) -> None:
            if progress is not None:
                progress(f"painting {step.edit.name}", done, total)

        # A copy, so that a painter that works in place cannot reach the frames that the result is measured against.
        asked = PaintRequest(
            video=request.video.with_frames(frames.copy()),
            mask=touched.copy(),
            prompt=step.prompt,
            kind=step.edit.kind,
            layout=step.layout,
            seed=request.seed,
            size=request.size,
            progress=report,
            options=request.options.get("painter", {}),
        )
        with at_work(self.painter, f"painting {step.edit.name!r}"):
            painted = self.painter.paint(asked)
        name = type(self.painter).__name__
        if not isinstance(painted, np.ndarray):
            raise PartError(f"{name}.paint must return a numpy array uint8 [F, H, W, 3], got {type(painted).__name__}")
        if painted.shape != frames.shape or painted.dtype != np.uint8:
            broken = " with values that are not finite" if _has_nonfinite(painted) else ""
            raise PartError(
                f"{name}.paint must return frames uint8 {list(frames.shape)}, "
                f"got {painted.dtype} {list(painted.shape)}{broken}"
            )
        return painted

    def _facts(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in PARTS}
        return {
            "recipe": None if self.recipe is None else {"name": self.recipe.source, "config": dict(self.recipe.config)},
            "parts": {name: describe_part(part) for name, part in parts.items() if part is not None},
        }


def _has_nonfinite(array: NDArray[Any]) -> bool:
    return array.dtype.kind == "f" and not bool(np.isfinite(array).all())
