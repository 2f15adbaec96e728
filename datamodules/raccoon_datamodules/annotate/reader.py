"""The samples of a data set as the annotator reads them, from several threads."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from raccoon_datamodules import members
from raccoon_datamodules.annotate.annotator import Clip
from raccoon_datamodules.annotate.members import clip_of
from raccoon_datamodules.sources import ShardSource
from raccoon_datamodules.view import MemberView


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sample is: shard, place in it, key."""

    shard: int
    sample: int
    key: str


class DatasetReader:
    """The samples of a folder (or address) of shards, for several threads.

    Raises as `Index.load`.
    """

    def __init__(self, data: str | Path) -> None:
        self.source = ShardSource(data)
        self.places = [
            Place(shard, sample, self.source.name(shard, sample)[1])
            for shard, size in enumerate(self.source.shard_sizes)
            for sample in range(size)
        ]
        self._lock = threading.Lock()

    @property
    def keys(self) -> list[str]:
        """The keys in stored order."""
        return [place.key for place in self.places]

    def read(self, place: Place) -> dict[str, bytes]:
        """All members of a sample."""
        with self._lock:
            return self.source.read(place.shard, place.sample)

    def texts(self, place: Place) -> MemberView:
        """A sample without masks and clips."""
        return self._view(place, lambda suffix: suffix.endswith(".json"))

    def clip(self, place: Place, num_frames: int, *, anew: bool = False) -> Clip:
        """What the annotator sees of a sample; with ``anew`` nothing of what is said of it already."""
        view = self._view(place, lambda suffix: suffix.endswith(".json") or suffix.lower() == members.VIDEO)
        return clip_of(view, num_frames, lambda object_id: self._masks(place, object_id), anew=anew)

    def _masks(self, place: Place, object_id: str) -> MemberView:
        wanted = members.object_suffix("mask", object_id).lower()
        return self._view(place, lambda suffix: suffix.lower() == wanted)

    def _view(self, place: Place, wants: Callable[[str], bool]) -> MemberView:
        wanted = [suffix for suffix in self.source.suffixes(place.shard, place.sample) if wants(suffix)]
        with self._lock:
            return self.source.view(place.shard, place.sample, wanted)
