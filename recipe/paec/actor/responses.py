"""verl's three conversions between whole rows and responses, without a loop over the rows.

verl cuts responses out one by one and reads their lengths from the device for it: on a CPU most of what a loss costs
beside the model, on a GPU a wait for the device at every row. Values and gradients are the same bit for bit.
"""

from __future__ import annotations

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import no_padding_2_padding as of_padded_prompts

from recipe.paec.actor import jagged


def no_padding_2_padding(tensor: torch.Tensor, data: TensorDict) -> torch.Tensor:
    """Outputs for prompts and responses, nested or [T, ...] -> those of the responses, [B, R, ...], zeros on the right.

    `data` has the nested `prompts` and `responses`. Outputs are shifted by one, as everywhere in verl: the row before
    a token is the one that predicts it. ValueError for an empty prompt, or another number of rows.
    """
    if not data["prompts"].is_nested:
        return of_padded_prompts(tensor, data)
    values = tensor.values() if tensor.is_nested else tensor
    prompts, lengths = (data[name].offsets().diff().to(values.device) for name in ("prompts", "responses"))
    ends = (prompts + lengths).cumsum(0)
    found = torch.stack([prompts.min(), ends[-1], lengths.max()]).tolist()  # one wait for the device
    if found[0] == 0 or found[1] != len(values):
        raise ValueError(
            f"the shortest prompt has {found[0]} tokens (at least 1 is needed), prompts and responses have "
            f"{found[1]} together, and the model's output has {len(values)} rows"
        )
    longest = tu.get_non_tensor_data(data, "max_response_len", default=-1)
    return jagged.cut_and_padded(values, ends - lengths - 1, lengths, found[2] if longest < 0 else longest)


def response_from_nested(tensor: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """Nested outputs for prompts and responses -> nested ones of the responses, [B, j, ...], shifted by one."""
    lengths = response_mask.offsets().diff()
    return jagged.cut(tensor.values(), tensor.offsets()[1:] - lengths - 1, lengths)


def response_to_nested(tensor: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """Padded responses [B, R, ...] -> nested ones, [B, j, ...], of the lengths of the nested `response_mask`."""
    lengths = response_mask.offsets().diff().to(tensor.device)
    first = torch.arange(len(tensor), device=tensor.device) * tensor.shape[1]
    return jagged.cut(tensor.flatten(0, 1), first, lengths)
