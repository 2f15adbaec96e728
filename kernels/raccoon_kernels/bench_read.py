"""Read a benchmark's CSV back, to draw its tables and plots or to judge its targets again without measuring again."""

import csv
from dataclasses import fields
from pathlib import Path

from .bench_cases import Case
from .bench_machine import Ceilings, Machine
from .bench_report import CASE_COLUMNS, Result
from .bench_timing import Timing


def read_csv(path: Path) -> tuple[list[Result], Machine, Ceilings, str]:
    """Return the results, the machine, its ceilings and the command that a CSV of `write_csv` holds.

    Raises FileNotFoundError if there is no such file and ValueError if a column or a ceiling is missing.
    """
    if not path.exists():
        raise FileNotFoundError(f"no results at {path}; write them with --out")
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    needed = {
        *CASE_COLUMNS,
        "op",
        "provider",
        "mode",
        "metric_name",
        "y_50",
        *(field.name for field in fields(Machine)),
    }
    missing = sorted(needed - set(rows[0] if rows else ()))
    if missing:
        raise ValueError(f"{path} must have the columns of the benchmark's CSV, it lacks {', '.join(missing)}")
    about = [row for row in rows if row["op"] == "machine"]
    rates = {row["metric_name"]: float(row["y_50"]) for row in about}
    if not {"copy_bandwidth", "matmul", "launch"} <= set(rates):
        raise ValueError(f"{path} must hold the machine's copy_bandwidth, matmul and launch, it holds {sorted(rates)}")
    machine = Machine(**{f.name: f.type(about[0][f.name]) for f in fields(Machine) if isinstance(f.type, type)})
    grouped: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        if row["op"] != "machine":
            key = tuple(row[name] for name in ("op", "provider", "mode", "graph", *CASE_COLUMNS))
            grouped.setdefault(key, []).append(row)
    ceilings = Ceilings(rates["copy_bandwidth"], rates["matmul"], rates["launch"])
    return [_result(group) for group in grouped.values()], machine, ceilings, about[0]["note"]


def _result(rows: list[dict[str, str]]) -> Result:
    row, metrics = rows[0], {row["metric_name"]: row for row in rows}
    kinds = {f.name: f.type for f in fields(Case)}
    # Literal types are words; every other field is an int, a float or a word by its own type.
    values = {name: (kind if isinstance(kind := kinds[name], type) else str)(row[name]) for name in CASE_COLUMNS}
    timing = None
    if "time" in metrics:
        time = metrics["time"]
        spread = float(metrics["run_to_run_spread"]["y_50"])
        timing = Timing(float(time["y_20"]), float(time["y_50"]), float(time["y_80"]), int(time["repeats"]), spread)

    def number(name: str) -> float | None:
        return float(metrics[name]["y_50"]) if name in metrics else None

    peak, deterministic = number("peak_memory"), number("deterministic")
    return Result(
        case=Case(op=row["op"], **values),  # type: ignore[arg-type]  # a word of the file, checked by Case
        mode=row["mode"],  # type: ignore[arg-type]  # likewise a word
        provider=row["provider"],
        kind=row["kind"],  # type: ignore[arg-type]
        status=row["status"],  # type: ignore[arg-type]
        note=row["note"],
        graph=row["graph"] == "1",
        timing=timing,
        error=number("rel_err_f64"),
        max_abs_error=number("max_abs_err_f64"),
        is_deterministic=None if deterministic is None else deterministic == 1.0,
        peak_bytes=None if peak is None else round(peak * 1e6),
    )
