import json
import pickle
import shutil
import zlib

import pytest

from raccoon_datamodules import stored_shards
from raccoon_datamodules.index import Index
from raccoon_datamodules.sources import ShardSource
from raccoon_datamodules.stored_shards import StoredShards


@pytest.fixture
def copy(shards, tmp_path):
    return shutil.copytree(shards, tmp_path / "copy")


@pytest.fixture
def count_reads(monkeypatch):
    """The names of the shards read, in turn."""
    read = []
    original = StoredShards._read

    def counted(self, number):
        read.append(self._stored[number].name)
        return original(self, number)

    monkeypatch.setattr(StoredShards, "_read", counted)
    return read


def rewrite(folder, change, *, separators=(",", ":")):
    """Change an index and give it a checksum that fits."""
    path = folder / "index.json"
    value = json.loads(path.read_text())
    del value["crc32"]
    change(value)
    body = json.dumps(value, separators=separators).encode()[:-1]
    path.write_bytes(body + b',"crc32":%d}\n' % zlib.crc32(body))


def test_no_shard_is_read_before_it_is_asked_for(shards, count_reads):
    source = ShardSource(shards)
    assert (source.shard_sizes, len(source.index), source.fingerprint()) == ([4, 4, 2], 10, source.fingerprint())
    assert count_reads == []
    assert source.name(1, 0) == ("vplm-train-000001.tar", "clip-0004")
    assert source.suffixes(1, 0)
    assert count_reads == ["vplm-train-000001.tar"]


def test_shards_read_late_are_those_read_at_once(shards, copy):
    rewrite(copy, lambda value: None, separators=(", ", ": "))
    at_once, late = Index.load(copy), Index.load(shards)
    assert (type(at_once.shards), type(late.shards)) == (tuple, StoredShards)
    assert late.to_json() == at_once.to_json()
    assert late.heads == at_once.heads
    assert late.fingerprint() == at_once.fingerprint()


DAMAGES = {
    "short column": lambda shard: shard["members"]["offset"].update(base64="AAAA"),
    "not base64": lambda shard: shard["members"]["offset"].update(base64="?"),
    "fewer keys": lambda shard: shard["keys"].pop(),
    "fewer suffixes": lambda shard: shard["suffixes"].pop(),
    "past the end": lambda shard: shard.update(size=10),
    "keys that are no text": lambda shard: shard.update(keys=["ä", "b", "c", "d"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_under_a_good_checksum_is_refused_when_it_is_asked_for(copy, damage):
    rewrite(copy, lambda value: DAMAGES[damage](value["shards"][1]))
    index = Index.load(copy)
    assert len(index.shards[0]) == 4
    with pytest.raises(ValueError, match=r"index.json is damaged: shard vplm-train-000001.tar: .*write it anew"):
        _ = index.shards[1]


def test_a_head_said_twice_is_refused(copy):
    path = copy / "index.json"
    body = path.read_bytes().rpartition(b',"crc32"')[0]
    body = body.replace(b'"suffixes":', b'"sha256":"other","suffixes":', 1)
    path.write_bytes(body + b',"crc32":%d}\n' % zlib.crc32(body))
    with pytest.raises(ValueError, match=r"shard vplm-train-000000.tar has two entries"):
        _ = Index.load(copy).shards[0]


def test_a_wrong_total_under_a_good_checksum_is_refused(copy):
    rewrite(copy, lambda value: value.update(num_samples=11))
    with pytest.raises(ValueError, match=r"as many as it states \(11\), lists 10"):
        Index.load(copy)


def test_members_that_do_not_fit_any_more_go(shards, monkeypatch, count_reads):
    monkeypatch.setattr(stored_shards, "_KEPT_MEMBERS", 1)
    found = Index.load(shards).shards
    names = [found[number].name[-5] for number in (0, 0, 1, 1, 0)]
    assert names == ["0", "0", "1", "1", "0"]
    assert [name[-5] for name in count_reads] == ["0", "1", "0"]


def test_only_shards_that_lose_samples_are_read_to_leave_some_out(shards, count_reads):
    index = Index.load(shards)
    every = {("vplm-train-000001.tar", f"clip-{i:04d}") for i in range(4, 8)}
    less = index.without(every).without({("vplm-train-000002.tar", "clip-0009")})
    assert count_reads == ["vplm-train-000001.tar", "vplm-train-000002.tar"]
    assert less.shard_sizes == [4, 0, 1]
    assert [len(shard) for shard in less.shards] == [4, 0, 1]
    assert list(less.keys()) == ["clip-0000", "clip-0001", "clip-0002", "clip-0003", "clip-0008"]


def test_a_worker_process_takes_the_shards_along_unread(shards):
    index = Index.load(shards)
    _ = index.shards[2]
    other = pickle.loads(pickle.dumps(index))
    assert other.shards._kept == {}
    assert other.to_json() == index.to_json()


def test_shards_are_a_sequence(shards):
    found = Index.load(shards).shards
    assert [shard.name for shard in found[1:]] == [found[1].name, found[-1].name]
    with pytest.raises(IndexError):
        _ = found[3]
