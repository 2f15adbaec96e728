"""The words for a scene: paragraphs in the paper's format, in several phrasings.

Phrasing 0 always uses the first wording of every table, so that equal scenes get equal words; higher phrasings pick
among synonyms and sentence forms by a checksum of (seed, phrasing, object). A pick never looks at the attributes, so
a changed object keeps its sentence and only the changed words differ, as in a paragraph edited by hand.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING
from zlib import crc32

from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.synthetic.motion import MOTIONS_THAT_TRAVEL

if TYPE_CHECKING:
    from raccoon_datamodules.synthetic.scene import Scene, SceneObject

NUM_PHRASINGS = 5
"""How many phrasings a sample carries, the reference included; any higher number gives yet another mixture."""

_SIZES = {
    "small": ("small", "little", "small"),
    "medium": ("medium-sized", "mid-sized", "medium-sized"),
    "large": ("large", "big", "large"),
}
ADJECTIVES = {
    "plain": ("plain", "plain", "single-color"),
    "striped": ("striped", "striped", "stripy"),
    "dotted": ("dotted", "polka-dotted", "spotted"),
    "checkered": ("checkered", "checked", "checkered"),
    "zigzag": ("zigzag-patterned", "zigzag-patterned", "zigzagged"),
}
_WITH = {
    "plain": ("without a pattern", "in one color", "with no pattern"),
    "striped": ("with stripes", "with stripes across it", "covered in stripes"),
    "dotted": ("with dots", "with polka dots", "covered in dots"),
    "checkered": ("with checks", "with a checkered pattern", "covered in checks"),
    "zigzag": ("with zigzags", "with a zigzag pattern", "covered in zigzags"),
}
_MOTIONS = {
    "still": ("stays still {place}", "rests {place}", "stands still {place}"),
    "left-to-right": ("moves from left to right", "travels to the right", "crosses the frame from left to right"),
    "right-to-left": ("moves from right to left", "travels to the left", "crosses the frame from right to left"),
    "rise": ("rises from bottom to top", "goes up", "floats upwards through the frame"),
    "fall": ("falls from top to bottom", "goes down", "sinks downwards through the frame"),
    "diagonal": (
        "moves diagonally from the {start} to the {end}",
        "travels on a diagonal towards the {end}",
        "goes from the {start} corner to the {end} corner",
    ),
    "circle": ("moves in a circle {turn}", "circles {turn}", "goes around in a circle {turn}"),
    "bounce": ("bounces up and down", "hops up and down", "bounces along the bottom"),
    "zigzag": ("moves in a zigzag to the {side}", "zigzags to the {side}", "goes up and down on its way to the {side}"),
    "swing": ("swings from side to side", "sways like a pendulum", "swings back and forth"),
    "approach": (
        "comes closer {place}",
        "grows as it approaches {place}",
        "gets bigger {place} as it comes nearer",
    ),
    "spin": (
        "spins {turn} {place}",
        "turns around itself {turn} {place}",
        "rotates {turn} {place}",
    ),
}
_BACKGROUNDS = {
    "meadow": ("over a green meadow", "above rolling green hills", "in a sunny meadow"),
    "sea": ("over a blue sea", "above the waves of the sea", "at sea"),
    "night sky": ("in a starry night sky", "under the moon and stars", "against the night sky"),
    "brick wall": ("in front of a brick wall", "before a red brick wall", "against a wall of bricks"),
    "wooden floor": ("over a wooden floor", "on wooden floorboards", "above brown wooden planks"),
    "desert": ("over desert dunes", "in a sandy desert", "above the dunes of a desert"),
    "city": ("in front of a city skyline", "before tall city buildings", "over a city at sunset"),
    "mountains": ("in front of snowy mountains", "before a range of snowy peaks", "in the mountains"),
}
_PLAIN = ("in front of a plain {} background", "against a plain {} backdrop", "before a smooth {} background")
_CAMERAS = {
    "static": ("", "The camera does not move.", ""),
    "pan-right": ("The camera pans to the right.", "The camera moves slowly to the right.", "The view pans right."),
    "pan-left": ("The camera pans to the left.", "The camera moves slowly to the left.", "The view pans left."),
    "tilt-up": ("The camera tilts up.", "The camera moves slowly upwards.", "The view tilts up."),
    "tilt-down": ("The camera tilts down.", "The camera moves slowly downwards.", "The view tilts down."),
    "zoom-in": ("The camera zooms in.", "The camera moves closer.", "The view zooms in."),
    "zoom-out": ("The camera zooms out.", "The camera moves back.", "The view zooms out."),
}
_PROPS = {
    "none": ("", "", ""),
    "grass": ("Blades of grass stand in the foreground.", "There is grass at the front.", "Grass grows in front."),
    "post": ("A wooden post stands in the foreground.", "There is a post at the front.", "A post stands in front."),
    "bush": ("A bush stands in the foreground.", "There is a bush at the front.", "A bush grows in front."),
}
_COUNTS = ("No objects", "One object", "Two objects", "Three objects")


def scattered(options: Sequence[str], key: str) -> str:
    """Choose one of the options by a hash of the key, the same on every machine."""
    # A CRC alone is linear: neighbouring keys would always get different words. The product spreads its bits.
    number = (crc32(key.encode()) * 0x9E3779B1) & 0xFFFFFFFF
    return options[(number * len(options)) >> 32]


def pick(options: Sequence[str], seed: int, phrasing: int, slot: str) -> str:
    """Choose one of the wordings for a slot: the first in phrasing 0, otherwise by a checksum of seed and slot."""
    if phrasing == 0:
        return options[0]
    return scattered(options, f"{seed}/{phrasing}/{slot}")


def with_article(words: str) -> str:
    """Put "a" or "an" before words that begin as they are spelled."""
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"


def _joined(phrases: Sequence[str], last: str = " and ") -> str:
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + last + phrases[-1]


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _place(x: float, y: float) -> str:
    across = "left" if x < -0.33 else "right" if x > 0.33 else ""
    down = "upper" if y < -0.33 else "lower" if y > 0.33 else ""
    if across and down:
        return f"in the {down} {across}"
    if across:
        return f"on the {across}"
    return {"upper": "at the top", "lower": "at the bottom"}.get(down, "in the middle")


def motion_words(seed: int, obj: "SceneObject", phrasing: int, slot: str) -> str:
    """Say in the third person what an object does, entry and exit included."""
    course = obj.course
    words = pick(_MOTIONS[course.kind], seed, phrasing, f"{obj.uid}/motion").format(
        place=_place(*course.anchor),
        side="right" if course.direction > 0 else "left",
        turn="clockwise" if course.direction > 0 else "counterclockwise",
        start=f"{'top' if course.slope > 0 else 'bottom'} {'left' if course.direction > 0 else 'right'}",
        end=f"{'bottom' if course.slope > 0 else 'top'} {'right' if course.direction > 0 else 'left'}",
    )
    if course.enters_at > 0:
        verbs = ("enters later and", "comes into view late and") if course.kind in MOTIONS_THAT_TRAVEL else (
            "appears later and", "pops up late and"
        )  # fmt: skip
        words = f"{pick(verbs, seed, phrasing, f'{obj.uid}/{slot}/enter')} {words}"
    if course.leaves_at < 1:
        words += pick((" and leaves before the end", " and is gone before the end"), seed, phrasing, f"{obj.uid}/leave")
    return words


def reference(obj: "SceneObject") -> str:
    """Return the object's name as it stands inside a sentence, without an article."""
    return obj.name.lower()


def describe_object(seed: int, obj: "SceneObject", phrasing: int = 0) -> str:
    """Describe one object without its name: size, colour, pattern, category, motion."""
    size = pick(_SIZES[obj.size], seed, phrasing, f"{obj.uid}/size")
    adjective = pick(ADJECTIVES[obj.pattern], seed, phrasing, f"{obj.uid}/adjective")
    pattern = pick(_WITH[obj.pattern], seed, phrasing, f"{obj.uid}/with")
    moves = motion_words(seed, obj, phrasing, "object")
    forms = (
        f"{with_article(size)} {adjective} {obj.colour} {obj.category} that {moves}.",
        f"{with_article(size)} {obj.colour} {obj.category} {pattern}. It {moves}.",
        f"this {obj.category} is {size} and {obj.colour}, {pattern}, and it {moves}.",
        f"{with_article(adjective)} {obj.category} in {obj.colour}, {size}, which {moves}.",
        f"{with_article(obj.colour)} {obj.category} of {'average' if obj.size == 'medium' else obj.size} size "
        f"{pattern}. The {obj.category} {moves}.",
    )
    return _capital(pick(forms, seed, phrasing, f"{obj.uid}/form"))


def background_words(scene: "Scene", phrasing: int = 0) -> str:
    """Say where the scene plays, beginning with a preposition."""
    if scene.background in _BACKGROUNDS:
        return pick(_BACKGROUNDS[scene.background], scene.seed, phrasing, "background")
    return pick(_PLAIN, scene.seed, phrasing, "background").format(scene.background)


def describe_scene(scene: "Scene", phrasing: int = 0) -> str:
    """Describe the whole clip: the objects and what they do, the background, the camera, the foreground."""
    where = background_words(scene, phrasing)
    rest = [
        pick(_PROPS[scene.prop], scene.seed, phrasing, "prop"),
        pick(_CAMERAS[scene.camera], scene.seed, phrasing, "camera"),
    ]
    if not scene.objects:
        empty = ("the video shows a view {} with no objects in it.", "nothing moves {}.", "an empty view {}.")
        body = pick([form.format(where) for form in empty], scene.seed, phrasing, "empty")
    else:
        things = [with_article(reference(obj)) for obj in scene.objects]
        moves = [motion_words(scene.seed, obj, phrasing, "scene") for obj in scene.objects]
        clauses = [f"{thing} {move}" for thing, move in zip(things, moves, strict=True)]
        the = [f"the {reference(obj)} {move}" for obj, move in zip(scene.objects, moves, strict=True)]
        number = _COUNTS[len(things)] if len(things) < len(_COUNTS) else f"{len(things)} objects"
        forms = (
            f"{_joined(clauses)} {where}.",
            f"the video shows {_joined(things)} {where}. {_capital(_joined(the))}.",
            f"{where}, {_joined(clauses, ' while ')}.",
            f"{number} can be seen {where}: {_joined(things)}. {_capital(_joined(the, ', and '))}.",
        )
        body = pick(forms, scene.seed, phrasing, "scene")
    return " ".join(sentence for sentence in (_capital(body), *rest) if sentence)


@lru_cache(maxsize=256)
def told(seed: int, obj: "SceneObject", phrasing: int = 0) -> ObjectDescription:
    """Return an object's entry in the paragraph; kept, since every edit of a scene repeats the other objects."""
    return ObjectDescription(obj.name, describe_object(seed, obj, phrasing))


def narrate(scene: "Scene", phrasing: int = 0) -> Paragraph:
    """Write the scene's paragraph in the paper's format; phrasing 0 is the reference, others use other words."""
    objects = tuple(told(scene.seed, obj, phrasing) for obj in scene.objects)
    return Paragraph(describe_scene(scene, phrasing), objects)
