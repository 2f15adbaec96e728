"""Evaluating a pipeline recipe on held-out scenes: every figure beside its floor and its ceiling.

The scenes are those of the split "test", from its first on; what is drawn (which object is asked about, the floors'
answers, the painter's noise, the resamples) comes from the seed. So the same recipe and weights give the same table.

For edits the true masks are given, and the true boxes for additions, so that the painter alone is judged.
Source: RACCooN, section 4 ("the same ground truth masks" for all methods); figures and bars are this project's.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from raccoon import provenance
from raccoon.editor import Editor
from raccoon.evaluation import floors, specs, stages
from raccoon.evaluation.bootstrap import CONFIDENCE, RESAMPLES, Interval, ratio_interval
from raccoon.evaluation.figures import Evaluation, Figure, Reference, Scores
from raccoon.evaluation.scenes import EditCase, HeldOut, SceneShape, edit_cases, held_out
from raccoon.evaluation.stages import StageScores
from raccoon.evaluation.untrained import untrained_copy
from raccoon.models.propagation import MedianTeleaPainter
from raccoon.testing import ConstantPainter
from raccoon_datamodules.sample import EditKind
from raccoon_datamodules.synthetic.vocabulary import COLOURS, difficulty_named

# title, done, all
Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """The plain settings of an evaluation; the section ``evaluation`` of an eval recipe.

    ``pipeline`` the recipe that is evaluated; ``num_scenes`` for describing, grounding and planning; ``num_edits`` of
    each kind; ``num_untrained`` scenes (and edits) that the untrained floor is measured on, 0 = none; ``difficulty``,
    ``num_frames``, ``size`` (height, width), ``fps`` of the scenes; ``seed``; ``resamples`` of the bootstrap;
    ``floor_repeats`` runs that a random floor is averaged over; ``batch_size`` clips that a part is asked about at
    once, where it can be.

    Raises:
        ValueError: if a number is out of range.
    """

    pipeline: str = "pipeline/tiny"
    num_scenes: int = 200
    num_edits: int = 24
    num_untrained: int = 40
    difficulty: str = "easy"
    num_frames: int = 8
    size: tuple[int, int] = (64, 64)
    fps: float = 8.0
    seed: int = 0
    resamples: int = RESAMPLES
    floor_repeats: int = 10
    batch_size: int = 16

    def __post_init__(self) -> None:
        least = dict.fromkeys(("num_scenes", "num_edits", "num_frames", "resamples", "floor_repeats", "batch_size"), 1)
        for name, bound in {**least, "num_untrained": 0, "seed": 0}.items():
            if getattr(self, name) < bound:
                raise ValueError(f"evaluation.{name} must be at least {bound}, got {getattr(self, name)}")
        difficulty_named(self.difficulty)

    @property
    def shape(self) -> SceneShape:
        """How scenes are drawn."""
        return SceneShape(self.difficulty, self.num_frames, (self.size[0], self.size[1]), self.fps)


@dataclass(slots=True, eq=False)
class _Run:
    """What an evaluation has gathered so far."""

    editor: Editor
    settings: EvaluationSettings
    report: Report
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    scores: dict[str, Scores] = field(default_factory=dict)
    keys: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def step(self, title: str) -> Callable[[int, int], None]:
        """Progress of one stage."""
        return lambda done, total: self.report(title, done, total)

    def interval(self, scores: Scores) -> Interval:
        """A figure's interval; 0 where there was nothing to count, since who names nothing is right about nothing."""
        if not scores.is_countable:
            return Interval(0.0, 0.0, 0.0, len(scores.numerators))
        return ratio_interval(
            scores.numerators,
            scores.denominators,
            resamples=self.settings.resamples,
            confidence=CONFIDENCE,
            seed=self.settings.seed,
        )

    def add(
        self,
        key: str,
        found: StageScores,
        source: str,
        *,
        floors: Mapping[str, Scores | None] | None = None,
        ceilings: Mapping[str, Scores | None] | None = None,
    ) -> None:
        """Add the figure ``key`` from the scores ``source`` of a stage."""
        scores, spec = found.scores[source], specs.SPECS[key]
        if not scores.is_countable:
            self.notes.append(f"{spec.name}: there was nothing to count in any scene, so it stands at 0")
        self.figures.append(
            Figure(
                key=key,
                name=spec.name,
                group=spec.group,
                interval=self.interval(scores),
                unit=spec.unit,
                floors=self._references(floors or {}),
                ceilings=self._references(ceilings or {}),
                bar=spec.bar,
                aim=spec.aim,
            )
        )
        self.scores[key], self.keys[key] = scores, found.keys

    def _references(self, scores: Mapping[str, Scores | None]) -> tuple[Reference, ...]:
        return tuple(Reference(name, self.interval(one)) for name, one in scores.items() if one is not None)


def evaluate(editor: Editor, settings: EvaluationSettings, *, progress: Report | None = None) -> Evaluation:
    """Measure every part that an editor has.

    ``progress`` is called with (what is being done, done, all). A part that is missing is noted and left out.

    Raises:
        ValueError: if the editor has no part that could be evaluated, or as `held_out` says.
        ContractBroken: if an edit changed anything outside its region.
        TypeError: if a part returns something else than its plug point promises.
    """
    run = _Run(editor, settings, progress or (lambda title, done, total: None))
    absent = [name for name in ("describer", "layout_planner", "grounder") if getattr(editor, name) is None]
    scenes: list[HeldOut] = []
    train: list[HeldOut] = []
    if len(absent) < 3:
        scenes = held_out(settings.num_scenes, settings.shape, seed=settings.seed)
        # What floors may know: scenes of the training split.
        train = held_out(64, settings.shape, split="train", seed=settings.seed)
    stages_of: tuple[tuple[str, Callable[[], None]], ...] = (
        ("describer", lambda: _describe(run, scenes)),
        ("layout_planner", lambda: _plan(run, scenes, train)),
        ("grounder", lambda: _ground(run, scenes, train)),
    )
    for name, stage in stages_of:
        if name in absent:
            run.notes.append(f"the recipe has no {name}, so nothing of it was measured")
        else:
            _timed(run, name, stage)
    for kind in get_args(EditKind):
        if kind in editor.painter.kinds:
            _timed(run, kind, lambda kind=kind: _paint(run, kind))  # type: ignore[misc]  # the kind of this round
        else:
            run.notes.append(f"the painter {type(editor.painter).__name__} cannot {kind}")
    return Evaluation(
        figures=tuple(run.figures),
        notes=tuple(run.notes),
        settings=asdict(settings),
        facts=_facts(editor),
        seconds=run.seconds,
        scores=run.scores,
        keys=run.keys,
    )


def _timed(run: _Run, name: str, stage: Callable[[], None]) -> None:
    started = time.perf_counter()
    stage()
    run.seconds[name] = time.perf_counter() - started


def _describe(run: _Run, scenes: Sequence[HeldOut]) -> None:
    settings, describer = run.settings, run.editor.describer
    assert describer is not None
    batch = settings.batch_size
    found = stages.describe(describer, scenes, batch_size=batch, step=run.step("describing"))
    run.notes += found.notes
    blind = [
        stages.describe(floors.RandomDescriber(settings.difficulty, seed=number), scenes)
        for number in range(settings.floor_repeats)
    ]
    # The answers are true of the clip they were written for; moved on by one clip they know only what is usual.
    moved = stages.judge_descriptions((*found.answers[1:], *found.answers[:1]), scenes) if len(scenes) > 1 else None
    untrained = _untrained(run, describer, scenes, lambda part, some: stages.describe(part, some, batch_size=batch))
    for key in ("recall", "precision", "recall_category", "colour"):
        known = {
            specs.RANDOM_WORDS: stages.joined([one.scores[key] for one in blind]),
            specs.OTHER_CLIP: moved.scores[key] if moved else None,
            specs.UNTRAINED: untrained.scores[key] if untrained else None,
        }
        run.add(key, found, key, floors=known)
    run.add("parse_paragraph", found, "parse_paragraph")


def _plan(run: _Run, scenes: Sequence[HeldOut], train: Sequence[HeldOut]) -> None:
    settings, planner = run.settings, run.editor.layout_planner
    assert planner is not None
    batch = settings.batch_size
    found = stages.plan_layouts(planner, scenes, batch_size=batch, step=run.step("planning layouts"))
    run.notes += found.notes
    borrowed = [
        stages.plan_layouts(floors.BorrowedPlanner(train, seed=number), scenes)
        for number in range(settings.floor_repeats)
    ]
    untrained = _untrained(run, planner, scenes, lambda part, some: stages.plan_layouts(part, some, batch_size=batch))
    known = {
        specs.CENTRE: stages.plan_layouts(floors.CentrePlanner.fitted(train), scenes).scores["box_iou"],
        specs.OTHER_BOXES: stages.joined([one.scores["box_iou"] for one in borrowed]),
        specs.UNTRAINED: untrained.scores["box_iou"] if untrained else None,
    }
    run.add("box_iou", found, "box_iou", floors=known)
    run.add("parse_layout", found, "parse_layout")


def _ground(run: _Run, scenes: Sequence[HeldOut], train: Sequence[HeldOut]) -> None:
    grounder = run.editor.grounder
    assert grounder is not None
    found = stages.ground(grounder, scenes, step=run.step("finding masks"))
    run.notes += found.notes
    untrained = _untrained(run, grounder, scenes, stages.ground)
    known = {
        specs.CENTRE: stages.ground(floors.CentreGrounder.fitted(train), scenes).scores["mask_iou"],
        specs.RANDOM_CLUSTER: Scores.mean_of([floors.random_cluster_iou(grounder, scene) for scene in scenes]),
        specs.UNTRAINED: untrained.scores["mask_iou"] if untrained else None,
    }
    best = Scores.mean_of([floors.best_superpixels_iou(grounder, scene) for scene in scenes])
    run.add("mask_iou", found, "mask_iou", floors=known, ceilings={specs.SUPERPIXELS: best})


def _paint(run: _Run, kind: EditKind) -> None:
    settings, editor = run.settings, run.editor
    cases = edit_cases(kind, settings.num_edits, settings.shape, seed=settings.seed)

    def score(painter: Any, some: Sequence[EditCase] = cases, title: str = "") -> StageScores:
        step = run.step(title) if title else None
        return stages.paint(painter, some, editor, settings.difficulty, step=step)

    name = "psnr" if kind == "remove" else "shown"
    found = score(editor.painter, title={"remove": "removing", "add": "adding", "change": "changing"}[kind])
    untrained = _untrained(run, editor.painter, cases, score)
    known: dict[str, Scores | None] = {specs.UNTRAINED: untrained.scores[name] if untrained else None}
    best: dict[str, Scores | None] = {}
    trips = [floors.round_trip_painter(editor.painter, case.truth) for case in cases]
    if all(trip is not None for trip in trips):
        best[specs.ROUND_TRIP] = score([trip for trip in trips if trip is not None]).scores[name]
    if kind == "remove":
        known[specs.LEFT_IN] = score(floors.LeavingPainter()).scores[name]
        known[specs.TELEA] = score(floors.TeleaPainter()).scores[name]
        known[specs.MEDIAN] = score(MedianTeleaPainter()).scores[name]
    else:
        colours = difficulty_named(settings.difficulty).colours
        # Every colour once is the exact expectation of a random one.
        known[specs.RANDOM_COLOUR] = stages.joined(
            [score(ConstantPainter(COLOURS[colour])).scores[name] for colour in colours]
        )
        known[specs.LEFT_IN] = score(floors.LeavingPainter()).scores[name]
        best[specs.TRUTH] = stages.judge_truth(cases, settings.difficulty)
    run.add(f"{kind}_{name}", found, name, floors=known, ceilings=best)
    run.add(f"{kind}_max_error", found, "max_error")


def _untrained(run: _Run, part: Any, items: Sequence[Any], measure: Callable[[Any, Sequence[Any]], Any]) -> Any:
    """Measure an untrained copy on the first items; None where there is nothing to untrain."""
    some = items[: run.settings.num_untrained]
    copied = untrained_copy(part, seed=run.settings.seed) if some else None
    return None if copied is None else measure(copied, some)


def _facts(editor: Editor) -> dict[str, Any]:
    parts = {name: getattr(editor, name) for name in ("painter", "grounder", "layout_planner", "describer")}
    return {
        "recipe": None
        if editor.recipe is None
        else {"name": editor.recipe.source, "config": dict(editor.recipe.config)},
        "parts": {name: provenance.describe_part(part) for name, part in parts.items() if part is not None},
        "versions": provenance.versions(),
        "machine": provenance.machine(),
    }
