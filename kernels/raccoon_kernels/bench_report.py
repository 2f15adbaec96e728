"""What the benchmark writes: a CSV in long format, a Markdown table, and plots.

The CSV has one row per metric, with everything needed to read it alone: the case, the provider, the machine, the
versions, the commit and the time. A provider that was not timed has one row with its status and the reason.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, TextIO

from .bench_cases import Case, Mode
from .bench_machine import Ceilings, Machine
from .bench_timing import Timing

Kind = Literal["eager", "compiled", "ours", "other"]
Status = Literal["ok", "wrong", "unavailable"]

CASE_COLUMNS = (
    "size",
    "num_frames",
    "height",
    "width",
    "channels",
    "num_clusters",
    "overlap",
    "dim",
    "grid",
    "dtype",
    "label_dtype",
    "label_map",
    "x_name",
    "x_value",
)
_RESULT_COLUMNS = ("op", "provider", "kind", "mode", "graph", "status", "note")
_METRIC_COLUMNS = ("metric_name", "metric_unit", "y_50", "y_20", "y_80", "repeats")
COLUMNS = (*_RESULT_COLUMNS, *CASE_COLUMNS, *_METRIC_COLUMNS, *(field.name for field in fields(Machine)))


@dataclass(frozen=True, slots=True)
class Result:
    """One provider of one case in one mode: what was checked, and what was timed if the check passed."""

    case: Case
    mode: Mode
    provider: str
    kind: Kind
    status: Status = "ok"
    note: str = ""  # the reason, where the status is not ok
    graph: bool = False  # replayed from a CUDA graph
    timing: Timing | None = None
    error: float | None = None  # ||out - float64|| / ||float64||; of the gradient in modes with a backward
    max_abs_error: float | None = None
    is_deterministic: bool | None = None  # two runs gave the same bits
    peak_bytes: int | None = None  # above the inputs, results included

    @property
    def gbps(self) -> float | None:
        """Least bytes of the case over the median time, in 1e9 bytes per second."""
        return None if self.timing is None else self.case.minimum_bytes(self.mode) / (self.timing.p50 * 1e6)

    def percent_of_copy(self, ceilings: Ceilings) -> float | None:
        """Return the bandwidth in per cent of the copy's of the same run."""
        return None if self.gbps is None else 100.0 * self.gbps / ceilings.copy_gbps


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """Write beside the file and then put it in its place: a run that is cut off while it writes loses nothing."""
    part = path.with_name(f"{path.name}.part")
    with part.open("w", newline="") as stream:
        yield stream
    part.replace(path)


def write_csv(
    results: Iterable[Result], path: Path, *, machine: Machine, ceilings: Ceilings, command: str = ""
) -> None:
    """Write one row per metric of every result, after the machine's own rates with the command as their note."""
    machine_row = {field.name: getattr(machine, field.name) for field in fields(Machine)}
    with _replacing(path) as stream:
        writer = csv.DictWriter(stream, fieldnames=COLUMNS, lineterminator="\n")
        writer.writeheader()
        for name, unit, value in (
            ("copy_bandwidth", "GB/s", ceilings.copy_gbps),
            ("matmul", "TFLOP/s", ceilings.matmul_tflops),
            ("launch", "us", ceilings.launch_us),
        ):
            row = {"op": "machine", "status": "ok", "note": command, "metric_name": name, "metric_unit": unit}
            writer.writerow(row | {"y_50": f"{value:.12g}"} | machine_row)
        for result in results:
            base = {name: getattr(result.case, name) for name in CASE_COLUMNS}
            base |= {name: getattr(result, name) for name in _RESULT_COLUMNS if name != "op"}
            base |= {"op": result.case.op, "graph": int(result.graph)} | machine_row
            for metric in _metrics(result, ceilings):
                writer.writerow(base | metric)


def write_markdown(
    results: Sequence[Result],
    path: Path,
    *,
    machine: Machine,
    ceilings: Ceilings,
    command: str,
    targets: Sequence[str] = (),
) -> None:
    """Write the tables that people read, with the machine, the command and the judged targets above them."""
    lines = [
        f"# Pooling kernels on {machine.device_name}",
        "",
        f"Printed by `{command}`",
        "",
        f"{machine.started}, commit {machine.commit}, sources {machine.sources}, Python {machine.python}, "
        f"torch {machine.torch}, triton {machine.triton}, CUDA {machine.cuda}, {machine.num_threads} CPU threads. "
        f"Measured in the same run: copy {ceilings.copy_gbps:.4g} GB/s, matrix product "
        f"{ceilings.matmul_tflops:.3g} TFLOP/s, one small launch {ceilings.launch_us:.3g} us.",
        "",
        "Times are medians with the 20th and 80th percentile. GB/s counts the least bytes any implementation must "
        "move, the same for all, so 100 % of copy is the floor. Memory is above the inputs, results included. "
        "The error is against float64; a provider that fails its check is not timed.",
        "",
    ]
    if targets:
        lines += ["## Targets", "", *targets, ""]
    for op in dict.fromkeys(result.case.op for result in results):
        lines += [f"## {op}", "", *table([result for result in results if result.case.op == op], ceilings), ""]
    with _replacing(path) as stream:
        stream.write("\n".join(lines))


def table(results: Sequence[Result], ceilings: Ceilings) -> list[str]:
    """Return the lines of a Markdown table, one row per result."""
    lines = [
        "| case | mode | provider | ms (p20, p80) | GB/s | % of copy | memory MB | error | same bits | x eager-masks |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        case = result.case
        name = f"{case.size}: F={case.num_frames} {case.height}x{case.width}"
        name += f" C={case.channels}" if case.op in {"superpixel_mean", "overlapping_kmeans", "pipeline"} else ""
        name += f" k={case.num_clusters}" if case.op != "superpixel_mean" else ""
        name += f" v={case.overlap}" if case.op not in {"superpixel_mean", "overlapping_kmeans"} else ""
        name += f" {case.dtype}" + (" random ids" if case.label_map == "random" else "")
        mode = result.mode + (" graph" if result.graph else "")
        if result.timing is None:
            lines.append(f"| {name} | {mode} | {result.provider} | {result.status}: {result.note} | | | | | | |")
            continue
        timing = result.timing
        masks = _median_of(results, result, "eager-masks")
        lines.append(
            f"| {name} | {mode} | {result.provider} | {timing.p50:.4g} ({timing.p20:.4g}, {timing.p80:.4g}) "
            f"| {result.gbps or 0:.4g} | {result.percent_of_copy(ceilings) or 0:.3g} "
            f"| {_megabytes(result.peak_bytes)} | {_error(result.error)} "
            f"| {_yes_or_no(result.is_deterministic)} | {f'{masks / timing.p50:.3g}' if masks else ''} |"
        )
    return lines


def console_line(result: Result, ceilings: Ceilings) -> str:
    """Return the one line that is printed when a result is there."""
    case = result.case
    head = f"{case.op:<16} {case.size:<6} {case.dtype:<4} {result.mode + ('+graph' if result.graph else ''):<9}"
    head += f" {result.provider:<22}"
    if result.timing is None:
        return f"{head} {result.status}: {result.note}"
    timing = result.timing
    return (
        f"{head} {timing.p50:9.4f} ms (p20 {timing.p20:.4f} p80 {timing.p80:.4f}, spread {100 * timing.spread:.0f} %) "
        f"{result.gbps or 0:7.1f} GB/s {result.percent_of_copy(ceilings) or 0:5.1f} % of copy  "
        f"mem {_megabytes(result.peak_bytes)} MB  err {_error(result.error)}  "
        f"det {_yes_or_no(result.is_deterministic)}"
    )


def plot(results: Sequence[Result], path: Path, *, machine: Machine, ceilings: Ceilings) -> None:
    """Draw time, share of the copy bandwidth and memory of every operation over the number of frames.

    Raises ImportError, with what to install, where matplotlib is missing.
    """
    try:
        # Not pyplot: a Figure alone needs no screen and no backend.
        from matplotlib.figure import Figure
    except ImportError as err:
        raise ImportError("plots need matplotlib, which is not installed; pip install 'raccoon-video[eval]'") from err
    timed = [result for result in results if result.timing is not None and result.case.label_map == "realistic"]
    ops = list(dict.fromkeys(result.case.op for result in timed))
    figure = Figure(figsize=(15, 4.0 * max(1, len(ops))), layout="constrained")
    axes = figure.subplots(max(1, len(ops)), 3, squeeze=False)
    providers = list(dict.fromkeys(result.provider for result in timed))
    colours = {name: f"C{index % 10}" for index, name in enumerate(providers)}
    for row, op in zip(axes, ops, strict=False):
        # One curve per provider: the forward at the op's most frequent setting of everything but the frames.
        chosen = _comparable([result for result in timed if result.case.op == op and not result.graph])
        for provider in dict.fromkeys(result.provider for result in chosen):
            curve = sorted((r for r in chosen if r.provider == provider), key=lambda r: r.case.num_frames)
            frames = [r.case.num_frames for r in curve]
            style = {
                "color": colours[provider],
                "label": provider,
                "marker": "o" if curve[0].kind == "ours" else ".",
                "linewidth": 2.5 if curve[0].kind == "ours" else 1.0,
            }
            row[0].plot(frames, [r.timing.p50 for r in curve if r.timing], **style)
            row[1].plot(frames, [r.percent_of_copy(ceilings) for r in curve], **style)
            row[2].plot(frames, [max(r.peak_bytes or 0, 1) / 1e6 for r in curve], **style)
        if chosen:
            floor = sorted({(r.case.num_frames, r.case.minimum_bytes(r.mode)) for r in chosen})
            frames = [frames for frames, _ in floor]
            row[0].plot(
                frames, [b / ceilings.copy_gbps / 1e6 for _, b in floor], "k--x", label="copy of the least bytes"
            )
            case, mode = chosen[0].case, chosen[0].mode
            row[0].set_title(f"{op}, {mode}: C={case.channels} k={case.num_clusters} v={case.overlap} {case.dtype}")
            if op in {"grid_weights", "mgs_pool"}:
                masks = [4 * case.num_clusters * f * case.height * case.width / 1e6 for f in frames]
                row[2].plot(frames, masks, "k:", label="the masks in float32")
        ticks = sorted({r.case.num_frames for r in chosen})
        for axis, label in zip(row, ("ms", "% of the copy bandwidth", "MB above the inputs"), strict=True):
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xticks(ticks, [str(tick) for tick in ticks])
            axis.set_xticks([], minor=True)
            axis.set_xlabel("frames")
            axis.set_ylabel(label)
            axis.grid(visible=True, which="both", alpha=0.2)
        row[0].legend(fontsize=7)
    figure.suptitle(f"{machine.device_name}, torch {machine.torch}, commit {machine.commit}")
    figure.savefig(path, dpi=110)


def _comparable(results: list[Result]) -> list[Result]:
    forward = [result for result in results if result.mode == "fwd"] or results
    settings: dict[tuple[object, ...], set[int]] = {}
    for result in forward:
        settings.setdefault(_setting(result), set()).add(result.case.num_frames)
    if not settings:
        return []
    chosen = max(settings, key=lambda key: len(settings[key]))
    return [result for result in forward if _setting(result) == chosen]


def _setting(result: Result) -> tuple[object, ...]:
    case = result.case
    shape = (case.height, case.width, case.channels, case.num_clusters, case.overlap, case.dim)
    return (*shape, case.dtype, result.mode)


def _metrics(result: Result, ceilings: Ceilings) -> list[dict[str, object]]:
    if result.timing is None:
        rows: list[dict[str, object]] = [{"metric_name": "none"}]
        if result.error is not None:
            rows = [_metric("rel_err_f64", "1", result.error)]
        return rows
    timing = result.timing
    time_ms: dict[str, object] = {
        "metric_name": "time",
        "metric_unit": "ms",
        "y_50": f"{timing.p50:.12g}",
        "y_20": f"{timing.p20:.12g}",
        "y_80": f"{timing.p80:.12g}",
        "repeats": timing.repeats,
    }
    least = result.case.minimum_bytes(result.mode)
    rows = [
        time_ms,
        _metric("run_to_run_spread", "1", timing.spread),
        _metric("bandwidth", "GB/s", result.gbps),
        _metric("share_of_copy", "%", result.percent_of_copy(ceilings)),
        _metric("floor_at_copy_rate", "us", least / ceilings.copy_gbps / 1e3),
        _metric("peak_memory", "MB", None if result.peak_bytes is None else result.peak_bytes / 1e6),
        _metric("rel_err_f64", "1", result.error),
        _metric("max_abs_err_f64", "1", result.max_abs_error),
        _metric("deterministic", "1", None if result.is_deterministic is None else float(result.is_deterministic)),
    ]
    return [row for row in rows if row["y_50"] != ""]


def _metric(name: str, unit: str, value: float | None) -> dict[str, object]:
    return {"metric_name": name, "metric_unit": unit, "y_50": "" if value is None else f"{value:.12g}"}


def _median_of(results: Sequence[Result], like: Result, provider: str) -> float | None:
    for result in results:
        same = (result.case, result.mode, result.provider) == (like.case, like.mode, provider)
        if same and not result.graph and result.timing is not None:
            return result.timing.p50
    return None


def _yes_or_no(answer: bool | None) -> str:
    return "-" if answer is None else "yes" if answer else "no"


def _megabytes(peak: int | None) -> str:
    return "-" if peak is None else f"{peak / 1e6:.4g}"


def _error(error: float | None) -> str:
    return "-" if error is None else f"{error:.1e}"
