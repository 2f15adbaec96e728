"""`raccoon vplm replay`: what it says of a step is what training reads in it."""

import json
from itertools import islice

import numpy as np
import pytest
import torch

from raccoon.cli.main import main
from raccoon_datamodules.faults import Fault, append_faults
from raccoon_datamodules.index import Index, Shard
from raccoon_datamodules.p2v import P2VDataModule
from raccoon_datamodules.replay import first_ordinal, known_faults
from raccoon_datamodules.sources import ShardSource
from raccoon_datamodules.synthetic import make_sample
from raccoon_datamodules.synthetic.generate import seed_of
from raccoon_datamodules.writer import write_shards

OBJECT_MEMBERS = (("object", "json"), ("mask", "npz"), ("inpainted", "mp4"))
SMALL = {"num_frames": 2, "size": (16, 16)}


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Two folders, of 10 and of 6 samples."""
    root = tmp_path_factory.mktemp("corpora")
    for name, first, count in (("one", 0, 10), ("two", 50, 6)):
        scenes = (
            make_sample(seed_of("train", first + i), "easy", num_frames=2, size=(16, 16), fps=8.0) for i in range(count)
        )
        write_shards(scenes, root / name, split="train", samples_per_shard=4)
    return root


def replay(capsys, *words):
    """The JSON object that the verb prints."""
    assert main(["vplm", "replay", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *words):
    """The one sentence with which it refuses."""
    assert main(["vplm", "replay", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def trained(step, folders, **how):
    """What training reads in a step: (ordinal, key, task)."""
    data = P2VDataModule(folders, global_batch_size=4, **SMALL, **how)
    batch = next(islice(iter(data.train_dataloader()), step, None))
    return list(zip(batch.ordinal.tolist(), batch.key, batch.task, strict=True))


def test_it_tells_the_samples_and_tasks_that_training_reads(corpora, capsys):
    one, two = str(corpora / "one"), str(corpora / "two")
    options = ["--global-batch-size", "4", "--seed", "3"]
    for step in (0, 6):
        told = replay(capsys, "--data", one, two, "--weights", "3", "1", *options, "--step", str(step))
        found = [(s["ordinal"], s["key"], s["task"]) for s in told["samples"]]
        assert found == trained(step, {one: 3, two: 1}, seed=3)
        assert (told["step"], told["ordinals"]) == (step, [4 * step, 4 * step + 4])
    assert told["corpora"] == [one, two]


def test_a_step_of_an_epoch_is_counted_from_the_one_in_which_it_begins(corpora, capsys):
    words = ["--data", str(corpora / "one"), "--global-batch-size", "4", "--epoch", "1", "--step"]
    first = replay(capsys, *words, "0")
    assert (first["step"], [s["epoch"] for s in first["samples"]]) == (2, [0, 0, 1, 1])
    last = replay(capsys, *words, "2")
    assert (last["step"], last["ordinals"]) == (4, [16, 20])
    assert "epoch 1 of 10 samples has the steps 0 to 2" in refused(capsys, *words, "3")


def test_it_tells_which_rank_and_which_accumulated_batch_read_a_sample(corpora, capsys):
    words = ["--data", str(corpora / "one"), "--step", "2"]
    alone = replay(capsys, *words)
    shared = replay(capsys, *words, "--ranks", "2", "--accumulate", "2")
    assert [s["key"] for s in shared["samples"]] == [s["key"] for s in alone["samples"]]
    assert [(s["rank"], s["part"]) for s in shared["samples"]] == [
        (rank, part) for rank in (0, 1) for part in (0, 1) for _ in range(2)
    ]


def test_a_recipe_says_what_its_run_reads(corpora, capsys, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        f"""
data:
  class_path: raccoon_datamodules.p2v.P2VDataModule
  init_args:
    train: {{{corpora / "one"}: 1.0, {corpora / "two"}: 1.0}}
    global_batch_size: 4
    tasks: {{remove: 1.0}}
"""
    )
    told = replay(capsys, "--config", str(path), "--set", "data.seed=7", "--ordinal", "8")
    folders = {str(corpora / "one"): 1.0, str(corpora / "two"): 1.0}
    expected = trained(2, folders, seed=7, tasks={"remove": 1.0})
    assert [(s["ordinal"], s["key"], s["task"]) for s in told["samples"]] == expected
    assert told["seed"] == 7
    assert replay(capsys, "--config", str(path), "--seed", "7", "--ordinal", "8")["samples"] == told["samples"]


def test_an_overlay_puts_folders_in_place_of_scenes(corpora, capsys, tmp_path):
    path = tmp_path / "folders.yaml"
    path.write_text(f"data: {{init_args: {{train: {{{corpora / 'one'}: 2, {corpora / 'two'}: 1}}}}}}\n")
    told = replay(capsys, "--config", "p2v/tiny", "--config", str(path), "--global-batch-size", "4")
    folders = {str(corpora / "one"): 2.0, str(corpora / "two"): 1.0}
    assert [(s["ordinal"], s["key"], s["task"]) for s in told["samples"]] == trained(0, folders)


@pytest.mark.parametrize("recipe", ["p2v/tiny", "v2p/tiny", "tiny/language", "tiny/clip"])
def test_every_training_recipe_is_understood(recipe, capsys):
    told = replay(capsys, "--config", recipe, "--global-batch-size", "2", "--step", "5")
    assert [s["ordinal"] for s in told["samples"]] == [10, 11]
    assert all(s["task"] for s in told["samples"])


def test_no_sample_is_read(corpora, capsys, monkeypatch):
    monkeypatch.setattr(ShardSource, "view", lambda *_: pytest.fail("a sample was read"))
    told = replay(capsys, "--data", str(corpora / "one"), "--step", "1000000")
    assert told["ordinals"] == [8_000_000, 8_000_008]
    assert set(told["seconds"]) == {"index", "resume"}


@pytest.mark.slow  # writes and reads an index of 190 MB
def test_a_place_among_a_million_samples_is_told_without_their_shards(tmp_path, capsys):
    """There is nothing but an index to read. Prints the seconds that docs/training.md tells."""
    of_objects = [f"{kind[0]}-{i}.{kind[1]}" for i in (1, 2) for kind in OBJECT_MEMBERS]
    suffixes = ("meta.json", "paragraph.json", "edits.json", "video.mp4", *of_objects)
    rng = np.random.default_rng(0)
    count, of = 1000, len(suffixes)
    made = []
    for number in range(1000):
        length = rng.integers(500, 60_000, count * of).astype(np.uint32)
        ends = np.cumsum(length.astype(np.int64))
        made.append(
            Shard(
                name=f"vplm-train-{number:06d}.tar",
                size=int(ends[-1]),
                sha256=f"{number:064x}",
                keys=np.array([f"clip-{number:03d}-{i:03d}".encode() for i in range(count)]),
                suffixes=suffixes,
                first=np.arange(0, count * of + 1, of),
                suffix=np.tile(np.arange(of, dtype=np.uint8), count),
                offset=(ends - length).astype(np.uint32),
                length=length,
                crc32=rng.integers(0, 1 << 32, count * of, dtype=np.uint32),
            )
        )
    Index("train", tuple(made), str(tmp_path)).save(tmp_path)
    told = replay(capsys, "--data", str(tmp_path), "--global-batch-size", "64", "--epoch", "3", "--step", "15000")
    assert told["epoch_length"] == 1_000_000
    assert len({sample["key"] for sample in told["samples"]}) == 64
    with capsys.disabled():
        print(f"\namong 1,000,000 samples: {told['seconds']} s")


def test_it_tells_what_a_run_continued_from_a_checkpoint_reads_first(corpora, capsys, tmp_path):
    one = str(corpora / "one")
    data = P2VDataModule(one, global_batch_size=4, seed=3)
    data.setup("fit")
    path = str(tmp_path / "last.ckpt")
    torch.save({"state_dict": {}, "P2VDataModule": {**data.state_dict(), "ordinal": 20}}, path)
    options = ["--global-batch-size", "4", "--ckpt", path]
    told = replay(capsys, "--data", one, *options, "--seed", "3")
    assert [(s["ordinal"], s["key"], s["task"]) for s in told["samples"]] == trained(5, one, seed=3)
    assert "the checkpoint's order has seed 3, this datamodule has 0" in refused(capsys, "--data", one, *options)
    assert "holds no place of a V2PDataModule" in refused(capsys, "--data", one, "--tasks", "v2p", "--ckpt", path)
    other = ["--data", str(corpora / "two"), *options, "--seed", "3"]
    assert main(["vplm", "replay", *other]) == 0
    assert "the training data is not what the checkpoint was trained on: the shards were" in capsys.readouterr().err


def test_a_sample_known_to_be_bad_is_shown_with_its_substitute(corpora, capsys, tmp_path):
    one = str(corpora / "one")
    plain = replay(capsys, "--data", one, "--global-batch-size", "2")["samples"]
    lists = [tmp_path / "bad.jsonl.rank0", tmp_path / "bad.jsonl.rank1"]
    # A resumed run writes the same fault again.
    lists[0].write_text(json.dumps({"ordinal": 1, "attempt": 0, "key": plain[1]["key"]}) + "\n")
    lists[1].write_text(lists[0].read_text())
    known = replay(capsys, "--data", one, "--global-batch-size", "2", "--quarantine", *map(str, lists))["samples"]
    assert known[0] == plain[0]
    assert (known[1]["key"], known[1]["replaces"]) == (plain[1]["next"], [plain[1]["key"]])


def test_a_substitute_is_the_one_that_training_took(corpora, capsys, tmp_path):
    one = str(corpora / "one")
    source, bad = ShardSource(one), {3, 5}

    class Broken(ShardSource):
        def view(self, shard, sample, *wanted):
            if int(self.name(shard, sample)[1].rpartition("-")[2]) in bad:
                raise OSError("the disk is broken")
            return super().view(shard, sample, *wanted)

    quarantine = str(tmp_path / "bad.jsonl")
    how = {"max_bad": 99, "quarantine": quarantine, "window_shards": 8}
    found = [row for step in range(5) for row in trained(step, Broken(one), **how)]
    assert sum(source.index.shard_sizes) == 10
    told = [
        sample
        for step in range(5)
        for sample in replay(
            capsys, "--data", one, "--global-batch-size", "4", "--step", str(step), "--quarantine", quarantine
        )["samples"]
    ]
    assert [(s["ordinal"], s["key"], s["task"]) for s in told] == found
    assert any(s["replaces"] for s in told)


@pytest.fixture
def excluded(corpora, tmp_path):
    """A list of three of the ten samples of the first folder."""
    source = ShardSource(str(corpora / "one"))
    names = [source.name(shard, sample) for shard, sample in ((0, 1), (1, 0), (2, 1))]
    append_faults(tmp_path / "bad.jsonl", [Fault(None, 0, key, shard, None, "unreadable") for shard, key in names])
    return str(tmp_path / "bad.jsonl")


def test_what_training_leaves_out_replay_leaves_out(corpora, excluded, capsys, tmp_path):
    one, two = str(corpora / "one"), str(corpora / "two")
    recipe = tmp_path / "run.yaml"
    data = f"{{class_path: raccoon_datamodules.p2v.P2VDataModule, init_args: {{train: [{one}, {two}]"
    recipe.write_text(f"data: {data}, global_batch_size: 4}}}}\n")
    options = ["--global-batch-size", "4", "--exclude", excluded]
    for step in (0, 4):
        expected = trained(step, [one, two], exclude=excluded)
        assert expected != trained(step, [one, two])
        for words in (["--data", one, two, *options], ["--config", str(recipe), "--exclude", excluded]):
            told = replay(capsys, *words, "--step", str(step))
            assert [(s["ordinal"], s["key"], s["task"]) for s in told["samples"]] == expected
            assert told["epoch_length"] == 13


def test_several_lists_are_left_out_and_one_of_other_data_is_noticed(corpora, excluded, capsys, tmp_path, caplog):
    one, two = str(corpora / "one"), str(corpora / "two")
    shard, key = ShardSource(two).name(0, 0)
    append_faults(tmp_path / "more.jsonl", [Fault(None, 0, key, shard, None, "unreadable")])
    more = str(tmp_path / "more.jsonl")
    assert replay(capsys, "--data", one, two, "--exclude", excluded, more)["epoch_length"] == 12
    with caplog.at_level("WARNING"):
        assert replay(capsys, "--data", one, "--exclude", more)["epoch_length"] == 10
    assert "none of the samples listed in" in caplog.text


def test_what_is_printed_is_a_table(corpora, capsys):
    one, two = str(corpora / "one"), str(corpora / "two")
    assert main(["vplm", "replay", "--data", one, two, "--step", "1", "--global-batch-size", "2"]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0] == "step 1 of the run, ordinals 2 to 3, epoch 0 of 16 samples, seed 0"
    assert lines[1] == f"corpus 0 is {one}, corpus 1 is {two}"
    assert lines[2].startswith("ordinal  rank  part  corpus  epoch  shard ")
    assert len(lines) == 5
    assert "no sample read" in said.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "nowhere"], "no shards at nowhere"),
        (["--config", "pipeline/tiny"], "the recipe pipeline/tiny has no section data"),
        (["--config", "predict/edit"], "CorpusDataModule is no VplmDataModule"),
        (["--config", "no/recipe"], "there is no recipe 'no/recipe'"),
        (["--config", "p2v/tiny", "--weights", "1"], "--weights and --window-shards go with --data"),
        (["--config", "p2v/tiny", "--set", "model.seed=1"], "--set takes data.KEY=VALUE, got 'model.seed=1'"),
        (["--config", "p2v/tiny", "--set", "data.sede=1"], "has no argument 'sede'; did you mean 'seed'?"),
        (["--config", "p2v/tiny", "--set", "data.tasks.paint=3"], "unknown task 'paint'"),
        (["--config", "p2v/tiny", "--set", "data.train=nowhere"], "no shards at nowhere"),
        (["--data", "ONE", "--set", "data.seed=1"], "--set goes with --config"),
        (["--data", "ONE", "--step", "1", "--ordinal", "1"], "give one of --ordinal, --ckpt and --step"),
        (["--data", "ONE", "--ckpt", "nowhere.ckpt"], "there is no checkpoint nowhere.ckpt"),
        (["--data", "ONE", "--ordinal", "-1"], "--ordinal must not be negative, got -1"),
        (["--data", "ONE", "--step", "-1"], "steps and epochs are counted from 0, got step -1"),
        (["--data", "ONE", "--ranks", "3"], r"global_batch_size (8) must be a positive multiple of ranks (3)"),
        (["--data", "ONE", "--global-batch-size", "0"], "batch sizes must be positive, got 0"),
        (["--data", "ONE", "--weights", "1", "2"], "each corpus needs one weight, got 1 corpora and 2 weights"),
        (["--data", "ONE", "--quarantine", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--data", "ONE", "--exclude", "nowhere.jsonl"], "nowhere.jsonl"),
        ([], "one of the arguments --config --data is required"),
        (["--data", "ONE", "--config", "p2v/tiny"], "not allowed with argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_one_sentence(words, said, corpora, capsys):
    words = [str(corpora / "one") if word == "ONE" else word for word in words]
    assert said in refused(capsys, *words)


def test_a_file_that_is_no_quarantine_list_is_refused(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text('{"ordinal": 1, "attempt": 0}\nsample 3 is bad\n')
    with pytest.raises(ValueError, match=r"list.txt, line 2: not a line of a quarantine list: 'sample 3 is bad'"):
        known_faults([path])


def test_a_global_batch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="the global batch size must be at least 1, got 0"):
        first_ordinal(0, epoch=None, epoch_length=10, global_batch=0)
