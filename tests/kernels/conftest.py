"""Where the kernel tests run: torch on the CPU, Triton's interpreter on the CPU, and both on a GPU where there is one.

Whether kernels are interpreted is decided in tests/conftest.py, before Triton is first imported.
"""

import pytest
import torch

from raccoon_kernels.dispatch import has_triton

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
