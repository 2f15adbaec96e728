import itertools
import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raccoon_datamodules.masks import (
    Masks,
    binary,
    boxes_of,
    check,
    feather,
    grow,
    mask_of_boxes,
    pack,
    read_masks,
    unpack,
    write_masks,
)
from raccoon_datamodules.video import Video

SIZE = (20, 28)


def blob(num_frames=4, height=SIZE[0], width=SIZE[1]):
    mask = np.zeros((num_frames, height, width), dtype=np.uint8)
    for number, picture in enumerate(mask):
        picture[5:12, 3 + number : 11 + number] = 1
    return mask


def film(num_frames=4, size=SIZE):
    return Video.from_frames(np.zeros((num_frames, *size, 3), dtype=np.uint8), 8)


def distances(picture):
    """Brute force: each pixel's distance to the nearest masked one."""
    inside = np.argwhere(picture)
    grid = np.stack(np.mgrid[: picture.shape[0], : picture.shape[1]], axis=-1)
    return np.sqrt(((grid[:, :, None] - inside) ** 2).sum(-1)).min(-1)


def random_masks():
    rng = np.random.default_rng(0)
    masks = (rng.random((6, 25, 31)) < 0.01).astype(np.uint8)
    masks[:, 0, 0] = 1
    masks[1] = 0
    masks[2] = 1
    masks[3] = 0
    masks[3, 24, 30] = 1
    return masks


@pytest.mark.parametrize("pixels", [0, 1, 2, 3, 5, 7, 40])
def test_grow_is_a_dilation_by_a_disc(pixels):
    masks = random_masks()
    for picture, grown in zip(masks, grow(masks, pixels), strict=True):
        wanted = distances(picture) ** 2 <= pixels**2 + 1e-6 if picture.any() else picture
        np.testing.assert_array_equal(grown, wanted)


@pytest.mark.parametrize("pixels", [0, 1, 2, 3, 6, 7, 40])
def test_feather_falls_from_exactly_one_to_exactly_zero(pixels):
    masks = random_masks()
    alpha = feather(masks, pixels)
    assert alpha.dtype == np.float32
    for picture, soft in zip(masks, alpha, strict=True):
        if not picture.any():
            assert not soft.any()
            continue
        distance = distances(picture)
        np.testing.assert_array_equal(soft[picture > 0], 1)
        np.testing.assert_array_equal(soft[distance >= max(pixels, 0.5)], 0)
        between = (distance > 0) & (distance < pixels)
        assert (soft[between] > 0).all()
        ramp = 1 - distance[between] / max(pixels, 1)
        np.testing.assert_allclose(soft[between], ramp**2 * (3 - 2 * ramp), atol=2e-6)


def test_grow_and_feather_take_bool_and_leave_their_input_alone():
    mask = blob().astype(bool)
    np.testing.assert_array_equal(grow(mask, 2), grow(blob(), 2))
    before = blob()
    grow(before, 0)[:] = 1
    feather(before, 3)
    np.testing.assert_array_equal(before, blob())


def test_grow_and_feather_are_quick():
    mask = np.zeros((50, 480, 854), dtype=np.uint8)
    mask[:, 100:300, 200:500] = 1
    began = time.process_time()
    feather(grow(mask, 8), 8)
    # 0.3 s on the machine it was written on.
    assert time.process_time() - began < 1.5


@pytest.mark.parametrize("pixels", [-1, 2.5, True, "3"])
def test_a_reach_that_is_no_whole_number_is_refused(pixels):
    with pytest.raises(ValueError, match="pixels must be a whole number of at least 0"):
        grow(blob(), pixels)


@pytest.mark.parametrize(
    ("mask", "match"),
    [
        (np.zeros((4, 4)), r"must be \[F, H, W\].*got shape \[4, 4\]"),
        (np.zeros((0, 4, 4)), "one picture per frame"),
        (np.full((1, 2, 2), 255, np.uint8), "only 0 and 1 .* got uint8 from 255 to 255"),
        (np.full((1, 2, 2), 0.5), "got float64 from 0.5 to 0.5"),
        (np.full((1, 2, 2), "x"), "only 0 and 1"),
    ],
)
def test_what_is_no_binary_mask_is_refused(mask, match):
    with pytest.raises(ValueError, match=match):
        binary(mask)


def test_boxes_are_tight_and_nan_where_empty():
    mask = blob()
    mask[2] = 0
    boxes = boxes_of(mask)
    assert boxes.dtype == np.float32
    np.testing.assert_allclose(boxes[0], [3 / 28, 5 / 20, 11 / 28, 12 / 20], rtol=1e-6)
    assert np.isnan(boxes[2]).all()
    np.testing.assert_array_equal(boxes_of(np.ones((1, 3, 3))), [[0, 0, 1, 1]])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 7), (17, 23), (480, 854), (1, 1919)])
def test_boxes_and_their_masks_undo_each_other(height, width):
    rng = np.random.default_rng(0)
    masks = np.zeros((20, height, width), dtype=np.uint8)
    for picture in masks[1:]:
        (y0, y1), (x0, x1) = (sorted(rng.choice(n + 1, 2, replace=False)) for n in (height, width))
        picture[y0:y1, x0:x1] = 1
    np.testing.assert_array_equal(mask_of_boxes(boxes_of(masks), height=height, width=width), masks)


def test_boxes_are_cut_at_the_border_and_small_ones_keep_a_pixel():
    boxes = [[-0.5, -0.5, 0.5, 0.5], [0.51, 0.51, 0.52, 0.52], [1.2, 0, 1.5, 1], [0.5, 0.5, 0.5, 0.5]]
    mask = mask_of_boxes(boxes, height=4, width=4)
    assert mask.sum(axis=(1, 2)).tolist() == [4, 1, 0, 0]
    assert mask[1, 2, 2] == 1


@pytest.mark.parametrize(
    ("boxes", "match"),
    [
        ([0, 0, 1, 1], r"boxes must be \[F, 4\]"),
        ([[0, 0, np.nan, 1]], "box 0 must be four finite numbers or four NaN"),
        ([[0, 0, 1, np.inf]], "box 0 must be four finite numbers"),
        ([[0, 0, 1, 1], [0.5, 0, 0.4, 1]], "box 1 must be x0, y0, x1, y1"),
    ],
)
def test_boxes_that_are_none_are_refused(boxes, match):
    with pytest.raises(ValueError, match=match):
        mask_of_boxes(boxes, height=4, width=4)
    with pytest.raises(ValueError, match="height and width must be at least 1"):
        mask_of_boxes([[0, 0, 1, 1]], height=0, width=4)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (2, 8, 8)], ids=str)
def test_packing_undoes_itself(shape):
    mask = (np.random.default_rng(0).random(shape) < 0.5).astype(np.uint8)
    members = pack(mask)
    assert members["bits"].size == -(-mask.size // 8)
    np.testing.assert_array_equal(unpack(members), mask)
    np.testing.assert_array_equal(unpack(pack(mask.astype(bool))), mask)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"bits": None}, "must hold the arrays bits and shape, it holds shape"),
        ({"bits": np.zeros(70, np.int64)}, r"must be uint8 \[N\], got int64"),
        ({"bits": np.zeros(5, np.uint8)}, "needs 280 bytes, got 5"),
        ({"shape": np.array([4, 20])}, "three whole numbers F, H, W"),
        ({"shape": np.array([4, 20, -28])}, "three whole numbers F, H, W"),
        ({"shape": np.array([2**40, 2**40, 2**40])}, "bytes, got 280"),
    ],
)
def test_packed_masks_are_checked(change, match):
    members = {name: array for name, array in (pack(blob()) | change).items() if array is not None}
    with pytest.raises(ValueError, match=match):
        unpack(members)


def test_masks_hold_what_they_say():
    masks = Masks(blob().astype(bool), np.ones(4), ("dog",))
    assert (masks.num_frames, masks.size, masks.data.dtype, masks.scores.dtype) == (4, SIZE, np.uint8, np.float32)
    with pytest.raises(ValueError, match=r"scores must be \[4\]"):
        Masks(blob(), np.ones(3))


def found(mask, num_frames=4, height=SIZE[0], width=SIZE[1]):
    findings = check(mask, num_frames=num_frames, height=height, width=width)
    return [(finding.code, finding.severity) for finding in findings], " ".join(f.message for f in findings)


def test_a_good_mask_has_no_findings():
    assert found(blob())[0] == []
    assert found(blob().astype(bool))[0] == []


def test_a_wrong_size_or_count_is_found():
    codes, text = found(blob(), height=40)
    assert codes == [("size", "error")]
    assert "like the video's [4, 40, 28], got [4, 20, 28]" in text
    assert "exchanged: is the mask rotated?" in found(blob(), height=28, width=20)[1]
    assert found(blob()[0])[0] == [("size", "error")]
    codes, text = found(blob(3))
    assert codes == [("count", "error")]
    assert "one mask per frame is needed" in text


def test_an_inverted_mask_is_found():
    codes, text = found(1 - blob())
    assert codes == [("inverted", "error")]
    assert "--invert-mask" in text
    partly = np.ones((4, *SIZE), dtype=np.uint8)
    partly[:, 5:18, 8:24] = 0
    assert found(partly)[0] == [("inverted", "warning")]


def test_a_large_object_is_not_taken_for_an_inverted_mask():
    mask = np.zeros((4, *SIZE), dtype=np.uint8)
    mask[:, 2:, 2:-2] = 1
    assert found(mask)[0] == []


def test_empty_and_full_masks_are_found():
    empty, full = np.zeros((4, *SIZE)), np.ones((4, *SIZE))
    assert found(empty)[0] == [("empty", "error")]
    assert found(full)[0] == [("full", "error")]
    mask = blob(8)
    mask[2:4] = 0
    mask[6] = 0
    codes, text = found(mask, num_frames=8)
    assert codes == [("empty-frames", "warning")]
    assert "frames 2-3, 6 (3 of 8)" in text
    mask = blob()
    mask[1] = 1
    codes, text = found(mask)
    assert codes == [("full-frames", "warning")]
    assert "frame 1 (1 of 4)" in text


def test_holes_and_speckles_are_found():
    mask = blob(4, 60, 60)
    mask[:, 20:55, 5:50] = 1
    mask[1, 30:32, 20:23] = 0
    codes, text = found(mask, height=60, width=60)
    assert codes == [("holes", "warning")]
    assert "1 holes (the largest 6 pixels) in frame 1" in text
    mask = np.zeros((4, 60, 60), dtype=np.uint8)
    mask[:, 20:55, 5:50] = 1
    mask[3, 2, 2] = 1
    codes, text = found(mask, height=60, width=60)
    assert codes == [("speckles", "warning")]
    assert "in frame 3 (1 of 4)" in text


def save(folder, pictures, name="{}.png", **options):
    folder.mkdir(exist_ok=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / name.format(number), **options)
    return folder


@pytest.mark.parametrize("value", [1, 255, 38])
def test_a_folder_of_pngs_is_read_in_natural_order(tmp_path, value):
    mask = blob(12)
    folder = save(tmp_path / "m", mask * np.uint8(value))
    (folder / ".hidden.png").touch()
    (folder / "readme.txt").touch()
    np.testing.assert_array_equal(read_masks(folder, video=film(12)).data, mask)


def test_one_bit_alpha_colour_and_palette_pngs_are_read(tmp_path):
    mask = blob()
    one_bit = save(tmp_path / "b", mask.astype(bool))
    alpha = save(tmp_path / "a", np.concatenate([np.full((4, *SIZE, 3), 9, np.uint8), mask[..., None] * 255], axis=-1))
    colour = save(tmp_path / "c", mask[..., None] * np.array([128, 0, 0], dtype=np.uint8))
    opaque = save(
        tmp_path / "o",
        np.concatenate([mask[..., None] * np.uint8([255] * 3), np.full((4, *SIZE, 1), 255, np.uint8)], -1),
    )
    for folder in (one_bit, alpha, colour, opaque):
        np.testing.assert_array_equal(read_masks(folder, video=film()).data, mask, err_msg=folder.name)


def test_objects_of_a_palette_png_can_be_chosen(tmp_path):
    labels = blob() + 2 * np.roll(blob(), 9, axis=1).astype(np.uint8) * (1 - blob())
    folder = tmp_path / "p"
    folder.mkdir()
    for number, picture in enumerate(labels):
        image = Image.fromarray(picture, mode=None).convert("P")
        image.putdata(picture.ravel().tolist())
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        image.save(folder / f"{number}.png")
    np.testing.assert_array_equal(read_masks(folder, video=film()).data, labels > 0)
    np.testing.assert_array_equal(read_masks(folder, video=film(), object_ids=[2]).data, labels == 2)
    with pytest.raises(ValueError, match="object ids need a palette or grey label image"):
        read_masks(save(tmp_path / "c", np.zeros((4, *SIZE, 3), np.uint8)), video=film(), object_ids=[1])


def test_soft_edges_and_jpegs_are_cut_in_the_middle(tmp_path):
    ramp = np.broadcast_to(np.linspace(0, 255, SIZE[1]).astype(np.uint8), (4, *SIZE))
    np.testing.assert_array_equal(read_masks(save(tmp_path / "s", ramp), video=film()).data, ramp >= 128)
    jpeg = save(tmp_path / "j", blob() * np.uint8(255), name="{}.jpg", quality=60)
    assert np.abs(read_masks(jpeg, video=film()).data.astype(int) - blob()).mean() < 0.02
    with pytest.raises(ValueError, match="JPEG changes the values"):
        read_masks(jpeg, video=film(), object_ids=[1])


def test_one_image_serves_for_all_frames_and_that_is_logged(tmp_path, caplog):
    save(tmp_path, blob(1) * np.uint8(255), name="one.png")
    with caplog.at_level(logging.WARNING):
        masks = read_masks(tmp_path / "one.png", video=film())
    np.testing.assert_array_equal(masks.data, np.repeat(blob(1), 4, axis=0))
    assert "used for all 4 frames" in caplog.text


def test_npz_keeps_scores_and_names(tmp_path):
    masks = Masks(blob(), np.array([1, 0.5, 0.25, 0], np.float32), ("brown dog", "leash"))
    write_masks(masks, tmp_path / "m.npz")
    back = read_masks(tmp_path / "m.npz", video=film())
    np.testing.assert_array_equal(back.data, masks.data)
    np.testing.assert_array_equal(back.scores, masks.scores)
    assert back.names == masks.names
    with pytest.raises(FileExistsError, match="--overwrite"):
        write_masks(masks, tmp_path / "m.npz")
    write_masks(blob() * 0, tmp_path / "m.npz", overwrite=True)
    assert not read_masks(tmp_path / "m.npz", video=film()).data.any()


def test_a_written_folder_is_read_back(tmp_path):
    write_masks(blob(), tmp_path / "m")
    assert sorted(file.name for file in (tmp_path / "m").iterdir())[0] == "00000.png"
    np.testing.assert_array_equal(read_masks(tmp_path / "m", video=film()).data, blob())
    with pytest.raises(FileExistsError, match="is no empty folder"):
        write_masks(blob(), tmp_path / "m")
    with pytest.raises(ValueError, match=r"written as \.npz or as a folder"):
        write_masks(blob(), tmp_path / "m.avi")


def test_an_interrupted_folder_is_removed(tmp_path, monkeypatch):
    save_image, count = Image.Image.save, itertools.count()

    def interrupted(self, path):
        if next(count) == 2:
            raise KeyboardInterrupt
        save_image(self, path)

    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_masks(blob(), tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_a_plain_array_is_read(tmp_path):
    np.save(tmp_path / "m.npy", blob().astype(bool))
    np.testing.assert_array_equal(read_masks(tmp_path / "m.npy", video=film()).data, blob())
    np.save(tmp_path / "w.npy", blob() * np.uint8(255))
    np.testing.assert_array_equal(read_masks(tmp_path / "w.npy", video=film()).data, blob())


def test_a_mask_video_is_read(tmp_path):
    frames = np.repeat(blob(4, 48, 96)[..., None] * np.uint8(255), 3, axis=-1)
    Video.from_frames(frames, 8).write(tmp_path / "m.mp4")
    back = read_masks(tmp_path / "m.mp4", video=film(4, (48, 96)))
    assert (back.data != blob(4, 48, 96)).mean() < 0.01


def test_masks_of_the_whole_file_serve_for_a_part_of_it(tmp_path):
    Video.from_frames(np.zeros((12, 48, 96, 3), np.uint8), 8).write(tmp_path / "v.mp4")
    part = Video.read(tmp_path / "v.mp4", start=0.5, end=1.0)
    mask = blob(12, 48, 96)
    folder = save(tmp_path / "m", mask * np.uint8(255))
    write_masks(Masks(mask, np.arange(12)), tmp_path / "m.npz")
    np.testing.assert_array_equal(read_masks(folder, video=part).data, mask[4:8])
    np.testing.assert_array_equal(read_masks(tmp_path / "m.npz", video=part).data, mask[4:8])
    np.testing.assert_array_equal(read_masks(tmp_path / "m.npz", video=part).scores, [4, 5, 6, 7])


def test_a_wrong_number_of_masks_is_refused(tmp_path):
    folder = save(tmp_path / "m", blob(3))
    with pytest.raises(ValueError, match=r"m must hold one mask for each of the video's 4 frames, it holds 3"):
        read_masks(folder, video=film())
    write_masks(blob(5), tmp_path / "m.npz")
    with pytest.raises(ValueError, match=r"m\.npz must hold one mask .* it holds 5"):
        read_masks(tmp_path / "m.npz", video=film())


def test_a_wrong_size_names_the_first_and_counts_the_rest(tmp_path):
    folder = save(tmp_path / "m", blob(4, 10, 14))
    with pytest.raises(ValueError, match=r"video's size 28x20, but 0\.png is 14x10 and 3 more"):
        read_masks(folder, video=film())
    write_masks(blob(4, 10, 14), tmp_path / "m.npz")
    with pytest.raises(ValueError, match=r"video's size 28x20, they have 14x10"):
        read_masks(tmp_path / "m.npz", video=film())


@pytest.mark.parametrize(
    ("name", "content", "error", "match"),
    [
        ("no", None, FileNotFoundError, "there is no mask at"),
        ("m.npz", b"", ValueError, "cannot be read"),
        ("m.npz", b"PK\x03\x04 damaged", ValueError, "must be a mask file written by write_masks"),
        ("m.npy", b"\x93NUMPY", ValueError, "must be a mask file"),
        ("m.png", b"\x89PNG\r\n", ValueError, "it is damaged or no image"),
        ("m.txt", b"text" * 50, ValueError, r"m\.txt"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, error, match):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=match):
        read_masks(tmp_path / name, video=film())


def test_a_folder_without_images_names_the_folders_in_it(tmp_path):
    with pytest.raises(ValueError, match=r"there is none$"):
        read_masks(tmp_path, video=film())
    (tmp_path / "dog").mkdir()
    with pytest.raises(ValueError, match="it holds the folders dog: name one of them"):
        read_masks(tmp_path, video=film())


def test_arrays_of_the_wrong_kind_name_their_file(tmp_path):
    np.save(tmp_path / "m.npy", np.zeros((4, 4)))
    with pytest.raises(ValueError, match=r"m\.npy: a mask must be \[F, H, W\]"):
        read_masks(tmp_path / "m.npy", video=film())
    np.savez(tmp_path / "m.npz", bits=np.zeros(3))
    with pytest.raises(ValueError, match=r"m\.npz: a packed mask must hold the arrays bits and shape"):
        read_masks(tmp_path / "m.npz", video=film())


def test_real_masks_are_read_and_found_good():
    root = Path(os.environ.get("RACCOON_TEST_DATA") or Path(__file__).resolve().parents[2] / "../shared/data")
    folders = sorted((root / "masks").glob("*"))
    if not folders:
        pytest.skip(f"no test masks in {root}")
    for folder in folders[::3]:
        num_frames = len(list(folder.glob("*.png")))
        frames = np.broadcast_to(np.zeros(3, np.uint8), (num_frames, 480, 854, 3))
        masks = read_masks(folder, video=Video.from_frames(frames, 24))
        findings = check(masks.data, num_frames=num_frames, height=480, width=854)
        assert all(finding.severity == "warning" for finding in findings), folder.name
        inverted = check(1 - masks.data, num_frames=num_frames, height=480, width=854)
        assert [finding.code for finding in inverted][:1] == ["inverted"], folder.name
