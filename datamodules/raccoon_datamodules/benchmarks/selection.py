"""Which videos of a benchmark are taken, and the sentences that say what is missing.

The paper names numbers (30 DAVIS videos, 100 videos for generation) but publishes no list. The rule here: a seed gives
all videos an order by hash, and the first ones whose files are there are taken. The same data and seed give the same
videos on every machine, a smaller selection is part of a larger one, and a missing video moves no other one.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from raccoon_datamodules.benchmarks.item import Benchmark, BenchmarkItem

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".flv", ".m4v")

Names = str | Path | Sequence[str]


def hash_order(names: Iterable[str], *, benchmark: str, seed: int = 0) -> list[str]:
    """Names in the order of the BLAKE2b (16 bytes) of ``"{seed}/{benchmark}/{name}"``, the benchmark in lower case."""
    prefix = f"{seed}/{benchmark.lower()}/"
    return sorted(set(names), key=lambda name: hashlib.blake2b((prefix + name).encode(), digest_size=16).digest())


def select(
    benchmark: str,
    names: Iterable[str],
    make: Callable[[str], BenchmarkItem | None],
    *,
    count: int | None,
    seed: int,
    chosen: Names | None,
) -> Benchmark:
    """Take videos: those of the list ``chosen``, or else the first ``count`` in hash order (None: all).

    ``make`` gives the item of a name, or None where its files are not there.

    Raises:
        ValueError: if count is not positive, fewer videos are there than asked for, or a listed one is unknown or not
            there.
        FileNotFoundError: if the list is a file that is not there.
    """
    known = set(names)
    if count is not None and count < 1:
        raise ValueError(f"count must be at least 1, or None for all videos, got {count}")
    if chosen is not None:
        listed, where = _read_names(chosen)
        unknown = [name for name in listed if name not in known]
        if unknown:
            raise ValueError(
                f"every video of {where} must be one of {benchmark}'s {len(known)}, {_some(unknown)} not; "
                "check the names or the split"
            )
        items, missing = _there(listed, make, None)
        if missing:
            raise ValueError(f"every video of {where} must be there, {_some(missing)} not; copy them or leave them out")
        rule = f"the {len(items)} videos of {where}"
    else:
        items, missing = _there(hash_order(known, benchmark=benchmark, seed=seed), make, count)
        if len(items) < (count or 1):
            raise ValueError(
                f"{benchmark} must have at least {count or 1} videos for this selection, {len(items)} of {len(known)} "
                "are there; copy the others, or ask for fewer (count)"
            )
        rule = f"all {len(items)} videos that are there"
        if count is not None:
            rule = (
                f"the first {count} videos that are there, in the order of the hash of seed {seed}; the paper's list "
                "is not published"
            )
    ordered = sorted(items, key=lambda item: item.name)
    return Benchmark(benchmark, tuple(ordered), rule, tuple(missing))


def _there(
    names: Iterable[str], make: Callable[[str], BenchmarkItem | None], count: int | None
) -> tuple[list[BenchmarkItem], list[str]]:
    items: list[BenchmarkItem] = []
    missing = []
    for name in names:
        if len(items) == count:
            break
        item = make(name)
        if item is None:
            missing.append(name)
        else:
            items.append(item)
    return items, missing


def _read_names(chosen: Names) -> tuple[list[str], str]:
    """Names, each once, and where they stand; a file has one a line, blank lines and lines with # mean nothing."""
    if isinstance(chosen, str | Path):
        path = Path(chosen)
        if not path.is_file():
            raise FileNotFoundError(f"there is no list of videos at {path}: name a text file with one name a line")
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise ValueError(f"{path} must hold one name a line, it holds none")
        return list(dict.fromkeys(found)), str(path)
    if not chosen:
        raise ValueError("a list of videos must hold at least one name, got an empty one")
    return list(dict.fromkeys(chosen)), "your list"


def _some(names: Sequence[str]) -> str:
    """Names as part of a sentence: "a, b, c and 4 more are"."""
    shown = ", ".join(names[:3])
    if len(names) > 3:
        return f"{shown} and {len(names) - 3} more are"
    return f"{shown} {'is' if len(names) == 1 else 'are'}"


def need(path: Path, benchmark: str, published: str, layout: str) -> Path:
    """Give ``path`` back if it is there.

    Raises:
        FileNotFoundError: if not; one sentence with the path, the layout and where the data are published.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{benchmark} needs {path}, which is not there; get the data set at {published} and lay it out as {layout}"
        )
    return path


def videos_below(folder: Path) -> dict[str, Path]:
    """Every video file below a folder by its name up to the first dot, the first one by path where there are several.

    Downloaders append suffixes of their own ("ID.mp4.webm"), and YouTube's ids hold no dot.
    """
    found: dict[str, Path] = {}
    for place, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            if file.lower().endswith(VIDEO_SUFFIXES) and not file.startswith("."):
                found.setdefault(file.split(".")[0], Path(place) / file)
    return found


def field(record: object, key: str, kind: type, where: str) -> object:
    """``record[key]`` of a JSON object, which must be of a kind (an int passes for a float).

    Raises:
        ValueError: if it is missing or of another kind.
    """
    value = record.get(key) if isinstance(record, Mapping) else None
    kinds = (int, float) if kind is float else kind
    if not isinstance(value, kinds):
        raise ValueError(f"{where} must have the field {key!r} ({kind.__name__}), got {value!r:.80}")
    return value
