"""The order of training: which sample has which ordinal, and the random numbers that belong to it.

The order is one endless stream of ordinals 0, 1, 2, ...: epoch after epoch, shards shuffled by (seed, epoch), samples
shuffled within a window of shards. It knows neither ranks nor workers, and going to any place in it is arithmetic.
Global batch b is the ordinals [b G, (b + 1) G), G the samples of one optimizer step; a rank takes a contiguous part.

Permutations are the stable argsort of raw Philox words, which no version of numpy may change; so an order can be
replayed years later. Philox is counter-based: a draw depends on (seed, purpose, ordinal), not on what was drawn before.
"""

import hashlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

# Windows whose permutation is kept: one is in use, the next is being entered by prefetching workers.
_KEPT_WINDOWS = 4
_MIX_BLOCK = 1000


@dataclass(frozen=True, slots=True, order=True)
class SampleRef:
    """Where a sample lies: corpus (0 unless mixed), shard, sample in the shard; ``epoch`` is the pass it belongs to."""

    corpus: int
    epoch: int
    shard: int
    sample: int


class Order(Protocol):
    """What the loader needs of an order."""

    def locate(self, ordinal: int, /) -> SampleRef:
        """The sample of an ordinal."""
        ...

    def __len__(self) -> int:
        """Samples of one epoch."""
        ...


class SampleOrder:
    """The order over one corpus of shards.

    ``shard_sizes`` is the number of samples of each shard; ``window_shards`` how many shards are shuffled together
    (larger mixes better and touches more files at a time). With ``shuffle=False`` the samples come as they are stored.

    Raises:
        ValueError: if there are no samples, a size is negative, the seed is not in [0, 2**64), or the window is empty.
    """

    def __init__(
        self, shard_sizes: Sequence[int], *, seed: int = 0, window_shards: int = 8, shuffle: bool = True
    ) -> None:
        self._sizes = [int(n) for n in shard_sizes]
        if min(self._sizes, default=-1) < 0 or sum(self._sizes) < 1:
            raise ValueError(f"an order needs at least one sample, got shards of {self._sizes[:20]} samples")
        if window_shards < 1:
            raise ValueError(f"window_shards must be at least 1, got {window_shards}")
        self.seed = check_seed(seed)
        self.window_shards = window_shards
        self.shuffle = shuffle
        self._length = sum(self._sizes)
        self._ends = list(accumulate(self._sizes))
        self._epochs: OrderedDict[int, tuple[list[int], list[int]]] = OrderedDict()
        self._windows: OrderedDict[tuple[int, int], tuple[NDArray[np.int64], list[int], list[int]]] = OrderedDict()

    def __len__(self) -> int:
        """Samples of one epoch."""
        return self._length

    def locate(self, ordinal: int, /) -> SampleRef:
        """The sample of an ordinal >= 0. O(1) for a neighbour of the last one, O(shards + window) anywhere else."""
        if ordinal < 0:
            raise ValueError(f"an ordinal must be at least 0, got {ordinal}")
        epoch, place = divmod(ordinal, self._length)
        if not self.shuffle:
            shard = bisect_right(self._ends, place)
            return SampleRef(0, epoch, shard, place - self._ends[shard] + self._sizes[shard])
        shards, ends = self._epoch(epoch)
        window = bisect_right(ends, place)
        permutation, members, starts = self._window(epoch, window, shards)
        inside = int(permutation[place - (ends[window - 1] if window else 0)])
        which = bisect_right(starts, inside) - 1
        return SampleRef(0, epoch, members[which], inside - starts[which])

    def _epoch(self, epoch: int) -> tuple[list[int], list[int]]:
        """The shards of an epoch in their order (empty ones left out), and where each window ends."""
        found = self._epochs.get(epoch)
        if found is None:
            shuffled = permutation(self.seed, "shards", len(self._sizes), epoch)
            shards = [int(s) for s in shuffled if self._sizes[s]]
            step = self.window_shards
            sizes = [sum(self._sizes[s] for s in shards[i : i + step]) for i in range(0, len(shards), step)]
            found = shards, list(accumulate(sizes))
            self._epochs[epoch] = found
            while len(self._epochs) > 2:
                self._epochs.popitem(last=False)
        return found

    def _window(self, epoch: int, window: int, shards: list[int]) -> tuple[NDArray[np.int64], list[int], list[int]]:
        """A window's permutation, its shards, and where each shard's samples start before they are shuffled."""
        found = self._windows.get((epoch, window))
        if found is None:
            members = shards[window * self.window_shards : (window + 1) * self.window_shards]
            starts = [0, *accumulate(self._sizes[s] for s in members)]
            found = permutation(self.seed, "samples", starts.pop(), epoch, window), members, starts
            self._windows[epoch, window] = found
            while len(self._windows) > _KEPT_WINDOWS:
                self._windows.popitem(last=False)
        return found


class MixedOrder:
    """Several corpora in one order, by weight.

    Every block of 1000 ordinals holds each corpus's share exactly (largest remainder), in an order keyed by (seed,
    block); each corpus goes through its own order undisturbed. So the counts are exact, not only expected, and the
    place of every corpus is arithmetic.

    Raises:
        ValueError: if weights and orders do not match, or a weight is not positive or too small to be drawn at all.
    """

    def __init__(self, orders: Sequence[SampleOrder], weights: Sequence[float], *, seed: int = 0) -> None:
        if len(orders) != len(weights) or not orders:
            raise ValueError(f"each corpus needs one weight, got {len(orders)} corpora and {len(weights)} weights")
        if not all(0 < w < float("inf") for w in weights):
            raise ValueError(
                f"weights must be positive and finite, got {list(weights)}; leave a corpus out instead of 0"
            )
        self._orders = list(orders)
        self.seed = check_seed(seed)
        self._length = sum(len(order) for order in orders)
        shares = np.array(weights, dtype=np.float64) / sum(weights) * _MIX_BLOCK
        counts = np.floor(shares).astype(np.int64)
        rest = _MIX_BLOCK - int(counts.sum())
        counts[np.argsort(counts - shares, kind="stable")[:rest]] += 1
        if (counts == 0).any():
            raise ValueError(f"a weight must be at least 1/{_MIX_BLOCK} of their sum to be drawn, got {list(weights)}")
        self._counts = counts
        self._labels = np.repeat(np.arange(len(orders)), counts)
        self._block: tuple[int, NDArray[np.int64], NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """Samples of all corpora; one pass over as many ordinals repeats small corpora and cuts large ones."""
        return self._length

    @property
    def shares(self) -> list[int]:
        """Samples of each corpus in every block of 1000 ordinals."""
        return [int(count) for count in self._counts]

    def locate(self, ordinal: int, /) -> SampleRef:
        """The sample of an ordinal >= 0; ``epoch`` is the pass over its own corpus."""
        if ordinal < 0:
            raise ValueError(f"an ordinal must be at least 0, got {ordinal}")
        block, place = divmod(ordinal, _MIX_BLOCK)
        if self._block is None or self._block[0] != block:
            pattern = self._labels[permutation(self.seed, "mix", _MIX_BLOCK, block)]
            turns = np.empty(_MIX_BLOCK, dtype=np.int64)
            for corpus, count in enumerate(self._counts):
                turns[pattern == corpus] = np.arange(count)
            self._block = block, pattern, turns
        _, pattern, turns = self._block
        corpus = int(pattern[place])
        found = self._orders[corpus].locate(block * int(self._counts[corpus]) + int(turns[place]))
        return SampleRef(corpus, found.epoch, found.shard, found.sample)


def batch_ordinals(
    step: int, *, global_batch: int, rank: int = 0, world: int = 1, part: int = 0, parts: int = 1, start: int = 0
) -> range:
    """The ordinals of one rank in one optimizer step.

    ``global_batch`` counts the samples of the step over all ranks and accumulated parts. The step's ordinals are cut
    into ``world`` contiguous pieces, a rank's piece into ``parts`` contiguous micro-batches. ``start`` is the ordinal
    of step 0.

    Raises:
        ValueError: if global_batch does not divide by world * parts, or rank or part is out of range.
    """
    pieces = world * parts
    if global_batch < 1 or pieces < 1 or global_batch % pieces:
        raise ValueError(
            f"global_batch_size ({global_batch}) must be a positive multiple of ranks ({world}) times accumulated "
            f"batches ({parts})"
        )
    if not (0 <= rank < world and 0 <= part < parts and step >= 0):
        raise ValueError(f"rank {rank} of {world}, part {part} of {parts}, step {step}: out of range")
    size = global_batch // pieces
    first = start + step * global_batch + (rank * parts + part) * size
    return range(first, first + size)


def draw(seed: int, ordinal: int, purpose: str, *, attempt: int = 0) -> np.random.Generator:
    """The random numbers of one ordinal for one purpose ("task", "frames", ...): the same wherever they are drawn."""
    return np.random.Generator(_philox(seed, purpose, ordinal, attempt))


def torch_draw(seed: int, ordinal: int, purpose: str, *, device: str | torch.device = "cpu") -> torch.Generator:
    """Like `draw`, for torch: noise, timesteps, dropout of conditions. The values depend on the device's generator."""
    word = int(_philox(seed, purpose, ordinal, 0).random_raw())
    return torch.Generator(device=device).manual_seed(word >> 1)


def permutation(seed: int, purpose: str, count: int, *counters: int) -> NDArray[np.int64]:
    """A permutation of ``count`` things that depends on nothing but the arguments."""
    words = np.asarray(_philox(seed, purpose, *counters).random_raw(count))
    return np.argsort(words, kind="stable").astype(np.int64, copy=False)


def check_seed(seed: int) -> int:
    """Return ``seed`` if it is in [0, 2**64); ValueError otherwise."""
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"a seed must be in [0, 2**64), got {seed}")
    return int(seed)


def _philox(seed: int, purpose: str, *counters: int) -> np.random.Philox:
    # Word 0 of the counter runs while numbers are drawn; the others say what they are for.
    counter = np.array([0, *counters, *[0] * (3 - len(counters))], dtype=np.uint64)
    key = np.array([check_seed(seed), _stream(purpose)], dtype=np.uint64)
    # Given only these two, it would draw a seed from the operating system first, and not use it: half of its cost.
    found = np.random.Philox(_UNSEEDED)  # type: ignore[arg-type]  # an ISeedSequence, which numpy's types leave out
    found.state = {
        "bit_generator": "Philox",
        "state": {"counter": counter, "key": key},
        "buffer": _EMPTY,
        "buffer_pos": len(_EMPTY),
        "has_uint32": 0,
        "uinteger": 0,
    }
    return found


@lru_cache(maxsize=256)
def _stream(purpose: str) -> int:
    return int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), "little")


class _Unseeded(np.random.bit_generator.ISeedSequence):
    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[Any]:
        return np.zeros(n_words, dtype=dtype)


_UNSEEDED = _Unseeded()
_EMPTY = np.zeros(4, dtype=np.uint64)
