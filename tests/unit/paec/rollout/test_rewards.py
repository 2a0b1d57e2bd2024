"""The reward function: hand cases, hostile text, unknown sources."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recipe.grading.countdown import DATA_SOURCE as COUNTDOWN
from recipe.grading.pool import GraderPool
from recipe.grading.sources import supports
from recipe.paec.rollout import rewards
from recipe.paec.rollout.rewards import compute_score, repeats_itself

ROOT = Path(__file__).resolve().parents[4]
TRUTH = json.dumps({"metadata": {"numbers": [7, 5, 1], "target": 2}})


def result(correct: int, pred: str, strict: int | None = None, **flags: float) -> dict[str, float | str]:
    strict = correct if strict is None else strict
    expected = {"score": correct, "acc": correct, "format": bool(pred), "strict": strict, "pred": pred}
    return expected | {"unparsable": not pred, "grader_timeout": 0, "grader_error": 0, "repetition": 0} | flags


NONE = result(0, "")


@pytest.mark.parametrize(
    ("solution", "expected"),
    [
        ("7-5=2,1*2=2;1*(7-5)", result(1, "1*(7-5)")),
        (";(7 - 5)*1 ", result(1, "(7 - 5)*1")),
        ("nonsense;9+9;1*(7-5)", result(1, "1*(7-5)")),  # only what follows the last semicolon counts
        ("7-5=2,1*2=2;1*(7-5)+0", result(0, "1*(7-5)+0")),  # a number too many
        ("7-5=2;7-5", result(0, "7-5")),  # a number too few
        ("7+5=12,12+1=13;7+5+1", result(0, "7+5+1")),
        (";7-5-1+1", result(0, "7-5-1+1")),
        (";2", result(0, "2")),
        (";7-5)*1", result(0, "7-5)*1")),  # not an expression, though of the right characters
        (";7 5 1", result(0, "7 5 1")),
        ("1*(7-5)", NONE),  # no semicolon
        ("1*(7-5);", NONE),
        ("", NONE),
    ],
)
def test_countdown_by_hand(solution, expected):
    assert compute_score(COUNTDOWN, solution, TRUTH) == expected


@pytest.mark.parametrize(
    "solution",
    [
        ";9**9**9**9",
        ";9* *9* *9",
        ";__import__('os').system('true')",
        ";(lambda: 1*(7-5))()",
        ";1*(7-5)#",
        ";1*(7-5)\n+0",
        ";" + "9" * 4,
        ";" + "9" * 100_000,
        ";" + "(" * 1_000_000,
        ";1*(7-5)" + " " * 50 + "*1" * 1_000_000,
        "1*(7-5);" * 500_000 + "x",
        ";１*(７-５)",  # full-width digits are digits to Python, not here
        ";7-5\x00*1",
    ],
)
def test_hostile_text_scores_zero_and_fast(solution):
    start = time.perf_counter()
    assert compute_score(COUNTDOWN, solution, TRUTH) == NONE | {"repetition": repeats_itself(solution)}
    assert time.perf_counter() - start < 2.0  # the first call imports the library


@pytest.mark.parametrize("solution", [";" + "(" * 32 + "7" + ")" * 31, ";" + "-" * 63 + "7", ";" + "999*" * 15 + "999"])
def test_admitted_but_odd_text_is_fast(solution):
    compute_score(COUNTDOWN, ";2", TRUTH)
    start = time.perf_counter()
    assert compute_score(COUNTDOWN, solution, TRUTH) == result(0, solution[1:])
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("truth", ["", "2", "[]", '{"metadata": {"numbers": [1]}}', None])
def test_unreadable_ground_truth_is_an_error_not_a_zero(truth):
    with pytest.raises(ValueError, match="reward_model.ground_truth"):
        compute_score(COUNTDOWN, ";1", truth)


TRAIN = {"split": "train", "index": 0}
TEST = {"split": "test", "index": 0}
MATH_CASES = [
    ("openai/gsm8k", "so #### 72", "72", result(1, "72")),
    ("openai/gsm8k", "so #### 71", "72", result(0, "71")),
    ("openai/gsm8k", "so 72", "72", NONE),
    ("lighteval/MATH", r"thus \boxed{\frac{1}{2}}", r"\dfrac12", result(1, r"\frac{1}{2}")),
    ("DigitalLearningGmbH/MATH-lighteval", r"thus \boxed{3}", "4", result(0, "3")),
    ("HuggingFaceH4/MATH-500", "thus 4", "4", NONE),
    ("math_dapo", "Answer: 34", "34", result(1, "34")),
    ("dapo_math_17k", r"so \boxed{34}", "34", result(1, "34")),
    ("math", "Answer: 35", "34", result(0, "35")),
    ("math_dapo_reasoning", "34", "34", NONE),
    ("aime24", "Answer: 204", "204", result(1, "204")),
    ("aime2025", "Answer: 2", "204", result(0, "2")),
    ("olympiadbench", r"\boxed{2, 1}", "1, 2", result(1, "2, 1")),
    ("minerva", r"\boxed{3 \times 10^{8}}", "3e8", result(1, r"3 \times 10^{8}")),
]


@pytest.mark.parametrize("extra_info", [TRAIN, TEST, None], ids=["train", "test", "no split"])
@pytest.mark.parametrize(("source", "solution", "truth", "expected"), MATH_CASES)
def test_math_sources_by_hand(source, solution, truth, expected, extra_info):
    assert supports(source)
    assert compute_score(source, solution, truth, extra_info=extra_info, reward_router_address=None) == expected


def test_training_is_strict_and_evaluation_is_math_verify():
    response, truth = r"\boxed{x^2+2x+1}", "(x+1)^2"
    assert compute_score("math500", response, truth, TRAIN) == result(0, "x^2+2x+1")
    assert compute_score("math500", response, truth, TEST) == result(1, "x^2+2x+1", strict=0)


def test_training_grades_in_a_process_without_math_verify(monkeypatch):
    with GraderPool(workers=1) as pool:
        monkeypatch.setattr(rewards, "_pool", lambda: pool)
        assert compute_score("math500", r"\boxed{5}", "5", TRAIN) == result(1, "5")
        assert compute_score("math500", r"\boxed{6}", "5", TRAIN) == result(0, "6")
        assert pool._idle.queue[0]._prepared == {""}


def test_a_strict_rule_that_hangs_costs_the_time_limit_and_is_flagged(monkeypatch, tmp_path):
    """Should a pattern ever take exponential time again: nothing in the caller waits for it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import re, recipe.grading.strict as strict\n"
        "strict._WORDS_ONLY = re.compile(r'(?:[A-Za-z][a-z]{2,}|[Nn]o)(?: [A-Za-z]?[a-z]+)*')\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")]))
    sentence = "the first card is equal to the number of ways to choose the second card since both of them are the same"
    with GraderPool(workers=1, time_limit=1.0) as pool:
        monkeypatch.setattr(rewards, "_pool", lambda: pool)
        found = compute_score(
            "math500", rf"\boxed{{{sentence} for each of the first cards that we draw so 36}}", "36", TRAIN
        )
        assert found == result(0, "", grader_timeout=1, unparsable=0)
        assert compute_score("math500", r"\boxed{36}", "36", TRAIN) == result(1, "36")


def test_a_grader_that_does_not_finish_is_flagged_and_scores_zero(monkeypatch):
    with GraderPool(workers=1, time_limit=0.5) as pool:
        monkeypatch.setattr(rewards, "_pool", lambda: pool)
        bomb = "10^{10^{10}}"
        found = compute_score("math500", rf"\boxed{{{bomb}}}", "5", TEST)
    assert found == result(0, bomb, grader_timeout=1)


def test_an_answer_that_cannot_be_read_is_flagged():
    found = compute_score("math500", r"\boxed{12 \& 7}", "12", TEST)
    assert found == result(0, r"12 \& 7", unparsable=1)
    assert found["format"] == 1.0
    assert compute_score("math500", r"\boxed{12 \& 7}", "12", TRAIN) == result(0, r"12 \& 7")  # nothing tried to


def test_a_reward_worker_has_one_pool_of_two_graders_however_many_threads_ask_first():
    code = """
import threading, time
from recipe.paec.rollout import rewards

opened = []
class Slow(rewards.GraderPool):
    def __init__(self, workers):
        time.sleep(0.2)
        super().__init__(workers)
        opened.append(workers)
rewards.GraderPool = Slow
threads = [threading.Thread(target=rewards._pool) for _ in range(16)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(opened)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[2]"


def test_a_forked_reward_worker_grades_with_processes_of_its_own():
    code = """
import os
from recipe.paec.rollout.rewards import compute_score

def acc(answer):
    return compute_score("math500", rf"\\boxed{{{answer}}}", "(x+1)^2", {"split": "test"})["acc"]

print(acc("x^2+2x+1"), flush=True)
if os.fork() == 0:
    print(acc("x^2+2x+1"), acc("x^2"), flush=True)
    os._exit(0)
os.wait()
print(acc("x^2+2x+1"), acc("x^2"))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.split() == ["1.0", "1.0", "0.0", "1.0", "0.0"]


def test_threads_get_their_own_scores():
    with ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda i: compute_score("gsm8k", f"#### {i}", str(i - i % 2), TEST), range(40))
        assert [score["pred"] for score in found if score["acc"]] == [str(i) for i in range(0, 40, 2)]


@pytest.mark.parametrize("extra_info", [TRAIN, TEST])
@pytest.mark.parametrize("truth", ["", 5, None, r"\boxed{5}"])
def test_unreadable_math_reference_is_an_error_not_a_zero(truth, extra_info):
    with pytest.raises(ValueError, match="field reward_model.ground_truth of math500: "):
        compute_score("math500", r"\boxed{5}", truth, extra_info)


def test_unknown_source_is_refused():
    assert not supports("olympiad/unknown")
    with pytest.raises(ValueError, match=r'/unknown.: add "reward.scorers=.olympiad/unknown: package'):
        compute_score("olympiad/unknown", "1", "1")
    for source in ("numina_cn_k12", "codecontests", "searchR1_nq"):  # eval, code, a service
        assert not supports(source)


def test_import_is_light():
    heavy = "{'torch', 'ray', 'verl', 'reasoning_gym', 'math_verify', 'sympy', 'transformers'} & set(sys.modules)"
    code = f"import sys; import recipe.paec.rollout.rewards, recipe.grading.worker; print(sorted({heavy}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "reward_scorer.py").write_text(
        "def score(response, truth, extra):\n"
        "    if response == 'fails':\n        raise ValueError('no score')\n"
        "    assert set(extra) == {'split', 'index'}, extra\n"
        "    return len(response) / 4, {'answer': response or None, 'length': len(response)}\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {"mine": "reward_scorer:score"}


def test_a_scorer_from_outside_gives_the_reward(own, caplog):
    extra = {**TRAIN, "num_turns": 2, "rollout_reward_scores": {}}

    def scored(response: str) -> dict:
        return compute_score("mine", response, "abcd", extra, scorers=own)

    measured = {"metric/length": 2.0, "metric/score": 0.5}
    assert scored("ab") == result(0, "ab") | {"score": 0.5} | measured
    assert scored("abcd") == result(1, "abcd") | {"metric/length": 4.0, "metric/score": 1.0}
    assert scored("") == NONE | {"metric/length": 0.0, "metric/score": 0.0}
    assert scored("fails") == NONE | {"unparsable": 0, "grader_error": 1, "metric/score": 0.0}
    assert "the scorer of mine failed, and the response is scored 0: ValueError: no score" in caplog.text
    assert compute_score("gsm8k", "#### 5", "5", extra, scorers=own) == result(1, "5"), "other sources as ever"
    with pytest.raises(ValueError, match="no scorer for data_source 'mine'"):
        compute_score("mine", "ab", "abcd", extra)


def test_a_scorer_that_cannot_be_imported_here_stops_the_run(own):
    with pytest.raises(ValueError, match="scorer reward_scorer:nope: reward_scorer has no nope"):
        compute_score("mine", "ab", "abcd", TRAIN, scorers={"mine": "reward_scorer:nope"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a" * 200, False),
        ("a" * 201, True),
        ("so we add 3 and 4; " * 20, True),
        (" ".join(map(str, range(3000))), False),  # numbers in order are no repetition
        (" ".join(map(str, range(3000))) + "wait, " * 2000, True),  # only the end counts
        ("wait, " * 2000 + " ".join(str(n * n) for n in range(2000)), False),
        ("\ud800" * 300, True),  # not UTF-8
        ("", False),
    ],
)
def test_text_that_repeats_itself(text, expected):
    assert repeats_itself(text) is expected
    assert compute_score("openai/gsm8k", text, "4", TRAIN)["repetition"] == float(expected)
