"""`raccoon bench`: measure this machine: `kernels` the pooling kernels, `loader` how fast samples are read.

The options belong to `raccoon_kernels.bench` and `raccoon_datamodules.bench_loader`, which run without the rest of this
package as well; they are handed over as they were typed, so that there is one list of them.
"""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raccoon.cli.console import Console


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "bench",
        help="measure the pooling kernels or the loader",
        epilog="examples: raccoon bench kernels --quick; raccoon bench loader --clips FOLDER --out docs/results",
    )
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="kernels|loader")
    for name, help_text in (
        ("kernels", "against plain torch; `raccoon bench kernels --help`"),
        ("loader", "against a bare decode loop and other loaders; `raccoon bench loader --help`"),
    ):
        # A prefix that nobody types: every word after the subject, --help too, is for the benchmark's own parser.
        subject = subjects.add_parser(name, prefix_chars="\0", add_help=False, help=help_text)
        subject.add_argument("options", nargs="*")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: "Console | None" = None) -> int:
    """Run the benchmark; returns 1 if a kernels' provider was wrong, 2 for options that do not fit."""
    # It prints its own tables as they come, and writes files for machines.
    del console
    try:
        if args.subject == "loader":
            from raccoon_datamodules.bench_loader import main as measure_loader

            return measure_loader(args.options, prog="raccoon bench loader")
        from raccoon_kernels.bench import main

        return main(args.options, prog="raccoon bench kernels")
    except SystemExit as stop:
        # argparse leaves with 0 after --help and 2 after a wrong flag, having said why.
        return int(stop.code or 0)
