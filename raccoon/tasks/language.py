"""Pre-training of the language model that the paper takes as given: a miniature Llama that knows the describer's tasks.

It reads paragraphs, and the describer's instructions over written facts (`raccoon_datamodules.texts`). So the later
stage, with the language model frozen but for LoRA and head, only has to turn visual tokens into facts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from raccoon.models.video_llm import TemplateName, answer_loss
from raccoon.tasks.optim import OptimizerSettings, configure
from raccoon.tasks.run_log import mean_over_ranks
from raccoon.tasks.tokenizer import VOCABULARY_SIZE, tiny_tokenizer
from raccoon_datamodules.conversation import Conversation
from raccoon_datamodules.texts import TEXT_TASKS, TextBatch


class LanguageTask(pl.LightningModule):
    """Trains a `LlamaForCausalLM` from nothing on `TextBatch`.

    Logs ``train/loss`` and ``val/loss`` (mean over texts of the mean cross-entropy of a text's learned tokens, nats),
    ``train/loss_TASK`` and ``val/loss_TASK`` for each of `texts.TEXT_TASKS` in the first rank's batch.
    A test logs the same under ``test/``.

    Args:
        llama: arguments of `LlamaConfig`; the vocabulary and the special ids are the tokenizer's.
        optimizer: see `raccoon.tasks.optim`.
        template: how a task is written, that of the describer.
        max_length: longest text in tokens; longer ones are cut.
        compile_model: run the network through torch.compile.

    Raises:
        ValueError: if llama sets what the tokenizer decides.
    """

    def __init__(
        self,
        llama: dict[str, Any],
        optimizer: OptimizerSettings,
        *,
        template: TemplateName = "plain",
        max_length: int = 768,
        compile_model: bool = False,
    ) -> None:
        super().__init__()
        from transformers import LlamaConfig, LlamaForCausalLM

        self.tokenizer = tiny_tokenizer(max_length=max(max_length, 2048))
        decided = {
            "vocab_size": max(VOCABULARY_SIZE, len(self.tokenizer)),
            "bos_token_id": self.tokenizer.bos_token_id,
            "eos_token_id": self.tokenizer.eos_token_id,
            "pad_token_id": self.tokenizer.pad_token_id,
        }
        if set_twice := sorted(decided.keys() & llama.keys()):
            raise ValueError(f"{', '.join(set_twice)} of the llama must not be set, the tokenizer decides")
        self.llama = LlamaForCausalLM(LlamaConfig(**llama, **decided))
        self.optimizer = optimizer
        # One slot, which the facts take.
        self.conversation = Conversation(self.tokenizer, 1, template, max_length=max_length)
        self._hidden = torch.compile(self._read) if compile_model else self._read

    def setup(self, stage: str) -> None:
        """Link the conversation into the datamodule, if nobody did."""
        link_conversation(self)

    def forward(self, batch: TextBatch) -> Tensor:
        """The loss of each text, float32 [B]: mean cross-entropy of its learned tokens."""
        hidden = self._hidden(batch.input_ids, batch.attention_mask)
        return answer_loss(hidden, batch.labels, self.llama.lm_head)

    def training_step(self, batch: TextBatch, batch_idx: int) -> Tensor:
        """One batch.

        Raises:
            RuntimeError: if the loss is not finite: says which samples the batch held.
        """
        losses = self(batch)
        check_finite(losses, batch.key, self.global_step)
        log_losses(self, "train", losses, batch.task, TEXT_TASKS)
        return losses.mean()

    def validation_step(self, batch: TextBatch, batch_idx: int) -> None:
        """The losses of the tasks."""
        log_losses(self, "val", self(batch), batch.task, TEXT_TASKS)

    def test_step(self, batch: TextBatch, batch_idx: int) -> None:
        """As a validation step."""
        log_losses(self, "test", self(batch), batch.task, TEXT_TASKS)

    def configure_optimizers(self) -> Any:
        """See `raccoon.tasks.optim`."""
        return configure(self.llama, self.optimizer, max_steps=self.trainer.max_steps)

    def export(self, folder: str | Path, *, dtype: torch.dtype = torch.float16) -> None:
        """Write the language model and, beside it in ``tokenizer/``, its tokenizer."""
        from transformers import LlamaForCausalLM

        copied = LlamaForCausalLM(self.llama.config)
        copied.load_state_dict(self.llama.state_dict())
        copied.to(dtype)
        copied.config.dtype = dtype
        copied.save_pretrained(folder)
        self.tokenizer.save_pretrained(Path(folder) / "tokenizer")

    def _read(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        out = self.llama.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        hidden: Tensor = out.last_hidden_state
        return hidden


def link_conversation(task: Any) -> None:
    """Give a task's conversation to its trainer's datamodule, where it wants one and has none."""
    datamodule: Any = getattr(task.trainer, "datamodule", None)
    if getattr(datamodule, "conversation", task) is None:
        datamodule.conversation = task.conversation


def check_finite(losses: Tensor, keys: Sequence[str], step: int) -> None:
    """Raise RuntimeError, naming the samples, if a loss is not finite."""
    if not bool(torch.isfinite(losses).all()):
        bad = [key for key, loss in zip(keys, losses.tolist(), strict=True) if loss - loss != 0]
        raise RuntimeError(
            f"the loss must be finite, it is not at step {step} on the samples {', '.join(bad)}; lower the learning "
            "rate or look at these samples"
        )


def log_losses(task: pl.LightningModule, use: str, losses: Tensor, names: Sequence[str], known: Sequence[str]) -> None:
    """Log ``USE/loss`` over all ranks, and ``USE/loss_NAME`` of the samples of each kind on the first one."""
    detached = losses.detach()
    in_training = use == "train"
    mean = mean_over_ranks(task, detached.mean()) if in_training else detached.mean()
    task.log(f"{use}/loss", mean, prog_bar=True, batch_size=len(names), sync_dist=not in_training)
    for name in known:
        rows = [row for row, other in enumerate(names) if other == name]
        if rows:
            task.log(f"{use}/loss_{name}", detached[rows].mean(), batch_size=len(rows), rank_zero_only=True)
