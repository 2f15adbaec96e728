"""What a batch held, or will hold: keys, tasks and ranks of an optimizer step, by arithmetic, no sample being read.

The order is a function of the seed and the sizes of the shards, so any step of any run can be told at any time. Only
whether a sample could be read is not known beforehand; the quarantine lists of the run say it afterwards.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from raccoon_datamodules.datamodule import VplmDataModule
from raccoon_datamodules.faults import substitutes
from raccoon_datamodules.loader import Place
from raccoon_datamodules.members import MemberError
from raccoon_datamodules.order import batch_ordinals


@dataclass(frozen=True, slots=True)
class Planned:
    """What stands at an ordinal.

    ``rank`` and ``part`` (accumulated batch) say who reads it. ``corpus``, ``epoch`` (the pass over that corpus),
    ``shard``, ``key``, ``task`` and ``object_id`` (None where the task is about no object) are those of the sample
    that is trained on, or of the one to be tried where nothing is known of faults. ``replaces`` holds the keys of the
    samples known to be bad before it, the one that the order asked for first. ``next`` is the key that would stand in
    if this one could not be read. ``task`` is None if no substitute was left.
    """

    ordinal: int
    rank: int
    part: int
    corpus: int
    epoch: int
    shard: str
    key: str
    task: str | None
    object_id: str | None
    replaces: tuple[str, ...]
    next: str | None


def first_ordinal(step: int, *, epoch: int | None, epoch_length: int, global_batch: int) -> int:
    """The first ordinal of an optimizer step: of the run, or of an epoch.

    The stream is cut into steps without regard to epochs, so the step in which an epoch begins may start with the end
    of the one before: it is step 0 of the epoch.

    Raises:
        ValueError: if a number is negative or the epoch has no such step.
    """
    if step < 0 or (epoch is not None and epoch < 0):
        of = "" if epoch is None else f" of epoch {epoch}"
        raise ValueError(f"steps and epochs are counted from 0, got step {step}{of}")
    if global_batch < 1:
        raise ValueError(f"the global batch size must be at least 1, got {global_batch}")
    if epoch is None:
        return step * global_batch
    first = epoch * epoch_length // global_batch
    last = ((epoch + 1) * epoch_length - 1) // global_batch
    if step > last - first:
        raise ValueError(
            f"epoch {epoch} of {epoch_length} samples has the steps 0 to {last - first} at a global batch size of "
            f"{global_batch}, got {step}; give the step of the whole run without an epoch"
        )
    return (first + step) * global_batch


def plan_batch(
    data: VplmDataModule[Any, Any], start: int, *, ranks: int = 1, parts: int = 1, bad: Mapping[int, int] | None = None
) -> list[Planned]:
    """The samples of the optimizer step that begins at ordinal ``start``, rank after rank.

    ``bad`` tells how many attempts failed at an ordinal (`known_faults`). Scenes that are drawn on the fly are drawn
    to know their objects.

    Raises:
        ValueError: if the global batch size does not divide by ranks and parts.
    """
    size = data.global_batch_size
    found = []
    for rank in range(ranks):
        for part in range(parts):
            place = Place(rank, ranks, parts)
            for ordinal in batch_ordinals(0, global_batch=size, rank=rank, world=ranks, part=part, parts=parts):
                found.append(_planned(data, start + ordinal, place, part, (bad or {}).get(start + ordinal, 0)))
    return found


def known_faults(paths: Iterable[str | Path]) -> dict[int, int]:
    """How many attempts failed at each ordinal, from the quarantine lists of all ranks of a run.

    Raises:
        FileNotFoundError: if a list is not there.
        ValueError: if a line is not one of a quarantine list.
    """
    failed: dict[int, int] = {}
    for path in map(Path, paths):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                fault = json.loads(line)
                ordinal, attempt = int(fault["ordinal"]), int(fault["attempt"])
            except (ValueError, TypeError, KeyError) as err:
                raise ValueError(f"{path}, line {number}: not a line of a quarantine list: {line[:80]!r}") from err
            # Attempts are made in turn, so the last one tells their number, however often a resumed run wrote it.
            failed[ordinal] = max(failed.get(ordinal, 0), attempt + 1)
    return failed


def _planned(data: VplmDataModule[Any, Any], ordinal: int, place: Place, part: int, failed: int) -> Planned:
    order = data.order
    candidates = list(substitutes(ordinal, seed=data.seed, epoch_length=len(order)))
    skipped: list[str] = []
    for attempt, at in enumerate(candidates):
        ref = order.locate(at)
        source = data.sources[ref.corpus]
        shard, key = source.name(ref.shard, ref.sample)
        choice = None
        if attempt >= failed:
            try:
                choice = data.choice(source, ref, ordinal)
            except MemberError:
                # Its members serve no task: training finds that out from the index as well, and goes on.
                choice = None
        if choice is not None or attempt == len(candidates) - 1:
            after = candidates[attempt + 1 : attempt + 2]
            return Planned(
                ordinal,
                place.rank,
                part,
                ref.corpus,
                ref.epoch,
                shard,
                key,
                None if choice is None else choice.task,
                None if choice is None else choice.object_id,
                tuple(skipped),
                data.keys_of(after)[0] if after else None,
            )
        skipped.append(key)
    raise AssertionError("an ordinal is always its own first candidate")


def as_table(batch: Sequence[Planned], *, limit: int | None = None) -> list[str]:
    """Lines of a table of at most ``limit`` samples, its head first."""
    rows: list[tuple[str, ...]] = [
        ("ordinal", "rank", "part", "corpus", "epoch", "shard", "key", "task", "object", "in place of")
    ]
    for one in islice(batch, limit):
        numbers = (one.ordinal, one.rank, one.part, one.corpus, one.epoch)
        words = (one.shard, one.key, one.task or "none", one.object_id or "", " ".join(one.replaces))
        rows.append((*map(str, numbers), *words))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
