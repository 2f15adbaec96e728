import argparse
import re
import shlex
from pathlib import Path

import pytest

from raccoon_kernels import bench

README = Path(__file__).resolve().parents[2] / "kernels" / "README.md"
pytestmark = pytest.mark.skipif(not README.exists(), reason="the README is not in an installed package")


def test_the_python_block_runs_as_it_stands(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    exec(compile(block, str(README), "exec"), {})
    assert capsys.readouterr().out == "torch.Size([25, 1024])\n"


def test_every_bench_command_is_one_that_the_bench_takes():
    commands = re.findall(r"raccoon_kernels\.bench (--[^#`\n]+)", README.read_text())
    assert len(commands) >= 3
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    for command in commands:
        parser.parse_args(shlex.split(command))
