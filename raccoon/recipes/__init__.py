"""Recipes: finds the YAML files of ``conf/``, merges overlays and flags into one, and builds what it names.

A recipe is one complete YAML file. Its sections are plug points (``painter``, ``grounder``...), each naming a class by
``class_path`` and ``init_args``, or plain settings (``editor``). A class from anybody's package works with no
registration: `check` verifies once, when it is built, that it offers what its plug point needs. Overlays are merged in
the order given, then the dotted flags (``editor.grow=12``), and only then are references such as ``${editor.grow}``
followed, so that a flag reaches every value that refers to it.

This module imports neither torch nor a class named by a recipe until `build` is called: the command line's parser uses
it.
"""

from raccoon.recipes.build import PARSER_MODE, PLUG_POINTS, Recipe, build, check
from raccoon.recipes.files import load, locate, names

__all__ = ["PARSER_MODE", "PLUG_POINTS", "Recipe", "build", "check", "load", "locate", "names"]
