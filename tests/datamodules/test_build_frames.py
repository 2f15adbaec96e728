"""Frames of files and folders: which, when, in what size."""

import numpy as np
import pytest
from PIL import Image

from raccoon_datamodules.build.frames import of_file, of_pictures, read_picture, timing
from raccoon_datamodules.video import Video, encode_clip
from raccoon_datamodules.video_read import read_frames


def pictures(folder, names, size=(8, 12)):
    folder.mkdir(exist_ok=True)
    for n, name in enumerate(names):
        Image.fromarray(np.full((*size, 3), 10 * n, dtype=np.uint8)).save(folder / name)
    return [folder / name for name in names]


@pytest.fixture
def clip(tmp_path):
    frames = np.repeat(np.arange(0, 200, 20, dtype=np.uint8), 32 * 48 * 3).reshape(10, 32, 48, 3)
    Video.from_frames(frames, 10.0).write(tmp_path / "clip.mp4", lossless=True)
    return tmp_path / "clip.mp4"


def test_numbers_in_names_are_times(tmp_path):
    found = of_pictures(pictures(tmp_path, ["00010.png", "00015.png", "00020.png"]), 30.0)
    assert found.timing([0, 1, 2]).fps == 6.0
    assert np.allclose(found.times, [0, 5 / 30, 10 / 30])
    assert found.size == (8, 12)


def test_names_without_rising_numbers_follow_each_other(tmp_path):
    found = of_pictures(pictures(tmp_path, ["a.png", "b.png"]), 4.0)
    assert found.times.tolist() == [0.0, 0.25]


def test_uneven_times_are_kept():
    found = timing(np.array([1.0, 1.1, 1.9]), 10.0)
    assert found.times.tolist() == [0.0, 0.1, 0.9]
    assert found.fps == pytest.approx(2 / 0.9)


def test_times_in_milliseconds_are_even():
    found = timing(np.round(np.arange(9) / 30, 3) + 5, 30.0)
    assert found.fps == 30.0
    assert np.array_equal(found.times, np.arange(9) / 30)


def test_a_single_frame_has_the_rate_of_its_source():
    assert timing(np.array([3.0]), 25.0).fps == 25.0


def test_chosen_frames_of_a_file(clip):
    found = of_file(clip)
    assert (len(found), found.size, found.names[3]) == (10, (32, 48), "3")
    frames, damaged = found.read([1, 4, 9], (16, 24))
    assert frames.shape == (3, 16, 24, 3)
    assert frames[:, 0, 0, 0].tolist() == [20, 80, 180]
    assert damaged == {}
    assert found.timing([1, 4, 7]).fps == pytest.approx(10 / 3)


def test_frames_by_number_are_those_of_the_whole_file(clip):
    whole = read_frames(clip)
    part = read_frames(clip, indices=[2, 3, 8])
    assert np.array_equal(part.frames, whole.frames[[2, 3, 8]])
    assert part.frame_indices.tolist() == [2, 3, 8]
    assert part.fps == pytest.approx(3.0)


@pytest.mark.parametrize("indices", [[], [10], [3, 3], [-1]])
def test_frames_that_a_file_does_not_have_are_refused(clip, indices):
    with pytest.raises(ValueError, match=r"frame numbers must rise within \[0, 10\)"):
        read_frames(clip, indices=indices)


def test_damaged_pictures_are_left_out_and_named(tmp_path):
    files = pictures(tmp_path, ["0.jpg", "1.jpg", "2.jpg"], size=(32, 32))
    files[1].write_bytes(files[1].read_bytes()[:300])
    frames, damaged = of_pictures(files, 8.0).read([0, 1, 2], (32, 32))
    assert len(frames) == 2
    assert list(damaged) == [1]
    assert "1.jpg is damaged" in damaged[1]


def test_a_folder_of_nothing_but_damage_is_refused(tmp_path):
    (tmp_path / "0.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="none of its 1 pictures can be read"):
        of_pictures([tmp_path / "0.jpg"], 8.0)


def test_frames_of_different_sizes_are_refused(tmp_path):
    files = pictures(tmp_path, ["0.png"]) + pictures(tmp_path, ["1.png"], size=(9, 12))
    with pytest.raises(ValueError, match=r"must have one size, 1\.png is 12x9, the first 12x8"):
        of_pictures(files, 8.0).read([0, 1], (8, 12))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "I;16"])
def test_pictures_of_every_kind_become_rgb(tmp_path, mode):
    array = np.full((2, 2), 0x4040 if mode == "I;16" else 0x40, dtype=np.uint16 if mode == "I;16" else np.uint8)
    picture = Image.fromarray(array)
    (picture if mode == "I;16" else picture.convert(mode)).save(tmp_path / "a.png")
    assert np.array_equal(read_picture(tmp_path / "a.png"), np.full((2, 2, 3), 0x40))


def test_a_camera_s_orientation_tag_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (16, 8)).save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg").shape == (8, 16, 3)


def test_a_clip_at_a_crf_is_smaller_and_close():
    rng = np.random.default_rng(0)
    frames = np.clip(np.mgrid[0:64, 0:64].sum(0)[None, ..., None] + rng.integers(0, 9, (4, 64, 64, 3)), 0, 255)
    video = Video.from_frames(frames.astype(np.uint8), 8.0)
    assert len(encode_clip(video, crf=28)) < len(encode_clip(video)) / 2
    assert encode_clip(video, crf=28) == encode_clip(video, crf=28)
    with pytest.raises(ValueError, match="crf must lie in 0"):
        encode_clip(video, crf=99)
