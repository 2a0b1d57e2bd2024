"""Token statistics on their way through verl: packed rows of the engine, nested batches, padded responses."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from verl.workers.utils.padding import no_padding_2_padding

from paec_loss import Tokens, TokenStatistics

#: TokenStatistics field -> name in verl's `model_output` (verl already has names for the first two).
OUTPUT_NAMES = {
    "log_prob": "log_probs",
    "entropy": "entropy",
    "nucleus_entropy": "nucleus_entropy",
    "nucleus_size": "nucleus_size",
    "nucleus_mass": "nucleus_mass",
    "top1_log_prob": "top1_log_prob",
    "top2_log_prob": "top2_log_prob",
}


def pack(statistics: TokenStatistics) -> torch.Tensor:
    """[...] fields -> [..., 7] in the order of OUTPUT_NAMES, so that one collective moves them all."""
    fields = [getattr(statistics, name) for name in OUTPUT_NAMES]
    return torch.stack([values.to(statistics.log_prob.dtype) for values in fields], dim=-1)


def unpack(packed: torch.Tensor, offsets: torch.Tensor) -> dict[str, torch.Tensor]:
    """[T, 7] packed rows -> one nested tensor [B, j] for each name of verl's `model_output`."""
    return {
        name: torch.nested.nested_tensor_from_jagged(values, offsets)
        for name, values in zip(OUTPUT_NAMES.values(), packed.unbind(-1), strict=True)
    }


def response_statistics(model_output: dict, data: TensorDict, vocab_size: int) -> TokenStatistics:
    """Nested prompt + response outputs -> TokenStatistics of the responses, [B, R], padded with zeros on the right.

    `data` holds verl's nested `prompts` and `responses`. The outputs are shifted by one, as everywhere in verl: the row
    before a token is the one that predicts it.
    """
    return TokenStatistics(**_responses(model_output, data, OUTPUT_NAMES), vocab_size=vocab_size)


def _responses(values: TensorDict | dict, data: TensorDict, names: dict[str, str]) -> dict[str, torch.Tensor]:
    """The nested `values[name]` of `names` (field -> name), cut to the responses in one operation, [B, R] each."""
    flat = [values[name] for name in names.values()]
    together = torch.stack([v.values() if v.is_nested else v for v in flat], dim=-1)
    fields = dict(zip(names, no_padding_2_padding(together, data).unbind(-1), strict=True))
    return {**fields, "nucleus_size": fields["nucleus_size"].long()}


def micro_batch_tokens(model_output: dict, data: TensorDict, vocab_size: int) -> Tokens:
    """What the hooks of a method see of nested `data` and the actor's outputs for it, with their gradient."""
    return _tokens(response_statistics(model_output, data, vocab_size), data)


def queued_tokens(data: TensorDict, vocab_size: int) -> Tokens:
    """The same with the statistics of the step's log-prob pass, which came with `data`; no gradient."""
    return _tokens(queued_statistics(data, vocab_size), data)


def _tokens(statistics: TokenStatistics, data: TensorDict) -> Tokens:
    length = statistics.entropy.shape[1]

    def padded(name: str) -> torch.Tensor | None:
        if name not in data.keys():
            return None
        values = data[name].to_padded_tensor(0.0) if data[name].is_nested else data[name]
        return torch.nn.functional.pad(values, (0, length - values.shape[1]))

    return Tokens(
        statistics=statistics,
        old_log_prob=padded("old_log_probs"),
        advantages=padded("advantages"),
        response_mask=padded_mask(data["response_mask"], length),
        response_id=data[RESPONSE_NUMBER],
        ref_log_prob=padded("ref_log_prob"),
        response_value=data[RESPONSE_VALUE] if RESPONSE_VALUE in data.keys() else None,
    )


RESPONSE_NUMBER = "response_number"
"""Field of a batch: [B] int64, the response; computed from its key in the queue."""

RESPONSE_VALUE = "response_value"
"""Field of a batch: [B] float32, the number of every response, if a method has that hook."""

RECORDED = "record_tokens"
"""Flag of a log-prob pass: leave all statistics in the queue, also where no method reads them."""

QUEUED_FIELDS = [
    "prompts",
    "responses",
    "response_mask",
    "old_log_probs",
    "entropy",
    *(name for field, name in OUTPUT_NAMES.items() if field not in ("log_prob", "entropy")),
]
"""What a step's log-prob pass leaves in the queue; verl has cut its own two fields to the response already."""


def queued_statistics(data: TensorDict, vocab_size: int) -> TokenStatistics:
    """Like `response_statistics`, from the QUEUED_FIELDS of a step's log-prob pass."""
    ours = {field: name for field, name in OUTPUT_NAMES.items() if field not in ("log_prob", "entropy")}
    fields = _responses(data, data, ours)
    fields["log_prob"] = data["old_log_probs"].to_padded_tensor(0.0)
    fields["entropy"] = data["entropy"].to_padded_tensor(0.0)
    return TokenStatistics(**fields, vocab_size=vocab_size)


def padded_mask(response_mask: torch.Tensor, length: int | None = None) -> torch.Tensor:
    """verl's nested (or padded) response mask -> boolean [B, R]."""
    if response_mask.is_nested:
        response_mask = response_mask.to_padded_tensor(0.0 if response_mask.is_floating_point() else 0)
    if length is not None and response_mask.shape[1] < length:
        response_mask = torch.nn.functional.pad(response_mask, (0, length - response_mask.shape[1]))
    return response_mask.bool()
