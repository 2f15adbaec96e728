"""`raccoon vplm check`: examine data sets."""

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from raccoon.cli.console import filled

if TYPE_CHECKING:
    from raccoon.cli.console import Console
    from raccoon_datamodules.examine.check import CheckReport, Problem, Reindexed


def add_parser(verbs: Any) -> None:
    """Register the verb."""
    check: argparse.ArgumentParser = verbs.add_parser(
        "check",
        help="verify data sets: checksums, members, masks, boxes, names, copies, leaks between splits",
        description="Read every sample of one or several data sets and list what is wrong with it, a sentence each. "
        "Clips of a folder that an earlier folder holds too are errors: name first the one that must stay whole.",
        epilog="example: raccoon vplm check data/test data/train --workers 8 --bad-list bad.jsonl",
    )
    check.add_argument(
        "folders",
        type=filled,
        nargs="+",
        metavar="DIR",
        help="a folder with the shards and index.json of a split",
    )
    check.add_argument("--quick", action="store_true", help="checksums and index only; nothing is decoded")
    check.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read (default: this one)")
    check.add_argument(
        "--near",
        type=_bits,
        default=6.0,
        metavar="BITS",
        help="how many of 64 bits of their perceptual hashes copies may differ by, 0 to 7, or off (default 6)",
    )
    check.add_argument("--strict", action="store_true", help="warnings count as errors")
    check.add_argument("--report", type=filled, metavar="FILE", help="write every finding there, a JSON object a line")
    check.add_argument(
        "--bad-list", type=filled, metavar="FILE", help="write the bad samples there, for the data modules' exclude"
    )
    check.add_argument("--overwrite", action="store_true", help="replace FILEs that are already there")
    check.add_argument(
        "--reindex",
        action="store_true",
        help="write index.json anew from the shards first; one that says something else is kept as index.json.old-1",
    )
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.set_defaults(run=run)


def _bits(text: str) -> float | None:
    if text == "off":
        return None
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number of bits or off, got {text!r}") from None


class _Files:
    """The two lists a check writes as it goes: every finding, and each bad sample once."""

    def __init__(self, report: TextIO | None, bad_list: TextIO | None, *, is_strict: bool) -> None:
        self._report = report
        self._bad_list = bad_list
        self._severities = ("error", "warning") if is_strict else ("error",)
        self._bad: set[tuple[str, str | None, str]] = set()

    def add(self, report: "CheckReport", problem: "Problem") -> None:
        """Write down a finding."""
        line = {
            "folder": report.folder,
            "split": report.split,
            "severity": problem.severity,
            "shard": problem.shard,
            "key": problem.key,
            "member": problem.member,
            "reason": problem.reason,
        }
        if self._report is not None:
            _write(self._report, line)
        sample = (report.folder, problem.shard, problem.key or "")
        if self._bad_list is not None and problem.key and problem.severity in self._severities:
            if sample not in self._bad:
                _write(self._bad_list, line)
            self._bad.add(sample)


def _write(file: TextIO, value: dict[str, Any]) -> None:
    file.write(json.dumps(value, ensure_ascii=False) + "\n")


def run(args: argparse.Namespace, console: "Console") -> int:
    """Examine the data sets; exit code 1 if something is wrong with them."""
    from raccoon_datamodules.atomic import replacing
    from raccoon_datamodules.examine.check import check_splits, reindex

    if args.report and args.bad_list and Path(args.report).resolve() == Path(args.bad_list).resolve():
        raise ValueError(f"--report and --bad-list must be two files, got {args.report} for both")
    with ExitStack() as stack:
        files: list[TextIO | None] = [None, None]
        for number, name in enumerate((args.report, args.bad_list)):
            if name:
                path = stack.enter_context(replacing(Path(name), overwrite=args.overwrite))
                files[number] = stack.enter_context(path.open("w", encoding="utf-8", errors="backslashreplace"))
        lists = _Files(*files, is_strict=args.strict)
        for folder in args.folders if args.reindex else ():
            _tell(console, folder, reindex(folder))
        with console.progress("samples") as progress:
            reports = check_splits(
                args.folders,
                quick=args.quick,
                max_bits=args.near,
                workers=args.workers,
                progress=progress,
                on_problem=lists.add,
            )
    ok = all(report.ok and not (args.strict and report.num_warnings) for report in reports)
    for report in reports:
        console.say(str(report))
    console.result(_summary(reports, ok=ok))
    return 0 if ok else 1


def _tell(console: "Console", folder: str, done: "Reindexed") -> None:
    """Say what became of a folder's index."""
    from raccoon_datamodules.examine.report import counted

    if not done.is_new:
        console.note(f"{folder}: index.json is right as it is")
        return
    kept = f"; the former one is kept as {done.former.name}" if done.former else ""
    what = f"{counted(len(done.index.shards), 'shard')}, {counted(len(done.index), 'sample')}"
    console.note(f"{folder}: wrote index.json anew ({what}){kept}")
    if done.changed:
        names = ", ".join(done.changed[:5]) + (" and others" if len(done.changed) > 5 else "")
        console.note(f"{folder}: {names} had another checksum in the former index: damaged, unless somebody rewrote it")


def _summary(reports: "list[CheckReport]", *, ok: bool) -> dict[str, Any]:
    folders = [report.to_json() for report in reports]
    problems = [{"folder": entry["folder"], **problem} for entry in folders for problem in entry.pop("problems")]
    counts = ("num_samples", "num_bad_samples", "num_errors", "num_warnings", "num_notes")
    return {
        "ok": ok,
        **{name: sum(entry[name] for entry in folders) for name in counts},
        "folders": folders,
        "problems": problems,
    }
