"""Finding source videos, and what is in the folders besides."""

import json
import os
import shutil
import unicodedata
from dataclasses import replace

import pytest
from PIL import Image

from raccoon_datamodules.build.folders import scan_davis, scan_rovi, scan_videos
from raccoon_datamodules.build.metadata import Metadata, read_metadata


def reasons(scan):
    return sorted((f.reason, f.video or f.item) for f in scan.findings)


def test_rovi_s_three_trees(tmp_path, put_video):
    put_video(tmp_path, "b", inpainted=(1,))
    put_video(tmp_path, "a", every=5)
    scan = scan_rovi(tmp_path)
    assert [v.name for v in scan.videos] == ["a", "b"]
    a, b = scan.videos
    assert (len(a.frames), len(a.masks[""]), a.inpainted) == (6, 2, {})
    assert list(b.inpainted) == ["1"]
    assert b.frames[0] == "JPEGImages/b/00000.jpg"
    assert scan.findings == []


def test_rovi_may_lie_in_a_folder_called_data_and_need_not_be_inpainted(tmp_path, put_video):
    put_video(tmp_path / "data", "a")
    scan = scan_rovi(tmp_path)
    assert [v.name for v in scan.videos] == ["a"]
    assert reasons(scan) == [("no InpaintImages folder", "InpaintImages")]


def test_videos_without_annotation_and_annotation_without_videos_are_named(tmp_path, put_video):
    for name in ("a", "b", "c"):
        put_video(tmp_path, name, inpainted=(1,))
    shutil.rmtree(tmp_path / "Annotations/a")
    shutil.rmtree(tmp_path / "JPEGImages/b")
    (tmp_path / "JPEGImages/empty").mkdir()
    scan = scan_rovi(tmp_path)
    assert [v.name for v in scan.videos] == ["c"]
    assert reasons(scan) == [
        ("annotation without a video", "b"),
        ("empty folder", "empty"),
        ("inpainted pictures without a video", "b"),
        ("no annotation", "a"),
    ]


def test_hidden_files_are_no_frames(tmp_path, put_video):
    put_video(tmp_path, "a")
    (tmp_path / "JPEGImages/a/.00000.jpg").write_bytes(b"")
    (tmp_path / "JPEGImages/.cache").mkdir()
    scan = scan_rovi(tmp_path)
    assert len(scan.videos[0].frames) == 6
    assert len(scan.videos) == 1


def test_frames_are_in_natural_order(tmp_path):
    for n in (1, 2, 10):
        for tree, ending in (("JPEGImages", "jpg"), ("Annotations", "png")):
            (tmp_path / tree / "a").mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4)).save(tmp_path / tree / "a" / f"{n}.{ending}")
    assert [f.rpartition("/")[2] for f in scan_rovi(tmp_path).videos[0].frames] == ["1.jpg", "2.jpg", "10.jpg"]


def test_a_place_that_is_no_rovi_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="must hold the folder JPEGImages of the ROVI layout"):
        scan_rovi(tmp_path)


def move_to_resolution(root, name):
    for tree in ("JPEGImages", "Annotations"):
        (root / tree).rename(root / "moving")
        (root / tree).mkdir()
        (root / "moving").rename(root / tree / name)


def test_davis_with_one_resolution_and_a_choice_of_two(tmp_path, put_video):
    put_video(tmp_path, "bear")
    move_to_resolution(tmp_path, "480p")
    assert [v.name for v in scan_davis(tmp_path).videos] == ["bear"]
    shutil.copytree(tmp_path / "JPEGImages/480p", tmp_path / "JPEGImages/Full")
    with pytest.raises(ValueError, match="holds the resolutions 480p, Full: choose one"):
        scan_davis(tmp_path)
    assert scan_davis(tmp_path, resolution="480p").videos[0].path == "JPEGImages/480p/bear"
    with pytest.raises(FileNotFoundError, match="must hold the folder Full of the DAVIS layout"):
        scan_davis(tmp_path, resolution="Full")


def test_davis_without_resolutions_and_an_empty_one(tmp_path, put_video):
    put_video(tmp_path, "bear")
    assert [v.name for v in scan_davis(tmp_path).videos] == ["bear"]
    shutil.rmtree(tmp_path / "JPEGImages")
    (tmp_path / "JPEGImages").mkdir()
    with pytest.raises(FileNotFoundError, match="must hold a folder for each resolution"):
        scan_davis(tmp_path)


def test_any_videos_in_any_depth(tmp_path):
    for name in ("a.mp4", "deep/b.MOV", "deep/b.v2.mkv", "notes.txt", "frames/0.jpg"):
        path = tmp_path / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "clips/loose.png").write_bytes(b"")
    scan = scan_videos(tmp_path / "clips")
    assert [(v.name, v.video) for v in scan.videos] == [
        ("a", "a.mp4"),
        ("deep/b", "deep/b.MOV"),
        ("deep/b.v2", "deep/b.v2.mkv"),
        ("frames", None),
    ]
    assert reasons(scan) == [
        ("neither video nor picture", "notes.txt"),
        ("pictures outside a video's folder", "loose.png"),
    ]
    assert len({v.key for v in scan.videos}) == 4


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs os.mkfifo")
def test_broken_links_and_pipes_are_named_and_not_opened(tmp_path):
    (tmp_path / "a.mp4").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "b.mp4")
    scan = scan_videos(tmp_path)
    assert scan.videos == []
    assert reasons(scan) == [("no file", "a"), ("no file", "b")]


def test_two_files_of_one_name_are_not_both_used(tmp_path):
    for name in ("a.mkv", "a.mp4"):
        (tmp_path / name).write_bytes(b"")
    scan = scan_videos(tmp_path)
    assert [v.video for v in scan.videos] == ["a.mkv"]
    assert reasons(scan) == [("name taken by another video", "a")]


def test_masks_beside_or_inside_the_folder_of_videos(tmp_path, put_video):
    put_video(tmp_path, "a")
    scan = scan_videos(tmp_path / "JPEGImages", masks=tmp_path / "Annotations")
    assert scan.videos[0].masks[""][0] == "Annotations/a/00000.png"
    scan = scan_videos(tmp_path, masks=tmp_path / "Annotations")
    assert [f.reason for f in scan.findings] == ["no annotation", "annotation without a video"]


def test_a_folder_of_masks_for_each_object(tmp_path, put_video):
    put_video(tmp_path, "a")
    for name in ("1", "cat.left"):
        shutil.copytree(tmp_path / "Annotations/a", tmp_path / "masks/a" / name)
    (tmp_path / "masks/a/empty").mkdir()
    (video,) = scan_videos(tmp_path / "JPEGImages", masks=tmp_path / "masks").videos
    assert sorted(video.masks) == ["1", "cat.left"]
    plain = sorted(video.with_plain_ids().masks)
    assert plain[0] == "1"
    assert plain[1].startswith("cat_left-")


def test_masks_in_two_places_are_named(tmp_path, put_video):
    put_video(tmp_path, "a")
    shutil.copytree(tmp_path / "Annotations/a", tmp_path / "Annotations/a/1")
    (video,) = scan_rovi(tmp_path).videos
    assert list(video.masks) == [""]
    assert [f.reason for f in video.findings] == ["masks in two places"]


def test_an_empty_folder_of_inpainted_pictures_is_named(tmp_path, put_video):
    put_video(tmp_path, "a", inpainted=(1,))
    (tmp_path / "InpaintImages/a/2").mkdir()
    (video,) = scan_rovi(tmp_path).videos
    assert list(video.inpainted) == ["1"]
    assert [(f.reason, f.item) for f in video.findings] == [("empty folder", "2")]


def test_names_of_any_letters_meet(tmp_path, put_video):
    put_video(tmp_path, unicodedata.normalize("NFC", "Bär.v1"))
    (tmp_path / "Annotations" / "Bär.v1").rename(tmp_path / "Annotations" / unicodedata.normalize("NFD", "Bär.v1"))
    (video,) = scan_rovi(tmp_path).videos
    assert video.name == unicodedata.normalize("NFC", "Bär.v1")
    assert video.key.startswith("B_r_v1-")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the folder .*masks is not there: check the name"):
        scan_videos(tmp_path, masks=tmp_path / "masks")


def test_identity_follows_files_and_words_and_content_only_bytes(tmp_path, put_video):
    put_video(tmp_path, "a")
    (video,) = scan_rovi(tmp_path).videos
    identity, content = video.identity(), video.content()
    assert scan_rovi(tmp_path).videos[0].identity() == identity
    os.utime(tmp_path / "JPEGImages/a/00000.jpg", (1, 1))
    assert video.identity() != identity
    assert video.content() == content
    assert replace(video, paragraphs=("New.",)).content() != content


META = {"videos": {"a": {"objects": {"1": {"category": "giant_panda", "frames": []}, "2": {"category": "person"}}}}}
EXPRESSIONS = {"videos": {"a": {"expressions": {"0": {"exp": "the left one ", "obj_id": 1}}, "frames": []}}}


def test_metadata_of_several_data_sets(tmp_path):
    files = []
    for n, value in enumerate((META, EXPRESSIONS, {"b": {"1": "bear"}})):
        files.append(tmp_path / f"{n}.json")
        files[-1].write_text(json.dumps(value))
    found = read_metadata(files)
    assert found.categories == {"a": {"1": "giant_panda", "2": "person"}, "b": {"1": "bear"}}
    assert found.expressions == {"a": {"1": ("the left one",)}}


def test_every_video_of_a_metadata_file_is_read(tmp_path):
    videos = {name: {"objects": {"1": {"category": f"class of {name}"}}} for name in ("bear", "dog", "tennis")}
    (tmp_path / "meta.json").write_text(json.dumps({"videos": videos}))
    found = read_metadata([tmp_path / "meta.json"]).categories
    assert found == {name: {"1": f"class of {name}"} for name in videos}


def test_metadata_reaches_the_videos(tmp_path, put_video):
    put_video(tmp_path, "a")
    scan = scan_rovi(tmp_path, metadata=Metadata({"a": {"1": "dog"}}, {"a": {"1": ("left",)}}))
    assert scan.videos[0].categories == {"1": "dog"}
    assert scan.videos[0].expressions == {"1": ("left",)}


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "must be JSON"), ("[]", "must name classes"), ('{"videos": {"a": 1}}', "must name classes")],
)
def test_metadata_of_no_known_form_is_refused(tmp_path, text, message):
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_metadata([tmp_path / "meta.json"])


def test_missing_metadata_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no metadata file"):
        read_metadata([tmp_path / "meta.json"])
