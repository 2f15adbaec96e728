"""The annotator: one clip to its paragraph, the caption of each of its objects, and its written edits.

Uniformly sampled frames become one picture with drawn numbers (`frame_grid`), the model answers the paper's prompt with
an example and the known classes as hints (`annotate.prompts`), the answer is read by `Paragraph.parse` and asked for
again with what was wrong while it cannot be used, and the classes are matched to the captions (`caption_matching`).
Where a part is said already, only the rest is asked for (`standing`).

Source: RACCooN, section 3.3, A.1 and figure 6.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules import prompts
from raccoon_datamodules.annotate.caption_matching import Candidate, label_of, match_objects
from raccoon_datamodules.annotate.chat import AnswerCut
from raccoon_datamodules.annotate.chat_cache import CachedChat, NotKept
from raccoon_datamodules.annotate.complaints import AnnotationFailed, complaints, replaced
from raccoon_datamodules.annotate.edit_prompts import change_edit, simple_edits
from raccoon_datamodules.annotate.frame_grid import frame_grid
from raccoon_datamodules.annotate.prompts import annotation_prompt, change_question, read_changes, second_try
from raccoon_datamodules.annotate.standing import Standing, filled, followed
from raccoon_datamodules.members import ObjectInfo
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.sample import EditPrompt
from raccoon_datamodules.wording import name_key

_QUOTED = 80
Edits = Literal["none", "simple", "all"]


@dataclass(frozen=True, slots=True)
class AnnotateSettings:
    """How clips are annotated.

    ``num_frames`` frames in the picture (the paper shows six), ``picture_side`` its longest side in pixels,
    ``max_attempts`` requests until an answer must be usable; ``edits``: "none", "simple" (a removal and an addition of
    each object, no request) or "all" (also one change of each object, one request a clip).

    Raises:
        ValueError: if a number is out of range.
    """

    num_frames: int = 6
    picture_side: int = 1536
    max_attempts: int = 3
    edits: Edits = "simple"

    def __post_init__(self) -> None:
        if not 1 <= self.num_frames <= 64:
            raise ValueError(f"num_frames must be in [1, 64], got {self.num_frames}")
        if not 64 <= self.picture_side <= 8192:
            raise ValueError(f"picture_side must be in [64, 8192] pixels, got {self.picture_side}")
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, got {self.max_attempts}")
        if self.edits not in ("none", "simple", "all"):
            raise ValueError(f"edits must be none, simple or all, got {self.edits!r}")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a reviewer wants of a batch: a remark for the prompt, the paragraph corrected by hand, words to replace."""

    text: str = ""
    corrected: Paragraph | None = None
    replacements: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Clip:
    """What the annotator sees of a sample.

    ``frames`` uint8 [n, H, W, 3], the clip's frames ``indices``; ``objects`` the records of its masks; ``mask`` gives
    an object's mask uint8 {0, 1} [n, H, W] at these frames when it is needed; ``standing`` the text that stays, None
    where there is none.
    """

    key: str
    frames: NDArray[np.uint8]
    indices: tuple[int, ...]
    objects: tuple[ObjectInfo, ...]
    mask: Callable[[str], NDArray[np.uint8]]
    standing: Standing | None = None

    def labels(self) -> dict[str, str]:
        """The label of each object by its id, "" where it has none."""
        return {info.id: label_of(info.category, info.attributes) for info in self.objects}

    def hints(self, wanted: Collection[str] | None = None) -> tuple[str, ...]:
        """The labels, each once, the largest object's first, at most `prompts.MAX_OBJECTS`; of the ids ``wanted``."""
        labels, found = self.labels(), dict[str, str]()
        for info in sorted(self.objects, key=lambda info: -int(info.area.sum())):
            if name_key(labels[info.id]) and (wanted is None or info.id in wanted):
                found.setdefault(name_key(labels[info.id]), labels[info.id])
        return tuple(found.values())[: prompts.MAX_OBJECTS]


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """One answer as it came: what it was asked for ("annotate", "match ID", "changes"), the attempt, the text."""

    purpose: str
    attempt: int
    text: str


@dataclass(frozen=True, slots=True)
class Annotation:
    """A clip's annotation; ``matches`` gives the name of each object's caption by its id, None where it has none.

    ``standing`` is the text that stood and was completed; None where all of it was written now.
    """

    key: str
    paragraph: Paragraph
    matches: Mapping[str, str | None]
    edits: tuple[EditPrompt, ...]
    answers: tuple[RawAnswer, ...]
    notes: tuple[str, ...]
    frames: tuple[int, ...]
    is_corrected: bool = False
    standing: Standing | None = None

    @property
    def raw(self) -> str:
        """The answer that the paragraph was read from, or "" if a person wrote it."""
        last = [answer.text for answer in self.answers if answer.purpose == "annotate"]
        return last[-1] if last else ""

    @property
    def unmatched(self) -> tuple[str, ...]:
        """The ids of the objects that no caption is about."""
        return tuple(object_id for object_id, name in self.matches.items() if not name)

    def to_json(self) -> dict[str, Any]:
        """What is stored of it besides the sample: every raw answer, notes, frames."""
        answers = [{"purpose": a.purpose, "attempt": a.attempt, "text": a.text} for a in self.answers]
        return {
            "key": self.key,
            "frames": list(self.frames),
            "corrected": self.is_corrected,
            **({} if self.standing is None else {"kept": self.standing.to_json()}),
            "matches": dict(self.matches),
            "notes": list(self.notes),
            "answers": answers,
        }


class Annotator:
    """Annotates clips with a chat model whose answers are kept; may be used by several threads."""

    def __init__(self, chat: CachedChat, settings: AnnotateSettings) -> None:
        self.chat = chat
        self.settings = settings

    def first_request(
        self, clip: Clip, wish: Wish | None = None, wanted: Collection[str] | None = None
    ) -> tuple[NDArray[np.uint8], str]:
        """The picture and the prompt that a clip's annotation begins with.

        ``wanted`` holds the ids of the objects that want a caption, of a clip of which something is said already; None
        is all of those that have none.
        """
        wish, standing = wish or Wish(), clip.standing
        if standing is not None and wanted is None:
            wanted = tuple(standing.bare)
        prompt = annotation_prompt(
            len(clip.frames),
            hints=clip.hints(wanted),
            wish=wish.text,
            corrected=wish.corrected,
            standing=None if standing is None else standing.described,
            num_missing=len(wanted or ()),
        )
        return frame_grid(clip.frames, max_side=self.settings.picture_side), prompt

    def annotate(self, clip: Clip, *, wish: Wish | None = None, text: Paragraph | None = None) -> Annotation:
        """Annotate one clip; with ``text``, a paragraph a person wrote, only its objects are matched.

        What is said of the clip already (`Clip.standing`) stays as it is, and only what is missing is asked for; a
        person's text takes the place of its paragraph, while its edits stay.

        Raises:
            AnnotationFailed: if no answer could be used in `AnnotateSettings.max_attempts` attempts.
        Whatever the chat model raises comes through.
        """
        answers: list[RawAnswer] = []

        def ask(images: Sequence[NDArray[np.uint8]], question: str, attempt: int, purpose: str) -> str:
            try:
                answer = self.chat.ask(images, question, attempt=attempt)
            except AnswerCut as err:
                answers.append(RawAnswer(purpose, attempt, err.partial))
                raise
            except NotKept as err:
                err.purpose = purpose
                raise
            answers.append(RawAnswer(purpose, attempt, answer))
            return answer

        standing, notes = clip.standing, list[str]()
        matches: dict[str, str | None] = {info.id: None for info in clip.objects}
        if standing is not None and text is None:
            paragraph = self._fill(clip, standing, wish, ask, matches, notes)
        else:
            if text is None:
                paragraph, notes = self._paragraph(clip, wish, ask)
                paragraph = replaced(paragraph, wish.replacements if wish else {})
            else:
                paragraph = text
                told = {} if standing is None else standing.told
                matches.update({i: found.name for i, name in told.items() if (found := paragraph.find(name))})
            self._match(clip, paragraph.objects, ask, matches, notes)
        edits = () if standing is None else followed(standing, paragraph, matches)
        more, silence = self._edits(paragraph, matches, {(edit.object_id, edit.kind) for edit in edits}, ask)
        return Annotation(
            key=clip.key,
            paragraph=paragraph,
            matches=matches,
            edits=(*edits, *more),
            answers=tuple(answers),
            notes=(*notes, *silence),
            frames=clip.indices,
            is_corrected=text is not None,
            standing=standing,
        )

    def _fill(
        self,
        clip: Clip,
        standing: Standing,
        wish: Wish | None,
        ask: Callable[..., str],
        matches: dict[str, str | None],
        notes: list[str],
    ) -> Paragraph:
        """The paragraph with what was missing; adds to ``matches`` and ``notes``."""
        matches.update(standing.told)
        # A line that is about no mask yet may be about one of these: that is asked before anything is written.
        self._match(clip, standing.free, ask, matches, notes)
        missing = [object_id for object_id, name in matches.items() if name is None]
        answer = Paragraph("")
        if missing or not standing.paragraph.description:
            answer, more = self._paragraph(clip, wish, ask, missing)
            answer = replaced(answer, wish.replacements if wish else {})
            notes += more
            known = {name_key(name) for name in standing.described.names}
            self._match(clip, [o for o in answer.objects if name_key(o.name) not in known], ask, matches, notes)
        return filled(standing, answer, matches)

    def _match(
        self,
        clip: Clip,
        captions: Sequence[ObjectDescription],
        ask: Callable[..., str],
        matches: dict[str, str | None],
        notes: list[str],
    ) -> None:
        """Look among ``captions`` for those of the objects that have none; adds to ``matches`` and ``notes``."""
        taken = {name_key(name) for name in matches.values() if name}
        left = [item for item in captions if name_key(item.name) not in taken]
        wanted = [info.id for info in clip.objects if matches[info.id] is None]
        if not left or not wanted:
            return
        labels = clip.labels()
        found, doubts = match_objects(
            [Candidate(object_id, labels[object_id], self._picture(clip, object_id)) for object_id in wanted],
            Paragraph("", tuple(left)),
            ask,
            num_frames=len(clip.frames),
            max_attempts=self.settings.max_attempts,
            others=[label for object_id, label in labels.items() if object_id not in wanted],
        )
        matches.update(found)
        notes += doubts

    def _paragraph(
        self, clip: Clip, wish: Wish | None, ask: Callable[..., str], wanted: Collection[str] | None = None
    ) -> tuple[Paragraph, list[str]]:
        picture, prompt = self.first_request(clip, wish, wanted)
        usable: list[tuple[int, Paragraph, list[str]]] = []
        faults: list[str] = []
        answer, text = "", prompt
        for attempt in range(self.settings.max_attempts):
            try:
                answer = ask([picture], text, attempt, "annotate")
            except AnswerCut as err:
                answer, faults = err.partial, ["it was cut off at the length limit; use fewer words"]
                text = second_try(prompt, answer, faults)
                continue
            paragraph, notes = Paragraph.parse(answer)
            faults, wishes = complaints(paragraph, needs_objects=wanted is None or len(wanted) > 0)
            if not faults:
                usable.append((len(wishes), paragraph, [*notes, *wishes]))
                if not wishes:
                    break
            text = second_try(prompt, answer, [*faults, *wishes, *notes])
        if not usable:
            attempts = self.settings.max_attempts
            raise AnnotationFailed(
                f"no usable answer in {attempts} attempt{'s'[: attempts != 1]}: {'; '.join(faults)}; the last one "
                f"begins with {' '.join(answer.split())[:_QUOTED]!r}"
            )
        _, paragraph, notes = min(usable, key=lambda found: found[0])
        return paragraph, notes

    def _picture(self, clip: Clip, object_id: str) -> Callable[[], NDArray[np.uint8]]:
        side = self.settings.picture_side
        return lambda: frame_grid(clip.frames, max_side=side, outlined=clip.mask(object_id))

    def _edits(
        self,
        paragraph: Paragraph,
        matches: Mapping[str, str | None],
        there: Collection[tuple[str, str]],
        ask: Callable[..., str],
    ) -> tuple[tuple[EditPrompt, ...], list[str]]:
        """Edits, but for those of an object and a kind that are ``there``; and notes."""
        if self.settings.edits == "none":
            return (), []
        edits = tuple(edit for edit in simple_edits(paragraph, matches) if (edit.object_id, edit.kind) not in there)
        matched = [(i, name) for i, name in matches.items() if name and (i, "change") not in there]
        if self.settings.edits == "simple" or not matched:
            return edits, []
        objects = [found for _, name in matched if (found := paragraph.find(name)) is not None]
        text = question = change_question(objects)
        for attempt in range(self.settings.max_attempts):
            try:
                answer = ask([], text, attempt, "changes")
            except AnswerCut as err:
                answer = err.partial
            if changes := read_changes(answer, objects):
                made = [change_edit(paragraph, *matched[place], *change) for place, change in sorted(changes.items())]
                return (*edits, *(edit for edit in made if edit is not None)), []
            text = second_try(question, answer, ["no line has the form <number>. <instruction> => <name>: <text>"])
        return edits, [f"no usable answer to the changes asked for in {self.settings.max_attempts} attempts"]
