import copy

import numpy as np
import pytest
import torch

from raccoon import testing
from raccoon.interfaces import Description
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.masks import Masks
from raccoon_datamodules.paragraph import Paragraph

ConformanceError = testing.ConformanceError
PARAGRAPH = Paragraph("A square moves.", ())


class Teller:
    def describe(self, request):
        return Description(PARAGRAPH, str(PARAGRAPH), {"frames": 4})


class Planner:
    def plan(self, request):
        return Layout(request.object.name, np.full((request.video.num_frames, 4), (0.1, 0.1, 0.5, 0.5)))


class Cells:
    def segment(self, frames):
        return torch.zeros(frames.shape[0], *frames.shape[2:], dtype=torch.int16), 1


class Encoder:
    image_size, patch_size, width, mean, std = 28, 14, 3, (0.5,) * 3, (0.2,) * 3

    def encode(self, frames):
        return frames.unfold(2, 14, 14).unfold(3, 14, 14).mean((-1, -2)).permute(0, 2, 3, 1)


class Flow:
    def flow(self, first, second):
        across = torch.full_like(first[:, :1], 2.0)
        return torch.cat([across, torch.zeros_like(across)], 1)


class Features:
    def features(self, video):
        return video.mean((1, 3, 4))


class Parrot:
    def chat(self, images, text):
        return text


GOOD = {
    "painter": testing.ConstantPainter(),
    "grounder": testing.OracleGrounder({"Square": testing.tiny_masks().data}),
    "describer": Teller(),
    "layout_planner": Planner(),
    "superpixels": Cells(),
    "encoder": Encoder(),
    "flow": Flow(),
    "features": Features(),
    "chat": Parrot(),
}


def spoiled(base, **members):
    part = copy.copy(base)
    part.__class__ = type("Spoiled", (type(base),), members)
    return part


def painting(paint):
    return spoiled(GOOD["painter"], paint=lambda self, request: paint(request))


def grounding(answer):
    return spoiled(GOOD["grounder"], ground=lambda self, request: answer())


def drift(request):
    return np.random.default_rng().integers(0, 255, request.video.frames.shape, dtype=np.uint8)


def scribble(request):
    request.video.frames[:] = 0
    return request.video.frames


def first_call_differs(value):
    calls = iter([0.0, 1.0, 2.0])
    return lambda self, x: value(self, x) + next(calls)


@pytest.mark.parametrize("section", sorted(testing.CHECKS))
def test_a_part_that_keeps_its_promise_passes(section):
    testing.CHECKS[section](GOOD[section])


@pytest.mark.parametrize("section", sorted(testing.CHECKS))
def test_a_part_that_offers_nothing_is_named(section):
    with pytest.raises(ConformanceError, match=r"builtins\.object is no .*has no (method|attribute)"):
        testing.CHECKS[section](object())


@pytest.mark.parametrize(
    ("section", "part", "message"),
    [
        ("painter", spoiled(GOOD["painter"], kinds={"erase"}), r"Spoiled\.kinds must be a set of some of"),
        ("painter", spoiled(GOOD["painter"], kinds=frozenset()), r"Spoiled\.kinds must be a set"),
        ("painter", painting(lambda r: r.video.frames[:1]), r"paint of 'add' at 48x64 must be a numpy array uint8 \[3"),
        ("painter", painting(lambda r: r.video.frames / 255), r"must be a numpy array uint8 .*got float64"),
        ("painter", painting(lambda r: None), r"got NoneType"),
        ("painter", painting(drift), r"must give the same frames for the same seed"),
        ("painter", painting(scribble), r"must not change the video or the mask"),
        (
            "grounder",
            spoiled(GOOD["chat"], ground=lambda s, r: 3),
            r"ground of \('Square',\) must return Masks, got int",
        ),
        (
            "grounder",
            spoiled(GOOD["chat"], ground=lambda s, r: Masks(np.ones((1, 2, 2), np.uint8))),
            r"data must be a nu",
        ),
        ("describer", spoiled(GOOD["describer"], describe=lambda s, r: "text"), r"must return a Description, got str"),
        (
            "describer",
            spoiled(GOOD["describer"], describe=lambda s, r: Description("text", "text", {})),
            r"paragraph must be a Paragraph, got str",
        ),
        (
            "describer",
            spoiled(GOOD["describer"], describe=lambda s, r: Description(PARAGRAPH, None, {})),
            r"raw must be the text, got NoneType",
        ),
        (
            "layout_planner",
            spoiled(GOOD["layout_planner"], plan=lambda s, r: None),
            r"must return a Layout, got NoneType",
        ),
        (
            "layout_planner",
            spoiled(GOOD["layout_planner"], plan=lambda s, r: Layout("x", np.full((2, 4), (0, 0, 1, 1)))),
            r"must give boxes \[5, 4\] for 5 frames, got \[2, 4\]",
        ),
        (
            "layout_planner",
            spoiled(GOOD["layout_planner"], plan=lambda s, r: Layout("x", np.full((5, 4), np.nan))),
            r"must place the object in some frame",
        ),
        ("superpixels", spoiled(GOOD["superpixels"], segment=lambda s, f: f), r"must return \(labels, number\)"),
        (
            "superpixels",
            spoiled(GOOD["superpixels"], segment=lambda s, f: (f[:, 0].long(), 1)),
            r"must be a tensor torch\.int16 \[3, 48, 64\], got torch\.int64",
        ),
        (
            "superpixels",
            spoiled(GOOD["superpixels"], segment=lambda s, f: (torch.full_like(f[:, 0], 4, dtype=torch.int16), 4)),
            r"must give labels in \[0, 4\), got 4 to 4",
        ),
        (
            "superpixels",
            spoiled(GOOD["superpixels"], segment=lambda s, f: ((torch.rand_like(f[:, 0]) * 99).short(), 99)),
            r"must give the same labels twice",
        ),
        ("encoder", spoiled(GOOD["encoder"], width=0), r"must have image_size >= patch_size > 0 and width > 0"),
        ("encoder", spoiled(GOOD["encoder"], std=(0, 1, 1)), r"must have mean and std of three channels"),
        ("encoder", spoiled(GOOD["encoder"], width=4), r"must give d = width = 4"),
        ("encoder", spoiled(GOOD["encoder"], encode=lambda s, f: f[0]), r"must return a tensor \[t, h, w, d\]"),
        (
            "encoder",
            spoiled(GOOD["encoder"], encode=lambda s, f: torch.zeros(9, 2, 2, 3)),
            r"must give at most one grid per frame",
        ),
        (
            "encoder",
            spoiled(GOOD["encoder"], encode=lambda s, f: torch.full((1, 2, 2, 3), torch.nan)),
            r"must give finite features",
        ),
        ("encoder", spoiled(GOOD["encoder"], encode=first_call_differs(Encoder.encode)), r"the same features twice"),
        ("flow", spoiled(GOOD["flow"], flow=lambda s, a, b: a), r"must be a tensor  ?\[2, 2, 128, 160\]"),
        ("flow", spoiled(GOOD["flow"], flow=lambda s, a, b: -Flow().flow(a, b)), r"2 to the right here, got -2\.00"),
        ("flow", spoiled(GOOD["flow"], flow=lambda s, a, b: Flow().flow(a, b) / 0), r"must be finite"),
        ("features", spoiled(GOOD["features"], features=lambda s, v: v), r"must return a tensor \[B, D\] with B = 2"),
        ("features", spoiled(GOOD["features"], features=lambda s, v: v[:, 0, 0, 0] / 0), r"must be finite"),
        (
            "features",
            spoiled(GOOD["features"], features=lambda s, v: v.mean((1, 3, 4)) - v.mean()),
            r"must not depend on the other videos",
        ),
        (
            "chat",
            spoiled(GOOD["chat"], chat=lambda s, images, text: 4),
            r"chat with 0 images must return a str, got int",
        ),
    ],
)
def test_a_part_that_breaks_its_promise_is_told_so(section, part, message):
    with pytest.raises(ConformanceError, match=message):
        testing.CHECKS[section](part)


def test_the_tiny_masks_are_where_the_square_is():
    video, masks = testing.tiny_video(), testing.tiny_masks()
    assert (video.frames[masks.data == 1] == (220, 200, 40)).all()
    assert (video.frames[masks.data == 0].max()) < 90
    assert not np.array_equal(masks.data[0], masks.data[-1])


def test_the_oracle_finds_what_it_knows_and_nothing_else():
    grounder = GOOD["grounder"]
    request = testing.GroundRequest(testing.tiny_video(), ("Square", "Unicorn"))
    assert np.array_equal(grounder.ground(request).data, testing.tiny_masks().data)
