import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from raccoon_datamodules.exchange.rle import decode_rle, encode_rle

ROW, COLUMN = np.mgrid[:48, :64]
DISC = ((ROW - 20) ** 2 + (COLUMN - 30) ** 2 < 200).astype(np.uint8)
CHESS = ((ROW + COLUMN)[:6, :6] % 2 == 0).astype(np.uint8)


# Written by pycocotools 2.0.11.
@pytest.mark.parametrize(
    ("mask", "counts"),
    [
        (DISC, "ch03Y18J4M2N2N2N2N2O0O2O00000O2O0001N1000001N101N2N2N2N2N3L6HQl0"),
        (np.zeros((5, 7), np.uint8), "S1"),
        (np.ones((5, 7), np.uint8), "0S1"),
        (CHESS, "01100010O0010O0010O0010O0010O000"),
    ],
    ids=["disc", "empty", "full", "chess"],
)
def test_masks_are_written_as_pycocotools_writes_them(mask: np.ndarray, counts: str) -> None:
    assert encode_rle(mask) == {"size": list(mask.shape), "counts": counts}
    np.testing.assert_array_equal(decode_rle({"size": list(mask.shape), "counts": counts}, size=mask.shape), mask)


def test_plain_counts_are_read() -> None:
    mask = decode_rle({"size": [2, 3], "counts": [1, 2, 3]}, size=(2, 3))
    assert mask.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert mask.dtype == np.uint8


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(0, 1)))
def test_any_mask_comes_back(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_rle(encode_rle(mask), size=mask.shape), mask)


def test_long_runs_come_back() -> None:
    mask = np.zeros((1080, 1920), np.uint8)
    mask[500:, 700] = mask[0, 1919] = 1
    np.testing.assert_array_equal(decode_rle(encode_rle(mask), size=mask.shape), mask)


@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=30))
def test_any_text_is_a_mask_or_refused(text: str) -> None:
    try:
        mask = decode_rle({"size": [4, 4], "counts": text}, size=(4, 4))
    except ValueError:
        return
    assert set(np.unique(mask)) <= {0, 1}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "a run-length encoded mask must be"),
        ({"size": [2, 2]}, "a run-length encoded mask must be"),
        ({"size": [2, 3], "counts": [6]}, r"must be \[2, 2\] \(height, width\) like the clip, its size is \[2, 3\]"),
        ({"size": [2, 2], "counts": [5]}, "must add up to its 4 pixels, got 5"),
        ({"size": [2, 2], "counts": [-1, 5]}, "whole numbers from 0 on"),
        ({"size": [2, 2], "counts": [True, 3]}, "whole numbers from 0 on"),
        ({"size": [2, 2], "counts": "\x7f"}, "a character or number that cannot be there"),
        ({"size": [2, 2], "counts": "o" * 20}, "a character or number that cannot be there"),
        ({"size": [2, 2], "counts": "1" * 100}, r"of \[2, 2\] cannot be 100 numbers or characters"),
        ({"size": [2, 2], "counts": [0] * 100}, r"of \[2, 2\] cannot be 100 numbers or characters"),
        ({"size": [2, 2], "counts": [2**62, 2**62]}, "must add up to its 4 pixels"),
        ({"size": [2, 2], "counts": "4P"}, "are cut off"),
    ],
)
def test_what_is_no_mask_is_refused(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_rle(value, size=(2, 2))


def test_a_clip_is_not_one_mask() -> None:
    with pytest.raises(ValueError, match=r"is one frame \[H, W\], got \[2, 3, 4\]"):
        encode_rle(np.zeros((2, 3, 4), np.uint8))
