"""What went wrong in `raccoon fit` and its sisters, in one sentence, out of what jsonargparse, torch and Lightning say.

jsonargparse reports a wrong key as a tree of every type it tried. The sentence keeps the path to the key, the class,
and the one leaf that is no mere "not None", and adds the nearest key that would have been right.
"""

import importlib
import inspect
import re
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from raccoon.recipes.files import nearest

_KEY = re.compile(r'Parser key "([^"]+)":?$')
_CLASS = re.compile(r"Problem with given class_path '([^']+)':?$")
_NOISE = re.compile(
    r"Does not validate against any of the Union subtypes|Subtypes: |Errors:$|Given value|Expected a [^.]*$|$"
)
_TOP_LEVEL = ("seed_everything", "model", "data", "trainer", "ckpt_path", "weights_only", "config", "print_config")
_UNION = "Does not validate against any of the Union subtypes"
_DAMAGED = ("Error while deserializing header", "PytorchStreamReader")
_NAMED_TENSORS = 3


def sentence(err: BaseException, *, words: Sequence[str] = ()) -> str | None:
    """Return what was wrong with the user's input in one sentence, or None if the error speaks for itself.

    ``words`` are the command's; the recipes among them are searched for weight files that cannot be read.
    """
    # jsonargparse repeats what a class said while it was built, so the text is looked at before the kind.
    text = str(err)
    kind = type(err).__name__
    if "loading state_dict" in text:
        return state_sentence(text)
    if kind == "SafetensorError" or any(mark in text for mark in _DAMAGED):
        damaged = damaged_files(words)
        where = f"the weight file {damaged[0]} is" if damaged else "a weight file is"
        reason = next((line.strip(" -") for line in text.splitlines() if any(m in line for m in _DAMAGED)), text)
        return f"{where} damaged or cut off ({_one_line(reason)}); copy it again or train it anew"
    if isinstance(err, ArgumentError) or _UNION in text:
        return configuration_sentence(text)
    if isinstance(err, OmegaConfBaseException):
        key = re.sub(r"^(fit|validate|test|predict)\.", "", str(getattr(err, "full_key", None) or "?"))
        if found := re.match(r"Interpolation key '\.*([^']+)' not found", text):
            return f"{key} refers to ${{{found[1]}}}, which no recipe or flag sets"
        return f"{key}: {text.splitlines()[0]}"
    if kind == "MisconfigurationException":
        return _one_line(text)
    return None


def cause_of(err: BaseException) -> BaseException:
    """Return what a class raised while it was built, where jsonargparse has hidden it behind the types it tried.

    A ValueError or TypeError stays hidden: there jsonargparse's path to the key says more.
    """
    root = err
    while _UNION in str(err) and root.__cause__ is not None:
        root = root.__cause__
    return root if isinstance(root, OSError | RuntimeError | MemoryError) else err


def configuration_sentence(text: str) -> str:
    """Shorten a message of jsonargparse."""
    keys: list[str] = []
    class_path = ""
    leaf = ""
    for line in text.splitlines():
        line = line.strip().removeprefix("- ").strip()
        if found := _KEY.match(line):
            keys.append(found[1])
        elif found := _CLASS.match(line):
            class_path = found[1]
        elif not _NOISE.match(line):
            leaf = line
    # Where no alternative of a union has more to say than its type, the union itself is what was wanted.
    if not leaf and (subtypes := re.findall(r"Subtypes: [(\[](.*)[)\]]", text)):
        given = re.findall(r"Given value: (.*)", text)
        leaf = f"must be one of {_types(subtypes[-1])}, got {given[0] if given else '?'}"
    where = ".".join(keys)
    return _leaf(leaf or _one_line(text), where=where, class_path=class_path)


def state_sentence(text: str) -> str:
    """Shorten torch's list of tensors that do not fit."""
    shape = r"(torch\.Size\([^)]*\))"
    pattern = (
        rf"size mismatch for (\S+): copying a param with shape {shape} from checkpoint, the shape in .*? is {shape}"
    )
    sizes = re.findall(pattern, text)
    missing = re.findall(r'"([^"]+)"', "".join(re.findall(r"Missing key\(s\) in state_dict: (.*)", text)))
    unexpected = re.findall(r'"([^"]+)"', "".join(re.findall(r"Unexpected key\(s\) in state_dict: (.*)", text)))
    faults = []
    if sizes:
        named = ", ".join(
            f"{name} {_shape(theirs)} for {_shape(ours)}" for name, theirs, ours in sizes[:_NAMED_TENSORS]
        )
        faults.append(f"{len(sizes)} tensors have another shape ({named}{_more(sizes)})")
    for names, what in ((missing, "are missing"), (unexpected, "are not in the model")):
        if names:
            faults.append(f"{len(names)} tensors {what} ({', '.join(names[:_NAMED_TENSORS])}{_more(names)})")
    said = "; ".join(faults) or _one_line(text)
    return f"the checkpoint does not fit the model: {said}; use the recipe it was trained with, config.yaml in its run"


def damaged_files(words: Sequence[str]) -> list[Path]:
    """Return the .safetensors files named by the recipes or flags of a command that cannot be opened."""
    from safetensors import SafetensorError, safe_open

    damaged = []
    for path in sorted({path for word in _strings(words) for path in _weight_files(word)}):
        try:
            with safe_open(path, framework="np"):
                pass
        except (SafetensorError, OSError):
            damaged.append(path)
    return damaged


def _leaf(leaf: str, *, where: str, class_path: str) -> str:
    at = f"{where}: " if where else ""
    if found := re.match(r"Option '([^']+)' is not accepted", leaf):
        return f"{at}{class_path} has no argument {found[1]!r}{_suggest(found[1], _arguments(class_path))}"
    if found := re.match(r"Group '([^']+)' does not accept option '([^']+)'", leaf):
        valid = _arguments(class_path, *found[1].split("."))
        return f"{at}{found[1]} of {class_path} has no key {found[2]!r}{_suggest(found[2], valid)}"
    if found := re.match(r"Subcommand '\w+' does not accept option '([^']+)'", leaf) or re.match(
        r"unrecognized arguments: --([^\s=]+)", leaf
    ):
        return f"there is no key {found[1]!r}{_suggest_dotted(found[1])}"
    if found := re.match(r"the following arguments are required: (.+)", leaf):
        names = re.sub(r"\b(fit|validate|test|predict)\.", "", found[1])
        if class_path:
            return f"{at}{class_path} needs the argument {names}; set it in the recipe"
        return f"the configuration lacks {names}; give a recipe that sets it by --config"
    if found := re.match(r"Expected an? (.+?)\. Got value: (.*)", leaf):
        return f"{where} must be {_types(found[1])}, got {found[2]}"
    if found := re.match(r"Import path (\S*) ?does not correspond to a subclass of (\w+)", leaf):
        return f"{at}{found[1] or 'the class given'} is no {found[2]}; name a class that is"
    if re.match(r"No module named|module '\S+' has no attribute|.*cannot import name", leaf):
        return f"{at}cannot import {class_path}: {leaf}; is the name right and its package installed?"
    return f"{at}{_one_line(leaf)}"


def _suggest(key: str, valid: Sequence[str]) -> str:
    return nearest(key, valid) or (f"; it takes {', '.join(valid)}" if valid else "")


def _suggest_dotted(key: str) -> str:
    """The nearest of the trainer's arguments or of the sections."""
    section, _, rest = key.partition(".")
    if section == "trainer" and rest:
        return nearest(key, [f"trainer.{name}" for name in _arguments("lightning.pytorch.Trainer")])
    return nearest(section, _TOP_LEVEL) or f"; a recipe has {', '.join(_TOP_LEVEL[:4])}"


def _arguments(class_path: str, *inner: str) -> list[str]:
    """The names of a class's arguments, or of the class that annotates one of them."""
    module, _, name = class_path.rpartition(".")
    try:
        cls: Any = getattr(importlib.import_module(module), name)
        for argument in inner:
            cls = inspect.signature(cls).parameters[argument].annotation
        parameters = inspect.signature(cls).parameters.values()
    except (ImportError, AttributeError, KeyError, TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def _types(text: str) -> str:
    plain = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    return re.sub(r"\b(?:typing|collections\.abc)\.", "", plain).replace("NoneType", "null")


def _strings(words: Sequence[str]) -> Iterator[str]:
    from omegaconf import OmegaConf

    def within(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            for item in value.values() if isinstance(value, dict) else value:
                yield from within(item)

    for word in words:
        if word.endswith((".yaml", ".yml")) and Path(word).is_file():
            yield from within(OmegaConf.to_container(OmegaConf.load(word), resolve=False))
        yield word.partition("=")[2] or word


def _weight_files(word: str) -> list[Path]:
    path = Path(word)
    try:
        if path.suffix == ".safetensors" and path.is_file():
            return [path]
        # Two levels: a network's folder, and one that holds the folders of its parts.
        return [*path.glob("*.safetensors"), *path.glob("*/*.safetensors")] if path.is_dir() and word != "." else []
    except OSError:  # a word too long for a path
        return []


def _shape(text: str) -> str:
    return text.removeprefix("torch.Size").strip("()")


def _more(found: Sequence[Any]) -> str:
    return ", ..." if len(found) > _NAMED_TENSORS else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())
