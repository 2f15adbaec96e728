"""Superpixels of batched frames: the plain grid, and a SLIC that never leaves its neighbourhood.

Both start from a grid of cells and give every pixel the id of one of the 3 x 3 cells around its own, so a superpixel
lies within a 3 x 3 window of cells. The kernels rely on that promise (``grid=`` of `raccoon_kernels.superpixel_mean`);
therefore no step afterwards merges or renumbers stray pixels, and a superpixel need not be connected.
Where the cell does not divide the frame, its sides shrink until the cells are as even as they can be: 29 pixels at
``cell=14`` are cells of 10, 10 and 9, not 14, 14 and 1. The side is ``ceil(H / ny)``, so ``grid`` alone says where the
cells lie.
The paper takes a learned predictor (Yang et al., 2020), whose labels obey the same promise; these need no weights.
Source: RACCooN, section 3.1 (``S, g = sigma(x, g_init)``, g_init a region-based grid); Achanta et al., "SLIC
Superpixels Compared to State-of-the-Art Superpixel Methods", PAMI 2012.
"""

import torch
from torch import Tensor

from raccoon.models.colour import srgb_to_lab
from raccoon_kernels import superpixel_mean

# Pixels per pass on a GPU, where launches cost more than memory. A CPU takes one frame at a time: its working set then
# fits the cache, and SIMD remainders fall on the same pixels whatever the clip's length, so labels do not depend on it.
_GPU_PIXELS = 32 * 336 * 336
_MAX_ID = torch.iinfo(torch.int16).max


def _cells(size: int, cell: int) -> tuple[int, int]:
    """Number of cells along ``size`` pixels, and the side of each but the last."""
    count = -(-size // cell)
    side = -(-size // count)
    return -(-size // side), side


def _check_frames(frames: Tensor) -> None:
    if frames.ndim != 4 or frames.shape[1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames must be [F, 3, H, W] with no empty axis, got {list(frames.shape)}")
    if not frames.is_floating_point():
        raise TypeError(f"frames must be floating in [0, 1], got {frames.dtype}; divide 8-bit frames by 255")


class GridSuperpixels:
    """Square cells as superpixels: what MGS pooling becomes without a segmentation.

    With ``cell`` equal to the encoder's patch, each superpixel is one patch of one frame.

    Raises:
        ValueError: if cell is below 1.
    """

    def __init__(self, cell: int = 14) -> None:
        if cell < 1:
            raise ValueError(f"cell must be at least 1 pixel, got {cell}")
        self.cell = cell

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Cells down and across a frame; their product is the number of superpixels per frame.

        Raises:
            ValueError: if there would be more than 32767 cells, the most that int16 ids can name.
        """
        ny, nx = _cells(height, self.cell)[0], _cells(width, self.cell)[0]
        if ny * nx > _MAX_ID + 1:
            raise ValueError(
                f"a frame may hold at most {_MAX_ID + 1} superpixels (ids are int16), but {height} x {width} pixels in "
                f"cells of {self.cell} make {ny * nx}; use a larger cell"
            )
        return ny, nx

    def segment(self, frames: Tensor, /) -> tuple[Tensor, int]:
        """Label each pixel with its cell, row by row.

        Args:
            frames: [F, 3, H, W] floating, in [0, 1].

        Returns:
            int16 labels [F, H, W] on the frames' device, and their number per frame.

        Raises:
            ValueError: if frames is not [F, 3, H, W], or has too many cells for int16.
            TypeError: if frames is not floating.
        """
        _check_frames(frames)
        num_frames, _, height, width = frames.shape
        ny, nx = self.grid(height, width)
        rows = torch.arange(height, device=frames.device) // _cells(height, self.cell)[1]
        columns = torch.arange(width, device=frames.device) // _cells(width, self.cell)[1]
        labels_HW = (rows[:, None] * nx + columns).to(torch.int16)
        return labels_HW.expand(num_frames, -1, -1).contiguous(), ny * nx


class SlicSuperpixels(GridSuperpixels):
    """SLIC on tensors: superpixels that follow the picture's edges.

    Centres in CIELAB + (x, y) start as the means of the cells. Each pixel joins the nearest of the nine centres of the
    cells around its own, ``distance^2 = dLab^2 + compactness^2 (dx^2 / cell_width^2 + dy^2 / cell_height^2)``, ties to
    the lower id; then each centre moves to the mean of its pixels (an abandoned one stays). Deterministic; a frame's
    labels do not depend on the frames beside it. No connectivity step: see the module.

    Args:
        cell: side of a starting cell in pixels.
        iterations: assignments; 1 assigns to the cells' means only.
        compactness: Lab units that one cell side of distance weighs; larger gives squarer superpixels.
        backend: of `raccoon_kernels.superpixel_mean`, "auto", "torch" or "triton".

    Raises:
        ValueError: if cell or iterations is below 1, or compactness is not positive: with none, a flat frame would be
            all ties.
    """

    def __init__(
        self, cell: int = 14, iterations: int = 5, *, compactness: float = 10.0, backend: str = "auto"
    ) -> None:
        super().__init__(cell)
        if iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {iterations}")
        if not compactness > 0:
            raise ValueError(f"compactness must be positive, got {compactness}")
        self.iterations = iterations
        self.compactness = compactness
        self.backend = backend

    @torch.no_grad()
    def segment(self, frames: Tensor, /) -> tuple[Tensor, int]:
        """Label each pixel with the superpixel it belongs to.

        Args:
            frames: [F, 3, H, W] floating, in [0, 1], any device. No gradient: labels are discrete.

        Returns:
            int16 labels [F, H, W] on the frames' device, each the id of one of the 3 x 3 cells around its pixel's own
            cell; and their number per frame. Some ids may own no pixel.

        Raises:
            ValueError: if frames is not [F, 3, H, W], leaves [0, 1], or has too many cells for int16.
            TypeError: if frames is not floating.
        """
        _check_frames(frames)
        low, high = (float(v) for v in torch.aminmax(frames))
        # Half-precision decoders overshoot by 1e-3; NaN fails the comparison too.
        if not (low >= -0.01 and high <= 1.01):
            raise ValueError(
                f"frames must lie in [0, 1], got values from {low:g} to {high:g}; scale or clamp them first"
            )
        ny, nx = self.grid(frames.shape[2], frames.shape[3])
        step = max(1, _GPU_PIXELS // frames.shape[-2:].numel()) if frames.is_cuda else 1
        return torch.cat([self._segment(chunk, ny, nx) for chunk in frames.split(step)]), ny * nx

    def _segment(self, frames: Tensor, ny: int, nx: int) -> Tensor:
        """Label a chunk of frames [f, 3, H, W]; int16 [f, H, W]."""
        num_frames, _, height, width = frames.shape
        side_y, side_x = -(-height // ny), -(-width // nx)
        device = frames.device
        # x and y in units that make the distance a plain sum of squares.
        y_H = torch.arange(height, device=device, dtype=torch.float32) * (self.compactness / side_y)
        x_W = torch.arange(width, device=device, dtype=torch.float32) * (self.compactness / side_x)
        position = torch.stack((y_H[:, None].expand(height, width), x_W.expand(height, width)))
        points = torch.cat((srgb_to_lab(frames), position.expand(num_frames, -1, -1, -1)), dim=1)

        labels = GridSuperpixels.segment(self, frames)[0]
        centres = torch.zeros(num_frames, ny * nx, 5, device=device)
        for _ in range(self.iterations):
            means, counts = superpixel_mean(points, labels, ny * nx, grid=(ny, nx), backend=self.backend)
            centres = torch.where(counts[..., None] > 0, means, centres)
            labels = self._assign(points, centres, ny, nx, side_y, side_x)
        return labels

    @staticmethod
    def _assign(points: Tensor, centres: Tensor, ny: int, nx: int, side_y: int, side_x: int) -> Tensor:
        """Nearest of the nine centres for points [f, 5, H, W] and centres [f, S, 5]; int16 [f, H, W]."""
        num_frames, _, height, width = points.shape
        padding = (0, nx * side_x - width, 0, ny * side_y - height)
        # [f, ny, side_y, nx, side_x]: a cell's centre broadcasts over its pixels, and nothing is gathered.
        cells = [
            channel.reshape(num_frames, ny, side_y, nx, side_x)
            for channel in torch.nn.functional.pad(points, padding).unbind(1)
        ]
        grid_5 = centres.reshape(num_frames, ny, nx, 5)
        best = torch.full_like(cells[0], torch.inf)
        labels = torch.zeros(cells[0].shape, dtype=torch.int16, device=points.device)
        ids = torch.arange(ny * nx, device=points.device, dtype=torch.int16).reshape(ny, nx)
        rows = torch.arange(ny, device=points.device)
        columns = torch.arange(nx, device=points.device)
        for down in (-1, 0, 1):
            row = (rows + down).clamp(0, ny - 1)
            for right in (-1, 0, 1):
                column = (columns + right).clamp(0, nx - 1)
                candidate = grid_5[:, row][:, :, column][:, :, None, :, None]
                distance = (cells[0] - candidate[..., 0]).square_()
                for c in range(1, 5):
                    difference = cells[c] - candidate[..., c]
                    distance.addcmul_(difference, difference)
                # Candidates come in rising id order, so a strict comparison leaves a tie with the lower id.
                closer = distance < best
                best = torch.where(closer, distance, best)
                labels = torch.where(closer, ids[row][:, column][:, None, :, None], labels)
        return labels.reshape(num_frames, ny * side_y, nx * side_x)[:, :height, :width].contiguous()
