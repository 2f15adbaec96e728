"""Which backend is chosen, and what is said where a choice cannot be met."""

import logging
import subprocess
import sys

import pytest
import torch

from raccoon_kernels import dispatch

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def without_interpreter(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def test_auto_takes_torch_on_the_cpu_even_under_the_interpreter(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert dispatch.choose("an op", "auto", CPU).backend == "torch"


def test_auto_takes_triton_for_cuda_tensors_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(dispatch, "has_triton", lambda: True)
    assert dispatch.choose("an op", "auto", CUDA) == dispatch.Choice("triton", "cuda tensors")


def test_auto_takes_torch_without_triton(monkeypatch):
    monkeypatch.setattr(dispatch, "has_triton", lambda: False)
    choice = dispatch.choose("an op", "auto", CUDA)
    assert choice.backend == "torch"
    assert "triton is not installed" in choice.reason


def test_auto_takes_torch_where_the_op_has_no_kernel(monkeypatch):
    monkeypatch.setattr(dispatch, "has_triton", lambda: True)
    choice = dispatch.choose("an op", "auto", CUDA, unsupported="float64 runs on torch")
    assert choice == dispatch.Choice("torch", "float64 runs on torch")


def test_auto_logs_its_reason_once(caplog):
    with caplog.at_level(logging.INFO, logger="raccoon_kernels"):
        for _ in range(3):
            dispatch.choose("an op that is logged", "auto", CPU)
    lines = [record.message for record in caplog.records if "an op that is logged" in record.message]
    assert len(lines) == 1
    assert lines[0].startswith("an op that is logged runs on torch: ")


def test_asked_for_triton_on_the_cpu_is_an_error_without_the_interpreter(monkeypatch, without_interpreter):
    monkeypatch.setattr(dispatch, "has_triton", lambda: True)
    with pytest.raises(RuntimeError, match="the tensors are on cpu, and Triton needs CUDA tensors"):
        dispatch.choose("an op", "triton", CPU)


def test_asked_for_triton_runs_interpreted_where_that_is_set(monkeypatch):
    monkeypatch.setattr(dispatch, "has_triton", lambda: True)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert dispatch.choose("an op", "triton", CPU).backend == "triton"


def test_asked_for_triton_without_it_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setattr(dispatch, "has_triton", lambda: False)
    with pytest.raises(RuntimeError, match=r"triton is not installed .*; use backend='torch' or 'auto'"):
        dispatch.choose("an op", "triton", CUDA)


def test_asked_for_torch_needs_no_reason():
    assert dispatch.choose("an op", "torch", CUDA) == dispatch.Choice("torch", "asked for")


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match="backend of an op must be one of auto, triton, torch, got 'numba'"):
        dispatch.choose("an op", "numba", CPU)


def test_the_package_works_without_triton_and_imports_no_compiler():
    program = """
import sys
sys.modules["triton"] = None
import torch
import raccoon_kernels
labels = torch.zeros(1, 4, 4, dtype=torch.int16)
means, _ = raccoon_kernels.superpixel_mean(torch.ones(1, 1, 4, 4), labels, 1)
membership = torch.ones(1, 1, 2, dtype=torch.bool)
raccoon_kernels.mgs_pool(torch.ones(1, 2, 2, 3), labels, membership)
raccoon_kernels.overlapping_kmeans(torch.rand(9, 2), 2, 1)
assert float(means) == 1.0
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": "kernels", "OMP_NUM_THREADS": "1"})


def test_the_package_imports_nothing_but_torch_and_the_standard_library():
    program = """
import sys
import torch
before = set(sys.modules)
import raccoon_kernels
from raccoon_kernels import checks, dispatch, launch, reference
labels = torch.zeros(1, 4, 4, dtype=torch.int16)
x = torch.ones(1, 1, 4, 4, requires_grad=True)
means, _ = raccoon_kernels.superpixel_mean(x, labels, 1)
membership = torch.ones(1, 1, 2, dtype=torch.bool)
features = torch.ones(1, 2, 2, 3, requires_grad=True)
tokens, _ = raccoon_kernels.mgs_pool(features, labels, membership)
(means.sum() + tokens.sum()).backward()
raccoon_kernels.overlapping_kmeans(torch.rand(9, 2), 2, 1)
names = {name.partition(".")[0] for name in set(sys.modules) - before}
foreign = names - sys.stdlib_module_names - {"torch", "raccoon_kernels"}
assert not foreign, foreign
"""
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": "kernels", "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize("is_enabled", [False, True])
def test_an_op_runs_outside_autocast_and_leaves_it_as_it_was(is_enabled):
    seen = []

    @dispatch.without_autocast
    def product(a, b):
        seen.append(torch.is_autocast_enabled("cpu"))
        return a @ b

    a = torch.rand(3, 3)
    with torch.autocast("cpu", enabled=is_enabled):
        assert product(a, b=a).dtype == torch.float32
        assert torch.is_autocast_enabled("cpu") is is_enabled
    assert seen == [False]
