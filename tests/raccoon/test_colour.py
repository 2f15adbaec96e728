import cv2
import numpy as np
import pytest
import torch

from raccoon.models.colour import srgb_to_lab


def test_lab_equals_opencv_on_random_colours():
    rgb = np.random.default_rng(0).random((37, 41, 3), dtype=np.float32)
    ours = srgb_to_lab(torch.from_numpy(rgb).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    # OpenCV 5 interpolates its float conversion from a coarse table; the published values below are the sharp test.
    np.testing.assert_allclose(ours, cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB), atol=0.7)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [((1, 0, 0), (53.24, 80.09, 67.20)), ((0, 1, 0), (87.73, -86.18, 83.18)), ((0, 0, 1), (32.30, 79.19, -107.86))],
    ids=["red", "green", "blue"],
)
def test_primaries_have_their_published_lab_values(rgb, lab):
    ours = srgb_to_lab(torch.tensor(rgb, dtype=torch.float32).reshape(3, 1, 1)).flatten()
    torch.testing.assert_close(ours, torch.tensor(lab), atol=0.02, rtol=0)


def test_white_is_100_and_grey_has_no_colour():
    grey = torch.linspace(0, 1, 256).reshape(1, 1, 256).expand(3, 1, 256)
    lab = srgb_to_lab(grey)
    assert lab[0, 0, 0].abs() < 1e-3
    assert (lab[0, 0, -1] - 100).abs() < 1e-3
    assert lab[1:].abs().max() < 0.01


def test_leading_axes_are_kept():
    rgb = torch.rand(2, 3, 3, 4, 5)
    lab = srgb_to_lab(rgb)
    assert lab.shape == rgb.shape
    torch.testing.assert_close(lab[1, 2], srgb_to_lab(rgb[1, 2]), atol=1e-3, rtol=0)


def test_eight_bit_frames_are_refused():
    with pytest.raises(TypeError, match=r"must be floating in \[0, 1\], got torch.uint8; divide"):
        srgb_to_lab(torch.zeros(3, 2, 2, dtype=torch.uint8))


def test_channels_in_the_wrong_place_are_refused():
    with pytest.raises(ValueError, match=r"must be \[..., 3, H, W\], got \[8, 8, 3\]"):
        srgb_to_lab(torch.zeros(8, 8, 3))
