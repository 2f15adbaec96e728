"""Writing a result: the video and its sidecar appear together, after the written file was read again and checked."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raccoon.editor.paste import ContractBroken, max_error_outside, psnr_outside
from raccoon.editor.request import EditResult
from raccoon.provenance import (
    hash_array,
    hash_file,
    indices_to_json,
    machine,
    mask_to_json,
    read_sidecar,
    sidecar_path,
    versions,
    write_sidecar,
)
from raccoon_datamodules.atomic import FULL, check_writable, disk_full, replacing
from raccoon_datamodules.video import Video, probe, time_precision

# What `Video.write` takes.
SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")
# Of a timestamp, in seconds, beyond what the container itself rounds: decoders count in float32.
_TIME_TOLERANCE = 1e-4
_FPS_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class EncodedReport:
    """What the written file holds, read back from it.

    ``timestamps_error`` largest deviation in seconds, both clips counted from their first frame;
    ``max_error_outside`` in [0, 255] and ``psnr_outside`` in dB compare it with the source where nothing was edited:
    that is what the codec costs. ``psnr_outside`` is None where every pixel is equal.
    """

    path: Path
    file_bytes: int
    num_frames: int
    height: int
    width: int
    fps: float
    timestamps_error: float
    has_sound: bool
    lossless: bool
    max_error_outside: int
    psnr_outside: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON, without the path."""
        return {key: value for key, value in asdict(self).items() if key != "path"}


def check_output(out: str | Path, *, source: Path | None = None, overwrite: bool = False, sidecar: bool = True) -> None:
    """Raise what `write_result` would raise about its place, before anything is computed.

    Raises:
        ValueError: if the suffix is another than `SUFFIXES`, or the result would replace its own source or, as its
            sidecar, a file that is no sidecar.
        FileExistsError: if the video or the sidecar exists and ``overwrite`` is False.
        FileNotFoundError, NotADirectoryError, IsADirectoryError: as `raccoon_datamodules.atomic.check_writable` says.
    """
    out = Path(out)
    if out.is_dir():
        raise IsADirectoryError(f"{out} is a folder, a file name is needed: {out / 'out.mp4'}")
    if out.suffix.lower() not in SUFFIXES:
        raise ValueError(f"a video is written as {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, got {out}")
    check_writable(out, overwrite=overwrite)
    if source is not None and out.exists() and source.exists() and out.samefile(source):
        raise ValueError(f"the result would replace its own source {out}; choose another name")
    if not sidecar:
        return
    beside = sidecar_path(out)
    if beside.exists() and overwrite:
        try:
            owner = read_sidecar(beside)["output"]["name"]
        except (ValueError, KeyError, TypeError):
            owner = "something else"
        if owner != out.name:
            raise ValueError(
                f"the sidecar would replace {beside}, which belongs to {owner}; choose another name for the video, or "
                "write it without a sidecar (--no-sidecar)"
            )
    check_writable(beside, overwrite=overwrite)


def write_result(
    result: EditResult,
    out: str | Path,
    *,
    lossless: bool = False,
    crf: int = 18,
    overwrite: bool = False,
    sidecar: bool = True,
) -> EncodedReport:
    """Write the edited video and, unless told otherwise, its sidecar ``OUT.json``: both or neither.

    Without ``sidecar``, that of a video which is replaced goes with it.

    The file is read again under a temporary name before it takes its own: size, number of frames, frame rate,
    timestamps and presence of sound must be the source's, and with ``lossless`` every pixel outside the region.

    Raises:
        ContractBroken: if the written file does not keep that; nothing is left behind.
        ValueError, FileExistsError...: as `check_output` says.
        OSError: if the disk is full, naming the video, or the place cannot be written.
    """
    out = Path(out)
    check_output(out, source=result.source.path, overwrite=overwrite, sidecar=sidecar)
    if not sidecar:
        with replacing(out, overwrite=overwrite) as video_part:
            report = _encode(result, video_part, out, lossless=lossless, crf=crf)
        if overwrite and _is_sidecar_of(sidecar_path(out), out):
            # It speaks of the video that was replaced.
            sidecar_path(out).unlink()
        return report
    existed, video_stands = out.exists(), False
    try:
        with replacing(sidecar_path(out), overwrite=overwrite) as json_part:
            with replacing(out, overwrite=overwrite) as video_part:
                report = _encode(result, video_part, out, lossless=lossless, crf=crf)
                write_sidecar(sidecar_of(result, report, hash_file(video_part)), json_part)
            video_stands = True
        return report
    except BaseException as err:
        # The sidecar could not take its name although the video did: a video alone would look finished.
        if video_stands and not existed:
            out.unlink(missing_ok=True)
        # By its own name: on the way here it was called after a temporary file and the sidecar.
        if isinstance(err, OSError) and err.errno in FULL:
            raise disk_full(out, err) from err
        raise


def inspect_encoded(
    path: Path, source: Video, region: NDArray[np.uint8], *, lossless: bool, shown: Path | None = None
) -> EncodedReport:
    """Read a written video and compare it with its source; ``shown`` is the name to call it by.

    Raises:
        ContractBroken: lists everything that was not kept.
    """
    shown = shown or path
    written = Video.read(path)
    faults = []
    if written.size != source.size:
        faults.append(f"size {written.height}x{written.width} instead of {source.height}x{source.width}")
    if written.num_frames != source.num_frames:
        faults.append(f"{written.num_frames} frames instead of {source.num_frames}")
    if abs(written.fps - source.fps) > _FPS_TOLERANCE * source.fps:
        faults.append(f"{written.fps:.4g} frames per second instead of {source.fps:.4g}")
    has_sound = probe(path).has_sound
    had_sound = source.path is not None and source.path.is_file() and probe(source.path).has_sound
    if has_sound != had_sound:
        faults.append("no sound, although the source has it" if had_sound else "sound, although the source has none")
    if written.size != source.size or written.num_frames != source.num_frames:
        raise ContractBroken(_broken(shown, faults))
    drift = (written.timestamps - written.timestamps[0]) - (source.timestamps - source.timestamps[0])
    timestamps_error = float(np.abs(drift).max())
    # Both the first frame's time and the other's may be rounded.
    if timestamps_error > 2 * time_precision(path) + _TIME_TOLERANCE:
        faults.append(f"timestamps that are off by up to {timestamps_error:.4g} s")
    error = max_error_outside(source.frames, written.frames, region)
    if lossless and error:
        faults.append(f"pixels outside the mask that differ by up to {error} of 255, although it is lossless")
    if faults:
        raise ContractBroken(_broken(shown, faults))
    return EncodedReport(
        path=shown,
        file_bytes=path.stat().st_size,
        num_frames=written.num_frames,
        height=written.height,
        width=written.width,
        fps=written.fps,
        timestamps_error=timestamps_error,
        has_sound=has_sound,
        lossless=lossless,
        max_error_outside=error,
        psnr_outside=psnr_outside(source.frames, written.frames, region),
    )


def sidecar_of(result: EditResult, report: EncodedReport, output_hash: str) -> dict[str, Any]:
    """Return the content of the sidecar; its fields are described in `raccoon.provenance`."""
    source = result.source
    indices = np.arange(source.num_frames) if source.frame_indices is None else source.frame_indices
    is_file = source.path is not None and source.path.is_file()
    edits = [
        {
            "kind": step.edit.kind,
            "name": step.edit.name,
            "prompt": step.prompt,
            "mask_from": step.mask_from,
            "mask_path": None if step.mask_path is None else str(step.mask_path.absolute()),
            "layout": None if step.layout is None else step.layout.to_json(),
            "notes": list(step.notes),
        }
        for step in result.steps
    ]
    return {
        "output": {"name": report.path.name, "sha256": output_hash, **report.to_json()},
        "source": {
            "path": None if source.path is None else str(source.path.absolute()),
            "sha256": hash_file(source.path) if is_file and source.path is not None else None,
            "decoder": source.decoder,
            "frame_indices": indices_to_json(indices),
            "time_span": [float(source.timestamps[0]), float(source.timestamps[-1])],
            "fps": source.fps,
            "shape": list(source.frames.shape),
            "frames_sha256": hash_array(source.frames),
        },
        "before": None if result.before is None else result.before.to_json(),
        "after": None if result.after is None else result.after.to_json(),
        "plan": result.plan.to_json(),
        "edits": edits,
        "seed": result.seed,
        "size": None if result.size is None else list(result.size),
        "options": {part: dict(given) for part, given in result.options.items()},
        "grow": result.grow,
        "feather": result.feather,
        **result.facts,
        "measurements": asdict(result.measurements),
        "result": {"frames_sha256": hash_array(result.video.frames)},
        "versions": versions(),
        "machine": machine(),
        # Last, because nobody reads them: the rest of the file fits on a screen.
        "masks": [mask_to_json(step.mask) for step in result.steps],
    }


def _encode(result: EditResult, path: Path, out: Path, *, lossless: bool, crf: int) -> EncodedReport:
    result.video.write(path, lossless=lossless, crf=crf, overwrite=True)
    try:
        return inspect_encoded(path, result.source, result.region, lossless=lossless, shown=out)
    except ContractBroken as err:
        raise ContractBroken(f"{err}; nothing was written") from err


def _is_sidecar_of(path: Path, video: Path) -> bool:
    try:
        return bool(read_sidecar(path)["output"]["name"] == video.name)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _broken(path: Path, faults: list[str]) -> str:
    return f"{path} does not keep what it must of the source, it has {' and '.join(faults)}"
