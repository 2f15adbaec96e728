"""What a build has to say: every thing that was left out or changed, with its reason, and the table of reasons."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["left out", "changed", "note"]
What = Literal["video", "clip", "object", "inpainted clip", "frame", "record", "file"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that did not go as the source would have it.

    ``level``: it is not in the data set, it is there but altered, or it is worth knowing. ``what`` it is about;
    ``reason`` in a few words that are the same for all of a kind; ``video`` the source's name; ``item`` which object,
    frame, file or record; ``text`` the whole sentence.
    """

    level: Level
    what: What
    reason: str
    video: str
    item: str
    text: str

    def to_json(self) -> dict[str, Any]:
        """The finding as plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Finding":
        """Undo `to_json`."""
        return cls(**value)

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.video, self.item) if part)
        return f"{where}: {self.text}" if where else self.text


@dataclass(slots=True)
class Notes:
    """Collects the findings about one video."""

    video: str
    findings: list[Finding]

    def add(self, level: Level, what: What, reason: str, item: str, text: str) -> None:
        """Add a finding once."""
        finding = Finding(level, what, reason, self.video, item, text)
        if finding not in self.findings:
            self.findings.append(finding)


@dataclass(frozen=True, slots=True)
class Reason:
    """A row of the table: how often this happened, and the first that it happened to."""

    level: Level
    what: What
    reason: str
    count: int
    example: str


def table(findings: Iterable[Finding]) -> list[Reason]:
    """The reasons with their counts: what was left out first, the most frequent first."""
    counts: dict[tuple[Level, What, str], int] = {}
    examples: dict[tuple[Level, What, str], str] = {}
    for finding in findings:
        row = (finding.level, finding.what, finding.reason)
        counts[row] = counts.get(row, 0) + 1
        examples.setdefault(row, str(finding))
    levels = ("left out", "changed", "note")
    ranked = sorted(counts, key=lambda row: (levels.index(row[0]), -counts[row], row[1], row[2]))
    return [Reason(*row, count=counts[row], example=examples[row]) for row in ranked]


def table_text(rows: list[Reason]) -> str:
    """The table as lines of text; an empty string where there is nothing to say."""
    return "\n".join(f"{row.count:>7}  {row.what} {row.level}: {row.reason}; first: {row.example}" for row in rows)
