"""The describer's training (paper, section 3.3, "MLLM Instructional Fine-tuning"), all tasks mixed.

Cross-entropy on the answers of describe, describe_object and layout; what learns is the paper's (projector, LoRA, head,
and the rows of the visual tokens), unless ``trainable`` says otherwise.
"""

import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from raccoon.models.decoding import Constraint
from raccoon.models.grammars import ParagraphGrammar
from raccoon.models.video_llm import Trainable, VideoLLM
from raccoon.tasks.cache_features import link_cache, v2p_model
from raccoon.tasks.ema import WeightAverage
from raccoon.tasks.language import check_finite, link_conversation, log_losses
from raccoon.tasks.optim import OptimizerSettings, configure
from raccoon_datamodules.batch import V2PBatch
from raccoon_datamodules.conversation import IGNORE, Conversation
from raccoon_datamodules.paragraph import Paragraph
from raccoon_datamodules.tasks import V2P_TASKS
from raccoon_datamodules.wording import words_of


class V2PTask(pl.LightningModule):
    """Trains a `VideoLLM` on `V2PBatch`.

    Logs ``train/loss`` and ``val/loss`` (mean over samples of the mean cross-entropy of a sample's answer, nats),
    ``train/loss_TASK`` and ``val/loss_TASK`` of the first rank's batch, and at every ``describe_every``-th validation,
    from ``describe_clips`` described clips: ``val/recall`` (share of the objects whose name was written),
    ``val/precision`` (share of written names that are right) and ``val/colour`` (share of right kinds of thing, by the
    last word of the name, whose whole name is right). A test logs the same under ``test/``.

    Args:
        network: the describer.
        optimizer: see `raccoon.tasks.optim`.
        trainable: "paper", or "all" for the whole language model; the visual encoder never learns.
        ema_decay: of the moving average of weights that is validated and exported; None = no average.
        describe_clips: clips of the task "describe" that a validation (of each rank) describes; 0 = none.
        describe_every: validations from one description to the next, the first one included.
        max_new_tokens: of a description.
        encoder_reference: where the exported folder finds the encoder, relative to itself ("../clip"), instead of
            holding a copy; None = a copy.
        gradient_checkpointing: recompute the language model's activations in the backward pass.

    Raises:
        ValueError: if describe_clips is negative or another number not positive.
    """

    def __init__(
        self,
        network: VideoLLM,
        optimizer: OptimizerSettings,
        *,
        trainable: Trainable = "paper",
        ema_decay: float | None = None,
        describe_clips: int = 8,
        describe_every: int = 1,
        max_new_tokens: int = 384,
        encoder_reference: str | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if describe_clips < 0 or min(describe_every, max_new_tokens) < 1:
            raise ValueError(
                "describe_clips >= 0, describe_every >= 1 and max_new_tokens >= 1 must hold, got "
                f"{describe_clips}, {describe_every} and {max_new_tokens}"
            )
        self.network = network
        self.optimizer = optimizer
        self.describe_clips = describe_clips
        self.describe_every = describe_every
        self.max_new_tokens = max_new_tokens
        self.encoder_reference = encoder_reference
        network.set_trainable(trainable)
        if gradient_checkpointing:
            network.recompute_activations()
        self._average = None if ema_decay is None else WeightAverage(network, ema_decay)
        self._averaged_step = 0
        self._validations = 0
        self._to_describe = 0
        self._constraint: Constraint | None = None

    @property
    def conversation(self) -> Conversation:
        """What the datamodule needs to make token ids."""
        return self.network.conversation

    def setup(self, stage: str) -> None:
        """Link the conversation into the datamodule, if nobody did, and what its cache must be of, if it has one."""
        link_conversation(self)
        link_cache(self, lambda: v2p_model(self.network))

    def forward(self, batch: V2PBatch) -> Tensor:
        """The loss of each sample, float32 [B]; see `VideoLLM.forward`."""
        losses: Tensor = self.network(batch)
        return losses

    def training_step(self, batch: V2PBatch, batch_idx: int) -> Tensor:
        """One batch.

        Raises:
            RuntimeError: if the loss is not finite: says which samples the batch held.
        """
        losses = self(batch)
        check_finite(losses, batch.key, self.global_step)
        log_losses(self, "train", losses, batch.task, V2P_TASKS)
        return losses.mean()

    def validation_step(self, batch: V2PBatch, batch_idx: int) -> None:
        """The losses of the tasks, and some clips described."""
        self._measure(batch, "val")

    def test_step(self, batch: V2PBatch, batch_idx: int) -> None:
        """As a validation step."""
        self._measure(batch, "test")

    def _measure(self, batch: V2PBatch, use: str) -> None:
        batch = batch.floats()
        with self._averaged():
            log_losses(self, use, self(batch), batch.task, V2P_TASKS)
            rows = [row for row, task in enumerate(batch.task) if task == "describe"][: self._to_describe]
            if rows:
                self._to_describe -= len(rows)
                self._describe(batch, rows, use)

    def on_fit_start(self) -> None:
        """Let Lightning start without remarking that the encoder is in evaluation mode: it is meant to be."""
        self.network.train()
        warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")

    def on_validation_epoch_start(self) -> None:
        """Every description is of the same clips."""
        in_fit = self.trainer.state.fn == "fit"
        self._to_describe = 0 if in_fit and self._validations % self.describe_every else self.describe_clips
        self._validations += in_fit and not self.trainer.sanity_checking

    def on_test_epoch_start(self) -> None:
        """As before a validation."""
        self.on_validation_epoch_start()

    def configure_optimizers(self) -> Any:
        """See `raccoon.tasks.optim`; only what trains gets an optimizer state."""
        return configure(self.network, self.optimizer, max_steps=self.trainer.max_steps)

    def on_train_batch_end(self, outputs: Any, batch: V2PBatch, batch_idx: int) -> None:
        """Move the average of weights after each optimizer step."""
        if self._average is not None and self.global_step != self._averaged_step:
            self._averaged_step = self.global_step
            self._average.update()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen parts out, which the recipe names, and put the average in."""
        learned = self._learned()
        checkpoint["state_dict"] = {key: value for key, value in checkpoint["state_dict"].items() if key in learned}
        checkpoint["v2p"] = {"validations": self._validations}
        if self._average is not None:
            checkpoint["weight_average"] = self._average.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the frozen parts from the recipe, and the average from the checkpoint."""
        learned = self._learned()
        own = self.state_dict()
        checkpoint["state_dict"].update({key: value for key, value in own.items() if key not in learned})
        self._validations = int(checkpoint.get("v2p", {}).get("validations", 0))
        if self._average is not None and "weight_average" in checkpoint:
            self._average.load_state_dict(checkpoint["weight_average"])
            self._averaged_step = int(checkpoint.get("global_step", 0))

    def export(self, folder: str | Path, *, dtype: torch.dtype = torch.float16) -> None:
        """Write the describer's folder, with the averaged weights if there are any."""
        with self._averaged():
            self.network.save_pretrained(
                folder, dtype=str(dtype).removeprefix("torch."), encoder=self.encoder_reference
            )

    def _learned(self) -> set[str]:
        return {name for name, parameter in self.named_parameters() if parameter.requires_grad}

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self._average is None else self._average.applied()

    def _describe(self, batch: V2PBatch, rows: list[int], use: str) -> None:
        network = self.network
        if self._constraint is None:
            self._constraint = Constraint(network.vocabulary, ParagraphGrammar(), self.max_new_tokens)
        given = (batch.attention_mask == 1) & (batch.labels == IGNORE)
        texts = network.generate(
            [batch.input_ids[row][given[row]].cpu() for row in rows],
            frames=None if batch.frames is None else batch.frames[rows],
            grid=None if batch.grid is None else batch.grid[rows],
            superpixels=None if batch.superpixels is None else batch.superpixels[rows],
            superpixel_means=None if batch.superpixel_means is None else batch.superpixel_means[rows],
            constraints=[self._constraint] * len(rows),
        )
        for row, text in zip(rows, texts, strict=True):
            answer = network.tokenizer.decode(batch.labels[row][batch.labels[row] != IGNORE], skip_special_tokens=True)
            found = match_names(Paragraph.parse(text)[0], Paragraph.parse(answer)[0])
            for name, (right, of) in found.items():
                if of:
                    self.log(f"{use}/{name}", right / of, batch_size=of, rank_zero_only=True)


def match_names(written: Paragraph, truth: Paragraph) -> dict[str, tuple[int, int]]:
    """Count the objects of a paragraph that are named as in the truth, ignoring case and order.

    Returns (right, of) for "recall" (of the truth's objects), "precision" (of the written ones) and "colour" (of the
    truth's objects whose kind, the last word of the name, was written). It looks at names only; the evaluation has the
    full comparison.
    """
    names = [words_of(name) for name in written.names]
    true = [words_of(name) for name in truth.names]
    right = sum(name in names for name in true)
    kinds = {words[-1] for words in names if words}
    same_kind = [words for words in true if words and words[-1] in kinds]
    return {
        "recall": (right, len(true)),
        "precision": (sum(name in true for name in names), len(names)),
        "colour": (sum(words in names for words in same_kind), len(same_kind)),
    }
