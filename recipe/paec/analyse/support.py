"""Support: which problems a policy solves at all, and what training adds to them and takes away (arXiv 2507.14843).

With k samples a problem is in a policy's support if one of them is right. Of all problems, P are in the support of
both, E (expanded) only in that of the trained policy, S (shrunk) only in that of the base.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recipe.paec.analyse.intervals import divided, intervals, number, shown
from recipe.paec.analyse.pairs import Pair, pair_name
from recipe.paec.analyse.sampled import Problem
from recipe.paec.scoring.display import markdown
from recipe.paec.scoring.estimators import pass_at_every_k, powers_of_two

ZETA = 0.05
"""Probability of missing a solution at the detection limit."""
RATIOS = ("SRR", "NDR", "SDS", "NSCR")
"""Support retention, new discovery, their harmonic mean ("support dynamic"), net change; see `ratios`."""


def ratios(counts: np.ndarray) -> np.ndarray:
    """SRR, NDR, SDS, NSCR of counts or shares of problems P, E, S, [..., 3] -> [..., 4]; NaN for 0/0.

    SRR = P/(P+S), NDR = E/(P+E), SDS = 2 SRR NDR/(SRR+NDR), NSCR = (E-S)/(P+E+S).
    """
    kept, expanded, shrunk = np.moveaxis(np.asarray(counts, float), -1, 0)
    retention, discovery = divided(kept, kept + shrunk), divided(expanded, kept + expanded)
    harmonic = divided(2 * retention * discovery, retention + discovery)
    return np.stack([retention, discovery, harmonic, divided(expanded - shrunk, kept + expanded + shrunk)], -1)


def memberships(problems: Sequence[tuple[Problem, Problem]], k: int) -> np.ndarray:
    """Expected P, E, S of each problem for k of its samples, [problems, 3] float64.

    Means over all choices of k samples of each policy (`pass_at_every_k`), which are independent of each other; at
    k = n they are 0 or 1: the problem was solved or not.
    """
    solved = [[pass_at_every_k(of.samples, of.correct)[k - 1] for of in both] for both in problems]
    base, trained = np.array(solved).T
    return np.stack([base * trained, (1 - base) * trained, base * (1 - trained)], -1)


def by_chance(problems: Sequence[tuple[Problem, Problem]], k: int) -> np.ndarray | None:
    """P, E, S of each problem for the base against itself, [problems, 3]; None for 2k > n.

    Means over all pairs of disjoint sets of k of the base's samples: E and S are then pass@2k - pass@k. What a trained
    policy has beyond that is not chance.
    """
    if any(2 * k > base.samples for base, _ in problems):
        return None
    passed = [pass_at_every_k(base.samples, base.correct) for base, _ in problems]
    once, twice = (np.array([of[m - 1] for of in passed]) for m in (k, 2 * k))
    return np.stack([2 * once - twice, twice - once, twice - once], -1)


def detection_limit(k: int, zeta: float = ZETA) -> float:
    """The smallest probability of a right sample with which k samples miss the problem with probability <= zeta.

    1 - zeta^(1/k). The paper has the bound ln(1/zeta)/k, which is larger (`published_limit`).
    """
    return -math.expm1(math.log(zeta) / k)


def published_limit(k: int, zeta: float = ZETA) -> float:
    """ln(1/zeta)/k, the paper's detection limit; above 1, and so no limit, for k < ln(1/zeta)."""
    return math.log(1 / zeta) / k


def sign_test(expanded: int, shrunk: int) -> float:
    """Two-sided exact p of E and S, of which each problem that changed sides is as likely: Binomial(E + S, 1/2)."""
    n, least = expanded + shrunk, min(expanded, shrunk)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(least + 1)) / 2**n)


def analyse(pair: Pair) -> dict[str, Any]:
    """Support of a pair at k = 1, 2, 4, ... and the largest k that both have, with intervals over the problems.

    Returns:
        What the pair is; `counts` of problems kept, expanded, shrunk and unsolved by all samples, and `p` of the sign
        test, both None where the policies have different numbers of samples; and `at`, for each k: k, detection_limit,
        published_limit, RATIOS, each {value, low, high}, and chance, the NDR of the base against itself (`by_chance`).
    """
    sizes = {problem.samples for both in pair.problems for problem in both}
    n = min(sizes)
    ks = powers_of_two(n)
    values = np.concatenate([memberships(pair.problems, k) for k in ks], -1)

    def statistic(means: np.ndarray) -> np.ndarray:
        lead = means.shape[:-1]
        return ratios(means.reshape(*lead, len(ks), 3)).reshape(*lead, len(ks) * len(RATIOS))

    found = intervals(values, statistic)
    at = [
        {
            "k": k,
            "detection_limit": detection_limit(k),
            "published_limit": published_limit(k),
            **dict(zip(RATIOS, found[len(RATIOS) * i :], strict=False)),
            "chance": _discovery(by_chance(pair.problems, k)),
        }
        for i, k in enumerate(ks)
    ]
    counts = p = None
    if sizes == {n}:
        kept, expanded, shrunk = (int(x) for x in values[:, -3:].sum(0))
        counts = {"kept": kept, "expanded": expanded, "shrunk": shrunk}
        counts["unsolved"] = len(values) - kept - expanded - shrunk
        p = sign_test(expanded, shrunk)
    return {**pair.about(), "counts": counts, "p": p, "at": at}


def _discovery(values: np.ndarray | None) -> float | None:
    if values is None:
        return None
    found = float(ratios(values.mean(0))[1])
    return found if math.isfinite(found) else None


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The results as Markdown: a row for each pair at the largest k, then one for each k."""
    head = ["policies", "at k", "seen if p >=", *RATIOS, "NDR by chance", "kept/new/lost/none", "p"]
    rows = []
    for result in results:
        for place in reversed(result["at"]):
            largest = place is result["at"][-1]
            counts = result["counts"] if largest else None
            rows.append(
                [
                    pair_name(result) if largest else "",
                    str(place["k"]),
                    number(place["detection_limit"]),
                    *(shown(place[ratio]) for ratio in RATIOS),
                    number(place["chance"]),
                    "/".join(str(count) for count in counts.values()) if counts else "",
                    number(result["p"], ".3g") if largest else "",
                ]
            )
    return markdown([head, *rows])
