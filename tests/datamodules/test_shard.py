import io
import json
import tarfile

import pytest

from raccoon_datamodules.index import Index
from raccoon_datamodules.shard import Member, Shard


def tar_of(path, names):
    with tarfile.open(path, "w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO(b""))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.video.mp4", "b.video.mp4", "a.meta.json"], "sample a do not lie side by side"),
        (["a.video.mp4", "a.video.mp4"], "sample a has two members video.mp4"),
        (["x/a.video.mp4"], "named KEY.SUFFIX without folders"),
        (["ä.video.mp4"], "a sample key must match"),
    ],
)
def test_tars_that_are_not_grouped_by_key_cannot_be_indexed(tmp_path, names, message):
    tar_of(tmp_path / "x.tar", names)
    with pytest.raises(ValueError, match=message):
        Index.build(tmp_path)


def test_a_tar_that_claims_more_than_it_has_is_not_read_into_memory(tmp_path):
    info = tarfile.TarInfo("a.video.mp4")
    info.size = 1 << 50
    (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    with pytest.raises(ValueError, match=r"x\.tar cannot be indexed: it ends inside a\.video\.mp4"):
        Index.build(tmp_path)


def test_a_tar_member_with_holes_is_refused(tmp_path):
    info = tarfile.TarInfo("a.video.mp4")
    info.type = tarfile.GNUTYPE_SPARSE
    (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    with pytest.raises(ValueError, match=r"a\.video\.mp4 is stored with holes"):
        Index.build(tmp_path)


def header(name, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header("x", 1 << 60, tarfile.XHDTYPE), r"a header of \d+ bytes, at most 1048576 expected"),
        (header("x", 1 << 60, tarfile.GNUTYPE_LONGNAME), r"a header of \d+ bytes, at most 1048576 expected"),
        (header("x", 1 << 60, b"Z"), r"it ends, or a header leads from byte \d+ to \d+ of"),
        (
            header("a.video.mp4", 5) + b"12345" + bytes(507) + header("b.video.mp4", -2048),
            "a header states a size of -2048 bytes",
        ),
        (header("x", 512, tarfile.XHDTYPE) + b"x" * 512, "a header is damaged|end of file header"),
        (header("x", 0, tarfile.XHDTYPE) * 3000, "cannot be indexed"),
    ],
)
def test_headers_that_lie_are_refused_and_not_followed(tmp_path, data, message):
    (tmp_path / "x.tar").write_bytes(data + bytes(20_480))
    with pytest.raises(ValueError, match=message):
        Index.build(tmp_path)


def test_large_numbers_take_the_columns_they_need():
    members = [Member("video.mp4", 5_000_000_000, 10, 0xFFFFFFFF), Member("meta.json", 512, 3, 0)]
    shard = Shard.from_samples("a.tar", [("k", members)], size=6_000_000_000, sha256="0" * 64)
    value = json.loads(json.dumps(shard.to_json()))
    assert {name: column["dtype"] for name, column in value["members"].items()} == {
        "count": "u1",
        "suffix": "u1",
        "offset": "u8",
        "length": "u1",
        "crc32": "u4",
    }
    assert Shard.from_json(value).members(0) == tuple(members)
