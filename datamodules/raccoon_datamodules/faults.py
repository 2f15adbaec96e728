"""What happens to a bad sample: a deterministic substitute takes its place, it is counted and written down.

No rank asks another: which sample stands in for a bad one follows from (seed, ordinal, attempt) alone, and a run has as
many steps with bad samples as without. Beyond a cap the run stops with one sentence, so that a wrong folder or a broken
disk never trains quietly on what little can still be read. This module alone may catch any exception of a sample.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from raccoon_datamodules.atomic import FULL, locked
from raccoon_datamodules.members import MemberError
from raccoon_datamodules.order import draw

T = TypeVar("T")

# Tries for one ordinal before it is given up: with one bad sample in ten, eight in a row are one in 10^8.
MAX_ATTEMPTS = 8


class TooManyFaultsError(RuntimeError):
    """The cap on bad samples is reached; the run stops."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One bad sample: what asked for it (None: a check, not a run), where it is, which member (or None) and why."""

    ordinal: int | None
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


def foreign(work: Callable[[], T]) -> T:
    """The result of a call into somebody else's package.

    OSError, ValueError and AttributeError pass as they are, any other error becomes an OSError in words: the clients of
    stores raise classes of their own, which can be named only where they are installed.
    """
    try:
        return work()
    except (OSError, ValueError, AttributeError):
        raise
    except Exception as err:
        raise OSError(explain(err)[1]) from err


def substitutes(ordinal: int, *, seed: int, epoch_length: int) -> Iterator[int]:
    """The ordinals whose samples may stand at ``ordinal``: itself, then different others of the same epoch, drawn."""
    yield ordinal
    words = draw(seed, ordinal, "substitute").bit_generator
    start = ordinal - ordinal % epoch_length
    tried = {ordinal}
    while len(tried) < min(MAX_ATTEMPTS, epoch_length):
        place = start + int(words.random_raw()) % epoch_length
        if place not in tried:
            tried.add(place)
            yield place


def append_faults(path: str | Path, faults: Iterable[Fault]) -> None:
    """Append to a quarantine list: one JSON object a line with the fields of `Fault`.

    Several processes may append to one list, ranks on other machines too: each call is a single write under a lock,
    all of its lines or none. The folder is made if need be.

    Raises:
        OSError: if the disk is full or the file cannot be written.
    """
    path = Path(path)
    text = "".join(json.dumps(asdict(fault), ensure_ascii=False) + "\n" for fault in faults)
    data = text.encode("utf-8", "backslashreplace")
    if not data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        with locked(handle):
            end = os.fstat(handle).st_size
            # A line that a crash cut off stays by itself and does not spoil the next.
            if end and os.pread(handle, 1, end - 1) != b"\n":
                data = b"\n" + data
            try:
                while data:
                    data = data[os.write(handle, data) :]
            except OSError as err:
                with suppress(OSError):
                    os.ftruncate(handle, end)
                if err.errno in FULL:
                    raise OSError(
                        err.errno, f"no room left to add to the quarantine list {path}: free some space"
                    ) from err
                raise
    finally:
        os.close(handle)


def read_faults(*paths: str | Path) -> list[Fault]:
    """The bad samples of quarantine lists, in their order; a sample may come several times.

    A line needs ``shard`` and ``key``; other fields may be missing, unknown ones are passed over.

    Raises:
        FileNotFoundError: if a list is not there.
        ValueError: if a line is no such object; it is named.
    """
    found = []
    for path in map(Path, paths):
        if not path.is_file():
            raise FileNotFoundError(f"there is no quarantine list at {path}: check the name, or leave it out")
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if line.strip():
                found.append(_fault_of(line, f"{path}, line {number}"))
    return found


def _fault_of(line: bytes, where: str) -> Fault:
    try:
        value: Any = json.loads(line)
        shard, key, ordinal, member = value["shard"], value["key"], value.get("ordinal"), value.get("member")
        fits = isinstance(shard, str) and isinstance(key, str) and (member is None or isinstance(member, str))
        if not fits or not (ordinal is None or type(ordinal) is int):
            raise TypeError(f"shard, key and member are texts, ordinal a number, got {line[:200].decode()}")
        return Fault(ordinal, int(value.get("attempt") or 0), key, shard, member, str(value.get("reason", "")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
        raise ValueError(
            f"{where}: a quarantine list holds one JSON object with shard, key and reason a line, "
            f"this one does not ({err!r}); remove the line"
        ) from err


class FaultLog:
    """Counts bad samples in the process that trains, writes them to a quarantine list, and stops the run at a cap.

    ``path`` is the quarantine list that is appended to (None: no file); all ranks may share one. The cap is passed when
    more than ``max_bad`` different samples and more than ``max_bad_fraction`` of all samples read so far are bad.

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
            append_faults(self.path, faults)
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
