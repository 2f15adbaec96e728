"""What one line of a messages JSONL says: ours with everything, anybody's with a video and an answer."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules import masks, members
from raccoon_datamodules.examine.report import counted
from raccoon_datamodules.exchange import rle
from raccoon_datamodules.exchange.report import EXTRA_FIELD, EXTRA_SCHEMA, place_of, read_bytes
from raccoon_datamodules.limits import MAX_DECODED_BYTES, MAX_LINE_BYTES, readable
from raccoon_datamodules.mask_files import image_files, read_images
from raccoon_datamodules.members import MemberError, MetaRecord, object_suffix, parse_suffix
from raccoon_datamodules.paragraph import Paragraph
from raccoon_datamodules.video_claims import check_counts
from raccoon_datamodules.view import MemberView

# Names of one thing among the trainers: role and text of a message, and who answers.
_ROLES, _TEXTS, _ANSWERERS = ("role", "from"), ("content", "value"), ("assistant", "gpt", "bot", "model")
_LONGEST_NOTE = 5
_MOST_BOXES = 10_000


@dataclass(frozen=True, slots=True)
class Answer:
    """A foreign line: the video it names, the paragraph that was read from its answer, and what was lost."""

    video: str
    paragraph: Paragraph
    notes: list[str]


def read_answer(line: Mapping[str, Any]) -> Answer:
    """Read the messages of a line: the first answer is the paragraph, the first video the clip.

    Messages may be ``messages`` with role and content or ``conversations`` with from and value; a content may be a text
    or a list of parts ({"type": "text", "text"}, {"type": "video", "video"}).

    Raises:
        ValueError: if there are no messages, no answer, or no video.
    """
    messages = line.get("messages", line.get("conversations"))
    if not isinstance(messages, list) or not messages:
        raise ValueError("a line must hold messages, a list of {role, content}")
    answers, found = [], []
    for message in messages:
        if not isinstance(message, dict):
            raise ValueError(f"a message must be an object with role and content, got {message!r:.100}")
        role, content = _first(message, _ROLES), _first(message, _TEXTS)
        text, inside = _parts(content)
        found += inside
        if role in _ANSWERERS:
            answers.append(text)
    named = line.get("videos", line.get("video"))
    listed = named if isinstance(named, list) else [] if named is None else [named]
    videos = [video for video in [*listed, *found] if video is not None]
    if not answers:
        raise ValueError(f"none of the {len(messages)} messages is an answer (role assistant)")
    if not videos:
        raise ValueError("names no video: it must hold videos, a list of files, or a part of type video")
    if not isinstance(videos[0], str):
        raise ValueError(f"a video must be the name of a file, got {videos[0]!r:.100}")
    paragraph, notes = Paragraph.parse(answers[0])
    if len(notes) > _LONGEST_NOTE:
        notes = [*notes[:_LONGEST_NOTE], f"and {len(notes) - _LONGEST_NOTE} more notes on its text"]
    if len(answers) > 1:
        notes.append(f"{len(answers) - 1} more answers are left out")
    if len(videos) > 1:
        notes.append(f"{len(videos) - 1} more videos are left out")
    if line.get("images"):
        notes.append("its images are left out")
    return Answer(videos[0], paragraph, notes)


def _first(message: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((message[name] for name in names if name in message), None)


def _parts(content: Any) -> tuple[str, list[Any]]:
    """The text of a message and the videos in it."""
    if isinstance(content, str):
        return content, []
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise ValueError(f"a message's content must be a text or a list of parts, got {content!r:.100}")
    texts = [str(part.get("text", "")) for part in content if part.get("type") == "text"]
    return "\n".join(texts), [part.get("video") for part in content if part.get("type") == "video"]


def foreign_boxes(objects: Any) -> tuple[dict[str, Any] | None, list[str]]:
    """What to keep of a foreign line's ``objects``, {ref, bbox, bbox_type}, and what to say of it.

    An object of a shard has a mask and a box in every frame. These boxes are of no frame that the line names, so they
    become no objects; where they are lists of four numbers they are kept, under ``meta.source.objects``.
    """
    boxes = objects.get("bbox") if isinstance(objects, dict) else None
    if not boxes:
        return None, []
    refs, kind = objects.get("ref") or [], objects.get("bbox_type", "real")
    number = counted(len(boxes), "box", "boxes") if isinstance(boxes, list) else "its boxes"
    fits = isinstance(boxes, list) and isinstance(refs, list) and isinstance(kind, str)
    if not fits or len(boxes) > _MOST_BOXES or not all(map(_is_box, boxes)) or not all(map(_is_name, refs)):
        form = f"{{ref: [names], bbox: [[x0, y0, x1, y1]], bbox_type}}, at most {_MOST_BOXES}"
        return None, [f"{number} left out: objects must be {form}"]
    kept = {"ref": refs, "bbox": [[float(value) for value in box] for box in boxes], "bbox_type": kind}
    return kept, [f"{number} kept in meta only: an object needs a mask and a box in every frame"]


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(type(v) in (int, float) and abs(v) < 1e9 for v in box)


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and len(name) < 1000


def restore(line: Mapping[str, Any], base: Path, *, allow_outside: bool) -> tuple[str, dict[str, bytes], list[str]]:
    """(key, members, notes) of a line that `export_messages` wrote into the folder ``base``.

    The text is that of the messages and the clip the first of ``videos``, whatever else the line holds. Where a mask is
    no longer the record's, boxes and areas are made anew and noted.

    Raises:
        MemberError, ValueError: if something is missing, damaged, or does not fit together.
        FileNotFoundError: if a file is not there.
    """
    extra = line[EXTRA_FIELD]
    if isinstance(extra, str):
        extra = members.load_json(extra.encode("utf-8", "surrogatepass"), EXTRA_FIELD, limit=MAX_LINE_BYTES)
    if not isinstance(extra, dict) or extra.get("schema") != EXTRA_SCHEMA:
        raise ValueError(f"its field {EXTRA_FIELD} must hold schema {EXTRA_SCHEMA}, got {extra!r:.100}")
    try:
        meta, edits, objects = extra["meta"], extra["edits"], list(extra["objects"])
        phrasings, others = list(extra["phrasings"]), dict(extra["members"])
    except (KeyError, TypeError, ValueError) as err:
        raise ValueError(
            f"its field {EXTRA_FIELD} must hold meta, phrasings, edits, objects and members: {err!r}"
        ) from err
    answer = read_answer(line)
    every = {"paragraph": members.paragraph_to_json(answer.paragraph), "phrasings": phrasings}
    data = {
        members.META: members.dump_json(meta, members.META),
        members.PARAGRAPH: members.dump_json(every, members.PARAGRAPH),
        members.EDITS: members.dump_json(edits, members.EDITS),
        members.VIDEO: read_bytes(place_of(answer.video, base, allow_outside=allow_outside)),
    }
    record = members.load_meta(data[members.META])
    _check_clip(data[members.VIDEO], members.VIDEO, record)
    notes = list(answer.notes)
    for value in objects:
        added, said = _restore_object(value, record, base, allow_outside=allow_outside)
        data.update(added)
        notes += said
    for suffix, name in others.items():
        if parse_suffix(suffix) is not None or suffix in data:
            raise ValueError(f"its field {EXTRA_FIELD} lists {suffix}, which has a place of its own, as another member")
        data[suffix] = read_bytes(place_of(name, base, allow_outside=allow_outside))
    view = MemberView(data)
    view.paragraphs()
    for name in record.objects:
        view.object(name)
    return record.key, data, notes


def _restore_object(
    value: Any, meta: MetaRecord, base: Path, *, allow_outside: bool
) -> tuple[dict[str, bytes], list[str]]:
    try:
        record, mask_name, inpainted = dict(value["record"]), value["mask"], value.get("inpainted")
        object_id = str(record["id"])
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise ValueError(f"an object must hold its record (with an id) and mask: {err!r}") from err
    if object_id not in meta.objects:
        raise ValueError(f"object {object_id:.80} is not among those of meta: {', '.join(meta.objects) or 'none'}")
    notes = []
    suffix = object_suffix("object", object_id)
    info = members.load_object(members.dump_json(record, suffix), suffix, meta=meta)
    mask = _read_mask(mask_name, meta, base, allow_outside=allow_outside)
    area = mask.sum(axis=(1, 2), dtype=np.int64)
    if not np.array_equal(area, info.area):
        boxes = [None if np.isnan(row).any() else [float(v) for v in row] for row in masks.boxes_of(mask)]
        record |= {"area": area.tolist(), "boxes": boxes}
        notes.append(f"the mask of object {object_id} has been changed; its boxes and areas were made anew")
    out = {
        suffix: members.dump_json(record, suffix),
        object_suffix("mask", object_id): members.dump_mask(mask),
    }
    if inpainted is not None:
        name = object_suffix("inpainted", object_id)
        out[name] = read_bytes(place_of(inpainted, base, allow_outside=allow_outside))
        _check_clip(out[name], name, meta)
    return out, notes


def _read_mask(name: Any, meta: MetaRecord, base: Path, *, allow_outside: bool) -> NDArray[np.uint8]:
    """Masks uint8 {0, 1} [F, H, W] from a file of run-length encodings or a folder of PNGs."""
    size = meta.height, meta.width
    if meta.num_frames * meta.height * meta.width > MAX_DECODED_BYTES:
        raise ValueError(f"the masks of {name!r:.100} would take more than {readable(MAX_DECODED_BYTES)} in memory")
    if isinstance(name, str) and name.endswith(".json"):
        path = place_of(name, base, allow_outside=allow_outside)
        frames = members.load_json(read_bytes(path, MAX_LINE_BYTES), name, limit=MAX_LINE_BYTES)
        if not isinstance(frames, list) or len(frames) != meta.num_frames:
            raise ValueError(f"{name} must hold a list of {meta.num_frames} masks, one a frame of the clip")
        return np.stack([rle.decode_rle(frame, size=size) for frame in frames])
    folder = place_of(name, base, allow_outside=allow_outside, kind="folder")
    files = image_files(folder)
    if not allow_outside:
        for file in files:
            place_of(str(file.relative_to(base)), base, allow_outside=False)
    if len(files) != meta.num_frames:
        raise ValueError(f"{name} must hold {meta.num_frames} masks, one a frame of the clip, it holds {len(files)}")
    return read_images(files, size, None)


def _check_clip(data: bytes, member: str, meta: MetaRecord) -> None:
    """Raise MemberError unless the header of a clip says what ``meta`` says; frames are not decoded."""
    try:
        check_counts(data)
        with av.open(io.BytesIO(data), format="mp4") as container:
            stream = container.streams.video[0]
            found = stream.frames, stream.codec_context.height, stream.codec_context.width
    except (av.error.FFmpegError, IndexError, AttributeError, ValueError) as err:
        raise MemberError(member, f"is no clip of a shard: {err}") from err
    expected = meta.num_frames, meta.height, meta.width
    if found != expected:
        raise MemberError(
            member, f"must have {list(expected)} frames, height and width as meta says, has {list(found)}"
        )
