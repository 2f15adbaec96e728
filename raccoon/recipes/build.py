"""Building: a merged recipe to objects, each class checked against its plug point."""

import importlib
import inspect
import re
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, set_parsing_settings
from omegaconf import OmegaConf

from raccoon.recipes.files import CLASS_KEYS, follow, load, nearest

# With plain "omegaconf" a flag does not reach the values that refer to it.
PARSER_MODE = "omegaconf+"
set_parsing_settings(omegaconf_absolute_to_relative_paths=True)

# Section of a recipe -> its Protocol in raccoon.interfaces.
PLUG_POINTS = {
    "painter": "Painter",
    "grounder": "Grounder",
    "layout_planner": "LayoutPlanner",
    "describer": "Describer",
    "superpixels": "SuperpixelModel",
    "encoder": "VisualEncoder",
    "flow": "FlowEstimator",
    "features": "VideoFeatures",
    "chat": "Chat",
}


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """A recipe that was built.

    ``source`` its name or path; ``parts`` the object of each plug point that the recipe fills; ``settings`` the object
    of each plain section; ``config`` everything that was set or defaulted, as plain values, all references followed.
    """

    source: str
    parts: Mapping[str, Any]
    settings: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The resolved recipe as YAML, complete: building it again gives the same objects."""
        return OmegaConf.to_yaml(OmegaConf.create(dict(self.config)))


def build(
    recipe: str | Path | Mapping[str, Any],
    overlays: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    *,
    settings: Mapping[str, type] | None = None,
) -> Recipe:
    """Build everything a recipe names; sections that are set the same get one object.

    ``recipe`` is a path, a name in ``conf/``, or the ``config`` of an earlier `Recipe`. ``settings`` gives the class
    (a dataclass, say) of each plain section; an absent plain section is built from its defaults.

    Raises:
        ValueError: if a key is unknown (with the nearest valid key), a module has no such class, a value has the wrong
            type, or a needed argument is missing; one sentence that names the section.
        ImportError: if a class's module cannot be imported; what else a stranger's module or class raises comes
            through, with a note that names the section.
        TypeError: if a class does not offer what its plug point needs, see `check`.
        FileNotFoundError: see `locate`.
    """
    plain = dict(settings or {})
    if isinstance(recipe, Mapping):
        source, config = "the recipe given", follow(dict(recipe), "the recipe given")
    else:
        source, config = str(recipe), load(recipe, overlays, overrides)
    sections = (*plain, *PLUG_POINTS)
    for key in config:
        if key not in sections:
            raise ValueError(
                f"{source}: there is no section {key!r}{nearest(key, sections)}; use {', '.join(sections)}"
            )
    parts: dict[str, Any] = {}
    made: dict[str, Any] = {}
    resolved: dict[str, Any] = {}
    for key, cls in plain.items():
        made[key], resolved[key] = _construct(cls, {} if config.get(key) is None else config[key], where=key)
    for key, node in config.items():
        if key in plain:
            continue
        resolved[key] = None
        if node is not None:
            # Sections that are set the same (`layout_planner: ${describer}`) share one object: a model loads once.
            twin = next((other for other in parts if config[other] == node), None)
            parts[key], resolved[key] = _instantiate(node, where=key) if twin is None else (parts[twin], resolved[twin])
            check(parts[key], _protocol(key), where=key)
    return Recipe(source=source, parts=parts, settings=made, config=resolved)


def check(obj: object, protocol: type, *, where: str = "") -> None:
    """Verify that an object offers the attributes and methods of a Protocol.

    Names and annotations of parameters are the object's own business; their number must fit a positional call.

    Raises:
        TypeError: names the class and everything that is missing.
    """
    faults = []
    for name in getattr(protocol, "__annotations__", {}):
        if not hasattr(obj, name):
            faults.append(f"has no attribute {name!r}")
    for name, wanted in vars(protocol).items():
        if name.startswith("_") or not inspect.isfunction(wanted):
            continue
        method = getattr(obj, name, None)
        if not callable(method):
            faults.append(f"has no method {name!r}" if method is None else f"has {name!r}, which is not a method")
            continue
        parameters = list(inspect.signature(wanted).parameters)[1:]
        try:
            inspect.signature(method).bind(*parameters)
        except TypeError as err:
            faults.append(f"has {name!r}, which cannot be called as {name}({', '.join(parameters)}): {err}")
        except ValueError:  # a method written in C shows no signature
            continue
    if faults:
        section = f"{where}: " if where else ""
        raise TypeError(
            f"{section}{_path_of(type(obj))} is no {protocol.__name__}: it {', it '.join(faults)}; "
            f"see raccoon.interfaces.{protocol.__name__}"
        )


def _instantiate(node: Any, *, where: str) -> tuple[Any, Any]:
    """Build the object of a class_path node, and the node with its defaults filled in."""
    if not isinstance(node, Mapping) or not isinstance(node.get("class_path"), str):
        raise ValueError(f"{where} must name a class: class_path: package.module.Class and its init_args, got {node!r}")
    for key in node:
        if key not in CLASS_KEYS:
            raise ValueError(
                f"{where}: unknown key {key!r}{nearest(key, CLASS_KEYS)}; arguments of the class go under init_args"
            )
    class_path = node["class_path"]
    given = {} if node.get("init_args") is None else node["init_args"]
    made, init_args = _construct(_import(class_path, where), given, where=where)
    return made, {"class_path": class_path, "init_args": init_args}


def _construct(cls: type, given: Any, *, where: str) -> tuple[Any, dict[str, Any]]:
    """Call a class with the arguments of a recipe, after checking their names and, where annotated, their types."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} must be a mapping of {_path_of(cls)}'s arguments, got {given!r}")
    try:
        parameters = inspect.signature(cls).parameters
    except ValueError as err:
        raise ValueError(
            f"{where}: {_path_of(cls)} does not show its arguments; name a class written in Python"
        ) from err
    takes_more = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for key in given:
        if key not in named and not takes_more:
            raise ValueError(
                f"{where}: {_path_of(cls)} has no argument {key!r}{nearest(str(key), named)}; "
                f"it takes {', '.join(named) or 'none'}"
            )
    if missing := [name for name in named if parameters[name].default is inspect.Parameter.empty and name not in given]:
        raise ValueError(f"{where}: {_path_of(cls)} needs the argument {' and '.join(missing)}; set it in the recipe")
    # What holds objects is built here and handed over as it is; the rest is checked by jsonargparse.
    arguments: dict[str, Any] = {}
    resolved: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for key, value in given.items():
        if _names_a_class(value):
            arguments[key], resolved[key] = _instantiate_within(value, where=f"{where}.{key}")
        elif key in named:
            values[key] = resolved[key] = value
        else:
            arguments[key] = resolved[key] = value
    for name in named:
        default = parameters[name].default
        if name not in resolved and _is_plain(default):
            resolved[name] = list(default) if isinstance(default, tuple) else default
    arguments |= _typed(cls, values, skip=set(named) - set(values), where=where)
    try:
        return cls(**arguments), resolved
    except Exception as err:
        err.add_note(f"while the recipe's {where} was made of {_path_of(cls)}")
        raise


def _typed(cls: type, values: dict[str, Any], *, skip: set[str], where: str) -> dict[str, Any]:
    parser = ArgumentParser(prog="raccoon", parser_mode=PARSER_MODE, exit_on_error=False, allow_abbrev=False)
    parser.add_class_arguments(cls, where, skip=skip, fail_untyped=False, instantiate=False)
    nested: Any = values
    for key in reversed(where.split(".")):
        nested = {key: nested}
    try:
        node = parser.instantiate(parser.parse_object(nested)).get(where)
    except (ArgumentError, ValueError) as err:
        found = re.search(r'Parser key "([^"]+)"', str(err))
        key = found.group(1).removeprefix(f"{where}.") if found else ""
        if key not in values:
            raise ValueError(f"{where}: {' '.join(str(err).split())}") from err
        wanted = inspect.formatannotation(inspect.signature(cls).parameters[key].annotation)
        raise ValueError(f"{where}.{key} must be {wanted}, got {values[key]!r}") from err
    return {key: node[key] for key in values}


def _instantiate_within(value: Any, *, where: str) -> tuple[Any, Any]:
    if isinstance(value, Mapping) and "class_path" in value:
        return _instantiate(value, where=where)
    if isinstance(value, Mapping):
        pairs = {key: _instantiate_within(item, where=f"{where}.{key}") for key, item in value.items()}
        return {key: pair[0] for key, pair in pairs.items()}, {key: pair[1] for key, pair in pairs.items()}
    if isinstance(value, list):
        built = [_instantiate_within(item, where=f"{where}.{index}") for index, item in enumerate(value)]
        return [pair[0] for pair in built], [pair[1] for pair in built]
    return value, value


def _names_a_class(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "class_path" in value or any(_names_a_class(item) for item in value.values())
    return isinstance(value, list) and any(_names_a_class(item) for item in value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _import(class_path: str, where: str) -> type:
    module_name, _, class_name = class_path.rpartition(".")
    if not module_name:
        raise ValueError(f"{where}: class_path must read package.module.Class, got {class_path!r}")
    try:
        module = importlib.import_module(module_name)
    except ImportError as err:
        raise ImportError(f"{where}: cannot import {class_path}: {err}; is its package installed?") from err
    except Exception as err:
        err.add_note(f"while the recipe's {where} was imported: {class_path}")
        raise
    found = getattr(module, class_name, None)
    if not inspect.isclass(found):
        classes = [name for name, value in vars(module).items() if inspect.isclass(value)]
        raise ValueError(f"{where}: module {module_name} has no class {class_name!r}{nearest(class_name, classes)}")
    return found


def _protocol(section: str) -> type:
    return getattr(importlib.import_module("raccoon.interfaces"), PLUG_POINTS[section])


def _path_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
