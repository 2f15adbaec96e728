"""What a verb says and where: results on stdout, everything else on stderr.

With ``--json`` stdout holds exactly one JSON object and stderr only plain lines. Progress is a bar on a terminal and a
line at every tenth otherwise, so that a log file stays readable.
"""

import argparse
import io
import json as json_module
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


def filled(text: str) -> str:
    """The ``type`` of an argument that names something: "" is a variable of the shell that was not set.

    Raises:
        argparse.ArgumentTypeError: if it is empty.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text


class Console:
    """The one place that writes to stdout and stderr."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json

    def say(self, text: str = "") -> None:
        """A line for the person at the terminal; silent with ``--json``."""
        if not self.json:
            print(text, flush=True)

    def note(self, text: str) -> None:
        """A line beside the result: a warning, or what is going on."""
        print(text, file=sys.stderr, flush=True)

    def result(self, value: dict[str, Any]) -> None:
        """The verb's result as one JSON object; nothing without ``--json``."""
        if self.json:
            print(_json(value), flush=True)

    def error(self, verb: str, sentence: str) -> None:
        """The one sentence that says what was wrong, where, and what to do."""
        # Where even this cannot be written, the exit code is all that is left.
        with suppress(OSError):
            print(f"{f'raccoon {verb}'.strip()}: {sentence}", file=sys.stderr, flush=True)
        if self.json:
            with suppress(OSError):
                print(_json({"error": sentence, "verb": verb}), flush=True)

    @contextmanager
    def progress(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """Yield a callback (done, all): a bar on a terminal, a line at every tenth elsewhere."""
        if sys.stderr.isatty() and not self.json:
            with _bar(title) as update:
                yield update
        else:
            yield _lines(title)


def speak_any_language() -> None:
    """Let stdout and stderr write an escape where their encoding lacks a letter, instead of failing in the end."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _json(value: dict[str, Any]) -> str:
    # Beyond U+FFFF a stream's own escapes are not JSON's.
    is_unicode = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    return json_module.dumps(value, ensure_ascii=not is_unicode, allow_nan=False)


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console as RichConsole
    from rich.progress import Progress

    with Progress(console=RichConsole(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None)

        def update(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield update


def _lines(title: str) -> Callable[[int, int], None]:
    began = time.perf_counter()
    last = -1

    def update(done: int, total: int) -> None:
        nonlocal last
        tenth = 10 * done // max(total, 1)
        # A job of a few seconds needs no lines at all.
        if tenth != last and time.perf_counter() - began > 3:
            last = tenth
            print(f"{title}: {done}/{total}", file=sys.stderr, flush=True)

    return update
