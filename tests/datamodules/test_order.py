import hashlib
import itertools
import pickle
from collections import Counter

import numpy as np
import pytest
import torch

from raccoon_datamodules.order import MixedOrder, SampleOrder, SampleRef, batch_ordinals, draw, permutation, torch_draw

SIZES = [5, 3, 0, 7, 1, 4]


def places(order: SampleOrder, epoch: int) -> list[tuple[int, int]]:
    refs = [order.locate(epoch * len(order) + i) for i in range(len(order))]
    assert {ref.epoch for ref in refs} == {epoch}
    return [(ref.shard, ref.sample) for ref in refs]


@pytest.mark.parametrize("window", [1, 2, 4, 100])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_epoch_holds_every_sample_once(window, shuffle):
    order = SampleOrder(SIZES, seed=1, window_shards=window, shuffle=shuffle)
    every = [(shard, sample) for shard, size in enumerate(SIZES) for sample in range(size)]
    for epoch in range(3):
        assert sorted(places(order, epoch)) == every


def test_epochs_and_seeds_differ():
    order = SampleOrder(SIZES, seed=1)
    assert places(order, 0) != places(order, 1)
    assert places(order, 0) != places(SampleOrder(SIZES, seed=2), 0)


def test_the_order_depends_on_nothing_but_its_arguments():
    order = SampleOrder(SIZES, seed=7, window_shards=2)
    forwards = [order.locate(i) for i in range(60)]
    fresh = SampleOrder(SIZES, seed=7, window_shards=2)
    assert [fresh.locate(i) for i in reversed(range(60))] == forwards[::-1]
    assert [pickle.loads(pickle.dumps(order)).locate(i) for i in range(60)] == forwards


def test_the_order_is_the_one_that_was_published():
    # Recorded on numpy 2.4.6. If this fails, every checkpoint's position has changed its meaning.
    order = SampleOrder([3, 2, 4], seed=3, window_shards=2)
    assert places(order, 0) == PUBLISHED
    assert permutation(0, "samples", 6, 1, 2).tolist() == PUBLISHED_PERMUTATION


PUBLISHED = [(2, 1), (2, 3), (0, 2), (2, 2), (2, 0), (0, 1), (0, 0), (1, 0), (1, 1)]
PUBLISHED_PERMUTATION = [1, 2, 3, 5, 4, 0]


def test_without_shuffling_samples_come_as_stored():
    order = SampleOrder([2, 0, 3], shuffle=False)
    assert places(order, 1) == [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)]


def test_a_window_reads_no_more_shards_at_a_time_than_it_says():
    order = SampleOrder([10] * 12, seed=0, window_shards=3)
    found = places(order, 0)
    for start in range(0, 120, 30):
        assert len({shard for shard, _ in found[start : start + 30]}) == 3


def test_a_million_samples_are_reached_by_arithmetic():
    order = SampleOrder([1000] * 1000, seed=0)
    # Neither call may build anything the size of the corpus; the sizes of what is kept show it.
    order.locate(987_654_321)
    assert sum(len(kept[0]) for kept in order._windows.values()) <= 8 * 1000


@pytest.mark.parametrize("sizes", [[], [0, 0], [3, -1]])
def test_an_order_over_nothing_is_refused(sizes):
    with pytest.raises(ValueError, match="an order needs at least one sample"):
        SampleOrder(sizes)


def test_an_empty_window_is_refused():
    with pytest.raises(ValueError, match="window_shards must be at least 1, got 0"):
        SampleOrder([3], window_shards=0)


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match=r"a seed must be in \[0, 2\*\*64\)"):
        SampleOrder([3], seed=seed)


@pytest.mark.parametrize("order", [SampleOrder([3]), MixedOrder([SampleOrder([3])], [1.0])], ids=["one", "mixed"])
def test_an_ordinal_below_zero_is_refused(order):
    with pytest.raises(ValueError, match="an ordinal must be at least 0, got -1"):
        order.locate(-1)


@pytest.mark.parametrize(("world", "parts"), [(1, 1), (2, 1), (3, 1), (1, 4), (2, 3), (6, 2)])
def test_ranks_and_parts_cut_the_same_ordinals(world, parts):
    for step in range(3):
        pieces = [
            batch_ordinals(step, global_batch=12, rank=rank, world=world, part=part, parts=parts, start=5)
            for rank in range(world)
            for part in range(parts)
        ]
        assert list(itertools.chain(*pieces)) == list(range(5 + 12 * step, 5 + 12 * (step + 1)))
        assert len({len(piece) for piece in pieces}) == 1


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"global_batch_size \(10\) must be a positive multiple of ranks \(2\) times"):
        batch_ordinals(0, global_batch=10, world=2, parts=2)


@pytest.mark.parametrize("wrong", [{"rank": 2, "world": 2}, {"part": 1}, {"step": -1}])
def test_a_rank_or_part_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="out of range"):
        batch_ordinals(**{"step": 0, "global_batch": 4, **wrong})


def test_a_mixture_holds_exact_shares_in_every_block():
    order = MixedOrder([SampleOrder([50], seed=1), SampleOrder([70], seed=1), SampleOrder([9], seed=1)], [2, 1, 1 / 3])
    for block in range(2):
        counts = Counter(order.locate(block * 1000 + i).corpus for i in range(1000))
        assert counts == {0: 600, 1: 300, 2: 100}


def test_each_corpus_of_a_mixture_goes_through_its_own_order():
    parts = [SampleOrder([5, 6], seed=1), SampleOrder([13], seed=4)]
    order = MixedOrder([SampleOrder([5, 6], seed=1), SampleOrder([13], seed=4)], [0.7, 0.3], seed=9)
    found = [order.locate(i) for i in range(2500)]
    for corpus, part in enumerate(parts):
        mine = [ref for ref in found if ref.corpus == corpus]
        expected = [part.locate(i) for i in range(len(mine))]
        assert mine == [SampleRef(corpus, ref.epoch, ref.shard, ref.sample) for ref in expected]


def test_a_mixture_is_the_same_from_any_place():
    def mixed() -> MixedOrder:
        return MixedOrder([SampleOrder([5]), SampleOrder([6])], [1, 2], seed=3)

    forwards, anywhere = mixed(), mixed()
    found = [forwards.locate(i) for i in range(2000)]
    assert all(anywhere.locate(i) == found[i] for i in (1999, 0, 1000, 999, 57))
    assert len(forwards) == 11


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, float("inf")], [1.0, 1e-5]])
def test_weights_that_cannot_be_met_are_refused(weights):
    with pytest.raises(ValueError, match=r"each corpus needs one weight|weights must be positive|at least 1/1000"):
        MixedOrder([SampleOrder([5]), SampleOrder([6])], weights)


def test_draws_belong_to_seed_ordinal_purpose_and_attempt():
    first = draw(1, 2, "task").random(4)
    assert np.array_equal(draw(1, 2, "task").random(4), first)
    others = [draw(2, 2, "task"), draw(1, 3, "task"), draw(1, 2, "frames"), draw(1, 2, "task", attempt=1)]
    assert all(not np.array_equal(other.random(4), first) for other in others)


@pytest.mark.parametrize(("seed", "ordinal"), [(0, 0), (7, 10**12), (2**64 - 1, 5)])
def test_draws_are_those_of_a_philox_with_this_counter_and_key(seed, ordinal):
    stream = int.from_bytes(hashlib.blake2b(b"train/task", digest_size=8).digest(), "little")
    key, counter = (np.array(words, dtype=np.uint64) for words in ([seed, stream], [0, ordinal, 2, 0]))
    wanted = np.random.Generator(np.random.Philox(counter=counter, key=key))
    found = draw(seed, ordinal, "train/task", attempt=2)
    assert np.array_equal(found.random(5), wanted.random(5))
    assert np.array_equal(found.integers(1 << 20, size=7), wanted.integers(1 << 20, size=7))
    assert pickle.loads(pickle.dumps(found)).random() == wanted.random()


def test_draws_of_neighbouring_ordinals_do_not_overlap():
    rows = np.stack([draw(0, ordinal, "noise").random(64) for ordinal in range(50)])
    assert len(np.unique(rows)) == rows.size


def test_torch_draws_are_keyed_alike():
    first = torch.rand(4, generator=torch_draw(1, 2, "noise"))
    assert torch.equal(torch.rand(4, generator=torch_draw(1, 2, "noise")), first)
    assert not torch.equal(torch.rand(4, generator=torch_draw(1, 3, "noise")), first)
