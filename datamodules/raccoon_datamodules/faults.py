"""What happens to a bad sample: a deterministic substitute takes its place, it is counted and written down.

No rank asks another: which sample stands in for a bad one follows from (seed, ordinal, attempt) alone, and a run has as
many steps with bad samples as without. Beyond a cap the run stops with one sentence, so that a wrong folder or a broken
disk never trains quietly on what little can still be read. This module alone may catch any exception of a sample.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

from raccoon_datamodules.members import MemberError
from raccoon_datamodules.order import draw

T = TypeVar("T")

# Tries for one ordinal before it is given up: with one bad sample in ten, eight in a row are one in 10^8.
MAX_ATTEMPTS = 8


class TooManyFaultsError(RuntimeError):
    """The cap on bad samples is reached; the run stops."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One bad sample: what asked for it, where it is, which member (or None) and why."""

    ordinal: int
    attempt: int
    key: str
    shard: str
    member: str | None
    reason: str

    def __str__(self) -> str:
        return f"sample {self.key} of {self.shard}: {f'{self.member} ' if self.member else ''}{self.reason}"


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """What stands at an ordinal: the value (None if every attempt failed) and the faults met on the way."""

    ordinal: int
    value: T | None
    faults: tuple[Fault, ...] = ()


def explain(err: BaseException) -> tuple[str | None, str]:
    """(member or None, reason) of a failure, in words."""
    if isinstance(err, MemberError):
        return err.member, err.reason
    text = str(err).strip()
    return None, text if text and isinstance(err, (ValueError, OSError)) else f"{type(err).__name__}: {text}".rstrip(
        ": "
    )


def load_or_substitute(
    load: Callable[[int], T], ordinal: int, *, seed: int, epoch_length: int, name: Callable[[int], tuple[str, str]]
) -> Loaded[T]:
    """Load an ordinal's sample, or the first of its substitutes that can be loaded.

    ``load`` takes the ordinal whose sample is to be read, ``name`` gives (shard, key) of an ordinal for the record.
    """
    faults: list[Fault] = []
    for attempt, place in enumerate(substitutes(ordinal, seed=seed, epoch_length=epoch_length)):
        try:
            return Loaded(ordinal, load(place), tuple(faults))
        except Exception as err:
            member, reason = explain(err)
            shard, key = name(place)
            faults.append(Fault(ordinal, attempt, key, shard, member, reason))
    return Loaded(ordinal, None, tuple(faults))


def attempt(work: Callable[[], T]) -> T | tuple[str | None, str]:
    """The result of ``work``, or (member, reason) of its failure: for checks, which go on after a bad sample."""
    try:
        return work()
    except Exception as err:
        return explain(err)


def substitutes(ordinal: int, *, seed: int, epoch_length: int) -> Iterator[int]:
    """The ordinals whose samples may stand at ``ordinal``: itself, then different others of the same epoch, drawn."""
    words = draw(seed, ordinal, "substitute").bit_generator
    start = ordinal - ordinal % epoch_length
    tried = {ordinal}
    yield ordinal
    while len(tried) < min(MAX_ATTEMPTS, epoch_length):
        place = start + int(words.random_raw()) % epoch_length
        if place not in tried:
            tried.add(place)
            yield place


class FaultLog:
    """Counts bad samples in the process that trains, writes them to a quarantine list, and stops the run at a cap.

    ``path`` is a JSON-lines file that is appended to (None: no file), one object a bad sample: ordinal, attempt, key,
    shard, member, reason. The cap is passed when more than ``max_bad`` different samples and more than
    ``max_bad_fraction`` of all samples read so far are bad.

    Raises:
        ValueError: if the caps are out of range.
    """

    def __init__(self, path: str | Path | None = None, *, max_bad: int = 10, max_bad_fraction: float = 0.01) -> None:
        if max_bad < 0 or not 0 <= max_bad_fraction <= 1:
            raise ValueError(
                f"max_bad must be >= 0 and max_bad_fraction in [0, 1], got {max_bad} and {max_bad_fraction}"
            )
        self.path = None if path is None else Path(path)
        self.max_bad = max_bad
        self.max_bad_fraction = max_bad_fraction
        self.num_read = 0
        self._bad: set[tuple[str, str]] = set()

    @property
    def num_bad(self) -> int:
        """Different bad samples met so far."""
        return len(self._bad)

    def add(self, faults: Sequence[Fault], *, num_read: int, is_lost: bool = False) -> None:
        """Take down the faults of a batch of ``num_read`` samples; ``is_lost`` if no substitute could replace one.

        Raises:
            TooManyFaultsError: if the cap is passed, or a sample was lost.
        """
        self.num_read += num_read
        new = [fault for fault in faults if (fault.shard, fault.key) not in self._bad]
        self._bad.update((fault.shard, fault.key) for fault in new)
        if faults and self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as out:
                out.writelines(json.dumps(asdict(fault), ensure_ascii=False) + "\n" for fault in faults)
        where = f"; all are listed in {self.path}" if self.path is not None else ""
        if is_lost:
            raise TooManyFaultsError(
                f"neither a sample nor any of its substitutes (up to {MAX_ATTEMPTS} in all) could be read; "
                f"the last: {faults[-1]}{where}"
            )
        if self.num_bad > max(self.max_bad, self.max_bad_fraction * self.num_read):
            raise TooManyFaultsError(
                f"{self.num_bad} of {self.num_read} samples read are bad, more than max_bad ({self.max_bad}) and "
                f"max_bad_fraction ({self.max_bad_fraction}) allow; "
                f"the last: {faults[-1]}{where}; run `raccoon vplm check` on the shards"
            )
