"""What the benchmark runs on: names, versions, commit, and the rates that this machine reaches.

A time says little without the machine it was taken on, and a bandwidth says little without the one a plain copy
reaches. Both are read and measured here, in the same process as the figures they stand beside.
"""

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

_COPY_BYTES_CUDA = 1 << 30  # far beyond the 50 to 60 MB of L2, so that the copy is served by device memory
_COPY_BYTES_CPU = 1 << 28  # beyond the last-level cache of a core's neighbourhood (32 MB on the machines seen)


@dataclass(frozen=True, slots=True)
class Machine:
    """Names and versions that travel with every row of the results."""

    device_type: str  # "cpu" or "cuda"
    device_name: str
    num_threads: int
    python: str
    torch: str
    triton: str  # "none" where it is not installed
    numpy: str
    cuda: str  # the runtime torch was built for, "none" on a CPU build
    commit: str
    sources: str  # digest of this package's files: what ran, also where the tree has no repository
    started: str  # UTC, ISO 8601


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Rates measured in this run: what a plain copy, a matrix product and an empty launch reach."""

    copy_gbps: float  # bytes read plus bytes written, per second, in 1e9
    matmul_tflops: float  # bfloat16 on a GPU, float32 on a CPU
    launch_us: float  # one elementwise operation on one number, launched eagerly


def describe(device: torch.device, *, commit: str | None = None) -> Machine:
    """Return the names and versions of this machine.

    `commit` replaces what git says, for a copy of the tree that has no repository with it.
    """
    return Machine(
        device_type=device.type,
        device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        num_threads=torch.get_num_threads(),
        python=platform.python_version(),
        torch=torch.__version__,
        triton=_version("triton"),
        numpy=_version("numpy"),
        cuda=torch.version.cuda or "none",
        commit=commit or _commit(),
        sources=_digest_of_sources(),
        started=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def measure_ceilings(device: torch.device) -> Ceilings:
    """Measure the copy bandwidth, the matrix product rate and the launch latency of `device`; about two seconds."""
    num_bytes = _COPY_BYTES_CUDA if device.type == "cuda" else _COPY_BYTES_CPU
    # Random numbers, not zeros: a GPU was seen to multiply zeros faster than data.
    source = torch.rand(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    copy_s = _median_seconds(functools.partial(target.copy_, source), device, repeats=15)
    del source, target
    size, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (1024, torch.float32)
    a = torch.rand(size, size, device=device, dtype=torch.float32).to(dtype)
    b = torch.rand(size, size, device=device, dtype=torch.float32).to(dtype)
    matmul_s = _median_seconds(lambda: a @ b, device, repeats=10)
    one = torch.ones(1, device=device)

    def hundred_launches() -> None:
        for _ in range(100):
            one.add_(1.0)

    launch_s = _median_seconds(hundred_launches, device, repeats=10) / 100
    return Ceilings(
        copy_gbps=2 * num_bytes / copy_s / 1e9,
        matmul_tflops=2 * size**3 / matmul_s / 1e12,
        launch_us=launch_s * 1e6,
    )


def cpu_name() -> str:
    """Return the processor's model name with its core count, as the operating system gives them."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {os.cpu_count()} cores"


def slug(machine: Machine) -> str:
    """Return the word that result files are named by: `cpu`, or the GPU's name such as `h200`."""
    if machine.device_type == "cpu":
        return "cpu"
    words = [word for word in machine.device_name.lower().split() if word not in {"nvidia", "amd"}]
    return "-".join(words) or "gpu"


def _median_seconds(call: Callable[[], object], device: torch.device, *, repeats: int) -> float:
    seconds = []
    for index in range(repeats + 3):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if index >= 3:
            seconds.append(time.perf_counter() - start)
    return sorted(seconds)[len(seconds) // 2]


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _commit() -> str:
    folder = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        # Only the kernels' own files: another part's unsaved work does not change what was measured.
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", "."],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head.stdout.strip() + ("-changed" if changed.stdout.strip() else "")
