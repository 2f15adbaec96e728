"""`raccoon plan BEFORE AFTER`: what the change of the text would change in the video, before anything is computed."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raccoon.cli.console import filled

if TYPE_CHECKING:
    from raccoon.cli.console import Console
    from raccoon.plan import EditPlan
    from raccoon_datamodules.paragraph import Paragraph

MAX_TEXT_BYTES = 1 << 20


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "plan",
        help="say what editing a paragraph would change in the video",
        description="Compare two paragraphs and print the edits they amount to: remove, add, change.",
        epilog="example: raccoon plan before.txt after.txt",
    )
    parser.add_argument(
        "before",
        type=filled,
        metavar="BEFORE",
        help="text file, or -: the paragraph of the video as it is",
    )
    parser.add_argument("after", type=filled, metavar="AFTER", help="text file, or -: the paragraph as you edited it")
    open_points = parser.add_argument_group("what to make of an object that could be the one or the other")
    open_points.add_argument("--remove", action="append", default=[], metavar="NAME", help="it was removed")
    open_points.add_argument("--add", action="append", default=[], metavar="NAME", help="it was added")
    open_points.add_argument("--change", action="append", default=[], metavar='"NAME -> NEW"', help="it became another")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def read_paragraph(path: str, console: "Console", *, role: str) -> "Paragraph":
    """Read a paragraph from a text file or stdin, and pass on the parser's notes.

    Raises:
        ValueError: if the file is not UTF-8 text, is larger than 1 MiB, or holds no paragraph.
    """
    from raccoon_datamodules.paragraph import Paragraph, has_heading

    if path == "-":
        data, name = sys.stdin.buffer.read(MAX_TEXT_BYTES + 1), "stdin"
    else:
        file = Path(path)
        if file.is_dir():
            raise ValueError(f"the {role} paragraph must be a text file, {path} is a folder")
        if not file.exists():
            raise ValueError(f"the {role} paragraph's file is not there: {path}")
        with file.open("rb") as stream:
            data, name = stream.read(MAX_TEXT_BYTES + 1), path
    if len(data) > MAX_TEXT_BYTES:
        raise ValueError(f"the {role} paragraph {name} is larger than 1 MiB; is it the right file?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise ValueError(
            f"the {role} paragraph {name} is not UTF-8 text (byte {err.start} is 0x{data[err.start]:02x}); "
            "save it as UTF-8"
        ) from err
    paragraph, notes = Paragraph.parse(text)
    if not paragraph.description and not paragraph.objects:
        raise ValueError(
            f"the {role} paragraph {name} holds neither a description nor an object; is it the right file?"
        )
    # Any text reads as a description; without a single heading or object it is a letter, a log, a page.
    if not paragraph.objects and not has_heading(text):
        raise ValueError(
            f"the {role} paragraph {name} lists no objects; write 'Object Descriptions:' and below it "
            "'1. Name: description' (only the heading if all shall go)"
        )
    for note in notes:
        console.note(f"{name}: {note}")
    return paragraph


def say_plan(plan: "EditPlan", console: "Console") -> None:
    """Print the plan, one edit a line, with the words that caused it."""
    if not plan.edits:
        console.say("nothing to edit")
    for number, edit in enumerate(plan.edits, 1):
        console.say(f"{number}. {edit}")
        if edit.kind == "change":
            console.say(f"   words: {' '.join(edit.words)}")
    for note in plan.notes:
        console.say(f"note: {note}")


def run(args: argparse.Namespace, console: "Console") -> int:
    """Print the plan."""
    from raccoon.plan import decisions_of, diff

    if args.before == "-" and args.after == "-":
        raise ValueError("only one of BEFORE and AFTER can be read from stdin")
    before, after = (
        read_paragraph(path, console, role=role) for path, role in ((args.before, "first"), (args.after, "second"))
    )
    plan = diff(
        before,
        after,
        decisions=decisions_of(before, after, remove=args.remove, add=args.add, change=args.change),
    )
    say_plan(plan, console)
    console.result(plan.to_json())
    return 0
