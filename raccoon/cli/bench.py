"""`raccoon bench`: measure this machine. `raccoon bench kernels` measures the pooling kernels.

The options belong to `raccoon_kernels.bench`, which runs without the rest of this package as well; they are handed
over as they were typed, so that there is one list of them.
"""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raccoon.cli.console import Console


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "bench", help="measure the pooling kernels", epilog="example: raccoon bench kernels --quick"
    )
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="kernels")
    # A prefix that nobody types: every word after the subject, --help too, is for the benchmark's own parser.
    kernels = subjects.add_parser(
        "kernels", prefix_chars="\0", add_help=False, help="against plain torch; `raccoon bench kernels --help`"
    )
    kernels.add_argument("options", nargs="*")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: "Console | None" = None) -> int:
    """Run the benchmark; returns 1 if a provider was wrong, 2 for options that do not fit."""
    # It prints its own tables as they come, and writes files for machines.
    del console
    from raccoon_kernels.bench import main

    try:
        return main(args.options, prog="raccoon bench kernels")
    except SystemExit as stop:
        # argparse leaves with 0 after --help and 2 after a wrong flag, having said why.
        return int(stop.code or 0)
