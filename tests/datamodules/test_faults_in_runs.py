"""What a run does when its data goes bad under it: it replaces, counts, lists, goes on, and stops at the cap."""

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from raccoon_datamodules.faults import FaultLog, TooManyFaultsError, read_faults, substitutes
from raccoon_datamodules.index import Index
from raccoon_datamodules.loader import OrderedLoader, OrderedSamples, Place, endless
from raccoon_datamodules.order import SampleOrder
from raccoon_datamodules.sources import ShardSource
from raccoon_datamodules.writer import write_shards

SEED = 3
ALONE = Place()


@pytest.fixture
def folder(make_shards, tmp_path):
    """Twelve samples in shards of two."""
    return make_shards(tmp_path / "train", 12, samples_per_shard=2)


def key_of(source, ref, ordinal):
    return source.view(ref.shard, ref.sample).key


def as_pairs(loaded):
    return [(one.ordinal, one.value) for one in loaded]


def read(source, log, *, steps, batch=2, place=ALONE, num_workers=0, before=None):
    """Batches of (ordinal, key) of a run; ``before(n)`` is called before batch n is asked for."""
    order = SampleOrder(source.shard_sizes, seed=SEED, window_shards=2)
    samples = OrderedSamples([source], order, key_of, seed=SEED)
    loader = OrderedLoader(
        samples,
        as_pairs,
        lambda: islice(endless(0, batch, place), steps),
        log=log,
        num_workers=num_workers,
        prefetch=1,
    )
    batches = iter(loader)
    found = []
    for step in range(steps):
        if before is not None:
            before(step)
        found.append(next(batches))
    assert next(batches, None) is None
    return found


def expected(source, bad=()):
    """The key at each ordinal of the first epoch, substitutes in the place of bad samples."""
    order = SampleOrder(source.shard_sizes, seed=SEED, window_shards=2)

    def key(ordinal):
        ref = order.locate(ordinal)
        return source.name(ref.shard, ref.sample)[1]

    keys = []
    for ordinal in range(len(order)):
        places = substitutes(ordinal, seed=SEED, epoch_length=len(order))
        keys.append(next(found for found in map(key, places) if found not in bad))
    return keys


def keys_in(source, *shards):
    return {source.name(shard, i)[1] for shard in shards for i in range(source.shard_sizes[shard])}


def spoil(path, source, shard):
    (path / source.index.shards[shard].name).unlink()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_whose_shard_is_gone_goes_on_with_substitutes(folder, tmp_path, num_workers):
    source = ShardSource(folder)
    spoil(folder, source, 1)
    log = FaultLog(tmp_path / "bad.jsonl", max_bad=5)
    found = [pair for batch in read(source, log, steps=6, num_workers=num_workers) for pair in batch]
    bad = keys_in(source, 1)
    assert found == list(enumerate(expected(source, bad)))
    assert {fault.key for fault in read_faults(log.path)} == bad
    assert (log.num_bad, log.num_read) == (2, 12)
    assert all("is not there; it was moved or removed" in fault.reason for fault in read_faults(log.path))


def test_a_run_whose_shards_all_vanish_reads_what_is_open_and_stops_with_one_sentence(folder, tmp_path):
    source = ShardSource(folder)
    log = FaultLog(tmp_path / "bad.jsonl", max_bad=50)

    def before(step):
        if step == 1:
            for path in folder.glob("*.tar"):
                path.unlink()

    # Open shards go on being read; those of later windows are gone, and so are their substitutes.
    with pytest.raises(TooManyFaultsError, match=r"neither a sample nor any of its substitutes .* are listed in .*bad"):
        read(source, log, steps=6, before=before)
    assert log.num_read > 2


def test_the_cap_stops_a_run_whose_shards_vanish_one_after_the_other(folder, tmp_path):
    source = ShardSource(folder)
    log = FaultLog(tmp_path / "bad.jsonl", max_bad=3, max_bad_fraction=0.0)
    for shard in (0, 1, 2):
        spoil(folder, source, shard)
    with pytest.raises(TooManyFaultsError, match=r"4 of \d+ samples read are bad.*all are listed in .*bad\.jsonl"):
        read(source, log, steps=6)
    assert len({fault.key for fault in read_faults(log.path)}) == 4


def test_a_tar_cut_off_in_mid_run_costs_what_was_cut_off(folder, tmp_path):
    source = ShardSource(folder)
    log = FaultLog(tmp_path / "bad.jsonl")
    second = source.index.shards[2].members(1)[0]

    def before(step):
        if step == 0:
            os.truncate(folder / source.index.shards[2].name, second.offset)

    found = [pair for batch in read(source, log, steps=6, before=before) for pair in batch]
    (key,) = {fault.key for fault in read_faults(log.path)}
    assert key == source.name(2, 1)[1]
    assert [value for _, value in found] == expected(source, {key})
    assert "it was cut off or replaced" in read_faults(log.path)[0].reason


def test_a_shard_replaced_by_another_is_noticed_by_its_bytes_not_its_dates(folder, make_shards, tmp_path):
    source = ShardSource(folder)
    other = make_shards(tmp_path / "other", 2, first=50, samples_per_shard=2)
    name = source.index.shards[3].name
    os.replace(other / "vplm-train-000000.tar", folder / name)
    log = FaultLog(tmp_path / "bad.jsonl")
    read(source, log, steps=6)
    assert {fault.key for fault in read_faults(log.path)} == keys_in(source, 3)
    # The same bytes with another date are the same shard.
    for path in folder.glob("*.tar"):
        os.utime(path, (1, 1))
    log = FaultLog(tmp_path / "again.jsonl")
    read(source, log, steps=6)
    assert {fault.key for fault in read_faults(log.path)} == keys_in(source, 3)


def test_an_index_older_than_its_shard_is_told_from_damage(folder, make_shards, tmp_path):
    source = ShardSource(folder)
    longer = make_shards(tmp_path / "longer", 4, first=50, samples_per_shard=4)
    os.replace(longer / "vplm-train-000000.tar", folder / source.index.shards[0].name)
    with pytest.raises(ValueError, match=r"the shard was replaced since \(it has \d+ bytes, the index says \d+\)"):
        source.read(0, 0)


def test_a_shard_replaced_under_an_open_run_is_read_on_as_it_was(folder, make_shards, tmp_path):
    source = ShardSource(folder)
    keys = [source.view(shard, 0).key for shard in range(6)]
    other = make_shards(tmp_path / "other", 12, first=50, samples_per_shard=2)
    for path in other.glob("*.tar"):
        os.replace(path, folder / path.name)
    assert [source.view(shard, 0).key for shard in range(6)] == keys


def test_a_shard_that_leaves_its_server_in_mid_run_is_replaced(folder, serve, tmp_path):
    server = serve(folder)
    source = ShardSource(server.address)
    log = FaultLog(tmp_path / "bad.jsonl")
    spoil(folder, source, 4)
    found = [pair for batch in read(source, log, steps=6) for pair in batch]
    assert [value for _, value in found] == expected(source, keys_in(source, 4))
    assert {fault.reason.rpartition(" ")[2] for fault in read_faults(log.path)} == {"404)"}


def test_ranks_with_and_without_bad_samples_take_equally_many_steps(folder, tmp_path):
    source = ShardSource(folder)
    spoil(folder, source, 1)
    path = tmp_path / "bad.jsonl"
    parts = [read(ShardSource(folder), FaultLog(path), steps=4, batch=3, place=Place(rank, 3)) for rank in range(3)]
    assert [len(part) for part in parts] == [4, 4, 4]
    together = sorted(pair for part in parts for batch in part for pair in batch)
    assert together == list(enumerate(expected(source, keys_in(source, 1))))
    # One list for all of them.
    assert {fault.key for fault in read_faults(path)} == keys_in(source, 1)


def test_what_is_on_a_list_is_left_out_of_a_later_run(folder, tmp_path):
    source = ShardSource(folder)
    spoil(folder, source, 1)
    log = FaultLog(tmp_path / "bad.jsonl")
    read(source, log, steps=6)
    later = ShardSource(folder, exclude=log.path)
    assert later.shard_sizes == [2, 0, 2, 2, 2, 2]
    assert later.fingerprint() != source.fingerprint()
    log = FaultLog(tmp_path / "later.jsonl", max_bad=0, max_bad_fraction=0.0)
    found = [pair for batch in read(later, log, steps=5) for pair in batch]
    assert sorted(value for _, value in found) == sorted(set(source.index.keys()) - keys_in(source, 1))
    assert not log.path.exists()


def test_lists_may_be_several_and_empty(folder, tmp_path):
    source = ShardSource(folder)
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    log = FaultLog(a)
    spoil(folder, source, 0)
    read(source, log, steps=6)
    b.write_text("")
    assert sum(ShardSource(folder, exclude=[str(a), b]).shard_sizes) == 10
    assert ShardSource(folder, exclude=b).fingerprint() == source.fingerprint()
    with pytest.raises(FileNotFoundError, match=r"there is no quarantine list at .*c\.jsonl"):
        ShardSource(folder, exclude=tmp_path / "c.jsonl")


def python(code, *args):
    root = Path(__file__).resolve().parents[2]
    paths = os.pathsep.join(str(root / part) for part in ("", "kernels", "datamodules"))
    env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, env=env)


FULL = """
import resource, sys
from raccoon_datamodules.writer import write_encoded
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
items = ((f"new-{i}", {"meta.json": b"{}", "video.mp4": bytes(9000)}) for i in range(100))
try:
    write_encoded(items, sys.argv[1], overwrite=True)
except OSError as err:
    print(err)
"""


def test_a_disk_that_fills_up_while_writing_leaves_what_was_there(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = python(FULL, folder)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    assert f"no room left in {folder} after " in done.stdout
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert ShardSource(folder).view(0, 0).key == "clip-0000"


def test_a_disk_that_fills_up_before_the_index_leaves_what_was_there(folder, make_sample, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(self, where):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Index, "save", full)
    with pytest.raises(OSError, match="no room left in"):
        write_shards([make_sample(i) for i in range(3)], folder, overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


RANKS = """
import sys
from datetime import timedelta
from pathlib import Path
import torch
import torch.distributed as dist
from raccoon_datamodules.faults import Fault, FaultLog, TooManyFaultsError

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
meet, patience = f"file://{folder}/meet", timedelta(seconds=60)
dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=patience)
log = FaultLog(folder / "bad.jsonl", max_bad=2, max_bad_fraction=0.0)
for step in range(100):
    faults = [Fault(step, 0, f"k{step}", "s.tar", None, "gone")] if rank == 1 else []
    try:
        log.add(faults, num_read=1)
    except TooManyFaultsError as err:
        print(f"step {step}: {err}", flush=True)
        raise SystemExit(1)
    try:
        dist.all_reduce(torch.ones(1))
    except RuntimeError:
        print(f"step {step}: the other rank is gone", flush=True)
        raise SystemExit(2)
"""


@pytest.mark.slow
def test_a_rank_that_stops_at_the_cap_does_not_leave_the_others_waiting(tmp_path):
    root = Path(__file__).resolve().parents[2]
    paths = os.pathsep.join(str(root / part) for part in ("", "kernels", "datamodules"))
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANKS, str(rank), str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [2, 1]
    assert said[0] == "step 2: the other rank is gone\n"
    assert said[1].startswith("step 2: 3 of 3 samples read are bad")
