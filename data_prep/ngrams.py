"""The plain contamination check of the literature: do a benchmark problem and a training text share 13 words in a row?

As for GPT-3 (Brown et al. 2020, arXiv 2005.14165, appendix C): words are what white space separates, in lower case and
without punctuation and symbols; one common run of 13 words counts. It is simple and comparable between papers. It
cannot find a problem of fewer than 13 words, nor one with a word changed in every run; a common phrase of 13 words
counts. `data_prep.contamination` has a rule without these weaknesses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

N = 13
"""Words in a run, GPT-3's."""

EXCERPT = 200
"""Characters of a text that a report shows."""

_MARK = re.compile(r"[^\w\s]|_")


@dataclass(frozen=True)
class NgramMatch:
    """A benchmark problem that has runs of words in common with the training texts.

    problem: its number in the benchmark, from 0.
    row: the first training row that has one of its runs.
    shared, total: how many of the problem's distinct runs some training row has, of how many.
    words: the first run of the problem that `row` has.
    problem_text, row_text: both texts, cut to EXCERPT characters.
    """

    problem: int
    row: int
    shared: int
    total: int
    words: str
    problem_text: str
    row_text: str


@dataclass(frozen=True)
class NgramOverlap:
    """One benchmark: its size, how many problems are too short to have a run, and the problems with a common run."""

    size: int
    short: int
    matches: tuple[NgramMatch, ...]


def words(text: str) -> list[str]:
    """The words of a text as this check compares them: lower case, without punctuation and symbols."""
    return _MARK.sub("", text.lower()).split()


def ngrams(found: Sequence[str], n: int = N) -> list[tuple[str, ...]]:
    """All runs of n words in order; none if there are fewer."""
    return list(zip(*(found[i:] for i in range(n)), strict=False))


def find_overlap(texts: Sequence[str], benchmarks: Mapping[str, Sequence[str]], n: int = N) -> dict[str, NgramOverlap]:
    """The benchmark problems that share a run of n words with a training text.

    Time and memory are linear: one table of the benchmarks' runs, one pass over the training texts.

    Args:
        texts: training problems without template, one per row.
        benchmarks: name -> problem texts.
        n: words in a run.
    """
    runs = {name: [ngrams(words(text), n) for text in problems] for name, problems in benchmarks.items()}
    first = _first_rows(texts, {run for problems in runs.values() for of_one in problems for run in of_one}, n)
    result = {}
    for name, problems in benchmarks.items():
        matches = []
        for i, (text, of_one) in enumerate(zip(problems, runs[name], strict=True)):
            shared = {run: first[run] for run in of_one if run in first}
            if shared:
                run = min(shared, key=shared.__getitem__)  # of the earliest row; the first one in the problem's order
                row = shared[run]
                excerpts = (text[:EXCERPT], texts[row][:EXCERPT])
                matches.append(NgramMatch(i, row, len(shared), len(set(of_one)), " ".join(run), *excerpts))
        result[name] = NgramOverlap(len(problems), sum(not of_one for of_one in runs[name]), tuple(matches))
    return result


def _first_rows(texts: Sequence[str], wanted: set[tuple[str, ...]], n: int) -> dict[tuple[str, ...], int]:
    """The first row of each of the wanted runs that occurs."""
    first: dict[tuple[str, ...], int] = {}
    for row, text in enumerate(texts) if wanted else ():
        for run in ngrams(words(text), n):
            if run in wanted:
                first.setdefault(run, row)
    return first


def table(found: Mapping[str, NgramOverlap], n: int = N) -> str:
    """One line per benchmark: problems, those with a common run, their share, those too short for the check."""
    lines = [f"{f'{n} words in a row':<28}{'problems':>9}{'in common':>13}{'share':>8}{'too short':>11}"]
    for name, overlap in found.items():
        share = len(overlap.matches) / overlap.size if overlap.size else 0.0
        lines.append(f"{name:<28}{overlap.size:>9}{len(overlap.matches):>13}{share:>8.1%}{overlap.short:>11}")
    return "\n".join(lines)
