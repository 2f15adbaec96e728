"""The plug points: what a describer, grounder, painter... must offer, and the objects that cross each border.

Requests and results are frozen dataclasses, so that a new need adds a field and breaks nobody's plug-in. Protocol
methods take positional-only parameters, so that a stranger's class may name its own as it likes and need not annotate
them; `raccoon.recipes.check` verifies a class once, when the recipe is built.
Shape letters and the mask convention (1 = edit here): `raccoon_datamodules.batch`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from raccoon_datamodules.layout import Layout
from raccoon_datamodules.masks import Masks
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.sample import EditKind
from raccoon_datamodules.video import Video

Options = Mapping[str, Any]
# done units, all units; called from the thread that works
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class DescribeRequest:
    """Describe a video: all of it, or (``task="object"``) one object of it."""

    video: Video
    task: Literal["all", "object"] = "all"
    options: Options = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Description:
    """A describer's answer: the paragraph, the raw text it was read from, and how the frames were sampled."""

    paragraph: Paragraph
    raw: str
    sampling: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """Ask where an added object goes: one box per frame of ``video``."""

    video: Video
    object: ObjectDescription
    options: Options = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GroundRequest:
    """Ask where the things that ``phrases`` name are in ``video``.

    ``descriptions`` is what the paragraph says about each phrase ("" where it says nothing), or empty if there is none.
    """

    video: Video
    phrases: tuple[str, ...]
    descriptions: tuple[str, ...] = ()
    options: Options = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PaintRequest:
    """Repaint the masked region of a video.

    ``mask`` uint8 {0, 1} [F, H, W] of the video's size, 1 = repaint (already grown); ``prompt`` what to paint there;
    ``layout`` the planned boxes of an added object; ``size`` the (height, width) to work at, or None for the painter's
    own choice; ``progress`` is called with (done, all).
    """

    video: Video
    mask: NDArray[np.uint8]
    prompt: str
    kind: EditKind
    layout: Layout | None = None
    seed: int = 0
    size: tuple[int, int] | None = None
    progress: Progress | None = None
    options: Options = field(default_factory=dict)


@runtime_checkable
class VisualEncoder(Protocol):
    """Frames to a grid of features; the paper's is CLIP-L/14@336."""

    image_size: int
    patch_size: int
    width: int
    mean: Sequence[float]
    std: Sequence[float]

    def encode(self, frames: Tensor, /) -> Tensor:
        """Frames [F, 3, H, W] float in [0, 1] to features [t, h, w, d]."""
        ...


@runtime_checkable
class SuperpixelModel(Protocol):
    """Frames to superpixels."""

    def segment(self, frames: Tensor, /) -> tuple[Tensor, int]:
        """Frames [F, 3, H, W] float in [0, 1] to local labels int16 [F, H, W] and the number of labels per frame."""
        ...


@runtime_checkable
class Describer(Protocol):
    """A video to a paragraph."""

    def describe(self, request: DescribeRequest, /) -> Description:
        """Write the paragraph."""
        ...


@runtime_checkable
class LayoutPlanner(Protocol):
    """One box per frame for an object that is not there yet."""

    def plan(self, request: PlanRequest, /) -> Layout:
        """Place the object."""
        ...


@runtime_checkable
class Grounder(Protocol):
    """Phrases to masks through time."""

    def ground(self, request: GroundRequest, /) -> Masks:
        """Find what the phrases name; the masks of all phrases are united, 1 = edit here."""
        ...


@runtime_checkable
class Painter(Protocol):
    """Fills the masked region. ``kinds`` says which edits it can do.

    It may offer ``remarks(video, mask) -> Sequence[str]``: what, before anything is painted, it can say will look bad.
    """

    kinds: frozenset[EditKind]

    def paint(self, request: PaintRequest, /) -> NDArray[np.uint8]:
        """Return frames uint8 [F, H, W, 3] of the video's size; what lies outside the mask is ignored."""
        ...


@runtime_checkable
class FlowEstimator(Protocol):
    """Optical flow."""

    def flow(self, first: Tensor, second: Tensor, /) -> Tensor:
        """Frame pairs [P, 3, H, W] float in [0, 1] to flow [P, 2, H, W] in pixels, x first, from first to second."""
        ...


@runtime_checkable
class VideoFeatures(Protocol):
    """A feature network for FVD."""

    def features(self, video: Tensor, /) -> Tensor:
        """Videos [B, F, 3, H, W] float in [0, 1] to features [B, D]."""
        ...


@runtime_checkable
class Chat(Protocol):
    """A conversational model that sees images; used for annotation and matching."""

    def chat(self, images: Sequence[NDArray[np.uint8]], text: str, /) -> str:
        """Answer ``text`` about the images (uint8 [H, W, 3])."""
        ...
