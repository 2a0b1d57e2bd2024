"""Batches for the tests of methods, and the mini-batch as a trainer runs it: prepared whole, processed in parts."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from paec_loss.batch import Clip, Rollouts, Tokens, Update
from paec_loss.method import Method
from paec_loss.stack import MethodStack
from paec_loss.statistics import TokenStatistics

CLIP = Clip(0.2, 0.2, 3.0)
LENGTHS = (5, 1, 7, 3, 0, 6)
PADDING = 1e6  # value at padding: any use of it is noticed


def statistics_of(logits: Tensor, labels: Tensor) -> TokenStatistics:
    """Eager statistics of logits [B, R, V] with gradient; the nucleus fields are those of top_p = 1."""
    log_probs = logits.log_softmax(-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    top = log_probs.topk(2, dim=-1).values
    return TokenStatistics(
        log_prob=log_probs.gather(-1, labels[..., None])[..., 0],
        entropy=entropy,
        nucleus_entropy=entropy,
        nucleus_size=torch.full_like(labels, logits.shape[-1]),
        nucleus_mass=torch.ones_like(entropy),
        top1_log_prob=top[..., 0],
        top2_log_prob=top[..., 1],
        vocab_size=logits.shape[-1],
    )


def random_batch(seed: int = 0, lengths: tuple[int, ...] = LENGTHS, vocabulary: int = 11) -> tuple[Tensor, Tokens]:
    """Float64 logits [B, R, V] (a leaf) and the ragged batch of their tokens; off-policy, some ratios beyond the clip.

    Padded places hold PADDING in every field that is not made of logits.
    """
    generator = torch.Generator().manual_seed(seed)
    count, length = len(lengths), max(lengths)
    logits = (2.5 * torch.randn(count, length, vocabulary, generator=generator, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(0, vocabulary, (count, length), generator=generator)
    inside = torch.arange(length) < torch.tensor(lengths)[:, None]
    statistics = statistics_of(logits, labels)
    noise = 0.3 * torch.randn(count, length, generator=generator, dtype=torch.float64)
    advantages = torch.randn(count, 1, generator=generator, dtype=torch.float64).expand(count, length)
    reference = statistics.log_prob.detach() + torch.randn(count, length, generator=generator, dtype=torch.float64)
    return logits, Tokens(
        statistics=statistics,
        old_log_prob=torch.where(inside, statistics.log_prob.detach() + noise, PADDING),
        advantages=torch.where(inside, advantages, PADDING),
        response_mask=inside,
        response_id=torch.randint(0, 2**60, (count,), generator=generator),
        ref_log_prob=torch.where(inside, reference, PADDING),
        response_value=torch.rand(count, generator=generator, dtype=torch.float64),
    )


def hand_batch(
    log_prob: list[list[float]],
    advantages: list[list[float]],
    old_log_prob: list[list[float]] | None = None,
    entropy: list[list[float]] | None = None,
    ref_log_prob: list[list[float]] | None = None,
) -> Tokens:
    """Rows of different lengths with literal values, float64; log_prob and entropy are leaves with gradient."""
    inside = torch.arange(max(map(len, log_prob))) < torch.tensor([len(row) for row in log_prob])[:, None]

    def padded(rows: list[list[float]] | None, like: list[list[float]] = log_prob) -> Tensor:
        rows = like if rows is None else rows
        out = torch.full(inside.shape, PADDING, dtype=torch.float64)
        for i, row in enumerate(rows):
            out[i, : len(row)] = torch.tensor(row, dtype=torch.float64)
        return out

    ones = torch.ones(inside.shape, dtype=torch.float64)
    taken, spread = padded(log_prob).requires_grad_(), padded(entropy or [[0.0] * len(r) for r in log_prob])
    return Tokens(
        statistics=TokenStatistics(
            taken, spread.requires_grad_(), spread, ones.long() * 2, ones, ones * 0, ones * -1, vocab_size=100
        ),
        old_log_prob=padded(old_log_prob),
        advantages=padded(advantages),
        response_mask=inside,
        response_id=torch.arange(len(log_prob)),
        ref_log_prob=padded(ref_log_prob),
    )


def toy_batch() -> Tokens:
    """Responses of 4 and 3 tokens, A 1 and -1, r = .904837 1.491825 1 1.349859 | 1 .670320 1.030455."""
    return hand_batch(
        [[-0.2, -1.6, -0.5, -0.7], [-0.3, -1.9, -0.02]],
        [[1.0] * 4, [-1.0] * 3],
        old_log_prob=[[-0.1, -2.0, -0.5, -1.0], [-0.3, -1.5, -0.05]],
        entropy=[[0.3, 1.8, 0.9, 1.2], [0.7, 1.6, 0.1]],
    )


def gradient_weights(method: Method, tokens: Tokens, **signal: float) -> Tensor:
    """[N] w of every token: the policy loss, summed over the tokens, has the gradient -A w in log p."""
    update, advantages = update_of(tokens, method, **signal), tokens.advantages
    context = method.prepare(detached(tokens), update)
    tokens = replace(tokens, advantages=method.token_advantages(tokens, context, update).detach())
    loss = torch.where(tokens.response_mask, method.policy_loss(tokens, context, update), 0.0).sum()
    return (-torch.autograd.grad(loss, tokens.log_prob)[0] / advantages)[tokens.response_mask]


def assert_six_digits(found: Tensor, expected: list[float] | float) -> None:
    """Equal to a vector or number that is given to six digits."""
    torch.testing.assert_close(found.detach(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=6e-7)


def assert_same_gradient(loss: Tensor, expected: Tensor, logits: Tensor) -> None:
    """Two losses are equal, and so are their gradients in the logits, which are not 0."""
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, expected))
    assert theirs.abs().max() > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-14)


def rows(tokens: Tokens, index: Tensor) -> Tokens:
    """The responses `index` of a batch, cut to their longest."""
    length = max(int(tokens.response_mask[index].sum(-1).max()), 1)
    return Tokens(
        statistics=tokens.statistics.map(lambda x: x[index, :length]),
        **{
            name: getattr(tokens, name)[index, :length]
            for name in ("old_log_prob", "advantages", "response_mask", "ref_log_prob")
        },
        response_id=tokens.response_id[index],
        response_value=None if tokens.response_value is None else tokens.response_value[index],
    )


def detached(tokens: Tokens) -> Tokens:
    """The batch without gradient, as `prepare` sees it."""
    return replace(tokens, statistics=tokens.statistics.detach())


def update_of(tokens: Tokens, method: Method | MethodStack, step: int = 3, seed: int = 1, **signal: float) -> Update:
    """The update of this mini-batch."""
    return Update(step, seed, int(tokens.response_mask.sum()), method.clip(CLIP), signal)


def mini_batch_loss(
    method: Method | list[Method], tokens: Tokens, parts: list[list[int]] | None = None, **signal: float
) -> Tensor:
    """The loss of the mini-batch (loss_agg_mode=token-mean) with gradient, summed over micro-batches `parts`."""
    stack = MethodStack(method if isinstance(method, list) else [method])
    updates = [update_of(tokens, stack, **signal)] * len(stack.methods)
    whole = detached(tokens)
    contexts = stack.prepare({"exact": whole, "step": whole}, updates)
    total = torch.zeros((), dtype=torch.float64)
    for part in parts or [list(range(len(tokens.response_id)))]:
        micro = rows(tokens, torch.tensor(part))
        term = stack.loss_term(micro, contexts, updates)
        micro = replace(micro, advantages=stack.token_advantages(micro, contexts, updates))
        losses = stack.policy_loss(micro, contexts, updates)
        mask, count = stack.selection(micro, contexts, updates)
        total = total + torch.where(mask, losses, 0.0).sum() / count + term
    return total


SPLITS = ([[0, 1, 2], [3, 4, 5]], [[i] for i in range(6)], [[5, 3], [0, 4, 1], [2]])


def assert_any_split(method: Method | list[Method], **signal: float) -> None:
    """Loss and gradient of a random mini-batch are the same for every way of splitting it."""
    logits, tokens = random_batch()
    (whole,) = torch.autograd.grad(mini_batch_loss(method, tokens, **signal), logits, retain_graph=True)
    assert whole.abs().max() > 0
    for parts in SPLITS:
        loss = mini_batch_loss(method, tokens, parts, **signal)
        torch.testing.assert_close(loss, mini_batch_loss(method, tokens, **signal), rtol=1e-12, atol=1e-14)
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        torch.testing.assert_close(gradient, whole, rtol=1e-12, atol=1e-14)


def rollouts_of(
    rewards: list[float],
    prompt: list[int],
    log_prob: list[list[float]],
    entropy: list[list[float]] | None = None,
    advantages: list[float] | None = None,
    tokens: list[list[int]] | None = None,
    answer_ids: list[int] | None = None,
    text: list[str] | None = None,
    token_texts: list[list[str]] | None = None,
    resampled: list[bool] | None = None,
    step: int = 3,
    max_response_length: int | None = None,
) -> Rollouts:
    """A step's responses with literal values; `advantages` are GRPO's (standardised by group) where not given."""
    batch = hand_batch(log_prob, [[0.0] * len(row) for row in log_prob], entropy=entropy)
    reward = torch.tensor(rewards, dtype=torch.float64)
    group = torch.tensor(prompt)
    advantage = grpo(reward, group) if advantages is None else torch.tensor(advantages, dtype=torch.float64)
    ids = torch.zeros(batch.response_mask.shape, dtype=torch.long)
    for i, row in enumerate(tokens or []):
        ids[i, : len(row)] = torch.tensor(row)
    return Rollouts(
        statistics=batch.statistics.detach(),
        response_mask=batch.response_mask,
        group_id=group,
        step=step,
        seed=1,
        tokens=ids,
        rewards=reward,
        advantages=torch.where(batch.response_mask, advantage[:, None], 0.0),
        text=text,
        token_texts=token_texts,
        answer_ids=None if answer_ids is None else torch.tensor(answer_ids),
        resampled=None if resampled is None else torch.tensor(resampled),
        max_response_length=max_response_length,
    )


PIECES = (
    "let",
    "'s",
    " try",
    " a",
    " different",
    " way",
    ".\n\n",
    "\n\n",
    " so",
    " 2",
    "</think>",
    " Hold",
    " on",
    "!",
)


def random_rollouts(seed: int = 0) -> Rollouts:
    """A step's responses, float64: groups of 4, 3 and 1, a row of padding, ragged; PADDING where no token is."""
    lengths, prompt = (5, 1, 7, 3, 0, 6, 2, 4, 9), [4, 1, 4, 1, 4, 4, 2, 1, 4]
    generator = torch.Generator().manual_seed(seed)

    def rows_of(scale: float) -> list[list[float]]:
        return [(scale * torch.rand(n, generator=generator, dtype=torch.float64)).tolist() for n in lengths]

    def numbers(high: int, count: int = len(lengths)) -> list[int]:
        return torch.randint(0, high, (count,), generator=generator).tolist()

    return rollouts_of(
        rewards=[float(r) for r in numbers(2)],
        prompt=prompt,
        log_prob=rows_of(-2.0),
        entropy=rows_of(1.5),
        answer_ids=numbers(3),
        token_texts=[[PIECES[i] for i in numbers(len(PIECES), n)] for n in lengths],
        resampled=[p == 1 for p in prompt],
        max_response_length=6,
    )


def with_tools(rollouts: Rollouts) -> tuple[Rollouts, Tensor]:
    """(the responses of `random_rollouts` with what tools wrote after their tokens 1 and 4, the policy's columns)."""
    width, own = rollouts.response_mask.shape[1], []
    for token in range(width):
        own.append(token + 2 * (token > 0) + (token > 3))
    columns = torch.tensor(own)

    def spread(values: Tensor, between: float) -> Tensor:
        out = torch.full((len(values), own[-1] + 1), between, dtype=values.dtype)
        out[:, columns] = values
        return out

    def texts(pieces: list[str]) -> list[str]:
        row = ["\n\nwait</think>\n\nhold"] * (own[len(pieces) - 1] + 1 if pieces else 0)
        for column, piece in zip(own, pieces, strict=False):
            row[column] = piece
        return row

    return replace(
        rollouts,
        statistics=rollouts.statistics.map(lambda x: spread(x, 9)),
        response_mask=spread(rollouts.response_mask, False),
        tokens=spread(rollouts.tokens, 0),
        advantages=spread(rollouts.advantages, 0),
        token_texts=[texts(pieces) for pieces in rollouts.token_texts],
    ), columns


def assert_by_group(method: Method, seed: int = 0) -> None:
    """What a method makes of a group on the driver does not depend on the other groups of the step, nor their order."""
    rollouts = random_rollouts(seed)

    def made(seen: Rollouts) -> Tensor:
        seen = replace(seen, rewards=method.rewards(seen))
        return torch.cat([seen.rewards[:, None], method.advantages(seen)], dim=1)

    whole = made(rollouts)
    assert (whole != torch.cat([rollouts.rewards[:, None], rollouts.advantages], dim=1)).any()
    for groups in ([4], [1, 2], [2, 4], [2, 1, 4]):
        index = torch.cat([torch.nonzero(rollouts.group_id == group)[:, 0] for group in groups])
        torch.testing.assert_close(made(rollout_rows(rollouts, index)), whole[index], rtol=1e-12, atol=1e-14)


def rollout_rows(rollouts: Rollouts, index: Tensor) -> Rollouts:
    """The responses `index`, padded as before."""
    tensors = ("response_mask", "group_id", "tokens", "rewards", "advantages", "answer_ids", "resampled", "place")
    return replace(
        rollouts,
        statistics=rollouts.statistics.map(lambda x: x[index]),
        **{name: getattr(rollouts, name)[index] for name in tensors},
        token_texts=[rollouts.token_texts[i] for i in index.tolist()],
    )


def grpo(rewards: Tensor, prompt: Tensor) -> Tensor:
    """[B] GRPO advantages: (R - mean) / (std + 1e-6) over the group, sample std; 0 for a group of one."""
    out = torch.zeros_like(rewards)
    for p in prompt.unique().tolist():
        group = prompt == p
        if group.sum() > 1:
            out[group] = (rewards[group] - rewards[group].mean()) / (rewards[group].std() + 1e-6)
    return out


def isclose(a: float, b: float) -> bool:
    """Equal to 12 digits."""
    return math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-14)
