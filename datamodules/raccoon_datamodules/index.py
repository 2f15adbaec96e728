"""``index.json``: what is in the shards of a folder and where, so that any sample is read without reading another.

One index describes one split in one folder. Its columns are small integers in base64 (docs/format.md), because a
million samples have some ten million members: as JSON numbers they would take gigabytes of memory to load. Of an index
whose checksum fits, a shard's columns are read when they are first needed (`stored_shards`), so that opening one costs
little more than reading the file; any other is read and checked as a whole.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raccoon_datamodules.atomic import replacing
from raccoon_datamodules.places import is_url, join, split_index
from raccoon_datamodules.reader import files_of
from raccoon_datamodules.shard import Shard, index_tar
from raccoon_datamodules.stored_shards import ShardHead, StoredShards, find_shards, heads_of

INDEX_NAME = "index.json"
INDEX_FORMAT = "raccoon-vplm-index"
INDEX_SCHEMA = 1

__all__ = ["INDEX_FORMAT", "INDEX_NAME", "INDEX_SCHEMA", "Index", "Shard", "check_split"]

_CHECKSUM = re.compile(rb',"crc32":(\d{1,10})}\n\Z')
_SPLIT = re.compile(r"[A-Za-z0-9_]{1,40}")


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """The shards of one split. ``base`` is the folder or address they lie in, ``left_out`` what `without` took away.

    ``shards`` may be read as they are asked for; ``heads`` says their names and sizes without reading them. A shard
    that is damaged in the index raises ValueError when it is asked for.
    """

    split: str
    shards: Sequence[Shard]
    base: str
    left_out: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        """Number of samples."""
        return sum(self.shard_sizes)

    @property
    def heads(self) -> tuple[ShardHead, ...]:
        """Name, bytes, sha256 and number of samples of each shard."""
        return heads_of(self.shards)

    @property
    def shard_sizes(self) -> list[int]:
        """Samples of each shard; what an order is made from."""
        return [head.num_samples for head in self.heads]

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
        lines = [f"{head.name} {head.sha256} {head.num_samples}" for head in self.heads]
        text = "\n".join(lines + [f"without {shard} {key}" for shard, key in self.left_out])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def without(self, bad: Collection[tuple[str, str]]) -> "Index":
        """The index without some samples, each (shard name, key); those that it does not hold are passed over.

        Raises:
            ValueError: if nothing is left.
        """
        wanted: dict[str, set[bytes]] = {}
        for name, key in bad:
            wanted.setdefault(name, set()).add(key.encode("utf-8", "replace"))
        changed: dict[int, Shard] = {}
        left_out = []
        for number, head in enumerate(self.heads):
            if head.name not in wanted:
                continue
            shard = self.shards[number]
            keep = ~np.isin(shard.keys, list(wanted[head.name]))
            left_out += [(head.name, key.decode("ascii")) for key in shard.keys[~keep].tolist()]
            changed[number] = shard.only(keep)
        shards = (
            self.shards.with_changed(changed)
            if isinstance(self.shards, StoredShards)
            else tuple(changed.get(number, shard) for number, shard in enumerate(self.shards))
        )
        found = Index(self.split, shards, self.base, (*self.left_out, *left_out))
        if not len(found):
            raise ValueError(f"no sample of {self.base} is left: all {len(left_out)} are to be left out")
        return found

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
        body = json.dumps(self.to_json(), separators=(",", ":")).encode()[:-1]
        with replacing(Path(folder) / INDEX_NAME, overwrite=True) as temporary:
            temporary.write_bytes(body + b',"crc32":%d}\n' % zlib.crc32(body))

    @classmethod
    def load(cls, place: str | Path) -> "Index":
        """Read an index; ``place`` is its folder, its own path, an address of either, or a pipe (`places.kind_of`).

        Raises:
            FileNotFoundError: if the folder or its index.json is not there.
            ValueError: if it is not an index of this schema, contradicts itself, or lists no sample.
            OSError: if it cannot be read.
            ImportError: if the client's package of a store is not installed.
        """
        if not is_url(place) and not Path(place).exists():
            raise FileNotFoundError(f"no shards at {place}: there is no such folder or file")
        base, name = split_index(place)
        files = files_of(base)
        try:
            data = files.whole(name)
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(_why_no_index(base)) from None
        finally:
            files.close()
        return cls.parse(data, base=base, path=join(base, name))

    @classmethod
    def parse(cls, data: bytes, *, base: str, path: str = INDEX_NAME) -> "Index":
        """An index from the bytes of its file; raises as `load` does."""
        anew = "get it again" if is_url(base) else f"write it anew with `raccoon vplm check {base} --reindex`"
        # As `save` wrote it; who writes an index in another form leaves this out or loses it, and then nothing is said.
        said = _CHECKSUM.search(data, max(0, len(data) - 40))
        if said is not None:
            if zlib.crc32(memoryview(data)[: said.start()]) != int(said[1]):
                raise ValueError(f"{path} is damaged: its bytes do not match its checksum; {anew}")
            stored = find_shards(data, said.start(), path=path, anew=anew)
            if stored is not None:
                return _counted(cls(stored[0], stored[2], base), stored[1], path)
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
        return _counted(index, stated, path)

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


def _counted(index: Index, stated: Any, path: str) -> Index:
    if stated != len(index) or not len(index):
        raise ValueError(
            f"{path} must list at least one sample and as many as it states ({stated}), lists {len(index)}"
        )
    return index


def _why_no_index(base: str) -> str:
    if is_url(base):
        return f"no {INDEX_NAME} in {base}; check the address"
    folder = Path(base)
    if folder.is_file():
        return f"{base} is a file; give the folder that holds the shards"
    inner = sorted(path.parent.name for path in folder.glob(f"*/{INDEX_NAME}"))
    if inner and not any(folder.glob("*.tar")):
        return f"{base} holds no shards itself, but folders of shards ({', '.join(inner[:5])}): name these"
    if not any(folder.glob("*.tar")):
        return f"{base} holds no shards: neither {INDEX_NAME} nor a tar; `raccoon vplm synth --out {base}` makes some"
    return f"no {INDEX_NAME} in {base}; `raccoon vplm check {base} --reindex` makes it"


def check_split(split: str) -> str:
    """Return ``split`` if it may name a split: 1 to 40 of A-Z a-z 0-9 _; ValueError otherwise."""
    if not _SPLIT.fullmatch(split):
        raise ValueError(f"a split must match [A-Za-z0-9_]{{1,40}}, got {split!r}")
    return split
