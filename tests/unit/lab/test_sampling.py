"""Sampling over the cache: the same logits as a pass over the whole response, and the right distribution."""

from __future__ import annotations

import torch

from recipe.lab import sampling
from recipe.lab.policy import Policy, Prompts
from recipe.lab.sampling import drawn, sample


def one_rollout(small, task, temperature=1.0, seed=0):
    policy = Policy(small().task / "model")
    prompts = Prompts.of([problem.ids for problem in task.train[:12]])
    temperatures = torch.full((12,), temperature)
    return policy, prompts, sample(policy, prompts, 4, 32, temperatures, task.end, torch.Generator().manual_seed(seed))


def test_the_cache_gives_the_logits_of_a_full_pass(small, task):
    policy, prompts, found = one_rollout(small, task)
    lengths = found.inside.sum(-1)
    assert lengths.amax(-1).unique().numel() > 1, "prompts must leave the batch at different times"
    with torch.no_grad():
        full = policy.logits(prompts, found.tokens, found.inside)
    torch.testing.assert_close(found.logits[found.inside], full, rtol=1e-5, atol=3e-5)


def test_responses_end_at_the_end_token_or_the_limit(small, task):
    _, _, found = one_rollout(small, task, temperature=1.5)
    for tokens, inside in zip(found.tokens.flatten(0, 1), found.inside.flatten(0, 1), strict=True):
        length = int(inside.sum())
        assert inside[:length].all() and not tokens[length:].any()
        ends = task.end[tokens[:length]]
        assert not ends[:-1].any() and (ends[-1] or length == 32)


def test_the_same_numbers_give_the_same_responses(small, task):
    first, again, other = (one_rollout(small, task, seed=seed)[2] for seed in (0, 0, 1))
    assert torch.equal(first.tokens, again.tokens)
    assert first.tokens.shape != other.tokens.shape or not torch.equal(first.tokens, other.tokens)


def test_many_responses_are_drawn_as_several_prompts(small, task, monkeypatch):
    """The same numbers give the same responses, whether 12 share the cache's columns or 4."""
    policy = Policy(small().task / "model")
    prompts = Prompts.of([problem.ids for problem in task.train[:3]])

    def found(together: int):
        monkeypatch.setattr(sampling, "TOGETHER", together)
        return sample(policy, prompts, 12, 32, torch.ones(3), task.end, torch.Generator().manual_seed(5))

    apart, shared = found(4), found(12)
    assert apart.tokens.shape == shared.tokens.shape and torch.equal(apart.tokens, shared.tokens)
    assert torch.equal(apart.inside, shared.inside)
    torch.testing.assert_close(apart.logits[apart.inside], shared.logits[shared.inside], rtol=1e-5, atol=3e-5)


def test_tokens_are_drawn_from_the_softmax():
    logits = torch.tensor([0.0, 1.0, -torch.inf, 2.0, -3.0]).expand(1, 40_000, 5)
    tokens = drawn(logits, torch.rand(1, 40_000, generator=torch.Generator().manual_seed(3)))
    share = torch.bincount(tokens[0], minlength=5) / 40_000
    torch.testing.assert_close(share, logits[0, 0].softmax(-1), atol=0.01, rtol=0)
    assert share[2] == 0
    edges = drawn(logits[:, :2], torch.tensor([[0.0, 1 - 2**-24]]))
    assert edges.tolist() == [[0, 4]]
