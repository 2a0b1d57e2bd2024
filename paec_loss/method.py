"""What an entropy method is: a frozen dataclass of its fields, and hooks around one training step, each optional.

A hook sees padded tensors and knows nothing of trainers, ranks or micro-batches. In the order of a step:

    order     of the prompts                      O   `curriculum`
    sampling  of some prompts' responses          S   `sampling`
    tracker   what is remembered between steps        `tracker`
    rewards   of the responses of a step          R   `rewards`
    advantages of the responses of a step         D   `advantages`
    prepare   statistics over a whole mini-batch      `prepare`
    weights   of the actor's tokens               L   `token_advantages`, `selection`
    surrogate of the actor's tokens               P   `clip`, `policy_loss`
    term      beside the policy loss              L   `loss_term`

The caller runs `prepare` on the optimizer mini-batch as a whole, all ranks included, and hands its result to the hooks
of the micro-batches: a statistic "over the batch" can only be written in a way that does not depend on the split.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from paec_loss import _torch as torch
from paec_loss.fields import check_fields

if TYPE_CHECKING:
    from torch import Tensor

    from paec_loss.statistics import TokenStatistics

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to this on both sides before exp, as in verl's own surrogates."""


@dataclass(frozen=True)
class Clip:
    """Clip range of the surrogate: ratios in [1 - low, 1 + high]; where A < 0 the loss is at most dual * |A|.

    `low` and `high` may be tensors [B, R], a range for every token.
    """

    low: float | Tensor
    high: float | Tensor
    dual: float


@dataclass(frozen=True)
class Update:
    """One optimizer update, the same on every rank and for every micro-batch."""

    step: int
    """Trainer step, from 1."""
    seed: int
    """Of the run."""
    tokens: int
    """Response tokens of the mini-batch, all ranks."""
    clip: Clip
    """Clip range of the surrogate."""
    signal: Mapping[str, float] = field(default_factory=dict)
    """What the method's tracker says about this step."""


class _Padded:
    """What `Tokens` and `Rollouts` share: statistics of padded rows, and which places are response tokens."""

    statistics: TokenStatistics
    response_mask: Tensor

    @property
    def log_prob(self) -> Tensor:
        """[B, R] log-prob of the response's tokens, nats, with the gradient of `statistics`."""
        return self.statistics.log_prob

    @property
    def entropy(self) -> Tensor:
        """[B, R] entropy over the vocabulary, nats, with the gradient of `statistics`."""
        return self.statistics.entropy

    def masked(self, values: Tensor) -> Tensor:
        """[N] the values of the response tokens, in float64 and without gradient: for statistics."""
        return values.detach()[self.response_mask].double()

    def mean(self, values: Tensor) -> float:
        """Mean over the response tokens in float64, without gradient; 0 when there are none."""
        inside = self.masked(values)
        return inside.mean().item() if inside.numel() else 0.0


@dataclass(frozen=True)
class Tokens(_Padded):
    """Response tokens, [B, R], padded on the right: a micro-batch with gradient, or a whole mini-batch without.

    What padded places hold is arbitrary: use `response_mask`, or the helpers, which do.
    """

    statistics: TokenStatistics
    """Of the current policy (temperature of the rollout); padded places hold zeros."""
    old_log_prob: Tensor
    """[B, R] log-prob under the policy at the start of the step, nats."""
    advantages: Tensor
    """[B, R]."""
    response_mask: Tensor
    """[B, R] bool."""
    response: Tensor
    """[B] int64, which response; the same number wherever it is processed."""
    ref_log_prob: Tensor | None = None
    """[B, R] log-prob under the reference policy; None without one (`needs_reference`)."""

    @property
    def log_ratio(self) -> Tensor:
        """[B, R] log of the importance ratio, clamped to +-20."""
        return (self.log_prob - self.old_log_prob).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)

    def total(self, values: Tensor) -> Tensor:
        """Sum over the response tokens, float64 scalar, with gradient; whatever stands at padding has no effect."""
        return torch.where(self.response_mask, values, 0.0).sum(dtype=torch.float64)


@dataclass(frozen=True)
class Rollouts(_Padded):
    """All responses that the driver processes together, [B, R], after the log-prob pass: no gradient anywhere.

    A step's responses, in mode separate_async a mini-batch's.
    """

    statistics: TokenStatistics
    """Of the policy at the start of the step."""
    response_mask: Tensor
    """[B, R] bool; a row without any token is padding."""
    prompt: Tensor
    """[B] int64: responses with the same number are one group."""
    step: int
    """Trainer step, from 1."""
    seed: int
    """Of the run."""
    tokens: Tensor
    """[B, R] int64, token ids."""
    rewards: Tensor | None = None
    """[B], known to `rewards`, `advantages`."""
    advantages: Tensor | None = None
    """[B, R] of the estimator (GRPO unless told otherwise), known to `advantages`."""
    text: list[str] | None = None
    """B decoded responses, where the method says `needs = {"text"}`."""
    pieces: list[list[str]] | None = None
    """B lists, the text of every token by itself; `needs = {"pieces"}`."""
    clusters: Tensor | None = None
    """[B] int64: equal numbers in one group are equivalent answers (math_verify); `needs = {"clusters"}`."""
    apart: Tensor | None = None
    """[B] bool, responses that `sampling` drew in its own way; None: none."""

    @property
    def lengths(self) -> Tensor:
        """[B] int64, number of response tokens."""
        return self.response_mask.sum(-1)

    def response_mean(self, values: Tensor) -> Tensor:
        """[B] float64 mean over each response's tokens; 0 for one without tokens."""
        total = torch.where(self.response_mask, values, 0.0).sum(-1, dtype=torch.float64)
        return total / self.lengths.clamp_min(1)

    def at_tokens(self, values: Tensor) -> Tensor:
        """[B, R] `values` ([B], one a response, or [B, R]) at the tokens, 0 at padding, in the advantages' dtype."""
        wide = values[:, None] if values.dim() == 1 else values
        return torch.where(self.response_mask, wide.to(self.advantages.dtype), 0.0)

    def groups(self) -> list[Tensor]:
        """Row numbers of each group, padding rows left out, in the order of `prompt`."""
        real = self.lengths > 0
        return [torch.nonzero((self.prompt == p) & real)[:, 0] for p in self.prompt[real].unique().tolist()]


@dataclass(frozen=True)
class Sampling:
    """Some prompts of a step drawn in another way: the last `share` of them, at `temperature`."""

    share: float
    temperature: float


class Tracker(Protocol):
    """What a method remembers between steps. It lives on the driver; its state is in every checkpoint."""

    def observe(self, rollouts: Rollouts) -> dict[str, float]:
        """Takes a step's responses, before its updates (in separate_async after them); returns metrics."""

    def signal(self, step: int) -> dict[str, float]:
        """What the updates of `step` need to know (`Update.signal`, `Method.sampling`)."""

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON types."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replaces the state; ValueError for what no run can have written."""


@dataclass(frozen=True)
class Method:
    """Base of all methods: the clipped surrogate, nothing added. Override what a method changes.

    Class attributes describe it; docs/methods.md is made from them.
    """

    paper: ClassVar[str] = ""
    """Where it was published: name, arXiv number, equation."""
    on_policy: ClassVar[str] = ""
    """What it does where the ratio is 1 (one update a step)."""
    spans: ClassVar[str] = "none"
    """The statistic that spans the mini-batch (or the step), "none" for a method without one."""
    released: ClassVar[str] = ""
    """Where the released code differs from the published text, and which of the two this is; "" where it does not."""

    statistics: ClassVar[str] = "exact"
    """Where `prepare` takes the mini-batch from; a field of `BatchMethod`."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """Of "text", "pieces" and "clusters", what `Rollouts` must bring."""
    needs_reference: ClassVar[bool] = False
    """Whether `Tokens.ref_log_prob` must be there."""
    uses_clip: ClassVar[bool] = True
    """Whether `policy_loss` has the clip range of `Update.clip`."""
    own_advantages: ClassVar[bool] = False
    """Whether `advantages` is made from the rewards, so that what methods before it did is lost."""
    curriculum: ClassVar[bool] = False
    """Whether the training data must have an order (data.curriculum)."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def top_p(self) -> float:
        """Nucleus mass of the token statistics; 1 is the whole vocabulary, and costs nothing."""
        return 1.0

    # ---- driver ------------------------------------------------------------------------------------------------------

    def sampling(self, signal: Mapping[str, float]) -> Sampling | None:
        """How some prompts of the next step are drawn in another way; None: all alike."""
        return None

    def tracker(self) -> Tracker | None:
        """A new tracker, or None for a method without memory."""
        return None

    def rewards(self, rollouts: Rollouts) -> Tensor:
        """[B] rewards in place of the graded ones; they go to the advantage estimator."""
        return rollouts.rewards

    def advantages(self, rollouts: Rollouts) -> Tensor:
        """[B, R] advantages in place of the estimator's."""
        return rollouts.advantages

    # ---- actor -------------------------------------------------------------------------------------------------------

    def clip(self, clip: Clip) -> Clip:
        """The clip range of the surrogate, from the actor's."""
        return clip

    def prepare(self, batch: Tokens, update: Update) -> Any:
        """Anything that the hooks below need to know about the whole mini-batch, `batch`, without gradient."""
        return None

    def carry(self, context: Any, totals: list[float], update: Update) -> Any:
        """Instead of `prepare` with statistics=lagged: from the previous mini-batch's context and `report` totals."""
        raise NotImplementedError

    def token_advantages(self, tokens: Tokens, context: Any, update: Update) -> Tensor:
        """[B, R] advantages for the surrogate, without gradient."""
        return tokens.advantages

    def selection(self, tokens: Tokens, context: Any, update: Update) -> tuple[Tensor, int]:
        """[B, R] bool, tokens in the surrogate's mean, and how many there are in the whole mini-batch."""
        return tokens.response_mask, update.tokens

    def policy_loss(self, tokens: Tokens, context: Any, update: Update) -> Tensor:
        """[B, R] loss of every token, with gradient; aggregated by actor.loss_agg_mode."""
        return clipped_surrogate(tokens, update.clip)

    def loss_term(self, tokens: Tokens, context: Any, update: Update) -> Tensor:
        """This micro-batch's share of a term of the mini-batch's loss, a scalar with gradient."""
        raise NotImplementedError

    # ---- metrics -----------------------------------------------------------------------------------------------------

    def report(self, tokens: Tokens, context: Any, update: Update) -> list[float]:
        """Sums over a micro-batch (the same number of them always) that `metrics` needs over the mini-batch."""
        return []

    def metrics(self, context: Any, totals: list[float], update: Update) -> dict[str, float]:
        """Metrics of an update from the totals of `report` over all micro-batches and ranks."""
        return {}

    def overrides(self, hook: str) -> bool:
        """Whether this method has a hook of its own."""
        return getattr(type(self), hook) is not getattr(Method, hook)


@dataclass(frozen=True)
class BatchMethod(Method):
    """Base of methods with `prepare`: what it is told about the mini-batch."""

    statistics: str = field(
        default="exact",
        metadata={
            "kind": str,
            "options": ("exact", "step"),
            "meaning": "source of statistics over the mini-batch: exact (one more forward pass) or step (the step's "
            "log-prob pass: free, and the same for the first update of a step)",
        },
    )


def clipped_surrogate(tokens: Tokens, clip: Clip) -> Tensor:
    """[B, R] PPO's dual-clip loss: max(-A r, -A clip(r)), and where A < 0 at most dual |A| (arXiv 1912.09729)."""
    ratio, advantages = tokens.log_ratio.exp(), tokens.advantages
    loss = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip.low, 1 + clip.high))
    if math.isinf(clip.dual):
        return loss
    return torch.where(advantages < 0, torch.minimum(loss, -advantages * clip.dual), loss)


def joined(parts: list[Rollouts]) -> Rollouts:
    """All responses of `parts` (at least one, of one step) together, padded to the longest."""
    if len(parts) == 1:
        return parts[0]
    from paec_loss.statistics import TokenStatistics

    length = max(part.response_mask.shape[1] for part in parts)

    def join(values: list[Any]) -> Any:
        first = values[0]
        if isinstance(first, TokenStatistics):
            names = [f.name for f in fields(first) if f.name != "vocab_size"]
            return replace(first, **{name: join([getattr(v, name) for v in values]) for name in names})
        if isinstance(first, torch.Tensor):
            wide = first.dim() == 2
            return torch.cat([torch.nn.functional.pad(v, (0, length - v.shape[1])) if wide else v for v in values])
        return sum(values, []) if isinstance(first, list) else first

    return Rollouts(**{f.name: join([getattr(part, f.name) for part in parts]) for f in fields(Rollouts)})
