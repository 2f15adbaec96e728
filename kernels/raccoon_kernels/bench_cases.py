"""What the benchmark computes on: the sizes, the label maps, the inputs, and the least bytes each must move.

A case is one operation at one size in one dtype; every provider of the case gets the same tensors. The label maps
are drawn, because what they look like decides the time of everything that scatters: `realistic` has the run lengths
and the local ids of a superpixel network's output (a pixel belongs to one of the nine cells around it), `random` has
none of either.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Op = Literal["superpixel_mean", "grid_weights", "mgs_pool", "overlapping_kmeans", "pipeline"]
Mode = Literal["fwd", "bwd", "full"]
LabelMap = Literal["realistic", "random"]

OPS: tuple[Op, ...] = get_args(Op)
GRADIENT_OPS: tuple[Op, ...] = ("superpixel_mean", "mgs_pool")
MODES: tuple[Mode, ...] = get_args(Mode)
DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "u8": torch.uint8,
}
LABEL_DTYPES: dict[str, torch.dtype] = {"int16": torch.int16, "int32": torch.int32, "int64": torch.int64}
ITERATIONS = 20  # of k-means, in every timed clustering
_CELL = 16  # pixels: the cell of the superpixel grid
_BOUNDARY_NOISE = 3.5  # pixels: gives runs of 7 to 9 pixels, as superpixels of photographs have


@dataclass(frozen=True, slots=True)
class Case:
    """One operation at one size; the letters are those of the kernels' docstrings."""

    op: Op
    size: str  # the name it is reported under
    num_frames: int = 8  # F, and t: one feature grid per frame
    height: int = 336  # H
    width: int = 336  # W
    channels: int = 3  # C, or D of the points that are clustered
    num_clusters: int = 25  # k
    overlap: int = 6  # v
    dim: int = 1024  # d
    grid: int = 24  # h and w of the feature grid
    dtype: str = "fp32"
    label_dtype: str = "int64"
    label_map: LabelMap = "realistic"
    x_name: str = "size"  # the swept quantity
    x_value: float = 0.0

    def __post_init__(self) -> None:
        for name, known in (("dtype", DTYPES), ("label_dtype", LABEL_DTYPES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.op in {"grid_weights", "mgs_pool", "pipeline"} and (self.height % self.grid or self.width % self.grid):
            raise ValueError(
                f"height and width must be multiples of the feature grid's {self.grid}, got {self.height} x "
                f"{self.width}; the baselines average whole windows"
            )
        if not 1 <= self.overlap <= self.num_clusters:
            raise ValueError(f"overlap must be in [1, num_clusters={self.num_clusters}], got {self.overlap}")

    @property
    def superpixel_grid(self) -> tuple[int, int]:
        """Rows and columns of superpixels in a frame."""
        return -(-self.height // _CELL), -(-self.width // _CELL)

    @property
    def num_superpixels(self) -> int:
        """Superpixels per frame."""
        rows, columns = self.superpixel_grid
        return rows * columns

    @property
    def num_points(self) -> int:
        """Superpixels of the whole clip: the points that are clustered."""
        return self.num_frames * self.num_superpixels

    @property
    def num_cells(self) -> int:
        """Cells of the feature grids of the whole clip."""
        return self.num_frames * self.grid * self.grid

    @property
    def mask_bytes(self) -> int:
        """Bytes of the k x F x H x W masks in float32, the dtype that average pooling needs them in."""
        return 4 * self.num_clusters * self.num_frames * self.height * self.width

    def minimum_bytes(self, mode: Mode) -> int:
        """Return the bytes that any implementation must move: each input read once, each output written once.

        The same for every provider, so that a provider that reads twice is slower, not faster, in GB/s. The backward
        of mgs_pool counts the grid weights, which are fewer bytes than the labels they come from.
        """
        element, label = DTYPES[self.dtype].itemsize, LABEL_DTYPES[self.label_dtype].itemsize
        pixels = self.num_frames * self.height * self.width
        labels = pixels * label
        membership = self.num_points * self.num_clusters  # bool
        weights = 4 * self.num_cells * self.num_clusters
        features = element * self.num_cells * self.dim
        tokens = 4 * self.num_clusters * self.dim
        centroids = 4 * self.num_clusters * self.channels
        means = self.num_points * (4 * self.channels + 4)
        values = element * pixels * self.channels
        if self.op == "superpixel_mean":
            forward = backward = values + labels + means
        elif self.op == "grid_weights":
            forward, backward = labels + membership + weights, 0
        elif self.op == "mgs_pool":
            forward, backward = labels + membership + features + tokens, weights + features + tokens
        elif self.op == "overlapping_kmeans":
            points = element * self.num_points * self.channels
            # The centroids of one iteration are an input of the next, so the points are read every time.
            forward, backward = (ITERATIONS + 1) * (points + centroids) + membership, 0
        else:
            forward, backward = values + 2 * labels + features + tokens, 0
        return {"fwd": forward, "bwd": backward, "full": forward + backward}[mode]


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """The tensors of a case; what its operation does not use is None."""

    case: Case
    device: torch.device
    labels: Tensor | None = None  # [F, H, W] local ids in the case's label dtype
    labels_long: Tensor | None = (
        None  # the same ids in int64: torch's scatters take nothing else, so it is free of charge
    )
    x: Tensor | None = None  # [F, C, H, W]
    features: Tensor | None = None  # [t, h, w, d]
    membership: Tensor | None = None  # bool [F, S, k], v clusters a superpixel
    points: Tensor | None = None  # [N, D]
    centroids: Tensor | None = None  # float32 [k, D], rows of points

    @property
    def differentiable(self) -> Tensor:
        """The tensor that the operation is a function of, and that a gradient flows to."""
        chosen = {
            "superpixel_mean": self.x,
            "grid_weights": self.labels,
            "mgs_pool": self.features,
            "overlapping_kmeans": self.points,
            "pipeline": self.features,
        }[self.case.op]
        return present(chosen)

    def bytes_held(self) -> int:
        """Return the bytes of all tensors."""
        tensors = (self.labels, self.labels_long, self.x, self.features, self.membership, self.points)
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)


def present(tensor: Tensor | None) -> Tensor:
    """Return the tensor that a case's operation needs; an absent one is a fault of the bench, not of its user."""
    assert tensor is not None, "the case's inputs lack a tensor of its operation"
    return tensor


def make_inputs(case: Case, device: torch.device, *, seed: int = 0) -> Inputs:
    """Draw the tensors of a case. Same case, seed and device: same tensors."""
    generator = torch.Generator(device=device).manual_seed(seed)
    labels = labels_long = x = features = membership = points = centroids = None
    if case.op != "overlapping_kmeans":
        labels_long = make_labels(case, device, generator=generator)
        labels = labels_long.to(LABEL_DTYPES[case.label_dtype])
    if case.op in {"superpixel_mean", "pipeline"}:
        x = _pixels(case, device, generator)
    if case.op in {"mgs_pool", "pipeline"}:
        shape = (case.num_frames, case.grid, case.grid, case.dim)
        features = torch.empty(shape, device=device, dtype=DTYPES[case.dtype])
        for frame in features:  # frame by frame: no float32 copy of all of them
            frame.copy_(torch.randn(frame.shape, generator=generator, device=device))
    if case.op in {"grid_weights", "mgs_pool"}:
        membership = _membership(case, device, generator)
    if case.op == "overlapping_kmeans":
        points = clustered_points(case, device, generator=generator).to(DTYPES[case.dtype])
        chosen = torch.randperm(case.num_points, generator=generator, device=device)[: case.num_clusters]
        centroids = points[chosen].float()
    return Inputs(case, device, labels, labels_long, x, features, membership, points, centroids)


def make_labels(case: Case, device: torch.device, *, generator: torch.Generator) -> Tensor:
    """Return int64 labels [F, H, W] with local ids in [0, S).

    `realistic`: every cell has a centre, displaced at random; a pixel joins the nearest centre among the nine cells
    around its own, seen from a position that smooth noise displaces. `random`: independent uniform ids.
    """
    shape = (case.num_frames, case.height, case.width)
    if case.label_map == "random":
        return torch.randint(case.num_superpixels, shape, generator=generator, device=device)
    labels = torch.empty(shape, dtype=torch.int64, device=device)
    for frame in labels:
        frame.copy_(_realistic_frame(case, device, generator))
    return labels


def clustered_points(case: Case, device: torch.device, *, generator: torch.Generator) -> Tensor:
    """Return float32 points [N, D] around 40 centres of uneven weight, as the colours of a clip's superpixels lie."""
    centres = torch.randn(40, case.channels, generator=generator, device=device) * 3
    weights = torch.rand(40, generator=generator, device=device) + 0.05
    chosen = torch.multinomial(weights, case.num_points, replacement=True, generator=generator)
    return centres[chosen] + torch.randn(case.num_points, case.channels, generator=generator, device=device)


def mean_run_length(labels: Tensor) -> float:
    """Return the mean number of neighbouring pixels of a row that share a label; labels [F, H, W]."""
    changes = (labels[..., 1:] != labels[..., :-1]).sum().item()
    rows = labels.shape[0] * labels.shape[1]
    return labels.numel() / (changes + rows)


def _realistic_frame(case: Case, device: torch.device, generator: torch.Generator) -> Tensor:
    rows, columns = case.superpixel_grid
    jitter = (torch.rand(2, rows, columns, generator=generator, device=device) - 0.5) * (0.6 * _CELL)
    coarse = torch.randn(1, 2, -(-case.height // 3) + 1, -(-case.width // 3) + 1, generator=generator, device=device)
    noise = torch.nn.functional.interpolate(coarse, size=(case.height, case.width), mode="bilinear")[0]
    y = torch.arange(case.height, device=device)
    x = torch.arange(case.width, device=device)
    y_seen = y[:, None] + _BOUNDARY_NOISE * noise[0]
    x_seen = x[None, :] + _BOUNDARY_NOISE * noise[1]
    own_row, own_column = (y // _CELL)[:, None], (x // _CELL)[None, :]
    best = torch.full((case.height, case.width), float("inf"), device=device)
    label = torch.zeros(case.height, case.width, dtype=torch.int64, device=device)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            row = (own_row + dy).clamp(0, rows - 1)
            column = (own_column + dx).clamp(0, columns - 1)
            cell = row * columns + column
            centre_y = (row * _CELL + _CELL / 2) + jitter[0].flatten()[cell]
            centre_x = (column * _CELL + _CELL / 2) + jitter[1].flatten()[cell]
            distance = (centre_y - y_seen) ** 2 + (centre_x - x_seen) ** 2
            label = torch.where(distance < best, cell, label)
            best = torch.minimum(best, distance)
    return label


def _pixels(case: Case, device: torch.device, generator: torch.Generator) -> Tensor:
    shape = (case.num_frames, case.channels, case.height, case.width)
    x = torch.empty(shape, device=device, dtype=DTYPES[case.dtype])
    for frame in x:
        if case.dtype == "u8":
            frame.copy_(torch.randint(256, frame.shape, generator=generator, device=device))
        else:
            frame.copy_(torch.rand(frame.shape, generator=generator, device=device))
    return x


def _membership(case: Case, device: torch.device, generator: torch.Generator) -> Tensor:
    points = clustered_points(case, device, generator=generator)
    chosen = torch.randperm(case.num_points, generator=generator, device=device)[: case.num_clusters]
    nearest = torch.cdist(points, points[chosen]).topk(case.overlap, largest=False).indices
    membership = torch.zeros(case.num_points, case.num_clusters, dtype=torch.bool, device=device)
    membership.scatter_(1, nearest, True)
    return membership.view(case.num_frames, case.num_superpixels, case.num_clusters)
