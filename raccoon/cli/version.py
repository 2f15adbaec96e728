"""`raccoon version`: the version, and with `--all` those of the libraries it runs on."""

import argparse
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raccoon.cli.console import Console

LIBRARIES = (
    "torch",
    "triton",
    "lightning",
    "transformers",
    "diffusers",
    "peft",
    "torchmetrics",
    "numpy",
    "av",
    "decord",
    "opencv-python-headless",
    "webdataset",
    "omegaconf",
    "jsonargparse",
)


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "version", help="print the version", epilog="example: raccoon version --all --json"
    )
    parser.add_argument("--all", action="store_true", help="the versions of Python and of the libraries as well")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: "Console") -> int:
    """Print it."""
    import platform

    from raccoon import __version__

    versions: dict[str, str | None] = {"raccoon": __version__}
    if args.all:
        versions["python"] = platform.python_version()
        for name in LIBRARIES:
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                versions[name] = None
    for name, version in versions.items():
        console.say(f"{name} {version or 'not installed'}")
    console.result(dict(versions))
    return 0
