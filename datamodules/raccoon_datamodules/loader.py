"""Batches in the run's order: the loader asks for ordinals, and neither workers nor ranks change what they hold."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from raccoon_datamodules.faults import Fault, FaultLog, Loaded, load_or_substitute
from raccoon_datamodules.order import Order, SampleRef, batch_ordinals
from raccoon_datamodules.sources import Source

E = TypeVar("E")
B = TypeVar("B")
# What makes the example of an ordinal of the sample at a place of a source.
Make: TypeAlias = Callable[[Source, SampleRef, int], E]


@dataclass(frozen=True, slots=True)
class Place:
    """This process's part of a run: its rank among ``world`` and the micro-batches of an optimizer step."""

    rank: int = 0
    world: int = 1
    parts: int = 1


class OrderedSamples(Dataset[Loaded[E]], Generic[E]):
    """Examples by ordinal. ``make(source, ref, ordinal)`` reads a sample and makes the example of that ordinal.

    A sample that cannot be read is replaced (`faults`); draws are keyed by the ordinal asked for, not by the
    substitute's. Where a cache is read, ``cached`` tells what came from it and ``decode`` makes the same example of
    decoded pictures: a batch holds features of all samples or pictures of all.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        order: Order,
        make: Make[E],
        *,
        seed: int,
        cached: Callable[[E], bool] | None = None,
        decode: Make[E] | None = None,
    ) -> None:
        self._sources = list(sources)
        self._order = order
        self._make = make
        self._seed = seed
        self._cached = cached
        self._decode = make if decode is None else decode

    def __getitem__(self, ordinal: int) -> Loaded[E]:
        """The example at an ordinal."""
        return self._load(ordinal, self._make)

    def __getitems__(self, ordinals: Sequence[int]) -> list[Loaded[E]]:
        """The examples of a batch; torch's DataLoader asks for them so."""
        loaded = [self[ordinal] for ordinal in ordinals]
        if self._cached is None:
            return loaded
        features = [one.value is not None and self._cached(one.value) for one in loaded]
        if not any(features) or all(features):
            return loaded
        # Here and not in the collation, where nothing could take the place of a sample whose pictures are broken.
        return [
            self._load(one.ordinal, self._decode) if is_cached else one
            for one, is_cached in zip(loaded, features, strict=True)
        ]

    def _load(self, ordinal: int, make: Make[E]) -> Loaded[E]:
        def load(place: int) -> E:
            ref = self._order.locate(place)
            return make(self._sources[ref.corpus], ref, ordinal)

        return load_or_substitute(load, ordinal, seed=self._seed, epoch_length=len(self._order), name=self.name)

    def name(self, ordinal: int) -> tuple[str, str]:
        """(shard, key) of the sample at an ordinal, without reading it."""
        ref = self._order.locate(ordinal)
        return self._sources[ref.corpus].name(ref.shard, ref.sample)


@dataclass(frozen=True, slots=True)
class _Collate(Generic[E, B]):
    """Examples to a batch, the faults beside it; runs in the worker."""

    collate: Callable[[list[Loaded[E]]], B]

    def __call__(self, loaded: list[Loaded[E]]) -> tuple[B | None, int, list[Fault]]:
        faults = [fault for one in loaded for fault in one.faults]
        if any(one.value is None for one in loaded):
            return None, len(loaded), faults
        return self.collate(loaded), len(loaded), faults


class OrderedLoader(Generic[E, B]):
    """An iterable of batches over given lists of ordinals.

    It is no `DataLoader` itself, so that Lightning neither injects a sampler nor counts epochs; each iteration makes
    one. ``batches`` is asked for the ordinals of every batch when an iteration starts, and ``length`` is their number,
    or None for an endless stream. Raises TooManyFaultsError out of the iteration when ``log``'s cap is passed.
    """

    def __init__(
        self,
        samples: OrderedSamples[E],
        collate: Callable[[list[Loaded[E]]], B],
        batches: Callable[[], Iterator[Sequence[int]]],
        *,
        log: FaultLog,
        length: int | None = None,
        num_workers: int = 0,
        prefetch: int = 2,
        pin_memory: bool = False,
    ) -> None:
        self._samples = samples
        self._collate = _Collate(collate)
        self._batches = batches
        self._log = log
        self._length = length
        self._num_workers = num_workers
        self._prefetch = prefetch
        self._pin_memory = pin_memory

    def __len__(self) -> int:
        """Number of batches. Raises TypeError for an endless stream, as Lightning expects of one."""
        if self._length is None:
            raise TypeError("an endless stream of batches has no length; a run ends by max_steps")
        return self._length

    def __iter__(self) -> Iterator[B]:
        """Start reading. The first ordinals are fixed now, not when the first batch is asked for."""
        loader = DataLoader(
            self._samples,
            batch_sampler=Fixed(self._batches()),
            collate_fn=self._collate,
            num_workers=self._num_workers,
            prefetch_factor=self._prefetch if self._num_workers else None,
            pin_memory=self._pin_memory,
            worker_init_fn=one_thread,
        )
        return self._checked(loader)

    def _checked(self, loader: "DataLoader[Loaded[E]]") -> Iterator[B]:
        for batch, num_read, faults in loader:
            self._log.add(faults, num_read=num_read, is_lost=batch is None)
            yield batch


class Fixed:
    """A batch sampler that hands out what it is given."""

    def __init__(self, batches: Iterable[Sequence[int]]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        return (list(batch) for batch in self._batches)


def endless(start: int, global_batch: int, place: Place) -> Iterator[range]:
    """This rank's micro-batches from the optimizer step that begins at ordinal ``start``, for ever.

    Raises as `order.batch_ordinals`, at once.
    """
    batch_ordinals(0, global_batch=global_batch, rank=place.rank, world=place.world, parts=place.parts)

    def steps() -> Iterator[range]:
        step = 0
        while True:
            for part in range(place.parts):
                yield batch_ordinals(
                    step,
                    global_batch=global_batch,
                    rank=place.rank,
                    world=place.world,
                    part=part,
                    parts=place.parts,
                    start=start,
                )
            step += 1

    return steps()


@dataclass(frozen=True, slots=True)
class Once:
    """This rank's batches of one pass in stored order, equally many on every rank; made as they are asked for.

    On one rank the last batch is what is left. On several it is filled up with ordinals from ``num_samples`` on, which
    stand for the first samples again: a metric leaves them out by ``ordinal >= num_samples``.
    """

    num_samples: int
    batch_size: int
    place: Place

    def __len__(self) -> int:
        """Number of batches."""
        return -(-self.num_samples // (self.batch_size * self.place.world))

    def __iter__(self) -> Iterator[range]:
        """The ordinals of each batch."""
        for number in range(len(self)):
            start = (number * self.place.world + self.place.rank) * self.batch_size
            end = start + self.batch_size
            yield range(start, min(end, self.num_samples) if self.place.world == 1 else end)


def one_thread(_: int) -> None:
    """Keep a worker process to one thread."""
    # One thread a worker: workers are the parallelism, more would only fight over the cores.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
