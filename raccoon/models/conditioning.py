"""What the inpainting UNet is shown besides the noise: one function for training and sampling.

The authors' training and inference code disagree about the order of channels, what 1 means in the mask, whether pixels
or latents are masked, and whether the boxes of an added object hide anything (docs/differences.md). Here these are
data, a `Scheme`, and both sides call `inpainting_condition`.

The functions that turn frames into latents, prompts into text features and latents into a prediction stand here too,
for the same reason. Shape letters: `raccoon_datamodules.batch`; ``h w`` are latent pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from raccoon.models.temporal_unet import TemporalUNet

Part = Literal["noise", "mask", "masked"]


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a UNet was taught to see what it must keep.

    ``order`` of the channels; ``one_is_repaint`` or keep in the mask channel; ``masked_in`` pixels (grey where the mask
    is) or latents (zero there); ``masks_added`` whether the boxes of an added object hide what is behind them;
    ``mask_resize`` to latent size: "any" marks a latent pixel that covers any masked pixel, so that nothing masked
    leaks through a border, "nearest" looks at one pixel of it.
    """

    order: tuple[Part, Part, Part]
    one_is_repaint: bool
    masked_in: Literal["pixels", "latents"]
    masks_added: bool
    mask_resize: Literal["any", "nearest"]


SCHEMES = {
    # Stable Diffusion's inpainting models; the paper's inference.
    "sd": Scheme(("noise", "mask", "masked"), True, "pixels", True, "any"),
    # What the released RACCooN UNet was trained with.
    "raccoon_trained": Scheme(("noise", "masked", "mask"), False, "latents", False, "nearest"),
}


@dataclass(frozen=True, slots=True, eq=False)
class InpaintingCondition:
    """The condition of a batch of clips: ``masked`` latents [B, F, C, h, w], ``mask`` channel [B, F, 1, h, w]."""

    masked: Tensor
    mask: Tensor
    order: tuple[Part, Part, Part]

    def with_noise(self, noisy: Tensor) -> Tensor:
        """The UNet's input [B, F, 2 C + 1, h, w] for noisy latents [B, F, C, h, w]."""
        parts: dict[Part, Tensor] = {"noise": noisy, "mask": self.mask, "masked": self.masked}
        return torch.cat([parts[name].to(noisy.dtype) for name in self.order], dim=2)

    def as_images(self) -> "InpaintingCondition":
        """Every frame as a clip of its own: [B * F, 1, ...]."""
        masked, mask = (part.flatten(0, 1).unsqueeze(1) for part in (self.masked, self.mask))
        return InpaintingCondition(masked, mask, self.order)

    def frames(self, numbers: Sequence[int]) -> "InpaintingCondition":
        """The condition of some of the frames."""
        return InpaintingCondition(self.masked[:, numbers], self.mask[:, numbers], self.order)


def scheme_named(name: str) -> Scheme:
    """Return the scheme of a name.

    Raises:
        ValueError: if there is none; names those there are.
    """
    if name not in SCHEMES:
        raise ValueError(f"conditioning must be one of {', '.join(SCHEMES)}, got {name!r}")
    return SCHEMES[name]


def inpainting_condition(
    condition: Tensor, edit_mask: Tensor, kinds: Sequence[str], *, vae: Any, scheme: Scheme
) -> InpaintingCondition:
    """Mask and encode the clips that the edits start from.

    Args:
        condition: unmasked clips [B, F, 3, H, W] in [-1, 1].
        edit_mask: {0, 1} [B, F, 1, H, W], 1 = edit here.
        kinds: "remove", "add" or "change" for each clip.
        vae: the autoencoder, see `encode_frames`.
        scheme: what the UNet was or will be trained with.

    Raises:
        ValueError: if the shapes do not belong together.
    """
    batch, _, _, height, width = condition.shape
    if edit_mask.shape != (batch, condition.shape[1], 1, height, width) or len(kinds) != batch:
        raise ValueError(
            f"edit_mask must be [B, F, 1, H, W] for a condition {list(condition.shape)} and there must be one kind a "
            f"clip, got a mask {list(edit_mask.shape)} and {len(kinds)} kinds"
        )
    hidden = edit_mask.to(condition.dtype)
    hides = _hides(kinds, hidden, scheme)
    if scheme.masked_in == "pixels":
        latents = encode_frames(vae, condition * (1 - hidden * hides))
    else:
        latents = encode_frames(vae, condition)
    return condition_of_latents(latents, edit_mask, kinds, scheme=scheme)


def condition_of_latents(
    latents: Tensor, edit_mask: Tensor, kinds: Sequence[str], *, scheme: Scheme
) -> InpaintingCondition:
    """What `inpainting_condition` returns, from latents [B, F, C, h, w] that were computed before.

    They are those of the masked frames where the scheme masks pixels, and of the unmasked ones where it masks latents.
    """
    hidden = edit_mask.to(latents.dtype)
    mask = _to_latent_size(hidden, latents.shape[-2:], scheme.mask_resize)
    if scheme.masked_in == "latents":
        latents = latents * (1 - mask * _hides(kinds, hidden, scheme))
    return InpaintingCondition(latents, mask if scheme.one_is_repaint else 1 - mask, scheme.order)


def _hides(kinds: Sequence[str], like: Tensor, scheme: Scheme) -> Tensor:
    """For each clip, 1 if its mask hides what is behind it: [B, 1, 1, 1, 1]."""
    hides = [scheme.masks_added or kind != "add" for kind in kinds]
    return torch.tensor(hides, dtype=like.dtype, device=like.device).view(-1, 1, 1, 1, 1)


def _to_latent_size(mask: Tensor, size: torch.Size, method: Literal["any", "nearest"]) -> Tensor:
    flat = mask.flatten(0, 1)
    if method == "any":
        resized = functional.adaptive_max_pool2d(flat, (size[0], size[1]))
    else:
        resized = functional.interpolate(flat, size=tuple(size), mode="nearest")
    return resized.view(*mask.shape[:2], 1, *size)


def encode_frames(vae: Any, frames: Tensor, *, chunk: int = 512) -> Tensor:
    """Frames [..., 3, H, W] in [-1, 1] to normalised latents [..., C, h, w].

    The posterior's mean is taken, not a draw: the same clip has the same latents. (The released code draws.)
    """
    flat = frames.flatten(0, -4).to(next(vae.parameters()).dtype)
    latents = torch.cat([vae.encode(part).latent_dist.mode() for part in flat.split(chunk)])
    mean, std = latent_statistics(vae)
    latents = (latents - mean.to(latents)) / std.to(latents)
    return latents.view(*frames.shape[:-3], *latents.shape[1:])


def decode_frames(vae: Any, latents: Tensor, *, chunk: int = 16) -> Tensor:
    """Normalised latents [..., C, h, w] to frames [..., 3, H, W], about [-1, 1] and not clipped."""
    flat = latents.flatten(0, -4).to(next(vae.parameters()).dtype)
    mean, std = latent_statistics(vae)
    flat = flat * std.to(flat) + mean.to(flat)
    frames = torch.cat([vae.decode(part).sample for part in flat.split(chunk)])
    return frames.view(*latents.shape[:-3], *frames.shape[1:])


def latent_statistics(vae: Any) -> tuple[Tensor, Tensor]:
    """(mean, std) [1, C, 1, 1] that normalise a VAE's latents.

    Per channel if its configuration holds ``latents_mean`` and ``latents_std``, as our trained ones do, else from its
    ``shift_factor`` and ``scaling_factor``.
    """
    config = vae.config
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is not None and std is not None:
        means, stds = torch.tensor(mean), torch.tensor(std)
        return means.view(1, -1, 1, 1), stds.view(1, -1, 1, 1) / config.scaling_factor
    shift = getattr(config, "shift_factor", None) or 0.0
    return torch.full((1, 1, 1, 1), shift), torch.full((1, 1, 1, 1), 1.0 / config.scaling_factor)


def encode_prompts(text_encoder: Any, tokenizer: Any, prompts: Sequence[str]) -> Tensor:
    """Text features [B, L, d] of the prompts, each padded or cut to the text encoder's length (77 for CLIP).

    Equal prompts are encoded once. The length does not depend on the batch, so neither do the features.
    """
    distinct = list(dict.fromkeys(prompts))
    length = text_encoder.config.max_position_embeddings
    ids = tokenizer(distinct, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    features = text_encoder(ids.to(next(text_encoder.parameters()).device)).last_hidden_state
    return features[[distinct.index(prompt) for prompt in prompts]]


def predict(unet: nn.Module, model_input: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
    """The UNet's prediction [B, F, C, h, w].

    Args:
        unet: a `TemporalUNet`, or an image UNet, to which every frame is an image.
        model_input: [B, F, 2 C + 1, h, w], see `InpaintingCondition.with_noise`.
        timesteps: [B].
        text: [B, L, d].
    """
    num_frames = model_input.shape[1]
    folded = model_input.flatten(0, 1)
    steps, texts = timesteps.repeat_interleave(num_frames), text.repeat_interleave(num_frames, dim=0)
    inner = getattr(unet, "module", unet)
    if isinstance(inner, TemporalUNet):
        out = unet(folded, steps, texts, num_frames=num_frames, return_dict=False)[0]
    else:
        out = unet(folded, steps, texts, return_dict=False)[0]
    return out.view(*model_input.shape[:2], *out.shape[1:])
