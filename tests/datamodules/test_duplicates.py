import dataclasses

import cv2
import numpy as np
import pytest

from raccoon_datamodules.examine.duplicates import MAX_BITS, MAX_LEVELS, Copy, find_copies
from raccoon_datamodules.examine.fingerprints import Fingerprint, distances, fingerprint, frame_hash
from raccoon_datamodules.synthetic import make_sample


def scene(seed: int, difficulty: str = "medium") -> np.ndarray:
    return make_sample(seed, difficulty, num_frames=4, size=(64, 64)).video.frames


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray]:
    return [scene(seed) for seed in range(12)]


def resized(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames])


def jpeg(frames: np.ndarray, quality: int) -> np.ndarray:
    coded = [cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1] for frame in frames]
    return np.stack([cv2.imdecode(data, cv2.IMREAD_COLOR) for data in coded])


def prints(clips: list[np.ndarray]) -> list[Fingerprint]:
    return [fingerprint(frames, str(number).encode()) for number, frames in enumerate(clips)]


def apart(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    a, b = prints([one, other])
    bits, levels = distances(a.hashes[None], a.thumbnails[None], b.hashes[None], b.thumbnails[None])
    return float(bits[0]), float(levels[0])


def test_the_hash_is_the_sign_of_the_lowest_frequencies_against_their_median() -> None:
    # Against a DCT written out from its definition, on a picture that needs no shrinking.
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (32, 32)).astype(np.uint8)
    n = np.arange(32)
    basis = np.cos(np.pi * (2 * n[None, :] + 1) * n[:, None] / 64)
    coefficients = basis @ grey.astype(np.float64) @ basis.T
    coefficients[0] /= np.sqrt(2)
    coefficients[:, 0] /= np.sqrt(2)
    places = [(r, d - r) if d % 2 else (d - r, r) for d in range(1, 12) for r in range(d + 1)]
    low = np.array([coefficients[place] for place in places[:64]])
    expected = "".join("1" if value > np.median(low) else "0" for value in low)
    assert f"{frame_hash(np.repeat(grey[..., None], 3, axis=2)):064b}" == expected


def test_a_clip_is_at_no_distance_from_itself(scenes: list[np.ndarray]) -> None:
    assert apart(scenes[0], scenes[0]) == (0.0, 0.0)


@pytest.mark.parametrize(
    "change",
    [
        lambda frames: jpeg(frames, 60),
        lambda frames: resized(frames, 48, 48),
        lambda frames: resized(frames, 96, 128),
        lambda frames: np.clip(frames.astype(int) + 10, 0, 255).astype(np.uint8),
        lambda frames: np.repeat(frames, 2, axis=0),
    ],
    ids=["jpeg", "smaller", "another shape", "brighter", "twice the frames"],
)
def test_a_changed_copy_is_found(scenes: list[np.ndarray], change) -> None:
    found = find_copies(prints([*scenes, change(scenes[5])]), [0] * 13)
    assert [(copy.number, copy.of) for copy in found] == [(12, 5)]
    assert found[0].bits is not None
    assert str(found[0]).startswith("nearly the same pictures")


def test_different_scenes_are_no_copies(scenes: list[np.ndarray]) -> None:
    assert find_copies(prints(scenes), [0] * 12) == []


def test_another_colour_is_another_clip(scenes: list[np.ndarray]) -> None:
    # The same grey shapes in other colours: only the thumbnails tell.
    tinted = scenes[0].copy()
    tinted[..., 0] //= 3
    assert apart(scenes[0], tinted)[1] > MAX_LEVELS
    assert find_copies(prints([scenes[0], tinted]), [0, 0]) == []


def test_a_clip_that_only_shares_a_moment_is_no_copy(scenes: list[np.ndarray]) -> None:
    still = np.repeat(scenes[0][:1], 4, axis=0)
    passing = np.concatenate([scenes[0][:1], scenes[1][:3]])
    assert find_copies(prints([still, passing]), [0, 0]) == []


def test_plain_clips_are_copies_only_if_their_bytes_are_equal() -> None:
    black, nearly = np.zeros((2, 16, 16, 3), np.uint8), np.ones((2, 16, 16, 3), np.uint8)
    clips = [fingerprint(black, b"a"), fingerprint(nearly, b"b"), fingerprint(black, b"a")]
    assert all(clip.is_plain for clip in clips)
    assert find_copies(clips, [0, 0, 0]) == [Copy(2, 0)]


def test_a_copy_here_and_a_copy_elsewhere_are_both_named(scenes: list[np.ndarray]) -> None:
    clips = prints([scenes[0], scenes[1], scenes[0], scenes[0]])
    same = [dataclasses.replace(clip, digest=bytes(32)) for clip in (clips[0], clips[2], clips[3])]
    found = find_copies([same[0], clips[1], same[1], same[2]], [0, 0, 1, 1])
    assert found == [Copy(2, 0), Copy(3, 0), Copy(3, 2)]


def test_equal_bytes_are_told_from_near_pictures(scenes: list[np.ndarray]) -> None:
    near, exact = prints([scenes[0], resized(scenes[0], 80, 80)]), fingerprint(scenes[0], b"0")
    found = find_copies([*near, exact], [0, 0, 0])
    assert [(copy.number, copy.of, copy.bits is None) for copy in found] == [(1, 0, False), (2, 0, True)]
    assert str(found[1]) == "the same bytes"


def test_the_nearest_of_several_is_named(scenes: list[np.ndarray]) -> None:
    found = find_copies(prints([jpeg(scenes[0], 15), jpeg(scenes[0], 95), scenes[0]]), [0, 0, 0], max_bits=MAX_BITS)
    assert (found[-1].number, found[-1].of) == (2, 1)


def test_what_could_not_be_read_is_passed_over(scenes: list[np.ndarray]) -> None:
    one = prints([scenes[0]])[0]
    assert find_copies([None, one, None, one], [0, 0, 0, 0]) == [Copy(3, 1)]
    assert find_copies([None], [0]) == []


def test_the_search_finds_every_pair_within_the_limit() -> None:
    # Random hashes and copies of them with 0 to 9 flipped bits a frame, against all pairs.
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 2**64, (150, 8), dtype=np.uint64)
    flips = np.zeros_like(hashes)
    for row, count in enumerate(rng.integers(0, 10, 150)):
        for frame in range(8):
            for bit in rng.choice(64, count, replace=False):
                flips[row, frame] |= np.uint64(1) << np.uint64(bit)
    every = np.concatenate([hashes, hashes ^ flips])
    grey = np.full((8, 8, 8, 3), 100, np.uint8)
    clips = [Fingerprint(bytes([n // 256, n % 256]), row, grey, False) for n, row in enumerate(every)]
    expected = {}
    for late in range(300):
        repeated = np.repeat(every[late : late + 1], late, axis=0)
        bits, _ = distances(repeated, np.repeat(grey[None], late, 0), every[:late], np.repeat(grey[None], late, 0))
        if late and bits.min() <= MAX_BITS:
            expected[late] = int(bits.argmin())
    found = find_copies(clips, [0] * 300, max_bits=MAX_BITS)
    assert {copy.number: copy.of for copy in found} == expected
    assert 90 < len(expected) < 140


def test_many_equal_hashes_are_compared_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raccoon_datamodules.examine.duplicates._BLOCK", 7)
    grey = np.full((8, 8, 8, 3), 100, np.uint8)
    clips = [Fingerprint(bytes([n]), np.full(8, 5, np.uint64), grey, False) for n in range(20)]
    assert find_copies(clips, [0] * 20) == [Copy(n, 0, 0.0, 0.0) for n in range(1, 20)]


@pytest.mark.parametrize("bits", [-0.5, 8])
def test_a_limit_beyond_the_search_is_refused(bits: float) -> None:
    with pytest.raises(ValueError, match=r"max_bits must be in \[0, 7\], up to which the search is complete, got"):
        find_copies([], [], max_bits=bits)
