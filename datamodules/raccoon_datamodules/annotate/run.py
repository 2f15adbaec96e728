"""A whole data set through the annotator: shards in, shards out, and a report of what could not be annotated.

First every clip is annotated, several at a time, each answer kept as it comes; then the shards are written in one go
from the clips' own bytes. A run that was ended goes on where it was, for what is answered is never asked again.

``OUT/annotation/`` holds ``report.json``, every raw answer (``answers.jsonl``, a line a video) and the review page with
its corrections (``review/``).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.annotate.annotator import Annotation, Annotator, Clip
from raccoon_datamodules.annotate.chat import AnswerRefused, ChatError, ChatStopped
from raccoon_datamodules.annotate.complaints import AnnotationFailed
from raccoon_datamodules.annotate.corrections import (
    CORRECTIONS_NAME,
    Corrections,
    load_corrections,
    reviewed_keys,
    save_template,
)
from raccoon_datamodules.annotate.frame_grid import outlined_frame
from raccoon_datamodules.annotate.members import annotated_members, is_described
from raccoon_datamodules.annotate.reader import DatasetReader, Place
from raccoon_datamodules.annotate.report import RunReport, is_ours, write_answers, write_report
from raccoon_datamodules.annotate.review import ReviewItem, review_page
from raccoon_datamodules.annotate.statistics import describe_statistics
from raccoon_datamodules.annotate.thread_pool import in_threads
from raccoon_datamodules.atomic import replacing
from raccoon_datamodules.faults import attempt
from raccoon_datamodules.index import INDEX_NAME, Index
from raccoon_datamodules.members import MemberError
from raccoon_datamodules.paragraph import Paragraph
from raccoon_datamodules.view import MemberView
from raccoon_datamodules.writer import write_encoded

# So many clips in a row that failed at the server or the model are no accident, and cost money.
MAX_FAILED_IN_A_ROW = 10
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a clip: an annotation, text it had already ("kept"), or why there is none.

    The reason may be the clip's own ("failed"), or the model's: no answer ("unanswered"), none that can be used
    ("unusable"), none ever again ("stop").
    """

    key: str
    kind: Literal["done", "kept", "failed", "unanswered", "unusable", "stop"]
    annotation: Annotation | None = None
    reason: str = ""


class DatasetAnnotator:
    """Annotates the shards in ``data`` into the folder ``out``.

    ``by`` says who annotates (plain JSON, no secret); ``corrections`` is a file of corrections, added to those in the
    review folder; ``every`` annotates all videos anew, instead of copying those that have their text already and of
    filling in what is missing where there is a part of it (`standing`); ``keep_unmatched`` keeps objects that no
    caption is about. ``out`` may hold what an earlier run made of the same data; ``overwrite`` is for anything else.

    Raises:
        FileExistsError: if ``out`` holds other shards and ``overwrite`` is not set.
        ValueError: if ``out`` is the folder of the data, or as `load_corrections` and `Index.load`.
        FileNotFoundError: if the data or the corrections are not there.
        NotADirectoryError: if ``out`` is a file.
    """

    def __init__(
        self,
        data: str | Path,
        out: str | Path,
        annotator: Annotator,
        *,
        by: Mapping[str, Any],
        corrections: str | Path | None = None,
        every: bool = False,
        keep_unmatched: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.out = Path(out)
        self.reader = DatasetReader(data)
        if Path(data).exists() and self.out.exists() and self.out.samefile(data):
            raise ValueError(f"the annotated data set must go into another folder than the data, got {out} for both")
        if self.out.exists() and not self.out.is_dir():
            raise NotADirectoryError(f"the annotated data set must go into a folder, {out} is a file; name another")
        self._is_ours = is_ours(self.out, self.reader.source.fingerprint())
        self._overwrite = overwrite or self._is_ours
        if (self.out / INDEX_NAME).exists() and not self._overwrite:
            raise FileExistsError(f"{out} already holds other shards; choose another folder or pass --overwrite")
        self._review = self.out / "annotation" / "review"
        own = self._review / CORRECTIONS_NAME
        self._corrections = [*([own] if own.exists() else []), *([Path(corrections)] if corrections else [])]
        self._known: Corrections = load_corrections(self._corrections, self.reader.keys)
        self._annotator = annotator
        self._by = dict(by)
        self._every = every
        self._keep_unmatched = keep_unmatched
        self._done: dict[str, Annotation] = {}
        self._kept: set[str] = set()
        self._failed: dict[str, str] = {}

    def run(
        self,
        *,
        jobs: int = 4,
        samples_per_shard: int = 1000,
        progress: Progress | None = None,
        stop: Callable[[], None] | None = None,
        waiting: Callable[[int], None] | None = None,
    ) -> RunReport:
        """Annotate ``jobs`` clips at a time and write the shards; failed videos are not written.

        ``progress`` is called with (videos done, all). When the run is interrupted, ``stop`` is called, answers under
        way are waited for, and ``waiting`` is told of how many videos if that takes a while.

        Raises:
            ChatStopped: if the chat model could not be asked at all, or stopped before there was as much as an earlier
                run wrote into the same folder, which stays.
            RuntimeError: if no video could be annotated; names the first failure.
            OSError: if the shards cannot be written.
        """
        report = RunReport(len(self.reader.places))
        report.stopped = self._annotate_all(jobs, progress, stop, waiting)
        if not self._done and not self._kept:
            if report.stopped:
                raise ChatStopped(report.stopped)
            key = next(key for key in self.reader.keys if key in self._failed)
            raise RuntimeError(f"none of {report.num_videos} videos could be annotated; {key}: {self._failed[key]}")
        if report.stopped and (before := self._num_written()) > (now := len(self._done) + len(self._kept)):
            raise ChatStopped(
                f"{report.stopped}; {now} videos have their text, fewer than the {before} that an earlier run wrote "
                f"into {self.out}, which stay as they are"
            )
        fingerprint = self.reader.source.fingerprint()
        write_report(self.out, report, self._by, fingerprint, None)
        counted: list[tuple[Paragraph, list[str]]] = []
        split, samples = self.reader.source.index.split, self._encoded(counted)
        index = write_encoded(
            samples,
            self.out,
            split=split,
            samples_per_shard=samples_per_shard,
            overwrite=self._overwrite,
        )
        report.num_annotated, report.num_kept = len(self._done), len(self._kept)
        report.num_filled = sum(a.standing is not None for a in self._done.values())
        report.num_corrected = sum(annotation.is_corrected for annotation in self._done.values())
        report.num_sent, report.num_from_cache = self._annotator.chat.num_sent, self._annotator.chat.num_kept
        # In stored order, whatever the order in which they ended.
        report.failed = {key: self._failed[key] for key in self.reader.keys if key in self._failed}
        report.noted = {key: list(notes) for key, notes in self._known.notes.items() if key in self._done}
        for key in self.reader.keys:
            if (annotation := self._done.get(key)) and (left := annotation.unmatched):
                report.unmatched[key] = list(left)
        report.statistics = describe_statistics(counted)
        report.reviewed = self._write_review()
        done = [self._done[key] for key in self.reader.keys if key in self._done]
        write_answers(self.out, done)
        write_report(self.out, report, self._by, fingerprint, index)
        return report

    def _num_written(self) -> int:
        """Videos in the shards that an earlier run wrote into the folder."""
        is_there = self._is_ours and (self.out / INDEX_NAME).exists()
        return sum(Index.load(self.out).shard_sizes) if is_there else 0

    def _annotate_all(
        self,
        jobs: int,
        progress: Progress | None,
        stop: Callable[[], None] | None,
        waiting: Callable[[int], None] | None,
    ) -> str:
        """Fill what is done, kept and failed; returns why it ended early, or ""."""
        why, in_a_row, sent = "", 0, 0
        places = self.reader.places
        # What is under way when the run is to end early still ends, and is kept.
        left = takewhile(lambda _: not why, places)
        outcomes = in_threads(self._annotate_one, left, jobs=jobs, stop=stop, waiting=waiting)
        with closing(outcomes):
            for number, outcome in enumerate(outcomes, 1):
                before, sent = sent, self._annotator.chat.num_sent
                # What is known to be unusable from an earlier run costs nothing, and must not keep the rest away.
                is_new = outcome.kind == "unanswered" or (outcome.kind == "unusable" and sent > before)
                in_a_row = in_a_row + 1 if is_new else in_a_row * (outcome.kind == "unusable")
                if outcome.kind == "stop":
                    why = why or outcome.reason
                elif outcome.annotation is not None:
                    self._done[outcome.key] = outcome.annotation
                elif outcome.kind == "kept":
                    self._kept.add(outcome.key)
                else:
                    self._failed[outcome.key] = outcome.reason
                if in_a_row >= MAX_FAILED_IN_A_ROW and not why:
                    kind = "no answer" if outcome.kind == "unanswered" else "no usable answer"
                    why = f"{in_a_row} videos in a row got {kind}; the last: {outcome.key}: {outcome.reason}"
                if progress is not None and not why:
                    progress(number, len(places))
        return why

    def _annotate_one(self, place: Place) -> Outcome:
        text = self._known.text(place.key)

        def read() -> Clip | None:
            if not self._every and text is None and is_described(self.reader.texts(place)):
                return None
            return self.reader.clip(place, self._annotator.settings.num_frames, anew=self._every)

        clip = attempt(read)
        if clip is None:
            return Outcome(place.key, "kept")
        if not isinstance(clip, Clip):
            return Outcome(place.key, "failed", reason=": ".join(filter(None, clip)))
        try:
            annotation = self._annotator.annotate(clip, wish=self._known.wish(place.key), text=text)
        except (ChatStopped, OSError) as err:
            # An OSError here is a disk that takes no more answers.
            return Outcome(place.key, "stop", reason=str(err))
        except (AnswerRefused, MemberError) as err:
            return Outcome(place.key, "failed", reason=str(err))
        except AnnotationFailed as err:
            return Outcome(place.key, "unusable", reason=str(err))
        except ChatError as err:
            return Outcome(place.key, "unanswered", reason=str(err))
        return Outcome(place.key, "done", annotation)

    def _encoded(self, counted: list[tuple[Paragraph, list[str]]]) -> Iterator[tuple[str, dict[str, bytes]]]:
        """The samples that have their text, in stored order; adds the texts to ``counted`` on the way."""
        for place in self.reader.places:
            if place.key not in self._done and place.key not in self._kept:
                continue
            data = attempt(lambda place=place: self._members(place))  # type: ignore[misc]
            if isinstance(data, dict):
                view = MemberView(data)
                counted.append((view.paragraphs()[0], [view.object(name).description for name in view.meta.objects]))
                yield place.key, data
            else:
                self._failed[place.key] = ": ".join(filter(None, data))
                self._done.pop(place.key, None)
                self._kept.discard(place.key)

    def _members(self, place: Place) -> dict[str, bytes]:
        data, annotation = self.reader.read(place), self._done.get(place.key)
        if annotation is None:
            return data
        return annotated_members(data, annotation, by=self._by, keep_unmatched=self._keep_unmatched)

    def _write_review(self) -> list[str]:
        """Write the page and the corrections of the videos set aside; returns their keys."""
        keys = self.reader.keys
        reviewed = reviewed_keys(keys, self._done)
        if not reviewed:
            return []
        self._review.mkdir(parents=True, exist_ok=True)
        places = {place.key: place for place in self.reader.places}
        items = []
        for key in reviewed:
            clip = self.reader.clip(places[key], self._annotator.settings.num_frames)
            picture, _ = self._annotator.first_request(clip)
            items.append(ReviewItem(self._done[key], picture, clip.labels(), _objects_seen(clip)))
        answered = {key: self._done[key].paragraph for key in reviewed}
        entries = save_template(self._review / CORRECTIONS_NAME, answered, self._corrections)
        with replacing(self._review / "index.html", overwrite=True) as temporary:
            temporary.write_text(review_page(items, entries, keys), encoding="utf-8")
        return reviewed


def _objects_seen(clip: Clip) -> dict[str, NDArray[np.uint8]]:
    """The frame that shows most of each object, with its outline, by the object's id."""
    found = {}
    for info in clip.objects:
        mask = clip.mask(info.id)
        most = int(mask.sum(axis=(1, 2)).argmax())
        found[info.id] = outlined_frame(clip.frames[most], mask[most])
    return found
