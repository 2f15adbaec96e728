"""Mask files as people have them, to one uint8 {0, 1} [F, H, W] array: image folders, single images, npz, npy, videos.

How a picture becomes a mask, 1 = edit here:

- a palette or label image (at most 16 different values in the whole folder): every value but 0, or those asked for;
- any other PNG (a soft edge): from the middle of its range, 128 of 255;
- a JPEG or a mask video: from 128, since compression smears values;
- an image whose transparency varies: where its alpha is at least 128.
"""

import re
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from raccoon_datamodules.limits import MAX_DECODED_BYTES, MAX_PIXELS
from raccoon_datamodules.npz import read_arrays
from raccoon_datamodules.video_read import read_frames

_LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".ppm")
_JPEG = (".jpg", ".jpeg")
IMAGE_SUFFIXES = _LOSSLESS + _JPEG
# More different values than this are no labels but a soft edge.
_MOST_LABELS = 16


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which "2.png" comes before "10.png"."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def image_files(folder: Path) -> list[Path]:
    """The images of a folder in natural order.

    Raises:
        ValueError: if there are none; the sentence names the folders in it, if any.
    """
    files = [
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".") and entry.is_file()
    ]
    if not files:
        inner = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        hint = f"; it holds the folders {', '.join(inner[:5])}: name one of them" if inner else ""
        raise ValueError(f"{folder} must hold one mask image per frame (PNG or JPEG), there is none{hint}")
    return sorted(files, key=lambda file: natural_key(file.name))


def read_images(files: Sequence[Path], size: tuple[int, int], object_ids: Sequence[int] | None) -> NDArray[np.uint8]:
    """Read mask images of one (height, width) to uint8 {0, 1} [F, H, W].

    Raises:
        ValueError: if an image cannot be read or has another size, or ``object_ids`` are asked of colours or of a JPEG.
    """
    pictures, faults = [], []
    for file in files:
        values = _values(file, want_ids=object_ids is not None)
        if values.shape != size:
            faults.append(f"{file.name} is {values.shape[1]}x{values.shape[0]}")
        pictures.append(values)
    if faults:
        more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise ValueError(
            f"the masks in {files[0].parent} must have the video's size {size[1]}x{size[0]}, but {faults[0]}{more}; "
            "make them at the video's size"
        )
    if object_ids is not None:
        return np.stack([np.isin(values, list(object_ids)) for values in pictures]).astype(np.uint8)
    present: set[int] = set()
    for values in pictures:
        if len(present) <= _MOST_LABELS:
            present.update(np.unique(values).tolist())
    middle = 128 if max(present) < 256 else 32768
    cut = 1 if len(present) <= _MOST_LABELS else middle
    return np.stack([values >= cut for values in pictures]).astype(np.uint8)


def _values(file: Path, *, want_ids: bool) -> NDArray[np.integer]:
    """One image as whole numbers [H, W]; palette images give the index, colours their largest channel."""
    try:
        with Image.open(file) as opened:
            # Before its pixels are made.
            if opened.width * opened.height > MAX_PIXELS:
                claim = f"{opened.width}x{opened.height}"
                raise ValueError(f"it claims to be {claim}, more than {MAX_PIXELS} pixels are not read")
            opened.load()
            image: Image.Image = opened
    except PermissionError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as err:
        raise ValueError(f"the mask image {file} cannot be read, it is damaged or no image: {err}") from err
    if file.suffix.lower() in _JPEG:
        if want_ids:
            raise ValueError(f"object ids cannot be read from {file}: JPEG changes the values; use PNG masks")
        return (np.asarray(image.convert("L")) >= 128).astype(np.uint8)
    if image.mode in ("LA", "RGBA", "PA"):
        alpha = np.asarray(image.getchannel("A"))
        if alpha.min() != alpha.max():
            return (alpha >= 128).astype(np.uint8)
        image = image.convert("L" if image.mode == "LA" else "RGB")
    array = np.asarray(image)
    if array.ndim == 3:
        if want_ids:
            raise ValueError(f"object ids need a palette or grey label image, {file} is in colours ({image.mode})")
        array = array.max(axis=2)
    if array.dtype.kind == "f":
        array = np.rint(array * 255 if array.max() <= 1 else array)
    return array.astype(np.int32 if array.dtype.itemsize > 1 else np.uint8)


def read_npz(file: Path) -> dict[str, NDArray]:
    """The members of an npz, or the single array of an npy under the name ``mask``; pickles are refused.

    Raises:
        ValueError: if the file is damaged, holds Python objects, or unpacks to more than `limits` allows.
    """
    try:
        with file.open("rb") as opened:
            return read_arrays(opened, limit=MAX_DECODED_BYTES)
    except PermissionError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        tokenize.TokenError,
        ValueError,
        EOFError,
        OSError,
        KeyError,
        TypeError,
        SyntaxError,
        RuntimeError,
    ) as err:
        raise ValueError(f"{file} must be a mask file written by write_masks, it cannot be read: {err}") from err


def read_mask_video(file: Path) -> NDArray[np.uint8]:
    """A mask video to uint8 {0, 1} [F, H, W]: set where the brightest channel is at least 128."""
    return (read_frames(file).frames.max(axis=3) >= 128).astype(np.uint8)
