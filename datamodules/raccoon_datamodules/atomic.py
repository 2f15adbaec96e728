"""Files that appear whole or not at all: write under a temporary name in the same folder, then rename."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:
    fcntl = None

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def locked(handle: int, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of an open file against other processes, on other machines too where the file system passes it on.

    Where there are no locks (Windows, some network folders) it does nothing. Without ``wait`` it raises BlockingIOError
    while somebody else holds it.
    """
    if fcntl is None:
        yield
        return
    held = False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = True
    except BlockingIOError:
        raise
    except OSError:
        pass
    try:
        yield
    finally:
        if held:
            fcntl.flock(handle, fcntl.LOCK_UN)


def share_lock(handle: int) -> None:
    """Lock an open file until it is closed, together with others that do so; see `is_locked`."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)


def is_locked(path: Path) -> bool:
    """Whether somebody holds a lock on a file, or that cannot be told. Raises FileNotFoundError if it is not there."""
    handle = os.open(path, os.O_RDWR)
    try:
        if fcntl is None:
            return True
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block ends well it takes the name ``path``, else it is removed.

    The temporary name keeps the suffix (writers choose their format by it) and starts with a dot. Nothing that stands
    at ``path`` is touched before the block has ended well, so ``path`` may be read meanwhile. A KeyboardInterrupt
    removes the temporary file too. Without ``overwrite``, a file that appears at ``path`` meanwhile is kept as well.

    Raises:
        FileNotFoundError: if the folder of ``path`` is not there.
        NotADirectoryError: if what should be the folder is a file.
        IsADirectoryError: if ``path`` is a folder.
        FileExistsError: if ``path`` exists and ``overwrite`` is False.
        PermissionError: if the folder does not let a file be made in it.
        OSError: if the disk or the quota is full; the sentence names the place.
    """
    path = Path(path)
    check_writable(path, overwrite=overwrite)
    temporary = path.with_name(f".{path.stem[:80]}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        # Made here, so that an unwritable folder is found before any work is done.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except PermissionError as err:
        raise PermissionError(f"no permission to write in {path.parent}: choose another folder") from err
    except OSError as err:
        if err.errno in FULL:
            raise disk_full(path, err) from err
        raise OSError(err.errno, f"cannot write {path}: {err.strerror or err}") from err
    try:
        yield temporary
        if not overwrite and path.exists():
            raise FileExistsError(f"{path} appeared while it was being written: pass --overwrite to replace it")
        os.replace(temporary, path)
    except OSError as err:
        if err.errno in FULL:
            raise disk_full(path, err) from err
        raise
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def check_writable(path: Path, *, overwrite: bool = False) -> None:
    """Raise what `replacing` would raise about ``path`` before any work is done; makes nothing."""
    parent = path.parent
    if not parent.exists():
        raise FileNotFoundError(f"the folder {parent} for {path.name} does not exist: make it first")
    if not parent.is_dir():
        raise NotADirectoryError(f"{parent} must be a folder to write {path.name} into, it is a file")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, a file name is needed")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already: pass --overwrite to replace it, or choose another name")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(f"no permission to write in {parent}: choose another folder")


def disk_full(path: Path, err: OSError) -> OSError:
    """The one sentence about a full disk, with the cause's number."""
    text = f"no room left to write {path}; nothing was changed there: free some space or choose another disk"
    return OSError(err.errno, text)
