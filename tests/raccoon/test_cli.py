"""The command line: results, exit codes, and one sentence for every wrong input."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest

from raccoon.cli.main import build_parser, main
from raccoon_datamodules.masks import read_masks, write_masks
from raccoon_datamodules.video import Video

BEFORE = """Video Description: A dog chases a ball.

Object Descriptions:
1. Brown Dog: A small brown dog runs to the right.
2. Red Ball: A shiny red ball rolls ahead of it.
"""
AFTER = BEFORE.replace("2. Red Ball: A shiny red ball rolls ahead of it.\n", "")


@pytest.fixture
def clip(tmp_path: Path) -> dict[str, Path]:
    """A clip of 6 frames with a bright square, its mask and its texts."""
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.integers(60, 120, (1, 48, 64, 3), dtype=np.uint8), 6, axis=0)
    mask = np.zeros((6, 48, 64), np.uint8)
    for index in range(6):
        mask[index, 16:26, 5 + 8 * index : 15 + 8 * index] = 1
    frames[mask == 1] = (250, 30, 30)
    files = {name: tmp_path / name for name in ("clip.mp4", "mask", "before.txt", "after.txt")}
    Video.from_frames(frames, 10.0).write(files["clip.mp4"], lossless=True)
    write_masks(mask, files["mask"])
    files["before.txt"].write_text(BEFORE)
    files["after.txt"].write_text(AFTER)
    return files


def edit(clip: dict[str, Path], out: Path, *more: str) -> list[str]:
    words = ["edit", str(clip["clip.mp4"]), "-o", str(out), "--mask", str(clip["mask"]), *more]
    return words if "--paragraph" in more or "--remove" in more else [*words, "--remove", "Red Ball"]


def said_once(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert "Traceback" not in error
    return error


def test_every_verb_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    verbs = build_parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    for verb in verbs:
        assert main([verb, "--help"]) == 0
        text = capsys.readouterr().out
        assert "example" in text or "verbs:" in text, verb


def test_help_and_version_import_no_torch() -> None:
    code = (
        "import sys; from raccoon.cli.main import main; main(['--help']); main(['version']);"
        "heavy = {'torch', 'transformers', 'lightning', 'cv2', 'av'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=Path(__file__).parents[2])


def test_no_verb_prints_the_menu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "edit" in capsys.readouterr().out


def test_version_as_json_names_the_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "--all", "--json"]) == 0
    versions = json.loads(capsys.readouterr().out)
    assert versions["torch"]
    assert versions["raccoon"]


def test_plan_prints_the_edit_and_its_json(clip: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", str(clip["before.txt"]), str(clip["after.txt"])]
    assert main(words) == 0
    assert "remove" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [(e["kind"], e["name"]) for e in plan["edits"]] == [("remove", "Red Ball")]


def test_the_flags_of_an_ambiguous_plan_settle_plan_and_edit(
    clip: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip["after.txt"].write_text(AFTER + "2. Kite: A yellow kite high above.\n")
    words = ["plan", str(clip["before.txt"]), str(clip["after.txt"])]
    assert main(words) == 2
    assert '--remove "Red Ball" --add "Kite: A yellow kite high above."' in said_once(capsys)
    flags = ["--remove", "Red Ball", "--add", "Kite: A yellow kite high above."]
    assert main([*words, *flags]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "1. remove 'Red Ball'",
        "2. add 'Kite: A yellow kite high above.'",
    ]
    texts = ["--before", str(clip["before.txt"]), "--paragraph", str(clip["after.txt"])]
    assert main(edit(clip, tmp_path / "out.mp4", *texts, *flags)) == 2
    assert "it cannot add 'Kite'" in said_once(capsys)


def test_a_change_is_printed_with_its_words(clip: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    clip["after.txt"].write_text(BEFORE.replace("small brown", "large black"))
    assert main(["plan", str(clip["before.txt"]), str(clip["after.txt"])]) == 0
    assert "   words: -small -brown +large +black" in capsys.readouterr().out


def test_an_edit_by_paragraph_writes_video_sidecar_and_report(
    clip: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = tmp_path / "out.mkv", tmp_path / "out.html"
    texts = ["--before", str(clip["before.txt"]), "--paragraph", str(clip["after.txt"])]
    assert main(edit(clip, out, *texts, "--lossless", "--report", str(report), "--json")) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["measurements"]["max_error_outside_before_encoding"] == 0
    assert answer["measurements"]["encoded"]["max_error_outside"] == 0
    assert Video.read(out).num_frames == 6
    assert json.loads((tmp_path / "out.json").read_text())["plan"]["edits"]
    page = report.read_text()
    assert "<del>" in page
    assert "http" not in page.replace("http-equiv", "")


def test_an_edit_by_name_needs_no_paragraph_and_removes_the_square(clip: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    assert main(edit(clip, out, "--remove", "Red Ball", "--lossless")) == 0
    assert Video.read(out).frames.max() < 130
    assert Video.read(clip["clip.mp4"]).frames.max() == 250


def test_a_dry_run_writes_nothing(clip: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(tmp_path.iterdir())
    assert main(edit(clip, tmp_path / "out.mp4", "--dry-run")) == 0
    assert "remove" in capsys.readouterr().out
    assert sorted(tmp_path.iterdir()) == before


def test_a_result_replays_and_verifies(clip: dict[str, Path], tmp_path: Path) -> None:
    assert main(edit(clip, tmp_path / "out.mp4")) == 0
    assert main(["replay", str(tmp_path / "out.json")]) == 0
    assert main(["verify", str(tmp_path / "out.json")]) == 0


def test_a_result_that_was_tampered_with_does_not_verify(
    clip: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(edit(clip, tmp_path / "out.mp4")) == 0
    Video.from_frames(np.zeros((6, 48, 64, 3), np.uint8), 20.0).write(tmp_path / "out.mp4", overwrite=True)
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "out.json")]) == 1
    assert "does not keep" in said_once(capsys)


def spoil(clip: dict[str, Path], tmp_path: Path, what: str) -> list[str]:
    """The words of an `edit` that cannot be done."""
    out = tmp_path / "out.mp4"
    texts = ["--before", str(clip["before.txt"]), "--paragraph", str(clip["after.txt"])]
    if what == "video is missing":
        return ["edit", "nowhere.mp4", "-o", str(out), "--remove", "Dog", "--mask", str(clip["mask"])]
    if what == "video is a folder":
        return ["edit", str(tmp_path), "-o", str(out), "--remove", "Dog", "--mask", str(clip["mask"])]
    if what == "video is empty":
        clip["clip.mp4"].write_bytes(b"")
    if what == "video is text":
        clip["clip.mp4"].write_text("not a video " * 100)
    if what == "video is truncated":
        data = clip["clip.mp4"].read_bytes()
        clip["clip.mp4"].write_bytes(data[: len(data) // 2])
    if what == "mask is missing":
        return ["edit", str(clip["clip.mp4"]), "-o", str(out), "--remove", "Dog", "--mask", "nowhere"]
    if what == "mask has another size":
        write_masks(np.ones((6, 24, 32), np.uint8), tmp_path / "small")
        return ["edit", str(clip["clip.mp4"]), "-o", str(out), "--remove", "Dog", "--mask", str(tmp_path / "small")]
    if what == "mask has another count":
        (clip["mask"] / sorted(p.name for p in clip["mask"].iterdir())[-1]).unlink()
    if what == "mask is inverted":
        return [*edit(clip, out), "--invert-mask"]
    if what == "mask is empty":
        write_masks(np.zeros((6, 48, 64), np.uint8), tmp_path / "none")
        return ["edit", str(clip["clip.mp4"]), "-o", str(out), "--remove", "Dog", "--mask", str(tmp_path / "none")]
    if what == "no mask":
        return ["edit", str(clip["clip.mp4"]), "-o", str(out), "--remove", "Dog"]
    if what == "object is not there":
        return [*edit(clip, out, "--remove", "Brown Dig"), "--before", str(clip["before.txt"])]
    if what == "paragraph is missing":
        return edit(clip, out, "--before", "nowhere.txt", "--paragraph", str(clip["after.txt"]))
    if what == "paragraph is a video":
        return edit(clip, out, "--before", str(clip["clip.mp4"]), "--paragraph", str(clip["after.txt"]))
    if what == "paragraph is empty":
        clip["after.txt"].write_text("")
        return edit(clip, out, *texts)
    if what == "paragraphs are equal":
        clip["after.txt"].write_text(BEFORE)
        return edit(clip, out, *texts)
    if what == "nothing is asked":
        return ["edit", str(clip["clip.mp4"]), "-o", str(out)]
    if what == "output folder is missing":
        return edit(clip, tmp_path / "no" / "out.mp4")
    if what == "output has no video suffix":
        return edit(clip, tmp_path / "out.txt")
    if what == "output is the source":
        return [*edit(clip, clip["clip.mp4"]), "--overwrite"]
    if what == "output is the mask":
        Video.read(clip["clip.mp4"]).write(tmp_path / "mask.mp4")
        mask = tmp_path / "mask.mp4"
        return ["edit", str(clip["clip.mp4"]), "-o", str(mask), "--remove", "X", "--mask", str(mask), "--overwrite"]
    if what == "report is the source":
        return [*edit(clip, out), "--report", str(clip["clip.mp4"]), "--overwrite"]
    if what == "report is the result":
        return [*edit(clip, out), "--report", str(out)]
    if what == "report is a paragraph":
        page = clip["before.txt"].rename(tmp_path / "before.html")
        return [*edit(clip, out, "--before", str(page), "--remove", "Red Ball"), "--report", str(page), "--overwrite"]
    if what == "paragraph is a letter":
        clip["after.txt"].write_text("Dear Sir, the parcel came broken. Yours, A. Nonymous")
        return edit(clip, out, *texts)
    if what == "a name is empty":
        return [*edit(clip, out), "--report", ""]
    if what == "start is no number":
        return [*edit(clip, out), "--start", "nan"]
    if what == "no frames are asked for":
        return [*edit(clip, out), "--max-frames", "0"]
    if what == "one object has two masks":
        pair = [f"{name}={clip['mask']}" for name in ("Red Ball", "red ball")]
        return ["edit", str(clip["clip.mp4"]), "-o", str(out), "--remove", "X", "--mask", pair[0], "--mask", pair[1]]
    if what == "both texts come from stdin":
        return edit(clip, out, "--before", "-", "--paragraph", "-")
    if what == "a flag is unknown":
        return [*edit(clip, out), "--make-it-nice"]
    if what == "recipe is unknown":
        return [*edit(clip, out), "--config", "pipeline/classicall"]
    if what == "key is unknown":
        return [*edit(clip, out), "--set", "editor.groww=3"]
    if what == "painter cannot add":
        return ["edit", str(clip["clip.mp4"]), "-o", str(out), "--add", "Cat: A cat.", "--mask", str(clip["mask"])]
    return edit(clip, out)


@pytest.mark.parametrize(
    ("what", "needle"),
    [
        ("video is missing", "nowhere.mp4"),
        ("video is a folder", "folder"),
        ("video is empty", "empty"),
        ("video is text", "clip.mp4"),
        ("video is truncated", "clip.mp4"),
        ("mask is missing", "nowhere"),
        ("mask has another size", "64x48"),
        ("mask has another count", "5"),
        ("mask is inverted", "--invert-mask"),
        ("mask is empty", "empty"),
        ("no mask", "--mask"),
        ("object is not there", "did you mean"),
        ("paragraph is missing", "nowhere.txt"),
        ("paragraph is a video", "UTF-8"),
        ("paragraph is empty", "after.txt"),
        ("paragraphs are equal", "no edit"),
        ("nothing is asked", "--remove"),
        ("output folder is missing", "no"),
        ("output has no video suffix", ".mp4"),
        ("output is the source", "source"),
        ("output is the mask", "--mask"),
        ("report is the source", ".html"),
        ("report is the result", ".html"),
        ("report is a paragraph", "--before"),
        ("paragraph is a letter", "Object Descriptions:"),
        ("a name is empty", "--report: must not be empty"),
        ("start is no number", "--start"),
        ("no frames are asked for", "--max-frames"),
        ("one object has two masks", "twice"),
        ("both texts come from stdin", "stdin"),
        ("a flag is unknown", "see raccoon edit --help"),
        ("recipe is unknown", "pipeline/classical"),
        ("key is unknown", "groww"),
        ("painter cannot add", "add"),
    ],
)
def test_wrong_input_is_one_sentence_and_writes_nothing(
    clip: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, needle: str
) -> None:
    words = spoil(clip, tmp_path, what)
    there = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert main(words) == 2
    assert needle in said_once(capsys)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == there


def test_a_background_mask_is_used_when_it_is_said_to_be_meant_so(
    clip: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*edit(clip, tmp_path / "out.mp4"), "--invert-mask"]
    assert main(words) == 2
    assert "--trust-mask" in said_once(capsys)
    assert main([*words, "--trust-mask", "--set", "painter.window=4"]) == 0
    assert "inverted" in capsys.readouterr().err


def test_an_existing_output_is_kept_without_overwrite(
    clip: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mp4"
    out.write_text("precious")
    assert main(edit(clip, out)) == 2
    assert "--overwrite" in said_once(capsys)
    assert out.read_text() == "precious"


def test_an_interrupt_leaves_nothing_and_keeps_the_old(
    clip: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mp4"
    out.write_text("precious")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("raccoon.models.propagation.MedianTeleaPainter.paint", interrupted)
    there = sorted(tmp_path.iterdir())
    assert main([*edit(clip, out), "--overwrite"]) == 130
    assert "interrupted" in said_once(capsys)
    assert sorted(tmp_path.iterdir()) == there
    assert out.read_text() == "precious"


def test_a_full_disk_is_one_sentence_and_keeps_the_old(
    clip: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mp4"
    out.write_text("precious")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Video, "write", full)
    there = sorted(tmp_path.iterdir())
    assert main([*edit(clip, out), "--overwrite"]) == 1
    assert f"no room left to write {out};" in said_once(capsys)
    assert sorted(tmp_path.iterdir()) == there
    assert out.read_text() == "precious"


def test_what_a_strangers_painter_raises_names_the_painter_and_the_edit(
    clip: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("weights")

    monkeypatch.setattr("raccoon.models.propagation.MedianTeleaPainter.paint", broken)
    assert main(edit(clip, tmp_path / "out.mp4")) == 1
    error = said_once(capsys)
    assert "MedianTeleaPainter was painting 'Red Ball'" in error
    assert "internal error" not in error


def test_a_video_without_sidecar_takes_away_that_of_the_video_it_replaces(
    clip: dict[str, Path], tmp_path: Path
) -> None:
    assert main(edit(clip, tmp_path / "out.mp4")) == 0
    assert main([*edit(clip, tmp_path / "out.mp4"), "--overwrite", "--no-sidecar"]) == 0
    assert not (tmp_path / "out.json").exists()


def test_a_report_that_does_not_fit_on_the_disk_leaves_the_video_and_says_so(
    clip: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no room left")

    monkeypatch.setattr("raccoon.report.write_report", full)
    assert main([*edit(clip, tmp_path / "out.mp4"), "--report", str(tmp_path / "r.html")]) == 1
    assert "the video itself was written" in said_once(capsys)
    assert (tmp_path / "out.mp4").exists()


def test_a_fault_of_ours_is_said_as_such(
    clip: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr("raccoon.plan.diff", broken)
    assert main(["plan", str(clip["before.txt"]), str(clip["after.txt"])]) == 1
    assert "internal error" in said_once(capsys)


def test_an_error_with_json_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "nowhere.txt", "nowhere.txt", "--json"]) == 2
    assert "nowhere.txt" in json.loads(capsys.readouterr().out)["error"]


def test_wrong_usage_with_json_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["edit", "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["verb"] == "edit"
    assert "VIDEO" in answer["error"]


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_terminal_without_the_letters_gets_escapes(tmp_path: Path, more: list[str]) -> None:
    before, after = tmp_path / "before.txt", tmp_path / "after.txt"
    before.write_text("Video Description: x\n\nObject Descriptions:\n1. 犬 🐕: 走る\n", encoding="utf-8")
    after.write_text("Video Description: x\n\nObject Descriptions:\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "raccoon.cli.main", "plan", str(before), str(after), *more],
        capture_output=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    if more:
        assert json.loads(done.stdout)["edits"][0]["name"] == "犬 🐕"
    else:
        assert rb"remove '\u72ac" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_full_stdout_is_exit_code_one_without_a_traceback(more: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "raccoon.cli.main", "version", *more],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == "raccoon version: No space left on device\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_all_processes_of_a_synth_leaves_neither_file_nor_worker(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    folder = tmp_path / "set"
    words = ["vplm", "synth", "--out", str(folder), "--count", "100000", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "raccoon.cli.main", *words],
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
        # A shell lets what it runs in the background ignore SIGINT; a test may be run so.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
        text=True,
    )
    until = time.monotonic() + 60
    while not any(file.stat().st_size for file in folder.rglob("*.tar")) and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(process.pid, number)
    # Ends when the last process that holds its end of the pipe is gone, the workers among them.
    _, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert "nothing half-written" in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_a_killed_worker_is_an_error_and_no_endless_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise BrokenProcessPool

    monkeypatch.setattr("concurrent.futures.Future.result", killed)
    words = ["vplm", "synth", "--out", str(tmp_path / "set"), "--count", "1", "--workers", "2"]
    assert main(words) == 1
    assert "--workers" in said_once(capsys)


def test_synth_then_check_finds_nothing_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["vplm", "synth", "--out", str(tmp_path / "set"), "--count", "3", "--per-shard", "2", "--frames", "3"]
    assert main([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["samples"], answer["shards"]) == (3, 2)
    assert main(["vplm", "check", str(tmp_path / "set"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == []


def test_synth_writes_the_same_bytes_twice_and_with_workers(tmp_path: Path) -> None:
    for name, more in (("a", []), ("b", []), ("c", ["--workers", "2"])):
        words = ["vplm", "synth", "--out", str(tmp_path / name), "--count", "2", "--frames", "2"]
        assert main([*words, *more]) == 0
    tars = [next((tmp_path / name).glob("*.tar")).read_bytes() for name in "abc"]
    assert tars[0] == tars[1] == tars[2]


def test_a_damaged_shard_is_found_with_exit_code_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vplm", "synth", "--out", str(tmp_path / "set"), "--count", "2", "--frames", "2"]) == 0
    shard = next((tmp_path / "set").glob("*.tar"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0xFF
    shard.write_bytes(data)
    capsys.readouterr()
    assert main(["vplm", "check", str(tmp_path / "set")]) == 1
    assert shard.name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "needle"),
    [
        (["--count", "0"], "--count"),
        (["--count", "1", "--size", "64"], "--size"),
        (["--count", "1", "--seed", "-1"], "--seed"),
        (["--count", "2", "--seed", "999999999"], "--seed"),
        (["--count", "1", "--size", "²x²"], "--size"),
        (["--count", "1", "--frames", "0"], "--frames"),
        (["--count", "1", "--split", "a b"], "split"),
        (["--count", "1", "--per-shard", "0"], "--per-shard"),
        (["--count", "one"], "--count"),
    ],
)
def test_synth_refuses_wrong_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], needle: str
) -> None:
    assert main(["vplm", "synth", "--out", str(tmp_path / "set"), *more]) == 2
    assert needle in said_once(capsys)
    assert not list(tmp_path.rglob("*.tar"))


def test_check_of_a_folder_without_shards_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vplm", "check", str(tmp_path)]) == 2
    assert str(tmp_path) in said_once(capsys)


def test_the_classical_demo_writes_a_result_that_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--classical", "--out", str(tmp_path / "demo"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert "Nothing learned" in answer["notes"][0]
    assert "max error 0 of 255" in answer["measured"]["outside the mask, before encoding"]
    assert main(["verify", str(tmp_path / "demo" / "edited.json")]) == 0


def test_the_demo_describes_a_held_out_clip_and_edits_it_by_its_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "demo"
    assert main(["demo", "--out", str(folder), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer["measured"]) == {"remove", "change", "add"}
    for rows in answer["measured"].values():
        assert "max error 0 of 255" in rows["outside the mask, before encoding"]
        assert "max error 0 of 255" in rows["outside the mask, after encoding"]
    described = {item["name"] for item in answer["described"]["objects"]}
    assert described & {item["name"] for item in answer["truth"]["objects"]}
    assert {"report.html", "strip.png", "before.txt", "remove.txt"} <= {path.name for path in folder.iterdir()}
    for kind in ("remove", "change", "add"):
        assert main(["verify", str(folder / f"{kind}.json")]) == 0
    assert main(["demo", "--out", str(folder)]) == 2


def test_the_demo_takes_a_video_of_yours(clip: dict[str, Path], tmp_path: Path) -> None:
    words = ["demo", "--out", str(tmp_path / "demo"), "--video", str(clip["clip.mp4"]), "--mask", str(clip["mask"])]
    assert main(words) == 0
    assert (tmp_path / "demo" / "report.html").exists()


def test_a_demo_that_cannot_begin_leaves_no_folder(
    clip: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["demo", "--out", str(tmp_path / "demo"), "--video", str(tmp_path / "nope.mp4"), "--mask"]
    assert main([*words, str(clip["mask"])]) == 2
    assert "there is no video at" in said_once(capsys)
    words[4] = str(clip["clip.mp4"])
    assert main([*words, str(tmp_path / "nope")]) == 2
    assert "there is no mask at" in said_once(capsys)
    assert not (tmp_path / "demo").exists()


def test_a_folder_is_no_place_for_the_video(clip: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(edit(clip, Path("."))) == 2
    assert "--out must be a file, . is a folder; name the video, such as out.mp4" in said_once(capsys)


def test_the_video_is_not_its_own_mask(
    clip: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["edit", str(clip["clip.mp4"]), "-o", str(tmp_path / "out.mp4"), "--remove", "Ball", "--mask"]
    assert main([*words, str(clip["clip.mp4"])]) == 2
    assert "--mask must be another file than the video itself" in said_once(capsys)


def test_more_bits_than_are_kept_are_noted(
    clip: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = tmp_path / "deep.mkv"
    frames = Video.read(clip["clip.mp4"]).frames
    with av.open(str(deep), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p10le"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    assert main(edit(clip | {"clip.mp4": deep}, tmp_path / "out.mp4", "--dry-run")) == 0
    assert "the source has 10 bits a color; frames are read, edited and written with 8" in said_once(capsys)


def test_a_miniature_before_a_video_of_the_real_world_is_noted(
    clip: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(edit(clip, tmp_path / "out.mp4", "--dry-run", "--config", "pipeline/tiny")) == 0
    assert "the recipe's painter is a miniature that knows drawn clips of 64x64 pixels" in capsys.readouterr().err


def test_the_demo_takes_a_mask_that_marks_what_to_keep(clip: dict[str, Path], tmp_path: Path) -> None:
    kept = 1 - read_masks(clip["mask"], video=Video.read(clip["clip.mp4"])).data
    write_masks(kept, tmp_path / "kept")
    words = [
        "demo",
        "--out",
        str(tmp_path / "demo"),
        "--video",
        str(clip["clip.mp4"]),
        "--mask",
        str(tmp_path / "kept"),
    ]
    assert main(words) == 2
    assert main([*words, "--invert-mask"]) == 0


@pytest.mark.parametrize("name", ["edited.mp4", "report.html", "strip.png", "before.txt", "mask"])
def test_the_demo_touches_nothing_in_a_folder_that_holds_one_of_its_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).write_text("precious")
    assert main(["demo", "--classical", "--out", str(tmp_path)]) == 2
    assert "--overwrite" in said_once(capsys)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "precious")]


def test_the_demo_needs_video_and_mask_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", str(tmp_path / "demo"), "--video", "x.mp4"]) == 2
    assert "--mask" in said_once(capsys)
