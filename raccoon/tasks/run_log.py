"""What a run writes down and shows: its own folder, the figures as CSV and JSON lines, the progress.

The folder is ``ROOT/RECIPE/YYYYmmdd-HHMMSS``; where that is taken, ``-2`` and so on is put after it, so no run ever
writes into another's folder.
"""

import csv
import json
import math
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor


def fresh_folder(parent: Path, name: str) -> Path:
    """Make and return the folder ``parent/name``, or ``parent/name-2`` and so on, the first that is not there."""
    parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def mean_over_ranks(task: pl.LightningModule, value: Tensor) -> Tensor:
    """Return a training figure's mean over all ranks where the trainer writes it down; elsewhere the rank's own value.

    Every rank must call it at the same steps. Averaging at every step (``sync_dist``) would make them wait for each
    other once more in each; so they do it only in the steps whose figures anybody reads.
    """
    trainer = getattr(task, "_trainer", None)  # the property raises where a task is tried without a trainer
    value = value.detach()
    if trainer is None or trainer.world_size == 1:
        return value
    every = trainer.log_every_n_steps
    if not every or (trainer.global_step + 1) % every:
        return value
    mean: Tensor = trainer.strategy.reduce(value.clone(), reduce_op="mean")
    return mean


class RunLogger(Logger):
    """Writes every logged figure to ``metrics.jsonl`` at once and to ``metrics.csv``, in a fresh folder of the run.

    A JSON line holds ``step`` (optimizer steps done), ``time`` (seconds since the run began) and the figures of one
    call; one that is not finite is null. The CSV holds the same, a column a figure.

    Args:
        root: folder of all runs.
        recipe: name of the recipe, a path below ``root``.
        suffix: put behind the time, such as "-validate".
    """

    def __init__(self, root: str | Path, recipe: str, *, suffix: str = "") -> None:
        super().__init__()
        self._parent = Path(root) / recipe
        self._suffix = suffix
        self._folder: Path | None = None
        self._columns: list[str] = []
        self._began = time.monotonic()

    @property
    def folder(self) -> Path:
        """The run's folder; made when it is first asked for, by the first rank alone."""
        if self._folder is None:
            name = datetime.now().strftime("%Y%m%d-%H%M%S") + self._suffix
            if getattr(rank_zero_only, "rank", 0):
                # Another rank never writes here; Lightning sends the first rank's folder to those who ask for it.
                self._folder = self._parent / name
            else:
                self._folder = fresh_folder(self._parent, name)
        return self._folder

    @property
    def save_dir(self) -> str:
        """The run's folder, as Lightning asks for it."""
        return str(self.folder)

    @property
    def name(self) -> str:
        """Empty: checkpoints go right into the run's folder."""
        return ""

    @property
    def version(self) -> str:
        """Empty: checkpoints go right into the run's folder."""
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: ``config.yaml`` in the same folder says it all."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write the figures of one step."""
        figures = {key: float(value) for key, value in metrics.items() if key != "epoch"}
        if not figures:
            return
        record: dict[str, Any] = {"step": step, "time": round(time.monotonic() - self._began, 3)}
        record.update({key: value if math.isfinite(value) else None for key, value in figures.items()})
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps(record, allow_nan=False) + "\n")
        self._write_csv(record)

    def _write_csv(self, record: dict[str, Any]) -> None:
        path = self.folder / "metrics.csv"
        new = [key for key in record if key not in self._columns]
        if not new:
            with path.open("a", encoding="utf-8", newline="") as out:
                csv.DictWriter(out, self._columns, lineterminator="\n").writerow(record)
            return
        # A figure seen for the first time, such as the first validation's: the table gets a column.
        self._columns += new
        lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        with path.open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, self._columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(json.loads(line) for line in lines)


class StepProgress(Callback):
    """Shows the steps of a fit: a bar on a terminal, else a line every so often with the latest figures.

    Args:
        every_seconds: time between two lines where there is no terminal.
    """

    def __init__(self, every_seconds: float = 30.0) -> None:
        self.every_seconds = every_seconds
        self._bar: Any = None
        self._task: Any = None
        self._said_at = 0.0
        self._first_step = 0
        self._began = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin."""
        self._began = self._said_at = time.monotonic()
        self._first_step = trainer.global_step
        if trainer.is_global_zero and sys.stderr.isatty():
            self._bar = _bar()
            total = trainer.max_steps if trainer.max_steps > 0 else None
            self._task = self._bar.add_task("fit", total=total, completed=trainer.global_step, figures="")
            self._bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Go on."""
        if not trainer.is_global_zero:
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step, figures=_figures(trainer.progress_bar_metrics))
        elif time.monotonic() - self._said_at >= self.every_seconds:
            self._say(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End."""
        self._stop()
        if trainer.is_global_zero:
            self._say(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the terminal back, so that the reason is not drawn over."""
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _say(self, trainer: pl.Trainer) -> None:
        now = time.monotonic()
        done = trainer.global_step - self._first_step
        pace = f", {(now - self._began) / done:.3g} s a step" if done else ""
        of = f"/{trainer.max_steps}" if trainer.max_steps > 0 else ""
        figures = _figures(trainer.callback_metrics)
        print(f"step {trainer.global_step}{of}{pace}{': ' if figures else ''}{figures}", file=sys.stderr, flush=True)
        self._said_at = now


def _figures(metrics: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {float(value):.4g}" for name, value in metrics.items())


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)
