import errno
import os

import pytest

from raccoon_datamodules import atomic
from raccoon_datamodules.atomic import check_writable, is_locked, locked, replacing, share_lock


def test_a_file_takes_its_name_only_at_the_end(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("old")
    with replacing(path, overwrite=True) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".mp4"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_failure_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.mp4"
    path.write_text("old")

    def work(temporary):
        temporary.write_text("half")
        raise error

    with pytest.raises(error), replacing(path, overwrite=True) as temporary:
        work(temporary)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    path = tmp_path / "a.mp4"
    with pytest.raises(FileExistsError, match="appeared while it was being written"), replacing(path):
        path.write_text("somebody else's")
    assert path.read_text() == "somebody else's"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "error", "match"),
    [
        (errno.EACCES, PermissionError, "no permission to write in"),
        (errno.ENOSPC, OSError, "no room left to write"),
        (errno.EROFS, OSError, "cannot write .*Read-only"),
    ],
)
def test_a_place_that_cannot_be_written_is_found_before_any_work(tmp_path, monkeypatch, number, error, match):
    def refused(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(error, match=match), replacing(tmp_path / "a.mp4"):
        pytest.fail("no work may be done")


def test_a_folder_that_may_not_be_written_is_found_without_making_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(PermissionError, match=f"no permission to write in {tmp_path}: choose another folder"):
        check_writable(tmp_path / "a.mp4")


def test_a_lock_is_seen_by_others_until_it_is_let_go(tmp_path):
    path = tmp_path / "x"
    path.touch()
    assert not is_locked(path)
    handle = os.open(path, os.O_RDWR)
    with locked(handle):
        assert is_locked(path)
    assert not is_locked(path)
    share_lock(handle)
    assert is_locked(path)
    os.close(handle)
    assert not is_locked(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        is_locked(tmp_path / "nowhere")


def test_where_there_are_no_locks_work_goes_on(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.touch()
    handle = os.open(path, os.O_RDWR)

    def refused(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(atomic.fcntl, "flock", refused)
    with locked(handle):
        share_lock(handle)
    assert is_locked(path)
    monkeypatch.setattr(atomic, "fcntl", None)
    with locked(handle):
        share_lock(handle)
    assert is_locked(path)
    os.close(handle)
