"""`raccoon vplm stats`: the distributions of data sets."""

import argparse
from typing import TYPE_CHECKING, Any

from raccoon.cli.console import filled

if TYPE_CHECKING:
    from raccoon.cli.console import Console


def add_parser(verbs: Any) -> None:
    """Register the verb."""
    stats: argparse.ArgumentParser = verbs.add_parser(
        "stats",
        help="print how many, how long, how large, how many words, beside the paper's figures",
        description="Print the distributions of one or several data sets, taken together, with small plots. Only their "
        "records are read, so that it is quick and works over http(s):// too.",
        epilog="example: raccoon vplm stats data/train data/test --plots plots",
    )
    stats.add_argument(
        "folders", type=filled, nargs="+", metavar="DIR", help="a folder or address of shards with their index.json"
    )
    stats.add_argument("--plots", type=filled, metavar="DIR", help="draw them there as PNG (needs matplotlib)")
    stats.add_argument("--overwrite", action="store_true", help="replace plots that are already there")
    stats.add_argument("--json", action="store_true", help="print one JSON object")
    stats.set_defaults(run=run)


def run(args: argparse.Namespace, console: "Console") -> int:
    """Print the distributions; exit code 1 if nothing could be read."""
    from raccoon_datamodules.examine.report import counted
    from raccoon_datamodules.examine.stats import gather
    from raccoon_datamodules.examine.stats_plots import draw, prepare
    from raccoon_datamodules.examine.stats_text import table

    files = prepare(args.plots, overwrite=args.overwrite) if args.plots else None
    with console.progress("samples") as progress:
        stats = gather(args.folders, progress=progress)
    if files is not None and stats.num_clips:
        draw(stats, files, overwrite=args.overwrite)
    console.say(table(stats))
    if stats.num_unreadable:
        number = counted(stats.num_unreadable, "sample")
        console.note(f"{number} could not be read; `raccoon vplm check` says what is wrong")
    written = [str(path) for path in (files or {}).values() if path.exists()]
    for path in written:
        console.say(f"drew {path}")
    console.result({**stats.to_json(), "plots": written})
    return 0 if stats.num_clips else 1
