r"""The messages-and-objects JSONL that other trainers read, and what both ways share.

One line a sample::

    {"messages": [{"role": "user", "content": "<video>Describe ..."},
                  {"role": "assistant", "content": "Video Description: ...\n\nObject Descriptions:\n1. ..."}],
     "videos": ["media/train/KEY.mp4"],
     "objects": {"ref": ["Red Car"], "bbox": [[0.1, 0.2, 0.4, 0.5]], "bbox_type": "norm1"},
     "raccoon": "{...}"}

- ms-swift reads ``messages``, ``videos`` and ``objects`` as they are (`--dataset train.jsonl`, run in the folder of the
  JSONL or exported with whole paths). ``objects`` are what it puts in the place of <ref-object> and <bbox>; these
  messages hold neither, so the boxes only travel along. Tried with the AutoPreprocessor of 4.6.0.
- LLaMA-Factory reads ``messages`` and ``videos`` by the ``dataset_info.json`` beside (`--dataset vplm_train
  --dataset_dir OUT --media_dir OUT`). Tried with the converter of 0.9.5.
- trl's SFTTrainer reads ``messages``; it has a column for images but none for videos, so the video must be loaded by
  your own collator. Not tried.

``bbox`` is x0, y0, x1, y1 in [0, 1] in the frame where the object is largest. ``raccoon`` holds all the rest as one
*text* of JSON: `datasets`, through which all three load, gives a column one type, and nested fields that differ from
line to line would make it refuse the file. Masks are COCO run-length encodings (`rle`) or folders of PNGs.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from raccoon_datamodules.examine.report import MAX_LISTED, printable
from raccoon_datamodules.limits import MAX_MEMBER_BYTES, readable

EXTRA_FIELD = "raccoon"
EXTRA_SCHEMA = 1
VIDEO_TAG = "<video>"
# Written in a text, these would be taken for media or boxes by the trainers.
TAGS = (VIDEO_TAG, "<image>", "<audio>", "<bbox>", "<ref-object>")
# Beyond the control characters, which JSON escapes anyway, these end a line for `str.splitlines`.
_SEPARATORS = "\x85\u2028\u2029"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


@dataclass(frozen=True, slots=True)
class ExchangeProblem:
    """What is to be said of one sample or line (``where``): left out (``bad``), or changed or lost (``note``)."""

    severity: Literal["bad", "note"]
    where: str
    reason: str

    def __str__(self) -> str:
        return printable(f"{self.where}: {self.reason}")


@dataclass(slots=True)
class ExchangeReport:
    """What an export or import did; ``problems`` are listed up to 1000, the counts go on."""

    out: str
    num_read: int = 0
    num_written: int = 0
    num_bad: int = 0
    num_notes: int = 0
    problems: list[ExchangeProblem] = field(default_factory=list)

    def add(self, problems: Iterable[ExchangeProblem]) -> None:
        """Count problems and list them if there is room."""
        for problem in problems:
            if problem.severity == "bad":
                self.num_bad += 1
            else:
                self.num_notes += 1
            if len(self.problems) < MAX_LISTED:
                self.problems.append(problem)

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.out}: {self.num_written} of {self.num_read} samples written, {self.num_bad} left out"]
        lines += [f"{'left out' if p.severity == 'bad' else 'note'}: {p}" for p in self.problems]
        unlisted = self.num_bad + self.num_notes - len(self.problems)
        return "\n".join([*lines, f"and {unlisted} more"] if unlisted else lines)


def place_of(name: Any, base: Path, *, allow_outside: bool, kind: Literal["file", "folder"] = "file") -> Path:
    """The file or folder that a JSONL in the folder ``base`` names.

    Raises:
        ValueError: if the name is none, or leads out of the folder (by "..", a link, or from the root) and that is not
            allowed.
        FileNotFoundError: if no such file or folder is there; devices and pipes are no files.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise ValueError(f"the name of a {kind} must be a text, got {name!r:.100}")
    if _SCHEME.match(name) and not Path(name).exists():
        raise ValueError(f"only local files can be imported, got {name:.200}; download it first")
    path = base / name
    if not allow_outside and not path.resolve().is_relative_to(base.resolve()):
        raise ValueError(f"{name:.200} leads out of {base}; pass --allow-outside if you trust the file")
    if not (path.is_file() if kind == "file" else path.is_dir()):
        raise FileNotFoundError(f"there is no {kind} {path}")
    return path


def read_bytes(path: Path, limit: int = MAX_MEMBER_BYTES) -> bytes:
    """The bytes of a file. Raises ValueError if it is larger than ``limit``, and OSError as reading does."""
    size = path.stat().st_size
    if size > limit:
        raise ValueError(f"{path} has {readable(size)}, at most {readable(limit)} are read")
    return path.read_bytes()


def dump_line(value: dict[str, Any]) -> str:
    """One line of a JSONL; what some readers take for the end of a line, or is no Unicode, is written as escapes."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    for separator in _SEPARATORS:
        text = text.replace(separator, f"\\u{ord(separator):04x}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, allow_nan=False)
    return f"{text}\n"
