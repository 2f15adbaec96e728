"""Make scenes and samples from a seed.

Training, validation and test use disjoint seeds: `seed_of(split, ordinal)` counts train from 0, val from 1 000 000 000
and test from 2 000 000 000. A seed shows the same scene at every size and length; another difficulty is another scene.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.sample import VplmSample
from raccoon_datamodules.synthetic.edits import has_contrast
from raccoon_datamodules.synthetic.motion import MOTIONS_THAT_TRAVEL, Course, Floats, times_of
from raccoon_datamodules.synthetic.render import object_poses
from raccoon_datamodules.synthetic.scene import Scene, SceneObject
from raccoon_datamodules.synthetic.vocabulary import SIZES, Difficulty, difficulty_named, shows_turning

T = TypeVar("T")
Path = tuple[Floats, Floats, Floats, NDArray[np.bool_]]
Split = Literal["train", "val", "test"]
SPLIT_SEEDS = 1_000_000_000
"""How many seeds each split has."""

_TRIES = 16
_ATTEMPTS = 8
_CHECK_TIMES = times_of(12)
_CHECK_SIZE = (64, 64)


def seed_of(split: str, ordinal: int) -> int:
    """Return the seed of a split's sample number ``ordinal`` (from 0).

    Raises ValueError for a split that is not train, val or test, or an ordinal outside [0, SPLIT_SEEDS).
    """
    if split not in get_args(Split):
        raise ValueError(f"split must be one of {', '.join(get_args(Split))}, got {split!r}")
    if not 0 <= ordinal < SPLIT_SEEDS:
        raise ValueError(f"ordinal must be in [0, {SPLIT_SEEDS}), got {ordinal}")
    return get_args(Split).index(split) * SPLIT_SEEDS + ordinal


def _one_of(options: Sequence[T], draw: float) -> T:
    return options[int(draw * len(options))]


def _course(draws: list[float], difficulty: Difficulty, *, may_come_late: bool) -> Course:
    """Make a motion from eight numbers in [0, 1)."""
    kind = _one_of(difficulty.motions, draws[0])
    direction, slope = _one_of((1, -1), draws[1]), _one_of((1, -1), draws[2])
    if kind in ("left-to-right", "right-to-left"):
        direction = 1 if kind == "left-to-right" else -1
    if kind in ("rise", "fall"):
        slope = 1 if kind == "fall" else -1
    if kind in ("still", "approach", "spin"):
        # Clearly in one ninth of the frame, since the text names it: thirds from -0.9 to 0.9.
        across, down = (_one_of((-0.72, 0.0, 0.72), draw) + 0.36 * ((draw * 3) % 1 - 0.5) for draw in draws[3:5])
    else:
        across, down = (0.94 * (2 * draw - 1) for draw in draws[3:5])
    enters_at, leaves_at = 0.0, 1.0
    if may_come_late and draws[6] < difficulty.late_entry:
        enters_at = round(0.2 + 0.3 * draws[7], 3)
    elif kind in MOTIONS_THAT_TRAVEL and draws[6] > 1 - difficulty.late_entry / 2:
        leaves_at = round(0.6 + 0.2 * draws[7], 3)
    return Course(kind, (across, down), direction, slope, draws[5], enters_at, leaves_at)


def _fits(own: Path, placed: list[Path], difficulty: Difficulty) -> bool:
    """Say whether a path (x, y, radius, present, each [T]) stays far enough from the others, for long enough."""
    x, y, radius, present = own
    for other_x, other_y, other_radius, other_present in placed:
        reach, dx, dy = difficulty.apart * (radius + other_radius), x - other_x, y - other_y
        close = (dx * dx + dy * dy < reach * reach) & present & other_present
        if np.count_nonzero(close) > (1 - difficulty.apart_time) * len(close):
            return False
    return True


def _qualifier(objects: list[SceneObject], candidate: SceneObject) -> str | None:
    """Return the word that keeps a repeated colour and category apart, or None where none would."""
    twins = [obj for obj in objects if (obj.colour, obj.category) == (candidate.colour, candidate.category)]
    if not twins:
        return ""
    if len(twins) > 1 or any(twin.size == candidate.size for twin in twins):
        return None
    return candidate.size


def _placed(rng: np.random.Generator, level: Difficulty, colours: Sequence[str], wanted: int) -> list[SceneObject]:
    """Draw objects one after the other that get along with each other; fewer than wanted where no place is found."""
    objects: list[SceneObject] = []
    paths: list[Path] = []
    for number in range(wanted):
        free = [c for c in colours if level.may_repeat or all(c != obj.colour for obj in objects)]
        kinds = [k for k in level.categories if level.may_repeat or all(k != obj.category for obj in objects)]
        for draws in rng.random((_TRIES, 12)).tolist():
            # Three large objects would leave no room to move.
            size = _one_of(SIZES[:2] if wanted == 3 else SIZES, draws[0])
            candidate = SceneObject(
                uid=f"object{number}",
                category=_one_of(kinds, draws[1]),
                colour=_one_of(free, draws[2]),
                pattern=_one_of(level.patterns, draws[3]),
                size=size,
                radius=level.radii[SIZES.index(size)],
                course=_course(draws[4:], level, may_come_late=number > 0),
            )
            qualifier = _qualifier(objects, candidate)
            turns = candidate.course.kind == "spin"
            if qualifier is None or (turns and not shows_turning(candidate.category, candidate.pattern)):
                continue
            poses = object_poses(candidate, _CHECK_TIMES, _CHECK_SIZE)
            path = (poses.x, poses.y, candidate.radius * poses.scale, poses.present)
            if _fits(path, paths, level):
                objects.append(replace(candidate, qualifier=qualifier))
                paths.append(path)
                break
        else:
            break
    return objects


def make_scene(seed: int, difficulty: str = "easy", *, num_objects: int | None = None) -> Scene:
    """Make the scene of a seed.

    ``difficulty`` is "easy", "medium" or "hard"; ``num_objects`` (1 to 3) overrides the drawn number. Where no place
    is found for all, fewer are shown. Raises ValueError for other difficulties, numbers or a seed below 0.
    """
    level = difficulty_named(difficulty)
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}")
    if num_objects is not None and not 1 <= num_objects <= 3:
        raise ValueError(f"num_objects must be 1, 2 or 3, got {num_objects}")
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 0, *level.name.encode()])))
    number_draw, *draws, light_draw = rng.random(5).tolist()
    wanted = num_objects or 1 + int(3 * number_draw)
    background, camera, prop = map(_one_of, (level.backgrounds, level.cameras, level.props), draws)
    light = _one_of((1, -1), light_draw)
    colours = [colour for colour in level.colours if has_contrast(colour, background, level)]
    best: list[SceneObject] = []
    for _ in range(_ATTEMPTS):
        placed = _placed(rng, level, colours, wanted)
        if len(placed) > len(best):
            best = placed
        if len(best) == wanted:
            break
    return Scene(seed, level.name, tuple(best), background, camera, light, prop)


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
