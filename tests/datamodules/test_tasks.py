import dataclasses
from collections import Counter

import numpy as np
import pytest

from raccoon_datamodules import prompts
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.masks import boxes_of, mask_of_boxes
from raccoon_datamodules.members import MemberError
from raccoon_datamodules.order import draw
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.pixels import resize, resize_mask
from raccoon_datamodules.sample import encode
from raccoon_datamodules.tasks import (
    P2V_TASKS,
    V2P_TASKS,
    Choice,
    check_weights,
    choose,
    make_p2v,
    make_v2p,
    sample_frames,
)
from raccoon_datamodules.view import MemberView, MemoryView

EVEN = dict.fromkeys(V2P_TASKS + P2V_TASKS, 1.0)


def choice_of(task, sample, object_id="1"):
    weights = {task: 1.0}
    found = choose(encode(sample), weights, draw(0, 0, "task"))
    return dataclasses.replace(found, object_id=object_id if found.object_id else None)


def v2p(task, sample, **how):
    how = {"num_frames": 4, "size": (16, 16), "rng": draw(0, 0, "x"), **how}
    return make_v2p(MemoryView(sample), choice_of(task, sample), **how)


def p2v(task, sample, **how):
    how = {"num_frames": 4, "size": (16, 16), "rng": draw(0, 0, "x"), **how}
    return make_p2v(MemoryView(sample), choice_of(task, sample), **how)


def test_describe_shows_the_clip_and_asks_for_one_of_its_paragraphs(make_sample):
    sample = make_sample()
    answers = {v2p("describe", sample, rng=draw(0, i, "x")).answer for i in range(20)}
    assert answers == {str(sample.paragraph), str(sample.phrasings[0])}
    example = v2p("describe", sample)
    assert np.array_equal(example.frames, sample.video.frames)
    assert (example.instruction, example.key) == (prompts.DESCRIBE_ALL, sample.key)


def test_describe_object_asks_for_one_object(make_sample):
    sample = make_sample()
    example = v2p("describe_object", sample)
    assert example.answer == "Thing 1: The thing number 1 of sample 0."
    assert example.instruction == prompts.describe_object("Thing 1")
    assert np.array_equal(example.frames, sample.video.frames)


def test_layout_shows_the_clip_without_the_object_and_asks_for_its_boxes(make_sample):
    sample = make_sample()
    example = v2p("layout", sample)
    assert np.array_equal(example.frames, sample.objects[0].inpainted.frames)
    assert example.instruction == prompts.plan_layout(
        "Thing 1", num_frames=4, description="The thing number 1 of sample 0."
    )
    assert Layout.parse(example.answer) == (Layout("Thing 1", sample.objects[0].boxes), [])


def test_remove_is_as_the_paper_says(make_sample):
    sample = make_sample()
    example = p2v("remove", sample)
    assert np.array_equal(example.condition, sample.video.frames)
    assert np.array_equal(example.target, sample.objects[0].inpainted.frames)
    assert np.array_equal(example.edit_mask, sample.objects[0].mask)
    assert example.prompt == "inpainted background"


def test_add_is_as_the_paper_says(make_sample):
    sample = make_sample()
    mask = sample.objects[0].mask.copy()
    mask[1, 1, 2] = 0
    sample = dataclasses.replace(sample, objects=(dataclasses.replace(sample.objects[0], mask=mask),))
    example = p2v("add", sample)
    assert np.array_equal(example.condition, sample.objects[0].inpainted.frames)
    assert np.array_equal(example.target, sample.video.frames)
    assert np.array_equal(example.edit_mask, mask_of_boxes(boxes_of(mask), height=16, width=16))
    assert example.edit_mask[1, 1, 2] == 1
    assert example.prompt == "Thing 1: The thing number 1 of sample 0."


def test_change_is_as_the_paper_says(make_sample):
    sample = make_sample()
    example = p2v("change", sample)
    assert np.array_equal(example.condition, sample.video.frames)
    assert np.array_equal(example.target, sample.video.frames)
    assert np.array_equal(example.edit_mask, sample.objects[0].mask)
    assert example.prompt == "Thing 1: The thing number 1 of sample 0."


@pytest.mark.parametrize("task", V2P_TASKS + P2V_TASKS)
def test_a_task_reads_only_the_members_it_says(make_sample, task):
    sample = make_sample(num_objects=2, num_frames=9)
    choice = choose(encode(sample), {task: 1.0}, draw(0, 3, "task"))
    wanted = {suffix: data for suffix, data in encode(sample).items() if suffix in choice.wanted}
    make = make_v2p if task in V2P_TASKS else make_p2v
    examples = [
        make(view, choice, num_frames=4, size=(8, 24), rng=draw(0, 3, "x"))
        for view in (MemberView(wanted), MemoryView(sample))
    ]
    for field in dataclasses.fields(examples[0]):
        first, second = (getattr(example, field.name) for example in examples)
        assert np.array_equal(first, second)


def test_tasks_are_drawn_by_weight_and_objects_evenly(make_sample):
    data = encode(make_sample(num_objects=2))
    drawn = [choose(data, {"remove": 3.0, "describe": 1.0}, draw(0, i, "task")) for i in range(400)]
    counts = Counter(choice.task for choice in drawn)
    assert 0.68 < counts["remove"] / 400 < 0.82
    assert 0.4 < Counter(c.object_id for c in drawn if c.task == "remove")["1"] / counts["remove"] < 0.6


def test_a_task_that_a_sample_cannot_serve_is_not_drawn(make_sample):
    data = encode(make_sample(num_objects=2))
    del data["inpainted-1.mp4"], data["inpainted-2.mp4"]
    assert {choose(data, EVEN, draw(0, i, "task")).task for i in range(60)} == {"describe", "describe_object", "change"}


def test_an_object_that_cannot_serve_a_task_is_not_drawn(make_sample):
    data = encode(make_sample(num_objects=2))
    del data["inpainted-2.mp4"]
    assert {choose(data, {"remove": 1.0}, draw(0, i, "task")).object_id for i in range(20)} == {"1"}


def test_a_sample_that_serves_no_task_is_refused(make_sample):
    with pytest.raises(MemberError, match="none of the tasks remove can be made from"):
        choose(encode(make_sample(num_objects=0)), {"remove": 1.0}, draw(0, 0, "task"))


def test_an_object_task_without_an_object_is_refused(make_sample):
    with pytest.raises(ValueError, match="task remove is about an object, and none was chosen"):
        make_p2v(
            MemoryView(make_sample()),
            Choice("remove", None, frozenset()),
            num_frames=4,
            size=(16, 16),
            rng=draw(0, 0, "x"),
        )


def test_weights_come_in_one_order_without_zeros():
    assert list(check_weights({"add": 1, "remove": 2, "change": 0}, P2V_TASKS).items()) == [
        ("remove", 2.0),
        ("add", 1.0),
    ]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"explode": 1.0}, "unknown task 'explode'; the tasks are remove, add, change"),
        ({"add": -1.0}, "task weights must be >= 0"),
        ({"add": float("nan")}, "task weights must be >= 0"),
        ({"add": 0.0}, "one of them positive"),
        ({}, "one of them positive"),
    ],
)
def test_weights_that_make_no_sense_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        check_weights(weights, P2V_TASKS)


def test_uniform_frames_are_those_of_the_layouts():
    assert sample_frames(10, 4) == [0, 2, 5, 7]


def test_a_short_clip_repeats_its_last_frame():
    assert sample_frames(3, 5) == [0, 1, 2, 2, 2]
    assert sample_frames(3, 5, sampling="segments") == [0, 1, 2, 2, 2]


def test_segments_draw_one_frame_each():
    drawn = np.array([sample_frames(100, 4, sampling="segments", rng=draw(0, i, "x")) for i in range(200)])
    assert (drawn // 25 == np.arange(4)).all()
    assert len(np.unique(drawn)) > 90


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ((0, 4), "frames are counted from 1"),
        ((4, 0), "frames are counted from 1"),
        ((9, 4, "random"), "frame sampling must be 'uniform' or 'segments', got 'random'"),
        ((9, 4, "segments"), "draws at random and needs rng"),
    ],
)
def test_frames_that_cannot_be_sampled_are_refused(how, message):
    count, wanted, *rest = how
    with pytest.raises(ValueError, match=message):
        sample_frames(count, wanted, sampling=rest[0] if rest else "uniform")


def test_a_repeated_frame_is_decoded_once_and_shown_twice(make_sample):
    example = p2v("remove", make_sample(), num_frames=6)
    assert np.array_equal(example.condition[3], example.condition[5])
    assert len(example.condition) == len(example.edit_mask) == 6


def test_an_object_that_is_seen_only_between_the_frames_is_shown(make_sample):
    sample = make_sample(num_frames=12)
    mask = np.zeros((12, 16, 16), np.uint8)
    mask[7, 3:6, 3:6] = 1
    record = dataclasses.replace(sample.objects[0], mask=mask, boxes=boxes_of(mask))
    example = p2v("remove", dataclasses.replace(sample, objects=(record,)), num_frames=3, sampling="uniform")
    assert example.edit_mask.any(axis=(1, 2)).tolist() == [False, True, False]
    assert np.array_equal(example.condition, sample.video.frames[[0, 7, 8]])


def test_an_object_that_is_never_seen_is_a_bad_sample(make_sample):
    sample = make_sample()
    mask = np.zeros_like(sample.objects[0].mask)
    record = dataclasses.replace(sample.objects[0], mask=mask, boxes=boxes_of(mask))
    with pytest.raises(MemberError, match=r"object-1.json: the object is in no frame of the clip"):
        p2v("add", dataclasses.replace(sample, objects=(record,)))


def undescribed(sample):
    record = dataclasses.replace(sample.objects[0], description="")
    paragraph = Paragraph("", (ObjectDescription(record.name, ""),))
    return dataclasses.replace(sample, paragraph=paragraph, phrasings=(), objects=(record,), edits=())


@pytest.mark.parametrize("task", ["describe", "describe_object", "add", "change"])
def test_words_that_nobody_has_written_are_not_learned(make_sample, task):
    make = v2p if task in V2P_TASKS else p2v
    with pytest.raises(MemberError, match=r"has no description; write it with `raccoon vplm annotate`"):
        make(task, undescribed(make_sample()))


def test_what_needs_no_words_is_learned_before_anybody_has_written_any(make_sample):
    sample = undescribed(make_sample())
    assert v2p("layout", sample).answer == v2p("layout", make_sample()).answer
    assert p2v("remove", sample).prompt == prompts.paint_prompt("remove")


def test_frames_are_resized_by_area_when_they_shrink():
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    frames[:, ::2] = 200
    assert (resize(frames, (2, 2)) == 100).all()
    assert resize(frames, (8, 6)).shape == (2, 8, 6, 3)
    assert resize(frames, (4, 4)) is frames


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 4), (16, 16), (40, 33)])
def test_a_resized_mask_holds_every_pixel_that_was_touched(size):
    rng = np.random.default_rng(0)
    mask = (rng.random((3, 11, 13)) < 0.1).astype(np.uint8)
    slow = np.zeros((3, *size), np.uint8)
    for f, y, x in zip(*np.nonzero(mask), strict=True):
        rows = [i for i in range(size[0]) if i * 11 < (y + 1) * size[0] and y * size[0] < (i + 1) * 11]
        columns = [j for j in range(size[1]) if j * 13 < (x + 1) * size[1] and x * size[1] < (j + 1) * 13]
        slow[f][np.ix_(rows, columns)] = 1
    found = resize_mask(mask, size)
    assert found.dtype == np.uint8
    assert np.array_equal(found, slow)


def test_a_single_pixel_never_vanishes():
    mask = np.zeros((1, 720, 1280), np.uint8)
    mask[0, 355, 641] = 1
    assert resize_mask(mask, (32, 32)).sum() == 1
