"""The shards of a stored index, each read from its text when it is first asked for.

An order needs only how many samples each shard has. Reading all columns of a million samples would cost every start of
a run a second and every worker process a hundred megabytes; found in the text, a shard takes a millisecond when the run
comes to it, and goes when others need its room.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

from raccoon_datamodules.shard import Shard

# Members of the shards that are kept read, 12 bytes each: windows of shards that are shuffled together should fit.
_KEPT_MEMBERS = 1 << 21

# As `Index.save` writes it, and no other way of writing the same: what does not match is read by a JSON parser.
_HEAD = re.compile(
    rb'\{"format":"raccoon-vplm-index","schema":1,"split":"(\w{1,40})","num_samples":(\d{1,15}),"shards":\['
)
_ENTRY = re.compile(
    rb'\{"name":"([A-Za-z0-9_-][A-Za-z0-9._-]*\.tar)","size":(\d{1,18}),"sha256":"([0-9a-f]{64})",'
    rb'"num_samples":(\d{1,15}),"keys":\['
)
_END = b'"}}}'


@dataclass(frozen=True, slots=True)
class ShardHead:
    """What is known of a shard before it is read: file name, bytes, sha256 of the file, number of samples."""

    name: str
    size: int
    sha256: str
    num_samples: int


class StoredShards(Sequence[Shard]):
    """Shards by number. ``path`` is the index's, for messages; ``changed`` replaces some of them.

    Raises ValueError, whenever a shard is read that contradicts itself or its head.
    """

    def __init__(
        self,
        texts: Sequence[bytes],
        heads: Sequence[ShardHead],
        *,
        path: str,
        anew: str,
        changed: Mapping[int, Shard] | None = None,
    ) -> None:
        self._texts = tuple(texts)
        self._stored = tuple(heads)
        self._path = path
        self._anew = anew
        self._changed = dict(changed or {})
        self._kept: dict[int, Shard] = {}
        self.heads = tuple(
            head_of(self._changed[number]) if number in self._changed else head
            for number, head in enumerate(self._stored)
        )

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, number: int) -> Shard: ...
    @overload
    def __getitem__(self, number: slice) -> tuple[Shard, ...]: ...
    def __getitem__(self, number: int | slice) -> Shard | tuple[Shard, ...]:
        """A shard, read if it is not kept."""
        if isinstance(number, slice):
            return tuple(self[n] for n in range(len(self))[number])
        number = range(len(self))[number]
        found = self._changed.get(number, self._kept.get(number))
        if found is None:
            found = self._kept[number] = self._read(number)
            # The oldest go first: an order leaves a window of shards as it came.
            while len(self._kept) > 1 and sum(len(shard.suffix) for shard in self._kept.values()) > _KEPT_MEMBERS:
                self._kept.pop(next(iter(self._kept)), None)
        return found

    def __iter__(self) -> Iterator[Shard]:
        return (self[number] for number in range(len(self)))

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_kept": {}}

    def with_changed(self, changed: Mapping[int, Shard]) -> "StoredShards":
        """The same shards but for some."""
        every = {**self._changed, **changed}
        return StoredShards(self._texts, self._stored, path=self._path, anew=self._anew, changed=every)

    def _read(self, number: int) -> Shard:
        head = self._stored[number]
        try:
            shard = Shard.from_json(json.loads(self._texts[number]))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as err:
            raise ValueError(f"{self._path} is damaged: shard {head.name}: {err!r}; {self._anew}") from err
        if head_of(shard) != head:
            raise ValueError(f"{self._path} is damaged: shard {head.name} has two entries; {self._anew}")
        return shard


def head_of(shard: Shard) -> ShardHead:
    """The head of a shard that is read."""
    return ShardHead(shard.name, shard.size, shard.sha256, len(shard))


def heads_of(shards: Sequence[Shard]) -> tuple[ShardHead, ...]:
    """The heads of shards, none being read for them."""
    return shards.heads if isinstance(shards, StoredShards) else tuple(map(head_of, shards))


def find_shards(data: bytes, size: int, *, path: str, anew: str) -> tuple[str, int, StoredShards] | None:
    """(split, samples stated, shards) of the first ``size`` bytes of an index, whose checksum must have been compared.

    None if it is written in another way than `Index.save`'s.
    """
    head = _HEAD.match(data)
    if head is None:
        return None
    texts, heads, place = [], [], head.end()
    while True:
        entry = _ENTRY.match(data, place)
        end = data.find(_END, place, size) + len(_END)
        if entry is None or end < len(_END):
            return None
        texts.append(data[place:end])
        heads.append(ShardHead(entry[1].decode(), int(entry[2]), entry[3].decode(), int(entry[4])))
        if data[end : end + 1] != b",":
            break
        place = end + 1
    if data[end:size] != b"]":
        return None
    return head[1].decode(), int(head[2]), StoredShards(texts, heads, path=path, anew=anew)
