"""What a video file claims about itself, read before a demuxer or decoder believes it.

FFmpeg makes a table of as many samples as an mp4's header announces: a few bytes can ask for gigabytes.
"""

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from raccoon_datamodules.limits import MAX_PIXELS, readable

# Boxes that hold boxes, on the way to those that count samples; and where in the latter the count stands.
_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf")
_COUNTS = {b"stsz": 8, b"stz2": 8, b"trun": 4}  # codespell:ignore trun


def check_counts(data: bytes) -> None:
    """Refuse an mp4 that announces more samples in a track than it has bytes; anything else passes.

    Raises:
        ValueError: if it does so.
    """
    _check_counts(io.BytesIO(data), len(data))


def check_file_counts(path: Path) -> None:
    """As `check_counts` of a file; what is no mp4, or no plain file, passes."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        if file.read(8)[4:] != b"ftyp":
            return
        try:
            _check_counts(file, path.stat().st_size)
        except ValueError as err:
            raise ValueError(f"{path} is damaged: {err}; copy or download it again") from err


def check_picture(height: int, width: int, what: str) -> None:
    """Raise ValueError if a frame would have more pixels than `limits` allows."""
    if height * width > MAX_PIXELS:
        raise ValueError(f"{what} claims frames of {width}x{height}; more than {MAX_PIXELS} pixels are not read")


def _check_counts(file: BinaryIO, size: int) -> None:
    for name, place in _boxes(file, size):
        if name in _COUNTS:
            file.seek(place + _COUNTS[name])
            (count,) = struct.unpack(">I", file.read(4).rjust(4, b"\0"))
            if count > size:
                raise ValueError(f"{readable(size)} cannot hold the {count} frames that it announces")


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """(name, first byte of the contents) of the boxes of an mp4, those within containers included."""
    waiting = [(0, size)]
    while waiting:
        place, end = waiting.pop()
        while place + 8 <= end:
            file.seek(place)
            head = file.read(16)
            length, name = struct.unpack(">I4s", head[:8])
            body = place + 8
            if length == 1 and len(head) == 16:
                (length,) = struct.unpack(">Q", head[8:])
                body = place + 16
            # 0: up to the end. One that is cut off ends there too, as the demuxer takes it.
            stop = min(place + length, end) if length else end
            if stop < body:
                break
            yield name, body
            if name in _CONTAINERS:
                waiting.append((body, stop))
            place = stop
