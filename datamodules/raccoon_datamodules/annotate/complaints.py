"""What is wrong with an answer, and the words that a reviewer puts in the place of others."""

import re
from collections.abc import Mapping

from raccoon_datamodules import prompts
from raccoon_datamodules.annotate.statistics import paragraph_words
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph


class AnnotationFailed(ValueError):
    """No usable annotation came of a clip; the message says why."""


def complaints(paragraph: Paragraph, *, needs_objects: bool = True) -> tuple[list[str], list[str]]:
    """What makes a paragraph unusable, and what could be better about it."""
    faults, wishes = [], []
    if not paragraph.description:
        faults.append("the description of the whole video is missing")
    if not paragraph.objects and needs_objects:
        faults.append("the list of objects is missing")
    bare = [item.name for item in paragraph.objects if not item.description]
    if paragraph.objects and len(bare) == len(paragraph.objects):
        faults.append("no object has a description")
    elif bare:
        wishes.append(f"these objects have no description: {', '.join(bare)}")
    if len(paragraph.objects) > prompts.MAX_OBJECTS:
        wishes.append(f"there are {len(paragraph.objects)} objects, at most {prompts.MAX_OBJECTS} were asked for")
    if (words := paragraph_words(paragraph)) > prompts.MAX_WORDS:
        wishes.append(f"it has {words} words, fewer than {prompts.MAX_WORDS} were asked for")
    return faults, wishes


def replaced(paragraph: Paragraph, replacements: Mapping[str, str]) -> Paragraph:
    """The paragraph with whole words or phrases put in the place of others, in every text and name; case counts.

    Raises:
        AnnotationFailed: if two objects would have the same name then.
    """
    if not replacements:
        return paragraph
    pattern = re.compile(r"(?<!\w)(" + "|".join(re.escape(old) for old in replacements) + r")(?!\w)")

    def mend(text: str) -> str:
        return pattern.sub(lambda found: replacements[found.group(1)], text)

    try:
        objects = tuple(ObjectDescription(mend(o.name), mend(o.description)) for o in paragraph.objects)
        return Paragraph(mend(paragraph.description), objects)
    except ValueError as err:
        raise AnnotationFailed(f"the reviewer's replacements cannot be made: {err}") from err
