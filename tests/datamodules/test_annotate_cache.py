import json
import os
import threading
import time

import numpy as np
import pytest

from raccoon_datamodules.annotate.chat import AnswerCut, AnswerRefused, ChatError, ChatStopped
from raccoon_datamodules.annotate.chat_cache import CachedChat, NotKept
from raccoon_datamodules.annotate.thread_pool import WorkBroke, in_threads

IMAGE = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


class Counting:
    def __init__(self, answer="yes"):
        self.answer = answer
        self.count = 0

    def chat(self, images, text):
        self.count += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def kept(tmp_path):
    return lambda chat, **identity: CachedChat(chat, tmp_path / "cache", identity=identity or {"model": "m"})


def test_the_same_request_is_sent_once_also_by_another_run(kept):
    chat = Counting()
    assert kept(chat).ask([IMAGE], "hi") == "yes"
    second = kept(chat)
    assert second.ask([IMAGE.copy()], "hi") == "yes"
    assert chat.count == 1
    assert (second.num_sent, second.num_kept) == (0, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"text": "ho"}, {"images": [IMAGE[::-1]]}, {"images": []}, {"images": [IMAGE.reshape(2, 8, 3)]}, {"attempt": 1},
        {"identity": {"model": "n"}}, {"identity": {"model": "m", "seed": 1}},
    ],
    ids=str,
)  # fmt: skip
def test_whatever_the_answer_depends_on_makes_another_request(kept, change):
    chat = Counting()
    kept(chat).ask([IMAGE], "hi")
    identity = change.pop("identity", {"model": "m"})
    asked = {"images": [IMAGE], "text": "hi", **change}
    with pytest.raises(NotKept, match="not answered before"):
        kept(chat, **identity).offline().ask(**asked)
    answer = kept(chat, **identity).ask(**asked)
    assert chat.count == 2
    assert kept(chat, **identity).offline().ask(**asked) == answer


def test_a_place_where_nothing_can_be_kept_is_refused_before_anything_is_paid(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"a folder .*/deep, but .*file is a file; name another one"):
        CachedChat(Counting(), tmp_path / "file" / "deep", identity={})
    if os.geteuid() == 0:
        pytest.skip("the superuser may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="may not be written to"):
        CachedChat(Counting(), tmp_path / "new", identity={})


def test_a_refusal_is_paid_for_and_kept(kept):
    chat = Counting(AnswerRefused("it declined"))
    for _ in range(2):
        with pytest.raises(AnswerRefused, match="it declined"):
            kept(chat).ask([], "hi")
    assert chat.count == 1


def test_an_answer_that_was_cut_off_is_kept_with_its_beginning(kept):
    chat = Counting(AnswerCut("too long", "Once upon"))
    for _ in range(2):
        with pytest.raises(AnswerCut, match="too long") as caught:
            kept(chat).ask([], "hi")
        assert caught.value.partial == "Once upon"
    assert chat.count == 1


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (ChatError("status 500"), ChatError, "^status 500$"),
        (ChatStopped("no key"), ChatStopped, "^no key$"),
        (ImportError("install it"), ChatStopped, "^install it$"),
        (KeyError("x"), ChatError, "Counting: KeyError: 'x'"),
        (ConnectionError("gone"), ChatError, "Counting: gone"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_failures_are_not_kept_and_have_a_kind(kept, error, kind, sentence):
    chat = Counting(error)
    for _ in range(2):
        with pytest.raises(kind, match=sentence):
            kept(chat).ask([], "hi")
    assert chat.count == 2


def test_an_answer_that_is_no_text_is_a_failure(kept):
    with pytest.raises(ChatError, match="chat must return a str, got int"):
        kept(Counting(3)).ask([], "hi")


def test_a_damaged_file_is_asked_for_anew(kept, tmp_path):
    chat = Counting()
    kept(chat).ask([], "hi")
    (path,) = (tmp_path / "cache").rglob("*.json")
    for damage in (b"", b"{}", b'{"status": "ok", "answer": 3, "detail": ""}', b"\xff\xfe"):
        path.write_bytes(damage)
        assert kept(chat).ask([], "hi") == "yes"
    assert chat.count == 5


def test_a_file_says_what_was_asked_and_answered(kept, tmp_path):
    kept(Counting("ja \ud800")).ask([IMAGE], "hi")
    (path,) = (tmp_path / "cache").rglob("*.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["request"]["text"] == "hi"
    assert record["request"]["identity"] == {"model": "m"}
    assert record["answer"] == "ja ?"


def test_an_identity_must_be_plain_json(kept):
    with pytest.raises(TypeError, match="not JSON serializable"):
        kept(Counting(), model=object())


# the threads


def test_results_come_from_as_many_threads_as_asked_for():
    barrier = threading.Barrier(3, timeout=60)

    def work(item):
        barrier.wait()
        return item * item

    assert sorted(in_threads(work, range(6), jobs=3)) == [0, 1, 4, 9, 16, 25]


def test_nothing_new_is_begun_after_the_iterator_is_closed():
    begun, release, told = [], threading.Event(), []

    def work(item):
        begun.append(item)
        if item > 1:
            release.wait(60)
        return item

    results = in_threads(work, range(100), jobs=2, stop=release.set, waiting=told.append)
    next(results)
    results.close()
    assert len(begun) <= 4
    assert told == []


def test_a_wait_of_more_than_a_second_is_told():
    release, told = threading.Event(), []

    def waiting(count):
        told.append(count)
        release.set()

    def work(item):
        return item if item == 0 else release.wait(60)

    results = in_threads(work, range(3), jobs=2, waiting=waiting)
    assert next(results) == 0
    results.close()
    assert told == [1]


def test_work_that_raises_ends_the_run():
    def work(item):
        raise KeyError(item)

    with pytest.raises(WorkBroke, match="KeyError: 0"):
        list(in_threads(work, range(3), jobs=1))


def test_a_job_is_needed():
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        list(in_threads(str, [1], jobs=0))


def test_two_threads_that_ask_the_same_pay_once(kept):
    chat, gate = Counting(), threading.Barrier(2, timeout=60)
    answer_once, shared = chat.chat, kept(chat)

    def slow(images, text):
        time.sleep(0.1)
        return answer_once(images, text)

    chat.chat = slow

    def ask(_):
        gate.wait()
        return shared.ask([], "hi")

    assert list(in_threads(ask, range(2), jobs=2)) == ["yes", "yes"]
    assert chat.count == 1
