"""The sidecar of a result: everything needed to make the same frames again, as JSON beside the video.

It holds the hashes of the source (the file and the frames decoded from it), decoder and frame indices, both paragraphs,
the plan, the masks themselves (compressed, each with its hash, so that a replay needs no mask file), the recipe with
all references followed, the class and model of every part, seed, threads, versions, machine and measurements. This
module knows its fields and nothing of editing; `raccoon.editor` fills it in, replays it and verifies by it.
"""

import base64
import hashlib
import json
import math
import os
import platform
import zlib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import NoneType
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from raccoon import __version__

SIDECAR_SCHEMA = 1
_NEEDED = ("output", "source", "plan", "edits", "result")
# Every field that `raccoon.editor` reads back, with its type.
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "output.name": str,
    "output.sha256": str,
    "output.lossless": bool,
    "source.path": (str, NoneType),
    "source.sha256": (str, NoneType),
    "source.decoder": (str, NoneType),
    "source.frame_indices": (dict, list),
    "source.time_span": list,
    "source.fps": (float, int),
    "source.shape": list,
    "source.frames_sha256": str,
    "plan": dict,
    "edits": list,
    "seed": int,
    "grow": int,
    "feather": int,
    "result.frames_sha256": str,
    "masks": list,
}
_DISTRIBUTIONS = ("torch", "numpy", "opencv-python-headless", "av", "decord", "diffusers", "transformers")


def sidecar_path(video: str | Path) -> Path:
    """Return where the sidecar of a video stands: ``out.mp4`` -> ``out.json``."""
    return Path(video).with_suffix(".json")


def hash_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_array(array: NDArray[Any]) -> str:
    """Return the SHA-256 of an array's type, shape and values (C order), in hexadecimal."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def mask_to_json(mask: NDArray[np.uint8]) -> dict[str, Any]:
    """Return a mask uint8 {0, 1} [F, H, W] as shape, hash and compressed bits."""
    bits = zlib.compress(np.packbits(mask.astype(bool)).tobytes(), 9)
    return {"shape": list(mask.shape), "sha256": hash_array(mask), "bits": base64.b64encode(bits).decode("ascii")}


def mask_from_json(content: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Return the mask that `mask_to_json` wrote.

    Raises:
        ValueError: if the stored mask is damaged or is not the one its hash names.
    """
    try:
        shape = tuple(int(size) for size in content["shape"])
        data = np.frombuffer(zlib.decompress(base64.b64decode(content["bits"], validate=True)), dtype=np.uint8)
        count = math.prod(shape)
        if data.size != (count + 7) // 8:
            raise ValueError(f"{data.size} bytes for the shape {list(shape)}")
        mask = np.unpackbits(data, count=count).reshape(shape)
    except (ValueError, KeyError, TypeError, zlib.error) as err:
        raise ValueError(f"the mask stored in the sidecar is damaged ({err}); restore the sidecar") from err
    if (got := hash_array(mask)) != content["sha256"]:
        raise ValueError(
            f"the mask stored in the sidecar was changed: its hash is {got[:12]}..., "
            f"written was {str(content['sha256'])[:12]}...; restore the sidecar"
        )
    return mask


def indices_to_json(indices: NDArray[np.int64]) -> dict[str, int] | list[int]:
    """Return frame indices [F]: start, stop and step where they are evenly spaced, else the list."""
    steps = np.diff(indices)
    if len(indices) == 0 or (len(steps) and (steps != steps[0]).any()):
        return [int(index) for index in indices]
    step = int(steps[0]) if len(steps) else 1
    return {"start": int(indices[0]), "stop": int(indices[-1]) + step, "step": step}


def indices_from_json(content: Mapping[str, int] | list[int]) -> NDArray[np.int64]:
    """Return the frame indices that `indices_to_json` wrote."""
    return np.asarray(_indices(content), dtype=np.int64)


def _indices(content: Mapping[str, int] | list[int]) -> Sequence[int]:
    if isinstance(content, Mapping):
        return range(content["start"], content["stop"], content["step"])
    return content


def describe_part(part: object) -> dict[str, Any]:
    """Return the class of a part and what it says of itself.

    A part may offer ``provenance``, a mapping or a method that returns one (model id, revision, hash of its weights);
    its keys are added.
    """
    facts = getattr(part, "provenance", None)
    facts = facts() if callable(facts) else facts
    cls = type(part)
    return {"class": f"{cls.__module__}.{cls.__qualname__}", **(dict(facts) if isinstance(facts, Mapping) else {})}


def versions() -> dict[str, str]:
    """Return the versions of Python, of RACCooN and of the packages that decide about pixels."""
    found = {"raccoon": __version__, "python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Return the kind of machine and the threads in use: where they differ, floating-point results may."""
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "opencv_threads": cv2.getNumThreads(),
        "cuda": torch.version.cuda,
    }


def write_sidecar(content: Mapping[str, Any], path: Path) -> None:
    """Write the sidecar as JSON, in the order of its keys; an option that JSON cannot hold is written by its repr."""
    text = json.dumps(
        {"schema": SIDECAR_SCHEMA, **content}, indent=1, ensure_ascii=False, allow_nan=False, default=repr
    )
    path.write_text(text + "\n", encoding="utf-8")


def read_sidecar(path: str | Path) -> dict[str, Any]:
    """Read a sidecar.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is no sidecar, of a newer schema than this version reads, or damaged; names every field.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no sidecar {path}; `raccoon edit` writes it as OUT.json beside its video")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as err:
        raise ValueError(
            f"{path} is not a sidecar: it is not JSON ({err}); give the OUT.json beside the video"
        ) from err
    if not isinstance(content, dict) or "schema" not in content or any(key not in content for key in _NEEDED):
        raise ValueError(
            f"{path} is not a sidecar: it lacks schema, {', '.join(_NEEDED)}; give the OUT.json of an edit"
        )
    if content["schema"] != SIDECAR_SCHEMA:
        raise ValueError(
            f"{path} has schema {content['schema']}, this version reads {SIDECAR_SCHEMA}; use the version of RACCooN "
            f"that wrote it ({content.get('versions', {}).get('raccoon', 'unknown')})"
        )
    if wrong := _wrong_fields(content):
        raise ValueError(f"{path} is damaged, missing or wrong are {', '.join(wrong)}; restore the sidecar")
    return content


def _fit(indices: dict[str, Any] | list[Any], shape: list[Any]) -> bool:
    """Whether there is one frame index for each frame; also where they are counted only, however many they are."""
    if isinstance(indices, list):
        return [len(indices)] == shape[:1]
    numbers = [indices.get(key) for key in ("start", "stop", "step")]
    return all(isinstance(n, int) for n in numbers) and indices["step"] > 0 and [len(_indices(indices))] == shape[:1]


def _wrong_fields(content: Mapping[str, Any]) -> list[str]:
    wrong = []
    for name, kind in _FIELDS.items():
        value: Any = content
        for key in name.split("."):
            value = value.get(key, ...) if isinstance(value, Mapping) else ...
        if not isinstance(value, kind):
            wrong.append(name)
    if wrong:
        return wrong
    source = content["source"]
    if Path(content["output"]["name"]).name != content["output"]["name"]:
        wrong.append("output.name")
    if not (len(source["time_span"]) == 2 and all(isinstance(second, float | int) for second in source["time_span"])):
        wrong.append("source.time_span")
    wrong += [name for name in ("seed", "grow", "feather") if content[name] < 0]
    if not _fit(source["frame_indices"], source["shape"]):
        wrong.append("source.frame_indices")
    recipe = content.get("recipe")
    if recipe is not None and not (isinstance(recipe, dict) and isinstance(recipe.get("config"), dict)):
        wrong.append("recipe")
    wrong += ["masks" for mask in content["masks"] if not isinstance(mask, dict) or "sha256" not in mask][:1]
    wrong += ["edits" for edit in content["edits"] if not isinstance(edit, dict) or "mask_from" not in edit][:1]
    return wrong
