"""``index.json``: what is in the shards of a folder and where, so that any sample is read without reading another.

One index describes one split in one folder. Its columns are small integers in base64 (docs/format.md), because a
million samples have some ten million members: as JSON numbers they would take gigabytes of memory to load.
"""

import base64
import binascii
import hashlib
import json
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.atomic import replacing
from raccoon_datamodules.members import split_name
from raccoon_datamodules.reader import is_url, join, read_whole

INDEX_NAME = "index.json"
INDEX_FORMAT = "raccoon-vplm-index"
INDEX_SCHEMA = 1

# Shard names come from a file: no folder, nothing hidden, nothing that could leave the index's own folder.
_SHARD_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.tar")
_SPLIT = re.compile(r"[A-Za-z0-9_]{1,40}")
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

    def members(self, sample: int) -> tuple[Member, ...]:
        """The members of a sample, in the order of the tar."""
        columns = zip(*(column[self.first[sample] : self.first[sample + 1]] for column in self._columns()), strict=True)
        return tuple(Member(self.suffixes[int(s)], int(o), int(n), int(c)) for s, o, n, c in columns)

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
        total = int(counts.sum())
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


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """The shards of one split. ``base`` is the folder or http(s) address they lie in."""

    split: str
    shards: tuple[Shard, ...]
    base: str

    def __len__(self) -> int:
        """Number of samples."""
        return sum(len(shard) for shard in self.shards)

    @property
    def shard_sizes(self) -> list[int]:
        """Samples of each shard; what an order is made from."""
        return [len(shard) for shard in self.shards]

    def keys(self) -> Iterator[str]:
        """All keys, as stored."""
        return (key.decode("ascii") for shard in self.shards for key in shard.keys.tolist())

    def find(self, key: str) -> tuple[int, int]:
        """(shard, sample) of a key. Raises KeyError if it is not there."""
        for number, shard in enumerate(self.shards):
            found = np.flatnonzero(shard.keys == key.encode("ascii", "replace"))
            if found.size:
                return number, int(found[0])
        raise KeyError(f"no sample {key} in {self.base}")

    def fingerprint(self) -> str:
        """A short hash of what the order depends on: the shards, their order and their contents."""
        text = "\n".join(f"{shard.name} {shard.sha256} {len(shard)}" for shard in self.shards)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """The contents of ``index.json``."""
        return {
            "format": INDEX_FORMAT,
            "schema": INDEX_SCHEMA,
            "split": self.split,
            "num_samples": len(self),
            "shards": [shard.to_json() for shard in self.shards],
        }

    def save(self, folder: str | Path) -> None:
        """Write ``index.json`` into a folder, whole or not at all; one that is there is replaced."""
        text = json.dumps(self.to_json(), separators=(",", ":")) + "\n"
        with replacing(Path(folder) / INDEX_NAME, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, place: str | Path) -> "Index":
        """Read an index; ``place`` is its folder, its own path, or an http(s) address of either.

        Raises:
            FileNotFoundError: if the folder or its index.json is not there.
            ValueError: if it is not an index of this schema, contradicts itself, or lists no sample.
        """
        text = str(place)
        if not is_url(place) and not Path(text).exists():
            raise FileNotFoundError(f"no shards at {text}: there is no such folder or file")
        base = text.rpartition("/")[0] or "." if text.endswith(".json") else text
        path = text if text.endswith(".json") else join(text, INDEX_NAME)
        try:
            data = read_whole(path)
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(_why_no_index(base)) from None
        return cls.parse(data, base=base, path=path)

    @classmethod
    def parse(cls, data: bytes, *, base: str, path: str = INDEX_NAME) -> "Index":
        """An index from the bytes of its file; raises as `load` does."""
        anew = f"write it anew with `raccoon vplm check {base} --reindex`"
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as err:
            raise ValueError(f"{path} must be JSON: {err}; {anew}") from err
        if not isinstance(value, dict) or value.get("format") != INDEX_FORMAT:
            raise ValueError(f'{path} is not an index of VPLM shards: it must hold "format": "{INDEX_FORMAT}"')
        if value.get("schema") != INDEX_SCHEMA:
            raise ValueError(
                f"{path} has schema {value.get('schema')!r}, this version of raccoon reads schema {INDEX_SCHEMA}"
            )
        try:
            shards = tuple(Shard.from_json(entry) for entry in value["shards"])
            index = cls(check_split(value["split"]), shards, base)
            stated = value["num_samples"]
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
            raise ValueError(f"{path} is damaged: {err!r}; {anew}") from err
        if stated != len(index) or not len(index):
            raise ValueError(
                f"{path} must list at least one sample and as many as it states ({stated}), lists {len(index)}"
            )
        return index

    @classmethod
    def build(cls, folder: str | Path, *, split: str | None = None, names: Sequence[str] | None = None) -> "Index":
        """Index tars that somebody else wrote: all ``*.tar`` of a folder in the order of their names, or ``names``.

        Reads every byte once. ``split`` defaults to what the names say (``vplm-SPLIT-000000.tar``), else "train".

        Raises:
            FileNotFoundError: if the folder is not there.
            ValueError: if it holds no tar, a tar is damaged, or its members are not KEY.SUFFIX with each sample's
                members side by side.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"no shards at {folder}: there is no such folder")
        found = sorted(path.name for path in folder.glob("*.tar")) if names is None else list(names)
        if not found:
            raise ValueError(f"{folder} holds no *.tar to index")
        if split is None:
            named = re.fullmatch(r"vplm-([A-Za-z0-9_]+)-\d+\.tar", found[0])
            split = named[1] if named else "train"
        return cls(check_split(split), tuple(index_tar(folder / name) for name in found), str(folder))


def index_tar(path: Path) -> Shard:
    """Index one tar; raises as `Index.build` does."""
    samples: list[tuple[str, list[Member]]] = []
    seen: set[str] = set()
    try:
        with tarfile.open(path, "r:") as archive, path.open("rb") as raw:
            for info in archive:
                # Keeps memory flat: tarfile would remember every header.
                archive.members = []  # type: ignore[attr-defined]
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
                raw.seek(info.offset_data)
                data = raw.read(info.size)
                if len(data) != info.size:
                    raise ValueError(f"it ends inside {info.name}")
                samples[-1][1].append(Member(suffix, info.offset_data, info.size, zlib.crc32(data)))
    except (tarfile.TarError, ValueError) as err:
        raise ValueError(f"{path} cannot be indexed: {err}") from err
    with path.open("rb") as raw:
        digest = hashlib.file_digest(raw, "sha256").hexdigest()
    return Shard.from_samples(path.name, samples, size=path.stat().st_size, sha256=digest)


def _why_no_index(base: str) -> str:
    if is_url(base):
        return f"no {INDEX_NAME} in {base}; check the address"
    folder = Path(base)
    if folder.is_file():
        return f"{base} is a file; give the folder that holds the shards"
    if not any(folder.glob("*.tar")):
        return f"{base} holds no shards: neither {INDEX_NAME} nor a tar; `raccoon vplm synth --out {base}` makes some"
    return f"no {INDEX_NAME} in {base}; `raccoon vplm check {base} --reindex` makes it"


def check_split(split: str) -> str:
    """Return ``split`` if it may name a split: 1 to 40 of A-Z a-z 0-9 _; ValueError otherwise."""
    if not _SPLIT.fullmatch(split):
        raise ValueError(f"a split must match [A-Za-z0-9_]{{1,40}}, got {split!r}")
    return split


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
