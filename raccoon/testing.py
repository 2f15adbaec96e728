"""The public conformance kit: one call per plug point, for whoever writes a part of their own.

Each ``check_*`` makes the real calls on a tiny input and says in one sentence what a part gets wrong::

    from raccoon.testing import check_painter

    def test_my_painter_conforms():
        check_painter(MyPainter())

`tiny_video`, `tiny_masks`, `ConstantPainter` and `OracleGrounder` stand in for the rest of an editor in such tests.
"""

from collections.abc import Callable
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raccoon.interfaces import (
    Chat,
    Describer,
    DescribeRequest,
    Description,
    FlowEstimator,
    Grounder,
    GroundRequest,
    LayoutPlanner,
    Painter,
    PaintRequest,
    PlanRequest,
    SuperpixelModel,
    VideoFeatures,
    VisualEncoder,
)
from raccoon.recipes import check
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.masks import Masks
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.sample import EditKind
from raccoon_datamodules.video import Video

KINDS: frozenset[EditKind] = frozenset(get_args(EditKind))


class ConformanceError(AssertionError):
    """A part does not do what its plug point promises; the message says which part, what came and what must come."""


class ConstantPainter:
    """Paints everything in one colour, inside the mask and outside it; can do every edit."""

    kinds: frozenset[EditKind] = KINDS

    def __init__(self, colour: tuple[int, int, int] = (255, 0, 255)) -> None:
        self.colour = colour

    def paint(self, request: PaintRequest, /) -> NDArray[np.uint8]:
        """Return frames uint8 [F, H, W, 3] of the one colour."""
        frames = np.empty_like(request.video.frames)
        frames[:] = self.colour
        return frames


class OracleGrounder:
    """Knows the masks it is asked for: uint8 {0, 1} [F, H, W] by phrase; what it does not know is nowhere."""

    def __init__(self, masks: dict[str, NDArray[np.uint8]]) -> None:
        self.masks = masks

    def ground(self, request: GroundRequest, /) -> Masks:
        """Unite the masks of the phrases."""
        found = np.zeros(request.video.frames.shape[:3], dtype=np.uint8)
        for phrase in request.phrases:
            found |= self.masks.get(phrase, np.zeros_like(found))
        return Masks(found, names=request.phrases)


def tiny_video(num_frames: int = 4, size: tuple[int, int] = (48, 64), *, seed: int = 0) -> Video:
    """Return a clip of a bright square that moves to the right over noise; 8 frames per second."""
    height, width = size
    frames = np.random.default_rng(seed).integers(40, 90, (num_frames, height, width, 3), dtype=np.uint8)
    for frame, mask in zip(frames, tiny_masks(num_frames, size).data, strict=True):
        frame[mask == 1] = (220, 200, 40)
    return Video.from_frames(frames, 8.0)


def tiny_masks(num_frames: int = 4, size: tuple[int, int] = (48, 64)) -> Masks:
    """Return the masks of the square of `tiny_video`: 1 where it is."""
    height, width = size
    side = max(1, min(size) // 4)
    mask = np.zeros((num_frames, height, width), dtype=np.uint8)
    for number in range(num_frames):
        left = width // 4 + number * (width - side - width // 4) // max(1, 4 * num_frames)
        mask[number, height // 3 : height // 3 + side, left : left + side] = 1
    return Masks(mask)


def check_painter(painter: Painter) -> None:
    """Check a painter: every kind it claims, an odd size, a mask that is empty in a frame, the same seed twice.

    Raises:
        ConformanceError: says what is wrong.
    """
    _offers(painter, Painter)
    name = _name(painter)
    kinds = painter.kinds
    _require(
        isinstance(kinds, frozenset | set) and bool(kinds) and set(kinds) <= KINDS,
        f"{name}.kinds must be a set of some of {sorted(KINDS)}, got {kinds!r}",
    )
    for size in ((48, 64), (35, 51)):
        video, mask = tiny_video(3, size), tiny_masks(3, size).data
        mask[1] = 0
        kept, kept_mask = video.frames.copy(), mask.copy()
        for kind in sorted(kinds):
            layout = Layout("Square", np.full((3, 4), (0.2, 0.2, 0.6, 0.6))) if kind == "add" else None
            prompt = "inpainted background" if kind == "remove" else "Square: A yellow square."
            asked = PaintRequest(video, mask, prompt, kind, layout=layout, seed=7, progress=lambda done, total: None)
            first, second = painter.paint(asked), painter.paint(asked)
            what = f"{name}.paint of {kind!r} at {size[0]}x{size[1]}"
            _require_array(first, np.uint8, video.frames.shape, what)
            _require(np.array_equal(first, second), f"{what} must give the same frames for the same seed, it did not")
            _require(
                np.array_equal(video.frames, kept) and np.array_equal(mask, kept_mask),
                f"{what} must not change the video or the mask it is given, it wrote into them",
            )


def check_grounder(grounder: Grounder) -> None:
    """Check a grounder: masks of the video's shape for one phrase, for two, and for something that is not there.

    Raises:
        ConformanceError: says what is wrong.
    """
    _offers(grounder, Grounder)
    video = tiny_video()
    for phrases in (("Square",), ("Square", "Ground"), ("Unicorn",)):
        what = f"{_name(grounder)}.ground of {phrases}"
        found = grounder.ground(GroundRequest(video, phrases, ("",) * len(phrases)))
        _require(isinstance(found, Masks), f"{what} must return Masks, got {type(found).__name__}")
        _require_array(found.data, np.uint8, video.frames.shape[:3], f"{what}: data")


def check_describer(describer: Describer) -> None:
    """Check a describer: both tasks give a paragraph, its raw text, and how the frames were sampled.

    Raises:
        ConformanceError: says what is wrong.
    """
    _offers(describer, Describer)
    for asked in (
        DescribeRequest(tiny_video()),
        DescribeRequest(tiny_video(), task="object", options={"object": "Square"}),
    ):
        what = f"{_name(describer)}.describe of task {asked.task!r}"
        answer = describer.describe(asked)
        _require(isinstance(answer, Description), f"{what} must return a Description, got {type(answer).__name__}")
        _require(
            isinstance(answer.paragraph, Paragraph),
            f"{what}: paragraph must be a Paragraph, got {type(answer.paragraph).__name__}",
        )
        _require(isinstance(answer.raw, str), f"{what}: raw must be the text, got {type(answer.raw).__name__}")


def check_layout_planner(planner: LayoutPlanner) -> None:
    """Check a layout planner: one box per frame, and the object somewhere.

    Raises:
        ConformanceError: says what is wrong.
    """
    _offers(planner, LayoutPlanner)
    what = f"{_name(planner)}.plan"
    layout = planner.plan(PlanRequest(tiny_video(5), ObjectDescription("Ball", "A red ball that rolls.")))
    _require(isinstance(layout, Layout), f"{what} must return a Layout, got {type(layout).__name__}")
    _require(
        layout.boxes.shape == (5, 4), f"{what} must give boxes [5, 4] for 5 frames, got {list(layout.boxes.shape)}"
    )
    _require(bool(np.isfinite(layout.boxes).any()), f"{what} must place the object in some frame, it is absent in all")


def check_superpixel_model(model: SuperpixelModel) -> None:
    """Check a superpixel model: int16 labels [F, H, W] in [0, S), also at an odd size, and the same twice.

    Raises:
        ConformanceError: says what is wrong.
    """
    _offers(model, SuperpixelModel)
    for size in ((48, 64), (35, 51)):
        what = f"{_name(model)}.segment at {size[0]}x{size[1]}"
        frames = _frames(tiny_video(3, size))
        answer = model.segment(frames)
        _require(isinstance(answer, tuple) and len(answer) == 2, f"{what} must return (labels, number), got {answer!r}")
        labels, number = answer
        _require_tensor(labels, (3, *size), what, dtype=torch.int16)
        low, high = int(labels.min()), int(labels.max())
        _require(low >= 0 and high < number, f"{what} must give labels in [0, {number}), got {low} to {high}")
        again = model.segment(frames)[0]
        _require(torch.equal(again, labels), f"{what} must give the same labels twice, it did not")


def check_visual_encoder(encoder: VisualEncoder) -> None:
    """Check a visual encoder: finite features [t, h, w, d] with d its ``width``, t at most F, and the same twice.

    Raises:
        ConformanceError: says what is wrong.
    """
    _offers(encoder, VisualEncoder)
    name = _name(encoder)
    _require(
        encoder.image_size >= encoder.patch_size > 0 and encoder.width > 0,
        f"{name} must have image_size >= patch_size > 0 and width > 0, "
        f"got {encoder.image_size}, {encoder.patch_size}, {encoder.width}",
    )
    _require(
        len(encoder.mean) == 3 and len(encoder.std) == 3 and min(encoder.std) > 0,
        f"{name} must have mean and std of three channels, std > 0, got {encoder.mean} and {encoder.std}",
    )
    frames = _frames(tiny_video(3, (encoder.image_size, encoder.image_size)))
    with torch.no_grad():
        grid = encoder.encode(frames)
        again = encoder.encode(frames)
    what = f"{name}.encode"
    _require(
        isinstance(grid, Tensor) and grid.ndim == 4, f"{what} must return a tensor [t, h, w, d], got {_shape(grid)}"
    )
    _require(grid.shape[-1] == encoder.width, f"{what} must give d = width = {encoder.width}, got {_shape(grid)}")
    _require(1 <= grid.shape[0] <= 3, f"{what} must give at most one grid per frame (3), got {_shape(grid)}")
    _require(bool(torch.isfinite(grid).all()), f"{what} must give finite features, it did not")
    _require(torch.equal(grid, again), f"{what} must give the same features twice; put the network into eval mode")


def check_flow_estimator(estimator: FlowEstimator) -> None:
    """Check a flow estimator: finite flow [P, 2, H, W], and towards the right for what moves to the right.

    Raises:
        ConformanceError: says what is wrong.
    """
    _offers(estimator, FlowEstimator)
    # RAFT takes no side below 128.
    height, width, shift = 128, 160, 2
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width + shift), indexing="ij")
    picture = 0.5 + 0.25 * torch.sin(column / 5) + 0.25 * torch.sin(row / 7 + column / 11)
    wide = picture.expand(2, 3, height, width + shift)
    # What stands at column x of the first frame stands at x + shift of the second.
    first, second = wide[..., shift:].contiguous(), wide[..., :width].contiguous()
    with torch.no_grad():
        flow = estimator.flow(first, second)
    what = f"{_name(estimator)}.flow"
    _require_tensor(flow, (2, 2, height, width), what)
    _require(bool(torch.isfinite(flow).all()), f"{what} must be finite, it is not")
    across = float(flow[:, 0, 16:-16, 16:-16].median())
    _require(
        abs(across - shift) < 1,
        f"{what} must be in pixels, x first, from first to second: {shift} to the right here, got {across:.2f}",
    )


def check_video_features(network: VideoFeatures) -> None:
    """Check a feature network: finite features [B, D], the same for a video alone and in a batch.

    Raises:
        ConformanceError: says what is wrong.
    """
    _offers(network, VideoFeatures)
    videos = torch.stack([_frames(tiny_video(16, seed=seed)) for seed in range(2)])
    with torch.no_grad():
        found, alone = network.features(videos), network.features(videos[1:])
    what = f"{_name(network)}.features"
    _require(
        isinstance(found, Tensor) and found.ndim == 2 and len(found) == 2,
        f"{what} must return a tensor [B, D] with B = 2, got {_shape(found)}",
    )
    _require(bool(torch.isfinite(found).all()), f"{what} must be finite, they are not")
    _require(
        torch.allclose(found[1], alone[0], rtol=1e-3, atol=1e-4),
        f"{what} must not depend on the other videos of a batch; put the network into eval mode",
    )


def check_chat(chat: Chat) -> None:
    """Check a conversational model: text for no image, one and two.

    Raises:
        ConformanceError: says what is wrong.
    """
    _offers(chat, Chat)
    frames = tiny_video(2).frames
    for images in ([], [frames[0]], [frames[0], frames[1]]):
        answer = chat.chat(images, "What do you see?")
        what = f"{_name(chat)}.chat with {len(images)} images"
        _require(isinstance(answer, str), f"{what} must return a str, got {type(answer).__name__}")


CHECKS: dict[str, Callable[..., None]] = {
    "painter": check_painter,
    "grounder": check_grounder,
    "describer": check_describer,
    "layout_planner": check_layout_planner,
    "superpixels": check_superpixel_model,
    "encoder": check_visual_encoder,
    "flow": check_flow_estimator,
    "features": check_video_features,
    "chat": check_chat,
}


def _offers(part: object, protocol: type) -> None:
    try:
        check(part, protocol)
    except TypeError as err:
        raise ConformanceError(str(err)) from err


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConformanceError(message)


def _require_array(array: object, dtype: type, shape: tuple[int, ...], what: str) -> None:
    came = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
    fits = isinstance(array, np.ndarray) and array.dtype == dtype and array.shape == shape
    _require(fits, f"{what} must be a numpy array {np.dtype(dtype)} {list(shape)}, got {came}")


def _require_tensor(tensor: object, shape: tuple[int, ...], what: str, *, dtype: torch.dtype | None = None) -> None:
    fits = isinstance(tensor, Tensor) and tuple(tensor.shape) == shape and (dtype is None or tensor.dtype == dtype)
    _require(fits, f"{what} must be a tensor {dtype or ''} {list(shape)}, got {_shape(tensor)}")


def _shape(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _frames(video: Video) -> Tensor:
    return torch.from_numpy(video.frames).permute(0, 3, 1, 2).float() / 255


def _name(part: object) -> str:
    return type(part).__name__
