"""The index that a check reads by: the stored one, or where that is no good one made of the tars; and making it anew.

A damaged index says nothing about the samples, so it is a finding like others and the tars are read as they lie.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from raccoon_datamodules.examine.report import Problem
from raccoon_datamodules.examine.tars import check_tar
from raccoon_datamodules.faults import attempt
from raccoon_datamodules.index import INDEX_NAME, Index
from raccoon_datamodules.places import is_url, split_index
from raccoon_datamodules.reader import ShardReader
from raccoon_datamodules.shard import Shard
from raccoon_datamodules.sources import ShardSource

_FROM_TARS = "the samples are checked as they lie in the tars"


class IndexedSource(ShardSource):
    """A folder of shards, read by an index that need not be the stored one."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._reader = ShardReader(index.base)


@dataclass(frozen=True, slots=True)
class OpenedFolder:
    """A folder to be checked: its index, what is to be said of the stored one, and whether it is that one."""

    index: Index
    problems: tuple[Problem, ...]
    is_stored: bool


@dataclass(frozen=True, slots=True)
class Reindexed:
    """What `reindex` did: the index; where the former one is kept (None: it was right, or there was none).

    ``changed``: shards whose bytes are others than the former index said.
    """

    index: Index
    is_new: bool
    former: Path | None = None
    changed: tuple[str, ...] = ()


def open_folder(folder: str | Path) -> OpenedFolder:
    """Read a folder's index; where it is missing, damaged or of other shards, make one of what tars can be read.

    Raises:
        FileNotFoundError: if there is no such folder, or neither an index nor a tar in it.
        ValueError, OSError: as `Index.load` raises, where there is no tar either; ValueError for an address.
    """
    if is_url(folder):
        raise ValueError(f"a check reads every byte and needs a local folder, got {folder}; download the shards first")
    tars = _tars(folder)
    try:
        index = Index.load(folder)
        # A shard may be read from the index only now.
        listed: list[Shard] = list(index.shards)
    except (ValueError, OSError) as err:
        if not tars:
            raise
        return _from_tars(tars, *_why(err, folder))
    if tars and not any((Path(index.base) / shard.name).exists() for shard in listed):
        names = f"{listed[0].name}{' and others' if len(listed) > 1 else ''}"
        anew = f"`raccoon vplm check {folder} --reindex` writes it anew"
        return _from_tars(tars, f"lists {names}, but none of the tars that lie there", anew)
    return _with_replaced(index, listed)


def reindex(folder: str | Path, *, split: str | None = None) -> Reindexed:
    """Write ``index.json`` anew from the tars of a folder; one that says something else is kept beside.

    Raises as `Index.build`: a tar that cannot be read is named, and nothing is written.
    """
    index = Index.build(folder, split=split)
    path = Path(folder) / INDEX_NAME
    former, said = None, attempt(lambda: Index.load(folder).to_json())
    if path.exists():
        if said == index.to_json():
            return Reindexed(index, is_new=False)
        former = _kept(path)
    before = {shard["name"]: shard["sha256"] for shard in said["shards"]} if isinstance(said, dict) else {}
    changed = [head.name for head in index.heads if before.get(head.name, head.sha256) != head.sha256]
    index.save(folder)
    return Reindexed(index, is_new=True, former=former, changed=tuple(changed))


def _tars(folder: str | Path) -> list[Path]:
    base = Path(split_index(folder)[0])
    return sorted(path for path in base.glob("[!.]*.tar") if path.is_file()) if base.is_dir() else []


def _why(err: Exception, folder: str | Path) -> tuple[str, str]:
    """What is wrong with an index, and what to do."""
    if isinstance(err, FileNotFoundError):
        return "is not there", f"`raccoon vplm check {folder} --reindex` makes it"
    if isinstance(err, OSError):
        return f"cannot be read: {err}", ""
    base, name = split_index(folder)
    return str(err).removeprefix(f"{Path(base) / name} "), ""


def _from_tars(tars: Sequence[Path], reason: str, advice: str) -> OpenedFolder:
    problems: list[Problem] = []
    found: list[Index] = []
    for path in tars:
        built = attempt(lambda at=path: Index.build(at.parent, names=[at.name]))  # type: ignore[misc]
        if isinstance(built, Index):
            found.append(built)
        else:
            why = built[1].removeprefix(f"{path} cannot be indexed: ")
            problems.append(_error(path.name, f"its samples cannot be checked: {why}"))
    rest = "; ".join(filter(None, (advice, _FROM_TARS))) if found else "no tar here can be read as a shard either"
    problems.insert(0, _error(INDEX_NAME, f"{reason}; {rest}"))
    shards = tuple(shard for index in found for shard in index.shards)
    return OpenedFolder(Index(found[0].split if found else "", shards, str(tars[0].parent)), tuple(problems), False)


def _with_replaced(index: Index, listed: Sequence[Shard]) -> OpenedFolder:
    """The index with the entries of shards that are whole tars of another size made anew."""
    problems: list[Problem] = []
    shards = list(listed)
    for number, shard in enumerate(listed):
        path = Path(index.base) / shard.name
        if not path.is_file() or path.stat().st_size == shard.size:
            continue
        built = attempt(lambda at=path: Index.build(at.parent, names=[at.name]))  # type: ignore[misc]
        if isinstance(built, Index) and len(built):
            problems += check_tar(path, shard)
            there = set(built.keys())
            lost = [key for key in map(shard.key, range(len(shard))) if key not in there]
            problems += [Problem("error", shard.name, key, None, "is in the index but not in the tar") for key in lost]
            problems.append(_error(shard.name, f"its entry in {INDEX_NAME} is not its own; {_FROM_TARS}"))
            shards[number] = built.shards[0]
    if not problems:
        return OpenedFolder(index, (), True)
    return OpenedFolder(Index(index.split, tuple(shards), index.base), tuple(problems), False)


def _kept(path: Path) -> Path:
    """Another name for what ``path`` holds now; a file that is there is never touched."""
    for number in count(1):
        target = path.with_name(f"{path.name}.old-{number}")
        if target.exists():
            continue
        try:
            os.link(path, target)
        except FileExistsError:
            continue
        except OSError:
            # A file system without links.
            shutil.copy2(path, target)
        return target
    raise AssertionError("counting ends nowhere")


def _error(shard: str, reason: str) -> Problem:
    return Problem("error", shard, None, None, reason)
