import os
import pickle
import threading
import time

import numpy as np
import pytest

from raccoon_datamodules import reader_http
from raccoon_datamodules.index import Index
from raccoon_datamodules.reader import ShardReader
from raccoon_datamodules.reader_http import HttpFiles
from raccoon_datamodules.sources import ShardSource

SLEEP = time.sleep


@pytest.fixture
def data(tmp_path):
    data = np.random.default_rng(0).bytes(300_000)
    (tmp_path / "a.tar").write_bytes(data)
    return data


@pytest.fixture
def server(data, tmp_path, serve):
    return serve(tmp_path)


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """No test waits, and none goes by the proxies of the machine it runs on."""
    found = []
    reader = threading.current_thread()

    def wait(seconds):
        # The servers of the tests sleep too, in threads of their own.
        if threading.current_thread() is reader:
            found.append(seconds)
        else:
            SLEEP(seconds)

    monkeypatch.setattr(reader_http.time, "sleep", wait)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return found


def test_a_sample_is_read_in_one_request(shards, serve):
    server = serve(shards)
    source = ShardSource(server.address)
    server.asked.clear()
    assert source.read(1, 2) == ShardSource(shards).read(1, 2)
    assert len(server.asked) == 1
    assert server.asked[0][1].startswith("bytes=")


def test_an_index_may_be_named_itself(shards, serve):
    server = serve(shards)
    assert Index.load(f"{server.address}/index.json").base == server.address


def test_one_connection_serves_many_requests(server, data):
    files = HttpFiles(server.address)
    for offset in range(0, 1000, 100):
        assert files.read("a.tar", offset, 50) == data[offset : offset + 50]
    assert (len(server.asked), server.num_connections) == (10, 1)
    files.close()
    files.read("a.tar", 0, 1)
    assert server.num_connections == 2


def test_a_kept_connection_that_the_server_closed_is_replaced_without_a_wait(server, data, waits):
    files = HttpFiles(server.address)
    files.read("a.tar", 0, 1)
    server.plan = ["hang up"]
    assert files.read("a.tar", 5, 5) == data[5:10]
    assert waits == []


def test_a_forked_process_does_not_use_its_parents_connection(server, data, monkeypatch):
    files = HttpFiles(server.address)
    files.read("a.tar", 0, 1)
    monkeypatch.setattr(reader_http.os, "getpid", lambda: -1)
    assert files.read("a.tar", 3, 3) == data[3:6]
    assert server.num_connections == 2


def test_a_pickled_reader_makes_its_own_connection(server, data):
    files = HttpFiles(server.address)
    files.read("a.tar", 0, 1)
    assert pickle.loads(pickle.dumps(files)).read("a.tar", 3, 3) == data[3:6]
    assert server.num_connections == 2


def test_a_redirect_is_followed_to_another_server(server, data, serve, tmp_path):
    other = serve(tmp_path)
    server.plan = [f"to {other.address}/a.tar?signed=1", "to /moved/a.tar"]
    other.root = tmp_path
    files = HttpFiles(server.address)
    # The first answer leads to a path that is no file there, the second back to this server.
    with pytest.raises(FileNotFoundError, match=r"/a\.tar is not there \(HTTP 404\)"):
        files.read("a.tar", 3, 3)
    assert files.read("a.tar", 3, 3) == data[3:6]
    assert [asked for _, asked in server.asked] == ["bytes=3-5"] * 3
    assert other.asked == [("/a.tar?signed=1", "bytes=3-5")]


def test_redirects_without_end_are_refused(server):
    server.plan = ["to /a.tar"] * 20
    with pytest.raises(OSError, match=r"redirected more than 10 times, last to http://.*/a\.tar"):
        HttpFiles(server.address).read("a.tar", 0, 5)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://x/y", "pipe:ls"])
def test_a_redirect_leads_to_http_only(server, target):
    server.plan = [f"to {target}"]
    with pytest.raises(OSError, match=r"redirected to .*, which is no http\(s\) address"):
        HttpFiles(server.address).read("a.tar", 0, 5)


@pytest.mark.parametrize("failure", ["503", "500", "429", "hang up", "short", "another range"])
def test_a_server_that_stumbles_is_asked_again(server, data, waits, failure):
    server.plan = [failure, failure]
    assert HttpFiles(server.address).read("a.tar", 1000, 500) == data[1000:1500]
    assert len(waits) == 2
    assert waits[1] > 0.4


def test_a_server_says_how_long_to_wait(server, waits):
    server.plan = ["429"]
    HttpFiles(server.address).read("a.tar", 0, 5)
    assert waits == [7.0]


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("503", r"a\.tar: HTTP 503 Service Unavailable \(5 tries\)"),
        ("hang up", r"a\.tar cannot be reached: .* \(5 tries\)"),
        ("short", r"a\.tar: the answer broke off.* \(5 tries\)"),
        ("another range", r"asked for bytes 1000 to 1499, the server sent bytes 1003-1502/300000 \(5 tries\)"),
    ],
)
def test_a_server_that_goes_on_stumbling_is_given_up(server, waits, failure, message):
    server.plan = [failure] * 20
    with pytest.raises(OSError, match=message):
        HttpFiles(server.address).read("a.tar", 1000, 500)
    assert len(server.asked) == 5
    assert waits == sorted(waits)


def test_a_server_that_drips_is_given_up(server, data, monkeypatch):
    monkeypatch.setattr(reader_http.time, "sleep", SLEEP)
    server.plan = ["slow"]
    files = HttpFiles(server.address, timeout=0.3, attempts=2)
    assert files.read("a.tar", 0, 100) == data[:100]
    assert len(server.asked) == 2
    server.plan = ["slow", "slow"]
    with pytest.raises(OSError, match=r"a\.tar: \d+ bytes came in \d s \(2 tries\)"):
        files.read("a.tar", 0, 100)


def test_an_answer_that_does_not_say_its_range_is_left_to_the_checksums(server, data):
    server.plan = ["unsaid"]
    assert HttpFiles(server.address).read("a.tar", 7, 7) == data[7:14]


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        ("404", FileNotFoundError, r"a\.tar is not there \(HTTP 404\)"),
        ("410", FileNotFoundError, r"a\.tar is not there \(HTTP 410\)"),
        ("403", PermissionError, r"a\.tar: HTTP 403 Forbidden: the server does not let it be read"),
        ("418", OSError, r"a\.tar: HTTP 418 I'm a Teapot"),
    ],
)
def test_what_will_not_pass_is_said_at_once(server, waits, status, error, message):
    server.plan = [status]
    with pytest.raises(error, match=message):
        HttpFiles(server.address).read("a.tar", 0, 5)
    assert waits == []


def test_a_range_past_the_end_says_that_the_shard_was_cut_off(server, data):
    reader = ShardReader(server.address)
    for offset in (299_990, 300_000, 400_000):
        with pytest.raises(OSError, match=rf"a\.tar ends before byte {offset + 20}, to which the index says"):
            reader.read("a.tar", offset, 20)
    assert HttpFiles(server.address).read("a.tar", 299_990, 20) == data[-10:]


def test_a_server_that_ignores_ranges_is_read_shard_by_shard(shards, serve, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    server = serve(shards)
    source = ShardSource(server.address)
    server.asked.clear()
    server.plan = ["whole"]
    local = ShardSource(shards)
    for shard, sample in [(0, 3), (0, 0), (1, 1), (0, 2)]:
        assert source.read(shard, sample) == local.read(shard, sample)
    # The first request is the one that was not understood.
    assert [(path, asked is None) for path, asked in server.asked] == [
        ("/vplm-train-000000.tar", False),
        ("/vplm-train-000000.tar", True),
        ("/vplm-train-000001.tar", True),
    ]


@pytest.mark.parametrize("failure", ["short", "broken chunk", "503", "hang up"])
def test_a_whole_file_that_breaks_off_is_read_again_from_its_start(shards, serve, tmp_path, monkeypatch, failure):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    server = serve(shards)
    source = ShardSource(server.address)
    server.asked.clear()
    server.plan = ["whole", failure]
    assert source.read(1, 1) == ShardSource(shards).read(1, 1)
    assert len(server.asked) == 3


def test_a_file_changed_between_two_requests_is_noticed(make_shards, serve, tmp_path):
    folder = make_shards(tmp_path / "x", 4)
    server = serve(folder)
    source = ShardSource(server.address)
    source.read(0, 0)
    other = make_shards(tmp_path / "y", 4, first=7)
    os.replace(other / "vplm-train-000000.tar", folder / "vplm-train-000000.tar")
    with pytest.raises(ValueError, match=r"meta\.json: its bytes do not match the checksum in the index"):
        source.read(0, 1)


def test_a_file_that_vanished_between_two_requests_is_said_so(make_shards, serve, tmp_path):
    folder = make_shards(tmp_path / "x", 4)
    server = serve(folder)
    source = ShardSource(server.address)
    source.read(0, 0)
    (folder / "vplm-train-000000.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"vplm-train-000000.tar is not there \(HTTP 404\)"):
        source.read(0, 1)


def test_an_index_that_is_missing_is_said_so(server):
    with pytest.raises(FileNotFoundError, match=r"no index.json in http://.*/deep"):
        Index.load(f"{server.address}/deep")


def test_a_server_that_is_not_there_is_said_so(waits):
    with pytest.raises(OSError, match=r"http://127.0.0.1:1/index.json cannot be reached: Connection refused"):
        Index.load("http://127.0.0.1:1")
    assert len(waits) == 4


def test_a_proxy_is_asked_for_whole_addresses(server, data, monkeypatch):
    monkeypatch.setenv("http_proxy", server.address.replace("//", "//me:pass%20word@"))
    (server.root / "http:").mkdir()
    (server.root / "http:" / "data.example").mkdir()
    (server.root / "http:" / "data.example" / "a.tar").write_bytes(data)
    monkeypatch.setenv("no_proxy", "other.example")
    assert HttpFiles("http://data.example").read("a.tar", 3, 3) == data[3:6]
    assert server.asked == [("http://data.example/a.tar", "bytes=3-5")]


def test_a_proxy_of_another_kind_is_refused(monkeypatch):
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(ValueError, match=r"the proxy for http must be http://HOST:PORT, .* names a socks5 one"):
        HttpFiles("http://data.example").read("a.tar", 3, 3)
