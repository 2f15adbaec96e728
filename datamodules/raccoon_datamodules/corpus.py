"""`CorpusDataModule`: every sample of a dataset once, whole, for `raccoon predict`.

Samples are dealt out to the ranks in turn, so that all have work until the end, and nothing is repeated to make their
numbers equal.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any

import lightning.pytorch as pl
from torch.utils.data import DataLoader, Dataset

from raccoon_datamodules.faults import Fault, Loaded, attempt
from raccoon_datamodules.loader import Fixed, one_thread
from raccoon_datamodules.mixture import Shards, open_one
from raccoon_datamodules.order import SampleOrder
from raccoon_datamodules.sample import VplmSample
from raccoon_datamodules.sources import Source


class CorpusBatch:
    """Samples with their ordinals: the places in the dataset's stored order. Nothing is moved to a device.

    ``loaded``: one for each sample; its value is None where it could not be read, and its only fault says why.
    """

    # Not a dataclass or a list: Lightning would walk through those in search of tensors, and refuses frozen ones.
    def __init__(self, loaded: Sequence[Loaded[VplmSample]]) -> None:
        self.loaded = tuple(loaded)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.loaded)


class CorpusDataModule(pl.LightningDataModule):
    """Every sample of one dataset once, in stored order, as `CorpusBatch`.

    Args:
        data: a folder or http(s) address of shards, or a `Source` (synthetic scenes, with ``num_scenes`` set).
        batch_size: samples handed over at once.
        objects: read the objects' records too, with masks and clips without them.
        num_workers: processes that read and decode; 0 reads in the process that predicts.
        prefetch: batches each worker keeps ready.

    ``done``, set before the loader is made, holds the ordinals of samples that are left out.

    Raises:
        ValueError: if batch_size is not positive.
    """

    def __init__(
        self, data: Shards, *, batch_size: int = 16, objects: bool = True, num_workers: int = 0, prefetch: int = 2
    ) -> None:
        super().__init__()
        # A rank may have nothing left to do.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.batch_size = batch_size
        self.objects = objects
        self.done: Collection[int] = frozenset()
        self._data = data
        self._num_workers = num_workers
        self._prefetch = prefetch
        self._source: Source | None = None

    @property
    def source(self) -> Source:
        """The opened dataset. Raises as `Index.load`, and ValueError if several folders are given."""
        if self._source is None:
            self._source = open_one(self._data, "prediction")
        return self._source

    @property
    def num_samples(self) -> int:
        """Samples of the dataset, on all ranks and done ones included."""
        return sum(self.source.shard_sizes)

    def setup(self, stage: str | None = None) -> None:
        """Open the dataset; its index is read, no sample is."""
        _ = self.source

    def predict_dataloader(self) -> "CorpusLoader | list[Any]":
        """This rank's samples: of every ``world`` ordinals the one that is its own, but for those in ``done``."""
        rank, world = 0, 1
        if self.trainer is not None:
            ranks = self.trainer.distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
            rank, world = ranks["rank"], ranks["num_replicas"]
        samples = _Samples(self.source, objects=self.objects)
        ordinals: Sequence[int] = range(rank, self.num_samples, world)
        if self.done:
            ordinals = [ordinal for ordinal in ordinals if ordinal not in self.done]
        if not ordinals:
            return []
        return CorpusLoader(samples, ordinals, self.batch_size, num_workers=self._num_workers, prefetch=self._prefetch)


class CorpusLoader:
    """An iterable of `CorpusBatch` over given ordinals.

    It is no `DataLoader` itself, so that Lightning neither makes it anew nor puts a sampler in; each iteration makes
    one.
    """

    def __init__(
        self, samples: "_Samples", ordinals: Sequence[int], batch_size: int, *, num_workers: int, prefetch: int
    ) -> None:
        self._ordinals = ordinals
        self._batch_size = batch_size
        self._make: Callable[..., DataLoader[Loaded[VplmSample]]] = partial(
            DataLoader,
            samples,
            collate_fn=CorpusBatch,
            num_workers=num_workers,
            prefetch_factor=prefetch if num_workers else None,
            worker_init_fn=one_thread,
        )

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self._ordinals) // self._batch_size)

    def __iter__(self) -> Iterator[CorpusBatch]:
        """Read from the first ordinal on."""
        starts = range(0, len(self._ordinals), self._batch_size)
        return iter(self._make(batch_sampler=Fixed(self._ordinals[i : i + self._batch_size] for i in starts)))


class _Samples(Dataset[Loaded[VplmSample]]):
    """Whole samples by ordinal; one that cannot be read is told of, not replaced."""

    def __init__(self, source: Source, *, objects: bool) -> None:
        self._source = source
        self._order = SampleOrder(source.shard_sizes, shuffle=False)
        self._objects = objects

    def __getitem__(self, ordinal: int) -> Loaded[VplmSample]:
        ref = self._order.locate(ordinal)
        read = attempt(lambda: self._source.whole(ref.shard, ref.sample, objects=self._objects))
        if isinstance(read, VplmSample):
            return Loaded(ordinal, read)
        shard, key = self.name(ordinal)
        return Loaded(ordinal, None, (Fault(ordinal, 0, key, shard, *read),))

    def name(self, ordinal: int) -> tuple[str, str]:
        """(shard, key) of a sample, without reading it."""
        ref = self._order.locate(ordinal)
        return self._source.name(ref.shard, ref.sample)
