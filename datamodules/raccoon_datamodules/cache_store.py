"""A folder of computed tensors by the hash of what they were computed from, in few large packs.

    cache.json            format, schema and the dtype of what is kept in reduced precision
    pack-ID.bin           tensors end to end
    pack-ID.npz           its index: keys [n, 16], offset, length, crc32, layout [n]; layouts (JSON)

A key is a hash of everything that decides about a tensor (`key_of`), so a stale one is never found: what has changed
has another key. A pack takes its place whole, its index last; processes write packs of their own, so any number may
write into a folder, and what an interrupted one finished is kept. A tensor that two of them made stands there twice.
"""

import io
import json
import os
import secrets
import time
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raccoon_datamodules.atomic import FULL, disk_full, replacing

CACHE_FORMAT = "raccoon-cache"
# Part of every key: to be raised whenever the same inputs would give other tensors.
CACHE_SCHEMA = 1
MANIFEST = "cache.json"
KEY_BYTES = 16

CacheDtype = Literal["float16", "bfloat16", "float32"]

_DTYPES = {name: getattr(torch, name) for name in ("float16", "bfloat16", "float32", "int16", "int32")}
# A killed run loses at most this much of its work.
_PACK_SECONDS = 60.0


def key_of(*parts: str | int) -> bytes:
    """The key of a tensor: the hash of all that decides about it, in order; 16 bytes."""
    text = json.dumps([CACHE_SCHEMA, *parts], ensure_ascii=False, separators=(",", ":"))
    return blake2b(text.encode(), digest_size=KEY_BYTES).digest()


def create_cache(folder: str | Path, dtype: CacheDtype) -> None:
    """Make a cache's folder, or accept the one that is there.

    Raises:
        ValueError: if the dtype is unknown, or the folder is a cache of another schema or dtype.
        NotADirectoryError: if it is a file.
        OSError: if it cannot be made.
    """
    folder = Path(folder)
    if dtype not in get_args(CacheDtype):
        raise ValueError(f"dtype must be one of {', '.join(get_args(CacheDtype))}, got {dtype!r}")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"a cache is a folder, {folder} is a file")
    if (folder / MANIFEST).exists():
        found = _manifest(folder)["dtype"]
        if found != dtype:
            raise ValueError(f"the cache {folder} holds {found}, not {dtype}; write {dtype} into another folder")
        return
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": CACHE_FORMAT, "schema": CACHE_SCHEMA, "dtype": dtype}, indent=2) + "\n"
    with replacing(folder / MANIFEST, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")


class CacheReader:
    """What a cache's folder held when this was made.

    Indexes are kept in memory, 40 bytes a tensor; tensors are read by offset. Forked and spawned workers may share it.

    Raises:
        FileNotFoundError: if there is no cache in the folder.
        ValueError: if it is of another schema, or an index is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.dtype: CacheDtype = _manifest(self.folder)["dtype"]
        self._packs: list[str] = []
        self._layouts: list[tuple[torch.dtype, tuple[int, ...], bool]] = []
        self._files: dict[int, int] = {}
        columns: list[tuple[NDArray[Any], ...]] = [_empty_columns()]
        for path in sorted(self.folder.glob("pack-*.npz")):
            columns.append(self._load(path))
        every = [np.concatenate(parts) for parts in zip(*columns, strict=True)]
        order = np.argsort(every[0], kind="stable")
        self._keys, self._pack, self._offset, self._length, self._crc, self._layout = (c[order] for c in every)

    def __len__(self) -> int:
        """Number of tensors, those that stand there twice counted twice."""
        return len(self._keys)

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors as stored."""
        return int(self._length.sum(dtype=np.int64))

    def has(self, keys: Sequence[bytes]) -> list[bool]:
        """Whether there is a tensor for each key."""
        return [place is not None for place in self._find(keys)]

    def get(self, keys: Sequence[bytes]) -> list[Tensor] | None:
        """The tensors of keys, or None if one is missing or its bytes are not those that were written."""
        places = self._find(keys)
        found = []
        for place in places:
            tensor = None if place is None else self._read(place)
            if tensor is None:
                return None
            found.append(tensor)
        return found

    def close(self) -> None:
        """Close the open packs."""
        for handle in self._files.values():
            with suppress(OSError):
                os.close(handle)
        self._files = {}

    def __del__(self) -> None:
        if hasattr(self, "_files"):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    def _find(self, keys: Sequence[bytes]) -> list[int | None]:
        if not len(self._keys) or not keys:
            return [None] * len(keys)
        wanted = np.array(keys, dtype=f"S{KEY_BYTES}")
        places = np.searchsorted(self._keys, wanted)
        inside = np.minimum(places, len(self._keys) - 1)
        same = self._keys[inside] == wanted
        return [int(place) if is_there else None for place, is_there in zip(inside, same, strict=True)]

    def _read(self, place: int) -> Tensor | None:
        pack, length = int(self._pack[place]), int(self._length[place])
        handle = self._files.get(pack)
        try:
            if handle is None:
                handle = self._files[pack] = os.open(self.folder / self._packs[pack], os.O_RDONLY)
            data = os.pread(handle, length, int(self._offset[place]))
        except OSError:
            return None
        if len(data) != length or zlib.crc32(data) != int(self._crc[place]):
            return None
        dtype, shape, is_packed = self._layouts[int(self._layout[place])]
        raw = bytearray(zlib.decompress(data)) if is_packed else bytearray(data)
        return torch.frombuffer(raw, dtype=dtype).reshape(shape) if raw else torch.empty(shape, dtype=dtype)

    def _load(self, path: Path) -> tuple[NDArray[Any], ...]:
        pack = path.with_suffix(".bin")
        try:
            # In memory first: a file that is no archive would be left open.
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                keys, offset, length, crc, layout = (file[name] for name in _COLUMNS)
                layouts = json.loads(bytes(file["layouts"]))
            count = len(keys)
            if keys.shape != (count, KEY_BYTES) or any(len(c) != count for c in (offset, length, crc, layout)):
                raise ValueError("its columns differ in length")
            if count and (int((offset + length).max()) > pack.stat().st_size or int(layout.max()) >= len(layouts)):
                raise ValueError(f"it points past the end of {pack.name}")
            first = len(self._layouts)
            self._layouts += [(_DTYPES[str(d)], tuple(map(int, shape)), bool(z)) for d, shape, z in layouts]
        except (OSError, ValueError, KeyError, TypeError, EOFError, zlib.error, zipfile.BadZipFile) as err:
            raise ValueError(
                f"the cache's index {path} is damaged ({err}); delete {path.stem}.* and run `raccoon cache` again"
            ) from err
        self._packs.append(pack.name)
        flat = np.ascontiguousarray(keys, dtype=np.uint8).view(f"S{KEY_BYTES}").reshape(-1)
        number = np.full(count, len(self._packs) - 1, dtype=np.int32)
        return flat, number, offset, length, crc, layout.astype(np.int32) + first


class PackWriter:
    """Writes tensors into packs of a cache's folder; a context manager, which keeps what is complete in any case.

    Raises:
        OSError: when the disk is full; what was finished before is kept.
    """

    def __init__(self, folder: str | Path, *, max_bytes: int = 256 << 20) -> None:
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self.num_tensors = 0
        self._id = ""
        self._file: BinaryIO | None = None
        self._began = 0.0
        self._rows: list[tuple[bytes, int, int, int, int]] = []
        self._layouts: dict[tuple[str, tuple[int, ...], bool], int] = {}

    def add(self, key: bytes, tensor: Tensor, *, pack: bool = False) -> None:
        """Write a tensor under a key; with ``pack`` its bytes are deflated, which pays for labels."""
        tensor = tensor.detach().to("cpu").contiguous()
        name = str(tensor.dtype).removeprefix("torch.")
        if name not in _DTYPES:
            raise TypeError(f"a cache keeps {', '.join(_DTYPES)}, got {name}")
        data = tensor.flatten().view(torch.uint8).numpy().tobytes()
        data = zlib.compress(data, 1) if pack else data
        if self._file is None:
            self._open()
        assert self._file is not None
        offset = self._file.tell()
        try:
            self._file.write(data)
        except OSError as err:
            self._drop()
            if err.errno in FULL:
                raise disk_full(self.folder, err) from err
            raise
        layout = self._layouts.setdefault((name, tuple(tensor.shape), pack), len(self._layouts))
        self._rows.append((key, offset, len(data), zlib.crc32(data), layout))
        self.num_bytes += len(data)
        self.num_tensors += 1
        if offset + len(data) >= self.max_bytes or time.monotonic() - self._began > _PACK_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Give what was added its place; a reader made after this finds it."""
        if self._file is None:
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._part, self.folder / f"pack-{self._id}.bin")
            keys, *columns = zip(*self._rows, strict=True)
            arrays: dict[str, Any] = {"keys": np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, KEY_BYTES)}
            arrays |= {n: np.array(c, dtype=np.int64) for n, c in zip(_COLUMNS[1:], columns, strict=True)}
            arrays["layouts"] = np.frombuffer(json.dumps(list(self._layouts)).encode(), dtype=np.uint8)
            with replacing(self.folder / f"pack-{self._id}.npz") as temporary:
                np.savez(temporary, **arrays)
        except OSError as err:
            self._drop()
            if err.errno in FULL:
                raise disk_full(self.folder, err) from err
            raise
        self._file, self._rows, self._layouts = None, [], {}

    def __enter__(self) -> "PackWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    @property
    def _part(self) -> Path:
        return self.folder / f".pack-{self._id}.bin.part"

    def _open(self) -> None:
        self._id, self._began = secrets.token_hex(8), time.monotonic()
        self._file = self._part.open("xb")

    def _drop(self) -> None:
        """Remove an unfinished pack."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            with suppress(OSError):
                self._part.unlink()
        self._file, self._rows, self._layouts = None, [], {}


_COLUMNS = ("keys", "offset", "length", "crc32", "layout")


def _empty_columns() -> tuple[NDArray[Any], ...]:
    numbers = [np.zeros(0, dtype=np.int64) for _ in range(4)]
    return np.zeros(0, dtype=f"S{KEY_BYTES}"), np.zeros(0, dtype=np.int32), *numbers


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"there is no cache in {folder}: {MANIFEST} is missing; `raccoon cache --config RECIPE --out {folder}` "
            "makes one"
        ) from None
    except ValueError as err:
        raise ValueError(f"{path} must be JSON: {err}; delete it and run `raccoon cache` again") from err
    if not isinstance(value, dict) or value.get("format") != CACHE_FORMAT:
        raise ValueError(f'{path} is not that of a cache: it must hold "format": "{CACHE_FORMAT}"')
    if value.get("schema") != CACHE_SCHEMA or value.get("dtype") not in get_args(CacheDtype):
        raise ValueError(
            f"{path} has schema {value.get('schema')!r} and dtype {value.get('dtype')!r}, this version of raccoon "
            f"reads schema {CACHE_SCHEMA}; write a new cache into another folder"
        )
    return value
