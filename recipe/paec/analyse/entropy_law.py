"""The entropy law R = -a e^H + b between validation accuracy R and token entropy H of a run (arXiv 2505.22617).

The law is fitted to the first two thirds of the validations and asked for the others, given their entropy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recipe.paec.analyse import metrics
from recipe.paec.analyse.intervals import SEED, constant, interval, number, shown
from recipe.paec.analyse.metrics import Validation
from recipe.paec.analyse.sampled import Series
from recipe.paec.analyse.sources import Source
from recipe.paec.scoring.display import markdown
from recipe.paec.scoring.estimators import RESAMPLES, resampled_means

SHARE = (2, 3)
"""Numerator and denominator of the share of the validations, the first ones, that the law is fitted to."""
LEAST = 3
"""Validations that a fit needs: two parameters, and something that can contradict them."""
QUANTITIES = ("a", "b", "ceiling", "error", "naive_error", "gain")


def fit(entropy: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """Least squares of R = -a e^H + b.

    Args:
        entropy: [T] nats, not all equal.
        accuracy: [..., T].

    Returns:
        [..., 2] a and b.
    """
    x = -np.exp(np.asarray(entropy, float))
    centred = x - x.mean()
    a = np.asarray(accuracy, float) @ centred / (centred @ centred)
    return np.stack([a, np.mean(accuracy, -1) - a * x.mean()], -1)


def predicted(parameters: np.ndarray, entropy: np.ndarray) -> np.ndarray:
    """R = -a e^H + b of parameters [..., 2] and entropies [T], [..., T]."""
    return parameters[..., 1:] - parameters[..., :1] * np.exp(np.asarray(entropy, float))


def quantities(entropy: np.ndarray, accuracy: np.ndarray, fitted: int) -> np.ndarray:
    """QUANTITIES of accuracies [..., T], [..., 6].

    The law's a and b from the first `fitted` validations, its ceiling b - a (H = 0), its mean absolute error on the
    others, that of the naive predictor, the last accuracy that the fit saw, and the gain, naive minus law.
    """
    accuracy = np.asarray(accuracy, float)
    parameters = fit(entropy[:fitted], accuracy[..., :fitted])
    later = accuracy[..., fitted:]
    error = np.abs(later - predicted(parameters, entropy[fitted:])).mean(-1)
    naive = np.abs(later - accuracy[..., fitted - 1 : fitted]).mean(-1)
    a, b = parameters[..., 0], parameters[..., 1]
    return np.stack([a, b, b - a, error, naive, naive - error], -1)


def analyse(
    source: str, name: str, validations: Sequence[Validation], problems: np.ndarray | None = None
) -> dict[str, Any] | str:
    """The law on one validation set of one run, or a sentence that says why it cannot be fitted.

    Args:
        source: name of the run.
        name: of the validation set.
        validations: in order.
        problems: [P, T] accuracy of each problem at these validations, for the intervals; None: no intervals. They are
            those of resampled problems with the entropies as measured.

    Returns:
        source, validation, fitted and predicted (numbers of validations), entropy_from, QUANTITIES, residual (root mean
        square of the fit), points (step, entropy, accuracy, law).
    """
    known = [i for i, v in enumerate(validations) if v.entropy is not None]
    fitted = math.ceil(len(known) * SHARE[0] / SHARE[1])
    entropy = np.array([validations[i].entropy for i in known])
    if fitted < LEAST or fitted == len(known):
        have = f"{len(known)} validation(s) with entropy and accuracy"
        return f"{name}: {have}, the law needs {LEAST + 1}: validate more often (trainer.test_freq)"
    if constant(entropy[:fitted]):
        return f"{name}: the entropy is the same at all validations of the fit: the law cannot be fitted"
    accuracy = np.array([validations[i].accuracy for i in known])
    values = quantities(entropy, accuracy, fitted)
    drawn = np.full((RESAMPLES, len(QUANTITIES)), np.nan)
    if problems is not None and len(problems) > 1:
        drawn = quantities(entropy, resampled_means(problems[:, known], RESAMPLES, SEED), fitted)
    found = {q: interval(v, column) for q, v, column in zip(QUANTITIES, values, drawn.T, strict=True)}
    law = predicted(fit(entropy[:fitted], accuracy[:fitted]), entropy)
    return {
        "source": source,
        "validation": name,
        "fitted": fitted,
        "predicted": len(known) - fitted,
        "entropy_from": list(dict.fromkeys(validations[i].origin for i in known)),
        **found,
        "residual": float(np.sqrt(np.mean((accuracy - law)[:fitted] ** 2))),
        "points": [
            {"step": validations[i].step, "entropy": h, "accuracy": r, "law": p}
            for i, h, r, p in zip(known, entropy.tolist(), accuracy.tolist(), law.tolist(), strict=True)
        ],
    }


def of_source(source: Source, remarks: list[str]) -> list[dict[str, Any]]:
    """The law on every validation set of a run; `remarks` gets a sentence for each where it cannot be fitted."""
    by_set = metrics.validations(source.records)
    if not by_set:
        remarks.append(f"{source.name}: entropy_law: needs metrics.jsonl with validations: give a run")
    found = []
    for prefix, validations in by_set.items():
        result = analyse(source.name, prefix, validations, problem_accuracies(source.series, prefix, validations))
        if isinstance(result, str):
            remarks.append(f"{source.name}: entropy_law: {result}")
        else:
            found.append(result)
    return found


def problem_accuracies(series: Sequence[Series], prefix: str, validations: Sequence[Validation]) -> np.ndarray | None:
    """[P, T] accuracy of each problem at each validation, from the run's own samples; None if they are not all there.

    The series must have these steps, the same problems at each, and the recorded accuracies as means.
    """
    split, _, benchmark = prefix.partition("/")
    steps = [v.step for v in validations]
    for one in series:
        if one.name == {"val": "validation"}.get(split, split) and one.benchmark == benchmark:
            by_step = {policy.step: policy.problems for policy in one.policies}
            keys = {frozenset(by_step[step]) for step in steps if step in by_step}
            if len(keys) == 1 and all(step in by_step for step in steps):
                order = sorted(next(iter(keys)))
                shares = [[by_step[s][key].correct / by_step[s][key].samples for s in steps] for key in order]
                if np.allclose(np.mean(shares, 0), [v.accuracy for v in validations], atol=1e-6):
                    return np.array(shares)
    return None


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The results as Markdown, one row for each run and validation set; accuracies are fractions of 1."""
    head = [
        "run",
        "fit on",
        "a",
        "b",
        "ceiling b - a",
        "fit's rms",
        "predicted",
        "error of law",
        "of last value",
        "gain",
    ]
    rows = [
        [
            f"{result['source']}, {result['validation']}",
            str(result["fitted"]),
            *(shown(result[name]) for name in ("a", "b", "ceiling")),
            number(result["residual"], ".4f"),
            str(result["predicted"]),
            *(shown(result[name], ".4f") for name in ("error", "naive_error", "gain")),
        ]
        for result in results
    ]
    return markdown([head, *rows])
