"""`raccoon fit | validate | test | predict --config RECIPE ...`: Lightning's command line over our recipes.

The words after the verb are Lightning's; only the value of ``--config`` may be a recipe's name (``p2v/tiny``) as well
as a path. This module says what went wrong in one sentence; `raccoon.cli.lightning_cli` does the work and is imported
only when it is needed, since it brings torch.
"""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raccoon.cli.console import Console

VERBS = ("fit", "validate", "test", "predict")

_HELP = {
    "fit": "train by a recipe",
    "validate": "measure a checkpoint on validation data",
    "test": "measure a checkpoint on test data",
    "predict": "describe or edit a whole dataset",
}


def add_parser(subparsers: Any) -> None:
    """Register the verbs for ``raccoon --help``; their words never pass through argparse, see `run`."""
    for verb in VERBS:
        subparsers.add_parser(verb, help=_HELP[verb], add_help=False)


def example_of(verb: str) -> str:
    """Return a recipe that serves a verb."""
    return "predict/describe" if verb == "predict" else "v2p/tiny"


def run(argv: Sequence[str], console: "Console") -> int:
    """Run ``[verb, *words]`` and return the exit code.

    Raises:
        ValueError: if the configuration, a weight file or a checkpoint is wrong; one sentence.
        FileNotFoundError: if a recipe or a checkpoint is not there.
        RuntimeError: if the run itself failed, for instance by a loss that is not finite.
        KeyboardInterrupt: if it was interrupted.
    """
    verb, *words = argv
    arguments, recipe = locate_configs(words)
    if not words:
        raise ValueError(f"say what to run: raccoon {verb} --config {example_of(verb)}, or raccoon {verb} --help")
    from raccoon.cli.lightning_cli import TrainingCLI
    from raccoon.cli.train_errors import cause_of, sentence

    quiet()
    try:
        TrainingCLI(verb, arguments, recipe=recipe, console=console)
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            # Lightning has put everything down and leaves by exit(1).
            raise KeyboardInterrupt from stop
        # --help and --print_config leave with 0.
        return int(stop.code or 0)
    except Exception as err:
        cause = cause_of(err)
        said = sentence(cause, words=arguments)
        if said is not None:
            raise ValueError(said) from err
        if cause is not err:
            raise cause from None
        raise
    return 0


def locate_configs(words: Sequence[str]) -> tuple[list[str], str]:
    """Replace every recipe's name after ``--config`` by its path; return the words and what the run is called.

    A run is called by the first recipe: by its name, or by the file's name without its suffix.

    Raises:
        FileNotFoundError: if there is neither a file nor a recipe of that name.
        ValueError: if ``--config`` stands at the end, or as `check_yaml`.
    """
    from raccoon.recipes.files import locate

    arguments: list[str] = []
    called: str | None = None
    rest = iter(words)
    for word in rest:
        flag, equals, value = word.partition("=")
        if flag not in ("--config", "-c"):
            arguments.append(word)
            continue
        if not equals:
            value = next(rest, "")
        if not value:
            raise ValueError("--config needs a recipe: a path or a name, for instance --config v2p/tiny")
        path = locate(value)
        check_yaml(path)
        if called is None:
            called = path.stem if Path(value).is_file() else value.removesuffix(".yaml")
        arguments += ["--config", str(path)]
    return arguments, called or "run"


def check_yaml(path: Path) -> None:
    """Refuse a file that is no mapping in YAML.

    Raises:
        ValueError: names the file and what is wrong in it.
    """
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # type: ignore[import-untyped]  # PyYAML, which omegaconf brings, ships no types

    try:
        content = OmegaConf.load(path)
    except (YAMLError, UnicodeDecodeError, OmegaConfBaseException) as err:
        raise ValueError(f"the recipe {path} is not valid YAML: {' '.join(str(err).split())}") from err
    if not isinstance(content, DictConfig):
        raise ValueError(f"the recipe {path} must be a mapping of sections, got a list")


def quiet() -> None:
    """Keep Lightning's advertisements and what only concerns its own code from the terminal."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    # A run without validation data is nothing to warn of; `raccoon validate` without any is refused.
    warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero", category=UserWarning)
    # FrozenStayEval sets the modes, a moment after Lightning has looked at them.
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode", category=UserWarning)
    # Recipes ask for page-locked memory for the GPU's sake.
    warnings.filterwarnings("ignore", message="'pin_memory' argument is set as true but no accel", category=UserWarning)
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*", category=FutureWarning)
