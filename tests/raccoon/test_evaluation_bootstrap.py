import numpy as np
import pytest

from raccoon.evaluation.bootstrap import ratio_interval


def test_the_value_is_the_ratio_of_sums_and_the_interval_holds_it():
    found = ratio_interval([1, 2, 0, 3], [2, 2, 2, 4])
    assert found.value == pytest.approx(0.6)
    assert found.low <= found.value <= found.high
    assert found.count == 4


def test_the_same_seed_gives_the_same_interval_and_another_a_different_one():
    values = np.linspace(0, 1, 50) ** 3
    assert ratio_interval(values, seed=1) == ratio_interval(values, seed=1)
    assert ratio_interval(values, seed=1) != ratio_interval(values, seed=2)


def test_the_interval_has_the_width_that_the_central_limit_gives():
    values = np.random.default_rng(0).normal(size=400)
    found = ratio_interval(values, resamples=4000)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.08)


def test_equal_scores_leave_no_doubt():
    found = ratio_interval([0.5] * 10)
    assert (found.low, found.value, found.high) == (0.5, 0.5, 0.5)


def test_a_resample_with_nothing_to_count_is_left_out():
    found = ratio_interval([1.0, 0, 0, 0], [2.0, 0, 0, 0])
    assert (found.low, found.value, found.high) == (0.5, 0.5, 0.5)


def test_where_no_resample_has_anything_to_count_the_value_stands_for_all():
    few = [1.0] + [0.0] * 9999
    assert ratio_interval(few, few, resamples=1, seed=3).low == 1.0


@pytest.mark.parametrize(
    ("above", "below", "settings", "said"),
    [
        ([], [], {}, r"must be \[n\] with n >= 1, got \[0\]"),
        ([1], [1, 2], {}, r"got \[1\] and \[2\]"),
        ([np.inf], [1], {}, "scores must be finite"),
        ([0], [0], {}, "must sum to more than 0"),
        ([1], [1], {"resamples": 0}, "resamples must be at least 1"),
        ([1], [1], {"confidence": 1.0}, r"confidence in \(0, 1\)"),
    ],
    ids=["empty", "lengths", "infinite", "nothing", "resamples", "confidence"],
)
def test_what_cannot_be_resampled_is_refused(above, below, settings, said):
    with pytest.raises(ValueError, match=said):
        ratio_interval(above, below, **settings)
