"""Work in processes, results in the order of the jobs: what `raccoon vplm synth` and `raccoon vplm build` share."""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


@contextmanager
def ordered(work: Callable[[Job], Result], jobs: Iterable[Job], *, workers: int) -> Iterator[Iterator[Result]]:
    """Yield the results of ``work`` for each job, in the order of the jobs.

    With at most one worker everything happens in this process, as the results are asked for. Otherwise ``work`` and the
    jobs must be picklable; at most four jobs a worker are under way, so that no more results than those are in memory.
    Workers ignore SIGINT (a terminal sends it to all of them) and end when this process does, even if it was killed.
    Leaving the block gives up the jobs that have not begun and waits for those that have.

    Raises:
        ValueError: if ``workers`` is negative.
        RuntimeError: while iterating, if a worker process was ended from outside.
    """
    if workers < 0:
        raise ValueError(f"workers must not be negative, got {workers}")
    if workers <= 1:
        yield map(work, jobs)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_with_parent)
    with _interrupts_ignored():
        for _ in range(workers):
            pool.submit(int)  # a process starts when a job comes and none is idle
    try:
        yield _in_order(pool, work, jobs, ahead=4 * workers)
    finally:
        # Nothing waits for results that nobody will take.
        pool.shutdown(cancel_futures=True)


def _in_order(pool: Executor, work: Callable[[Job], Result], jobs: Iterable[Job], *, ahead: int) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as err:
        raise RuntimeError(
            "a worker process was ended from outside, perhaps for want of memory; use fewer --workers"
        ) from err


def _end_with_parent() -> None:
    """In a worker: end when the parent does, even if it was killed and could not say so."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes that start meanwhile ignore SIGINT for as long as they live."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
