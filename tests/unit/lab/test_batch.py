"""Prompts chosen from a batch, and batches of several rounds put together."""

from __future__ import annotations

import torch

from recipe.grading.pool import Verdict
from recipe.lab.batch import Batch, chosen, together
from recipe.lab.policy import Prompts
from recipe.lab.sampling import Sampled
from recipe.lab.task import Problem


def made(first: int, count: int, length: int) -> Batch:
    """`count` prompts of 1 + their number tokens with two responses each, of which only the first is right."""
    numbers = range(first, first + count)
    problems = [Problem(tuple(range(1, n + 2)), "x", str(n), True) for n in numbers]
    tokens = torch.tensor(list(numbers))[:, None, None].expand(count, 2, length)
    sampled = Sampled(
        tokens, torch.ones(count, 2, length, dtype=torch.bool), tokens[..., None].expand(-1, -1, -1, 3).float()
    )
    verdicts = [Verdict(right, right, f"{n}", "ok") for n in numbers for right in (True, False)]
    prompts = Prompts.of([problem.ids for problem in problems])
    return Batch(
        problems, prompts, [f"p{n}" for n in numbers], sampled, torch.tensor([n / 10 for n in numbers]), verdicts
    )


def test_parts_are_padded_and_chosen():
    batch = together([made(1, 2, 3), made(3, 2, 5)])
    assert batch.names == ["p1", "p2", "p3", "p4"] and batch.prompts.lengths.tolist() == [2, 3, 4, 5]
    assert batch.sampled.tokens.shape == (4, 2, 5) and batch.sampled.logits.shape == (4, 2, 5, 3)
    assert batch.sampled.inside.sum(-1).tolist() == [[3, 3], [3, 3], [5, 5], [5, 5]]
    assert batch.scores.tolist() == [[1.0, 0.0]] * 4
    kept = chosen(batch, torch.tensor([False, True, False, True]))
    assert kept.names == ["p2", "p4"] and [p.truth for p in kept.problems] == ["2", "4"]
    assert kept.sampled.tokens[:, 0, 0].tolist() == [2, 4] and kept.sampled.logits[1, 1, 4].tolist() == [4.0] * 3
    assert [v.answer for v in kept.verdicts] == ["2", "2", "4", "4"]
    torch.testing.assert_close(kept.temperatures, torch.tensor([0.2, 0.4]))
    assert kept.prompts.ids[0, :3].tolist() == [1, 2, 3]


def test_nothing_to_do_is_no_copy():
    batch = made(1, 2, 3)
    assert together([batch]) is batch and chosen(batch, torch.tensor([True, True])) is batch
