"""Make scenes and samples from a seed.

Training, validation and test use disjoint seeds: `seed_of(split, ordinal)` counts train from 0, val from 1 000 000 000
and test from 2 000 000 000. A seed shows the same scene at every size and length; another difficulty is another scene.
"""

from typing import Literal, get_args

import numpy as np

from raccoon_datamodules.sample import VplmSample
from raccoon_datamodules.synthetic.edits import has_contrast
from raccoon_datamodules.synthetic.motion import TRAVELLING, Course, times_of
from raccoon_datamodules.synthetic.render import object_poses
from raccoon_datamodules.synthetic.scene import Scene, SceneObject
from raccoon_datamodules.synthetic.vocabulary import SIZES, Difficulty, difficulty_named

Split = Literal["train", "val", "test"]
SPLIT_SEEDS = 1_000_000_000
"""How many seeds each split has."""

_TRIES = 24
_CHECK_TIMES = times_of(16)
_CHECK_SIZE = (64, 64)
_APART = {"easy": (0.78, 1.0), "medium": (0.6, 0.7), "hard": (0.5, 0.4)}
"""Two objects' distance over the sum of their radii, and the part of the time in which it holds at least."""


def seed_of(split: str, ordinal: int) -> int:
    """Return the seed of a split's sample number ``ordinal`` (from 0).

    Raises ValueError for a split that is not train, val or test, or an ordinal outside [0, SPLIT_SEEDS).
    """
    if split not in get_args(Split):
        raise ValueError(f"split must be one of {', '.join(get_args(Split))}, got {split!r}")
    if not 0 <= ordinal < SPLIT_SEEDS:
        raise ValueError(f"ordinal must be in [0, {SPLIT_SEEDS}), got {ordinal}")
    return get_args(Split).index(split) * SPLIT_SEEDS + ordinal


def _course(rng: np.random.Generator, difficulty: Difficulty, *, may_come_late: bool) -> Course:
    kind = difficulty.motions[rng.integers(len(difficulty.motions))]
    cell, jitter, draws = rng.integers(-1, 2, 2), rng.random(2), rng.random(5)
    direction, slope = (1 if draws[0] < 0.5 else -1), (1 if draws[1] < 0.5 else -1)
    if kind in ("left-to-right", "right-to-left"):
        direction = 1 if kind == "left-to-right" else -1
    if kind in ("rise", "fall"):
        slope = 1 if kind == "fall" else -1
    if kind in ("still", "approach", "spin"):
        # Clearly in one ninth of the frame, since the text names it.
        anchor = tuple(float(0.72 * c + 0.36 * (j - 0.5)) for c, j in zip(cell, jitter, strict=True))
    else:
        anchor = tuple(float(2 * j - 1) * 0.94 for j in jitter)
    enters_at, leaves_at = 0.0, 1.0
    if may_come_late and draws[3] < difficulty.late_entry:
        enters_at = round(0.2 + 0.3 * float(draws[4]), 3)
    elif kind in TRAVELLING and draws[3] > 1 - difficulty.late_entry / 2:
        leaves_at = round(0.6 + 0.2 * float(draws[4]), 3)
    return Course(kind, (anchor[0], anchor[1]), direction, slope, float(draws[2]), enters_at, leaves_at)


def _fits(candidate: SceneObject, placed: list[SceneObject], difficulty: Difficulty) -> bool:
    """Say whether the candidate stays far enough from those placed before it, for long enough."""
    distance, share = _APART[difficulty.name]
    own = object_poses(candidate, _CHECK_TIMES, _CHECK_SIZE)
    for other in placed:
        their = object_poses(other, _CHECK_TIMES, _CHECK_SIZE)
        reach = distance * (candidate.radius * own.scale + other.radius * their.scale)
        apart = (own.x - their.x) ** 2 + (own.y - their.y) ** 2 >= reach * reach
        if np.mean(apart | ~own.present | ~their.present) < share:
            return False
    return True


def _qualifiers(objects: list[SceneObject], candidate: SceneObject) -> str | None:
    """Return the word that keeps a repeated colour and category apart, or None where none would."""
    twins = [obj for obj in objects if (obj.colour, obj.category) == (candidate.colour, candidate.category)]
    if not twins:
        return ""
    if len(twins) > 1 or any(twin.size == candidate.size for twin in twins):
        return None
    return candidate.size


def make_scene(seed: int, difficulty: str = "easy", *, num_objects: int | None = None) -> Scene:
    """Make the scene of a seed.

    ``difficulty`` is "easy", "medium" or "hard"; ``num_objects`` (1 to 3) overrides the drawn number. Where three large
    objects cannot be kept apart, fewer are shown. Raises ValueError for other difficulties, numbers or a seed below 0.
    """
    level = difficulty_named(difficulty)
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}")
    if num_objects is not None and not 1 <= num_objects <= 3:
        raise ValueError(f"num_objects must be 1, 2 or 3, got {num_objects}")
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 0, *level.name.encode()])))
    wanted = int(rng.integers(1, 4))
    wanted = num_objects or wanted
    background = level.backgrounds[rng.integers(len(level.backgrounds))]
    camera, prop = level.cameras[rng.integers(len(level.cameras))], level.props[rng.integers(len(level.props))]
    light = 1 if rng.random() < 0.5 else -1
    colours = [colour for colour in level.colours if has_contrast(colour, background, level)]
    objects: list[SceneObject] = []
    for number in range(wanted):
        for _ in range(_TRIES):
            free = [c for c in colours if level.may_repeat or all(c != obj.colour for obj in objects)]
            kinds = [k for k in level.categories if level.may_repeat or all(k != obj.category for obj in objects)]
            size = int(rng.integers(2 if wanted == 3 else 3))
            candidate = SceneObject(
                uid=f"object{number}",
                category=kinds[rng.integers(len(kinds))],
                colour=free[rng.integers(len(free))],
                pattern=level.patterns[rng.integers(len(level.patterns))],
                size=SIZES[size],
                radius=level.radii[size],
                course=_course(rng, level, may_come_late=number > 0),
            )
            qualifier = _qualifiers(objects, candidate)
            if qualifier is not None and _fits(candidate, objects, level):
                objects.append(_qualified(candidate, qualifier))
                break
    return Scene(seed, level.name, tuple(objects), background, camera, light, prop)


def _qualified(obj: SceneObject, qualifier: str) -> SceneObject:
    return SceneObject(
        obj.uid, obj.category, obj.colour, obj.pattern, obj.size, obj.radius, obj.course, qualifier
    )  # fmt: skip


def make_sample(
    seed: int,
    difficulty: str = "easy",
    *,
    num_frames: int = 8,
    size: tuple[int, int] = (64, 64),
    fps: float = 8.0,
    inpainted: bool = True,
) -> VplmSample:
    """Make the sample of a seed: `make_scene(seed, difficulty).render(...)`.

    Without ``inpainted`` the clips without each object are left out, which is faster.
    """
    return make_scene(seed, difficulty).render(num_frames=num_frames, size=size, fps=fps, inpainted=inpainted)
