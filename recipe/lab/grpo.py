"""GRPO with any method of the catalogue: from prompts to an updated policy, the whole of it.

A step is

    collect       prompts in a seeded order, responses to each, verdicts              `collect`
    observe       the methods' trackers see the step's responses                      `observed`
    advantages    rewards, the group-relative estimate, the methods' changes          `advantages`
    update        one optimizer step on every mini-batch of prompts                   `update`, `objective`

with the hooks of `paec_loss.MethodStack` where the pipeline has them (recipe.paec.driver.trainer, recipe.paec.actor).
What differs from the pipeline:

1. Sampling and training share the weights and the arithmetic, so the old log-probs are those that sampling drew from:
   there is no log-prob pass, and nothing between rollout and actor to correct.
2. A mini-batch is one forward pass, so what a method prepares on it (`statistics_from=exact`) costs no other one.
3. With base=dapo, prompts without any difference are replaced in rounds of twice as many as are missing, at most a
   batch at a time, as verl does; the first ones in the order of the prompts are kept.

Everything random is a function of seed and step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from paec_loss import MethodStack, Rollouts, Tokens, TokenStatistics, Tracker, Update, token_statistics
from paec_loss.method import DEVIATION_EPSILON
from paec_loss.stack import NO_SIGNALS, Signals, observed
from paec_loss.token_texts import token_pieces
from recipe.lab.batch import Batch, chosen, together
from recipe.lab.diagnosis import Trained, explained, no_gradient
from recipe.lab.metrics import clipped_shares, response_metrics, spread, timed
from recipe.lab.policy import Policy, Prompts
from recipe.lab.sampling import sample
from recipe.lab.settings import Settings
from recipe.lab.task import Task, generator_of, rows_of
from recipe.paec.common.errors import UserError
from recipe.paec.common.queue_keys import response_number


@dataclass
class State:
    """What a step changes; a checkpoint has all of it."""

    policy: Policy
    optimizer: torch.optim.Optimizer
    trackers: dict[str, Tracker]
    reference: Policy | None
    """The first policy, where a method needs one."""
    step: int = 0
    """Steps done."""
    drawn: int = 0
    """Training prompts drawn so far."""


def started(settings: Settings) -> State:
    """The state before the first step."""
    policy = Policy(settings.task / "model")
    reference = Policy(settings.task / "model") if "reference" in settings.stack.needs else None
    optimizer = torch.optim.AdamW(
        policy.parameters.values(), lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay
    )
    return State(policy, optimizer, settings.stack.trackers(), reference)


def step(state: State, settings: Settings, task: Task) -> dict[str, float]:
    """One training step; returns its metrics under the pipeline's names."""
    metrics: dict[str, float] = {}
    state.step += 1
    with timed(metrics, "gen"):
        batch = collect(state, settings, task, metrics)
    with timed(metrics, "old_log_prob"):
        rollouts = rollouts_of(batch, state.step, settings, task)
        metrics["actor/entropy"] = aggregated(rollouts.entropy, rollouts.response_mask, settings).item()
    with timed(metrics, "adv"):
        metrics |= observed(state.trackers, rollouts, "actor/")
        advantage = advantages(rollouts, batch.scores, settings, metrics, signals_of(state))
    with timed(metrics, "update_actor"):
        metrics |= update(state, settings, batch, rollouts, advantage)
    metrics |= settings.stack.scheduled_values(state.step, "actor/")
    return metrics | response_metrics(batch, rollouts, advantage, settings)


# ---- responses -------------------------------------------------------------------------------------------------------


def collect(state: State, settings: Settings, task: Task, metrics: dict[str, float]) -> Batch:
    """The step's prompts with their graded responses; with base=dapo only prompts whose scores differ.

    Raises:
        UserError: a whole epoch of prompts does not give enough of them.
    """
    kept: list[Batch] = []
    seen = found = 0
    while found < settings.prompts:
        count = settings.prompts if not seen else min(settings.prompts, 2 * (settings.prompts - found))
        batch = _round(state, settings, task, seen, count)
        mixed = (
            batch.scores.amax(1) > batch.scores.amin(1) if settings.mixed_only else torch.ones(count, dtype=torch.bool)
        )
        kept.append(chosen(batch, mixed))
        seen, found = seen + count, found + int(mixed.sum())
        if found < settings.prompts and seen > len(task.train):
            raise UserError(
                f"algorithm.filter_groups.enable=true: only {found} of {seen} prompts have responses of different "
                f"scores at step {state.step}, and a step needs {settings.prompts}: set it to false, or raise responses"
            )
    if settings.mixed_only:
        metrics["training/filter_groups/evicted_samples"] = float(seen - found)
        metrics["training/filter_groups/discarded_surplus_samples"] = float(found - settings.prompts)
    batch = together(kept)
    return chosen(batch, torch.arange(len(batch.problems)) < settings.prompts)


def _round(state: State, settings: Settings, task: Task, first: int, count: int) -> Batch:
    """The step's next `count` prompts, after the `first` ones; a method may draw the last of them differently."""
    problems = task.drawn(settings.seed, state.drawn, count)
    state.drawn += count
    names = [f"{state.step:06d}-{first + place:06d}" for place in range(count)]
    own = torch.zeros(count)
    if settings.stack.has("sampling"):
        sampling = settings.stack.sampling(signals_of(state), state.step)
        if sampling is not None and (apart := round(sampling.share * count)):
            own[-apart:] = sampling.temperature
    prompts = Prompts.of([problem.ids for problem in problems])
    temperatures = torch.where(own > 0, own, settings.temperature)
    generator = generator_of(settings.seed, state.step, f"rollout-{first}")
    drawn = sample(
        state.policy, prompts, settings.responses, settings.max_response_length, temperatures, task.end, generator
    )
    texts = task.texts(rows_of(drawn.tokens.flatten(0, 1), drawn.inside.flatten(0, 1)))
    verdicts = task.verdicts([problem for problem in problems for _ in range(settings.responses)], texts)
    return Batch(problems, prompts, names, drawn, own, verdicts)


def rollouts_of(batch: Batch, step: int, settings: Settings, task: Task) -> Rollouts:
    """What the methods' hooks on the driver see; [B, R]."""
    stack, n = settings.stack, batch.sampled.tokens.shape[1]
    tokens, inside = batch.sampled.tokens.flatten(0, 1), batch.sampled.inside.flatten(0, 1)
    rows = rows_of(tokens, inside)
    needs = stack.needs
    return Rollouts(
        statistics=statistics_of(batch.sampled.logits.flatten(0, 1)[inside], tokens, inside, settings),
        response_mask=inside,
        group_id=torch.tensor([response_number(name) for name in batch.names]).repeat_interleave(n),
        step=step,
        seed=settings.seed,
        tokens=tokens,
        rewards=batch.scores.flatten() if "rewards" in needs else None,
        text=[task.tokenizer.decode(row) for row in rows] if "text" in needs else None,
        token_texts=token_pieces(rows, task.tokenizer) if "token_texts" in needs else None,
        answer_ids=task.answer_ids([p for p in batch.problems for _ in range(n)], batch.verdicts)
        if "answer_ids" in needs
        else None,
        resampled=(batch.temperatures > 0).repeat_interleave(n) if stack.has("sampling") else None,
        place=torch.arange(n).repeat(len(batch.names)),
        max_response_length=settings.max_response_length,
    )


def statistics_of(
    logits: Tensor, tokens: Tensor, inside: Tensor, settings: Settings, top_p: float | None = None
) -> TokenStatistics:
    """Statistics [B, R], zeros at padding, from the logits [T, V] of the response tokens; `top_p` None: the run's."""
    top_p = settings.stack.top_p if top_p is None else top_p
    packed = token_statistics(logits, tokens[inside], top_p=top_p, temperature=settings.temperature)
    return packed.map(lambda values: values.new_zeros(inside.shape).masked_scatter(inside, values))


# ---- advantages ------------------------------------------------------------------------------------------------------


def signals_of(state: State) -> dict[str, dict[str, float]]:
    """What each method's tracker says about the step, by the method's name."""
    return {name: tracker.signal(state.step) for name, tracker in state.trackers.items()}


def advantages(
    rollouts: Rollouts, scores: Tensor, settings: Settings, metrics: dict[str, float], signals: Signals = NO_SIGNALS
) -> Tensor:
    """[B, R] advantages of the response tokens from the graded scores [P, n]; `signals` as of `signals_of`."""
    stack = settings.stack
    rollouts = replace(rollouts, rewards=scores.flatten())
    if stack.has("rewards"):
        rollouts = replace(rollouts, rewards=stack.rewards(rollouts, signals).float())
        metrics[f"actor/{stack.owner('rewards')}/reward"] = rollouts.rewards.double().mean().item()
    rewards = rollouts.rewards.view(scores.shape)
    metrics |= spread("critic/score", scores) | spread("critic/rewards", rewards)
    centred = rewards - rewards.mean(1, keepdim=True)
    estimate = centred / (rewards.std(1, keepdim=True) + DEVIATION_EPSILON) if settings.by_std else centred
    found = torch.where(rollouts.response_mask, estimate.flatten()[:, None], 0.0)
    if stack.has("advantages"):
        found = stack.advantages(replace(rollouts, advantages=found), signals).float()
    return found


# ---- the update ------------------------------------------------------------------------------------------------------


def update(state: State, settings: Settings, batch: Batch, rollouts: Rollouts, advantage: Tensor) -> dict[str, float]:
    """One optimizer step on every mini-batch; returns the means of their metrics.

    Raises:
        HookError: in the first step, a loss or a term without gradient.
        UserError: there is no gradient, or one that is not finite.
    """
    if state.step == 1:
        settings = replace(settings, stack=Trained(settings.stack.methods))
    signals = signals_of(state)
    graded = replace(rollouts, rewards=batch.scores.flatten(), advantages=advantage)
    n, found, values = settings.responses, [], settings.stack.response_value(graded, signals)
    clip = settings.stack.clip_in(state.step, settings.clip)
    for first in range(0, settings.prompts, settings.mini_batch):
        prompts = slice(first, first + settings.mini_batch)
        rows = slice(first * n, (first + settings.mini_batch) * n)
        tokens = tokens_of(state.policy, batch, rollouts, advantage, prompts, rows, settings, state.reference)
        if values is not None:
            tokens = replace(tokens, response_value=values[rows])
        one = Update(state.step, settings.seed, int(tokens.response_mask.sum()), clip)
        updates = settings.stack.updates(one, signals)
        step_statistics = rollouts.statistics.map(lambda v, rows=rows: v[rows])
        loss, metrics = objective(tokens, step_statistics, updates, settings)
        if not loss.requires_grad:
            raise UserError(no_gradient(f"at step {state.step}, {settings.stack.owner('policy_loss')}.policy_loss"))
        state.optimizer.zero_grad()
        loss.backward()
        norm = clip_grad_norm_(state.policy.parameters.values(), settings.clip_grad).item()
        if not math.isfinite(norm):
            again = partial(_hooks_again, settings, graded, signals, step_statistics, updates)
            raise UserError(explained(norm, state.step, tokens, again))
        state.optimizer.step()
        found.append({**metrics, "actor/loss": loss.item(), "actor/grad_norm": norm})
    return {name: sum(metrics[name] for metrics in found) / len(found) for name in found[0]}


def _hooks_again(
    settings: Settings,
    graded: Rollouts,
    signals: Signals,
    step_statistics: TokenStatistics,
    updates: list[Update],
    stack: type[MethodStack],
    tokens: Tokens,
) -> None:
    """The hooks of a step and of one mini-batch in a `stack` that looks at what they return."""
    settings = replace(settings, stack=stack(settings.stack.methods))
    advantages(graded, graded.rewards.view(-1, settings.responses), settings, {}, signals)
    settings.stack.response_value(graded, signals)
    objective(tokens, step_statistics, updates, settings)


def tokens_of(
    policy: Policy,
    batch: Batch,
    rollouts: Rollouts,
    advantage: Tensor,
    prompts: slice,
    rows: slice,
    settings: Settings,
    reference: Policy | None = None,
) -> Tokens:
    """What the hooks see of a mini-batch under the current policy, with gradient: `prompts` of P, `rows` of B."""
    drawn = batch.sampled
    asked, responses, written = batch.prompts[prompts], drawn.tokens[prompts], drawn.inside[prompts]
    tokens, inside = rollouts.tokens[rows], rollouts.response_mask[rows]
    names = [f"{name}_{sample}_0" for name in batch.names[prompts] for sample in range(drawn.tokens.shape[1])]
    ref_log_prob = None
    if reference is not None:
        with torch.no_grad():
            logits = reference.logits(asked, responses, written)
            ref_log_prob = statistics_of(logits, tokens, inside, settings).log_prob
    return Tokens(
        statistics=statistics_of(policy.logits(asked, responses, written), tokens, inside, settings),
        old_log_prob=rollouts.log_prob[rows],
        advantages=advantage[rows],
        response_mask=inside,
        response_id=torch.tensor([response_number(name) for name in names]),
        ref_log_prob=ref_log_prob,
    )


def objective(
    tokens: Tokens, step_statistics: TokenStatistics, updates: list[Update], settings: Settings
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a mini-batch, with gradient, and its metrics.

    Args:
        tokens: the mini-batch under the current policy.
        step_statistics: the same tokens under the policy that the step began with (`statistics_from=step`).
        updates: the update as each method sees it.
    """
    stack = settings.stack
    whole = replace(tokens, statistics=tokens.statistics.detach())
    contexts = stack.prepare({"exact": whole, "step": replace(tokens, statistics=step_statistics)}, updates)
    term = stack.loss_term(tokens, contexts, updates)
    sums = stack.local_sums(tokens, contexts, updates)
    tokens = replace(tokens, advantages=stack.token_advantages(tokens, contexts, updates))
    selected, count = stack.selection(tokens, contexts, updates)
    losses = stack.policy_loss(tokens, contexts, updates)
    policy_loss = aggregated(losses, selected, settings, max(count, 1))
    metrics = {"actor/pg_loss": policy_loss.item(), "actor/ppo_kl": -tokens.mean(tokens.log_ratio)}
    if not stack.own_surrogate:
        metrics |= clipped_shares(tokens, updates[0])
    metrics |= {f"actor/{name}": value for name, value in stack.metrics(contexts, sums, updates).items()}
    return policy_loss + term, metrics


def aggregated(losses: Tensor, mask: Tensor, settings: Settings, count: int | None = None) -> Tensor:
    """verl's `agg_loss` of losses [B, R] over `mask`; a token mean divides by `count`, None: the tokens of `mask`."""
    losses = torch.where(mask, losses, 0.0)
    if settings.aggregation == "token-mean":
        return losses.sum() / (mask.sum() if count is None else count)
    if settings.aggregation == "token-sum":
        return losses.sum()
    rows = losses.sum(-1)
    if settings.aggregation == "seq-mean-token-mean":
        rows = rows / (mask.sum(-1) + 1e-8)
    mean = rows.sum() / len(mask)
    return mean / settings.loss_scale if settings.aggregation == "seq-mean-token-sum-norm" else mean
