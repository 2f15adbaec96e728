"""Samples to shards: deterministic tars and their index, all of it or nothing.

The same samples give the same files, byte for byte: no times, no owners, POSIX headers. Everything is written into a
hidden folder beside the result and moved at the end; an interrupt, a full disk or a bad sample leaves what was there.
"""

import hashlib
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from raccoon_datamodules.atomic import FULL
from raccoon_datamodules.index import INDEX_NAME, Index, check_split
from raccoon_datamodules.members import check_key
from raccoon_datamodules.sample import VplmSample, encode
from raccoon_datamodules.shard import Member, Shard

_BLOCK = 512
# GNU tar and Python fill the last record up to this.
_RECORD = 20 * _BLOCK

Progress = Callable[[int], None]


def shard_name(split: str, number: int) -> str:
    """The name of a shard, for example ``vplm-train-000000.tar``."""
    return f"vplm-{split}-{number:06d}.tar"


def write_shards(
    samples: Iterable[VplmSample],
    folder: str | Path,
    *,
    split: str = "train",
    samples_per_shard: int = 1000,
    max_bytes: int = 1 << 30,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Index:
    """Write samples as shards with their index; ``progress`` is called with the number written so far.

    A shard ends at ``samples_per_shard`` samples or before it would grow past ``max_bytes`` (a single larger sample
    has a shard to itself). Raises as `write_encoded` does, and as `sample.encode` for a sample that cannot be stored.
    """
    return write_encoded(
        ((sample.key, encode(sample)) for sample in samples),
        folder,
        split=split,
        samples_per_shard=samples_per_shard,
        max_bytes=max_bytes,
        overwrite=overwrite,
        progress=progress,
    )


def write_encoded(
    items: Iterable[tuple[str, Mapping[str, bytes]]],
    folder: str | Path,
    *,
    split: str = "train",
    samples_per_shard: int = 1000,
    max_bytes: int = 1 << 30,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Index:
    """Write (key, members) of samples that are already encoded, for example by a pool's ordered ``imap``.

    Raises:
        FileExistsError: if the folder holds shards of this split or an index, and ``overwrite`` is not set.
        ValueError: if there are no samples, a key is not allowed or comes twice, or the folder holds another split.
        OSError: if the disk is full or the folder cannot be written.
    """
    folder = Path(folder)
    check_split(split)
    if samples_per_shard < 1 or max_bytes < 1:
        raise ValueError(f"samples_per_shard and max_bytes must be positive, got {samples_per_shard} and {max_bytes}")
    old = _old_files(folder, split, overwrite)
    was_there = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    written = 0
    try:
        shards: list[Shard] = []
        seen: set[str] = set()
        tar: _TarWriter | None = None
        try:
            for key, data in items:
                if check_key(key) in seen:
                    raise ValueError(f"two samples have the key {key}; keys must be unique")
                seen.add(key)
                if tar is not None and (tar.num_samples >= samples_per_shard or tar.size_with(data) > max_bytes):
                    shards.append(tar.finish())
                    tar = None
                if tar is None:
                    tar = _TarWriter(work / shard_name(split, len(shards)))
                tar.add(key, data)
                written += 1
                if progress is not None:
                    progress(written)
            if tar is not None:
                shards.append(tar.finish())
        finally:
            if tar is not None:
                tar.close()
        if not written:
            raise ValueError(f"no samples were given to write into {folder}")
        index = Index(split, tuple(shards), str(folder))
        index.save(work)
        # From here on a crash leaves shards without an index, which every reader refuses, never a wrong index.
        (folder / INDEX_NAME).unlink(missing_ok=True)
        for shard in shards:
            os.replace(work / shard.name, folder / shard.name)
        for path in old:
            if path.name not in {shard.name for shard in shards}:
                path.unlink(missing_ok=True)
        os.replace(work / INDEX_NAME, folder / INDEX_NAME)
        return index
    except OSError as err:
        if err.errno in FULL:
            raise OSError(
                err.errno,
                f"no room left in {folder} after {written} samples; nothing was kept of them: free some space or "
                "write elsewhere",
            ) from err
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if not was_there and not any(folder.iterdir()):
            folder.rmdir()


def _old_files(folder: Path, split: str, overwrite: bool) -> list[Path]:
    if not folder.exists():
        return []
    if not folder.is_dir():
        raise FileExistsError(f"shards are written into a folder, but {folder} is a file")
    shards = sorted(folder.glob("vplm-*.tar"))
    others = [path.name for path in shards if not path.name.startswith(f"vplm-{split}-")]
    if others:
        raise ValueError(f"{folder} holds another split ({others[0]}); give split {split} a folder of its own")
    index = folder / INDEX_NAME
    if (shards or index.exists()) and not overwrite:
        raise FileExistsError(f"{folder} already holds shards; choose another folder or set overwrite (--overwrite)")
    return shards


class _TarWriter:
    """One tar, hashed while it is written; `tarfile` makes the headers, offsets are counted here."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("xb")
        self._hash = hashlib.sha256()
        self._position = 0
        self._samples: list[tuple[str, list[Member]]] = []

    @property
    def num_samples(self) -> int:
        """Samples added so far."""
        return len(self._samples)

    def size_with(self, data: Mapping[str, bytes]) -> int:
        """The tar's size if this sample was added, up to long names' headers."""
        return self._position + sum(_BLOCK + _padded(len(value)) for value in data.values()) + 2 * _BLOCK

    def add(self, key: str, data: Mapping[str, bytes]) -> None:
        """Append a sample's members."""
        found = []
        for suffix, value in data.items():
            info = tarfile.TarInfo(f"{key}.{suffix}")
            info.size = len(value)
            # TarInfo's own defaults: mtime 0, uid and gid 0, no owner names, mode 0644.
            self._write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
            found.append(Member(suffix, self._position, len(value), zlib.crc32(value)))
            self._write(value)
            self._write(b"\0" * (_padded(len(value)) - len(value)))
        self._samples.append((key, found))

    def finish(self) -> Shard:
        """End the tar and return its entry of the index."""
        end = self._position + 2 * _BLOCK
        self._write(b"\0" * (-(-end // _RECORD) * _RECORD - self._position))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()
        return Shard.from_samples(self._path.name, self._samples, size=self._position, sha256=self._hash.hexdigest())

    def close(self) -> None:
        """Close the file; may be called again."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self._position += len(data)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
