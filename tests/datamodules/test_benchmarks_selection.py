from pathlib import Path

import pytest

from raccoon_datamodules.benchmarks import BenchmarkItem, hash_order
from raccoon_datamodules.benchmarks.selection import select, videos_below

NAMES = [f"video-{n}" for n in range(50)]


def make(name):
    return BenchmarkItem(name, Path(name))


def chosen(count=10, *, seed=0, make=make, names=None):
    return select("test", NAMES, make, count=count, seed=seed, chosen=names)


def test_the_order_is_fixed_by_seed_benchmark_and_name_alone():
    assert hash_order(["b", "a", "b"], benchmark="x") == hash_order(["a", "b"], benchmark="x")
    # Recorded: another order here would move the published selections.
    assert hash_order(["bear", "camel", "dog", "cows"], benchmark="DAVIS") == ["dog", "bear", "cows", "camel"]


def test_another_seed_or_benchmark_gives_another_order():
    orders = {tuple(hash_order(NAMES, benchmark=b, seed=s)) for b in ("x", "y") for s in (0, 1)}
    assert len(orders) == 4


def test_a_missing_video_moves_no_other_one():
    whole = {item.name for item in chosen()}
    lost = next(iter(whole))
    found = chosen(make=lambda name: None if name == lost else make(name))
    assert found.missing == (lost,)
    assert len(found) == 10
    assert whole - {lost} < {item.name for item in found}


def test_a_list_of_names_takes_the_place_of_the_selection(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("# mine\nvideo-7\n\nvideo-3 \nvideo-7\n")
    found = chosen(names=path)
    assert [item.name for item in found] == ["video-3", "video-7"]
    assert found.rule == f"the 2 videos of {path}"


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="one of test's 50, a, b, c and 1 more are not"):
        chosen(names=["a", "b", "video-1", "c", "d"])


def test_listed_videos_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="every video of your list must be there, video-1 is not"):
        chosen(names=["video-1"], make=lambda name: None)


def test_an_empty_list_is_refused(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("# nothing\n")
    with pytest.raises(ValueError, match="must hold one name a line, it holds none"):
        chosen(names=path)
    with pytest.raises(ValueError, match="at least one name, got an empty one"):
        chosen(names=[])


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no list of videos at .*gone.txt"):
        chosen(names=tmp_path / "gone.txt")


def test_a_count_must_be_positive_and_be_there():
    with pytest.raises(ValueError, match="count must be at least 1, or None for all videos, got 0"):
        chosen(0)
    with pytest.raises(ValueError, match="at least 51 videos for this selection, 50 of 50 are there"):
        chosen(51)
    with pytest.raises(ValueError, match="at least 1 videos for this selection, 0 of 50"):
        chosen(None, make=lambda name: None)


def test_the_first_of_several_files_of_a_name_is_taken(tmp_path):
    for place in ("b/x.mp4", "a/x.webm", "a/.hidden.mp4", "a/notes.txt"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(b"")
    assert videos_below(tmp_path) == {"x": tmp_path / "a" / "x.webm"}
