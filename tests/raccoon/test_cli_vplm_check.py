import json
import shutil
from pathlib import Path

import pytest

from raccoon.cli.main import main
from raccoon_datamodules.faults import read_faults
from raccoon_datamodules.index import Index
from raccoon_datamodules.sources import ShardSource


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``train`` and ``test`` of small scenes; not to be changed."""
    folder = tmp_path_factory.mktemp("scenes")
    for split, count in (("train", "4"), ("test", "2")):
        words = ["vplm", "synth", "--out", str(folder / split), "--count", count, "--split", split, "--frames", "2"]
        assert main(words) == 0
    return folder


@pytest.fixture
def damaged(scenes: Path, tmp_path: Path) -> Path:
    """The train scenes with a damaged byte in one of them."""
    folder = tmp_path / "damaged"
    shutil.copytree(scenes / "train", folder)
    (shard,) = Index.load(folder).shards
    data = bytearray((folder / shard.name).read_bytes())
    data[shard.members(2)[0].offset] ^= 0xFF
    (folder / shard.name).write_bytes(data)
    return folder


def test_several_folders_are_checked_against_each_other(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vplm", "check", str(scenes / "test"), str(scenes / "train"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [folder["split"] for folder in answer["folders"]] == ["test", "train"]
    assert (answer["ok"], answer["num_samples"], answer["problems"]) == (True, 6, [])


def test_a_leak_gives_exit_code_one_and_names_both_folders(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leaky = tmp_path / "leaky"
    leaky.mkdir()
    for file in (scenes / "train").iterdir():
        (leaky / file.name).write_bytes(file.read_bytes())
    assert main(["vplm", "check", str(scenes / "train"), str(leaky), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["num_errors"], answer["num_bad_samples"]) == (4, 4)
    assert {problem["folder"] for problem in answer["problems"]} == {str(leaky)}
    assert all(str(scenes / "train") in problem["reason"] for problem in answer["problems"])
    assert main(["vplm", "check", str(scenes / "train"), str(leaky), "--near", "off"]) == 0


def test_the_bad_list_reads_as_a_quarantine_list_and_the_report_holds_every_finding(
    damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, bad = tmp_path / "report.jsonl", tmp_path / "bad.jsonl"
    assert main(["vplm", "check", str(damaged), "--report", str(report), "--bad-list", str(bad), "--json"]) == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert [line["reason"] for line in lines] == [problem["reason"] for problem in problems]
    (fault,) = read_faults(bad)
    assert (fault.shard, fault.key) == (problems[-1]["shard"], problems[-1]["key"])
    assert fault.member
    assert "checksum" in fault.reason
    assert fault.key not in set(ShardSource(damaged, exclude=bad).index.keys())


def test_a_list_that_is_there_is_replaced_only_when_told(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("old")
    words = ["vplm", "check", str(scenes / "test"), "--quick", "--bad-list", str(bad)]
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert bad.read_text() == "old"
    assert main([*words, "--overwrite"]) == 0
    assert bad.read_text() == ""


def test_strict_takes_warnings_for_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "twice"
    words = ["vplm", "synth", "--out", str(folder), "--count", "1", "--frames", "2"]
    assert main(words) == 0
    shard = next(folder.glob("*.tar"))
    data = shard.read_bytes()
    key = data[:100].split(b".")[0].decode()
    other = f"{key[:-1]}1"
    (folder / "vplm-train-000001.tar").write_bytes(_with_sums(data.replace(key.encode(), other.encode())))
    bad = tmp_path / "bad.jsonl"
    capsys.readouterr()
    assert main(["vplm", "check", str(folder), "--reindex"]) == 0
    assert "1 warning" in capsys.readouterr().out
    assert main(["vplm", "check", str(folder), "--strict", "--bad-list", str(bad)]) == 1
    assert [fault.key for fault in read_faults(bad)] == [other]


def _with_sums(data: bytes) -> bytes:
    """The tar with the checksums of its headers made right again."""
    out = bytearray(data)
    place = 0
    while out[place] and place + 512 <= len(out):
        size = int(out[place + 124 : place + 135], 8)
        out[place + 148 : place + 156] = b" " * 8
        out[place + 148 : place + 156] = b"%06o\0 " % sum(out[place : place + 512])
        place += 512 + -(-size // 512) * 512
    return bytes(out)


@pytest.mark.parametrize(
    ("more", "needle"),
    [
        (["--near", "8"], "max_bits must be in [0, 7]"),
        (["--near", "some"], "must be a number of bits or off"),
        (["--workers", "-1"], "workers must not be negative"),
        (["--report", "x.jsonl", "--bad-list", "x.jsonl"], "must be two files"),
        (["--report", "no/such/folder/x.jsonl"], "does not exist"),
        (["no-such-folder"], "no-such-folder"),
    ],
)
def test_wrong_words_are_refused_in_one_sentence(
    scenes: Path, capsys: pytest.CaptureFixture[str], more: list[str], needle: str
) -> None:
    assert main(["vplm", "check", str(scenes / "test"), *more]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert needle in captured.err


def test_a_damaged_index_is_told_and_written_anew_when_asked(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(scenes / "train", folder)
    right = (folder / "index.json").read_bytes()
    (folder / "index.json").write_bytes(right[:-100])
    words = ["vplm", "check", str(folder)]
    assert main(words) == 1
    out = capsys.readouterr().out
    assert "4 samples" in out
    assert "error: index.json: " in out
    assert main([*words, "--reindex"]) == 0
    assert "wrote index.json anew (1 shard, 4 samples); the former one is kept as index.json.old-1" in (
        capsys.readouterr().err
    )
    assert (folder / "index.json").read_bytes() == right
    assert main([*words, "--reindex"]) == 0
    assert "index.json is right as it is" in capsys.readouterr().err


def test_shards_whose_checksum_was_another_are_named_when_an_index_is_written_anew(
    damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["vplm", "check", str(damaged), "--reindex"]) == 1
    assert "had another checksum in the former index: damaged, unless somebody rewrote it" in capsys.readouterr().err
