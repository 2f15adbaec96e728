import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from raccoon.interfaces import Painter, PaintRequest
from raccoon.models import propagation
from raccoon.models.propagation import MedianTeleaPainter
from raccoon.models.stillness import picture_speed
from raccoon_datamodules.video import Video

DATA = Path(os.environ.get("RACCOON_TEST_DATA", Path(__file__).resolve().parents[2] / "../shared/data"))


def request(frames, mask, **changes):
    video = Video.from_frames(frames, fps=25.0)
    return PaintRequest(**{"video": video, "mask": mask, "prompt": "inpainted background", "kind": "remove"} | changes)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def moving_box(num_frames, height, width, *, side=12, step=3):
    mask = np.zeros((num_frames, height, width), np.uint8)
    for f in range(num_frames):
        mask[f, 5 : 5 + side, f * step : f * step + side] = 1
    return mask


def covered(background, mask, num_frames):
    """A static background with something bright and changing wherever the mask is."""
    frames = np.repeat(background[None], num_frames, axis=0)
    frames[mask == 1] = noise(*frames.shape, seed=9)[mask == 1]
    return frames


def plain_median(frames, mask, window):
    """The definition, one pixel and one gap at a time."""
    result = frames.copy()
    num_frames, height, width, _ = frames.shape
    for y in range(height):
        for x in range(width):
            seen = np.flatnonzero(mask[:, y, x] == 0)
            for f in np.flatnonzero(mask[:, y, x]):
                if not len(seen):
                    continue
                count = min(window or num_frames, num_frames, len(seen))
                before = (seen < f).sum()
                first = min(max(before - min(window or num_frames, num_frames) // 2, 0), len(seen) - count)
                chosen = frames[seen[first : first + count], y, x].astype(float)
                result[f, y, x] = np.floor(np.median(chosen, axis=0) + 0.5)
    return result


def test_it_satisfies_the_plug_point():
    assert isinstance(MedianTeleaPainter(), Painter)
    assert MedianTeleaPainter.kinds == {"remove"}


@pytest.mark.parametrize("window", [1, 2, 5, 10, None])
@pytest.mark.parametrize("num_frames", [9, 10], ids=["odd", "even"])
def test_a_static_background_comes_back_bit_for_bit(window, num_frames):
    background = noise(40, 50, 3)
    mask = moving_box(num_frames, 40, 50)
    painted = MedianTeleaPainter(window).paint(request(covered(background, mask, num_frames), mask))
    assert painted.dtype == np.uint8
    assert (painted == background).all()


@pytest.mark.parametrize("window", [1, 2, 3, 4, 6, None])
def test_the_fill_is_the_median_of_the_visible_moments_around_the_gap(window):
    frames = noise(11, 6, 7, 3)
    mask = (noise(11, 6, 7, seed=1) < 120).astype(np.uint8)
    mask[0] = mask[5] = 0
    assert (MedianTeleaPainter(window).paint(request(frames, mask)) == plain_median(frames, mask, window)).all()


def test_a_fill_does_not_change_while_its_pixel_stays_hidden():
    frames = noise(12, 8, 8, 3)
    mask = np.zeros((12, 8, 8), np.uint8)
    mask[4:9, 2:6, 2:6] = 1
    painted = MedianTeleaPainter(4).paint(request(frames, mask))[4:9, 2:6, 2:6]
    assert (painted == painted[0]).all()


def test_a_short_window_follows_a_scene_that_brightens():
    ramp = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None, None] * 5, (40, 8, 8, 3)).copy()
    mask = np.zeros((40, 8, 8), np.uint8)
    mask[4:7, 2:5, 2:5] = 1
    near = MedianTeleaPainter(4).paint(request(ramp, mask)).astype(int)
    whole = MedianTeleaPainter(None).paint(request(ramp, mask)).astype(int)
    assert abs(near - ramp).max() <= 5
    assert abs(whole - ramp).max() > 60


def test_the_result_does_not_depend_on_the_size_of_the_blocks(monkeypatch):
    frames, mask = noise(9, 20, 30, 3), moving_box(9, 20, 30, side=7, step=2)
    whole = MedianTeleaPainter(4).paint(request(frames, mask))
    monkeypatch.setattr(propagation, "_BLOCK", 100)
    assert (MedianTeleaPainter(4).paint(request(frames, mask)) == whole).all()


@pytest.mark.parametrize("corner", [(10, 12), (22, 30)], ids=["inside", "bottom right"])
def test_what_is_never_seen_is_filled_by_telea_on_the_filled_frame(corner):
    background = cv2.GaussianBlur(noise(40, 50, 3), (0, 0), 3)
    mask = moving_box(9, 40, 50)
    y, x = corner
    mask[:, y : y + 18, x : x + 20] = 1
    frames = covered(background, mask, 9)
    never = mask.all(axis=0).astype(np.uint8)
    painted = MedianTeleaPainter(telea_radius=3).paint(request(frames, mask))
    # The hole's content does not enter Telea's method, so the clean background stands in for the filled frame.
    assert (painted == cv2.inpaint(background, never, 3, cv2.INPAINT_TELEA)).all()


@pytest.mark.parametrize("corner", [(0, 0), (0, 12), (10, 0), (10, 12), (22, 30)], ids=str)
def test_what_is_removed_leaves_no_trace(corner):
    frames = np.repeat(cv2.GaussianBlur(noise(40, 50, 3), (0, 0), 3)[None], 3, axis=0)
    mask = np.zeros((3, 40, 50), np.uint8)
    y, x = corner
    mask[:, y : y + 18, x : x + 20] = 1
    other = frames.copy()
    other[mask == 1] = noise(*frames.shape, seed=4)[mask == 1]
    assert (MedianTeleaPainter().paint(request(frames, mask)) == MedianTeleaPainter().paint(request(other, mask))).all()


def test_pixels_outside_the_mask_are_untouched_and_the_source_is_not_written_to():
    frames, mask = noise(7, 30, 40, 3), moving_box(7, 30, 40)
    mask[:, 20:25, 20:25] = 1
    source = frames.copy()
    painted = MedianTeleaPainter().paint(request(frames, mask))
    assert (painted[mask == 0] == source[mask == 0]).all()
    assert (frames == source).all()


def test_a_single_frame_is_inpainted_by_telea():
    frames = noise(1, 30, 30, 3)
    mask = np.zeros((1, 30, 30), np.uint8)
    mask[0, 10:15, 10:15] = 1
    assert (
        MedianTeleaPainter().paint(request(frames, mask))[0] == cv2.inpaint(frames[0], mask[0], 5, cv2.INPAINT_TELEA)
    ).all()


def test_an_empty_mask_returns_the_input_as_a_new_array():
    frames = noise(3, 8, 8, 3)
    painted = MedianTeleaPainter().paint(request(frames, np.zeros((3, 8, 8), np.uint8)))
    assert (painted == frames).all()
    assert not np.shares_memory(painted, frames)


def test_a_frame_hidden_as_a_whole_is_filled_from_the_others():
    background = noise(12, 12, 3)
    mask = np.zeros((5, 12, 12), np.uint8)
    mask[2] = 1
    painted = MedianTeleaPainter().paint(request(covered(background, mask, 5), mask))
    assert (painted == background).all()


def test_the_seed_changes_nothing():
    frames, mask = noise(5, 20, 30, 3), moving_box(5, 20, 30)
    first, second = (MedianTeleaPainter().paint(request(frames, mask, seed=seed)) for seed in (0, 1))
    assert (first == second).all()


def test_progress_rises_to_the_end():
    frames, mask = noise(5, 30, 40, 3), moving_box(5, 30, 40)
    mask[:, 20:25, 20:25] = 1
    calls = []
    MedianTeleaPainter().paint(request(frames, mask, progress=lambda done, total: calls.append((done, total))))
    assert calls == [(i, 6) for i in range(1, 7)]


@pytest.mark.parametrize("kind", ["add", "change"])
def test_an_edit_that_needs_a_generator_is_refused(kind):
    with pytest.raises(ValueError, match=f"can only remove, got the edit '{kind}'; to add or change"):
        MedianTeleaPainter().paint(request(noise(2, 8, 8, 3), np.zeros((2, 8, 8), np.uint8), kind=kind))


def test_a_mask_that_hides_everything_is_refused():
    with pytest.raises(ValueError, match="covers every pixel of all 3 frames, so there is nothing to paint from"):
        MedianTeleaPainter().paint(request(noise(3, 8, 8, 3), np.ones((3, 8, 8), np.uint8)))


@pytest.mark.parametrize("shape", [(2, 8, 8), (3, 8, 9), (8, 8)], ids=["count", "size", "rank"])
def test_a_mask_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"must be \[F, H, W\] like the video's \[3, 8, 8\], got"):
        MedianTeleaPainter().paint(request(noise(3, 8, 8, 3), np.zeros(shape, np.uint8)))


def test_a_mask_of_0_and_255_is_refused():
    with pytest.raises(ValueError, match=r"must hold 0 \(keep\) and 1 \(repaint\), got values from 0 to 255"):
        MedianTeleaPainter().paint(request(noise(2, 8, 8, 3), np.eye(8, dtype=np.uint8)[None].repeat(2, 0) * 255))


def test_another_working_size_is_refused():
    with pytest.raises(ValueError, match=r"works at the video's own size \[8, 8\], got size \[4, 4\]"):
        MedianTeleaPainter().paint(request(noise(2, 8, 8, 3), np.zeros((2, 8, 8), np.uint8), size=(4, 4)))


def test_options_are_refused():
    with pytest.raises(ValueError, match=r"takes no options, got \['steps'\]"):
        MedianTeleaPainter().paint(request(noise(2, 8, 8, 3), np.zeros((2, 8, 8), np.uint8), options={"steps": 3}))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MedianTeleaPainter(window=0), "window must be at least 1 frame, or None for the whole clip, got 0"),
        (lambda: MedianTeleaPainter(telea_radius=0), "telea_radius must be at least 1 pixel, got 0"),
    ],
    ids=["window", "telea_radius"],
)
def test_settings_that_mean_nothing_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.skipif(not (DATA / "clips").is_dir(), reason="needs the test clips in ../shared/data or RACCOON_TEST_DATA")
def test_on_real_clouds_it_comes_near_the_hidden_background():
    video = Video.read(DATA / "clips/sea-clouds.mp4", max_frames=60)
    mask = np.zeros(video.frames.shape[:3], np.uint8)
    for f in range(60):
        mask[f, 120:300, 10 * f : 10 * f + 160] = 1
    frames = video.frames.copy()
    frames[mask == 1] = (200, 30, 30)

    def psnr(window):
        error = (
            MedianTeleaPainter(window).paint(request(frames, mask))[mask == 1].astype(float) - video.frames[mask == 1]
        )
        return 10 * np.log10(255**2 / (error**2).mean())

    # The clouds drift: nearby moments know better than the whole clip.
    assert psnr(10) > 36
    assert psnr(10) > psnr(None) + 3


def scene(shift, num_frames=12):
    """A textured picture that moves to the left by ``shift`` pixels a frame."""
    wide = cv2.resize(noise(24, 120, 3), (120 * 8, 24 * 8), interpolation=cv2.INTER_CUBIC)
    return np.stack([wide[:, 20 + f * shift : 20 + f * shift + 320] for f in range(num_frames)])


def test_a_camera_that_moves_is_said_beforehand():
    mask = moving_box(12, 192, 320, side=30, step=20)
    (remark,) = MedianTeleaPainter().remarks(Video.from_frames(scene(4), fps=25.0), mask)
    # 4 of 320 pixels, to two digits.
    assert re.match(r"the camera moves \(the picture by about 1\.[23] % of its width a frame\)", remark)
    assert MedianTeleaPainter().remarks(Video.from_frames(scene(0), fps=25.0), mask) == ()


def test_an_object_that_moves_is_no_camera_that_does():
    frames = scene(0).copy()
    for f in range(len(frames)):
        frames[f, 60:130, 20 * f : 20 * f + 70] = noise(70, 70, 3, seed=3)[:, : 320 - 20 * f]
    mask = moving_box(12, 192, 320, side=30, step=20)
    assert MedianTeleaPainter().remarks(Video.from_frames(frames, fps=25.0), mask) == ()


def test_what_no_frame_shows_is_said_beforehand():
    mask = moving_box(12, 192, 320, side=40, step=0)
    mask[6, 5:25] = 0
    (remark,) = MedianTeleaPainter().remarks(Video.from_frames(scene(0), fps=25.0), mask)
    assert remark == "52% of the mask covers what no frame shows; filled in from around it, that looks blurred"


@pytest.mark.parametrize("num_frames", [1, 2])
def test_a_plain_or_very_short_clip_says_nothing_of_the_camera(num_frames):
    frames = np.full((num_frames, 32, 40, 3), 90, np.uint8)
    assert picture_speed(frames, np.zeros((num_frames, 32, 40), np.uint8)) is None


@pytest.mark.parametrize(("name", "moves"), [("breakdance", False), ("sea-clouds", False), ("tennis", True)])
def test_the_camera_of_real_clips_is_judged_rightly(name, moves):
    path = DATA / "clips" / f"{name}.mp4"
    if not path.exists():
        pytest.skip(f"no {path}")
    video = Video.read(path, end=2.0)
    speed = picture_speed(video.frames, np.zeros(video.frames.shape[:3], np.uint8))
    assert (speed > propagation._STILL) == moves
