"""Staged samples to shards: which sample goes where, writing what is not there yet, and the move to its place.

A shard that is there stays as it is; a sample whose source has changed is replaced where it stands, one whose source
was dropped is taken out, new ones go into new shards at the end, in the order of the videos' names. So the plan depends
only on what is there and what is wanted, and a run that is killed and started again ends with the same bytes.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from raccoon_datamodules.build.staging import STATE, Items, PlannedShard, SampleRef, digest_of, write_json
from raccoon_datamodules.index import INDEX_NAME, Index
from raccoon_datamodules.shard import Member, Shard, index_tar
from raccoon_datamodules.writer import shard_name, write_encoded

# What a tar needs besides its members: its end, filled up to a record.
_TAR_END = 10_240


@dataclass(frozen=True, slots=True)
class Wanted:
    """A sample that the data set is to hold, and the item (`staging.Items`) that has it, if it is staged."""

    ref: SampleRef
    item: str


def plan(
    split: str, there: Sequence[PlannedShard], wanted: Sequence[Wanted], *, samples_per_shard: int, max_bytes: int
) -> list[PlannedShard]:
    """The shards of a split, given those that are there and every sample it is to hold, in order."""
    digests = {sample.ref.key: sample.ref.digest for sample in wanted}
    shards = []
    placed: set[str] = set()
    for shard in there:
        kept = tuple((key, digests[key]) for key, _ in shard.samples if key in digests and key not in placed)
        placed |= {key for key, _ in kept}
        if kept:
            shards.append(PlannedShard(shard.name, kept))
    number = max((int(shard.name[-10:-4]) for shard in there), default=-1) + 1
    current: list[tuple[str, str]] = []
    size = 0
    for ref in (sample.ref for sample in wanted if sample.ref.key not in placed):
        if current and (len(current) >= samples_per_shard or size + ref.size + _TAR_END > max_bytes):
            shards.append(PlannedShard(shard_name(split, number), tuple(current)))
            number, current, size = number + 1, [], 0
        current.append((ref.key, ref.digest))
        size += ref.size
    if current:
        shards.append(PlannedShard(shard_name(split, number), tuple(current)))
    return shards


class Shelf:
    """The finished shards of one split: those in place, and those that an unfinished run has staged.

    ``shards`` are both, the staged ones over those of the same name; only shards whose file is whole count.
    """

    def __init__(self, out: Path, split: str, committed: Sequence[PlannedShard]) -> None:
        self.folder = out / split
        self._staged_folder = out / STATE / "shards" / split
        self._entries: dict[str, Shard] = self._indexed()
        self._samples: dict[tuple[str, str], tuple[Path, str]] | None = None
        known = {shard.name: shard for shard in committed if self._is_whole(shard)}
        self._staged = dict(self._load_staged())
        self.shards = [*(self._staged.get(name, shard) for name, shard in known.items())]
        self.shards += [shard for name, shard in sorted(self._staged.items()) if name not in known]
        self._committed = [shard.name for shard in committed]

    def has(self, shard: PlannedShard) -> bool:
        """Whether a planned shard is finished."""
        return shard in self.shards

    def locate(self, key: str, digest: str) -> tuple[Path, str] | None:
        """The finished shard that holds this sample, or None."""
        if self._samples is None:
            found = {}
            for shard in self.shards:
                for sample in shard.samples:
                    found[sample] = (self._path(shard.name), sample[0])
            self._samples = found
        return self._samples.get((key, digest))

    def write(self, shard: PlannedShard, samples: Iterator[tuple[str, Mapping[str, bytes]]]) -> None:
        """Write a shard and stage it."""
        self._staged_folder.mkdir(parents=True, exist_ok=True)
        work = self._staged_folder / f".writing-{shard.name}"
        shutil.rmtree(work, ignore_errors=True)
        index = write_encoded(
            samples, work, split=self.folder.name, samples_per_shard=len(shard.samples), max_bytes=1 << 62
        )
        entry = replace(index.shards[0], name=shard.name)
        os.replace(work / index.shards[0].name, self._staged_folder / shard.name)
        value = {"entry": entry.to_json(), "samples": list(shard.samples)}
        write_json(self._staged_folder / f"{shard.name}.json", value)
        shutil.rmtree(work, ignore_errors=True)
        self._entries[shard.name] = entry
        self._staged[shard.name] = shard
        self.shards = [*(s for s in self.shards if s.name != shard.name), shard]
        self._samples = None

    def commit(self, shards: Sequence[PlannedShard]) -> bool:
        """Bring the staged shards to their place and write the index; False if nothing was to be done."""
        names = [shard.name for shard in shards]
        gone = [name for name in self._committed if name not in names]
        if not self._staged and not gone and list(self._indexed()) == names:
            return False
        # From here on a crash leaves shards without an index, which every reader refuses, never a wrong index.
        (self.folder / INDEX_NAME).unlink(missing_ok=True)
        for name in gone:
            (self.folder / name).unlink(missing_ok=True)
        if not shards:
            if self.folder.is_dir() and not any(self.folder.iterdir()):
                self.folder.rmdir()
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            if (self._staged_folder / name).exists():
                os.replace(self._staged_folder / name, self.folder / name)
        entries = tuple(self._entries.get(name) or index_tar(self.folder / name) for name in names)
        Index(self.folder.name, entries, str(self.folder)).save(self.folder)
        return True

    def _indexed(self) -> dict[str, Shard]:
        """The entries of the index in place, by name."""
        try:
            return {shard.name: shard for shard in Index.load(self.folder).shards}
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return {}

    def _is_whole(self, shard: PlannedShard) -> bool:
        path, entry = self.folder / shard.name, self._entries.get(shard.name)
        if not path.is_file():
            return False
        if entry is not None:
            return path.stat().st_size == entry.size and [entry.key(n) for n in range(len(entry))] == _keys(shard)
        try:
            found = index_tar(path)
        except (ValueError, OSError):
            return False
        return [found.key(n) for n in range(len(found))] == _keys(shard)

    def _load_staged(self) -> Iterator[tuple[str, PlannedShard]]:
        for path in sorted(self._staged_folder.glob("vplm-*.tar.json")):
            try:
                value = json.loads(path.read_text(encoding="utf-8"))
                entry = Shard.from_json(value["entry"])
                shard = PlannedShard(entry.name, tuple((key, digest) for key, digest in value["samples"]))
            except (ValueError, KeyError, TypeError):
                continue
            tar = self._path(entry.name)
            if tar.is_file() and _sha256(tar) == entry.sha256:
                self._entries[entry.name] = entry
                yield entry.name, shard

    def _path(self, name: str) -> Path:
        staged = self._staged_folder / name
        return staged if staged.exists() else self.folder / name


def assemble(
    shelf: Shelf,
    shards: Sequence[PlannedShard],
    wanted: Sequence[Wanted],
    items: Items,
    *,
    elsewhere: Callable[[str, str], tuple[Path, str] | None],
) -> None:
    """Write the planned shards that are not there yet.

    A sample is taken from a finished shard, of this split or (``elsewhere``) another, or from its staged item. Items
    whose samples are all in finished shards are dropped as soon as they are.

    Raises:
        RuntimeError: if staged bytes are not those that were written.
    """
    item_of = {sample.ref.key: sample.item for sample in wanted}
    left: dict[str, set[str]] = {}
    for sample in wanted:
        left.setdefault(sample.item, set()).add(sample.ref.key)
    for shard in shards:
        if not shelf.has(shard):
            shelf.write(shard, _members(shelf, shard, item_of, items, elsewhere))
        for key in _keys(shard):
            left[item_of[key]].discard(key)
            if not left[item_of[key]]:
                # Its record stays until the run is finished.
                items.tar(item_of[key]).unlink(missing_ok=True)


def _members(
    shelf: Shelf,
    shard: PlannedShard,
    item_of: Mapping[str, str],
    items: Items,
    elsewhere: Callable[[str, str], tuple[Path, str] | None],
) -> Iterator[tuple[str, Mapping[str, bytes]]]:
    opened: dict[Path, tuple[Shard, dict[str, int]]] = {}
    for key, digest in shard.samples:
        if items.has_samples(item_of[key]):
            data, where = items.read(item_of[key], key), items.tar(item_of[key])
        else:
            found = shelf.locate(key, digest) or elsewhere(key, digest)
            if found is None:
                raise RuntimeError(f"sample {key} is neither staged nor in a shard; run again to make it anew")
            where = found[0]
            if where not in opened:
                entry = index_tar(where)
                opened[where] = entry, {entry.key(n): n for n in range(len(entry))}
            entry, numbers = opened[where]
            data = _read(where, entry.members(numbers[key]))
        if digest_of(data) != digest:
            if items.has_samples(item_of[key]):
                items.drop(item_of[key])
            raise RuntimeError(f"the bytes of sample {key} in {where} have changed; run again to make it anew")
        yield key, data


def _read(path: Path, members: Sequence[Member]) -> dict[str, bytes]:
    data = {}
    with path.open("rb") as raw:
        for member in members:
            raw.seek(member.offset)
            data[member.suffix] = raw.read(member.length)
    return data


def _keys(shard: PlannedShard) -> list[str]:
    return [key for key, _ in shard.samples]


def _sha256(path: Path) -> str:
    with path.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()
