"""The released lists: every form their records may have, and what cannot be placed."""

import json

import pytest

from raccoon_datamodules.build.joining import join
from raccoon_datamodules.build.released import read_released, video_name
from raccoon_datamodules.build.sources import SourceVideo

PARAGRAPH = "Video Description: A park.\n\nObject Descriptions:\n1. Dog: A brown dog.\n2. Man: He runs."


def read(tmp_path, value):
    path = tmp_path / "list.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return read_released([path])


def what(records):
    return [(r.vid, r.mask_id, r.kind, r.text, r.task) for r in records]


def test_the_released_fields(tmp_path):
    value = [
        {"vid": "a", "mask_id": "1", "task": "removal", "description": "A dog."},
        {"vid": "a", "mask_id": 2, "task": "editing", "description": "A man.", "prompt": "a woman in red"},
    ]
    records, findings = read(tmp_path, value)
    assert findings == []
    assert what(records) == [
        ("a", "1", "object", "A dog.", "removal"),
        ("a", "2", "object", "A man.", "editing"),
        ("a", "2", "prompt", "a woman in red", "editing"),
    ]
    assert records[2].place == "list.json[1]"


SAME = [
    [{"video_id": "a", "obj_id": 1, "caption": "A dog."}],
    {"data": [{"vid": "a", "mask_id": "01", "description": "A dog."}], "version": 1},
    {"a": [{"mask_id": "1", "description": "A dog."}]},
    {"a": {"mask_id": 1, "description": "A dog."}},
    {"a": {"1": "A dog."}},
    {"a": {"1": {"description": "A dog."}}},
    {"videos": {"a": {"1": "A dog."}}},
    [{"video": "folder/a.mp4", "mask_id": [1], "desc": "A dog."}],
    [
        {
            "id": 7,
            "vid": "a",
            "mask_id": "1",
            "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "A dog."}],
        }
    ],
    [
        {
            "vid": "a",
            "mask_id": 1.0,
            "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": [{"text": "A dog."}]}],
        }
    ],
    '{"vid": "a", "mask_id": 1, "description": "A dog."}\n{"vid": "a", "mask_id": 1, "description": "A dog."}',
    {"vid": "a", "mask_id": "1", "description": "A dog."},
]


@pytest.mark.parametrize("value", SAME, ids=range(len(SAME)))
def test_variants_of_one_record_say_the_same(tmp_path, value):
    records, findings = read(tmp_path, value)
    assert findings == []
    assert {(r.vid.rpartition("/")[2], r.mask_id, r.kind, r.text) for r in records} == {("a", "1", "object", "A dog.")}


@pytest.mark.parametrize(
    "value", [{"a": PARAGRAPH}, [{"vid": "a", "description": PARAGRAPH}], {"a": {"paragraph": PARAGRAPH}}]
)
def test_a_record_without_a_mask_is_the_video_s_paragraph(tmp_path, value):
    records, _ = read(tmp_path, value)
    assert what(records) == [("a", None, "paragraph", PARAGRAPH, "")]


@pytest.mark.parametrize(
    "extra",
    [
        {"layout": "Frame 1: [0, 0, 500, 500]"},
        {"description": "Frame 1: [0.1, 0.2, 0.3, 0.4]"},
        {"boxes": {"0": [0, 0, 1, 1]}},
    ],
)
def test_layouts_are_kept_as_they_are(tmp_path, extra):
    records, findings = read(tmp_path, [{"vid": "a", "mask_id": 1, **extra}])
    assert [r.kind for r in records] == ["layout"]
    assert findings == []


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("text", "no record"),
        ({"mask_id": 1, "description": "x"}, "names no video"),
        ({"vid": "a", "mask_id": [1, 2], "description": "x"}, "names several masks"),
        ({"vid": "a", "mask_id": 1}, "holds no text"),
        ({"vid": "a", "mask_id": 1, "task": "dance", "prompt": "x"}, "unknown task"),
    ],
)
def test_a_record_that_cannot_be_read_has_a_reason(tmp_path, entry, reason):
    records, findings = read(tmp_path, [entry, {"vid": "b", "description": "A park."}])
    assert [r.vid for r in records] == ["b"]
    assert [(f.reason, f.item) for f in findings] == [(reason, "list.json[0]")]


@pytest.mark.parametrize(
    ("text", "message"), [("[]", "must hold records"), ("{oh", "must be JSON"), ("[" * 99999, "nested too deeply|JSON")]
)
def test_a_file_without_records_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no released list"):
        read_released([tmp_path / "none.json"])


@pytest.mark.parametrize("text", ["x/a.mp4", "x\\a", "/x/a/", " x/a "])
def test_the_name_of_a_video_has_no_ending(text):
    assert video_name(text) == "x/a"


def source(name):
    return SourceVideo(name=name, layout="rovi", root="/", video=f"{name}.mp4")


def joined(tmp_path, value, names, **options):
    records, _ = read(tmp_path, value)
    return join([source(name) for name in names], records, **options)


def test_records_are_joined_by_name_or_by_the_last_folder(tmp_path):
    value = [{"vid": v, "mask_id": 1, "description": f"of {v}"} for v in ("a", "deep/b", "c")]
    videos, findings = joined(tmp_path, value, ["a", "b", "x/c"])
    assert [v.texts["1"].descriptions for v in videos] == [("of a",), ("of deep/b",), ("of c",)]
    assert findings == []


def test_a_record_of_no_video_or_of_two_is_named(tmp_path):
    value = [{"vid": v, "description": "Text."} for v in ("gone", "b")]
    _, findings = joined(tmp_path, value, ["x/b", "y/b"])
    assert [(f.reason, f.item) for f in findings] == [
        ("no such video", "list.json[0]"),
        ("several videos of that name", "list.json[1]"),
    ]


def test_videos_that_no_list_names_may_be_left_out(tmp_path):
    videos, findings = joined(tmp_path, [{"vid": "a", "description": "Text."}], ["a", "b"], listed_only=True)
    assert [v.name for v in videos] == ["a"]
    assert [(f.video, f.reason) for f in findings] == [("b", "not in the lists")]


def test_a_second_description_is_kept_and_noted_and_a_repeated_one_is_not(tmp_path):
    value = [{"vid": "a", "mask_id": 1, "description": text} for text in ("First.", "Second.", "First.")]
    (video,), _ = joined(tmp_path, value, ["a"])
    assert video.texts["1"].descriptions == ("First.", "Second.")
    assert [f.reason for f in video.findings] == ["second description"]


def test_a_description_with_the_name_before_it_is_no_second_one(tmp_path):
    value = [{"vid": "a", "mask_id": 1, "description": text} for text in ("It runs.", "Dog: It runs.", "It runs.")]
    (video,), _ = joined(tmp_path, value, ["a"])
    assert video.texts["1"].descriptions == ("Dog: It runs.",)
    assert video.findings == ()


def test_a_layout_of_no_mask_is_named(tmp_path):
    (video,), _ = joined(tmp_path, [{"vid": "a", "layout": "Frame 1: [0, 0, 1, 1]"}], ["a"])
    assert [f.reason for f in video.findings] == ["names no mask"]
