"""`raccoon vplm stats`: how many, how long, how large, how many words: the distributions of data sets.

Only the records of a sample are read (`meta.json`, `paragraph.json`, `edits.json`, `object-*.json`), never its clips or
masks: the area of a mask stands in its record. So it takes seconds where a check takes hours, and works over HTTP.
"""

import os
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules import members
from raccoon_datamodules.annotate.statistics import PAPER, paragraph_words
from raccoon_datamodules.faults import attempt
from raccoon_datamodules.members import object_suffix
from raccoon_datamodules.places import is_url
from raccoon_datamodules.sources import ShardSource
from raccoon_datamodules.view import MemberView

Progress = Callable[[int, int], None]

# Name, and what one number stands for.
MEASURES = {
    "frames": "frames per clip",
    "fps": "frames per second",
    "seconds": "seconds per clip",
    "objects": "objects per clip",
    "area": "% of the frame under an object's mask",
    "visible": "% of the frames an object is seen in",
    "paragraph_words": "words per paragraph",
    "description_words": "words about the whole video",
    "object_words": "words per object",
    "phrasings": "other phrasings per paragraph",
    "edits": "edits per clip",
    "megabytes": "MB per sample",
}
COUNTS = {"size": "size", "category": "object category", "edit": "edit"}
# The means that the paper states (section A.1), and its numbers of clips and of objects with a mask.
PAPER_MEANS = {"paragraph_words": PAPER.words_per_paragraph, "object_words": PAPER.words_per_object}


@dataclass(frozen=True, slots=True)
class Summary:
    """One distribution: its moments, its quantiles, and a histogram (``edges`` one longer than ``counts``)."""

    count: int
    mean: float
    std: float
    min: float
    p5: float
    median: float
    p95: float
    max: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        numbers = {name: getattr(self, name) for name in ("count", "mean", "std", "min", "p5", "median", "p95", "max")}
        return {**numbers, "histogram": {"edges": list(self.edges), "counts": list(self.counts)}}


@dataclass(slots=True)
class DataStats:
    """The distributions of some folders: ``values`` by the names of `MEASURES`, ``counts`` by those of `COUNTS`."""

    folders: dict[str, int] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    num_unreadable: int = 0
    num_inpainted: int = 0
    unreadable: list[str] = field(default_factory=list)
    values: dict[str, "array[float]"] = field(default_factory=lambda: {name: array("d") for name in MEASURES})
    counts: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in COUNTS})

    @property
    def num_clips(self) -> int:
        """Clips that could be read."""
        return len(self.values["frames"])

    @property
    def num_objects(self) -> int:
        """Objects with a record."""
        return len(self.values["area"])

    @property
    def num_described(self) -> int:
        """Clips with a text: of the whole video, or of an object."""
        return len(self.values["paragraph_words"])

    @property
    def num_described_objects(self) -> int:
        """Objects with a description of their own."""
        return len(self.values["object_words"])

    def array(self, name: str) -> NDArray[np.float64]:
        """All numbers of a measure, float64 [n]."""
        return np.array(self.values[name], dtype=np.float64)

    def summary(self, name: str, *, bins: int = 16) -> Summary | None:
        """A measure's distribution, None where there is nothing. Whole numbers get bins that begin between two."""
        values = self.array(name)
        if not values.size:
            return None
        counts, edges = np.histogram(values, bins=_edges(values, bins))
        p5, median, p95 = np.percentile(values, (5, 50, 95))
        return Summary(
            count=values.size,
            mean=float(values.mean()),
            std=float(values.std()),
            min=float(values.min()),
            p5=float(p5),
            median=float(median),
            p95=float(p95),
            max=float(values.max()),
            edges=tuple(edges.tolist()),
            counts=tuple(int(count) for count in counts),
        )

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON, with the paper's figures."""
        summaries = {name: self.summary(name) for name in MEASURES}
        return {
            "folders": [
                {"folder": name, "split": self.splits[name], "clips": count} for name, count in self.folders.items()
            ],
            "num_clips": self.num_clips,
            "num_described": self.num_described,
            "num_objects": self.num_objects,
            "num_described_objects": self.num_described_objects,
            "num_inpainted": self.num_inpainted,
            "num_unreadable": self.num_unreadable,
            "distributions": {name: found and found.to_json() for name, found in summaries.items()},
            "counts": {name: dict(counter.most_common()) for name, counter in self.counts.items()},
            "paper": {
                "num_clips": PAPER.num_videos,
                "num_objects": PAPER.num_objects,
                **{f"mean_{name}": value for name, value in PAPER_MEANS.items()},
            },
        }


def gather(folders: Sequence[str | Path], *, progress: Progress | None = None) -> DataStats:
    """Read the records of every sample of some folders (or addresses); ``progress`` is called with (done, all).

    A sample that cannot be read is counted and left out, the first ten with their reasons. Words are counted where
    there is a description: what nobody has described yet says nothing about how much is said.

    Raises:
        FileNotFoundError: if a folder or its index is not there.
        ValueError: if an index cannot be read, or a folder is named twice.
    """
    names = [str(folder) for folder in folders]
    if len({name if is_url(name) else os.path.realpath(name) for name in names}) < len(names):
        raise ValueError(f"each folder must be named once, got {', '.join(names)}")
    sources = [ShardSource(folder) for folder in folders]
    total = sum(len(source.index) for source in sources)
    stats = DataStats()
    done = 0
    for name, source in zip(names, sources, strict=True):
        stats.folders[name] = len(source.index)
        stats.splits[name] = source.index.split
        for shard in range(len(source.index.shards)):
            for sample in range(source.shard_sizes[shard]):
                failure = attempt(lambda at=(source, shard, sample): _take(stats, *at))  # type: ignore[misc]
                if failure is not None:
                    stats.num_unreadable += 1
                    if len(stats.unreadable) < 10:
                        place = ": ".join((name, *source.name(shard, sample), *filter(None, failure)))
                        stats.unreadable.append(place)
                done += 1
                if progress is not None:
                    progress(done, total)
    return stats


def _take(stats: DataStats, source: ShardSource, shard: int, sample: int) -> None:
    """Add one sample; nothing is added before all of it has been read."""
    entries = source.index.shards[shard].members(sample)
    wanted = [entry.suffix for entry in entries if entry.suffix.lower().endswith(".json")]
    view = MemberView(source.read(shard, sample, wanted))
    meta = view.meta
    paragraph, *phrasings = view.paragraphs()
    edits = members.load_json(view.bytes_of(members.EDITS), members.EDITS)
    kinds = [str(edit["kind"]) for edit in edits]
    infos = [view.object(name) for name in meta.objects]
    there = {entry.suffix.lower() for entry in entries}
    values = stats.values
    times = meta.timestamps
    step = 1 / meta.fps if meta.num_frames < 2 else float(np.median(np.diff(times)))
    values["frames"].append(meta.num_frames)
    values["fps"].append(meta.fps)
    values["seconds"].append(float(times[-1] - times[0]) + step)
    values["objects"].append(len(infos))
    values["phrasings"].append(len(phrasings))
    values["edits"].append(len(kinds))
    values["megabytes"].append(sum(entry.length for entry in entries) / 1e6)
    if paragraph.description or any(one.description for one in paragraph.objects):
        values["paragraph_words"].append(paragraph_words(paragraph))
        values["description_words"].append(len(paragraph.description.split()))
    stats.counts["size"][f"{meta.width}x{meta.height}"] += 1
    stats.counts["edit"].update(kinds)
    for info in infos:
        seen = info.area[info.area > 0]
        values["area"].append(100 * float(seen.mean()) / (meta.width * meta.height) if seen.size else 0.0)
        values["visible"].append(100 * seen.size / meta.num_frames)
        if info.description:
            values["object_words"].append(len(info.description.split()))
        stats.counts["category"][info.category or "(none)"] += 1
        stats.num_inpainted += object_suffix("inpainted", info.id).lower() in there


def _edges(values: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.array([low - 0.5, low + 0.5])
    if (values == np.rint(values)).all():
        # Bins of equally many whole numbers; otherwise some would hold one number more and look like a peak.
        width = max(1, int(np.ceil((high - low + 1) / bins)))
        return np.arange(low, high + width + 1, width) - 0.5
    return np.linspace(low, high, bins + 1)
