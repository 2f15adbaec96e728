"""What annotating a data set would ask for, before anything is sent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.annotate.annotator import AnnotateSettings, Annotator, Clip, Wish
from raccoon_datamodules.annotate.caption_matching import label_of
from raccoon_datamodules.annotate.chat import ChatError
from raccoon_datamodules.annotate.chat_cache import NotKept
from raccoon_datamodules.annotate.complaints import AnnotationFailed
from raccoon_datamodules.annotate.corrections import Corrections
from raccoon_datamodules.annotate.frame_grid import grid_size, uniform_indices
from raccoon_datamodules.annotate.members import is_described
from raccoon_datamodules.annotate.prompts import EXAMPLE, annotation_prompt, change_question, match_question
from raccoon_datamodules.annotate.reader import DatasetReader
from raccoon_datamodules.annotate.standing import Standing, standing_of
from raccoon_datamodules.annotate.statistics import PAPER
from raccoon_datamodules.faults import attempt
from raccoon_datamodules.members import MemberError
from raccoon_datamodules.paragraph import Paragraph
from raccoon_datamodules.view import MemberView
from raccoon_datamodules.wording import name_key

Progress = Callable[[int, int], None]
# ((height, width) of each picture, text) -> tokens
CountTokens = Callable[[Sequence[tuple[int, int]], str], int]

# Tokens a word of English has, about; an answer is taken to be as long as the paper's.
_TOKENS_PER_WORD = 1.4
_ANSWER_TOKENS = int(PAPER.words_per_paragraph * _TOKENS_PER_WORD)
_CHOICE_TOKENS = 4
_CHANGE_TOKENS = 60


@dataclass(slots=True)
class Estimate:
    """Requests and tokens of a run, if every answer is usable at once.

    ``num_asked`` videos that need text, ``num_filled`` of them only a part of it, ``num_answered`` answered in the
    cache. Of requests not in the cache: ``num_paragraphs`` for texts, ``num_matches`` questions which caption is about
    an object, at most (a class that is a caption's name needs none), ``num_changes`` for changes; tokens are theirs.
    ``unreadable`` videos. ``prompt`` and ``picture`` are the first request's.
    """

    num_videos: int
    num_described: int = 0
    num_asked: int = 0
    num_filled: int = 0
    num_answered: int = 0
    num_paragraphs: int = 0
    num_matches: int = 0
    num_changes: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    unreadable: int = 0
    prompt: str = ""
    picture: NDArray[np.uint8] | None = None

    @property
    def num_requests(self) -> int:
        """Requests that would be sent, at most."""
        return self.num_paragraphs + self.num_matches + self.num_changes


def plain_count(sizes: Sequence[tuple[int, int]], text: str) -> int:
    """About the tokens of a prompt where the model does not say: four letters, or 28 x 28 pixels, to a token."""
    return len(text.encode()) // 4 + sum(-(-height // 28) * -(-width // 28) for height, width in sizes)


def estimate_run(
    data: str | Path,
    annotator: Annotator,
    *,
    count: CountTokens = plain_count,
    corrections: Callable[[Sequence[str]], Corrections] = Corrections,
    every: bool = False,
    progress: Progress | None = None,
) -> Estimate:
    """Estimate what annotating ``data`` would send; sends nothing and needs no key.

    ``count`` counts tokens; ``corrections`` makes the corrections for the data set's keys. Clips are decoded only where
    there is a cache to look into: what is answered there is gone through as a run would, up to the first question that
    is not. Raises as `Index.load`.
    """
    reader = DatasetReader(data)
    known = corrections(reader.keys)
    offline = Annotator(annotator.chat.offline(), annotator.settings)
    has_cache = annotator.chat.folder.is_dir()
    found = Estimate(len(reader.places))
    for number, place in enumerate(reader.places, 1):
        if progress is not None:
            progress(number, len(reader.places))
        text, wish = known.text(place.key), known.wish(place.key)
        view = attempt(lambda place=place: reader.texts(place))  # type: ignore[misc]
        if not isinstance(view, tuple) and not every and text is None and is_described(view):
            found.num_described += 1
            continue
        clip = None
        if has_cache or (found.picture is None and text is None):
            clip = attempt(lambda place=place: reader.clip(place, annotator.settings.num_frames, anew=every))  # type: ignore[misc]
        if isinstance(view, tuple) or isinstance(clip, tuple):
            found.unreadable += 1
            continue
        standing = None if every else attempt(lambda view=view: standing_of(view))  # type: ignore[misc]
        if isinstance(standing, tuple):
            found.unreadable += 1
            continue
        if text is None:
            found.num_asked += 1
            found.num_filled += standing is not None
            if found.picture is None and clip is not None:
                found.picture, found.prompt = annotator.first_request(clip, wish)
        wanted = _Wanted.of(view, standing, text, annotator.settings)
        if has_cache and clip is not None:
            is_missing = _first_missing(offline, clip, wish, text)
            found.num_answered += text is None and is_missing != "annotate"
            wanted = wanted.after(is_missing)
        _add(found, wanted, wish, count)
    return found


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be asked about a video at most: its text, captions for objects with these labels, changes of them.

    ``size`` (height, width) of the picture of ``frames`` frames; ``shared`` the labels that words cannot tell apart;
    ``rounds`` how often each object may be asked about.
    """

    size: tuple[int, int]
    frames: int
    has_text: bool
    labels: tuple[str, ...]
    shared: frozenset[str]
    num_changes: int
    standing: Standing | None = None
    rounds: int = 1

    @classmethod
    def of(cls, view: MemberView, standing: Standing | None, text: object, settings: AnnotateSettings) -> "_Wanted":
        objects = [view.object(object_id) for object_id in view.meta.objects]
        labels = [label_of(info.category, info.attributes) for info in objects]
        frames = len(uniform_indices(view.num_frames, settings.num_frames))
        size = grid_size(frames, view.meta.height, view.meta.width, max_side=settings.picture_side)
        shared = frozenset(label for label in labels if not name_key(label) or labels.count(label) > 1)
        changed, rounds = set[str](), 1
        has_text = text is not None
        if standing is not None:
            labels = [label for label, info in zip(labels, objects, strict=True) if info.id in standing.bare]
            changed = {edit.object_id for edit in standing.edits if edit.kind == "change"}
            has_text = has_text or bool(not standing.bare and standing.paragraph.description)
            rounds = 2 if standing.free and not has_text else 1
        num_changes = sum(info.id not in changed for info in objects) if settings.edits == "all" else 0
        return cls(size, frames, has_text, tuple(labels), shared, num_changes, standing, rounds)

    def after(self, missing: str) -> "_Wanted":
        """What is left where the first question that is not answered is ``missing`` ("" if every one is)."""
        if missing == "annotate":
            return self
        labels = self.labels if missing.startswith("match") else ()
        return replace(self, has_text=True, labels=labels, num_changes=self.num_changes if missing else 0)


def _first_missing(annotator: Annotator, clip: Clip, wish: Wish | None, text: Paragraph | None) -> str:
    """What the first question that is not answered in the cache is for, "" if a run would ask nothing."""
    try:
        annotator.annotate(clip, wish=wish, text=text)
    except NotKept as err:
        return err.purpose
    except (ChatError, AnnotationFailed, MemberError):
        # The run ends here, too, with this video left out.
        return ""
    return ""


def _add(found: Estimate, wanted: _Wanted, wish: Wish | None, count: CountTokens) -> None:
    if not wanted.has_text:
        standing = wanted.standing
        hints = [label for label in dict.fromkeys(wanted.labels) if name_key(label)][:5]
        asked = annotation_prompt(
            wanted.frames,
            hints=hints,
            wish="" if wish is None else wish.text,
            corrected=None if wish is None else wish.corrected,
            standing=None if standing is None else standing.described,
            num_missing=len(wanted.labels),
        )
        found.num_paragraphs += 1
        found.input_tokens += count([wanted.size], asked)
        found.output_tokens += _ANSWER_TOKENS
    for label in wanted.labels * wanted.rounds:
        is_shown = label in wanted.shared
        question = match_question(label, EXAMPLE.objects, shown=wanted.frames if is_shown else 0)
        found.num_matches += 1
        found.input_tokens += count([wanted.size] if is_shown else [], question)
        found.output_tokens += _CHOICE_TOKENS
    if wanted.num_changes:
        found.num_changes += 1
        found.input_tokens += count([], change_question(EXAMPLE.objects))
        found.output_tokens += _CHANGE_TOKENS * wanted.num_changes
