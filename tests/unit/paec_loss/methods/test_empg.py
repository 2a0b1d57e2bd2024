"""EMPG: two responses by hand, the steps, an independent version, and what must not divide by zero."""

from __future__ import annotations

import math
import re

import pytest
import torch
from batches import random_rollouts, rollouts_of

from paec_loss.methods.empg import EMPG


def test_equals_values_computed_by_hand():
    """Steps of entropy 1, 3 (first response) and 2: scaled 0, 1 and 1/2."""
    pieces = [["a", "b\n\n", "c"], ["d"]]
    rollouts = rollouts_of(
        [1.0, 0.0],
        [0, 0],
        [[-1.0] * 3, [-1.0]],
        entropy=[[0.5, 1.5, 3.0], [2.0]],
        token_texts=pieces,
        advantages=[2.0, -2.0],
    )
    e = math.exp
    mean = (1 + e(-1) + e(-0.5)) / 3
    first, second, third = 2 / mean + 0.05 * e(-1), 2 * e(-1) / mean, -2 * e(-0.5) / mean
    center = (first + second + third) / 3
    expected = [[first - center, first - center, second - center], [third - center, 0, 0]]
    torch.testing.assert_close(
        EMPG().advantages(rollouts), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize(
    "pieces, steps",
    [
        (["a", "b", "c"], [0, 0, 0]),
        (["a", ".\n\n", "b", ".\n\n", "c"], [0, 0, 1, 1, 2]),
        (["a", "\n", "\n", "b"], [0, 0, 0, 1]),
        (["a", "\n\n", "\n\n", "\n\n\n", "b"], [0, 0, 0, 0, 1]),  # a run of borders ends one step
        (["a\n\nb", "c"], [0, 1]),  # the token that holds the border belongs to the step that it ends
        (["a", "b\n\n"], [0, 0]),  # nothing after it
        (["\n\n", "a"], [0, 1]),
        (["a", "", "\n\n", "", "b"], [0, 0, 0, 1, 1]),
    ],
)
def test_steps(pieces, steps):
    rollouts = rollouts_of([0.0, 0.0], [0, 0], [[-1.0], [-1.0] * len(pieces)], token_texts=[["x"], pieces])
    number, owner = EMPG()._steps(rollouts)
    assert number[1, : len(pieces)].tolist() == [step + 1 for step in steps]
    assert owner.tolist() == [0] + [1] * (max(steps) + 1)


def test_other_borders():
    rollouts = rollouts_of([0.0], [0], [[-1.0] * 4], token_texts=[["a;", "b\n\n", "c.", "d"]])
    assert EMPG(borders=[";", "."])._steps(rollouts)[0].tolist() == [[0, 1, 1, 2]]
    assert EMPG(borders=[])._steps(rollouts)[0].tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_against_the_definition(seed):
    rollouts = random_rollouts(seed)
    method = EMPG(k=0.7, k_next=1.4, zeta=0.3)
    steps = []  # (response, tokens, entropy)
    for i, pieces in enumerate(rollouts.token_texts):
        current: list[int] = []
        for t in range(len(pieces)):
            current.append(t)
            before, after = "".join(pieces[: t + 1]), "".join(pieces[t + 1 :])
            whole = before + after
            ends = [m.end() for m in re.finditer("(\n\n)+", whole)]
            if not after or any(len("".join(pieces[:t])) < end <= len(before) for end in ends):
                steps.append((i, current, sum(rollouts.entropy[i, u].item() for u in current) / len(current)))
                current = []
    low, high = min(s[2] for s in steps), max(s[2] for s in steps)
    scaled = [(s[2] - low) / (high - low) for s in steps]
    mean = sum(math.exp(-0.7 * h) for h in scaled) / len(steps)
    values = []
    for s, (i, tokens, _) in enumerate(steps):
        bonus = 0.3 * math.exp(-1.4 * scaled[s + 1]) if s + 1 < len(steps) and steps[s + 1][0] == i else 0.0
        values.append(rollouts.advantages[i, tokens[0]].item() * math.exp(-0.7 * scaled[s]) / mean + bonus)
    center = sum(values) / len(values)
    expected = torch.zeros_like(rollouts.advantages)
    for (i, tokens, _), value in zip(steps, values, strict=True):
        expected[i, tokens] = value - center
    assert len(steps) > 9
    torch.testing.assert_close(method.advantages(rollouts), expected, rtol=1e-10, atol=1e-13)


def test_limiting_cases():
    """Neither scale nor bonus: the advantages, centred over the steps. Equal entropies: the same with any k."""
    rollouts = random_rollouts()
    plain = EMPG(k=0.0, zeta=0.0, borders=[]).advantages(rollouts)
    real = rollouts.lengths > 0
    centred = rollouts.at_tokens(rollouts.advantages - rollouts.advantages[real, 0].mean())
    torch.testing.assert_close(plain, centred, rtol=1e-12, atol=1e-14)
    alike = rollouts_of(
        [1.0, 0.0], [0, 0], [[-1.0], [-1.0]], entropy=[[0.5], [0.5]], token_texts=[["a"], ["b"]], advantages=[1.0, -1.0]
    )
    assert EMPG(k=9.0).advantages(alike).tolist() == [[1], [-1]]


def test_one_response():
    """Scaled entropies 0 and 1; the last step has no next one, and the first step is not it."""
    pieces = [["a\n\n", "b"]]
    rollouts = rollouts_of([1.0], [0], [[-1.0] * 2], entropy=[[1.0, 3.0]], token_texts=pieces, advantages=[2.0])
    mean = (1 + math.exp(-1)) / 2
    first, second = 2 / mean + 0.05 * math.exp(-1), 2 * math.exp(-1) / mean
    center = (first + second) / 2
    assert EMPG().advantages(rollouts)[0].tolist() == pytest.approx([first - center, second - center], rel=1e-12)


def test_one_step_and_no_step():
    one = rollouts_of([1.0], [0], [[-1.0]], entropy=[[2.0]], token_texts=[["a"]], advantages=[3.0])
    assert EMPG().advantages(one).tolist() == [[0]]
    none = rollouts_of([1.0], [0], [[]], token_texts=[[]], advantages=[3.0])
    assert EMPG().advantages(none).shape == (1, 0)


@pytest.mark.parametrize("field, value", [("k", -1), ("k_next", "1"), ("zeta", -0.1), ("borders", "\n\n")])
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        EMPG(**{field: value})
