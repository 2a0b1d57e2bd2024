"""Token means by hand."""

from __future__ import annotations

import torch

from recipe.paec.run.outcome_entropy import by_outcome

ENTROPY = torch.tensor([[0.5, 1.0, 9.0], [2.0, 4.0, 6.0], [0.25, 9.0, 9.0]])
INSIDE = torch.tensor([[True, True, False], [True, True, True], [True, False, False]])
RIGHT, TRUNCATED = torch.tensor([True, False, True]), torch.tensor([False, True, False])


def test_means_over_tokens():
    """Each token counts once, not each response: (0.5 + 1 + 0.25) / 3."""
    found = by_outcome(ENTROPY, INSIDE, RIGHT, TRUNCATED, ["gsm8k"] * 3)
    assert found == {
        "actor/entropy/right": 1.75 / 3,
        "actor/entropy/wrong": 4.0,
        "actor/entropy/truncated": 4.0,
    }


def test_what_does_not_occur_is_absent():
    none = torch.tensor([False] * 3)
    assert list(by_outcome(ENTROPY, INSIDE, ~none, none)) == ["actor/entropy/right"]
    assert by_outcome(ENTROPY, INSIDE & False, RIGHT, TRUNCATED) == {}, "not a token"


def test_several_data_sources():
    """Named as in a validation; a source that is called like an outcome does not replace it."""
    found = by_outcome(ENTROPY, INSIDE, RIGHT, TRUNCATED, ["reasoning_gym/countdown", "right", "right"])
    assert found["actor/entropy/reasoning_gym/countdown"] == 0.75
    assert found["actor/entropy/right"] == 1.75 / 3 and len(found) == 4


def test_entropy_outside_does_not_count():
    """Not even where it is NaN."""
    broken = ENTROPY.clone().masked_fill_(~INSIDE, float("nan"))
    whole = by_outcome(ENTROPY, INSIDE, RIGHT, TRUNCATED)
    assert by_outcome(broken, INSIDE, RIGHT, TRUNCATED) == whole
