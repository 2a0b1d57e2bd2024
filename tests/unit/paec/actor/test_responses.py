"""What replaces verl's conversions of responses gives what verl's give, values and gradients bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jagged_rows import jagged
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.utils import padding

from recipe.paec.actor import responses

PROMPTS = [3, 1, 5, 2]
RESPONSES = [[4, 1, 7, 7], [1, 1, 1, 1], [2, 0, 3, 0]]


def batch_of(lengths: list[int], **settings) -> TensorDict:
    data = TensorDict(
        {"prompts": jagged(lengths=PROMPTS), "responses": jagged(lengths=lengths)}, batch_size=len(lengths)
    )
    tu.assign_non_tensor(data, **settings)
    return data


def outputs(lengths: list[int], *shape: int) -> torch.Tensor:
    """Packed rows with NaN and inf in those that belong to no response."""
    values = torch.randn(sum(PROMPTS) + sum(lengths), *shape, generator=torch.Generator().manual_seed(1))
    values[0], values[-1] = float("nan"), float("inf")
    return values


@pytest.fixture
def verls():
    """verl's own functions, whatever has been imported before."""
    names: dict = {"__name__": "verls_padding"}
    exec(Path(padding.__file__).read_text(), names)
    return names


@pytest.mark.parametrize("longest", [{}, {"max_response_len": 9}])
@pytest.mark.parametrize("shape", [(), (7,), (2, 3)])
@pytest.mark.parametrize("lengths", RESPONSES)
def test_padded_responses_are_verls(verls, lengths, shape, longest):
    found = outputs(lengths, *shape).requires_grad_()
    expected = outputs(lengths, *shape).requires_grad_()
    ours = responses.no_padding_2_padding(found, batch_of(lengths, **longest))
    theirs = verls["no_padding_2_padding"](expected, batch_of(lengths, **longest))
    assert ours.shape == theirs.shape == (4, longest.get("max_response_len", max(lengths)), *shape)
    assert ours.dtype == theirs.dtype and torch.equal(ours, theirs) and not ours.isnan().any()
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2))
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    assert torch.equal(found.grad, expected.grad) and found.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.bfloat16, torch.float64])
def test_padding_keeps_the_dtype(verls, dtype):
    lengths = RESPONSES[0]
    values = outputs(lengths).nan_to_num(0.0, 0.0).mul(3).to(dtype)
    nested = torch.nested.nested_tensor_from_jagged(
        values, jagged(lengths=[p + r for p, r in zip(PROMPTS, lengths, strict=True)]).offsets()
    )
    ours = responses.no_padding_2_padding(nested, batch_of(lengths))
    theirs = verls["no_padding_2_padding"](nested, batch_of(lengths))
    assert ours.dtype == theirs.dtype == dtype and torch.equal(ours, theirs)


def test_padded_prompts_go_to_verls_own():
    data = TensorDict(
        {
            "prompts": torch.ones(2, 3),
            "responses": torch.ones(2, 2),
            "attention_mask": torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 0]]),
        },
        batch_size=2,
    )
    found = responses.no_padding_2_padding(torch.arange(8.0), data)
    assert found.tolist() == [[1.0, 2.0], [6.0, 0.0]]


@pytest.mark.parametrize(("prompts", "rows"), [([3, 0, 5, 2], 29), (PROMPTS, 29)])
def test_batches_that_do_not_fit_are_refused(prompts, rows):
    data = TensorDict({"prompts": jagged(lengths=prompts), "responses": jagged(lengths=RESPONSES[0])}, batch_size=4)
    total = sum(prompts) + sum(RESPONSES[0])
    with pytest.raises(ValueError, match=f"{min(prompts)} tokens .* have {total} together, .* has 29 rows"):
        responses.no_padding_2_padding(torch.zeros(rows), data)


@pytest.mark.parametrize("lengths", RESPONSES)
def test_nested_responses_are_verls(verls, lengths):
    whole = jagged(lengths=[p + r for p, r in zip(PROMPTS, lengths, strict=True)])
    ours = responses.response_from_nested(whole, jagged(lengths=lengths))
    theirs = verls["response_from_nested"](whole, jagged(lengths=lengths))
    assert_same_nested(ours, theirs)


@pytest.mark.parametrize("wider", [0, 2])
@pytest.mark.parametrize("lengths", RESPONSES)
def test_responses_without_padding_are_verls(verls, lengths, wider):
    padded = torch.randn(4, max(lengths) + wider, generator=torch.Generator().manual_seed(1)).requires_grad_()
    again = padded.detach().clone().requires_grad_()
    ours = responses.response_to_nested(padded, jagged(lengths=lengths))
    theirs = verls["response_to_nested"](again, jagged(lengths=lengths))
    assert_same_nested(ours, theirs)
    ours.values().square().sum().backward()
    theirs.values().square().sum().backward()
    assert torch.equal(padded.grad, again.grad) and padded.grad.abs().sum() > 0


def assert_same_nested(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert torch.equal(ours.values(), theirs.values()) and torch.equal(ours.offsets(), theirs.offsets())
    assert torch.equal(ours.to_padded_tensor(-1.0), theirs.to_padded_tensor(-1.0))
    assert (ours._min_seqlen, ours._max_seqlen) == (theirs._min_seqlen, theirs._max_seqlen)


@pytest.mark.cpu_stack
def test_verl_uses_them_wherever_it_imported_its_own():
    program = """
from verl.trainer.ppo.v1 import trainer_base
from verl.workers.utils import losses, padding
from recipe.paec.actor import responses
from recipe.paec.plugins import register
for module in (padding, losses):
    assert module.no_padding_2_padding is responses.no_padding_2_padding
for module in (padding, trainer_base):
    assert module.response_to_nested is responses.response_to_nested
    assert module.response_from_nested is responses.response_from_nested
assert responses.of_padded_prompts is not padding.no_padding_2_padding
"""
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | {"VERL_PLATFORM": "cpu"})
