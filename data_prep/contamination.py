"""Which benchmark problems occur in a training set, on their own or inside a longer text.

Both are compared by their runs of SHINGLE tokens (`data_prep.shingles.tokens`), where all numbers count as one token. A
row matches a benchmark problem if one stretch of its text, at most STRETCH times as long as the problem, has

* at least `threshold` of the problem's distinct runs, and
* at least `threshold` of those among them that contain a number, so that a phrase like "Find the number of positive
  integers n such that" is not enough; for a problem without numbers, (1 + `threshold`) / 2 of all.

If the problem's numbers occur in the row in the same order and without others between them, the row contains a *copy*;
otherwise it is the same problem with *other numbers*, a weaker class that is reported separately. Problems of less than
SHORTEST tokens ("1+1?") must be the complete training text. Code of figures ([asy]) is left out: many sets strip it.
Beside it the report has the plain check of the literature, `data_prep.ngrams`, which drops nothing.

    python -m data_prep.contamination TRAIN.parquet BENCHMARK.parquet ... [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.contract import ContractError, validate_rows
from data_prep.files import atomic_write
from data_prep.ngrams import EXCERPT, N, NgramOverlap, find_overlap
from data_prep.ngrams import table as ngram_table
from data_prep.progress import with_progress
from data_prep.shingles import is_number, numbers, shingles, tokens
from data_prep.templates import strip_foreign

SHINGLE = 4
"""Tokens in a run: one replaced word costs a problem four of its runs."""

THRESHOLD = 0.45
"""Minimum share of a problem's runs in the training text; docs/duplicates.md shows the effect of other values."""

SHORTEST = 6
"""Minimum tokens of a problem that is searched for inside longer texts."""

STRETCH = 2
"""A long training text has many common phrases; it contains a problem only if the phrases are close together."""

Run = tuple[str, ...]
"""Consecutive tokens."""

_NUMBER = "0"  # represents every number
_NONE = np.array([], dtype=np.int32)
_ROUNDING = 1e-9  # 0.07 * 100 > 7 in floating point


@dataclass(frozen=True)
class Match:
    """Benchmark problem and training row (from 0), the share of runs found, and both texts cut to EXCERPT."""

    problem: int
    row: int
    similarity: float
    problem_text: str
    row_text: str


@dataclass(frozen=True)
class Overlap:
    """One benchmark against the training set.

    size: problems in the benchmark.
    copies: every pair of a problem and a row that contains it, by problem, then row.
    other_numbers: problems without a copy whose words occur in a row with other numbers; only the most similar row
        of each problem.
    """

    size: int
    copies: tuple[Match, ...]
    other_numbers: tuple[Match, ...]

    @property
    def contaminated(self) -> int:
        """Number of problems with at least one copy."""
        return len({match.problem for match in self.copies})


@dataclass(frozen=True)
class Contamination:
    """Result of `find_contamination`: the rows looked at, the threshold, and per benchmark an `Overlap`.

    ngrams: per benchmark the problems that share N words in a row with a training text (`data_prep.ngrams`).
    """

    training_rows: int
    threshold: float
    benchmarks: dict[str, Overlap]
    ngrams: dict[str, NgramOverlap]

    @property
    def rows(self) -> frozenset[int]:
        """Training rows that contain a copy of a benchmark problem."""
        return frozenset(match.row for overlap in self.benchmarks.values() for match in overlap.copies)

    def report(self) -> dict[str, Any]:
        """Everything, ready for JSON: rule, counts, and per benchmark its size, `contaminated` and the matches.

        ngrams: n, and per benchmark its size, `overlapping` (problems), `short` and the matches.
        """
        return {
            "rule": {
                "shingle": SHINGLE,
                "threshold": self.threshold,
                "shortest": SHORTEST,
                "stretch": STRETCH,
            },
            "training_rows": self.training_rows,
            "contaminated_rows": len(self.rows),
            "benchmarks": {
                name: {"contaminated": overlap.contaminated, **asdict(overlap)}
                for name, overlap in self.benchmarks.items()
            },
            "ngrams": {
                "n": N,
                "benchmarks": {
                    name: {"overlapping": len(overlap.matches), **asdict(overlap)}
                    for name, overlap in self.ngrams.items()
                },
            },
        }

    def table(self) -> str:
        """One line per benchmark: problems, those with a copy, their share, rows that contain them, other numbers."""
        lines = [f"{'benchmark':<28}{'problems':>9}{'contaminated':>13}{'share':>8}{'rows':>7}{'other numbers':>15}"]
        for name, overlap in self.benchmarks.items():
            rows = len({match.row for match in overlap.copies})
            share = overlap.contaminated / overlap.size if overlap.size else 0.0
            lines.append(
                f"{name:<28}{overlap.size:>9}{overlap.contaminated:>13}{share:>8.1%}{rows:>7}"
                f"{len(overlap.other_numbers):>15}"
            )
        return "\n".join(lines)

    def ngram_table(self) -> str:
        """One line per benchmark: problems, those with N words in a row in common, their share, those too short."""
        return ngram_table(self.ngrams)


@dataclass(frozen=True)
class _Problem:
    benchmark: str
    index: int
    runs: frozenset[Run]
    numbers: str
    stretch: int
    needed: float
    needed_with_number: float

    def similarity(self, runs: Sequence[Run]) -> float | None:
        """The share of this problem's runs that the best stretch of a text has, None if it has too few."""
        positions = [position for position, run in enumerate(runs) if run in self.runs]
        numeric = [position for position in positions if _NUMBER in runs[position]]
        most = _most_together(positions, runs, self.stretch)
        if most < self.needed or _most_together(numeric, runs, self.stretch) < self.needed_with_number:
            return None
        return most / len(self.runs)


def find_contamination(
    texts: Sequence[str],
    benchmarks: Mapping[str, Sequence[str]],
    *,
    threshold: float = THRESHOLD,
    progress: bool = False,
) -> Contamination:
    """Find the problems of each benchmark in the training texts; the module's docstring has the rule.

    Args:
        texts: training problems without template, one per row.
        benchmarks: name -> problem texts.
        threshold: minimum share of a problem's runs, in (0, 1].
        progress: show it on stderr.

    Raises:
        ValueError: the threshold is out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold}: must be in (0, 1], it is a share of runs")
    wanted = [_problem(name, i, text, threshold) for name, b in benchmarks.items() for i, text in enumerate(b)]
    index = _Index([problem for problem in wanted if problem.runs])

    copies: dict[str, list[Match]] = {name: [] for name in benchmarks}
    others: dict[str, dict[int, Match]] = {name: {} for name in benchmarks}
    for row, text in enumerate(with_progress(texts, label="contamination", show=progress)):
        found = tokens(text, figures=False)
        runs, row_numbers = _runs(found), _spaced(found)
        for problem, at_most in index.candidates(runs):
            is_copy = problem.numbers in row_numbers
            best = others[problem.benchmark].get(problem.index)
            if not is_copy and best and at_most <= best.similarity:
                continue
            similarity = problem.similarity(runs)
            if similarity is None:
                continue
            problem_text = benchmarks[problem.benchmark][problem.index]
            match = Match(problem.index, row, similarity, problem_text[:EXCERPT], text[:EXCERPT])
            if is_copy:
                copies[problem.benchmark].append(match)
            elif not best or similarity > best.similarity:
                others[problem.benchmark][problem.index] = match

    result = {}
    for name, problems in benchmarks.items():
        copied = {match.problem for match in copies[name]}
        result[name] = Overlap(
            size=len(problems),
            copies=tuple(sorted(copies[name], key=lambda match: (match.problem, match.row))),
            other_numbers=tuple(match for i, match in sorted(others[name].items()) if i not in copied),
        )
    return Contamination(len(texts), threshold, result, find_overlap(texts, benchmarks))


def _problem(benchmark: str, index: int, text: str, threshold: float) -> _Problem:
    found = tokens(text, figures=False)
    runs = frozenset(_runs(found))
    with_number = sum(_NUMBER in run for run in runs)
    return _Problem(
        benchmark,
        index,
        runs,
        _spaced(found),
        stretch=STRETCH * max(len(found), SHORTEST),
        needed=len(runs) * (threshold if with_number else (1 + threshold) / 2) - _ROUNDING,
        needed_with_number=with_number * threshold - _ROUNDING,
    )


class _Index:
    """The benchmark problems by their runs."""

    def __init__(self, problems: Sequence[_Problem]):
        holders: dict[Run, list[int]] = defaultdict(list)
        for i, problem in enumerate(problems):
            for run in problem.runs:
                holders[run].append(i)
        self.problems = problems
        self.holders = {run: np.array(numbers, dtype=np.int32) for run, numbers in holders.items()}
        self.needed = np.array([problem.needed for problem in problems])
        self.needed_with_number = np.array([problem.needed_with_number for problem in problems])

    def candidates(self, runs: Sequence[Run]) -> Iterator[tuple[_Problem, float]]:
        """The problems of which a text has enough runs somewhere, with their share."""
        held = self.holders.keys() & set(runs)
        count = self._count(held)
        with_number = self._count(run for run in held if _NUMBER in run)
        for i in np.flatnonzero((count >= self.needed) & (with_number >= self.needed_with_number)):
            yield self.problems[i], count[i] / len(self.problems[i].runs)

    def _count(self, runs: Iterable[Run]) -> np.ndarray:
        """How many of the runs each problem has, [problems]."""
        # Hundreds of problems contain common phrases: counted in numpy, because a loop would take minutes.
        holders = [self.holders[run] for run in runs]
        return np.bincount(np.concatenate(holders) if holders else _NONE, minlength=len(self.problems))


def _most_together(positions: Sequence[int], runs: Sequence[Run], stretch: int) -> int:
    """The largest number of distinct runs, among those at `positions`, within `stretch` tokens."""
    inside: Counter[Run] = Counter()
    most = left = 0
    for right in positions:
        inside[runs[right]] += 1
        while right + SHINGLE - positions[left] > stretch:
            first = runs[positions[left]]
            inside[first] -= 1
            if not inside[first]:
                del inside[first]
            left += 1
        most = max(most, len(inside))
    return most


def _runs(found: Sequence[str]) -> list[Run]:
    masked = [_NUMBER if is_number(token) else token for token in found]
    if len(masked) >= SHORTEST:
        return shingles(masked, SHINGLE)
    # A short text is a single run between marks that no token equals, so it is only found in identical texts.
    return [("", *masked, "")] if masked else []


def _spaced(found: Sequence[str]) -> str:
    # With a space before and after each number, "is a run of" becomes "is a substring of".
    return " ".join(["", *numbers(found), ""])


def problems_of(path: str | Path) -> list[str]:
    """The problem texts of a parquet file in verl's layout.

    `extra_info.problem`; in a file from elsewhere the last user turn, without the instructions that
    `data_prep.templates` knows.

    Raises:
        FileNotFoundError, ContractError: as `data_prep.contract.validate_rows`.
    """
    return [_problem_text(row) for row in validate_rows(path).to_dict("records")]


def benchmarks_of(paths: Sequence[str | Path]) -> dict[str, list[str]]:
    """The problem texts of prepared parquet files by the rows' `data_source`.

    Raises:
        FileNotFoundError, ContractError: as `data_prep.contract.validate_rows`.
        ContractError: two files have the same data_source, so that a problem's number would be ambiguous.
    """
    benchmarks: dict[str, list[str]] = {}
    for path in paths:
        here: dict[str, list[str]] = defaultdict(list)
        for row in validate_rows(path).to_dict("records"):
            here[row["data_source"]].append(_problem_text(row))
        if twice := sorted(here.keys() & benchmarks.keys()):
            raise ContractError(f"{path}, field data_source: {twice[0]} is also in an earlier file; name it once")
        benchmarks.update(here)
    return benchmarks


def _problem_text(row: Mapping[str, Any]) -> str:
    # A plain `or` would treat an empty problem as missing; pyarrow turns a missing field into None.
    problem = row["extra_info"].get("problem")
    # Instructions common to both sides would make two problems without numbers look similar.
    return strip_foreign(row["prompt"][-1]["content"]) if problem is None else problem


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Counts the benchmark problems that occur in a training set.")
    parser.add_argument("train", type=Path, help="training set, a prepared parquet file")
    parser.add_argument("benchmarks", type=Path, nargs="+", help="benchmarks, prepared parquet files")
    parser.add_argument(
        "--threshold", type=float, default=THRESHOLD, help="smallest share of a problem's phrases that is a match"
    )
    parser.add_argument("--json", type=Path, help="file for the report with every match")
    options = parser.parse_args(argv)
    try:
        benchmarks = benchmarks_of(options.benchmarks)
        found = find_contamination(problems_of(options.train), benchmarks, threshold=options.threshold, progress=True)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
    if options.json:
        with atomic_write(options.json) as partial:
            partial.write_text(json.dumps(found.report(), indent=1) + "\n", encoding="utf-8")
    print(found.table())
    print(f"{len(found.rows)} of {found.training_rows} training rows contain a benchmark problem")
    print(found.ngram_table())


if __name__ == "__main__":
    main()
