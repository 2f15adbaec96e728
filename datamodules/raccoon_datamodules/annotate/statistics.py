"""How many words describe a video and an object, beside the paper's own figures.

Source of `PAPER`: RACCooN, A.1: "7.2K high-quality quality well-structured, detailed video descriptions with an
average of 238.0 words for each video" and "5.5K object-mask-description triplets with an average of 37.2 words for each
object".
The paper does not say how words were counted; here they are runs of characters between white space, a video's are those
of its description and of every object's line, an object's those of its own description.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from raccoon_datamodules.paragraph import Paragraph


@dataclass(frozen=True, slots=True)
class VplmStatistics:
    """Counts and mean numbers of words; a mean of nothing is 0."""

    num_videos: int
    words_per_paragraph: float
    num_objects: int
    words_per_object: float


PAPER = VplmStatistics(num_videos=7200, words_per_paragraph=238.0, num_objects=5500, words_per_object=37.2)
"""The data set of the paper; its counts are rounded to hundreds there."""


def paragraph_words(paragraph: Paragraph) -> int:
    """Words of a paragraph: its description, and the names and descriptions of its objects; no headings, no numbers."""
    told = sum(len(item.name.split()) + len(item.description.split()) for item in paragraph.objects)
    return len(paragraph.description.split()) + told


def describe_statistics(samples: Iterable[tuple[Paragraph, Iterable[str]]]) -> VplmStatistics:
    """Count over (paragraph, descriptions of the objects that have a mask) of each video.

    An object without a description is no triplet of the paper's and is not counted; neither is an empty paragraph.
    """
    videos = words = objects = told = 0
    for paragraph, descriptions in samples:
        if count := paragraph_words(paragraph):
            videos, words = videos + 1, words + count
        for description in descriptions:
            if count := len(description.split()):
                objects, told = objects + 1, told + count
    return VplmStatistics(videos, words / videos if videos else 0.0, objects, told / objects if objects else 0.0)


def beside_paper(found: VplmStatistics) -> str:
    """A table of four lines: what was found and what the paper has."""
    rows = [
        ("videos", f"{found.num_videos}", f"{PAPER.num_videos / 1000:.1f}K"),
        ("words per video", f"{found.words_per_paragraph:.1f}", f"{PAPER.words_per_paragraph:.1f}"),
        ("objects with a mask", f"{found.num_objects}", f"{PAPER.num_objects / 1000:.1f}K"),
        ("words per object", f"{found.words_per_object:.1f}", f"{PAPER.words_per_object:.1f}"),
    ]
    head = f"{'':<20} {'here':>8} {'paper':>8}"
    return "\n".join([head, *(f"{name:<20} {here:>8} {paper:>8}" for name, here, paper in rows)])
