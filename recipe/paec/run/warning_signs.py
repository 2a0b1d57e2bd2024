"""Warnings about a run in words, from its metrics: each is said once until its condition ends, with the remedy.

Every function here takes the records of the training steps so far, in order, and answers for the last one.

The thresholds of `explosion`, `gradient_explosion` and `score_fall` were chosen on the training curves below
`benchmarks/results/` (324, of which two have every step). In runs whose accuracy holds, the entropy rises to at most
1.14 times its beginning (by 0.04 nats), a step's gradient norm is at most 2.0 times the median before it, and the mean
score of 5 steps at least 0.84 times the best one. `explosion` holds in five: `tea_rl` with coefficient 1,
`entropy_bonus` with 0.02, 0.03 and 0.1, and `ettrl_advantage`, which begins to lose accuracy there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from statistics import fmean, median
from typing import Any

from recipe.paec.run.metric_names import CUT_OFF, ENTROPY
from recipe.paec.run.summary import anchored, is_training_step

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
EXPLODED = 2.0
"""Token entropy of the last WINDOW steps over that of the first START: above it, the entropy has exploded."""
EXPLODED_BY = 0.5
"""Nats by which it must have risen as well: methods that hold a target raise a low entropy to more than twice."""
GRADIENT_FACTOR = 10.0
"""A step's gradient norm over the median of all steps before it."""
FALLEN = 0.5
"""Share of the best mean score below which the score has fallen."""
LEAST_SCORE = 0.2
"""Best mean score from which on a fall is told from chance."""
WINDOW = 5
"""Steps of a window; a comparison of lengths needs as many steps before the last one."""
EARLIER = 20
"""Steps before the last one with whose median length it is compared, at most."""
START = 10
"""Steps whose mean token entropy is what a run began with, and steps before the first comparison of gradients."""

CORRECT = "algorithm.rollout_correction.rollout_is=token corrects the update for it"
"""The remedy of a mismatch in a run whose configuration is not known."""
MISMATCHED = "rollout_corr/log_ppl_abs_diff"
LENGTH, MIXED = "response_length/mean", "reward/mixed_prompts"
GRADIENT, SCORE = "actor/grad_norm", "critic/score/mean"
FINITE = (ENTROPY, "actor/loss", "actor/pg_loss", GRADIENT)
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
        name, entropy, anchor = "token entropy", last.get(ENTROPY), _mean(records[:START], ENTROPY, START)
        reference, remedy = f"the mean of the first {START} steps", "use a method with a floor (method=paec)"
    if entropy is None or anchor is None or entropy >= COLLAPSED * anchor:
        return None
    return (
        f"{name} {entropy:.4f} is below half of {reference}, {anchor:.4f}: the policy hardly explores any more; "
        f"{remedy}, or lower actor_rollout_ref.actor.optim.lr"
    )


def _mean(records: Records, key: str, count: int) -> float | None:
    """Mean of a metric over `count` records; None if there are fewer, or one has none."""
    values = [record[key] for record in records if record.get(key) is not None]
    return fmean(values) if len(values) == count else None


def explosion(records: Records) -> str | None:
    """Token entropy of the last steps far above what the run began with."""
    begun, now = _mean(records[:START], ENTROPY, START), _mean(records[-WINDOW:], ENTROPY, WINDOW)
    if begun is None or now is None or now <= EXPLODED * begun or now <= begun + EXPLODED_BY:
        return None
    if anchored(records[-1]) == "actor/paec/":
        remedy = "set method.lambda_ent=0 (that term raises the entropy at any level) or method.penalty=two_sided"
    else:
        remedy = "lower the method's entropy coefficient (entropy_bonus: method.coefficient), or use "
        remedy += "method=entropy_target, which lowers it as well"
    return (
        f"token entropy {now:.4f} (mean of {WINDOW} steps) is {now / begun:.1f} times the mean of the first {START} "
        f"steps, {begun:.4f}: the policy drifts towards noise; {remedy}; lower the upper clip range (method.clip_high, "
        "or actor_rollout_ref.actor.clip_ratio_high if the method has none), or make fewer updates a step (a larger "
        'actor_rollout_ref.actor.ppo_mini_batch_size); "Entropy rises in my run" in docs/methods.md says what to look '
        "at first"
    )


def gradient_explosion(records: Records) -> str | None:
    """A gradient norm far above those before; steps without anything to learn are left out."""
    learnt = [record for record in records if record.get(MIXED) != 0]
    norms = [record[GRADIENT] for record in learnt if record.get(GRADIENT) is not None]
    if records[-1].get(GRADIENT) is None or len(norms) <= START:
        return None
    *earlier, last = norms
    usual = median(earlier)
    if learnt[-1] is not records[-1] or usual == 0 or last <= GRADIENT_FACTOR * usual:
        return None
    return (
        f"{GRADIENT} {last:.3g} is {last / usual:.0f} times the median of the {len(earlier)} steps before, "
        f"{usual:.3g}: if it stays there, resume from a checkpoint before this step with a lower "
        "actor_rollout_ref.actor.optim.lr; a lower actor_rollout_ref.actor.optim.clip_grad limits what a single step "
        "does"
    )


def score_fall(records: Records) -> str | None:
    """The mean score of the last steps far below the best one of the run."""
    scores = [record[SCORE] for record in records if record.get(SCORE) is not None]
    if records[-1].get(SCORE) is None or len(scores) < START:
        return None
    sums = [0.0, *accumulate(scores)]
    means = [(end - begin) / WINDOW for begin, end in zip(sums, sums[WINDOW:], strict=False)]
    best, last = max(means), means[-1]
    if best < LEAST_SCORE or last >= FALLEN * best:
        return None
    return (
        f"the mean score of {WINDOW} steps, {last:.3f}, is below half of the best one, {best:.3f}: read some responses "
        "in rollouts/, and look whether the entropy or the length has risen; resume from a checkpoint before the fall "
        "(run.keep_best=1 keeps the best one) with a lower actor_rollout_ref.actor.optim.lr"
    )


def mismatch(records: Records, remedy: str = CORRECT) -> str | None:
    """Log-probs of the rollout and of the actor that are further apart than numerics explain.

    `remedy`: what `recipe.paec.run.mismatch` says of the run's configuration.
    """
    apart = records[-1].get(MISMATCHED)
    if apart is None or apart <= MISMATCH:
        return None
    return (
        f"log-probs of vLLM and of the actor differ by {apart:.4f} nats per token (limit {MISMATCH}), so the update "
        f"is off-policy: {remedy}"
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
    for key in (CUT_OFF, ENTROPY):
        values = [record.get(key) for record in records[-2 * WINDOW :]]
        if len(values) < 2 * WINDOW or None in values:
            return None
        windows.append((fmean(values[:WINDOW]), fmean(values[WINDOW:])))
    (cut_before, cut), (entropy_before, entropy) = windows
    if cut - cut_before < TRUNCATED_RISE or entropy < (1 + ENTROPY_RISE) * entropy_before:
        return None
    return (
        f"{cut:.0%} of the responses are cut off ({cut_before:.0%} before) while the token entropy rises from "
        f"{entropy_before:.4f} to {entropy:.4f} (means of {WINDOW} steps): read some in rollouts/; if they lead "
        "nowhere, lower the method's entropy coefficient (paec: method.lambda_ent=0; entropy_bonus: "
        "method.coefficient), otherwise raise data.max_response_length"
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
    "explosion": explosion,
    "gradient": gradient_explosion,
    "score": score_fall,
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
        remedy: of a `mismatch`, from the run's configuration (`recipe.paec.run.mismatch.remedy`).
        curriculum: whether prompts become harder in stages. The score then falls by design, so `score` is not asked.
    """

    def __init__(self, own_sampling: bool = False, curriculum: bool = False, remedy: str = CORRECT) -> None:
        unasked = {"mismatch": own_sampling, "score": curriculum}
        self._signs = {name: sign for name, sign in SIGNS.items() if not unasked.get(name)}
        if not own_sampling:
            self._signs["mismatch"] = partial(mismatch, remedy=remedy)
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
