"""`Video`: the frames of a clip with their fps, presentation times and the way to its sound; read, write, probe.

This is the public face; the parts stand in the `video_*` modules beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raccoon_datamodules.video_bytes import decode_bytes
from raccoon_datamodules.video_probe import VideoInfo, probe
from raccoon_datamodules.video_read import DecodedFrames, read_frames
from raccoon_datamodules.video_source import last_duration
from raccoon_datamodules.video_write import encode_bytes, write_video

__all__ = ["Video", "VideoInfo", "decode_clip", "encode_clip", "probe", "time_precision"]


@dataclass(frozen=True, slots=True, eq=False)
class Video:
    """The frames of a clip and when each is shown.

    ``frames`` uint8 [F, H, W, 3] RGB, the way up they are shown; ``fps`` nominal (average) frames per second;
    ``timestamps`` float64 [F], strictly increasing presentation times in seconds as in the file; ``path`` where it was
    read from: `write` copies the sound from there; ``frame_indices`` int64 [F], each frame's number in that file;
    ``decoder`` the one that made the frames ("decord", "pyav", "torchcodec"), or None.

    Raises:
        TypeError: if frames is not uint8.
        ValueError: if a shape does not fit, fps is not positive and finite, or the timestamps do not increase.
    """

    frames: NDArray[np.uint8]
    fps: float
    timestamps: NDArray[np.float64]
    path: Path | None = None
    frame_indices: NDArray[np.int64] | None = None
    decoder: str | None = None

    def __post_init__(self) -> None:
        frames = self.frames
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
            kind = frames.dtype if isinstance(frames, np.ndarray) else type(frames).__name__
            raise TypeError(f"frames must be a uint8 array [F, H, W, 3] (RGB, 0 to 255), got {kind}")
        if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise ValueError(f"frames must be [F, H, W, 3] with at least one pixel, got {list(frames.shape)}")
        if not (np.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps must be positive and finite, got {self.fps}")
        times = np.asarray(self.timestamps, dtype=np.float64)
        if times.shape != (len(frames),):
            raise ValueError(f"timestamps must be [{len(frames)}], one per frame, got {list(times.shape)}")
        if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
            raise ValueError("timestamps must be finite and strictly increasing seconds")
        object.__setattr__(self, "timestamps", times)
        if self.frame_indices is not None and np.shape(self.frame_indices) != (len(frames),):
            shape = list(np.shape(self.frame_indices))
            raise ValueError(f"frame_indices must be [{len(frames)}], one per frame, got {shape}")

    @property
    def num_frames(self) -> int:
        """Number of frames F."""
        return int(self.frames.shape[0])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.frames.shape[1])

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.frames.shape[2])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def duration(self) -> float:
        """Seconds from the first frame's appearance to the last frame's end."""
        return float(self.timestamps[-1] - self.timestamps[0]) + last_duration(self.timestamps, self.fps)

    @classmethod
    def from_frames(cls, frames: NDArray[np.uint8], fps: float, *, timestamps: ArrayLike | None = None) -> "Video":
        """Wrap frames uint8 [F, H, W, 3] RGB; timestamps [F] in seconds default to n / fps.

        Raises:
            TypeError, ValueError: as the class.
        """
        if timestamps is None:
            if not (np.isfinite(fps) and fps > 0):
                raise ValueError(f"fps must be positive and finite, got {fps}")
            timestamps = np.arange(len(frames)) / float(fps)
        return cls(frames, float(fps), np.asarray(timestamps, dtype=np.float64))

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        start: float | None = None,
        end: float | None = None,
        stride: int = 1,
        max_frames: int | None = None,
        decoder: Literal["auto", "decord", "pyav", "torchcodec"] = "auto",
        max_bytes: int = 8 << 30,
    ) -> "Video":
        """Decode a video file, or a part of it.

        The frames with start <= presentation time < end (seconds, on the file's own clock) are taken, every
        ``stride``-th of them, and of those at most ``max_frames``: the middles of as many equal segments. Their numbers
        in the file are kept in ``frame_indices``; ``fps`` becomes that of the frames taken. Only what is needed is
        decoded. ``decoder``: see `video_read`; "auto" is decord where it gives what PyAV gives, and PyAV elsewhere.

        Raises:
            FileNotFoundError: if there is nothing at path.
            PermissionError: if it may not be read.
            ValueError: if it is a folder, empty, no video, holds sound only, is cut off or damaged; if no frame lies in
                the window, an argument is out of range, or the frames would take more than ``max_bytes``.
            RuntimeError: if the decoder that was asked for is not there or cannot read the file.
        """
        path = Path(path)
        read = read_frames(
            path,
            start=start,
            end=end,
            stride=stride,
            max_frames=max_frames,
            decoder=decoder,
            max_bytes=max_bytes,
        )
        return cls(read.frames, read.fps, read.timestamps, path, read.frame_indices, read.decoder)

    def write(
        self,
        path: str | Path,
        *,
        lossless: bool = False,
        crf: int = 18,
        overwrite: bool = False,
        sound_from: Path | None = None,
    ) -> None:
        """Encode to ``.mp4``, ``.m4v``, ``.mov`` or ``.mkv``, whole or not at all; formats and colour: `video_write`.

        Size, number of frames, fps and timestamps are kept (exactly in mp4 and mov; to the millisecond in mkv:
        `time_precision`). The sound is copied, packet by packet, from ``sound_from`` or else from ``self.path``, at the
        same offset to the pictures. A clip that does not begin with its file's first frame is written from time 0, with
        the sound of its window (to one packet). ``path`` may be the file the video was read from.

        Raises:
            ValueError: if the suffix is another, crf is not in 0..51, or the file cannot hold that kind of sound.
            FileExistsError: if path exists and ``overwrite`` is False.
            FileNotFoundError: if the folder of path, or ``sound_from``, is not there.
            PermissionError, OSError: if the folder cannot be written or the disk is full.
        """
        write_video(self, Path(path), lossless=lossless, crf=crf, overwrite=overwrite, sound_from=sound_from)

    def with_frames(self, frames: NDArray[np.uint8]) -> "Video":
        """The same clip with other pictures: frames uint8 [F, H, W, 3] with the same F.

        Raises:
            TypeError, ValueError: as the class.
        """
        return replace(self, frames=frames)


def time_precision(path: str | Path) -> float:
    """How far, in seconds, a file of this suffix may move presentation times: 0 in mp4 and mov, 0.0005 in mkv."""
    return 0.0005 if Path(path).suffix.lower() == ".mkv" else 0.0


def encode_clip(video: Video, *, crf: int | None = None) -> bytes:
    """Encode a small clip to the bytes of an mp4 without sound: losslessly (libx264rgb), or as H.264 at ``crf``.

    The same bytes for the same clip (one thread) with the same version of x264.

    Raises:
        ValueError: if crf is not in 0..51.
    """
    return encode_bytes(video, crf)


def decode_clip(
    data: bytes,
    *,
    frame_indices: Sequence[int] | None = None,
    num_threads: int = 1,
    size: tuple[int, int] | None = None,
) -> Video:
    """Decode what `encode_clip` made, bit for bit; with ``frame_indices`` (increasing) only those frames.

    With ``size`` (height, width) each frame is resized as it is decoded, see `pixels.resize`.

    Raises:
        ValueError: if data is no such clip, is cut off, or an index is not one of its frames.
    """
    read: DecodedFrames = decode_bytes(data, frame_indices, num_threads, size=size)
    return Video(read.frames, read.fps, read.timestamps, None, read.frame_indices, read.decoder)
