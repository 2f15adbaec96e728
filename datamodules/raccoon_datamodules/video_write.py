"""Encoding: frames to files and in-memory clips."""

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av


def _encode(video: Any, target: Any, name: str, codec: str, pix_fmt: str, options: dict[str, str]) -> None:
    rate = Fraction(video.fps).limit_denominator(1001)
    with av.open(target, "w", format=name) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = video.height, video.width, pix_fmt
        for array in video.frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(array, "rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def write_video(video: Any, path: Path, *, lossless: bool, crf: int, overwrite: bool, sound_from: Path | None) -> None:
    """Write a file."""
    if lossless and path.suffix == ".mkv":
        _encode(video, str(path), "matroska", "ffv1", "bgr0", {})
    elif lossless:
        _encode(video, str(path), "mp4", "libx264rgb", "rgb24", {"crf": "0"})
    else:
        odd = video.height % 2 or video.width % 2
        _encode(video, str(path), "mp4", "libx264", "yuv444p" if odd else "yuv420p", {"crf": str(crf)})


def encode_bytes(video: Any) -> bytes:
    """Encode losslessly in memory."""
    buffer = io.BytesIO()
    _encode(video, buffer, "mp4", "libx264rgb", "rgb24", {"crf": "0", "threads": "1"})
    return buffer.getvalue()
