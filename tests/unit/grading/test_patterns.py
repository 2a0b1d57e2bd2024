"""Nothing that a model or a file says takes more than linear time: proven for every pattern, measured for functions."""

from __future__ import annotations

import ast
import importlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from ambiguity import growth
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy.parsing import sympy_parser

from data_prep import contamination, duplicates, sets, shingles, templates
from data_prep.reading import Record
from recipe.grading import countdown, extract, marks, notation, readable, reasoning_gym, sources, strict, units
from recipe.grading.time_limit import time_limit

ROOT = Path(__file__).resolve().parents[3]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("recipe/grading", "data_prep")
    for path in sorted((ROOT / package).glob("*.py"))
    if "import re\n" in path.read_text(encoding="utf-8")
]
METHODS = {"search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer"}


@pytest.fixture(scope="module", autouse=True)
def sympys_own_parser() -> Iterator[None]:
    """`recipe.grading.verify` replaces it when it is imported here; tests that run later need it."""
    before = sympy_parser.parse_expr
    yield
    sympy_parser.parse_expr = before


@pytest.mark.parametrize(
    ("pattern", "use", "expected"),
    [
        ("(a+)+b", "match", "exponential"),
        ("(a|a)*b", "match", "exponential"),
        ("(a|aa)*b", "fullmatch", "exponential"),
        ("(?:a*)*b", "match", "exponential"),
        (r"(?:[A-Za-z][a-z]{2,}|[Nn]o)(?: [A-Za-z]?[a-z]+)*", "fullmatch", "exponential"),
        (r"\\frac\{((?:\\[A-Za-z]+ ?|[0-9A-Za-z])+)\}", "fullmatch", "exponential"),
        (r"\s*\s*x", "match", "polynomial"),
        (r"\s*x", "search", "polynomial"),
        (r"\s+$", "sub", "polynomial"),
        (r"x+(?=\s*\$)", "finditer", "polynomial"),
        ("a(?:.*b)?", "sub", "polynomial"),
        (r"\s*x", "match", "linear"),
        (r"\s+", "sub", "linear"),
        ("a*b*", "fullmatch", "linear"),
        (r"\d+(?:\.\d*)?|\.\d+", "fullmatch", "linear"),
        (r"\d{1,3}(?:,\d{3})+", "sub", "linear"),
        (r"(?i)A[b]+c", "match", "linear"),
    ],
)
def test_the_proof_by_known_patterns(pattern, use, expected):
    assert growth(re.compile(pattern), use) == expected


def test_what_is_called_exponential_is():
    bad = re.compile(r"(?:[A-Za-z][a-z]{2,}|[Nn]o)(?: [A-Za-z]?[a-z]+)*")

    def seconds(times: int) -> float:
        start = time.process_time()
        assert bad.fullmatch("the answer is " * times + "36") is None
        return time.process_time() - start

    assert seconds(6) > 8 * seconds(4)


def patterns(module: str) -> list[tuple[str, re.Pattern[str], str]]:
    """(where, pattern, method) of every use of a regular expression in a module."""
    loaded = importlib.import_module(module)
    tree = ast.parse(Path(loaded.__file__).read_text(encoding="utf-8"))
    held = {name: value for name, value in vars(loaded).items() if isinstance(value, re.Pattern)}
    found, used = [], set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or node.attr not in METHODS or not isinstance(node.value, ast.Name):
            continue
        name, where = node.value.id, f"{module}:{node.lineno}"
        if name in held:
            used.add(name)
            found.append((where, held[name], node.attr))
        elif name == "re":
            (call,) = [c for c in ast.walk(tree) if isinstance(c, ast.Call) and c.func is node]
            found.append((where, re.compile(ast.literal_eval(call.args[0])), node.attr))
        elif node.attr != "split" and not isinstance(
            getattr(loaded, name, None), ModuleType
        ):  # of a string, operator.sub
            assert name in ("pattern", "marker"), f"{where}: {name}.{node.attr}, a pattern that is not known here"
    # Handed over as values: their use is not seen, so the worst is assumed.
    found += [(f"{module}.{name}", pattern, "search") for name, pattern in held.items() if name not in used]
    found += [(f"{module}._REPLACED", pattern, "sub") for pattern, _ in getattr(loaded, "_REPLACED", ())]
    for name, value in vars(loaded).items():
        if getattr(value, "__name__", "") in METHODS and isinstance(getattr(value, "__self__", None), re.Pattern):
            found.append((f"{module}.{name}", value.__self__, value.__name__))
    return found


@pytest.mark.parametrize("module", MODULES)
def test_every_pattern_is_linear(module):
    slow = {where: growth(pattern, use) for where, pattern, use in patterns(module)}
    assert {where: how for where, how in slow.items() if how != "linear"} == {}


def test_the_patterns_are_found():
    assert sum(len(patterns(module)) for module in MODULES) > 90


LONGEST = 100_000
PER_CHARACTER = 40e-6
"""Seconds of processor time for a character, beside ALLOWANCE; about ten times what an idle machine takes."""
ALLOWANCE = 0.25
PHRASES = [
    "the number of ways to choose the first card is equal to the number of ways to choose the second card ",
    "the answer is ",
    "Answer: ",
    "answer",
    "final answer is ",
    "####",
    "wait, ",
    "No no No ",
    r"\frac{",
    r"\frac{\alpha\beta\gamma\delta",
    r"\alpha\beta\gamma\delta",
    r"\text{ or ",
    r"\text{a}",
    r"\boxed{",
    r"\boxed 1 ",
    r"\left( ",
    r"\sqrt",
    r"\mathrm{",
    r"\overline{3}",
    "and or ",
    ",and",
    "{",
    "}",
    "{}",
    "[asy]",
    "[/asy]",
    "1{,}234",
    "1,234",
    "1,",
    "1.2",
    "1 ",
    "0.",
    "!",
    "!=",
    "'",
    "$",
    "$1$,",
    "\\",
    "\\\\",
    "^",
    "^{1.5}",
    "_",
    "=",
    "x=",
    r"\approx",
    "(",
    ")",
    "-",
    "~",
    " ",
    "\n",
    "\t",
    "½",
    "²",
    "√",
    "\u200b",
    "\u0301",
    "ﷺ",
    "中",
    "３",
    "[{'role': ",
    '["',
    "km/h ",
    "square ",
    "per ",
    "1;",
]
FUNCTIONS: dict[str, Callable[[str], object]] = {
    "extract": extract.extract,
    "strict": lambda text: strict.equal(text, "36"),
    "strict.whole": lambda text: strict.normal_form(text[: strict.MAX_LENGTH]),
    "to_latex": notation.to_latex,
    "visible": notation.visible,
    "units": units.parse,
    "split_unit": strict.split_unit,
    "likely_unit": lambda text: strict.likely_unit(text[: strict.MAX_LENGTH]),
    "marks": lambda text: marks.differ(text, "36"),
    "readable": lambda text: _or_error(readable.readable, text[: strict.MAX_LENGTH]),
    "countdown": lambda text: countdown.extract(text),
    "countdown.entry": countdown.check_entry,
    "reasoning_gym.entry": reasoning_gym.check_entry,
    "reference": lambda text: sources.check_ground_truth("math500", text),
    "tokens": shingles.tokens,
    "tokens without figures": lambda text: shingles.tokens(text, figures=False),
    "contamination": lambda text: contamination.find_contamination([text], {"b": [text[:2000]]}),
    "duplicates": lambda text: duplicates.find_duplicates([text, text[::-1]], ["1", "2"], same_answer=strict.equal),
    "strip_foreign": templates.strip_foreign,
    **{
        f"{name}, {column}": lambda text, data_set=data_set, layout=layout, column=column: _or_error(
            sets.read_problem, data_set, layout, Record("row 1", _row(layout, column, text))
        )
        for name, data_set in sets.DATA_SETS.items()
        for layout in data_set.layouts
        for column in (layout.problem, layout.answer)
    },
}
"""Everything that reads a response or a row."""
RESPONSES = {"extract", "strict", "to_latex", "visible", "units", "split_unit", "countdown", "marks"}


def longest_text(name: str) -> int:
    """A response may have any length; a row's fields are refused beyond MAX_PROBLEM before anything reads them."""
    return LONGEST if name in RESPONSES else sets.MAX_PROBLEM


def _row(layout, column: str, text: str) -> dict[str, object]:
    """A row of a layout with `text` in one column, shortened to what is not refused by its length alone."""
    row: dict[str, object] = {}
    for path, value in ((layout.problem, "What is 1+1?"), (layout.answer, r"#### \boxed{2}")):
        limit = sets.MAX_ANSWER if path == layout.answer and layout.parse is sets.plain else sets.MAX_PROBLEM
        value = text[:limit] if path == column else value
        first, _, rest = path.partition(".")
        row[first] = {rest: value} if rest else value
    return row


def _or_error(function: Callable[..., object], *arguments: object) -> object:
    try:
        return function(*arguments)
    except (sets.BadField, readable.Unreadable) as error:
        return error


def seconds(function: Callable[[str], object], text: str) -> float:
    strict.normal_form.cache_clear()
    sets._unreadable.cache_clear()
    start = time.process_time()
    with time_limit(60.0):
        function(text)
    return time.process_time() - start


@pytest.mark.parametrize("name", FUNCTIONS)
def test_repeated_phrases_cost_a_bounded_time_per_character(name):
    longest = longest_text(name)
    for phrase in PHRASES:
        text = (phrase * (longest // len(phrase) + 1))[: longest - 1] + "|"
        taken = seconds(FUNCTIONS[name], text)
        assert taken < ALLOWANCE + PER_CHARACTER * len(text), f"{phrase!r}: {taken:.2f} s for {len(text)} characters"


nested = st.recursive(
    st.sampled_from(PHRASES),
    lambda inner: st.one_of(
        st.tuples(inner, st.integers(1, 40)).map(lambda pair: pair[0] * pair[1]),
        st.lists(inner, min_size=2, max_size=4).map("".join),
        inner.map(lambda text: r"\frac{" + text + "}{" + text + "}"),
        inner.map(lambda text: r"\text{" + text + "}"),
        inner.map(lambda text: r"\boxed{" + text + "}"),
        inner.map(lambda text: "Answer: " + text + " 36"),
    ),
    max_leaves=8,
).map(lambda text: text[:LONGEST])


@settings(max_examples=60, deadline=None)
@given(nested)
def test_any_text_costs_a_bounded_time_per_character(text):
    for name, function in FUNCTIONS.items():
        part = text[: longest_text(name)]
        taken = seconds(function, part)
        assert taken < ALLOWANCE + PER_CHARACTER * len(part), f"{name}: {taken:.2f} s for {len(part)} characters"


REPORTED = [
    "the number of ways to choose the first card is equal to the number of ways to choose the second card since both "
    "of them come from the same deck so we get 36",
    "Answer: " + "the answer is " * 12 + "36",
    r"\frac{" + r"\alpha\beta\gamma\delta" * 5 + "-1}{2}",
]


@pytest.mark.parametrize("text", REPORTED)
def test_sentences_that_hung(text):
    assert seconds(lambda text: strict.equal("36", text), text) < 0.1
    assert strict.equal(text, text) and not strict.equal("36", text)
