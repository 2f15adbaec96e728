"""A shard as a file: there, of the right size and hash, and its tar holding what the index says where it says so."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from raccoon_datamodules.examine.report import Problem
from raccoon_datamodules.faults import attempt
from raccoon_datamodules.index import INDEX_NAME
from raccoon_datamodules.shard import Shard, tar_headers


def check_folder(folder: Path, listed: set[str]) -> Iterator[Problem]:
    """What lies in a folder of shards beside those that are ``listed`` in its index."""
    for path in sorted(folder.glob("*.tar")):
        if path.name not in listed:
            yield Problem("note", path.name, None, None, "is not in the index and will never be read")
    for path in sorted(folder.glob(".writing-*")):
        yield Problem("note", path.name, None, None, "is left from an interrupted writer; it may be removed")


def check_tar(path: Path, shard: Shard) -> list[Problem]:
    """Compare a shard with its entry in the index."""
    if not path.is_file():
        return [_error(shard, f"is listed in {INDEX_NAME} but not in the folder")]
    found = []
    size = path.stat().st_size
    if size != shard.size:
        found.append(_error(shard, f"must have {shard.size} bytes, has {size}: it was cut off or replaced"))
    digest = attempt(lambda: _digest(path))
    if isinstance(digest, tuple):
        return [*found, _error(shard, f"cannot be read: {digest[1]}")]
    if digest != shard.sha256:
        found.append(_error(shard, f"its sha256 is not the one in {INDEX_NAME}: its bytes have changed"))
    failure = attempt(lambda: found.extend(_compare(path, shard)))
    if failure is not None:
        found.append(_error(shard, f"is not a readable tar: {failure[1]}"))
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()


def _compare(path: Path, shard: Shard) -> Iterator[Problem]:
    names = [f"{shard.key(i)}.{suffix}" for i in range(len(shard)) for suffix in shard.suffixes_of(i)]
    indexed = dict(zip(names, zip(shard.offset.tolist(), shard.length.tolist(), strict=True), strict=True))
    for info in tar_headers(path):
        name = info.name.removeprefix("./")
        if not info.isreg():
            yield Problem("note", shard.name, None, name, "is not a regular file; it is never read")
            continue
        where = indexed.pop(name, None)
        if where is None:
            yield _error(shard, "is in the tar but not in the index", name)
        elif where != (info.offset_data, info.size):
            yield _error(shard, f"lies at {(info.offset_data, info.size)}, the index says {where}", name)
    for name in indexed:
        yield _error(shard, "is in the index but not in the tar", name)


def _error(shard: Shard, reason: str, member: str | None = None) -> Problem:
    return Problem("error", shard.name, None, member, reason)
