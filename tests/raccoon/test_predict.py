"""Whole datasets through the describer and the editor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest

from raccoon.cli import main
from raccoon.interfaces import Description
from raccoon.tasks.predict import DescribeTask, EditTask, edit_request
from raccoon.tasks.results import Results
from raccoon_datamodules.corpus import CorpusDataModule
from raccoon_datamodules.masks import feather, grow, mask_of_boxes
from raccoon_datamodules.p2v import P2VDataModule
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.sample import EditPrompt
from raccoon_datamodules.sources import SyntheticSource
from raccoon_datamodules.synthetic import make_sample, seed_of
from raccoon_datamodules.video import Video

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "raccoon" / "weights" / "tiny" / "v2p"
PIPELINE = """
editor: {grow: 1, feather: 1}
describer: {class_path: raccoon.evaluation.floors.RandomDescriber}
painter: {class_path: raccoon.testing.ConstantPainter, init_args: {colour: [255, 0, 255]}}
"""
QUIET = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:Total length of `list` across ranks is zero"
)
pytestmark = QUIET


@pytest.fixture
def pipeline(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(PIPELINE)
    return str(path)


def source(count=5):
    return SyntheticSource(num_frames=2, size=(32, 32), split="test", num_scenes=count)


def predict(task, data=None, **settings):
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, **settings
    )
    trainer.predict(task, CorpusDataModule(source(), batch_size=2) if data is None else data)


def records(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Describer:
    """Says what a clip's first pixel is; refuses the frames it is told to, and notes how many clips it is asked for."""

    def __init__(self, refused=(), broken_after=None):
        self.refused = [video.frames for video in refused]
        self.broken_after = broken_after
        self.asked = []

    def describe(self, request):
        return self.describe_batch([request])[0]

    def describe_batch(self, requests):
        if len(self.asked) == self.broken_after:
            raise RuntimeError("the power is cut")
        self.asked.append(len(requests))
        if any(np.array_equal(request.video.frames, frames) for request in requests for frames in self.refused):
            raise ValueError("this clip is beyond me")
        texts = [str(request.video.frames[0, 0, 0].tolist()) for request in requests]
        return [Description(Paragraph(text), text, {"frame_indices": [0]}) for text in texts]


def describing(pipeline, out, describer):
    task = DescribeTask(pipeline, str(out))
    task.build = lambda: setattr(task, "describer", describer)
    return task


def clip(number):
    return source()._render(number).video


def test_every_clip_gets_a_line_in_the_datas_order(pipeline, tmp_path):
    out = tmp_path / "out"
    predict(DescribeTask(pipeline, str(out)))
    found = records(out / "descriptions.jsonl")
    assert [record["ordinal"] for record in found] == list(range(5))
    assert [record["key"] for record in found] == [source()._render(i).key for i in range(5)]
    assert all(str(Paragraph.from_json(record["paragraph"])) == record["raw"] for record in found)
    assert sorted(path.name for path in out.iterdir()) == ["descriptions.jsonl", "descriptions.made-by.json"]


def test_a_stopped_run_goes_on_and_ends_as_one_that_was_never_stopped(pipeline, tmp_path, capsys):
    predict(describing(pipeline, tmp_path / "whole", Describer()))
    cut, rest = Describer(broken_after=1), Describer()
    with pytest.raises(RuntimeError, match="the power is cut"):
        predict(describing(pipeline, tmp_path / "cut", cut))
    (part,) = (tmp_path / "cut").glob("*.part.jsonl")
    # What a killed process leaves of a line.
    part.write_bytes(part.read_bytes() + b'{"ordinal": 2, "key": "sy')
    predict(describing(pipeline, tmp_path / "cut", rest))
    assert (cut.asked, rest.asked) == ([2], [2, 1])
    whole, again = (tmp_path / name / "descriptions.jsonl" for name in ("whole", "cut"))
    assert again.read_bytes() == whole.read_bytes()
    assert "cut/descriptions.jsonl: 5 samples\n" in capsys.readouterr().out


def test_where_all_is_done_nothing_is_built(pipeline, tmp_path):
    predict(describing(pipeline, tmp_path / "out", Describer()))
    before = (tmp_path / "out" / "descriptions.jsonl").read_bytes()
    task = DescribeTask(pipeline, str(tmp_path / "out"))
    task.build = None
    predict(task)
    assert (tmp_path / "out" / "descriptions.jsonl").read_bytes() == before


def test_a_clip_that_fails_is_told_of_and_tried_again(pipeline, tmp_path, capsys):
    predict(describing(pipeline, tmp_path / "out", Describer(refused=[clip(2)])))
    path = tmp_path / "out" / "descriptions.jsonl"
    assert [record.get("error") for record in records(path)] == [None, None, "this clip is beyond me", None, None]
    assert "4 samples, 1 failed" in capsys.readouterr().out
    mended = Describer()
    predict(describing(pipeline, tmp_path / "out", mended))
    assert mended.asked == [1]
    assert not any("error" in record for record in records(path))


def test_where_every_clip_fails_the_run_does(pipeline, tmp_path):
    with pytest.raises(RuntimeError, match="all 1 samples failed, the first one: this clip is beyond me"):
        predict(describing(pipeline, tmp_path / "out", Describer(refused=[clip(0)])), CorpusDataModule(source(1)))


def test_a_describer_without_batches_is_asked_clip_by_clip(pipeline, tmp_path):
    describer = Describer()
    describer.describe_batch, many = None, describer.describe_batch
    describer.describe = lambda request: many([request])[0]
    predict(describing(pipeline, tmp_path / "out", describer))
    assert describer.asked == [1] * 5


def test_a_describer_that_returns_something_else_stops_the_run(pipeline, tmp_path):
    describer = Describer()
    describer.describe_batch = lambda requests: ["A red star."] * len(requests)
    with pytest.raises(RuntimeError, match=r"Describer\.describe must return a Description, got a str"):
        predict(describing(pipeline, tmp_path / "out", describer))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"overrides": ["describer.seed=3"]}, r"recipe\.describer\.init_args was None, is \{'seed': 3\}"),
        ({"count": 4}, r"data was 'easy-test-2x32x32-0-5', is 'easy-test-2x32x32-0-4'"),
    ],
)
def test_results_of_another_recipe_or_other_data_are_not_mixed(pipeline, tmp_path, change, said):
    predict(DescribeTask(pipeline, str(tmp_path / "out")))
    data = CorpusDataModule(source(change.pop("count", 5)))
    with pytest.raises(ValueError, match=rf"holds descriptions made otherwise \({said}\); name another folder"):
        predict(DescribeTask(pipeline, str(tmp_path / "out"), **change), data)


def test_what_cannot_work_is_refused(pipeline, tmp_path):
    with pytest.raises(ValueError, match="the recipe pipeline/classical has no describer; choose one that has"):
        DescribeTask("pipeline/classical", "out")
    with pytest.raises(FileNotFoundError, match="there is no recipe 'pipeline/none'"):
        EditTask("pipeline/none", "out")
    data = P2VDataModule(source())
    data.predict_dataloader = lambda: []
    with pytest.raises(TypeError, match=r"must be raccoon_datamodules\.corpus\.CorpusDataModule, got P2VDataModule"):
        predict(DescribeTask(pipeline, str(tmp_path / "out")), data)
    with pytest.raises(ValueError, match="kinds must be of remove, add, change, got 'paint'"):
        EditTask(pipeline, "out", kinds=["paint"])
    with pytest.raises(ValueError, match="edits_per_clip must be at least 1, got 0"):
        EditTask(pipeline, "out", edits_per_clip=0)


def test_ranks_records_are_joined_by_ordinal_and_results_go_before_failures(tmp_path):
    ranks = [Results(tmp_path, "found", made_by={"a": 1}, rank=rank) for rank in (0, 1)]
    ranks[0].append([{"ordinal": 0, "key": "a"}, {"ordinal": 2, "key": "c", "error": "no"}])
    ranks[1].append([{"ordinal": 1, "key": "b", "error": "no"}])
    ranks[1].append([{"ordinal": 1, "key": "b", "error": "again"}])
    assert ranks[0].done() == {0}
    # The rest, by a run of one process.
    ranks[0].append([{"ordinal": 2, "key": "c"}])
    summary = ranks[0].join()
    assert (summary.num_done, summary.num_failed, summary.reason) == (2, 1, "again")
    assert [record["ordinal"] for record in records(ranks[0].path)] == [0, 1, 2]
    assert ranks[0].done() == {0, 2}


def test_files_that_are_no_results_are_named(tmp_path):
    (tmp_path / "found.jsonl").write_text("mine\n")
    with pytest.raises(ValueError, match=r"found\.jsonl was not written by raccoon predict; name another folder"):
        Results(tmp_path, "found", made_by={})
    (tmp_path / "found.jsonl").unlink()
    results = Results(tmp_path, "found", made_by={})
    results.append([{"ordinal": 0, "key": "a"}])
    results.path.write_text('{"ordinal": 0}\n')
    with pytest.raises(ValueError, match=r"found\.jsonl is damaged: the line at byte 0 is no result"):
        results.done()


def test_written_edits_are_performed_with_the_masks_of_the_data(pipeline, tmp_path):
    predict(EditTask(pipeline, str(tmp_path), edits_per_clip=3), CorpusDataModule(source(2), batch_size=2))
    found = records(tmp_path / "edits.jsonl")
    assert [[edit["kind"] for edit in record["edits"]] for record in found] == [["remove", "add", "change"]] * 2
    for number, record in enumerate(found):
        sample = source()._render(number)
        for edit in record["edits"]:
            thing = next(one for one in sample.objects if one.id == edit["object"])
            is_added = edit["kind"] == "add"
            before = thing.inpainted.frames if is_added else sample.video.frames
            mask = mask_of_boxes(thing.boxes, height=32, width=32) if is_added else thing.mask
            after = Video.read(tmp_path / "clips" / edit["output"]["name"]).frames
            assert edit["output"]["name"] == f"{record['key']}-{edit['edit']}.mkv"
            assert (after[mask == 1] == (255, 0, 255)).all()
            outside = feather(grow(mask, 1), 1) == 0
            np.testing.assert_array_equal(after[outside], before[outside])
            assert edit["measurements"]["max_error_outside"] == 0
            assert edit["instruction"] == sample.edits[edit["edit"]].instruction


def test_an_edit_does_not_depend_on_where_the_run_was_stopped(pipeline, tmp_path):
    outs = [tmp_path / "first", tmp_path / "second"]
    settings = {"edits_per_clip": 2, "kinds": ["remove"], "lossless": False}
    predict(EditTask(pipeline, str(outs[0]), **settings), CorpusDataModule(source(2), batch_size=2))
    for _ in range(2):
        data = CorpusDataModule(source(2), batch_size=1)
        predict(EditTask(pipeline, str(outs[1]), **settings), data, limit_predict_batches=1)
    first, second = ((out / "edits.jsonl").read_bytes() for out in outs)
    assert first == second
    assert all(edit["output"]["name"].endswith(".mp4") for edit in records(outs[0] / "edits.jsonl")[0]["edits"])


def test_a_painter_is_only_asked_for_what_it_can(tmp_path):
    data = CorpusDataModule(source(1))
    predict(EditTask("pipeline/classical", str(tmp_path), edits_per_clip=1), data)
    assert [edit["kind"] for edit in records(tmp_path / "edits.jsonl")[0]["edits"]] == ["remove"]


def test_an_edit_that_the_editor_refuses_is_told_of(tmp_path):
    task = EditTask("pipeline/classical", str(tmp_path), edits_per_clip=1, kinds=["add"])
    predict(task, CorpusDataModule(source(1)))
    (edit,) = records(tmp_path / "edits.jsonl")[0]["edits"]
    assert "it cannot add" in edit["error"]
    assert "output" not in edit


def test_an_edit_needs_its_object_and_an_addition_the_clip_without_it():
    sample = source()._render(0)
    before = Paragraph("A scene.")
    after = Paragraph("A scene.", (ObjectDescription("Red Star", "A star."),))
    with pytest.raises(ValueError, match=r"'Add a star\.' is about object 99, which sample \S+ lacks"):
        edit_request(sample, EditPrompt("add", "99", "Add a star.", before, after))
    thing = sample.objects[0]
    object.__setattr__(thing, "inpainted", None)
    with pytest.raises(ValueError, match=f"object {thing.id} of sample {sample.key} has no clip without it"):
        edit_request(sample, EditPrompt("add", thing.id, "Add a star.", before, after))


def test_the_recipes_work_with_the_shipped_weights(tmp_path, monkeypatch, capsys):
    if not WEIGHTS.is_dir():
        pytest.skip("the weights are not there")
    monkeypatch.chdir(tmp_path)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")
    few = ["--config", "trainer/cpu", "--trainer.limit_predict_batches", "1"]
    describe = ["--model.overrides", "[describer.device=cpu]", "--data.batch_size", "2"]
    assert main.main(["predict", "--config", "predict/describe", *few, *describe]) == 0
    edit = ["--model.overrides", "[painter.device=cpu,painter.num_inference_steps=1]", "--model.edits_per_clip", "1"]
    assert main.main(["predict", "--config", "predict/edit", *few, *edit]) == 0
    assert "descriptions.jsonl: 2 samples\n" in capsys.readouterr().out
    first = make_sample(seed_of("test", 0))
    assert records(tmp_path / "runs/described/descriptions.jsonl")[0]["key"] == first.key
    (edited,) = records(tmp_path / "runs/edited/edits.jsonl")
    assert (tmp_path / "runs/edited/clips" / edited["edits"][0]["output"]["name"]).is_file()


DRIVER = """
import sys
sys.path[:0] = {paths!r}
from raccoon.cli.console import Console
from raccoon.cli.train import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], Console()))
"""


@pytest.mark.slow  # processes that each import torch
@pytest.mark.parametrize("recipe", ["describe", "edit"])
def test_two_processes_write_what_one_does_also_where_one_is_idle(pipeline, tmp_path, monkeypatch, recipe):
    if recipe == "describe" and not WEIGHTS.is_dir():
        pytest.skip("the weights are not there")
    paths = [str(ROOT), str(ROOT / "datamodules"), str(ROOT / "kernels")]
    (tmp_path / "drive.py").write_text(DRIVER.format(paths=paths))
    name, with_parts = {
        "describe": ("descriptions", ["--model.overrides", "[describer.device=cpu]"]),
        "edit": ("edits", ["--model.pipeline", pipeline]),
    }[recipe]
    words = ["predict", "--config", f"predict/{recipe}", *with_parts]
    words += ["--data.data.init_args.num_scenes", "3", "--data.batch_size", "1"]
    two = ["--config", "trainer/ddp", "--trainer.accelerator", "cpu", "--trainer.devices", "2", "--model.out", "two"]
    monkeypatch.chdir(tmp_path)
    for variable in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(variable, "0")

    def on_two():
        done = subprocess.run(
            [sys.executable, "drive.py", *words, *two],
            capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(": 3 samples") == 1
        return tmp_path / "two" / f"{name}.jsonl"

    def read(path):
        found = records(path)
        for edit in (edit for record in found for edit in record.get("edits", ())):
            # Matroska gives every file an identifier of its own.
            del edit["output"]["sha256"]
        return found

    assert main.main([*words, "--config", "trainer/cpu", "--model.out", "one"]) == 0
    first, second = read(tmp_path / "one" / f"{name}.jsonl"), on_two()
    assert read(second) == first
    # Only the first rank has something left to do.
    second.write_bytes(b"".join(second.read_bytes().splitlines(keepends=True)[:2]))
    assert read(on_two()) == first
