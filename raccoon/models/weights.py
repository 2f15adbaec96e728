"""Where weights are: shipped with the package, in a folder, or in the local cache of the Hugging Face hub.

One name serves recipes and Python alike. ``tiny/v2p`` is ``raccoon/weights/tiny/v2p`` of the installed package; any
other is a path; what is no path is a model of the hub. Nothing is ever downloaded here: what is missing is said in one
sentence, with the commands that make or fetch it, before anything is computed.
"""

from importlib.resources import as_file, files
from pathlib import Path

# Where the recipes write what they train, below the folder they are run in.
TRAINED_FOLDER = Path("runs/weights")
# Shipped weights and the recipes that train them, in this order.
TRAINED_BY: dict[str, tuple[str, ...]] = {
    "tiny/clip": ("tiny/clip",),
    "tiny/v2p": ("tiny/clip", "tiny/language", "v2p/tiny"),
    "tiny/p2v": ("tiny/clip", "tiny/vae", "tiny/inpaint", "p2v/tiny"),
}


def shipped_folder() -> Path:
    """Return the folder that the shipped weights stand in, ``raccoon/weights``; it may not be there."""
    with as_file(files("raccoon")) as package:
        return package / "weights"


def find_weights(name_or_path: str | Path, *, revision: str | None = None) -> Path:
    """Return the folder of weights.

    Looked up in this order: a name under the shipped weights (``tiny/v2p``), where none are shipped the same name under
    `TRAINED_FOLDER`, a path, a model of the Hugging Face hub (``owner/name``) that is in the local cache.

    Args:
        name_or_path: one of the three.
        revision: commit of the hub model; ignored otherwise.

    Raises:
        FileNotFoundError: if there is nothing: one sentence with the commands that train or fetch the weights.
        NotADirectoryError: if the path is a file.
    """
    name = str(name_or_path)
    folder = shipped_folder() / name
    if name in TRAINED_BY or (_is_plain(name) and folder.is_dir()):
        for place in (folder, TRAINED_FOLDER / name):
            # A folder that holds nothing but a card is no model.
            if any(path.is_file() for path in place.rglob("*.safetensors")):
                return place
        raise FileNotFoundError(_not_trained(name, folder))
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise NotADirectoryError(f"weights are a folder, as save_pretrained writes it; {path} is a file")
    if name.count("/") != 1 or not _is_plain(name):
        known = ", ".join(TRAINED_BY)
        raise FileNotFoundError(
            f"there are no weights in {path}; give the folder of a trained model, its id on the hub, or one of {known}"
        )
    return _cached(name, revision)


def _is_plain(name: str) -> bool:
    """Whether a name could stand below a folder: relative, with no part that leads elsewhere."""
    parts = name.split("/")
    return bool(name) and not name.startswith("~") and all(part not in ("", ".", "..") for part in parts)


def _not_trained(name: str, folder: Path) -> str:
    stages = TRAINED_BY.get(name)
    if stages is None:
        return f"the weights {name} are not in {folder}; copy them there or give another folder"
    commands = ", ".join(f"`raccoon fit --config {stage}`" for stage in stages)
    order = ", in this order," if len(stages) > 1 else ""
    return (
        f"the weights {name} are neither in {folder} nor in {TRAINED_FOLDER / name}; train them{order} with "
        f"{commands}, or give another folder"
    )


def _cached(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError as err:
        pinned = f" --revision {revision}" if revision else ""
        raise FileNotFoundError(
            f"{name} is neither a folder nor in the local Hugging Face cache; fetch it with: hf download {name}{pinned}"
        ) from err
