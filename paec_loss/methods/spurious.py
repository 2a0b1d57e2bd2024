"""Rewards that say nothing about the truth, as controls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts
from paec_loss.fields import between, choice
from paec_loss.method import Method
from paec_loss.randomness import token_uniform
from paec_loss.semantic import largest_class

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Spurious(Method):
    """Reward 1 or 0 in place of the graded one: at random, for any answer, for the most frequent wrong one, or never.

    random: 1 with probability `probability`, by the run's seed, the step, the prompt and the place of the response in
    its group. format: 1 if the response has an answer. incorrect: 1 if its graded reward is not above 0 and its answer
    is the most frequent one of these responses; of equally frequent ones that of the first. none: 0, so that no
    advantage is left and another method's loss term acts alone (method=entropy_bonus also=spurious
    also.spurious.kind=none). The majority's answer is the method `ttrl`. What clipping does to random rewards is shown
    by a run without it: in actor_rollout_ref.actor clip_ratio_low=1 clip_ratio_high=1e9 clip_ratio_c=1e9.
    """

    paper: ClassVar[str] = "Spurious Rewards, arXiv 2506.10947; Exploration v.s. Exploitation, arXiv 2512.16912"
    on_policy: ClassVar[str] = (
        "the same rewards, but nothing is clipped, and it is clipping that makes random rewards lower the entropy, as "
        "reported"
    )
    spans: ClassVar[str] = "the group, with kind=incorrect: the number of its responses in each class"
    released: ClassVar[str] = (
        "no code was compared; published: format is a box in the response, incorrect a fixed wrong label of the "
        "prompt, here the group's"
    )
    needs = {"answer_ids"}

    kind: str = choice(("random", "format", "incorrect", "none"), "random", "what is rewarded")
    probability: float = between(0, 1, 0.5, "probability of the reward 1 with kind=random; 0 and 1 leave no advantage")

    def rewards(self, rollouts: Rollouts) -> Tensor:
        result = torch.zeros_like(rollouts.rewards)
        if self.kind == "none":
            return result
        answers, graded = rollouts.answer_ids, rollouts.rewards
        draws = token_uniform(rollouts.seed, rollouts.step, rollouts.group_id, len(graded))
        for group in rollouts.groups():
            if self.kind == "random":
                found = draws[group, torch.arange(len(group), device=group.device)] < self.probability
            elif self.kind == "format":
                found = answers[group] >= 0
            else:
                # A right response is as one without an answer: it has no vote.
                found = largest_class(torch.where(graded[group] > 0, -1, answers[group]))
            result[group] = found.to(result.dtype)
        return result
