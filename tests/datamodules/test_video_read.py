import logging
import os
import sys
import types
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from raccoon_datamodules.video import Video, decode_clip, encode_clip, probe


def pictures(num_frames=12, height=48, width=96):
    """Smooth colour fields with a moving white square: every frame and every corner differs."""
    y, x = np.mgrid[0:height, 0:width]
    frames = np.empty((num_frames, height, width, 3), dtype=np.uint8)
    for number, frame in enumerate(frames):
        frame[..., 0] = 40 + 160 * x / width
        frame[..., 1] = 40 + 160 * y / height
        frame[..., 2] = 60 + 8 * number % 160
        frame[4:12, 4 + number : 12 + number] = 255
    return frames


def make(
    path, frames, *, pix_fmt="yuv420p", codec="libx264", rotation=None, flip=False, pts=None, options=None, rate=24
):
    """Encode without the code under test."""
    time_base = Fraction(1, 12288)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options={"crf": "12"} if "264" in codec else {})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pix_fmt
        stream.codec_context.time_base = time_base
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=flip)
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = number * 512 if pts is None else pts[number], time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def make_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        stream.layout = "mono"
        for number in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.int16), "s16", "mono")
            frame.sample_rate, frame.pts = 44100, number * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def noise(num_frames=40):
    return np.random.default_rng(0).integers(0, 256, (num_frames, 48, 96, 3), dtype=np.uint8)


def difference(a, b):
    return np.abs(a.astype(int) - b).mean()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return make(tmp_path_factory.mktemp("video") / "plain.mp4", pictures(48))


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p"])
def test_decord_and_pyav_give_the_same_bits(tmp_path, pix_fmt):
    pytest.importorskip("decord")
    path = make(tmp_path / "a.mp4", pictures(), pix_fmt=pix_fmt)
    first, second = Video.read(path, decoder="decord"), Video.read(path, decoder="pyav")
    assert (first.decoder, second.decoder) == ("decord", "pyav")
    np.testing.assert_array_equal(first.frames, second.frames)
    np.testing.assert_array_equal(first.timestamps, second.timestamps)


def test_auto_is_decord_for_an_ordinary_file(plain):
    pytest.importorskip("decord")
    video = Video.read(plain)
    assert video.decoder == "decord"
    assert video.path == plain
    assert video.fps == 24.0
    np.testing.assert_array_equal(video.frame_indices, np.arange(48))
    np.testing.assert_array_equal(video.timestamps, np.arange(48) * 512 / 12288)
    assert difference(video.frames, pictures(48)) < 3


def stored(path):
    """The pictures as they lie in the file, without the code under test."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize(
    ("rotation", "turns", "degrees"), [(90, 1, 270), (180, 2, 180), (-90, 3, 90)], ids=["left", "half", "right"]
)
@pytest.mark.parametrize("decoder", ["auto", "decord"])
def test_a_rotated_file_is_read_the_way_it_is_shown(tmp_path, rotation, turns, degrees, decoder):
    if decoder == "decord":
        pytest.importorskip("decord")
    # decord fails on turned pictures whose rows it pads; 64 has no padding.
    height = 64 if decoder == "decord" else 48
    path = make(tmp_path / "turned.mp4", pictures(12, height, 96), rotation=rotation)
    video = Video.read(path, decoder=decoder)
    assert video.decoder == {"auto": "pyav", "decord": "decord"}[decoder]
    np.testing.assert_array_equal(video.frames, np.rot90(stored(path), turns, axes=(1, 2)))
    info = probe(path)
    assert (info.height, info.width, info.rotation) == (*video.size, degrees)


def test_a_mirrored_file_is_read_the_way_it_is_shown(tmp_path):
    path = make(tmp_path / "mirrored.mp4", pictures(), rotation=0, flip=True)
    np.testing.assert_array_equal(Video.read(path).frames, stored(path)[:, :, ::-1])
    with pytest.raises(RuntimeError, match="it does not mirror"):
        Video.read(path, decoder="decord")


def test_portrait_and_odd_sizes_are_read_whole(tmp_path):
    video = Video.read(make(tmp_path / "odd.mp4", pictures(5, 67, 35), pix_fmt="yuv444p"))
    assert video.size == (67, 35)
    assert difference(video.frames, pictures(5, 67, 35)) < 3


def test_ten_bit_video_is_read_by_pyav_in_true_colours(tmp_path):
    frames = np.full((4, 48, 96, 3), (200, 120, 60), dtype=np.uint8)
    video = Video.read(make(tmp_path / "ten.mp4", frames, pix_fmt="yuv420p10le"))
    assert video.decoder == "pyav"
    assert probe(video.path).pix_fmt == "yuv420p10le"
    assert np.abs(video.frames.astype(int) - frames).max() <= 2


def test_variable_rate_times_are_the_files_own(tmp_path):
    pts = np.cumsum(np.random.default_rng(1).integers(200, 1500, 12)) - 200
    path = make(tmp_path / "v.mp4", pictures(), pts=pts.tolist(), options={"movie_timescale": "12288"})
    for decoder in ("auto", "pyav"):
        np.testing.assert_array_equal(Video.read(path, decoder=decoder).timestamps, pts / 12288)
    assert probe(path).is_variable_rate


def test_matroska_milliseconds_do_not_count_as_variable_rate(tmp_path):
    info = probe(make(tmp_path / "a.mkv", pictures()))
    assert not info.is_variable_rate
    assert info.fps == 24.0
    assert info.num_frames == 12


def test_probe_tells_what_the_file_is(plain):
    info = probe(plain)
    assert (info.num_frames, info.height, info.width, info.fps) == (48, 48, 96, 24.0)
    assert (info.codec, info.pix_fmt, info.rotation, info.has_sound) == ("h264", "yuv420p", 0, False)
    assert info.duration == pytest.approx(2.0)
    assert not info.is_variable_rate


@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_a_window_holds_the_frames_from_start_up_to_end(plain, decoder):
    whole = Video.read(plain)
    part = Video.read(plain, start=0.5, end=1.0, decoder=decoder)
    np.testing.assert_array_equal(part.frame_indices, np.arange(12, 24))
    np.testing.assert_array_equal(part.frames, whole.frames[12:24])
    np.testing.assert_array_equal(part.timestamps, whole.timestamps[12:24])
    assert part.fps == 24.0


@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_stride_takes_every_nth_frame_and_divides_the_rate(plain, decoder):
    part = Video.read(plain, stride=4, decoder=decoder)
    np.testing.assert_array_equal(part.frame_indices, np.arange(0, 48, 4))
    np.testing.assert_array_equal(part.frames, Video.read(plain).frames[::4])
    assert part.fps == pytest.approx(6.0)


def test_max_frames_takes_the_middles_of_equal_segments(plain):
    part = Video.read(plain, max_frames=4)
    assert part.frame_indices.tolist() == [6, 18, 30, 42]
    assert part.fps == pytest.approx(2.0)
    assert Video.read(plain, max_frames=100).num_frames == 48


@pytest.mark.parametrize("gop", ["1", "7", "250"])
def test_jumping_to_key_frames_gives_the_same_frames_as_reading_all(tmp_path, gop):
    path = tmp_path / "k.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"g": gop, "x264-params": "open-gop=1"})
        stream.height, stream.width, stream.pix_fmt = 48, 96, "yuv420p"
        for picture in pictures(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    whole = Video.read(path, decoder="pyav")
    for wanted in ({"max_frames": 5}, {"start": 1.3, "end": 1.4}, {"stride": 29}, {"start": 2.3}):
        part = Video.read(path, decoder="pyav", **wanted)
        np.testing.assert_array_equal(part.frames, whole.frames[part.frame_indices])


def test_a_long_file_is_not_loaded_by_accident(plain):
    with pytest.raises(ValueError, match=r"48 frames of 96x48.*start, end.*stride.*max_frames.*max_bytes"):
        Video.read(plain, max_bytes=150_000)
    assert Video.read(plain, max_bytes=150_000, max_frames=8).num_frames == 8


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"stride": 0}, "stride must be at least 1"),
        ({"max_frames": 0}, "max_frames must be at least 1"),
        ({"start": 2.0, "end": 1.0}, "start must come before end"),
        ({"start": 60.0}, r"no frame of .* lies between start 60.0 s.*from 0.000 to 1.958 s"),
        ({"decoder": "opencv"}, "decoder must be auto, decord, pyav or torchcodec"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(plain, arguments, match):
    with pytest.raises(ValueError, match=match):
        Video.read(plain, **arguments)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no video at .*nowhere\.mp4"):
        Video.read(tmp_path / "nowhere.mp4")


@pytest.mark.parametrize("reader", [Video.read, probe], ids=["read", "probe"])
@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("folder", "is a folder, a video file is needed"),
        ("empty.mp4", "is empty"),
        ("text.mp4", "is not a video that can be read"),
        ("text.txt", "no"),
        ("picture.png", "holds no video"),
        ("sound.mp4", "holds sound only"),
        ("unfinished.mp4", "has no index: it is cut off"),
        ("cut.mp4", r"cut off or damaged: \d+ frames can be read, 40 frames announced"),
        ("cut.mkv", r"cut off or damaged: \d+ frames can be read, 1.667 s .* announced"),
    ],
)
def test_what_is_no_whole_video_gets_one_clear_sentence(tmp_path, capfd, reader, name, match):
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name == "empty.mp4":
        path.touch()
    elif name.startswith("text"):
        path.write_text("this is a letter\n" * 100)
    elif name == "picture.png":
        cv2.imwrite(str(path), pictures(1)[0])
    elif name == "sound.mp4":
        make_sound(path)
    else:
        options = {"movflags": "faststart"} if name == "cut.mp4" else {}
        make(path, noise(), options=options)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    with pytest.raises(ValueError, match=match) as caught:
        reader(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_file_that_may_not_be_read_is_named(plain, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match=r"no permission to read .*plain\.mp4"):
        Video.read(plain)


def test_a_file_damaged_in_the_middle_is_refused_by_pyav(tmp_path):
    path = make(tmp_path / "d.mp4", noise())
    with av.open(str(path)) as container:
        middle = [packet.pos for packet in container.demux(video=0) if packet.size][20]
    data = bytearray(path.read_bytes())
    data[middle : middle + 4] = b"\xff" * 4
    path.write_bytes(data)
    with pytest.raises(ValueError, match="cut off or damaged"):
        Video.read(path, decoder="pyav")


class DecordError(Exception):
    """decord's own error is no RuntimeError either."""


@pytest.mark.parametrize("error", [RuntimeError, DecordError])
def test_auto_falls_back_to_pyav_and_says_why(plain, monkeypatch, caplog, error):
    def broken(*args, **kwargs):
        raise error("no luck today")

    decord = types.SimpleNamespace(
        DECORDError=DecordError,
        VideoReader=broken,
        logging=types.SimpleNamespace(set_level=lambda level: None, QUIET=-8, ERROR=16),
    )
    monkeypatch.setitem(sys.modules, "decord", decord)
    with caplog.at_level(logging.WARNING):
        assert Video.read(plain).decoder == "pyav"
    assert "no luck today" in caplog.text
    with pytest.raises(RuntimeError, match=r"decord cannot read .*no luck today.*--decoder pyav"):
        Video.read(plain, decoder="decord")


def test_a_file_that_only_decord_cannot_read_is_read(tmp_path):
    # One frame in Matroska: decord raises its own error about a missing duration.
    video = Video.from_frames(np.full((1, 96, 128, 3), 90, np.uint8), 25.0)
    video.write(tmp_path / "one.mkv", lossless=True)
    assert np.array_equal(Video.read(tmp_path / "one.mkv").frames, video.frames)


def test_without_decord_pyav_reads(plain, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    assert Video.read(plain).decoder == "pyav"
    with pytest.raises(RuntimeError, match="decord cannot read"):
        Video.read(plain, decoder="decord")


def test_torchcodec_that_is_not_installed_is_a_clear_error(plain, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(RuntimeError, match="torchcodec was asked for but cannot be imported"):
        Video.read(plain, decoder="torchcodec")


def test_torchcodec_is_used_when_asked_but_not_on_rotated_files(tmp_path, plain, monkeypatch):
    class Reader:
        def __init__(self, path, dimension_order):
            assert dimension_order == "NHWC"
            self.frames = stored(path)

        def get_frames_at(self, indices):
            import torch

            return types.SimpleNamespace(data=torch.from_numpy(self.frames[indices]))

    monkeypatch.setitem(sys.modules, "torchcodec.decoders", types.SimpleNamespace(VideoDecoder=Reader))
    video = Video.read(plain, decoder="torchcodec", stride=5)
    assert video.decoder == "torchcodec"
    np.testing.assert_array_equal(video.frames, Video.read(plain, decoder="pyav", stride=5).frames)
    with pytest.raises(RuntimeError, match="is rotated, which versions of torchcodec treat differently"):
        Video.read(make(tmp_path / "turned.mp4", pictures(3), rotation=90), decoder="torchcodec")
    monkeypatch.setattr(Reader, "get_frames_at", lambda self, indices: 1 / 0 if not indices else [].pop())
    with pytest.raises(RuntimeError, match="torchcodec cannot read"):
        Video.read(plain, decoder="torchcodec")


def test_pictures_that_change_their_size_are_refused(tmp_path):
    path = tmp_path / "a.mpg"
    with av.open(str(path), "w", format="mpeg2video") as container:
        stream = container.add_stream("mpeg2video", rate=24)
        stream.height, stream.width, stream.pix_fmt = 48, 96, "yuv420p"
        for picture in pictures(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    other = tmp_path / "b.mpg"
    with av.open(str(other), "w", format="mpeg2video") as container:
        stream = container.add_stream("mpeg2video", rate=24)
        stream.height, stream.width, stream.pix_fmt = 96, 112, "yuv420p"
        for picture in pictures(4, 96, 112):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes() + other.read_bytes())
    with pytest.raises(ValueError, match=r"must have one size, frame \d+ is 112x96, the first 96x48"):
        Video.read(path, decoder="pyav")


def test_a_file_without_packet_times_is_read_by_counting(tmp_path):
    path = make(tmp_path / "a.avi", pictures(), codec="mpeg4")
    video = Video.read(path)
    assert video.num_frames == probe(path).num_frames == 12
    assert (np.diff(video.timestamps) > 0).all()


@pytest.mark.parametrize("shape", [(1, 64, 64), (8, 64, 64), (5, 33, 47)], ids=str)
def test_a_clip_in_memory_comes_back_bit_for_bit(shape):
    frames = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    video = Video.from_frames(frames, 8)
    data = encode_clip(video)
    assert data == encode_clip(video)
    back = decode_clip(data)
    np.testing.assert_array_equal(back.frames, frames)
    np.testing.assert_array_equal(back.timestamps, video.timestamps)
    assert back.fps == 8.0


def test_a_clip_in_memory_can_be_read_in_part():
    video = Video.from_frames(pictures(8), 8)
    part = decode_clip(encode_clip(video), frame_indices=[1, 6])
    np.testing.assert_array_equal(part.frames, video.frames[[1, 6]])
    np.testing.assert_array_equal(part.timestamps, video.timestamps[[1, 6]])


def test_decord_reads_a_clip_from_memory_alike():
    decord = pytest.importorskip("decord")
    import io

    video = Video.from_frames(pictures(8), 8)
    read = decord.VideoReader(io.BytesIO(encode_clip(video)), num_threads=1).get_batch(range(8)).asnumpy()
    np.testing.assert_array_equal(read, video.frames)


def test_a_damaged_clip_or_a_wrong_index_is_refused():
    data = encode_clip(Video.from_frames(noise(8), 8))
    with pytest.raises(ValueError, match="must be an mp4 from encode_clip"):
        decode_clip(b"not a clip at all" * 9)
    with pytest.raises(ValueError, match=r"must be an mp4 from encode_clip|is cut off"):
        decode_clip(data[: len(data) // 2])
    for wrong in ([8], [-1], [3, 3], []):
        with pytest.raises(ValueError, match=r"frame_indices must increase within \[0, 8\)"):
            decode_clip(data, frame_indices=wrong)


def test_real_clips_are_read_alike_by_both_decoders():
    pytest.importorskip("decord")
    root = Path(os.environ.get("RACCOON_TEST_DATA") or Path(__file__).resolve().parents[2] / "../shared/data")
    clips = sorted((root / "clips").glob("*.mp4"))
    if not clips:
        pytest.skip(f"no test clips in {root}")
    for clip in clips[::4]:
        first, second = (Video.read(clip, end=0.3, decoder=decoder) for decoder in ("decord", "pyav"))
        np.testing.assert_array_equal(first.frames, second.frames, err_msg=clip.name)
