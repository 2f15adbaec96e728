"""The same part with weights nobody trained: what the architecture and its decoding give by themselves."""

import copy
from collections.abc import Collection, Iterator
from typing import Any, TypeVar

import torch
from torch import nn

P = TypeVar("P")


def untrained_copy(part: P, *, seed: int = 0, keep: Collection[str] = ("vae",)) -> P | None:
    """Copy a part and draw its networks' weights anew.

    Every torch layer with ``reset_parameters`` (linear, convolution, embedding, norm) gets the initialisation of its
    class; a parameter that stands in no such layer is left as it is, and so is a network called one of ``keep``: an
    image must come out of its autoencoder to be judged. Returns None if the part holds no network.
    """
    made = copy.deepcopy(part)
    kept = set(keep)
    layers = [layer for network in _networks(made, kept, set()) for layer in _resettable(network, kept)]
    if not layers:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in layers:
            layer.reset_parameters()
    return made


def _networks(part: object, keep: set[str], seen: set[int]) -> Iterator[nn.Module]:
    """The modules that an object holds, in its attributes, their attributes, lists and mappings."""
    if id(part) in seen or isinstance(part, str | bytes | int | float | torch.Tensor | type):
        return
    seen.add(id(part))
    if isinstance(part, nn.Module):
        yield part
        return
    if isinstance(part, list | tuple):
        held = [("", value) for value in part]
    elif isinstance(part, dict):
        held = [(str(key), value) for key, value in part.items()]
    elif type(part).__module__.split(".")[0] in ("builtins", "numpy", "tokenizers", "transformers", "collections"):
        return
    else:
        held = list(getattr(part, "__dict__", {}).items())
    for name, value in held:
        if name not in keep:
            yield from _networks(value, keep, seen)


def _resettable(network: nn.Module, keep: set[str]) -> Iterator[Any]:
    for name, layer in network.named_modules():
        has_own = any(True for _ in layer.parameters(recurse=False))
        if has_own and callable(getattr(layer, "reset_parameters", None)) and not keep & set(name.split(".")):
            yield layer
