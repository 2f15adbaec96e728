"""One sample under examination: does every member decode, and do the members agree with each other?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules import masks, members
from raccoon_datamodules.examine.fingerprints import Fingerprint, fingerprint
from raccoon_datamodules.examine.inpainted import compare_inpainted
from raccoon_datamodules.examine.report import Problem, Severity
from raccoon_datamodules.faults import attempt
from raccoon_datamodules.members import ObjectInfo, object_suffix, parse_suffix
from raccoon_datamodules.paragraph import Paragraph
from raccoon_datamodules.sample import decode
from raccoon_datamodules.sources import ShardSource
from raccoon_datamodules.view import MemberView

T = TypeVar("T")
_REQUIRED = (members.META, members.PARAGRAPH, members.EDITS, members.VIDEO)


@dataclass(slots=True)
class Examined:
    """What was found out about one sample; ``clip`` is None where it cannot be decoded or was not to be."""

    shard: str
    key: str
    num_members: int
    num_objects: int = 0
    num_frames: int = 0
    clip: Fingerprint | None = None
    problems: list[Problem] = field(default_factory=list)

    def add(self, severity: Severity, member: str | None, reason: str) -> None:
        """Take down a finding."""
        self.problems.append(Problem(severity, self.shard, self.key, member, reason))

    def tried(self, work: Callable[[], T]) -> T | None:
        """The result of ``work``; a failure becomes a finding and None."""
        result: Any = attempt(lambda: [work()])
        if isinstance(result, tuple):
            self.add("error", *result)
            return None
        return cast(T, result[0])


def check_names(source: ShardSource, shard: int, sample: int) -> Examined:
    """What the index alone says of a sample: its key and whether its members are there."""
    name, key = source.name(shard, sample)
    suffixes = source.suffixes(shard, sample)
    found = Examined(name, key, len(suffixes))
    for suffix in suffixes:
        if parse_suffix(suffix) is None:
            found.add("note", suffix, "is a member that this version does not know; it is ignored")
    if len({suffix.lower() for suffix in suffixes}) < len(suffixes):
        found.add("error", None, "two members have one name, regardless of case")
    try:
        members.check_key(key)
    except ValueError as err:
        found.add("error", None, str(err))
    return found


def check_quickly(source: ShardSource, shard: int, sample: int, *, read: bool) -> Examined:
    """What can be said of a sample without decoding; ``read``: compare the members' checksums as well."""
    found = check_names(source, shard, sample)
    there = {suffix.lower() for suffix in source.suffixes(shard, sample)}
    for suffix in _REQUIRED:
        if suffix not in there:
            found.add("error", suffix, "is missing")
    if read:
        found.tried(lambda: source.read(shard, sample))
    return found


def check_sample(source: ShardSource, shard: int, sample: int, *, with_clip: bool) -> Examined:
    """Decode every member of a sample and compare them; ``with_clip`` takes the clip's fingerprint too."""
    found = check_names(source, shard, sample)
    data = found.tried(lambda: source.read(shard, sample))
    view = None if data is None else found.tried(lambda: MemberView(data))
    if data is None or view is None:
        return found
    if view.key != found.key:
        found.add("error", members.META, f"holds the key {view.key}")
    paragraphs = found.tried(view.paragraphs)
    clip = found.tried(view.clip)
    if clip is not None and with_clip:
        found.clip = fingerprint(clip, data[next(s for s in data if s.lower() == members.VIDEO)])
    found.num_frames = view.num_frames
    found.num_objects = len(view.meta.objects)
    infos = [_check_object(found, view, name, clip) for name in view.meta.objects]
    _check_edits(found, view, data, is_whole=paragraphs is not None and clip is not None)
    if paragraphs is not None:
        _check_names_in(found, paragraphs[0], infos)
    stored = {parsed[1].lower() for parsed in map(parse_suffix, data) if parsed and parsed[1]}
    for extra in sorted(stored - {name.lower() for name in view.meta.objects}):
        found.add("error", members.META, f"object {extra} has members but is not listed")
    return found


def _check_object(found: Examined, view: MemberView, name: str, clip: NDArray[np.uint8] | None) -> ObjectInfo | None:
    info = found.tried(lambda: view.object(name))
    mask = found.tried(lambda: view.mask(name))
    if info is not None:
        _check_boxes(found, info, mask)
    if mask is not None:
        for severity, reason in _mask_findings(mask):
            found.add(severity, object_suffix("mask", name), reason)
    suffix = object_suffix("inpainted", name)
    if view.has(suffix):
        without = found.tried(lambda: view.inpainted(name))
        if without is not None and mask is not None and clip is not None:
            for reason in compare_inpainted(clip, without, mask):
                found.add("warning", suffix, reason)
    return info


def _check_boxes(found: Examined, info: ObjectInfo, mask: NDArray[np.uint8] | None) -> None:
    suffix = object_suffix("object", info.id)
    boxes = info.boxes
    absent = np.isnan(boxes)
    outside = (boxes < -1e-6) | (boxes > 1 + 1e-6)
    wrong = outside.any(axis=1) | (boxes[:, 0] > boxes[:, 2]) | (boxes[:, 1] > boxes[:, 3])
    if wrong.any():
        frame = int(np.flatnonzero(wrong)[0])
        row = [round(float(value), 4) for value in boxes[frame]]
        found.add(
            "error",
            suffix,
            f"boxes must be x0, y0, x1, y1 in [0, 1] with x0 <= x1 and y0 <= y1, got {row} in frame {frame}"
            f"{_others(int(wrong.sum()) - 1)}",
        )
    if mask is None:
        return
    if not np.array_equal(info.area, mask.sum(axis=(1, 2), dtype=np.int64)):
        found.add("error", suffix, "its areas are not those of its mask")
    if wrong.any():
        return
    expected = masks.boxes_of(mask)
    differs = (np.isnan(expected) != absent).any(axis=1)
    if differs.any():
        frames = np.flatnonzero(differs)[:10].tolist()
        found.add("error", suffix, f"box and mask disagree on whether it is there in frames {frames}")
        return
    height, width = mask.shape[1:]
    # A pixel of tolerance: boxes may have been made before the mask was resized.
    apart = np.nan_to_num(np.abs(expected - boxes)) * np.array([width, height, width, height])
    if apart.max(initial=0) > 1.0 + 1e-3:
        frames = np.flatnonzero((apart > 1.0 + 1e-3).any(axis=1))[:10].tolist()
        found.add("error", suffix, f"box and mask differ by up to {apart.max():.1f} pixels in frames {frames}")


def _others(number: int) -> str:
    return f" and {number} more" if number else ""


def _mask_findings(mask: NDArray[np.uint8]) -> Iterator[tuple[Severity, str]]:
    frames, height, width = mask.shape
    areas = mask.reshape(frames, -1).sum(axis=1, dtype=np.int64)
    if not areas.any():
        yield "warning", "the mask is empty in every frame"
    elif (areas == height * width).all():
        yield "warning", "the mask covers every pixel of every frame"
    elif (areas == height * width).any():
        full = np.flatnonzero(areas == height * width)
        yield "warning", f"the mask covers the whole picture in frames {full[:10].tolist()}"
    elif areas.mean() > 0.5 * height * width:
        inverted = (m for m in masks.check(mask, num_frames=frames, height=height, width=width) if m.code == "inverted")
        yield from (("warning", finding.message) for finding in inverted)


def _check_edits(found: Examined, view: MemberView, data: dict[str, bytes], *, is_whole: bool) -> None:
    if not is_whole:
        # The sample cannot be decoded for another reason, which is known already.
        found.tried(lambda: members.load_json(view.bytes_of(members.EDITS), members.EDITS))
        return
    sample = found.tried(lambda: decode(data, objects=(), frame_indices=(0,)))
    for edit in sample.edits if sample is not None else ():
        if edit.object_id not in view.meta.objects:
            found.add("error", members.EDITS, f"an edit names object {edit.object_id}, which is not there")


def _check_names_in(found: Examined, paragraph: Paragraph, infos: list[ObjectInfo | None]) -> None:
    there = [info for info in infos if info is not None]
    for info in there:
        if paragraph.find(info.name) is None:
            names = ", ".join(o.name for o in paragraph.objects) or "none"
            reason = f"object {info.name} is not in the paragraph, which names {names}"
            found.add("error", object_suffix("object", info.id), reason)
    recorded = {info.name.casefold() for info in there}
    for described in paragraph.objects:
        if described.name.casefold() not in recorded and len(there) == len(infos):
            found.add("note", members.PARAGRAPH, f"object {described.name} is described but has no mask")
