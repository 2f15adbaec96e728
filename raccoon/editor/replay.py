"""Replaying and verifying a result by its sidecar."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from raccoon.editor.editor import Editor
from raccoon.editor.output import EncodedReport, inspect_encoded
from raccoon.editor.paste import ContractBroken, SoftMask
from raccoon.editor.regions import prompt_of
from raccoon.editor.request import EditRequest, EditResult, EditStep, Preparation
from raccoon.plan import EditPlan
from raccoon.provenance import (
    hash_array,
    hash_file,
    indices_from_json,
    machine,
    mask_from_json,
    read_sidecar,
    versions,
)
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.paragraph import Paragraph
from raccoon_datamodules.video import Video


@dataclass(frozen=True, slots=True, eq=False)
class ReplayReport:
    """What a replay gave.

    ``same``: the frames before encoding have the recorded hash. ``differences`` in versions, machine and threads, one
    ``name: then -> now`` each: what may explain other frames. ``result`` is the edit that was made again.
    """

    same: bool
    expected_hash: str
    got_hash: str
    differences: tuple[str, ...]
    result: EditResult


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found: the contract holds (else it raises); ``same_file``: the file is byte for byte as written."""

    report: EncodedReport
    same_file: bool


def replay(
    sidecar: str | Path, *, source: str | Path | None = None, video: Video | None = None, editor: Editor | None = None
) -> ReplayReport:
    """Make the frames of a result again, from its source, the recorded masks and the recorded recipe.

    Masks that a grounder found and paragraphs that a describer wrote are taken from the sidecar, not made again.
    ``source`` is the video file if it was moved; ``video`` the clip if it came from no file; ``editor`` is needed where
    the result was made by an editor that no recipe describes.

    Raises:
        FileNotFoundError: if sidecar or source is not there.
        ValueError: if the source or a mask is not the recorded one, or an editor or a video is needed.
        RuntimeError: if the decoder gives other frames than recorded.
    """
    sidecar = Path(sidecar)
    content = read_sidecar(sidecar)
    if editor is None:
        if content.get("recipe") is None:
            raise ValueError(
                f"{sidecar} names no recipe, its editor was built in Python; pass the same editor to replay"
            )
        editor = Editor.from_recipe(content["recipe"]["config"])
    clip = _source_of(content, sidecar, source, video)
    plan = EditPlan.from_json(content["plan"])
    masks = [mask_from_json(mask) for mask in content["masks"]]
    if not len(masks) == len(plan.edits) == len(content["edits"]):
        raise ValueError(
            f"{sidecar} has {len(plan.edits)} planned edits, {len(content['edits'])} done and {len(masks)} masks; "
            "these must be equal: restore the sidecar"
        )
    before, after = _paragraph(content.get("before")), _paragraph(content.get("after"))
    steps = tuple(
        EditStep(edit, mask, record["mask_from"], prompt_of(edit), layout=_layout(record))
        for edit, mask, record in zip(plan.edits, masks, content["edits"], strict=True)
    )
    size = content.get("size")
    request = EditRequest(
        video=clip,
        before=before,
        after=after,
        plan=plan,
        seed=content["seed"],
        size=None if size is None else (int(size[0]), int(size[1])),
        options=content.get("options") or {},
    )
    result = editor.edit(request, prepared=Preparation(before, after, plan, steps))
    expected, got = content["result"]["frames_sha256"], hash_array(result.video.frames)
    differences = (
        *_differences(content.get("versions") or {}, versions()),
        *_differences(content.get("machine") or {}, machine()),
    )
    return ReplayReport(expected == got, expected, got, differences, result)


def verify(sidecar: str | Path, *, source: str | Path | None = None, video: Video | None = None) -> Verification:
    """Check a written result against its source by its sidecar, as it was checked when it was written.

    Raises:
        ContractBroken: lists everything the file does not keep of its source, or the file was changed since and differs
            from it by more than was recorded.
        FileNotFoundError: if sidecar, result or source is not there.
        ValueError, RuntimeError: as `replay` says.
    """
    sidecar = Path(sidecar)
    content = read_sidecar(sidecar)
    written = sidecar.with_name(content["output"]["name"])
    if not written.is_file():
        raise FileNotFoundError(f"the video of {sidecar} is not beside it: {written}; move it back there")
    clip = _source_of(content, sidecar, source, video)
    region = np.zeros(clip.frames.shape[:3], dtype=np.uint8)
    for stored in content["masks"]:
        region |= SoftMask.of(mask_from_json(stored), content["grow"], content["feather"]).touched
    report = inspect_encoded(written, clip, region, lossless=bool(content["output"]["lossless"]))
    is_same = hash_file(written) == content["output"]["sha256"]
    recorded = content["output"].get("max_error_outside")
    # What its own encoding cost is recorded; more came from somebody else.
    if not is_same and recorded is not None and report.max_error_outside > recorded:
        raise ContractBroken(
            f"{written} was changed since it was written: outside the mask it differs from the source by up to "
            f"{report.max_error_outside} of 255, as written by {recorded}; write it again (raccoon edit --overwrite)"
        )
    return Verification(report, is_same)


def _source_of(content: Mapping[str, Any], sidecar: Path, source: str | Path | None, video: Video | None) -> Video:
    """Return the clip the result was made of, checked against the recorded hashes."""
    recorded = content["source"]
    if video is None:
        path = _source_file(recorded, sidecar, source)
        if recorded["sha256"] is not None and (got := hash_file(path)) != recorded["sha256"]:
            raise ValueError(
                f"the source {path} is not the video that was edited: its hash is {got[:12]}..., recorded is "
                f"{recorded['sha256'][:12]}...; give the original (--source)"
            )
        video = _read_again(path, recorded)
    if (got := hash_array(video.frames)) != recorded["frames_sha256"]:
        raise RuntimeError(
            f"the frames of the source are not the recorded ones (hash {got[:12]}... instead of "
            f"{recorded['frames_sha256'][:12]}...), read with {video.decoder}, recorded with {recorded['decoder']}; "
            "use the versions named in the sidecar"
        )
    return video


def _source_file(recorded: Mapping[str, Any], sidecar: Path, source: str | Path | None) -> Path:
    if source is not None:
        places = [Path(source)]
    elif recorded["path"] is None:
        raise ValueError(f"{sidecar} names no source file, its video came from memory; pass the video")
    else:
        places = [Path(recorded["path"]), sidecar.with_name(Path(recorded["path"]).name)]
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(f"the source is not there: {places[0]}; say where it is (--source)")


def _read_again(path: Path, recorded: Mapping[str, Any]) -> Video:
    """Read the stretch of time that the recorded frames span, as sparsely as can be, and take those frames of it."""
    indices = indices_from_json(recorded["frame_indices"])
    steps = np.diff(indices)
    step = max(1, int(np.gcd.reduce(steps))) if len(steps) else 1
    first, last = recorded["time_span"]
    decoder = cast(Any, recorded["decoder"] or "auto")
    video = Video.read(path, start=first, end=float(np.nextafter(last, np.inf)), stride=step, decoder=decoder)
    assert video.frame_indices is not None
    chosen = np.isin(video.frame_indices, indices)
    return replace(
        video,
        frames=video.frames[chosen],
        timestamps=video.timestamps[chosen],
        frame_indices=video.frame_indices[chosen],
        fps=recorded["fps"],
    )


def _layout(record: Mapping[str, Any]) -> Layout | None:
    return None if record.get("layout") is None else Layout.from_json(record["layout"])


def _paragraph(content: Mapping[str, Any] | None) -> Paragraph | None:
    return None if content is None else Paragraph.from_json(content)


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = [*then, *(name for name in now if name not in then)]
    return [
        f"{name}: {then.get(name, 'none')} -> {now.get(name, 'none')}"
        for name in names
        if then.get(name) != now.get(name)
    ]
