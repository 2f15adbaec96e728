"""Tables of an evaluation: Markdown to read, JSON with everything, CSV of the figures and of every scene's scores."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raccoon.evaluation.bootstrap import CONFIDENCE, Interval
from raccoon.evaluation.figures import Evaluation, Figure, Group, Reference, Unit
from raccoon_datamodules.atomic import check_writable, replacing

SCHEMA = 1
_TITLES: dict[Group, str] = {
    "V2P": "Video to paragraph",
    "grounding": "Text to mask",
    "P2V": "Paragraph to video",
}
_HEAD = ("figure", "value", f"{100 * CONFIDENCE:.0f} % interval", "n", "floor", "ceiling", "bar", "aim")
_COLUMNS = ("figure", "group", "role", "name", "value", "low", "high", "count", "unit", "threshold", "passed", "aim")


def to_markdown(done: Evaluation, *, title: str = "Evaluation", command: str | None = None) -> str:
    """Write the page: one table a group, how it was made, and what could not be measured."""
    lines = [f"# {title}", ""]
    lines += [_summary(done), ""]
    for group in _TITLES:
        figures = [figure for figure in done.figures if figure.group == group]
        if figures:
            lines += [f"## {_TITLES[group]}", "", *_table(figures), ""]
    lines += [
        "`n` counts scenes; the interval is the percentile bootstrap over scenes. A floor knows nothing of the clip, "
        "or is a method without weights; a ceiling is the best that the parts allow. The bar is what must be reached, "
        "the aim what should be. Definitions: `raccoon/evaluation/measures.py`, bars: `raccoon/evaluation/specs.py`.",
        "",
    ]
    if done.notes:
        lines += ["## Notes", "", *(f"- {note}" for note in done.notes), ""]
    lines += ["## How it was made", "", *_made(done, command), ""]
    return "\n".join(lines)


def _summary(done: Evaluation) -> str:
    judged = [figure for figure in done.figures if figure.passed is not None]
    if not judged:
        return "No figure has a bar here."
    missed = ", ".join(figure.name for figure in done.missed)
    reached = len(judged) - len(done.missed)
    return f"{reached} of {len(judged)} bars are reached{f'; missed: {missed}' if missed else ''}."


def _table(figures: Sequence[Figure]) -> list[str]:
    rows = [_HEAD, ("---",) * len(_HEAD), *(_row(figure) for figure in figures)]
    return [f"| {' | '.join(row)} |" for row in rows]


def _row(figure: Figure) -> tuple[str, ...]:
    one, unit = figure.interval, figure.unit
    spread = "" if unit == "of 255" else f"{_number(one.low, unit)} to {_number(one.high, unit)}"
    return (
        figure.name + (f" ({unit})" if unit else ""),
        _number(one.value, unit),
        spread,
        str(one.count),
        _references(figure.floors, unit),
        _references(figure.ceilings, unit),
        _verdict(figure),
        "" if figure.aim is None else f"{_number(figure.aim, unit)} {'reached' if figure.aim_reached else 'missed'}",
    )


def _verdict(figure: Figure) -> str:
    if figure.bar is None or figure.threshold is None:
        return ""
    sign = {"exactly": "=", "times": ">=", "floor": ">=", "clear": "interval >"}[figure.bar.kind]
    return f"{sign} {_number(figure.threshold, figure.unit)} {'pass' if figure.passed else 'MISS'}"


def _references(references: Sequence[Reference], unit: Unit) -> str:
    return ", ".join(f"{one.name} {_number(one.interval.value, unit)}" for one in references)


def _number(value: float, unit: Unit) -> str:
    return f"{value:.0f}" if unit == "of 255" else f"{value:.1f}" if unit == "dB" else f"{value:.3f}"


def _made(done: Evaluation, command: str | None) -> list[str]:
    facts, settings = done.facts, done.settings
    versions, machine = facts.get("versions", {}), facts.get("machine", {})
    lines = [] if command is None else [f"- command: `{command}`"]
    named = ", ".join(f"{name} {value}" for name, value in settings.items())
    lines.append(f"- settings: {named}")
    where = ", ".join(f"{key} {value}" for key, value in machine.items())
    lines.append(f"- machine: {where}")
    lines.append("- versions: " + ", ".join(f"{name} {value}" for name, value in versions.items()))
    lines.append(f"- time: {sum(done.seconds.values()):.0f} s ({_seconds(done)})")
    return lines


def _seconds(done: Evaluation) -> str:
    return ", ".join(f"{name} {value:.0f}" for name, value in done.seconds.items())


def to_json(done: Evaluation) -> dict[str, Any]:
    """Return everything but the scenes' scores as plain JSON."""
    return {
        "schema": SCHEMA,
        "figures": [_figure_json(figure) for figure in done.figures],
        "missed": [figure.key for figure in done.missed],
        "notes": list(done.notes),
        "settings": dict(done.settings),
        "seconds": {name: round(value, 2) for name, value in done.seconds.items()},
        **{name: done.facts[name] for name in done.facts},
    }


def _figure_json(figure: Figure) -> dict[str, Any]:
    return {
        "key": figure.key,
        "name": figure.name,
        "group": figure.group,
        "unit": figure.unit,
        **asdict(figure.interval),
        "floors": {one.name: asdict(one.interval) for one in figure.floors},
        "ceilings": {one.name: asdict(one.interval) for one in figure.ceilings},
        "bar": None if figure.bar is None else {**asdict(figure.bar), "threshold": figure.threshold},
        "passed": figure.passed,
        "aim": figure.aim,
        "aim_reached": figure.aim_reached,
    }


def to_csv(done: Evaluation) -> str:
    """Return one line a figure, floor and ceiling, in long form."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for figure in done.figures:
        writer.writerow(
            (*_cells(figure, "figure", figure.name, figure.interval), figure.threshold, figure.passed, figure.aim)
        )
        for role, references in (("floor", figure.floors), ("ceiling", figure.ceilings)):
            for one in references:
                writer.writerow((*_cells(figure, role, one.name, one.interval), "", "", ""))
    return stream.getvalue()


def _cells(figure: Figure, role: str, name: str, one: Interval) -> tuple[Any, ...]:
    numbers = (f"{number:.6g}" for number in (one.value, one.low, one.high))
    return (figure.key, figure.group, role, name, *numbers, one.count, figure.unit)


def scenes_csv(done: Evaluation) -> str:
    """Return every scene's scores, so that a figure can be computed again: sum(numerator) / sum(denominator)."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("figure", "scene", "numerator", "denominator"))
    for figure, scores in done.scores.items():
        for key, above, below in zip(done.keys[figure], scores.numerators, scores.denominators, strict=True):
            writer.writerow((figure, key, f"{above:.9g}", f"{below:.9g}"))
    return stream.getvalue()


def table_paths(folder: str | Path, name: str) -> tuple[Path, ...]:
    """Return where `write_tables` writes: NAME.md, NAME.json, NAME.csv, NAME.scenes.csv."""
    return tuple(Path(folder) / f"{name}{suffix}" for suffix in (".md", ".json", ".csv", ".scenes.csv"))


def check_tables(folder: str | Path, name: str, *, overwrite: bool = False) -> None:
    """Raise what `write_tables` would raise about its place, before anything is computed."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} must be a folder, it is a file; choose another --out")
    if folder.exists():
        for path in table_paths(folder, name):
            check_writable(path, overwrite=overwrite)


def write_tables(
    done: Evaluation,
    folder: str | Path,
    *,
    name: str = "tiny",
    title: str = "Evaluation",
    command: str | None = None,
    overwrite: bool = False,
) -> tuple[Path, ...]:
    """Write the tables into a folder, which is made if it is missing; each file appears whole or not at all.

    Raises:
        FileExistsError: if one is there and ``overwrite`` is False.
        NotADirectoryError: if the folder is a file.
    """
    check_tables(folder, name, overwrite=overwrite)
    paths = table_paths(folder, name)
    Path(folder).mkdir(parents=True, exist_ok=True)
    texts = (
        to_markdown(done, title=title, command=command),
        json.dumps(to_json(done), indent=1, ensure_ascii=False, allow_nan=False, default=repr) + "\n",
        to_csv(done),
        scenes_csv(done),
    )
    for path, text in zip(paths, texts, strict=True):
        with replacing(path, overwrite=overwrite) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths
