from raccoon.cli.main import main


def test_the_words_reach_the_loaders_benchmark(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "raccoon_datamodules.bench_loader.main", lambda argv, prog: seen.append((list(argv), prog)) or 0
    )
    assert main(["bench", "loader", "--quick", "--workers", "0,2"]) == 0
    assert seen == [(["--quick", "--workers", "0,2"], "raccoon bench loader")]


def test_help_is_zero_and_a_wrong_flag_two(capsys):
    assert main(["bench", "loader", "--help"]) == 0
    assert "raccoon bench loader --memory" in capsys.readouterr().out
    assert main(["bench", "loader", "--nonsense"]) == 2
    assert "unrecognized arguments: --nonsense" in capsys.readouterr().err
