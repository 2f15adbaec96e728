"""Reads what other data sets know of their objects: class labels and referring expressions, by video and object id.

- YouTube-VOS ``meta.json``: ``{"videos": {VIDEO: {"objects": {ID: {"category": ...}}}}}``;
- Refer-YouTube-VOS ``meta_expressions.json``: ``{"videos": {VIDEO: {"expressions": {N: {"exp", "obj_id"}}}}}``;
- DAVIS semantics: ``{VIDEO: {ID: category}}``.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raccoon_datamodules.build.keys import plain_name


@dataclass(slots=True)
class Metadata:
    """``categories``: video to object id to class label; ``expressions``: the same to phrases."""

    categories: dict[str, dict[str, str]] = field(default_factory=dict)
    expressions: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)


def read_metadata(paths: Sequence[str | Path]) -> Metadata:
    """Read metadata files, later ones over earlier ones.

    Raises:
        FileNotFoundError: if one is not there.
        ValueError: if one is not JSON in one of the forms above.
    """
    metadata = Metadata()
    for path in map(Path, paths):
        if not path.is_file():
            raise FileNotFoundError(f"there is no metadata file {path}: check the name")
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as err:
            raise ValueError(f"the metadata {path} must be JSON in UTF-8: {err}") from err
        videos = value.get("videos", value) if isinstance(value, dict) else None
        # A list: every video is read, also after the first that held something.
        held = [_read(metadata, str(name), v) for name, v in videos.items()] if isinstance(videos, dict) else []
        if not any(held):
            raise ValueError(
                f"the metadata {path} must name classes or expressions by video and object, as YouTube-VOS meta.json "
                "({videos: {VIDEO: {objects: {ID: {category}}}}}), meta_expressions.json or DAVIS semantics do"
            )
    return metadata


def _read(metadata: Metadata, name: str, video: Any) -> bool:
    """Take what one video's entry holds; whether it held something."""
    name = plain_name(name)
    if not isinstance(video, dict):
        return False
    objects = video.get("objects", {} if "expressions" in video else video)
    categories = {}
    for object_id, entry in objects.items() if isinstance(objects, dict) else ():
        category = entry.get("category") if isinstance(entry, dict) else entry
        if isinstance(category, str) and category.strip():
            categories[str(object_id)] = category.strip()
    phrases: dict[str, list[str]] = {}
    listed = video.get("expressions")
    for entry in listed.values() if isinstance(listed, dict) else ():
        if isinstance(entry, dict) and isinstance(entry.get("exp"), str) and "obj_id" in entry:
            phrases.setdefault(str(entry["obj_id"]), []).append(entry["exp"].strip())
    if categories:
        metadata.categories[name] = {**metadata.categories.get(name, {}), **categories}
    if phrases:
        metadata.expressions[name] = {i: tuple(said) for i, said in phrases.items()}
    return bool(categories or phrases)
