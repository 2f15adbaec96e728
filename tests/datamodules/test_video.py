import pickle

import numpy as np
import pytest

from raccoon_datamodules.video import Video

FRAMES = np.zeros((4, 6, 8, 3), dtype=np.uint8)


def test_a_video_knows_its_shape_and_length():
    video = Video.from_frames(FRAMES, 8)
    assert (video.num_frames, video.height, video.width, video.size) == (4, 6, 8, (6, 8))
    assert video.duration == pytest.approx(0.5)
    np.testing.assert_array_equal(video.timestamps, [0, 0.125, 0.25, 0.375])
    assert video.path is None


def test_other_pictures_keep_the_times():
    video = Video.from_frames(FRAMES, 8, timestamps=[0, 1, 2, 3.5])
    other = video.with_frames(FRAMES + np.uint8(9))
    assert other.timestamps is video.timestamps
    assert other.frames[0, 0, 0, 0] == 9
    with pytest.raises(ValueError, match=r"timestamps must be \[3\], one per frame, got \[4\]"):
        video.with_frames(FRAMES[:3])


def test_a_video_can_be_pickled():
    video = pickle.loads(pickle.dumps(Video.from_frames(FRAMES, 8)))
    np.testing.assert_array_equal(video.frames, FRAMES)


@pytest.mark.parametrize(
    ("frames", "fps", "timestamps", "error", "match"),
    [
        (FRAMES.astype(np.float32), 8, None, TypeError, r"uint8 array \[F, H, W, 3\].*got float32"),
        ([[1]], 8, None, TypeError, "got list"),
        (FRAMES[..., :2], 8, None, ValueError, r"frames must be \[F, H, W, 3\]"),
        (FRAMES[:0], 8, None, ValueError, "at least one pixel"),
        (FRAMES, 0, None, ValueError, "fps must be positive"),
        (FRAMES, float("nan"), [0, 1, 2, 3], ValueError, "fps must be positive"),
        (FRAMES, 8, [0, 1, 1, 2], ValueError, "strictly increasing"),
        (FRAMES, 8, [0, 1, 2, np.inf], ValueError, "finite"),
    ],
)
def test_what_is_no_video_is_refused(frames, fps, timestamps, error, match):
    with pytest.raises(error, match=match):
        Video.from_frames(frames, fps, timestamps=timestamps)


def test_frame_indices_must_be_one_per_frame():
    with pytest.raises(ValueError, match=r"frame_indices must be \[4\]"):
        Video(FRAMES, 8.0, np.arange(4.0), frame_indices=np.arange(3))
