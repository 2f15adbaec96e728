import pytest
import torch

from raccoon.interfaces import SuperpixelModel
from raccoon.models.colour import srgb_to_lab
from raccoon.models.superpixels import GridSuperpixels, SlicSuperpixels

SIZES = [(28, 42), (29, 43), (14, 14), (5, 33), (1, 1), (57, 30)]
IDS = ["whole cells", "ragged", "one cell", "flat", "one pixel", "tall"]


def random_frames(num_frames, height, width, seed=0):
    return torch.rand(num_frames, 3, height, width, generator=torch.Generator().manual_seed(seed))


def two_regions(height=112, width=112):
    """A dark and a bright half with a slanted border, some noise; and which pixel belongs where."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    region = (x + 0.37 * y > 75).long()
    colours = torch.tensor([[0.2, 0.3, 0.2], [0.8, 0.6, 0.5]])[region].permute(2, 0, 1)
    return (colours + 0.02 * random_frames(1, height, width)[0])[None].clamp(0, 1), region


def undersegmentation(labels, region, num_superpixels):
    """Share of pixels that lie on the minority side of their superpixel: 0 where every border is respected."""
    counts = torch.zeros(num_superpixels, 2).index_put_((labels.long(), region), torch.tensor(1.0), accumulate=True)
    return (counts.min(dim=1).values.sum() / region.numel()).item()


@pytest.mark.parametrize("model", [GridSuperpixels(), SlicSuperpixels()], ids=["grid", "slic"])
def test_it_satisfies_the_plug_point(model):
    assert isinstance(model, SuperpixelModel)


@pytest.mark.parametrize("model", [GridSuperpixels(), SlicSuperpixels()], ids=["grid", "slic"])
@pytest.mark.parametrize(("height", "width"), SIZES, ids=IDS)
def test_labels_are_int16_ids_of_the_grid(model, height, width):
    labels, count = model.segment(random_frames(3, height, width))
    ny, nx = model.grid(height, width)
    assert count == ny * nx
    assert labels.dtype == torch.int16
    assert labels.shape == (3, height, width)
    assert labels.is_contiguous()
    assert labels.min() >= 0
    assert labels.max() < count


def test_at_336_a_grid_superpixel_is_one_patch_of_the_encoder():
    labels, count = GridSuperpixels(cell=14).segment(torch.zeros(2, 3, 336, 336))
    assert count == 576
    patches = torch.arange(576, dtype=torch.int16).reshape(24, 24)
    assert torch.equal(labels[1], patches.repeat_interleave(14, 0).repeat_interleave(14, 1))


def test_cells_of_a_ragged_frame_are_even_and_follow_from_the_grid():
    model = GridSuperpixels(cell=14)
    ny, nx = model.grid(29, 43)
    labels = model.segment(torch.zeros(1, 3, 29, 43))[0][0].long()
    assert (ny, nx) == (3, 4)
    assert torch.bincount(labels[:, 0]).tolist()[::nx] == [10, 10, 9]
    side_y, side_x = -(-29 // ny), -(-43 // nx)
    y, x = torch.meshgrid(torch.arange(29), torch.arange(43), indexing="ij")
    assert torch.equal(labels, y // side_y * nx + x // side_x)


@pytest.mark.parametrize(("height", "width"), SIZES, ids=IDS)
@pytest.mark.parametrize("kind", ["noise", "stripes"])
def test_a_slic_label_is_one_of_the_cells_around_its_pixel(height, width, kind):
    frames = random_frames(2, height, width)
    if kind == "stripes":
        frames = (torch.arange(width) // 2 % 2).float().expand(2, 3, height, width)
    model = SlicSuperpixels(cell=5, compactness=0.1, iterations=8)
    nx = model.grid(height, width)[1]
    labels = model.segment(frames)[0].long()
    own = GridSuperpixels(cell=5).segment(frames)[0].long()
    assert ((labels // nx - own // nx).abs() <= 1).all()
    assert ((labels % nx - own % nx).abs() <= 1).all()


def test_slic_equals_a_plain_loop_over_pixels():
    frames = random_frames(1, 11, 13)
    model = SlicSuperpixels(cell=4, iterations=2, compactness=7.0)
    ny, nx = model.grid(11, 13)
    side_y, side_x = -(-11 // ny), -(-13 // nx)
    lab = srgb_to_lab(frames)[0].double()
    labels = GridSuperpixels(cell=4).segment(frames)[0][0].long()
    y, x = torch.meshgrid(torch.arange(11.0).double(), torch.arange(13.0).double(), indexing="ij")
    points = torch.cat((lab, (y * 7 / side_y)[None], (x * 7 / side_x)[None]))
    for _ in range(2):
        centres = [points[:, labels == s].mean(dim=1) for s in range(ny * nx)]
        fresh = labels.clone()
        for i in range(11):
            for j in range(13):
                candidates = sorted(
                    {
                        min(max(i // side_y + a, 0), ny - 1) * nx + min(max(j // side_x + b, 0), nx - 1)
                        for a in (-1, 0, 1)
                        for b in (-1, 0, 1)
                    }
                )
                fresh[i, j] = min(candidates, key=lambda s: ((points[:, i, j] - centres[s]) ** 2).sum().item())
        labels = fresh
    assert torch.equal(model.segment(frames)[0][0].long(), labels)


def test_slic_follows_a_border_that_the_grid_cuts_through():
    frames, region = two_regions()
    grid, count = GridSuperpixels().segment(frames)
    slic, _ = SlicSuperpixels().segment(frames)
    assert undersegmentation(grid[0], region, count) > 0.02
    assert undersegmentation(slic[0], region, count) < 0.001


def test_slic_labels_change_exactly_along_the_border():
    frames, region = two_regions()
    labels = SlicSuperpixels().segment(frames)[0][0]
    border = region[:, 1:] != region[:, :-1]
    recall = (labels[:, 1:] != labels[:, :-1])[border].float().mean()
    assert recall > 0.99


def test_a_flat_frame_keeps_the_grid():
    # With cells of 5 no pixel lies midway between two centres, so there is no tie to break.
    frames = torch.full((1, 3, 20, 25), 0.5)
    assert torch.equal(SlicSuperpixels(cell=5).segment(frames)[0], GridSuperpixels(cell=5).segment(frames)[0])


def test_an_exact_tie_goes_to_the_lower_id():
    # Column 1 is as far from the centre at 0 as from the one at 2; it lies in the first cell of two.
    points = torch.tensor([[0.0, 1.0, 2.0]]).expand(5, 3).reshape(1, 5, 1, 3)
    centres = torch.stack((torch.zeros(5), torch.full((5,), 2.0)))[None]
    assert SlicSuperpixels._assign(points, centres, 1, 2, 1, 2).flatten().tolist() == [0, 0, 1]


def test_labels_of_a_frame_do_not_depend_on_its_neighbours():
    frames = random_frames(5, 33, 47)
    model = SlicSuperpixels(cell=8)
    together = model.segment(frames)[0]
    alone = torch.cat([model.segment(frame[None])[0] for frame in frames])
    assert torch.equal(together, alone)


def test_the_same_frames_give_the_same_labels():
    frames = random_frames(2, 60, 60)
    assert torch.equal(SlicSuperpixels().segment(frames)[0], SlicSuperpixels().segment(frames.clone())[0])


def test_non_contiguous_and_half_precision_frames_are_read():
    frames = random_frames(2, 30, 40)
    swapped = frames.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    model = SlicSuperpixels(cell=10)
    assert torch.equal(model.segment(swapped)[0], model.segment(frames)[0])
    assert torch.equal(model.segment(frames.half())[0], model.segment(frames.half().float())[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu():
    frames = random_frames(3, 90, 100)
    cpu, gpu = SlicSuperpixels().segment(frames)[0], SlicSuperpixels().segment(frames.cuda())[0]
    assert gpu.is_cuda
    # pow differs in the last bit between the two, which turns a near tie here and there.
    assert (cpu == gpu.cpu()).float().mean() > 0.999


@pytest.mark.parametrize("model", [GridSuperpixels(), SlicSuperpixels()], ids=["grid", "slic"])
def test_frames_of_the_wrong_shape_are_refused(model):
    with pytest.raises(ValueError, match=r"must be \[F, 3, H, W\].*got \[3, 8, 8\]"):
        model.segment(torch.zeros(3, 8, 8))


@pytest.mark.parametrize("model", [GridSuperpixels(), SlicSuperpixels()], ids=["grid", "slic"])
def test_integer_frames_are_refused(model):
    with pytest.raises(TypeError, match=r"got torch\.uint8; divide 8-bit frames by 255"):
        model.segment(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize("value", [255.0, -1.0, float("nan")])
def test_frames_outside_the_unit_range_are_refused(value):
    frames = torch.full((1, 3, 8, 8), 0.5)
    frames[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got "):
        SlicSuperpixels().segment(frames)


def test_more_superpixels_than_int16_can_name_are_refused():
    with pytest.raises(ValueError, match=r"at most 32768 superpixels.*make 40000; use a larger cell"):
        GridSuperpixels(cell=1).grid(200, 200)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GridSuperpixels(cell=0), "cell must be at least 1 pixel, got 0"),
        (lambda: SlicSuperpixels(iterations=0), "iterations must be at least 1, got 0"),
        (lambda: SlicSuperpixels(compactness=0.0), "compactness must be positive, got 0.0"),
        (lambda: SlicSuperpixels(compactness=float("nan")), "compactness must be positive, got nan"),
    ],
    ids=["cell", "iterations", "compactness", "nan"],
)
def test_settings_that_mean_nothing_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
