"""Decoding: files and in-memory clips to frames."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video file is."""

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


def probe(path: str | Path) -> VideoInfo:
    """Look at a file without decoding it."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        cc = stream.codec_context
        fps = float(stream.average_rate)
        return VideoInfo(
            stream.frames,
            cc.height,
            cc.width,
            fps,
            stream.frames / fps,
            bool(container.streams.audio),
            cc.name,
            cc.pix_fmt,
            0,
            False,
        )


def read_frames(path, start, end, stride, max_frames, decoder, max_bytes):  # noqa
    frames, times = [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate)
        for n, frame in enumerate(container.decode(stream)):
            if n % stride == 0:
                frames.append(frame.to_ndarray(format="rgb24"))
                times.append(frame.time)
    return np.stack(frames), fps, np.array(times), np.arange(len(frames)) * stride, "pyav"


def decode_bytes(
    data: bytes, frame_indices: Sequence[int] | None, num_threads: int
) -> tuple[NDArray[np.uint8], float, NDArray[np.float64], NDArray[np.int64]]:
    """Decode an in-memory clip."""
    frames, times = [], []
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = num_threads
        fps = float(stream.average_rate)
        for frame in container.decode(stream):
            frames.append(frame.to_ndarray(format="rgb24"))
            times.append(frame.time)
    indices = np.arange(len(frames)) if frame_indices is None else np.asarray(frame_indices, dtype=np.int64)
    return np.stack([frames[i] for i in indices]), fps, np.asarray(times)[indices], indices
