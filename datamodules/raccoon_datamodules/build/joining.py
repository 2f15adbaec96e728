"""Joins the records of the released lists with the source videos: each to its video, or to the reason why not."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from raccoon_datamodules.build.findings import Finding
from raccoon_datamodules.build.released import Record
from raccoon_datamodules.build.sources import ObjectTexts, SourceVideo
from raccoon_datamodules.build.texts import split_name


def join(
    videos: Sequence[SourceVideo], records: Iterable[Record], *, listed_only: bool = False
) -> tuple[list[SourceVideo], list[Finding]]:
    """Give each video what the lists say of it; with ``listed_only`` the other videos are left out.

    A record is matched to the video of its name, or to the only one whose last folder is called so. Texts that say
    something else of the same video or object are kept behind the first one. Whether a record's mask is there is known
    only when the video is read (`texts.unplaced`).
    """
    by_name = {video.name: video for video in videos}
    by_last: dict[str, list[str]] = {}
    for video in videos:
        by_last.setdefault(video.name.rpartition("/")[2], []).append(video.name)
    findings = []
    given: dict[str, list[Record]] = {}
    for record in records:
        candidates = [record.vid] if record.vid in by_name else by_last.get(record.vid.rpartition("/")[2], [])
        if len(candidates) == 1:
            given.setdefault(candidates[0], []).append(record)
            continue
        text = (
            f"several videos are called so: {', '.join(candidates)}" if candidates else "no such video in the folders"
        )
        reason = "several videos of that name" if candidates else "no such video"
        findings.append(Finding("left out", "record", reason, record.vid, record.place, text))
    joined = []
    for video in videos:
        if video.name in given:
            joined.append(_with_texts(video, given[video.name]))
        elif listed_only:
            text = "the released lists do not name it"
            findings.append(Finding("left out", "video", "not in the lists", video.name, "", text))
        else:
            joined.append(video)
    return joined, findings


def _with_texts(video: SourceVideo, records: Sequence[Record]) -> SourceVideo:
    paragraphs: dict[str, None] = {}
    descriptions: dict[str, dict[str, str]] = {}
    prompts: dict[str, dict[tuple[str, str], None]] = {}
    layouts: dict[str, dict[str, None]] = {}
    notes = list(video.findings)
    for record in records:
        target = record.mask_id
        if record.kind == "paragraph":
            paragraphs[record.text] = None
        elif target is None:
            text = f"a {record.kind} must say which mask it is about"
            notes.append(Finding("left out", "record", "names no mask", video.name, record.place, text))
        elif record.kind == "object":
            known = descriptions.setdefault(target, {})
            said = split_name(record.text)[1]
            if known and said not in known:
                text = f"another description of object {target}: it is kept behind the first one"
                notes.append(Finding("note", "record", "second description", video.name, record.place, text))
            # One list may give the name, another only the description: the text that has both is kept.
            if len(record.text) > len(known.get(said, "")):
                known[said] = record.text
        elif record.kind == "layout":
            layouts.setdefault(target, {})[record.text] = None
        else:
            prompts.setdefault(target, {})[record.task, record.prompt] = None
    texts = {
        target: ObjectTexts(
            tuple(descriptions.get(target, {}).values()), tuple(prompts.get(target, ())), tuple(layouts.get(target, ()))
        )
        for target in sorted({*descriptions, *prompts, *layouts})
    }
    return replace(video, paragraphs=tuple(paragraphs), texts=texts, findings=tuple(notes))
