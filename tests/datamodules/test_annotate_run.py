import base64
import json
import re
import threading

import cv2
import numpy as np
import pytest

from raccoon_datamodules import members
from raccoon_datamodules.annotate import run as annotate_run
from raccoon_datamodules.annotate.annotator import AnnotateSettings, Annotator
from raccoon_datamodules.annotate.chat import ChatError, ChatStopped
from raccoon_datamodules.annotate.chat_cache import CachedChat
from raccoon_datamodules.annotate.estimate import estimate_run, plain_count
from raccoon_datamodules.annotate.members import is_described
from raccoon_datamodules.annotate.run import DatasetAnnotator
from raccoon_datamodules.examine.check import check_shards
from raccoon_datamodules.masks import boxes_of
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.sample import ObjectRecord, VplmSample, encode
from raccoon_datamodules.sources import ShardSource
from raccoon_datamodules.video import Video
from raccoon_datamodules.view import MemberView
from raccoon_datamodules.writer import write_encoded, write_shards

ANSWER = "Video Description: A scene.\n\nObject Descriptions:\n1. Red Box: A box of red wood.\n2. Sky: Blue."


class Model:
    """Answers sensibly; ``fails`` maps a picture's number (in order of asking) to an exception or a text."""

    def __init__(self, fails=None, answer=ANSWER):
        self.fails = fails or {}
        self.answer = answer
        self.asked = []
        self.lock = threading.Lock()

    def chat(self, images, text):
        with self.lock:
            number = len(self.asked)
            self.asked.append(text)
        if number in self.fails:
            if isinstance(self.fails[number], Exception):
                raise self.fails[number]
            return self.fails[number]
        return "A" if "one letter" in text else self.answer


def unannotated(number, *, category="box", description=""):
    rng = np.random.default_rng(number)
    video = Video.from_frames(rng.integers(0, 255, (4, 16, 16, 3), dtype=np.uint8), 8.0)
    mask = np.zeros((4, 16, 16), np.uint8)
    mask[:, 2:9, 3:9] = 1
    record = ObjectRecord("1", "Box", category, description, mask, boxes_of(mask), video)
    paragraph = Paragraph(description, (ObjectDescription("Box", description),))
    return VplmSample(f"clip-{number}", video, paragraph, (record,), (), (), {"annotation": "none", "licence": "CC0"})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built") / "train"
    write_shards([unannotated(i) for i in range(5)], folder, split="train", samples_per_shard=2)
    return folder


@pytest.fixture
def run(tmp_path, data):
    def go(model, *, out="out", jobs=1, data=data, settings=None, **options):
        chat = CachedChat(model, tmp_path / "cache", identity={"model": "m"})
        annotator = Annotator(chat, AnnotateSettings(**(settings or {})))
        return DatasetAnnotator(data, tmp_path / out, annotator, by={"model": "m"}, **options).run(jobs=jobs)

    return go


def texts(folder):
    source = ShardSource(folder)
    views = [source.view(shard, i) for shard, size in enumerate(source.shard_sizes) for i in range(size)]
    return {view.key: view for view in views}


def test_a_data_set_is_annotated_and_sound(run, tmp_path, data):
    report = run(Model())
    assert report.is_complete
    assert (report.num_annotated, report.num_sent) == (5, 6)
    assert check_shards(tmp_path / "out").ok
    views = texts(tmp_path / "out")
    assert list(views) == [f"clip-{i}" for i in range(5)]
    assert views["clip-3"].paragraphs()[0].names == ("Red Box", "Sky")
    info = views["clip-3"].object("1")
    assert (info.name, info.description, info.category) == ("Red Box", "A box of red wood.", "box")
    assert views["clip-3"].meta.extra == {"annotation": {"model": "m", "corrected": False}, "licence": "CC0"}


def test_clips_and_masks_keep_their_bytes(run, tmp_path, data):
    run(Model())
    before, after = texts(data)["clip-2"], texts(tmp_path / "out")["clip-2"]
    for suffix in ("video.mp4", "mask-1.npz", "inpainted-1.mp4"):
        assert before.bytes_of(suffix) == after.bytes_of(suffix)


def test_several_jobs_give_the_same_bytes_as_one(run, tmp_path):
    run(Model(), out="one")
    run(Model(), out="three", jobs=3)
    files = [sorted((tmp_path / name).glob("*.tar")) for name in ("one", "three")]
    assert [f.read_bytes() for f in files[0]] == [f.read_bytes() for f in files[1]]


def test_a_mask_without_a_caption_is_left_out_or_kept_if_asked(run, tmp_path):
    report = run(Model(answer=ANSWER.replace("box", "tub"), fails={1: "C"}), out="dropped")
    assert report.unmatched["clip-0"] == ["1"]
    view = texts(tmp_path / "dropped")["clip-0"]
    assert view.meta.objects == ()
    assert not view.has("mask-1.npz")
    run(Model(), out="kept", keep_unmatched=True)
    view = texts(tmp_path / "kept")["clip-0"]
    assert view.paragraphs()[0].names == ("Red Box", "Sky", "Box")
    assert view.object("1").name == "Box"
    assert check_shards(tmp_path / "kept").ok


def test_failed_videos_are_left_out_and_told_in_stored_order(run, tmp_path):
    report = run(Model(fails={0: ChatError("status 500"), 3: "x", 4: "x", 5: "x"}))
    assert list(report.failed) == ["clip-0", "clip-2"]
    assert report.failed["clip-0"] == "status 500"
    assert "no usable answer in 3 attempts" in report.failed["clip-2"]
    assert list(texts(tmp_path / "out")) == ["clip-1", "clip-3", "clip-4"]
    written = json.loads((tmp_path / "out/annotation/report.json").read_text())
    assert not written["complete"]
    assert [item["key"] for item in written["failed"]] == ["clip-0", "clip-2"]


def test_a_second_run_asks_only_for_what_failed_and_needs_no_overwrite(run, tmp_path):
    run(Model(fails={0: ChatError("status 500")}))
    model = Model()
    report = run(model)
    assert report.is_complete
    assert len(model.asked) == 1
    assert len(texts(tmp_path / "out")) == 5


def test_what_is_done_is_written_when_the_run_stops_early(run, tmp_path):
    report = run(Model(fails={4: ChatStopped("the spending limit is reached")}))
    assert report.stopped == "the spending limit is reached"
    assert report.num_annotated == len(texts(tmp_path / "out")) == 3
    assert not report.failed


def test_a_run_that_could_ask_nothing_writes_nothing(run, tmp_path):
    with pytest.raises(ChatStopped, match="no key"):
        run(Model(fails={0: ChatStopped("no key")}))
    assert not (tmp_path / "out").exists()


def test_a_run_in_which_every_video_failed_says_why(run):
    with pytest.raises(RuntimeError, match="none of 5 videos could be annotated; clip-0: no usable answer"):
        run(Model(answer="no"))


def test_many_failures_in_a_row_stop_the_run(run, monkeypatch):
    monkeypatch.setattr(annotate_run, "MAX_FAILED_IN_A_ROW", 2)
    report = run(Model(fails={n: ChatError("status 500") for n in range(2, 50)}))
    assert re.match("2 videos in a row got no answer; the last: .*status 500", report.stopped)
    assert report.num_annotated == 1


def test_many_unusable_answers_in_a_row_stop_the_run_and_do_not_stop_it_again(run, monkeypatch):
    monkeypatch.setattr(annotate_run, "MAX_FAILED_IN_A_ROW", 2)
    said = "2 videos in a row got no usable answer; the last: clip-1: .* begins with 'I am a teapot'"
    with pytest.raises(ChatStopped, match=said):
        run(Model(answer="I am a teapot"))
    # They are known now and cost nothing, so that the rest has its turn.
    report = run(Model())
    assert list(report.failed) == ["clip-0", "clip-1"]
    assert (report.num_annotated, report.stopped) == (3, "")


def test_a_run_that_stops_early_leaves_a_longer_one_alone(run, tmp_path):
    run(Model())
    before = (tmp_path / "out/index.json").read_bytes()
    # Other pictures, so that all of it is asked again.
    fails, settings = {3: ChatStopped("the limit is reached")}, {"num_frames": 2}
    with pytest.raises(ChatStopped, match=r"the limit is reached; 3 videos .* fewer than the 5 that an earlier run"):
        run(Model(fails=fails), settings=settings)
    assert (tmp_path / "out/index.json").read_bytes() == before


def test_an_unreadable_sample_fails_alone(run, tmp_path, data):
    broken = tmp_path / "broken"
    write_shards([unannotated(i) for i in range(3)], broken, split="train")
    tar = next(broken.glob("*.tar"))
    member = next(m for m in ShardSource(broken).index.shards[0].members(1) if m.suffix == "video.mp4")
    content = bytearray(tar.read_bytes())
    content[member.offset + 50] ^= 1
    tar.write_bytes(content)
    report = run(Model(), data=broken)
    assert list(report.failed) == ["clip-1"]
    assert report.failed["clip-1"].startswith("video.mp4: its bytes do not match the checksum")


def test_videos_that_have_their_text_are_copied_unless_all_are_wanted(run, tmp_path):
    mixed = tmp_path / "mixed"
    told = unannotated(1, description="told")
    told.meta.pop("annotation")
    write_shards([unannotated(0), told], mixed, split="train")
    report = run(Model(), data=mixed)
    assert (report.num_annotated, report.num_kept) == (1, 1)
    assert texts(tmp_path / "out")["clip-1"].paragraphs()[0].description == "told"
    assert run(Model(), data=mixed, every=True).num_annotated == 2


def test_a_partly_told_sample_wants_annotating():
    for description, annotation, described in (
        ("x", "partial", False),
        ("x", "released", True),
        ("", "released", False),
    ):
        sample = unannotated(0, description=description)
        sample.meta["annotation"] = annotation
        assert is_described(MemberView(encode(sample))) is described


def test_the_result_goes_into_a_folder_of_its_own(run, data, tmp_path):
    with pytest.raises(ValueError, match="must go into another folder than the data"):
        run(Model(), out=data)


def test_a_file_cannot_be_the_folder(run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"must go into a folder, .*file is a file; name another"):
        run(Model(), out="file")


def test_other_shards_are_not_replaced_unasked(run, tmp_path):
    write_shards([unannotated(9)], tmp_path / "out", split="train")
    with pytest.raises(FileExistsError, match="already holds other shards"):
        run(Model())
    assert run(Model(), overwrite=True).is_complete


def test_shards_that_were_changed_by_hand_are_not_replaced_unasked(run, tmp_path):
    run(Model())
    write_shards([unannotated(9)], tmp_path / "out", split="train", overwrite=True)
    with pytest.raises(FileExistsError, match="already holds other shards"):
        run(Model())


def test_a_run_killed_before_its_report_was_written_goes_on(run, tmp_path, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(annotate_run, "write_answers", die)
    with pytest.raises(KeyboardInterrupt):
        run(Model())
    assert (tmp_path / "out/index.json").exists()
    monkeypatch.undo()
    model = Model()
    assert run(model).is_complete
    assert not model.asked


def test_every_raw_answer_is_stored(run, tmp_path):
    run(Model(fails={0: "nonsense"}))
    first = json.loads((tmp_path / "out/annotation/answers.jsonl").read_text().splitlines()[0])
    assert first["key"] == "clip-0"
    assert [answer["text"] for answer in first["answers"]] == ["nonsense", ANSWER, "A"]


def test_a_dry_run_counts_what_would_be_sent(run, data, tmp_path):
    chat = CachedChat(Model(), tmp_path / "cache", identity={"model": "m"})
    annotator = Annotator(chat, AnnotateSettings(edits="all"))
    found = estimate_run(data, annotator)
    assert (found.num_videos, found.num_asked, found.num_answered) == (5, 5, 0)
    assert (found.num_matches, found.num_changes, found.num_requests) == (5, 5, 15)
    assert "1. box" in found.prompt
    assert found.input_tokens > 5 * plain_count([], found.prompt)
    run(Model())
    later = estimate_run(data, annotator)
    # Captions were matched in that run; only the changes were not asked for.
    assert (later.num_answered, later.num_matches, later.num_requests) == (5, 0, 5)
    assert 0 < later.input_tokens < found.input_tokens
    run(Model(), settings={"edits": "all"})
    last = estimate_run(data, annotator)
    assert (last.num_answered, last.num_requests, last.input_tokens, last.output_tokens) == (5, 0, 0, 0)


# review and corrections


def test_the_page_holds_picture_answers_and_text_and_nothing_from_outside(run, tmp_path):
    report = run(Model(answer=ANSWER.replace("wood", "<script>alert('&')</script> wood")))
    page = (tmp_path / "out/annotation/review/index.html").read_text(encoding="utf-8")
    assert report.reviewed[0] in page
    assert page.count('src="data:image/jpeg;base64,') == 2
    assert not re.search(r"https?:", page)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(&#x27;&amp;&#x27;)" in page
    content = json.loads(re.search(r'id="entries">(.*?)</script>', page, re.DOTALL)[1])
    assert content == json.loads((tmp_path / "out/annotation/review/corrections.json").read_text())


def test_the_page_shows_each_mask_beside_its_caption(run, tmp_path, data):
    run(Model())
    page = (tmp_path / "out/annotation/review/index.html").read_text(encoding="utf-8")
    (picture,) = re.findall(r'<td><img src="data:image/jpeg;base64,([^"]*)" alt="the outline of its mask">1</td>', page)
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (16, 16, 3)


def correct(path, **changes):
    content = json.loads(path.read_text())
    content["videos"][0].update(changes)
    path.write_text(json.dumps(content))
    return content["videos"][0]["key"]


def test_untouched_corrections_change_nothing(run, tmp_path):
    run(Model())
    model = Model()
    report = run(model)
    assert report.num_corrected == 0
    assert model.asked == []


def test_a_corrected_text_flows_back_by_itself_and_stays(run, tmp_path):
    run(Model())
    path = tmp_path / "out/annotation/review/corrections.json"
    key = correct(path, text=ANSWER.replace("Red Box", "Crimson Box").split("\n"))
    for _ in range(2):
        report = run(Model())
        assert report.num_corrected == 1
        view = texts(tmp_path / "out")[key]
        assert view.object("1").name == "Crimson Box"
        assert view.meta.extra["annotation"]["corrected"]
    assert "(corrected)" in (path.parent / "index.html").read_text()


def test_what_was_left_out_of_a_corrected_text_is_told(run, tmp_path):
    run(Model())
    path = tmp_path / "out/annotation/review/corrections.json"
    key = correct(path, text=[*ANSWER.replace("Red", "Old").split("\n"), "1. Old Box: It comes twice."])
    assert "Old Box" in " ".join(run(Model()).noted[key])


def test_a_wish_asks_the_rest_of_the_hundred_again_with_the_corrected_example(run, tmp_path):
    run(Model())
    key = correct(
        tmp_path / "out/annotation/review/corrections.json",
        text=ANSWER.replace("A scene", "By hand"),
        wish="Call it a crate.",
    )
    model = Model(answer=ANSWER.replace("Red Box", "Crate"))
    run(model)
    asked = [text for text in model.asked if "Call it a crate." in text]
    assert len(asked) == 4
    assert all("By hand" in text for text in asked)
    names = {k: view.paragraphs()[0].names[0] for k, view in texts(tmp_path / "out").items()}
    assert names == {f"clip-{i}": "Crate" for i in range(5)} | {key: "Red Box"}


def test_replaced_words_cost_no_paragraph(run, tmp_path):
    run(Model())
    correct(tmp_path / "out/annotation/review/corrections.json", replace={"wood": "steel"})
    model = Model()
    run(model)
    assert all("one letter" in text for text in model.asked)
    assert {v.object("1").description for v in texts(tmp_path / "out").values()} == {"A box of red steel."}


def test_a_file_of_corrections_is_taken_over_and_kept_for_later_runs(run, tmp_path):
    run(Model())
    path = tmp_path / "mine.json"
    content = {
        "format": "raccoon-vplm-corrections",
        "version": 1,
        "videos": [{"key": "clip-1", "text": ANSWER + " By me."}],
    }
    path.write_text(json.dumps(content))
    assert run(Model(), corrections=path).num_corrected == 1
    assert run(Model()).num_corrected == 1
    assert texts(tmp_path / "out")["clip-1"].paragraphs()[0].find("Sky").description == "Blue. By me."


def test_the_report_counts_the_words_it_wrote(run):
    found = run(Model()).statistics
    assert (found.num_videos, found.words_per_paragraph) == (5, 11.0)
    assert (found.num_objects, found.words_per_object) == (5, 5.0)


def test_members_this_schema_does_not_know_are_passed_on(run, tmp_path):
    folder = tmp_path / "more"
    write_encoded([("clip-0", {**encode(unannotated(0)), "notes.txt": b"mine"})], folder)
    run(Model(), data=folder)
    assert texts(tmp_path / "out")["clip-0"].bytes_of("notes.txt") == b"mine"
    assert members.parse_suffix("notes.txt") is None
