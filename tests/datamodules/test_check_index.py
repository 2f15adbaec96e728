"""An index that is missing, damaged or of other shards is a finding, and the samples are checked all the same."""

import json
import os
import shutil
import zlib

import pytest

from raccoon_datamodules.examine import check, indexes
from raccoon_datamodules.examine.check import check_shards, check_splits
from raccoon_datamodules.examine.indexes import reindex
from raccoon_datamodules.index import Index
from raccoon_datamodules.sources import ShardSource

FROM_TARS = "the samples are checked as they lie in the tars"


@pytest.fixture
def copy(shards, tmp_path):
    return shutil.copytree(shards, tmp_path / "copy")


def reasons(report):
    return [str(problem) for problem in report.problems]


def cut_off(data):
    return data[: len(data) // 2]


def other_bytes(data):
    return data.replace(b'"num_samples":4', b'"num_samples":5')


def newer(data):
    return data.replace(b'"schema":1', b'"schema":7').rpartition(b',"crc32"')[0] + b"}"


def contradicting(data):
    """With a checksum that fits: found only when the shard is asked for."""
    body = data.rpartition(b',"crc32"')[0].replace(b'"dtype":"u1"', b'"dtype":"f4"')
    return body + b',"crc32":%d}\n' % zlib.crc32(body)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut_off, "must be JSON: Unterminated string"),
        (other_bytes, "is damaged: its bytes do not match its checksum; write it anew with"),
        (newer, "has schema 7, this version of raccoon reads schema 1"),
        (contradicting, "must have dtype u1, u2, u4 or u8, got 'f4'"),
        (lambda data: b"", "must be JSON"),
        (lambda data: b"[" * 100_000, "must be JSON"),
        (lambda data: b"{}", "is not an index of VPLM shards"),
    ],
    ids=["cut off", "other bytes", "newer", "contradicting", "empty", "nested", "something else"],
)
def test_a_damaged_index_is_a_finding_and_the_samples_are_checked(copy, damage, reason):
    path = copy / "index.json"
    path.write_bytes(damage(path.read_bytes()))
    left = path.read_bytes()
    report = check_shards(copy, quick=True)
    (found,) = reasons(report)
    assert found.startswith("index.json: ")
    assert reason in found
    assert found.endswith(FROM_TARS)
    assert (report.ok, report.num_samples, report.num_shards, report.num_bad_samples) == (False, 10, 3, 0)
    assert report.split == "train"
    # A check only reads.
    assert path.read_bytes() == left


def test_a_missing_index_is_a_finding_that_says_how_to_make_it(copy):
    (copy / "index.json").unlink()
    report = check_shards(copy, workers=2)
    assert reasons(report) == [f"index.json: is not there; `raccoon vplm check {copy} --reindex` makes it; {FROM_TARS}"]
    assert (report.num_samples, report.num_objects) == (10, 10)
    assert not (copy / "index.json").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_index_that_may_not_be_read_is_a_finding(copy):
    (copy / "index.json").chmod(0)
    report = check_shards(copy)
    assert "index.json: cannot be read: " in reasons(report)[0]
    assert report.num_samples == 10


def test_an_index_that_is_a_folder_is_a_finding(copy):
    (copy / "index.json").unlink()
    (copy / "index.json").mkdir()
    report = check_shards(copy)
    assert "index.json: cannot be read: " in reasons(report)[0]
    assert report.num_samples == 10


def test_bad_samples_are_found_without_an_index_too(copy):
    index = Index.load(copy)
    (member,) = (m for m in index.shards[1].members(2) if m.suffix == "meta.json")
    path = copy / index.shards[1].name
    data = bytearray(path.read_bytes())
    data[member.offset] = ord("x")
    path.write_bytes(data)
    (copy / "index.json").unlink()
    report = check_shards(copy)
    assert [(p.key, p.member) for p in report.problems[1:]] == [("clip-0006", "meta.json")]
    assert report.num_bad_samples == 1


def test_a_tar_that_cannot_be_read_without_an_index_leaves_the_others(copy):
    os.truncate(copy / "vplm-train-000001.tar", 20_000)
    (copy / "index.json").unlink()
    report = check_shards(copy)
    assert reasons(report)[1].startswith("vplm-train-000001.tar: its samples cannot be checked: ")
    assert len(report.problems) == 2
    assert (report.num_samples, report.num_shards) == (6, 2)


def test_where_no_tar_can_be_read_nothing_is_checked_and_it_is_said(copy):
    for path in copy.glob("*.tar"):
        path.write_bytes(b"no tar")
    (copy / "index.json").unlink()
    report = check_shards(copy)
    assert [p.shard for p in report.problems] == [
        "index.json",
        "vplm-train-000000.tar",
        "vplm-train-000001.tar",
        "vplm-train-000002.tar",
    ]
    assert (report.ok, report.num_samples, report.split) == (False, 0, None)
    assert reasons(report)[0] == "index.json: is not there; no tar here can be read as a shard either"


def test_an_index_of_other_shards_is_a_finding(copy, make_shards, tmp_path):
    other = make_shards(tmp_path / "other", 2, split="val")
    shutil.copy(other / "index.json", copy)
    report = check_shards(copy)
    assert len(report.problems) == 1
    assert "index.json: lists vplm-val-000000.tar, but none of the tars that lie there" in reasons(report)[0]
    assert report.num_samples == 10


def test_a_shard_that_was_replaced_is_checked_as_it_is_now(copy, make_shards, tmp_path):
    other = make_shards(tmp_path / "other", 3, first=20, samples_per_shard=3)
    shutil.copy(other / "vplm-train-000000.tar", copy / "vplm-train-000001.tar")
    found = "\n".join(reasons(check_shards(copy)))
    assert "vplm-train-000001.tar: must have" in found
    assert "vplm-train-000001.tar: clip-0020.meta.json: is in the tar but not in the index" in found
    assert f"vplm-train-000001.tar: its entry in index.json is not its own; {FROM_TARS}" in found
    assert "checksum" not in found
    report = check_shards(copy)
    assert report.num_samples == 4 + 3 + 2
    # The four that a training run by this index would miss.
    assert report.num_bad_samples == 4
    assert "vplm-train-000001.tar: clip-0004: is in the index but not in the tar" in reasons(report)


def test_leaks_are_found_where_an_index_is_missing(shards, copy):
    (copy / "index.json").unlink()
    first, second = check_splits([shards, copy])
    assert first.ok
    assert sum("is in" in reason for reason in reasons(second)) == 10
    first, second = check_splits([shards, copy], quick=True)
    assert sum("is in" in reason for reason in reasons(second)) == 10


def test_a_folder_with_nothing_in_it_is_no_finding_but_a_wrong_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no shards"):
        check_shards(tmp_path)
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(ValueError, match="is not an index of VPLM shards"):
        check_shards(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        check_shards(tmp_path / "x")


def test_an_index_that_is_missing_is_made_and_is_what_it_was(copy):
    before = (copy / "index.json").read_bytes()
    (copy / "index.json").unlink()
    done = reindex(copy)
    assert (done.is_new, done.former, done.changed, len(done.index)) == (True, None, (), 10)
    assert (copy / "index.json").read_bytes() == before
    assert check_shards(copy).ok


def test_an_index_that_is_right_is_left_alone(copy):
    stamp = (copy / "index.json").stat()
    assert reindex(copy).is_new is False
    assert (copy / "index.json").stat().st_mtime_ns == stamp.st_mtime_ns
    assert len(list(copy.iterdir())) == 4


@pytest.mark.parametrize("links", [True, False], ids=["with links", "without links"])
def test_an_index_that_is_replaced_is_kept(copy, monkeypatch, links):
    if not links:
        monkeypatch.setattr(indexes.os, "link", lambda *names: (_ for _ in ()).throw(OSError("no links here")))
    path = copy / "index.json"
    path.write_text("first")
    assert reindex(copy).former == copy / "index.json.old-1"
    path.write_text("second")
    assert reindex(copy).former == copy / "index.json.old-2"
    assert (copy / "index.json.old-1").read_text() == "first"
    assert (copy / "index.json.old-2").read_text() == "second"
    assert check_shards(copy).ok


def test_shards_whose_bytes_an_index_knew_otherwise_are_named(copy):
    path = copy / "vplm-train-000002.tar"
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    done = reindex(copy)
    assert done.changed == ("vplm-train-000002.tar",)
    assert done.former is not None
    assert json.loads(done.former.read_bytes())["num_samples"] == 10


def test_a_tar_that_cannot_be_indexed_leaves_the_index_as_it_was(copy):
    before = (copy / "index.json").read_bytes()
    os.truncate(copy / "vplm-train-000001.tar", 20_000)
    with pytest.raises(ValueError, match=r"vplm-train-000001\.tar cannot be indexed"):
        reindex(copy)
    assert (copy / "index.json").read_bytes() == before


def test_a_tar_of_a_name_that_no_index_may_list_is_named(copy):
    (copy / "vplm-train-000001.tar").rename(copy / "my shard.tar")
    with pytest.raises(ValueError, match=r"my shard\.tar cannot be indexed: a shard is named NAME\.tar"):
        reindex(copy)
    assert ShardSource(copy).shard_sizes == [4, 4, 2]
    (copy / "index.json").unlink()
    report = check_shards(copy)
    assert report.num_samples == 6
    assert any("rename or remove it" in reason for reason in reasons(report))


def test_what_a_check_makes_for_itself_is_removed(copy, tmp_path, monkeypatch):
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(check, "TemporaryDirectory", lambda prefix: _Made(place))
    (copy / "index.json").unlink()
    check_shards(copy)
    assert not place.exists()


class _Made:
    def __init__(self, place):
        self.place = place

    def __enter__(self):
        return str(self.place)

    def __exit__(self, *what):
        shutil.rmtree(self.place)
