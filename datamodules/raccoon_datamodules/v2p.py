"""`V2PDataModule`: training examples for the describer (paper, section 3.3, "MLLM Instructional Fine-tuning")."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from raccoon_datamodules.batch import V2PBatch
from raccoon_datamodules.cache import CachedView, CacheMiss, V2PFeatures, V2PModel
from raccoon_datamodules.conversation import Conversation, Turn
from raccoon_datamodules.datamodule import HeldOut, VplmDataModule
from raccoon_datamodules.faults import Loaded
from raccoon_datamodules.loader import OrderedLoader
from raccoon_datamodules.mixture import Corpora, Shards
from raccoon_datamodules.pixels import planes_of
from raccoon_datamodules.tasks import V2P_TASKS, Choice, FrameSampling, V2PPlan, check_weights, pictures, plan_v2p
from raccoon_datamodules.view import SampleView


@dataclass(frozen=True, slots=True, eq=False)
class EncodedExample:
    """An example: what it is, its text as token ids, and its ``frames`` uint8 [F, H, W, 3] or cached ``features``.

    It has neither where the cache lacks something and is to hold everything.
    """

    plan: V2PPlan
    turn: Turn
    frames: NDArray[np.uint8] | None
    features: V2PFeatures | None = None


class V2PDataModule(VplmDataModule[EncodedExample, V2PBatch]):
    """Descriptions of clips and of single objects, and layouts of objects to be added, as `V2PBatch` of frames.

    ``conversation`` turns text into token ids; it belongs to the model's tokenizer and may be linked after construction
    (``datamodule.conversation = ...``), before the first batch. ``tasks`` weighs "describe", "describe_object" and
    "layout" (default: equally). ``num_frames`` frames of ``size`` (height, width) are shown, taken evenly
    (``frame_sampling`` "uniform") or one at random from each of as many equal segments ("segments"). For the other
    arguments see `VplmDataModule`.

    Raises:
        ValueError: if a task is unknown or a number is not positive.
    """

    def __init__(
        self,
        train: Corpora,
        val: Shards | None = None,
        *,
        test: Shards | None = None,
        conversation: Conversation | None = None,
        global_batch_size: int = 8,
        num_frames: int = 16,
        size: tuple[int, int] = (336, 336),
        tasks: Mapping[str, float] | None = None,
        frame_sampling: FrameSampling = "uniform",
        weights: Sequence[float] | None = None,
        val_batch_size: int | None = None,
        seed: int = 0,
        window_shards: int = 8,
        num_workers: int = 0,
        prefetch: int = 2,
        pin_memory: bool = False,
        max_bad: int = 10,
        max_bad_fraction: float = 0.01,
        quarantine: str | None = None,
        exclude: str | Sequence[str] = (),
        cache: str | None = None,
        cache_miss: CacheMiss = "compute",
    ) -> None:
        super().__init__(
            train=train,
            val=val,
            test=test,
            tasks=check_weights(dict.fromkeys(V2P_TASKS, 1.0) if tasks is None else tasks, V2P_TASKS),
            weights=weights,
            global_batch_size=global_batch_size,
            val_batch_size=val_batch_size,
            seed=seed,
            window_shards=window_shards,
            num_workers=num_workers,
            prefetch=prefetch,
            pin_memory=pin_memory,
            max_bad=max_bad,
            max_bad_fraction=max_bad_fraction,
            quarantine=quarantine,
            exclude=exclude,
            cache=cache,
            cache_miss=cache_miss,
        )
        height, width = size
        if min(num_frames, height, width) < 1:
            raise ValueError(f"num_frames and size must be positive, got {num_frames} frames of {height}x{width}")
        self.conversation = conversation
        self.cached_model: V2PModel | None = None
        self.num_frames = num_frames
        self.size = (height, width)
        self.frame_sampling: FrameSampling = frame_sampling

    def train_dataloader(self) -> OrderedLoader[EncodedExample, V2PBatch]:
        """See `VplmDataModule.train_dataloader`. Raises RuntimeError if no conversation is linked, as the others do."""
        self._linked()
        if self.cache is not None:
            self.cache.ready(self.cached_model, type(self).make_example, V2PDataModule.make_example)
        return super().train_dataloader()

    def make_example(self, view: SampleView, choice: Choice, rng: np.random.Generator) -> EncodedExample:
        """See `tasks.plan_v2p`; a text that cannot be encoded makes a bad sample."""
        plan = plan_v2p(view, choice, num_frames=self.num_frames, rng=rng, sampling=self.frame_sampling)
        turn = self._linked().turn(plan.instruction, plan.answer)
        if self.cache is not None and self.cached_model is not None and isinstance(view, CachedView):
            features = self.cache.v2p(self.cached_model, view, plan, self.size)
            if features is not None or self.cache.miss == "error":
                return EncodedExample(plan, turn, None, features)
        return EncodedExample(plan, turn, pictures(view, plan.member, plan.frames, self.size))

    def collate(self, loaded: list[Loaded[EncodedExample]]) -> V2PBatch:
        """Frames stacked, still uint8, texts padded on the right to the longest.

        A batch that the cache has whole holds its features instead of frames; one sample that it lacks, and all are
        decoded (see `OrderedSamples`).

        Raises:
            RuntimeError: if the cache lacks a sample and ``cache_miss`` is "error".
        """
        values = [one.value for one in loaded if one.value is not None]
        texts = self._linked().collate([value.turn for value in values])
        shown = [value.frames for value in values if value.frames is not None]
        cached = [value.features for value in values if value.features is not None]
        lacking = [value.plan.key for value in values if value.frames is None and value.features is None]
        if lacking and self.cache is not None:
            raise self.cache.missing(lacking)
        return V2PBatch(
            frames=planes_of(shown) if shown else None,
            grid=torch.stack([one.grid for one in cached]) if cached else None,
            superpixels=torch.stack([one.superpixels for one in cached]) if cached else None,
            superpixel_means=torch.stack([one.means for one in cached]) if cached else None,
            input_ids=texts.input_ids,
            labels=texts.labels,
            attention_mask=texts.attention_mask,
            task=[value.plan.task for value in values],
            key=[value.plan.key for value in values],
            ordinal=torch.from_numpy(np.array([one.ordinal for one in loaded], dtype=np.int64)),
        )

    def is_cached(self, example: EncodedExample) -> bool:
        """See `VplmDataModule.is_cached`."""
        return example.frames is None

    def _once(self, use: HeldOut) -> OrderedLoader[EncodedExample, V2PBatch] | list[Any]:
        self._linked()
        return super()._once(use)

    def _linked(self) -> Conversation:
        if self.conversation is None:
            raise RuntimeError(
                "V2PDataModule needs a conversation (tokenizer, template, number of visual tokens) to make token ids; "
                "pass conversation=... or set it before training"
            )
        return self.conversation
