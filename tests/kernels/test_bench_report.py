import csv
import sys
from dataclasses import replace

import pytest

from raccoon_kernels.bench_cases import Case
from raccoon_kernels.bench_machine import Ceilings, Machine
from raccoon_kernels.bench_read import read_csv
from raccoon_kernels.bench_report import COLUMNS, Result, console_line, plot, table, write_csv, write_markdown
from raccoon_kernels.bench_targets import judge, target_cases
from raccoon_kernels.bench_timing import Timing

MACHINE = Machine("cpu", "a processor", 2, "3.11", "2.13", "3.7", "2.4", "none", "abc123", "d1", "2020-01-01T00:00:00Z")
CEILINGS = Ceilings(copy_gbps=10.0, matmul_tflops=1.0, launch_us=5.0)


def timed(case, provider, milliseconds, *, kind="eager", **changed):
    timing = Timing(milliseconds * 0.9, milliseconds, milliseconds * 1.1, 10, 0.01)
    result = Result(case, "fwd", provider, kind, timing=timing, error=1e-7, max_abs_error=1e-6, is_deterministic=True)
    return replace(result, peak_bytes=2_000_000, **changed)


def some_results():
    results = []
    for frames in (8, 32):
        case = Case("mgs_pool", f"F{frames}", num_frames=frames)
        results.append(timed(case, "eager-masks", 10.0 * frames))
        results.append(timed(case, "ours-torch", 1.0 * frames, kind="ours"))
        results.append(Result(case, "fwd", "faiss", "other", status="unavailable", note="faiss is not installed"))
    return results


def test_the_csv_has_one_row_a_metric_with_machine_and_commit(tmp_path):
    path = tmp_path / "out.csv"
    write_csv(some_results(), path, machine=MACHINE, ceilings=CEILINGS)
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    assert {row["commit"] for row in rows} == {"abc123"}
    assert [row["metric_name"] for row in rows[:3]] == ["copy_bandwidth", "matmul", "launch"]
    mine = [row for row in rows if row["provider"] == "ours-torch" and row["num_frames"] == "8"]
    metrics = {row["metric_name"]: row for row in mine}
    assert metrics["time"]["y_50"] == "8"
    assert (metrics["time"]["y_20"], metrics["time"]["y_80"], metrics["time"]["repeats"]) == ("7.2", "8.8", "10")
    case = Case("mgs_pool", "F8", num_frames=8)
    assert float(metrics["bandwidth"]["y_50"]) == pytest.approx(case.minimum_bytes("fwd") / 8e6, rel=1e-4)
    assert float(metrics["share_of_copy"]["y_50"]) == pytest.approx(case.minimum_bytes("fwd") / 8e5, rel=1e-4)
    assert metrics["peak_memory"]["y_50"] == "2"
    absent = [row for row in rows if row["provider"] == "faiss"]
    assert [(row["status"], row["note"]) for row in absent] == [("unavailable", "faiss is not installed")] * 2


def test_the_table_compares_with_the_version_that_builds_masks():
    lines = table(some_results(), CEILINGS)
    assert len(lines) == 2 + 6
    assert lines[3].endswith("| 1.0e-07 | yes | 10 |")
    assert "| unavailable: faiss is not installed |" in lines[4]


def test_the_markdown_names_command_machine_and_verdicts(tmp_path):
    path = tmp_path / "out.md"
    verdicts = [str(judgement) for judgement in judge(some_results(), CEILINGS, device_type="cpu")]
    write_markdown(
        some_results(), path, machine=MACHINE, ceilings=CEILINGS, command="python -m x --targets", targets=verdicts
    )
    text = path.read_text()
    assert "`python -m x --targets`" in text
    assert "commit abc123" in text
    assert "copy 10 GB/s" in text
    assert "**not measured**" in text


def test_a_console_line_says_why_a_provider_was_not_timed():
    assert console_line(some_results()[2], CEILINGS).endswith("unavailable: faiss is not installed")
    assert "80.0000 ms" in console_line(some_results()[0], CEILINGS)


def test_a_plot_is_written_without_a_screen(tmp_path):
    path = tmp_path / "out.png"
    plot(some_results(), path, machine=MACHINE, ceilings=CEILINGS)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_plot_without_matplotlib_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"plots need matplotlib.*pip install"):
        plot(some_results(), tmp_path / "out.png", machine=MACHINE, ceilings=CEILINGS)


def cpu_results(ours_factor):
    """Ours at `ours_factor` of the best eager provider, which is 30 times faster than the masks."""
    results = []
    for case in target_cases("cpu"):
        results.append(timed(case, "eager-masks", 3000.0))
        results.append(timed(case, "scatter-add", 100.0))
        results.append(timed(case, "ours-torch", 100.0 * ours_factor, kind="ours", error=1.5e-7))
    return results


def test_targets_that_are_met_pass():
    judgements = judge(cpu_results(1.1), CEILINGS, device_type="cpu")
    assert {judgement.verdict for judgement in judgements} == {"pass"}
    assert len(judgements) == 10
    assert "27.3x, at least 20 is wanted" in str(judgements[1])


def test_a_miss_is_a_miss_with_its_figure():
    by_name = {judgement.name: judgement for judgement in judge(cpu_results(1.3), CEILINGS, device_type="cpu")}
    missed = by_name["mgs_pool at 64 frames takes at most 1.15 times the best eager provider's time"]
    assert str(missed).startswith("- **miss**")
    assert missed.found == "1.3x, at most 1.15 is wanted"


def test_a_target_without_figures_is_not_measured():
    judgements = judge([], CEILINGS, device_type="cpu")
    assert {judgement.verdict for judgement in judgements} == {"not measured"}


def test_more_than_twice_the_rounding_of_plain_torch_is_a_miss():
    results = cpu_results(1.0)
    worse = [replace(result, error=9e-7) if result.kind == "ours" else result for result in results]
    judgement = judge(worse, CEILINGS, device_type="cpu")[-1]
    assert judgement.verdict == "miss"
    assert judgement.found.startswith("7.5 times at most (ours-torch")


def test_gpu_targets_are_judged_a_microsecond_at_a_time():
    ceilings = Ceilings(copy_gbps=4300.0, matmul_tflops=700.0, launch_us=5.0)
    results = []
    for case in target_cases("cuda"):
        floor_ms = case.minimum_bytes("fwd") / 4300e6
        results.append(timed(case, "eager-masks", 20.0))
        results.append(timed(case, "compile eager-masks", 10.0, kind="compiled"))
        ours = 0.4 if case.op == "overlapping_kmeans" else 1.1 * floor_ms
        results.append(timed(case, "ours-triton", ours, kind="ours"))
        results.append(timed(case, "ours-triton", ours / 2, kind="ours", graph=True))
    results.append(timed(target_cases("cuda")[-1], "clip-forward", 30.0, kind="other"))
    results.append(timed(target_cases("cuda")[6], "flash-kmeans", 0.5, kind="other"))
    judgements = judge(results, ceilings, device_type="cuda")
    assert {judgement.name: judgement.verdict for judgement in judgements if judgement.verdict != "pass"} == {}
    assert "90.9 %, at least 85 is wanted" in str(judgements[0])


def test_a_csv_read_back_gives_the_same_results(tmp_path):
    path = tmp_path / "out.csv"
    results = [
        *some_results(),
        timed(Case("mgs_pool", "F8", num_frames=8), "ours-triton", 2.0, kind="ours", graph=True),
    ]
    write_csv(results, path, machine=MACHINE, ceilings=CEILINGS, command="python -m x")
    assert read_csv(path) == (results, MACHINE, CEILINGS, "python -m x")


def test_results_that_are_not_there_or_not_ours_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no results at .*none\.csv"):
        read_csv(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"other\.csv must have the columns .*it lacks channels"):
        read_csv(tmp_path / "other.csv")
    path = tmp_path / "short.csv"
    write_csv([], path, machine=MACHINE, ceilings=CEILINGS)
    path.write_text("\n".join(path.read_text().splitlines()[:2]) + "\n")
    with pytest.raises(ValueError, match=r"must hold the machine's copy_bandwidth.*holds \['copy_bandwidth'\]"):
        read_csv(path)
