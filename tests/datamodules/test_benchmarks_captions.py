import json

import numpy as np
import pytest

from raccoon_datamodules.benchmarks import Segment, activitynet_captions, ucf101, youcook2
from raccoon_datamodules.video import Video


def write_clip(path, *, num_frames=12, fps=4.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.stack([np.full((32, 48, 3), 20 * n, dtype=np.uint8) for n in range(num_frames)])
    Video.from_frames(frames, fps).write(path)


def touch(path):
    """Readers look at names only, until a video is asked for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def recipe(number, *, subset="validation"):
    steps = [
        {"id": 1, "segment": [2, 3], "sentence": f"stir the soup {number}"},
        {"id": 0, "segment": [0, 1], "sentence": "chop the onion"},
    ]
    return {
        "duration": 3.0,
        "subset": subset,
        "recipe_type": "113",
        "video_url": f"https://www.youtube.com/watch?v=id{number}",
        "annotations": steps,
    }


@pytest.fixture
def cooking(tmp_path):
    database = {f"id{n}": recipe(n) for n in range(3)} | {"tr0": recipe(9, subset="training")}
    (tmp_path / "youcookii_annotations_trainval.json").write_text(json.dumps({"database": database}))
    write_clip(tmp_path / "raw_videos" / "validation" / "113" / "id0.mp4")
    # youtube-dl adds a suffix of its own.
    touch(tmp_path / "raw_videos" / "validation" / "113" / "id1.mp4.webm")
    touch(tmp_path / "raw_videos" / "training" / "113" / "tr0.mkv")
    return tmp_path


def test_the_steps_of_a_cooking_video_are_in_order_and_make_its_caption(cooking):
    item = youcook2(cooking, names=["id0"]).items[0]
    assert item.segments == ((Segment(0, 1, "chop the onion"), Segment(2, 3, "stir the soup 0")),)
    assert item.captions == ("chop the onion stir the soup 0",)
    assert item.label == "113"


def test_a_step_can_be_decoded_alone(cooking):
    item = youcook2(cooking, names=["id0"]).items[0]
    step = item.segments[0][1]
    assert item.video(start=step.start, end=step.end).frame_indices.tolist() == [8, 9, 10, 11]


def test_a_video_that_is_lost_is_passed_over_and_named(cooking):
    found = youcook2(cooking, count=None)
    assert [item.name for item in found] == ["id0", "id1"]
    assert found.missing == ("id2",)
    assert found.rule == "all 2 videos that are there"


def test_the_training_split_is_read_when_asked_for(cooking):
    assert [item.name for item in youcook2(cooking, split="training", count=None)] == ["tr0"]


def test_the_paper_asks_for_a_hundred_videos_of_each(cooking):
    with pytest.raises(ValueError, match="YouCook2 must have at least 100 videos for this selection, 2 of 3 are there"):
        youcook2(cooking)


def test_annotations_may_lie_in_a_folder_of_their_own(cooking):
    (cooking / "annotations").mkdir()
    file = "youcookii_annotations_trainval.json"
    (cooking / file).rename(cooking / "annotations" / file)
    assert len(youcook2(cooking, count=2)) == 2


@pytest.mark.parametrize("gone", ["youcookii_annotations_trainval.json", "raw_videos"])
def test_what_is_missing_of_youcook2_is_named_with_where_it_is_published(cooking, gone):
    (cooking / gone).rename(cooking / "elsewhere")
    with pytest.raises(FileNotFoundError, match=f"YouCook2 needs .*{gone}, .*youcook2.eecs.umich.edu"):
        youcook2(cooking)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "must be the annotations of YouCook2 in JSON"),
        ("[]", "must have the field 'database'"),
        ('{"database": {"id0": {}}}', "id0 must have the field 'subset'"),
        ('{"database": {"id0": {"subset": "validation"}}}', "id0 must have the field 'annotations'"),
        (
            '{"database": {"id0": {"subset": "validation", "annotations": [{"segment": [1], "sentence": "x"}]}}}',
            r"a segment must be \[start, end\]",
        ),
    ],
    ids=["no JSON", "no database", "no subset", "no annotations", "half a segment"],
)
def test_damaged_annotations_of_youcook2_are_refused(cooking, content, words):
    (cooking / "youcookii_annotations_trainval.json").write_text(content)
    with pytest.raises(ValueError, match=words):
        youcook2(cooking, count=None)


def test_another_split_of_youcook2_is_refused(cooking):
    with pytest.raises(ValueError, match="training and validation, got 'test'"):
        youcook2(cooking, split="test")


@pytest.fixture
def events(tmp_path):
    one = {"duration": 10.0, "timestamps": [[4.0, 9.5], [3.0, 0.5]], "sentences": [" He lifts  it.", "A man stands."]}
    two = {"duration": 10.0, "timestamps": [[0, 10]], "sentences": ["A man lifts a weight."]}
    (tmp_path / "val_1.json").write_text(json.dumps({"v_aaa": one, "v_bbb": one, "v_-c_": one}))
    (tmp_path / "val_2.json").write_text(json.dumps({"v_aaa": two}))
    touch(tmp_path / "videos" / "v_aaa.mp4")
    touch(tmp_path / "videos" / "val" / "-c_.mkv")
    return tmp_path


def test_each_annotator_of_an_activity_gives_a_caption(events):
    item = activitynet_captions(events, names=["v_aaa"]).items[0]
    assert item.captions == ("A man stands. He lifts it.", "A man lifts a weight.")


def test_timestamps_the_wrong_way_round_are_turned(events):
    item = activitynet_captions(events, names=["v_aaa"]).items[0]
    assert item.segments[0] == (Segment(0.5, 3.0, "A man stands."), Segment(4.0, 9.5, "He lifts it."))


def test_videos_are_found_at_any_depth_with_and_without_the_prefix(events):
    found = activitynet_captions(events, count=None)
    assert [(item.name, item.source.name) for item in found] == [("v_-c_", "-c_.mkv"), ("v_aaa", "v_aaa.mp4")]
    assert found.missing == ("v_bbb",)


def test_captions_may_lie_in_the_folder_of_their_archive(events):
    (events / "captions").mkdir()
    for file in ("val_1.json", "val_2.json"):
        (events / file).rename(events / "captions" / file)
    assert len(activitynet_captions(events, count=2)) == 2


@pytest.mark.parametrize(("split", "file"), [("train", "train.json"), ("val", "val_2.json")])
def test_missing_captions_are_named_with_where_they_are_published(events, split, file):
    (events / file).unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match=f"ActivityNet Captions needs .*{file}, .*densevid"):
        activitynet_captions(events, split=split)


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ActivityNet Captions needs .*gone, which is not there"):
        activitynet_captions(tmp_path / "gone")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "must be captions in JSON"),
        ("[]", "must be a JSON object, video to its captions, got a list"),
        ('{"v_aaa": {"sentences": []}}', "v_aaa must have the field 'timestamps'"),
        ('{"v_aaa": {"timestamps": [[1]], "sentences": ["x"]}}', r"one \[start, end\] in seconds for each sentence"),
        ('{"v_aaa": {"timestamps": [], "sentences": ["x"]}}', "got 0 for 1"),
    ],
    ids=["no JSON", "a list", "no timestamps", "half a timestamp", "a sentence too many"],
)
def test_damaged_captions_are_refused(events, content, words):
    (events / "val_1.json").write_text(content)
    with pytest.raises(ValueError, match=words):
        activitynet_captions(events, count=None)


def test_another_split_of_activitynet_is_refused(events):
    with pytest.raises(ValueError, match="train and val, got 'test'"):
        activitynet_captions(events, split="test")


@pytest.fixture
def actions(tmp_path):
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 ApplyEyeMakeup\n2 YoYo\n")
    clips = [f"{name}/v_{name}_g0{group}_c01.avi" for name in ("ApplyEyeMakeup", "YoYo") for group in (1, 2)]
    (lists / "testlist01.txt").write_text("\r\n".join(clips) + "\r\n")
    (lists / "trainlist01.txt").write_text("YoYo/v_YoYo_g08_c01.avi 2\n")
    for clip in [*clips, "YoYo/v_YoYo_g08_c01.avi"]:
        touch(tmp_path / "UCF-101" / clip)
    return tmp_path


def test_the_class_of_a_clip_stands_for_its_caption(actions):
    item = ucf101(actions, names=["v_ApplyEyeMakeup_g01_c01"]).items[0]
    assert (item.label, item.captions) == ("ApplyEyeMakeup", ("apply eye makeup",))
    assert item.source == actions / "UCF-101" / "ApplyEyeMakeup" / "v_ApplyEyeMakeup_g01_c01.avi"


def test_lists_with_and_without_numbers_are_read(actions):
    assert len(ucf101(actions, count=4)) == 4
    assert [item.name for item in ucf101(actions, split="train", count=None)] == ["v_YoYo_g08_c01"]


def test_a_clip_that_is_not_there_is_passed_over(actions):
    (actions / "UCF-101" / "YoYo" / "v_YoYo_g01_c01.avi").unlink()
    assert ucf101(actions, count=None).missing == ("v_YoYo_g01_c01",)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("classInd.txt", "ApplyEyeMakeup\n", "a number and a class a line"),
        ("testlist01.txt", "v_YoYo_g01_c01.avi\n", "line 1 must be CLASS/CLIP.avi"),
        ("testlist01.txt", "Cooking/v_Cooking_g01_c01.avi\n", "of a class of classInd.txt"),
        ("testlist01.txt", "YoYo/v_YoYo_g01_c01.avi 1\n", "with that class's number"),
    ],
    ids=["class without number", "no class", "unknown class", "another number"],
)
def test_damaged_lists_of_ucf101_are_refused(actions, file, content, words):
    (actions / "ucfTrainTestlist" / file).write_text(content)
    with pytest.raises(ValueError, match=words):
        ucf101(actions)


@pytest.mark.parametrize("gone", ["UCF-101", "ucfTrainTestlist", "ucfTrainTestlist/classInd.txt"])
def test_what_is_missing_of_ucf101_is_named_with_where_it_is_published(actions, gone):
    (actions / gone).rename(actions / "elsewhere")
    with pytest.raises(FileNotFoundError, match=f"UCF101 needs .*{gone}, .*crcv.ucf.edu"):
        ucf101(actions)


def test_another_list_of_ucf101_is_refused(actions):
    with pytest.raises(ValueError, match="folds 1, 2 and 3, got test 4"):
        ucf101(actions, fold=4)


def test_an_item_without_masks_says_so(cooking):
    item = youcook2(cooking, names=["id0"]).items[0]
    with pytest.raises(ValueError, match="id0 has no masks in this benchmark"):
        item.read_masks(item.video(max_frames=1))
