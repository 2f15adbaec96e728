import json
from pathlib import Path

import pytest

from raccoon.cli.main import main


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "train"
    assert main(["vplm", "synth", "--out", str(folder), "--count", "3", "--frames", "2"]) == 0
    return folder


def test_stats_prints_a_table(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vplm", "stats", str(scenes)]) == 0
    captured = capsys.readouterr()
    assert "words per paragraph" in captured.out
    assert captured.err == ""


def test_stats_prints_one_json_object_and_draws(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["vplm", "stats", str(scenes), "--json", "--plots", str(tmp_path / "plots")]
    assert main(words) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["num_clips"] == 3
    assert [Path(path).name for path in answer["plots"]] == ["distributions.png", "counts.png"]
    assert all(Path(path).is_file() for path in answer["plots"])
    assert main(words) == 2
    assert "--overwrite" in json.loads(capsys.readouterr().out)["error"]


def test_stats_of_nothing_readable_fails_and_says_why(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in scenes.iterdir():
        data = file.read_bytes()
        (tmp_path / file.name).write_bytes(bytes(len(data)) if file.suffix == ".tar" else data)
    assert main(["vplm", "stats", str(tmp_path), "--plots", str(tmp_path / "plots")]) == 1
    captured = capsys.readouterr()
    assert "3 samples could not be read" in captured.err
    assert "checksum" in captured.out
    assert not list((tmp_path / "plots").iterdir())


def test_stats_of_a_folder_that_is_not_there_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vplm", "stats", "no-such-folder"]) == 2
    assert "no-such-folder" in capsys.readouterr().err
