"""Where the kernel tests run: torch on the CPU, Triton's interpreter on the CPU, and both on a GPU where there is one.

Whether kernels are interpreted is decided in tests/conftest.py, before Triton is first imported.
"""

import pytest
import torch

from raccoon_kernels.dispatch import has_triton
from raccoon_kernels.launch import Launch

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


@pytest.fixture
def unaligned():
    """A function that lays a tensor one element after an address divisible by 16, in the same strides."""

    def move(tensor):
        size = tensor.untyped_storage().nbytes() // tensor.itemsize
        buffer = torch.empty(size + 1, dtype=tensor.dtype, device=tensor.device)
        moved = buffer.as_strided(tensor.shape, tensor.stride(), 1 + tensor.storage_offset()).copy_(tensor)
        assert moved.data_ptr() % 16
        return moved

    return move


@pytest.fixture(params=BACKENDS)
def place(request):
    """A backend and the device it runs on."""
    return request.param


@pytest.fixture
def guard():
    """A function that lays a tensor between guard bands, so that a read beyond its end brings poison in."""

    def lay(tensor, poison):
        band = 4096
        buffer = torch.full((tensor.numel() + 2 * band,), poison, dtype=tensor.dtype, device=tensor.device)
        buffer[band : band + tensor.numel()] = tensor.flatten()
        return buffer[band : band + tensor.numel()].view(tensor.shape)

    return lay


@pytest.fixture
def poisoned():
    """Fill what torch.empty returns with NaN, so that an element that is never written shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


_dtypes_of_launches = {}


@pytest.fixture(autouse=True)
def every_launch_gets_the_same_dtypes(monkeypatch):
    """A kept launch runs what was compiled for its first tensors: every later call must bring the same dtypes."""
    call = Launch.__call__

    def checked(self, *tensors):
        dtypes = tuple(getattr(tensor, "dtype", None) for tensor in tensors)
        assert _dtypes_of_launches.setdefault(self, dtypes) == dtypes, self.kernel
        call(self, *tensors)

    monkeypatch.setattr(Launch, "__call__", checked)
