import pytest
from transformers import AutoTokenizer

from raccoon.tasks.tokenizer import SPECIAL_TOKENS, tiny_tokenizer, tokenizer_texts, train_tokenizer
from raccoon_datamodules import prompts
from raccoon_datamodules.conversation import Conversation
from raccoon_datamodules.synthetic import make_scene

STRANGE = [
    "",
    " ",
    "\n\n\t  x",
    "Ünï¢ödé 日本 🦝 e\u0301",
    "\x00\x7f",
    "it's ,  . 12,345.67%",
    "a  b   c ",
    "<s> is no start </s>",
]


@pytest.fixture(scope="module")
def texts():
    return list(tokenizer_texts(300))


@pytest.fixture(scope="module")
def tokenizer(texts):
    return train_tokenizer(texts)


def test_the_same_texts_give_the_same_tokenizer(texts, tokenizer, tmp_path):
    again = train_tokenizer(tokenizer_texts(300))
    again.save_pretrained(tmp_path / "a")
    tokenizer.save_pretrained(tmp_path / "b")
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer.json").read_bytes()


@pytest.mark.parametrize("text", STRANGE, ids=range(len(STRANGE)))
def test_any_text_survives_the_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_generated_texts_survive_the_round_trip_and_are_written_briefly(texts, tokenizer):
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    assert all(tokenizer.decode(row) == text for row, text in zip(ids, texts, strict=True))
    assert sum(map(len, texts)) > 2.5 * sum(map(len, ids))


def test_start_and_end_are_added_unless_told_otherwise(tokenizer):
    bare = tokenizer.encode("red star", add_special_tokens=False)
    assert tokenizer.encode("red star") == [tokenizer.bos_token_id, *bare, tokenizer.eos_token_id]
    assert tokenizer.decode(tokenizer.encode("red star"), skip_special_tokens=True) == "red star"


def test_special_tokens_have_the_first_ids_and_the_end_is_not_2(tokenizer):
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(len(SPECIAL_TOKENS)))
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "<pad>")
    assert tokenizer.eos_token_id != 2
    assert tokenizer.unk_token is None


def test_a_digit_is_always_one_token(tokenizer):
    digits = {tokenizer.encode(digit, add_special_tokens=False)[0] for digit in "0123456789"}
    assert len(digits) == 10
    ids = tokenizer.encode("Frame 12: [0.25, 0.0, 1.0, 0.731]", add_special_tokens=False)
    assert sum(token in digits for token in ids) == sum(map(str.isdigit, "Frame 12: [0.25, 0.0, 1.0, 0.731]"))


def test_texts_are_padded_and_cut_as_a_clip_needs(tokenizer):
    found = tokenizer(["red star", "star " * 100], padding=True, truncation=True, max_length=77)["input_ids"]
    assert [len(row) for row in found] == [77, 77]
    assert found[1][-1] == tokenizer.eos_token_id
    assert found[0][-1] == tokenizer.pad_token_id


def test_it_serves_a_conversation(tokenizer):
    conversation = Conversation(tokenizer, 4, "plain")
    turn = conversation.turn(prompts.DESCRIBE_ALL, str(make_scene(0).paragraph()))
    assert int(turn.input_ids[-1]) == tokenizer.eos_token_id
    assert int((turn.input_ids == conversation.patch_id).sum()) == 4


def test_a_saved_tokenizer_loads_as_any_other(texts, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert [loaded.encode(text) for text in texts[:50]] == [tokenizer.encode(text) for text in texts[:50]]
    assert (loaded.pad_token_id, loaded.model_max_length) == (tokenizer.pad_token_id, 2048)


def test_the_miniature_tokenizer_writes_names_in_a_token_a_word():
    tokenizer = tiny_tokenizer()
    assert len(tokenizer) == 1024
    assert tiny_tokenizer() is tokenizer
    for name in ("red star", "Blue Ball", "a dotted pink fish", "yellow heart", "White Car", "green box"):
        assert len(tokenizer.encode(name, add_special_tokens=False)) == len(name.split())
    paragraph = str(make_scene(5, num_objects=3).paragraph())
    assert len(tokenizer.encode(paragraph)) < 200


def test_a_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(ValueError, match=r"vocabulary_size must be at least 262.* got 100"):
        train_tokenizer(["a"], 100)
