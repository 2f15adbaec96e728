"""The painter's training (paper, section 3.3): noise prediction by the inpainting UNet, frozen VAE and text encoder.

The image inpainting model that the paper takes as given is the same task with ``as_images``: every frame of a clip is
an image of its own. The three input-output combinations (remove, add, change) are made by the datamodule; how they
become the UNet's input is `raccoon.models.conditioning`, for training and sampling alike.
"""

import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from raccoon.models.conditioning import (
    InpaintingCondition,
    condition_of_latents,
    encode_frames,
    encode_prompts,
    inpainting_condition,
    predict,
    scheme_named,
)
from raccoon.models.inpainter import P2VPipeline
from raccoon.models.p2v_parts import P2VParts
from raccoon.models.temporal_unet import is_temporal
from raccoon.tasks.cache_features import link_cache, p2v_model
from raccoon.tasks.ema import WeightAverage
from raccoon.tasks.optim import OptimizerSettings, configure
from raccoon.tasks.run_log import mean_over_ranks
from raccoon_datamodules.batch import P2VBatch, P2VLatentBatch
from raccoon_datamodules.order import torch_draw

Trainable = Literal["all", "paper", "released"]

_FROZEN = ("network.vae.", "network.text_encoder.")


class P2VTask(pl.LightningModule):
    """Trains the UNet of `P2VParts` on `P2VBatch`, or on `P2VLatentBatch`, whose frozen parts are from a cache.

    Logs ``train/loss``, ``val/loss``, ``val/loss_remove`` (``add``, ``change``), and with ``val_sample_clips`` also
    ``val/psnr_remove``: dB inside the mask, averaged over sampled clips, before any pasting back. Figures by task are
    those of the first rank: another one may have no such task in its batch. A test logs the same under ``test/``.

    Args:
        network: the painter's parts.
        optimizer: see `raccoon.tasks.optim`.
        trainable: "paper" = temporal layers and the query projections of self- and cross-attention; "released" and
            "all" = the whole UNet, as the released code really does.
        as_images: train every frame as an image of its own.
        seed: of noise, timesteps and dropout; each is drawn by (seed, ordinal).
        text_dropout: share of samples whose prompt is emptied, which classifier-free guidance needs.
        min_snr_gamma: caps the weight of timesteps with little noise (Hang et al., 2023); None = plain MSE.
        ema_decay: of the moving average of weights that is validated and exported; None = no average.
        val_sample_clips: "remove" clips that each validation (of each rank) samples.
        val_sample_steps: denoising steps for them.
        gradient_checkpointing: recompute the UNet's activations in the backward pass.
        channels_last: memory layout; faster convolutions on CUDA.
        compile_unet: run the UNet through torch.compile.
        text_reference: where the exported folder finds text encoder and tokenizer, relative to itself ("../clip"),
            instead of holding them.

    Raises:
        ValueError: if ``trainable`` is unknown, or "paper" is asked of a UNet that does not see time.
    """

    def __init__(
        self,
        network: P2VParts,
        optimizer: OptimizerSettings,
        *,
        trainable: Trainable = "paper",
        as_images: bool = False,
        seed: int = 0,
        text_dropout: float = 0.0,
        min_snr_gamma: float | None = None,
        ema_decay: float | None = None,
        val_sample_clips: int = 0,
        val_sample_steps: int = 8,
        gradient_checkpointing: bool = False,
        channels_last: bool = False,
        compile_unet: bool = False,
        text_reference: str | None = None,
    ) -> None:
        super().__init__()
        self.text_reference = text_reference
        self.network = network
        self.optimizer = optimizer
        self.as_images = as_images
        self.seed = seed
        self.text_dropout = text_dropout
        self.min_snr_gamma = min_snr_gamma
        self.val_sample_clips = val_sample_clips
        self.val_sample_steps = val_sample_steps
        choose_trainable(network.unet, trainable)
        if gradient_checkpointing:
            network.unet.enable_gradient_checkpointing()
        if channels_last:
            network.unet.to(memory_format=torch.channels_last)
        self._predict = torch.compile(predict) if compile_unet else predict
        # Noise is added by the same table of variances, whichever method samples.
        self._schedule = DDPMScheduler.from_config(network.scheduler.config)
        self._average = None if ema_decay is None else WeightAverage(network.unet, ema_decay)
        self._averaged_step = 0
        self._sampled = 0

    def forward(self, noisy: Tensor, condition: Any, timesteps: Tensor, text: Tensor) -> Tensor:
        """The UNet's prediction [B, F, C, h, w] for noisy latents [B, F, C, h, w]."""
        return self._predict(self.network.unet, condition.with_noise(noisy), timesteps, text)

    def setup(self, stage: str) -> None:
        """Tell the datamodule what its cache must be of, if it has one."""
        link_cache(self, lambda: p2v_model(self.network))

    def training_step(self, batch: P2VBatch | P2VLatentBatch, batch_idx: int) -> Tensor:
        """One batch."""
        loss = self._step(batch, "p2v/train", dropout=self.text_dropout).mean()
        self.log("train/loss", mean_over_ranks(self, loss), prog_bar=True, batch_size=len(batch.key))
        return loss

    def validation_step(self, batch: P2VBatch, batch_idx: int) -> None:
        """The loss of each task with the same noise at each validation, and some sampled clips."""
        self._measure(batch, "val")

    def test_step(self, batch: P2VBatch, batch_idx: int) -> None:
        """As a validation step."""
        self._measure(batch, "test")

    def _measure(self, batch: P2VBatch, use: str) -> None:
        batch = batch.floats()
        with self._averaged():
            losses = self._step(batch, f"p2v/{use}", dropout=0.0).view(len(batch.task), -1).mean(dim=1)
            self.log(f"{use}/loss", losses.mean(), prog_bar=True, batch_size=len(losses), sync_dist=True)
            for task in ("remove", "add", "change"):
                chosen = [i for i, name in enumerate(batch.task) if name == task]
                if chosen:
                    self.log(f"{use}/loss_{task}", losses[chosen].mean(), batch_size=len(chosen), rank_zero_only=True)
            for i, task in enumerate(batch.task):
                if task == "remove" and self._sampled < self.val_sample_clips:
                    self._sampled += 1
                    psnr = self._sample_psnr(batch, i)
                    self.log(f"{use}/psnr_remove", psnr, prog_bar=True, batch_size=1, rank_zero_only=True)

    def on_fit_start(self) -> None:
        """Let Lightning start without remarking that the frozen parts are in evaluation mode: they are meant to be."""
        self.network.train()
        warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")

    def on_validation_epoch_start(self) -> None:
        """Every validation samples the same clips."""
        self._sampled = 0

    def on_test_epoch_start(self) -> None:
        """As before a validation."""
        self.on_validation_epoch_start()

    def configure_optimizers(self) -> Any:
        """See `raccoon.tasks.optim`; only what trains gets an optimizer state."""
        return configure(self.network.unet, self.optimizer, max_steps=self.trainer.max_steps)

    def on_train_batch_end(self, outputs: Any, batch: P2VBatch, batch_idx: int) -> None:
        """Move the average of weights after each optimizer step."""
        if self._average is not None and self.global_step != self._averaged_step:
            self._averaged_step = self.global_step
            self._average.update()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen parts out, which the recipe names, and put the average in."""
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key: value for key, value in state.items() if not key.startswith(_FROZEN)}
        if self._average is not None:
            checkpoint["weight_average"] = self._average.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the frozen parts from the recipe, and the average from the checkpoint."""
        own = self.state_dict()
        checkpoint["state_dict"].update({key: value for key, value in own.items() if key.startswith(_FROZEN)})
        if self._average is not None and "weight_average" in checkpoint:
            self._average.load_state_dict(checkpoint["weight_average"])
            self._averaged_step = int(checkpoint.get("global_step", 0))

    def export(self, folder: str | Path, *, dtype: torch.dtype = torch.float16) -> None:
        """Write the painter in the diffusers layout, with the averaged weights if there are any."""
        with self._averaged():
            self.network.save_pretrained(folder, dtype=dtype, text=self.text_reference)

    def _step(self, batch: P2VBatch | P2VLatentBatch, purpose: str, *, dropout: float) -> Tensor:
        """Loss of each clip [B], or of each frame [B * F] as images."""
        batch = batch.floats()
        device = batch.target.device
        draws = [torch_draw(self.seed, ordinal, purpose) for ordinal in batch.ordinal.tolist()]
        prompts = [
            "" if dropout and torch.rand((), generator=draw).item() < dropout else prompt
            for draw, prompt in zip(draws, batch.prompt, strict=True)
        ]
        # In float32: the half-precision error of a latent is as large as the noise of the last steps.
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            latents, condition, text = self._encoded(batch, prompts)
        num_frames = latents.shape[1]
        count, steps = num_frames if self.as_images else 1, self._schedule.config.num_train_timesteps
        noise = torch.stack([torch.randn(latents.shape[1:], generator=draw) for draw in draws]).to(device)
        timesteps = torch.stack([torch.randint(steps, (count,), generator=draw) for draw in draws]).to(device)
        if self.as_images:
            latents, noise, timesteps = (x.flatten(0, 1).unsqueeze(1) for x in (latents, noise, timesteps))
            condition = condition.as_images()
            text = text.repeat_interleave(num_frames, dim=0)
        timesteps = timesteps.flatten()
        noisy = self._schedule.add_noise(latents, noise, timesteps)
        predicted = self(noisy, condition, timesteps, text).float()
        wanted = self._wanted(latents, noise, timesteps)
        return (predicted - wanted).pow(2).flatten(1).mean(dim=1) * self._weights(timesteps)

    def _encoded(
        self, batch: P2VBatch | P2VLatentBatch, prompts: list[str]
    ) -> tuple[Tensor, InpaintingCondition, Tensor]:
        """What the frozen parts make of a batch, or made of it when the cache was written."""
        network, scheme = self.network, scheme_named(self.network.conditioning)
        if isinstance(batch, P2VBatch):
            latents = encode_frames(network.vae, batch.target).float()
            condition = inpainting_condition(
                batch.condition, batch.edit_mask, batch.task, vae=network.vae, scheme=scheme
            )
            return latents, condition, encode_prompts(network.text_encoder, network.tokenizer, prompts)
        dtype = next(network.vae.parameters()).dtype
        condition = condition_of_latents(batch.condition.to(dtype), batch.edit_mask, batch.task, scheme=scheme)
        text = batch.text.to(next(network.text_encoder.parameters()).dtype)
        dropped = [i for i, prompt in enumerate(prompts) if prompt != batch.prompt[i]]
        if dropped:
            text[dropped] = encode_prompts(network.text_encoder, network.tokenizer, [""])
        return batch.target.float(), condition, text

    def _wanted(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        kind = self._schedule.config.prediction_type
        if kind == "epsilon":
            return noise
        if kind == "v_prediction":
            return self._schedule.get_velocity(latents, noise, timesteps)
        raise ValueError(f"the scheduler's prediction_type must be epsilon or v_prediction, got {kind!r}")

    def _weights(self, timesteps: Tensor) -> Tensor | float:
        if self.min_snr_gamma is None:
            return 1.0
        kept = self._schedule.alphas_cumprod.to(timesteps.device)[timesteps]
        ratio = (kept / (1 - kept)).clamp_min(1e-4)
        capped = ratio.clamp_max(self.min_snr_gamma)
        return capped / (ratio if self._schedule.config.prediction_type == "epsilon" else ratio + 1)

    def _sample_psnr(self, batch: P2VBatch, i: int) -> Tensor:
        pipeline = P2VPipeline.from_parts(self.network)
        device = batch.target.device
        mask = batch.edit_mask[i, :, 0]
        with torch.autocast(device.type, enabled=False):
            painted = pipeline(
                batch.condition[i] / 2 + 0.5,
                mask,
                batch.prompt[i],
                kind="remove",
                num_inference_steps=self.val_sample_steps,
                seed=self.seed,
                window=len(mask),
            ).to(device)
        inside = mask.bool()[:, None].expand_as(painted)
        return -10 * torch.log10((painted - (batch.target[i] / 2 + 0.5))[inside].pow(2).mean().clamp_min(1e-10))

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self._average is None else self._average.applied()


def choose_trainable(unet: Any, trainable: Trainable) -> None:
    """Set which parameters of a UNet train.

    Raises:
        ValueError: if the choice is unknown, or "paper" is asked of a UNet without temporal layers.

    Source: RACCooN, section 3.3; the released code trains the whole UNet (docs/differences.md).
    """
    if trainable not in ("all", "paper", "released"):
        raise ValueError(f"trainable must be all, paper or released, got {trainable!r}")
    if trainable == "paper" and not any(is_temporal(name) for name, _ in unet.named_parameters()):
        raise ValueError("trainable: paper needs a UNet with temporal layers; set the network's temporal to true")
    for name, parameter in unet.named_parameters():
        query = name.endswith((".attn1.to_q.weight", ".attn2.to_q.weight"))
        parameter.requires_grad_(trainable != "paper" or query or is_temporal(name))
