# ruff: noqa: RUF001 -- full-width punctuation in answers
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raccoon_datamodules.layout import Layout
from raccoon_datamodules.wording import clean_name, name_key

NAN = [np.nan] * 4
PROPERTY = settings(derandomize=True, max_examples=150, deadline=None)

TRAPS = [
    "Frame 1",
    "Frame 2: [",
    "]",
    "}",
    "{",
    "', '",
    "': [",
    " to be added",
    " to be added:",
    ":",
    "'",
    '"',
    "猫",
    "1. ",
]
NAMES = (
    st.lists(st.one_of(st.sampled_from(TRAPS), st.text(max_size=6)), max_size=5)
    .map("".join)
    .filter(lambda name: name_key(name) != "" and ": " not in clean_name(name))
)


ANSWERS = st.lists(st.sampled_from([*TRAPS, "1", "0.5", "-3", ", ", "\n", "[1, 2, 3, 4]"])).map("".join)


@st.composite
def boxes(draw):
    count = draw(st.integers(1, 8))
    ends = draw(arrays(np.float64, (count, 2, 2), elements=st.floats(0, 1, width=32)))
    low, high = ends.min(axis=1), ends.max(axis=1)
    rows = np.concatenate([low, high], axis=1)
    is_absent = draw(arrays(np.bool_, count)) | (low >= high).any(axis=1)
    rows[is_absent] = np.nan
    return rows


LAYOUTS = st.builds(Layout, NAMES, boxes())


@PROPERTY
@given(LAYOUTS)
def test_both_forms_read_back_as_the_layout_without_notes(layout):
    assert Layout.parse(str(layout)) == (layout, [])
    assert Layout.parse(layout.format("thousand")) == (layout, [])


@PROPERTY
@given(LAYOUTS)
def test_a_layout_survives_being_made_again_json_and_pickle(layout):
    assert Layout(layout.name, layout.boxes) == layout
    assert Layout.from_json(layout.to_json()) == layout
    again = pickle.loads(pickle.dumps(layout))
    assert again == layout
    assert hash(again) == hash(layout)


@PROPERTY
@given(boxes())
def test_boxes_are_kept_to_a_thousandth_and_have_area(rows):
    layout = Layout("Dog", rows)
    assert layout.boxes.dtype == np.float32
    there = layout.present
    assert np.abs(layout.boxes[there] - rows[there]).max(initial=0) <= 0.00101
    assert (layout.boxes[there, :2] < layout.boxes[there, 2:]).all()


@PROPERTY
@given(
    st.one_of(
        st.text(max_size=80),
        ANSWERS,
    )
)
def test_any_text_is_read_or_refused_in_words(text):
    try:
        layout, _ = Layout.parse(text, num_frames=3)
    except ValueError as err:
        assert "no frame could be read" in str(err)  # noqa: PT017 -- either outcome is right
    else:
        assert layout.num_frames == 3


def test_the_paper_form_is_written_as_in_the_paper():
    layout = Layout("<Obj>", [[0.2, 0.0, 0.5, 0.7], [0.2, 0.1, 0.4, 0.65]])
    assert (
        str(layout) == "Layouts of <Obj> to be added: {Frame 1: [0.2, 0.0, 0.5, 0.7], Frame 2: [0.2, 0.1, 0.4, 0.65]}"
    )


def test_the_released_form_is_written_as_in_the_release():
    layout = Layout("Dog", [[0.2, 0.0, 0.5, 0.7], NAN])
    assert layout.format("thousand") == "Frame 1: {'Dog': [200, 0, 500, 700]}\nFrame 2: {'Dog': [0, 0, 0, 0]}"


BOX = [0.25, 0.25, 1.0, 0.7]
FIRST = "Dog:\nFrame 1: [0.25, 0.25, 1.0, 0.7]"

# text -> (name, boxes, words that must stand in the notes; none = no notes)
MESS = {
    "two decimals, one a line": (
        "Dog: brown\nFrame 1: [0.25, 0.25, 1.00, 0.70]\nFrame 2: [0, 0, 0, 0]",
        "Dog",
        [BOX, NAN],
        (),
    ),
    "released form with a description before it": (
        "Dog: A brown dog.\nFrame 1: {'Dog': [250, 250, 1000, 700]}\nFrame 2: {'Dog': [0, 0, 0, 0]}",
        "Dog",
        [BOX, NAN],
        (),
    ),
    "double quotes and bold name": ('**Dog**: x\nFrame 1: {"Dog": [250, 250, 1000, 700]}', "Dog", [BOX], ()),
    "angle brackets": ("Layouts of <Dog> to be added: {Frame 1: [0.25, 0.25, 1, 0.7], ...}", "Dog", [BOX], ()),
    "truncated": (
        "Layouts of Dog to be added: {Frame 1: [0.25, 0.25, 1.0, 0.7], Frame 2: [0.2, 0.",
        "Dog",
        [BOX, NAN],
        ("frame 2 needs four numbers and has 2",),
    ),
    "round brackets, full-width colon": ("Layout for Dog：\nframe 1：(0.25, 0.25, 1.0, 0.7)", "Dog", [BOX], ()),
    "no brackets": ("Dog:\nFrame 1: 0.25, 0.25, 1.0, 0.7\nFrame 2: 0, 0, 0, 0", "Dog", [BOX, NAN], ()),
    "whole numbers without the name": ("Dog:\nFrame 1: [250, 250, 1000, 700]", "Dog", [BOX], ()),
    "a small whole-numbered box": (
        "Dog:\nFrame 1: [25, 25, 100, 70]",
        "Dog",
        [[0.025, 0.025, 0.1, 0.07]],
        ("only reach 100",),
    ),
    "only 0 and 1": ("Dog:\nFrame 1: [0, 0, 1, 1]", "Dog", [[0, 0, 1, 1]], ("only 0 and 1",)),
    "only 0 and 1 in the released form": ("Frame 1: {'Dog': [0, 0, 1, 1]}", "Dog", [[0, 0, 0.001, 0.001]], ()),
    "decimals in thousandths": (
        "Dog:\nFrame 1: [250.0, 250.0, 1000.0, 700.0]",
        "Dog",
        [BOX],
        ("taken for thousandths",),
    ),
    "out of order": (
        "Dog:\nFrame 2: [0.25, 0.25, 1.0, 0.7]\nFrame 1: [0.0, 0.0, 0.5, 0.5]",
        "Dog",
        [[0, 0, 0.5, 0.5], BOX],
        ("not in order",),
    ),
    "a frame is missing": (
        f"{FIRST}\nFrame 3: [0.25, 0.25, 1.0, 0.7]",
        "Dog",
        [BOX, NAN, BOX],
        ("frame 2 is not",),
    ),
    "a frame comes twice": (
        f"{FIRST}\nFrame 1: [0.0, 0.0, 0.5, 0.5]",
        "Dog",
        [BOX],
        ("frame 1 comes twice",),
    ),
    "counted from 0": (
        "Dog:\nFrame 0: [0.25, 0.25, 1.0, 0.7]\nFrame 1: [0, 0, 0, 0]",
        "Dog",
        [BOX, NAN],
        ("counted from 0",),
    ),
    "sides swapped": (
        "Dog:\nFrame 1: [1.0, 0.7, 0.25, 0.25]",
        "Dog",
        [BOX],
        ("left and right the wrong way round", "top and bottom the wrong way round"),
    ),
    "a little outside": ("Dog:\nFrame 1: [0.25, 0.25, 1.05, 0.7]", "Dog", [BOX], ("was cut at the border",)),
    "pixels": ("Dog:\nFrame 1: [250, 250, 1900, 700]", "Dog", [NAN], ("reaches outside the frame",)),
    "no area": ("Dog:\nFrame 1: [0.5, 0.5, 0.5, 0.7]", "Dog", [NAN], ("box without area",)),
    "five numbers": (
        f"{FIRST}\nFrame 2: [0.1, 0.2, 0.3, 0.4, 0.5]",
        "Dog",
        [BOX, NAN],
        ("has 5",),
    ),
    "no name": ("Frame 1: [0.25, 0.25, 1.0, 0.7]", "Object", [BOX], ("does not name the object",)),
    "windows line ends": ("Dog: x\r\nFrame 1: [0.25, 0.25, 1.0, 0.7]\r\n", "Dog", [BOX], ()),
}


@pytest.mark.parametrize(("text", "name", "rows", "notes"), MESS.values(), ids=MESS.keys())
def test_what_models_write_is_read_as_meant(text, name, rows, notes):
    layout, said = Layout.parse(text)
    assert layout == Layout(name, np.array(rows, dtype=np.float64))
    for expected in notes:
        assert any(expected in note for note in said), said
    if not notes:
        assert said == []


def test_a_name_that_is_given_is_used_where_the_text_has_none():
    assert Layout.parse("Frame 1: [0.1, 0.1, 0.2, 0.2]", name="Cat")[0].name == "Cat"
    assert Layout.parse("Frame 1: {'Dog': [100, 100, 200, 200]}", name="Cat")[0].name == "Dog"


def test_the_number_of_frames_that_is_asked_for_is_returned():
    text = str(Layout("Dog", [BOX, BOX, BOX]))
    longer, notes = Layout.parse(text, num_frames=5)
    assert longer == Layout("Dog", [BOX, BOX, BOX, NAN, NAN])
    assert notes == ["frames 4, 5 are not in the text, or not readable; read as absent"]
    shorter, notes = Layout.parse(text, num_frames=2)
    assert shorter == Layout("Dog", [BOX, BOX])
    assert notes == ["frame 3 is beyond the last frame, 2; left out"]


@pytest.mark.parametrize("text", ["", "I cannot do that.", "Frame 1: left of the tree", "Frame 1: [0.1, 0.2]"])
def test_text_without_a_box_is_refused(text):
    with pytest.raises(ValueError, match="no frame could be read from the layout"):
        Layout.parse(text)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], r"must be boxes \[F, 4\] with F >= 1, got \[0\]"),
        ([[0.1, 0.2, 0.3]], r"must be boxes \[F, 4\] with F >= 1, got \[1, 3\]"),
        ([BOX, [0.1, np.nan, 0.2, 0.3]], "must be all numbers or all NaN .* got frame 2: "),
        ([BOX, BOX, [0.1, 0.1, 1.2, 0.3]], r"must lie in \[0, 1\], got frame 3: \[0.1, 0.1, 1.2, 0.3\]"),
        ([[0.1, 0.1, np.inf, 0.3]], r"must lie in \[0, 1\]"),
        ([[0.3, 0.1, 0.2, 0.3]], "must have x1 < x2 and y1 < y2"),
        ([[0, 0, 0, 0]] * 7, r"absent is a row of NaN.* got frame 1: .* and 2 more$"),
    ],
)
def test_boxes_that_cannot_be_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        Layout("Dog", rows)


@pytest.mark.parametrize("name", ["", " ", "Dog: brown"])
def test_a_name_that_cannot_be_is_refused(name):
    with pytest.raises(ValueError, match="layout's name must not be empty nor hold"):
        Layout(name, [BOX])


def test_other_wrong_arguments_are_refused():
    layout = Layout("Dog", [BOX])
    with pytest.raises(ValueError, match="style must be 'unit' or 'thousand', got 'pixels'"):
        layout.format("pixels")
    with pytest.raises(ValueError, match="num_frames must be at least 1, got 0"):
        layout.resample(0)
    with pytest.raises(ValueError, match="num_frames must be at least 1, got 0"):
        Layout.parse(str(layout), num_frames=0)
    with pytest.raises(TypeError, match="read from a str, got bytes"):
        Layout.parse(b"x")
    with pytest.raises(ValueError, match="a layout's JSON must be"):
        Layout.from_json({"name": "Dog"})


def test_a_box_thinner_than_a_thousandth_becomes_one_thousandth_wide():
    layout = Layout("Dog", [[0.5, 0.9999, 0.5001, 1.0], [0.0, 0.0, 0.0001, 0.0001]])
    np.testing.assert_allclose(layout.boxes, [[0.5, 0.999, 0.501, 1.0], [0, 0, 0.001, 0.001]], atol=1e-6)


def test_boxes_cannot_be_written_to():
    layout = Layout("Dog", [BOX])
    with pytest.raises(ValueError, match="read-only"):
        layout.boxes[0, 0] = 0.5


def test_layouts_differ_by_name_and_boxes():
    layout = Layout("Dog", [BOX, NAN])
    assert layout != Layout("Cat", [BOX, NAN])
    assert layout != Layout("Dog", [NAN, BOX])
    assert layout != "Dog"


def test_resampling_is_linear_in_time_and_holds_the_last_box():
    layout = Layout("Dog", [[0.0, 0.0, 0.2, 0.2], [0.4, 0.4, 0.6, 0.6]])
    assert layout.resample(2) is layout
    np.testing.assert_allclose(layout.resample(4).boxes[:, 0], [0.0, 0.2, 0.4, 0.4], atol=1e-6)


def test_resampling_takes_the_frames_that_sampling_took():
    layout = Layout("Dog", [[i / 100, 0.0, 0.5, 0.5] for i in range(16)])
    np.testing.assert_allclose(layout.resample(4).boxes[:, 0], [0.0, 0.04, 0.08, 0.12], atol=1e-6)


def test_resampling_does_not_fade_into_absence():
    layout = Layout("Dog", [BOX, NAN, BOX])
    assert layout.resample(12).present.tolist() == [True] * 2 + [False] * 4 + [True] * 6
    assert np.unique(layout.resample(12).boxes[layout.resample(12).present], axis=0).shape == (1, 4)


@pytest.mark.parametrize(
    "text",
    [
        "Frame " * 150_000,
        "Frame 1: [" * 100_000,
        "Frame 1" + " " * 500_000,
        "'" * 500_000,
        "Frame 1: [" + "1 " * 300_000,
    ],
)
def test_a_megabyte_of_nonsense_is_read_in_linear_time(text):
    with pytest.raises(ValueError, match="no frame could be read"):
        Layout.parse(text)
