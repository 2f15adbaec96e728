"""The figures of an evaluation: their names, what they must reach (the bar) and what they should reach (the aim).

The bars say that a trained stage stands clearly above what knows nothing; they are not moved when one is missed.
"""

from dataclasses import dataclass

from raccoon.evaluation.figures import Bar, Group, Unit

# Floors.
RANDOM_WORDS = "random words"
OTHER_CLIP = "its answer for another clip"
UNTRAINED = "untrained"
CENTRE = "always the centre"
OTHER_BOXES = "boxes of another object"
RANDOM_CLUSTER = "a random cluster"
LEFT_IN = "left as it is"
TELEA = "Telea"
MEDIAN = "temporal median"
RANDOM_COLOUR = "a random colour"
# Ceilings.
SUPERPIXELS = "best union of superpixels"
ROUND_TRIP = "the truth through the VAE"
TRUTH = "the truth"


@dataclass(frozen=True, slots=True)
class Spec:
    """A figure before it is measured."""

    name: str
    group: Group
    bar: Bar | None = None
    aim: float | None = None
    unit: Unit = ""


_CHANCE = (RANDOM_WORDS, OTHER_CLIP)

SPECS = {
    "recall": Spec("objects found (category and colour)", "V2P", Bar("times", 3, _CHANCE), 0.6),
    "precision": Spec("named objects that are there", "V2P", Bar("clear"), 0.6),
    "recall_category": Spec("objects found (category alone)", "V2P"),
    "colour": Spec("named objects whose colour is right", "V2P", Bar("times", 3, _CHANCE), 0.6),
    "parse_paragraph": Spec("paragraphs that parse", "V2P", Bar("exactly", 1)),
    "box_iou": Spec("IoU of planned boxes", "V2P", Bar("clear"), 0.4),
    "parse_layout": Spec("layouts that parse", "V2P", Bar("exactly", 1)),
    "mask_iou": Spec("IoU of the text's mask", "grounding", Bar("times", 1.5, (CENTRE, RANDOM_CLUSTER)), 0.4),
    "remove_psnr": Spec("removal: PSNR inside the mask", "P2V", Bar("floor", over=(TELEA,)), unit="dB"),
    "remove_max_error": Spec("removal: largest error outside", "P2V", Bar("exactly", 0), unit="of 255"),
    "add_shown": Spec("addition shows the asked colour", "P2V", Bar("times", 3, (RANDOM_COLOUR,)), 0.5),
    "add_max_error": Spec("addition: largest error outside", "P2V", Bar("exactly", 0), unit="of 255"),
    "change_shown": Spec("change shows the asked colour", "P2V", Bar("times", 3, (RANDOM_COLOUR,)), 0.5),
    "change_max_error": Spec("change: largest error outside", "P2V", Bar("exactly", 0), unit="of 255"),
}
