"""Which tokens a method singles out, and by how much, for records and pages after training.

The numbers come from the method's own hooks. A method defines them itself (`Method.token_weights`), or they are
derived, at ratio 1, from what its hooks do to the advantages, to the surrogate or in the loss term.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts, Tokens, Update
from paec_loss.method import Method

if TYPE_CHECKING:
    from torch import Tensor

    from paec_loss.statistics import TokenStatistics

PROBES = 3
"""Random advantages under which a factor must be the same to count as independent of them."""
TOLERANCE = 1e-9

WORDS = {
    "advantages": "the advantages of the responses",
    "rewards": "the rewards of the responses",
    "response_value": "a number of every response",
    "ref_log_prob": "the log-probs of a reference policy",
    "answer_ids": "which answers are equivalent",
    "text": "the text of the responses",
    "token_texts": "the text of the tokens",
    "max_response_length": "the length at which responses are cut off",
}
"""Optional field of `Tokens` or `Rollouts` -> what it is, in `Missing`."""


class Missing(ValueError):
    """A method's weights need something that is not known of the tokens; the message says what."""


class NoWeights(ValueError):
    """The method does not tell the tokens of a response apart; the message says why."""


@dataclass(frozen=True)
class TokenWeights:
    """What a method does to each token."""

    values: Tensor
    """[B, R] float64; `neutral` at padding."""
    neutral: float
    """The value of a token that the method leaves as it is: 0 for a mask, 1 for a factor."""
    meaning: str
    """What the values are, in a few words."""


class _KnownTokens(Tokens):
    """Tokens whose optional fields are unknown where they are None: reading one raises Missing."""

    def __getattribute__(self, name: str) -> Any:
        return _known(name, super().__getattribute__(name))


class _KnownRollouts(Rollouts):
    """The same for responses."""

    def __getattribute__(self, name: str) -> Any:
        return _known(name, super().__getattribute__(name))


def _known(name: str, value: Any) -> Any:
    if value is None and name in WORDS:
        raise Missing(f"needs {WORDS[name]}")
    return value


class _Memory(dict[str, float]):
    """A tracker's signal in which an absent entry is unknown: reading it raises Missing."""

    def __missing__(self, name: str) -> float:
        raise Missing(f"needs what the method remembers of earlier steps ({name})")


def at_nucleus(statistics: TokenStatistics, top_p: float, method: Method) -> TokenStatistics:
    """`statistics`, made with a nucleus of mass `top_p`, as `method` would have them in training.

    Raises:
        Missing: the method has a nucleus of another mass.
    """
    if method.top_p == top_p:
        return statistics
    if method.top_p < 1:
        has = "none" if top_p == 1 else f"one of {top_p:g}"
        raise Missing(f"needs a nucleus of mass {method.top_p:g}, here is {has}")
    return replace(
        statistics,
        nucleus_entropy=statistics.entropy,
        nucleus_size=torch.full_like(statistics.nucleus_size, statistics.vocab_size),
        nucleus_mass=torch.ones_like(statistics.nucleus_mass),
    )


def weights_of(method: Method, rollouts: Rollouts, response_id: Tensor, update: Update) -> TokenWeights:
    """What `method` does to the tokens of these responses, taken as the mini-batch, at ratio 1.

    Args:
        method: any method, of the catalogue or a user's.
        rollouts: the responses; fields that are not known are None (advantages are the estimator's).
        response_id: [B] int64, the responses' numbers, as in training.
        update: the update; its clip range is that of the surrogate.

    Raises:
        Missing: something the method reads is not known.
        NoWeights: the method does not act on single tokens.
    """
    method = method.at(update.step)
    signal = _Memory(update.tracker_signal)
    known = _KnownRollouts(**{**vars(rollouts), "tracker_signal": signal})
    tokens = _tokens(rollouts, response_id, vars(rollouts)["advantages"])
    if method.overrides("response_value"):
        tokens = type(tokens)(**{**vars(tokens), "response_value": method.response_value(known)})
    update = replace(update, tracker_signal=signal)
    context = method.prepare(tokens, update) if method.overrides("prepare") else None
    inside = rollouts.response_mask

    def made(values: Tensor, neutral: float, meaning: str) -> TokenWeights:
        values = torch.where(inside, values.detach().double(), neutral)
        if values.isnan().any():
            raise Missing("has no weights: a statistic of these tokens is NaN")
        return TokenWeights(values, neutral, meaning)

    if method.overrides("token_weights"):
        return made(method.token_weights(tokens, context, update), 0.0, "weight in the method's term")
    if method.overrides("selection"):
        return made(method.selection(tokens, context, update)[0], 0.0, "1: in the policy loss, 0: left out")
    if method.overrides("token_advantages"):
        return _change(lambda a: method.token_advantages(_with(tokens, a), context, update), tokens, made)
    if method.overrides("advantages"):
        return _change(lambda a: method.advantages(_with(known, a)), tokens, made)
    if method.overrides("policy_loss"):
        change = _change(lambda a: _effective(method, _with(tokens, a), context, update), tokens, made)
        if change.neutral == 1 and (change.values - 1).abs().max() < TOLERANCE:
            raise NoWeights("its policy loss is the plain policy gradient at ratio 1")
        return change
    if method.overrides("loss_term"):
        found = _gradient(method, tokens, context, update)
        largest = found.max().item() if found.numel() else 0.0
        if largest == 0:
            raise NoWeights("its loss term has no gradient at these tokens")
        return made(found / largest, 0.0, "gradient of the method's term, as a share of the largest")
    raise NoWeights(_reason(method))


def _reason(method: Method) -> str:
    if method.overrides("clip"):
        return "changes the clip range only: at ratio 1 no token is clipped"
    acts = {"rewards": "rewards of whole responses", "sampling": "how prompts are sampled"}
    found = [what for hook, what in acts.items() if method.overrides(hook)]
    return f"changes {' and '.join(found)}" if found else "adds nothing to the surrogate"


def _tokens(rollouts: Rollouts, response_id: Tensor, advantages: Any) -> Tokens:
    return _KnownTokens(
        statistics=rollouts.statistics,
        old_log_prob=rollouts.log_prob,
        advantages=advantages,  # None: not known
        response_mask=rollouts.response_mask,
        response_id=response_id,
    )


def _with(batch: Any, advantages: Tensor) -> Any:
    return type(batch)(**{**vars(batch), "advantages": advantages})


def _change(
    changed: Callable[[Tensor], Tensor], tokens: Tokens, made: Callable[[Tensor, float, str], TokenWeights]
) -> TokenWeights:
    """Weights from how advantages A [B, R] become `changed(A)`: a factor, or a shift in units of |A|.

    The first of the two that is the same for random advantages; else the factor at the responses' advantages, 1 where A
    is 0.
    """
    inside = tokens.response_mask
    generator = torch.Generator().manual_seed(0)
    probes = []
    for _ in range(PROBES):
        drawn = torch.randn(inside.shape, generator=generator, dtype=torch.float64)
        probes.append(drawn.sign() * (drawn.abs() + 0.1))
    results = [changed(probe).double() for probe in probes]
    factors = [result / probe for result, probe in zip(results, probes, strict=True)]
    if _equal(factors, inside):
        return made(factors[0], 1.0, "factor of the advantage")
    shifts = [(result - probe) / probe.abs() for result, probe in zip(results, probes, strict=True)]
    if _equal(shifts, inside):
        return made(shifts[0], 0.0, "added to the advantage, in units of its size")
    own = tokens.advantages.double()  # raises Missing where they are not known
    ratio = torch.where(own == 0, 1.0, changed(own).double() / torch.where(own == 0, 1.0, own))
    return made(ratio, 1.0, "factor of the advantage, 1 where it is 0")


def _equal(found: list[Tensor], inside: Tensor) -> bool:
    first = found[0][inside]
    return all(torch.allclose(first, other[inside], rtol=TOLERANCE, atol=TOLERANCE) for other in found[1:])


def _leaf(tokens: Tokens) -> Tokens:
    """The tokens with statistics that are leaves with gradient, in float64."""
    own = vars(tokens)["statistics"]
    names = ("log_prob", "entropy", "nucleus_entropy")
    leaves = {name: getattr(own, name).detach().double().requires_grad_() for name in names}
    return type(tokens)(**{**vars(tokens), "statistics": replace(own, **leaves)})


def _effective(method: Method, tokens: Tokens, context: Any, update: Update) -> Tensor:
    """[B, R] the advantage with which plain policy gradient would have the gradient of the method's policy loss."""
    leaf = _leaf(tokens)
    loss = torch.where(leaf.response_mask, method.policy_loss(leaf, context, update), 0.0).sum()
    return -torch.autograd.grad(loss, leaf.statistics.log_prob)[0]


def _gradient(method: Method, tokens: Tokens, context: Any, update: Update) -> Tensor:
    """[B, R] size of the gradient of the method's loss term in a token's log-prob, entropy and nucleus entropy."""
    leaf = _leaf(tokens)
    term = method.loss_term(leaf, context, update)
    if not term.requires_grad:
        return torch.zeros_like(leaf.entropy)
    leaves = [leaf.statistics.log_prob, leaf.statistics.entropy, leaf.statistics.nucleus_entropy]
    found = torch.autograd.grad(term, leaves, allow_unused=True)
    return sum((one.abs() for one in found if one is not None), torch.zeros_like(leaf.entropy.detach()))
