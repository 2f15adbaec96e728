"""Pre-training of the autoencoder that the paper takes as given: frames of the clips to latents and back."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from raccoon.models.p2v_parts import cast
from raccoon.tasks.optim import OptimizerSettings, configure
from raccoon.tasks.run_log import mean_over_ranks
from raccoon_datamodules.batch import P2VBatch
from raccoon_datamodules.order import torch_draw

# Of the running mean and variance of the latents: about the last hundred batches, those of the lowest learning rate.
_MOMENTUM = 0.01


class VAETask(pl.LightningModule):
    """Trains an `AutoencoderKL` on the frames of `P2VBatch.target`.

    Logs ``train/loss``, ``train/reconstruction`` (mean absolute error in [-1, 1]), ``train/kl`` (nats a latent number),
    ``val/loss`` and ``val/psnr`` (dB, of the posterior's mean, over all pixels of the validation batches);
    a test logs the same under ``test/``.

    Args:
        vae: the configuration of the `AutoencoderKL`.
        optimizer: see `raccoon.tasks.optim`.
        kl_weight: of the divergence from a standard normal, per latent number.
        square_weight: of the mean squared error, which weighs large errors more than the absolute one does.
        edge_weight: of the mean absolute error of differences between neighbouring pixels, which keeps edges sharp.
        seed: of the draws from the posterior.
        channels_last: memory layout; faster convolutions on CUDA.

    Raises:
        ValueError: if a weight is negative.
    """

    latent_mean: Tensor
    latent_square: Tensor

    def __init__(
        self,
        vae: dict[str, Any],
        optimizer: OptimizerSettings,
        *,
        kl_weight: float = 1e-6,
        square_weight: float = 0.0,
        edge_weight: float = 0.0,
        seed: int = 0,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        if min(kl_weight, square_weight, edge_weight) < 0:
            raise ValueError(
                "kl_weight, square_weight and edge_weight must not be negative, got "
                f"{kl_weight}, {square_weight} and {edge_weight}"
            )
        self.vae = AutoencoderKL(**vae)
        if channels_last:
            self.vae.to(memory_format=torch.channels_last)
        self.optimizer = optimizer
        self.kl_weight = kl_weight
        self.square_weight = square_weight
        self.edge_weight = edge_weight
        self.seed = seed
        channels = self.vae.config.latent_channels
        self.register_buffer("latent_mean", torch.zeros(channels))
        self.register_buffer("latent_square", torch.ones(channels))

    def forward(self, frames: Tensor) -> Tensor:
        """Frames [N, 3, H, W] in [-1, 1] through the autoencoder and back, by the posterior's mean."""
        return self.vae.decode(self.vae.encode(frames).latent_dist.mode()).sample

    def training_step(self, batch: P2VBatch, batch_idx: int) -> Tensor:
        """One batch; every frame is an image."""
        frames = batch.floats().target.flatten(0, 1)
        posterior = self.vae.encode(frames).latent_dist
        latents = posterior.mean + posterior.std * self._noise(batch, posterior.mean)
        decoded = self.vae.decode(latents).sample
        reconstruction = functional.l1_loss(decoded, frames)
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        loss = reconstruction + self.kl_weight * kl
        if self.square_weight:
            loss = loss + self.square_weight * functional.mse_loss(decoded, frames)
        if self.edge_weight:
            loss = loss + self.edge_weight * _edges(decoded, frames)
        self._measure(posterior.mean.detach().float())
        size = len(frames)
        figures = {"train/loss": loss, "train/reconstruction": reconstruction, "train/kl": kl}
        for name, value in figures.items():
            self.log(name, mean_over_ranks(self, value), prog_bar=name == "train/loss", batch_size=size)
        return loss

    def validation_step(self, batch: P2VBatch, batch_idx: int) -> None:
        """Reconstruct every frame of the batch."""
        self._measure_psnr(batch, "val")

    def test_step(self, batch: P2VBatch, batch_idx: int) -> None:
        """As a validation step."""
        self._measure_psnr(batch, "test")

    def _measure_psnr(self, batch: P2VBatch, use: str) -> None:
        frames = batch.floats().target.flatten(0, 1)
        with torch.autocast(frames.device.type, enabled=False):
            decoded = self(frames).clamp(-1, 1)
        self.log(f"{use}/loss", functional.l1_loss(decoded, frames), batch_size=len(frames), sync_dist=True)
        # [-1, 1] has a range of 2. The logarithm is taken of each batch and averaged over batches.
        psnr = 10 * torch.log10(4 / functional.mse_loss(decoded, frames))
        self.log(f"{use}/psnr", psnr, prog_bar=True, batch_size=len(frames), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """See `raccoon.tasks.optim`."""
        return configure(self.vae, self.optimizer, max_steps=self.trainer.max_steps)

    def export(self, folder: str | Path, *, dtype: torch.dtype = torch.float16) -> None:
        """Write the autoencoder; its configuration holds what makes its latents of mean 0 and variance 1, per channel.

        Raises:
            RuntimeError: if nothing was trained, so that the latents were never measured.
        """
        std = (self.latent_square - self.latent_mean**2).clamp_min(0).sqrt()
        if not self.latent_mean.any():
            raise RuntimeError("the latents were never measured; train the autoencoder before it is exported")
        config = dict(self.vae.config)
        config.update(latents_mean=self.latent_mean.tolist(), latents_std=std.tolist(), scaling_factor=1.0)
        vae = AutoencoderKL(**{key: value for key, value in config.items() if not key.startswith("_")})
        vae.load_state_dict(self.vae.state_dict())
        cast(vae, dtype, "cpu")
        vae.save_pretrained(folder)

    def _noise(self, batch: P2VBatch, like: Tensor) -> Tensor:
        shape = (batch.target.shape[1], *like.shape[1:])
        draws = [
            torch.randn(shape, generator=torch_draw(self.seed, ordinal, "vae/posterior"))
            for ordinal in batch.ordinal.tolist()
        ]
        return torch.cat(draws).to(like)

    @torch.no_grad()
    def _measure(self, latents: Tensor) -> None:
        mean, square = latents.mean(dim=(0, 2, 3)), (latents**2).mean(dim=(0, 2, 3))
        momentum = _MOMENTUM if self.latent_mean.any() else 1.0
        self.latent_mean.lerp_(mean, momentum)
        self.latent_square.lerp_(square, momentum)


def _edges(first: Tensor, second: Tensor) -> Tensor:
    """Mean absolute difference of the differences between horizontal and vertical neighbours."""
    error = first - second
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
