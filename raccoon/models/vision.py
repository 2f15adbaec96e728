"""The visual encoder: CLIP's patch features, frame by frame.

A frame goes in whole: it is stretched to the encoder's square, where CLIP's own preprocessing would cut off what sticks
out. An object at a video's edge must be describable, and a patch must keep its place in the frame.
The features are those that LLaVA reads: the hidden state before the last layer, without the class token. The last
layer's patches were never trained for anything but the class token.
Source: RACCooN, section 4.1 (CLIP-L/14@336).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from raccoon.models.weights import find_weights

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# What a hub id weighs, so that nobody starts a long download unawares.
_SIZES = {"openai/clip-vit-large-patch14-336": "1.7 GB", "openai/clip-vit-base-patch32": "0.6 GB"}

Dtype = Literal["float32", "float16", "bfloat16"]


class ClipVisionEncoder(nn.Module):
    """Frames to a grid of CLIP features; a `raccoon.interfaces.VisualEncoder`.

    Args:
        model: a `transformers.CLIPVisionModel`, or a `CLIPModel`, whose vision tower is taken.
        layer: which hidden state to hand out: 0 is the embeddings, -1 the last layer's, -2 the one before.
        pool: average blocks of ``pool x pool`` patches, for fewer tokens from a fine grid; 1 leaves the grid as it is.
        chunk_size: frames that the network sees at once; it bounds memory and changes nothing else.
        mean: of the training images, RGB in [0, 1].
        std: likewise.

    Attributes:
        image_size: side of the network's square image in pixels.
        patch_size: side of one cell of the grid in pixels, pooling included.
        width: d, the features' width.

    Raises:
        ValueError: if layer does not exist, pool does not divide the grid, or chunk_size is not positive.
    """

    image_size: int
    patch_size: int
    width: int

    def __init__(
        self,
        model: nn.Module,
        *,
        layer: int = -2,
        pool: int = 1,
        chunk_size: int = 64,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
    ) -> None:
        super().__init__()
        # A CLIPModel holds its tower there, and so did a CLIPVisionModel before transformers 5.
        tower: Any = getattr(model, "vision_model", model)
        config = tower.config
        num_layers = config.num_hidden_layers
        if not -num_layers - 1 <= layer <= num_layers:
            raise ValueError(
                f"layer must be from {-num_layers - 1} to {num_layers} for an encoder of {num_layers} layers, "
                f"got {layer}"
            )
        side = config.image_size // config.patch_size
        if pool < 1 or side % pool:
            raise ValueError(f"pool must divide the {side} patches of a side, got {pool}")
        if chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
        self.tower = tower
        self.layer = layer
        self.pool = pool
        self.chunk_size = chunk_size
        self.image_size = config.image_size
        self.patch_size = config.patch_size * pool
        self.width = config.hidden_size
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        layer: int = -2,
        pool: int = 1,
        dtype: Dtype | None = None,
        chunk_size: int = 64,
    ) -> "ClipVisionEncoder":
        """Load the encoder of a CLIPModel or CLIPVisionModel, frozen and in evaluation mode.

        Nothing is downloaded: what is not on this machine is said before anything is computed.

        Args:
            source: a folder as `save_pretrained` writes it, shipped weights ("tiny/clip"), or a hub id that was
                fetched before.
            revision: of the hub id.
            layer: see the class.
            pool: see the class.
            dtype: of the weights; None for the one they are stored in.
            chunk_size: see the class.

        Raises:
            FileNotFoundError: if the folder or the hub id's files are not here.
            ValueError: if what is there is no CLIP, or lacks weights of its vision tower.
        """
        from transformers import CLIPModel, CLIPVisionModel

        folder, kind = clip_folder(source, revision=revision, kinds=("clip", "clip_vision_model"))
        # Loading the tower alone out of a CLIPModel prints a table of every key of the text side.
        model, report = (CLIPModel if kind == "clip" else CLIPVisionModel).from_pretrained(
            folder, dtype=dtype or "auto", local_files_only=True, output_loading_info=True
        )
        check_loaded(source, report)
        encoder = cls(model, layer=layer, pool=pool, chunk_size=chunk_size)
        return encoder.eval().requires_grad_(False)

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the features of one frame."""
        side = self.image_size // self.patch_size
        return side, side

    def forward(self, frames: Tensor) -> Tensor:
        """See `encode`."""
        return self.encode(frames)

    def encode(self, frames: Tensor, /) -> Tensor:
        """Encode frames one by one.

        Args:
            frames: [F, 3, H, W] floating in [0, 1], any size, on the encoder's device.

        Returns:
            [F, h, w, d] in the dtype of the weights. The gradient flows to trainable weights and to frames.

        Raises:
            ValueError: if frames is not [F, 3, H, W] with F >= 1.
            TypeError: if frames is not floating.
        """
        parts = [self._encode_chunk(part) for part in checked_frames(frames).split(self.chunk_size)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _encode_chunk(self, frames: Tensor) -> Tensor:
        pixels = clip_pixels(frames, self.image_size, mean=self.mean, std=self.std)
        states = self.tower(pixel_values=pixels.to(self.tower.dtype), output_hidden_states=True).hidden_states
        features = states[self.layer][:, 1:]
        side = self.image_size // (self.patch_size // self.pool)
        grid = features.unflatten(1, (side, side))
        if self.pool > 1:
            grid = functional.avg_pool2d(grid.permute(0, 3, 1, 2), self.pool).permute(0, 2, 3, 1)
        return grid.contiguous()


def checked_frames(frames: Tensor) -> Tensor:
    """Return frames [F, 3, H, W] if that is what they are.

    Raises:
        ValueError: for another shape.
        TypeError: if they are not floating.
    """
    if frames.ndim != 4 or frames.shape[1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames must be [F, 3, H, W] with no empty axis, got {list(frames.shape)}")
    if not frames.is_floating_point():
        raise TypeError(f"frames must be floating in [0, 1], got {frames.dtype}; divide 8-bit frames by 255")
    return frames


def clip_pixels(
    frames: Tensor, image_size: int, *, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD
) -> Tensor:
    """Frames [F, 3, H, W] in [0, 1] to what a CLIP takes: [F, 3, image_size, image_size], normalised, float32.

    Bicubic with antialiasing, clipped to [0, 1] like the 8-bit images of CLIP's own processor; frames that have the
    size already are not resampled.
    """
    # Half precision would move pixels by more than their 8 bits, and the CPU has no antialiasing for it.
    pixels = frames.float()
    if pixels.shape[-2:] != (image_size, image_size):
        size = (image_size, image_size)
        pixels = functional.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    shift = torch.tensor(mean, device=pixels.device, dtype=pixels.dtype)[:, None, None]
    scale = torch.tensor(std, device=pixels.device, dtype=pixels.dtype)[:, None, None]
    return (pixels - shift) / scale


def clip_folder(source: str | Path, *, revision: str | None = None, kinds: Sequence[str]) -> tuple[Path, str]:
    """Find a CLIP without asking the network; return its folder and the ``model_type`` of its config.json.

    ``source`` as `raccoon.models.weights.find_weights` takes it; ``kinds`` are the model types that will do.

    Raises:
        FileNotFoundError: says what is missing, how large it is (where that is known) and which command makes or
            fetches it.
        ValueError: if the config is of another kind of model.
    """
    from transformers import AutoConfig

    try:
        folder = find_weights(source, revision=revision)
    except FileNotFoundError as err:
        size = _SIZES.get(str(source))
        raise FileNotFoundError(f"{err} (about {size})" if size else str(err)) from err
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} must be a folder as save_pretrained writes it, and has no config.json")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise FileNotFoundError(f"{folder} holds a config.json and no weights (*.safetensors); copy them there too")
    found = str(AutoConfig.from_pretrained(folder).model_type)
    if found not in kinds:
        raise ValueError(f"{source} must hold a CLIP ({' or '.join(kinds)}), its config.json says {found!r}")
    return folder, found


def check_loaded(source: str | Path, report: dict[str, Any]) -> None:
    """Check the report that transformers gives with ``output_loading_info``: no weight may be missing or misshapen.

    Raises:
        ValueError: lists every such key.
    """
    missing = sorted(report["missing_keys"])
    mismatched = sorted(str(key[0] if isinstance(key, tuple) else key) for key in report["mismatched_keys"])
    if missing or mismatched:
        raise ValueError(
            f"{source} must hold every weight of the network, and lacks {missing} and has another shape for "
            f"{mismatched}; it is damaged or belongs to another config"
        )
