"""Edits of a scene whose true result is known: what is asked for in words, and the scene it leads to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.sample import EditKind, EditPrompt
from raccoon_datamodules.synthetic.background import MEAN_COLOURS
from raccoon_datamodules.synthetic.narrate import ADJECTIVES, narrate, reference, scattered, told, with_article
from raccoon_datamodules.synthetic.render import rasterise
from raccoon_datamodules.synthetic.vocabulary import COLOURS, DIFFICULTIES, Difficulty, colour_distance, shows_turning

if TYPE_CHECKING:
    from raccoon_datamodules.synthetic.scene import Scene

_REMOVE = (
    "Remove the {name}.",
    "Delete the {name} from the video.",
    "Take the {name} out of the scene.",
    "Make the {name} disappear.",
)
_ADD = ("Add {thing}.", "Insert {thing}.", "Put in {thing}.", "The video should also show {thing}.")
_CHANGE = {
    "colour": (
        "Make the {name} {value}.",
        "Change the color of the {name} to {value}.",
        "Turn the {name} {value}.",
        "Recolor the {name} to {value}.",
    ),
    "pattern": (
        "Make the {name} {value}.",
        "Change the pattern of the {name} to {value}.",
        "Let the {name} be {value}.",
        "Give the {name} a {value} look.",
    ),
    "category": (
        "Replace the {name} with {value}.",
        "Change the {name} to {value}.",
        "Turn the {name} into {value}.",
        "Swap the {name} for {value}.",
    ),
}


@dataclass(frozen=True, slots=True)
class SceneEdit:
    """One edit: its written prompt, the scene before and the scene after, both of which can be drawn.

    ``attribute`` and ``value`` say what a change changes ("colour", "pattern" or "category"); both are None otherwise.
    """

    kind: EditKind
    object_id: str
    attribute: str | None
    value: str | None
    before: "Scene"
    after: "Scene"
    prompt: EditPrompt


def has_contrast(colour: str, background: str, difficulty: Difficulty) -> bool:
    """Say whether an object of this colour stands out from the background as far as the difficulty asks."""
    return all(colour_distance(COLOURS[colour], mean) >= difficulty.contrast for mean in MEAN_COLOURS[background])


def _choose(options: Sequence[str], scene: "Scene", slot: str) -> str | None:
    return scattered(options, f"{scene.seed}/edit/{slot}") if options else None


def _alternative(scene: "Scene", index: int, attribute: str) -> str | None:
    """Choose another word for an object's attribute that keeps the scene's promises, or None if there is none."""
    obj, difficulty = scene.objects[index], DIFFICULTIES[scene.difficulty]
    others = [other for i, other in enumerate(scene.objects) if i != index]
    turns = obj.course.kind == "spin"
    if attribute == "pattern":
        options = [w for w in difficulty.patterns if w != obj.pattern and (not turns or shows_turning(obj.category, w))]
    elif attribute == "colour":
        taken = {other.colour for other in others} | {obj.colour}
        options = [c for c in difficulty.colours if c not in taken and has_contrast(c, scene.background, difficulty)]
    else:
        taken = {other.category for other in others} | {obj.category}
        options = [w for w in difficulty.categories if w not in taken and (not turns or shows_turning(w, obj.pattern))]
    return _choose(options, scene, f"{obj.uid}/{attribute}")


def edits_of(scene: "Scene") -> tuple[SceneEdit, ...]:
    """Return, for each object, its removal, its addition, and a change of its colour, pattern and category."""
    whole, edits = narrate(scene), []
    for index, obj in enumerate(scene.objects):
        rest = scene.without(index)
        left, name = narrate(rest), reference(obj)
        words = str(_choose(_REMOVE, scene, f"{obj.uid}/remove")).format(name=name)
        prompt = EditPrompt("remove", obj.uid, words, whole, left)
        edits.append(SceneEdit("remove", obj.uid, None, None, scene, rest, prompt))
        thing = told(scene.seed, obj).description.rstrip(".")
        thing = thing[:1].lower() + thing[1:]
        words = str(_choose(_ADD, scene, f"{obj.uid}/add")).format(thing=thing)
        prompt = EditPrompt("add", obj.uid, words, left, whole)
        edits.append(SceneEdit("add", obj.uid, None, None, rest, scene, prompt))
        for attribute, templates in _CHANGE.items():
            value = _alternative(scene, index, attribute)
            if value is None:
                continue
            changed = scene.with_object(index, **{attribute: value})
            shown = ADJECTIVES[value][0] if attribute == "pattern" else value
            if attribute == "category":
                shown = with_article(reference(changed.objects[index]))
            words = str(_choose(templates, scene, f"{obj.uid}/{attribute}/words")).format(name=name, value=shown)
            prompt = EditPrompt("change", obj.uid, words, whole, narrate(changed))
            edits.append(SceneEdit("change", obj.uid, attribute, value, scene, changed, prompt))
    return tuple(edits)


def render_edit(
    scene: "Scene", edit: SceneEdit | EditPrompt, *, num_frames: int = 8, size: tuple[int, int] = (64, 64)
) -> NDArray[np.uint8]:
    """Draw what an edit of ``scene`` should lead to, uint8 [F, H, W, 3].

    ``edit`` is one of ``scene.edits()`` or its prompt, as a sample holds it. Raises ValueError for a prompt that is not
    one of the scene's.
    """
    if isinstance(edit, EditPrompt):
        found = [known for known in scene.edits() if known.prompt == edit]
        if not found:
            raise ValueError(
                f"the edit must be one of the {len(scene.edits())} of scene {scene.key}, got {edit.instruction!r}; "
                "its true result is not known, so it cannot be drawn"
            )
        edit = found[0]
    return rasterise(edit.after, num_frames=num_frames, size=size, inpainted=False).frames
