"""What a figure is held against: answers that know nothing of the clip (floors), the best that could be (ceilings).

Each stands behind the same plug point as the part it is compared with and is measured by the same code. Where a floor
has a free choice (how large an always-centred mask is), it is the best one on training scenes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raccoon.evaluation.measures import box_iou, mask_iou
from raccoon.evaluation.scenes import HeldOut
from raccoon.interfaces import DescribeRequest, Description, GroundRequest, PaintRequest, PlanRequest
from raccoon.models.grounding import best_union_of_superpixels
from raccoon.models.mgs import MGSPooling, cluster_masks
from raccoon.models.superpixels import SlicSuperpixels
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.masks import Masks, mask_of_boxes
from raccoon_datamodules.order import draw
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.sample import EditKind
from raccoon_datamodules.synthetic.vocabulary import difficulty_named

# Sides of centred boxes that are tried, in fractions of the frame.
_SIDES = tuple(step / 32 for step in range(4, 33))


class RandomDescriber:
    """Names one to three random objects, distinct as in a scene, whatever the clip shows."""

    def __init__(self, difficulty: str = "easy", *, seed: int = 0) -> None:
        self.level = difficulty_named(difficulty)
        self.seed = seed
        self.calls = 0

    def describe(self, request: DescribeRequest, /) -> Description:
        """Draw another paragraph at each call."""
        rng = draw(self.seed, self.calls, "evaluation/random-describer")
        self.calls += 1
        count = int(rng.integers(1, 4))
        words = zip(rng.permutation(self.level.colours), rng.permutation(self.level.categories), strict=False)
        objects = tuple(
            ObjectDescription(f"{colour} {category}".title(), "") for colour, category in list(words)[:count]
        )
        paragraph = Paragraph("Some objects.", objects)
        return Description(paragraph, str(paragraph), {})


class CentreGrounder:
    """Marks the same centred box in every frame; ``side`` in fractions of the frame."""

    def __init__(self, side: float) -> None:
        self.side = side

    @classmethod
    def fitted(cls, scenes: Sequence[HeldOut]) -> "CentreGrounder":
        """The box that fits the targets of ``scenes`` best on average."""
        truths = [scene.target.mask for scene in scenes]
        grounders = [cls(side) for side in _SIDES]
        return max(grounders, key=lambda one: sum(mask_iou(one.mask(truth.shape), truth) for truth in truths))

    def mask(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The mask {0, 1} of a clip [F, H, W]."""
        return mask_of_boxes(_centred(self.side, shape[0]), height=shape[1], width=shape[2])

    def ground(self, request: GroundRequest, /) -> Masks:
        """Return the mask."""
        return Masks(self.mask(request.video.frames.shape[:3]), names=request.phrases)


class CentrePlanner:
    """Plans the same centred box in every frame; ``side`` in fractions of the frame."""

    def __init__(self, side: float) -> None:
        self.side = side

    @classmethod
    def fitted(cls, scenes: Sequence[HeldOut]) -> "CentrePlanner":
        """The box that fits the targets of ``scenes`` best on average."""
        truths = [scene.target.boxes for scene in scenes]
        return cls(max(_SIDES, key=lambda side: sum(box_iou(_layout(side, len(truth)), truth) for truth in truths)))

    def plan(self, request: PlanRequest, /) -> Layout:
        """Return the box for every frame."""
        return Layout(request.object.name, _centred(self.side, request.video.num_frames))


class BorrowedPlanner:
    """Plans the boxes of a random other object: what is known of layouts without seeing the clip or its words."""

    def __init__(self, scenes: Sequence[HeldOut], *, seed: int = 0) -> None:
        self.layouts = [Layout(record.name, record.boxes) for scene in scenes for record in scene.sample.objects]
        self.seed = seed
        self.calls = 0

    def plan(self, request: PlanRequest, /) -> Layout:
        """Draw another layout at each call."""
        which = int(draw(self.seed, self.calls, "evaluation/borrowed").integers(len(self.layouts)))
        self.calls += 1
        return Layout(request.object.name, self.layouts[which].resample(request.video.num_frames).boxes)


class TeleaPainter:
    """Removes by Telea's inpainting of each frame on its own."""

    kinds: frozenset[EditKind] = frozenset({"remove"})

    def __init__(self, radius: int = 5) -> None:
        self.radius = radius

    def paint(self, request: PaintRequest, /) -> NDArray[np.uint8]:
        """Return frames uint8 [F, H, W, 3]."""
        frames = request.video.frames.copy()
        for frame, mask in zip(frames, request.mask, strict=True):
            if mask.any() and not mask.all():
                # OpenCV reads inside a hole that touches the upper or left border; the mean leaks no object.
                frame[mask == 1] = frame[mask == 0].mean(axis=0).round()
                frame[:] = cv2.inpaint(frame, mask, self.radius, cv2.INPAINT_TELEA)
        return frames


class LeavingPainter:
    """Leaves everything as it is; can do every edit."""

    kinds: frozenset[EditKind] = frozenset({"remove", "add", "change"})

    def paint(self, request: PaintRequest, /) -> NDArray[np.uint8]:
        """Return the frames as they came."""
        return request.video.frames


class RoundTripPainter:
    """Paints the truth as far as a painter's autoencoder lets it through: what its sampling could reach at best."""

    kinds: frozenset[EditKind] = frozenset({"remove", "add", "change"})

    def __init__(self, round_trip: Callable[[Tensor], Tensor], truth: NDArray[np.uint8], *, surround: bool) -> None:
        self.round_trip = round_trip
        self.truth = truth
        self.surround = surround

    def paint(self, request: PaintRequest, /) -> NDArray[np.uint8]:
        """Return the truth, encoded and decoded, uint8 [F, H, W, 3]."""
        painted = self.round_trip(_as_tensor(self.truth))
        if self.surround:
            from raccoon.models.harmonize import match_surround

            painted = match_surround(painted, _as_tensor(request.video.frames), torch.from_numpy(request.mask))
        return (painted * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def round_trip_painter(painter: Any, truth: NDArray[np.uint8]) -> RoundTripPainter | None:
    """Return the ceiling of a painter that works in the latents of a VAE (``painter.pipeline.vae``), else None."""
    vae = getattr(getattr(painter, "pipeline", None), "vae", None)
    if vae is None:
        return None
    from raccoon.models.conditioning import decode_frames, encode_frames

    @torch.no_grad()
    def round_trip(frames: Tensor) -> Tensor:
        device = next(vae.parameters()).device
        decoded = decode_frames(vae, encode_frames(vae, frames.to(device) * 2 - 1))
        return (decoded.float() / 2 + 0.5).clamp(0, 1).cpu()

    return RoundTripPainter(round_trip, truth, surround=bool(getattr(painter, "surround", False)))


def superpixels_of(grounder: Any) -> Any:
    """Return the superpixels a grounder works with, or SLIC in cells of 4 pixels where it does not say."""
    found = getattr(grounder, "superpixels", None)
    return found if hasattr(found, "segment") else SlicSuperpixels(4)


def best_superpixels_iou(grounder: Any, scene: HeldOut) -> float:
    """Return the highest IoU with the target's mask that a union of a clip's superpixels reaches."""
    labels, _ = superpixels_of(grounder).segment(_as_tensor(scene.sample.video.frames))
    return best_union_of_superpixels(labels.cpu().numpy(), scene.target.mask)


def cluster_masks_of(grounder: Any, frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the masks of a clip's clusters, bool [k, F, H, W]; those without pixels are left out.

    Superpixels, ``num_clusters`` and ``overlap`` are the grounder's own where it says them, else `MGSPooling`'s.
    """
    known = {name: getattr(grounder, name) for name in ("num_clusters", "overlap") if hasattr(grounder, name)}
    clip = _as_tensor(frames)
    labels, count = superpixels_of(grounder).segment(clip)
    # The pooled features are of no interest here, only who belongs together.
    grid = torch.zeros(1, len(clip), 1, 1, 1)
    clusters = MGSPooling(**known)(grid, clip[None], labels[None], count)
    masks: NDArray[np.bool_] = cluster_masks(labels, clusters.membership[0]).numpy()
    return masks[masks.any(axis=(1, 2, 3))]


def random_cluster_iou(grounder: Any, scene: HeldOut) -> float:
    """Return the expected IoU of the mask of one of the clip's clusters, each being equally likely."""
    masks = cluster_masks_of(grounder, scene.sample.video.frames)
    return float(np.mean([mask_iou(mask.astype(np.uint8), scene.target.mask) for mask in masks]))


def _as_tensor(frames: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255


def _centred(side: float, num_frames: int) -> NDArray[np.float32]:
    low, high = 0.5 - side / 2, 0.5 + side / 2
    return np.tile(np.array([low, low, high, high], dtype=np.float32), (num_frames, 1))


def _layout(side: float, num_frames: int) -> Layout:
    return Layout("Centre", _centred(side, num_frames))
