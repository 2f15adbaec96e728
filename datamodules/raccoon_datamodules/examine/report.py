"""What a check has to say: findings with their place, and the count of what was seen."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]

# Findings that are listed one by one; the rest is only counted.
MAX_LISTED = 1000


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding.

    ``error``: training would replace the sample, or it is in two splits. ``warning``: it can be read, but what it says
    is doubtful. ``note``: worth knowing.
    """

    severity: Severity
    shard: str | None
    key: str | None
    member: str | None
    reason: str

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.shard, self.key, self.member) if part)
        return printable(f"{where}: {self.reason}" if where else self.reason)


@dataclass(slots=True)
class CheckReport:
    """What a check saw of one folder. ``ok`` if there are no errors; the counts go on beyond what is listed.

    ``on_problem`` is told every finding, listed or not.
    """

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
    num_warnings: int = 0
    num_notes: int = 0
    problems: list[Problem] = field(default_factory=list)
    on_problem: Callable[["CheckReport", Problem], None] | None = field(default=None, repr=False)
    _bad: set[tuple[str | None, str]] = field(default_factory=set, repr=False)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.num_errors == 0

    def add(self, problem: Problem) -> None:
        """Count a finding and list it if there is room."""
        if problem.severity == "error":
            self.num_errors += 1
            if problem.key is not None and (problem.shard, problem.key) not in self._bad:
                self._bad.add((problem.shard, problem.key))
                self.num_bad_samples += 1
        elif problem.severity == "warning":
            self.num_warnings += 1
        else:
            self.num_notes += 1
        if len(self.problems) < MAX_LISTED:
            self.problems.append(problem)
        if self.on_problem is not None:
            self.on_problem(self, problem)

    def extend(self, problems: Iterable[Problem]) -> None:
        """Add several findings."""
        for problem in problems:
            self.add(problem)

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON."""
        counts = ["shards", "samples", "members", "objects", "frames", "bytes", "bad_samples"]
        counts += ["errors", "warnings", "notes"]
        return {
            "folder": self.folder,
            "split": self.split,
            "ok": self.ok,
            **{f"num_{name}": getattr(self, f"num_{name}") for name in counts},
            "problems": [asdict(problem) for problem in self.problems],
        }

    def __str__(self) -> str:
        megabytes = self.num_bytes / 1e6
        seen = counted(self.num_samples, "sample")
        if self.num_frames:
            seen += f" with {counted(self.num_objects, 'object')} and {counted(self.num_frames, 'frame')}"
        first = f"{self.folder}: {seen} in {counted(self.num_shards, 'shard')} ({megabytes:.1f} MB): "
        verdict = f"{counted(self.num_errors, 'error')}, {counted(self.num_bad_samples, 'bad sample')}"
        if self.ok:
            verdict = "sound"
        if self.num_warnings:
            verdict += f", {counted(self.num_warnings, 'warning')}"
        lines = [f"{first}{verdict}", *(f"{p.severity}: {p}" for p in self.problems)]
        unlisted = self.num_errors + self.num_warnings + self.num_notes - len(self.problems)
        return "\n".join([*lines, f"and {unlisted} more"] if unlisted else lines)


def printable(text: str) -> str:
    """The text in one line, with escapes for what would move a terminal's cursor or change its colours."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def counted(number: int, what: str, plural: str | None = None) -> str:
    """``1 sample``, ``2 samples``; ``plural`` where that is no mere s."""
    return f"{number} {what}" if number == 1 else f"{number} {plural or f'{what}s'}"
