"""The page on which a person checks one video of every hundred, and corrects through it the rest of its hundred.

One HTML file without anything from outside: the picture the model saw, its raw answers, what was read from them, and
fields for the text, a wish to the model and words to replace. Its button saves ``corrections.json``.
"""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.annotate.annotator import Annotation
from raccoon_datamodules.annotate.corrections import BATCH, CORRECTIONS_NAME, FORMAT
from raccoon_datamodules.annotate.statistics import paragraph_words

# A page of a hundred pictures stays at some ten megabytes.
_MAX_WIDTH = 960
_OBJECT_WIDTH = 240

_STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1240px; padding: 1rem; color: #222; }
section { border-top: 2px solid #ccc; padding: 1rem 0; }
section.changed { border-left: 6px solid #c60; padding-left: 1rem; }
img { max-width: 100%; display: block; }
textarea { width: 100%; box-sizing: border-box; font: inherit; }
pre { white-space: pre-wrap; background: #f4f4f4; padding: .6rem; }
table { border-collapse: collapse; } td, th { border: 1px solid #ccc; padding: .2rem .6rem; text-align: left; }
.note { color: #a40; }
header { position: sticky; top: 0; background: #fff; border-bottom: 1px solid #ccc; padding: .5rem 0; }
button { font: inherit; padding: .3rem 1rem; }
"""

_SCRIPT = """
const content = JSON.parse(document.getElementById("entries").textContent);
const original = JSON.stringify(content);
let saved = original;
function pairs(text) {
  const found = {};
  for (const line of text.split("\\n")) {
    const cut = line.indexOf("=>");
    const old = cut < 0 ? "" : line.slice(0, cut).trim();
    if (old) found[old] = line.slice(cut + 2).trim();
  }
  return found;
}
function collect() {
  for (const section of document.querySelectorAll("section")) {
    const value = content.videos[Number(section.dataset.entry)];
    const before = JSON.stringify(value);
    value.text = section.querySelector(".text").value.split("\\n");
    value.wish = section.querySelector(".wish").value.trim();
    value.replace = pairs(section.querySelector(".replace").value);
    const lines = section.querySelector(".replace").value.split("\\n");
    section.querySelector(".unread").hidden = lines.every((line) => !line.trim() || line.indexOf("=>") > 0);
    const first = JSON.stringify(JSON.parse(original).videos[Number(section.dataset.entry)]);
    section.classList.toggle("changed", JSON.stringify(value) !== first);
  }
  return content;
}
document.addEventListener("input", collect);
document.getElementById("save").addEventListener("click", () => {
  const text = JSON.stringify(collect(), null, 1) + "\\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "application/json"}));
  link.download = "corrections.json";
  link.click();
  saved = JSON.stringify(content);
});
window.addEventListener("beforeunload", (event) => {
  if (JSON.stringify(collect()) !== saved) event.preventDefault();
});
"""


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """One video on the page.

    Its annotation, the picture (uint8 [H, W, 3]), and by id the labels of its objects and pictures of them.
    """

    annotation: Annotation
    picture: NDArray[np.uint8]
    labels: Mapping[str, str]
    objects: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)


def review_page(items: Sequence[ReviewItem], entries: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> str:
    """The page as HTML; ``entries`` are those of ``corrections.json``, ``keys`` the data set's, in stored order."""
    places = {value["key"]: number for number, value in enumerate(entries)}
    order = {key: number for number, key in enumerate(keys)}
    shown = [item for item in items if item.annotation.key in places]
    sections = [
        _section(item, places[item.annotation.key], entries[places[item.annotation.key]], keys, order) for item in shown
    ]
    content = json.dumps({"format": FORMAT, "version": 1, "videos": list(entries)}, ensure_ascii=True)
    # Within a script element only "<" could end it.
    content = content.replace("<", "\\u003c")
    many = f"{len(shown)} video{'s'[: len(shown) != 1]}, one of every {BATCH}"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Review of annotations</title><style>{_STYLE}</style></head>
<body>
<header><button id="save">Save {CORRECTIONS_NAME}</button> {many}</header>
<h1>Review of annotations</h1>
<p>Compare each text with its picture and mend it. A wish is told to the model for the other videos of the same
hundred, which are asked again with the mended text as their example; words to replace are replaced in that hundred
without asking. Then save the file over the {CORRECTIONS_NAME} beside this page and run the same
<code>raccoon vplm annotate</code> again, or hand it over with <code>--corrections FILE</code>. The file can be edited
by hand as well.</p>
{"".join(sections)}
<script type="application/json" id="entries">{content}</script>
<script>{_SCRIPT}</script>
</body></html>
"""


def _section(
    item: ReviewItem, place: int, value: Mapping[str, Any], keys: Sequence[str], order: Mapping[str, int]
) -> str:
    found = item.annotation
    first = order[found.key] // BATCH * BATCH
    last = min(first + BATCH, len(keys)) - 1
    text = value.get("text") or str(found.paragraph)
    text = text if isinstance(text, str) else "\n".join(text)
    replace = "\n".join(f"{old} => {new}" for old, new in value.get("replace", {}).items())
    rows = "".join(
        f"<tr><td>{_object(item, object_id)}{_e(object_id)}</td><td>{_e(item.labels.get(object_id) or '?')}</td>"
        f"<td>{_e(name) if name else '<span class=note>none</span>'}</td></tr>"
        for object_id, name in found.matches.items()
    )
    table = f"<table><tr><th>mask</th><th>class</th><th>caption</th></tr>{rows}</table>" if rows else "<p>No masks.</p>"
    notes = "".join(f'<p class="note">{_e(note)}</p>' for note in found.notes)
    answers = "".join(
        f"<p>{_e(answer.purpose)}, attempt {answer.attempt + 1}</p><pre>{_e(answer.text)}</pre>"
        for answer in found.answers
    )
    stood = _stood(found)
    corrected = " (corrected)" if found.is_corrected else ""
    picture = f'<img src="{_data_url(item.picture)}" alt="numbered frames of {_e(found.key)}">'
    return f"""
<section data-entry="{place}">
<h2>{_e(found.key)}{corrected}</h2>
<p>Stands for videos {first + 1} to {last + 1} of {len(keys)} ({_e(keys[first])} to {_e(keys[last])}).
{paragraph_words(found.paragraph)} words.{stood}</p>
{picture}{notes}{table}
<p><label>Text:<textarea class="text" rows="{min(30, text.count(chr(10)) + len(text) // 110 + 4)}">
{_e(text)}</textarea></label></p>
<p><label>Wish to the model for this hundred:<textarea class="wish" rows="2">
{_e(str(value.get("wish", "")))}</textarea></label></p>
<p><label>Words to replace in this hundred, one "old =&gt; new" a line:<textarea class="replace" rows="2">
{_e(replace)}</textarea></label><span class="note unread" hidden>A line without "=&gt;" is not read.</span></p>
<details><summary>Raw answers ({len(found.answers)})</summary>{answers}</details>
</section>"""


def _object(item: ReviewItem, object_id: str) -> str:
    picture = item.objects.get(object_id)
    return "" if picture is None else f'<img src="{_data_url(picture, _OBJECT_WIDTH)}" alt="the outline of its mask">'


def _stood(found: Annotation) -> str:
    """Which of the words the model did not write."""
    if found.standing is None:
        return ""
    told = [f"{object_id} ({name})" for object_id, name in found.standing.told.items()]
    parts = ["the description of the video"] if found.standing.paragraph.description else []
    parts += [f"the words about {_e(', '.join(told))}"] if told else []
    return f" There before and left as they were: {' and '.join(parts or ['edits or other phrasings'])}."


def _e(text: str) -> str:
    return html.escape(text, quote=True)


def _data_url(picture: NDArray[np.uint8], most: int = _MAX_WIDTH) -> str:
    height, width = picture.shape[:2]
    if width > most:
        size = (most, max(1, round(height * most / width)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
