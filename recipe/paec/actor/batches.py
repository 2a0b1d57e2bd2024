"""Token statistics on their way through verl: packed rows of the engine, nested batches, padded responses."""

from __future__ import annotations

import torch
from tensordict import TensorDict

from paec_loss import Tokens, TokenStatistics
from recipe.paec.actor.responses import no_padding_2_padding

VERL_NAMES = {"log_prob": "log_probs", "entropy": "entropy"}
"""TokenStatistics field -> its name in verl's `model_output` and queue."""

NUCLEUS_FIELDS = ("nucleus_entropy", "nucleus_size", "nucleus_mass", "top1_log_prob", "top2_log_prob")
"""The other fields, side by side in one field of a batch."""

NUCLEUS = "nucleus_statistics"
"""That field: nested [B, j, 5] over prompt and response. What the queue costs goes by fields and rows, not bytes."""

OUTPUT_NAMES = (*VERL_NAMES.values(), NUCLEUS)
"""All statistics in verl's `model_output`."""


def pack(statistics: TokenStatistics) -> torch.Tensor:
    """[...] fields -> [..., 7] in the order of VERL_NAMES and NUCLEUS_FIELDS, so that one collective moves them all."""
    fields = [getattr(statistics, name) for name in (*VERL_NAMES, *NUCLEUS_FIELDS)]
    return torch.stack([values.to(statistics.log_prob.dtype) for values in fields], dim=-1)


def unpack(packed: torch.Tensor, offsets: torch.Tensor) -> dict[str, torch.Tensor]:
    """[T, 7] packed rows -> one nested tensor, [B, j] or [B, j, 5], for each name of OUTPUT_NAMES."""
    first = len(VERL_NAMES)
    columns = [*packed[..., :first].unbind(-1), packed[..., first:]]
    return {
        name: torch.nested.nested_tensor_from_jagged(values, offsets)
        for name, values in zip(OUTPUT_NAMES, columns, strict=True)
    }


def response_statistics(model_output: dict, data: TensorDict, vocab_size: int) -> TokenStatistics:
    """Nested prompt + response outputs -> TokenStatistics of the responses, [B, R], padded with zeros on the right.

    `data` holds verl's nested `prompts` and `responses`. The outputs are shifted by one, as everywhere in verl: the row
    before a token is the one that predicts it.
    """
    *verls, nucleus = (_values(model_output[name]) for name in OUTPUT_NAMES)
    packed = torch.cat([*(values[:, None] for values in verls), nucleus], -1)
    return _statistics(no_padding_2_padding(packed, data), vocab_size)


def _values(nested: torch.Tensor) -> torch.Tensor:
    return nested.values() if nested.is_nested else nested


def _statistics(packed: torch.Tensor, vocab_size: int) -> TokenStatistics:
    """[B, R, 7] -> their statistics."""
    fields = dict(zip((*VERL_NAMES, *NUCLEUS_FIELDS), packed.unbind(-1), strict=True))
    return TokenStatistics(**{**fields, "nucleus_size": fields["nucleus_size"].long()}, vocab_size=vocab_size)


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

QUEUED_FIELDS = ["prompts", "responses", "response_mask", "old_log_probs", "entropy", NUCLEUS]
"""What a step's log-prob pass leaves in the queue; verl has cut its own two fields to the response already."""


def queued_statistics(data: TensorDict, vocab_size: int) -> TokenStatistics:
    """Like `response_statistics`, from the QUEUED_FIELDS of a step's log-prob pass."""
    verls = [data[name].to_padded_tensor(0.0)[..., None] for name in ("old_log_probs", "entropy")]
    return _statistics(torch.cat([*verls, no_padding_2_padding(_values(data[NUCLEUS]), data)], -1), vocab_size)


def padded_mask(response_mask: torch.Tensor, length: int | None = None) -> torch.Tensor:
    """verl's nested (or padded) response mask -> boolean [B, R]."""
    if response_mask.is_nested:
        response_mask = response_mask.to_padded_tensor(0.0 if response_mask.is_floating_point() else 0)
    if length is not None and response_mask.shape[1] < length:
        response_mask = torch.nn.functional.pad(response_mask, (0, length - response_mask.shape[1]))
    return response_mask.bool()
