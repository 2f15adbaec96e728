"""Where an object is at each moment: twelve kinds of motion, and the camera.

Time is a fraction of the clip, 0 at its start and 1 at its end, so that a clip of 8 frames and one of 48 show the same
motion. Places are fractions of the frame's width and height; a motion gets the object's half extent in the same
fractions and keeps it inside the frame, except where it enters late or leaves.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

APPROACH = (0.8, 1.12)
"""Size of an approaching object at the start and at the end, relative to its radius."""
SPIN = 0.5
"""Turns of a spinning object: few enough that a star, alike every fifth of a turn, shows its sense in eight frames."""
POP_TIME = 0.08
"""Part of the clip in which an object that does not travel grows from nothing when it appears late."""
_OUTSIDE = 1.12

MOTIONS_THAT_TRAVEL = ("left-to-right", "right-to-left", "rise", "fall", "diagonal", "zigzag")


@dataclass(frozen=True, slots=True)
class Course:
    """The parameters of a motion.

    ``anchor`` is the place in the free range, x and y in [-1, 1]; ``direction`` is +1 to the right or clockwise, -1 to
    the left or counter-clockwise; ``slope`` is +1 downwards and -1 upwards; ``phase`` is in [0, 1); ``enters_at`` and
    ``leaves_at`` are fractions of the clip, 0 and 1 for an object that is always there.
    """

    kind: str
    anchor: tuple[float, float]
    direction: int
    slope: int
    phase: float
    enters_at: float = 0.0
    leaves_at: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Poses:
    """Centre ``x``, ``y`` as fractions of the frame; clockwise ``angle`` (radians), ``scale``, ``present``; all [F]."""

    x: Floats
    y: Floats
    angle: Floats
    scale: Floats
    present: NDArray[np.bool_]


def times_of(num_frames: int) -> Floats:
    """Return the moment of each frame as a fraction of the clip, the middle of its share: [F] in (0, 1)."""
    return (np.arange(num_frames, dtype=np.float64) + 0.5) / num_frames


def _held(values: Floats, low: float, high: float) -> Floats:
    """np.clip without its checks, which cost more than the work on a few frames."""
    return np.minimum(np.maximum(values, low), high)


def _triangle(t: Floats) -> Floats:
    """A wave between -1 and 1 of period 1 that starts at 0 and rises."""
    return 4 * np.abs(np.mod(t + 0.75, 1) - 0.5) - 1


def poses_of(course: Course, times: Floats, extent: tuple[float, float], *, rolls: bool = False) -> Poses:
    """Return the object's pose at the given times [F].

    ``extent`` is half the object's width and height in fractions of the frame; ``rolls`` turns the object with its way
    (a ball). Where the object is absent its pose is still finite.
    """
    kind, (ax, ay), direction = course.kind, course.anchor, course.direction
    mx, my = min(extent[0], 0.49), min(extent[1], 0.49)
    rx, ry = 0.5 - mx, 0.5 - my
    stays = course.enters_at <= 0 and course.leaves_at >= 1
    t = times if stays else _held((times - course.enters_at) / max(course.leaves_at - course.enters_at, 1e-6), 0, 1)
    still = np.zeros_like(times)
    x, y, angle, scale = still + (0.5 + ax * rx), still + (0.5 + ay * ry), still, still + 1
    begin = -(0.5 + _OUTSIDE * mx) if course.enters_at > 0 else -rx * 0.96
    end = 0.5 + _OUTSIDE * mx if course.leaves_at < 1 else rx * 0.96
    begin_y = -(0.5 + _OUTSIDE * my) if course.enters_at > 0 else -ry * 0.96
    end_y = 0.5 + _OUTSIDE * my if course.leaves_at < 1 else ry * 0.96
    if kind not in ("still", "approach", "spin", "swing"):
        angle = 0.1 * np.sin(2 * np.pi * (t + course.phase))
    if kind in ("left-to-right", "right-to-left"):
        x = 0.5 + direction * (begin + (end - begin) * t)
        angle = direction * (end - begin) * t / max(mx, 1e-3) if rolls else angle
    elif kind in ("rise", "fall"):
        y = 0.5 + course.slope * (begin_y + (end_y - begin_y) * t)
    elif kind == "diagonal":
        x = 0.5 + direction * (begin + (end - begin) * t)
        y = 0.5 + course.slope * (begin_y + (end_y - begin_y) * t)
    elif kind == "zigzag":
        x = 0.5 + direction * (begin + (end - begin) * t)
        y = 0.5 + 0.75 * ry * course.slope * _triangle(1.5 * t + 0.25)
    elif kind == "circle":
        turn = 2 * np.pi * (t + course.phase) * direction
        radius = 0.56
        x = 0.5 + rx * (ax * (1 - radius) + radius * np.cos(turn))
        y = 0.5 + ry * (ay * (1 - radius) + radius * np.sin(turn))
    elif kind == "bounce":
        hop = np.mod(2 * t + 0.25, 1)
        x = 0.5 + rx * _held(ax + 0.4 * direction * (2 * t - 1), -0.94, 0.94)
        y = 0.5 + ry * (0.92 - 1.7 * 4 * hop * (1 - hop))
        angle = direction * 3.0 * t if rolls else angle
    elif kind == "swing":
        tilt = 0.62 * np.cos(2 * np.pi * (1.25 * t + course.phase))
        x = 0.5 + rx * (0.35 * ax + 0.65 * np.sin(tilt) / 0.581)
        y = 0.5 + ry * _held(0.6 * ay + 1.6 * (np.cos(tilt) - 0.9), -1, 1)
        angle = -0.7 * tilt
    elif kind == "approach":
        scale = APPROACH[0] + (APPROACH[1] - APPROACH[0]) * t
    elif kind == "spin":
        angle = direction * 2 * np.pi * (SPIN * t + course.phase)
    present = np.ones(len(times), np.bool_) if stays else (times >= course.enters_at) & (times <= course.leaves_at)
    if kind not in MOTIONS_THAT_TRAVEL and course.enters_at > 0:
        scale = scale * _held((times - course.enters_at) / POP_TIME + 0.35, 0.35, 1)
    return Poses(x=x, y=y, angle=angle, scale=scale, present=present)


PAN = 0.085
ZOOM = 1.22


def camera_of(kind: str, times: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the camera's centre x, y [F] in fractions of the frame and its zoom [F] (1 = the whole frame)."""
    x, y, zoom = (np.full_like(times, v) for v in (0.5, 0.5, 1.0))
    sweep = PAN * (2 * times - 1)
    if kind == "pan-right":
        x = x + sweep
    elif kind == "pan-left":
        x = x - sweep
    elif kind == "tilt-down":
        y = y + sweep
    elif kind == "tilt-up":
        y = y - sweep
    elif kind == "zoom-in":
        zoom = 1 + (ZOOM - 1) * times
    elif kind == "zoom-out":
        zoom = ZOOM + (1 - ZOOM) * times
    return x, y, zoom
