"""Flat coloured parts that silhouettes are made of: polygons, ellipses, sectors, round rectangles, smooth curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
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
    LEAF = 13


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One polygon [P, 2] (x, y) in object units and its paint."""

    points: Points
    paint: Paint


def poly(points: Sequence[Point], paint: Paint = Paint.BODY) -> Part:
    """A polygon through the points."""
    return Part(np.asarray(points, dtype=np.float64), paint)


def ellipse(cx: float, cy: float, rx: float, ry: float, paint: Paint = Paint.BODY, tilt: float = 0.0) -> Part:
    """An ellipse, turned clockwise by ``tilt`` radians."""
    angles = [2 * pi * i / 40 for i in range(40)]
    c, s = cos(tilt), sin(tilt)
    return poly(
        [(cx + rx * cos(a) * c - ry * sin(a) * s, cy + rx * cos(a) * s + ry * sin(a) * c) for a in angles], paint
    )


def sector(cx: float, cy: float, r: float, start: float, end: float, paint: Paint = Paint.BODY) -> Part:
    """A disc's part between two angles in degrees, 0 = right, 90 = down, closed by the chord."""
    angles = [(start + (end - start) * i / 24) * pi / 180 for i in range(25)]
    return poly([(cx + r * cos(a), cy + r * sin(a)) for a in angles], paint)


def rect(x0: float, y0: float, x1: float, y1: float, paint: Paint = Paint.BODY, corner: float = 0.0) -> Part:
    """A rectangle with round corners of radius ``corner``."""
    if corner == 0.0:
        return poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], paint)
    points: list[Point] = []
    centres = ((x1 - corner, y1 - corner), (x0 + corner, y1 - corner), (x0 + corner, y0 + corner))
    for quarter, (cx, cy) in enumerate((*centres, (x1 - corner, y0 + corner))):
        for step in range(7):
            angle = (quarter + step / 6) * pi / 2
            points.append((cx + corner * cos(angle), cy + corner * sin(angle)))
    return poly(points, paint)


def smooth(points: Sequence[Point], paint: Paint = Paint.BODY) -> Part:
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


def mirrored(half: Sequence[Point]) -> list[Point]:
    """Close a right half, given from top to bottom, with its mirror image."""
    return [*half, *((-x, y) for x, y in reversed(half) if x != 0.0)]


def star_points(num_points: int, outer: float, inner: float, cy: float = 0.0) -> list[Point]:
    """The corners of a star, the first one on top, from an outer and an inner radius."""
    radii = (outer, inner)
    angles = [pi * i / num_points - pi / 2 for i in range(2 * num_points)]
    return [(radii[i % 2] * cos(a), cy + radii[i % 2] * sin(a)) for i, a in enumerate(angles)]
