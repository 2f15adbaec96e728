"""`raccoon vplm synth`: make a data set of procedural scenes."""

import argparse
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from raccoon.cli.console import filled

if TYPE_CHECKING:
    from raccoon.cli.console import Console


def add_parser(verbs: Any) -> None:
    """Register the verb."""
    synth: argparse.ArgumentParser = verbs.add_parser(
        "synth",
        help="render procedural scenes into shards",
        description="Render procedural scenes, of which everything is known exactly, into WebDataset shards.",
        epilog="example: raccoon vplm synth --out scenes --count 1000 --seed 0 --difficulty easy --workers 2",
    )
    synth.add_argument("--out", type=filled, required=True, metavar="DIR", help="the folder to write, new or empty")
    synth.add_argument("--count", type=int, required=True, metavar="N", help="number of scenes")
    synth.add_argument("--seed", type=int, default=0, metavar="S", help="the first scene's number in its split")
    synth.add_argument("--difficulty", choices=("easy", "medium", "hard"), default="easy", help="default easy")
    synth.add_argument("--split", default="train", help="train, val or test: they share no scene (default train)")
    synth.add_argument("--frames", type=int, default=8, metavar="F", help="frames per clip (default 8)")
    synth.add_argument("--size", default="64x64", metavar="HxW", help="height x width in pixels (default 64x64)")
    synth.add_argument("--fps", type=float, default=8.0, help="frames per second (default 8)")
    synth.add_argument("--per-shard", type=int, default=1000, metavar="N", help="scenes per shard (default 1000)")
    synth.add_argument("--workers", type=int, default=0, metavar="N", help="processes that render (default: this one)")
    synth.add_argument("--overwrite", action="store_true", help="replace a split that is already there")
    synth.add_argument("--json", action="store_true", help="print one JSON object")
    synth.set_defaults(run=run)


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise ValueError(f"--size must be HEIGHTxWIDTH in pixels, such as 64x64, got {text!r}")
    return int(height), int(width)


def _encode(job: tuple[int, str, int, tuple[int, int], float]) -> tuple[str, dict[str, bytes]]:
    """Render and encode one scene; runs in a worker process."""
    import cv2

    from raccoon_datamodules.sample import encode
    from raccoon_datamodules.synthetic import make_sample

    # A worker is one thread: processes already use every core.
    cv2.setNumThreads(1)
    seed, difficulty, num_frames, size, fps = job
    sample = make_sample(seed, difficulty, num_frames=num_frames, size=size, fps=fps)
    return sample.key, encode(sample)


def run(args: argparse.Namespace, console: "Console") -> int:
    """Render the scenes."""
    import time

    from raccoon_datamodules.parallel import ordered
    from raccoon_datamodules.synthetic.generate import SPLIT_SEEDS, seed_of
    from raccoon_datamodules.writer import write_encoded

    if args.count < 1:
        raise ValueError(f"--count must be at least 1, got {args.count}")
    for name in ("frames", "per_shard"):
        if (value := getattr(args, name)) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if not 0 <= args.seed <= SPLIT_SEEDS - args.count:
        raise ValueError(f"--seed plus --count must lie in [0, {SPLIT_SEEDS}], got {args.seed} and {args.count}")
    if args.workers < 0:
        raise ValueError(f"--workers must not be negative, got {args.workers}")
    size = _size(args.size)
    seeds = [seed_of(args.split, args.seed + i) for i in range(args.count)]
    jobs = [(seed, args.difficulty, args.frames, size, args.fps) for seed in seeds]
    began = time.perf_counter()
    with ordered(_encode, jobs, workers=args.workers) as samples, console.progress("scenes") as progress:
        index = write_encoded(
            _counted(samples, len(jobs), progress),
            args.out,
            split=args.split,
            samples_per_shard=args.per_shard,
            overwrite=args.overwrite,
        )
    seconds = time.perf_counter() - began
    shards = len(index.shards)
    console.say(f"{args.out}: {args.count} scenes in {shards} shard{'s'[: shards != 1]}, {seconds:.1f} s")
    console.result({"out": args.out, "samples": args.count, "shards": shards, "seconds": seconds})
    return 0


def _counted(samples: Iterable[Any], total: int, progress: Any) -> Iterator[Any]:
    for done, sample in enumerate(samples, 1):
        yield sample
        progress(done, total)
