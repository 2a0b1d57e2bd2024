"""Random numbers of tokens: against SplitMix64 in Python's integers, uniform, and the same in any split."""

from __future__ import annotations

import torch

from paec_loss.randomness import token_uniform

BITS = 2**64 - 1


def splitmix(state: int) -> int:
    """SplitMix64's output function (Steele et al. 2014)."""
    state = (state + 0x9E3779B97F4A7C15) & BITS
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & BITS
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & BITS
    return state ^ (state >> 31)


def test_the_function_itself_by_published_numbers():
    """The first outputs for the seed 1234567 (Rosetta Code's test vector)."""
    found = [splitmix(1234567 + i * 0x9E3779B97F4A7C15) for i in range(3)]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_against_the_definition():
    ids = torch.tensor([0, 1, 2**60 - 1, -5])
    found = token_uniform(7, 3, ids, 4)
    assert found.shape == (4, 4) and found.dtype == torch.float64
    for i, response in enumerate(ids.tolist()):
        for place in range(4):
            state = splitmix((splitmix((splitmix(7) + 3) & BITS) + response) & BITS)
            assert found[i, place].item() == (splitmix((state + place) & BITS) >> 11) / 2**53


def test_uniform_in_the_unit_interval_and_different_for_every_key():
    ids = torch.arange(100)
    draws = [token_uniform(seed, step, ids, 50).flatten() for seed, step in ((0, 1), (1, 1), (0, 2))]
    values = torch.cat(draws)
    assert len(values.unique()) == 15_000 and values.min() >= 0 and values.max() < 1
    counts = torch.histc(values, 10, 0, 1)
    assert (counts - 1500).abs().max() < 5 * (1500 * 0.9) ** 0.5


def test_no_split_changes_them():
    ids = torch.tensor([9, 4, 7])
    whole = token_uniform(1, 2, ids, 6)
    assert torch.equal(token_uniform(1, 2, ids[[2, 0]], 3), whole[[2, 0], :3])
