import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raccoon.cli.main import main
from raccoon_datamodules.examine.check import check_shards
from raccoon_datamodules.sources import ShardSource

pytest.importorskip("openai", reason="openai is not installed")

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-very-Secret_1234567890"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "train"
    main(["vplm", "synth", "--out", str(folder), "--count", "8", "--size", "32x32", "--per-shard", "3"])
    return folder


@pytest.fixture
def server():
    spec = importlib.util.spec_from_file_location("chat_server", Path(__file__).parent / "chat_server.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.ChatServer()
    yield made
    made.close()


@pytest.fixture
def words(server, scenes, tmp_path, monkeypatch):
    monkeypatch.setenv("RACCOON_TEST_KEY", KEY)
    flags = {
        "base_url": server.url,
        "api_key_env": "RACCOON_TEST_KEY",
        "model": "tiny",
        "input_price": 1,
        "output_price": 1,
        "first_pause": 0.01,
        "longest_pause": 0.01,
    }

    def make(*more, **changed):
        settings = [f"--set=chat.{name}={value}" for name, value in {**flags, **changed}.items()]
        return ["vplm", "annotate", str(scenes), "--out", str(tmp_path / "out"), "--all", *settings, *more]

    return make


def test_a_data_set_is_annotated_by_one_command(words, server, tmp_path, capsys):
    assert main(words()) == 0
    told = capsys.readouterr().out
    assert "8 of 8 videos annotated" in told
    assert re.search(r"words per video +\d+\.\d +238\.0", told)
    assert str(tmp_path / "out/annotation/review/index.html") in told
    assert re.search(r"requests: \d+ sent, \d+ answered from the cache; \d+ tokens in prompts.*, cost 0\.\d+", told)
    assert check_shards(tmp_path / "out").ok
    view = ShardSource(tmp_path / "out").view(0, 0)
    assert view.meta.extra["annotation"]["model"] == "tiny"
    assert all(view.object(name).description for name in view.meta.objects)


def test_a_second_run_sends_nothing(words, server, capsys):
    main(words())
    sent = len(server.requests)
    assert main(words()) == 0
    assert len(server.requests) == sent


def test_a_dry_run_sends_and_writes_nothing_and_needs_no_key(words, server, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("RACCOON_TEST_KEY")
    assert main(words("--dry-run")) == 0
    told = capsys.readouterr().out
    assert re.search(r"8 videos, 0 with their text already, 8 to annotate, 0 of these answered in the cache", told)
    assert re.search(r"requests: \d+ at most \(8 for paragraphs", told)
    assert re.search(r"cost: about 0\.\d\d \(in the currency of the prices\)", told)
    assert "The picture holds 6 frames of one video" in told
    assert not server.requests
    assert not (tmp_path / "out").exists()


def test_a_dry_run_says_when_nothing_is_to_be_done(words, capsys):
    command = [word for word in words("--dry-run", input_price="null") if word != "--all"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "all videos have their text already; --all annotates them anew" in told
    assert "cost: unknown, no price is set" in told


def test_the_result_is_one_json_object(words, capsys):
    assert main(words("--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["annotated"], found["complete"]) == (8, True)
    assert found["usage"]["requests"] == found["requests"]["sent"]
    assert main(words("--json", "--dry-run")) == 0
    assert json.loads(capsys.readouterr().out)["answered"] == 8


def test_failures_are_listed_and_the_exit_code_says_so(words, server, capsys):
    server.script = [{"text": None, "refusal": "I must not."}]
    assert main(words("--jobs=1")) == 1
    found = capsys.readouterr()
    assert "7 of 8 videos annotated, 1 failed" in found.out
    assert "not complete: run the same command again" in found.out
    assert "the model refused: I must not." in found.err


def test_the_spending_limit_keeps_what_is_done_and_the_next_run_goes_on(words, server, tmp_path, capsys):
    assert main(words("--jobs=2", output_price=100, spending_limit=0.12)) == 1
    told = capsys.readouterr()
    assert re.search(r"[1-7] of 8 videos annotated", told.out)
    assert "stopped early: the spending limit of 0.12 is reached" in told.err
    before = len(server.requests)
    assert main(words()) == 0
    texts = [json.dumps(request["body"]) for request in server.requests]
    assert len(texts) > before
    assert len(set(texts)) == len(texts)


def test_corrections_are_taken_from_a_file(words, tmp_path, capsys):
    main(words())
    key = ShardSource(tmp_path / "out").name(0, 1)[1]
    text = ["Video Description: By hand.", "", "Object Descriptions:", "1. Thing: Written by a person."]
    path = tmp_path / "mine.json"
    videos = [{"key": key, "text": text}]
    path.write_text(json.dumps({"format": "raccoon-vplm-corrections", "version": 1, "videos": videos}))
    capsys.readouterr()
    assert main(words("--corrections", str(path))) == 0
    assert "1 of them corrected by hand" in capsys.readouterr().out
    assert ShardSource(tmp_path / "out").view(0, 1).paragraphs()[0].description == "By hand."


def test_the_key_is_in_no_file_and_no_output(words, server, tmp_path, capsys):
    server.script = [{"status": 400, "text": f"you sent {KEY}"}]
    main(words("--jobs=1"))
    told = capsys.readouterr()
    written = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) > 10
    assert not [data for data in written if KEY.encode() in data]
    assert KEY not in told.out + told.err
    assert "you sent ***" in told.err


def test_a_model_of_ones_own_may_annotate(words, tmp_path, monkeypatch, capsys):
    package = tmp_path / "mine.py"
    package.write_text(
        "class Mine:\n    def __init__(self, name: str = 'x'):\n        self.name = name\n"
        "    def chat(self, images, text):\n"
        "        return 'A' if 'one letter' in text else "
        "'Video Description: x.\\n\\nObject Descriptions:\\n1. Thing: y ' + self.name\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("chat: {class_path: mine.Mine, init_args: {name: Bob}}\n")
    command = [word for word in words("--config", str(recipe)) if not word.startswith("--set")]
    assert main(command) == 0
    view = ShardSource(tmp_path / "out").view(0, 0)
    assert view.paragraphs()[0].find("Thing").description == "y Bob"
    assert view.meta.extra["annotation"]["chat"] == "Mine"
    assert main([*command, "--dry-run"]) == 0
    assert "8 of these answered in the cache" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "code", "sentence"),
    [
        ({"api_key_env": "RACCOON_NO_SUCH_KEY"}, 1, "environment variable RACCOON_NO_SUCH_KEY, which is not set"),
        ({"base_url": "http://127.0.0.1:9/v1"}, 1, r"no server answers at http://127\.0\.0\.1:9/v1"),
        ({"spending_limit": 5, "input_price": "null"}, 2, "needs input_price and output_price.*input_price is not set"),
        ({"base_url": "localhost:8000/v1"}, 2, "base_url must begin with http:// or https://.*got 'localhost:8000/v1'"),
        ({"modelx": "x"}, 2, "has no argument 'modelx'; did you mean 'model'"),
    ],
    ids=str,
)
def test_what_is_wrong_with_the_server_is_one_sentence(words, changed, code, sentence, tmp_path, capsys):
    assert main(words(**changed)) == code
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert re.match(rf"raccoon vplm: .*{sentence}", told[0])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("status", "sentence"),
    [(401, r"does not accept the key in RACCOON_TEST_KEY \(401\)"), (404, r"has no model 'tiny' .*\(404\)")],
)
def test_what_the_server_says_is_one_sentence(words, server, status, sentence, capsys):
    server.script = [status] * 9
    assert main(words()) == 1
    assert re.search(sentence, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--jobs=0"], "--jobs must be at least 1, got 0"),
        (["--per-shard=0"], "--per-shard must be at least 1, got 0"),
        (["--frames=99"], r"num_frames must be in \[1, 64\], got 99"),
        ([f"--cache={Path(__file__)}"], "answers are kept in a folder .* is a file; name another one"),
        (["--corrections=nowhere.json"], "there are no corrections at nowhere.json"),
        (["--config=superpixels/grid"], "has no section chat; name one that has, such as vplm/annotate"),
    ],
    ids=str,
)
def test_wrong_words_are_one_sentence(words, more, sentence, capsys):
    command = words(*more)
    if "superpixels" in more[0]:
        command = [word for word in command if not word.startswith("--set")]
    assert main(command) == 2
    assert re.search(sentence, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(signal.SIGKILL, -9, id="SIGKILL"),
        pytest.param(signal.SIGINT, 130, id="Ctrl-C", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_was_ended_costs_nothing_twice(words, server, tmp_path, sent, code):
    server.delay = 0.15
    paths = os.pathsep.join(str(ROOT / name) for name in (".", "kernels", "datamodules"))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "raccoon.cli.main", *words("--jobs=2")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while len(server.requests) < 5 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert (b"are kept; the same command goes on from here" in said) == (sent == signal.SIGINT)
    assert not list((tmp_path / "out").glob("*.tar"))
    first = len(server.requests)
    server.delay = 0.0
    assert main(words()) == 0
    bodies = [json.dumps(request["body"]) for request in server.requests]
    # What was under way when the process was killed is asked again; what was answered is not.
    repeated = len(bodies) - len(set(bodies))
    assert repeated <= (2 if sent == signal.SIGKILL else 0)
    assert len(bodies) > first
    assert check_shards(tmp_path / "out").ok
