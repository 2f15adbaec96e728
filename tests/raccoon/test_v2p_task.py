import lightning.pytorch as pl
import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from raccoon.models.lora import LoraSettings
from raccoon.models.mgs import MGSPooling
from raccoon.models.superpixels import GridSuperpixels
from raccoon.models.video_llm import VideoLLM
from raccoon.models.vision import ClipVisionEncoder
from raccoon.tasks.optim import OptimizerSettings
from raccoon.tasks.tokenizer import tiny_tokenizer
from raccoon.tasks.v2p import V2PTask, match_names
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.sources import SyntheticSource
from raccoon_datamodules.v2p import V2PDataModule

QUIET = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*log_every_n_steps.*", "ignore:.*in eval mode.*"
)


def network():
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    llama = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    return VideoLLM(
        ClipVisionEncoder(CLIPVisionModel(vision)),
        LlamaForCausalLM(llama),
        tokenizer,
        superpixels=GridSuperpixels(8),
        pooling=MGSPooling(3, 2),
        num_frames=4,
        lora=LoraSettings(2),
        template="plain",
        position_embeddings=True,
    )


def task(**changes):
    settings = {"describe_clips": 2, "max_new_tokens": 60, **changes}
    return V2PTask(network(), OptimizerSettings(learning_rate=1e-2, schedule="constant"), **settings)


def data():
    def source(split, count):
        return SyntheticSource("easy", split=split, num_frames=4, size=(32, 32), num_scenes=count)

    return V2PDataModule(
        source("train", 100),
        source("val", 6),
        test=source("test", 6),
        global_batch_size=4,
        num_frames=4,
        size=(32, 32),
        val_batch_size=3,
    )


def trainer(tmp_path, **changes):
    settings = {
        "max_steps": 2,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "val_check_interval": 2,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "default_root_dir": tmp_path,
        **changes,
    }
    return pl.Trainer(**settings)


@QUIET
def test_it_trains_on_all_tasks_and_describes_at_validation(tmp_path):
    running, learner = trainer(tmp_path), task(ema_decay=0.9)
    frozen = {name: p.clone() for name, p in learner.named_parameters() if not p.requires_grad}
    running.fit(learner, datamodule=data())
    logged = running.callback_metrics
    assert {"train/loss", "val/loss", "val/recall"} <= set(logged)
    assert any(f"val/loss_{name}" in logged for name in ("describe", "describe_object", "layout"))
    assert all(torch.isfinite(value) for value in logged.values())
    assert all(torch.equal(p, frozen[name]) for name, p in learner.named_parameters() if name in frozen)


@QUIET
def test_a_checkpoint_holds_what_learned_and_a_run_goes_on_from_it(tmp_path):
    # Seeded steps stand in for the command line's StepSeed: LoRA's dropout draws from the global generator.
    class Seeded(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            torch.manual_seed(int(batch.ordinal[0]))

    changes = {"limit_val_batches": 0, "callbacks": [Seeded()]}
    whole = task(ema_decay=0.9)
    trainer(tmp_path, max_steps=4, **changes).fit(whole, datamodule=data())
    first = trainer(tmp_path, max_steps=2, **changes)
    half = task(ema_decay=0.9)
    first.fit(half, datamodule=data())
    first.save_checkpoint(tmp_path / "half.ckpt")
    stored = torch.load(tmp_path / "half.ckpt", weights_only=False)["state_dict"]
    assert stored.keys() == {name for name, p in half.named_parameters() if p.requires_grad}
    resumed = task(ema_decay=0.9)
    trainer(tmp_path, max_steps=4, **changes).fit(
        resumed, datamodule=data(), ckpt_path=tmp_path / "half.ckpt", weights_only=False
    )
    for (name, a), b in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_the_loss_of_a_step_does_not_depend_on_how_samples_are_dealt():
    learner, clips = task().eval(), data()
    clips.conversation = learner.conversation
    batch = next(iter(clips.train_dataloader()))
    whole = learner(batch)
    assert whole.shape == (4,)
    clips.global_batch_size = 2
    small = iter(clips.train_dataloader())
    torch.testing.assert_close(torch.cat([learner(next(small)), learner(next(small))]), whole, atol=1e-5, rtol=1e-5)


def test_what_is_exported_is_the_average_and_loads(tmp_path):
    learner = task(ema_decay=0.5, encoder_reference="../clip")
    learner.network.visual.encoder.tower.save_pretrained(tmp_path / "clip")
    with torch.no_grad():
        learner.network.token_rows.add_(1.0)
    learner._average.update()
    learner.export(tmp_path / "v2p")
    loaded = VideoLLM.from_pretrained(tmp_path / "v2p")
    with learner._averaged():
        expected = learner.network.token_rows.detach().half().float()
    torch.testing.assert_close(loaded.token_rows.detach(), expected)
    assert not torch.allclose(expected, learner.network.token_rows)


@QUIET
def test_descriptions_are_made_at_every_nth_validation(tmp_path):
    learner = task(describe_every=2)
    seen = []
    learner._describe = lambda batch, rows, use: seen.append((learner.trainer.global_step, len(rows)))
    clips = data()
    clips._tasks = {"describe": 1.0}
    trainer(tmp_path, max_steps=3, val_check_interval=1).fit(learner, datamodule=clips)
    assert [step for step, _ in seen] == [1, 3]
    assert all(count == 2 for _, count in seen)


@QUIET
def test_a_test_and_a_validation_of_its_own_always_describe(tmp_path):
    learner, clips = task(describe_every=2), data()
    learner._validations = 1
    clips._tasks = {"describe": 1.0}
    (validated,) = trainer(tmp_path).validate(learner, clips, verbose=False)
    (tested,) = trainer(tmp_path).test(learner, clips, verbose=False)
    assert {"val/loss", "val/recall"} <= set(validated)
    assert {"test/loss", "test/recall"} <= set(tested)


def paragraph(*names):
    return Paragraph("", tuple(ObjectDescription(name) for name in names))


def test_names_are_matched_regardless_of_case_and_order():
    found = match_names(paragraph("blue box", "Red Star", "Dog"), paragraph("Red Star", "Green Box", "Cat"))
    assert found == {"recall": (1, 3), "precision": (1, 3), "colour": (1, 2)}
    assert match_names(paragraph(), paragraph("Cat")) == {"recall": (0, 1), "precision": (0, 0), "colour": (0, 0)}


def test_gradients_flow_through_recomputed_activations():
    learner, clips = task(gradient_checkpointing=True).train(), data()
    clips.conversation = learner.conversation
    loss = learner(next(iter(clips.train_dataloader()))).mean()
    loss.backward()
    assert all(p.grad is not None for p in learner.parameters() if p.requires_grad)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="got -1, 1 and 60"):
        task(describe_clips=-1)
    with pytest.raises(ValueError, match="trainable must be 'paper' or 'all', got 'none'"):
        task(trainable="none")


@pytest.mark.parametrize("recipe", ["v2p/tiny", "v2p/paper"])
def test_a_recipe_builds_on_miniature_parts(recipe, tmp_path):
    from jsonargparse import ArgumentParser
    from omegaconf import OmegaConf

    from raccoon import recipes

    small = network()
    small.visual.encoder.tower.save_pretrained(tmp_path / "clip")
    LlamaForCausalLM(small.llama.config).save_pretrained(tmp_path / "llm")
    small.tokenizer.save_pretrained(tmp_path / "llm")
    config = OmegaConf.to_container(OmegaConf.load(recipes.locate(recipe)), resolve=True)
    parts = config["model"]["init_args"]["network"]["init_args"]
    parts.update(encoder=str(tmp_path / "clip"), language_model=str(tmp_path / "llm"))
    config["data"]["init_args"]["train"] = {"class_path": "raccoon_datamodules.sources.SyntheticSource"}
    parser = ArgumentParser(exit_on_error=False, parser_mode=recipes.PARSER_MODE)
    parser.add_subclass_arguments(pl.LightningModule, "model")
    parser.add_subclass_arguments(pl.LightningDataModule, "data")
    built = parser.instantiate(parser.parse_object({key: config[key] for key in ("model", "data")}))
    assert isinstance(built.model, V2PTask)
    assert isinstance(built.data, V2PDataModule)
    assert built.model.network.lora.rank == parts["lora"]["rank"]
    assert built.model.network.visual.pooling.overlap == parts["pooling"]["init_args"]["overlap"]
