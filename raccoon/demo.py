"""The demo without learned parts: one object's line deleted from a paragraph, its mask given, the object gone.

It runs the very code of `raccoon edit`. Because the scene is rendered, the true video without the object is known, and
the result is measured against it: beside it stand the PSNR of leaving the object in and of Telea's inpainting alone.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from raccoon.editor import Editor, EditProgress, EditRequest, EditResult, plan_of_words, write_result
from raccoon.report import Section, measurement_rows, write_report, write_strip
from raccoon_datamodules.atomic import check_writable
from raccoon_datamodules.masks import Masks, read_masks, write_masks
from raccoon_datamodules.paragraph import Paragraph
from raccoon_datamodules.synthetic import make_scene
from raccoon_datamodules.video import Video

RECIPE = "pipeline/classical"
# A scene before a wall, seen by a camera that stands still: what the painter of this stage is made for.
DEFAULT_SEED = 207
NUM_FRAMES = 36
SIZE = (270, 480)
FPS = 12.0

NOTHING_LEARNED = (
    "Nothing learned takes part here: the paragraph and the mask of this scene are known because the scene was "
    "rendered, and the removal is painted by a temporal median with Telea's inpainting."
)
NOTHING_LEARNED_YOURS = (
    "Nothing learned takes part here: you gave the mask, and the removal is painted by a temporal median with Telea's "
    "inpainting, which suits a camera that stands still."
)


@dataclass(frozen=True, slots=True)
class SceneFiles:
    """What the demo wrote of its scene; ``truth`` frames uint8 [F, H, W, 3], the scene without the removed object."""

    video: Path
    mask: Path
    before: Path
    after: Path
    removed: str
    truth: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """Where the demo's result is and what was measured of it."""

    plan: str
    result: Path
    report: Path
    command: str
    rows: Mapping[str, str]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as plain JSON."""
        return {
            "plan": self.plan,
            "result": str(self.result),
            "report": str(self.report),
            "command": self.command,
            "measured": dict(self.rows),
            "notes": list(self.notes),
        }


def check_folder(folder: Path, *, rendered: bool, overwrite: bool = False) -> None:
    """Raise what the demo would raise about its folder, before anything is written; ``rendered``: of its own scene.

    Raises:
        NotADirectoryError: if it is a file.
        FileExistsError: if it holds a file that the demo writes and ``overwrite`` is False.
        PermissionError: if nothing can be written into it.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} must be a folder, it is a file; choose another --out")
    if not folder.is_dir():
        return
    names = ["edited.mp4", "edited.json", "report.html", "strip.png"]
    for name in [*names, *(["scene.mp4", "before.txt", "after.txt"] if rendered else [])]:
        check_writable(folder / name, overwrite=overwrite)
    if rendered and not overwrite and (folder / "mask").exists():
        raise FileExistsError(
            f"{folder / 'mask'} exists already: pass --overwrite to replace it, or choose another folder"
        )


def make_scene_files(folder: Path, *, seed: int = DEFAULT_SEED, overwrite: bool = False) -> SceneFiles:
    """Render a scene into ``folder``: scene.mp4, mask/, before.txt, and after.txt with its first object's line deleted.

    Raises:
        FileExistsError: if one of them is there and ``overwrite`` is False.
    """
    scene = make_scene(seed, "medium")
    sample = scene.render(num_frames=NUM_FRAMES, size=SIZE, fps=FPS)
    removed = sample.objects[0]
    assert removed.inpainted is not None
    # What has to go is the object and the shadow it casts.
    mask = removed.mask | scene.rasterise(num_frames=NUM_FRAMES, size=SIZE, inpainted=False).shadows[0]
    after = Paragraph(
        sample.paragraph.description, tuple(o for o in sample.paragraph.objects if o.name != removed.name)
    )
    files = SceneFiles(
        video=folder / "scene.mp4",
        mask=folder / "mask",
        before=folder / "before.txt",
        after=folder / "after.txt",
        removed=removed.name,
        truth=removed.inpainted.frames,
    )
    sample.video.write(files.video, overwrite=overwrite)
    if overwrite and files.mask.is_dir():
        for picture in files.mask.glob("*.png"):
            picture.unlink()
    write_masks(mask, files.mask)
    for path, paragraph in ((files.before, sample.paragraph), (files.after, after)):
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists already: pass --overwrite to replace it, or choose another folder")
        path.write_text(f"{paragraph}\n", encoding="utf-8")
    return files


def run_edit(
    folder: Path,
    *,
    files: SceneFiles | None = None,
    video: str | Path | None = None,
    mask: str | Path | None = None,
    invert: bool = False,
    trust: bool = False,
    overwrite: bool = False,
    progress: EditProgress | None = None,
) -> DemoOutcome:
    """Remove the object; write edited.mp4, its sidecar, report.html and strip.png into ``folder``.

    Either ``files`` of a rendered scene, or ``video`` and ``mask`` of the user's own, of which ``invert`` exchanges
    the two parts and ``trust`` lets one pass that looks inverted.
    """
    out, report = folder / "edited.mp4", folder / "report.html"
    command = ["raccoon", "edit"]
    if files is not None:
        clip = Video.read(files.video)
        before = Paragraph.parse(files.before.read_text(encoding="utf-8"))[0]
        after = Paragraph.parse(files.after.read_text(encoding="utf-8"))[0]
        masks = read_masks(files.mask, video=clip)
        request = EditRequest(video=clip, before=before, after=after, masks=masks)
        command += [str(files.video), "-o", str(out), "--before", str(files.before), "--paragraph", str(files.after)]
        command += ["--mask", str(files.mask)]
        notes: tuple[str, ...] = (NOTHING_LEARNED,)
    else:
        assert video is not None
        assert mask is not None
        clip = Video.read(video)
        plan, _ = plan_of_words(remove=["Masked Object"])
        masks = read_masks(mask, video=clip)
        masks = Masks(1 - masks.data) if invert else masks
        request = EditRequest(video=clip, plan=plan, masks=masks, trust_masks=trust)
        command += [str(video), "-o", str(out), "--remove", "Masked Object", "--mask", str(mask)]
        command += ["--invert-mask"] * invert + ["--trust-mask"] * trust
        notes = (NOTHING_LEARNED_YOURS,)
    editor = Editor.from_recipe(RECIPE)
    prepared = editor.prepare(request)
    # Not before: what cannot be read leaves no empty folder behind.
    folder.mkdir(parents=True, exist_ok=True)
    result = editor.edit(request, prepared=prepared, progress=progress)
    encoded = write_result(result, out, overwrite=overwrite)
    extra = {} if files is None else truth_rows(result, files.truth)
    title = f"Removed: {', '.join(edit.name for edit in result.plan.edits)}"
    write_report([Section(result, encoded, extra=extra)], report, title=title, notes=notes)
    write_strip(result, folder / "strip.png")
    return DemoOutcome(
        plan="; ".join(str(edit) for edit in result.plan.edits),
        result=out,
        report=report,
        command=shlex.join(command),
        rows={**extra, **measurement_rows(result, encoded)},
        notes=(*notes, *result.notes),
    )


def truth_rows(result: EditResult, truth: NDArray[np.uint8]) -> dict[str, str]:
    """PSNR inside the mask against the true video without the object, beside two floors."""
    mask = result.steps[0].mask.astype(bool)
    telea = np.stack(
        [
            cv2.inpaint(frame, m.astype(np.uint8), 5, cv2.INPAINT_TELEA)
            for frame, m in zip(result.source.frames, mask, strict=True)
        ]
    )
    candidates = {"this result": result.video.frames, "Telea alone": telea, "left in": result.source.frames}
    text = ", ".join(f"{name} {psnr(frames[mask], truth[mask]):.1f} dB" for name, frames in candidates.items())
    return {"inside the mask, against the true background": text}


def psnr(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Return the PSNR in dB of two arrays of pixels; infinite where they are equal."""
    error = np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))
