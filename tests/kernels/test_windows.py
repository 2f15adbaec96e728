"""The adaptive windows against torch's own pooling."""

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool1d

from raccoon_kernels import windows

CPU = torch.device("cpu")


@pytest.mark.parametrize(("length", "count"), [(8, 4), (7, 3), (5, 5), (2, 3), (1, 1), (336, 24)])
def test_windows_are_those_of_adaptive_pooling(length, count):
    values = torch.randn(length, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    starts, ends = windows.window_borders(length, count)
    means = torch.stack([values[start:end].mean() for start, end in zip(starts, ends, strict=True)])
    torch.testing.assert_close(means, adaptive_avg_pool1d(values[None], count)[0])


def test_the_bins_of_a_clip_stay_inside_it():
    assert windows.temporal_windows([0, 3, 7], [0, 2, 5]) == ([0, 1, 3, 4, 5], [2, 3, 5, 6, 7])


def test_equal_windows_have_one_area():
    assert windows.uniform_area((0, 4), (0, 2), (28, 28), (2, 2)) == 2 * 14 * 14
    assert windows.uniform_area((0, 4), (0, 2), (28, 29), (2, 2)) == 2 * 14 * 15
    assert windows.uniform_area((0, 4), (0, 3), (28, 28), (2, 2)) == 2 * 14 * 14
    assert windows.uniform_area((0, 5), (0, 3), (28, 28), (3, 2)) is None


def test_inverse_areas_are_one_over_each_windows_pixels():
    inverse = windows.inverse_areas((0, 2), (0, 2), (5, 4), (3, 2), torch.float64, CPU)
    assert inverse.shape == (2, 3, 2)
    assert inverse[0].reciprocal().tolist() == [[4.0, 4.0], [6.0, 6.0], [4.0, 4.0]]


def test_bags_list_every_windows_pixels_in_row_order():
    pixels, begins = windows.pixel_bags(2, 3, 1, 2, CPU)
    assert pixels.tolist() == [0, 1, 3, 4, 1, 2, 4, 5]
    assert begins.tolist() == [0, 4]


@pytest.mark.parametrize(("clusters", "padded"), [(1, 32), (32, 32), (33, 64)])
def test_rows_of_counts_are_padded_to_32_clusters(clusters, padded):
    assert windows.padded_clusters(clusters) == padded
