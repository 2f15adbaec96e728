"""A source video: where its frames, label images and inpainted pictures lie, what is known of it, and its identity."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from raccoon_datamodules.build.findings import Finding
from raccoon_datamodules.build.keys import name_hash, object_id, video_key

SourceLayout = Literal["rovi", "davis", "videos"]

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp", ".ogv")
ARRAYS = (".npz", ".npy")


def is_one_file(files: Sequence[str]) -> bool:
    """Whether these masks or inpainted frames are one file of all of them, a video or an array, not pictures."""
    return len(files) == 1 and files[0].lower().endswith((*VIDEOS, *ARRAYS))


@dataclass(frozen=True, slots=True)
class ObjectTexts:
    """What the released lists say of one object: ``descriptions``, the first is the reference; ``layouts`` as they are.

    ``prompts``: (task, words) of written edits; the task is "removal", "adding" or "editing".
    """

    descriptions: tuple[str, ...] = ()
    prompts: tuple[tuple[str, str], ...] = ()
    layouts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceVideo:
    """One video to build samples of; all paths are relative to ``root``, with forward slashes.

    ``name`` is what lists and reports call it. Exactly one of ``video`` (a file) and ``frames`` (pictures in natural
    order) is given. ``masks``: "" to label images, or each object's id to its own mask images; empty for videos
    without annotation. ``inpainted``: object id to the pictures without that object. In place of pictures there may be
    one file of all of them (`is_one_file`). ``categories`` and
    ``expressions`` by object id, from the source's metadata; ``paragraphs`` and ``texts`` (by object id) from the
    released lists. ``findings``: what looking for the files has found.
    """

    name: str
    layout: SourceLayout
    root: str
    video: str | None = None
    frames: tuple[str, ...] = ()
    masks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    inpainted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    categories: Mapping[str, str] = field(default_factory=dict)
    expressions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    paragraphs: tuple[str, ...] = ()
    texts: Mapping[str, ObjectTexts] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def key(self) -> str:
        """The key of its samples (`keys.video_key`)."""
        return video_key(self.name)

    @property
    def id(self) -> str:
        """A file name for its state."""
        return name_hash(self.name, size=12)

    @property
    def path(self) -> str:
        """Its file or the folder of its frames, relative to the root."""
        return self.video if self.video is not None else self.frames[0].rpartition("/")[0]

    def with_plain_ids(self) -> "SourceVideo":
        """The same with ids of objects as samples have them (`keys.object_id`), wherever they are keys."""
        return replace(
            self,
            masks={i and object_id(i): files for i, files in self.masks.items()},
            inpainted={object_id(i): files for i, files in self.inpainted.items()},
            categories={object_id(i): category for i, category in self.categories.items()},
            expressions={object_id(i): said for i, said in self.expressions.items()},
            texts={object_id(i): said for i, said in self.texts.items()},
        )

    def files(self) -> Iterator[str]:
        """Every file it is made of."""
        if self.video is not None:
            yield self.video
        yield from self.frames
        for group in (self.masks, self.inpainted):
            for name in sorted(group):
                yield from group[name]

    def identity(self) -> str:
        """What tells whether something changed, without reading: names, sizes, times of files, and what is known.

        Raises:
            OSError: if a file is not there any more.
        """
        root, digest = Path(self.root), hashlib.sha256(self._known())
        for file in self.files():
            stat = (root / file).stat()
            digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def content(self) -> str:
        """The same for the bytes of the files instead of their times: equal for a copy. Raises OSError."""
        root, digest = Path(self.root), hashlib.sha256(self._known())
        for file in self.files():
            with (root / file).open("rb") as opened:
                content = hashlib.file_digest(opened, "sha256").hexdigest()
            digest.update(f"{file}\0{content}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def _known(self) -> bytes:
        texts = {i: [t.descriptions, t.prompts, t.layouts] for i, t in self.texts.items()}
        known: dict[str, Any] = {
            "name": self.name,
            "layout": self.layout,
            "masks": sorted(self.masks),
            "categories": dict(self.categories),
            "expressions": dict(self.expressions),
            "paragraphs": self.paragraphs,
            "texts": texts,
            "findings": [finding.to_json() for finding in self.findings],
        }
        return json.dumps(known, sort_keys=True).encode()
