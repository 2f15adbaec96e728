import pytest
import torch

from raccoon_kernels import reference
from raccoon_kernels.bench_cases import OPS, Case, make_inputs, make_labels, mean_run_length
from raccoon_kernels.bench_truth import Truth, relative_error

CPU = torch.device("cpu")
SMALL = {
    "num_frames": 2,
    "height": 48,
    "width": 32,
    "channels": 3,
    "num_clusters": 5,
    "overlap": 2,
    "dim": 6,
    "grid": 4,
}


def labels_of(case, seed=0):
    return make_labels(case, CPU, generator=torch.Generator().manual_seed(seed))


def test_realistic_labels_stay_in_the_nine_cells_around_a_pixel():
    case = Case("superpixel_mean", "S", num_frames=2, height=90, width=130)
    labels = labels_of(case)
    rows, columns = case.superpixel_grid
    assert (rows, columns) == (6, 9)
    own_row = (torch.arange(90) // 16)[:, None]
    own_column = (torch.arange(130) // 16)[None]
    assert ((labels // columns) - own_row).abs().max() <= 1
    assert ((labels % columns) - own_column).abs().max() <= 1


def test_realistic_labels_have_the_run_lengths_of_superpixels_of_photographs():
    labels = labels_of(Case("superpixel_mean", "S", num_frames=1))
    # 6.8 to 9.1 pixels were measured on photographs; 4.0 to 4.6 superpixels in a 14x14 cell.
    assert 6.8 <= mean_run_length(labels) <= 9.1
    windows = labels.view(24, 14, 24, 14).transpose(1, 2).reshape(576, 196)
    assert 3.8 <= sum(len(window.unique()) for window in windows) / 576 <= 4.6
    assert len(labels.unique()) == 441


def test_random_labels_have_no_runs():
    case = Case("superpixel_mean", "S", num_frames=1, label_map="random")
    labels = labels_of(case)
    assert mean_run_length(labels) < 1.01
    assert labels.min() >= 0
    assert labels.max() < case.num_superpixels


def test_the_same_seed_gives_the_same_inputs():
    case = Case("mgs_pool", "S", **SMALL)
    first, second = make_inputs(case, CPU, seed=3), make_inputs(case, CPU, seed=3)
    assert torch.equal(first.features, second.features)
    assert torch.equal(first.membership, second.membership)
    assert torch.equal(first.labels, second.labels)


def test_every_superpixel_is_in_exactly_v_clusters():
    inputs = make_inputs(Case("mgs_pool", "S", **SMALL), CPU)
    assert (inputs.membership.sum(-1) == 2).all()


def test_the_least_bytes_count_each_input_and_output_once():
    case = Case("mgs_pool", "S", **SMALL, dtype="bf16", label_dtype="int32")
    labels, membership, features, tokens = 2 * 48 * 32 * 4, 2 * 6 * 5, 2 * 16 * 6 * 2, 5 * 6 * 4
    assert case.minimum_bytes("fwd") == labels + membership + features + tokens
    assert case.minimum_bytes("bwd") == 2 * 16 * 5 * 4 + features + tokens
    assert case.minimum_bytes("full") == case.minimum_bytes("fwd") + case.minimum_bytes("bwd")
    pixels = Case("superpixel_mean", "S", **SMALL, dtype="u8", label_dtype="int16")
    assert pixels.minimum_bytes("fwd") == 2 * 48 * 32 * (3 + 2) + 2 * 6 * (3 * 4 + 4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dtype": "fp8"}, r"dtype must be one of fp32.*got 'fp8'"),
        ({"label_dtype": "int8"}, r"label_dtype must be one of int16.*got 'int8'"),
        ({"grid": 5}, r"multiples of the feature grid's 5, got 48 x 32"),
        ({"overlap": 6}, r"overlap must be in \[1, num_clusters=5\], got 6"),
    ],
)
def test_a_case_that_cannot_be_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        Case("mgs_pool", "S", **(SMALL | changed))


@pytest.mark.parametrize("op", OPS[:4])
def test_the_float64_answer_of_the_bench_is_the_reference(op):
    case = Case(op, "S", **SMALL)
    inputs = make_inputs(case, CPU)
    if op == "superpixel_mean":
        expected = reference.superpixel_mean(inputs.x, inputs.labels, case.num_superpixels)[0]
    elif op == "grid_weights":
        expected = reference.grid_weights(inputs.labels, inputs.membership, (2, 4, 4)).flatten(0, 2)
    elif op == "mgs_pool":
        expected = reference.mgs_pool(inputs.features, inputs.labels, inputs.membership)[0]
    else:
        expected = reference.kmeans(inputs.points, inputs.centroids, num_iterations=20)
    torch.testing.assert_close(Truth(inputs).result, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("op", ["superpixel_mean", "mgs_pool"])
def test_the_written_down_gradient_is_autograds(op):
    case = Case(op, "S", **SMALL)
    inputs = make_inputs(case, CPU)
    leaf = inputs.differentiable.double().requires_grad_()
    if op == "superpixel_mean":
        out = reference.superpixel_mean(leaf, inputs.labels, case.num_superpixels)[0]
    else:
        out = reference.mgs_pool(leaf, inputs.labels, inputs.membership)[0]
    gradient = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (expected,) = torch.autograd.grad(out, leaf, gradient)
    found = torch.stack(list(Truth(inputs).gradient(gradient)))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_an_operation_without_a_gradient_has_none():
    inputs = make_inputs(Case("grid_weights", "S", **SMALL), CPU)
    with pytest.raises(ValueError, match="only superpixel_mean and mgs_pool have a gradient, got grid_weights"):
        list(Truth(inputs).gradient(torch.zeros(1)))


def test_the_relative_error_is_that_of_the_whole_tensor():
    expected = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    found = expected + torch.tensor([[0.3, 0.0], [0.0, 0.4]])
    error, greatest = relative_error(found, expected)
    assert error == pytest.approx(0.1, rel=1e-6)
    assert greatest == pytest.approx(0.4, rel=1e-6)


def test_the_relative_error_of_nan_is_nan():
    error, greatest = relative_error(torch.tensor([[1.0], [float("nan")]]), torch.ones(2, 1))
    assert error != error
    assert greatest != greatest


def test_a_result_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"reference's shape \[2\], got \[3\]"):
        relative_error(torch.zeros(1, 3), torch.zeros(1, 2))
