"""One object as a small picture that is sampled with integer arithmetic.

A sprite is a square of ``texels`` x ``texels`` that covers [-SPAN, SPAN] in object units. Its texels are uint64 with
four 16-bit lanes (red, green, blue, coverage), so that many of them add up without one lane reaching the next:
supersampling is a gather, a few additions and a shift, equal to the bit on every machine. Each texel holds the sum of
itself and its three neighbours to the right and below (0..1020), so that four samples of a pixel count like sixteen.
The border of a sprite is zero, so a place outside it may be read at its border.
"""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.synthetic.shapes import Paint
from raccoon_datamodules.synthetic.silhouettes import parts_of
from raccoon_datamodules.synthetic.vocabulary import COLOURS, Rgb

SPAN = 1.125
"""Half the side of a sprite in object units; an object with its outline reaches about 1.05."""
SHADOW_SPAN = 1.5 * SPAN
"""Half the side of a shadow's sprite: blurring reaches a little further."""
OUTLINE_WIDTH = 0.05
_SHIFT = 4

_FIXED: dict[Paint, Rgb] = {
    Paint.LIGHT: (250, 250, 247),
    Paint.INK: (38, 40, 48),
    Paint.GLASS: (196, 228, 244),
    Paint.METAL: (168, 176, 188),
    Paint.WOOD: (128, 86, 52),
    Paint.CREAM: (248, 232, 202),
    Paint.FLAME: (255, 190, 60),
    Paint.LEAF: (76, 152, 74),
}


def _mix(colour: Rgb, other: Rgb, part: int) -> Rgb:
    """Blend ``part`` percent of ``other`` into ``colour``."""
    red, green, blue = ((c * (100 - part) + o * part + 50) // 100 for c, o in zip(colour, other, strict=True))
    return red, green, blue


def palette_of(colour: str) -> tuple[Rgb, ...]:
    """Return the colours of all paints, indexed by Paint, for an object of the named colour."""
    body = COLOURS[colour]
    brightness = (body[0] * 3 + body[1] * 6 + body[2]) // 10
    if brightness > 225:
        figure, shade, tint, outline = (188, 194, 206), (206, 210, 218), (255, 255, 255), (120, 126, 140)
    elif brightness < 70:
        figure, shade, tint, outline = (116, 120, 134), (28, 29, 35), (84, 88, 100), (14, 15, 20)
    else:
        figure, shade = _mix(body, (255, 255, 250), 62), _mix(body, (20, 16, 40), 26)
        tint, outline = _mix(body, (255, 255, 255), 34), _mix(body, (22, 20, 44), 62)
    shades: dict[Paint, Rgb] = {
        Paint.NOTHING: (0, 0, 0),
        Paint.BODY: body,
        Paint.FIGURE: figure,
        Paint.OUTLINE: outline,
        Paint.SHADE: shade,
        Paint.TINT: tint,
    }
    return tuple((shades | _FIXED)[paint] for paint in Paint)


def _lanes(colours: tuple[Rgb, ...]) -> NDArray[np.uint64]:
    table = np.zeros((len(colours), 4), dtype=np.uint16)
    table[1:, :3] = colours[1:]
    table[1:, 3] = 255
    return table.view(np.uint64)[:, 0]


@lru_cache(maxsize=64)
def _indices(category: str, texels: int) -> NDArray[np.uint8]:
    """Paint the parts as indices [texels, texels] and draw the outline around what they cover."""
    image = np.zeros((texels, texels), dtype=np.uint8)
    scale = texels / (2 * SPAN)
    for part in parts_of(category):
        vertices = np.rint(((part.points + SPAN) * scale - 0.5) * (1 << _SHIFT)).astype(np.int32)
        cv2.fillPoly(image, [vertices], int(part.paint), lineType=cv2.LINE_8, shift=_SHIFT)
    reach = max(1, round(OUTLINE_WIDTH * scale))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    covered = (image != 0).astype(np.uint8)
    image[(cv2.dilate(covered, kernel) != 0) & (covered == 0)] = int(Paint.OUTLINE)
    image.flags.writeable = False
    return image


@lru_cache(maxsize=32)
def _figure(pattern: str, texels: int) -> NDArray[np.bool_]:
    """Say which texels of a body the pattern repaints, bool [texels, texels]."""
    steps = (np.arange(texels, dtype=np.float64) + 0.5) * (2 * SPAN / texels) - SPAN
    x, y = steps[None, :], steps[:, None]
    if pattern == "striped":
        figure = np.mod(x + 0.5 * y + 0.12, 0.5) < 0.22
    elif pattern == "dotted":
        row = np.floor(y / 0.42)
        dx = np.mod(x + np.mod(row, 2) * 0.24, 0.48) - 0.24
        dy = y - (row + 0.5) * 0.42
        figure = dx * dx + dy * dy < 0.128**2
    elif pattern == "checkered":
        figure = np.mod(np.floor(x / 0.36 + 0.5) + np.floor(y / 0.36 + 0.5), 2) == 0
    elif pattern == "zigzag":
        figure = np.mod(y + np.abs(np.mod(x, 0.4) - 0.2) * 1.2, 0.46) < 0.19
    else:
        figure = np.zeros((texels, texels), dtype=np.bool_)
    figure = np.broadcast_to(figure, (texels, texels)).copy()
    figure.flags.writeable = False
    return figure


@lru_cache(maxsize=96)
def _sprite(category: str, colour: str, pattern: str, texels: int) -> NDArray[np.uint64]:
    indices = _indices(category, texels)
    if pattern != "plain":
        indices = np.where(_figure(pattern, texels) & (indices == Paint.BODY), np.uint8(Paint.FIGURE), indices)
    texel = np.take(_lanes(palette_of(colour)), indices)
    sprite = np.zeros_like(texel)
    sprite[:-1, :-1] = texel[:-1, :-1] + texel[:-1, 1:] + texel[1:, :-1] + texel[1:, 1:]
    sprite.flags.writeable = False
    return sprite


def sprite_of(category: str, colour: str, pattern: str, texels: int) -> NDArray[np.uint64]:
    """Return an object's sprite, uint64 [texels, texels], four 16-bit lanes (R, G, B, coverage) of 0..1020 each.

    ``texels`` is a power of two. The array is shared and read-only.
    """
    if texels <= 256:
        return _sprite(category, colour, pattern, texels)
    # A large sprite is 8 MB at 1024 texels; it is drawn once per clip, so keeping it would only fill the memory.
    return _sprite.__wrapped__(category, colour, pattern, texels)


def _box_blur(image: NDArray[np.uint8], axis: int, reach: int) -> NDArray[np.uint8]:
    """Average 2 * reach + 1 neighbours along an axis, zero outside; in integers, unlike cv2.blur."""
    width = 2 * reach + 1
    pads = [(0, 0), (0, 0)]
    pads[axis] = (reach + 1, reach)
    sums = np.cumsum(np.pad(image, pads), axis=axis, dtype=np.int32)
    high, low = (slice(width, None), slice(None)), (slice(0, -width), slice(None))
    window = sums[high[:: 1 if axis == 0 else -1]] - sums[low[:: 1 if axis == 0 else -1]]
    return ((window + width // 2) // width).astype(np.uint8)


@lru_cache(maxsize=64)
def shadow_of(category: str, texels: int) -> NDArray[np.uint8]:
    """Return an object's blurred coverage, uint8 [1.5 texels, 1.5 texels], over SHADOW_SPAN; shared and read-only."""
    covered = np.where(_indices(category, texels) != 0, np.uint8(255), np.uint8(0))
    covered, reach = np.pad(covered, texels // 4), max(1, texels // 20)
    for axis in (0, 1, 0, 1):
        covered = _box_blur(covered, axis, reach)
    covered.flags.writeable = False
    return covered
