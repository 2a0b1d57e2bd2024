"""What hooks see: the response tokens of a mini-batch or a micro-batch, and the responses of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from paec_loss import _torch as torch

if TYPE_CHECKING:
    from torch import Tensor

    from paec_loss.statistics import TokenStatistics

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to this on both sides before exp, as in verl's own surrogates."""

OF_RESPONSES = ("response_id", "response_value", "group_id", "rewards", "answer_ids", "resampled", "place")
"""Fields of `Tokens` and `Rollouts` with one number for each response, [B]; the other tensors are [B, R]."""

NO_SIGNAL: Mapping[str, float] = {}
"""The default of `Update.tracker_signal`, known by its identity: nobody asked a tracker. Another {} is a signal."""


@dataclass(frozen=True)
class Clip:
    """Clip range of the surrogate: ratios in [1 - low, 1 + high]; where A < 0 the loss is at most dual_clip * |A|.

    `low` and `high` may be tensors [B, R], with a range for every token.
    """

    low: float | Tensor
    high: float | Tensor
    dual_clip: float


@dataclass(frozen=True)
class Update:
    """One optimizer update, the same on every rank and for every micro-batch."""

    step: int
    """Trainer step, from 1."""
    seed: int
    """Seed of the run."""
    tokens: int
    """Response tokens of the mini-batch, all ranks."""
    clip: Clip
    """Clip range of the surrogate."""
    tracker_signal: Mapping[str, float] = field(default_factory=lambda: NO_SIGNAL)
    """Signal of the method's tracker for this step (`Tracker.signal`); empty for a method without one.

    The default is refused for a method that has hooks before the loss (`MethodStack.prepare`).
    """


class _Padded:
    """Common part of `Tokens` and `Rollouts`: statistics of padded rows, and which positions are response tokens."""

    statistics: TokenStatistics
    response_mask: Tensor

    def __post_init__(self) -> None:
        """ValueError for a mask that is not bool, or a tensor of another shape; it waits for no device."""
        mask = self.response_mask
        if mask.dtype != torch.bool:
            raise ValueError(f"response_mask has dtype {mask.dtype}: must be bool; write response_mask.bool()")
        if mask.dim() != 2:
            raise ValueError(f"response_mask has shape {list(mask.shape)}: must be [B, R], responses by tokens")
        found = vars(self.statistics) if self.statistics else {}  # None where no hook reads any
        given = {f"statistics.{name}": value for name, value in found.items()}
        for name, value in (given | vars(self)).items():
            text, wanted = ("[B]", mask.shape[:1]) if name in OF_RESPONSES else ("[B, R]", mask.shape)
            if isinstance(value, torch.Tensor) and value.shape != wanted:
                raise ValueError(
                    f"{name} has shape {list(value.shape)}: must be {text}, here {list(wanted)} as in response_mask"
                )

    @property
    def log_prob(self) -> Tensor:
        """[B, R] log-prob of the response's tokens, nats, with the gradient of `statistics`."""
        return self.statistics.log_prob

    @property
    def entropy(self) -> Tensor:
        """[B, R] entropy over the vocabulary, nats, with the gradient of `statistics`."""
        return self.statistics.entropy

    def masked(self, values: Tensor) -> Tensor:
        """[N] values of the response tokens, for statistics: float64, without gradient."""
        return values.detach()[self.response_mask].double()

    def mean(self, values: Tensor) -> float:
        """Mean over the response tokens in float64, without gradient; 0 when there are none."""
        inside = self.masked(values)
        return inside.mean().item() if inside.numel() else 0.0

    @property
    def lengths(self) -> Tensor:
        """[B] int64, number of response tokens."""
        return self.response_mask.sum(-1)

    def response_sum(self, values: Tensor) -> Tensor:
        """[B] float64 sum over each response's tokens, with their gradient; 0 for one without tokens."""
        return torch.where(self.response_mask, values, 0.0).sum(-1, dtype=torch.float64)

    def response_mean(self, values: Tensor) -> Tensor:
        """[B] float64 mean over each response's tokens, with their gradient; 0 for one without tokens."""
        return self.response_sum(values) / self.lengths.clamp_min(1)


@dataclass(frozen=True)
class Tokens(_Padded):
    """Response tokens, [B, R], padded on the right: a micro-batch with gradient, or a full mini-batch without.

    Values at padding are arbitrary: use `response_mask`, or the helpers, which use it.
    """

    statistics: TokenStatistics
    """Token statistics [B, R] of the current policy at the rollout's temperature; zeros at padding."""
    old_log_prob: Tensor
    """[B, R] log-prob under the policy at the start of the step, nats."""
    advantages: Tensor
    """[B, R] advantages, without gradient."""
    response_mask: Tensor
    """[B, R] bool, True at response tokens."""
    response_id: Tensor
    """[B] int64, the number of the response: the same wherever it is processed."""
    ref_log_prob: Tensor | None = None
    """[B, R] log-prob under the reference policy, nats; None if the run has none (`needs = {"reference"}`)."""
    response_value: Tensor | None = None
    """[B] one number per response, from the hook of that name; None if no method has it."""

    def __post_init__(self) -> None:
        """ValueError as for every batch, and for a constant with a gradient, which would cancel that of the policy."""
        super().__post_init__()
        for name in ("old_log_prob", "advantages", "ref_log_prob"):
            value = vars(self)[name]
            if isinstance(value, torch.Tensor) and value.requires_grad:
                raise ValueError(f"{name} has a gradient: write {name}.detach()")

    @property
    def log_ratio(self) -> Tensor:
        """[B, R] log of the importance ratio, clamped to +-20."""
        return (self.log_prob - self.old_log_prob).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)

    @property
    def self_ratio(self) -> Tensor:
        """[B, R] p / sg(p): 1, with the gradient of log_prob. Multiply it by constant weights to get a surrogate."""
        return (self.log_prob - self.log_prob.detach()).exp()

    def total(self, values: Tensor) -> Tensor:
        """Sum over the response tokens, float64 scalar, with gradient; values at padding have no effect."""
        return torch.where(self.response_mask, values, 0.0).sum(dtype=torch.float64)


@dataclass(frozen=True)
class Rollouts(_Padded):
    """All responses that the driver processes together, [B, R], after the log-prob pass: no gradient anywhere.

    These are the responses of a step, or of a mini-batch in mode separate_async.
    """

    statistics: TokenStatistics
    """Token statistics [B, R] of the policy at the start of the step."""
    response_mask: Tensor
    """[B, R] bool; a row without any token is padding."""
    group_id: Tensor
    """[B] int64, the number of the prompt: responses with the same number are one group."""
    step: int
    """Trainer step, from 1."""
    seed: int
    """Seed of the run."""
    tokens: Tensor
    """[B, R] int64, token ids."""
    rewards: Tensor | None = None
    """[B] graded rewards; after the hook `rewards`, those that it returned.

    In `Tracker.observe` always graded, and None unless a method has `needs = {"rewards"}`.
    """
    advantages: Tensor | None = None
    """[B, R] advantages of the estimator (GRPO by default); None outside the hook `advantages`."""
    text: list[str] | None = None
    """B decoded responses; None unless a method has `needs = {"text"}`."""
    token_texts: list[list[str]] | None = None
    """B lists, the text of every single token; None unless a method has `needs = {"token_texts"}`."""
    answer_ids: Tensor | None = None
    """[B] int64: equal numbers in one group are equivalent answers (math_verify); `needs = {"answer_ids"}`.

    A response without an answer has a negative number that no other response has.
    """
    resampled: Tensor | None = None
    """[B] bool, True for responses drawn with the method's own `sampling`; None if no method has that hook."""
    tracker_signal: Mapping[str, float] = field(default_factory=dict)
    """Signal of the method's tracker for this step in the hooks `rewards`, `advantages`, `response_value`; else empty.

    These hooks run after the step's `Tracker.observe`, or before it (separate_async, TRL's rewards), so their signal
    must not depend on the order.
    """
    place: Tensor | None = None
    """[B] int64, the number of the response within its group, from 0, wherever its row is in the batch.

    None: the order of the rows.
    """

    max_response_length: int | None = None
    """Tokens after which the rollout cuts a response off; None if there is no limit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.place is None:
            place = torch.zeros_like(self.group_id, dtype=torch.int64)
            for group in self._members():
                place[group] = torch.arange(len(group), device=place.device)
            object.__setattr__(self, "place", place)

    @property
    def cut(self) -> Tensor:
        """[B] bool, responses as long as `max_response_length`.

        One that ended by itself at just that length is among them.
        """
        if self.max_response_length is None:
            return torch.zeros_like(self.lengths, dtype=torch.bool)
        return self.ends >= self.max_response_length

    @property
    def ends(self) -> Tensor:
        """[B] int64, columns up to a response's last token: its length with what tools wrote before that token."""
        return (self.response_mask.flip(-1).cumsum(-1) > 0).sum(-1)

    def at_tokens(self, values: Tensor) -> Tensor:
        """[B, R] `values` ([B], one per response, or [B, R]) at the tokens, 0 at padding, in the advantages' dtype."""
        wide = values[:, None] if values.dim() == 1 else values
        return torch.where(self.response_mask, wide.to(self.advantages.dtype), 0.0)

    def groups(self) -> list[Tensor]:
        """Row numbers of each group, padding rows left out, in the order of `group_id`; within a group by `place`."""
        return [rows[self.place[rows].argsort(stable=True)] for rows in self._members()]

    def _members(self) -> list[Tensor]:
        """The same in the order of the rows."""
        real = self.lengths > 0
        return [torch.nonzero((self.group_id == g) & real)[:, 0] for g in self.group_id[real].unique().tolist()]


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
