"""Builds as a whole: splits, second runs, changes, and kills in the middle."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raccoon_datamodules.build import clips as clips_module
from raccoon_datamodules.build import item as item_module
from raccoon_datamodules.build import run as run_module
from raccoon_datamodules.build.folders import scan_rovi, scan_videos
from raccoon_datamodules.build.frames import read_picture
from raccoon_datamodules.build.keys import SplitPolicy
from raccoon_datamodules.build.options import BuildOptions, Sampling
from raccoon_datamodules.build.run import build
from raccoon_datamodules.build.staging import Items, locked
from raccoon_datamodules.examine.check import check_shards
from raccoon_datamodules.index import Index
from raccoon_datamodules.sample import decode
from raccoon_datamodules.sources import ShardSource

OPTIONS = BuildOptions(size=(16, 24))
REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def rovi(tmp_path, put_video):
    for n in range(7):
        put_video(tmp_path / "rovi", f"v{n}", inpainted=(1,), shade=9 * n)
    return tmp_path / "rovi"


def run(root, out, **given):
    given = {"options": OPTIONS, "samples_per_shard": 2, **given}
    return build(scan_rovi(root).videos, out, **given)


def hashes(out):
    """Every file of the result but its hidden state, by its bytes."""
    files = [p for p in sorted(out.rglob("*")) if p.is_file() and ".build" not in p.parts]
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def times(out):
    return {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.name != "lock"}


def test_a_build_is_sound_and_reports_what_it_holds(rovi, tmp_path):
    report = run(rovi, tmp_path / "out")
    assert report.splits == {"train": {"videos": 7, "samples": 7, "objects": 7, "frames": 42, "shards": 4}}
    assert (report.made, report.kept, report.changed) == (7, 0, True)
    assert check_shards(tmp_path / "out/train").ok
    assert list(Index.load(tmp_path / "out/train").keys()) == [f"v{n}" for n in range(7)]
    written = json.loads((tmp_path / "out/build-report.json").read_text())
    assert written["splits"] == report.splits


def test_a_second_run_does_nothing(rovi, tmp_path):
    run(rovi, tmp_path / "out")
    before = times(tmp_path / "out")
    report = run(rovi, tmp_path / "out")
    assert (report.made, report.kept, report.changed) == (0, 7, False)
    assert times(tmp_path / "out") == before


def test_any_number_of_workers_gives_the_same_bytes(rovi, tmp_path):
    run(rovi, tmp_path / "one")
    seen = []
    run(rovi, tmp_path / "two", workers=2, progress=lambda done, total: seen.append((done, total)))
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert seen == [(n, 7) for n in range(1, 8)]


def test_a_copy_of_the_sources_is_the_same_sources(rovi, tmp_path):
    run(rovi, tmp_path / "out")
    before = hashes(tmp_path / "out")
    shutil.copytree(rovi, tmp_path / "copy", copy_function=shutil.copyfile)
    report = run(tmp_path / "copy", tmp_path / "out")
    assert (report.made, report.changed) == (7, False)
    assert hashes(tmp_path / "out") == before
    assert run(tmp_path / "copy", tmp_path / "out").kept == 7


def test_new_videos_come_in_new_shards(rovi, tmp_path, put_video):
    run(rovi, tmp_path / "out")
    before = hashes(tmp_path / "out/train")
    put_video(rovi, "v00")
    report = run(rovi, tmp_path / "out")
    assert (report.made, report.kept) == (1, 7)
    after = hashes(tmp_path / "out/train")
    assert {name: after[name] for name in before if name.endswith(".tar")} == {
        name: value for name, value in before.items() if name.endswith(".tar")
    }
    assert list(Index.load(tmp_path / "out/train").keys())[-1] == "v00"
    assert check_shards(tmp_path / "out/train").ok


def test_a_changed_video_changes_its_shard_alone(rovi, tmp_path, put_video):
    run(rovi, tmp_path / "out")
    before = hashes(tmp_path / "out/train")
    put_video(rovi, "v2", inpainted=(1,), shade=111)
    assert run(rovi, tmp_path / "out").made == 1
    after = hashes(tmp_path / "out/train")
    assert [name for name in before if after[name] != before[name]] == ["index.json", "vplm-train-000001.tar"]
    assert list(Index.load(tmp_path / "out/train").keys()) == [f"v{n}" for n in range(7)]
    assert check_shards(tmp_path / "out/train").ok


def test_a_video_that_is_gone_stays_until_it_is_pruned(rovi, tmp_path):
    run(rovi, tmp_path / "out")
    for tree in rovi.iterdir():
        shutil.rmtree(tree / "v3")
    report = run(rovi, tmp_path / "out")
    assert [(f.video, f.reason) for f in report.findings] == [("v3", "source is gone")]
    assert report.num_samples == 7
    report = run(rovi, tmp_path / "out", prune=True)
    assert report.num_samples == 6
    assert list(Index.load(tmp_path / "out/train").keys()) == ["v0", "v1", "v2", "v4", "v5", "v6"]
    assert check_shards(tmp_path / "out/train").ok


def test_a_split_left_without_videos_goes_with_its_folder(rovi, tmp_path):
    run(rovi, tmp_path / "out", splits=SplitPolicy(names={"val": ["v6"]}))
    for tree in rovi.iterdir():
        shutil.rmtree(tree / "v6")
    assert run(rovi, tmp_path / "out", prune=True).splits.keys() == {"train"}
    assert not (tmp_path / "out/val").exists()


def test_clips_of_a_video_are_in_one_split_and_may_move_to_another(rovi, tmp_path):
    options = replace(OPTIONS, sampling=Sampling(clip_length=2))
    report = run(rovi, tmp_path / "out", options=options, splits=SplitPolicy(names={"val": ["v1", "v5"]}))
    assert {split: counts["samples"] for split, counts in report.splits.items()} == {"train": 15, "val": 6}
    keys = list(Index.load(tmp_path / "out/val").keys())
    assert keys == [f"v{n}-f{f:06d}" for n in (1, 5) for f in (0, 2, 4)]
    report = run(rovi, tmp_path / "out", options=options, splits=SplitPolicy(names={"val": ["v5"]}))
    assert report.made == 0
    assert {split: counts["samples"] for split, counts in report.splits.items()} == {"train": 18, "val": 3}
    assert all(check_shards(tmp_path / "out" / split).ok for split in ("train", "val"))


def test_shards_end_before_they_grow_too_large(rovi, tmp_path):
    run(rovi, tmp_path / "out", max_bytes=40_000, samples_per_shard=100)
    shards = Index.load(tmp_path / "out/train").shards
    assert len(shards) > 1
    assert all(shard.size <= 40_960 for shard in shards)


def test_lossless_clips_are_the_pictures_of_the_source(rovi, tmp_path):
    run(rovi, tmp_path / "out", options=BuildOptions(codec="lossless"))
    sample = decode(ShardSource(tmp_path / "out/train").read(0, 0))
    source = np.stack([read_picture(path) for path in sorted((rovi / "JPEGImages/v0").iterdir())])
    assert np.array_equal(sample.video.frames, source)
    label = np.stack([np.asarray(Image.open(path)) for path in sorted((rovi / "Annotations/v0").iterdir())])
    assert np.array_equal(sample.objects[0].mask, label == 1)


def test_other_options_are_refused_unless_everything_is_built_anew(rovi, tmp_path):
    run(rovi, tmp_path / "out")
    other = replace(OPTIONS, size=(8, 12))
    with pytest.raises(ValueError, match=r"built with other options \(size was \[16, 24\], is \[8, 12\]\): use those"):
        run(rovi, tmp_path / "out", options=other)
    sampled = replace(OPTIONS, sampling=replace(OPTIONS.sampling, step=3))
    with pytest.raises(ValueError, match=r"built with other options \(step was 1, is 3\): use those"):
        run(rovi, tmp_path / "out", options=sampled)
    run(rovi, tmp_path / "out", options=other, overwrite=True)
    run(rovi, tmp_path / "fresh", options=other)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "fresh")


def test_shards_that_no_build_has_made_are_left_alone(rovi, tmp_path, make_shards):
    make_shards(tmp_path / "out/train", 2)
    with pytest.raises(FileExistsError, match="holds shards that no build has made"):
        run(rovi, tmp_path / "out")


def test_a_file_is_no_place_for_a_data_set(rovi, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(FileExistsError, match=r"built into a folder, but .*out is a file"):
        run(rovi, tmp_path / "out")


@pytest.mark.parametrize("given", [{"samples_per_shard": 0}, {"max_bytes": 0}])
def test_shards_of_nothing_are_refused(rovi, tmp_path, given):
    with pytest.raises(ValueError, match="samples_per_shard and max_bytes must be positive"):
        run(rovi, tmp_path / "out", **given)


def test_a_damaged_ledger_says_what_to_do(rovi, tmp_path):
    run(rovi, tmp_path / "out")
    (tmp_path / "out/.build/ledger.json").write_text("{}")
    with pytest.raises(ValueError, match="build anew with --overwrite"):
        run(rovi, tmp_path / "out")


@pytest.mark.parametrize("damage", ["gone", "cut", "index"])
def test_a_lost_shard_or_index_is_made_again(rovi, tmp_path, damage):
    run(rovi, tmp_path / "out")
    before = hashes(tmp_path / "out")
    shard = tmp_path / "out/train/vplm-train-000003.tar"
    if damage == "gone":
        shard.unlink()
    elif damage == "cut":
        shard.write_bytes(shard.read_bytes()[:9000])
    else:
        (tmp_path / "out/train/index.json").unlink()
    run(rovi, tmp_path / "out")
    assert hashes(tmp_path / "out") == before


def test_a_bad_video_is_reported_every_time_and_tried_again_when_it_changes(rovi, tmp_path, put_video):
    for path in (rovi / "JPEGImages/v1").iterdir():
        path.write_bytes(b"no picture")
    report = run(rovi, tmp_path / "out")
    assert [(f.video, f.what, f.reason) for f in report.findings] == [("v1", "video", "no readable frames")]
    assert report.num_samples == 6
    again = run(rovi, tmp_path / "out")
    assert (again.made, again.findings) == (0, report.findings)
    put_video(rovi, "v1", inpainted=(1,))
    report = run(rovi, tmp_path / "out")
    assert (report.made, report.num_samples, report.findings) == (1, 7, [])


def test_a_damaged_video_file_is_named_without_the_place_of_its_folder(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a.mp4").write_bytes(b"no video at all")
    videos = scan_videos(tmp_path / "clips").videos
    (finding,) = build(videos, tmp_path / "out").findings
    assert (finding.video, finding.reason) == ("a", "cannot be read")
    assert finding.text.startswith("a.mp4 ")


def test_a_file_that_cannot_be_opened_is_tried_again(rovi, tmp_path, monkeypatch):
    def fail(video):
        raise PermissionError(13, "Permission denied", "v1/00000.jpg")

    original = item_module.SourceVideo.content
    monkeypatch.setattr(item_module.SourceVideo, "content", lambda v: fail(v) if v.name == "v1" else original(v))
    report = run(rovi, tmp_path / "out")
    assert [(f.video, f.reason) for f in report.findings] == [("v1", "cannot be opened")]
    monkeypatch.setattr(item_module.SourceVideo, "content", original)
    report = run(rovi, tmp_path / "out")
    assert (report.made, report.num_samples) == (1, 7)


def test_a_file_that_cannot_be_opened_any_more_leaves_what_was_made_of_it(rovi, tmp_path, monkeypatch):
    run(rovi, tmp_path / "out")
    os.utime(rovi / "JPEGImages/v1/00000.jpg", (1, 1))
    before = hashes(tmp_path / "out/train")

    def fail(video):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(item_module.SourceVideo, "content", fail)
    report = run(rovi, tmp_path / "out")
    assert [(f.video, f.reason) for f in report.findings] == [("v1", "cannot be opened")]
    assert hashes(tmp_path / "out/train") == before


def test_videos_with_one_key_are_not_both_built(rovi, tmp_path):
    videos = scan_rovi(rovi).videos
    twin = replace(videos[1], name=videos[0].name)
    report = build([*videos[:2], twin], tmp_path / "out", options=OPTIONS)
    assert [f.reason for f in report.findings] == ["key taken by another video"]


def test_a_video_called_like_a_clip_of_another_is_named(rovi, tmp_path, put_video, monkeypatch):
    put_video(rovi, "v0-f000000")
    # A video file name may end like a clip's number only where one of them is built without windows.
    monkeypatch.setattr(clips_module, "clip_key", lambda key, first: "v0-f000000" if key == "v0" else key)
    report = run(rovi, tmp_path / "out")
    assert [(f.video, f.reason) for f in report.findings] == [("v0-f000000", "key taken by another clip")]
    again = run(rovi, tmp_path / "out")
    assert (again.made, again.findings) == (0, report.findings)


def test_two_builds_into_one_folder_exclude_each_other(rovi, tmp_path):
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"), pytest.raises(RuntimeError, match="another process is building into"):
        run(rovi, tmp_path / "out")


def test_an_interrupt_keeps_what_is_finished_and_nothing_else(rovi, tmp_path):
    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(rovi, tmp_path / "out", progress=interrupt)
    assert hashes(tmp_path / "out") == {}
    report = run(rovi, tmp_path / "out")
    assert (report.made, report.kept) == (4, 3)
    run(rovi, tmp_path / "fresh")
    assert hashes(tmp_path / "out") == hashes(tmp_path / "fresh")


def test_a_process_of_an_interrupted_run_puts_its_video_down(rovi, tmp_path):
    items = Items(tmp_path / "out")
    items.prepare()
    items.stop()
    (video, *_) = scan_rovi(rovi).videos
    record = item_module.make_item(item_module.ItemJob(video, OPTIONS, str(tmp_path / "out"), ""))
    assert record.retry
    assert items.record(video.id) is None
    assert not items.has_samples(video.id)


def test_nothing_to_build_is_a_report_without_samples(tmp_path):
    report = build([], tmp_path / "out")
    assert (report.num_samples, report.splits) == (0, {})


def test_staged_bytes_that_have_changed_are_not_used(rovi, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "_finish", lambda *rest: None)
    run(rovi, tmp_path / "out")
    monkeypatch.undo()
    tar = min((tmp_path / "out/.build/items").glob("*.tar"))
    data = bytearray(tar.read_bytes())
    data[700] ^= 255
    tar.write_bytes(data)
    with pytest.raises(RuntimeError, match="have changed; run again to make it anew"):
        run(rovi, tmp_path / "out")
    run(rovi, tmp_path / "out")
    run(rovi, tmp_path / "fresh")
    assert hashes(tmp_path / "out") == hashes(tmp_path / "fresh")


# One process imports everything and forks a child for each place: an import takes longer than ten builds.
KILLED = """
import json, os, signal, sys
import raccoon_datamodules.build
from raccoon_datamodules.build import assemble, item, run, staging
from raccoon_datamodules.build.folders import scan_rovi
from raccoon_datamodules.build.options import BuildOptions

def kill_at(module, name, count):
    original, calls = getattr(module, name), []
    def counted(*given, **named):
        # Of the renames of files only those of finished shards to their place count.
        if name != "replace" or (".build/shards" in str(given[0]) and ".build" not in str(given[1])):
            calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*given, **named)
    setattr(module, name, counted)

for number, (module, name, count) in enumerate(json.loads(sys.argv[3])):
    pid = os.fork()
    if pid == 0:
        kill_at(eval(module), name, count)
        options = BuildOptions(size=(16, 24))
        run.build(scan_rovi(sys.argv[1]).videos, f"{sys.argv[2]}/{number}", options=options, samples_per_shard=2)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
PLACES = {
    "while a video is built": ("item", "encode", 4),
    "while a record is written": ("staging", "write_json", 3),
    "while shards are written": ("assemble", "write_encoded", 3),
    "after a shard, before its record": ("assemble", "write_json", 2),
    "before the shards are moved": ("assemble.Shelf", "commit", 1),
    "while the shards are moved": ("os", "replace", 3),
    "before the index": ("assemble.Index", "save", 5),
    "before the report": ("run", "write_json", 2),
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory, put_video):
    """The folder of sources, that of builds which were killed, by number, and the bytes of one that was not."""
    root = tmp_path_factory.mktemp("killed")
    for n in range(7):
        put_video(root / "rovi", f"v{n}", inpainted=(1,), shade=9 * n)
    environment = {**os.environ, "PYTHONPATH": str(REPO / "datamodules"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(root / "rovi"), str(root), json.dumps(list(PLACES.values()))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    run(root / "rovi", root / "fresh")
    return root, done.stdout.split(), done.stderr, hashes(root / "fresh")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("place", PLACES)
def test_a_killed_build_ends_with_the_bytes_of_one_that_was_not(killed, place):
    root, codes, errors, expected = killed
    number = list(PLACES).index(place)
    assert codes[number] == str(-signal.SIGKILL), errors
    out = root / str(number)
    assert hashes(out) != expected
    run(root / "rovi", out)
    assert hashes(out) == expected
    assert not list(out.rglob("*.part*"))
    assert run(root / "rovi", out).made == 0


@pytest.mark.slow
def test_a_build_in_processes_that_is_killed_goes_on(rovi, tmp_path):
    script = (
        "import sys; from raccoon_datamodules.build.folders import scan_rovi\n"
        "from raccoon_datamodules.build.options import BuildOptions\n"
        "from raccoon_datamodules.build.run import build\n"
        "if __name__ == '__main__':\n"
        "    build(scan_rovi(sys.argv[1]).videos, sys.argv[2], options=BuildOptions(size=(16, 24)), "
        "samples_per_shard=2, workers=2)\n"
    )
    (tmp_path / "script.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(REPO / "datamodules"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(tmp_path / "script.py"), str(rovi), str(tmp_path / "out")]
    child = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob(".build/items/*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.kill()
    child.wait()
    report = run(rovi, tmp_path / "out")
    assert report.kept > 0 or report.made == 7
    run(rovi, tmp_path / "fresh")
    assert hashes(tmp_path / "out") == hashes(tmp_path / "fresh")
