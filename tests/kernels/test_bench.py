import csv
import re
import sys
from types import SimpleNamespace

import pytest
import torch

from raccoon_kernels import bench
from raccoon_kernels.bench_cases import OPS, Case, make_inputs
from raccoon_kernels.bench_machine import Ceilings
from raccoon_kernels.bench_providers import Provider, providers
from raccoon_kernels.bench_run import Settings, run_case
from raccoon_kernels.bench_yardsticks import Unavailable, clip_forward, faiss_kmeans, flash_kmeans

CPU = torch.device("cpu")
SMALL = {
    "num_frames": 2,
    "height": 48,
    "width": 32,
    "channels": 3,
    "num_clusters": 5,
    "overlap": 2,
    "dim": 6,
    "grid": 4,
}
MODES = ("fwd", "bwd", "full")


def settings(**changed):
    return Settings(device=CPU, repeats=2, compile_modes=(), **changed)


@pytest.fixture
def quick_ceilings(monkeypatch):
    monkeypatch.setattr(bench, "measure_ceilings", lambda device: Ceilings(10.0, 1.0, 5.0))
    monkeypatch.setattr(bench, "SIZES", {"XS": SMALL, "S": SMALL | {"num_frames": 3}, "M": SMALL, "L": SMALL})


@pytest.mark.parametrize("op", OPS)
def test_every_provider_is_right_in_every_mode(op):
    results = run_case(Case(op, "XS", **SMALL), settings(modes=MODES))
    assert {result.status for result in results} <= {"ok", "unavailable"}
    ours = [result for result in results if result.provider == "ours-torch"]
    assert len(ours) == (3 if op in {"superpixel_mean", "mgs_pool"} else 1)
    assert all(result.timing is not None and result.peak_bytes and result.is_deterministic for result in ours)
    assert sum(result.kind == "eager" and result.timing is not None for result in results) >= 2


@pytest.mark.parametrize("op", ["superpixel_mean", "mgs_pool"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_passes_its_own_bound(op, dtype):
    results = run_case(Case(op, "XS", **SMALL, dtype=dtype), settings(modes=MODES))
    assert {result.status for result in results if result.kind != "other"} <= {"ok", "unavailable"}


def test_random_labels_and_bytes_are_averaged_right_without_a_backward():
    case = Case("superpixel_mean", "XS", **SMALL, dtype="u8", label_map="random", label_dtype="int16")
    results = run_case(case, settings(modes=MODES))
    assert {result.mode for result in results} == {"fwd"}
    assert {result.status for result in results} <= {"ok", "unavailable"}


@pytest.mark.slow
@pytest.mark.parametrize("op", ["superpixel_mean", "mgs_pool"])
def test_compiled_providers_are_right_in_every_mode(op):
    results = run_case(Case(op, "XS", **SMALL), Settings(device=CPU, modes=MODES, repeats=2))
    compiled = [result for result in results if result.kind == "compiled"]
    assert len(compiled) == 6
    assert {result.status for result in compiled} == {"ok"}


def one(provider, op="superpixel_mean", **changed):
    (result,) = run_case(Case(op, "XS", **SMALL), settings(**changed), chosen=[provider])
    return result


def test_what_is_wrong_is_reported_and_not_timed():
    right = next(provider for provider in providers("superpixel_mean") if provider.name == "scatter-add")
    wrong = Provider("off by a little", "eager", lambda inputs: lambda x: right.build(inputs)(x) * 1.0001)
    result = one(wrong)
    assert (result.status, result.timing) == ("wrong", None)
    assert "error 1.00e-04 against float64, at most 1e-05 passes" in result.note


def test_a_wrong_gradient_is_reported_though_the_forward_is_right():
    right = next(provider for provider in providers("superpixel_mean") if provider.name == "scatter-add")
    wrong = Provider("detached", "eager", lambda inputs: lambda x: right.build(inputs)(x).detach() + 0.0 * x.sum())
    assert one(wrong).status == "ok"
    assert one(wrong, modes=("full",)).status == "wrong"


def test_nan_is_wrong():
    result = one(Provider("nan", "eager", lambda inputs: lambda x: torch.full((2, 6, 3), float("nan"))))
    assert result.status == "wrong"
    assert "error nan" in result.note


def test_another_shape_is_wrong():
    result = one(Provider("short", "eager", lambda inputs: lambda x: torch.zeros(2, 6, 2)))
    assert result.status == "wrong"
    assert "must have the reference's shape [6, 3], got [6, 2]" in result.note


@pytest.mark.parametrize(
    "error", [RuntimeError, AssertionError, AttributeError, KeyError, torch.OutOfMemoryError, "triton"], ids=str
)
@pytest.mark.parametrize(("kind", "status"), [("ours", "wrong"), ("other", "unavailable")])
def test_what_raises_is_wrong_if_it_is_ours_and_unavailable_if_it_is_anothers(kind, status, error):
    if error == "triton":
        # What a kernel that asks for too much shared memory raises is no RuntimeError.
        error = pytest.importorskip("triton").TritonError

    def build(inputs):
        raise error("no such kernel\nand a long traceback")

    result = one(Provider("broken", kind, build))
    assert result.status == status
    assert result.note.startswith(f"raised {error.__name__}: ")
    assert "no such kernel" in result.note


def test_a_case_that_breaks_off_costs_only_itself(quick_ceilings, monkeypatch, tmp_path, capsys):
    run = bench.run_case

    def break_off(case, settings):
        if case.size == "XS":
            raise torch.OutOfMemoryError("CUDA out of memory\nand a long explanation")
        return run(case, settings)

    monkeypatch.setattr(bench, "run_case", break_off)
    arguments = ["--device", "cpu", "--compile", "none", "--ops", "grid_weights", "--sizes", "XS,S", "--repeats", "1"]
    assert bench.main([*arguments, "--out", str(tmp_path)]) == 1
    assert "grid_weights XS broke off: OutOfMemoryError: CUDA out of memory" in capsys.readouterr().err
    with (tmp_path / "kernels-cpu.csv").open() as stream:
        assert {row["size"] for row in csv.DictReader(stream)} == {"", "S"}
    assert (tmp_path / "kernels-cpu.png").exists()


def test_what_has_been_measured_is_there_when_a_run_is_cut_off(quick_ceilings, monkeypatch, tmp_path):
    run = bench.run_case

    def cut_off(case, settings):
        if case.size == "S":
            raise KeyboardInterrupt
        return run(case, settings)

    monkeypatch.setattr(bench, "run_case", cut_off)
    arguments = ["--device", "cpu", "--compile", "none", "--ops", "grid_weights", "--sizes", "XS,S", "--repeats", "1"]
    with pytest.raises(KeyboardInterrupt):
        bench.main([*arguments, "--out", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kernels-cpu.csv", "kernels-cpu.md"]
    with (tmp_path / "kernels-cpu.csv").open() as stream:
        assert {row["size"] for row in csv.DictReader(stream)} == {"", "XS"}


def test_after_the_limit_no_case_is_begun_and_the_rest_is_written(quick_ceilings, monkeypatch, tmp_path, capsys):
    clock = iter((0.0, 1.0, 500.0))
    monkeypatch.setattr(bench, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    arguments = ["--device", "cpu", "--compile", "none", "--ops", "grid_weights", "--sizes", "XS,S", "--repeats", "1"]
    assert bench.main([*arguments, "--limit", "480", "--out", str(tmp_path)]) == 0
    assert "1 of 2 cases were not begun within 480 s" in capsys.readouterr().err
    assert (tmp_path / "kernels-cpu.png").exists()


def test_a_result_that_varies_is_said_to():
    generator = torch.Generator().manual_seed(0)
    right = next(provider for provider in providers("superpixel_mean") if provider.name == "scatter-add")
    noisy = Provider(
        "noisy",
        "eager",
        lambda inputs: lambda x: right.build(inputs)(x) * (1 + 1e-6 * torch.rand(1, generator=generator)),
    )
    result = one(noisy)
    assert (result.status, result.is_deterministic) == ("ok", False)


def test_libraries_that_cannot_run_here_say_why(monkeypatch):
    overlapping = make_inputs(Case("overlapping_kmeans", "XS", **SMALL), CPU)
    plain = make_inputs(Case("overlapping_kmeans", "XS", **(SMALL | {"overlap": 1})), CPU)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="faiss is not installed"):
        faiss_kmeans(plain)
    with pytest.raises(Unavailable, match="flash-kmeans is not installed"):
        flash_kmeans(plain)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(Unavailable, match="faiss has no overlap: v = 1 only"):
        faiss_kmeans(overlapping)
    with pytest.raises(Unavailable, match="flash-kmeans has no overlap: v = 1 only"):
        flash_kmeans(overlapping)
    with pytest.raises(Unavailable, match="flash-kmeans runs on CUDA tensors"):
        flash_kmeans(plain)
    with pytest.raises(Unavailable, match="yardstick for GPUs"):
        clip_forward(plain)


def test_masks_that_do_not_fit_are_unavailable_with_their_size(monkeypatch):
    monkeypatch.setattr("raccoon_kernels.bench_providers._available_memory", lambda: 1000)
    results = run_case(Case("mgs_pool", "XS", **SMALL), settings(only=("eager-masks", "scatter-add")))
    assert [result.status for result in results] == ["unavailable", "ok"]
    assert "its masks need" in results[0].note


def test_the_command_writes_csv_table_and_plot(quick_ceilings, tmp_path, capsys):
    arguments = ["--quick", "--device", "cpu", "--compile", "none", "--ops", "mgs_pool", "--repeats", "1"]
    assert bench.main([*arguments, "--out", str(tmp_path), "--commit", "abc"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kernels-cpu.csv", "kernels-cpu.md", "kernels-cpu.png"]
    text = (tmp_path / "kernels-cpu.md").read_text()
    assert "python -m raccoon_kernels.bench --quick --device cpu --compile none" in text
    with (tmp_path / "kernels-cpu.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["size"] for row in rows} == {"", "XS", "S"}
    assert "ours-torch" in capsys.readouterr().out


def test_a_sweep_varies_one_axis_and_names_it(quick_ceilings, tmp_path):
    arguments = ["--device", "cpu", "--compile", "none", "--no-plot", "--ops", "mgs_pool", "--repeats", "1"]
    arguments += ["--providers", "ours-torch", "--sweep", "overlap=1,3", "--base", "S", "--out", str(tmp_path)]
    assert bench.main(arguments) == 0
    with (tmp_path / "kernels-cpu.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["metric_name"] == "time"]
    assert [(row["x_name"], row["x_value"], row["overlap"]) for row in rows] == [
        ("overlap", "1.0", "1"),
        ("overlap", "3.0", "3"),
    ]


def test_a_wrong_provider_makes_the_exit_code_one(quick_ceilings, monkeypatch, capsys):
    broken = Provider("broken", "eager", lambda inputs: lambda x: torch.zeros(2, 6, 3))
    monkeypatch.setattr("raccoon_kernels.bench_run.providers", lambda op, compiled: [broken])
    assert bench.main(["--device", "cpu", "--ops", "superpixel_mean", "--sizes", "XS"]) == 1
    assert "broken at superpixel_mean XS: error 1.00e+00" in capsys.readouterr().err


def test_targets_are_printed_and_a_miss_leaves_the_exit_code_alone(quick_ceilings, monkeypatch, capsys):
    case = Case("mgs_pool", "F16", **(SMALL | {"num_frames": 16}))
    monkeypatch.setattr(bench, "target_cases", lambda device: [case])
    monkeypatch.setattr("raccoon_kernels.bench_targets.target_cases", lambda device: [case])
    assert bench.main(["--targets", "--device", "cpu", "--compile", "none", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    assert "MGS pooling at 16 frames is at least 6x faster" in out
    assert "**not measured**" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cpu", "--graph"], "--graph needs a CUDA device"),
        (["--ops", "mgs_pool,nothing"], "must be of superpixel_mean.*got nothing"),
        (["--device", "cpu", "--sweep", "colour=1"], "--sweep must be AXIS=NUMBER.*got 'colour=1'"),
        (["--device", "cpu", "--sweep", "frames=many"], "--sweep must be AXIS=NUMBER.*got 'frames=many'"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        bench.main(arguments)
    assert stop.value.code == 2
    assert re.search(message, capsys.readouterr().err, flags=re.DOTALL)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_cuda_device_that_is_not_there_is_refused(capsys):
    with pytest.raises(SystemExit):
        bench.main(["--device", "cuda"])
    assert "torch finds none" in capsys.readouterr().err


def test_a_missing_matplotlib_costs_only_the_plot(quick_ceilings, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    arguments = ["--device", "cpu", "--compile", "none", "--ops", "grid_weights", "--sizes", "XS", "--repeats", "1"]
    assert bench.main([*arguments, "--out", str(tmp_path)]) == 0
    assert "no plot: plots need matplotlib" in capsys.readouterr().out
    assert (tmp_path / "kernels-cpu.csv").exists()


def test_a_sweep_leaves_out_operations_that_its_axis_does_not_touch(quick_ceilings, tmp_path):
    arguments = ["--device", "cpu", "--compile", "none", "--no-plot", "--repeats", "1", "--providers", "ours-torch"]
    assert bench.main([*arguments, "--sweep", "dim=4", "--out", str(tmp_path)]) == 0
    with (tmp_path / "kernels-cpu.csv").open() as stream:
        assert {row["op"] for row in csv.DictReader(stream)} == {"machine", "mgs_pool"}


def test_a_csv_is_drawn_again_without_measuring(quick_ceilings, tmp_path, capsys):
    arguments = ["--device", "cpu", "--compile", "none", "--ops", "grid_weights", "--sizes", "XS", "--repeats", "1"]
    assert bench.main([*arguments, "--no-plot", "--out", str(tmp_path)]) == 0
    table, path = (tmp_path / "kernels-cpu.md").read_text(), str(tmp_path / "kernels-cpu.csv")
    assert bench.main(["--read", path, "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "kernels-cpu.md").read_text() == table
    assert (tmp_path / "again" / "kernels-cpu.png").exists()
    with pytest.raises(SystemExit):
        bench.main(["--read", str(tmp_path / "none.csv")])
    assert "no results at" in capsys.readouterr().err
