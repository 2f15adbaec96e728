"""Asking the parts: one function a plug point, from a part and held-out scenes to scores, one a scene.

A part is asked for many clips at once where it offers ``describe_batch`` or ``plan_batch`` (a list of requests to a
list of results in their order), else clip by clip. A floor is a part like any other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from raccoon.editor import Editor, EditRequest
from raccoon.evaluation.figures import Scores
from raccoon.evaluation.measures import (
    box_iou,
    dominant_colour,
    mask_iou,
    match_objects,
    parses,
    psnr_inside,
    read_thing,
)
from raccoon.evaluation.scenes import EditCase, HeldOut
from raccoon.interfaces import (
    Describer,
    DescribeRequest,
    Description,
    Grounder,
    GroundRequest,
    LayoutPlanner,
    Painter,
    PlanRequest,
)
from raccoon.plan import EditPlan
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.masks import Masks
from raccoon_datamodules.paragraph import Paragraph
from raccoon_datamodules.synthetic.vocabulary import difficulty_named

Q = TypeVar("Q")
R = TypeVar("R")
Step = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class StageScores:
    """The scores of a stage by figure, the scenes' keys in their order, and notes on what failed."""

    scores: dict[str, Scores]
    keys: tuple[str, ...]
    notes: tuple[str, ...] = ()
    answers: tuple[Any, ...] = field(default=())


def describe(
    describer: Describer, scenes: Sequence[HeldOut], *, batch_size: int = 16, step: Step | None = None
) -> StageScores:
    """Have every scene described; figures recall, precision, recall_category, colour and parse_paragraph.

    An answer that the describer fails to give (ValueError) is one that does not parse and names nothing.
    """
    requests = [DescribeRequest(scene.sample.video) for scene in scenes]
    answers, notes = _ask(describer, "describe", requests, Description, batch_size, step)
    return judge_descriptions(answers, scenes, notes=notes)


def judge_descriptions(
    answers: Sequence[Description | None], scenes: Sequence[HeldOut], *, notes: Sequence[str] = ()
) -> StageScores:
    """Score descriptions against the scenes they are held to be of."""
    matches = [
        match_objects(
            [read_thing(item) for item in _paragraph(answer).objects],
            [read_thing(item) for item in scene.sample.paragraph.objects],
        )
        for answer, scene in zip(answers, scenes, strict=True)
    ]
    both = tuple(float(match.both) for match in matches)
    category = tuple(float(match.category) for match in matches)
    present = tuple(float(match.present) for match in matches)
    return StageScores(
        {
            "recall": Scores(both, present),
            "precision": Scores(both, tuple(float(match.named) for match in matches)),
            "recall_category": Scores(category, present),
            "colour": Scores(both, category),
            "parse_paragraph": Scores.mean_of([answer is not None and parses(answer.raw) for answer in answers]),
        },
        tuple(scene.sample.key for scene in scenes),
        tuple(notes),
        tuple(answers),
    )


def plan_layouts(
    planner: LayoutPlanner, scenes: Sequence[HeldOut], *, batch_size: int = 16, step: Step | None = None
) -> StageScores:
    """Have each target placed in the clip without it; figures box_iou and parse_layout.

    A plan parses if it is a `Layout` with a row for every frame and the object in one of them.
    """
    requests = [PlanRequest(scene.without_target, scene.target_entry) for scene in scenes]
    answers, notes = _ask(planner, "plan", requests, Layout, batch_size, step)
    good = [
        answer is not None and answer.num_frames == scene.sample.video.num_frames and bool(answer.present.any())
        for answer, scene in zip(answers, scenes, strict=True)
    ]
    ious = [
        box_iou(answer, scene.target.boxes) if fits and answer is not None else 0.0
        for answer, scene, fits in zip(answers, scenes, good, strict=True)
    ]
    scores = {"box_iou": Scores.mean_of(ious), "parse_layout": Scores.mean_of(good)}
    return StageScores(scores, tuple(scene.sample.key for scene in scenes), tuple(notes), tuple(answers))


def ground(grounder: Grounder, scenes: Sequence[HeldOut], *, step: Step | None = None) -> StageScores:
    """Have each target found by its name and description, as an edit would; figure mask_iou."""
    requests = [
        GroundRequest(scene.sample.video, (scene.target.name,), (scene.target.description,)) for scene in scenes
    ]
    answers, notes = _ask(grounder, "ground", requests, Masks, 1, step)
    ious = [
        0.0 if answer is None else mask_iou(answer.data, scene.target.mask)
        for answer, scene in zip(answers, scenes, strict=True)
    ]
    keys = tuple(scene.sample.key for scene in scenes)
    return StageScores({"mask_iou": Scores.mean_of(ious)}, keys, tuple(notes))


def paint(
    painter: Painter | Sequence[Painter],
    cases: Sequence[EditCase],
    editor: Editor,
    difficulty: str,
    *,
    step: Step | None = None,
) -> StageScores:
    """Make edits of one kind with the true masks; figure psnr or shown, and max_error.

    The painter (or one for each case) stands in an editor with ``editor``'s settings, so that masks grow and results
    are pasted back as they always are. Measured inside the given mask, before any encoding.

    Raises:
        ContractBroken: if anything outside the region changed.
    """
    painters = [painter] * len(cases) if not isinstance(painter, Sequence) else painter
    colours = difficulty_named(difficulty).colours
    figures: list[float] = []
    errors: list[float] = []
    for number, (case, one) in enumerate(zip(cases, painters, strict=True)):
        request = EditRequest(
            video=case.source,
            plan=EditPlan((case.edit,)),
            masks=Masks(case.mask),
            trust_masks=True,
            seed=case.seed,
        )
        result = Editor(one, settings=editor.settings).edit(request)
        frames = result.video.frames
        errors.append(float(result.measurements.max_error_outside))
        if case.colour is None:
            figures.append(psnr_inside(frames, case.truth, case.mask))
        else:
            figures.append(float(dominant_colour(frames, case.background, case.mask, colours) == case.colour))
        if step is not None:
            step(number + 1, len(cases))
    name = "psnr" if cases[0].colour is None else "shown"
    scores = {name: Scores.mean_of(figures), "max_error": Scores.mean_of(errors)}
    return StageScores(scores, tuple(case.key for case in cases))


def judge_truth(cases: Sequence[EditCase], difficulty: str) -> Scores:
    """Score the true results of additions or changes: how far the measure itself can be trusted."""
    colours = difficulty_named(difficulty).colours
    return Scores.mean_of(
        [dominant_colour(case.truth, case.background, case.mask, colours) == case.colour for case in cases]
    )


def _ask(
    part: Any, method: str, requests: Sequence[Q], wanted: type[R], batch_size: int, step: Step | None
) -> tuple[list[R | None], list[str]]:
    """Answer every request; None where the part raised ValueError, which is counted and noted."""
    many = getattr(part, f"{method}_batch", None)
    size = max(1, batch_size) if callable(many) else 1
    answers: list[R | None] = []
    failures: list[str] = []
    for start in range(0, len(requests), size):
        asked = requests[start : start + size]
        try:
            found = list(many(asked)) if many is not None else [getattr(part, method)(asked[0])]
        except ValueError as err:
            # One bad clip must not take its batch with it.
            found = [_one(part, method, request, failures) for request in asked] if len(asked) > 1 else [None]
            failures += [str(err)] if len(asked) == 1 else []
        name = f"{type(part).__name__}.{method}"
        if len(found) != len(asked):
            raise TypeError(f"{name}_batch must return one answer a request, got {len(found)} for {len(asked)}")
        for answer in found:
            if answer is not None and not isinstance(answer, wanted):
                raise TypeError(f"{name} must return a {wanted.__name__}, got {type(answer).__name__}")
        answers += found
        if step is not None:
            step(len(answers), len(requests))
    notes = []
    if failures:
        notes.append(
            f"{type(part).__name__}.{method} failed on {len(failures)} of {len(requests)} clips, which count as "
            f"misses; the first time: {' '.join(failures[0].split())}"
        )
    return answers, notes


def _one(part: Any, method: str, request: Any, failures: list[str]) -> Any:
    try:
        return getattr(part, method)(request)
    except ValueError as err:
        failures.append(str(err))
        return None


def _paragraph(answer: Description | None) -> Paragraph:
    return Paragraph("") if answer is None else answer.paragraph


def joined(parts: Sequence[Scores]) -> Scores:
    """Average several runs over the same scenes, score by score."""
    numerators = np.mean([part.numerators for part in parts], axis=0)
    denominators = np.mean([part.denominators for part in parts], axis=0)
    return Scores(tuple(numerators.tolist()), tuple(denominators.tolist()))
