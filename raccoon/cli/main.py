"""`raccoon`: parses, calls the verb, turns what went wrong into one sentence and an exit code.

Exit codes: 0 done; 1 the work failed or a contract broke; 2 wrong usage or input; 130 interrupted by Ctrl-C;
143 ended by SIGTERM. Both leave nothing half-written.
Nothing here imports torch, so that `raccoon --help` answers at once.
"""

import argparse
import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import NoReturn

from raccoon.cli import bench, cache, demo, describe, edit, evaluate, plan, replay, train, vplm
from raccoon.cli import version as version_verb
from raccoon.cli.console import Console, speak_any_language

VERBS = (describe, plan, edit, replay, train, cache, evaluate, vplm, bench, demo, version_verb)

EXAMPLES = """examples:
  raccoon demo                                       a first edit, made here, nothing downloaded
  raccoon describe clip.mp4 -o clip.txt              the paragraph to edit
  raccoon plan before.txt after.txt                  what changing this text would change in the video
  raccoon edit clip.mp4 -o out.mp4 --remove "Brown Dog" --mask masks/
  raccoon vplm synth --out scenes --count 100        a data set to train on
"""

TRAINING_HELP = """usage: raccoon {verb} --config RECIPE [--config OVERLAY ...] [--ckpt_path FILE|last] [OPTION ...]

RECIPE is a name in conf/ or a path; overlays are merged over it in the order given, then options such as
--trainer.max_steps 100, --model.optimizer.learning_rate 1e-4, --data.global_batch_size 16.

examples:
  raccoon {verb} --config {recipe}
  raccoon {verb} --config {recipe} --config trainer/ddp --trainer.devices 2
  raccoon {verb} --config {recipe} --print_config
  raccoon {verb} --config {recipe} --help              every option of Lightning and of the recipe's classes"""

# A plain OSError is a disk that is full or failing, unless it is about the name.
_WRONG_NAME = (errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS)


class WrongUsage(ValueError):
    """The words cannot be parsed; ``verb`` is the one they were meant for ("" for none)."""

    def __init__(self, message: str, verb: str) -> None:
        super().__init__(message)
        self.verb = verb


class Terminated(KeyboardInterrupt):
    """SIGTERM came: everything is put down as after Ctrl-C."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, as the verbs do, instead of printing the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Raise `WrongUsage`."""
        raise WrongUsage(f"{message}; see {self.prog} --help", self.prog.partition(" ")[2])


def build_parser() -> argparse.ArgumentParser:
    """Make the parser with every verb."""
    parser = Parser(
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
    speak_any_language()
    # Libraries would draw bars of their own for loads of a second.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    parser = build_parser()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        parser.print_help()
        return 0
    if arguments[0] in train.VERBS:
        if arguments[1:] in (["-h"], ["--help"]):
            print(TRAINING_HELP.format(verb=arguments[0], recipe=train.example_of(arguments[0])))
            return 0
        # These words are Lightning's, and so is SIGTERM: it ends a step first, and SLURM sends it with a requeue.
        return _guarded(arguments[0], Console(), lambda console: train.run(arguments, console), on_sigterm=nullcontext)
    try:
        args, unknown = parser.parse_known_args(arguments)
        if unknown:
            verb = getattr(args, "verb", None) or ""
            raise WrongUsage(f"no such option: {' '.join(unknown)}; see {f'raccoon {verb}'.strip()} --help", verb)
    except SystemExit as stop:
        # argparse leaves after --help.
        return int(stop.code or 0)
    except WrongUsage as err:
        Console(json="--json" in arguments).error(err.verb, _sentence(err))
        return 2
    if not hasattr(args, "run"):
        parser.print_help()
        return 2
    return _guarded(args.verb, Console(json=getattr(args, "json", False)), lambda console: args.run(args, console))


def _guarded(
    verb: str,
    console: Console,
    work: Callable[[Console], int],
    *,
    on_sigterm: Callable[[], AbstractContextManager[None]] | None = None,
) -> int:
    """Do the work of a verb; what goes wrong becomes one sentence and an exit code."""
    try:
        with (on_sigterm or _terminable)():
            return int(work(console))
    except Terminated:
        console.error(verb, "ended by SIGTERM; nothing half-written was left behind")
        return 143
    except KeyboardInterrupt:
        console.error(verb, "interrupted; nothing half-written was left behind")
        return 130
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError) as err:
        _trace()
        console.error(verb, _sentence(err))
        return 1 if type(err) is OSError and err.errno not in _WRONG_NAME else 2
    except (RuntimeError, MemoryError, ImportError) as err:
        _trace()
        console.error(verb, _sentence(err))
        return 1
    except Exception as err:  # the last line of defence: a fault of ours or of a part that a note names
        _trace()
        whose = "" if hasattr(err, "__notes__") else "internal error: "
        console.error(verb, f"{whose}{type(err).__name__}: {_sentence(err)}; set RACCOON_DEBUG=1 for the traceback")
        return 1


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that temporary files and worker processes go as after Ctrl-C."""

    def end(_: int, __: FrameType | None) -> None:
        # Once: a second one must not disturb the tidying up.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    # Whoever runs us within another program, or ignores the signal (nohup), has decided about it.
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _trace() -> None:
    if os.environ.get("RACCOON_DEBUG"):
        traceback.print_exc()


def _sentence(err: BaseException) -> str:
    """One line that says what was wrong, where, and what to do."""
    if isinstance(err, PermissionError) and err.filename is not None:
        text = f"no permission for {err.filename}: change its rights or choose another place"
    elif isinstance(err, OSError) and err.strerror and err.errno is not None:
        text = f"{err.strerror}: {err.filename}" if err.filename is not None else err.strerror
    elif isinstance(err, MemoryError) and not str(err):
        text = "not enough memory; read fewer frames with --start, --end, --stride or --max-frames"
    else:
        text = str(err) or type(err).__name__
    # A note says which part of a recipe was at work.
    notes = "".join(f" ({note})" for note in getattr(err, "__notes__", ()))
    return " ".join(f"{text}{notes}".split())


if __name__ == "__main__":
    sys.exit(main())
