"""Graded samples from letters."""

from __future__ import annotations


def sample(problem="a", index=0, correct=False, group=0, benchmark="aime24", **fields):
    return {
        "benchmark": benchmark,
        "problem": problem,
        "sample": index,
        "prompt": "What is 1 + 1?",
        "ground_truth": "2",
        "response": "\\boxed{2}",
        "seed": None,
        "answer": "2",
        "group": group,
        "correct": correct,
        "strict": correct,
        "status": "ok",
        "finish_reason": "stop",
        "tokens": 10,
    } | fields


def answers(problem, text, benchmark="aime24", **fields):
    """Samples from letters: R right, x y z wrong answers, - none."""
    groups = {}
    return [
        sample(
            problem,
            index,
            correct=letter == "R",
            group=None if letter == "-" else groups.setdefault(letter, len(groups)),
            benchmark=benchmark,
            status="unparsable" if letter == "-" else "ok",
            **fields,
        )
        for index, letter in enumerate(text)
    ]


BY_HAND = [
    *answers("a", "RxRx"),  # a tie, R first: right
    *answers("b", "xRRx"),  # a tie, x first: wrong
    *answers("c", "---R", tokens=40, finish_reason="length"),
    *answers("m", "Rx", benchmark="math500"),
    *answers("größe 7", "xR", benchmark="math500"),
]
