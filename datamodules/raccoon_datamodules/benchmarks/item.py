"""`BenchmarkItem`: one video of a benchmark, where its files are and what was written about it; decoded on demand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from raccoon_datamodules import mask_files
from raccoon_datamodules.masks import Masks
from raccoon_datamodules.video import Video
from raccoon_datamodules.video_read import choose


@dataclass(frozen=True, slots=True)
class Segment:
    """What is seen from ``start`` to ``end`` (seconds, start <= end), in one sentence."""

    start: float
    end: float
    sentence: str


@dataclass(frozen=True, slots=True)
class BenchmarkEdit:
    """An edit that a benchmark asks of a video.

    ``kind`` "attribute" (another colour, material, style of an object) or "instance" (another object in its place), the
    two kinds of the paper's DAVIS test (appendix A.2); ``prompt`` what the edited video shows.
    """

    kind: Literal["attribute", "instance"]
    prompt: str


@dataclass(frozen=True, slots=True)
class BenchmarkItem:
    """One video of a benchmark.

    ``name`` its name there; ``source`` a video file, or a folder with one image a frame; ``fps`` frames per second of
    such a folder, None for a file; ``masks`` a folder with one label image a frame, or None; ``captions`` reference
    texts of the whole video, one for each annotator; ``segments`` the same in pieces, annotator by annotator;
    ``label`` the class of the video, or None; ``edits`` what is asked of it.
    """

    name: str
    source: Path
    fps: float | None = None
    masks: Path | None = None
    captions: tuple[str, ...] = ()
    segments: tuple[tuple[Segment, ...], ...] = ()
    label: str | None = None
    edits: tuple[BenchmarkEdit, ...] = ()

    def video(
        self,
        *,
        start: float | None = None,
        end: float | None = None,
        stride: int = 1,
        max_frames: int | None = None,
    ) -> Video:
        """Decode the video or a part of it; the arguments are those of `Video.read`.

        Raises:
            FileNotFoundError, PermissionError, ValueError: as `Video.read`; for a folder of images also ValueError if
                there is none, one cannot be read, or their sizes differ.
        """
        if not self.source.is_dir():
            return Video.read(self.source, start=start, end=end, stride=stride, max_frames=max_frames)
        if stride < 1 or (max_frames is not None and max_frames < 1):
            raise ValueError(f"stride and max_frames must be at least 1, got {stride} and {max_frames}")
        assert self.fps is not None, "a reader gives fps with a folder of images"
        files = mask_files.image_files(self.source)
        times = np.arange(len(files)) / self.fps
        chosen = choose(times, start, end, stride, max_frames, self.source)
        frames = _read_pictures([files[i] for i in chosen])
        span = float(times[chosen[-1]] - times[chosen[0]])
        fps = (len(chosen) - 1) / span if span > 0 else self.fps
        return Video(frames, fps, times[chosen], self.source, chosen)

    def read_masks(self, video: Video, *, object_ids: Sequence[int] | None = None) -> Masks:
        """The masks of the frames of ``video``, which `video` of this item gave: the union of all objects, or of some.

        Raises:
            ValueError: if the item has no masks, there is not one for each frame of the whole video, or one cannot be
                read or has another size.
            FileNotFoundError: if the folder of masks is gone.
        """
        if self.masks is None:
            raise ValueError(
                f"{self.name} has no masks in this benchmark; edit it with a grounder or masks of your own"
            )
        files, indices = mask_files.image_files(self.masks), video.frame_indices
        count = len(mask_files.image_files(self.source)) if self.source.is_dir() else len(files)
        if len(files) != count or indices is None or int(indices[-1]) >= count:
            got = "a video of unknown frames" if indices is None else f"{count} frames up to number {int(indices[-1])}"
            raise ValueError(
                f"{self.masks} must hold one mask for each frame of {self.source}, got {len(files)} masks for {got}; "
                "unpack the annotations again"
            )
        return Masks(mask_files.read_images([files[i] for i in indices], video.size, object_ids))


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The chosen videos of a benchmark, by name.

    ``rule`` says in words how they were chosen; ``missing`` names videos that the rule met before it had enough and
    whose files are not there, so that two copies of the data that lack different videos can be told apart.
    """

    name: str
    items: tuple[BenchmarkItem, ...]
    rule: str
    missing: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.items)

    def __iter__(self) -> Iterator[BenchmarkItem]:
        """The videos by name."""
        return iter(self.items)

    @property
    def pairs(self) -> tuple[tuple[BenchmarkItem, BenchmarkEdit], ...]:
        """Every video with each of its edits: the text-video pairs of an editing benchmark."""
        return tuple((item, edit) for item in self.items for edit in item.edits)


def _read_pictures(files: Sequence[Path]) -> NDArray[np.uint8]:
    """Images of one size as uint8 [F, H, W, 3] RGB."""
    pictures: list[NDArray[np.uint8]] = []
    for file in files:
        try:
            with Image.open(file) as image:
                pictures.append(np.asarray(image.convert("RGB")))
        except PermissionError:
            raise
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as err:
            raise ValueError(f"the frame {file} cannot be read, it is damaged or no image: {err}") from err
        if pictures[-1].shape != pictures[0].shape:
            (height, width), (first_height, first_width) = pictures[-1].shape[:2], pictures[0].shape[:2]
            raise ValueError(
                f"the frames of a video must have one size, {file} is {width}x{height} and {files[0].name} "
                f"{first_width}x{first_height}; unpack the frames again"
            )
    return np.stack(pictures)
