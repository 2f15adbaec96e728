import errno
import os
import signal
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from raccoon_datamodules import video_write
from raccoon_datamodules.video import Video, probe, time_precision


def pictures(num_frames=12, height=48, width=96):
    y, x = np.mgrid[0:height, 0:width]
    frames = np.empty((num_frames, height, width, 3), dtype=np.uint8)
    for number, frame in enumerate(frames):
        frame[..., 0] = 40 + 160 * x / width
        frame[..., 1] = 40 + 160 * y / height
        frame[..., 2] = 60 + 8 * number % 160
        frame[4:12, 4 + number : 12 + number] = 255
    return frames


def add_sound(source, target, *, codec="aac", delay=0.0, seconds=2.0):
    """Copy the pictures of ``source`` and put a tone beside them; without the code under test."""
    with av.open(str(source)) as read, av.open(str(target), "w", options={"movie_timescale": "48000"}) as container:
        video = container.add_stream_from_template(read.streams.video[0])
        sound = container.add_stream(codec, rate=48000)
        sound.layout = "mono"
        for packet in read.demux(video=0):
            if packet.size:
                packet.stream = video
                container.mux(packet)
        tone = (8000 * np.sin(np.arange(int(48000 * seconds)) * 0.05)).astype(np.int16)[None]
        for first in range(0, tone.shape[1], 960):
            frame = av.AudioFrame.from_ndarray(tone[:, first : first + 960], "s16", "mono")
            frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
            frame.pts = first + round(delay * 48000)
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return target


def sound_of(path):
    """(seconds, bytes) of each packet of sound."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(stream) if p.size]


def round_trip(video, path, **options):
    video.write(path, **options)
    return Video.read(path)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Two seconds at 24 frames a second with AAC sound."""
    folder = tmp_path_factory.mktemp("source")
    Video.from_frames(pictures(48), 24).write(folder / "silent.mp4")
    return add_sound(folder / "silent.mp4", folder / "source.mp4")


@pytest.mark.parametrize("fps", [24, 10, 30000 / 1001, 23.976, 59.94, 1], ids=str)
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_fps_and_times_come_back_exactly(tmp_path, fps, suffix):
    video = Video.from_frames(pictures(7), fps)
    back = round_trip(video, tmp_path / f"a{suffix}")
    assert back.fps == pytest.approx(fps, rel=1e-9)
    np.testing.assert_allclose(back.timestamps, video.timestamps, rtol=0, atol=1e-6)
    again = round_trip(back, tmp_path / f"b{suffix}")
    assert again.fps == back.fps
    np.testing.assert_array_equal(again.timestamps, back.timestamps)


def test_one_frame_can_be_written(tmp_path):
    back = round_trip(Video.from_frames(pictures(1), 25), tmp_path / "a.mp4")
    assert (back.num_frames, back.fps) == (1, 25.0)


def test_variable_rate_times_come_back_exactly(tmp_path):
    pts = np.cumsum(np.random.default_rng(0).integers(300, 3000, 12))
    video = Video.from_frames(pictures(), 12, timestamps=pts / 15360)
    first = round_trip(video, tmp_path / "a.mp4")
    second = round_trip(first, tmp_path / "b.mp4")
    np.testing.assert_array_equal(first.timestamps, pts / 15360)
    np.testing.assert_array_equal(second.timestamps, first.timestamps)
    assert second.fps == first.fps
    assert probe(tmp_path / "b.mp4").is_variable_rate


def test_times_on_no_common_clock_are_kept_to_half_a_microsecond(tmp_path):
    times = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.2, 12))
    back = round_trip(Video.from_frames(pictures(), 10, timestamps=times), tmp_path / "a.mp4")
    np.testing.assert_allclose(back.timestamps, times, rtol=0, atol=0.51e-6)


def test_matroska_keeps_times_to_the_stated_precision(tmp_path):
    video = Video.from_frames(pictures(), 24)
    back = round_trip(video, tmp_path / "a.mkv")
    assert back.fps == 24.0
    np.testing.assert_allclose(back.timestamps, video.timestamps, rtol=0, atol=time_precision("a.mkv") + 1e-9)
    assert time_precision("a.mp4") == 0.0
    np.testing.assert_array_equal(round_trip(back, tmp_path / "b.mp4").timestamps, back.timestamps)


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (47, 64), (48, 63), (35, 67), (2, 2), (1, 1)], ids=str)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_every_size_is_kept_and_lossless_is_bit_for_bit(tmp_path, size, suffix):
    frames = np.random.default_rng(0).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    video = Video.from_frames(frames, 8)
    np.testing.assert_array_equal(round_trip(video, tmp_path / f"l{suffix}", lossless=True).frames, frames)
    assert Video.read(tmp_path / f"l{suffix}", decoder="pyav").frames.tobytes() == frames.tobytes()
    assert round_trip(video, tmp_path / f"a{suffix}").size == size


def test_a_round_trip_does_not_shift_colours(tmp_path):
    rng = np.random.default_rng(0)
    frames = np.empty((6, 64, 96, 3), dtype=np.uint8)
    frames[:] = np.repeat(np.repeat(rng.integers(30, 226, (8, 12, 3)), 8, 0), 8, 1)
    video = Video.from_frames(frames, 24)
    first = round_trip(video, tmp_path / "a.mp4", crf=4)
    second = round_trip(first, tmp_path / "b.mp4", crf=4)
    for back in (first, second):
        assert np.abs((back.frames.astype(float) - frames).mean(axis=(0, 1, 2))).max() < 0.5


@pytest.mark.parametrize(("matrix", "range_"), [(1, 1), (5, 1), (6, 1), (9, 1), (2, 0), (1, 2), (5, 2)])
def test_the_sources_colour_tags_are_kept(tmp_path, matrix, range_):
    path = tmp_path / "source.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "4"})
        stream.height, stream.width, stream.pix_fmt = 48, 96, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, range_
        for picture in pictures(4):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            swscale = {2: 5, 6: 5}.get(matrix, matrix)
            container.mux(
                stream.encode(frame.reformat(format="yuv420p", dst_colorspace=swscale, dst_color_range=max(range_, 1)))
            )
        container.mux(stream.encode(None))
    before = Video.read(path)
    after = round_trip(before, tmp_path / "out.mp4", crf=4)
    assert np.abs((after.frames.astype(float) - before.frames).mean(axis=(0, 1, 2))).max() < 0.6
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range) == (matrix, range_)


def test_writing_twice_gives_the_same_bytes(tmp_path):
    video = Video.from_frames(pictures(), 24)
    for name in "abc":
        video.write(tmp_path / f"{name}.mp4")
    assert len({(tmp_path / f"{name}.mp4").read_bytes() for name in "abc"}) == 1


def test_pixels_that_are_not_square_stay_so(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.height, stream.width, stream.pix_fmt = 48, 96, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        stream.set_display_rotation(90)
        for picture in pictures(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    Video.read(tmp_path / "a.mp4").write(tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(3, 4)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_the_sound_is_copied_packet_by_packet_at_its_times(tmp_path, source, suffix):
    video = Video.read(source)
    video.with_frames(255 - video.frames).write(tmp_path / f"a{suffix}")
    before, after = sound_of(source), sound_of(tmp_path / f"a{suffix}")
    assert [data for _, data in after] == [data for _, data in before]
    tolerance = 0.00051 if suffix == ".mkv" else 0
    np.testing.assert_allclose([t for t, _ in after], [t for t, _ in before], rtol=0, atol=tolerance)
    assert probe(tmp_path / f"a{suffix}").has_sound


@pytest.mark.parametrize(("late_pictures", "late_sound"), [(0.5, 0.0), (0.0, 0.25), (0.5, 0.25)])
def test_the_offset_between_sound_and_pictures_is_kept(tmp_path, late_pictures, late_sound):
    times = (np.arange(24) + round(24 * late_pictures)) / 24
    Video.from_frames(pictures(24), 24, timestamps=times).write(tmp_path / "silent.mp4")
    source = add_sound(tmp_path / "silent.mp4", tmp_path / "source.mp4", delay=late_sound)
    video = Video.read(source)
    np.testing.assert_array_equal(video.timestamps, times)
    back = round_trip(video, tmp_path / "out.mp4")
    np.testing.assert_array_equal(back.timestamps, times)
    before, after = sound_of(source), sound_of(tmp_path / "out.mp4")
    # The sound's start is kept to a tick of the video's clock.
    np.testing.assert_allclose([t for t, _ in after], [t for t, _ in before], rtol=0, atol=1e-4)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_window_takes_its_sound_along_in_step(tmp_path, source, suffix):
    video = Video.read(source, start=0.5, end=1.5)
    out = tmp_path / f"a{suffix}"
    back = round_trip(video, out)
    tolerance = 0.00051 if suffix == ".mkv" else 1e-12
    np.testing.assert_allclose(back.timestamps, video.timestamps - 0.5, rtol=0, atol=tolerance)
    when = {data: time for time, data in sound_of(source)}
    after = sound_of(out)
    packet = 1024 / 48000
    assert 1.0 <= len(after) * packet <= 1.0 + 2 * packet + 1e-6
    np.testing.assert_allclose([when[data] - 0.5 for _, data in after], [t for t, _ in after], rtol=0, atol=0.00051)


def test_the_sound_can_come_from_another_file(tmp_path, source):
    Video.from_frames(pictures(), 24).write(tmp_path / "a.mp4", sound_from=source)
    assert sound_of(tmp_path / "a.mp4") == sound_of(source)
    with pytest.raises(FileNotFoundError, match="to take the sound from"):
        Video.from_frames(pictures(), 24).write(tmp_path / "b.mp4", sound_from=tmp_path / "no.wav")
    (tmp_path / "text.txt").write_text("no sound" * 99)
    with pytest.raises(ValueError, match=r"the sound of .*text\.txt cannot be read"):
        Video.from_frames(pictures(), 24).write(tmp_path / "b.mp4", sound_from=tmp_path / "text.txt")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.mp4", "text.txt"]


def test_sound_the_file_cannot_hold_is_said_clearly(tmp_path):
    Video.from_frames(pictures(), 24).write(tmp_path / "silent.mkv")
    source = add_sound(tmp_path / "silent.mkv", tmp_path / "source.mkv", codec="wavpack")
    video = Video.read(source)
    with pytest.raises(ValueError, match=r"sound of the kind wavpack cannot be kept in a \.mp4 file: write \.mkv"):
        video.write(tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()
    video.write(tmp_path / "out.mkv")
    assert probe(tmp_path / "out.mkv").has_sound


def test_the_source_itself_can_be_replaced(tmp_path, source):
    path = tmp_path / "same.mp4"
    path.write_bytes(source.read_bytes())
    video = Video.read(path)
    with pytest.raises(FileExistsError, match="--overwrite"):
        video.write(path)
    video.with_frames(255 - video.frames).write(path, overwrite=True)
    assert sound_of(path) == sound_of(source)
    assert np.abs(Video.read(path).frames.astype(int) + video.frames - 255).mean() < 3


def test_a_source_that_is_gone_leaves_the_clip_without_sound(tmp_path, source):
    path = tmp_path / "gone.mp4"
    path.write_bytes(source.read_bytes())
    video = Video.read(path)
    path.unlink()
    video.write(tmp_path / "out.mp4")
    assert not probe(tmp_path / "out.mp4").has_sound


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_nothing_and_keeps_what_was_there(tmp_path, monkeypatch, interruption):
    path = tmp_path / "a.mp4"
    Video.from_frames(pictures(3), 24).write(path)
    before = path.read_bytes()
    make, count = video_write._frame, iter(range(99))

    def interrupted(*args):
        if next(count) == 5:
            raise interruption
        return make(*args)

    monkeypatch.setattr(video_write, "_frame", interrupted)
    with pytest.raises(interruption):
        Video.from_frames(pictures(), 24).write(path, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]
    assert path.read_bytes() == before


def test_a_full_disk_is_one_sentence_and_nothing_is_destroyed(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"precious")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(video_write, "_packets", full)
    with pytest.raises(OSError, match=r"no room left to write .*a\.mp4; nothing was changed there"):
        Video.from_frames(pictures(), 24).write(path, overwrite=True)
    assert path.read_bytes() == b"precious"
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no file size limits on this system")
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_real_limit_on_the_file_size_is_one_sentence(tmp_path, name):
    (tmp_path / name).write_bytes(b"precious")
    program = f"""
        import resource, signal
        import numpy as np
        from raccoon_datamodules.video import Video
        frames = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            Video.from_frames(frames, 24).write({str(tmp_path / name)!r}, lossless=True, overwrite=True)
        except OSError as err:
            print(err)
    """
    folders = os.pathsep.join(str(Path(__file__).resolve().parents[2] / part) for part in ("datamodules", "kernels"))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": folders},
        check=True,
    )
    assert "othing was changed there" in done.stdout
    assert (tmp_path / name).read_bytes() == b"precious"
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "options", "error", "match"),
    [
        ("a.gif", {}, ValueError, r"written as \.mp4, \.m4v, \.mov, \.mkv, got 'a\.gif'"),
        ("a", {}, ValueError, "change its ending"),
        ("a.mp4", {"crf": 60}, ValueError, "crf must lie in 0"),
        ("no/a.mp4", {}, FileNotFoundError, r"the folder .*no for a\.mp4 does not exist"),
        ("file.txt/a.mp4", {}, NotADirectoryError, r"file\.txt must be a folder"),
        ("folder.mp4", {"overwrite": True}, IsADirectoryError, "is a folder, a file name is needed"),
        ("there.mp4", {}, FileExistsError, r"there\.mp4 exists already: pass --overwrite"),
    ],
)
def test_places_and_options_that_cannot_be_are_refused(tmp_path, name, options, error, match):
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file.txt").touch()
    (tmp_path / "there.mp4").touch()
    with pytest.raises(error, match=match):
        Video.from_frames(pictures(2), 24).write(tmp_path / name, **options)


def test_times_too_close_to_be_written_are_refused(tmp_path):
    video = Video.from_frames(pictures(2), 24, timestamps=[0.0, 1e-7])
    with pytest.raises(ValueError, match="at least a microsecond apart"):
        video.write(tmp_path / "a.mp4")


def test_a_file_that_came_out_short_is_not_kept(tmp_path, monkeypatch):
    make = video_write._packets
    monkeypatch.setattr(video_write, "_packets", lambda *args: list(make(*args))[:-2])
    with pytest.raises(OSError, match=r"came out with 10 of 12 frames"):
        Video.from_frames(pictures(), 24).write(tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


def test_a_real_clip_with_sound_survives_a_round_trip(tmp_path):
    root = Path(os.environ.get("RACCOON_TEST_DATA") or Path(__file__).resolve().parents[2] / "../shared/data")
    clip = root / "clips" / "woman-dog-leash.mp4"
    if not clip.exists():
        pytest.skip(f"no test clips in {root}")
    video = Video.read(clip, end=0.5)
    back = round_trip(video, tmp_path / "a.mp4")
    np.testing.assert_array_equal(back.timestamps, video.timestamps)
    assert (back.fps, back.size) == (video.fps, video.size)
    error = back.frames.astype(np.float32) - video.frames
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 40
    assert abs(error.mean()) < 0.2
    before, after = sound_of(clip), sound_of(tmp_path / "a.mp4")
    assert after == before[: len(after)]
    assert len(after) * 1024 / 48000 >= 0.5


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_lossless_copy_says_as_its_source_how_bright_its_colours_are(tmp_path, suffix):
    source = tmp_path / "hdr.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.height, stream.width, stream.pix_fmt = 48, 96, "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = 9, 9, 16
        for picture in pictures(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    video = Video.read(source)
    read = round_trip(video, tmp_path / f"out{suffix}", lossless=True)
    assert np.array_equal(read.frames, video.frames)
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        context = container.streams.video[0].codec_context
        assert (context.color_primaries, context.color_trc) == (9, 16)
