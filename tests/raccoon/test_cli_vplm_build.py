"""`raccoon vplm build` as a user types it."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raccoon.cli.main import main
from raccoon_datamodules.index import Index
from raccoon_datamodules.sample import decode
from raccoon_datamodules.sources import ShardSource

REPO = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("RACCOON_TEST_DATA", REPO / "../shared/data"))


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def rovi(tmp_path):
    root = tmp_path / "rovi"
    for name in ("a", "b", "c.d"):
        for n in range(4):
            label = np.zeros((32, 48), dtype=np.uint8)
            label[4:20, n : n + 14] = 1
            frame = np.full((32, 48, 3), 20 * n, dtype=np.uint8)
            save(root / f"JPEGImages/{name}/{n:05d}.jpg", np.where(label[..., None] == 1, 255, frame).astype(np.uint8))
            save(root / f"Annotations/{name}/{n:05d}.png", label)
            save(root / f"InpaintImages/{name}/1/{n:05d}.jpg", frame)
    return root


def raccoon(*words):
    return main(["vplm", "build", *map(str, words)])


def samples(folder):
    source = ShardSource(folder)
    return [decode(source.read(0, n)) for n in range(len(source.index))]


def test_a_data_set_of_rovi_with_the_released_lists(rovi, tmp_path, capsys):
    released = [
        {"vid": "a", "mask_id": 1, "task": "removal", "description": "White Box: It slides.", "prompt": "Remove it."},
        {"vid": "a", "description": "Video Description: A box slides."},
        {"vid": "gone", "mask_id": "1", "description": "A dog."},
        {"vid": "b", "mask_id": "7", "description": "A cat."},
    ]
    (tmp_path / "gt_train.json").write_text(json.dumps(released))
    (tmp_path / "meta.json").write_text(json.dumps({"b": {"1": "white_box"}}))
    words = ("--out", tmp_path / "out", "--rovi", rovi, "--released", tmp_path / "gt_train.json", "--frames", 2)
    assert raccoon(*words, "--meta", tmp_path / "meta.json", "--size", "16x24", "--licence", "MIT") == 0
    out, err = capsys.readouterr()
    assert "3 samples of 3 videos with 3 objects, 6 frames in 1 shard" in out
    assert "1  record left out: no such mask" in err
    assert "1  record left out: no such video; first: gone: gt_train.json[2]" in err
    a, b, cd = samples(tmp_path / "out/train")
    assert (a.meta["annotation"], a.objects[0].name, a.edits[0].instruction) == ("released", "White Box", "Remove it.")
    assert (b.meta["annotation"], b.objects[0].name, b.meta["licence"]) == ("none", "White Box", "MIT")
    assert cd.key.startswith("c_d-")
    report = json.loads((tmp_path / "out/build-report.json").read_text())
    assert [f["video"] for f in report["findings"]] == ["gone", "b"]


def test_the_second_time_nothing_is_to_be_done(rovi, tmp_path, capsys):
    raccoon("--out", tmp_path / "out", "--rovi", rovi)
    capsys.readouterr()
    assert raccoon("--out", tmp_path / "out", "--rovi", rovi) == 0
    assert "nothing was to be done, 3 there already" in capsys.readouterr().out


def test_json_is_one_object(rovi, tmp_path, capsys):
    assert raccoon("--out", tmp_path / "out", "--rovi", rovi, "--json") == 0
    out = json.loads(capsys.readouterr().out)
    assert (out["made"], out["kept"], out["splits"]["train"]["samples"], out["reasons"]) == (3, 0, 3, [])


def test_splits_by_lists_and_by_shares(rovi, tmp_path):
    (tmp_path / "val.txt").write_text("b\n\n c.d \n")
    words = ("--out", tmp_path / "out", "--rovi", rovi, "--split-list", f"val={tmp_path / 'val.txt'}", "--test", 0.001)
    assert raccoon(*words) == 0
    assert list(Index.load(tmp_path / "out/train").keys()) == ["a"]
    assert len(Index.load(tmp_path / "out/val")) == 2


def test_videos_with_masks_and_without(rovi, tmp_path):
    words = ("--videos", rovi / "JPEGImages")
    assert raccoon("--out", tmp_path / "plain", *words, "--clip-length", 2) == 0
    assert [len(s.objects) for s in samples(tmp_path / "plain/train")] == [0] * 6
    masks = ("--masks", rovi / "Annotations", "--inpainted", rovi / "InpaintImages")
    assert raccoon("--out", tmp_path / "masks", *words, *masks) == 0
    assert all(s.objects[0].inpainted is not None for s in samples(tmp_path / "masks/train"))


def test_davis_is_found_by_its_resolution(rovi, tmp_path):
    for tree in ("JPEGImages", "Annotations"):
        shutil.copytree(rovi / tree, tmp_path / "davis" / tree / "480p")
    assert raccoon("--out", tmp_path / "out", "--davis", tmp_path / "davis", "--resolution", "480p") == 0
    assert len(Index.load(tmp_path / "out/train")) == 3


def test_only_listed_videos(rovi, tmp_path, capsys):
    (tmp_path / "list.json").write_text('[{"vid": "a", "description": "A box."}]')
    words = ("--out", tmp_path / "out", "--rovi", rovi, "--released", tmp_path / "list.json", "--listed-only")
    assert raccoon(*words) == 0
    assert "2  video left out: not in the lists; first: b" in capsys.readouterr().err
    assert len(Index.load(tmp_path / "out/train")) == 1


def test_nothing_to_build_is_a_failure(rovi, tmp_path, capsys):
    assert raccoon("--out", tmp_path / "out", "--rovi", rovi, "--min-area", 0.9) == 1
    assert "no sample could be made: the table above says why" in capsys.readouterr().err


def test_a_folder_without_videos_is_said_so(tmp_path, capsys):
    (tmp_path / "clips").mkdir()
    assert raccoon("--out", tmp_path / "out", "--videos", tmp_path / "clips") == 1
    assert "no video was found, neither file nor folder of frames" in capsys.readouterr().err


def test_videos_of_which_nothing_is_left_are_not_counted_as_built(rovi, tmp_path, capsys):
    for file in (rovi / "Annotations/b").iterdir():
        save(file, np.zeros((32, 48), np.uint8))
    assert raccoon("--out", tmp_path / "out", "--rovi", rovi) == 0
    assert "2 built, 1 left out, 0 there already" in capsys.readouterr().out
    assert raccoon("--out", tmp_path / "out", "--rovi", rovi) == 0
    assert "nothing was to be done, 3 there already" in capsys.readouterr().out


def test_after_a_full_disk_the_same_line_goes_on(rovi, tmp_path, capsys, monkeypatch):
    full = OSError(errno.ENOSPC, "no room left")

    def no_room(*words, **settings):
        raise full

    with monkeypatch.context() as inside:
        inside.setattr("raccoon_datamodules.build.run.build", no_room)
        assert raccoon("--out", tmp_path / "out", "--rovi", rovi) == 1
    assert "what is finished is kept; run the same line again to go on" in capsys.readouterr().err


WRONG = {
    "size": (["--size", "big"], "--size must be the shorter side or HEIGHTxWIDTH"),
    "workers": (["--workers", "-1"], "--workers must be at least 0, got -1"),
    "per shard": (["--per-shard", "0"], "--per-shard must be at least 1, got 0"),
    "stride": (["--clip-stride", "3"], "which needs clip_length"),
    "masks": (["--masks", "x"], "--masks goes with --videos"),
    "resolution": (["--resolution", "480p"], "--resolution goes with --davis"),
    "listed": (["--listed-only"], "--listed-only needs a list"),
    "released": (["--released", "none.json"], "there is no released list none.json"),
    "meta": (["--meta", "none.json"], "there is no metadata file none.json"),
    "list": (["--split-list", "val"], "--split-list must be SPLIT=FILE"),
    "list file": (["--split-list", "val=none.txt"], "there is no list none.txt of the videos of split val"),
    "share": (["--val", "2"], "shares of splits must lie in"),
    "split": (["--split", "my-split"], "a split must match"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_words_are_refused_in_one_sentence(rovi, tmp_path, capsys, wrong):
    words, message = WRONG[wrong]
    assert raccoon("--out", tmp_path / "out", "--rovi", rovi, *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rovi", "none"], "the folder none is not there: check the name"),
        (["--videos", __file__], "test_cli_vplm_build.py is a file: name the folder that it is in"),
        (["--videos", "x", "--rovi", "y"], "not allowed with"),
        ([], "one of the arguments --rovi --davis --videos is required"),
    ],
)
def test_the_source_must_be_one_that_is_there(tmp_path, capsys, words, message):
    assert raccoon("--out", tmp_path / "out", *words) == 2
    assert message in capsys.readouterr().err


def test_inpainted_needs_masks(rovi, tmp_path, capsys):
    words = ("--videos", rovi / "JPEGImages", "--inpainted", rovi / "InpaintImages")
    assert raccoon("--out", tmp_path / "out", *words) == 2
    assert "--inpainted needs --masks" in capsys.readouterr().err


def test_help_has_an_example(capsys):
    assert raccoon("--help") == 0
    assert "raccoon vplm build --out vplm --rovi ROVI --released gt_train.json" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_what_is_finished_for_the_next_run(rovi, tmp_path, sent, code):
    for n in range(40):
        shutil.copytree(rovi / "JPEGImages/a", rovi / f"JPEGImages/x{n}")
        shutil.copytree(rovi / "Annotations/a", rovi / f"Annotations/x{n}")
    words = ["vplm", "build", "--out", str(tmp_path / "out"), "--rovi", str(rovi), "--workers", "2"]
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom raccoon.cli.main import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
    )
    path = os.pathsep.join(str(REPO / part) for part in (".", "kernels", "datamodules"))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, str(script), *words], env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    while not list((tmp_path / "out").glob(".build/items/*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(sent)
    assert child.wait(60) == code
    assert "what is finished is kept; run the same line again to go on" in child.communicate()[1]
    assert main(words[:-2]) == 0
    assert len(Index.load(tmp_path / "out/train")) == 43


@pytest.mark.skipif(not (DATA / "masks").is_dir(), reason=f"no real clips at {DATA}")
def test_real_clips_with_masks(tmp_path, capsys):
    for name in ("blackswan", "car-shadow"):
        (tmp_path / "clips").mkdir(exist_ok=True)
        (tmp_path / "clips" / f"{name}.mp4").symlink_to((DATA / "clips" / f"{name}.mp4").resolve())
    words = ("--videos", tmp_path / "clips", "--masks", DATA / "masks", "--frames", 4, "--size", "64")
    assert raccoon("--out", tmp_path / "out", *words) == 0
    assert main(["vplm", "check", str(tmp_path / "out/train")]) == 0
    assert [s.objects[0].mask.any(axis=(1, 2)).all() for s in samples(tmp_path / "out/train")] == [True, True]
