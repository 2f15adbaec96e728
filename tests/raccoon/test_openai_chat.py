import importlib.util
import json
import logging
import threading
import time
import traceback
from email.utils import formatdate
from pathlib import Path

import numpy as np
import pytest

from raccoon.backbones import OpenAIChat
from raccoon.backbones.chat_errors import _retry_after
from raccoon.backbones.chat_limits import RateLimit, Spending
from raccoon.testing import check_chat
from raccoon_datamodules.annotate.chat import AnswerCut, AnswerRefused, ChatError, ChatStopped

pytest.importorskip("openai", reason="openai is not installed")

KEY = "sk-very-Secret_1234567890"
IMAGE = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)


@pytest.fixture
def chat_server():
    spec = importlib.util.spec_from_file_location("chat_server", Path(__file__).parent / "chat_server.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = []

    def make(*script):
        made.append(module.ChatServer(script))
        made[-1].parts_of = module.parts_of
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)


def client(server, **settings):
    settings = {"first_pause": 0.001, "longest_pause": 0.002, "api_key_env": "TEST_KEY", "timeout": 10, **settings}
    return OpenAIChat("tiny", base_url=server.url, **settings)


# asking


def test_an_answer_comes_and_the_request_holds_what_was_set(chat_server):
    server = chat_server("Hello.")
    chat = client(server, seed=3, max_tokens=7, image_detail="low")
    assert chat.chat([IMAGE], "What is it?") == "Hello."
    (request,) = server.requests
    assert request["path"] == "/v1/chat/completions"
    assert request["headers"]["authorization"] == f"Bearer {KEY}"
    body = request["body"]
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"]) == ("tiny", 7, 0.0, 3)
    assert body["messages"][0]["content"][1]["image_url"]["detail"] == "low"


def test_what_is_not_set_is_not_sent(chat_server):
    server = chat_server("x")
    client(server, temperature=None, token_parameter="max_completion_tokens").chat([], "hi")
    body = server.requests[0]["body"]
    assert set(body) == {"model", "messages", "max_completion_tokens"}
    assert body["messages"][0]["content"] == "hi"


def test_a_png_arrives_pixel_for_pixel(chat_server):
    server = chat_server("x")
    client(server).chat([IMAGE, IMAGE[::-1]], "hi")
    text, images = server.parts_of(server.requests[0]["body"])
    assert text == "hi"
    assert np.array_equal(images[0], IMAGE)
    assert np.array_equal(images[1], IMAGE[::-1])


def test_a_jpeg_is_sent_if_wanted(chat_server):
    server = chat_server("x", "x")
    for kind in ("png", "jpeg"):
        client(server, image_format=kind, jpeg_quality=50).chat([IMAGE.repeat(4, 0).repeat(4, 1)], "hi")
    urls = [r["body"]["messages"][0]["content"][1]["image_url"]["url"] for r in server.requests]
    assert urls[0].startswith("data:image/png;base64,")
    assert urls[1].startswith("data:image/jpeg;base64,")
    assert np.abs(server.parts_of(server.requests[1]["body"])[1][0].mean() - IMAGE.mean()) < 3


def test_it_is_a_chat(chat_server):
    check_chat(client(chat_server()))


def test_an_image_must_be_one(chat_server):
    with pytest.raises(ValueError, match=r"an image must be uint8 \[H, W, 3\], got float64 \[2, 2, 3\]"):
        client(chat_server()).chat([np.zeros((2, 2, 3))], "hi")


def test_a_server_without_keys_gets_a_placeholder(chat_server):
    server = chat_server("x")
    client(server, api_key_env=None).chat([], "hi")
    assert server.requests[0]["headers"]["authorization"] == "Bearer none"


# trying again


@pytest.mark.parametrize(
    "step",
    [
        429, 500, 502, 503, {"choices": []}, {"text": ""}, {"text": None}, {"body": b"{not json"}, {"body": b"{}"},
        {"body": b"<html>", "headers": {"Content-Type": "text/html"}},
    ],
    ids=str,
)  # fmt: skip
def test_a_passing_failure_is_tried_again(chat_server, step):
    server = chat_server(step, "fine")
    assert client(server).chat([], "hi") == "fine"
    assert len(server.requests) == 2


def test_retries_end_with_the_last_reason(chat_server):
    server = chat_server(500, 503, {"status": 500, "text": "on fire"})
    with pytest.raises(ChatError, match=r"http://127.0.0.1:\d+/v1 answered 500: on fire after 3 tries"):
        client(server, max_retries=2).chat([], "hi")


def test_empty_choices_are_named(chat_server):
    with pytest.raises(ChatError, match="something else than a completion: there is no choice in it"):
        client(chat_server({"choices": []}), max_retries=0).chat([], "hi")


def test_a_request_that_is_turned_down_is_not_tried_again(chat_server):
    server = chat_server({"status": 400, "text": "the picture is too large"})
    with pytest.raises(ChatError, match=r"turned the request down \(400\): the picture is too large$"):
        client(server).chat([], "hi")
    assert len(server.requests) == 1


def test_the_pause_the_server_asks_for_is_kept(chat_server):
    server = chat_server({"status": 429, "headers": {"Retry-After": "0.6"}}, "fine")
    client(server).chat([], "hi")
    assert server.times[1] - server.times[0] >= 0.6


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "x", "retry-after": "2"}, 2),
        ({"retry-after": "99999999"}, 3600),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
    ids=str,
)
def test_retry_after_is_seconds(headers, seconds):
    assert _retry_after(headers) == seconds


def test_retry_after_may_be_a_date():
    found = _retry_after({"retry-after": formatdate(time.time() + 1800, usegmt=True)})
    assert 600 < found <= 1800


def test_pauses_grow_and_are_random(chat_server, monkeypatch):
    chat = client(chat_server(*[500] * 6), first_pause=1.0, longest_pause=5.0, max_retries=5)
    pauses = []
    monkeypatch.setattr(chat, "_pause", pauses.append)
    with pytest.raises(ChatError):
        chat.chat([], "hi")
    for pause, most in zip(pauses, (1, 2, 4, 5, 5), strict=True):
        assert most / 2 <= pause <= most


def test_silence_is_a_timeout_and_is_tried_again(chat_server):
    server = chat_server({"wait": 30}, "fine")
    assert client(server, timeout=2).chat([], "hi") == "fine"
    with pytest.raises(ChatError, match=r"did not answer within 0.3 s \(chat.timeout\)"):
        client(chat_server({"wait": 30}), timeout=0.3, max_retries=0).chat([], "hi")


def test_a_refusal_is_not_tried_again(chat_server):
    server = chat_server({"text": None, "refusal": "I can't help with that."})
    with pytest.raises(AnswerRefused, match="the model refused: I can't help with that"):
        client(server).chat([], "hi")
    assert len(server.requests) == 1


def test_a_filtered_answer_is_a_refusal(chat_server):
    with pytest.raises(AnswerRefused, match="content filter withheld the answer"):
        client(chat_server({"text": "", "finish": "content_filter"})).chat([], "hi")


def test_an_answer_at_the_length_limit_brings_its_beginning(chat_server):
    with pytest.raises(AnswerCut, match=r"reached max_tokens \(5\)") as caught:
        client(chat_server({"text": "Once upon", "finish": "length"}), max_tokens=5).chat([], "hi")
    assert caught.value.partial == "Once upon"


# stopping


def test_a_missing_key_names_its_variable(chat_server, monkeypatch):
    monkeypatch.delenv("TEST_KEY")
    server = chat_server()
    with pytest.raises(ChatStopped, match="environment variable TEST_KEY, which is not set"):
        client(server).chat([], "hi")
    assert not server.requests


def test_a_key_that_no_header_can_hold_is_not_quoted(chat_server, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "sk-schlüssel\nzwei")
    with pytest.raises(ChatStopped, match="the key in the environment variable TEST_KEY must be plain ASCII") as caught:
        client(chat_server()).chat([], "hi")
    assert "schl" not in str(caught.value)


def test_an_address_without_a_scheme_is_named():
    with pytest.raises(ValueError, match=r"must begin with http:// or https:// .*, got 'localhost:1/v1'"):
        OpenAIChat("x", base_url="localhost:1/v1")


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        ({"status": 401, "text": f"Bad key: {KEY}"}, r"not accept the key in TEST_KEY \(401\): Bad key: \*\*\*$"),
        ({"status": 403, "text": "not in your country"}, r"forbids this \(403\): not in your country"),
        ({"status": 404, "text": "no such model"}, r"no model 'tiny' .*\(404\): no such model; correct chat.model or"),
        ({"status": 402}, r"has no credit left \(402\)"),
        (
            {"status": 429, "body": b'{"error": {"message": "pay", "code": "insufficient_quota"}}'},
            r"has no credit left \(429\): pay",
        ),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_what_no_request_can_mend_stops_the_run(chat_server, step, sentence):
    server = chat_server(step)
    with pytest.raises(ChatStopped, match=sentence):
        client(server).chat([], "hi")
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_stops_at_once_and_is_named(chat_server):
    server = chat_server()
    server.close()
    chat = OpenAIChat("tiny", base_url=server.url, api_key_env=None, first_pause=60)
    with pytest.raises(
        ChatStopped, match=rf"no server answers at {server.url}: .*; start it, or correct chat.base_url"
    ):
        chat.chat([], "hi")
    server.close = lambda: None


def test_a_server_that_went_away_is_waited_for(chat_server):
    server = chat_server({"text": "fine", "headers": {"Connection": "close"}})
    chat = client(server, max_retries=2)
    chat.chat([], "hi")
    server.close()
    with pytest.raises(ChatStopped, match=r"no server answers at .* after 3 tries"):
        chat.chat([], "hi")
    server.close = lambda: None


def test_stopping_ends_a_pause(chat_server):
    chat = client(chat_server(500, "fine"), first_pause=50, longest_pause=60)
    threading.Timer(0.2, chat.stop).start()
    began = time.monotonic()
    with pytest.raises(ChatStopped, match="the run was stopped"):
        chat.chat([], "hi")
    assert time.monotonic() - began < 20


def test_no_more_requests_are_under_way_than_allowed(chat_server):
    server = chat_server()
    server.delay = 0.05
    chat = client(server, concurrency=2)
    threads = [threading.Thread(target=chat.chat, args=([], "hi")) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.most_under_way == 2
    assert len(server.requests) == 6


def test_without_the_package_one_sentence_says_what_to_install(chat_server, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(ImportError, match=r'pip install "raccoon-video\[annotate\]"'):
        client(chat_server()).chat([], "hi")


# secrets


def test_the_key_is_nowhere_but_in_the_request(chat_server, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    quoting = {"status": 401, "text": f"Incorrect API key provided: {KEY}, also sk-ver***7890"}
    chat = client(
        chat_server("fine", quoting, {"status": 400, "text": KEY}, {"status": 500, "text": KEY}), max_retries=0
    )
    chat.chat([], "hi")
    told = [repr(chat), str(vars(chat)), json.dumps(dict(chat.identity)), str(chat.usage), str(chat.spending.__dict__)]
    for _ in range(3):
        with pytest.raises((ChatStopped, ChatError)) as caught:
            chat.chat([IMAGE], "hi")
        told += ["".join(traceback.format_exception(caught.value)), repr(caught.value)]
    told += [record.getMessage() for record in caplog.records]
    assert not [text for text in told if KEY in text or "7890" in text]


def test_the_identity_holds_what_answers_depend_on_and_no_address(chat_server):
    chat = client(chat_server(), seed=1)
    assert chat.identity["model"] == "tiny"
    assert chat.identity["seed"] == 1
    assert "127.0.0.1" not in str(chat.identity)


# limits


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds


@pytest.mark.parametrize(
    ("limits", "sizes", "times"),
    [
        ({"requests": 2, "tokens": None}, [1, 1, 1, 1, 1], [0, 0, 60, 60, 120]),
        ({"requests": None, "tokens": 100}, [60, 40, 1, 100], [0, 0, 60, 120]),
        ({"requests": None, "tokens": 10}, [50, 1], [0, 60]),
        ({"requests": None, "tokens": None}, [9, 9, 9], [0, 0, 0]),
    ],
    ids=str,
)
def test_no_minute_holds_more_than_the_limit(limits, sizes, times):
    clock = Clock()
    rate, found = RateLimit(**limits, clock=clock, wait=clock.wait), []
    for size in sizes:
        rate.enter(size)
        found.append(clock.now)
    assert found == times


def test_a_pause_the_server_asked_for_holds_for_all():
    clock = Clock()
    rate = RateLimit(requests=None, tokens=None, clock=clock, wait=clock.wait)
    rate.hold(12)
    rate.enter(1)
    assert clock.now == 12


def test_a_rate_must_be_positive():
    with pytest.raises(ValueError, match="requests_per_minute must be at least 1 or null for no limit, got 0"):
        OpenAIChat("x", requests_per_minute=0)


def test_tokens_and_money_are_counted_from_the_servers_own_count(chat_server):
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
    chat = client(chat_server({"text": "x", "usage": usage}), input_price=2.0, output_price=10.0)
    chat.chat([], "hi")
    assert chat.usage == (1, 1000, 100, pytest.approx(0.003))


def test_a_failed_request_costs_nothing_a_silent_one_what_it_may_have_cost(chat_server):
    chat = client(chat_server(500), input_price=1.0, output_price=1e6, max_tokens=3, max_retries=0)
    with pytest.raises(ChatError):
        chat.chat([], "hi")
    assert chat.usage.cost == 0
    chat = client(
        chat_server({"wait": 30}), input_price=0.0, output_price=1e6, max_tokens=3, max_retries=0, timeout=0.2
    )
    with pytest.raises(ChatError):
        chat.chat([], "hi")
    assert chat.usage.cost == pytest.approx(3.0)


def test_the_spending_limit_is_never_passed(chat_server):
    server = chat_server()
    usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
    server.script = [{"text": "x", "usage": usage}] * 100
    chat = client(server, input_price=0.0, output_price=1e6, max_tokens=15, spending_limit=100, concurrency=4)
    stopped = []

    def ask():
        try:
            while True:
                chat.chat([], "hi")
        except ChatStopped as err:
            stopped.append(str(err))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # 10 a request, 15 set aside for it: the tenth would need 90 + 15.
    assert len(server.requests) == 9
    assert chat.usage.cost == 90
    assert all("the spending limit of 100 is reached: 90.0000 spent" in sentence for sentence in stopped)


def test_estimates_follow_what_the_server_counts():
    spending = Spending(input_price=1e6, output_price=0.0, limit=1000.0)
    amount = spending.set_aside(10, 1)
    assert amount == 10
    spending.settle(amount, estimated=10, input_tokens=30, output_tokens=1)
    assert spending.set_aside(10, 1) == 30


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"spending_limit": 5.0},
            r"a spending_limit \(5.0\) needs input_price and output_price .* input_price is not set",
        ),
        ({"spending_limit": 5.0, "input_price": 1.0}, "output_price is not set; set it in the recipe"),
        ({"input_price": -1.0}, "input_price must be a number of at least 0 or null, got -1.0"),
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0"),
        ({"max_retries": -1}, "max_retries must be at least 0, got -1"),
        ({"concurrency": 0}, "concurrency must be at least 1"),
        ({"timeout": 0}, "timeout positive"),
        ({"jpeg_quality": 101}, r"jpeg_quality must be in \[1, 100\], got 101"),
    ],
    ids=str,
)
def test_settings_are_checked(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        OpenAIChat("tiny", **settings)


def test_a_model_needs_a_name():
    with pytest.raises(ValueError, match="model must name a model of the server"):
        OpenAIChat(" ")


@pytest.mark.parametrize(
    ("size", "detail", "tokens"),
    [((512, 512), None, 255), ((1024, 1024), None, 765), ((4000, 100), "low", 85)],
    ids=str,
)
def test_pictures_are_counted_as_openai_does(size, detail, tokens):
    chat = OpenAIChat("x", image_detail=detail)
    assert chat.estimate_tokens([size], "") - chat.estimate_tokens([], "") == tokens


def test_the_price_is_unknown_without_prices():
    assert OpenAIChat("x").price(1, 1) is None
    assert OpenAIChat("x").usage.cost is None
    assert OpenAIChat("x", input_price=1.0, output_price=2.0).price(1e6, 1e6) == 3.0
