"""DAVIS 2016 and 2017 (480p): video object segmentation, in the paper the test of text-based editing.

Layout of the published archives (DAVIS-2017-trainval-480p.zip; DAVIS-data.zip of 2016)::

    ROOT/JPEGImages/480p/<video>/00000.jpg ...
    ROOT/Annotations/480p/<video>/00000.png ...        palette images, 0 = background, 1, 2, ... = objects
    ROOT/ImageSets/2017/{train,val}.txt                one video a line (2016 of the archive of 2017: likewise)
    ROOT/ImageSets/480p/{train,val,trainval}.txt       the archive of 2016: "image annotation", a line a frame

Source: the paper, appendix A.2: "select 30 unique videos from the DAVIS dataset. For each video, we annotate two
different types of editing, attribute editing and instance editing", 60 text-video pairs. Neither the list nor the
edits are published: videos are selected by `selection`, and edits come from a file of yours (`read_edits`).
"""

import json
from pathlib import Path
from typing import Any, Literal

from raccoon_datamodules.benchmarks.item import Benchmark, BenchmarkEdit, BenchmarkItem
from raccoon_datamodules.benchmarks.selection import Names, field, need, select
from raccoon_datamodules.mask_files import natural_key

PUBLISHED = "https://davischallenge.org"
LAYOUT = "ROOT/JPEGImages/480p/VIDEO/, ROOT/Annotations/480p/VIDEO/ and ROOT/ImageSets/2017/"
# The published frames have no times; the sequences were filmed at 24 frames per second.
FPS = 24.0
# Of the paper's selection.
COUNT = 30
KINDS = ("attribute", "instance")


def davis(
    root: str | Path,
    *,
    year: Literal[2016, 2017] = 2017,
    split: Literal["train", "val", "trainval"] = "trainval",
    count: int | None = COUNT,
    seed: int = 0,
    names: Names | None = None,
    edits: str | Path | None = None,
) -> Benchmark:
    """The DAVIS videos, with their masks, and with edits where ``edits`` names a file of `read_edits`.

    ``count`` videos in hash order (30 in the paper; None = all), or those of ``names``: a text file with one a line, or
    a sequence. The masks of 2016 are one object, those of 2017 several: `BenchmarkItem.read_masks` unites them, or
    takes the ``object_ids`` asked for.

    Raises:
        FileNotFoundError: if a folder or list is not there; the sentence says where DAVIS is published.
        ValueError: if a list is empty, fewer videos are there than asked for, or the edits are not as `read_edits` says
            or lack a chosen video.
    """
    root = Path(root)
    if year not in (2016, 2017) or split not in ("train", "val", "trainval"):
        raise ValueError(f"DAVIS has the years 2016, 2017 and the splits train, val, trainval, got {year} and {split}")
    frames = need(root / "JPEGImages" / "480p", "DAVIS", PUBLISHED, LAYOUT)
    masks = need(root / "Annotations" / "480p", "DAVIS", PUBLISHED, LAYOUT)
    written = {} if edits is None else read_edits(edits)

    def make(name: str) -> BenchmarkItem | None:
        folder, mask_folder = frames / name, masks / name
        if not (folder.is_dir() and mask_folder.is_dir()):
            return None
        caption, asked = written.get(name, ("", ()))
        return BenchmarkItem(
            name, folder, fps=FPS, masks=mask_folder, captions=(caption,) if caption else (), edits=asked
        )

    found = select("DAVIS", _names(root, year, split), make, count=count, seed=seed, chosen=names)
    without = [item.name for item in found if edits is not None and not item.edits]
    if without:
        raise ValueError(
            f"{edits} must hold the edits of every chosen video, {', '.join(without[:5])} "
            f"{'has' if len(without) == 1 else 'have'} none; add them, or choose other videos (names)"
        )
    return found


def read_edits(path: str | Path) -> dict[str, tuple[str, tuple[BenchmarkEdit, ...]]]:
    """Read hand-written edits: video name to (caption, edits).

    The file is JSON, ``{"blackswan": {"caption": "a black swan on a lake", "attribute": "a white swan on a lake",
    "instance": "a duck on a lake"}, ...}``: each prompt says what the edited video shows.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is no such JSON, or a video lacks one of the two edits or its caption.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there are no edits at {path}: name a JSON file with caption, attribute and instance")
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise ValueError(f"{path} must be JSON with caption, attribute and instance a video: {err}") from err
    if not isinstance(content, dict):
        raise ValueError(f"{path} must be a JSON object, video to its edits, got a {type(content).__name__}")
    found: dict[str, tuple[str, tuple[BenchmarkEdit, ...]]] = {}
    for name, record in content.items():
        texts = {key: str(field(record, key, str, f"{path}, {name}")).strip() for key in ("caption", *KINDS)}
        empty = [key for key, text in texts.items() if not text]
        if empty:
            raise ValueError(f"{path}, {name} must say what each prompt shows, {', '.join(empty)} is empty")
        asked = (BenchmarkEdit("attribute", texts["attribute"]), BenchmarkEdit("instance", texts["instance"]))
        found[str(name)] = (texts["caption"], asked)
    return found


def _names(root: Path, year: int, split: str) -> list[str]:
    """The videos of a split by the lists of the archive of 2017 or, for 2016, by those of the archive of 2016."""
    folder = root / "ImageSets" / str(year)
    if year == 2016 and not folder.is_dir() and (root / "ImageSets" / "480p").is_dir():
        folder = root / "ImageSets" / "480p"
    need(folder, "DAVIS", PUBLISHED, LAYOUT)
    files = [folder / f"{split}.txt"]
    if split == "trainval" and not files[0].is_file():
        files = [folder / "train.txt", folder / "val.txt"]
    names: set[str] = set()
    for file in files:
        need(file, "DAVIS", PUBLISHED, LAYOUT)
        for line in file.read_text(encoding="utf-8").split("\n"):
            first = line.split()[0] if line.strip() else ""
            # "/JPEGImages/480p/bear/00000.jpg /Annotations/..." of 2016, "bear" of 2017.
            names.add(Path(first).parent.name if "/" in first else first)
    names.discard("")
    if not names:
        raise ValueError(f"{files[0]} must list videos, it lists none; unpack the archive again")
    return sorted(names, key=natural_key)
