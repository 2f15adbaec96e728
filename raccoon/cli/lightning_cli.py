"""LightningCLI over the recipes of ``conf/``: what `raccoon fit | validate | test | predict` do beyond it.

Precedence is flag over config over checkpoint: LightningCLI's hook that puts a checkpoint's hyper-parameters over the
config is off. Every run gets a fresh folder with its resolved config, the figures and the checkpoints. What the models
need of each other is linked here: the describer's `Conversation` into the datamodule.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.model_helpers import is_overridden

from raccoon.recipes import PARSER_MODE
from raccoon.tasks.callbacks import (
    ExportWeights,
    FrozenStayEval,
    LastCheckpoint,
    NonFiniteGuard,
    StepSeed,
    Throughput,
    shards_weights,
)
from raccoon.tasks.optim import OptimizerSettings
from raccoon.tasks.run_log import RunLogger, StepProgress

if TYPE_CHECKING:
    from raccoon.cli.console import Console

# What a recipe need not say. The stream is endless: steps count, epochs do not.
TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": -1,
    "val_check_interval": 1000,
    "check_val_every_n_epoch": None,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 10,
    "use_distributed_sampler": False,
    "enable_model_summary": False,
    "enable_progress_bar": False,
}
DEFAULT_ROOT = "runs"


class SaveConfig(SaveConfigCallback):
    """Writes the resolved config to ``config.yaml`` in the run's folder and says where that is."""

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Called on the first rank."""
        folder = Path(trainer.loggers[0].save_dir or ".")
        # Not parser.save, which LightningCLI calls by an argument that jsonargparse has given another name.
        (folder / "config.yaml").write_text(self.parser.dump(self.config), encoding="utf-8")
        print(f"run: {folder}", flush=True)


class TrainingCLI(LightningCLI):
    """One verb, run by constructing it.

    Args:
        verb: "fit", "validate", "test" or "predict".
        arguments: the words after it; every ``--config`` is a path.
        recipe: what the run's folder is called.
        console: where to say what happens.
    """

    def __init__(self, verb: str, arguments: Sequence[str], *, recipe: str, console: "Console") -> None:
        self._verb = verb
        self._recipe = recipe
        self._console = console
        settings = {"parser_mode": PARSER_MODE, "exit_on_error": False}
        super().__init__(
            save_config_callback=SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            parser_kwargs={**settings, verb: {**settings, "prog": f"raccoon {verb}"}},
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            args=[verb, *arguments],
            # A checkpoint holds weights; what they are the weights of is in the run's config.yaml.
            load_from_checkpoint_support=False,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # one parser instead of four: 4x faster
        """The verb alone."""
        return {self._verb: LightningCLI.subcommands()[self._verb]}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, without LightningCLI's warning about ``sys.argv``."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Leave the config as it is: LightningCLI would let the checkpoint's hyper-parameters win over flags."""

    def before_instantiate_classes(self) -> None:
        """Refuse, before any network is built, what cannot run."""
        section = self.config[self._verb]
        path = section.get("ckpt_path")
        if path == "last":
            path = section["ckpt_path"] = str(newest_checkpoint(self._root, self._recipe))
        if path is not None:
            check_checkpoint(str(path))
        trainer = section["trainer"]
        ends = (
            trainer["max_steps"] != -1,
            trainer["max_epochs"] not in (None, -1),
            trainer["max_time"] is not None,
            trainer["fast_dev_run"],
        )
        if self._verb == "fit" and not any(ends):
            raise ValueError(
                "the training data is an endless stream, so a run needs an end: set trainer.max_steps, for instance "
                "--trainer.max_steps 1000"
            )

    def instantiate_classes(self) -> None:
        """Build the task, the data and the trainer, and link them."""
        self.config_init = self.parser.instantiate(self.config)
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")
        link(self.model, self.datamodule)
        check_data(self._verb, self.model, self.datamodule)
        self.trainer = self.instantiate_trainer()

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Make the trainer with the run's logger first and the callbacks that the recipe does not name itself."""
        given = self._get(self.config_init, "trainer")
        loggers = given.get("logger")
        others = [] if loggers in (None, True, False) else loggers if isinstance(loggers, list) else [loggers]
        suffix = "" if self._verb == "fit" else f"-{self._verb}"
        named = given.get("callbacks") or []
        named = named if isinstance(named, list) else [named]
        added = [one for one in self._callbacks() if not _has(named, one)]
        trainer = super().instantiate_trainer(
            **{"default_root_dir": self._root, **kwargs},
            logger=[RunLogger(self._root, self._recipe, suffix=suffix), *others],
            callbacks=[*named, *added],
        )
        if shards_weights(trainer):
            # No rank has the weights whole; a recipe that asks for the export all the same is refused by it.
            kept = [one for one in trainer.callbacks if not (isinstance(one, ExportWeights) and one in added)]  # type: ignore[attr-defined]
            trainer.callbacks = kept  # type: ignore[attr-defined]  # Lightning sets it
        return trainer

    def _callbacks(self) -> list[Callback]:
        if self._verb != "fit":
            return []
        given = self._get(self.config_init, "trainer")
        made: list[Callback] = [NonFiniteGuard(), StepSeed(), FrozenStayEval(), Throughput(), StepProgress()]
        if given.get("fast_dev_run"):
            return made
        if callable(getattr(self.model, "export", None)):
            made.append(ExportWeights())
        if given.get("enable_checkpointing") is not False:
            made.append(LastCheckpoint())
        return made

    @property
    def _root(self) -> str:
        given = self._get(self.config, "trainer").get("default_root_dir")
        return DEFAULT_ROOT if given is None else os.fspath(given)

    def validate(self, **kwargs: Any) -> None:
        """`Trainer.validate`. Raises ValueError if there is nothing to validate on."""
        self._measured("validation", "val", self.trainer.validate(**kwargs))

    def test(self, **kwargs: Any) -> None:
        """`Trainer.test`. Raises ValueError if there is nothing to test on."""
        self._measured("test", "test", self.trainer.test(**kwargs))

    def _measured(self, what: str, argument: str, figures: Sequence[Any]) -> None:
        """Refuse what Lightning passes in silence: that there was no data, so that nothing was measured."""
        if not figures:
            raise ValueError(
                f"there is no {what} data in {type(self.datamodule).__name__}; set data.init_args.{argument} to a "
                "folder of shards or a source"
            )


def link(model: pl.LightningModule, datamodule: pl.LightningDataModule | None) -> None:
    """Hand the model's `Conversation` to the datamodule, where one has it and the other wants it."""
    make = getattr(model, "conversation", None)
    if make is not None and getattr(datamodule, "conversation", make) is None:
        datamodule.conversation = make() if callable(make) else make  # type: ignore[union-attr]


def check_data(verb: str, model: pl.LightningModule, datamodule: pl.LightningDataModule | None) -> None:
    """Refuse a verb for which there is no data.

    Raises:
        ValueError: names the datamodule and what it lacks.
    """
    loader = {"fit": "train", "validate": "val"}.get(verb, verb) + "_dataloader"
    if any(one is not None and is_overridden(loader, one, kind) for one, kind in _owners(model, datamodule)):
        return
    what = "no datamodule is set" if datamodule is None else f"{type(datamodule).__name__} has no {loader}"
    recipe = ", as predict/describe and predict/edit do" if verb == "predict" else ""
    raise ValueError(f"there is no data for `raccoon {verb}`: {what}; name one that has under data.class_path{recipe}")


def check_checkpoint(path: str) -> None:
    """Refuse a checkpoint that is not there or cannot be read.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or no checkpoint of Lightning's.
    """
    if "://" in path or path in ("best", "hpc", "registry"):
        return
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no checkpoint {path}; it is named last.ckpt in a run's folder")
    if Path(path).is_dir():
        return
    torch.serialization.add_safe_globals([OptimizerSettings])
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as err:
        reason = " ".join(str(err).split())[:160]
        raise ValueError(
            f"the checkpoint {path} is damaged or was not written by `raccoon fit`: {reason}; take an earlier one"
        ) from err
    if not isinstance(content, dict) or "state_dict" not in content:
        raise ValueError(f"the checkpoint {path} holds no state_dict; give a checkpoint that `raccoon fit` wrote")


def newest_checkpoint(root: str, recipe: str) -> Path:
    """Return the checkpoint written last by any run of a recipe.

    Raises:
        FileNotFoundError: if there is none.
    """
    found = sorted((Path(root) / recipe).glob("*/checkpoints/*.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"no run of {recipe} under {root} has left a checkpoint; name one by --ckpt_path")
    return found[-1]


def _has(named: Sequence[Callback], one: Callback) -> bool:
    kind = Checkpoint if isinstance(one, Checkpoint) else type(one)
    return any(isinstance(other, kind) for other in named)


def _owners(model: Any, datamodule: Any) -> tuple[tuple[Any, type], ...]:
    return (datamodule, pl.LightningDataModule), (model, pl.LightningModule)
