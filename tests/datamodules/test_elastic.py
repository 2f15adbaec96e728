"""The order of a run: the same for every number of ranks and workers, reached by arithmetic, mixed exactly."""

from collections import Counter
from itertools import islice

import lightning.pytorch as pl
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel

from raccoon_datamodules.datamodule import check_trainer
from raccoon_datamodules.faults import FaultLog
from raccoon_datamodules.loader import OrderedLoader, OrderedSamples, Place, endless
from raccoon_datamodules.order import MixedOrder, SampleOrder
from raccoon_datamodules.p2v import P2VDataModule
from raccoon_datamodules.sources import ShardSource, Source, SyntheticSource

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*TPU.*")


class Counted(Source):
    """A corpus of nothing but names, which counts what is read of it."""

    def __init__(self, sizes, name="corpus"):
        self._sizes, self._name = list(sizes), name
        self.read = []

    @property
    def shard_sizes(self):
        return self._sizes

    def name(self, shard, sample):
        return f"{self._name}-{shard}", f"{self._name}-{shard}-{sample}"

    def suffixes(self, shard, sample):
        return ("meta.json", "video.mp4", "object-1.json", "mask-1.npz", "inpainted-1.mp4")

    def view(self, shard, sample, wanted=None):
        self.read.append((shard, sample))
        raise OSError("nothing is stored here")

    def fingerprint(self):
        return self._name


def stream(orders, weights, *, start=0, place=None, global_batch=12, workers=0, samples=None):
    """The (ordinal, corpus, shard, sample) of a rank's batches, through the loader and its workers."""
    order = orders[0] if weights is None else MixedOrder(orders, weights, seed=4)
    made = OrderedSamples([Counted([1])] * len(orders), order, _place_of, seed=4)
    loader = OrderedLoader(
        made,
        lambda loaded: [one.value for one in loaded],
        lambda: endless(start, global_batch, place or Place()),
        log=FaultLog(),
        num_workers=workers,
    )
    return islice(iter(loader), samples)


def _place_of(source, ref, ordinal):
    return ordinal, ref.corpus, ref.epoch, ref.shard, ref.sample


def corpora():
    return [SampleOrder([7, 5, 9], seed=4, window_shards=2), SampleOrder([400], seed=4), SampleOrder([31, 2], seed=4)]


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize(("world", "parts"), [(1, 1), (2, 3), (3, 2)])
def test_a_mixture_is_the_same_for_every_layout(world, parts, workers):
    whole = [row for batch in stream(corpora(), [5, 3, 2], samples=6) for row in batch]
    ranks = [
        list(stream(corpora(), [5, 3, 2], place=Place(rank, world, parts), workers=workers, samples=6 * parts))
        for rank in range(world)
    ]
    steps = [
        row
        for step in range(6)
        for rank in range(world)
        for batch in ranks[rank][step * parts : (step + 1) * parts]
        for row in batch
    ]
    assert steps == whole
    assert len({row[1] for row in whole}) == 3


def test_a_mixture_goes_on_in_the_middle_of_a_block():
    whole = [row for batch in stream(corpora(), [5, 3, 2], samples=250) for row in batch]
    # Within the first block, across its end, and far inside the third.
    for step in (5, 83, 200):
        batches = stream(corpora(), [5, 3, 2], start=12 * step, samples=4)
        assert [row for batch in batches for row in batch] == whole[12 * step : 12 * (step + 4)]


def test_every_thousand_samples_of_a_mixture_hold_the_exact_shares():
    weights = [0.62, 0.3, 0.08]
    order = MixedOrder(corpora(), weights, seed=4)
    assert order.shares == [620, 300, 80]
    found = [order.locate(ordinal) for ordinal in range(5000)]
    for block in range(5):
        counts = Counter(ref.corpus for ref in found[1000 * block : 1000 * (block + 1)])
        assert [counts[corpus] for corpus in range(3)] == order.shares
    # And no corpus shows a sample twice before it has shown all.
    for corpus, length in enumerate([21, 400, 33]):
        mine = [(ref.shard, ref.sample) for ref in found if ref.corpus == corpus]
        for start in range(0, len(mine) - length, length):
            assert len(set(mine[start : start + length])) == length


def test_a_mixture_of_tasks_belongs_to_the_ordinals(shards, make_shards, tmp_path):
    other = make_shards(tmp_path / "other", 5, first=50)
    folders = {str(shards): 3.0, str(other): 1.0}
    how = {"global_batch_size": 6, "num_frames": 2, "size": (16, 16), "tasks": {"remove": 3, "add": 1}, "seed": 3}

    def take(start, count, world=1):
        ranks = []
        for rank in range(world):
            data = P2VDataModule(folders, **how)
            data.load_state_dict({"schema": 1, "seed": 3, "ordinal": start})
            data._place = lambda *, training, rank=rank: Place(rank, world)
            ranks.append(islice(iter(data.train_dataloader()), count))
        steps = zip(*ranks, strict=True)
        return [row for step in steps for b in step for row in zip(b.ordinal.tolist(), b.key, b.task, strict=True)]

    whole = take(0, 8)
    assert take(0, 8, world=3) == whole
    assert take(18, 5, world=2) == whole[18:]
    assert {task for _, _, task in whole} == {"remove", "add"}
    assert len({key for _, key, _ in whole}) > 10


def test_weights_stand_beside_their_folders(shards, make_shards, tmp_path):
    other = make_shards(tmp_path / "other", 5, first=50)
    mapped = P2VDataModule({str(shards): 1, str(other): 3})
    listed = P2VDataModule([str(shards), str(other)], weights=[1, 3])
    assert mapped.keys_of(range(100)) == listed.keys_of(range(100))
    assert mapped.order.shares == [250, 750]


def test_a_source_may_stand_in_a_list_of_folders(shards):
    data = P2VDataModule([SyntheticSource(num_frames=2, size=(16, 16)), str(shards)], weights=[9, 1])
    keys = data.keys_of(range(1000))
    assert sum(key.startswith("clip-") for key in keys) == 100


def test_weights_given_twice_are_refused(shards):
    with pytest.raises(ValueError, match="weights must be left out where train maps folders to weights"):
        P2VDataModule({str(shards): 1.0}, weights=[1.0])


def test_no_folder_in_a_mapping_is_refused():
    with pytest.raises(ValueError, match="at least one folder of shards is needed"):
        P2VDataModule({}).setup()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": [1, 1]}, r"the corpora's shares of 1000 samples were \[250, 750\] and are \[500, 500\]"),
        ({"window_shards": 2}, "window_shards were 8 and are 2"),
        ({"tasks": {"add": 1}}, r"the weights of the tasks were .* and are \{'add': 1.0\}"),
        ({"train": 1}, "the shards were .* and are .*"),
    ],
    ids=["weights", "window", "tasks", "shards"],
)
def test_a_checkpoint_says_what_changed_of_its_data(shards, make_shards, tmp_path, change, said):
    folders = [str(shards), str(make_shards(tmp_path / "other", 5, first=50))]

    def data(**how):
        made = P2VDataModule(folders[::-1] if how.pop("train", None) else folders, **{"weights": [1, 3], **how})
        made.setup("fit")
        return made

    state = {**data().state_dict(), "ordinal": 40}
    changed = data(**change)
    with pytest.warns(UserWarning, match=f"{said}; the run goes on at ordinal 40 of the new order"):
        changed.load_state_dict(state)
    assert changed.ordinal == 40


def test_weights_of_the_same_shares_continue_a_run(shards, make_shards, tmp_path):
    folders = [str(shards), str(make_shards(tmp_path / "other", 5, first=50))]
    first, second = P2VDataModule(folders, weights=[1, 3]), P2VDataModule(folders, weights=[2, 6])
    first.setup("fit")
    second.setup("fit")
    # A warning of changed data would be an error here.
    second.load_state_dict({**first.state_dict(), "ordinal": 40})
    assert second.ordinal == 40


class Watched(ShardSource):
    """A folder of shards, which counts the samples read from it."""

    reads = 0

    def view(self, *where):
        self.reads += 1
        return super().view(*where)


def test_a_run_continued_at_a_million_samples_reads_only_what_comes_then(shards):
    source = Watched(shards)
    data = P2VDataModule(source, global_batch_size=4, num_frames=2, size=(16, 16))
    data.setup("fit")
    data.load_state_dict({**data.state_dict(), "ordinal": 1_000_000})
    batches = iter(data.train_dataloader())
    assert source.reads == 0
    assert next(batches).ordinal.tolist() == [1_000_000, 1_000_001, 1_000_002, 1_000_003]
    assert source.reads == 4


def test_a_place_in_a_corpus_of_a_million_samples_is_found_without_reading():
    source = Counted([1000] * 1000)
    data = P2VDataModule(source, global_batch_size=64)
    data.setup("fit")
    data.load_state_dict({**data.state_dict(), "ordinal": 987_654 * 64})
    assert len(set(data.keys_of(range(data.ordinal, data.ordinal + 64)))) == 64
    assert source.read == []
    # Nothing as large as the corpus was made for it: one window's permutation and the order of the shards.
    assert sum(len(kept[0]) for kept in data.order._windows.values()) <= 2 * 8 * 1000


class Asked:
    """A trainer with settings that may not go with an endless stream."""

    def __init__(self, overfit_batches=0.0, limit_train_batches=1.0, accumulate_grad_batches=1, fast_dev_run=False):
        self.overfit_batches = overfit_batches
        self.limit_train_batches = limit_train_batches
        self.accumulate_grad_batches = accumulate_grad_batches
        self.fast_dev_run = fast_dev_run


def test_a_trainer_that_would_repeat_batches_is_refused():
    with pytest.raises(ValueError, match="overfit_batches must be 0, got 2: the training data is an endless stream"):
        check_trainer(Asked(overfit_batches=2))


def test_a_trainer_whose_epochs_end_inside_a_step_is_refused():
    with pytest.raises(ValueError, match=r"limit_train_batches \(5\) must be a multiple of accumulate_grad"):
        check_trainer(Asked(limit_train_batches=5, accumulate_grad_batches=2))


@pytest.mark.parametrize(
    "asked",
    [
        None,
        Asked(),
        Asked(limit_train_batches=6, accumulate_grad_batches=2),
        Asked(limit_train_batches=1, accumulate_grad_batches=2, fast_dev_run=1),
    ],
    ids=["nobody", "plain", "limited", "tried"],
)
def test_any_other_trainer_is_welcome(asked):
    check_trainer(asked)


def test_lightning_is_asked_before_training_begins(shards, tmp_path):
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=1, overfit_batches=1, logger=False, default_root_dir=tmp_path,
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match="overfit_batches must be 0"):
        trainer.fit(BoringModel(), P2VDataModule(str(shards)))
