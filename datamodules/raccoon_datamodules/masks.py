"""Masks of a video: read, check, grow, feather, boxes. uint8 {0, 1} [F, H, W], **1 = edit here**, everywhere.

This is the public face; the parts stand in `mask_geometry`, `mask_check` and `mask_files`.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from raccoon_datamodules import mask_files
from raccoon_datamodules.atomic import FULL, disk_full, replacing
from raccoon_datamodules.limits import MAX_DECODED_BYTES, readable
from raccoon_datamodules.mask_check import MaskFinding, check
from raccoon_datamodules.mask_geometry import binary, boxes_of, feather, grow, mask_of_boxes
from raccoon_datamodules.video import Video, probe

__all__ = [
    "MaskFinding",
    "Masks",
    "binary",
    "boxes_of",
    "check",
    "feather",
    "grow",
    "mask_of_boxes",
    "pack",
    "read_masks",
    "unpack",
    "write_masks",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """The masks of a clip.

    ``data`` uint8 {0, 1} [F, H, W], 1 = edit here (bool is taken too); ``scores`` float32 [F], how sure whoever made
    them is of each frame; ``names`` of the instances that are united in it.

    Raises:
        ValueError: if data is not binary [F, H, W] or scores does not have one number per frame.
    """

    data: NDArray[np.uint8]
    scores: NDArray[np.float32] | None = None
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", binary(self.data))
        if self.scores is not None:
            scores = np.asarray(self.scores, dtype=np.float32)
            if scores.shape != (len(self.data),):
                raise ValueError(f"scores must be [{len(self.data)}], one per frame, got shape {list(scores.shape)}")
            object.__setattr__(self, "scores", scores)

    @property
    def num_frames(self) -> int:
        """Number of frames F."""
        return int(self.data.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.data.shape[1]), int(self.data.shape[2])


def pack(mask: ArrayLike) -> dict[str, NDArray]:
    """Pack a mask {0, 1} or bool [F, H, W] into bits, as the arrays of an npz.

    Returns ``bits`` uint8 [ceil(F H W / 8)] (C order, most significant bit first) and ``shape`` int64 [3].

    Raises:
        ValueError: if the mask is not binary [F, H, W].
    """
    mask = binary(mask)
    return {"bits": np.packbits(mask), "shape": np.asarray(mask.shape, dtype=np.int64)}


def unpack(members: Mapping[str, NDArray], frames: Sequence[int] | None = None) -> NDArray[np.uint8]:
    """Undo `pack`: the arrays ``bits`` and ``shape`` back to uint8 {0, 1} [F, H, W], or only some frames of it.

    Raises:
        ValueError: if an array is missing, has another type than `pack` gives, the number of bits is not F H W, or the
            mask would be larger than `limits` allows.
    """
    missing = [name for name in ("bits", "shape") if name not in members]
    if missing:
        held = ", ".join(sorted(members)) or "nothing"
        raise ValueError(f"a packed mask must hold the arrays bits and shape, it holds {held}")
    bits, shape = np.asarray(members["bits"]), np.asarray(members["shape"])
    if bits.dtype != np.uint8 or bits.ndim != 1:
        raise ValueError(f"the bits of a packed mask must be uint8 [N], got {bits.dtype} {list(bits.shape)}")
    if shape.dtype.kind not in "iu" or shape.shape != (3,) or (shape < 1).any():
        raise ValueError(f"the shape of a packed mask must be three whole numbers F, H, W, got {shape.tolist()}")
    num_frames, height, width = (int(number) for number in shape)
    count = num_frames * height * width
    if bits.size != (count + 7) // 8:
        raise ValueError(f"a packed mask of shape {shape.tolist()} needs {(count + 7) // 8} bytes, got {bits.size}")
    if count > MAX_DECODED_BYTES:
        raise ValueError(
            f"a mask of shape {shape.tolist()} would take more than {readable(MAX_DECODED_BYTES)} in memory"
        )
    if frames is not None and height * width % 8 == 0:
        some = np.unpackbits(bits.reshape(num_frames, -1)[list(frames)], axis=1)
        return some.reshape(len(some), height, width)
    mask = np.unpackbits(bits, count=count).reshape(num_frames, height, width)
    return mask if frames is None else mask[list(frames)]


def read_masks(path: str | Path, *, video: Video, object_ids: Sequence[int] | None = None) -> Masks:
    """Read the masks of a video, from whatever holds them.

    - a folder with one image per frame, in natural order (2.png before 10.png);
    - one image, used for every frame (logged);
    - ``.npz`` from `write_masks`, or ``.npy`` with an array {0, 1} or {0, 255} [F, H, W];
    - a mask video.

    Where ``video`` is a part of its file, masks for the whole file are taken too: those of its frames are picked.
    How pictures become {0, 1}, and what ``object_ids`` (labels of palette or grey PNGs) does: `mask_files`.
    Polarity is not changed; `check` looks at it.

    Raises:
        FileNotFoundError: if there is nothing at path.
        ValueError: if it cannot be read, or the number of masks or their size is not the video's.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no mask at {path}: name a folder of PNGs, an image, an .npz or a mask video")
    scores, names, suffix = None, None, path.suffix.lower()
    if path.is_dir():
        files = mask_files.image_files(path)
        data = mask_files.read_images([files[i] for i in _chosen(len(files), path, video)], video.size, object_ids)
    elif suffix in mask_files.IMAGE_SUFFIXES:
        picture = mask_files.read_images([path], video.size, object_ids)
        data = np.repeat(picture, video.num_frames, axis=0)
        if video.num_frames > 1:
            _log.warning("the one mask %s is used for all %d frames", path, video.num_frames)
    else:
        if suffix in (".npz", ".npy"):
            members = mask_files.read_npz(path)
            data = _plain(members["mask"], path) if set(members) == {"mask"} else _unpack_file(members, path)
            scores, names = members.get("scores"), members.get("names")
        else:
            data = mask_files.read_mask_video(path)
        chosen = _chosen(len(data), path, video)
        if data.shape[1:] != video.size:
            got, wanted = data.shape[:0:-1], video.size[::-1]
            raise ValueError(
                f"the masks in {path} must have the video's size {wanted[0]}x{wanted[1]}, they have {got[0]}x{got[1]}; "
                "make them at the video's size"
            )
        if len(chosen) != len(data):
            data = data[chosen]
            scores = None if scores is None else scores[chosen]
    return Masks(data, scores, None if names is None else tuple(str(name) for name in names))


def _plain(array: NDArray, path: Path) -> NDArray[np.uint8]:
    try:
        return binary(array > 127 if array.dtype == np.uint8 and array.size and array.max() > 1 else array)
    except ValueError as err:
        raise ValueError(f"{path}: {err}") from err


def _unpack_file(members: Mapping[str, NDArray], path: Path) -> NDArray[np.uint8]:
    try:
        return unpack(members)
    except ValueError as err:
        raise ValueError(f"{path}: {err}") from err


def _chosen(count: int, path: Path, video: Video) -> list[int]:
    """Which of ``count`` masks belong to the video's frames: all, or those of the part of the file that was read."""
    if count == video.num_frames:
        return list(range(count))
    indices = video.frame_indices
    is_part = indices is not None and video.path is not None and count > int(indices[-1]) and video.path.exists()
    if is_part and indices is not None and video.path is not None and probe(video.path).num_frames == count:
        return [int(index) for index in indices]
    raise ValueError(
        f"{path} must hold one mask for each of the video's {video.num_frames} frames, it holds {count}; "
        "make one for each frame of the video or of the part that is read"
    )


def write_masks(masks: Masks | ArrayLike, path: str | Path, *, overwrite: bool = False) -> None:
    """Write masks whole or not at all: ``.npz`` (bit-packed, with scores and names), or a folder of PNGs (0 and 255).

    A path without a suffix is a folder; it must not exist or be empty, whatever ``overwrite`` says.

    Raises:
        ValueError: if the suffix is another, or the mask is not binary [F, H, W].
        FileExistsError: if the file exists and ``overwrite`` is False, or the folder holds something.
        OSError: as `replacing` raises, if the place cannot be written or the disk is full.
    """
    if not isinstance(masks, Masks):
        masks = Masks(np.asarray(masks))
    path = Path(path)
    if path.suffix == ".npz":
        members = pack(masks.data)
        if masks.scores is not None:
            members["scores"] = masks.scores
        if masks.names is not None:
            members["names"] = np.asarray(masks.names, dtype=np.str_)
        with replacing(path, overwrite=overwrite) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **members)
    elif not path.suffix:
        _write_folder(masks.data, path)
    else:
        raise ValueError(f"masks are written as .npz or as a folder of PNGs (a name without suffix), got {path}")


def _write_folder(data: NDArray[np.uint8], path: Path) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} exists already and is no empty folder: choose another name")
    made = not path.exists()
    path.mkdir(exist_ok=True)
    written: list[Path] = []
    try:
        for frame, picture in enumerate(data):
            written.append(path / f"{frame:05d}.png")
            Image.fromarray(picture * np.uint8(255)).save(written[-1])
    except BaseException as err:
        for file in written:
            file.unlink(missing_ok=True)
        if made:
            path.rmdir()
        if isinstance(err, OSError) and err.errno in FULL:
            raise disk_full(path, err) from err
        raise
