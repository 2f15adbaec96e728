"""The two promises of training: any number of processes sees the same run, and a continued run is the same run."""

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from raccoon import recipes
from raccoon.cli import train
from raccoon.cli.console import Console
from raccoon.tasks.callbacks import LastCheckpoint, StepSeed
from raccoon.tasks.optim import OptimizerSettings, configure
from raccoon_datamodules.loader import Place
from raccoon_datamodules.p2v import P2VDataModule
from raccoon_datamodules.sources import SyntheticSource

ROOT = Path(__file__).resolve().parents[2]
TRAINED = [name for name in recipes.names() if name.split("/")[0] in ("v2p", "p2v") or name.startswith("tiny/")]
SETTINGS = OptimizerSettings(1e-2, weight_decay=0.1, warmup_steps=2, schedule="constant")


@pytest.fixture
def tiny_task(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")
    from training_task import TinyTask

    def make(**settings):
        torch.manual_seed(0)
        return TinyTask(2, SETTINGS, **settings)

    return make


def data(global_batch_size=4):
    return P2VDataModule(
        SyntheticSource(num_frames=2, size=(16, 16)), num_frames=2, size=(16, 16), global_batch_size=global_batch_size
    )


def fit(task, datamodule, *, steps, folder, ckpt_path=None, callbacks=(), **settings):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        val_check_interval=1000,
        check_val_every_n_epoch=None,
        limit_val_batches=0,
        logger=False,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[StepSeed(), LastCheckpoint(folder=str(folder), every_n_steps=2), *callbacks],
        **settings,
    )
    trainer.fit(task, datamodule, ckpt_path=ckpt_path)
    return trainer


def equal(first, second):
    """Whether two nested states hold the same, bit for bit."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return first == second


class Stop(pl.Callback):
    """Ends a run after a batch, as a power cut does: nothing is saved any more."""

    def __init__(self, batches):
        self.batches = batches

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == self.batches:
            raise RuntimeError("cut")


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_run_continued_from_a_checkpoint_equals_the_uninterrupted_one_bit_for_bit(tiny_task, tmp_path, accumulated):
    whole, cut, again = (tiny_task(dropout=0.5) for _ in range(3))
    settings = {"accumulate_grad_batches": accumulated}
    fit(whole, data(), steps=7, folder=tmp_path / "whole", **settings)
    with pytest.raises(RuntimeError, match="cut"):
        # The checkpoint is of step 4, the cut in step 5.
        fit(cut, data(), steps=7, folder=tmp_path / "cut", callbacks=[Stop(5 * accumulated)], **settings)
    torch.manual_seed(99)
    fit(again, data(), steps=7, folder=tmp_path / "again", ckpt_path=tmp_path / "cut" / "last.ckpt", **settings)
    assert again.seen == whole.seen[4 * accumulated :]
    first, second = (torch.load(tmp_path / name / "last.ckpt") for name in ("whole", "again"))
    for part in ("global_step", "state_dict", "optimizer_states", "lr_schedulers", "P2VDataModule"):
        assert equal(first[part], second[part]), part


def test_the_mean_of_two_ranks_gradients_makes_the_same_run_as_one_process(tiny_task, tmp_path):
    alone, shared = tiny_task(), tiny_task()
    fit(alone, data(), steps=4, folder=tmp_path)
    optimizer = configure(shared, SETTINGS)
    ranks = [data(), data()]
    for rank, datamodule in enumerate(ranks):
        datamodule._place = lambda *, training, rank=rank: Place(rank, 2, 1)
    seen = []
    for batches in islice(zip(*(iter(one.train_dataloader()) for one in ranks), strict=True), 4):
        seen.append([ordinal for batch in batches for ordinal in batch.ordinal.tolist()])
        optimizer["optimizer"].zero_grad()
        for batch in batches:
            (shared._loss(batch.floats()) / 2).backward()
        optimizer["optimizer"].step()
        optimizer["lr_scheduler"]["scheduler"].step()
    assert seen == alone.seen
    assert apart(alone.state_dict(), shared.state_dict()) < 1e-5


DRIVER = """
import sys
sys.path[:0] = {paths!r}
from raccoon.cli.console import Console
from raccoon.cli.train import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], Console()))
"""
RECIPE = """
seed_everything: 0
model:
  class_path: training_task.TinyTask
  init_args: {width: 4, optimizer: {learning_rate: 1e-2, warmup_steps: 2}}
data:
  class_path: raccoon_datamodules.p2v.P2VDataModule
  init_args:
    train: {class_path: raccoon_datamodules.sources.SyntheticSource, init_args: {num_frames: 2, size: [16, 16]}}
    val:
      class_path: raccoon_datamodules.sources.SyntheticSource
      init_args: {num_frames: 2, size: [16, 16], num_scenes: 4}
    num_frames: 2
    size: [16, 16]
    global_batch_size: 4
trainer: {accelerator: cpu, max_steps: 20, val_check_interval: 10, log_every_n_steps: 5}
"""


@pytest.mark.slow  # two processes that each import torch
def test_twenty_steps_on_two_processes_equal_one_process(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    paths = [str(ROOT), str(ROOT / "datamodules"), str(ROOT / "kernels"), str(Path(__file__).parent)]
    (tmp_path / "drive.py").write_text(DRIVER.format(paths=paths))
    weights = []
    for words in ([], ["--config", "trainer/ddp", "--trainer.accelerator", "cpu", "--trainer.devices", "2"]):
        root = tmp_path / f"runs{len(words)}"
        command = [sys.executable, "drive.py", "fit", "--config", "recipe.yaml", *words]
        done = subprocess.run(
            [*command, "--trainer.default_root_dir", str(root)],
            cwd=tmp_path, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (folder,) = (root / "recipe").iterdir()
        last = torch.load(folder / "checkpoints" / "last.ckpt")
        assert last["global_step"] == 20
        assert last["P2VDataModule"]["ordinal"] == 80
        assert "val/loss" in (folder / "metrics.jsonl").read_text()
        weights.append(last["state_dict"])
    assert apart(*weights) < 1e-5


def apart(first, second):
    """The largest difference of two states, relative to the largest value of its tensor."""
    return max(float((first[key] - second[key]).abs().max() / first[key].abs().max()) for key in first)


@pytest.fixture
def recipe_run(tmp_path, monkeypatch):
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")
    return lambda *words: train.run(["fit", *words], Console())


@pytest.mark.parametrize("name", TRAINED)
def test_every_training_recipe_is_understood(name, recipe_run, capsys):
    assert recipe_run("--config", name, "--print_config") == 0
    assert "max_steps" in capsys.readouterr().out


@pytest.mark.slow  # every stage builds its networks and writes its weights
def test_the_small_recipes_train_two_steps_each_on_what_the_former_stages_exported(recipe_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--trainer.max_steps=2", "--trainer.limit_val_batches=0", "--data.num_workers=0"]
    left = [name for name in TRAINED if not name.endswith("/paper")]
    lacking = dict.fromkeys(left, "")
    while left:
        done = []
        for name in left:
            try:
                recipe_run("--config", name, "--config", "trainer/cpu", *small, "--data.global_batch_size=2")
                done.append(name)
            except FileNotFoundError as err:
                lacking[name] = str(err)
        assert done, {name: lacking[name] for name in left}
        left = [name for name in left if name not in done]
