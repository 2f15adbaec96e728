"""`P2VDataModule`: training examples for the painter (paper, section 3.3, "Video Diffusion Model Fine-tuning")."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raccoon_datamodules.batch import P2VBatch
from raccoon_datamodules.datamodule import VplmDataModule
from raccoon_datamodules.faults import Loaded
from raccoon_datamodules.mixture import Corpora, Shards
from raccoon_datamodules.pixels import stack_planes
from raccoon_datamodules.tasks import P2V_TASKS, Choice, FrameSampling, P2VExample, check_weights, make_p2v
from raccoon_datamodules.view import SampleView


class P2VDataModule(VplmDataModule[P2VExample, P2VBatch]):
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
        )
        height, width = size
        if min(num_frames, height, width) < 1:
            raise ValueError(f"num_frames and size must be positive, got {num_frames} frames of {height}x{width}")
        self.num_frames = num_frames
        self.size = (height, width)
        self.frame_sampling: FrameSampling = frame_sampling

    def make_example(self, view: SampleView, choice: Choice, rng: np.random.Generator) -> P2VExample:
        """See `tasks.make_p2v`."""
        return make_p2v(view, choice, num_frames=self.num_frames, size=self.size, rng=rng, sampling=self.frame_sampling)

    def collate(self, loaded: list[Loaded[P2VExample]]) -> P2VBatch:
        """Frames to float in [-1, 1], masks to float {0, 1}."""
        examples = [one.value for one in loaded if one.value is not None]
        masks = torch.from_numpy(np.stack([example.edit_mask for example in examples]))
        return P2VBatch(
            target=_pixels([example.target for example in examples]),
            condition=_pixels([example.condition for example in examples]),
            edit_mask=masks.unsqueeze(2).float(),
            prompt=[example.prompt for example in examples],
            task=[example.task for example in examples],
            key=[example.key for example in examples],
            ordinal=torch.tensor([one.ordinal for one in loaded], dtype=torch.int64),
        )


def _pixels(clips: list[NDArray[np.uint8]]) -> Tensor:
    """Clips uint8 [F, H, W, 3] to float32 [B, F, 3, H, W] in [-1, 1]."""
    return stack_planes(clips).float().div_(127.5).sub_(1.0)
