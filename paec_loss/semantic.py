"""Semantic entropy of a group of responses: over their answers, with equivalent ones merged (arXiv 2302.09664)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paec_loss import _torch as torch

if TYPE_CHECKING:
    from torch import Tensor


def cluster_probabilities(answer_ids: Tensor, log_prob: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """P(C) of every cluster of a group, [C] float64, and each response's index into it, [M] int64.

    Args:
        answer_ids: [M] int64, at least one; responses with equal numbers gave equivalent answers.
        log_prob: [M] log-prob of every full response (the sum over its tokens), nats, finite: P(C) is
            proportional to the summed probability of its responses. None: proportional to their number.
    """
    found, index = answer_ids.unique(return_inverse=True)
    weight = torch.zeros(len(answer_ids)) if log_prob is None else log_prob.detach()
    weight = weight.to(answer_ids.device, torch.float64)
    total = torch.stack([weight[index == c].logsumexp(0) for c in range(len(found))])
    return total.softmax(0), index


def semantic_entropy(answer_ids: Tensor, log_prob: Tensor | None = None) -> float:
    """-sum over clusters C of P(C) log P(C), nats, in [0, log of the number of clusters]; arguments as above."""
    probabilities, _ = cluster_probabilities(answer_ids, log_prob)
    return torch.special.entr(probabilities).sum().item()


def largest_class(answer_ids: Tensor) -> Tensor:
    """[M] bool, the responses of a group whose answer is its most frequent one; none if no response has an answer.

    Args:
        answer_ids: [M] int64, at least one; responses with equal numbers gave equivalent answers, negative ones none.
            Among equally frequent answers, the first counts.
    """
    same = (answer_ids[:, None] == answer_ids) & (answer_ids >= 0)
    return same[same.sum(-1).argmax()]
