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
        description="Describe a clip in words, then remove, change and add an object by editing these words, and write "
        "the results with a report; done by the shipped miniature models in their miniature world. With --classical, "
        "or with --video and --mask on a video of yours, an object is removed without learned models, at any size.",
        epilog="example: raccoon demo --video clip.mp4 --mask masks/",
    )
    parser.add_argument("--out", type=filled, default="demo", metavar="DIR", help="the folder to write (default demo)")
    parser.add_argument("--video", type=filled, metavar="VIDEO", help="a video of yours instead of a rendered scene")
    parser.add_argument("--mask", type=filled, metavar="PATH", help="its mask: what to remove, 1 or white = edit here")
    parser.add_argument("--invert-mask", action="store_true", help="the mask marks what to keep")
    parser.add_argument("--trust-mask", action="store_true", help="do not refuse a mask that looks inverted")
    parser.add_argument("--classical", action="store_true", help="a larger rendered scene, without learned models")
    parser.add_argument("--seed", type=int, help="render another scene")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier demo wrote")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: "Console") -> int:
    """Make the demo."""
    if (args.video is None) != (args.mask is None):
        raise ValueError("--video and --mask go together: the mask says what to remove")
    if args.video is not None and args.seed is not None:
        raise ValueError("--seed chooses a rendered scene; it does not go with --video")
    if args.seed is not None and args.seed < 0:
        raise ValueError(f"--seed must not be negative, got {args.seed}")
    return run_classical(args, console) if args.classical or args.video else run_learned(args, console)


def run_learned(args: argparse.Namespace, console: "Console") -> int:
    """Describe and edit a clip of the miniature world."""
    from pathlib import Path

    from raccoon import demo_learned

    scene = demo_learned.DEFAULT_SCENE if args.seed is None else args.seed
    done = demo_learned.run_learned(Path(args.out), scene=scene, overwrite=args.overwrite, say=console.say)
    console.say(f"note: {demo_learned.NOTE}")
    console.say(f"report: {done.report}")
    console.result(done.to_json())
    return 0


def run_classical(args: argparse.Namespace, console: "Console") -> int:
    """Remove an object whose mask is known, without learned models."""
    from pathlib import Path

    from raccoon.demo import DEFAULT_SEED, check_folder, make_scene_files, run_edit

    folder = Path(args.out)
    check_folder(folder, rendered=args.video is None, overwrite=args.overwrite)
    if args.video is None:
        folder.mkdir(parents=True, exist_ok=True)
        seed = DEFAULT_SEED if args.seed is None else args.seed
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
