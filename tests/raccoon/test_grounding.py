import numpy as np
import pytest
import torch

from raccoon.interfaces import GroundRequest
from raccoon.models.grounding import ClusterGrounder, best_union_of_superpixels, contrast_phrases
from raccoon.models.superpixels import GridSuperpixels
from raccoon.models.tubes import otsu, strong_tubes
from raccoon.testing import check_grounder
from raccoon_datamodules.video import Video

PAINTS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (30, 60, 220), "grey": (128, 128, 128)}


class ColourEncoder:
    """Knows colours only: a patch is its mean colour, a text the colour it names; anything else is grey."""

    image_size = 64
    logit_scale = 30.0

    def encode_patches(self, frames):
        small = torch.nn.functional.interpolate(frames, (64, 64), mode="bilinear", antialias=True)
        return self._unit(torch.nn.functional.avg_pool2d(small, 4).permute(0, 2, 3, 1) * 255)

    def encode_text(self, texts):
        found = [next((c for c in ("red", "green", "blue") if c in text.lower()), "grey") for text in texts]
        return self._unit(torch.tensor([PAINTS[c] for c in found], dtype=torch.float32))

    @staticmethod
    def _unit(colours):
        return torch.nn.functional.normalize(
            torch.cat((colours - 128, torch.full_like(colours[..., :1], 30)), -1), dim=-1
        )


def squares(*, num_frames=6, size=(64, 64), red_in=None, side=None):
    """A grey clip with a green and a blue square, and a red one that moves to the right where it is to be seen."""
    height, width = size
    side = side or min(size) // 4
    frames = np.full((num_frames, height, width, 3), PAINTS["grey"], dtype=np.uint8)
    mask = np.zeros((num_frames, height, width), dtype=np.uint8)
    frames[:, 2 : 2 + side, 2 : 2 + side] = PAINTS["green"]
    frames[:, -side - 3 : -3, -side - 3 : -3] = PAINTS["blue"]
    for f in range(num_frames) if red_in is None else red_in:
        left, top = 3 + f * (width // 16), height // 2 - side // 2
        frames[f, top : top + side, left : left + side] = PAINTS["red"]
        mask[f, top : top + side, left : left + side] = 1
    return Video.from_frames(frames, 8.0), mask


def iou(first, second):
    return (first & second).sum() / max((first | second).sum(), 1)


def grounder(**options):
    return ClusterGrounder(encoder=ColourEncoder(), device="cpu", **options)


def test_it_conforms_to_its_plug_point():
    check_grounder(grounder())


def test_the_named_square_is_found_among_others_through_time():
    video, mask = squares()
    found = grounder().ground(GroundRequest(video, ("Red Box",)))
    assert iou(found.data, mask) > 0.8
    assert found.names == ("Red Box",)
    # The encoder cannot tell a red box from a red ball, so one half is the surest it can be.
    assert found.scores.min() > 0.4


def test_frames_without_the_thing_are_empty():
    video, mask = squares(num_frames=8, red_in=range(3, 6))
    found = grounder().ground(GroundRequest(video, ("red box",)))
    assert found.data.any(axis=(1, 2)).tolist() == mask.any(axis=(1, 2)).tolist()
    assert found.scores[:3].max() < 0.3 < found.scores[3:6].min()


def test_a_thing_that_is_nowhere_gives_an_empty_mask():
    video, _ = squares(red_in=())
    found = grounder().ground(GroundRequest(video, ("red box",), ("a red box that rests.",)))
    assert not found.data.any()


def test_several_phrases_are_united():
    video, mask = squares()
    both = grounder().ground(GroundRequest(video, ("red box", "green box"))).data
    green = grounder().ground(GroundRequest(video, ("green box",))).data
    assert iou(both, mask | green) > 0.8
    assert both[:, 5:10, 5:10].all()


def test_a_video_of_another_size_gets_a_mask_of_its_size():
    video, mask = squares(num_frames=3, size=(75, 131))
    found = grounder().ground(GroundRequest(video, ("red box",)))
    assert found.data.shape == mask.shape
    assert iou(found.data, mask) > 0.6


def test_a_large_video_is_segmented_small_and_its_mask_scaled_up():
    video, mask = squares(num_frames=2, size=(240, 320))
    found = grounder(longest_side=80).ground(GroundRequest(video, ("red box",)))
    assert found.data.shape == mask.shape
    assert iou(found.data, mask) > 0.6


def test_chunks_of_frames_change_nothing():
    video, _ = squares(num_frames=5)
    request = GroundRequest(video, ("red box",))
    assert np.array_equal(grounder(chunk_size=2).ground(request).data, grounder().ground(request).data)


def test_clusters_of_a_part_of_the_frames_serve_all():
    video, mask = squares(num_frames=9)
    found = grounder(cluster_frames=3, cluster_weight=0.5).ground(GroundRequest(video, ("red box",)))
    assert iou(found.data, mask) > 0.6


def test_clusters_can_be_left_out():
    video, mask = squares(num_frames=2)
    found = grounder(cluster_weight=0.0, threshold=0.4).ground(GroundRequest(video, ("red box",)))
    assert iou(found.data, mask) > 0.6


def test_given_superpixels_and_distractors_are_used():
    video, mask = squares(num_frames=2)
    found = grounder(superpixels=GridSuperpixels(64), cluster_weight=0.0).ground(GroundRequest(video, ("red box",)))
    assert found.data.mean() in (0.0, 1.0)
    found = grounder(distractors=("green box", "Red Box", "blue box", "ground")).ground(
        GroundRequest(video, ("red box",))
    )
    assert iou(found.data, mask) > 0.6


def test_a_phrase_that_is_the_only_distractor_is_told_from_the_background():
    video, mask = squares(num_frames=2)
    found = grounder(distractors=("red box",)).ground(GroundRequest(video, ("Red Box",)))
    assert iou(found.data, mask) > 0.6


def test_the_contrast_of_a_phrase_contradicts_it():
    others = contrast_phrases("Large Red Star")
    assert "red star" not in others
    assert {"blue star", "red ball", "blue ball"} <= set(others)
    assert len(others) == 35


def test_a_category_alone_is_contrasted_with_other_categories_only():
    others = contrast_phrases("star")
    assert not [text for text in others if "star" in text]
    assert len(others) == 30


def test_a_phrase_of_unknown_words_has_no_contrast():
    assert contrast_phrases("giant panda") == ()
    assert contrast_phrases("umbrella") == ()
    assert contrast_phrases("umbrella", "hard")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": None}, "exactly one of weights and encoder, got neither"),
        ({"weights": "tiny/clip"}, "exactly one of weights and encoder, got both"),
        ({"overlap": 26}, "overlap must be from 1 to num_clusters, got 26 of 25"),
        ({"cluster_weight": 1.5}, r"cluster_weight must be in \[0, 1\], got 1.5"),
        ({"threshold": -0.1}, r"threshold must be in \[0, 1\], got -0.1"),
        ({"otsu_range": (0.6, 0.2)}, r"otsu_range must be a lowest and a highest threshold .* got 0.6 and 0.2"),
        ({"chunk_size": 0}, "chunk_size and cluster_frames must be at least 1"),
        ({"vocabulary": "odd"}, "difficulty must be one of"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ClusterGrounder(**{"encoder": ColourEncoder(), **options})


def test_something_else_than_an_encoder_is_refused():
    with pytest.raises(TypeError, match=r"encoder must offer image_size, .* got a int"):
        ClusterGrounder(encoder=3)


def test_a_request_without_phrases_is_refused():
    video, _ = squares(num_frames=1)
    with pytest.raises(ValueError, match="at least one phrase"):
        grounder().ground(GroundRequest(video, ()))


def test_a_request_with_too_few_descriptions_is_refused():
    video, _ = squares(num_frames=1)
    with pytest.raises(ValueError, match=r"one description a phrase .* got 1 for 2 phrases"):
        grounder().ground(GroundRequest(video, ("a", "b"), ("c",)))


def test_missing_weights_are_said_in_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="there are no weights in"):
        ClusterGrounder(tmp_path / "nothing")


def test_the_best_union_takes_the_superpixels_that_help():
    labels = np.array([[[0, 0, 1, 1], [2, 2, 3, 3]]])
    exact = np.array([[[1, 1, 0, 0], [0, 0, 0, 0]]], dtype=np.uint8)
    assert best_union_of_superpixels(labels, exact) == 1.0
    half = np.array([[[1, 1, 1, 0], [0, 0, 0, 0]]], dtype=np.uint8)
    # 0 alone gives 2/3, 0 and 1 give 3/4.
    assert best_union_of_superpixels(labels, half) == pytest.approx(0.75)


def test_the_best_union_of_an_empty_mask_is_empty():
    assert best_union_of_superpixels(np.zeros((1, 2, 2), dtype=np.int16), np.zeros((1, 2, 2), dtype=np.uint8)) == 1.0


def test_the_best_union_beats_every_other_union():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, size=(2, 4, 4))
    mask = rng.integers(0, 2, size=(2, 4, 4)).astype(np.uint8)
    best = 0.0
    for chosen in range(64):
        union = np.stack([np.isin(labels[f], [s for s in range(3) if chosen >> (3 * f + s) & 1]) for f in range(2)])
        best = max(best, iou(union.astype(np.uint8), mask))
    assert best_union_of_superpixels(labels, mask) == pytest.approx(best)


def test_the_best_union_needs_equal_shapes():
    with pytest.raises(ValueError, match=r"alike, got \[1, 2, 2\] and \[1, 2, 3\]"):
        best_union_of_superpixels(np.zeros((1, 2, 2), dtype=int), np.zeros((1, 2, 3), dtype=np.uint8))


def test_otsu_parts_two_heaps_in_the_middle():
    values = np.array([0.1, 0.12, 0.8, 0.82])
    assert 0.2 < otsu(values, weights=np.ones(4)) < 0.7


def test_a_weak_tube_is_dropped_and_a_broken_one_kept():
    maps = np.zeros((3, 40, 40), dtype=np.float32)
    for f in range(3):
        maps[f, 10:20, 5 + 11 * f : 15 + 11 * f] = 0.9
    maps[1, 35:38, 2:5] = 0.6
    tubes = strong_tubes(maps, threshold=0.5, smallest=0.25)
    assert np.array_equal(tubes, (maps > 0.8))


def test_a_small_region_beside_the_thing_is_dropped_in_its_frame():
    maps = np.zeros((1, 40, 40), dtype=np.float32)
    maps[0, 10:20, 10:20] = 0.9
    maps[0, 30:32, 30:32] = 0.9
    assert strong_tubes(maps, threshold=0.5, smallest=0.25).sum() == 100


def test_maps_below_the_threshold_have_no_tube():
    assert not strong_tubes(np.full((2, 8, 8), 0.2, dtype=np.float32), threshold=0.5, smallest=0.25).any()
