import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raccoon_datamodules.examine.check import check_shards
from raccoon_datamodules.exchange import exporting as exchange_export
from raccoon_datamodules.exchange import report as exchange
from raccoon_datamodules.exchange.exporting import export_messages
from raccoon_datamodules.exchange.importing import import_messages
from raccoon_datamodules.exchange.report import EXTRA_FIELD
from raccoon_datamodules.index import Index
from raccoon_datamodules.masks import boxes_of
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.sample import encode
from raccoon_datamodules.sources import ShardSource
from raccoon_datamodules.synthetic import make_sample as make_scene
from raccoon_datamodules.writer import write_encoded, write_shards


def lines_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def write_lines(file: Path, lines: list) -> Path:
    file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return file


def tars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def foreign(video: str = "clip.mp4", text: str = "A dog runs.", **more) -> dict:
    messages = [{"role": "user", "content": "<video>What is it?"}, {"role": "assistant", "content": text}]
    return {"messages": messages, "videos": [video], **more}


@pytest.fixture(scope="module")
def exported(shards, tmp_path_factory) -> Path:
    """An export of the ten samples; not to be changed."""
    out = tmp_path_factory.mktemp("exported") / "out"
    export_messages([shards], out)
    return out


@pytest.fixture
def copy(exported, tmp_path) -> Path:
    return shutil.copytree(exported, tmp_path / "copy")


@pytest.fixture
def clip(make_sample, tmp_path) -> Path:
    """A folder with a video file ``clip.mp4`` that no export wrote."""
    make_sample(size=32).video.write(tmp_path / "clip.mp4")
    return tmp_path


@pytest.mark.parametrize("masks", ["rle", "png"])
@pytest.mark.parametrize("difficulty", ["easy", "medium", "hard"])
def test_an_import_of_an_export_is_the_same_tar(tmp_path, difficulty, masks):
    scenes = [make_scene(seed, difficulty, num_frames=3, size=(48, 64)) for seed in (1, 2)]
    write_shards(scenes, tmp_path / "a", split="val")
    report = export_messages([tmp_path / "a"], tmp_path / "out", masks=masks)
    assert (report.num_read, report.num_written, report.problems) == (2, 2, [])
    report = import_messages(tmp_path / "out" / "val.jsonl", tmp_path / "b")
    assert (report.num_read, report.num_written, report.problems) == (2, 2, [])
    assert tars(tmp_path / "a") == tars(tmp_path / "b")
    assert Index.load(tmp_path / "a").fingerprint() == Index.load(tmp_path / "b").fingerprint()


def test_processes_export_what_one_exports(shards, exported, tmp_path):
    export_messages([shards], tmp_path / "out", workers=2)
    assert (tmp_path / "out" / "train.jsonl").read_bytes() == (exported / "train.jsonl").read_bytes()
    files = {path.relative_to(exported) for path in exported.rglob("*.*")}
    assert files == {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.*")}


@pytest.mark.slow
def test_processes_import_what_one_imports(shards, exported, tmp_path):
    import_messages(exported / "train.jsonl", tmp_path / "b", samples_per_shard=4, workers=2)
    assert tars(tmp_path / "b") == tars(shards)


def test_shards_behind_an_address_are_exported(shards, exported, serve, tmp_path):
    export_messages([serve(shards).address], tmp_path / "out")
    assert (tmp_path / "out" / "train.jsonl").read_bytes() == (exported / "train.jsonl").read_bytes()


def test_progress_is_told(shards, exported, tmp_path):
    seen = []
    export_messages([shards], tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (10, 10)
    seen.clear()
    import_messages(exported / "train.jsonl", tmp_path / "b", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 10) for n in range(1, 11)]


def test_everything_that_a_shard_may_hold_travels(make_sample, tmp_path):
    # Uneven times, an object that is never seen, one without an inpainted clip, odd texts, members of a later version.
    sample = make_sample(num_objects=3)
    empty = np.zeros_like(sample.objects[0].mask)
    records = (
        dataclasses.replace(sample.objects[0], mask=empty, boxes=boxes_of(empty)),
        dataclasses.replace(sample.objects[1], inpainted=None, attributes={"ü": [1, 2.5, None, {"deep": "\u2028"}]}),
        sample.objects[2],
    )
    video = dataclasses.replace(sample.video, timestamps=np.array([0.0, 0.1, 0.25, 1 / 3]), fps=29.97)
    odd = Paragraph('He says: "2. Dog: no" \\ <b>', sample.paragraph.objects)
    sample = dataclasses.replace(sample, video=video, objects=records, paragraph=odd, phrasings=())
    data = encode(sample)
    data["object-3.json"] = data["object-3.json"].replace(b'{"area"', b'{"a_later_field":[1],"area"')
    data["sound.opus"] = b"\0sound"
    write_encoded([(sample.key, data)], tmp_path / "a")
    export_messages([tmp_path / "a"], tmp_path / "out")
    import_messages(tmp_path / "out" / "train.jsonl", tmp_path / "b")
    assert tars(tmp_path / "a") == tars(tmp_path / "b")
    (line,) = lines_of(tmp_path / "out" / "train.jsonl")
    assert line["objects"]["ref"] == ["Thing 2", "Thing 3"]


def test_a_clip_that_nobody_has_described_yet_travels(make_sample, tmp_path):
    sample = dataclasses.replace(make_sample(), paragraph=Paragraph(""), objects=(), edits=(), phrasings=())
    write_shards([sample], tmp_path / "a")
    export_messages([tmp_path / "a"], tmp_path / "out")
    assert import_messages(tmp_path / "out" / "train.jsonl", tmp_path / "b").problems == []
    assert tars(tmp_path / "a") == tars(tmp_path / "b")


def test_a_line_is_what_other_trainers_read(exported, shards):
    line = lines_of(exported / "train.jsonl")[3]
    sample = ShardSource(shards).whole(0, 3)
    user, answer = line["messages"]
    assert user["role"] == "user"
    assert user["content"].startswith("<video>")
    assert answer == {"role": "assistant", "content": str(sample.paragraph)}
    assert line["videos"] == ["media/train/clip-0003.mp4"]
    assert line["objects"] == {"ref": ["Thing 1"], "bbox": [[0.125, 0.0625, 0.5625, 0.375]], "bbox_type": "norm1"}
    # One type in every line, whatever attributes hold: `datasets` needs that.
    assert isinstance(line[EXTRA_FIELD], str)
    info = json.loads((exported / "dataset_info.json").read_text())
    assert info["vplm_train"]["file_name"] == "train.jsonl"
    assert info["vplm_train"]["columns"] == {"messages": "messages", "videos": "videos"}


def test_splits_go_into_one_export(shards, make_shards, tmp_path):
    val = make_shards(tmp_path / "val", 2, first=40, split="val")
    report = export_messages([shards, val], tmp_path / "out", prompt="What?", absolute=True)
    assert report.num_written == 12
    assert set(json.loads((tmp_path / "out" / "dataset_info.json").read_text())) == {"vplm_train", "vplm_val"}
    line = lines_of(tmp_path / "out" / "val.jsonl")[0]
    assert line["messages"][0]["content"] == "<video>What?"
    assert line["videos"] == [str(tmp_path / "out" / "media/val/clip-0040.mp4")]
    # Whole paths into the JSONL's own folder lead nowhere else.
    assert import_messages(tmp_path / "out" / "val.jsonl", tmp_path / "b").num_bad == 0


def test_two_folders_of_one_split_are_refused(shards, tmp_path):
    with pytest.raises(ValueError, match="each folder must hold a split of its own, got train, train"):
        export_messages([shards, shards], tmp_path / "out")


def test_an_unknown_form_of_masks_is_refused(shards, tmp_path):
    with pytest.raises(ValueError, match="masks must be rle or png, got 'gif'"):
        export_messages([shards], tmp_path / "out", masks="gif")


def test_an_export_is_replaced_only_when_told_and_only_an_export(shards, copy):
    with pytest.raises(FileExistsError, match="--overwrite"):
        export_messages([shards], copy)
    (copy / "media" / "old").write_text("")
    export_messages([shards], copy, overwrite=True)
    assert not (copy / "media" / "old").exists()
    (copy / "thesis.docx").write_text("")
    with pytest.raises(FileExistsError, match=r"holds what no export wrote \(thesis.docx\)"):
        export_messages([shards], copy, overwrite=True)
    assert sorted(path.name for path in copy.parent.iterdir()) == ["copy"]


def test_a_file_in_the_place_of_an_export_is_refused(shards, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(FileExistsError, match="an export is written into a folder"):
        export_messages([shards], tmp_path / "out")


def test_an_export_that_fails_leaves_nothing(shards, copy, monkeypatch):
    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exchange_export._Files, "flush", full)
    before = (copy / "train.jsonl").read_bytes()
    with pytest.raises(OSError, match="no room left"):
        export_messages([shards], copy, overwrite=True)
    assert (copy / "train.jsonl").read_bytes() == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_a_damaged_sample_is_left_out_of_an_export(make_sample, tmp_path):
    good, bad, strange = (encode(make_sample(number)) for number in range(3))
    bad["mask-1.npz"] = b"no"
    strange["../../up"] = b"x"
    write_encoded([("clip-0000", good), ("clip-0001", bad), ("clip-0002", strange)], tmp_path / "a")
    report = export_messages([tmp_path / "a"], tmp_path / "out")
    assert (report.num_read, report.num_written, report.num_bad) == (3, 1, 2)
    assert "clip-0001: mask-1.npz: must be a bit-packed npz" in str(report)
    assert "clip-0002: ../../up: has a name that may not be a file's" in str(report)
    assert {path.name.split(".")[0] for path in (tmp_path / "out" / "media" / "train").iterdir()} == {"clip-0000"}
    assert not list(tmp_path.rglob("up"))


def test_an_export_of_nothing_readable_is_an_error(make_sample, tmp_path):
    write_encoded([("k", {**encode(make_sample()), "meta.json": b"{"})], tmp_path / "a")
    with pytest.raises(ValueError, match=r"none of the 1 samples can be read; the first: .*meta\.json"):
        export_messages([tmp_path / "a"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_placeholder_in_a_text_is_noted(make_sample, tmp_path):
    sample = make_sample()
    text = Paragraph("A sign says <image>.", sample.paragraph.objects)
    write_shards([dataclasses.replace(sample, paragraph=text)], tmp_path / "a")
    assert "its text holds <image>" in str(export_messages([tmp_path / "a"], tmp_path / "out"))


def test_an_edited_text_and_mask_are_what_counts(copy, tmp_path):
    lines = lines_of(copy / "train.jsonl")
    lines[0]["messages"][1]["content"] = lines[0]["messages"][1]["content"].replace("Scene 0", "Another scene")
    write_lines(copy / "train.jsonl", lines)
    mask = json.loads((copy / "masks/train/clip-0001.1.json").read_text())
    (copy / "masks/train/clip-0001.1.json").write_text(json.dumps([*mask[:3], mask[0]]))
    report = import_messages(copy / "train.jsonl", tmp_path / "b")
    assert [str(problem).split(": ", 1)[1] for problem in report.problems] == [
        "the mask of object 1 has been changed; its boxes and areas were made anew"
    ]
    source = ShardSource(tmp_path / "b")
    assert source.whole(0, 0).paragraph.description == "Another scene with things."
    record = source.whole(0, 1).objects[0]
    assert not record.mask[3].any()
    assert np.isnan(record.boxes[3]).all()
    assert check_shards(tmp_path / "b").ok


def test_masks_painted_as_pictures_are_read(make_shards, tmp_path):
    export_messages([make_shards(tmp_path / "a", 1)], tmp_path / "out", masks="png")
    picture = tmp_path / "out/masks/train/clip-0000/1/00002.png"
    with Image.open(picture) as opened:
        painted = np.array(opened)
    painted[0, 0] = 255
    Image.fromarray(painted).save(picture)
    import_messages(tmp_path / "out" / "train.jsonl", tmp_path / "b")
    assert ShardSource(tmp_path / "b").whole(0, 0).objects[0].mask[2, 0, 0] == 1


def test_a_line_of_anybody_gives_clip_and_paragraph(clip, make_sample, tmp_path):
    text = "Video Description: A dog runs.\n\nObject Descriptions:\n1. Dog: A brown dog."
    more = {"objects": {"ref": ["dog"], "bbox": [[1, 2, 3, 4]]}, "images": ["a.png"]}
    file = write_lines(clip / "train.jsonl", ["", foreign(text=text, **more), ""])
    report = import_messages(file, tmp_path / "b", crf=12)
    assert [str(problem) for problem in report.problems] == [
        f"{file}, line 2: its images are left out",
        f"{file}, line 2: 1 box kept in meta only: an object needs a mask and a box in every frame",
    ]
    sample = ShardSource(tmp_path / "b").whole(0, 0)
    assert (sample.key, sample.objects) == ("clip", ())
    assert sample.paragraph == Paragraph("A dog runs.", (ObjectDescription("Dog", "A brown dog."),))
    boxes = {"ref": ["dog"], "bbox": [[1, 2, 3, 4]], "bbox_type": "real"}
    assert sample.meta == {"source": {"file": "train.jsonl", "line": 2, "video": "clip.mp4", "objects": boxes}}
    assert sample.video.frames.shape == (4, 32, 32, 3)
    assert sample.video.fps == 8
    assert check_shards(tmp_path / "b").ok


def test_shards_are_not_put_among_other_things(clip, tmp_path):
    file = write_lines(clip / "train.jsonl", [foreign()])
    out = tmp_path / "out"
    out.mkdir()
    (out / "holiday.mp4").write_bytes(b"x")
    with pytest.raises(FileExistsError, match=r"out holds what no import wrote \(holiday\.mp4\); choose"):
        import_messages(file, out, overwrite=True)
    (out / "holiday.mp4").unlink()
    assert import_messages(file, out).num_written == 1
    assert import_messages(file, out, overwrite=True).num_written == 1


def test_a_folder_is_no_file_to_import_and_what_is_in_it_is_named(clip, tmp_path):
    write_lines(clip / "train.jsonl", [foreign()])
    with pytest.raises(ValueError, match=r"is a folder; name the JSONL to import \(in it: train\.jsonl\)"):
        import_messages(clip, tmp_path / "out")


def test_a_json_that_is_no_list_says_what_is_read(tmp_path):
    (tmp_path / "a.json").write_text('{\n"messages": []\n}')
    with pytest.raises(ValueError, match=r"a \.json file holds one list of all, a \.jsonl an object a line"):
        import_messages(tmp_path / "a.json", tmp_path / "out")


def test_boxes_of_anybody_are_exported_again(clip, tmp_path):
    boxes = {"ref": ["dog", "cat"], "bbox": [[1, 2, 3, 4], [5.5, 6, 7, 8]], "bbox_type": "norm1000"}
    import_messages(write_lines(clip / "train.jsonl", [foreign(objects=boxes)]), tmp_path / "b")
    export_messages([tmp_path / "b"], tmp_path / "c")
    assert lines_of(tmp_path / "c" / "train.jsonl")[0]["objects"] == boxes
    report = import_messages(tmp_path / "c" / "train.jsonl", tmp_path / "d")
    assert report.problems == []
    assert tars(tmp_path / "b") == tars(tmp_path / "d")


@pytest.mark.parametrize(
    "objects",
    [
        {"bbox": [[1, 2, 3]]},
        {"bbox": [[1, 2, 3, "4"]]},
        {"bbox": [[1, 2, 3, True]]},
        {"bbox": [[1, 2, 3, 1e300]]},
        {"bbox": "many"},
        {"bbox": [[1, 2, 3, 4]], "ref": "dog"},
        {"bbox": [[1, 2, 3, 4]], "ref": [3]},
        {"bbox": [[1, 2, 3, 4]], "bbox_type": 1},
        {"bbox": [[1, 2, 3, 4]] * 10_001},
    ],
    ids=["three", "text", "truth", "absurd", "no list", "one name", "number", "kind", "many"],
)
def test_boxes_of_another_form_are_left_out_and_counted(clip, tmp_path, objects):
    report = import_messages(write_lines(clip / "train.jsonl", [foreign(objects=objects)]), tmp_path / "b")
    note = str(report.problems[-1])
    assert "left out: objects must be {ref: [names]" in note
    assert "objects" not in ShardSource(tmp_path / "b").whole(0, 0).meta["source"]


@pytest.mark.parametrize(
    "line",
    [
        {
            "conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A dog."}],
            "video": "clip.mp4",
        },
        {
            "messages": [
                {"role": "user", "content": [{"type": "video", "video": "clip.mp4"}, {"type": "text", "text": "?"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "A dog."}]},
            ]
        },
    ],
    ids=["sharegpt", "parts"],
)
def test_other_forms_of_messages_are_read(clip, tmp_path, line):
    import_messages(write_lines(clip / "train.jsonl", [line]), tmp_path / "b")
    assert ShardSource(tmp_path / "b").whole(0, 0).paragraph.description == "A dog."


def test_a_list_is_read_as_lines_are(clip, tmp_path):
    file = clip / "train.json"
    file.write_text(json.dumps([foreign(), 7, foreign()], indent=1))
    report = import_messages(file, tmp_path / "b", max_frames=1)
    assert (report.num_read, report.num_written, report.num_bad) == (3, 2, 1)
    assert f"left out: {file}, item 2: a line must hold an object" in str(report)
    assert list(Index.load(tmp_path / "b").keys()) == ["clip", "clip-item3"]
    file.write_text("[{")
    with pytest.raises(ValueError, match="begins a JSON list but is none"):
        import_messages(file, tmp_path / "b", overwrite=True)


def test_only_as_many_frames_are_kept_as_asked_for(clip, tmp_path):
    import_messages(write_lines(clip / "train.jsonl", [foreign()]), tmp_path / "b", max_frames=2)
    assert ShardSource(tmp_path / "b").whole(0, 0).video.num_frames == 2


def test_several_lines_about_one_clip_get_keys_of_their_own(clip, tmp_path):
    lines = [foreign(), foreign(text="Another answer."), foreign(id="a b")]
    import_messages(write_lines(clip / "train.jsonl", lines), tmp_path / "b", max_frames=1)
    keys = list(Index.load(tmp_path / "b").keys())
    assert keys[:2] == ["clip", "clip-line2"]
    assert keys[2].startswith("a_b-")
    assert all(not p.member or "meta" not in p.member for p in check_shards(tmp_path / "b").problems)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "the line: must be JSON in UTF-8"),
        ("[1]", "a line must hold an object with messages and videos, got list"),
        ({"videos": ["clip.mp4"]}, "a line must hold messages"),
        ({"messages": [1]}, "a message must be an object"),
        ({"messages": [{"role": "user", "content": 7}]}, "a message's content must be a text or a list of parts"),
        ({"messages": [{"role": "user", "content": "hello"}]}, "none of the 1 messages is an answer"),
        ({"messages": [{"role": "assistant", "content": "A dog."}]}, "names no video"),
        (foreign(text=" "), "its answer holds no paragraph"),
        (foreign("no.mp4"), "there is no file"),
        (foreign("train.jsonl"), "train.jsonl"),
        (foreign(7), "a video must be the name of a file, got 7"),
        (foreign("http://x/clip.mp4"), "only local files can be imported, got http://x/clip.mp4"),
        (foreign("a\0b"), "the name of a file must be a text"),
        (foreign(raccoon="{}"), "its field raccoon must hold schema 1"),
        (foreign(raccoon='{"schema": 1}'), "its field raccoon must hold meta, phrasings"),
        (foreign(raccoon="{"), "raccoon: must be JSON"),
    ],
)
def test_a_bad_line_is_left_out_with_its_number_and_reason(clip, tmp_path, line, reason):
    file = write_lines(clip / "train.jsonl", [line, foreign()])
    report = import_messages(file, tmp_path / "b", max_frames=1)
    assert (report.num_read, report.num_written, report.num_bad) == (2, 1, 1)
    assert report.problems[0].where == f"{file}, line 1"
    assert reason in report.problems[0].reason
    assert f"left out: {file}, line 1: " in str(report)


def extra_changed(copy: Path, change) -> str:
    """The reason for which a line is left out after a change of its extra field."""
    lines = lines_of(copy / "train.jsonl")
    extra = json.loads(lines[0][EXTRA_FIELD])
    change(extra, lines[0])
    lines[0][EXTRA_FIELD] = json.dumps(extra)
    report = import_messages(write_lines(copy / "train.jsonl", lines[:2]), copy.parent / "b")
    assert (report.num_written, report.num_bad) == (1, 1)
    return report.problems[0].reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda e, _: e["meta"].update(num_frames=5), "must have [5, 16, 16] frames, height and width as meta says"),
        (lambda e, _: e["meta"].update(key="../up"), "a sample key must match"),
        (lambda e, _: e["objects"][0].pop("mask"), "an object must hold its record (with an id) and mask"),
        (lambda e, _: e["objects"][0]["record"].update(id="9"), "object 9 is not among those of meta: 1"),
        (lambda e, _: e["objects"][0]["record"].update(boxes=[]), "boxes must be [4, 4]"),
        (lambda e, _: e.update(objects=[]), "object-1.json: is missing"),
        (lambda e, _: e["objects"][0].update(mask="media/train"), "must hold one mask image per frame"),
        (lambda e, _: e["objects"][0].update(mask="train.jsonl"), "there is no folder"),
        (lambda e, _: e["objects"][0].update(mask="dataset_info.json"), "must hold a list of 4 masks"),
        (lambda e, _: e["objects"][0].update(inpainted="train.jsonl"), "inpainted-1.mp4: is no clip of a shard"),
        (lambda e, _: e.update(members={"video.mp4": "train.jsonl"}), "lists video.mp4, which has a place of its own"),
        (lambda e, _: e.update(phrasings=[{}]), "must hold a paragraph"),
        (lambda _, line: line.update(videos=["train.jsonl"]), "video.mp4: is no clip of a shard"),
    ],
)
def test_an_exported_line_that_was_damaged_is_left_out(copy, change, reason):
    assert reason in extra_changed(copy, change)


def test_a_mask_of_another_size_or_count_is_refused(copy):
    file = copy / "masks/train/clip-0000.1.json"
    good = json.loads(file.read_text())
    file.write_text(json.dumps([*good[:3], {"size": [8, 8], "counts": [64]}]))
    assert "the mask must be [16, 16] (height, width) like the clip, its size is [8, 8]" in extra_changed(
        copy, lambda *_: 0
    )


def test_one_key_twice_is_a_bad_line(copy, tmp_path):
    lines = lines_of(copy / "train.jsonl")[:2]
    report = import_messages(write_lines(copy / "train.jsonl", [*lines, lines[0]]), tmp_path / "b")
    assert report.problems[0].reason == "key clip-0000 is that of line 1 already"


@pytest.mark.parametrize("way", ["up", "root", "link"])
def test_files_outside_of_the_folder_are_taken_only_when_told(clip, tmp_path, way):
    inner = tmp_path / "inner"
    inner.mkdir()
    name = {"up": "../clip.mp4", "root": str(clip / "clip.mp4"), "link": "link.mp4"}[way]
    if way == "link":
        os.symlink(clip / "clip.mp4", inner / "link.mp4")
    file = write_lines(inner / "train.jsonl", [foreign(name)])
    with pytest.raises(ValueError, match=r"no line of .* gives a sample; the first: .*leads out of .*--allow-outside"):
        import_messages(file, tmp_path / "b")
    assert import_messages(file, tmp_path / "b", allow_outside=True, max_frames=1).num_written == 1


def test_a_link_among_mask_pictures_leads_nowhere_either(make_shards, tmp_path):
    export_messages([make_shards(tmp_path / "a", 1)], tmp_path / "out", masks="png")
    picture = tmp_path / "out/masks/train/clip-0000/1/00002.png"
    shutil.move(picture, tmp_path / "elsewhere.png")
    os.symlink(tmp_path / "elsewhere.png", picture)
    with pytest.raises(ValueError, match="leads out of"):
        import_messages(tmp_path / "out" / "train.jsonl", tmp_path / "b")


def test_a_pipe_is_no_file(clip, tmp_path):
    os.mkfifo(clip / "pipe.mp4")
    file = write_lines(clip / "train.jsonl", [foreign("pipe.mp4"), foreign()])
    assert "there is no file" in import_messages(file, tmp_path / "b", max_frames=1).problems[0].reason


def test_shards_are_replaced_only_when_told(copy, tmp_path):
    import_messages(copy / "train.jsonl", tmp_path / "b", split="other")
    assert Index.load(tmp_path / "b").split == "other"
    with pytest.raises(FileExistsError, match="--overwrite"):
        import_messages(copy / "train.jsonl", tmp_path / "b", split="other")
    import_messages(copy / "train.jsonl", tmp_path / "b", split="other", overwrite=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crf": 52}, r"crf must lie in 0 \(best\) to 51 \(smallest\), got 52"),
        ({"max_frames": 0}, "max_frames must be at least 1, got 0"),
        ({"split": "a b"}, "a split must match"),
        ({"workers": -1}, "workers must not be negative"),
    ],
)
def test_wrong_arguments_of_an_import_are_refused(copy, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        import_messages(copy / "train.jsonl", tmp_path / "b", **arguments)
    assert not (tmp_path / "b").exists()


def test_a_file_that_is_not_there_or_empty_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*no\.jsonl to import"):
        import_messages(tmp_path / "no.jsonl", tmp_path / "b")
    with pytest.raises(ValueError, match=r"no line of .*empty\.jsonl gives a sample, it is empty"):
        import_messages(write_lines(tmp_path / "empty.jsonl", []), tmp_path / "b")


def test_problems_beyond_the_list_are_counted(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(exchange, "MAX_LISTED", 2)
    file = write_lines(clip / "train.jsonl", ["{"] * 5 + [foreign(text=str(Paragraph("A dog runs.")))])
    report = import_messages(file, tmp_path / "b", max_frames=1)
    assert (report.num_bad, len(report.problems)) == (5, 2)
    assert str(report).endswith("and 3 more")
    assert json.loads(json.dumps(report.to_json()))["num_bad"] == 5
