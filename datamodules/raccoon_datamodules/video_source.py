"""What a video file is: opening it with clear errors, the index of its frames, its orientation.

The index is made by reading through the file's packets once, without decoding. It fixes the number of frames and their
presentation times, exactly (as whole numbers of the stream's time base), whichever decoder then makes the pictures.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.video_claims import check_file_counts, check_picture

_log = logging.getLogger(__name__)

# Demuxers that open anything: a picture, or text drawn as a terminal.
_NO_VIDEO_FORMATS = ("_pipe", "image2", "tty")


@dataclass(frozen=True, slots=True, eq=False)
class FrameIndex:
    """The frames of a file in presentation order: ``pts`` int64 [N] in ``time_base``, ``keys`` bool [N].

    ``plain`` is False where some packet is decoded but not shown (an edit list cuts it off).
    """

    pts: NDArray[np.int64]
    keys: NDArray[np.bool_]
    time_base: Fraction
    plain: bool

    @property
    def seconds(self) -> NDArray[np.float64]:
        """Presentation times float64 [N], each the nearest double to its exact value."""
        return seconds_of(self.pts, self.time_base)


def seconds_of(pts: NDArray[np.int64], time_base: Fraction) -> NDArray[np.float64]:
    """Times in seconds, correctly rounded while pts * numerator stays under 2^53 (285 000 years at 1/1000 s)."""
    return (pts * time_base.numerator).astype(np.float64) / time_base.denominator


@contextmanager
def open_source(path: Path) -> Iterator[Any]:
    """Open a video file with PyAV; the container has at least one real video stream.

    Raises:
        FileNotFoundError: if there is nothing at path.
        ValueError: if it is a folder, empty, no video, cut off before its index, holds sound only, or claims what
            cannot be.
        PermissionError: if it may not be read.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no video at {path}: check the name")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, a video file is needed")
    if not os.access(path, os.R_OK):
        raise PermissionError(f"no permission to read {path}: change its rights (chmod u+r) or copy it")
    if path.is_file() and path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes): copy or download it again")
    check_file_counts(path)
    try:
        container = av.open(os.fspath(path))
    except PermissionError as err:
        raise PermissionError(f"no permission to read {path}: change its rights (chmod u+r) or copy it") from err
    except (av.error.FFmpegError, UnicodeError) as err:
        with path.open("rb") as file:
            is_mp4 = file.read(12)[4:8] == b"ftyp"
        if is_mp4:
            text = f"{path} has no index: it is cut off or was never finished; copy or record it again"
        else:
            text = f"{path} is not a video that can be read ({path.stat().st_size} bytes): mp4, mov, mkv, webm, avi do"
        raise ValueError(text) from err
    with container:
        if container.format.name.endswith(_NO_VIDEO_FORMATS) or not container.streams.video:
            kind = "sound only" if container.streams.audio else f"no video ({container.format.name})"
            raise ValueError(f"{path} holds {kind}: a file with moving pictures is needed")
        if video_stream(container) is None:
            raise ValueError(f"{path} holds sound and a cover picture only: a file with moving pictures is needed")
        context = video_stream(container).codec_context
        if context is not None:
            check_picture(context.height, context.width, str(path))
        yield container


def video_stream(container: Any) -> Any:
    """The first video stream that is not a cover picture, or None."""
    cover = av.stream.Disposition.attached_pic
    return next((stream for stream in container.streams.video if not stream.disposition & cover), None)


def read_index(container: Any, path: Path) -> FrameIndex | None:
    """Read through the packets of the video stream; leaves the container at its end.

    Returns None where packets do not carry usable times (some AVI files): only decoding tells then.

    Raises:
        ValueError: if the file ends before the frames it announces.
    """
    stream = video_stream(container)
    pts, keys, hidden, untimed, damaged = [], [], 0, 0, 0
    try:
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            damaged += packet.is_corrupt
            if packet.is_discard:
                hidden += 1
            elif packet.pts is None:
                untimed += 1
            else:
                pts.append(packet.pts)
                keys.append(packet.is_keyframe)
    except av.error.FFmpegError:
        damaged += 1
    found = len(pts) + hidden + untimed
    _refuse_truncated(container, stream, path, found - damaged, pts, damaged)
    if untimed or len(set(pts)) != len(pts):
        return None
    order = np.argsort(np.asarray(pts, dtype=np.int64), kind="stable")
    return FrameIndex(np.asarray(pts, dtype=np.int64)[order], np.asarray(keys)[order], stream.time_base, hidden == 0)


def _refuse_truncated(container: Any, stream: Any, path: Path, whole: int, pts: list[int], damaged: int) -> None:
    announced = stream.frames if "mp4" in container.format.name else 0
    if whole < announced:
        raise truncated(path, whole, f"{announced} frames")
    # Matroska announces a duration instead, and a cut file ends without an error.
    told = stream.metadata.get("DURATION", "")
    if "matroska" in container.format.name and told and pts:
        hours, minutes, seconds = told.split(":")
        end = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        reached = float(max(pts) * stream.time_base)
        if reached < end - max(5 * (reached - float(min(pts) * stream.time_base)) / len(pts), 0.5):
            raise truncated(path, whole, f"{end:g} s (it stops at {reached:g} s)")
    if not whole:
        raise ValueError(f"{path} holds no video frame: copy or record it again")
    if damaged:
        raise truncated(path, whole, "more")


def truncated(path: Path, got: int, announced: str) -> ValueError:
    """The one sentence about a file that breaks off or is damaged."""
    return ValueError(
        f"{path} is cut off or damaged: {got} frames can be read, {announced} announced; copy or download it again, "
        "or repair it (ffmpeg -i in.mp4 -c copy out.mp4 keeps the readable part)"
    )


def mean_rate(stream: Any, seconds: NDArray[np.float64]) -> Fraction:
    """Average frames per second as the file states it, else from the times of its frames, else 25 for a single one."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate:
            return Fraction(rate)
    if len(seconds) > 1:
        return Fraction((len(seconds) - 1) / (seconds[-1] - seconds[0])).limit_denominator(1001)
    return Fraction(25)


def first_frame(container: Any, path: Path) -> Any:
    """Decode one frame, from wherever the container stands.

    Raises:
        ValueError: if nothing can be decoded.
    """
    try:
        for frame in container.decode(video_stream(container)):
            return frame
    except av.error.FFmpegError as err:
        raise truncated(path, 0, "more") from err
    raise truncated(path, 0, "more")


def undamaged_frames(container: Any, path: Path, *, since: int | None = None) -> Iterator[Any]:
    """Decode frames from where the container stands; those shown before ``since`` (pts) may be damaged.

    After a jump to a key frame, frames that are shown before it lean on what was jumped over.

    Raises:
        ValueError: if the decoder stops or marks a frame as damaged.
    """
    count = 0
    try:
        for frame in container.decode(video_stream(container)):
            if frame.is_corrupt and (since is None or frame.pts is None or frame.pts >= since):
                raise truncated(path, count, "more")
            yield frame
            count += 1
    except av.error.FFmpegError as err:
        raise truncated(path, count, "more") from err


def decode_all_times(path: Path) -> NDArray[np.float64]:
    """Presentation times float64 [N] of a file whose packets do not tell: by decoding it.

    Where the frames have no increasing times either, frame number over fps; logged.
    """
    with open_source(path) as container:
        stream = video_stream(container)
        times = [frame.time for frame in undamaged_frames(container, path)]
        if not times:
            raise truncated(path, 0, "more")
        rate = float(mean_rate(stream, np.zeros(0)))
    if all(time is not None for time in times):
        seconds = np.asarray(times, dtype=np.float64)
        if (np.diff(seconds) > 0).all():
            return seconds
    _log.warning("%s has no increasing presentation times, %g frames per second are assumed", path, rate)
    return np.arange(len(times)) / rate


def last_duration(seconds: NDArray[np.float64], fps: float) -> float:
    """How long the last frame is shown, so that the number of frames over the whole length is fps again.

    Where that is far (5 times) from the usual step, the usual step.
    """
    usual = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1 / fps
    rest = len(seconds) / fps - float(seconds[-1] - seconds[0])
    return rest if usual / 5 <= rest <= usual * 5 else usual
