"""The readers that the loader's benchmark compares, all over the same bytes and all decoding by the same functions.

What differs between them is what differs between loaders: how bytes are found, who draws the order, what a sample costs
beside its decoding. ``bare`` is no loader: it reads the members by offset and decodes the frames that are asked for,
one sample after the other, and makes no batch.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from raccoon_datamodules import members
from raccoon_datamodules.bench_loader_data import Workload
from raccoon_datamodules.faults import Loaded
from raccoon_datamodules.loader import one_thread
from raccoon_datamodules.members import load_mask, load_meta, load_object, object_suffix
from raccoon_datamodules.order import draw
from raccoon_datamodules.p2v import P2VDataModule
from raccoon_datamodules.pixels import resize_mask
from raccoon_datamodules.sources import ShardSource
from raccoon_datamodules.tasks import P2VExample, choices, painted, plan_p2v
from raccoon_datamodules.video_bytes import decode_bytes
from raccoon_datamodules.view import MemberView


class Reader(ABC):
    """``num_samples`` samples of a workload, pass after pass, in batches of ``batch_size``.

    Workers are given more than that (`batches_ahead`), so that they work until the last of these samples has arrived.
    """

    name: str

    def __init__(self, workload: Workload, *, num_samples: int, batch_size: int, num_workers: int) -> None:
        self.workload = workload
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.num_workers = num_workers

    @abstractmethod
    def batches(self) -> Iterator[int]:
        """Begin a pass; yields the samples of each batch once it is there."""


class Bare(Reader):
    """Members by offset, frames decoded, nothing else. What to read is settled before the pass begins."""

    name = "bare decode loop"

    def __init__(self, workload: Workload, *, num_samples: int, batch_size: int, num_workers: int) -> None:
        super().__init__(workload, num_samples=num_samples, batch_size=batch_size, num_workers=num_workers)
        data = datamodule(workload, batch_size=batch_size, num_workers=0)
        self._jobs = [_job(data, ordinal) for ordinal in range(num_samples)]

    def batches(self) -> Iterator[int]:
        """See `Reader.batches`."""
        for _ in self._decoded():
            yield 1

    def _decoded(self) -> Iterator[tuple[NDArray[np.uint8], ...]]:
        """The mask as stored and the clips of each sample."""
        # The same fast way to the bytes that the loader has, without its checksums.
        read = ShardSource(self.workload.shards)._reader.read_many
        for job in self._jobs:
            data = dict(zip(job.suffixes, read(job.shard, job.ranges), strict=True))
            meta = load_meta(data[members.META])
            load_object(data[job.record], job.record, meta=meta)
            mask = load_mask(data[job.mask], job.mask, meta=meta, frames=job.frames)
            yield mask, *(decode_bytes(data[c], job.frames, 1, size=self.workload.size).frames for c in job.clips)


class BareBatches(Bare):
    """The bare loop, and its frames and masks as the batches that the loader yields; nothing else."""

    name = "bare loop, batched"

    def batches(self) -> Iterator[int]:
        """See `Reader.batches`."""
        make = _Make(self.workload)
        waiting: list[P2VExample] = []
        for mask, *clips in self._decoded():
            small = resize_mask(mask, self.workload.size)
            waiting.append(P2VExample(clips[0], clips[-1], small, "", "remove", ""))
            if len(waiting) == self.batch_size:
                make.batch(waiting)
                yield len(waiting)
                waiting = []


class Ours(Reader):
    """`P2VDataModule`, as training reads."""

    name = "raccoon"

    def batches(self) -> Iterator[int]:
        """See `Reader.batches`."""
        data = datamodule(self.workload, batch_size=self.batch_size, num_workers=self.num_workers)
        # An endless stream, whose workers are never done.
        yield from _sizes(data.train_dataloader(), self.num_samples)


class WebDataset(Reader):
    """A plain webdataset pipeline: tars as streams, split over the workers, members by our own table."""

    name = "webdataset"

    def batches(self) -> Iterator[int]:
        """See `Reader.batches`. Raises ImportError if webdataset is not installed."""
        wds: Any = importlib.import_module("webdataset")
        urls = [str(path) for path in sorted(self.workload.shards.glob("*.tar"))]
        make = _Make(self.workload)
        stream = wds.WebDataset(urls, shardshuffle=False, empty_check=False).map(make.of_stream)
        stream = stream.batched(self.batch_size, collation_fn=make.batch)
        # Whole passes, because one that is broken off here leaves its tars open; those of workers end with them.
        wanted = self.num_samples + batches_ahead(self.num_workers) * self.batch_size
        stream = stream.repeat(nepochs=-(-wanted // self.workload.num_samples) + min(1, self.num_workers))
        loader = _loader(stream, None, self.num_workers)
        yield from _sizes(loader, self.num_samples if self.num_workers else None)


class Files(Dataset[P2VExample]):
    """The samples as loose files, in the order of their names."""

    def __init__(self, workload: Workload) -> None:
        self._folder = workload.folder
        self._make = _Make(workload)
        self._files: dict[str, list[str]] = {}
        for path in sorted(workload.folder.iterdir()):
            key, suffix = members.split_name(path.name)
            self._files.setdefault(key, []).append(suffix)
        self._keys = list(self._files)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._keys)

    def __getitem__(self, number: int) -> P2VExample:
        """A sample, its files read and decoded."""
        key = self._keys[number % len(self._keys)]
        wanted = self._make.wanted(self._files[key])
        return self._make({suffix: (self._folder / f"{key}.{suffix}").read_bytes() for suffix in wanted})


class Folder(Reader):
    """A plain map-style data set over a folder of files, in a shuffled order."""

    name = "folder of files"

    def batches(self) -> Iterator[int]:
        """See `Reader.batches`."""
        files = Files(self.workload)
        numbers = torch.randperm(len(files), generator=torch.Generator().manual_seed(0)).tolist()
        wanted = self.num_samples + batches_ahead(self.num_workers) * self.batch_size
        numbers = [numbers[i % len(numbers)] for i in range(wanted)]
        batches = [numbers[i : i + self.batch_size] for i in range(0, len(numbers), self.batch_size)]
        loader = DataLoader(
            files,
            batch_sampler=batches,
            num_workers=self.num_workers,
            collate_fn=_Make(self.workload).batch,
            worker_init_fn=one_thread,
        )
        yield from _sizes(loader, self.num_samples)


READERS: tuple[type[Reader], ...] = (Bare, BareBatches, Ours, WebDataset, Folder)


@dataclass(frozen=True, slots=True)
class _Job:
    shard: str
    suffixes: list[str]
    ranges: list[tuple[int, int]]
    record: str
    mask: str
    clips: list[str]
    frames: list[int]


def _job(data: P2VDataModule, ordinal: int) -> _Job:
    """What the loader reads and decodes at an ordinal."""
    ref = data.order.locate(ordinal)
    source = data.sources[ref.corpus]
    assert isinstance(source, ShardSource)
    choice = data.choice(source, ref, ordinal)
    view = source.view(ref.shard, ref.sample, choice.wanted)
    rng = draw(data.seed, ordinal, "train/example")
    plan = plan_p2v(view, choice, num_frames=data.num_frames, rng=rng, sampling=data.frame_sampling)
    shard = source.index.shards[ref.shard]
    entries = shard.members(ref.sample, choice.wanted)
    return _Job(
        shard.name,
        [entry.suffix for entry in entries],
        [(entry.offset, entry.length) for entry in entries],
        object_suffix("object", plan.object_id),
        object_suffix("mask", plan.object_id),
        sorted({plan.target, plan.condition}),
        sorted(set(plan.frames)),
    )


class _Make:
    """Members to an example and examples to a batch, as the datamodule does, for the readers that are not ours."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._data = datamodule(workload, batch_size=1, num_workers=0)

    def __call__(self, data: Mapping[str, bytes]) -> P2VExample:
        view = MemberView(data)
        choice = choices(list(data), {self._workload.task: 1.0})[self._workload.task][0]
        rng = draw(0, 0, "bench")
        plan = plan_p2v(view, choice, num_frames=self._workload.num_frames, rng=rng, sampling="uniform")
        return painted(view, plan, self._workload.size)

    def wanted(self, suffixes: Sequence[str]) -> frozenset[str]:
        """The members that the first object's example reads."""
        return choices(suffixes, {self._workload.task: 1.0})[self._workload.task][0].wanted

    def of_stream(self, sample: Mapping[str, Any]) -> P2VExample:
        """The example of a webdataset sample."""
        return self({name: data for name, data in sample.items() if not name.startswith("__")})

    def batch(self, examples: list[P2VExample]) -> Any:
        """A batch."""
        return self._data.collate([Loaded(0, example) for example in examples])


def batches_ahead(num_workers: int) -> int:
    """Batches that workers have under way while one is waited for, two each."""
    return 2 * num_workers


def datamodule(workload: Workload, *, batch_size: int, num_workers: int) -> P2VDataModule:
    """What training on a workload reads with."""
    return P2VDataModule(
        str(workload.shards),
        global_batch_size=batch_size,
        num_frames=workload.num_frames,
        size=workload.size,
        tasks={workload.task: 1.0},
        frame_sampling="uniform",
        num_workers=num_workers,
    )


def _loader(stream: Any, batch_size: int | None, num_workers: int) -> "DataLoader[Any]":
    return DataLoader(stream, batch_size=batch_size, num_workers=num_workers, worker_init_fn=one_thread)


def _sizes(loader: Iterable[Any], num_samples: int | None) -> Iterator[int]:
    """The size of each batch until so many samples have come, or to the end."""
    done = 0
    for batch in loader:
        done += len(batch.key)
        yield len(batch.key)
        if num_samples is not None and done >= num_samples:
            return
