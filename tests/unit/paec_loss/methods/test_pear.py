"""PEAR: the reward by hand, the border of the phases, what is never touched."""

from __future__ import annotations

import math

import pytest
from batches import random_rollouts, rollouts_of

from paec_loss.methods.pear import PEAR

ENTROPY = [[0.5, 0.3, 9.0, 0.1, 0.3]]  # thinking 0.4, the marker, answer 0.2
LOG_PROB = [[-1.0] * 5]


def reward(method: PEAR, pieces: list[str], graded: float = 1.0, entropy=ENTROPY) -> float:
    rollouts = rollouts_of([graded], [0], [[-1.0] * len(entropy[0])], entropy=entropy, token_texts=[pieces])
    return method.rewards(rollouts).item()


def test_equals_values_computed_by_hand():
    pieces = ["a", "b", "</think>", "c", "d"]
    assert reward(PEAR(), pieces) == pytest.approx(0.8, rel=1e-12)
    assert reward(PEAR(alpha=0.5), pieces) == pytest.approx(0.7, rel=1e-12)
    assert reward(PEAR(alpha=0.0), pieces) == pytest.approx(0.6, rel=1e-12)
    assert reward(PEAR(alpha=-1.0), pieces) == pytest.approx(0.4, rel=1e-12)
    assert reward(PEAR(alpha=3.0), pieces) == 1  # 0.4 - 0.6 < 0: no penalty
    assert reward(PEAR(alpha=3.0), pieces, graded=0.5) == 0.5
    assert reward(PEAR(), pieces, graded=2.0) == 1  # at most 1
    assert reward(PEAR(), pieces, graded=0.5) == pytest.approx(0.3, rel=1e-12)


def test_a_nan_entropy_is_not_a_penalty_of_0():
    pieces = ["a", "b", "</think>", "c", "d"]
    for place in (0, 4):  # in the thinking, in the answer
        entropy = [[math.nan if i == place else value for i, value in enumerate(ENTROPY[0])]]
        assert math.isnan(reward(PEAR(), pieces, entropy=entropy))


@pytest.mark.parametrize("graded", [0.0, -1.0])
def test_what_is_not_correct_keeps_its_reward(graded):
    assert reward(PEAR(), ["a", "b", "</think>", "c", "d"], graded) == graded


@pytest.mark.parametrize(
    "pieces, penalty",
    [
        (["a", "b", "c", "d", "e"], (0.5 + 0.3 + 9.0 + 0.1 + 0.3) / 5),  # no marker: all of it is thinking
        (["a</", "think", ">b", "c", "d"], 0.0),  # nothing before the marker's tokens
        (["a", "b", "c", "d", "</think>"], (0.5 + 0.3 + 9.0 + 0.1) / 4),  # nothing after
        (["a", "b", "</", "think", ">\n"], 0.4),  # the marker is three tokens
        (["a", "</think>", "c", "</think>", "d"], 0.0),  # the first counts: 0.5 - mean(9, 0.1, 0.3) < 0
    ],
)
def test_the_border(pieces, penalty):
    assert reward(PEAR(), pieces) == pytest.approx(1 - penalty, rel=1e-12)


def test_other_markers():
    pieces = ["a", "b", "**Answer**", "c", "</think>"]
    assert reward(PEAR(markers=["</think>", "**Answer**"]), pieces) == pytest.approx(1 - 0.2, rel=1e-12)
    assert reward(PEAR(markers=[]), pieces) == pytest.approx(1 - 10.2 / 5, rel=1e-12)
    assert reward(PEAR(markers=["**answer**"]), pieces) == pytest.approx(1 - 10.2 / 5, rel=1e-12)


def test_against_the_definition():
    seen = set()
    for seed in range(4):
        rollouts = random_rollouts(seed)
        got = PEAR(alpha=0.6).rewards(rollouts).tolist()
        for i, pieces in enumerate(rollouts.token_texts):
            entropy = rollouts.entropy[i][rollouts.response_mask[i]].tolist()
            k = pieces.index("</think>") if "</think>" in pieces else len(pieces)
            phases = [part or [0.0] for part in (entropy[:k], entropy[k + 1 :])]
            thinking, answer = (sum(part) / len(part) for part in phases)
            expected = graded = rollouts.rewards[i].item()
            if graded > 0:
                expected = min(1.0, graded - max(0.0, thinking - 0.6 * answer))
            assert got[i] == pytest.approx(expected, rel=1e-12)
            seen.add((graded > 0, k < len(pieces), expected < 1))
    assert len(seen) >= 5


def test_empty_responses_and_types():
    rollouts = rollouts_of([1.0, 0.0], [0, 0], [[], [-1.0]], token_texts=[[], ["a"]])
    assert PEAR().rewards(rollouts).tolist() == [1, 0]
    assert PEAR().rewards(rollouts).dtype == rollouts.rewards.dtype


@pytest.mark.parametrize("field, value", [("alpha", float("inf")), ("markers", [""]), ("markers", "</think>")])
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        PEAR(**{field: value})
