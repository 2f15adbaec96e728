"""Measure the loader against a bare decode loop, a plain webdataset pipeline and a plain folder of files.

    raccoon bench loader --quick                     two minutes: does everything run
    raccoon bench loader --clips FOLDER --out DIR    rendered scenes and real clips; writes loader.csv and loader.md
    raccoon bench loader --memory                    the slope of the memory over 10,000 samples

All read the same bytes in one run and decode by the same functions; readers take turns, medians of rounds stand with
their 20th and 80th percentiles, and shares of the bare loop are taken within a round. In each round a reader goes
through all samples once before the clock starts, then through all of them while it runs, and its workers have more to
do when it stops: otherwise a reader would be paid for what its workers did before. A missed target is printed as a miss
and leaves the exit code alone.
"""

import argparse
import gc
import math
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from raccoon_datamodules.bench_loader_data import Workload, clips_workload, index_workload, synthetic_workload
from raccoon_datamodules.bench_loader_readers import READERS, Bare, Ours, Reader, batches_ahead, datamodule
from raccoon_datamodules.bench_loader_report import (
    Memory,
    Result,
    Resume,
    console_line,
    describe,
    judge,
    write_csv,
    write_markdown,
)

RESUME_AT = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options to a parser."""
    parser.add_argument("--quick", action="store_true", help="few samples and rounds: does everything run")
    parser.add_argument("--count", type=int, default=None, metavar="N", help="rendered scenes; default 256, quick 24")
    parser.add_argument("--clips", type=Path, default=None, metavar="DIR", help="a folder of videos, for real clips")
    parser.add_argument("--workers", type=_numbers, default=None, help="default 0, 1, 2, ... to the cores; quick 0,2")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="samples of a batch; default 8")
    parser.add_argument("--repeats", type=int, default=None, metavar="N", help="rounds; default 5, quick 1")
    parser.add_argument(
        "--passes", type=int, default=1, metavar="N", help="passes over the samples that a round counts; default 1"
    )
    parser.add_argument(
        "--memory",
        type=int,
        nargs="?",
        const=10_000,
        default=None,
        metavar="N",
        help="the slope of the memory over N samples (default 10000) instead of the rates",
    )
    parser.add_argument(
        "--work", type=Path, default=None, metavar="DIR", help="where shards are made; default a temporary one"
    )
    parser.add_argument("--out", type=Path, default=None, metavar="DIR", help="write loader.csv and loader.md there")
    parser.add_argument("--commit", default=None, help="commit to report where the tree has no repository")


def main(argv: Sequence[str] | None = None, *, prog: str = "python -m raccoon_datamodules.bench_loader") -> int:
    """Run the benchmark and return the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    args = parser.parse_args(given)
    count = args.count or (24 if args.quick else 256)
    repeats = args.repeats or (1 if args.quick else 5)
    cores = os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0))
    workers = args.workers or ([0, 2] if args.quick else sorted({0, 1, 2, cores or 1}))
    if min(count, repeats, args.batch, args.passes) < 1 or (args.memory is not None and args.memory < 100):
        parser.error("--count, --repeats, --batch and --passes must be at least 1 and --memory at least 100")
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
    # One thread everywhere: what is measured is a loader, and its workers are the parallelism.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    machine = describe(cores=cores or 1, commit=args.commit)
    print(
        f"{machine.processor}, {machine.cores} usable cores, torch {machine.torch}, commit {machine.commit}", flush=True
    )
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        if args.memory is not None:
            memory = measure_memory(work, args.memory)
            print(memory, flush=True)
            return 0
        loads = [synthetic_workload(work, count=count)]
        if args.clips is not None:
            loads.append(clips_workload(work, args.clips))
        results: list[Result] = []
        for load in loads:
            for result in compare(load, workers=workers, batch=args.batch, repeats=repeats, passes=args.passes):
                results.append(result)
                print(console_line(result), flush=True)
        resume = measure_resume(work, RESUME_AT // 50 if args.quick else RESUME_AT)
        print(resume, flush=True)
    for verdict in judge(results, cores=machine.cores):
        print(verdict, flush=True)
    if args.out is not None:
        command = shlex.join([*shlex.split(prog), *given])
        write_csv(results, args.out / "loader.csv", machine=machine, command=command)
        write_markdown(results, resume, args.out / "loader.md", machine=machine, command=command)
        print(f"{args.out / 'loader.csv'}\n{args.out / 'loader.md'}")
    return 0


def compare(load: Workload, *, workers: Sequence[int], batch: int, repeats: int, passes: int) -> Iterator[Result]:
    """Measure every reader with every number of workers on a workload; the bare loop has none."""
    readers: list[Reader] = []
    windows: list[tuple[int, int]] = []
    for kind in READERS:
        for number in [0] if issubclass(kind, Bare) else workers:
            skipped, counted = window(load.num_samples, batch=batch, num_workers=number, passes=passes)
            windows.append((skipped, counted))
            readers.append(kind(load, num_samples=skipped + counted, batch_size=batch, num_workers=number))
    rates: dict[int, list[float]] = {i: [] for i in range(len(readers))}
    firsts: dict[int, list[float]] = {i: [] for i in range(len(readers))}
    peaks = dict.fromkeys(range(len(readers)), 0)
    for round_number in range(repeats):
        for step in range(len(readers)):
            # Another one begins each round.
            i = (step + round_number) % len(readers)
            rate, first, rss = _round(readers[i], skipped=windows[i][0])
            rates[i].append(rate)
            firsts[i].append(first)
            peaks[i] = max(peaks[i], rss)
    for i, reader in enumerate(readers):
        yield Result(
            load.name, reader.name, reader.num_workers, windows[i][1], load.num_frames, batch,
            _spread(rates[i]), _spread([own / bare for own, bare in zip(rates[i], rates[0], strict=True)]),
            _spread(firsts[i]), peaks[i],
        )  # fmt: skip


def window(num_samples: int, *, batch: int, num_workers: int, passes: int) -> tuple[int, int]:
    """(samples before the clock starts, samples that it counts) of a round: whole passes, since samples differ in cost.

    The bare loop has no batches, the others do: so that all count the same samples, both are whole batches as well.
    What workers have ready when the clock starts and when it stops is the same up to a batch each, so eight batches of
    each worker, or of this process, must lie between.
    """
    unit = math.lcm(num_samples, batch)
    skipped = max(1, -(-batches_ahead(num_workers) * batch // unit))
    counted = max(passes * num_samples, 8 * max(1, num_workers) * batch)
    return skipped * unit, -(-counted // unit) * unit


def measure_memory(work: Path, num_samples: int) -> Memory:
    """Read many samples and fit a line to the resident memory after a fifth of them."""
    load = synthetic_workload(work / "memory", count=64 if num_samples >= 1000 else 8)
    reader = Ours(load, num_samples=num_samples, batch_size=10, num_workers=0)
    seen: list[tuple[int, int]] = []
    done = 0
    for size in reader.batches():
        done += size
        if done % max(10, num_samples // 200 // 10 * 10) == 0:
            gc.collect()
            seen.append((done, resident_bytes()))
    warm = [(n, b) for n, b in seen if n >= num_samples // 5]
    samples, megabytes = np.array([n for n, _ in warm]), np.array([b / 1e6 for _, b in warm])
    slope = float(np.polyfit(samples / 1000, megabytes, 1)[0])
    return Memory(num_samples, slope, float(megabytes[0]), float(megabytes[-1]))


def measure_resume(work: Path, num_samples: int = RESUME_AT) -> Resume:
    """Time from nothing to the keys of the step at ordinal 10^6; shards of 1000 samples, their index on disk."""
    load = index_workload(work / "resume", num_samples=num_samples)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        data = datamodule(load, batch_size=64, num_workers=0)
        data.setup("fit")
        data.load_state_dict({**data.state_dict(), "ordinal": RESUME_AT})
        data.keys_of(range(RESUME_AT, RESUME_AT + 64))
        seconds.append(time.perf_counter() - began)
    return Resume(RESUME_AT, num_samples, sorted(seconds)[1])


def resident_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process in bytes, what it shares with others counted by its share; 0 where unknown."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0


def _round(reader: Reader, *, skipped: int) -> tuple[float, float, int]:
    """(samples per second, seconds to the first batch, bytes of this process and its workers) of one round.

    The clock starts when ``skipped`` samples have arrived and stops with the last of ``reader.num_samples``.
    """
    import multiprocessing

    began = start = stop = time.perf_counter()
    first = 0.0
    done = at_start = rss = 0
    for size in reader.batches():
        stop = time.perf_counter()
        done += size
        first = first or stop - began
        if not rss and 2 * done >= skipped:
            # Before the clock starts: it takes milliseconds, in which workers get ahead.
            rss = sum(resident_bytes(p.pid or 0) for p in multiprocessing.active_children()) + resident_bytes()
        if not at_start and done >= skipped:
            at_start, start = done, stop
    return (done - at_start) / (stop - start), first, rss


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    p20, p50, p80 = (float(np.quantile(values, q)) for q in (0.2, 0.5, 0.8))
    return p20, p50, p80


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError:
        numbers = [-1]
    if min(numbers) < 0:
        raise argparse.ArgumentTypeError(f"must be numbers of processes such as 0,1,2, got {text!r}")
    return sorted(set(numbers))


if __name__ == "__main__":
    sys.exit(main())
