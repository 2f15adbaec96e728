"""Carrying the sound over: its packets are copied as they are, never decoded, at their own times."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av


@dataclass(slots=True)
class SoundCopy:
    """Audio streams on their way from ``source`` (None: no sound) into a container that is being written.

    ``shift`` seconds are taken off all times. Only packets that overlap ``window`` (seconds of the source) are copied:
    a whole packet at each end, so up to one packet (AAC: 1024 samples, 21 ms at 48 kHz) more than the window.
    """

    streams: tuple[Any, ...]
    source: Any
    shift: float
    window: tuple[float, float]
    targets: dict[int, Any] = field(default_factory=dict)
    pending: Any = None
    packets: Iterator[Any] = field(default_factory=lambda: iter(()))

    def add_to(self, container: Any, suffix: str) -> None:
        """Make the streams in the container that is written, and write its header.

        Raises:
            ValueError: if the container cannot hold the sound.
        """
        try:
            for stream in self.streams:
                target = container.add_stream_from_template(stream)
                target.metadata.update({key: value for key, value in stream.metadata.items() if key == "language"})
                self.targets[stream.index] = target
            if self.streams:
                container.start_encoding()
                self.packets = self._chosen()
                self.pending = next(self.packets, None)
        except (ValueError, av.error.FFmpegError) as err:
            if isinstance(err, OSError) or not self.streams:
                raise
            names = ", ".join(sorted({stream.codec_context.name for stream in self.streams}))
            other = ".mp4" if suffix == ".mkv" else ".mkv"
            raise ValueError(
                f"sound of the kind {names} cannot be kept in a {suffix} file: write {other} instead"
            ) from err

    def _chosen(self) -> Iterator[Any]:
        low, high = self.window
        for packet in self.source.demux(self.streams):
            if packet.size == 0 or packet.pts is None:
                continue
            begin = float(packet.pts * packet.time_base)
            if begin < high and begin + float((packet.duration or 0) * packet.time_base) > low:
                ticks = round(Fraction(self.shift) / packet.time_base)
                target = self.targets[packet.stream.index]
                packet.pts -= ticks
                packet.dts = None if packet.dts is None else packet.dts - ticks
                packet.stream = target
                yield packet

    def mux_until(self, container: Any, video_packet: Any) -> None:
        """Write the sound that comes before a video packet, so that the file can be played while it loads."""
        limit = float(video_packet.dts * video_packet.time_base)
        while self.pending is not None and float(self.pending.pts * self.pending.time_base) <= limit:
            container.mux(self.pending)
            self.pending = next(self.packets, None)

    def mux_rest(self, container: Any) -> None:
        """Write what is left of the sound."""
        while self.pending is not None:
            container.mux(self.pending)
            self.pending = next(self.packets, None)


@contextmanager
def open_sound(source: Path | None, shift: float, window: tuple[float, float]) -> Iterator[SoundCopy]:
    """Open the sound of a file: all of its audio streams; a file without any, or None, gives an empty copy.

    Raises:
        ValueError: if the file cannot be read.
    """
    if source is None:
        yield SoundCopy((), None, shift, window)
        return
    try:
        container = av.open(str(source))
    except av.error.FFmpegError as err:
        raise ValueError(f"the sound of {source} cannot be read: name another file") from err
    with container:
        yield SoundCopy(tuple(container.streams.audio), container, shift, window)
