"""One step: every method of the catalogue, advantages and aggregation by hand, DAPO's replacement of prompts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch

from paec_loss import Method, MethodStack
from paec_loss.methods import METHODS
from recipe.grading.pool import Verdict
from recipe.lab import grpo
from recipe.lab.settings import settings_of
from recipe.paec.common.errors import UserError

UNORDERED = [name for name, method in METHODS.items() if "curriculum" not in method.needs]
PIPELINE = (
    *("actor/entropy", "actor/pg_loss", "actor/loss", "actor/ppo_kl", "actor/grad_norm", "actor/lr"),
    *("critic/score/mean", "critic/rewards/mean", "critic/advantages/max", "response_length/mean"),
    *("reward/cut_off", "prompt_length/mean", "reward/format", "reward/grader_error"),
    *("timing_s/gen", "timing_s/adv", "timing_s/update_actor", "training/global_step"),
)
"""Names that a step of the pipeline has with every method."""


def vector(state: grpo.State) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in state.policy.parameters.values()])


@pytest.mark.parametrize("name", UNORDERED)
def test_every_method_trains(small, task, name):
    settings = small(f"method={name}", *(["method.k=2"] if name == "pass_at_k" else []))
    state = grpo.started(settings)
    before = vector(state)
    for number in (1, 2):
        metrics = grpo.step(state, settings, task)
        assert metrics["training/global_step"] == number == state.step
        assert set(PIPELINE) <= metrics.keys()
        assert all(math.isfinite(value) for value in metrics.values())
        assert ("actor/pg_clipfrac" in metrics) != settings.stack.own_surrogate
    assert state.drawn == 8
    moved = (vector(state) - before).abs().max().item()
    assert 0 < moved < 4 * 2 * settings.lr  # four AdamW updates


def test_a_response_that_was_cut_off_is_penalised(small, task):
    """With a buffer of less than a token, these lose 1 and the others nothing."""
    overlong = ("also=overlong_penalty", "also.overlong_penalty.buffer=1e-6", "data.max_response_length=12")
    settings = small("method=none", *overlong)
    metrics = grpo.step(grpo.started(settings), settings, task)
    cut = metrics["reward/cut_off"]
    assert 0 < cut == pytest.approx(metrics["critic/score/mean"] - metrics["critic/rewards/mean"], abs=1e-6)


def test_a_schedule_is_its_numbers(small, task):
    """Two steps with a schedule are two with its numbers, one after the other; every step shows them."""
    scheduled = small(
        *("method=entropy_bonus", "method.coefficient=linear:0.5:0.1:2"),
        *("also=clip_higher", "also.clip_higher.clip_high=warmup:0.4:2"),
    )
    fixed = [
        small(
            "method=entropy_bonus", f"method.coefficient={c}", "also=clip_higher", f"also.clip_higher.clip_high={high}"
        )
        for c, high in ((0.5, 0.2), (0.3, 0.4))
    ]
    state, other = grpo.started(scheduled), grpo.started(fixed[0])
    for settings in fixed:
        metrics, expected = grpo.step(state, scheduled, task), grpo.step(other, settings, task)
        stack = scheduled.stack.scheduled_values(state.step)
        assert stack["entropy_bonus/coefficient"] == settings.stack.methods[0].coefficient
        assert metrics["actor/entropy_bonus/coefficient"] == stack["entropy_bonus/coefficient"]
        assert metrics["actor/clip_higher/clip_high"] == settings.stack.methods[1].clip_high
        assert metrics["actor/loss"] == expected["actor/loss"] and torch.equal(vector(state), vector(other))
    assert "actor/entropy_bonus/coefficient" not in expected


@dataclass(frozen=True)
class Lengths(Method):
    """Checks that every response has its own number: its length, plus 100 if it is right."""

    def response_value(self, rollouts):
        return rollouts.lengths + 100.0 * rollouts.rewards

    def local_sums(self, tokens, context, update):
        right = tokens.response_value >= 100
        assert torch.equal(tokens.response_value - 100.0 * right, tokens.lengths.float())
        assert torch.equal(right, tokens.advantages[:, 0] > 0)
        return {"right": float(right.sum())}

    def metrics(self, context, sums, update):
        return {"right": sums["right"]}


def test_the_number_of_a_response_reaches_the_loss(small, task):
    """In both mini-batches; the metric is the mean over them."""
    settings = small("base=dapo", "method=none")
    settings = replace(settings, stack=MethodStack([Lengths()]))
    metrics = grpo.step(grpo.started(settings), settings, task)
    (name,) = settings.stack.names
    assert metrics[f"actor/{name}/right"] == metrics["critic/score/mean"] * 4 * 4 / 2 > 0


def test_only_the_ordered_method_is_left_out():
    assert set(METHODS) - set(UNORDERED) == {"sent"}


@pytest.mark.parametrize("base", ["grpo", "dr_grpo", "dapo"])
def test_the_bases(small, task, base):
    settings = small(f"base={base}", "method=none")
    metrics = grpo.step(grpo.started(settings), settings, task)
    assert (metrics["reward/mixed_prompts"] == 1.0) == (base == "dapo")
    assert ("training/filter_groups/evicted_samples" in metrics) == (base == "dapo")


def test_entropy_by_outcome(small, task):
    """Weighted by their tokens, right and wrong are all of a step's responses."""
    settings = small("method=none", "seed=1")
    metrics = grpo.step(grpo.started(settings), settings, task)
    right, wrong = metrics["actor/entropy/right"], metrics["actor/entropy/wrong"]
    assert min(right, wrong) < metrics["actor/entropy"] < max(right, wrong)


def test_a_step_is_a_function_of_the_seed(small, task):
    def one(seed: int) -> dict[str, float]:
        settings = small(f"seed={seed}")
        found = grpo.step(grpo.started(settings), settings, task)
        return {key: value for key, value in found.items() if not key.startswith("timing")}

    assert one(1) == one(1) != one(2)


def test_the_first_update_has_ratios_of_one(small, task):
    """The log-probs that sampling drew from are those of the training pass."""
    settings = small("method=none", "mini_batch=4")
    state = grpo.started(settings)
    metrics = grpo.step(state, settings, task)
    assert abs(metrics["actor/ppo_kl"]) < 1e-6 and metrics["actor/pg_clipfrac"] == 0


# ---- advantages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_std", [True, False])
def test_advantages_by_hand(small, by_std):
    settings = replace(small("method=none"), by_std=by_std)
    batch = grpo.Rollouts(
        None, torch.tensor([[True, False], *[[True, True]] * 3]), torch.zeros(4), 1, 1, torch.zeros(4, 2)
    )
    metrics: dict[str, float] = {}
    found = grpo.advantages(batch, torch.tensor([[1.0, 0.0, 0.0, 0.0]]), settings, metrics)
    scale = 0.5 + 1e-6 if by_std else 1.0  # the standard deviation of 1, 0, 0, 0 with 3 degrees of freedom is 0.5
    expected = torch.tensor([[0.75, 0.0], *[[-0.25, -0.25]] * 3]) / scale
    torch.testing.assert_close(found, expected)
    assert metrics["critic/score/mean"] == metrics["critic/rewards/mean"] == 0.25


@dataclass(frozen=True)
class Twice(Method):
    """Doubles rewards, and adds the rewards that it sees to the advantages."""

    def rewards(self, rollouts):
        return 2 * rollouts.rewards

    def advantages(self, rollouts):
        return rollouts.advantages + rollouts.rewards[:, None]


def test_rewards_and_advantages_of_methods_are_chained(small):
    """The estimate is made of the method's rewards, its advantages of the estimate; graded scores stay on record."""
    settings = replace(small("method=none", "base=dr_grpo"), stack=MethodStack([Twice()]))
    batch = grpo.Rollouts(None, torch.ones(2, 1, dtype=torch.bool), torch.zeros(2), 1, 1, torch.zeros(2, 1))
    metrics: dict[str, float] = {}
    found = grpo.advantages(batch, torch.tensor([[1.0, 0.0]]), settings, metrics)
    assert found.tolist() == [[1.0 + 2.0], [-1.0 + 0.0]]
    assert (metrics["critic/score/mean"], metrics["critic/rewards/mean"]) == (0.5, 1.0)
    assert metrics[f"actor/{settings.stack.names[0]}/reward"] == 1.0


@dataclass(frozen=True)
class InPlace(Twice):
    """The same, in place."""

    def rewards(self, rollouts):
        rollouts.rewards.mul_(2)
        return rollouts.rewards


def test_a_reward_hook_in_place_leaves_the_graded_scores(small):
    settings = replace(small("method=none", "base=dr_grpo"), stack=MethodStack([InPlace()]))
    batch = grpo.Rollouts(None, torch.ones(2, 1, dtype=torch.bool), torch.zeros(2), 1, 1, torch.zeros(2, 1))
    scores, metrics = torch.tensor([[1.0, 0.0]]), {}
    found = grpo.advantages(batch, scores, settings, metrics)
    assert found.tolist() == [[1.0 + 2.0], [-1.0 + 0.0]] and scores.tolist() == [[1.0, 0.0]]
    assert (metrics["critic/score/mean"], metrics["critic/rewards/mean"]) == (0.5, 1.0)


def test_what_a_tracker_says_reaches_rewards_and_advantages(small):
    settings = replace(small("method=none", "base=dr_grpo"), stack=MethodStack([Told()]))
    batch = grpo.Rollouts(None, torch.ones(2, 1, dtype=torch.bool), torch.zeros(2), 1, 1, torch.zeros(2, 1))
    (name,) = settings.stack.names
    found = grpo.advantages(batch, torch.tensor([[1.0, 0.0]]), settings, {}, {name: {"told": 3.0}})
    assert found.tolist() == [[1.5 + 3.0], [-1.5 + 3.0]]  # rewards 3 and 0


@dataclass(frozen=True)
class Told(Method):
    """Rewards times what its tracker says, and advantages plus it."""

    def rewards(self, rollouts):
        return rollouts.rewards * rollouts.tracker_signal["told"]

    def advantages(self, rollouts):
        return rollouts.advantages + rollouts.tracker_signal["told"]


def test_the_memory_of_rewards(small, task):
    """ares: its tracker sees the graded rewards, and what it remembers of step 1 changes the rewards of step 2."""
    settings = small("method=ares", "method.window=1", "method.triggers=['1','2','3','(']")
    state = grpo.started(settings)
    first, second = (grpo.step(state, settings, task) for _ in range(2))
    assert first["critic/rewards/mean"] == first["critic/score/mean"] == first["actor/ares/reward"]
    targets = {name for name in second if name.startswith("actor/ares/target_")}
    assert targets and not any("target" in name for name in first)
    assert second["critic/rewards/mean"] != second["critic/score/mean"]
    assert second["critic/rewards/mean"] == pytest.approx(second["actor/ares/reward"], rel=1e-6)
    memory = state.trackers["ares"].state_dict()["after"]
    responses = sum(value for name, value in memory.items() if name.startswith("responses"))
    triggers = sum(value for name, value in memory.items() if name.startswith("triggers"))
    assert responses == 2 * 4 * 4 and triggers > 0


# ---- aggregation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode, expected",
    [
        ("token-mean", (1 + 2 + 3) / 3),
        ("token-sum", 6.0),
        ("seq-mean-token-sum", (3 + 3) / 2),
        ("seq-mean-token-mean", (1.5 + 3) / 2),
        ("seq-mean-token-sum-norm", (3 + 3) / 2 / 8),
    ],
)
def test_aggregation_by_hand(small, mode, expected):
    settings = replace(small(), aggregation=mode, loss_scale=8)
    losses = torch.tensor([[1.0, 2.0, torch.nan], [3.0, 100.0, 100.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert grpo.aggregated(losses, mask, settings).item() == pytest.approx(expected)
    if mode == "token-mean":
        assert grpo.aggregated(losses, mask, settings, count=12).item() == pytest.approx(0.5)


# ---- prompts ---------------------------------------------------------------------------------------------------------


def graded(monkeypatch, task, correct) -> None:
    """`correct(number of the prompt in the run, sample)` decides."""
    count = 0

    def verdicts(problems, texts):
        nonlocal count
        first, count = count, count + len(problems) // 4
        made = [correct(first + row // 4, row % 4) for row in range(len(problems))]
        return [Verdict(right, right, "1", "ok") for right in made]

    monkeypatch.setattr(task, "verdicts", verdicts)


def test_dapo_replaces_prompts_of_one_score(small, task, monkeypatch):
    """Of 4 prompts 1 is mixed; of the 4 that come for 3 missing ones 2; of 2 more both, of which the first is used."""
    settings = small("base=dapo", "method=none")
    mixed = {2, 5, 7, 8, 9}
    graded(monkeypatch, task, lambda prompt, sample: prompt in mixed and sample == 0)
    state, metrics = grpo.started(settings), {}
    state.step = 1
    batch = grpo.collect(state, settings, task, metrics)
    assert batch.problems == [task.drawn(1, place, 1)[0] for place in (2, 5, 7, 8)]
    assert batch.names == ["000001-000002", "000001-000005", "000001-000007", "000001-000008"]
    assert torch.equal(batch.scores, torch.tensor([[1.0, 0, 0, 0]] * 4))
    assert batch.sampled.inside.any(-1).all() and state.drawn == 10
    assert metrics["training/filter_groups/evicted_samples"] == 5
    assert metrics["training/filter_groups/discarded_surplus_samples"] == 1


def test_dapo_gives_up_after_an_epoch(small, task, monkeypatch):
    settings = small("base=dapo", "method=none")
    graded(monkeypatch, task, lambda prompt, sample: True)
    monkeypatch.setattr(task, "train", task.train[:6])
    with pytest.raises(UserError, match="only 0 of 8 prompts have responses of different scores at step 1"):
        grpo.step(grpo.started(settings), settings, task)


def test_prompts_come_in_a_seeded_order_once_an_epoch(task, monkeypatch):
    monkeypatch.setattr(task, "train", task.train[:10])
    first, second = task.drawn(3, 0, 10), task.drawn(3, 10, 10)
    everything = sorted(problem.ids for problem in task.train)
    assert sorted(p.ids for p in first) == sorted(p.ids for p in second) == everything
    assert first != second and first != task.drawn(4, 0, 10)
    assert task.drawn(3, 7, 6) == first[7:] + second[:3]


def test_a_method_draws_its_share_of_the_prompts(task):
    settings = settings_of(["method=aepo", "prompts=4", "mini_batch=4", "responses=2"])
    state = grpo.started(settings)
    state.step = 1
    signals = {name: tracker.signal(1) for name, tracker in state.trackers.items()}
    sampling = settings.stack.sampling(signals)
    batch = grpo.collect(state, settings, task, {})
    apart = round(sampling.share * 4) if sampling else 0
    assert (batch.temperatures > 0).tolist() == [False] * (4 - apart) + [True] * apart
    rollouts = grpo.rollouts_of(batch, 1, settings, task)
    assert rollouts.resampled.tolist() == [flag for flag in (batch.temperatures > 0).tolist() for _ in range(2)]
