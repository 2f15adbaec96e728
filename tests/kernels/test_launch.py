"""Launches: what is worked out once, and when it is worked out again."""

import inspect
import re
import weakref
from pathlib import Path

import pytest
import torch

from raccoon_kernels import launch, mgs_pool, overlapping_kmeans, superpixel_mean
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
    kept = Launch(kernel, (3, 2), (7, 0.5), {"BLOCK": 16}, num_warps=2)
    first, second = FakeTensor(), FakeTensor()
    kept(first)
    kept(second)
    assert kernel.calls[0] == ("kernel", (3, 2, 1), (first, 7, 0.5), {"BLOCK": 16, "num_warps": 2})
    assert kernel.calls[1] == ("compiled", (3, 2, 1), (second, 7, 0.5, 16))


def test_an_unaligned_pointer_goes_through_triton_and_keeps_what_was_compiled(on_device):
    kernel = Kernel()
    kept = Launch(kernel, (1,), (), {})
    for pointer in (520, 512, 512, 520, 512):
        kept(FakeTensor(pointer=pointer))
    assert kinds(kernel) == ["kernel", "kernel", "compiled", "kernel", "compiled"]


def test_tensors_of_another_device_are_launched_there(on_device):
    kernel = Kernel()
    kept = Launch(kernel, (1,), (), {})
    for device in (0, 0, 1, 1):
        kept(FakeTensor(device))
    assert on_device == [1, 1]
    assert kinds(kernel) == ["kernel", "compiled", "kernel", "compiled"]


def test_tensors_of_the_cpu_are_launched_through_triton_every_time():
    kernel = Kernel()
    kept = Launch(kernel, (1,), (), {})
    kept(torch.zeros(4))
    kept(torch.zeros(4))
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


def test_a_plan_that_a_graph_was_captured_with_outlives_the_others(monkeypatch):
    class Plan:
        """What replays of the graph read."""

    @planned
    def plan(shape):
        return Plan()

    forgotten = weakref.ref(plan((1,)))
    monkeypatch.setattr(launch, "is_capturing", lambda: True)
    captured = weakref.ref(plan((2,)))
    monkeypatch.setattr(launch, "is_capturing", lambda: False)
    for size in range(3, 100):
        plan((size,))
    forget_plans()
    assert forgotten() is None
    assert captured() is not None


def test_nothing_is_captured_where_no_device_is_in_use(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert launch.is_capturing() is False
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert launch.is_capturing() is True


def test_plans_are_made_for_the_gpu_that_is_there_or_the_one_assumed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    assert capability(torch.device("cuda")) == 89
    assert capability(torch.device("cpu")) == 90
    with assumed_capability(80):
        assert capability(torch.device("cpu")) == 80
    assert capability(torch.device("cpu")) == 90


@pytest.mark.skipif(not has_triton(), reason="needs triton")
def test_every_launch_names_its_constants_in_the_order_of_the_kernels_parameters(monkeypatch):
    from raccoon_kernels import grid_weights

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
    # A kernel that is launched by itself would run on the current device, whatever its tensors' is.
    sources = [path.read_text() for path in Path(launch.__file__).parent.glob("triton_*.py")]
    assert seen == {name for source in sources for name in re.findall(r"def (_\w+_kernel)\(", source)}
    assert not any(re.search(r"_kernel\[", source) for source in sources)


def make_calls(device):
    """Every op, forwards and backwards, as functions of its own tensors: a name, the tensors, the function."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(32)[:, None] // 16 * 2 + torch.arange(32) // 16).int().expand(2, -1, -1).contiguous()
    membership = torch.rand(2, 4, 5, generator=generator) < 0.5
    labels, membership = labels.to(device), membership.to(device)

    def mean(grid):
        def run(x):
            leaf = x.detach().requires_grad_()
            means, counts = superpixel_mean(leaf, labels, 4, grid=grid, backend="triton")
            return means, counts, torch.autograd.grad(means.square().sum(), leaf)[0]

        return run

    def pool(features):
        leaf = features.detach().requires_grad_()
        tokens, valid = mgs_pool(leaf, labels, membership, backend="triton")
        return tokens, valid, torch.autograd.grad(tokens.square().sum(), leaf)[0]

    def cluster(points):
        made = overlapping_kmeans(points, 5, 2, initial=points[:5], max_iterations=4, tolerance=0.0, backend="triton")
        return made.membership, made.centroids, made.objective

    def random(*shape):
        return torch.randn(shape, generator=generator).to(device)

    return [
        ("cells", random(2, 3, 32, 32), mean((2, 2))),
        ("strips", random(2, 20, 32, 32), mean((2, 2))),
        ("atomic", random(2, 3, 32, 32).round(), mean(None)),
        ("sorted", random(2, 20, 32, 32), mean(None)),
        ("equal windows", random(2, 4, 4, 16), pool),
        ("ragged windows", random(2, 3, 5, 16), pool),
        ("temporal bins", random(1, 4, 4, 16), pool),
        ("one launch", random(300, 3), cluster),
        ("many launches", random(1500, 3), cluster),
    ]


NAMES = [name for name, _, _ in make_calls("cpu")]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def agree(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one.to(other.device), other, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("index", range(len(NAMES)), ids=NAMES)
def test_a_graph_replays_on_new_values_whatever_has_been_planned_since(index):
    _, values, run = make_calls("cuda")[index]
    given = values.clone()
    run(given)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = run(given)
    forget_plans()
    # What a forgotten plan's tensors may have left free is written over.
    rubbish = [
        torch.full((size,), -1, dtype=torch.int64, device="cuda") for size in (1, 2, 8, 64, 512) for _ in range(200)
    ]
    for shift in (0.0, 1.0):
        given.copy_(values + shift)
        graph.replay()
        torch.cuda.synchronize()
        agree(made, run(values + shift))
    del rubbish


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("index", range(len(NAMES)), ids=NAMES)
def test_kernels_run_on_the_current_stream(index):
    _, values, run = make_calls("cuda")[index]
    expected = run(values)
    slow = torch.randn(4096, 4096, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        given = torch.zeros_like(values)
        for _ in range(20):
            slow = slow @ slow * 1e-4
        # Only in the order of this stream are the values there.
        given.copy_(values)
        actual = run(given)
    torch.cuda.current_stream().wait_stream(side)
    agree(actual, expected)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("index", range(len(NAMES)), ids=NAMES)
def test_kernels_run_on_the_device_of_their_tensors(index):
    expected = make_calls("cuda:0")[index][2](make_calls("cuda:0")[index][1])
    _, values, run = make_calls("cuda:1")[index]
    assert torch.cuda.current_device() == 0
    for _ in range(2):
        actual = run(values)
        assert actual[0].get_device() == 1
        agree(actual, expected)


@pytest.mark.skipif(not has_triton(), reason="needs triton")
@pytest.mark.parametrize("index", range(len(NAMES)), ids=NAMES)
def test_a_kept_plan_gives_what_a_new_one_gives(index):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    _, values, run = make_calls(device)[index]
    forget_plans()
    expected = run(values)
    agree(run(values.clone()), expected)
