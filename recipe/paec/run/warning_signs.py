"""Warnings about a run in words, from its metrics: each is said once until its condition ends, with the remedy.

Every function here takes the records of the training steps so far, in order, and answers for the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from recipe.paec.run.summary import ENTROPY, anchored, is_training_step

Records = Sequence[Mapping[str, Any]]

MISMATCH = 0.01
"""Nats: mean over the responses of |mean log-prob under vLLM - mean log-prob under the actor|."""
LENGTH_FACTOR = 2.0
"""A step's mean response length over the median of the steps before it."""
TRUNCATED_RISE = 0.05
"""Rise of the share of responses that are cut off, between two windows of WINDOW steps."""
ENTROPY_RISE = 0.05
"""Relative rise of the token entropy, between the same two windows."""
COLLAPSED = 0.5
"""Share of the anchor below which the entropy has collapsed."""
WINDOW = 5
"""Steps of a window; a comparison of lengths needs as many steps before the last one."""
EARLIER = 20
"""Steps before the last one with whose median length it is compared, at most."""
START = 10
"""Steps whose mean token entropy stands for the anchor in a run whose method has none."""

MISMATCHED = "rollout_corr/log_ppl_abs_diff"
LENGTH, TRUNCATED, MIXED = "response_length/mean", "response_length/clip_ratio", "reward/mixed_prompts"
FINITE = (ENTROPY, "actor/loss", "actor/pg_loss", "actor/grad_norm")
"""Metrics that are null in metrics.jsonl only if they were NaN or infinite."""


def not_finite(records: Records) -> str | None:
    """NaN or inf in the loss, the gradient or the entropy."""
    found = [key for key in FINITE if key in records[-1] and records[-1][key] is None]
    if not found:
        return None
    return (
        f"{' and '.join(found)} is NaN or infinite: stop the run, lower actor_rollout_ref.actor.optim.lr, and resume "
        "from a checkpoint before this step"
    )


def collapse(records: Records) -> str | None:
    """Hbar below half the method's anchor; without an anchor, token entropy below half of what the run began with."""
    last, method = records[-1], anchored(records[-1])
    if method is not None:
        name, entropy, anchor = "Hbar", last.get(method + "selected_entropy"), last.get(method + "anchor")
        reference, remedy = "the anchor", "raise the method's coefficient (paec: method.lambda_low)"
    else:
        begun = [record[ENTROPY] for record in records[:START] if record.get(ENTROPY) is not None]
        name, entropy, anchor = "token entropy", last.get(ENTROPY), fmean(begun) if len(begun) == START else None
        reference, remedy = f"the mean of the first {START} steps", "use a method with a floor (method=paec)"
    if entropy is None or anchor is None or entropy >= COLLAPSED * anchor:
        return None
    return (
        f"{name} {entropy:.4f} is below half of {reference}, {anchor:.4f}: the policy hardly explores any more; "
        f"{remedy}, or lower actor_rollout_ref.actor.optim.lr"
    )


def mismatch(records: Records) -> str | None:
    """Log-probs of the rollout and of the actor that are further apart than numerics explain."""
    apart = records[-1].get(MISMATCHED)
    if apart is None or apart <= MISMATCH:
        return None
    return (
        f"log-probs of vLLM and of the actor differ by {apart:.4f} nats per token (limit {MISMATCH}), so the update "
        "is off-policy: use one dtype in actor_rollout_ref.rollout.dtype and the actor, or correct for it with "
        "algorithm.rollout_correction.rollout_is=token; mode=sync has no responses of older policies"
    )


def length_explosion(records: Records) -> str | None:
    """Responses that are suddenly much longer than before."""
    lengths = [record[LENGTH] for record in records[-EARLIER - 1 :] if record.get(LENGTH) is not None]
    *earlier, last = lengths if lengths and records[-1].get(LENGTH) is not None else [0.0]
    if len(earlier) < WINDOW or last <= LENGTH_FACTOR * median(earlier):
        return None
    return (
        f"responses have {last:.0f} tokens, {last / median(earlier):.1f} times the median of the {len(earlier)} steps "
        "before: read some in rollouts/; if they repeat themselves, lower actor_rollout_ref.actor.optim.lr or "
        "data.max_response_length"
    )


def drift(records: Records) -> str | None:
    """More responses are cut off while the entropy rises: text without an end."""
    windows = []
    for key in (TRUNCATED, ENTROPY):
        values = [record.get(key) for record in records[-2 * WINDOW :]]
        if len(values) < 2 * WINDOW or None in values:
            return None
        windows.append((fmean(values[:WINDOW]), fmean(values[WINDOW:])))
    (cut_before, cut), (entropy_before, entropy) = windows
    if cut - cut_before < TRUNCATED_RISE or entropy < (1 + ENTROPY_RISE) * entropy_before:
        return None
    return (
        f"{cut:.0%} of the responses are cut off ({cut_before:.0%} before) while the token entropy rises from "
        f"{entropy_before:.4f} to {entropy:.4f} (means of {WINDOW} steps): read some in rollouts/; lower the method's "
        "entropy coefficient if they lead nowhere, or raise data.max_response_length if they do not"
    )


def nothing_to_learn(records: Records) -> str | None:
    """No prompt has responses with different scores, so every group-relative advantage is 0."""
    if records[-1].get(MIXED) != 0:
        return None
    return (
        "all responses to each prompt have the same score, so there is nothing to learn in this step: choose prompts "
        "that the policy solves sometimes (docs/curriculum.md), or raise actor_rollout_ref.rollout.n"
    )


SIGNS: dict[str, Callable[[Records], str | None]] = {
    "nan": not_finite,
    "collapse": collapse,
    "mismatch": mismatch,
    "length": length_explosion,
    "truncation": drift,
    "equal": nothing_to_learn,
}
"""Name of a warning -> its sentence, None where its condition does not hold."""


class WarningSigns:
    """Follows a run, and says each warning once until its condition ends.

    Args:
        own_sampling: whether a method samples some prompts at its own temperature. The rollout's log-probs are then of
            that temperature and the actor's of the run's, so `mismatch` is not asked.
    """

    def __init__(self, own_sampling: bool = False) -> None:
        self._signs = {name: sign for name, sign in SIGNS.items() if not (own_sampling and name == "mismatch")}
        self._steps: list[Mapping[str, Any]] = []
        self.current: dict[str, str] = {}
        """Warnings whose condition holds at the last step, with the sentence that was said."""

    def add(self, record: Mapping[str, Any]) -> dict[str, str]:
        """Take the record of the next step; returns the warnings that begin with it, name -> sentence."""
        if not is_training_step(record):
            return {}  # a validation before the first step
        self._steps.append(record)
        holding = {name: found for name, sign in self._signs.items() if (found := sign(self._steps)) is not None}
        begun = {name: f"step {record['step']}: {text}" for name, text in holding.items() if name not in self.current}
        self.current = {name: self.current.get(name) or begun[name] for name in holding}
        return begun
