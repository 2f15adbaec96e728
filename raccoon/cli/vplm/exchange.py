"""`raccoon vplm export` and `raccoon vplm import`: the JSONL that other trainers read."""

import argparse
from typing import TYPE_CHECKING, Any

from raccoon.cli.console import filled

if TYPE_CHECKING:
    from raccoon.cli.console import Console
    from raccoon_datamodules.exchange.report import ExchangeReport


def add_parser(verbs: Any) -> None:
    """Register both verbs."""
    export: argparse.ArgumentParser = verbs.add_parser(
        "export",
        help="write the messages JSONL that ms-swift and LLaMA-Factory read, with media beside",
        description="Write data sets as SPLIT.jsonl (messages, videos, objects), media files and masks beside, and "
        "dataset_info.json for LLaMA-Factory. `raccoon vplm import` makes the same samples of it again.",
        epilog="example: raccoon vplm export data/train data/test --out exported",
    )
    export.add_argument("folders", type=filled, nargs="+", metavar="DIR", help="a folder of shards; each of one split")
    export.add_argument("--out", type=filled, required=True, metavar="DIR", help="the folder to write, new or empty")
    export.add_argument("--format", choices=("messages",), default="messages", help="the only one so far (default)")
    export.add_argument(
        "--masks", choices=("rle", "png"), default="rle", help="COCO run lengths, or folders of PNGs (default rle)"
    )
    export.add_argument("--prompt", type=filled, metavar="TEXT", help="the user's message (default: the describer's)")
    export.add_argument("--absolute", action="store_true", help="name media by their whole paths")
    _add_common(export, "replace an export that is already there")
    export.set_defaults(run=run_export)

    importer: argparse.ArgumentParser = verbs.add_parser(
        "import",
        help="make shards of a messages JSONL, ours or anybody's",
        description="Make shards of a messages JSONL. Lines that `raccoon vplm export` wrote give back their samples; "
        "of others the first video and the paragraph in the first answer are taken. Lines that give no sample are "
        "left out and listed.",
        epilog="example: raccoon vplm import exported/train.jsonl --out data/train",
    )
    importer.add_argument("file", type=filled, metavar="FILE", help="a JSONL or JSON list; its files lie beside it")
    importer.add_argument("--out", type=filled, required=True, metavar="DIR", help="the folder to write, new or empty")
    importer.add_argument("--split", metavar="NAME", help="default: the file's name without its suffix")
    importer.add_argument("--allow-outside", action="store_true", help="take files that are not under FILE's folder")
    importer.add_argument(
        "--frames", type=int, metavar="N", help="at most N frames of a foreign clip, evenly spread (default: all)"
    )
    importer.add_argument("--crf", type=int, default=18, help="of foreign clips, encoded anew as H.264 (default 18)")
    importer.add_argument("--per-shard", type=int, default=1000, metavar="N", help="samples per shard (default 1000)")
    _add_common(importer, "replace shards that are already there")
    importer.set_defaults(run=run_import)


def _add_common(parser: argparse.ArgumentParser, overwrite: str) -> None:
    parser.add_argument("--skip-bad", action="store_true", help="exit with 0 even if something had to be left out")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default: this one)")
    parser.add_argument("--overwrite", action="store_true", help=overwrite)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run_export(args: argparse.Namespace, console: "Console") -> int:
    """Export; exit code 1 if samples had to be left out."""
    from raccoon_datamodules.exchange.exporting import export_messages
    from raccoon_datamodules.prompts import DESCRIBE_ALL

    with console.progress("samples") as progress:
        report = export_messages(
            args.folders,
            args.out,
            masks=args.masks,
            prompt=args.prompt or DESCRIBE_ALL,
            absolute=args.absolute,
            workers=args.workers,
            overwrite=args.overwrite,
            progress=progress,
        )
    return _end(report, args, console)


def run_import(args: argparse.Namespace, console: "Console") -> int:
    """Import; exit code 1 if lines had to be left out."""
    from raccoon_datamodules.exchange.importing import import_messages

    with console.progress("lines") as progress:
        report = import_messages(
            args.file,
            args.out,
            split=args.split,
            allow_outside=args.allow_outside,
            max_frames=args.frames,
            crf=args.crf,
            samples_per_shard=args.per_shard,
            workers=args.workers,
            overwrite=args.overwrite,
            progress=progress,
        )
    return _end(report, args, console)


def _end(report: "ExchangeReport", args: argparse.Namespace, console: "Console") -> int:
    console.say(str(report))
    console.result(report.to_json())
    return 1 if report.num_bad and not args.skip_bad else 0
