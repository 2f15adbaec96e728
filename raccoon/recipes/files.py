"""Recipe files: finds them in ``conf/``, merges overlays and flags into one mapping, follows its references."""

import difflib
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]  # PyYAML, which omegaconf brings, ships no types

CLASS_KEYS = ("class_path", "init_args")


def names() -> tuple[str, ...]:
    """Return the names that `locate` knows, for instance ``pipeline/classical``, sorted."""
    root = _conf_folder()
    return tuple(sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml")))


def locate(recipe: str | Path) -> Path:
    """Return the file of a recipe given by its path or by its name in ``conf/``.

    Raises:
        FileNotFoundError: if there is no such file or no recipe of that name; says which names there are.
        IsADirectoryError: if the path is a folder.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    known = names()
    if (name := str(recipe).removesuffix(".yaml")) in known:
        return _conf_folder() / f"{name}.yaml"
    if path.is_dir():
        raise IsADirectoryError(f"a recipe is one YAML file, got the folder {path}; name a file in it")
    raise FileNotFoundError(
        f"there is no recipe {str(recipe)!r}, neither a file nor a name{nearest(name, known)}; "
        f"the recipes are {', '.join(known) or 'none'}"
    )


def load(recipe: str | Path, overlays: Sequence[str | Path] = (), overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Merge a recipe, its overlays and its dotted flags, in this order, and follow the references.

    ``overrides`` are ``section.key=value`` with the value in YAML; ``painter.radius=3`` is short for
    ``painter.init_args.radius=3`` and ``painter=package.Class`` for its ``class_path``. Where an overlay or a flag
    names another class, the ``init_args`` of the former one are dropped.

    Raises:
        ValueError: if a file is not a YAML mapping, a flag has no ``=``, or a reference leads nowhere.
        FileNotFoundError: see `locate`.
    """
    merged: dict[str, Any] = {}
    for source in (recipe, *overlays):
        merged = _merge(merged, _read(locate(source)))
    for override in overrides:
        merged = _merge(merged, _read_flag(override, merged))
    return follow(merged, str(recipe))


def _conf_folder() -> Path:
    """Return the folder of recipes: package data in a wheel, ``conf/`` of the repository in a checkout."""
    with as_file(files("raccoon")) as package:
        shipped = package / "conf"
        return shipped if shipped.is_dir() else package.parent / "conf"


def _read(path: Path) -> dict[str, Any]:
    try:
        # OmegaConf's loader reads 1e-5 as a number and refuses a key given twice; plain YAML does neither.
        content = OmegaConf.to_container(OmegaConf.create(path.read_text(encoding="utf-8")), resolve=False)
    except (YAMLError, UnicodeDecodeError, OmegaConfBaseException) as err:
        raise ValueError(f"the recipe {path} is not valid YAML: {' '.join(str(err).split())}") from err
    if not isinstance(content, dict):
        raise ValueError(f"the recipe {path} must be a mapping of sections, got a {type(content).__name__}")
    return {str(key): value for key, value in content.items()}


def _read_flag(override: str, merged: Mapping[str, Any]) -> dict[str, Any]:
    """Turn ``painter.radius=3`` into the overlay that says the same, given what is set so far."""
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().removeprefix("--").split(".")
    if not equals or not all(keys):
        raise ValueError(f"a flag must read section.key=value, got {override!r}")
    try:
        parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)
    except (YAMLError, OmegaConfBaseException) as err:
        raise ValueError(f"the value of the flag {override!r} is not valid YAML") from err
    assert isinstance(parsed, dict)
    value: Any = parsed["value"]
    path: list[str] = []
    node: Any = merged
    for key in keys:
        if isinstance(node, Mapping) and "class_path" in node and key not in CLASS_KEYS:
            path.append("init_args")
            node = node.get("init_args") or {}
        path.append(key)
        node = node.get(key) if isinstance(node, Mapping) else None
    # "grounder=package.Class" fills a plug point, whether another class stood there or null.
    is_plug = (isinstance(node, Mapping) and "class_path" in node) or (node is None and dotted.strip() in merged)
    if is_plug and isinstance(value, str):
        value = {"class_path": value}
    for key in reversed(path):
        value = {key: value}
    return value


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    base = dict(base)
    if "class_path" in over and over["class_path"] != base.get("class_path"):
        base.pop("init_args", None)
    for key, value in over.items():
        former = base.get(key)
        base[key] = _merge(former, value) if isinstance(former, Mapping) and isinstance(value, Mapping) else value
    return base


def follow(config: dict[str, Any], source: str) -> dict[str, Any]:
    """Return the mapping with every ``${...}`` replaced by what it refers to."""
    try:
        tree = OmegaConf.to_container(OmegaConf.create(config), resolve=True)
    except OmegaConfBaseException as err:
        raise ValueError(f"{source}: {str(err).splitlines()[0]} (at {getattr(err, 'full_key', None) or '?'})") from err
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def nearest(key: str, valid: Sequence[str]) -> str:
    """Return "; did you mean ...?" with the valid key most like a wrong one, or nothing."""
    near = difflib.get_close_matches(str(key), list(valid), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
