"""The files that make up one sample of a shard: their names, and bytes to values and back for each kind.

Every member is read by this table of suffixes and nothing else; a pickle is never opened, whatever a file claims to be.
The format for readers of other tools: docs/format.md.
"""

import io
import json
import re
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules import masks
from raccoon_datamodules.limits import (
    MAX_DECODED_BYTES,
    MAX_OBJECTS,
    MAX_REASON,
    MAX_RECORD_BYTES,
    readable,
    sane_size,
)
from raccoon_datamodules.npz import parse_array, read_member
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph

SCHEMA_VERSION = 1

VIDEO = "video.mp4"
PARAGRAPH = "paragraph.json"
META = "meta.json"
EDITS = "edits.json"

# What an archive of a mask may have beyond its bits.
_MORE = 1 << 20

ObjectMember = Literal["mask", "inpainted", "object"]
_ENDINGS: dict[str, str] = {"mask": ".npz", "inpainted": ".mp4", "object": ".json"}

# A dot would end the key for WebDataset and merge samples; 120 + the longest suffix stays below a file name's 255.
_KEY = re.compile(r"[A-Za-z0-9_-]{1,120}")
_OBJECT_ID = re.compile(r"[A-Za-z0-9_-]{1,60}")
_OBJECT_SUFFIX = re.compile(r"(mask|inpainted|object)-([A-Za-z0-9_-]{1,60})\.(npz|mp4|json)")


class MemberError(ValueError):
    """A member of a sample is missing or cannot be read; ``member`` is its suffix, ``reason`` what is wrong."""

    def __init__(self, member: str, reason: str) -> None:
        # A reason may quote what a file holds.
        member, reason = member[:MAX_REASON], reason if len(reason) <= MAX_REASON else f"{reason[:MAX_REASON]} ..."
        super().__init__(f"{member}: {reason}")
        self.member = member
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """Two arguments come back from a worker process as two arguments."""
        return type(self), (self.member, self.reason)


@dataclass(frozen=True, slots=True)
class MetaRecord:
    """``meta.json``: what must be known before anything else of a sample is decoded.

    ``timestamps`` float64 [F] seconds; ``objects`` the ids in the sample's order; ``extra`` the sample's own ``meta``.
    """

    key: str
    num_frames: int
    height: int
    width: int
    fps: float
    timestamps: NDArray[np.float64]
    objects: tuple[str, ...]
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """``object-ID.json``: what is known of an object without its mask.

    ``boxes`` float32 [F, 4] xyxy in [0, 1], NaN rows where absent; ``area`` int64 [F], the mask's pixels per frame.
    """

    id: str
    name: str
    category: str
    description: str
    boxes: NDArray[np.float32]
    area: NDArray[np.int64]
    attributes: dict[str, Any]


def check_key(key: str) -> str:
    """Return ``key`` if it may name a sample.

    Raises:
        ValueError: if it is not 1 to 120 of the characters A-Z a-z 0-9 _ -.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"a sample key must match [A-Za-z0-9_-]{{1,120}}, got {key!r}; replace other characters by _")
    return key


def check_object_ids(ids: list[str]) -> None:
    """Raise ValueError if an id is not 1 to 60 of A-Z a-z 0-9 _ -, or if two differ at most by case."""
    for name in ids:
        if not _OBJECT_ID.fullmatch(name):
            raise ValueError(f"an object id must match [A-Za-z0-9_-]{{1,60}}, got {name!r}")
    # WebDataset lower-cases suffixes: two ids that differ by case would be one member there.
    if len({name.lower() for name in ids}) != len(ids):
        raise ValueError(f"object ids must be unique regardless of case, got {', '.join(ids)}")


def object_suffix(kind: ObjectMember, object_id: str) -> str:
    """The suffix of an object's member, for example ``mask-1.npz``."""
    return f"{kind}-{object_id}{_ENDINGS[kind]}"


def parse_suffix(suffix: str) -> tuple[str, str | None] | None:
    """Split a suffix into (kind, object id or None); None for a suffix that this schema does not know.

    The kinds are ``video``, ``paragraph``, ``meta``, ``edits``, ``mask``, ``inpainted`` and ``object``.
    """
    if suffix in (VIDEO, PARAGRAPH, META, EDITS):
        return suffix.split(".", 1)[0], None
    found = _OBJECT_SUFFIX.fullmatch(suffix)
    if found is None or _ENDINGS[found[1]] != f".{found[3]}":
        return None
    return found[1], found[2]


def split_name(name: str) -> tuple[str, str]:
    """Split a tar member's name into key and suffix at its first dot, as WebDataset does.

    Raises:
        ValueError: if the name has a folder, no dot, or a key that no sample may have.
    """
    key, dot, suffix = name.removeprefix("./").partition(".")
    if "/" in key or "/" in suffix or not dot or not suffix:
        raise ValueError(f"a shard's members are named KEY.SUFFIX without folders, got {name!r}")
    return check_key(key), suffix


def dump_json(value: Any, member: str) -> bytes:
    """JSON as deterministic UTF-8 bytes: sorted keys, no white space, no NaN.

    Raises:
        TypeError: if the value is not plain JSON.
        ValueError: if it is larger than a record may be (`limits`).
    """
    try:
        text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
        data = text.encode("utf-8") + b"\n"
    except (TypeError, ValueError) as err:
        raise TypeError(
            f"{member} must hold plain JSON values (str, int, finite float, bool, list, dict): {err}"
        ) from err
    if len(data) > MAX_RECORD_BYTES:
        raise ValueError(
            f"{member} must have at most {readable(MAX_RECORD_BYTES)}, it would have {readable(len(data))}; "
            "cut the clip into shorter ones, or keep less text and fewer attributes"
        )
    return data


def load_json(data: bytes, member: str, *, limit: int = MAX_RECORD_BYTES) -> Any:
    """Undo `dump_json`. Raises MemberError if the bytes are not JSON in UTF-8, or more than ``limit``."""
    if len(data) > limit:
        raise MemberError(member, f"must have at most {readable(limit)}, has {readable(len(data))}")
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as err:
        raise MemberError(member, f"must be JSON in UTF-8: {err}") from err


def paragraph_to_json(paragraph: Paragraph) -> dict[str, Any]:
    """The paragraph as ``{"description": ..., "objects": [{"name": ..., "description": ...}, ...]}``."""
    return {
        "description": paragraph.description,
        "objects": [{"name": o.name, "description": o.description} for o in paragraph.objects],
    }


def paragraph_from_json(value: Any, member: str) -> Paragraph:
    """Undo `paragraph_to_json`. Raises MemberError if the value has another shape or makes no valid paragraph."""
    try:
        objects = tuple(ObjectDescription(o["name"], o["description"]) for o in value["objects"])
        return Paragraph(value["description"], objects)
    except (KeyError, TypeError, AttributeError, ValueError) as err:
        raise MemberError(
            member, f"must hold a paragraph {{description, objects: [{{name, description}}]}}: {err!r}"
        ) from err


def dump_mask(mask: NDArray[np.uint8]) -> bytes:
    """A mask {0, 1} [F, H, W] as a bit-packed npz: the same bytes for the same mask (no time stamps inside)."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for name, array in masks.pack(mask).items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            raw = io.BytesIO()
            np.lib.format.write_array(raw, np.asarray(array), allow_pickle=False)
            out.writestr(entry, raw.getvalue())
    return archive.getvalue()


def load_mask(data: bytes, member: str, *, meta: MetaRecord, frames: Sequence[int] | None = None) -> NDArray[np.uint8]:
    """Undo `dump_mask`: uint8 {0, 1} [F, H, W], or only some frames of it.

    Raises:
        MemberError: if it is not such an npz, holds a pickle, is larger than the clip needs, or has another size.
    """
    shape = (meta.num_frames, meta.height, meta.width)
    if meta.num_frames * meta.height * meta.width > MAX_DECODED_BYTES:
        raise MemberError(member, f"a mask {list(shape)} would take more than {readable(MAX_DECODED_BYTES)} in memory")
    # Bits, a byte of padding a row at most, and the headers: a larger array is refused before it is unpacked.
    limit = meta.num_frames * meta.height * (meta.width // 8 + 1) + 4096
    try:
        # An archive's list of entries is read whole, which takes ten times what it has.
        if len(data) > limit + _MORE:
            raise ValueError(f"it has {readable(len(data))}, at most {readable(limit + _MORE)} expected")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            arrays = {
                name: parse_array(read_member(archive, f"{name}.npy", limit), f"{name}.npy", max_dims=1, kinds="iu")
                for name in ("bits", "shape")
            }
        stored = tuple(arrays["shape"].tolist())
        is_other = len(stored) == 3 and min(stored) > 0 and stored != shape
        mask = None if is_other else masks.unpack(arrays, frames)
    except (
        zipfile.BadZipFile,
        zlib.error,
        ValueError,
        KeyError,
        OSError,
        EOFError,
        RuntimeError,
        TypeError,
        SyntaxError,
        tokenize.TokenError,
    ) as err:
        raise MemberError(member, f"must be a bit-packed npz without pickles: {err}") from err
    if mask is None:
        raise MemberError(member, f"mask must be [F, H, W] like the video's {list(shape)}, got {list(stored)}")
    return mask


def dump_object(info: ObjectInfo) -> bytes:
    """An object's record as JSON; absent boxes are null."""
    return dump_json(
        {
            "id": info.id,
            "name": info.name,
            "category": info.category,
            "description": info.description,
            "boxes": [None if np.isnan(row).any() else [_short(v) for v in row] for row in info.boxes],
            "area": [int(pixels) for pixels in info.area],
            "attributes": info.attributes,
        },
        object_suffix("object", info.id),
    )


def load_object(data: bytes, member: str, *, meta: MetaRecord) -> ObjectInfo:
    """Undo `dump_object`. Raises MemberError if a field is missing or has another length than the clip."""
    value = load_json(data, member)
    try:
        nothing = [float("nan")] * 4
        boxes = np.array([nothing if row is None else row for row in value["boxes"]], dtype=np.float32)
        area = np.array(value["area"], dtype=np.int64)
        name, category, description = (str(value[field]) for field in ("name", "category", "description"))
        info = ObjectInfo(str(value["id"]), name, category, description, boxes, area, dict(value["attributes"]))
    except (KeyError, TypeError, ValueError, OverflowError) as err:
        raise MemberError(
            member, f"must hold id, name, category, description, boxes, area, attributes: {err!r}"
        ) from err
    if boxes.shape != (meta.num_frames, 4) or area.shape != (meta.num_frames,):
        raise MemberError(
            member,
            f"boxes must be [{meta.num_frames}, 4] and area [{meta.num_frames}] for this clip, "
            f"got {list(boxes.shape)} and {list(area.shape)}",
        )
    return info


def dump_meta(meta: MetaRecord) -> bytes:
    """``meta.json`` as bytes; timestamps are null where they are exactly frame number / fps."""
    regular = np.array_equal(meta.timestamps, np.arange(meta.num_frames) / meta.fps)
    return dump_json(
        {
            "schema": SCHEMA_VERSION,
            "key": meta.key,
            "num_frames": meta.num_frames,
            "height": meta.height,
            "width": meta.width,
            "fps": meta.fps,
            "timestamps": None if regular else [float(t) for t in meta.timestamps],
            "objects": list(meta.objects),
            "meta": meta.extra,
        },
        META,
    )


def load_meta(data: bytes) -> MetaRecord:
    """Undo `dump_meta`.

    Raises:
        MemberError: if the schema is not the one this version reads, or a field is missing or wrong.
    """
    value = load_json(data, META)
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema != SCHEMA_VERSION:
        raise MemberError(META, f"schema must be {SCHEMA_VERSION}, got {schema!r}; another version of raccoon wrote it")
    try:
        num_frames, height, width = (int(value[name]) for name in ("num_frames", "height", "width"))
        fps = float(value["fps"])
        fault = sane_size(num_frames, height, width)
        if fault is not None or not 0 < fps < 1e6:
            raise ValueError(fault or f"fps must be positive and sane, got {fps}")
        times = value["timestamps"]
        timestamps = np.arange(num_frames) / fps if times is None else np.array(times, dtype=np.float64)
        if timestamps.shape != (num_frames,):
            raise ValueError(f"timestamps must have one value a frame ({num_frames}), got {timestamps.size}")
        if not (np.isfinite(timestamps).all() and (np.diff(timestamps) > 0).all()):
            raise ValueError("timestamps must be finite and strictly increasing")
        if len(value["objects"]) > MAX_OBJECTS:
            raise ValueError(f"a sample has at most {MAX_OBJECTS} objects, got {len(value['objects'])}")
        objects = [str(name) for name in value["objects"]]
        check_object_ids(objects)
        key = check_key(str(value["key"]))
        return MetaRecord(key, num_frames, height, width, fps, timestamps, tuple(objects), dict(value["meta"]))
    except (KeyError, TypeError, ValueError, OverflowError) as err:
        raise MemberError(
            META, f"must hold key, num_frames, height, width, fps, timestamps, objects, meta: {err}"
        ) from err


def _short(value: np.float32) -> float:
    """The shortest decimal that is the same float32 again."""
    short = float(str(value))
    return short if np.float32(short) == value else float(value)
