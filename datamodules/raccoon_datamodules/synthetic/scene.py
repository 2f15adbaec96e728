"""A scene: everything that is shown and said about one clip, before it is drawn at any size."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raccoon_datamodules.masks import boxes_of
from raccoon_datamodules.paragraph import Paragraph
from raccoon_datamodules.sample import ObjectRecord, VplmSample
from raccoon_datamodules.synthetic.background import background_table
from raccoon_datamodules.synthetic.edits import SceneEdit, edits_of
from raccoon_datamodules.synthetic.motion import Course, Floats
from raccoon_datamodules.synthetic.narrate import NUM_PHRASINGS, narrate, told
from raccoon_datamodules.synthetic.render import Rendered, rasterise
from raccoon_datamodules.synthetic.vocabulary import CATEGORIES, COLOURS, GENERATOR_VERSION, PATTERNS
from raccoon_datamodules.video import Video


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One object: what it is, how large (``radius`` in units of the frame's scale) and how it moves.

    ``uid`` stays with it when the scene is edited; ``qualifier`` tells two objects of one colour and category apart.
    """

    uid: str
    category: str
    colour: str
    pattern: str
    size: str
    radius: float
    course: Course
    qualifier: str = ""

    @property
    def name(self) -> str:
        """The object's name in the paragraph, as "Red Star"."""
        return " ".join(word for word in (self.qualifier, self.colour, self.category) if word).title()

    def attributes(self) -> dict[str, Any]:
        """Return what is known about the object as plain JSON; times are fractions of the clip."""
        return {
            "category": self.category,
            "colour": self.colour,
            "pattern": self.pattern,
            "size": self.size,
            "motion": self.course.kind,
            "direction": "right" if self.course.direction > 0 else "left",
            "enters_at": self.course.enters_at,
            "leaves_at": self.course.leaves_at,
        }


@dataclass(frozen=True, slots=True)
class Scene:
    """A frozen description of a clip: objects from back to front, background, camera, light and foreground.

    ``light`` is +1 where it comes from the right, -1 from the left. ``seed`` also fixes the background's details and
    the choice of words, so an edited scene (``without``, ``with_object``) keeps both.
    """

    seed: int
    difficulty: str
    objects: tuple[SceneObject, ...]
    background: str
    camera: str = "static"
    light: int = 1
    prop: str = "none"

    @property
    def key(self) -> str:
        """The sample's key, as ``synth-easy-000123``."""
        return f"synth-{self.difficulty}-{self.seed:06d}"

    @property
    def table(self) -> Floats:
        """The random numbers [256] in [-1, 1] behind the background's details."""
        return background_table(np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, 1]))))

    def without(self, index: int) -> "Scene":
        """Return the scene without one object (and without its shadow); raises IndexError if there is none such."""
        self._check(index)
        return replace(self, objects=self.objects[:index] + self.objects[index + 1 :])

    def with_object(
        self, index: int, *, category: str | None = None, colour: str | None = None, pattern: str | None = None
    ) -> "Scene":
        """Return the scene with one object changed; its size, place and motion stay.

        Raises IndexError if there is no such object, ValueError if a word is unknown or the new name is taken.
        """
        self._check(index)
        changes: dict[str, Any] = {}
        given = {"category": (category, CATEGORIES), "colour": (colour, COLOURS), "pattern": (pattern, PATTERNS)}
        for attribute, (word, known) in given.items():
            if word is None:
                continue
            if word not in known:
                raise ValueError(f"{attribute} must be one of {', '.join(known)}, got {word!r}")
            changes[attribute] = word
        changed = replace(self.objects[index], **changes)
        names = {obj.name for i, obj in enumerate(self.objects) if i != index}
        if changed.name in names:
            raise ValueError(f"object names must differ in a scene, and {changed.name!r} is already there")
        return replace(self, objects=(*self.objects[:index], changed, *self.objects[index + 1 :]))

    def paragraph(self, phrasing: int = 0) -> Paragraph:
        """Write the paragraph; phrasing 0 is the reference, any other number says the same in other words."""
        return narrate(self, phrasing)

    def edits(self) -> tuple[SceneEdit, ...]:
        """Return the written edits of this scene with what they do to it: per object remove, add and three changes."""
        return edits_of(self)

    def rasterise(self, *, num_frames: int = 8, size: tuple[int, int] = (64, 64), inpainted: bool = True) -> Rendered:
        """Draw the pixels only; see `render.rasterise`."""
        return rasterise(self, num_frames=num_frames, size=size, inpainted=inpainted)

    def render(
        self, *, num_frames: int = 8, size: tuple[int, int] = (64, 64), fps: float = 8.0, inpainted: bool = True
    ) -> VplmSample:
        """Draw the scene and put it together with its words.

        ``size`` is (H, W) in pixels, ``fps`` frames a second; the motion fills the clip whatever its length. Without
        ``inpainted`` the records' inpainted clips are None, which is faster.
        Raises ValueError for sizes, counts and rates that cannot be drawn.
        """
        if not fps > 0:
            raise ValueError(f"fps must be above 0, got {fps}")
        drawn = rasterise(self, num_frames=num_frames, size=size, inpainted=inpainted)
        video = Video.from_frames(drawn.frames, fps)
        records = tuple(
            ObjectRecord(
                id=obj.uid,
                name=obj.name,
                category=obj.category,
                description=told(self.seed, obj).description,
                mask=drawn.masks[i],
                boxes=boxes_of(drawn.masks[i]),
                inpainted=None if drawn.inpainted is None else video.with_frames(drawn.inpainted[i]),
                attributes=obj.attributes(),
            )
            for i, obj in enumerate(self.objects)
        )
        return VplmSample(
            key=self.key,
            video=video,
            paragraph=self.paragraph(),
            objects=records,
            edits=tuple(edit.prompt for edit in self.edits()),
            phrasings=tuple(self.paragraph(k) for k in range(1, NUM_PHRASINGS)),
            meta=self.meta(),
        )

    def meta(self) -> dict[str, Any]:
        """Return where the sample comes from, as plain JSON."""
        return {
            "source": "synthetic",
            "generator_version": GENERATOR_VERSION,
            "seed": self.seed,
            "difficulty": self.difficulty,
            "background": self.background,
            "camera": self.camera,
            "foreground": self.prop,
        }

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self.objects):
            raise IndexError(f"the scene has {len(self.objects)} objects, counted from 0; there is no object {index}")
