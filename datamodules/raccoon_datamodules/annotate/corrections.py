"""What people correct of an annotated data set: one video of every hundred, and through it the rest of its hundred.

``corrections.json`` holds an entry a reviewed video::

    {"format": "raccoon-vplm-corrections", "version": 1, "videos": [
        {"key": "bear-0", "text": ["Video Description: ...", "", "Object Descriptions:", "1. Bear: ..."],
         "answered": "<hash of the text as the model wrote it>",
         "wish": "Call the animal a red panda.", "replace": {"raccoon": "red panda"}}]}

``text`` (a list of lines, or a string) takes the place of the model's answer where it differs from it; ``wish`` is
added to the prompt of every other video of the same hundred, which are asked again with the corrected text as their
example; ``replace`` puts whole words in the place of others in that hundred, at no cost. Entries may be added by hand
for any key; one without ``answered`` counts as corrected.

Source: RACCooN, A.1: "we sampled 1 annotated video from each 100 batches and then did a human cross-check, and refined
the batch annotations according to the sampled example".
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raccoon_datamodules.annotate.annotator import Wish
from raccoon_datamodules.annotate.complaints import complaints
from raccoon_datamodules.atomic import replacing
from raccoon_datamodules.paragraph import Paragraph

BATCH = 100
FORMAT = "raccoon-vplm-corrections"
CORRECTIONS_NAME = "corrections.json"
_WISHES = ("wish", "replace")
_FIELDS = ("key", "text", "answered", *_WISHES)


@dataclass(frozen=True, slots=True)
class Correction:
    """What one entry says; ``text`` is None where the model's answer stands, ``notes`` what was left out or guessed."""

    key: str
    text: Paragraph | None = None
    wish: str = ""
    replacements: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Corrections:
    """The corrections of a data set with the given keys, in stored order; ``found`` by key."""

    def __init__(self, keys: Sequence[str], found: Iterable[Correction] = ()) -> None:
        self._batch = {key: place // BATCH for place, key in enumerate(keys)}
        self.found = {correction.key: correction for correction in found}
        self._wishes: dict[int, Wish] = {}
        for correction in self.found.values():
            if correction.wish or correction.replacements:
                batch = self._batch[correction.key]
                before = self._wishes.get(batch, Wish())
                text = " ".join(filter(None, (before.text, correction.wish)))
                example = correction.text if correction.wish and correction.text is not None else before.corrected
                self._wishes[batch] = Wish(text, example, {**before.replacements, **correction.replacements})

    def text(self, key: str) -> Paragraph | None:
        """The paragraph a person wrote for this video, or None."""
        found = self.found.get(key)
        return found.text if found else None

    @property
    def notes(self) -> dict[str, tuple[str, ...]]:
        """What was left out or guessed of the texts written by hand, by key."""
        return {key: found.notes for key, found in self.found.items() if found.notes}

    def wish(self, key: str) -> Wish | None:
        """What a reviewer wants of the batch this video is in, or None."""
        return self._wishes.get(self._batch[key])


def reviewed_key(keys: Collection[str]) -> str:
    """The video of a batch that is set aside for review: the key with the smallest SHA-256.

    Raises:
        ValueError: if there are no keys.
    """
    if not keys:
        raise ValueError("a video for review is chosen from at least one key, got none")
    return min(keys, key=lambda key: hashlib.sha256(key.encode()).hexdigest())


def reviewed_keys(keys: Sequence[str], annotated: Collection[str]) -> list[str]:
    """One annotated video of every 100 of ``keys`` (stored order); a hundred without an annotated one has none."""
    batches = [keys[i : i + BATCH] for i in range(0, len(keys), BATCH)]
    there = [[key for key in batch if key in annotated] for batch in batches]
    return [reviewed_key(batch) for batch in there if batch]


def text_hash(paragraph: Paragraph) -> str:
    """What ``answered`` holds: the first 16 hexadecimal digits of the canonical text's SHA-256."""
    return hashlib.sha256(str(paragraph).encode()).hexdigest()[:16]


def entry(key: str, answered: Paragraph) -> dict[str, Any]:
    """The entry of a video nobody has corrected yet."""
    text = str(answered).split("\n")
    return {"key": key, "text": text, "answered": text_hash(answered), "wish": "", "replace": {}}


def load_corrections(paths: Sequence[str | Path], keys: Sequence[str]) -> Corrections:
    """Read files of corrections for the data set with these keys; a later file's entry takes an earlier one's place.

    Raises:
        FileNotFoundError: if a file is not there.
        ValueError: if it is not what this module describes, names a key the data set does not have, or holds a text
            that is no whole paragraph; every fault is named.
    """
    known = set(keys)
    found: dict[str, Correction] = {}
    for path in paths:
        faults = []
        seen: set[str] = set()
        for number, value in enumerate(_entries(Path(path)), 1):
            try:
                correction = _read(value)
            except ValueError as err:
                faults.append(f"entry {number}: {err}")
                continue
            if correction.key not in known:
                faults.append(f"entry {number}: the data set has no video {correction.key!r}")
            elif correction.key in seen:
                faults.append(f"entry {number}: there is another entry for {correction.key}")
            seen.add(correction.key)
            found[correction.key] = correction
        if faults:
            raise ValueError(f"the corrections {path} cannot be used: {'; '.join(faults)}")
    return Corrections(keys, found.values())


def save_template(
    path: str | Path, answered: Mapping[str, Paragraph], used: Sequence[str | Path] = ()
) -> list[dict[str, Any]]:
    """Write an entry for each reviewed video; the corrections in the files ``used`` stay as they are.

    ``answered`` gives the paragraphs of the reviewed videos as they are now. Returns the entries written. Raises as
    `load_corrections`.
    """
    before = {value["key"]: value for source in used for value in _entries(Path(source))}
    entries = []
    for key, paragraph in answered.items():
        value, fresh = before.pop(key, None), entry(key, paragraph)
        if value is not None:
            # A text nobody touched follows the model's new answer; the remarks stay.
            is_own = _read(value).text is not None
            kept: dict[str, Any] = {name: value[name] for name in _WISHES if name in value}
            fresh = _whole(value) if is_own else {**fresh, **kept}
        entries.append(fresh)
    for value in before.values():
        correction = _read(value)
        if correction.text is not None or correction.wish or correction.replacements:
            entries.append(_whole(value))
    content = {"format": FORMAT, "version": 1, "videos": entries}
    with replacing(Path(path), overwrite=True) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return entries


def _whole(value: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with every field that the page edits, in the page's form."""
    text = value.get("text", [])
    lines = text.split("\n") if isinstance(text, str) else list(text)
    return {**value, "text": lines, "wish": value.get("wish", "").strip(), "replace": value.get("replace", {})}


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there are no corrections at {path}; give the file that the review page saved"
        ) from None
    except ValueError as err:
        raise ValueError(f"the corrections {path} are not JSON: {err}") from err
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("version") != 1:
        raise ValueError(f'the corrections {path} must hold {{"format": "{FORMAT}", "version": 1, "videos": [...]}}')
    videos = content.get("videos")
    if not isinstance(videos, list) or not all(isinstance(v, dict) and isinstance(v.get("key"), str) for v in videos):
        raise ValueError(f"the corrections {path} must hold under videos a list of entries, each with a key")
    return videos


def _read(value: Mapping[str, Any]) -> Correction:
    key = value["key"]
    if unknown := [name for name in value if name not in _FIELDS]:
        raise ValueError(f"{key}: there is no field {unknown[0]!r}; use {', '.join(_FIELDS)}")
    text, wish, replacements = value.get("text", ""), value.get("wish", ""), value.get("replace", {})
    if isinstance(text, list) and all(isinstance(line, str) for line in text):
        text = "\n".join(text)
    if not isinstance(text, str) or not isinstance(wish, str):
        raise ValueError(f"{key}: text must be a string or a list of lines and wish a string")
    is_words = isinstance(replacements, dict) and all(isinstance(v, str) for v in replacements.values())
    if not is_words or not all(old.strip() for old in replacements):
        raise ValueError(f"{key}: replace must map words to words, got {replacements!r}")
    if not text.strip():
        return Correction(key, None, wish.strip(), replacements)
    paragraph, notes = Paragraph.parse(text)
    if text_hash(paragraph) == value.get("answered"):
        return Correction(key, None, wish.strip(), replacements)
    faults, _ = complaints(paragraph)
    if faults:
        raise ValueError(f"{key}: {'; '.join([*faults, *notes])}")
    return Correction(key, paragraph, wish.strip(), replacements, tuple(notes))
