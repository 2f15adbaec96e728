"""The painter of the paper: a video inpainting diffusion model, sampled in a few deterministic steps.

`P2VPipeline` works on tensors and is saved and loaded as a folder in the diffusers layout; `InpaintingPainter` is the
plug point. Clips longer than a window are denoised in overlapping windows whose predictions are blended at every step,
so there is one trajectory for the whole clip and no seam. The noise of a frame depends on the seed and the frame's
number alone.
Source: RACCooN, section 3.2 and 3.3; blending: Bar-Tal et al., "MultiDiffusion", 2023.
"""

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline

# `DiffusionPipeline.save_pretrained` looks for this name in the module of a pipeline.
from diffusers.models.modeling_utils import ModelMixin
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

import raccoon
from raccoon.interfaces import PaintRequest
from raccoon.models.conditioning import (
    decode_frames,
    encode_prompts,
    inpainting_condition,
    predict,
    scheme_named,
)
from raccoon.models.harmonize import match_surround
from raccoon.models.p2v_parts import P2VParts, cast, weight_files, weights_folder
from raccoon.provenance import hash_file
from raccoon_datamodules.order import torch_draw
from raccoon_datamodules.pixels import resize, resize_mask
from raccoon_datamodules.sample import EditKind

__all__ = ["InpaintingPainter", "ModelMixin", "P2VPipeline"]

SHIPPED = "tiny"
_TRAINS_SHIPPED = "raccoon fit --config p2v/tiny"


class P2VPipeline(DiffusionPipeline):
    """A clip, a mask and a prompt to the edited clip.

    Args:
        vae: autoencoder of frames.
        text_encoder: CLIP text encoder.
        tokenizer: its tokenizer.
        unet: a `TemporalUNet`, or an image UNet, which edits each frame on its own.
        scheduler: a noise schedule of diffusers.
        conditioning: the scheme the UNet was trained with, see `conditioning.SCHEMES`.
    """

    def __init__(
        self, vae: AutoencoderKL, text_encoder: Any, tokenizer: Any, unet: Any, scheduler: Any, conditioning: str = "sd"
    ) -> None:
        super().__init__()
        scheme_named(conditioning)
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)
        self.register_to_config(conditioning=conditioning)
        self.set_progress_bar_config(disable=True)

    @classmethod
    def from_pretrained(
        cls, weights: str | Path, *, revision: str | None = None, conditioning: str | None = None
    ) -> "P2VPipeline":
        """Load from a folder in the diffusers layout or the local hub cache, in float32.

        `DiffusionPipeline.from_pretrained` cannot find a UNet class that is not diffusers' own. Raises as `P2VParts`.
        """
        return cls.from_parts(P2VParts(str(weights), revision=revision, conditioning=conditioning).eval())

    @classmethod
    def from_parts(cls, parts: P2VParts) -> "P2VPipeline":
        """A pipeline over the very modules of a network, to sample while it trains."""
        return cls(
            vae=parts.vae,
            text_encoder=parts.text_encoder,
            tokenizer=parts.tokenizer,
            unet=parts.unet,
            scheduler=parts.scheduler,
            conditioning=parts.conditioning,
        )

    @torch.no_grad()
    def __call__(
        self,
        frames: Tensor,
        mask: Tensor,
        prompt: str,
        *,
        kind: EditKind = "change",
        num_inference_steps: int = 8,
        guidance_scale: float = 1.0,
        seed: int = 0,
        window: int = 16,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Edit a clip.

        Args:
            frames: float [F, 3, H, W] in [0, 1]; any size, it is padded to what VAE and UNet can halve.
            mask: {0, 1} [F, H, W], 1 = repaint.
            prompt: what to paint there.
            kind: "remove", "add" or "change"; some conditioning schemes treat "add" differently.
            num_inference_steps: denoising steps.
            guidance_scale: classifier-free guidance against the empty prompt; 1 = none, at half the price.
            seed: of the noise; the same on every device.
            window: frames denoised at once; longer clips go in windows that overlap by half.
            progress: called with (done, all) after each window of each step.

        Returns:
            float32 [F, 3, H, W] in [0, 1] on the CPU; the frames outside the mask went through the VAE.

        Raises:
            ValueError: if the shapes do not belong together, the clip is empty, or a number is below 1.
        """
        num_frames, _, height, width = frames.shape
        if mask.shape != (num_frames, height, width) or num_frames < 1:
            raise ValueError(
                f"mask must be [F, H, W] for frames [F, 3, H, W] with F >= 1, got frames {list(frames.shape)} and a "
                f"mask {list(mask.shape)}"
            )
        if num_inference_steps < 1 or window < 1:
            raise ValueError(
                f"num_inference_steps and window must be at least 1, got {num_inference_steps} and {window}"
            )
        unet, vae = self.unet, self.vae
        device, dtype = unet.device, unet.dtype
        clip, hidden = self._padded(frames, mask)
        condition = inpainting_condition(
            (clip * 2 - 1)[None].to(device),
            hidden[None].to(device),
            [kind],
            vae=vae,
            scheme=scheme_named(self.config.conditioning),
        )
        prompts = [prompt] if guidance_scale == 1.0 else ["", prompt]
        text = encode_prompts(self.text_encoder, self.tokenizer, prompts).to(dtype)

        scheduler = copy.deepcopy(self.scheduler)
        scheduler.set_timesteps(num_inference_steps, device=device)
        # Some schedules (DDPM) draw noise at every step.
        extra = {"generator": torch_draw(seed, 0, "p2v/steps")} if _takes_generator(scheduler.step) else {}
        size = condition.masked.shape[-3:]
        noise = [torch.randn(size, generator=torch_draw(seed, number, "p2v/noise")) for number in range(num_frames)]
        latents = torch.stack(noise)[None].to(device) * scheduler.init_noise_sigma
        windows = _windows(num_frames, window)
        total, done = len(scheduler.timesteps) * len(windows), 0
        for step in scheduler.timesteps:
            scaled = scheduler.scale_model_input(latents, step)
            blended, weights = torch.zeros_like(latents), latents.new_zeros(1, num_frames, 1, 1, 1)
            for numbers in windows:
                shown = condition.frames(numbers).with_noise(scaled[:, numbers]).to(dtype)
                every = predict(unet, shown.expand(len(prompts), -1, -1, -1, -1), step.expand(len(prompts)), text)
                # With guidance: unconditioned + scale * (conditioned - unconditioned); without, the prediction itself.
                guided = every[:1].float()
                if len(prompts) == 2:
                    guided = guided + guidance_scale * (every[1:].float() - guided)
                weight = _tent(len(numbers), device)
                blended[:, numbers] += guided * weight
                weights[:, numbers] += weight
                done += 1
                if progress is not None:
                    progress(done, total)
            latents = scheduler.step(blended / weights, step, latents, **extra, return_dict=False)[0]
        out = decode_frames(vae, latents[0])[..., :height, :width]
        return (out.float() / 2 + 0.5).clamp(0, 1).cpu()

    def _padded(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Frames [F, 3, H', W'] and mask [F, 1, H', W'], padded below and to the right; the padding is kept."""
        halvings = len(self.vae.config.block_out_channels) - 1 + len(self.unet.config.block_out_channels) - 1
        multiple = 2**halvings
        height, width = frames.shape[-2:]
        padding = (0, -width % multiple, 0, -height % multiple)
        return functional.pad(frames.float(), padding, mode="replicate"), functional.pad(mask[:, None].float(), padding)


def _takes_generator(step: Callable[..., Any]) -> bool:
    return "generator" in inspect.signature(step).parameters


def _windows(num_frames: int, window: int) -> list[list[int]]:
    """Frame numbers of each window: all frames, or windows that overlap by half, the last one up against the end."""
    if num_frames <= window:
        return [list(range(num_frames))]
    stride = max(1, window // 2)
    starts = [*range(0, num_frames - window, stride), num_frames - window]
    return [list(range(start, start + window)) for start in starts]


def _tent(count: int, device: torch.device) -> Tensor:
    """Weights [1, count, 1, 1, 1] that fall towards both ends of a window, so that windows fade into each other."""
    places = torch.arange(count, device=device)
    return torch.minimum(places + 1, count - places).float().view(1, -1, 1, 1, 1)


class InpaintingPainter:
    """Removes, adds and changes objects by the inpainting UNet of a folder.

    Args:
        weights: folder or hub id in the diffusers layout; "tiny" is the miniature that comes with the package.
        revision: commit of a hub model.
        num_inference_steps: denoising steps.
        guidance_scale: see `P2VPipeline`; 1 = none.
        size: (height, width) to work at; None = the video's own. A request's size goes before it.
        window: see `P2VPipeline`.
        conditioning: None = as the weights say.
        surround: whether to correct the slight shift of colour that the VAE causes, see `match_surround`.
        dtype: of UNet and text encoder; the VAE stays in float32. "auto" = bfloat16 on CUDA, float32 elsewhere.
        device: "auto" = CUDA if there is one.

    Raises:
        FileNotFoundError: if the weights are not there.
        ValueError: if a number is out of range, or as `P2VParts`.
    """

    kinds: frozenset[EditKind] = frozenset({"remove", "add", "change"})

    def __init__(
        self,
        weights: str = SHIPPED,
        *,
        revision: str | None = None,
        num_inference_steps: int = 8,
        guidance_scale: float = 1.0,
        size: tuple[int, int] | None = None,
        window: int = 16,
        conditioning: str | None = None,
        surround: bool = True,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        device: str = "auto",
    ) -> None:
        if num_inference_steps < 1 or window < 1:
            raise ValueError(
                f"num_inference_steps and window must be at least 1, got {num_inference_steps} and {window}"
            )
        if weights == SHIPPED:
            shipped = Path(raccoon.__file__).parent / "weights" / "tiny" / "p2v"
            self.folder = weights_folder(shipped, command=_TRAINS_SHIPPED)
        else:
            self.folder = weights_folder(weights, revision=revision)
        self.weights, self.revision = weights, revision
        self.num_inference_steps = num_inference_steps
        self.guidance_scale = guidance_scale
        self.size = size
        self.window = window
        self.surround = surround
        where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        kind = ("bfloat16" if where.startswith("cuda") else "float32") if dtype == "auto" else dtype
        self.pipeline = P2VPipeline.from_pretrained(self.folder, conditioning=conditioning)
        cast(self.pipeline.unet, getattr(torch, kind), where)
        cast(self.pipeline.text_encoder, getattr(torch, kind), where)
        self.pipeline.vae.to(where)
        self._facts: dict[str, Any] | None = None

    def paint(self, request: PaintRequest, /) -> NDArray[np.uint8]:
        """Repaint the mask; what lies outside it went through the VAE and is for the editor to replace.

        ``options`` may set ``num_inference_steps`` and ``guidance_scale``; ``progress`` counts windows of steps.

        Returns:
            uint8 [F, H, W, 3] of the video's size.

        Raises:
            ValueError: if the mask has not the video's shape or an option is unknown.
        """
        video = request.video.frames
        if request.mask.shape != video.shape[:3]:
            raise ValueError(
                f"mask must be [F, H, W] like the video's {list(video.shape[:3])}, got {list(request.mask.shape)}; one "
                "mask per frame is needed"
            )
        settings = {"num_inference_steps": self.num_inference_steps, "guidance_scale": self.guidance_scale}
        if strangers := sorted(set(request.options) - set(settings)):
            raise ValueError(f"InpaintingPainter has no option {strangers[0]!r}; its options are {', '.join(settings)}")
        settings.update(request.options)
        native = (video.shape[1], video.shape[2])
        size = tuple(request.size or self.size or native)
        frames = torch.from_numpy(resize(video, (size[0], size[1]))).permute(0, 3, 1, 2).float() / 255
        mask = torch.from_numpy(resize_mask(request.mask, (size[0], size[1])))
        painted = self.pipeline(
            frames,
            mask,
            request.prompt,
            kind=request.kind,
            seed=request.seed,
            window=self.window,
            progress=request.progress,
            num_inference_steps=int(settings["num_inference_steps"]),
            guidance_scale=float(settings["guidance_scale"]),
        )
        if self.surround:
            painted = match_surround(painted, frames, mask)
        pixels = (painted * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        return np.ascontiguousarray(resize(pixels, native))

    def provenance(self) -> dict[str, Any]:
        """The weights' name and hashes, and the settings that decide about pixels; for the sidecar of a result."""
        if self._facts is None:
            self._facts = {name: hash_file(file) for name, file in weight_files(self.folder).items()}
        return {
            "weights": self.weights,
            "revision": self.revision,
            "sha256": self._facts,
            "conditioning": self.pipeline.config.conditioning,
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
            "window": self.window,
            "size": None if self.size is None else list(self.size),
            "surround": self.surround,
            "device": str(self.pipeline.unet.device),
            "dtype": str(self.pipeline.unet.dtype),
        }
