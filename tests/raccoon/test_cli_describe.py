import json

import pytest

from raccoon.cli import describe, main
from raccoon.testing import tiny_video
from raccoon_datamodules.paragraph import Paragraph

RECIPE = """
describer:
  class_path: raccoon.evaluation.floors.RandomDescriber
painter:
  class_path: nowhere.NotBuilt
"""


class Mute:
    """A describer that returns the text alone."""

    def describe(self, request):
        return "A red star."


@pytest.fixture
def verb(monkeypatch):
    """The command line with this verb."""
    monkeypatch.setattr(main, "VERBS", tuple({*main.VERBS, describe}))
    return main.main


@pytest.fixture
def files(tmp_path):
    """A clip, and a recipe whose describer needs no weights."""
    clip, recipe = tmp_path / "clip.mp4", tmp_path / "own.yaml"
    tiny_video().write(clip)
    recipe.write_text(RECIPE)
    return {"clip": str(clip), "recipe": str(recipe), "out": str(tmp_path / "clip.txt")}


def said_once(capsys):
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def test_the_paragraph_is_printed_and_parses(verb, files, capsys):
    assert verb(["describe", files["clip"], "--config", files["recipe"]]) == 0
    paragraph, notes = Paragraph.parse(capsys.readouterr().out)
    assert paragraph.objects
    assert notes == []


def test_a_file_is_written_whole_and_replaced_only_when_asked(verb, files, tmp_path, capsys):
    command = ["describe", files["clip"], "--config", files["recipe"], "-o", files["out"]]
    assert verb(command) == 0
    assert capsys.readouterr().out.strip() == files["out"]
    assert Paragraph.parse((tmp_path / "clip.txt").read_text())[0].objects
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "clip.txt", "own.yaml"]
    assert verb(command) == 2
    assert "overwrite" in said_once(capsys)
    assert verb([*command, "--overwrite"]) == 0


def test_json_holds_text_structure_and_sampling(verb, files, capsys):
    assert verb(["describe", files["clip"], "--config", files["recipe"], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert Paragraph.from_json(found["paragraph"]) == Paragraph.parse(found["text"])[0]
    assert found["sampling"] == {}
    assert found["raw"]
    assert found["out"] is None


def test_flags_reach_the_describer(verb, files, capsys):
    said = []
    for seed in (1, 2):
        assert verb(["describe", files["clip"], "--config", files["recipe"], "--set", f"describer.seed={seed}"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] != said[1]


def test_a_recipe_without_a_describer_is_one_sentence(verb, files, capsys):
    assert verb(["describe", files["clip"], "--config", "pipeline/classical"]) == 2
    assert "the recipe pipeline/classical has no describer; choose one that has" in said_once(capsys)


def test_a_describer_that_returns_something_else_is_one_sentence(verb, files, monkeypatch, capsys):
    monkeypatch.setattr("raccoon.cli.describe.build_describer", lambda *args: Mute())
    assert verb(["describe", files["clip"]]) == 1
    assert "Mute.describe must return a Description, got a str" in said_once(capsys)


def test_a_text_does_not_replace_its_video(verb, files, capsys):
    assert verb(["describe", files["clip"], "--config", files["recipe"], "-o", files["clip"], "--overwrite"]) == 2
    assert "the text would replace its own video" in said_once(capsys)


def test_a_video_that_is_not_there_is_one_sentence(verb, files, capsys):
    assert verb(["describe", "nowhere.mp4", "--config", files["recipe"]]) == 2
    assert "nowhere.mp4" in said_once(capsys)
