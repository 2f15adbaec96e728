"""Texts of the procedural VPLM without its pixels: what a miniature language model reads before it is shown a video.

The paper takes a language model that has read the internet; a miniature one has to learn words, the answer formats and
the instructions somewhere. `TextDataModule` gives it plain paragraphs, and the describer's own tasks with a list of
facts between ``<vid_start>`` and ``<vid_end>``, where later the visual tokens stand: the clip's objects, their colour,
pattern, size, and where each is in every frame. After that the describer only has to turn visual tokens into facts.

| task | given | answer |
|---|---|---|
| paragraph | nothing | a paragraph, every token of it learned |
| describe | facts, `prompts.DESCRIBE_ALL` | the paragraph |
| describe_object | facts, `prompts.describe_object` | ``Name: description`` |
| layout | facts of the other objects, `prompts.plan_layout` | one box per frame |

Boxes are those of the object's circle, from its poses: no pixel is drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from raccoon_datamodules import prompts
from raccoon_datamodules.conversation import END_TOKEN, IGNORE, START_TOKEN, Conversation
from raccoon_datamodules.datamodule import VplmDataModule
from raccoon_datamodules.faults import Loaded
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.mixture import Shards
from raccoon_datamodules.order import SampleRef, draw
from raccoon_datamodules.sources import Source, SyntheticSource
from raccoon_datamodules.synthetic import Scene, SceneObject, make_scene
from raccoon_datamodules.synthetic.motion import times_of
from raccoon_datamodules.synthetic.narrate import NUM_PHRASINGS
from raccoon_datamodules.synthetic.render import frame_scale, object_poses
from raccoon_datamodules.tasks import Choice, check_weights
from raccoon_datamodules.view import SampleView

TEXT_TASKS: tuple[str, ...] = ("paragraph", "describe", "describe_object", "layout")
# Each fact is left out this often, so that no word of the answer hangs on one fact alone.
_LEFT_OUT = 0.1
# Pixels of the square frame that boxes and tracks are thought in: that of the miniature recipes.
_SIDE = 64


class SceneTexts(SyntheticSource):
    """Scenes of the procedural VPLM that are told and never drawn; arguments as of `SyntheticSource`."""

    def suffixes(self, shard: int, sample: int, /) -> tuple[str, ...]:
        """None: nothing is stored or rendered."""
        return ()

    def scene(self, sample: int) -> Scene:
        """The scene of a sample."""
        return make_scene(self.scene_seed(sample), self.difficulty)


@dataclass(frozen=True, slots=True)
class TextExample:
    """One text: what is given (``facts`` and ``instruction``, both "" for a plain paragraph) and what is learned."""

    task: str
    facts: str
    instruction: str
    answer: str
    key: str


@dataclass(slots=True)
class TextBatch:
    """Token ids of texts.

    ``input_ids``, ``labels`` (-100 where nothing is learned) and ``attention_mask`` int64 [B, L]; ``task`` and ``key``
    one string per text; ``ordinal`` int64 [B].
    """

    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor
    task: list[str]
    key: list[str]
    ordinal: Tensor


@dataclass(frozen=True, slots=True)
class EncodedText:
    """An example as token ids: of the whole text, and how many of them are given."""

    example: TextExample
    ids: list[int]
    num_given: int


def make_text(scene: Scene, task: str, rng: np.random.Generator, *, num_frames: int = 8) -> TextExample:
    """Make a text of a scene.

    Args:
        scene: it must hold an object for the tasks about one.
        task: of `TEXT_TASKS`.
        rng: draws object, phrasing, and the form of the facts.
        num_frames: frames that facts and layouts speak of.

    Raises:
        ValueError: if the task is unknown.
    """
    if task not in TEXT_TASKS:
        raise ValueError(f"task must be one of {', '.join(TEXT_TASKS)}, got {task!r}")
    paragraph = scene.paragraph(int(rng.integers(NUM_PHRASINGS)))
    if task == "paragraph":
        return TextExample(task, "", "", str(paragraph), scene.key)
    if task == "describe":
        return TextExample(task, facts_of(scene, rng, num_frames), prompts.DESCRIBE_ALL, str(paragraph), scene.key)
    index = int(rng.integers(len(scene.objects)))
    # The dataset gives a single object's description in its first wording.
    told = scene.paragraph().objects[index]
    if task == "describe_object":
        facts = facts_of(scene, rng, num_frames)
        return TextExample(task, facts, prompts.describe_object(told.name), str(told), scene.key)
    facts = facts_of(scene.without(index), rng, num_frames)
    instruction = prompts.plan_layout(told.name, num_frames=num_frames, description=told.description)
    layout = Layout(told.name, boxes_of_poses(scene.objects[index], num_frames))
    return TextExample(task, facts, instruction, str(layout), scene.key)


def facts_of(scene: Scene, rng: np.random.Generator, num_frames: int) -> str:
    """Say what is in a scene without a sentence: an object a line, its attributes in any order, some left out.

    Its track is a pair of numbers for each frame, x and y from 0 to 99.
    """
    lines = []
    for place in rng.permutation(len(scene.objects)):
        obj = scene.objects[int(place)]
        words = [obj.colour, obj.category, obj.pattern, obj.size]
        kept = [word for word in words if word in (obj.colour, obj.category) or rng.random() >= _LEFT_OUT]
        order = rng.permutation(len(kept))
        line = " ".join(kept[int(i)] for i in order)
        known = rng.random()
        if known < 0.9:
            line += f" {_track(obj, num_frames)}"
        if known >= 0.6:
            line += f" {obj.course.kind}"
        lines.append(line)
    lines.append(f"background {scene.background}")
    return "\n".join(lines)


def boxes_of_poses(obj: SceneObject, num_frames: int) -> np.ndarray:
    """Boxes float32 [F, 4] xyxy in [0, 1] of an object's circle in a square frame; NaN rows where it is absent."""
    x, y, present = _poses(obj, num_frames)
    poses = object_poses(obj, times_of(num_frames), (_SIDE, _SIDE))
    radius = obj.radius * frame_scale((_SIDE, _SIDE)) / _SIDE * poses.scale
    # On whole pixels, as boxes of masks are: a language model has so many numbers fewer to learn.
    low, high = (np.stack((x + side, y + side), axis=1) * _SIDE for side in (-radius, radius))
    boxes = np.clip(np.concatenate((np.floor(low), np.ceil(high)), axis=1) / _SIDE, 0, 1)
    # A box that has left the frame is no box.
    there = present & (boxes[:, :2] + 0.001 <= boxes[:, 2:]).all(axis=1)
    return np.where(there[:, None], boxes, np.nan).astype(np.float32)


class TextDataModule(VplmDataModule[EncodedText, TextBatch]):
    """Texts of scenes as `TextBatch`.

    ``conversation`` gives tokenizer, template and longest text (a longer one is cut), and may be linked after
    construction, before the first batch. ``train``, ``val`` and ``test`` are `SceneTexts`. ``tasks`` weighs
    `TEXT_TASKS` (default: equally); ``num_frames`` is what facts and layouts speak of. For the other arguments see
    `VplmDataModule`.

    Raises:
        ValueError: if a task is unknown or a number is not positive.
        TypeError: if train, val or test is no `SceneTexts`.
    """

    def __init__(
        self,
        train: Shards,
        val: Shards | None = None,
        *,
        test: Shards | None = None,
        conversation: Conversation | None = None,
        global_batch_size: int = 128,
        num_frames: int = 8,
        tasks: Mapping[str, float] | None = None,
        val_batch_size: int | None = None,
        seed: int = 0,
        num_workers: int = 0,
        prefetch: int = 4,
        pin_memory: bool = False,
    ) -> None:
        for name, source in (("train", train), ("val", val), ("test", test)):
            if source is not None and not isinstance(source, SceneTexts):
                raise TypeError(f"{name} must be SceneTexts, got {type(source).__name__}; texts are made, not read")
        if num_frames < 1:
            raise ValueError(f"num_frames must be at least 1, got {num_frames}")
        super().__init__(
            train=train,
            val=val,
            test=test,
            tasks=check_weights(dict.fromkeys(TEXT_TASKS, 1.0) if tasks is None else tasks, TEXT_TASKS),
            weights=None,
            global_batch_size=global_batch_size,
            val_batch_size=val_batch_size,
            seed=seed,
            window_shards=1,
            num_workers=num_workers,
            prefetch=prefetch,
            pin_memory=pin_memory,
            max_bad=0,
            max_bad_fraction=0.0,
            quarantine=None,
        )
        self.conversation = conversation
        self.num_frames = num_frames

    def encode(self, example: TextExample) -> EncodedText:
        """Token ids of an example, the end token included.

        Raises:
            RuntimeError: if no conversation is linked.
        """
        conversation = self._linked()
        tokenizer, template = conversation.tokenizer, conversation.template
        begin = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
        given = ""
        answer = example.answer
        if example.task != "paragraph":
            after = template.after.replace("{query}", example.instruction)
            given = f"{template.before}{START_TOKEN}{example.facts}{END_TOKEN}{after}"
            answer = template.joint + answer
        # Apart, as generation tokenizes them: the boundary never falls inside a token.
        ids = [*begin, *tokenizer.encode(given, add_special_tokens=False)]
        num_given = len(ids)
        ids += tokenizer.encode(answer, add_special_tokens=False)
        return EncodedText(example, [*ids, conversation.eos_id][: conversation.max_length], num_given)

    def make_example(self, view: SampleView, choice: Choice, rng: np.random.Generator) -> EncodedText:
        """Never called: texts need no view of a sample."""
        raise RuntimeError("TextDataModule makes its examples from scenes, not from samples")

    def collate(self, loaded: list[Loaded[EncodedText]]) -> TextBatch:
        """Pad on the right to the longest text."""
        texts = [one.value for one in loaded if one.value is not None]
        length = max(len(text.ids) for text in texts)
        input_ids = torch.full((len(texts), length), self._linked().pad_id, dtype=torch.int64)
        labels = torch.full((len(texts), length), IGNORE, dtype=torch.int64)
        mask = torch.zeros((len(texts), length), dtype=torch.int64)
        for row, text in enumerate(texts):
            ids = torch.tensor(text.ids, dtype=torch.int64)
            input_ids[row, : len(ids)] = ids
            labels[row, text.num_given : len(ids)] = ids[text.num_given :]
            mask[row, : len(ids)] = 1
        return TextBatch(
            input_ids=input_ids,
            labels=labels,
            attention_mask=mask,
            task=[text.example.task for text in texts],
            key=[text.example.key for text in texts],
            ordinal=torch.tensor([one.ordinal for one in loaded], dtype=torch.int64),
        )

    def choice(self, source: Source, ref: SampleRef, ordinal: int, use: str = "train") -> Choice:
        """The task of an ordinal; every scene serves every task."""
        return Choice(_drawn(self._tasks, draw(self.seed, ordinal, f"{use}/text")), None, frozenset())

    def _example(self, source: Source, ref: SampleRef, ordinal: int, use: str) -> EncodedText:
        assert isinstance(source, SceneTexts)
        rng = draw(self.seed, ordinal, f"{use}/text")
        return self.encode(
            make_text(source.scene(ref.sample), _drawn(self._tasks, rng), rng, num_frames=self.num_frames)
        )

    def _linked(self) -> Conversation:
        if self.conversation is None:
            raise RuntimeError(
                "TextDataModule needs a conversation (tokenizer, template) to make token ids; pass conversation=... or "
                "set it before training"
            )
        return self.conversation


def _drawn(weights: Mapping[str, float], rng: np.random.Generator) -> str:
    at = rng.random() * sum(weights.values())
    ends = [0.0, *np.cumsum(list(weights.values())).tolist()]
    names: Sequence[str] = list(weights)
    return next((name for name, (low, high) in zip(names, pairwise(ends), strict=True) if low <= at < high), names[-1])


def _poses(obj: SceneObject, num_frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    poses = object_poses(obj, times_of(num_frames), (_SIDE, _SIDE))
    return poses.x, poses.y, poses.present


def _track(obj: SceneObject, num_frames: int) -> str:
    x, y, present = _poses(obj, num_frames)
    places = np.clip(np.rint(np.stack((x, y), axis=1) * 99), 0, 99).astype(int).tolist()
    return " ".join(f"{a},{b}" if there else "-" for (a, b), there in zip(places, present.tolist(), strict=True))
