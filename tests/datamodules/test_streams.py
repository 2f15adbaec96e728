"""Shards behind clients of stores and behind commands: what is read, how often, and what is said when it fails."""

import io
import os
from typing import ClassVar

import fsspec
import pytest
from fsspec.spec import AbstractFileSystem

from raccoon_datamodules import reader_stream, spool
from raccoon_datamodules.index import Index
from raccoon_datamodules.order import SampleOrder
from raccoon_datamodules.reader_stream import StoreFiles
from raccoon_datamodules.sources import ShardSource


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Spools of a test are made in a folder of its own, and nothing waits."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(spool.time, "sleep", lambda seconds: None)
    return tmp_path


@pytest.fixture
def memory(shards):
    """The shards in fsspec's memory."""
    store = fsspec.filesystem("memory")
    for path in shards.iterdir():
        store.pipe_file(f"/corpus/train/{path.name}", path.read_bytes())
    yield store
    store.rm("/corpus", recursive=True)


class OneWay(AbstractFileSystem):
    """A store that gives its files from their start only, and counts."""

    protocol = "oneway"
    opened: ClassVar = []
    num_bytes: ClassVar = 0
    root: ClassVar = ""
    failure: ClassVar = None

    def _open(self, path, mode="rb", **options):
        if OneWay.failure is not None:
            raise OneWay.failure
        OneWay.opened.append(os.path.basename(path))
        return Forward(open(os.path.join(OneWay.root, os.path.basename(path)), "rb"))


class Forward(io.RawIOBase):
    def __init__(self, file):
        self.file = file

    def readable(self):
        return True

    def read(self, size=-1):
        data = self.file.read(size)
        OneWay.num_bytes += len(data)
        return data

    def close(self):
        self.file.close()
        super().close()


@pytest.fixture
def oneway(shards, monkeypatch):
    fsspec.register_implementation("oneway", OneWay, clobber=True)
    monkeypatch.setattr(OneWay, "opened", [])
    monkeypatch.setattr(OneWay, "num_bytes", 0)
    monkeypatch.setattr(OneWay, "root", str(shards))
    return OneWay


def test_a_store_that_can_seek_is_read_by_offset(memory, shards, folder):
    source, local = ShardSource("memory://corpus/train"), ShardSource(shards)
    assert source.fingerprint() == local.fingerprint()
    for shard, sample in [(2, 1), (0, 0), (1, 3)]:
        assert source.read(shard, sample) == local.read(shard, sample)
    assert list(folder.iterdir()) == []


def test_a_store_may_be_reached_through_its_clients_cache(memory, shards):
    place = "simplecache::memory://corpus/train"
    assert ShardSource(place).read(1, 1) == ShardSource(shards).read(1, 1)


def test_an_index_in_a_store_may_be_named_itself(memory):
    assert len(Index.load("memory://corpus/train/index.json")) == 10


def test_what_is_missing_in_a_store_is_said_so(memory):
    source = ShardSource("memory://corpus/train")
    memory.rm("/corpus/train/vplm-train-000001.tar")
    with pytest.raises(FileNotFoundError, match=r"memory://corpus/train/vplm-train-000001\.tar is not there"):
        source.read(1, 0)
    with pytest.raises(FileNotFoundError, match=r"no index\.json in memory://corpus/nothing; check the address"):
        Index.load("memory://corpus/nothing")


def test_a_file_replaced_in_a_store_is_noticed(memory):
    source = ShardSource("memory://corpus/train")
    memory.pipe_file("/corpus/train/vplm-train-000000.tar", bytes(50_000))
    with pytest.raises(ValueError, match=r"meta\.json: its bytes do not match the checksum"):
        source.read(0, 0)


@pytest.mark.parametrize(("place", "package"), [("s3://bucket/x", "s3fs"), ("gs://bucket/x", "gcsfs")])
def test_a_client_that_is_not_installed_is_named(place, package, monkeypatch):
    def missing(scheme):
        raise ImportError("Install it")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(ImportError, match=rf"reading {place} needs the package {package}: pip install {package}"):
        ShardSource(place)
    with pytest.raises(ImportError, match=r"reading gdrive://x needs another package: Install it"):
        ShardSource("gdrive://x")


def test_an_address_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match=r"and pipe:COMMAND; nonsense: in nonsense://x is none of these"):
        ShardSource("nonsense://x")


@pytest.mark.parametrize(
    ("failure", "error", "message"),
    [
        (PermissionError("Access Denied"), PermissionError, r"may not be read with these credentials: Access Denied"),
        (RuntimeError("no credentials"), OSError, r"oneway://x/index\.json: RuntimeError: no credentials"),
        (TimeoutError(), OSError, r"oneway://x/index\.json: TimeoutError"),
    ],
)
def test_what_a_client_raises_becomes_a_sentence(oneway, monkeypatch, failure, error, message):
    monkeypatch.setattr(OneWay, "failure", failure)
    with pytest.raises(error, match=message):
        ShardSource("oneway://x")


def test_a_store_that_gives_more_than_was_asked_for_is_read_from_the_start(memory, shards, monkeypatch):
    whole = type(memory).cat_file
    monkeypatch.setattr(type(memory), "cat_file", lambda self, path, start=None, end=None: whole(self, path))
    assert ShardSource("memory://corpus/train").read(1, 1) == ShardSource(shards).read(1, 1)


def test_a_forked_process_makes_a_client_of_its_own(memory, monkeypatch):
    files = StoreFiles("memory://corpus/train")
    files.read("index.json", 0, 1)
    first = files._made
    monkeypatch.setattr(reader_stream.os, "getpid", lambda: -1)
    files.read("index.json", 0, 1)
    assert files._made is not first


def keys_of_epoch(source, first, last, *, window_shards, seed=3):
    """Read the samples of ordinals as a run does; their keys."""
    order = SampleOrder(source.shard_sizes, seed=seed, window_shards=window_shards)
    keys = []
    for ordinal in range(first, last):
        ref = order.locate(ordinal)
        keys.append(source.view(ref.shard, ref.sample).key)
    return keys


@pytest.mark.parametrize("window_shards", [1, 2, 8])
def test_an_epoch_reads_each_shard_once(oneway, shards, window_shards):
    source = ShardSource("oneway://x", spool_bytes=10**8)
    assert sorted(keys_of_epoch(source, 0, 10, window_shards=window_shards)) == [f"clip-{i:04d}" for i in range(10)]
    # The first opening found that the store cannot seek.
    assert sorted(oneway.opened[2:]) == sorted(path.name for path in shards.glob("*.tar"))
    assert oneway.num_bytes == sum(path.stat().st_size for path in shards.iterdir())


def test_with_room_for_one_window_no_shard_of_it_is_read_twice(make_shards, tmp_path, oneway, monkeypatch):
    folder = make_shards(tmp_path / "many", 12, samples_per_shard=2)
    monkeypatch.setattr(OneWay, "root", str(folder))
    size = max(path.stat().st_size for path in folder.glob("*.tar"))
    source = ShardSource("oneway://x", spool_bytes=2 * size)
    keys_of_epoch(source, 0, 24, window_shards=2)
    # Two epochs of six shards; a shard of the last window may still be there for the next epoch.
    assert len(oneway.opened[2:]) <= 12
    assert oneway.num_bytes <= 2 * sum(path.stat().st_size for path in folder.iterdir())


def test_a_continued_run_reads_again_only_the_shard_it_stopped_in(oneway):
    keys_of_epoch(ShardSource("oneway://x"), 0, 6, window_shards=1)
    before = oneway.opened[2:]
    oneway.opened.clear()
    keys_of_epoch(ShardSource("oneway://x"), 6, 10, window_shards=1)
    after = oneway.opened[2:]
    assert len(before) == len(set(before)) <= 2
    assert len(after) == len(set(after)) <= 2
    assert len(set(before) & set(after)) <= 1
