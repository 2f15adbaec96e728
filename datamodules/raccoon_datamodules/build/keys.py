"""Names of source videos to sample keys and splits: both depend on the name alone, never on what else is there."""

import hashlib
import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from raccoon_datamodules.index import check_split

# What a window's number may add to it stays below the 120 characters of a key.
_MOST = 100
_LONGEST_ID = 60
_OTHER = re.compile(r"[^A-Za-z0-9_-]")


def printable(text: str) -> str:
    """Text that can be written as UTF-8: bytes of a file name that are none become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def plain_name(name: str) -> str:
    """A name as it is compared: printable, its letters composed (NFC), as JSON has them and file systems may not."""
    return unicodedata.normalize("NFC", printable(name))


def name_hash(name: str, *, size: int = 8) -> str:
    """The hexadecimal BLAKE2b of a name, in ``size`` bytes."""
    return hashlib.blake2b(plain_name(name).encode(), digest_size=size).hexdigest()


def video_key(name: str) -> str:
    """The key of a source video: its name where that may be a key, else what remains of it with a hash of the whole.

    So ``clip.v2`` and ``clip v2`` have different keys; a dot never reaches a key (it would end it).
    """
    plain = plain_name(name)
    safe = _OTHER.sub("_", plain)
    if safe == plain and 0 < len(safe) <= _MOST:
        return safe
    return f"{safe[: _MOST - 9]}-{name_hash(plain, size=4)}"


def clip_key(key: str, first: int | None) -> str:
    """The key of a clip: that of its video, and the number of its first frame if it is one of several windows."""
    return key if first is None else f"{key}-f{first:06d}"


def object_id(name: str) -> str:
    """The id of an object: 1, "1", "01" and "1.0" are one; what may not be an id is replaced as in a key."""
    name = plain_name(name.strip())
    number = re.fullmatch(r"0*(\d+)(\.0+)?", name)
    safe = number[1] if number else video_key(name)
    return safe if len(safe) <= _LONGEST_ID else f"{safe[: _LONGEST_ID - 9]}-{name_hash(name, size=4)}"


@dataclass(frozen=True, slots=True)
class SplitPolicy:
    """Which split a source video belongs to; all of its clips go there.

    ``names``: split to the names of its videos, looked at first. ``fractions``: split to the share of videos it gets by
    the hash of their name, in the order given. ``rest`` gets the others.

    Raises:
        ValueError: if a split's name is not allowed, a fraction is outside [0, 1), they sum to 1 or more, or a video
            is listed for two splits.
    """

    rest: str = "train"
    names: Mapping[str, Collection[str]] = field(default_factory=dict)
    fractions: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for split in (self.rest, *self.names, *self.fractions):
            check_split(split)
        if any(not 0 <= share < 1 for share in self.fractions.values()) or sum(self.fractions.values()) >= 1:
            raise ValueError(f"the shares of splits must lie in [0, 1) and sum to less than 1, got {self.fractions}")
        seen: dict[str, str] = {}
        for split, listed in self.names.items():
            for name in map(plain_name, listed):
                if seen.setdefault(name, split) != split:
                    raise ValueError(f"video {name!r} is listed for two splits, {seen[name]} and {split}: choose one")
        object.__setattr__(self, "names", {s: frozenset(map(plain_name, listed)) for s, listed in self.names.items()})

    def of(self, name: str) -> str:
        """The split of a source video."""
        name = plain_name(name)
        for split, listed in self.names.items():
            if name in listed or name.rpartition("/")[2] in listed:
                return split
        place = int(name_hash(name), 16) / 2**64
        for split, share in self.fractions.items():
            if place < share:
                return split
            place -= share
        return self.rest
