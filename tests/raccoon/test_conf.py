import re

import pytest

from raccoon import recipes
from raccoon.editor import Editor
from raccoon.testing import CHECKS

NAMES = recipes.names()
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
