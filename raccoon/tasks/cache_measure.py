"""What a cache saves: the same batches read and trained on, with it and without, in turns."""

import copy
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raccoon.tasks.cache_features import p2v_model, v2p_model
from raccoon.tasks.p2v import P2VTask
from raccoon_datamodules.cache import FeatureCache

_WARM_UP = 2


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of a time, in milliseconds a sample."""

    p20: float
    p50: float
    p80: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Times (without, with) of reading a batch, of a step's forward and backward pass, and of both together.

    ``num_cached`` of the ``steps`` batches came from the cache; ``error`` is the largest relative difference of losses.
    """

    steps: int
    batch_size: int
    device: str
    reading: tuple[Spread, Spread]
    step: tuple[Spread, Spread]
    both: tuple[Spread, Spread]
    num_cached: int
    error: float

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def measure(task: Any, data: Any, folder: str | Path, *, steps: int, device: str | torch.device = "cpu") -> Measured:
    """Time ``steps`` batches of the training order with and without the cache, read in this process.

    Args:
        task: whose forward and backward pass is timed; its gradients are thrown away.
        data: its datamodule.
        folder: of the cache.
        steps: batches, after two to warm up; at least 1.
        device: to train on.

    Raises:
        ValueError: if steps is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps to measure must be at least 1, got {steps}")
    device = torch.device(device)
    task.to(device).train()
    # Nothing is logged, and there is no trainer to log to.
    task.log = _nothing
    if getattr(data, "conversation", task) is None:
        data.conversation = task.conversation
    plain = _alone(data, None)
    cached = _alone(data, folder)
    cached.cached_model = p2v_model(task.network) if isinstance(task, P2VTask) else v2p_model(task.network)
    streams = [iter(plain.train_dataloader()), iter(cached.train_dataloader())]
    times = np.zeros((2, 2, steps))
    losses = np.zeros((2, steps))
    num_cached = 0
    batch_size = 0
    for number in range(-_WARM_UP, steps):
        # Who comes first takes turns as well.
        for which in (0, 1) if number % 2 else (1, 0):
            batch, reading = _timed(lambda stream=streams[which]: next(stream), device)
            batch_size = len(batch.key)
            loss, step = _timed(lambda batch=batch: _step(task, batch, device), device)
            if number >= 0:
                times[which, :, number] = reading, step
                losses[which, number] = loss
                num_cached += (which == 1 and type(batch).__name__ == "P2VLatentBatch") or (
                    getattr(batch, "grid", None) is not None
                )
    per_sample = times * 1e3 / batch_size
    error = float(np.max(np.abs(losses[1] - losses[0]) / np.maximum(np.abs(losses[0]), 1e-12)))
    return Measured(
        steps,
        batch_size,
        str(device),
        (_spread(per_sample[0, 0]), _spread(per_sample[1, 0])),
        (_spread(per_sample[0, 1]), _spread(per_sample[1, 1])),
        (_spread(per_sample[0].sum(axis=0)), _spread(per_sample[1].sum(axis=0))),
        num_cached,
        error,
    )


def _alone(data: Any, folder: str | Path | None) -> Any:
    """A copy of a datamodule that reads in this process, from a cache or from none."""
    alone = copy.copy(data)
    alone.cache = None if folder is None else FeatureCache(folder)
    alone.train_log = None
    alone.trainer = None
    alone._loading = {**data._loading, "num_workers": 0, "pin_memory": False}
    return alone


def _step(task: Any, batch: Any, device: torch.device) -> float:
    moved = task.transfer_batch_to_device(batch, device, 0)
    loss = task.training_step(moved, 0)
    loss.backward()
    task.zero_grad()
    return float(loss.detach())


def _timed(work: Any, device: torch.device) -> tuple[Any, float]:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result, time.perf_counter() - began


def _spread(values: np.ndarray[Any, np.dtype[np.float64]]) -> Spread:
    p20, p50, p80 = (float(np.quantile(values, q)) for q in (0.2, 0.5, 0.8))
    return Spread(p20, p50, p80)


def _nothing(*_: Any, **__: Any) -> None:
    return None
