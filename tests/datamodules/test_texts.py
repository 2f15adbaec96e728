import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from raccoon_datamodules import prompts
from raccoon_datamodules.conversation import IGNORE, VISUAL_TOKENS, Conversation
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.sources import SyntheticSource
from raccoon_datamodules.synthetic import make_sample, make_scene
from raccoon_datamodules.texts import TEXT_TASKS, SceneTexts, TextDataModule, boxes_of_poses, facts_of, make_text


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<pad>", *VISUAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([str(make_scene(seed).paragraph()) for seed in range(10)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", split_special_tokens=False
    )


def module(tokenizer, template="plain", max_length=None, **changes):
    conversation = tokenizer and Conversation(tokenizer, 1, template, max_length=max_length)
    settings = {"conversation": conversation, "global_batch_size": 8, **changes}
    return TextDataModule(SceneTexts(), SceneTexts(split="val", num_scenes=12), **settings)


def text(seed, task, draw=0):
    return make_text(make_scene(seed), task, np.random.default_rng(draw))


@pytest.mark.parametrize("seed", range(4))
def test_every_answer_is_what_its_reader_reads(seed):
    for task in ("paragraph", "describe"):
        answer = text(seed, task).answer
        assert Paragraph.parse(answer)[1] == []
    line = text(seed, "describe_object").answer
    assert str(ObjectDescription.parse(line)) == line
    layout, notes = Layout.parse(text(seed, "layout").answer, num_frames=8)
    assert notes == []
    assert layout.name in make_scene(seed).paragraph().names


def test_the_instructions_are_the_describers_own():
    name = make_scene(3).paragraph().objects[0].name
    assert text(3, "describe").instruction == prompts.DESCRIBE_ALL
    assert any(text(3, "describe_object", i).instruction == prompts.describe_object(name) for i in range(9))
    assert "Layouts of" in text(3, "layout").instruction


def test_the_facts_name_every_object_and_where_it_is():
    scene = make_scene(5)
    facts = [facts_of(scene, np.random.default_rng(draw), 8) for draw in range(8)]
    for obj in scene.objects:
        assert all(obj.category in one and obj.colour in one for one in facts)
    assert all(f"background {scene.background}" in one for one in facts)
    assert len(set(facts)) > 1
    assert any(one.count(",") == 8 * len(scene.objects) for one in facts)


def test_a_layout_is_asked_for_without_the_facts_of_its_object():
    seed = next(seed for seed in range(50) if len(make_scene(seed).objects) > 1)
    example = text(seed, "layout")
    name = Layout.parse(example.answer)[0].name
    (asked,) = [obj for obj in make_scene(seed).objects if obj.name == name]
    others = [obj for obj in make_scene(seed).objects if obj != asked]
    assert asked.category not in example.facts
    assert all(obj.category in example.facts for obj in others)


def test_boxes_from_poses_are_near_those_of_the_drawn_object():
    for seed in range(4):
        sample, scene = make_sample(seed, inpainted=False), make_scene(seed)
        for record, obj in zip(sample.objects, scene.objects, strict=True):
            centres = boxes_of_poses(obj, 8).reshape(8, 2, 2).mean(axis=1)
            drawn = record.boxes.reshape(8, 2, 2).mean(axis=1)
            seen = ~np.isnan(drawn[:, 0])
            assert np.abs(centres[seen] - drawn[seen]).mean() < 0.08


def test_only_the_answer_is_learned(tokenizer):
    data = module(tokenizer)
    encoded = data.encode(text(1, "describe"))
    given, learned = encoded.ids[: encoded.num_given], encoded.ids[encoded.num_given :]
    assert tokenizer.decode(learned) == text(1, "describe").answer + "</s>"
    assert tokenizer.decode(given).startswith("<s><vid_start>")
    assert data.encode(text(1, "paragraph")).num_given == 1


@pytest.mark.parametrize("template", ["plain", "vicuna_v1"])
def test_a_task_is_written_as_the_describer_writes_it(tokenizer, template):
    data = module(tokenizer, template=template)
    example = text(1, "describe")
    encoded = data.encode(example)
    turn = Conversation(tokenizer, 1, template).turn(example.instruction, example.answer)
    vocabulary = tokenizer.get_vocab()
    start, end = (vocabulary[token] for token in ("<vid_start>", "<vid_end>"))
    ours, theirs = encoded.ids, turn.input_ids.tolist()
    assert ours[: ours.index(start)] == theirs[: theirs.index(start)]
    assert ours[ours.index(end) :] == theirs[theirs.index(end) :]


def test_batches_follow_from_seed_and_ordinal(tokenizer):
    first, again = next(iter(module(tokenizer).train_dataloader())), next(iter(module(tokenizer).train_dataloader()))
    assert torch.equal(first.input_ids, again.input_ids)
    assert first.ordinal.tolist() == list(range(8))
    other = next(iter(module(tokenizer, seed=1).train_dataloader()))
    assert first.key == other.key
    assert first.input_ids.shape != other.input_ids.shape or not torch.equal(first.input_ids, other.input_ids)


def test_a_batch_is_padded_and_masked(tokenizer):
    batch = next(iter(module(tokenizer).train_dataloader()))
    padded = batch.attention_mask == 0
    assert (batch.input_ids[padded] == tokenizer.pad_token_id).all()
    assert (batch.labels[padded] == IGNORE).all()
    learned = batch.labels != IGNORE
    assert (batch.labels[learned] == batch.input_ids[learned]).all()
    assert set(batch.task) <= set(TEXT_TASKS)


def test_validation_reads_every_scene_once(tokenizer):
    ordinals = [i for batch in module(tokenizer).val_dataloader() for i in batch.ordinal.tolist()]
    assert sorted(ordinals) == list(range(12))


def test_tasks_come_by_weight_and_long_texts_are_cut(tokenizer):
    batch = next(iter(module(tokenizer, tasks={"layout": 1.0}, max_length=64).train_dataloader()))
    assert set(batch.task) == {"layout"}
    assert batch.input_ids.shape[1] == 64


def test_wrong_settings_are_refused(tokenizer):
    with pytest.raises(TypeError, match="train must be SceneTexts, got SyntheticSource"):
        TextDataModule(SyntheticSource())
    with pytest.raises(TypeError, match="test must be SceneTexts, got SyntheticSource"):
        TextDataModule(SceneTexts(), test=SyntheticSource())
    with pytest.raises(ValueError, match="num_frames must be at least 1, got 0"):
        module(tokenizer, num_frames=0)
    with pytest.raises(ValueError, match="unknown task 'poem'"):
        module(tokenizer, tasks={"poem": 1.0})
    with pytest.raises(ValueError, match=r"task must be one of .* got 'poem'"):
        text(0, "poem")
    with pytest.raises(RuntimeError, match="needs a conversation"):
        module(None).encode(text(0, "describe"))
    with pytest.raises(RuntimeError, match="makes its examples from scenes"):
        module(tokenizer).make_example(None, None, None)
