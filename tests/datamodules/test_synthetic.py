"""Scenes of the procedural VPLM: seeds, promises of the difficulties, edited scenes."""

import hashlib
import json
import subprocess
import sys
from itertools import product

import numpy as np
import pytest

from raccoon_datamodules.sample import VplmSample
from raccoon_datamodules.synthetic import DIFFICULTIES, contact_sheet, make_sample, make_scene, render_edit, seed_of
from raccoon_datamodules.synthetic.background import MEAN_COLOURS
from raccoon_datamodules.synthetic.edits import has_contrast
from raccoon_datamodules.synthetic.motion import Course
from raccoon_datamodules.synthetic.scene import Scene, SceneObject
from raccoon_datamodules.synthetic.vocabulary import (
    CATEGORIES,
    COLOURS,
    MOTIONS,
    PATTERNS,
    SIZES,
    colour_distance,
    lab,
)

LEVELS = tuple(DIFFICULTIES)


def object_of(
    category: str, *, colour: str = "red", pattern: str = "plain", size: str = "large", motion: str = "still"
) -> SceneObject:
    course = Course(motion, (0.1, -0.2), 1, 1, 0.3)
    return SceneObject("object0", category, colour, pattern, size, (0.12, 0.16, 0.2)[SIZES.index(size)], course)


def fingerprint(sample: VplmSample) -> str:
    digest = hashlib.sha256(sample.video.frames.tobytes())
    for record in sample.objects:
        digest.update(record.mask.tobytes())
        digest.update(record.inpainted.frames.tobytes())
        digest.update(record.description.encode())
    digest.update(str(sample.paragraph).encode())
    return digest.hexdigest()


def test_the_world_has_the_promised_variety():
    assert len(set(CATEGORIES)) >= 12
    assert len(COLOURS) >= 10
    assert len(set(PATTERNS)) >= 4
    assert len(set(SIZES)) == 3
    assert len(set(MOTIONS)) >= 8
    easy = DIFFICULTIES["easy"]
    assert (len(easy.categories), len(easy.colours)) == (6, 6)


@pytest.mark.parametrize("difficulty", LEVELS)
def test_the_same_seed_gives_the_same_sample(difficulty):
    first, second = make_sample(7, difficulty), make_sample(7, difficulty)
    assert fingerprint(first) == fingerprint(second)
    assert first.paragraph == second.paragraph
    assert first.phrasings == second.phrasings
    assert first.edits == second.edits


def test_a_seed_gives_the_same_sample_in_another_process():
    code = (
        "import hashlib; from raccoon_datamodules.synthetic import make_sample; s = make_sample(5, 'medium');"
        "print(hashlib.sha256(s.video.frames.tobytes() + str(s.paragraph).encode()).hexdigest())"
    )
    sample = make_sample(5, "medium")
    here = hashlib.sha256(sample.video.frames.tobytes() + str(sample.paragraph).encode()).hexdigest()
    environment = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "123"}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert there.stdout.strip() == here


@pytest.mark.parametrize("difficulty", LEVELS)
def test_different_seeds_give_different_clips(difficulty):
    clips = {make_sample(seed, difficulty, inpainted=False).video.frames.tobytes() for seed in range(12)}
    assert len(clips) == 12


def test_a_difficulty_has_its_own_scenes():
    assert len({make_scene(3, difficulty).objects for difficulty in LEVELS}) == 3


def test_scenes_show_one_to_three_objects():
    for difficulty in LEVELS:
        counts = [len(make_scene(seed, difficulty).objects) for seed in range(60)]
        assert set(counts) == {1, 2, 3}


def test_every_motion_camera_background_and_foreground_of_a_difficulty_is_shown():
    for difficulty, level in DIFFICULTIES.items():
        scenes = [make_scene(seed, difficulty) for seed in range(250)]
        objects = [obj for scene in scenes for obj in scene.objects]
        assert {obj.course.kind for obj in objects} == set(level.motions)
        assert {obj.category for obj in objects} == set(level.categories)
        assert {obj.colour for obj in objects} == set(level.colours)
        assert {obj.pattern for obj in objects} == set(level.patterns)
        assert {obj.size for obj in objects} == set(SIZES)
        assert {scene.background for scene in scenes} == set(level.backgrounds)
        assert {scene.camera for scene in scenes} == set(level.cameras)
        assert {scene.prop for scene in scenes} == set(level.props)


def test_an_easy_object_covers_three_percent_of_every_frame():
    for seed in range(120):
        drawn = make_scene(seed).rasterise(inpainted=False)
        assert drawn.masks.mean((2, 3)).min() >= 0.03, seed


def test_easy_objects_of_a_scene_differ_in_category_and_colour():
    for seed in range(120):
        objects = make_scene(seed).objects
        assert len({obj.category for obj in objects}) == len({obj.colour for obj in objects}) == len(objects)


def test_easy_colours_are_far_apart():
    colours = [COLOURS[name] for name in DIFFICULTIES["easy"].colours]
    distances = [colour_distance(a, b) for i, a in enumerate(colours) for b in colours[:i]]
    assert min(distances) > 50


def test_objects_stand_out_from_their_background():
    for difficulty, level in DIFFICULTIES.items():
        for seed in range(60):
            scene = make_scene(seed, difficulty)
            assert all(has_contrast(obj.colour, scene.background, level) for obj in scene.objects)


@pytest.mark.parametrize("difficulty", LEVELS)
def test_every_background_leaves_four_colours(difficulty):
    level = DIFFICULTIES[difficulty]
    for background in level.backgrounds:
        assert background in MEAN_COLOURS
        assert sum(has_contrast(colour, background, level) for colour in level.colours) >= 4, background


def test_lab_knows_white_black_and_red():
    assert lab((255, 255, 255)) == pytest.approx((100, 0, 0), abs=0.02)
    assert lab((0, 0, 0)) == pytest.approx((0, 0, 0), abs=0.02)
    assert lab((255, 0, 0)) == pytest.approx((53.24, 80.09, 67.2), abs=0.05)


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_look_of_a_category_is_drawn(category):
    looks = set()
    for pattern, colour in product(PATTERNS, COLOURS):
        scene = Scene(1, "hard", (object_of(category, pattern=pattern, colour=colour),), "mint")
        drawn = scene.rasterise(num_frames=1, size=(32, 32), inpainted=False)
        assert drawn.masks.any()
        looks.add(drawn.frames.tobytes())
    assert len(looks) == len(PATTERNS) * len(COLOURS)


@pytest.mark.parametrize("motion", MOTIONS)
def test_every_motion_is_drawn_for_every_size_and_moves_unless_still(motion):
    for size in SIZES:
        scene = Scene(1, "easy", (object_of("box", size=size, motion=motion),), "mint")
        drawn = scene.rasterise(num_frames=6, inpainted=False)
        assert drawn.masks.any((2, 3)).all()
        assert (drawn.frames != drawn.frames[:1]).any() == (motion != "still")


def test_whatever_is_said_to_spin_can_be_seen_to_spin():
    for difficulty in LEVELS:
        for seed in range(150):
            scene = make_scene(seed, difficulty)
            afters = [scene, *(edit.after for edit in scene.edits())] if seed < 40 else [scene]
            spinning = [obj for after in afters for obj in after.objects if obj.course.kind == "spin"]
            assert not any(obj.category == "ball" and obj.pattern == "plain" for obj in spinning)


def test_an_object_that_comes_late_has_no_box_before():
    late = [
        (seed, i)
        for seed in range(40)
        for i, obj in enumerate(make_scene(seed, "medium").objects)
        if obj.course.enters_at > 0.3
    ]
    assert late
    for seed, i in late[:5]:
        record = make_sample(seed, "medium", inpainted=False).objects[i]
        assert np.isnan(record.boxes[:2]).all()
        assert not record.mask[:2].any()
        assert np.isfinite(record.boxes).all(1).any()
        assert record.attributes["enters_at"] > 0.3


def test_an_object_that_leaves_has_no_box_at_the_end():
    leaving = [
        (seed, i)
        for seed in range(60)
        for i, obj in enumerate(make_scene(seed, "medium").objects)
        if obj.course.leaves_at < 0.8
    ]
    assert leaving
    for seed, i in leaving[:5]:
        assert np.isnan(make_sample(seed, "medium", inpainted=False).objects[i].boxes[-1]).all()


def test_a_sample_is_plain_json_outside_its_arrays():
    sample = make_sample(seed_of("val", 3), "hard")
    assert json.loads(json.dumps(sample.meta)) == sample.meta
    assert sample.meta["seed"] == 1_000_000_003
    assert sample.key == "synth-hard-1000000003"
    for record in sample.objects:
        assert json.loads(json.dumps(record.attributes)) == record.attributes
        assert {"category", "colour", "pattern", "size", "motion", "enters_at"} <= set(record.attributes)


def test_splits_do_not_share_seeds():
    assert [seed_of(split, 5) for split in ("train", "val", "test")] == [5, 1_000_000_005, 2_000_000_005]


def test_a_scene_without_an_object_keeps_everything_else():
    scene = make_scene(2, "hard", num_objects=3)
    rest = scene.without(1)
    assert rest.objects == (scene.objects[0], scene.objects[2])
    assert (rest.background, rest.camera, rest.seed, rest.prop) == (
        scene.background,
        scene.camera,
        scene.seed,
        scene.prop,
    )


def test_a_changed_object_keeps_place_and_motion():
    scene = make_scene(4)
    changed = scene.with_object(0, category="heart", colour="purple", pattern="striped")
    assert changed.objects[0].name == "Purple Heart"
    assert changed.objects[0].course == scene.objects[0].course
    assert changed.objects[1:] == scene.objects[1:]


def test_the_true_result_of_each_edit_is_drawn():
    scene = make_scene(1, "easy")
    sample = scene.render()
    whole = sample.video.frames
    kinds = set()
    for edit in scene.edits():
        result = render_edit(scene, edit)
        assert np.array_equal(result, render_edit(scene, edit.prompt))
        number = [record.id for record in sample.objects].index(edit.object_id)
        if edit.kind == "remove":
            assert np.array_equal(result, sample.objects[number].inpainted.frames)
        elif edit.kind == "add":
            assert np.array_equal(result, whole)
        else:
            assert (result != whole).any()
        kinds.add((edit.kind, edit.attribute))
    changes = {("change", "colour"), ("change", "pattern"), ("change", "category")}
    assert kinds == {("remove", None), ("add", None)} | changes


def test_an_edit_of_another_scene_is_refused():
    foreign = make_scene(2).edits()[0].prompt
    with pytest.raises(ValueError, match=r"must be one of the .* of scene synth-easy-000001"):
        render_edit(make_scene(1), foreign)


def test_a_sample_can_leave_the_inpainted_clips_out():
    assert all(record.inpainted is None for record in make_sample(0, inpainted=False).objects)


def test_a_contact_sheet_shows_rows_of_frames():
    samples = [make_sample(seed, inpainted=False) for seed in range(2)]
    sheet = contact_sheet(samples, frames=3, zoom=2)
    assert sheet.shape == (2 * 132, 3 * 132, 3)
    assert (sheet != contact_sheet(samples, frames=3, zoom=2, outlined=False)).any()
    with pytest.raises(ValueError, match="at least one sample"):
        contact_sheet([])


def test_an_unknown_difficulty_is_named():
    with pytest.raises(ValueError, match="easy, medium, hard, got 'brutal'"):
        make_scene(0, "brutal")


@pytest.mark.parametrize(("number", "message"), [(0, "1, 2 or 3, got 0"), (4, "1, 2 or 3, got 4")])
def test_a_number_of_objects_that_cannot_be_is_refused(number, message):
    with pytest.raises(ValueError, match=message):
        make_scene(0, num_objects=number)


def test_bad_seeds_and_splits_are_refused():
    with pytest.raises(ValueError, match="seed must be 0 or more, got -1"):
        make_scene(-1)
    with pytest.raises(ValueError, match="train, val, test, got 'dev'"):
        seed_of("dev", 0)
    with pytest.raises(ValueError, match="ordinal must be in"):
        seed_of("train", 1_000_000_000)


@pytest.mark.parametrize("size", [(8, 64), (64, 15)])
def test_a_size_too_small_to_draw_is_refused(size):
    with pytest.raises(ValueError, match="at least 16 pixels"):
        make_sample(0, size=size)


def test_bad_lengths_and_rates_are_refused():
    with pytest.raises(ValueError, match="num_frames must be at least 1, got 0"):
        make_sample(0, num_frames=0)
    with pytest.raises(ValueError, match="fps must be above 0, got 0"):
        make_sample(0, fps=0)


def test_a_change_to_an_unknown_word_or_a_taken_name_is_refused():
    scene = make_scene(0, num_objects=2)
    other = scene.objects[1]
    with pytest.raises(ValueError, match=r"colour must be one of .*, got 'mauve'"):
        scene.with_object(0, colour="mauve")
    with pytest.raises(ValueError, match="object names must differ"):
        scene.with_object(0, category=other.category, colour=other.colour)
    with pytest.raises(IndexError, match="2 objects, counted from 0; there is no object 2"):
        scene.without(2)


def test_easy_objects_are_whole_in_every_frame():
    for seed in range(80):
        masks = make_scene(seed).rasterise(inpainted=False).masks
        assert not masks[..., [0, -1]].any(), seed
        assert not masks[:, :, [0, -1]].any(), seed
