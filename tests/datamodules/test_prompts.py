import pytest

from raccoon_datamodules import prompts
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph


def test_the_removal_prompt_is_the_papers():
    assert prompts.REMOVAL_PROMPT == "inpainted background"


@pytest.mark.parametrize("prompt", [prompts.DESCRIBE_ALL, prompts.annotate(6)], ids=["describe", "annotate"])
def test_the_form_that_is_asked_for_reads_as_a_paragraph(prompt):
    form = prompt[prompt.index("Video Description:") :].split("\n\nUse fewer")[0]
    paragraph, notes = Paragraph.parse(form.replace("2. <name>", "2. <other name>"))
    assert paragraph.names == ("<name>", "<other name>")
    assert notes == []


def test_the_form_that_is_asked_for_reads_as_a_layout():
    prompt = prompts.plan_layout("Raccoon", num_frames=2, description="small and grey")
    form = prompt[prompt.index("Layouts of") :].replace(", ...", "")
    for word, number in (("<left>", "0.2"), ("<top>", "0.0"), ("<right>", "0.5"), ("<bottom>", "0.7")):
        form = form.replace(word, number)
    layout, notes = Layout.parse(form)
    assert (layout.name, layout.num_frames, notes) == ("Raccoon", 2, [])
    assert "Raccoon (small and grey)" in prompt
    assert "each of 2 frames" in prompt


def test_one_object_is_asked_for_by_name_or_by_prominence():
    assert "the Big Dog in this video" in prompts.describe_object(" Big\nDog ")
    assert "the most prominent object" in prompts.describe_object()


def test_the_annotation_prompt_makes_the_demands_of_the_paper():
    prompt = prompts.annotate(6, hints=("Panda", "**Man**"))
    assert "(1, 2, 3, 4, 5, 6)" in prompt
    assert "at most 5" in prompt
    assert "1. Panda\n2. Man" in prompt
    assert "fewer than 400 words" in prompt
    assert "must be in your list" not in prompts.annotate(1)


def test_the_painter_is_told_what_to_paint():
    assert prompts.paint_prompt("remove") == "inpainted background"
    assert prompts.paint_prompt("add", ObjectDescription("Raccoon", "A grey one.")) == "Raccoon: A grey one."
    assert prompts.paint_prompt("change", ObjectDescription("Raccoon")) == "Raccoon"


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: prompts.describe_object(" "), "name must not be empty"),
        (lambda: prompts.plan_layout("", num_frames=2), "name must not be empty"),
        (lambda: prompts.plan_layout("Dog", num_frames=0), "num_frames must be at least 1, got 0"),
        (lambda: prompts.annotate(0), "num_frames must be at least 1, got 0"),
        (lambda: prompts.annotate(2, hints=["a"] * 6), "at most 5 hints .* got 6"),
        (lambda: prompts.annotate(2, hints=[""]), "name must not be empty"),
        (lambda: prompts.paint_prompt("paint"), "kind must be 'remove', 'add' or 'change', got 'paint'"),
        (lambda: prompts.paint_prompt("add"), "kind 'add' needs the object to paint"),
    ],
)
def test_what_cannot_be_asked_is_refused(ask, message):
    with pytest.raises(ValueError, match=message):
        ask()
