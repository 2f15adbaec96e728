import math

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

from raccoon.tasks.optim import OptimizerSettings, configure, factor, warmup_steps


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(3, 3)
        self.norm = nn.LayerNorm(3)
        self.temperature = nn.Parameter(torch.tensor(1.0))


def test_matrices_decay_and_norms_biases_and_scalars_do_not():
    network = Small()
    groups = configure(network, OptimizerSettings(1e-3, weight_decay=0.1), max_steps=10)["optimizer"].param_groups
    decayed, spared = groups
    assert decayed["weight_decay"] == 0.1
    assert decayed["params"] == [network.body.weight]
    assert spared["weight_decay"] == 0.0
    assert {id(p) for p in spared["params"]} == {
        id(p) for p in (network.body.bias, network.norm.weight, network.norm.bias, network.temperature)
    }


@pytest.mark.parametrize("form", ["module", "parameters", "named"])
def test_frozen_parameters_are_left_out_in_every_form(form):
    network = Small()
    network.body.requires_grad_(False)
    given = {"module": network, "parameters": network.parameters(), "named": network.named_parameters()}[form]
    groups = configure(given, OptimizerSettings(1e-3), max_steps=10)["optimizer"].param_groups
    assert sum(len(group["params"]) for group in groups) == 3


def test_a_network_that_is_all_frozen_is_refused():
    with pytest.raises(ValueError, match="nothing to train"):
        configure(Small().requires_grad_(False), OptimizerSettings(1e-3), max_steps=10)


def test_the_schedule_moves_by_step():
    made = configure(Small(), OptimizerSettings(1.0, warmup_steps=1, schedule="linear"), max_steps=5)
    assert made["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(5):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([0.5, 1.0, 0.75, 0.5, 0.25])


def test_the_cosine_passes_half_in_the_middle_and_ends_at_its_least():
    settings = OptimizerSettings(1.0, warmup_steps=10, min_ratio=0.1)
    assert factor(settings, 10, total=110) == 1.0
    assert factor(settings, 60, total=110) == pytest.approx(0.55)
    assert factor(settings, 110, total=110) == pytest.approx(0.1)
    assert factor(settings, 1000, total=110) == pytest.approx(0.1)


def test_a_constant_schedule_needs_no_end():
    made = configure(Small(), OptimizerSettings(1.0, schedule="constant", warmup_steps=3), max_steps=-1)
    assert made["optimizer"].param_groups[0]["lr"] == 0.25
    assert factor(OptimizerSettings(1.0, schedule="constant"), 10**6, total=None) == 1.0


def test_the_warm_up_may_be_a_share_of_the_run():
    assert warmup_steps(OptimizerSettings(1.0, warmup_ratio=0.03), total=1000) == 30


def test_the_settings_own_length_goes_before_the_trainers():
    made = configure(Small(), OptimizerSettings(1.0, schedule="linear", max_steps=10), max_steps=2)
    made["optimizer"].step()
    made["lr_scheduler"]["scheduler"].step()
    assert made["optimizer"].param_groups[0]["lr"] == pytest.approx(0.9)


@pytest.mark.parametrize("max_steps", [None, -1])
def test_a_falling_schedule_without_an_end_is_refused(max_steps):
    with pytest.raises(ValueError, match=r"must know its end; set trainer\.max_steps"):
        configure(Small(), OptimizerSettings(1e-3), max_steps=max_steps)


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="warmup_steps 10 of 10 steps"):
        configure(Small(), OptimizerSettings(1e-3, warmup_steps=10), max_steps=10)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be a positive number, got 0.0"),
        ({"learning_rate": math.nan}, "learning_rate must be a positive number, got nan"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative"),
        ({"betas": (0.9, 1.0)}, r"betas must be two numbers in \[0, 1\)"),
        ({"eps": 0.0}, "eps must be a positive number"),
        ({"warmup_steps": -1}, "warmup_steps must not be negative"),
        ({"warmup_ratio": 1.0}, r"warmup_ratio must be in \[0, 1\)"),
        ({"warmup_steps": 1, "warmup_ratio": 0.1}, "warmup_steps or warmup_ratio, not both"),
        ({"schedule": "step"}, "schedule must be cosine, linear or constant, got 'step'"),
        ({"min_ratio": 2.0}, r"min_ratio must be in \[0, 1\]"),
        ({"max_steps": 0}, "max_steps must be at least 1 or null"),
    ],
)
def test_a_value_outside_its_range_is_named(given, said):
    with pytest.raises(ValueError, match=said):
        OptimizerSettings(**{"learning_rate": 1e-3, **given})


def test_all_faults_are_said_at_once():
    with pytest.raises(ValueError, match=r"learning_rate .*; eps "):
        OptimizerSettings(-1.0, eps=-1.0)


def test_settings_are_read_from_yaml():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--optimizer", type=OptimizerSettings)
    given = parser.parse_object({"optimizer": {"learning_rate": 1e-3, "betas": [0.9, 0.95], "schedule": "constant"}})
    made = parser.instantiate(given).optimizer
    assert made == OptimizerSettings(1e-3, betas=(0.9, 0.95), schedule="constant")
