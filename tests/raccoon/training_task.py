"""A task of a few hundred weights, to train by the command line in the tests."""

import lightning.pytorch as pl
import torch
from torch import nn

from raccoon.tasks.optim import OptimizerSettings, configure


class TinyTask(pl.LightningModule):
    def __init__(
        self,
        width: int,
        optimizer: OptimizerSettings,
        *,
        dropout: float = 0.0,
        poison_step: int | None = None,
        interrupt_step: int | None = None,
        fail_export: bool = False,
    ):
        super().__init__()
        self.frozen = nn.Sequential(nn.Conv3d(3, 3, 1), nn.Dropout(0.9)).requires_grad_(False)
        self.net = nn.Sequential(nn.Conv3d(3, width, 3, padding=1), nn.Dropout(dropout), nn.Conv3d(width, 3, 1))
        self.optimizer = optimizer
        self.poison_step = poison_step
        self.interrupt_step = interrupt_step
        self.fail_export = fail_export
        self.seen = []

    def _loss(self, batch):
        return (self.net(batch.condition.transpose(1, 2)) - batch.target.transpose(1, 2)).pow(2).mean()

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.ordinal.tolist())
        loss = self._loss(batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.key))
        if self.global_step == self.interrupt_step:
            raise KeyboardInterrupt
        return loss * (torch.nan if self.global_step == self.poison_step else 1.0)

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self._loss(batch), batch_size=len(batch.key), sync_dist=True)

    def test_step(self, batch, batch_idx):
        self.log("test/loss", self._loss(batch), batch_size=len(batch.key), sync_dist=True)

    def configure_optimizers(self):
        return configure(self, self.optimizer, max_steps=self.trainer.max_steps)

    def export(self, folder):
        torch.save(self.net.state_dict(), folder / "weights.pt")
        if self.fail_export:
            raise RuntimeError("the disk is full")


class SpokenTask(TinyTask):
    """A task with a conversation, as the describer's has."""

    def conversation(self):
        return "how to speak to me"


class WeightsTask(TinyTask):
    """A task that reads a weight file, as all with a pretrained part do."""

    def __init__(self, weights: str, optimizer: OptimizerSettings):
        super().__init__(2, optimizer)
        from safetensors.torch import load_file

        load_file(f"{weights}/model.safetensors")


class Listener(pl.LightningDataModule):
    """Data that wants a conversation."""

    def __init__(self):
        super().__init__()
        self.conversation = None

    def train_dataloader(self):
        raise ValueError(f"linked: {self.conversation}")

    def val_dataloader(self):
        return []
