"""Shards that a command of the user's writes out: how often it is run, what is said when it fails, who may name one."""

import json
import os
import pickle
import shlex
import subprocess
import sys
import time
from itertools import islice

import pytest

from raccoon_datamodules import spool
from raccoon_datamodules.faults import FaultLog
from raccoon_datamodules.loader import OrderedLoader, OrderedSamples, Place, endless
from raccoon_datamodules.order import SampleOrder
from raccoon_datamodules.reader_stream import PipeFiles
from raccoon_datamodules.sources import ShardSource


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Spools of a test are made in a folder of its own, and nothing waits."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(spool.time, "sleep", lambda seconds: None)
    return tmp_path


def counted(shards, log):
    """A pipe that notes each file that it is asked for."""
    return f"pipe:echo {{name}} >> {shlex.quote(str(log))}; cat {shlex.quote(str(shards))}/{{name}}"


def test_a_pipe_gives_the_same_samples(shards, tmp_path):
    source, local = ShardSource(counted(shards, tmp_path / "log")), ShardSource(shards)
    assert source.fingerprint() == local.fingerprint()
    assert [source.read(s, i) for s, i in [(2, 1), (0, 3), (2, 0)]] == [
        local.read(s, i) for s, i in [(2, 1), (0, 3), (2, 0)]
    ]
    assert (tmp_path / "log").read_text().split() == ["index.json", "vplm-train-000002.tar", "vplm-train-000000.tar"]


def key_of(source, ref, ordinal):
    return source.view(ref.shard, ref.sample).key


def as_keys(loaded):
    return [(one.ordinal, one.value) for one in loaded]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_worker_processes_read_each_shard_once_together(shards, tmp_path, num_workers):
    source = ShardSource(counted(shards, tmp_path / "log"))
    order = SampleOrder(source.shard_sizes, seed=3, window_shards=2)
    loader = OrderedLoader(
        OrderedSamples([source], order, key_of, seed=3),
        as_keys,
        lambda: islice(endless(0, 2, Place()), 5),
        log=FaultLog(max_bad=0, max_bad_fraction=0.0),
        num_workers=num_workers,
    )
    found = [pair for batch in loader for pair in batch]
    assert found == [(n, key_of(source, order.locate(n), n)) for n in range(10)]
    asked = sorted((tmp_path / "log").read_text().split())
    assert asked == ["index.json", *(path.name for path in sorted(shards.glob("*.tar")))]


def test_workers_who_find_out_for_themselves_that_a_server_has_no_ranges_share_what_they_read(shards, serve, folder):
    server = serve(shards)
    source = ShardSource(server.address)
    server.asked.clear()
    server.plan = ["whole"] * 100
    order = SampleOrder(source.shard_sizes, seed=3, window_shards=2)
    loader = OrderedLoader(
        OrderedSamples([source], order, key_of, seed=3),
        as_keys,
        lambda: islice(endless(0, 2, Place()), 5),
        log=FaultLog(max_bad=0, max_bad_fraction=0.0),
        num_workers=2,
    )
    assert [key for batch in loader for _, key in batch] == [key_of(source, order.locate(n), n) for n in range(10)]
    # One request of each of the three processes found it out; each shard was read once for all.
    ranges = [asked for _, asked in server.asked if asked is not None]
    assert len(ranges) == 3
    assert sorted(path for path, asked in server.asked if asked is None) == [
        f"/{path.name}" for path in sorted(shards.glob("*.tar"))
    ]


def test_shards_larger_than_the_spool_are_refused_where_one_is_needed(shards, serve):
    place = f"pipe:cat {shlex.quote(str(shards))}/{{name}}"
    with pytest.raises(ValueError, match="a spool must have room for every shard"):
        ShardSource(place, spool_bytes=1000)
    assert ShardSource(shards, spool_bytes=1000).read(0, 0)
    server = serve(shards)
    source = ShardSource(server.address, spool_bytes=1000)
    assert source.read(0, 0)
    server.plan = ["whole"]
    with pytest.raises(ValueError, match="a spool must have room for every shard"):
        source.read(0, 0)


def test_a_source_sent_to_a_spawned_worker_uses_the_same_copies(shards, tmp_path):
    source = ShardSource(counted(shards, tmp_path / "log"))
    source.read(0, 0)
    other = pickle.loads(pickle.dumps(source))
    assert other.read(0, 1) == source.read(0, 1)
    del other
    assert source.read(0, 2)
    assert (tmp_path / "log").read_text().split() == ["index.json", "vplm-train-000000.tar"]


def test_the_spool_goes_with_the_run_that_made_it(shards, tmp_path):
    code = (
        "import sys; from raccoon_datamodules.sources import ShardSource; "
        "source = ShardSource(sys.argv[1]); print(source.view(0, 0).key); "
        "import os; print(len(list(os.scandir(os.environ['TMPDIR']))))"
    )
    (tmp_path / "spools").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, f"pipe:cat {shlex.quote(str(shards))}/{{name}}"],
        env={**os.environ, "TMPDIR": str(tmp_path / "spools"), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["clip-0000", "1"]
    assert list((tmp_path / "spools").iterdir()) == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("echo what >&2; echo no such bucket >&2; exit 3; {name}", r"it failed with status 3: no such bucket"),
        ("exit 3; {name}", r"it failed with status 3: it said nothing"),
        ("nonexistent-command {name}", r"it failed with status 127: .*not found"),
    ],
)
def test_a_command_that_fails_says_what_it_said(command, message):
    with pytest.raises(OSError, match=message):
        ShardSource(f"pipe:{command}")


def test_a_command_that_falls_silent_is_stopped():
    files = PipeFiles("pipe:echo {name}; sleep 1000", timeout=0.2)
    started = time.monotonic()
    with pytest.raises(OSError, match=r"it gave no byte for 0\.2 s and was stopped"):
        files.whole("x")
    assert time.monotonic() - started < 30


def test_a_command_that_closes_its_output_but_stays_is_stopped():
    with pytest.raises(OSError, match="it closed its output and did not end"):
        PipeFiles("pipe:echo {name}; exec >&-; sleep 1000", timeout=0.2).whole("x")


def test_a_command_that_is_not_read_to_its_end_is_stopped(tmp_path):
    with PipeFiles(f"pipe:echo $$ > {tmp_path}/pid; yes {{name}}").open("x") as stream:
        assert stream.read(4)[:2] == b"x\n"
        pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_pipe_without_a_name_is_refused():
    with pytest.raises(ValueError, match=r"a pipe must hold \{name\} where the file's name goes"):
        ShardSource("pipe:cat x.tar")


def test_a_shard_that_a_command_cannot_give_is_a_fault_and_not_the_end(shards, tmp_path):
    hidden = "vplm-train-000001.tar"
    source = ShardSource(f"pipe:test {{name}} != {hidden} && cat {shlex.quote(str(shards))}/{{name}}")
    with pytest.raises(OSError, match="it failed with status 1"):
        source.read(1, 0)
    assert source.view(0, 0).key == "clip-0000"


def test_a_stream_cut_short_gives_what_it_has(shards):
    cut = f"pipe:case {{name}} in *.json) cat {shards}/{{name}};; *) head -c 30000 {shards}/{{name}};; esac"
    source = ShardSource(cut)
    assert source.read(0, 0) == ShardSource(shards).read(0, 0)
    with pytest.raises(OSError, match=r"vplm-train-000000\.tar of pipe:.* ends before byte \d+"):
        source.read(0, 3)


def rename(shards, name, folder):
    """The index of a data set whose first shard has another name."""
    value = json.loads((shards / "index.json").read_text())
    value["shards"][0]["name"] = name
    (folder / "index.json").write_text(json.dumps(value))


@pytest.mark.parametrize("name", ["pipe:touch hacked.tar", "$(touch hacked).tar", "a;touch hacked.tar", "a{name}.tar"])
def test_a_command_never_comes_from_an_index(shards, tmp_path, monkeypatch, name):
    """A data set that somebody else made cannot run anything, even where the user's own recipe has a command."""
    rename(shards, name, tmp_path)
    monkeypatch.chdir(tmp_path)
    for place in (str(tmp_path), f"pipe:cat {tmp_path}/{{name}}"):
        with pytest.raises(ValueError, match=r"a shard must be named NAME\.tar"):
            ShardSource(place).read(0, 0)
    assert not (tmp_path / "hacked").exists()
    assert not (tmp_path / "hacked.tar").exists()


def test_an_option_is_no_shard_of_a_command(shards, tmp_path):
    rename(shards, "-rf.tar", tmp_path)
    with pytest.raises(ValueError, match=r"starts with a dash \(-rf\.tar\) is never given to a command"):
        ShardSource(f"pipe:cat {tmp_path}/{{name}}").read(0, 0)
