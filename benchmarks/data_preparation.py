"""Duplicates and contamination on synthetic problems with planted copies: `python -m benchmarks.data_preparation`

Makes `--rows` training problems (texts as long as DAPO-Math-17k's: 250 characters on average, some of 4,000; one in
twenty all words and no number) and benchmarks of the usual sizes, and plants among the rows

    respelled       another spelling of a row: white space, `$`, LaTeX spacing, \\dfrac, punctuation
    reworded        a row with one in 25 words replaced, at least one
    conflicting     a respelled or reworded row with another answer
    renumbered      a row with one number changed: a different problem
    copied          a benchmark problem, respelled or reworded, half of them inside a longer text
    renumbered      a benchmark problem with one number changed: "other numbers", not a copy

Prints what `find_duplicates` and `find_contamination` find of each, what they find that was not planted, time (wall
clock and CPU, one thread) and the peak resident memory of the process. `--minhash` also searches the near-duplicates by
MinHash LSH with datasketch and rensa (which must be installed) and verifies their candidates by the same rule.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import random
import re
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from data_prep import duplicates
from data_prep.contamination import find_contamination
from data_prep.duplicates import find_duplicates
from data_prep.shingles import formal, jaccard, shingles, tokens

BENCHMARKS = {
    "aime24": 30,
    "aime25": 30,
    "aime26": 30,
    "amc23": 40,
    "amc83": 83,
    "math500": 500,
    "minerva": 272,
    "olympiadbench": 675,
}
PLANTED = 0.02
"""Rows of each planted kind, as a share of all rows."""

PERMUTATIONS = 128
"""Of the MinHash signatures."""

_NOUNS = """
    circle box farmer train garden bottle clock ladder bridge river market basket tower island table window engine
    school teacher student library lamp carpet mirror kitchen street museum painter sailor captain doctor baker pilot
    forest mountain valley desert meadow harbor castle village city field stone feather marble ribbon candle pencil
    notebook letter ticket wagon bicycle balloon robot machine magnet spring pulley tank barrel pipe fence tile plank
""".split()
_ADJECTIVES = """
    red blue green old new heavy light narrow wide quiet noisy round flat broken painted wooden golden silver hidden
    empty full famous clever patient hungry lucky distant nearby frozen sunny rainy dusty polished folded
""".split()
_VERBS = "follows carries paints visits counts moves opens closes lifts meets joins crosses fills marks sells".split()


def formula(rng: random.Random) -> str:
    """A random term in LaTeX."""
    a, b, c = (rng.randint(2, 99) for _ in range(3))
    x = rng.choice("xyzabcmn")
    return rng.choice(
        [
            f"{a}{x}^2 + {b}{x} - {c}",
            f"\\frac{{{a}{x} + {b}}}{{{c}}}",
            f"\\sqrt{{{a}{x} - {b}}} + {c}",
            f"\\log_{{{a}}} ({b}{x})",
            f"{a} \\cdot {b}^{{{x}}} + {c}",
        ]
    )


def narrative(rng: random.Random) -> str:
    """A random sentence without formal tokens."""
    (noun, other), adjective = rng.sample(_NOUNS, 2), rng.choice(_ADJECTIVES)
    return f"Every {adjective} {noun} {rng.choice(_VERBS)} some {rng.choice(_ADJECTIVES)} {other}."


def problem(rng: random.Random, embeddable: bool = False) -> str:
    """A random problem; an `embeddable` one always has numbers and a usual length."""
    if not embeddable and rng.random() < 0.05:
        return " ".join(narrative(rng) for _ in range(rng.randint(3, 8))) + " Who is it?"
    sentences = []
    length = 80 if embeddable else min(3900, rng.lognormvariate(4.6, 0.8))
    while sum(map(len, sentences)) < length:
        a, b = rng.randint(2, 999), rng.randint(2, 99)
        sentences.append(
            rng.choice(
                [
                    f"Let ${rng.choice('pqrs')}$ be the number of ways to paint a {rng.choice(_NOUNS)} in {a} colors.",
                    f"In triangle $ABC$, $AB = {a}$ and $BC = {b}$.",
                    f"A {rng.choice(_NOUNS)} holds {a} {rng.choice(_ADJECTIVES)} and {b} other cards.",
                    f"Suppose that $f({rng.choice('xt')}) = {formula(rng)}$ for all real numbers.",
                    narrative(rng),
                ]
            )
        )
    question = rng.choice(
        ["Find the number of positive integers $n$ such that", "What is the largest value of $k$ with", "Find $k$ if"]
    )
    return f"{' '.join(sentences)} {question} ${formula(rng)} = {rng.randint(2, 9999)}$."


def respelled(text: str, rng: random.Random) -> str:
    """The same problem in another spelling."""
    changes: list[tuple[str, str]] = [
        (" ", "  "),
        ("$", " $ "),
        ("$", ""),
        (" = ", "\\,=\\;"),
        ("\\frac", "\\dfrac"),
        (",", " ,"),
        (".", " ."),
        ("Find", "FIND"),
        ("Every", "every"),
    ]
    for old, new in rng.sample(changes, 4):
        text = text.replace(old, new)
    return text + "\n"


def reworded(text: str, rng: random.Random) -> str:
    """The same problem with one in 25 words replaced, at least one."""
    words = text.split(" ")
    replaceable = [i for i, word in enumerate(words) if word.isalpha() and len(word) > 3 and word.islower()]
    replaceable = [i for i in replaceable if words[i] not in ("such", "largest", "triangle", "positive", "real")]
    for i in rng.sample(replaceable, min(len(replaceable), max(1, len(words) // 25))):
        words[i] = rng.choice(["suitable", "given", "certain", "respective"])
    return " ".join(words)


def renumbered(text: str, rng: random.Random) -> str:
    """A different problem: one number is larger by one."""
    chosen = rng.choice(list(re.finditer(r"\d+", text)))
    return f"{text[: chosen.start()]}{int(chosen.group()) + 1}{text[chosen.end() :]}"


def edited(text: str, rng: random.Random) -> str:
    """Respelled or reworded."""
    return rng.choice([respelled, reworded])(text, rng)


@dataclass
class Rows:
    """Training rows in random order, and the positions of the planted ones.

    pairs: per kind, an original and what was made of it (row numbers).
    copied, renumbered: benchmark name, problem number and row.
    """

    texts: list[str]
    answers: list[str]
    pairs: dict[str, list[tuple[int, int]]]
    benchmarks: dict[str, list[str]]
    copied: set[tuple[str, int, int]]
    renumbered: set[tuple[str, int, int]]


def make(count: int, seed: int) -> Rows:
    """`count` rows with PLANTED of each kind among them, and the benchmarks."""
    rng = random.Random(seed)
    share = int(count * PLANTED)
    benchmarks = {name: [problem(rng, embeddable=True) for _ in range(size)] for name, size in BENCHMARKS.items()}
    places = [(name, i) for name, size in BENCHMARKS.items() for i in range(size)]

    texts = [problem(rng) for _ in range(count - 5 * share)]
    answers = [str(rng.randint(0, 999)) for _ in texts]
    with_number = [i for i, text in enumerate(texts) if re.search(r"\d", text)]
    originals = iter(rng.sample(with_number, 4 * share))
    made: dict[str, list[tuple[int, int]]] = {}
    for kind, edit in {
        "respelled": respelled,
        "reworded": reworded,
        "conflicting": edited,
        "renumbered": renumbered,
    }.items():
        made[kind] = []
        for _ in range(share):
            i = next(originals)
            made[kind].append((i, len(texts)))
            texts.append(edit(texts[i], rng))
            answers.append(answers[i] + ("" if kind != "conflicting" else "1"))

    chosen = rng.sample(places, min(share, len(places)))
    copied, other = [], []
    for k, (name, i) in enumerate(chosen):
        where, text = (other, renumbered) if k % 3 == 0 else (copied, edited)
        where.append((name, i, len(texts)))
        inside = text(benchmarks[name][i], rng)
        texts.append(f"{problem(rng)} {inside} {narrative(rng)}" if k % 2 else inside)
        answers.append("0")

    order = list(range(len(texts)))
    rng.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    return Rows(
        texts=[texts[old] for old in order],
        answers=[answers[old] for old in order],
        pairs={kind: [(place[a], place[b]) for a, b in pairs] for kind, pairs in made.items()},
        benchmarks=benchmarks,
        copied={(name, i, place[row]) for name, i, row in copied},
        renumbered={(name, i, place[row]) for name, i, row in other},
    )


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print what a block took."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{what:<34}{wall:8.1f} s wall {cpu:8.1f} s CPU   peak resident {peak:.2f} GiB", flush=True)


def show(what: str, found: int, planted: int) -> None:
    """One line: found of planted."""
    print(f"  {what:<46}{found:>7} of {planted}")


def check_duplicates(rows: Rows) -> None:
    """Time `find_duplicates` and compare with what was planted."""
    with timed(f"find_duplicates, {len(rows.texts)} rows"):
        found = find_duplicates(rows.texts, rows.answers, same_answer=str.__eq__)
    group = {row: g for g in found.groups for row in g.members}
    together = {
        kind: sum(a in group and group[a] is group.get(b) for a, b in pairs) for kind, pairs in rows.pairs.items()
    }
    for kind in ("respelled", "reworded", "conflicting"):
        show(f"{kind}: in one group", together[kind], len(rows.pairs[kind]))
    conflicting = {frozenset(pair) for pair in rows.pairs["conflicting"]}
    show("conflicting: named as such", sum(set(g.members) in conflicting for g in found.conflicts), len(conflicting))
    show("renumbered: wrongly in one group", together["renumbered"], len(rows.pairs["renumbered"]))
    planted = {row for pairs in rows.pairs.values() for pair in pairs for row in pair}
    show("not planted: wrongly in a group", len(set(group) - planted), len(rows.texts) - len(planted))


def check_contamination(rows: Rows) -> None:
    """Time `find_contamination` and compare with what was planted."""
    with timed(f"find_contamination, {sum(map(len, rows.benchmarks.values()))} problems"):
        found = find_contamination(rows.texts, rows.benchmarks)
    copies = {(name, m.problem, m.row) for name, overlap in found.benchmarks.items() for m in overlap.copies}
    others = {(name, m.problem, m.row) for name, overlap in found.benchmarks.items() for m in overlap.other_numbers}
    show("copied: found as copy", len(copies & rows.copied), len(rows.copied))
    show("renumbered: found as other numbers", len(others & rows.renumbered), len(rows.renumbered))
    show("renumbered: wrongly a copy", len(copies & rows.renumbered), len(rows.renumbered))
    show("not planted: wrongly a copy", len(copies - rows.copied - rows.renumbered), len(rows.texts))
    show(
        "not planted: other numbers",
        len(others - rows.copied - rows.renumbered),
        sum(map(len, rows.benchmarks.values())),
    )


def datasketch_pairs(sets: list[set[str]]) -> set[tuple[int, int]]:
    """Candidates by datasketch's MinHash and LSH."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=duplicates.THRESHOLD, num_perm=PERMUTATIONS)
    pairs = set()
    signatures = MinHash.generator(([s.encode() for s in x] for x in sets), num_perm=PERMUTATIONS)
    for i, signature in enumerate(signatures):
        pairs.update((j, i) for j in index.query(signature))
        index.insert(i, signature, check_duplication=False)
    return pairs


def rensa_pairs(sets: list[set[str]]) -> set[tuple[int, int]]:
    """Candidates by rensa's R-MinHash and LSH."""
    from rensa import RMinHash, RMinHashLSH

    index = RMinHashLSH(threshold=duplicates.THRESHOLD, num_perm=PERMUTATIONS, num_bands=32)
    pairs = set()
    for i, x in enumerate(sets):
        signature = RMinHash(num_perm=PERMUTATIONS, seed=0)
        signature.update(sorted(x))
        pairs.update((j, i) for j in index.query(signature))
        index.insert(i, signature)
    return pairs


def compare(rows: Rows) -> None:
    """Pairs of near-duplicates by MinHash LSH, verified by the same rule, against all that there are."""
    problems = {" ".join(tokens(text)): i for i, text in enumerate(rows.texts)}
    found = [problem.split() for problem in problems]
    sets = [{" ".join(s) for s in shingles(x, duplicates.SHINGLE)} for x in found]
    keys = [formal(x) for x in found]

    def verified(pairs: set[tuple[int, int]]) -> set[tuple[int, int]]:
        return {(i, j) for i, j in pairs if keys[i] == keys[j] and jaccard(sets[i], sets[j]) >= duplicates.THRESHOLD}

    methods: dict[str, Callable] = {"datasketch": datasketch_pairs, "rensa": rensa_pairs}
    blocks: dict[tuple, list[int]] = {}
    for i, key in enumerate(keys):
        blocks.setdefault(key, []).append(i)
    every = verified({(i, j) for block in blocks.values() for i in block for j in block if i < j})
    for name, method in methods.items():
        with timed(f"{name} {importlib.metadata.version(name)}, {PERMUTATIONS} permutations"):
            pairs = verified(method(sets))
        show("near-duplicate pairs", len(pairs), len(every))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minhash", action="store_true", help="also run datasketch and rensa")
    options = parser.parse_args()
    rows = make(options.rows, options.seed)
    lengths = [len(text) for text in rows.texts]
    print(f"{len(lengths)} rows, {sum(lengths) / len(lengths):.0f} characters on average, longest {max(lengths)}")
    check_duplicates(rows)
    check_contamination(rows)
    if options.minhash:
        compare(rows)


if __name__ == "__main__":
    main()
