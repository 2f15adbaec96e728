"""`raccoon vplm export`: shards to JSONL with media files beside. The format: `raccoon_datamodules.exchange.report`.

Clips are copied byte for byte and records value for value, so that `import_messages` makes the same samples again. A
folder is written under another name and renamed when it is complete.
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules import members
from raccoon_datamodules.atomic import FULL, disk_full
from raccoon_datamodules.exchange import rle
from raccoon_datamodules.exchange.lines import foreign_boxes
from raccoon_datamodules.exchange.report import (
    EXTRA_FIELD,
    EXTRA_SCHEMA,
    TAGS,
    VIDEO_TAG,
    ExchangeProblem,
    ExchangeReport,
    dump_line,
)
from raccoon_datamodules.faults import attempt
from raccoon_datamodules.limits import MAX_LINE_BYTES, readable
from raccoon_datamodules.masks import write_masks
from raccoon_datamodules.members import MemberError, ObjectInfo, object_suffix, parse_suffix
from raccoon_datamodules.parallel import ordered
from raccoon_datamodules.prompts import DESCRIBE_ALL
from raccoon_datamodules.sources import ShardSource
from raccoon_datamodules.view import MemberView

MaskFormat = Literal["rle", "png"]
Progress = Callable[[int, int], None]

_CHUNK = 16
_INFO = "dataset_info.json"
# What an export consists of; a folder with anything else in it is never replaced.
_OURS = re.compile(r"dataset_info\.json|[A-Za-z0-9_]{1,40}\.jsonl|media|masks|members")
_FILE_SUFFIX = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,119}")


@dataclass(frozen=True, slots=True)
class _Job:
    place: str
    fingerprint: str
    shard: int
    start: int
    stop: int
    out: Path
    masks: MaskFormat
    prompt: str
    prefix: str


def export_messages(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    masks: MaskFormat = "rle",
    prompt: str = DESCRIBE_ALL,
    absolute: bool = False,
    workers: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExchangeReport:
    """Write the samples of some folders of shards, each of a split of its own, as ``out/SPLIT.jsonl`` and media.

    ``prompt`` is the user's message; ``absolute`` names media by their whole paths, which trainers find from any
    folder, instead of from the JSONL's. A sample that cannot be read is left out and reported.

    Raises:
        FileNotFoundError: if a folder or its index is not there.
        FileExistsError: if ``out`` holds an export and ``overwrite`` is False, or anything else.
        ValueError: if an argument is out of range, two folders hold one split, or no sample can be read.
        OSError: if the disk is full or the place cannot be written.
    """
    if masks not in ("rle", "png"):
        raise ValueError(f"masks must be rle or png, got {masks!r}")
    sources = [ShardSource(folder) for folder in folders]
    splits = [source.index.split for source in sources]
    if len(set(splits)) < len(splits):
        raise ValueError(f"each folder must hold a split of its own, got {', '.join(splits)}")
    out = Path(out)
    _check_out(out, overwrite=overwrite)
    work = out.resolve().with_name(f".writing-{out.resolve().name}-{secrets.token_hex(4)}")
    report = ExchangeReport(str(out))
    try:
        work.mkdir(parents=True)
        prefix = f"{out.resolve()}/" if absolute else ""
        total = sum(len(source.index) for source in sources)
        for source in sources:
            jobs = _jobs(source, work, masks=masks, prompt=prompt, prefix=prefix)
            with (
                (work / f"{source.index.split}.jsonl").open("w", encoding="utf-8") as file,
                ordered(_work, jobs, workers=workers) as results,
            ):
                for lines, problems, count in results:
                    file.writelines(lines)
                    report.num_written += len(lines)
                    report.num_read += count
                    report.add(problems)
                    if progress is not None:
                        progress(report.num_read, total)
        if not report.num_written:
            raise ValueError(f"none of the {total} samples can be read; the first: {report.problems[0]}")
        info = {f"vplm_{split}": _dataset_info(split) for split in splits}
        (work / _INFO).write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
        _move(work, out)
    except OSError as err:
        if err.errno in FULL:
            raise disk_full(out, err) from err
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return report


def _check_out(out: Path, *, overwrite: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise FileExistsError(f"an export is written into a folder, but {out} is a file")
    names = sorted(entry.name for entry in out.iterdir())
    strange = [name for name in names if not _OURS.fullmatch(name)]
    if strange or (names and _INFO not in names):
        raise FileExistsError(f"{out} holds what no export wrote ({(strange or names)[0]}); choose another folder")
    if names and not overwrite:
        raise FileExistsError(f"{out} holds an export already: choose another folder or pass --overwrite to replace it")


def _move(work: Path, out: Path) -> None:
    """Put the finished folder in its place; what was there goes only when that has been done."""
    target = out.resolve()
    old = work.with_name(f"{work.name}-old")
    if target.exists():
        os.replace(target, old)
    os.replace(work, target)
    shutil.rmtree(old, ignore_errors=True)


def _dataset_info(split: str) -> dict[str, Any]:
    return {
        "file_name": f"{split}.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "videos": "videos"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    }


def _jobs(source: ShardSource, out: Path, *, masks: MaskFormat, prompt: str, prefix: str) -> Iterator[_Job]:
    index = source.index
    for shard, size in enumerate(index.shard_sizes):
        for start in range(0, size, _CHUNK):
            stop = min(start + _CHUNK, size)
            yield _Job(index.base, index.fingerprint(), shard, start, stop, out, masks, prompt, prefix)


@lru_cache(maxsize=2)
def _opened(place: str, fingerprint: str) -> ShardSource:
    """An index is read once a process, and anew when it is another."""
    return ShardSource(place)


def _work(job: _Job) -> tuple[list[str], list[ExchangeProblem], int]:
    """Write some samples' files and return their lines; runs in a worker process."""
    source = _opened(job.place, job.fingerprint)
    lines: list[str] = []
    problems: list[ExchangeProblem] = []
    for sample in range(job.start, job.stop):
        where = ": ".join(source.name(job.shard, sample))
        result = attempt(lambda at=sample: [_line_of(source, at, job)])  # type: ignore[misc]
        if isinstance(result, tuple):
            problems.append(ExchangeProblem("bad", where, ": ".join(filter(None, result))))
            continue
        line, notes, files = result[0]
        # Not within the attempt: a full disk is no fault of the sample.
        files.flush()
        lines.append(line)
        problems += [ExchangeProblem("note", where, note) for note in notes]
    return lines, problems, job.stop - job.start


def _line_of(source: ShardSource, sample: int, job: _Job) -> tuple[str, list[str], "_Files"]:
    """A sample's line, notes, and files, which are not written yet."""
    data = source.read(job.shard, sample)
    view = MemberView(data)
    _, key = source.name(job.shard, sample)
    if view.key != key:
        raise MemberError(members.META, f"must hold the key {key}, holds {view.key}")
    split = source.index.split
    paragraph, *phrasings = view.paragraphs()
    files = _Files(job, split, key)
    video = files.add("media", "mp4", view.bytes_of(members.VIDEO))
    infos, objects = [], []
    for object_id in view.meta.objects:
        info = view.object(object_id)
        infos.append(info)
        entry: dict[str, Any] = {"record": _json(view, object_suffix("object", object_id))}
        entry["mask"] = files.add_mask(object_id, view.mask(object_id))
        inpainted = object_suffix("inpainted", object_id)
        if view.has(inpainted):
            entry["inpainted"] = files.add("media", inpainted, view.bytes_of(inpainted))
        objects.append(entry)
    extra = {
        "schema": EXTRA_SCHEMA,
        "meta": _json(view, members.META),
        "phrasings": [members.paragraph_to_json(p) for p in phrasings],
        "edits": _json(view, members.EDITS),
        "objects": objects,
        "members": {s: files.add("members", s, data[s]) for s in data if parse_suffix(s) is None},
    }
    text = str(paragraph)
    notes = [f"its text holds {tag}, which trainers take for a placeholder" for tag in TAGS if tag in text]
    line = {
        "messages": [
            {"role": "user", "content": f"{VIDEO_TAG}{job.prompt}"},
            {"role": "assistant", "content": text},
        ],
        "videos": [video],
        "objects": _boxes(infos) if infos else _kept_boxes(view) or _boxes(infos),
        EXTRA_FIELD: json.dumps(extra, ensure_ascii=False, allow_nan=False),
    }
    return dump_line(line), notes, files


def _json(view: MemberView, suffix: str) -> Any:
    """A record as it stands, fields that this version does not know included."""
    return members.load_json(view.bytes_of(suffix), suffix)


def _boxes(infos: Sequence[ObjectInfo]) -> dict[str, Any]:
    """Each object's name and its box in the frame where it is largest; without those that are never seen."""
    seen = [info for info in infos if not np.isnan(info.boxes).all()]
    largest = [int(np.where(np.isnan(info.boxes[:, 0]), -1, info.area).argmax()) for info in seen]
    boxes = [[float(v) for v in info.boxes[frame]] for info, frame in zip(seen, largest, strict=True)]
    return {"ref": [info.name for info in seen], "bbox": boxes, "bbox_type": "norm1"}


def _kept_boxes(view: MemberView) -> dict[str, Any] | None:
    """The boxes that an import of somebody else's line has kept."""
    source = view.meta.extra.get("source")
    return foreign_boxes(source.get("objects") if isinstance(source, dict) else None)[0]


class _Files:
    """The files of one sample, written by `flush`; gives the names by which the JSONL calls them."""

    def __init__(self, job: _Job, split: str, key: str) -> None:
        self._job = job
        self._split = split
        self._key = key
        self._pending: list[tuple[Path, bytes | NDArray[np.uint8]]] = []

    def add(self, folder: str, suffix: str, data: bytes) -> str:
        """A file as it is."""
        if not _FILE_SUFFIX.fullmatch(suffix):
            raise MemberError(suffix, "has a name that may not be a file's")
        return self._add(f"{folder}/{self._split}/{self._key}.{suffix}", data)

    def add_mask(self, object_id: str, mask: NDArray[np.uint8]) -> str:
        """A mask uint8 {0, 1} [F, H, W], as a list of run-length encodings or a folder of PNGs."""
        if self._job.masks == "png":
            return self._add(f"masks/{self._split}/{self._key}/{object_id}", mask)
        text = json.dumps([rle.encode_rle(frame) for frame in mask])
        if len(text) > MAX_LINE_BYTES:
            reason = f"has {readable(len(text))} as run lengths, more than is imported again; export masks as png"
            raise MemberError(object_suffix("mask", object_id), reason)
        return self._add(f"masks/{self._split}/{self._key}.{object_id}.json", text.encode("ascii"))

    def flush(self) -> None:
        """Write them; raises OSError where that fails."""
        for path, data in self._pending:
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(data, bytes):
                path.write_bytes(data)
            else:
                write_masks(data, path)

    def _add(self, name: str, data: bytes | NDArray[np.uint8]) -> str:
        self._pending.append((self._job.out / name, data))
        return f"{self._job.prefix}{name}"
