"""`raccoon demo`: a first edit from text, start to end, made on the spot and with nothing downloaded."""

import argparse
from typing import TYPE_CHECKING, Any

from raccoon.cli.console import filled

if TYPE_CHECKING:
    from raccoon.cli.console import Console


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "demo",
        help="a first edit, start to end, nothing downloaded",
        description="Render a scene as a video, remove an object by deleting its line from the paragraph, and write "
        "the result with its sidecar and a report. With --video and --mask it does so on a video of yours.",
        epilog="example: raccoon demo --video clip.mp4 --mask masks/",
    )
    parser.add_argument("--out", type=filled, default="demo", metavar="DIR", help="the folder to write (default demo)")
    parser.add_argument("--video", type=filled, metavar="VIDEO", help="a video of yours instead of a rendered scene")
    parser.add_argument("--mask", type=filled, metavar="PATH", help="its mask: what to remove, 1 or white = edit here")
    parser.add_argument("--invert-mask", action="store_true", help="the mask marks what to keep")
    parser.add_argument("--trust-mask", action="store_true", help="do not refuse a mask that looks inverted")
    parser.add_argument("--seed", type=int, help="render another scene")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier demo wrote")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: "Console") -> int:
    """Make the demo."""
    from pathlib import Path

    from raccoon.demo import DEFAULT_SEED, check_folder, make_scene_files, run_edit

    if (args.video is None) != (args.mask is None):
        raise ValueError("--video and --mask go together: the mask says what to remove")
    if args.video is not None and args.seed is not None:
        raise ValueError("--seed chooses a rendered scene; it does not go with --video")
    folder = Path(args.out)
    check_folder(folder, rendered=args.video is None, overwrite=args.overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    if args.video is None:
        seed = DEFAULT_SEED if args.seed is None else args.seed
        if seed < 0:
            raise ValueError(f"--seed must not be negative, got {seed}")
        files = make_scene_files(folder, seed=seed, overwrite=args.overwrite)
        console.say(f"rendered a scene: {files.video}")
        console.say(f"its paragraph: {files.before}; with one object's line deleted: {files.after}")
    else:
        files = None
    with console.progress("painting") as progress:
        outcome = run_edit(
            folder,
            files=files,
            video=args.video,
            mask=args.mask,
            invert=args.invert_mask,
            trust=args.trust_mask,
            overwrite=args.overwrite,
            progress=lambda _, done, total: progress(done, total),
        )
    console.say(f"the edit: {outcome.plan}")
    for name, value in outcome.rows.items():
        console.say(f"{name}: {value}")
    for note in outcome.notes:
        console.say(f"note: {note}")
    console.say(f"the same by hand: {outcome.command}")
    console.say(f"result: {outcome.result}")
    console.say(f"report: {outcome.report}")
    console.result(outcome.to_json())
    return 0
