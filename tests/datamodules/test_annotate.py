import numpy as np
import pytest

from raccoon_datamodules.annotate.annotator import (
    AnnotateSettings,
    Annotator,
    Clip,
    Wish,
)
from raccoon_datamodules.annotate.caption_matching import Candidate, label_of, match_objects
from raccoon_datamodules.annotate.chat import AnswerCut, AnswerRefused
from raccoon_datamodules.annotate.chat_cache import CachedChat
from raccoon_datamodules.annotate.complaints import AnnotationFailed, complaints, replaced
from raccoon_datamodules.annotate.frame_grid import frame_grid, grid_size, uniform_indices
from raccoon_datamodules.annotate.prompts import (
    EXAMPLE,
    annotation_prompt,
    change_question,
    match_question,
    read_changes,
    read_choice,
)
from raccoon_datamodules.members import ObjectInfo
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph

PANDA = (
    "Video Description: A panda eats.\n\nObject Descriptions:\n1. Giant Panda: A black and white bear.\n2. Man: Tall."
)
CAPTIONS = (ObjectDescription("Giant Panda", "A black and white bear."), ObjectDescription("Man", "Tall."))
PANDA = str(Paragraph("A panda eats.", CAPTIONS))


class Script:
    """Answers in turn; takes down what it was asked. An exception is raised."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def chat(self, images, text):
        self.asked.append((list(images), text))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def make_clip(*categories, num_frames=6, size=(24, 32)):
    frames = np.random.default_rng(0).integers(0, 255, (num_frames, *size, 3), dtype=np.uint8)
    mask = np.zeros((num_frames, *size), np.uint8)
    mask[:, 4:14, 5:20] = 1
    objects = []
    for i, category in enumerate(categories):
        area = np.full(20, 10 + i, np.int64)
        objects.append(ObjectInfo(str(i), f"Object {i}", category, "", np.zeros((20, 4), np.float32), area, {}))
    return Clip("clip", frames, tuple(range(num_frames)), tuple(objects), lambda _: mask)


@pytest.fixture
def annotator(tmp_path):
    def make(*answers, **settings):
        chat = Script(*answers)
        return Annotator(CachedChat(chat, tmp_path, identity={"model": "m"}), AnnotateSettings(**settings)), chat

    return make


# the picture


def test_uniform_indices_hold_the_first_and_the_last_frame():
    assert uniform_indices(90, 6) == [0, 18, 36, 53, 71, 89]


def test_a_short_clip_gives_each_of_its_frames_once():
    assert uniform_indices(3, 6) == [0, 1, 2]
    assert uniform_indices(1, 6) == [0]
    assert uniform_indices(9, 1) == [4]


def test_uniform_indices_want_positive_numbers():
    with pytest.raises(ValueError, match="num_frames and count must be at least 1, got 0 and 6"):
        uniform_indices(0, 6)


def test_frames_stand_in_the_order_of_time_from_the_top_left():
    grid = frame_grid(np.stack([np.full((200, 300, 3), 40 * i, np.uint8) for i in range(4)]))
    height, width = grid.shape[:2]
    centres = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    assert [int(grid[y, x, 0]) for y, x in centres] == [0, 40, 80, 120]


@pytest.mark.parametrize("shape", [(1, 48, 64), (6, 480, 854), (5, 854, 480), (7, 64, 64), (64, 90, 160)])
def test_the_picture_has_the_size_that_is_told_without_it(shape):
    grid = frame_grid(np.zeros((*shape, 3), np.uint8), max_side=700)
    assert grid.shape[:2] == grid_size(*shape, max_side=700)
    assert max(grid.shape) <= 700


def test_every_frame_carries_a_number_of_its_own():
    grid = frame_grid(np.full((4, 200, 200, 3), 128, np.uint8))
    cells = [grid[y : y + 40, x : x + 40] for y in (0, 206) for x in (0, 206)]
    assert all((cell == 255).any() and (cell == 0).any() for cell in cells)
    assert len({cell.tobytes() for cell in cells}) == 4


def test_an_outlined_mask_is_drawn_in_magenta_around_the_object_only():
    mask = np.zeros((1, 200, 200), np.uint8)
    mask[0, 80:120, 80:120] = 1
    grid = frame_grid(np.zeros((1, 200, 200, 3), np.uint8), outlined=mask)
    is_magenta = (grid == (255, 0, 255)).all(axis=2)
    assert is_magenta[80, 100]
    assert not is_magenta[100, 100]


@pytest.mark.parametrize(
    ("frames", "settings", "sentence"),
    [
        (np.zeros((0, 4, 4, 3), np.uint8), {}, "with n of at least 1"),
        (np.zeros((1, 4, 4, 3), np.uint8), {"max_side": 10}, "max_side must be at least 64 pixels, got 10"),
        (np.zeros((1, 4, 4, 3), np.uint8), {"outlined": np.zeros((1, 4, 5), np.uint8)}, r"must be \[1, 4, 4\] like"),
    ],
)
def test_a_grid_says_what_it_needs(frames, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        frame_grid(frames, **settings)


# the words


def test_the_prompt_holds_the_example_the_hints_and_the_reviewers_wish():
    prompt = annotation_prompt(6, hints=["Panda"], wish="Name the breed.")
    assert str(EXAMPLE) in prompt
    assert "1. Panda" in prompt
    assert prompt.endswith("asks: Name the breed.")


def test_a_corrected_paragraph_takes_the_place_of_the_example():
    prompt = annotation_prompt(6, corrected=Paragraph("By hand.", CAPTIONS))
    assert "By hand." in prompt
    assert str(EXAMPLE) not in prompt


def test_the_example_is_what_it_asks_for():
    assert Paragraph.parse(str(EXAMPLE)) == (EXAMPLE, [])
    assert complaints(EXAMPLE) == ([], [])


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ("B", 1), ("b.", 1), ("(A)", 0), ("**B**", 1), ("Answer: C", 2), ("The answer is B: Man", 1),
        ("C. None of them", 2), ("None of them", 2), ("It is the giant panda.", 0), ("D", None), ("", None),
        ("A man or the giant panda", None),
        ("I cannot see it", None), ("A man", 1), ("Option A", 0),
    ],
)  # fmt: skip
def test_a_choice_is_read_as_models_write_it(answer, place):
    assert read_choice(answer, CAPTIONS) == place


def test_a_question_offers_each_caption_and_none_of_them():
    text = match_question("panda", CAPTIONS)
    assert "A. Giant Panda: A black and white bear.\nB. Man: Tall.\nC. None of them" in text


@pytest.mark.parametrize(
    ("label", "captions", "sentence"),
    [("x", (), "needs 1 to 25 captions to choose from, got 0"), ("", CAPTIONS, "must be shown in a picture")],
)
def test_a_question_says_what_it_needs(label, captions, sentence):
    with pytest.raises(ValueError, match=sentence):
        match_question(label, captions)


def test_changes_are_read_line_by_line_and_bad_lines_are_left_out():
    answer = (
        "Here you are:\n1. Dye the panda pink => Pink Panda: A pink bear.\n2) nonsense\n7. Make => It: new.\n"
        "**2.** Give the man a hat -> Man: Tall, with a hat.\n1. Again => X: y."
    )
    found = read_changes(answer, CAPTIONS)
    assert found[0] == ("Dye the panda pink", ObjectDescription("Pink Panda", "A pink bear."))
    assert found[1] == ("Give the man a hat", ObjectDescription("Man", "Tall, with a hat."))
    assert set(found) == {0, 1}


def test_a_change_needs_an_object():
    with pytest.raises(ValueError, match="a change needs an object, got none"):
        change_question([])


@pytest.mark.parametrize(
    ("category", "attributes", "label"),
    [
        ("giant_panda", {}, "giant panda"), ("object", {}, ""), ("", {"expressions": ["a dog, left"]}, "a dog, left"),
        ("12", {}, ""), ("", {"expressions": "x"}, ""), ("T-shirt", {}, "T-shirt"),
    ],
)  # fmt: skip
def test_a_label_is_the_class_in_words(category, attributes, label):
    assert label_of(category, attributes) == label


# one clip


def test_a_clip_becomes_a_paragraph_with_captions_for_its_masks(annotator):
    made, chat = annotator(PANDA, "A")
    found = made.annotate(make_clip("panda"))
    assert found.paragraph.names == ("Giant Panda", "Man")
    assert found.matches == {"0": "Giant Panda"}
    assert found.raw == PANDA
    assert [answer.purpose for answer in found.answers] == ["annotate", "match 0"]
    assert len(chat.asked[0][0]) == 1
    assert "1. panda" in chat.asked[0][1]


def test_a_class_that_is_a_captions_name_needs_no_question(annotator):
    made, chat = annotator(PANDA)
    assert made.annotate(make_clip("giant_panda")).matches == {"0": "Giant Panda"}
    assert len(chat.asked) == 1


def test_a_class_alone_is_asked_about_in_words_a_shared_one_with_its_outline(annotator):
    made, chat = annotator(PANDA, "A", "A")
    assert made.annotate(make_clip("bear", "bear")).matches == {"0": "Giant Panda", "1": "Man"}
    assert [len(images) for images, _ in chat.asked] == [1, 1, 1]
    assert (chat.asked[1][0][0] == (255, 0, 255)).all(axis=2).any()
    assert "outlined in magenta" in chat.asked[1][1]


def test_a_caption_serves_one_mask_only(annotator):
    made, chat = annotator(PANDA, "A", "A")
    assert made.annotate(make_clip("bear", "keeper")).matches == {"0": "Giant Panda", "1": "Man"}
    assert "Giant Panda" not in chat.asked[2][1]


def test_an_object_that_no_caption_is_about_is_told(annotator):
    made, _ = annotator(PANDA, "C")
    assert made.annotate(make_clip("tractor")).unmatched == ("0",)


def test_a_question_without_a_usable_answer_leaves_the_object_unmatched_and_a_note(annotator):
    made, chat = annotator(PANDA, "what?", "eh", "no idea")
    found = made.annotate(make_clip("tractor"))
    assert found.unmatched == ("0",)
    assert found.notes == ("object 0: no usable answer to which caption is about it in 3 attempts",)
    assert "it is not one of the letters offered" in chat.asked[2][1]


def test_a_malformed_answer_is_asked_for_again_with_what_was_wrong(annotator):
    made, chat = annotator("I am sorry, I see nothing.", PANDA)
    found = made.annotate(make_clip())
    assert found.paragraph.names == ("Giant Panda", "Man")
    again = chat.asked[1][1]
    assert "the list of objects is missing" in again
    assert "there is no 'Video Description:' heading" in again
    assert "I am sorry, I see nothing." in again
    assert [answer.text for answer in found.answers] == ["I am sorry, I see nothing.", PANDA]


def test_an_answer_cut_off_is_asked_for_again_and_its_beginning_is_kept(annotator):
    made, chat = annotator(AnswerCut("the limit", "Video Descr"), PANDA)
    found = made.annotate(make_clip())
    assert found.answers[0].text == "Video Descr"
    assert "cut off at the length limit; use fewer words" in chat.asked[1][1]


def test_a_clip_without_a_usable_answer_fails_with_the_reasons(annotator):
    made, _ = annotator("x", "y", "z")
    with pytest.raises(AnnotationFailed, match="no usable answer in 3 attempts: the list of objects is missing"):
        made.annotate(make_clip())


def test_a_refusal_comes_through(annotator):
    made, _ = annotator(AnswerRefused("the model refused: no"))
    with pytest.raises(AnswerRefused, match="no"):
        made.annotate(make_clip())


def test_of_answers_with_blemishes_the_best_is_taken(annotator):
    many = "Video Description: x.\n\nObject Descriptions:\n" + "\n".join(f"{i}. N{i}: d." for i in range(1, 8))
    worse = many.replace("N1: d.", "N1:")
    made, chat = annotator(worse, many, worse)
    found = made.annotate(make_clip())
    assert found.paragraph.find("N1").description == "d."
    assert found.notes == ("there are 7 objects, at most 5 were asked for",)
    assert len(chat.asked) == 3


def test_words_beyond_the_limit_are_a_blemish():
    long = Paragraph("word " * 401, CAPTIONS)
    assert complaints(long) == ([], ["it has 410 words, fewer than 400 were asked for"])


def test_hints_are_at_most_five_the_largest_first(annotator):
    assert make_clip("a", "b", "c", "d", "e", "f", "f").hints() == ("f", "e", "d", "c", "b")


def test_a_persons_text_costs_no_request_but_its_matching(annotator):
    made, chat = annotator("A")
    found = made.annotate(make_clip("bear"), text=Paragraph("By hand.", CAPTIONS))
    assert found.is_corrected
    assert found.raw == ""
    assert len(chat.asked) == 1


def test_a_wish_changes_the_prompt_and_replaces_words(annotator):
    made, chat = annotator(PANDA)
    found = made.annotate(make_clip(), wish=Wish("Be brief.", None, {"panda": "bear", "Panda": "Bear"}))
    assert "Be brief." in chat.asked[0][1]
    assert found.paragraph.description == "A bear eats."
    assert found.paragraph.names == ("Giant Bear", "Man")


def test_only_whole_words_are_replaced():
    assert replaced(Paragraph("A cat in a category.", ()), {"cat": "dog"}).description == "A dog in a category."


def test_replacements_that_unite_two_names_fail_the_video():
    with pytest.raises(AnnotationFailed, match="replacements cannot be made: object names must be unique"):
        replaced(Paragraph("x", CAPTIONS), {"Giant Panda": "Man"})


# edits


def test_each_object_with_a_caption_gets_a_removal_and_an_addition(annotator):
    made, _ = annotator(PANDA, "A")
    remove, add = made.annotate(make_clip("bear")).edits
    assert (remove.kind, remove.instruction) == ("remove", "Remove the Giant Panda.")
    assert (add.kind, add.instruction) == ("add", "Add Giant Panda: A black and white bear.")
    assert remove.after.names == add.before.names == ("Man",)
    assert remove.before == add.after


def test_no_edits_are_written_if_none_are_wanted(annotator):
    made, _ = annotator(PANDA, "A", edits="none")
    assert made.annotate(make_clip("bear")).edits == ()


def test_a_change_is_thought_of_by_the_model(annotator):
    made, chat = annotator(PANDA, "A", "hm", "1. Dye it => Pink Panda: A pink bear.", edits="all")
    change = made.annotate(make_clip("bear")).edits[2]
    assert (change.kind, change.object_id, change.instruction) == ("change", "0", "Dye it")
    assert change.after.names == ("Pink Panda", "Man")
    assert "no line has the form" in chat.asked[3][1]


def test_a_change_into_another_objects_name_is_left_out(annotator):
    made, _ = annotator(PANDA, "A", "1. Swap => Man: Another man.", edits="all")
    assert [edit.kind for edit in made.annotate(make_clip("bear")).edits] == ["remove", "add"]


def test_changes_that_cannot_be_read_leave_a_note(annotator):
    made, _ = annotator(PANDA, "A", "hm", "hm", edits="all", max_attempts=2)
    found = made.annotate(make_clip("bear"))
    assert len(found.edits) == 2
    assert found.notes == ("no usable answer to the changes asked for in 2 attempts",)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_frames": 0}, r"num_frames must be in \[1, 64\], got 0"),
        ({"picture_side": 5}, "picture_side must be in"),
        ({"max_attempts": 0}, "max_attempts must be at least 1, got 0"),
        ({"edits": "some"}, "edits must be none, simple or all, got 'some'"),
    ],
)
def test_settings_are_checked(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        AnnotateSettings(**settings)


def test_matching_stops_when_no_caption_is_left():
    def ask(*_):
        return "A"

    candidates = [Candidate(str(i), f"c{i}", lambda: None) for i in range(4)]
    matches, notes = match_objects(candidates, Paragraph("x", CAPTIONS), ask, num_frames=6)
    assert list(matches.values()) == ["Giant Panda", "Man", None, None]
    assert notes == []
