"""HICRA: which tokens belong to a phrase, both signs, and what is no phrase."""

from __future__ import annotations

import re

import pytest
import torch
from batches import random_rollouts, rollouts_of

from paec_loss.methods.hicra import HICRA, PHRASES


def marked(method: HICRA, pieces: list[str]) -> list[int]:
    rollouts = rollouts_of([0.0], [0], [[-1.0] * len(pieces)], token_texts=[pieces], advantages=[1.0])
    return torch.nonzero(method.advantages(rollouts)[0] > 1)[:, 0].tolist()


def test_both_signs_by_hand():
    pieces = [["But", " wait", ",", " 2"], ["2", " but", " wait"]]
    rollouts = rollouts_of([1.0, 0.0], [0, 0], [[-1.0] * 4, [-1.0] * 3], token_texts=pieces, advantages=[2.0, -2.0])
    expected = torch.tensor([[2.4, 2.4, 2, 2], [-2, -1.6, -1.6, 0]], dtype=torch.float64)
    torch.testing.assert_close(HICRA().advantages(rollouts), expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize(
    "pieces, tokens",
    [
        (["x", " Hold", " on", "."], [1, 2]),
        (["hold on"], [0]),
        ([" h", "ol", "d o", "n there"], [0, 1, 2, 3]),  # a token that holds a part of it
        (["with", "hold", " on"], []),  # inside a word
        (["hold", " one"], []),
        (["hold", " on", "hold", " on"], []),  # "onhold"
        (["hold", " on", ",", "hold", " on"], [0, 1, 3, 4]),
        (["Let\u2019s", " reconsider", " this"], [0, 1]),  # another apostrophe
        (["hold", "  on"], []),
    ],
)
def test_tokens_of_a_phrase(pieces, tokens):
    assert marked(HICRA(), pieces) == tokens


def test_phrases_that_overlap_and_own_phrases():
    pieces = ["a", " b", " c", " d", " e"]
    assert marked(HICRA(phrases=["a b c", "c d"]), pieces) == [0, 1, 2, 3]
    assert marked(HICRA(phrases=["E"]), pieces) == [4]
    assert marked(HICRA(phrases=["## b"]), ["a", "## b", " c"]) == [1]
    assert marked(HICRA(phrases=[]), pieces) == []


def test_letters_that_change_their_length_in_lower_case():
    assert marked(HICRA(), ["\u0130\u0130", "\u0130 ", "hold on", " \u0130"]) == [2]


def test_against_the_definition():
    phrases = ("a different", "let's", "so", "hold on", "try")
    pattern = re.compile(rf"(?<![^\W_])(?=({'|'.join(phrases)})(?![^\W_]))", re.IGNORECASE)
    found = 0
    for seed in range(4):
        rollouts = random_rollouts(seed)
        planning = torch.zeros_like(rollouts.response_mask)
        for row, pieces in zip(planning, rollouts.token_texts, strict=True):
            owner = [i for i, piece in enumerate(pieces) for _ in piece]
            for match in pattern.finditer("".join(pieces)):
                row[sorted(set(owner[match.start(1) : match.end(1)]))] = True
        found += int(planning.sum())
        a = rollouts.advantages
        expected = torch.where(planning, a + 0.3 * a.abs(), a)
        got = HICRA(alpha=0.3, phrases=phrases).advantages(rollouts)
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
    assert found > 20


def test_limiting_cases():
    rollouts = random_rollouts()
    for unchanged in (HICRA(alpha=0.0), HICRA(phrases=["nowhere"])):
        torch.testing.assert_close(unchanged.advantages(rollouts), rollouts.advantages, rtol=0, atol=0)
    alike = rollouts_of([1.0, 1.0], [0, 0], [[-1.0], []], token_texts=[["hold on"], []])  # equal rewards
    assert HICRA().advantages(alike).abs().max() == 0


def test_the_default_list():
    assert len(PHRASES) == len(set(PHRASES)) == 36
    assert all(phrase == phrase.lower().strip() and " " in phrase for phrase in PHRASES)


@pytest.mark.parametrize("field, value", [("alpha", 1.5), ("alpha", -0.1), ("phrases", "hold on"), ("phrases", [""])])
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        HICRA(**{field: value})
