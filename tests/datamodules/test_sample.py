import dataclasses
import io
import json
import pickle
import zipfile

import numpy as np
import pytest

from raccoon_datamodules import members
from raccoon_datamodules.members import MemberError
from raccoon_datamodules.sample import EditPrompt, decode, encode
from raccoon_datamodules.video import Video


def changed(data: dict[str, bytes], suffix: str, **values) -> dict[str, bytes]:
    record = json.loads(data[suffix])
    return {**data, suffix: json.dumps({**record, **values}).encode()}


def test_a_sample_comes_back_as_it_was(make_sample):
    sample = make_sample(3, num_objects=2)
    back = decode(encode(sample))
    assert (back.key, back.paragraph, back.phrasings) == (sample.key, sample.paragraph, sample.phrasings)
    assert back.edits == sample.edits
    assert back.meta == sample.meta
    assert np.array_equal(back.video.frames, sample.video.frames)
    assert [record.id for record in back.objects] == ["1", "2"]
    for mine, theirs in zip(back.objects, sample.objects, strict=True):
        assert (mine.name, mine.category, mine.description) == (theirs.name, theirs.category, theirs.description)
        assert mine.attributes == theirs.attributes
        assert np.array_equal(mine.mask, theirs.mask)
        assert np.array_equal(mine.boxes, theirs.boxes, equal_nan=True)
        assert mine.boxes.dtype == np.float32
        assert np.array_equal(mine.inpainted.frames, theirs.inpainted.frames)


def test_the_same_sample_gives_the_same_bytes(make_sample):
    assert encode(make_sample(5)) == encode(make_sample(5))


def test_encoding_what_was_decoded_gives_the_same_bytes(make_sample):
    data = encode(make_sample(5))
    assert encode(decode(data)) == data


def test_members_are_named_as_the_format_says(make_sample):
    expected = [
        "meta.json",
        "paragraph.json",
        "edits.json",
        "video.mp4",
        "object-1.json",
        "mask-1.npz",
        "inpainted-1.mp4",
    ]
    assert list(encode(make_sample())) == expected


def test_uneven_presentation_times_are_kept_exactly(make_sample):
    sample = make_sample()
    times = np.array([0.0, 0.1, 0.35, 1 / 3 + 0.5])
    video = Video.from_frames(sample.video.frames, 24000 / 1001, timestamps=times)
    back = decode(encode(dataclasses.replace(sample, video=video)))
    assert np.array_equal(back.video.timestamps, times)
    assert back.video.fps == 24000 / 1001


def test_even_presentation_times_take_no_room(make_sample):
    assert json.loads(encode(make_sample())["meta.json"])["timestamps"] is None


def test_random_boxes_come_back_bit_for_bit(make_sample):
    sample = make_sample()
    boxes = np.random.default_rng(0).random((4, 4), dtype=np.float32)
    record = dataclasses.replace(sample.objects[0], boxes=boxes)
    back = decode(encode(dataclasses.replace(sample, objects=(record,))))
    assert np.array_equal(back.objects[0].boxes, boxes)


def test_chosen_frames_are_cut_from_everything(make_sample):
    sample = make_sample()
    back = decode(encode(sample), frame_indices=[1, 3])
    assert np.array_equal(back.video.frames, sample.video.frames[[1, 3]])
    assert np.array_equal(back.video.timestamps, sample.video.timestamps[[1, 3]])
    assert np.array_equal(back.objects[0].mask, sample.objects[0].mask[[1, 3]])
    assert back.objects[0].boxes.shape == (2, 4)
    assert back.objects[0].inpainted.num_frames == 2


@pytest.mark.parametrize("frames", [[4], [-1], [2, 1], [1, 1]])
def test_frame_numbers_that_do_not_rise_within_the_clip_are_refused(make_sample, frames):
    with pytest.raises(ValueError, match=r"frame numbers must rise and be in \[0, 4\)"):
        decode(encode(make_sample()), frame_indices=frames)


def test_only_the_objects_asked_for_are_decoded(make_sample):
    data = encode(make_sample(num_objects=2))
    del data["mask-1.npz"]
    assert [record.id for record in decode(data, objects=["2"]).objects] == ["2"]


def test_an_object_without_an_inpainted_clip_stays_without(make_sample):
    data = encode(make_sample())
    del data["inpainted-1.mp4"]
    assert decode(data).objects[0].inpainted is None


def test_an_unknown_member_is_ignored(make_sample):
    data = {**encode(make_sample()), "latents.safetensors": b"anything"}
    assert decode(data).key == "clip-0000"


def test_suffixes_lower_cased_by_webdataset_are_found(make_sample):
    sample = make_sample()
    sample = dataclasses.replace(sample, objects=(dataclasses.replace(sample.objects[0], id="Dog"),), edits=())
    data = {suffix.lower(): value for suffix, value in encode(sample).items()}
    assert decode(data).objects[0].id == "Dog"


@pytest.mark.parametrize(
    "suffix", ["meta.json", "paragraph.json", "edits.json", "video.mp4", "object-1.json", "mask-1.npz"]
)
def test_a_missing_member_is_named(make_sample, suffix):
    data = encode(make_sample())
    del data[suffix]
    with pytest.raises(MemberError, match=f"{suffix}: is missing"):
        decode(data)


def test_another_schema_is_refused_with_both_numbers(make_sample):
    with pytest.raises(MemberError, match="schema must be 1, got 2; another version of raccoon wrote it"):
        decode(changed(encode(make_sample()), "meta.json", schema=2))


def test_absurd_sizes_are_refused_before_memory_is_asked_for(make_sample):
    with pytest.raises(MemberError, match=r"at most 262144 frames, .* got 10\^15 or more frames of 16x16"):
        decode(changed(encode(make_sample()), "meta.json", num_frames=10**15))
    with pytest.raises(MemberError, match="num_frames, height and width must be positive, got 4 frames of 16x0"):
        decode(changed(encode(make_sample()), "meta.json", height=0))
    with pytest.raises(MemberError, match="fps must be positive and sane, got 0"):
        decode(changed(encode(make_sample()), "meta.json", fps=0))


@pytest.mark.parametrize("times", [[0, 1, 1, 2], [0, 1, 2, float("nan")]], ids=["standing", "nan"])
def test_times_that_do_not_rise_are_refused(make_sample, times):
    with pytest.raises(MemberError, match="finite and strictly increasing"):
        decode(changed(encode(make_sample()), "meta.json", timestamps=times))


def test_too_few_times_are_refused(make_sample):
    with pytest.raises(MemberError, match=r"one value a frame \(4\), got 1"):
        decode(changed(encode(make_sample()), "meta.json", timestamps=[0.0]))


def test_a_clip_of_another_length_than_the_record_says_is_refused(make_sample):
    longer = encode(make_sample(num_frames=5))["video.mp4"]
    with pytest.raises(MemberError, match="the clip must have 4 frames, it announces 5"):
        decode({**encode(make_sample()), "video.mp4": longer})


@pytest.mark.parametrize("broken", [b"", b"no video at all", None], ids=["empty", "text", "truncated"])
def test_a_broken_clip_is_named(make_sample, broken):
    data = encode(make_sample())
    data["video.mp4"] = data["video.mp4"][:200] if broken is None else broken
    with pytest.raises(MemberError, match=r"video.mp4: cannot be decoded"):
        decode(data)


def test_a_pickle_inside_an_npz_is_refused_and_never_run(make_sample, tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    raw = io.BytesIO()
    np.save(raw, np.array([Evil()], dtype=object), allow_pickle=True)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("bits.npy", raw.getvalue())
        out.writestr("shape.npy", pickle.dumps(Evil()))
    with pytest.raises(MemberError, match=r"mask-1.npz: must be a bit-packed npz without pickles"):
        decode({**encode(make_sample()), "mask-1.npz": archive.getvalue()})
    assert not (tmp_path / "ran").exists()


def test_an_npz_that_unpacks_to_too_much_is_refused(make_sample):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("bits.npy", b"\0" * 100_000)
    with pytest.raises(MemberError, match=r"bits.npy unpacks to 100000 bytes, at most \d+ expected"):
        decode({**encode(make_sample()), "mask-1.npz": archive.getvalue()})


@pytest.mark.parametrize("place", [40, -30])
def test_a_flipped_byte_in_a_mask_is_noticed(make_sample, place):
    data = encode(make_sample())
    mask = bytearray(data["mask-1.npz"])
    mask[place] ^= 0xFF
    with pytest.raises(MemberError, match=r"mask-1.npz"):
        decode({**data, "mask-1.npz": bytes(mask)})


def test_a_mask_of_another_size_is_refused(make_sample):
    other = members.dump_mask(np.zeros((4, 8, 16), dtype=np.uint8))
    with pytest.raises(MemberError, match=r"mask must be \[F, H, W\] like the video's \[4, 16, 16\], got \[4, 8, 16\]"):
        decode({**encode(make_sample()), "mask-1.npz": other})


@pytest.mark.parametrize("suffix", ["meta.json", "paragraph.json", "edits.json", "object-1.json"])
@pytest.mark.parametrize("junk", [b"{", b"\xff\xfe", b"[]", b"3", b"null", b'{"a":' * 5000])
def test_junk_in_a_record_is_a_member_error(make_sample, suffix, junk):
    if (suffix, junk) == ("edits.json", b"[]"):
        pytest.skip("no edits is a valid record")
    with pytest.raises(MemberError, match=suffix):
        decode({**encode(make_sample()), suffix: junk})


def test_boxes_of_another_length_are_refused(make_sample):
    with pytest.raises(MemberError, match=r"object-1.json: boxes must be \[4, 4\] and area \[4\]"):
        decode(changed(encode(make_sample()), "object-1.json", boxes=[None]))


def test_a_record_of_another_object_is_refused(make_sample):
    with pytest.raises(MemberError, match="must hold the record of object 1, holds that of 7"):
        decode(changed(encode(make_sample()), "object-1.json", id="7"))


def test_an_edit_of_an_unknown_kind_is_refused(make_sample):
    data = encode(make_sample())
    edits = json.loads(data["edits.json"])
    edits[0]["kind"] = "explode"
    with pytest.raises(MemberError, match="kind must be remove, add or change, got 'explode'"):
        decode({**data, "edits.json": json.dumps(edits).encode()})


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "ä", "x" * 121, "a b", "a\n"])
def test_a_key_that_would_break_webdataset_is_refused(make_sample, key):
    with pytest.raises(ValueError, match="a sample key must match"):
        encode(dataclasses.replace(make_sample(), key=key))


def test_object_ids_that_differ_only_by_case_are_refused(make_sample):
    sample = make_sample(num_objects=2)
    first, second = sample.objects
    records = (dataclasses.replace(first, id="dog"), dataclasses.replace(second, id="Dog"))
    with pytest.raises(ValueError, match="unique regardless of case, got dog, Dog"):
        encode(dataclasses.replace(sample, objects=records, edits=()))


def test_an_object_id_with_a_dot_is_refused(make_sample):
    sample = make_sample()
    with pytest.raises(ValueError, match="an object id must match"):
        encode(dataclasses.replace(sample, objects=(dataclasses.replace(sample.objects[0], id="a.b"),), edits=()))


def test_every_fault_of_a_sample_is_named_at_once(make_sample):
    sample = make_sample()
    small = Video.from_frames(sample.video.frames[:2], 8.0)
    record = dataclasses.replace(
        sample.objects[0], mask=sample.objects[0].mask * 255, boxes=np.zeros((1, 4), np.float32), inpainted=small
    )
    stray = EditPrompt("remove", "9", "Remove it.", sample.paragraph, sample.paragraph)
    with pytest.raises(ValueError, match="cannot be stored") as caught:
        encode(dataclasses.replace(sample, objects=(record,), edits=(stray,)))
    message = str(caught.value)
    assert "the mask of object 1 must be uint8 {0, 1} [4, 16, 16]" in message
    assert "the boxes of object 1 must be [4, 4], got [1, 4]" in message
    assert "the inpainted clip of object 1 must be [4, 16, 16]" in message
    assert "an edit names object 9, which is not there" in message


def test_meta_that_is_not_json_is_refused(make_sample):
    with pytest.raises(TypeError, match=r"meta.json must hold plain JSON values"):
        encode(dataclasses.replace(make_sample(), meta={"seed": np.int64(3)}))


def test_a_nan_in_meta_is_refused(make_sample):
    with pytest.raises(TypeError, match=r"meta.json must hold plain JSON values"):
        encode(dataclasses.replace(make_sample(), meta={"score": float("nan")}))


def test_a_member_error_survives_the_way_out_of_a_worker():
    error = pickle.loads(pickle.dumps(MemberError("mask-1.npz", "is missing")))
    assert (error.member, error.reason, str(error)) == ("mask-1.npz", "is missing", "mask-1.npz: is missing")


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [
        ("video.mp4", ("video", None)),
        ("mask-a_b-3.npz", ("mask", "a_b-3")),
        ("inpainted-1.mp4", ("inpainted", "1")),
        ("object-1.json", ("object", "1")),
        ("mask-1.mp4", None),
        ("mask-.npz", None),
        ("video.mov", None),
        ("latents.safetensors", None),
    ],
)
def test_suffixes_are_read_by_our_own_table(suffix, expected):
    assert members.parse_suffix(suffix) == expected


@pytest.mark.parametrize("name", ["folder/a.video.mp4", "novideo", "a.", "a b.mp4", "a.b/c"])
def test_a_member_name_that_is_no_key_and_suffix_is_refused(name):
    with pytest.raises(ValueError, match=r"a shard's members are named|a sample key must match"):
        members.split_name(name)


def test_the_key_ends_at_the_first_dot():
    assert members.split_name("./a-1.video.mp4") == ("a-1", "video.mp4")


def test_whatever_is_damaged_the_error_names_a_member(make_sample):
    rng = np.random.default_rng(0)
    whole = encode(make_sample(num_objects=2))
    num_named = 0
    for _ in range(250):
        data = dict(whole)
        suffix = list(whole)[rng.integers(len(whole))]
        content = bytearray(whole[suffix])
        kind = rng.integers(4)
        if kind == 0:
            content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del content[rng.integers(len(content)) :]
        elif kind == 2:
            start = rng.integers(len(content))
            content[start : start + 40] = bytes(40)
        else:
            content = bytearray(whole[list(whole)[rng.integers(len(whole))]])
        data[suffix] = bytes(content)
        try:
            decode(data)
        except MemberError:
            num_named += 1
    # Some damage is harmless or lands in pixels, which only the checksum of the index sees.
    assert num_named > 100
