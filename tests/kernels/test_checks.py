"""What the shared checks refuse, and when they look at values."""

import pytest
import torch

from raccoon_kernels import checks

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("checked", "device", "expected"),
    [(None, CPU, True), (None, CUDA, False), (True, CUDA, True), (False, CPU, False)],
)
def test_values_are_checked_on_the_cpu_unless_told_otherwise(checked, device, expected):
    assert checks.is_checked(checked, device) is expected


def test_labels_of_another_kind_are_named():
    with pytest.raises(TypeError, match=r"labels must be int16, int32 or int64, got torch\.uint8"):
        checks.check_labels(torch.zeros(1, 2, 2, dtype=torch.uint8))


def test_labels_without_a_pixel_are_named():
    with pytest.raises(ValueError, match=r"labels must be \[F, H, W\] with at least one pixel, got \[0, 2, 2\]"):
        checks.check_labels(torch.zeros(0, 2, 2, dtype=torch.int32))


def test_label_values_are_named_with_their_range():
    with pytest.raises(ValueError, match="got values from -1 to 7"):
        checks.check_label_values(torch.tensor([-1, 7]), 7)


def test_labels_in_range_pass():
    checks.check_label_values(torch.tensor([0, 6]), 7)


@pytest.mark.parametrize("offsets", [[0], [1, 4], [0, 3], [0, 2, 2, 4], [0, 5, 4]])
def test_offsets_that_do_not_rise_to_the_total_are_named(offsets):
    with pytest.raises(ValueError, match="offsets must rise strictly from 0 to 4, one border more"):
        checks.check_offsets("offsets", offsets, 4)


def test_offsets_may_be_a_tensor():
    assert checks.check_offsets("offsets", torch.tensor([0, 1, 4]), 4) == [0, 1, 4]
