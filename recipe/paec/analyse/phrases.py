"""Lists of phrases that mark planning: the one of the method `hicra`, one of a file, or one mined from responses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import ceil
from pathlib import Path

from paec_loss.methods.hicra import CATEGORIES, occurrences, plain_text
from recipe.paec.common.errors import UserError

LENGTHS = (3, 4, 5)
"""Words of a mined phrase (arXiv 2509.03646)."""
KEPT = 5
"""One of so many mined clusters is kept: those that the most responses contain, 20 % (the same)."""
ALIKE = 0.5
"""Shared words of all words of two phrases from which they are in one cluster: our rule; the paper clusters embeddings
of the phrases."""
RARE = 100
"""Phrases in fewer than one of so many responses are not clustered."""
MOST, MEMBERS = 5000, 5
"""Phrases that are clustered, and phrases of a cluster that are kept: the most widespread."""
Gram = tuple[str, ...]
"""A run of words."""
_WORD = re.compile(r"[a-z]+(?:['-][a-z]+)*")
_BETWEEN = re.compile(r"[^a-z' -]+| {2,}|(?<![a-z])['-]+|['-]+(?![a-z])")
"""What a phrase does not reach across: words are joined by one blank, as `count` looks for them."""


@dataclass(frozen=True)
class PhraseList:
    """Phrases, each in one cluster."""

    name: str
    """`hicra`, or the file."""
    phrases: tuple[str, ...]
    """Different ones, as `plain_text`."""
    clusters: tuple[str, ...]
    """The name of each one's cluster."""

    @property
    def cluster_names(self) -> list[str]:
        """Every cluster once, in order."""
        return list(dict.fromkeys(self.clusters))


DEFAULT = PhraseList(
    "hicra",
    tuple(chain.from_iterable(CATEGORIES.values())),
    tuple(name for name, phrases in CATEGORIES.items() for _ in phrases),
)
"""The method's list; its clusters are the paper's categories."""


def read_phrases(file: Path) -> PhraseList:
    """A list from a text file: a phrase in each line, below a line `[cluster]`.

    Phrases before the first such line are a cluster each. Empty lines and those that begin with # are left out.

    Raises:
        UserError: the file cannot be read, has no phrase, or one twice.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--phrases {file}: cannot be read ({error}): give a text file with one phrase per line"
        ) from None
    found: dict[str, str] = {}
    cluster = None
    for number, line in enumerate(lines, 1):
        if line.startswith("[") and line.endswith("]"):
            cluster = line[1:-1].strip()
        elif line and not line.startswith("#"):
            phrase = plain_text(line)
            if phrase in found:
                raise UserError(f"--phrases {file}, line {number}: {phrase!r} occurs twice: delete one of them")
            found[phrase] = phrase if cluster is None else cluster
    if not found:
        raise UserError(f"--phrases {file}: contains no phrase: write one per line")
    return PhraseList(str(file), tuple(found), tuple(found.values()))


# ---- mining ----------------------------------------------------------------------------------------------------------


def parts_of(text: str) -> list[list[str]]:
    """The words of a text in parts, which end at numbers, symbols, line breaks, punctuation and several blanks."""
    return [_WORD.findall(part) for part in _BETWEEN.split(plain_text(text))]


def _grams(parts: Sequence[Sequence[str]], length: int, known: Mapping[Gram, int] | None) -> set[Gram]:
    """The different runs of `length` words within the parts whose two shorter runs are `known` (None: all)."""
    runs = (tuple(words[i : i + length]) for words in parts for i in range(len(words) - length + 1))
    return {run for run in runs if known is None or (run[:-1] in known and run[1:] in known)}


def frequent(texts: Sequence[Sequence[Sequence[str]]], least: int) -> dict[Gram, int]:
    """Runs of 3 to 5 words -> in how many texts (of `parts_of`) they are, for those in `least` of them or more."""
    found: dict[Gram, int] = {}
    known: dict[Gram, int] | None = None
    for length in range(1, max(LENGTHS) + 1):
        number_of = Counter(run for parts in texts for run in _grams(parts, length, known))
        known = {run: number for run, number in number_of.items() if number >= least}
        if length in LENGTHS:
            found |= known
    return found


def clustered(candidates: Sequence[Gram]) -> dict[Gram, Gram]:
    """Each run -> the leading one of its cluster: the first that shares ALIKE of all words with it, or itself."""
    leaders: list[tuple[frozenset[str], Gram]] = []
    leader_of: dict[Gram, Gram] = {}
    for run in candidates:
        words = frozenset(run)
        same = (leader for of, leader in leaders if len(words & of) >= ALIKE * len(words | of))
        leader_of[run] = next(same, run)
        if leader_of[run] == run:
            leaders.append((words, run))
    return leader_of


def mined(responses: Iterable[str], name: str) -> PhraseList:
    """The phrases of responses that are most widespread (arXiv 2509.03646, with our rule for the clusters).

    Runs of 3 to 5 words that at least two responses and one of RARE contain, most widespread first, ties in
    alphabetical order, at most MOST, are `clustered`. One of KEPT clusters is kept (rounded up), those with a phrase in
    the most responses, each with its first MEMBERS phrases.

    Args:
        responses: their texts.
        name: of the list.

    Raises:
        UserError: no phrase is in two responses.
    """
    texts = [parts_of(text) for text in responses]
    least = max(2, ceil(len(texts) / RARE))
    number_of = frequent(texts, least)
    candidates = sorted(number_of, key=lambda run: (-number_of[run], run))[:MOST]
    if not candidates:
        raise UserError(
            f"--mine {name}: no phrase occurs in at least {least} of the {len(texts)} responses: give more responses"
        )
    leader_of = clustered(candidates)
    spread: Counter[Gram] = Counter()
    for parts in texts:
        runs = (run for length in LENGTHS for run in _grams(parts, length, None))
        spread.update({leader_of[run] for run in runs if run in leader_of})
    order = sorted(spread, key=lambda leader: (-spread[leader], leader))[: ceil(len(spread) / KEPT)]
    members = {leader: [run for run in candidates if leader_of[run] == leader][:MEMBERS] for leader in order}
    pairs = [(" ".join(run), " ".join(leader)) for leader in order for run in members[leader]]
    return PhraseList(name, tuple(phrase for phrase, _ in pairs), tuple(cluster for _, cluster in pairs))


def as_text(phrases: PhraseList) -> str:
    """A list in the form of `read_phrases`."""
    lines: list[str] = []
    for cluster in phrases.cluster_names:
        lines.append(f"[{cluster}]")
        lines += [p for p, of in zip(phrases.phrases, phrases.clusters, strict=True) if of == cluster]
    return "\n".join(lines) + "\n"


def count(text: str, phrases: Sequence[str]) -> list[int]:
    """How often each phrase is in a text, by the rule of `hicra`: complete words, ignoring case."""
    plain = plain_text(text)
    return [sum(1 for _ in occurrences(plain, [phrase])) for phrase in phrases]
