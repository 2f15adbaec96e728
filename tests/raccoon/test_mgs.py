import pytest
import torch
from torch.nn.functional import adaptive_avg_pool3d

from raccoon.models.colour import srgb_to_lab
from raccoon.models.mgs import MGSPooling, cluster_masks, spatial_pool, temporal_pool, visual_tokens
from raccoon.models.superpixels import GridSuperpixels, SlicSuperpixels


def clips(num_clips=2, num_frames=3, size=(28, 42), cell=7, dim=5, bins=None, grid=None, seed=0):
    """Frames with smooth colours, their superpixels and a random grid of features."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(num_clips * num_frames, 3, 4, 6, generator=generator)
    frames = torch.nn.functional.interpolate(small, size=size, mode="bilinear")
    labels, count = SlicSuperpixels(cell=cell).segment(frames)
    h, w = grid or (size[0] // 7, size[1] // 7)
    features = torch.randn(num_clips, bins or num_frames, h, w, dim, generator=generator)
    shape = (num_clips, num_frames)
    return features, frames.unflatten(0, shape), labels.unflatten(0, shape), count


def materialised(grid, labels, membership, normalize=True):
    """The definition for one clip, masks and all, in float64."""
    masks = cluster_masks(labels, membership).double()
    weights = adaptive_avg_pool3d(masks[:, None], grid.shape[:3])[:, 0]
    tokens = torch.einsum("kthw,thwd->kd", weights, grid.double())
    mass = weights.sum((1, 2, 3))
    return tokens / mass.clamp_min(1e-300)[:, None] * (mass > 0)[:, None] if normalize else tokens


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    "settings",
    [{}, {"bins": 2}, {"num_frames": 4, "bins": 3}, {"grid": (3, 5)}, {"size": (29, 43)}, {"num_frames": 1}],
    ids=["exact", "bins", "ragged bins", "ragged windows", "ragged frame", "one frame"],
)
def test_tokens_equal_the_masks_written_out(settings, normalize):
    grid, frames, labels, count = clips(**settings)
    result = MGSPooling(6, 3, normalize=normalize)(grid, frames, labels, count)
    for b in range(2):
        expected = materialised(grid[b], labels[b], result.membership[b], normalize)
        torch.testing.assert_close(result.tokens[b].double(), expected, rtol=1e-5, atol=1e-5)
    assert result.valid.all()


def test_v_1_puts_each_superpixel_in_one_cluster_and_v_3_in_three():
    grid, frames, labels, count = clips()
    present = torch.stack([(labels == s).any(-1).any(-1) for s in range(count)], dim=-1)
    for overlap in (1, 3):
        sizes = MGSPooling(6, overlap)(grid, frames, labels, count).membership.sum(-1)
        assert (sizes[present] == overlap).all()
        assert (sizes[~present] == 0).all()


def test_two_colours_make_two_clusters():
    frames = torch.zeros(1, 2, 3, 28, 28)
    frames[..., 14:] = 0.9
    labels, count = GridSuperpixels(cell=7).segment(frames[0])
    grid = torch.zeros(1, 2, 4, 4, 1)
    grid[..., 2:, :] = 8.0
    result = MGSPooling(2, 1, features="lab")(grid, frames, labels[None], count)
    assert sorted(result.tokens.flatten().tolist()) == [0.0, 8.0]
    masks = cluster_masks(labels, result.membership[0])
    bright = int(result.tokens.argmax())
    assert torch.equal(masks[bright], frames[0, :, 0] > 0)


@pytest.mark.parametrize(
    ("features", "channels"), [("rgb", 3), ("lab", 3), ("lab+xy", 5), ("lab+xy+t", 5)], ids=lambda v: str(v)
)
def test_pixel_features_are_what_their_name_says(features, channels):
    frames = torch.rand(2, 3, 4, 8)
    described = MGSPooling(features=features, position_weight=16.0)._pixel_features(frames)
    assert described.shape == (2, channels, 4, 8)
    torch.testing.assert_close(described[:, :3], frames if features == "rgb" else srgb_to_lab(frames))
    if channels >= 5:
        assert described[1, 3, 0].tolist() == [1, 3, 5, 7, 9, 11, 13, 15]
        assert described[1, 4, :, 0].tolist() == [1, 3, 5, 7]


def test_moments_separate_what_neither_colour_nor_position_can():
    frames = torch.full((2, 4, 3, 7, 7), 0.5)
    labels = torch.zeros(2, 4, 7, 7, dtype=torch.int16)
    grid = torch.randn(2, 4, 1, 1, 2)
    found = MGSPooling(4, 1, features="lab+xy+t")(grid, frames, labels, 1)
    assert found.valid.all()
    assert (found.membership.sum(dim=1) == 1).all()
    assert MGSPooling(4, 1, features="lab+xy")(grid, frames, labels, 1).valid.sum(dim=1).tolist() == [1, 1]


@pytest.mark.parametrize("features", ["rgb", "lab", "lab+xy", "lab+xy+t"])
def test_described_superpixels_give_the_tokens_that_frames_give(features):
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(2, 3, 3, 28, 28, generator=generator)
    grid = torch.randn(2, 3, 4, 4, 5, generator=generator)
    labels, count = GridSuperpixels(cell=7).segment(frames.flatten(0, 1))
    labels = labels.unflatten(0, (2, 3))
    # An id that owns no pixel.
    labels[labels == 3] = 2
    pooling = MGSPooling(3, 2, features=features)
    wanted = pooling(grid, frames, labels, count)
    described = torch.stack([pooling.describe(f[None], x[None], count)[0] for f, x in zip(frames, labels, strict=True)])
    found = pooling(grid, None, labels, count, described=described)
    assert described.dtype == torch.int32
    assert torch.equal(found.membership, wanted.membership)
    assert torch.equal(found.tokens, wanted.tokens)


def test_a_description_of_other_superpixels_is_refused():
    grid, labels = torch.randn(1, 2, 2, 2, 3), torch.zeros(1, 2, 4, 4, dtype=torch.int16)
    with pytest.raises(ValueError, match=r"described must be int32 \[1, 2, 5, C\] for these superpixels, got"):
        MGSPooling(2, 1)(grid, None, labels, 5, described=torch.zeros(1, 2, 4, 3, dtype=torch.int32))
    with pytest.raises(ValueError, match="frames must be given where the superpixels are not described"):
        MGSPooling(2, 1)(grid, None, labels, 5)


def test_position_separates_what_colour_cannot():
    frames = torch.full((1, 1, 3, 28, 28), 0.5)
    labels, count = GridSuperpixels(cell=7).segment(frames[0])
    grid = torch.randn(1, 1, 4, 4, 2)
    with_position = MGSPooling(4, 1)(grid, frames, labels[None], count)
    without = MGSPooling(4, 1, features="lab")(grid, frames, labels[None], count)
    assert with_position.valid.all()
    assert without.valid.sum() == 1


def test_an_empty_cluster_is_a_zero_token_that_says_so():
    frames = torch.full((1, 2, 3, 14, 14), 0.5)
    labels = torch.zeros(1, 2, 14, 14, dtype=torch.int16)
    grid = torch.ones(1, 2, 2, 2, 3)
    result = MGSPooling(5, 1, features="lab")(grid, frames, labels, 4)
    assert result.valid.sum() == 1
    assert (result.tokens[~result.valid] == 0).all()
    assert (result.tokens[result.valid] == 1).all()
    assert not result.membership[:, :, 1:].any()


@pytest.mark.parametrize("features", ["rgb", "lab+xy", "lab+xy+t"])
def test_a_clip_gives_the_same_tokens_alone_and_in_a_batch(features):
    grid, frames, labels, count = clips(num_clips=3, size=(29, 43), grid=(4, 6))
    pool = MGSPooling(6, 2, features=features)
    together = pool(grid, frames, labels, count)
    for b in range(3):
        alone = pool(grid[b : b + 1], frames[b : b + 1], labels[b : b + 1], count)
        assert torch.equal(alone.membership[0], together.membership[b])
        assert torch.equal(alone.valid[0], together.valid[b])
        torch.testing.assert_close(alone.tokens[0], together.tokens[b])


def test_the_same_seed_gives_the_same_tokens_whatever_the_global_generator_holds():
    inputs = clips()
    first = MGSPooling(6, 3, seed=5)(*inputs)
    torch.manual_seed(1234)
    second = MGSPooling(6, 3, seed=5)(*inputs)
    assert torch.equal(first.membership, second.membership)
    assert torch.equal(first.tokens, second.tokens)


def test_the_seed_is_part_of_the_result():
    inputs = clips(num_frames=4)
    memberships = [MGSPooling(6, 2, seed=seed)(*inputs).membership for seed in range(4)]
    assert any(not torch.equal(memberships[0], other) for other in memberships[1:])


def test_the_global_generator_is_not_moved():
    inputs = clips()
    state = torch.get_rng_state()
    MGSPooling(6, 2)(*inputs)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("algorithm", ["topv", "kl", "okm", "neo", "merge"])
def test_every_algorithm_pools(algorithm):
    grid, frames, labels, count = clips(num_clips=1)
    result = MGSPooling(5, 2, algorithm=algorithm)(grid, frames, labels, count)
    expected = materialised(grid[0], labels[0], result.membership[0])
    torch.testing.assert_close(result.tokens[0].double(), expected, rtol=1e-5, atol=1e-5)


def test_the_gradient_reaches_the_grid_and_is_right():
    grid, frames, labels, count = clips(num_frames=1, dim=1, grid=(2, 3))
    pool = MGSPooling(4, 2)
    leaf = grid.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda g: pool(g, frames, labels, count).tokens, (leaf,))


def test_the_promise_of_a_superpixel_grid_changes_no_token():
    grid, frames, labels, count = clips()
    pool = MGSPooling(6, 3)
    promised = pool(grid, frames, labels, count, superpixel_grid=SlicSuperpixels(cell=7).grid(28, 42))
    torch.testing.assert_close(promised.tokens, pool(grid, frames, labels, count).tokens)


def test_tokens_have_the_grids_dtype_and_autocast_moves_no_cluster():
    grid, frames, labels, count = clips()
    pool = MGSPooling(6, 3)
    plain = pool(grid, frames, labels, count)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = pool(grid.bfloat16(), frames, labels, count)
    assert mixed.tokens.dtype == torch.bfloat16
    assert torch.equal(mixed.membership, plain.membership)
    torch.testing.assert_close(mixed.tokens.float(), plain.tokens, atol=0.02, rtol=0.02)


def test_pooling_has_no_weights_and_says_its_settings():
    pool = MGSPooling(25, 6, seed=3)
    assert not list(pool.state_dict())
    assert repr(pool) == "MGSPooling(k=25, v=6, topv, lab+xy, seed=3)"


def test_spatial_and_temporal_pooling_average_over_places_and_over_time():
    grid = torch.arange(2 * 3 * 2 * 2 * 1.0).reshape(2, 3, 2, 2, 1)
    assert spatial_pool(grid).squeeze(-1).tolist() == [[1.5, 5.5, 9.5], [13.5, 17.5, 21.5]]
    assert temporal_pool(grid).squeeze(-1).tolist() == [[4, 5, 6, 7], [16, 17, 18, 19]]


def test_visual_tokens_come_frames_first_then_clusters_then_places():
    grid = torch.randn(2, 3, 4, 5, 6)
    local = torch.randn(2, 7, 6)
    tokens = visual_tokens(grid, local)
    assert tokens.shape == (2, 3 + 7 + 20, 6)
    torch.testing.assert_close(tokens[:, :3], spatial_pool(grid))
    torch.testing.assert_close(tokens[:, 3:10], local)
    torch.testing.assert_close(tokens[1, 10 + 2 * 5 + 4], grid[1, :, 2, 4].mean(0))


def test_cluster_masks_follow_labels_and_membership():
    labels = torch.tensor([[[0, 1], [2, 1]], [[1, 1], [0, 2]]], dtype=torch.int16)
    membership = torch.tensor([[[1, 0], [1, 1], [0, 0]], [[0, 1], [0, 0], [1, 1]]], dtype=torch.bool)
    masks = cluster_masks(labels, membership)
    assert masks.shape == (2, 2, 2, 2)
    assert masks.int().tolist() == [[[[1, 1], [0, 1]], [[0, 0], [0, 1]]], [[[0, 1], [0, 1]], [[0, 0], [1, 1]]]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g, f, s: (g[0], f, s), r"grid must be \[B, t, h, w, d\], got \[3, 4, 6, 5\]; add the batch axis"),
        (lambda g, f, s: (g, f[0], s), r"frames must be \[B, F, 3, H, W\], got \[3, 3, 28, 42\]"),
        (lambda g, f, s: (g, f, s[..., :14]), r"superpixels must be \[B, F, H, W\] like the frames' \[2, 3, 28, 42\]"),
        (lambda g, f, s: (g[:1], f, s), r"grid and frames must hold the same clips, got 1 and 2"),
        (lambda g, f, s: (g, f, s + 90), r"local ids in \[0, 24\)"),
    ],
    ids=["grid", "frames", "superpixels", "batch", "labels"],
)
def test_inputs_that_do_not_match_are_refused(change, message):
    grid, frames, labels, count = clips()
    assert count == 24
    with pytest.raises(ValueError, match=message):
        MGSPooling(4, 2)(*change(grid, frames, labels), count)


def test_eight_bit_frames_are_refused():
    grid, frames, labels, count = clips()
    for features in ("lab", "rgb"):
        with pytest.raises(TypeError, match=r"frames must be floating in \[0, 1\], got torch\.uint8"):
            MGSPooling(4, 2, features=features)(grid, (frames * 255).byte(), labels, count)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_clusters": 0}, "num_clusters must be at least 1, got 0"),
        ({"overlap": 0}, "overlap must be from 1 to num_clusters = 25, got 0"),
        ({"num_clusters": 4, "overlap": 5}, "overlap must be from 1 to num_clusters = 4, got 5"),
        ({"algorithm": "fuzzy"}, "algorithm must be one of topv, kl, okm, neo, merge, got 'fuzzy'"),
        ({"features": "hsv"}, r"features must be one of lab\+xy, lab, rgb, lab\+xy\+t, got 'hsv'"),
        ({"position_weight": -1.0}, r"position_weight must not be negative, got -1\.0"),
    ],
    ids=["k", "v low", "v high", "algorithm", "features", "position"],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MGSPooling(**settings)


def test_visual_tokens_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"B = 2 and d = 6, got \[2, 7, 5\]"):
        visual_tokens(torch.randn(2, 3, 4, 5, 6), torch.randn(2, 7, 5))


def test_visual_tokens_of_a_grid_without_a_batch_are_refused():
    with pytest.raises(ValueError, match=r"grid must be \[B, t, h, w, d\], got \[3, 4, 5, 6\]"):
        visual_tokens(torch.randn(3, 4, 5, 6), torch.randn(2, 7, 6))


def test_cluster_masks_of_a_batch_are_refused():
    with pytest.raises(ValueError, match="take one clip of a batch"):
        cluster_masks(torch.zeros(3, 4, 4), torch.zeros(2, 3, 5, 6, dtype=torch.bool))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_pools_like_the_cpu_for_the_same_superpixels():
    grid, frames, labels, count = clips(num_frames=4, size=(56, 84))
    pool = MGSPooling(6, 3)
    cpu = pool(grid, frames, labels, count)
    gpu = pool(grid.cuda(), frames.cuda(), labels.cuda(), count, superpixel_grid=SlicSuperpixels(cell=7).grid(56, 84))
    assert gpu.tokens.is_cuda
    # A superpixel midway between two clusters may fall to either side.
    assert (gpu.membership.cpu() == cpu.membership).float().mean() > 0.99
    torch.testing.assert_close(gpu.tokens.cpu(), cpu.tokens, atol=0.05, rtol=0.05)
