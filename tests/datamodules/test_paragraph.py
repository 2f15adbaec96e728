# ruff: noqa: RUF001 -- the table holds what people and models write, in any script
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raccoon_datamodules.paragraph import ObjectDescription, Paragraph, has_heading
from raccoon_datamodules.wording import clean_name, name_key, one_line, token_f1, words_of

PROPERTY = settings(derandomize=True, max_examples=200, deadline=None)

# Fragments that mimic structure, so that hypothesis meets them together and not once in a million texts.
TRAPS = st.sampled_from(
    [
        "1. Cat: black",
        "2. Dog:",
        "Object Descriptions:",
        "Video Description:",
        "Object Descriptions: 1. Cat: x",
        "**",
        "*",
        "__",
        "`",
        ":",
        ": ",
        "::",
        "：",
        " - ",
        "—",
        "3:15",
        "1.",
        "- ",
        "•",
        "#",
        "```",
        "Note: nothing",
        "Sure! Here is",
        "None",
        "\t",
        "\r\n",
        "\u2028",
        "\xa0",
        "\u200b",
        "\ufeff",
        "\u200f",
        "大熊猫",
        "قطة",
        "👩‍🚒",
        "e\u0301",
        "ß",
        "İ",
        "\x00",
        "\x1c",
        "\x85",
        "\ud800",
    ]
)
TEXTS = st.lists(st.one_of(TRAPS, st.text(max_size=8), st.sampled_from([" ", "a", "B"])), max_size=8).map("".join)


def is_name(text):
    return name_key(text) != "" and ": " not in clean_name(text)


NAMES = TEXTS.filter(is_name)
OBJECTS = st.builds(ObjectDescription, NAMES, TEXTS)
PARAGRAPHS = st.builds(
    Paragraph, TEXTS, st.lists(OBJECTS, max_size=5, unique_by=lambda item: name_key(item.name)).map(tuple)
)


@PROPERTY
@given(PARAGRAPHS)
def test_every_paragraph_reads_back_as_itself_without_notes(paragraph):
    assert Paragraph.parse(str(paragraph)) == (paragraph, [])


@PROPERTY
@given(PARAGRAPHS)
def test_a_saved_file_reads_back_with_windows_line_ends_and_a_byte_order_mark(paragraph):
    text = "\ufeff" + str(paragraph).replace("\n", "\r\n") + "\r\n"
    assert Paragraph.parse(text) == (paragraph, [])


@PROPERTY
@given(PARAGRAPHS.filter(lambda paragraph: len(paragraph.objects) > 0), st.integers(0, 4))
def test_deleting_the_line_of_an_object_deletes_that_object_and_nothing_else(paragraph, index):
    index %= len(paragraph.objects)
    lines = str(paragraph).split("\n")
    del lines[3 + index]
    rest = paragraph.objects[:index] + paragraph.objects[index + 1 :]
    assert Paragraph.parse("\n".join(lines)) == (Paragraph(paragraph.description, rest), [])


@PROPERTY
@given(st.one_of(TEXTS, st.text(max_size=200), st.lists(TEXTS, max_size=8).map("\n".join)))
def test_parse_never_raises_and_what_it_reads_is_stable(text):
    paragraph, notes = Paragraph.parse(text)
    assert Paragraph.parse(str(paragraph)) == (paragraph, [])
    assert all(isinstance(note, str) and "\n" not in note for note in notes)


@PROPERTY
@given(PARAGRAPHS)
def test_every_paragraph_survives_json(paragraph):
    assert Paragraph.from_json(paragraph.to_json()) == paragraph


@PROPERTY
@given(TEXTS)
def test_normalising_a_second_time_changes_nothing(text):
    assert one_line(one_line(text)) == one_line(text)
    assert clean_name(clean_name(text)) == clean_name(text)
    assert name_key(clean_name(text)) == name_key(text)
    assert one_line(text).encode("utf-8").decode("utf-8") == one_line(text)


PANDA = "A large bear."
KEEPER = "A man in grey."
SCENE = "A keeper feeds a panda."
HEAD = f"Video Description: {SCENE}\n\nObject Descriptions:\n"
OBJECTS = "Object Descriptions:\n"
TIGHT = f"Video Description: {SCENE}\nObject Descriptions:\n"
BOTH = (("Giant Panda", PANDA), ("Keeper", KEEPER))

# text -> (description, ((name, description), ...), words that must stand in the notes; none = no notes at all)
MESS = {
    "canonical": (
        f"{HEAD}1. Giant Panda: {PANDA}\n2. Keeper: {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "no blank line, gaps in the numbers, spaces at line ends": (
        f"Video Description: {SCENE}  \nObject Descriptions: \n3. Giant Panda: {PANDA} \n\n7. Keeper: {KEEPER}\n\n",
        SCENE,
        BOTH,
        (),
    ),
    "figure 6 of the paper": (
        f"Video Description\n\n{SCENE}\n\nIdentified Object Names and Descriptions\n\n"
        f"1. **Giant Panda:** {PANDA}\n\n2. **Keeper:** {KEEPER}\n",
        SCENE,
        BOTH,
        (),
    ),
    "colon outside the bold": (
        f"{HEAD}1. **Giant Panda**: {PANDA}\n2. **Keeper**: {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "bold around number and name": (
        f"{HEAD}**1. Giant Panda:** {PANDA}\n**2. Keeper**: {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "bold closed after the space": (
        f"{HEAD}1. **Giant Panda: **{PANDA}\n2. **Keeper: **{KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "bold never closed": (
        f"{HEAD}1. **Giant Panda: {PANDA}\n2. Keeper:** {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "bold headings": (
        f"**Video Description:** {SCENE}\n\n**Object Descriptions:**\n1) Giant Panda: {PANDA}\n2) Keeper: {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "markdown headings": (
        f"## Video Description\n{SCENE}\n\n### Object Descriptions\n\n1. Giant Panda: {PANDA}\n2. Keeper: {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "objects as markdown headings": (
        f"## Video Description\n{SCENE}\n## Objects\n### 1. Giant Panda\n{PANDA}\n\n### 2. Keeper\n{KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "objects as unnumbered markdown headings": (
        f"## Video Description\n{SCENE}\n## Objects\n### Giant Panda\n{PANDA}\n\n### Keeper\n{KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "numbered headings": (
        f"1. Holistic Video Description: {SCENE}\n\n2. Identified Objects:\n   1. Giant Panda: {PANDA}\n"
        f"   2. Keeper: {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "lower case headings": (
        f"video description: {SCENE}\nobject descriptions:\n1. Giant Panda: {PANDA}\n2. Keeper: {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "numbers in brackets": (
        f"{TIGHT}(1) Giant Panda: {PANDA}\n[2] Keeper: {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "numbers with a colon": (
        f"{TIGHT}1: Giant Panda: {PANDA}\n2: Keeper: {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "tab after the number": (
        f"{TIGHT}1.\tGiant Panda: {PANDA}\n2.\tKeeper: {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "tab after the name": (
        f"{TIGHT}1. Giant Panda\t{PANDA}\n2. Keeper\t{KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "dash after the name": (
        f"{TIGHT}1. Giant Panda - {PANDA}\n2. Keeper — {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "bold name and a dash": (
        f"{TIGHT}1. **Giant Panda** – {PANDA}\n2. **Keeper** {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "the word object before the number": (
        f"{TIGHT}Object 1: Giant Panda - {PANDA}\nObject 2: Keeper - {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "the word object, description on the next line": (
        f"{TIGHT}**Object 1: Giant Panda**\n- Description: {PANDA}\n**Object 2: Keeper**\n- Description: {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "the word object and no name": (
        f"{TIGHT}Object 1: a bear is sitting there.",
        SCENE,
        (("Object 1", "a bear is sitting there."),),
        (),
    ),
    "no space after the colon": (
        f"Video Description:{SCENE}\nObject Descriptions:\n1.Giant Panda:{PANDA}\n2.Keeper:{KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "full-width punctuation": (
        "Video Description： 饲养员在喂大熊猫。\nObject Descriptions：\n"
        "１．大熊猫：一只黑白相间的熊。\n2、饲养员：穿灰色制服。",
        "饲养员在喂大熊猫。",
        (("大熊猫", "一只黑白相间的熊。"), ("饲养员", "穿灰色制服。")),
        (),
    ),
    "circled numbers": (
        f"{TIGHT}① Giant Panda: {PANDA}\n② Keeper: {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "arabic, right to left, its own digits": (
        "Video Description: حارس يطعم الباندا.\nObject Descriptions:\n١. الباندا: دب كبير.\n٢- الحارس: رجل.",
        "حارس يطعم الباندا.",
        (("الباندا", "دب كبير."), ("الحارس", "رجل.")),
        (),
    ),
    "emoji and accents": (
        "Video Description: Un café.\n\nObject Descriptions:\n1. 🐕 Rex: Le chien.\n2. Café-crème: Chaud.",
        "Un café.",
        (("🐕 Rex", "Le chien."), ("Café-crème", "Chaud.")),
        (),
    ),
    "bullets": (
        f"{HEAD}- Giant Panda: {PANDA}\n- Keeper: {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "round bullets and bold": (
        f"{HEAD}• **Giant Panda**: {PANDA}\n• **Keeper**: {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "star bullets around numbers": (
        f"{HEAD}* 1. Giant Panda: {PANDA}\n* 2. Keeper: {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "no numbers at all": (
        f"{HEAD}Giant Panda: {PANDA}\nKeeper: {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "names and descriptions on lines of their own": (
        f"{HEAD}- Name: Giant Panda\n  Description: {PANDA}\n- Name: Keeper\n  Description: {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "hashes, key caps, roman numbers": (
        f"{HEAD}#1 Giant Panda: {PANDA}\n2\ufe0f\u20e3 Keeper: {KEEPER}\nIII. Log: Brown.",
        SCENE,
        (*BOTH, ("Log", "Brown.")),
        (),
    ),
    "bare names": (
        f"Video Description: {SCENE}\n\nObjects:\nGiant Panda\nKeeper\n",
        SCENE,
        (("Giant Panda", ""), ("Keeper", "")),
        ("line 4: 'Giant Panda' has no description", "line 5: 'Keeper' has no description"),
    ),
    "bold name with a bracket, letters for numbers": (
        f"{HEAD}(a) **Giant Panda** (left): {PANDA}\nb) Keeper: {KEEPER}",
        SCENE,
        (("Giant Panda (left)", PANDA), ("Keeper", KEEPER)),
        (),
    ),
    "description over several lines": (
        "Video Description:\nA keeper\nfeeds a\n\npanda.\n\nObject Descriptions:\n1. Giant Panda: A large\n   bear.\n"
        "2. Keeper:\nA man\nin grey.",
        SCENE,
        BOTH,
        (),
    ),
    "attributes as sub-bullets": (
        f"{HEAD}1. **Giant Panda**\n   - Color: black\n   - Action: sits\n2. Keeper: {KEEPER}",
        SCENE,
        (("Giant Panda", "Color: black, Action: sits"), ("Keeper", KEEPER)),
        (),
    ),
    "missing headings": (
        f"{SCENE}\n\n1. Giant Panda: {PANDA}\n2. Keeper: {KEEPER}",
        SCENE,
        BOTH,
        ("no 'Video Description:' heading", "no 'Object Descriptions:' heading"),
    ),
    "missing heading of the objects": (
        f"Video Description: {SCENE}\n1. Giant Panda: {PANDA}\n2. Keeper: {KEEPER}",
        SCENE,
        BOTH,
        ("no 'Object Descriptions:' heading; the objects were read from line 2 on",),
    ),
    "no description": (
        f"Object Descriptions:\n1. Giant Panda: {PANDA}\n2. Keeper: {KEEPER}",
        "",
        BOTH,
        ("no description of the video",),
    ),
    "objects before the description": (
        f"Object Descriptions:\n1. Giant Panda: {PANDA}\n2. Keeper: {KEEPER}\n\nVideo Description: {SCENE}",
        SCENE,
        BOTH,
        (),
    ),
    "only a sentence": (SCENE, SCENE, (), ("no 'Video Description:' heading", "no objects were found")),
    "objects: none": (
        f"Video Description: {SCENE}\n\nObject Descriptions: None.",
        SCENE,
        (),
        ("no objects were found",),
    ),
    "empty": ("", "", (), ("the text is empty",)),
    "white space only": (" \r\n\t\n", "", (), ("the text is empty",)),
    "everything on one line": (
        f"Video Description: {SCENE} Object Descriptions: 1. Giant Panda: {PANDA} 2. Keeper: {KEEPER}",
        SCENE,
        BOTH,
        ("on one line",),
    ),
    "chat around it": (
        f"Sure! Here is the description of the video:\n\nVideo Description: {SCENE}\n\nObject Descriptions:\n"
        f"1. Giant Panda: {PANDA}\n2. Keeper: {KEEPER}\n\nNote: the frames are dark.\nLet me know if you need more!",
        SCENE,
        BOTH,
        ("line 1: left out 'Sure!", "line 9: left out 'Note:", "line 10: left out 'Let me know"),
    ),
    "chat and no headings": (
        f"Certainly!\n{SCENE}\n\nHere are the objects I see:\n\n1. Giant Panda: {PANDA}\n2. Keeper: {KEEPER}",
        SCENE,
        BOTH,
        ("line 1: left out 'Certainly!'", "line 4: left out 'Here are", "no 'Video Description:' heading"),
    ),
    "code fence": (
        f"```text\n{HEAD}1. Giant Panda: {PANDA}\n2. Keeper: {KEEPER}\n```",
        SCENE,
        BOTH,
        (),
    ),
    "rules between the parts": (
        f"Video Description: {SCENE}\n\n---\n\n{OBJECTS}1. Giant Panda: {PANDA}\n***\n2. Keeper: {KEEPER}\n...",
        SCENE,
        BOTH,
        (),
    ),
    "quoted mail": (
        f"> Video Description: {SCENE}\n>\n> Object Descriptions:\n> 1. Giant Panda: {PANDA}\n> 2. Keeper: {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "truncated in a name": (
        f"{HEAD}1. Giant Panda: {PANDA}\n2. Keeper: {KEEPER}\n3. Blue",
        SCENE,
        (*BOTH, ("Blue", "")),
        ("line 6: 'Blue' has no description; the text may be cut off here",),
    ),
    "truncated after a number": (
        f"{HEAD}1. Giant Panda: {PANDA}\n2. Keeper: {KEEPER}\n3.",
        SCENE,
        BOTH,
        ("line 6: the number '3.' has nothing after it",),
    ),
    "truncated in the heading": (
        f"Video Description: {SCENE}\n\nObject Desc",
        SCENE,
        (),
        ("line 3: left out 'Object Desc', the text seems cut off here", "no objects were found"),
    ),
    "truncated in the first heading": ("Video Descr", "Video Descr", (), ("no 'Video Description:' heading",)),
    "same name, other description": (
        f"{HEAD}1. Dog: Brown.\n2. dog: White.\n3. Dog (2): Black.",
        SCENE,
        (("Dog", "Brown."), ("dog (3)", "White."), ("Dog (2)", "Black.")),
        ("line 5: a second object called 'dog'; it was renamed 'dog (3)'",),
    ),
    "a model that repeats itself": (
        f"{HEAD}1. Dog: Brown.\n2. Dog: Brown.\n3. Dog: Brown.",
        SCENE,
        (("Dog", "Brown."),),
        ("line 5: 'Dog' is repeated word for word; read once", "line 6"),
    ),
    "objects on one line below the description": (
        f"Video Description: {SCENE}\nObject Descriptions: 1. Dog: Brown. 2. Cat: Black.",
        SCENE,
        (("Dog", "Brown."), ("Cat", "Black.")),
        ("line 2: several objects on one line; it was cut at its numbers",),
    ),
    "nothing but names": (
        f"Video Description: {SCENE}\nObjects: dog, red ball and the man",
        SCENE,
        (("dog", ""), ("red ball", ""), ("the man", "")),
        ("line 2: 'red ball' has no description",),
    ),
    "objects that are sentences": (
        f"{TIGHT}1. A man in a hat. He walks slowly.\n2. A dog that follows him.",
        SCENE,
        (("A man in a hat", "He walks slowly."), ("A dog that follows him", "")),
        ("line 3: no ':' after a name; the first sentence was read as the name",),
    ),
    "attributes in bold, and a summary at the end": (
        f"{TIGHT}1. **Dog**: A dog.\n   - **Color**: golden\n   - **Action**: runs\n\n**Summary**: It is sunny.",
        SCENE,
        (("Dog", "A dog. Color: golden, Action: runs"),),
        ("line 7: left out '**Summary**: It is sunny.', with all that follows: it is a second description",),
    ),
    "a model that begins again": (
        f"{TIGHT}1. Dog: Brown.\nVideo Description: {SCENE}\nObject Descriptions:\n1. Cat: Black.",
        SCENE,
        (("Dog", "Brown."),),
        ("line 4: left out 'Video Description: A keeper feeds a panda.', with all that follows: it is a second",),
    ),
    "a user adds a line without a number": (
        f"{HEAD}1. Giant Panda: {PANDA}\nKeeper: {KEEPER}",
        SCENE,
        BOTH,
        ("line 5: has no number; read as the object 'Keeper'",),
    ),
    "a user adds lower case lines without a number": (
        f"{HEAD}1. Giant Panda: {PANDA}\nsmall raccoon: grey.\nBrown dog: old.",
        SCENE,
        (("Giant Panda", PANDA), ("small raccoon", "grey."), ("Brown dog", "old.")),
        ("line 5: has no number; read as the object 'small raccoon'", "line 6: has no number"),
    ),
    "a user adds a bullet to a numbered list": (
        f"{HEAD}1. Giant Panda: {PANDA}\n- Keeper: {KEEPER}",
        SCENE,
        BOTH,
        ("line 5: has no number; read as the object 'Keeper'",),
    ),
    "a line that may or may not be an object": (
        f"{HEAD}1. Giant Panda: black and white\nraccoon: grey",
        SCENE,
        (("Giant Panda", "black and white raccoon: grey"),),
        ("line 5: has no number; read as more about 'Giant Panda'",),
    ),
    "a user breaks a line in a sentence with a colon": (
        f"{HEAD}1. Sign: It carries\nthe words: keep out.",
        SCENE,
        (("Sign", "It carries the words: keep out."),),
        (),
    ),
    "windows line ends": (
        f"Video Description: {SCENE}\r\n\r\nObject Descriptions:\r\n1) Giant Panda: {PANDA}\r\n2) Keeper: {KEEPER}\r\n",
        SCENE,
        BOTH,
        (),
    ),
    "old mac line ends and a byte order mark": (
        f"\ufeffVideo Description: {SCENE}\rObject Descriptions:\r1. Giant Panda: {PANDA}\r2. Keeper: {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "no-break and zero-width spaces": (
        f"Video\xa0Description: {SCENE}\n\u200bObject Descriptions:\n"
        f"1.\xa0Giant\xa0Panda:\xa0{PANDA}\n\u200b2. Keeper: {KEEPER}",
        SCENE,
        BOTH,
        (),
    ),
    "colons in names": (
        f"{HEAD}1. 3:15 Clock: Round.\n2. Ratio 1:2: Square.\n3) A:B: Odd.",
        SCENE,
        (("3:15 Clock", "Round."), ("Ratio 1:2", "Square."), ("A:B", "Odd.")),
        (),
    ),
    "an address in a description": (
        f"{TIGHT}1) Sign - It shows http://example.org as text.",
        SCENE,
        (("Sign", "It shows http://example.org as text."),),
        (),
    ),
    "a heading inside a description": (
        "Video Description: The title card reads Object Descriptions: 1. Cat: black.\n\nObject Descriptions:\n"
        "1) Card: It says Video Description: none. 2. Dog: too.",
        "The title card reads Object Descriptions: 1. Cat: black.",
        (("Card", "It says Video Description: none. 2. Dog: too."),),
        (),
    ),
    "a number that is no item": (
        f"{HEAD}1) Pole: It is\n1.5 m tall.",
        SCENE,
        (("Pole", "It is 1.5 m tall."),),
        (),
    ),
    "an intro under the heading": (
        f"Video Description: {SCENE}\nKey Objects:\nThe following objects can be seen:\n1. Giant Panda: {PANDA}\n"
        f"2. Keeper: {KEEPER}",
        SCENE,
        BOTH,
        ("line 3: left out 'The following",),
    ),
    "a name without text before its colon": (
        f"{HEAD}1. : Something.\n2. Keeper: {KEEPER}",
        SCENE,
        (("Keeper", KEEPER),),
        ("line 4: left out '1. : Something.', it has no name",),
    ),
    "a sentence instead of a name": (
        f"{HEAD}1) There is a very big brown dog that runs along the long beach",
        SCENE,
        (("There is a very big brown dog that runs along the long beach", ""),),
        ("line 4: no ':' after a name", "has no description"),
    ),
    "json": ('{"description": "x"}', '{"description": "x"}', (), ("no objects were found",)),
}


@pytest.mark.parametrize(("text", "description", "objects", "notes"), MESS.values(), ids=MESS.keys())
def test_what_models_and_people_write_is_read_as_meant(text, description, objects, notes):
    paragraph, said = Paragraph.parse(text)
    assert paragraph == Paragraph(description, tuple(ObjectDescription(*item) for item in objects))
    for expected in notes:
        assert any(expected in note for note in said), said
    if not notes:
        assert said == []


def test_construction_puts_every_field_on_one_line():
    paragraph = Paragraph(" a\r\n b\u2028c\xa0\x00d ", (ObjectDescription("Big\n\tDog", "x \u200b y\ufeff"),))
    assert str(paragraph) == "Video Description: a b c d\n\nObject Descriptions:\n1. Big Dog: x y"


def test_an_empty_paragraph_has_both_headings():
    assert str(Paragraph("")) == "Video Description:\n\nObject Descriptions:"


def test_emphasis_is_not_part_of_a_name():
    assert [ObjectDescription(name).name for name in ("**Cat**", "*Cat*", "__Cat__", "`Cat`", "*NSYNC")] == [
        "Cat",
        "Cat",
        "Cat",
        "Cat",
        "*NSYNC",
    ]


def test_an_object_is_found_regardless_of_case_and_composition():
    paragraph = Paragraph("", (ObjectDescription("Café"), ObjectDescription("STRASSE")))
    assert paragraph.find(unicodedata.normalize("NFD", "CAFÉ")) is paragraph.objects[0]
    assert paragraph.find("straße") is paragraph.objects[1]
    assert paragraph.find("tea") is None
    assert paragraph.names == ("Café", "STRASSE")


@pytest.mark.parametrize("name", ["", "  \n", "****", "\u200b", "\u200f"])
def test_an_empty_name_is_refused(name):
    with pytest.raises(ValueError, match="must not be empty"):
        ObjectDescription(name, "x")


def test_a_name_that_would_end_early_is_refused():
    with pytest.raises(ValueError, match=r"must not hold ': '.*got 'Cat: black'.*use 'Cat'"):
        ObjectDescription("Cat:\nblack", "x")


def test_equal_names_are_refused_and_named():
    with pytest.raises(ValueError, match=r"unique regardless of case, got 'Dog' and 'DOG'"):
        Paragraph("", (ObjectDescription("Dog"), ObjectDescription("Cat"), ObjectDescription("DOG")))
    dog = ObjectDescription("Dog")
    with pytest.raises(ValueError, match="'Dog' and 'Dog'"):
        Paragraph("", (dog, dog))


def test_wrong_kinds_are_refused():
    with pytest.raises(TypeError, match="name must be a str, got int"):
        ObjectDescription(3, "x")
    with pytest.raises(TypeError, match="description must be a str, got NoneType"):
        ObjectDescription("x", None)
    with pytest.raises(TypeError, match="paragraph's description must be a str"):
        Paragraph(b"x")
    with pytest.raises(TypeError, match="must be ObjectDescription, got str"):
        Paragraph("x", ("Dog: brown",))
    with pytest.raises(TypeError, match="read from a str, got bytes"):
        Paragraph.parse(b"x")


@pytest.mark.parametrize(
    "data", [{}, {"description": "x"}, {"description": 3, "objects": []}, {"description": "x", "objects": [1]}]
)
def test_json_of_another_shape_is_refused(data):
    with pytest.raises(ValueError, match="a paragraph's JSON must be"):
        Paragraph.from_json(data)


@pytest.mark.parametrize(
    ("text", "name", "description"),
    [
        ("Dog: A brown dog: old.", "Dog", "A brown dog: old."),
        (" **Dog:** brown\n dog ", "Dog", "brown dog"),
        ("Dog", "Dog", ""),
        ("3:15 Clock: round", "3:15 Clock", "round"),
        ("狗：棕色", "狗", "棕色"),
        ("1. Dog: brown", "1. Dog", "brown"),
    ],
)
def test_one_object_is_read_from_one_line(text, name, description):
    assert ObjectDescription.parse(text) == ObjectDescription(name, description)


def test_an_object_without_a_name_cannot_be_read():
    with pytest.raises(ValueError, match="must be written 'Name: description'"):
        ObjectDescription.parse(" : brown")


HOSTILE = {
    "spaces": " " * 1_000_000,
    "spaces inside": "1." + " " * 1_000_000 + "x",
    "stars": "*" * 1_000_000,
    "underscores": "1. " + "_" * 1_000_000 + ":",
    "backticks and spaces": "` " * 500_000 + "`" * 500_000,
    "quotes": ">" * 1_000_000,
    "colons": ":" * 1_000_000,
    "full-width colons": "：" * 300_000,
    "numbers": "1. " * 330_000,
    "dashes": " - " * 330_000,
    "hashes": "# " * 500_000,
    "objects of one name": "Object Descriptions:\n" + "\n".join(f"1. Dog: {i}" for i in range(50_000)),
    "headings": "Object Descriptions:\n" * 50_000,
    "line ends": "\n" * 1_000_000,
    "short lines": "a\n" * 300_000,
    "one long name": "Object Descriptions:\n" + "a" * 1_000_000 + ": x",
    "one long name in a list": "Object Descriptions:\n1. A: b.\n- " + "a" * 1_000_000 + ": x",
    "marks": "e" + "\u0301" * 300_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_megabyte_of_nonsense_is_read_in_linear_time(text):
    # A quadratic step anywhere would take hours here, so no clock is needed.
    paragraph, _ = Paragraph.parse(text)
    assert Paragraph.parse(str(paragraph)) == (paragraph, [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The Dog's 2 balls!", ["the", "dog", "s", "2", "balls"]),
        ("大熊猫 eats", ["大", "熊", "猫", "eats"]),
        ("बिल्ली काली", ["बिल्ली", "काली"]),
        ("ＤＯＧ 🐕🐕", ["dog", "🐕", "🐕"]),
        ("Straße", ["strasse"]),
        ("--- ...", []),
    ],
)
def test_words_are_case_folded_and_without_punctuation(text, words):
    assert words_of(text) == words


def test_token_f1_counts_words_as_often_as_they_stand():
    assert token_f1(["a", "a", "b"], ["a", "c"]) == pytest.approx(0.4)
    assert token_f1([], ["a"]) == 0.0
    assert token_f1(["a"], ["a"]) == 1.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Object Descriptions:", True),
        ("A dog.\n\n**Identified Object Names and Descriptions**", True),
        ("Dear Sir, the parcel came broken.\nYours", False),
        ("", False),
    ],
)
def test_a_heading_tells_a_paragraph_from_any_other_text(text, expected):
    assert has_heading(text) is expected
