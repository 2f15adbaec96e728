"""Which picture belongs to which frame."""

from raccoon_datamodules.build.matching import match, match_names, number_in


def names(numbers, form="{:05d}"):
    return [form.format(n) for n in numbers]


def test_equal_names_are_matched_by_name_whatever_their_endings():
    found = match([f"JPEGImages/v/{n}.jpg" for n in names(range(3))], [f"A/v/{n}.png" for n in names(range(3))])
    assert found.by_name
    assert found.places == {0: 0, 1: 1, 2: 2}


def test_every_fifth_frame_is_matched_by_name():
    found = match_names(names(range(12)), names(range(0, 12, 5)))
    assert found.by_name
    assert found.places == {0: 0, 5: 1, 10: 2}


def test_names_that_share_their_numbers_are_matched_by_number():
    found = match_names(names(range(12)), names(range(0, 12, 5), "mask_{}"))
    assert found.by_name
    assert found.places == {0: 0, 5: 1, 10: 2}


def test_a_tool_that_counts_from_one_is_matched_by_position():
    found = match_names(names(range(4)), names(range(1, 5)))
    assert not found.by_name
    assert found.places == {0: 0, 1: 1, 2: 2, 3: 3}


def test_every_fifth_frame_under_other_names_is_matched_by_count():
    found = match_names(names(range(23)), ["a", "b", "c", "d", "e"])
    assert found.places == {0: 0, 5: 1, 10: 2, 15: 3, 20: 4}
    assert "one for every 5 frames" in found.how


def test_pictures_without_a_frame_are_named():
    found = match_names(names(range(4)), names([0, 1, 2, 9, 11, 12]))
    assert found.places == {0: 0, 1: 1, 2: 2}
    assert found.unmatched == (3, 4, 5)


def test_nothing_in_common_matches_nothing():
    found = match_names(names(range(7)), ["a", "b"])
    assert found.places == {}
    assert found.unmatched == (0, 1)


def test_a_name_that_comes_twice_is_no_name():
    assert match_names(["1", "01"], ["1", "x"]).how.startswith("by position")


def test_the_last_number_of_a_name_counts():
    assert number_in("clip2_frame_0042.png") == 42
    assert number_in("nothing.png") is None
