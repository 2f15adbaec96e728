"""`raccoon vplm check`: examine a data set."""

import argparse
from typing import TYPE_CHECKING, Any

from raccoon.cli.console import filled

if TYPE_CHECKING:
    from raccoon.cli.console import Console


def add_parser(verbs: Any) -> None:
    """Register the verb."""
    check: argparse.ArgumentParser = verbs.add_parser(
        "check",
        help="verify checksums, members, masks, boxes and names of a data set",
        description="Read every sample of a data set and list what is wrong with it, a sentence each.",
        epilog="example: raccoon vplm check scenes",
    )
    check.add_argument("folder", type=filled, metavar="DIR", help="the folder that holds the shards and index.json")
    check.add_argument("--reindex", action="store_true", help="write index.json anew from the shards first")
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.set_defaults(run=run)


def run(args: argparse.Namespace, console: "Console") -> int:
    """Examine the data set; exit code 1 if something is wrong with it."""
    from raccoon_datamodules.check import check_shards, reindex

    if args.reindex:
        index = reindex(args.folder)
        console.note(f"{args.folder}: wrote the index of {len(index.shards)} shards anew")
    with console.progress("samples") as progress:
        report = check_shards(args.folder, progress=progress)
    console.say(str(report))
    console.result(report.to_json())
    return 0 if report.ok else 1
