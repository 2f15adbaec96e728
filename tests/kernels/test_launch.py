"""Launches: what is worked out once, and when it is worked out again."""

import inspect

import pytest
import torch

from raccoon_kernels.dispatch import has_triton
from raccoon_kernels.launch import Launch, assumed_capability, capability, forget_plans, planned


class Compiled:
    packed_metadata = ()

    def __init__(self, calls):
        self.calls = calls

    def __getitem__(self, grid):
        return lambda *arguments: self.calls.append(("compiled", grid, arguments))


class Kernel:
    """Stands in for a triton.jit function."""

    def __init__(self):
        self.calls = []

    def __getitem__(self, grid):
        def launch(*arguments, **constants):
            self.calls.append(("kernel", grid, arguments, constants))
            return Compiled(self.calls)

        return launch


class FakeTensor:
    def __init__(self, device=0, pointer=512):
        self.device, self.pointer = device, pointer

    def get_device(self):
        return self.device

    def data_ptr(self):
        return self.pointer


@pytest.fixture
def on_device(monkeypatch):
    """Pretend that a CUDA device is current; returns the devices that were made current."""
    entered = []

    class Device:
        def __init__(self, index):
            entered.append(index)

        def __enter__(self):
            monkeypatch.setattr(torch.cuda, "current_device", lambda: entered[-1])

        def __exit__(self, *_):
            monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device", Device)
    return entered


def kinds(kernel):
    return [call[0] for call in kernel.calls]


def test_a_second_launch_runs_what_the_first_compiled(on_device):
    kernel = Kernel()
    launch = Launch(kernel, (3, 2), (7, 0.5), {"BLOCK": 16}, num_warps=2)
    first, second = FakeTensor(), FakeTensor()
    launch(first)
    launch(second)
    assert kernel.calls[0] == ("kernel", (3, 2, 1), (first, 7, 0.5), {"BLOCK": 16, "num_warps": 2})
    assert kernel.calls[1] == ("compiled", (3, 2, 1), (second, 7, 0.5, 16))


def test_an_unaligned_pointer_goes_through_triton_and_keeps_what_was_compiled(on_device):
    kernel = Kernel()
    launch = Launch(kernel, (1,), (), {})
    for pointer in (520, 512, 512, 520, 512):
        launch(FakeTensor(pointer=pointer))
    assert kinds(kernel) == ["kernel", "kernel", "compiled", "kernel", "compiled"]


def test_tensors_of_another_device_are_launched_there(on_device):
    kernel = Kernel()
    launch = Launch(kernel, (1,), (), {})
    for device in (0, 0, 1, 1):
        launch(FakeTensor(device))
    assert on_device == [1, 1]
    assert kinds(kernel) == ["kernel", "compiled", "kernel", "compiled"]


def test_tensors_of_the_cpu_are_launched_through_triton_every_time():
    kernel = Kernel()
    launch = Launch(kernel, (1,), (), {})
    launch(torch.zeros(4))
    launch(torch.zeros(4))
    assert kinds(kernel) == ["kernel", "kernel"]


def test_a_plan_is_made_once_for_its_arguments_until_it_is_forgotten():
    made = []

    @planned
    def plan(shape):
        made.append(shape)
        return len(made)

    assert [plan((1, 2)), plan((1, 2)), plan((3,))] == [1, 1, 2]
    forget_plans()
    assert plan((1, 2)) == 3


def test_plans_are_made_for_the_gpu_that_is_there_or_the_one_assumed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    assert capability(torch.device("cuda")) == 89
    assert capability(torch.device("cpu")) == 90
    with assumed_capability(80):
        assert capability(torch.device("cpu")) == 80
    assert capability(torch.device("cpu")) == 90


@pytest.mark.skipif(not has_triton(), reason="needs triton")
def test_every_launch_names_its_constants_in_the_order_of_the_kernels_parameters(monkeypatch):
    from raccoon_kernels import grid_weights, mgs_pool, overlapping_kmeans, superpixel_mean

    seen = set()
    make = Launch.__init__

    def checked(self, kernel, grid, numbers, constants, **options):
        names = list(inspect.signature(kernel.fn).parameters)
        assert names[len(names) - len(constants) :] == list(constants)
        seen.add(kernel.fn.__name__)
        make(self, kernel, grid, numbers, constants, **options)

    monkeypatch.setattr(Launch, "__init__", checked)
    forget_plans()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    labels = torch.zeros(2, 8, 8, dtype=torch.int32, device=device)
    membership = torch.ones(2, 4, 3, dtype=torch.bool, device=device)
    for channels in (3, 17):
        x = torch.rand(2, channels, 8, 8, device=device, requires_grad=True)
        for grid in ((2, 2), None):
            superpixel_mean(x, labels, 4, grid=grid, backend="triton")[0].sum().backward()
    features = torch.rand(2, 2, 2, 16, device=device, requires_grad=True)
    mgs_pool(features, labels, membership, backend="triton")[0].sum().backward()
    grid_weights(labels, membership, (1, 2, 2), backend="triton")
    overlapping_kmeans(torch.rand(20, 2, device=device), 3, 2, max_iterations=1, backend="triton")
    forget_plans()
    assert len(seen) == 15, sorted(seen)
