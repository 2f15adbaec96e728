import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from raccoon import editor as editing
from raccoon.editor import ContractBroken, Editor, EditorSettings, EditRequest, PartError, plan_of_words, write_result
from raccoon.editor import output as output_module
from raccoon.editor.paste import SoftMask
from raccoon.interfaces import Description
from raccoon.plan import Edit, EditPlan
from raccoon.testing import ConstantPainter, OracleGrounder, tiny_masks, tiny_video
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.masks import Masks, feather, grow
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.video import Video

SQUARE = ObjectDescription("Square", "A yellow square that moves to the right.")
BALL = ObjectDescription("Ball", "A red ball that lies on the ground.")
BEFORE = Paragraph("A square moves over noise.", (SQUARE,))
SETTINGS = EditorSettings(grow=2, feather=3)
BOX = np.full((4, 4), (0.6, 0.1, 0.9, 0.3), dtype=np.float32)


class Recorder(ConstantPainter):
    """Remembers what it was asked."""

    def __init__(self):
        super().__init__()
        self.requests = []

    def paint(self, request, /):
        self.requests.append(request)
        return super().paint(request)


class Wrong(ConstantPainter):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def paint(self, request, /):
        return self.answer(request.video.frames)


def removal(**changes):
    return EditRequest(
        **{"video": tiny_video(), "plan": plan_of_words(remove=["Square"])[0], "masks": tiny_masks(), **changes}
    )


def editor(painter=None, **parts):
    return Editor(painter or ConstantPainter(), settings=SETTINGS, **parts)


@pytest.fixture
def source(tmp_path):
    tiny_video(6).write(tmp_path / "clip.mkv", lossless=True)
    return tmp_path / "clip.mkv"


@pytest.fixture
def result(source):
    return editor_of_recipe().edit(removal(video=Video.read(source), masks=tiny_masks(6)))


def editor_of_recipe():
    config = {"editor": {"grow": 2, "feather": 3}, "painter": {"class_path": "raccoon.testing.ConstantPainter"}}
    return Editor.from_recipe(config)


# The contract


def test_outside_the_grown_and_feathered_mask_nothing_changes():
    result = editor().edit(removal())
    region = feather(grow(tiny_masks().data, 2), 3) > 0
    assert np.array_equal(result.region, region)
    assert np.array_equal(result.video.frames[~region], result.source.frames[~region])
    assert result.measurements.max_error_outside == 0


def test_inside_the_grown_mask_stands_what_was_painted():
    result = editor().edit(removal())
    assert (result.video.frames[grow(tiny_masks().data, 2) == 1] == (255, 0, 255)).all()


def test_between_them_the_two_are_blended():
    result = editor().edit(removal())
    alpha = feather(grow(tiny_masks().data, 2), 3)
    edge = (alpha > 0) & (alpha < 1)
    share = alpha[edge][:, None]
    expected = share * (255, 0, 255) + (1 - share) * result.source.frames[edge]
    assert edge.any()
    assert np.abs(result.video.frames[edge] - expected).max() <= 0.51


def test_the_clip_keeps_what_is_not_a_picture():
    result = editor().edit(removal())
    assert result.video.fps == result.source.fps
    assert np.array_equal(result.video.timestamps, result.source.timestamps)


def test_a_painter_that_writes_into_its_video_cannot_break_the_contract():
    def scribble(frames):
        frames[:] = 0
        return frames

    request = removal()
    kept = request.video.frames.copy()
    result = editor(Wrong(scribble)).edit(request)
    assert np.array_equal(request.video.frames, kept)
    assert np.array_equal(result.video.frames[result.region == 0], kept[result.region == 0])


def test_alpha_is_kept_in_parts_and_given_back_whole():
    mask = tiny_masks().data.copy()
    mask[1] = 0
    soft = SoftMask.of(mask, 2, 3)
    alpha = feather(grow(mask, 2), 3)
    assert np.array_equal(np.stack(list(soft.alpha())), alpha)
    assert np.array_equal(soft.touched, alpha > 0)


def test_what_a_painter_says_beforehand_is_noted():
    class Honest(ConstantPainter):
        def remarks(self, video, mask):
            return (f"{int(mask.sum())} pixels of {video.num_frames} frames will be one color",)

    prepared = editor(Honest()).prepare(removal())
    count = int(tiny_masks().data.sum())
    assert prepared.steps[0].notes[-1] == f"Square: {count} pixels of 4 frames will be one color"


def test_a_painter_that_fails_beforehand_is_named():
    class Broken(ConstantPainter):
        def remarks(self, video, mask):
            raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        editor(Broken()).prepare(removal())
    assert "was looking at 'Square'" in caught.value.__notes__[0]


def test_a_break_of_the_contract_fails_the_run(monkeypatch):
    monkeypatch.setattr("raccoon.editor.editor.paste_back", lambda source, painted, alpha: painted)
    with pytest.raises(ContractBroken, match="frames changed by up to 255 of 255 outside the mask, where 0 is allowed"):
        editor().edit(removal(video=Video.from_frames(np.zeros_like(tiny_video().frames), 8.0)))


def test_what_is_measured_is_what_happened():
    result = editor().edit(removal())
    changed = (result.video.frames != result.source.frames).any(-1)
    assert result.measurements.changed_fraction == pytest.approx(changed.mean())
    assert result.measurements.region_fraction == pytest.approx(result.region.mean())
    assert set(result.measurements.seconds) == {"prepare", "paint", "paste", "measure"}


@pytest.mark.parametrize(("size", "pixels"), [((480, 854), (10, 5)), ((854, 480), (10, 5)), ((64, 64), (1, 1))])
def test_growth_and_feather_follow_the_size_of_the_video(size, pixels):
    assert EditorSettings().pixels(size) == pixels


def test_growth_that_is_set_does_not_follow_the_size():
    assert EditorSettings(grow=0, feather=0).pixels((480, 854)) == (0, 0)


@pytest.mark.parametrize("name", ["grow", "feather"])
def test_negative_growth_is_refused(name):
    with pytest.raises(ValueError, match=rf"editor\.{name} must be a number of pixels >= 0.*got -1"):
        EditorSettings(**{name: -1})


# What is planned


def test_deleting_a_line_of_the_paragraph_removes_the_object():
    painter = Recorder()
    after = Paragraph(BEFORE.description, ())
    result = editor(painter).edit(EditRequest(video=tiny_video(), before=BEFORE, after=after, masks=tiny_masks()))
    assert [(edit.kind, edit.name) for edit in result.plan.edits] == [("remove", "Square")]
    assert painter.requests[0].prompt == "inpainted background"
    assert (result.before, result.after) == (BEFORE, after)


def test_a_change_is_painted_by_the_new_objects_line():
    painter = Recorder()
    after = Paragraph(BEFORE.description, (ObjectDescription("Square", "A blue square that moves to the right."),))
    editor(painter).edit(EditRequest(video=tiny_video(), before=BEFORE, after=after, masks=tiny_masks()))
    assert painter.requests[0].kind == "change"
    assert painter.requests[0].prompt == "Square: A blue square that moves to the right."


def test_the_painter_gets_the_grown_mask_the_seed_and_the_options():
    painter = Recorder()
    result = editor(painter).edit(removal(seed=5, size=(32, 32), options={"painter": {"steps": 3}}))
    asked = painter.requests[0]
    assert np.array_equal(asked.mask, result.region)
    assert (asked.seed, asked.size, dict(asked.options)) == (5, (32, 32), {"steps": 3})


def test_every_part_gets_its_own_options_and_no_others():
    seen = {}

    class Finder:
        def ground(self, request):
            seen["grounder"] = dict(request.options)
            return tiny_masks()

    class Teller:
        def describe(self, request):
            seen["describer"] = dict(request.options)
            return Description(BEFORE, str(BEFORE), {})

    options = {"grounder": {"threshold": 0.3}, "describer": {"seed": 4}}
    request = EditRequest(video=tiny_video(), after=Paragraph(BEFORE.description, ()), options=options)
    painter = Recorder()
    editor(painter, grounder=Finder(), describer=Teller()).edit(request)
    assert seen == options
    assert dict(painter.requests[0].options) == {}


@pytest.mark.parametrize("options", [{"steps": 3}, {"paintr": {"steps": 3}}, {"painter": 3}])
def test_options_that_belong_to_no_part_are_refused(options):
    with pytest.raises(ValueError, match=r"options are given by part \(painter, grounder, .*got '"):
        removal(options=options)


def test_the_describer_writes_the_paragraph_that_was_not_given():
    class Teller:
        def describe(self, request):
            return Description(BEFORE, str(BEFORE), {})

    request = EditRequest(video=tiny_video(), after=Paragraph(BEFORE.description, ()), masks=tiny_masks())
    result = editor(describer=Teller()).edit(request)
    assert result.before == BEFORE
    assert result.plan.edits[0].name == "Square"


def test_a_describer_that_returns_text_is_named():
    class Teller:
        def describe(self, request):
            return str(BEFORE)

    with pytest.raises(PartError, match=r"Teller\.describe must return a Description, got str"):
        editor(describer=Teller()).prepare(EditRequest(video=tiny_video(), after=BEFORE))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (EditRequest(video=tiny_video()), "there is nothing to edit by"),
        (EditRequest(video=tiny_video(), after=BEFORE), "this recipe has no describer"),
        (EditRequest(video=tiny_video(), before=BEFORE, after=BEFORE), "the plan has no edit: .*the same"),
        (
            EditRequest(video=tiny_video(), before=BEFORE, after=Paragraph("A square rests.", (SQUARE,))),
            "the plan has no edit: only the description",
        ),
    ],
)
def test_a_request_that_asks_for_nothing_is_refused(request_, message):
    with pytest.raises(ValueError, match=message):
        editor().prepare(request_)


def test_what_the_painter_cannot_do_is_refused_before_anything_is_computed():
    class Remover(ConstantPainter):
        kinds = frozenset({"remove"})

    plan, _ = plan_of_words(add=["Ball: A red ball."], change=["Square -> Circle"])
    message = r"Remover can remove, it cannot change 'Square' and add 'Ball'; choose a recipe whose painter can"
    with pytest.raises(ValueError, match=message):
        editor(Remover()).prepare(EditRequest(video=tiny_video(), plan=plan))


# Where the masks come from


def test_the_grounder_finds_a_mask_that_was_not_given():
    grounder = OracleGrounder({"Square": tiny_masks().data})
    prepared = editor(grounder=grounder).prepare(removal(masks=None))
    assert prepared.steps[0].mask_from == "grounder"
    assert np.array_equal(prepared.steps[0].mask, tiny_masks().data)


def test_a_grounder_that_finds_nothing_is_said_so():
    with pytest.raises(ValueError, match=r"OracleGrounder found no 'Square' in the video; name it otherwise or give"):
        editor(grounder=OracleGrounder({})).prepare(removal(masks=None))


def test_a_grounder_that_returns_something_else_is_named():
    class Blind:
        def ground(self, request):
            return Masks(np.ones((1, 4, 4), np.uint8))

    with pytest.raises(PartError, match=r"Blind\.ground must return Masks \[4, 48, 64\], got \[1, 4, 4\]"):
        editor(grounder=Blind()).prepare(removal(masks=None))


def addition(**changes):
    return EditRequest(video=tiny_video(), plan=EditPlan((Edit("add", "Ball", None, BALL),)), **changes)


def test_the_layout_planner_places_an_added_object():
    class Planner:
        def plan(self, request):
            return Layout(request.object.name, BOX)

    painter = Recorder()
    result = editor(painter, layout_planner=Planner()).edit(addition())
    assert result.steps[0].mask_from == "layout"
    assert painter.requests[0].layout == Layout("Ball", BOX)
    assert painter.requests[0].prompt == str(BALL)


def test_a_layout_in_the_plan_needs_no_planner():
    plan, _ = plan_of_words(add=[str(BALL)], layouts={"Ball": Layout("Ball", BOX)})
    step = editor().prepare(EditRequest(video=tiny_video(), plan=plan)).steps[0]
    assert step.mask_from == "layout"
    assert step.mask[0, 8, 50] == 1


def test_a_layout_of_another_length_is_refused():
    plan, _ = plan_of_words(add=[str(BALL)], layouts={"Ball": Layout("Ball", BOX[:2])})
    with pytest.raises(ValueError, match=r"the layout of 'Ball' must have a box for each of the 4 frames, got 2"):
        editor().prepare(EditRequest(video=tiny_video(), plan=plan))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "must return a Layout, got NoneType"),
        (Layout("Ball", BOX[:2]), r"must return boxes \[4, 4\], got \[2, 4\]"),
    ],
)
def test_a_layout_planner_that_returns_something_else_is_named(answer, message):
    class Planner:
        def plan(self, request):
            return answer

    with pytest.raises(PartError, match=rf"Planner\.plan {message}"):
        editor(layout_planner=Planner()).prepare(addition())


def test_two_masks_for_one_edit_are_refused():
    masks = {"Square": tiny_masks(), "square": tiny_masks()}
    with pytest.raises(ValueError, match="'Square' has two masks; unite them and give one"):
        editor().edit(removal(masks=masks))


def test_what_a_part_raises_carries_a_note_of_the_part_and_its_work():
    def fail(frames):
        raise KeyError("weights")

    with pytest.raises(KeyError) as caught:
        editor(Wrong(fail)).edit(removal())
    assert caught.value.__notes__ == [f"while {Wrong.__module__}.Wrong was painting 'Square'"]


def test_the_time_of_a_preparation_made_before_is_not_measured():
    request = removal()
    made = editor()
    result = made.edit(request, prepared=made.prepare(request))
    assert "prepare" not in result.measurements.seconds


def test_a_missing_mask_says_how_to_give_it():
    with pytest.raises(ValueError, match=r"no mask to remove 'Square' by.* no grounder .*--mask PATH"):
        editor().prepare(removal(masks=None))
    with pytest.raises(ValueError, match=r"no mask to add 'Ball' by.* no layout planner"):
        editor().prepare(addition())


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((4, 48, 64), np.uint8),
        np.ones((3, 48, 64), np.uint8),
        np.ones((4, 40, 64), np.uint8),
        1 - tiny_masks().data,
    ],
    ids=["empty", "count", "size", "inverted"],
)
def test_a_wrong_mask_is_refused_before_anything_is_painted(mask):
    painter = Recorder()
    with pytest.raises(ValueError, match="the mask of 'Square' cannot be used"):
        editor(painter).edit(removal(masks=Masks(mask)))
    assert not painter.requests


def test_a_strange_mask_is_used_and_noted():
    mask = tiny_masks().data.copy()
    mask[1] = 0
    result = editor().edit(removal(masks=Masks(mask)))
    assert any(note.startswith("Square: ") for note in result.notes)


@pytest.mark.parametrize(("hole", "noted"), [(2, False), (8, True)])
def test_a_hole_is_noted_only_if_growing_leaves_it(hole, noted):
    mask = tiny_masks().data.copy()
    mask[:, 18 : 18 + hole, 20 : 20 + hole] = 0
    assert any("hole" in note for note in editor().prepare(removal(masks=Masks(mask))).steps[0].notes) == noted


def two_edits():
    plan, _ = plan_of_words(remove=["Square"], add=[str(BALL)])
    return plan, Masks(np.roll(tiny_masks().data, 20, axis=1))


def test_one_mask_for_several_edits_is_refused():
    plan, _ = two_edits()
    with pytest.raises(ValueError, match=r"one mask cannot stand for 2 edits \('Square', 'Ball'\).*--mask NAME=PATH"):
        editor().prepare(removal(plan=plan))


def test_a_mask_for_nobody_is_refused():
    with pytest.raises(ValueError, match=r"the mask 'Cat' belongs to no edit; the edits are 'Square'"):
        editor().prepare(removal(masks={"Cat": tiny_masks()}))


def test_masks_are_found_by_name_regardless_of_case():
    step = editor().prepare(removal(masks={"sQuare": tiny_masks()}, mask_paths={"SQUARE": "masks"})).steps[0]
    assert step.mask_from == "given"
    assert step.mask_path == "masks"


def test_the_one_mask_of_the_only_edit_may_have_a_nameless_path():
    assert editor().prepare(removal(mask_paths={"": "masks"})).steps[0].mask_path == "masks"


def test_several_edits_are_applied_in_order_each_on_the_one_before():
    plan, other = two_edits()
    painter = Recorder()
    result = editor(painter).edit(removal(plan=plan, masks={"Square": tiny_masks(), "Ball": other}))
    first, second = painter.requests
    assert (first.kind, second.kind) == ("remove", "add")
    assert (second.video.frames[tiny_masks().data == 1] == (255, 0, 255)).all()
    assert np.array_equal(result.region, first.mask | second.mask)
    assert np.array_equal(result.video.frames[result.region == 0], result.source.frames[result.region == 0])


# What a painter may return


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda frames: None, r"Wrong\.paint must return a numpy array uint8 .*got NoneType"),
        (
            lambda frames: frames[:2],
            r"Wrong\.paint must return frames uint8 \[4, 48, 64, 3\], got uint8 \[2, 48, 64, 3\]",
        ),
        (lambda frames: frames / 255.0, r"got float64 \[4, 48, 64, 3\]$"),
        (lambda frames: np.full(frames.shape, np.nan), r"got float64 .* with values that are not finite"),
    ],
)
def test_a_painter_that_returns_something_else_is_named(answer, message):
    with pytest.raises(PartError, match=message):
        editor(Wrong(answer)).edit(removal())


def test_a_part_that_is_none_is_refused_when_the_editor_is_built():
    with pytest.raises(TypeError, match="object is no Painter"):
        Editor(object())


def test_a_recipe_without_a_painter_is_refused():
    with pytest.raises(ValueError, match="a pipeline recipe needs the section painter"):
        Editor.from_recipe({"editor": {"grow": 1}})


def test_progress_names_the_stage():
    class Slow(ConstantPainter):
        def paint(self, request, /):
            request.progress(1, 2)
            return super().paint(request)

    seen = []
    editor(Slow()).edit(removal(), progress=lambda *news: seen.append(news))
    assert seen == [("finding Square", 0, 1), ("painting Square", 1, 2)]


# Words


def test_words_without_a_paragraph_are_taken_as_they_are():
    plan, after = plan_of_words(remove=["Brown Dog"], change=["Cat -> Raccoon: A grey raccoon."], add=["Ball: Red."])
    assert [(edit.kind, edit.name) for edit in plan.edits] == [
        ("remove", "Brown Dog"),
        ("change", "Cat"),
        ("add", "Ball"),
    ]
    assert after is None


def test_words_with_a_paragraph_lead_to_the_paragraph_after():
    plan, after = plan_of_words(before=BEFORE, remove=["square"])
    assert plan.edits[0].before == SQUARE
    assert after == Paragraph(BEFORE.description, ())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({}, "there is nothing to edit"),
        ({"change": ["Dog: a cat"]}, "a change must be written 'Old name -> New name: description'"),
        ({"remove": ["Dog", "dog"]}, "unique regardless of case"),
        ({"before": BEFORE, "remove": ["Dog"]}, "no object 'Dog'"),
    ],
)
def test_words_that_make_no_plan_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        plan_of_words(**words)


# Writing, replaying, verifying


def test_a_written_result_keeps_its_source(result, tmp_path):
    report = write_result(result, tmp_path / "out.mkv", lossless=True)
    assert (report.max_error_outside, report.psnr_outside) == (0, None)
    assert (report.num_frames, report.height, report.width, report.has_sound) == (6, 48, 64, False)
    assert report.timestamps_error <= 0.002
    assert np.array_equal(Video.read(tmp_path / "out.mkv").frames, result.video.frames)


def test_a_lossy_file_reports_what_the_codec_costs(result, tmp_path):
    report = write_result(result, tmp_path / "out.mp4")
    assert report.max_error_outside > 0
    assert report.psnr_outside > 20


def test_the_sidecar_says_how_the_result_was_made(result, tmp_path):
    write_result(result, tmp_path / "out.mkv", lossless=True)
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["source"]["frame_indices"] == {"start": 0, "stop": 6, "step": 1}
    assert content["plan"]["edits"][0]["name"] == "Square"
    assert content["edits"][0]["mask_from"] == "given"
    assert content["parts"]["painter"]["class"] == "raccoon.testing.ConstantPainter"
    assert content["recipe"]["config"]["editor"] == {"grow": 2, "feather": 3}
    assert (content["grow"], content["feather"], content["seed"]) == (2, 3, 0)
    assert content["measurements"]["max_error_outside"] == 0


def test_the_sidecar_can_be_left_out(result, tmp_path):
    write_result(result, tmp_path / "out.mkv", sidecar=False)
    assert not (tmp_path / "out.json").exists()


def left(tmp_path):
    return {path.name for path in tmp_path.iterdir()} - {"clip.mkv"}


def test_a_sidecar_that_cannot_be_written_leaves_no_video(result, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(output_module, "write_sidecar", fail)
    with pytest.raises(OSError, match="disk full"):
        write_result(result, tmp_path / "out.mkv")
    assert not left(tmp_path)


@pytest.mark.parametrize("stage", ["inspect_encoded", "write_sidecar"])
def test_an_interruption_leaves_nothing(result, tmp_path, monkeypatch, stage):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(output_module, stage, interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_result(result, tmp_path / "out.mkv")
    assert not left(tmp_path)


def test_an_interruption_keeps_the_former_result(result, tmp_path, monkeypatch):
    write_result(result, tmp_path / "out.mkv", lossless=True)
    former = {name: (tmp_path / name).read_bytes() for name in left(tmp_path)}
    monkeypatch.setattr(output_module, "write_sidecar", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_result(result, tmp_path / "out.mkv", overwrite=True)
    assert {name: (tmp_path / name).read_bytes() for name in left(tmp_path)} == former


def test_what_encoding_broke_is_listed_and_nothing_is_written(result, tmp_path):
    frames, times = result.video.frames[:5], result.video.timestamps[:5]
    shorter = replace(result.video, frames=frames, timestamps=times, frame_indices=None)
    with pytest.raises(ContractBroken, match=r"out\.mkv does not keep .*5 frames instead of 6; nothing was written"):
        write_result(replace(result, video=shorter), tmp_path / "out.mkv")
    assert not left(tmp_path)


def test_timestamps_that_moved_break_the_contract(result, tmp_path):
    late = replace(result.source, timestamps=result.source.timestamps * 1.02)
    with pytest.raises(ContractBroken, match=r"timestamps that are off by up to 0\.0125 s"):
        write_result(replace(result, source=late), tmp_path / "out.mkv")


def test_another_size_breaks_the_contract(result, tmp_path):
    with pytest.raises(ContractBroken, match=r"size 46x64 instead of 48x64"):
        write_result(
            replace(result, video=result.video.with_frames(result.video.frames[:, 1:-1])), tmp_path / "out.mkv"
        )


def test_a_lossless_file_that_is_not_breaks_the_contract(result, tmp_path):
    other = result.source.with_frames(result.source.frames ^ 1)
    with pytest.raises(ContractBroken, match="differ by up to 1 of 255, although it is lossless"):
        write_result(replace(result, source=other), tmp_path / "out.mkv", lossless=True)


def test_sound_that_went_missing_breaks_the_contract(result, tmp_path, monkeypatch):
    heard = output_module.probe(result.source.path)
    monkeypatch.setattr(output_module, "probe", lambda path: replace(heard, has_sound=path == result.source.path))
    with pytest.raises(ContractBroken, match="no sound, although the source has it"):
        write_result(result, tmp_path / "out.mkv")


def test_another_frame_rate_breaks_the_contract(result, tmp_path):
    with pytest.raises(ContractBroken, match=r"8 frames per second instead of 9"):
        write_result(replace(result, source=replace(result.source, fps=9.0)), tmp_path / "out.mkv")


def test_an_existing_result_is_not_replaced_unasked(result, tmp_path):
    (tmp_path / "out.mkv").write_text("mine")
    with pytest.raises(FileExistsError, match=r"out\.mkv exists already"):
        write_result(result, tmp_path / "out.mkv")
    assert (tmp_path / "out.mkv").read_text() == "mine"


def test_the_source_is_never_replaced(result):
    with pytest.raises(ValueError, match="the result would replace its own source"):
        write_result(result, result.source.path, overwrite=True)


def test_the_sidecar_of_another_video_is_never_replaced(result, tmp_path):
    write_result(result, tmp_path / "out.mkv")
    kept = (tmp_path / "out.json").read_text()
    with pytest.raises(ValueError, match=r"out\.json, which belongs to out\.mkv; choose another name"):
        write_result(result, tmp_path / "out.mp4", overwrite=True)
    assert (tmp_path / "out.json").read_text() == kept


def test_a_file_that_is_no_sidecar_is_never_replaced(result, tmp_path):
    (tmp_path / "out.json").write_text('{"my": "data"}')
    with pytest.raises(ValueError, match=r"the sidecar would replace .*out\.json, which belongs to something else"):
        write_result(result, tmp_path / "out.mkv", overwrite=True)
    assert (tmp_path / "out.json").read_text() == '{"my": "data"}'


@pytest.mark.parametrize("name", ["out.json", "out.avi", "out"])
def test_a_suffix_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path, name):
    with pytest.raises(ValueError, match=r"a video is written as \.mp4, \.m4v, \.mov or \.mkv, got .*out"):
        editing.check_output(tmp_path / name)


@pytest.mark.parametrize("suffix", output_module.SUFFIXES)
def test_every_suffix_that_is_let_through_can_be_written(result, tmp_path, suffix):
    assert write_result(result, tmp_path / f"out{suffix}").num_frames == 6


@pytest.fixture
def written(result, tmp_path):
    write_result(result, tmp_path / "out.mkv", lossless=True)
    return tmp_path / "out.json"


def test_a_replay_makes_the_same_frames(written, result):
    report = editing.replay(written)
    assert report.same
    assert report.differences == ()
    assert np.array_equal(report.result.video.frames, result.video.frames)


def test_a_replay_of_a_part_of_a_file_reads_the_same_part(source, tmp_path):
    clip = Video.read(source, stride=2)
    write_result(editor_of_recipe().edit(removal(video=clip, masks=tiny_masks(3))), tmp_path / "out.mkv")
    assert editing.replay(tmp_path / "out.json").same


def test_a_replay_of_chosen_frames_reads_the_same_frames(source, tmp_path):
    whole = Video.read(source)
    chosen = np.array([0, 1, 4])
    times, indices = whole.timestamps[chosen], whole.frame_indices[chosen]
    clip = replace(whole, frames=whole.frames[chosen], timestamps=times, frame_indices=indices)
    write_result(editor_of_recipe().edit(removal(video=clip, masks=tiny_masks(3))), tmp_path / "out.mkv")
    assert editing.replay(tmp_path / "out.json").same


def test_a_replay_of_an_addition_gets_its_layout_back(tmp_path):
    class Planner:
        def plan(self, request):
            return Layout(request.object.name, BOX)

    painter = Recorder()
    own = editor(painter, layout_planner=Planner())
    write_result(own.edit(addition()), tmp_path / "out.mkv")
    report = editing.replay(tmp_path / "out.json", video=tiny_video(), editor=own)
    assert report.same
    assert painter.requests[1].layout == painter.requests[0].layout


def test_other_frames_are_said_to_be_others(written):
    report = editing.replay(written, editor=editor(ConstantPainter((0, 0, 0))))
    assert not report.same
    assert report.expected_hash != report.got_hash


def test_a_replay_names_what_differs(written):
    content = json.loads(written.read_text())
    content["versions"]["torch"] = "1.0"
    written.write_text(json.dumps(content))
    assert any(text.startswith("torch: 1.0 -> ") for text in editing.replay(written).differences)


def test_a_replay_says_when_the_source_is_another(written, source):
    shutil.copy(written.with_name("out.mkv"), source)
    with pytest.raises(ValueError, match=r"the source .*clip\.mkv is not the video that was edited"):
        editing.replay(written)


def test_a_replay_says_when_the_source_is_gone_and_takes_it_elsewhere(written, source, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.move(source, tmp_path / "elsewhere" / "moved.mkv")
    with pytest.raises(FileNotFoundError, match=r"the source is not there: .*clip\.mkv"):
        editing.replay(written)
    assert editing.replay(written, source=moved).same


def test_a_replay_says_when_the_decoder_gives_other_frames(written):
    with pytest.raises(RuntimeError, match="the frames of the source are not the recorded ones"):
        editing.replay(written, video=tiny_video(6, seed=1))


def test_a_replay_says_when_it_needs_the_editor_or_the_video(tmp_path):
    write_result(editor().edit(removal()), tmp_path / "out.mkv")
    with pytest.raises(ValueError, match="names no recipe, its editor was built in Python"):
        editing.replay(tmp_path / "out.json")
    with pytest.raises(ValueError, match="names no source file, its video came from memory"):
        editing.replay(tmp_path / "out.json", editor=editor())
    assert editing.replay(tmp_path / "out.json", editor=editor(), video=tiny_video()).same


def test_a_replay_refuses_a_sidecar_that_lost_a_mask(written):
    written.write_text(json.dumps({**json.loads(written.read_text()), "masks": []}))
    with pytest.raises(ValueError, match="has 1 planned edits, 1 done and 0 masks"):
        editing.replay(written)


def test_verify_finds_that_the_contract_holds(written):
    verification = editing.verify(written)
    assert verification.same_file
    assert verification.report.max_error_outside == 0


def test_verify_finds_a_file_that_was_changed(written, source):
    shutil.copy(source, written.with_name("out.mkv"))
    assert not editing.verify(written).same_file


def test_verify_refuses_a_file_that_was_made_worse_since(result, tmp_path):
    write_result(result, tmp_path / "out.mp4")
    worse = result.video.with_frames(result.video.frames // 2)
    worse.write(tmp_path / "out.mp4", overwrite=True)
    with pytest.raises(ContractBroken, match=r"was changed since it was written: .* up to \d+ of 255, as written by"):
        editing.verify(tmp_path / "out.json")


def test_verify_finds_a_broken_contract(written):
    tiny_video(5).write(written.with_name("out.mkv"), lossless=True, overwrite=True)
    with pytest.raises(ContractBroken, match="5 frames instead of 6"):
        editing.verify(written)


def test_verify_says_when_the_video_is_gone(written):
    written.with_name("out.mkv").unlink()
    with pytest.raises(FileNotFoundError, match=r"the video of .*out\.json is not beside it"):
        editing.verify(written)
