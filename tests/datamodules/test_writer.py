import errno
import gc
import hashlib
import io
import tarfile
import warnings

import pytest
import webdataset

from raccoon_datamodules import writer
from raccoon_datamodules.index import Index
from raccoon_datamodules.sample import decode, encode
from raccoon_datamodules.writer import write_encoded, write_shards


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def items(count, size=10, first=0):
    return [(f"k{first + i}", {"meta.json": b"{}", "video.mp4": bytes([i % 256]) * size}) for i in range(count)]


def test_shards_are_named_and_filled_as_asked(shards):
    assert sorted(contents(shards)) == [
        "index.json",
        "vplm-train-000000.tar",
        "vplm-train-000001.tar",
        "vplm-train-000002.tar",
    ]


def test_the_same_samples_give_the_same_files(make_shards, tmp_path):
    assert contents(make_shards(tmp_path / "a", 5)) == contents(make_shards(tmp_path / "b", 5))


def test_the_returned_index_is_the_one_on_disk_and_tells_size_and_hash(shards, make_sample, tmp_path):
    index = write_shards([make_sample()], tmp_path / "x")
    assert Index.load(tmp_path / "x").to_json() == index.to_json()
    data = (tmp_path / "x" / index.shards[0].name).read_bytes()
    assert (index.shards[0].size, index.shards[0].sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_tars_hold_no_times_and_no_owners(shards):
    with tarfile.open(shards / "vplm-train-000000.tar") as archive:
        for info in archive:
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) == (0, 0, 0, "", "", 0o644)


def test_the_longest_key_is_written_and_indexed(tmp_path):
    key = "k" * 120
    index = write_encoded([(key, {"inpainted-" + "i" * 60 + ".mp4": b"x" * 700, "meta.json": b"{}"})], tmp_path / "x")
    assert Index.build(tmp_path / "x").to_json() == index.to_json()
    with tarfile.open(tmp_path / "x" / index.shards[0].name) as archive:
        assert archive.getnames() == [f"{key}.inpainted-{'i' * 60}.mp4", f"{key}.meta.json"]


def test_webdataset_reads_the_same_samples_as_a_stream(shards, make_sample):
    urls = [str(path) for path in sorted(shards.glob("*.tar"))]
    with warnings.catch_warnings():
        # webdataset leaves its files to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        found = list(webdataset.WebDataset(urls, shardshuffle=False))
        gc.collect()
    assert [sample["__key__"] for sample in found] == [f"clip-{i:04d}" for i in range(10)]
    for number, sample in enumerate(found):
        data = {name: value for name, value in sample.items() if not name.startswith("__")}
        assert data == encode(make_sample(number))
        assert decode(data).key == sample["__key__"]


def test_what_webdataset_writes_can_be_indexed_and_decoded(tmp_path, make_sample):
    with webdataset.TarWriter(str(tmp_path / "vplm-val-000000.tar"), encoder=False) as out:
        for number in range(3):
            sample = make_sample(number)
            out.write({"__key__": sample.key, **encode(sample)})
    index = Index.build(tmp_path)
    assert (index.split, len(index)) == ("val", 3)


def test_a_shard_ends_before_it_grows_past_its_limit(tmp_path):
    index = write_encoded(items(6, size=3000), tmp_path / "x", max_bytes=12_000)
    assert index.shard_sizes == [2, 2, 2]


def test_a_single_sample_larger_than_a_shard_has_one_to_itself(tmp_path):
    assert write_encoded(items(2, size=30_000), tmp_path / "x", max_bytes=10_000).shard_sizes == [1, 1]


def test_progress_counts_samples(tmp_path):
    seen = []
    write_encoded(items(3), tmp_path / "x", progress=seen.append)
    assert seen == [1, 2, 3]


def test_existing_shards_are_kept_unless_overwriting_is_asked_for(tmp_path):
    write_encoded(items(2), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match="already holds shards; choose another folder or set overwrite"):
        write_encoded(items(3), tmp_path)
    assert contents(tmp_path) == before


def test_overwriting_leaves_no_old_shard_behind_and_touches_nothing_else(tmp_path):
    write_encoded(items(4), tmp_path, samples_per_shard=1)
    (tmp_path / "notes.txt").write_text("mine")
    write_encoded(items(2, first=10), tmp_path, overwrite=True)
    assert sorted(contents(tmp_path)) == ["index.json", "notes.txt", "vplm-train-000000.tar"]
    assert list(Index.load(tmp_path).keys()) == ["k10", "k11"]


def test_another_split_needs_another_folder(tmp_path):
    write_encoded(items(1), tmp_path, split="train")
    with pytest.raises(ValueError, match=r"holds another split \(vplm-train-000000.tar\); give split val a folder"):
        write_encoded(items(1), tmp_path, split="val", overwrite=True)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(FileExistsError, match=r"written into a folder, but .*x is a file"):
        write_encoded(items(1), tmp_path / "x")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_interrupt_leaves_what_was_there(tmp_path, error, overwrite):
    folder = tmp_path / "x"
    if overwrite:
        write_encoded(items(3), folder)
    before = contents(folder) if overwrite else None

    def broken():
        yield from items(5, first=100)
        raise error

    with pytest.raises(error):
        write_encoded(broken(), folder, samples_per_shard=2, overwrite=overwrite)
    assert (contents(folder) if overwrite else folder.exists()) == (before if overwrite else False)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
def test_a_full_disk_is_said_in_one_sentence_and_nothing_is_left(tmp_path, monkeypatch, number):
    class Full(io.FileIO):
        def write(self, data):
            if self.tell() > 4000:
                raise OSError(number, "No space left on device")
            return super().write(data)

    opened = type(tmp_path).open
    monkeypatch.setattr(
        writer.Path,
        "open",
        lambda path, mode="r", **how: Full(path, "x") if mode == "xb" else opened(path, mode, **how),
    )
    with pytest.raises(OSError, match=r"no room left in .*x after 1 samples; nothing was kept of them"):
        write_encoded(items(5, size=2000), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_writing_nothing_is_refused_and_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="no samples were given to write into"):
        write_shards([], tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_two_samples_of_one_key_are_refused(tmp_path):
    with pytest.raises(ValueError, match="two samples have the key k0; keys must be unique"):
        write_encoded([*items(1), *items(1)], tmp_path / "x")


@pytest.mark.parametrize("split", ["", "a-b", "../x", "a.b"])
def test_a_split_that_cannot_be_part_of_a_name_is_refused(tmp_path, split):
    with pytest.raises(ValueError, match="a split must match"):
        write_encoded(items(1), tmp_path / "x", split=split)


@pytest.mark.parametrize("limits", [{"samples_per_shard": 0}, {"max_bytes": 0}])
def test_limits_below_one_are_refused(tmp_path, limits):
    with pytest.raises(ValueError, match="samples_per_shard and max_bytes must be positive"):
        write_encoded(items(1), tmp_path / "x", **limits)
