"""`raccoon vplm check`: reads every byte of a folder of shards and says what is wrong with which sample.

Memory stays flat: one sample at a time is decoded, only keys and findings are kept.
"""

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from raccoon_datamodules import members
from raccoon_datamodules.faults import attempt
from raccoon_datamodules.index import INDEX_NAME, Index, Shard
from raccoon_datamodules.masks import boxes_of
from raccoon_datamodules.members import MemberError, object_suffix, parse_suffix
from raccoon_datamodules.reader import is_url
from raccoon_datamodules.sample import VplmSample, decode
from raccoon_datamodules.sources import ShardSource
from raccoon_datamodules.view import MemberView

# Findings that are listed one by one; the rest is only counted.
MAX_LISTED = 1000

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. An error means that training would replace the sample; a note is worth knowing."""

    severity: Literal["error", "note"]
    shard: str | None
    key: str | None
    member: str | None
    reason: str

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.shard, self.key, self.member) if part)
        return f"{where}: {self.reason}" if where else self.reason


@dataclass(slots=True)
class CheckReport:
    """What a check saw. ``ok`` if there are no errors; ``num_errors`` and ``num_notes`` count beyond what is listed."""

    folder: str
    split: str | None = None
    num_shards: int = 0
    num_samples: int = 0
    num_members: int = 0
    num_objects: int = 0
    num_frames: int = 0
    num_bytes: int = 0
    num_bad_samples: int = 0
    num_errors: int = 0
    num_notes: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.num_errors == 0

    def add(self, problem: Problem) -> None:
        """Count a finding and list it if there is room."""
        if problem.severity == "error":
            self.num_errors += 1
        else:
            self.num_notes += 1
        if len(self.problems) < MAX_LISTED:
            self.problems.append(problem)

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON."""
        return {**asdict(self), "ok": self.ok}

    def __str__(self) -> str:
        megabytes = self.num_bytes / 1e6
        first = (
            f"{self.folder}: {_count(self.num_samples, 'sample')} with {_count(self.num_objects, 'object')} and "
            f"{_count(self.num_frames, 'frame')} in {_count(self.num_shards, 'shard')} ({megabytes:.1f} MB): "
        )
        bad = f"{_count(self.num_errors, 'error')}, {_count(self.num_bad_samples, 'bad sample')}"
        verdict = "sound" if self.ok else bad
        lines = [f"{first}{verdict}", *(f"{p.severity}: {p}" for p in self.problems)]
        unlisted = self.num_errors + self.num_notes - len(self.problems)
        return "\n".join([*lines, f"and {unlisted} more"] if unlisted else lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def check_shards(folder: str | Path, *, progress: Progress | None = None) -> CheckReport:
    """Check a folder of shards against its index, member by member.

    Verified: that every shard is there with the indexed size and sha256 and holds exactly the indexed members; that
    each member decodes and matches its checksum; that masks are {0, 1} of the clip's size and count; that boxes and
    areas agree with masks; that every described object is in the paragraph; that keys are allowed and unique. Noted:
    tars that the index does not list, members that this version does not know, empty masks. ``progress`` is called
    with (samples done, all).

    Raises:
        FileNotFoundError: if the folder or its index is not there.
        ValueError: if the index cannot be read, or the shards are not in a local folder.
    """
    if is_url(folder):
        raise ValueError(f"a check reads every byte and needs a local folder, got {folder}; download the shards first")
    source = ShardSource(folder)
    index = source.index
    report = CheckReport(folder=str(folder), split=index.split, num_shards=len(index.shards))
    seen: set[str] = set()
    base = Path(index.base)
    listed = {shard.name for shard in index.shards}
    for path in sorted(base.glob("*.tar")):
        if path.name not in listed:
            report.add(Problem("note", path.name, None, None, "is not in the index and will never be read"))
    for path in sorted(base.glob(".writing-*")):
        report.add(Problem("note", path.name, None, None, "is left from an interrupted writer; it may be removed"))
    for number, shard in enumerate(index.shards):
        for problem in _check_file(base / shard.name, shard):
            report.add(problem)
        report.num_bytes += shard.size
        for sample in range(len(shard)):
            problems = list(_check_sample(source, number, sample, seen, report))
            report.num_samples += 1
            report.num_bad_samples += any(problem.severity == "error" for problem in problems)
            for problem in problems:
                report.add(problem)
            if progress is not None:
                progress(report.num_samples, len(index))
    return report


def reindex(folder: str | Path, *, split: str | None = None) -> Index:
    """Write ``index.json`` anew from the tars of a folder; raises as `Index.build`."""
    index = Index.build(folder, split=split)
    index.save(folder)
    return index


def _check_file(path: Path, shard: Shard) -> Iterator[Problem]:
    """The shard as a file: there, of the right size and hash, and its tar headers as indexed."""

    def error(reason: str, key: str | None = None, member: str | None = None) -> Problem:
        return Problem("error", shard.name, key, member, reason)

    if not path.is_file():
        yield error(f"is listed in {INDEX_NAME} but not in the folder")
        return
    size = path.stat().st_size
    if size != shard.size:
        yield error(f"must have {shard.size} bytes, has {size}: it was cut off or replaced")
    with path.open("rb") as raw:
        if hashlib.file_digest(raw, "sha256").hexdigest() != shard.sha256:
            yield error(f"its sha256 is not the one in {INDEX_NAME}: its bytes have changed")
    indexed = {f"{shard.key(i)}.{m.suffix}": (m.offset, m.length) for i in range(len(shard)) for m in shard.members(i)}
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                archive.members = []  # type: ignore[attr-defined]
                name = info.name.removeprefix("./")
                if not info.isreg():
                    yield Problem("note", shard.name, None, name, "is not a regular file; it is never read")
                    continue
                where = indexed.pop(name, None)
                if where is None:
                    yield error("is in the tar but not in the index", member=name)
                elif where != (info.offset_data, info.size):
                    yield error(f"lies at {(info.offset_data, info.size)}, the index says {where}", member=name)
    except (tarfile.TarError, OSError, ValueError) as err:
        yield error(f"is not a readable tar: {err}")
        return
    for name in indexed:
        yield error("is in the index but not in the tar", member=name)


def _check_sample(
    source: ShardSource, number: int, position: int, seen: set[str], report: CheckReport
) -> Iterator[Problem]:
    shard = source.index.shards[number]
    key = shard.key(position)

    def error(reason: str, member: str | None = None) -> Problem:
        return Problem("error", shard.name, key, member, reason)

    if key in seen:
        yield error("another sample has this key")
    seen.add(key)
    suffixes = source.suffixes(number, position)
    report.num_members += len(suffixes)
    for suffix in suffixes:
        if parse_suffix(suffix) is None:
            yield Problem("note", shard.name, key, suffix, "is a member that this version does not know; it is ignored")
    try:
        members.check_key(key)
    except ValueError as err:
        yield error(str(err))
    data = attempt(lambda: source.read(number, position))
    if isinstance(data, tuple):
        yield error(data[1], data[0])
        return
    sample = attempt(lambda: decode(data))
    if isinstance(sample, tuple):
        # One damaged member hides the others: each is tried alone, so that all are named.
        yield from (error(reason, member) for member, reason in _damaged(data) or [sample])
        return
    if sample.key != key:
        yield error(f"holds the key {sample.key}", members.META)
    report.num_objects += len(sample.objects)
    report.num_frames += sample.video.num_frames
    for severity, member, reason in _contradictions(sample, data):
        yield Problem(severity, shard.name, key, member, reason)


def _damaged(data: dict[str, bytes]) -> list[tuple[str | None, str]]:
    view = attempt(lambda: MemberView(data))
    if isinstance(view, tuple):
        return [view]
    works: list[Callable[[], object]] = [view.paragraphs, view.clip]
    for name in view.meta.objects:
        works += [lambda name=name: view.object(name), lambda name=name: view.mask(name)]  # type: ignore[misc]
        if view.has(object_suffix("inpainted", name)):
            works.append(lambda name=name: view.inpainted(name))  # type: ignore[misc]
    found = [attempt(work) for work in works]
    # A failure is (member or None, reason); a result is an array, a record or paragraphs.
    return [f for f in found if isinstance(f, tuple) and len(f) == 2 and isinstance(f[1], str)]


def _contradictions(
    sample: VplmSample, data: dict[str, bytes]
) -> Iterator[tuple[Literal["error", "note"], str | None, str]]:
    """What members that decode say against each other: (severity, member, reason)."""
    view = MemberView(data)
    for record in sample.objects:
        suffix = object_suffix("object", record.id)
        area = view.object(record.id).area
        if not np.array_equal(area, record.mask.sum(axis=(1, 2), dtype=np.int64)):
            yield "error", suffix, "its areas are not those of its mask"
        height, width = sample.video.size
        expected, found = boxes_of(record.mask), record.boxes
        if not np.array_equal(np.isnan(expected), np.isnan(found)):
            frames = np.flatnonzero((np.isnan(expected) != np.isnan(found)).any(axis=1))
            yield "error", suffix, f"box and mask disagree on whether it is there in frames {frames[:10].tolist()}"
        else:
            # A pixel of tolerance: boxes may have been made before the mask was resized.
            apart = np.nan_to_num(np.abs(expected - found)) * np.array([width, height, width, height])
            if apart.max(initial=0) > 1.0 + 1e-3:
                frames = np.flatnonzero((apart > 1.0 + 1e-3).any(axis=1))
                yield (
                    "error",
                    suffix,
                    f"box and mask differ by up to {apart.max():.1f} pixels in frames {frames[:10].tolist()}",
                )
        if not record.mask.any():
            yield "note", object_suffix("mask", record.id), "the mask is empty in every frame"
        if sample.paragraph.find(record.name) is None:
            names = ", ".join(o.name for o in sample.paragraph.objects)
            yield "error", suffix, f"object {record.name} is not in the paragraph, which names {names or 'none'}"
    recorded = {record.name.casefold() for record in sample.objects}
    for described in sample.paragraph.objects:
        if described.name.casefold() not in recorded:
            yield "note", members.PARAGRAPH, f"object {described.name} is described but has no mask"
    stored = {found[1].lower() for found in map(parse_suffix, data) if found and found[1]}
    for extra in sorted(stored - {record.id.lower() for record in sample.objects}):
        yield "error", members.META, f"object {extra} has members but is not listed"
    ids = {record.id for record in sample.objects}
    for edit in sample.edits:
        if edit.object_id not in ids:
            yield "error", members.EDITS, f"an edit names object {edit.object_id}, which is not there"


__all__ = ["CheckReport", "MemberError", "Problem", "check_shards", "reindex"]
