import json

import numpy as np
import pytest

from raccoon import provenance


def sidecar(**changes):
    """The fields that are read back, of an edit of three frames."""
    return {
        "output": {"name": "out.mp4", "sha256": "0", "lossless": False},
        "source": {
            "path": "clip.mp4",
            "sha256": "0",
            "decoder": "pyav",
            "frame_indices": {"start": 0, "stop": 3, "step": 1},
            "time_span": [0.0, 0.2],
            "fps": 10.0,
            "shape": [3, 8, 8, 3],
            "frames_sha256": "0",
        },
        "plan": {},
        "edits": [],
        "result": {"frames_sha256": "0"},
        "seed": 3,
        "grow": 1,
        "feather": 1,
        "masks": [],
        **changes,
    }


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", None),
        ("seed", -1),
        ("grow", "x"),
        ("source", []),
        ("source.sha256", 3),
        ("source.time_span", [0.0]),
        ("source.frame_indices", {"start": 0, "stop": 10**12, "step": 1}),
        ("source.frame_indices", {"start": 0, "stop": 3, "step": 0}),
        ("source.frame_indices", [0, 1]),
        ("source.frame_indices", {}),
        ("output.name", "../../etc/passwd"),
        ("masks", [3]),
        ("edits", [{}]),
        ("recipe", {"config": "pipeline"}),
    ],
)
def test_a_damaged_field_is_named(tmp_path, path, value):
    content = sidecar()
    *above, last = path.split(".")
    where = content[above[0]] if above else content
    where[last] = value
    provenance.write_sidecar(content, tmp_path / "out.json")
    with pytest.raises(ValueError, match=rf"out\.json is damaged, missing or wrong are .*{path}"):
        provenance.read_sidecar(tmp_path / "out.json")


def test_a_mask_larger_than_its_bits_is_refused_before_it_is_unpacked():
    stored = provenance.mask_to_json(np.ones((1, 4, 4), np.uint8))
    with pytest.raises(ValueError, match=r"damaged \(2 bytes for the shape \[1000000, 1000000, 1000\]\)"):
        provenance.mask_from_json({**stored, "shape": [10**6, 10**6, 10**3]})


def test_the_sidecar_stands_beside_its_video(tmp_path):
    assert provenance.sidecar_path(tmp_path / "out.mp4") == tmp_path / "out.json"


def test_a_sidecar_reads_back_as_it_was_written(tmp_path):
    content = sidecar(before={"description": "Ein Bär läuft."})
    provenance.write_sidecar(content, tmp_path / "out.json")
    assert provenance.read_sidecar(tmp_path / "out.json") == {"schema": 1, **content}
    assert "Bär" in (tmp_path / "out.json").read_text(encoding="utf-8")


def test_an_option_that_json_cannot_hold_is_written_by_its_repr(tmp_path):
    provenance.write_sidecar(sidecar(options={"range": range(3)}), tmp_path / "out.json")
    assert provenance.read_sidecar(tmp_path / "out.json")["options"] == {"range": "range(0, 3)"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"is not a sidecar: it is not JSON"),
        ("[1]", r"is not a sidecar: it lacks schema, output, source"),
        (json.dumps({"schema": 1}), r"is not a sidecar: it lacks"),
        (json.dumps(sidecar(schema=9, versions={"raccoon": "7.0"})), r"has schema 9, this version reads 1.*\(7\.0\)"),
    ],
)
def test_what_is_no_sidecar_is_refused(tmp_path, text, message):
    (tmp_path / "out.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        provenance.read_sidecar(tmp_path / "out.json")


def test_a_missing_sidecar_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no sidecar .*out\.json"):
        provenance.read_sidecar(tmp_path / "out.json")


def test_a_hash_depends_on_values_shape_and_type():
    array = np.arange(6, dtype=np.uint8)
    others = [array.reshape(2, 3), array.astype(np.int8), array[::-1]]
    assert len({provenance.hash_array(item) for item in [array, *others]}) == 4
    assert provenance.hash_array(np.asfortranarray(array.reshape(2, 3))) == provenance.hash_array(array.reshape(2, 3))


def test_the_hash_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert provenance.hash_file(tmp_path / "a").startswith("ba7816bf")


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (2, 16, 16)])
def test_a_mask_survives_the_sidecar(shape):
    mask = np.random.default_rng(0).integers(0, 2, shape, dtype=np.uint8)
    stored = json.loads(json.dumps(provenance.mask_to_json(mask)))
    assert np.array_equal(provenance.mask_from_json(stored), mask)


def test_a_mask_that_was_changed_is_refused():
    stored = provenance.mask_to_json(np.ones((1, 4, 4), np.uint8))
    other = provenance.mask_to_json(np.zeros((1, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="the mask stored in the sidecar was changed"):
        provenance.mask_from_json({**stored, "bits": other["bits"]})


@pytest.mark.parametrize("damage", [{"bits": "%%%"}, {"bits": "AAAA"}, {"shape": None}, {"shape": [9, 9, 9]}])
def test_a_mask_that_was_damaged_is_refused(damage):
    stored = provenance.mask_to_json(np.ones((1, 4, 4), np.uint8))
    with pytest.raises(ValueError, match=r"the mask stored in the sidecar (is damaged|was changed)"):
        provenance.mask_from_json({**stored, **damage})


@pytest.mark.parametrize("indices", [[0, 1, 2], [4], [3, 5, 7, 9], [0, 1, 5], [7, 3]])
def test_frame_indices_survive_the_sidecar(indices):
    stored = json.loads(json.dumps(provenance.indices_to_json(np.array(indices))))
    assert provenance.indices_from_json(stored).tolist() == indices


def test_evenly_spaced_indices_are_short():
    assert provenance.indices_to_json(np.arange(2, 4000, 2)) == {"start": 2, "stop": 4000, "step": 2}


def test_a_part_adds_what_it_says_of_itself():
    class Model:
        def provenance(self):
            return {"model": "somebody/painter", "revision": "abc"}

    facts = provenance.describe_part(Model())
    assert facts["class"].endswith("Model")
    assert facts["revision"] == "abc"


def test_a_part_that_says_nothing_has_its_class():
    assert provenance.describe_part(object()) == {"class": "builtins.object"}


def test_versions_and_machine_are_plain_json():
    facts = json.loads(json.dumps({**provenance.versions(), **provenance.machine()}))
    assert {"raccoon", "python", "torch", "numpy", "av", "torch_threads", "opencv_threads"} <= set(facts)
