"""A training of several real processes for the tests: each rank writes down what every optimizer step trained on.

Run as `python elastic_run.py PLAN.json`. The plan holds ``out``, ``train``, ``ranks`` and one or more ``fits``, which
are done one after the other by the same processes: ``name``, ``steps``, and what else `fit` takes. Everything that
concerns data and checkpoints is Lightning's own and `P2VDataModule`: there is no code for resuming here.
"""

import json
import os
import sys
import time
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from training_task import TinyTask

from raccoon.tasks.callbacks import StepSeed
from raccoon.tasks.optim import OptimizerSettings
from raccoon_datamodules.p2v import P2VDataModule


class Recorder(pl.Callback):
    """Appends (ordinal, key, task) of each finished optimizer step to ``NAME.rankR.jsonl``.

    ``hold`` stops the rank, or only ``hold_rank``, before the batch of that number and waits to be killed. The file
    ``NAME.heldR`` then holds the number of the process.
    """

    def __init__(self, out: str, name: str, hold: int | None = None, hold_rank: int | None = None):
        self.out, self.name, self.hold, self.hold_rank = Path(out), name, hold, hold_rank
        self.batches = 0
        self.samples = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.batches == self.hold and self.hold_rank in (None, trainer.global_rank):
            sign = self.out / f"{self.name}.held{trainer.global_rank}"
            sign.with_suffix(".new").write_text(str(os.getpid()))
            sign.with_suffix(".new").rename(sign)
            time.sleep(600)
        self.batches += 1
        self.samples += zip(batch.ordinal.tolist(), batch.key, batch.task, strict=True)
        self.step = trainer.global_step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            return
        with (self.out / f"{self.name}.rank{trainer.global_rank}.jsonl").open("a") as out:
            out.write(json.dumps({"step": trainer.global_step, "samples": self.samples}) + "\n")
        self.samples = []


def fit(
    out,
    train,
    ranks,
    name,
    steps,
    *,
    val=None,
    workers=0,
    accumulate=1,
    global_batch_size=6,
    save_every=2,
    hold=None,
    hold_rank=None,
    resume=None,
    saved=None,
    **data,
):
    """One fit; returns the task. Leaves the records, the checkpoints ``NAME/step=N.ckpt`` and ``NAME.pt``."""
    torch.manual_seed(0)
    task = TinyTask(2, OptimizerSettings(1e-2, warmup_steps=2, schedule="constant"), dropout=0.5)
    datamodule = P2VDataModule(
        train, val, num_frames=2, size=(16, 16), global_batch_size=global_batch_size, num_workers=workers, **data
    )
    saved = saved or ModelCheckpoint(Path(out) / name, "{step}", every_n_train_steps=save_every, save_top_k=-1)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        max_steps=steps,
        val_check_interval=4 * accumulate,
        check_val_every_n_epoch=None,
        accumulate_grad_batches=accumulate,
        num_sanity_val_steps=0,
        limit_val_batches=0 if val is None else 1.0,
        use_distributed_sampler=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[StepSeed(), saved, Recorder(out, name, hold, hold_rank)],
    )
    trainer.fit(task, datamodule, ckpt_path=resume)
    if trainer.is_global_zero:
        torch.save(task.state_dict(), Path(out) / f"{name}.pt")
    return task


if __name__ == "__main__":
    plan = json.loads(Path(sys.argv[1]).read_text())
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for one in plan["fits"]:
        fit(plan["out"], plan["train"], plan["ranks"], **one)
    Path(plan["out"], f"done{os.environ.get('LOCAL_RANK', 0)}").touch()
