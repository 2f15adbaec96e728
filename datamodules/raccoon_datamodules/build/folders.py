"""Finds source videos in folders: ROVI's three trees, DAVIS's two, or any folder of videos with or without masks.

A video is a video file, or a folder that holds pictures; its name is its path below the folder of videos, without the
ending. Its masks lie in a folder of the same name in the folder of masks: label images, or for each object a folder of
its own or one file (`mask_stacks`); or all of them are one file of the video's name. Its inpainted pictures lie in
``<name>/<object>/``, or are the video ``<name>/<object>.mp4``.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from raccoon_datamodules.build.findings import Finding
from raccoon_datamodules.build.keys import plain_name
from raccoon_datamodules.build.metadata import Metadata
from raccoon_datamodules.build.sources import ARRAYS, PICTURES, VIDEOS, SourceLayout, SourceVideo
from raccoon_datamodules.mask_files import natural_key

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
            what = "is a file: name the folder that it is in" if place.exists() else "is not there: check the name"
            raise FileNotFoundError(f"the folder {place} {what}")
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
    mask_places = _places(masks, (*ARRAYS, *VIDEOS))
    inpainted_places = _places(inpainted, VIDEOS)
    for name in sorted(found, key=natural_key):
        media = found[name]
        notes: list[Finding] = []
        groups = _masks_of(root, media, mask_places.pop(name, []), name, notes)
        if masks is not None and not groups:
            where = (masks / name).relative_to(root)
            text = f"there is no annotation for it: no pictures in {where}, and no {where}.npz or {where}.mp4"
            scan.findings.append(Finding("left out", "video", "no annotation", name, "", text))
            continue
        gone: dict[str, tuple[str, ...]] = {}
        for place in inpainted_places.pop(name, []):
            if place.is_dir():
                gone |= _objects(root, place, VIDEOS, name, notes)
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
    for kind, rest in (("annotation", mask_places), ("inpainted pictures", inpainted_places)):
        known = set(found)
        for name, (folder, *_) in sorted(rest.items()):
            above = {name, *(parent.as_posix() for parent in PurePosixPath(name).parents)}
            if above & known or any(other.startswith(f"{name}/") for other in found):
                continue
            if not folder.is_dir() or _pictures(folder) or any(_pictures(inner) for inner in _subfolders(folder)):
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


def _places(base: Path | None, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    """What lies below a folder by its relative name: folders first, and files with these endings, without them."""
    found: dict[str, list[Path]] = {}
    waiting = [(base, 0)] if base is not None else []
    while waiting:
        folder, depth = waiting.pop()
        assert base is not None
        inner = _subfolders(folder)
        for entry in (*inner, *_by_kind(folder, suffixes)):
            name = (entry if entry.is_dir() else entry.with_suffix("")).relative_to(base).as_posix()
            found.setdefault(plain_name(name), []).append(entry)
        if depth < _DEEPEST:
            waiting += [(entry, depth + 1) for entry in inner]
    return found


def _masks_of(
    root: Path, media: str | tuple[str, ...], places: list[Path], name: str, notes: list[Finding]
) -> Mapping[str, tuple[str, ...]]:
    """The masks of a video: label images, else those of each object, else the one file of all."""
    kinds: dict[str, dict[str, tuple[str, ...]]] = {}
    for place in places:
        if not place.is_dir():
            # The folder of masks may be that of the videos.
            if place.relative_to(root).as_posix() != media:
                kinds.setdefault(place.name, {"": (place.relative_to(root).as_posix(),)})
            continue
        pictures = _pictures(place)
        if pictures:
            kinds["its folder"] = {"": _relative(root, pictures)}
        groups = {i: files for i, files in _objects(root, place, (*ARRAYS, *VIDEOS), name, notes).items() if files}
        if groups:
            kinds[", ".join(sorted(groups))] = groups
    if len(kinds) > 1:
        first, *others = kinds
        text = f"its masks lie both in {first} and in {', '.join(others)}: those of {first} are used"
        notes.append(Finding("left out", "file", "masks in two places", name, "", text))
    return next(iter(kinds.values()), {})


def _objects(
    root: Path, folder: Path, suffixes: tuple[str, ...], name: str, notes: list[Finding]
) -> dict[str, tuple[str, ...]]:
    """Object to the pictures in its folder (there may be none), or to its one file."""
    found = {entry.name: _relative(root, _pictures(entry)) for entry in _subfolders(folder)}
    for file in _by_kind(folder, suffixes):
        if found.get(file.stem):
            text = f"{file.relative_to(root)} is there besides {found[file.stem][0]}, which is used"
            notes.append(Finding("left out", "file", "object in two places", name, file.stem, text))
        else:
            found[file.stem] = _relative(root, [file])
    return found


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    files = [e for e in folder.iterdir() if e.suffix.lower() in suffixes and not e.name.startswith(".") and e.is_file()]
    return sorted(files, key=lambda file: (natural_key(file.name), file.name))


def _by_kind(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files with these endings, those of the first ending first: arrays are exact, videos are not."""
    return sorted(_files(folder, suffixes), key=lambda file: suffixes.index(file.suffix.lower()))


def _pictures(folder: Path) -> list[Path]:
    return _files(folder, PICTURES)


def _subfolders(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _relative(root: Path, files: list[Path]) -> tuple[str, ...]:
    return tuple(file.relative_to(root).as_posix() for file in files)
