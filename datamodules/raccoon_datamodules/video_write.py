"""Encoding: frames to a video file or an in-memory clip, with their exact presentation times and the source's sound.

What is written:

- ``.mp4 .m4v .mov``: H.264. 4:2:0 where both sides are even, else 4:4:4 (also for a 4:4:4 source);
  lossless: libx264rgb at crf 0, which decord and PyAV read back bit for bit;
- ``.mkv``: H.264, or lossless FFV1 (bgr0), bit for bit too. Matroska as FFmpeg writes it keeps whole milliseconds, so
  times that are not are rounded to the nearest; mp4 and mov keep them exactly.

Colour: the source's tags (matrix, range, primaries, transfer) are kept, untagged stays untagged; frames that come from
nowhere are tagged BT.709, limited range. swscale's fast conversion from 4:2:0, which both decoders use, is about one
level too dark; so two rounds of correction choose the luma that is *read back* right (measured on a real clip: 45.3 dB
before compression without, 59.9 dB with it, and the source's own luma to 0.01).
"""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from raccoon_datamodules.atomic import replacing
from raccoon_datamodules.video_orientation import display_matrix
from raccoon_datamodules.video_read import to_rgb
from raccoon_datamodules.video_sound import SoundCopy, open_sound
from raccoon_datamodules.video_source import (
    first_frame,
    last_duration,
    mean_rate,
    open_source,
    read_index,
    seconds_of,
    video_stream,
)

if TYPE_CHECKING:
    from raccoon_datamodules.video import Video

_MP4_SUFFIXES = (".mp4", ".m4v", ".mov")
_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
# Colour matrices by AVColorSpace number: luma weights of red and blue, and swscale's number of the matrix.
_MATRICES = {1: (0.2126, 0.0722, 1), 4: (0.30, 0.11, 4), 5: (0.299, 0.114, 5), 6: (0.299, 0.114, 5)}
_MATRICES |= {2: (0.299, 0.114, 5), 7: (0.212, 0.087, 7), 9: (0.2627, 0.0593, 9), 10: (0.2627, 0.0593, 9)}
_TO_YUV = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
_CORRECTIONS = 2
# OpenCV's number of this instruction set; its Python module names none.
_AVX_512F = 13


@dataclass(frozen=True, slots=True)
class Colour:
    """Colour tags as FFmpeg numbers them; 2 (range: 0) is "not said"."""

    matrix: int = 1
    range: int = 1
    primaries: int = 1
    transfer: int = 1


@dataclass(frozen=True, slots=True)
class Origin:
    """What the file a clip was read from says about how to write it."""

    time_base: Fraction
    rate: Fraction
    colour: Colour
    is_full_chroma: bool
    pixel_aspect: Fraction | None
    num_frames: int


def write_video(
    video: "Video", path: Path, *, lossless: bool, crf: int, overwrite: bool, sound_from: Path | None
) -> None:
    """Write a file; see `Video.write`."""
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise ValueError(f"a video is written as {', '.join(_FORMATS)}, got {path.name!r}: change its ending")
    if not 0 <= crf <= 51:
        raise ValueError(f"crf must lie in 0 (best) to 51 (smallest), got {crf}")
    if sound_from is not None and not Path(sound_from).exists():
        raise FileNotFoundError(f"there is no file at {sound_from} to take the sound from: check the name")
    with replacing(path, overwrite=overwrite) as temporary:
        origin = _origin(video.path)
        shift, window = _window(video, origin)
        source = video.path if sound_from is None else Path(sound_from)
        if source != video.path:
            window = (-np.inf, np.inf)
        with open_sound(source if source is not None and source.exists() else None, shift, window) as sound:
            if sound_from is not None and not sound.streams:
                raise ValueError(f"the sound of {sound_from} cannot be read, it holds none: name another file")
            options = {"avoid_negative_ts": "disabled"} if suffix == ".mkv" else {"movflags": "+faststart"}
            plan = _plan(video, origin, shift, suffix, lossless, crf)
            _encode(video, str(temporary), plan, sound=sound, options=options, name=path)
        _verify(temporary, plan, path)


def encode_bytes(video: "Video", crf: int | None = None) -> bytes:
    """Encode in memory; see `encode_clip`."""
    if crf is not None and not 0 <= crf <= 51:
        raise ValueError(f"crf must lie in 0 (best) to 51 (smallest), or be None for lossless, got {crf}")
    buffer = io.BytesIO()
    plan = _plan(video, None, 0.0, ".mp4", crf is None, crf or 0)
    plan.options["threads"] = "1"
    _encode(video, buffer, plan, sound=SoundCopy((), None, 0.0, (-np.inf, np.inf)), options={}, name=None)
    return buffer.getvalue()


def _origin(path: Path | None) -> Origin | None:
    if path is None or not path.exists():
        return None
    with open_source(path) as container:
        frame, stream = first_frame(container, path), video_stream(container)
        matrix = display_matrix(frame)
        context = stream.codec_context
        tags = (frame.colorspace, frame.color_range, context.color_primaries, context.color_trc)
        colour = Colour(*(int(tag) for tag in tags))
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        if matrix and matrix[0] == 0 and aspect:
            aspect = 1 / aspect
        name = frame.format.name
    with open_source(path) as container:
        index = read_index(container, path)
        rate = mean_rate(video_stream(container), index.seconds if index is not None else np.zeros(0))
    if index is None:
        return None
    return Origin(
        time_base=index.time_base,
        rate=rate,
        colour=colour if colour.matrix in _MATRICES else Colour(),
        is_full_chroma="444" in name,
        pixel_aspect=aspect if aspect not in (0, 1) else None,
        num_frames=len(index.pts),
    )


def _window(video: "Video", origin: Origin | None) -> tuple[float, tuple[float, float]]:
    """What is taken off all times, and the window of the source's sound that belongs to the clip, in seconds.

    A clip that does not begin with its file's first frame begins at 0; otherwise times stay as they are, so a video
    that starts later than its sound still does.
    """
    if origin is None or video.frame_indices is None:
        return 0.0, (-np.inf, np.inf)
    times = video.timestamps
    begins, ends = int(video.frame_indices[0]) == 0, int(video.frame_indices[-1]) == origin.num_frames - 1
    low = -np.inf if begins else float(times[0])
    high = np.inf if ends else float(times[-1]) + last_duration(times, video.fps)
    return (0.0 if begins else float(times[0])), (low, high)


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    codec: str
    pix_fmt: str
    options: dict[str, str]
    pts: NDArray[np.int64]
    time_base: Fraction
    length: int
    rate: Fraction
    colour: Colour | None
    pixel_aspect: Fraction | None
    # Primaries and transfer of pictures that are kept as RGB, so have no matrix.
    light: tuple[int, int] | None = None


def _plan(video: "Video", origin: Origin | None, shift: float, suffix: str, lossless: bool, crf: int) -> _Plan:
    pts, time_base = _exact_pts(video.timestamps, shift, origin.time_base if origin else None, video.fps)
    length = round(
        (float(video.timestamps[-1] - video.timestamps[0]) + last_duration(video.timestamps, video.fps)) / time_base
    )
    rate = origin.rate if origin and float(origin.rate) == video.fps else Fraction(video.fps).limit_denominator(100_000)
    height, width = video.frames.shape[1:3]
    colour = origin.colour if origin else Colour()
    aspect = origin.pixel_aspect if origin else None
    if lossless and suffix == ".mkv":
        # Every frame by itself, with checksums: made to be checked and kept.
        options = {"level": "3", "g": "1", "slicecrc": "1"}
        return _Plan("ffv1", "bgr0", options, pts, time_base, length, rate, None, aspect, _light(origin))
    if lossless:
        options = {"crf": "0"} | _steady()
        return _Plan("libx264rgb", "rgb24", options, pts, time_base, length, rate, None, aspect, _light(origin))
    whole = height % 2 or width % 2 or (origin is not None and origin.is_full_chroma)
    pix_fmt = "yuv444p" if whole else "yuv420p"
    return _Plan("libx264", pix_fmt, {"crf": str(crf)} | _steady(), pts, time_base, length, rate, colour, aspect)


def _light(origin: Origin | None) -> tuple[int, int] | None:
    """What the source says of its primaries and transfer, if anything: HDR without it is shown grey."""
    if origin is None or (origin.colour.primaries, origin.colour.transfer) == (2, 2):
        return None
    return origin.colour.primaries, origin.colour.transfer


def _steady() -> dict[str, str]:
    """Options under which x264 gives the same bytes for the same frames.

    With AVX-512 its rate control does not, not even with one thread: five encodings of one clip gave three files.
    """
    return {"x264-params": "asm=avx2"} if cv2.checkHardwareSupport(_AVX_512F) else {}


def _exact_pts(
    timestamps: NDArray[np.float64], shift: float, own: Fraction | None, fps: float
) -> tuple[NDArray[np.int64], Fraction]:
    """Whole numbers and a clock of 1/n s that give the timestamps back: bit for bit if a clock can, else to 1 ns.

    Where none does, a clock of a microsecond, which is at most half of one off.
    """
    # A few nanoseconds of slack: n / 29.97... and 0.5 + n / 24 are not the nearest doubles to what they mean.
    clocks = [_clock(own.denominator)] if own is not None else []
    clocks += [_clock(Fraction(fps).limit_denominator(100_000).numerator), 90_000]
    common = 1
    for time in timestamps[: None if len(timestamps) <= 10_000 else 0].tolist():
        common = math.lcm(common, Fraction(time).limit_denominator(100_000).denominator)
        if common >= 1 << 31:
            break
    clocks = [clock for clock in (*clocks, _clock(common)) if clock < 1 << 31]
    errors = []
    for clock in clocks:
        pts = np.rint(timestamps * clock).astype(np.int64)
        errors.append(float(np.abs(seconds_of(pts, Fraction(1, clock)) - timestamps).max()))
    fitting = [clock for limit in (0.0, 1e-9) for clock, error in zip(clocks, errors, strict=True) if error <= limit]
    clock = fitting[0] if fitting else 1_000_000
    pts = np.rint(timestamps * clock).astype(np.int64) - round(shift * clock)
    if (np.diff(pts) <= 0).any():
        raise ValueError("timestamps must be at least a microsecond apart to be written, these are closer")
    return pts, Fraction(1, clock)


def _clock(ticks: int) -> int:
    """The smallest multiple of at least 10000 ticks a second, as the mp4 writer would choose by itself."""
    return ticks * -(-10_000 // ticks)


def _encode(
    video: "Video", target: Any, plan: _Plan, *, sound: SoundCopy, options: dict[str, str], name: Path | None
) -> None:
    suffix = name.suffix.lower() if name is not None else ".mp4"
    if suffix in _MP4_SUFFIXES:
        # Edit lists count in the movie's clock, 1/1000 s by default: a first frame that is not at 0 would be moved.
        options = options | {"movie_timescale": str(plan.time_base.denominator)}
    with av.open(target, "w", format=_FORMATS[suffix], options=options) as container:
        stream = container.add_stream(plan.codec, rate=plan.rate, options=dict(plan.options))
        stream.height, stream.width, stream.pix_fmt = video.frames.shape[1], video.frames.shape[2], plan.pix_fmt
        context = stream.codec_context
        context.time_base = plan.time_base
        if plan.pixel_aspect is not None:
            context.sample_aspect_ratio = plan.pixel_aspect
        if plan.colour is not None:
            context.colorspace, context.color_range = plan.colour.matrix, plan.colour.range
            context.color_primaries, context.color_trc = plan.colour.primaries, plan.colour.transfer
        elif plan.light is not None:
            context.color_primaries, context.color_trc = plan.light
        sound.add_to(container, suffix)
        first_dts, held = None, None
        for packet in _packets(video, stream, plan):
            if held is not None:
                sound.mux_until(container, held)
                container.mux(held)
            held = packet
            first_dts = packet.dts if first_dts is None else first_dts
        if held is not None:
            # The last packet's duration decides the length of the track, and with it the frames per second.
            rest = plan.length - round((held.dts - first_dts) * held.time_base / plan.time_base)
            if rest > 0:
                held.duration = max(round(rest * plan.time_base / held.time_base), 1)
            sound.mux_until(container, held)
            container.mux(held)
        sound.mux_rest(container)


def _packets(video: "Video", stream: Any, plan: _Plan) -> Iterator[Any]:
    for picture, pts in zip(video.frames, plan.pts, strict=True):
        frame = _frame(np.ascontiguousarray(picture), plan)
        frame.pts, frame.time_base = int(pts), plan.time_base
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _frame(picture: NDArray[np.uint8], plan: _Plan) -> Any:
    """One picture [H, W, 3] RGB in the format that is encoded."""
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    if plan.colour is None:
        return frame
    red, blue, matrix = _MATRICES[plan.colour.matrix]
    full = plan.colour.range == 2
    frame = frame.reformat(
        format=plan.pix_fmt, dst_colorspace=matrix, dst_color_range=2 if full else 1, interpolation=_TO_YUV
    )
    frame.colorspace, frame.color_range = plan.colour.matrix, plan.colour.range
    if plan.pix_fmt == "yuv420p":
        _correct_luma(picture, frame, np.array([[red, 1 - red - blue, blue]]) * (1 if full else 219 / 255))
    return frame


def _correct_luma(picture: NDArray[np.uint8], frame: Any, weights: NDArray[np.float64]) -> None:
    """Move the luma of a 4:2:0 frame, in place, so that reading it gives ``picture`` as nearly as it can."""
    height, width = picture.shape[:2]
    plane = frame.planes[0]
    luma = np.frombuffer(plane, dtype=np.uint8).reshape(-1, plane.line_size)[:height, :width]
    for _ in range(_CORRECTIONS):
        error = cv2.subtract(picture, to_rgb(frame), dtype=cv2.CV_16S)
        missing = cv2.transform(error.astype(np.float32), weights)
        luma[:] = cv2.add(np.ascontiguousarray(luma), missing, dtype=cv2.CV_8U)


def _verify(temporary: Path, plan: _Plan, path: Path) -> None:
    """Read the packets back: a muxer that ran out of room may not have said so.

    Raises:
        OSError: if the file does not hold the frames that were meant, at the times that were meant.
    """
    try:
        with open_source(temporary) as container:
            index = read_index(container, temporary)
    except (ValueError, av.error.FFmpegError) as err:
        raise OSError(f"{path} could not be written whole: is the disk full? Nothing was changed there") from err
    wanted = seconds_of(plan.pts, plan.time_base)
    tick = 0.0 if path.suffix.lower() in _MP4_SUFFIXES else 0.00051
    if index is None or len(index.pts) != len(wanted) or np.abs(index.seconds - wanted).max() > tick:
        got = "no" if index is None else len(index.pts)
        text = f"{path} came out with {got} of {len(wanted)} frames at their times; nothing was changed there"
        raise OSError(text)
