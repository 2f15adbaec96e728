"""Masked multi-granular pooling against the float64 twin that paints every mask."""

import pytest
import torch
from torch.library import opcheck
from torch.utils._python_dispatch import TorchDispatchMode

from raccoon_kernels import grid_weights, mgs_pool, reference
from raccoon_kernels.dispatch import has_triton


def make_inputs(frames, height, width, superpixels, k, bins, h, w, d, *, device="cpu", dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, superpixels, (frames, height, width), generator=generator).to(torch.int16)
    membership = torch.rand(frames, superpixels, k, generator=generator) < 0.3
    features = torch.randn(bins, h, w, d, generator=generator).to(dtype)
    return features.to(device), labels.to(device), membership.to(device)


def relative_error(actual, expected):
    assert not actual.isnan().any()
    actual, expected = actual.detach(), expected.detach()
    return float((actual.double().cpu() - expected.double().cpu()).norm() / expected.norm().cpu().clamp(min=1e-30))


SIZES = [
    pytest.param((2, 20, 28, 12, 5, 2, 2, 4, 20), id="even-windows"),
    pytest.param((2, 21, 25, 7, 33, 2, 2, 3, 17), id="ragged-33-clusters"),
    pytest.param((3, 10, 12, 9, 64, 2, 2, 2, 8), id="bins-not-dividing-64-clusters"),
    pytest.param((2, 19, 70, 5, 31, 1, 1, 1, 130), id="one-window-31-clusters"),
    pytest.param((1, 20, 20, 5, 1, 3, 2, 2, 3), id="more-bins-than-frames"),
    pytest.param((1, 16, 16, 3, 32, 1, 2, 2, 16), id="one-frame-32-clusters"),
    pytest.param((2, 20, 29, 7, 5, 2, 3, 3, 8), id="windows-of-different-sizes"),
]


@pytest.mark.parametrize("normalize", [True, False], ids=["mean", "product"])
@pytest.mark.parametrize("size", SIZES)
def test_tokens_equal_the_twin_within_a_millionth(place, size, normalize):
    backend, device = place
    features, labels, membership = make_inputs(*size, device=device)
    tokens, valid = mgs_pool(features, labels, membership, normalize=normalize, backend=backend)
    expected, expected_valid = reference.mgs_pool(features, labels, membership, normalize=normalize)
    assert relative_error(tokens, expected) < 1e-6
    assert tokens.dtype == torch.float32
    assert torch.equal(valid, expected_valid)


@pytest.mark.parametrize("size", SIZES)
def test_weights_equal_the_pooled_masks(place, size):
    backend, device = place
    features, labels, membership = make_inputs(*size, device=device)
    grid = tuple(features.shape[:3])
    weights = grid_weights(labels, membership, grid, backend=backend)
    torch.testing.assert_close(weights.double(), reference.grid_weights(labels, membership, grid), rtol=1e-6, atol=1e-7)


def test_counts_are_exact_integers(place, poisoned):
    backend, device = place
    features, labels, membership = make_inputs(2, 32, 32, 6, 8, 2, 2, 2, 4, device=device)
    weights = grid_weights(labels, membership, (2, 2, 2), backend=backend)
    expected = reference.grid_weights(labels, membership, (2, 2, 2)) * 256
    assert torch.equal((weights * 256).double(), expected)
    assert features.shape[0] == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_features_are_summed_in_float32(place, dtype):
    backend, device = place
    features, labels, membership = make_inputs(2, 20, 28, 12, 5, 2, 2, 4, 20, device=device, dtype=dtype)
    tokens, _ = mgs_pool(features, labels, membership, backend=backend)
    assert tokens.dtype == torch.float32
    assert relative_error(tokens, reference.mgs_pool(features, labels, membership)[0]) < 1e-6


@pytest.mark.parametrize("normalize", [True, False], ids=["mean", "product"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", SIZES[:4])
def test_the_error_is_at_most_twice_that_of_plain_torch(place, size, dtype, normalize):
    backend, device = place
    features, labels, membership = make_inputs(*size, device=device, dtype=dtype)
    features.requires_grad_()
    upstream = torch.randn(size[4], size[8], generator=torch.Generator().manual_seed(5)).to(device)
    exact = features.detach().double().requires_grad_()
    expected, _ = reference.mgs_pool(exact, labels, membership, normalize=normalize)
    weights = reference.grid_weights(labels, membership, tuple(features.shape[:3])).float().flatten(0, 2)
    plain = weights.T @ features.flatten(0, 2).float()
    if normalize:
        plain = plain / weights.sum(0).clamp(min=1e-12)[:, None]
    actual, _ = mgs_pool(features, labels, membership, normalize=normalize, backend=backend)
    # What float32 rounds once is no error.
    assert relative_error(actual, expected) <= 2 * max(relative_error(plain, expected), 6e-8)
    if backend == "triton" and device == "cpu" and dtype != torch.float32:
        return  # The interpreter cuts off what a half-precision number cannot hold, where a GPU rounds.
    (expected,) = torch.autograd.grad(expected, exact, upstream.double())
    (plain,) = torch.autograd.grad(plain, features, upstream)
    (actual,) = torch.autograd.grad(actual, features, upstream)
    assert relative_error(actual, expected) <= 2 * max(relative_error(plain, expected), 6e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", [SIZES[0], SIZES[2]])
def test_the_features_gradient_equals_the_twins(place, size, dtype):
    backend, device = place
    features, labels, membership = make_inputs(*size, device=device, dtype=dtype)
    features.requires_grad_()
    upstream = torch.randn(size[4], size[8], generator=torch.Generator().manual_seed(5)).to(device)
    for normalize in (True, False):
        tokens, _ = mgs_pool(features, labels, membership, normalize=normalize, backend=backend)
        (actual,) = torch.autograd.grad(tokens, features, upstream)
        twin, _ = reference.mgs_pool(features, labels, membership, normalize=normalize)
        (expected,) = torch.autograd.grad(twin, features, upstream.double())
        assert actual.dtype == dtype
        assert relative_error(actual, expected) < (1e-6 if dtype == torch.float32 else 1e-2)


def test_the_gradient_passes_gradcheck_in_float64():
    features, labels, membership = make_inputs(2, 6, 6, 3, 3, 1, 2, 2, 2, dtype=torch.float64)
    features.requires_grad_()
    assert torch.autograd.gradcheck(lambda value: reference.mgs_pool(value, labels, membership)[0], features)
    assert torch.autograd.gradcheck(lambda value: mgs_pool(value, labels, membership)[0], features)


def test_an_empty_cluster_is_a_zero_token_and_not_valid(place):
    backend, device = place
    features, labels, membership = make_inputs(2, 16, 16, 4, 5, 2, 2, 2, 8, device=device)
    membership[..., 3] = False
    tokens, valid = mgs_pool(features, labels, membership, backend=backend)
    assert valid.tolist() == [True, True, True, False, True]
    assert not tokens[3].any()


def test_a_constant_feature_is_every_token(place):
    backend, device = place
    _, labels, membership = make_inputs(2, 16, 16, 4, 5, 2, 2, 2, 8, device=device)
    features = torch.arange(8.0, device=device).expand(2, 2, 2, 8)
    tokens, valid = mgs_pool(features, labels, membership, backend=backend)
    torch.testing.assert_close(tokens[valid], features[0, 0, 0].expand_as(tokens[valid]))


def test_a_cluster_of_everything_weighs_one_everywhere(place):
    backend, device = place
    _, labels, membership = make_inputs(2, 18, 20, 4, 3, 2, 2, 2, 8, device=device)
    weights = grid_weights(labels, torch.ones_like(membership), (2, 4, 3), backend=backend)
    torch.testing.assert_close(weights, torch.ones_like(weights))


def test_renumbering_the_superpixels_changes_nothing(place):
    backend, device = place
    features, labels, membership = make_inputs(2, 20, 20, 6, 5, 2, 2, 2, 8, device=device)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(2)).to(device)
    renumbered = order.argsort()[labels.long()]
    first = mgs_pool(features, labels, membership, backend=backend)[0]
    assert torch.equal(first, mgs_pool(features, renumbered, membership[:, order], backend=backend)[0])


def test_a_batch_of_clips_equals_each_clip_alone(place):
    backend, device = place
    features, labels, membership = make_inputs(7, 10, 12, 9, 6, 5, 2, 2, 10, device=device)
    tokens, valid = mgs_pool(
        features, labels, membership, frame_offsets=[0, 3, 7], feature_offsets=[0, 2, 5], backend=backend
    )
    assert tokens.shape == (2, 6, 10)
    for clip, (frames, bins) in enumerate([(slice(0, 3), slice(0, 2)), (slice(3, 7), slice(2, 5))]):
        expected, expected_valid = reference.mgs_pool(features[bins], labels[frames], membership[frames])
        assert relative_error(tokens[clip], expected) < 1e-6
        assert torch.equal(valid[clip], expected_valid)


def test_the_gradient_of_a_batch_equals_each_clips(place):
    backend, device = place
    features, labels, membership = make_inputs(5, 16, 16, 4, 3, 5, 2, 2, 6, device=device)
    features.requires_grad_()
    tokens, _ = mgs_pool(features, labels, membership, frame_offsets=torch.tensor([0, 2, 5]), backend=backend)
    (actual,) = torch.autograd.grad(tokens.square().sum(), features)
    alone = [reference.mgs_pool(features[a:b], labels[a:b], membership[a:b])[0] for a, b in ((0, 2), (2, 5))]
    (expected,) = torch.autograd.grad(torch.stack(alone).square().sum(), features)
    assert relative_error(actual, expected) < 1e-6


def test_two_runs_agree_to_the_bit(place, poisoned):
    backend, device = place
    features, labels, membership = make_inputs(2, 20, 28, 12, 5, 2, 2, 4, 20, device=device)
    first, _ = mgs_pool(features, labels, membership, backend=backend)
    assert torch.equal(first, mgs_pool(features, labels, membership, backend=backend)[0])
    assert not first.isnan().any()


def test_non_contiguous_inputs_give_the_contiguous_result(place):
    backend, device = place
    features, labels, membership = make_inputs(2, 20, 20, 6, 5, 2, 2, 2, 8, device=device)
    other = features.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)
    turned, strided = labels.transpose(1, 2).contiguous().transpose(1, 2), torch.stack([membership] * 2, -1)[..., 0]
    assert not other.is_contiguous()
    actual = mgs_pool(other, turned, strided, backend=backend)[0]
    assert torch.equal(actual, mgs_pool(features, labels, membership, backend=backend)[0])


@pytest.mark.parametrize("size", [SIZES[0], SIZES[1]])
def test_inputs_at_any_address_give_the_same_tokens_and_gradients(place, unaligned, size):
    backend, device = place
    inputs = make_inputs(*size, device=device)

    def tokens_and_gradient(features, labels, membership):
        leaf = features.detach().requires_grad_()
        tokens, _ = mgs_pool(leaf, labels, membership, backend=backend)
        upstream = torch.ones_like(tokens)
        return tokens, *(
            torch.autograd.grad(tokens, leaf, g, retain_graph=True)[0] for g in (upstream, unaligned(upstream))
        )

    # The first call's plans are kept: they know that these lie at addresses divisible by 16.
    expected = tokens_and_gradient(*inputs)
    for moved in range(3):
        actual = tokens_and_gradient(*(unaligned(one) if i == moved else one for i, one in enumerate(inputs)))
        for one, other in zip(actual, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [SIZES[0], SIZES[1], SIZES[3]])
def test_nothing_beyond_the_inputs_ends_is_read(place, poisoned, guard, size):
    backend, device = place
    features, labels, membership = make_inputs(*size, device=device)
    expected, _ = reference.mgs_pool(features, labels, membership)
    features = guard(features, float("nan")).requires_grad_()
    tokens, _ = mgs_pool(features, guard(labels, 0), guard(membership, True), backend=backend)
    assert relative_error(tokens, expected) < 1e-6
    (gradient,) = torch.autograd.grad(tokens, features, guard(torch.ones_like(tokens), float("nan")))
    assert not gradient.isnan().any()


@pytest.mark.skipif(not has_triton(), reason="needs triton")
@pytest.mark.parametrize("grid", [(3, 2, 2), (1, 1, 1)], ids=["by-columns", "by-windows"])
def test_an_unchecked_bad_label_is_left_out_by_the_kernels(place, grid):
    backend, device = place
    if backend == "torch":
        pytest.skip("torch's own bounds checks find it")
    # Beside a frame's superpixels lie those of the frames around it.
    labels = torch.zeros(3, 16, 16, dtype=torch.int32, device=device)
    labels[1, 0, 0], labels[1, 9, 9] = -1, 3
    membership = torch.ones(3, 3, 2, dtype=torch.bool, device=device)
    weights = grid_weights(labels, membership, grid, backend=backend, checked=False)
    num_counted = 3 * 256 - 2
    assert (weights * 768 / grid[0] / (grid[1] * grid[2])).sum((0, 1, 2)).tolist() == [num_counted, num_counted]


def test_one_pixel_is_one_token(place):
    backend, device = place
    labels = torch.zeros(1, 1, 1, dtype=torch.int16, device=device)
    membership = torch.tensor([[[True, False]]], device=device)
    features = torch.tensor([3.0, -4.0], device=device).view(1, 1, 1, 2)
    tokens, valid = mgs_pool(features, labels, membership, backend=backend)
    assert tokens.tolist() == [[3.0, -4.0], [0.0, 0.0]]
    assert valid.tolist() == [True, False]


def test_ids_that_skip_and_superpixels_without_pixels_weigh_nothing(place):
    backend, device = place
    features, labels, membership = make_inputs(2, 20, 20, 4, 5, 2, 2, 2, 8, device=device)
    expected, _ = mgs_pool(features, labels, membership, backend=backend)
    spread = torch.ones(2, 30, 5, dtype=torch.bool, device=device)
    spread[:, 7 * torch.arange(4)] = membership
    assert torch.equal(mgs_pool(features, labels * 7, spread, backend=backend)[0], expected)


def test_autocast_changes_nothing(place):
    backend, device = place
    features, labels, membership = make_inputs(2, 20, 28, 12, 5, 2, 2, 4, 20, device=device)
    features.requires_grad_()

    def tokens_and_gradient():
        tokens, _ = mgs_pool(features, labels, membership, backend=backend)
        return tokens, torch.autograd.grad(tokens.square().sum(), features)[0]

    expected = tokens_and_gradient()
    with torch.autocast(device, dtype=torch.bfloat16):
        actual = tokens_and_gradient()
        assert torch.equal(
            grid_weights(labels, membership, (2, 2, 4), backend=backend),
            grid_weights(labels, membership, (2, 2, 4), backend=backend),
        )
    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[1], expected[1])


@pytest.mark.parametrize("frames", [1, 2])
def test_more_clusters_than_the_kernel_holds_are_pooled_by_torch(place, frames):
    _, device = place
    features, labels, membership = make_inputs(frames, 16, 16, 9, 65, frames, 2, 2, 4, device=device)
    tokens, _ = mgs_pool(features.requires_grad_(), labels, membership)
    assert relative_error(tokens, reference.mgs_pool(features, labels, membership)[0]) < 1e-6
    tokens.sum().backward()
    if has_triton():
        with pytest.raises(RuntimeError, match="more than 64 clusters run on torch, got 65"):
            mgs_pool(features, labels, membership, backend="triton")


@pytest.mark.parametrize("image", [(8, 8), (9, 8)], ids=["equal", "ragged"])
def test_what_lies_behind_the_counts_reaches_no_token_and_no_gradient(place, image):
    backend, device = place
    # In the layout of `grid_weights`, as a copy that leaves its padding out is.
    rows = torch.full((2, 2, 2, 32), float("nan"), device=device)
    counts = rows[..., :5]
    counts.copy_(torch.randint(0, 9, (2, 2, 2, 5), generator=torch.Generator().manual_seed(0)))
    features = torch.randn(2, 2, 2, 16, generator=torch.Generator().manual_seed(1)).to(device)
    borders = (list(image), [0, 2], [0, 2], True)

    def tokens_and_gradient(counted):
        leaf = features.clone().requires_grad_()
        tokens, masses, valid = torch.ops.raccoon.pool_tokens(leaf, counted, *borders, backend)
        return tokens, masses, valid, torch.autograd.grad(tokens.square().sum(), leaf)[0]

    for actual, expected in zip(tokens_and_gradient(counts), tokens_and_gradient(counts.contiguous()), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


def test_a_nan_in_the_features_is_not_hidden(place):
    backend, device = place
    features, labels, membership = make_inputs(1, 16, 16, 4, 3, 1, 2, 2, 8, device=device)
    features[0, 0, 0, 2] = float("nan")
    tokens, _ = mgs_pool(features, labels, torch.ones_like(membership), backend=backend)
    assert tokens[:, 2].isnan().all()
    assert not tokens[:, 3].isnan().any()


def test_a_label_outside_the_range_is_named(place):
    backend, device = place
    features, labels, membership = make_inputs(1, 16, 16, 4, 3, 1, 2, 2, 8, device=device)
    labels[0, 3, 3] = 4
    with pytest.raises(ValueError, match=r"labels must be local ids in \[0, 4\)"):
        mgs_pool(features, labels, membership, backend=backend, checked=True)


F, L, M = make_inputs(2, 8, 8, 3, 2, 2, 2, 2, 4)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((F.int(), L, M), {}, TypeError, "features must be float16"),
        ((F[0], L, M), {}, ValueError, r"features must be \[t, h, w, d\]"),
        ((F, L.float(), M), {}, TypeError, "labels must be int16"),
        ((F, L, M.float()), {}, TypeError, "membership must be bool"),
        ((F, L, M[:1]), {}, ValueError, r"membership must be \[F, S, k\]"),
        ((F, L, M), {"frame_offsets": [0, 1]}, ValueError, "frame_offsets must rise strictly from 0 to 2"),
        ((F, L, M), {"frame_offsets": [0, 0, 2]}, ValueError, "frame_offsets must rise strictly"),
        ((F, L, M), {"feature_offsets": [0, 2]}, ValueError, "feature_offsets needs frame_offsets"),
        ((F[:1], L, M), {"frame_offsets": [0, 2]}, ValueError, "feature_offsets must be given for a batch"),
        (
            (F, L, M),
            {"frame_offsets": [0, 2], "feature_offsets": [0, 1, 2]},
            ValueError,
            "feature_offsets must hold as many borders",
        ),
        ((F, L, M), {"backend": "numpy"}, ValueError, "backend of grid_counts must be one of"),
    ],
)
def test_wrong_arguments_are_named(arguments, options, error, message):
    with pytest.raises(error, match=message):
        mgs_pool(*arguments, **options)


def test_a_size_that_is_no_grid_is_named():
    with pytest.raises(ValueError, match=r"size must be the token grid \(t, h, w\)"):
        grid_weights(L, M, (2, 0, 2))


def test_the_ops_pass_opcheck(place):
    backend, device = place
    features, labels, membership = make_inputs(2, 8, 8, 3, 2, 2, 2, 2, 4, device=device)
    borders = [0, 2]
    opcheck(torch.ops.raccoon.grid_counts.default, (labels, membership, [2, 2], borders, borders, backend, True))
    for grid in ([2, 2], [3, 2]):
        opcheck(torch.ops.raccoon.grid_weights.default, (labels, membership, grid, borders, borders, backend, True))
    counts, constants = torch.ones(2, 2, 2, 2, device=device), ([8, 8], borders, borders, True, backend)
    opcheck(torch.ops.raccoon.pool_tokens.default, (features.requires_grad_(), counts, *constants))
    masses, grad_tokens = torch.ones(1, 2, device=device), torch.rand(1, 2, 4, device=device)
    # In rows with room for 32 clusters as well: what opcheck's copies hold there is any number.
    for counted in (counts, torch.ones(2, 2, 2, 32, device=device)[..., :2]):
        for dtype in (torch.float32, torch.bfloat16):
            opcheck(torch.ops.raccoon.pool_tokens_backward.default, (grad_tokens, counted, masses, dtype, *constants))


def test_a_function_that_calls_it_compiles_without_a_break(place):
    backend, device = place
    features, labels, membership = make_inputs(2, 8, 8, 3, 2, 2, 2, 2, 4, device=device)
    features.requires_grad_()

    def total(value):
        return mgs_pool(value + 1, labels, membership, backend=backend)[0].square().sum()

    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    (expected,) = torch.autograd.grad(total(features), features)
    torch.testing.assert_close(torch.autograd.grad(compiled(features), features)[0], expected)


@pytest.mark.parametrize("grid", [(2, 2, 2), (2, 3, 2)], ids=["equal", "ragged"])
def test_a_function_of_the_weights_compiles_without_a_break(place, grid):
    backend, device = place
    _, labels, membership = make_inputs(2, 8, 8, 3, 2, 2, 2, 2, 4, device=device)

    def doubled(value):
        return grid_weights(value, membership, grid, backend=backend) * 2

    compiled = torch.compile(doubled, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(labels), doubled(labels))


class Largest(TorchDispatchMode):
    """Notes the greatest number of elements of any tensor that torch makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else (made,):
            if isinstance(one, torch.Tensor):
                self.numel = max(self.numel, one.numel())
        return made


@pytest.mark.parametrize("grid", [(4, 4), (5, 3)], ids=["equal", "ragged"])
def test_no_mask_is_ever_built(place, grid):
    backend, device = place
    features, labels, membership = make_inputs(2, 56, 56, 12, 25, 2, *grid, 8, device=device)
    with Largest() as largest:
        reference.mgs_pool(features, labels, membership)
    assert largest.numel == 25 * labels.numel()
    with Largest() as largest:
        mgs_pool(features.requires_grad_(), labels, membership, backend=backend)[0].sum().backward()
    assert largest.numel <= 2 * labels.numel()


def test_v2p_builds_no_mask():
    mgs = pytest.importorskip("raccoon.models.mgs")
    frames, labels, _ = make_inputs(2, 56, 56, 16, 1, 2, 56, 56, 3)
    grid = torch.randn(1, 2, 4, 4, 8).requires_grad_()
    pool = mgs.MGSPooling(num_clusters=25, overlap=6)
    with Largest() as largest:
        tokens = pool(grid, frames.permute(0, 3, 1, 2)[None].sigmoid(), labels[None], 16).tokens
        tokens.sum().backward()
    # The pixels' own features, a handful of numbers each, are the greatest.
    assert largest.numel <= 8 * labels.numel()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_more_than_2_to_the_31_features_are_addressed():
    frames = 3650
    features = torch.randn(frames, 24, 24, 1024, device="cuda", dtype=torch.bfloat16).requires_grad_()
    assert features.numel() > 2**31
    labels = torch.randint(0, 50, (1, 336, 336), device="cuda").short().repeat(frames, 1, 1)
    membership = torch.rand(1, 50, 25, device="cuda").lt(0.3).repeat(frames, 1, 1)
    tokens, _ = mgs_pool(features, labels, membership, frame_offsets=[0, frames - 2, frames])
    (gradient,) = torch.autograd.grad(tokens, features, torch.ones_like(tokens))
    tail = features[-2:].detach().clone().requires_grad_()
    expected, _ = mgs_pool(tail, labels[-2:], membership[-2:])
    (expected_gradient,) = torch.autograd.grad(expected, tail, torch.ones_like(expected))
    torch.testing.assert_close(tokens[1], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient[-2:], expected_gradient, rtol=1e-2, atol=1e-6)
