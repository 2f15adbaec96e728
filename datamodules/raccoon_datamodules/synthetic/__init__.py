"""The procedural VPLM: seeded little worlds of which everything is known exactly.

A `Scene` is made from a seed and drawn at any size and length; a sample holds the video, the video without each object,
masks, boxes, paragraphs in several phrasings and written edits. Same seed, same bytes, for one GENERATOR_VERSION.
"""

from raccoon_datamodules.synthetic.edits import SceneEdit, render_edit
from raccoon_datamodules.synthetic.generate import make_sample, make_scene, seed_of
from raccoon_datamodules.synthetic.render import Rendered
from raccoon_datamodules.synthetic.scene import Scene, SceneObject
from raccoon_datamodules.synthetic.sheet import contact_sheet
from raccoon_datamodules.synthetic.vocabulary import DIFFICULTIES, GENERATOR_VERSION, Difficulty

__all__ = [
    "DIFFICULTIES",
    "GENERATOR_VERSION",
    "Difficulty",
    "Rendered",
    "Scene",
    "SceneEdit",
    "SceneObject",
    "contact_sheet",
    "make_sample",
    "make_scene",
    "render_edit",
    "seed_of",
]
