"""Damaged tars and indexes, for `fuzzing.py`."""

import base64
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
from damage_members import Rng, flip, patched

from raccoon_datamodules.index import Index


def any_tar(folder: Path, rng: Rng) -> Path:
    tars = sorted(folder.glob("*.tar"))
    return tars[rng.integers(len(tars))]


def disk_flipped_bits(folder: Path, rng: Rng) -> None:
    path = any_tar(folder, rng)
    path.write_bytes(flip(path.read_bytes(), rng))


def disk_truncated(folder: Path, rng: Rng) -> None:
    path = any_tar(folder, rng)
    path.write_bytes(path.read_bytes()[: rng.integers(path.stat().st_size)])


def disk_overwritten_block(folder: Path, rng: Rng) -> None:
    path = any_tar(folder, rng)
    data = bytearray(path.read_bytes())
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 9000))
    length = min(length, len(data) - start)
    data[start : start + length] = bytes(length) if rng.random() < 0.5 else rng.bytes(length)
    path.write_bytes(data)


def disk_shifted(folder: Path, rng: Rng) -> None:
    path = any_tar(folder, rng)
    data = path.read_bytes()
    place, length = int(rng.integers(len(data))), int(rng.integers(1, 1025))
    path.write_bytes(
        data[:place] + (rng.bytes(length) + data[place:] if rng.random() < 0.5 else data[place + length :])
    )


def disk_swapped_members(folder: Path, rng: Rng) -> None:
    """The bytes of two members of one suffix change places, as far as they fit."""
    index = Index.load(folder)
    places = [(shard.name, member) for shard in index.shards for i in range(len(shard)) for member in shard.members(i)]
    first = places[rng.integers(len(places))]
    others = [one for one in places if one[1].suffix == first[1].suffix and one != first]
    second = others[rng.integers(len(others))]
    data = {name: bytearray((folder / name).read_bytes()) for name in {first[0], second[0]}}
    length = min(first[1].length, second[1].length)
    a, b = (bytes(data[name][m.offset : m.offset + length]) for name, m in (first, second))
    data[first[0]][first[1].offset : first[1].offset + length] = b
    data[second[0]][second[1].offset : second[1].offset + length] = a
    for name, value in data.items():
        (folder / name).write_bytes(value)


def disk_swapped_shards(folder: Path, rng: Rng) -> None:
    tars = sorted(folder.glob("*.tar"))
    a, b = (tars[i] for i in rng.permutation(len(tars))[:2])
    first = a.read_bytes()
    shutil.copy(b, a)
    b.write_bytes(first)


def disk_vanished(folder: Path, rng: Rng) -> None:
    any_tar(folder, rng).unlink()


def disk_emptied(folder: Path, rng: Rng) -> None:
    any_tar(folder, rng).write_bytes(b"")


def disk_folder_instead(folder: Path, rng: Rng) -> None:
    path = any_tar(folder, rng)
    path.unlink()
    path.mkdir()


def disk_index_flipped(folder: Path, rng: Rng) -> None:
    path = folder / "index.json"
    data = path.read_bytes()
    # Beyond a single flip not in the checksum at the end, without which the index would pass for somebody else's.
    path.write_bytes(flip(data, rng, most=1) if rng.random() < 0.5 else flip(data[:-40], rng) + data[-40:])


def disk_index_truncated(folder: Path, rng: Rng) -> None:
    path = folder / "index.json"
    path.write_bytes(path.read_bytes()[: rng.integers(path.stat().st_size)])


def hostile_index(folder: Path, rng: Rng) -> None:
    """Numbers of the columns are replaced and the file is written as the writer would, checksum and all."""
    index = Index.load(folder)
    value = index.to_json()
    shard = value["shards"][rng.integers(len(value["shards"]))]
    column = shard["members"][str(rng.choice(["count", "suffix", "offset", "length", "crc32"]))]
    numbers = np.frombuffer(base64.b64decode(column["base64"]), "<" + column["dtype"]).astype("<u8")
    places = rng.integers(0, len(numbers), rng.integers(1, 5))
    numbers[places] = rng.choice(
        np.array([0, 1, 255, 1 << 20, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1], dtype="<u8"), len(places)
    )
    column.update(dtype="u8", base64=base64.b64encode(numbers.tobytes()).decode())
    if rng.random() < 0.5:
        shard["size"] = int(rng.choice([0, 1 << 20, 1 << 62]))
    (folder / "index.json").write_text(json.dumps(value))


def hostile_tar(folder: Path, rng: Rng) -> None:
    """Headers of a tar that is then indexed anew: absurd sizes, other kinds of members, extended headers."""
    path = any_tar(folder, rng)
    data = path.read_bytes()
    which = int(rng.integers(5))
    if which == 0:
        blocks = [i for i in range(0, len(data) - 512, 512) if data[i + 257 : i + 262] == b"ustar"]
        for start in rng.choice(blocks, min(3, len(blocks)), replace=False):
            header = bytearray(flip(data[start : start + 512], rng))
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            data = patched(data, int(start), bytes(header))
        path.write_bytes(data)
        return
    info = tarfile.TarInfo("evil.video.mp4")
    info.size = int(rng.choice([1 << 33, 1 << 50, 1 << 60]))
    kinds = (
        tarfile.REGTYPE,
        tarfile.GNUTYPE_SPARSE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.XHDTYPE,
        tarfile.LNKTYPE,
        tarfile.XGLTYPE,
    )
    info.type = kinds[rng.integers(len(kinds))]
    if which == 1:
        path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + data)
    elif which == 2:
        info.pax_headers = {
            "path": "../" * 100 + "x",
            "size": "99999999999999999999",
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
        }
        path.write_bytes(info.tobuf(tarfile.PAX_FORMAT) + data)
    elif which == 3:
        info.size = 100_000
        path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"9999999999 path=x\n" * 5556 + data)
    else:
        path.write_bytes(data[: rng.integers(len(data))])


DISK_DAMAGES = {
    f"disk, {work.__name__.removeprefix('disk_').replace('_', ' ')}": work
    for work in (
        disk_flipped_bits,
        disk_truncated,
        disk_overwritten_block,
        disk_shifted,
        disk_swapped_members,
        disk_swapped_shards,
        disk_vanished,
        disk_emptied,
        disk_folder_instead,
        disk_index_flipped,
        disk_index_truncated,
    )
}
