"""`build`: source videos to shards, in processes, picking up where an earlier run has ended or was ended."""

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from raccoon_datamodules.build.assemble import Shelf, Wanted, assemble, plan
from raccoon_datamodules.build.findings import Finding, Reason, table
from raccoon_datamodules.build.item import ItemJob, make_item
from raccoon_datamodules.build.keys import SplitPolicy, name_hash, video_key
from raccoon_datamodules.build.options import BuildOptions
from raccoon_datamodules.build.sources import SourceVideo
from raccoon_datamodules.build.staging import STATE, Items, Ledger, Record, locked, with_split, write_json
from raccoon_datamodules.parallel import ordered

REPORT_NAME = "build-report.json"

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class BuildReport:
    """What a data set holds after a build, what was left out and why, and what this run has done.

    ``splits``: split to the numbers of its videos, samples, objects, frames and shards. ``made`` and ``kept`` count
    source videos that this run has and has not worked on, ``empty`` those of ``made`` that have no sample; ``changed``
    says whether any shard was written or removed.
    """

    out: str
    splits: dict[str, dict[str, int]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    made: int = 0
    kept: int = 0
    empty: int = 0
    changed: bool = False

    @property
    def num_samples(self) -> int:
        """Samples of all splits."""
        return sum(counts["samples"] for counts in self.splits.values())

    @property
    def reasons(self) -> list[Reason]:
        """The table of reasons."""
        return table(self.findings)

    def to_json(self) -> dict[str, Any]:
        """What stands in ``build-report.json``: the same for the same data set, whatever the run has done."""
        rows = [
            {"level": r.level, "what": r.what, "reason": r.reason, "count": r.count, "example": r.example}
            for r in self.reasons
        ]
        return {"splits": self.splits, "reasons": rows, "findings": [f.to_json() for f in self.findings]}


def build(
    videos: Sequence[SourceVideo],
    out: str | Path,
    *,
    options: BuildOptions | None = None,
    splits: SplitPolicy | None = None,
    findings: Iterable[Finding] = (),
    workers: int = 0,
    samples_per_shard: int = 1000,
    max_bytes: int = 1 << 30,
    prune: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> BuildReport:
    """Build the samples of source videos into ``out/SPLIT/``, doing only what is missing there.

    A video is built again if its files (names, sizes, times; where these differ, their content) or what is known of it
    changed. Samples of videos that are no longer given stay, unless ``prune``. ``findings``: what finding the videos
    has found, for the report. ``workers`` processes build; ``progress`` is called with (videos done, all to do). The
    same videos and options give the same bytes, also after an interrupt, with any number of workers.

    Raises:
        ValueError: if a number is out of range, or the folder was built with other options.
        FileExistsError: if the folder holds shards that no build has made.
        RuntimeError: if another process builds there, or a worker process was ended.
        OSError: if the folder cannot be written or the disk is full; what is finished is kept for the next run.
    """
    if samples_per_shard < 1 or max_bytes < 1:
        raise ValueError(f"samples_per_shard and max_bytes must be positive, got {samples_per_shard} and {max_bytes}")
    options, splits, out = options or BuildOptions(), splits or SplitPolicy(), Path(out)
    settings = {**options.to_json(), "samples_per_shard": samples_per_shard, "max_bytes": max_bytes}
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"a data set is built into a folder, but {out} is a file")
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        ledger = Ledger.load(out) if not overwrite else Ledger()
        if overwrite:
            _remove(out)
        _check_place(out, ledger, settings)
        items = Items(out)
        items.prepare()
        # Written before anything is made, so that a run with other options never mixes with this one.
        write_json(out / STATE / "options.json", settings)
        report = BuildReport(str(out), findings=list(findings))
        unique = _without_collisions(videos, ledger, report.findings)
        names = sorted({*ledger.shards, *(splits.of(v.name) for v in unique), *_started(out)})
        shelves = {name: Shelf(out, name, ledger.shards.get(name, [])) for name in names}
        records = _make(unique, options, ledger, items, shelves, report, workers, progress)
        records = [with_split(record, splits.of(record.video)) for record in records]
        given = {video.name for video in videos}
        gone = [record for name, record in ledger.videos.items() if name not in given]
        for record in gone if not prune else ():
            text = "its source is no longer there; its samples are kept (drop them with --prune)"
            report.findings.append(Finding("note", "video", "source is gone", record.video, "", text))
        records += [] if prune else [record for record in gone if record.samples]
        records = _unique_keys(records, report.findings)
        _finish(out, settings, records, ledger, items, shelves, report, samples_per_shard, max_bytes)
        return report


def _remove(out: Path) -> None:
    """Remove what a build has made, and nothing else."""
    for split in _started(out):
        for path in (out / split).glob(f"vplm-{split}-*.tar"):
            path.unlink()
        (out / split / "index.json").unlink(missing_ok=True)
        with suppress(OSError):
            (out / split).rmdir()
    (out / REPORT_NAME).unlink(missing_ok=True)
    for name in ("items", "shards"):
        shutil.rmtree(out / STATE / name, ignore_errors=True)
    for name in ("ledger.json", "options.json"):
        (out / STATE / name).unlink(missing_ok=True)


def _started(out: Path) -> list[str]:
    """Splits that the folder holds or that a run has begun to stage."""
    found = {path.parent.name for path in out.glob("*/vplm-*.tar")}
    found |= {path.name for path in (out / STATE / "shards").glob("*") if path.is_dir()}
    return sorted(found)


def _check_place(out: Path, ledger: Ledger, settings: dict[str, Any]) -> None:
    before = ledger.options
    state = out / STATE / "options.json"
    if before is None and state.exists():
        with suppress(ValueError):
            before = json.loads(state.read_text(encoding="utf-8"))
    if before is None:
        foreign = [*out.glob("*/vplm-*.tar"), *out.glob("*.tar"), *out.glob("index.json"), *out.glob("*/index.json")]
        if foreign:
            raise FileExistsError(
                f"{out} holds shards that no build has made ({foreign[0].relative_to(out)}): choose another folder"
            )
    elif before != settings:
        then, now = _flat(before), _flat(settings)
        changed = [
            f"{name} was {then.get(name)}, is {now.get(name)}"
            for name in sorted({*then, *now})
            if then.get(name) != now.get(name)
        ]
        raise ValueError(
            f"{out} was built with other options ({'; '.join(changed)}): use those, choose another folder, or build it "
            "anew with --overwrite"
        )


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with those of the sampling among them."""
    sampling = settings.get("sampling")
    return {**settings, "sampling": None, **sampling} if isinstance(sampling, dict) else settings


def _without_collisions(videos: Sequence[SourceVideo], ledger: Ledger, findings: list[Finding]) -> list[SourceVideo]:
    """The videos whose keys nobody else has: those of the data set first, then in the order given."""
    owner = {video_key(name): name for name, record in ledger.videos.items() if record.samples}
    unique, seen = [], set()
    for video in videos:
        first = owner.setdefault(video.key, video.name)
        if first != video.name or video.name in seen:
            text = f"its key {video.key} is that of video {first}: rename it"
            findings.append(Finding("left out", "video", "key taken by another video", video.name, "", text))
            continue
        seen.add(video.name)
        unique.append(video)
    return unique


def _unique_keys(records: Sequence[Record], findings: list[Finding]) -> list[Record]:
    """The records without samples whose key another video has: ``a-f000000`` may be a clip of ``a`` or a video."""
    owner: dict[str, str] = {}
    unique = []
    for record in records:
        kept = tuple(ref for ref in record.samples if owner.setdefault(ref.key, record.video) == record.video)
        new = [
            Finding(
                "left out",
                "clip",
                "key taken by another clip",
                record.video,
                ref.key,
                f"its key {ref.key} is that of a clip of {owner[ref.key]}: rename the video",
            )
            for ref in record.samples
            if ref not in kept
        ]
        findings += new
        unique.append(replace(record, samples=kept, findings=(*record.findings, *new)) if new else record)
    return unique


def _make(
    videos: Sequence[SourceVideo],
    options: BuildOptions,
    ledger: Ledger,
    items: Items,
    shelves: dict[str, Shelf],
    report: BuildReport,
    workers: int,
    progress: Progress | None,
) -> list[Record]:
    """A record for every video, built now or before, in the order given."""
    records: dict[str, Record] = {}
    jobs: list[ItemJob] = []
    before: dict[str, Record] = {}
    for video in videos:
        staged = items.record(video.id)
        known = staged if staged is not None and staged.video == video.name else ledger.videos.get(video.name)
        if known is not None and not _is_there(known, video.id, items, shelves):
            known = None
        if known is not None:
            before[video.name] = known
        try:
            identity = video.identity()
        except OSError:
            # The worker will meet it too, and say so in its record.
            identity = ""
        if known is not None and known.identity == identity:
            records[video.name] = known
        else:
            jobs.append(ItemJob(video, options, report.out, identity, known))
    report.kept, report.made = len(records), len(jobs)
    with ordered(make_item, jobs, workers=workers) as results:
        try:
            for number, record in enumerate(results, 1):
                if record.retry and record.video in before:
                    # What could be read before stays; the finding says that it cannot now.
                    record = replace(before[record.video], findings=record.findings, identity="")
                records[record.video] = record
                if progress is not None:
                    progress(number, len(jobs))
        except BaseException:
            # The processes would finish their videos first, of many clips perhaps.
            with suppress(OSError):
                items.stop()
            raise
    report.empty = sum(not records[job.video.name].samples for job in jobs)
    for video in videos:
        report.findings += records[video.name].findings
    return [records[video.name] for video in videos]


def _is_there(record: Record, item: str, items: Items, shelves: dict[str, Shelf]) -> bool:
    """Whether all samples of a record can still be had."""
    if items.has_samples(item) and items.record(item) == record:
        return True
    return all(
        any(shelf.locate(ref.key, ref.digest) is not None for shelf in shelves.values()) for ref in record.samples
    )


def _finish(
    out: Path,
    settings: dict[str, Any],
    records: Sequence[Record],
    ledger: Ledger,
    items: Items,
    shelves: dict[str, Shelf],
    report: BuildReport,
    samples_per_shard: int,
    max_bytes: int,
) -> None:
    """Write the shards that are missing, bring everything to its place, and remember it."""
    planned = {}
    for split, shelf in shelves.items():
        wanted = [
            Wanted(ref, name_hash(record.video, size=12))
            for record in records
            if record.split == split
            for ref in record.samples
        ]
        shards = plan(split, shelf.shards, wanted, samples_per_shard=samples_per_shard, max_bytes=max_bytes)
        planned[split] = shards
        others = [other for name, other in shelves.items() if name != split]

        def elsewhere(key: str, digest: str, others: list[Shelf] = others) -> tuple[Path, str] | None:
            return next((found for shelf in others if (found := shelf.locate(key, digest)) is not None), None)

        assemble(shelf, shards, wanted, items, elsewhere=elsewhere)
    for split, shelf in shelves.items():
        report.changed |= shelf.commit(planned[split])
    for split, shards in planned.items():
        if not shards:
            continue
        mine = [record for record in records if record.split == split and record.samples]
        refs = [ref for record in mine for ref in record.samples]
        report.splits[split] = {
            "videos": len(mine),
            "samples": len(refs),
            "objects": sum(ref.objects for ref in refs),
            "frames": sum(ref.frames for ref in refs),
            "shards": len(shards),
        }
    done = {record.video: record for record in records if not record.retry}
    Ledger(settings, done, {split: shards for split, shards in planned.items() if shards}).save(out)
    write_json(out / REPORT_NAME, report.to_json(), indent=1)
    items.clear()
    shutil.rmtree(out / STATE / "shards", ignore_errors=True)
