"""What annotating a data set would ask for, before anything is sent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.annotate.annotator import Annotator
from raccoon_datamodules.annotate.caption_matching import label_of
from raccoon_datamodules.annotate.corrections import Corrections
from raccoon_datamodules.annotate.frame_grid import grid_size, uniform_indices
from raccoon_datamodules.annotate.members import is_described
from raccoon_datamodules.annotate.prompts import EXAMPLE, annotation_prompt, change_question, match_question
from raccoon_datamodules.annotate.reader import DatasetReader, Place
from raccoon_datamodules.annotate.statistics import PAPER
from raccoon_datamodules.faults import attempt
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

    ``num_asked`` videos that need text, of which ``num_answered`` are answered in the cache; ``num_matches`` questions
    at most (a class that is a caption's name needs none); ``num_changes`` requests for changes; ``unreadable`` videos.
    Tokens are of the requests not in the cache. ``prompt`` and ``picture`` are the first request's.
    """

    num_videos: int
    num_described: int = 0
    num_asked: int = 0
    num_answered: int = 0
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
        return self.num_asked - self.num_answered + self.num_matches + self.num_changes


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
    there is a cache to look into. Raises as `Index.load`.
    """
    reader = DatasetReader(data)
    known, settings = corrections(reader.keys), annotator.settings
    has_cache = annotator.chat.folder.is_dir()
    found = Estimate(len(reader.places))
    for number, place in enumerate(reader.places, 1):
        if progress is not None:
            progress(number, len(reader.places))
        read = attempt(lambda place=place: _needs(reader, place, every))  # type: ignore[misc]
        if read is None:
            found.num_described += known.text(place.key) is None
            continue
        if isinstance(read, tuple):
            found.unreadable += 1
            continue
        view, wish, text = read, known.wish(place.key), known.text(place.key)
        objects = [view.object(object_id) for object_id in view.meta.objects]
        labels = [label_of(info.category, info.attributes) for info in objects]
        frames = len(uniform_indices(view.num_frames, settings.num_frames))
        size = grid_size(frames, view.meta.height, view.meta.width, max_side=settings.picture_side)
        if text is None:
            found.num_asked += 1
            is_answered = False
            if has_cache or found.picture is None:
                clip = attempt(lambda place=place: reader.clip(place, settings.num_frames))  # type: ignore[misc]
                if isinstance(clip, tuple):
                    found.unreadable += 1
                    found.num_asked -= 1
                    continue
                picture, prompt = annotator.first_request(clip, wish)
                if found.picture is None:
                    found.picture, found.prompt = picture, prompt
                is_answered = annotator.chat.has([picture], prompt)
            hints = [label for label in dict.fromkeys(labels) if name_key(label)][:5]
            found.num_answered += is_answered
            if not is_answered:
                words = {} if wish is None else {"wish": wish.text, "corrected": wish.corrected}
                asked = annotation_prompt(frames, hints=hints, **words)  # type: ignore[arg-type]
                found.input_tokens += count([size], asked)
                found.output_tokens += _ANSWER_TOKENS
        for label in labels:
            is_shown = not name_key(label) or labels.count(label) > 1
            question = match_question(label, EXAMPLE.objects, shown=frames if is_shown else 0)
            found.num_matches += 1
            found.input_tokens += count([size] if is_shown else [], question)
            found.output_tokens += _CHOICE_TOKENS
        if settings.edits == "all" and objects:
            found.num_changes += 1
            found.input_tokens += count([], change_question(EXAMPLE.objects))
            found.output_tokens += _CHANGE_TOKENS * len(objects)
    return found


def _needs(reader: DatasetReader, place: Place, every: bool) -> MemberView | None:
    """The texts of a sample that wants annotating, or None if it has its text already."""
    view = reader.texts(place)
    return None if not every and is_described(view) else view
