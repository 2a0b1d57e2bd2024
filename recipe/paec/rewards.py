"""The reward function: rule-based scores, one scale and one set of keys for every data source.

Name this file in verl's `custom_reward_function.path`. Reward workers import it, so it loads neither torch, ray nor
verl at import time; each scorer imports what it needs at its first call.
"""

from collections.abc import Callable, Mapping
from typing import Any

from data_prep import countdown_score


def _gsm8k(solution: str, ground_truth: str) -> tuple[bool, bool]:
    from verl.utils.reward_score import default_compute_score, gsm8k

    correct = default_compute_score("openai/gsm8k", solution, ground_truth) == 1.0
    return correct, gsm8k.extract_solution(solution) is not None


def _math_boxed(solution: str, ground_truth: str) -> tuple[bool, bool]:
    from verl.utils.reward_score import default_compute_score, math_reward

    correct = default_compute_score("lighteval/MATH", solution, ground_truth) == 1.0
    return correct, math_reward.last_boxed_only_string(solution) is not None


def _math_dapo(solution: str, ground_truth: str) -> tuple[bool, bool]:
    from verl.utils.reward_score import default_compute_score

    result = default_compute_score("math_dapo", solution, ground_truth)
    return bool(result["acc"]), result["pred"] not in (None, "[INVALID]")


SCORERS: dict[str, Callable[[str, str], tuple[bool, bool]]] = {
    countdown_score.DATA_SOURCE: countdown_score.score,
    "openai/gsm8k": _gsm8k,
    "lighteval/MATH": _math_boxed,
    "DigitalLearningGmbH/MATH-lighteval": _math_boxed,
    "HuggingFaceH4/MATH-500": _math_boxed,
    "math": _math_dapo,
    "math_dapo": _math_dapo,
    "math_dapo_reasoning": _math_dapo,
    "aime*": _math_dapo,
}
"""Scorer (solution, ground_truth) -> (correct, an answer could be extracted) by data source; `*` ends a prefix.

Of what verl scores, the numina_* sets are left out (their scorer calls eval on the model's text), and so are the code
sets (they run it), geometry3k (images) and searchR1_* (a search service).
"""


def _find(data_source: str) -> Callable[[str, str], tuple[bool, bool]] | None:
    if data_source.startswith("aime"):
        return SCORERS["aime*"]
    return SCORERS.get(data_source)


def supports(data_source: str) -> bool:
    """Whether `compute_score` can score this data source; ask before training rather than in the middle of it."""
    return _find(data_source) is not None


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> dict[str, float]:
    """Score one response; the signature is that of verl's custom reward functions.

    Args:
        data_source: a key of `SCORERS`, or any name that begins with aime.
        solution_str: the decoded response, untrusted.
        ground_truth: `reward_model.ground_truth` of the row.
        extra_info: not used.
        **kwargs: what verl adds for other reward functions; not used.

    Returns:
        The same keys for every source, each 0.0 or 1.0: `score` (correct), `acc` (the same, under the name that
        verl's validation aggregates) and `format` (an answer could be extracted). verl's own scorer of the DAPO
        family returns -1 for wrong; here wrong is 0 everywhere, so that mean scores are accuracies.

    Raises:
        ValueError: no scorer for the data source, or a ground truth that it cannot read.
    """
    scorer = _find(data_source)
    if scorer is None:
        raise ValueError(f"no scorer for data_source {data_source!r}; known are {', '.join(SCORERS)}")
    correct, extracted = scorer(solution_str, ground_truth)
    return {"score": float(correct), "acc": float(correct), "format": float(extracted)}
