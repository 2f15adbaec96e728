import base64
import io
import json
import os
import re
import shutil
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from raccoon_datamodules.index import Index
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


def test_a_folder_of_folders_of_shards_names_them(shards, tmp_path):
    for split in ("val", "train"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "index.json").write_bytes((shards / "index.json").read_bytes())
    with pytest.raises(FileNotFoundError, match=r"but folders of shards \(train, val\): name these"):
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


def test_samples_can_be_left_out(shards):
    index = Index.load(shards)
    bad = {("vplm-train-000000.tar", "clip-0001"), ("vplm-train-000002.tar", "clip-0009"), ("x.tar", "clip-0000")}
    less = index.without(bad)
    assert less.shard_sizes == [3, 4, 1]
    assert list(less.keys()) == [f"clip-{i:04d}" for i in (0, 2, 3, 4, 5, 6, 7, 8)]
    assert less.shards[0].members(1) == index.shards[0].members(2)
    assert less.left_out == (("vplm-train-000000.tar", "clip-0001"), ("vplm-train-000002.tar", "clip-0009"))
    assert index.without([]).fingerprint() == index.fingerprint()


def test_the_fingerprint_tells_which_samples_were_left_out(shards):
    index = Index.load(shards)
    prints = {index.without({("vplm-train-000000.tar", f"clip-{i:04d}")}).fingerprint() for i in range(4)}
    assert len(prints | {index.fingerprint()}) == 5


def test_leaving_everything_out_is_refused(shards):
    index = Index.load(shards)
    with pytest.raises(ValueError, match=r"no sample of .* is left: all 10 are to be left out"):
        index.without({(shard.name, shard.key(i)) for shard in index.shards for i in range(len(shard))})


def test_counts_that_wrap_around_are_refused(copy):
    def change(value):
        counts = np.array([2**63, 2**63, 20, 8], dtype="<u8")
        value["shards"][0]["members"]["count"] = {"dtype": "u8", "base64": base64.b64encode(counts.tobytes()).decode()}

    edit_index(copy, change)
    with pytest.raises(ValueError, match=r"its columns must have \d+ entries"):
        Index.load(copy)


@pytest.mark.parametrize("place", [0, 100, 700, -41])
def test_a_flipped_bit_of_the_index_is_noticed_even_where_it_is_still_json(copy, place):
    path = copy / "index.json"
    data = bytearray(path.read_bytes())
    assert data[-12:].count(b"}") == 1
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"index.json is damaged: its bytes do not match its checksum; write it anew"):
        Index.load(copy)


def test_an_index_that_somebody_else_wrote_needs_no_checksum(copy, shards):
    edit_index(copy, lambda value: None)
    assert Index.load(copy).fingerprint() == Index.load(shards).fingerprint()
    edit_index(copy, lambda value: value.pop("crc32"))
    assert Index.load(copy).fingerprint() == Index.load(shards).fingerprint()


def test_the_reader_in_the_documentation_runs(shards, monkeypatch, capsys):
    text = (Path(__file__).resolve().parents[2] / "docs" / "format.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "index.json" in block]
    monkeypatch.chdir(shards.parent)
    exec(code, {})
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    expected = Index.load(shards).shards[0].members(3)
    assert printed == [["clip-0003", m.suffix, str(m.offset), str(m.length)] for m in expected]
