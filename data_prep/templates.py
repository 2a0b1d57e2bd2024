"""Prompt templates: those this project writes, and those of other recipes that published prompts contain.

Scores depend on the prompt, so every set gets the same template and every row names it (`extra_info.template`). A set
that was published with another recipe's instructions is first reduced to the bare problem.
"""

from __future__ import annotations

DEFAULT = "boxed"

TEMPLATES = {
    "boxed": "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{}.",
    "answer_line": (
        "{problem}\n\nPlease reason step by step, and end with a line of the form "
        '"Answer: ..." that holds nothing but your final answer.'
    ),
    "none": "{problem}",
}
"""By name; `{problem}` is the one placeholder. recipe.grading.extract finds the answer that each of them asks for."""

SEMICOLON = (
    "{problem}\n\nPlease reason step by step, and end with a semicolon and nothing but your expression after it."
)
"""For reasoning_gym/countdown, whose scorer (recipe.grading.countdown) reads what follows the last semicolon."""

FOREIGN_PREFIXES = (
    # DAPO, also on its AIME file.
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.",
)
FOREIGN_SUFFIXES = (
    'Remember to put your answer on its own line after "Answer:".',
    # Qwen2.5-Math and most evaluation scripts.
    "Please reason step by step, and put your final answer within \\boxed{}.",
    # verl's MATH and GSM8K preparation, OpenR1-style preparation.
    "Let's think step by step and output the final answer within \\boxed{}.",
    'Let\'s think step by step and output the final answer after "####".',
)


def render(template: str, problem: str) -> str:
    """The user's turn: `problem` in the template text, with any braces in either."""
    return template.replace("{problem}", problem)


def strip_foreign(prompt: str) -> str:
    """`prompt` without the instructions of another recipe at its ends, and without blank space around it."""
    problem = prompt.strip()
    for prefix in FOREIGN_PREFIXES:
        problem = problem.removeprefix(prefix).lstrip()
    for suffix in FOREIGN_SUFFIXES:
        problem = problem.removesuffix(suffix).rstrip()
    return problem
