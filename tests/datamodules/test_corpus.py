import lightning.pytorch as pl
import numpy as np
import pytest

from raccoon_datamodules import sample as samples
from raccoon_datamodules.corpus import CorpusBatch, CorpusDataModule
from raccoon_datamodules.sources import ShardSource, Source, SyntheticSource


@pytest.fixture(scope="module")
def shards(make_shards, tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("corpus") / "shards", 7)


class Ranks:
    """What of a trainer the datamodule asks for."""

    def __init__(self, rank, world):
        self.distributed_sampler_kwargs = {"rank": rank, "num_replicas": world}


def read(datamodule, rank=0, world=1):
    datamodule.trainer = Ranks(rank, world)
    return [[one.ordinal for one in batch.loaded] for batch in datamodule.predict_dataloader()]


def test_every_sample_comes_once_and_whole_in_stored_order(shards, make_sample):
    datamodule = CorpusDataModule(str(shards), batch_size=3)
    assert read(datamodule) == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(datamodule.predict_dataloader()) == 3
    assert datamodule.num_samples == 7
    found = next(iter(datamodule.predict_dataloader())).loaded[1].value
    truth = samples.decode(samples.encode(make_sample(1)))
    assert (found.key, found.edits) == (truth.key, truth.edits)
    np.testing.assert_array_equal(found.objects[0].inpainted.frames, truth.objects[0].inpainted.frames)


@pytest.mark.parametrize("world", [2, 3, 9])
def test_ranks_share_the_samples_however_many_they_are(shards, world):
    parts = [read(CorpusDataModule(str(shards)), rank, world) for rank in range(world)]
    assert sorted(ordinal for part in parts for batch in part for ordinal in batch) == list(range(7))
    assert [part for part in parts[7:] if part] == []


def test_what_is_done_is_left_out(shards):
    datamodule = CorpusDataModule(str(shards), batch_size=2)
    datamodule.done = {0, 2, 3}
    assert read(datamodule) == [[1, 4], [5, 6]]
    datamodule.done = set(range(7))
    assert datamodule.predict_dataloader() == []


def test_without_objects_their_members_are_not_read(shards, monkeypatch):
    wanted = []
    original = ShardSource.read
    monkeypatch.setattr(ShardSource, "read", lambda self, *args: wanted.append(args[2:]) or original(self, *args))
    (batch,) = CorpusDataModule(str(shards), objects=False).predict_dataloader()
    assert all(one.value.objects == () and one.value.video.num_frames == 4 for one in batch.loaded)
    assert all("inpainted-1.mp4" not in given for (given,) in wanted)


def test_workers_change_nothing(shards):
    assert read(CorpusDataModule(str(shards), batch_size=2, num_workers=1)) == [[0, 1], [2, 3], [4, 5], [6]]


def test_a_sample_that_cannot_be_read_is_told_of_and_not_replaced(make_shards, tmp_path):
    folder = make_shards(tmp_path / "shards", 3)
    (tar,) = folder.glob("*.tar")
    member = ShardSource(folder).index.shards[0].members(1)[0]
    content = bytearray(tar.read_bytes())
    content[member.offset] ^= 1
    tar.write_bytes(content)
    (batch,) = CorpusDataModule(str(folder)).predict_dataloader()
    assert [one.value is None for one in batch.loaded] == [False, True, False]
    (fault,) = batch.loaded[1].faults
    assert (fault.ordinal, fault.key) == (1, ShardSource(folder).name(0, 1)[1])
    assert "do not match the checksum" in str(fault)


def test_scenes_come_as_they_are_rendered():
    source = SyntheticSource(num_frames=2, size=(16, 16), split="test", num_scenes=2)
    (batch,) = CorpusDataModule(source).predict_dataloader()
    assert [one.value.key for one in batch.loaded] == [source._render(i).key for i in range(2)]
    assert all(one.value.edits for one in batch.loaded)


class Own(SyntheticSource):
    """A source from before there were whole samples."""

    whole = Source.whole


def test_a_source_without_whole_samples_says_so():
    (batch,) = CorpusDataModule(Own(num_frames=2, size=(16, 16), num_scenes=1)).predict_dataloader()
    assert "Own gives no whole samples; define its method whole" in str(batch.loaded[0].faults[0])


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_lightning_hands_samples_over_as_they_are(shards, tmp_path, precision):
    class Reader(pl.LightningModule):
        def predict_step(self, batch, batch_idx):
            assert isinstance(batch, CorpusBatch)
            return len(batch)

    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, precision=precision, default_root_dir=tmp_path
    )
    assert trainer.predict(Reader(), CorpusDataModule(str(shards), batch_size=4)) == [4, 3]


def test_settings_that_make_no_sense_are_refused(shards):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        CorpusDataModule(str(shards), batch_size=0)
    with pytest.raises(ValueError, match="prediction reads one folder of shards, got 2"):
        CorpusDataModule([str(shards), str(shards)]).setup("predict")
