import importlib
import re

import pytest

from raccoon import recipes
from raccoon.cli import train
from raccoon.cli.console import Console
from raccoon.editor import Editor
from raccoon.testing import CHECKS
from raccoon_datamodules.synthetic import make_sample
from raccoon_datamodules.writer import write_shards

NAMES = recipes.names()
TRAINED = ("v2p/tiny", "p2v/tiny", "v2p/paper", "p2v/paper")
# Overlays for training from shards; what an annotation takes is no part of training.
SHARDS = [name for name in NAMES if name.startswith("vplm/") and "data" in recipes.load(name)]
KEY = re.compile(r"^\s*[A-Za-z_]+:")
# class_path and init_args are explained by the comment of the section they stand in.
UNEXPLAINED = ("class_path:", "init_args:")


def test_the_recipes_of_the_checkout_are_found():
    assert {"pipeline/classical", "superpixels/grid", "superpixels/slic"} <= set(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("pipeline/")])
def test_a_pipeline_recipe_builds_an_editor(name):
    try:
        editor = Editor.from_recipe(name)
    except FileNotFoundError as err:
        pytest.skip(f"its weights are not there: {err}")
    assert editor.recipe is not None
    assert Editor.from_recipe(dict(editor.recipe.config)).recipe.config == editor.recipe.config


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("superpixels/")])
def test_a_superpixel_recipe_builds_a_model_that_conforms(name):
    recipe = recipes.build(name)
    assert list(recipe.parts) == ["superpixels"]
    CHECKS["superpixels"](recipe.parts["superpixels"])


def test_the_classical_painter_conforms():
    CHECKS["painter"](Editor.from_recipe("pipeline/classical").painter)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A folder of four small scenes, two a shard."""
    folder = tmp_path_factory.mktemp("scenes") / "train"
    samples = (make_sample(seed, num_frames=2, size=(32, 32)) for seed in range(4))
    write_shards(samples, folder, split="train", samples_per_shard=2)
    return folder


@pytest.mark.parametrize("overlay", SHARDS)
@pytest.mark.parametrize("recipe", TRAINED)
def test_a_shard_overlay_makes_the_data_of_a_training_recipe(recipe, overlay, scenes, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    section = recipes.load(recipe, [overlay])["data"]
    module, _, name = section["class_path"].rpartition(".")
    settings = section["init_args"]
    folders = settings["train"] if isinstance(settings["train"], list) else [settings["train"]]
    for folder in {*folders, settings["val"], settings["test"]} - {None}:
        (tmp_path / folder).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / folder).symlink_to(scenes)
    data = getattr(importlib.import_module(module), name)(**settings)
    data.setup("fit")
    data.setup("test")
    # A block of 1000 holds each data set's share; four scenes of each are an epoch.
    weights = settings.get("weights") or [1]
    found = [data.order.locate(ordinal).corpus for ordinal in range(1000)]
    assert [found.count(corpus) / 1000 for corpus in range(len(folders))] == [w / sum(weights) for w in weights]


@pytest.mark.parametrize("overlay", SHARDS)
def test_a_shard_overlay_is_understood_on_the_command_line(overlay, capsys, monkeypatch):
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")
    assert train.run(["fit", "--config", "p2v/tiny", "--config", overlay, "--print_config"], Console()) == 0
    assert recipes.load(overlay)["data"]["init_args"]["quarantine"] in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_every_key_of_a_recipe_has_a_comment_above(name):
    lines = recipes.locate(name).read_text(encoding="utf-8").splitlines()
    bare = []
    for above, line in zip(["", *lines], lines, strict=False):
        key = line.strip()
        if KEY.match(line) and not key.startswith(UNEXPLAINED) and not above.strip().startswith("#"):
            holds_only_explained_keys = key.endswith(":") and not line.startswith(" ")
            if not holds_only_explained_keys:
                bare.append(key)
    assert not bare


def test_every_recipe_opens_with_what_it_is_for():
    assert all(recipes.locate(name).read_text(encoding="utf-8").startswith("# ") for name in NAMES)
