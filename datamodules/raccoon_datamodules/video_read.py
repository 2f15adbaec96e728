"""Decoding: video files and in-memory clips to frames uint8 [F, H, W, 3] RGB, the way they are shown.

Which decoder: ``auto`` is decord for the files on which it gives the same bits as PyAV (8-bit 4:2:0, 4:2:2, 4:4:4 and
RGB, not rotated, at least 80 pixels wide, nothing cut off by an edit list) and PyAV for the rest, and where decord is
not installed or fails. Times always come from `video_source.read_index`: decord's own are float32, shifted to 0, and
wrong for files of variable rate that start late.

decord deadlocks in forked workers when its threads were started before the fork, so every reader is opened and closed
within one call, and small clips (under 64 MiB) are decoded with one thread.
"""

import importlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from raccoon_datamodules.video_orientation import display_matrix, orient
from raccoon_datamodules.video_source import (
    FrameIndex,
    decode_all_times,
    first_frame,
    mean_rate,
    open_source,
    read_index,
    truncated,
    undamaged_frames,
    video_stream,
)

Decoder = Literal["auto", "decord", "pyav", "torchcodec"]

# What swscale converts alike in decord's FFmpeg and in PyAV's, so that both give the same bits.
_SAME_IN_BOTH = frozenset(
    {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gbrp", "bgr0", "rgb24"}
)
# For the others swscale's default path is 2 levels too dark; this one is right to 0.03.
_ACCURATE = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_SMALL = 64 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class DecodedFrames:
    """What a reader gives: the fields of a `Video`."""

    frames: NDArray[np.uint8]
    fps: float
    timestamps: NDArray[np.float64]
    frame_indices: NDArray[np.int64]
    decoder: str


def read_frames(
    path: str | Path,
    *,
    start: float | None = None,
    end: float | None = None,
    stride: int = 1,
    max_frames: int | None = None,
    indices: Sequence[int] | None = None,
    decoder: Decoder = "auto",
    max_bytes: int = 8 << 30,
) -> DecodedFrames:
    """Decode a file or a part of it; see `Video.read` for what the arguments mean and what is raised.

    ``indices`` names the frames instead (rising numbers in the file); the window must then be left open. ValueError if
    one is not there.
    """
    path = Path(path)
    _check_bounds(start, end, stride, max_frames, decoder)
    with open_source(path) as container:
        first = first_frame(container, path)
        matrix, stored, pix_fmt = display_matrix(first), (first.height, first.width), first.format.name
    with open_source(path) as container:
        index = read_index(container, path)
        stream = video_stream(container)
        seconds = index.seconds if index is not None else decode_all_times(path)
        rate = float(mean_rate(stream, seconds))
    chosen = choose(seconds, start, end, stride, max_frames, path)
    if indices is not None:
        chosen = _checked(indices, len(seconds), path)
    height, width = stored[::-1] if matrix and matrix[0] == 0 else stored
    size = len(chosen) * height * width * 3
    if size > max_bytes:
        raise ValueError(
            f"{path} would take {size / 1e9:.2f} GB in memory ({len(chosen)} frames of {width}x{height}), more than "
            f"max_bytes allows ({max_bytes / 1e9:.2f} GB): read a part (start, end), fewer frames (stride, "
            "max_frames), or raise max_bytes"
        )
    frames = np.empty((len(chosen), height, width, 3), dtype=np.uint8)
    name = _decode(path, decoder, index, chosen, frames, matrix, pix_fmt)
    available = len(seconds) if start is None and end is None else len(choose(seconds, start, end, 1, None, path))
    kept = len(chosen) / available if (stride > 1 or max_frames is not None or indices is not None) else 1.0
    return DecodedFrames(frames, rate * kept, seconds[chosen], chosen, name)


def _checked(indices: Sequence[int], count: int, path: Path) -> NDArray[np.int64]:
    chosen = np.asarray(indices, dtype=np.int64)
    if not chosen.size or chosen[0] < 0 or chosen[-1] >= count or (np.diff(chosen) <= 0).any():
        raise ValueError(f"frame numbers must rise within [0, {count}) for {path}, got {chosen.tolist()[:20]}")
    return chosen


def _check_bounds(start: float | None, end: float | None, stride: int, max_frames: int | None, decoder: str) -> None:
    if decoder not in ("auto", "decord", "pyav", "torchcodec"):
        raise ValueError(f"decoder must be auto, decord, pyav or torchcodec, got {decoder!r}")
    if stride < 1:
        raise ValueError(f"stride must be at least 1 (every frame), got {stride}")
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"max_frames must be at least 1, or None for all, got {max_frames}")
    if start is not None and end is not None and not start < end:
        raise ValueError(f"start must come before end, got start {start} s and end {end} s")


def choose(
    seconds: NDArray[np.float64],
    start: float | None,
    end: float | None,
    stride: int,
    max_frames: int | None,
    path: Path,
) -> NDArray[np.int64]:
    """Pick frames: those with start <= time < end, every stride-th of them, at most max_frames of those.

    More than ``max_frames`` = m: the middles of m equal segments, floor((i + 1/2) n / m) of n.

    Raises:
        ValueError: if no frame lies in the window.
    """
    inside = np.flatnonzero(
        (seconds >= (-np.inf if start is None else start)) & (seconds < (np.inf if end is None else end))
    )
    if not inside.size:
        raise ValueError(
            f"no frame of {path} lies between start {start} s and end {end} s: "
            f"its {len(seconds)} frames are shown from {seconds[0]:.3f} to {seconds[-1]:.3f} s"
        )
    inside = inside[::stride]
    if max_frames is not None and max_frames < len(inside):
        inside = inside[(2 * np.arange(max_frames) + 1) * len(inside) // (2 * max_frames)]
    return inside.astype(np.int64)


def _decode(
    path: Path,
    decoder: Decoder,
    index: FrameIndex | None,
    chosen: NDArray[np.int64],
    out: NDArray[np.uint8],
    matrix: tuple[int, int, int, int] | None,
    pix_fmt: str,
) -> str:
    """Fill ``out`` with the chosen frames; return the name of the decoder that did it."""
    if decoder == "decord" and matrix is not None and matrix[0] * matrix[3] - matrix[1] * matrix[2] < 0:
        raise RuntimeError(f"decord cannot read {path} (it does not mirror, as this file asks): use --decoder pyav")
    if decoder == "decord" or (
        decoder == "auto" and _decord_fits(path, index, matrix is not None, pix_fmt, out.shape[2])
    ):
        try:
            _decode_decord(path, index, chosen, out)
            return "decord"
        except (RuntimeError, ImportError) as err:
            reason = str(err).strip().splitlines()[-1][-160:] if str(err).strip() else type(err).__name__
            if decoder == "decord":
                raise RuntimeError(f"decord cannot read {path} ({reason}): use --decoder pyav") from err
            _log.warning("decord cannot read %s (%s), PyAV decodes it", path, reason)
    if decoder == "torchcodec":
        _decode_torchcodec(path, chosen, out, matrix)
        return "torchcodec"
    _decode_pyav(path, index, chosen, out)
    return "pyav"


def _decord_fits(path: Path, index: FrameIndex | None, is_turned: bool, pix_fmt: str, width: int) -> bool:
    # decord turns rotated pictures but fails where their rows are padded, and does not mirror.
    # It also fails on the widths 16, 24, 48 and 72, likewise by their padding.
    if width < 80 or index is None or not index.plain or is_turned or pix_fmt not in _SAME_IN_BOTH:
        _log.info("%s (%s) is decoded by PyAV: decord would fail or give other frames", path, pix_fmt)
        return False
    try:
        importlib.import_module("decord")
    except (ImportError, OSError):
        return False
    return True


def _decode_decord(path: Path, index: FrameIndex | None, chosen: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
    decord: Any = importlib.import_module("decord")
    # decord's FFmpeg prints to stderr by itself; what goes wrong is raised below.
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(str(path), num_threads=1 if out.nbytes < _SMALL else 0)
        if index is not None and len(reader) != len(index.pts):
            raise RuntimeError(f"it counts {len(reader)} frames, the file holds {len(index.pts)}")
        # In pieces, so that the frames are in memory only once.
        for first in range(0, len(chosen), 16):
            piece = reader.get_batch(chosen[first : first + 16].tolist()).asnumpy()
            if piece.shape[1:] != out.shape[1:]:
                raise RuntimeError(f"it gives pictures of {piece.shape[2]}x{piece.shape[1]}")
            out[first : first + 16] = piece
    except getattr(decord, "DECORDError", RuntimeError) as err:
        # decord's own error is a bare Exception.
        raise RuntimeError(str(err)) from err
    finally:
        decord.logging.set_level(decord.logging.ERROR)


def _decode_torchcodec(
    path: Path, chosen: NDArray[np.int64], out: NDArray[np.uint8], matrix: tuple[int, int, int, int] | None
) -> None:
    try:
        decoders = importlib.import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError) as err:
        raise RuntimeError(
            f"torchcodec was asked for but cannot be imported ({type(err).__name__}): install it (pip install "
            "torchcodec, with FFmpeg's libraries) or use --decoder auto"
        ) from err
    if matrix is not None:
        raise RuntimeError(f"{path} is rotated, which versions of torchcodec treat differently: use --decoder pyav")
    try:
        reader = decoders.VideoDecoder(str(path), dimension_order="NHWC")
        out[:] = reader.get_frames_at(indices=chosen.tolist()).data.cpu().numpy()
    except (RuntimeError, ValueError, IndexError) as err:
        raise RuntimeError(f"torchcodec cannot read {path} ({err}): use --decoder pyav") from err


def to_rgb(frame: Any) -> NDArray[np.uint8]:
    """A decoded PyAV frame to uint8 [H, W, 3] RGB as stored, by the file's own colour tags (untagged: BT.601)."""
    if frame.format.name == "gbrp":
        # The planes as they are: no conversion, and twice as fast.
        return frame.to_ndarray()
    if frame.format.name in _SAME_IN_BOTH:
        return frame.to_ndarray(format="rgb24")
    return frame.reformat(format="rgb24", interpolation=_ACCURATE).to_ndarray()


def _decode_pyav(path: Path, index: FrameIndex | None, chosen: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
    """Decode the chosen frames, jumping to key frames where that skips something."""
    wanted = {int(n if index is None else index.pts[n]): slot for slot, n in enumerate(chosen)}
    got = np.zeros(len(chosen), dtype=bool)
    for key, frame in _walk(path, index, chosen):
        slot = wanted.get(key)
        if slot is None:
            continue
        picture = orient(to_rgb(frame), display_matrix(frame))
        if picture.shape != out.shape[1:]:
            raise ValueError(
                f"the pictures of {path} must have one size, frame {int(chosen[slot])} is "
                f"{picture.shape[1]}x{picture.shape[0]}, the first {out.shape[2]}x{out.shape[1]}: re-encode it"
            )
        out[slot] = picture
        got[slot] = True
        if got.all():
            return
    raise truncated(path, int(got.sum()), f"{len(chosen)} frames were")


def _walk(path: Path, index: FrameIndex | None, chosen: NDArray[np.int64]) -> Iterator[tuple[int, Any]]:
    """Decoded frames with their keys: the pts, or the running number where the file has no usable times."""
    with open_source(path) as container:
        stream = video_stream(container)
        stream.thread_type = "AUTO"
        if index is None:
            yield from enumerate(undamaged_frames(container, path))
            return
        keys = np.flatnonzero(index.keys)
        # The last key frame that is not shown after each chosen frame.
        origin = np.maximum(np.searchsorted(keys, chosen, side="right") - 1, 0)
        position = 0
        while position < len(chosen):
            begin = int(keys[origin[position]]) if len(keys) else 0
            last = position
            # One run: as long as the next wanted frame lies before, or in, the group after this one.
            while last + 1 < len(chosen) and origin[last + 1] <= origin[last] + 1:
                last += 1
            if begin > 0:
                container.seek(int(index.pts[begin]), stream=stream, backward=True)
            elif position:
                container.seek(int(index.pts[0]), stream=stream, backward=True)
            for frame in undamaged_frames(container, path, since=int(index.pts[begin])):
                yield frame.pts, frame
                if frame.pts is not None and frame.pts >= index.pts[chosen[last]]:
                    break
            position = last + 1
