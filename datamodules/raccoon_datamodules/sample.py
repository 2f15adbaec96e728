"""The VPLM sample: one clip, its paragraph, and for each object its mask, boxes, description and inpainted clip.

`encode` makes the members that a shard stores, `decode` reads them back; the files themselves: `members`.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules import members
from raccoon_datamodules.limits import MAX_DECODED_BYTES, readable, sane_size
from raccoon_datamodules.members import SCHEMA_VERSION, MemberError, MetaRecord, ObjectInfo
from raccoon_datamodules.paragraph import Paragraph
from raccoon_datamodules.video import Video, encode_clip
from raccoon_datamodules.view import MemberView

__all__ = [
    "SCHEMA_VERSION",
    "EditKind",
    "EditPrompt",
    "MemberError",
    "ObjectRecord",
    "VplmSample",
    "decode",
    "edit_to_json",
    "edits_of",
    "encode",
]

EditKind = Literal["remove", "add", "change"]


@dataclass(frozen=True, slots=True)
class ObjectRecord:
    """One annotated object of a clip.

    ``id`` matches ``[A-Za-z0-9_-]+`` and is unique in the sample; ``name`` is the object's name in the paragraph;
    ``category`` its class label; ``description`` its single-object description, without the name;
    ``mask`` uint8 {0, 1} [F, H, W], the visible part, 1 = the object; ``boxes`` float32 [F, 4] xyxy in [0, 1], a NaN
    row where it is absent; ``inpainted`` the clip without this object, or None where nobody made it;
    ``attributes`` what is known besides (colour, pattern, size, motion of a synthetic object).
    """

    id: str
    name: str
    category: str
    description: str
    mask: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    inpainted: Video | None
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EditPrompt:
    """One written edit of a clip: the kind, the object it is about, the instruction, and the paragraph it leads to."""

    kind: EditKind
    object_id: str
    instruction: str
    before: Paragraph
    after: Paragraph


@dataclass(frozen=True, slots=True)
class VplmSample:
    """One sample of the VPLM dataset (paper, sections 3.3 and A.1).

    ``key`` matches ``[A-Za-z0-9_-]{1,120}``. ``paragraph`` is the reference; ``phrasings`` holds further paragraphs
    that say the same in other words. ``meta`` is plain JSON (source, licence, seed, difficulty).
    """

    key: str
    video: Video
    paragraph: Paragraph
    objects: tuple[ObjectRecord, ...]
    edits: tuple[EditPrompt, ...] = ()
    phrasings: tuple[Paragraph, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)


def encode(sample: VplmSample, *, encode_video: Callable[[Video], bytes] = encode_clip) -> dict[str, bytes]:
    """The members of a sample, suffix to bytes, in the order in which a shard stores them.

    The same sample gives the same bytes (with the same encoder library). Clips are lossless unless ``encode_video``
    says otherwise; fps and presentation times are kept exactly, in ``meta.json``.

    Raises:
        ValueError: if the key or an object id is not allowed, an edit names an object that is not there, or a mask,
            boxes or inpainted clip does not have the clip's frames and size, or the clip is larger than `limits`
            allows; all faults are named.
        TypeError: if meta or attributes hold what is not plain JSON.
    """
    faults = _faults(sample)
    if faults:
        raise ValueError(f"sample {sample.key} cannot be stored: {'; '.join(faults)}")
    video = sample.video
    meta = MetaRecord(
        key=sample.key,
        num_frames=video.num_frames,
        height=video.height,
        width=video.width,
        fps=float(video.fps),
        timestamps=np.asarray(video.timestamps, dtype=np.float64),
        objects=tuple(record.id for record in sample.objects),
        extra=sample.meta,
    )
    every = {
        "paragraph": members.paragraph_to_json(sample.paragraph),
        "phrasings": [members.paragraph_to_json(p) for p in sample.phrasings],
    }
    # The small records come first: a reader of the stream knows what follows before it meets the clips.
    out = {
        members.META: members.dump_meta(meta),
        members.PARAGRAPH: members.dump_json(every, members.PARAGRAPH),
        members.EDITS: members.dump_json([edit_to_json(edit) for edit in sample.edits], members.EDITS),
        members.VIDEO: encode_video(video),
    }
    for record in sample.objects:
        area = record.mask.sum(axis=(1, 2), dtype=np.int64)
        boxes = np.asarray(record.boxes, dtype=np.float32)
        texts = (record.id, record.name, record.category, record.description)
        info = ObjectInfo(*texts, boxes=boxes, area=area, attributes=record.attributes)
        out[members.object_suffix("object", record.id)] = members.dump_object(info)
        out[members.object_suffix("mask", record.id)] = members.dump_mask(record.mask)
        if record.inpainted is not None:
            out[members.object_suffix("inpainted", record.id)] = encode_video(record.inpainted)
    return out


def decode(
    data: Mapping[str, bytes], *, objects: Collection[str] | None = None, frame_indices: Sequence[int] | None = None
) -> VplmSample:
    """Read a sample back from its members (suffix to bytes); suffixes that this schema does not know are ignored.

    ``objects`` names the ids to decode (None: all), ``frame_indices`` the frames, rising (None: all); masks, boxes and
    clips are cut alike. An edit about an object that was not asked for is kept.

    Raises:
        MemberError: if a member is missing, damaged, of another schema, or disagrees with ``meta.json``.
    """
    view = MemberView(data)
    paragraph, *phrasings = view.paragraphs()
    records = []
    for object_id in view.meta.objects:
        if objects is not None and object_id not in objects:
            continue
        info = view.object(object_id)
        has_inpainted = view.has(members.object_suffix("inpainted", object_id))
        records.append(
            ObjectRecord(
                id=object_id,
                name=info.name,
                category=info.category,
                description=info.description,
                mask=view.mask(object_id, frame_indices),
                boxes=info.boxes if frame_indices is None else info.boxes[list(frame_indices)],
                inpainted=view.inpainted_video(object_id, frame_indices) if has_inpainted else None,
                attributes=info.attributes,
            )
        )
    return VplmSample(
        key=view.key,
        video=view.video(frame_indices),
        paragraph=paragraph,
        objects=tuple(records),
        edits=edits_of(view),
        phrasings=tuple(phrasings),
        meta=view.meta.extra,
    )


def _faults(sample: VplmSample) -> list[str]:
    faults = []
    try:
        members.check_key(sample.key)
        members.check_object_ids([record.id for record in sample.objects])
    except ValueError as err:
        faults.append(str(err))
    shape = (sample.video.num_frames, *sample.video.size)
    too_large = sane_size(*shape)
    if too_large is None and math.prod(shape) * 3 > MAX_DECODED_BYTES:
        too_large = f"a clip {list(shape)} takes more than {readable(MAX_DECODED_BYTES)} in memory"
    if too_large is not None:
        faults.append(f"{too_large}; cut it into shorter clips or make it smaller")
    for record in sample.objects:
        mask = record.mask
        if mask.shape != shape or mask.dtype != np.uint8 or (mask > 1).any():
            faults.append(
                f"the mask of object {record.id} must be uint8 {{0, 1}} {list(shape)} like the clip, "
                f"got {mask.dtype} {list(mask.shape)} up to {mask.max(initial=0)}"
            )
        if record.boxes.shape != (shape[0], 4):
            faults.append(f"the boxes of object {record.id} must be [{shape[0]}, 4], got {list(record.boxes.shape)}")
        clip = record.inpainted
        if clip is not None and (clip.num_frames, *clip.size) != shape:
            found = [clip.num_frames, *clip.size]
            faults.append(f"the inpainted clip of object {record.id} must be {list(shape)} like the clip, got {found}")
    known = {record.id for record in sample.objects}
    faults += [
        f"an edit names object {e.object_id}, which is not there" for e in sample.edits if e.object_id not in known
    ]
    return faults


def edits_of(view: MemberView) -> tuple[EditPrompt, ...]:
    """The written edits of a sample.

    Raises:
        MemberError: if they are missing, damaged, or not what `edit_to_json` writes.
    """
    edits = members.load_json(view.bytes_of(members.EDITS), members.EDITS)
    if not isinstance(edits, list):
        raise MemberError(members.EDITS, f"must hold a list of edits, got {type(edits).__name__}")
    return tuple(_edit_from_json(value) for value in edits)


def edit_to_json(edit: EditPrompt) -> dict[str, Any]:
    """A written edit as ``edits.json`` holds it: kind, object_id, instruction, and the paragraphs before and after."""
    return {
        "kind": edit.kind,
        "object_id": edit.object_id,
        "instruction": edit.instruction,
        "before": members.paragraph_to_json(edit.before),
        "after": members.paragraph_to_json(edit.after),
    }


def _edit_from_json(value: Any) -> EditPrompt:
    try:
        kind, object_id, instruction = value["kind"], value["object_id"], value["instruction"]
        before, after = value["before"], value["after"]
    except (KeyError, TypeError) as err:
        raise MemberError(
            members.EDITS, f"an edit must hold kind, object_id, instruction, before, after: {err!r}"
        ) from err
    if kind not in ("remove", "add", "change"):
        raise MemberError(members.EDITS, f"an edit's kind must be remove, add or change, got {kind!r}")
    paragraphs = (members.paragraph_from_json(p, members.EDITS) for p in (before, after))
    return EditPrompt(kind, str(object_id), str(instruction), *paragraphs)
