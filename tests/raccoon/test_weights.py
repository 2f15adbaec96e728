from pathlib import Path

import pytest

from raccoon import recipes
from raccoon.models import weights
from raccoon.models.weights import find_weights


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shipped weights of our own."""
    monkeypatch.setattr(weights, "shipped_folder", lambda: tmp_path / "weights")
    return tmp_path / "weights"


def test_a_shipped_name_goes_before_a_folder_of_that_name(package, tmp_path, monkeypatch):
    folder = package / "tiny" / "v2p" / "encoder"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"")
    (tmp_path / "tiny" / "v2p").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_weights("tiny/v2p") == package / "tiny" / "v2p"


def test_a_path_is_taken_as_it_is(package, tmp_path):
    (tmp_path / "own").mkdir()
    assert find_weights(tmp_path / "own") == tmp_path / "own"


def test_a_hub_id_that_is_in_the_cache_is_found(package, tmp_path, monkeypatch):
    asked = {}

    def download(name, **settings):
        asked.update(settings, name=name)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert find_weights("owner/model", revision="abc") == tmp_path
    assert asked == {"name": "owner/model", "revision": "abc", "local_files_only": True}


def test_what_a_recipe_trained_here_stands_in_for_what_is_not_shipped(package, tmp_path, monkeypatch):
    folder = tmp_path / "runs" / "weights" / "tiny" / "p2v"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert find_weights("tiny/p2v").resolve() == folder.resolve()


@pytest.mark.parametrize("name", list(weights.TRAINED_BY))
def test_shipped_weights_that_are_missing_name_every_command_that_trains_them(package, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (package / name).mkdir(parents=True)
    (package / name / "README.md").write_text("a card, and no weights")
    with pytest.raises(
        FileNotFoundError, match=rf"{name} are neither in .* nor in runs/weights/{name}; train them"
    ) as caught:
        find_weights(name)
    assert all(f"`raccoon fit --config {stage}`" in str(caught.value) for stage in weights.TRAINED_BY[name])


def test_a_shipped_folder_nobody_trains_must_hold_weights(package):
    (package / "other").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"the weights other are not in .*; copy them there"):
        find_weights("other")


def test_a_file_is_no_weights(package, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match=r"model\.safetensors is a file"):
        find_weights(tmp_path / "model.safetensors")


def test_a_path_that_is_not_there_names_what_can_be_given(package):
    with pytest.raises(FileNotFoundError, match=r"no weights in \.\./nowhere; give the folder .* tiny/clip"):
        find_weights("../nowhere")


def test_a_model_that_was_not_fetched_names_the_command_that_fetches_it(package, tmp_path, monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def download(name, **settings):
        raise LocalEntryNotFoundError("not cached")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(FileNotFoundError, match="hf download owner/model --revision abc"):
        find_weights("owner/model", revision="abc")


@pytest.mark.parametrize(("name", "stages"), list(weights.TRAINED_BY.items()))
def test_every_stage_is_a_recipe_and_the_last_one_writes_where_the_weights_are_looked_for(name, stages):
    texts = [recipes.locate(stage).read_text(encoding="utf-8") for stage in stages]
    assert f"folder: {weights.TRAINED_FOLDER / name}\n" in texts[-1]
