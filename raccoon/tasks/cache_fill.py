"""Fills a cache: everything that a task's frozen parts would make of the training data, each frame once.

Samples are read and decoded by the datamodule's worker processes, encoded here in batches of frames, and written in
packs (`raccoon_datamodules.cache_store`). What is there already is not decoded again, so a run that was stopped goes
on, and several runs, each with its part of the samples, fill one folder.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from raccoon.tasks.cache_features import encode_grid, encode_latents, encode_text, p2v_model, v2p_model
from raccoon.tasks.p2v import P2VTask
from raccoon.tasks.v2p import V2PTask
from raccoon_datamodules.cache_pending import Pending, PendingSamples
from raccoon_datamodules.cache_store import CacheDtype, CacheReader, PackWriter, create_cache
from raccoon_datamodules.loader import one_thread
from raccoon_datamodules.p2v import P2VDataModule
from raccoon_datamodules.v2p import V2PDataModule

Progress = Callable[[int, int], None]
# Texts to encode at once, and samples that may be bad before the run is taken for a mistake.
_TEXTS = 64


@dataclass(frozen=True, slots=True)
class Filled:
    """What `fill` did.

    Samples looked at; of them those that lacked nothing and those that could not be read, with the first ``reason``;
    tensors and bytes written; seconds taken.
    """

    num_samples: int = 0
    num_known: int = 0
    num_failed: int = 0
    reason: str = ""
    num_tensors: int = 0
    num_bytes: int = 0
    seconds: float = 0.0


def fill(
    task: object,
    data: object,
    folder: str | Path,
    *,
    dtype: CacheDtype = "float16",
    device: str | torch.device = "cpu",
    limit: int | None = None,
    part: tuple[int, int] = (0, 1),
    batch_frames: int = 64,
    num_workers: int = 0,
    progress: Progress | None = None,
) -> Filled:
    """Write what is missing of the training data of ``data``.

    Args:
        task: a `V2PTask` or `P2VTask`, whose network's frozen parts do the work.
        data: the datamodule that it trains on.
        folder: of the cache; made if it is not there.
        dtype: of grids, latents and text features; superpixels and what is said of them are exact in any case.
        device: to compute on.
        limit: the first so many samples of each corpus; an endless source needs one.
        part: (i, n): every n-th sample from the i-th on, counted from 0.
        batch_frames: frames that the network sees at once.
        num_workers: processes that read and decode.
        progress: called with (samples done, all).

    Raises:
        TypeError: if task and data are no pair of describer's or painter's.
        ValueError: if a number is out of range, an endless source comes without ``limit``, the folder holds another
            dtype, or a part that is to be frozen is being trained.
        RuntimeError: if not one sample could be read.
        OSError: if the disk is full.
    """
    index, count = part
    if not 0 <= index < count or batch_frames < 1 or num_workers < 0 or (limit is not None and limit < 1):
        raise ValueError(
            "part must be (i, n) with 0 <= i < n, batch_frames and limit at least 1 and num_workers at least 0, got "
            f"{part}, {batch_frames}, {limit} and {num_workers}"
        )
    encoder = _encoder(task, data, torch.device(device), dtype)
    create_cache(folder, dtype)
    reader = CacheReader(folder)
    pending = PendingSamples(data, encoder.model, reader, limit=limit, part=part)  # type: ignore[arg-type]  # checked
    loader = DataLoader(
        pending, batch_size=None, num_workers=num_workers, worker_init_fn=one_thread, collate_fn=_as_it_is
    )
    done, began = Filled(), time.perf_counter()
    with PackWriter(folder) as writer:
        for number, found in enumerate(encoder.encoded(loader, writer, batch_frames), 1):
            done = _counted(done, found)
            if progress is not None:
                progress(number, len(pending))
    done = replace(
        done, num_tensors=writer.num_tensors, num_bytes=writer.num_bytes, seconds=time.perf_counter() - began
    )
    if done.num_samples and done.num_failed == done.num_samples:
        raise RuntimeError(f"none of the {done.num_samples} samples could be read, the first one: {done.reason}")
    return done


class _Encoder:
    """Collects pictures and prompts to batches and writes what the network makes of them."""

    def __init__(self, network: Any, model: Any, device: torch.device, dtype: CacheDtype) -> None:
        self.network = network.to(device).eval()
        self.model = model
        self.device = device
        self.dtype: torch.dtype = getattr(torch, dtype)
        self._seen: set[bytes] = set()

    def encoded(
        self, samples: Iterator[Pending] | DataLoader[Pending], writer: PackWriter, batch_frames: int
    ) -> Iterator[Pending]:
        """Write what each sample lacks; yields the samples as they come."""
        waiting: list[tuple[Sequence[bytes], Tensor, Tensor | None]] = []
        texts: dict[bytes, str] = {}
        for sample in samples:
            for keys, frame, hidden in sample.pictures():
                if keys[0] not in self._seen:
                    self._seen.add(keys[0])
                    waiting.append((keys, frame, hidden))
            texts |= {key: text for key, text in sample.texts.items() if key not in self._seen}
            while len(waiting) >= batch_frames:
                self._write(waiting[:batch_frames], writer)
                del waiting[:batch_frames]
            if len(texts) >= _TEXTS:
                self._write_texts(texts, writer)
            yield sample
        # Pictures of one size belong together; the last few may be of several corpora.
        if waiting:
            self._write(waiting, writer)
        self._write_texts(texts, writer)

    def _write(self, waiting: Sequence[tuple[Sequence[bytes], Tensor, Tensor | None]], writer: PackWriter) -> None:
        raise TypeError("an encoder writes grids or latents")

    def _write_texts(self, texts: dict[bytes, str], writer: PackWriter) -> None:
        if texts:
            self._seen |= texts.keys()
            for key, row in zip(texts, encode_text(self.network, list(texts.values())), strict=True):
                writer.add(key, row.to(self.dtype))
            texts.clear()


class _GridEncoder(_Encoder):
    def _write(self, waiting: Sequence[tuple[Sequence[bytes], Tensor, Tensor | None]], writer: PackWriter) -> None:
        frames = torch.stack([frame for _, frame, _ in waiting]).to(self.device).float().div_(255.0)
        for (keys, _, _), grid, labels, means in zip(waiting, *encode_grid(self.network, frames), strict=True):
            writer.add(keys[0], grid.to(self.dtype))
            writer.add(keys[1], labels, pack=True)
            writer.add(keys[2], means)


class _LatentEncoder(_Encoder):
    def _write(self, waiting: Sequence[tuple[Sequence[bytes], Tensor, Tensor | None]], writer: PackWriter) -> None:
        frames = torch.stack([frame for _, frame, _ in waiting]).to(self.device).float().div_(127.5).sub_(1.0)
        nothing = torch.zeros(frames.shape[2:], dtype=torch.uint8)
        hidden = torch.stack([nothing if mask is None else mask for _, _, mask in waiting]).to(self.device)
        for (keys, _, _), latents in zip(waiting, encode_latents(self.network, frames, hidden), strict=True):
            writer.add(keys[0], latents.to(self.dtype))


def _encoder(task: object, data: object, device: torch.device, dtype: CacheDtype) -> _Encoder:
    if isinstance(task, V2PTask) and isinstance(data, V2PDataModule):
        return _GridEncoder(task.network, v2p_model(task.network), device, dtype)
    if isinstance(task, P2VTask) and isinstance(data, P2VDataModule):
        return _LatentEncoder(task.network, p2v_model(task.network), device, dtype)
    raise TypeError(
        "a cache is of a V2PTask with its V2PDataModule or of a P2VTask with its P2VDataModule, got "
        f"{type(task).__name__} with {type(data).__name__}"
    )


def _as_it_is(sample: Any) -> Any:
    return sample


def _counted(done: Filled, found: Pending) -> Filled:
    return replace(
        done,
        num_samples=done.num_samples + 1,
        num_known=done.num_known + (not found.frames and not found.texts and not found.reason),
        num_failed=done.num_failed + bool(found.reason),
        reason=done.reason or found.reason,
    )
