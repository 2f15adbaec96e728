"""Which caption is about which mask: the class of each mask against the captions of the paragraph.

Source: RACCooN, A.1: "we framed this matching as a multi-choice QA to ask GPT4 which object caption can be matched to
the given object classes". Ours: a class that is a caption's very name is matched without a question; where several
masks share a class, or a mask has none, words cannot tell them apart, and the question comes with a picture in which
the mask is outlined; no caption serves two masks. An object that no caption is about has no description.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.annotate.chat import AnswerCut
from raccoon_datamodules.annotate.prompts import match_question, read_choice, second_try
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.wording import name_key

Picture = NDArray[np.uint8]
# (pictures, text, attempt, what for) -> answer
Ask = Callable[[Sequence[Picture], str, int, str], str]

# What a data set calls an object of which it knows nothing.
_NO_CLASS = frozenset({"object", "objects", "unknown", "thing", "foreground", "mask", "instance", "none", "other"})


@dataclass(frozen=True, slots=True)
class Candidate:
    """An object that wants a caption: its id, its label ("" if unknown) and its picture, made when it is needed."""

    id: str
    label: str
    picture: Callable[[], Picture]


def label_of(category: str, attributes: Mapping[str, Any] | None = None) -> str:
    """A class as words ("giant_panda" to "giant panda"), else the first phrase people used for the object, else ""."""
    words = " ".join(category.replace("_", " ").split())
    if words and name_key(words) not in _NO_CLASS and not words.isdecimal():
        return words
    phrases = (attributes or {}).get("expressions")
    if isinstance(phrases, (list, tuple)) and phrases and isinstance(phrases[0], str):
        return " ".join(phrases[0].split())
    return ""


def match_objects(
    candidates: Sequence[Candidate],
    paragraph: Paragraph,
    ask: Ask,
    *,
    num_frames: int,
    max_attempts: int = 3,
    others: Sequence[str] = (),
) -> tuple[dict[str, str | None], list[str]]:
    """The name of the caption of each object by the object's id, None where no caption is about it; and notes.

    ``ask`` sends a question; ``num_frames`` is the number of frames in a candidate's picture; ``others`` are the labels
    of objects of the clip that have their caption already. Whatever ``ask`` raises, but for `AnswerCut`, comes through.
    """
    matches: dict[str, str | None] = {candidate.id: None for candidate in candidates}
    notes: list[str] = []
    count = Counter(name_key(label) for label in (*(candidate.label for candidate in candidates), *others))
    left = list(paragraph.objects)
    waiting = []
    for candidate in candidates:
        same = paragraph.find(candidate.label) if candidate.label and count[name_key(candidate.label)] == 1 else None
        if same is not None and same in left:
            matches[candidate.id] = same.name
            left.remove(same)
        else:
            waiting.append(candidate)
    for candidate in waiting:
        if not left:
            break
        # Words tell an object apart if it alone has them.
        shown = num_frames if not candidate.label or count[name_key(candidate.label)] > 1 else 0
        place = _ask_one(candidate, left, ask, shown, max_attempts)
        if place is None:
            notes.append(
                f"object {candidate.id}: no usable answer to which caption is about it in {max_attempts} attempts"
            )
        elif place < len(left):
            matches[candidate.id] = left.pop(place).name
    return matches, notes


def _ask_one(
    candidate: Candidate, captions: Sequence[ObjectDescription], ask: Ask, shown: int, max_attempts: int
) -> int | None:
    """The chosen caption's number, ``len(captions)`` for none of them, None if no answer is a choice."""
    # A question has a letter for each caption; a model that lists more than that was asked for five.
    captions = captions[:25]
    pictures = [candidate.picture()] if shown else []
    question = text = match_question(candidate.label, captions, shown=shown)
    for attempt in range(max_attempts):
        try:
            answer = ask(pictures, text, attempt, f"match {candidate.id}")
        except AnswerCut as err:
            answer = err.partial
        place = read_choice(answer, captions)
        if place is not None:
            return place
        text = second_try(question, answer, ["it is not one of the letters offered"])
    return None
