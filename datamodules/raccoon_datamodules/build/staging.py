"""What a build remembers, in a hidden folder of its result, so that a second run does only what is missing.

``.build/items/ID.tar`` holds the encoded samples of one source video until they are in a shard, ``ID.json`` its record:
what it was made of, its samples, its findings. ``.build/shards/`` holds finished shards until all are there.
``.build/ledger.json`` holds the records and the shards of the last finished run. Each file appears whole or not at all,
the record after the samples; so a run may be killed at any moment.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from raccoon_datamodules.atomic import replacing
from raccoon_datamodules.build.findings import Finding

STATE = ".build"
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class SampleRef:
    """One encoded sample: its key, the sha256 of its members, and what it holds."""

    key: str
    digest: str
    size: int
    frames: int
    objects: int


@dataclass(frozen=True, slots=True)
class Record:
    """What was made of one source video. ``retry``: its files could not be opened, so the next run tries again."""

    video: str
    identity: str
    content: str
    samples: tuple[SampleRef, ...]
    findings: tuple[Finding, ...]
    split: str = ""
    retry: bool = False

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Record":
        """Undo `to_json`."""
        samples = tuple(SampleRef(**entry) for entry in value["samples"])
        findings = tuple(Finding.from_json(entry) for entry in value["findings"])
        return cls(**{**value, "samples": samples, "findings": findings})


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """A shard's name and its samples, (key, digest) in order."""

    name: str
    samples: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Ledger:
    """The state of the last finished run: how it was built, its videos by name, its shards by split."""

    options: dict[str, Any] | None = None
    videos: dict[str, Record] = field(default_factory=dict)
    shards: dict[str, list[PlannedShard]] = field(default_factory=dict)

    @classmethod
    def load(cls, out: Path) -> "Ledger":
        """Read the ledger of a folder; an empty one where there is none yet.

        Raises:
            ValueError: if it is damaged or of another schema.
        """
        path = out / STATE / "ledger.json"
        if not path.exists():
            return cls()
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            if value["schema"] != _SCHEMA:
                raise ValueError(f"its schema is {value['schema']}, this version writes {_SCHEMA}")
            shards = {
                split: [PlannedShard(name, tuple((k, d) for k, d in samples)) for name, samples in listed]
                for split, listed in value["shards"].items()
            }
            videos = {name: Record.from_json(entry) for name, entry in value["videos"].items()}
            return cls(value["options"], videos, shards)
        except (ValueError, KeyError, TypeError) as err:
            raise ValueError(f"{path} cannot be read: {err}; build anew with --overwrite") from err

    def save(self, out: Path) -> None:
        """Write the ledger, whole or not at all, if it says something new."""
        shards = {split: [[s.name, list(s.samples)] for s in listed] for split, listed in sorted(self.shards.items())}
        value = {
            "schema": _SCHEMA,
            "options": self.options,
            "videos": {name: record.to_json() for name, record in self.videos.items()},
            "shards": shards,
        }
        write_json(out / STATE / "ledger.json", value)


def write_json(path: Path, value: Any, *, indent: int | None = None) -> None:
    """Write JSON, whole or not at all; a file that already says this is not touched."""
    data = (json.dumps(value, ensure_ascii=False, sort_keys=True, indent=indent) + "\n").encode(
        "utf-8", "backslashreplace"
    )
    if path.exists() and path.read_bytes() == data:
        return
    with replacing(path, overwrite=True) as temporary:
        temporary.write_bytes(data)


class Items:
    """The finished items of a folder, each the samples of one source video; ``item`` is `SourceVideo.id`."""

    def __init__(self, out: Path) -> None:
        self._folder = out / STATE / "items"
        self._stop = self._folder / "stop"

    @property
    def is_stopped(self) -> bool:
        """Whether the run that these items are for has been interrupted."""
        return self._stop.exists()

    def stop(self) -> None:
        """Tell the processes that work on items to put them down."""
        self._stop.touch()

    def record(self, item: str) -> Record | None:
        """The record of a finished item, or None. A record that is no JSON counts as none."""
        try:
            return Record.from_json(json.loads((self._folder / f"{item}.json").read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def has_samples(self, item: str) -> bool:
        """Whether the samples of an item are (still) there."""
        return self.tar(item).exists()

    def tar(self, item: str) -> Path:
        """Where the samples of an item lie."""
        return self._folder / f"{item}.tar"

    def finish(self, item: str, record: Record) -> None:
        """Say that an item is finished."""
        write_json(self._folder / f"{item}.json", record.to_json())

    @contextmanager
    def writing(self, item: str) -> Iterator["ItemWriter"]:
        """Write the samples of an item; nothing is there before the block ends, nor if it has no sample."""
        self.drop(item)
        place = replacing(self.tar(item), overwrite=True)
        with place as temporary, tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
            writer = ItemWriter(tar)
            yield writer
        if not writer.samples:
            self.tar(item).unlink()

    def read(self, item: str, key: str) -> dict[str, bytes]:
        """The members of a sample of an item, in their order.

        Raises:
            KeyError: if it is not there.
        """
        data: dict[str, bytes] = {}
        with tarfile.open(self.tar(item), "r:") as tar:
            for info in tar:
                name, _, suffix = info.name.partition(".")
                if name == key:
                    opened: IO[bytes] | None = tar.extractfile(info)
                    assert opened is not None
                    data[suffix] = opened.read()
        if not data:
            raise KeyError(key)
        return data

    def drop(self, item: str) -> None:
        """Forget an item."""
        for suffix in ("json", "tar"):
            (self._folder / f"{item}.{suffix}").unlink(missing_ok=True)

    def prepare(self) -> None:
        """Make the folder, and remove what a killed run left half-written in it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._stop.unlink(missing_ok=True)
        for path in self._folder.glob(".*.part*"):
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget all items."""
        for path in self._folder.iterdir():
            path.unlink(missing_ok=True)


class ItemWriter:
    """Adds samples to an item; ``samples`` says what was added."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self.samples: list[SampleRef] = []

    def add(self, key: str, data: Mapping[str, bytes], *, frames: int, objects: int) -> None:
        """Append a sample's members."""
        for suffix, value in data.items():
            info = tarfile.TarInfo(f"{key}.{suffix}")
            info.size = len(value)
            self._tar.addfile(info, io.BytesIO(value))
        size = sum(512 + -(-len(value) // 512) * 512 for value in data.values())
        self.samples.append(SampleRef(key, digest_of(data), size, frames, objects))


def digest_of(data: Mapping[str, bytes]) -> str:
    """The sha256 of a sample's members with their suffixes and lengths, in their order."""
    digest = hashlib.sha256()
    for suffix, value in data.items():
        digest.update(f"{suffix}\0{len(value)}\0".encode())
        digest.update(value)
    return digest.hexdigest()


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the folder for this process; a killed process holds nothing.

    Raises:
        RuntimeError: if another process builds into it.
    """
    (out / STATE).mkdir(parents=True, exist_ok=True)
    with (out / STATE / "lock").open("a") as lock:
        if os.name == "posix":
            import fcntl

            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as err:
                raise RuntimeError(f"another process is building into {out}: wait for it to end") from err
        yield


def with_split(record: Record, split: str) -> Record:
    """The record in a split."""
    return record if record.split == split else replace(record, split=split)
