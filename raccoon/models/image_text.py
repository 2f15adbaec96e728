"""Patches and words in one space: CLIP with every patch projected, not only the class token.

The paper's recipe leaves grounding to a detector; the miniature is trained for this use (`raccoon.tasks.clip`): a
patch's feature after the last layer norm and the visual projection is compared with a phrase's embedding. A CLIP that
was trained on whole images only gives coarse maps this way.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from raccoon.models.vision import Dtype, check_loaded, checked_frames, clip_folder, clip_pixels


@runtime_checkable
class ImageTextEncoder(Protocol):
    """What a grounder needs: patches and phrases as unit vectors whose product says how well they fit.

    ``image_size`` is the side of the square image it looks at, ``logit_scale`` what the product is multiplied by
    before a softmax over phrases.
    """

    image_size: int
    logit_scale: float

    def encode_patches(self, frames: Tensor, /) -> Tensor:
        """Frames [F, 3, H, W] float in [0, 1] to unit vectors [F, h, w, e]."""
        ...

    def encode_text(self, texts: Sequence[str], /) -> Tensor:
        """Texts to unit vectors [P, e] on the same device."""
        ...


class ClipImageText(nn.Module):
    """A CLIPModel and its tokenizer as an `ImageTextEncoder`.

    Args:
        model: a `transformers.CLIPModel`.
        tokenizer: the one that its text encoder was trained with.
        chunk_size: frames or texts that a network sees at once.
    """

    def __init__(self, model: Any, tokenizer: Any, *, chunk_size: int = 64) -> None:
        super().__init__()
        self.clip = model
        self.tokenizer = tokenizer
        self.chunk_size = chunk_size
        self.image_size: int = self.clip.config.vision_config.image_size
        self.max_length = self.clip.config.text_config.max_position_embeddings

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, revision: str | None = None, dtype: Dtype | None = None
    ) -> "ClipImageText":
        """Load a CLIPModel with its tokenizer, frozen and in evaluation mode; nothing is downloaded.

        Args:
            source: a folder that holds both, as `raccoon.tasks.clip.ClipTask.export` writes it, shipped weights
                ("tiny/clip"), or a hub id that was fetched before.
            revision: of the hub id.
            dtype: of the weights; None for the one they are stored in.

        Raises:
            FileNotFoundError: if the folder or the hub id's files are not here.
            ValueError: if what is there is no CLIP with a text side, or lacks weights.
        """
        from transformers import AutoTokenizer, CLIPModel

        folder, _ = clip_folder(source, revision=revision, kinds=("clip",))
        model, report = CLIPModel.from_pretrained(
            folder, dtype=dtype or "auto", local_files_only=True, output_loading_info=True
        )
        check_loaded(source, report)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return cls(model, tokenizer).eval().requires_grad_(False)

    @property
    def logit_scale(self) -> float:
        """What a product is multiplied by before a softmax."""
        return float(self.clip.logit_scale.detach().float().exp())

    def encode_patches(self, frames: Tensor, /) -> Tensor:
        """Frames [F, 3, H, W] floating in [0, 1], any size, to unit vectors [F, h, w, e] float32.

        Raises:
            ValueError: if frames is not [F, 3, H, W] with F >= 1.
            TypeError: if frames is not floating.
        """
        parts = []
        for part in checked_frames(frames).split(self.chunk_size):
            pixels = clip_pixels(part, self.image_size).to(self.clip.dtype)
            states = self.clip.vision_model(pixel_values=pixels).last_hidden_state[:, 1:]
            parts.append(functional.normalize(project_patches(self.clip, states).float(), dim=-1))
        patches = torch.cat(parts)
        side = round(patches.shape[1] ** 0.5)
        return patches.unflatten(1, (side, side))

    def encode_text(self, texts: Sequence[str], /) -> Tensor:
        """Texts to unit vectors [P, e] float32; what is too long for the network is cut.

        Raises:
            ValueError: if there is no text.
        """
        if not texts:
            raise ValueError("at least one text is needed, got none")
        found = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        parts = []
        for ids in found["input_ids"].to(self.clip.device).split(self.chunk_size):
            pooled = self.clip.text_model(input_ids=ids).pooler_output
            parts.append(functional.normalize(self.clip.text_projection(pooled).float(), dim=-1))
        return torch.cat(parts)


def project_patches(clip: Any, states: Tensor) -> Tensor:
    """Patch states [F, n, d] of a CLIPModel's last layer to the joint space [F, n, e], not normalised."""
    projected: Tensor = clip.visual_projection(clip.vision_model.post_layernorm(states))
    return projected
