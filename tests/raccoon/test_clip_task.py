from dataclasses import replace

import lightning.pytorch as pl
import pytest
import torch
from omegaconf import OmegaConf
from torch.nn import functional

from raccoon import recipes
from raccoon.models.image_text import ClipImageText
from raccoon.models.vision import ClipVisionEncoder, clip_pixels
from raccoon.tasks.clip import ClipTask, contrast, owned_patches, patch_contrast
from raccoon.tasks.optim import OptimizerSettings
from raccoon.tasks.tokenizer import train_tokenizer
from raccoon_datamodules.regions import RegionDataModule, SceneSource

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["a red star", "blue ball in front of a plain background"] * 20, 320).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def task(tokenizer_folder):
    torch.manual_seed(0)
    return ClipTask(
        {**SMALL, "image_size": 32, "patch_size": 8},
        {**SMALL, "max_position_embeddings": 77},
        OptimizerSettings(learning_rate=3e-3),
        projection_size=16,
        tokenizer=tokenizer_folder,
    )


def data(**options):
    train = SceneSource(num_frames=2, size=(32, 32))
    val, test = (SceneSource(split=split, num_frames=2, size=(32, 32), num_scenes=4) for split in ("val", "test"))
    return RegionDataModule(train, val, test=test, **{"global_batch_size": 6, "val_batch_size": 4, **options})


@pytest.fixture
def batch(task):
    return next(iter(data(tokenizer=task.tokenizer).train_dataloader()))


def trainer(**options):
    settings = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "max_epochs": -1,
    }
    return pl.Trainer(**{**settings, **options})


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:The 'val_dataloader' does not have many workers")
def test_it_trains_validates_and_hands_its_tokenizer_to_the_data(task):
    run = trainer(max_steps=3, val_check_interval=3)
    module = data()
    run.fit(task, module)
    assert module.tokenizer is task.tokenizer
    found = {name: float(value) for name, value in run.callback_metrics.items()}
    assert set(found) >= {
        "train/loss",
        "train/region",
        "train/patch",
        "train/probe",
        "train/patch_probe",
        "train/caption",
        "val/loss",
        "val/patches",
        "val/retrieval",
        "val/category",
        "val/colour",
        "val/pattern",
        "val/size",
    }
    shares = [value for name, value in found.items() if name.startswith("val/") and name != "val/loss"]
    assert all(0 <= value <= 1 for value in shares)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_test_measures_what_a_validation_does(task):
    (validated,) = trainer().validate(task, data(), verbose=False)
    (tested,) = trainer().test(task, data(), verbose=False)
    assert {name.replace("val/", "test/") for name in validated} == set(tested)
    assert tested["test/loss"] != validated["val/loss"]


def test_the_loss_of_one_batch_falls(task, batch):
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = task._total(task._losses(batch)[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_every_part_of_the_network_gets_a_gradient(task, batch):
    task._total(task._losses(batch)[0]).backward()
    assert not [name for name, parameter in task.named_parameters() if parameter.grad is None]


def test_a_region_is_the_average_of_the_patches_it_covers(task, batch):
    found = task(batch)
    assert found["patches"].shape == (len(batch.frames), 16, 16)
    masks = batch.masks[:, None].float()
    assert torch.allclose(found["cover"], functional.avg_pool2d(masks, 8).flatten(1))
    pixels = clip_pixels(batch.frames.float() / 255, 32)
    states = task.clip.vision_model(pixel_values=pixels).last_hidden_state[:, 1:]
    normed = task.clip.vision_model.post_layernorm(states[batch.frame_of[0]])
    expected = (found["cover"][0, :, None] * normed).sum(dim=0) / found["cover"][0].sum()
    assert torch.allclose(found["pooled"][0], expected, atol=1e-5)


def test_what_fits_as_well_is_no_negative():
    logits = torch.tensor([[2.0, 9.0, 0.0], [9.0, 2.0, 0.0], [0.0, 0.0, 2.0]])
    twins = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    assert contrast(logits, twins) < 0.3
    assert contrast(logits, torch.eye(3, dtype=torch.bool)) > 3


def test_a_contrast_without_twins_is_clips_own():
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    own = torch.arange(5)
    expected = (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
    assert torch.allclose(contrast(logits, torch.eye(5, dtype=torch.bool)), expected)


def test_a_patch_belongs_to_the_region_that_covers_most_of_it():
    cover = torch.tensor([[0.6, 0.2, 0.5], [0.4, 0.45, 0.5], [1.0, 0.0, 0.9]])
    region, patch = owned_patches(cover, torch.tensor([0, 0, 1]), 2)
    assert list(zip(region.tolist(), patch.tolist(), strict=True)) == [(0, 0), (0, 2), (1, 2), (2, 0), (2, 2)]


def test_patches_are_told_apart_within_their_frame_only():
    generator = torch.Generator().manual_seed(0)
    patches = functional.normalize(torch.randn(2, 3, 4, generator=generator), dim=-1)
    phrases = functional.normalize(torch.randn(4, 4, generator=generator), dim=-1)
    frame_of = torch.tensor([0, 0, 1, 1])
    region, patch = torch.tensor([0, 0, 1, 3]), torch.tensor([0, 1, 2, 0])
    scale = torch.tensor(7.0)
    found = patch_contrast(patches, phrases, frame_of, region, patch, scale=scale)
    each = []
    for r, p in zip(region.tolist(), patch.tolist(), strict=True):
        frame = int(frame_of[r])
        among = [i for i in range(4) if frame_of[i] == frame]
        logits = scale * torch.stack([patches[frame, p] @ phrases[i] for i in among])
        each.append(functional.cross_entropy(logits[None], torch.tensor([among.index(r)])))
    # Regions 0, 1 and 3 own patches; each counts once.
    assert torch.allclose(found, ((each[0] + each[1]) / 2 + each[2] + each[3]) / 3)


def test_an_exported_network_is_the_trained_one_in_half_precision(task, tmp_path):
    with torch.no_grad():
        task.clip.logit_scale.fill_(9.0)
    task.export(tmp_path)
    assert task.clip.logit_scale == 9.0
    assert next(task.parameters()).dtype == torch.float32
    frames = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    encoder = ClipVisionEncoder.from_pretrained(tmp_path, dtype="float32")
    assert torch.allclose(encoder.encode(frames), ClipVisionEncoder(task.clip).encode(frames), atol=2e-2)
    both = ClipImageText.from_pretrained(tmp_path, dtype="float32")
    assert both.logit_scale == pytest.approx(100, rel=1e-2)
    assert both.tokenizer.encode("red star") == task.tokenizer.encode("red star")
    assert torch.allclose(both.encode_text(["red star"]), task._embed(task._ids(["red star"])), atol=2e-2)
    assert ClipVisionEncoder.from_pretrained(tmp_path).tower.dtype == torch.float16


def test_a_loss_that_is_not_finite_names_the_scenes(task, batch):
    with torch.no_grad():
        task.clip.visual_projection.weight.fill_(torch.nan)
    with pytest.raises(RuntimeError, match=r"must be finite, got nan .* ordinals \[0, 1, 2, 3, 4, 5\]"):
        ClipTask.training_step(_AtStep(task), batch, 0)


class _AtStep:
    """The task outside of a trainer."""

    global_step = 3

    def __init__(self, task):
        self._task = task

    def __getattr__(self, name):
        return getattr(self._task, name)


def test_negative_weights_are_refused(tokenizer_folder):
    with pytest.raises(ValueError, match=r"must not be negative, got .*'caption': -1"):
        ClipTask({}, {}, OptimizerSettings(1e-3), tokenizer=tokenizer_folder, caption_weight=-1)


def test_an_unknown_difficulty_is_refused(tokenizer_folder):
    with pytest.raises(ValueError, match="difficulty must be one of"):
        ClipTask(SMALL, SMALL, OptimizerSettings(1e-3), tokenizer=tokenizer_folder, difficulty="odd")


def test_the_recipe_builds_a_network_that_fits_the_shipped_size():
    config = OmegaConf.to_container(OmegaConf.load(recipes.locate("tiny/clip")))
    settings = dict(config["model"]["init_args"])
    settings["optimizer"] = OptimizerSettings(**settings["optimizer"])
    with torch.device("meta"):
        made = ClipTask(**settings)
    size = 2 * sum(parameter.numel() for parameter in made.clip.parameters())
    assert size < 8_000_000
    assert ClipVisionEncoder(made.clip).grid == (16, 16)
    made_data = dict(config["data"]["init_args"])
    for split in ("train", "val"):
        given = dict(made_data[split]["init_args"])
        made_data[split] = SceneSource(**{**given, "size": tuple(given["size"])})
    assert RegionDataModule(**made_data).frames_per_scene == 3


def test_probes_ignore_what_does_not_apply(task, batch):
    attributes = batch.attributes.clone()
    attributes[:, 1:] = -1
    losses, _ = task._losses(replace(batch, attributes=attributes))
    assert torch.isfinite(losses["probe"])
