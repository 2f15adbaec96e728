"""Multi-granular spatiotemporal pooling: a clip's features as tokens for whole frames, for things, and for places.

Superpixels are described by their mean colour (and, weakly, position), clustered over the whole clip with overlap, and
each cluster pools the encoder's features under its mask into one token. The masks [k, F, H, W] are never built: see
`raccoon_kernels`. There is nothing to learn here; the gradient flows to the features and to nothing else.

Which pixel features the authors average, which overlapping k-means they run and whether their tokens are normalised is
not published: here CIELAB with weak x and y, `topv`, and yes; each is an argument, see docs/differences.md.
Source: RACCooN, section 3.1, equations 1 and 2.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from raccoon.models.colour import srgb_to_lab
from raccoon_kernels import mgs_pool, overlapping_kmeans, superpixel_mean
from raccoon_kernels.overlapping_kmeans import Algorithm

PixelFeatures = Literal["lab+xy", "lab", "rgb", "lab+xy+t"]

# Pixels whose features exist at once on a GPU; a CPU takes one frame, so that SIMD remainders fall on the same pixels
# and a clip clusters the same alone and in a batch.
_GPU_PIXELS = 32 * 336 * 336
# Superpixels are described in steps of this size. Colours carry rounding noise of about 1e-5, which depends on the
# machine and would be all there is to cluster where a clip is flat; an 8-bit grey level is 0.4 of L, 0.004 in sRGB.
_STEP = 1.0 / 1024
# What `MGSPooling.describe` says of an id that owns no pixel.
_NO_PIXEL = torch.iinfo(torch.int32).min


@dataclass(frozen=True, slots=True, eq=False)
class MGSTokens:
    """The localised tokens of a batch of clips, and the clusters they came from.

    tokens: e^l [B, k, d] in the grid's dtype; zero where a cluster has no pixel.
    valid: [B, k] bool, whether the cluster has a pixel.
    membership: [B, F, S, k] bool, whether a superpixel belongs to a cluster; none for an id that owns no pixel.
    """

    tokens: Tensor
    valid: Tensor
    membership: Tensor


class MGSPooling(nn.Module):
    """Pool features under overlapping clusters of superpixels.

    Args:
        num_clusters: k, the number of tokens.
        overlap: v, how many clusters a superpixel belongs to; 1 is k-means.
        algorithm: of `raccoon_kernels.overlapping_kmeans`: "topv", "kl", "okm", "neo" or "merge".
        features: what a superpixel is described by: the mean of its pixels' CIELAB, sRGB, position, moment.
        position_weight: Lab units that the frame's longer side spans, and with "t" the clip's length; 0 is no position.
        seed: of the clustering. It is part of the result: another seed finds other clusters.
        normalize: divide each token by its mask's mass, so that it has the scale of the other tokens; False is the
            paper's plain product.
        backend: of the kernels: "auto", "torch" or "triton".

    Raises:
        ValueError: if a number is out of range or a name unknown.
    """

    def __init__(
        self,
        num_clusters: int = 25,
        overlap: int = 6,
        *,
        algorithm: Algorithm = "topv",
        features: PixelFeatures = "lab+xy",
        position_weight: float = 40.0,
        seed: int = 0,
        normalize: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if num_clusters < 1:
            raise ValueError(f"num_clusters must be at least 1, got {num_clusters}")
        if not 1 <= overlap <= num_clusters:
            raise ValueError(f"overlap must be from 1 to num_clusters = {num_clusters}, got {overlap}")
        if algorithm not in get_args(Algorithm):
            raise ValueError(f"algorithm must be one of {', '.join(get_args(Algorithm))}, got {algorithm!r}")
        if features not in get_args(PixelFeatures):
            raise ValueError(f"features must be one of {', '.join(get_args(PixelFeatures))}, got {features!r}")
        if not position_weight >= 0:
            raise ValueError(f"position_weight must not be negative, got {position_weight}")
        self.num_clusters = num_clusters
        self.overlap = overlap
        self.algorithm = algorithm
        self.features = features
        self.position_weight = position_weight
        self.seed = seed
        self.normalize = normalize
        self.backend = backend

    def extra_repr(self) -> str:
        """Name the settings in the module's printed form."""
        return f"k={self.num_clusters}, v={self.overlap}, {self.algorithm}, {self.features}, seed={self.seed}"

    def forward(
        self,
        grid: Tensor,
        frames: Tensor | None,
        superpixels: Tensor,
        num_superpixels: int,
        *,
        superpixel_grid: tuple[int, int] | None = None,
        described: Tensor | None = None,
    ) -> MGSTokens:
        """Cluster each clip's superpixels and pool its features under each cluster.

        A clip gives the same tokens alone and in a batch.

        Args:
            grid: the encoder's features e [B, t, h, w, d], floating. t may differ from F and h, w need not divide H, W:
                windows are those of adaptive average pooling.
            frames: [B, F, 3, H, W] floating, in [0, 1], at the superpixels' size; None where ``described`` is given.
            superpixels: [B, F, H, W] int16, int32 or int64; each frame counts from 0.
            num_superpixels: S, the number of ids of a frame; not every id need own a pixel.
            superpixel_grid: (ny, nx) where labels keep to the 3 x 3 cells around them, as this package's superpixels
                do: a faster and deterministic path on a GPU. None promises nothing.
            described: int32 [B, F, S, C], what `describe` said of these superpixels; the tokens are the same.

        Returns:
            Tokens, validity and membership. The gradient of the tokens flows to grid.

        Raises:
            TypeError: if a tensor has another dtype.
            ValueError: if shapes do not match, or a label is outside [0, S) (checked on CPU tensors).
            RuntimeError: if backend "triton" was asked for and cannot run.

        Source: RACCooN, equation 1.
        """
        num_clips, num_frames = superpixels.shape[:2]
        if described is None:
            if frames is None:
                raise ValueError("frames must be given where the superpixels are not described; got neither")
            _check_inputs(grid, frames, superpixels)
            described = self.describe(frames, superpixels, num_superpixels, superpixel_grid=superpixel_grid)
        elif described.shape[:3] != (num_clips, num_frames, num_superpixels) or described.dtype != torch.int32:
            raise ValueError(
                f"described must be int32 [{num_clips}, {num_frames}, {num_superpixels}, C] for these superpixels, got "
                f"{described.dtype} {list(described.shape)}; it is what `describe` returns"
            )
        # Half precision would move clusters: distances are differences of large squares.
        with torch.autocast(grid.device.type, enabled=False):
            membership = self._cluster(described)
            tokens, valid = mgs_pool(
                grid.flatten(0, 1),
                superpixels.flatten(0, 1),
                membership.flatten(0, 1),
                frame_offsets=[clip * num_frames for clip in range(num_clips + 1)],
                feature_offsets=[clip * grid.shape[1] for clip in range(num_clips + 1)],
                normalize=self.normalize,
                backend=self.backend,
            )
        return MGSTokens(tokens.to(grid.dtype), valid, membership)

    @torch.no_grad()
    def describe(
        self,
        frames: Tensor,
        superpixels: Tensor,
        num_superpixels: int,
        *,
        superpixel_grid: tuple[int, int] | None = None,
    ) -> Tensor:
        """Describe superpixels by all that the clustering looks at; a frame's does not depend on those beside it.

        Arguments as of `forward`. Returns int32 [B, F, S, C]: means of the pixels' colours and positions in steps of
        1/1024, and the lowest int32 for an id that owns no pixel. Integers, because a batch of floats may be cast to
        half precision on its way, which would move clusters. When in the clip a frame is shown is not part of it.
        """
        labels = superpixels.flatten(0, 1)
        step = max(1, _GPU_PIXELS // frames.shape[-2:].numel()) if frames.is_cuda else 1
        with torch.autocast(frames.device.type, enabled=False):
            parts = [
                superpixel_mean(
                    self._pixel_features(part), label, num_superpixels, grid=superpixel_grid, backend=self.backend
                )
                for part, label in zip(frames.flatten(0, 1).split(step), labels.split(step), strict=True)
            ]
        means = torch.cat([part[0] for part in parts]).div_(_STEP).round_().to(torch.int32)
        means[torch.cat([part[1] for part in parts]) == 0] = _NO_PIXEL
        return means.unflatten(0, superpixels.shape[:2])

    @torch.no_grad()
    def _cluster(self, described: Tensor) -> Tensor:
        """Membership bool [B, F, S, k] of each clip's superpixels."""
        num_clips, num_frames, num_superpixels, _ = described.shape
        present = (described[..., 0] != _NO_PIXEL).flatten()
        means = described.flatten(0, 2).float().mul_(_STEP)
        if self.features == "lab+xy+t":
            # Where in its clip each frame lies, in (0, 1).
            moments = (torch.arange(num_frames, device=means.device) + 0.5) * (self.position_weight / num_frames)
            moments = moments.div_(_STEP).round_().mul_(_STEP)
            means = torch.cat((means, moments.repeat(num_clips).repeat_interleave(num_superpixels)[:, None]), dim=1)
        # An id without pixels has no colour to cluster.
        per_clip = present.reshape(num_clips, -1).sum(dim=1).tolist()
        clusters = overlapping_kmeans(
            means[present],
            self.num_clusters,
            self.overlap,
            algorithm=self.algorithm,
            seed=self.seed,
            offsets=[0, *accumulate(per_clip)],
            backend=self.backend,
        )
        membership = torch.zeros(means.shape[0], self.num_clusters, dtype=torch.bool, device=means.device)
        membership[present] = clusters.membership
        return membership.reshape(num_clips, num_frames, num_superpixels, self.num_clusters)

    def _pixel_features(self, frames: Tensor) -> Tensor:
        """Describe each pixel of frames [f, 3, H, W] but for its moment; float32 [f, C, H, W]."""
        if self.features == "rgb":
            return frames.float()
        channels = [srgb_to_lab(frames)]
        if self.features != "lab":
            height, width = frames.shape[2:]
            scale = self.position_weight / max(height, width)
            x_W = (torch.arange(width, device=frames.device) + 0.5) * scale
            y_H = (torch.arange(height, device=frames.device) + 0.5) * scale
            position = torch.stack((x_W.expand(height, width), y_H[:, None].expand(height, width)))
            channels.append(position.expand(len(frames), -1, -1, -1))
        return torch.cat(channels, dim=1)


def _check_inputs(grid: Tensor, frames: Tensor, superpixels: Tensor) -> None:
    if grid.ndim != 5:
        raise ValueError(f"grid must be [B, t, h, w, d], got {list(grid.shape)}; add the batch axis to a single clip")
    if frames.ndim != 5 or frames.shape[2] != 3:
        raise ValueError(f"frames must be [B, F, 3, H, W], got {list(frames.shape)}")
    if not frames.is_floating_point():
        raise TypeError(f"frames must be floating in [0, 1], got {frames.dtype}; divide 8-bit frames by 255")
    expected = [frames.shape[0], frames.shape[1], frames.shape[3], frames.shape[4]]
    if list(superpixels.shape) != expected:
        raise ValueError(
            f"superpixels must be [B, F, H, W] like the frames' {expected}, got {list(superpixels.shape)}; segment the "
            "frames at the size that they are pooled at"
        )
    if grid.shape[0] != frames.shape[0]:
        raise ValueError(f"grid and frames must hold the same clips, got {grid.shape[0]} and {frames.shape[0]}")


def spatial_pool(grid: Tensor) -> Tensor:
    """One token per encoded frame: features [B, t, h, w, d] to their mean over each frame, e^s [B, t, d].

    Source: RACCooN, section 3.1, Pooling^s.
    """
    return grid.mean(dim=(2, 3))


def temporal_pool(grid: Tensor) -> Tensor:
    """One token per place: features [B, t, h, w, d] to their mean over time, row by row, e^t [B, h*w, d].

    Source: RACCooN, section 3.1, Pooling^t.
    """
    return grid.mean(dim=1).flatten(1, 2)


def visual_tokens(grid: Tensor, local: Tensor) -> Tensor:
    """Lay the three kinds of tokens end to end, as the projector takes them: [e^s ; e^l ; e^t].

    Args:
        grid: the encoder's features [B, t, h, w, d].
        local: e^l [B, k, d], `MGSTokens.tokens`.

    Returns:
        [B, t + k + h*w, d].

    Raises:
        ValueError: if local does not hold the grid's clips and width.

    Source: RACCooN, equation 2.
    """
    if grid.ndim != 5:
        raise ValueError(f"grid must be [B, t, h, w, d], got {list(grid.shape)}")
    if local.ndim != 3 or local.shape[0] != grid.shape[0] or local.shape[2] != grid.shape[4]:
        raise ValueError(
            f"local must be [B, k, d] with the grid's B = {grid.shape[0]} and d = {grid.shape[4]}, "
            f"got {list(local.shape)}"
        )
    return torch.cat((spatial_pool(grid), local, temporal_pool(grid)), dim=1)


def cluster_masks(labels: Tensor, membership: Tensor) -> Tensor:
    """Paint the masks of a clip's clusters, to look at; the pooling never builds them.

    Args:
        labels: [F, H, W] integer local ids.
        membership: [F, S, k] bool, one clip of `MGSTokens.membership`.

    Returns:
        m [k, F, H, W] bool: at 100 frames of 336 x 336 and k = 25 that is 282 MB.

    Raises:
        ValueError: if the two do not hold the same frames.
    """
    if labels.ndim != 3 or membership.ndim != 3 or labels.shape[0] != membership.shape[0]:
        raise ValueError(
            f"labels must be [F, H, W] and membership [F, S, k] of the same frames, got {list(labels.shape)} and "
            f"{list(membership.shape)}; take one clip of a batch"
        )
    frame = torch.arange(len(labels), device=labels.device)[:, None, None]
    return membership[frame, labels.long()].permute(3, 0, 1, 2)
