"""`raccoon evaluate`: a pipeline recipe on held-out scenes, every figure beside its floor and its ceiling."""

import argparse
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raccoon.cli.console import Console
    from raccoon.evaluation import EvaluationSettings

EPILOG = """examples:
  raccoon evaluate --config eval/tiny --out results
  raccoon evaluate --config eval/tiny --limit 8 --set evaluation.pipeline=pipeline/classical
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "evaluate",
        help="measure a recipe on held-out scenes",
        description="Measure what a pipeline recipe describes, finds and paints on held-out scenes. Every figure "
        "stands beside its floor (chance, untrained) and its ceiling. Fails if an edit changed what it must keep; a "
        "missed bar is reported, not an error.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", default="eval/tiny", metavar="RECIPE", help="default eval/tiny")
    parser.add_argument("--overlay", action="append", default=[], metavar="FILE", help="merge this YAML over it")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as evaluation.seed=1")
    parser.add_argument(
        "--pipeline-set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a flag for the pipeline recipe, such as painter.weights=runs/weights/tiny/p2v",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="at most N scenes and N edits of each kind")
    parser.add_argument("--out", metavar="DIR", help="write NAME.md, .json, .csv and .scenes.csv there")
    parser.add_argument("--overwrite", action="store_true", help="replace what is already there")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: "Console") -> int:
    """Evaluate and print the table."""
    from contextlib import ExitStack
    from pathlib import Path

    from raccoon import recipes
    from raccoon.editor import Editor
    from raccoon.evaluation import EvaluationSettings, evaluate, to_json, to_markdown, write_tables
    from raccoon.evaluation.tables import check_tables

    name = Path(args.config).stem
    if args.out is not None:
        check_tables(args.out, name, overwrite=args.overwrite)
    recipe = recipes.build(args.config, args.overlay, args.set, settings={"evaluation": EvaluationSettings})
    if recipe.parts:
        raise ValueError(
            f"{args.config}: an eval recipe holds the section evaluation alone, got {', '.join(recipe.parts)}; name "
            "the recipe of the parts under evaluation.pipeline"
        )
    settings = limited(recipe.settings["evaluation"], args.limit)
    editor = Editor.from_recipe(settings.pipeline, (), args.pipeline_set)
    with ExitStack() as stack:
        shown, update = "preparing", stack.enter_context(console.progress("preparing"))

        def report(title: str, done: int, total: int) -> None:
            nonlocal shown, update
            if title != shown:
                stack.close()
                shown, update = title, stack.enter_context(console.progress(title))
            update(done, total)

        done = evaluate(editor, settings, progress=report)
    command, title = command_of(args), f"Evaluation of {settings.pipeline}"
    console.say(to_markdown(done, title=title, command=command))
    written = (
        write_tables(done, args.out, name=name, title=title, command=command, overwrite=args.overwrite)
        if args.out is not None
        else ()
    )
    for path in written:
        console.say(str(path))
    console.result({**to_json(done), "command": command, "files": [str(path) for path in written]})
    return 0


def limited(settings: "EvaluationSettings", limit: int | None) -> "EvaluationSettings":
    """Return the settings with at most ``limit`` scenes and edits of each kind.

    Raises:
        ValueError: if the limit is below 1.
    """
    from dataclasses import replace

    if limit is None:
        return settings
    if limit < 1:
        raise ValueError(f"--limit must be at least 1, got {limit}")
    return replace(
        settings,
        num_scenes=min(settings.num_scenes, limit),
        num_edits=min(settings.num_edits, limit),
        num_untrained=min(settings.num_untrained, limit),
    )


def command_of(args: argparse.Namespace) -> str:
    """Return the command that gives this table again, without where it is written."""
    words = ["raccoon", "evaluate", "--config", args.config]
    for flag in ("overlay", "set", "pipeline_set"):
        for value in getattr(args, flag):
            words += [f"--{flag.replace('_', '-')}", value]
    if args.limit is not None:
        words += ["--limit", str(args.limit)]
    return shlex.join(words)
