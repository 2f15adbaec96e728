"""Real processes: whoever reads, the run sees the same samples; killed by SIGKILL, it goes on with the next one."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from raccoon.cli.main import main
from raccoon.tasks.run_log import mean_over_ranks
from raccoon_datamodules.index import Index
from raccoon_datamodules.p2v import P2VDataModule
from raccoon_datamodules.synthetic import make_sample
from raccoon_datamodules.synthetic.generate import seed_of
from raccoon_datamodules.writer import write_shards

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
# 22 samples an epoch, steps of 6: no epoch but the third ends with a step.
SAMPLES, BATCH = 22, 6
STEPS = 3 * SAMPLES // BATCH

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*",
    "ignore:.*TPU.*",
    # The run is continued in another folder.
    "ignore:The dirpath has changed",
    "ignore:Be aware that when using `ckpt_path`",
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return corpus(tmp_path_factory.mktemp("data") / "train", SAMPLES)


def corpus(folder, count, *, first=0, split="train"):
    scenes = (
        make_sample(seed_of(split, first + i), "easy", num_frames=2, size=(16, 16), fps=8.0) for i in range(count)
    )
    write_shards(scenes, folder, split=split, samples_per_shard=5)
    return folder


def start(out, train, ranks, fits):
    """Start the processes in a group of their own, as a scheduler does."""
    out.mkdir(exist_ok=True)
    plan = out / "plan.json"
    plan.write_text(json.dumps({"out": str(out), "train": str(train), "ranks": ranks, "fits": fits}))
    with (out / "log.txt").open("a") as log:
        return subprocess.Popen(
            [sys.executable, str(HERE / "elastic_run.py"), str(plan)],
            stdout=log, stderr=log, env=surroundings(), start_new_session=True,
        )  # fmt: skip


def surroundings():
    """The environment of a fresh shell: nothing that would tell a process its rank."""
    paths = [str(ROOT), str(ROOT / "datamodules"), str(ROOT / "kernels"), str(HERE)]
    taken_out = ("PL_", "MASTER_", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "SLURM_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(taken_out)}
    return environment | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def finish(out, train, ranks, fits, *, timeout=240):
    process = start(out, train, ranks, fits)
    try:
        assert process.wait(timeout) == 0, (out / "log.txt").read_text()
    finally:
        end(process)


def end(process):
    """SIGKILL for every process of the group, ranks and workers alike."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


def kill_when_held(out, train, ranks, fit):
    """Run until every rank waits, in the middle of an epoch, and kill all."""
    process = start(out, train, ranks, [fit])
    wait_and_kill(process, [out / f"{fit['name']}.held{rank}" for rank in range(ranks)], out / "log.txt")


def wait_and_kill(process, signs, log, *, timeout=240):
    """Wait until every rank has left its sign, then kill the whole group."""
    try:
        wait_for(signs, process, log, timeout=timeout)
    finally:
        end(process)
    assert process.returncode == -signal.SIGKILL


def wait_for(signs, process, log, *, timeout=240):
    """Wait until every file is there; return them."""
    began = time.monotonic()
    while not all(sign.exists() for sign in signs):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() - began < timeout, log.read_text()
        time.sleep(0.05)
    return signs


def steps_of(out, name, ranks):
    """{step: its samples, rank after rank}, from what the ranks wrote down."""
    found = {}
    for rank in range(ranks):
        for line in (out / f"{name}.rank{rank}.jsonl").read_text().splitlines():
            record = json.loads(line)
            found.setdefault(record["step"], []).extend(map(tuple, record["samples"]))
    return found


def told(shards, *, seed=0):
    """The order of three epochs, as one process would read it: (ordinal, key) by arithmetic alone."""
    data = P2VDataModule(str(shards), seed=seed)
    return list(enumerate(data.keys_of(range(3 * SAMPLES))))


def keys(steps):
    return [sample[:2] for step in sorted(steps) for sample in steps[step]]


@pytest.fixture(scope="module")
def killed(shards, tmp_path_factory):
    """A run of two ranks, killed in its sixth step; the newest checkpoint is that of step 4."""
    out = tmp_path_factory.mktemp("killed")
    kill_when_held(out, shards, 2, {"name": "killed", "steps": STEPS, "hold": 5, "workers": 1})
    return out


@pytest.fixture(scope="module")
def checkpoint(killed):
    found = sorted(killed.glob("killed/step=*.ckpt"), key=lambda path: int(path.stem.partition("=")[2]))
    assert [path.name for path in found] == ["step=2.ckpt", "step=4.ckpt"]
    return found[-1]


def test_a_killed_run_of_two_ranks_goes_on_with_one_without_losing_or_repeating_a_sample(
    shards, killed, checkpoint, tmp_path, monkeypatch
):
    expected = told(shards)
    before = steps_of(killed, "killed", 2)
    # Step 5 was finished after the checkpoint, so it is done again.
    assert sorted(before) == [1, 2, 3, 4, 5]
    assert torch.load(checkpoint)["P2VDataModule"]["ordinal"] == 4 * BATCH
    after = resumed_here(tmp_path, shards, checkpoint, monkeypatch)
    assert sorted(after) == list(range(5, STEPS + 1))
    assert after[5] == before[5]
    del before[5]
    assert keys({**before, **after}) == expected
    for epoch in range(3):
        passed = [key for _, key in expected[epoch * SAMPLES : (epoch + 1) * SAMPLES]]
        assert len(set(passed)) == SAMPLES


def resumed_here(out, shards, checkpoint, monkeypatch):
    """Continue in this very process, on one rank."""
    monkeypatch.syspath_prepend(str(HERE))
    from elastic_run import fit

    fit(str(out), str(shards), 1, "resumed", STEPS, resume=str(checkpoint))
    return steps_of(out, "resumed", 1)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("kind", ["validation", "time"])
def test_a_checkpoint_written_at_any_time_holds_the_right_place(shards, tmp_path, monkeypatch, kind, accumulate):
    """After a validation, by its figure; and by the clock. Continued with another accumulation."""
    monkeypatch.syspath_prepend(str(HERE))
    from elastic_run import fit

    how = {"monitor": "val/loss"} if kind == "validation" else {"train_time_interval": timedelta(0)}
    saved = ModelCheckpoint(tmp_path / "saved", "{step}-{val/loss}", save_top_k=-1, **how)
    val = str(corpus(tmp_path / "val", 1, split="val"))
    fit(str(tmp_path), str(shards), 1, "whole", 9, val=val, accumulate=accumulate, saved=saved)
    whole = steps_of(tmp_path, "whole", 1)
    found = list((tmp_path / "saved").rglob("*.ckpt"))
    assert len(found) >= 2
    steps = set()
    for path in found:
        state = torch.load(path)
        steps.add(state["global_step"])
        assert state["P2VDataModule"]["ordinal"] == BATCH * state["global_step"]
    middle = next(path for path in found if 0 < torch.load(path)["global_step"] < 9)
    others = ModelCheckpoint(tmp_path / "more")
    fit(str(tmp_path), str(shards), 1, "again", 9, accumulate=2, resume=str(middle), saved=others)
    again = steps_of(tmp_path, "again", 1)
    assert again == {step: samples for step, samples in whole.items() if step >= min(again)}
    assert min(again) == torch.load(middle)["global_step"] + 1


@pytest.mark.slow  # three processes and their workers
def test_a_killed_run_of_two_ranks_goes_on_with_three(shards, killed, checkpoint, tmp_path):
    fit = {"name": "three", "steps": STEPS, "workers": 2, "resume": str(checkpoint)}
    finish(tmp_path, shards, 3, [fit])
    before, after = steps_of(killed, "killed", 2), steps_of(tmp_path, "three", 3)
    assert sorted(after) == list(range(5, STEPS + 1))
    assert after[5] == before.pop(5)
    assert keys({**before, **after}) == told(shards)


@pytest.mark.slow  # two processes twice
def test_a_killed_run_on_the_same_layout_ends_in_the_same_weights_bit_for_bit(shards, killed, checkpoint, tmp_path):
    # The uninterrupted run, and the continued one with another number of workers.
    whole = {"name": "whole", "steps": STEPS, "workers": 0}
    again = {"name": "again", "steps": STEPS, "workers": 2, "resume": str(checkpoint)}
    finish(tmp_path, shards, 2, [whole])
    finish(tmp_path, shards, 2, [again])
    first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("whole", "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    ended = [torch.load(tmp_path / name / "step=10.ckpt") for name in ("whole", "again")]
    assert ended[0]["P2VDataModule"] == ended[1]["P2VDataModule"]
    moments = [one["optimizer_states"][0]["state"] for one in ended]
    assert all(torch.equal(moments[0][i][key], moments[1][i][key]) for i in moments[0] for key in moments[0][i])
    whole_steps, again_steps = steps_of(tmp_path, "whole", 2), steps_of(tmp_path, "again", 2)
    assert again_steps == {step: samples for step, samples in whole_steps.items() if step > 4}


def test_two_ranks_read_together_for_three_epochs_what_one_rank_reads(shards, tmp_path):
    """Whatever the number of workers and of accumulated batches; the validation set is smaller than the ranks."""
    val = corpus(tmp_path / "val", 1, split="val")
    layouts = {
        "plain": {"val": str(val)},
        "worker": {"workers": 1},
        "workers": {"workers": 2},
        "parts": {"accumulate": 3, "workers": 1, "val": str(val)},
    }
    finish(tmp_path, shards, 2, [{"name": name, "steps": STEPS, **how} for name, how in layouts.items()])
    expected = told(shards)
    for name in layouts:
        steps = steps_of(tmp_path, name, 2)
        assert keys(steps) == expected, name
        assert steps == steps_of(tmp_path, "plain", 2), name


@pytest.mark.slow  # two processes and what they leave behind
def test_bad_samples_neither_part_the_ranks_nor_leave_one_waiting(tmp_path, monkeypatch):
    """With one sample damaged: the same substitutes as on one rank; over the cap: every rank ends, none hangs."""
    folder = corpus(tmp_path / "train", SAMPLES)
    index = Index.load(folder)
    (video,) = [member for member in index.shards[1].members(2) if member.suffix == "video.mp4"]
    with (folder / index.shards[1].name).open("r+b") as shard:
        shard.seek(video.offset + video.length // 2)
        shard.write(b"damaged")
    out = tmp_path / "out"
    lists = {name: str(tmp_path / f"{name}.jsonl") for name in ("two", "one")}
    two = {"name": "two", "steps": STEPS, "workers": 1, "quarantine": lists["two"]}
    process = start(out, folder, 2, [two, {"name": "capped", "steps": STEPS, "max_bad": 0, "max_bad_fraction": 0.0}])
    try:
        assert process.wait(240) != 0
    finally:
        end(process)
    assert "1 of " in (out / "log.txt").read_text()
    assert "samples read are bad, more than max_bad (0)" in (out / "log.txt").read_text()
    monkeypatch.syspath_prepend(str(HERE))
    from elastic_run import fit

    fit(str(out), str(folder), 1, "one", STEPS, quarantine=lists["one"])
    assert keys(steps_of(out, "two", 2)) == keys(steps_of(out, "one", 1))
    noted = [
        sorted(line for path in tmp_path.glob(f"{name}.jsonl*") for line in path.read_text().splitlines())
        for name in ("two", "one")
    ]
    assert noted[0] == noted[1]
    # Three epochs met it three times.
    assert len(noted[0]) >= 3


@pytest.mark.slow  # two processes
@pytest.mark.parametrize("lost", [0, 1])
def test_where_one_rank_is_killed_the_other_ends_too(shards, tmp_path, lost):
    """By itself: it neither waits for ever nor goes on alone."""
    fit = {"name": "run", "steps": STEPS, "hold": 3, "hold_rank": lost, "workers": 1}
    process = start(tmp_path, shards, 2, [fit])
    try:
        sign = wait_for([tmp_path / f"run.held{lost}"], process, tmp_path / "log.txt")[0]
        os.kill(int(sign.read_text()), signal.SIGKILL)
        assert process.wait(120) != 0
        deadline = time.monotonic() + 120
        while alive(process.pid):
            assert time.monotonic() < deadline, (tmp_path / "log.txt").read_text()
            time.sleep(0.2)
    finally:
        end(process)
    assert sorted(steps_of(tmp_path, "run", 2)) == [1, 2, 3]


def alive(group):
    """Whether a process of the group is left that is no zombie."""
    found = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    return any(int(pgid) == group and not stat.startswith("Z") for pgid, stat in map(str.split, found.splitlines()))


DRIVER = """
import sys
from raccoon.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
"""
RECIPE = """
model:
  class_path: training_task.TinyTask
  init_args: {{width: 2, optimizer: {{learning_rate: 1e-2, warmup_steps: 2}}, dropout: 0.5}}
data:
  class_path: raccoon_datamodules.p2v.P2VDataModule
  init_args:
    train: {{{train}: 2.0, {other}: 1.0}}
    num_frames: 2
    size: [16, 16]
    global_batch_size: 6
trainer:
  accelerator: cpu
  max_steps: 11
  callbacks:
    - class_path: elastic_run.Recorder
      init_args: {{out: {out}, name: NAME, hold: HOLD}}
    - class_path: raccoon.tasks.callbacks.LastCheckpoint
      init_args: {{every_n_steps: 2}}
"""


@pytest.mark.slow  # two processes, and one more
def test_raccoon_fit_killed_on_two_ranks_goes_on_by_its_last_checkpoint(shards, tmp_path, capsys):
    """Over a mixture of two folders, whose continued order is the one that `raccoon vplm replay` tells."""
    other = corpus(tmp_path / "other", 7, first=100)
    (tmp_path / "drive.py").write_text(DRIVER)
    text = RECIPE.format(train=shards, other=other, out=tmp_path)
    (tmp_path / "mixed.yaml").write_text(text.replace("NAME", "killed").replace("HOLD", "5"))
    command = [sys.executable, "drive.py", "fit", "--config", "mixed.yaml"]
    two = ["--config", "trainer/ddp", "--trainer.accelerator", "cpu", "--trainer.devices", "2"]
    with (tmp_path / "log.txt").open("a") as log:
        process = subprocess.Popen(
            [*command, *two], cwd=tmp_path, stdout=log, stderr=log, env=surroundings(), start_new_session=True
        )
    wait_and_kill(process, [tmp_path / f"killed.held{rank}" for rank in range(2)], tmp_path / "log.txt")
    (tmp_path / "mixed.yaml").write_text(text.replace("NAME", "resumed").replace("HOLD", "null"))
    done = subprocess.run(
        [*command, "--ckpt_path", "last", "--data.num_workers", "1"],
        cwd=tmp_path, capture_output=True, text=True, timeout=240, env=surroundings(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "not what the checkpoint was trained on" not in done.stderr
    before, after = steps_of(tmp_path, "killed", 2), steps_of(tmp_path, "resumed", 1)
    assert (sorted(before), sorted(after)) == ([1, 2, 3, 4, 5], list(range(5, 12)))
    assert after[5] == before[5]
    for step, samples in {**before, **after}.items():
        assert (
            main(["vplm", "replay", "--config", str(tmp_path / "mixed.yaml"), "--step", str(step - 1), "--json"]) == 0
        )
        told = json.loads(capsys.readouterr().out)["samples"]
        assert [(one["ordinal"], one["key"], one["task"]) for one in told] == samples


class Ranks:
    """Stands for a strategy over two ranks, the other of which has the figure 3."""

    def __init__(self):
        self.asked = 0

    def reduce(self, value, *, reduce_op):
        assert reduce_op == "mean"
        self.asked += 1
        return value.add_(3.0).div_(2)


@pytest.mark.parametrize(("step", "world", "figure"), [(9, 2, 2.0), (8, 2, 1.0), (10, 2, 1.0), (9, 1, 1.0)])
def test_a_logged_loss_is_the_mean_of_the_ranks_and_no_other_step_waits_for_it(step, world, figure):
    task, ranks = pl.LightningModule(), Ranks()
    task._trainer = SimpleNamespace(strategy=ranks, world_size=world, global_step=step, log_every_n_steps=10)
    loss = torch.tensor(1.0, requires_grad=True)
    mean = mean_over_ranks(task, loss)
    assert mean.item() == figure
    assert not mean.requires_grad
    assert loss.item() == 1.0
    assert ranks.asked == (figure == 2.0)


def test_a_loss_is_its_own_mean_where_there_is_no_trainer():
    assert mean_over_ranks(pl.LightningModule(), torch.tensor(1.0)).item() == 1.0
