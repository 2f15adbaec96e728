"""What a cache keeps of a network's frozen parts, and the fingerprints by which it knows them again.

A fingerprint covers a part's class, the code of that class's module, its settings, and every weight, so a part that
would give other features is another part. It is computed from the weights in memory, wherever they came from.
"""

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from raccoon.models.conditioning import encode_frames, encode_prompts, scheme_named
from raccoon.models.p2v_parts import P2VParts
from raccoon.models.video_llm import VideoLLM
from raccoon_datamodules.cache import P2VModel, V2PModel

# These change how a part computes, not what.
_NO_SETTINGS = ("training", "chunk_size", "gradient_checkpointing")
# Of a configuration: where it came from and what wrote it.
_NO_CONFIG = ("transformers_version", "dtype", "torch_dtype", "architectures")


def link_cache(task: pl.LightningModule, model: Callable[[], V2PModel | P2VModel]) -> None:
    """Tell a trainer's datamodule that has a cache what networks it must be of; hashes their weights.

    Raises:
        ValueError: if such a network is being trained.
    """
    datamodule: Any = getattr(task.trainer, "datamodule", None)
    if getattr(datamodule, "cache", None) is not None and task.trainer.state.fn == "fit":
        datamodule.cached_model = model()


def v2p_model(network: VideoLLM) -> V2PModel:
    """The fingerprints of the describer's frozen parts. Raises ValueError if its encoder is being trained."""
    visual = network.visual
    _check_frozen(visual.encoder, "the visual encoder")
    pooling = visual.pooling
    described = f"{_code(type(pooling))} {pooling.features} {pooling.position_weight}"
    return V2PModel(fingerprint(visual.encoder), f"{fingerprint(visual.superpixels)} {described}")


def p2v_model(network: P2VParts) -> P2VModel:
    """The fingerprints of the painter's frozen parts. Raises ValueError if one of them is being trained."""
    _check_frozen(network.vae, "the VAE")
    _check_frozen(network.text_encoder, "the text encoder")
    scheme = scheme_named(network.conditioning)
    # What turns frames into latents and prompts into features.
    code = _code(encode_frames)
    words = hashlib.sha256(repr(sorted(network.tokenizer.get_vocab().items())).encode()).hexdigest()
    text = f"{fingerprint(network.text_encoder)} {words} {code}"
    return P2VModel(f"{fingerprint(network.vae)} {code}", text, scheme.masked_in, scheme.masks_added)


def fingerprint(part: object) -> str:
    """A hash of all that decides about what a part computes; of a stranger's class, that of its ``fingerprint()``.

    Raises:
        TypeError: if the part keeps something that cannot be hashed.
    """
    own = getattr(part, "fingerprint", None)
    if callable(own):
        return f"{_name(type(part))} {own()}"
    digest = hashlib.sha256(f"{_code(type(part))} {_settings(part)}".encode())
    if isinstance(part, nn.Module):
        for name, inner in part.named_modules():
            digest.update(f"{name} {_name(type(inner))} {_settings(inner)}".encode())
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@torch.no_grad()
def encode_grid(network: VideoLLM, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(grid [F, h, w, d], superpixels int16 [F, H, W], their means int32 [F, S, C]) of frames [F, 3, H, W] in [0, 1].

    Raises:
        ValueError: if the encoder does not give one grid for each frame.
    """
    encoder: Any = network.visual.encoder
    grid = encoder.encode(frames)
    if len(grid) != len(frames):
        raise ValueError(
            f"a cache keeps one grid for each frame, {type(encoder).__name__} makes {len(grid)} of {len(frames)} frames"
        )
    return (grid, *network.visual.describe(frames))


@torch.no_grad()
def encode_latents(network: P2VParts, frames: Tensor, hidden: Tensor) -> Tensor:
    """Latents [F, C, h, w] of frames [F, 3, H, W] in [-1, 1], grey where hidden {0, 1} [F, H, W] is 1."""
    return encode_frames(network.vae, frames * (1 - hidden[:, None].to(frames.dtype)))


@torch.no_grad()
def encode_text(network: P2VParts, prompts: list[str]) -> Tensor:
    """Text features [B, L, d] of prompts."""
    return encode_prompts(network.text_encoder, network.tokenizer, prompts)


def _check_frozen(part: nn.Module, what: str) -> None:
    learning = [name for name, parameter in part.named_parameters() if parameter.requires_grad]
    if learning:
        raise ValueError(
            f"{what} is being trained ({learning[0]} and {len(learning) - 1} more of its weights learn), so what it "
            "makes changes at every step and cannot come from a cache; set data's cache to null or freeze it"
        )


def _settings(part: object) -> dict[str, Any]:
    values = {name: value for name, value in sorted(vars(part).items()) if name not in _NO_SETTINGS}
    if isinstance(part, nn.Module):
        # Names with an underscore are torch's own books; the weights and modules in them are hashed on their own.
        found = {name: _plain(value) for name, value in values.items() if not name.startswith("_")}
        return {**{n: v for n, v in found.items() if v is not None}, "config": _config(part)}
    settings = {name: _plain(value) for name, value in values.items()}
    if unknown := [name for name, value in settings.items() if value is None and values[name] is not None]:
        raise TypeError(
            f"{_name(type(part))} keeps {unknown[0]} ({type(values[unknown[0]]).__name__}), which a cache cannot tell "
            "from another; give the class a method fingerprint() that returns a text for all that it computes with"
        )
    return settings


def _plain(value: Any) -> str | None:
    """A value as text, or None if it is not plain."""
    if isinstance(value, str | int | float | bool):
        return repr(value)
    if isinstance(value, Tensor):
        return hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
    if isinstance(value, tuple | list):
        inner = [_plain(one) for one in value]
        return None if None in inner else repr(inner)
    if isinstance(value, Mapping):
        pairs = [(str(name), _plain(one)) for name, one in sorted(value.items(), key=lambda item: str(item[0]))]
        return None if any(one is None for _, one in pairs) else repr(pairs)
    return None


def _config(part: nn.Module) -> str | None:
    """The configuration of a module of transformers or diffusers as text."""
    config: Any = getattr(part, "config", None)
    values = config.to_dict() if hasattr(config, "to_dict") else config
    if not isinstance(values, Mapping):
        return None
    kept = {n: v for n, v in values.items() if not str(n).startswith("_") and n not in _NO_CONFIG}
    return json.dumps(kept, sort_keys=True, default=str)


def _name(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _code(thing: Any) -> str:
    """The name of a class or function and the hash of the file that it stands in."""
    try:
        return f"{_name(thing)} {hashlib.sha256(Path(inspect.getfile(thing)).read_bytes()).hexdigest()}"
    except (OSError, TypeError):
        # Made at the prompt, say.
        return _name(thing)
