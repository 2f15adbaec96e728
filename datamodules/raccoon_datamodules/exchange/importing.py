"""`raccoon vplm import`: a messages JSONL to shards. The format: `raccoon_datamodules.exchange.report`.

A line that `export_messages` wrote gives back the sample it was made from, clips byte for byte; what it says may have
been edited meanwhile (the text, the masks), which is then what counts. Any other line gives a clip and the paragraph
that is read from the answer: frames are decoded and encoded anew, since a shard's clips have no sound, no rotation and
one size. Boxes without masks are kept as they are in the sample's ``meta`` (`foreign_boxes`), and exported again.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raccoon_datamodules import members
from raccoon_datamodules.build.keys import video_key
from raccoon_datamodules.exchange.lines import foreign_boxes, read_answer, restore
from raccoon_datamodules.exchange.report import EXTRA_FIELD, ExchangeProblem, ExchangeReport, place_of
from raccoon_datamodules.faults import attempt
from raccoon_datamodules.index import check_split
from raccoon_datamodules.limits import MAX_LINE_BYTES, readable
from raccoon_datamodules.parallel import ordered
from raccoon_datamodules.sample import VplmSample, encode
from raccoon_datamodules.video import Video, encode_clip
from raccoon_datamodules.writer import write_encoded

Progress = Callable[[int, int], None]

# What a folder of shards consists of.
_OURS = re.compile(r"index\.json(\.old-\d+)?|[A-Za-z0-9_-][A-Za-z0-9._-]*\.tar|\.writing-.*|\.DS_Store")
# Of what is passed over of a line that is too long.
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class _Job:
    number: int
    text: bytes
    file: Path
    allow_outside: bool
    max_frames: int | None
    crf: int


@dataclass(frozen=True, slots=True)
class _Sample:
    """A line's sample, encoded; ``is_exact``: the key is the line's own and must not be changed."""

    key: str
    data: dict[str, bytes]
    is_exact: bool
    notes: list[str]


def import_messages(
    file: str | Path,
    out: str | Path,
    *,
    split: str | None = None,
    allow_outside: bool = False,
    max_frames: int | None = None,
    crf: int = 18,
    samples_per_shard: int = 1000,
    workers: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExchangeReport:
    """Write the lines of a JSONL, or the items of a JSON list, as shards into the folder ``out``.

    ``split`` defaults to the file's name without its suffix. ``allow_outside`` lets a line name files that are not
    under the JSONL's folder. Of a foreign clip at most ``max_frames`` are kept, the middles of as many equal segments,
    as H.264 at ``crf``. Lines that give no sample are left out and reported with their numbers.

    Raises:
        FileNotFoundError: if the file is not there.
        FileExistsError: if ``out`` holds shards and ``overwrite`` is False, or anything else.
        ValueError: if an argument is out of range, a list is damaged, the file is a folder, or no line gives a sample.
        OSError: if the disk is full or the place cannot be written.
    """
    file = Path(file)
    if file.is_dir():
        lists = ", ".join(sorted(path.name for path in file.glob("*.jsonl"))) or "none"
        raise ValueError(f"{file} is a folder; name the JSONL to import (in it: {lists})")
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file} to import")
    _check_out(Path(out))
    if not 0 <= crf <= 51:
        raise ValueError(f"crf must lie in 0 (best) to 51 (smallest), got {crf}")
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"max_frames must be at least 1, got {max_frames}")
    split = check_split(file.stem if split is None else split)
    total = sum(1 for _ in _texts(file))
    unit = "item" if _is_list(file) else "line"
    report = ExchangeReport(str(out))

    def samples(results: Iterator[tuple[_Job, _Sample | str]]) -> Iterator[tuple[str, dict[str, bytes]]]:
        seen: dict[str, int] = {}
        for job, result in results:
            report.num_read += 1
            where = f"{file}, {unit} {job.number}"
            if isinstance(result, _Sample) and result.is_exact and result.key in seen:
                result = f"key {result.key} is that of {unit} {seen[result.key]} already"
            if isinstance(result, str):
                report.add([ExchangeProblem("bad", where, result)])
            else:
                report.add(ExchangeProblem("note", where, note) for note in result.notes)
                report.num_written += 1
                key = result.key if result.key not in seen else f"{result.key[:100]}-{unit}{job.number}"
                seen[key] = job.number
                yield key, result.data if key == result.key else _renamed(result.data, key)
            if progress is not None:
                progress(report.num_read, total)

    jobs = _jobs(file, allow_outside=allow_outside, max_frames=max_frames, crf=crf)
    with ordered(_work, jobs, workers=workers) as results:
        pending = samples(results)
        first = next(pending, None)
        if first is None:
            why = f"; the first: {report.problems[0]}" if report.problems else ", it is empty"
            if file.suffix.lower() == ".json" and unit == "line":
                why += "; a .json file holds one list of all, a .jsonl an object a line"
            raise ValueError(f"no {unit} of {file} gives a sample{why}")
        write_encoded(
            _chained(first, pending), out, split=split, samples_per_shard=samples_per_shard, overwrite=overwrite
        )
    return report


def _check_out(out: Path) -> None:
    """Shards go into a folder of their own: what else lies there is somebody's, and an index would be beside it."""
    strange = sorted(path.name for path in out.iterdir() if not _OURS.fullmatch(path.name)) if out.is_dir() else []
    if strange:
        raise FileExistsError(f"{out} holds what no import wrote ({strange[0]}); choose another folder")


def _chained(first: tuple[str, dict[str, bytes]], rest: Iterator[Any]) -> Iterator[tuple[str, dict[str, bytes]]]:
    yield first
    yield from rest


def _jobs(file: Path, *, allow_outside: bool, max_frames: int | None, crf: int) -> Iterator[_Job]:
    for number, text in _texts(file):
        yield _Job(number, text, file, allow_outside, max_frames, crf)


def _texts(file: Path) -> Iterator[tuple[int, bytes]]:
    """(number from 1, JSON) of every line that is not empty, or of every item of a list."""
    if _is_list(file):
        for number, item in enumerate(_items(file), 1):
            yield number, json.dumps(item).encode()
        return
    with file.open("rb") as lines:
        number = 0
        # One more than is taken: longer lines are refused with what they begin with, and their rest is passed over.
        while text := lines.readline(MAX_LINE_BYTES + 1):
            number += 1
            rest = text
            while not rest.endswith(b"\n") and (rest := lines.readline(_PIECE)):
                pass
            if text.strip():
                yield number, text


def _is_list(file: Path) -> bool:
    """Whether a file is one JSON list, as LLaMA-Factory's often are, and no JSONL."""
    with file.open("rb") as raw:
        return file.suffix.lower() == ".json" and raw.read(64).lstrip().startswith(b"[")


def _items(file: Path) -> list[Any]:
    try:
        items: list[Any] = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as err:
        raise ValueError(f"{file} begins a JSON list but is none: {err}") from err
    return items


def _work(job: _Job) -> tuple[_Job, _Sample | str]:
    """Make the sample of a line, or say why there is none; runs in a worker process."""
    result = attempt(lambda: [_sample_of(job)])
    if isinstance(result, tuple):
        return job, ": ".join(part for part in result if part)
    return job, result[0]


def _sample_of(job: _Job) -> _Sample:
    if len(job.text) > MAX_LINE_BYTES:
        raise ValueError(f"a line must have at most {readable(MAX_LINE_BYTES)}, this one has more")
    line = members.load_json(job.text.removeprefix(b"\xef\xbb\xbf"), "the line", limit=MAX_LINE_BYTES)
    if not isinstance(line, dict):
        raise ValueError(f"a line must hold an object with messages and videos, got {type(line).__name__}")
    base = job.file.parent
    if line.get(EXTRA_FIELD) is not None:
        key, data, notes = restore(line, base, allow_outside=job.allow_outside)
        return _Sample(key, data, is_exact=True, notes=notes)
    answer = read_answer(line)
    if not answer.paragraph.description and not answer.paragraph.objects:
        raise ValueError("its answer holds no paragraph")
    path = place_of(answer.video, base, allow_outside=job.allow_outside)
    video = Video.read(path, max_frames=job.max_frames)
    given = line.get("id")
    key = video_key(str(given)) if isinstance(given, (str, int)) and str(given) else video_key(path.stem)
    source: dict[str, Any] = {"file": job.file.name, "line": job.number, "video": answer.video}
    boxes, notes = foreign_boxes(line.get("objects"))
    if boxes is not None:
        source["objects"] = boxes
    sample = VplmSample(key, video, answer.paragraph, (), meta={"source": source})
    data = encode(sample, encode_video=lambda clip: encode_clip(clip, crf=job.crf))
    return _Sample(key, data, is_exact=False, notes=[*answer.notes, *notes])


def _renamed(data: dict[str, bytes], key: str) -> dict[str, bytes]:
    meta = members.load_json(data[members.META], members.META)
    return {**data, members.META: members.dump_json({**meta, "key": key}, members.META)}
