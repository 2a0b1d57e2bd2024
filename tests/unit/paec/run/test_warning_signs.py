"""Each warning by values on both sides of its threshold, and once until its condition ends."""

from __future__ import annotations

import pytest

from recipe.paec.run import warning_signs
from recipe.paec.run.warning_signs import SIGNS, WarningSigns


def steps(count: int, **values) -> list[dict]:
    """Records of `count` healthy steps; a list among `values` has the values of the last steps."""
    named = {"entropy": "actor/entropy", "length": "response_length/mean", "cut": "response_length/clip_ratio"}
    found = []
    for step in range(1, count + 1):
        record = {"step": step, "actor/entropy": 0.5, "actor/grad_norm": 0.5, "response_length/mean": 20.0}
        record |= {"response_length/clip_ratio": 0.1, "reward/mixed_prompts": 0.75}
        for name, given in values.items():
            place = step - 1 - (count - len(given)) if isinstance(given, list) else 0
            if place >= 0:
                record[named.get(name, name)] = given[place] if isinstance(given, list) else given
        found.append(record)
    return found


def paec(hbar: float, anchor: float | None = 0.6) -> dict:
    return {"actor/paec/selected_entropy": hbar, "actor/paec/anchor": anchor, "actor/paec/floor": 0.48}


def test_a_healthy_run_has_none():
    for count in (1, 5, 40):
        assert {name: sign(steps(count, **paec(0.5))) for name, sign in SIGNS.items()} == dict.fromkeys(SIGNS)


@pytest.mark.parametrize("key", ["actor/entropy", "actor/loss", "actor/pg_loss", "actor/grad_norm"])
def test_not_finite(key):
    assert warning_signs.not_finite(steps(3, **{key: None})).startswith(f"{key} is NaN or infinite: stop the run")
    assert warning_signs.not_finite(steps(3, **{"critic/score/mean": None})) is None


def test_collapse_below_half_the_anchor():
    assert warning_signs.collapse(steps(1, **paec(0.3))) is None
    text = warning_signs.collapse(steps(1, **paec(0.299)))
    assert text.startswith("Hbar 0.2990 is below half of the anchor, 0.6000: ") and "method.lambda_low" in text
    assert warning_signs.collapse(steps(1, **paec(0.1, anchor=None))) is None


def test_collapse_without_an_anchor():
    """The first ten steps stand for it, and nothing is said before they are over."""
    assert warning_signs.collapse(steps(9, entropy=[0.1])) is None
    assert warning_signs.collapse(steps(11, entropy=[0.25])) is None
    text = warning_signs.collapse(steps(11, entropy=[0.249]))
    assert text.startswith("token entropy 0.2490 is below half of the mean of the first 10 steps, 0.5000: ")
    assert "method=paec" in text


def test_mismatch():
    key = warning_signs.MISMATCHED
    assert warning_signs.mismatch(steps(2, **{key: 0.01})) is None
    assert warning_signs.mismatch(steps(2, **{key: None})) is None
    text = warning_signs.mismatch(steps(2, **{key: 0.0101}))
    assert text.startswith("log-probs of vLLM and of the actor differ by 0.0101 nats per token (limit 0.01)")
    assert "algorithm.rollout_correction.rollout_is=token" in text


def test_length_explosion():
    assert warning_signs.length_explosion(steps(6, length=[40.0])) is None
    text = warning_signs.length_explosion(steps(6, length=[40.5]))
    assert text.startswith("responses have 40 tokens, 2.0 times the median of the 5 steps before: ")
    assert warning_signs.length_explosion(steps(5, length=[400.0])) is None, "too few steps before it"
    text = warning_signs.length_explosion(steps(40, length=[90.0]))
    assert "4.5 times the median of the 20 steps before" in text
    assert warning_signs.length_explosion(steps(40, length=[30.0] * 20 + [50.0])) is None, "it grew slowly"
    assert warning_signs.length_explosion(steps(9, length=[None])) is None


def test_truncation_beside_rising_entropy():
    cut, rising = [0.1] * 5 + [0.15625] * 5, [0.5] * 5 + [0.53125] * 5
    text = warning_signs.drift(steps(10, cut=cut, entropy=rising))
    assert text.startswith("16% of the responses are cut off (10% before) while the token entropy rises from 0.5000 to")
    assert warning_signs.drift(steps(10, cut=cut)) is None, "the entropy does not rise"
    assert warning_signs.drift(steps(10, entropy=rising)) is None, "as many were cut off before"
    assert warning_signs.drift(steps(10, cut=[0.1] * 5 + [0.14] * 5, entropy=rising)) is None
    assert warning_signs.drift(steps(9, cut=cut[1:], entropy=rising[1:])) is None, "two windows are needed"


def test_nothing_to_learn():
    assert "nothing to learn in this step" in warning_signs.nothing_to_learn(steps(2, **{warning_signs.MIXED: 0.0}))
    assert warning_signs.nothing_to_learn(steps(2, **{warning_signs.MIXED: 0.0625})) is None
    record = {"step": 1, "actor/entropy": 0.5}
    assert warning_signs.nothing_to_learn([record]) is None, "not recorded"


def test_each_is_said_once_until_it_ends():
    signs, said = WarningSigns(), []
    for step, mixed in enumerate([0.5, 0.0, 0.0, 0.5, 0.0], 1):
        begun = signs.add({"step": step, "actor/entropy": 0.5, "reward/mixed_prompts": mixed})
        said.append([text[:6] for text in begun.values()])
        assert ("equal" in signs.current) == (mixed == 0.0)
    assert said == [[], ["step 2"], [], [], ["step 5"]]
    assert signs.current["equal"].startswith("step 5: all responses to each prompt have the same score")


def test_a_validation_is_no_step():
    signs = WarningSigns()
    assert signs.add({"step": 0, "val/task/avg@4": 0.5}) == {} and signs.current == {}
