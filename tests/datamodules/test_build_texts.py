"""The words of a clip: names, paragraph, edits, and what is not described yet."""

import pytest

from raccoon_datamodules.build.sources import ObjectTexts, SourceVideo
from raccoon_datamodules.build.texts import attributes, clip_texts

PARAGRAPH = """Video Description: A park in autumn.

Object Descriptions:
1. Brown Dog: A small brown dog with floppy ears that runs over the grass.
2. Man: An adult in a grey coat who holds a leash."""


def video(**given):
    return SourceVideo(name="a", layout="rovi", root="/", video="a.mp4", **given)


def said(text):
    return ObjectTexts((text,))


def test_objects_that_nobody_has_described_have_a_name():
    found = clip_texts(video(categories={"2": "giant_panda", "3": "Giant Panda"}), ["1", "2", "3"])
    assert found.paragraph.names == ("Object 1", "Giant Panda", "Giant Panda (2)")
    assert found.paragraph.description == ""
    assert found.annotation == "none"


def test_a_video_without_objects_is_not_annotated():
    found = clip_texts(video(), [])
    assert (found.annotation, found.paragraph.objects) == ("none", ())


@pytest.mark.parametrize(
    "text",
    [
        "A small brown dog with floppy ears that runs over the grass.",
        "A brown dog with floppy ears runs over grass.",
        "Brown Dog: It runs.",
    ],
)
def test_a_released_description_is_found_in_the_paragraph(text):
    found = clip_texts(video(paragraphs=(PARAGRAPH,), texts={"2": said(text)}), ["2"])
    assert found.objects["2"].name == "Brown Dog"
    assert found.objects["2"].description.startswith("A small brown dog")
    assert found.paragraph.names == ("Brown Dog", "Man")
    assert found.annotation == "released"


def test_a_class_label_finds_its_object():
    found = clip_texts(video(paragraphs=(PARAGRAPH,), categories={"1": "man"}), ["1"])
    assert found.objects["1"].name == "Man"


def test_a_description_of_nothing_in_the_paragraph_is_added_to_it():
    texts = {"1": said("Bird: A crow on a fence."), "2": said("A red kite in the sky.")}
    found = clip_texts(video(paragraphs=(PARAGRAPH,), texts=texts), ["1", "2"])
    assert found.paragraph.names == ("Brown Dog", "Man", "Bird", "Object 2")
    assert found.objects["1"].description == "A crow on a fence."


def test_a_long_beginning_before_a_colon_is_no_name():
    text = "The man on the left of the picture: he wears a hat."
    found = clip_texts(video(texts={"1": said(text)}), ["1"])
    assert (found.objects["1"].name, found.objects["1"].description) == ("Object 1", text)


def test_what_is_only_partly_described_says_so():
    assert clip_texts(video(texts={"1": said("A dog.")}), ["1", "2"]).annotation == "partial"
    assert clip_texts(video(paragraphs=("Just a park.",)), ["1"]).annotation == "partial"


def test_two_objects_never_share_one_of_the_paragraph():
    categories = {"1": "man", "2": "man"}
    found = clip_texts(video(paragraphs=(PARAGRAPH,), categories=categories), ["1", "2"])
    assert (found.objects["1"].name, found.objects["2"].name) == ("Man", "Man (2)")


def test_a_second_paragraph_is_another_phrasing():
    found = clip_texts(video(paragraphs=(PARAGRAPH, "Video Description: Fall.")), [])
    assert found.phrasings[0].description == "Fall."


def test_written_edits_have_the_paragraph_before_and_after():
    prompts = (("removal", "Remove the dog."), ("adding", "Add a dog."), ("editing", "Raccoon: A grey raccoon."))
    texts = {"1": ObjectTexts(("Brown Dog: It runs.",), prompts)}
    remove, add, change = clip_texts(video(paragraphs=(PARAGRAPH,), texts=texts), ["1"]).edits
    assert (remove.kind, remove.after.names) == ("remove", ("Man",))
    assert (add.kind, add.before.names, add.after.names) == ("add", ("Man",), ("Brown Dog", "Man"))
    assert (change.kind, change.after.names, change.instruction) == (
        "change",
        ("Raccoon", "Man"),
        "Raccoon: A grey raccoon.",
    )
    assert change.after.objects[0].description == "A grey raccoon."


def test_a_change_without_a_name_keeps_the_name():
    texts = {"1": ObjectTexts(("A dog.",), (("editing", "a dog in a red coat"),))}
    (change,) = clip_texts(video(texts=texts), ["1"]).edits
    assert change.after.objects[0].name == "Object 1"
    assert change.after.objects[0].description == "a dog in a red coat"


def test_further_words_become_attributes():
    source = video(
        expressions={"1": ("the dog on the left",)}, texts={"1": ObjectTexts(("A.", "B."), (), ("Frame 1: ...",))}
    )
    assert attributes(source, "1") == {
        "expressions": ["the dog on the left"],
        "descriptions": ["B."],
        "layouts": ["Frame 1: ..."],
    }
    assert attributes(source, "2") == {}
