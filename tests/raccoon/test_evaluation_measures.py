import numpy as np
import pytest

from raccoon.evaluation.measures import (
    PSNR_CAP,
    ObjectMatch,
    Thing,
    box_iou,
    dominant_colour,
    mask_iou,
    match_objects,
    parses,
    psnr_inside,
    read_thing,
    to_lab,
)
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.paragraph import ObjectDescription
from raccoon_datamodules.synthetic.vocabulary import COLOURS, lab

NAMES = ("red", "yellow", "green", "blue", "pink", "white")
RED_STAR, BLUE_CAR, RED_CAR = Thing("star", "red"), Thing("car", "blue"), Thing("car", "red")


@pytest.mark.parametrize(
    ("name", "description", "thing"),
    [
        ("Red Star", "A blue car.", Thing("star", "red")),
        ("Star", "A small red thing that moves.", Thing("star", "red")),
        ("Toy", "A GREY, polka-dotted rectangle.", Thing("box", "gray")),
        ("Boxes", "All pink.", Thing("box", "pink")),
        ("Starboard Scarf", "It is reddish.", Thing(None, None)),
    ],
    ids=["name-first", "description", "synonyms", "plural", "part-of-a-word"],
)
def test_a_thing_is_read_from_whole_words_of_the_name_then_of_the_description(name, description, thing):
    assert read_thing(ObjectDescription(name, description)) == thing


@pytest.mark.parametrize(
    ("named", "present", "match"),
    [
        ([RED_STAR, BLUE_CAR], [BLUE_CAR, RED_STAR], ObjectMatch(2, 2, 2, 2)),
        ([RED_CAR], [BLUE_CAR], ObjectMatch(0, 1, 1, 1)),
        ([RED_STAR, RED_STAR], [RED_STAR], ObjectMatch(1, 1, 2, 1)),
        # The exact pair goes first, so the other car is left for the one whose colour is wrong.
        ([RED_CAR, BLUE_CAR], [BLUE_CAR, Thing("car", "green")], ObjectMatch(1, 2, 2, 2)),
        ([Thing(None, "red"), Thing("car", None)], [RED_CAR], ObjectMatch(0, 1, 2, 1)),
        ([], [RED_CAR], ObjectMatch(0, 0, 0, 1)),
    ],
    ids=["order", "wrong-colour", "twice", "exact-first", "words-missing", "nothing"],
)
def test_objects_are_matched_one_to_one(named, present, match):
    assert match_objects(named, present) == match


@pytest.mark.parametrize(
    ("raw", "good"),
    [
        ("Video Description: A view.\n\nObject Descriptions:\n1. Red Star: A star.", True),
        ("Video Description: A view.\n\nObject Descriptions:", True),
        ("A red star moves.", False),
        ("", False),
    ],
    ids=["canonical", "no-object", "free-text", "empty"],
)
def test_only_a_paragraph_as_it_should_be_written_parses(raw, good):
    assert parses(raw) is good


def test_mask_iou_counts_all_frames_at_once():
    found, truth = np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 4), np.uint8)
    found[0, :2], truth[0, :1], truth[1, 0, :2] = 1, 1, 1
    assert mask_iou(found, truth) == pytest.approx(4 / 10)
    assert mask_iou(truth * 0, truth * 0) == 1.0


def test_mask_iou_needs_one_shape():
    with pytest.raises(ValueError, match=r"masks must have one shape \[F, H, W\]"):
        mask_iou(np.zeros((1, 4, 4), np.uint8), np.zeros((2, 4, 4), np.uint8))


def test_box_iou_is_the_mean_over_frames_where_either_has_a_box():
    nan = [np.nan] * 4
    found = Layout("A", np.array([[0, 0, 0.5, 1], [0, 0, 1, 1], nan, nan], np.float32))
    truth = np.array([[0, 0, 1, 1], nan, [0, 0, 1, 1], nan], np.float32)
    assert box_iou(found, truth) == pytest.approx((0.5 + 0 + 0) / 3)
    assert box_iou(Layout("A", truth), truth) == pytest.approx(1.0)
    assert box_iou(Layout("A", np.array([nan], np.float32)), np.array([nan], np.float32)) == 0.0


def test_box_iou_needs_a_box_for_every_frame():
    with pytest.raises(ValueError, match="a box for each of the 2 frames, got 1"):
        box_iou(Layout("A", np.array([[0, 0, 1, 1]], np.float32)), np.zeros((2, 4), np.float32))


def test_psnr_is_that_of_the_region_alone():
    truth = np.full((2, 4, 4, 3), 100, np.uint8)
    result = truth.copy()
    result[0, :2] += 10
    result[1] = 0
    region = np.zeros((2, 4, 4), np.uint8)
    region[0] = 1
    assert psnr_inside(result, truth, region) == pytest.approx(10 * np.log10(255**2 / 50))
    assert psnr_inside(truth, truth, region) == PSNR_CAP
    with pytest.raises(ValueError, match="the region must hold at least one pixel"):
        psnr_inside(result, truth, region * 0)


def test_lab_agrees_with_the_palette():
    for colour in COLOURS.values():
        assert np.allclose(to_lab(np.array(colour, np.uint8)), lab(colour), atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_region_shows_the_colour_that_most_of_its_visible_pixels_are_nearest_to(name):
    background = np.full((2, 8, 8, 3), (70, 70, 76), np.uint8)
    frames, region = background.copy(), np.zeros((2, 8, 8), np.uint8)
    region[:, :4] = 1
    frames[:, :2] = COLOURS[name]
    frames[:, 2, :3] = COLOURS["blue" if name != "blue" else "red"]
    # What lies outside the region does not vote.
    frames[:, 4:] = COLOURS["yellow" if name != "yellow" else "red"]
    assert dominant_colour(frames, background, region, NAMES) == name


def test_a_region_that_shows_the_background_shows_no_colour():
    background = np.full((1, 10, 10, 3), COLOURS["blue"], np.uint8)
    region = np.ones((1, 10, 10), np.uint8)
    frames = background.copy()
    frames[0, 0] = COLOURS["red"]
    assert dominant_colour(frames, background, region, NAMES) is None
    frames[0, 1] = COLOURS["red"]
    assert dominant_colour(frames, background, region, NAMES) == "red"
    assert dominant_colour(frames, background, region * 0, NAMES) is None
