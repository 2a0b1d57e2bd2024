"""Exact and near-duplicates in a training set, and groups of them whose answers contradict each other.

Two rows of mathematics are duplicates of each other if they have

* exact: the same tokens (`data_prep.shingles.tokens`: case, spacing, LaTeX layout and punctuation do not count); or
* near: the same sequence of formal tokens (numbers, operators, brackets, variables, commands, deciding words such as
  `maximum`), so that only ordinary words may differ, and sets of token pairs with a Jaccard similarity of at least
  `threshold`.

Of other rows only the same text is a duplicate (`same_text`): one word, one capital or one comma may be what a
question is about. Rows of different settings, such as another system turn, are never compared.

So "Find x if 2x=4" and "Find x if 2x=6" are two problems, however much other text they share. A group is what such
pairs connect; hence no two kept rows are duplicates, and the groups do not depend on the order of the rows.

The search is exact. The formal tokens split the rows into small blocks; within a block two sets of a given similarity
have one of their rarest elements in common (prefix filter; Xiao et al., "Efficient similarity joins for near-duplicate
detection", WWW 2008), so only such pairs of rows are compared. docs/duplicates.md compares it with MinHash.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Literal

from data_prep.progress import with_progress
from data_prep.shingles import formal, jaccard, shingles, tokens

SHINGLE = 2
"""Tokens in a shingle. With pairs one replaced word of a problem of 20 tokens leaves a similarity of 0.81."""

THRESHOLD = 0.7
"""Minimum similarity of near-duplicates: room for two replaced words in a problem of 25 tokens."""

_ROUNDING = 1e-9  # 0.07 * 100 > 7 in floating point; a bound may be too loose, never too tight


@dataclass(frozen=True)
class Group:
    """Two or more rows with the same problem.

    kind: "exact" if all members have the same tokens (or the same text, where that is the rule), otherwise "near".
    members: row numbers, ascending.
    similarity: the lowest Jaccard similarity of a member with the first one; 1 in an exact group. It may be below the
        threshold if others connect the two.
    answers: the members' answers, in their order.
    conflict: whether two of the answers differ; then no member is kept, otherwise the first one.
    """

    kind: Literal["exact", "near"]
    members: tuple[int, ...]
    similarity: float
    answers: tuple[str, ...]
    conflict: bool


@dataclass(frozen=True)
class Duplicates:
    """Result of `find_duplicates`; `dataclasses.asdict` converts it for JSON.

    kept: row numbers, ascending: the rows of no group and the first member of each group without a conflict.
    groups: by their first member.
    """

    kept: tuple[int, ...]
    groups: tuple[Group, ...]

    @property
    def conflicts(self) -> tuple[Group, ...]:
        """The groups whose answers contradict each other."""
        return tuple(group for group in self.groups if group.conflict)

    @property
    def removed(self) -> dict[str, int]:
        """Rows not kept, by reason: repetitions in "exact" and in "near" groups, all members of "conflicting" ones."""
        count = dict.fromkeys(("exact", "near", "conflicting"), 0)
        for group in self.groups:
            count["conflicting" if group.conflict else group.kind] += len(group.members) - (not group.conflict)
        return count


def find_duplicates(
    texts: Sequence[str],
    answers: Sequence[str],
    *,
    same_answer: Callable[[str, str], bool],
    settings: Sequence[Hashable] | None = None,
    mathematics: bool = True,
    threshold: float = THRESHOLD,
    progress: bool = False,
) -> Duplicates:
    """Group the rows with the same problem; the module's docstring has the rule.

    Args:
        texts: problem texts without template, one per row.
        answers: their answers.
        same_answer: whether two answers are equal; called once for every two different strings of a group, until one
            pair differs.
        settings: what belongs to each row beside its text; only rows of equal settings are compared. None: all equal.
        mathematics: whether the rules for mathematics are used; otherwise only rows with the same text are duplicates.
        threshold: minimum Jaccard similarity of near-duplicates, in (0, 1]; 1 still allows swapped pairs.
        progress: show it on stderr.

    Raises:
        ValueError: `texts`, `answers` and `settings` differ in length, or the threshold is out of range.
    """
    if len(texts) != len(answers):
        raise ValueError(f"{len(texts)} texts but {len(answers)} answers; give one answer per row")
    if settings is not None and len(texts) != len(settings):
        raise ValueError(f"{len(texts)} texts but {len(settings)} settings; give one setting per row")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold}: must be in (0, 1], it is a Jaccard similarity")

    copies: dict[tuple[Hashable, str], list[int]] = defaultdict(list)
    blocks: dict[tuple[Hashable, str], list[str]] = defaultdict(list)
    for row, text in enumerate(with_progress(texts, label="duplicates", show=progress)):
        setting = None if settings is None else settings[row]
        problem, block = _compared(text) if mathematics else (same_text(text),) * 2
        if (setting, problem) not in copies:
            blocks[setting, block].append(problem)
        copies[setting, problem].append(row)

    groups = []
    for (setting, _), block in blocks.items():
        for component in _components(block, threshold):
            rows = {problem: copies[setting, problem] for problem in component}
            if sum(map(len, rows.values())) > 1:
                groups.append(_group(rows, answers, same_answer))
    groups.sort(key=lambda group: group.members)
    removed = {row for group in groups for row in group.members[not group.conflict :]}
    return Duplicates(tuple(row for row in range(len(texts)) if row not in removed), tuple(groups))


def same_text(text: str) -> str:
    """What two equal texts share: one Unicode form (NFC), no blank space at the ends of lines, none around the text."""
    return "\n".join(line.rstrip() for line in unicodedata.normalize("NFC", text).strip().splitlines())


def _compared(text: str) -> tuple[str, str]:
    """A problem's tokens, and the formal ones: those of near-duplicates are the same.

    A token contains no space, so joined tokens are equivalent to a tuple and take a fraction of the memory.
    """
    found = tokens(text)
    return " ".join(found), " ".join(formal(found))


def _shingles(problem: str) -> set[tuple[str, ...]]:
    return set(shingles(problem.split(), SHINGLE))


def _group(rows: Mapping[str, Sequence[int]], answers: Sequence[str], same_answer: Callable[[str, str], bool]) -> Group:
    """The group of these problems, whose row numbers are given, ascending."""
    members = sorted(chain.from_iterable(rows.values()))
    sets = {numbers[0]: _shingles(problem) for problem, numbers in rows.items()}
    given = tuple(answers[member] for member in members)
    return Group(
        kind="exact" if len(rows) == 1 else "near",
        members=tuple(members),
        similarity=min(jaccard(sets[members[0]], other) for other in sets.values()),
        answers=given,
        # Sorted, so that the outcome depends on the group and not on its order.
        conflict=not all(same_answer(a, b) for a, b in combinations(sorted(set(given)), 2)),
    )


def _components(problems: Sequence[str], threshold: float) -> Iterable[list[str]]:
    """The connected components of the graph whose edges are the pairs with similarity >= threshold."""
    if len(problems) == 1:
        return [list(problems)]
    number: dict[tuple[str, ...], int] = {}
    sets = [frozenset(number.setdefault(s, len(number)) for s in _shingles(problem)) for problem in problems]
    parent = list(range(len(problems)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for i, j in _candidates(sets, threshold):
        if root(i) != root(j) and jaccard(sets[i], sets[j]) >= threshold:
            parent[root(i)] = root(j)
    components = defaultdict(list)
    for i, problem in enumerate(problems):
        components[root(i)].append(problem)
    return components.values()


def _candidates(sets: Sequence[frozenset[int]], threshold: float) -> Iterator[tuple[int, int]]:
    """The pairs of sets that may be similar enough, each pair once."""
    frequency = Counter(chain.from_iterable(sets))
    holders: dict[int, list[int]] = defaultdict(list)
    for i in sorted(range(len(sets)), key=lambda i: len(sets[i])):
        size = len(sets[i])
        rarest = sorted(sets[i], key=lambda shingle: (frequency[shingle], shingle))
        # Similarity t takes an intersection of t times the larger set and of 2t / (1 + t) times the smaller one, and a
        # set without its rarest elements has less than that. The sets before this one are not larger.
        least_of_larger = math.ceil(threshold * size - _ROUNDING)
        least_of_smaller = math.ceil(2 * threshold / (1 + threshold) * size - _ROUNDING)
        for j in {j for shingle in rarest[: size - least_of_larger + 1] for j in holders[shingle]}:
            if len(sets[j]) >= least_of_larger:
                yield i, j
        for shingle in rarest[: size - least_of_smaller + 1]:
            holders[shingle].append(i)
