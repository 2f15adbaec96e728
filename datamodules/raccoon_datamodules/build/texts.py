"""What is said of a clip: its paragraph, the names of its objects, and the written edits, from labels and lists.

Objects that nobody has described yet have a name all the same: their class label, or "Object 1". So a clip without
annotation is a sample like any other, with an empty description (`NONE` in its meta).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raccoon_datamodules.build.sources import ObjectTexts, SourceVideo
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.sample import EditPrompt
from raccoon_datamodules.wording import clean_name, name_key, one_line, token_f1, words_of

# What ``meta["annotation"]`` says: nothing is described, a part is, all of it is.
NONE, PARTIAL, RELEASED = "none", "partial", "released"
# A description in the list and one in the paragraph are the same object's from here on.
_SAME = 0.5
_LONGEST_NAME = 6


@dataclass(frozen=True, slots=True)
class ClipTexts:
    """The words of a clip: by object id, in the order of the ids that were asked for, its name and description."""

    paragraph: Paragraph
    phrasings: tuple[Paragraph, ...]
    objects: dict[str, ObjectDescription]
    edits: tuple[EditPrompt, ...]
    annotation: str


def clip_texts(video: SourceVideo, object_ids: Sequence[str]) -> ClipTexts:
    """Bring together what is known of a video and of the objects that are left in one of its clips."""
    paragraphs = [Paragraph.parse(text)[0] for text in video.paragraphs]
    reference = paragraphs[0] if paragraphs else Paragraph("")
    released = {i: split_name(_said(video.texts, i)) for i in object_ids}
    free = list(reference.objects)
    objects: dict[str, ObjectDescription] = {}
    for object_id in object_ids:
        found = _same_object(*released[object_id], _category(video, object_id), free)
        if found is not None:
            objects[object_id] = found
            free.remove(found)
    taken = {name_key(item.name) for item in reference.objects}
    added = []
    for object_id in object_ids:
        if object_id not in objects:
            name, description = released[object_id]
            wanted = name or _category(video, object_id) or f"Object {object_id}"
            item = ObjectDescription(_unique(wanted, taken), description)
            taken.add(name_key(item.name))
            objects[object_id] = item
            added.append(item)
    paragraph = Paragraph(reference.description, (*reference.objects, *added))
    described = [bool(paragraph.description), *(bool(objects[i].description) for i in object_ids)]
    annotation = RELEASED if all(described) else PARTIAL if any(described) else NONE
    edits = tuple(
        edit
        for i in object_ids
        for task, words in _prompts(video, i)
        for edit in [_edit(i, objects[i], task, words, paragraph)]
    )
    return ClipTexts(paragraph, tuple(paragraphs[1:]), {i: objects[i] for i in object_ids}, edits, annotation)


def attributes(video: SourceVideo, object_id: str) -> dict[str, object]:
    """What else the source says of an object: phrases that refer to it, further descriptions, released layouts."""
    texts = video.texts.get(object_id, ObjectTexts())
    found: dict[str, object] = {}
    if video.expressions.get(object_id):
        found["expressions"] = list(video.expressions[object_id])
    if texts.descriptions[1:]:
        found["descriptions"] = list(texts.descriptions[1:])
    if texts.layouts:
        found["layouts"] = list(texts.layouts)
    return found


def _said(texts: Mapping[str, ObjectTexts], object_id: str) -> str:
    descriptions = texts.get(object_id, ObjectTexts()).descriptions
    return descriptions[0] if descriptions else ""


def _prompts(video: SourceVideo, object_id: str) -> tuple[tuple[str, str], ...]:
    return video.texts.get(object_id, ObjectTexts()).prompts


def split_name(text: str) -> tuple[str, str]:
    """(name, description) of ``Name: description``; ("", text) where what stands before a colon is too long for one."""
    text = one_line(text)
    head, colon, rest = text.partition(": ")
    name = clean_name(head)
    if colon and rest.strip() and name_key(name) and len(words_of(name)) <= _LONGEST_NAME:
        return name, rest.strip()
    return "", text


def _category(video: SourceVideo, object_id: str) -> str:
    """A class label as a name: ``giant_panda`` is Giant Panda."""
    words = clean_name(video.categories.get(object_id, "").replace("_", " ").replace(": ", " ")).split()
    return " ".join(word[:1].upper() + word[1:] for word in words)


def _same_object(
    name: str, description: str, category: str, candidates: Sequence[ObjectDescription]
) -> ObjectDescription | None:
    """The paragraph's object that an object of the masks is: by name, by its words, by its class; None if in doubt."""
    for wanted in (name, category):
        found = [item for item in candidates if wanted and name_key(item.name) == name_key(wanted)]
        if found:
            return found[0]
    if not description:
        return None
    words = words_of(description)
    scores = [max(token_f1(words, words_of(text)) for text in (item.description, str(item))) for item in candidates]
    best = max(scores, default=0.0)
    return candidates[scores.index(best)] if best >= _SAME and scores.count(best) == 1 else None


def _unique(name: str, taken: set[str]) -> str:
    name = name if name_key(name) else "Object"
    if name_key(name) not in taken:
        return name
    return next(f"{name} ({n})" for n in range(2, len(taken) + 3) if name_key(f"{name} ({n})") not in taken)


def _edit(object_id: str, item: ObjectDescription, task: str, words: str, paragraph: Paragraph) -> EditPrompt:
    """A written edit with the paragraph before and after it.

    For a change the words are what the released code shows the painter: what the object is afterwards.
    """
    others = tuple(o for o in paragraph.objects if o.name != item.name)
    without = Paragraph(paragraph.description, others)
    if task == "removal":
        return EditPrompt("remove", object_id, words, paragraph, without)
    if task == "adding":
        return EditPrompt("add", object_id, words, without, paragraph)
    name, description = split_name(words)
    changed = ObjectDescription(_unique(name or item.name, {name_key(o.name) for o in others}), description)
    after = tuple(changed if o.name == item.name else o for o in paragraph.objects)
    return EditPrompt("change", object_id, words, paragraph, Paragraph(paragraph.description, after))
