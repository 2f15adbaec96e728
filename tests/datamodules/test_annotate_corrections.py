import json
import re

import pytest

from raccoon_datamodules.annotate.corrections import (
    Corrections,
    entry,
    load_corrections,
    reviewed_key,
    reviewed_keys,
    save_template,
)
from raccoon_datamodules.annotate.statistics import PAPER, beside_paper, describe_statistics, paragraph_words
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph


def correct(path, **changes):
    content = json.loads(path.read_text())
    content["videos"][0].update(changes)
    path.write_text(json.dumps(content))


def test_one_video_of_every_hundred_is_set_aside():
    keys = [f"k{i}" for i in range(250)]
    chosen = reviewed_keys(keys, set(keys))
    assert [keys.index(key) // 100 for key in chosen] == [0, 1, 2]
    assert reviewed_keys(keys, set(keys)) == chosen
    without = set(keys) - {chosen[1]}
    assert reviewed_keys(keys, without)[1] != chosen[1]
    assert reviewed_keys(keys, set(keys[:100])) == chosen[:1]


def test_more_videos_leave_the_earlier_choices_alone():
    keys = [f"k{i}" for i in range(300)]
    assert reviewed_keys(keys, keys)[:2] == reviewed_keys(keys[:200], keys[:200])


def test_a_choice_needs_a_key():
    with pytest.raises(ValueError, match="at least one key, got none"):
        reviewed_key([])


def test_a_text_follows_the_models_new_answer_until_somebody_touches_it(tmp_path):
    old, new = Paragraph("Old.", (ObjectDescription("A", "a"),)), Paragraph("New.", (ObjectDescription("A", "a"),))
    path = tmp_path / "corrections.json"
    save_template(path, {"k": old})
    correct(path, wish="More.")
    (value,) = save_template(path, {"k": new}, [path])
    assert value == {**entry("k", new), "wish": "More."}
    correct(path, text=["Video Description: Mine.", "Object Descriptions:", "1. A: b"])
    (value,) = save_template(path, {"k": old}, [path])
    assert value["text"][0] == "Video Description: Mine."


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("x", "are not JSON"),
        ("{}", "must hold .*raccoon-vplm-corrections"),
        ({"videos": [{"text": ""}]}, "a list of entries, each with a key"),
        ({"videos": [{"key": "z"}]}, "entry 1: the data set has no video 'z'"),
        ({"videos": [{"key": "a"}, {"key": "a"}]}, "entry 2: there is another entry for a"),
        ({"videos": [{"key": "a", "txt": ""}]}, "a: there is no field 'txt'; use key, text"),
        ({"videos": [{"key": "a", "text": 3}]}, "a: text must be a string or a list of lines"),
        ({"videos": [{"key": "a", "replace": {"": "x"}}]}, "a: replace must map words to words"),
        (
            {"videos": [{"key": "a", "text": "hello"}, {"key": "z"}]},
            "entry 1: a: the list of objects is missing.*entry 2",
        ),
    ],
    ids=str,
)
def test_wrong_corrections_are_named(tmp_path, content, sentence):
    path = tmp_path / "c.json"
    if isinstance(content, dict):
        content = json.dumps({"format": "raccoon-vplm-corrections", "version": 1, **content})
    path.write_text(content)
    with pytest.raises(ValueError, match=sentence):
        load_corrections([path], ["a", "b"])


def test_corrections_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there are no corrections at .*nothing\.json"):
        load_corrections([tmp_path / "nothing.json"], ["a"])


def test_without_corrections_nobody_wishes_anything():
    known = Corrections(["a"])
    assert known.text("a") is None
    assert known.wish("a") is None


# statistics


def test_words_are_counted_without_headings_and_numbers():
    assert paragraph_words(Paragraph("One two.", (ObjectDescription("Big Dog", "three four five"),))) == 7


def test_statistics_leave_out_empty_texts():
    told = Paragraph("One two three four.", (ObjectDescription("Dog", "brown"),))
    found = describe_statistics([(told, ["brown and fast", ""]), (Paragraph(""), [""])])
    assert (found.num_videos, found.words_per_paragraph, found.num_objects, found.words_per_object) == (1, 6.0, 1, 3.0)
    assert describe_statistics([]).words_per_paragraph == 0.0


def test_the_papers_figures_stand_beside_ours():
    table = beside_paper(PAPER)
    assert re.search(r"words per video +238\.0 +238\.0", table)
    assert re.search(r"objects with a mask +5500 +5\.5K", table)
