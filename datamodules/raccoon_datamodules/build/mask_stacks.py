"""Masks of a whole video in one file, as `raccoon edit --mask` reads them: ``.npz`` and ``.npy``, and mask videos."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.build.label_images import LabelImage, LabelKind
from raccoon_datamodules.build.sources import ARRAYS
from raccoon_datamodules.mask_files import read_npz
from raccoon_datamodules.masks import unpack
from raccoon_datamodules.video import probe
from raccoon_datamodules.video_read import read_frames


@dataclass(frozen=True, slots=True)
class MaskStack:
    """``count`` masks in a file; ``values`` gives those of some rising numbers as [n, H, W], ``kind`` says what of."""

    count: int
    values: Callable[[Sequence[int]], NDArray[np.generic]]
    kind: LabelKind

    def read(self, numbers: Sequence[int]) -> list[LabelImage]:
        """Some of the masks, by rising numbers. Raises ValueError if they are damaged."""
        if not numbers:
            return []
        return [LabelImage(values, self.kind) for values in self.values(numbers).astype(np.int32)]


def open_stack(path: Path) -> MaskStack:
    """Open a file of masks.

    A packed mask (`masks.write_masks`) and a video are one object; a plain array is label images, one a frame.

    Raises:
        ValueError: if it is damaged or holds something else.
        OSError: if it cannot be opened.
    """
    if path.suffix.lower() not in ARRAYS:
        return MaskStack(probe(path).num_frames, lambda numbers: _of_video(path, numbers), "mask")
    members = read_npz(path)
    if set(members) == {"mask"}:
        array = members["mask"]
        if array.ndim != 3 or array.dtype.kind not in "biuf" or not array.size:
            shape = list(array.shape)
            raise ValueError(f"{path.name} must hold masks or labels [F, H, W], it holds {array.dtype} {shape}")
        if array.dtype.kind == "f":
            array = np.rint(array * (255 if array.max() <= 1 else 1))
        return MaskStack(
            len(array), lambda numbers: array[list(numbers)], "mask" if array.dtype.kind == "b" else "grey"
        )
    try:
        unpack(members, [0])
    except ValueError as err:
        raise ValueError(f"{path.name}: {err}") from err
    return MaskStack(int(members["shape"][0]), lambda numbers: unpack(members, numbers), "mask")


def _of_video(path: Path, numbers: Sequence[int]) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = read_frames(path, indices=numbers).frames.max(axis=3) >= 128
    return mask
