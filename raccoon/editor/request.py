"""What goes into the editor and what comes out of it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from raccoon.editor.paste import Measurements
from raccoon.plan import Edit, EditPlan
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.masks import Masks
from raccoon_datamodules.paragraph import Paragraph
from raccoon_datamodules.video import Video

# stage ("finding Brown Dog", "painting Brown Dog"), done units, all units
EditProgress = Callable[[str, int, int], None]
MaskSource = Literal["given", "grounder", "layout"]
Part = Literal["painter", "grounder", "layout_planner", "describer"]
PARTS: tuple[Part, ...] = get_args(Part)


class PartError(RuntimeError):
    """A part of the recipe did not return what its plug point promises; the message names its class."""


@contextmanager
def at_work(part: object, doing: str) -> Iterator[None]:
    """Note on whatever is raised within which part was at work: ``while package.Class was painting 'Dog'``."""
    try:
        yield
    except Exception as err:
        err.add_note(f"while {type(part).__module__}.{type(part).__qualname__} was {doing}")
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class EditorSettings:
    """The plain settings of the editor; the section ``editor`` of a pipeline recipe.

    ``grow`` pixels by which a mask is grown before painting (None: 1.2 % of the longer side, rounded); ``feather``
    pixels outside the grown mask over which the painted fades into the source (None: 0.6 % of the longer side, rounded,
    at least 1). Beyond ``grow + feather`` pixels from a mask nothing changes.

    Raises:
        ValueError: if one is negative.
    """

    grow: int | None = None
    feather: int | None = None

    def __post_init__(self) -> None:
        for name in ("grow", "feather"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(
                    f"editor.{name} must be a number of pixels >= 0, or null to choose by size, got {value}"
                )

    def pixels(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return grow and feather in pixels for a video of (height, width)."""
        longer = max(size)
        grow = round(0.012 * longer) if self.grow is None else self.grow
        feather = max(1, round(0.006 * longer)) if self.feather is None else self.feather
        return grow, feather


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EditRequest:
    """One video and what shall become of it.

    What to edit is said by ``after``, the paragraph as the user left it (``before`` is asked of the describer when it
    is None), or by ``plan``, in which case the paragraphs are only kept for the record.
    ``masks``: one for the only edit, or a mask by object name; 1 = edit here. What has none is found by the grounder or
    placed by the layout planner. ``mask_paths`` says for the record where given masks came from, by object name, or by
    "" for the one mask of the only edit.
    ``trust_masks``: a mask that looks inverted or covers everything is only noted, not refused.
    ``layouts``, ``decisions``: see `raccoon.plan.diff`. ``size`` is the (height, width) the painter works at, None for
    its own choice; ``options`` are what one part alone understands, by the part: ``{"painter": {"steps": 4}}``.

    Raises:
        ValueError: if options are given for something that is no part of an editor.
    """

    video: Video
    before: Paragraph | None = None
    after: Paragraph | None = None
    plan: EditPlan | None = None
    masks: Masks | Mapping[str, Masks] | None = None
    mask_paths: Mapping[str, Path] = field(default_factory=dict)
    trust_masks: bool = False
    layouts: Mapping[str, Layout] | None = None
    decisions: Mapping[str, str] | None = None
    seed: int = 0
    size: tuple[int, int] | None = None
    options: Mapping[Part, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := [name for name, given in self.options.items() if name not in PARTS or not hasattr(given, "keys")]:
            raise ValueError(
                f"options are given by part ({', '.join(PARTS)}), for example {{'painter': {{'steps': 4}}}}, "
                f"got {unknown[0]!r}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class EditStep:
    """One edit with its mask, ready to be painted.

    ``mask`` uint8 {0, 1} [F, H, W] as given or found; ``mask_from`` who made it; ``prompt`` what is to be painted;
    ``notes`` what is strange about the mask, one sentence each.
    """

    edit: Edit
    mask: NDArray[np.uint8]
    mask_from: MaskSource
    prompt: str
    layout: Layout | None = None
    mask_path: Path | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Preparation:
    """All that is known before anything is painted: what ``--dry-run`` shows."""

    before: Paragraph | None
    after: Paragraph | None
    plan: EditPlan
    steps: tuple[EditStep, ...]


@dataclass(frozen=True, slots=True, eq=False)
class EditResult:
    """An edited video.

    ``video`` the result and ``source`` what it was made of, of equal size, length and timestamps; ``region`` uint8
    {0, 1} [F, H, W] is where the two may differ (the grown and feathered masks, united); ``steps`` in the order they
    were applied; ``grow`` and ``feather`` in pixels; ``facts`` what the sidecar says about recipe and parts.
    """

    video: Video
    source: Video
    plan: EditPlan
    steps: tuple[EditStep, ...]
    region: NDArray[np.uint8]
    measurements: Measurements
    before: Paragraph | None
    after: Paragraph | None
    seed: int
    size: tuple[int, int] | None
    options: Mapping[Part, Mapping[str, Any]]
    grow: int
    feather: int
    facts: Mapping[str, Any]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the plan and the masks gave reason to say."""
        return (*self.plan.notes, *(note for step in self.steps for note in step.notes))
