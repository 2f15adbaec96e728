import csv
import io
import json
import math
from types import SimpleNamespace

import pytest
import torch

from raccoon.tasks.run_log import RunLogger, StepProgress, fresh_folder


def test_every_run_gets_a_folder_of_its_own(tmp_path):
    made = [fresh_folder(tmp_path / "runs", "now").name for _ in range(3)]
    assert made == ["now", "now-2", "now-3"]


def test_the_folder_is_made_when_it_is_first_asked_for(tmp_path):
    logger = RunLogger(tmp_path / "runs", "v2p/tiny", suffix="-test")
    assert not (tmp_path / "runs").exists()
    assert logger.folder.parent == tmp_path / "runs" / "v2p" / "tiny"
    assert logger.folder.name.endswith("-test")
    assert logger.folder.is_dir()
    assert logger.save_dir == str(logger.folder)
    assert (logger.name, logger.version) == ("", "")


def test_figures_are_written_as_json_lines_and_as_a_table_that_grows(tmp_path):
    logger = RunLogger(tmp_path, "small")
    logger.log_metrics({"train/loss": 1.5, "epoch": 0}, step=0)
    logger.log_metrics({"train/loss": torch.tensor(1.25)}, step=1)
    logger.log_metrics({"val/loss": 2.0}, step=1)
    logger.log_metrics({"epoch": 0}, step=2)
    logger.log_metrics({"train/loss": math.nan}, step=2)
    lines = [json.loads(line) for line in (logger.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 1, 2]
    assert [line.get("train/loss") for line in lines] == [1.5, 1.25, None, None]
    rows = list(csv.DictReader(io.StringIO((logger.folder / "metrics.csv").read_text())))
    assert list(rows[0]) == ["step", "time", "train/loss", "val/loss"]
    assert [(row["train/loss"], row["val/loss"]) for row in rows] == [("1.5", ""), ("1.25", ""), ("", "2.0"), ("", "")]


def test_hyperparameters_leave_no_second_file(tmp_path):
    logger = RunLogger(tmp_path, "small")
    logger.log_hyperparams({"a": 1})
    assert not list(logger.folder.iterdir())


def trainer(step, **settings):
    metrics = {"train/loss": torch.tensor(0.5)}
    return SimpleNamespace(
        global_step=step,
        max_steps=10,
        is_global_zero=True,
        callback_metrics=metrics,
        progress_bar_metrics=metrics,
        **settings,
    )


@pytest.mark.parametrize(("seconds", "lines"), [(0.0, 3), (1000.0, 1)])
def test_without_a_terminal_progress_is_a_line_every_so_often(capsys, seconds, lines):
    progress = StepProgress(seconds)
    progress.on_train_start(trainer(0), None)
    for step in (1, 2):
        progress.on_train_batch_end(trainer(step), None, None, None, step)
    progress.on_train_end(trainer(2), None)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == lines
    assert said[-1].startswith("step 2/10, ")
    assert said[-1].endswith(" s a step: train/loss 0.5")


def test_on_a_terminal_progress_is_a_bar_that_gives_the_terminal_back(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    progress = StepProgress()
    progress.on_train_start(trainer(0), None)
    assert progress._bar is not None
    progress.on_train_batch_end(trainer(1), None, None, None, 0)
    progress.on_exception(trainer(1), None, RuntimeError())
    assert progress._bar is None


def test_only_the_first_rank_shows_progress(capsys):
    other = trainer(1)
    other.is_global_zero = False
    progress = StepProgress(0.0)
    progress.on_train_start(other, None)
    progress.on_train_batch_end(other, None, None, None, 0)
    progress.on_train_end(other, None)
    assert not capsys.readouterr().err
