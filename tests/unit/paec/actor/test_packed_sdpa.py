"""Attention of one packed sequence after the other: against attention written out with a mask over all pairs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from recipe.paec.actor import packed_sdpa
from recipe.paec.actor.packed_sdpa import lengths_of


def positions(*lengths: int) -> torch.Tensor:
    """[1, S] positions of packed sequences."""
    return torch.cat([torch.arange(n) for n in lengths])[None]


def by_mask(query, key, value, position_ids, scale):
    """[1, S, H, D] by the definition: all pairs, those of other sequences and of later tokens at -inf."""
    groups = query.shape[1] // key.shape[1]
    key, value = (states.repeat_interleave(groups, 1) for states in (key, value))
    sequence = (position_ids == 0).cumsum(-1)[0]
    order = torch.arange(len(sequence))
    seen = (sequence[:, None] == sequence) & (order[:, None] >= order)
    scores = (query @ key.mT * scale).masked_fill(~seen, -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize("lengths", [(5, 1, 7), (1,), (1, 1, 1), (13,)])
@pytest.mark.parametrize("heads, key_heads", [(4, 4), (4, 2), (3, 1)])
def test_values_and_gradients(lengths, heads, key_heads):
    torch.manual_seed(0)
    total, place = sum(lengths), positions(*lengths)
    states = [torch.randn(1, n, total, 8, dtype=torch.float64) for n in (heads, key_heads, key_heads)]
    upstream = torch.randn(1, total, heads, 8, dtype=torch.float64)
    ours, theirs = ([one.clone().requires_grad_() for one in states] for _ in range(2))
    module = SimpleNamespace(num_key_value_groups=heads // key_heads)
    found, nothing = packed_sdpa.packed_sdpa(module, *ours, None, scaling=0.3, position_ids=place)
    expected = by_mask(*theirs, place, 0.3)
    assert nothing is None and found.is_contiguous()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    found.backward(upstream)
    expected.backward(upstream)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-11, atol=1e-12)


def test_positions_are_read_once_a_pass(monkeypatch):
    calls, lengths = [], packed_sdpa.lengths_of
    monkeypatch.setattr(packed_sdpa, "lengths_of", lambda place: calls.append(1) or lengths(place))
    states = [torch.randn(1, 2, 6, 4) for _ in range(3)]
    module = SimpleNamespace(num_key_value_groups=1)
    first, other = positions(2, 4), positions(6)
    results = [
        packed_sdpa.packed_sdpa(module, *states, None, position_ids=p)[0] for p in (first, first, other, other, first)
    ]
    assert len(calls) == 2
    assert torch.equal(results[0], results[4]) and not torch.equal(results[0], results[2])
    before = len(packed_sdpa._seen)
    del first, other
    assert len(packed_sdpa._seen) == before - 2, "nothing is kept of a pass that has ended"


def test_lengths():
    assert lengths_of(positions(3, 1, 2)) == [3, 1, 2]
    with pytest.raises(ValueError, match="first position is not 0"):
        lengths_of(torch.tensor([[1, 2, 0, 1]]))
    with pytest.raises(ValueError, match=r"shape \[2, 3\]: packed_sdpa supports packed rows only"):
        lengths_of(torch.zeros(2, 3, dtype=torch.int64))


def test_padded_rows_are_refused():
    states = [torch.randn(2, 2, 3, 4) for _ in range(3)]
    with pytest.raises(ValueError, match="use_remove_padding=true"):
        packed_sdpa.packed_sdpa(SimpleNamespace(num_key_value_groups=1), *states, None, position_ids=positions(3))
