"""The words of the procedural VPLM: what an object can be, what its colour looks like, and what each difficulty uses.

A word stands in a tuple or a table here and nowhere else; the drawing, the motion and the text look it up. The order of
the tuples is part of the generator: a change of order changes what a seed shows, so it needs a new GENERATOR_VERSION.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

Rgb = tuple[int, int, int]
DifficultyName = Literal["easy", "medium", "hard"]

GENERATOR_VERSION = 1
"""Goes up whenever the same seed would give other pixels or other words."""

CATEGORIES = (
    "ball",
    "box",
    "star",
    "heart",
    "car",
    "fish",
    "house",
    "tree",
    "bird",
    "boat",
    "rocket",
    "mushroom",
    "balloon",
    "umbrella",
    "kite",
    "cat",
    "butterfly",
    "flower",
)
COLOURS: dict[str, Rgb] = {
    "red": (214, 44, 48),
    "yellow": (250, 204, 40),
    "green": (52, 158, 74),
    "blue": (44, 96, 216),
    "pink": (246, 128, 178),
    "white": (245, 245, 241),
    "orange": (243, 134, 30),
    "purple": (128, 66, 184),
    "cyan": (48, 190, 204),
    "brown": (132, 84, 50),
    "black": (44, 46, 54),
    "gray": (142, 147, 156),
}
PATTERNS = ("plain", "striped", "dotted", "checkered", "zigzag")
SIZES = ("small", "medium", "large")
MOTIONS = (
    "still",
    "left-to-right",
    "right-to-left",
    "rise",
    "fall",
    "diagonal",
    "circle",
    "bounce",
    "zigzag",
    "swing",
    "approach",
    "spin",
)
CAMERAS = ("static", "pan-right", "pan-left", "tilt-up", "tilt-down", "zoom-in", "zoom-out")
PLAIN_BACKGROUNDS: dict[str, tuple[Rgb, Rgb]] = {
    "cream": ((253, 246, 228), (240, 226, 196)),
    "light blue": ((222, 238, 250), (186, 214, 238)),
    "pale gray": ((236, 238, 241), (208, 212, 218)),
    "mint": ((222, 244, 230), (184, 224, 202)),
    "lavender": ((232, 226, 246), (204, 194, 230)),
    "slate": ((92, 106, 124), (64, 76, 94)),
    "navy": ((38, 50, 88), (22, 30, 58)),
    "charcoal": ((70, 70, 76), (44, 44, 50)),
    "dark teal": ((36, 92, 98), (22, 62, 70)),
}
SCENERIES = ("meadow", "sea", "night sky", "brick wall", "wooden floor", "desert", "city", "mountains")
PROPS = ("none", "grass", "post", "bush")


@dataclass(frozen=True, slots=True)
class Difficulty:
    """What a difficulty draws from.

    Easy promises more than its words: nothing has a shadow, every object is whole and covers at least 3 % of each frame
    of a square clip, and no two share a category or a colour.

    ``radii`` are the half extents of a small, medium and large object, in units of the frame's scale (the square root
    of its area; less in very long frames). ``contrast`` is the least CIELAB distance of an object's colour to the
    background. Two objects' middles stay ``apart`` times the sum of their radii from each other for at least
    ``apart_time`` of the clip. ``late_entry`` is the chance that an object after the first comes late.
    """

    name: DifficultyName
    categories: tuple[str, ...]
    colours: tuple[str, ...]
    patterns: tuple[str, ...]
    motions: tuple[str, ...]
    backgrounds: tuple[str, ...]
    cameras: tuple[str, ...]
    props: tuple[str, ...]
    radii: tuple[float, float, float]
    contrast: float
    apart: float
    apart_time: float
    has_shadows: bool
    late_entry: float
    may_repeat: bool


DIFFICULTIES: dict[str, Difficulty] = {
    "easy": Difficulty(
        name="easy",
        categories=CATEGORIES[:6],
        colours=tuple(COLOURS)[:6],
        patterns=PATTERNS[:4],
        # Motions that need room are refused more often where objects are large, so they are drawn more often.
        motions=(*MOTIONS, *("diagonal", "circle", "zigzag", "swing", "bounce") * 2),
        backgrounds=tuple(PLAIN_BACKGROUNDS),
        cameras=("static",),
        props=("none",),
        radii=(0.165, 0.2, 0.235),
        contrast=40.0,
        apart=0.7,
        apart_time=1.0,
        has_shadows=False,
        late_entry=0.0,
        may_repeat=False,
    ),
    "medium": Difficulty(
        name="medium",
        categories=CATEGORIES[:12],
        colours=tuple(COLOURS)[:10],
        patterns=PATTERNS[:4],
        motions=MOTIONS,
        backgrounds=(*SCENERIES[:6], "cream", "light blue", "slate"),
        cameras=("static", "pan-right", "pan-left", "zoom-in"),
        props=("none",),
        radii=(0.11, 0.15, 0.2),
        contrast=24.0,
        apart=0.6,
        apart_time=0.7,
        has_shadows=True,
        late_entry=0.25,
        may_repeat=False,
    ),
    "hard": Difficulty(
        name="hard",
        categories=CATEGORIES,
        colours=tuple(COLOURS),
        patterns=PATTERNS,
        motions=MOTIONS,
        backgrounds=SCENERIES,
        cameras=CAMERAS,
        props=(*("none",) * 3, *PROPS[1:]),
        radii=(0.08, 0.12, 0.17),
        contrast=16.0,
        apart=0.5,
        apart_time=0.4,
        has_shadows=True,
        late_entry=0.35,
        may_repeat=True,
    ),
}


def shows_turning(category: str, pattern: str) -> bool:
    """Say whether one can see such an object turn: a ball needs a pattern for it."""
    return category != "ball" or pattern != "plain"


def difficulty_named(name: str) -> Difficulty:
    """Look a difficulty up by name; raises ValueError, naming those there are, for any other word."""
    if name not in get_args(DifficultyName):
        raise ValueError(f"difficulty must be one of {', '.join(get_args(DifficultyName))}, got {name!r}")
    return DIFFICULTIES[name]


@cache
def lab(colour: Rgb) -> tuple[float, float, float]:
    """Return the CIELAB (D65) coordinates of an 8-bit sRGB colour: L in [0, 100], a and b about [-128, 127]."""
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    red, green, blue = linear
    xyz = (
        (0.4124564 * red + 0.3575761 * green + 0.1804375 * blue) / 0.95047,
        0.2126729 * red + 0.7151522 * green + 0.0721750 * blue,
        (0.0193339 * red + 0.1191920 * green + 0.9503041 * blue) / 1.08883,
    )
    x, y, z = (v ** (1 / 3) if v > 216 / 24389 else (24389 / 27 * v + 16) / 116 for v in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@cache
def colour_distance(first: Rgb, second: Rgb) -> float:
    """Return the CIE76 distance of two 8-bit sRGB colours: 2.3 is just noticeable, above 40 nobody confuses them."""
    return sum((p - q) ** 2 for p, q in zip(lab(first), lab(second), strict=True)) ** 0.5
