"""TTRL: the vector, ties, no answers, votes by counting."""

from __future__ import annotations

from collections import Counter

import pytest
from batches import assert_by_group, random_rollouts, rollouts_of

from paec_loss.methods.ttrl import TTRL


def rewards(answers: list[int], **fields) -> list[float]:
    rollouts = rollouts_of([0.5] * len(answers), [0] * len(answers), [[-1.0]] * len(answers), answer_ids=answers)
    return TTRL(**fields).rewards(rollouts).tolist()


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([7, 7, 2, 2, 5], [1, 1, 0, 0, 0]),  # a tie: the first response's
        ([5, 2, 2, 7, 7], [0, 1, 1, 0, 0]),
        ([5, 2, 7, 2, 7, 7], [0, 0, 1, 0, 1, 1]),
        ([1, 2, 3], [0, 0, 0]),  # no answer has two votes
        ([-1, -2, -3, 4, 4], [0, 0, 0, 1, 1]),  # no answer, no vote
        ([-1, -2, -3], [0, 0, 0]),
        ([3, 3, 3], [1, 1, 1]),
    ],
)
def test_equals_values_computed_by_hand(answers, expected):
    assert rewards(answers) == expected


def test_votes_needed():
    assert rewards([1, 2, 3], min_votes=1) == [1, 0, 0]
    assert rewards([-1, 2, 3], min_votes=1) == [0, 1, 0]
    assert rewards([-1, -2], min_votes=1) == [0, 0]
    assert rewards([4, 4, 4, 1], min_votes=3) == [1, 1, 1, 0]
    assert rewards([4, 4, 4, 1], min_votes=4) == [0, 0, 0, 0]


def test_against_the_definition():
    seen = set()
    for seed in range(5):
        rollouts = random_rollouts(seed)
        got = TTRL().rewards(rollouts).tolist()
        for i in range(9):
            group = [j for j in range(9) if rollouts.group_id[j] == rollouts.group_id[i] and rollouts.lengths[j] > 0]
            # `most_common` lists equal counts in the order in which they were first met.
            answer, votes = Counter(rollouts.answer_ids[j].item() for j in group).most_common(1)[0]
            expected = float(i in group and votes >= 2 and rollouts.answer_ids[i].item() == answer)
            assert got[i] == expected
            seen.add((expected, rollouts.rewards[i].item()))
    assert len(seen) == 4, "the graded reward does not matter"


def test_every_group_by_itself():
    assert_by_group(TTRL())


@pytest.mark.parametrize("value", [0, 2.5, None])
def test_bad_field_values_are_refused(value):
    with pytest.raises(ValueError, match="method.min_votes="):
        TTRL(min_votes=value)
