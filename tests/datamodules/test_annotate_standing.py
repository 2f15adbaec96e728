"""Of text that is there in part, what is there stays, and only what is missing is asked for."""

import json
from dataclasses import replace

import numpy as np
import pytest

from raccoon_datamodules.annotate.annotator import AnnotateSettings, Annotator
from raccoon_datamodules.annotate.chat_cache import CachedChat
from raccoon_datamodules.annotate.estimate import estimate_run
from raccoon_datamodules.annotate.run import DatasetAnnotator
from raccoon_datamodules.annotate.standing import followed, standing_of
from raccoon_datamodules.examine.check import check_shards
from raccoon_datamodules.masks import boxes_of
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.sample import EditPrompt, ObjectRecord, VplmSample, decode, edits_of, encode
from raccoon_datamodules.sources import ShardSource
from raccoon_datamodules.video import Video
from raccoon_datamodules.view import MemberView
from raccoon_datamodules.writer import write_shards

DOG = ObjectDescription("Old Dog", "A dog as released.")
SHORE = ObjectDescription("Shore", "Wet stones as released.")


class Model:
    """Answers in turn, then "A" to a choice and `ANSWER` to everything else."""

    answer = str(
        Paragraph(
            "A scene as the model sees it.",
            (ObjectDescription("Old Dog", "A dog as the model sees it."), ObjectDescription("Cat", "A grey cat.")),
        )
    )

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def chat(self, images, text):
        self.asked.append((len(images), text))
        if self.answers:
            return self.answers.pop(0)
        return "A" if "one letter" in text else self.answer


def record(object_id, name, description="", category=""):
    mask = np.zeros((3, 16, 16), np.uint8)
    mask[:, 2 : 8 + int(object_id), 3:9] = 1
    return ObjectRecord(object_id, name, category, description, mask, boxes_of(mask), None)


def sample(description="", lines=(), objects=(), edits=(), phrasings=()):
    """What `raccoon vplm build` makes of a list that says something of a video."""
    rng = np.random.default_rng(0)
    video = Video.from_frames(rng.integers(0, 255, (3, 16, 16, 3), dtype=np.uint8), 8.0)
    paragraph = Paragraph(description, tuple(lines))
    return VplmSample("clip", video, paragraph, objects, tuple(edits), phrasings, {"annotation": "partial"})


@pytest.fixture
def fill(tmp_path):
    """Annotate a data set of one sample; gives the sample that came of it, and the model."""

    def go(made, *answers, edits="none", name="out", **options):
        model = Model(*answers)
        data = tmp_path / f"data-{name}"
        write_shards([made], data, split="train", overwrite=True)
        annotator = Annotator(CachedChat(model, tmp_path / "cache", identity={}), AnnotateSettings(edits=edits))
        go.report = DatasetAnnotator(data, tmp_path / name, annotator, by={"model": "m"}, **options).run(jobs=1)
        source = ShardSource(tmp_path / name)
        assert check_shards(tmp_path / name).ok
        return decode(source.read(0, 0)), model

    go.folder = tmp_path
    return go


HALF = {
    "description": "A scene as released.",
    "lines": (DOG, ObjectDescription("Cat (2)"), SHORE),
    "objects": (record("1", "Old Dog", DOG.description, "dog"), record("2", "Cat (2)", category="cat")),
}


def test_only_the_object_that_nobody_described_is_written(fill):
    found, _ = fill(sample(**HALF), "B")
    cat = ObjectDescription("Cat", "A grey cat.")
    assert found.paragraph == Paragraph("A scene as released.", (DOG, cat, SHORE))
    assert [(o.id, o.name, o.description) for o in found.objects] == [
        ("1", "Old Dog", "A dog as released."),
        ("2", "Cat", "A grey cat."),
    ]
    assert found.meta["annotation"] == {
        "model": "m",
        "corrected": False,
        "kept": {"description": True, "objects": ["1"]},
    }
    assert fill.report.num_filled == 1
    page = (fill.folder / "out/annotation/review/index.html").read_text()
    assert "left as they were: the description of the video and the words about 1 (Old Dog)." in page


def test_the_model_is_shown_what_stands_and_asked_for_the_rest(fill):
    _, model = fill(sample(**HALF), "B")
    asked = model.asked[1][1]
    assert str(Paragraph("A scene as released.", (DOG, SHORE))) in asked
    assert "one object is still to be described. Repeat the description of the video, then list objects that" in asked
    assert "must be in your list:\n1. cat\n" in asked


def test_a_clip_of_which_only_an_edit_stands_is_asked_about_like_any_other(fill):
    whole = Paragraph("", (ObjectDescription("Cat (2)"),))
    edit = EditPrompt("remove", "2", "Take the cat out.", whole, Paragraph(""))
    found, model = fill(sample("", whole.objects, HALF["objects"][1:], (edit,)), Model.answer)
    assert "is there already" not in model.asked[0][1]
    assert found.edits[0].before.names == ("Cat",)
    assert found.edits[0].after.names == ()


def test_a_line_about_no_mask_is_asked_about_before_anything_is_written(fill):
    made = sample(**{**HALF, "lines": (DOG, ObjectDescription("Cat (2)"), ObjectDescription("Grey Tom", "It sits."))})
    found, model = fill(made, "A")
    assert found.paragraph == Paragraph("A scene as released.", (DOG, ObjectDescription("Grey Tom", "It sits.")))
    assert (found.objects[1].name, found.objects[1].description) == ("Grey Tom", "It sits.")
    assert len(model.asked) == 1


def test_a_missing_description_of_the_video_is_all_that_is_written(fill):
    made = sample("", (DOG, SHORE), (record("1", "Old Dog", DOG.description, "dog"),))
    found, model = fill(made)
    assert found.paragraph == Paragraph("A scene as the model sees it.", (DOG, SHORE))
    assert found.objects[0].description == DOG.description
    assert len(model.asked) == 1
    assert "Write the description of the whole video, which is missing" in model.asked[0][1]


def test_an_answer_with_nothing_but_the_missing_description_will_do(fill):
    made = sample("", (DOG,), (record("1", "Old Dog", DOG.description, "dog"),))
    found, model = fill(made, "Video Description: Short.")
    assert found.paragraph == Paragraph("Short.", (DOG,))
    assert len(model.asked) == 1


def test_an_object_whose_class_another_one_shares_is_shown_with_its_outline(fill):
    dogs = (record("1", "Old Dog", DOG.description, "dog"), record("2", "Dog", category="dog"))
    answer = Model.answer.replace("Cat: A grey", "Dog: A second")
    found, model = fill(sample("Released.", (DOG, ObjectDescription("Dog")), dogs), answer, "A")
    assert [number for number, _ in model.asked] == [1, 1]
    assert "outlined in magenta" in model.asked[1][1]
    assert found.paragraph.names == ("Old Dog", "Dog")


def test_edits_and_phrasings_stand_and_follow_what_was_filled_in(fill):
    before = Paragraph("", (DOG, ObjectDescription("Cat (2)")))
    white = ObjectDescription("White Cat", "White as snow.")
    edits = (
        EditPrompt("remove", "2", "Take the cat out.", before, Paragraph("", (DOG,))),
        EditPrompt("change", "2", "Make it white.", before, Paragraph("", (DOG, white))),
        EditPrompt("add", "1", "Put the dog in.", Paragraph("", (ObjectDescription("Cat (2)"),)), before),
    )
    other = (Paragraph("Said in other words.", (DOG,)),)
    made = sample("", before.objects, HALF["objects"], edits, other)
    found, _ = fill(made, edits="all")
    cat, told = ObjectDescription("Cat", "A grey cat."), "A scene as the model sees it."
    whole, without = Paragraph(told, (DOG, cat)), Paragraph(told, (DOG,))
    assert found.paragraph == whole
    assert found.phrasings == other
    assert found.edits[:3] == (
        EditPrompt("remove", "2", "Take the cat out.", whole, without),
        EditPrompt("change", "2", "Make it white.", whole, Paragraph(told, (DOG, white))),
        EditPrompt("add", "1", "Put the dog in.", Paragraph(told, (cat,)), whole),
    )


def test_an_edit_is_added_only_where_an_object_has_none_of_its_kind(fill):
    whole = Paragraph("", (DOG, ObjectDescription("Cat (2)")))
    edits = (EditPrompt("remove", "1", "Take the dog out.", whole, Paragraph("", whole.objects[1:])),)
    made = sample("", whole.objects, HALF["objects"], edits)
    changes = "1. Make it red => Red Dog: A red dog.\n2. Make it blue => Blue Cat: A blue cat."
    found, _ = fill(made, Model.answer, changes, edits="all")
    assert [(e.object_id, e.kind) for e in found.edits] == [
        ("1", "remove"), ("1", "add"), ("2", "remove"), ("2", "add"), ("1", "change"), ("2", "change"),
    ]  # fmt: skip
    assert found.edits[0].instruction == "Take the dog out."


def test_an_object_that_a_written_edit_is_about_stays_without_a_caption(fill):
    whole = Paragraph("Released.", HALF["lines"])
    edit = EditPrompt("remove", "2", "Take the cat out.", whole, Paragraph("Released.", (DOG, SHORE)))
    made = sample(**{**HALF, "description": "Released.", "edits": (edit,)})
    found, _ = fill(made, "B", Model.answer.replace("Cat", "Lamp"), "B")
    assert found.edits == (edit,)
    assert [o.name for o in found.objects] == ["Old Dog", "Cat (2)"]
    assert found.paragraph == whole
    assert fill.report.unmatched == {"clip": ["2"]}


def test_an_object_without_a_caption_goes_and_its_empty_line_with_it(fill):
    found, _ = fill(sample(**HALF), "B", Model.answer.replace("Cat", "Lamp"), "B")
    assert [o.id for o in found.objects] == ["1"]
    assert found.paragraph == Paragraph("A scene as released.", (DOG, SHORE))
    kept, _ = fill(sample(**HALF), "B", Model.answer.replace("Cat", "Lamp"), "B", name="kept", keep_unmatched=True)
    assert kept.paragraph.names == ("Old Dog", "Shore", "Cat (2)")


def test_what_only_a_record_or_only_a_line_says_is_put_into_the_other(fill):
    objects = (record("1", "Old Dog", DOG.description), record("2", "Shore"), record("3", "Cat", "Grey."))
    made = sample("Released.", (ObjectDescription("Old Dog"), SHORE), objects)
    found, model = fill(made)
    assert model.asked == []
    assert found.paragraph == Paragraph("Released.", (DOG, SHORE, ObjectDescription("Cat", "Grey.")))
    assert [o.description for o in found.objects] == [DOG.description, SHORE.description, "Grey."]


def test_a_record_that_says_more_than_its_line_keeps_its_words(fill):
    objects = (record("1", "Old Dog", "Released words of the object alone."),)
    found, _ = fill(sample("", (DOG,), objects))
    assert found.objects[0].description == "Released words of the object alone."
    assert found.paragraph.objects == (DOG,)


def test_all_of_it_is_written_anew_if_asked(fill):
    found, model = fill(sample(**HALF), every=True)
    assert found.paragraph.description == "A scene as the model sees it."
    assert found.paragraph.find("Old Dog").description == "A dog as the model sees it."
    assert "is there already" not in model.asked[0][1]
    assert "kept" not in found.meta["annotation"]


def test_a_reviewers_replacements_touch_what_the_model_wrote_alone(fill):
    path = fill.folder / "mine.json"
    videos = [{"key": "clip", "replace": {"released": "seen", "grey": "black"}}]
    path.write_text(json.dumps({"format": "raccoon-vplm-corrections", "version": 1, "videos": videos}))
    found, _ = fill(sample(**HALF), "B", corrections=path)
    assert found.paragraph == Paragraph("A scene as released.", (DOG, ObjectDescription("Cat", "A black cat."), SHORE))


def test_a_persons_text_takes_the_place_of_what_stood_and_the_edits_stay(fill):
    whole = Paragraph("Released.", HALF["lines"])
    edit = EditPrompt("remove", "1", "Take it out.", whole, Paragraph("Released.", whole.objects[1:]))
    path = fill.folder / "mine.json"
    text = Paragraph("By hand.", (ObjectDescription("Old Dog", "By hand, too."), ObjectDescription("Cat", "Grey.")))
    videos = [{"key": "clip", "text": str(text)}]
    path.write_text(json.dumps({"format": "raccoon-vplm-corrections", "version": 1, "videos": videos}))
    found, model = fill(sample(**{**HALF, "description": "Released.", "edits": (edit,)}), corrections=path)
    assert found.paragraph == text
    assert [o.description for o in found.objects] == ["By hand, too.", "Grey."]
    assert found.edits == (replace(edit, before=text, after=Paragraph("By hand.", text.objects[1:])),)
    assert model.asked == []


def test_a_second_run_over_what_was_filled_in_copies_it(fill):
    found, _ = fill(sample(**HALF), "B")
    again, model = fill(found, name="again")
    assert model.asked == []
    assert fill.report.num_kept == 1
    assert (again.paragraph, again.meta) == (found.paragraph, found.meta)


def test_a_dry_run_counts_what_is_missing_only(fill):
    fill(sample(**HALF), "B", edits="all")
    chat = CachedChat(Model(), fill.folder / "other", identity={})
    found = estimate_run(fill.folder / "data-out", Annotator(chat, AnnotateSettings(edits="all")))
    # Its line "Shore" may be about the cat, else one that is written.
    assert (found.num_asked, found.num_filled) == (1, 1)
    assert (found.num_paragraphs, found.num_matches, found.num_changes) == (1, 2, 1)
    assert "still to be described" in found.prompt
    chat = CachedChat(Model(), fill.folder / "cache", identity={})
    later = estimate_run(fill.folder / "data-out", Annotator(chat, AnnotateSettings(edits="all")))
    assert (later.num_answered, later.num_requests) == (1, 0)


def test_nothing_stands_where_nobody_said_anything():
    made = sample("", (ObjectDescription("Cat"),), (record("1", "Cat"),))
    assert standing_of(MemberView(encode(made))) is None


def test_two_masks_of_one_name_are_not_both_described_by_its_line():
    found = standing_of(MemberView(encode(sample("x", (DOG,), (record("1", "Old Dog"), record("2", "Old Dog"))))))
    assert (dict(found.told), dict(found.bare)) == ({"1": "Old Dog"}, {"2": ""})


def test_an_edit_that_says_something_of_its_own_keeps_it():
    other = Paragraph("Words of its own.", (ObjectDescription("Robot", "Shiny."),))
    edit = EditPrompt("change", "1", "Make it a robot.", Paragraph("", (DOG,)), other)
    made = sample("", (DOG,), (record("1", "Old Dog", DOG.description),), (edit,))
    standing = standing_of(MemberView(encode(made)))
    (now,) = followed(standing, Paragraph("New.", (DOG,)), {"1": "Old Dog"})
    assert now == replace(edit, before=Paragraph("New.", (DOG,)))
    assert edits_of(MemberView(encode(made))) == (edit,)
