"""Which picture of a second folder belongs to which frame: by file name where that can be, by position otherwise.

ROVI's three trees and the code released with the paper match by sorted position alone, which puts every-fifth-frame
annotation on wrong frames; names alone fail where one tool counts from 0 and another from 1. So, in this order:

1. every picture's name is a frame's name: by name;
2. every picture's last number is a frame's last number (``frame_5.png`` and ``00005.jpg``): by number;
3. as many pictures as frames: by position;
4. one picture for every k-th of n frames, ceil(n / k) in all, k from 2 to 10: by position, k apart;
5. some names are frames' names: those by name, the others are left over;
6. otherwise nothing matches.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

_LAST_NUMBER = re.compile(r"(\d+)(?!.*\d)")
_SPACINGS = (5, 2, 3, 4, 6, 7, 8, 9, 10)


@dataclass(frozen=True, slots=True)
class Match:
    """``places``: number of a frame to number of its picture. ``how``: in words, and whether it is by "name".

    ``unmatched``: numbers of pictures that have no frame.
    """

    places: dict[int, int]
    how: str
    by_name: bool
    unmatched: tuple[int, ...] = ()

    def is_doubtful(self, num_frames: int) -> bool:
        """Whether numbers match the first of the frames, but the count would be that of every k-th frame."""
        count = len(self.places)
        firsts = self.by_name and 3 < count < num_frames and set(self.places) == set(range(count))
        return firsts and any(-(-num_frames // k) == count for k in _SPACINGS)


def number_in(path: str) -> int | None:
    """The last number in a file's name, or None."""
    found = _LAST_NUMBER.search(PurePosixPath(path).stem)
    return int(found[1]) if found else None


def match(frames: Sequence[str], others: Sequence[str]) -> Match:
    """Match pictures to frames, both given as paths in natural order."""
    return match_names([PurePosixPath(f).stem for f in frames], [PurePosixPath(o).stem for o in others])


def match_names(frames: Sequence[str], others: Sequence[str]) -> Match:
    """The same for names without folders and endings."""
    named = _by(frames, others)
    if named is not None and len(named) == len(others):
        return Match(named, "by name", True)
    numbers = [_numbers(names) for names in (frames, others)]
    if numbers[0] is not None and numbers[1] is not None:
        found = _by(numbers[0], numbers[1])
        if found is not None and len(found) == len(others):
            return Match(found, "by the number in the name", True)
    counted = match_count(len(frames), len(others))
    if counted.places:
        return counted
    if named:
        left = tuple(sorted(set(range(len(others))) - set(named.values())))
        return Match(named, "by name", True, left)
    return Match({}, "not at all", False, tuple(range(len(others))))


def match_count(num_frames: int, count: int) -> Match:
    """The same for things without names, by rules 3 and 4."""
    if num_frames == count:
        return Match({n: n for n in range(num_frames)}, "by position, since the names differ", False)
    for k in _SPACINGS:
        # With two or three pictures any spacing would fit something.
        if count > 3 and -(-num_frames // k) == count:
            return Match({k * n: n for n in range(count)}, f"by position, one for every {k} frames", False)
    return Match({}, "not at all", False, tuple(range(count)))


def _by(frames: Sequence[object], others: Sequence[object]) -> dict[int, int] | None:
    """Frame number to picture number where they are equal; None if a name comes twice."""
    where = {name: n for n, name in enumerate(frames)}
    if len(where) < len(frames) or len(set(others)) < len(others):
        return None
    return {where[name]: n for n, name in enumerate(others) if name in where}


def _numbers(names: Sequence[str]) -> list[int] | None:
    found = [number_in(name) for name in names]
    return [n for n in found if n is not None] if None not in found else None
