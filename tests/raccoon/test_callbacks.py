import math
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from raccoon.tasks.callbacks import (
    ExportWeights,
    FrozenStayEval,
    LastCheckpoint,
    NonFiniteGuard,
    NonFiniteLossError,
    StepSeed,
    Throughput,
    export_folder,
    freeze_modes,
)
from raccoon.tasks.optim import OptimizerSettings
from raccoon_datamodules.p2v import P2VDataModule
from raccoon_datamodules.sources import SyntheticSource


@pytest.fixture
def tiny_task(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from training_task import TinyTask

    def make(**settings):
        torch.manual_seed(0)
        return TinyTask(2, OptimizerSettings(1e-2, schedule="constant"), **settings)

    return make


def fit(task, callbacks, *, steps=2, **settings):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        val_check_interval=1000,
        check_val_every_n_epoch=None,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=any(isinstance(one, LastCheckpoint) for one in callbacks),
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        **settings,
    )
    source = SyntheticSource(num_frames=2, size=(16, 16))
    trainer.fit(task, P2VDataModule(source, num_frames=2, size=(16, 16), global_batch_size=2))
    return trainer


def test_a_loss_that_is_not_finite_changes_no_weight(tiny_task):
    task = tiny_task(poison_step=0)
    before = {key: value.clone() for key, value in task.state_dict().items()}
    with pytest.raises(NonFiniteLossError, match=r"it is nan at step 0 on samples \S+, \S+; lower the learning rate"):
        fit(task, [NonFiniteGuard()])
    assert all(torch.equal(value, before[key]) for key, value in task.state_dict().items())


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ({"key": [f"k{i}" for i in range(10)]}, "samples k0, k1, k2, k3, k4, k5, k6, k7 and 2 more"),
        (torch.zeros(2), "a batch that names no samples"),
    ],
)
def test_the_guard_names_what_it_can(batch, said):
    guard, trainer = NonFiniteGuard(), SimpleNamespace(global_step=3)
    guard.on_train_batch_start(trainer, None, batch, 0)
    with pytest.raises(NonFiniteLossError, match=said):
        guard.on_before_backward(trainer, None, torch.tensor(math.inf))


def test_draws_of_a_step_depend_on_its_ordinal_alone():
    def drawn(seed, ordinal):
        trainer = SimpleNamespace(datamodule=SimpleNamespace(seed=seed))
        StepSeed().on_train_batch_start(trainer, None, {"ordinal": torch.tensor([ordinal, 9])}, 0)
        return torch.rand(4)

    first = drawn(1, 8)
    assert torch.equal(first, drawn(1, 8))
    assert not torch.equal(first, drawn(1, 10))
    assert not torch.equal(first, drawn(2, 8))


def test_batches_without_ordinals_are_counted():
    def drawn(done, seed):
        trainer = SimpleNamespace(world_size=1, global_rank=0, datamodule=None)
        progress = SimpleNamespace(total=SimpleNamespace(ready=done))
        trainer.fit_loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
        StepSeed(seed).on_train_batch_start(trainer, None, torch.zeros(2), 0)
        return torch.rand(4)

    assert torch.equal(drawn(1, 5), drawn(1, 5))
    assert not torch.equal(drawn(1, 5), drawn(2, 5))
    assert not torch.equal(drawn(1, 5), drawn(1, None))


def test_modules_that_are_all_frozen_go_to_eval_mode_and_no_others():
    inner = nn.Sequential(nn.Linear(1, 1), nn.Dropout()).requires_grad_(False)
    network = nn.ModuleDict({"frozen": inner, "mixed": nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))})
    network["mixed"][0].requires_grad_(False)
    network["drop"] = nn.Dropout()
    assert freeze_modes(network.train()) == ["frozen", "mixed.0"]
    assert not any(module.training for module in inner.modules())
    assert network["mixed"].training
    assert network["mixed"][1].training
    assert network["drop"].training


def test_frozen_parts_are_in_eval_mode_while_training(tiny_task):
    task = tiny_task()
    task.net.eval()
    with pytest.warns(UserWarning, match="in eval mode at the start of training"):
        fit(task, [FrozenStayEval()])
    assert not task.frozen[1].training
    assert task.net[1].training


def test_throughput_counts_clips_and_waiting(tiny_task):
    trainer = fit(tiny_task(), [Throughput()], log_every_n_steps=2, steps=4)
    assert trainer.callback_metrics["train/clips_per_second"] > 0
    assert 0 <= trainer.callback_metrics["train/data_wait"] <= 1


@pytest.mark.parametrize(("every", "saved"), [(2, [2, 4, 5]), (None, [5])])
def test_the_last_checkpoint_comes_every_so_often_and_at_the_end(tiny_task, tmp_path, monkeypatch, every, saved):
    steps = []
    monkeypatch.setattr(pl.Trainer, "save_checkpoint", lambda self, path, **_: steps.append(self.global_step))
    callback = LastCheckpoint(every_n_steps=every, folder=str(tmp_path))
    fit(tiny_task(), [callback], steps=5)
    assert steps == saved
    assert callback.path == tmp_path / "last.ckpt"


def test_a_run_that_ends_early_leaves_a_checkpoint_too(tiny_task, tmp_path):
    class Enough(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.global_step == 3

    fit(tiny_task(), [Enough(), LastCheckpoint(folder=str(tmp_path))], steps=100)
    assert torch.load(tmp_path / "last.ckpt")["global_step"] == 3


def test_the_last_checkpoint_may_come_by_the_clock(tiny_task, tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(pl.Trainer, "save_checkpoint", lambda self, path, **_: steps.append(self.global_step))
    fit(tiny_task(), [LastCheckpoint(every_minutes=1e-9, folder=str(tmp_path))], steps=3)
    assert steps == [1, 2, 3]


@pytest.mark.parametrize("settings", [{"every_minutes": 0}, {"every_n_steps": 0}])
def test_an_interval_that_is_not_positive_is_refused(settings):
    with pytest.raises(ValueError, match="the interval must be positive"):
        LastCheckpoint(**settings)


def test_the_weights_are_exported_at_the_end(tiny_task, tmp_path):
    fit(tiny_task(), [ExportWeights(str(tmp_path / "a" / "net"))])
    assert [path.name for path in (tmp_path / "a").rglob("*")] == ["net", "weights.pt"]


def test_a_failed_export_leaves_nothing_and_spares_what_was_there(tiny_task, tmp_path):
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "old").touch()
    with pytest.raises(RuntimeError, match="the disk is full"):
        export_folder(tiny_task(fail_export=True), folder, overwrite=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["net", "old"]


def test_an_export_replaces_the_whole_folder_when_asked(tiny_task, tmp_path):
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "old").touch()
    export_folder(tiny_task(), folder, overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["weights.pt"]
    with pytest.raises(FileExistsError, match="is already there; name another or set overwrite: true"):
        export_folder(tiny_task(), folder)


def test_what_could_not_be_exported_is_refused_before_training(tiny_task, tmp_path):
    task = tiny_task()
    with pytest.raises(FileExistsError, match="which is already there; name another folder or set overwrite: true"):
        fit(task, [ExportWeights(str(tmp_path))])
    task.export = None
    with pytest.raises(TypeError, match=r"needs a task with export\(folder\), TinyTask has none"):
        fit(task, [ExportWeights()])
    assert not task.seen


def test_sharded_weights_are_not_exported():
    from lightning.pytorch.strategies import FSDPStrategy

    trainer = SimpleNamespace(strategy=object.__new__(FSDPStrategy))
    task = SimpleNamespace(export=print)
    with pytest.raises(ValueError, match="needs the whole weights on one rank, but the strategy shards them"):
        ExportWeights().setup(trainer, task, "fit")
    ExportWeights().setup(trainer, task, "validate")
