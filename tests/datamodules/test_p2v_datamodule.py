import json
import os
import pickle
import shutil

import jsonargparse
import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor

from raccoon_datamodules.batch import P2VBatch
from raccoon_datamodules.faults import TooManyFaultsError
from raccoon_datamodules.index import Index
from raccoon_datamodules.loader import Once, Place, endless
from raccoon_datamodules.p2v import P2VDataModule
from raccoon_datamodules.sources import ShardSource, SyntheticSource


class Recorder(pl.LightningModule):
    """Learns nothing to speak of and writes down what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[int] = []
        self.steps: list[int] = []
        self.validated: list[list[int]] = []

    def training_step(self, batch: P2VBatch, index: int) -> Tensor:
        self.seen += batch.ordinal.tolist()
        return self.layer(batch.target.mean(dim=(1, 2, 3, 4)).unsqueeze(1)).mean()

    def on_before_optimizer_step(self, optimizer) -> None:
        self.steps.append(len(self.seen))

    def validation_step(self, batch: P2VBatch, index: int) -> None:
        self.validated.append(batch.ordinal.tolist())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(tmp_path, steps, **how):
    how = {"val_check_interval": 1000, "limit_val_batches": 0, **how}
    return pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=how.pop("enable_checkpointing", False),
        enable_progress_bar=False,
        enable_model_summary=False,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
        **how,
    )


def datamodule(shards, val=None, **how):
    return P2VDataModule(str(shards), val, **{"global_batch_size": 4, "num_frames": 4, "size": (16, 16), **how})


def take(dm, count):
    found = []
    for batch in dm.train_dataloader():
        found.append(batch)
        if len(found) == count:
            return found
    return found


# Lightning advises more workers, which is not what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*TPU.*")


def test_a_batch_is_what_it_says(shards):
    (batch,) = take(datamodule(shards), 1)
    assert isinstance(batch, P2VBatch)
    assert (batch.target.shape, batch.condition.shape) == ((4, 4, 3, 16, 16), (4, 4, 3, 16, 16))
    assert batch.edit_mask.shape == (4, 4, 1, 16, 16)
    assert (batch.target.dtype, batch.edit_mask.dtype, batch.ordinal.dtype) == (
        torch.uint8,
        torch.uint8,
        torch.int64,
    )
    assert set(batch.edit_mask.unique().tolist()) == {0, 1}
    assert batch.ordinal.tolist() == [0, 1, 2, 3]
    assert len(batch.prompt) == len(batch.task) == len(batch.key) == 4


def test_pixels_are_those_of_the_clip(shards):
    dm = datamodule(shards, tasks={"change": 1.0}, frame_sampling="uniform")
    (batch,) = take(dm, 1)
    source = ShardSource(shards)
    shard, sample = source.index.find(batch.key[2])
    clip = source.view(shard, sample).clip()
    assert np.array_equal(batch.target[2].permute(0, 2, 3, 1).numpy(), clip)
    found = ((batch.floats().target[2].permute(0, 2, 3, 1) + 1) * 127.5).round().numpy()
    assert np.array_equal(found, clip.astype(np.float32))


def test_an_epoch_shows_every_sample_once_and_then_goes_on(shards):
    batches = take(datamodule(shards, global_batch_size=5), 4)
    keys = [key for batch in batches for key in batch.key]
    assert sorted(keys[:10]) == sorted(keys[10:]) == list(Index.load(shards).keys())
    assert keys[:10] != keys[10:]


def test_workers_change_nothing(shards):
    alone = take(datamodule(shards), 6)
    helped = take(datamodule(shards, num_workers=2), 6)
    for first, second in zip(alone, helped, strict=True):
        assert (first.key, first.task, first.ordinal.tolist()) == (second.key, second.task, second.ordinal.tolist())
        assert torch.equal(first.target, second.target)
        assert torch.equal(first.edit_mask, second.edit_mask)


def test_the_seed_changes_order_and_draws(shards):
    def keys(seed):
        return [key for batch in take(datamodule(shards, seed=seed), 5) for key in batch.key]

    assert keys(1) == keys(1)
    assert keys(1) != keys(2)


@pytest.mark.parametrize(("world", "parts"), [(1, 1), (2, 1), (4, 1), (1, 2), (2, 2)])
def test_ranks_and_accumulation_share_the_same_steps(world, parts):
    streams = [endless(7, 4, Place(rank, world, parts)) for rank in range(world)]
    for step in range(3):
        found = [n for stream in streams for _ in range(parts) for n in next(stream)]
        assert found == list(range(7 + 4 * step, 11 + 4 * step))


def test_a_batch_that_does_not_divide_among_the_ranks_is_refused_at_once():
    with pytest.raises(ValueError, match=r"global_batch_size \(4\) must be a positive multiple of ranks \(3\)"):
        endless(0, 4, Place(0, 3, 1))


def test_validation_goes_once_through_on_one_rank():
    assert [list(batch) for batch in Once(10, 4, Place())] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_validation_gives_every_rank_as_many_batches():
    found = [[list(batch) for batch in Once(10, 2, Place(rank, 3))] for rank in range(3)]
    assert found == [[[0, 1], [6, 7]], [[2, 3], [8, 9]], [[4, 5], [10, 11]]]


def test_lightning_trains_and_validates_on_it(shards, make_shards, tmp_path):
    val = make_shards(tmp_path / "val", 5, first=50, split="val")
    model, dm = Recorder(), datamodule(shards, str(val))
    trainer(tmp_path, 6, val_check_interval=3, limit_val_batches=1.0).fit(model, dm)
    assert model.seen == list(range(24))
    assert model.validated == [[0, 1, 2, 3], [4]] * 2
    assert dm.state_dict()["ordinal"] == 24


def test_validation_shows_the_same_at_every_time(shards):
    dm = datamodule(shards, str(shards))
    first, second = ([(b.key, b.task, b.target.sum().item()) for b in dm.val_dataloader()] for _ in range(2))
    assert first == second
    assert [key for keys, _, _ in first for key in keys] == list(Index.load(shards).keys())


def test_a_run_goes_on_where_its_checkpoint_was_taken(shards, tmp_path):
    whole = Recorder()
    trainer(tmp_path, 8).fit(whole, datamodule(shards))

    first, path = Recorder(), tmp_path / "five.ckpt"
    run = trainer(tmp_path, 5)
    run.fit(first, datamodule(shards))
    run.save_checkpoint(path)
    state = torch.load(path, weights_only=False)["P2VDataModule"]
    assert {name: state[name] for name in ("schema", "seed", "ordinal")} == {"schema": 1, "seed": 0, "ordinal": 20}

    second = Recorder()
    trainer(tmp_path, 8).fit(second, datamodule(shards), ckpt_path=path, weights_only=False)
    assert first.seen + second.seen == whole.seen == list(range(32))


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("workers", [0, 1])
def test_what_was_fetched_ahead_is_not_counted(shards, tmp_path, workers):
    checkpoints = pl.callbacks.ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1)
    run = trainer(tmp_path, 7, enable_checkpointing=True, callbacks=[checkpoints])
    run.fit(Recorder(), datamodule(shards, num_workers=workers, prefetch=3))
    second = Recorder()
    path = tmp_path / "step=3.ckpt"
    run = trainer(tmp_path, 5, enable_checkpointing=True, callbacks=[checkpoints])
    run.fit(second, datamodule(shards), ckpt_path=path, weights_only=False)
    assert second.seen == list(range(12, 20))


def test_accumulated_batches_make_one_global_batch(shards, tmp_path):
    model, dm = Recorder(), datamodule(shards)
    trainer(tmp_path, 3, accumulate_grad_batches=2).fit(model, dm)
    assert model.seen == list(range(12))
    assert model.steps == [4, 8, 12]
    assert dm.state_dict()["ordinal"] == 12


def test_a_step_broken_off_in_the_middle_is_done_again_from_its_first_sample(shards, tmp_path):
    path = tmp_path / "middle.ckpt"

    class Saver(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            if index == 4:
                trainer.save_checkpoint(path)

    trainer(tmp_path, 4, accumulate_grad_batches=2, callbacks=[Saver()]).fit(Recorder(), datamodule(shards))
    model = Recorder()
    run = trainer(tmp_path, 4, accumulate_grad_batches=2)
    run.fit(model, datamodule(shards), ckpt_path=path, weights_only=False)
    assert model.seen == list(range(8, 16))
    assert model.steps == [4, 8]


def test_a_run_may_go_on_with_another_accumulation(shards, tmp_path):
    run, path = trainer(tmp_path, 3), tmp_path / "three.ckpt"
    run.fit(Recorder(), datamodule(shards))
    run.save_checkpoint(path)
    model = Recorder()
    trainer(tmp_path, 6, accumulate_grad_batches=4).fit(model, datamodule(shards), ckpt_path=path, weights_only=False)
    assert model.seen == list(range(12, 24))
    assert model.steps == [4, 8, 12]


def test_a_second_run_of_one_datamodule_begins_anew(shards, tmp_path):
    dm, first, second = datamodule(shards), Recorder(), Recorder()
    trainer(tmp_path, 2).fit(first, dm)
    trainer(tmp_path, 2).fit(second, dm)
    assert first.seen == second.seen == list(range(8))


def test_asking_for_keys_in_mid_run_leaves_the_position_alone(shards, tmp_path):
    dm = datamodule(shards)

    class Asker(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            assert dm.keys_of(batch.ordinal.tolist()) == batch.key
            assert dm.state_dict()["ordinal"] == 4 * (index + 1)

    trainer(tmp_path, 3, callbacks=[Asker()]).fit(Recorder(), dm)
    assert dm.state_dict()["ordinal"] == 12


def test_epochs_of_limited_length_lose_no_batch(shards, tmp_path):
    model = Recorder()
    run = pl.Trainer(
        max_epochs=3,
        limit_train_batches=2,
        limit_val_batches=0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    run.fit(model, datamodule(shards))
    assert model.seen == list(range(24))


def test_a_checkpoint_of_another_seed_is_refused(shards):
    state = datamodule(shards, seed=3).state_dict()
    with pytest.raises(ValueError, match="the checkpoint's order has seed 3, this datamodule has 4"):
        datamodule(shards, seed=4).load_state_dict(state)


def test_a_checkpoint_of_another_schema_is_refused(shards):
    with pytest.raises(ValueError, match="position in the data has schema 2, expected 1"):
        datamodule(shards).load_state_dict({"schema": 2, "seed": 0, "ordinal": 0})


def test_going_on_with_other_data_is_said(shards, make_shards, tmp_path):
    before = datamodule(shards)
    before.setup("fit")
    after = datamodule(make_shards(tmp_path / "other", 10, first=40))
    after.setup("fit")
    with pytest.warns(UserWarning, match="the training data is not what the checkpoint was trained on"):
        after.load_state_dict(before.state_dict())


def test_a_position_loaded_by_hand_is_where_reading_begins(shards):
    dm = datamodule(shards)
    dm.load_state_dict({"schema": 1, "seed": 0, "ordinal": 1_000_004})
    (batch,) = take(dm, 1)
    assert batch.ordinal.tolist() == list(range(1_000_004, 1_000_008))
    assert batch.key == dm.keys_of(batch.ordinal.tolist())


def test_corpora_are_mixed_by_weight(shards, make_shards, tmp_path):
    other = make_shards(tmp_path / "other", 4, first=40)
    dm = P2VDataModule([str(shards), str(other)], weights=[1, 3], global_batch_size=4, num_frames=4, size=(16, 16))
    keys = dm.keys_of(range(1000))
    assert sum(key >= "clip-0040" for key in keys) == 750
    (batch,) = take(dm, 1)
    assert batch.key == keys[:4]


@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0, 1.0]])
def test_each_corpus_needs_a_weight(shards, weights):
    dm = P2VDataModule([str(shards), str(shards)], weights=weights)
    with pytest.raises(ValueError, match="each corpus needs one weight, got 2 corpora"):
        dm.setup("fit")


@pytest.fixture
def damaged(shards, tmp_path):
    """Shards in which one clip of ten has a flipped bit; with the key of its sample."""
    folder = shutil.copytree(shards, tmp_path / "damaged")
    index = Index.load(folder)
    entry = next(m for m in index.shards[1].members(1) if m.suffix == "meta.json")
    path = folder / index.shards[1].name
    data = bytearray(path.read_bytes())
    data[entry.offset + 5] ^= 1
    path.write_bytes(data)
    return folder


def test_a_bad_sample_is_replaced_counted_and_listed(damaged, shards, tmp_path):
    dm = datamodule(damaged, quarantine=str(tmp_path / "q.jsonl"), global_batch_size=10)
    (batch,) = take(dm, 1)
    (good,) = take(datamodule(shards, global_batch_size=10), 1)
    bad = good.key.index("clip-0005")
    assert "clip-0005" not in batch.key
    assert len(batch.key) == 10
    assert batch.ordinal.tolist() == list(range(10))
    assert all(torch.equal(batch.target[i], good.target[i]) for i in range(10) if i != bad)
    (line,) = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert (line["key"], line["shard"], line["member"]) == ("clip-0005", "vplm-train-000001.tar", "meta.json")
    assert dm.train_log.num_bad == 1


def test_the_substitute_is_the_same_with_workers(damaged):
    alone, helped = (take(datamodule(damaged, num_workers=n, global_batch_size=10), 1)[0] for n in (0, 2))
    assert alone.key == helped.key


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_over_ruined_shards_stops_with_one_sentence(shards, tmp_path, workers):
    folder = shutil.copytree(shards, tmp_path / "ruined")
    for path in folder.glob("*.tar"):
        os.truncate(path, 600)
    with pytest.raises(TooManyFaultsError, match="neither a sample nor any of its substitutes"):
        take(datamodule(folder, num_workers=workers), 1)


def test_the_cap_stops_a_run(damaged):
    with pytest.raises(TooManyFaultsError, match=r"1 of \d+ samples read are bad, more than max_bad \(0\)"):
        take(datamodule(damaged, max_bad=0, max_bad_fraction=0.0), 3)


def test_a_shard_that_vanishes_in_mid_run_is_a_fault_not_a_crash(shards, tmp_path):
    folder = shutil.copytree(shards, tmp_path / "copy")
    dm = datamodule(folder, max_bad=4, window_shards=1)
    dm.setup("fit")
    (folder / "vplm-train-000002.tar").unlink()
    keys = [key for batch in take(dm, 5) for key in batch.key]
    assert len(keys) == 20
    assert not {"clip-0008", "clip-0009"} & set(keys)
    assert dm.train_log.num_bad == 2


def test_scenes_are_rendered_on_the_fly(tmp_path):
    source = SyntheticSource(num_frames=4, size=(32, 32))
    dm = P2VDataModule(
        source,
        SyntheticSource(num_frames=4, size=(32, 32), split="val", num_scenes=3),
        num_frames=4,
        size=(32, 32),
        global_batch_size=2,
    )
    first, second = take(dm, 2)
    assert first.key + second.key == [source._render(i).key for i in range(4)]
    assert sum(len(batch.key) for batch in dm.val_dataloader()) == 3
    again = take(P2VDataModule(source, num_frames=4, size=(32, 32), global_batch_size=2), 1)[0]
    assert torch.equal(again.target, first.target)


def test_validation_on_endless_scenes_costs_nothing_until_it_is_limited():
    source = SyntheticSource(num_frames=4, size=(32, 32), split="val")
    loader = P2VDataModule(source, source, num_frames=4, size=(32, 32), global_batch_size=2).val_dataloader()
    assert len(loader) == 250_000_000
    assert next(iter(loader)).ordinal.tolist() == [0, 1]


def test_scenes_of_the_splits_never_meet():
    seeds = [{SyntheticSource(split=split).scene_seed(i) for i in range(50)} for split in ("train", "val", "test")]
    assert len(set.union(*seeds)) == 150


def test_a_synthetic_source_of_no_frames_is_refused():
    with pytest.raises(ValueError, match="num_frames, num_scenes and fps must be positive"):
        SyntheticSource(num_frames=0)


def test_the_datamodule_may_be_pickled(shards):
    dm = datamodule(shards)
    dm.setup("fit")
    assert take(pickle.loads(pickle.dumps(dm)), 1)[0].key == take(dm, 1)[0].key


class Shown(Recorder):
    """Keeps every batch that a step of any kind receives."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[P2VBatch] = []

    def training_step(self, batch: P2VBatch, index: int) -> Tensor:
        self.batches.append(batch)
        return super().training_step(batch, index)

    def validation_step(self, batch: P2VBatch, index: int) -> None:
        self.batches.append(batch)

    test_step = validation_step

    def predict_step(self, batch: P2VBatch, index: int) -> Tensor:
        self.batches.append(batch)
        return batch.ordinal


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_every_step_receives_floats(shards, tmp_path, stage):
    model, dm = Shown(), datamodule(shards, str(shards), test=str(shards))
    dm.predict_dataloader = dm.test_dataloader
    getattr(trainer(tmp_path, 1, limit_val_batches=1), stage)(model, datamodule=dm)
    loader = {"fit": "train", "validate": "val", "predict": "test"}.get(stage, stage)
    wanted = next(iter(getattr(dm, f"{loader}_dataloader")()))
    if stage == "fit":
        (wanted,) = take(datamodule(shards), 1)
    assert wanted.target.dtype == torch.uint8
    for name in ("target", "condition", "edit_mask"):
        found = getattr(model.batches[0], name)
        assert found.dtype == torch.float32
        assert torch.equal(found, getattr(wanted.floats(), name))


def test_lightning_casts_a_batch_for_half_precision(shards, tmp_path):
    run, model = trainer(tmp_path, 1, precision="bf16-true"), Shown()
    run.fit(model, datamodule(shards))
    (batch,), (wanted,) = model.batches, take(datamodule(shards), 1)
    for name in ("target", "condition", "edit_mask"):
        assert torch.equal(getattr(batch, name), getattr(wanted.floats(), name).bfloat16())


def test_a_batch_of_somebody_elses_is_left_alone(shards):
    batch = {"frames": torch.zeros(2, dtype=torch.uint8)}
    assert datamodule(shards).on_after_batch_transfer(batch, 0) is batch


def test_without_validation_data_there_is_none(shards):
    assert datamodule(shards).val_dataloader() == []


def test_test_samples_are_read_once_in_stored_order(shards):
    dm = datamodule(shards, test=str(shards), val_batch_size=4)
    dm.setup("test")
    assert [batch.ordinal.tolist() for batch in dm.test_dataloader()] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert dm.val_dataloader() == []


@pytest.mark.parametrize(("use", "stage", "what"), [("val", "validate", "validation"), ("test", "test", "testing")])
def test_two_folders_to_measure_on_are_refused(shards, use, stage, what):
    with pytest.raises(ValueError, match=f"{what} reads one folder of shards, got 2"):
        datamodule(shards, **{use: [str(shards), str(shards)]}).setup(stage)


def test_no_folder_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one folder of shards is needed"):
        P2VDataModule([]).setup("fit")


def test_what_is_no_source_is_refused():
    with pytest.raises(TypeError, match="a list of them, or a Source, got int"):
        P2VDataModule(3).setup("fit")


def test_a_recipe_builds_it_from_yaml(shards, tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text(
        "data:\n"
        "  train:\n"
        "    class_path: raccoon_datamodules.sources.SyntheticSource\n"
        "    init_args: {num_frames: 4, size: [32, 32]}\n"
        f"  val: {shards}\n"
        "  size: [32, 32]\n"
        "  tasks: {remove: 1.0, add: 0.5}\n"
    )
    parser = jsonargparse.ArgumentParser(parser_mode="omegaconf+")
    parser.add_class_arguments(P2VDataModule, "data")
    parser.add_argument("--config", action="config")
    config = parser.parse_args(["--config", str(path), "--data.global_batch_size=2", "--data.seed=3"])
    dm = parser.instantiate(config).data
    assert (dm.seed, dm.size, dm.global_batch_size) == (3, (32, 32), 2)
    assert take(dm, 1)[0].target.shape == (2, 16, 3, 32, 32)
    folders = parser.parse_args([f"--data.train=['{shards}', '{shards}']"]).data.train
    assert folders == [str(shards), str(shards)]


def test_a_missing_folder_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such folder or file"):
        P2VDataModule(str(tmp_path / "nowhere")).setup("fit")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"global_batch_size": 0}, "batch sizes must be positive"),
        ({"val_batch_size": 0}, "batch sizes must be positive"),
        ({"num_frames": 0}, "num_frames and size must be positive"),
        ({"size": (0, 8)}, "num_frames and size must be positive"),
        ({"tasks": {"describe": 1.0}}, "unknown task 'describe'"),
        ({"max_bad": -1}, "max_bad must be >= 0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(shards, how, message):
    with pytest.raises(ValueError, match=message):
        datamodule(shards, **how)


def test_an_endless_stream_has_no_length(shards):
    with pytest.raises(TypeError, match="an endless stream of batches has no length"):
        len(datamodule(shards).train_dataloader())


def test_a_clip_of_fewer_frames_repeats_its_last_one_mask_and_all(shards):
    batch, *_ = take(datamodule(shards, num_frames=7), 1)
    assert batch.target.shape[:2] == batch.edit_mask.shape[:2] == (4, 7)
    for part in (batch.target, batch.condition, batch.edit_mask):
        assert torch.equal(part[:, 3:], part[:, 3:4].expand_as(part[:, 3:]))
