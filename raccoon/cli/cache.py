"""`raccoon cache`: compute once what a recipe's frozen networks make of its training data.

The recipe is that of `raccoon fit`, and so are all options but those listed here: flags for the model and the data are
given as for training, and the run that is to read the cache must be given the same.
"""

import argparse
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from raccoon.cli.console import Console

DESCRIPTION = """Compute what a recipe's frozen networks make of its training data, once: visual grids and
superpixels for the describer (v2p/...), latents and text features for the painter (p2v/...). Whatever decides about a
tensor is part of its name (content, frame, size, network and weights, dtype), so a stale one is never
read. A stopped run goes on; several with --part fill one folder. Training reads it by
--data.init_args.cache DIR; a sample that is missing is decoded as usual."""
EPILOG = """examples:
  raccoon cache --config v2p/tiny --data.init_args.train scenes --out cache
  raccoon cache --config p2v/paper --data.init_args.train vplm --out cache --device cuda --workers 8 --part 1/4
  raccoon cache --config p2v/tiny --data.init_args.train scenes --out cache --measure 30
  raccoon fit --config v2p/tiny --data.init_args.train scenes --data.init_args.cache cache
Every other option is one of `raccoon fit` (see raccoon fit --help)."""


def add_parser(subparsers: Any) -> None:
    """Register the verb. Its words are sorted out by `run`, because most of them are Lightning's."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "cache",
        help="compute once what frozen networks make of training data",
        prefix_chars="\0",
        add_help=False,
    )
    parser.add_argument("words", nargs="*")
    parser.set_defaults(run=run)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see raccoon cache --help")


def own_parser() -> argparse.ArgumentParser:
    """The parser of the options that are not those of `raccoon fit`."""
    parser = _Parser(
        prog="raccoon cache",
        usage="raccoon cache --config RECIPE --out DIR [options] [options of raccoon fit]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the cache's folder, new or one to go on with")
    parser.add_argument(
        "--dtype",
        choices=("float16", "bfloat16", "float32"),
        default="float16",
        help="of what networks make; superpixels are exact in any case (default float16)",
    )
    parser.add_argument("--device", default=None, help="cpu or cuda; default cuda where there is one")
    parser.add_argument("--batch-frames", type=int, default=64, metavar="N", help="frames at once (default 64)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that decode (default: this one)")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N samples of each corpus; scenes need it")
    parser.add_argument("--part", type=_part, default=(0, 1), metavar="I/N", help="this is run I of N, from 1 on")
    parser.add_argument(
        "--measure", type=int, metavar="STEPS", help="then time so many training steps with and without the cache"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _part(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"must be I/N with 1 <= I <= N, such as 2/4, got {text!r}")
    return int(number) - 1, int(count)


def run(args: argparse.Namespace, console: "Console") -> int:
    """Fill the cache and say what it holds.

    Raises:
        ValueError: if an option is wrong, or as `cache_fill.fill`.
    """
    from raccoon.cli.console import Console

    words = list(args.words)
    parser = own_parser()
    if not words or words == ["-h"] or words == ["--help"]:
        parser.print_help()
        return 0
    try:
        own, rest = parser.parse_known_args(words)
    except SystemExit as stop:
        # --help among other words.
        return int(stop.code or 0)
    if not any(word.partition("=")[0] in ("--config", "-c") for word in rest):
        raise ValueError("--config RECIPE is needed, the recipe that is to be trained; see raccoon cache --help")
    from raccoon.cli.cache_run import fill_cache

    return fill_cache(own, rest, Console(json=own.json))
