"""Which corpora a run reads and how they are mixed: opening them, one order over all, and what tells runs apart."""

from collections.abc import Mapping, Sequence
from typing import Any

from raccoon_datamodules.order import MixedOrder, Order, SampleOrder
from raccoon_datamodules.sources import ShardSource, Source

Shards = str | Sequence[str | Source] | Source
# What is trained on may also be {folder or address: weight}.
Corpora = str | Sequence[str | Source] | Mapping[str, float] | Source

_SAID = {
    "corpora": "the shards",
    "shares": "the corpora's shares of 1000 samples",
    "window_shards": "window_shards",
    "tasks": "the weights of the tasks",
}


def open_all(shards: Shards) -> list[Source]:
    """Open every source named.

    Raises:
        ValueError: if the list is empty.
        TypeError: if it is none of what `Shards` allows.
    """
    if isinstance(shards, str):
        return [ShardSource(shards)]
    if isinstance(shards, Sequence):
        if not shards:
            raise ValueError("at least one folder of shards is needed, got an empty list")
        return [place if isinstance(place, Source) else ShardSource(place) for place in shards]
    if not isinstance(shards, Source):
        raise TypeError(
            f"samples come from a folder or address of shards, a list of them, or a Source, got {type(shards).__name__}"
        )
    return [shards]


def open_one(shards: Shards, what: str) -> Source:
    """Open the only source of ``what`` ("validation"). Raises ValueError if there are several, or as `Index.load`."""
    opened = open_all(shards)
    if len(opened) != 1:
        raise ValueError(f"{what} reads one folder of shards, got {len(opened)}")
    return opened[0]


def weighed(train: Corpora, weights: Sequence[float] | None) -> tuple[Shards, Sequence[float] | None]:
    """Take a mapping of corpora to weights apart; what is none stays as it is.

    Raises:
        ValueError: if weights are given twice, or the mapping is empty.
    """
    if not isinstance(train, Mapping):
        return train, weights
    if weights is not None:
        raise ValueError(
            f"weights must be left out where train maps folders to weights, got {list(weights)} beside {dict(train)}"
        )
    return list(train), list(train.values())


def order_of(sources: Sequence[Source], weights: Sequence[float] | None, *, seed: int, window_shards: int) -> Order:
    """The order over all corpora; without weights each has a share by its number of samples.

    Raises:
        ValueError: if there is not one weight a corpus, or as `SampleOrder` and `MixedOrder`.
    """
    orders = [
        SampleOrder(source.shard_sizes, seed=seed, window_shards=window_shards, shuffle=not source.is_endless)
        for source in sources
    ]
    if weights is not None and len(weights) != len(orders):
        raise ValueError(f"each corpus needs one weight, got {len(orders)} corpora and {len(weights)} weights")
    if len(orders) == 1:
        return orders[0]
    return MixedOrder(orders, weights or [len(order) for order in orders], seed=seed)


def fingerprint(
    sources: Sequence[Source], order: Order, *, window_shards: int, tasks: Mapping[str, float]
) -> dict[str, Any]:
    """What ordinals stand for, apart from the seed: two runs of which this is equal see the same samples and tasks."""
    return {
        "corpora": [source.fingerprint() for source in sources],
        "shares": order.shares if isinstance(order, MixedOrder) else [1000],
        "window_shards": window_shards,
        "tasks": dict(tasks),
    }


def differences(then: Any, now: Mapping[str, Any]) -> str:
    """What two fingerprints differ in, as words to be put behind a sentence; "" if the former says too little."""
    if not isinstance(then, Mapping):
        return ""
    changed = [key for key in _SAID if then.get(key) != now[key]]
    return ": " + ", ".join(f"{_SAID[key]} were {then.get(key)} and are {now[key]}" for key in changed)
