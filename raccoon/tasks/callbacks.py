"""What watches over a run: the guard against non-finite losses, steady draws, throughput, checkpoints, exports.

None of them knows a model. `raccoon fit` adds those that a recipe does not name itself.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from torch import Tensor, nn

from raccoon_datamodules.order import torch_draw

# Keys of a batch that are named in a message; more would hide the sentence.
_NAMED_KEYS = 8


class NonFiniteLossError(RuntimeError):
    """The loss became infinite or not a number; the run stopped before the optimizer step."""


class NonFiniteGuard(Callback):
    """Stops a run at a non-finite loss, before it reaches the weights, and says which samples were in the batch.

    Reading the loss waits for the device once a batch.
    """

    def __init__(self) -> None:
        self._batch: Any = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch until its loss is known."""
        self._batch = batch

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Look at the loss.

        Raises:
            NonFiniteLossError: names the step, the loss and the samples.
        """
        if bool(torch.isfinite(loss.detach()).all()):
            return
        keys = [str(key) for key in _field(self._batch, "key") or ()]
        more = f" and {len(keys) - _NAMED_KEYS} more" if len(keys) > _NAMED_KEYS else ""
        held = f"samples {', '.join(keys[:_NAMED_KEYS])}{more}" if keys else "a batch that names no samples"
        raise NonFiniteLossError(
            f"the loss must be finite, it is {loss.detach().float().flatten()[0].item()} at step "
            f"{trainer.global_step} on {held}; lower the learning rate or look at these samples (no weight was changed)"
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let the batch go."""
        self._batch = None


class StepSeed(Callback):
    """Seeds torch's global generator before every batch by (seed, first ordinal of the batch).

    What draws from it, dropout above all, is so the same in a continued run as in one that was never stopped, though
    checkpoints hold no generator. Draws that must not depend on ranks use `order.torch_draw` with each ordinal.

    ``seed`` in [0, 2**64); None takes the datamodule's, or 0.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed for this batch."""
        seed = self.seed
        if seed is None:
            seed = int(getattr(trainer.datamodule, "seed", 0))  # type: ignore[attr-defined]  # Lightning sets it
        ordinals = _field(batch, "ordinal")
        if ordinals is None or len(ordinals) == 0:
            ordinal = trainer.fit_loop.epoch_loop.batch_progress.total.ready * trainer.world_size + trainer.global_rank
        else:
            ordinal = int(ordinals[0])
        torch.manual_seed(torch_draw(seed, ordinal, "train/step").initial_seed())


class FrozenStayEval(Callback):
    """Keeps every module whose parameters are all frozen in eval mode, so that no dropout disturbs what is given.

    All others are put in train mode: transformers hands over what it loads in eval mode, and Lightning leaves it so.
    """

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Before training, and again where a stream begins anew; validation puts the modes back by itself."""
        pl_module.train()
        freeze_modes(pl_module)


def freeze_modes(module: nn.Module) -> list[str]:
    """Put every submodule that has parameters, all of them frozen, in eval mode; return the outermost such names."""
    found = []
    for name, child in module.named_children():
        parameters = list(child.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            child.eval()
            found.append(name)
        else:
            found += [f"{name}.{inner}" for inner in freeze_modes(child)]
    return found


class Throughput(Callback):
    """Logs ``train/clips_per_second`` over all ranks, and ``train/data_wait``: the share of time in [0, 1] that
    training stood and waited for the loader, both since the last logged step. Times are those of the first rank.

    On CUDA the host runs ahead of the device, so both mean something only over many steps.
    """  # noqa: D205  # the two figures are one sentence

    def __init__(self) -> None:
        self._since = self._idle_since = 0.0
        self._waited = 0.0
        self._clips = 0
        self._logged_step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        self._begin()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The loader has delivered."""
        self._waited += time.perf_counter() - self._idle_since

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch; log where the trainer logs."""
        keys = _field(batch, "key")
        self._clips += 0 if keys is None else len(keys) * trainer.world_size
        now = time.perf_counter()
        step = trainer.global_step
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning sets it
        if self._clips and step != self._logged_step and every and step % every == 0:
            self._logged_step = step
            passed = now - self._since
            pl_module.log("train/clips_per_second", self._clips / passed, rank_zero_only=True, batch_size=1)
            pl_module.log("train/data_wait", min(self._waited / passed, 1.0), rank_zero_only=True, batch_size=1)
            self._begin()
        self._idle_since = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validation counts neither as training nor as waiting."""
        self._begin()

    def _begin(self) -> None:
        self._since = self._idle_since = time.perf_counter()
        self._waited = 0.0
        self._clips = 0


class LastCheckpoint(Checkpoint):
    """Keeps one checkpoint, ``checkpoints/last.ckpt`` in the run's folder: every so often, and at the last step.

    It replaces the file as a whole, so an interrupted run never leaves half of one. To keep several, or the best by
    some figure, name Lightning's ModelCheckpoint in the recipe instead.

    Args:
        every_minutes: time between two checkpoints.
        every_n_steps: optimizer steps between two checkpoints, in place of the time.
        folder: where to write; None = ``checkpoints`` in the run's folder.

    Raises:
        ValueError: if an interval is not positive.
    """

    def __init__(
        self, *, every_minutes: float = 10.0, every_n_steps: int | None = None, folder: str | None = None
    ) -> None:
        if every_minutes <= 0 or (every_n_steps is not None and every_n_steps < 1):
            raise ValueError(f"the interval must be positive, got {every_minutes} minutes and {every_n_steps} steps")
        self.every_minutes = every_minutes
        self.every_n_steps = every_n_steps
        self.folder = folder
        self._path: Path | None = None
        self._saved_at = 0.0
        self._saved_step = -1

    @property
    def path(self) -> Path | None:
        """The file, once training has begun."""
        return self._path

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Settle the folder, which is the first rank's."""
        root = trainer.log_dir
        self._path = Path(self.folder if self.folder is not None else Path(root or ".") / "checkpoints") / "last.ckpt"
        self._saved_at = time.monotonic()
        self._saved_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after an optimizer step, if it is time."""
        step = trainer.global_step
        if step == self._saved_step or self._path is None:
            return
        if step == trainer.max_steps:
            is_due = True
        elif self.every_n_steps is not None:
            is_due = step % self.every_n_steps == 0
        else:
            is_due = time.monotonic() - self._saved_at >= 60 * self.every_minutes
        # The first rank's clock decides for all, since saving may need them all.
        if trainer.world_size > 1 and self.every_n_steps is None:
            is_due = trainer.strategy.broadcast(is_due)
        if is_due:
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what a run that ended for another reason than ``max_steps`` has reached."""
        if self._path is not None and trainer.global_step != self._saved_step:
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        assert self._path is not None
        trainer.save_checkpoint(self._path)
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step


class ExportWeights(Callback):
    """Calls the task's ``export(folder)`` at the end of ``fit``: the network alone, in the layout it is shipped in.

    The folder is written under a temporary name and renamed.

    Args:
        folder: where; None = ``weights`` in the run's folder.
        overwrite: replace the folder if it is there.
    """

    def __init__(self, folder: str | None = None, *, overwrite: bool = False) -> None:
        self.folder = folder
        self.overwrite = overwrite

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse before training what could not be written after it.

        Raises:
            TypeError: if the task has no ``export``.
            FileExistsError: if the folder is there and may not be replaced.
            ValueError: if the strategy shards weights, so that no rank has them whole.
        """
        if stage != "fit":
            return
        if not callable(getattr(pl_module, "export", None)):
            raise TypeError(
                f"ExportWeights needs a task with export(folder), {type(pl_module).__name__} has none; "
                "leave the callback out"
            )
        if shards_weights(trainer):
            raise ValueError(
                "ExportWeights needs the whole weights on one rank, but the strategy shards them; leave the callback "
                "out, and export from the checkpoint with an unsharded run"
            )
        if self.folder is not None and not self.overwrite and Path(self.folder).exists():
            raise FileExistsError(
                f"the weights are to be exported to {self.folder}, which is already there; "
                "name another folder or set overwrite: true"
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Export, on the first rank."""
        root = trainer.log_dir
        if trainer.is_global_zero:
            folder = Path(self.folder) if self.folder is not None else Path(root or ".") / "weights"
            export_folder(pl_module, folder, overwrite=self.overwrite)
        trainer.strategy.barrier("raccoon.export")


def export_folder(task: Any, folder: Path, *, overwrite: bool = False) -> None:
    """Call ``task.export`` so that the folder appears whole or not at all.

    Raises:
        FileExistsError: if the folder is there and ``overwrite`` is not set.
    """
    if folder.exists() and not overwrite:
        raise FileExistsError(f"the folder {folder} is already there; name another or set overwrite: true")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as made:
        new = Path(made) / "new"
        new.mkdir()
        task.export(new)
        if folder.exists():
            folder.rename(Path(made) / "old")
        new.rename(folder)


def shards_weights(trainer: pl.Trainer) -> bool:
    """Return whether the strategy spreads the weights over ranks (FSDP, DeepSpeed, model parallel)."""
    from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

    return isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy | DeepSpeedStrategy)


def _field(batch: Any, name: str) -> Sequence[Any] | Tensor | None:
    """Return a field of a batch, be it a dataclass or a mapping."""
    return batch.get(name) if isinstance(batch, dict) else getattr(batch, name, None)
