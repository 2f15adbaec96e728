"""Find what is wrong with a mask before compute is spent on it."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from raccoon_datamodules.mask_geometry import binary

Code = Literal["size", "count", "inverted", "empty", "full", "empty-frames", "full-frames", "holes", "speckles"]

# A mask is surely inverted where it covers this much of the picture and of its border; perhaps, from the lower two.
_SURE_AREA, _SURE_BORDER = 0.7, 0.98
_LIKELY_AREA, _LIKELY_BORDER = 0.5, 0.8
# Smaller parts than this share of the frame's largest one, and than this many pixels, are speckles.
_SPECKLE_SHARE, _SPECKLE_PIXELS = 0.01, 64


@dataclass(frozen=True, slots=True)
class MaskFinding:
    """One thing that is wrong (``error``) or strange (``warning``) with a mask, and what to do about it."""

    code: Code
    severity: Literal["error", "warning"]
    message: str


def check(mask: ArrayLike, *, num_frames: int, height: int, width: int) -> list[MaskFinding]:
    """Look for the common faults of a mask {0, 1} or bool [F, H, W] that belongs to a video of the given shape.

    - ``size``, ``count`` (errors): it must be [num_frames, height, width]; nothing else is looked at then.
    - ``empty`` (error): no frame has anything to edit. ``full`` (error): every pixel of every frame is set.
    - ``inverted``: over the frames that are neither empty nor full, the mean share of the picture that is set, and the
      mean share of its border. Area >= 0.7 and border >= 0.98: an error, the kept part is an object in the middle of
      an edited background. Area > 0.5 and border >= 0.8: a warning.
    - ``empty-frames`` (warning): the object may be absent for a while. ``full-frames`` (warning).
    - ``holes`` (warning): unset parts that the mask encloses. ``speckles`` (warning): parts of fewer than 64 pixels
      and less than a hundredth of the frame's largest part. Neither is looked for in an inverted mask.

    Returns the findings, errors first; an empty list if all is well.

    Raises:
        ValueError: if it holds anything but 0 and 1.
    """
    shape = list(np.shape(mask))
    if len(shape) != 3 or shape[1:] != [height, width]:
        text = f"mask must be [F, H, W] like the video's {[num_frames, height, width]}, got {shape}; "
        swapped = len(shape) == 3 and shape[1:] == [width, height]
        text += "height and width are exchanged: is the mask rotated?" if swapped else "make it at the video's size"
        return [MaskFinding("size", "error", text)]
    if shape[0] != num_frames:
        text = f"mask must be [F, H, W] like the video's {[num_frames, height, width]}, got {shape}; "
        return [MaskFinding("count", "error", text + "one mask per frame is needed")]
    mask = binary(mask)
    areas = mask.reshape(num_frames, -1).mean(axis=1, dtype=np.float64)
    empty, full = areas == 0, areas == 1
    if empty.all():
        text = f"the mask is empty in all {num_frames} frames: nothing would be edited; 1 (white) marks what to edit"
        return [MaskFinding("empty", "error", text)]
    if full.all():
        text = f"the mask covers every pixel of all {num_frames} frames: nothing of the video would be kept; "
        return [MaskFinding("full", "error", text + "mark only what to edit")]
    findings = []
    inverted = _inverted(mask, areas, ~empty & ~full)
    if inverted:
        findings.append(inverted)
    if empty.any():
        text = f"the mask is empty in {_which(empty)}: they stay as they are, which is right if the object is not there"
        findings.append(MaskFinding("empty-frames", "warning", text))
    if full.any():
        text = f"the mask covers the whole picture in {_which(full)}: nothing of them would be kept"
        findings.append(MaskFinding("full-frames", "warning", text))
    if not inverted:
        findings += _spots(mask, ~empty & ~full)
    return findings


def _inverted(mask: NDArray[np.uint8], areas: NDArray[np.float64], partial: NDArray[np.bool_]) -> MaskFinding | None:
    if not partial.any():
        return None
    area = float(areas[partial].mean())
    if area <= _LIKELY_AREA:
        return None
    rim = np.concatenate([mask[:, 0], mask[:, -1], mask[:, 1:-1, 0], mask[:, 1:-1, -1]], axis=1)
    border = float(rim[partial].mean(dtype=np.float64))
    if border < _LIKELY_BORDER:
        return None
    sure = area >= _SURE_AREA and border >= _SURE_BORDER
    text = (
        f"the mask {'is' if sure else 'may be'} inverted: it marks {area:.0%} of the picture and {border:.0%} of its "
        "border for editing; 1 (white) means edit here: pass --invert-mask if the other part is meant"
    )
    return MaskFinding("inverted", "error" if sure else "warning", text)


def _spots(mask: NDArray[np.uint8], partial: NDArray[np.bool_]) -> list[MaskFinding]:
    holes, speckles = np.zeros(len(mask), dtype=np.int64), np.zeros(len(mask), dtype=np.int64)
    largest_hole = 0
    for frame in np.flatnonzero(partial):
        ys, xs = np.flatnonzero(mask[frame].any(axis=1)), np.flatnonzero(mask[frame].any(axis=0))
        part = mask[frame, ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
        # One unset pixel around, so that the background is one part: holes are all the others.
        framed = cv2.copyMakeBorder(1 - part, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
        sizes = _part_sizes(framed, connectivity=4, skip_first=True)
        if sizes.size:
            holes[frame], largest_hole = sizes.size, max(largest_hole, int(sizes.max()))
        sizes = _part_sizes(np.ascontiguousarray(part), connectivity=8, skip_first=False)
        speckles[frame] = ((sizes < _SPECKLE_PIXELS) & (sizes < _SPECKLE_SHARE * sizes.max())).sum()
    findings = []
    if holes.any():
        text = (
            f"the mask has {int(holes.sum())} holes (the largest {largest_hole} pixels) in {_which(holes > 0)}: they "
            "are not edited; grow the mask if they should be"
        )
        findings.append(MaskFinding("holes", "warning", text))
    if speckles.any():
        text = (
            f"the mask has {int(speckles.sum())} speckles of fewer than {_SPECKLE_PIXELS} pixels in "
            f"{_which(speckles > 0)}: they are edited too; clean the mask if they are noise"
        )
        findings.append(MaskFinding("speckles", "warning", text))
    return findings


def _part_sizes(picture: NDArray[np.uint8], *, connectivity: int, skip_first: bool) -> NDArray[np.int64]:
    """Count the pixels of each connected part; ``skip_first`` leaves out the part of the top left pixel."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(picture, connectivity=connectivity)
    sizes = np.asarray(stats[:, cv2.CC_STAT_AREA], dtype=np.int64)
    keep = np.ones(len(sizes), dtype=bool)
    keep[0] = False
    if skip_first:
        keep[labels[0, 0]] = False
    return sizes[keep]


def _which(frames: NDArray[np.bool_]) -> str:
    """Name frames: "frames 3-7, 12 (6 of 50)"."""
    numbers = np.flatnonzero(frames)
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    names = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs[:4]]
    more = ", ..." if len(runs) > 4 else ""
    return f"frame{'s' if len(numbers) > 1 else ''} {', '.join(names)}{more} ({len(numbers)} of {len(frames)})"
