"""Frames of a source video, from a file or from pictures: how many, when, and those asked for in the size asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from raccoon_datamodules.build.matching import number_in
from raccoon_datamodules.pixels import resize
from raccoon_datamodules.video_orientation import display_matrix
from raccoon_datamodules.video_read import read_frames
from raccoon_datamodules.video_source import decode_all_times, first_frame, open_source, read_index

# Frames of a file are decoded in pieces of this many bytes, and resized piece by piece.
_PIECE = 256 << 20


@dataclass(frozen=True, slots=True)
class Timing:
    """``times`` float64 [F] seconds from the clip's first frame; ``fps`` their nominal rate."""

    times: NDArray[np.float64]
    fps: float


@dataclass(frozen=True, slots=True)
class Frames:
    """The frames of one source: ``path`` a video file, or ``pictures``; ``times`` float64 [n] seconds; (height, width).

    ``fps`` is the rate for a single frame, which has no distance to another.
    """

    path: Path | None
    pictures: tuple[Path, ...]
    times: NDArray[np.float64]
    size: tuple[int, int]
    fps: float

    def __len__(self) -> int:
        return len(self.times)

    @property
    def names(self) -> list[str]:
        """What label images are matched with: the pictures' names, or the frames' numbers."""
        return [p.stem for p in self.pictures] if self.pictures else [str(n) for n in range(len(self))]

    def read(self, places: Sequence[int], size: tuple[int, int]) -> tuple[NDArray[np.uint8], dict[int, str]]:
        """The frames at these places (rising) as uint8 [n, h, w, 3], and place to reason for those that are damaged.

        Damaged pictures are left out of the array; a damaged video file cannot be read in part.

        Raises:
            ValueError: if the file is damaged, or a picture has another size than the first.
            OSError: if something cannot be opened.
        """
        if self.path is None:
            return self._read_pictures(places, size)
        height, width = self.size
        piece = max(_PIECE // (height * width * 3), 1)
        read = []
        for first in range(0, len(places), piece):
            indices = list(places[first : first + piece])
            read.append(resize(read_frames(self.path, indices=indices).frames, size))
        return np.concatenate(read), {}

    def _read_pictures(self, places: Sequence[int], size: tuple[int, int]) -> tuple[NDArray[np.uint8], dict[int, str]]:
        read, damaged = [], {}
        for place in places:
            try:
                picture = read_picture(self.pictures[place])
            except ValueError as err:
                damaged[place] = str(err)
                continue
            if picture.shape[:2] != self.size:
                found, wanted = picture.shape[1::-1], self.size[::-1]
                raise ValueError(
                    f"its frames must have one size, {self.pictures[place].name} is {found[0]}x{found[1]}, the first "
                    f"{wanted[0]}x{wanted[1]}: make them alike"
                )
            read.append(resize(picture[None], size)[0])
        return (np.stack(read) if read else np.zeros((0, *size, 3), np.uint8)), damaged

    def timing(self, places: Sequence[int]) -> Timing:
        """When the frames at these places are shown, from the first of them on."""
        return timing(self.times[list(places)], self.fps)


def of_file(path: Path) -> Frames:
    """The frames of a video file. Raises as `video.probe`."""
    with open_source(path) as container:
        frame = first_frame(container, path)
        matrix = display_matrix(frame)
        height, width = (frame.width, frame.height) if matrix and matrix[0] == 0 else (frame.height, frame.width)
    with open_source(path) as container:
        index = read_index(container, path)
    times = index.seconds if index is not None else decode_all_times(path)
    rate = 24.0 if len(times) < 2 else (len(times) - 1) / float(times[-1] - times[0])
    return Frames(path, (), times, (height, width), rate)


def of_pictures(pictures: Sequence[Path], fps: float) -> Frames:
    """The frames of a folder: shown at the number in their name / fps where these rise, else one after the other.

    The size is that of the first picture that can be read.

    Raises:
        ValueError: if none can.
        OSError: if they cannot be opened.
    """
    size = next((size for size in map(picture_size, pictures) if size is not None), None)
    if size is None:
        raise ValueError(f"none of its {len(pictures)} pictures can be read")
    numbers = [number_in(picture.name) for picture in pictures]
    rising = [n for n in numbers if n is not None]
    if len(rising) < len(numbers) or any(b <= a for a, b in pairwise(rising)):
        rising = list(range(len(pictures)))
    # From the first one on, so that a number that is a date leaves no rounding behind.
    times = np.array([n - rising[0] for n in rising], dtype=np.float64) / fps
    return Frames(None, tuple(pictures), times, size, fps)


def timing(seconds: NDArray[np.float64], fps: float) -> Timing:
    """Times from the first of some seconds on, exactly n / rate where they are evenly spaced; ``fps`` the source's."""
    times = seconds - seconds[0]
    if len(times) < 2:
        return Timing(times, float(fps))
    rate = (len(times) - 1) / float(times[-1])
    source = _usual(fps)
    rates = (source / max(round(source / rate), 1), _usual(rate), float(Fraction(rate).limit_denominator(1001)))
    # Matroska's clock ticks in milliseconds: where nothing fits exactly, what fits as well as that can.
    for tolerance in (1e-6, min(0.00101, 0.1 / rate)):
        for simple in rates:
            even = np.arange(len(times)) / simple
            if np.abs(even - times).max() <= tolerance:
                return Timing(even, simple)
    return Timing(np.round(times, 6), rate)


def _usual(rate: float) -> float:
    """A rate that is 1 in 5000 or less off a whole one, or off one of television's, as that."""
    for usual in (float(round(rate)), round(rate * 1.001) / 1.001):
        if usual > 0 and abs(rate / usual - 1) <= 2e-4:
            return float(Fraction(usual).limit_denominator(1001))
    return rate


def picture_size(path: Path) -> tuple[int, int] | None:
    """(height, width) of a picture by its header; None if it is damaged. Raises OSError if it cannot be opened."""
    try:
        with path.open("rb") as raw, Image.open(raw) as image:
            return image.height, image.width
    except (UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A picture as uint8 [H, W, 3] RGB, as stored: label images know nothing of a camera's orientation tag.

    Raises:
        ValueError: if it is damaged or no picture.
        OSError: if it cannot be opened.
    """
    try:
        with path.open("rb") as raw, Image.open(raw) as image:
            if image.mode.startswith("I;16"):
                grey = (np.asarray(image) >> 8).astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as err:
        raise ValueError(f"{path.name} is damaged or no picture: {err}") from err
    except OSError as err:
        # Pillow's word for a file that is cut off; what the system says has a number.
        if err.errno is not None:
            raise
        raise ValueError(f"{path.name} is damaged or no picture: {err}") from err
