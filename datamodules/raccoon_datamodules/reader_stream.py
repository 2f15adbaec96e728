"""Files that a store's client or a command hands over: ``s3://``, ``gs://``, ``hf://`` by fsspec, ``pipe:COMMAND``."""

import importlib
import io
import os
import re
import select
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, TypeVar

from raccoon_datamodules.faults import foreign
from raccoon_datamodules.places import join
from raccoon_datamodules.reader_http import NoRangesError
from raccoon_datamodules.spool import Stream

T = TypeVar("T")

_CLIENTS = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "hf": "huggingface_hub",
    "oci": "ocifs",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "smb": "smbprotocol",
    "hdfs": "pyarrow",
}


class StoreFiles:
    """The files at an address that fsspec has a client for, by byte ranges where the client can.

    Credentials and endpoints are the client's own matter (its environment variables and configuration files).

    Raises:
        ImportError: if the client's package is not installed; it is named.
        ValueError: if fsspec knows no such address.
    """

    def __init__(self, base: str) -> None:
        self.base = base
        self._made: tuple[int, Any, str] | None = None
        _check_client(base)

    def read(self, name: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset`` on, fewer where the file ends.

        Raises:
            FileNotFoundError: if the file is not there.
            NoRangesError: if the client can only read from the start.
            OSError: if the file cannot be read.
        """
        place = join(self.base, name)
        store, path = self._store(name)
        if not length:
            return b""
        try:
            # The base class of clients opens the file and seeks; those of object stores ask for the range.
            data: bytes = _told(lambda: store.cat_file(path, start=offset, end=offset + length), place)
        except (ValueError, AttributeError) as err:
            # io.UnsupportedOperation is a ValueError as well.
            raise NoRangesError(f"{place} can only be read from its start ({err})") from err
        if len(data) > length:
            raise NoRangesError(f"{place} is given as a whole only")
        return data

    def whole(self, name: str) -> bytes:
        """A whole (small) file. Raises FileNotFoundError, or OSError if it cannot be read."""
        store, path = self._store(name)

        def get() -> bytes:
            with store.open(path, "rb") as stream:
                data: bytes = stream.read()
                return data

        return _told(get, join(self.base, name))

    @contextmanager
    def open(self, name: str) -> Iterator[Stream]:
        """A whole file as a stream. Raises FileNotFoundError, or OSError if it cannot be read."""
        place = join(self.base, name)
        store, path = self._store(name)
        with _told(lambda: store.open(path, "rb"), place) as stream:
            yield _StoreStream(stream, place)

    def close(self) -> None:
        """Let go of the client; fsspec may keep it for others."""
        self._made = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_made": None}

    def _store(self, name: str) -> tuple[Any, str]:
        if self._made is None or self._made[0] != os.getpid():
            # A client's connections and threads do not survive a fork.
            url_to_fs = importlib.import_module("fsspec.core").url_to_fs
            self._made = os.getpid(), *_told(lambda: url_to_fs(self.base), self.base)
        _, store, root = self._made
        return store, f"{root.rstrip('/')}/{name}"


class _StoreStream:
    def __init__(self, stream: Stream, place: str) -> None:
        self._stream = stream
        self._place = place

    def read(self, size: int, /) -> bytes:
        return _told(lambda: self._stream.read(size), self._place)


def _check_client(base: str) -> None:
    fsspec = importlib.import_module("fsspec")
    scheme = re.split(r"::|:", base, maxsplit=1)[0].lower()
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as err:
        package = _CLIENTS.get(scheme)
        how = f"needs the package {package}: pip install {package}" if package else f"needs another package: {err}"
        raise ImportError(f"reading {base} {how}") from err
    except ValueError as err:
        raise ValueError(
            f"shards are read from local folders, http(s)://, s3://, gs://, hf:// and what else fsspec reads, "
            f"and pipe:COMMAND; {scheme}: in {base} is none of these"
        ) from err


def _told(work: Callable[[], T], place: str) -> T:
    """The result of a call to a client; what it raises names the place."""
    try:
        return foreign(work)
    except FileNotFoundError as err:
        raise FileNotFoundError(f"{place} is not there") from err
    except PermissionError as err:
        raise PermissionError(f"{place} may not be read with these credentials: {err}") from err
    except (io.UnsupportedOperation, ValueError, AttributeError):
        raise
    except OSError as err:
        raise OSError(f"{place}: {str(err) or type(err).__name__}") from err


class PipeFiles:
    """The files that a command of the user's writes out, ``{name}`` in it standing for the file's name.

    ``timeout``: seconds without a byte after which the command is given up.

    Raises:
        ValueError: if the command has no ``{name}``.
    """

    def __init__(self, base: str, *, timeout: float = 60.0) -> None:
        self.base = base
        self.timeout = timeout
        join(base, "index.json")

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Raises NoRangesError: a pipe has no offsets."""
        raise NoRangesError(f"{self.base} can only be read from its start")

    def whole(self, name: str) -> bytes:
        """All that the command writes. Raises OSError if it fails."""
        with self.open(name) as stream:
            return b"".join(iter(lambda: stream.read(1 << 20), b""))

    @contextmanager
    def open(self, name: str) -> Iterator[Stream]:
        """What the command writes; reading raises OSError if it fails. It is stopped if it is not read to its end."""
        command = join(self.base, name).removeprefix("pipe:")
        with tempfile.TemporaryFile() as words:
            # A session of its own, so that a whole pipeline can be stopped.
            process = subprocess.Popen(
                command,
                shell=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=words,
                start_new_session=True,
            )
            try:
                yield _PipeStream(process, command, words, self.timeout)
            finally:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()

    def close(self) -> None:
        """Nothing is kept open."""


class _PipeStream:
    def __init__(self, process: "subprocess.Popen[bytes]", command: str, words: IO[bytes], timeout: float) -> None:
        assert process.stdout is not None
        self._process = process
        self._handle = process.stdout.fileno()
        self._command = command
        self._words = words
        self._timeout = timeout

    def read(self, size: int, /) -> bytes:
        # Not select, which knows no handle above 1023.
        waiting = select.poll()
        waiting.register(self._handle, select.POLLIN)
        if not waiting.poll(self._timeout * 1000):
            raise OSError(f"{self._command}: it gave no byte for {self._timeout:g} s and was stopped")
        data = os.read(self._handle, size)
        if not data:
            try:
                status = self._process.wait(self._timeout)
            except subprocess.TimeoutExpired:
                raise OSError(f"{self._command}: it closed its output and did not end") from None
            if status:
                self._words.seek(max(0, self._words.seek(0, os.SEEK_END) - 2000))
                lines = self._words.read().decode("utf-8", "replace").split("\n")
                said = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
                raise OSError(f"{self._command}: it failed with status {status}: {said[:300]}")
        return data
