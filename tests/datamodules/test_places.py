import pytest

from raccoon_datamodules.places import is_url, join, kind_of, split_index


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("data/train", "folder"),
        ("C:/data", "folder"),
        ("http://a/b", "http"),
        ("HTTPS://a", "http"),
        ("s3://bucket/x", "store"),
        ("simplecache::gs://bucket/x", "store"),
        ("pipe:cat {name}", "pipe"),
    ],
)
def test_places_are_told_apart(place, kind):
    assert kind_of(place) == kind
    assert is_url(place) == (kind != "folder")


def test_a_path_is_a_folder_whatever_its_name(tmp_path):
    assert kind_of(tmp_path / "pipe:x") == "folder"


def test_a_file_lies_beside_others():
    assert join("data", "a.tar") == "data/a.tar"
    assert join("http://a/b/", "c.tar") == "http://a/b/c.tar"
    assert join("s3://a/b", "c.tar") == "s3://a/b/c.tar"
    assert join("pipe:ssh host cat data/{name}", "c.tar") == "pipe:ssh host cat data/c.tar"


def test_a_name_is_one_word_of_a_command():
    assert join("pipe:cat {name}", "a b; rm -r x.tar") == "pipe:cat 'a b; rm -r x.tar'"


def test_a_name_cannot_be_an_option_of_a_command():
    with pytest.raises(ValueError, match=r"starts with a dash \(-rf\.tar\) is never given to a command"):
        join("pipe:cat {name}", "-rf.tar")


def test_a_pipe_must_say_where_the_name_goes():
    with pytest.raises(ValueError, match=r"a pipe must hold \{name\} where the file's name goes"):
        join("pipe:cat x.tar", "x.tar")


@pytest.mark.parametrize(
    ("place", "base", "name"),
    [
        ("data", "data", "index.json"),
        ("data/mine.json", "data", "mine.json"),
        ("index.json", ".", "index.json"),
        ("/index.json", "/", "index.json"),
        ("http://a/b/index.json", "http://a/b", "index.json"),
        ("pipe:cat {name} > /tmp/x.json", "pipe:cat {name} > /tmp/x.json", "index.json"),
    ],
)
def test_an_index_may_be_named_itself(place, base, name):
    assert split_index(place) == (base, name)
