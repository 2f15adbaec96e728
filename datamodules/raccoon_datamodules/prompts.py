"""The instructions: what a describer, an annotator and a painter are asked.

One instruction per task of the describer (`DESCRIBE_ALL`, `describe_object`, `plan_layout`), one for annotating a clip
with a general vision model (`annotate`), and the fixed prompt of a removal. The wording is ours; the demands and the
answer formats are those of the paper (RACCooN, sections 3.1-3.3, A.1, figure 6): every answer is text that
`Paragraph.parse`, `ObjectDescription.parse` or `Layout.parse` reads.
"""

from collections.abc import Sequence

from raccoon_datamodules.paragraph import OBJECT_HEADING, VIDEO_HEADING, ObjectDescription
from raccoon_datamodules.wording import clean_name, name_key

MAX_OBJECTS = 5  # "up to five significant objects" (figure 6)
MAX_WORDS = 400  # of an annotation (figure 6)

REMOVAL_PROMPT = "inpainted background"
"""What the painter is told when an object is removed; the object's own words would call it back."""

DESCRIBE_ALL = f"""\
Describe this video so that it could be rebuilt from your words. First write one short paragraph about the whole \
video: its main objects, what happens, and where. Then list the significant objects, at most {MAX_OBJECTS}, each with \
its colours, shape, clothing or surface, and what it does. Answer in this form and write nothing else:
{VIDEO_HEADING} <the whole video>

{OBJECT_HEADING}
1. <name>: <description>
2. <name>: <description>"""
"""The instruction for the whole paragraph; the answer is a `Paragraph` in its canonical form."""


def describe_object(name: str | None = None) -> str:
    """Return the instruction to describe one object; the answer is ``Name: description``.

    ``name`` is the object to describe, or None to let the describer take the most prominent one.

    Raises:
        ValueError: if name is given and empty.
    """
    which = "the most prominent object in this video" if name is None else f"the {_checked(name)} in this video"
    return (
        f"Describe {which}: its colours, shape, clothing or surface, and what it does. "
        "Answer in one line and write nothing else:\n<name>: <description>"
    )


def plan_layout(name: str, *, num_frames: int, description: str = "") -> str:
    """Return the instruction to place an object that is not in the video; the answer is one `Layout`.

    ``num_frames`` is the number of frames the answer must give a box for; ``description`` is what is known of the
    object.

    Raises:
        ValueError: if name is empty or num_frames is not positive.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}")
    wanted = ObjectDescription(_checked(name), description)
    about = f" ({wanted.description})" if wanted.description else ""
    return (
        f"The object to be added to this video is: {wanted.name}{about}. Say where it belongs in each of {num_frames} "
        "frames taken at equal distances, so that its size, place and motion suit the scene. A box is [left, top, "
        "right, bottom], from 0.0 to 1.0 of the frame's width and height; [0.0, 0.0, 0.0, 0.0] where the object is not "
        f"to be seen. Answer in this form and write nothing else:\nLayouts of {wanted.name} to be added: "
        "{Frame 1: [<left>, <top>, <right>, <bottom>], Frame 2: [<left>, <top>, <right>, <bottom>], ...}"
    )


def annotate(num_frames: int, *, hints: Sequence[str] = ()) -> str:
    """Return the prompt that has a general vision model annotate a clip, given as one picture of numbered frames.

    ``num_frames`` is the number of frames in the picture, each with its number drawn on it, from the top left to the
    bottom right; ``hints`` are class names that are known to be in the clip and must be among the objects. The demands
    are those of the paper's figure 6; the answer is read by `Paragraph.parse`.

    Raises:
        ValueError: if num_frames is not positive, a hint is empty, or there are more than `MAX_OBJECTS` hints.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}")
    if len(hints) > MAX_OBJECTS:
        raise ValueError(f"at most {MAX_OBJECTS} hints fit the {MAX_OBJECTS} objects of an answer, got {len(hints)}")
    numbers = ", ".join(str(i) for i in range(1, num_frames + 1))
    parts = [
        f"The picture holds {num_frames} frame{'s' if num_frames > 1 else ''} of one video, in the order of time from "
        f"the top left to the bottom right. The number drawn on a frame is its place in that order ({numbers}); the "
        "numbers are not part of the video.",
        "You have two tasks. (1) Write a short, well ordered description of the whole video: the main objects, the "
        "actions, the events. Speak of the video, not of single frames, and do not repeat yourself. (2) List the "
        f"significant objects, at most {MAX_OBJECTS}: those that can be seen clearly and matter to what happens.",
        "Give each object a name of its own and a number of its own. Describe colour, shape, action, style, movement "
        "and whatever sets it apart, precisely and briefly, so that a reader can picture it; say how it relates to the "
        "others where it belongs to something larger.",
        f"Answer in this form:\n{VIDEO_HEADING} <description of the whole video>\n\n{OBJECT_HEADING}\n"
        "1. <name>: <description>\n2. <name>: <description>",
    ]
    if hints:
        listed = "\n".join(f"{i}. {_checked(hint)}" for i, hint in enumerate(hints, 1))
        parts.append(f"These objects are in the video and must be in your list:\n{listed}")
    parts.append(f"Use fewer than {MAX_WORDS} words in all. Add no explanation and no note.")
    return "\n\n".join(parts)


def paint_prompt(kind: str, after: ObjectDescription | None = None) -> str:
    """Return what the painter is told: the fixed string for a removal, else the new object's name and description.

    ``kind`` is "remove", "add" or "change"; ``after`` the object to paint, None for a removal.

    Raises:
        ValueError: if kind is none of these, or an addition or change has no object.
    """
    if kind == "remove":
        return REMOVAL_PROMPT
    if kind not in ("add", "change"):
        raise ValueError(f"kind must be 'remove', 'add' or 'change', got {kind!r}")
    if after is None:
        raise ValueError(f"an edit of kind {kind!r} needs the object to paint, got none")
    return f"{after.name}: {after.description}" if after.description else after.name


def _checked(name: str) -> str:
    cleaned = clean_name(name)
    if not name_key(cleaned):
        raise ValueError(f"an object's name must not be empty, got {name!r}")
    return cleaned
