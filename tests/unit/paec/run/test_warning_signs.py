"""Each warning by values on both sides of its threshold, and once until its condition ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipe.paec.run import warning_signs
from recipe.paec.run.warning_signs import SIGNS, WarningSigns


def steps(count: int, **values) -> list[dict]:
    """Records of `count` healthy steps; a list among `values` has the values of the last steps."""
    named = {"entropy": "actor/entropy", "length": "response_length/mean", "cut": "reward/cut_off"}
    named |= {"gradient": "actor/grad_norm", "score": "critic/score/mean"}
    found = []
    for step in range(1, count + 1):
        record = {"step": step, "actor/entropy": 0.5, "actor/grad_norm": 0.5, "response_length/mean": 20.0}
        record |= {"reward/cut_off": 0.1, "reward/mixed_prompts": 0.75}
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


def test_explosion():
    """Twice the beginning is not enough, nor are half a nat: both must be exceeded by the mean of five steps."""
    assert warning_signs.explosion(steps(20, entropy=[1.0] * 5)) is None
    assert warning_signs.explosion(steps(20, entropy=[0.9] * 4 + [1.5])) is not None
    assert warning_signs.explosion(steps(20, entropy=[0.9] * 4 + [1.25])) is None
    low = {"entropy": [0.125] * 10 + [0.625] * 10}
    assert warning_signs.explosion(steps(20, **low)) is None, "as method=entropy_target does by design"
    assert warning_signs.explosion(steps(8, entropy=[0.5] * 3 + [5.0] * 5)) is None, "too few steps"
    assert warning_signs.explosion(steps(20, entropy=[5.0] * 4 + [None])) is None, "that is `nan`"
    text = warning_signs.explosion(steps(20, entropy=[1.25] * 5))
    assert text.startswith(
        "token entropy 1.2500 (mean of 5 steps) is 2.5 times the mean of the first 10 steps, 0.5000: "
    )
    assert "method=entropy_target" in text and "method.clip_high" in text and "lambda_ent" not in text
    text = warning_signs.explosion(steps(20, entropy=[1.25] * 5, **paec(0.5)))
    assert "method.lambda_ent=0" in text and "method.penalty=two_sided" in text and "entropy_target" not in text


def test_gradient():
    assert warning_signs.gradient_explosion(steps(11, gradient=[5.0])) is None
    text = warning_signs.gradient_explosion(steps(11, gradient=[5.25]))
    assert text.startswith("actor/grad_norm 5.25 is 10 times the median of the 10 steps before, 0.5: ")
    assert "actor_rollout_ref.actor.optim.clip_grad" in text
    assert warning_signs.gradient_explosion(steps(10, gradient=[50.0])) is None, "too few steps before it"
    assert warning_signs.gradient_explosion(steps(12, gradient=[50.0, None])) is None, "that is `nan`"
    assert warning_signs.gradient_explosion(steps(20, gradient=[0.0] * 19 + [5.0])) is None


def test_steps_without_anything_to_learn_are_no_measure_of_gradients():
    empty = {"gradient": [0.001] * 15 + [0.5] * 5, warning_signs.MIXED: [0.0] * 15 + [0.25] * 5}
    assert warning_signs.gradient_explosion(steps(20, **empty)) is None
    assert warning_signs.gradient_explosion(steps(20, gradient=[0.001] * 15 + [0.5] * 5)) is not None


def test_score():
    assert warning_signs.score_fall(steps(20, score=[0.5] * 15 + [0.25] * 5)) is None
    text = warning_signs.score_fall(steps(20, score=[0.5] * 15 + [0.25] * 4 + [0.125]))
    assert text.startswith("the mean score of 5 steps, 0.225, is below half of the best one, 0.500: ")
    assert "run.keep_best=1" in text
    assert warning_signs.score_fall(steps(9, score=[0.5] * 5 + [0.0] * 4)) is None, "too few steps"
    assert warning_signs.score_fall(steps(20, score=[0.1875] * 15 + [0.0] * 5)) is None, "chance, at such a score"
    assert warning_signs.score_fall(steps(20)) is None, "not recorded"


def test_an_exploding_run():
    """Entropy 0.3 to 5.6 nats, score to 0, gradient norm x 304, 2 % truncated: each is said, the entropy first."""
    signs, said = WarningSigns(), {}
    for step in range(60):
        place = step / 59
        record = {"step": step + 1, "actor/entropy": 0.3 + 5.3 * place, "critic/score/mean": 0.5 * (1 - place)}
        record |= {"actor/grad_norm": 0.5 * 304**place, "response_length/mean": 300 * 1.02**step}
        record |= {"reward/cut_off": 0.02, "reward/mixed_prompts": 0.5}
        said |= {name: step + 1 for name in signs.add(record)}
    assert said == {"explosion": 16, "score": 34, "gradient": 48}


RESULTS = Path(__file__).resolve().parents[4] / "benchmarks" / "results"
EXPLODED = {
    "lab/search/tea_rl.coefficient=1-seed11",
    "lab/search/ettrl_advantage-seed11",
    *(f"lab/matched_entropy/entropy_bonus.coefficient={value}-seed11" for value in (0.02, 0.03, 0.1)),
}
"""The recorded runs whose entropy explodes; in the one with 0.1 it begins at 1.3 nats."""
FELL = {"lab/search/tea_rl.coefficient=1-seed11"}


def recorded() -> dict[str, list[dict]]:
    """Training curves by name, a record for each step; where means over some steps were kept, each stands for them."""
    found = {}
    for path in sorted(RESULTS.rglob("metrics.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found[str(path.parent.relative_to(RESULTS))] = [line for line in lines if "actor/entropy" in line]
    for path in sorted(RESULTS.rglob("*.json")):
        content = json.loads(path.read_text())
        if "training" in content:
            names, columns = zip(*content["training"].items(), strict=True)
            means = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
            name = str(path.relative_to(RESULTS)).removesuffix(".json")
            found[name] = [{**mean, "step": step} for mean in means for step in range(mean["step"] - 19, mean["step"])]
    return found


def test_the_recorded_runs():
    """The thresholds' origin: of 324 curves only those warn whose entropy explodes, or whose score falls to 0."""
    curves = recorded()
    assert len(curves) >= 324
    for name, sign, expected in (
        ("explosion", warning_signs.explosion, EXPLODED),
        ("score", warning_signs.score_fall, FELL),
        ("gradient", warning_signs.gradient_explosion, set()),
    ):
        ends = {key: (*range(15, len(curve), 5), len(curve)) for key, curve in curves.items()}
        holding = {key for key, curve in curves.items() if any(sign(curve[:end]) for end in ends[key])}
        assert holding == expected, name


def test_mismatch():
    key = warning_signs.MISMATCHED
    assert warning_signs.mismatch(steps(2, **{key: 0.01})) is None
    assert warning_signs.mismatch(steps(2, **{key: None})) is None
    text = warning_signs.mismatch(steps(2, **{key: 0.0101}))
    assert text.startswith("log-probs of vLLM and of the actor differ by 0.0101 nats per token (limit 0.01)")
    assert text.endswith("is off-policy: algorithm.rollout_correction.rollout_is=token corrects the update for it")
    signs = WarningSigns(remedy="set top_p to 1")
    assert signs.add(steps(1, **{key: 0.5})[0])["mismatch"].endswith("is off-policy: set top_p to 1")


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
    assert "method.lambda_ent=0" in text and "method.coefficient" in text
    assert text.startswith("16% of the responses are cut off (10% before) while the token entropy rises from 0.5000 to")
    assert warning_signs.drift(steps(10, cut=cut)) is None, "the entropy does not rise"
    assert warning_signs.drift(steps(10, entropy=rising)) is None, "as many were cut off before"
    assert warning_signs.drift(steps(10, cut=[0.1] * 5 + [0.14] * 5, entropy=rising)) is None
    assert warning_signs.drift(steps(9, cut=cut[1:], entropy=rising[1:])) is None, "two windows are needed"
    longest = {"response_length/clip_ratio": cut, "response_length_non_aborted/clip_ratio": cut}
    assert warning_signs.drift(steps(10, cut=0.0, entropy=rising, **longest)) is None, "none is as long as allowed"


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


def test_a_curriculum_lowers_the_score_by_design():
    fallen = steps(20, score=[0.5] * 15 + [0.125] * 5)
    for curriculum, expected in ((False, ["score"]), (True, [])):
        signs = WarningSigns(curriculum=curriculum)
        assert [name for record in fallen for name in signs.add(record)] == expected


def test_a_validation_is_no_step():
    signs = WarningSigns()
    assert signs.add({"step": 0, "val/task/avg@4": 0.5}) == {} and signs.current == {}
