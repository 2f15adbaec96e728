"""ActivityNet Captions: sentences for the events of YouTube videos; in the paper conditional generation.

Layout::

    ROOT/{train,val_1,val_2}.json                      captions.zip; also below ROOT/captions/
    ROOT/**/v_<id>.mp4                                 mkv and webm too, with or without the "v_"; at any depth

A JSON is ``{"v_ID": {"duration", "timestamps": [[start, end], ...], "sentences": [text, ...]}}``, times in seconds.
``val_1`` and ``val_2`` are two annotators of the validation videos, most of which are in both.

Source: the paper, appendix A.2: "We uniformly selected 100 videos from those 3 datasets"; read as 100 of each here.
"""

import json
from pathlib import Path
from typing import Any, Literal

from raccoon_datamodules.benchmarks.item import Benchmark, BenchmarkItem, Segment
from raccoon_datamodules.benchmarks.selection import Names, field, need, select, videos_below

PUBLISHED = "https://cs.stanford.edu/people/ranjaykrishna/densevid (captions) and http://activity-net.org (videos)"
LAYOUT = "ROOT/train.json, ROOT/val_1.json, ROOT/val_2.json and ROOT/videos/v_ID.mp4"
# Of the paper's selection.
COUNT = 100
FILES = {"train": ("train.json",), "val": ("val_1.json", "val_2.json")}


def activitynet_captions(
    root: str | Path,
    *,
    split: Literal["train", "val"] = "val",
    count: int | None = COUNT,
    seed: int = 0,
    names: Names | None = None,
) -> Benchmark:
    """The videos of ActivityNet Captions with their events; a caption for each annotator of a video.

    ``count`` videos in hash order (100 in the paper; None = all), or those of ``names``: a text file with one "v_ID" a
    line, or a sequence. Videos that YouTube has lost are passed over and named in `Benchmark.missing`.

    Raises:
        FileNotFoundError: if a JSON of the split is not there; the sentence says where to get it.
        ValueError: if one is no such JSON, or fewer videos are there than asked for.
    """
    root = Path(root)
    if split not in FILES:
        raise ValueError(f"ActivityNet Captions has the splits train and val, got {split!r}")
    need(root, "ActivityNet Captions", PUBLISHED, LAYOUT)
    annotators = []
    for file in FILES[split]:
        inner = root / "captions" / file
        path = inner if inner.is_file() else need(root / file, "ActivityNet Captions", PUBLISHED, LAYOUT)
        annotators.append((path, _read(path)))
    files = videos_below(root)

    def make(name: str) -> BenchmarkItem | None:
        source = files.get(name) or files.get(name.removeprefix("v_"))
        if source is None:
            return None
        told = [_events(records[name], f"{path}, {name}") for path, records in annotators if name in records]
        captions = tuple(" ".join(event.sentence for event in events) for events in told)
        return BenchmarkItem(name, source, captions=captions, segments=tuple(told))

    every = {name for _, records in annotators for name in records}
    return select("ActivityNet Captions", every, make, count=count, seed=seed, chosen=names)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise ValueError(f"{path} must be captions in JSON, download it again: {err}") from err
    if not isinstance(content, dict):
        raise ValueError(f"{path} must be a JSON object, video to its captions, got a {type(content).__name__}")
    return content


def _events(record: Any, where: str) -> tuple[Segment, ...]:
    """The events in order; some published timestamps are the wrong way round."""
    times: Any = field(record, "timestamps", list, where)
    sentences: Any = field(record, "sentences", list, where)
    is_pair = [isinstance(t, list) and len(t) == 2 and all(isinstance(x, int | float) for x in t) for t in times]
    if len(times) != len(sentences) or not all(is_pair):
        raise ValueError(
            f"{where} must have one [start, end] in seconds for each sentence, got {len(times)} for {len(sentences)}"
        )
    events = [
        Segment(float(min(t)), float(max(t)), " ".join(str(s).split())) for t, s in zip(times, sentences, strict=True)
    ]
    return tuple(sorted(events, key=lambda event: (event.start, event.end)))
