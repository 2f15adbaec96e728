import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raccoon_datamodules.benchmarks import BenchmarkEdit, davis, read_edits
from raccoon_datamodules.video import Video

DATA = Path(os.environ.get("RACCOON_TEST_DATA") or Path(__file__).resolve().parents[2] / "../shared/data")
VIDEOS = ("bear", "blackswan", "camel", "dog", "kid-football")


def write_video(root, name, *, num_frames=4, size=(12, 16), labels=2):
    """Frames n = a picture of brightness 10 n; masks hold the labels 1 to ``labels`` in columns of their own."""
    frames, masks = root / "JPEGImages" / "480p" / name, root / "Annotations" / "480p" / name
    frames.mkdir(parents=True)
    masks.mkdir(parents=True)
    for n in range(num_frames):
        Image.fromarray(np.full((*size, 3), 10 * n, dtype=np.uint8)).save(frames / f"{n:05d}.jpg", quality=95)
        values = np.zeros(size, dtype=np.uint8)
        for label in range(1, labels + 1):
            values[n, label] = label
        image = Image.fromarray(values, mode="P")
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        image.save(masks / f"{n:05d}.png")


@pytest.fixture
def root(tmp_path):
    """Five videos in the layout of the archive of 2017."""
    for name in VIDEOS:
        write_video(tmp_path, name)
    lists = tmp_path / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("bear\nkid-football\n")
    (lists / "val.txt").write_text("blackswan\ncamel\ndog\n\n")
    return tmp_path


@pytest.fixture
def edits(tmp_path):
    texts = {name: {"caption": f"a {name}", "attribute": f"a red {name}", "instance": "a robot"} for name in VIDEOS}
    path = tmp_path / "edits.json"
    path.write_text(json.dumps(texts))
    return path


def test_both_splits_are_taken_by_default_and_sorted_by_name(root):
    assert [item.name for item in davis(root, count=None)] == sorted(VIDEOS)


def test_one_split_can_be_asked_for(root):
    assert [item.name for item in davis(root, split="val", count=None)] == ["blackswan", "camel", "dog"]


def test_a_selection_is_the_same_each_time_and_part_of_a_larger_one(root):
    few, more = davis(root, count=2), davis(root, count=4)
    assert {item.name for item in few} == {item.name for item in davis(root, count=2)}
    assert {item.name for item in few} < {item.name for item in more}
    assert "hash of seed 0" in few.rule
    assert "not published" in few.rule


def test_the_paper_asks_for_thirty_videos(root):
    with pytest.raises(ValueError, match="at least 30 videos for this selection, 5 of 5 are there"):
        davis(root)


def test_frames_are_decoded_when_asked_for_and_keep_their_times(root):
    item = davis(root, names=["dog"]).items[0]
    video = item.video()
    assert video.frames.shape == (4, 12, 16, 3)
    assert video.fps == 24.0
    assert video.timestamps.tolist() == [0, 1 / 24, 2 / 24, 3 / 24]
    assert [round(float(frame.mean()) / 10) for frame in video.frames] == [0, 1, 2, 3]


def test_a_part_of_the_frames_gets_the_masks_of_those_frames(root):
    item = davis(root, names=["dog"]).items[0]
    video = item.video(max_frames=2)
    assert video.frame_indices.tolist() == [1, 3]
    assert video.fps == pytest.approx(12.0)
    masks = item.read_masks(video)
    assert [np.argwhere(mask).tolist() for mask in masks.data] == [[[1, 1], [1, 2]], [[3, 1], [3, 2]]]


def test_objects_can_be_told_apart_by_their_labels(root):
    item = davis(root, names=["dog"]).items[0]
    masks = item.read_masks(item.video(), object_ids=[2])
    assert [np.argwhere(mask).tolist() for mask in masks.data] == [[[n, 2]] for n in range(4)]


def test_every_video_has_the_two_edits_of_the_file(root, edits):
    chosen = davis(root, count=3, edits=edits)
    assert len(chosen.pairs) == 2 * len(chosen)
    item, edit = chosen.pairs[0]
    assert item.captions == (f"a {item.name}",)
    assert edit == BenchmarkEdit("attribute", f"a red {item.name}")
    assert [e.kind for e in item.edits] == ["attribute", "instance"]


def test_a_chosen_video_without_edits_is_named(root, edits):
    texts = json.loads(edits.read_text())
    del texts["dog"]
    edits.write_text(json.dumps(texts))
    with pytest.raises(ValueError, match="must hold the edits of every chosen video, dog has none"):
        davis(root, count=None, edits=edits)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "must be JSON"),
        ("[]", "a JSON object, video to its edits, got a list"),
        ('{"dog": {"caption": "a dog", "attribute": "a red dog"}}', "dog must have the field 'instance'"),
        ('{"dog": {"caption": "", "attribute": "x", "instance": "y"}}', "caption is empty"),
    ],
    ids=["no JSON", "a list", "one edit", "no caption"],
)
def test_edits_that_are_not_as_described_are_refused(tmp_path, content, words):
    path = tmp_path / "edits.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=words):
        read_edits(path)


def test_missing_edits_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no edits at .*gone.json"):
        read_edits(tmp_path / "gone.json")


def test_the_lists_of_2016_name_a_frame_a_line(root):
    lists = root / "ImageSets" / "480p"
    lists.mkdir()
    pairs = [f"/JPEGImages/480p/{v}/0000{n}.jpg /Annotations/480p/{v}/0000{n}.png" for v in VIDEOS[:2] for n in (0, 1)]
    (lists / "trainval.txt").write_text("\n".join(pairs))
    assert [item.name for item in davis(root, year=2016, count=None)] == ["bear", "blackswan"]


def test_the_lists_of_2016_in_the_archive_of_2017_name_a_video_a_line(root):
    (root / "ImageSets" / "2016").mkdir()
    (root / "ImageSets" / "2016" / "val.txt").write_text("dog\n")
    assert [item.name for item in davis(root, year=2016, split="val", count=None)] == ["dog"]


@pytest.mark.parametrize("gone", ["JPEGImages/480p", "Annotations/480p", "ImageSets/2017", "ImageSets/2017/val.txt"])
def test_a_missing_folder_or_list_is_named_with_where_davis_is_published(root, gone):
    (root / gone).rename(root / "elsewhere")
    with pytest.raises(FileNotFoundError, match=f"DAVIS needs .*{gone}, which is not there; .*davischallenge.org"):
        davis(root)


def test_an_empty_list_is_refused(root):
    for name in ("train", "val"):
        (root / "ImageSets" / "2017" / f"{name}.txt").write_text("\n")
    with pytest.raises(ValueError, match="must list videos, it lists none"):
        davis(root)


def test_another_year_or_split_is_refused(root):
    with pytest.raises(ValueError, match=r"years 2016, 2017 .* got 2018 and val"):
        davis(root, year=2018, split="val")


def test_a_video_that_is_not_there_is_passed_over_and_named(root):
    (root / "JPEGImages" / "480p" / "dog").rename(root / "elsewhere")
    found = davis(root, count=None)
    assert found.missing == ("dog",)
    assert len(found) == 4


def test_masks_that_do_not_fit_the_frames_are_refused(root):
    item = davis(root, names=["dog"]).items[0]
    video = item.video()
    (root / "Annotations" / "480p" / "dog" / "00003.png").unlink()
    with pytest.raises(ValueError, match=r"one mask for each frame of .*dog, got 3 masks for 4 frames"):
        item.read_masks(video)


def test_masks_of_a_video_of_unknown_frames_are_refused(root):
    item = davis(root, names=["dog"]).items[0]
    with pytest.raises(ValueError, match="a video of unknown frames"):
        item.read_masks(Video.from_frames(item.video().frames, 24.0))


def test_damaged_and_uneven_frames_are_refused(root):
    item = davis(root, names=["dog"]).items[0]
    with pytest.raises(ValueError, match="stride and max_frames must be at least 1, got 0 and None"):
        item.video(stride=0)
    frame = item.source / "00002.jpg"
    Image.new("RGB", (8, 6)).save(frame)
    with pytest.raises(ValueError, match=r"00002.jpg is 8x6 and 00000.jpg 16x12"):
        item.video()
    frame.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"the frame .*00002.jpg cannot be read"):
        item.video()


@pytest.mark.skipif(not (DATA / "masks").is_dir(), reason="needs the test clips in ../shared/data or RACCOON_TEST_DATA")
def test_real_clips_in_the_layout_of_davis_are_read(tmp_path):
    names = ("blackswan", "car-shadow")
    for name in names:
        folder = tmp_path / "JPEGImages" / "480p" / name
        folder.mkdir(parents=True)
        (tmp_path / "Annotations" / "480p").mkdir(parents=True, exist_ok=True)
        (tmp_path / "Annotations" / "480p" / name).symlink_to((DATA / "masks" / name).resolve())
        clip = Video.read(DATA / "clips" / f"{name}.mp4")
        for n, frame in enumerate(clip.frames):
            Image.fromarray(frame).save(folder / f"{n:05d}.jpg", quality=90)
    (tmp_path / "ImageSets" / "2017").mkdir(parents=True)
    (tmp_path / "ImageSets" / "2017" / "trainval.txt").write_text("\n".join(names))
    for item in davis(tmp_path, count=2):
        video = item.video(max_frames=6)
        masks = item.read_masks(video)
        assert video.size == masks.size == (480, 854)
        # The object is there in every frame, and nowhere most of the picture.
        assert all(0.005 < mask.mean() < 0.5 for mask in masks.data)
