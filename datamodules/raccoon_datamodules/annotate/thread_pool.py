"""A few threads that wait for a server, and can be left at once.

Unlike `concurrent.futures`, whose threads the interpreter waits for at its end: an interrupt waits for what is under
way (answers that are paid for), a second interrupt does not.
"""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

from raccoon_datamodules.faults import attempt

T = TypeVar("T")
R = TypeVar("R")

_PATIENCE = 1.0  # seconds


class WorkBroke(RuntimeError):
    """The work raised something that it should have handled."""


def in_threads(
    work: Callable[[T], R],
    items: Iterable[T],
    *,
    jobs: int,
    stop: Callable[[], None] | None = None,
    waiting: Callable[[int], None] | None = None,
) -> Generator[R, None, None]:
    """Results of ``work`` as they come, ``jobs`` at a time; no more are begun than are taken.

    When the iterator is closed or interrupted, nothing new is begun, ``stop`` is called, and what is under way is
    waited for; ``waiting`` is told how many that are, should it take longer than a second.

    Raises:
        ValueError: if jobs is not positive.
        WorkBroke: if ``work`` raises; it should return what went wrong instead.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    todo: queue.SimpleQueue[tuple[T] | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[R] | str] = queue.SimpleQueue()

    def run() -> None:
        while (item := todo.get()) is not None:
            found = attempt(lambda item=item: (work(item[0]),))  # type: ignore[misc]
            done.put(found if len(found) == 1 else str(found[1]))

    threads = [threading.Thread(target=run, name=f"annotate-{i}", daemon=True) for i in range(jobs)]
    for thread in threads:
        thread.start()
    left, under_way = iter(items), 0
    try:
        for _ in range(jobs):
            under_way += _give(left, todo)
        while under_way:
            # With a timeout, so that an interrupt is seen on every system.
            try:
                found = done.get(timeout=0.5)
            except queue.Empty:
                continue
            under_way -= 1
            if isinstance(found, str):
                raise WorkBroke(found)
            yield found[0]
            under_way += _give(left, todo)
    finally:
        for _ in threads:
            todo.put(None)
        if under_way and stop is not None:
            stop()
        until = time.monotonic() + _PATIENCE
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        alive = sum(thread.is_alive() for thread in threads)
        if alive and waiting is not None:
            waiting(alive)
        for thread in threads:
            thread.join()


def _give(left: Iterator[T], todo: "queue.SimpleQueue[tuple[T] | None]") -> int:
    for item in left:
        todo.put((item,))
        return 1
    return 0
