import sys
from dataclasses import dataclass

import pytest

from raccoon import recipes
from raccoon.interfaces import Painter

STRANGER = """
class Stranger:
    kinds = frozenset({"remove"})

    def __init__(self, radius=3, inner=None, *, label="x"):
        self.radius, self.inner, self.label = radius, inner, label

    def paint(self, wish):
        return wish.video.frames


class Strict:
    kinds = frozenset({"remove"})

    def __init__(self, radius: int, share: float = 0.5):
        self.radius, self.share = radius, share

    def paint(self, wish, /):
        return wish.video.frames


class Mute:
    kinds = frozenset({"remove"})


class Greedy:
    def paint(self, wish, more):
        return wish
"""

RECIPE = """
editor:
  grow: 5
  feather: ${editor.grow}
painter:
  class_path: strangers_module.Stranger
  init_args:
    radius: ${editor.grow}
grounder: null
"""


@dataclass(frozen=True, kw_only=True)
class Settings:
    grow: int | None = None
    feather: int | None = None


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "strangers_module.py").write_text(STRANGER)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("strangers_module", None)


def build(folder, *overrides, overlays=()):
    return recipes.build(folder / "recipe.yaml", overlays, overrides, settings={"editor": Settings})


def overlay(folder, text, name="overlay.yaml"):
    (folder / name).write_text(text)
    return folder / name


def test_a_strangers_unannotated_class_builds_with_no_registration(folder):
    recipe = build(folder)
    assert type(recipe.parts["painter"]).__name__ == "Stranger"
    assert recipe.parts["painter"].radius == 5
    assert recipe.settings["editor"] == Settings(grow=5, feather=5)


def test_a_flag_reaches_the_values_that_refer_to_it(folder):
    recipe = build(folder, "editor.grow=12")
    assert recipe.settings["editor"] == Settings(grow=12, feather=12)
    assert recipe.parts["painter"].radius == 12


def test_an_overlay_reaches_the_values_that_refer_to_it(folder):
    recipe = build(folder, overlays=[overlay(folder, "editor:\n  grow: 7\n")])
    assert recipe.settings["editor"].feather == 7
    assert recipe.parts["painter"].radius == 7


def test_overlays_are_merged_in_order_and_flags_come_last(folder):
    first = overlay(folder, "editor: {grow: 7}\npainter: {init_args: {label: first}}", "1.yaml")
    second = overlay(folder, "painter: {init_args: {label: second}}", "2.yaml")
    assert build(folder, overlays=[first, second]).parts["painter"].label == "second"
    assert build(folder, overlays=[second, first]).parts["painter"].label == "first"
    recipe = build(folder, "editor.grow=9", overlays=[first, second])
    assert (recipe.parts["painter"].radius, recipe.parts["painter"].label) == (9, "second")


def test_init_args_may_be_left_out_of_a_flag(folder):
    assert build(folder, "painter.radius=8").parts["painter"].radius == 8
    assert build(folder, "--painter.init_args.radius=8").parts["painter"].radius == 8


def test_another_class_drops_the_arguments_of_the_former(folder):
    recipe = build(folder, "painter=strangers_module.Strict", "painter.radius=2")
    assert type(recipe.parts["painter"]).__name__ == "Strict"
    overlaid = overlay(folder, "painter: {class_path: strangers_module.Strict, init_args: {radius: 4}}")
    assert build(folder, overlays=[overlaid]).parts["painter"].radius == 4


def test_classes_may_stand_inside_arguments(folder):
    inner = "painter.inner={class_path: strangers_module.Stranger, init_args: {radius: 1}}"
    assert build(folder, inner).parts["painter"].inner.radius == 1
    assert build(folder, inner.replace("={", "=[{") + "]").parts["painter"].inner[0].radius == 1


def test_sections_that_are_set_the_same_share_one_object(folder):
    (folder / "twins.yaml").write_text("describer: {class_path: strangers_twins.Both}\nlayout_planner: ${describer}\n")
    (folder / "strangers_twins.py").write_text(
        "class Both:\n"
        "    def __init__(self, size=3):\n        self.size = size\n"
        "    def describe(self, wish):\n        return wish\n"
        "    def plan(self, wish):\n        return wish\n"
    )
    built = recipes.build(folder / "twins.yaml")
    assert built.parts["layout_planner"] is built.parts["describer"]
    assert built.config["layout_planner"] == built.config["describer"]
    (folder / "own.yaml").write_text("layout_planner: {class_path: strangers_twins.Both, init_args: {size: 4}}\n")
    apart = recipes.build(folder / "twins.yaml", overlays=[folder / "own.yaml"])
    assert (apart.parts["describer"].size, apart.parts["layout_planner"].size) == (3, 4)


def test_the_resolved_recipe_is_complete_and_builds_the_same(folder, tmp_path):
    recipe = build(folder, "editor.grow=12")
    assert "${" not in recipe.text
    assert "label: x" in recipe.text
    (tmp_path / "again.yaml").write_text(recipe.text)
    again = recipes.build(tmp_path / "again.yaml", settings={"editor": Settings})
    assert again.config == recipe.config
    assert recipes.build(recipe.config, settings={"editor": Settings}).config == recipe.config


def test_an_absent_plain_section_has_its_defaults(tmp_path):
    (tmp_path / "empty.yaml").write_text("")
    assert recipes.build(tmp_path / "empty.yaml", settings={"editor": Settings}).settings["editor"] == Settings()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("editor.gro=1", r"editor: .*Settings has no argument 'gro'; did you mean 'grow'\?"),
        ("painter.radios=1", r"painter: .*Stranger has no argument 'radios'; did you mean 'radius'\?"),
        ("paintr=1", r"there is no section 'paintr'; did you mean 'painter'\?"),
        ("editor.grow=wide", r"editor\.grow must be int \| None, got 'wide'"),
        ("editor.grow=1.5", r"editor\.grow must be int \| None, got 1\.5"),
        ("painter=strangers_module.Strict", r"painter: .*Strict needs the argument radius"),
        ("painter={class_path: strangers_module.Strict, init_args: {radius: a}}", r"painter\.radius must be int, got"),
        (
            "painter={clas_path: strangers_module.Strict}",
            r"painter: unknown key 'clas_path'; did you mean 'class_path'",
        ),
        ("editor.grow=${editor.nothing}", r"Interpolation key 'editor\.nothing' not found"),
        ("editor.grow", r"a flag must read section\.key=value, got 'editor\.grow'"),
        ("editor.grow=[1", r"the value of the flag .* is not valid YAML"),
        ("painter.init_args=3", r"painter must be a mapping of .*Stranger's arguments, got 3"),
        ("painter=collections.OrderedDict", r"painter: collections\.OrderedDict does not show its arguments"),
        ("grounder=3", r"grounder must name a class: class_path"),
    ],
)
def test_a_wrong_recipe_is_one_sentence_that_names_the_key(folder, override, message):
    with pytest.raises(ValueError, match=message) as caught:
        build(folder, override)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("class_path", "error", "message"),
    [
        ("strangers_module.Strangr", ValueError, r"has no class 'Strangr'; did you mean 'Stranger'\?"),
        ("nowhere_to_be_found.Painter", ImportError, r"painter: cannot import nowhere_to_be_found\.Painter"),
        ("Painter", ValueError, r"class_path must read package\.module\.Class, got 'Painter'"),
    ],
)
def test_a_class_that_cannot_be_imported_is_named(folder, class_path, error, message):
    with pytest.raises(error, match=message):
        build(folder, f"painter={class_path}")


def test_what_a_strangers_class_raises_says_which_section_it_was_made_for(folder, monkeypatch):
    monkeypatch.setattr("strangers_module.Stranger.__init__", lambda self, radius: radius / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        build(folder)
    assert caught.value.__notes__ == ["while the recipe's painter was made of strangers_module.Stranger"]


def test_what_a_strangers_module_raises_says_which_section_it_was_imported_for(folder):
    (folder / "broken_module.py").write_text("def (")
    with pytest.raises(SyntaxError) as caught:
        build(folder, "painter=broken_module.Painter")
    assert "the recipe's painter was imported: broken_module.Painter" in caught.value.__notes__[0]


def test_a_flag_fills_a_plug_point_that_is_null(folder):
    with pytest.raises(TypeError, match=r"grounder: strangers_module\.Stranger is no Grounder"):
        build(folder, "grounder=strangers_module.Stranger")


def test_check_names_the_class_and_the_missing_method(folder):
    with pytest.raises(TypeError, match=r"painter: strangers_module\.Mute is no Painter: it has no method 'paint'"):
        build(folder, "painter=strangers_module.Mute")


def test_check_names_everything_that_is_wrong(folder):
    message = r"has no attribute 'kinds', it has 'paint', which cannot be called as paint\(request\): missing"
    with pytest.raises(TypeError, match=message):
        build(folder, "painter=strangers_module.Greedy")


def test_check_refuses_a_method_that_is_none_such():
    class Fake:
        kinds = frozenset()
        paint = 3

    with pytest.raises(TypeError, match="has 'paint', which is not a method"):
        recipes.check(Fake(), Painter)


def test_an_unknown_recipe_lists_the_names_and_the_nearest():
    with pytest.raises(FileNotFoundError, match=r"did you mean 'pipeline/classical'\?; the recipes are .*pipeline/cl"):
        recipes.locate("pipeline/classica")


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(IsADirectoryError, match="a recipe is one YAML file, got the folder"):
        recipes.locate(tmp_path)


def test_a_recipe_is_found_by_name_and_by_path():
    by_name = recipes.locate("pipeline/classical")
    assert by_name == recipes.locate("pipeline/classical.yaml") == recipes.locate(by_name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("editor: [1", "is not valid YAML"),
        ("- 1\n- 2\n", "must be a mapping of sections"),
        ("a: 1\na: 2\n", "duplicate"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        recipes.load(tmp_path / "bad.yaml")
