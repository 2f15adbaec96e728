"""The outlines of the categories, as lists of flat coloured parts.

Object units: x to the right, y down, the object inside [-0.95, 0.95] on both axes; what has a front looks to the right.
Parts are painted in order. ``Paint.BODY`` takes the object's colour and carries its pattern; the other paints are
shades of that colour or fixed.
"""

from collections.abc import Callable
from functools import cache
from math import cos, hypot, pi, sin

from raccoon_datamodules.synthetic.shapes import (
    Paint,
    Part,
    ellipse,
    mirrored,
    poly,
    rect,
    sector,
    smooth,
    star_points,
)


def _ball() -> list[Part]:
    return [ellipse(0, 0, 0.92, 0.92)]


def _box() -> list[Part]:
    return [
        rect(-0.84, -0.84, 0.84, 0.84, corner=0.1),
        rect(-0.84, -0.84, 0.84, -0.56, Paint.SHADE, corner=0.1),
        rect(-0.16, -0.84, 0.16, -0.2, Paint.CREAM),
    ]


def _star() -> list[Part]:
    return [poly(star_points(5, 0.98, 0.52, 0.07))]


def _heart() -> list[Part]:
    half = [(0, -0.5), (0.2, -0.78), (0.52, -0.88), (0.82, -0.7), (0.94, -0.36), (0.84, 0.02), (0.5, 0.46), (0, 0.9)]
    curve = smooth(mirrored(half)).points
    # The curve alone rounds the dip off; the polygon through the lobes keeps it, and the tip.
    return [poly([(float(x), float(y)) for x, y in curve])]


def _car() -> list[Part]:
    return [
        poly([(-0.58, -0.02), (-0.4, -0.5), (0.24, -0.5), (0.56, -0.02)]),
        rect(-0.95, -0.1, 0.95, 0.42, corner=0.18),
        poly([(-0.42, -0.08), (-0.3, -0.4), (-0.06, -0.4), (-0.06, -0.08)], Paint.GLASS),
        poly([(0.06, -0.08), (0.06, -0.4), (0.18, -0.4), (0.4, -0.08)], Paint.GLASS),
        ellipse(0.86, 0.08, 0.07, 0.1, Paint.FLAME),
        rect(-0.93, 0.26, 0.93, 0.36, Paint.SHADE),
        ellipse(-0.5, 0.4, 0.25, 0.25, Paint.INK),
        ellipse(0.5, 0.4, 0.25, 0.25, Paint.INK),
        ellipse(-0.5, 0.4, 0.11, 0.11, Paint.METAL),
        ellipse(0.5, 0.4, 0.11, 0.11, Paint.METAL),
    ]


def _fish() -> list[Part]:
    return [
        poly([(-0.5, 0), (-0.95, -0.55), (-0.8, 0), (-0.95, 0.55)], Paint.SHADE),
        smooth([(-0.2, -0.45), (0.0, -0.82), (0.42, -0.5)], Paint.SHADE),
        smooth([(-0.1, 0.45), (0.0, 0.76), (0.26, 0.5)], Paint.SHADE),
        smooth(
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
        smooth([(0.0, 0.02), (-0.26, 0.16), (-0.02, 0.3), (0.1, 0.16)], Paint.SHADE),
        ellipse(0.58, -0.14, 0.15, 0.15, Paint.LIGHT),
        ellipse(0.62, -0.14, 0.08, 0.08, Paint.INK),
    ]


def _house() -> list[Part]:
    return [
        rect(0.36, -0.82, 0.58, -0.2, Paint.WOOD),
        rect(-0.72, -0.12, 0.72, 0.92),
        poly([(-0.95, -0.06), (0, -0.94), (0.95, -0.06)], Paint.SHADE),
        rect(-0.16, 0.36, 0.2, 0.92, Paint.WOOD),
        rect(-0.58, 0.1, -0.28, 0.42, Paint.GLASS),
        rect(0.34, 0.1, 0.62, 0.42, Paint.GLASS),
        ellipse(0, -0.4, 0.13, 0.13, Paint.GLASS),
    ]


def _tree() -> list[Part]:
    return [
        poly([(-0.14, 0.2), (0.14, 0.2), (0.2, 0.94), (-0.2, 0.94)], Paint.WOOD),
        ellipse(-0.42, 0.06, 0.42, 0.4),
        ellipse(0.42, 0.06, 0.42, 0.4),
        ellipse(0, -0.4, 0.56, 0.54),
        ellipse(0, 0.12, 0.5, 0.36),
    ]


def _bird() -> list[Part]:
    return [
        poly([(-0.5, 0.05), (-0.95, -0.22), (-0.92, 0.2), (-0.6, 0.3)], Paint.SHADE),
        poly([(0.7, -0.34), (0.95, -0.2), (0.68, -0.12)], Paint.FLAME),
        rect(-0.06, 0.5, 0.0, 0.84, Paint.FLAME),
        rect(0.14, 0.5, 0.2, 0.84, Paint.FLAME),
        smooth(
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
        smooth([(0.22, -0.02), (-0.1, -0.1), (-0.62, 0.16), (-0.3, 0.34), (0.1, 0.32)], Paint.SHADE),
        ellipse(0.52, -0.3, 0.11, 0.11, Paint.LIGHT),
        ellipse(0.55, -0.3, 0.06, 0.06, Paint.INK),
    ]


def _boat() -> list[Part]:
    return [
        rect(-0.06, -0.94, 0.04, 0.4, Paint.WOOD),
        poly([(0.1, -0.88), (0.82, 0.24), (0.1, 0.24)], Paint.LIGHT),
        poly([(-0.12, -0.72), (-0.12, 0.24), (-0.66, 0.24)], Paint.CREAM),
        poly([(-0.95, 0.34), (0.95, 0.34), (0.66, 0.8), (0.5, 0.86), (-0.56, 0.86), (-0.72, 0.8)]),
        poly([(-0.95, 0.34), (0.95, 0.34), (0.88, 0.46), (-0.9, 0.46)], Paint.SHADE),
    ]


def _rocket() -> list[Part]:
    return [
        smooth([(-0.18, 0.6), (0, 0.98), (0.18, 0.6), (0.0, 0.5)], Paint.FLAME),
        poly([(-0.3, 0.1), (-0.66, 0.5), (-0.62, 0.8), (-0.26, 0.56)], Paint.SHADE),
        poly([(0.3, 0.1), (0.66, 0.5), (0.62, 0.8), (0.26, 0.56)], Paint.SHADE),
        smooth(
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
        smooth([(0, -0.95), (0.2, -0.72), (0.3, -0.5), (0, -0.46), (-0.3, -0.5), (-0.2, -0.72)], Paint.SHADE),
        ellipse(0, -0.16, 0.21, 0.21, Paint.METAL),
        ellipse(0, -0.16, 0.15, 0.15, Paint.GLASS),
    ]


def _mushroom() -> list[Part]:
    return [
        smooth(
            [(-0.26, 0.0), (0.26, 0.0), (0.28, 0.5), (0.36, 0.84), (0, 0.92), (-0.36, 0.84), (-0.28, 0.5)], Paint.CREAM
        ),
        smooth(
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
        smooth([(0.8, 0.08), (0.5, 0.2), (0, 0.24), (-0.5, 0.2), (-0.8, 0.08), (0, 0.12)], Paint.SHADE),
    ]


def _balloon() -> list[Part]:
    return [
        poly([(-0.02, 0.5), (0.03, 0.5), (0.07, 0.72), (0.0, 0.94), (-0.05, 0.94), (0.01, 0.72)], Paint.INK),
        poly([(-0.12, 0.58), (0.12, 0.58), (0, 0.36)], Paint.SHADE),
        smooth(
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
        rect(-0.05, -0.9, 0.05, 0.74, Paint.WOOD),
        sector(0.16, 0.72, 0.21, 0, 180, Paint.WOOD),
        sector(0.16, 0.7, 0.11, 0, 180, Paint.NOTHING),
        sector(0, 0.06, 0.95, 180, 360),
        *(ellipse(x, y + 0.07, 0.19, 0.12, Paint.NOTHING) for x, y in scallops),
        rect(-0.05, -0.08, 0.05, 0.74, Paint.WOOD),
        poly([(-0.05, -0.84), (0.05, -0.84), (0, -0.95)], Paint.METAL),
    ]


def _kite() -> list[Part]:
    return [
        smooth(
            [(0.0, 0.5), (0.12, 0.66), (-0.02, 0.8), (0.1, 0.95), (0.04, 0.95), (-0.09, 0.8), (0.05, 0.66)], Paint.INK
        ),
        poly([(0.03, 0.7), (0.24, 0.6), (0.24, 0.78)], Paint.FLAME),
        poly([(-0.02, 0.88), (-0.24, 0.78), (-0.24, 0.95)], Paint.FLAME),
        poly([(0, -0.95), (0.72, -0.28), (0, 0.6), (-0.72, -0.28)]),
        poly([(0, -0.95), (0.72, -0.28), (0, -0.28)], Paint.TINT),
        poly([(0, 0.6), (-0.72, -0.28), (0, -0.28)], Paint.SHADE),
    ]


def _cat() -> list[Part]:
    return [
        poly([(-0.8, -0.9), (-0.16, -0.5), (-0.72, -0.06)]),
        poly([(0.8, -0.9), (0.16, -0.5), (0.72, -0.06)]),
        poly([(-0.68, -0.66), (-0.4, -0.5), (-0.64, -0.3)], Paint.TINT),
        poly([(0.68, -0.66), (0.4, -0.5), (0.64, -0.3)], Paint.TINT),
        ellipse(0, 0.14, 0.86, 0.74),
        ellipse(-0.2, 0.44, 0.24, 0.2, Paint.CREAM),
        ellipse(0.2, 0.44, 0.24, 0.2, Paint.CREAM),
        ellipse(-0.36, 0.02, 0.17, 0.2, Paint.LIGHT),
        ellipse(0.36, 0.02, 0.17, 0.2, Paint.LIGHT),
        ellipse(-0.34, 0.04, 0.08, 0.15, Paint.INK),
        ellipse(0.38, 0.04, 0.08, 0.15, Paint.INK),
        poly([(-0.1, 0.26), (0.1, 0.26), (0, 0.38)], Paint.INK),
    ]


def _butterfly() -> list[Part]:
    upper = [(0.06, -0.1), (0.3, -0.66), (0.74, -0.84), (0.94, -0.5), (0.72, -0.08), (0.3, 0.08)]
    lower = [(0.06, 0.06), (0.44, 0.06), (0.76, 0.26), (0.7, 0.68), (0.36, 0.78), (0.14, 0.44)]
    return [
        *(smooth([(side * x, y) for x, y in wing]) for wing in (lower, upper) for side in (1, -1)),
        *(ellipse(side * 0.66, -0.5, 0.13, 0.13, Paint.LIGHT) for side in (1, -1)),
        *(ellipse(side * 0.5, 0.42, 0.1, 0.1, Paint.LIGHT) for side in (1, -1)),
        *(
            poly([(side * 0.02, -0.5), (side * 0.2, -0.88), (side * 0.26, -0.86), (side * 0.07, -0.46)], Paint.INK)
            for side in (1, -1)
        ),
        ellipse(0, 0.04, 0.1, 0.62, Paint.INK),
    ]


def _flower() -> list[Part]:
    petals = [(0.46 * cos(2 * pi * i / 6), -0.26 + 0.46 * sin(2 * pi * i / 6)) for i in range(6)]
    return [
        rect(-0.05, 0.0, 0.05, 0.94, Paint.LEAF),
        smooth([(0.02, 0.8), (0.3, 0.5), (0.56, 0.5), (0.4, 0.76)], Paint.LEAF),
        *(ellipse(x, y, 0.25, 0.25) for x, y in petals),
        ellipse(0, -0.26, 0.34, 0.34, Paint.SHADE),
        ellipse(0, -0.26, 0.27, 0.27, Paint.FLAME),
    ]


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


@cache
def reach_of(category: str) -> float:
    """Return the distance of a category's farthest point from its middle, in object units."""
    return max(hypot(float(x), float(y)) for part in parts_of(category) for x, y in part.points)
