"""Shards that can only be read from their start: each is copied to a local folder once, and read from there by offset.

Samples are shuffled within a window of shards, so a shard is needed until its window is through. The spool keeps the
shards that came last, up to a number of bytes; with room for a window no shard is read twice in an epoch, and a
continued run reads those again in whose window it stopped. All worker processes of a loader share one folder, and so do
the ranks of a run on one machine, as far as they run under one address of the main process (MASTER_ADDR, MASTER_PORT).
"""

import hashlib
import logging
import os
import secrets
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from raccoon_datamodules.atomic import FULL, is_locked, locked, share_lock

# Two windows of 8 shards of 1 GiB, the default of the datamodules and of the writer.
SPOOL_BYTES = 16 << 30

_PREFIX = "raccoon-spool-"
_GATE = ".gate"
_CHUNK = 1 << 20
_ATTEMPTS = 3
# For so long a shard that could not be had is not asked for again.
_REST = 30.0

_log = logging.getLogger(__name__)


class Stream(Protocol):
    """What a shard is read from."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes, none at the end."""
        ...


class Spool:
    """The files that ``open_stream`` opens by name, kept in a temporary folder (set TMPDIR to choose its disk).

    ``sizes`` holds what is known of the files' sizes: no more is read of one. ``max_bytes`` bounds what is kept.
    ``content`` tells the files from others of their names (an address and a fingerprint): ranks that say the same share
    a folder; without it a spool has its own. The folder is made when it is first needed and goes with the last process
    that made a spool for it; those that were killed leave it to the next spool.
    """

    def __init__(
        self,
        open_stream: Callable[[str], AbstractContextManager[Stream]],
        *,
        sizes: Mapping[str, int],
        max_bytes: int = SPOOL_BYTES,
        content: str | None = None,
    ) -> None:
        self.max_bytes = max_bytes
        token = secrets.token_hex(8)
        shared = _shared_name(content)
        self.folder = Path(tempfile.gettempdir()) / f"{_PREFIX}{shared or token}"
        # Of this spool and its workers': a folder is in use while one of its claims is locked.
        self._claim_file = self.folder / f".claim-{token}"
        self._open_stream = open_stream
        self._sizes = sizes
        self._maker = os.getpid()
        self._is_shared = shared is not None
        self._files: dict[str, int] = {}
        # At most one handle; a list, because the finalizer closes what is in it by then.
        self._claim: list[int] = []
        self._failed: dict[str, tuple[float, str]] = {}
        self._finish = self._finalizer()

    def check_room(self) -> None:
        """Raise ValueError if a file is larger than max_bytes."""
        for name, size in self._sizes.items():
            if size > self.max_bytes:
                raise ValueError(
                    f"a spool must have room for every shard, {name} has {size} bytes and spool_bytes is "
                    f"{self.max_bytes}; raise it (a window of shards should fit) or write smaller shards"
                )

    def read(self, name: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset`` on, fewer where the file ends.

        Raises:
            FileNotFoundError: if the file is not there.
            OSError: if it cannot be read, or the disk of the temporary folder is full.
        """
        handle = self._files.get(name)
        if handle is None:
            handle = self._files[name] = self._open(name)
        return pread(handle, offset, length)

    def close(self) -> None:
        """Close the files; in the process that made the spool, remove its folder too, unless others use it."""
        self._finish()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_files": {}, "_claim": [], "_failed": {}, "_maker": 0, "_finish": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._finish = self._finalizer()

    def _finalizer(self) -> "weakref.finalize[..., Spool]":
        """Closes the spool; it may run at any moment, between two lines of another spool of the same folder."""
        return weakref.finalize(
            self, _close, self._files, self._claim, self._claim_file, self._maker, is_shared=self._is_shared
        )

    def _open(self, name: str) -> int:
        when, why = self._failed.get(name, (0.0, ""))
        if why and time.monotonic() - when < _REST:
            raise OSError(why)
        self._enter()
        path = self.folder / name
        with _lock_file(self.folder / f"{name}.lock"):
            if not path.exists():
                try:
                    self._fetch(name, path)
                except OSError as err:
                    self._failed[name] = time.monotonic(), str(err)
                    raise
            handle = os.open(path, os.O_RDONLY)
        for known, other in list(self._files.items()):
            # Removed to make room: the disk has its bytes back once nobody holds it open.
            if os.fstat(other).st_nlink == 0:
                os.close(self._files.pop(known))
        return handle

    def _enter(self) -> None:
        """Make the folder, show that it is in use, and remove those of runs that were killed."""
        if self._claim and self._claim_file.exists():
            return
        while True:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            with suppress(FileNotFoundError), _gate(self.folder, wait=True):
                handle = os.open(self._claim_file, os.O_RDWR | os.O_CREAT, 0o600)
                share_lock(handle)
                break
        self._claim.append(handle)
        for other in self.folder.parent.glob(f"{_PREFIX}*"):
            if other != self.folder:
                _remove_unused(other)

    def _fetch(self, name: str, path: Path) -> None:
        part = path.with_name(f"{name}.part")
        size = self._sizes.get(name)
        try:
            for attempt in range(_ATTEMPTS):
                with _lock_file(self.folder / ".room"):
                    self._make_room(size or 0)
                    # Full length from the beginning, so that others reckon with it.
                    part.write_bytes(b"")
                    os.truncate(part, size or 0)
                try:
                    got = self._copy(name, part)
                    if size is None or got == size or attempt:
                        break
                    raise OSError(f"shard {name} ended after {got} of {size} bytes")
                except (FileNotFoundError, PermissionError):
                    raise
                except OSError as err:
                    if attempt + 1 == _ATTEMPTS:
                        raise
                    _log.info("%s; reading it again from its start", err)
                    if err.errno in FULL:
                        with _lock_file(self.folder / ".room"):
                            self._make_room(self.max_bytes)
                    else:
                        time.sleep(0.5 * 2**attempt)
            os.replace(part, path)
        except OSError as err:
            if err.errno in FULL:
                raise OSError(
                    err.errno,
                    f"no room left in {self.folder.parent} to keep shard {name} while it is read; set TMPDIR to a disk "
                    "with room for a window of shards",
                ) from err
            raise
        finally:
            part.unlink(missing_ok=True)

    def _copy(self, name: str, part: Path) -> int:
        """Copy a stream up to the file's size (if that is not known, the spool's); return its number of bytes."""
        limit = self._sizes.get(name, self.max_bytes)
        got = 0
        with self._open_stream(name) as stream, part.open("r+b") as out:
            while got < limit and (piece := stream.read(min(limit - got, _CHUNK))):
                out.write(piece)
                got += len(piece)
            out.truncate(got)
        return got

    def _make_room(self, wanted: int) -> None:
        """Remove what came first until ``wanted`` bytes fit."""
        kept = []
        total = wanted
        for path in (*self.folder.glob("*.tar"), *self.folder.glob("*.part")):
            with suppress(FileNotFoundError):
                found = path.stat()
                total += found.st_size
                kept.append((found.st_mtime_ns, found.st_size, path))
        for _, size, path in sorted(kept):
            if total <= self.max_bytes:
                return
            if path.suffix == ".tar":
                path.unlink(missing_ok=True)
                total -= size


def _close(files: dict[str, int], claims: list[int], claim: Path, maker: int, *, is_shared: bool) -> None:
    for handle in (*files.values(), *claims):
        os.close(handle)
    files.clear()
    claims.clear()
    if maker != os.getpid():
        return
    if is_shared:
        # Workers of this process may still hold it; they end with it.
        with suppress(OSError):
            claim.unlink()
        _remove_unused(claim.parent)
    else:
        shutil.rmtree(claim.parent, ignore_errors=True)


def _shared_name(content: str | None) -> str | None:
    """What the ranks of one run on one machine call the folder of the same files; None if there is but one process."""
    run = [os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT")]
    if content is None or not all(run):
        return None
    return hashlib.sha256("\0".join([*run, str(os.getuid()), content]).encode()).hexdigest()[:16]


def _remove_unused(folder: Path) -> None:
    """Remove a spool's folder if no claim to it is locked, and nobody is entering it."""
    gone = folder.with_name(f"{_PREFIX}{secrets.token_hex(8)}")
    with suppress(OSError):
        with _gate(folder, wait=False):
            if any(is_locked(claim) for claim in folder.glob(".claim*")):
                return
            os.rename(folder, gone)
        # The gate last: with it, what a killed process leaves here is found again.
        for path in gone.iterdir():
            if path.name != _GATE:
                path.unlink()
        shutil.rmtree(gone)


@contextmanager
def _gate(folder: Path, *, wait: bool) -> Iterator[None]:
    """Alone with a folder, for entering (``wait``) or removing it.

    Raises FileNotFoundError if it went meanwhile, and BlockingIOError if somebody is there and this does not wait.
    """
    handle = os.open(folder / _GATE, os.O_RDWR | (os.O_CREAT if wait else 0), 0o600)
    try:
        with locked(handle, wait=wait):
            if not os.path.samestat(os.fstat(handle), (folder / _GATE).stat()):
                raise FileNotFoundError(folder)
            yield
    finally:
        os.close(handle)


@contextmanager
def _lock_file(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with locked(handle):
            yield
    finally:
        os.close(handle)


def pread(handle: int, offset: int, length: int) -> bytes:
    """``length`` bytes of an open file from ``offset`` on, fewer at its end; moves no position that others share."""
    pieces = []
    while length > 0:
        # One pread returns at most 2 GiB on Linux.
        piece = os.pread(handle, min(length, 1 << 30), offset)
        if not piece:
            break
        pieces.append(piece)
        offset, length = offset + len(piece), length - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
