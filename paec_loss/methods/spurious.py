"""Rewards that do not depend on correctness, or reward a wrong answer, as controls."""

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

    random: 1 with probability `probability`, drawn from the run's seed, the step, the prompt and the response's place
    in its group. format: 1 if the response has an answer. incorrect: 1 if the response is wrong (graded reward not
    above 0) and gives the most frequent answer among the wrong ones, of equally frequent answers the first. none: 0, so
    that no advantage is left and another method's loss term acts alone (method=entropy_bonus also=spurious
    also.spurious.kind=none). To reward the majority's answer, use the method `ttrl`. To see what clipping does to
    random rewards, compare with a run without it: in actor_rollout_ref.actor clip_ratio_low=1 clip_ratio_high=1e9
    clip_ratio_c=1e9.
    """

    paper: ClassVar[str] = "Spurious Rewards, arXiv 2506.10947; Exploration v.s. Exploitation, arXiv 2512.16912"
    on_policy: ClassVar[str] = (
        "the same rewards, but nothing is clipped, and it is reportedly clipping that makes random rewards lower the "
        "entropy"
    )
    spans: ClassVar[str] = "the group, with kind=incorrect: the number of its responses in each class"
    released: ClassVar[str] = (
        "no code was compared; as published, format means a box in the response, and incorrect a fixed wrong label of "
        "the prompt, here the group's"
    )
    needs = {"answer_ids"}
    own_rewards: ClassVar[bool] = True
    binary_rewards = True

    kind: str = choice(("random", "format", "incorrect", "none"), "random", "what is rewarded")
    probability: float = between(0, 1, 0.5, "probability of the reward 1 with kind=random; 0 and 1 leave no advantage")

    def rewards(self, rollouts: Rollouts) -> Tensor:
        result = torch.zeros_like(rollouts.rewards)
        if self.kind == "none":
            return result
        answers, graded = rollouts.answer_ids, rollouts.rewards
        place = rollouts.place
        draws = token_uniform(rollouts.seed, rollouts.step, rollouts.group_id, int(place.max()) + 1)
        for group in rollouts.groups():
            if self.kind == "random":
                found = draws[group, place[group]] < self.probability
            elif self.kind == "format":
                found = answers[group] >= 0
            else:
                # A right response counts as one without an answer: it has no vote.
                found = largest_class(torch.where(graded[group] > 0, -1, answers[group]))
            result[group] = found.to(result.dtype)
        return result
