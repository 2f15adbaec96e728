import csv
import gc
import os
from pathlib import Path

import numpy as np
import pytest

from raccoon_datamodules import bench_loader
from raccoon_datamodules.bench_loader_data import clips_workload, synthetic_workload
from raccoon_datamodules.bench_loader_readers import READERS, Bare, Files, Ours, WebDataset
from raccoon_datamodules.bench_loader_report import Memory, Result, Resume, judge
from raccoon_datamodules.sources import ShardSource
from raccoon_datamodules.video import Video

CLIPS = Path(os.environ.get("RACCOON_TEST_DATA", Path(__file__).resolve().parents[2] / "../shared/data")) / "clips"


# webdataset leaves the tars that it has read open until they are collected, which here is at the end of each test.
pytestmark = pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def _collected():
    yield
    gc.collect()


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    return synthetic_workload(tmp_path_factory.mktemp("work"), count=9, num_shards=3)


@pytest.mark.parametrize("reader", READERS, ids=lambda kind: kind.name)
def test_every_reader_reads_all_samples(load, reader):
    made = reader(load, num_samples=12, batch_size=4, num_workers=0)
    sizes = list(made.batches())
    # webdataset passes over all nine twice, and batches as they come.
    assert sum(sizes) == (18 if reader is WebDataset else 12)
    assert max(sizes) == (1 if reader is Bare else 4)


@pytest.mark.parametrize("reader", READERS[2:], ids=lambda kind: kind.name)
def test_readers_read_in_workers_too(load, reader):
    assert sum(reader(load, num_samples=8, batch_size=2, num_workers=2).batches()) >= 8


@pytest.mark.parametrize("workers", [0, 2, 16])
@pytest.mark.parametrize("batch", [1, 2, 8])
def test_a_round_counts_whole_passes_and_begins_behind_what_workers_have_ahead(workers, batch):
    skipped, counted = bench_loader.window(24, batch=batch, num_workers=workers, passes=1)
    assert (skipped % 24, counted % 24) == (0, 0)
    assert skipped >= max(24, 2 * workers * batch)
    assert counted >= max(24, 8 * max(1, workers) * batch)


@pytest.mark.parametrize("batch", [4, 5])
def test_samples_that_do_not_fill_their_batches_are_passed_over_until_they_do(batch):
    skipped, counted = bench_loader.window(13, batch=batch, num_workers=2, passes=1)
    assert (skipped % 13, skipped % batch, counted % 13, counted % batch) == (0, 0, 0, 0)


def test_more_passes_are_counted_where_they_are_asked_for():
    assert bench_loader.window(24, batch=2, num_workers=2, passes=3) == (24, 72)


def test_the_clock_of_a_round_runs_from_the_last_skipped_sample_to_the_last(load, monkeypatch):
    times = iter([0.0, 1.0, 3.0, 5.0])

    class Clock:
        perf_counter = staticmethod(lambda: next(times))

    class Three(Bare):
        def batches(self):
            yield from (2, 2, 2)

    monkeypatch.setattr(bench_loader, "time", Clock)
    rate, first, rss = bench_loader._round(Three(load, num_samples=6, batch_size=2, num_workers=0), skipped=4)
    assert (rate, first) == (1.0, 1.0)
    assert rss >= 0


@pytest.mark.parametrize("reader", READERS[2:], ids=lambda kind: kind.name)
def test_workers_have_more_to_do_than_is_counted(load, monkeypatch, reader):
    import raccoon_datamodules.bench_loader_readers as readers

    taken = []

    def sizes(loader, num_samples):
        for batch, _ in zip(loader, range(8), strict=False):
            taken.append(len(batch.key))
        yield num_samples

    monkeypatch.setattr(readers, "_sizes", sizes)
    assert list(reader(load, num_samples=9, batch_size=3, num_workers=2).batches()) == [9]
    # Three batches are counted, and each of two workers has two more.
    assert len(taken) >= 3 + readers.batches_ahead(2)


def test_the_loose_files_are_the_members_of_the_shards(load):
    source = ShardSource(load.shards)
    files = {path.name: path.read_bytes() for path in load.folder.iterdir()}
    stored = {}
    for shard, count in enumerate(source.shard_sizes):
        for sample in range(count):
            key = source.name(shard, sample)[1]
            stored |= {f"{key}.{suffix}": data for suffix, data in source.read(shard, sample).items()}
    assert files == stored
    assert len(Files(load)) == 9


def test_the_bare_loop_decodes_what_the_loader_shows(load):
    bare = Bare(load, num_samples=3, batch_size=1, num_workers=0)
    assert [len(job.clips) for job in bare._jobs] == [2, 2, 2]
    assert all(job.frames == list(range(8)) for job in bare._jobs)


def test_real_clips_become_samples_at_their_own_size(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (6, 48, 64, 3), dtype=np.uint8)
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a", "b"):
        Video.from_frames(frames, 8.0).write(folder / f"{name}.mp4")
    load = clips_workload(tmp_path, folder, max_frames=5, num_frames=3, size=(24, 32))
    view = ShardSource(load.shards).view(0, 0)
    assert (load.num_samples, view.num_frames, view.clip().shape[1:3]) == (2, 5, (48, 64))
    assert sum(Ours(load, num_samples=4, batch_size=2, num_workers=0).batches()) == 4


def test_a_folder_without_videos_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="must hold video files"):
        clips_workload(tmp_path, tmp_path)


def test_too_few_scenes_for_the_shards_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 8 samples are needed, one a shard, got 3"):
        synthetic_workload(tmp_path, count=3)


def test_a_quick_run_writes_a_row_a_reader_and_the_verdicts(tmp_path, capsys):
    words = ["--quick", "--count", "8", "--batch", "2", "--workers", "0", "--out", str(tmp_path), "--commit", "abc"]
    assert bench_loader.main(words) == 0
    out = capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "loader.csv").open()))
    assert [row["reader"] for row in rows] == [kind.name for kind in READERS]
    assert all(float(row["samples_per_s_50"]) > 0 and row["commit"] == "abc" for row in rows)
    page = (tmp_path / "loader.md").read_text()
    for text in (page, out):
        assert "of the bare loop (target: 95%" in text
        assert "resume at ordinal 1000000" in text
    assert "--quick --count 8" in page


def test_resuming_is_timed_over_an_index_and_reads_no_shard(tmp_path):
    found = bench_loader.measure_resume(tmp_path, 3000)
    assert (found.ordinal, found.num_samples) == (1_000_000, 3000)
    assert [path.name for path in (tmp_path / "resume").iterdir()] == ["index.json"]


def test_memory_is_measured_by_its_slope(tmp_path, capsys):
    assert bench_loader.main(["--memory", "100", "--work", str(tmp_path)]) == 0
    assert "memory over 100 samples:" in capsys.readouterr().out


@pytest.mark.slow
def test_memory_stays_flat(tmp_path):
    gc.collect()
    found = bench_loader.measure_memory(tmp_path, 3000)
    assert found.slope < 1.0, str(found)


def test_targets_are_judged_by_medians():
    def result(reader, workers, rate):
        # Of bare: the median of the rounds' own shares, which need not be the share of the medians.
        share = rate / 100
        rates = (rate, rate, rate) if workers else (1, 2, 3)
        return Result("x", reader, workers, 10, 8, 2, rates, (0, share, 2), (0.1, 0.1, 0.1), 1)

    results = [result("bare decode loop", 0, 100), result("raccoon", 0, 96), result("raccoon", 1, 90)]
    results.append(result("raccoon", 2, 120))
    first, second = judge(results, cores=2)
    assert "96.0% of the bare loop (target: 95%, met)" in first
    assert "66.7% of 2 times one worker (target: 80%, MISSED)" in second
    assert len(judge(results, cores=1)) == 1
    assert "MISSED" in str(Memory(10, 2.0, 1.0, 3.0))
    assert "met" in str(Resume(10, 10, 0.1))


@pytest.mark.parametrize(
    "words", [["--count", "-1"], ["--workers", "a"], ["--memory", "5"], ["--batch", "-2"]], ids=str
)
def test_wrong_numbers_are_exit_code_two(words, capsys):
    with pytest.raises(SystemExit) as stop:
        bench_loader.main(words)
    assert stop.value.code == 2


@pytest.mark.slow
@pytest.mark.skipif(not CLIPS.is_dir(), reason="needs real clips in RACCOON_TEST_DATA/clips")
def test_real_footage_is_read_by_every_reader(tmp_path):
    folder = tmp_path / "two"
    folder.mkdir()
    for path in sorted(CLIPS.glob("*.mp4"))[:2]:
        (folder / path.name).symlink_to(path.resolve())
    load = clips_workload(tmp_path, folder, max_frames=8, num_frames=4)
    for kind in READERS:
        assert sum(kind(load, num_samples=4, batch_size=2, num_workers=0).batches()) >= 4
