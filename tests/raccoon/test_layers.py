import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("folder", ["kernels", "datamodules", "conf"])
def test_a_container_folder_is_no_package(folder):
    assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize("package", ["raccoon", "kernels/raccoon_kernels", "datamodules/raccoon_datamodules"])
def test_every_package_says_that_it_is_typed(package):
    assert (ROOT / package / "py.typed").is_file()


def test_the_tests_are_no_packages():
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_conf_holds_recipes_and_nothing_else():
    strangers = [path for path in (ROOT / "conf").rglob("*") if path.is_file() and path.suffix != ".yaml"]
    assert not strangers


def test_no_file_has_a_name_that_says_nothing():
    folders = ("raccoon", "kernels", "datamodules")
    names = {path.stem for folder in folders for path in (ROOT / folder).rglob("*.py")}
    assert not names & {"utils", "helpers", "misc", "common"}


@pytest.mark.parametrize("module", ["raccoon", "raccoon.recipes", "raccoon.cli.main"])
def test_importing_what_the_parser_needs_imports_no_torch(module):
    code = (
        f"import sys, {module}; print(*[name for name in ('torch', 'lightning', 'cv2', 'av') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == ""
