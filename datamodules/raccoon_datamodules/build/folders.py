"""Finds source videos in folders: ROVI's three trees, DAVIS's two, or any folder of videos with or without masks.

A video is a video file, or a folder that holds pictures; its name is its path below the folder of videos, without the
ending. Its masks lie in a folder of the same name in the folder of masks: label images, or one folder for each object.
Its inpainted pictures lie in ``<name>/<object>/``.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from raccoon_datamodules.build.findings import Finding
from raccoon_datamodules.build.keys import plain_name
from raccoon_datamodules.build.metadata import Metadata
from raccoon_datamodules.build.sources import SourceLayout, SourceVideo
from raccoon_datamodules.mask_files import natural_key

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp", ".ogv")
_DEEPEST = 8


@dataclass(slots=True)
class Scan:
    """What a folder holds: the videos in the order of their names, and what is there besides."""

    videos: list[SourceVideo] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def scan_rovi(root: str | Path, *, metadata: Metadata | None = None) -> Scan:
    """ROVI: ``JPEGImages/<video>/``, ``Annotations/<video>/``, ``InpaintImages/<video>/<object>/``.

    ``root`` may also be the folder whose ``data`` holds these.

    Raises:
        FileNotFoundError: if the first two are not there.
    """
    root = Path(root)
    if not (root / "JPEGImages").is_dir() and (root / "data" / "JPEGImages").is_dir():
        root = root / "data"
    frames, masks = (_needed(root, name, "ROVI") for name in ("JPEGImages", "Annotations"))
    inpainted = root / "InpaintImages"
    scan = _scan(root, frames, masks, inpainted if inpainted.is_dir() else None, "rovi", metadata)
    if not inpainted.is_dir():
        text = f"there is no folder {inpainted}: no object has an inpainted clip"
        scan.findings.append(Finding("note", "inpainted clip", "no InpaintImages folder", "", "InpaintImages", text))
    return scan


def scan_davis(root: str | Path, *, resolution: str | None = None, metadata: Metadata | None = None) -> Scan:
    """DAVIS: ``JPEGImages/<resolution>/<video>/`` and ``Annotations/<resolution>/<video>/``.

    Raises:
        FileNotFoundError: if they are not there.
        ValueError: if there are several resolutions and none was chosen.
    """
    root = Path(root)
    frames, masks = (_needed(root, name, "DAVIS") for name in ("JPEGImages", "Annotations"))
    if resolution is None:
        found = sorted(entry.name for entry in frames.iterdir() if entry.is_dir())
        if not found:
            raise FileNotFoundError(f"{frames} must hold a folder for each resolution, such as 480p; it holds none")
        direct = any(_pictures(frames / name) for name in found)
        if len(found) > 1 and not direct:
            raise ValueError(f"{frames} holds the resolutions {', '.join(found)}: choose one (--resolution)")
        resolution = "." if direct else found[0]
    return _scan(root, frames / resolution, _needed(masks, resolution, "DAVIS"), None, "davis", metadata)


def scan_videos(
    folder: str | Path,
    *,
    masks: str | Path | None = None,
    inpainted: str | Path | None = None,
    metadata: Metadata | None = None,
) -> Scan:
    """Any folder of video files and frame folders, with folders of masks and inpainted pictures or without.

    Raises:
        FileNotFoundError: if a folder is not there.
    """
    folder = Path(folder)
    places = [Path(place) for place in (folder, masks, inpainted) if place is not None]
    for place in places:
        if not place.is_dir():
            raise FileNotFoundError(f"there is no folder {place}: check the name")
    # Paths in the data set are relative to what all of these share.
    root = Path(os.path.commonpath([place.resolve() for place in places]))
    resolved = [Path(place).resolve() if place is not None else None for place in (masks, inpainted)]
    layout: SourceLayout = "videos" if masks is None else "davis"
    return _scan(root, folder.resolve(), resolved[0], resolved[1], layout, metadata)


def _needed(root: Path, name: str, layout: str) -> Path:
    if not (root / name).is_dir():
        raise FileNotFoundError(f"{root} must hold the folder {name} of the {layout} layout: name the folder above it")
    return root / name


def _scan(
    root: Path,
    frames: Path,
    masks: Path | None,
    inpainted: Path | None,
    layout: SourceLayout,
    metadata: Metadata | None,
) -> Scan:
    scan, metadata = Scan(), metadata or Metadata()
    others = {place.resolve() for place in (masks, inpainted) if place is not None and place != frames}
    found: dict[str, str | tuple[str, ...]] = {}
    _find(root, frames, frames, found, scan, others, 0)
    mask_folders = _folders(masks)
    inpainted_folders = _folders(inpainted)
    for name in sorted(found, key=natural_key):
        media = found[name]
        notes: list[Finding] = []
        groups = _masks_of(root, mask_folders.pop(name, None), name, notes)
        if masks is not None and not groups:
            where = masks / name
            text = f"there is no annotation for it: no pictures in {where.relative_to(root)}"
            scan.findings.append(Finding("left out", "video", "no annotation", name, "", text))
            continue
        gone = {
            entry.name: _relative(root, _pictures(entry)) for entry in _subfolders(inpainted_folders.pop(name, None))
        }
        for object_id in sorted(i for i, files in gone.items() if not files):
            text = f"its folder of inpainted pictures for object {object_id} is empty"
            notes.append(Finding("left out", "inpainted clip", "empty folder", name, object_id, text))
            del gone[object_id]
        scan.videos.append(
            SourceVideo(
                name=name,
                layout=layout,
                root=str(root),
                video=media if isinstance(media, str) else None,
                frames=() if isinstance(media, str) else media,
                masks=groups,
                inpainted=gone,
                categories=metadata.categories.get(name, {}),
                expressions=metadata.expressions.get(name, {}),
                findings=tuple(notes),
            )
        )
    for kind, rest in (("annotation", mask_folders), ("inpainted pictures", inpainted_folders)):
        known = set(found)
        for name, folder in sorted(rest.items()):
            above = {name, *(parent.as_posix() for parent in PurePosixPath(name).parents)}
            if above & known or any(other.startswith(f"{name}/") for other in found):
                continue
            if _pictures(folder) or any(_pictures(inner) for inner in _subfolders(folder)):
                known.add(name)
                text = f"{folder.relative_to(root)} holds {kind} of a video that is not there"
                scan.findings.append(Finding("left out", "file", f"{kind} without a video", name, "", text))
    return scan


def _find(
    root: Path,
    base: Path,
    folder: Path,
    found: dict[str, str | tuple[str, ...]],
    scan: Scan,
    others: set[Path],
    depth: int,
) -> None:
    """Add the videos at and below a folder to ``found``: name to file, or to pictures."""
    files = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    pictures = _pictures(folder)
    if pictures and folder != base:
        _add(found, plain_name(folder.relative_to(base).as_posix()), _relative(root, pictures), scan)
    elif pictures:
        text = f"{len(pictures)} pictures lie in {base} itself; the frames of a video need a folder of their own in it"
        scan.findings.append(
            Finding("left out", "file", "pictures outside a video's folder", "", pictures[0].name, text)
        )
    inner = False
    for entry in files:
        if entry.is_dir():
            inner = True
            if depth < _DEEPEST and entry.resolve() not in others:
                _find(root, base, entry, found, scan, others, depth + 1)
        elif entry.suffix.lower() in VIDEOS:
            inner = True
            name = plain_name(entry.relative_to(base).with_suffix("").as_posix())
            if not entry.is_file():
                text = f"{entry.name} is no file that can be read: a broken link, or a pipe"
                scan.findings.append(Finding("left out", "video", "no file", name, "", text))
                continue
            _add(found, name, entry.relative_to(root).as_posix(), scan)
        elif entry.suffix.lower() not in PICTURES and (folder == base or not pictures):
            text = f"{entry.relative_to(root)} is neither a video nor a picture"
            scan.findings.append(Finding("note", "file", "neither video nor picture", "", entry.name, text))
    if not pictures and not inner and folder != base:
        name = plain_name(folder.relative_to(base).as_posix())
        scan.findings.append(Finding("left out", "video", "empty folder", name, "", "its folder holds no pictures"))


def _add(found: dict[str, str | tuple[str, ...]], name: str, media: str | tuple[str, ...], scan: Scan) -> None:
    if name in found:
        first = found[name] if isinstance(found[name], str) else "a folder of frames"
        second = media if isinstance(media, str) else "a folder of frames"
        text = f"{first} and {second} have one name: rename one of them; the first is used"
        scan.findings.append(Finding("left out", "video", "name taken by another video", name, str(second), text))
    else:
        found[name] = media


def _folders(base: Path | None) -> dict[str, Path]:
    """Every folder below a folder by its relative name."""
    found: dict[str, Path] = {}
    waiting = [(entry, 0) for entry in _subfolders(base)]
    while waiting:
        folder, depth = waiting.pop()
        assert base is not None
        found[plain_name(folder.relative_to(base).as_posix())] = folder
        if depth < _DEEPEST:
            waiting += [(entry, depth + 1) for entry in _subfolders(folder)]
    return found


def _masks_of(root: Path, folder: Path | None, name: str, notes: list[Finding]) -> Mapping[str, tuple[str, ...]]:
    if folder is None:
        return {}
    pictures = _pictures(folder)
    groups = {entry.name: _relative(root, _pictures(entry)) for entry in _subfolders(folder)}
    groups = {object_id: files for object_id, files in groups.items() if files}
    if pictures and groups:
        text = f"its masks lie both in its folder and in {', '.join(sorted(groups))}: those of the folder are used"
        notes.append(Finding("left out", "file", "masks in two places", name, "", text))
    return {"": _relative(root, pictures)} if pictures else groups


def _pictures(folder: Path) -> list[Path]:
    files = [e for e in folder.iterdir() if e.suffix.lower() in PICTURES and not e.name.startswith(".") and e.is_file()]
    return sorted(files, key=lambda file: (natural_key(file.name), file.name))


def _subfolders(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _relative(root: Path, files: list[Path]) -> tuple[str, ...]:
    return tuple(file.relative_to(root).as_posix() for file in files)
