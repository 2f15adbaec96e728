"""The wheel: what a stranger installs holds the recipes and works far from any checkout."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def run(*words: str, **more: object) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="building the wheel without the network needs hatchling installed")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    run(*pip, "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-w", str(folder))
    return next(folder.glob("raccoon_video-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds nothing but what the wheel brings; the libraries are those of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    run(*pip, "install", "--no-deps", "--no-index", "--target", str(folder), str(wheel))
    return folder


def raccoon(installed: Path, elsewhere: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return run(str(installed / "bin" / "raccoon"), *words, cwd=elsewhere, env=environment)


def test_the_wheel_holds_the_three_packages_with_their_types_and_every_recipe(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in ("raccoon", "raccoon_kernels", "raccoon_datamodules"):
        assert {f"{package}/__init__.py", f"{package}/py.typed"} <= names
    recipes = {f"raccoon/conf/{path.relative_to(ROOT / 'conf').as_posix()}" for path in ROOT.glob("conf/**/*.yaml")}
    assert "raccoon/conf/pipeline/classical.yaml" in recipes
    assert recipes <= names
    assert not [name for name in names if name.split("/")[0] in ("tests", "conf", "docs", "kernels", "datamodules")]


def test_the_installed_command_runs_the_demo_from_anywhere(installed: Path, tmp_path: Path) -> None:
    assert "edit" in raccoon(installed, tmp_path, "--help")
    answer = json.loads(raccoon(installed, tmp_path, "demo", "--classical", "--json"))
    assert (tmp_path / answer["report"]).is_file()
    assert "byte for byte as written" in raccoon(installed, tmp_path, "verify", "demo/edited.json")
    code = "import raccoon, raccoon_kernels, raccoon_datamodules as d; print(raccoon.__file__, d.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    said = run(sys.executable, "-c", code, cwd=tmp_path, env=environment)
    assert all(Path(file).is_relative_to(installed) for file in said.split())
