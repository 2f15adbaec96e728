"""The outlines of the categories, as lists of flat coloured parts.

A part is a closed polygon in object units: x to the right, y down, the object inside [-0.95, 0.95] on both axes, what
has a front looks to the right. Parts are painted in order. ``Paint.BODY`` takes the object's colour and carries its
pattern; the other paints are shades of that colour or fixed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
Points = NDArray[np.float64]


class Paint(IntEnum):
    """What a part is painted with; the number is its index in a sprite's palette."""

    NOTHING = 0
    BODY = 1
    FIGURE = 2  # the pattern on the body
    OUTLINE = 3
    SHADE = 4  # the object's colour, darker
    TINT = 5  # the object's colour, lighter
    LIGHT = 6
    INK = 7
    GLASS = 8
    METAL = 9
    WOOD = 10
    CREAM = 11
    FLAME = 12


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One polygon [P, 2] (x, y) in object units and its paint."""

    points: Points
    paint: Paint


def _poly(points: Sequence[Point], paint: Paint = Paint.BODY) -> Part:
    return Part(np.asarray(points, dtype=np.float64), paint)


def _ellipse(cx: float, cy: float, rx: float, ry: float, paint: Paint = Paint.BODY, tilt: float = 0.0) -> Part:
    """An ellipse, turned clockwise by ``tilt`` radians."""
    angles = [2 * pi * i / 40 for i in range(40)]
    c, s = cos(tilt), sin(tilt)
    return _poly(
        [(cx + rx * cos(a) * c - ry * sin(a) * s, cy + rx * cos(a) * s + ry * sin(a) * c) for a in angles], paint
    )


def _sector(cx: float, cy: float, r: float, start: float, end: float, paint: Paint = Paint.BODY) -> Part:
    """A disc's part between two angles in degrees, 0 = right, 90 = down, closed by the chord."""
    angles = [(start + (end - start) * i / 24) * pi / 180 for i in range(25)]
    return _poly([(cx + r * cos(a), cy + r * sin(a)) for a in angles], paint)


def _rect(x0: float, y0: float, x1: float, y1: float, paint: Paint = Paint.BODY, corner: float = 0.0) -> Part:
    """A rectangle with round corners of radius ``corner``."""
    if corner == 0.0:
        return _poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], paint)
    points: list[Point] = []
    centres = ((x1 - corner, y1 - corner), (x0 + corner, y1 - corner), (x0 + corner, y0 + corner))
    for quarter, (cx, cy) in enumerate((*centres, (x1 - corner, y0 + corner))):
        for step in range(7):
            angle = (quarter + step / 6) * pi / 2
            points.append((cx + corner * cos(angle), cy + corner * sin(angle)))
    return _poly(points, paint)


def _smooth(points: Sequence[Point], paint: Paint = Paint.BODY) -> Part:
    """A closed Catmull-Rom curve through the points."""
    p = np.asarray(points, dtype=np.float64)
    before, after, beyond = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
    t = np.linspace(0, 1, 8, endpoint=False)[None, :, None]
    p, before, after, beyond = p[:, None], before[:, None], after[:, None], beyond[:, None]
    curve = (
        2 * p
        + (after - before) * t
        + (2 * before - 5 * p + 4 * after - beyond) * t * t
        + (3 * p - before - 3 * after + beyond) * t * t * t
    ) / 2
    return Part(curve.reshape(-1, 2), paint)


def _mirrored(half: Sequence[Point]) -> list[Point]:
    """Close a right half, given from top to bottom, with its mirror image."""
    return [*half, *((-x, y) for x, y in reversed(half) if x != 0.0)]


def _star_points(num_points: int, outer: float, inner: float, cy: float = 0.0) -> list[Point]:
    radii = (outer, inner)
    angles = [pi * i / num_points - pi / 2 for i in range(2 * num_points)]
    return [(radii[i % 2] * cos(a), cy + radii[i % 2] * sin(a)) for i, a in enumerate(angles)]


def _ball() -> list[Part]:
    return [_ellipse(0, 0, 0.92, 0.92)]


def _box() -> list[Part]:
    return [
        _rect(-0.84, -0.84, 0.84, 0.84, corner=0.1),
        _rect(-0.84, -0.84, 0.84, -0.56, Paint.SHADE, corner=0.1),
        _rect(-0.16, -0.84, 0.16, -0.2, Paint.CREAM),
    ]


def _star() -> list[Part]:
    return [_poly(_star_points(5, 0.98, 0.52, 0.07))]


def _heart() -> list[Part]:
    half = [(0, -0.5), (0.2, -0.78), (0.52, -0.88), (0.82, -0.7), (0.94, -0.36), (0.84, 0.02), (0.5, 0.46), (0, 0.9)]
    curve = _smooth(_mirrored(half)).points
    # The curve alone rounds the dip off; the polygon through the lobes keeps it, and the tip.
    return [_poly([(float(x), float(y)) for x, y in curve])]


def _car() -> list[Part]:
    return [
        _poly([(-0.58, -0.02), (-0.4, -0.5), (0.24, -0.5), (0.56, -0.02)]),
        _rect(-0.95, -0.1, 0.95, 0.42, corner=0.18),
        _poly([(-0.42, -0.08), (-0.3, -0.4), (-0.06, -0.4), (-0.06, -0.08)], Paint.GLASS),
        _poly([(0.06, -0.08), (0.06, -0.4), (0.18, -0.4), (0.4, -0.08)], Paint.GLASS),
        _ellipse(0.86, 0.08, 0.07, 0.1, Paint.FLAME),
        _rect(-0.93, 0.26, 0.93, 0.36, Paint.SHADE),
        _ellipse(-0.5, 0.4, 0.25, 0.25, Paint.INK),
        _ellipse(0.5, 0.4, 0.25, 0.25, Paint.INK),
        _ellipse(-0.5, 0.4, 0.11, 0.11, Paint.METAL),
        _ellipse(0.5, 0.4, 0.11, 0.11, Paint.METAL),
    ]


def _fish() -> list[Part]:
    return [
        _poly([(-0.5, 0), (-0.95, -0.55), (-0.8, 0), (-0.95, 0.55)], Paint.SHADE),
        _smooth([(-0.2, -0.45), (0.0, -0.82), (0.42, -0.5)], Paint.SHADE),
        _smooth([(-0.1, 0.45), (0.0, 0.76), (0.26, 0.5)], Paint.SHADE),
        _smooth(
            [
                (-0.62, 0),
                (-0.2, -0.48),
                (0.35, -0.54),
                (0.8, -0.24),
                (0.94, 0.02),
                (0.8, 0.26),
                (0.35, 0.54),
                (-0.2, 0.48),
            ]
        ),
        _smooth([(0.0, 0.02), (-0.26, 0.16), (-0.02, 0.3), (0.1, 0.16)], Paint.SHADE),
        _ellipse(0.58, -0.14, 0.15, 0.15, Paint.LIGHT),
        _ellipse(0.62, -0.14, 0.08, 0.08, Paint.INK),
    ]


def _house() -> list[Part]:
    return [
        _rect(0.36, -0.82, 0.58, -0.2, Paint.WOOD),
        _rect(-0.72, -0.12, 0.72, 0.92),
        _poly([(-0.95, -0.06), (0, -0.94), (0.95, -0.06)], Paint.SHADE),
        _rect(-0.16, 0.36, 0.2, 0.92, Paint.WOOD),
        _rect(-0.58, 0.1, -0.28, 0.42, Paint.GLASS),
        _rect(0.34, 0.1, 0.62, 0.42, Paint.GLASS),
        _ellipse(0, -0.4, 0.13, 0.13, Paint.GLASS),
    ]


def _tree() -> list[Part]:
    return [
        _poly([(-0.14, 0.2), (0.14, 0.2), (0.2, 0.94), (-0.2, 0.94)], Paint.WOOD),
        _ellipse(-0.42, 0.06, 0.42, 0.4),
        _ellipse(0.42, 0.06, 0.42, 0.4),
        _ellipse(0, -0.4, 0.56, 0.54),
        _ellipse(0, 0.12, 0.5, 0.36),
    ]


def _bird() -> list[Part]:
    return [
        _poly([(-0.5, 0.05), (-0.95, -0.22), (-0.92, 0.2), (-0.6, 0.3)], Paint.SHADE),
        _poly([(0.7, -0.34), (0.95, -0.2), (0.68, -0.12)], Paint.FLAME),
        _rect(-0.06, 0.5, 0.0, 0.84, Paint.FLAME),
        _rect(0.14, 0.5, 0.2, 0.84, Paint.FLAME),
        _smooth(
            [
                (-0.7, 0.12),
                (-0.2, -0.22),
                (0.2, -0.5),
                (0.52, -0.58),
                (0.78, -0.34),
                (0.72, 0.0),
                (0.46, 0.42),
                (0.0, 0.6),
                (-0.44, 0.46),
            ]
        ),
        _smooth([(0.22, -0.02), (-0.1, -0.1), (-0.62, 0.16), (-0.3, 0.34), (0.1, 0.32)], Paint.SHADE),
        _ellipse(0.52, -0.3, 0.11, 0.11, Paint.LIGHT),
        _ellipse(0.55, -0.3, 0.06, 0.06, Paint.INK),
    ]


def _boat() -> list[Part]:
    return [
        _rect(-0.06, -0.94, 0.04, 0.4, Paint.WOOD),
        _poly([(0.1, -0.88), (0.82, 0.24), (0.1, 0.24)], Paint.LIGHT),
        _poly([(-0.12, -0.72), (-0.12, 0.24), (-0.66, 0.24)], Paint.CREAM),
        _poly([(-0.95, 0.34), (0.95, 0.34), (0.66, 0.8), (0.5, 0.86), (-0.56, 0.86), (-0.72, 0.8)]),
        _poly([(-0.95, 0.34), (0.95, 0.34), (0.88, 0.46), (-0.9, 0.46)], Paint.SHADE),
    ]


def _rocket() -> list[Part]:
    return [
        _smooth([(-0.18, 0.6), (0, 0.98), (0.18, 0.6), (0.0, 0.5)], Paint.FLAME),
        _poly([(-0.3, 0.1), (-0.66, 0.5), (-0.62, 0.8), (-0.26, 0.56)], Paint.SHADE),
        _poly([(0.3, 0.1), (0.66, 0.5), (0.62, 0.8), (0.26, 0.56)], Paint.SHADE),
        _smooth(
            [
                (0, -0.95),
                (0.28, -0.6),
                (0.4, -0.1),
                (0.34, 0.4),
                (0.24, 0.64),
                (-0.24, 0.64),
                (-0.34, 0.4),
                (-0.4, -0.1),
                (-0.28, -0.6),
            ]
        ),
        _smooth([(0, -0.95), (0.2, -0.72), (0.3, -0.5), (0, -0.46), (-0.3, -0.5), (-0.2, -0.72)], Paint.SHADE),
        _ellipse(0, -0.16, 0.21, 0.21, Paint.METAL),
        _ellipse(0, -0.16, 0.15, 0.15, Paint.GLASS),
    ]


def _mushroom() -> list[Part]:
    return [
        _smooth(
            [(-0.26, 0.0), (0.26, 0.0), (0.28, 0.5), (0.36, 0.84), (0, 0.92), (-0.36, 0.84), (-0.28, 0.5)], Paint.CREAM
        ),
        _smooth(
            [
                (0, -0.92),
                (0.5, -0.78),
                (0.86, -0.36),
                (0.92, 0.04),
                (0.5, 0.2),
                (0, 0.24),
                (-0.5, 0.2),
                (-0.92, 0.04),
                (-0.86, -0.36),
                (-0.5, -0.78),
            ]
        ),
        _smooth([(0.8, 0.08), (0.5, 0.2), (0, 0.24), (-0.5, 0.2), (-0.8, 0.08), (0, 0.12)], Paint.SHADE),
    ]


def _balloon() -> list[Part]:
    return [
        _poly([(-0.02, 0.5), (0.03, 0.5), (0.07, 0.72), (0.0, 0.94), (-0.05, 0.94), (0.01, 0.72)], Paint.INK),
        _poly([(-0.12, 0.58), (0.12, 0.58), (0, 0.36)], Paint.SHADE),
        _smooth(
            [
                (0, -0.95),
                (0.46, -0.8),
                (0.66, -0.36),
                (0.5, 0.1),
                (0.14, 0.46),
                (-0.14, 0.46),
                (-0.5, 0.1),
                (-0.66, -0.36),
                (-0.46, -0.8),
            ]
        ),
    ]


def _umbrella() -> list[Part]:
    scallops = [(0.95 - 0.38 * i - 0.19, 0.02) for i in range(5)]
    return [
        _rect(-0.05, -0.9, 0.05, 0.74, Paint.WOOD),
        _sector(0.16, 0.72, 0.21, 0, 180, Paint.WOOD),
        _sector(0.16, 0.7, 0.11, 0, 180, Paint.NOTHING),
        _sector(0, 0.06, 0.95, 180, 360),
        *(_ellipse(x, y + 0.07, 0.19, 0.12, Paint.NOTHING) for x, y in scallops),
        _rect(-0.05, -0.08, 0.05, 0.74, Paint.WOOD),
        _poly([(-0.05, -0.84), (0.05, -0.84), (0, -0.95)], Paint.METAL),
    ]


def _kite() -> list[Part]:
    return [
        _smooth(
            [(0.0, 0.5), (0.12, 0.66), (-0.02, 0.8), (0.1, 0.95), (0.04, 0.95), (-0.09, 0.8), (0.05, 0.66)], Paint.INK
        ),
        _poly([(0.03, 0.7), (0.24, 0.6), (0.24, 0.78)], Paint.FLAME),
        _poly([(-0.02, 0.88), (-0.24, 0.78), (-0.24, 0.95)], Paint.FLAME),
        _poly([(0, -0.95), (0.72, -0.28), (0, 0.6), (-0.72, -0.28)]),
        _poly([(0, -0.95), (0.72, -0.28), (0, -0.28)], Paint.TINT),
        _poly([(0, 0.6), (-0.72, -0.28), (0, -0.28)], Paint.SHADE),
    ]


def _cat() -> list[Part]:
    return [
        _poly([(-0.8, -0.9), (-0.16, -0.5), (-0.72, -0.06)]),
        _poly([(0.8, -0.9), (0.16, -0.5), (0.72, -0.06)]),
        _poly([(-0.68, -0.66), (-0.4, -0.5), (-0.64, -0.3)], Paint.TINT),
        _poly([(0.68, -0.66), (0.4, -0.5), (0.64, -0.3)], Paint.TINT),
        _ellipse(0, 0.14, 0.86, 0.74),
        _ellipse(-0.2, 0.44, 0.24, 0.2, Paint.CREAM),
        _ellipse(0.2, 0.44, 0.24, 0.2, Paint.CREAM),
        _ellipse(-0.36, 0.02, 0.17, 0.2, Paint.LIGHT),
        _ellipse(0.36, 0.02, 0.17, 0.2, Paint.LIGHT),
        _ellipse(-0.34, 0.04, 0.08, 0.15, Paint.INK),
        _ellipse(0.38, 0.04, 0.08, 0.15, Paint.INK),
        _poly([(-0.1, 0.26), (0.1, 0.26), (0, 0.38)], Paint.INK),
    ]


def _butterfly() -> list[Part]:
    upper = [(0.06, -0.1), (0.3, -0.66), (0.74, -0.84), (0.94, -0.5), (0.72, -0.08), (0.3, 0.08)]
    lower = [(0.06, 0.06), (0.44, 0.06), (0.76, 0.26), (0.7, 0.68), (0.36, 0.78), (0.14, 0.44)]
    return [
        *(_smooth([(side * x, y) for x, y in wing]) for wing in (lower, upper) for side in (1, -1)),
        *(_ellipse(side * 0.66, -0.5, 0.13, 0.13, Paint.LIGHT) for side in (1, -1)),
        *(_ellipse(side * 0.5, 0.42, 0.1, 0.1, Paint.LIGHT) for side in (1, -1)),
        *(
            _poly([(side * 0.02, -0.5), (side * 0.2, -0.88), (side * 0.26, -0.86), (side * 0.07, -0.46)], Paint.INK)
            for side in (1, -1)
        ),
        _ellipse(0, 0.04, 0.1, 0.62, Paint.INK),
    ]


def _flower() -> list[Part]:
    petals = [(0.46 * cos(2 * pi * i / 6), -0.26 + 0.46 * sin(2 * pi * i / 6)) for i in range(6)]
    return [
        _rect(-0.05, 0.0, 0.05, 0.94, _STEM),
        _smooth([(0.02, 0.8), (0.3, 0.5), (0.56, 0.5), (0.4, 0.76)], _STEM),
        *(_ellipse(x, y, 0.25, 0.25) for x, y in petals),
        _ellipse(0, -0.26, 0.3, 0.3, Paint.FLAME),
    ]


_STEM = Paint.WOOD

_BUILDERS: dict[str, Callable[[], list[Part]]] = {
    "ball": _ball,
    "box": _box,
    "star": _star,
    "heart": _heart,
    "car": _car,
    "fish": _fish,
    "house": _house,
    "tree": _tree,
    "bird": _bird,
    "boat": _boat,
    "rocket": _rocket,
    "mushroom": _mushroom,
    "balloon": _balloon,
    "umbrella": _umbrella,
    "kite": _kite,
    "cat": _cat,
    "butterfly": _butterfly,
    "flower": _flower,
}


@cache
def parts_of(category: str) -> tuple[Part, ...]:
    """Return the parts of a category, back to front; raises KeyError for a category that nobody drew."""
    return tuple(_BUILDERS[category]())
