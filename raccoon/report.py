"""A self-contained HTML page about one edit: before and after with the mask outlined, both texts, plan, measurements.

The page loads nothing from anywhere: pictures are embedded as PNG. It can be sent to a colleague as it is.
"""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from raccoon.editor import EditResult, EncodedReport
from raccoon.plan import marked_words
from raccoon_datamodules.atomic import replacing
from raccoon_datamodules.paragraph import Paragraph

MASK_COLOUR = (255, 196, 0)
STRIP_HEIGHT = 200

STYLE = """
:root { color-scheme: light dark; --line: #8884; --muted: #777; --del: #e0535333; --ins: #2fa86033; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1120px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem }
h2 { font-size: 1.25rem; margin: 3rem 0 0 }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .5rem }
.strip { display: flex; gap: 4px; margin-bottom: 6px; align-items: stretch }
.strip img { flex: 1 1 0; min-width: 0; height: auto; align-self: flex-start; border-radius: 4px }
.strip b { writing-mode: vertical-rl; transform: rotate(180deg); font-size: .8rem; color: var(--muted);
  text-align: center }
.texts { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem }
.texts div { border: 1px solid var(--line); border-radius: 6px; padding: .8rem 1rem }
.texts h4 { margin: 0 0 .5rem; font-size: .9rem; color: var(--muted); font-weight: 600 }
del { background: var(--del); text-decoration: line-through } ins { background: var(--ins); text-decoration: none }
table { border-collapse: collapse } td, th { text-align: left; padding: .25rem 1.2rem .25rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top } th { font-weight: 600 }
.note { border-left: 4px solid #d9a400; padding: .3rem .8rem; margin: 1rem 0 }
p.muted { color: var(--muted); margin-top: 0 }
@media (max-width: 700px) { .texts { grid-template-columns: 1fr } }
"""


def strip(
    frames: NDArray[np.uint8],
    *,
    mask: NDArray[np.uint8] | None = None,
    indices: Sequence[int] | None = None,
    height: int = STRIP_HEIGHT,
) -> list[NDArray[np.uint8]]:
    """Frames chosen evenly and shrunk or enlarged for a page, the mask's outline drawn on them.

    frames uint8 [F, H, W, 3]; mask uint8 {0, 1} [F, H, W]; returns pictures uint8 [h, w, 3].
    """
    chosen = even_indices(len(frames)) if indices is None else indices
    pictures = []
    for index in chosen:
        frame = frames[index]
        scale = height / frame.shape[0]
        size = (max(1, round(frame.shape[1] * scale)), height)
        picture = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
        if mask is not None:
            enlarged = cv2.resize(mask[index], size, interpolation=cv2.INTER_NEAREST)
            contours, _ = cv2.findContours(enlarged, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            picture = cv2.drawContours(np.ascontiguousarray(picture), contours, -1, MASK_COLOUR, 2)
        pictures.append(np.asarray(picture, dtype=np.uint8))
    return pictures


def even_indices(num_frames: int, count: int = 6) -> list[int]:
    """Up to ``count`` frame numbers, the middles of equal parts of the video."""
    count = min(count, num_frames)
    return [int((i + 0.5) * num_frames / count) for i in range(count)]


def measurement_rows(result: EditResult, encoded: EncodedReport) -> dict[str, str]:
    """The measurements of a result in words, for people."""
    psnr = "equal" if encoded.psnr_outside is None else f"PSNR {encoded.psnr_outside:.1f} dB"
    return {
        "outside the mask, before encoding": f"max error {result.measurements.max_error_outside} of 255",
        "outside the mask, after encoding": f"max error {encoded.max_error_outside} of 255, {psnr}",
        "region that may change": f"{100 * result.measurements.region_fraction:.1f} % of the picture",
        "kept": f"{encoded.width}x{encoded.height}, {encoded.num_frames} frames, {encoded.fps:.4g} fps, "
        f"timestamps within {encoded.timestamps_error:.2g} s, {'sound' if encoded.has_sound else 'no sound'}",
        "time": ", ".join(f"{name} {value:.1f} s" for name, value in result.measurements.seconds.items()),
    }


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """One edit on a page; ``heading`` is None where the page is about nothing else; ``extra`` further measurements."""

    result: EditResult
    encoded: EncodedReport
    heading: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


def edit_report(sections: Sequence[Section], *, title: str, notes: Sequence[str] = ()) -> str:
    """Write the page about one or several edits; ``notes`` are said on top, in a box each."""
    parts = [f"<h1>{_text(title)}</h1>", *(f"<div class=note>{_text(note)}</div>" for note in notes)]
    for section in sections:
        parts += _section(section)
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{_text(title)}</title><style>{STYLE}</style>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _section(section: Section) -> list[str]:
    result, source = section.result, section.result.source
    indices = even_indices(source.num_frames)
    parts = [] if section.heading is None else [f"<h2 class=edit>{_text(section.heading)}</h2>"]
    parts += [
        f"<p class=muted>{source.width} x {source.height} pixels, {source.num_frames} frames, "
        f"{source.fps:.4g} frames per second; the outline is the region that may change</p>",
        _strip_row("before", strip(source.frames, mask=result.region, indices=indices)),
        _strip_row("after", strip(result.video.frames, indices=indices)),
    ]
    if result.before is not None and result.after is not None:
        parts.append("<h3>The text</h3>" + _texts(result.before, result.after))
    edits = "".join(f"<li>{_text(str(edit))}</li>" for edit in result.plan.edits)
    parts.append(f"<h3>The plan</h3><ol>{edits}</ol>")
    parts.extend(f"<p>{_text(note)}</p>" for note in result.notes)
    rows = {**section.extra, **measurement_rows(result, section.encoded)}
    table = "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in rows.items())
    parts.append(f"<h3>Measured</h3><table>{table}</table>")
    return parts


def write_report(sections: Sequence[Section], path: Path, *, title: str, notes: Sequence[str] = ()) -> None:
    """Write the page to a file, whole or not at all; see `edit_report`."""
    page = edit_report(sections, title=title, notes=notes)
    with replacing(path, overwrite=True) as part:
        part.write_text(page, encoding="utf-8")


def write_strip(result: EditResult, path: Path, *, height: int = 120, count: int = 5) -> None:
    """Write one picture: frames before, the mask outlined, above the same frames after."""
    indices = even_indices(result.source.num_frames, count)
    before = strip(result.source.frames, mask=result.region, indices=indices, height=height)
    write_rows([before, strip(result.video.frames, indices=indices, height=height)], path)


def write_rows(rows: Sequence[Sequence[NDArray[np.uint8]]], path: Path, *, gap: int = 4) -> None:
    """Write rows of equally large pictures uint8 [h, w, 3] as one PNG, ``gap`` white pixels apart."""
    padded = [[np.pad(p, ((0, gap), (0, gap), (0, 0)), constant_values=255) for p in row] for row in rows]
    picture = np.concatenate([np.concatenate(row, axis=1) for row in padded])[:-gap, :-gap]
    with replacing(path, overwrite=True) as part:
        part.write_bytes(_png(picture))


def _strip_row(label: str, pictures: Sequence[NDArray[np.uint8]]) -> str:
    images = "".join(f"<img alt='{label}, picture {i}' src='{_data_uri(p)}'>" for i, p in enumerate(pictures, 1))
    return f"<div class=strip><b>{label}</b>{images}</div>"


def _data_uri(picture: NDArray[np.uint8]) -> str:
    return "data:image/png;base64," + base64.b64encode(_png(picture)).decode("ascii")


def _png(picture: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
    if not done:
        raise RuntimeError(f"a picture of shape {picture.shape} could not be written as PNG")
    return data.tobytes()


def _texts(before: Paragraph, after: Paragraph) -> str:
    old, new = marked_words(str(before), str(after))
    return (
        f"<div class=texts><div><h4>before</h4>{_marked(old, 'del')}</div>"
        f"<div><h4>after</h4>{_marked(new, 'ins')}</div></div>"
    )


def _marked(words: Sequence[tuple[str, bool]], tag: str) -> str:
    """Words with the changed ones marked; line breaks are words of their own."""
    out = []
    for word, changed in words:
        text = _text(word).replace("\n", "<br>")
        out.append(f"<{tag}>{text}</{tag}>" if changed and text.strip() else text)
    return "".join(out)


def _text(text: str) -> str:
    return html.escape(text, quote=True)
