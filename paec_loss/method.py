"""An entropy method: a frozen dataclass of its fields, and the hooks around a training step that it overrides.

    I want to change ...                              override ...
    the order of the prompts                          `needs = {"curriculum"}`
    how some prompts' responses are drawn             `sampling`
    the rewards of a step's responses                 `rewards`
    the advantages of a step's responses              `advantages`
    the advantages of tokens, by the current policy   `token_advantages`
    which tokens the policy loss is averaged over     `selection`
    the clip range                                    `clip`
    the policy loss of every token                    `policy_loss`
    the loss, by a term added to the policy loss      `loss_term`

    I need ...                                        then ...
    a statistic over the full mini-batch              derive from `BatchMethod` and override `prepare`
    a number of every response, in the loss           override `response_value`: it is `Tokens.response_value`
    state between steps                               override `tracker`; its signal is in `Update.tracker_signal`,
                                                      and in `Rollouts.tracker_signal` of the hooks on the driver
    text, answers, a reference policy                 name them in `needs` (`NEEDS` lists the words)
    metrics of an update                              override `local_sums` and `metrics`
    a token page that shows more than it can derive   override `token_weights`

A complete method:

    from dataclasses import dataclass

    import torch

    from paec_loss import BatchMethod
    from paec_loss.fields import share


    @dataclass(frozen=True)
    class Calm(BatchMethod[float]):
        "Tokens of the highest entropy leave the update."

        top: float = share(0.01, "share of the mini-batch's tokens that leave")

        def prepare(self, batch, update):  # the whole mini-batch, all ranks, without gradient
            entropy = batch.masked(batch.entropy)
            staying = max(round((1 - self.top) * len(entropy)), 1)
            return entropy.kthvalue(staying).values.item() if len(entropy) else 0.0

        def token_advantages(self, tokens, context, update):  # a micro-batch; context is what `prepare` returned
            return torch.where(tokens.entropy > context, 0.0, tokens.advantages)

A hook sees padded tensors (`paec_loss.batch`) and knows nothing of trainers, ranks or micro-batches. The caller runs
`prepare` on the optimizer mini-batch as a whole, all ranks included, and hands its result to the hooks of the
micro-batches: a statistic "over the batch" can only be written in a way that does not depend on the split.

A hook acts where a class overrides it, even if the override only calls `super()`. The base hooks are neutral, so the
loss stays the same, but the run changes: `prepare` costs one more forward pass (with statistics_from=exact); `rewards`,
`advantages`, `response_value` and `tracker` read the log-prob pass, which then cannot be skipped; `policy_loss` and
`selection` put PPO's clipped surrogate in place of the trainer's; and only one method of a run may have `sampling`,
`rewards`, `response_value`, `clip`, `selection` or `policy_loss`. So override only what the method changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from paec_loss import _torch as torch
from paec_loss.batch import Clip, Rollouts, Tokens, Update
from paec_loss.fields import check_fields, choice
from paec_loss.hooks import check_hooks
from paec_loss.schedule import Schedule

if TYPE_CHECKING:
    from torch import Tensor

Context = TypeVar("Context")
"""What a method's `prepare` returns: a number, or a frozen dataclass for several values."""

NEEDS = {
    "text": "Rollouts.text, the decoded responses",
    "token_texts": "Rollouts.token_texts, the text of every token by itself",
    "answer_ids": "Rollouts.answer_ids, which responses give equivalent answers",
    "reference": "Tokens.ref_log_prob, the log-probs of a reference policy",
    "curriculum": "an ordering of the training data (data.curriculum)",
    "rewards": "Rollouts.rewards, the graded rewards, in Tracker.observe too",
}
"""Words allowed in `needs` -> what the method then gets."""

_FORMER = {
    "needs_reference": 'write needs = {"reference"}',
    "curriculum": 'write needs = {"curriculum"}',
    "report": "it is now called local_sums, and returns a dict",
    "carry": "this hook no longer exists",
}
"""Former names in a method, which would be ignored silently -> what to write instead."""


@dataclass(frozen=True)
class Sampling:
    """Different sampling for some prompts of a step: the last `share` of them, at `temperature`."""

    share: float
    temperature: float

    def __post_init__(self) -> None:
        """ValueError for a number that no sampler can use."""
        if not 0 <= self.share <= 1:
            raise ValueError(f"Sampling.share={self.share!r}: must be in [0, 1], the share of a step's prompts")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"Sampling.temperature={self.temperature!r}: must be positive and finite")


class Tracker(Protocol):
    """State of a method between steps. It lives on the driver, and is saved in every checkpoint."""

    def observe(self, rollouts: Rollouts) -> dict[str, float]:
        """Takes a step's responses, before its updates (in separate_async after them); returns metrics."""

    def signal(self, step: int) -> dict[str, float]:
        """What the method needs in `step`: `Update.tracker_signal`, `Rollouts.tracker_signal`, `Method.sampling`."""

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON types."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replaces the state; ValueError for an invalid state."""


@dataclass(frozen=True)
class Method(Generic[Context]):
    """Base of all methods: the clipped surrogate with nothing added. Override what a method changes.

    `Method[C]` is one whose `prepare` returns a C. Class attributes describe the method; docs/methods.md is generated
    from them.

    Raises:
        TypeError: a subclass is defined with a text as `needs`, with a word in it that is not in NEEDS, with a former
            name, or with what `paec_loss.hooks.check_hooks` refuses: a misspelt hook, or one with other parameters.
    """

    paper: ClassVar[str] = ""
    """Where it was published: name, arXiv number, equation."""
    on_policy: ClassVar[str] = ""
    """What it does if the ratio is 1 (one update per step)."""
    spans: ClassVar[str] = "none"
    """The statistic that spans the mini-batch (or the step), "none" for a method without one."""
    released: ClassVar[str] = ""
    """Where the released code differs from the published text, and which one this follows; "" if they agree."""

    needs: ClassVar[Set[str]] = frozenset()
    """What the run must provide, keys of NEEDS."""
    statistics_from: ClassVar[str] = "exact"
    """Where `prepare` takes the mini-batch from; a field of `BatchMethod`."""
    uses_clip: ClassVar[bool] = True
    """Whether `policy_loss` uses the clip range of `Update.clip`."""
    own_rewards: ClassVar[bool] = False
    """Whether `rewards` replaces the grades, by which DAPO's filter leaves out prompts: the filter is then refused.

    A method that changes the grades is not refused; if its rewards for equal grades can differ, its docstring says that
    with base=dapo these prompts are left out.
    """
    own_advantages: ClassVar[bool] = False
    """Whether `advantages` starts from the rewards, which discards the changes of the methods before it."""

    bounds_advantages: ClassVar[bool] = False
    """Whether `advantages` must see all changes of the methods before it: none of them may have `token_advantages`."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if isinstance(cls.needs, str):
            raise TypeError(f'{cls.__name__}.needs={cls.needs!r}: is a text: write needs = {{"{cls.needs}"}}')
        unknown = sorted(set(cls.needs) - set(NEEDS))
        if unknown:
            raise TypeError(f"{cls.__name__}.needs={cls.needs!r}: {unknown[0]!r} must be one of {', '.join(NEEDS)}")
        for name in _FORMER.keys() & vars(cls).keys():
            raise TypeError(f"{cls.__name__}.{name} has no effect: {_FORMER[name]}")
        check_hooks(cls, Method)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def top_p(self) -> float:
        """Nucleus mass of the token statistics; 1 is the full vocabulary, and costs nothing."""
        return 1.0

    @property
    def least_responses(self) -> int:
        """Responses to a prompt with fewer of which the method does nothing, or leaves nothing to learn from."""
        return 1

    @property
    def binary_rewards(self) -> bool:
        """Whether rewards are 1 for right responses, 0 for others: those that `rewards` makes, `advantages` needs."""
        return False

    # ---- schedules ---------------------------------------------------------------------------------------------------

    @property
    def unscheduled(self) -> Mapping[str, str]:
        """Numeric fields that cannot follow a schedule, because they are read once -> what they are."""
        return {}

    @property
    def schedules(self) -> dict[str, Schedule]:
        """The fields that follow a schedule, by name."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Schedule)}

    def at(self, step: int) -> Method[Context]:
        """The method with the numbers of a trainer step instead of schedules; `MethodStack` calls it for its hooks.

        Raises:
            ValueError: the numbers of this step contradict each other; one sentence.
        """
        schedules = self.schedules
        if not schedules:
            return self
        return replace(self, **{name: schedule.at(step) for name, schedule in schedules.items()})

    # ---- driver ------------------------------------------------------------------------------------------------------

    def sampling(self, tracker_signal: Mapping[str, float]) -> Sampling | None:
        """Different sampling for some prompts of the next step; None: the same for all."""
        return None

    def tracker(self) -> Tracker | None:
        """A new tracker, or None for a method without state."""
        return None

    def rewards(self, rollouts: Rollouts) -> Tensor:
        """[B] rewards in place of the graded ones; they go to the advantage estimator."""
        return rollouts.rewards

    def advantages(self, rollouts: Rollouts) -> Tensor:
        """[B, R] advantages in place of the estimator's."""
        return rollouts.advantages

    def response_value(self, rollouts: Rollouts) -> Tensor:
        """[B] one number per response, `Tokens.response_value`, from graded rewards and final advantages."""
        return torch.zeros(len(rollouts.response_mask), device=rollouts.response_mask.device)

    # ---- actor -------------------------------------------------------------------------------------------------------

    def clip(self, clip: Clip) -> Clip:
        """The clip range of the surrogate, from the actor's."""
        return clip

    def prepare(self, batch: Tokens, update: Update) -> Context:
        """What the hooks below need to know about the full mini-batch, `batch`, without gradient."""
        return None

    def token_advantages(self, tokens: Tokens, context: Context, update: Update) -> Tensor:
        """[B, R] advantages for the surrogate, without gradient."""
        return tokens.advantages

    def selection(self, tokens: Tokens, context: Context, update: Update) -> tuple[Tensor, int]:
        """[B, R] bool, tokens in the surrogate's mean, and how many there are in the full mini-batch."""
        return tokens.response_mask, update.tokens

    def policy_loss(self, tokens: Tokens, context: Context, update: Update) -> Tensor:
        """[B, R] loss of every token, with gradient; aggregated by actor.loss_agg_mode."""
        return clipped_surrogate(tokens, update.clip)

    def loss_term(self, tokens: Tokens, context: Context, update: Update) -> Tensor:
        """This micro-batch's share of a term of the mini-batch's loss, a scalar with gradient."""
        return torch.zeros((), dtype=tokens.log_prob.dtype, device=tokens.log_prob.device)

    # ---- metrics -----------------------------------------------------------------------------------------------------

    def local_sums(self, tokens: Tokens, context: Context, update: Update) -> dict[str, float]:
        """Sums over a micro-batch by name, the same names every time; the caller sums them for `metrics`."""
        return {}

    def metrics(self, context: Context, sums: Mapping[str, float], update: Update) -> dict[str, float]:
        """Metrics of an update from the `local_sums` of all micro-batches and ranks, summed by name."""
        return {}

    # ---- token page --------------------------------------------------------------------------------------------------

    def token_weights(self, tokens: Tokens, context: Context, update: Update) -> Tensor:
        """[B, R] weight >= 0 of every token in what the method adds, for `paec_loss.weights`; trainers never call it.

        Without it the weights are derived from the other hooks.
        """
        raise NotImplementedError

    def overrides(self, hook: str) -> bool:
        """Whether this method overrides a hook, even if the override only calls `super()`."""
        return getattr(type(self), hook) is not getattr(Method, hook)


@dataclass(frozen=True)
class BatchMethod(Method[Context]):
    """Base of methods with `prepare`: adds the field that selects the source of the mini-batch's statistics."""

    statistics_from: str = choice(
        ("exact", "step"),
        "exact",
        "source of statistics over the mini-batch: exact (one more forward pass) or step (the step's log-prob pass: "
        "free, and the same for the first update of a step)",
    )


DEVIATION_EPSILON = 1e-6
"""Added to a group's deviation before dividing by it, as in verl's GRPO."""


def clipped_surrogate(tokens: Tokens, clip: Clip) -> Tensor:
    """[B, R] PPO's dual-clip loss: max(-A r, -A clip(r)), and where A < 0 at most dual_clip |A| (arXiv 1912.09729)."""
    ratio, advantages = tokens.log_ratio.exp(), tokens.advantages
    loss = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip.low, 1 + clip.high))
    return dual_clipped(loss, advantages, clip.dual_clip)


def dual_clipped(loss: Tensor, advantages: Tensor, dual_clip: float) -> Tensor:
    """[B, R] `loss`, where A < 0 at most dual_clip |A|; unchanged if dual_clip is inf."""
    if math.isinf(dual_clip):
        return loss
    return torch.where(advantages < 0, torch.minimum(loss, -advantages * dual_clip), loss)
