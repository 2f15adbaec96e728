"""Results of `raccoon predict`: JSON lines that every rank writes and a later run takes up, joined in the data's order.

A folder holds ``NAME.jsonl`` (what is finished), ``NAME.made-by.json`` (what made it, so that results of two recipes
never mix), and while a run goes on a ``NAME.rank0000.part.jsonl`` for each rank. All ranks must see the same folder,
and one run at a time may write there.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raccoon_datamodules.atomic import replacing


@dataclass(frozen=True, slots=True)
class Summary:
    """What a folder holds: samples with a result, samples that failed, and the reason of the first of these."""

    num_done: int
    num_failed: int
    reason: str | None


class Results:
    """One rank's view of a folder of results.

    A record is a mapping with ``ordinal`` (its place in the data) and ``key``; one with ``error`` tells of a sample
    that failed, and is tried again by the next run.

    Args:
        folder: made if it is not there.
        name: of the files, such as "descriptions".
        made_by: plain JSON that says what makes the results: recipe, data, settings.
        rank: of this process.

    Raises:
        ValueError: if the folder holds results that something else made; names the first difference.
    """

    def __init__(self, folder: str | Path, name: str, *, made_by: Mapping[str, Any], rank: int = 0) -> None:
        self.folder = Path(folder)
        self.path = self.folder / f"{name}.jsonl"
        self._name = name
        self._part = self.folder / f"{name}.rank{rank:04d}.part.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check(json.loads(json.dumps(made_by, default=repr)), writes=rank == 0)
        if self._part.exists():
            # What a killed process left of a line would spoil the next one.
            os.truncate(self._part, sum(length for _, length, _ in _lines(self._part)))

    def done(self) -> set[int]:
        """The ordinals of the samples that need not be done again, by whichever rank or run.

        Raises:
            ValueError: if a line is damaged.
        """
        return {record["ordinal"] for path in self._files() for _, _, record in _lines(path) if "error" not in record}

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write records down at once; what is written stays when the process is killed."""
        texts = [json.dumps(dict(one), ensure_ascii=False, allow_nan=False, default=repr) + "\n" for one in records]
        with self._part.open("ab") as out:
            out.write("".join(texts).encode())

    def join(self) -> Summary:
        """Join what all ranks and former runs wrote into one file ordered by ordinal. For one rank, when all are done.

        A result goes before a failure of the same sample, a later one before an earlier one.
        """
        best: dict[int, tuple[str | None, Path, int, int]] = {}
        files = self._files()
        for path in files:
            for start, length, record in _lines(path):
                ordinal, error = record["ordinal"], record.get("error")
                if error is None or ordinal not in best or best[ordinal][0] is not None:
                    best[ordinal] = error, path, start, length
        chosen = [best[ordinal] for ordinal in sorted(best)]
        with replacing(self.path, overwrite=True) as temporary, ExitStack() as stack:
            opened = {path: stack.enter_context(path.open("rb")) for path in files}
            out = stack.enter_context(temporary.open("wb"))
            for _, path, start, length in chosen:
                opened[path].seek(start)
                out.write(opened[path].read(length))
        for path in files:
            if path != self.path:
                path.unlink()
        errors = [error for error, *_ in chosen if error is not None]
        return Summary(len(chosen) - len(errors), len(errors), errors[0] if errors else None)

    def _files(self) -> list[Path]:
        """The finished file, then the parts."""
        finished = [self.path] if self.path.exists() else []
        return finished + sorted(self.folder.glob(f"{self._name}.rank*.part.jsonl"))

    def _check(self, made_by: dict[str, Any], *, writes: bool) -> None:
        path = self.folder / f"{self._name}.made-by.json"
        if path.exists():
            if difference := _difference(json.loads(path.read_text(encoding="utf-8")), made_by):
                raise ValueError(
                    f"{self.folder} holds {self._name} made otherwise ({difference}); name another folder under "
                    "model.init_args.out, or remove this one"
                )
        elif self.path.exists():
            raise ValueError(f"{self.path} was not written by raccoon predict; name another folder")
        elif writes:
            with replacing(path, overwrite=True) as temporary:
                temporary.write_text(json.dumps(made_by, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _lines(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """(first byte, number of bytes, record) of each whole line; a last one without its end is still being written."""
    start = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
                known = isinstance(record["ordinal"], int) and isinstance(record["key"], str)
            except (ValueError, KeyError, TypeError):
                known = False
            if not known:
                raise ValueError(f"{path} is damaged: the line at byte {start} is no result; remove that line")
            yield start, len(line), record
            start += len(line)


def _difference(then: Any, now: Any, where: str = "") -> str | None:
    """Say in what two JSON values differ first."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in (*then, *(key for key in now if key not in then)):
            if found := _difference(then.get(key), now.get(key), f"{where}.{key}".removeprefix(".")):
                return found
        return None
    return None if then == now else f"{where} was {then!r}, is {now!r}"
