"""The quick start's task: reach a target from three numbers with + - *, generated and scored by reasoning_gym.

    user       7 5 1 > 2
    assistant  7-5=2,1*2=2;1*(7-5)

The steps combine any two of the numbers that remain, in any order; the expression follows the semicolon, and only
that is scored. A problem has several correct traces, so a policy has something to lose when its entropy collapses.

    python -m data_prep.countdown --output DIR [--train 2048 --validation 100 --seed 0]
"""

import argparse
import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations_with_replacement, permutations
from pathlib import Path
from random import Random
from typing import Any

from reasoning_gym.games.countdown import CountdownConfig, CountdownDataset

from data_prep.contract import write_parquet
from data_prep.files import TRAIN_FILE, VALIDATION_FILE, WARM_START_FILE, atomic_write
from data_prep.progress import with_progress
from recipe.grading import countdown as scorer

PROMPT_TEMPLATE = "{numbers} > {target}"

NUMBERS, MAX_VALUE, MAX_TARGET = 3, 9, 99

SEED_STRIDE = 10**6
"""reasoning_gym seeds item i with seed + i, so pools with closer seeds would share items."""

Key = tuple[tuple[int, ...], int]


@dataclass(frozen=True)
class Problem:
    """Numbers in the order of the prompt, and the target."""

    numbers: tuple[int, ...]
    target: int

    @cached_property
    def key(self) -> Key:
        """Identifies a problem regardless of the order of its numbers; splits are disjoint in this key."""
        return tuple(sorted(self.numbers)), self.target

    @property
    def text(self) -> str:
        """The user's turn."""
        return PROMPT_TEMPLATE.format(numbers=" ".join(map(str, self.numbers)), target=self.target)


def problems(
    count: int,
    seed: int,
    exclude: Collection[Key] = (),
    distinct_keys: bool = False,
    progress: str | None = None,
    numbers: int = NUMBERS,
) -> list[Problem]:
    """The first `count` distinct problems that the library generates from `seed`.

    Args:
        exclude: keys to skip.
        distinct_keys: also skip reorderings of a problem's numbers.
        progress: label of the progress, None for none.
        numbers: how many numbers a problem has.

    Raises:
        ValueError: fewer distinct problems were found. With three numbers there are 1,860 keys and 9,500 prompts.
    """
    # Well below the stride, and the share of repetitions is then so high that continuing would not help.
    size = min(SEED_STRIDE, 2000 + 20 * count)
    dataset = CountdownDataset(
        CountdownConfig(
            min_numbers=numbers,
            max_numbers=numbers,
            min_value=1,
            max_value=MAX_VALUE,
            min_target=1,
            max_target=MAX_TARGET,
            operators=("+", "-", "*"),
            seed=seed,
            size=size,
        )
    )
    found: dict[Key | Problem, Problem] = {}
    with with_progress(total=count, label=progress or "", show=progress is not None) as bar:
        for index in range(size):
            metadata = dataset[index]["metadata"]
            problem = Problem(tuple(metadata["numbers"]), metadata["target"])
            identity = problem.key if distinct_keys else problem
            if problem.key not in exclude and identity not in found:
                found[identity] = problem
                bar.update()
            if len(found) == count:
                return list(found.values())
    raise ValueError(f"only {len(found)} of {count} distinct problems in {size} items from seed {seed}; request fewer")


def correct_traces(numbers: Collection[int], target: int) -> list[str]:
    """Every distinct correct response to a problem, sorted.

    Intermediate values are never negative (a minus sign is always an operator), and the expression has no more
    parentheses than its meaning needs.
    """
    return _traces(tuple(sorted(numbers))).get(target, [])


def solvable(numbers: int = NUMBERS) -> list[Key]:
    """Every problem there is with so many numbers of 1..9 and a target of 1..99: with three, 1,864 keys."""
    return [
        (given, target)
        for given in combinations_with_replacement(range(1, MAX_VALUE + 1), numbers)
        for target in sorted(_traces(given))
        if 1 <= target <= MAX_TARGET
    ]


@cache
def _traces(numbers: tuple[int, ...]) -> dict[int, list[str]]:
    """All traces of these numbers, by the value that they reach."""
    found: dict[int, set[str]] = {}
    for value, steps, text in _reduce([(n, str(n), 3) for n in numbers]):
        found.setdefault(value, set()).add(f"{','.join(steps)};{text}")
    return {value: sorted(traces) for value, traces in found.items()}


def _reduce(terms: list[tuple[int, str, int]]) -> Iterator[tuple[int, list[str], str]]:
    """Every way to reduce terms to one: value, steps, expression.

    Terms are (value, expression, binding strength: 3 a number, 2 a product, 1 a sum or difference).
    """
    if len(terms) == 1:
        value, text, _ = terms[0]
        yield value, [], text
        return
    for i, j in permutations(range(len(terms)), 2):
        (a, left, left_strength), (b, right, right_strength) = terms[i], terms[j]
        rest = [term for k, term in enumerate(terms) if k not in (i, j)]
        for operator, value, strength in (("+", a + b, 1), ("-", a - b, 1), ("*", a * b, 2)):
            if value < 0:
                continue
            # At equal strength only the right side of a minus would change its meaning without parentheses.
            wrap_right = right_strength < strength or (operator == "-" and right_strength == strength)
            text = (
                (f"({left})" if left_strength < strength else left) + operator + (f"({right})" if wrap_right else right)
            )
            for result, steps, expression in _reduce([*rest, (value, text, strength)]):
                yield result, [f"{a}{operator}{b}={value}", *steps], expression


def prompts(line: Mapping[str, Any]) -> list[str]:
    """The user turns of a line of warm_start.jsonl: its numbers in every order, the given one first."""
    return [Problem(order, line["target"]).text for order in dict.fromkeys(permutations(line["numbers"]))]


def responses(line: Mapping[str, Any]) -> list[str]:
    """The correct responses of a line: its traces."""
    return line["traces"]


def score(line: Mapping[str, Any], response: str) -> float:
    """The library's score, 0 or 1, of a response to a line of warm_start.jsonl."""
    (row,) = rows([Problem(tuple(line["numbers"]), line["target"])], line["split"])
    return float(scorer.score(response, row["reward_model"]["ground_truth"])[0])


def rows(pool: Collection[Problem], split: str) -> list[dict[str, Any]]:
    """Rows of verl's contract; the ground truth is the entry for the library's scorer, as JSON."""
    return [
        {
            "data_source": scorer.DATA_SOURCE,
            "prompt": [{"role": "user", "content": problem.text}],
            "ability": "math",
            "reward_model": {
                "style": "rule",
                "ground_truth": json.dumps({"metadata": {"numbers": problem.numbers, "target": problem.target}}),
            },
            "extra_info": {"split": split, "index": index, "prompt_template": PROMPT_TEMPLATE},
        }
        for index, problem in enumerate(pool)
    ]


@dataclass(frozen=True)
class Pools:
    """Three pools with no key in common; `held_out` measures the warm start, `validation` the RL run."""

    train: list[Problem]
    validation: list[Problem]
    held_out: list[Problem]

    def __post_init__(self) -> None:
        train, validation, held_out = ({p.key for p in pool} for pool in (self.train, self.validation, self.held_out))
        shared = (train & validation) | (train & held_out) | (validation & held_out)
        if shared:
            raise ValueError(
                f"the pools share {len(shared)} problems, one of them {min(shared)}; draw them so that they do not "
                "overlap"
            )


def split(
    train: int, validation: int, held_out: int = 64, seed: int = 0, progress: bool = False, numbers: int = NUMBERS
) -> Pools:
    """Draw the pools, smallest first, each from its own seed range and without the keys of those before it."""
    base = 3 * SEED_STRIDE * seed

    def draw(count: int, pool: int, exclude: set[Key], name: str, distinct_keys: bool) -> list[Problem]:
        label = name if progress else None
        return problems(count, base + pool * SEED_STRIDE, exclude, distinct_keys, label, numbers)

    validation_pool = draw(validation, 0, set(), "validation", True)
    taken = {problem.key for problem in validation_pool}
    held_out_pool = draw(held_out, 1, taken, "held out", True)
    taken |= {problem.key for problem in held_out_pool}
    return Pools(draw(train, 2, taken, "train", False), validation_pool, held_out_pool)


def write(
    output: str | Path,
    train: int = 2048,
    validation: int = 100,
    seed: int = 0,
    progress: bool = False,
    numbers: int = NUMBERS,
    practice: int | None = None,
) -> str:
    """Write train.parquet, validation.parquet and warm_start.jsonl to the folder `output`.

    A line of warm_start.jsonl is {"split": "train" | "held_out", "numbers", "target", "traces"}, one per key; the
    traces are those of `correct_traces`. The warm start practises on every problem that is in neither validation nor
    held_out, or on `practice` of them.

    Returns:
        One line that says what was written.
    """
    output = Path(output)
    pools = split(train, validation, seed=seed, progress=progress, numbers=numbers)
    write_parquet(rows(pools.train, "train"), output / TRAIN_FILE)
    write_parquet(rows(pools.validation, "validation"), output / VALIDATION_FILE)
    held_out = [problem.key for problem in pools.held_out]
    reserved = {*held_out, *(problem.key for problem in pools.validation)}
    free = [key for key in solvable(numbers) if key not in reserved]
    practised = free if practice is None else sorted(Random(f"countdown {seed}").sample(free, practice))
    with atomic_write(output / WARM_START_FILE) as partial, partial.open("w", encoding="utf-8") as file:
        for name, keys in (("train", practised), ("held_out", held_out)):
            for given, target in keys:
                traces = correct_traces(given, target)
                line = {"split": name, "numbers": given, "target": target, "traces": traces}
                file.write(json.dumps(line) + "\n")
    return (
        f"{output}: {len(pools.train)} training and {len(pools.validation)} validation rows, "
        f"{len(practised)} problems for the warm start, and {len(held_out)} held out from it"
    )


def main() -> int:
    """Command line of this module: 0 done, 2 refused with one sentence on stderr."""
    parser = argparse.ArgumentParser(description="Writes the data of the countdown task.")
    parser.add_argument("--output", type=Path, required=True, help="folder for the three files")
    parser.add_argument("--train", type=int, default=2048, help="training rows")
    parser.add_argument("--validation", type=int, default=100, help="validation rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    options = parser.parse_args()
    for name in (TRAIN_FILE, VALIDATION_FILE, WARM_START_FILE):
        if os.path.lexists(options.output / name) and not options.overwrite:
            file = options.output / name
            print(f"error: {file} exists: pass --overwrite to replace it, or choose another --output", file=sys.stderr)
            return 2
    try:
        print(write(options.output, options.train, options.validation, options.seed, progress=True))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
