"""Whole datasets through the describer and the editor: `raccoon predict --config predict/describe` and `predict/edit`.

The parts are those of a pipeline recipe, built on each rank once its device is known. Results are written as they come
(`raccoon.tasks.results`), so that a stopped run goes on where it was, with any number of processes; paragraphs and
frames do not depend on that number.
"""

import sys
import time
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, ClassVar, get_args

import lightning.pytorch as pl

from raccoon import recipes
from raccoon.editor import Editor, EditRequest, PartError, write_result
from raccoon.editor.output import sidecar_of
from raccoon.editor.request import at_work
from raccoon.interfaces import DescribeRequest, Description
from raccoon.provenance import hash_file
from raccoon.tasks.results import Results
from raccoon_datamodules.corpus import CorpusBatch, CorpusDataModule
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.masks import Masks, mask_of_boxes
from raccoon_datamodules.order import draw
from raccoon_datamodules.sample import EditKind, EditPrompt, VplmSample

_SAY_EVERY_SECONDS = 30.0
# Fields of a sidecar that an edit's record has too. Recipe and settings stand once in the folder.
_KEPT = ("output", "before", "after", "plan", "seed", "grow", "feather", "measurements", "result")


class PredictTask(pl.LightningModule):
    """Answers each sample of a `CorpusDataModule` with a record and keeps the records in a folder; see `Results`.

    A sample that cannot be read or answered gets a record with ``error``; the run goes on, and the next one in the
    same folder tries it again.

    Args:
        pipeline: pipeline recipe, a name in ``conf/`` or a path.
        out: folder of the results.
        overrides: dotted flags for the recipe, such as ``describer.weights=DIR``.

    Raises:
        ValueError: if the recipe lacks the part, or as `recipes.load`.
        FileNotFoundError: if there is no such recipe.
    """

    results_name: ClassVar[str]
    # Of the recipe; the last one must be there.
    sections: ClassVar[tuple[str, ...]]

    def __init__(self, pipeline: str, out: str, *, overrides: Sequence[str] = ()) -> None:
        super().__init__()
        self.out = out
        merged = recipes.load(pipeline, (), overrides)
        self.config = {name: merged[name] for name in self.sections if merged.get(name) is not None}
        if self.sections[-1] not in self.config:
            raise ValueError(f"the recipe {pipeline} has no {self.sections[-1]}; choose one that has")
        self._results: Results | None = None
        self._since = self._said_at = 0.0

    @abstractmethod
    def build(self) -> None:
        """Build the recipe's parts."""

    @abstractmethod
    def answer(self, samples: Sequence[tuple[int, VplmSample]]) -> list[dict[str, Any]]:
        """Return what is to be recorded of each (ordinal, sample)."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what else decides about the results, as plain JSON."""

    def setup(self, stage: str) -> None:
        """Open the folder, tell the data what is done, and build the parts if something is left to do.

        Raises:
            TypeError: if the data does not come from a `CorpusDataModule`.
            ValueError: if the folder holds results of another recipe or other data.
        """
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, CorpusDataModule):
            raise TypeError(
                f"{type(self).__name__} works on whole samples, so data.class_path must be "
                f"raccoon_datamodules.corpus.CorpusDataModule, got {type(data).__name__}"
            )
        made_by = {"recipe": self.config, "data": data.source.fingerprint(), "settings": self.settings()}
        self._results = Results(self.out, self.results_name, made_by=made_by, rank=self.global_rank)
        data.done = self._results.done()
        if len(data.done) < data.num_samples:
            self.build()
        self._since = self._said_at = time.monotonic()

    def predict_step(self, batch: CorpusBatch, batch_idx: int) -> int:
        """Answer a batch, write its records down, and return their number."""
        assert self._results is not None
        samples = [(one.ordinal, one.value) for one in batch.loaded if one.value is not None]
        records = [
            {"ordinal": ordinal, "key": sample.key, **answer}
            for (ordinal, sample), answer in zip(samples, self.answer(samples), strict=True)
        ]
        for fault in (fault for one in batch.loaded for fault in one.faults):
            records.append({"ordinal": fault.ordinal, "key": fault.key, "error": str(fault)})
        self._results.append(sorted(records, key=lambda record: int(record["ordinal"])))
        self._say(batch_idx + 1)
        return len(records)

    def teardown(self, stage: str) -> None:
        """Join the ranks' records and say what there is. Not in ``on_predict_end``, which idle ranks never reach.

        Raises:
            RuntimeError: if every sample failed.
        """
        if self._results is None:
            return
        self.trainer.strategy.barrier("raccoon.predict")
        if not self.trainer.is_global_zero:
            return
        summary = self._results.join()
        if summary.num_failed and not summary.num_done:
            raise RuntimeError(f"all {summary.num_failed} samples failed, the first one: {summary.reason}")
        failed = f', {summary.num_failed} failed, see "error"' if summary.num_failed else ""
        print(f"{self._results.path}: {summary.num_done} samples{failed}", flush=True)

    def _say(self, done: int) -> None:
        now = time.monotonic()
        if self.trainer.is_global_zero and now - self._said_at >= _SAY_EVERY_SECONDS:
            self._said_at = now
            total = sum(self.trainer.num_predict_batches)
            print(f"batch {done}/{total}, {(now - self._since) / done:.3g} s a batch", file=sys.stderr, flush=True)


class DescribeTask(PredictTask):
    """Writes the paragraph of every clip: ``descriptions.jsonl`` in ``out``.

    A record holds ``ordinal``, ``key``, ``paragraph`` (`Paragraph.from_json` reads it), ``raw`` (the text as the
    describer wrote it) and ``sampling``. Clips go to the describer in the data's batches where it offers
    ``describe_batch``. Arguments: see `PredictTask`.
    """

    results_name = "descriptions"
    sections = ("describer",)

    def build(self) -> None:
        """Build the describer."""
        self.describer: Any = recipes.build(self.config).parts["describer"]

    def settings(self) -> dict[str, Any]:
        """Nothing beyond the recipe."""
        return {}

    def answer(self, samples: Sequence[tuple[int, VplmSample]]) -> list[dict[str, Any]]:
        """Describe the clips."""
        requests = [DescribeRequest(sample.video) for _, sample in samples]
        if len(requests) > 1 and callable(many := getattr(self.describer, "describe_batch", None)):
            # One bad clip must not take its batch with it.
            with suppress(ValueError), at_work(self.describer, "describing a batch"):
                return [self._record(found) for found in many(requests)]
        return [self._one(request) for request in requests]

    def _one(self, request: DescribeRequest) -> dict[str, Any]:
        try:
            with at_work(self.describer, "describing a clip"):
                return self._record(self.describer.describe(request))
        except ValueError as err:
            return {"error": str(err)}

    def _record(self, found: object) -> dict[str, Any]:
        if not isinstance(found, Description):
            name = type(self.describer).__name__
            raise PartError(f"{name}.describe must return a Description, got a {type(found).__name__}")
        return {"paragraph": found.paragraph.to_json(), "raw": found.raw, "sampling": dict(found.sampling)}


class EditTask(PredictTask):
    """Performs the written edits of all samples with the dataset's masks: ``edits.jsonl`` and ``clips/`` in ``out``.

    A removal or change is given the object's mask; an addition starts from the clip without the object and is given its
    boxes. The record of a sample holds ``edits``: for each its number in the sample, kind, object and instruction, and
    what a sidecar says (``output.name`` is the clip in ``clips/``, KEY-NUMBER.mkv or .mp4), or the ``error`` for which
    the editor refused it.

    Args:
        pipeline, out, overrides: see `PredictTask`.
        kinds: edits to perform, of remove, add and change; None = all that the painter can.
        edits_per_clip: the first so many of those of a sample; None = all.
        lossless: write .mkv bit for bit, else .mp4.
        seed: each edit's seed is drawn by (seed, ordinal, its number).

    Raises:
        ValueError: if a kind is unknown or edits_per_clip not positive.
    """

    results_name = "edits"
    sections = ("editor", "painter")

    def __init__(
        self,
        pipeline: str,
        out: str,
        *,
        overrides: Sequence[str] = (),
        kinds: Sequence[EditKind] | None = None,
        edits_per_clip: int | None = None,
        lossless: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(pipeline, out, overrides=overrides)
        if unknown := [kind for kind in kinds or () if kind not in get_args(EditKind)]:
            raise ValueError(f"kinds must be of {', '.join(get_args(EditKind))}, got {unknown[0]!r}")
        if edits_per_clip is not None and edits_per_clip < 1:
            raise ValueError(f"edits_per_clip must be at least 1, got {edits_per_clip}")
        self.kinds = None if kinds is None else tuple(kinds)
        self.edits_per_clip = edits_per_clip
        self.lossless = lossless
        self.seed = seed

    def build(self) -> None:
        """Build the editor with its painter alone, since masks and paragraphs are given."""
        self.editor = Editor.from_recipe(self.config)

    def settings(self) -> dict[str, Any]:
        """What is edited, how and by which seed."""
        names = ("kinds", "edits_per_clip", "lossless", "seed")
        return {name: getattr(self, name) for name in names}

    def answer(self, samples: Sequence[tuple[int, VplmSample]]) -> list[dict[str, Any]]:
        """Edit the clips, one edit after the other."""
        kinds = self.editor.painter.kinds if self.kinds is None else self.kinds
        records = []
        for ordinal, sample in samples:
            chosen = [(number, edit) for number, edit in enumerate(sample.edits) if edit.kind in kinds]
            chosen = chosen[: self.edits_per_clip]
            records.append({"edits": [self._edit(ordinal, sample, number, edit) for number, edit in chosen]})
        return records

    def _edit(self, ordinal: int, sample: VplmSample, number: int, edit: EditPrompt) -> dict[str, Any]:
        record = {"edit": number, "kind": edit.kind, "object": edit.object_id, "instruction": edit.instruction}
        seed = int(draw(self.seed, ordinal, f"predict/edit{number}").integers(1 << 31))
        try:
            result = self.editor.edit(edit_request(sample, edit, seed=seed))
        except ValueError as err:
            return {**record, "error": str(err)}
        assert self._results is not None
        clip = self._results.folder / "clips" / f"{sample.key}-{number}{'.mkv' if self.lossless else '.mp4'}"
        clip.parent.mkdir(exist_ok=True)
        report = write_result(result, clip, lossless=self.lossless, overwrite=True, sidecar=False)
        said = sidecar_of(result, report, hash_file(clip))
        # Times differ from run to run; the rest is the same however the samples are dealt out.
        said["measurements"].pop("seconds", None)
        (step,) = said["edits"]
        return {**record, "prompt": step["prompt"], "notes": step["notes"], **{name: said[name] for name in _KEPT}}


def edit_request(sample: VplmSample, edit: EditPrompt, *, seed: int = 0) -> EditRequest:
    """Make the request for a written edit of a sample, with the dataset's mask of its object.

    Raises:
        ValueError: if the sample holds no such object, or an addition has no clip without it to start from.
    """
    record = next((record for record in sample.objects if record.id == edit.object_id), None)
    if record is None:
        raise ValueError(
            f"the edit {edit.instruction!r} is about object {edit.object_id}, which sample {sample.key} lacks"
        )
    video, mask, layouts = sample.video, record.mask, None
    if edit.kind == "add":
        if record.inpainted is None:
            raise ValueError(f"object {record.id} of sample {sample.key} has no clip without it, to which to add it")
        video = record.inpainted
        mask = mask_of_boxes(record.boxes, height=video.height, width=video.width)
        layouts = {record.name: Layout(record.name, record.boxes)}
    # Masks of the dataset are meant as they are, also where one covers the whole frame.
    return EditRequest(
        video=video,
        before=edit.before,
        after=edit.after,
        masks=Masks(mask),
        trust_masks=True,
        layouts=layouts,
        seed=seed,
    )
