"""Masked multi-granular pooling against the float64 twin that paints every mask."""

import pytest
import torch
from torch.library import opcheck

from raccoon_kernels import grid_weights, mgs_pool, reference


def make_inputs(frames, height, width, superpixels, k, bins, h, w, d, *, device="cpu", dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, superpixels, (frames, height, width), generator=generator).to(torch.int16)
    membership = torch.rand(frames, superpixels, k, generator=generator) < 0.3
    features = torch.randn(bins, h, w, d, generator=generator).to(dtype)
    return features.to(device), labels.to(device), membership.to(device)


def relative_error(actual, expected):
    assert not actual.isnan().any()
    return float((actual.double().cpu() - expected.double().cpu()).norm() / expected.norm().cpu().clamp(min=1e-30))


SIZES = [
    pytest.param((2, 20, 28, 12, 5, 2, 2, 4, 20), id="even-windows"),
    pytest.param((2, 21, 25, 7, 33, 2, 2, 3, 17), id="ragged-33-clusters"),
    pytest.param((3, 10, 12, 9, 64, 2, 2, 2, 8), id="bins-not-dividing-64-clusters"),
    pytest.param((2, 19, 70, 5, 31, 1, 1, 1, 130), id="one-window-31-clusters"),
    pytest.param((1, 20, 20, 5, 1, 3, 2, 2, 3), id="more-bins-than-frames"),
    pytest.param((1, 16, 16, 3, 32, 1, 2, 2, 16), id="one-frame-32-clusters"),
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
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
    counts = torch.ones(2, 2, 2, 2, device=device)
    opcheck(
        torch.ops.raccoon.pool_tokens.default,
        (features.requires_grad_(), counts, [8, 8], borders, borders, True, backend),
    )


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


def test_no_mask_is_ever_built():
    features, labels, membership = make_inputs(4, 56, 56, 12, 25, 4, 4, 4, 8)
    num_masked = membership.shape[2] * labels.numel()
    with torch.profiler.profile(profile_memory=True) as profile:
        mgs_pool(features, labels, membership, backend="torch")
    greatest = max(event.self_cpu_memory_usage for event in profile.events())
    assert greatest < num_masked / 4
