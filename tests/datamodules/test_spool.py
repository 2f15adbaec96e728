import errno
import io
import os
import pickle
import shutil
from contextlib import contextmanager

import pytest

from raccoon_datamodules import spool
from raccoon_datamodules.atomic import is_locked, share_lock
from raccoon_datamodules.spool import Spool


class Streams:
    """Files that are read from their start; counts openings and bytes."""

    def __init__(self, **files):
        self.files = {f"{name}.tar": data for name, data in files.items()}
        self.opened = []
        self.num_bytes = 0
        self.failures = []

    @contextmanager
    def open(self, name):
        self.opened.append(name)
        if self.failures:
            raise self.failures.pop(0)
        if name not in self.files:
            raise FileNotFoundError(f"{name} is not there")
        data = io.BytesIO(self.files[name])
        yield data
        self.num_bytes += data.tell()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Spools of a test are made in a folder of its own, and nothing waits."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(spool.time, "sleep", lambda seconds: None)
    return tmp_path


def sizes(streams):
    return {name: len(data) for name, data in streams.files.items()}


def test_a_file_is_streamed_once_and_read_by_offset():
    streams = Streams(a=b"0123456789", b=b"abcdef")
    kept = Spool(streams.open, sizes=sizes(streams))
    assert [kept.read("a.tar", o, n) for o, n in [(7, 2), (0, 3), (8, 5), (20, 1)]] == [b"78", b"012", b"89", b""]
    assert kept.read("b.tar", 1, 2) == b"bc"
    assert streams.opened == ["a.tar", "b.tar"]


def test_no_more_is_read_of_a_stream_than_the_index_says():
    streams = Streams(a=bytes(1 << 20))
    kept = Spool(streams.open, sizes={"a.tar": 100})
    assert kept.read("a.tar", 90, 50) == bytes(10)
    assert streams.num_bytes == 100


def test_an_endless_stream_ends_at_the_size_of_the_spool():
    class Endless:
        def read(self, size):
            return bytes(size)

    @contextmanager
    def endless(name):
        yield Endless()

    assert len(Spool(endless, sizes={}, max_bytes=5000).read("a.tar", 0, 1 << 20)) == 5000


def test_what_came_first_makes_room():
    streams = Streams(a=b"a" * 40, b=b"b" * 40, c=b"c" * 40)
    kept = Spool(streams.open, sizes=sizes(streams), max_bytes=100)
    for name in ("a", "b", "a", "b"):
        kept.read(f"{name}.tar", 0, 1)
    assert streams.opened == ["a.tar", "b.tar"]
    kept.read("c.tar", 0, 1)
    assert sorted(path.name for path in kept.folder.glob("*.tar")) == ["b.tar", "c.tar"]
    assert "a.tar" not in kept._files


def test_a_file_that_had_to_go_is_streamed_again():
    streams = Streams(a=b"a" * 40, b=b"b" * 40)
    kept = Spool(streams.open, sizes=sizes(streams), max_bytes=50)
    for name in ("a", "b", "a"):
        assert kept.read(f"{name}.tar", 39, 1) == name.encode()
    assert streams.opened == ["a.tar", "b.tar", "a.tar"]


def test_a_file_larger_than_the_spool_is_refused():
    with pytest.raises(ValueError, match=r"room for every shard, b\.tar has 200 bytes and spool_bytes is 100"):
        Spool(Streams().open, sizes={"a.tar": 10, "b.tar": 200}, max_bytes=100).check_room()


def test_a_stream_that_breaks_is_read_again_from_its_start():
    streams = Streams(a=b"0123456789")
    streams.failures = [OSError("connection reset"), OSError("connection reset")]
    assert Spool(streams.open, sizes=sizes(streams)).read("a.tar", 7, 2) == b"78"
    assert len(streams.opened) == 3


def test_a_stream_that_goes_on_breaking_is_given_up_for_a_while(monkeypatch):
    streams = Streams(a=b"0123456789")
    streams.failures = [OSError("connection reset")] * 3
    kept = Spool(streams.open, sizes=sizes(streams))
    for _ in range(3):
        with pytest.raises(OSError, match="connection reset"):
            kept.read("a.tar", 7, 2)
    # Samples of a shard that cannot be had do not ask for it one by one.
    assert len(streams.opened) == 3
    later = spool.time.monotonic() + 60
    monkeypatch.setattr(spool.time, "monotonic", lambda: later)
    assert kept.read("a.tar", 7, 2) == b"78"


def test_a_file_that_is_not_there_is_asked_for_once():
    streams = Streams()
    with pytest.raises(FileNotFoundError, match=r"a\.tar is not there"):
        Spool(streams.open, sizes={}).read("a.tar", 0, 1)
    assert streams.opened == ["a.tar"]


def test_a_stream_that_ends_early_is_read_again_once_and_then_taken_as_it_is():
    streams = Streams(a=b"0123")
    kept = Spool(streams.open, sizes={"a.tar": 10})
    assert (kept.read("a.tar", 2, 2), kept.read("a.tar", 2, 6), kept.read("a.tar", 8, 2)) == (b"23", b"23", b"")
    assert len(streams.opened) == 2


def test_a_full_disk_is_said_with_what_to_do_and_leaves_no_half_file(folder, monkeypatch):
    streams = Streams(a=b"0123456789")
    kept = Spool(streams.open, sizes=sizes(streams))

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Spool, "_copy", full)
    with pytest.raises(OSError, match=rf"no room left in {folder} to keep shard a\.tar .*set TMPDIR"):
        kept.read("a.tar", 0, 1)
    assert list(kept.folder.glob("*.part")) == []


def test_a_full_disk_is_emptied_before_it_is_given_up(monkeypatch):
    streams = Streams(a=b"a" * 40, b=b"b" * 40)
    kept = Spool(streams.open, sizes=sizes(streams))
    kept.read("a.tar", 0, 1)
    copy, failures = Spool._copy, [OSError(errno.ENOSPC, "No space left on device")]

    def full_once(self, *args):
        if failures:
            raise failures.pop()
        return copy(self, *args)

    monkeypatch.setattr(Spool, "_copy", full_once)
    assert kept.read("b.tar", 0, 1) == b"b"
    assert [path.name for path in kept.folder.glob("*.tar")] == ["b.tar"]


@pytest.fixture
def one_run(monkeypatch):
    """Spools are those of ranks of one run."""
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "29500")


def test_worker_processes_share_the_folder():
    kept = Spool(len, sizes={"a.tar": 10})
    kept._enter()
    (kept.folder / "a.tar").write_bytes(b"0123456789")
    # Pickled, as for a spawned worker.
    worker = pickle.loads(pickle.dumps(kept))
    assert worker.read("a.tar", 5, 1) == b"5"
    worker.close()
    assert kept.read("a.tar", 6, 1) == b"6"


def test_ranks_of_one_run_share_what_is_fetched(one_run):
    streams = Streams(a=b"0123456789")
    ranks = [Spool(streams.open, sizes=sizes(streams), content="x") for _ in range(3)]
    assert [rank.read("a.tar", 3, 1) for rank in ranks] == [b"3"] * 3
    assert streams.opened == ["a.tar"]


def test_the_last_rank_takes_the_folder_away(one_run, folder):
    streams = Streams(a=b"0123456789")
    first, second = (Spool(streams.open, sizes=sizes(streams), content="x") for _ in range(2))
    assert first.read("a.tar", 3, 1) == second.read("a.tar", 3, 1) == b"3"
    first.close()
    assert second.read("a.tar", 4, 1) == b"4"
    second.close()
    assert list(folder.iterdir()) == []


def test_other_files_have_another_folder(one_run, monkeypatch):
    found = [Spool(len, sizes={}, content=content).folder for content in ("x", "x", "y", None, None)]
    monkeypatch.setenv("MASTER_PORT", "29501")
    found.append(Spool(len, sizes={}, content="x").folder)
    monkeypatch.delenv("MASTER_PORT")
    found.append(Spool(len, sizes={}, content="x").folder)
    assert found[0] == found[1]
    assert len(set(found)) == 6


def test_a_folder_that_somebody_is_entering_is_let_be(one_run, folder):
    streams = Streams(a=b"0")
    kept = Spool(streams.open, sizes={}, content="x")
    kept.read("a.tar", 0, 1)
    with spool._gate(kept.folder, wait=True):
        kept.close()
    assert kept.folder.is_dir()
    spool._remove_unused(kept.folder)
    assert list(folder.iterdir()) == []


def test_a_rank_that_waited_for_a_folder_that_went_makes_it_anew(one_run, monkeypatch):
    streams = Streams(a=b"0")
    kept = Spool(streams.open, sizes={}, content="x")
    waited, locked = [], spool.locked

    @contextmanager
    def removed_meanwhile(handle, **settings):
        if not waited:
            waited.append(True)
            shutil.rmtree(kept.folder)
        with locked(handle, **settings):
            yield

    monkeypatch.setattr(spool, "locked", removed_meanwhile)
    assert kept.read("a.tar", 0, 1) == b"0"
    assert waited


def test_the_folder_goes_with_its_maker_and_with_nobody_else(monkeypatch):
    streams = Streams(a=b"0123456789")
    kept = Spool(streams.open, sizes=sizes(streams))
    kept.read("a.tar", 3, 1)
    pid = os.getpid()
    with monkeypatch.context() as inside:
        inside.setattr(spool.os, "getpid", lambda: pid + 1)
        kept.close()
    assert kept.folder.is_dir()
    second = Spool(streams.open, sizes=sizes(streams))
    second.read("a.tar", 3, 1)
    second.close()
    assert not second.folder.exists()


def test_folders_of_killed_runs_are_removed_and_those_in_use_are_kept(folder):
    dead, alive = folder / "raccoon-spool-dead", folder / "raccoon-spool-alive"
    for path in (dead, alive):
        path.mkdir()
        (path / ".claim-1").touch()
        (path / ".gate").touch()
    handle = os.open(alive / ".claim-1", os.O_RDWR)
    share_lock(handle)
    streams = Streams(a=b"0")
    kept = Spool(streams.open, sizes={})
    kept.read("a.tar", 0, 1)
    assert sorted(path.name for path in folder.glob("raccoon-spool-*")) == sorted([alive.name, kept.folder.name])
    assert is_locked(alive / ".claim-1")
    os.close(handle)
    assert not is_locked(alive / ".claim-1")


def test_a_folder_that_was_removed_under_a_run_is_made_again():
    streams = Streams(a=b"0123456789", b=b"x")
    kept = Spool(streams.open, sizes=sizes(streams))
    kept.read("a.tar", 3, 1)
    for path in sorted(kept.folder.iterdir()):
        path.unlink()
    kept.folder.rmdir()
    assert kept.read("b.tar", 0, 1) == b"x"
