"""How different a policy's answers to one problem are, beside its token entropy.

Token entropy can rise while the answers become more alike: many wordings of one answer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recipe.paec.analyse import metrics
from recipe.paec.analyse.intervals import mean, number, shown
from recipe.paec.analyse.sampled import Policy, Problem, Series
from recipe.paec.analyse.sources import Source
from recipe.paec.analyse.token_groups import not_finite
from recipe.paec.run import token_record
from recipe.paec.run.token_record import TokenRecord
from recipe.paec.scoring.display import markdown

QUANTITIES = ("accuracy", "answer_entropy", "distinct", "distinct_correct")


def answer_entropy(classes: Sequence[int | None]) -> float:
    """Entropy in nats of one problem's answers: sum (n_C / n) ln(n / n_C) over their classes C.

    A sample without an answer is a class of its own. At most ln n.
    """
    counts = [*Counter(c for c in classes if c is not None).values(), *[1] * sum(c is None for c in classes)]
    return math.fsum(count / len(classes) * math.log(len(classes) / count) for count in counts)


def distinct(classes: Sequence[int | None]) -> int:
    """Different answers to one problem; samples without an answer do not count."""
    return len({c for c in classes if c is not None})


def of_policy(policy: Policy) -> dict[str, Any]:
    """Means over the problems of one policy, with intervals; None for what was not recorded, or needs more samples."""
    problems = list(policy.problems.values())
    rows = [{**_of_problem(problem), "distinct_correct": problem.distinct_correct} for problem in problems]
    columns = {name: [row[name] for row in rows] for name in QUANTITIES}
    return {name: None if None in values else mean(np.array(values, float)) for name, values in columns.items()}


def of_series(source: Source, series: Series, remarks: list[str]) -> dict[str, Any]:
    """One series: of each policy the QUANTITIES and, where a run's metrics have it, its token entropy (nats).

    `remarks` gets a sentence for each token record that `per_problem` leaves out.
    """
    by_step = {record["step"]: record for record in source.records}
    split = "held_out" if series.name == "held_out" else "val"
    policies = []
    for policy in series.policies:
        entropy = origin = None
        if policy.step is not None:
            entropy, origin = metrics.entropy_of(by_step, policy.step, f"{split}/{series.benchmark}")
        policies.append({"label": policy.label, "token_entropy": entropy, "entropy_from": origin, **of_policy(policy)})
    samples = min(problem.samples for problem in series.policies[0].problems.values())
    about = {"source": source.name, "series": series.name, "benchmark": series.benchmark}
    return {
        **about,
        "problems": len(series.policies[0].problems),
        "samples": samples,
        "policies": policies,
        "per_problem": per_problem(source, series, remarks),
    }


def of_source(source: Source, remarks: list[str]) -> list[dict[str, Any]]:
    """Every series of a source; `remarks` gets a sentence for what was not recorded."""
    if not source.series:
        remarks.append(f"{source.name}: answers: needs samples: give an evaluation, or a run with validations")
    for series in source.series:
        problems = [problem for policy in series.policies for problem in policy.problems.values()]
        what = f"{source.name}, {series.name}, {series.benchmark}: answers: no entropy of answers"
        if min(problem.samples for problem in problems) < 2:
            remarks.append(f"{what}: a problem has only one sample: evaluate the checkpoints with more samples")
        elif any(problem.classes is None for problem in problems):
            remarks.append(f"{what}: the answers were not recorded or not grouped: evaluate the checkpoints")
    return [of_series(source, series, remarks) for series in source.series]


# ---- problem by problem ----------------------------------------------------------------------------------------------


def token_entropies(record: TokenRecord) -> dict[str, float]:
    """Prompt's text -> mean entropy (nats) over the tokens in the loss of its recorded responses."""
    values: dict[str, list[np.ndarray]] = {}
    for response in record.responses:
        values.setdefault(response.input, []).append(response.statistics["entropy"][response.response_mask])
    return {text: float(np.concatenate(of).mean(dtype=float)) for text, of in values.items() if sum(map(len, of))}


def per_problem(source: Source, series: Series, remarks: list[str]) -> list[dict[str, Any]]:
    """The problems of a run's validations that are in its token records: token entropy beside their answers.

    A record with an entropy that is NaN or infinite is left out, with a sentence in `remarks`.

    Returns:
        prompt, and policies: label, token_entropy, accuracy, answer_entropy and distinct of each recorded step. Empty
        for an evaluation, or without records.
    """
    if series.policies[0].scores is not None or not source.path.is_dir():
        return []
    recorded = set(token_record.steps(source.path, validation=True))
    found: dict[str, list[dict[str, Any]]] = {}
    for policy in series.policies:
        if policy.step not in recorded:
            continue
        record = token_record.read(token_record.path_of(source.path, policy.step, True))
        if problem := not_finite(record, "entropy"):
            if (remark := f"{source.name}: answers: {problem}") not in remarks:  # a series for each benchmark
                remarks.append(remark)
            continue
        entropies = token_entropies(record)
        for problem in policy.problems.values():
            if problem.prompt in entropies:
                row = {"label": policy.label, "token_entropy": entropies[problem.prompt], **_of_problem(problem)}
                found.setdefault(problem.prompt, []).append(row)
    return [{"prompt": prompt, "policies": rows} for prompt, rows in found.items()]


def _of_problem(problem: Problem) -> dict[str, float | None]:
    classes = problem.classes if problem.samples > 1 else None  # a single answer says nothing about their spread
    return {
        "accuracy": problem.correct / problem.samples,
        "answer_entropy": None if classes is None else answer_entropy(classes),
        "distinct": None if classes is None else distinct(classes),
    }


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The results as Markdown: a row for each policy, and below them the problems with token records."""
    head = ["samples of", "policy", "token entropy", "accuracy", "answer entropy", "distinct", "distinct right"]
    rows, single = [], []
    for result in results:
        place = ", ".join(dict.fromkeys((result["source"], result["series"], result["benchmark"])))
        name = f"{place} ({result['problems']} x {result['samples']})"
        for policy in result["policies"]:
            values = [shown(policy[quantity]) for quantity in QUANTITIES]
            rows.append([name, policy["label"], number(policy["token_entropy"]), *values])
            name = ""
        for problem in result["per_problem"]:
            name = f"{result['source']}: {' '.join(problem['prompt'].split())[:60]}"
            for row in problem["policies"]:
                values = [number(row[quantity]) for quantity in ("token_entropy", *QUANTITIES[:3])]
                single.append([name, row["label"], *values])
                name = ""
    text = markdown([head, *rows])
    return text if not single else f"{text}\n{markdown([['problem on record', *head[1:6]], *single])}"
