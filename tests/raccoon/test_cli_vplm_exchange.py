import json
import shutil
from pathlib import Path

import pytest

from raccoon.cli.main import main
from raccoon_datamodules.index import Index


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "train"
    assert main(["vplm", "synth", "--out", str(folder), "--count", "3", "--frames", "2"]) == 0
    return folder


def test_an_export_and_its_import_are_the_same_data(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["vplm", "export", str(scenes), "--out", str(tmp_path / "out")]) == 0
    assert "3 of 3 samples written, 0 left out" in capsys.readouterr().out
    assert main(["vplm", "import", str(tmp_path / "out/train.jsonl"), "--out", str(tmp_path / "b"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["num_read"], answer["num_written"], answer["problems"]) == (3, 3, [])
    assert [p.read_bytes() for p in (tmp_path / "b").glob("*.tar")] == [p.read_bytes() for p in scenes.glob("*.tar")]


@pytest.fixture
def half_bad(scenes: Path, tmp_path: Path) -> Path:
    """An exported JSONL whose second line is damaged."""
    assert main(["vplm", "export", str(scenes), "--out", str(tmp_path / "out"), "--masks", "png"]) == 0
    file = tmp_path / "out" / "train.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], lines[1][:50], lines[2]]))
    return file


def test_bad_lines_are_listed_and_give_exit_code_one(half_bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["vplm", "import", str(half_bad), "--out", str(half_bad.parents[1] / "b")]
    capsys.readouterr()
    assert main(words) == 1
    out = capsys.readouterr().out
    assert "2 of 3 samples written, 1 left out" in out
    assert f"left out: {half_bad}, line 2: the line: must be JSON in UTF-8" in out
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--skip-bad"]) == 0


def test_a_sample_that_cannot_be_exported_gives_exit_code_one(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(scenes, damaged)
    (shard,) = Index.load(damaged).shards
    data = bytearray((damaged / shard.name).read_bytes())
    data[shard.members(1)[0].offset] ^= 0xFF
    (damaged / shard.name).write_bytes(data)
    words = ["vplm", "export", str(damaged), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    assert "2 of 3 samples written, 1 left out" in capsys.readouterr().out
    assert main([*words, "--skip-bad", "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (["import", "no.jsonl", "--out", "x"], "there is no file no.jsonl to import"),
        (["export", "no-such-folder", "--out", "x"], "no-such-folder"),
        (["export", "x"], "--out"),
        (["export", "x", "--out", "y", "--masks", "gif"], "--masks"),
        (["export", "x", "--out", "y", "--format", "coco"], "--format"),
        (["import", "x.jsonl", "--out", ""], "must not be empty"),
    ],
)
def test_wrong_words_are_refused_in_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    needle: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["vplm", *words]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert needle in captured.err
    assert list(tmp_path.iterdir()) == []
