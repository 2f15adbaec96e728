"""Measure the pooling kernels against plain torch, torch.compile and other libraries, and judge their targets.

    python -m raccoon_kernels.bench --quick                  two minutes on a CPU: does everything run, is it right
    python -m raccoon_kernels.bench --targets --out results  the cases that the targets are judged on
    python -m raccoon_kernels.bench --ops mgs_pool --sweep frames=8,16,32,64,100 --modes fwd,bwd,full

Every provider is compared with float64 first; one that is wrong is reported, not timed, and makes the exit code 1. A
missed target is printed as a miss and leaves the exit code alone. With --out, a CSV in long format, a Markdown table
and a plot are written, named by the device. Needs torch; triton, matplotlib, faiss and flash-kmeans are used where
they are installed.
"""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch

from .bench_cases import DTYPES, LABEL_DTYPES, MODES, OPS, Case, LabelMap, Mode, Op
from .bench_machine import Ceilings, Machine, describe, measure_ceilings, slug
from .bench_read import read_csv
from .bench_report import Result, console_line, plot, write_csv, write_markdown
from .bench_run import Settings, failures, run_case
from .bench_targets import judge, target_cases

SIZES: dict[str, dict[str, Any]] = {
    "XS": {"num_frames": 2, "channels": 3},
    "S": {"num_frames": 8, "channels": 3},
    "M": {"num_frames": 32, "channels": 5},
    "L": {"num_frames": 100, "channels": 3},
    "L64": {"num_frames": 100, "channels": 64},
    "XL": {"num_frames": 100, "channels": 64, "height": 480, "width": 480, "num_clusters": 30},
}
# What a sweep may vary: the field of a case that it sets, and the operations whose work depends on it.
AXES: dict[str, tuple[str, tuple[Op, ...]]] = {
    "frames": ("num_frames", OPS),
    "pixels": ("height", ("superpixel_mean", "grid_weights", "mgs_pool")),  # and width: frames are square here
    "clusters": ("num_clusters", ("grid_weights", "mgs_pool", "overlapping_kmeans")),
    "overlap": ("overlap", ("mgs_pool", "overlapping_kmeans")),
    "channels": ("channels", ("superpixel_mean", "overlapping_kmeans")),
    "dim": ("dim", ("mgs_pool",)),
}
# Colours with two coordinates and time: what is clustered where colours are averaged.
_CLUSTERED_CHANNELS = {3: 6, 5: 6}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options to a parser."""
    parser.add_argument("--quick", action="store_true", help="sizes XS and S, one compiled case: two minutes")
    parser.add_argument("--targets", action="store_true", help="run the cases of the targets as well, and judge them")
    parser.add_argument("--ops", type=_names(OPS), default=OPS, help=f"comma-separated; default all: {', '.join(OPS)}")
    parser.add_argument("--modes", type=_names(MODES), default=None, help="fwd, bwd, full (both); default fwd")
    parser.add_argument(
        "--sizes", type=_names(tuple(SIZES)), default=None, help=f"of {', '.join(SIZES)}; default S,M,L"
    )
    parser.add_argument("--dtypes", type=_names(tuple(DTYPES)), default=("fp32",), help=f"of {', '.join(DTYPES)}")
    parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="AXIS=V,V",
        help=f"vary one of {', '.join(AXES)} around --base; may be given more than once",
    )
    parser.add_argument("--base", choices=SIZES, default="S", help="the size that --sweep varies; default S")
    parser.add_argument("--labels", choices=LABEL_DTYPES, default=None, help="dtype of ours' labels; int64 on a CPU")
    parser.add_argument(
        "--label-maps", type=_names(get_args(LabelMap)), default=("realistic",), help="realistic, random; for --sizes"
    )
    parser.add_argument("--providers", default="", help="comma-separated names; default all")
    parser.add_argument(
        "--compile",
        choices=("all", "targets", "none"),
        default="all",
        help="where torch.compile is measured, at seconds a case; targets: only their forwards",
    )
    parser.add_argument("--graph", action="store_true", help="time replays of CUDA graphs as well")
    repeats_help = "timed rounds; default 10 on a CPU, 5 with --quick, 50 on a GPU"
    parser.add_argument("--repeats", type=int, default=None, help=repeats_help)
    parser.add_argument("--budget", type=float, default=30, help="seconds of timed rounds a case and mode, 10 at least")
    parser.add_argument("--limit", type=float, default=None, help="seconds after which no other case is begun")
    parser.add_argument("--device", default=None, help="cpu or cuda; default cuda where there is one")
    parser.add_argument(
        "--threads", type=int, default=None, help="torch's threads on a CPU; default what torch chooses"
    )
    parser.add_argument("--out", type=Path, default=None, help="folder for the CSV, the Markdown table and the plot")
    parser.add_argument("--no-plot", action="store_true", help="write no plot")
    parser.add_argument("--read", type=Path, default=None, help="a CSV of --out: print and draw it, measure nothing")
    parser.add_argument("--commit", default=None, help="commit to report where the tree has no repository")


def main(argv: Sequence[str] | None = None, *, prog: str = "python -m raccoon_kernels.bench") -> int:
    """Run the benchmark; returns 1 if a provider was wrong or a case broke off, 2 for wrong options, else 0."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    arguments = parser.parse_args(given)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.read is not None:
        return _read(arguments, parser)
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a CUDA device, torch finds none; leave it out or give --device cpu")
    if arguments.graph and device.type != "cuda":
        parser.error("--graph needs a CUDA device, the device is a CPU; leave it out")
    # The memory figures come from torch's profiler, which else prints two lines for every use.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    try:
        cases = _cases(arguments, device.type)
    except ValueError as err:
        parser.error(str(err))
    machine = describe(device, commit=arguments.commit)
    ceilings = measure_ceilings(device)
    print(
        f"{machine.device_name}, {machine.num_threads} threads, torch {machine.torch}, triton {machine.triton}, "
        f"commit {machine.commit}\ncopy {ceilings.copy_gbps:.1f} GB/s, matrix product {ceilings.matmul_tflops:.3g} "
        f"TFLOP/s, one small launch {ceilings.launch_us:.2f} us",
        flush=True,
    )
    report = _Report(arguments, machine, ceilings, shlex.join([*shlex.split(prog), *given]))
    results: list[Result] = []
    broken = left_out = 0
    begun = time.monotonic()
    for case in cases:
        if arguments.limit is not None and time.monotonic() - begun > arguments.limit:
            left_out += 1
            continue
        try:
            found = run_case(case, _settings(case, arguments, device))
        except failures() as err:
            # Such as memory that the case's own inputs need: the other cases are measured all the same.
            broken += 1
            line = (str(err).strip().splitlines() or [""])[0]
            print(f"{case.op} {case.size} broke off: {type(err).__name__}: {line}", file=sys.stderr, flush=True)
            continue
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()
        for result in found:
            results.append(result)
            print(console_line(result, ceilings), flush=True)
        # After every case: a run that is cut off leaves what it has.
        report.write(results)
    for line in report.verdicts(results):
        print(line)
    report.plot(results)
    if left_out:
        print(f"{left_out} of {len(cases)} cases were not begun within {arguments.limit:g} s", file=sys.stderr)
    return 1 if broken else _exit_code(results)


def _read(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    try:
        results, machine, ceilings, command = read_csv(arguments.read)
    except (FileNotFoundError, ValueError) as err:
        parser.error(str(err))
    report = _Report(arguments, machine, ceilings, command)
    for line in [*(console_line(result, ceilings) for result in results), *report.verdicts(results)]:
        print(line)
    report.write(results)
    report.plot(results)
    return _exit_code(results)


def _exit_code(results: Sequence[Result]) -> int:
    wrong = [result for result in results if result.status == "wrong"]
    if wrong:
        print(f"\n{len(wrong)} provider(s) wrong, and not timed:", file=sys.stderr)
        for result in wrong:
            print(f"  {result.provider} at {result.case.op} {result.case.size}: {result.note}", file=sys.stderr)
    return 1 if wrong else 0


@dataclass(frozen=True, slots=True)
class _Report:
    """Writes what --out and --targets ask for."""

    arguments: argparse.Namespace
    machine: Machine
    ceilings: Ceilings
    command: str

    def verdicts(self, results: Sequence[Result]) -> list[str]:
        if not self.arguments.targets:
            return []
        judged = judge(results, self.ceilings, device_type=self.machine.device_type)
        return [str(judgement) for judgement in judged]

    def write(self, results: Sequence[Result]) -> None:
        if self.arguments.out is None:
            return
        write_csv(results, self._path(".csv"), machine=self.machine, ceilings=self.ceilings, command=self.command)
        write_markdown(
            results,
            self._path(".md"),
            machine=self.machine,
            ceilings=self.ceilings,
            command=self.command,
            targets=self.verdicts(results),
        )

    def plot(self, results: Sequence[Result]) -> None:
        if self.arguments.out is None or self.arguments.no_plot:
            return
        try:
            plot(results, self._path(".png"), machine=self.machine, ceilings=self.ceilings)
        except ImportError as err:
            print(f"no plot: {err}")

    def _path(self, suffix: str) -> Path:
        return Path(self.arguments.out, f"kernels-{slug(self.machine)}{suffix}")


def _settings(case: Case, arguments: argparse.Namespace, device: torch.device) -> Settings:
    use_compile = arguments.compile == "all"
    if arguments.compile == "targets":
        use_compile = case in target_cases(device.type)
    if arguments.quick:
        use_compile = use_compile and (case.op, case.size) == ("mgs_pool", "XS")
    default_repeats = 50 if device.type == "cuda" else 5 if arguments.quick else 10
    return Settings(
        device=device,
        modes=arguments.modes or ("fwd",),
        repeats=default_repeats if arguments.repeats is None else arguments.repeats,
        budget_s=arguments.budget,
        compile_modes=MODES if use_compile and arguments.compile == "all" else ("fwd",) if use_compile else (),
        use_graph=arguments.graph,
        only=tuple(name.strip() for name in arguments.providers.split(",") if name.strip()),
    )


def _cases(arguments: argparse.Namespace, device_type: str) -> list[Case]:
    """Return the cases that the options ask for, each once. Raises ValueError for a sweep that makes no sense."""
    labels = arguments.labels or ("int32" if device_type == "cuda" else "int64")
    common = {"label_dtype": labels}
    cases: list[Case] = []
    if arguments.targets:
        cases += [case for case in target_cases(device_type) if case.op in arguments.ops]
    sizes = arguments.sizes
    if sizes is None and not arguments.sweep and not arguments.targets:
        sizes = ("S", "M", "L")
    if arguments.quick:
        sizes = ("XS", "S")
    for op in arguments.ops:
        for dtype in arguments.dtypes:
            if dtype == "u8" and op != "superpixel_mean":
                continue
            for size in sizes or ():
                for label_map in arguments.label_maps:
                    if label_map == "realistic" or op in {"superpixel_mean", "grid_weights", "mgs_pool"}:
                        cases.append(_case(op, size, {"dtype": dtype, "label_map": label_map, **common}))
            for axis, value in (step for sweep in arguments.sweep for step in _sweep(sweep)):
                field, ops = AXES[axis]
                if op not in ops:
                    continue
                changed = {field: value} | ({"width": value} if axis == "pixels" else {})
                case = _case(op, arguments.base, {"dtype": dtype, **common, **changed})
                cases.append(replace(case, size=f"{arguments.base} {axis}={value}", x_name=axis, x_value=float(value)))
    return list(dict.fromkeys(cases))


def _case(op: Op, size: str, changed: dict[str, Any]) -> Case:
    shape = dict(SIZES[size])
    if op in {"overlapping_kmeans", "pipeline"}:
        shape["channels"] = _CLUSTERED_CHANNELS.get(shape["channels"], shape["channels"])
    return Case(op=op, size=size, **(shape | changed))


def _sweep(text: str) -> list[tuple[str, int]]:
    axis, _, values = text.partition("=")
    try:
        numbers = [int(value) for value in values.split(",")]
    except ValueError:
        numbers = []
    if axis not in AXES or not numbers:
        raise ValueError(f"--sweep must be AXIS=NUMBER,NUMBER with an axis of {', '.join(AXES)}, got {text!r}")
    return [(axis, number) for number in numbers]


def _names(known: tuple[str, ...]) -> Any:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in text.split(",") if name.strip())
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise argparse.ArgumentTypeError(f"must be of {', '.join(known)}, got {', '.join(unknown) or 'nothing'}")
        return names

    return parse


__all__ = ["AXES", "SIZES", "Mode", "add_arguments", "main"]

if __name__ == "__main__":
    sys.exit(main())
