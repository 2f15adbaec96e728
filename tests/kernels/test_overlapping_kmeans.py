"""Overlapping k-means: seeding, the algorithms' promises, ties, empty clusters and batches."""

from itertools import pairwise

import pytest
import torch
from torch.library import opcheck

from raccoon_kernels import overlapping_kmeans, reference
from raccoon_kernels.dispatch import has_triton
from raccoon_kernels.kmeans_lloyd import squared_distances
from raccoon_kernels.kmeans_seeding import seed_centroids, seed_clips
from raccoon_kernels.kmeans_variants import neo_assign, okm_assign, okm_update
from raccoon_kernels.launch import forget_plans

ALGORITHMS = ["topv", "kl", "okm", "neo", "merge"]
FUSED = ["topv", "kl", "merge"]


def make_points(num_points=200, features=4, *, groups=8, seed=0, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(groups, features, generator=generator) * 3 + 5
    noise = torch.randn(num_points, features, generator=generator)
    return (centres[torch.arange(num_points) % groups] + noise).to(device)


def is_clear(points, centroids, overlap, margin=1e-5):
    """Rows whose last chosen and first unchosen cluster differ by more than rounding."""
    ordered = reference.squared_distances(points, centroids).sort(1).values
    if overlap == ordered.shape[1]:
        return torch.ones(len(points), dtype=torch.bool, device=points.device)
    return ordered[:, overlap] - ordered[:, overlap - 1] > margin * ordered[:, overlap]


@pytest.mark.parametrize("algorithm", FUSED)
@pytest.mark.parametrize("overlap", [1, 3])
def test_every_backend_finds_the_same_clusters(place, algorithm, overlap):
    backend, device = place
    points = make_points(device=device)
    result = overlapping_kmeans(points, 7, overlap, algorithm=algorithm, backend=backend)
    expected = overlapping_kmeans(points.cpu().double(), 7, overlap, algorithm=algorithm, backend="torch")
    clear = is_clear(points.cpu(), expected.centroids, overlap)
    assert torch.equal(result.membership.cpu()[clear], expected.membership[clear])
    torch.testing.assert_close(result.centroids.double().cpu(), expected.centroids, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(result.objective.cpu(), expected.objective, rtol=1e-4, atol=1e-3)
    assert int(result.iterations) == int(expected.iterations)


@pytest.mark.parametrize("overlap", [1, 3])
def test_iterations_equal_the_twins_with_far_and_empty_first_centroids(place, overlap):
    backend, device = place
    points = make_points(150, 3, device=device)
    initial = points[:6].clone()
    initial[2], initial[4] = 50.0, 60.0
    algorithm = "kl" if overlap > 1 else "topv"
    result = overlapping_kmeans(
        points, 6, overlap, algorithm=algorithm, initial=initial, max_iterations=3, tolerance=0.0, backend=backend
    )
    expected = reference.kmeans(points, initial, num_iterations=3, overlap=overlap)
    torch.testing.assert_close(result.centroids.double(), expected, rtol=1e-5, atol=1e-5)
    assert int(result.iterations) == 3
    if overlap == 1:
        assert result.membership.any(0).all()


@pytest.mark.parametrize("overlap", [1, 3])
def test_points_of_many_programs_give_the_twins_centroids(place, overlap):
    # A block of the kernel holds 512 points: three programs, whose iterations are launches of their own.
    backend, device = place
    points = make_points(1500, 3, device=device)
    algorithm = "kl" if overlap > 1 else "topv"
    result = overlapping_kmeans(
        points, 5, overlap, algorithm=algorithm, initial=points[:5], max_iterations=6, tolerance=0.0, backend=backend
    )
    expected = reference.kmeans(points, points[:5], num_iterations=6, overlap=overlap)
    torch.testing.assert_close(result.centroids.double(), expected, rtol=1e-5, atol=1e-5)
    assert int(result.iterations) == 6


@pytest.mark.parametrize("features", [16, 32, 40])
def test_features_without_room_for_a_counting_column_are_counted_beside_them(place, features):
    # 16 and 32 features fill a block, 40 do not.
    backend, device = place
    points = make_points(300, features, device=device)
    result = overlapping_kmeans(
        points, 5, 2, algorithm="kl", initial=points[:5], max_iterations=4, tolerance=0.0, backend=backend
    )
    expected = reference.kmeans(points, points[:5], num_iterations=4, overlap=2)
    torch.testing.assert_close(result.centroids.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not has_triton(), reason="needs triton")
@pytest.mark.parametrize("multiprocessors", [1, 2])
@pytest.mark.parametrize("features", [3, 32])
def test_programs_of_several_blocks_give_the_twins_centroids(place, monkeypatch, features, multiprocessors):
    from raccoon_kernels import triton_kmeans_lloyd

    backend, device = place
    monkeypatch.setattr(triton_kmeans_lloyd, "num_multiprocessors", lambda device: multiprocessors)
    forget_plans()
    points = make_points(1100, features, device=device)
    options = {"max_iterations": 3, "tolerance": 0.0, "backend": backend}
    result = overlapping_kmeans(points, 5, 2, algorithm="kl", initial=points[:5], **options)
    forget_plans()
    expected = reference.kmeans(points, points[:5], num_iterations=3, overlap=2)
    torch.testing.assert_close(result.centroids.double(), expected, rtol=1e-5, atol=1e-5)


def test_a_cluster_that_nothing_can_be_spared_for_keeps_its_centroid(place):
    backend, device = place
    # Whole numbers about zero: no sum is rounded, so every point lies on its centroid.
    corners = torch.tensor([[4.0, 0.0], [0.0, 4.0], [-4.0, 0.0], [0.0, -4.0]])
    points = corners[torch.arange(32) % 4].to(device)
    initial = torch.cat([points[:4], points[:2] + 64])
    result = overlapping_kmeans(points, 6, 1, initial=initial, max_iterations=2, tolerance=0.0, backend=backend)
    torch.testing.assert_close(result.centroids, initial)


def test_the_tolerance_is_of_the_variance_about_the_mean(place):
    backend, device = place
    points = make_points(400, 3, groups=30, device=device)
    points[0] += 300.0
    options = {"initial": points[:5].clone(), "tolerance": 1e-3}
    expected = overlapping_kmeans(points.double(), 5, 1, backend="torch", **options)
    result = overlapping_kmeans(points, 5, 1, backend=backend, **options)
    assert int(result.iterations) == int(expected.iterations) > 2


def test_a_short_clip_beside_a_long_one_and_empty_clusters_in_both_are_as_alone(place):
    # The long clip has two programs, and of the short one's the second has no points.
    backend, device = place
    points = make_points(800, 3, device=device)
    offsets = [0, 700, 800]
    initial = torch.stack([points[:6], points[700:706]])
    initial[0, 2], initial[0, 3], initial[1, 4] = 50.0, 60.0, -70.0
    options = {"max_iterations": 3, "tolerance": 0.0, "backend": backend}
    batch = overlapping_kmeans(points, 6, 1, initial=initial, offsets=offsets, **options)
    for clip, (begin, end) in enumerate(pairwise(offsets)):
        expected = reference.kmeans(points[begin:end], initial[clip], num_iterations=3)
        torch.testing.assert_close(batch.centroids[clip].double(), expected, rtol=1e-5, atol=1e-5)
        assert batch.membership[begin:end].any(0).all()


@pytest.mark.parametrize("num_points", [200, 1500], ids=["one-launch", "many-launches"])
def test_the_loop_ends_as_soon_as_nothing_moves(place, num_points):
    backend, device = place
    points = make_points(num_points, 3, groups=3, device=device)
    result = overlapping_kmeans(points, 3, 1, initial=points[:3], backend=backend)
    expected = overlapping_kmeans(points.double(), 3, 1, initial=points[:3].double(), backend="torch")
    assert int(result.iterations) == int(expected.iterations) < 40


@pytest.mark.parametrize("features", [5, 32])
def test_the_error_of_the_centroids_is_at_most_twice_that_of_plain_torch(place, features):
    backend, device = place
    points = make_points(400, features, device=device)
    centroids = points[:6].clone()
    expected = reference.kmeans(points, centroids, num_iterations=4)
    actual = overlapping_kmeans(
        points, 6, 1, initial=centroids, max_iterations=4, tolerance=0.0, backend=backend
    ).centroids
    for _ in range(4):
        nearest = (points[:, None] - centroids[None]).square().sum(2).argmin(1)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, points)
        centroids = sums / torch.bincount(nearest, minlength=6)[:, None]

    def error(found):
        return float((found.double() - expected).norm() / expected.norm())

    # What float32 rounds once is no error.
    assert error(actual) <= 2 * max(error(centroids), 6e-8)


@pytest.mark.parametrize("layout", ["by-feature", "strided", "unaligned"])
@pytest.mark.parametrize("features", [3, 32])
def test_points_in_any_layout_are_clustered_as_contiguous_ones(place, unaligned, layout, features):
    backend, device = place
    points = make_points(120, features, device=device)
    options = {"max_iterations": 4, "backend": backend}
    expected = overlapping_kmeans(points, 5, 2, initial=points[:5].clone(), **options)
    if layout == "by-feature":
        other = points.T.contiguous().T
    elif layout == "strided":
        other = torch.stack([points] * 2, -1)[..., 0]
    else:
        other = unaligned(points)
    first = unaligned(points[:5].clone()) if layout == "unaligned" else other[:5]
    result = overlapping_kmeans(other, 5, 2, initial=first, **options)
    assert torch.equal(result.membership, expected.membership)
    torch.testing.assert_close(result.centroids, expected.centroids, rtol=1e-6, atol=1e-6)


def test_points_2_to_the_31_elements_apart_are_read(place):
    backend, device = place
    if (backend, device) == ("triton", "cpu"):
        pytest.skip("the interpreter counts a loop in 32 bits where a GPU counts in those of its bounds, 64")
    # 4 GB of addresses, of which a few pages are touched.
    stride = 2**26
    far = torch.empty(32 * stride + 2, dtype=torch.float16, device=device).as_strided((33, 2), (stride, 1))
    points = make_points(33, 2, device=device).half()
    far.copy_(points)
    options = {"initial": points[:3].float(), "max_iterations": 3, "backend": backend}
    expected = overlapping_kmeans(points, 3, 2, **options)
    result = overlapping_kmeans(far, 3, 2, **options)
    assert torch.equal(result.membership, expected.membership)
    torch.testing.assert_close(result.centroids, expected.centroids)


@pytest.mark.parametrize("features", [3, 20])
def test_nothing_beyond_the_points_ends_is_read(place, poisoned, guard, features):
    backend, device = place
    points = make_points(130, features, device=device)
    options = {"max_iterations": 4, "tolerance": 0.0, "backend": backend}
    expected = reference.kmeans(points, points[:5], num_iterations=4)
    result = overlapping_kmeans(guard(points, float("nan")), 5, 2, initial=guard(points[:5], float("nan")), **options)
    torch.testing.assert_close(result.centroids.double(), expected, rtol=1e-5, atol=1e-5)
    assert (result.membership.sum(1) == 2).all()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_autocast_changes_nothing(place, algorithm):
    backend, device = place
    if backend == "triton" and algorithm not in FUSED:
        pytest.skip("runs on torch")
    points = make_points(device=device)
    expected = overlapping_kmeans(points, 7, 3, algorithm=algorithm, max_iterations=5, backend=backend)
    with torch.autocast(device, dtype=torch.bfloat16):
        result = overlapping_kmeans(points, 7, 3, algorithm=algorithm, max_iterations=5, backend=backend)
    assert torch.equal(result.membership, expected.membership)
    assert torch.equal(result.centroids, expected.centroids)


@pytest.mark.filterwarnings("ignore:(invalid value encountered|All-NaN slice):RuntimeWarning")
@pytest.mark.skipif(not has_triton(), reason="needs triton")
@pytest.mark.parametrize("num_points", [100, 1100], ids=["one-launch", "many-launches"])
def test_unchecked_points_that_are_not_finite_end_their_own_clip_only(place, num_points):
    backend, device = place
    if backend == "torch":
        pytest.skip("the kernels' clips run side by side")
    points = make_points(2 * num_points, 3, device=device)
    offsets, options = [0, num_points, 2 * num_points], {"max_iterations": 3, "tolerance": 0.0, "backend": backend}
    initial = torch.stack([points[:5], points[num_points : num_points + 5]])
    initial[:, 3] = 90.0  # empty at first, so that a point is looked for
    expected = overlapping_kmeans(points, 5, 2, initial=initial, offsets=offsets, **options)
    points[3, 1] = float("nan")
    result = overlapping_kmeans(points, 5, 2, initial=initial, offsets=offsets, checked=False, **options)
    assert torch.equal(result.centroids[1], expected.centroids[1])
    assert torch.equal(result.membership[num_points:], expected.membership[num_points:])
    assert int(result.iterations[0]) == 3


@pytest.mark.parametrize("overlap", [1, 2, 6])
def test_topv_joins_exactly_the_v_nearest_clusters(place, overlap):
    backend, device = place
    points = make_points(device=device)
    result = overlapping_kmeans(points, 6, overlap, backend=backend)
    assert (result.membership.sum(1) == overlap).all()
    clear = is_clear(points, result.centroids, overlap)
    nearest = reference.nearest_clusters(points, result.centroids, overlap)
    assert torch.equal(result.membership[clear], nearest[clear])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_at_overlap_one_every_algorithm_is_kmeans(algorithm):
    points = make_points()
    result = overlapping_kmeans(points, 7, 1, algorithm=algorithm)
    expected = overlapping_kmeans(points, 7, 1)
    assert torch.equal(result.membership, expected.membership)
    torch.testing.assert_close(result.centroids, expected.centroids)
    assert result.algorithm == algorithm


@pytest.mark.parametrize("algorithm", ["topv", "kl", "neo", "merge"])
def test_at_full_overlap_every_point_is_everywhere(algorithm):
    assert overlapping_kmeans(make_points(60), 5, 5, algorithm=algorithm).membership.all()


def test_okm_takes_between_one_and_v_clusters_a_point():
    sizes = overlapping_kmeans(make_points(), 7, 3, algorithm="okm").membership.sum(1)
    assert int(sizes.min()) >= 1
    assert int(sizes.max()) <= 3
    assert int((sizes > 1).sum()) > 0


def test_neo_takes_v_clusters_a_point_on_average():
    membership = overlapping_kmeans(make_points(), 7, 3, algorithm="neo").membership
    assert int(membership.sum()) == 3 * 200
    assert int(membership.sum(1).min()) >= 1


def test_merge_joins_whole_clusters():
    points = make_points()
    parts = overlapping_kmeans(points, 7, 1).membership
    membership = overlapping_kmeans(points, 7, 3, algorithm="merge").membership
    labels = parts.int().argmax(1)
    for j in range(7):
        joined = membership[:, j]
        assert len({int(label) for label in labels[joined]}) == 3
        assert joined[parts[:, j]].all()


@pytest.mark.parametrize("algorithm", ["topv", "kl", "neo", "okm"])
def test_the_objective_never_rises(algorithm):
    points = make_points(groups=5)
    overlap = 1 if algorithm == "topv" else 2
    values = [
        float(overlapping_kmeans(points, 7, overlap, algorithm=algorithm, max_iterations=n, tolerance=0.0).objective)
        for n in range(9)
    ]
    assert all(after <= before * (1 + 1e-6) for before, after in pairwise(values))
    assert values[-1] < values[0]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_reported_objective_is_the_twins(algorithm):
    points = make_points()
    result = overlapping_kmeans(points, 7, 2, algorithm=algorithm)
    expected = reference.objective(points, result.centroids, result.membership, algorithm)
    torch.testing.assert_close(result.objective, expected, rtol=1e-5, atol=1e-6)


def test_an_okm_update_is_where_the_objective_is_flat():
    points = make_points(80).double()
    centroids = seed_centroids(points, 4, 0)
    membership, _ = okm_assign(points, centroids, 2, None)
    for _ in range(200):
        centroids = okm_update(points, centroids, membership)
    centroids.requires_grad_()
    (slope,) = torch.autograd.grad(reference.objective(points, centroids, membership, "okm"), centroids)
    assert float(slope.abs().max()) < 1e-6


def test_neo_breaks_equal_distances_in_row_then_column_order():
    distances = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    assert neo_assign(distances, 2).tolist() == [[True, True, True], [False, True, False]]


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_ties_go_to_the_lowest_cluster(place, backend):
    _, device = place
    if backend != place[0]:
        pytest.skip("each place runs its own backend")
    points = torch.tensor([[0.0], [1.0], [-1.0]], device=device)
    initial = torch.tensor([[1.0], [-1.0], [1.0]], device=device)
    result = overlapping_kmeans(points, 3, 2, initial=initial, max_iterations=0, backend=backend)
    assert result.membership.tolist() == [[True, True, False], [True, False, True], [True, True, False]]
    assert int(result.iterations) == 0


def test_equal_centroids_are_equally_far_whatever_a_matrix_product_rounds():
    points, centroids = make_points(301, 7), make_points(9, 7, seed=4)
    centroids[5] = centroids[8] = centroids[2]
    distances = squared_distances(points, centroids)
    assert torch.equal(distances[:, 5], distances[:, 2])
    assert torch.equal(distances[:, 8], distances[:, 2])


def test_equal_points_leave_the_spare_clusters_empty(place):
    backend, device = place
    points = make_points(4, 3)[torch.arange(120) % 4].to(device)
    result = overlapping_kmeans(points, 9, 1, backend=backend)
    assert result.centroids.isfinite().all()
    assert int(result.membership.any(0).sum()) == 4
    assert float(result.objective) < 1e-6


def test_more_clusters_than_points_is_allowed(place):
    backend, device = place
    result = overlapping_kmeans(make_points(3, 2, device=device), 7, 2, backend=backend)
    assert result.membership.shape == (3, 7)
    assert (result.membership.sum(1) == 2).all()
    assert result.centroids.isfinite().all()


def test_one_point_and_one_cluster(place):
    backend, device = place
    point = torch.tensor([[2.0, 3.0]], device=device)
    result = overlapping_kmeans(point, 1, 1, backend=backend)
    assert torch.equal(result.centroids, point)
    assert result.membership.all()


@pytest.mark.parametrize("algorithm", ["topv", "kl"])
@pytest.mark.parametrize(("k", "features"), [(31, 3), (32, 20), (33, 5)])
def test_cluster_counts_around_a_block_agree_with_torch(place, algorithm, k, features):
    backend, device = place
    points = make_points(130, features, groups=40, device=device)
    result = overlapping_kmeans(points, k, 2, algorithm=algorithm, max_iterations=2, backend=backend)
    expected = overlapping_kmeans(points.double(), k, 2, algorithm=algorithm, max_iterations=2, backend="torch")
    clear = is_clear(points, expected.centroids, 2)
    assert torch.equal(result.membership[clear], expected.membership[clear])


def test_each_clip_of_a_batch_is_clustered_as_it_would_be_alone(place):
    backend, device = place
    points = make_points(300, device=device)
    batch = overlapping_kmeans(points, 5, 2, offsets=[0, 100, 300], backend=backend)
    for clip, part in enumerate((slice(0, 100), slice(100, 300))):
        alone = overlapping_kmeans(points[part], 5, 2, backend=backend)
        assert torch.equal(batch.membership[part], alone.membership)
        torch.testing.assert_close(batch.centroids[clip], alone.centroids)
        assert int(batch.iterations[clip]) == int(alone.iterations)


@pytest.mark.parametrize("num_points", [200, 1500], ids=["one-launch", "many-launches"])
def test_two_runs_with_one_seed_agree_to_the_bit(place, poisoned, num_points):
    backend, device = place
    points = make_points(num_points, device=device)
    runs = {"seed": 3, "max_iterations": 6, "backend": backend}
    first, second = (overlapping_kmeans(points, 7, 3, **runs) for _ in range(2))
    assert torch.equal(first.membership, second.membership)
    assert torch.equal(first.centroids, second.centroids)


def test_the_seed_is_part_of_the_result_and_the_global_generator_is_not():
    points = make_points(groups=30)
    torch.manual_seed(1)
    first = seed_centroids(points, 7, 0)
    torch.manual_seed(2)
    assert torch.equal(first, seed_centroids(points, 7, 0))
    assert not torch.equal(first, seed_centroids(points, 7, 1))


def test_seeds_are_different_points_as_long_as_there_are_some():
    points = make_points(5, 3)[torch.arange(50) % 5]
    assert len(seed_centroids(points, 5, 0).unique(dim=0)) == 5
    assert len(seed_centroids(points, 9, 0).unique(dim=0)) == 5


def test_clips_are_seeded_side_by_side_as_each_would_be_alone():
    lengths = [90, 3, 41]
    clips = [make_points(length, 4) + clip for clip, length in enumerate(lengths)]
    padded = torch.stack([torch.cat((clip, clip[-1:].expand(90 - len(clip), -1))) for clip in clips])
    together = seed_clips(padded, torch.tensor(lengths), 7, 3)
    for clip, seeds in zip(clips, together, strict=True):
        assert torch.equal(seeds, seed_centroids(clip, 7, 3))


def test_a_point_that_lies_on_a_seed_is_never_drawn(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, dtype, generator: torch.zeros(shape, dtype=dtype))
    assert seed_centroids(torch.tensor([[0.0], [0.0], [3.0]]), 2, 0).tolist() == [[0.0], [3.0]]


def test_seeding_finds_separated_groups():
    points = make_points(90, 2, groups=3) * torch.tensor([0.01, 0.01]) + 100 * (torch.arange(90) % 3)[:, None]
    groups = (seed_centroids(points, 3, 0)[:, 0] / 100).round().long()
    assert sorted(groups.tolist()) == [0, 1, 2]


def test_a_large_common_offset_does_not_change_the_clusters():
    points = make_points()
    moved = overlapping_kmeans(points + 4096, 7, 2)
    clear = is_clear(points, overlapping_kmeans(points, 7, 2).centroids, 2, margin=1e-2)
    assert torch.equal(moved.membership[clear], overlapping_kmeans(points, 7, 2).membership[clear])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_precisions_are_taken(place, dtype):
    backend, device = place
    if backend == "triton" and dtype == torch.float64:
        pytest.skip("float64 runs on torch")
    points = make_points(device=device).to(dtype)
    result = overlapping_kmeans(points, 5, 2, backend=backend)
    assert result.centroids.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = overlapping_kmeans(points.double(), 5, 2, backend="torch")
    torch.testing.assert_close(result.centroids.double(), expected.centroids, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_points_that_are_not_finite_are_named(place, bad):
    backend, device = place
    points = make_points(device=device)
    points[3, 1] = bad
    with pytest.raises(ValueError, match="points must be finite, got NaN or infinity in 1 of 200 rows"):
        overlapping_kmeans(points, 5, 2, backend=backend, checked=True)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"points": torch.zeros(4, 2, dtype=torch.int32)}, TypeError, "points must be float16"),
        ({"points": torch.zeros(4)}, ValueError, r"points must be \[N, D\]"),
        ({"overlap": 0}, ValueError, r"overlap must lie in \[1, num_clusters\]"),
        ({"overlap": 4}, ValueError, r"overlap must lie in \[1, num_clusters\]"),
        ({"algorithm": "fuzzy"}, ValueError, "algorithm must be one of topv, kl, okm, neo, merge"),
        ({"max_iterations": -1}, ValueError, "max_iterations and tolerance must not be negative"),
        ({"offsets": [0, 3]}, ValueError, "offsets must rise strictly from 0 to 4"),
        ({"initial": torch.zeros(2, 2)}, ValueError, r"initial must be \[3, 2\]"),
        ({"initial": torch.zeros(3, 2, device="meta")}, ValueError, "initial must be on the points' device cpu"),
        ({"backend": "gpu"}, ValueError, "backend of overlapping_kmeans must be one of"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_named(change, error, message):
    with pytest.raises(error, match=message):
        overlapping_kmeans(**{"points": torch.rand(4, 2), "num_clusters": 3, "overlap": 2, **change})


@pytest.mark.parametrize(
    ("points", "k", "algorithm", "message"),
    [
        (torch.rand(9, 2), 3, "okm", "algorithm 'okm' runs on torch"),
        (torch.rand(9, 2).double(), 3, "topv", "float64 runs on torch"),
        (torch.rand(9, 65), 3, "topv", "more than 64 clusters or 64 features run on torch"),
        (torch.rand(9, 2), 65, "topv", "more than 64 clusters or 64 features run on torch"),
    ],
)
def test_what_has_no_kernel_says_so(points, k, algorithm, message):
    pytest.importorskip("triton")
    with pytest.raises(RuntimeError, match=message):
        overlapping_kmeans(points, k, 2, algorithm=algorithm, backend="triton")


def test_the_op_passes_opcheck(place):
    backend, device = place
    points = make_points(40, device=device)
    opcheck(
        torch.ops.raccoon.overlapping_kmeans.default,
        (points, None, 3, 2, "topv", 0, 5, 1e-4, [0, 40], backend, True),
    )


def test_a_function_that_calls_it_compiles_without_a_break(place):
    backend, device = place
    points = make_points(40, device=device)

    def sizes(value):
        return overlapping_kmeans(value * 2, 3, 2, max_iterations=5, backend=backend).membership.sum(0)

    assert torch.equal(torch.compile(sizes, fullgraph=True, backend="aot_eager")(points), sizes(points))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_graph_replays_the_clustering():
    points = make_points(3000, 6, device="cuda")
    initial = points[:25].clone()

    def run():
        return overlapping_kmeans(points, 25, 6, initial=initial, max_iterations=20)

    expected = run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured.membership, expected.membership)
    assert int(captured.iterations) == int(expected.iterations)
