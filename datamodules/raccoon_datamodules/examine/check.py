"""`raccoon vplm check`: reads every byte of folders of shards and says what is wrong with which sample.

One sample at a time is decoded; what is kept of each is its key and, for the search of copies, two kilobytes. Whatever
a damaged or hostile shard holds becomes a finding.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import parent_process
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from raccoon_datamodules.examine.duplicates import DEFAULT_BITS, MAX_BITS, Copy, find_copies
from raccoon_datamodules.examine.fingerprints import Fingerprint
from raccoon_datamodules.examine.indexes import IndexedSource, OpenedFolder, Reindexed, open_folder, reindex
from raccoon_datamodules.examine.report import CheckReport, Problem, Severity
from raccoon_datamodules.examine.samples import Examined, check_quickly, check_sample
from raccoon_datamodules.examine.tars import check_folder, check_tar
from raccoon_datamodules.faults import attempt
from raccoon_datamodules.index import INDEX_NAME, Index
from raccoon_datamodules.members import VIDEO, MemberError
from raccoon_datamodules.parallel import ordered
from raccoon_datamodules.sources import ShardSource

__all__ = ["CheckReport", "MemberError", "Problem", "Reindexed", "check_shards", "check_splits", "reindex"]

# Samples that a worker examines at a time.
_CHUNK = 16

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Job:
    """A piece of work: a shard as a file (``start`` is None), or some of its samples; ``index`` is the index's file."""

    folder: int
    place: str
    index: str
    stamp: tuple[int, int, int]
    shard: int
    start: int | None = None
    stop: int = 0
    is_quick: bool = False
    with_clip: bool = True


@dataclass(frozen=True, slots=True)
class _Clip:
    """Where a clip stands; kept for every sample."""

    folder: int
    shard: int
    sample: int


def check_shards(
    folder: str | Path,
    *,
    quick: bool = False,
    max_bits: float | None = DEFAULT_BITS,
    workers: int = 0,
    progress: Progress | None = None,
) -> CheckReport:
    """Check one folder of shards; as `check_splits` of it alone."""
    return check_splits([folder], quick=quick, max_bits=max_bits, workers=workers, progress=progress)[0]


def check_splits(
    folders: Sequence[str | Path],
    *,
    quick: bool = False,
    max_bits: float | None = DEFAULT_BITS,
    workers: int = 0,
    progress: Progress | None = None,
    on_problem: Callable[[CheckReport, Problem], None] | None = None,
) -> list[CheckReport]:
    """Check folders of shards against their indexes, member by member, and against each other; a report each.

    Errors: an index that is missing, damaged or of other shards (the tars are then read as they lie); a shard that is
    not there, has not the indexed size, sha256 or members; a member that is missing, does not decode or does not match
    its checksum or the clip; boxes outside of [0, 1] or not their masks'; areas that are not the masks'; an object that
    the paragraph does not name; a key that is not allowed or comes twice; a clip that an earlier folder holds too, in
    the same bytes or, within ``max_bits`` of `duplicates.find_copies`, nearly the same pictures and colours. Warnings:
    masks that are empty, full or inverted; inpainted clips that differ outside the object or still show it; copies
    within a folder; clips that look like one of another folder in other colours. Notes: tars that the index does not
    list, members that this version does not know, described objects without a mask.

    ``quick`` decodes nothing: files, index, and the members' checksums where a file is damaged; copies by their bytes
    alone. ``max_bits`` None looks for no copies. ``workers`` processes share the work; the reports do not depend on it.
    ``progress`` is called with (samples done, all), ``on_problem`` with every finding and its report.

    Raises:
        FileNotFoundError: if a folder is not there, or holds neither an index nor a tar.
        ValueError, OSError: if an index cannot be read where there is no tar either; ValueError if a folder is named
            twice or is not local, or an argument is out of range.
        RuntimeError: if a worker process was ended from outside.
    """
    if max_bits is not None and not 0 <= max_bits <= MAX_BITS:
        raise ValueError(f"max_bits must be in [0, {MAX_BITS}] or None, got {max_bits}")
    opened = [open_folder(folder) for folder in folders]
    sources = [IndexedSource(one.index) for one in opened]
    real = [os.path.realpath(source.index.base) for source in sources]
    twice = [str(folder) for n, folder in enumerate(folders) if real[n] in real[:n]]
    if twice:
        raise ValueError(f"each folder must be named once, {', '.join(twice)} comes again")
    reports = []
    for folder, one in zip(folders, opened, strict=True):
        index = one.index
        report = CheckReport(str(folder), index.split or None, num_shards=len(index.shards), on_problem=on_problem)
        report.extend(one.problems)
        named = {head.name for head in index.heads} | {problem.shard for problem in one.problems if problem.shard}
        report.extend(check_folder(Path(index.base), named))
        reports.append(report)
    clips: list[_Clip] = []
    prints: list[Fingerprint | None] = []
    seen: list[set[str]] = [set() for _ in folders]
    total = sum(len(source.index) for source in sources)
    with TemporaryDirectory(prefix="raccoon-check-") as made:
        files = [_index_file(one, Path(made) / str(number)) for number, one in enumerate(opened)]
        jobs = _jobs(sources, files, quick=quick, with_clip=max_bits is not None)
        with ordered(_work, jobs, workers=workers) as results:
            for job, problems, samples in results:
                report = reports[job.folder]
                report.extend(problems)
                if job.start is None:
                    report.num_bytes += sources[job.folder].index.shards[job.shard].size
                for position, sample in enumerate(samples, job.start or 0):
                    clips.append(_Clip(job.folder, job.shard, position))
                    prints.append(sample.clip)
                    _count(report, sample, seen[job.folder])
                    if progress is not None:
                        progress(len(clips), total)
    if max_bits is not None:
        if quick:
            prints = _prints_of_bytes(sources, clips)
        for copy in find_copies(prints, [clip.folder for clip in clips], max_bits=max_bits):
            _report_copy(reports, sources, clips, copy)
    return reports


def _index_file(one: OpenedFolder, folder: Path) -> Path:
    """The file from which workers read the index: one that was made goes into a folder of its own."""
    if one.is_stored or not len(one.index):
        return Path(one.index.base) / INDEX_NAME
    folder.mkdir()
    one.index.save(folder)
    return folder / INDEX_NAME


def _jobs(sources: Sequence[ShardSource], files: Sequence[Path], *, quick: bool, with_clip: bool) -> Iterator[_Job]:
    for folder, source in enumerate(sources):
        if not len(source.index):
            continue
        stat = files[folder].stat()
        where = (folder, source.index.base, str(files[folder]), (stat.st_ino, stat.st_mtime_ns, stat.st_size))
        for number, shard in enumerate(source.index.shards):
            if quick:
                yield _Job(*where, number, None, len(shard), is_quick=True)
                continue
            yield _Job(*where, number)
            for start in range(0, len(shard), _CHUNK):
                yield _Job(*where, number, start, min(start + _CHUNK, len(shard)), with_clip=with_clip)


def _work(job: _Job) -> tuple[_Job, list[Problem], list[Examined]]:
    """Do a job; runs in a worker process."""
    if parent_process() is not None:
        # A worker is one thread: processes already use every core.
        cv2.setNumThreads(1)
    source = _opened(job.place, job.index, job.stamp)
    shard = source.index.shards[job.shard]
    problems = [] if job.start is not None else check_tar(Path(job.place) / shard.name, shard)
    if job.is_quick:
        is_damaged = any(problem.severity == "error" for problem in problems)
        return job, problems, [check_quickly(source, job.shard, i, read=is_damaged) for i in range(job.stop)]
    samples = [check_sample(source, job.shard, i, with_clip=job.with_clip) for i in range(job.start or 0, job.stop)]
    return job, problems, samples


@lru_cache(maxsize=4)
def _opened(place: str, index: str, stamp: tuple[int, int, int]) -> ShardSource:
    """One index is read once a process, and again when its file is another (``stamp``)."""
    return IndexedSource(Index.parse(Path(index).read_bytes(), base=place, path=index))


def _count(report: CheckReport, sample: Examined, seen: set[str]) -> None:
    if sample.key in seen:
        report.add(Problem("error", sample.shard, sample.key, None, "another sample has this key"))
    seen.add(sample.key)
    report.num_samples += 1
    report.num_members += sample.num_members
    report.num_objects += sample.num_objects
    report.num_frames += sample.num_frames
    for problem in sample.problems:
        report.add(problem)


def _prints_of_bytes(sources: Sequence[ShardSource], clips: Sequence[_Clip]) -> list[Fingerprint | None]:
    """Fingerprints that know only whether clips have the same bytes; those that may have are read."""
    alike: dict[tuple[int, int], list[int]] = {}
    for number, clip in enumerate(clips):
        shard = sources[clip.folder].index.shards[clip.shard]
        found = attempt(lambda of=shard, at=clip.sample: [of.members(at)])  # type: ignore[misc]
        for member in found[0] if isinstance(found, list) else ():
            if member.suffix.lower() == VIDEO:
                alike.setdefault((member.length, member.crc32), []).append(number)
    nothing = np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint8)
    prints: list[Fingerprint | None] = [None] * len(clips)
    for number in (number for numbers in alike.values() if len(numbers) > 1 for number in numbers):
        digest = attempt(lambda clip=clips[number]: _digest(sources[clip.folder], clip))  # type: ignore[misc]
        if isinstance(digest, bytes):
            prints[number] = Fingerprint(digest, *nothing, is_plain=True)
    return prints


def _digest(source: ShardSource, clip: _Clip) -> bytes:
    (data,) = source.read(clip.shard, clip.sample, (VIDEO,)).values()
    return hashlib.sha256(data).digest()


def _report_copy(
    reports: Sequence[CheckReport], sources: Sequence[ShardSource], clips: Sequence[_Clip], copy: Copy
) -> None:
    clip, of = clips[copy.number], clips[copy.of]
    shard, key = sources[clip.folder].name(clip.shard, clip.sample)
    _, earlier = sources[of.folder].name(of.shard, of.sample)
    verb = ("repeats", "is in") if copy.is_sure else ("looks like", "may be in")
    if clip.folder == of.folder:
        problem = Problem("warning", shard, key, VIDEO, f"{verb[0]} sample {earlier} ({copy})")
    else:
        severity: Severity = "error" if copy.is_sure else "warning"
        where = f"{reports[of.folder].folder} too, as sample {earlier}"
        problem = Problem(severity, shard, key, VIDEO, f"{verb[1]} {where} ({copy})")
    reports[clip.folder].add(problem)
