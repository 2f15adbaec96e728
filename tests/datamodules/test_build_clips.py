"""One source video to its samples."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from raccoon_datamodules.build.clips import Unusable, samples_of
from raccoon_datamodules.build.folders import scan_rovi, scan_videos
from raccoon_datamodules.build.options import BuildOptions, Sampling
from raccoon_datamodules.build.sources import ObjectTexts
from raccoon_datamodules.sample import decode, encode
from raccoon_datamodules.video import Video


def made(root, number=0, *, video=None, **options):
    findings = []
    video = video or scan_rovi(root).videos[number]
    samples = list(samples_of(video, BuildOptions(**options), findings))
    return samples, findings


def reasons(findings):
    return [(f.level, f.what, f.reason) for f in findings]


def label(root, name, n, array, **options):
    Image.fromarray(array).save(root / "Annotations" / name / f"{n:05d}.png", **options)


def test_a_video_becomes_one_sample_with_masks_boxes_and_inpainted_clips(tmp_path, put_video):
    put_video(tmp_path, "a", objects=(1, 2), inpainted=(1, 2))
    (sample,), findings = made(tmp_path, licence="CC0")
    assert findings == []
    assert (sample.key, sample.video.frames.shape, sample.video.fps) == ("a", (6, 32, 48, 3), 24.0)
    assert [(o.id, o.name, o.description) for o in sample.objects] == [("1", "Object 1", ""), ("2", "Object 2", "")]
    first = sample.objects[0]
    assert first.mask.sum(axis=(1, 2)).tolist() == [16 * 14] * 6
    assert np.allclose(first.boxes[3], [3 / 48, 2 / 32, 17 / 48, 18 / 32])
    assert abs(int(first.inpainted.frames[0][first.mask[0] == 1].mean()) - 99) < 3
    assert sample.meta["licence"] == "CC0"
    assert sample.meta["annotation"] == "none"
    assert sample.meta["source"] == {
        "layout": "rovi",
        "video": "a",
        "path": "JPEGImages/a",
        "frames": [0, 1, 2, 3, 4, 5],
        "num_frames": 6,
        "start": 0.0,
    }
    assert decode(encode(sample)).paragraph.names == ("Object 1", "Object 2")


def test_annotation_of_every_fifth_frame_uses_those_frames(tmp_path, put_video):
    put_video(tmp_path, "a", count=12, every=5, inpainted=(1,))
    (sample,), findings = made(tmp_path, fps=30.0)
    assert sample.meta["source"]["frames"] == [0, 5, 10]
    assert sample.video.fps == 6.0
    assert sample.objects[0].inpainted.num_frames == 3
    assert reasons(findings) == [("left out", "frame", "no annotation")]
    assert "9 of its 12 frames" in findings[0].text


def test_annotation_under_other_names_is_matched_by_position_and_said(tmp_path, put_video):
    put_video(tmp_path, "a", count=3)
    for n in range(3):
        (tmp_path / f"Annotations/a/{n:05d}.png").rename(tmp_path / f"Annotations/a/m{n + 7}.png")
    (sample,), findings = made(tmp_path)
    assert sample.video.num_frames == 3
    assert reasons(findings) == [("note", "file", "annotation matched by position")]
    assert "(m7 with frame 00000)" in findings[0].text


def test_annotation_renumbered_from_every_fifth_frame_is_doubted(tmp_path, put_video):
    put_video(tmp_path, "a", count=20)
    for n in range(4, 20):
        (tmp_path / f"Annotations/a/{n:05d}.png").unlink()
    (sample,), findings = made(tmp_path)
    assert sample.meta["source"]["frames"] == [0, 1, 2, 3]
    assert ("note", "file", "annotation of the first frames only") in reasons(findings)


def test_a_clip_of_which_every_label_image_is_damaged_has_too_few_frames(tmp_path, put_video):
    put_video(tmp_path, "a", count=1)
    (tmp_path / "Annotations/a/00000.png").write_bytes(b"no picture")
    samples, findings = made(tmp_path)
    assert samples == []
    assert reasons(findings)[-1] == ("left out", "clip", "too few frames")


def test_surplus_label_images_are_named(tmp_path, put_video):
    put_video(tmp_path, "a", count=3)
    shutil.copy(tmp_path / "Annotations/a/00000.png", tmp_path / "Annotations/a/00077.png")
    (sample,), findings = made(tmp_path)
    assert sample.video.num_frames == 3
    assert [(f.reason, f.text.rpartition(" ")[2]) for f in findings] == [("annotation without a frame", "00077.png")]


def test_annotation_that_fits_nothing_is_refused(tmp_path, put_video):
    put_video(tmp_path, "a", count=5)
    shutil.rmtree(tmp_path / "Annotations/a")
    (tmp_path / "Annotations/a").mkdir()
    for name in ("x", "y"):
        label(tmp_path, "a", 0, np.ones((32, 48), np.uint8))
        (tmp_path / "Annotations/a/00000.png").rename(tmp_path / f"Annotations/a/{name}.png")
    with pytest.raises(Unusable, match="have neither names, numbers nor a count in common"):
        made(tmp_path)


def test_label_images_of_another_size_are_resized_and_of_another_shape_refused(tmp_path, put_video):
    put_video(tmp_path, "a", count=2)
    for n in range(2):
        label(tmp_path, "a", n, np.pad(np.ones((8, 8), np.uint8), ((0, 8), (0, 16))))
    (sample,), findings = made(tmp_path)
    assert sample.objects[0].mask.sum() == 2 * 16 * 16
    assert reasons(findings) == [("changed", "file", "label image of another size")]
    label(tmp_path, "a", 1, np.ones((24, 24), np.uint8))
    samples, findings = made(tmp_path)
    assert samples == []
    assert findings[-1].reason == "label image of another shape"
    assert "00001.png is 24x24, the frames are 48x32" in findings[-1].text


def test_a_damaged_frame_and_a_damaged_label_image_are_left_out(tmp_path, put_video):
    put_video(tmp_path, "a")
    for path in ("JPEGImages/a/00001.jpg", "Annotations/a/00004.png"):
        (tmp_path / path).write_bytes((tmp_path / path).read_bytes()[:60])
    (sample,), findings = made(tmp_path)
    assert sample.meta["source"]["frames"] == [0, 2, 3, 5]
    assert len(sample.objects[0].mask) == 4
    assert sample.video.timestamps.tolist() == pytest.approx([0, 2 / 24, 3 / 24, 5 / 24], abs=1e-6)
    assert sorted(reasons(findings)) == [
        ("left out", "frame", "damaged frame"),
        ("left out", "frame", "damaged label image"),
    ]


def test_too_few_frames_make_no_clip(tmp_path, put_video):
    put_video(tmp_path, "a", count=2)
    samples, findings = made(tmp_path, sampling=Sampling(min_frames=3))
    assert samples == []
    assert reasons(findings) == [("left out", "clip", "too few frames")]


def test_small_masks_are_dropped_and_a_clip_without_objects_with_them(tmp_path, put_video):
    put_video(tmp_path, "a", tall=3)
    samples, findings = made(tmp_path)
    assert samples == []
    assert reasons(findings) == [("left out", "object", "small mask"), ("left out", "clip", "no object left")]
    assert "0.195 % of the frame on average (least: 1 %), over the frames where it is seen" in findings[0].text
    (sample,), _ = made(tmp_path, keep_empty=True)
    assert sample.objects == ()
    (sample,), _ = made(tmp_path, min_area=0.001)
    assert len(sample.objects) == 1


def test_the_mean_may_be_over_the_whole_clip(tmp_path, put_video):
    put_video(tmp_path, "a", tall=8)
    for n in range(2, 6):
        label(tmp_path, "a", n, np.zeros((32, 48), np.uint8))
    assert len(made(tmp_path, min_area=0.03)[0]) == 1
    samples, findings = made(tmp_path, min_area=0.03, area_over="clip")
    assert samples == []
    assert "over the frames of the clip" in findings[0].text


def test_windows_are_samples_of_their_own_under_one_source(tmp_path, put_video):
    put_video(tmp_path, "a", count=7)
    samples, _ = made(tmp_path, sampling=Sampling(clip_length=3))
    assert [s.key for s in samples] == ["a-f000000", "a-f000003"]
    assert [s.meta["source"]["start"] for s in samples] == [0.0, 0.125]
    assert samples[1].video.timestamps[0] == 0.0
    assert {s.meta["source"]["video"] for s in samples} == {"a"}


@pytest.mark.parametrize("codec", ["h264", "lossless"])
def test_frames_are_resized_with_their_masks(tmp_path, put_video, codec):
    put_video(tmp_path, "a", inpainted=(1,))
    (sample,), _ = made(tmp_path, size=(16, 24), codec=codec)
    assert sample.video.frames.shape[1:3] == sample.objects[0].inpainted.size == (16, 24)
    assert sample.objects[0].mask.sum(axis=(1, 2)).tolist() == [8 * 7] * 6


def test_inpainted_frames_that_are_missing_or_damaged_cost_only_the_inpainted_clip(tmp_path, put_video):
    put_video(tmp_path, "a", objects=(1, 2, 3), inpainted=(1, 2), size=(32, 64))
    (tmp_path / "InpaintImages/a/1/00003.jpg").unlink()
    (tmp_path / "InpaintImages/a/2/00003.jpg").write_bytes(b"no picture")
    (sample,), findings = made(tmp_path)
    assert [o.inpainted for o in sample.objects] == [None, None, None]
    assert [(f.reason, f.item) for f in findings] == [
        ("inpainted pictures missing", "1"),
        ("damaged inpainted picture", "2"),
        ("object without inpainted pictures", "3"),
    ]
    (sample,), findings = made(tmp_path, frames_with="inpainted")
    assert sample.meta["source"]["frames"] == [0, 1, 2, 4, 5]
    assert sample.objects[0].inpainted.num_frames == 5


def test_inpainted_pictures_of_annotated_frames_alone_are_matched_with_those(tmp_path, put_video):
    put_video(tmp_path, "a", count=11, every=4, inpainted=(1,))
    folder = tmp_path / "InpaintImages/a/1"
    for n in range(11):
        (folder / f"{n:05d}.jpg").rename(folder / f"x{n + 20}.jpg") if n < 3 else (folder / f"{n:05d}.jpg").unlink()
    (sample,), findings = made(tmp_path)
    assert sample.objects[0].inpainted.num_frames == 3
    assert "by position among the annotated frames" in " ".join(f.text for f in findings)


def test_inpainted_pictures_without_a_mask_are_named(tmp_path, put_video):
    put_video(tmp_path, "a", inpainted=(1,))
    (tmp_path / "InpaintImages/a/1").rename(tmp_path / "InpaintImages/a/9")
    _, findings = made(tmp_path)
    assert [(f.reason, f.item) for f in findings if f.level == "left out"] == [
        ("inpainted pictures without a mask", "9")
    ]


def test_words_of_the_lists_reach_the_sample_and_those_without_a_mask_are_named(tmp_path, put_video):
    put_video(tmp_path, "a", objects=(1,))
    (video,) = scan_rovi(tmp_path).videos
    texts = {"1": ObjectTexts(("Red Box: It slides.",), (("removal", "Remove it."),)), "4": ObjectTexts(("Nothing.",))}
    (sample,), findings = made(tmp_path, video=replace(video, paragraphs=("A still scene.",), texts=texts))
    assert sample.meta["annotation"] == "released"
    assert (sample.objects[0].name, sample.objects[0].description) == ("Red Box", "It slides.")
    assert sample.edits[0].object_id == "1"
    assert [(f.what, f.reason, f.item) for f in findings] == [("record", "no such mask", "object 4")]


def test_words_about_a_dropped_mask_are_named(tmp_path, put_video):
    put_video(tmp_path, "a", objects=(1,), tall=2)
    (video,) = scan_rovi(tmp_path).videos
    _, findings = made(tmp_path, video=replace(video, texts={"1": ObjectTexts(("A dot.",))}))
    assert ("left out", "record", "its mask was dropped") in reasons(findings)


def test_a_folder_of_masks_for_each_object(tmp_path, put_video):
    put_video(tmp_path, "a")
    shutil.copytree(tmp_path / "Annotations/a", tmp_path / "masks/a/cat.left")
    shutil.copytree(tmp_path / "Annotations/a", tmp_path / "masks/a/7")
    (tmp_path / "masks/a/7/00002.png").unlink()
    (video,) = scan_videos(tmp_path / "JPEGImages", masks=tmp_path / "masks").videos
    (sample,), _ = made(tmp_path, video=replace(video, categories={"cat.left": "cat"}))
    assert [o.name for o in sample.objects] == ["Object 7", "Cat"]
    assert sample.objects[0].mask.any(axis=(1, 2)).tolist() == [True, True, False, True, True, True]
    assert decode(encode(sample)).objects[1].category == "cat"


def test_plain_videos_have_no_objects_and_are_ready_for_annotation(tmp_path):
    frames = np.repeat(np.arange(8, dtype=np.uint8) * 20, 32 * 48 * 3).reshape(8, 32, 48, 3)
    Video.from_frames(frames, 8.0).write(tmp_path / "a.b.mp4", lossless=True)
    (video,) = scan_videos(tmp_path).videos
    (sample,), findings = made(tmp_path, video=video, sampling=Sampling(frames=4))
    assert findings == []
    assert sample.key.startswith("a_b-")
    assert sample.video.frames[:, 0, 0, 0].tolist() == [20, 60, 100, 140]
    assert (sample.video.fps, sample.objects, sample.paragraph.description) == (4.0, (), "")


def test_masks_beside_a_video_file_are_matched_with_frame_numbers(tmp_path, put_video):
    put_video(tmp_path, "a", count=8, every=3)
    frames = np.full((8, 32, 48, 3), 50, dtype=np.uint8)
    (tmp_path / "clips").mkdir()
    Video.from_frames(frames, 24.0).write(tmp_path / "clips/a.mp4")
    (video,) = scan_videos(tmp_path / "clips", masks=tmp_path / "Annotations").videos
    (sample,), _ = made(tmp_path, video=video)
    assert sample.meta["source"]["frames"] == [0, 3, 6]
    assert sample.meta["source"]["path"] == "clips/a.mp4"


def test_a_clip_that_would_not_fit_in_memory_is_refused(tmp_path, put_video):
    put_video(tmp_path, "a")
    samples, findings = made(tmp_path, size=(16384, 16384))
    assert samples == []
    assert findings[0].reason == "clip too large"
    assert "ask for clips (--clip-length)" in findings[0].text
