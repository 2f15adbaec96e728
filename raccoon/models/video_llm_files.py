"""A describer's folder: written, read back strictly, and put together from pretrained parts.

``config.json``; ``encoder/``, ``language_model/``, ``tokenizer/`` as their own libraries save them; ``adapter/`` as
PEFT saves it; ``v2p.safetensors`` with the projector, the rows of the visual tokens and the head. In ``config.json`` a
part may be a reference instead of a folder: ``{"path": ...}`` (relative to this folder) or ``{"repo", "revision",
"sha256"}`` of the hub, sha256 being that of the part's ``model.safetensors``.

Nothing is downloaded, and nothing is executed from a weights folder but this package's own classes. Loading collects
every missing, unexpected and misshapen key of all parts before it raises.
"""

import copy
import hashlib
import importlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from raccoon.interfaces import SuperpixelModel
from raccoon.models.lora import LoraSettings
from raccoon.models.mgs import MGSPooling
from raccoon.models.video_llm import TemplateName, VideoLLM
from raccoon.models.weights import TRAINED_FOLDER, find_weights
from raccoon_datamodules.conversation import add_visual_tokens

FORMAT = "raccoon-v2p"
VERSION = 1
WEIGHTS = "v2p.safetensors"
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def save(model: VideoLLM, folder: str | Path, *, dtype: str = "float16", encoder: str | None = None) -> None:
    """Write the network to ``folder``, weights in ``dtype``.

    ``encoder`` refers to the encoder's own folder by a path relative to ``folder`` ("../clip") instead of copying it.

    Raises:
        ValueError: for another dtype, superpixels that are not of this package, or an encoder that cannot be saved.
    """
    if dtype not in _DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, got {dtype!r}")
    kind = _DTYPES[dtype]
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    visual: Any = model.visual.encoder
    config: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "num_frames": model.visual.num_frames,
        "template": model.template,
        "max_length": model.conversation.max_length,
        "position_embeddings": model.position_embeddings,
        "normalize_features": model.normalize_features,
        "superpixels": _described(model.visual.superpixels),
        "pooling": _described(model.visual.pooling)["init_args"],
        "encoder": {"layer": visual.layer, "pool": visual.pool},
        "lora": None if model.lora is None else _settings(model.lora),
    }
    if encoder is not None:
        config["encoder"]["path"] = encoder
    else:
        tower = copy.deepcopy(visual.tower).to(kind)
        tower.config.dtype = kind
        tower.save_pretrained(target / "encoder")
    _save_language_model(model, target / "language_model", kind)
    model.tokenizer.save_pretrained(target / "tokenizer")
    if model.lora is not None:
        _save_adapter(model, target / "adapter", kind)
    save_file(_cast(_own_state(model), kind), target / WEIGHTS, metadata={"format": "pt"})
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load(weights: str | Path, *, revision: str | None = None) -> VideoLLM:
    """Load what `save` wrote, in float32 and evaluation mode.

    Raises:
        FileNotFoundError: if the folder or a part is not there; names the command that trains or fetches it.
        ValueError: if the config is of something else, a file is damaged or not the one referred to, or keys are
            missing, unexpected or of another shape: all of them are listed.
    """
    folder = find_weights(weights, revision=revision)
    config = _read_config(folder)
    faults: list[str] = []
    encoder = dict(config["encoder"])
    language_model = config.get("language_model") or {}
    model = VideoLLM(
        _load_encoder(_part(folder, "encoder", encoder), layer=encoder["layer"], pool=encoder["pool"]),
        _load_language_model(_part(folder, "language_model", language_model), torch.float32, faults),
        _load_tokenizer(_part(folder, "tokenizer", config.get("tokenizer") or {})),
        superpixels=_constructed(config["superpixels"]),
        pooling=MGSPooling(**config["pooling"]),
        num_frames=config["num_frames"],
        lora=None if config["lora"] is None else LoraSettings(**config["lora"]),
        template=config["template"],
        position_embeddings=config["position_embeddings"],
        normalize_features=config["normalize_features"],
        max_length=config["max_length"],
    )
    if model.lora is not None:
        from peft import set_peft_model_state_dict

        state = _read(folder / "adapter" / "adapter_model.safetensors")
        compare("adapter", _adapter_state(model), state, faults)
        if not faults:
            set_peft_model_state_dict(model.language_model, state)
    state = _read(folder / WEIGHTS)
    own = _own_state(model)
    compare(WEIGHTS, own, state, faults)
    if faults:
        raise ValueError(f"{folder} must hold exactly the weights of its config.json: {'; '.join(faults)}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])
    return model.eval()


def load_parts(
    encoder: str,
    language_model: str,
    *,
    revisions: tuple[str | None, str | None],
    encoder_settings: Mapping[str, int],
    dtype: str,
    superpixels: SuperpixelModel,
    pooling: MGSPooling,
    num_frames: int,
    lora: LoraSettings | None,
    template: TemplateName,
    position_embeddings: bool,
    normalize_features: bool,
    max_length: int | None,
) -> VideoLLM:
    """Put a new network together; see `VideoLLM.from_parts`."""
    # Both are looked for before either is loaded: a language model takes minutes.
    encoder_folder = _stage_folder(encoder, revisions[0])
    folder = _stage_folder(language_model, revisions[1])
    tokenizer = _load_tokenizer(folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder)
    faults: list[str] = []
    projector: Any = None
    if json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type") == "llava":
        llama, projector = _split_llava(folder, _DTYPES[dtype])
    else:
        llama = _load_language_model(folder, _DTYPES[dtype], faults)
    if faults:
        raise ValueError(f"{folder} must hold exactly the weights of its config.json: {'; '.join(faults)}")
    grow_vocabulary(llama, tokenizer)
    model = VideoLLM(
        _load_encoder(encoder_folder, **encoder_settings),
        llama,
        tokenizer,
        superpixels=superpixels,
        pooling=pooling,
        num_frames=num_frames,
        lora=lora,
        template=template,
        position_embeddings=position_embeddings,
        normalize_features=normalize_features,
        max_length=max_length,
    )
    if projector is not None:
        for place, linear in ((0, projector.linear_1), (2, projector.linear_2)):
            model.projector.mlp[place].load_state_dict(_cast(linear.state_dict(), torch.float32))
    return model


def grow_vocabulary(language_model: Any, tokenizer: Any) -> int:
    """Add the visual tokens that a tokenizer lacks; their rows become the mean of the others. Returns how many."""
    known = len(tokenizer)
    added = add_visual_tokens(tokenizer)
    if not added:
        return 0
    if len(tokenizer) > language_model.get_input_embeddings().num_embeddings:
        language_model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for table in (language_model.get_input_embeddings().weight, language_model.lm_head.weight):
            table[known : known + added] = table[:known].float().mean(dim=0).to(table.dtype)
    return added


def _own_state(model: VideoLLM) -> dict[str, Tensor]:
    """What ``v2p.safetensors`` holds; the tensors are the model's own."""
    own = {f"projector.{name}": value for name, value in model.projector.state_dict().items()}
    own["token_rows"] = model.token_rows.detach()
    own["head.weight"] = model.llama.lm_head.weight.detach()
    return own


def _adapter_state(model: VideoLLM) -> dict[str, Tensor]:
    from peft import get_peft_model_state_dict

    state: dict[str, Tensor] = get_peft_model_state_dict(model.language_model, save_embedding_layers=False)
    return state


def _save_adapter(model: VideoLLM, folder: Path, dtype: torch.dtype) -> None:
    # PeftModel.save_pretrained would also write a card with this machine's paths, and ask the hub for the base model.
    wrapped: Any = model.language_model
    config = copy.deepcopy(wrapped.peft_config["default"])
    config.base_model_name_or_path = None
    config.inference_mode = True
    config.save_pretrained(str(folder))
    # peft keeps the target modules as a set, whose order changes from process to process.
    written = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    written["target_modules"] = sorted(written["target_modules"])
    (folder / "adapter_config.json").write_text(f"{json.dumps(written, indent=2, sort_keys=True)}\n", encoding="utf-8")
    save_file(_cast(_adapter_state(model), dtype), folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _save_language_model(model: VideoLLM, folder: Path, dtype: torch.dtype) -> None:
    from huggingface_hub import save_torch_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    config = copy.deepcopy(model.llama.config)
    config.dtype = dtype
    config.save_pretrained(folder)
    state = {
        name.replace(".base_layer.", "."): value
        for name, value in model.llama.state_dict().items()
        if "lora_" not in name
    }
    save_torch_state_dict(_cast(state, dtype), str(folder))


def _load_language_model(folder: Path, dtype: torch.dtype, faults: list[str]) -> Any:
    from transformers import LlamaForCausalLM

    try:
        model, report = LlamaForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except (SafetensorError, OSError) as err:
        raise ValueError(f"{folder} must hold a language model, and cannot be read: {err}") from err
    misshapen = [key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"]]
    _note("language_model", report["missing_keys"], report["unexpected_keys"], misshapen, faults)
    return model


def _split_llava(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """The language model and the projector of a LLaVA."""
    from transformers import LlamaForCausalLM, LlavaForConditionalGeneration

    llava = LlavaForConditionalGeneration.from_pretrained(folder, dtype=dtype, local_files_only=True)
    with torch.device("meta"):
        llama = LlamaForCausalLM(llava.config.text_config)
    llama.model = llava.model.language_model
    llama.lm_head = llava.lm_head
    return llama, llava.model.multi_modal_projector


def _load_encoder(folder: Path, *, layer: int, pool: int) -> nn.Module:
    from raccoon.models.vision import ClipVisionEncoder

    try:
        return ClipVisionEncoder.from_pretrained(folder, layer=layer, pool=pool, dtype="float32")
    except SafetensorError as err:
        raise ValueError(f"{folder} must hold a CLIP vision tower, and cannot be read: {err}") from err


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise FileNotFoundError(f"the describer's weights lack {file}; copy the folder again")
    try:
        return load_file(file)
    except SafetensorError as err:
        raise ValueError(f"{file} must be a safetensors file, and is damaged: {err}; copy it again") from err


def compare(where: str, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], faults: list[str]) -> None:
    """Note every key that is missing, unexpected or of another shape, by where it was read."""
    misshapen = [
        f"{name} {list(found[name].shape)} instead of {list(wanted[name].shape)}"
        for name in sorted(wanted.keys() & found.keys())
        if found[name].shape != wanted[name].shape
    ]
    _note(where, wanted.keys() - found.keys(), found.keys() - wanted.keys(), misshapen, faults)


def _note(where: str, missing: Any, unexpected: Any, misshapen: Any, faults: list[str]) -> None:
    for words, keys in (("lacks", missing), ("has the unknown", unexpected), ("has another shape for", misshapen)):
        if keys:
            faults.append(f"{where} {words} {', '.join(sorted(keys))}")


def _cast(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {
        name: value.detach().to("cpu", dtype if value.is_floating_point() else value.dtype).contiguous().clone()
        for name, value in state.items()
    }


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"there is no describer in {folder}: config.json is missing; see `raccoon fit --help`")
    config = json.loads(file.read_text(encoding="utf-8"))
    if config.get("format") != FORMAT or config.get("version") != VERSION:
        raise ValueError(
            f"{file} must be of format {FORMAT}, version {VERSION}, got {config.get('format')!r}, "
            f"{config.get('version')!r}"
        )
    return dict(config)


def _part(folder: Path, name: str, entry: Mapping[str, Any]) -> Path:
    """Where a part is: a folder of its own, or what its entry refers to."""
    if entry.get("path") is not None:
        found = (folder / entry["path"]).resolve()
        if not found.is_dir():
            raise FileNotFoundError(f"{folder} refers to its {name} in {found}, which is not there; copy it there too")
        return found
    if entry.get("repo") is None:
        return folder / name
    found = find_weights(entry["repo"], revision=entry.get("revision"))
    if (wanted := entry.get("sha256")) is not None:
        digest = hashlib.sha256((found / "model.safetensors").read_bytes()).hexdigest()
        if digest != wanted:
            raise ValueError(
                f"{found / 'model.safetensors'} must have the sha256 {wanted} that {folder} was trained with, got "
                f"{digest}; fetch the revision {entry.get('revision')}"
            )
    return found


def _stage_folder(source: str, revision: str | None) -> Path:
    """`find_weights`, with the recipe that makes what an earlier stage should have left."""
    try:
        return find_weights(source, revision=revision)
    except FileNotFoundError as err:
        path = Path(source)
        if path.parts[:-1] != (*TRAINED_FOLDER.parts, "tiny"):
            raise
        raise FileNotFoundError(
            f"there are no weights in {source}, which an earlier stage makes: `raccoon fit --config tiny/{path.name}`"
        ) from err


def _described(thing: object) -> dict[str, Any]:
    """A part of this package as class path and arguments, which its attributes of the same names hold."""
    cls = type(thing)
    if not cls.__module__.startswith("raccoon."):
        raise ValueError(
            f"only this package's superpixels can be named in a weights folder, got {cls.__module__}.{cls.__name__}"
        )
    return {"class_path": f"{cls.__module__}.{cls.__name__}", "init_args": _settings(thing)}


def _settings(thing: object) -> dict[str, Any]:
    return {name: getattr(thing, name) for name in inspect.signature(type(thing)).parameters}


def _constructed(node: Mapping[str, Any]) -> Any:
    module, _, name = str(node["class_path"]).rpartition(".")
    if not module.startswith("raccoon."):
        raise ValueError(f"a weights folder may name this package's classes only, got {node['class_path']!r}")
    return getattr(importlib.import_module(module), name)(**node["init_args"])
