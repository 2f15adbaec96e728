"""`probe`: what a video file is, without decoding it."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.video_orientation import degrees, display_matrix
from raccoon_datamodules.video_source import (
    FrameIndex,
    decode_all_times,
    first_frame,
    last_duration,
    mean_rate,
    open_source,
    read_index,
    video_stream,
)


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What `probe` tells about a file; sizes are those of the picture as it is shown, after rotation.

    ``fps`` is the average; ``duration`` in seconds from the first frame to the end of the last; ``start`` the first
    frame's presentation time in seconds; ``rotation`` degrees clockwise from the stored to the shown picture;
    ``is_variable_rate``: some frame is shown longer than others by more than the file's clock can explain.
    """

    num_frames: int
    height: int
    width: int
    fps: float
    duration: float
    has_sound: bool
    codec: str
    pix_fmt: str
    rotation: int
    is_variable_rate: bool
    start: float
    time_base: Fraction


def probe(path: str | Path) -> VideoInfo:
    """Look at a video file: its packets are read once, one frame is decoded (for the orientation).

    Raises:
        FileNotFoundError, PermissionError, ValueError: as `open_source`; ValueError if the file is cut off.
    """
    path = Path(path)
    with open_source(path) as container:
        frame = first_frame(container, path)
        matrix = display_matrix(frame)
        shown = (frame.width, frame.height) if matrix and matrix[0] == 0 else (frame.height, frame.width)
        stream = video_stream(container)
        codec, pix_fmt = stream.codec_context.name, stream.codec_context.pix_fmt or frame.format.name
        has_sound = bool(container.streams.audio)
    with open_source(path) as container:
        stream, index = video_stream(container), read_index(container, path)
        seconds = index.seconds if index is not None else np.zeros(0)
        fps = mean_rate(stream, seconds)
    if index is None:
        seconds = decode_all_times(path)
    return VideoInfo(
        num_frames=len(seconds),
        height=shown[0],
        width=shown[1],
        fps=float(fps),
        duration=float(seconds[-1] - seconds[0]) + last_duration(seconds, float(fps)),
        has_sound=has_sound,
        codec=codec,
        pix_fmt=pix_fmt,
        rotation=degrees(matrix),
        is_variable_rate=_varies(seconds, float(_tick(index))),
        start=float(seconds[0]),
        time_base=_tick(index),
    )


def _tick(index: FrameIndex | None) -> Fraction:
    """The time base of an index; a millisecond where there is none."""
    return index.time_base if index is not None else Fraction(1, 1000)


def _varies(seconds: NDArray[np.float64], tick: float) -> bool:
    steps = np.diff(seconds)
    if not steps.size:
        return False
    middle = float(np.median(steps))
    return bool(np.abs(steps - middle).max() > max(1.01 * tick, 0.01 * middle))
