import json
import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from raccoon.cli import train
from raccoon.cli.console import Console

RECIPE = """
seed_everything: 7
model:
  class_path: training_task.TinyTask
  init_args:
    width: 2
    optimizer: {learning_rate: 1e-2, warmup_steps: 1}
data:
  class_path: raccoon_datamodules.p2v.P2VDataModule
  init_args:
    train: {class_path: raccoon_datamodules.sources.SyntheticSource, init_args: {num_frames: 2, size: [16, 16]}}
    num_frames: 2
    size: [16, 16]
    global_batch_size: 2
    seed: ${seed_everything}
trainer:
  accelerator: cpu
  max_steps: 2
  log_every_n_steps: 1
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe to train in this folder; the runs are written beside it."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.chdir(tmp_path)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return path


def run(*words, verb="fit"):
    return train.run([verb, *map(str, words)], Console())


def resolved(recipe, capsys, *words, verb="fit"):
    """The configuration that a command would run with."""
    assert run("--config", recipe, *words, "--print_config", verb=verb) == 0
    return OmegaConf.to_container(OmegaConf.create(capsys.readouterr().out))


def runs(tmp_path, recipe="small"):
    return sorted((tmp_path / "runs" / recipe).iterdir())


def overlay(tmp_path, text):
    path = tmp_path / "overlay.yaml"
    path.write_text(text)
    return path


def test_a_run_leaves_its_config_its_figures_a_checkpoint_and_the_weights(recipe, tmp_path, capsys):
    assert run("--config", recipe) == 0
    (folder,) = runs(tmp_path)
    assert re.fullmatch(r"\d{8}-\d{6}", folder.name)
    assert f"run: {folder.relative_to(tmp_path)}" in capsys.readouterr().out
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1]
    assert {"train/loss", "train/clips_per_second", "train/data_wait"} <= set(lines[0])
    assert (folder / "metrics.csv").read_text().startswith("step,time,train/loss")
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    assert (folder / "weights" / "weights.pt").is_file()
    assert OmegaConf.load(folder / "config.yaml").data.init_args.seed == 7


def test_the_saved_config_runs_again_and_no_run_writes_into_anothers_folder(recipe, tmp_path):
    run("--config", recipe)
    config = runs(tmp_path)[0] / "config.yaml"
    before = config.read_bytes()
    assert run("--config", config) == 0
    assert config.read_bytes() == before
    assert len(runs(tmp_path)) == len(runs(tmp_path, "config")) == 1
    first, second = (torch.load(runs(tmp_path, name)[0] / "weights/weights.pt") for name in ("small", "config"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_flag_goes_before_an_overlay_and_an_overlay_before_the_recipe(recipe, tmp_path, capsys):
    over = overlay(tmp_path, "trainer: {max_steps: 5}\nmodel: {init_args: {width: 5}}\n")
    config = resolved(recipe, capsys, "--config", over, "--trainer.max_steps", "6")
    assert config["trainer"]["max_steps"] == 6
    assert config["model"]["init_args"]["width"] == 5
    assert config["model"]["init_args"]["optimizer"]["learning_rate"] == 0.01


@pytest.mark.parametrize("how", ["flag", "overlay"])
def test_a_changed_value_reaches_those_that_refer_to_it(recipe, tmp_path, capsys, how):
    words = ["--seed_everything", "11"]
    if how == "overlay":
        words = ["--config", overlay(tmp_path, "seed_everything: 11\n")]
    assert resolved(recipe, capsys, *words)["seed_everything"] == 11
    run("--config", recipe, *words)
    assert OmegaConf.load(runs(tmp_path)[0] / "config.yaml").data.init_args.seed == 11


def test_an_overlay_may_be_named_as_a_recipe_is(recipe, capsys):
    assert resolved(recipe, capsys, "--config=trainer/ddp")["trainer"]["strategy"] == "ddp"


def test_the_sharding_overlay_is_understood(recipe, capsys):
    strategy = resolved(recipe, capsys, "--config", "trainer/fsdp")["trainer"]["strategy"]
    assert strategy["class_path"].endswith("FSDPStrategy")
    assert strategy["init_args"]["sharding_strategy"] == "FULL_SHARD"


def test_a_run_is_called_by_the_recipes_name():
    words, called = train.locate_configs(["--config", "trainer/cpu", "--config", "trainer/ddp", "--x=--config"])
    assert called == "trainer/cpu"
    assert [Path(word).name for word in words] == ["--config", "cpu.yaml", "--config", "ddp.yaml", "--x=--config"]


def test_help_is_lightnings_own(capsys):
    assert run("--help") == 0
    assert "--trainer.max_steps" in capsys.readouterr().out


def test_a_checkpoint_is_validated_and_last_finds_it(recipe, tmp_path):
    data = "--data.val.class_path=raccoon_datamodules.sources.SyntheticSource"
    words = (data, "--data.val.init_args.num_scenes=2", "--data.val.init_args.num_frames=2")
    run("--config", recipe, *words)
    assert run("--config", recipe, *words, "--ckpt_path", "last", verb="validate") == 0
    folder = runs(tmp_path)[-1]
    assert folder.name.endswith("-validate")
    assert "val/loss" in (folder / "metrics.jsonl").read_text()


def test_a_checkpoint_is_tested(recipe, tmp_path):
    run("--config", recipe)
    data = "--data.test.class_path=raccoon_datamodules.sources.SyntheticSource"
    words = (data, "--data.test.init_args.num_scenes=2", "--data.test.init_args.num_frames=2")
    assert run("--config", recipe, *words, "--ckpt_path", "last", verb="test") == 0
    folder = runs(tmp_path)[-1]
    assert folder.name.endswith("-test")
    assert "test/loss" in (folder / "metrics.jsonl").read_text()


def test_the_config_goes_before_what_a_checkpoint_was_trained_with(recipe, tmp_path):
    run("--config", recipe)
    last = runs(tmp_path)[0] / "checkpoints" / "last.ckpt"
    words = ("--ckpt_path", last, "--model.optimizer.eps", "1e-4", "--trainer.max_steps", "3")
    assert run("--config", recipe, *words) == 0
    config = OmegaConf.load(runs(tmp_path)[-1] / "config.yaml")
    assert config.model.init_args.optimizer.eps == 1e-4


def test_the_models_conversation_is_linked_into_the_data(recipe):
    with pytest.raises(ValueError, match="linked: how to speak to me"):
        run(
            "--config", recipe, "--model", "training_task.SpokenTask", "--model.width", "2",
            "--model.optimizer.learning_rate", "0.1", "--data", "training_task.Listener",
        )  # fmt: skip


def test_an_interrupted_run_says_so(recipe):
    with pytest.raises(KeyboardInterrupt):
        run("--config", recipe, "--model.interrupt_step", "1")


def test_without_an_end_an_endless_stream_is_refused(recipe):
    with pytest.raises(ValueError, match=r"needs an end: set trainer\.max_steps"):
        run("--config", recipe, "--trainer.max_steps", "-1")


def test_without_words_the_usage_is_said():
    with pytest.raises(ValueError, match="say what to run: raccoon fit --config v2p/tiny"):
        run()
    with pytest.raises(ValueError, match="say what to run: raccoon predict --config predict/describe"):
        run(verb="predict")


WRONG_FLAGS = {
    "trainer": ("--trainer.max_stepz=3", r"there is no key 'trainer\.max_stepz'; did you mean 'trainer\.max_steps'"),
    "section": ("--modle=3", "there is no key 'modle'; did you mean 'model'"),
    "nonsense": ("--zzz=3", "there is no key 'zzz'; a recipe has seed_everything, model, data, trainer"),
    "argument": ("--model.widths=3", r"model: training_task\.TinyTask has no argument 'widths'; did you mean 'width'"),
    "nothing near": ("--model.zzz=3", r"TinyTask has no argument 'zzz'; it takes width, optimizer, dropout"),
    "type": ("--model.width=x", r"model\.width must be int, got x"),
    "choice": ("--model.optimizer.schedule=steps", r"model\.optimizer\.schedule must be .*'cosine'.* got steps"),
    "range": ("--model.optimizer.learning_rate=-1", r"learning_rate must be a positive number, got -1\.0"),
    "number": ("--trainer.max_steps=x", r"trainer\.max_steps must be int, got x"),
    "class": ("--model=training_task.Tiny", r"model: cannot import training_task\.Tiny"),
    "no task": ("--model=raccoon.models.mgs.MGSPooling", "the class given is no LightningModule"),
    "no shards": ("--data.train=[]", "at least one folder of shards is needed, got an empty list"),
}


@pytest.mark.parametrize("which", WRONG_FLAGS)
def test_a_wrong_flag_is_one_sentence(recipe, which):
    flag, said = WRONG_FLAGS[which]
    with pytest.raises(ValueError, match=said) as info:
        run("--config", recipe, flag)
    assert "\n" not in str(info.value)
    assert len(str(info.value)) < 400


WRONG_KEYS = {
    "inner": (
        "model: {init_args: {optimizer: {learning_rat: 1}}}",
        r"optimizer of training_task\.TinyTask has no key 'learning_rat'; did you mean 'learning_rate'",
    ),
    "source": (
        "data: {init_args: {train: {init_args: {num_frame: 1}}}}",
        r"data\.train: raccoon_datamodules\.sources\.SyntheticSource has no argument 'num_frame'",
    ),
    "reference": ("data: {init_args: {seed: '${sed}'}}", r"data\.init_args\.seed refers to \$\{sed\}, which no recipe"),
}


@pytest.mark.parametrize("which", WRONG_KEYS)
def test_a_wrong_key_of_a_recipe_is_one_sentence(recipe, tmp_path, which):
    text, said = WRONG_KEYS[which]
    with pytest.raises(ValueError, match=said):
        run("--config", recipe, "--config", overlay(tmp_path, text))


def test_a_class_that_is_no_task_is_named(recipe, tmp_path):
    text = "model: {class_path: raccoon.models.mgs.MGSPooling, init_args: {}}"
    with pytest.raises(ValueError, match=r"model: raccoon\.models\.mgs\.MGSPooling is no LightningModule"):
        run("--config", recipe, "--config", overlay(tmp_path, text))


def test_what_is_missing_is_named(recipe, tmp_path):
    with pytest.raises(ValueError, match="the configuration lacks model; give a recipe"):
        run("--config", overlay(tmp_path, "trainer: {max_steps: 1}"))
    text = "model: {class_path: training_task.TinyTask, init_args: {optimizer: {learning_rate: 1}}}"
    with pytest.raises(ValueError, match=r"training_task\.TinyTask needs the argument width; set it in the recipe"):
        run("--config", overlay(tmp_path, text), "--trainer.max_steps", "1")


@pytest.mark.parametrize(("text", "said"), [("a: [1\n", "is not valid YAML"), ("- a\n", "must be a mapping")])
def test_a_file_that_is_no_recipe_is_named(tmp_path, text, said):
    with pytest.raises(ValueError, match=rf"the recipe \S+overlay\.yaml {said}"):
        run("--config", overlay(tmp_path, text))


def test_an_unknown_recipe_is_named_with_the_nearest():
    with pytest.raises(FileNotFoundError, match=r"there is no recipe 'trainer/dpp'.*did you mean 'trainer/ddp'"):
        run("--config", "trainer/dpp")
    with pytest.raises(ValueError, match="--config needs a recipe"):
        run("--config")


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("validate", r"there is no validation data in P2VDataModule; set data\.init_args\.val"),
        ("test", r"there is no test data in P2VDataModule; set data\.init_args\.test to a folder"),
        ("predict", "no data for `raccoon predict`: P2VDataModule has no predict_dataloader.* as predict/describe and"),
    ],
)
def test_a_verb_without_data_is_refused(recipe, verb, said):
    with pytest.raises(ValueError, match=said):
        run("--config", recipe, verb=verb)


def test_a_loss_that_is_not_finite_stops_the_run(recipe, tmp_path):
    with pytest.raises(
        RuntimeError, match=r"the loss must be finite, it is nan at step 1 on samples \S+-000002, \S+-000003; lower"
    ):
        run("--config", recipe, "--model.poison_step", "1")
    assert not (runs(tmp_path)[0] / "weights").exists()


def test_a_checkpoint_of_another_shape_is_refused(recipe, tmp_path):
    run("--config", recipe)
    with pytest.raises(
        ValueError, match=r"does not fit the model: 3 tensors have another shape \(net\.0\.weight"
    ) as info:
        run("--config", recipe, "--model.width", "3", "--ckpt_path", "last")
    assert "\n" not in str(info.value)


def test_a_damaged_or_missing_checkpoint_is_refused(recipe, tmp_path):
    run("--config", recipe)
    last = runs(tmp_path)[0] / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"the checkpoint \S+last\.ckpt is damaged or was not written by"):
        run("--config", recipe, "--ckpt_path", last)
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint nowhere\.ckpt"):
        run("--config", recipe, "--ckpt_path", "nowhere.ckpt")
    torch.save({"weights": 1}, last)
    with pytest.raises(ValueError, match="holds no state_dict"):
        run("--config", recipe, "--ckpt_path", last)


def test_last_is_refused_where_nothing_ran(recipe):
    with pytest.raises(FileNotFoundError, match="no run of small under runs has left a checkpoint"):
        run("--config", recipe, "--ckpt_path", "last")


def test_a_missing_weight_file_is_said_as_its_reader_says_it(recipe, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run(
            "--config", recipe, "--model", "training_task.WeightsTask", "--model.weights=nowhere",
            "--model.optimizer.learning_rate", "0.1",
        )  # fmt: skip


def test_a_damaged_weight_file_is_named(recipe, tmp_path):
    from safetensors.torch import save_file

    folder = tmp_path / "net"
    folder.mkdir()
    path = folder / "model.safetensors"
    save_file({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"the weight file \S*net/model\.safetensors is damaged or cut off"):
        run(
            "--config", recipe, "--model", "training_task.WeightsTask", f"--model.weights={folder}",
            "--model.optimizer.learning_rate", "0.1",
        )  # fmt: skip
