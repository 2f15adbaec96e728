"""A painter without weights: the background seen at other times, Telea's method where none was ever seen.

Each time the mask hides a pixel, that pixel takes, per channel, the median of its nearest visible moments, half before
the gap and half after it; it keeps that value until it is visible again, so the fill does not flicker. A pixel that
every frame hides is inpainted frame by frame by Telea's method, from the frame that the medians have already filled.

Right for a camera that stands still: a static background comes back bit for bit. Wrong for one that moves: "the same
pixel" is then another place of the scene, the median ghosts, and Telea smears whatever is larger than a few pixels.
The object's shadow and reflection outside the mask stay, and may be painted into the mask as background. A background
that moves by itself (water, leaves) is filled with a still.
Source: Telea, "An Image Inpainting Technique Based on the Fast Marching Method", 2004, as in OpenCV. RACCooN (section
3.2) names the task, object removal; this method is not the paper's.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from raccoon.interfaces import PaintRequest
from raccoon.models.stillness import picture_speed
from raccoon_datamodules.sample import EditKind
from raccoon_datamodules.video import Video

# Values (frames x pixels) gathered at once: about 60 MB of working memory, whatever the clip's length and size.
_BLOCK = 1 << 21
# Of the picture's width, from a frame to the next: between a camera on a stand and one held by hand.
_STILL = 0.0005
# Less than this share of the mask that is never seen is too little to look bad.
_UNSEEN = 0.05


class MedianTeleaPainter:
    """Removes what the mask covers by showing what was there at other times.

    Args:
        window: visible moments that the median is taken over, or None for all of the clip. Few follow a slowly changing
            scene (light, clouds); many survive an object that the mask does not quite cover.
        telea_radius: pixels around each that Telea's method reads.

    Raises:
        ValueError: if window or telea_radius is below 1.
    """

    kinds: frozenset[EditKind] = frozenset({"remove"})

    def __init__(self, window: int | None = 10, telea_radius: int = 5) -> None:
        if window is not None and window < 1:
            raise ValueError(f"window must be at least 1 frame, or None for the whole clip, got {window}")
        if telea_radius < 1:
            raise ValueError(f"telea_radius must be at least 1 pixel, got {telea_radius}")
        self.window = window
        self.telea_radius = telea_radius

    def remarks(self, video: Video, mask: NDArray[np.uint8]) -> tuple[str, ...]:
        """Say, a sentence each, what of a removal will look bad: the editor shows it before anything is painted.

        mask uint8 {0, 1} [F, H, W].
        """
        found = []
        speed = picture_speed(video.frames, mask)
        if speed is not None and speed > _STILL:
            found.append(
                f"the camera moves (the picture by about {100 * speed:.2g} % of its width a frame) and "
                "MedianTeleaPainter takes what other frames show at the same place: expect smears"
            )
        area = int(mask.sum())
        unseen = int(np.all(mask, axis=0).sum()) * len(mask) / area if area else 0.0
        if unseen >= _UNSEEN:
            found.append(
                f"{unseen:.0%} of the mask covers what no frame shows; filled in from around it, that looks blurred"
            )
        return tuple(found)

    def paint(self, request: PaintRequest, /) -> NDArray[np.uint8]:
        """Fill the mask; equal to the source outside it.

        The same request gives the same frames: ``seed`` has nothing to draw, ``prompt`` and ``layout`` are not read.
        ``progress`` counts blocks of pixels, then frames of Telea's method; with an empty mask it is not called.

        Returns:
            uint8 [F, H, W, 3], a new array.

        Raises:
            ValueError: if the kind is not "remove"; the mask has not the video's shape, holds anything but 0 and 1, or
                leaves no pixel of any frame visible; a working size other than the video's or any option is asked for.
        """
        self._check(request)
        frames = request.video.frames.copy()
        mask = request.mask.astype(bool)
        hidden = mask.any(axis=0)
        if not hidden.any():
            return frames
        never_seen: NDArray[np.bool_] = np.all(mask, axis=0)
        if never_seen.all():
            raise ValueError(
                f"the mask covers every pixel of all {len(mask)} frames, so there is nothing to paint from; give a "
                "mask that leaves some background visible (1 = repaint: is it inverted?)"
            )

        pixels_P = np.flatnonzero(hidden & ~never_seen)
        blocks = np.array_split(pixels_P, max(1, -(-pixels_P.size * len(frames) // _BLOCK)))
        total = len(blocks) + (len(frames) if never_seen.any() else 0)
        done = 0
        for block in blocks:
            self._fill_gaps(frames, mask, block)
            done += 1
            if request.progress is not None:
                request.progress(done, total)
        if never_seen.any():
            window = _padded_box(never_seen, 2 * self.telea_radius + 4)
            hole = never_seen[window]
            for frame in frames:
                frame[window] = self._inpaint(frame[window], hole)
                done += 1
                if request.progress is not None:
                    request.progress(done, total)
        return frames

    def _check(self, request: PaintRequest) -> None:
        video, mask = request.video, request.mask
        if request.kind not in self.kinds:
            raise ValueError(
                f"MedianTeleaPainter can only remove, got the edit {request.kind!r}; to add or change an object, "
                "choose a pipeline whose painter generates"
            )
        shape = video.frames.shape[:3]
        if mask.shape != shape:
            raise ValueError(
                f"mask must be [F, H, W] like the video's {list(shape)}, got {list(mask.shape)}; one mask per frame is "
                "needed"
            )
        if mask.size and (mask.min() < 0 or mask.max() > 1):
            raise ValueError(
                f"mask must hold 0 (keep) and 1 (repaint), got values from {mask.min()} to {mask.max()}; use "
                "mask > 127 for an 8-bit picture"
            )
        if request.size is not None and tuple(request.size) != tuple(shape[1:]):
            raise ValueError(
                f"MedianTeleaPainter works at the video's own size {list(shape[1:])}, got size {list(request.size)}; "
                "leave the size out"
            )
        if request.options:
            raise ValueError(f"MedianTeleaPainter takes no options, got {sorted(request.options)}; leave them out")

    def _inpaint(self, picture: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Fill the hole [h, w] of a picture [h, w, 3] by Telea's method."""
        picture = picture.copy()
        # OpenCV reads inside a hole that touches the upper or left border, and up to 4 grey levels of what is to be
        # removed would shine through. In any other hole the mean makes no difference.
        picture[hole] = picture[~hole].mean(axis=0).round()
        return cv2.inpaint(picture, hole.astype(np.uint8), self.telea_radius, cv2.INPAINT_TELEA)

    def _fill_gaps(self, frames: NDArray[np.uint8], mask: NDArray[np.bool_], pixels_P: NDArray[np.intp]) -> None:
        """Fill, in place, pixels (flat indices within a frame) that are visible in at least one frame."""
        num_frames = len(frames)
        flat = frames.reshape(num_frames, -1, 3)
        values = flat[:, pixels_P]
        masked = mask.reshape(num_frames, -1)[:, pixels_P]
        visible = ~masked
        # seen_before[f, p] is how many visible moments pixel p has before frame f: where a gap sits among them.
        seen_before = np.cumsum(visible, axis=0, dtype=np.int32) - visible
        num_visible = visible.sum(axis=0, dtype=np.int32)
        frame, pixel = np.nonzero(visible)
        # The visible values alone, in order of time, at the front of axis 0.
        packed = np.zeros_like(values)
        packed[seen_before[frame, pixel], pixel] = values[frame, pixel]

        window = num_frames if self.window is None else min(self.window, num_frames)
        fill = _median(packed, num_visible) if window == num_frames else np.zeros_like(values[0])
        previous = np.zeros_like(masked[0])
        for f, current in enumerate(masked):
            if window < num_frames:
                opened = np.flatnonzero(current & ~previous)
                count = np.minimum(num_visible[opened], window)
                first = np.clip(seen_before[f, opened] - window // 2, 0, num_visible[opened] - count)
                fill[opened] = _median(packed[first + np.arange(window)[:, None].clip(max=count - 1), opened], count)
                previous = current
            values[f][current] = fill[current]
        flat[:, pixels_P] = values


def _median(values: NDArray[np.uint8], count: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Per channel median of the first ``count[p] >= 1`` of values [n, P, 3]; halves round up. uint8 [P, 3]."""
    beyond = np.arange(len(values))[:, None] >= count
    # 255 sorts last, and a true 255 among the values is worth the same.
    ordered = np.ascontiguousarray(np.where(beyond[..., None], np.uint8(255), values).transpose(1, 2, 0))
    ordered.sort(axis=-1)
    low = np.take_along_axis(ordered, ((count - 1) // 2)[:, None, None], axis=-1)[..., 0]
    high = np.take_along_axis(ordered, (count // 2)[:, None, None], axis=-1)[..., 0]
    return ((low.astype(np.uint16) + high + 1) // 2).astype(np.uint8)


def _padded_box(region: NDArray[np.bool_], padding: int) -> tuple[slice, slice]:
    """The bounding box of a non-empty region, grown by ``padding`` within the frame."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return (
        slice(max(0, int(rows[0]) - padding), int(rows[-1]) + 1 + padding),
        slice(max(0, int(columns[0]) - padding), int(columns[-1]) + 1 + padding),
    )
