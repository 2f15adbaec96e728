"""Masks and inpainted clips that are one file of all frames: the same samples as from pictures."""

import shutil

import numpy as np
import pytest
from PIL import Image

from raccoon_datamodules.build.clips import Unusable, samples_of
from raccoon_datamodules.build.folders import scan_videos
from raccoon_datamodules.build.options import BuildOptions, Sampling
from raccoon_datamodules.masks import write_masks
from raccoon_datamodules.sample import encode
from raccoon_datamodules.video import Video


@pytest.fixture
def root(tmp_path, put_video):
    """Video ``a`` of 12 frames with two objects, as folders of pictures, and ``b`` with one."""
    put_video(tmp_path, "a", count=12, objects=(1, 2), inpainted=(1, 2))
    return tmp_path


def scan(root, inpainted="InpaintImages"):
    return scan_videos(root / "JPEGImages", masks=root / "Annotations", inpainted=root / inpainted)


def built(root, *, number=0, inpainted="InpaintImages", **options):
    found = scan(root, inpainted)
    findings = [*found.findings, *found.videos[number].findings]
    samples = list(samples_of(found.videos[number], BuildOptions(**options), findings))
    return samples, [(f.level, f.what, f.reason) for f in findings]


def labels(root, name="a"):
    """The label images of a video as one array, which are taken away."""
    folder = root / "Annotations" / name
    found = np.stack([np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))])
    shutil.rmtree(folder)
    return found


def each_object(root, write):
    values = labels(root)
    (root / "Annotations/a").mkdir()
    for number in (1, 2):
        write((values == number).astype(np.uint8), root / "Annotations/a" / str(number))


def as_packed(root):
    each_object(root, lambda mask, place: write_masks(mask, place.with_suffix(".npz")))


def as_plain_arrays(root):
    each_object(root, lambda mask, place: np.save(place.with_suffix(".npy"), mask * np.uint8(255)))


def as_truth_values(root):
    each_object(root, lambda mask, place: np.savez(place.with_suffix(".npz"), mask=mask == 1))


def as_videos(root):
    def write(mask, place):
        frames = np.repeat(mask[..., None] * np.uint8(255), 3, axis=3)
        Video.from_frames(frames, 24.0).write(place.with_suffix(".mp4"), crf=0)

    each_object(root, write)


def as_one_label_array(root):
    np.savez_compressed(root / "Annotations/a.npz", mask=labels(root))


@pytest.mark.parametrize("store", [as_packed, as_plain_arrays, as_truth_values, as_videos, as_one_label_array])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(step=2, clip_length=3)])
def test_masks_in_one_file_give_the_samples_of_label_images(root, store, sampling):
    expected, _ = built(root, sampling=sampling)
    store(root)
    samples, findings = built(root, sampling=sampling)
    assert findings == []
    assert [encode(sample) for sample in samples] == [encode(sample) for sample in expected]


def test_a_packed_mask_beside_the_folders_is_the_one_object(root):
    write_masks((labels(root) == 1).astype(np.uint8), root / "Annotations/a.npz")
    shutil.rmtree(root / "InpaintImages/a/2")
    (sample,), findings = built(root)
    assert findings == []
    assert [(record.id, record.mask.sum() > 0) for record in sample.objects] == [("1", True)]


def test_masks_of_every_third_frame_use_those_frames(root):
    mask = labels(root)[::3]
    np.save(root / "Annotations/a.npy", mask)
    (sample,), findings = built(root)
    assert sample.meta["source"]["frames"] == [0, 3, 6, 9]
    assert ("note", "file", "annotation matched by position") in findings


def test_masks_for_another_number_of_frames_are_refused(root):
    np.save(root / "Annotations/a.npy", labels(root)[:11])
    with pytest.raises(Unusable, match=r"its 12 frames and 11 label images have neither names, .* in common"):
        built(root)


def test_an_object_whose_masks_do_not_fit_is_left_out_with_its_reason(root):
    as_packed(root)
    write_masks(np.ones((7, 32, 48), np.uint8), root / "Annotations/a/2.npz", overwrite=True)
    (sample,), findings = built(root)
    assert [record.id for record in sample.objects] == ["1"]
    assert ("left out", "object", "annotation does not fit the frames") in findings


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.npz", b"nothing", "cannot be read"),
        ("a.mp4", b"nothing", "a.mp4"),
        ("a.npy", np.zeros((2, 3), np.uint8), r"must hold masks or labels \[F, H, W\], it holds uint8 \[2, 3\]"),
        ("a.npz", {"arr_0": np.zeros((2, 3, 3), np.uint8)}, "must hold the arrays bits and shape, it holds arr_0"),
    ],
)
def test_a_file_that_holds_no_masks_is_refused(root, name, data, message):
    labels(root)
    path = root / "Annotations" / name
    if isinstance(data, bytes):
        path.write_bytes(data)
    elif isinstance(data, dict):
        np.savez(path, **data)
    else:
        np.save(path, data)
    with pytest.raises(Unusable, match=message) as caught:
        built(root)
    assert caught.value.reason == "damaged mask file"


def test_pictures_are_used_before_files_and_that_is_said(root):
    np.save(root / "Annotations/a.npy", np.zeros((12, 32, 48), np.uint8))
    (sample,), findings = built(root)
    assert len(sample.objects) == 2
    assert findings == [("left out", "file", "masks in two places")]


def test_an_object_that_is_there_twice_is_said(root):
    as_packed(root)
    (root / "Annotations/a/1.mp4").write_bytes(b"")
    (sample,), findings = built(root)
    assert len(sample.objects) == 2
    assert findings == [("left out", "file", "object in two places")]


def test_a_file_of_masks_without_a_video_is_named(root):
    write_masks(np.zeros((2, 3, 3), np.uint8), root / "Annotations/nobody.npz")
    found = scan(root).findings
    assert [(f.reason, f.video) for f in found] == [("annotation without a video", "nobody")]


def test_videos_that_lie_beside_their_masks_are_not_their_own_masks(tmp_path, root):
    pair = tmp_path / "pair"
    pair.mkdir()
    Video.from_frames(np.zeros((12, 32, 48, 3), np.uint8), 24.0).write(pair / "c.mp4")
    write_masks((labels(root) > 0).astype(np.uint8), pair / "c.npz")
    (video,) = scan_videos(pair, masks=pair).videos
    assert (video.video, video.masks) == ("c.mp4", {"": ("c.npz",)})


def inpainted_videos(root):
    (root / "gone/a").mkdir(parents=True)
    for number in (1, 2):
        files = sorted((root / "InpaintImages/a" / str(number)).iterdir())
        frames = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
        Video.from_frames(frames, 24.0).write(root / f"gone/a/{number}.mp4", crf=0)


def test_an_inpainted_video_gives_the_clip_of_its_pictures(root):
    (expected,), _ = built(root)
    inpainted_videos(root)
    (sample,), findings = built(root, inpainted="gone")
    assert findings == []
    for record, other in zip(sample.objects, expected.objects, strict=True):
        difference = record.inpainted.frames.astype(int) - other.inpainted.frames
        assert np.abs(difference).mean() < 3


def test_an_inpainted_video_that_does_not_fit_is_left_out_with_its_reason(root):
    inpainted_videos(root)
    (root / "gone/a/1.mp4").write_bytes(b"")
    Video.from_frames(np.zeros((12, 32, 32, 3), np.uint8), 24.0).write(root / "gone/a/2.mp4", overwrite=True)
    (sample,), findings = built(root, inpainted="gone")
    assert [record.inpainted for record in sample.objects] == [None, None]
    assert ("left out", "inpainted clip", "damaged inpainted video") in findings
    assert ("left out", "inpainted clip", "inpainted picture of another shape") in findings
