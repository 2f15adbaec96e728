"""Sample to training example: what the describer and the painter are shown, and what they are to answer.

| task | given | asked for | source |
|---|---|---|---|
| describe | the clip | its paragraph | section 3.3, instruction design (1) |
| describe_object | the clip, an object's name | ``Name: description`` | appendix, single-object captions |
| layout | the clip *without* the object, its name and description | one box per frame | section 3.3, design (2) |
| remove | the clip, the object's mask, ``inpainted background`` | the clip without it | section 3.3, video diffusion |
| add | the clip without it, its boxes as mask, its words | the clip | the same |
| change | the clip, the object's mask, its words | the clip | the same |

The words are those that an edit gives the painter later, ``Name: description`` (`prompts.paint_prompt`).

Which task and which object an ordinal gets is drawn from the members a sample has, before any of them is read.
Frames are chosen uniformly (``int(i n / F)`` of n, as layouts are sampled) or one at random in each of F equal
segments (the released training code); a clip of fewer frames repeats its last one. If an object is in none of the
chosen frames, the frame of the segment that holds its middle appearance is exchanged for that one.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules import members, prompts
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.masks import boxes_of, mask_of_boxes
from raccoon_datamodules.members import MemberError, ObjectInfo, object_suffix, parse_suffix
from raccoon_datamodules.paragraph import ObjectDescription
from raccoon_datamodules.pixels import resize_mask
from raccoon_datamodules.sample import EditKind
from raccoon_datamodules.view import SampleView

V2PTask = Literal["describe", "describe_object", "layout"]
FrameSampling = Literal["uniform", "segments"]

V2P_TASKS: tuple[str, ...] = ("describe", "describe_object", "layout")
P2V_TASKS: tuple[str, ...] = ("remove", "add", "change")

# What each task reads; for object tasks the members of that object.
_CLIP_MEMBERS = {
    "describe": (members.VIDEO, members.PARAGRAPH),
    "describe_object": (members.VIDEO,),
    "layout": (),
    "remove": (members.VIDEO,),
    "add": (members.VIDEO,),
    "change": (members.VIDEO,),
}
_OBJECT_MEMBERS: dict[str, tuple[members.ObjectMember, ...]] = {
    "describe": (),
    "describe_object": ("object",),
    "layout": ("object", "inpainted"),
    "remove": ("object", "mask", "inpainted"),
    "add": ("object", "mask", "inpainted"),
    "change": ("object", "mask"),
}

# Data sets are built before anybody has described them; what needs no words (layout, remove) trains on them as well.
_ANNOTATE = "write it with `raccoon vplm annotate`, or train on tasks without words"


@dataclass(frozen=True, slots=True)
class Choice:
    """A task, the object it is about (None for ``describe``), and the members it reads."""

    task: str
    object_id: str | None
    wanted: frozenset[str]


@dataclass(frozen=True, slots=True)
class V2PExample:
    """Frames uint8 [F, H, W, 3], the task, what is asked and the answer to learn."""

    frames: NDArray[np.uint8]
    task: V2PTask
    instruction: str
    answer: str
    key: str


@dataclass(frozen=True, slots=True)
class P2VExample:
    """Target and (unmasked) condition uint8 [F, H, W, 3], edit mask uint8 {0, 1} [F, H, W], and the prompt."""

    target: NDArray[np.uint8]
    condition: NDArray[np.uint8]
    edit_mask: NDArray[np.uint8]
    prompt: str
    task: EditKind
    key: str


@dataclass(frozen=True, slots=True)
class V2PPlan:
    """What a describer's example will be, before a picture is decoded: ``frames`` of ``member``, instruction, answer.

    ``frames`` are frame numbers in the order they are shown; a short clip's last one comes several times.
    """

    member: str
    frames: tuple[int, ...]
    task: V2PTask
    instruction: str
    answer: str
    key: str


@dataclass(frozen=True, slots=True)
class P2VPlan:
    """What a painter's example will be, before a picture is decoded.

    ``target`` and ``condition`` are members; the edit mask is that of ``object_id``, or its ``boxes``.
    """

    target: str
    condition: str
    object_id: str
    boxes: bool
    frames: tuple[int, ...]
    prompt: str
    task: EditKind
    key: str


def check_weights(weights: Mapping[str, float], tasks: Sequence[str]) -> dict[str, float]:
    """Return task weights in a fixed order, those of weight 0 left out.

    Raises:
        ValueError: if a task is unknown, a weight is negative or not finite, or none is positive.
    """
    unknown = [task for task in weights if task not in tasks]
    if unknown:
        raise ValueError(f"unknown task {unknown[0]!r}; the tasks are {', '.join(tasks)}")
    if not all(0 <= w < float("inf") for w in weights.values()) or not any(weights.values()):
        raise ValueError(f"task weights must be >= 0 and one of them positive, got {dict(weights)}")
    return {task: float(weights[task]) for task in tasks if weights.get(task)}


def choose(suffixes: Collection[str], weights: Mapping[str, float], rng: np.random.Generator) -> Choice:
    """Draw a task by weight among those that the sample has members for, then an object for it.

    Raises:
        MemberError: if the sample can serve none of the tasks.
    """
    options = choices(suffixes, weights)
    possible = [task for task in weights if options[task]]
    if not possible:
        raise MemberError(
            "members", f"none of the tasks {', '.join(weights)} can be made from {', '.join(sorted(set(suffixes)))}"
        )
    ends = list(accumulate(weights[task] for task in possible))
    which = bisect_right(ends, rng.random() * ends[-1])
    found = options[possible[min(which, len(possible) - 1)]]
    return found[int(rng.random() * len(found))]


def choices(suffixes: Collection[str], weights: Mapping[str, float]) -> dict[str, list[Choice]]:
    """Everything that `choose` may draw for a sample with these members, by task; none for a task it cannot serve."""
    return _choices(frozenset(suffixes), tuple(weights))


@lru_cache(maxsize=1024)
def _choices(there: frozenset[str], tasks: tuple[str, ...]) -> dict[str, list[Choice]]:
    # Samples differ in their objects' number, rarely in more, so few sets of members come up.
    ids = sorted({found[1] for found in map(parse_suffix, there) if found and found[1]})
    options: dict[str, list[Choice]] = {}
    for task in tasks:
        subjects: list[str | None] = [*ids] if _OBJECT_MEMBERS[task] else [None]
        every = [Choice(task, subject, _wanted(task, subject)) for subject in subjects]
        options[task] = [choice for choice in every if choice.wanted <= there]
    return options


def sample_frames(
    num_frames: int, wanted: int, *, sampling: FrameSampling = "uniform", rng: np.random.Generator | None = None
) -> list[int]:
    """The numbers of ``wanted`` frames of a clip of ``num_frames``; a shorter clip repeats its last frame.

    Raises:
        ValueError: if a number is not positive, the sampling is unknown, or segments are asked for without ``rng``.
    """
    if num_frames < 1 or wanted < 1:
        raise ValueError(f"frames are counted from 1, got {wanted} of {num_frames}")
    if sampling not in ("uniform", "segments"):
        raise ValueError(f"frame sampling must be 'uniform' or 'segments', got {sampling!r}")
    if num_frames <= wanted:
        return [min(i, num_frames - 1) for i in range(wanted)]
    starts = [i * num_frames // wanted for i in range(wanted + 1)]
    if sampling == "uniform":
        return starts[:-1]
    if rng is None:
        raise ValueError("frame sampling 'segments' draws at random and needs rng")
    return [low + int(rng.random() * (high - low)) for low, high in pairwise(starts)]


def make_v2p(
    view: SampleView,
    choice: Choice,
    *,
    num_frames: int,
    size: tuple[int, int],
    rng: np.random.Generator,
    sampling: FrameSampling = "uniform",
) -> V2PExample:
    """The example of a describer's task at ``num_frames`` frames of ``size`` (height, width).

    A described clip's answer is one of its phrasings, drawn evenly. Raises MemberError if a member cannot be read, or
    a description that is to be learned has not been written.
    """
    plan = plan_v2p(view, choice, num_frames=num_frames, rng=rng, sampling=sampling)
    return V2PExample(
        pictures(view, plan.member, plan.frames, size), plan.task, plan.instruction, plan.answer, plan.key
    )


def plan_v2p(
    view: SampleView,
    choice: Choice,
    *,
    num_frames: int,
    rng: np.random.Generator,
    sampling: FrameSampling = "uniform",
) -> V2PPlan:
    """What `make_v2p` will make of the same arguments; reads no pictures."""
    frames = sample_frames(view.num_frames, num_frames, sampling=sampling, rng=rng)
    if choice.task == "describe":
        every = view.paragraphs()
        paragraph = every[int(rng.random() * len(every))]
        if not paragraph.description:
            raise MemberError(members.PARAGRAPH, f"the clip has no description; {_ANNOTATE}")
        return V2PPlan(members.VIDEO, tuple(frames), "describe", prompts.DESCRIBE_ALL, str(paragraph), view.key)
    info = view.object(_object_of(choice))
    frames = _with_object(frames, info)
    if choice.task == "describe_object":
        instruction = prompts.describe_object(info.name)
        return V2PPlan(members.VIDEO, tuple(frames), "describe_object", instruction, str(_described(info)), view.key)
    instruction = prompts.plan_layout(info.name, num_frames=len(frames), description=info.description)
    answer = str(Layout(info.name, info.boxes[frames]))
    return V2PPlan(object_suffix("inpainted", info.id), tuple(frames), "layout", instruction, answer, view.key)


def make_p2v(
    view: SampleView,
    choice: Choice,
    *,
    num_frames: int,
    size: tuple[int, int],
    rng: np.random.Generator,
    sampling: FrameSampling = "segments",
) -> P2VExample:
    """The example of a painter's task at ``num_frames`` frames of ``size`` (height, width).

    Raises MemberError if a member cannot be read, or the task needs a description that has not been written.
    Source: section 3.3, "Video Diffusion Model Fine-tuning".
    """
    plan = plan_p2v(view, choice, num_frames=num_frames, rng=rng, sampling=sampling)
    return painted(view, plan, size)


def painted(view: SampleView, plan: P2VPlan, size: tuple[int, int]) -> P2VExample:
    """The painter's example that was planned, its pictures decoded."""
    mask = edit_mask(view, plan, size)
    target = pictures(view, plan.target, plan.frames, size)
    condition = target if plan.condition == plan.target else pictures(view, plan.condition, plan.frames, size)
    return P2VExample(target, condition, mask, plan.prompt, plan.task, plan.key)


def plan_p2v(
    view: SampleView,
    choice: Choice,
    *,
    num_frames: int,
    rng: np.random.Generator,
    sampling: FrameSampling = "segments",
) -> P2VPlan:
    """What `make_p2v` will make of the same arguments; reads no pictures."""
    frames = sample_frames(view.num_frames, num_frames, sampling=sampling, rng=rng)
    info = view.object(_object_of(choice))
    frames = _with_object(frames, info)
    original, background = members.VIDEO, object_suffix("inpainted", info.id)
    task: EditKind
    if choice.task == "change":
        task, target, condition = "change", original, original
    elif choice.task == "remove":
        task, target, condition = "remove", background, original
    else:
        task, target, condition = "add", original, background
    prompt = prompts.paint_prompt("remove") if task == "remove" else prompts.paint_prompt(task, _described(info))
    return P2VPlan(target, condition, info.id, task == "add", tuple(frames), prompt, task, view.key)


def edit_mask(view: SampleView, plan: P2VPlan, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The edit mask of a painter's example, uint8 {0, 1} [F, H, W] of ``size``, 1 = edit here."""
    mask = resize_mask(_gather(lambda numbers: view.mask(plan.object_id, numbers), plan.frames), size)
    return mask_of_boxes(boxes_of(mask), height=size[0], width=size[1]) if plan.boxes else mask


def pictures(view: SampleView, member: str, frames: Sequence[int], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Frames uint8 [F, H, W, 3] of the clip or of an inpainted clip, at ``size``; a number may come more than once.

    Raises:
        ValueError: if the member holds no pictures.
    """
    if member == members.VIDEO:
        return _gather(lambda numbers: view.clip(numbers, size), frames)
    kind, object_id = parse_suffix(member) or (None, None)
    if kind != "inpainted" or object_id is None:
        raise ValueError(f"pictures are in {members.VIDEO} and inpainted-ID.mp4, got {member}")
    return _gather(lambda numbers: view.inpainted(object_id, numbers, size), frames)


def _wanted(task: str, object_id: str | None) -> frozenset[str]:
    of_object = [] if object_id is None else [object_suffix(kind, object_id) for kind in _OBJECT_MEMBERS[task]]
    return frozenset([members.META, *_CLIP_MEMBERS[task], *of_object])


def _object_of(choice: Choice) -> str:
    if choice.object_id is None:
        raise ValueError(f"task {choice.task} is about an object, and none was chosen")
    return choice.object_id


def _described(info: ObjectInfo) -> ObjectDescription:
    if not info.description:
        raise MemberError(object_suffix("object", info.id), f"the object has no description; {_ANNOTATE}")
    return ObjectDescription(info.name, info.description)


def _with_object(frames: list[int], info: ObjectInfo) -> list[int]:
    """The frames, one of them exchanged if the object is in none of them."""
    if info.area[frames].any():
        return frames
    seen = np.flatnonzero(info.area)
    if not seen.size:
        raise MemberError(object_suffix("object", info.id), "the object is in no frame of the clip")
    middle = int(seen[seen.size // 2])
    starts = [i * len(info.area) // len(frames) for i in range(len(frames))]
    which = bisect_right(starts, middle) - 1
    return [*frames[:which], middle, *frames[which + 1 :]]


def _gather(decode: Callable[[Sequence[int]], NDArray[np.uint8]], frames: Sequence[int]) -> NDArray[np.uint8]:
    """Decode each frame once, in rising order, and repeat those that are asked for twice."""
    distinct = sorted(set(frames))
    pictures = decode(distinct)
    if distinct == list(frames):
        return pictures
    place = {number: i for i, number in enumerate(distinct)}
    return pictures[[place[number] for number in frames]]
