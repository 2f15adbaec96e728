"""What frozen networks make of stored clips, kept by content: grids, superpixels, latents and text features.

One cache serves the describer and the painter. A tensor is that of one frame, so any choice of frames finds its own,
and it is named by the hash of the content it was made from (shard hash and place of the member), the frame's number,
the size it is resized to, the fingerprint of the network with its weights, and the dtype. Whatever of these changes,
the tensor is not found; there is nothing to invalidate. Only training reads a cache: validation is always of frames.

Of a painter's clip two things are kept: the latents of what is to come out, and those of the condition, masked as the
network masks it; the mask of a removed and of a changed object is the same, that of an added one is its boxes.
"""

import functools
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, stack

from raccoon_datamodules.cache_store import CacheDtype, CacheReader, key_of
from raccoon_datamodules.members import VIDEO, ObjectInfo, object_suffix, parse_suffix
from raccoon_datamodules.paragraph import Paragraph
from raccoon_datamodules.sources import ShardSource, Source, SyntheticSource
from raccoon_datamodules.tasks import P2VPlan, V2PPlan
from raccoon_datamodules.view import Frames, SampleView, Size

CacheMiss = Literal["compute", "error"]
Hidden = Literal["nothing", "mask", "boxes"]


@dataclass(frozen=True, slots=True)
class V2PModel:
    """The describer's frozen parts by their fingerprints: visual encoder; superpixels and how they are described."""

    grid: str
    superpixels: str


@dataclass(frozen=True, slots=True)
class P2VModel:
    """The painter's frozen parts by their fingerprints, and how it masks a condition (see `conditioning.Scheme`)."""

    latents: str
    text: str
    masked_in: Literal["pixels", "latents"]
    masks_added: bool

    def hidden(self, plan: P2VPlan) -> Hidden:
        """What is hidden of a condition before it is encoded."""
        if self.masked_in == "latents" or (plan.task == "add" and not self.masks_added):
            return "nothing"
        return "boxes" if plan.boxes else "mask"


@dataclass(frozen=True, slots=True, eq=False)
class V2PFeatures:
    """Of one example: ``grid`` [F, h, w, d], ``superpixels`` int16 [F, H, W], ``means`` int32 [F, S, C]."""

    grid: Tensor
    superpixels: Tensor
    means: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class P2VFeatures:
    """Of one example: latents of ``target`` and ``condition`` [F, C, h, w], and ``text`` [L, d]."""

    target: Tensor
    condition: Tensor
    text: Tensor


class CachedView:
    """A stored sample whose pictures are read only if they are asked for; a `SampleView` that knows its content."""

    def __init__(self, source: Source, shard: int, sample: int, wanted: Collection[str]) -> None:
        self._source, self._shard, self._sample = source, shard, sample
        self._pictures = frozenset(suffix for suffix in wanted if _holds_pictures(suffix))
        self._rest = source.view(shard, sample, frozenset(wanted) - self._pictures)
        self._whole: SampleView | None = None

    @property
    def key(self) -> str:
        """The sample's key."""
        return self._rest.key

    @property
    def num_frames(self) -> int:
        """Frames of the whole clip."""
        return self._rest.num_frames

    def content(self, member: str) -> str:
        """What tells this member's bytes from any other's; see `content_of`."""
        return content_of(self._source, self._shard, self._sample, member)

    def paragraphs(self) -> tuple[Paragraph, ...]:
        """The reference paragraph, then its other phrasings."""
        return self._rest.paragraphs()

    def object(self, object_id: str, /) -> ObjectInfo:
        """An object's record."""
        return self._rest.object(object_id)

    def mask(self, object_id: str, frames: Frames = None, /) -> NDArray[np.uint8]:
        """Mask uint8 {0, 1} [n, H, W] of one object."""
        return self._rest.mask(object_id, frames)

    def clip(self, frames: Frames = None, size: Size = None, /) -> NDArray[np.uint8]:
        """Frames uint8 [n, H, W, 3] of the clip."""
        return self._decoded().clip(frames, size)

    def inpainted(self, object_id: str, frames: Frames = None, size: Size = None, /) -> NDArray[np.uint8]:
        """Frames uint8 [n, H, W, 3] of the clip without one object."""
        return self._decoded().inpainted(object_id, frames, size)

    def _decoded(self) -> SampleView:
        if self._whole is None:
            self._whole = self._source.view(self._shard, self._sample, self._pictures)
        return self._whole


class FeatureCache:
    """A cache as training reads it; ``miss`` says whether what it lacks is computed as usual or ends the run."""

    def __init__(self, folder: str | Path, *, miss: CacheMiss = "compute") -> None:
        if miss not in ("compute", "error"):
            raise ValueError(f"cache_miss must be 'compute' or 'error', got {miss!r}")
        self.folder = Path(folder)
        self.miss: CacheMiss = miss
        self._reader: CacheReader | None = None

    def ready(self, model: V2PModel | P2VModel | None, make: object, own: object) -> None:
        """Open it for training; ``make`` is the method that makes the examples, ``own`` the one that knows a cache.

        Raises:
            RuntimeError: if nobody has said what networks train.
            ValueError: if somebody's own method makes the examples: what it changes in frames no cache would show.
            FileNotFoundError, ValueError: as `CacheReader`.
        """
        if make is not own:
            raise ValueError(
                f"a cache holds stored frames as they are, and {getattr(make, '__qualname__', make)} makes these "
                "examples, perhaps with random changes; set cache to null"
            )
        if model is None:
            raise RuntimeError(
                f"the cache {self.folder} is read by what trains on it: set the datamodule's cached_model (a task of "
                "raccoon.tasks does) before training"
            )
        self.open()

    def open(self) -> CacheReader:
        """Read the indexes, once. Raises as `CacheReader`."""
        if self._reader is None:
            self._reader = CacheReader(self.folder)
        return self._reader

    def v2p(self, model: V2PModel, view: CachedView, plan: V2PPlan, size: tuple[int, int]) -> V2PFeatures | None:
        """The features of a describer's example, or None if one is missing."""
        reader, content = self.open(), view.content(plan.member)
        found = reader.get([k for f in plan.frames for k in v2p_keys(model, reader.dtype, content, f, size)])
        return None if found is None else V2PFeatures(*(stack(found[i::3]) for i in range(3)))

    def p2v(self, model: P2VModel, view: CachedView, plan: P2VPlan, size: tuple[int, int]) -> P2VFeatures | None:
        """The features of a painter's example, or None if one is missing."""
        reader = self.open()
        target = [latent_key(model, reader.dtype, view.content(plan.target), f, size) for f in plan.frames]
        content = hidden_content(view, plan, model.hidden(plan))
        condition = [latent_key(model, reader.dtype, content, f, size) for f in plan.frames]
        found = reader.get([*target, *condition, text_key(model, reader.dtype, plan.prompt)])
        if found is None:
            return None
        count = len(plan.frames)
        return P2VFeatures(stack(found[:count]), stack(found[count:-1]), found[-1])

    def missing(self, keys: Sequence[str]) -> RuntimeError:
        """What to raise where ``miss`` is "error"; ``keys`` are those of samples."""
        return RuntimeError(
            f"the cache {self.folder} must hold every sample, and lacks something of {', '.join(keys)} (or it was "
            "damaged there); run `raccoon cache` with the recipe and options of this run, or set cache_miss: compute"
        )


def v2p_keys(
    model: V2PModel, dtype: CacheDtype, content: str, frame: int, size: tuple[int, int]
) -> tuple[bytes, bytes, bytes]:
    """The keys of a frame's grid, superpixels, and their means."""
    how = _resized(size)
    return (
        key_of("grid", content, frame, how, model.grid, dtype),
        key_of("superpixels", content, frame, how, model.superpixels),
        key_of("superpixel means", content, frame, how, model.superpixels),
    )


def latent_key(model: P2VModel, dtype: CacheDtype, content: str, frame: int, size: tuple[int, int]) -> bytes:
    """The key of a frame's latents."""
    return key_of("latents", content, frame, _resized(size), model.latents, dtype)


def text_key(model: P2VModel, dtype: CacheDtype, prompt: str) -> bytes:
    """The key of a prompt's features."""
    return key_of("text", prompt, model.text, dtype)


def hidden_content(view: CachedView, plan: P2VPlan, hidden: Hidden) -> str:
    """The content of a condition: that of its frames, and of what hides a part of them."""
    content = view.content(plan.condition)
    if hidden == "nothing":
        return content
    return f"{content} without the {hidden} of {view.content(object_suffix('mask', plan.object_id))}"


def content_of(source: Source, shard: int, sample: int, member: str) -> str:
    """What tells a member's bytes from any other's, without reading them.

    For stored samples the shard's sha256 and the member's place in it, both by the index: repacked shards are new
    content. For rendered ones everything that decides about them, the renderer's own code included. Another source
    says it by a method ``content(shard, sample, member)``.

    Raises:
        TypeError: if the source does not say.
        KeyError: if the sample has no such member.
    """
    own = getattr(source, "content", None)
    if own is not None:
        return str(own(shard, sample, member))
    if isinstance(source, ShardSource):
        found = source.index.shards[shard]
        for entry in found.members(sample):
            if entry.suffix.lower() == member.lower():
                return f"{found.sha256}:{entry.offset}+{entry.length}"
        raise KeyError(f"sample {found.key(sample)} has no {member}")
    if isinstance(source, SyntheticSource):
        height, width = source.size
        settings = f"{source.difficulty} {source.num_frames}x{height}x{width} {source.fps}"
        return f"{_renderer()} {settings} {source.scene_seed(sample)} {member}"
    raise TypeError(
        f"{type(source).__name__} does not say what its samples are made of, so nothing of it can be cached; define "
        "its method content(shard, sample, member), which returns another text for other bytes"
    )


def _holds_pictures(suffix: str) -> bool:
    return suffix == VIDEO or (parse_suffix(suffix) or ("", None))[0] == "inpainted"


def _resized(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


@functools.cache
def _renderer() -> str:
    """A hash of what renders synthetic scenes: our code and the libraries it draws with."""
    import cv2

    from raccoon_datamodules import synthetic

    digest = hashlib.sha256(f"{np.__version__} {cv2.__version__}".encode())
    for path in sorted(Path(synthetic.__path__[0]).glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
