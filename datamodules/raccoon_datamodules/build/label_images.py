"""Label images to one mask for each object: palette, grey, 16-bit, colour, transparent, soft and JPEG pictures.

What a value means, over all the pictures of a clip:

- 0 is the background;
- 255 (65535 with 16 bits) beside labels that are all below 128 is "unknown", as DAVIS and YouTube-VOS write it: no
  object; alone it is the one object of a black and white mask, with the id 1;
- colours of the usual palette of label images (PASCAL VOC's) are the indices they stand for, other colours are objects
  called by their hexadecimal value;
- a grey picture without a palette that has more than 16 different values has soft edges: one object, from the middle of
  the range; so is a JPEG, and a picture whose transparency varies, by its alpha.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

_JPEG = (".jpg", ".jpeg")
_MOST_LABELS = 16
_UNKNOWN = {255: 128, 65535: 32768}

LabelKind = Literal["index", "grey", "colour", "mask"]


@dataclass(frozen=True, slots=True)
class LabelImage:
    """A picture's values int32 [H, W] and what they are.

    "index": palette indices; "grey": grey values; "colour": 0xRRGGBB; "mask": already {0, 1}.
    """

    values: NDArray[np.int32]
    kind: LabelKind


def read_label_image(path: Path) -> LabelImage:
    """Read one label image.

    Raises:
        ValueError: if it is damaged or no picture.
        OSError: if it cannot be opened.
    """
    try:
        with path.open("rb") as raw, Image.open(raw) as opened:
            opened.load()
            image: Image.Image = opened.copy()
            has_key = "transparency" in opened.info
    except (UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as err:
        raise ValueError(f"the label image {path.name} is damaged or no picture: {err}") from err
    except OSError as err:
        # Pillow's word for a file that is cut off; what the system says has a number.
        if err.errno is not None:
            raise
        raise ValueError(f"the label image {path.name} is damaged or no picture: {err}") from err
    if path.suffix.lower() in _JPEG:
        return LabelImage((np.asarray(image.convert("L")) >= 128).astype(np.int32), "mask")
    if image.mode == "P":
        return LabelImage(np.asarray(image).astype(np.int32), "index")
    if image.mode == "1":
        return LabelImage(np.asarray(image).astype(np.int32), "mask")
    if image.mode in ("LA", "RGBA", "PA", "La", "RGBa") and not has_key:
        alpha = np.asarray(image.getchannel(len(image.getbands()) - 1))
        if alpha.min() != alpha.max():
            return LabelImage((alpha >= 128).astype(np.int32), "mask")
        image = image.convert("L" if image.mode in ("LA", "La") else "RGB")
    array = np.asarray(image)
    if array.ndim == 2:
        if array.dtype.kind == "f":
            array = np.rint(array * (255 if array.max(initial=0) <= 1 else 1))
        return LabelImage(array.astype(np.int32), "grey")
    array = np.asarray(image.convert("RGB")).astype(np.int32)
    if (array == array[:, :, :1]).all():
        return LabelImage(np.ascontiguousarray(array[:, :, 0]), "grey")
    return LabelImage(array[:, :, 0] << 16 | array[:, :, 1] << 8 | array[:, :, 2], "colour")


def shrink(image: LabelImage, height: int, width: int) -> LabelImage:
    """The picture in another size, by its nearest pixels, so that no new label appears between two."""
    if image.values.shape == (height, width):
        return image
    # OpenCV resizes no int32; float64 holds every one of them.
    resized = cv2.resize(image.values.astype(np.float64), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return LabelImage(resized.astype(np.int32), image.kind)


def objects_in(images: Sequence[LabelImage]) -> tuple[dict[str, NDArray[np.uint8]], list[str]]:
    """The objects of a clip's label images, all of one size: id to mask uint8 {0, 1} [F, H, W], and notes in words.

    Ids are in the order of the labels' numbers.
    """
    notes = []
    kinds = {image.kind for image in images}
    colours = [image.values for image in images if image.kind == "colour"]
    if colours:
        # Black and white pictures among coloured ones are read as colours too.
        every = [_as_colour(image) for image in images]
        present = np.unique(np.concatenate([np.unique(values) for values in every]))
        palette = _voc_palette()
        if all(int(value) in palette for value in present):
            notes.append("colours of the usual palette are read as its indices")
            return _split([_lookup(values, present, palette) for values in every], notes), notes
        if len(present) > _MOST_LABELS:
            notes.append("more than 16 colours: read as one mask, from the middle of the brightest channel")
            bright = [_brightest(values) >= 128 for values in every]
            return _named({"1": np.stack(bright)}), notes
        notes.append("colours that are no usual palette: objects are called by them")
        ids = {f"{int(value):06x}": np.stack([values == value for values in every]) for value in present if value}
        return _named(ids), notes
    values = [image.values for image in images]
    present = np.unique(np.concatenate([np.unique(array) for array in values]))
    if "grey" in kinds and len(present) > _MOST_LABELS:
        middle = 128 if present[-1] < 256 else 32768
        notes.append(f"{len(present)} different values: soft edges, cut at {middle}")
        return _named({"1": np.stack([array >= middle for array in values])}), notes
    return _split(values, notes), notes


def _split(values: list[NDArray[np.int32]], notes: list[str]) -> dict[str, NDArray[np.uint8]]:
    labels = [int(v) for v in np.unique(np.concatenate([np.unique(array) for array in values])) if v]
    if len(labels) == 1 and labels[0] in _UNKNOWN:
        return _named({"1": np.stack([array == labels[0] for array in values])})
    if len(labels) > 1 and labels[-1] in _UNKNOWN and labels[-2] < _UNKNOWN[labels[-1]]:
        notes.append(f"the value {labels[-1]} beside labels is unknown territory: no object")
        labels = labels[:-1]
    return _named({str(label): np.stack([array == label for array in values]) for label in labels})


def _named(masks: dict[str, NDArray[np.bool_]]) -> dict[str, NDArray[np.uint8]]:
    return {name: mask.astype(np.uint8) for name, mask in masks.items() if mask.any()}


def _as_colour(image: LabelImage) -> NDArray[np.int32]:
    if image.kind == "colour":
        return image.values
    grey = np.clip(image.values * (255 if image.kind == "mask" else 1), 0, 255)
    return (grey << 16 | grey << 8 | grey).astype(np.int32)


def _brightest(values: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.maximum(np.maximum(values >> 16, values >> 8 & 255), values & 255)


def _lookup(values: NDArray[np.int32], present: NDArray[np.int32], palette: dict[int, int]) -> NDArray[np.int32]:
    indices = np.array([palette[int(value)] for value in present], dtype=np.int32)
    return indices[np.searchsorted(present, values)]


def _voc_palette() -> dict[int, int]:
    """Colour 0xRRGGBB to index, for the 256 colours that DAVIS, YouTube-VOS and PASCAL VOC share."""
    palette = {}
    for index in range(256):
        red = green = blue = 0
        rest = index
        for bit in range(7, -1, -1):
            red |= (rest & 1) << bit
            green |= (rest >> 1 & 1) << bit
            blue |= (rest >> 2 & 1) << bit
            rest >>= 3
        palette[red << 16 | green << 8 | blue] = index
    return palette
