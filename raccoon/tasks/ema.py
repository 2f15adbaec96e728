"""A moving average of the weights that train: what is validated and shipped after a short training."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The exponential moving average of a module's trainable parameters.

    The average forgets its beginning: after n updates the decay is min(decay, (1 + n) / (10 + n)).

    Raises:
        ValueError: if the decay is not in (0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"the decay of the weight average must be in (0, 1), got {decay}")
        self.decay = decay
        self.updates = 0
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._average = {name: p.detach().float().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights as they are now."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        now = [p.detach().float() for p in self._parameters.values()]
        self._average = {name: a.to(p.device) for (name, a), p in zip(self._average.items(), now, strict=True)}
        torch._foreach_lerp_(list(self._average.values()), now, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the module has the averaged weights."""
        kept = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._write(self._average)
        try:
            yield
        finally:
            self._write(kept)

    def state_dict(self) -> dict[str, object]:
        """The average and its number of updates."""
        return {"updates": self.updates, "average": dict(self._average)}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore what `state_dict` gave.

        Raises:
            ValueError: if the average is of other parameters.
        """
        average, updates = state["average"], state["updates"]
        assert isinstance(average, dict)
        assert isinstance(updates, int)
        if average.keys() != self._average.keys():
            names = ", ".join(sorted(average.keys() ^ self._average.keys())[:5])
            raise ValueError(
                f"the checkpoint's weight average is of other parameters than those that train now ({names}...); "
                "continue with the same `trainable`"
            )
        self.updates, self._average = updates, {name: value.clone() for name, value in average.items()}

    @torch.no_grad()
    def _write(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])
