"""What the two LightningDataModules share: sources, order, and the position that a checkpoint keeps.

To Lightning the training data is one endless stream: set ``max_steps``, ``val_check_interval`` in batches and
``check_val_every_n_epoch: null``. The position is the ordinal after the last finished optimizer step, from Lightning's
own count of processed batches; what workers or Lightning fetched ahead is never counted. Ranks, workers and
accumulation may change between a checkpoint and its continuation: the samples of every following step stay the same.
"""

import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Generic, Literal, TypeVar

import lightning.pytorch as pl
import numpy as np

from raccoon_datamodules.batch import P2VBatch, P2VLatentBatch, V2PBatch
from raccoon_datamodules.cache import CachedView, CacheMiss, FeatureCache
from raccoon_datamodules.faults import FaultLog, Loaded
from raccoon_datamodules.loader import Once, OrderedLoader, OrderedSamples, Place, endless
from raccoon_datamodules.mixture import Corpora, Shards, differences, fingerprint, open_all, open_one, order_of, weighed
from raccoon_datamodules.order import Order, SampleOrder, SampleRef, draw
from raccoon_datamodules.sources import Source
from raccoon_datamodules.tasks import Choice, choose
from raccoon_datamodules.view import SampleView

E = TypeVar("E")
B = TypeVar("B")

STATE_SCHEMA = 1

HeldOut = Literal["val", "test"]


class VplmDataModule(pl.LightningDataModule, Generic[E, B]):
    """Training, validation and test batches of VPLM samples; a subclass makes examples and batches.

    Args (keyword-only, the same in both datamodules):
        train: a folder or http(s) address of shards, a `Source` (synthetic scenes), a list of these, or a mapping of
            folders and addresses to their weights: each block of 1000 samples holds exactly its share of each.
        val: the same for validation, read once through in stored order; None = no validation.
        test: the same for `raccoon test`.
        tasks: weight of each task.
        weights: weight of each corpus of a list in ``train``; None = by their number of samples.
        global_batch_size: samples of one *optimizer step*, over all ranks and accumulated batches.
        val_batch_size: samples of one validation or test batch on one rank; None = those of a training batch.
        seed: of the order and of every draw.
        window_shards: shards that are shuffled together.
        num_workers: processes that read and decode; 0 reads in the training process.
        prefetch: batches each worker keeps ready.
        pin_memory: page-locked batches, for faster copies to a GPU.
        cache: a folder that `raccoon cache` wrote; training takes from it what frozen networks make of a sample.
        cache_miss: "compute" decodes what the cache lacks, "error" ends the run.
        max_bad, max_bad_fraction, quarantine: see `FaultLog`; all ranks share one quarantine list.
        exclude: quarantine lists, of earlier runs or of `raccoon vplm check --bad-list`, whose samples are left out of
            training. The order is another one then, and a checkpoint of a run without them warns of it.
    """

    def __init__(
        self,
        *,
        train: Corpora,
        val: Shards | None,
        test: Shards | None,
        tasks: Mapping[str, float],
        weights: Sequence[float] | None,
        global_batch_size: int,
        val_batch_size: int | None,
        seed: int,
        window_shards: int,
        num_workers: int,
        prefetch: int,
        pin_memory: bool,
        max_bad: int,
        max_bad_fraction: float,
        quarantine: str | None,
        exclude: str | Sequence[str] = (),
        cache: str | None = None,
        cache_miss: CacheMiss = "compute",
    ) -> None:
        super().__init__()
        if global_batch_size < 1 or (val_batch_size is not None and val_batch_size < 1):
            raise ValueError(f"batch sizes must be positive, got {global_batch_size} and {val_batch_size}")
        self.seed = seed
        self.global_batch_size = global_batch_size
        self.val_batch_size = val_batch_size
        self._tasks = dict(tasks)
        self._train, self._weights = weighed(train, weights)
        self._held_out: dict[HeldOut, Shards | None] = {"val": val, "test": test}
        self._window_shards = window_shards
        self._loading = {"num_workers": num_workers, "prefetch": prefetch, "pin_memory": pin_memory}
        self._caps = {"max_bad": max_bad, "max_bad_fraction": max_bad_fraction}
        self._quarantine = quarantine
        self._exclude = exclude
        self.cache = None if cache is None else FeatureCache(cache, miss=cache_miss)
        FaultLog(**self._caps)  # type: ignore[arg-type]  # wrong caps are refused now, not when the first sample fails
        self.train_log: FaultLog | None = None
        self._ordinal = 0
        # (Lightning's progress, its batches processed, parts a step) when reading began at `_ordinal`.
        self._anchor: tuple[Any, int, int] | None = None
        self._sources: list[Source] = []
        self._order: Order | None = None
        self._held_out_sources: dict[HeldOut, Source] = {}

    @abstractmethod
    def make_example(self, view: SampleView, choice: Choice, rng: np.random.Generator) -> E:
        """The example of a chosen task; ``rng`` draws its frames and phrasing."""

    @abstractmethod
    def collate(self, loaded: list[Loaded[E]]) -> B:
        """Examples to a batch; pixels stay 8-bit values."""

    def is_cached(self, example: E) -> bool:
        """Whether an example holds features from a cache instead of pictures."""
        return False

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make floats of a batch's pixels on the device, as every step receives them; see `batch`.

        Lightning asks the datamodule and not the LightningModule where both have this method: one that changes batches
        calls this first (``super().on_after_batch_transfer``).
        """
        if not isinstance(batch, (V2PBatch, P2VBatch, P2VLatentBatch)):
            return batch
        floats = batch.floats()
        if floats is batch or self.trainer is None:
            return floats
        # Lightning has cast what was float by then, for half precision, and these were not.
        return self.trainer.precision_plugin.convert_input(floats)

    @property
    def order(self) -> Order:
        """The training order; opens the sources if need be."""
        if self._order is None:
            self._sources = open_all(self._train, exclude=self._exclude)
            self._order = order_of(self._sources, self._weights, seed=self.seed, window_shards=self._window_shards)
        return self._order

    @property
    def sources(self) -> list[Source]:
        """The training corpora, in the order of their numbers; opens them if need be."""
        _ = self.order
        return self._sources

    @property
    def task_weights(self) -> dict[str, float]:
        """The weight of each task."""
        return dict(self._tasks)

    @property
    def ordinal(self) -> int:
        """The ordinal after the last finished optimizer step: where a continued run begins."""
        if self._anchor is None:
            return self._ordinal
        progress, processed, parts = self._anchor
        return self._ordinal + (progress.total.processed - processed) // parts * self.global_batch_size

    def setup(self, stage: str | None = None) -> None:
        """Open the sources that a stage needs; indexes are read, no sample is.

        Raises as `Index.load`, `SampleOrder` and `MixedOrder`, and `check_trainer` before a fit.
        """
        if stage == "fit":
            check_trainer(self.trainer)
        if stage in (None, "fit"):
            _ = self.order
        if stage in (None, "fit", "validate"):
            self._open_held_out("val")
        if stage in (None, "test"):
            self._open_held_out("test")
        if stage == "fit" and self._anchor is not None:
            # The same trainer goes on where it stopped; a new one begins anew (or loads a checkpoint after this).
            self._ordinal = self.ordinal if self._anchor[0] is _progress(self.trainer) else 0
            self._anchor = None

    def train_dataloader(self) -> OrderedLoader[E, B]:
        """The endless stream of this rank's training batches, from the position on."""
        order = self.order
        samples = OrderedSamples(
            self._sources,
            order,
            partial(self._example, use="train"),
            seed=self.seed,
            cached=None if self.cache is None else self.is_cached,
            decode=partial(self._decoded, use="train"),
        )
        place = self._place(training=True)
        if self.train_log is None:
            self.train_log = FaultLog(self._quarantine, **self._caps)  # type: ignore[arg-type]
        endless(0, self.global_batch_size, place)
        return OrderedLoader(samples, self.collate, self._begin, log=self.train_log, **self._loading)  # type: ignore[arg-type]

    def val_dataloader(self) -> OrderedLoader[E, B] | list[Any]:
        """Every validation sample once, in stored order, with the same task and frames at each validation."""
        return self._once("val")

    def test_dataloader(self) -> OrderedLoader[E, B] | list[Any]:
        """Every test sample once, as in a validation."""
        return self._once("test")

    def state_dict(self) -> dict[str, Any]:
        """The position: schema, seed, ordinal, and (once the data is open) a fingerprint of what ordinals stand for."""
        return {"schema": STATE_SCHEMA, "seed": self.seed, "ordinal": self.ordinal, "data": self._fingerprint()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to a position. A checkpoint that is loaded for anything but training leaves the position alone.

        Raises:
            ValueError: if it is of another schema or of an order with another seed.
        """
        if self.trainer is not None and self.trainer.state.fn not in (None, "fit"):
            return
        schema, seed = state_dict.get("schema"), state_dict.get("seed")
        if schema != STATE_SCHEMA:
            raise ValueError(f"the checkpoint's position in the data has schema {schema!r}, expected {STATE_SCHEMA}")
        if seed != self.seed:
            raise ValueError(
                f"the checkpoint's order has seed {seed}, this datamodule has {self.seed}, so its position means other "
                f"samples; set seed to {seed} to continue the run"
            )
        self._ordinal = int(state_dict["ordinal"])
        now, then = self._fingerprint(), state_dict.get("data")
        if now is not None and then is not None and now != then:
            warnings.warn(
                f"the training data is not what the checkpoint was trained on{differences(then, now)}; the run goes "
                f"on at ordinal {self._ordinal} of the new order, so samples may repeat or be left out; to continue "
                "the same run, give it the data of the checkpoint",
                stacklevel=2,
            )
        self._anchor = None

    def keys_of(self, ordinals: Sequence[int]) -> list[str]:
        """The keys at ordinals, without reading a sample: what a batch held, or will hold."""
        order = self.order
        refs = [order.locate(ordinal) for ordinal in ordinals]
        return [self._sources[ref.corpus].name(ref.shard, ref.sample)[1] for ref in refs]

    def choice(self, source: Source, ref: SampleRef, ordinal: int, use: str = "train") -> Choice:
        """The task that an ordinal gives a sample, and its object, without reading it.

        Raises:
            MemberError: if the sample can serve none of the tasks.
        """
        return choose(source.suffixes(ref.shard, ref.sample), self._tasks, draw(self.seed, ordinal, f"{use}/task"))

    def _fingerprint(self) -> dict[str, Any] | None:
        if self._order is None:
            return None
        return fingerprint(self._sources, self._order, window_shards=self._window_shards, tasks=self._tasks)

    def _once(self, use: HeldOut) -> OrderedLoader[E, B] | list[Any]:
        source = self._open_held_out(use)
        if source is None:
            return []
        order = SampleOrder(source.shard_sizes, seed=self.seed, shuffle=False)
        samples = OrderedSamples([source], order, partial(self._example, use=use), seed=self.seed)
        place = self._place(training=False)
        pieces = place.world * self._place(training=True).parts
        size = self.val_batch_size or max(1, self.global_batch_size // pieces)
        batches = Once(len(order), size, place)
        log = FaultLog(None, **self._caps)  # type: ignore[arg-type]
        return OrderedLoader(
            samples,
            self.collate,
            lambda: iter(batches),
            log=log,
            length=len(batches),
            **self._loading,  # type: ignore[arg-type]
        )

    def _open_held_out(self, use: HeldOut) -> Source | None:
        shards = self._held_out[use]
        if shards is None:
            return None
        if use not in self._held_out_sources:
            self._held_out_sources[use] = open_one(shards, {"val": "validation", "test": "testing"}[use])
        return self._held_out_sources[use]

    def _example(self, source: Source, ref: SampleRef, ordinal: int, use: str) -> E:
        if use != "train" or self.cache is None:
            return self._decoded(source, ref, ordinal, use)
        choice = self.choice(source, ref, ordinal, use)
        view = CachedView(source, ref.shard, ref.sample, choice.wanted)
        return self.make_example(view, choice, draw(self.seed, ordinal, f"{use}/example"))

    def _decoded(self, source: Source, ref: SampleRef, ordinal: int, use: str) -> E:
        """The example, of a view that no cache knows: its pictures are decoded."""
        choice = self.choice(source, ref, ordinal, use)
        view = source.view(ref.shard, ref.sample, choice.wanted)
        return self.make_example(view, choice, draw(self.seed, ordinal, f"{use}/example"))

    def _begin(self) -> Iterator[range]:
        """Fix the position from which a new iteration reads, and what Lightning had counted by then."""
        place = self._place(training=True)
        self._ordinal = self.ordinal
        progress = _progress(self.trainer)
        self._anchor = None if progress is None else (progress, progress.total.processed, place.parts)
        if progress is not None and self.trainer is not None and self.trainer.fit_loop.restarting:
            _align(progress.current, place.parts)
        return endless(self._ordinal, self.global_batch_size, place)

    def _place(self, *, training: bool) -> Place:
        if self.trainer is None:
            return Place()
        ranks = self.trainer.distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
        parts = self.trainer.accumulate_grad_batches if training else 1
        return Place(ranks["rank"], ranks["num_replicas"], parts)

    def __getstate__(self) -> dict[str, Any]:
        """For worker processes: neither trainer nor loader state crosses over."""
        return {**self.__dict__, "trainer": None, "_anchor": None, "train_log": None}


def check_trainer(trainer: pl.Trainer | None) -> None:
    """Refuse settings of the trainer that would train on other samples than the order says.

    Raises:
        ValueError: if batches are to be repeated, or Lightning's epochs would end in the middle of an optimizer step.
    """
    if trainer is None:
        return
    overfit = trainer.overfit_batches  # type: ignore[attr-defined]  # Lightning sets it
    if overfit:
        raise ValueError(
            f"overfit_batches must be 0, got {overfit}: the training data is an endless stream, of which no batch "
            "comes again; to overfit, train on a source of few samples, such as SyntheticSource with num_scenes: 4"
        )
    limit, parts = trainer.limit_train_batches, trainer.accumulate_grad_batches
    if isinstance(limit, int) and limit % parts and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        raise ValueError(
            f"limit_train_batches ({limit}) must be a multiple of accumulate_grad_batches ({parts}), or Lightning "
            "steps in the middle of a global batch; leave it out and set max_steps"
        )


def _progress(trainer: pl.Trainer | None) -> Any:
    return None if trainer is None else trainer.fit_loop.epoch_loop.batch_progress


def _align(current: Any, parts: int) -> None:
    """Put Lightning's count of accumulated batches back to the last whole step, where reading begins again.

    Without this a checkpoint taken between two accumulated batches, or continued with another number of them, would
    step in the middle of a global batch ever after.
    """
    shift = current.ready % parts
    for name in ("ready", "started", "processed", "completed"):
        setattr(current, name, getattr(current, name) - shift)
