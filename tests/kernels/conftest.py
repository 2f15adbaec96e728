"""Where the kernel tests run: torch on the CPU, Triton's interpreter on the CPU, and both on a GPU where there is one.

Triton fixes whether kernels are interpreted when they are decorated, so the variable is set before a test imports them;
on a machine with a GPU they are compiled instead.
"""

import os

import pytest
import torch

from raccoon_kernels.dispatch import has_triton

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

BACKENDS = [
    pytest.param(("torch", "cpu"), id="torch-cpu"),
    pytest.param(
        ("triton", "cpu"),
        id="triton-interpreter",
        marks=pytest.mark.skipif(
            not has_triton() or torch.cuda.is_available(), reason="needs triton and a machine without a GPU"
        ),
    ),
    pytest.param(
        ("torch", "cuda"),
        id="torch-gpu",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
    ),
    pytest.param(
        ("triton", "cuda"),
        id="triton-gpu",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
    ),
]


@pytest.fixture(params=BACKENDS)
def place(request):
    """A backend and the device it runs on."""
    return request.param


@pytest.fixture
def poisoned():
    """Fill what torch.empty returns with NaN, so that an element that is never written shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
