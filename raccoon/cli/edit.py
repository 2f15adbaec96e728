"""`raccoon edit`: a video, what its paragraph becomes, and where; out comes the edited video with its sidecar."""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raccoon.cli.console import filled

if TYPE_CHECKING:
    from raccoon.cli.console import Console
    from raccoon.editor import EditRequest, EditResult, EncodedReport, Preparation
    from raccoon_datamodules.masks import Masks
    from raccoon_datamodules.video import Video

EPILOG = """examples:
  raccoon edit clip.mp4 -o out.mp4 --remove "Brown Dog" --mask masks/
  raccoon edit clip.mp4 -o out.mp4 --before clip.txt --paragraph edited.txt --mask "Brown Dog=masks/" --report out.html
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "edit",
        help="change a video by changing its text",
        description="Change a video by changing its text; everything outside the mask stays as it is.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("video", type=filled, metavar="VIDEO", help="the video to edit")
    parser.add_argument(
        "-o", "--out", type=filled, required=True, metavar="OUT", help="the video to write (.mp4, .m4v, .mov, .mkv)"
    )

    what = parser.add_argument_group(
        "what to edit: the paragraph as you want it, or the edits themselves",
        "Beside --paragraph, the edits say what to make of an object that could be the one or the other.",
    )
    what.add_argument("--paragraph", type=filled, metavar="AFTER", help="text file: the paragraph as you edited it")
    what.add_argument("--before", type=filled, metavar="FILE", help="text file: the paragraph of the video as it is")
    what.add_argument("--remove", action="append", default=[], metavar="NAME", help="remove this object")
    what.add_argument("--add", action="append", default=[], metavar='"NAME: ..."', help="add an object")
    what.add_argument("--change", action="append", default=[], metavar='"NAME -> NEW: ..."', help="change an object")

    where = parser.add_argument_group("where: 1 or white = edit here")
    where.add_argument(
        "--mask",
        type=filled,
        action="append",
        default=[],
        metavar="[NAME=]PATH",
        help="a folder of images, one a frame; one image for all frames; .npz; or a mask video",
    )
    where.add_argument("--mask-ids", metavar="1,3", help="these values of a label image are the object (default: all)")
    where.add_argument("--invert-mask", action="store_true", help="the mask marks what to keep")
    where.add_argument("--trust-mask", action="store_true", help="do not refuse a mask that looks inverted or is full")

    how = parser.add_argument_group("how")
    how.add_argument(
        "--config", type=filled, default="pipeline/classical", metavar="RECIPE", help="default pipeline/classical"
    )
    how.add_argument(
        "--overlay", type=filled, action="append", default=[], metavar="FILE", help="merge this YAML over the recipe"
    )
    how.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as editor.grow=12")
    how.add_argument("--seed", type=int, default=0, help="default 0")
    how.add_argument("--start", type=float, metavar="S", help="read from this second on")
    how.add_argument("--end", type=float, metavar="S", help="read up to this second")
    how.add_argument("--stride", type=int, default=1, metavar="N", help="read every N-th frame (default 1)")
    how.add_argument("--max-frames", type=int, metavar="N", help="read at most N frames, evenly spread")
    how.add_argument("--decoder", choices=("auto", "decord", "pyav", "torchcodec"), default="auto", help="default auto")

    output = parser.add_argument_group("output")
    output.add_argument("--dry-run", action="store_true", help="plan and check the masks; paint and write nothing")
    output.add_argument("--lossless", action="store_true", help="every pixel outside the mask survives the encoding")
    output.add_argument(
        "--report", type=filled, metavar="HTML", help="write a page with before, after, texts and measurements"
    )
    output.add_argument("--no-sidecar", action="store_true", help="do not write OUT.json beside OUT")
    output.add_argument("--overwrite", action="store_true", help="replace what is already there")
    output.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: "Console") -> int:
    """Edit the video."""
    from raccoon.cli.source_notes import notes_of_source
    from raccoon.editor import Editor, check_output, write_result
    from raccoon.report import Section, measurement_rows, write_report

    check_usage(args)
    out = Path(args.out)
    if not args.dry_run:
        check_places(args)
        check_output(out, source=Path(args.video), overwrite=args.overwrite, sidecar=not args.no_sidecar)
    request = read_request(args, console)
    editor = Editor.from_recipe(args.config, args.overlay, args.set)
    assert editor.recipe is not None
    for note in notes_of_source(request.video, editor.recipe.config, parts_at_work(request)):
        console.note(f"note: {note}")
    prepared = editor.prepare(request)
    say_preparation(prepared, console)
    if args.dry_run:
        console.say("dry run: nothing was painted or written")
        console.result({"dry_run": True, **preparation_json(prepared)})
        return 0
    with console.progress("painting") as progress:
        result = editor.edit(request, prepared=prepared, progress=lambda _, done, total: progress(done, total))
    encoded = write_result(result, out, lossless=args.lossless, overwrite=args.overwrite, sidecar=not args.no_sidecar)
    if args.report:
        try:
            write_report([Section(result, encoded)], Path(args.report), title=f"{Path(args.video).name}, edited")
        except OSError as err:
            err.add_note(f"the video itself was written: {out}")
            raise
    for name, value in measurement_rows(result, encoded).items():
        console.say(f"{name}: {value}")
    console.say(str(out))
    console.result(
        {
            "out": str(out),
            "sidecar": None if args.no_sidecar else str(out.with_suffix(".json")),
            "report": args.report,
            **preparation_json(prepared),
            "measurements": measurements(result, encoded),
        }
    )
    return 0


def check_usage(args: argparse.Namespace) -> None:
    """Refuse flags that contradict each other.

    Raises:
        ValueError: says which.
    """
    words = [*args.remove, *args.add, *args.change]
    if args.paragraph and words and not args.before:
        raise ValueError(
            "--remove, --add and --change beside --paragraph say how it differs from the paragraph before; give that "
            "too (--before FILE), or leave --paragraph out"
        )
    if not args.paragraph and not words:
        raise ValueError("nothing to edit: give --paragraph FILE, --remove NAME, --add or --change")
    if args.before == "-" and args.paragraph == "-":
        raise ValueError("only one of --before and --paragraph can be read from stdin")
    if args.seed < 0:
        raise ValueError(f"--seed must not be negative, got {args.seed}")
    for name in ("start", "end"):
        if (value := getattr(args, name)) is not None and not math.isfinite(value):
            raise ValueError(f"--{name} must be a time in seconds, got {value}")
    for name in ("stride", "max_frames"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")


def check_places(args: argparse.Namespace) -> None:
    """Refuse, before anything is computed, outputs that cannot be written or would replace what is read.

    Raises:
        ValueError: if an output is one of the inputs or another output, or the report is no ``.html``.
        OSError: as `raccoon_datamodules.atomic.check_writable` says about the report.
    """
    from raccoon_datamodules.atomic import check_writable

    out = Path(args.out)
    if out.is_dir():
        raise ValueError(f"--out must be a file, {out} is a folder; name the video, such as {out / 'out.mp4'}")
    outputs = {"--out": out}
    if not args.no_sidecar:
        outputs["the sidecar"] = out.with_suffix(".json")
    if args.report:
        report = Path(args.report)
        if report.suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"--report is written as .html, got {report}; change its ending")
        check_writable(report, overwrite=args.overwrite)
        outputs["--report"] = report
    for place, path in outputs.items():
        for flag, read in inputs(args):
            if path.exists() and read.exists() and path.samefile(read):
                raise ValueError(f"{place} would replace {read}, which is read ({flag}); choose another name")


def inputs(args: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """Every file that the flags name to be read, with its flag."""
    yield "the source", Path(args.video)
    for flag, path in (("--before", args.before), ("--paragraph", args.paragraph), ("--config", args.config)):
        if path is not None:
            yield flag, Path(path)
    for value in args.mask:
        yield "--mask", split_mask(value)[1]
    for path in args.overlay:
        yield "--overlay", Path(path)


def read_request(args: argparse.Namespace, console: "Console") -> "EditRequest":
    """Read the video, the texts and the masks that the flags name."""
    from raccoon.cli.plan import read_paragraph
    from raccoon.editor import EditRequest, plan_of_words
    from raccoon.plan import decisions_of
    from raccoon_datamodules.video import Video
    from raccoon_datamodules.wording import name_key

    before = read_paragraph(args.before, console, role="first") if args.before else None
    after = read_paragraph(args.paragraph, console, role="second") if args.paragraph else None
    plan, decisions = None, None
    if after is not None and before is not None:
        decisions = decisions_of(before, after, remove=args.remove, add=args.add, change=args.change)
    if after is None:
        plan, after = plan_of_words(before=before, remove=args.remove, add=args.add, change=args.change)
    video = Video.read(
        args.video, start=args.start, end=args.end, stride=args.stride, max_frames=args.max_frames, decoder=args.decoder
    )
    named = dict(split_mask(value) for value in args.mask)
    if any(path.exists() and path.samefile(args.video) for path in named.values()):
        raise ValueError(f"--mask must be another file than the video itself, got {args.video}; name its masks")
    if len({name_key(name or "") for name in named}) < len(args.mask):
        raise ValueError("--mask was given twice for the same object; name the objects: --mask NAME=PATH")
    if None in named and len(named) > 1:
        raise ValueError("with several masks each needs the name of its object: --mask NAME=PATH")
    masks: dict[str | None, Masks] = {
        name: read_mask(path, video, ids=args.mask_ids, invert=args.invert_mask) for name, path in named.items()
    }
    only = masks.get(None)
    return EditRequest(
        video=video,
        before=before,
        after=after,
        plan=plan,
        decisions=decisions,
        masks=only if only is not None else {name: mask for name, mask in masks.items() if name is not None} or None,
        mask_paths={name or "": path for name, path in named.items()},
        trust_masks=args.trust_mask,
        seed=args.seed,
    )


def parts_at_work(request: "EditRequest") -> tuple[str, ...]:
    """The parts of a recipe that see the video whatever its plan is, the painter and who is asked for the text."""
    return ("describer", "painter") if request.before is None and request.plan is None else ("painter",)


def split_mask(value: str) -> tuple[str | None, Path]:
    """``NAME=PATH`` or ``PATH``; a path that exists is taken as one even if it holds an equals sign."""
    name, equals, path = value.partition("=")
    if not equals or Path(value).exists():
        return None, Path(value)
    if not name.strip() or not path:
        raise ValueError(f"--mask must be PATH or NAME=PATH, got {value!r}")
    return name.strip(), Path(path)


def read_mask(path: Path, video: "Video", *, ids: str | None, invert: bool) -> "Masks":
    """Read one mask, choosing labels and turning its polarity as asked."""
    from raccoon_datamodules.masks import Masks, read_masks

    numbers = None
    if ids is not None:
        try:
            numbers = [int(part) for part in ids.split(",")]
        except ValueError as err:
            raise ValueError(f"--mask-ids must be whole numbers such as 1,3, got {ids!r}") from err
    mask = read_masks(path, video=video, object_ids=numbers)
    return Masks(1 - mask.data) if invert else mask


def say_preparation(prepared: "Preparation", console: "Console") -> None:
    """Print what is going to be done, and what is strange about it."""
    for number, step in enumerate(prepared.steps, 1):
        frames = int(step.mask.any(axis=(1, 2)).sum())
        console.say(
            f"{number}. {step.edit}\n   mask: {step.mask_from}, {frames} of {len(step.mask)} frames, "
            f"{100 * float(step.mask.mean()):.1f} % of the picture"
        )
        for note in step.notes:
            console.note(f"note: {note}")
    for note in prepared.plan.notes:
        console.note(f"note: {note}")


def preparation_json(prepared: "Preparation") -> dict[str, Any]:
    """The plan and its masks as plain JSON."""
    steps = [
        {
            "kind": step.edit.kind,
            "name": step.edit.name,
            "prompt": step.prompt,
            "mask_from": step.mask_from,
            "mask_fraction": float(step.mask.mean()),
            "notes": list(step.notes),
        }
        for step in prepared.steps
    ]
    return {"plan": prepared.plan.to_json(), "edits": steps}


def measurements(result: "EditResult", encoded: "EncodedReport") -> dict[str, Any]:
    """What was measured of the result, before and after encoding."""
    before = result.measurements
    return {
        "max_error_outside_before_encoding": before.max_error_outside,
        "region_fraction": before.region_fraction,
        "changed_fraction": before.changed_fraction,
        "seconds": before.seconds,
        "encoded": encoded.to_json(),
    }
