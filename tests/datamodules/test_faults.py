import errno
import json
import multiprocessing
import os

import pytest

from raccoon_datamodules.faults import (
    MAX_ATTEMPTS,
    Fault,
    FaultLog,
    TooManyFaultsError,
    append_faults,
    attempt,
    explain,
    foreign,
    load_or_substitute,
    read_faults,
    substitutes,
)
from raccoon_datamodules.members import MemberError


def fault(key: str) -> Fault:
    return Fault(3, 0, key, "vplm-train-000000.tar", "video.mp4", "cannot be decoded")


MISSING = MemberError("mask-1.npz", "is missing")


def load_with(bad, ordinal=5, error=MISSING):
    def load(place):
        if place in bad:
            raise error
        return f"sample {place}"

    return load_or_substitute(load, ordinal, seed=1, epoch_length=10, name=lambda place: ("s.tar", f"k{place}"))


def test_a_good_sample_stands_for_itself():
    assert (load_with(set()).value, load_with(set()).faults) == ("sample 5", ())


def test_a_bad_sample_is_replaced_by_its_substitute_and_recorded():
    loaded = load_with({5})
    _, second, *_ = substitutes(5, seed=1, epoch_length=10)
    assert loaded.value == f"sample {second}"
    assert loaded.faults == (Fault(5, 0, "k5", "s.tar", "mask-1.npz", "is missing"),)
    assert str(loaded.faults[0]) == "sample k5 of s.tar: mask-1.npz is missing"


def test_a_substitute_that_is_bad_is_replaced_as_well():
    _, second, third, *_ = substitutes(5, seed=1, epoch_length=10)
    loaded = load_with({5, second})
    assert [f.key for f in loaded.faults] == ["k5", f"k{second}"]
    assert loaded.value == f"sample {third}"


def test_attempts_end():
    loaded = load_with(set(range(10)))
    assert loaded.value is None
    assert len(loaded.faults) == MAX_ATTEMPTS


def test_a_corpus_smaller_than_the_attempts_is_tried_through():
    assert sorted(substitutes(4, seed=0, epoch_length=3)) == [3, 4, 5]


def test_substitutes_follow_from_seed_and_ordinal_and_stay_in_the_epoch():
    def every(seed, ordinal=27):
        return list(substitutes(ordinal, seed=seed, epoch_length=10))

    assert every(1) == every(1)
    assert every(1) != every(2)
    assert every(1)[0] == 27
    assert all(20 <= place < 30 for place in every(1))
    assert len(set(every(1))) == MAX_ATTEMPTS


@pytest.mark.parametrize("error", [OSError("gone"), MemoryError(), ZeroDivisionError("x"), ValueError("odd")])
def test_any_error_of_a_sample_is_taken_down(error):
    assert len(load_with({5}, error=error).faults) == 1


def test_an_interrupt_is_no_fault():
    with pytest.raises(KeyboardInterrupt):
        load_with({5}, error=KeyboardInterrupt())


def test_reasons_are_words():
    assert explain(MemberError("a", "b")) == ("a", "b")
    assert explain(ValueError("what was wrong")) == (None, "what was wrong")
    assert explain(ZeroDivisionError("division")) == (None, "ZeroDivisionError: division")
    assert explain(MemoryError()) == (None, "MemoryError")
    assert attempt(lambda: 3) == 3
    assert attempt(lambda: 1 // 0) == (None, "ZeroDivisionError: integer division or modulo by zero")


def test_faults_are_counted_and_listed(tmp_path):
    log = FaultLog(tmp_path / "deep" / "quarantine.jsonl", max_bad=5)
    log.add([fault("a"), fault("b")], num_read=4)
    log.add([fault("a")], num_read=4)
    assert (log.num_bad, log.num_read) == (2, 8)
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [line["key"] for line in lines] == ["a", "b", "a"]
    assert lines[0] == {
        "ordinal": 3,
        "attempt": 0,
        "key": "a",
        "shard": "vplm-train-000000.tar",
        "member": "video.mp4",
        "reason": "cannot be decoded",
    }


def test_without_faults_there_is_no_list(tmp_path):
    FaultLog(tmp_path / "quarantine.jsonl").add([], num_read=4)
    assert not (tmp_path / "quarantine.jsonl").exists()


def test_the_cap_stops_the_run_with_one_sentence():
    log = FaultLog(max_bad=1, max_bad_fraction=0.0)
    log.add([fault("a")], num_read=4)
    with pytest.raises(
        TooManyFaultsError, match=r"2 of 8 samples read are bad, more than max_bad \(1\).*the last: sample b of"
    ):
        log.add([fault("b")], num_read=4)


def test_a_long_run_may_meet_its_fraction_of_bad_samples():
    log = FaultLog(max_bad=1, max_bad_fraction=0.5)
    log.add([fault("a"), fault("b"), fault("c")], num_read=8)
    with pytest.raises(TooManyFaultsError, match="more than max_bad"):
        log.add([fault("d"), fault("e")], num_read=1)


def test_a_place_without_any_substitute_stops_the_run():
    with pytest.raises(TooManyFaultsError, match="neither a sample nor any of its substitutes"):
        FaultLog().add([fault("a")], num_read=1, is_lost=True)


@pytest.mark.parametrize("caps", [{"max_bad": -1}, {"max_bad_fraction": 1.5}])
def test_caps_out_of_range_are_refused(caps):
    with pytest.raises(ValueError, match="max_bad must be >= 0 and max_bad_fraction"):
        FaultLog(**caps)


def test_a_list_reads_back_as_it_was_written(tmp_path):
    path = tmp_path / "bad.jsonl"
    written = [fault("a"), Fault(None, 0, "b", "x.tar", None, "grün \n zwei Zeilen \u2028"), fault("a")]
    append_faults(path, written[:1])
    append_faults(path, [])
    append_faults(path, written[1:])
    assert read_faults(path) == written
    assert read_faults(path, path) == written * 2


def test_nothing_to_list_makes_no_file(tmp_path):
    append_faults(tmp_path / "deep" / "bad.jsonl", [])
    assert list(tmp_path.iterdir()) == []


def append_many(path, who):
    for number in range(50):
        append_faults(path, [Fault(number, 0, f"{who}-{i}", "s.tar", None, "x" * 3000) for i in range(5)])


def test_processes_that_append_to_one_list_lose_no_line(tmp_path):
    path = tmp_path / "bad.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=append_many, args=(path, who)) for who in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    found = read_faults(path)
    assert len(found) == 4 * 50 * 5
    # Lines of one call stay side by side.
    assert all(len({f.key.split("-")[0] for f in found[i : i + 5]}) == 1 for i in range(0, len(found), 5))


def test_a_line_that_a_crash_cut_off_does_not_spoil_the_next(tmp_path):
    path = tmp_path / "bad.jsonl"
    append_faults(path, [fault("a")])
    with path.open("ab") as file:
        file.write(b'{"ordinal": 3, "key"')
    append_faults(path, [fault("b")])
    assert json.loads(path.read_text().splitlines()[2])["key"] == "b"
    with pytest.raises(ValueError, match=r"bad.jsonl, line 2: a quarantine list holds.*remove the line"):
        read_faults(path)


@pytest.mark.parametrize(
    "line",
    ["3", "[]", '{"key": "a"}', '{"key": 1, "shard": "s"}', '{"key": "a", "shard": "s", "ordinal": "x"}', "[" * 9999],
)
def test_a_line_that_is_no_bad_sample_is_refused(tmp_path, line):
    (tmp_path / "bad.jsonl").write_text(f"\n{line}\n")
    with pytest.raises(ValueError, match=r"bad.jsonl, line 2: a quarantine list holds"):
        read_faults(tmp_path / "bad.jsonl")


def test_a_list_by_another_tool_needs_shard_and_key_only(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"shard": "s.tar", "key": "a", "mine": 3}\n')
    assert read_faults(tmp_path / "bad.jsonl") == [Fault(None, 0, "a", "s.tar", None, "")]


def test_a_list_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no quarantine list at .*nowhere.jsonl"):
        read_faults(tmp_path / "nowhere.jsonl")


def test_a_full_disk_leaves_the_list_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "bad.jsonl"
    append_faults(path, [fault("a")])
    before = path.read_bytes()
    real, calls = os.write, []

    def full(handle, data):
        calls.append(data)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, data[:7])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match=r"no room left to add to the quarantine list .*bad.jsonl: free some space"):
        append_faults(path, [fault("b")])
    monkeypatch.undo()
    assert path.read_bytes() == before


def test_the_cap_names_the_list(tmp_path):
    log = FaultLog(tmp_path / "bad.jsonl", max_bad=0, max_bad_fraction=0.0)
    with pytest.raises(TooManyFaultsError, match=r"all are listed in .*bad.jsonl; run `raccoon vplm check`"):
        log.add([fault("a")], num_read=1)
    assert [f.key for f in read_faults(log.path)] == ["a"]


@pytest.mark.parametrize("error", [OSError("x"), ValueError("x"), FileNotFoundError("x")])
def test_errors_that_everybody_knows_pass_as_they_are(error):
    def work():
        raise error

    with pytest.raises(type(error), match="x") as caught:
        foreign(work)
    assert caught.value is error


def test_errors_of_a_strangers_own_become_words():
    class NoCredentialsError(Exception):
        pass

    def work():
        raise NoCredentialsError("Unable to locate credentials")

    with pytest.raises(OSError, match="NoCredentialsError: Unable to locate credentials"):
        foreign(work)
    assert foreign(lambda: 3) == 3
