"""How the text of a paragraph is normalised, compared and cut into words.

One place for it, so that the paragraph, the layout, the plan and the report mean the same by "the same name", "the same
words" and "white space". Everything here is linear in the length of the text.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

# Control characters separate words (a form feed, a NUL of a damaged file), so they count as white space. The zero-width
# space, the word joiner and the byte order mark are dropped: nobody sees them, and a name that holds one equals no
# other. The zero-width joiner and non-joiner stay: emoji and Persian need them. A lone surrogate cannot be written.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_INVISIBLE = re.compile("[\u200b\u2060\ufeff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
# Direction marks change how a name is shown, not which name it is.
_DIRECTION_MARKS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# What word processors make of ' " and - by themselves, and the non-breaking hyphen.
_PLAIN_SIGNS = {
    **dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b\u2032"), "'"),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f\u2033"), '"'),
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014"), "-"),
}
_BOLD = re.compile(r"\*{2,}")
# Scripts written without spaces: each character is a word of its own when texts are compared.
_SPACELESS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)


def one_line(text: str) -> str:
    """Return ``text`` on one line: every run of white space (Unicode's, and control characters) becomes one space.

    Zero-width spaces, word joiners and byte order marks are dropped, lone surrogates become U+FFFD; the rest stays.
    """
    text = _INVISIBLE.sub("", _CONTROLS.sub(" ", text))
    return " ".join(_SURROGATES.sub("\ufffd", text).split())


def clean_name(text: str) -> str:
    """Return an object's name on one line and without Markdown emphasis, which is never part of a name.

    Runs of two or more asterisks go wherever they stand; ``*``, ``_`` and backticks go when they enclose the whole
    name. A single leading asterisk stays (``*NSYNC``). The result may be empty.
    """
    name = one_line(_BOLD.sub("", one_line(text)))
    start, end = 0, len(name)
    while end - start >= 2 and name[start] == name[end - 1] and name[start] in "*_`":
        start, end = start + 1, end - 1
        while start < end and name[start] == " ":
            start += 1
        while start < end and name[end - 1] == " ":
            end -= 1
    return name[start:end]


def name_key(name: str) -> str:
    """Return what the spellings of one name share.

    Case, (de)composed letters, direction marks, typographic quotes and dashes, quotes around all of it: none count.
    """
    plain = unicodedata.normalize("NFD", _DIRECTION_MARKS.sub("", clean_name(name)))
    plain = unicodedata.normalize("NFD", plain.casefold()).translate(_PLAIN_SIGNS).strip()
    is_quoted = len(plain) > 2 and plain[0] == plain[-1] and plain[0] in "'\"" and plain.count(plain[0]) == 2
    return plain[1:-1].strip() if is_quoted else plain


def is_spaceless(character: str) -> bool:
    """Whether a character belongs to a script written without spaces: Chinese, Japanese, Thai, Lao, Khmer, Burmese."""
    return _SPACELESS.match(character) is not None


def words_of(text: str) -> list[str]:
    """Return the words of ``text`` for comparing: case-folded, compatibility forms united, punctuation left out.

    A character of a script written without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) is a word of its own,
    and so is an emoji.
    """
    words: list[list[str]] = []  # letters, joined at the end: adding to a long word would be quadratic
    is_open = False
    for character in unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()):
        category = unicodedata.category(character)
        if category[0] == "M":
            # A vowel sign or accent belongs to the letter before it, also to one that stands alone.
            if words and (is_open or is_spaceless(words[-1][0])):
                words[-1].append(character)
        elif is_spaceless(character) or category == "So":
            words.append([character])
            is_open = False
        elif category[0] in "LN":
            if is_open:
                words[-1].append(character)
            else:
                words.append([character])
            is_open = True
        else:
            is_open = False
    return ["".join(word) for word in words]


def token_f1(first: Sequence[str], second: Sequence[str]) -> float:
    """Return the F1 of two bags of words, in [0, 1]; 0 where either is empty."""
    common = sum((Counter(first) & Counter(second)).values())
    return 2 * common / (len(first) + len(second)) if common else 0.0
