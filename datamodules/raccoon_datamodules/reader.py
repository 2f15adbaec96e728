"""Bytes by offset, from local files and over HTTP: nothing is read of a shard but what was asked for."""

import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

# Members that are closer than this are fetched in one go: a request costs more than the bytes between them.
_JOIN_BELOW = 64 << 10
_HTTP = re.compile(r"https?://", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)


def is_url(place: str | Path) -> bool:
    """Whether a place is to be read over HTTP.

    Raises:
        ValueError: if it names a scheme that cannot be read by offset (s3:, pipe:, ...).
    """
    text = str(place)
    if _HTTP.match(text):
        return True
    found = _SCHEME.match(text)
    # A single letter before the colon is a drive.
    if found and not isinstance(place, Path):
        raise ValueError(f"shards are read from local folders and http(s):// addresses, got {found[0]} in {text}")
    return False


def join(base: str | Path, name: str) -> str:
    """The place of a file ``name`` beside others in ``base``, a folder or an address."""
    return f"{str(base).rstrip('/')}/{name}" if is_url(base) else str(Path(base) / name)


class ShardReader:
    """Reads ranges of the files of one folder or address.

    Files are opened when first read and kept open; `os.pread` moves no shared position, so forked workers may
    share a reader. Pickled (for spawned workers) it opens its files again.
    """

    def __init__(self, base: str | Path, *, timeout: float = 60.0, max_open: int = 64) -> None:
        self.base = base
        self.timeout = timeout
        self.max_open = max_open
        self._is_url = is_url(base)
        self._files: dict[str, int] = {}

    def read(self, name: str, offset: int, length: int) -> bytes:
        """``length`` bytes of file ``name`` from ``offset`` on.

        Raises:
            FileNotFoundError: if the file is not there.
            OSError: if it ends early, cannot be read, or the server does not serve ranges.
        """
        data = self._fetch(name, offset, length) if self._is_url else self._pread(name, offset, length)
        if len(data) != length:
            raise OSError(
                f"{join(self.base, name)} ends before byte {offset + length}, to which the index says it goes on; it "
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

    def close(self) -> None:
        """Close the open files."""
        for handle in self._files.values():
            os.close(handle)
        self._files = {}

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_files": {}}

    def _pread(self, name: str, offset: int, length: int) -> bytes:
        handle = self._files.get(name)
        if handle is None:
            path = Path(self.base) / name
            try:
                handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            except FileNotFoundError:
                raise FileNotFoundError(
                    f"shard {path} is not there; it was moved or removed since the index was made"
                ) from None
            if len(self._files) >= self.max_open:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[name] = handle
        pieces = []
        while length > 0:
            # One pread returns at most 2 GiB on Linux.
            piece = os.pread(handle, min(length, 1 << 30), offset)
            if not piece:
                break
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        return b"".join(pieces)

    def _fetch(self, name: str, offset: int, length: int) -> bytes:
        if length == 0:
            return b""
        place = join(self.base, name)
        request = urllib.request.Request(place, headers={"Range": f"bytes={offset}-{offset + length - 1}"})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                if answer.status != 206:
                    raise OSError(
                        f"{place}: the server must serve byte ranges (status 206), it answered {answer.status}"
                    )
                data: bytes = answer.read(length)
                return data
        except urllib.error.HTTPError as err:
            # The error is also an open answer; without this its socket stays open until collected.
            err.close()
            if err.code == 404:
                raise FileNotFoundError(f"{place} is not there (HTTP 404)") from None
            raise OSError(f"{place}: HTTP {err.code} {err.reason}") from None
        except urllib.error.URLError as err:
            raise OSError(f"{place} cannot be reached: {err.reason}") from err
        except http.client.HTTPException as err:
            raise OSError(f"{place}: the answer broke off: {err!r}") from err


def read_whole(place: str, *, timeout: float = 60.0) -> bytes:
    """A whole small file, local or over HTTP.

    Raises:
        FileNotFoundError: if it is not there.
        OSError: if it cannot be read.
    """
    if not is_url(place):
        return Path(place).read_bytes()
    try:
        with urllib.request.urlopen(place, timeout=timeout) as answer:
            data: bytes = answer.read()
            return data
    except urllib.error.HTTPError as err:
        err.close()
        if err.code == 404:
            raise FileNotFoundError(f"{place} is not there (HTTP 404)") from None
        raise OSError(f"{place}: HTTP {err.code} {err.reason}") from None
    except urllib.error.URLError as err:
        raise OSError(f"{place} cannot be reached: {err.reason}") from err
