"""Scorers from outside the repository, in the real processes: what they may return, and what they cannot break."""

from __future__ import annotations

import os
import time

import numpy
import pytest

from recipe.grading import pool as grader_pool
from recipe.grading import scorers, sources
from recipe.grading.pool import GraderPool, ScoredVerdict, Verdict

PACKAGE = """
import math, os, signal, socket, subprocess, sys, threading, time
from decimal import Decimal

def words(response, ground_truth, extra):
    "The share of the reference's words that the response has."
    wanted = ground_truth.split()
    share = sum(word in response.split() for word in wanted) / len(wanted)
    return share, {"answer": response.strip() or None, "length": len(response)}

def plain(response, truth, extra):
    return response == truth

def by_row(response, truth, extra):
    return extra["weight"] if response == truth else 0.0

def needs(response, truth, extra):
    return extra["weight"]

def loop(response, truth, extra):
    while response == "bad":
        pass
    return 1.0

def sleep(response, truth, extra):
    time.sleep(1000 if response == "bad" else 0)
    return 1.0

def leave(response, truth, extra):
    if response == "bad":
        os._exit(0)
    return 1.0

def quit(response, truth, extra):
    if response == "bad":
        sys.exit(0)
    return 1.0

def memory(response, truth, extra):
    if response == "bad":
        return len(bytearray(8 << 30))
    return 1.0

def chatty(response, truth, extra):
    if response == "bad":
        for _ in range(100):
            print("x" * (1 << 20))
            print("y" * (1 << 20), file=sys.stderr)
    return 1.0

def recursion(response, truth, extra):
    return recursion(response, truth, extra) if response == "bad" else 1.0

def raises(response, truth, extra):
    if response == "bad":
        raise KeyError("nothing here")
    return 1.0

def kills(response, truth, extra):
    if response == "bad":
        os.kill(os.getppid(), signal.SIGKILL)
    return 1.0

def starts(response, truth, extra):
    if response == "bad":
        subprocess.run(["true"])
    return 1.0

def runs(response, truth, extra):
    return eval("2 - 1") if response == "bad" else 1.0

def pipe(response, truth, extra):
    if response == "bad":
        for descriptor in range(3, 64):
            try:
                os.write(descriptor, b"1\\n")
            except OSError:
                pass
    return 1.0

def flood(response, truth, extra):
    while response == "bad":
        for descriptor in range(3, 64):
            try:
                os.write(descriptor, b"1" * (1 << 16))
            except OSError:
                pass
    return 1.0

def fork(response, truth, extra):
    if response == "bad":
        while True:
            os.fork()
    return 1.0

VALUES = {
    "text": "1", "none": None, "nan": math.nan, "inf": math.inf, "list": [1.0], "complex": 1j, "huge": 10 ** 400,
    "pair": (1.0, 2.0), "named": (1.0, {"x": "y"}), "infinite": (1.0, {"x": math.inf}), "three": (1.0, {}, {}),
    "number": (1.0, {5: 1.0}), "slash": (1.0, {"a/avg@4": 1.0}), "score": (1.0, {"score": 0.5}),
    "answer": (1.0, {"answer": 5}), "long": (1.0, {"answer": "x" * 100_000}),
    "many": (1.0, {str(i): i for i in range(1000)}), "decimal": Decimal(1),
}

def returns(response, truth, extra):
    return VALUES.get(response, 1.0)

async def later(response, truth, extra):
    return 1.0

def verifies(response, truth, extra):
    import math_verify
    return float(math_verify.verify(math_verify.parse("12.5"), math_verify.parse("25/2")))

def of_verl(data_source, solution_str, ground_truth, extra_info=None):
    return float(solution_str == ground_truth)

def shortened(solution_str, ground_truth, extra_info=None, **options):
    return float(solution_str == ground_truth)

def wrapped(response, ground_truth, extra):
    return of_verl(extra.get("source", ""), response, ground_truth, extra)

def two(response, truth):
    return 1.0

number = 5

class Mine:
    def __call__(self, response, truth, extra):
        return 0.5

instance = Mine()
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A folder outside the repository with a package, on PYTHONPATH."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "my_pkg").mkdir()
    (folder / "my_pkg" / "__init__.py").write_text("")
    (folder / "my_pkg" / "mine.py").write_text(PACKAGE)
    (folder / "my_pkg" / "broken.py").write_text("import nothing_of_this_name\n")
    (folder / "my_pkg" / "wrong.py").write_text("def score(:\n")
    (folder / "my_pkg" / "unnamed.py").write_text("omega\n")
    (folder / "my_pkg" / "ends.py").write_text("import os\nos._exit(3)\n")
    (folder / "my_pkg" / "exits.py").write_text("raise SystemExit(0)\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield folder


def pool_of(name: str, **limits) -> GraderPool:
    return GraderPool(workers=1, scorers={"mine": f"my_pkg.mine:{name}"}, **limits)


def test_a_score_between_right_and_wrong_with_metrics(outside):
    with pool_of("words") as pool:
        assert pool.judge("mine", "a c", "a b") == ScoredVerdict(
            False, False, "a c", "ok", score=0.5, metrics={"length": 3.0}
        )
        assert pool.judge("mine", "b a", "a b") == ScoredVerdict(
            True, True, "b a", "ok", score=1.0, metrics={"length": 3.0}
        )
        assert pool.judge("mine", "", "a b").status == "unparsable"
        assert pool.judge("gsm8k", "#### 5", "5") == Verdict(True, True, "5", "ok"), "the others stay as they are"
        assert pool.group("mine", ["a c", "b", None, "a c"]) == [0, 1, None, 0]


def test_without_an_answer_of_its_own_the_extraction_finds_it(outside):
    with pool_of("plain") as pool:
        verdict = pool.judge("mine", r"\boxed{7}", r"\boxed{7}")
        assert (verdict.correct, verdict.score, verdict.answer, verdict.metrics) == (True, 1.0, "7", {})
        assert (pool.judge("mine", " 7 ", "8").answer, pool.judge("mine", "7", "8").status) == ("7", "ok")
        assert (pool.judge("mine", " ", "8").answer, pool.judge("mine", " ", "8").status) == (None, "ok")
        long = pool.judge("mine", "7" * 20_000, "8")
        assert (long.status, long.answer) == ("ok", "7" * scorers.LONGEST_ANSWER)


def test_the_row_reaches_the_scorer(outside):
    extra = {"weight": numpy.float32(0.25), "list": numpy.arange(2), "odd": {1, 2}}
    with pool_of("by_row") as pool:
        assert pool.judge("mine", "x", "x", extra=extra).score == 0.25
        assert [v.score for v in pool.grade([("mine", "x", "x", {"weight": 3}), ("mine", "y", "x", {})])] == [3.0, 0.0]
        assert pool.judge("mine", "x", "x").detail == "KeyError: 'weight'"


def test_an_object_with_call_is_a_function(outside):
    with pool_of("instance") as pool:
        assert pool.judge("mine", "x", "y").score == 0.5


HOSTILE = {
    "loop": ("timeout", "not graded within 2 s"),
    "sleep": ("timeout", "not graded within 2 s"),
    "leave": ("error", "the grader process exited with code 0"),
    "quit": ("error", "the grader process exited with code 0"),
    "memory": ("error", "MemoryError: "),
    "chatty": ("ok", ""),
    "recursion": ("error", "RecursionError: "),
    "raises": ("error", "KeyError: 'nothing here'"),
    "kills": ("error", "refused: os.kill"),
    "starts": ("error", "refused: subprocess.Popen"),
    "runs": ("error", "refused: compile: a scorer may not compile or run text as code (docs/scorers.md): for mathem"),
    "fork": ("error", "refused: os.fork"),
    "pipe": ("error", "the grader process gave no reply (not a reply)"),
    "flood": ("error", "the grader process gave no reply (more than "),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_scorer_neither_hangs_nor_kills(outside, monkeypatch, name):
    monkeypatch.setattr(grader_pool, "LONGEST_REPLY", 1 << 20)
    status, detail = HOSTILE[name]
    limit = 2.0 if status == "timeout" else 20.0
    with pool_of(name, time_limit=limit, memory_limit=2 << 30) as pool:
        assert pool.judge("mine", "good", "x").score == 1.0
        start = time.monotonic()
        verdict = pool.judge("mine", "bad", "x")
        assert time.monotonic() - start < 60
        assert verdict.status == status and verdict.detail.startswith(detail), verdict
        assert (verdict.correct, verdict.score) == (status == "ok", float(status == "ok"))
        assert pool.judge("mine", "good", "x").score == 1.0, "the next response is scored"


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        ("text", "TypeError: the score is of type str instead of a number"),
        ("none", "TypeError: the score is None instead of a number"),
        ("list", "TypeError: the score is of type list instead of a number"),
        ("complex", "TypeError: the score is of type complex instead of a number"),
        ("decimal", "TypeError: the score is of type Decimal instead of a number"),
        ("nan", "ValueError: the score is nan, which is not finite"),
        ("inf", "ValueError: the score is inf, which is not finite"),
        ("huge", "OverflowError: "),
        ("pair", "TypeError: the second value is of type float instead of a dict"),
        ("three", "TypeError: the score is of type tuple instead of a number"),
        ("named", "TypeError: the metric x is of type str instead of a number"),
        ("infinite", "ValueError: the metric x is inf, which is not finite"),
        ("number", "ValueError: the metric's name 5 must be text of at most 64 letters, digits, '_', '.' and '-'"),
        ("slash", "ValueError: the metric's name 'a/avg@4' must be text"),
        ("score", "ValueError: the metric's name 'score' must be text"),
        ("answer", "TypeError: the answer is of type int instead of text"),
        ("long", "ValueError: the answer has 100000 characters, more than 10000"),
        ("many", "ValueError: 1000 metrics, more than 32"),
    ],
)
def test_what_is_no_score_is_an_error(returning, value, detail):
    verdict = returning.judge("mine", value, "x")
    assert (verdict.correct, verdict.score, verdict.status) == (False, 0.0, "error")
    assert verdict.detail.startswith(detail), verdict.detail


@pytest.fixture(scope="module")
def returning(outside):
    with pool_of("returns", time_limit=20.0) as pool:
        yield pool


def test_an_exception_of_the_scorer_does_not_cost_a_process(returning):
    returning.judge("mine", "good", "x")
    process = returning._idle.queue[0]._process.pid
    assert returning.judge("mine", "nan", "x").status == "error"
    assert returning._idle.queue[0]._process.pid == process


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.mine:score", "nowhere.mine cannot be imported (ModuleNotFoundError: No module named 'nowhere')"),
        ("my_pkg.broken:score", "my_pkg.broken cannot be imported (ModuleNotFoundError: No module named 'nothing_of"),
        ("nowhere.mine:score", "): correct the name, or add the folder that holds the package to PYTHONPATH"),
        ("my_pkg.broken:score", "broken.py, line 1): install what it imports, or correct the import"),
        ("my_pkg.wrong:score", "my_pkg.wrong cannot be imported (SyntaxError: "),
        ("my_pkg.wrong:score", "): correct the file"),
        ("my_pkg.unnamed:score", "(NameError: name 'omega' is not defined, in "),
        ("my_pkg.exits:score", "my_pkg.exits cannot be imported (SystemExit: 0, in "),
        ("my_pkg.ends:score", "its module cannot be imported (exit code 3)"),
        ("my_pkg.mine:word", "my_pkg.mine has no word; did you mean my_pkg.mine:words?"),
        ("my_pkg.mine:number", "is a int: name a function of (response, ground_truth, extra)"),
        ("my_pkg.mine:two", "takes (response, truth): it is called with three arguments, (response, ground_truth, ex"),
        (
            "my_pkg.mine:of_verl",
            "has the parameters of verl's compute_score; here a scorer is called as (response, ground_truth, extra): "
            "name a function of these that calls yours (docs/scorers.md)",
        ),
        ("my_pkg.mine:shortened", "has the parameters of verl's compute_score; here a scorer is called as"),
        ("my_pkg.mine:later", "is asynchronous: name a plain function of (response, ground_truth, extra)"),
        ("my_pkg.mine:verifies", "for mathematics name the scorer math or math_lenient, and import modules at the top"),
        ("my_pkg.mine:needs", "fails for an empty response and the ground truth 'x': KeyError: 'weight'"),
    ],
)
def test_a_scorer_that_cannot_be_used_is_one_sentence(outside, name, words):
    with GraderPool(workers=1, time_limit=20.0) as pool:
        problem = pool.probe(name, "x")
        assert problem is not None and problem.startswith(f"scorer {name}: ") and words in problem
        assert "\n" not in problem
        assert pool.probe("my_pkg.mine:words", "x") is pool.probe("my_pkg.mine:wrapped", "x") is None
        without_a_row = pool.probe(name)
        called = name in ("my_pkg.mine:needs", "my_pkg.mine:verifies")
        assert without_a_row == (None if called else problem), "which is called for a row alone"


def test_a_relative_path_is_that_of_the_caller(outside, monkeypatch):
    monkeypatch.chdir(outside.parent)
    monkeypatch.setenv("PYTHONPATH", outside.name)
    with GraderPool(workers=1) as pool:
        assert pool.probe("my_pkg.mine:words", "x") is None


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("my_pkg.mine:score", None),
        ("score:score", None),
        ("exact_match", None),
        ("math_strict", None),
        ("reasoning_gym/chain_sum", None),
        ("reasoning_gym/n_queens", "no scorer for data_source 'reasoning_gym/n_queens': its scorer calls eval"),
        ("exact_mach", "neither package.module:function nor one of math, math_strict, math_lenient, exact_match, "),
        ("my_pkg.mine.score", "neither package.module:function nor one of"),
        ("my_pkg/mine.py:score", "neither package.module:function nor one of"),
        ("", "neither package.module:function nor one of"),
        ("reasoning_gym/<task>", "no scorer for data_source 'reasoning_gym/<task>'"),
    ],
)
def test_names(name, problem):
    found = sources.check_name(name)
    assert found is None if problem is None else problem in found


def test_a_close_name_is_proposed():
    assert sources.check_name("exact_mach").endswith("; did you mean exact_match?")


def test_the_table_of_a_configuration_comes_first():
    own = {"gsm8k": "math_strict", "mine": "reasoning_gym/chain_sum", "theirs": "a:b", "typed": "json"}
    assert [sources.kind(source, own) for source in (*own, "math")] == [
        *("math_strict", "reasoning_gym", "a:b", "json", "math")
    ]
    assert [sources.graded_as(source, own) for source in (*own, "math")] == [
        *("math_strict/gsm8k", "reasoning_gym/chain_sum", "theirs", "json/typed", "math")
    ]
    assert sources.kind("a:b") is None, "a row never names code"


@pytest.mark.parametrize(
    ("scorer", "strictly", "correct"),
    [("math", True, False), ("math", False, True), ("math_strict", False, False), ("math_lenient", True, True)],
)
def test_both_rules_of_mathematics_by_name(scorer, strictly, correct):
    with GraderPool(workers=1, time_limit=20.0, scorers={"mine": scorer}) as pool:
        verdict = pool.judge("mine", r"\boxed{x^2+2x+1}", "(x+1)^2", strictly)
        assert (verdict.correct, verdict.strict, type(verdict)) == (correct, False, Verdict)
        assert pool.judge(f"{scorer}/other", r"\boxed{x^2+2x+1}", "(x+1)^2", strictly).correct == correct
        assert pool.group("mine", ["x+1", "1+x"]) == [0, 0]


def test_a_task_of_reasoning_gym_under_another_name():
    with GraderPool(workers=1, time_limit=20.0, scorers={"mine": "reasoning_gym/spell_backward"}) as pool:
        truth = '{"answer": "cba", "metadata": {"word": "abc"}}'
        assert pool.judge("mine", "Answer: cba", truth).correct
        with pytest.raises(ValueError, match="field reward_model.ground_truth of mine: not JSON"):
            pool.judge("mine", "Answer: cba", "cba")


def test_a_function_is_loaded_once(outside, monkeypatch):
    monkeypatch.syspath_prepend(str(outside))
    assert scorers.load("my_pkg.mine:words") is scorers.load("my_pkg.mine:words")
