"""Work in processes: order, errors, and an end from outside."""

import os
import time

import pytest

from raccoon_datamodules.parallel import ordered


def slow_first(number):
    time.sleep(0.2 if number == 0 else 0)
    return number, os.getpid()


def fail_at_two(number):
    if number == 2:
        raise ValueError("two is too many")
    return number


def die(number):
    os._exit(3)


@pytest.mark.parametrize("workers", [0, 1])
def test_one_worker_is_this_process(workers):
    with ordered(slow_first, range(3), workers=workers) as results:
        assert list(results) == [(n, os.getpid()) for n in range(3)]


def test_results_come_in_the_order_of_the_jobs_from_other_processes():
    with ordered(slow_first, range(9), workers=2) as results:
        found = list(results)
    assert [number for number, _ in found] == list(range(9))
    assert os.getpid() not in {process for _, process in found}


def test_an_error_of_the_work_is_raised_where_its_result_is_asked_for():
    with ordered(fail_at_two, range(4), workers=2) as results:
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(ValueError, match="two is too many"):
            next(results)


def test_a_worker_that_is_ended_from_outside_is_named():
    with (
        pytest.raises(RuntimeError, match="ended from outside, perhaps for want of memory"),
        ordered(die, range(2), workers=2) as results,
    ):
        list(results)


def test_a_negative_number_of_workers_is_refused():
    with pytest.raises(ValueError, match="workers must not be negative, got -1"), ordered(abs, [1], workers=-1):
        pass
