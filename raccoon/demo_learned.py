"""The demo of the learned road: a held-out clip is described, its text edited three times, and each edit painted.

Everything is done by the shipped miniature models of `pipeline/tiny`: the describer writes the paragraph, the grounder
finds what is named, the planner places what is added, the painter paints. They know a world of 64x64 scenes and nothing
else. The scene is from the test split, which no training has seen; because it is rendered, what was found and painted
is measured against what is true.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raccoon.demo import psnr
from raccoon.editor import Editor, EditRequest, EditResult, write_result
from raccoon.interfaces import DescribeRequest
from raccoon.report import Section, even_indices, measurement_rows, strip, write_report, write_rows
from raccoon_datamodules.atomic import check_writable, replacing
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.sample import VplmSample
from raccoon_datamodules.synthetic import make_scene, seed_of
from raccoon_datamodules.synthetic.vocabulary import CATEGORIES, COLOURS
from raccoon_datamodules.video import Video

RECIPE = "pipeline/tiny"
DEFAULT_SCENE = 1
SIZE = (64, 64)
NUM_FRAMES = 8
FPS = 8.0
# The colours and categories of easy scenes.
EASY_COLOURS, EASY_CATEGORIES = tuple(COLOURS)[:6], tuple(CATEGORIES)[:6]
FILES = (
    "clip.mp4",
    "before.txt",
    *(f"{kind}.{suffix}" for kind in ("remove", "change", "add") for suffix in ("txt", "mp4", "json")),
    "report.html",
    "strip.png",
)

NOTE = (
    "The models of this demo are miniatures: they know clips of 64x64 pixels with six kinds of objects in six colors, "
    "and nothing of the real world. The clip is from the test split, which they were not trained on."
)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class LearnedDemo:
    """What the demo made: the described paragraph, the true one, and a section of the report for each edit by kind."""

    described: Paragraph
    truth: Paragraph
    sections: dict[str, Section]
    report: Path

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as plain JSON."""
        measured = {
            kind: {**part.extra, **measurement_rows(part.result, part.encoded)} for kind, part in self.sections.items()
        }
        return {
            "described": self.described.to_json(),
            "truth": self.truth.to_json(),
            "measured": measured,
            "report": str(self.report),
            "notes": [NOTE],
        }


def check_learned_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Raise what the demo would raise about its folder, before anything is computed.

    Raises:
        NotADirectoryError: if it is a file.
        FileExistsError: if it holds a file that the demo writes and ``overwrite`` is False.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} must be a folder, it is a file; choose another --out")
    for name in FILES if folder.is_dir() else ():
        check_writable(folder / name, overwrite=overwrite)


def edited_paragraphs(paragraph: Paragraph) -> dict[str, Paragraph]:
    """Edit the text as a user would: delete the last line, give the first object another color, add a line.

    Raises:
        ValueError: if the paragraph has no object to edit.
    """
    if not paragraph.objects:
        raise ValueError("the describer named no object in this scene; choose another one with --seed")
    objects = list(paragraph.objects)
    text = " ".join(str(item) for item in objects).lower()
    first = objects[0]
    old = next((colour for colour in EASY_COLOURS if colour in first.name.lower()), None)
    free = [colour for colour in EASY_COLOURS if colour not in text]
    edits = {"remove": paragraph.objects[:-1]}
    if old is not None:
        new = free[0]
        renamed = ObjectDescription(
            first.name.replace(old.title(), new.title()), first.description.replace(f" {old} ", f" {new} ")
        )
        edits["change"] = (renamed, *objects[1:])
    colour, category = free[min(1, len(free) - 1)], next(name for name in EASY_CATEGORIES if name not in text)
    added = ObjectDescription(
        f"{colour} {category}".title(), f"A medium-sized plain {colour} {category} that stays still in the upper left."
    )
    edits["add"] = (*objects, added)
    return {kind: Paragraph(paragraph.description, items) for kind, items in edits.items()}


def run_learned(folder: Path, *, scene: int = DEFAULT_SCENE, overwrite: bool = False, say: Say) -> LearnedDemo:
    """Describe a scene of the test split and edit it three times; ``say`` is told what happens, a line at a time."""
    check_learned_folder(folder, overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    sample = make_scene(seed_of("test", scene), "easy").render(num_frames=NUM_FRAMES, size=SIZE, fps=FPS)
    clip = folder / "clip.mp4"
    sample.video.write(clip, lossless=True, overwrite=overwrite)
    video = Video.read(clip)
    editor = Editor.from_recipe(RECIPE)
    assert editor.describer is not None
    described = editor.describer.describe(DescribeRequest(video)).paragraph
    _write_text(folder / "before.txt", described)
    say(f"{clip}: a clip that no training has seen; the describer says of it:\n\n{described}\n")
    sections: dict[str, Section] = {}
    for kind, after in edited_paragraphs(described).items():
        _write_text(folder / f"{kind}.txt", after)
        out = folder / f"{kind}.mp4"
        result = editor.edit(EditRequest(video=video, before=described, after=after))
        encoded = write_result(result, out, lossless=True, overwrite=overwrite)
        heading = f"{kind}: {result.plan.edits[0]}"
        sections[kind] = Section(result, encoded, heading, truth_rows(result, sample))
        found = "; ".join(f"{name}: {value}" for name, value in sections[kind].extra.items())
        say(f"{out}: {result.plan.edits[0]}" + (f" ({found})" if found else ""))
    report = folder / "report.html"
    write_report(list(sections.values()), report, title="A clip, its text, three edits", notes=[NOTE])
    _write_strip(video, sections, folder / "strip.png")
    return LearnedDemo(described, sample.paragraph, sections, report)


def truth_rows(result: EditResult, sample: VplmSample) -> dict[str, str]:
    """What was found and painted, against what is true of the scene; empty where nothing is known of the object."""
    step = result.steps[0]
    known = {record.name.lower(): record for record in sample.objects}
    record = known.get(step.edit.before.name.lower()) if step.edit.before is not None else None
    if record is None:
        return {}
    union = (step.mask | record.mask).sum()
    rows = {"mask found by its name": f"IoU {(step.mask & record.mask).sum() / union:.2f} with the true mask"}
    if step.edit.kind == "remove" and record.inpainted is not None:
        inside = record.mask.astype(bool)
        truth = record.inpainted.frames[inside]
        rows["inside the true mask"] = (
            f"PSNR {psnr(result.video.frames[inside], truth):.1f} dB against the scene without it, "
            f"{psnr(result.source.frames[inside], truth):.1f} dB if left in"
        )
    return rows


def _write_text(path: Path, paragraph: Paragraph) -> None:
    with replacing(path, overwrite=True) as part:
        part.write_text(f"{paragraph}\n", encoding="utf-8")


def _write_strip(video: Video, sections: dict[str, Section], path: Path) -> None:
    """The clip in the first row, each edit in one of its own."""
    indices = even_indices(video.num_frames, 6)
    clips: list[np.ndarray] = [video.frames, *(section.result.video.frames for section in sections.values())]
    write_rows([strip(frames, indices=indices, height=128) for frames in clips], path)
