"""`raccoon`: parses, calls the verb, turns what went wrong into one sentence and an exit code.

Exit codes: 0 done; 1 the work failed or a contract broke; 2 wrong usage or input; 130 interrupted.
Nothing here imports torch, so that `raccoon --help` answers at once.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from raccoon.cli import bench, demo, edit, plan, replay, vplm
from raccoon.cli import version as version_verb
from raccoon.cli.console import Console

VERBS = (plan, edit, replay, vplm, bench, demo, version_verb)

EXAMPLES = """examples:
  raccoon demo                                       a first edit, made here, nothing downloaded
  raccoon plan before.txt after.txt                  what changing this text would change in the video
  raccoon edit clip.mp4 -o out.mp4 --remove "Brown Dog" --mask masks/
  raccoon vplm synth --out scenes --count 100        a data set to train on
"""


def build_parser() -> argparse.ArgumentParser:
    """Make the parser with every verb."""
    parser = argparse.ArgumentParser(
        prog="raccoon",
        description="Edit a video by editing its paragraph.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for verb in VERBS:
        verb.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code; ``argv`` is without the program's name."""
    parser = build_parser()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        parser.print_help()
        return 0
    try:
        args = parser.parse_args(arguments)
    except SystemExit as stop:
        # argparse leaves with 0 after --help and 2 after a wrong flag, having said why.
        return int(stop.code or 0)
    if not hasattr(args, "run"):
        parser.print_help()
        return 2
    console = Console(json=getattr(args, "json", False))
    try:
        return int(args.run(args, console))
    except KeyboardInterrupt:
        console.error(args.verb, "interrupted; nothing half-written was left behind")
        return 130
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError) as err:
        _trace()
        console.error(args.verb, _sentence(err))
        return 2
    except (RuntimeError, MemoryError, ImportError) as err:
        _trace()
        console.error(args.verb, _sentence(err))
        return 1
    except Exception as err:  # the last line of defence: a fault of ours, said as such
        _trace()
        console.error(
            args.verb, f"internal error: {type(err).__name__}: {_sentence(err)}; set RACCOON_DEBUG=1 for the traceback"
        )
        return 1


def _trace() -> None:
    if os.environ.get("RACCOON_DEBUG"):
        traceback.print_exc()


def _sentence(err: BaseException) -> str:
    """One line that says what was wrong, where, and what to do."""
    if isinstance(err, OSError) and err.strerror and err.errno is not None:
        where = f": {err.filename}" if err.filename is not None else ""
        return f"{err.strerror}{where}"
    if isinstance(err, MemoryError):
        return str(err) or "not enough memory; read fewer frames with --start, --end, --stride or --max-frames"
    return " ".join(str(err).split()) or type(err).__name__


if __name__ == "__main__":
    sys.exit(main())
