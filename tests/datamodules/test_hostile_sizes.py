"""What claims gigabytes is refused for a reason in words, by check and loader alike, within 300 MB of memory."""

import io
import json
import os
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raccoon_datamodules import limits, mask_files, video_bytes, video_claims
from raccoon_datamodules.exchange import importing, report
from raccoon_datamodules.exchange.importing import import_messages
from raccoon_datamodules.index import Index
from raccoon_datamodules.masks import read_masks, unpack
from raccoon_datamodules.members import MemberError, dump_json, load_json
from raccoon_datamodules.npz import read_member
from raccoon_datamodules.sample import encode
from raccoon_datamodules.shard import index_tar
from raccoon_datamodules.sources import ShardSource
from raccoon_datamodules.video import Video, decode_clip, encode_clip, probe

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

CLIP_IS_LARGER = "a clip has at most 262144 frames, 16384 pixels a side and 67108864 a frame, got "
REASONS = {
    "frames": f"{CLIP_IS_LARGER}2147483648 frames",
    "frames-within": f"{CLIP_IS_LARGER}16000000 frames",
    "pixels": f"{CLIP_IS_LARGER}4 frames of 1000000x1000000",
    "volume": "the clip must be [8192, 8192] (height, width), it is [16, 16]",
    "digits": f"{CLIP_IS_LARGER}10^15 or more frames",
    "objects": "a sample has at most 4096 objects, got 100000",
    "times": "meta.json: must have at most 16.8 MB, has 21.4 MB",
    "array": "must hold whole numbers [N] and nothing else, it claims uint8 [1099511627776]",
    "bzip2": "bits.npy must be stored or deflated and not encrypted",
    "lzma": "bits.npy must be stored or deflated and not encrypted",
    "entries": "mask-1.npz: must be a bit-packed npz without pickles: it has 8.4 MB, at most 1.1 MB expected",
    "clip": "video.mp4: cannot be decoded: the clip is damaged: 4",
    "inpainted": "inpainted-1.mp4: cannot be decoded: the clip is damaged: 4",
    "text": "paragraph.json: must have at most 16.8 MB, has 41.9 MB",
    "record": "object-1.json: must have at most 16.8 MB, has 21.0 MB",
    "lists": "edits.json: must have at most 16.8 MB, has 18.0 MB",
    "depth": "paragraph.json: must be JSON in UTF-8: maximum recursion depth exceeded",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    if not Path("/proc/self/statm").exists():
        pytest.skip("bounds its memory as Linux does")
    done = subprocess.run(
        [sys.executable, str(HERE / "hostile_sizes.py"), str(tmp_path_factory.mktemp("claims") / "train")],
        capture_output=True,
        text=True,
        timeout=600,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("", "kernels", "datamodules")),
            "OMP_NUM_THREADS": "1",
        },
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("claim", REASONS)
def test_a_claim_is_a_bad_sample_of_a_check(found, claim):
    assert any(REASONS[claim] in reason for reason in found["check"][claim]), found["check"][claim]


# The tasks of a run do not read the written edits.
@pytest.mark.parametrize("claim", [name for name in REASONS if name != "lists"])
def test_a_claim_is_a_bad_sample_of_a_loader(found, claim):
    assert REASONS[claim] in found["loader"][claim]


def test_nothing_else_is_bad(found):
    assert found["bad"] == len(REASONS)
    assert set(found["check"]) == set(REASONS)
    assert set(found["loaded"]) == {"sound-1", "sound-2", "lists"}


def test_an_index_that_claims_a_member_of_a_terabyte_gives_a_bad_sample(make_shards, tmp_path):
    folder = make_shards(tmp_path / "a", 2)
    index = Index.load(folder)
    (shard,) = index.shards
    lengths = shard.length.astype(np.uint64)
    lengths[1] = 1 << 40
    wrong = replace(shard, size=1 << 41, length=lengths)
    Index(index.split, (wrong,), index.base).save(folder)
    source = ShardSource(folder)
    with pytest.raises(MemberError, match=r"paragraph\.json: the index says that it has 1099\.5 GB, at most 4\.3 GB"):
        source.read(0, 0)
    assert source.view(0, 1).key == "clip-0001"


def test_a_tar_whose_member_is_too_large_is_not_indexed(make_shards, tmp_path, monkeypatch):
    folder = make_shards(tmp_path / "a", 1)
    monkeypatch.setattr("raccoon_datamodules.shard.MAX_MEMBER_BYTES", 100)
    with pytest.raises(ValueError, match=r"clip-0000\.meta\.json has \d+ bytes, at most 100 bytes"):
        index_tar(folder / "vplm-train-000000.tar")


def test_what_is_too_large_to_be_read_is_not_written_either(make_sample, monkeypatch):
    with pytest.raises(ValueError, match=r"x\.json must have at most 16\.8 MB, it would have 17\.0 MB; cut the clip"):
        dump_json("x" * 17_000_000, "x.json")
    monkeypatch.setattr("raccoon_datamodules.sample.MAX_DECODED_BYTES", 1000)
    with pytest.raises(ValueError, match=r"a clip \[4, 16, 16\] takes more than 1000 bytes in memory; cut it"):
        encode(make_sample())


def test_a_record_of_just_the_bound_is_read():
    assert len(load_json(dump_json("x" * (limits.MAX_RECORD_BYTES - 3), "x.json"), "x.json")) > 16_000_000


def test_a_reason_does_not_quote_a_whole_file():
    error = MemberError("m" * 10_000, "x" * 10_000)
    assert len(str(error)) < 2100


def test_an_encrypted_or_foreign_archive_is_not_opened():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a", "x")
    raw = bytearray(out.getvalue())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    with zipfile.ZipFile(io.BytesIO(raw)) as archive, pytest.raises(ValueError, match="and not encrypted"):
        read_member(archive, "a", 10)


def test_frames_that_would_not_fit_into_memory_are_not_made_room_for(monkeypatch):
    data = encode_clip(Video.from_frames(np.zeros((4, 16, 16, 3), np.uint8), 8.0))
    monkeypatch.setattr(video_bytes, "MAX_DECODED_BYTES", 2000)
    with pytest.raises(ValueError, match=r"4 frames of the clip would take 3072 bytes in memory, more than 2000 bytes"):
        decode_clip(data)
    assert decode_clip(data, frame_indices=[0, 3]).num_frames == 2


def test_a_video_of_enormous_pictures_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    path.write_bytes(encode_clip(Video.from_frames(np.zeros((2, 32, 48, 3), np.uint8), 8.0)))
    assert probe(path).width == 48
    monkeypatch.setattr(video_claims, "MAX_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"a\.mp4 claims frames of 48x32; more than 1000 pixels are not read"):
        probe(path)
    with pytest.raises(ValueError, match="the clip claims frames of 48x32"):
        decode_clip(path.read_bytes())


@pytest.mark.parametrize("read", [probe, Video.read], ids=["probe", "read"])
def test_a_video_file_cannot_announce_more_frames_than_it_has_bytes(tmp_path, read):
    clip = bytearray(encode_clip(Video.from_frames(np.zeros((4, 32, 32, 3), np.uint8), 8.0)))
    struct.pack_into(">II", clip, clip.index(b"stsz") + 8, 1, 20_000_000)
    path = tmp_path / "a.mp4"
    path.write_bytes(clip)
    with pytest.raises(ValueError, match=r"a\.mp4 is damaged: \d+ bytes cannot hold the 20000000 frames that it ann"):
        read(path)


def boxes(*parts):
    return b"".join(struct.pack(">I4s", 8 + len(body), name) + body for name, body in parts)


@pytest.mark.parametrize(
    "track",
    [
        boxes((b"stz2", struct.pack(">III", 0, 4, 1 << 30))),
        boxes((b"free", b"x" * 5), (b"stsz", struct.pack(">III", 0, 1, 1 << 30))),
        # A long size, and one that is cut off.
        struct.pack(">I4sQ", 1, b"stsz", 28) + struct.pack(">III", 0, 1, 1 << 30),
        struct.pack(">I4s", 999, b"stsz") + struct.pack(">III", 0, 1, 1 << 30),
        struct.pack(">I4s", 0, b"stsz") + struct.pack(">III", 0, 1, 1 << 30),
    ],
    ids=["compact", "second", "long", "cut off", "to the end"],
)
def test_announced_frames_are_found_wherever_they_stand(track):
    stbl = boxes((b"moov", boxes((b"trak", boxes((b"mdia", boxes((b"minf", boxes((b"stbl", track))))))))))
    with pytest.raises(ValueError, match="cannot hold the 1073741824 frames"):
        video_claims.check_counts(stbl)


def test_announced_fragments_are_found():
    run = (b"trun", struct.pack(">II", 0, 1 << 30))  # codespell:ignore trun
    with pytest.raises(ValueError, match="cannot hold the 1073741824 frames"):
        video_claims.check_counts(boxes((b"moof", boxes((b"traf", boxes(run))))))


def test_the_same_words_within_pictures_mean_nothing():
    video_claims.check_counts(boxes((b"mdat", boxes((b"stsz", struct.pack(">III", 0, 1, 1 << 30))))))
    video_claims.check_counts(b"")
    video_claims.check_counts(struct.pack(">I4s", 3, b"moov") + bytes(100))


def test_a_mask_of_more_than_fits_is_not_unpacked(monkeypatch):
    monkeypatch.setattr("raccoon_datamodules.masks.MAX_DECODED_BYTES", 100)
    arrays = {"bits": np.zeros(32, np.uint8), "shape": np.array([1, 16, 16])}
    with pytest.raises(ValueError, match=r"a mask of shape \[1, 16, 16\] would take more than 100 bytes in memory"):
        unpack(arrays)


def npy(shape, body=b""):
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def archive_of(value):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mask.npy", value)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.npy", npy((1 << 20, 1 << 10, 1 << 10)), r"it claims uint8 \[1048576, 1024, 1024\]"),
        ("a.npz", archive_of(npy((1 << 20, 1 << 10, 1 << 10))), r"it claims uint8 \[1048576, 1024, 1024\]"),
        (
            "a.npz",
            archive_of(npy((1 << 26,), bytes(1 << 26))),
            "mask.npy unpacks to 67108992 bytes, at most 10000000 e",
        ),
        ("a.npy", npy((1 << 26,), bytes(1 << 26)), "it has more than the 10000000 bytes that are expected"),
    ],
    ids=["npy", "npz", "bomb", "long"],
)
def test_a_mask_file_that_claims_too_much_is_refused(tmp_path, monkeypatch, name, data, reason):
    (tmp_path / name).write_bytes(data)
    monkeypatch.setattr(mask_files, "MAX_DECODED_BYTES", 10_000_000)
    video = Video.from_frames(np.zeros((2, 16, 16, 3), np.uint8), 8.0)
    tracemalloc.start()
    with pytest.raises(ValueError, match=reason):
        read_masks(tmp_path / name, video=video)
    assert tracemalloc.get_traced_memory()[1] < 30_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("side", [9000, 60_000])
def test_a_mask_image_that_claims_too_many_pixels_is_refused(tmp_path, side):
    head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    packed = b"IDAT" + zlib.compress(bytes(1000))
    png += struct.pack(">I", len(packed) - 4) + packed + struct.pack(">I", zlib.crc32(packed))
    (tmp_path / "a.png").write_bytes(png)
    video = Video.from_frames(np.zeros((1, 16, 16, 3), np.uint8), 8.0)
    with pytest.raises(ValueError, match="cannot be read, it is damaged or no image: "):
        read_masks(tmp_path / "a.png", video=video)


def test_a_line_that_is_too_long_is_left_out_and_the_next_is_read(tmp_path, monkeypatch):
    (tmp_path / "clip.mp4").write_bytes(encode_clip(Video.from_frames(np.zeros((2, 32, 32, 3), np.uint8), 8.0)))
    answer = {"role": "assistant", "content": "Video Description: A dog."}
    line = json.dumps({"messages": [answer], "videos": ["clip.mp4"]})
    monkeypatch.setattr(importing, "MAX_LINE_BYTES", 1000)
    monkeypatch.setattr(importing, "_PIECE", 100)
    (tmp_path / "train.jsonl").write_text(f"{line}\n{'x' * 5000}\n{line}")
    done = import_messages(tmp_path / "train.jsonl", tmp_path / "out")
    assert (done.num_read, done.num_written, done.num_bad) == (3, 2, 1)
    (bad,) = (problem for problem in done.problems if problem.severity == "bad")
    assert str(bad).endswith("train.jsonl, line 2: a line must have at most 1000 bytes, this one has more")


def test_a_file_that_is_too_large_is_not_imported(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(bytes(100))
    with pytest.raises(ValueError, match=r"a\.mp4 has 100 bytes, at most 10 bytes are read"):
        report.read_bytes(path, 10)
