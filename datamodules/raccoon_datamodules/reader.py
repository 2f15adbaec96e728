"""Bytes by offset, from wherever shards lie: nothing is read of a shard but what was asked for, where that can be.

Local folders and most stores are read by byte range. What can only be read from its start (a command's output, a server
without ranges) is copied to a local folder shard by shard (`spool`).
"""

import errno
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from raccoon_datamodules.places import is_url, join, kind_of
from raccoon_datamodules.reader_http import HttpFiles, NoRangesError
from raccoon_datamodules.spool import SPOOL_BYTES, Spool, Stream, pread

# Members that are closer than this are fetched in one go: a request costs more than the bytes between them.
_JOIN_BELOW = 64 << 10

_log = logging.getLogger(__name__)

__all__ = ["FolderFiles", "ShardReader", "files_of", "is_url", "join"]


class Files(Protocol):
    """The files of one place."""

    def read(self, name: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset`` on, fewer where the file ends; NoRangesError if there is only `open`."""
        ...

    def whole(self, name: str) -> bytes:
        """A whole (small) file."""
        ...

    def open(self, name: str) -> AbstractContextManager[Stream]:
        """A whole file as a stream."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


class ShardReader:
    """Reads ranges of the files of one folder, address or command (`places.kind_of`).

    ``sizes``: what the index says of the files' sizes. ``timeout``: seconds without an answer. ``spool_bytes`` bounds
    the copies of shards that can only be read from their start, ``content`` tells them from others of the same place
    (ranks on one machine share them, see `Spool`). Forked workers may share a reader; pickled (for spawned
    workers) it opens its files again.

    Raises:
        ValueError: if the place is of no known kind, or a shard is larger than a spool that is needed.
        ImportError: if the client's package of a store is not installed.
    """

    def __init__(
        self,
        base: str | Path,
        *,
        sizes: Mapping[str, int] | None = None,
        timeout: float = 60.0,
        max_open: int = 64,
        spool_bytes: int = SPOOL_BYTES,
        content: str = "",
    ) -> None:
        self.base = base
        self._files = files_of(base, timeout=timeout, max_open=max_open)
        self._is_stream = kind_of(base) == "pipe"
        self._spool: Spool | None = None
        if is_url(base):
            # Made whether it will be needed or not, so that workers who find that out for themselves share its folder.
            self._spool = Spool(
                self._files.open, sizes=dict(sizes or {}), max_bytes=spool_bytes, content=f"{base} {content}"
            )
            if self._is_stream:
                self._spool.check_room()

    def read(self, name: str, offset: int, length: int) -> bytes:
        """``length`` bytes of file ``name`` from ``offset`` on.

        Raises:
            FileNotFoundError: if the file is not there.
            OSError: if it ends early or cannot be read.
        """
        data = self._read(name, offset, length)
        if len(data) != length:
            where = f"{name} of {self.base}" if kind_of(self.base) == "pipe" else join(self.base, name)
            raise OSError(
                f"{where} ends before byte {offset + length}, to which the index says it goes on; it "
                "was cut off or replaced"
            )
        return data

    def read_many(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several (offset, length) of one file, in their order; neighbours are fetched together."""
        order = sorted(range(len(ranges)), key=lambda i: ranges[i])
        out = [b""] * len(ranges)
        group: list[int] = []
        for i in [*order, -1]:
            if group and (i < 0 or ranges[i][0] - sum(ranges[group[-1]]) > _JOIN_BELOW):
                start = ranges[group[0]][0]
                data = memoryview(self.read(name, start, max(sum(ranges[j]) for j in group) - start))
                for j in group:
                    begin = ranges[j][0] - start
                    out[j] = bytes(data[begin : begin + ranges[j][1]])
                group = []
            if i >= 0:
                group.append(i)
        return out

    def whole(self, name: str) -> bytes:
        """A whole small file. Raises as `read`."""
        return self._files.whole(name)

    def size(self, name: str) -> int | None:
        """The size of a local file now, None where that is not known or it is gone."""
        return self._files.size(name) if isinstance(self._files, FolderFiles) else None

    def close(self) -> None:
        """Close what is open, and remove the spool."""
        self._files.close()
        if self._spool is not None:
            self._spool.close()

    def _read(self, name: str, offset: int, length: int) -> bytes:
        if self._spool is None:
            return self._files.read(name, offset, length)
        if not self._is_stream:
            try:
                return self._files.read(name, offset, length)
            except NoRangesError as err:
                self._spool.check_room()
                _log.info("%s; shards are copied to a local folder instead", err)
                self._is_stream = True
        return self._spool.read(name, offset, length)


class FolderFiles:
    """The files of a local folder, kept open; `os.pread` moves no position, so forked processes may share them."""

    def __init__(self, base: str | Path, *, max_open: int = 64) -> None:
        self.base = Path(base)
        self.max_open = max_open
        self._open: dict[str, int] = {}

    def read(self, name: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset`` on, fewer where the file ends. Raises OSError if it cannot be read."""
        try:
            handle = self._handle(name)
            # A damaged index may ask for more than there is memory.
            if length > 1 << 26:
                length = max(0, min(length, os.fstat(handle).st_size - offset))
            return pread(handle, offset, length)
        except OSError as err:
            if err.errno is None or isinstance(err, (FileNotFoundError, PermissionError)):
                raise
            if err.errno != errno.ESTALE:
                raise OSError(err.errno, f"shard {self.base / name} cannot be read: {err.strerror}") from err
            # A network folder's file was replaced: what it is now decides, by its checksums.
            os.close(self._open.pop(name))
            return pread(self._handle(name), offset, length)

    def whole(self, name: str) -> bytes:
        """A whole (small) file."""
        return (self.base / name).read_bytes()

    def open(self, name: str) -> AbstractContextManager[Stream]:
        """A whole file as a stream."""
        return (self.base / name).open("rb")

    def size(self, name: str) -> int | None:
        """The size of a file as its name leads to it now, None if it is gone."""
        try:
            return (self.base / name).stat().st_size
        except OSError:
            return None

    def close(self) -> None:
        """Close the open files."""
        for handle in self._open.values():
            os.close(handle)
        self._open = {}

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": {}}

    def _handle(self, name: str) -> int:
        handle = self._open.get(name)
        if handle is None:
            path = self.base / name
            try:
                handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            except FileNotFoundError:
                raise FileNotFoundError(
                    f"shard {path} is not there; it was moved or removed since the index was made"
                ) from None
            except PermissionError:
                raise PermissionError(f"no permission to read shard {path}: change its rights (chmod u+r)") from None
            if len(self._open) >= self.max_open:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[name] = handle
        return handle


def files_of(base: str | Path, *, timeout: float = 60.0, max_open: int = 64) -> Files:
    """The files of a place; raises as `ShardReader` does."""
    kind = kind_of(base)
    if kind == "folder":
        return FolderFiles(base, max_open=max_open)
    if kind == "http":
        return HttpFiles(str(base), timeout=timeout)
    # Clients and commands take longer to import than all else here.
    from raccoon_datamodules.reader_stream import PipeFiles, StoreFiles

    return PipeFiles(str(base), timeout=timeout) if kind == "pipe" else StoreFiles(str(base))
