"""A contact sheet of samples, to look at what the generator draws."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.sample import VplmSample

_GAP = 4
_OUTLINES = ((255, 0, 160), (0, 220, 255), (255, 240, 0))


def contact_sheet(
    samples: Sequence[VplmSample], *, frames: int = 4, zoom: int = 1, outlined: bool = True
) -> NDArray[np.uint8]:
    """Put ``frames`` evenly spaced frames of each sample in a row, uint8 [H', W', 3], enlarged ``zoom`` times.

    With ``outlined`` the visible masks are drawn as thin lines around the objects. All samples need the same frame
    size. Raises ValueError if there are no samples.
    """
    if not samples:
        raise ValueError("a contact sheet needs at least one sample, got none")
    rows = []
    for sample in samples:
        pictures = []
        for number in np.linspace(0, sample.video.num_frames - 1, frames).round().astype(int):
            picture = sample.video.frames[number].repeat(zoom, 0).repeat(zoom, 1)
            for record, colour in zip(sample.objects, _OUTLINES * len(sample.objects), strict=False):
                if outlined:
                    mask = record.mask[number].repeat(zoom, 0).repeat(zoom, 1)
                    picture[cv2.dilate(mask, np.ones((3, 3), np.uint8)) != mask] = colour
            pictures.append(np.pad(picture, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255))
        rows.append(np.concatenate(pictures, axis=1))
    return np.concatenate(rows, axis=0)
