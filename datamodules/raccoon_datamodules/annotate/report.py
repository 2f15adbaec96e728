"""What a run of the annotator did, in ``OUT/annotation/report.json``."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raccoon_datamodules.annotate.annotator import Annotation
from raccoon_datamodules.annotate.statistics import VplmStatistics
from raccoon_datamodules.atomic import replacing
from raccoon_datamodules.index import Index

FORMAT = "raccoon-vplm-annotation"


@dataclass(slots=True)
class RunReport:
    """What a run did.

    ``num_filled`` of the annotated videos had a part of their text, which stays; ``failed`` gives the reason by key,
    ``noted`` what a text written by hand was read with, ``stopped`` why the run ended early ("" if it did not).
    """

    num_videos: int
    num_annotated: int = 0
    num_kept: int = 0
    num_filled: int = 0
    num_corrected: int = 0
    num_sent: int = 0
    num_from_cache: int = 0
    unmatched: dict[str, list[str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    noted: dict[str, list[str]] = field(default_factory=dict)
    stopped: str = ""
    reviewed: list[str] = field(default_factory=list)
    statistics: VplmStatistics | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every video has its text."""
        return not self.failed and not self.stopped

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        found = self.statistics
        counted = {} if found is None else {name: getattr(found, name) for name in found.__slots__}
        return {
            "complete": self.is_complete,
            "videos": self.num_videos,
            "annotated": self.num_annotated,
            "kept": self.num_kept,
            "filled": self.num_filled,
            "corrected": self.num_corrected,
            "requests": {"sent": self.num_sent, "from_cache": self.num_from_cache},
            "stopped": self.stopped,
            "failed": [{"key": key, "reason": reason} for key, reason in self.failed.items()],
            "noted": [{"key": key, "notes": notes} for key, notes in self.noted.items()],
            "unmatched": [{"key": key, "objects": ids} for key, ids in self.unmatched.items()],
            "reviewed": self.reviewed,
            "statistics": counted,
        }


def write_answers(out: Path, annotations: Iterable[Annotation]) -> None:
    """Write every raw answer, with what was read from it, into ``OUT/annotation/answers.jsonl``."""
    (out / "annotation").mkdir(exist_ok=True)
    with replacing(out / "annotation" / "answers.jsonl", overwrite=True) as temporary:
        lines = (json.dumps(annotation.to_json(), ensure_ascii=False) for annotation in annotations)
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_report(out: Path, report: RunReport, by: Mapping[str, Any], data: str, index: Index | None) -> None:
    """Write the report into ``OUT/annotation/report.json``.

    ``data`` is the fingerprint of the data it was made of; ``index`` is that of the shards, or None before they are
    written, so that a run that is killed in between is known for what it was.
    """
    (out / "annotation").mkdir(parents=True, exist_ok=True)
    content = {
        "format": FORMAT,
        "version": 1,
        "data": data,
        "written": None if index is None else index.fingerprint(),
        "by": dict(by),
        **report.to_json(),
    }
    with replacing(out / "annotation" / "report.json", overwrite=True) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def is_ours(out: Path, data: str) -> bool:
    """Whether the shards in ``out`` are what an earlier run made of the same data, untouched since."""
    try:
        content = json.loads((out / "annotation" / "report.json").read_bytes())
        if content["format"] != FORMAT or content["data"] != data:
            return False
        return content["written"] is None or bool(content["written"] == Index.load(out).fingerprint())
    except (OSError, ValueError, KeyError, TypeError):
        return False
