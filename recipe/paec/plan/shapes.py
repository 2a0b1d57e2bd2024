"""Shapes of models, which determine the memory they need."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

from recipe.paec.common.errors import UserError
from recipe.paec.common.model_files import file_errors, model_folder, tensor_shapes, weight_files


@dataclass(frozen=True)
class ModelShape:
    """A dense decoder with grouped-query attention and a gated MLP."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    """Embedding and LM head are one matrix."""
    qkv_bias: bool = True
    """Qwen2's query, key and value projections have a bias."""
    qk_norm: bool = False
    """Qwen3's queries and keys are normalised per head."""

    @property
    def q_width(self) -> int:
        """Width of all queries."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of all keys; that of all values is the same."""
        return self.kv_heads * self.head_dim

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, and of the LM head."""
        return self.vocab * self.hidden

    @property
    def layer(self) -> int:
        """Parameters of one decoder layer: attention, MLP, two norms."""
        qkv = self.q_width + 2 * self.kv_width
        attention = self.hidden * (qkv + self.q_width) + qkv * self.qkv_bias + 2 * self.head_dim * self.qk_norm
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters, counting a tied matrix once."""
        return self.layers * self.layer + self.hidden + self.embedding * (1 if self.tied else 2)


QWEN = {
    "0.5B": ModelShape(24, 896, 4864, 14, 2, 64, 151936, True),
    "1.5B": ModelShape(28, 1536, 8960, 12, 2, 128, 151936, True),
    "7B": ModelShape(28, 3584, 18944, 28, 4, 128, 152064, False),
    "14B": ModelShape(48, 5120, 13824, 40, 8, 128, 152064, False),
    "32B": ModelShape(64, 5120, 27648, 40, 8, 128, 152064, False),
}
"""Published shapes of Qwen2.5, from each model's config.json; Qwen2.5-Math and the instruct models have the same."""
QWEN3 = {"0.6B": ModelShape(28, 1024, 3072, 16, 8, 128, 151936, True, qkv_bias=False, qk_norm=True)}
"""Published shapes of Qwen3."""
PUBLISHED = {"Qwen2.5": QWEN, "Qwen3": QWEN3}
FAMILIES = {
    "qwen2": {"qkv_bias": True, "qk_norm": False},
    "qwen3": {"qkv_bias": False, "qk_norm": True},
    "llama": {"qkv_bias": False, "qk_norm": False},
}
"""`model_type`s whose parameters `ModelShape` counts."""


def read_shape(config: dict) -> ModelShape:
    """The shape in a model's config.json; ValueError for an unsupported family, KeyError for a missing field."""
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ValueError(f"model_type={family}: must be one of {', '.join(FAMILIES)}")
    heads = config["num_attention_heads"]
    return ModelShape(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        vocab=config["vocab_size"],
        tied=config.get("tie_word_embeddings", False),
        **FAMILIES[family],
    )


def find_shape(path: str) -> tuple[ModelShape, str]:
    """Shape of the model `path` (folder or hub id), and where it was found; UserError if it is unknown."""
    folder = model_folder(path)
    if folder is not None and (folder / "config.json").is_file():
        file = folder / "config.json"
        try:
            return read_shape(json.loads(file.read_text(encoding="utf-8"))), str(file)
        except KeyError as error:
            raise UserError(f"model.path={path}: {file} has no field {error}: give a complete model folder") from None
        except ValueError as error:
            raise UserError(f"model.path={path}: {file}: {error}") from None
    name = re.search(r"(Qwen2\.5|Qwen3)-(?:Math-)?([\d.]+B)(?:-Instruct|-Base)?/*$", path)
    if name is None or name[2] not in PUBLISHED[name[1]]:
        known = "; ".join(f"{family} {', '.join(shapes)}" for family, shapes in PUBLISHED.items())
        raise UserError(
            f"model.path={path}: does not exist, and is not one of the known models ({known}): give a folder with "
            "the model's config.json"
        )
    return PUBLISHED[name[1]][name[2]], f"built-in table, {name[1]} {name[2]}"


def parameter_count(path: str) -> int | None:
    """Parameters of the model `path`, from its weight files or the built-in table; None without a complete model."""
    folder = model_folder(path)
    if folder is not None:
        whole = not file_errors(folder, path)
        return sum(math.prod(shape) for shape in tensor_shapes(weight_files(folder)).values()) if whole else None
    try:
        return find_shape(path)[0].parameters
    except UserError:
        return None
