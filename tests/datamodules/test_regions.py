import pickle
from dataclasses import fields

import numpy as np
import pytest
import torch

from raccoon_datamodules import members
from raccoon_datamodules.regions import (
    ATTRIBUTES,
    BACKGROUND,
    RegionDataModule,
    SceneSource,
    background_phrase,
    labels_of,
    make_regions,
    matches,
    object_phrase,
)
from raccoon_datamodules.sources import SyntheticSource
from raccoon_datamodules.synthetic import make_scene
from raccoon_datamodules.tasks import Choice
from raccoon_datamodules.view import MemoryView

EASY = 30


class LetterTokenizer:
    """A letter a token, 1 = end, 0 = padding."""

    def __call__(self, texts, *, padding, truncation, max_length):
        rows = [[*map(ord, text[: max_length - 1]), 1] for text in texts]
        longest = max(map(len, rows))
        return {"input_ids": [row + [0] * (longest - len(row)) for row in rows]}


def module(**options):
    settings = {"tokenizer": LetterTokenizer(), "global_batch_size": 4, "val_batch_size": 3}
    return RegionDataModule(
        SceneSource(num_frames=3), SceneSource(split="val", num_frames=3, num_scenes=5), **{**settings, **options}
    )


@pytest.fixture(scope="module")
def batch():
    return next(iter(module().train_dataloader()))


def example(seed=7, num_frames=2, clip_frames=4):
    scene = make_scene(seed, num_objects=2)
    drawn = scene.rasterise(num_frames=clip_frames, inpainted=False)
    return scene, drawn, make_regions(scene, drawn, num_frames=num_frames, rng=np.random.default_rng(0))


def test_every_object_and_the_background_of_a_frame_is_a_region():
    scene, drawn, made = example()
    assert made.frames.shape == (2, 64, 64, 3)
    assert len(made.masks) == len(made.phrases) == 2 * (len(scene.objects) + 1)
    for mask, frame in zip(made.masks, made.frame_of, strict=True):
        number = next(n for n in range(4) if np.array_equal(drawn.frames[n], made.frames[frame]))
        inside = [np.array_equal(mask, drawn.masks[i, number]) for i in range(len(scene.objects))]
        assert any(inside) or not (mask & drawn.masks[:, number].max(axis=0)).any()


def test_regions_cover_their_frame():
    _, _, made = example()
    for frame in range(2):
        assert made.masks[made.frame_of == frame].max(axis=0).all()


def test_a_region_has_the_attributes_of_its_object():
    scene, _, made = example()
    names = list(ATTRIBUTES)
    for obj, labels in zip(scene.objects, made.attributes, strict=False):
        words = [ATTRIBUTES[name][label] for name, label in zip(names[:4], labels, strict=False)]
        assert words == [obj.category, obj.colour, obj.pattern, obj.size]
        assert labels[4] == -1
    behind = made.attributes[len(scene.objects)]
    assert ATTRIBUTES["category"][behind[0]] == BACKGROUND
    assert ATTRIBUTES["background"][behind[4]] == scene.background
    assert behind[1:4].tolist() == [-1, -1, -1]


def test_a_phrase_states_what_its_words_say():
    rng = np.random.default_rng(0)
    for seed in range(EASY):
        scene = make_scene(seed)
        for obj in scene.objects:
            phrase = object_phrase(scene, obj, rng)
            text = phrase.text.lower()
            category, colour, pattern, _, behind = phrase.stated
            assert ATTRIBUTES["category"][category] in text
            assert (colour >= 0) == (obj.colour in text)
            assert behind == -1
            if pattern >= 0:
                assert ATTRIBUTES["pattern"][pattern] == obj.pattern


def test_phrases_differ_in_form():
    rng = np.random.default_rng(0)
    scene = make_scene(1, num_objects=1)
    obj = scene.objects[0]
    texts = {object_phrase(scene, obj, rng).text for _ in range(200)}
    short = f"{obj.colour} {obj.category}"
    assert {short, short.title(), obj.category} <= texts
    assert any(text.startswith(f"{short.title()}: ") for text in texts)
    assert any(text.endswith(".") and ":" not in text for text in texts)


def test_background_phrases_name_the_painters_prompt_and_the_colour():
    rng = np.random.default_rng(0)
    scene = make_scene(1)
    phrases = [background_phrase(scene, rng) for _ in range(100)]
    assert {"inpainted background", f"{scene.background} background"} <= {phrase.text for phrase in phrases}
    assert all((phrase.stated[4] >= 0) == (scene.background in phrase.text) for phrase in phrases)


def test_a_background_of_scenery_is_told_as_well():
    scene = make_scene(3, "hard")
    texts = {background_phrase(scene, np.random.default_rng(i)).text for i in range(30)}
    assert len(texts) > 2


def test_a_phrase_matches_every_region_that_has_what_it_states():
    stated = torch.from_numpy(np.stack([labels_of(category="star", colour="red"), labels_of(category="star")]))
    regions = [
        labels_of(category="star", colour="red", pattern="dotted"),
        labels_of(category="star", colour="blue"),
        labels_of(category=BACKGROUND),
    ]
    found = matches(stated, torch.from_numpy(np.stack(regions)))
    assert found.tolist() == [[True, True], [False, True], [False, False]]


def test_an_unknown_word_is_refused():
    with pytest.raises(ValueError, match="colour 'mauve' is not known; there are red, "):
        labels_of(colour="mauve")
    with pytest.raises(ValueError, match="taste 'sweet' is not known; there are category, "):
        labels_of(taste="sweet")


def test_too_many_frames_are_refused():
    scene = make_scene(0)
    drawn = scene.rasterise(num_frames=2, inpainted=False)
    with pytest.raises(ValueError, match="from 1 to the clip's 2, got 3"):
        make_regions(scene, drawn, num_frames=3, rng=np.random.default_rng(0))


def test_a_batch_joins_frames_regions_and_words(batch):
    assert batch.frames.shape == (8, 3, 64, 64)
    assert batch.frames.dtype == torch.uint8
    assert batch.ordinal.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len(batch.caption_ids) == 8
    regions = len(batch.masks)
    assert batch.masks.shape == (regions, 64, 64)
    assert len(batch.phrase_ids) == len(batch.frame_of) == len(batch.stated) == len(batch.attributes) == regions
    assert batch.frame_of.unique().tolist() == list(range(8))


def test_every_phrase_of_a_batch_fits_its_own_region(batch):
    assert matches(batch.stated, batch.attributes).diagonal().all()


def test_the_same_ordinals_give_the_same_batch(batch):
    again = next(iter(module().train_dataloader()))
    other = next(iter(module(seed=1).train_dataloader()))
    assert all(torch.equal(getattr(again, f.name), getattr(batch, f.name)) for f in fields(batch))
    assert not torch.equal(other.frames, batch.frames)


def test_workers_change_nothing(batch):
    again = next(iter(module(num_workers=1).train_dataloader()))
    assert torch.equal(again.frames, batch.frames)
    assert torch.equal(again.phrase_ids, batch.phrase_ids)


def test_a_batch_can_be_moved_pinned_and_pickled(batch):
    from lightning.fabric.utilities import move_data_to_device

    assert move_data_to_device(batch, torch.device("meta")).frames.is_meta
    assert torch.equal(pickle.loads(pickle.dumps(batch)).masks, batch.masks)
    if torch.cuda.is_available():
        assert batch.pin_memory().frames.is_pinned()


def test_validation_reads_other_scenes_once(batch):
    found = list(module().val_dataloader())
    assert [len(one.frames) for one in found] == [6, 4]
    assert not torch.equal(found[0].frames[:2], batch.frames[:2])


def test_test_scenes_are_neither_those_of_training_nor_of_validation():
    made = RegionDataModule(tokenizer=LetterTokenizer(), val_batch_size=1)
    first = [next(iter(loader())).frames for loader in (made.val_dataloader, made.test_dataloader)]
    assert not torch.equal(*first)
    assert len(made.test_dataloader()) == 128


def test_texts_are_cut_to_the_longest_length():
    assert next(iter(module(max_length=10).train_dataloader())).caption_ids.shape[1] == 10


def test_scenes_are_the_easy_ones_of_the_split_by_default():
    made = RegionDataModule()
    made.setup("fit")
    assert made.keys_of([0, 1]) == ["0", "1"]


def test_a_scene_source_draws_what_the_synthetic_source_draws():
    view = SceneSource(num_frames=2).view(0, 3)
    other = SyntheticSource(num_frames=2).view(0, 3)
    assert np.array_equal(view.clip(), other.clip())
    assert view.paragraphs()[0] == other.paragraphs()[0]
    assert view.key == other.key
    assert members.VIDEO in SceneSource().suffixes(0, 3)


def test_a_missing_tokenizer_is_said():
    with pytest.raises(RuntimeError, match="needs the text encoder's tokenizer"):
        next(iter(module(tokenizer=None).train_dataloader()))


def test_a_sample_that_is_no_drawn_scene_is_refused():
    view = SyntheticSource(num_frames=2).view(0, 0)
    assert isinstance(view, MemoryView)
    with pytest.raises(TypeError, match=r"drawn scenes \(SceneSource\), got a MemoryView"):
        module().make_example(view, Choice("describe", None, frozenset()), np.random.default_rng(0))


def test_numbers_that_are_not_positive_are_refused():
    with pytest.raises(ValueError, match="frames_per_scene must be at least 1 and max_length at least 3, got 0, 77"):
        RegionDataModule(frames_per_scene=0)
