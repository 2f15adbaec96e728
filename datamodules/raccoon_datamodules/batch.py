"""The batches a training step receives, the legend of shape letters and the one mask convention.

Letters, everywhere in this project: **B** batch, **F** frames, **C** channels, **H W** pixels, **h w** token grid,
**t** encoded frames, **d** feature width, **S** superpixels, **k** clusters, **v** overlap, **N** visual tokens,
**L** text tokens.

Masks, everywhere in this project: **1 = edit here**, 0 = keep. Adapters to other conventions convert at their border.

Pixels leave the loader as the 8-bit values that were decoded, and ``batch.floats()`` makes of them what training takes,
where the batch is by then: a quarter of the bytes goes through worker processes and to the device. The datamodules call
it after each transfer (`VplmDataModule.on_after_batch_transfer`); whoever iterates a loader without a trainer calls it.

The batches are slotted but not frozen: Lightning moves a batch to a device, and casts it under FSDP and in half
precision, by assigning each field of a copy, and refuses a frozen dataclass. Treat them as values all the same.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T", "V2PBatch", "P2VBatch", "P2VLatentBatch")


def _pinned(batch: T) -> T:
    values = {f.name: getattr(batch, f.name) for f in fields(batch)}
    pinned: dict[str, Any] = {name: value.pin_memory() for name, value in values.items() if isinstance(value, Tensor)}
    return replace(batch, **pinned)


def _floats(values: Tensor, *, divisor: float = 1.0, minus: float = 0.0) -> Tensor:
    """Uint8 to contiguous float32 of the same shape, value / divisor - minus; anything else is returned as it is."""
    if values.dtype != torch.uint8:
        return values
    made = values.to(torch.float32, memory_format=torch.contiguous_format)
    # By a tensor on the device: by a number, CUDA multiplies with the reciprocal, and rounds otherwise than the CPU.
    return made.div_(torch.full((), divisor, device=made.device)).sub_(minus) if divisor != 1 else made


@dataclass(slots=True)
class V2PBatch:
    """What the describer trains on (paper, section 3.3, "MLLM Instructional Fine-tuning").

    Exactly one of ``frames`` and ``grid`` is given:

    - ``frames`` [B, F, 3, H, W] float in [0, 1], or as they come from the loader, uint8 in [0, 255];
    - ``grid`` [B, t, h, w, d] float, cached features of the visual encoder.

    ``superpixels`` [B, F, H, W] int16 local ids (each frame counts from 0), or None to let the model compute them.
    ``superpixel_means`` [B, F, S, C] int32 stand beside a ``grid`` and its superpixels: what the model says of their
    pixels, by which it clusters them; without them a grid gives other tokens than the frames it is of.
    ``input_ids``, ``labels``, ``attention_mask`` [B, L] int64; labels are -100 outside the answer.
    ``task`` and ``key`` hold one string per sample; ``ordinal`` [B] int64 is each sample's place in the run's order.

    Raises:
        ValueError: if not exactly one of frames and grid is given.
    """

    frames: Tensor | None
    grid: Tensor | None
    superpixels: Tensor | None
    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor
    task: list[str]
    key: list[str]
    ordinal: Tensor
    superpixel_means: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.frames is None) == (self.grid is None):
            given = "both" if self.frames is not None else "neither"
            raise ValueError(f"a V2PBatch needs exactly one of frames and grid, got {given}")

    def floats(self) -> "V2PBatch":
        """The batch with frames float32 in [0, 1], contiguous, on their device; itself if it has no 8-bit frames."""
        if self.frames is None or self.frames.dtype != torch.uint8:
            return self
        return replace(self, frames=_floats(self.frames, divisor=255.0))

    def pin_memory(self) -> "V2PBatch":
        """The batch in page-locked memory; called by torch's DataLoader."""
        return _pinned(self)


@dataclass(slots=True)
class P2VBatch:
    """What the painter trains on (paper, section 3.3, "Video Diffusion Model Fine-tuning").

    - ``target``, ``condition`` [B, F, 3, H, W] float in [-1, 1], or as they come from the loader, uint8 in [0, 255];
      the condition is **unmasked**: masking happens in one function of the model, for training and sampling alike;
    - ``edit_mask`` [B, F, 1, H, W] float or uint8 {0, 1}, 1 = edit here;
    - ``prompt``, ``task`` ("remove", "add" or "change") and ``key``: one string per sample;
    - ``ordinal`` [B] int64, each sample's place in the run's order.
    """

    target: Tensor
    condition: Tensor
    edit_mask: Tensor
    prompt: list[str]
    task: list[str]
    key: list[str]
    ordinal: Tensor

    def floats(self) -> "P2VBatch":
        """The batch with clips float32 in [-1, 1] and masks float32, contiguous, on their device.

        Itself if nothing of it is uint8.
        """
        if torch.uint8 not in (self.target.dtype, self.condition.dtype, self.edit_mask.dtype):
            return self
        target, condition = (_floats(clips, divisor=127.5, minus=1.0) for clips in (self.target, self.condition))
        return replace(self, target=target, condition=condition, edit_mask=_floats(self.edit_mask))

    def pin_memory(self) -> "P2VBatch":
        """The batch in page-locked memory; called by torch's DataLoader."""
        return _pinned(self)


@dataclass(slots=True)
class P2VLatentBatch:
    """A `P2VBatch` whose frozen parts were computed before (`raccoon cache`): latents instead of frames.

    - ``target`` [B, F, C, h, w] float, the target's normalised latents;
    - ``condition`` [B, F, C, h, w] float, the condition's: of the **masked** frames if the model masks in pixels, of
      the unmasked ones if it masks latents;
    - ``text`` [B, L, d] float, the prompts' features; the rest as in `P2VBatch`.
    """

    target: Tensor
    condition: Tensor
    edit_mask: Tensor
    text: Tensor
    prompt: list[str]
    task: list[str]
    key: list[str]
    ordinal: Tensor

    def floats(self) -> "P2VLatentBatch":
        """The batch with masks float32; itself if it has them. Latents stay as they were stored."""
        if self.edit_mask.dtype != torch.uint8:
            return self
        return replace(self, edit_mask=_floats(self.edit_mask))

    def pin_memory(self) -> "P2VLatentBatch":
        """The batch in page-locked memory; called by torch's DataLoader."""
        return _pinned(self)
