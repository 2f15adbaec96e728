import itertools
import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raccoon.matching import assign, changed_words
from raccoon.plan import (
    AmbiguousEdit,
    Edit,
    EditPlan,
    add_object,
    change_object,
    decisions_of,
    diff,
    marked_words,
    plan_flags,
    remove_object,
)
from raccoon.wishes import quoted, require_object
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph

SCENE = "A man walks a dog past a red car."
DOG = "Brown Dog: A medium sized brown dog that trots along the pavement on a leash."
MAN = "Man: An old man in a grey coat who holds the leash."
CAR = "Car: A parked red car with shiny wheels."
TWIN_1 = "Left Twin: A girl in a yellow dress who jumps on the bed."
TWIN_2 = "Right Twin: A girl in a yellow dress who jumps on the sofa."
HOUND = DOG.replace("Brown Dog:", "Hound:")


def paragraph(*objects, scene=SCENE):
    return Paragraph(scene, tuple(ObjectDescription.parse(item) for item in objects))


# id -> (objects before, objects after, expected edits as "kind name -> new name"); None = ambiguous
CASES = {
    # nothing
    "01 identical": ([DOG, MAN], [DOG, MAN], []),
    "02 both empty": ([], [], []),
    "03 other order": ([DOG, MAN, CAR], [CAR, DOG, MAN], []),
    "04 name in other case": ([DOG], [DOG.replace("Brown Dog:", "BROWN DOG:")], []),
    "05 only a full stop": ([DOG], [DOG.rstrip(".")], []),
    "06 only case in a description": ([CAR], ["Car: a Parked RED car with shiny wheels."], []),
    "07 only white space": ([CAR], [CAR.replace(" ", "  ")], []),
    # remove
    "08 remove the only one": ([DOG], [], ["remove Brown Dog"]),
    "09 remove the first": ([DOG, MAN, CAR], [MAN, CAR], ["remove Brown Dog"]),
    "10 remove the middle": ([DOG, MAN, CAR], [DOG, CAR], ["remove Man"]),
    "11 remove the last": ([DOG, MAN, CAR], [DOG, MAN], ["remove Car"]),
    "12 remove two": ([DOG, MAN, CAR], [MAN], ["remove Brown Dog", "remove Car"]),
    "13 remove all": ([DOG, MAN], [], ["remove Brown Dog", "remove Man"]),
    "14 remove one of two alike": ([TWIN_1, TWIN_2], [TWIN_2], ["remove Left Twin"]),
    "15 remove and reorder": ([DOG, MAN, CAR], [CAR, DOG], ["remove Man"]),
    # add
    "16 add to none": ([], [DOG], ["add Brown Dog"]),
    "17 add at the end": ([DOG], [DOG, CAR], ["add Car"]),
    "18 add at the front": ([DOG], [CAR, DOG], ["add Car"]),
    "19 add two, in the order of the new paragraph": ([DOG], [CAR, DOG, MAN], ["add Car", "add Man"]),
    "20 add one like another": ([TWIN_1], [TWIN_1, TWIN_2], ["add Right Twin"]),
    "21 add without a description": ([DOG], [DOG, "Ball:"], ["add Ball"]),
    "22 add a name that contains another": ([CAR], [CAR, "Toy Car: small"], ["add Toy Car"]),
    # change
    "23 change a word": ([DOG, MAN], [DOG.replace("A medium", "A huge"), MAN], ["change Brown Dog -> Brown Dog"]),
    "24 equal name, all other words": ([CAR], ["Car: Blue bus"], ["change Car -> Car"]),
    "25 equal name in other case, other words": ([CAR], ["CAR: Blue bus"], ["change Car -> CAR"]),
    "26 name taken over from a removed one": (
        [DOG, CAR],
        ["brown dog: Blue bus", CAR],
        ["change Brown Dog -> brown dog"],
    ),
    "27 equal description, other name": (
        [DOG, MAN],
        [HOUND, MAN],
        ["change Brown Dog -> Hound"],
    ),
    "28 brown dog to raccoon, sentence kept": (
        [DOG, MAN],
        ["Raccoon: A medium sized raccoon that trots along the pavement on a leash.", MAN],
        ["change Brown Dog -> Raccoon"],
    ),
    "29 rename two": (
        [DOG, CAR],
        [HOUND, CAR.replace("Car:", "Vehicle:")],
        ["change Brown Dog -> Hound", "change Car -> Vehicle"],
    ),
    "30 description deleted": ([CAR], ["Car:"], ["change Car -> Car"]),
    "31 two names swapped": (
        ["A: round", "B: square"],
        ["A: square", "B: round"],
        ["change A -> A", "change B -> B"],
    ),
    "32 rename in chinese": (
        ["大熊猫: 一只黑白相间的熊在竹林里吃竹子。"],
        ["棕熊: 一只黑白相间的熊在竹林里吃苹果。"],
        ["change 大熊猫 -> 棕熊"],
    ),
    # together
    "33 remove one, change one": ([DOG, CAR], [CAR.replace("red", "blue")], ["remove Brown Dog", "change Car -> Car"]),
    "34 change one, add one": (
        [CAR],
        [CAR.replace("red", "blue"), DOG],
        ["change Car -> Car", "add Brown Dog"],
    ),
    "35 rename one, remove another": (
        [DOG, MAN],
        [HOUND],
        ["change Brown Dog -> Hound", "remove Man"],
    ),
    "36 rename one, add another": (
        [DOG],
        [CAR, HOUND],
        ["change Brown Dog -> Hound", "add Car"],
    ),
    # ambiguous
    "37 one went, another came": ([DOG, MAN], ["Balloon: A shiny balloon floating upwards.", MAN], None),
    "38 which of two alike was renamed": ([TWIN_1, TWIN_2], ["Boy: A girl in a yellow dress who jumps."], None),
    "39 nothing said about either": (["Dog:"], ["Cat:"], None),
    "40 one clear, one not": (
        [DOG, CAR],
        [HOUND.replace("brown", "black"), "Tree: An oak."],
        None,
    ),
}


def short(edit):
    return f"change {edit.name} -> {edit.after.name}" if edit.kind == "change" else f"{edit.kind} {edit.name}"


def test_there_are_forty_cases():
    assert len(CASES) == 40


@pytest.mark.parametrize(("old", "new", "expected"), CASES.values(), ids=CASES.keys())
def test_the_plan_of(old, new, expected):
    before, after = paragraph(*old), paragraph(*new)
    if expected is None:
        with pytest.raises(AmbiguousEdit, match="can be read in two ways"):
            diff(before, after)
        return
    plan = diff(before, after)
    assert [short(edit) for edit in plan.edits] == expected
    assert not plan.scene_changed
    assert EditPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[2] is None])
def test_each_reading_of_an_ambiguous_edit_can_be_chosen_and_has_its_flags(name):
    old, new, _ = CASES[name]
    before, after = paragraph(*old), paragraph(*new)
    with pytest.raises(AmbiguousEdit) as caught:
        diff(before, after)
    first, second = caught.value.readings
    assert {short(edit) for edit in first.edits} != {short(edit) for edit in second.edits}
    for reading in (first, second):
        chosen = diff(before, after, decisions=reading.decisions)
        assert {short(edit) for edit in reading.edits} <= {short(edit) for edit in chosen.edits}
        assert len(reading.flags) == len(reading.edits)
        assert all(flag in str(caught.value) for flag in reading.flags)


def test_an_ambiguous_edit_says_both_readings_and_the_flags_of_each():
    with pytest.raises(AmbiguousEdit) as caught:
        diff(paragraph(MAN, "Dog: brown"), paragraph(MAN, "Balloon: shiny"))
    message = str(caught.value)
    assert "change 'Dog' to 'Balloon: shiny': --change \"Dog -> Balloon: shiny\"" in message
    assert "remove 'Dog', add 'Balloon: shiny': --remove \"Dog\" --add \"Balloon: shiny\"" in message


def test_a_rival_change_is_the_second_reading_when_two_objects_are_alike():
    with pytest.raises(AmbiguousEdit) as caught:
        diff(paragraph(TWIN_1, TWIN_2), paragraph("Boy: A girl in a yellow dress who jumps."))
    assert [[short(edit) for edit in reading.edits] for reading in caught.value.readings] == [
        ["change Left Twin -> Boy", "remove Right Twin"],
        ["change Right Twin -> Boy", "remove Left Twin"],
    ]


@pytest.mark.parametrize(
    ("decisions", "expected"),
    [
        ({"dog": "remove"}, ["remove Dog", "add Balloon"]),
        ({"BALLOON": "add"}, ["remove Dog", "add Balloon"]),
        ({"Dog": "-> balloon"}, ["change Dog -> Balloon"]),
    ],
)
def test_a_decision_settles_what_is_ambiguous(decisions, expected):
    plan = diff(paragraph(MAN, "Dog: brown"), paragraph(MAN, "Balloon: shiny"), decisions=decisions)
    assert [short(edit) for edit in plan.edits] == expected


@pytest.mark.parametrize(
    ("decisions", "message"),
    [
        ({"Dog": "paint"}, "must be 'remove', 'add' or '-> NEW NAME', got 'paint' for 'Dog'"),
        ({"Cow": "remove"}, "there is no object 'Cow'; the paragraph lists 'Dog', 'Man'"),
        ({"Dog": "-> Cow"}, "there is no object 'Cow'; the paragraph lists 'Man', 'Balloon'"),
        ({"Dog": "remove", "DOG": "-> Balloon"}, "decisions about 'Dog' contradict each other"),
        ({"Balloon": "add", "Dog": "-> Balloon"}, "decisions about 'Balloon' contradict each other"),
    ],
)
def test_a_decision_that_cannot_be_followed_is_refused(decisions, message):
    with pytest.raises(ValueError, match=message):
        diff(paragraph("Dog: brown", MAN), paragraph(MAN, "Balloon: shiny"), decisions=decisions)


def test_a_match_just_at_the_threshold_counts_and_one_below_does_not():
    old = paragraph("Dog: a b c d e f g")
    assert len(diff(old, paragraph("Cat: a b c d w x y")).edits) == 1  # F1 is exactly 0.5
    with pytest.raises(AmbiguousEdit):
        diff(old, paragraph("Cat: a b c v w x y"))


def test_the_edits_carry_the_objects_and_the_words_that_caused_them():
    plan = diff(paragraph(CAR, DOG), paragraph(CAR.replace("red", "blue"), MAN, DOG))
    change, addition = plan.edits
    assert change == Edit(
        "change",
        "Car",
        ObjectDescription.parse(CAR),
        ObjectDescription.parse(CAR.replace("red", "blue")),
        None,
        ("-red", "+blue"),
    )
    assert addition.before is None
    assert addition.words[:3] == ("+Man", "+An", "+old")
    assert str(change) == "change 'Car' to 'Car: A parked blue car with shiny wheels.'"


def test_a_changed_scene_alone_is_reported_and_not_planned():
    plan = diff(paragraph(DOG), paragraph(DOG, scene=SCENE.replace("red", "blue")))
    assert plan.edits == ()
    assert plan.scene_changed
    assert plan.notes == (
        "only the description of the video changed (-red +blue), which cannot be planned; "
        "say what is to change in the list of objects",
    )


def test_a_changed_scene_beside_edits_is_reported():
    plan = diff(paragraph(DOG), paragraph(scene="A man walks past a red car."))
    assert [short(edit) for edit in plan.edits] == ["remove Brown Dog"]
    assert plan.scene_changed
    assert "changed too (-a -dog)" in plan.notes[0]


def test_nothing_to_do_is_said():
    assert diff(paragraph(DOG), paragraph(DOG)).notes == ("the two paragraphs say the same",)
    note = diff(paragraph(DOG), paragraph(DOG.rstrip("."))).notes[0]
    assert note == "'Brown Dog': only case or punctuation changed; that is no edit"


def test_a_layout_goes_to_the_object_that_is_added():
    layout = Layout("Car", np.array([[0.1, 0.1, 0.5, 0.5]]))
    plan = diff(paragraph(DOG), paragraph(DOG, CAR), layouts={"CAR": layout})
    assert plan.edits[0].layout == layout
    assert EditPlan.from_json(plan.to_json()) == plan


def test_a_layout_of_nothing_that_is_added_is_refused():
    layout = Layout("Dog", np.array([[0.1, 0.1, 0.5, 0.5]]))
    with pytest.raises(ValueError, match="must belong to an added object; the plan adds 'Car', the layouts name 'Dog'"):
        diff(paragraph(DOG), paragraph(DOG, CAR), layouts={"Dog": layout})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "a plan's JSON must be"),
        ({"edits": [{"kind": "add"}], "scene_changed": False, "notes": []}, "a plan's JSON must be"),
        (
            {"edits": [{"kind": "paint"}], "scene_changed": False, "notes": []},
            "kind must be 'remove', 'add' or 'change', got 'paint'",
        ),
        (
            {
                "edits": [{"kind": "add", "name": "x", "before": None, "after": None, "layout": None, "words": []}],
                "scene_changed": False,
                "notes": [],
            },
            "kind 'add' has the wrong objects",
        ),
    ],
)
def test_json_of_another_shape_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        EditPlan.from_json(data)


def test_flags_build_the_paragraph_they_ask_for():
    before = paragraph(DOG, MAN)
    assert remove_object(before, "brown dog") == paragraph(MAN)
    assert add_object(before, CAR) == paragraph(DOG, MAN, CAR)
    assert change_object(before, "man -> Woman: young") == paragraph(DOG, "Woman: young")
    assert change_object(before, "Man→Woman") == paragraph(DOG, MAN.replace("Man:", "Woman:"))
    assert change_object(before, "Man -> Man: young") == paragraph(DOG, "Man: young")


def test_a_name_with_an_arrow_can_be_changed():
    before = paragraph("A -> B sign: old")
    assert change_object(before, "a -> b sign -> Plain sign: new") == paragraph("Plain sign: new")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda p: remove_object(p, "dog"),
            "no object 'dog'; the paragraph lists 'Brown Dog', 'Man'; did you mean 'Brown Dog'",
        ),
        (lambda p: remove_object(p, "Mam"), "did you mean 'Man'"),
        (lambda p: remove_object(p, "Zebra"), "no object 'Zebra'; the paragraph lists 'Brown Dog', 'Man'$"),
        (lambda p: remove_object(Paragraph("x"), "Dog"), "no object 'Dog': the paragraph lists no objects"),
        (lambda p: add_object(p, "MAN: new"), "there is a 'Man' already; .* --change \"Man -> MAN: new\""),
        (lambda p: add_object(p, "  "), "must be written 'Name: description'"),
        (
            lambda p: change_object(p, "Man Woman"),
            "must be written 'Old name -> New name: description', got 'Man W",
        ),
        (lambda p: change_object(p, "Man -> "), "must be written 'Old name -> New name"),
        (lambda p: change_object(p, "Mann -> Woman"), "there is no object 'Mann.*did you mean 'Man'"),
        (
            lambda p: change_object(p, "Man -> Brown dog: x"),
            "'Man' cannot become 'Brown dog': there is a 'Brown Dog'",
        ),
    ],
)
def test_a_flag_that_cannot_be_followed_says_what_there_is(ask, message):
    with pytest.raises(ValueError, match=message):
        ask(paragraph(DOG, MAN))


def test_flags_are_never_ambiguous():
    after, plan = plan_flags(
        paragraph(DOG, MAN), change=["Man -> Balloon: shiny"], remove=["brown dog"], add=["Cat: red"]
    )
    assert after == paragraph("Balloon: shiny", "Cat: red")
    assert [short(edit) for edit in plan.edits] == ["remove Brown Dog", "change Man -> Balloon", "add Cat"]


def test_flags_can_remove_an_object_and_add_one_of_its_name():
    _, plan = plan_flags(paragraph(DOG, MAN), remove=["Brown Dog"], add=["Brown Dog: a new one"])
    assert [short(edit) for edit in plan.edits] == ["remove Brown Dog", "add Brown Dog"]


def test_an_object_is_changed_by_one_flag_only():
    with pytest.raises(ValueError, match="'Dog' is changed twice"):
        plan_flags(paragraph(MAN), change=["Man -> Dog: x", "Dog -> Cat: y"])


def test_flags_are_quoted_for_a_shell():
    assert quoted('a "b" $c `d` \\') == r'"a \"b\" \$c \`d\` \\"'


NAMES = st.sampled_from(["Dog", "Cat", "Man", "Car", "猫", "Red Car"])
OBJECTS = st.builds(ObjectDescription, NAMES, st.lists(st.sampled_from("abcdefg"), max_size=6).map(" ".join))
PARAGRAPHS = st.builds(
    Paragraph, st.just("x"), st.lists(OBJECTS, max_size=4, unique_by=lambda item: item.name).map(tuple)
)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(PARAGRAPHS, PARAGRAPHS)
def test_carrying_out_a_plan_gives_the_new_paragraph(before, after):
    try:
        plan = diff(before, after)
    except AmbiguousEdit as err:
        plan = diff(before, after, decisions=err.readings[0].decisions)
    objects = list(before.objects)
    for edit in plan.edits:
        if edit.before is not None:
            objects.remove(edit.before)
        if edit.after is not None:
            objects.append(edit.after)
    assert sorted(map(str, objects)) == sorted(map(str, after.objects))


@settings(derandomize=True, max_examples=150, deadline=None)
@given(PARAGRAPHS)
def test_a_paragraph_needs_no_edits_to_become_itself(before):
    assert diff(before, Paragraph.parse(str(before))[0]).edits == ()


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (1, 1), (1, 4), (4, 1), (3, 3), (3, 5), (5, 3), (5, 5)])
def test_the_assignment_is_the_best_of_all(rows, columns):
    draw = random.Random(rows * 10 + columns)
    for _ in range(20):
        scores = [[draw.choice([0.0, 0.25, 0.5, draw.random()]) for _ in range(columns)] for _ in range(rows)]
        pairs = assign(scores)
        assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == min(rows, columns)
        small, large = min(rows, columns), max(rows, columns)
        turned = scores if rows <= columns else [list(column) for column in zip(*scores, strict=True)]
        best = max(
            sum(turned[i][j] for i, j in enumerate(order)) for order in itertools.permutations(range(large), small)
        )
        assert sum(scores[i][j] for i, j in pairs) == pytest.approx(best)


def test_marked_words_join_to_the_texts_and_mark_what_changed():
    before, after = paragraph(DOG, CAR, MAN), paragraph(CAR.replace("red", "blue"), MAN)
    old, new = marked_words(str(before), str(after))
    assert "".join(word for word, _ in old) == str(before)
    assert "".join(word for word, _ in new) == str(after)
    assert [word.strip() for word, changed in new if changed] == ["blue"]
    gone = [word.strip() for word, changed in old if changed]
    assert gone[:2] == ["Brown", "Dog:"]
    assert gone[-1] == "red"
    assert "2." not in gone


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_marked_words_join_to_any_texts(first, second):
    old, new = marked_words(first, second)
    assert "".join(word for word, _ in old) == first
    assert "".join(word for word, _ in new) == second


def test_equal_texts_have_no_marked_words():
    assert not any(changed for side in marked_words(SCENE, SCENE) for _, changed in side)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("A red car.", "A blue car.", ("-red", "+blue")),
        ("a cat", "A cat!", ()),
        ("一只黑猫。", "一只白猫。", ("-黑", "+白")),
        ("", "new (words)", ("+new", "+words")),
    ],
)
def test_changed_words_leave_out_case_and_punctuation(before, after, words):
    assert changed_words(before, after) == words


def two_ways():
    before = Paragraph.parse(f"Video Description: {SCENE}\nObject Descriptions:\n1. {DOG}\n2. {MAN}")[0]
    after = Paragraph.parse(f"Video Description: {SCENE}\nObject Descriptions:\n1. {MAN}\n2. {CAR}")[0]
    return before, after


@pytest.mark.parametrize("reading", [0, 1])
def test_the_flags_of_a_refusal_settle_it(reading):
    before, after = two_ways()
    with pytest.raises(AmbiguousEdit) as caught:
        diff(before, after)
    chosen = caught.value.readings[reading]
    flags = {"remove": [], "add": [], "change": []}
    for flag in chosen.flags:
        name, _, text = flag.removeprefix("--").partition(" ")
        flags[name].append(text.strip('"'))
    decisions = decisions_of(before, after, **flags)
    assert decisions == dict(chosen.decisions)
    assert diff(before, after, decisions=decisions).edits == chosen.edits


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"remove": ["Man"]}, "'Man' shall be removed and is still in the edited paragraph; delete its line"),
        ({"add": ["man"]}, "'Man' shall be added and is in the first paragraph already"),
        ({"add": ["Car: A blue van."]}, "a flag describes 'Car' otherwise than the edited paragraph"),
        ({"change": ["Brown Dog -> Cat"]}, "there is no object 'Cat'"),
    ],
)
def test_a_flag_that_contradicts_the_paragraphs_is_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        decisions_of(*two_ways(), **flags)


def test_a_change_needs_no_description_where_the_paragraph_has_it():
    before, after = two_ways()
    assert decisions_of(before, after, change=["Brown Dog -> car"]) == {"Brown Dog": "-> Car"}


def test_a_change_of_case_alone_is_said_once():
    said = diff(two_ways()[0], Paragraph.parse(str(two_ways()[0]).replace("grey", "Grey"))[0]).notes
    assert said == ("'Man': only case or punctuation changed; that is no edit",)


def test_what_a_word_processor_makes_of_a_name_is_no_edit():
    before = Paragraph(
        "", (ObjectDescription("Dog's Ball", "The dog's ball - red."), ObjectDescription("Green Box", "A box."))
    )
    after = Paragraph(
        "",
        (
            ObjectDescription("Dog\u2019s Ball", "The dog\u2019s ball \u2013 red."),
            ObjectDescription("\u201cGreen Box\u201d", "A box."),
        ),
    )
    plan = diff(before, after)
    assert plan.edits == ()
    assert len(plan.notes) == 2
    assert require_object(before, "dog\u2019s ball") is before.objects[0]


def test_a_description_of_the_video_that_is_gone_is_no_edit():
    before = Paragraph("A dog in a park.", (ObjectDescription("Dog", "A dog."), ObjectDescription("Cat", "A cat.")))
    plan = diff(before, Paragraph("", before.objects[:1]))
    assert [edit.kind for edit in plan.edits] == ["remove"]
    assert plan.notes == ("the edited paragraph has no description of the video; that is no edit, the objects are",)
