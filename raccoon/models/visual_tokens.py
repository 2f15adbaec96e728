"""Clips to visual tokens, and visual tokens to the language model's embeddings (paper, equations 1 and 2)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from raccoon.interfaces import SuperpixelModel
from raccoon.models.mgs import MGSPooling, visual_tokens
from raccoon_kernels import mgs_pool, overlapping_kmeans, superpixel_mean


@dataclass(frozen=True, slots=True, eq=False)
class VisualTokens:
    """The tokens of a batch of clips.

    features: [e^s ; e^l ; e^t], [B, N, d]; zero for a cluster without pixels.
    valid: [B, N] bool, False for such clusters.
    tracks: where each cluster is, float32 [B, k, 3 F]: for each frame its share of the pixels and, where it has any,
        its centre's x and y from -0.5 to 0.5 (0 elsewhere).
    """

    features: Tensor
    valid: Tensor
    tracks: Tensor


class VisualTokenizer(nn.Module):
    """A frozen visual encoder with spatial, temporal and multi-granular spatiotemporal pooling.

    Args:
        encoder: a `raccoon.interfaces.VisualEncoder` that is a module and gives one grid per frame.
        superpixels: what the pooling clusters.
        pooling: its ``num_clusters`` is k.
        num_frames: frames of a clip, t.

    Raises:
        ValueError: if num_frames is not positive.
    """

    def __init__(
        self, encoder: nn.Module, superpixels: SuperpixelModel, pooling: MGSPooling, *, num_frames: int
    ) -> None:
        super().__init__()
        if num_frames < 1:
            raise ValueError(f"num_frames must be at least 1, got {num_frames}")
        self.encoder = encoder.eval().requires_grad_(False)
        self.superpixels = superpixels
        self.pooling = pooling
        self.num_frames = num_frames
        side = int(self._encoder.image_size) // int(self._encoder.patch_size)
        self.grid_size = (side, side)

    @property
    def _encoder(self) -> Any:
        return self.encoder

    @property
    def width(self) -> int:
        """d, the features' width."""
        return int(self._encoder.width)

    @property
    def num_visual_tokens(self) -> int:
        """N = t + k + h w."""
        return self.num_frames + self.pooling.num_clusters + self.grid_size[0] * self.grid_size[1]

    @torch.no_grad()
    def forward(
        self,
        *,
        frames: Tensor | None = None,
        grid: Tensor | None = None,
        superpixels: Tensor | None = None,
        superpixel_means: Tensor | None = None,
    ) -> VisualTokens:
        """Encode and pool.

        Args:
            frames: [B, F, 3, H, W] float in [0, 1].
            grid: or features of the encoder [B, t, h, w, d], as a cache keeps them.
            superpixels: labels of the frames, integer [B, F, H, W]; None computes them.
            superpixel_means: beside a grid and its superpixels, which must then be this network's own: what
                `MGSPooling.describe` says of them, int32 [B, F, S, C]. The tokens are those that frames would give.
                A grid without them has no colours: the cells of the grid take the superpixels' place and the features
                that of the colours, which gives other tokens.

        Raises:
            ValueError: if not exactly one of frames and grid is given, superpixels come with neither frames nor means,
                or the clip has another number of frames or the grid another size than this network's.
        """
        if (frames is None) == (grid is None):
            given = "both" if frames is not None else "neither"
            raise ValueError(f"exactly one of frames and grid must be given, got {given}")
        if frames is None:
            assert grid is not None
            if (superpixels is None) != (superpixel_means is None):
                raise ValueError(
                    "superpixels belong to frames, or beside a grid to their superpixel_means; a grid alone is "
                    "clustered cell by cell"
                )
            self._check(grid)
            if superpixels is None or superpixel_means is None:
                return self._from_grid(grid)
            # A cache keeps half precision; what follows computes in the encoder's own.
            grid = grid.to(next((p.dtype for p in self.encoder.parameters()), grid.dtype))
            return self._pooled(
                grid, superpixels, superpixel_means.shape[2], self._cells(superpixels), None, superpixel_means
            )
        if superpixel_means is not None:
            raise ValueError("superpixel_means stand beside a grid; of frames they are computed")
        if frames.ndim != 5 or frames.shape[1] != self.num_frames:
            raise ValueError(
                f"frames must be [B, {self.num_frames}, 3, H, W], got {list(frames.shape)}; this network was made for "
                f"{self.num_frames} frames"
            )
        flat = frames.flatten(0, 1)
        grid = self._encoder.encode(flat).unflatten(0, frames.shape[:2])
        self._check(grid)
        if superpixels is not None:
            return self._pooled(grid, superpixels, int(superpixels.max()) + 1, None, frames, None)
        labels, count = self.superpixels.segment(flat)
        superpixels = labels.unflatten(0, frames.shape[:2])
        return self._pooled(grid, superpixels, count, self._cells(superpixels), frames, None)

    @torch.no_grad()
    def describe(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """What a cache keeps of frames [F, 3, H, W] beside their grid: each frame for itself.

        Returns labels int16 [F, H, W] and what `MGSPooling.describe` says of them, int32 [F, S, C].
        """
        labels, count = self.superpixels.segment(frames)
        means = self.pooling.describe(frames[None], labels[None], count, superpixel_grid=self._cells(labels))
        return labels, means[0]

    def _cells(self, superpixels: Tensor) -> tuple[int, int] | None:
        """The grid of cells that this network's own superpixels [..., H, W] keep to, which the kernels can use."""
        # A superpixel model that keeps to a grid says so.
        if not hasattr(self.superpixels, "grid"):
            return None
        cells: tuple[int, int] = self.superpixels.grid(superpixels.shape[-2], superpixels.shape[-1])
        return cells

    def _pooled(
        self,
        grid: Tensor,
        superpixels: Tensor,
        count: int,
        cells: tuple[int, int] | None,
        frames: Tensor | None,
        means: Tensor | None,
    ) -> VisualTokens:
        pooled = self.pooling(grid, frames, superpixels, count, superpixel_grid=cells, described=means)
        tracks = _tracks(superpixels, pooled.membership, count, cells)
        return self._joined(grid, pooled.tokens, pooled.valid, tracks)

    def _from_grid(self, grid: Tensor) -> VisualTokens:
        clips, num_frames, h, w, _ = grid.shape
        cells = torch.arange(h * w, device=grid.device).reshape(h, w).expand(clips, num_frames, h, w).contiguous()
        with torch.autocast(grid.device.type, enabled=False):
            features = grid.flatten(0, 1)
            offsets = [clip * num_frames for clip in range(clips + 1)]
            membership = overlapping_kmeans(
                features.flatten(0, 2).float(),
                self.pooling.num_clusters,
                self.pooling.overlap,
                algorithm=self.pooling.algorithm,
                seed=self.pooling.seed,
                offsets=[offset * h * w for offset in offsets],
                backend=self.pooling.backend,
            ).membership.reshape(clips, num_frames, h * w, self.pooling.num_clusters)
            local, valid = mgs_pool(
                features,
                cells.flatten(0, 1),
                membership.flatten(0, 1),
                frame_offsets=offsets,
                feature_offsets=offsets,
                normalize=self.pooling.normalize,
                backend=self.pooling.backend,
            )
        return self._joined(grid, local.to(grid.dtype), valid, _tracks(cells, membership, h * w, (h, w)))

    def _joined(self, grid: Tensor, local: Tensor, valid: Tensor, tracks: Tensor) -> VisualTokens:
        others = torch.ones(len(grid), grid.shape[1], dtype=torch.bool, device=grid.device)
        places = torch.ones(len(grid), grid.shape[2] * grid.shape[3], dtype=torch.bool, device=grid.device)
        return VisualTokens(visual_tokens(grid, local), torch.cat((others, valid, places), dim=1), tracks)

    def _check(self, grid: Tensor) -> None:
        expected = (self.num_frames, *self.grid_size, self.width)
        if grid.ndim != 5 or tuple(grid.shape[1:]) != expected:
            raise ValueError(
                f"the features of a clip must be {list(expected)} (t, h, w, d), got {list(grid.shape[1:])}; they come "
                "from another encoder or another number of frames"
            )


class Projector(nn.Module):
    """Two linear layers with GELU between (LLaVA's ``mlp2x_gelu``), and what a miniature needs besides.

    Args:
        visual: where the tokens come from; their number and width.
        width: D, that of the language model.
        position_embeddings: add learned embeddings of a token's kind, frame, place, or a cluster's track.
        normalize_features: normalise each token's features first, and begin with outputs of the size ``scale``.
        scale: root mean square of the language model's embeddings.
    """

    def __init__(
        self,
        visual: VisualTokenizer,
        width: int,
        *,
        position_embeddings: bool = False,
        normalize_features: bool = False,
        scale: float = 0.02,
    ) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(visual.width, width), nn.GELU(), nn.Linear(width, width))
        self.positions = Positions(visual, width, scale=scale) if position_embeddings else None
        self.normalize_features = normalize_features
        if normalize_features:
            self._begin_with(scale)

    def forward(self, tokens: VisualTokens) -> Tensor:
        """Embeddings [B, N, D] in the dtype of the weights; zero where a token is not valid."""
        features = tokens.features.to(next(self.mlp.parameters()).dtype)
        if self.normalize_features:
            features = functional.layer_norm(features, features.shape[-1:])
        out: Tensor = self.mlp(features)
        if self.positions is not None:
            out = out + self.positions(tokens.tracks)
        return out * tokens.valid[..., None]

    @torch.no_grad()
    def _begin_with(self, scale: float) -> None:
        """Bring the outputs of normalised features to a root mean square of ``scale``."""
        first, last = self.mlp[0], self.mlp[2]
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        size = self.mlp(torch.randn(1024, first.in_features)).pow(2).mean().sqrt()
        last.weight.mul_(scale / size)
        last.bias.mul_(scale / size)


class Positions(nn.Module):
    """Which frame a token is, which place, or where its cluster is in each frame; beginning at the size ``scale``."""

    def __init__(self, visual: VisualTokenizer, width: int, *, scale: float) -> None:
        super().__init__()
        self.frames = nn.Parameter(torch.randn(visual.num_frames, width) * scale)
        self.places = nn.Parameter(torch.randn(visual.grid_size[0] * visual.grid_size[1], width) * scale)
        self.tracks = nn.Linear(3 * visual.num_frames, width)
        # A coordinate is about 0.3 from the middle.
        nn.init.normal_(self.tracks.weight, std=scale / (0.3 * (2 * visual.num_frames) ** 0.5))
        nn.init.normal_(self.tracks.bias, std=scale)

    def forward(self, tracks: Tensor) -> Tensor:
        """Embeddings [B, N, D] for tracks [B, k, 3 F]."""
        clips = len(tracks)
        frames, places = (table.expand(clips, -1, -1) for table in (self.frames, self.places))
        return torch.cat((frames, self.tracks(tracks.to(self.frames.dtype)), places), dim=1)


def _tracks(labels: Tensor, membership: Tensor, count: int, cells: tuple[int, int] | None) -> Tensor:
    """Where clusters are, see `VisualTokens`; labels [B, F, H, W], membership [B, F, S, k]."""
    clips, num_frames, height, width = labels.shape
    y = (torch.arange(height, device=labels.device) + 0.5) / height - 0.5
    x = (torch.arange(width, device=labels.device) + 0.5) / width - 0.5
    places = torch.stack((x.expand(height, width), y[:, None].expand(height, width)))
    with torch.autocast(labels.device.type, enabled=False):
        means, counts = superpixel_mean(
            places.expand(clips * num_frames, -1, -1, -1).contiguous(), labels.flatten(0, 1), count, grid=cells
        )
        mass = membership.float() * counts.reshape(clips, num_frames, count, 1)
        total = mass.sum(dim=2)
        # [B, F, k, 2]
        centres = torch.einsum("bfsk,bfsc->bfkc", mass, means.reshape(clips, num_frames, count, 2))
        centres = centres / total.clamp(min=1)[..., None]
        share = (total / (height * width))[..., None]
    return torch.cat((share, centres), dim=-1).permute(0, 2, 1, 3).flatten(2)
