"""Extraction: hand cases, difficult text, and properties of every text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.grading.extract import extract, extract_with_line
from recipe.grading.notation import visible
from recipe.grading.strict import equal


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"\boxed{1} and \boxed{2", "1"),  # the last one is open
        (r"\boxed{2", None),
        (r"\boxed{2}}", "2"),
        (r"{ \boxed{2}", "2"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\left\{x\right.}", r"\left\{x\right."),  # \{ opens no group
        (r"\boxed{\boxed{5}}", "5"),
        (r"\fbox {7}", "7"),
        (r"\boxed{3} \boxed{} \boxed{ }", "3"),  # an empty box does not count
        (r"Answer: 4, so \boxed{3}", "3"),  # a box before anything else
        ("\\boxed{a\nb}", "a\nb"),
        (r"\\boxed{6}", "6"),  # escaped once too often
        (r"\\\boxed{6}", "6"),  # a line break and a box
        (r"\boxedx{6}", None),
        (r"so $\boxed 3$.", "3"),
        (r"so $\boxed 3\pi$.", None),  # not 3
        (r"so \boxed as asked", None),
        ("so \\boxed{9}: print('\\boxed{{}}'.format(9))", "9"),
        (r"\boxed{\{\}}", r"\{\}"),  # the empty set
        ("Answer: 1\nmore\n**Answer:** $5$.\nBye", "5"),
        ("ANSWER : \\(x^2\\)", "x^2"),
        ("the answer:\n\n$$x$$\nyes", "x"),
        ("Answer:\n\n  **12**  \n", "12"),
        ("Answer: $1$ and $2$", "$1$ and $2$"),
        ("Answer: $", None),
        ("Answer:", None),
        ("Answer: **", None),
        ("Antwort：3 answer：３", "３"),
        ("2+2=4\n#### 1,234\n", "1,234"),
        ("#### 1 #### 2", "2"),
        ("The final answer is 3.5. I hope it is correct.", "3.5"),
        ("The final answer is: $1. 5$. I hope", "1. 5"),
        ("final answer is", None),
        (r"Final Answer: The final answer is $\frac{1}{2}$. I hope it is correct.", r"\frac{1}{2}"),
        ("**Final Answer:** The final answer is 12.", "12"),
        ("The final answer is:\n\n$$\n12\n$$\n", "12"),
        ("Answer: 0.333...", "0.333..."),
        ("so it is 72", None),
        ("", None),
        ("\x00\ud800\u202e", None),
    ],
)
def test_extraction_by_hand(response, answer):
    assert extract(response) == answer


HOSTILE = {
    "open braces": "{" * 100_000,
    "nested braces": "{" * 100_000 + "}" * 100_000,
    "backslashes": "\\" * 1_000_000,
    "open boxes": r"\boxed{" * 100_000,
    "nested boxes": r"\boxed{" * 100_000 + "}" * 100_000,
    "empty boxes": r"\boxed{}" * 100_000,
    "boxes and spaces": (r"\boxed" + " " * 100) * 10_000,
    "answers": "answer: " * 100_000,
    "answer and spaces": "answer" + " " * 1_000_000,
    "answer and lines": "answer:" + "\n" * 1_000_000,
    "final answers": "the final answer is " * 50_000,
    "final answers and lines": "the final answer is\n" * 50_000,
    "numbers in open boxes": (r"\boxed 1" + " " * 100) * 10_000,
    "hashes": "#" * 1_000_000,
    "dollars": "Answer: " + "$" * 1_000_000,
    "long answer": r"\boxed{" + "1" * 1_000_000 + "}",
}


@pytest.mark.parametrize("response", HOSTILE.values(), ids=HOSTILE)
def test_extraction_and_the_strict_rule_are_fast_on_hostile_text(response):
    start = time.process_time()
    assert not equal(extract(response) or "", "42")
    assert time.process_time() - start < 3.0


@settings(max_examples=100)
@given(st.text(max_size=60))
def test_extract_finds_any_boxed_text_with_balanced_braces(text):
    text = visible(text.replace("\\", "").replace("{", "").replace("}", "")).strip()
    assert extract(rf"Answer: 1 \boxed{{{text}}} #### 2") == (text or r"1 \boxed{} #### 2")


def test_the_line_is_that_of_the_response():
    assert extract_with_line("so\nAnswer: **U.S.** \nDone") == ("U.S", "**U.S.**")
    assert extract_with_line(r"\boxed{ U.S. }") == ("U.S.", "U.S.") and extract_with_line("nothing") is None
    line = "Answer: The final answer is $3$. I hope so."
    assert extract_with_line(line) == ("3", line.removeprefix("Answer: "))
