"""Which policy is the base and which the trained one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recipe.paec.analyse.sampled import Policy, Problem, Series, pair_of
from recipe.paec.analyse.sources import Source
from recipe.paec.common.errors import UserError
from recipe.paec.compare.comparability import check
from recipe.paec.compare.evaluations import SeedGroup, choose


@dataclass(frozen=True)
class Pair:
    """A base and a trained policy on the same problems."""

    source: str
    """Name of the run or evaluation of the trained policy."""
    series: str
    benchmark: str
    base: Policy
    trained: Policy
    problems: tuple[tuple[Problem, Problem], ...]
    """(base's, trained's) samples of each."""

    def about(self) -> dict[str, str | int]:
        """What the pair is, for a result."""
        names = {"source": self.source, "series": self.series, "benchmark": self.benchmark}
        return {**names, "base": self.base.label, "trained": self.trained.label, "problems": len(self.problems)}


def pair_name(result: Mapping[str, Any]) -> str:
    """The pair of a result, as the first cell of its row."""
    place = dict.fromkeys((result["source"], result["series"], result["benchmark"]))
    return f"{', '.join(place)}: {result['base']} -> {result['trained']}"


def pairs_of(source: Source, base: Mapping[str, Policy], remarks: list[str]) -> list[Pair]:
    """The pairs of a source: its evaluations against `base`, everything else its first policy against its last.

    Args:
        source: a run or an evaluation.
        base: benchmark -> policy, of `--base`; may be empty.
        remarks: gets a sentence for each series that has no pair, and for what differs between two evaluations.
    """
    found = []
    for series in source.series:
        evaluated = series.policies[0].scores is not None
        trained = series.policies[-1]
        first = base.get(series.benchmark) if base and evaluated else series.policies[0]
        what = f"{source.name}, {series.name}, {series.benchmark}"
        if first is None:
            remarks.append(f"{what}: --base has no samples of this benchmark: evaluate the base model on it")
        elif first is trained:
            remarks.append(
                f"{what}: there is only one policy, so nothing to compare: give the evaluation of its base model with "
                "--base FOLDER"
            )
        else:
            try:
                remarks += [f"{what}: {remark}" for remark in _comparable(first, trained, series)]
                problems = tuple(pair_of(first, trained, what))
                found.append(Pair(source.name, series.name, series.benchmark, first, trained, problems))
            except UserError as error:
                remarks += [f"{what}: {sentence}" for sentence in error.errors]
    return found


def _comparable(base: Policy, trained: Policy, series: Series) -> list[str]:
    """What a reader must know of two evaluations; UserError if their protocol, grader or problems differ."""
    if base.scores is None or trained.scores is None:
        return []
    both = [SeedGroup("base", (base.scores,)), SeedGroup("trained", (trained.scores,))]
    return check(choose(both, [series.benchmark]), ["avg"], allow_mismatch=False, options=False)
