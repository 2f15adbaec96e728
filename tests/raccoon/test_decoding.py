import time

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from raccoon.models.decoding import Constraint, Vocabulary, token_bytes
from raccoon.models.grammars import LineGrammar, ParagraphGrammar
from raccoon.models.layout_grammar import LayoutGrammar
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.synthetic import make_scene

TEXTS = [str(make_scene(seed).paragraph(seed % 4)) for seed in range(40)] + [
    "Layouts of Red Star to be added: {Frame 1: [0.2, 0.0, 0.5, 0.75], Frame 2: [0.125, 0.1, 0.4, 0.65]}",
    "Frame 1: {'Red Star': [200, 0, 500, 700]}",
]
SPECIAL = ["<s>", "</s>", "<pad>"]


def _fast(tokenizer):
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def _trainer(size, alphabet):
    return trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*TEXTS, "Hund läuft über 道路 → ☃ “so”"] * 3, trainer)
    return _fast(tokenizer)


def greedy_byte_level():
    """Merges across words, lines and punctuation, as no sensible tokenizer does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return _fast(tokenizer)


def sentencepiece():
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=SPECIAL + bytes_, show_progress=False)
    tokenizer.train_from_iterator([text.replace("\n", " ") for text in TEXTS], trainer)
    vocabulary = tokenizer.get_vocab()
    model = models.BPE(vocab=vocabulary, merges=[], byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(SPECIAL)
    return _fast(tokenizer)


def characters():
    alphabet = sorted({c for text in TEXTS for c in text} | set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789é道☃\u2028\u00a0"))
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return _fast(tokenizer)


def word_level():
    words = {word for text in TEXTS for word in text.replace("\n", " ").split(" ")}
    pieces = sorted(
        {*words, *"0123456789 .,:[]{}'\n", *"ABCDEFGHIJ", "Frame", "Layouts", "Video", "Object", "Red Star"}
    )
    pieces += ["Description:", "Descriptions:", "\n\n", "to", "of", "be", "added:"]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*SPECIAL, *(p for p in pieces if p)]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.decoder = decoders.Fuse()
    return _fast(tokenizer)


TOKENIZERS = {f.__name__: f for f in (byte_level, greedy_byte_level, sentencepiece, characters, word_level)}
BUILT: dict[str, Vocabulary] = {}


@pytest.fixture(params=list(TOKENIZERS))
def vocabulary(request):
    return built(request.param)


def built(name):
    if name not in BUILT:
        BUILT[name] = Vocabulary.of(TOKENIZERS[name]())
    return BUILT[name]


def write(constraint, seed, *, favour=()):
    """Take the best of random scores until the end token; the first of ``favour`` before all others; ids without it."""
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = []
    while True:
        scores = torch.randn(1, constraint.vocabulary.size, generator=generator)
        for rank, index in enumerate(favour):
            scores[:, index] = 100.0 - rank
        allowed = constraint(torch.tensor([ids], dtype=torch.int64).reshape(1, -1), scores)
        assert torch.isfinite(allowed).any()
        index = int(allowed.argmax())
        ids.append(index)
        assert len(ids) <= constraint.max_new_tokens
        if index == constraint.vocabulary.eos_id:
            return ids[:-1]


@pytest.mark.parametrize("limit", [45, 90, 300])
def test_a_paragraph_written_at_random_is_canonical_and_within_the_limit(vocabulary, limit):
    least = Constraint(vocabulary, ParagraphGrammar(), 10_000).least
    constraint = Constraint(vocabulary, ParagraphGrammar(), max(limit, least))
    for seed in range(6):
        text = constraint.text(write(constraint, seed))
        paragraph, notes = Paragraph.parse(text)
        assert notes == []
        assert str(paragraph) == text
        assert len(paragraph.objects) <= 5


def test_a_paragraph_has_the_objects_that_it_must_have(vocabulary):
    constraint = Constraint(vocabulary, ParagraphGrammar(max_objects=3, min_objects=3), 220)
    for seed in range(6):
        paragraph, notes = Paragraph.parse(constraint.text(write(constraint, seed)))
        assert notes == []
        assert len(paragraph.objects) == 3


@pytest.mark.parametrize("style", ["unit", "thousand"])
@pytest.mark.parametrize("slack", [0, 3, 400])
def test_a_layout_written_at_random_is_canonical_and_within_the_limit(vocabulary, style, slack):
    grammar = LayoutGrammar("Red Star", 6, style=style)
    least = Constraint(vocabulary, grammar, 10_000).least
    constraint = Constraint(vocabulary, grammar, least + slack)
    for seed in range(3):
        text = constraint.text(write(constraint, seed))
        layout, notes = Layout.parse(text, num_frames=6)
        assert notes == []
        assert layout.format(style) == text
        assert layout.present.any()


def test_an_object_line_written_at_random_is_canonical_and_within_the_limit(vocabulary):
    constraint = Constraint(vocabulary, LineGrammar("Red Star"), 40)
    for seed in range(6):
        text = constraint.text(write(constraint, seed))
        assert str(ObjectDescription.parse(text)) == text
        assert text.startswith("Red Star: ")


@pytest.mark.parametrize("character", [b"\n", b":", b" ", b"\xe2", b"\xf0", b"A"])
def test_a_model_that_insists_on_one_byte_still_closes(character):
    vocabulary = built("byte_level")
    constraint = Constraint(vocabulary, ParagraphGrammar(), 120)
    text = constraint.text(write(constraint, 0, favour=[vocabulary.ids[character]]))
    paragraph, notes = Paragraph.parse(text)
    assert (str(paragraph), notes) == (text, [])


def test_two_objects_never_get_one_name():
    vocabulary = built("characters")
    constraint = Constraint(vocabulary, ParagraphGrammar(min_objects=5), 150)
    for favoured in (b"a", b"A"):
        ids = write(constraint, 0, favour=[vocabulary.ids[character] for character in (b":", b"\n", favoured)])
        paragraph, notes = Paragraph.parse(constraint.text(ids))
        assert notes == []
        assert len({name.casefold() for name in paragraph.names}) == 5


def test_a_layout_without_absent_frames_has_a_box_in_each():
    vocabulary = built("characters")
    constraint = Constraint(vocabulary, LayoutGrammar("Dog", 5, allow_absent=False), 400)
    zeros = [vocabulary.ids[character] for character in (b",", b"]", b"0", b".")]
    assert Layout.parse(constraint.text(write(constraint, 0, favour=zeros)))[0].present.all()
    constraint = Constraint(vocabulary, LayoutGrammar("Dog", 5), 400)
    favoured = constraint.text(write(constraint, 0, favour=zeros))
    assert Layout.parse(favoured)[0].present.tolist() == [False] * 4 + [True]


def test_what_the_model_was_trained_to_write_is_allowed_token_by_token():
    tokenizer = byte_level()
    vocabulary = Vocabulary.of(tokenizer)
    boxes = np.array([[0.1, 0.0, 0.33, 1.0], [np.nan] * 4, [0.125, 0.5, 0.999, 0.501]], dtype=np.float32)
    cases = [(ParagraphGrammar(), str(make_scene(seed, "hard").paragraph(seed))) for seed in range(4)] + [
        (LayoutGrammar("Dog", 3), str(Layout("Dog", boxes))),
        (LineGrammar("Dog"), "Dog: Ein Hund läuft über 道路 → ☃."),
    ]
    for grammar, text in cases:
        for joint in ("", " "):
            ids = tokenizer.encode(joint + text, add_special_tokens=False)
            constraint = Constraint(vocabulary, grammar, len(ids) + 1)
            for place, index in enumerate([*ids, vocabulary.eos_id]):
                assert constraint.allowed(ids[:place])[index], (text, place)
            assert constraint.text(ids) == text


def test_every_token_gives_its_bytes():
    for name, build in TOKENIZERS.items():
        tokenizer = build()
        tokens = token_bytes(tokenizer)
        text = "Frame 1: [0.2, 0.0]" if name == "word_level" else TEXTS[0].split("\n")[0]
        vocabulary = Vocabulary(tokens, tokenizer.eos_token_id)
        ids: list[int] = []
        rest = text.encode()
        while rest:
            ids.append(vocabulary.first(rest))
            rest = rest[len(tokens[ids[-1]]) :]
        assert tokenizer.decode(ids) == text
        assert tokens[tokenizer.eos_token_id] is None


def test_tokens_that_are_joined_by_spaces_begin_with_one():
    tokenizer = Tokenizer(models.WordLevel({"</s>": 0, "a": 1}, unk_token="a"))
    assert token_bytes(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")) == [None, b" a"]
    tokenizer.decoder = decoders.WordPiece()
    tokenizer = Tokenizer(models.WordPiece({"</s>": 0, "a": 1, "##b": 2}, unk_token="a"))
    tokenizer.decoder = decoders.WordPiece()
    assert token_bytes(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>"))[1:] == [b" a", b"b"]


def test_a_large_vocabulary_is_fast_once_its_states_are_known():
    rng = np.random.default_rng(0)
    letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz ", dtype=np.uint8)
    tokens: list[bytes | None] = [None, *(bytes([byte]) for byte in range(256))]
    tokens += [bytes(rng.choice(letters, size=int(rng.integers(2, 9)))) for _ in range(31_743)]
    vocabulary = Vocabulary(tokens, 0)
    constraint = Constraint(vocabulary, ParagraphGrammar(), 200)
    write(constraint, 0)
    ids = write(constraint, 1)
    started = time.perf_counter()
    for place in range(len(ids)):
        constraint.allowed(ids[:place])
    assert (time.perf_counter() - started) / len(ids) < 0.004


def test_the_mask_covers_scores_of_a_padded_vocabulary():
    vocabulary = built("characters")
    constraint = Constraint(vocabulary, LineGrammar("Dog"), 20)
    empty = torch.empty(2, 0, dtype=torch.int64)
    out = constraint(empty, torch.zeros(2, vocabulary.size + 7))
    assert out.shape == (2, vocabulary.size + 7)
    assert torch.isinf(out[:, vocabulary.size :]).all()
    assert out[0].isfinite().nonzero().flatten().tolist() == sorted([vocabulary.ids[b"D"], vocabulary.ids[b" "]])


def test_a_finished_row_only_ends_again():
    vocabulary = built("characters")
    constraint = Constraint(vocabulary, LineGrammar("D"), 20)
    ids = [*(vocabulary.ids[bytes([byte])] for byte in b"D: a"), vocabulary.eos_id]
    assert constraint.allowed(ids).nonzero().flatten().tolist() == [vocabulary.eos_id]


def test_a_limit_below_the_shortest_text_is_refused():
    vocabulary = built("characters")
    with pytest.raises(ValueError, match=r"max_new_tokens must be at least 7, .*got 6"):
        Constraint(vocabulary, LineGrammar("Dog"), 6)


def test_a_tokenizer_that_cannot_write_the_text_is_refused():
    letters = [bytes([byte]) for byte in range(0x61, 0x7B)]
    with pytest.raises(ValueError, match="must be able to write 'Dog: "):
        Constraint(Vocabulary([None, *letters], 0), LineGrammar("Dog"), 100)


def test_a_tokenizer_without_names_is_refused():
    with pytest.raises(ValueError, match="write 6 different names"):
        Constraint(Vocabulary([None, b"a", b"."], 0), ParagraphGrammar(), 100)


def test_ids_of_another_text_are_refused():
    vocabulary = built("characters")
    with pytest.raises(ValueError, match="is no beginning of what was asked for: b'a'"):
        Constraint(vocabulary, LineGrammar("Dog"), 20).allowed([vocabulary.ids[b"a"]])


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(TypeError, match=r"a fast tokenizer is needed .* got object"):
        token_bytes(object())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ParagraphGrammar(2, 3), "0 <= min_objects <= max_objects must hold, got 3 and 2"),
        (lambda: LineGrammar(" "), "name must not be empty"),
        (lambda: LayoutGrammar("a: b", 2), "nor hold ': ', got 'a: b'"),
        (lambda: LayoutGrammar("a", 0), "num_frames must be at least 1, got 0"),
        (lambda: LayoutGrammar("a", 1, style="percent"), "style must be 'unit' or 'thousand', got 'percent'"),
    ],
)
def test_a_grammar_refuses_what_it_cannot_write(make, message):
    with pytest.raises(ValueError, match=message):
        make()
