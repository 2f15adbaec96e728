import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from raccoon_datamodules import spool
from raccoon_datamodules.reader import FolderFiles, ShardReader, files_of
from raccoon_datamodules.reader_http import HttpFiles


@pytest.fixture
def data(tmp_path):
    data = np.random.default_rng(0).bytes(300_000)
    (tmp_path / "a.tar").write_bytes(data)
    return data


def test_ranges_come_back_in_the_order_asked_for(data, tmp_path):
    reader = ShardReader(tmp_path)
    ranges = [(200_000, 50), (0, 10), (5, 10), (299_990, 10), (100, 0)]
    assert reader.read_many("a.tar", ranges) == [data[o : o + n] for o, n in ranges]


def test_neighbours_are_read_in_one_go_and_others_are_not(data, tmp_path, monkeypatch):
    asked = []
    read = FolderFiles.read
    monkeypatch.setattr(FolderFiles, "read", lambda self, *what: asked.append(what[1:]) or read(self, *what))
    ShardReader(tmp_path).read_many("a.tar", [(250_000, 10), (1000, 10), (0, 10)])
    assert asked == [(0, 1010), (250_000, 10)]


def test_a_reader_may_be_pickled_and_keeps_few_files_open(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.tar").write_bytes(bytes([i]) * 10)
    reader = ShardReader(tmp_path, max_open=2)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else None
    assert [reader.read(f"{i}.tar", 3, 2) for i in range(5)] == [bytes([i]) * 2 for i in range(5)]
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before + 2
    assert pickle.loads(pickle.dumps(reader)).read("1.tar", 0, 1) == b"\x01"
    reader.close()
    assert reader.read("1.tar", 0, 1) == b"\x01"


def test_a_file_cut_off_under_an_open_reader_is_said_so(data, tmp_path):
    reader = ShardReader(tmp_path)
    assert reader.read("a.tar", 299_990, 10) == data[-10:]
    os.truncate(tmp_path / "a.tar", 1000)
    with pytest.raises(OSError, match=r"a\.tar ends before byte 300000, to which the index says it goes on"):
        reader.read("a.tar", 299_990, 10)


def test_a_length_from_a_damaged_index_asks_for_no_memory(data, tmp_path):
    with pytest.raises(OSError, match=r"a\.tar ends before byte"):
        ShardReader(tmp_path).read("a.tar", 5, 1 << 60)


def test_an_open_file_outlives_its_name(data, tmp_path):
    reader = ShardReader(tmp_path)
    reader.read("a.tar", 0, 1)
    (tmp_path / "a.tar").unlink()
    assert reader.read("a.tar", 200_000, 100) == data[200_000:200_100]
    with pytest.raises(FileNotFoundError, match=r"shard .*a\.tar is not there; it was moved or removed since"):
        ShardReader(tmp_path).read("a.tar", 0, 1)


def test_a_file_replaced_on_a_network_folder_is_opened_anew(data, tmp_path, monkeypatch):
    reader = ShardReader(tmp_path)
    reader.read("a.tar", 0, 1)
    real, failures = os.pread, [OSError(errno.ESTALE, "Stale file handle")]

    def pread(*args):
        if failures:
            raise failures.pop()
        return real(*args)

    monkeypatch.setattr(spool.os, "pread", pread)
    assert reader.read("a.tar", 7, 3) == data[7:10]


def test_a_failing_disk_is_no_stale_handle(data, tmp_path, monkeypatch):
    def pread(*args):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(spool.os, "pread", pread)
    with pytest.raises(OSError, match="Input/output error"):
        ShardReader(tmp_path).read("a.tar", 7, 3)


def test_a_shard_without_permission_is_said_so(data, tmp_path, monkeypatch):
    def refused(*args):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(PermissionError, match=r"no permission to read shard .*a\.tar: change its rights"):
        ShardReader(tmp_path).read("a.tar", 0, 1)


def test_the_size_of_a_file_is_what_its_name_leads_to_now(data, tmp_path):
    reader = ShardReader(tmp_path)
    reader.read("a.tar", 0, 1)
    (tmp_path / "a.tar").unlink()
    assert reader.size("a.tar") is None
    (tmp_path / "a.tar").write_bytes(b"123")
    assert reader.size("a.tar") == 3
    assert ShardReader("http://127.0.0.1:1").size("a.tar") is None


def test_each_kind_of_place_has_its_reader(tmp_path):
    assert isinstance(files_of(tmp_path), FolderFiles)
    assert isinstance(files_of("http://a"), HttpFiles)
