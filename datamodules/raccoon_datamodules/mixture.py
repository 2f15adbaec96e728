"""Which corpora a run reads and how they are mixed: opening them, one order over all, and what tells runs apart."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from raccoon_datamodules.order import MixedOrder, Order, SampleOrder
from raccoon_datamodules.sources import ShardSource, Source

Shards = str | Sequence[str | Source] | Source
# What is trained on may also be {folder or address: weight}.
Corpora = str | Sequence[str | Source] | Mapping[str, float] | Source

_log = logging.getLogger(__name__)

_SAID = {
    "corpora": "the shards",
    "shares": "the corpora's shares of 1000 samples",
    "window_shards": "window_shards",
    "tasks": "the weights of the tasks",
}


def open_all(shards: Shards, *, exclude: str | Sequence[str] = ()) -> list[Source]:
    """Open every source named; those given by folder or address leave out what the quarantine lists ``exclude`` hold.

    Raises:
        ValueError: if the list is empty, or a `Source` is to leave out samples, which is its own matter.
        TypeError: if it is none of what `Shards` allows.
        FileNotFoundError: if a quarantine list is not there.
    """
    lists = [exclude] if isinstance(exclude, str) else list(exclude)
    given = list(shards) if isinstance(shards, Sequence) and not isinstance(shards, str) else [shards]
    if not given:
        raise ValueError("at least one folder of shards is needed, got an empty list")
    for place in given:
        if not isinstance(place, (str, Source)):
            raise TypeError(
                "samples come from a folder or address of shards, a list of them, or a Source, "
                f"got {type(place).__name__}"
            )
        if lists and isinstance(place, Source):
            raise ValueError(
                f"exclude leaves out samples of shards named by folder or address, got {type(place).__name__}; leave "
                "out what it holds where it is made (ShardSource has an exclude of its own)"
            )
    opened = [place if isinstance(place, Source) else ShardSource(place, exclude=lists) for place in given]
    if lists and not any(source.index.left_out for source in opened if isinstance(source, ShardSource)):
        _log.warning("none of the samples listed in %s is in the training shards", ", ".join(lists))
    return opened


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
