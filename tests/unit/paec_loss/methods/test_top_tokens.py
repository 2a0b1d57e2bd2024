"""The tokens with the largest values: their exact number, ties, and how they are found in a part."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from batches import detached, hand_batch, random_batch, rows, update_of

from paec_loss.methods import METHODS
from paec_loss.methods._top_tokens import TopTokens, count_of, floor_of

LOG_PROB = [[-1.0, -5.0], [-2.0, -4.0, -3.0]]


def top(values, tokens, count: int, seed: int = 1) -> TopTokens:
    return TopTokens.of(values, detached(tokens), update_of(tokens, METHODS["none"](), seed=seed), count)


@pytest.mark.parametrize("name", ["clip_cov", "kl_cov"])
def test_a_share_of_the_tokens_is_not_one_short(name):
    """0.29 * 100 rounds to slightly less than 29."""
    assert floor_of(0.29, 100) == 29 and floor_of(3e-4, 10_000) == 3 and floor_of(0.2999, 10) == 2
    assert count_of(0.07, 100) == 7
    _, tokens = random_batch(lengths=(40, 30, 20, 10))
    method = METHODS[name](ratio=0.29, **({"lower": -1e9, "upper": 1e9} if name == "clip_cov" else {}))
    assert method.prepare(detached(tokens), update_of(tokens, method)).chosen.sum() == 29


def test_equals_values_computed_by_hand():
    tokens = hand_batch(LOG_PROB, [[0.0] * len(row) for row in LOG_PROB])
    values = tokens.log_prob.detach()
    assert top(values, tokens, 2).among(tokens).tolist() == [[True, False, False], [True, False, False]]
    assert top(values, tokens, 3).among(tokens).tolist() == [[True, False, False], [True, False, True]]
    assert top(-values, tokens, 1).among(tokens).tolist() == [[False, True, False], [False, False, False]]
    assert top(values, tokens, 9).among(tokens).tolist() == tokens.response_mask.tolist()


def test_ties_are_broken_by_lot_and_the_number_is_exact():
    _, tokens = random_batch()
    equal = torch.zeros(tokens.response_mask.shape, dtype=torch.float64)
    chosen = [top(equal, tokens, 5, seed).among(tokens) for seed in range(1, 9)]
    assert {int(one.sum()) for one in chosen} == {5}
    assert len({tuple(one.flatten().tolist()) for one in chosen}) > 1
    assert torch.equal(chosen[0], top(equal, tokens, 5, 1).among(tokens))


def test_the_same_tokens_in_any_part():
    _, tokens = random_batch()
    found = top(tokens.entropy.detach(), tokens, 7)
    whole = found.among(tokens)
    for part in ([0], [5, 2], [4, 1, 3]):
        index = torch.tensor(part)
        micro = rows(tokens, index)
        assert torch.equal(found.among(micro), whole[index, : micro.response_mask.shape[1]])
    stranger = replace(tokens, response_id=tokens.response_id + 1)
    assert not found.among(stranger).any()
