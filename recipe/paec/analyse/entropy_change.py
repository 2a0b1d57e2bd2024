"""Predicted against measured entropy change from step to step, from token records and metrics.

Two predictors, up to a positive factor (step size, optimizer): -Cov(log p, A) (arXiv 2505.22617), and minus the mean of
STEER's Omega = A (1 - p)(log p + H), at the start of the step (arXiv 2510.10150).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recipe.paec.analyse.intervals import SEED, constant, divided, interval, number, shown
from recipe.paec.analyse.sources import Source
from recipe.paec.analyse.token_groups import Tokens, covariances, read_tokens
from recipe.paec.run.metric_names import ENTROPY
from recipe.paec.scoring.display import markdown
from recipe.paec.scoring.estimators import RESAMPLES

PREDICTORS = ("covariance", "omega")
LEAST = 4
"""Updates that a correlation needs."""
MISSING = (
    "the token record has no column entropy_after, the entropy of its tokens after the update, so the change is that "
    f"of {ENTROPY} between two steps' batches, on other tokens"
)


def predictions(tokens: Tokens) -> dict[str, float]:
    """PREDICTORS of one step: -Cov(log p, A), and -mean A (1 - p)(log p + H), over the record's tokens."""
    omega = tokens.advantage * -np.expm1(tokens.log_prob) * (tokens.log_prob + tokens.entropy)
    return {"covariance": -float(covariances(tokens).mean()), "omega": -float(omega.mean())}


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of values [..., N] along the last axis; equal values share their mean rank."""
    less = (values[..., None, :] < values[..., :, None]).sum(-1)
    equal = (values[..., None, :] == values[..., :, None]).sum(-1)
    return less + (equal - 1) / 2


def correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's correlation of [..., N] along the last axis; NaN where one of them is constant."""
    unknown = constant(x) | constant(y)
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    return np.where(unknown, np.nan, divided((x * y).sum(-1), np.sqrt((x * x).sum(-1) * (y * y).sum(-1))))


def of_source(source: Source, remarks: list[str]) -> list[dict[str, Any]]:
    """The correlations of a run, with intervals of a bootstrap over its updates (ranks are those among all updates).

    Returns:
        One result: source, updates (step, measured, PREDICTORS), and for each predictor pearson and spearman. None, and
        a sentence in `remarks`, if fewer than LEAST steps have a record and entropies of both sides.
    """
    entropy = {record["step"]: record[ENTROPY] for record in source.records if record.get(ENTROPY) is not None}
    updates = [
        {"step": t.step, "measured": entropy[t.step + 1] - entropy[t.step], **predictions(t)}
        for t in read_tokens(source, "entropy_change")
        if t.step in entropy and t.step + 1 in entropy
    ]
    if len(updates) < LEAST:
        remarks.append(
            f"{source.name}: entropy_change: needs {LEAST} recorded steps with {ENTROPY} whose next step has it "
            f"too, found {len(updates)}: give a longer run"
        )
        return []
    remarks.append(f"{source.name}: entropy_change: {MISSING}")
    measured = np.array([update["measured"] for update in updates])
    drawn = np.random.default_rng(SEED).integers(len(updates), size=(RESAMPLES, len(updates)))
    found = {}
    for name in PREDICTORS:
        predicted = np.array([update[name] for update in updates])
        found[name] = {
            "pearson": _estimate(predicted, measured, drawn),
            "spearman": _estimate(ranks(predicted), ranks(measured), drawn),
        }
    return [{"source": source.name, "updates": updates, **found}]


def _estimate(x: np.ndarray, y: np.ndarray, drawn: np.ndarray) -> dict[str, float | None]:
    return interval(float(correlation(x, y)), correlation(x[drawn], y[drawn]))


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The results as Markdown, a row for each run and predictor."""
    rows = [
        [
            result["source"],
            {"covariance": "-Cov(log p, A)", "omega": "-mean Omega"}[name],
            str(len(result["updates"])),
            number(float(np.mean([update[name] for update in result["updates"]])), ".4f"),
            *(shown(result[name][kind]) for kind in ("pearson", "spearman")),
        ]
        for result in results
        for name in PREDICTORS
    ]
    return markdown([["run", "predictor", "updates", "mean", "Pearson", "Spearman"], *rows])
