import lightning.pytorch as pl
import pytest
import torch

from raccoon.models.conditioning import decode_frames, encode_frames
from raccoon.models.p2v_parts import load_vae
from raccoon.tasks.optim import OptimizerSettings
from raccoon.tasks.vae import VAETask
from raccoon_datamodules.p2v import P2VDataModule
from raccoon_datamodules.sources import SyntheticSource

# Steps are called without a trainer too.
pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log:UserWarning")

VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (8, 8, 16),
    "norm_num_groups": 4,
    "latent_channels": 4,
    "sample_size": 32,
}


def task(**changes):
    torch.manual_seed(0)
    return VAETask(
        dict(VAE), OptimizerSettings(learning_rate=3e-3), **{"edge_weight": 0.5, "square_weight": 0.5, **changes}
    )


@pytest.fixture(scope="module")
def batch():
    source = SyntheticSource("easy", num_frames=2, size=(32, 32))
    data = P2VDataModule(source, global_batch_size=4, num_frames=2, size=(32, 32))
    return next(iter(data.train_dataloader())).floats()


def test_it_learns_and_what_it_exports_has_latents_of_mean_zero_and_variance_one(batch, tmp_path):
    trained = task()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = trained.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2

    # The measure lags behind the weights while they still move.
    for _ in range(300):
        with torch.no_grad():
            trained._measure(trained.vae.encode(batch.target.flatten(0, 1)).latent_dist.mean)
    trained.export(tmp_path, dtype=torch.float32)
    vae = load_vae(tmp_path)
    latents = encode_frames(vae, batch.target).flatten(0, 1)
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(4), atol=0.1, rtol=0)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(4), atol=0.1, rtol=0)
    torch.testing.assert_close(decode_frames(vae, latents), trained(batch.target.flatten(0, 1)), atol=1e-4, rtol=0)


def test_the_same_batch_has_the_same_loss_and_another_seed_another(batch):
    assert task().training_step(batch, 0) == task().training_step(batch, 0)
    assert task(seed=1).training_step(batch, 0) != task().training_step(batch, 0)


def test_it_runs_under_lightning_and_logs_its_figures(tmp_path):
    source = SyntheticSource("easy", num_frames=2, size=(32, 32))
    val = SyntheticSource("easy", split="val", num_frames=2, size=(32, 32), num_scenes=2)
    data = P2VDataModule(source, val, global_batch_size=2, num_frames=2, size=(32, 32))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=2,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    trainer.fit(task(channels_last=True), data)
    assert {"train/loss", "train/reconstruction", "train/kl", "val/loss", "val/psnr"} <= set(trainer.callback_metrics)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_test_measures_what_a_validation_does(tmp_path):
    source = SyntheticSource("easy", split="test", num_frames=2, size=(32, 32), num_scenes=2)
    data = P2VDataModule(source, source, test=source, num_frames=2, size=(32, 32), tasks={"change": 1.0})
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    (validated,) = trainer.validate(task(), data, verbose=False)
    (tested,) = trainer.test(task(), data, verbose=False)
    assert tested == {name.replace("val/", "test/"): value for name, value in validated.items()}


def test_nothing_trained_is_nothing_to_export(tmp_path):
    with pytest.raises(RuntimeError, match="train the autoencoder before"):
        task().export(tmp_path)


def test_negative_weights_are_refused():
    with pytest.raises(ValueError, match="must not be negative"):
        task(kl_weight=-1.0)
