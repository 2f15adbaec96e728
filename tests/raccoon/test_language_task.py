import lightning.pytorch as pl
import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from raccoon.tasks.language import LanguageTask, check_finite
from raccoon.tasks.optim import OptimizerSettings
from raccoon_datamodules.texts import SceneTexts, TextDataModule

LLAMA = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}


def task(**changes):
    torch.manual_seed(0)
    return LanguageTask(LLAMA, OptimizerSettings(learning_rate=1e-2, schedule="constant"), **changes)


def data():
    val, test = (SceneTexts(split=split, num_scenes=8) for split in ("val", "test"))
    return TextDataModule(SceneTexts(), val, test=test, global_batch_size=8)


def trainer(tmp_path, **changes):
    settings = {
        "max_steps": 3,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "val_check_interval": 3,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "default_root_dir": tmp_path,
        **changes,
    }
    return pl.Trainer(**settings)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*log_every_n_steps.*")
def test_it_trains_and_logs_every_task(tmp_path):
    running = trainer(tmp_path)
    running.fit(task(), datamodule=data())
    logged = running.callback_metrics
    assert {"train/loss", "val/loss", "train/loss_describe", "val/loss_paragraph"} <= set(logged)
    assert all(torch.isfinite(value) for value in logged.values())


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_a_test_measures_what_a_validation_does(tmp_path):
    (validated,) = trainer(tmp_path).validate(task(), data(), verbose=False)
    (tested,) = trainer(tmp_path).test(task(), data(), verbose=False)
    assert {"val/loss", "val/loss_layout"} <= set(validated)
    assert {"test/loss", "test/loss_layout"} <= set(tested)


def test_a_batch_can_be_learned():
    learner, texts = task(), data()
    texts.conversation = learner.conversation
    batch = next(iter(texts.train_dataloader()))
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss = learner(batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]


def test_what_is_exported_loads_and_says_the_same(tmp_path):
    learner = task().eval()
    learner.export(tmp_path, dtype=torch.float32)
    loaded = LlamaForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    ids = torch.tensor([tokenizer.encode("A red star.")])
    torch.testing.assert_close(loaded(ids).logits, learner.llama(ids).logits)
    learner.export(tmp_path / "half")
    assert LlamaForCausalLM.from_pretrained(tmp_path / "half", dtype="auto").dtype == torch.float16


def test_what_the_tokenizer_decides_cannot_be_set():
    with pytest.raises(ValueError, match="eos_token_id, vocab_size of the llama must not be set"):
        LanguageTask({**LLAMA, "vocab_size": 7, "eos_token_id": 1}, OptimizerSettings(learning_rate=1.0))


def test_a_loss_that_is_not_finite_names_its_samples():
    with pytest.raises(RuntimeError, match="it is not at step 5 on the samples b; lower the learning rate"):
        check_finite(torch.tensor([1.0, torch.nan]), ["a", "b"], 5)


def test_the_recipe_builds():
    from jsonargparse import ArgumentParser
    from omegaconf import OmegaConf

    from raccoon import recipes

    config = OmegaConf.to_container(OmegaConf.load(recipes.locate("tiny/language")), resolve=True)
    parser = ArgumentParser(exit_on_error=False, parser_mode=recipes.PARSER_MODE)
    parser.add_subclass_arguments(pl.LightningModule, "model")
    parser.add_subclass_arguments(pl.LightningDataModule, "data")
    built = parser.instantiate(parser.parse_object({key: config[key] for key in ("model", "data")}))
    assert isinstance(built.model, LanguageTask)
    assert isinstance(built.data, TextDataModule)
    assert sum(p.numel() for p in built.model.parameters()) < 6_000_000
