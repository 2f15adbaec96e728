"""Samples that an earlier run, or a check, put on a list are left out of training."""

import logging
import os

import pytest

from raccoon_datamodules.faults import Fault, append_faults, read_faults
from raccoon_datamodules.mixture import open_all
from raccoon_datamodules.p2v import P2VDataModule
from raccoon_datamodules.sources import ShardSource, SyntheticSource


@pytest.fixture
def listed(tmp_path):
    """A list with two samples of the ten."""
    path = tmp_path / "bad.jsonl"
    names = [("vplm-train-000000.tar", "clip-0002"), ("vplm-train-000002.tar", "clip-0009")]
    append_faults(path, [Fault(None, 0, key, shard, None, "unreadable") for shard, key in names])
    return str(path)


class Rank:
    """What of a trainer the datamodule asks for."""

    accumulate_grad_batches = 1
    overfit_batches = 0
    limit_train_batches = 1.0
    fast_dev_run = 0
    fit_loop = None

    def __init__(self, rank, world):
        self.distributed_sampler_kwargs = {"rank": rank, "num_replicas": world}


def datamodule(shards, **how):
    return P2VDataModule(str(shards), **{"global_batch_size": 4, "num_frames": 4, "size": (16, 16), **how})


def test_a_run_leaves_out_what_is_listed(shards, listed):
    dm = datamodule(shards, exclude=listed)
    assert sorted(dm.keys_of(range(8))) == [f"clip-{i:04d}" for i in (0, 1, 3, 4, 5, 6, 7, 8)]
    assert sorted(dm.keys_of(range(8, 16))) == sorted(dm.keys_of(range(8)))


def test_a_checkpoint_of_a_run_with_all_samples_is_told_apart(shards, listed):
    before, after = datamodule(shards), datamodule(shards, exclude=[listed])
    for dm in (before, after):
        dm.setup("fit")
    with pytest.warns(UserWarning, match="the training data is not what the checkpoint was trained on"):
        after.load_state_dict(before.state_dict())


def test_a_run_that_lists_and_a_run_that_leaves_out_agree_on_what_is_good(shards, tmp_path):
    folder = tmp_path / "copy"
    os.symlink(shards, folder)
    path = str(tmp_path / "q.jsonl")
    dm = datamodule(folder, quarantine=path, max_bad=99, global_batch_size=10)
    dm.setup("fit")
    folder.unlink()
    folder.mkdir()
    for name in os.listdir(shards):
        if "000001" not in name:
            os.symlink(shards / name, folder / name)
    first = next(iter(dm.train_dataloader()))
    later = datamodule(folder, exclude=path, max_bad=0, max_bad_fraction=0.0, global_batch_size=6)
    second = next(iter(later.train_dataloader()))
    assert set(first.key) <= set(second.key)
    assert set(second.key) & {fault.key for fault in read_faults(path)} == set()


def test_lists_are_given_to_every_corpus_named_by_its_place(shards, listed):
    opened = open_all([str(shards), str(shards)], exclude=listed)
    assert [sum(source.shard_sizes) for source in opened] == [8, 8]


def test_a_source_leaves_out_its_own(shards, listed):
    with pytest.raises(ValueError, match=r"got ShardSource; leave out what it holds where it is made"):
        open_all([ShardSource(shards)], exclude=listed)
    with pytest.raises(ValueError, match=r"got SyntheticSource"):
        open_all(SyntheticSource(), exclude=listed)
    assert sum(open_all(ShardSource(shards, exclude=listed))[0].shard_sizes) == 8


def test_a_list_of_another_data_set_is_noticed(shards, tmp_path, caplog):
    path = str(tmp_path / "other.jsonl")
    append_faults(path, [Fault(None, 0, "clip-0002", "vplm-val-000000.tar", None, "unreadable")])
    with caplog.at_level(logging.WARNING):
        (source,) = open_all(str(shards), exclude=path)
    assert sum(source.shard_sizes) == 10
    assert "none of the samples listed in" in caplog.text


def test_all_ranks_share_one_list(shards, tmp_path):
    path = tmp_path / "q.jsonl"
    for rank in range(2):
        dm = datamodule(shards, quarantine=str(path))
        dm.setup("fit")
        dm.trainer = Rank(rank, 2)
        dm.train_dataloader()
        dm.train_log.add([Fault(rank, 0, f"k{rank}", "s.tar", None, "gone")], num_read=1)
    assert [fault.key for fault in read_faults(path)] == ["k0", "k1"]
