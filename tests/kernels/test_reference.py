"""The twins themselves, against numbers worked out by hand."""

import torch

from raccoon_kernels import reference


def test_superpixel_mean_of_two_superpixels():
    x = torch.tensor([[[[1.0, 3.0], [5.0, 9.0]]]])
    labels = torch.tensor([[[0, 0], [2, 2]]])
    means, counts = reference.superpixel_mean(x, labels, 3)
    assert means.tolist() == [[[2.0], [0.0], [7.0]]]
    assert counts.tolist() == [[2, 0, 2]]


def test_cluster_masks_paint_each_superpixel_into_its_clusters():
    labels = torch.tensor([[[0, 1], [1, 2]]])
    membership = torch.tensor([[[True, False], [True, True], [False, False]]])
    masks = reference.cluster_masks(labels, membership)
    assert masks.tolist() == [[[[True, True], [True, False]]], [[[False, True], [True, False]]]]


def test_mgs_pool_weighs_the_features_by_the_masks_share_of_each_window():
    labels = torch.tensor([[[0, 1, 1, 1]]])
    membership = torch.tensor([[[True], [False]]])
    features = torch.tensor([[[[2.0], [10.0]]]])
    product, valid = reference.mgs_pool(features, labels, membership, normalize=False)
    mean, _ = reference.mgs_pool(features, labels, membership)
    assert product.tolist() == [[1.0]]
    assert mean.tolist() == [[2.0]]
    assert valid.tolist() == [True]


def test_an_empty_cluster_is_zero_and_not_valid():
    membership = torch.zeros(1, 1, 2, dtype=torch.bool)
    tokens, valid = reference.mgs_pool(torch.ones(1, 1, 1, 3), torch.zeros(1, 2, 2, dtype=torch.int32), membership)
    assert not tokens.any()
    assert not valid.any()


def test_nearest_clusters_breaks_ties_by_the_lowest_index():
    member = reference.nearest_clusters(torch.tensor([[0.0]]), torch.tensor([[2.0], [1.0], [-1.0]]), 1)
    assert member.tolist() == [[False, True, False]]


def test_kmeans_moves_the_farthest_point_to_an_empty_cluster():
    points = torch.tensor([[0.0], [1.0], [8.0]])
    centroids = reference.kmeans(points, torch.tensor([[0.0], [100.0]]), num_iterations=1)
    assert centroids.tolist() == [[0.5], [8.0]]


def test_an_okm_image_is_the_mean_of_the_prototypes():
    images = reference.okm_images(torch.tensor([[True, True, False]]), torch.tensor([[0.0], [4.0], [9.0]]))
    assert images.tolist() == [[2.0]]


def test_the_objective_of_okm_is_the_distance_to_the_images():
    points, centroids = torch.tensor([[2.0]]), torch.tensor([[0.0], [4.0]])
    membership = torch.tensor([[True, True]])
    assert float(reference.objective(points, centroids, membership, "okm")) == 0.0
    assert float(reference.objective(points, centroids, membership, "topv")) == 8.0
