"""Copies among clips: the same bytes, or nearly the same pictures, found without comparing all pairs.

Two clips whose distance is at most `MAX_BITS` have a pair of frames whose hashes differ in at most as many bits (the
smallest of numbers is not above their mean). Seven differing bits in four bands of sixteen leave one band with at most
one. So every band of every hash is looked up in a sorted list, as it is and with each of its bits flipped, and whatever
is met there is compared in full: no pair within the limit is missed (Norouzi et al., Fast Search in Hamming Space with
Multi-Index Hashing, CVPR 2012).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.examine.fingerprints import HASHED_FRAMES, Fingerprint, distances

# The search is complete up to here: 4 bands x (1 flipped bit + 1) - 1.
MAX_BITS = 7
# 13 real clips of 640x360, re-encoded by x264 at crf 35 or at half the size, move by at most 2.3 bits and 3.0 levels,
# at crf 45 by at most 6.3 and 5.0. Of the 2,001,000 pairs of 2001 procedural scenes of 64x64 three are this near, and
# two of these are alike to the eye. A clip that is 12 levels brighter may still be the same clip; within 5 levels, as
# one of those three pairs is, it surely is.
DEFAULT_BITS, MAX_LEVELS, SURE_LEVELS = 6.0, 14.0, 5.0
_BANDS, _BAND_BITS = 4, 16
_PROBES = np.array([0, *(1 << bit for bit in range(_BAND_BITS))], dtype=np.uint64)
# Pairs looked at in one go: bounds the memory.
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Copy:
    """Clip ``number`` repeats the earlier clip ``of``; ``bits`` and ``levels`` are None where the bytes are equal."""

    number: int
    of: int
    bits: float | None = None
    levels: float | None = None

    @property
    def is_sure(self) -> bool:
        """Whether colours agree as closely as shapes; otherwise it may be another scene that looks alike."""
        return self.levels is None or self.levels <= SURE_LEVELS

    def __str__(self) -> str:
        if self.bits is None:
            return "the same bytes"
        return f"nearly the same pictures: {self.bits:.1f} of 64 bits and {self.levels:.1f} of 255 levels apart"


def find_copies(
    prints: Sequence[Fingerprint | None], groups: Sequence[int], *, max_bits: float = DEFAULT_BITS
) -> list[Copy]:
    """For each clip the earlier clip it repeats, if any: one of its own group and one of the other groups.

    ``prints`` are the clips in order (None: could not be read), ``groups`` the number of each one's folder. Of several
    earlier clips the nearest is named, the first of equals. Clips that repeat each other's bytes are compared with
    third ones once. The cost is that of sorting, as long as few clips look alike.

    Raises:
        ValueError: if max_bits is not in [0, 7].
    """
    if not 0 <= max_bits <= MAX_BITS:
        raise ValueError(f"max_bits must be in [0, {MAX_BITS}], up to which the search is complete, got {max_bits}")
    found: dict[tuple[int, bool], Copy] = {}
    first: dict[bytes, dict[int, int]] = {}
    unique = []
    for number, clip in enumerate(prints):
        if clip is None:
            continue
        seen = first.setdefault(clip.digest, {})
        if not seen and not clip.is_plain:
            unique.append(number)
        if groups[number] in seen:
            found[number, True] = Copy(number, seen[groups[number]])
        elsewhere = [earlier for group, earlier in seen.items() if group != groups[number]]
        if elsewhere:
            found[number, False] = Copy(number, min(elsewhere))
        seen.setdefault(groups[number], number)
    for copy in _near(prints, unique, max_bits):
        relation = copy.number, groups[copy.number] == groups[copy.of]
        known = found.get(relation)
        if known is None or (known.bits is not None and (copy.bits, copy.of) < (known.bits, known.of)):
            found[relation] = copy
    return [found[relation] for relation in sorted(found)]


def _near(prints: Sequence[Fingerprint | None], chosen: list[int], max_bits: float) -> Iterator[Copy]:
    clips = [clip for clip in (prints[number] for number in chosen) if clip is not None]
    if len(clips) < 2:
        return
    hashes = np.stack([clip.hashes for clip in clips])
    thumbnails = np.stack([clip.thumbnails for clip in clips])
    pairs = _candidates(hashes, int(max_bits))
    # A pair's thumbnails take 3 kB as they are compared.
    for start in range(0, len(pairs), 1 << 14):
        late, early = np.divmod(pairs[start : start + (1 << 14)], len(clips))
        bits, levels = distances(hashes[late], thumbnails[late], hashes[early], thumbnails[early])
        for i in np.flatnonzero((bits <= max_bits) & (levels <= MAX_LEVELS)):
            yield Copy(chosen[late[i]], chosen[early[i]], float(bits[i]), float(levels[i]))


def _candidates(hashes: NDArray[np.uint64], max_bits: int) -> NDArray[np.int64]:
    """Pairs of clips with frames at most ``max_bits`` apart, later * n + earlier, sorted; ``hashes`` uint64 [n, 8]."""
    count = len(hashes)
    # A scene that stands still has one hash eight times.
    order = np.sort(hashes, axis=1)
    is_new = np.concatenate([np.ones((count, 1), bool), order[:, 1:] != order[:, :-1]], axis=1)
    frames = order[is_new]
    owner = np.repeat(np.arange(count), HASHED_FRAMES).reshape(count, -1)[is_new]
    pairs = [np.empty(0, dtype=np.int64)]
    for band in range(_BANDS):
        values = (frames >> np.uint64(band * _BAND_BITS)) & np.uint64((1 << _BAND_BITS) - 1)
        by_value = np.argsort(values, kind="stable")
        lookup = values[by_value]
        for probe in _PROBES:
            wanted = values ^ probe
            start = np.searchsorted(lookup, wanted, side="left")
            length = np.searchsorted(lookup, wanted, side="right") - start
            for one, place in _expand(start, length):
                other = by_value[place]
                keep = owner[one] > owner[other]
                one, other = one[keep], other[keep]
                near = np.bitwise_count(frames[one] ^ frames[other]) <= max_bits
                pairs.append(np.unique(owner[one[near]] * count + owner[other[near]]))
    return np.unique(np.concatenate(pairs))


def _expand(start: NDArray[np.int64], length: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], ...]]:
    """(i, place) for every place in [start_i, start_i + length_i) of every i, about `_BLOCK` at a time."""
    ends = np.cumsum(length)
    done = 0
    while done < len(start):
        base = int(ends[done - 1]) if done else 0
        stop = max(int(np.searchsorted(ends, base + _BLOCK, side="right")), done + 1)
        one = np.repeat(np.arange(done, stop), length[done:stop])
        within = np.arange(len(one)) - np.repeat(ends[done:stop] - length[done:stop] - base, length[done:stop])
        yield one, start[one] + within
        done = stop
