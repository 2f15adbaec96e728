"""The measures: pure functions of an answer and the truth, each for one clip.

A figure is the sum of such scores over scenes divided by the sum of what was to be counted (`bootstrap`), so most
functions return counts. All take arrays and text, none a model.

Colours are judged as the procedural world names them, see `dominant_colour`.
"""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.layout import Layout
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.synthetic.vocabulary import CATEGORIES, COLOURS, lab

PSNR_CAP = 60.0
"""In dB: pictures that are equal would have an infinite PSNR; beyond this nobody could tell them apart anyway."""
VISIBLE = 20.0
"""CIE76 distance from which on a pixel shows something else than the background: halfway to where no two of the
world's colours and backgrounds come closer in an easy scene (40)."""
SHOWN = 0.2
"""Share of a region that must show something else than the background for the region to show an object at all."""

_WORD = re.compile(r"[a-z]+")
_SAME = {"grey": "gray", "rectangle": "box", "square": "box"}


@dataclass(frozen=True, slots=True)
class Thing:
    """What an object's entry says it is; None where it says nothing of the vocabulary."""

    category: str | None
    colour: str | None


@dataclass(frozen=True, slots=True)
class ObjectMatch:
    """How a paragraph's objects agree with those that are there, one to one.

    ``both`` pairs agree in category and colour, ``category`` pairs at least in category; ``named`` objects were named,
    ``present`` are there. Recall = both / present; precision = both / named; colour accuracy = both / category.
    """

    both: int
    category: int
    named: int
    present: int


def read_thing(item: ObjectDescription) -> Thing:
    """Return the category and colour that an entry states: the first such word of its name, else of its description.

    Any word of the whole vocabulary counts, also of harder scenes: a "rocket" is read as one, and is then wrong.
    """
    return Thing(*(_first_word(item, words) for words in (CATEGORIES, tuple(COLOURS))))


def _first_word(item: ObjectDescription, vocabulary: Collection[str]) -> str | None:
    for text in (item.name, item.description):
        for found in _WORD.findall(text.lower()):
            word = _SAME.get(found, found)
            for known in (word, word.removesuffix("s"), word.removesuffix("es")):
                if known in vocabulary:
                    return known
    return None


def match_objects(named: Sequence[Thing], present: Sequence[Thing]) -> ObjectMatch:
    """Pair named objects with present ones so that as many as can be agree, first in both words, then in category.

    A thing is paired once: naming the same object twice finds it once and lowers the precision.
    """
    said, there = Counter(named), Counter(present)
    # What states no category or no colour agrees with nothing.
    exact = Counter(
        thing for thing in (said & there).elements() if thing.category is not None and thing.colour is not None
    )
    left_said, left_there = _categories(said - exact), _categories(there - exact)
    both = exact.total()
    return ObjectMatch(both, both + (left_said & left_there).total(), len(named), len(present))


def _categories(things: Counter[Thing]) -> Counter[str]:
    return Counter(thing.category for thing in things.elements() if thing.category is not None)


def parses(raw: str) -> bool:
    """Say whether a describer's raw text is a paragraph as it should be written: nothing guessed, nothing left out.

    A paragraph that names no object parses; that it should have named some is what recall says.
    """
    paragraph, notes = Paragraph.parse(raw)
    return not notes and bool(paragraph.description or paragraph.objects)


def mask_iou(found: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """Spatiotemporal intersection over union of two masks {0, 1} [F, H, W]: both counted over all frames at once.

    1 if both are empty.

    Raises:
        ValueError: if their shapes differ.
    """
    if found.shape != truth.shape:
        raise ValueError(f"masks must have one shape [F, H, W], got {list(found.shape)} and {list(truth.shape)}")
    union = int(np.count_nonzero(found | truth))
    return int(np.count_nonzero(found & truth)) / union if union else 1.0


def box_iou(found: Layout, truth: NDArray[np.float32]) -> float:
    """Mean over frames of the intersection over union of two boxes.

    truth [F, 4] xyxy in [0, 1], a NaN row = absent. A frame where only one of the two has a box counts 0, one where
    neither has does not count; 0 if there is no frame to count.

    Raises:
        ValueError: if the numbers of frames differ.
    """
    if found.boxes.shape != truth.shape:
        raise ValueError(
            f"a layout must have a box for each of the {len(truth)} frames, got {found.num_frames}; plan for the clip"
        )
    first, second = found.boxes.astype(np.float64), truth.astype(np.float64)
    counted = ~(np.isnan(first[:, 0]) & np.isnan(second[:, 0]))
    if not counted.any():
        return 0.0
    first, second = np.nan_to_num(first[counted]), np.nan_to_num(second[counted])
    sides = np.clip(np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2]), 0, None)
    shared = sides.prod(axis=1)
    union = (first[:, 2:] - first[:, :2]).prod(axis=1) + (second[:, 2:] - second[:, :2]).prod(axis=1) - shared
    return float((shared / np.where(union > 0, union, 1)).mean())


def psnr_inside(result: NDArray[np.uint8], truth: NDArray[np.uint8], region: NDArray[np.uint8]) -> float:
    """PSNR in dB inside a region: 10 log10(255^2 / MSE), the MSE over its pixels of all frames and channels.

    result, truth uint8 [F, H, W, 3]; region {0, 1} [F, H, W]. Never above `PSNR_CAP`.

    Raises:
        ValueError: if the region is empty.
    """
    inside = region == 1
    if not inside.any():
        raise ValueError("the region must hold at least one pixel, it is empty; give the mask of what was edited")
    error = result[inside].astype(np.float64) - truth[inside].astype(np.float64)
    mse = float(np.square(error).mean())
    return min(PSNR_CAP, 10 * float(np.log10(255.0**2 / mse))) if mse else PSNR_CAP


def to_lab(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the CIELAB (D65) coordinates of 8-bit sRGB colours [..., 3]; L in [0, 100]."""
    share = rgb.astype(np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _RGB_TO_XYZ.T / _WHITE
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


# As `raccoon_datamodules.synthetic.vocabulary.lab`, which measures the palette.
_RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])


def dominant_colour(
    frames: NDArray[np.uint8], background: NDArray[np.uint8], region: NDArray[np.uint8], colours: Sequence[str]
) -> str | None:
    """Name the colour of the object that a region shows, or None if it shows none.

    Only pixels that differ visibly (CIE76 distance >= `VISIBLE`) from the clip without the object are looked at; if
    they are less than `SHOWN` of the region, there is no object: a painter that erases shows nothing, whatever the
    background's colour. Each remaining pixel votes for the nearest palette colour in CIELAB, all frames together, and
    the most votes win. An object's outline and pattern vote too; the truth itself is judged beside each figure.

    Args:
        frames: uint8 [F, H, W, 3], the edited clip.
        background: uint8 [F, H, W, 3], the true clip without the object.
        region: {0, 1} [F, H, W], where to look.
        colours: words of `COLOURS` to choose from.
    """
    inside = region == 1
    shown = to_lab(frames[inside])
    visible = np.linalg.norm(shown - to_lab(background[inside]), axis=-1) >= VISIBLE
    if not visible.size or np.count_nonzero(visible) < SHOWN * visible.size:
        return None
    palette = np.array([lab(COLOURS[name]) for name in colours])
    distances = np.linalg.norm(shown[visible][:, None] - palette, axis=-1)
    votes = np.bincount(distances.argmin(axis=1), minlength=len(colours))
    return colours[int(votes.argmax())]
