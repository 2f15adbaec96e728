"""Pixels of a scene: the clip, the clip without each object, and which pixels belong to what.

Everything random or trigonometric is rounded to fixed point before it touches a pixel, and all blending is done in
integers, so that a scene gives the same bytes on every machine. Layers are laid from back to front: background, then
for each object its shadow and the object, then what stands in front of the camera. A pixel takes 2 x 2 samples of a
sprite, each the sum of 2 x 2 texels. Leaving an object out leaves its shadow out as well, and nothing else changes.
"""

from dataclasses import dataclass
from math import ceil, sqrt
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.synthetic.background import MARGIN, draw_background, draw_prop
from raccoon_datamodules.synthetic.motion import APPROACH, Floats, Poses, camera_of, poses_of, times_of
from raccoon_datamodules.synthetic.silhouettes import reach_of
from raccoon_datamodules.synthetic.sprites import SHADOW_SPAN, SPAN, shadow_of, sprite_of
from raccoon_datamodules.synthetic.vocabulary import DIFFICULTIES

if TYPE_CHECKING:
    from raccoon_datamodules.synthetic.scene import Scene, SceneObject

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]

SAMPLES = 2
SHADOW_STRENGTH = 84
SHADOW_OFFSET = (0.16, 0.2)
_FIX = 15
_CHUNK = 1 << 16
"""Samples gathered at once: half a megabyte of texels, which a second-level cache holds."""
_ROOM = {"approach": 1.06 * APPROACH[1], "swing": 1.16}
"""How much more than its half extent an object needs between its middle and the frame's edge."""
_ROLLING = ("ball",)
_GLOSSY = ("ball", "balloon", "heart", "mushroom")
_UPRIGHT = ("ball", "box", "star", "heart", "house", "tree", "rocket", "mushroom", "balloon", "kite", "flower")


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """A scene's pixels.

    ``frames`` uint8 [F, H, W, 3]; ``masks`` uint8 {0, 1} [n, F, H, W], 1 where the object covers a part of a pixel and
    nothing opaque covers it (at the edge between two objects a pixel may belong to both); ``shadows`` uint8 {0, 1}
    [n, F, H, W], 1 where the object's shadow may darken what is seen; ``inpainted`` uint8 [n, F, H, W, 3], the clip
    without each object and its shadow, or None. Outside mask and shadow, ``inpainted[i]`` equals ``frames``.
    """

    frames: Bytes
    masks: Bytes
    shadows: Bytes
    inpainted: Bytes | None


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """What one object lays on one frame, already cut to it: the window, colour and coverage, and its shadow."""

    window: tuple[slice, slice]
    colour: NDArray[np.uint16]
    coverage: NDArray[np.uint16]
    shadow_window: tuple[slice, slice]
    shadow: NDArray[np.uint16] | None


def frame_scale(size: tuple[int, int]) -> float:
    """Return the unit of object sizes in pixels: the root of the frame's area, at most 1.4 times its shorter side."""
    return min(sqrt(size[0] * size[1]), 1.4 * min(size))


def object_poses(obj: "SceneObject", times: Floats, size: tuple[int, int]) -> Poses:
    """Return the poses of an object at ``times`` [F] in a frame of ``size`` (H, W), before the camera looks at it."""
    room = _ROOM.get(obj.course.kind, 1.06)
    if obj.course.kind == "spin":
        room += max(0.0, reach_of(obj.category) - 1)
    reach = obj.radius * frame_scale(size) * room
    return poses_of(obj.course, times, (reach / size[1], reach / size[0]), rolls=obj.category in _ROLLING)


def _over(under: NDArray[np.uint8], colour: NDArray[np.uint16], coverage: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Lay premultiplied ``colour`` [..., 3] with ``coverage`` [..., 1] on ``under``; 255 hides, 0 leaves bits alone."""
    rest = under * (255 - coverage)
    rest += 128
    rest += rest >> 8
    rest >>= 8
    rest += colour
    return rest.astype(np.uint8)


def _gather(sprite: NDArray, affine: tuple[Floats, ...], count: int) -> NDArray:
    """Sample a square sprite at [f, count, count] points: texel = affine(column, row), held at its border.

    ``affine`` holds a, b, c, d, e, f, each [f], with u = a * column + b * row + c and v = d * column + e * row + f.
    """
    texels = sprite.shape[0]
    fixed = [np.rint(term * (1 << _FIX)).astype(np.int32)[:, None, None] for term in affine]
    steps = np.arange(count, dtype=np.int32)
    column, row = steps[None, None, :], steps[None, :, None]
    u = (fixed[0] * column + fixed[2]) + fixed[1] * row
    v = (fixed[3] * column + fixed[5]) + fixed[4] * row
    for place in (u, v):
        np.right_shift(place, _FIX, out=place)
        np.maximum(place, 0, out=place)
        np.minimum(place, texels - 1, out=place)
    v *= texels
    v += u
    return np.take(sprite.reshape(-1), v, mode="clip")


def _affine(
    offset_x: Floats,
    offset_y: Floats,
    radius: Floats,
    angle: Floats,
    facing: int,
    texels: float,
    span: float,
    step: float,
) -> tuple[Floats, ...]:
    """Map sample numbers to texels; ``offset_*`` is the first sample's place from the object's centre in pixels."""
    c, s = np.cos(angle), np.sin(angle)
    unit = texels / radius
    a, b = facing * c * unit, facing * s * unit
    d, e = -s * unit, c * unit
    # A sample sums the texel it falls on and the next ones; its middle is half a texel on.
    middle = span * texels - (0.5 if step < 1 else 0.0)
    return (
        a * step,
        b * step,
        a * offset_x + b * offset_y + middle,
        d * step,
        e * step,
        d * offset_x + e * offset_y + middle,
    )


def _shading(dx: Floats, dy: Floats, radius: Floats, light: int, glossy: bool) -> NDArray[np.uint32]:
    """Return brightness in 1/256 [f, P, P] for pixels at dx [f, 1, P], dy [f, P, 1] from a centre lit from above."""
    x, y = dx / radius, dy / radius
    shade = 1.03 - 0.15 * y - 0.08 * light * x
    if glossy:
        shade = shade + 0.42 * np.clip(1 - ((x - 0.36 * light) ** 2 + (y + 0.4) ** 2) / 0.2, 0, 1)
    return np.rint(np.clip(shade, 0.6, 1.6) * 256).astype(np.uint32)


def _cut(left: int, top: int, side: int, size: tuple[int, int]) -> tuple[slice, slice]:
    """Return the window of a square patch that lies in the frame, in frame coordinates; may be empty."""
    y0, x0 = min(max(top, 0), size[0]), min(max(left, 0), size[1])
    return slice(y0, max(y0, min(top + side, size[0]))), slice(x0, max(x0, min(left + side, size[1])))


def _layers_of(scene: "Scene", obj: "SceneObject", times: Floats, size: tuple[int, int]) -> list[_Layer | None]:
    """Rasterise one object for every frame; None where it is absent or outside the frame."""
    height, width = size
    poses, (cam_x, cam_y, zoom) = object_poses(obj, times, size), camera_of(scene.camera, times)
    radius = np.maximum(obj.radius * frame_scale(size) * poses.scale * zoom, 0.5)
    sx, sy = ((poses.x - cam_x) * zoom + 0.5) * width, ((poses.y - cam_y) * zoom + 0.5) * height
    facing = -1 if obj.course.direction < 0 and obj.category not in _UPRIGHT else 1
    largest = float(radius.max())
    turned = float(np.max(np.abs(np.cos(poses.angle)) + np.abs(np.sin(poses.angle))))
    half = ceil(largest * min(1.05 * turned, reach_of(obj.category) + 0.07)) + 1
    side = 2 * half
    texels = 1 << min(10, max(6, ceil(np.log2(2 * SPAN * largest * 2 * SAMPLES * 0.8))))
    sprite = sprite_of(obj.category, obj.colour, obj.pattern, texels)
    left, top = np.floor(sx).astype(np.int64) - half, np.floor(sy).astype(np.int64) - half
    seen = poses.present & (left < width) & (left + side > 0) & (top < height) & (top + side > 0)
    layers: list[_Layer | None] = [None] * len(times)
    numbers = np.flatnonzero(seen)
    chunk = max(1, _CHUNK // (side * SAMPLES) ** 2)
    has_shadow = DIFFICULTIES[scene.difficulty].has_shadows
    for start in range(0, len(numbers), chunk):
        at = numbers[start : start + chunk]
        first = 0.5 / SAMPLES
        affine = _affine(
            left[at] + first - sx[at], top[at] + first - sy[at], radius[at], poses.angle[at], facing,
            texels / (2 * SPAN), SPAN, 1 / SAMPLES,
        )  # fmt: skip
        fine = _gather(sprite, affine, side * SAMPLES)
        rows = fine.reshape(len(at), side, SAMPLES, -1)
        rows = rows[:, :, 0] + rows[:, :, 1]
        sums = rows[:, :, 0::2] + rows[:, :, 1::2]
        lanes = np.ascontiguousarray(sums).view(np.uint16).reshape(len(at), side, side, 4)
        lanes += 8
        lanes >>= 4
        pixels = np.arange(side)
        dx = (left[at][:, None, None] + pixels[None, None, :] + 0.5) - sx[at][:, None, None]
        dy = (top[at][:, None, None] + pixels[None, :, None] + 0.5) - sy[at][:, None, None]
        light = _shading(dx, dy, radius[at][:, None, None], scene.light, obj.category in _GLOSSY)
        coverage = lanes[..., 3:]
        colour = np.minimum((lanes[..., :3] * light[..., None]) >> 8, coverage).astype(np.uint16)
        if has_shadow:
            shade, shade_half = _shadows(scene, obj, sx[at], sy[at], radius[at], poses.angle[at], facing)
        for i, frame in enumerate(at):
            x0, y0 = int(left[frame]), int(top[frame])
            ys, xs = _cut(x0, y0, side, size)
            inside = (slice(ys.start - y0, ys.stop - y0), slice(xs.start - x0, xs.stop - x0))
            shadow, shadow_window = None, (slice(0, 0), slice(0, 0))
            if has_shadow:
                offset = SHADOW_OFFSET[0] * radius[frame] * -scene.light, SHADOW_OFFSET[1] * radius[frame]
                x0 = int(np.floor(sx[frame] + offset[0])) - shade_half
                y0 = int(np.floor(sy[frame] + offset[1])) - shade_half
                shadow_window = _cut(x0, y0, 2 * shade_half, size)
                rows_in = slice(shadow_window[0].start - y0, shadow_window[0].stop - y0)
                shadow = shade[i, rows_in, shadow_window[1].start - x0 : shadow_window[1].stop - x0, None]
            layers[frame] = _Layer((ys, xs), colour[i][inside], coverage[i][inside], shadow_window, shadow)
    return layers


def _shadows(
    scene: "Scene", obj: "SceneObject", sx: Floats, sy: Floats, radius: Floats, angle: Floats, facing: int
) -> tuple[NDArray[np.uint16], int]:
    """Return how much light each pixel loses, 1/256 [f, Q, Q] around the shadow's centre, and half of Q."""
    texels = 1 << min(9, max(5, ceil(np.log2(2 * SPAN * float(radius.max())))))
    sprite = shadow_of(obj.category, texels)
    half = ceil(1.3 * float(radius.max()) * sqrt(2)) + 2
    cx, cy = sx - SHADOW_OFFSET[0] * radius * scene.light, sy + SHADOW_OFFSET[1] * radius
    offset_x, offset_y = np.floor(cx) - half + 0.5 - cx, np.floor(cy) - half + 0.5 - cy
    affine = _affine(offset_x, offset_y, radius, angle, facing, texels / (2 * SPAN), SHADOW_SPAN, 1.0)
    shade = _gather(sprite, affine, 2 * half).astype(np.uint16)
    shade *= SHADOW_STRENGTH
    shade >>= 8
    return shade, half


def _resampled(picture: Bytes, axis: int, places: Ints) -> Bytes:
    """Read a picture at ``places`` (1/256 pixels, ascending) along an axis, linearly between its pixels."""
    first, part = places >> 8, (places & 255).astype(np.uint16)
    low: Bytes
    high: Bytes
    if np.all(np.diff(places) == 256):
        # The camera only pans: two shifted views instead of two gathers.
        views = [slice(first[0] + shift, first[-1] + 1 + shift) for shift in (0, 1)]
        low, high = (picture[view] if axis == 0 else picture[:, view] for view in views)
        if part[0] == 0:
            return low
        part = part[:1]
    else:
        low, high = picture.take(first, axis=axis), picture.take(first + 1, axis=axis)
    part = part[:, None, None] if axis == 0 else part[None, :, None]
    # At most 255 * 256 + 128: sixteen bits hold it.
    mixed = low * (256 - part)
    mixed += high * part
    mixed += 128
    mixed >>= 8
    return mixed.astype(np.uint8)


def _look(
    picture: NDArray[np.uint8], origin: tuple[int, int], size: tuple[int, int], scene: "Scene", times: Floats
) -> list[NDArray[np.uint8]]:
    """Cut the frames [H, W, c] the camera sees out of a world picture [Hw, Ww, c], with bilinear interpolation."""
    height, width = size
    if scene.camera == "static":
        view = picture[origin[0] : origin[0] + height, origin[1] : origin[1] + width]
        return [view] * len(times)
    frames = []
    for x, y, zoom in zip(*camera_of(scene.camera, times), strict=True):
        frame: NDArray = picture
        for axis, (count, centre, start) in enumerate(((height, y, origin[0]), (width, x, origin[1]))):
            place = ((np.arange(count) + 0.5) / count - 0.5) / zoom + centre
            fixed = np.rint((place * count - 0.5 + start) * 256).astype(np.int64)
            fixed = np.clip(fixed, 0, (picture.shape[axis] - 1) * 256 - 1)
            frame = _resampled(frame, axis, fixed)
        frames.append(frame)
    return frames


def _compose(base: Bytes, layers: list[_Layer | None], front: Bytes | None) -> Bytes:
    frame = base.copy()
    for layer in layers:
        if layer is None:
            continue
        if layer.shadow is not None:
            under = frame[layer.shadow_window]
            frame[layer.shadow_window] = ((under * (256 - layer.shadow)) >> 8).astype(np.uint8)
        frame[layer.window] = _over(frame[layer.window], layer.colour, layer.coverage)
    if front is not None:
        frame = _over(frame, front[..., :3].astype(np.uint16), front[..., 3:].astype(np.uint16))
    return frame


def rasterise(scene: "Scene", *, num_frames: int, size: tuple[int, int], inpainted: bool = True) -> Rendered:
    """Draw a scene.

    ``num_frames`` >= 1; ``size`` (H, W), each at least 16. Returns a Rendered; without ``inpainted`` its clips without
    each object are None, which saves about their share of the time. Raises ValueError for other sizes.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}")
    if len(size) != 2 or min(size) < 16:
        raise ValueError(f"size must be (height, width), each at least 16 pixels, got {tuple(size)}")
    times, count = times_of(num_frames), len(scene.objects)
    margin = 0.0 if scene.camera == "static" else MARGIN
    picture, origin = draw_background(scene.background, scene.table, size=size, margin=margin)
    bases = _look(picture, origin, size, scene, times)
    prop = draw_prop(scene.prop, scene.table, size=size, margin=margin)
    fronts: list[Bytes] | list[None] = (
        [None] * num_frames if prop is None else _look(prop[0], prop[1], size, scene, times)
    )
    layers = [_layers_of(scene, obj, times, size) for obj in scene.objects]
    frames = np.empty((num_frames, *size, 3), dtype=np.uint8)
    without = np.empty((count, num_frames, *size, 3), dtype=np.uint8) if inpainted else None
    masks = np.zeros((count, num_frames, *size), dtype=np.uint8)
    shadows = np.zeros((count, num_frames, *size), dtype=np.uint8)
    for f in range(num_frames):
        stack, front = [layer[f] for layer in layers], fronts[f]
        frames[f] = _compose(bases[f], stack, front)
        hidden = np.zeros(size, dtype=np.bool_) if front is None else front[..., 3] == 255
        for i in reversed(range(count)):
            layer = stack[i]
            if layer is None:
                continue
            cover = layer.coverage[..., 0]
            open_ = ~hidden[layer.window]
            masks[i, f][layer.window] = (cover != 0) & open_
            hidden[layer.window] |= cover == 255
            if layer.shadow is not None:
                shadows[i, f][layer.shadow_window] = (layer.shadow[..., 0] != 0) & ~hidden[layer.shadow_window]
        if without is not None:
            for i in range(count):
                rest = stack[:i] + stack[i + 1 :]
                without[i, f] = frames[f] if stack[i] is None else _compose(bases[f], rest, front)
    return Rendered(frames, masks, shadows, without)
