"""The VPLM sample: one clip, its paragraph, and for each object its mask, boxes, description and inpainted clip."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.paragraph import Paragraph
from raccoon_datamodules.video import Video

SCHEMA_VERSION = 1

EditKind = Literal["remove", "add", "change"]


@dataclass(frozen=True, slots=True)
class ObjectRecord:
    """One annotated object of a clip.

    ``id`` matches ``[A-Za-z0-9_-]+`` and is unique in the sample; ``name`` is the object's name in the paragraph;
    ``category`` its class label; ``description`` its single-object description, without the name;
    ``mask`` uint8 {0, 1} [F, H, W], the visible part, 1 = the object; ``boxes`` float32 [F, 4] xyxy in [0, 1], a NaN row
    where it is absent; ``inpainted`` the clip without this object, or None where nobody made it;
    ``attributes`` what is known besides (colour, pattern, size, motion of a synthetic object).
    """

    id: str
    name: str
    category: str
    description: str
    mask: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    inpainted: Video | None
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EditPrompt:
    """One written edit of a clip: the kind, the object it is about, the instruction, and the paragraph it leads to."""

    kind: EditKind
    object_id: str
    instruction: str
    before: Paragraph
    after: Paragraph


@dataclass(frozen=True, slots=True)
class VplmSample:
    """One sample of the VPLM dataset (paper, sections 3.3 and A.1).

    ``key`` matches ``[A-Za-z0-9_-]{1,120}``. ``paragraph`` is the reference; ``phrasings`` holds further paragraphs that
    say the same in other words. ``meta`` is plain JSON (source, licence, seed, difficulty).
    """

    key: str
    video: Video
    paragraph: Paragraph
    objects: tuple[ObjectRecord, ...]
    edits: tuple[EditPrompt, ...] = ()
    phrasings: tuple[Paragraph, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
