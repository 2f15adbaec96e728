"""AdamW and its learning-rate schedule, for every LightningModule of this package.

The schedule moves by optimizer step, not by epoch, since training is one endless stream. It is a pure function of the
step (`factor`), so a resumed run continues on the same curve.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

Schedule = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """What AdamW and its schedule need.

    ``learning_rate`` is the highest one, reached after the warm-up, of ``warmup_steps`` optimizer steps or of the
    share ``warmup_ratio`` of all steps (give one of the two). After it ``schedule`` leads to ``min_ratio`` times
    ``learning_rate`` at the last step; "constant" stays. ``max_steps`` is the length of the schedule in optimizer
    steps; None takes the trainer's. ``weight_decay`` spares biases, norms and other parameters of one dimension or
    none, such as a learned temperature. ``fused`` allows the fused step on CUDA;
    Lightning refuses gradient clipping beside it in mixed precision, bf16 included.

    Raises:
        ValueError: if a value is outside its range; names it.
    """

    learning_rate: float
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    warmup_steps: int = 0
    warmup_ratio: float = 0.0
    schedule: Schedule = "cosine"
    min_ratio: float = 0.0
    max_steps: int | None = None
    fused: bool = False

    def __post_init__(self) -> None:
        """Check the ranges, all of them before raising."""
        faults = []
        if not 0 < self.learning_rate < math.inf:
            faults.append(f"learning_rate must be a positive number, got {self.learning_rate}")
        if not 0 <= self.weight_decay < math.inf:
            faults.append(f"weight_decay must not be negative, got {self.weight_decay}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            faults.append(f"betas must be two numbers in [0, 1), got {self.betas}")
        if not 0 < self.eps < math.inf:
            faults.append(f"eps must be a positive number, got {self.eps}")
        if self.warmup_steps < 0:
            faults.append(f"warmup_steps must not be negative, got {self.warmup_steps}")
        if not 0 <= self.warmup_ratio < 1:
            faults.append(f"warmup_ratio must be in [0, 1), got {self.warmup_ratio}")
        if self.warmup_steps and self.warmup_ratio:
            faults.append(
                f"give warmup_steps or warmup_ratio, not both, got {self.warmup_steps} and {self.warmup_ratio}"
            )
        if self.schedule not in ("cosine", "linear", "constant"):
            faults.append(f"schedule must be cosine, linear or constant, got {self.schedule!r}")
        if not 0 <= self.min_ratio <= 1:
            faults.append(f"min_ratio must be in [0, 1], got {self.min_ratio}")
        if self.max_steps is not None and self.max_steps < 1:
            faults.append(f"max_steps must be at least 1 or null, got {self.max_steps}")
        if faults:
            raise ValueError("; ".join(faults))


def configure(
    trained: nn.Module | Iterable[nn.Parameter] | Iterable[tuple[str, nn.Parameter]],
    settings: OptimizerSettings,
    *,
    max_steps: int | None = None,
) -> dict[str, Any]:
    """Return what Lightning's ``configure_optimizers`` returns: AdamW and a schedule that moves each step.

    ``trained`` is a module, its parameters, or named parameters; those with ``requires_grad=False`` are left out.
    ``max_steps`` is the trainer's number of optimizer steps, ``trainer.max_steps`` (-1: endless); the settings' own
    goes before it. AdamW is fused where it may be and every parameter is a float on CUDA.

    Raises:
        ValueError: if nothing is trained, or the schedule needs to know its end and cannot, or ends within its warm-up.
    """
    parameters = [parameter for parameter in _parameters_of(trained) if parameter.requires_grad]
    if not parameters:
        raise ValueError(
            "there is nothing to train: no parameter requires a gradient; unfreeze a part of the network or add LoRA"
        )
    total = _length(settings, max_steps)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    fused = settings.fused and all(parameter.is_cuda and parameter.is_floating_point() for parameter in parameters)
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.eps,
        # None leaves the choice to torch, which never fuses by itself.
        fused=True if fused else None,
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(settings, step, total=total))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step", "frequency": 1}}


def factor(settings: OptimizerSettings, step: int, *, total: int | None) -> float:
    """Return the learning rate of an optimizer step (from 0) as a share of ``settings.learning_rate``, in [0, 1].

    The warm-up is linear and its first step is already above 0. ``total`` is the number of steps; it may be None only
    for a constant schedule without ``warmup_ratio``. Steps after the end keep the last value.
    """
    warmup = warmup_steps(settings, total=total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if settings.schedule == "constant" or total is None:
        return 1.0
    progress = min((step - warmup) / max(total - warmup, 1), 1.0)
    falling = 1 - progress if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return settings.min_ratio + (1 - settings.min_ratio) * falling


def warmup_steps(settings: OptimizerSettings, *, total: int | None) -> int:
    """Return the number of warm-up steps of a run of ``total`` optimizer steps."""
    if settings.warmup_ratio and total is not None:
        return round(settings.warmup_ratio * total)
    return settings.warmup_steps


def _parameters_of(
    trained: nn.Module | Iterable[nn.Parameter] | Iterable[tuple[str, nn.Parameter]],
) -> list[nn.Parameter]:
    if isinstance(trained, nn.Module):
        return list(trained.parameters())
    return [item[1] if isinstance(item, tuple) else item for item in trained]


def _length(settings: OptimizerSettings, max_steps: int | None) -> int | None:
    """Return the number of optimizer steps of the schedule; None where it needs none."""
    total = settings.max_steps if settings.max_steps is not None else max_steps
    if total is not None and total < 1:
        total = None
    if total is None:
        if settings.schedule != "constant" or settings.warmup_ratio:
            raise ValueError(
                f"a {settings.schedule} schedule with warmup_ratio {settings.warmup_ratio} must know its end; "
                "set trainer.max_steps or the optimizer's max_steps, or take a constant schedule with warmup_steps"
            )
        return None
    if settings.schedule != "constant" and settings.warmup_steps >= total:
        raise ValueError(
            f"the warm-up must end before the run does: warmup_steps {settings.warmup_steps} of {total} steps; "
            "shorten it or set warmup_ratio instead"
        )
    return total
