"""The describer's adapters as the authors released them, into our network.

Three files, one for each task: ``{multi_obj,single_obj,layout_pred}_projector.bin``. Each is a pickled table of
tensors: projector, embeddings, head and LoRA. They cannot be had everywhere, so the tests use a miniature of the same
keys.
Source: huggingface.co/jaehong31/RACCooN, folder mllm_finetuned.
"""

import pickle
from pathlib import Path

import torch
from torch import Tensor

from raccoon.models.video_llm import VideoLLM
from raccoon.models.video_llm_files import compare


def import_released(model: VideoLLM, path: str | Path) -> None:
    """Load an adapter as the authors released it (``{multi_obj,single_obj,layout_pred}_projector.bin``).

    The file holds projector, embeddings, head and LoRA of one task; its keys may carry the prefixes of PEFT and of the
    model or lack them. The pickle is read with ``weights_only``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no such file, or lists keys that are missing, unexpected or of another shape.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no released adapter at {file}")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as err:
        raise ValueError(
            f"{file} must be a table of tensors as the authors saved it, and cannot be read: {err}"
        ) from err
    if model.lora is None:
        raise ValueError("a released adapter holds LoRA, and this network was made without; set lora")
    found = {_released_key(key): value for key, value in state.items()}
    wanted = _released_targets(model)
    faults: list[str] = []
    table = found.get("embed_tokens.weight")
    rows = wanted["embed_tokens.weight"].shape[0] if table is None else table.shape[0]
    for name in ("embed_tokens.weight", "lm_head.weight"):
        # LLaVA's tables are padded beyond the released vocabulary.
        if rows < wanted[name].shape[0]:
            wanted[name] = wanted[name][:rows]
    compare(str(file), wanted, found, faults)
    if faults:
        raise ValueError(f"{file} does not fit this network: {'; '.join(faults)}")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(found[name])
        model.token_rows.copy_(found["embed_tokens.weight"][model.token_ids])


def _released_key(key: str) -> str:
    for prefix in ("base_model.model.", "model."):
        key = key.removeprefix(prefix)
    return key.replace(".default.", ".")


def _released_targets(model: VideoLLM) -> dict[str, Tensor]:
    targets = {f"mm_projector.{name}": value for name, value in model.projector.mlp.state_dict().items()}
    targets["embed_tokens.weight"] = model.llama.get_input_embeddings().weight.detach()
    targets["lm_head.weight"] = model.llama.lm_head.weight.detach()
    for name, value in model.llama.model.state_dict().items():
        if "lora_" in name:
            targets[name.replace(".default.", ".")] = value
    return targets
