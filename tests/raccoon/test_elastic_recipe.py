"""The painter's own recipe: twenty steps on two processes are the twenty steps of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from raccoon.models.temporal_unet import is_temporal

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "raccoon" / "weights" / "tiny" / "p2v" / "unet"
DRIVER = """
import sys
from raccoon.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
"""
LAYOUTS = {
    "alone": (),
    "accumulated": ("--trainer.accumulate_grad_batches", "2"),
    "two": ("--config", "trainer/ddp", "--trainer.accelerator", "cpu", "--trainer.devices", "2"),
}


@pytest.fixture(scope="module")
def image_unet(tmp_path_factory):
    """The shipped painter without its layers of time: what the recipe inflates, so that these begin at zero."""
    folder = tmp_path_factory.mktemp("unet")
    config = json.loads((SHIPPED / "config.json").read_text())
    config.pop("norm_over_frames")
    (folder / "config.json").write_text(json.dumps({**config, "_class_name": "UNet2DConditionModel"}))
    weights = load_file(SHIPPED / "diffusion_pytorch_model.safetensors")
    image = {name: value.contiguous() for name, value in weights.items() if not is_temporal(name)}
    save_file(image, folder / "diffusion_pytorch_model.safetensors")
    return folder


def train(folder, name, unet, *words, steps):
    """Run the recipe as a user does; return the last checkpoint and the logged figures."""
    driver = folder / "drive.py"
    driver.write_text(DRIVER)
    weights = ["--model.network.init_args.weights", "tiny/p2v", "--model.network.init_args.unet", str(unet)]
    size = ["--trainer.max_steps", str(steps), "--data.global_batch_size", "4", "--data.num_workers", "0"]
    rest = ["--trainer.limit_val_batches", "0", "--data.pin_memory", "false"]
    log = ["--trainer.log_every_n_steps", "4", "--trainer.default_root_dir", str(folder / name)]
    command = ["fit", "--config", "p2v/tiny", "--config", "trainer/cpu", *words, *weights, *size, *rest, *log]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PL_", "MASTER_"))}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "datamodules"), str(ROOT / "kernels")])
    done = subprocess.run(
        [sys.executable, str(driver), *command], cwd=folder, capture_output=True, text=True, timeout=900,
        env={**environment, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = (folder / name / "p2v" / "tiny").iterdir()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return torch.load(run / "checkpoints" / "last.ckpt"), {
        line["step"]: line["train/loss"] for line in lines if "train/loss" in line
    }


@pytest.mark.slow  # three trainings of the real recipe each: minutes on one core
@pytest.mark.parametrize(("precision", "steps"), [("32-true", 20), ("bf16-mixed", 4)])
def test_steps_of_the_painter_on_two_processes_equal_one_process(image_unet, tmp_path, precision, steps):
    """Prints what docs/training.md tells, with ``pytest -s``."""
    runs = {
        name: train(tmp_path, name, image_unet, *words, "--trainer.precision", precision, steps=steps)
        for name, words in LAYOUTS.items()
    }
    (alone, losses), (accumulated, _), (two, shared) = runs.values()
    for run in (alone, accumulated, two):
        assert run["global_step"] == steps
        assert run["P2VDataModule"]["ordinal"] == 4 * steps
    # Where one process goes through the same two halves of each batch, nothing at all is different.
    for part in ("state_dict", "optimizer_states", "weight_average"):
        assert equal(accumulated[part], two[part]), part
    # Against the undivided batch the order of sums is, which bf16 rounds to three digits.
    first, second = alone["state_dict"], two["state_dict"]
    trained = [f"network.unet.{name}" for name in alone["weight_average"]["average"]]
    worst = max((apart(first[key], second[key]), key) for key in trained)
    print(f"\n{precision}, {steps} steps: {whole(first, second):.1e} of the norm of all weights")
    print(
        f"{whole(first, second, trained):.1e} of those that train; worst tensor {worst[0]:.1e} of its norm, {worst[1]}"
    )
    largest = max(float((first[key] - second[key]).abs().max()) for key in trained)
    print(f"largest difference of a weight {largest:.1e}; losses {losses} and {shared}")
    if precision == "32-true":
        assert whole(first, second) < 1e-5
        assert whole(first, second, trained) < 1e-5
        assert worst[0] < 1e-4
        assert whole(*averages(alone, two)) < 1e-5
        # What is logged is the mean over the ranks.
        assert all(abs(shared[step] / losses[step] - 1) < 1e-5 for step in losses)
    assert shared.keys() == losses.keys()
    assert losses


def averages(*runs):
    return [run["weight_average"]["average"] for run in runs]


def whole(first, second, keys=None):
    """The norm of all differences relative to the norm of all weights, or of those named."""
    keys = keys or list(first)
    squares = [(first[key].double() - second[key].double()).pow(2).sum() for key in keys]
    return float((sum(squares) / sum(first[key].double().pow(2).sum() for key in keys)).sqrt())


def apart(first, second):
    """The norm of a tensor's difference relative to the tensor's norm."""
    norm = first.double().norm()
    return float((first.double() - second.double()).norm() / norm) if norm else float(second.double().norm())


def equal(first, second):
    """Whether two nested states hold the same, bit for bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)
