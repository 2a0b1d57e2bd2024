"""Qwen2 or Llama as a function of its weights. A prompt is encoded once for all responses, in training and sampling."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import embedding, linear, silu

from recipe.paec.common.errors import UserError

AT_ONCE = 8
"""Prompts of a training pass that are computed together: each part is padded to its own longest response."""
Past = list[tuple[Tensor, Tensor]]
"""Keys and values of every layer."""


@dataclass(frozen=True)
class Prompts:
    """Tokenized prompts, padded on the right."""

    ids: Tensor
    """[P, L] int64."""
    lengths: Tensor
    """[P] int64, at least 1."""

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Prompts:
        """From P lists of token ids."""
        lengths = torch.tensor([len(row) for row in rows])
        return cls(torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True), lengths)

    def __getitem__(self, rows: slice | Tensor) -> Prompts:
        return Prompts(self.ids[rows], self.lengths[rows])


@dataclass(frozen=True)
class _Layer:
    """A layer's weights as the pass takes them: those with the same input side by side, the norm's factor in them.

    The query's rows are scaled by 1 / sqrt(d), and the halves that RoPE turns against each other are neighbours.
    """

    qkv: Tensor
    qkv_bias: Tensor | None
    out: Tensor
    gate_up: Tensor
    down: Tensor


class Policy:
    """A Qwen2 or Llama model: `parameters` by their Hugging Face names, float32, and the logits they give.

    Raises:
        UserError: the folder's model is another one, or has what these usually do not have.
    """

    def __init__(self, folder: Path):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["model_type"] not in ("qwen2", "llama"):
            raise UserError(
                f"model={folder}: its model_type is {config['model_type']}, but the laboratory supports only qwen2 and "
                "llama"
            )
        rope = config.get("rope_parameters") or config
        odd = [key for key in ("use_sliding_window", "attention_bias", "mlp_bias") if config.get(key)]
        if config.get("head_dim") not in (None, config["hidden_size"] // config["num_attention_heads"]):
            odd.append("head_dim")
        if rope.get("rope_type", "default") != "default" or config.get("rope_scaling"):
            odd.append("rope_type")
        if odd:
            raise UserError(
                f"model={folder}: its config.json has {', '.join(odd)}, which the laboratory does not support"
            )
        weights = load_file(folder / "model.safetensors")
        self.parameters = {name: Parameter(weight.float()) for name, weight in sorted(weights.items())}
        self.heads, self.key_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.layers, self.eps = config["num_hidden_layers"], config["rms_norm_eps"]
        self.head_dim = config["hidden_size"] // self.heads
        self.vocab_size, self.positions = config["vocab_size"], config["max_position_embeddings"]
        steps = 1 / rope["rope_theta"] ** (torch.arange(0, self.head_dim, 2) / self.head_dim)
        angles = torch.arange(self.positions)[:, None] * steps
        self._turns = torch.polar(torch.ones_like(angles), angles)
        head = "model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"
        self._embeddings, self._head = self.parameters["model.embed_tokens.weight"], self.parameters[head]
        self._padding = config.get("pad_token_id")

    def weights(self) -> list[_Layer]:
        """The layers' weights as `encode` and `decode` take them, with their gradient."""

        def layer(number: int) -> _Layer:
            prefix = f"model.layers.{number}."
            w = {n.removeprefix(prefix): v for n, v in self.parameters.items() if n.startswith(prefix)}
            read, read_mlp = w["input_layernorm.weight"], w["post_attention_layernorm.weight"]
            q, k = (self._neighbours(w[f"self_attn.{x}_proj.weight"]) for x in "qk")
            scale, bias = self.head_dim**-0.5, None
            if "self_attn.q_proj.bias" in w:  # Qwen2
                q_bias, k_bias = (self._neighbours(w[f"self_attn.{x}_proj.bias"]) for x in "qk")
                bias = torch.cat([q_bias * scale, k_bias, w["self_attn.v_proj.bias"]])
            return _Layer(
                qkv=torch.cat([q * scale, k, w["self_attn.v_proj.weight"]]) * read,
                qkv_bias=bias,
                out=w["self_attn.o_proj.weight"],
                gate_up=torch.cat([w["mlp.gate_proj.weight"], w["mlp.up_proj.weight"]]) * read_mlp,
                down=w["mlp.down_proj.weight"],
            )

        return [layer(number) for number in range(self.layers)]

    def encode(self, prompts: Prompts, weights: list[_Layer]) -> tuple[Past, Tensor]:
        """Keys and values [P, K, L, d] of the prompts without their last token, and its bias [P, 1, 1, 1, L].

        The last token is the first input of a response: its row predicts the response's first token.
        """
        place = torch.arange(prompts.ids.shape[1])
        x, past = self.embedded(prompts.ids)[:, None], []
        turns = self._turns[place][None, None, :, None]
        causal = _bias(place[:, None] >= place)
        for number, layer in enumerate(weights):
            q, k, v = self._heads_of(layer, x, turns)
            past.append((k[:, :, 0].contiguous(), v[:, :, 0].contiguous()))
            if number + 1 < self.layers:  # of the last layer only keys and values are needed
                x = self._after(layer, x, _attention(q, k, v, causal))
        return past, _bias(place < prompts.lengths[:, None] - 1)[:, None, None, None]

    def decode(
        self, x: Tensor, positions: Tensor, weights: list[_Layer], cache: Past, used: int, bias: Tensor
    ) -> Tensor:
        """[P, n, D] last hidden states of the next token of n responses to each prompt.

        Args:
            x: [P, n, D] embeddings of the tokens.
            positions: [P].
            cache: keys and values [P, K, C, d], one after the other: of the prompt's tokens, of the responses' first
                tokens, of their second ones, and so on. Those of `x` are written at the end of the part in use.
            used: columns in use, those of `x` included.
            bias: [P, 1, 1, n, used], 0 where a response sees a column, else -inf. Most of it is another response's:
                one product over all of them is faster than many small ones.
        """
        prompts, n, width = x.shape
        x, turns = x[:, :, None], self._turns[positions][:, None, None, None]
        for layer, kept in zip(weights, cache, strict=True):
            q, *new = self._heads_of(layer, x, turns)
            for columns, values in zip(kept, new, strict=True):
                columns[:, :, used - n : used] = values[..., 0, :]
            keys, values = (columns[:, :, :used] for columns in kept)
            grouped = q.reshape(prompts, self.key_heads, -1, self.head_dim)
            scores = (grouped @ keys.mT).unflatten(2, (-1, n)) + bias
            attended = scores.softmax(-1).flatten(2, 3) @ values
            x = self._after(layer, x, attended.view(q.shape))
        return self._last_norm(x).view(prompts, n, width)

    def embedded(self, ids: Tensor) -> Tensor:
        """[..., D] embeddings of token ids; as in transformers, the padding token's get no gradient as an input."""
        return embedding(ids, self._embeddings, self._padding)

    def head(self, hidden: Tensor) -> Tensor:
        """[..., V] logits of hidden states [..., D]."""
        return linear(hidden, self._head)

    def logits(self, prompts: Prompts, responses: Tensor, inside: Tensor) -> Tensor:
        """[T, V] logits from which the T response tokens were drawn, row by row, with gradient.

        Args:
            responses: [P, n, R] int64, padded on the right.
            inside: [P, n, R] bool, True at response tokens.
        """
        weights, found = self.weights(), []
        for first in range(0, len(responses), AT_ONCE):
            rows = slice(first, first + AT_ONCE)
            longest = int(inside[rows].sum(-1).max())
            hidden = self._hidden(prompts[rows], responses[rows, :, :longest], weights)
            found.append(hidden[inside[rows, :, :longest]])
        return self.head(torch.cat(found))

    def _hidden(self, prompts: Prompts, responses: Tensor, weights: list[_Layer]) -> Tensor:
        """[P, n, R, D] last hidden states that predict the tokens of the responses [P, n, R]."""
        past, prompt_bias = self.encode(prompts, weights)
        count, n, length = responses.shape
        last = prompts.ids.gather(1, prompts.lengths[:, None] - 1)[:, :, None].expand(-1, n, 1)
        x = self.embedded(torch.cat([last, responses[..., :-1]], -1))
        place = torch.arange(length)
        causal = _bias(place[:, None] >= place).expand(count, 1, 1, -1, -1)
        bias = torch.cat([prompt_bias.expand(-1, -1, -1, length, -1), causal], -1)
        turns = self._turns[prompts.lengths[:, None] - 1 + place][:, None, :, None]
        for layer, before in zip(weights, past, strict=True):
            q, k, v = self._heads_of(layer, x, turns)
            x = self._after(layer, x, _attention(q, k, v, bias, before))
        return self._last_norm(x)

    # ---- one layer ---------------------------------------------------------------------------------------------------

    def _neighbours(self, weight: Tensor) -> Tensor:
        """Rows i and i + d / 2 of every head as neighbours."""
        rows = weight.unflatten(0, (-1, 2, self.head_dim // 2))
        return rows.transpose(1, 2).flatten(0, 2)

    def _norm(self, x: Tensor) -> Tensor:
        return torch.nn.functional.rms_norm(x, x.shape[-1:], None, self.eps)

    def _last_norm(self, x: Tensor) -> Tensor:
        return self._norm(x) * self.parameters["model.norm.weight"]

    def _heads_of(self, layer: _Layer, x: Tensor, turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [P, H, n, R, d], scaled, and keys and values [P, K, n, R, d] of x [P, n, R, D].

        RoPE is a complex product: `turns` [P or 1, 1, R, 1, d / 2] are the unit numbers of the positions.
        """
        mixed = linear(self._norm(x), layer.qkv, layer.qkv_bias).unflatten(-1, (-1, self.head_dim))
        turned, v = mixed.split([self.heads + self.key_heads, self.key_heads], -2)
        turned = torch.view_as_real(torch.view_as_complex(turned.unflatten(-1, (-1, 2))) * turns).flatten(-2)
        q, k = turned.split([self.heads, self.key_heads], -2)
        q, k, v = (values.permute(0, 3, 1, 2, 4) for values in (q, k, v))
        return q, k, v

    def _after(self, layer: _Layer, x: Tensor, attended: Tensor) -> Tensor:
        """The layer's output from its input x [P, n, R, D] and its attention [P, H, n, R, d]."""
        x = x + linear(attended.permute(0, 2, 3, 1, 4).reshape(x.shape), layer.out)
        gate, up = linear(self._norm(x), layer.gate_up).chunk(2, -1)
        return x + linear(silu(gate) * up, layer.down)


def _bias(visible: Tensor) -> Tensor:
    """0 where `visible`, -inf elsewhere."""
    return torch.zeros(visible.shape).masked_fill(~visible, -torch.inf)


def _attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, past: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """[P, H, n, R, d] attention of the queries to their own sequence and, without a copy for each, to the prompt's."""
    k, v = _for_each_head(q, k), _for_each_head(q, v)
    if past is None:
        return (q @ k.mT + bias).softmax(-1) @ v
    prompt_k, prompt_v = (_for_each_head(q, values) for values in past)
    on_prompt = (q.flatten(2, 3) @ prompt_k.mT).unflatten(2, q.shape[2:4])
    weights = (torch.cat([on_prompt, q @ k.mT], -1) + bias).softmax(-1)
    on_prompt, on_own = weights.split([prompt_k.shape[2], k.shape[-2]], -1)
    return (on_prompt.flatten(2, 3) @ prompt_v).unflatten(2, q.shape[2:4]) + on_own @ v


def _for_each_head(q: Tensor, values: Tensor) -> Tensor:
    """Keys or values [P, K, ...] of grouped heads as [P, H, ...]."""
    return values if q.shape[1] == values.shape[1] else values.repeat_interleave(q.shape[1] // values.shape[1], 1)
