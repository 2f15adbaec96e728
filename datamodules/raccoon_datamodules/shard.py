"""One shard of an index: which samples a tar holds, and where each member's bytes lie (docs/format.md)."""

import base64
import binascii
import hashlib
import re
import tarfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.limits import MAX_MEMBER_BYTES, readable
from raccoon_datamodules.members import MemberError, split_name

# Shard names come from a file: no folder, nothing hidden, nothing that could leave the index's own folder.
_SHARD_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.tar")
# Names and times; the writer's are 1 kB.
_LARGEST_HEADER = 1 << 20
_PIECE = 1 << 20
_COLUMNS = ("count", "suffix", "offset", "length", "crc32")


@dataclass(frozen=True, slots=True)
class Member:
    """Where one member's bytes lie in its shard; ``crc32`` is zlib's, of these bytes."""

    suffix: str
    offset: int
    length: int
    crc32: int


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """One tar: file name, size in bytes, sha256 of the whole file, and its samples.

    ``keys`` bytes [n]; sample i has the members ``first[i]`` to ``first[i + 1]`` of the columns ``suffix`` (a number in
    ``suffixes``), ``offset``, ``length`` and ``crc32``, each int64 [m].
    """

    name: str
    size: int
    sha256: str
    keys: NDArray[np.bytes_]
    suffixes: tuple[str, ...]
    first: NDArray[np.int64]
    suffix: NDArray[np.integer[Any]]
    offset: NDArray[np.integer[Any]]
    length: NDArray[np.integer[Any]]
    crc32: NDArray[np.integer[Any]]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.keys)

    def key(self, sample: int) -> str:
        """The key of a sample."""
        return bytes(self.keys[sample]).decode("ascii")

    def members(self, sample: int, wanted: Collection[str] | None = None) -> tuple[Member, ...]:
        """The members of a sample (None: all, else those with a wanted suffix), in the order of the tar.

        Raises:
            MemberError: if one is said to be larger than any member is (`limits`).
        """
        place = slice(int(self.first[sample]), int(self.first[sample + 1]))
        columns = zip(*(column[place].tolist() for column in self._columns()), strict=True)
        named = ((self.suffixes[s], o, n, c) for s, o, n, c in columns)
        found = tuple(Member(*entry) for entry in named if wanted is None or entry[0] in wanted)
        for member in found:
            if member.length > MAX_MEMBER_BYTES:
                sizes = f"{readable(member.length)}, at most {readable(MAX_MEMBER_BYTES)} are read"
                raise MemberError(member.suffix, f"the index says that it has {sizes}")
        return found

    def suffixes_of(self, sample: int) -> tuple[str, ...]:
        """The suffixes of a sample's members, in the order of the tar."""
        return tuple(
            self.suffixes[s] for s in self.suffix[int(self.first[sample]) : int(self.first[sample + 1])].tolist()
        )

    def only(self, keep: NDArray[np.bool_]) -> "Shard":
        """The shard with some of its samples; ``keep`` bool [n]."""
        counts = np.diff(self.first)
        members = np.repeat(keep, counts)
        return replace(
            self,
            keys=self.keys[keep],
            first=np.concatenate([[0], np.cumsum(counts[keep])]).astype(np.int64),
            suffix=self.suffix[members],
            offset=self.offset[members],
            length=self.length[members],
            crc32=self.crc32[members],
        )

    def _columns(self) -> tuple[NDArray[np.integer[Any]], ...]:
        return self.suffix, self.offset, self.length, self.crc32

    @classmethod
    def from_samples(
        cls, name: str, samples: Sequence[tuple[str, Sequence[Member]]], *, size: int, sha256: str
    ) -> "Shard":
        """Make the columns from (key, members) of each sample in the order of the tar."""
        every = [member for _, found in samples for member in found]
        numbers: dict[str, int] = {}
        for member in every:
            numbers.setdefault(member.suffix, len(numbers))
        counts = np.array([len(found) for _, found in samples], dtype=np.int64)
        return cls(
            name=name,
            size=size,
            sha256=sha256,
            keys=np.array([key.encode("ascii") for key, _ in samples], dtype=np.bytes_),
            suffixes=tuple(numbers),
            first=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            suffix=_smallest([numbers[m.suffix] for m in every]),
            offset=_smallest([m.offset for m in every]),
            length=_smallest([m.length for m in every]),
            crc32=_smallest([m.crc32 for m in every]),
        )

    def to_json(self) -> dict[str, Any]:
        """The shard's entry in ``index.json``."""
        return {
            "name": self.name,
            "size": self.size,
            "sha256": self.sha256,
            "num_samples": len(self),
            "keys": [key.decode("ascii") for key in self.keys.tolist()],
            "suffixes": list(self.suffixes),
            "members": {
                "count": _column_to_json(_smallest(np.diff(self.first))),
                **{n: _column_to_json(c) for n, c in zip(_COLUMNS[1:], self._columns(), strict=True)},
            },
        }

    @classmethod
    def from_json(cls, value: Any) -> "Shard":
        """Undo `to_json`. Raises ValueError (or KeyError, TypeError) for an entry that contradicts itself."""
        name, size, sha256, keys = value["name"], int(value["size"]), str(value["sha256"]), value["keys"]
        if not _SHARD_NAME.fullmatch(name):
            raise ValueError(f"a shard must be named NAME.tar without folders, got {name!r}")
        columns = {n: _column_from_json(value["members"][n], f"{name}: {n}") for n in _COLUMNS}
        counts = columns["count"]
        # One by one, because absurd 64-bit numbers would wrap around to a sum that fits.
        total = sum(counts.tolist())
        if not len(keys) == len(counts) == value["num_samples"]:
            raise ValueError(f"{name}: {value['num_samples']} samples stated, {len(keys)} keys, {len(counts)} counts")
        if any(len(columns[n]) != total for n in _COLUMNS[1:]):
            raise ValueError(f"{name}: its columns must have {total} entries, got {[len(c) for c in columns.values()]}")
        suffixes = tuple(str(s) for s in value["suffixes"])
        # As floats, because two absurd 64-bit numbers would wrap around; exact below 2**53 bytes.
        ends = columns["offset"].astype(np.float64) + columns["length"].astype(np.float64)
        if total and (int(columns["suffix"].max()) >= len(suffixes) or float(ends.max()) > size):
            raise ValueError(f"{name}: an entry points outside the suffixes or past the shard's {size} bytes")
        return cls(
            name=name,
            size=size,
            sha256=sha256,
            keys=np.array(keys, dtype=np.bytes_),
            suffixes=suffixes,
            first=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64),
            suffix=columns["suffix"],
            offset=columns["offset"],
            length=columns["length"],
            crc32=columns["crc32"],
        )


def index_tar(path: Path) -> Shard:
    """Index one tar; raises as `Index.build` does, and for a name that no index may list."""
    if not _SHARD_NAME.fullmatch(path.name):
        raise ValueError(
            f"{path} cannot be indexed: a shard is named NAME.tar, of A-Z a-z 0-9 . _ -; rename or remove it"
        )
    samples: list[tuple[str, list[Member]]] = []
    seen: set[str] = set()
    size = path.stat().st_size
    try:
        with path.open("rb") as raw:
            for info in tar_headers(path):
                if not info.isreg():
                    continue
                key, suffix = split_name(info.name)
                if not samples or samples[-1][0] != key:
                    if key in seen:
                        raise ValueError(f"the members of sample {key} do not lie side by side")
                    seen.add(key)
                    samples.append((key, []))
                if any(member.suffix == suffix for member in samples[-1][1]):
                    raise ValueError(f"sample {key} has two members {suffix}")
                if info.issparse():
                    raise ValueError(f"{info.name} is stored with holes, which no reader of members by offset knows")
                if info.offset_data + info.size > size:
                    raise ValueError(f"it ends inside {info.name}")
                if info.size > MAX_MEMBER_BYTES:
                    raise ValueError(f"{info.name} has {readable(info.size)}, at most {readable(MAX_MEMBER_BYTES)}")
                checksum = _checksum(raw, info.offset_data, info.size)
                samples[-1][1].append(Member(suffix, info.offset_data, info.size, checksum))
            raw.seek(0)
            digest = hashlib.file_digest(raw, "sha256").hexdigest()
    except (tarfile.TarError, ValueError) as err:
        raise ValueError(f"{path} cannot be indexed: {err}") from err
    return Shard.from_samples(path.name, samples, size=size, sha256=digest)


def tar_headers(path: Path) -> Iterator[tarfile.TarInfo]:
    """The headers of a tar, one after the other, in flat memory.

    Raises:
        tarfile.TarError: if it is no tar, or a header is damaged or claims what cannot be.
    """
    try:
        with path.open("rb") as raw:
            file: Any = _Forward(raw, path.stat().st_size)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for info in archive:
                    # Flat memory: tarfile would remember every header.
                    archive.members = []  # type: ignore[attr-defined]
                    if info.size < 0:
                        raise tarfile.ReadError(f"a header states a size of {info.size} bytes")
                    yield info
    except (ValueError, RecursionError, OverflowError) as err:
        raise tarfile.ReadError(f"a header is damaged: {err}") from err


class _Forward:
    """A file as tarfile may see it, which trusts what headers claim: how long they are, and where the next one is."""

    def __init__(self, raw: BinaryIO, size: int) -> None:
        self._raw = raw
        self._size = size
        self._reached = 0

    def tell(self) -> int:
        return self._raw.tell()

    def seek(self, place: int) -> None:
        if not self._reached <= place <= self._size:
            raise tarfile.ReadError(f"it ends, or a header leads from byte {self._reached} to {place} of {self._size}")
        self._reached = place
        self._raw.seek(place)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes, at most {_LARGEST_HEADER} expected")
        return self._raw.read(size)


def _checksum(raw: BinaryIO, offset: int, length: int) -> int:
    raw.seek(offset)
    found = 0
    while length > 0 and (piece := raw.read(min(length, _PIECE))):
        found = zlib.crc32(piece, found)
        length -= len(piece)
    return found


def _smallest(values: Any) -> NDArray[np.integer[Any]]:
    """The values as the smallest unsigned type that holds them."""
    array = np.asarray(values, dtype=np.int64)
    top = int(array.max(initial=0))
    return array.astype(np.min_scalar_type(top))


def _column_to_json(column: NDArray[np.integer[Any]]) -> dict[str, str]:
    little = column.astype(column.dtype.newbyteorder("<"), copy=False)
    return {"dtype": f"u{column.dtype.itemsize}", "base64": base64.b64encode(little.tobytes()).decode("ascii")}


def _column_from_json(value: Any, what: str) -> NDArray[np.integer[Any]]:
    if value["dtype"] not in ("u1", "u2", "u4", "u8"):
        raise ValueError(f"{what} must have dtype u1, u2, u4 or u8, got {value['dtype']!r}")
    try:
        return np.frombuffer(binascii.a2b_base64(value["base64"]), dtype=f"<{value['dtype']}")
    except binascii.Error as err:
        raise ValueError(f"{what} is not base64: {err}") from err
