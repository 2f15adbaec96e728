"""The miniature models' tokenizer: a byte-level BPE trained on the generator's own sentences.

Every byte is a token, so any text survives the round trip and there is no unknown token. A digit is always a token of
its own: boxes are numbers, and "0.25" must not be spelled differently from "0.2". One tokenizer serves the language
model and the text side of the miniature CLIP.

Training is deterministic (no threads, no hashing order): the same texts give the same file.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np

from raccoon_datamodules import prompts
from raccoon_datamodules.conversation import TEMPLATES, VISUAL_TOKENS
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.order import draw
from raccoon_datamodules.synthetic import Scene, SceneObject
from raccoon_datamodules.synthetic.motion import Course
from raccoon_datamodules.synthetic.vocabulary import DIFFICULTIES, SIZES, Difficulty

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
SPECIAL_TOKENS = (BOS, EOS, PAD, *VISUAL_TOKENS)
"""In the order of their ids, which begin at 0.

The end token must not have id 2: transformers takes that for CLIP's old vocabulary and looks for the end of a text at
its highest id.
"""
VOCABULARY_SIZE = 1024
_NUM_TEXTS = 1600
# A digit; a mark that parts two numbers, with its blank (a layout's tokens are a third fewer with it); a word or marks
# with the blank before; blanks.
_PIECES = r"\p{N}|[^\s\p{L}\p{N}]+ (?=\p{N})| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def train_tokenizer(texts: Iterable[str], vocabulary_size: int = VOCABULARY_SIZE, *, max_length: int = 2048) -> Any:
    """Train the tokenizer.

    Args:
        texts: what it is to write briefly.
        vocabulary_size: at most so many tokens: the special ones, 256 bytes, the rest merged from the texts.
        max_length: recorded as ``model_max_length``; a CLIP's copy says 77.

    Returns:
        A `PreTrainedTokenizerFast`: it adds ``<s>`` and ``</s>`` unless told ``add_special_tokens=False``, pads with
        ``<pad>`` on the right, and knows the visual tokens. ``save_pretrained`` writes a folder that AutoTokenizer
        reads.

    Raises:
        ValueError: if vocabulary_size has no room for the bytes and the special tokens.
    """
    smallest = 256 + len(SPECIAL_TOKENS)
    if vocabulary_size < smallest:
        raise ValueError(
            f"vocabulary_size must be at least {smallest}: 256 bytes and {len(SPECIAL_TOKENS)} special tokens; got "
            f"{vocabulary_size}"
        )
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}",
        special_tokens=[(BOS, SPECIAL_TOKENS.index(BOS)), (EOS, SPECIAL_TOKENS.index(EOS))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=max_length,
        padding_side="right",
        truncation_side="right",
        # Would take the blank before a full stop, and with it the exact round trip.
        clean_up_tokenization_spaces=False,
    )


@cache
def tiny_tokenizer(max_length: int = 2048) -> Any:
    """Return the tokenizer of the miniature models; trained once a process, and the same everywhere.

    Do not change the returned object: whoever asks again is handed the same one.
    """
    return train_tokenizer(tokenizer_texts(), max_length=max_length)


def tokenizer_texts(num_texts: int = _NUM_TEXTS) -> Iterator[str]:
    """Yield sentences as the tiny recipes read and write them: paragraphs, edits, layouts, prompts, templates.

    Scenes are put together at random without looking for room in a frame: only their words are wanted, and those of
    all difficulties.
    """
    fixed = [
        prompts.DESCRIBE_ALL,
        prompts.REMOVAL_PROMPT,
        *(part for template in TEMPLATES.values() for part in (template.before, template.after.format(query=""))),
    ]
    levels = list(DIFFICULTIES.values())
    for number in range(num_texts):
        rng = draw(0, number, "tokenizer")
        # The easy world is what the miniatures live in; the harder ones only lend it their words.
        level = levels[0] if rng.random() < 0.7 else levels[int(rng.integers(1, len(levels)))]
        scene = _random_scene(rng, level, seed=number)
        obj = scene.objects[0]
        described = scene.paragraph(int(rng.integers(8)))
        yield str(described)
        # As a user types it: without it a colour that begins a text would fall into letters.
        yield obj.name.lower()
        if number % 4 == 0:
            yield _random_layout(rng, obj.name).format("unit" if rng.random() < 0.5 else "thousand")
        if number % 8 == 0:
            yield str(rng.choice([edit.prompt.instruction for edit in scene.edits()]))
            yield prompts.describe_object(obj.name)
            yield prompts.plan_layout(
                obj.name, num_frames=8, description=described.objects[0].description if rng.random() < 0.5 else ""
            )
            yield prompts.paint_prompt("add", described.objects[0])
        if number % 40 == 0:
            yield from fixed


def _random_scene(rng: np.random.Generator, level: Difficulty, *, seed: int) -> Scene:
    def one(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    def sign() -> int:
        return 1 if rng.random() < 0.5 else -1

    colours = [level.colours[i] for i in rng.permutation(len(level.colours))]
    objects = []
    for number in range(int(rng.integers(1, 4))):
        late = number > 0 and rng.random() < level.late_entry
        place = (float(rng.uniform(-1, 1)), float(rng.uniform(-1, 1)))
        course = Course(one(level.motions), place, sign(), sign(), 0.0, 0.3 if late else 0.0)
        size = one(SIZES)
        objects.append(
            SceneObject(
                uid=f"object{number}",
                category=one(level.categories),
                colour=colours[number],
                pattern=one(level.patterns),
                size=size,
                radius=level.radii[SIZES.index(size)],
                course=course,
            )
        )
    return Scene(seed, level.name, tuple(objects), one(level.backgrounds), one(level.cameras), 1, one(level.props))


def _random_layout(rng: np.random.Generator, name: str) -> Layout:
    corners = np.sort(rng.uniform(0, 1, size=(8, 2, 2)), axis=1)
    boxes = corners.reshape(8, 4).round(3 if rng.random() < 0.5 else 2).astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 0.001).clip(max=1.0)
    boxes[:, :2] = np.minimum(boxes[:, :2], boxes[:, 2:] - 0.001)
    return Layout(name, boxes)
