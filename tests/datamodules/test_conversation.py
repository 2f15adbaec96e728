import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from raccoon_datamodules.conversation import (
    IGNORE,
    TEMPLATES,
    VISUAL_TOKENS,
    Conversation,
    Turn,
    add_visual_tokens,
)
from raccoon_datamodules.prompts import DESCRIBE_ALL

ANSWER = "Video Description: A keeper feeds a panda.\n\nObject Descriptions:\n1. Panda: Large."
CORPUS = [DESCRIBE_ALL, ANSWER, TEMPLATES["vicuna_v1"].before, "USER: ASSISTANT: "] * 4


def wrap(core, **extra):
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **{**names, **extra})


def word_level():
    core = Tokenizer(models.WordLevel(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.train_from_iterator(CORPUS, trainers.WordLevelTrainer(special_tokens=["<unk>", "<s>", "</s>", "<pad>"]))
    return wrap(core)


def byte_bpe():
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<unk>", "<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS, trainer)
    return wrap(core)


def sentence_piece_like():
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    core.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", "<s>", "</s>", "<pad>"], show_progress=False)
    core.train_from_iterator(CORPUS, trainer)
    return wrap(core)


MAKERS = {"words": word_level, "byte pairs": byte_bpe, "sentence pieces": sentence_piece_like}


@pytest.fixture(params=MAKERS, scope="module")
def tokenizer(request):
    made = MAKERS[request.param]()
    assert add_visual_tokens(made) == 3
    return made


@pytest.fixture(params=["vicuna_v1", "plain"])
def conversation(request, tokenizer):
    return Conversation(tokenizer, 7, request.param)


def test_visual_tokens_are_added_once_and_in_the_released_order():
    made = word_level()
    size = len(made)
    assert add_visual_tokens(made) == 3
    assert [made.get_vocab()[token] for token in VISUAL_TOKENS] == [size, size + 1, size + 2]
    assert add_visual_tokens(made) == 0


def test_a_turn_begins_with_the_prompt_that_generation_uses(conversation):
    prompt, turn = conversation.prompt(DESCRIBE_ALL), conversation.turn(DESCRIBE_ALL, ANSWER)
    assert turn.input_ids[: len(prompt)].equal(prompt)
    assert turn.input_ids.dtype == turn.labels.dtype == torch.int64


def test_exactly_the_answer_and_the_end_token_are_learned(conversation):
    turn = conversation.turn(DESCRIBE_ALL, ANSWER)
    learned = turn.labels != IGNORE
    start = len(conversation.prompt(DESCRIBE_ALL))
    assert not learned[:start].any()
    assert learned[start:].all()
    assert turn.labels[start:].equal(turn.input_ids[start:])
    assert int(turn.labels[-1]) == conversation.tokenizer.eos_token_id
    assert not turn.is_truncated


@pytest.mark.parametrize("name", ["byte pairs", "sentence pieces"])
@pytest.mark.parametrize("template", ["vicuna_v1", "plain"])
def test_the_learned_ids_decode_to_the_answer(name, template):
    made = MAKERS[name]()
    add_visual_tokens(made)
    turn = Conversation(made, 3, template).turn("Describe.", ANSWER)
    text = made.decode(turn.labels[turn.labels != IGNORE], clean_up_tokenization_spaces=False)
    assert text.removesuffix("</s>").strip() == ANSWER


def test_the_prompt_is_the_vicuna_conversation():
    made = byte_bpe()
    add_visual_tokens(made)
    ids = Conversation(made, 2).prompt("Describe {this}.")
    assert made.decode(ids) == (
        "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: "
        "<vid_start><vid_patch><vid_patch><vid_end>\nDescribe {this}. ASSISTANT:"
    )


def test_the_slots_are_where_the_patch_tokens_are(conversation):
    turn = conversation.turn("Describe.", ANSWER)
    slots = conversation.slots(turn.input_ids)
    places = slots.nonzero()[:, 0]
    assert int(slots.sum()) == 7
    assert int(places[-1] - places[0]) == 6
    assert (turn.labels[slots] == IGNORE).all()


def test_an_answer_that_is_too_long_is_cut_and_flagged_and_does_not_end(tokenizer):
    whole = Conversation(tokenizer, 7).turn("Describe.", ANSWER)
    start = int((whole.labels == IGNORE).sum())
    cut = Conversation(tokenizer, 7, max_length=start + 3).turn("Describe.", ANSWER)
    assert cut.is_truncated
    assert cut.input_ids.equal(whole.input_ids[: start + 3])
    assert tokenizer.eos_token_id not in cut.labels.tolist()
    exact = Conversation(tokenizer, 7, max_length=len(whole.input_ids)).turn("Describe.", ANSWER)
    assert not exact.is_truncated
    assert exact.input_ids.equal(whole.input_ids)


def test_a_prompt_that_leaves_no_room_is_refused_and_never_cut(tokenizer):
    length = len(Conversation(tokenizer, 7).prompt("Describe."))
    with pytest.raises(ValueError, match=rf"max_length = {length} .* got {length} tokens, 7 of them visual"):
        Conversation(tokenizer, 7, max_length=length).turn("Describe.", ANSWER)


def test_a_batch_is_padded_on_the_right(conversation):
    turns = [conversation.turn("Describe.", ANSWER), conversation.turn("Describe.", "Video")]
    batch = conversation.collate(turns)
    for row, turn in enumerate(turns):
        length = len(turn.input_ids)
        assert batch.input_ids[row, :length].equal(turn.input_ids)
        assert batch.labels[row, :length].equal(turn.labels)
        assert (batch.input_ids[row, length:] == conversation.tokenizer.pad_token_id).all()
        assert (batch.labels[row, length:] == IGNORE).all()
        assert batch.attention_mask[row].tolist() == [1] * length + [0] * (batch.input_ids.shape[1] - length)


def test_a_tokenizer_without_begin_and_pad_tokens_will_do():
    made = wrap(byte_bpe().backend_tokenizer, bos_token=None, pad_token=None)
    add_visual_tokens(made)
    conversation = Conversation(made, 1, "plain")
    assert int(conversation.prompt("Describe.")[0]) == made.get_vocab()["<vid_start>"]
    assert conversation.pad_id == made.eos_token_id


class MergingTokenizer:
    """Characters as ids, but "\\n" and the letter after it become one token."""

    bos_token_id, eos_token_id, pad_token_id = None, 1, 0

    def get_vocab(self):
        return {token: i for i, token in enumerate(VISUAL_TOKENS, 2)}

    def encode(self, text, *, add_special_tokens):
        ids = []
        while text:
            token = next((token for token in VISUAL_TOKENS if text.startswith(token)), None)
            size = len(token) if token else 2 if text[0] == "\n" and len(text) > 1 else 1
            ids.append(self.get_vocab()[token] if token else 100 + sum(map(ord, text[:size])))
            text = text[size:]
        return ids


def test_a_tokenizer_that_merges_across_the_boundary_does_not_move_it():
    conversation = Conversation(MergingTokenizer(), 2, "plain")
    turn = conversation.turn("Q", "ab")
    prompt = conversation.prompt("Q")
    assert turn.input_ids[: len(prompt)].equal(prompt)
    assert turn.labels[len(prompt) :].tolist() == [100 + ord("a"), 100 + ord("b"), 1]


class SplittingTokenizer(MergingTokenizer):
    def encode(self, text, *, add_special_tokens):
        return [100 + ord(letter) for letter in text]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conversation(word_level(), 3), "lacks <vid_patch>, <vid_start>, <vid_end>; call add_visual_tokens"),
        (lambda: Conversation(MergingTokenizer(), 0), "num_visual_tokens must be at least 1, got 0"),
        (lambda: Conversation(MergingTokenizer(), 1, max_length=0), "max_length must be at least 1, got 0"),
        (lambda: Conversation(MergingTokenizer(), 1, "llama"), "template must be one of vicuna_v1, plain, got 'llama'"),
        (
            lambda: Conversation(SplittingTokenizer(), 2).prompt("Q"),
            "must hold 2 visual slots, got 0",
        ),
        (lambda: Conversation(MergingTokenizer(), 1).turn("Q", " \n"), "an answer must not be empty"),
        (lambda: Conversation(MergingTokenizer(), 1).turn("<vid_patch>", "a"), "the query must not hold <vid_patch>"),
        (lambda: Conversation(MergingTokenizer(), 1).turn("Q", "a <vid_end>"), "the answer must not hold <vid_end>"),
        (lambda: Conversation(MergingTokenizer(), 1).collate([]), "at least one turn, got none"),
    ],
)
def test_what_cannot_be_encoded_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_tokenizer_without_an_end_token_is_refused():
    class Endless(MergingTokenizer):
        eos_token_id = None

    with pytest.raises(ValueError, match="must have an end token"):
        Conversation(Endless(), 1)


def test_a_turn_is_not_truncated_unless_it_says_so():
    assert not Turn(torch.zeros(1), torch.zeros(1)).is_truncated
