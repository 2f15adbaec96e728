"""`P2VDataModule`: training examples for the painter (paper, section 3.3, "Video Diffusion Model Fine-tuning")."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raccoon_datamodules.batch import P2VBatch, P2VLatentBatch
from raccoon_datamodules.cache import CachedView, CacheMiss, P2VFeatures, P2VModel
from raccoon_datamodules.datamodule import VplmDataModule
from raccoon_datamodules.faults import Loaded
from raccoon_datamodules.loader import OrderedLoader
from raccoon_datamodules.mixture import Corpora, Shards
from raccoon_datamodules.pixels import planes_of
from raccoon_datamodules.tasks import (
    P2V_TASKS,
    Choice,
    FrameSampling,
    P2VExample,
    P2VPlan,
    check_weights,
    edit_mask,
    painted,
    plan_p2v,
)
from raccoon_datamodules.view import SampleView


@dataclass(frozen=True, slots=True, eq=False)
class CachedP2V:
    """An example from a cache: what it is, its mask uint8 {0, 1} [F, H, W], and features, None if any is missing."""

    plan: P2VPlan
    edit_mask: NDArray[np.uint8]
    features: P2VFeatures | None


class P2VDataModule(VplmDataModule[P2VExample | CachedP2V, P2VBatch | P2VLatentBatch]):
    """Removal, addition and change of objects, as `P2VBatch`.

    ``tasks`` weighs "remove", "add" and "change" (default: equally). ``num_frames`` frames of ``size`` (height, width)
    make a clip; ``frame_sampling`` "segments" draws one frame from each of as many equal segments (as the released
    code does), "uniform" takes them evenly. For the other arguments see `VplmDataModule`.

    Raises:
        ValueError: if a task is unknown or a number is not positive.
    """

    def __init__(
        self,
        train: Corpora,
        val: Shards | None = None,
        *,
        test: Shards | None = None,
        global_batch_size: int = 8,
        num_frames: int = 16,
        size: tuple[int, int] = (320, 512),
        tasks: Mapping[str, float] | None = None,
        frame_sampling: FrameSampling = "segments",
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
            tasks=check_weights(dict.fromkeys(P2V_TASKS, 1.0) if tasks is None else tasks, P2V_TASKS),
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
        self.cached_model: P2VModel | None = None
        self.num_frames = num_frames
        self.size = (height, width)
        self.frame_sampling: FrameSampling = frame_sampling

    def train_dataloader(self) -> OrderedLoader[P2VExample | CachedP2V, P2VBatch | P2VLatentBatch]:
        """See `VplmDataModule.train_dataloader`; raises as `FeatureCache.ready` if a cache is named."""
        if self.cache is not None:
            self.cache.ready(self.cached_model, type(self).make_example, P2VDataModule.make_example)
        return super().train_dataloader()

    def make_example(self, view: SampleView, choice: Choice, rng: np.random.Generator) -> P2VExample | CachedP2V:
        """See `tasks.make_p2v`."""
        plan = plan_p2v(view, choice, num_frames=self.num_frames, rng=rng, sampling=self.frame_sampling)
        if self.cache is not None and self.cached_model is not None and isinstance(view, CachedView):
            features = self.cache.p2v(self.cached_model, view, plan, self.size)
            if features is not None or self.cache.miss == "error":
                return CachedP2V(plan, edit_mask(view, plan, self.size), features)
        return painted(view, plan, self.size)

    def collate(self, loaded: list[Loaded[P2VExample | CachedP2V]]) -> P2VBatch | P2VLatentBatch:
        """Frames and masks stacked, still uint8.

        A batch that the cache has whole holds its latents instead of frames; one sample that it lacks, and all are
        decoded (see `OrderedSamples`).

        Raises:
            RuntimeError: if the cache lacks a sample and ``cache_miss`` is "error".
        """
        values = [one.value for one in loaded if one.value is not None]
        ordinal = torch.from_numpy(np.array([one.ordinal for one in loaded], dtype=np.int64))
        lacking = [one.plan.key for one in values if isinstance(one, CachedP2V) and one.features is None]
        if lacking and self.cache is not None:
            raise self.cache.missing(lacking)
        cached = [(one, one.features) for one in values if isinstance(one, CachedP2V) and one.features is not None]
        if cached:
            return P2VLatentBatch(
                target=torch.stack([features.target for _, features in cached]),
                condition=torch.stack([features.condition for _, features in cached]),
                edit_mask=_masks([one.edit_mask for one, _ in cached]),
                text=torch.stack([features.text for _, features in cached]),
                prompt=[one.plan.prompt for one, _ in cached],
                task=[one.plan.task for one, _ in cached],
                key=[one.plan.key for one, _ in cached],
                ordinal=ordinal,
            )
        examples = [one for one in values if isinstance(one, P2VExample)]
        return P2VBatch(
            target=planes_of([example.target for example in examples]),
            condition=planes_of([example.condition for example in examples]),
            edit_mask=_masks([example.edit_mask for example in examples]),
            prompt=[example.prompt for example in examples],
            task=[example.task for example in examples],
            key=[example.key for example in examples],
            ordinal=ordinal,
        )

    def is_cached(self, example: P2VExample | CachedP2V) -> bool:
        """See `VplmDataModule.is_cached`."""
        return isinstance(example, CachedP2V)


def _masks(masks: list[NDArray[np.uint8]]) -> Tensor:
    """Masks uint8 {0, 1} [F, H, W] to uint8 [B, F, 1, H, W]."""
    return torch.from_numpy(np.stack(masks)).unsqueeze(2)
