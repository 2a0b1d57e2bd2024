"""How varied a policy's planning is: entropy of the phrases that mark it (HICRA, arXiv 2509.03646).

Token entropy falls when a policy gets sure of its arithmetic; the entropy of the phrases with which it branches, plans,
deduces and looks back says whether it also tries fewer ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from paec_loss.methods.hicra import planning_spans
from recipe.paec.analyse.intervals import divided, intervals, shown
from recipe.paec.analyse.phrases import PhraseList, count
from recipe.paec.analyse.sampled import DUMPS, SAMPLES_FILE, Policy, Series, lines_of, text_fields
from recipe.paec.analyse.sources import Source
from recipe.paec.analyse.token_groups import not_finite
from recipe.paec.common.queue_keys import prompt_of
from recipe.paec.run import token_record
from recipe.paec.run.token_record import TokenRecord
from recipe.paec.scoring.display import markdown

SAMPLE_AGAIN = "delete the file, and sample again"
Texts = dict[str, list[str]]
"""Problem -> its responses."""


# ---- phrases ---------------------------------------------------------------------------------------------------------


def entropy(weights: np.ndarray) -> np.ndarray:
    """[..., K] weights >= 0 -> [...] entropy in nats of their shares; NaN where all are 0."""
    shares = divided(weights, weights.sum(-1, keepdims=True))
    return -np.where(shares == 0, 0, shares * np.log(np.where(shares == 0, 1, shares))).sum(-1)


def of_problems(texts: Texts, phrases: PhraseList) -> np.ndarray:
    """Of each problem: occurrences of every phrase in its responses; responses; those with a phrase, [P, K + 2]."""
    rows = []
    for responses in texts.values():
        counts = np.array([count(text, phrases.phrases) for text in responses])
        rows.append([*counts.sum(0), len(responses), counts.any(-1).sum()])
    return np.array(rows, float)


def statistics_of(phrases: PhraseList) -> Callable[[np.ndarray], np.ndarray]:
    """What is made of means over problems, [..., K + 2] -> [..., 6], in the order of QUANTITIES."""
    names = phrases.cluster_names
    member = np.array([[of == name for name in names] for of in phrases.clusters], float)
    largest = [np.log(size) if size > 1 else 0.0 for size in (len(phrases.phrases), len(names))]

    def of_block(means: np.ndarray) -> np.ndarray:
        counts, responses, having = means[..., :-2], means[..., -2], means[..., -1]
        single, cluster = entropy(counts), entropy(counts @ member)
        shares = divided(single, largest[0]), divided(cluster, largest[1])
        rates = divided(counts.sum(-1), responses), divided(having, responses)
        return np.stack([single, shares[0], cluster, shares[1], *rates], -1)

    def statistic(means: np.ndarray) -> np.ndarray:
        if means.ndim == 1:
            return of_block(means)
        return np.concatenate([of_block(means[i : i + BLOCK]) for i in range(0, len(means), BLOCK)])

    return statistic


BLOCK = 500
"""Resamples at a time: a mined list may have thousands of phrases."""
QUANTITIES = ("entropy", "entropy_share", "cluster_entropy", "cluster_share", "per_response", "responses_with")
"""Entropy of the phrases in nats and as a share of the largest, ln K; the same of the clusters; occurrences for each
response; share of the responses with one."""


def of_texts(texts: Texts, phrases: PhraseList) -> dict[str, Any]:
    """The QUANTITIES of a policy's responses with intervals, and how often each phrase occurs."""
    values = of_problems(texts, phrases)
    found = dict(zip(QUANTITIES, intervals(values, statistics_of(phrases)), strict=True))
    totals = zip(phrases.phrases, values[:, :-2].sum(0), strict=True)
    return {**found, "occurrences": {phrase: int(number) for phrase, number in totals if number}}


# ---- tokens ----------------------------------------------------------------------------------------------------------

TOKEN_QUANTITIES = ("planning_entropy", "execution_entropy", "planning_tokens", "perplexity")
"""Mean token entropy within phrases and elsewhere, nats; share of tokens within; exp of the mean of -log p."""


def of_tokens(record: TokenRecord, phrases: PhraseList) -> dict[str, Any]:
    """The TOKEN_QUANTITIES of a record's responses, with intervals over its prompts.

    Tokens that contain a part of a phrase are planning tokens, all others execution tokens.
    """
    sums: dict[str, np.ndarray] = {}
    for response in record.responses:
        inside = np.zeros(len(response.texts), bool)
        for first, stop in planning_spans(response.texts, phrases.phrases):
            inside[first:stop] = True
        own = response.response_mask
        values, log_prob = (np.asarray(response.statistics[name], float) for name in ("entropy", "log_prob"))
        planning, execution = inside & own, ~inside & own
        row = [planning.sum(), values[planning].sum(), execution.sum(), values[execution].sum(), -log_prob[own].sum()]
        sums[response.group] = sums.get(response.group, np.zeros(5)) + row
    found = intervals(np.array(list(sums.values())), _token_statistic)
    return {**dict(zip(TOKEN_QUANTITIES, found, strict=True)), "prompts": len(sums)}


def _token_statistic(means: np.ndarray) -> np.ndarray:
    planning, of_planning, execution, of_execution, surprise = np.moveaxis(means, -1, 0)
    tokens = planning + execution
    return np.stack(
        [
            *(divided(of_planning, planning), divided(of_execution, execution)),
            *(divided(planning, tokens), np.exp(divided(surprise, tokens))),
        ],
        -1,
    )


# ---- sources ---------------------------------------------------------------------------------------------------------


def texts_of(source: Source, series: Series, policy: Policy) -> Texts | None:
    """The responses of a policy by problem; None where only counts were recorded.

    Raises:
        UserError: a line that is not a response.
    """
    found: Texts = {}
    if policy.scores is None:
        path = source.path / DUMPS / f"{policy.step}.jsonl"
        if not path.is_file():
            return None
        for number, row in lines_of(path):
            problem, text = text_fields(path, number, row, "uid", "output", remedy=SAMPLE_AGAIN)
            found.setdefault(prompt_of(problem), []).append(text)
        return found
    path = policy.scores.path.parent / SAMPLES_FILE
    for number, row in lines_of(path):
        names = ("benchmark", "problem", "response")
        benchmark, problem, text = text_fields(path, number, row, *names, remedy=SAMPLE_AGAIN)
        if benchmark == series.benchmark:
            found.setdefault(problem, []).append(text)
    return found


def all_texts(source: Source) -> Iterator[str]:
    """The responses of all policies of a source."""
    for series in source.series:
        for policy in series.policies:
            for responses in (texts_of(source, series, policy) or {}).values():
                yield from responses


def of_source(source: Source, remarks: list[str]) -> list[dict[str, Any]]:
    """Every series of a source whose responses are on record, with `source.phrases`.

    Returns:
        source, series, benchmark, list (its name), phrases and clusters (numbers), problems, samples, and `policies`:
        label, what `of_texts` gives, and `tokens`, what `of_tokens` gives of the validation's record, or None.
    """
    found = []
    for series in source.series:
        policies = []
        for policy in series.policies:
            texts = texts_of(source, series, policy)
            if texts is not None:
                tokens = _tokens(source, policy, remarks)
                policies.append({"label": policy.label, **of_texts(texts, source.phrases), "tokens": tokens})
        if policies:
            problems = series.policies[0].problems
            about = {"source": source.name, "series": series.name, "benchmark": series.benchmark}
            size = {"phrases": len(source.phrases.phrases), "clusters": len(source.phrases.cluster_names)}
            samples = min(problem.samples for problem in problems.values())
            counts = {"problems": len(problems), "samples": samples}
            found.append({**about, "list": source.phrases.name, **size, **counts, "policies": policies})
    if not found:
        remarks.append(f"{source.name}: planning: needs responses: give an evaluation, or a run with validations")
    return found


def _tokens(source: Source, policy: Policy, remarks: list[str]) -> dict[str, Any] | None:
    if policy.scores is not None or policy.step not in token_record.steps(source.path, validation=True):
        return None
    record = token_record.read(token_record.path_of(source.path, policy.step, True))
    if problem := not_finite(record, "entropy", "log_prob"):
        if (remark := f"{source.name}: planning: {problem}") not in remarks:  # a series for each benchmark
            remarks.append(remark)
        return None
    return of_tokens(record, source.phrases) if any(r.response_mask.any() for r in record.responses) else None


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The results as Markdown, a row for each policy."""
    head = ["samples of", "policy", "per response", "phrase entropy", "of ln K", "cluster entropy"]
    head += ["planning tokens", "entropy there", "entropy elsewhere", "perplexity"]
    rows = []
    for result in results:
        place = ", ".join(dict.fromkeys((result["source"], result["series"], result["benchmark"])))
        name = f"{place} ({result['problems']} x {result['samples']}; {result['phrases']} phrases of {result['list']})"
        for policy in result["policies"]:
            columns = ("per_response", "entropy", "entropy_share", "cluster_entropy")
            tokens = policy["tokens"] or dict.fromkeys(TOKEN_QUANTITIES)
            order = ("planning_tokens", "planning_entropy", "execution_entropy", "perplexity")
            rows.append(
                [name, policy["label"], *(shown(policy[c]) for c in columns), *(shown(tokens[c]) for c in order)]
            )
            name = ""
    return markdown([head, *rows])
