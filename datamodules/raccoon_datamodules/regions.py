"""Frames, their regions and what each region is called: what the miniature CLIP learns from.

Scenes are drawn on the fly, without what regions do not need (clips without each object, written edits). Of each scene
a few frames are taken, of each frame every object that is seen and the background; each region gets one phrase, from a
bare name to the whole sentence of a paragraph. A phrase states some attributes, so that it is known which other
regions of a batch it fits just as well.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raccoon_datamodules import members, prompts
from raccoon_datamodules.datamodule import VplmDataModule
from raccoon_datamodules.faults import Loaded
from raccoon_datamodules.sample import VplmSample
from raccoon_datamodules.sources import SyntheticSource
from raccoon_datamodules.synthetic import Rendered, Scene, SceneObject, make_scene
from raccoon_datamodules.synthetic.narrate import ADJECTIVES, background_words, told, with_article
from raccoon_datamodules.synthetic.vocabulary import CATEGORIES, COLOURS, PATTERNS, PLAIN_BACKGROUNDS, SCENERIES, SIZES
from raccoon_datamodules.tasks import Choice
from raccoon_datamodules.video import Video
from raccoon_datamodules.view import MemoryView, SampleView

BACKGROUND = "background"
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "category": (*CATEGORIES, BACKGROUND),
    "colour": tuple(COLOURS),
    "pattern": PATTERNS,
    "size": SIZES,
    "background": (*PLAIN_BACKGROUNDS, *SCENERIES),
}
"""The words of each attribute of a region; a label is a word's number, -1 where the attribute does not apply."""
NO_LABEL = -1
# A region that shows less is not asked about: nobody could say what it is.
_FEWEST_PIXELS = 12
_FULL_PHRASINGS = 8


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words for a region and the attributes they state: int64 [A] in the order of `ATTRIBUTES`, -1 = not stated."""

    text: str
    stated: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RegionExample:
    """Some frames of one scene: frames uint8 [f, H, W, 3], the scene's caption, and regions of all frames in one row.

    ``masks`` uint8 {0, 1} [r, H, W]; ``frame_of`` int64 [r], the frame each region lies in; ``attributes`` int64
    [r, A]; one phrase a region.
    """

    frames: NDArray[np.uint8]
    caption: str
    masks: NDArray[np.uint8]
    frame_of: NDArray[np.int64]
    attributes: NDArray[np.int64]
    phrases: tuple[Phrase, ...]


@dataclass(slots=True)
class RegionBatch:
    """What the miniature CLIP trains on. N frames, R regions, A attributes (`ATTRIBUTES`), L text tokens.

    - ``frames`` uint8 [N, 3, H, W]; ``ordinal`` int64 [N], alike for the frames of one scene;
    - ``caption_ids`` int64 [N, L]: what is said of the whole scene;
    - ``masks`` uint8 {0, 1} [R, H, W], 1 = the region; ``frame_of`` int64 [R], the frame it lies in;
    - ``phrase_ids`` int64 [R, L']; ``stated`` int64 [R, A], what the phrase says, -1 = nothing;
    - ``attributes`` int64 [R, A], what the region is, -1 = does not apply.

    Not frozen, because Lightning moves a batch by assigning to a copy of it; treat it as a value all the same.
    """

    frames: Tensor
    caption_ids: Tensor
    ordinal: Tensor
    masks: Tensor
    frame_of: Tensor
    phrase_ids: Tensor
    stated: Tensor
    attributes: Tensor

    def pin_memory(self) -> "RegionBatch":
        """The batch in page-locked memory; called by torch's DataLoader."""
        values: dict[str, Tensor] = {field.name: getattr(self, field.name).pin_memory() for field in fields(self)}
        return replace(self, **values)


def matches(stated: Tensor, attributes: Tensor) -> Tensor:
    """Say which phrases fit which regions: stated [P, A] and attributes [R, A] to bool [R, P].

    A phrase fits if the region has every attribute that it states.
    """
    stated, attributes = stated[None], attributes[:, None]
    return ((stated == NO_LABEL) | (stated == attributes)).all(dim=2)


def labels_of(**words: str) -> NDArray[np.int64]:
    """Number the words of some attributes: int64 [A], -1 for those that are not given.

    Raises:
        ValueError: if an attribute has no such word, or there is no such attribute.
    """
    labels = np.full(len(ATTRIBUTES), NO_LABEL, dtype=np.int64)
    for name, word in words.items():
        if name not in ATTRIBUTES or word not in ATTRIBUTES[name]:
            known = ", ".join(ATTRIBUTES.get(name, ATTRIBUTES))
            raise ValueError(f"{name} {word!r} is not known; there are {known}")
        labels[list(ATTRIBUTES).index(name)] = ATTRIBUTES[name].index(word)
    return labels


def object_phrase(scene: Scene, obj: SceneObject, rng: np.random.Generator) -> Phrase:
    """Draw words for an object: what a user types, what a plan asks for, what a paragraph says."""
    name, category = {"category": obj.category, "colour": obj.colour}, {"category": obj.category}
    patterned = {**name, "pattern": obj.pattern}
    full = {**patterned, "size": obj.size}
    adjectives = ADJECTIVES[obj.pattern]
    adjective = adjectives[int(rng.integers(len(adjectives)))]
    short = f"{obj.colour} {obj.category}"
    entry = told(scene.seed, obj, int(rng.integers(_FULL_PHRASINGS)))
    options: tuple[tuple[float, str, dict[str, str]], ...] = (
        (0.2, short, name),
        (0.15, short.title(), name),
        (0.05, with_article(short), name),
        (0.1, f"{adjective} {short}", patterned),
        (0.1, f"{with_article(obj.size)} {adjective} {short}", full),
        (0.2, prompts.paint_prompt("add", entry), full),
        (0.1, entry.description, full),
        (0.1, obj.category if rng.random() < 0.5 else obj.category.title(), category),
    )
    which = int(np.searchsorted(np.cumsum([weight for weight, _, _ in options]), rng.random(), side="right"))
    _, text, stated = options[min(which, len(options) - 1)]
    return Phrase(text, labels_of(**stated))


def background_phrase(scene: Scene, rng: np.random.Generator) -> Phrase:
    """Draw words for what is behind the objects; also what the painter is told when it removes one."""
    stated = {"category": BACKGROUND}
    draw = rng.random()
    if draw < 0.2:
        return Phrase(prompts.REMOVAL_PROMPT, labels_of(**stated))
    if draw < 0.4:
        return Phrase(("the background", "background")[int(rng.integers(2))], labels_of(**stated))
    stated["background"] = scene.background
    if draw < 0.7 and scene.background in PLAIN_BACKGROUNDS:
        return Phrase(f"{scene.background} background", labels_of(**stated))
    return Phrase(background_words(scene, int(rng.integers(_FULL_PHRASINGS))), labels_of(**stated))


def make_regions(scene: Scene, drawn: Rendered, *, num_frames: int, rng: np.random.Generator) -> RegionExample:
    """Take ``num_frames`` frames at random out of a drawn scene, with their regions and phrases.

    Raises:
        ValueError: if num_frames is not from 1 to the number of drawn frames.
    """
    clip_frames, height, width = drawn.frames.shape[:3]
    if not 1 <= num_frames <= clip_frames:
        raise ValueError(f"num_frames must be from 1 to the clip's {clip_frames}, got {num_frames}")
    numbers = np.sort(rng.permutation(clip_frames)[:num_frames])
    what = [labels_of(category=o.category, colour=o.colour, pattern=o.pattern, size=o.size) for o in scene.objects]
    behind = labels_of(category=BACKGROUND, background=scene.background)
    masks = np.zeros((0, height, width), dtype=np.uint8)
    kept: list[tuple[int, NDArray[np.uint8], NDArray[np.int64], Phrase]] = []
    for place, frame in enumerate(numbers):
        for index, obj in enumerate(scene.objects):
            mask = drawn.masks[index, frame]
            if np.count_nonzero(mask) >= _FEWEST_PIXELS:
                kept.append((place, mask, what[index], object_phrase(scene, obj, rng)))
        rest = (1 - drawn.masks[:, frame].max(axis=0, initial=0)).astype(np.uint8)
        if np.count_nonzero(rest) >= _FEWEST_PIXELS:
            kept.append((place, rest, behind, background_phrase(scene, rng)))
    return RegionExample(
        frames=drawn.frames[numbers],
        caption=scene.paragraph(int(rng.integers(_FULL_PHRASINGS))).description,
        masks=np.concatenate([masks, *(mask[None] for _, mask, _, _ in kept)]),
        frame_of=np.array([place for place, _, _, _ in kept], dtype=np.int64),
        attributes=np.array([labels for _, _, labels, _ in kept], dtype=np.int64).reshape(-1, len(ATTRIBUTES)),
        phrases=tuple(phrase for _, _, _, phrase in kept),
    )


class SceneView(MemoryView):
    """A drawn scene as a sample that keeps its ``scene`` and its ``drawn`` pixels; no object is recorded in it."""

    def __init__(self, scene: Scene, drawn: Rendered, *, fps: float) -> None:
        video = Video.from_frames(drawn.frames, fps)
        super().__init__(VplmSample(key=scene.key, video=video, paragraph=scene.paragraph(), objects=()))
        self.scene = scene
        self.drawn = drawn


class SceneSource(SyntheticSource):
    """The scenes of `SyntheticSource`, each a `SceneView`; clips without an object are not drawn, half of the work."""

    def suffixes(self, shard: int, sample: int, /) -> tuple[str, ...]:
        """The clip and its paragraph; known without drawing."""
        return members.META, members.PARAGRAPH, members.VIDEO

    def view(self, shard: int, sample: int, wanted: Collection[str] | None = None, /) -> SceneView:
        """The scene, drawn."""
        scene = make_scene(self.scene_seed(sample), self.difficulty)
        height, width = self.size
        drawn = scene.rasterise(num_frames=self.num_frames, size=(height, width), inpainted=False)
        return SceneView(scene, drawn, fps=self.fps)


class RegionDataModule(VplmDataModule[RegionExample, RegionBatch]):
    """Batches of `RegionBatch` from scenes that are drawn on the fly, in the run's order.

    Args:
        train: the scenes to train on; None for the easy ones, 8 frames of 64 x 64.
        val: those to validate on, read once through; None for the first 128 easy ones of the split "val".
        test: those to test on; None for the first 128 easy ones of the split "test".
        tokenizer: of the text encoder: a tokenizer of transformers that pads and cuts. None to have it set later;
            `raccoon.tasks.clip.ClipTask` hands its own over.
        max_length: most tokens of a phrase or caption, the first and the last one included; longer ones are cut.
        frames_per_scene: frames taken of each scene.
        global_batch_size: *scenes* of one optimizer step over all ranks.
        val_batch_size: scenes of one validation or test batch.
        seed: of the order and of every draw.
        num_workers: processes that draw; drawing is what takes time.
        prefetch: batches each worker keeps ready.
        pin_memory: page-locked batches.

    Raises:
        ValueError: if a number is not positive.
    """

    def __init__(
        self,
        train: SceneSource | None = None,
        val: SceneSource | None = None,
        *,
        test: SceneSource | None = None,
        tokenizer: Any = None,
        max_length: int = 77,
        frames_per_scene: int = 2,
        global_batch_size: int = 128,
        val_batch_size: int | None = 128,
        seed: int = 0,
        num_workers: int = 0,
        prefetch: int = 2,
        pin_memory: bool = False,
    ) -> None:
        if frames_per_scene < 1 or max_length < 3:
            raise ValueError(
                f"frames_per_scene must be at least 1 and max_length at least 3, got {frames_per_scene}, {max_length}"
            )
        super().__init__(
            train=SceneSource() if train is None else train,
            val=SceneSource(split="val", num_scenes=128) if val is None else val,
            test=SceneSource(split="test", num_scenes=128) if test is None else test,
            # The only task that needs no object; it decides nothing here.
            tasks={"describe": 1.0},
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
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.frames_per_scene = frames_per_scene

    def make_example(self, view: SampleView, choice: Choice, rng: np.random.Generator) -> RegionExample:
        """See `make_regions`.

        Raises:
            TypeError: if the sample is not a drawn scene.
        """
        if not isinstance(view, SceneView):
            raise TypeError(f"regions are made from drawn scenes (SceneSource), got a {type(view).__name__}")
        return make_regions(view.scene, view.drawn, num_frames=self.frames_per_scene, rng=rng)

    def collate(self, loaded: list[Loaded[RegionExample]]) -> RegionBatch:
        """Join the scenes' frames and regions; token ids are padded on the right to the longest.

        Raises:
            RuntimeError: if no tokenizer is set.
        """
        found = [(one.ordinal, one.value) for one in loaded if one.value is not None]
        examples = [example for _, example in found]
        counts = [len(example.frames) for example in examples]
        firsts = np.cumsum([0, *counts[:-1]])
        phrases = [phrase for example in examples for phrase in example.phrases]
        frames = np.concatenate([example.frames for example in examples])
        return RegionBatch(
            frames=torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous(),
            caption_ids=self._ids([e.caption for e, count in zip(examples, counts, strict=True) for _ in range(count)]),
            ordinal=torch.from_numpy(np.repeat(np.array([ordinal for ordinal, _ in found], dtype=np.int64), counts)),
            masks=torch.from_numpy(np.concatenate([example.masks for example in examples])),
            frame_of=torch.from_numpy(
                np.concatenate([e.frame_of + first for e, first in zip(examples, firsts, strict=True)])
            ),
            phrase_ids=self._ids([phrase.text for phrase in phrases]),
            stated=torch.from_numpy(np.stack([phrase.stated for phrase in phrases])),
            attributes=torch.from_numpy(np.concatenate([example.attributes for example in examples])),
        )

    def _ids(self, texts: Sequence[str]) -> Tensor:
        if self.tokenizer is None:
            raise RuntimeError(
                "RegionDataModule needs the text encoder's tokenizer; pass tokenizer=... or train with ClipTask, which "
                "hands over its own"
            )
        ids = self.tokenizer(list(texts), padding=True, truncation=True, max_length=self.max_length)["input_ids"]
        return torch.tensor(ids, dtype=torch.int64)
