"""Words against words: the best assignment of objects to objects, and which words of two texts differ.

Everything here compares with `raccoon_datamodules.wording.words_of`, so case and punctuation never count.
"""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from raccoon_datamodules.wording import is_spaceless, words_of

_ITEM_NUMBER = re.compile(r"[0-9]{1,3}\.\s*")

_NUMBER_KEY = "#"  # no word is compared by this


def assign(scores: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """Return the pairs (row, column) with the greatest sum of scores; as many pairs as the smaller side has.

    ``scores`` is [rows][columns], finite. Exact: the Hungarian method with potentials, cubic in the smaller side and
    linear in the larger. Pairs come in order of their rows.
    """
    rows, columns = len(scores), len(scores[0]) if scores else 0
    if rows > columns:
        return sorted((row, column) for column, row in assign([list(column) for column in zip(*scores, strict=True)]))
    # Row and column 0 are sentinels; holder[c] is the row that holds column c, 0 for none.
    row_price, column_price, holder = [0.0] * (rows + 1), [0.0] * (columns + 1), [0] * (columns + 1)
    for row in range(1, rows + 1):
        holder[0] = row
        slack, came_from, seen = [float("inf")] * (columns + 1), [0] * (columns + 1), [False] * (columns + 1)
        at = 0
        while holder[at]:
            seen[at] = True
            step, following = float("inf"), 0
            for column in range(1, columns + 1):
                if seen[column]:
                    continue
                cost = -scores[holder[at] - 1][column - 1] - row_price[holder[at]] - column_price[column]
                if cost < slack[column]:
                    slack[column], came_from[column] = cost, at
                if slack[column] < step:
                    step, following = slack[column], column
            for column in range(columns + 1):
                if seen[column]:
                    row_price[holder[column]] += step
                    column_price[column] -= step
                else:
                    slack[column] -= step
            at = following
        while at:
            holder[at], at = holder[came_from[at]], came_from[at]
    return sorted((holder[column] - 1, column - 1) for column in range(1, columns + 1) if holder[column])


def changed_words(before: str, after: str) -> tuple[str, ...]:
    """Return the words that differ, in reading order: ``-word`` is only in ``before``, ``+word`` only in ``after``."""
    old, new = _pieces(before), _pieces(after)
    changed: list[str] = []
    for tag, i1, i2, j1, j2 in _opcodes(old, new):
        if tag != "equal":
            changed += [f"-{_bare(piece)}" for piece, key in old[i1:i2] if key != _NUMBER_KEY]
            changed += [f"+{_bare(piece)}" for piece, key in new[j1:j2] if key != _NUMBER_KEY]
    return tuple(changed)


def marked_words(before: str, after: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """Return both texts cut into words, each with whether it is changed: gone from the first, new in the second.

    A word carries the white space and punctuation around it: joining the words with nothing between them gives the text
    back, line breaks included. The number at the beginning of an object's line never counts as changed.
    """
    old, new = _pieces(before), _pieces(after)
    old_changed, new_changed = [False] * len(old), [False] * len(new)
    for tag, i1, i2, j1, j2 in _opcodes(old, new):
        if tag != "equal":
            old_changed[i1:i2] = [True] * (i2 - i1)
            new_changed[j1:j2] = [True] * (j2 - j1)
    return (
        [(piece, changed and key != _NUMBER_KEY) for (piece, key), changed in zip(old, old_changed, strict=True)],
        [(piece, changed and key != _NUMBER_KEY) for (piece, key), changed in zip(new, new_changed, strict=True)],
    )


def _opcodes(old: list[tuple[str, str]], new: list[tuple[str, str]]) -> Sequence[tuple[str, int, int, int, int]]:
    matcher = SequenceMatcher(None, [key for _, key in old], [key for _, key in new], autojunk=False)
    return matcher.get_opcodes()


def _pieces(text: str) -> list[tuple[str, str]]:
    """Cut text into (piece, what it is compared by); the pieces join to the text."""
    cuts: list[tuple[int, str]] = []  # where a piece begins, and its key
    at_line_start = True
    for match in re.finditer(r"\S+\s*|\s+", text):
        chunk = match[0]
        if at_line_start and _ITEM_NUMBER.fullmatch(chunk):
            cuts.append((match.start(), _NUMBER_KEY))
        else:
            for start, end in _cut_spaceless(chunk):
                key = " ".join(words_of(chunk[start:end]))
                # Punctuation that stands alone belongs to the piece before it.
                if key or not cuts:
                    cuts.append((match.start() + start, key))
        at_line_start = "\n" in chunk
    ends = [start for start, _ in cuts[1:]] + [len(text)]
    return [(text[start:end], key) for (start, key), end in zip(cuts, ends, strict=False)]


def _cut_spaceless(chunk: str) -> list[tuple[int, int]]:
    """Cut a chunk before and after each character of a script without spaces; (start, end) of each part."""
    starts = [0]
    was_spaceless = is_spaceless(chunk[0])
    for index in range(1, len(chunk)):
        now = is_spaceless(chunk[index])
        if now or (was_spaceless and words_of(chunk[index])):
            starts.append(index)
            was_spaceless = now
    return list(zip(starts, [*starts[1:], len(chunk)], strict=True))


def _bare(piece: str) -> str:
    """The word without white space and the punctuation around it."""
    stripped = re.sub(r"^[^\w]+|[^\w]+$", "", piece)
    return stripped or piece.strip()
