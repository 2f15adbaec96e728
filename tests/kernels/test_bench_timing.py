import pytest
import torch

from raccoon_kernels.bench_machine import Machine, cpu_name, describe, measure_ceilings, slug
from raccoon_kernels.bench_timing import captured, peak_memory, summarise, time_interleaved

CPU = torch.device("cpu")


def test_percentiles_are_of_the_times_given():
    timing = summarise([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert (timing.p20, timing.p50, timing.p80, timing.repeats) == (2.0, 3.5, 5.0, 6)
    # Rounds 1, 3, 5 against rounds 2, 4, 6: medians 3 and 4.
    assert timing.spread == pytest.approx(1 / 3.5)


def test_no_times_have_no_percentiles():
    with pytest.raises(ValueError, match="at least one time is needed"):
        summarise([])


def test_calls_are_interleaved_and_begin_with_another_one_each_round():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    timings = time_interleaved(calls, CPU, repeats=3)
    assert "".join(order) == "abc" * 2 + "abc" + "bca" + "cab"
    assert {name: timing.repeats for name, timing in timings.items()} == {"a": 3, "b": 3, "c": 3}


def test_a_slow_case_gets_fewer_rounds_but_never_fewer_than_the_least():
    timings = time_interleaved({"a": lambda: None}, CPU, repeats=50, budget_s=0.0, min_repeats=4)
    assert timings["a"].repeats == 4


def test_nothing_to_time_gives_nothing():
    assert time_interleaved({}, CPU, repeats=3) == {}


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match="must be at least 1, got 0 and 10"):
        time_interleaved({"a": lambda: None}, CPU, repeats=0)


def test_the_peak_of_a_call_counts_what_lives_at_once_and_its_result():
    def call():
        first = torch.empty(10_000_000, dtype=torch.uint8)
        second = first.clone()
        del first
        third = torch.empty(5_000_000, dtype=torch.uint8)
        del third
        return second

    assert peak_memory(call, CPU) == 20_000_000


def test_a_graph_needs_a_cuda_device():
    with pytest.raises(ValueError, match="needs a CUDA device, got cpu"):
        captured(lambda: None, CPU)


def test_the_machine_names_itself_and_the_commit_it_is_told():
    machine = describe(CPU, commit="abc")
    assert (machine.device_type, machine.torch, machine.commit) == ("cpu", torch.__version__, "abc")
    assert "cores" in cpu_name()
    assert describe(CPU).commit
    assert len(machine.sources) == 12


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("cpu", "AMD EPYC, 2 cores", "cpu"),
        ("cuda", "NVIDIA H200", "h200"),
        ("cuda", "NVIDIA H100 80GB HBM3", "h100-80gb-hbm3"),
    ],
)
def test_result_files_are_named_by_the_device(kind, name, expected):
    machine = Machine(kind, name, 1, "3", "2", "none", "2", "none", "x", "y", "now")
    assert slug(machine) == expected


@pytest.mark.slow
def test_ceilings_are_positive_rates():
    ceilings = measure_ceilings(CPU)
    assert ceilings.copy_gbps > 0.1
    assert ceilings.matmul_tflops > 0
    assert ceilings.launch_us > 0
