"""`raccoon demo`: a first edit from text, start to end, made on the spot and with nothing downloaded."""

import argparse
from typing import TYPE_CHECKING, Any

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
    parser.add_argument("--out", default="demo", metavar="DIR", help="the folder to write (default demo)")
    parser.add_argument("--video", metavar="VIDEO", help="a video of yours instead of a rendered scene")
    parser.add_argument("--mask", metavar="PATH", help="its mask: what to remove, 1 or white = edit here")
    parser.add_argument("--seed", type=int, help="render another scene")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier demo wrote")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: "Console") -> int:
    """Make the demo."""
    from pathlib import Path

    from raccoon.demo import DEFAULT_SEED, make_scene_files, run_edit

    if (args.video is None) != (args.mask is None):
        raise ValueError("--video and --mask go together: the mask says what to remove")
    folder = Path(args.out)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} must be a folder, it is a file; choose another --out")
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
