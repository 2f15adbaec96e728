"""Arrays out of an npz or npy whose headers are not believed: nothing beyond a bound is unpacked or made room for."""

import io
import math
import zipfile
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

# numpy writes no other; bzip2 and lzma unpack, or make room, without a bound.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """A file of an archive, of at most ``limit`` bytes.

    Raises:
        KeyError: if it is not there.
        ValueError: if it is larger, encrypted, or packed as numpy packs nothing.
        zipfile.BadZipFile, zlib.error, OSError, EOFError: if it is damaged.
    """
    entry = archive.getinfo(name)
    if entry.file_size > limit:
        raise ValueError(f"{name} unpacks to {entry.file_size} bytes, at most {limit} expected")
    if entry.compress_type not in _METHODS or entry.flag_bits & 1:
        raise ValueError(f"{name} must be stored or deflated and not encrypted")
    with archive.open(entry) as packed:
        return packed.read(limit)


def parse_array(data: bytes, name: str, *, max_dims: int = 4, kinds: str = "biufU") -> NDArray[Any]:
    """The array of an npy file, read-only and without a copy; ``kinds`` are the dtype kinds that are taken.

    Raises:
        ValueError: if it is none, or its header claims another size than there are bytes.
        SyntaxError, RecursionError, tokenize.TokenError, TypeError: for some damaged headers.
    """
    raw = io.BytesIO(data)
    if np.lib.format.read_magic(raw) != (1, 0):
        raise ValueError(f"{name} must be of version 1.0 of numpy's format")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(raw)
    fits = len(shape) <= max_dims and dtype.kind in kinds and min(shape, default=0) >= 0
    count = math.prod(shape)
    # numpy itself would make an array of whatever size the header claims.
    if not fits or raw.tell() + count * dtype.itemsize != len(data):
        what = "whole numbers [N]" if (max_dims, kinds) == (1, "iu") else f"an array of at most {max_dims} dimensions"
        raise ValueError(f"{name} must hold {what} and nothing else, it claims {dtype} {list(shape)}")
    array = np.frombuffer(data, dtype=dtype, offset=raw.tell()) if count else np.empty(0, dtype=dtype)
    return array.reshape(shape, order="F" if is_fortran else "C")


def read_arrays(file: BinaryIO, *, limit: int) -> dict[str, NDArray[Any]]:
    """The arrays of an npz, or the one of an npy under the name ``mask``, of at most ``limit`` bytes in all.

    Raises as `read_member` and `parse_array`; ValueError for an array of Python objects, or if there is more.
    """
    is_plain = file.read(6) == b"\x93NUMPY"
    file.seek(0)
    if is_plain:
        data = file.read(limit + 1)
        if len(data) > limit:
            raise ValueError(f"it has more than the {limit} bytes that are expected")
        return {"mask": parse_array(data, "it")}
    found: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            data = read_member(archive, name, limit)
            limit -= len(data)
            found[name.removesuffix(".npy")] = parse_array(data, name)
    return found
