"""What the annotator asks besides `prompts.annotate`: the example, the reviewer's wish, the second try, the matching.

Source: RACCooN, figure 6 (an in-context example, hints, "less than 400 words") and A.1 (matching object names to
captions "as a multi-choice QA", a human's cross-check after which the batch is refined). The wording is ours.
"""

import re
from collections.abc import Sequence

from raccoon_datamodules import prompts
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph

EXAMPLE = Paragraph(
    "On a windy morning a man in a yellow raincoat flies a red kite over a wide beach while his dog runs through the "
    "shallow water beside him. He walks backwards and lets out line; the kite climbs in wide curves over the dunes. "
    "Low clouds drift over a grey-green sea, and the wet sand mirrors the pale sky.",
    (
        ObjectDescription(
            "Man",
            "A tall man of about forty with a short grey beard. He wears a yellow raincoat, dark jeans rolled up to "
            "the knee and no shoes, holds a line with both hands and walks slowly backwards to the left.",
        ),
        ObjectDescription(
            "Kite",
            "A diamond-shaped red kite with a long tail of white ribbons, held by the man's line. It swings from side "
            "to side and rises towards the upper right.",
        ),
        ObjectDescription(
            "Dog",
            "A small brown dog with a white chest and pointed ears. It runs beside the man through the water, turns "
            "round and barks at the kite.",
        ),
    ),
)
"""The in-context example: one finished answer about another video."""

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LETTER = re.compile(r"^\W*(?:(?:the\s+)?(?:best\s+)?(?:answer|option|choice)(?:\s+is)?\W*)?([A-Z])(?:\W|$)", re.I)
_CHANGE = re.compile(r"^\W*(\d{1,2})\s*[.):]\W*(.+?)\s*(?:=>|->|→)\s*(.+)$")
_MAX_QUOTED = 2000


def annotation_prompt(
    num_frames: int,
    *,
    hints: Sequence[str] = (),
    wish: str = "",
    corrected: Paragraph | None = None,
    standing: Paragraph | None = None,
    num_missing: int = 0,
) -> str:
    """The request for a clip's paragraph: `prompts.annotate`, an example, and what a reviewer asked of this batch.

    ``wish`` is the reviewer's remark, ``corrected`` the paragraph that was corrected by hand; it takes the example's
    place. ``standing`` is what is said of the clip already: only its description, if it has none, and ``num_missing``
    more objects are asked for then. Raises as `prompts.annotate`.
    """
    parts = [prompts.annotate(num_frames, hints=hints)]
    if corrected is None:
        parts.append(f"An example of a good answer, about another video:\n{EXAMPLE}")
    else:
        parts.append(f"A good answer, about another video of this collection, corrected by a person:\n{corrected}")
    if standing is not None and (standing.description or standing.objects):
        parts.append(f"A part of the text about this video is there already and stays as it is:\n{standing}")
        if num_missing:
            objects = f"{num_missing} objects are" if num_missing > 1 else "one object is"
            head = "Repeat" if standing.description else "Write"
            parts.append(
                f"At least {objects} still to be described. {head} the description of the video, then list objects "
                "that are not described there, none of those again under another name."
            )
        else:
            parts.append("Write the description of the whole video, which is missing, and leave the list empty.")
    if wish:
        parts.append(f"The person who reviewed this collection asks: {wish}")
    return "\n\n".join(parts)


def second_try(prompt: str, answer: str, complaints: Sequence[str]) -> str:
    """The same request once more, with the last answer and what was wrong with it."""
    quoted = answer if len(answer) <= _MAX_QUOTED else f"{answer[:_MAX_QUOTED]} [...]"
    listed = "\n".join(f"- {complaint}" for complaint in complaints)
    return (
        f"{prompt}\n\nYour last answer could not be used:\n{listed}\n\nIt was:\n{quoted}\n\n"
        "Answer again, completely and in the form asked for."
    )


def match_question(label: str, captions: Sequence[ObjectDescription], *, shown: int = 0) -> str:
    """The multiple-choice question which caption is about one object; the last choice is none of them.

    ``label`` is the object's class, or "" if unknown; ``shown`` is the number of frames in the picture that comes with
    the question, in which the object is outlined, or 0 if none comes.

    Raises:
        ValueError: if there is no caption, more than 25, or neither a label nor a picture.
    """
    if not 1 <= len(captions) < len(_LETTERS):
        raise ValueError(f"a question needs 1 to {len(_LETTERS) - 1} captions to choose from, got {len(captions)}")
    if not label and not shown:
        raise ValueError("an object without a label must be shown in a picture, got neither")
    which = f'the object "{label}"' if label else "the object"
    if shown:
        frames = f"{shown} numbered frames" if shown > 1 else "one frame"
        which += " that is outlined in magenta"
        head = f"The picture holds {frames} of one video. Which of these captions describes {which}?"
    else:
        head = f"A video was captioned object by object. Which of these captions describes {which}?"
    choices = [f"{_LETTERS[i]}. {caption}" for i, caption in enumerate(captions)]
    choices.append(f"{_LETTERS[len(captions)]}. None of them")
    return "\n".join([head, "", *choices, "", "Answer with one letter and nothing else."])


def read_choice(answer: str, captions: Sequence[ObjectDescription]) -> int | None:
    """The chosen caption's number, ``len(captions)`` for none of them, or None if the answer is no choice.

    A letter counts ("B", "(b)", "Answer: B."), and so does an answer that names one caption only.
    """
    found = _LETTER.match(answer.strip())
    # "A dog" begins with an article, not with a choice: a lower-case word after a bare A does not count.
    if found and not re.match(r"^\W*[AI]\s+[a-z]", answer.strip()):
        place = _LETTERS.index(found.group(1).upper())
        return place if place <= len(captions) else None
    said = answer.casefold()
    if "none of" in said or said.strip(" .\n") == "none":
        return len(captions)
    named = [i for i, caption in enumerate(captions) if re.search(rf"\b{re.escape(caption.name.casefold())}\b", said)]
    return named[0] if len(named) == 1 else None


def change_question(objects: Sequence[ObjectDescription]) -> str:
    """The request for one change of each object; read by `read_changes`.

    Raises:
        ValueError: if there are no objects.
    """
    if not objects:
        raise ValueError("a change needs an object, got none")
    listed = "\n".join(f"{i}. {item}" for i, item in enumerate(objects, 1))
    return (
        f"These are the objects of one video:\n{listed}\n\nThink of one edit of each object that can be seen clearly: "
        "another colour, material, pattern, piece of clothing, or another kind of thing in its place. Keep its "
        "movement. Answer one line for each object and nothing else, in this form:\n"
        "<number>. <instruction in at most 12 words> => <new name>: <new description>"
    )


def read_changes(answer: str, objects: Sequence[ObjectDescription]) -> dict[int, tuple[str, ObjectDescription]]:
    """Instruction and changed object by the object's place in ``objects``; lines that cannot be read are left out."""
    found: dict[int, tuple[str, ObjectDescription]] = {}
    for line in answer.splitlines():
        read = _CHANGE.match(line.strip())
        place = int(read.group(1)) - 1 if read else -1
        if read is None or not 0 <= place < len(objects) or place in found:
            continue
        try:
            changed = ObjectDescription.parse(read.group(3))
        except ValueError:
            continue
        instruction = read.group(2).strip(" *\"'")
        if instruction and changed.description and changed != objects[place]:
            found[place] = (instruction, changed)
    return found
