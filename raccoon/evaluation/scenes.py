"""The held-out scenes and the questions that are asked of them, all from seeds of the split "test"."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raccoon.plan import Edit
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.masks import mask_of_boxes
from raccoon_datamodules.order import draw
from raccoon_datamodules.paragraph import ObjectDescription
from raccoon_datamodules.sample import EditKind, ObjectRecord, VplmSample
from raccoon_datamodules.synthetic import Scene, make_scene, render_edit, seed_of
from raccoon_datamodules.video import Video

# Scenes looked at for one that allows an edit, before giving up.
_MOST_TRIES = 20


@dataclass(frozen=True, slots=True)
class SceneShape:
    """How scenes are drawn: difficulty, frames, (height, width) in pixels, frames a second."""

    difficulty: str = "easy"
    num_frames: int = 8
    size: tuple[int, int] = (64, 64)
    fps: float = 8.0


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """A scene, its sample with clips without each object, and ``target``, the object that questions are about."""

    scene: Scene
    sample: VplmSample
    target: ObjectRecord

    @property
    def without_target(self) -> Video:
        """The clip without the target."""
        assert self.target.inpainted is not None
        return self.target.inpainted

    @property
    def target_entry(self) -> ObjectDescription:
        """The target's name and description as the paragraph has them."""
        return ObjectDescription(self.target.name, self.target.description)


@dataclass(frozen=True, slots=True, eq=False)
class EditCase:
    """One edit with its true result.

    ``source`` the clip to edit; ``edit`` with the true boxes as layout where something is added; ``mask`` uint8 {0, 1}
    [F, H, W], the true mask, or the true boxes of what is added; ``truth`` uint8 [F, H, W, 3]; ``background`` the clip
    without the object; ``colour`` the asked one, None for a removal; ``seed`` for the painter.
    """

    key: str
    source: Video
    edit: Edit
    mask: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    background: NDArray[np.uint8]
    colour: str | None
    seed: int


def held_out(count: int, shape: SceneShape, *, split: str = "test", seed: int = 0) -> list[HeldOut]:
    """Draw the first ``count`` scenes of a split; the target of each is drawn among its objects by ``seed``.

    Raises:
        ValueError: if count is not positive, or as `make_scene` and `Scene.render` say.
    """
    if count < 1:
        raise ValueError(f"there must be at least 1 scene to evaluate on, got {count}")
    return [_drawn(number, shape, split, seed) for number in range(count)]


def _drawn(number: int, shape: SceneShape, split: str, seed: int) -> HeldOut:
    scene = make_scene(seed_of(split, number), shape.difficulty)
    sample = scene.render(num_frames=shape.num_frames, size=shape.size, fps=shape.fps)
    which = int(draw(seed, number, "evaluation/target").integers(len(sample.objects)))
    return HeldOut(scene, sample, sample.objects[which])


def edit_cases(kind: EditKind, count: int, shape: SceneShape, *, seed: int = 0) -> list[EditCase]:
    """Return the first ``count`` edits of a kind, one a scene; a change is one of colour.

    Raises:
        ValueError: if so many scenes do not allow such an edit.
    """
    cases: list[EditCase] = []
    for found in _candidates(count, shape, seed):
        case = _case(kind, found, seed=len(cases))
        if case is not None:
            cases.append(case)
        if len(cases) == count:
            return cases
    raise ValueError(
        f"only {len(cases)} of {_MOST_TRIES * count} scenes allow the edit {kind!r}, {count} were asked for"
    )


def _candidates(count: int, shape: SceneShape, seed: int) -> Iterator[HeldOut]:
    for number in range(_MOST_TRIES * count):
        yield _drawn(number, shape, "test", seed)


def _case(kind: EditKind, found: HeldOut, *, seed: int) -> EditCase | None:
    sample, target = found.sample, found.target
    height, width = sample.video.size
    without = found.without_target
    if kind == "remove":
        edit = Edit("remove", target.name, found.target_entry, None)
        return EditCase(sample.key, sample.video, edit, target.mask, without.frames, without.frames, None, seed)
    if kind == "add":
        edit = Edit("add", target.name, None, found.target_entry, layout=Layout(target.name, target.boxes))
        boxes = mask_of_boxes(target.boxes, height=height, width=width)
        colour = str(target.attributes["colour"])
        return EditCase(sample.key, without, edit, boxes, sample.video.frames, without.frames, colour, seed)
    options = [e for e in found.scene.edits() if e.object_id == target.id and e.attribute == "colour"]
    if not options:
        return None
    change = options[0]
    index = [record.id for record in sample.objects].index(target.id)
    after = change.prompt.after.objects[index]
    truth = render_edit(found.scene, change, num_frames=sample.video.num_frames, size=(height, width))
    edit = Edit("change", target.name, found.target_entry, after)
    return EditCase(sample.key, sample.video, edit, target.mask, truth, without.frames, change.value, seed)
