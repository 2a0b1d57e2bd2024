r"""Word problems in the manner of GSM8K, made here: templates filled with numbers, names and things, worked to a box.

    user       Ana buys 4 pens at $1.50 each and pays with a $10 bill. How much change does Ana get?

               Please reason step by step, and put your final answer within \boxed{}.
    assistant  The pens cost 4*1.50=6 dollars. Ana gets back 10-6=4 dollars. The answer is \boxed{\$4}.

One to three steps of arithmetic; amounts of money, percentages, fractions and measured quantities are answered with
their sign or unit. A problem's key is its template and its numbers: no two problems of a seed share one, so that the
splits share nothing but templates, names and things.

    python -m data_prep.word_problems --output DIR [--train 2048 --validation 100 --seed 0]
"""

from __future__ import annotations

import argparse
import json
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import chain, product, zip_longest
from pathlib import Path
from random import Random
from typing import Any

from data_prep.contract import write_parquet
from data_prep.files import TRAIN_FILE, VALIDATION_FILE, WARM_START_FILE, atomic_write
from data_prep.prepare import contract_rows
from data_prep.progress import with_progress
from data_prep.sets import Problem as Row
from data_prep.templates import DEFAULT, TEMPLATES, render
from recipe.grading import strict
from recipe.grading.extract import extract

DATA_SOURCE = "word_problems"
HELD_OUT = 64
"""Problems that measure the warm start."""
MAX_KEYS = 400
"""Problems of one template at most, so that templates with many possible numbers do not dominate."""
MAX_VALUE = 150
"""Largest number in a problem or in its solution."""

NAMES = "Ana Ben Cleo Dan Eva Finn Gia Hugo Iris Jon Kim Leo Mia Noah Olga Paul Rosa Sam Tom Uma".split()
THINGS = "pens books stamps shells coins cards stickers marbles apples pears cookies tickets".split()
ITEMS = "cup pen book lamp scarf plate kite ball hat mug".split()
INSTRUMENTS = "flute piano violin guitar cello harp".split()
COLORS = "red blue green yellow white black".split()

CLOSINGS = (r"The answer is \boxed{{{}}}.", r"So the answer is $\boxed{{{}}}$.")
PRICES = (*map(Fraction, ("0.50", "1.50", "2.50", "3.50")), *range(1, 7))

_OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


@dataclass(frozen=True, eq=False)
class Template:
    """A kind of problem.

    question: with {a}, {b}, ... for numbers and {name}, {other}, {things}, {item}, {second}, {instrument}, {color}.
    steps: sentences of the solution, {} standing for the equation, each with the expression that it evaluates from
        left to right; `x` is the result of the first step, `y` that of the second.
    form: form of the answer: "count", "money", "percent", "fraction", or a unit.
    numbers: for each letter the values that it may have.
    """

    name: str
    question: str
    steps: tuple[tuple[str, str], ...]
    form: str
    numbers: Mapping[str, Sequence[int | Fraction]]


TEMPLATES_OF_PROBLEMS = (
    Template(
        "more",
        "{name} has {a} {things} and buys {b} more. How many {things} does {name} have now?",
        (("{name} has {} {things}.", "a+b"),),
        "count",
        {"a": range(2, 25), "b": range(2, 11)},
    ),
    Template(
        "boxes",
        "{name} fills {a} boxes with {b} {things} each and gives away {c} of the {things}. How many {things} are left?",
        (("{name} has {} {things}.", "a*b"), ("Then {} {things} are left.", "x-c")),
        "count",
        {"a": range(2, 8), "b": range(2, 8), "c": range(2, 10)},
    ),
    Template(
        "sharing",
        "{a} friends share {b} {things} equally, and each of them buys {c} more. How many {things} does each have?",
        (("Each gets {} {things}.", "b/a"), ("Then each has {} {things}.", "x+c")),
        "count",
        {"a": range(2, 8), "b": range(4, 50), "c": range(2, 10)},
    ),
    Template(
        "rows",
        "{name} plants {a} rows of {b} roses and {c} rows of {d} tulips. How many flowers does {name} plant?",
        (("There are {} roses.", "a*b"), ("There are {} tulips.", "c*d"), ("In all {} flowers.", "x+y")),
        "count",
        {letter: range(2, 8) for letter in "abcd"},
    ),
    Template(
        "average",
        "{name} scores {a}, {b} and {c} points in three games. What is the average score of {name}?",
        (("The sum is {} points.", "a+b+c"), ("The average is {} points.", "x/3")),
        "count",
        {letter: range(2, 11) for letter in "abc"},
    ),
    Template(
        "cost",
        "A {item} costs ${a} and a {second} costs ${b}. How much do {c} {item}s and one {second} cost?",
        (("The {item}s cost {} dollars.", "c*a"), ("Together they cost {} dollars.", "x+b")),
        "money",
        {"a": range(2, 8), "b": range(2, 10), "c": range(2, 8)},
    ),
    Template(
        "change",
        "{name} buys {a} {things} at ${b} each and pays with a ${c} bill. How much change does {name} get?",
        (("The {things} cost {} dollars.", "a*b"), ("{name} gets back {} dollars.", "c-x")),
        "money",
        {"a": range(2, 10), "b": PRICES, "c": (10, 20, 30)},
    ),
    Template(
        "discount",
        "A {item} costs ${a}. Its price falls by {b}%. What is the new price?",
        (("It falls by {} dollars.", "a*b/100"), ("The new price is {} dollars.", "a-x")),
        "money",
        {"a": range(10, 90, 2), "b": (10, 25, 50)},
    ),
    Template(
        "savings",
        "{name} saves ${a} a week for {b} weeks, spends ${c} and then earns ${d}. How much money does {name} have?",
        (
            ("{name} saves {} dollars.", "a*b"),
            ("Then {} dollars are left.", "x-c"),
            ("In the end {name} has {} dollars.", "y+d"),
        ),
        "money",
        {"a": range(2, 7), "b": range(2, 7), "c": range(2, 8), "d": range(2, 8)},
    ),
    Template(
        "share of",
        "{a}% of the {b} students in a school play the {instrument}. How many students play the {instrument}?",
        (("The {instrument} is played by {} students.", "b*a/100"),),
        "students",
        {"a": (10, 20, 25, 40, 50), "b": range(10, 151, 2)},
    ),
    Template(
        "percentage",
        "{a} of the {b} {things} of {name} are {color}. What percentage of the {things} is {color}?",
        (("The share is {} percent.", "100*a/b"),),
        "percent",
        {"a": range(1, 50), "b": (5, 10, 20, 25, 50)},
    ),
    Template(
        "fraction",
        "A cake is cut into {a} pieces and {name} eats {b} of them. What fraction of the cake is left?",
        (("There are {} pieces left.", "a-b"), ("That is {} of the cake.", "x/a")),
        "fraction",
        {"a": range(4, 31), "b": range(1, 24)},
    ),
    Template(
        "distance",
        "{name} rides at {a} km an hour for {b} hours and then walks {c} km. How far does {name} get?",
        (("{name} rides {} km.", "a*b"), ("In all {} km.", "x+c")),
        "km",
        {"a": range(3, 11), "b": range(2, 7), "c": range(2, 10)},
    ),
    Template(
        "reading",
        "{name} needs {a} minutes for a page. How many hours does {name} need for {b} pages?",
        (("The pages take {} minutes.", "a*b"), ("That is {} hours.", "x/60")),
        "hours",
        {"a": range(2, 11), "b": range(3, 61)},
    ),
    Template(
        "age",
        "{name} is {a} years old, and {other} is {b} times as old. How old will {other} be in {c} years?",
        (("{other} is {} years old.", "a*b"), ("In {c} years it will be {} years.", "x+c")),
        "years",
        {"a": range(3, 11), "b": range(2, 6), "c": range(2, 10)},
    ),
)

Key = tuple[str, tuple[Fraction, ...]]


@dataclass(frozen=True)
class Problem:
    """question: without template. answer: the reference. solutions: all correct; the first has `answer` in its box."""

    key: Key
    question: str
    answer: str
    solutions: tuple[str, ...]

    @property
    def text(self) -> str:
        """The user's turn."""
        return render(TEMPLATES[DEFAULT], self.question)


def written(value: Fraction, form: str) -> str:
    """A number as it is usually written: 12, 1.50 (money), 0.75, and 3/4 if the answer is a fraction."""
    if value.denominator == 1:
        return str(value)
    if form == "fraction":
        return f"{value.numerator}/{value.denominator}"
    decimals = f"{float(value):.2f}"
    return decimals if form == "money" else decimals.rstrip("0")


def answers(value: Fraction, form: str) -> list[str]:
    """The ways to write an answer in the box; the first is the reference."""
    number = written(value, form)
    match form:
        case "count":
            return [number]
        case "money":
            return [rf"\${number}", number, rf"{number}\text{{ dollars}}"]
        case "percent":
            return [rf"{number}\%", number, rf"{number}\text{{ percent}}"]
        case "fraction":
            return [rf"\frac{{{value.numerator}}}{{{value.denominator}}}", number]
        case unit:
            return [rf"{number}\text{{ {unit}}}", number, f"{number} {unit}"]


def worked(template: Template, numbers: Mapping[str, Fraction]) -> list[tuple[str, Fraction]] | None:
    """The equation and the result of every step; None if the numbers do not make a valid problem.

    They do if every result is a number above 0 and not above MAX_VALUE, an integer or with at most two decimals (a
    fraction only if the answer is one, and then reduced in the solution), counts are integers, and
    percentages are below 100.
    """
    values, steps = dict(numbers), []
    limit = 99 if template.form == "percent" else MAX_VALUE
    for result, (_, expression) in zip("xyz", template.steps, strict=False):
        operands = re.split(r"([-+*/])", expression)
        terms = [values.get(term) or Fraction(term) for term in operands[::2]]
        value = terms[0]
        for sign, term in zip(operands[1::2], terms[1:], strict=True):
            value = _OPERATORS[sign](value, term)
        last = len(steps) == len(template.steps) - 1
        fraction = last and template.form == "fraction"
        whole = not fraction and template.form not in ("money", "hours")
        if not 0 < value <= limit or (whole and value.denominator > 1) or (not fraction and (value * 100) % 1):
            return None
        left = "".join(operands[i] if i % 2 else written(terms[i // 2], template.form) for i in range(len(operands)))
        right = written(value, template.form)
        if left == right or (fraction and value.denominator == 1):
            return None
        values[result] = value
        steps.append((f"{left}={right}", value))
    return steps


@cache
def keys(template: Template) -> tuple[Key, ...]:
    """All keys with which the template makes a valid problem."""
    exact = [tuple(map(Fraction, numbers)) for numbers in product(*template.numbers.values())]
    good = (numbers for numbers in exact if worked(template, dict(zip(template.numbers, numbers, strict=True))))
    return tuple((template.name, numbers) for numbers in good)


def fill(template: Template, numbers: Sequence[Fraction], rng: Random) -> Problem:
    """The problem with these numbers, and names and things drawn by `rng`."""
    (name, other), (item, second) = rng.sample(NAMES, 2), rng.sample(ITEMS, 2)
    words = {"name": name, "other": other, "item": item, "second": second, "things": rng.choice(THINGS)}
    words |= {"instrument": rng.choice(INSTRUMENTS), "color": rng.choice(COLORS)}
    given = dict(zip(template.numbers, numbers, strict=True))
    words |= {letter: written(value, "money") for letter, value in given.items()}
    steps = worked(template, given)
    if steps is None:
        raise ValueError(f"template {template.name}: {given} do not make a valid problem; take them from keys()")
    sentences = [
        sentence.format(equation, **words) for (sentence, _), (equation, _) in zip(template.steps, steps, strict=True)
    ]
    boxes = answers(steps[-1][1], template.form)
    solutions = [" ".join([*sentences, closing.format(box)]) for closing in CLOSINGS for box in boxes]
    return Problem((template.name, tuple(numbers)), template.question.format(**words), boxes[0], tuple(solutions))


@dataclass(frozen=True)
class Pools:
    """Problems by use, no two with the same key; the warm start trains on all of `practice`, RL on the first of it."""

    practice: list[Problem]
    validation: list[Problem]
    held_out: list[Problem]


def split(validation: int, held_out: int = HELD_OUT, seed: int = 0, progress: bool = False) -> Pools:
    """All problems of a seed, in turn from every template, so that each pool has all of them.

    Raises:
        ValueError: there are not enough problems.
    """
    rng = Random(f"word problems {seed}")
    drawn = []
    for template in with_progress(TEMPLATES_OF_PROBLEMS, label="templates", show=progress):
        found = keys(template)
        drawn.append([(template, numbers) for _, numbers in rng.sample(found, min(len(found), MAX_KEYS))])
    # One of every template in turn; an exhausted template is skipped.
    turns = chain.from_iterable(zip_longest(*drawn))
    problems = [fill(template, numbers, rng) for template, numbers in filter(None, turns)]
    reserved = validation + held_out
    if reserved >= len(problems):
        raise ValueError(
            f"{reserved} validation and held-out problems leave none of the {len(problems)} for training; request fewer"
        )
    return Pools(problems[reserved:], problems[:validation], problems[validation:reserved])


def rows(problems: Sequence[Problem], split: str) -> list[dict[str, Any]]:
    """Rows of verl's contract, as those of every mathematical set; `extra_info.source` is the key."""
    return contract_rows(
        DATA_SOURCE,
        split,
        [Row(p.question, p.answer, f"{split}/{i}", _where(p.key), False) for i, p in enumerate(problems)],
        DEFAULT,
    )


def _where(key: Key) -> str:
    return f"{key[0]} {', '.join(map(str, key[1]))}"


def prompts(line: Mapping[str, Any]) -> list[str]:
    """The user turn of a line of warm_start.jsonl."""
    return [line["prompt"]]


def responses(line: Mapping[str, Any]) -> list[str]:
    """The correct responses of a line."""
    return line["solutions"]


def score(line: Mapping[str, Any], response: str) -> float:
    """1.0 if the strict rule, by which training scores too, finds the line's answer in the response; else 0.0."""
    found = extract(response)
    return float(found is not None and strict.equal(line["answer"], found))


def write(output: str | Path, train: int = 2048, validation: int = 100, seed: int = 0, progress: bool = False) -> str:
    """Write train.parquet, validation.parquet and warm_start.jsonl to the folder `output`.

    A line of warm_start.jsonl is {"split": "train" | "held_out", "prompt", "answer", "solutions"}.

    Returns:
        One line that says what was written.

    Raises:
        ValueError: there are not enough problems.
    """
    output = Path(output)
    pools = split(validation, seed=seed, progress=progress)
    if train > len(pools.practice):
        raise ValueError(f"{train} training rows, but there are only {len(pools.practice)} problems; request fewer")
    write_parquet(rows(pools.practice[:train], "train"), output / TRAIN_FILE)
    write_parquet(rows(pools.validation, "validation"), output / VALIDATION_FILE)
    with atomic_write(output / WARM_START_FILE) as partial, partial.open("w", encoding="utf-8") as file:
        for name, pool in (("train", pools.practice), ("held_out", pools.held_out)):
            for p in pool:
                line = {"split": name, "prompt": p.text, "answer": p.answer, "solutions": p.solutions}
                file.write(json.dumps(line) + "\n")
    return (
        f"{output}: {train} training and {validation} validation rows, "
        f"{len(pools.practice)} problems for the warm start, and {len(pools.held_out)} held out from it"
    )


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Writes the data of the word problems.")
    parser.add_argument("--output", type=Path, required=True, help="folder for the three files")
    parser.add_argument("--train", type=int, default=2048, help="training rows")
    parser.add_argument("--validation", type=int, default=100, help="validation rows")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(write(options.output, options.train, options.validation, options.seed, progress=True))


if __name__ == "__main__":
    main()
