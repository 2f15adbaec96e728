# ruff: noqa: RUF001 -- full-width punctuation, dashes and bullets are read on purpose
"""What one line of a messy paragraph says: how it begins, whether it is a heading, where a name ends.

All patterns are anchored and free of nested or adjacent repetition over the same characters (white space is collapsed
before they run), so that no line takes more than linear time.
"""

import re
from dataclasses import dataclass
from typing import Literal

from raccoon_datamodules.wording import clean_name, words_of

COLONS = (":", "：")
SENTENCE_ENDS = (".", "!", "?", "。", "！", "？")
_DASHES = "-–—"
_BEGIN = re.compile(
    r"""
    (?:>\s?)*
    (?P<bullet>[-*+•‣◦▪▫●○∙·–—]\s)?
    (?P<hash>\#{1,6}(?!\d)\s?)?
    (?P<bold>\*{2,3}|__)?\s?
    (?P<number>
        (?P<word>(?:object|item)\s?\#?\s?)(?P<n1>\d{1,3})\s?(?:[:：.)]|[-–—](?=\s))(?!\d)
      | [(（\[](?P<n2>\d{1,3})[)）\]]\s?[.:：]?
      | (?P<n3>\d{1,3})\s?(?:[)）、]|[.．:：](?!\d)|[-–—](?=\s))
      | (?P<n4>[①-⑳])
      | \#(?P<n5>\d{1,3})[.:)]?(?=\s)
      | (?P<n6>\d)\ufe0f?\u20e3
      | \(?[a-z]\)(?=\s)
      | [ivx]{1,4}\.(?=\s)
    )?\s?
    """,
    re.VERBOSE | re.IGNORECASE,
)
# Words with nothing among them that ends a name, and none that a heading or an item needs.
_PLAIN = re.compile(r"[^\W\d_][^:：—–\t-]*")
_SPECIAL = re.compile(r"descri|object|summary|caption|item", re.IGNORECASE)
_HEADING = re.compile(r"[\w\s&()/-]+")
_FENCE = re.compile(r"(?:```|~~~)[\w-]{0,20}")
_RULE_CHARACTERS = frozenset("-*_=~`#> .…")


def _set(*words: str) -> frozenset[str]:
    return frozenset(" ".join(words).split())


_VIDEO_WORDS = _set(
    "video description descriptions holistic overall general scene summary caption captions short detailed",
    "brief full of the paragraph well organized structured",
)
_OBJECT_WORDS = _set(
    "identified identify identifying identification object objects name names and their description descriptions",
    "key significant main important primary notable list listing of in the this video with catalog cataloging",
    "cataloged cataloguing visible local detailed individual",
)
_FULL_VIDEO_WORDS = _set(
    "video holistic overall general scene summary",
)
_LABELS = _set(
    "note notes appearance attribute attributes color colors colour colours clothing position positions location",
    "action actions movement movements motion size shape style role description details detail features feature",
    "material texture background foreground relationship relationships significance interaction expression pose",
    "posture hair face accessories behavior behaviour activity type status context",
)
_SMALL_WORDS = _set(
    "of the and in with a an on at by for to from de la le du van von",
)
_PRONOUNS = _set(
    "he she it they we you i this that these those there here his her its their one some both who which what",
    "the words text title",
)
_OPENERS = ("sure", "certainly", "of course", "okay", "ok", "absolutely", "here", "based on", "below", "great", "yes")
_CLOSERS = (
    "note:",
    "notes:",
    "note that",
    "please note",
    "disclaimer",
    "i hope",
    "hope this",
    "let me know",
    "feel free",
    "if you need",
    "if you would like",
    "if you'd like",
    "these descriptions",
    "this description",
    "this structured",
    "would you like",
    "i'm sorry",
    "as an ai",
)


@dataclass(slots=True)
class Line:
    """A line taken apart: its mark (bullet, hashes, number) and the rest.

    ``number`` counts from 1; ``indent`` in columns; ``content`` is the line with white space collapsed (a tab stays one
    tab); ``number_text`` is the item number as written ("" without), ``value`` the number (0 without);
    ``is_object_word`` marks "Object 3:".
    """

    number: int
    indent: int
    content: str
    bullet: bool
    hash: str
    number_text: str
    value: int
    is_object_word: bool
    rest: str

    @property
    def is_marked(self) -> bool:
        """Whether the line begins with a bullet or a number."""
        return self.bullet or self.number_text != ""

    @property
    def is_rule(self) -> bool:
        """Whether the line only draws: a rule, a code fence, dots."""
        if _FENCE.fullmatch(self.content):
            return True
        return _RULE_CHARACTERS.issuperset(self.content)

    @property
    def ends_with_colon(self) -> bool:
        """Whether the line ends with a colon, emphasis aside."""
        return self.content.rstrip("*_ ").endswith(COLONS)


def is_plain(raw: str) -> bool:
    """Whether a line is neither a heading nor the beginning of an object, whatever came before: plain words."""
    return _PLAIN.fullmatch(raw) is not None and _SPECIAL.search(raw) is None


def split_lines(text: str) -> list[str]:
    """Cut text at every kind of line end (Windows, old Mac, Unicode), without a byte order mark."""
    return text.removeprefix("\ufeff").splitlines()


def read_line(number: int, raw: str) -> Line:
    """Take one raw line apart."""
    expanded = raw[: len(raw) - len(raw.lstrip())].expandtabs(4)
    # Zero-width characters would hide a number or a heading.
    visible = raw.replace("\u200b", "").replace("\u2060", "").replace("\ufeff", "")
    content = "\t".join(" ".join(cell.split()) for cell in visible.split("\t") if cell.strip())
    match = _BEGIN.match(content)
    assert match is not None  # every part of the pattern is optional
    digits = match["n1"] or match["n2"] or match["n3"] or match["n5"] or match["n6"]
    circled = match["n4"]
    rest = content[match.end() :]
    if match["bold"]:
        # "**1. Cat:** ..." is "1. **Cat:** ...": the emphasis goes with the name.
        rest = "**" + rest
    return Line(
        number=number,
        indent=len(expanded),
        content=content,
        bullet=match["bullet"] is not None,
        hash=(match["hash"] or "").strip(),
        number_text=(match["number"] or "").strip(),
        value=int(digits) if digits else ord(circled) - ord("①") + 1 if circled else 0,
        is_object_word=match["word"] is not None,
        rest=rest,
    )


def heading_of(line: Line) -> tuple[Literal["video", "objects"], bool, str] | None:
    """Recognise a heading: its kind, whether it names the video itself (not just "Description"), what follows it.

    A heading is a phrase of a few known words ("Identified Object Names and Descriptions"), in any case and emphasis,
    with or without a mark before it; text may follow on the same line after a colon or a dash.
    """
    content = line.rest
    at, width = _separator(content, dashes=True)
    if at < 0:
        at, width = len(content), 0
    head = content[:at].strip("*_# ")
    if at > 80 or not _SPECIAL.search(head) or not _HEADING.fullmatch(head):
        return None
    words = words_of(head)
    rest = content[at + width :].strip()
    if not words or len(words) > 9:
        return None
    # "**Video Description:** text": the closing emphasis stands after the colon.
    if content.startswith(("*", "_")) or line.hash:
        rest = rest.lstrip("*_ ") if rest.startswith(("**", "__")) else rest
    known = set(words)
    if known & {"object", "objects"} and known <= _OBJECT_WORDS:
        return "objects", True, rest
    if known <= _VIDEO_WORDS and known & {"description", "descriptions", "summary", "caption", "captions"}:
        return "video", bool(known & _FULL_VIDEO_WORDS), rest
    return None


def split_name(rest: str) -> tuple[str, str] | None:
    """Cut "Name: description" (after its number) into the two, or None where nothing separates them."""
    opened = re.match(r"\*{2,3}|__", rest)
    if opened:
        marker = opened[0]
        closed = rest.find(marker, len(marker))
        if closed > 0:
            inside, after = rest[len(marker) : closed].strip(), rest[closed + len(marker) :].strip()
            at, width = _separator(inside)
            if at >= 0 and inside[at + width :].strip():
                return inside[:at], f"{inside[at + width :].strip()} {after}".strip()
            if at >= 0:
                return inside[:at], after
            at, width = _separator(after)
            if after.startswith("(") and at > 0 and after[at - 1] == ")":
                return f"{inside} {after[:at]}", after[at + width :].strip()
            return inside, after.lstrip(":：" + _DASHES).strip()
        rest = rest[len(marker) :]
    at, width = _separator(rest)
    if at < 0:
        at, width = _separator(rest, dashes=True)
        if at < 0 and "\t" in rest:
            at, width = rest.index("\t"), 1
        if at < 0 or len(rest[:at].split()) > 6:
            return None
    name, description = rest[:at].strip(), rest[at + width :].strip()
    # "Name:** description" closes emphasis that was opened before the number or not at all.
    if description.startswith("**") and description.count("**") % 2:
        description = description[2:].strip()
    return name, description


def _separator(text: str, *, dashes: bool = False) -> tuple[int, int]:
    """Find what ends a name: position and width, (-1, 0) if nothing does.

    First a colon before white space, emphasis or the end, or a full-width colon; else a colon that stands neither in a
    time ("3:15") nor in an address ("http://"); else, when asked for, a dash between spaces or a long dash.
    """
    found = re.search(r":(?=\s|$|\*\*|__)|：", text)
    if found is None:
        found = re.search(r"(?<!\d):(?!//)|:(?!//|\d)", text)
        if found is not None and len(text[: found.start()].split()) > 6:
            found = None
    if found is None and dashes:
        found = re.search(r"\s[-–—]\s|—", text)
    return (found.start(), found.end() - found.start()) if found else (-1, 0)


def first_sentence(text: str) -> tuple[str, str]:
    """Cut "A man in a hat. He walks." into its first sentence, without the point, and the rest."""
    found = re.search(r"[.!?](?=\s|$)|[。！？]", text)
    return (text[: found.start()], text[found.end() :].strip()) if found else (text, "")


def is_short_name(name: str) -> bool:
    """Whether a phrase looks like a written name: few words, capitalised where the script has capitals."""
    name = clean_name(name)
    words = name.split()
    if not 0 < len(words) <= 6 or len(name) > 60 or name.endswith((".", "!", "?", "。", ",")):
        return False
    return all(word in _SMALL_WORDS or not word[0].islower() for word in words)


def is_phrase(name: str) -> bool:
    """Whether a phrase may be a name typed in passing ("small brown dog"): few words, and not "he says"."""
    words = words_of(name)
    return 0 < len(words) <= 4 and words[0] not in _PRONOUNS


def is_label(name: str) -> bool:
    """Whether a phrase is an attribute ("Appearance", "Hair Color") and so not an object's name."""
    words = words_of(name)
    return bool(words) and len(words) <= 3 and words[-1] in _LABELS


def is_chatter(content: str, *, at_start: bool) -> bool:
    """Whether a line is a chat model talking: "Sure! Here is ...:" at the start, "Note: ..." at the end."""
    plain = content.lstrip("(*_[ ").casefold().replace("’", "'")
    if plain.startswith(_CLOSERS):
        return True
    if not at_start or not plain.startswith(_OPENERS):
        return False
    return content.endswith(COLONS) or (len(plain.split()) <= 3 and plain.endswith(("!", ".")))


def open_up(content: str) -> list[str]:
    """Cut text that was flattened to one line before its object heading and before 1., 2., 3. ... in that order."""
    heading = re.search(
        r"(?<=\s)[*#]{0,3}\s?(?:identified object names and descriptions|object descriptions)\s?(?:\*\*)?[:：]?",
        content,
        re.IGNORECASE,
    )
    if heading is None:
        return [content]
    pieces = [content[: heading.start()], heading[0].strip()]
    rest = content[heading.end() :].strip()
    if rest.startswith("** "):
        rest = rest[3:]
    return [piece for piece in [*pieces, *cut_items(rest)] if piece.strip()]


def cut_items(text: str) -> list[str]:
    """Cut one line before its 1., 2., 3. ... in that order; what stands before the first is a piece of its own."""
    starts: list[int] = []
    for item in re.finditer(r"(?:(?<=\s)|^)(?:\*\*)?(\d{1,3})[.)](?=[\s*])", text):
        if int(item[1]) == len(starts) + 1:
            starts.append(item.start())
    if not starts:
        return [text]
    ends = [*starts[1:], len(text)]
    return [text[: starts[0]]] * (starts[0] > 0) + [text[a:b] for a, b in zip(starts, ends, strict=True)]


def names_in(text: str) -> list[str]:
    """The names of "dog, red ball and man", all in a few words each; nothing where the text says more than names."""
    names = [name for name in re.split(r"\s*[,;、，]\s*(?:and\s)?|\sand\s", text.strip(" .。")) if name]
    bare = [re.sub(r"^(?:the|this)\s", "", name, flags=re.IGNORECASE) for name in names]
    is_list = all(is_phrase(name) and not re.search(r"[.!?。:：]", name) for name in bare)
    return names if is_list else []
