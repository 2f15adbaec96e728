import lightning.pytorch as pl
import pytest
import torch

from raccoon.models.inpainter import InpaintingPainter
from raccoon.models.p2v_parts import P2VParts
from raccoon.models.temporal_unet import is_temporal
from raccoon.tasks.ema import WeightAverage
from raccoon.tasks.optim import OptimizerSettings
from raccoon.tasks.p2v import P2VTask
from raccoon_datamodules.batch import P2VBatch
from raccoon_datamodules.p2v import P2VDataModule
from raccoon_datamodules.sources import SyntheticSource

# Steps are called without a trainer too.
pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log:UserWarning")

SETTINGS = OptimizerSettings(learning_rate=1e-3, schedule="constant")


@pytest.fixture
def make(miniature_painter):
    def make(network=None, **changes):
        torch.manual_seed(0)
        parts = P2VParts(str(miniature_painter), **(network or {}))
        return P2VTask(parts, SETTINGS, **{"trainable": "all", **changes})

    return make


@pytest.fixture(scope="module")
def batch():
    data = data_module()
    return next(iter(data.train_dataloader()))


def data_module(**changes):
    source = SyntheticSource("easy", num_frames=2, size=(32, 32))
    val, test = (
        SyntheticSource("easy", split=split, num_frames=2, size=(32, 32), num_scenes=6) for split in ("val", "test")
    )
    return P2VDataModule(
        source, val, test=test, **{"global_batch_size": 4, "num_frames": 2, "size": (32, 32), **changes}
    )


def trainer(folder, **changes):
    given = {
        "accelerator": "cpu",
        "max_steps": 4,
        "val_check_interval": 4,
        "check_val_every_n_epoch": None,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
    }
    return pl.Trainer(**{**given, **changes})


def part(batch, numbers):
    chosen = {"prompt": batch.prompt, "task": batch.task, "key": batch.key}
    return P2VBatch(
        target=batch.target[numbers],
        condition=batch.condition[numbers],
        edit_mask=batch.edit_mask[numbers],
        ordinal=batch.ordinal[numbers],
        **{name: [values[i] for i in numbers] for name, values in chosen.items()},
    )


def test_one_batch_can_be_learned(make, batch):
    task = make()
    optimizer = torch.optim.AdamW(task.network.unet.parameters(), lr=3e-3)
    losses = []
    for _ in range(50):
        loss = task.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("as_images", [False, True], ids=["clips", "images"])
def test_a_sample_has_the_same_loss_in_every_batch(make, batch, as_images):
    task = make(as_images=as_images).eval()
    with torch.no_grad():
        whole = task._step(batch, "p2v/train", dropout=0.0)
        pieces = [task._step(part(batch, [i]), "p2v/train", dropout=0.0) for i in (2, 0, 3, 1)]
    wanted = whole.view(4, -1)[[2, 0, 3, 1]].flatten()
    torch.testing.assert_close(torch.cat(pieces), wanted, rtol=1e-4, atol=1e-6)


def test_images_get_a_timestep_each(make, batch):
    task, seen = make(as_images=True), []
    inner = task._predict
    task._predict = lambda unet, x, steps, text: seen.append((x.shape, steps)) or inner(unet, x, steps, text)
    task.training_step(batch, 0)
    shape, steps = seen[0]
    assert shape == (8, 1, 9, 8, 8)
    assert len(set(steps.tolist())) > 4


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_both_kinds_of_prediction_train(make, batch, kind):
    task = make({"scheduler": {"_class_name": "DDIMScheduler", "prediction_type": kind}}, min_snr_gamma=5.0)
    assert task.training_step(batch, 0).isfinite()


def test_another_kind_of_prediction_is_refused(make, batch):
    task = make({"scheduler": {"_class_name": "DDIMScheduler", "prediction_type": "sample"}})
    with pytest.raises(ValueError, match="prediction_type must be"):
        task.training_step(batch, 0)


def test_the_paper_trains_temporal_layers_and_queries_and_nothing_else(make, batch):
    task = make(trainable="paper")
    task.training_step(batch, 0).backward()
    trained = {name for name, p in task.named_parameters() if p.grad is not None}
    assert trained
    for name, _ in task.named_parameters():
        query = name.endswith(("attn1.to_q.weight", "attn2.to_q.weight")) and name.startswith("network.unet.")
        assert (name in trained) == (query or is_temporal(name)), name


def test_the_released_choice_trains_the_whole_unet_and_nothing_else(make, batch):
    task = make(trainable="released")
    assert {n for n, p in task.named_parameters() if p.requires_grad} == {
        f"network.unet.{n}" for n, _ in task.network.unet.named_parameters()
    }


def test_an_image_unet_trains_as_images(make, batch, miniature_unet):
    task = make({"unet": miniature_unet, "temporal": False}, as_images=True)
    assert not any(is_temporal(name) for name, _ in task.named_parameters())
    assert task.training_step(batch, 0).isfinite()


def test_choices_that_cannot_be_are_refused(make, miniature_unet):
    with pytest.raises(ValueError, match="set the network's temporal to true"):
        make({"unet": miniature_unet, "temporal": False}, trainable="paper")
    with pytest.raises(ValueError, match="all, paper or released"):
        make(trainable="some")
    with pytest.raises(ValueError, match=r"must be in \(0, 1\)"):
        make(ema_decay=1.0)


def test_dropped_prompts_are_drawn_by_ordinal(make, batch, monkeypatch):
    seen = []
    inner = make(text_dropout=0.5)
    monkeypatch.setattr(
        "raccoon.tasks.p2v.encode_prompts", lambda e, t, prompts: seen.append(prompts) or torch.zeros(4, 40, 24)
    )
    inner.training_step(batch, 0)
    inner.training_step(batch, 0)
    assert seen[0] == seen[1]
    assert all(a in ("", b) for a, b in zip(seen[0], batch.prompt, strict=True))
    make(text_dropout=1.0).training_step(batch, 0)
    assert seen[2] == [""] * 4


def test_it_fits_validates_samples_and_exports_what_the_painter_loads(make, tmp_path):
    task = make(trainable="paper", ema_decay=0.9, val_sample_clips=1, val_sample_steps=2, gradient_checkpointing=True)
    run = trainer(tmp_path)
    run.fit(task, data_module())
    figures = run.callback_metrics
    assert {"train/loss", "val/loss", "val/psnr_remove"} <= set(figures)
    assert 0 < figures["val/psnr_remove"] < 60
    task.export(tmp_path / "painter")
    sizes = {path.suffix: path.stat().st_size for path in (tmp_path / "painter" / "unet").iterdir()}
    count = sum(p.numel() for p in task.network.unet.parameters())
    assert sizes[".safetensors"] == pytest.approx(2 * count, rel=0.2)
    painter = InpaintingPainter(str(tmp_path / "painter"))
    half = painter.pipeline.unet.state_dict()
    with task._averaged():
        for name, value in task.network.unet.state_dict().items():
            torch.testing.assert_close(half[name], value, atol=1e-3, rtol=1e-3)


def test_a_test_measures_what_a_validation_does(make, tmp_path):
    data = data_module(tasks={"remove": 1.0})
    measured = []
    for task in (make(val_sample_clips=1, val_sample_steps=2), make(val_sample_clips=1, val_sample_steps=2)):
        run = trainer(tmp_path)
        measured.append((run.validate(task, data, verbose=False)[0], run.test(task, data, verbose=False)[0]))
    assert set(measured[0][0]) == {"val/loss", "val/loss_remove", "val/psnr_remove"}
    assert set(measured[0][1]) == {"test/loss", "test/loss_remove", "test/psnr_remove"}
    assert measured[0] == measured[1]


def test_a_continued_run_equals_the_uninterrupted_one_bit_for_bit(make, tmp_path):
    straight = make(ema_decay=0.5)
    trainer(tmp_path).fit(straight, data_module())
    first = trainer(tmp_path, max_steps=2)
    first.fit(make(ema_decay=0.5), data_module())
    first.save_checkpoint(tmp_path / "half.ckpt")
    stored = torch.load(tmp_path / "half.ckpt", weights_only=False)["state_dict"]
    assert not any(name.startswith(("network.vae.", "network.text_encoder.")) for name in stored)
    second = make(ema_decay=0.5)
    trainer(tmp_path).fit(second, data_module(), ckpt_path=tmp_path / "half.ckpt", weights_only=False)
    for name, value in straight.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    ours, theirs = second._average.state_dict()["average"], straight._average.state_dict()["average"]
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_an_average_follows_and_leaves_the_weights_as_they_were():
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(layer.weight)
    average = WeightAverage(layer, 0.5)
    torch.nn.init.ones_(layer.weight)
    average.update()
    # After one update the decay is 2 / 11.
    with average.applied():
        assert layer.weight.item() == pytest.approx(9 / 11)
    assert layer.weight.item() == 1


def test_an_average_of_other_parameters_is_refused():
    average = WeightAverage(torch.nn.Linear(1, 1), 0.5)
    with pytest.raises(ValueError, match="of other parameters"):
        average.load_state_dict(WeightAverage(torch.nn.Linear(1, 1, bias=False), 0.5).state_dict())


def test_the_miniature_of_the_recipes_is_small_enough_to_ship():
    from diffusers import AutoencoderKL
    from omegaconf import OmegaConf

    from raccoon import recipes
    from raccoon.models.temporal_unet import TemporalUNet

    vae = OmegaConf.load(recipes.locate("tiny/vae")).model.init_args.vae
    unet = OmegaConf.load(recipes.locate("tiny/inpaint")).model.init_args.network.init_args.unet
    with torch.device("meta"):
        models = AutoencoderKL(**OmegaConf.to_container(vae)), TemporalUNet(**OmegaConf.to_container(unet))
    count = sum(p.numel() for model in models for p in model.parameters())
    # Half precision; 4 MB are for the text encoder.
    assert 2 * count < 12_000_000


@pytest.mark.parametrize("name", ["tiny/inpaint", "p2v/tiny", "p2v/paper"])
def test_the_recipes_name_what_the_task_and_the_data_take(name, miniature_painter):
    from omegaconf import OmegaConf

    from raccoon import recipes

    recipe = OmegaConf.to_container(OmegaConf.load(recipes.locate(name)))
    given = recipe["model"]["init_args"]
    network = {**given["network"]["init_args"], "weights": str(miniature_painter), "vae": None, "text": None}
    if "unet" in network:
        network["unet"] = {**network["unet"], "cross_attention_dim": 24}
    settings = OptimizerSettings(**given["optimizer"])
    others = {key: value for key, value in given.items() if key not in ("network", "optimizer")}
    task = P2VTask(P2VParts(**{key: value for key, value in network.items() if value is not None}), settings, **others)
    assert task.optimizer.learning_rate == given["optimizer"]["learning_rate"]
    loading = {key: value for key, value in recipe["data"]["init_args"].items() if key not in ("train", "val")}
    assert P2VDataModule("nowhere", **loading).num_frames == recipe["data"]["init_args"]["num_frames"]
