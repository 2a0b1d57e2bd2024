"""PAEC in a part of the responses: by hand, an independent formula, every split."""

from __future__ import annotations

import pytest
import torch
from batches import LENGTHS, assert_any_split, detached, hand_batch, mini_batch_loss, random_batch, update_of

from paec_loss.methods.none import NoMethod
from paec_loss.methods.paec import PAEC
from paec_loss.methods.paec_selective import PAECSelective

ALL = {"mask": "none", "rho": 0.0, "lambda_low": 1.0}


@pytest.mark.parametrize(
    "responses, expected", [("wrong", [0.0, 1.0, 0.0]), ("right", [1.0, 0.0, 0.0]), ("mixed", [1.0, 1.0, 0.0])]
)
def test_equals_values_computed_by_hand(responses, expected):
    """Hbar is 2 over all 6 tokens, floor 3: the slope 2 (3 - 2) / 6 at every token of the responses that count."""
    tokens = hand_batch(
        [[-1.0, -1.0]] * 3, [[1.0, 1.0], [-1.0, -1.0], [0.0, 0.0]], entropy=[[1.0, 3.0], [2.0, 2.0], [0.0, 4.0]]
    )
    loss = mini_batch_loss(PAECSelective(**ALL, responses=responses), tokens, floor=3.0)
    (gradient,) = torch.autograd.grad(loss, tokens.statistics.entropy)
    torch.testing.assert_close(gradient, -torch.tensor(expected).double()[:, None].expand(3, 2) / 3)


@pytest.mark.parametrize("responses", ["wrong", "right", "mixed"])
def test_the_part_of_paecs_gradient(responses):
    """The logits of the responses that count receive PAEC's gradient, the others that of the surrogate."""
    logits, tokens = random_batch()
    fields = {"lambda_low": 0.4, "lambda_ent": 0.01}
    losses = (
        mini_batch_loss(PAECSelective(**fields, responses=responses), tokens, floor=4.0),
        mini_batch_loss(PAEC(**fields), tokens, floor=4.0),
        mini_batch_loss(NoMethod(), tokens),
    )
    ours, whole, plain = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in losses)
    first = tokens.advantages[:, 0]
    counts = {"wrong": first < 0, "right": first > 0, "mixed": torch.ones_like(first, dtype=torch.bool)}[responses]
    real = torch.tensor(LENGTHS) > 0
    assert (counts & real).any() and (responses == "mixed" or (~counts & real).any())
    torch.testing.assert_close(ours, torch.where(counts[:, None, None], whole, plain), rtol=1e-12, atol=1e-15)
    assert not torch.equal(whole[counts & real], plain[counts & real])


def test_its_weights_are_zero_where_it_does_not_act():
    _, tokens = random_batch()
    method, tokens = PAECSelective(), detached(tokens)
    update = update_of(tokens, method)
    weights = method.token_weights(tokens, method.prepare(tokens, update), update)
    negative = (tokens.advantages < 0) & tokens.response_mask
    assert not weights[~negative].any() and weights[negative].any()


def test_the_gradient_does_not_depend_on_the_split():
    for responses in ("wrong", "right", "mixed"):
        assert_any_split(PAECSelective(responses=responses), floor=4.0)


def test_bad_field_values_are_refused():
    with pytest.raises(ValueError, match="method.responses='wrongs': must be one of wrong, mixed, right; did you mean"):
        PAECSelective(responses="wrongs")
