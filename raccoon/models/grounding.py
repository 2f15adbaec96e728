"""Text against clusters: where the thing that a phrase names is, in every frame of a clip.

Each patch is compared with the phrase and with the nearest of what the phrase does not mean (`contrast_phrases`); the
difference makes a probability. Probabilities are averaged over superpixels, which know where edges are, and over the
clusters of superpixels that run through the whole clip (as in MGS pooling), which know what belongs together; a
superpixel's score is the mix of both. A threshold makes regions of it, regions that overlap from frame to frame make
tubes, and the tubes that carry the evidence are the mask. A frame that no tube crosses is empty.

The paper names no way to ground a phrase, and its code holds none; this is ours, see docs/differences.md.
Source: RACCooN, section 3.1 (clusters that run through a clip).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from raccoon.interfaces import GroundRequest, SuperpixelModel
from raccoon.models.colour import srgb_to_lab
from raccoon.models.image_text import ClipImageText, ImageTextEncoder
from raccoon.models.superpixels import SlicSuperpixels
from raccoon.models.tubes import otsu, strong_tubes
from raccoon_datamodules.masks import Masks
from raccoon_datamodules.synthetic.vocabulary import DifficultyName, difficulty_named
from raccoon_datamodules.video import Video
from raccoon_kernels import overlapping_kmeans, superpixel_mean

BACKGROUND_PHRASES = ("background", "the background", "inpainted background")
# Lab units that the frame's longer side spans, as in MGS pooling.
_POSITION_WEIGHT = 40.0


class ClusterGrounder:
    """Finds what phrases name; a `raccoon.interfaces.Grounder`.

    Args:
        weights: of a CLIP with its tokenizer, see `ClipImageText.from_pretrained`; None if ``encoder`` is given.
        encoder: an `ImageTextEncoder` instead of weights.
        num_clusters: k, clusters of a whole clip.
        overlap: v, clusters that a superpixel belongs to; more blurs what a cluster says.
        superpixels: None for SLIC with cells of half a patch.
        cluster_weight: part of a superpixel's score that its clusters decide, in [0, 1]; 0 leaves them out.
        threshold: probability from which a superpixel belongs to the thing, or "otsu" for a threshold from the clip
            itself.
        otsu_range: where that threshold is kept, since a clip without the thing has two classes as well; a lower end
            finds more of a thing that is there and more of one that is not.
        smallest_tube: tubes of less than this part of the strongest one's evidence are dropped, in [0, 1].
        longest_side: pixels of the longer side that superpixels are made at; larger videos are scaled down for it and
            the mask up again.
        chunk_size: frames that are worked on at once.
        cluster_frames: at most so many frames, evenly spaced, decide where clusters lie; all frames then join them.
        distractors: what phrases are compared with, each but the phrase itself; None for the background and what
            `contrast_phrases` finds.
        vocabulary: the difficulty of the procedural VPLM whose words `contrast_phrases` knows. They should be words
            that the text encoder was trained on: what it says of others is noise.
        device: "auto" takes a GPU if there is one.
        seed: of the clustering.

    Raises:
        ValueError: if not exactly one of weights and encoder is given, a number is out of range or the vocabulary
            unknown.
        TypeError: if encoder is no `ImageTextEncoder`.
        FileNotFoundError: see `ClipImageText.from_pretrained`.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        encoder: object | None = None,
        num_clusters: int = 25,
        overlap: int = 2,
        superpixels: SuperpixelModel | None = None,
        cluster_weight: float = 0.3,
        threshold: float | Literal["otsu"] = "otsu",
        otsu_range: tuple[float, float] = (0.25, 0.6),
        smallest_tube: float = 0.25,
        longest_side: int = 512,
        chunk_size: int = 16,
        cluster_frames: int = 64,
        distractors: Sequence[str] | None = None,
        vocabulary: DifficultyName = "easy",
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        if (weights is None) == (encoder is None):
            given = "neither" if weights is None else "both"
            raise ValueError(f"a ClusterGrounder needs exactly one of weights and encoder, got {given}")
        if num_clusters < 1 or not 1 <= overlap <= num_clusters:
            raise ValueError(f"overlap must be from 1 to num_clusters, got {overlap} of {num_clusters}")
        low, high = otsu_range
        if not 0 <= low <= high <= 1:
            raise ValueError(f"otsu_range must be a lowest and a highest threshold in [0, 1], got {low} and {high}")
        parts = {"cluster_weight": cluster_weight, "smallest_tube": smallest_tube}
        if threshold != "otsu":
            parts["threshold"] = threshold
        for name, value in parts.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {value}")
        if min(longest_side, chunk_size, cluster_frames) < 1:
            raise ValueError(
                "longest_side, chunk_size and cluster_frames must be at least 1, got "
                f"{longest_side}, {chunk_size} and {cluster_frames}"
            )
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.device = torch.device(chosen)
        if weights is not None:
            encoder = ClipImageText.from_pretrained(weights, dtype=None if chosen != "cpu" else "float32")
            encoder.to(self.device)
        if not isinstance(encoder, ImageTextEncoder):
            raise TypeError(
                f"encoder must offer image_size, logit_scale, encode_patches and encode_text, got a "
                f"{type(encoder).__name__}"
            )
        self.encoder: ImageTextEncoder = encoder
        self.num_clusters = num_clusters
        self.overlap = overlap
        self.superpixels = superpixels
        self.cluster_weight = cluster_weight
        self.threshold = threshold
        self.otsu_range = (low, high)
        self.smallest_tube = smallest_tube
        self.longest_side = longest_side
        self.chunk_size = chunk_size
        self.cluster_frames = cluster_frames
        self.distractors = None if distractors is None else tuple(distractors)
        self.vocabulary: DifficultyName = difficulty_named(vocabulary).name
        self.seed = seed

    @torch.no_grad()
    def ground(self, request: GroundRequest, /) -> Masks:
        """Find each phrase and unite what was found.

        Returns:
            Masks at the video's size; ``scores`` is the mean probability inside a frame's mask, or the largest one in
            an empty frame; ``names`` are the phrases.

        Raises:
            ValueError: if there is no phrase, or not one description a phrase where there are any.
        """
        video, phrases = request.video, request.phrases
        if not phrases:
            raise ValueError("at least one phrase is needed to find something, got none")
        if request.descriptions and len(request.descriptions) != len(phrases):
            raise ValueError(
                f"there must be one description a phrase (or none at all), got {len(request.descriptions)} for "
                f"{len(phrases)} phrases"
            )
        descriptions = request.descriptions or ("",) * len(phrases)
        scores, labels, counts = self._score(video, phrases, descriptions)
        size = (video.height, video.width)
        mask = np.zeros(video.frames.shape[:3], dtype=np.uint8)
        surest = np.zeros(video.num_frames, dtype=np.float32)
        for score in scores:
            found, sure = self._cut(score, labels, counts, size)
            mask |= found
            surest = np.maximum(surest, sure)
        return Masks(mask, scores=surest, names=phrases)

    def _score(
        self, video: Video, phrases: Sequence[str], descriptions: Sequence[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]:
        """Score every superpixel: [P, F, S], with labels [F, h', w'] and pixel counts [F, S]."""
        texts = [self._texts(phrase, words) for phrase, words in zip(phrases, descriptions, strict=True)]
        embedded = [(self._mean_text(wanted), self.encoder.encode_text(others)) for wanted, others in texts]
        height, width = _work_size(video.height, video.width, self.longest_side)
        probabilities, labels, descriptors, counts = [], [], [], []
        model: SuperpixelModel | None = self.superpixels
        for start in range(0, video.num_frames, self.chunk_size):
            pictures = torch.from_numpy(np.ascontiguousarray(video.frames[start : start + self.chunk_size]))
            frames = pictures.to(self.device).permute(0, 3, 1, 2).float().div(255)
            patches = self.encoder.encode_patches(frames)
            frames = _resized(frames, (height, width))
            if model is None:
                # Half a patch follows the edges of whatever fills a patch.
                model = SlicSuperpixels(max(2, round(min(height, width) / (2 * patches.shape[1]))))
            label, number = model.segment(frames)
            fits = torch.stack([self._probability(patches, wanted, others) for wanted, others in embedded], dim=1)
            smooth = functional.interpolate(fits, (height, width), mode="bilinear", align_corners=False)
            mean, count = superpixel_mean(torch.cat((smooth, _described(frames)), dim=1), label, number)
            probabilities.append(mean[..., : len(phrases)])
            descriptors.append(mean[..., len(phrases) :])
            labels.append(label.cpu())
            counts.append(count)
        counted = torch.cat(counts)
        scores = torch.cat(probabilities).permute(2, 0, 1)
        scores = self._with_clusters(scores, torch.cat(descriptors), counted)
        return (
            scores.cpu().numpy().astype(np.float32),
            torch.cat(labels).numpy().astype(np.int32),
            counted.cpu().numpy().astype(np.int64),
        )

    def _texts(self, phrase: str, description: str) -> tuple[list[str], tuple[str, ...]]:
        wanted = [phrase, f"{phrase}: {description}"] if description else [phrase]
        if self.distractors is not None:
            others = tuple(text for text in self.distractors if text.lower() != phrase.lower())
            return wanted, others or BACKGROUND_PHRASES
        return wanted, (*BACKGROUND_PHRASES, *contrast_phrases(phrase, self.vocabulary))

    def _mean_text(self, texts: Sequence[str]) -> Tensor:
        return functional.normalize(self.encoder.encode_text(texts).mean(dim=0), dim=0)

    def _probability(self, patches: Tensor, wanted: Tensor, others: Tensor) -> Tensor:
        """Probability [f, h, w] that a patch is the thing rather than the likeliest of the others."""
        # Not a softmax over all: many others that the encoder cannot tell apart would together outweigh the thing.
        fit = patches.float() @ torch.cat((wanted[None], others)).float().T
        return (self.encoder.logit_scale * (fit[..., 0] - fit[..., 1:].amax(dim=-1))).sigmoid()

    def _with_clusters(self, scores: Tensor, descriptors: Tensor, counts: Tensor) -> Tensor:
        """Mix superpixels' scores [P, F, S] with those of their clusters; descriptors [F, S, 5], counts [F, S]."""
        if self.cluster_weight == 0:
            return scores
        num_frames = len(counts)
        points, weight = descriptors.flatten(0, 1), counts.flatten().float()
        present = weight > 0
        chosen = torch.zeros(num_frames, dtype=torch.bool, device=counts.device)
        step = torch.linspace(0, num_frames - 1, min(num_frames, self.cluster_frames), device=counts.device)
        chosen[step.round().long()] = True
        few = present & chosen[:, None].expand_as(counts).flatten()
        clusters = overlapping_kmeans(points[few], self.num_clusters, self.overlap, seed=self.seed)
        if not bool(chosen.all()):
            clusters = overlapping_kmeans(
                points[present], self.num_clusters, self.overlap, initial=clusters.centroids, max_iterations=0
            )
        member = clusters.membership.float()
        flat = scores.flatten(1)[:, present]
        mass = (member * weight[present, None]).sum(dim=0).clamp(min=1e-6)
        of_clusters = (flat * weight[present]) @ member / mass
        around = of_clusters @ member.T / member.sum(dim=1).clamp(min=1)
        mixed = scores.flatten(1).clone()
        mixed[:, present] = (1 - self.cluster_weight) * flat + self.cluster_weight * around
        return mixed.reshape(scores.shape)

    def _cut(
        self,
        score: NDArray[np.float32],
        labels: NDArray[np.int32],
        counts: NDArray[np.int64],
        size: tuple[int, int],
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """One phrase's superpixel scores [F, S] to its mask uint8 [F, H, W] and its scores float32 [F]."""
        limit = self.threshold
        if limit == "otsu":
            limit = float(np.clip(otsu(score[counts > 0], weights=counts[counts > 0]), *self.otsu_range))
        maps = np.take_along_axis(score, labels.reshape(len(labels), -1), axis=1).reshape(labels.shape)
        tubes = strong_tubes(maps, threshold=limit, smallest=self.smallest_tube)
        surest = np.array(
            [m[t].mean() if t.any() else m.max() for m, t in zip(maps, tubes, strict=True)], dtype=np.float32
        )
        full = np.stack([_enlarged(tube, size) for tube in tubes])
        return full, surest


def contrast_phrases(phrase: str, vocabulary: DifficultyName = "easy") -> tuple[str, ...]:
    """Things that a phrase does not mean: the other colours and categories of a difficulty of the procedural VPLM.

    "red star" is told from every "<colour> <category>" of another colour or another category; a phrase that names only
    a category from all other categories, in every colour. A phrase without a known word has no such contrast.
    """
    level = difficulty_named(vocabulary)
    words = set(phrase.lower().replace(":", " ").replace(",", " ").split())
    colours, categories = words & set(level.colours), words & set(level.categories)
    return tuple(
        f"{colour} {category}"
        for colour in level.colours
        for category in level.categories
        if (colours and colour not in colours) or (categories and category not in categories)
    )


def best_union_of_superpixels(labels: NDArray[np.integer], true_mask: NDArray[np.uint8]) -> float:
    """The highest IoU that any union of whole superpixels can reach: what segmentation alone costs a grounder.

    Args:
        labels: local ids [F, H, W].
        true_mask: {0, 1} [F, H, W].

    Returns:
        IoU over the clip in [0, 1]; 1 for an empty mask, which the empty union matches.

    Raises:
        ValueError: if the two do not have the same shape.
    """
    if labels.shape != true_mask.shape or labels.ndim != 3:
        raise ValueError(
            f"labels and true_mask must be [F, H, W] alike, got {list(labels.shape)} and {list(true_mask.shape)}"
        )
    ids = labels.astype(np.int64) + (int(labels.max(initial=0)) + 1) * np.arange(len(labels))[:, None, None]
    every = np.bincount(ids.ravel())
    inside = np.bincount(ids.ravel(), weights=true_mask.ravel().astype(np.float64), minlength=len(every))
    total = inside.sum()
    if total == 0:
        return 1.0
    # IoU of the union of the purest ones, added one by one; the best union is one of these.
    order = np.argsort(-(inside / np.maximum(every, 1)), kind="stable")
    hits, pixels = np.cumsum(inside[order]), np.cumsum(every[order])
    return float((hits / (total + pixels - hits)).max())


def _work_size(height: int, width: int, longest_side: int) -> tuple[int, int]:
    shrink = min(1.0, longest_side / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def _resized(frames: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(frames.shape[-2:]) == size:
        return frames
    return functional.interpolate(frames, size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)


def _described(frames: Tensor) -> Tensor:
    """Lab and weak position of each pixel, [f, 5, H, W], as MGS pooling describes superpixels."""
    height, width = frames.shape[-2:]
    scale = _POSITION_WEIGHT / max(height, width)
    y_H = (torch.arange(height, device=frames.device) + 0.5) * scale
    x_W = (torch.arange(width, device=frames.device) + 0.5) * scale
    position = torch.stack((x_W.expand(height, width), y_H[:, None].expand(height, width)))
    return torch.cat((srgb_to_lab(frames), position.expand(len(frames), -1, -1, -1)), dim=1)


def _enlarged(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale a mask to (H, W) with smooth edges; {0, 1}."""
    if mask.shape == size:
        return mask.astype(np.uint8)
    soft = cv2.resize(mask.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return (soft >= 0.5).astype(np.uint8)
