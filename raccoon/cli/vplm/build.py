"""`raccoon vplm build`: make a data set of real footage."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raccoon.cli.console import filled

if TYPE_CHECKING:
    from raccoon.cli.console import Console
    from raccoon_datamodules.build.folders import Scan
    from raccoon_datamodules.build.keys import SplitPolicy
    from raccoon_datamodules.build.options import BuildOptions
    from raccoon_datamodules.build.run import BuildReport

_EPILOG = """examples:
  raccoon vplm build --out vplm --rovi ROVI --released gt_train.json --frames 16 --size 320 --val 0.05
  raccoon vplm build --out davis --davis DAVIS --clip-length 24 --workers 8
  raccoon vplm build --out mine --videos clips --masks masks
  raccoon vplm build --out mine --videos clips --clip-length 48 --step 2

DIR/SPLIT/ holds the shards, DIR/build-report.json what was left out and why. Run the same line again to go on after an
interrupt, or to add what is new in the folders. `raccoon vplm annotate` describes what has no words yet."""


def add_parser(verbs: Any) -> None:
    """Register the verb."""
    build: argparse.ArgumentParser = verbs.add_parser(
        "build",
        help="make shards of real footage: ROVI's folders, the released lists, mask folders, plain videos",
        description="Make shards of real footage: ROVI's folders, the released lists, mask folders, plain videos.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    build.add_argument("--out", type=filled, required=True, metavar="DIR", help="the folder to build into")
    _add_sources(build)
    _add_frames(build)
    _add_splits(build)
    build.add_argument("--workers", type=int, default=0, metavar="N", help="processes that build (default: this one)")
    build.add_argument("--prune", action="store_true", help="drop the samples of videos that are no longer there")
    build.add_argument("--overwrite", action="store_true", help="drop what was built there and begin anew")
    build.add_argument("--json", action="store_true", help="print one JSON object")
    build.set_defaults(run=run)


def _add_sources(build: argparse.ArgumentParser) -> None:
    group = build.add_argument_group("sources")
    place = group.add_mutually_exclusive_group(required=True)
    place.add_argument("--rovi", type=filled, metavar="DIR", help="holds JPEGImages, Annotations, InpaintImages")
    place.add_argument("--davis", type=filled, metavar="DIR", help="holds JPEGImages/480p, Annotations/480p")
    place.add_argument("--videos", type=filled, metavar="DIR", help="holds video files or folders of frames")
    group.add_argument(
        "--masks",
        type=filled,
        metavar="DIR",
        help="with --videos: NAME/*.png or NAME/OBJECT/*.png; .npz, .npy or a mask video: NAME.npz or NAME/OBJECT.npz",
    )
    group.add_argument(
        "--inpainted", type=filled, metavar="DIR", help="with --videos: NAME/OBJECT/*.png or NAME/OBJECT.mp4"
    )
    group.add_argument("--resolution", metavar="NAME", help="with --davis: which one, such as 480p")
    group.add_argument(
        "--released", type=filled, action="append", default=[], metavar="JSON", help="a released list; may be repeated"
    )
    group.add_argument("--listed-only", action="store_true", help="leave out videos that no --released list names")
    group.add_argument(
        "--meta",
        type=filled,
        action="append",
        metavar="JSON",
        help="class labels or expressions by video and object (default: meta.json, meta_expressions.json beside them)",
    )
    group.add_argument("--licence", metavar="TEXT", help="goes into each sample's meta")


def _add_frames(build: argparse.ArgumentParser) -> None:
    group = build.add_argument_group("what becomes of a video")
    group.add_argument("--frames", type=int, metavar="N", help="at most N frames a clip, evenly spread (default: all)")
    group.add_argument("--step", type=int, default=1, metavar="K", help="use every K-th frame (default 1)")
    group.add_argument("--clip-length", type=int, metavar="L", help="cut into clips of L frames (default: one clip)")
    group.add_argument("--clip-stride", type=int, metavar="S", help="a clip begins every S frames (default L)")
    group.add_argument("--min-frames", type=int, default=1, metavar="N", help="leave out shorter clips (default 1)")
    group.add_argument("--fps", type=float, default=24.0, help="frames per second of frame folders (default 24)")
    group.add_argument("--size", metavar="N|HxW", help="shorter side, or height x width (default: as it is)")
    group.add_argument("--codec", choices=("h264", "lossless"), default="h264", help="of the clips (default h264)")
    group.add_argument("--crf", type=int, default=18, metavar="Q", help="h264: 0 best to 51 smallest (default 18)")
    group.add_argument(
        "--min-area", type=float, default=0.01, metavar="SHARE", help="drop smaller objects (default 0.01 of the frame)"
    )
    group.add_argument(
        "--area-over",
        choices=("seen", "clip"),
        default="seen",
        help="their mean share over frames where they are seen, or over the whole clip (default seen)",
    )
    group.add_argument(
        "--frames-with",
        choices=("annotation", "inpainted"),
        default="annotation",
        help="use frames that have a label image, or that have every inpainted picture too (default annotation)",
    )
    group.add_argument("--keep-empty", action="store_true", help="keep clips of which no object is left")


def _add_splits(build: argparse.ArgumentParser) -> None:
    group = build.add_argument_group("splits and shards")
    group.add_argument("--split", default="train", help="the split of what nothing else says (default train)")
    group.add_argument(
        "--val", type=float, default=0.0, metavar="SHARE", help="share of videos for val, by their names"
    )
    group.add_argument("--test", type=float, default=0.0, metavar="SHARE", help="share of videos for test")
    group.add_argument(
        "--split-list",
        action="append",
        default=[],
        metavar="SPLIT=FILE",
        help="the videos named in a file, one a line, are of this split; may be repeated",
    )
    group.add_argument("--per-shard", type=int, default=1000, metavar="N", help="samples per shard (default 1000)")
    group.add_argument("--max-shard-mb", type=int, default=1024, metavar="MB", help="size of a shard (default 1024)")


def run(args: argparse.Namespace, console: "Console") -> int:
    """Build; exit code 1 if nothing could be built."""
    import time

    from raccoon_datamodules.atomic import FULL
    from raccoon_datamodules.build.findings import table_text
    from raccoon_datamodules.build.joining import join
    from raccoon_datamodules.build.released import read_released
    from raccoon_datamodules.build.run import REPORT_NAME, build

    for name in ("workers", "per_shard", "max_shard_mb"):
        least = 0 if name == "workers" else 1
        if (value := getattr(args, name)) < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    options, splits = _options(args), _splits(args)
    began = time.perf_counter()
    scan = _scan(args)
    videos, findings = scan.videos, scan.findings
    if args.released:
        records, faults = read_released(args.released)
        videos, unplaced = join(videos, records, listed_only=args.listed_only)
        findings = [*findings, *faults, *unplaced]
    elif args.listed_only:
        raise ValueError("--listed-only needs a list: name it with --released")
    console.note(f"{len(videos)} videos to look at")
    try:
        with console.progress("videos") as progress:
            report = build(
                videos,
                args.out,
                options=options,
                splits=splits,
                findings=findings,
                workers=args.workers,
                samples_per_shard=args.per_shard,
                max_bytes=args.max_shard_mb << 20,
                prune=args.prune,
                overwrite=args.overwrite,
                progress=progress,
            )
    except (KeyboardInterrupt, OSError) as err:
        if isinstance(err, KeyboardInterrupt) or err.errno in FULL:
            console.note(f"{args.out}: what is finished is kept; run the same line again to go on")
        raise
    seconds = time.perf_counter() - began
    if (text := table_text(report.reasons)) and not args.json:
        console.note(text)
    for line in _summary(report, seconds):
        console.say(line)
    where = Path(args.out) / REPORT_NAME
    console.say(f"{where}: {_plural(len(report.findings), 'remark')}, each with its reason")
    console.result({"out": args.out, "made": report.made, "kept": report.kept, "seconds": seconds, **report.to_json()})
    if not report.num_samples:
        why = (
            "the table above says why"
            if videos or findings
            else "no video was found, neither file nor folder of frames"
        )
        console.note(f"no sample could be made: {why}")
    return 0 if report.num_samples else 1


def _summary(report: "BuildReport", seconds: float) -> list[str]:
    lines = []
    for split, count in report.splits.items():
        parts = [_plural(count[name], name[:-1]) for name in ("samples", "videos", "objects", "frames", "shards")]
        lines.append(f"{Path(report.out) / split}: {parts[0]} of {parts[1]} with {', '.join(parts[2:4])} in {parts[4]}")
    done = [f"{report.made - report.empty} built"]
    if report.empty:
        done.append(f"{report.empty} left out")
    if not report.made and not report.changed:
        done = ["nothing was to be done"]
    lines.append(f"{', '.join(done)}, {report.kept} there already, {seconds:.1f} s")
    return lines


def _plural(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _scan(args: argparse.Namespace) -> "Scan":
    from raccoon_datamodules.build.folders import scan_davis, scan_rovi, scan_videos
    from raccoon_datamodules.build.metadata import Metadata, read_metadata

    for name in ("masks", "inpainted"):
        if getattr(args, name) and not args.videos:
            raise ValueError(f"--{name} goes with --videos; --rovi and --davis have their own folders")
    if args.inpainted and not args.masks:
        raise ValueError("--inpainted needs --masks: what is gone must be known")
    if args.resolution and not args.davis:
        raise ValueError("--resolution goes with --davis")
    root = Path(args.rovi or args.davis or args.videos)
    if not root.is_dir():
        what = "is a file: name the folder that it is in" if root.exists() else "is not there: check the name"
        raise FileNotFoundError(f"the folder {root} {what}")
    beside = [root / name for name in ("meta.json", "meta_expressions.json") if (root / name).is_file()]
    files = args.meta if args.meta is not None else beside
    metadata = read_metadata(files) if files else Metadata()
    if args.rovi:
        return scan_rovi(root, metadata=metadata)
    if args.davis:
        return scan_davis(root, resolution=args.resolution, metadata=metadata)
    return scan_videos(root, masks=args.masks, inpainted=args.inpainted, metadata=metadata)


def _options(args: argparse.Namespace) -> "BuildOptions":
    from raccoon_datamodules.build.options import BuildOptions, Sampling

    sampling = Sampling(
        step=args.step,
        clip_length=args.clip_length,
        clip_stride=args.clip_stride,
        frames=args.frames,
        min_frames=args.min_frames,
    )
    return BuildOptions(
        sampling=sampling,
        size=_size(args.size),
        codec=args.codec,
        crf=args.crf,
        min_area=args.min_area,
        area_over=args.area_over,
        frames_with=args.frames_with,
        fps=args.fps,
        keep_empty=args.keep_empty,
        licence=args.licence,
    )


def _size(text: str | None) -> int | tuple[int, int] | None:
    if text is None:
        return None
    height, times, width = text.lower().partition("x")
    if not (height.isdecimal() and (width.isdecimal() if times else True)):
        raise ValueError(f"--size must be the shorter side or HEIGHTxWIDTH in pixels, such as 320x512, got {text!r}")
    return (int(height), int(width)) if times else int(height)


def _splits(args: argparse.Namespace) -> "SplitPolicy":
    from raccoon_datamodules.build.keys import SplitPolicy

    names: dict[str, set[str]] = {}
    for given in args.split_list:
        split, equals, file = given.partition("=")
        if not (split and equals and file):
            raise ValueError(f"--split-list must be SPLIT=FILE, such as val=val.txt, got {given!r}")
        path = Path(file)
        if not path.is_file():
            raise FileNotFoundError(f"there is no list {path} of the videos of split {split}: check the name")
        listed = {line.strip() for line in path.read_text(encoding="utf-8").splitlines()}
        names.setdefault(split, set()).update(listed - {""})
    fractions = {name: share for name, share in (("val", args.val), ("test", args.test)) if share}
    return SplitPolicy(rest=args.split, names=names, fractions=fractions)
