import json

import pytest

from raccoon.cli.main import main
from raccoon_datamodules.cache_store import CacheReader
from raccoon_datamodules.sample import encode
from raccoon_datamodules.synthetic import make_sample, seed_of
from raccoon_datamodules.writer import write_encoded

RECIPE = """
model:
  class_path: raccoon.tasks.p2v.P2VTask
  init_args:
    network:
      class_path: raccoon.models.p2v_parts.P2VParts
      init_args: {{weights: {painter}}}
    optimizer: {{learning_rate: 1.0e-3}}
    trainable: all
data:
  class_path: raccoon_datamodules.p2v.P2VDataModule
  init_args: {{train: {shards}, global_batch_size: 2, num_frames: 2, size: [32, 32]}}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, miniature_painter):
    folder = tmp_path_factory.mktemp("recipe")
    scenes = (make_sample(seed_of("train", i), "easy", num_frames=2, size=(32, 32), fps=8.0) for i in range(4))
    write_encoded(((scene.key, encode(scene)) for scene in scenes), folder / "shards", samples_per_shard=2)
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(painter=miniature_painter, shards=folder / "shards"))
    return path


def said(capsys):
    return json.loads(capsys.readouterr().out)


def test_a_cache_is_filled_once_and_measured(recipe, tmp_path, capsys):
    words = ["cache", "--config", str(recipe), "--out", str(tmp_path / "cache"), "--device", "cpu", "--json"]
    assert main([*words, "--part", "1/2", "--dtype", "float32"]) == 0
    first = said(capsys)
    assert main([*words, "--measure", "2", "--dtype", "float32"]) == 0
    found = said(capsys)
    assert (first["samples"], found["samples"], found["known"], found["failed"]) == (2, 4, 2, 0)
    assert found["bytes"] == CacheReader(tmp_path / "cache").num_bytes
    measured = found["measured"]
    assert (measured["num_cached"], measured["batch_size"]) == (2, 2)
    assert measured["error"] < 1e-5


def test_a_recipe_that_names_the_cache_may_fill_it(recipe, tmp_path, capsys):
    out = str(tmp_path / "cache")
    words = ["cache", "--config", str(recipe), "--data.init_args.cache", out, "--out", out, "--limit", "1"]
    assert main([*words, "--device", "cpu"]) == 0
    assert f"{out}: 1 samples, 0 of them there before" in capsys.readouterr().out


def test_help_needs_no_torch_and_says_what_fits_together(capsys):
    assert main(["cache", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--data.init_args.cache DIR" in out
    assert main(["cache"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "p2v/tiny"], "--out"),
        (["--out", "x"], "--config RECIPE is needed"),
        (["--config", "p2v/tiny", "--out", "x", "--part", "3/2"], "must be I/N with 1 <= I <= N"),
        (["--config", "p2v/tiny", "--out", "x", "--dtype", "int8"], "--dtype"),
        (["--config", "p2v/none", "--out", "x"], "there is no recipe"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_wrong_words_are_one_sentence(words, message, capsys):
    assert main(["cache", *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_a_wrong_flag_of_the_recipe_is_one_sentence(recipe, tmp_path, capsys):
    words = ["cache", "--config", str(recipe), "--out", str(tmp_path / "c"), "--data.init_args.sized", "3"]
    assert main(words) == 2
    assert "sized" in capsys.readouterr().err
