"""Label images as data sets have them."""

import numpy as np
import pytest
from PIL import Image

from raccoon_datamodules.build.label_images import LabelImage, objects_in, read_label_image, shrink

VALUES = np.array([[0, 1, 2], [0, 1, 255]], dtype=np.uint8)


def read(picture, tmp_path, name="a.png", **options):
    picture.save(tmp_path / name, **options)
    return read_label_image(tmp_path / name)


def ids_of(*images):
    found, notes = objects_in(images)
    return {name: mask[0].tolist() for name, mask in found.items()}, notes


def test_a_palette_gives_its_indices_and_255_beside_labels_is_unknown(tmp_path):
    picture = Image.fromarray(VALUES)
    picture.putpalette([0, 0, 0, 128, 0, 0] + 762 * [9])
    image = read(picture, tmp_path)
    assert image.kind == "index"
    found, notes = ids_of(image)
    assert found == {"1": [[0, 1, 0], [0, 1, 0]], "2": [[0, 0, 1], [0, 0, 0]]}
    assert notes == ["the value 255 beside labels is unknown territory: no object"]


def test_a_palette_of_many_objects_is_no_soft_edge(tmp_path):
    picture = Image.fromarray(np.arange(40, dtype=np.uint8).reshape(5, 8))
    picture.putpalette(list(range(240)))
    assert len(objects_in([read(picture, tmp_path)])[0]) == 39


@pytest.mark.parametrize(
    "array",
    [
        np.array([[0, 255]], dtype=np.uint8),
        np.array([[0, 1]], dtype=np.uint8),
        np.array([[0, 65535]], dtype=np.uint16),
        np.array([[False, True]]),
        np.array([[[0, 0, 0], [255, 255, 255]]], dtype=np.uint8),
    ],
    ids=["255", "1", "16 bit", "1 bit", "rgb"],
)
def test_a_black_and_white_mask_is_object_1(array, tmp_path):
    assert ids_of(read(Image.fromarray(array), tmp_path)) == ({"1": [[0, 1]]}, [])


def test_sixteen_bits_may_be_labels(tmp_path):
    array = np.array([[0, 300, 301, 65535]], dtype=np.uint16)
    assert set(ids_of(read(Image.fromarray(array), tmp_path))[0]) == {"300", "301"}


def test_soft_edges_are_cut_in_the_middle(tmp_path):
    found, notes = ids_of(read(Image.fromarray(np.arange(0, 256, 5, dtype=np.uint8)[None]), tmp_path))
    assert sum(found["1"][0]) == sum(v >= 128 for v in range(0, 256, 5))
    assert notes == ["52 different values: soft edges, cut at 128"]


def test_a_jpeg_is_one_mask(tmp_path):
    array = np.zeros((16, 16), dtype=np.uint8)
    array[4:12, 4:12] = 255
    found, _ = ids_of(read(Image.fromarray(array), tmp_path, "a.jpg"))
    assert np.array_equal(np.array(found["1"]), array > 0)


def test_alpha_that_varies_is_the_mask_and_alpha_that_does_not_is_ignored(tmp_path):
    colour = np.zeros((1, 2, 4), dtype=np.uint8)
    colour[0, 1, 3] = 200
    assert ids_of(read(Image.fromarray(colour), tmp_path))[0] == {"1": [[0, 1]]}
    colour[..., 3] = 255
    colour[0, 0, :3] = 3
    assert ids_of(read(Image.fromarray(colour), tmp_path))[0] == {"3": [[1, 0]]}


def test_colours_of_the_usual_palette_are_its_indices(tmp_path):
    colour = np.array([[[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]], dtype=np.uint8)
    found, notes = ids_of(read(Image.fromarray(colour), tmp_path))
    assert list(found) == ["1", "2", "3"]
    assert notes == ["colours of the usual palette are read as its indices"]


def test_other_colours_call_objects_by_themselves_in_every_clip(tmp_path):
    colour = np.array([[[0, 0, 0], [255, 0, 7]]], dtype=np.uint8)
    image = read(Image.fromarray(colour), tmp_path)
    black = LabelImage(np.zeros((1, 2), dtype=np.int32), "grey")
    found, notes = objects_in([black, image])
    assert {name: mask.tolist() for name, mask in found.items()} == {"ff0007": [[[0, 0]], [[0, 1]]]}
    assert notes == ["colours that are no usual palette: objects are called by them"]


def test_very_many_colours_are_one_soft_mask(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    found, notes = ids_of(read(Image.fromarray(colour), tmp_path))
    assert np.array_equal(np.array(found["1"]), colour.max(2) >= 128)
    assert notes[0].startswith("more than 16 colours")


def test_a_smaller_picture_has_no_new_labels():
    image = LabelImage(np.repeat(np.array([[1, 9, 300]], dtype=np.int32), 4, axis=0), "index")
    assert set(np.unique(shrink(image, 2, 2).values)) <= {1, 9, 300}
    assert shrink(image, 4, 3) is image


@pytest.mark.parametrize("keep", [0, 30, 60])
def test_a_damaged_picture_is_named(keep, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 9, (9, 9), dtype=np.uint8)).save(tmp_path / "m.png")
    whole = (tmp_path / "m.png").read_bytes()
    (tmp_path / "m.png").write_bytes(whole[:keep])
    with pytest.raises(ValueError, match=r"the label image m\.png is damaged or no picture"):
        read_label_image(tmp_path / "m.png")


def test_a_missing_picture_is_no_damaged_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_label_image(tmp_path / "m.png")
