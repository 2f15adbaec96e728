import http.server
import io
import json
import os
import pickle
import re
import shutil
import tarfile
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest

from raccoon_datamodules.index import Index, Member, Shard
from raccoon_datamodules.reader import ShardReader, is_url, join
from raccoon_datamodules.sample import encode
from raccoon_datamodules.sources import ShardSource


@pytest.fixture
def copy(shards, tmp_path):
    return shutil.copytree(shards, tmp_path / "copy")


def edit_index(folder, change):
    path = folder / "index.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_the_index_finds_every_member_of_every_sample(shards, make_sample):
    index = Index.load(shards)
    assert (index.split, len(index), index.shard_sizes) == ("train", 10, [4, 4, 2])
    number = 0
    for shard in index.shards:
        data = (shards / shard.name).read_bytes()
        for position in range(len(shard)):
            expected = encode(make_sample(number))
            found = {m.suffix: data[m.offset : m.offset + m.length] for m in shard.members(position)}
            assert (shard.key(position), found) == (f"clip-{number:04d}", expected)
            assert all(zlib.crc32(found[m.suffix]) == m.crc32 for m in shard.members(position))
            number += 1


def test_an_index_loads_from_its_folder_and_from_its_own_path(shards):
    assert Index.load(shards / "index.json").to_json() == Index.load(shards).to_json()


def test_a_key_is_found(shards):
    index = Index.load(shards)
    assert index.find("clip-0005") == (1, 1)
    assert list(index.keys()) == [f"clip-{i:04d}" for i in range(10)]
    with pytest.raises(KeyError, match="no sample nobody"):
        index.find("nobody")


def test_indexing_the_tars_again_gives_the_same_index(shards):
    assert Index.build(shards).to_json() == Index.load(shards).to_json()


def test_tars_made_by_others_can_be_indexed(tmp_path, make_sample):
    data = encode(make_sample())
    with tarfile.open(tmp_path / "mine.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        folder = tarfile.TarInfo("./")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for suffix, value in data.items():
            info = tarfile.TarInfo(f"./a.{suffix}")
            info.size = len(value)
            archive.addfile(info, io.BytesIO(value))
    index = Index.build(tmp_path, split="val")
    index.save(tmp_path)
    assert (index.split, list(index.keys())) == ("val", ["a"])
    assert ShardSource(tmp_path).read(0, 0) == data


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


def test_a_truncated_tar_cannot_be_indexed(copy):
    path = copy / "vplm-train-000001.tar"
    os.truncate(path, 20_000)
    with pytest.raises(ValueError, match=r"vplm-train-000001.tar cannot be indexed"):
        Index.build(copy)


def test_a_folder_without_tars_cannot_be_indexed(tmp_path):
    with pytest.raises(ValueError, match=r"holds no \*.tar to index"):
        Index.build(tmp_path)


@pytest.mark.parametrize("load", [Index.load, Index.build])
def test_a_missing_folder_is_said_so(tmp_path, load):
    with pytest.raises(FileNotFoundError, match=r"no shards at .*nowhere: there is no such folder"):
        load(tmp_path / "nowhere")


def test_a_folder_without_an_index_says_how_to_make_one(tmp_path):
    (tmp_path / "vplm-train-000000.tar").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=f"no index.json in {tmp_path}; `raccoon vplm check {tmp_path} --rein"):
        Index.load(tmp_path)


def test_a_folder_without_a_shard_says_how_to_make_some(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no shards: .*`raccoon vplm synth --out .*` makes some"):
        Index.load(tmp_path)


def test_a_file_in_place_of_the_folder_is_said_so(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"clip\.mp4 is a file; give the folder that holds the shards"):
        Index.load(tmp_path / "clip.mp4")


@pytest.mark.parametrize("text", ["", "{", "nonsense", '{"format": "raccoon-vplm-index", "schema": 1, '])
def test_an_index_that_is_not_json_is_refused(copy, text):
    (copy / "index.json").write_text(text)
    with pytest.raises(ValueError, match=r"index.json must be JSON"):
        Index.load(copy)


@pytest.mark.parametrize("text", ["[]", "3", '{"shards": []}'])
def test_json_that_is_no_index_is_refused(copy, text):
    (copy / "index.json").write_text(text)
    with pytest.raises(ValueError, match="is not an index of VPLM shards"):
        Index.load(copy)


def test_an_index_of_another_schema_is_refused(copy):
    edit_index(copy, lambda value: value.update(schema=9))
    with pytest.raises(ValueError, match="has schema 9, this version of raccoon reads schema 1"):
        Index.load(copy)


def test_an_index_without_samples_is_refused(copy):
    edit_index(copy, lambda value: value.update(shards=[], num_samples=0))
    with pytest.raises(ValueError, match="must list at least one sample"):
        Index.load(copy)


DAMAGES = {
    "no shards": lambda v: v.pop("shards"),
    "no columns": lambda v: v["shards"][0].pop("members"),
    "short column": lambda v: v["shards"][0]["members"]["offset"].update(base64="AAAA"),
    "not base64": lambda v: v["shards"][0]["members"]["offset"].update(base64="?"),
    "odd bytes": lambda v: v["shards"][0]["members"]["offset"].update(base64="AA=="),
    "dtype": lambda v: v["shards"][0]["members"]["offset"].update(dtype="O"),
    "fewer keys": lambda v: v["shards"][0]["keys"].pop(),
    "fewer suffixes": lambda v: v["shards"][0]["suffixes"].pop(),
    "past the end": lambda v: v["shards"][0].update(size=10),
    "split": lambda v: v.update(split="../x"),
    "keys that are no text": lambda v: v["shards"][0].update(keys=["ä", "b", "c", "d"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_refused(copy, damage):
    edit_index(copy, DAMAGES[damage])
    with pytest.raises(ValueError, match=r"index.json is damaged: .*write it anew"):
        Index.load(copy)


@pytest.mark.parametrize("name", ["../../etc/passwd.tar", "/x.tar", "pipe:rm.tar", ".hidden.tar", "a.zip"])
def test_a_shard_name_cannot_leave_the_folder(copy, name):
    edit_index(copy, lambda value: value["shards"][0].update(name=name))
    with pytest.raises(
        ValueError, match=re.escape(f"a shard must be named NAME.tar without folders, got {name!r}")[:50]
    ):
        Index.load(copy)


def test_a_wrong_total_is_refused(copy):
    edit_index(copy, lambda value: value.update(num_samples=11))
    with pytest.raises(ValueError, match=r"as many as it states \(11\), lists 10"):
        Index.load(copy)


def test_the_fingerprint_follows_the_contents(shards, make_shards, tmp_path):
    other = make_shards(tmp_path / "other", 10, first=1)
    assert Index.load(shards).fingerprint() == Index.build(shards).fingerprint()
    assert Index.load(shards).fingerprint() != Index.load(other).fingerprint()


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


def test_a_read_past_the_end_says_that_the_shard_was_cut_off(copy):
    source = ShardSource(copy)
    os.truncate(copy / "vplm-train-000000.tar", 1000)
    with pytest.raises(OSError, match=r"vplm-train-000000.tar ends before byte \d+, to which the index says"):
        source.read(0, 3)


def test_a_shard_that_vanished_is_said_so(copy):
    source = ShardSource(copy)
    (copy / "vplm-train-000001.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"shard .*vplm-train-000001.tar is not there"):
        source.read(1, 0)


def test_a_flipped_bit_in_a_clip_is_noticed_when_it_is_read(copy):
    source = ShardSource(copy)
    entry = next(m for m in source.index.shards[0].members(2) if m.suffix == "video.mp4")
    path = copy / "vplm-train-000000.tar"
    data = bytearray(path.read_bytes())
    data[entry.offset + entry.length // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"video.mp4: its bytes do not match the checksum"):
        source.read(0, 2)
    assert source.read(0, 1)


def test_only_the_wanted_members_are_read(shards):
    assert set(ShardSource(shards).read(0, 0, {"mask-1.npz", "nothing"})) == {"mask-1.npz"}


def test_a_sample_under_another_key_than_the_index_says_is_refused(copy):
    edit_index(copy, lambda value: value["shards"][0]["keys"].reverse())
    with pytest.raises(ValueError, match=r"meta.json: must hold the key clip-0003, holds clip-0000"):
        ShardSource(copy).view(0, 0)


def test_another_split_than_the_one_asked_for_is_refused(shards):
    with pytest.raises(ValueError, match="must hold split val, it holds train"):
        ShardSource(shards, split="val")


def test_ranges_come_back_in_the_order_asked_for(tmp_path):
    data = np.random.default_rng(0).bytes(300_000)
    (tmp_path / "a.tar").write_bytes(data)
    reader = ShardReader(tmp_path)
    ranges = [(200_000, 50), (0, 10), (5, 10), (299_990, 10), (100, 0)]
    assert reader.read_many("a.tar", ranges) == [data[o : o + n] for o, n in ranges]


def test_a_reader_may_be_pickled_and_keeps_few_files_open(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.tar").write_bytes(bytes([i]) * 10)
    reader = ShardReader(tmp_path, max_open=2)
    assert [reader.read(f"{i}.tar", 3, 2) for i in range(5)] == [bytes([i]) * 2 for i in range(5)]
    assert len(reader._files) == 2
    assert pickle.loads(pickle.dumps(reader)).read("1.tar", 0, 1) == b"\x01"


@pytest.mark.parametrize("place", ["s3://bucket/x", "pipe:cat x", "gs://x"])
def test_places_that_cannot_be_read_by_offset_are_refused(place):
    with pytest.raises(ValueError, match=r"local folders and http\(s\):// addresses, got"):
        Index.load(place)


def test_places_are_told_apart(tmp_path):
    assert is_url("http://a/b")
    assert is_url("HTTPS://a")
    assert not is_url(tmp_path)
    assert not is_url("C:/data")
    assert join("http://a/b/", "c.tar") == "http://a/b/c.tar"


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Serves ``root`` with byte ranges, unless told not to; counts requests."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        path = self.server.root / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted and self.server.has_ranges:
            data = data[int(wanted[1]) : int(wanted[2]) + 1]
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(shards):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), RangeHandler) as server:
        server.root, server.asked, server.has_ranges = shards, [], True
        server.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_sample_is_read_over_http_in_one_request(server, shards):
    source = ShardSource(server.address)
    server.asked.clear()
    assert source.read(1, 2) == ShardSource(shards).read(1, 2)
    assert len(server.asked) == 1
    assert server.asked[0][1].startswith("bytes=")


def test_a_server_without_ranges_is_refused(server):
    source = ShardSource(f"{server.address}/index.json")
    server.has_ranges = False
    with pytest.raises(OSError, match=r"the server must serve byte ranges \(status 206\), it answered 200"):
        source.read(0, 0)


def test_a_shard_missing_on_the_server_is_said_so(server, tmp_path):
    source = ShardSource(server.address)
    server.root = tmp_path
    with pytest.raises(FileNotFoundError, match=r"vplm-train-000000.tar is not there \(HTTP 404\)"):
        source.read(0, 0)


def test_an_index_missing_on_the_server_is_said_so(server):
    with pytest.raises(FileNotFoundError, match=r"no index.json in http://.*/deep"):
        Index.load(f"{server.address}/deep")


def test_a_server_that_is_not_there_is_said_so():
    with pytest.raises(OSError, match=r"http://127.0.0.1:1/index.json cannot be reached"):
        Index.load("http://127.0.0.1:1")


def test_the_reader_in_the_documentation_runs(shards, monkeypatch, capsys):
    text = (Path(__file__).resolve().parents[2] / "docs" / "format.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "index.json" in block]
    monkeypatch.chdir(shards.parent)
    exec(code, {})
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    expected = Index.load(shards).shards[0].members(3)
    assert printed == [["clip-0003", m.suffix, str(m.offset), str(m.length)] for m in expected]
