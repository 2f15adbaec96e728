"""How a data set is built, as data: frames, size, codec, small objects. What these say is part of what is built."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

# Raised when the same source and options would give other samples.
BUILDER_VERSION = 1


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames of a video become clips, of the n frames that can be used (those with an annotation).

    First every ``step``-th frame is taken. Of these a clip is all, or with ``clip_length`` L each window of L, a new
    one every ``clip_stride`` frames (default L, so that they do not overlap); frames after the last whole window are
    not used, and a video of fewer than L is one clip. Of a clip at most ``frames`` are kept: the middles of as many
    equal segments. A clip of fewer than ``min_frames`` is left out.

    Raises:
        ValueError: if a number is not positive, or a stride is given without a length.
    """

    step: int = 1
    clip_length: int | None = None
    clip_stride: int | None = None
    frames: int | None = None
    min_frames: int = 1

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.clip_stride is not None and self.clip_length is None:
            raise ValueError("clip_stride says how far apart windows begin, which needs clip_length")

    def clips(self, count: int) -> list[np.ndarray]:
        """The places, int64 [F], rising, that each clip takes of ``count`` frames; an empty list for none."""
        every = np.arange(0, count, self.step)
        length = self.clip_length or len(every)
        starts = range(0, max(len(every) - length, 0) + 1, self.clip_stride or max(length, 1))
        clips = []
        for start in starts:
            places = every[start : start + length]
            if self.frames is not None and self.frames < len(places):
                places = places[(2 * np.arange(self.frames) + 1) * len(places) // (2 * self.frames)]
            if len(places):
                clips.append(places)
        return clips


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What is made of each source video.

    ``size``: None keeps it, a number is the shorter side (never enlarged, both sides even), (height, width) is exact
    and may stretch. ``codec`` "h264" at ``crf``, or "lossless" (libx264rgb). ``min_area``: an object whose mean share
    of the frame is below it is dropped, 0.01 in the paper (section A.1), which does not say over what it is measured:
    ``area_over`` "seen" is the mean over those of the clip's frames where the object is seen, "clip" over all of them.
    ``frames_with`` "annotation" uses the frames that have a label image, "inpainted" those that besides have the
    pictures of every object's inpainted clip. ``fps`` is the rate of frame folders, by their numbers. ``keep_empty``
    keeps a clip of which no object is left, which otherwise is left out (never one of plain videos). ``licence`` goes
    into each sample's meta.

    Raises:
        ValueError: if a value is out of range.
    """

    sampling: Sampling = field(default_factory=Sampling)
    size: int | tuple[int, int] | None = None
    codec: Literal["h264", "lossless"] = "h264"
    crf: int = 18
    min_area: float = 0.01
    area_over: Literal["seen", "clip"] = "seen"
    frames_with: Literal["annotation", "inpainted"] = "annotation"
    fps: float = 24.0
    keep_empty: bool = False
    licence: str | None = None

    def __post_init__(self) -> None:
        sides = (self.size,) if isinstance(self.size, int) else (self.size or ())
        if any(side < 2 or side > 1 << 14 for side in sides):
            raise ValueError(f"size must be sides of 2 to 16384 pixels, got {self.size}")
        if self.codec not in ("h264", "lossless"):
            raise ValueError(f"codec must be h264 or lossless, got {self.codec!r}")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf must lie in 0 (best) to 51 (smallest), got {self.crf}")
        if not 0 <= self.min_area < 1:
            raise ValueError(f"min_area must be a share of the frame in [0, 1), got {self.min_area}")
        if self.area_over not in ("seen", "clip"):
            raise ValueError(f"area_over must be seen or clip, got {self.area_over!r}")
        if self.frames_with not in ("annotation", "inpainted"):
            raise ValueError(f"frames_with must be annotation or inpainted, got {self.frames_with!r}")
        if not (np.isfinite(self.fps) and 0 < self.fps < 1e4):
            raise ValueError(f"fps must be positive and finite, got {self.fps}")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, equal exactly where two builds would make the same samples of the same source."""
        value = asdict(self)
        value["size"] = list(self.size) if isinstance(self.size, tuple) else self.size
        return {"builder": BUILDER_VERSION, **value}

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) in which a source of this size is stored."""
        if isinstance(self.size, tuple):
            return self.size
        if self.size is None or self.size >= min(height, width):
            return height, width
        scale = self.size / min(height, width)
        even = [max(2 * round(side * scale / 2), 2) for side in (height, width)]
        return even[0], even[1]
