import argparse
import sys

import pytest

from raccoon.cli import bench


def parse(*words):
    parser = argparse.ArgumentParser()
    bench.add_parser(parser.add_subparsers(dest="verb"))
    return parser.parse_args(["bench", *words])


def test_every_word_after_kernels_is_the_benchmarks():
    assert parse("kernels", "--quick", "--sweep", "frames=1,2", "--help").options == [
        "--quick",
        "--sweep",
        "frames=1,2",
        "--help",
    ]


def test_the_words_reach_the_benchmark(monkeypatch):
    seen = []
    monkeypatch.setattr("raccoon_kernels.bench.main", lambda argv, prog: seen.append((argv, prog)) or 1)
    assert bench.run(parse("kernels", "--quick")) == 1
    assert seen == [(["--quick"], "raccoon bench kernels")]


def test_a_wrong_flag_is_exit_code_two_and_help_is_zero(capsys):
    assert bench.run(parse("kernels", "--nonsense")) == 2
    assert "unrecognized arguments: --nonsense" in capsys.readouterr().err
    assert bench.run(parse("kernels", "--help")) == 0
    assert "raccoon bench kernels" in capsys.readouterr().out


def test_a_subject_is_needed(capsys):
    with pytest.raises(SystemExit):
        parse()
    assert "kernels" in capsys.readouterr().err


def test_importing_the_verb_does_not_import_torch():
    import subprocess

    code = "import sys, raccoon.cli.bench; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0
