"""`raccoon replay` and `raccoon verify`: make a result again from its sidecar; check that it kept its source."""

import argparse
from typing import TYPE_CHECKING, Any

from raccoon.cli.console import filled

if TYPE_CHECKING:
    from raccoon.cli.console import Console


def add_parser(subparsers: Any) -> None:
    """Register both verbs."""
    replay: argparse.ArgumentParser = subparsers.add_parser(
        "replay",
        help="make a result's frames again from its sidecar",
        description="Make the frames of a result again from its source, its recorded masks and recipe, and compare "
        "their hash with the recorded one. Exit code 1 if they differ. The classes that the recorded recipe names are "
        "imported and run: replay only a sidecar that you trust.",
        epilog="example: raccoon replay out.json",
    )
    verify: argparse.ArgumentParser = subparsers.add_parser(
        "verify",
        help="check a written result against its source",
        description="Check that a written result still has its source's size, frames, timestamps and sound, and "
        "measure what differs outside the mask. Exit code 1 if the contract is broken.",
        epilog="example: raccoon verify out.json",
    )
    for parser, run in ((replay, run_replay), (verify, run_verify)):
        parser.add_argument("sidecar", type=filled, metavar="OUT.json", help="the sidecar beside the result")
        parser.add_argument("--source", type=filled, metavar="VIDEO", help="the source video, if it was moved since")
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.set_defaults(run=run)


def run_replay(args: argparse.Namespace, console: "Console") -> int:
    """Replay; exit code 1 if the frames differ."""
    from raccoon.editor import replay

    report = replay(args.sidecar, source=args.source)
    console.say("the same frames, bit for bit" if report.same else "the frames DIFFER from the recorded ones")
    for difference in report.differences:
        console.say(f"then -> now: {difference}")
    console.result(
        {
            "same": report.same,
            "expected": report.expected_hash,
            "got": report.got_hash,
            "differences": list(report.differences),
        }
    )
    return 0 if report.same else 1


def run_verify(args: argparse.Namespace, console: "Console") -> int:
    """Verify; a broken contract is raised by the editor and becomes exit code 1."""
    from raccoon.editor import verify

    verification = verify(args.sidecar, source=args.source)
    report = verification.report
    psnr = "equal" if report.psnr_outside is None else f"PSNR {report.psnr_outside:.1f} dB"
    sound = "sound" if report.has_sound else "no sound"
    console.say(
        f"kept: {report.width}x{report.height}, {report.num_frames} frames, {report.fps:.4g} fps, timestamps, {sound}"
    )
    console.say(f"outside the mask: max error {report.max_error_outside} of 255, {psnr}")
    console.say("the file is byte for byte as written" if verification.same_file else "the file CHANGED since")
    console.result({"same_file": verification.same_file, **report.to_json()})
    return 0
