"""`raccoon describe VIDEO`: the paragraph of a video, ready to be edited."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raccoon.cli.console import Console
    from raccoon.interfaces import Describer, Description

EPILOG = """examples:
  raccoon describe clip.mp4 -o clip.txt
  raccoon describe clip.mp4 --start 3 --end 6 --config pipeline/tiny --set describer.weights=runs/weights/tiny/v2p
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "describe",
        help="write the paragraph of a video",
        description="Describe a video: a paragraph about all of it, then a line for each object. Edit that text and "
        "give both to `raccoon edit`.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("video", metavar="VIDEO", help="the video to describe")
    parser.add_argument("-o", "--out", metavar="FILE", help="the text file to write (default: print it)")
    parser.add_argument("--config", default="pipeline/tiny", metavar="RECIPE", help="default pipeline/tiny")
    parser.add_argument("--overlay", action="append", default=[], metavar="FILE", help="merge this YAML over it")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as describer.weights=DIR")
    parser.add_argument("--start", type=float, metavar="S", help="read from this second on")
    parser.add_argument("--end", type=float, metavar="S", help="read up to this second")
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="read every N-th frame (default 1)")
    parser.add_argument("--max-frames", type=int, metavar="N", help="read at most N frames, evenly spread")
    parser.add_argument("--overwrite", action="store_true", help="replace what is already there")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with how the frames were sampled")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: "Console") -> int:
    """Describe the video."""
    from pathlib import Path

    from raccoon import recipes
    from raccoon.cli.source_notes import notes_of_source
    from raccoon.interfaces import DescribeRequest
    from raccoon_datamodules.atomic import check_writable, replacing
    from raccoon_datamodules.video import Video

    out = None if args.out is None else Path(args.out)
    if out is not None:
        check_writable(out, overwrite=args.overwrite)
        if out.exists() and Path(args.video).exists() and out.samefile(args.video):
            raise ValueError(f"the text would replace its own video {out}; choose another name")
    video = Video.read(args.video, start=args.start, end=args.end, stride=args.stride, max_frames=args.max_frames)
    describer = build_describer(args.config, args.overlay, args.set)
    found = checked(describer.describe(DescribeRequest(video)), describer)
    config = recipes.load(args.config, args.overlay, args.set)
    for note in notes_of_source(video, config, ("describer",)):
        console.note(f"note: {note}")
    text = f"{found.paragraph}\n"
    if out is None:
        console.say(text.rstrip("\n"))
    else:
        with replacing(out, overwrite=args.overwrite) as temporary:
            temporary.write_text(text, encoding="utf-8")
        console.say(str(out))
    console.result(
        {
            "video": args.video,
            "out": None if out is None else str(out),
            "text": text,
            "paragraph": found.paragraph.to_json(),
            "raw": found.raw,
            "sampling": dict(found.sampling),
        }
    )
    return 0


def build_describer(config: str, overlays: list[str], overrides: list[str]) -> "Describer":
    """Build the describer of a pipeline recipe, and nothing else of it: the painter's weights are not needed.

    Raises:
        ValueError: if the recipe has no describer, or as `raccoon.recipes.build` says.
        FileNotFoundError: if there is no such recipe, or its weights are not there.
    """
    from raccoon import recipes

    merged = recipes.load(config, overlays, overrides)
    if merged.get("describer") is None:
        raise ValueError(f"the recipe {config} has no describer; choose one that has, such as pipeline/tiny (--config)")
    built: Describer = recipes.build({"describer": merged["describer"]}).parts["describer"]
    return built


def checked(answer: object, describer: object) -> "Description":
    """Return a describer's answer if it is one.

    Raises:
        RuntimeError: if it is something else than a `Description`.
    """
    from raccoon.interfaces import Description

    if not isinstance(answer, Description):
        raise RuntimeError(
            f"{type(describer).__name__}.describe must return a Description, got a {type(answer).__name__}; mend it"
        )
    return answer
