"""The work of `raccoon cache`: the recipe's task and data as `raccoon fit` would build them, and a cache of them."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch

from raccoon.cli.lightning_cli import TrainingCLI
from raccoon.cli.train import locate_configs, quiet
from raccoon.cli.train_errors import cause_of, sentence
from raccoon.tasks.cache_fill import fill
from raccoon.tasks.cache_measure import Measured, measure
from raccoon_datamodules.cache_store import CacheReader

if TYPE_CHECKING:
    from raccoon.cli.console import Console


class CacheCLI(TrainingCLI):
    """Builds a recipe's task and data as `raccoon fit` does, and trains nothing."""

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Make a trainer that writes nothing; the command line wants to have one."""
        return pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", devices=1)

    def before_instantiate_classes(self) -> None:
        """Let the data be built without the cache that it will read; the run needs no end."""
        given = self.config["fit"]["data"]
        if given is not None and "init_args" in given and "cache" in given["init_args"]:
            given["init_args"]["cache"] = None

    def fit(self, **kwargs: Any) -> None:
        """Nothing: `fill_cache` does the work."""


def fill_cache(own: argparse.Namespace, words: Sequence[str], console: "Console") -> int:
    """Fill the cache, time training from it if asked to, and return the exit code.

    Raises:
        ValueError: if the recipe is wrong, in one sentence; or as `fill`.
    """
    arguments, recipe = locate_configs(words)
    quiet()
    try:
        built = CacheCLI("fit", arguments, recipe=recipe, console=console)
    except SystemExit as stop:
        return int(stop.code or 0)
    except Exception as err:
        cause = cause_of(err)
        said = sentence(cause, words=arguments)
        if said is not None:
            raise ValueError(said) from err
        if cause is not err:
            raise cause from None
        raise
    device = torch.device(own.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda needs a CUDA device, torch finds none; leave it out or give --device cpu")
    with console.progress("samples") as progress:
        done = fill(
            built.model,
            built.datamodule,
            own.out,
            dtype=own.dtype,
            device=device,
            limit=own.limit,
            part=own.part,
            batch_frames=own.batch_frames,
            num_workers=own.workers,
            progress=progress,
        )
    held = CacheReader(own.out)
    console.say(
        f"{own.out}: {done.num_samples} samples, {done.num_known} of them there before; {done.num_tensors} tensors, "
        f"{done.num_bytes / 1e6:.1f} MB written in {done.seconds:.1f} s; {len(held)} tensors, "
        f"{held.num_bytes / 1e6:.1f} MB in all ({held.dtype})"
    )
    if done.num_failed:
        console.note(f"{done.num_failed} samples could not be read, the first one: {done.reason}")
    report: dict[str, Any] = {
        "out": str(own.out),
        "dtype": held.dtype,
        "samples": done.num_samples,
        "known": done.num_known,
        "failed": done.num_failed,
        "written_tensors": done.num_tensors,
        "written_bytes": done.num_bytes,
        "seconds": done.seconds,
        "tensors": len(held),
        "bytes": held.num_bytes,
    }
    if own.measure is not None:
        found = measure(built.model, built.datamodule, own.out, steps=own.measure, device=device)
        _say_measured(found, console)
        report["measured"] = found.to_json()
    console.result(report)
    return 0


def _say_measured(found: Measured, console: "Console") -> None:
    console.say(
        f"milliseconds a sample, median (20th to 80th percentile) of {found.steps} steps of {found.batch_size}, "
        f"with and without taking turns, on {found.device}:"
    )
    for name, (plain, cached) in (("reading", found.reading), ("step", found.step), ("both", found.both)):
        console.say(
            f"  {name:8} {plain.p50:8.2f} ({plain.p20:.2f} to {plain.p80:.2f})  ->  {cached.p50:8.2f} "
            f"({cached.p20:.2f} to {cached.p80:.2f})   {plain.p50 / cached.p50:.2f} times as fast"
        )
    said = "losses are equal" if not found.error else f"losses differ by at most {found.error:.2g} of their size"
    console.say(f"  {found.num_cached} of {found.steps} batches came from the cache; {said}")
