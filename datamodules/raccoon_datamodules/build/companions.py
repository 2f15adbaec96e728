"""Label images and inpainted pictures beside a video's frames: which belongs to which, and what is to be said of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from raccoon_datamodules.build.findings import Notes
from raccoon_datamodules.build.matching import Match, match_count, match_names

Companion = Literal["annotation", "inpainted"]


def matched(
    frames: Sequence[str],
    files: Sequence[str],
    count: int | None,
    *,
    what: Companion,
    group: str,
    notes: Notes,
    annotated: Sequence[int] = (),
) -> Match:
    """Match pictures to frames (`matching`), or the ``count`` pictures in one file; what is doubtful becomes a note.

    ``annotated``: the frames that have a label image, from which alone inpainted pictures may have been made.
    """
    item = f"{what} {group}".strip()
    if count is None:
        names = [Path(file).stem for file in files]
        found = match_names(frames, names)
    else:
        names = [str(number) for number in range(count)]
        found = match_count(len(frames), count)
    # Made from the annotated frames alone, perhaps under other names.
    if not found.by_name and len(names) == len(annotated) < len(frames):
        found = Match(
            dict(zip(annotated, range(len(names)), strict=True)), "by position among the annotated frames", False
        )
    is_plain = count == len(frames)
    if found.places and not found.by_name and not is_plain:
        first = min(found.places)
        pair = f"{names[found.places[first]]} with frame {frames[first]}"
        text = f"the {what} is matched with the frames {found.how} ({pair})"
        notes.add("note", "file", f"{what} matched by position", item, text)
    if what == "annotation" and found.is_doubtful(len(frames)):
        text = (
            f"by their names the {len(names)} label images are of the first of its {len(frames)} frames; if "
            "they are of every k-th, name them like those"
        )
        notes.add("note", "file", "annotation of the first frames only", item, text)
    if found.unmatched and found.places:
        some = ", ".join(Path(files[n]).name for n in found.unmatched[:5])
        text = f"{len(found.unmatched)} pictures of the {what} have no frame of their name: {some}"
        notes.add("left out", "file", f"{what} without a frame", item, text)
    return found
