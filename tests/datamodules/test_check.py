import dataclasses
import json
import os
import re
import shutil
import tarfile
import tracemalloc

import numpy as np
import pytest

from raccoon_datamodules.examine import report as check_report
from raccoon_datamodules.examine.check import CheckReport, check_shards, check_splits
from raccoon_datamodules.examine.indexes import reindex
from raccoon_datamodules.index import Index
from raccoon_datamodules.masks import boxes_of
from raccoon_datamodules.members import dump_mask
from raccoon_datamodules.paragraph import Paragraph
from raccoon_datamodules.sample import encode
from raccoon_datamodules.synthetic import make_sample as make_scene
from raccoon_datamodules.writer import write_encoded, write_shards


@pytest.fixture
def copy(shards, tmp_path):
    return shutil.copytree(shards, tmp_path / "copy")


def written(folder, *members):
    """Shards of members as they are given, however wrong."""
    write_encoded([(f"k{i}", data) for i, data in enumerate(members)], folder)
    return folder


def with_key(data, key="k0"):
    return {**data, "meta.json": json.dumps({**json.loads(data["meta.json"]), "key": key}).encode()}


def reasons(report):
    return [str(problem) for problem in report.problems]


def test_sound_shards_are_called_sound(shards):
    report = check_shards(shards)
    assert (report.ok, report.problems) == (True, [])
    counts = (report.num_shards, report.num_samples, report.num_members, report.num_objects, report.num_frames)
    assert counts == (3, 10, 70, 10, 40)
    assert report.num_bytes == sum(path.stat().st_size for path in shards.glob("*.tar"))
    assert str(report).startswith(f"{shards}: 10 samples with 10 objects and 40 frames in 3 shards")
    assert str(report).endswith("sound")


def test_the_report_is_json_and_progress_is_told(shards):
    seen = []
    report = check_shards(shards, progress=lambda done, total: seen.append((done, total)))
    assert json.loads(json.dumps(report.to_json()))["ok"] is True
    assert seen[-1] == (10, 10)


def test_a_flipped_bit_is_found_and_its_member_named(copy):
    index = Index.load(copy)
    entry = next(m for m in index.shards[1].members(2) if m.suffix == "inpainted-1.mp4")
    path = copy / index.shards[1].name
    data = bytearray(path.read_bytes())
    data[entry.offset + 100] ^= 4
    path.write_bytes(data)
    report = check_shards(copy)
    assert reasons(report) == [
        "vplm-train-000001.tar: its sha256 is not the one in index.json: its bytes have changed",
        "vplm-train-000001.tar: clip-0006: inpainted-1.mp4: its bytes do not match the checksum in the index; "
        "the shard is damaged",
    ]
    assert (report.ok, report.num_bad_samples, report.num_errors) == (False, 1, 2)


def test_a_truncated_shard_is_found(copy):
    os.truncate(copy / "vplm-train-000000.tar", 20_000)
    report = check_shards(copy)
    text = "\n".join(reasons(report))
    assert "vplm-train-000000.tar: must have" in text
    assert "it was cut off or replaced" in text
    assert report.num_bad_samples == 3
    assert report.num_samples == 10


def test_a_missing_shard_is_found_and_the_others_are_checked(copy):
    (copy / "vplm-train-000001.tar").unlink()
    report = check_shards(copy)
    assert reasons(report)[0] == "vplm-train-000001.tar: is listed in index.json but not in the folder"
    assert (report.num_samples, report.num_bad_samples) == (10, 4)


def test_a_shard_that_is_not_in_the_index_is_noted(copy):
    shutil.copy(copy / "vplm-train-000000.tar", copy / "vplm-train-000009.tar")
    report = check_shards(copy)
    assert report.ok
    assert reasons(report) == ["vplm-train-000009.tar: is not in the index and will never be read"]


def test_what_an_interrupted_writer_left_is_noted(copy):
    (copy / ".writing-abc").mkdir()
    assert "is left from an interrupted writer" in reasons(check_shards(copy))[0]


def test_an_index_of_other_tars_is_found(copy, make_shards, tmp_path):
    other = make_shards(tmp_path / "other", 10, first=20)
    shutil.copy(other / "vplm-train-000002.tar", copy)
    text = "\n".join(reasons(check_shards(copy)))
    assert "clip-0029.meta.json: is in the tar but not in the index" in text
    assert "clip-0008.meta.json: is in the index but not in the tar" in text


def test_a_file_that_is_no_tar_is_found(copy):
    path = copy / "vplm-train-000002.tar"
    path.write_bytes(b"x" * path.stat().st_size)
    assert any("is not a readable tar" in reason for reason in reasons(check_shards(copy)))


def test_one_key_in_two_shards_is_found(make_shards, tmp_path):
    folder = make_shards(tmp_path / "a", 2, samples_per_shard=1)
    shutil.copy(folder / "vplm-train-000000.tar", folder / "vplm-train-000001.tar")
    reindex(folder)
    assert reasons(check_shards(folder)) == [
        "vplm-train-000001.tar: clip-0000: another sample has this key",
        "vplm-train-000001.tar: clip-0000: video.mp4: repeats sample clip-0000 (the same bytes)",
    ]


def test_every_damaged_member_of_a_sample_is_named(make_sample, tmp_path):
    data = {**with_key(encode(make_sample(num_objects=2))), "mask-2.npz": b"no", "video.mp4": b"no"}
    report = check_shards(written(tmp_path / "x", data))
    assert [(p.key, p.member) for p in report.problems] == [("k0", "video.mp4"), ("k0", "mask-2.npz")]
    assert report.num_bad_samples == 1


@pytest.mark.parametrize(
    "missing", ["meta.json", "paragraph.json", "edits.json", "video.mp4", "mask-1.npz", "object-1.json"]
)
def test_a_missing_member_is_found(make_sample, tmp_path, missing):
    data = with_key(encode(make_sample()))
    del data[missing]
    assert reasons(check_shards(written(tmp_path / "x", data))) == [f"vplm-train-000000.tar: k0: {missing}: is missing"]


def test_another_schema_is_found(make_sample, tmp_path):
    data = encode(make_sample())
    data["meta.json"] = json.dumps({**json.loads(data["meta.json"]), "schema": 7}).encode()
    assert "schema must be 1, got 7" in reasons(check_shards(written(tmp_path / "x", data)))[0]


def test_a_key_that_is_not_the_members_is_found(make_sample, tmp_path):
    report = check_shards(written(tmp_path / "x", encode(make_sample())))
    assert reasons(report) == ["vplm-train-000000.tar: k0: meta.json: holds the key clip-0000"]


def test_an_unknown_member_is_noted(make_sample, tmp_path):
    report = check_shards(written(tmp_path / "x", {**with_key(encode(make_sample())), "sound.opus": b"x"}))
    assert report.ok
    assert "sound.opus: is a member that this version does not know" in reasons(report)[0]


def test_boxes_that_are_not_the_masks_are_found(make_sample, tmp_path):
    sample = make_sample()
    record = sample.objects[0]
    shifted = dataclasses.replace(record, boxes=record.boxes + np.float32(0.25))
    there = dataclasses.replace(record, boxes=np.nan_to_num(record.boxes, nan=0.5))
    samples = [dataclasses.replace(sample, key=k, objects=(o,)) for k, o in (("a", shifted), ("b", there))]
    write_shards(samples, tmp_path / "x")
    found = reasons(check_shards(tmp_path / "x"))
    assert "object-1.json: box and mask differ by up to 4.0 pixels in frames [1, 2, 3]" in found[0]
    assert "object-1.json: box and mask disagree on whether it is there in frames [0]" in found[1]


def test_areas_that_are_not_the_masks_are_found(make_sample, tmp_path):
    data = with_key(encode(make_sample()))
    other = np.zeros((4, 16, 16), np.uint8)
    other[1:, 1:6, 2:9] = 1
    other[2, 3, 3] = 0
    found = reasons(check_shards(written(tmp_path / "x", {**data, "mask-1.npz": dump_mask(other)})))
    assert found == ["vplm-train-000000.tar: k0: object-1.json: its areas are not those of its mask"]


def test_an_object_that_the_paragraph_does_not_name_is_found(make_sample, tmp_path):
    sample = dataclasses.replace(make_sample(), paragraph=Paragraph("Nothing here.", ()), edits=())
    write_shards([sample], tmp_path / "x")
    assert "object Thing 1 is not in the paragraph, which names none" in reasons(check_shards(tmp_path / "x"))[0]


def test_a_described_object_without_a_mask_is_noted(make_sample, tmp_path):
    sample = make_sample(num_objects=2)
    write_shards([dataclasses.replace(sample, objects=sample.objects[:1])], tmp_path / "x")
    report = check_shards(tmp_path / "x")
    assert report.ok
    assert "paragraph.json: object Thing 2 is described but has no mask" in reasons(report)[0]


def masked(make_sample, mask, **changes):
    """A sample whose object has this mask, with the boxes of it."""
    sample = make_sample()
    record = dataclasses.replace(sample.objects[0], mask=mask, boxes=boxes_of(mask), **changes)
    return dataclasses.replace(sample, objects=(record,))


def warnings(report):
    assert {problem.severity for problem in report.problems} <= {"warning"}
    return [f"{problem.member}: {problem.reason}" for problem in report.problems]


@pytest.mark.parametrize(
    ("value", "reason"),
    [(0, "the mask is empty in every frame"), (1, "the mask covers every pixel of every frame")],
    ids=["empty", "full"],
)
def test_an_empty_or_full_mask_is_doubtful(make_sample, tmp_path, value, reason):
    mask = np.full((4, 16, 16), value, np.uint8)
    write_shards([masked(make_sample, mask, inpainted=None)], tmp_path / "x")
    assert warnings(check_shards(tmp_path / "x")) == [f"mask-1.npz: {reason}"]


def test_a_mask_that_is_full_for_a_while_is_doubtful(make_sample, tmp_path):
    mask = make_sample().objects[0].mask.copy()
    mask[2] = 1
    write_shards([masked(make_sample, mask, inpainted=None)], tmp_path / "x")
    found = warnings(check_shards(tmp_path / "x"))
    assert found == ["mask-1.npz: the mask covers the whole picture in frames [2]"]


def test_an_inverted_mask_is_doubtful(make_sample, tmp_path):
    mask = np.ones((4, 16, 16), np.uint8)
    mask[:, 5:9, 5:9] = 0
    write_shards([masked(make_sample, mask, inpainted=None)], tmp_path / "x")
    assert "inverted" in warnings(check_shards(tmp_path / "x"))[0]


def test_an_inpainted_clip_that_still_shows_the_object_is_doubtful(make_sample, tmp_path):
    sample = make_sample()
    record = dataclasses.replace(sample.objects[0], inpainted=sample.video)
    write_shards([dataclasses.replace(sample, objects=(record,))], tmp_path / "x")
    (found,) = warnings(check_shards(tmp_path / "x"))
    assert found.startswith("inpainted-1.mp4: is the video itself where the object is (0.0% of its pixels changed")


def test_an_inpainted_clip_that_differs_elsewhere_is_doubtful_and_it_is_said_how_much(make_sample, tmp_path):
    sample = make_sample()
    frames = sample.objects[0].inpainted.frames.copy()
    frames[:, 12:] = 255 - frames[:, 12:]
    record = dataclasses.replace(sample.objects[0], inpainted=sample.video.with_frames(frames))
    write_shards([dataclasses.replace(sample, objects=(record,))], tmp_path / "x")
    (found,) = warnings(check_shards(tmp_path / "x"))
    assert re.match(r"inpainted-1.mp4: differs from the video outside the object too: [2-4]\d\.\d% of that", found)


def test_boxes_that_leave_the_picture_are_found(make_sample, tmp_path):
    sample = make_sample()
    boxes = sample.objects[0].boxes.copy()
    boxes[2] = (0.5, 0.5, 1.25, 0.75)
    boxes[3] = (0.5, 0.5, 0.25, 0.75)
    record = dataclasses.replace(sample.objects[0], boxes=boxes)
    write_shards([dataclasses.replace(sample, objects=(record,))], tmp_path / "x")
    assert reasons(check_shards(tmp_path / "x")) == [
        "vplm-train-000000.tar: clip-0000: object-1.json: boxes must be x0, y0, x1, y1 in [0, 1] with x0 <= x1 and "
        "y0 <= y1, got [0.5, 0.5, 1.25, 0.75] in frame 2 and 1 more"
    ]


def test_a_damaged_edit_is_found(make_sample, tmp_path):
    data = with_key(encode(make_sample()))
    data["edits.json"] = data["edits.json"].replace(b'"kind":"remove"', b'"kind":"paint"')
    assert "edits.json: an edit's kind must be" in reasons(check_shards(written(tmp_path / "x", data)))[0]


def test_members_that_differ_by_case_alone_are_found(make_sample, tmp_path):
    data = with_key(encode(make_sample()))
    found = reasons(check_shards(written(tmp_path / "x", {**data, "MASK-1.npz": data["mask-1.npz"]})))
    assert any("two members have one name, regardless of case" in reason for reason in found)


def test_a_quick_check_of_sound_shards_decodes_nothing(shards, monkeypatch):
    monkeypatch.setattr("raccoon_datamodules.view.MemberView.clip", None)
    report = check_shards(shards, quick=True)
    assert (report.ok, report.problems, report.num_samples, report.num_frames) == (True, [], 10, 0)
    assert "10 samples in 3 shards" in str(report)


def test_a_quick_check_names_the_damaged_member(copy):
    index = Index.load(copy)
    entry = next(m for m in index.shards[1].members(2) if m.suffix == "video.mp4")
    path = copy / index.shards[1].name
    data = bytearray(path.read_bytes())
    data[entry.offset] ^= 1
    path.write_bytes(data)
    report = check_shards(copy, quick=True)
    assert [(p.key, p.member) for p in report.problems] == [(None, None), ("clip-0006", "video.mp4")]


def test_a_quick_check_finds_missing_members_and_equal_clips(make_sample, tmp_path):
    data = [with_key(encode(make_sample()), f"k{i}") for i in range(3)]
    del data[2]["video.mp4"], data[2]["edits.json"]
    assert reasons(check_shards(written(tmp_path / "x", *data), quick=True)) == [
        "vplm-train-000000.tar: k2: edits.json: is missing",
        "vplm-train-000000.tar: k2: video.mp4: is missing",
        "vplm-train-000000.tar: k1: video.mp4: repeats sample k0 (the same bytes)",
    ]


def test_a_clip_of_two_splits_is_a_leak(make_shards, tmp_path):
    test = make_shards(tmp_path / "test", 3, first=5, split="test")
    train = make_shards(tmp_path / "train", 6)
    held_out, leaky = check_splits([test, train])
    assert held_out.ok
    assert reasons(leaky) == [
        f"vplm-train-000001.tar: clip-0005: video.mp4: is in {test} too, as sample clip-0005 (the same bytes)"
    ]
    assert (leaky.ok, leaky.num_bad_samples) == (False, 1)


def test_a_clip_that_looks_alike_in_other_colours_is_only_doubtful(tmp_path):
    scene = make_scene(1, "medium", num_frames=2, size=(48, 48))
    brighter = scene.video.with_frames(np.clip(scene.video.frames.astype(int) + 10, 0, 255).astype(np.uint8))
    held_out = dataclasses.replace(scene, video=brighter, objects=(), edits=())
    write_shards([held_out], tmp_path / "test", split="test")
    write_shards([dataclasses.replace(scene, objects=(), edits=())], tmp_path / "train")
    report = check_splits([tmp_path / "test", tmp_path / "train"])[1]
    found = [p for p in report.problems if p.severity != "note"]
    assert [p.severity for p in found] == ["warning"]
    assert found[0].reason.startswith(f"may be in {tmp_path / 'test'} too, as sample {scene.key} (nearly the same pic")


def test_copies_are_not_looked_for_when_told_so(make_shards, tmp_path):
    folders = [make_shards(tmp_path / name, 2, split=name) for name in ("test", "train")]
    assert all(report.ok for report in check_splits(folders, max_bits=None))


def test_processes_find_what_one_finds(make_shards, tmp_path):
    test = make_shards(tmp_path / "test", 2, split="test")
    train = make_shards(tmp_path / "train", 3, first=1)
    os.truncate(train / "vplm-train-000000.tar", 9_000)
    alone, together = (check_splits([test, train], workers=workers) for workers in (0, 2))
    assert [str(report) for report in alone] == [str(report) for report in together]
    assert not together[1].ok


def test_one_folder_is_not_checked_against_itself(shards):
    with pytest.raises(ValueError, match=r"each folder must be named once, .*train/ comes again"):
        check_splits([shards, f"{shards}/"])


@pytest.mark.parametrize("bits", [-1, 7.5, float("nan")])
def test_a_limit_that_the_search_does_not_reach_is_refused(shards, bits):
    with pytest.raises(ValueError, match=r"max_bits must be in \[0, 7\] or None, got"):
        check_shards(shards, max_bits=bits)


def test_a_tar_whose_headers_never_end_is_a_finding(copy):
    path = copy / "vplm-train-000002.tar"
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 0
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) * 3000)
    assert any("is not a readable tar" in reason for reason in reasons(check_shards(copy)))


def test_a_tar_of_links_and_folders_is_a_finding(copy):
    path = copy / "vplm-train-000002.tar"
    with tarfile.open(path, "w") as out:
        for name, kind in (("a", tarfile.SYMTYPE), ("b", tarfile.DIRTYPE), ("c", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            out.addfile(info)
    report = check_shards(copy)
    assert {p.member for p in report.problems if "is not a regular file" in p.reason} == {"a", "b", "c"}
    assert report.num_bad_samples == 2


def test_members_of_an_object_that_is_not_listed_are_found(make_sample, tmp_path):
    data = with_key(encode(make_sample()))
    found = reasons(check_shards(written(tmp_path / "x", {**data, "mask-9.npz": data["mask-1.npz"]})))
    assert found == ["vplm-train-000000.tar: k0: meta.json: object 9 has members but is not listed"]


def test_an_edit_of_an_object_that_is_not_there_is_found(make_sample, tmp_path):
    data = with_key(encode(make_sample()))
    data["edits.json"] = data["edits.json"].replace(b'"object_id":"1"', b'"object_id":"8"')
    assert "edits.json: an edit names object 8" in reasons(check_shards(written(tmp_path / "x", data)))[0]


def test_findings_beyond_the_list_are_counted(make_sample, tmp_path, monkeypatch):
    monkeypatch.setattr(check_report, "MAX_LISTED", 2)
    folder = tmp_path / "x"
    write_encoded([(f"k{i}", {"meta.json": b"{}"}) for i in range(5)], folder)
    report = check_shards(folder)
    assert (len(report.problems), report.num_errors, report.num_bad_samples) == (2, 5, 5)
    assert str(report).endswith("and 3 more")


def test_an_address_is_not_checked():
    with pytest.raises(ValueError, match="a check reads every byte and needs a local folder, got http://x"):
        check_shards("http://x")


def test_memory_stays_flat(make_shards, tmp_path):
    folder = make_shards(tmp_path / "x", 24, samples_per_shard=4)
    marks = []

    def mark(done, total):
        if done in (8, 24):
            marks.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        check_shards(folder, progress=mark)
    finally:
        tracemalloc.stop()
    # Sixteen more samples of some 20 kB each, decoded, would be far more.
    assert marks[1] - marks[0] < 100_000


def test_what_a_file_holds_cannot_write_to_the_terminal():
    problem = check_report.Problem("error", "a.tar", "k", None, "object \x1b[2J\n is not there")
    assert str(problem) == r"a.tar: k: object \x1b[2J\n is not there"


def test_a_report_counts_one_thing_as_one():
    report = CheckReport("x", num_shards=1, num_samples=1, num_errors=1, num_bad_samples=1)
    first = str(report).splitlines()[0]
    assert first == "x: 1 sample in 1 shard (0.0 MB): 1 error, 1 bad sample"
