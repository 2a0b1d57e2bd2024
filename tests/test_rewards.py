"""The reward function: hand cases, hostile text, unknown sources."""

import json
import subprocess
import sys
import time

import pytest

from data_prep.countdown_score import DATA_SOURCE as COUNTDOWN
from recipe.paec import rewards
from recipe.paec.rewards import compute_score, supports

TRUTH = json.dumps({"metadata": {"numbers": [7, 5, 1], "target": 2}})
RIGHT = {"score": 1.0, "acc": 1.0, "format": 1.0}
WRONG = {"score": 0.0, "acc": 0.0, "format": 1.0}
NONE = {"score": 0.0, "acc": 0.0, "format": 0.0}


@pytest.mark.parametrize(
    ("solution", "expected"),
    [
        ("7-5=2,1*2=2;1*(7-5)", RIGHT),
        (";(7 - 5)*1 ", RIGHT),
        ("nonsense;9+9;1*(7-5)", RIGHT),  # only what follows the last semicolon counts
        ("7-5=2,1*2=2;1*(7-5)+0", WRONG),  # a number too many
        ("7-5=2;7-5", WRONG),  # a number too few
        ("7+5=12,12+1=13;7+5+1", WRONG),
        (";7-5-1+1", WRONG),
        (";2", WRONG),
        (";7-5)*1", WRONG),  # not an expression, though of the right characters
        (";7 5 1", WRONG),
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
    assert compute_score(COUNTDOWN, solution, TRUTH) == NONE
    assert time.perf_counter() - start < 2.0  # the first call imports the library


@pytest.mark.parametrize("solution", [";" + "(" * 32 + "7" + ")" * 31, ";" + "-" * 63 + "7", ";" + "999*" * 15 + "999"])
def test_admitted_but_odd_text_is_fast(solution):
    compute_score(COUNTDOWN, ";2", TRUTH)
    start = time.perf_counter()
    assert compute_score(COUNTDOWN, solution, TRUTH) == WRONG
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("truth", ["", "2", "[]", '{"metadata": {"numbers": [1]}}', None])
def test_unreadable_ground_truth_is_an_error_not_a_zero(truth):
    with pytest.raises(ValueError, match="reward_model.ground_truth"):
        compute_score(COUNTDOWN, ";1", truth)


MATH_CASES = [
    ("openai/gsm8k", "so #### 72", "72", RIGHT),
    ("openai/gsm8k", "so #### 71", "72", WRONG),
    ("openai/gsm8k", "so 72", "72", NONE),
    ("lighteval/MATH", r"thus \boxed{\frac{1}{2}}", r"\dfrac12", RIGHT),
    ("DigitalLearningGmbH/MATH-lighteval", r"thus \boxed{3}", "4", WRONG),
    ("HuggingFaceH4/MATH-500", "thus 4", "4", NONE),
    ("math_dapo", "Answer: 34", "34", RIGHT),
    ("math_dapo", r"so \boxed{34}", "34", RIGHT),
    ("math", "Answer: 35", "34", WRONG),
    ("math_dapo_reasoning", "34", "34", NONE),
    ("aime24", "Answer: 204", "204", RIGHT),
    ("aime2025", "Answer: 2", "204", WRONG),
]


@pytest.mark.parametrize(("source", "solution", "truth", "expected"), MATH_CASES)
def test_math_sources_by_hand(source, solution, truth, expected):
    assert supports(source)
    assert compute_score(source, solution, truth, extra_info={"index": 0}, reward_router_address=None) == expected


def test_unknown_source_is_refused():
    assert not supports("olympiad/unknown")
    with pytest.raises(ValueError, match="no scorer for data_source 'olympiad/unknown'; known are reasoning_gym/"):
        compute_score("olympiad/unknown", "1", "1")
    for source in ("numina_cn_k12", "codecontests", "searchR1_nq"):  # eval, code, a service
        assert not supports(source)


def test_import_is_light():
    heavy = "{'torch', 'ray', 'verl', 'reasoning_gym', 'transformers'} & set(sys.modules)"
    code = f"import sys; import recipe.paec.rewards; print(sorted({heavy}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"
    assert COUNTDOWN in rewards.SCORERS
