import pytest
import torch
from lightning.pytorch.utilities import move_data_to_device

from raccoon_datamodules.batch import P2VBatch, P2VLatentBatch, V2PBatch

ORDINAL = torch.tensor([0, 1])
ONES = ["a", "b"]


def every_byte():
    """A batch [2, 1, 3, 16, 8] that holds every 8-bit value, its pixels together as the loader yields them."""
    return torch.arange(768).remainder(256).to(torch.uint8).view(2, 1, 16, 8, 3).permute(0, 1, 4, 2, 3)


def v2p(frames=None, grid=None):
    ids = torch.zeros(2, 3, dtype=torch.int64)
    return V2PBatch(frames, grid, None, ids, ids, ids, ONES, ONES, ORDINAL)


def p2v(pixels, mask):
    return P2VBatch(pixels, pixels.flip(0), mask, ONES, ONES, ONES, ORDINAL)


def latents(mask):
    made = torch.randn(2, 1, 4, 2, 1)
    return P2VLatentBatch(made, made + 1, mask, torch.randn(2, 5, 6), ONES, ONES, ONES, ORDINAL)


def mask():
    return (every_byte()[:, :, :1] > 99).to(torch.uint8)


def same(made, wanted):
    assert made.dtype == torch.float32
    assert made.is_contiguous()
    assert torch.equal(made, wanted)


def test_a_describers_frames_become_floats_from_0_to_1():
    frames = every_byte()
    made = v2p(frames).floats()
    same(made.frames, frames.contiguous().float().div(255.0))
    assert (made.frames.min(), made.frames.max()) == (0, 1)


def test_a_painters_clips_become_floats_from_minus_1_to_1_and_masks_floats():
    pixels = every_byte()
    made = p2v(pixels, mask()).floats()
    wanted = pixels.contiguous().float().div(127.5).sub(1.0)
    same(made.target, wanted)
    same(made.condition, wanted.flip(0))
    same(made.edit_mask, mask().float())
    assert (made.target.min(), made.target.max()) == (-1, 1)


def test_of_latents_only_the_mask_becomes_floats():
    batch = latents(mask())
    made = batch.floats()
    same(made.edit_mask, mask().float())
    assert all(getattr(made, name) is getattr(batch, name) for name in ("target", "condition", "text", "prompt"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_batch_of_floats_is_returned_as_it_is(dtype):
    floats = torch.zeros(2, 1, 3, 4, 4, dtype=dtype)
    for batch in (v2p(floats), v2p(None, floats), p2v(floats, floats[:, :, :1]), latents(floats[:, :, :1])):
        assert batch.floats() is batch


def test_a_batch_with_a_mask_of_its_own_in_floats_keeps_it():
    own = torch.full((2, 1, 1, 16, 8), 0.5)
    made = p2v(every_byte(), own).floats()
    assert made.edit_mask is own
    assert made.condition.dtype == torch.float32


def test_the_pixels_lie_the_same_way_on_the_device():
    pixels = move_data_to_device(p2v(every_byte(), mask()), torch.device("meta")).target
    assert (pixels.dtype, pixels.stride()) == (torch.uint8, every_byte().stride())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs a CUDA device")
def test_a_gpu_makes_the_same_floats_as_the_processor():
    batch = p2v(every_byte(), mask())
    pinned = batch.pin_memory()
    assert pinned.target.is_pinned()
    moved = move_data_to_device(pinned, torch.device("cuda"))
    assert moved.target.stride() == batch.target.stride()
    same(moved.floats().target.cpu(), batch.floats().target)
