"""YouCook2: long cooking videos in steps; in the paper captioning (validation set) and conditional generation.

Layout as the data set's own scripts make it::

    ROOT/youcookii_annotations_trainval.json           also below ROOT/annotations/
    ROOT/raw_videos/<split>/<recipe>/<id>.mp4          mkv and webm too; any depth below raw_videos

The JSON is ``{"database": {id: {"duration", "subset": "training" or "validation", "recipe_type", "video_url",
"annotations": [{"id", "segment": [start, end], "sentence"}, ...]}}}``, times in seconds. The annotations of the test
set are not public.

Source: the paper, appendix A.2: captioning on the validation set; for generation "We uniformly selected 100 videos from
those 3 datasets". That may mean 100 in all or 100 of each; it is read as 100 of each here.
"""

import json
from pathlib import Path
from typing import Any, Literal

from raccoon_datamodules.benchmarks.item import Benchmark, BenchmarkItem, Segment
from raccoon_datamodules.benchmarks.selection import Names, field, need, select, videos_below

PUBLISHED = "http://youcook2.eecs.umich.edu/download"
LAYOUT = "ROOT/youcookii_annotations_trainval.json and ROOT/raw_videos/SPLIT/RECIPE/ID.mp4"
ANNOTATIONS = "youcookii_annotations_trainval.json"
# Of the paper's selection for generation.
COUNT = 100


def youcook2(
    root: str | Path,
    *,
    split: Literal["training", "validation"] = "validation",
    count: int | None = COUNT,
    seed: int = 0,
    names: Names | None = None,
) -> Benchmark:
    """The videos of YouCook2 with their steps; the caption of a video is its steps' sentences in order.

    ``count`` videos in hash order (100 for generation in the paper; None = all, as for captioning), or those of
    ``names``: a text file with one id a line, or a sequence. Videos that YouTube has lost are passed over and named in
    `Benchmark.missing`. ``label`` is the recipe's number.

    Raises:
        FileNotFoundError: if the annotations or ``raw_videos`` are not there; the sentence says where to get them.
        ValueError: if the annotations are no such JSON, or fewer videos are there than asked for.
    """
    root = Path(root)
    if split not in ("training", "validation"):
        raise ValueError(f"YouCook2's annotated splits are training and validation, got {split!r}")
    inner = root / "annotations" / ANNOTATIONS
    path = inner if inner.is_file() else need(root / ANNOTATIONS, "YouCook2", PUBLISHED, LAYOUT)
    files = videos_below(need(root / "raw_videos", "YouCook2", PUBLISHED, LAYOUT))
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise ValueError(f"{path} must be the annotations of YouCook2 in JSON, download it again: {err}") from err
    database: Any = field(content, "database", dict, str(path))
    records = {name: r for name, r in database.items() if field(r, "subset", str, f"{path}, {name}") == split}

    def make(name: str) -> BenchmarkItem | None:
        if name not in files:
            return None
        steps = _steps(records[name], f"{path}, {name}")
        recipe = records[name].get("recipe_type")
        return BenchmarkItem(
            name,
            files[name],
            captions=(" ".join(step.sentence for step in steps),),
            segments=(steps,),
            label=None if recipe is None else str(recipe),
        )

    return select("YouCook2", records, make, count=count, seed=seed, chosen=names)


def _steps(record: Any, where: str) -> tuple[Segment, ...]:
    steps = []
    for step in field(record, "annotations", list, where):  # type: ignore[attr-defined]  # field() checked it
        times: Any = field(step, "segment", list, where)
        if len(times) != 2 or not all(isinstance(time, int | float) for time in times):
            raise ValueError(f"{where}: a segment must be [start, end] in seconds, got {times!r:.80}")
        sentence = str(field(step, "sentence", str, where)).strip()
        steps.append(Segment(float(min(times)), float(max(times)), sentence))
    return tuple(sorted(steps, key=lambda step: (step.start, step.end)))
