"""The countdown task's scorer: reasoning_gym's own, behind a filter. Light to import, for reward workers."""

import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any

DATA_SOURCE = "reasoning_gym/countdown"

# The library's scorer ends in sympy's parse_expr, which is Python's eval: the text of a model goes there only as a
# short string of these characters. Powers and long digit runs are out because evaluating them can take for ever.
_EXPRESSION = re.compile(r"[0-9+\-*() ]{1,64}")
_COSTLY = re.compile(r"\*\s*\*|[0-9]{4}")


def score(solution: str, ground_truth: str) -> tuple[bool, bool]:
    """(correct, an answer could be extracted) of a response to a countdown problem; the response is untrusted.

    The text after the last ';' is the expression; correct iff reasoning_gym scores it 1.0.

    The library also gives 0.05 and 0.01 to wrong answers, which is noise once advantages are normalised.
    ValueError for a ground truth that is not the JSON which data_prep.countdown writes.
    """
    _, separator, expression = solution.rpartition(";")
    expression = expression.strip()
    entry = _entry(ground_truth)
    if not separator or not _EXPRESSION.fullmatch(expression) or _COSTLY.search(expression):
        return False, False
    return _library_scorer("countdown")(answer=expression, entry=entry) == 1.0, True


def _entry(ground_truth: str) -> dict[str, Any]:
    try:
        entry = json.loads(ground_truth)
        entry["metadata"]["numbers"], entry["metadata"]["target"]
    except (TypeError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"field reward_model.ground_truth of {DATA_SOURCE}: {ground_truth!r} is not a JSON object "
            'with metadata.numbers and metadata.target; prepare the data with "python -m data_prep.countdown"'
        ) from error
    return entry


@cache
def _library_scorer(name: str) -> Callable[..., float]:
    import reasoning_gym

    return reasoning_gym.get_score_answer_fn(name)
