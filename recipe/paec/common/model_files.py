"""A Hugging Face model folder, read without loading the model: missing files, size and context length."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

INDEX = "model.safetensors.index.json"
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Names of the linear layers in the decoders that the recipe trains, for a model that does not exist yet."""
STRETCHED = ("linear", "dynamic", "yarn")
"""Types of rotary embedding whose context is a multiple (`factor`) of the trained one."""


def model_folder(path: str) -> Path | None:
    """The local folder of a model: the path itself, or the hub cache's snapshot of a hub id; None if there is none."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if is_hub_id(path):
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(path, "config.json")
        if isinstance(cached, str):
            return Path(cached).parent
    return None


def is_hub_id(path: str) -> bool:
    """Whether the path of a model that is not a local folder has the form `owner/name`."""
    return path.count("/") == 1 and not path.startswith((".", "~", "/"))


def read_config(folder: Path) -> dict[str, Any]:
    """The language model's part of config.json."""
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {**content, **content.get("text_config", {})}


def context_length(content: dict[str, Any]) -> int | None:
    """Longest prompt + response in tokens by a config.json, as vLLM derives it; None if it says nothing."""
    length = content.get("max_position_embeddings")
    rope = content.get("rope_parameters") or content.get("rope_scaling") or {}
    if length and rope.get("rope_type", rope.get("type")) in STRETCHED:
        length = (rope.get("original_max_position_embeddings") or length) * rope["factor"]
    return int(length) if length else None


def head_dim(content: dict[str, Any]) -> int:
    """Width of one attention head."""
    return content.get("head_dim") or content["hidden_size"] // content["num_attention_heads"]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of the model, existing or not: those of the index, or all in the folder."""
    index = folder / INDEX
    if index.is_file() and not (folder / "model.safetensors").is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return [folder / name for name in sorted(names)]
    return sorted(folder.glob("*.safetensors"))


def tensor_shapes(files: list[Path]) -> dict[str, list[int]]:
    """Shape of every tensor by name, from the headers; SafetensorError for an incomplete file."""
    shapes = {}
    for file in files:
        with safe_open(file, framework="pt") as stream:
            for name in stream.keys():  # noqa: SIM118  (not a dict)
                shapes[name] = stream.get_slice(name).get_shape()
    return shapes


def fingerprint(folder: Path) -> str:
    """SHA-256 over names, sizes and the first and last MiB of a model's files: different for different models.

    Configuration, weights, tokenizer, chat template, end-of-sequence tokens: all that responses depend on.
    """
    patterns = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors", "*.bin", "actor/*.*", "actor/huggingface/*.*")
    files = sorted({file for pattern in patterns for file in folder.glob(pattern)})
    return fingerprint_of({str(file.relative_to(folder)): file for file in files})


def fingerprint_of(files: Mapping[str, Path]) -> str:
    """SHA-256 over names, sizes and the first and last MiB of these files (name -> file)."""
    digest, piece = hashlib.sha256(), 2**20
    for name, file in files.items():
        size = file.stat().st_size
        digest.update(f"{name}:{size}\n".encode())
        with open(file, "rb") as stream:
            digest.update(stream.read(piece))
            stream.seek(max(size - piece, 0))
            digest.update(stream.read(piece))
    return digest.hexdigest()


def module_errors(folder: Path | None, wanted: list[str]) -> list[str]:
    """Names in `wanted` (lora.target_modules) that no linear layer has; None: the model does not exist yet."""
    layers = set(LINEARS)
    if folder is not None:
        shapes = tensor_shapes(weight_files(folder))
        layers = {name.removesuffix(".weight") for name, shape in shapes.items() if len(shape) == 2}
    absent = [name for name in wanted if not any(f".{layer}".endswith(f".{name}") for layer in layers)]
    if not absent:
        return []
    last = sorted({layer.rpartition(".")[2] for layer in layers})
    return [f"lora.target_modules: the model has no layer {', '.join(absent)}; it has {', '.join(last)}"]


def file_errors(folder: Path, name: str) -> list[str]:
    """What a Hugging Face model folder lacks; each sentence begins with `name`."""
    errors = []
    if not (folder / "config.json").is_file():
        errors.append(f"{name}: it has no config.json, so it is not a Hugging Face model folder")
    errors += _weight_errors(folder, name)
    if not (folder / "tokenizer.json").is_file() and not (folder / "tokenizer_config.json").is_file():
        errors.append(f"{name}: it has no tokenizer")
    return errors


def _weight_errors(folder: Path, name: str) -> list[str]:
    try:
        files = weight_files(folder)
    except (ValueError, KeyError, AttributeError):
        return [f"{name}: {INDEX} cannot be read: download the model again"]
    if not files and any(folder.glob("*.bin")):
        return [
            f"{name}: its weights are pickles (*.bin), and loading them can execute arbitrary code: use the model as "
            "*.safetensors, or convert it where you trust it"
        ]
    if not files:
        return [f"{name}: it has no weights (*.safetensors)"]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        return [
            f"{name}: {len(missing)} of the {len(files)} weight files in {INDEX} are missing ({missing[0]}"
            f"{', ...' if missing[1:] else ''}): the download is incomplete, download the model again"
        ]
    for file in files:
        try:
            tensor_shapes([file])
        except SafetensorError as error:
            return [f"{name}: {file.name} is not a complete safetensors file ({error}): download the model again"]
    return []
