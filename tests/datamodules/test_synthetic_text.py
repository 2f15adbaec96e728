"""Words of the procedural VPLM: paragraphs in the paper's format, several phrasings, edit prompts."""

import pytest

from raccoon_datamodules.paragraph import Paragraph
from raccoon_datamodules.synthetic import make_sample, make_scene
from raccoon_datamodules.synthetic.narrate import NUM_PHRASINGS, with_article
from raccoon_datamodules.synthetic.scene import Scene
from raccoon_datamodules.synthetic.vocabulary import MOTIONS, PATTERNS

LEVELS = ("easy", "medium", "hard")


@pytest.mark.parametrize("difficulty", LEVELS)
def test_every_phrasing_reads_back_as_itself(difficulty):
    for seed in range(25):
        scene = make_scene(seed, difficulty)
        for phrasing in range(8):
            paragraph = scene.paragraph(phrasing)
            assert Paragraph.parse(str(paragraph)) == (paragraph, [])


@pytest.mark.parametrize("difficulty", LEVELS)
def test_object_names_are_unique_in_a_scene(difficulty):
    for seed in range(150):
        names = [obj.name.lower() for obj in make_scene(seed, difficulty).objects]
        assert len(set(names)) == len(names)


def test_two_hard_objects_of_one_colour_and_category_are_told_apart_by_size():
    twins = [obj for seed in range(1500) for obj in make_scene(seed, "hard").objects if obj.qualifier]
    assert twins
    assert all(obj.name.split()[0].lower() == obj.size for obj in twins)


def test_phrasings_say_the_same_in_other_words():
    sample = make_sample(1, "medium", inpainted=False)
    assert len(sample.phrasings) == NUM_PHRASINGS - 1
    for phrasing in sample.phrasings:
        assert [entry.name for entry in phrasing.objects] == [record.name for record in sample.objects]
    scenes = [make_scene(seed) for seed in range(30)]
    assert sum(len({str(scene.paragraph(k)) for k in range(NUM_PHRASINGS)}) == NUM_PHRASINGS for scene in scenes) > 25


def test_at_least_four_sentence_forms_are_used_for_scenes_and_objects():
    scenes = [make_scene(seed, num_objects=1) for seed in range(40)]
    openings = {scene.paragraph(1).description.split()[0] for scene in scenes}
    assert {"A", "The", "One"} <= openings
    assert openings & {"In", "Against", "Before"}
    texts = [scene.paragraph(1).objects[0].description for scene in scenes]
    forms = [" that ", ". It ", ", and it ", ", which ", ". The "]
    assert all(any(form in text for text in texts) for form in forms)


def test_the_reference_paragraph_names_every_fact():
    for difficulty in LEVELS:
        for seed in range(20):
            scene = make_scene(seed, difficulty)
            for obj, entry in zip(scene.objects, scene.paragraph().objects, strict=True):
                text = entry.description.lower()
                assert all(word in text for word in (obj.size, obj.colour, obj.category, obj.pattern))
                assert obj.colour in entry.name.lower()
                assert obj.category in entry.name.lower()
                assert ("later" in text) == (obj.course.enters_at > 0)
                assert ("leaves" in text) == (obj.course.leaves_at < 1)
            assert scene.background.split()[-1] in scene.paragraph().description


def test_a_record_holds_its_entry_of_the_paragraph():
    sample = make_sample(4, "hard", inpainted=False)
    for record, entry in zip(sample.objects, sample.paragraph.objects, strict=True):
        assert (record.name, record.description) == (entry.name, entry.description)


def test_every_motion_and_pattern_has_words_in_every_phrasing():
    seen = {}
    for seed in range(120):
        scene = make_scene(seed, "hard")
        for obj in scene.objects:
            for phrasing in range(4):
                text = scene.paragraph(phrasing).find(obj.name).description
                assert "{" not in text
                assert text.endswith(".")
                seen.setdefault(obj.course.kind, set()).add(text)
                seen.setdefault(obj.pattern, set()).add(text)
    assert {*MOTIONS, *PATTERNS} <= set(seen)


def test_an_empty_scene_has_a_paragraph_without_objects():
    scene = make_scene(3, num_objects=1).without(0)
    for phrasing in range(4):
        paragraph = scene.paragraph(phrasing)
        assert paragraph.objects == ()
        assert Paragraph.parse(str(paragraph)) == (paragraph, [])


def test_edit_prompts_lead_from_one_paragraph_to_another():
    for difficulty in LEVELS:
        for seed in range(10):
            scene = make_scene(seed, difficulty)
            whole = scene.paragraph()
            for edit in scene.edits():
                names = {obj.uid: obj.name for obj in scene.objects}
                prompt, name = edit.prompt, names[edit.object_id]
                assert (prompt.before.find(name) is None) == (edit.kind == "add")
                assert (edit.kind == "add") == (prompt.after == whole)
                assert edit.after.paragraph() == prompt.after
                assert edit.before.paragraph() == prompt.before
                if edit.kind == "remove":
                    assert prompt.after.find(name) is None
                if edit.kind != "add":
                    assert name.lower() in prompt.instruction


def test_a_change_touches_only_the_words_of_its_object():
    for seed in range(20):
        for edit in make_scene(seed, num_objects=3).edits():
            if edit.kind != "change":
                continue
            before, after = edit.prompt.before.objects, edit.prompt.after.objects
            changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
            assert len(changed) == 1
            old, new = before[changed[0]].description.split(), after[changed[0]].description.split()
            assert len(old) == len(new)
            assert sum(a != b for a, b in zip(old, new, strict=True)) == 1
            assert edit.value in " ".join(new)


def test_instructions_come_in_several_wordings():
    words = {
        edit.prompt.instruction.split()[0]
        for seed in range(40)
        for edit in make_scene(seed).edits()
        if edit.kind == "remove"
    }
    assert words == {"Remove", "Delete", "Take", "Make"}


def test_the_planner_finds_exactly_the_edit_that_was_written():
    plan = pytest.importorskip("raccoon.plan")
    for difficulty in LEVELS:
        for seed in range(8):
            for edit in make_scene(seed, difficulty).edits():
                found = plan.diff(edit.prompt.before, edit.prompt.after).edits
                assert [one.kind for one in found] == [edit.kind], (difficulty, seed, edit.prompt.instruction)


@pytest.mark.parametrize(("words", "expected"), [("orange ball", "an orange ball"), ("red star", "a red star")])
def test_articles_fit_the_next_word(words, expected):
    assert with_article(words) == expected


def test_a_long_list_of_objects_still_reads():
    objects = tuple(obj for seed in range(2) for obj in make_scene(seed + 20, num_objects=2).objects)
    scene = Scene(0, "easy", objects, "mint")
    assert scene.paragraph(0).description.endswith("in front of a plain mint background.")
