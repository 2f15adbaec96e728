"""Reads the released VPLM lists (``gt_train.json``, ``gt_test.json``, ``gt_test_layouts.json``, ``v4_*.json``, ...).

The code released with the paper reads lists of ``{"vid", "mask_id", "description"}``, partly with ``task`` and
``prompt``; the files themselves vary, so everything that means the same is taken: ids as numbers or text, other names
of the fields, a dict by video (and by mask) in place of a list, a list inside a dict, LLaVA's ``conversations``,
layouts as text or numbers. A record that cannot be read is named with its reason, as is later one that no video has a
place for.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from raccoon_datamodules.build.findings import Finding
from raccoon_datamodules.build.keys import object_id, plain_name
from raccoon_datamodules.build.sources import VIDEOS
from raccoon_datamodules.paragraph import has_heading

RecordKind = Literal["paragraph", "object", "layout", "prompt"]
# Field names by meaning, the released ones first.
_VIDEO = ("vid", "video_id", "vid_id", "video_name", "video", "id", "name")
_MASK = ("mask_id", "maskid", "mask", "obj_id", "object_id")
_TEXT = ("description", "caption", "desc", "paragraph", "text", "answer", "a", "output", "response")
_LAYOUT = ("layout", "layouts", "boxes", "bboxes", "bbox")
_PROMPT = ("prompt", "edit_prompt", "instruction", "edit")
_INSIDE = ("data", "annotations", "samples", "records", "items", "videos", "list")
_TASKS = {
    "removal": ("removal", "remove", "removing", "delete"),
    "adding": ("adding", "add", "addition", "insert"),
    "editing": ("editing", "edit", "change", "changing", "attribute", "replace"),
}
_LAYOUT_TEXT = re.compile(r"frame[ _]?\d+\W{0,4}[:=]?\s*[\[{(]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Record:
    """One record: what it says (``text``) of a video, or of one of its objects (``mask_id``).

    ``task`` is "removal", "adding", "editing" or ""; ``prompt`` the written edit or ""; ``place`` where it stands.
    """

    vid: str
    mask_id: str | None
    kind: RecordKind
    text: str
    task: str
    prompt: str
    place: str


def read_released(paths: Sequence[str | Path]) -> tuple[list[Record], list[Finding]]:
    """Read lists, in the order given; records that cannot be read become findings.

    Raises:
        FileNotFoundError: if a file is not there.
        ValueError: if one is not JSON (or JSON lines), or holds no list of records.
    """
    records: list[Record] = []
    findings: list[Finding] = []
    for path in map(Path, paths):
        if not path.is_file():
            raise FileNotFoundError(f"there is no released list {path}: check the name")
        before = len(records) + len(findings)
        for place, value in _entries(_load(path), path.name, {}):
            found = _record(value, place)
            if isinstance(found, str):
                reason = found.partition(",")[0]
                vid = _first(value, _VIDEO) if isinstance(value, dict) else None
                findings.append(Finding("left out", "record", reason, str(vid or ""), place, found))
            else:
                records += found
        if len(records) + len(findings) == before:
            raise ValueError(f"{path} must hold records such as {{vid, mask_id, description}}, it holds none")
    return records, findings


def _load(path: Path) -> Any:
    text = path.read_text(encoding="utf-8-sig")
    try:
        return json.loads(text)
    except RecursionError as err:
        raise ValueError(f"{path} is nested too deeply for a list of records") from err
    except ValueError as err:
        lines = [line for line in text.splitlines() if line.strip()]
        try:
            if len(lines) > 1:
                return [json.loads(line) for line in lines]
        except (ValueError, RecursionError):
            pass
        raise ValueError(f"{path} must be JSON or JSON lines: {err}") from err


def _entries(value: Any, place: str, known: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every record of a list, or of a dict by video (and by mask); ``known`` is what its keys have said."""
    if isinstance(value, list):
        for number, entry in enumerate(value):
            yield f"{place}[{number}]", {**known, **entry} if isinstance(entry, dict) else _wrap(entry, known)
        return
    if not isinstance(value, dict):
        yield place, _wrap(value, known)
        return
    if known or (_first(value, _VIDEO) is not None and not _is_by_name(value)):
        nested = "vid" in known and "mask_id" not in known and _is_by_mask(value)
        if not nested:
            yield place, {**known, **value}
            return
        for mask_id, entry in value.items():
            yield from _entries(entry, f"{place}[{mask_id!r}]", {**known, "mask_id": mask_id})
        return
    inside = [name for name in _INSIDE if isinstance(value.get(name), list | dict)]
    if inside and len(value) <= 4:
        for name in inside:
            yield from _entries(value[name], f"{place}.{name}", known)
        return
    for vid, entry in value.items():
        yield from _entries(entry, f"{place}[{vid!r}]", {"vid": vid})


def _is_by_name(value: dict[str, Any]) -> bool:
    """Whether a dict's own keys are names of videos: its values are records."""
    return all(isinstance(entry, list | dict) for entry in value.values())


def _is_by_mask(value: dict[str, Any]) -> bool:
    """Whether a dict's keys are numbers of masks."""
    return bool(value) and all(str(name).isdecimal() for name in value)


def _wrap(entry: Any, known: dict[str, Any]) -> Any:
    return {**known, "description": entry} if known and isinstance(entry, str) else entry


def _first(value: dict[str, Any], names: Sequence[str]) -> Any:
    lower = {str(name).lower(): entry for name, entry in value.items()}
    return next((lower[name] for name in names if lower.get(name) not in (None, "")), None)


def _record(value: Any, place: str) -> list[Record] | str:
    """The records of an entry, or why it has none; what follows a comma differs from record to record."""
    if not isinstance(value, dict):
        return f"no record, but {type(value).__name__}"
    vid = _first(value, _VIDEO)
    if not isinstance(vid, str | int):
        return f"names no video, its fields are {', '.join(map(str, value)) or 'none'}"
    mask = _first(value, _MASK)
    if isinstance(mask, list) and len(mask) == 1:
        mask = mask[0]
    if isinstance(mask, list | dict):
        return f"names several masks, {json.dumps(mask)[:80]}"
    mask_id = None if mask is None else object_id(str(mask))
    said = _first(value, ("task", "type"))
    task = next((name for name, words in _TASKS.items() if str(said).strip().lower() in words), "")
    question, answer = _conversation(value)
    text = _text(_first(value, _TEXT)) or answer
    prompt = _text(_first(value, _PROMPT))
    layout = _first(value, _LAYOUT)
    common = (video_name(str(vid)), mask_id)
    found = []
    if layout is not None:
        raw = layout if isinstance(layout, str) else json.dumps(layout, sort_keys=True)
        found.append(Record(*common, "layout", raw, task, "", place))
    if text and _LAYOUT_TEXT.search(text):
        found.append(Record(*common, "layout", text, task, "", place))
    elif text:
        kind: RecordKind = "paragraph" if mask_id is None or has_heading(text) else "object"
        found.append(Record(*common, kind, text, task, "", place))
    if prompt and mask_id is not None and (said is None or task):
        found.append(Record(*common, "prompt", prompt, task or "editing", prompt, place))
    if said is not None and not task and mask_id is not None and (prompt or not found):
        return f"unknown task, {str(said)[:60]!r}"
    if not found:
        return f"holds no text, its fields are {', '.join(map(str, value))}" + (
            f" ({question[:60]})" if question else ""
        )
    return found


def _conversation(value: dict[str, Any]) -> tuple[str, str]:
    """(question, answer) of a LLaVA or chat record: the last thing that the model says, and what was asked first."""
    turns = _first(value, ("conversations", "conversation", "messages"))
    question = answer = ""
    for turn in turns if isinstance(turns, list) else ():
        if not isinstance(turn, dict):
            continue
        who = str(turn.get("from", turn.get("role", ""))).lower()
        said = _text(turn.get("value", turn.get("content")))
        if who in ("gpt", "assistant", "model"):
            answer = said or answer
        elif who in ("human", "user"):
            question = question or said
    return question, answer


def _text(value: Any) -> str:
    if isinstance(value, list):
        parts = [part.get("text", "") if isinstance(part, dict) else part for part in value]
        return "\n".join(part for part in parts if isinstance(part, str)).strip()
    return value.strip() if isinstance(value, str) else ""


def video_name(text: str) -> str:
    """A video as lists name it, without folders' slashes around it and a video file's ending."""
    path = PurePosixPath(plain_name(text.strip().replace("\\", "/").strip("/")))
    return path.with_suffix("").as_posix() if path.suffix.lower() in VIDEOS else path.as_posix()
