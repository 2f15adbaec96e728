"""`raccoon vplm annotate`: have a model describe the videos of a data set."""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raccoon.cli.console import filled

if TYPE_CHECKING:
    from raccoon.cli.console import Console
    from raccoon.recipes import Recipe
    from raccoon_datamodules.annotate.annotator import Annotator

EPILOG = """examples:
  raccoon vplm annotate built/train --out described/train --dry-run
  raccoon vplm annotate built/train --out described/train --set chat.input_price=2.5 --set chat.output_price=10 \\
      --set chat.spending_limit=20
  raccoon vplm annotate built/train --out described/train --set chat.base_url=http://localhost:8000/v1 \\
      --set chat.api_key_env=null --set chat.model=Qwen/Qwen2.5-VL-7B-Instruct

Every answer is kept (--cache), so that the same command goes on where an earlier one stopped, at no cost twice. One
video of every 100 is put on a page for a person to check, OUT/annotation/review/index.html; what is corrected there is
taken over by the next run of the same command.
"""


def add_parser(verbs: Any) -> None:
    """Register the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "annotate",
        help="have a model describe the videos and objects of a data set",
        description="Show a chat model numbered frames of each video of a data set, and write a new data set with its "
        "paragraphs, the caption of each object that has a mask, and written edits.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", type=filled, metavar="DATA", help="the folder (or address) of shards to annotate")
    parser.add_argument("--out", type=filled, required=True, metavar="OUT", help="the folder of shards to write")
    parser.add_argument("--config", default="vplm/annotate", metavar="RECIPE", help="default vplm/annotate")
    parser.add_argument("--overlay", action="append", default=[], metavar="FILE", help="merge this YAML over it")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as chat.model=gpt-4o")
    parser.add_argument("--jobs", type=int, metavar="N", help="videos at the same time (default: chat.concurrency)")
    parser.add_argument("--frames", type=int, default=6, metavar="N", help="frames in the picture (default 6)")
    parser.add_argument("--side", type=int, default=1536, metavar="PX", help="its longest side (default 1536)")
    parser.add_argument("--attempts", type=int, default=3, metavar="N", help="until an answer is usable (default 3)")
    parser.add_argument(
        "--edits",
        choices=("none", "simple", "all"),
        default="simple",
        help="written edits of each object: simple, a removal and an addition (default); all, also one change, which "
        "takes a request a video",
    )
    parser.add_argument("--all", action="store_true", help="annotate videos anew that have their text, or a part of it")
    parser.add_argument(
        "--keep-unmatched", action="store_true", help="keep masks that no caption is about (the paper drops them)"
    )
    parser.add_argument("--corrections", metavar="FILE", help="take these over besides those of OUT's review page")
    parser.add_argument("--cache", metavar="DIR", help="where answers are kept (default OUT/annotation/cache)")
    parser.add_argument("--per-shard", type=int, default=1000, metavar="N", help="samples per shard (default 1000)")
    parser.add_argument("--dry-run", action="store_true", help="send nothing; print requests, tokens, cost, a prompt")
    parser.add_argument("--overwrite", action="store_true", help="replace other shards that are in OUT")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: "Console") -> int:
    """Annotate; exit code 1 if a video has no text in the end."""
    from pathlib import Path

    from raccoon import recipes
    from raccoon_datamodules.annotate.annotator import AnnotateSettings, Annotator
    from raccoon_datamodules.annotate.chat_cache import CachedChat

    if args.jobs is not None and args.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, got {args.jobs}")
    if args.per_shard < 1:
        raise ValueError(f"--per-shard must be at least 1, got {args.per_shard}")
    settings = AnnotateSettings(args.frames, args.side, args.attempts, args.edits)
    recipe = recipes.build(args.config, args.overlay, args.set)
    if "chat" not in recipe.parts:
        raise ValueError(f"the recipe {args.config} has no section chat; name one that has, such as vplm/annotate")
    cache = Path(args.cache) if args.cache else Path(args.out) / "annotation" / "cache"
    chat = recipe.parts["chat"]
    identity = _identity(chat) or recipe.config["chat"]
    annotator = Annotator(CachedChat(chat, cache, identity=identity), settings)
    if args.dry_run:
        return _estimate(args, console, chat, annotator)
    return _annotate(args, console, recipe, annotator)


def _identity(chat: object) -> Mapping[str, Any] | None:
    """What a model's answers depend on, where it says so itself: ``identity``, a mapping of plain JSON."""
    found = getattr(chat, "identity", None)
    return found if isinstance(found, Mapping) else None


def _estimate(args: argparse.Namespace, console: "Console", chat: Any, annotator: "Annotator") -> int:
    from pathlib import Path

    from raccoon.backbones import OpenAIChat
    from raccoon_datamodules.annotate.corrections import CORRECTIONS_NAME, load_corrections
    from raccoon_datamodules.annotate.estimate import estimate_run, plain_count

    ours = chat if isinstance(chat, OpenAIChat) else None
    own = Path(args.out) / "annotation" / "review" / CORRECTIONS_NAME
    files = [*([own] if own.exists() else []), *([args.corrections] if args.corrections else [])]
    with console.progress("videos") as progress:
        found = estimate_run(
            args.data,
            annotator,
            count=plain_count if ours is None else ours.estimate_tokens,
            corrections=lambda keys: load_corrections(files, keys),
            every=args.all,
            progress=progress,
        )
    cost = None if ours is None else ours.price(found.input_tokens, found.output_tokens)
    told = f"about {cost:.2f} (in the currency of the prices)" if cost is not None else "unknown, no price is set"
    console.say(
        f"{args.data}: {found.num_videos} videos, {found.num_described} with their text already, "
        f"{found.num_asked} to annotate, {found.num_answered} of these answered in the cache"
        + (f", {found.num_filled} with a part of their text, which stays" if found.num_filled else "")
        + (f", {found.unreadable} unreadable" if found.unreadable else "")
    )
    console.say(
        f"requests: {found.num_requests} at most ({found.num_paragraphs} for paragraphs, "
        f"{found.num_matches} for matching objects that no name matches, {found.num_changes} for changes), "
        "more where an answer cannot be used"
    )
    console.say(f"tokens: about {found.input_tokens} in prompts, {found.output_tokens} in answers; cost: {told}")
    if found.picture is not None:
        height, width = found.picture.shape[:2]
        console.say(f"\nthe first request: a picture of {width}x{height} pixels and\n\n{found.prompt}")
    elif found.num_described == found.num_videos:
        console.say("all videos have their text already; --all annotates them anew")
    console.result(
        {
            "videos": found.num_videos,
            "described": found.num_described,
            "to_annotate": found.num_asked,
            "partly_described": found.num_filled,
            "answered": found.num_answered,
            "unreadable": found.unreadable,
            "requests": found.num_requests,
            "input_tokens": found.input_tokens,
            "output_tokens": found.output_tokens,
            "cost": cost,
            "prompt": found.prompt,
        }
    )
    return 0


def _annotate(args: argparse.Namespace, console: "Console", recipe: "Recipe", annotator: "Annotator") -> int:
    from pathlib import Path

    from raccoon.backbones import OpenAIChat
    from raccoon_datamodules.annotate.run import DatasetAnnotator
    from raccoon_datamodules.annotate.statistics import beside_paper

    chat = recipe.parts["chat"]
    by = {"chat": type(chat).__name__, **(_identity(chat) or {"recipe": recipe.source})}
    dataset = DatasetAnnotator(
        args.data,
        args.out,
        annotator,
        by=by,
        corrections=args.corrections,
        every=args.all,
        keep_unmatched=args.keep_unmatched,
        overwrite=args.overwrite,
    )

    def waiting(videos: int) -> None:
        console.note(f"waiting for the answers about {videos} videos, which are kept; Ctrl-C again leaves at once")

    ours = chat if isinstance(chat, OpenAIChat) else None
    jobs = args.jobs or (4 if ours is None else ours.concurrency)
    try:
        with console.progress("videos") as progress:
            report = dataset.run(
                jobs=jobs,
                samples_per_shard=args.per_shard,
                progress=progress,
                # A model that waits for its turn need not.
                stop=None if ours is None else ours.stop,
                waiting=waiting,
            )
    except KeyboardInterrupt:
        console.note(f"{annotator.chat.num_sent} new answers are kept; the same command goes on from here")
        raise
    usage = None if ours is None else ours.usage
    out = Path(args.out)
    for key, reason in list(report.failed.items())[:20]:
        console.note(f"{key}: {reason}")
    if len(report.failed) > 20:
        console.note(f"and {len(report.failed) - 20} more")
    for key, notes in report.noted.items():
        console.note(f"{key}: its corrected text was not read as it stands: {'; '.join(notes)}")
    if report.stopped:
        console.note(f"stopped early: {report.stopped}")
    console.say(f"{args.out}: {_told(report)}")
    console.say(f"requests: {report.num_sent} sent, {report.num_from_cache} answered from the cache{_spent(usage)}")
    if report.statistics is not None:
        console.say(f"\n{beside_paper(report.statistics)}\n")
    if report.reviewed:
        console.say(f"to be checked by a person: {out / 'annotation' / 'review' / 'index.html'}")
    if not report.is_complete:
        console.say("not complete: run the same command again to go on, what is answered is kept")
    spent = {} if usage is None else {"usage": dict(usage._asdict())}
    console.result({"out": args.out, **report.to_json(), **spent, "report": str(out / "annotation" / "report.json")})
    return 0 if report.is_complete else 1


def _told(report: Any) -> str:
    parts = [f"{report.num_annotated} of {report.num_videos} videos annotated"]
    if report.num_filled:
        parts.append(f"{report.num_filled} of them had a part of their text, which stands (--all annotates it anew)")
    if report.num_corrected:
        parts.append(f"{report.num_corrected} of them corrected by hand")
    if report.num_kept:
        parts.append(f"{report.num_kept} had their text already (--all annotates them anew)")
    if report.failed:
        parts.append(f"{len(report.failed)} failed")
    if report.unmatched:
        count = sum(len(ids) for ids in report.unmatched.values())
        parts.append(f"{count} masks without a caption")
    return ", ".join(parts)


def _spent(usage: Any) -> str:
    if usage is None or not usage.requests:
        return ""
    cost = "" if usage.cost is None else f", cost {usage.cost:.4f}"
    return f"; {usage.input_tokens} tokens in prompts, {usage.output_tokens} in answers{cost}"
