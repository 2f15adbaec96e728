"""What training reads of a sample, part by part, so that only the members and frames a task needs are decoded.

`MemberView` decodes from the bytes of a shard; `MemoryView` serves a sample that was just rendered. Both offer the same
`SampleView`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules import members
from raccoon_datamodules.members import MemberError, MetaRecord, ObjectInfo
from raccoon_datamodules.paragraph import Paragraph
from raccoon_datamodules.pixels import resize
from raccoon_datamodules.video import Video
from raccoon_datamodules.video_bytes import decode_bytes

if TYPE_CHECKING:
    from raccoon_datamodules.sample import VplmSample

Frames = Sequence[int] | None
Size = tuple[int, int] | None


class SampleView(Protocol):
    """A sample whose parts are decoded when asked for.

    ``frames`` are rising frame numbers of the clip, None = all; ``size`` is a (height, width) that pictures are resized
    to as they are decoded (see `pixels.resize`), None = as stored.
    """

    @property
    def key(self) -> str:
        """The sample's key."""
        ...

    @property
    def num_frames(self) -> int:
        """Frames of the whole clip."""
        ...

    def paragraphs(self) -> tuple[Paragraph, ...]:
        """The reference paragraph, then its other phrasings."""
        ...

    def clip(self, frames: Frames = None, size: Size = None, /) -> NDArray[np.uint8]:
        """Frames uint8 [n, H, W, 3] of the clip."""
        ...

    def inpainted(self, object_id: str, frames: Frames = None, size: Size = None, /) -> NDArray[np.uint8]:
        """Frames uint8 [n, H, W, 3] of the clip without one object."""
        ...

    def mask(self, object_id: str, frames: Frames = None, /) -> NDArray[np.uint8]:
        """Mask uint8 {0, 1} [n, H, W] of one object."""
        ...

    def object(self, object_id: str, /) -> ObjectInfo:
        """An object's record."""
        ...


class MemberView:
    """A sample as the bytes of its members, suffix to bytes.

    Suffixes are matched regardless of case, because WebDataset lower-cases them. Every method raises `MemberError`,
    which names the member, if it is missing or cannot be decoded.
    """

    def __init__(self, data: Mapping[str, bytes]) -> None:
        self._data = {suffix.lower(): value for suffix, value in data.items()}
        self.meta: MetaRecord = members.load_meta(self.bytes_of(members.META))

    @property
    def key(self) -> str:
        """The key that ``meta.json`` holds."""
        return self.meta.key

    @property
    def num_frames(self) -> int:
        """Frames of the whole clip."""
        return self.meta.num_frames

    def has(self, suffix: str) -> bool:
        """Whether this member is there."""
        return suffix.lower() in self._data

    def bytes_of(self, suffix: str) -> bytes:
        """The bytes of a member. Raises MemberError if it is not there."""
        try:
            return self._data[suffix.lower()]
        except KeyError:
            raise MemberError(suffix, "is missing") from None

    def paragraphs(self) -> tuple[Paragraph, ...]:
        """The reference paragraph, then its other phrasings."""
        value = members.load_json(self.bytes_of(members.PARAGRAPH), members.PARAGRAPH)
        if not isinstance(value, dict) or not isinstance(value.get("phrasings"), list):
            raise MemberError(members.PARAGRAPH, "must hold {paragraph, phrasings}")
        every = [value.get("paragraph"), *value["phrasings"]]
        return tuple(members.paragraph_from_json(p, members.PARAGRAPH) for p in every)

    def clip(self, frames: Frames = None, size: Size = None, /) -> NDArray[np.uint8]:
        """Frames uint8 [n, H, W, 3] of the clip."""
        return self._decode(members.VIDEO, frames, size)

    def inpainted(self, object_id: str, frames: Frames = None, size: Size = None, /) -> NDArray[np.uint8]:
        """Frames uint8 [n, H, W, 3] of the clip without one object."""
        return self._decode(members.object_suffix("inpainted", object_id), frames, size)

    def mask(self, object_id: str, frames: Frames = None, /) -> NDArray[np.uint8]:
        """Mask uint8 {0, 1} [n, H, W] of one object."""
        suffix = members.object_suffix("mask", object_id)
        self._check_frames(frames)
        return members.load_mask(self.bytes_of(suffix), suffix, meta=self.meta, frames=frames)

    def object(self, object_id: str, /) -> ObjectInfo:
        """An object's record."""
        suffix = members.object_suffix("object", object_id)
        info = members.load_object(self.bytes_of(suffix), suffix, meta=self.meta)
        if info.id.lower() != object_id.lower():
            raise MemberError(suffix, f"must hold the record of object {object_id}, holds that of {info.id}")
        return info

    def video(self, frames: Frames = None, /) -> Video:
        """The clip with its fps and presentation times."""
        return self._timed(self.clip(frames), frames)

    def inpainted_video(self, object_id: str, frames: Frames = None, /) -> Video:
        """The clip without one object, with the fps and presentation times of the clip."""
        return self._timed(self.inpainted(object_id, frames), frames)

    def _check_frames(self, frames: Frames) -> None:
        if frames is None:
            return
        numbers = list(frames)
        if numbers != sorted(set(numbers)) or (numbers and not 0 <= numbers[0] <= numbers[-1] < self.num_frames):
            raise ValueError(f"frame numbers must rise and be in [0, {self.num_frames}), got {numbers}")

    def _timed(self, pictures: NDArray[np.uint8], frames: Frames) -> Video:
        times = self.meta.timestamps if frames is None else self.meta.timestamps[list(frames)]
        return Video.from_frames(pictures, self.meta.fps, timestamps=times)

    def _decode(self, suffix: str, frames: Frames, size: Size) -> NDArray[np.uint8]:
        self._check_frames(frames)
        data = self.bytes_of(suffix)
        stored = (self.meta.height, self.meta.width)
        try:
            pictures = decode_bytes(
                data, frames, 1, size=size, stored_size=stored, stored_frames=self.num_frames
            ).frames
        except (ValueError, OSError, RuntimeError, LookupError, EOFError, AttributeError, MemoryError) as err:
            # A damaged header may leave a stream without a decoder (AttributeError) or with an absurd size.
            raise MemberError(suffix, f"cannot be decoded: {err}") from err
        return pictures


class MemoryView:
    """A `VplmSample` in memory, offered as a `SampleView`."""

    def __init__(self, sample: "VplmSample") -> None:
        self._sample = sample
        self._objects = {record.id: record for record in sample.objects}

    @property
    def key(self) -> str:
        """The sample's key."""
        return self._sample.key

    @property
    def num_frames(self) -> int:
        """Frames of the whole clip."""
        return self._sample.video.num_frames

    def paragraphs(self) -> tuple[Paragraph, ...]:
        """The reference paragraph, then its other phrasings."""
        return (self._sample.paragraph, *self._sample.phrasings)

    def clip(self, frames: Frames = None, size: Size = None, /) -> NDArray[np.uint8]:
        """Frames uint8 [n, H, W, 3] of the clip."""
        return _pick(self._sample.video.frames, frames, size)

    def inpainted(self, object_id: str, frames: Frames = None, size: Size = None, /) -> NDArray[np.uint8]:
        """Frames uint8 [n, H, W, 3] of the clip without one object."""
        video = self._objects[object_id].inpainted
        if video is None:
            raise MemberError(members.object_suffix("inpainted", object_id), "is missing")
        return _pick(video.frames, frames, size)

    def mask(self, object_id: str, frames: Frames = None, /) -> NDArray[np.uint8]:
        """Mask uint8 {0, 1} [n, H, W] of one object."""
        return _pick(self._objects[object_id].mask, frames, None)

    def object(self, object_id: str, /) -> ObjectInfo:
        """An object's record."""
        record = self._objects[object_id]
        area = record.mask.sum(axis=(1, 2), dtype=np.int64)
        return ObjectInfo(
            record.id, record.name, record.category, record.description, record.boxes, area, record.attributes
        )


def _pick(array: NDArray[np.uint8], frames: Frames, size: Size) -> NDArray[np.uint8]:
    picked = array if frames is None else array[list(frames)]
    return picked if size is None else resize(picked, size)
