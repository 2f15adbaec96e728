import dataclasses
import json
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from raccoon_datamodules.examine.stats import MEASURES, DataStats, gather
from raccoon_datamodules.examine.stats_plots import draw, prepare
from raccoon_datamodules.examine.stats_text import sparkline, table
from raccoon_datamodules.masks import boxes_of
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.sample import encode
from raccoon_datamodules.writer import write_encoded, write_shards


def test_the_numbers_are_those_of_the_samples(make_sample, tmp_path):
    sample = make_sample(num_objects=2)
    mask = np.zeros((4, 16, 16), np.uint8)
    mask[1:3, :4, :8] = 1
    first = dataclasses.replace(sample.objects[0], mask=mask, boxes=boxes_of(mask), inpainted=None)
    sample = dataclasses.replace(sample, objects=(first, sample.objects[1]))
    write_shards([sample], tmp_path)
    stats = gather([tmp_path])
    values = {name: stats.array(name).tolist() for name in MEASURES if name != "megabytes"}
    assert values == {
        "frames": [4],
        "fps": [8],
        "seconds": [0.5],
        "objects": [2],
        # 32 of 256 pixels where it is seen, and 35.
        "area": [12.5, 100 * 35 / 256],
        "visible": [50, 75],
        # "Scene 0 with things." and twice a name of two words with seven words of description.
        "paragraph_words": [4 + 2 * (2 + 7)],
        "description_words": [4],
        "object_words": [7, 7],
        "phrasings": [1],
        "edits": [1],
    }
    assert stats.counts == {"size": Counter({"16x16": 1}), "category": Counter(thing=2), "edit": Counter(remove=1)}
    assert (stats.num_clips, stats.num_objects, stats.num_inpainted, stats.num_unreadable) == (1, 2, 1, 0)


def test_no_clip_and_no_mask_is_read(shards, monkeypatch):
    read = []
    from raccoon_datamodules.sources import ShardSource

    real = ShardSource.read

    def watched(self, shard, sample, wanted=None, /):
        read.extend(wanted)
        return real(self, shard, sample, wanted)

    monkeypatch.setattr(ShardSource, "read", watched)
    assert gather([shards]).num_clips == 10
    assert {name.rpartition(".")[2] for name in read} == {"json"}


def test_shards_behind_an_address_are_read_by_their_records_alone(shards, serve):
    server = serve(shards)
    stats = gather([server.address])
    assert {name: stats.array(name).tolist() for name in MEASURES} == {
        name: gather([shards]).array(name).tolist() for name in MEASURES
    }
    assert all(asked for path, asked in server.asked if path.endswith(".tar"))


def test_several_folders_are_taken_together(shards, make_shards, tmp_path):
    other = make_shards(tmp_path / "val", 3, first=30, split="val")
    seen = []
    stats = gather([shards, other], progress=lambda done, total: seen.append((done, total)))
    assert stats.folders == {str(shards): 10, str(other): 3}
    assert stats.splits == {str(shards): "train", str(other): "val"}
    assert (stats.num_clips, seen[-1]) == (13, (13, 13))
    assert f"{other} (val)" in table(stats)


def test_what_nobody_has_described_has_no_words(make_sample, tmp_path):
    told, untold = make_sample(0), make_sample(1)
    record = dataclasses.replace(untold.objects[0], description="")
    paragraph = Paragraph("", (ObjectDescription("Thing 1", ""),))
    untold = dataclasses.replace(untold, paragraph=paragraph, objects=(record,), edits=(), phrasings=())
    write_shards([told, untold], tmp_path)
    stats = gather([tmp_path])
    assert stats.array("paragraph_words").tolist() == [4 + 2 + 7]
    assert stats.array("object_words").tolist() == [7]
    assert (stats.num_clips, stats.num_described, stats.num_objects, stats.num_described_objects) == (2, 1, 2, 1)
    lines = [line.split() for line in table(stats).splitlines()]
    assert lines.count(["of", "them", "described", "1"]) == 2


def test_one_value_has_one_bar(shards):
    found = gather([shards]).summary("seconds")
    assert (found.counts, found.edges) == ((10,), (0.0, 1.0))


def test_a_folder_under_two_names_is_one(shards):
    with pytest.raises(ValueError, match="each folder must be named once"):
        gather([shards, f"{shards}/"])


def test_names_cannot_write_to_the_terminal(make_sample, tmp_path):
    sample = make_sample()
    record = dataclasses.replace(sample.objects[0], category="car\x1b[2J\n")
    write_shards([dataclasses.replace(sample, objects=(record,))], tmp_path)
    text = table(gather([tmp_path]))
    assert "\x1b" not in text
    assert r"car\x1b[2J\n" in text


def test_a_summary_is_what_numpy_says():
    stats = DataStats()
    values = np.random.default_rng(0).exponential(3.0, 1000)
    stats.values["seconds"].extend(values)
    found = stats.summary("seconds")
    assert found.mean == pytest.approx(values.mean())
    assert (found.min, found.median, found.max) == (values.min(), np.median(values), values.max())
    assert [found.p5, found.p95] == np.percentile(values, (5, 95)).tolist()
    assert sum(found.counts) == found.count == 1000
    assert (found.edges[0], found.edges[-1], len(found.edges)) == (values.min(), values.max(), 17)


@pytest.mark.parametrize(("top", "bins"), [(3, 3), (16, 16), (17, 9), (100, 15)])
def test_bins_of_whole_numbers_hold_equally_many(top, bins):
    stats = DataStats()
    stats.values["frames"].extend(range(1, top + 1))
    found = stats.summary("frames")
    widths = np.diff(found.edges)
    assert len(found.counts) == bins
    assert set(widths) == {widths[0]}
    assert set(found.counts[:-1]) == {widths[0]}
    assert sum(found.counts) == top


def test_a_measure_of_nothing_has_no_summary():
    assert DataStats().summary("area") is None
    assert DataStats().to_json()["distributions"]["area"] is None


def test_a_sample_that_cannot_be_read_is_counted_and_named(make_sample, tmp_path):
    good, bad = encode(make_sample(0)), {**encode(make_sample(1)), "paragraph.json": b"{"}
    bad["meta.json"] = bad["meta.json"].replace(b"clip-0001", b"b")
    write_encoded([("clip-0000", good), ("b", bad)], tmp_path)
    stats = gather([tmp_path])
    assert (stats.num_clips, stats.num_unreadable) == (1, 1)
    assert stats.unreadable[0].startswith(f"{tmp_path}: vplm-train-000000.tar: b: paragraph.json: must be JSON")
    assert len({len(stats.values[name]) for name in ("frames", "paragraph_words", "edits")}) == 1
    assert "1 sample could not be read:" in table(stats)


def test_a_folder_is_named_once(shards):
    with pytest.raises(ValueError, match="each folder must be named once, got"):
        gather([shards, shards])


def test_the_table_fits_a_terminal_and_holds_the_papers_figures(shards):
    text = table(gather([shards]))
    assert max(map(len, text.splitlines())) <= 120
    assert "7.2K" in text
    assert any(line.startswith("words per paragraph") and " 238.0 " in line for line in text.splitlines())
    assert any(line.startswith("words per object") and " 37.2 " in line for line in text.splitlines())


def test_rare_categories_are_one_line(make_sample, tmp_path):
    samples = []
    for number in range(15):
        sample = make_sample(number)
        record = dataclasses.replace(sample.objects[0], category=f"{'long ' * 12}kind {number}")
        samples.append(dataclasses.replace(sample, objects=(record,)))
    write_shards(samples, tmp_path)
    text = table(gather([tmp_path]))
    assert "object category (15 different)" in text
    assert "3 others" in text
    assert max(map(len, text.splitlines())) <= 120


def test_a_sparkline_shows_none_least_and_most():
    assert sparkline((0, 1, 50, 100)) == " ▁▄█"
    assert sparkline(()) == ""


def test_everything_is_plain_json(shards):
    answer = json.loads(json.dumps(gather([shards]).to_json(), allow_nan=False))
    assert answer["distributions"]["frames"]["histogram"]["counts"] == [10]
    assert answer["paper"]["mean_paragraph_words"] == 238.0
    assert answer["folders"] == [{"folder": str(shards), "split": "train", "clips": 10}]


def test_plots_are_drawn_and_replaced_only_when_told(make_sample, tmp_path):
    paragraph = Paragraph("A $5 note.", (ObjectDescription("Thing 1", "It costs $5."),))
    sample = make_sample()
    record = dataclasses.replace(sample.objects[0], category="$a_b$ " * 8)
    write_shards([dataclasses.replace(sample, paragraph=paragraph, objects=(record,), edits=())], tmp_path / "set")
    stats = gather([tmp_path / "set"])
    draw(stats, prepare(tmp_path / "plots"))
    for name in ("distributions", "counts"):
        with Image.open(tmp_path / "plots" / f"{name}.png") as picture:
            assert min(picture.size) > 300
            assert len(picture.convert("L").getcolors()) > 10
    with pytest.raises(FileExistsError, match="--overwrite"):
        prepare(tmp_path / "plots")
    draw(stats, prepare(tmp_path / "plots", overwrite=True), overwrite=True)


def test_plots_of_what_has_no_text_and_no_edits_are_drawn(make_sample, tmp_path):
    sample = make_sample()
    write_shards(
        [dataclasses.replace(sample, paragraph=Paragraph("", ()), objects=(), edits=(), phrasings=())], tmp_path / "a"
    )
    files = prepare(tmp_path / "plots")
    draw(gather([tmp_path / "a"]), files)
    with Image.open(files["counts"]) as picture:
        # One panel of three: of objects and edits there are none.
        assert picture.width < picture.height


def test_a_file_in_the_place_of_the_plots_folder_is_refused(tmp_path):
    (tmp_path / "plots").write_text("")
    with pytest.raises(FileExistsError, match=r"plots are drawn into a folder, but .*plots is a file"):
        prepare(tmp_path / "plots")


def test_without_matplotlib_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'raccoon-video\[eval\]'"):
        prepare(tmp_path / "plots")
    assert not (tmp_path / "plots").exists()
