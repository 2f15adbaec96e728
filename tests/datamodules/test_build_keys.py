"""Keys, splits and sampling: functions of a name and of numbers alone."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raccoon_datamodules.build.keys import SplitPolicy, clip_key, object_id, video_key
from raccoon_datamodules.build.options import BuildOptions, Sampling
from raccoon_datamodules.members import check_key, check_object_ids


def test_a_name_that_may_be_a_key_is_its_own_key():
    assert video_key("ed3291c3d6") == "ed3291c3d6"
    assert video_key("i4CbI7H_-pI") == "i4CbI7H_-pI"


def test_a_dot_a_space_and_a_slash_leave_the_key_but_not_the_difference():
    keys = [video_key(name) for name in ("my.clip", "my clip", "my/clip", "my_clip")]
    assert len(set(keys)) == 4
    assert all(key.startswith("my_clip") for key in keys)


def test_composed_and_decomposed_letters_are_one_name():
    assert video_key(unicodedata.normalize("NFD", "Bärchen")) == video_key("Bärchen")


@given(st.text(min_size=1, max_size=300))
def test_every_name_gives_an_allowed_key_and_object_id(name):
    check_key(clip_key(video_key(name), 10**9))
    check_object_ids([object_id(name)])


def test_a_name_of_bytes_that_are_no_text_has_a_key():
    check_key(video_key(b"clip\xe9".decode("utf-8", "surrogateescape")))


@pytest.mark.parametrize("name", ["1", "01", "1.0", " 1 "])
def test_spellings_of_a_number_are_one_object(name):
    assert object_id(name) == "1"


def test_a_share_of_the_videos_goes_to_a_split_by_their_names_alone():
    policy = SplitPolicy(fractions={"val": 0.1, "test": 0.2})
    found = [policy.of(f"video{n}") for n in range(2000)]
    assert 0.07 < found.count("val") / 2000 < 0.13
    assert 0.16 < found.count("test") / 2000 < 0.24
    assert found == [SplitPolicy(fractions={"val": 0.1, "test": 0.2}).of(f"video{n}") for n in range(2000)]


def test_a_list_of_names_goes_before_shares():
    policy = SplitPolicy(names={"test": ["a", "deep"]}, fractions={"val": 0.99})
    assert policy.of("a") == "test"
    assert policy.of("folder/deep") == "test"
    assert policy.of("b") == "val"


def test_a_video_listed_for_two_splits_is_refused():
    with pytest.raises(ValueError, match=r"video 'a' is listed for two splits, val and test"):
        SplitPolicy(names={"val": ["a"], "test": ["a"]})


@pytest.mark.parametrize("fractions", [{"val": 1.0}, {"val": 0.6, "test": 0.5}, {"val": -0.1}])
def test_shares_that_leave_nothing_are_refused(fractions):
    with pytest.raises(ValueError, match="shares of splits must lie in"):
        SplitPolicy(fractions=fractions)


def test_a_split_needs_an_allowed_name():
    with pytest.raises(ValueError, match="a split must match"):
        SplitPolicy(rest="my-split")


def clips(count, **given):
    return [places.tolist() for places in Sampling(**given).clips(count)]


def test_without_a_policy_all_frames_are_one_clip():
    assert clips(4) == [[0, 1, 2, 3]]
    assert clips(0) == []


def test_frames_are_the_middles_of_equal_segments():
    assert clips(10, frames=2) == [[2, 7]]
    assert clips(3, frames=8) == [[0, 1, 2]]


def test_windows_follow_each_other_and_the_rest_is_not_used():
    assert clips(7, clip_length=3) == [[0, 1, 2], [3, 4, 5]]
    assert clips(7, clip_length=4, clip_stride=2) == [[0, 1, 2, 3], [2, 3, 4, 5]]
    assert clips(2, clip_length=3) == [[0, 1]]


def test_a_step_comes_first_and_frames_come_last():
    assert clips(12, step=2, clip_length=3, frames=1) == [[2], [8]]


@pytest.mark.parametrize(
    ("given", "message"),
    [({"frames": 0}, "frames must be at least 1, got 0"), ({"clip_stride": 2}, "which needs clip_length")],
)
def test_sampling_that_means_nothing_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**given)


@pytest.mark.parametrize(
    ("size", "source", "expected"),
    [
        (None, (480, 854), (480, 854)),
        (240, (480, 854), (240, 428)),
        (240, (854, 480), (428, 240)),
        (480, (240, 320), (240, 320)),
        ((320, 512), (100, 100), (320, 512)),
    ],
)
def test_the_stored_size(size, source, expected):
    assert BuildOptions(size=size).target_size(*source) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 1}, "size must be sides of 2 to 16384"),
        ({"crf": 52}, "crf must lie in 0"),
        ({"min_area": 1.0}, "min_area must be a share"),
        ({"fps": 0.0}, "fps must be positive"),
        ({"codec": "vp9"}, "codec must be h264 or lossless"),
        ({"area_over": "all"}, "area_over must be seen or clip"),
        ({"frames_with": "sound"}, "frames_with must be annotation or inpainted"),
    ],
)
def test_options_out_of_range_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        BuildOptions(**given)


def test_options_are_plain_json():
    assert BuildOptions(size=(2, 4), sampling=Sampling(frames=3)).to_json()["size"] == [2, 4]
