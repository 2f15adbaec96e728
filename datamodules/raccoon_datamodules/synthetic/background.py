"""The pictures behind the objects: plain gradients and eight sceneries, drawn at any size from one random table.

A background is drawn once per clip, larger than the frame by MARGIN on every side, and the camera moves over it. All
places are fractions of the frame, and all randomness is read before anything depends on the size, so that a small and
a large clip show the same picture.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.synthetic.vocabulary import PLAIN_BACKGROUNDS, Rgb

Floats = NDArray[np.float64]
MARGIN = 0.1
"""How far the world reaches beyond the frame, in fractions of it; the camera pans by less."""


class Canvas:
    """A float picture [Hw, Ww, 3] in 0..255 with its pixel centres in fractions of the frame.

    ``x`` [1, Ww] and ``y`` [Hw, 1] run over [-margin, 1 + margin]; ``pixel`` is the size of a pixel in fractions of the
    frame's height, which is what edges are softened by.
    """

    def __init__(self, height: int, width: int, margin: float) -> None:
        extra_y, extra_x = (0, 0) if margin == 0 else (int(margin * height + 1), int(margin * width + 1))
        self.origin = (extra_y, extra_x)
        self.x: Floats = (np.arange(-extra_x, width + extra_x, dtype=np.float64)[None, :] + 0.5) / width
        self.y: Floats = (np.arange(-extra_y, height + extra_y, dtype=np.float64)[:, None] + 0.5) / height
        self.aspect = width / height
        self.pixel = 1 / height
        self.image: Floats = np.zeros((height + 2 * extra_y, width + 2 * extra_x, 3))

    def gradient(self, top: Rgb, bottom: Rgb, start: float = 0.0, end: float = 1.0) -> None:
        """Fill everything with a vertical gradient that runs from ``start`` to ``end``."""
        part = np.clip((self.y - start) / (end - start), 0, 1)[:, :, None]
        self.image[:] = np.asarray(top) * (1 - part) + np.asarray(bottom) * part

    def paint(self, inside: Floats, colour: Rgb | Floats, opacity: float = 1.0) -> None:
        """Blend a colour in where ``inside`` is positive; it is a signed distance in fractions of the height."""
        cover = np.clip(inside / self.pixel + 0.5, 0, 1)[..., None] * opacity
        self.image += (np.asarray(colour, dtype=np.float64) - self.image) * cover

    def disc(self, cx: float, cy: float, radius: float, colour: Rgb, opacity: float = 1.0, squash: float = 1.0) -> None:
        """Paint a disc that is round in pixels; only the rows and columns it touches are visited."""
        reach_x, reach_y = radius / self.aspect + self.pixel * 2 / self.aspect, radius * squash + self.pixel * 2
        rows = np.flatnonzero(np.abs(self.y[:, 0] - cy) <= reach_y)
        columns = np.flatnonzero(np.abs(self.x[0] - cx) <= reach_x)
        if not rows.size or not columns.size:
            return
        ys, xs = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        dx, dy = (self.x[:, xs] - cx) * self.aspect, (self.y[ys] - cy) / squash
        cover = np.clip((radius - np.sqrt(dx * dx + dy * dy)) / self.pixel + 0.5, 0, 1)[..., None] * opacity
        self.image[ys, xs] += (np.asarray(colour, dtype=np.float64) - self.image[ys, xs]) * cover

    def texture(self, table: Floats, cells: tuple[int, int], strength: float) -> None:
        """Add smooth noise: ``table`` [n, m] in [-1, 1] is read as a lattice of ``cells`` (down, across) per frame."""
        self.image += strength * self.noise(table, cells)[..., None]

    def noise(self, table: Floats, cells: tuple[int, int]) -> Floats:
        """Interpolate the lattice ``table`` smoothly over the canvas, in [-1, 1]."""
        down, across = (self.y[:, 0] + 1) * cells[0], (self.x[0] + 1) * cells[1]
        row, column = np.floor(down).astype(np.int64), np.floor(across).astype(np.int64)
        v, u = down - row, across - column
        v, u = (v * v * (3 - 2 * v))[:, None], (u * u * (3 - 2 * u))[None, :]
        height, width = table.shape
        lines = table[row % height] * (1 - v) + table[(row + 1) % height] * v
        return lines[:, column % width] * (1 - u) + lines[:, (column + 1) % width] * u


def _wave(x: Floats, table: Floats, frequency: float, height: float) -> Floats:
    """A smooth hilly line over x from three sines whose phases and weights the table [6] gives."""
    line = np.zeros_like(x)
    for octave in range(3):
        weight = (0.6 + 0.4 * table[octave]) / (octave + 1)
        line = line + weight * np.sin((frequency * (octave + 1) * x + table[3 + octave]) * np.pi)
    return height * line / 2


def _meadow(canvas: Canvas, table: Floats) -> None:
    canvas.gradient((126, 192, 238), (222, 240, 250), 0.0, 0.6)
    canvas.disc(0.15 + 0.7 * abs(table[0]), 0.14, 0.07, (255, 242, 190))
    for i in range(3):
        cx, cy = 0.5 + 0.55 * table[1 + i], 0.14 + 0.1 * abs(table[4 + i])
        for dx, r in ((-0.06, 0.035), (0.0, 0.055), (0.065, 0.038)):
            canvas.disc(cx + dx / canvas.aspect, cy, r, (250, 252, 255), 0.9, 0.75)
    hills = ((0.52, 0.07, (150, 200, 130)), (0.62, 0.06, (122, 184, 98)), (0.74, 0.05, (96, 164, 78)))
    for i, (level, height, colour) in enumerate(hills):
        line = level + _wave(canvas.x, table[10 + 6 * i : 16 + 6 * i], 1.6, height)
        canvas.paint(canvas.y - line, colour)
    canvas.texture(table[:192].reshape(12, 16), (9, 12), 3.5)
    for i in range(26):
        cx, depth = 0.5 + 0.62 * table[40 + i], abs(table[80 + i])
        cy = 0.84 + 0.2 * depth
        colour = ((250, 240, 150), (250, 250, 250), (244, 170, 190))[i % 3]
        canvas.disc(cx, cy, 0.006 + 0.006 * depth, colour, 0.9)


def _sea(canvas: Canvas, table: Floats) -> None:
    canvas.gradient((150, 206, 240), (238, 240, 232), 0.0, 0.42)
    canvas.disc(0.5 + 0.36 * table[0], 0.2, 0.075, (255, 236, 176))
    colours = ((60, 142, 190), (48, 128, 180), (38, 112, 168), (30, 98, 154), (24, 84, 140))
    for i, colour in enumerate(colours):
        level = 0.42 + 0.125 * i + 0.015 * i * i * 0.5
        line = level + (0 if i == 0 else _wave(canvas.x, table[10 + 6 * i : 16 + 6 * i], 3.5, 0.018 + 0.003 * i))
        canvas.paint(canvas.y - line, colour)
        if i:
            canvas.paint(0.004 + 0.001 * i - np.abs(canvas.y - line), (196, 226, 240), 0.5)
    canvas.texture(table[:192].reshape(12, 16), (26, 5), 4.0)


def _night(canvas: Canvas, table: Floats) -> None:
    canvas.gradient((16, 20, 52), (62, 56, 110), 0.0, 1.0)
    canvas.texture(table[:192].reshape(12, 16), (4, 4), 7.0)
    for i in range(60):
        cx, cy = 0.5 + 0.62 * table[i], 0.45 + 0.55 * table[60 + i]
        canvas.disc(cx, cy, 0.0035 + 0.004 * abs(table[120 + i]), (240, 240, 214), 0.5 + 0.5 * abs(table[130 + i]))
    cx = 0.5 + 0.34 * table[5]
    canvas.disc(cx, 0.2, 0.15, (120, 120, 170), 0.18)
    canvas.disc(cx, 0.2, 0.09, (244, 240, 214))
    canvas.disc(cx - 0.028 / canvas.aspect, 0.19, 0.018, (222, 216, 188))
    canvas.disc(cx + 0.03 / canvas.aspect, 0.225, 0.013, (222, 216, 188))
    line = 0.88 + _wave(canvas.x, table[10:16], 2.2, 0.04)
    canvas.paint(canvas.y - line, (30, 30, 58))


def _tiles(canvas: Canvas, table: Floats, rows: int, columns: float, gap: float, base: Rgb, vary: Rgb) -> None:
    """Rows of tiles, every second row shifted by half, each with its own shade, on the picture as joint."""
    row = np.floor(canvas.y * rows)
    across = canvas.x * columns * canvas.aspect + 0.5 * np.mod(row, 2) + 0.37 * table[0]
    column = np.floor(across)
    number = np.mod(row * 37 + column * 11 + 4096, 251).astype(np.int64)
    edge_y = (0.5 - np.abs(canvas.y * rows - row - 0.5)) / rows
    edge_x = (0.5 - np.abs(across - column - 0.5)) / columns
    colour = np.asarray(base, dtype=np.float64) + np.asarray(vary, dtype=np.float64) * table[number][..., None]
    light = np.clip((0.016 - edge_y) / 0.016, 0, 1) * np.where(canvas.y * rows - row < 0.5, 10.0, -12.0)
    canvas.paint(np.minimum(edge_x, edge_y) - gap, colour + light[..., None])


def _bricks(canvas: Canvas, table: Floats) -> None:
    canvas.gradient((206, 196, 184), (188, 178, 166))
    _tiles(canvas, table, 9, 4.5, 0.006, (176, 104, 84), (20, 12, 10))
    canvas.texture(table[:192].reshape(12, 16), (14, 14), 5.0)


def _wood(canvas: Canvas, table: Floats) -> None:
    canvas.gradient((112, 78, 50), (104, 70, 44))
    _tiles(canvas, table, 6, 0.9, 0.004, (190, 142, 96), (16, 13, 10))
    grain = canvas.noise(table[:192].reshape(12, 16), (46, 3)) + 0.6 * canvas.noise(
        table[32:224].reshape(16, 12), (90, 5)
    )
    canvas.image += 8.0 * grain[..., None]


def _desert(canvas: Canvas, table: Floats) -> None:
    canvas.gradient((248, 208, 150), (252, 234, 200), 0.0, 0.5)
    canvas.disc(0.5 + 0.36 * table[0], 0.2, 0.1, (255, 248, 226), 0.5)
    canvas.disc(0.5 + 0.36 * table[0], 0.2, 0.07, (255, 250, 234))
    dunes = ((0.46, 0.05, (232, 186, 124)), (0.58, 0.06, (222, 170, 104)), (0.74, 0.06, (208, 150, 84)))
    for i, (level, height, colour) in enumerate(dunes):
        line = level + _wave(canvas.x, table[10 + 6 * i : 16 + 6 * i], 1.3, height)
        depth = np.clip((canvas.y - line) / 0.3, 0, 1)[..., None]
        canvas.paint(canvas.y - line, np.asarray(colour) + 18.0 - 34.0 * depth)
    canvas.texture(table[:192].reshape(12, 16), (40, 6), 3.5)


def _city(canvas: Canvas, table: Floats) -> None:
    canvas.gradient((250, 190, 150), (252, 226, 190), 0.0, 0.75)
    canvas.disc(0.5 + 0.3 * table[0], 0.34, 0.11, (255, 238, 200), 0.8)
    for layer, (colour, low) in enumerate((((186, 150, 168), 0.34), ((138, 116, 150), 0.46), ((88, 80, 118), 0.6))):
        width = (0.13, 0.15, 0.18)[layer]
        for i in range(-1, 9):
            pick = table[(layer * 31 + i * 7) % 200]
            left = i * width - 0.05 + 0.03 * pick
            right, top = left + width * (0.86 + 0.14 * pick), low + 0.16 * abs(table[(layer * 17 + i * 5 + 90) % 200])
            inside = np.minimum(np.minimum(canvas.x - left, right - canvas.x) * canvas.aspect, canvas.y - top)
            canvas.paint(inside, colour)
            if layer == 2:
                windows = np.minimum(
                    0.012 - np.abs(np.mod(canvas.y - top, 0.07) - 0.035),
                    0.008 - np.abs(np.mod(canvas.x - left, 0.045) - 0.0225) * canvas.aspect,
                )
                canvas.paint(np.minimum(windows, inside - 0.012), (250, 220, 150), 0.65)
    canvas.paint(canvas.y - 0.93, (70, 66, 92))


def _mountains(canvas: Canvas, table: Floats) -> None:
    canvas.gradient((140, 186, 226), (232, 238, 244), 0.0, 0.65)
    for layer, (colour, base, height) in enumerate(
        (((156, 172, 198), 0.6, 0.34), ((112, 132, 164), 0.72, 0.36), ((74, 104, 108), 0.86, 0.2))
    ):
        line = np.full_like(canvas.x, base)
        for i in range(5):
            cx = 0.02 + 0.24 * i + 0.12 * table[layer * 20 + i]
            peak = base - height * (0.65 + 0.35 * abs(table[layer * 20 + 8 + i]))
            slope = 1.25 if layer < 2 else 0.7
            line = np.minimum(line, peak + np.abs(canvas.x - cx) * canvas.aspect * slope)
        jag = 0.012 * canvas.noise(table[:192].reshape(12, 16), (1, 24))[:1]
        canvas.paint(canvas.y - line - jag, colour)
        if layer < 2:
            snow = np.minimum(canvas.y - line - jag, base - height * 0.62 + 3.0 * jag - canvas.y)
            canvas.paint(snow, (244, 248, 252))
    canvas.paint(canvas.y - 0.86 - _wave(canvas.x, table[30:36], 2.4, 0.03), (92, 132, 92))
    canvas.texture(table[:192].reshape(12, 16), (10, 12), 3.0)


_SCENERIES: dict[str, Callable[[Canvas, Floats], None]] = {
    "meadow": _meadow,
    "sea": _sea,
    "night sky": _night,
    "brick wall": _bricks,
    "wooden floor": _wood,
    "desert": _desert,
    "city": _city,
    "mountains": _mountains,
}

MEAN_COLOURS: dict[str, tuple[Rgb, ...]] = PLAIN_BACKGROUNDS | {
    "meadow": ((166, 208, 216), (112, 176, 92)),
    "sea": ((180, 216, 236), (40, 116, 172)),
    "night sky": ((30, 32, 70), (54, 50, 100)),
    "brick wall": ((176, 108, 90),),
    "wooden floor": ((188, 140, 96),),
    "desert": ((250, 222, 176), (220, 168, 104)),
    "city": ((250, 200, 162), (110, 96, 130)),
    "mountains": ((180, 208, 234), (112, 132, 160)),
}
"""The colours an object is likely to stand before, for the contrast rule."""


def background_table(rng: np.random.Generator) -> Floats:
    """Draw the random table [256] in [-1, 1] that fixes a background's details at every size."""
    return rng.random(256) * 2 - 1


def draw_background(
    name: str, table: Floats, *, size: tuple[int, int], margin: float = MARGIN
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Draw the named background around a frame of ``size`` (H, W).

    Returns the picture uint8 [Hw, Ww, 3] and the place (row, column) of the frame's first pixel in it.
    """
    canvas = Canvas(*size, margin)
    if name in PLAIN_BACKGROUNDS:
        canvas.gradient(*PLAIN_BACKGROUNDS[name])
        tilt = 5.0 * table[0] * (canvas.x - 0.5) * 2
        canvas.image += np.broadcast_to(tilt, canvas.image.shape[:2])[..., None]
    else:
        _SCENERIES[name](canvas, table)
    return np.rint(np.clip(canvas.image, 0, 255)).astype(np.uint8), canvas.origin


def draw_prop(
    name: str, table: Floats, *, size: tuple[int, int], margin: float = MARGIN
) -> tuple[NDArray[np.uint8], tuple[int, int]] | None:
    """Draw what stands in front of the camera, or None for "none".

    Returns the picture uint8 [Hw, Ww, 4], colour premultiplied by the coverage in the fourth channel, and its origin.
    """
    if name == "none":
        return None
    colour, cover = Canvas(*size, margin), Canvas(*size, margin)
    place = 0.5 + 0.3 * table[200]
    if name == "post":
        half = 0.035
        across = (colour.x - place) * colour.aspect
        shade = 1.1 - 0.35 * np.clip((across / half + 1) / 2, 0, 1)
        colour.image[:] = np.asarray((120, 88, 62)) * shade[..., None]
        inside = half - np.abs(across) + 0 * colour.y
        colour.paint(0.006 - np.abs(inside - 0.006), (62, 44, 36))
        cover.paint(inside, (255, 255, 255))
    elif name == "bush":
        colour.image[:] = (44, 98, 60)
        for i in range(9):
            cx, cy = place + 0.24 * table[201 + i] / colour.aspect, 0.98 - 0.14 * (1 - abs(table[201 + i]))
            radius = 0.085 + 0.03 * abs(table[211 + i])
            colour.disc(cx, cy, radius, (36, 84, 54))
            colour.disc(cx - 0.01 / colour.aspect, cy - 0.012, radius * 0.86, (58, 124, 70))
            colour.disc(cx - 0.03 / colour.aspect, cy - 0.034, radius * 0.5, (84, 154, 84))
            cover.disc(cx, cy, radius, (255, 255, 255))
    else:
        for i in range(44):
            left = -0.1 + 1.2 * i / 44 + 0.02 * table[201 + i]
            height, lean = 0.12 + 0.1 * abs(table[150 + i]), 0.05 * table[100 + i]
            up = np.clip((1.02 - colour.y) / height, 0, 1.2)
            blade = 0.013 * (1 - up) - np.abs((colour.x - left) * colour.aspect - lean * up * up)
            green = ((58, 128, 66), (84, 156, 78), (44, 106, 62))[i % 3]
            inside = np.where(up < 1, blade, -1.0)
            colour.paint(inside, green)
            cover.paint(inside, (255, 255, 255))
            # Where only this blade covers a pixel, its colour is the blade's.
            alone = (cover.image[..., :1] < 254) & (inside[..., None] > -colour.pixel)
            colour.image[:] = np.where(alone, np.asarray(green, dtype=np.float64), colour.image)
    alpha = np.rint(np.clip(cover.image[..., :1], 0, 255))
    premultiplied = np.minimum(np.rint(np.clip(colour.image, 0, 255) * alpha / 255), alpha)
    return np.concatenate([premultiplied, alpha], axis=2).astype(np.uint8), colour.origin
