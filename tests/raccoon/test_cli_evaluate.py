import json

import pytest

from raccoon.cli import evaluate, main
from raccoon.models import weights

RECIPE = """
describer:
  class_path: raccoon.evaluation.floors.RandomDescriber
painter:
  class_path: raccoon.models.propagation.MedianTeleaPainter
"""


@pytest.fixture
def verb(monkeypatch):
    """The command line with this verb."""
    monkeypatch.setattr(main, "VERBS", tuple({*main.VERBS, evaluate}))
    return main.main


@pytest.fixture
def recipe(tmp_path):
    """An eval recipe of parts that need no weights."""
    (tmp_path / "parts.yaml").write_text(RECIPE)
    file = tmp_path / "small.yaml"
    settings = "num_scenes: 5\n  num_edits: 2\n  num_untrained: 0\n  floor_repeats: 2\n  resamples: 20"
    file.write_text(f"evaluation:\n  pipeline: {tmp_path / 'parts.yaml'}\n  {settings}\n")
    return str(file)


def said_once(capsys):
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def test_the_table_is_printed(verb, recipe, capsys):
    assert verb(["evaluate", "--config", recipe]) == 0
    out = capsys.readouterr().out
    assert "| objects found (category and colour) |" in out
    assert "| removal: PSNR inside the mask (dB) |" in out
    assert "the recipe has no grounder, so nothing of it was measured" in out


def test_json_is_one_object_with_every_figure(verb, recipe, capsys):
    assert verb(["evaluate", "--config", recipe, "--limit", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    figures = {figure["key"]: figure for figure in found["figures"]}
    assert figures["recall"]["count"] == figures["remove_psnr"]["count"] == 1
    assert found["command"] == f"raccoon evaluate --config {recipe} --limit 1"
    assert found["settings"]["num_scenes"] == 1


def test_tables_are_written_where_they_are_wanted(verb, recipe, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["evaluate", "--config", recipe, "--limit", "1", "--out", str(out)]
    assert verb(command) == 0
    assert sorted(path.name for path in out.iterdir()) == ["small.csv", "small.json", "small.md", "small.scenes.csv"]
    assert f"raccoon evaluate --config {recipe} --limit 1" in (out / "small.md").read_text()
    capsys.readouterr()
    assert verb(command) == 2
    assert "overwrite" in said_once(capsys)
    assert verb([*command, "--overwrite"]) == 0


def test_flags_reach_the_evaluation_and_the_pipeline(verb, recipe, capsys):
    flags = ["--set", "evaluation.seed=3", "--pipeline-set", "painter.telea_radius=2", "--limit", "1", "--json"]
    assert verb(["evaluate", "--config", recipe, *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"]["seed"] == 3
    assert found["recipe"]["config"]["painter"]["init_args"]["telea_radius"] == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--limit", "0"], "--limit must be at least 1, got 0"),
        (["--set", "evaluation.num_scene=3"], "did you mean 'num_scenes'"),
        (["--set", "evaluation.num_scenes=0"], "evaluation.num_scenes must be at least 1, got 0"),
        (["--config", "eval/nothing"], "there is no recipe 'eval/nothing'"),
        (["--config", "pipeline/classical"], "there is no section 'editor'"),
        (["--config", "superpixels/grid"], "an eval recipe holds the section evaluation alone, got superpixels"),
    ],
    ids=["limit", "unknown-key", "range", "no-recipe", "pipeline", "other-recipe"],
)
def test_wrong_usage_is_one_sentence(verb, recipe, flags, said, capsys):
    assert verb(["evaluate", "--config", recipe, *flags]) == 2
    assert said in said_once(capsys)


def test_missing_weights_name_the_commands_that_train_them(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(weights, "shipped_folder", lambda: tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts.yaml").write_text(
        f"{RECIPE}\ngrounder:\n  class_path: raccoon.models.grounding.ClusterGrounder\n"
        "  init_args: {weights: tiny/clip}\n"
    )
    assert verb(["evaluate", "--set", f"evaluation.pipeline={tmp_path / 'parts.yaml'}"]) == 2
    error = said_once(capsys)
    assert "the weights tiny/clip are neither in" in error
    assert "train them with `raccoon fit --config tiny/clip`" in error
