"""Places that shards are read from: a folder, an http(s) address, another store's address, or a command's output."""

import re
import shlex
from pathlib import Path
from typing import Literal

Kind = Literal["folder", "http", "store", "pipe"]

_PIPE = "pipe:"
_NAME = "{name}"
_HTTP = re.compile(r"https?://", re.IGNORECASE)
# A single letter before the colon is a drive.
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)


def kind_of(place: str | Path) -> Kind:
    """How a place is read: ``folder`` and ``http`` by offset, ``store`` (s3://, gs://, hf://, ...) by its client, and
    ``pipe`` (``pipe:COMMAND`` with ``{name}`` for the file) from its start only.

    A command runs in a shell. So it is taken from what the user wrote (a recipe, the command line) and from nowhere
    else: the names in an index are file names and nothing more.
    """  # noqa: D205  # one sentence, too long for a line
    text = str(place)
    if isinstance(place, Path):
        return "folder"
    if _HTTP.match(text):
        return "http"
    if text.startswith(_PIPE):
        return "pipe"
    return "store" if _SCHEME.match(text) else "folder"


def is_url(place: str | Path) -> bool:
    """Whether a place is anything but a local folder."""
    return kind_of(place) != "folder"


def join(base: str | Path, name: str) -> str:
    """The place of a file ``name`` beside others in ``base``; for a pipe the command that writes that file out.

    Raises:
        ValueError: if a pipe's command does not say where the name goes, or the name might be taken for an option.
    """
    kind = kind_of(base)
    if kind == "folder":
        return str(Path(base) / name)
    if kind != "pipe":
        return f"{str(base).rstrip('/')}/{name}"
    if _NAME not in str(base):
        raise ValueError(
            f"a pipe must hold {_NAME} where the file's name goes, for example 'pipe:ssh host cat data/{_NAME}', "
            f"got {base!r}"
        )
    if name.startswith("-"):
        raise ValueError(f"a file whose name starts with a dash ({name}) is never given to a command ({base})")
    return str(base).replace(_NAME, shlex.quote(name))


def split_index(place: str | Path) -> tuple[str, str]:
    """(folder or address, name of the index in it) of a place, which may name an index by its path."""
    text = str(place)
    if kind_of(place) == "pipe" or not text.endswith(".json"):
        return text, "index.json"
    base, slash, name = text.rpartition("/")
    return base or (slash or "."), name
