"""Where samples come from: shards on disk or behind HTTP, or scenes rendered on the fly."""

import zlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Collection, Sequence
from pathlib import Path

from raccoon_datamodules import members
from raccoon_datamodules.faults import read_faults
from raccoon_datamodules.index import Index, Shard
from raccoon_datamodules.members import MemberError
from raccoon_datamodules.reader import ShardReader
from raccoon_datamodules.sample import VplmSample, decode
from raccoon_datamodules.spool import SPOOL_BYTES
from raccoon_datamodules.view import MemberView, MemoryView, SampleView

_WITHOUT_OBJECTS = (members.META, members.PARAGRAPH, members.EDITS, members.VIDEO)


class Source(ABC):
    """What a datamodule reads samples from; your own is a subclass.

    ``is_endless``: samples are made rather than stored, so there is no order to shuffle.
    """

    is_endless: bool = False

    @property
    @abstractmethod
    def shard_sizes(self) -> list[int]:
        """Samples of each shard."""

    @abstractmethod
    def name(self, shard: int, sample: int, /) -> tuple[str, str]:
        """(shard name, key) of a sample, without reading it."""

    @abstractmethod
    def suffixes(self, shard: int, sample: int, /) -> tuple[str, ...]:
        """The members a sample has, which say what tasks it can serve."""

    @abstractmethod
    def view(self, shard: int, sample: int, wanted: Collection[str] | None = None, /) -> SampleView:
        """A sample with at least the wanted members (None: all)."""

    def whole(self, shard: int, sample: int, /, *, objects: bool = True) -> VplmSample:
        """A sample as a whole; without ``objects`` their records, most of its bytes, need not be read.

        Raises:
            TypeError: if the source does not offer this; only `raccoon predict` asks for it.
        """
        raise TypeError(f"{type(self).__name__} gives no whole samples; define its method whole(shard, sample)")

    @abstractmethod
    def fingerprint(self) -> str:
        """What tells this source from another one; a resumed run compares it."""


class ShardSource(Source):
    """The samples of one folder of shards, read by offset; what only streams is copied shard by shard.

    Args:
        place: a folder, an address (http(s)://, or s3://, gs://, hf:// ... by fsspec), or ``pipe:COMMAND``, where
            ``{name}`` in the command stands for the file that it is to write out.
        split: the split that it must hold; None = any.
        exclude: quarantine lists (`faults.append_faults`) whose samples are left out; the fingerprint tells.
        spool_bytes: room for copies of shards that can only be read from their start.

    Raises as `Index.load`, `read_faults`, `Index.without` and `ShardReader`, and ValueError for another split.
    """

    def __init__(
        self,
        place: str | Path,
        *,
        split: str | None = None,
        exclude: str | Path | Sequence[str | Path] = (),
        spool_bytes: int = SPOOL_BYTES,
    ) -> None:
        self.index = Index.load(place)
        if split is not None and self.index.split != split:
            raise ValueError(f"{place} must hold split {split}, it holds {self.index.split}")
        lists = [exclude] if isinstance(exclude, (str, Path)) else exclude
        if lists:
            self.index = self.index.without({(fault.shard, fault.key) for fault in read_faults(*lists)})
        sizes = {head.name: head.size for head in self.index.heads}
        self._reader = ShardReader(
            self.index.base, sizes=sizes, spool_bytes=spool_bytes, content=self.index.fingerprint()
        )

    @property
    def shard_sizes(self) -> list[int]:
        """Samples of each shard."""
        return self.index.shard_sizes

    def name(self, shard: int, sample: int, /) -> tuple[str, str]:
        """(shard name, key) of a sample, from the index."""
        found = self.index.shards[shard]
        return found.name, found.key(sample)

    def suffixes(self, shard: int, sample: int, /) -> tuple[str, ...]:
        """The members of a sample, from the index."""
        return self.index.shards[shard].suffixes_of(sample)

    def read(self, shard: int, sample: int, wanted: Collection[str] | None = None, /) -> dict[str, bytes]:
        """The bytes of the wanted members that the sample has (None: all).

        Raises:
            OSError: if the shard is gone or cut off.
            MemberError: if a member's bytes are not those that were indexed.
        """
        found = self.index.shards[shard]
        entries = found.members(sample, wanted)
        pieces = self._reader.read_many(found.name, [(m.offset, m.length) for m in entries])
        for entry, data in zip(entries, pieces, strict=True):
            # A flipped bit in a clip decodes without an error; only the checksum sees it.
            if zlib.crc32(data) != entry.crc32:
                raise MemberError(entry.suffix, f"its bytes do not match the checksum in the index; {self._why(found)}")
        return {entry.suffix: data for entry, data in zip(entries, pieces, strict=True)}

    def view(self, shard: int, sample: int, wanted: Collection[str] | None = None, /) -> MemberView:
        """A sample with the wanted members and ``meta.json``. Raises as `read`, and MemberError for a bad meta.json."""
        view = MemberView(self.read(shard, sample, None if wanted is None else {*wanted, members.META}))
        key = self.index.shards[shard].key(sample)
        if view.key != key:
            raise MemberError(members.META, f"must hold the key {key}, holds {view.key}")
        return view

    def whole(self, shard: int, sample: int, /, *, objects: bool = True) -> VplmSample:
        """A sample, decoded. Raises as `read` and `sample.decode`."""
        if objects:
            return decode(self.read(shard, sample))
        return decode(self.read(shard, sample, _WITHOUT_OBJECTS), objects=())

    def fingerprint(self) -> str:
        """The hash of the shards' names, contents and order."""
        return self.index.fingerprint()

    def _why(self, shard: Shard) -> str:
        size = self._reader.size(shard.name)
        if size is None or size == shard.size:
            return "the shard is damaged"
        return f"the shard was replaced since (it has {size} bytes, the index says {shard.size}): index it anew"


class SyntheticSource(Source):
    """Endless scenes of the procedural VPLM: sample i is rendered when it is asked for, and is always the same.

    Seeds of the splits "train", "val" and "test" never meet. Scenes ``first`` to ``first + num_scenes - 1`` of the
    split are used, then they start again.

    Raises:
        ValueError: if a number is not positive, or the split does not have such scenes.
    """

    is_endless = True

    def __init__(
        self,
        difficulty: str = "easy",
        *,
        split: str = "train",
        num_frames: int = 8,
        size: tuple[int, int] = (64, 64),
        fps: float = 8.0,
        first: int = 0,
        num_scenes: int = 500_000_000,
    ) -> None:
        if num_frames < 1 or num_scenes < 1 or fps <= 0:
            raise ValueError(f"num_frames, num_scenes and fps must be positive, got {num_frames}, {num_scenes}, {fps}")
        self.difficulty = difficulty
        self.split = split
        self.num_frames = num_frames
        self.size = tuple(size)
        self.fps = fps
        self.first = first
        self.num_scenes = num_scenes
        self.scene_seed(0)
        self.scene_seed(num_scenes - 1)
        self._kept: OrderedDict[int, VplmSample] = OrderedDict()

    @property
    def shard_sizes(self) -> list[int]:
        """One shard of all scenes."""
        return [self.num_scenes]

    def scene_seed(self, sample: int) -> int:
        """The seed of a scene; see `synthetic.seed_of`."""
        from raccoon_datamodules.synthetic import seed_of

        return seed_of(self.split, self.first + sample)

    def name(self, shard: int, sample: int, /) -> tuple[str, str]:
        """("synthetic", the scene's seed)."""
        return f"synthetic-{self.difficulty}", str(self.scene_seed(sample))

    def suffixes(self, shard: int, sample: int, /) -> tuple[str, ...]:
        """The members that the rendered scene would be stored as."""
        rendered = self._render(sample)
        found = [members.META, members.PARAGRAPH, members.EDITS, members.VIDEO]
        for record in rendered.objects:
            found += [members.object_suffix("object", record.id), members.object_suffix("mask", record.id)]
            if record.inpainted is not None:
                found.append(members.object_suffix("inpainted", record.id))
        return tuple(found)

    def view(self, shard: int, sample: int, wanted: Collection[str] | None = None, /) -> MemoryView:
        """The rendered scene."""
        return MemoryView(self._render(sample))

    def whole(self, shard: int, sample: int, /, *, objects: bool = True) -> VplmSample:
        """The rendered scene, with its objects in any case."""
        return self._render(sample)

    def fingerprint(self) -> str:
        """The scene settings."""
        height, width = self.size
        return f"{self.difficulty}-{self.split}-{self.num_frames}x{height}x{width}-{self.first}-{self.num_scenes}"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_kept": OrderedDict()}

    def _render(self, sample: int) -> VplmSample:
        from raccoon_datamodules.synthetic import make_sample

        found = self._kept.get(sample)
        if found is None:
            height, width = self.size
            found = make_sample(
                self.scene_seed(sample),
                self.difficulty,
                num_frames=self.num_frames,
                size=(height, width),
                fps=self.fps,
            )
            self._kept[sample] = found
            while len(self._kept) > 2:
                self._kept.popitem(last=False)
        return found
