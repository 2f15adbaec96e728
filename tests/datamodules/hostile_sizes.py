"""Members that claim gigabytes, and what check and loader make of them: run as a script by ``test_hostile_sizes.py``.

    python hostile_sizes.py FOLDER

writes two sound samples and one for each claim into FOLDER, reads them with a check and with a loader under a bound on
memory, and prints a line of JSON: what each said of each sample, and by how much the process grew.
"""

import bz2
import io
import json
import lzma
import resource
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from raccoon_datamodules.examine.check import check_shards
from raccoon_datamodules.faults import FaultLog
from raccoon_datamodules.loader import OrderedLoader, OrderedSamples, Place, endless
from raccoon_datamodules.masks import boxes_of
from raccoon_datamodules.order import SampleOrder, SampleRef
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.sample import ObjectRecord, VplmSample, encode
from raccoon_datamodules.sources import ShardSource
from raccoon_datamodules.video import Video
from raccoon_datamodules.writer import write_encoded

MEMORY = 300 << 20
BOMB = 400 << 20
Members = dict[str, bytes]


def sound(key: str) -> Members:
    frames = np.random.default_rng(zlib.crc32(key.encode())).integers(0, 255, (4, 16, 16, 3), dtype=np.uint8)
    video = Video.from_frames(frames, 8.0)
    mask = np.zeros((4, 16, 16), np.uint8)
    mask[:, 2:9, 3:8] = 1
    thing = ObjectRecord("1", "Thing", "thing", "A thing.", mask, boxes_of(mask), video)
    return encode(VplmSample(key, video, Paragraph("A scene.", (ObjectDescription("Thing", "A thing."),)), (thing,)))


def with_meta(data: Members, **fields: object) -> Members:
    return {**data, "meta.json": json.dumps({**json.loads(data["meta.json"]), **fields}).encode()}


def with_mask(
    data: Members, *, method: int = zipfile.ZIP_DEFLATED, claim: int = 128, body: bytes = bytes(128)
) -> Members:
    """A mask whose header claims ``claim`` bits in bytes."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({claim},), }}".encode().ljust(117) + b"\n"
    bits = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body
    shape = io.BytesIO()
    np.save(shape, np.array([4, 16, 16], np.int64))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("shape.npy", shape.getvalue())
        archive.writestr("bits.npy", bits)
    return {**data, "mask-1.npz": out.getvalue()}


def bomb(data: Members, method: int, packed: bytes) -> Members:
    """A mask of which the archive says that it has 256 bytes, and that unpacks to far more."""
    raw = bytearray(with_mask(data, method=zipfile.ZIP_STORED)["mask-1.npz"])
    name = b"bits.npy"
    local, central = raw.index(name) - 30, raw.rindex(name) - 46
    start = local + 38
    old = struct.unpack_from("<I", raw, local + 18)[0]
    for place, shift in ((local, 0), (central, 2)):
        struct.pack_into("<H", raw, place + 8 + shift, method)
        struct.pack_into("<II", raw, place + 18 + shift, len(packed), 256)
    raw[start : start + old] = packed
    end = raw.rindex(b"PK\x05\x06")
    struct.pack_into("<I", raw, end + 16, struct.unpack_from("<I", raw, end + 16)[0] + len(packed) - old)
    return {**data, "mask-1.npz": bytes(raw)}


def with_announced(data: Members, member: str, count: int) -> Members:
    """A clip of a few hundred bytes that announces so many frames in one chunk."""
    clip = bytearray(data[member])
    for name, place, value in ((b"stsz", 4, (1, count)), (b"stts", 8, (count,)), (b"stsc", 12, (count,))):
        struct.pack_into(f">{len(value)}I", clip, clip.index(name) + 4 + place, *value)
    return {**data, member: bytes(clip)}


def packed_lzma() -> bytes:
    """In the form in which archives hold it, with a dictionary of 1.5 GB announced."""
    found = lzma.compress(bytes(1000), format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 4096}])
    return struct.pack("<BBHBI", 9, 4, 5, 93, 3 << 29) + found


LONG = b'{"description": "' + b"x" * (40 << 20) + b'", "objects": []}'
CLAIMS = {
    "frames": lambda data: with_meta(data, num_frames=1 << 31),
    "frames-within": lambda data: with_meta(data, num_frames=16_000_000),
    "pixels": lambda data: with_meta(data, height=10**6, width=10**6),
    "volume": lambda data: with_meta(data, num_frames=200_000, height=8192, width=8192),
    "digits": lambda data: with_meta(data, num_frames=10**4000),
    "objects": lambda data: with_meta(data, objects=[f"o{i}" for i in range(100_000)]),
    "times": lambda data: with_meta(data, timestamps=list(range(2_500_000))),
    "array": lambda data: with_mask(data, claim=1 << 40),
    "bzip2": lambda data: bomb(data, zipfile.ZIP_BZIP2, bz2.compress(bytes(BOMB))),
    "lzma": lambda data: bomb(data, zipfile.ZIP_LZMA, packed_lzma()),
    "entries": lambda data: {**data, "mask-1.npz": bytes(8 << 20) + data["mask-1.npz"]},
    "clip": lambda data: with_announced(data, "video.mp4", 20_000_000),
    "inpainted": lambda data: with_announced(data, "inpainted-1.mp4", 20_000_000),
    "text": lambda data: {**data, "paragraph.json": b'{"paragraph": %b, "phrasings": []}' % LONG},
    "record": lambda data: {**data, "object-1.json": LONG[: 20 << 20]},
    "lists": lambda data: {**data, "edits.json": b"[" + b"[]," * 6_000_000 + b"[]]"},
    "depth": lambda data: {**data, "paragraph.json": b"[" * 1_000_000},
}


def samples() -> Iterator[tuple[str, Members]]:
    for key in ("sound-1", *CLAIMS, "sound-2"):
        data = sound(key)
        yield key, CLAIMS[key](data) if key in CLAIMS else data


def load(source: ShardSource, ref: SampleRef, ordinal: int) -> str:
    view = source.view(ref.shard, ref.sample)
    view.paragraphs()
    for pictures in (view.clip([0, 2]), view.inpainted("1", [0, 2]), view.mask("1", [0, 2])):
        assert len(pictures) == 2
    view.object("1")
    return view.key


def main(folder: Path) -> None:
    write_encoded(samples(), folder)
    source = ShardSource(folder)
    # Imports and decoders are in use before the bound is set.
    load(source, SampleOrder([1], seed=0, window_shards=1).locate(0), 0)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, in_use + MEMORY))
    report = check_shards(folder)
    by_check: dict[str, list[str]] = {}
    for problem in (problem for problem in report.problems if problem.severity == "error"):
        by_check.setdefault(str(problem.key), []).append(f"{problem.member}: {problem.reason}")
    order = SampleOrder(source.shard_sizes, seed=3, window_shards=1)
    quarantine = folder / "bad.jsonl"
    log = FaultLog(quarantine, max_bad=1000)
    loader = OrderedLoader(
        OrderedSamples([source], order, load, seed=3),
        lambda loaded: [one.value for one in loaded],
        lambda: islice(endless(0, 2, Place()), len(order) // 2),
        log=log,
    )
    loaded = [key for batch in loader for key in batch]
    faults = [json.loads(line) for line in quarantine.read_text().splitlines()]
    by_loader = {fault["key"]: f"{fault['member']}: {fault['reason']}" for fault in faults}
    print(json.dumps({"check": by_check, "bad": report.num_bad_samples, "loader": by_loader, "loaded": loaded}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
