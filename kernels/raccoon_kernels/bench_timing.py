"""How the benchmark takes time and memory.

CPU: the calls of one case are interleaved, one after another in rotating order, so that another process' load falls
on all of them alike; the first rounds are thrown away. GPU: the same rounds between CUDA events, with the L2 cache
flushed before each call. Both report the 20th, 50th and 80th percentile.

Memory is what torch's own allocator handed out above what was alive before the call, results included: on a GPU the
allocator's peak counter, on a CPU the running sum of the allocations that torch's profiler records. The process' RSS
is not used: it keeps freed pages and moves with other threads. Buffers that a library takes past torch's allocator
(oneDNN, numpy) are not in the figure.
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

_FLUSH_BYTES = 1 << 28  # five times the 50 MB of L2 of an H100, four times an H200's
_WARMUP_ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Timing:
    """Percentiles in milliseconds over `repeats` calls; `spread` compares one half of the calls with the other."""

    p20: float
    p50: float
    p80: float
    repeats: int
    spread: float  # |median of the odd rounds - median of the even rounds| / median: a difference below it is noise


def summarise(milliseconds: Sequence[float]) -> Timing:
    """Return the percentiles of a list of times; raises ValueError for an empty one."""
    if not milliseconds:
        raise ValueError("at least one time is needed to take percentiles of, got none")
    times = torch.tensor(milliseconds, dtype=torch.float64)
    p20, p50, p80 = (float(torch.quantile(times, q)) for q in (0.2, 0.5, 0.8))
    spread = 0.0
    if len(milliseconds) >= 4:
        odd, even = (float(times[start::2].median()) for start in (0, 1))
        spread = abs(odd - even) / max(p50, 1e-12)
    return Timing(p20=p20, p50=p50, p80=p80, repeats=len(milliseconds), spread=spread)


def time_interleaved(
    calls: Mapping[str, Callable[[], object]],
    device: torch.device,
    *,
    repeats: int,
    budget_s: float = 60.0,
    min_repeats: int = 10,
) -> dict[str, Timing]:
    """Time several calls against each other; returns one Timing per name.

    Each of `repeats` rounds runs every call once, beginning with another one each round. A warm-up round predicts the
    cost of a round; where `repeats` rounds would take longer than `budget_s`, fewer are run, but never fewer than
    `min_repeats`. Raises ValueError if `repeats` or `min_repeats` is below 1.
    """
    if repeats < 1 or min_repeats < 1:
        raise ValueError(f"repeats and min_repeats must be at least 1, got {repeats} and {min_repeats}")
    if not calls:
        return {}
    round_s = 0.0
    for _ in range(_WARMUP_ROUNDS):
        start = time.perf_counter()
        for call in calls.values():
            call()
        _synchronize(device)
        round_s = time.perf_counter() - start
    rounds = max(min(min_repeats, repeats), min(repeats, int(budget_s / max(round_s, 1e-9))))
    names = list(calls)
    one_round = _cuda_round if device.type == "cuda" else _cpu_round
    flush = torch.empty(_FLUSH_BYTES // 4, dtype=torch.int32, device=device) if device.type == "cuda" else None
    times: dict[str, list[float]] = {name: [] for name in names}
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for index in range(rounds):
            shift = index % len(names)
            order = names[shift:] + names[:shift]
            for name, milliseconds in one_round(order, calls, flush):
                times[name].append(milliseconds)
    finally:
        if was_enabled:
            gc.enable()
    return {name: summarise(times[name]) for name in names}


def peak_memory(call: Callable[[], object], device: torch.device) -> int:
    """Return the bytes that torch's allocator holds at most during `call`, above what was alive before it."""
    call()
    if device.type == "cuda":
        _synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        kept = call()
        _synchronize(device)
        peak = torch.cuda.max_memory_allocated(device) - before
        del kept
        return peak
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = call()
    del kept
    running = peak = 0
    # The recorded deltas are the only view with the order of allocations; the public tables add them up per operator.
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            running += event.nbytes()
            peak = max(peak, running)
    return peak


def captured(call: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """Capture `call` in a CUDA graph and return a function that replays it.

    Raises ValueError on a device without graphs. A call that synchronises cannot be captured: torch raises
    RuntimeError then, which the bench reports as the provider's note.
    """
    if device.type != "cuda":
        raise ValueError(f"a CUDA graph needs a CUDA device, got {device.type}; leave out --graph")
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def _cpu_round(
    order: Sequence[str], calls: Mapping[str, Callable[[], object]], flush: torch.Tensor | None
) -> list[tuple[str, float]]:
    del flush
    result = []
    for name in order:
        start = time.perf_counter()
        kept = calls[name]()
        result.append((name, (time.perf_counter() - start) * 1e3))
        del kept
    return result


def _cuda_round(
    order: Sequence[str], calls: Mapping[str, Callable[[], object]], flush: torch.Tensor | None
) -> list[tuple[str, float]]:
    events = []
    for name in order:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        if flush is not None:
            flush.zero_()
        start.record()
        kept = calls[name]()
        end.record()
        events.append((name, start, end))
        del kept
    torch.cuda.synchronize()
    return [(name, start.elapsed_time(end)) for name, start, end in events]


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
