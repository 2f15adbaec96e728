"""`Video`: the frames of a clip with their fps, presentation times and the way to its sound; read, write, probe."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raccoon_datamodules.video_read import VideoInfo, decode_bytes, probe, read_frames

__all__ = ["Video", "VideoInfo", "decode_clip", "encode_clip", "probe"]


@dataclass(frozen=True, slots=True, eq=False)
class Video:
    """The frames of a clip and when each is shown."""

    frames: NDArray[np.uint8]
    fps: float
    timestamps: NDArray[np.float64]
    path: Path | None = None
    frame_indices: NDArray[np.int64] | None = None
    decoder: str | None = None

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
        return float(self.timestamps[-1] - self.timestamps[0] + 1.0 / self.fps)

    @classmethod
    def from_frames(cls, frames: NDArray[np.uint8], fps: float, *, timestamps: ArrayLike | None = None) -> "Video":
        """Wrap frames [F, H, W, 3] uint8 RGB; timestamps default to n / fps."""
        if timestamps is None:
            timestamps = np.arange(len(frames)) / fps
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
        """Decode a file."""
        frames, fps, timestamps, indices, name = read_frames(path, start, end, stride, max_frames, decoder, max_bytes)
        return cls(frames, fps, timestamps, Path(path), indices, name)

    def write(
        self,
        path: str | Path,
        *,
        lossless: bool = False,
        crf: int = 18,
        overwrite: bool = False,
        sound_from: Path | None = None,
    ) -> None:
        """Encode to a file."""
        from raccoon_datamodules.video_write import write_video

        write_video(self, Path(path), lossless=lossless, crf=crf, overwrite=overwrite, sound_from=sound_from)

    def with_frames(self, frames: NDArray[np.uint8]) -> "Video":
        """The same clip with other pictures: frames uint8 [F, H, W, 3], same F."""
        return replace(self, frames=frames)


def encode_clip(video: Video) -> bytes:
    """Encode losslessly in memory."""
    from raccoon_datamodules.video_write import encode_bytes

    return encode_bytes(video)


def decode_clip(data: bytes, *, frame_indices: Sequence[int] | None = None, num_threads: int = 1) -> Video:
    """Decode what `encode_clip` made."""
    frames, fps, timestamps, indices = decode_bytes(data, frame_indices, num_threads)
    return Video(frames, fps, timestamps, None, indices, "pyav")
