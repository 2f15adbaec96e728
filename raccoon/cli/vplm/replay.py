"""`raccoon vplm replay`: say which samples an optimizer step trains on, without reading one."""

import argparse
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from raccoon.cli.console import filled

if TYPE_CHECKING:
    from raccoon.cli.console import Console
    from raccoon_datamodules.datamodule import VplmDataModule


def add_parser(verbs: Any) -> None:
    """Register the verb."""
    replay: argparse.ArgumentParser = verbs.add_parser(
        "replay",
        help="say which samples a training step reads, without reading them",
        description="Say which samples, tasks and objects an optimizer step trains on, and which rank reads them. "
        "The order is arithmetic: no sample is read. Give the run's recipe (its config.yaml), or shards.",
        epilog="example: raccoon vplm replay --config runs/p2v/tiny/20260101-120000/config.yaml --epoch 0 --step 17",
    )
    of = replay.add_mutually_exclusive_group(required=True)
    of.add_argument(
        "--config", type=filled, action="append", metavar="RECIPE", help="recipe of the run, then its overlays"
    )
    of.add_argument("--data", type=filled, nargs="+", metavar="DIR", help="folders or addresses of shards")
    replay.add_argument(
        "--set", action="append", default=[], metavar="K=V", help="a flag of the recipe, such as data.seed=3"
    )
    replay.add_argument("--weights", type=float, nargs="+", metavar="W", help="weight of each --data (default: sizes)")
    replay.add_argument("--tasks", choices=("v2p", "p2v"), default="p2v", help="--data: whose tasks (default p2v)")
    replay.add_argument("--seed", type=int, metavar="S", help="seed of the order (default: the recipe's, or 0)")
    replay.add_argument("--global-batch-size", type=int, metavar="G", help="default: the recipe's, or 8")
    replay.add_argument("--window-shards", type=int, metavar="N", help="--data: shards shuffled together (default 8)")
    replay.add_argument(
        "--exclude",
        type=filled,
        nargs="+",
        metavar="LIST",
        help="quarantine lists, or that of `raccoon vplm check --bad-list`, whose samples the run leaves out (default: "
        "the recipe's, or none)",
    )
    replay.add_argument("--epoch", type=int, metavar="E", help="count the step from the beginning of this epoch")
    replay.add_argument("--step", type=int, metavar="N", help="optimizer step, from 0 (default 0)")
    replay.add_argument("--ordinal", type=int, metavar="O", help="begin at an ordinal instead, such as a checkpoint's")
    replay.add_argument("--ckpt", type=filled, metavar="FILE", help="begin where a run continued from here would")
    replay.add_argument("--ranks", type=int, default=1, metavar="R", help="processes the run had (default 1)")
    replay.add_argument("--accumulate", type=int, default=1, metavar="A", help="batches a step had (default 1)")
    replay.add_argument(
        "--quarantine", type=filled, nargs="+", metavar="FILE", help="the run's lists of bad samples, of all its ranks"
    )
    replay.add_argument("--json", action="store_true", help="print one JSON object")
    replay.set_defaults(run=run)


def run(args: argparse.Namespace, console: "Console") -> int:
    """Print the batch."""
    from raccoon_datamodules.replay import as_table, first_ordinal, known_faults, plan_batch

    if sum((args.ordinal is not None, args.ckpt is not None, args.step is not None or args.epoch is not None)) > 1:
        raise ValueError("give one of --ordinal, --ckpt and --step, the last one with or without --epoch")
    if args.ordinal is not None and args.ordinal < 0:
        raise ValueError(f"--ordinal must not be negative, got {args.ordinal}")
    if args.config is not None and (args.weights is not None or args.window_shards is not None):
        raise ValueError("--weights and --window-shards go with --data; a recipe states its own, change them by --set")
    if args.data is not None and args.set:
        raise ValueError("--set goes with --config; with --data give --seed, --weights and the other options")
    bad = known_faults(args.quarantine or ())
    data = _from_shards(args) if args.config is None else _from_recipe(args)
    began = time.perf_counter()
    length = len(data.order)
    opened = time.perf_counter()
    size = data.global_batch_size
    start = args.ordinal if args.ckpt is None else _place_of(args.ckpt, data, console)
    if start is None:
        start = first_ordinal(args.step or 0, epoch=args.epoch, epoch_length=length, global_batch=size)
    batch = plan_batch(data, start, ranks=args.ranks, parts=args.accumulate, bad=bad)
    found = time.perf_counter()
    at = f"step {start // size} of the run, " if start % size == 0 else ""
    console.say(
        f"{at}ordinals {start} to {start + size - 1}, epoch {start // length} of {length:,} samples, seed {data.seed}"
    )
    places = [getattr(getattr(one, "index", None), "base", type(one).__name__) for one in data.sources]
    if len(places) > 1:
        console.say(", ".join(f"corpus {number} is {place}" for number, place in enumerate(places)))
    for line in as_table(batch):
        console.say(line)
    console.note(f"index read in {opened - began:.3f} s, place found in {found - opened:.3f} s, no sample read")
    console.result(
        {
            "seed": data.seed,
            "global_batch_size": size,
            "epoch_length": length,
            "step": start // size if start % size == 0 else None,
            "epoch": start // length,
            "ordinals": [start, start + size],
            "corpora": places,
            "samples": [asdict(one) for one in batch],
            "seconds": {"index": round(opened - began, 6), "resume": round(found - opened, 6)},
        }
    )
    return 0


def _place_of(path: str, data: "VplmDataModule[Any, Any]", console: "Console") -> int:
    """The ordinal of a checkpoint; a difference of its data from these is said."""
    import warnings

    import torch

    from raccoon.cli.lightning_cli import check_checkpoint

    check_checkpoint(path)
    states = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    name = type(data).__qualname__
    if name not in states:
        raise ValueError(
            f"the checkpoint {path} holds no place of a {name}; give the recipe it was trained with, config.yaml in "
            "its run's folder"
        )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data.load_state_dict(states[name])
    for warning in said:
        console.note(str(warning.message))
    return data.ordinal


def _from_shards(args: argparse.Namespace) -> "VplmDataModule[Any, Any]":
    from raccoon_datamodules.p2v import P2VDataModule
    from raccoon_datamodules.v2p import V2PDataModule

    made: type[P2VDataModule] | type[V2PDataModule] = P2VDataModule if args.tasks == "p2v" else V2PDataModule
    return made(
        args.data,
        weights=args.weights,
        seed=0 if args.seed is None else args.seed,
        global_batch_size=8 if args.global_batch_size is None else args.global_batch_size,
        window_shards=8 if args.window_shards is None else args.window_shards,
        exclude=args.exclude or (),
    )


def _from_recipe(args: argparse.Namespace) -> "VplmDataModule[Any, Any]":
    """The datamodule of a training recipe; nothing else of it is built."""
    from jsonargparse import ArgumentParser

    from raccoon.cli.train_errors import cause_of, sentence
    from raccoon.recipes import PARSER_MODE, load
    from raccoon_datamodules.datamodule import VplmDataModule

    excluded = None if args.exclude is None else json.dumps(args.exclude)
    flags = {"seed": args.seed, "global_batch_size": args.global_batch_size, "exclude": excluded}
    given = [*args.set, *(f"data.{key}={value}" for key, value in flags.items() if value is not None)]
    if wrong := [flag for flag in given if not flag.startswith("data.") or "=" not in flag]:
        raise ValueError(f"--set takes data.KEY=VALUE, got {wrong[0]!r}: only the data decide what a step reads")
    sections = [section for name in args.config if (section := load(name).get("data"))]
    if not sections:
        raise ValueError(
            f"the recipe {args.config[0]} has no section data, so it trains on nothing; give one of `raccoon fit`"
        )
    # Parsed one over the other, as `raccoon fit` does.
    words = [word for section in sections for word in ("--data", json.dumps(section))]
    parser = ArgumentParser(exit_on_error=False, parser_mode=PARSER_MODE)
    parser.add_subclass_arguments(VplmDataModule, "data", required=True)
    try:
        data = parser.instantiate(parser.parse_args([*words, *(f"--{flag}" for flag in given)])).data
    except Exception as err:
        cause = cause_of(err)
        said = sentence(cause)
        if said is None:
            raise cause from None
        raise ValueError(f"{args.config[0]} does not say how to train: {said}") from err
    assert isinstance(data, VplmDataModule)
    return data
