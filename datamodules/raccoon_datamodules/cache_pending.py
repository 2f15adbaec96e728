"""What a cache still lacks of a sample: its pictures, decoded, and its prompts, each with the keys to write under."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from raccoon_datamodules.cache import (
    CachedView,
    P2VModel,
    V2PModel,
    hidden_content,
    latent_key,
    text_key,
    v2p_keys,
)
from raccoon_datamodules.cache_store import CacheReader
from raccoon_datamodules.faults import attempt
from raccoon_datamodules.order import draw
from raccoon_datamodules.p2v import P2VDataModule
from raccoon_datamodules.pixels import stack_planes
from raccoon_datamodules.tasks import Choice, P2VPlan, V2PPlan, choices, edit_mask, pictures, plan_p2v, plan_v2p
from raccoon_datamodules.v2p import V2PDataModule

# A source with more samples than anybody can cache is endless to us.
_ENDLESS = 10_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """Frames of one member: ``planes`` uint8 [n, 3, H, W], for each the keys, and what is hidden: uint8 [n, H, W]."""

    keys: list[tuple[bytes, ...]]
    planes: Tensor
    hidden: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """What is missing of one sample; ``reason`` says why it could not be read, if so."""

    frames: list[Frames] = field(default_factory=list)
    texts: dict[bytes, str] = field(default_factory=dict)
    reason: str = ""

    def pictures(self) -> Iterator[tuple[tuple[bytes, ...], Tensor, Tensor | None]]:
        """(keys, frame [3, H, W], hidden [H, W] or None) of every picture."""
        for one in self.frames:
            for i, keys in enumerate(one.keys):
                yield keys, one.planes[i], None if one.hidden is None else one.hidden[i]


class PendingSamples(Dataset[Pending]):
    """The training samples of a datamodule in stored order, and what ``reader`` lacks of each.

    Every task and object that training could draw is looked at, with the frames that it could show: those of an even
    sampling, or all where one of each segment is drawn.

    Raises:
        ValueError: if a source is endless and there is no limit.
    """

    def __init__(
        self,
        data: V2PDataModule | P2VDataModule,
        model: V2PModel | P2VModel,
        reader: CacheReader,
        *,
        limit: int | None,
        part: tuple[int, int],
    ) -> None:
        self._data = data
        self._model = model
        self._reader = reader
        self._places: list[tuple[int, int, int]] = []
        for number, source in enumerate(data.sources):
            count = sum(source.shard_sizes)
            if limit is None and count > _ENDLESS:
                raise ValueError(
                    f"corpus {number} ({source.fingerprint()}) is made as it is asked for and has no end: say how many "
                    "samples to cache by --limit, or train from a folder of shards"
                )
            places = ((number, shard, i) for shard, size in enumerate(source.shard_sizes) for i in range(size))
            self._places += [place for place, _ in zip(places, range(limit or count), strict=False)]
        self._places = self._places[part[0] :: part[1]]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._places)

    def __getitem__(self, number: int) -> Pending:
        """What is missing of a sample."""
        if number >= len(self._places):
            raise IndexError(number)
        found = attempt(lambda: self._pending(*self._places[number]))
        if isinstance(found, Pending):
            return found
        member, reason = found
        corpus, shard, sample = self._places[number]
        name = "/".join(self._data.sources[corpus].name(shard, sample))
        return Pending(reason=f"{name}: {f'{member} ' if member else ''}{reason}")

    def _pending(self, corpus: int, shard: int, sample: int) -> Pending:
        source = self._data.sources[corpus]
        every = [c for some in choices(source.suffixes(shard, sample), self._data.task_weights).values() for c in some]
        wanted = frozenset(suffix for choice in every for suffix in choice.wanted)
        view = CachedView(source, shard, sample, wanted)
        if isinstance(self._data, V2PDataModule) and isinstance(self._model, V2PModel):
            return Pending(self._grids(view, every, self._data, self._model))
        assert isinstance(self._data, P2VDataModule)
        assert isinstance(self._model, P2VModel)
        return self._latents(view, every, self._data, self._model)

    def _grids(self, view: CachedView, every: list[Choice], data: V2PDataModule, model: V2PModel) -> list[Frames]:
        shown: dict[str, set[int]] = {}
        for choice in every:
            plan = attempt(lambda choice=choice: self._plan_v2p(view, choice, data))  # type: ignore[misc]
            # An object that is in no frame makes no example.
            if isinstance(plan, V2PPlan):
                shown.setdefault(plan.member, set()).update(_numbers(view, plan.frames, data.frame_sampling))
        found = []
        for member, numbers in sorted(shown.items()):
            content = view.content(member)
            keys = {n: v2p_keys(model, self._reader.dtype, content, n, data.size) for n in sorted(numbers)}
            missing = [n for n in keys if not all(self._reader.has(keys[n]))]
            if missing:
                shown_frames = pictures(view, member, missing, data.size)
                found.append(Frames([keys[n] for n in missing], _planes(shown_frames), None))
        return found

    def _latents(self, view: CachedView, every: list[Choice], data: P2VDataModule, model: P2VModel) -> Pending:
        texts: dict[bytes, str] = {}
        # Content to (member, numbers, what makes the mask or None).
        shown: dict[str, tuple[str, set[int], P2VPlan | None]] = {}
        for choice in every:
            plan = attempt(lambda choice=choice: self._plan_p2v(view, choice, data))  # type: ignore[misc]
            if not isinstance(plan, P2VPlan):
                continue
            numbers = _numbers(view, plan.frames, data.frame_sampling)
            hidden = model.hidden(plan)
            for content, member, by in (
                (view.content(plan.target), plan.target, None),
                (hidden_content(view, plan, hidden), plan.condition, None if hidden == "nothing" else plan),
            ):
                shown.setdefault(content, (member, set(), by))[1].update(numbers)
            key = text_key(model, self._reader.dtype, plan.prompt)
            if not self._reader.has([key])[0]:
                texts[key] = plan.prompt
        found = []
        for content, (member, numbers, by) in sorted(shown.items()):
            keys = {n: (latent_key(model, self._reader.dtype, content, n, data.size),) for n in sorted(numbers)}
            missing = [n for n in keys if not all(self._reader.has(keys[n]))]
            if missing:
                frames = pictures(view, member, missing, data.size)
                hides = None if by is None else _mask(view, by, missing, data.size)
                found.append(Frames([keys[n] for n in missing], _planes(frames), hides))
        return Pending(found, texts)

    @staticmethod
    def _plan_v2p(view: CachedView, choice: Choice, data: V2PDataModule) -> V2PPlan:
        # Which frames a draw would take does not matter: all of them are cached.
        rng = draw(0, 0, "cache")
        return plan_v2p(view, choice, num_frames=data.num_frames, rng=rng, sampling=data.frame_sampling)

    @staticmethod
    def _plan_p2v(view: CachedView, choice: Choice, data: P2VDataModule) -> P2VPlan:
        rng = draw(0, 0, "cache")
        return plan_p2v(view, choice, num_frames=data.num_frames, rng=rng, sampling=data.frame_sampling)


def _numbers(view: CachedView, frames: Sequence[int], sampling: str) -> set[int]:
    """The frames that training could show."""
    return set(frames) if sampling == "uniform" else set(range(view.num_frames))


def _planes(frames: NDArray[np.uint8]) -> Tensor:
    return stack_planes([frames])[0]


def _mask(view: CachedView, plan: P2VPlan, numbers: list[int], size: tuple[int, int]) -> Tensor:
    # Masks and boxes are made frame by frame, so those of some frames are some of those of all.
    part = replace(plan, frames=tuple(numbers))
    return torch.from_numpy(np.ascontiguousarray(edit_mask(view, part, size)))
