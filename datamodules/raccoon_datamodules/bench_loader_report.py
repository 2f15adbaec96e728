"""What the loader's benchmark writes: a row a reader in CSV, a table in Markdown, and whether the targets are met."""

import csv
import importlib.metadata
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

# Ours at 0 workers, of the bare loop; at as many workers as cores, of what one worker does times their number.
TARGET_OF_BARE = 0.95
TARGET_SCALING = 0.8
TARGET_RESUME_S = 1.0
TARGET_SLOPE_MB = 1.0

Spread = tuple[float, float, float]
OURS = "raccoon"


@dataclass(frozen=True, slots=True)
class Machine:
    """What was measured on."""

    processor: str
    cores: int
    python: str
    torch: str
    av: str
    webdataset: str
    commit: str
    started: str


@dataclass(frozen=True, slots=True)
class Result:
    """One reader on one workload: samples per second and seconds to the first batch (20th, 50th, 80th percentile).

    ``of_bare``: its rate divided by the bare loop's of the same round, since a machine's speed drifts.
    ``num_samples``: what the clock counted. ``peak_bytes``: memory of the process and its workers shortly before,
    shared pages by their share.
    """

    workload: str
    reader: str
    num_workers: int
    num_samples: int
    num_frames: int
    batch_size: int
    samples_per_s: Spread
    of_bare: Spread
    first_batch_s: Spread
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Resume:
    """Seconds to open an index of so many samples and find those of the step at an ordinal."""

    ordinal: int
    num_samples: int
    seconds: float

    def __str__(self) -> str:
        is_met = _met(self.seconds < TARGET_RESUME_S)
        return (
            f"resume at ordinal {self.ordinal}, an index of {self.num_samples} samples opened: {self.seconds:.3f} s "
            f"(target: under {TARGET_RESUME_S:g} s, {is_met})"
        )


@dataclass(frozen=True, slots=True)
class Memory:
    """How the resident memory moved over many samples: MB per 1000 samples, and MB at the ends after warm-up."""

    num_samples: int
    slope: float
    first_mb: float
    last_mb: float

    def __str__(self) -> str:
        return (
            f"memory over {self.num_samples} samples: {self.slope:+.3f} MB per 1000 samples, {self.first_mb:.1f} MB "
            f"after warm-up, {self.last_mb:.1f} MB at the end (target: below {TARGET_SLOPE_MB:g}, "
            f"{_met(self.slope < TARGET_SLOPE_MB)})"
        )


def describe(*, cores: int, commit: str | None = None) -> Machine:
    """Names and versions of this machine; ``commit`` replaces what git says."""
    return Machine(
        _processor(),
        cores,
        platform.python_version(),
        _version("torch"),
        _version("av"),
        _version("webdataset"),
        commit or _commit(),
        datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def console_line(result: Result) -> str:
    """One line for the terminal."""
    p20, p50, p80 = result.samples_per_s
    return (
        f"{result.workload:10} {result.reader:17} {result.num_workers:2} workers  {p50:8.1f} samples/s ({p20:.1f} to "
        f"{p80:.1f})  {p50 * result.num_frames:9.0f} frames/s  {result.of_bare[1]:5.0%} of bare  first batch "
        f"{result.first_batch_s[1]:.2f} s  {result.peak_bytes / 1e6:.0f} MB"
    )


def judge(results: Sequence[Result], *, cores: int) -> list[str]:
    """Each target with the figure and whether it is met."""
    verdicts = []
    for name in dict.fromkeys(result.workload for result in results):
        own = {(r.reader, r.num_workers): r for r in results if r.workload == name}
        rates = {key: r.samples_per_s[1] for key, r in own.items()}
        if (OURS, 0) in rates:
            share = own[OURS, 0].of_bare[1]
            verdicts.append(
                f"{name}: raccoon at 0 workers has {share:.1%} of the bare loop (target: {TARGET_OF_BARE:.0%}, "
                f"{_met(share >= TARGET_OF_BARE)})"
            )
        many = max((w for reader, w in rates if reader == OURS and w <= cores), default=0)
        if many > 1 and (OURS, 1) in rates:
            scaling = rates[OURS, many] / (many * rates[OURS, 1])
            verdicts.append(
                f"{name}: raccoon at {many} workers has {scaling:.1%} of {many} times one worker (target: "
                f"{TARGET_SCALING:.0%}, {_met(scaling >= TARGET_SCALING)})"
            )
    return verdicts


def write_csv(results: Sequence[Result], path: Path, *, machine: Machine, command: str) -> None:
    """A row a reader, with everything needed to read it alone."""
    columns = ["workload", "reader", "num_workers", "num_samples", "num_frames", "batch_size"]
    spreads = [f"{name}_{q}" for name in ("samples_per_s", "of_bare", "first_batch_s") for q in ("20", "50", "80")]
    names = [field.name for field in fields(Machine)]
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow([*columns, *spreads, "peak_bytes", *names, "command"])
        for r in results:
            figures = [f"{value:.6g}" for value in (*r.samples_per_s, *r.of_bare, *r.first_batch_s)]
            out.writerow([*(getattr(r, n) for n in columns), *figures, r.peak_bytes, *astuple(machine), command])


def write_markdown(results: Sequence[Result], resume: Resume, path: Path, *, machine: Machine, command: str) -> None:
    """The table for people."""
    lines = [
        "# The loader",
        "",
        f"{machine.processor}, {machine.cores} usable cores; Python {machine.python}, torch {machine.torch}, PyAV "
        f"{machine.av}, webdataset {machine.webdataset}; commit {machine.commit}, {machine.started}.",
        "",
        f"    {command}",
        "",
        "All readers read the same bytes and decode by the same functions; their rounds took turns. `bare decode loop` "
        "reads members by offset and decodes the frames that are asked for, and makes neither examples nor batches; "
        "`bare loop, batched` then makes batches of them. "
        "`webdataset` streams whole tars; `folder of files` is a map-style data set over the same members as loose "
        "files. Everybody's batches are alike, 8-bit pixels and masks: training makes floats of them on the device, "
        "after the transfer, and nobody's time holds that.",
        "",
        "Rates are medians (20th to 80th percentile) of rounds; `of bare` is the median of the rounds' own shares "
        "of the bare loop's rate, because the machine's speed drifts. In a round a reader goes through all "
        "samples, the clock starts, and it goes through all again: whole passes, because samples differ in what "
        "they cost. What it takes to begin is the time to the first batch. Workers have more to do than is "
        "counted, for every reader alike, so that when the clock stops they are as far ahead as when it started: a "
        "reader whose pass ended with the clock would be paid for batches that were made before. Memory is of all "
        "processes, before the clock starts, shared pages by their share.",
        "",
    ]
    for name in dict.fromkeys(result.workload for result in results):
        own = [result for result in results if result.workload == name]
        lines += [
            f"## {name}: {_counted(own)} samples counted a round, {own[0].num_frames} frames each, batches of "
            f"{own[0].batch_size}",
            "",
            "| reader | workers | samples/s | frames/s | of bare | first batch, s | memory, MB |",
            "|---|---|---|---|---|---|---|",
        ]
        for r in own:
            p20, p50, p80 = r.samples_per_s
            low, middle, high = r.of_bare
            lines.append(
                f"| {r.reader} | {r.num_workers} | {p50:.1f} ({p20:.1f} to {p80:.1f}) | {p50 * r.num_frames:.0f} | "
                f"{middle:.0%} ({low:.0%} to {high:.0%}) | {r.first_batch_s[1]:.2f} | {r.peak_bytes / 1e6:.0f} |"
            )
        lines.append("")
    lines += [f"- {verdict}" for verdict in [*judge(results, cores=machine.cores), str(resume)]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _counted(results: Sequence[Result]) -> str:
    """How many samples, which may be more with many workers."""
    fewest, most = (f(result.num_samples for result in results) for f in (min, max))
    return f"{fewest}" if fewest == most else f"{fewest} to {most}"


def _met(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    folder = Path(__file__).parent
    try:
        words = [["git", "rev-parse", "--short=12", "HEAD"], ["git", "status", "--porcelain", "--", "."]]
        head, changed = (
            subprocess.run(w, cwd=folder, capture_output=True, text=True, check=True, timeout=10).stdout for w in words
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head.strip() + ("-changed" if changed.strip() else "")
