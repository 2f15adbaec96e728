import errno
import pickle

import numpy as np
import pytest
import torch

from raccoon_datamodules import cache_store
from raccoon_datamodules.cache_store import CacheReader, PackWriter, create_cache, key_of


@pytest.fixture
def folder(tmp_path):
    create_cache(tmp_path / "cache", "float16")
    return tmp_path / "cache"


def tensors(count=20):
    generator = torch.Generator().manual_seed(0)
    kinds = (torch.float16, torch.bfloat16, torch.float32)
    made = [torch.randn(i % 5 + 1, 3, generator=generator).to(kinds[i % 3]) for i in range(count)]
    made += [torch.arange(12, dtype=torch.int16).reshape(3, 4), torch.tensor(7, dtype=torch.int32), torch.zeros(0, 2)]
    return {key_of("test", i): tensor for i, tensor in enumerate(made)}


@pytest.mark.parametrize("max_bytes", [1, 100, 1 << 20])
def test_tensors_come_back_bit_for_bit(folder, max_bytes):
    made = tensors()
    with PackWriter(folder, max_bytes=max_bytes) as writer:
        for i, (key, tensor) in enumerate(made.items()):
            writer.add(key, tensor, pack=i % 2 == 0)
    reader = CacheReader(folder)
    assert (len(reader), writer.num_tensors, reader.num_bytes) == (len(made), len(made), writer.num_bytes)
    for found, wanted in zip(reader.get(list(made)), made.values(), strict=True):
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        assert torch.equal(found, wanted)
    assert all(reader.has(list(made)))


def test_what_was_not_written_is_not_there(folder):
    with PackWriter(folder) as writer:
        writer.add(key_of("a", 1), torch.zeros(2))
    reader = CacheReader(folder)
    assert reader.has([key_of("a", 1), key_of("a", 2)]) == [True, False]
    assert reader.get([key_of("a", 1), key_of("a", 2)]) is None
    assert reader.get([]) == []


def test_an_empty_cache_has_nothing(folder):
    reader = CacheReader(folder)
    assert (len(reader), reader.has([key_of("a")]), reader.get([key_of("a")])) == (0, [False], None)


def test_every_part_of_a_key_counts():
    keys = [key_of(*p) for p in (("a", "b"), ("ab",), ("a", "b", 0), ("a", "b", "0"), ("a", 0, "b"), ("b", "a"))]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 16 for key in keys)


def test_another_schema_makes_other_keys(monkeypatch):
    before = key_of("a")
    monkeypatch.setattr(cache_store, "CACHE_SCHEMA", 2)
    assert key_of("a") != before


def test_writers_share_a_folder(folder):
    with PackWriter(folder) as first, PackWriter(folder) as second:
        first.add(key_of("first"), torch.ones(1))
        second.add(key_of("second"), torch.ones(2))
        second.add(key_of("first"), torch.ones(1))
    assert CacheReader(folder).has([key_of("first"), key_of("second")]) == [True, True]


def test_what_was_added_before_an_interrupt_is_kept(folder):
    def run():
        with PackWriter(folder) as writer:
            writer.add(key_of("a"), torch.ones(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert CacheReader(folder).has([key_of("a")]) == [True]


def test_an_unfinished_pack_is_not_read(folder):
    writer = PackWriter(folder)
    writer.add(key_of("a"), torch.ones(1))
    assert len(CacheReader(folder)) == 0
    (folder / "pack-0123.bin").write_bytes(b"a pack whose index was never written")
    assert len(CacheReader(folder)) == 0
    writer.flush()
    assert len(CacheReader(folder)) == 1


def test_a_full_disk_is_one_sentence_and_leaves_what_was_finished(folder, monkeypatch):
    class Full:
        def __init__(self, inner):
            self.inner = inner

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        def __getattr__(self, name):
            return getattr(self.inner, name)

    writer = PackWriter(folder)
    writer.add(key_of("a"), torch.ones(1))
    writer.flush()
    writer._open()
    monkeypatch.setattr(writer, "_file", Full(writer._file))
    with pytest.raises(OSError, match="no room left to write"):
        writer.add(key_of("b"), torch.ones(1))
    assert CacheReader(folder).has([key_of("a"), key_of("b")]) == [True, False]
    assert not list(folder.glob(".*"))


def test_a_reader_crosses_to_another_process(folder):
    with PackWriter(folder) as writer:
        writer.add(key_of("a"), torch.ones(3))
    reader = CacheReader(folder)
    reader.get([key_of("a")])
    assert torch.equal(pickle.loads(pickle.dumps(reader)).get([key_of("a")])[0], torch.ones(3))
    reader.close()
    assert torch.equal(reader.get([key_of("a")])[0], torch.ones(3))


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_bytes_that_are_not_those_written_are_not_handed_out(folder, damage):
    with PackWriter(folder) as writer:
        writer.add(key_of("a"), torch.ones(30))
    reader = CacheReader(folder)
    (pack,) = folder.glob("*.bin")
    data = pack.read_bytes()
    pack.unlink()
    if damage != "gone":
        pack.write_bytes(bytes([data[0] ^ 1]) + data[1:] if damage == "flipped" else data[:50])
    assert reader.get([key_of("a")]) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: a.update(offset=a["offset"] + 1000), "points past the end"),
        (lambda a: a.update(crc32=a["crc32"][:0]), "columns differ in length"),
        (lambda a: a.pop("layouts"), "layouts"),
        (lambda a: a.update(layouts=np.frombuffer(b'[["object", [1], false]]', dtype=np.uint8)), "object"),
    ],
    ids=["offset", "columns", "no layouts", "dtype"],
)
def test_a_damaged_index_is_one_sentence(folder, change, reason):
    with PackWriter(folder) as writer:
        writer.add(key_of("a"), torch.ones(3))
    (path,) = folder.glob("*.npz")
    arrays = dict(np.load(path))
    change(arrays)
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=rf"index .*npz is damaged \(.*{reason}.*\); delete pack-.*raccoon cache"):
        CacheReader(folder)


def test_garbage_in_place_of_an_index_is_one_sentence(folder):
    (folder / "pack-00.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(ValueError, match="is damaged"):
        CacheReader(folder)


def test_a_folder_that_is_no_cache_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no cache in .*`raccoon cache --config RECIPE --out"):
        CacheReader(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON"),
        ('{"format": "other"}', "is not that of a cache"),
        ('{"format": "raccoon-cache", "schema": 99, "dtype": "float16"}', "has schema 99 and dtype 'float16'"),
        ('{"format": "raccoon-cache", "schema": 1, "dtype": "int8"}', "has schema 1 and dtype 'int8'"),
    ],
)
def test_a_manifest_of_something_else_is_refused(folder, text, message):
    (folder / "cache.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        CacheReader(folder)


def test_a_folder_keeps_its_dtype(folder):
    create_cache(folder, "float16")
    with pytest.raises(ValueError, match="holds float16, not float32; write float32 into another folder"):
        create_cache(folder, "float32")
    with pytest.raises(ValueError, match="dtype must be one of float16, bfloat16, float32, got 'int8'"):
        create_cache(folder, "int8")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="a cache is a folder"):
        create_cache(tmp_path / "file", "float16")


def test_a_tensor_of_a_kind_that_is_not_kept_is_refused(folder):
    with pytest.raises(TypeError, match=r"a cache keeps float16, .* got float64"):
        PackWriter(folder).add(key_of("a"), torch.zeros(1, dtype=torch.float64))
