import dataclasses
import json
import os
import shutil
import tracemalloc

import numpy as np
import pytest

from raccoon_datamodules import check
from raccoon_datamodules.check import CheckReport, check_shards, reindex
from raccoon_datamodules.index import Index
from raccoon_datamodules.masks import boxes_of
from raccoon_datamodules.members import dump_mask
from raccoon_datamodules.paragraph import Paragraph
from raccoon_datamodules.sample import encode
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
    assert reasons(check_shards(folder)) == ["vplm-train-000001.tar: clip-0000: another sample has this key"]


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


def test_an_empty_mask_is_noted(make_sample, tmp_path):
    sample = make_sample()
    mask = np.zeros_like(sample.objects[0].mask)
    record = dataclasses.replace(sample.objects[0], mask=mask, boxes=boxes_of(mask))
    write_shards([dataclasses.replace(sample, objects=(record,))], tmp_path / "x")
    report = check_shards(tmp_path / "x")
    assert report.ok
    assert "mask-1.npz: the mask is empty in every frame" in reasons(report)[0]


def test_members_of_an_object_that_is_not_listed_are_found(make_sample, tmp_path):
    data = with_key(encode(make_sample()))
    found = reasons(check_shards(written(tmp_path / "x", {**data, "mask-9.npz": data["mask-1.npz"]})))
    assert found == ["vplm-train-000000.tar: k0: meta.json: object 9 has members but is not listed"]


def test_an_edit_of_an_object_that_is_not_there_is_found(make_sample, tmp_path):
    data = with_key(encode(make_sample()))
    data["edits.json"] = data["edits.json"].replace(b'"object_id":"1"', b'"object_id":"8"')
    assert "edits.json: an edit names object 8" in reasons(check_shards(written(tmp_path / "x", data)))[0]


def test_findings_beyond_the_list_are_counted(make_sample, tmp_path, monkeypatch):
    monkeypatch.setattr(check, "MAX_LISTED", 2)
    folder = tmp_path / "x"
    write_encoded([(f"k{i}", {"meta.json": b"{}"}) for i in range(5)], folder)
    report = check_shards(folder)
    assert (len(report.problems), report.num_errors, report.num_bad_samples) == (2, 5, 5)
    assert str(report).endswith("and 3 more")


def test_a_folder_without_an_index_can_be_reindexed(copy):
    before = (copy / "index.json").read_bytes()
    (copy / "index.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no index.json in"):
        check_shards(copy)
    reindex(copy)
    assert (copy / "index.json").read_bytes() == before


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


def test_a_report_counts_one_thing_as_one():
    report = CheckReport("x", num_shards=1, num_samples=1, num_errors=1, num_bad_samples=1)
    first = str(report).splitlines()[0]
    assert first == "x: 1 sample with 0 objects and 0 frames in 1 shard (0.0 MB): 1 error, 1 bad sample"
