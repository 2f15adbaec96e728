"""Superpixel means against the float64 twin, at the edges and with their gradients."""

import pytest
import torch
from torch.library import opcheck

from raccoon_kernels import reference, superpixel_mean
from raccoon_kernels.dispatch import has_triton
from raccoon_kernels.launch import Launch, forget_plans

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.uint8]


def make_pixels(shape, dtype=torch.float32, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = (
        torch.rand(shape, generator=generator) * 200
        if dtype == torch.uint8
        else torch.randn(shape, generator=generator)
    )
    return values.to(dtype).to(device)


def make_grid_labels(num_frames, height, width, grid, seed=0):
    """Label every pixel with one of the 3x3 cells around its own, as a superpixel grid does."""
    generator = torch.Generator().manual_seed(seed)
    (ny, nx), shape = grid, (num_frames, height, width)
    y = (torch.arange(height) // -(-height // ny))[:, None] + torch.randint(-1, 2, shape, generator=generator)
    x = (torch.arange(width) // -(-width // nx)) + torch.randint(-1, 2, shape, generator=generator)
    return (y.clamp(0, ny - 1) * nx + x.clamp(0, nx - 1)).to(torch.int16)


def relative_error(actual, expected):
    assert not actual.isnan().any()
    return float((actual.double().cpu() - expected.double().cpu()).norm() / expected.norm().cpu().clamp(min=1e-30))


@pytest.mark.parametrize("channels", [3, 33])
@pytest.mark.parametrize("grid", [(3, 4), None], ids=["grid", "general"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_means_equal_the_twin_within_a_millionth_and_counts_exactly(place, dtype, grid, channels):
    backend, device = place
    x, labels = make_pixels((2, channels, 40, 56), dtype, device), make_grid_labels(2, 40, 56, (3, 4)).to(device)
    means, counts = superpixel_mean(x, labels, 12, grid=grid, backend=backend)
    expected, expected_counts = reference.superpixel_mean(x, labels, 12)
    assert relative_error(means, expected) < 1e-6
    assert means.dtype == torch.float32
    assert counts.dtype == torch.int32
    assert torch.equal(counts.long(), expected_counts)


@pytest.mark.parametrize(
    ("shape", "grid"),
    [
        ((1, 1, 16, 16), (1, 1)),
        ((1, 2, 30, 41), (5, 6)),
        ((3, 1, 1, 1), (1, 1)),
        ((1, 17, 28, 28), (2, 2)),
        ((2, 17, 67, 39), (14, 4)),
        ((17, 1, 4, 4), (2, 2)),
    ],
    ids=["one-superpixel", "ragged", "one-pixel", "17-channels", "17-channels-many-rows", "many-frames"],
)
def test_odd_sizes_equal_the_twin(place, shape, grid):
    backend, device = place
    x, labels = make_pixels(shape, device=device), make_grid_labels(shape[0], *shape[2:], grid).to(device)
    means, counts = superpixel_mean(x, labels, grid[0] * grid[1], grid=grid, backend=backend)
    expected, expected_counts = reference.superpixel_mean(x, labels, grid[0] * grid[1])
    assert relative_error(means, expected) < 1e-6
    assert torch.equal(counts.long(), expected_counts)


@pytest.fixture
def strays(monkeypatch):
    """Whether each call of the grid path met a pixel that its partial sums leave out, and so added up anew."""
    found = []
    call = Launch.__call__

    def noted(self, *tensors):
        call(self, *tensors)
        if self.kernel.fn.__name__ in ("_superpixel_cells_fwd_kernel", "_superpixel_strips_fwd_kernel"):
            found.append(bool(tensors[-1].any()))

    monkeypatch.setattr(Launch, "__call__", noted)
    return found


@pytest.mark.skipif(not has_triton(), reason="needs triton")
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8], ids=str)
@pytest.mark.parametrize("channels", [4, 20])
@pytest.mark.parametrize(("size", "grid"), [((40, 56), (3, 4)), ((30, 41), (5, 6)), ((33, 17), (9, 2))])
def test_labels_that_keep_the_grids_promise_are_added_up_once(place, strays, size, grid, channels, dtype):
    backend, device = place
    if backend == "torch":
        pytest.skip("torch adds up every label map alike")
    num_superpixels = grid[0] * grid[1]
    x = make_pixels((1, channels, *size), dtype, device)
    labels = make_grid_labels(1, *size, grid).to(device)
    means, _ = superpixel_mean(x, labels, num_superpixels, grid=grid, backend=backend)
    assert relative_error(means, reference.superpixel_mean(x, labels, num_superpixels)[0]) < 1e-6
    labels[0, 0, 0] = num_superpixels - 1
    superpixel_mean(x, labels, num_superpixels, grid=grid, backend=backend)
    assert strays == [False, True]


@pytest.mark.parametrize("channels", [2, 9], ids=["atomic", "sorted"])
def test_ids_that_skip_leave_empty_superpixels_at_zero(place, channels):
    backend, device = place
    labels = torch.tensor([[[0, 0, 5], [5, 9, 9]]], device=device)
    x = make_pixels((1, channels, 2, 3), device=device)
    means, counts = superpixel_mean(x, labels, 11, backend=backend)
    assert counts.tolist() == [[2, 0, 0, 0, 0, 2, 0, 0, 0, 2, 0]]
    assert not means[0, counts[0] == 0].any()
    assert relative_error(means, reference.superpixel_mean(x, labels, 11)[0]) < 1e-6


@pytest.mark.parametrize("channels", [3, 26])
def test_labels_that_break_the_grids_promise_still_give_right_means(place, channels):
    backend, device = place
    labels = torch.randint(0, 12, (1, 20, 26), generator=torch.Generator().manual_seed(1)).to(device)
    x = make_pixels((1, channels, 20, 26), device=device)
    means, counts = superpixel_mean(x, labels, 12, grid=(3, 4), backend=backend)
    expected, expected_counts = reference.superpixel_mean(x, labels, 12)
    assert relative_error(means, expected) < 1e-6
    assert torch.equal(counts.long(), expected_counts)


@pytest.mark.parametrize("stray", [(0, 0, 0), (1, 23, 31)], ids=["first", "last"])
@pytest.mark.parametrize("channels", [3, 17])
def test_one_pixel_that_breaks_the_promise_is_not_lost(place, channels, stray):
    backend, device = place
    x, labels = make_pixels((2, channels, 24, 32), device=device), make_grid_labels(2, 24, 32, (3, 4)).to(device)
    labels[stray] = 11 - labels[stray]
    means, counts = superpixel_mean(x, labels, 12, grid=(3, 4), backend=backend)
    expected, expected_counts = reference.superpixel_mean(x, labels, 12)
    assert torch.equal(counts.long(), expected_counts)
    assert relative_error(means, expected) < 1e-6


@pytest.mark.parametrize(
    ("channels", "cell", "step"),
    [(3, 8, -5), (3, 4, -1), (3, 4, 3), (3, 7, -3), (3, 3, 1), (3, 3, 5), (17, 8, -5), (17, 3, 5)],
)
def test_ids_that_lie_side_by_side_only_around_a_border_are_no_neighbours(place, channels, cell, step):
    # In a grid of four columns an id and the next lie side by side, but at the end of a row.
    backend, device = place
    own = torch.arange(24)[:, None] // 8 * 4 + torch.arange(32) // 8
    labels = torch.where(own == cell, own + step, own)[None].int().to(device)
    x = make_pixels((1, channels, 24, 32), device=device)
    means, counts = superpixel_mean(x, labels, 12, grid=(3, 4), backend=backend)
    expected, expected_counts = reference.superpixel_mean(x, labels, 12)
    assert torch.equal(counts.long(), expected_counts)
    assert relative_error(means, expected) < 1e-6


@pytest.mark.skipif(not has_triton(), reason="needs triton")
def test_a_strip_of_several_tiles_gives_the_means_of_one_tile_a_strip(place, monkeypatch):
    from raccoon_kernels import triton_strips

    backend, device = place
    x, labels = make_pixels((1, 17, 67, 39), device=device), make_grid_labels(1, 67, 39, (14, 4)).to(device)
    monkeypatch.setattr(triton_strips, "strip_config", lambda channels, dtype: (32, 64, 2, 3, 3, None))
    forget_plans()
    means, counts = superpixel_mean(x, labels, 56, grid=(14, 4), backend=backend)
    forget_plans()
    expected, expected_counts = reference.superpixel_mean(x, labels, 56)
    assert relative_error(means, expected) < 1e-6
    assert torch.equal(counts.long(), expected_counts)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("channels", [2, 26])
@pytest.mark.parametrize("grid", [(3, 4), None], ids=["grid", "general"])
def test_a_nan_or_infinite_pixel_reaches_only_its_own_superpixel(place, grid, channels):
    backend, device = place
    x, labels = make_pixels((1, channels, 40, 56)), make_grid_labels(1, 40, 56, (3, 4))
    x[0, 1, 5, 5], x[0, 0, 30, 50] = float("nan"), float("inf")
    expected = reference.superpixel_mean(x, labels, 12)[0]
    means = superpixel_mean(x.to(device), labels.to(device), 12, grid=grid, backend=backend)[0].double().cpu()
    torch.testing.assert_close(means, expected, equal_nan=True, rtol=1e-5, atol=1e-6)
    assert int(means.isfinite().logical_not().sum()) == 2


@pytest.mark.parametrize("label_dtype", [torch.int16, torch.int32, torch.int64], ids=str)
def test_label_dtypes_agree(place, label_dtype):
    backend, device = place
    x, labels = make_pixels((1, 2, 20, 20), device=device), make_grid_labels(1, 20, 20, (2, 2)).to(device)
    means = superpixel_mean(x, labels.to(label_dtype), 4, grid=(2, 2), backend=backend)[0]
    expected = superpixel_mean(x, labels, 4, grid=(2, 2), backend=backend)[0]
    torch.testing.assert_close(means, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("channels", [3, 20])
@pytest.mark.parametrize("grid", [(2, 2), None], ids=["grid", "general"])
@pytest.mark.parametrize("layout", ["channels-last", "strided", "transposed", "frames-within", "one-frame-shown-twice"])
def test_non_contiguous_pixels_give_the_contiguous_result(place, layout, grid, channels):
    backend, device = place
    x, labels = make_pixels((2, channels, 32, 32), device=device), make_grid_labels(2, 32, 32, (2, 2)).to(device)
    if layout == "channels-last":
        other = x.to(memory_format=torch.channels_last)
    elif layout == "strided":
        other = torch.stack([x, x], -1)[..., 0]
    elif layout == "transposed":
        other = x.transpose(2, 3).contiguous().transpose(2, 3)
    elif layout == "frames-within":
        other = x.permute(1, 2, 0, 3).contiguous().permute(2, 0, 1, 3)
    else:
        x = x[:1].repeat(2, 1, 1, 1)
        other = x[:1].expand(2, -1, -1, -1)
    assert not other.is_contiguous()
    turned = labels.transpose(1, 2).contiguous().transpose(1, 2)
    means = superpixel_mean(other, turned, 4, grid=grid, backend=backend)[0]
    expected = superpixel_mean(x, labels, 4, grid=grid, backend=backend)[0]
    torch.testing.assert_close(means, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("channels", "grid"), [(3, (1, 1)), (20, (1, 1)), (3, None), (20, None)])
def test_strides_whose_products_exceed_32_bits_are_followed(place, channels, grid):
    backend, device = place
    # 2 GB of addresses, of which a few pages are touched.
    far = 2**30
    room = torch.empty(2 * far + 256 * channels, dtype=torch.uint8, device=device)
    x = room.as_strided((3, channels, 16, 16), (far, 256, 16, 1))
    values = make_pixels((3, channels, 16, 16), torch.uint8, device)
    x.copy_(values)
    labels = torch.zeros(3, 16, 16, dtype=torch.int16, device=device)
    means, counts = superpixel_mean(x, labels, 1, grid=grid, backend=backend)
    assert torch.equal(means, reference.superpixel_mean(values, labels, 1)[0].float())
    assert counts.flatten().tolist() == [256, 256, 256]


@pytest.mark.skipif(not has_triton(), reason="needs triton")
@pytest.mark.parametrize(
    ("shape", "strides", "dtype", "fits"),
    [
        ((2, 3, 336, 336), (338688, 112896, 336, 1), torch.float32, True),
        ((400, 64, 336, 336), (21504, 336, 8601600, 1), torch.float32, True),
        ((4000, 64, 336, 336), (21504, 336, 86016000, 1), torch.float32, True),
        ((9000, 64, 336, 336), (21504, 336, 193536000, 1), torch.float32, False),
        ((1, 64, 336, 2000), (7, 7, 7, 1), torch.float32, False),
        ((1, 3, 336, 2000), (7, 7, 7, 1), torch.float32, True),
        ((1, 3, 336, 3000), (7, 7, 7, 1), torch.float32, False),
        ((1, 3, 4000, 2100), (7, 7, 7, 1), torch.uint8, True),
        ((1, 3, 4100, 2100), (7, 7, 7, 1), torch.uint8, False),
    ],
)
def test_the_grid_path_is_left_where_its_32_bits_or_its_tiles_end(shape, strides, dtype, fits):
    from raccoon_kernels.triton_superpixel import fits_grid

    x = torch.empty_strided(shape, strides, dtype=dtype, device="meta")
    grid = (21, 21) if dtype == torch.float32 else (50, 50)
    assert fits_grid(x, grid) is fits


def test_pixels_and_labels_at_any_address_give_the_same_bits(place, unaligned):
    backend, device = place
    for dtype in (torch.float32, torch.bfloat16, torch.uint8):
        for channels in (3, 20):
            x = make_pixels((1, channels, 16, 24), dtype, device)
            labels = make_grid_labels(1, 16, 24, (2, 3)).to(device)
            # The first call's plan is kept: it knows that these lie at addresses divisible by 16.
            expected = superpixel_mean(x, labels, 6, grid=(2, 3), backend=backend)
            for pixels, ids in ((unaligned(x), labels), (x, unaligned(labels)), (unaligned(x), unaligned(labels))):
                actual = superpixel_mean(pixels, ids, 6, grid=(2, 3), backend=backend)
                torch.testing.assert_close(actual[0], expected[0], rtol=1e-6, atol=1e-6)
                assert torch.equal(actual[1], expected[1])


@pytest.mark.parametrize(
    ("channels", "grid"),
    [pytest.param(1, (3, 3), marks=pytest.mark.slow), (1, None), (8, None)],
    ids=["astray", "atomic", "sorted"],
)
def test_sums_beyond_float32_of_uint8_pixels_are_exact(place, channels, grid):
    backend, device = place
    x = 255 - make_pixels((1, channels, 270, 270), torch.uint8, device) // 8
    labels = torch.zeros(1, 270, 270, dtype=torch.int16, device=device)
    assert int(x[0, 0].sum()) > 2**24
    means, _ = superpixel_mean(x, labels, 9, grid=grid, backend=backend)
    assert torch.equal(means, reference.superpixel_mean(x, labels, 9)[0].float())


@pytest.mark.skipif(not has_triton(), reason="needs triton")
def test_more_frames_than_a_launch_has_rows_are_sorted(place, monkeypatch):
    from raccoon_kernels import triton_superpixel_general as general

    backend, device = place
    monkeypatch.setattr(general, "MAX_ATOMIC_FRAMES", 2)
    monkeypatch.delattr(general, "_atomic_launch")
    x, labels = make_pixels((3, 1, 4, 4), device=device), make_grid_labels(3, 4, 4, (2, 2)).to(device)
    means, _ = superpixel_mean(x, labels, 4, backend=backend)
    assert relative_error(means, reference.superpixel_mean(x, labels, 4)[0]) < 1e-6


def test_uint8_means_are_exact(place):
    backend, device = place
    x, labels = make_pixels((2, 3, 40, 56), torch.uint8, device), make_grid_labels(2, 40, 56, (3, 4)).to(device)
    expected = reference.superpixel_mean(x, labels, 12)[0].float()
    for grid in ((3, 4), None):
        assert torch.equal(superpixel_mean(x, labels, 12, grid=grid, backend=backend)[0], expected)


@pytest.mark.parametrize("channels", [3, 26])
def test_two_runs_on_grid_labels_agree_to_the_bit(place, poisoned, channels):
    backend, device = place
    x, labels = make_pixels((2, channels, 40, 56), device=device), make_grid_labels(2, 40, 56, (3, 4)).to(device)
    first = superpixel_mean(x, labels, 12, grid=(3, 4), backend=backend)
    second = superpixel_mean(x, labels, 12, grid=(3, 4), backend=backend)
    assert torch.equal(first[0], second[0])
    assert relative_error(first[0], reference.superpixel_mean(x, labels, 12)[0]) < 1e-6


def test_general_labels_are_ordered_where_torch_must_be_deterministic(place, poisoned):
    backend, device = place
    labels = torch.randint(0, 5, (1, 12, 14), generator=torch.Generator().manual_seed(1)).to(device)
    x = make_pixels((1, 3, 12, 14), device=device)
    first, counts = superpixel_mean(x, labels, 5, backend=backend)
    assert torch.equal(first, superpixel_mean(x, labels, 5, backend=backend)[0])
    assert relative_error(first, reference.superpixel_mean(x, labels, 5)[0]) < 1e-6
    assert int(counts.sum()) == 12 * 14


@pytest.mark.parametrize("channels", [9, 26])
@pytest.mark.parametrize("grid", [(2, 3), None], ids=["grid", "general"])
def test_nothing_beyond_the_inputs_ends_is_read(place, poisoned, guard, grid, channels):
    backend, device = place
    x = guard(make_pixels((1, channels, 33, 45), device=device), float("nan"))
    labels = guard(make_grid_labels(1, 33, 45, (2, 3)).to(device), 1)
    means, counts = superpixel_mean(x, labels, 6, grid=grid, backend=backend)
    assert relative_error(means, reference.superpixel_mean(x, labels, 6)[0]) < 1e-6
    assert int(counts.sum()) == 33 * 45


@pytest.mark.parametrize("channels", [5, 17])
@pytest.mark.parametrize("grid", [(2, 2), None], ids=["grid", "general"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_gradient_equals_the_twins(place, dtype, grid, channels):
    backend, device = place
    x = make_pixels((2, channels, 20, 26), dtype, device).requires_grad_()
    labels = make_grid_labels(2, 20, 26, (2, 2)).to(device)
    upstream = make_pixels((2, 4, channels), device=device, seed=3)
    (actual,) = torch.autograd.grad(superpixel_mean(x, labels, 4, grid=grid, backend=backend)[0], x, upstream)
    (expected,) = torch.autograd.grad(reference.superpixel_mean(x, labels, 4)[0], x, upstream.double())
    assert actual.dtype == dtype
    assert relative_error(actual, expected) < (1e-6 if dtype == torch.float32 else 1e-2)


def test_the_twins_gradient_passes_gradcheck():
    x, labels = make_pixels((1, 2, 4, 4), torch.float64).requires_grad_(), make_grid_labels(1, 4, 4, (2, 2))
    assert torch.autograd.gradcheck(lambda value: reference.superpixel_mean(value, labels, 4)[0], x)
    assert torch.autograd.gradcheck(lambda value: superpixel_mean(value, labels, 4)[0], x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("grid", [(3, 4), None], ids=["grid", "general"])
@pytest.mark.parametrize("channels", [3, 26])
def test_the_error_is_at_most_twice_that_of_plain_torch(place, channels, grid, dtype):
    backend, device = place
    x = (make_pixels((2, channels, 40, 56), device=device) + 100).to(dtype)
    labels = make_grid_labels(2, 40, 56, (3, 4)).to(device)
    expected = reference.superpixel_mean(x, labels, 12)[0]
    plain = torch.stack(
        [
            torch.zeros(12, channels, device=device).index_add_(0, label.flatten().long(), frame.flatten(1).T.float())
            / torch.bincount(label.flatten().long(), minlength=12)[:, None]
            for frame, label in zip(x, labels, strict=True)
        ]
    )
    actual = superpixel_mean(x, labels, 12, grid=grid, backend=backend)[0]
    # What float32 rounds once is no error.
    assert relative_error(actual, expected) <= 2 * max(relative_error(plain, expected), 6e-8)


def test_float64_stays_float64():
    x, labels = make_pixels((1, 2, 8, 8), torch.float64), make_grid_labels(1, 8, 8, (2, 2))
    means = superpixel_mean(x, labels, 4)[0]
    assert means.dtype == torch.float64
    assert relative_error(means, reference.superpixel_mean(x, labels, 4)[0]) < 1e-15


@pytest.mark.parametrize("bad", [-1, 4], ids=["negative", "too-large"])
def test_a_label_outside_the_range_is_named(place, bad):
    backend, device = place
    labels = torch.zeros(1, 4, 4, dtype=torch.int32, device=device)
    labels[0, 1, 1] = bad
    with pytest.raises(ValueError, match=r"labels must be local ids in \[0, 4\), got values from"):
        superpixel_mean(make_pixels((1, 1, 4, 4), device=device), labels, 4, backend=backend, checked=True)


@pytest.mark.parametrize("channels", [3, 9, 20])
@pytest.mark.parametrize("grid", [(2, 2), None], ids=["grid", "general"])
@pytest.mark.skipif(not has_triton(), reason="needs triton")
def test_an_unchecked_bad_label_is_left_out_by_the_kernels(place, grid, channels):
    backend, device = place
    if backend == "torch":
        pytest.skip("torch's own bounds checks find it")
    # Beside a frame's superpixels lie those of the frames around it.
    labels = make_grid_labels(3, 8, 8, (2, 2)).to(device)
    labels[1, 0, 0], labels[1, 3, 3] = -1, 4
    means, counts = superpixel_mean(
        torch.ones(3, channels, 8, 8, device=device), labels, 4, grid=grid, backend=backend, checked=False
    )
    assert counts.sum(1).tolist() == [64, 62, 64]
    assert torch.equal(means[counts > 0], torch.ones_like(means[counts > 0]))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(1, 1, 4, 4, dtype=torch.int32)}, TypeError, "x must be float16, bfloat16, float32"),
        ({"x": torch.zeros(1, 1, 4, 5)}, ValueError, r"x must be \[F, C, H, W\]"),
        ({"labels": torch.zeros(1, 4, 4)}, TypeError, "labels must be int16, int32 or int64"),
        ({"labels": torch.zeros(4, 4, dtype=torch.int32)}, ValueError, r"labels must be \[F, H, W\]"),
        ({"num_superpixels": 0}, ValueError, "num_superpixels must be at least 1"),
        ({"grid": (2, 3)}, ValueError, r"grid must be \(ny, nx\)"),
        ({"backend": "cuda"}, ValueError, "backend of superpixel_mean must be one of"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_named(change, error, message):
    arguments = {
        "x": torch.zeros(1, 1, 4, 4),
        "labels": torch.zeros(1, 4, 4, dtype=torch.int32),
        "num_superpixels": 4,
        **change,
    }
    with pytest.raises(error, match=message):
        superpixel_mean(**arguments)


def test_the_op_passes_opcheck(place):
    backend, device = place
    x, labels = make_pixels((1, 2, 8, 8), device=device).requires_grad_(), make_grid_labels(1, 8, 8, (2, 2)).to(device)
    opcheck(torch.ops.raccoon.superpixel_mean.default, (x, labels, 4, [2, 2], backend, True))
    opcheck(torch.ops.raccoon.superpixel_mean.default, (x.detach().to(torch.uint8), labels, 4, [], backend, False))
    grad, counts = make_pixels((1, 4, 2), device=device), torch.ones(1, 4, dtype=torch.int32, device=device)
    for dtype in (torch.float32, torch.bfloat16):
        opcheck(torch.ops.raccoon.superpixel_mean_backward.default, (grad, labels, counts, dtype, backend))


def test_a_function_that_calls_it_compiles_without_a_break(place):
    backend, device = place
    x, labels = make_pixels((1, 2, 8, 8), device=device).requires_grad_(), make_grid_labels(1, 8, 8, (2, 2)).to(device)

    def total(value):
        return superpixel_mean(value * 2, labels, 4, grid=(2, 2), backend=backend)[0].square().sum()

    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    (expected,) = torch.autograd.grad(total(x), x)
    (actual,) = torch.autograd.grad(compiled(x), x)
    torch.testing.assert_close(actual, expected)


def test_autocast_changes_nothing(place):
    backend, device = place
    x, labels = make_pixels((1, 2, 8, 8), device=device).requires_grad_(), make_grid_labels(1, 8, 8, (2, 2)).to(device)

    def means_and_gradient():
        means = superpixel_mean(x, labels, 4, grid=(2, 2), backend=backend)[0]
        return means, torch.autograd.grad(means.square().sum(), x)[0]

    expected = means_and_gradient()
    with torch.autocast(device, dtype=torch.bfloat16):
        actual = means_and_gradient()
    # To the bit but for torch's atomic additions on a GPU; half precision would be off by a hundredth.
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("grid", [(30, 30), None], ids=["grid", "general"])
def test_more_than_2_to_the_31_elements_are_addressed(grid):
    x = torch.randn(151, 64, 480, 480, device="cuda", dtype=torch.bfloat16)
    assert x.numel() > 2**31
    labels = make_grid_labels(1, 480, 480, (30, 30)).expand(151, -1, -1).cuda()
    means, _ = superpixel_mean(x, labels, 900, grid=grid)
    tail, _ = superpixel_mean(x[-1:].contiguous(), labels[-1:], 900, grid=grid)
    torch.testing.assert_close(means[-1:], tail, rtol=1e-5, atol=1e-6)
