"""Scores of prompts by hand, the scored file, and what is asked for them."""

from __future__ import annotations

import json
import math

import pyarrow.parquet as pq
import pytest

from data_prep.contract import validate_rows, write_parquet
from recipe.grading.pool import GraderPool
from recipe.paec.common.errors import UserError
from recipe.paec.config import scored_files
from recipe.paec.config.scored_files import SCORE
from recipe.paec.curriculum import prompt_scores
from recipe.paec.evaluate.grading import grade


def row(index: int, **extra) -> dict:
    return {
        "data_source": "aime24",
        "prompt": [{"role": "user", "content": f"Problem {index}?"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "204"},
        "extra_info": {"split": "train", "index": index, **extra},
    }


@pytest.fixture
def tiny_config(compose, tiny_files, monkeypatch):
    """tiny_config("key=value", ...) -> configuration over a few rows of countdown."""
    monkeypatch.setenv("PAEC_TINY_DIR", str(tiny_files))
    return lambda *overrides: compose("data.train_batch_size=8", "curriculum=semantic_entropy", *overrides)


def graded(responses: list[tuple[str, float]]) -> list[dict]:
    samples = [
        {"benchmark": "aime24", "problem": "0", "sample": i, "response": text, "ground_truth": "204", "log_prob": lp}
        for i, (text, lp) in enumerate(responses)
    ]
    with GraderPool(1) as pool:
        return grade(samples, pool)


def test_semantic_entropy_of_samples_by_hand():
    """1/2 and 0.5 are one answer: P = (0.4 + 0.2, 0.2, 0.2); a response without answer agrees with no other."""
    responses = [("\\boxed{\\frac{1}{2}}", 0.4), ("no", 0.2), ("\\boxed{0.5}", 0.2), ("nor here", 0.2)]
    samples = graded([(text, math.log(p) - 700) for text, p in responses])
    assert [s["group"] for s in samples] == [0, None, 0, None]
    assert prompt_scores.entropy_of(samples) == pytest.approx(-0.6 * math.log(0.6) - 0.4 * math.log(0.2), rel=1e-12)


def test_one_answer_is_certain_and_none_is_the_hardest():
    assert prompt_scores.entropy_of(graded([("\\boxed{3}", -1.0), ("\\boxed{3.0}", -9.0)])) == 0
    assert prompt_scores.entropy_of(graded([("a", -2.0), ("b", -2.0)])) == pytest.approx(math.log(2), rel=1e-12)


def test_nothing_is_lost(tmp_path):
    source, target = tmp_path / "train.parquet", tmp_path / "scored.parquet"
    write_parquet([row(i, problem=f"p{i}", weight=i) for i in range(3)], source)
    prompt_scores.write_scores(source, target, {0: 0.5, 2: 1.5}, {"seed": 3})
    before, after = validate_rows(source).to_dict("records"), validate_rows(target).to_dict("records")
    scores = [one["extra_info"].pop(SCORE) for one in after]
    assert scores == [0.5, None, 1.5] and scored_files.scores_in(target) == scores
    assert json.dumps(after, default=list) == json.dumps(before, default=list)
    old, new = pq.read_schema(source), pq.read_schema(target)
    assert [f for f in new.field("extra_info").type if f.name != SCORE] == list(old.field("extra_info").type)
    assert prompt_scores.provenance(target) == {"seed": 3} and prompt_scores.provenance(source) is None


def test_accuracy_and_difficulty_are_beside_the_score(tmp_path):
    source, target = tmp_path / "train.parquet", tmp_path / "scored.parquet"
    write_parquet([row(i) for i in range(4)], source)
    samples = {("aime24", "0"): [{"correct": True}] * 4, ("aime24", "3"): [{"correct": False}, {"correct": True}]}
    samples["aime24", "1"] = [{"correct": False}] * 4
    accuracies = prompt_scores.accuracies_of(samples)
    assert accuracies == {0: 1.0, 3: 0.5, 1: 0.0}
    prompt_scores.write_scores(source, target, {0: 0.5, 1: 1.0, 3: 1.5}, {}, accuracies)
    extra = [one["extra_info"] for one in validate_rows(target).to_dict("records")]
    assert [one["difficulty"] for one in extra] == ["easy", "hard", None, "medium"]
    assert [one["sample_accuracy"] for one in extra] == [1.0, 0.0, None, 0.5]
    assert list(prompt_scores.summary(accuracies, {0: 0.5, 1: 1.0, 3: 1.5}, 1)) == [
        "  stage 1 of 1: 3 rows, semantic entropy 0.500 to 1.500 nats, accuracy of the samples 0.500"
    ]


def test_scores_are_replaced_and_a_failure_leaves_the_file(tmp_path):
    source, target = tmp_path / "train.parquet", tmp_path / "train.semantic_entropy.parquet"
    write_parquet([row(i) for i in range(2)], source)
    prompt_scores.write_scores(source, target, {0: 0.5, 1: 1.5}, {})
    prompt_scores.write_scores(target, target, {0: 2.5, 1: 3.5}, {})
    assert scored_files.scores_in(target) == [2.5, 3.5]
    with pytest.raises(TypeError):
        prompt_scores.write_scores(source, target, {0: 1.0}, {"not": {"json"}})
    assert scored_files.scores_in(target) == [2.5, 3.5]
    assert {path.name for path in tmp_path.iterdir()} == {source.name, target.name}


def test_scored_in_another_way(scored):
    assert prompt_scores.is_scored(scored, {"seed": 1}, fresh=False)
    assert not prompt_scores.is_scored(scored, {"seed": 1}, fresh=True)
    assert not prompt_scores.is_scored(scored.with_name("other"), {"seed": 1}, fresh=False)
    with pytest.raises(UserError, match="its seed is 1, but this command has 2: replace it with run.fresh=true"):
        prompt_scores.is_scored(scored, {"seed": 2}, fresh=False)


def test_prompts_are_the_trainings(tiny_files, tmp_path):
    """Every row by its number, with the turns of the file; a prompt that training drops is not asked."""
    from recipe.paec.common.prompts import encode, load_tokenizer

    tokenizer = load_tokenizer(tiny_files / "model", None, "model", "")
    rows = validate_rows(tiny_files / "data" / "train.parquet").to_dict("records")[:3]
    rows = [one | {"prompt": [dict(turn) for turn in one["prompt"]]} for one in rows]
    longest = max(len(encode(tokenizer, one["prompt"])) for one in rows)
    rows[1]["prompt"][0]["content"] *= 2
    write_parquet(rows, tmp_path / "train.parquet")
    (problems,) = prompt_scores.load_prompts(tmp_path / "train.parquet", tokenizer, longest).values()
    assert [(p.benchmark, p.id) for p in problems] == [
        ("reasoning_gym/countdown", "0"),
        ("reasoning_gym/countdown", "2"),
    ]
    assert [p.prompt for p in problems] == [rows[0]["prompt"], rows[2]["prompt"]]
    (problems,) = prompt_scores.load_prompts(tmp_path / "train.parquet", tokenizer, 2 * longest).values()
    assert [p.prompt for p in problems] == [one["prompt"] for one in rows]
    write_parquet([row(0) | {"reward_model": {"style": "rule", "ground_truth": ["1"]}}], tmp_path / "train.parquet")
    with pytest.raises(UserError, match="row 0, field reward_model.ground_truth: list instead of a string"):
        prompt_scores.load_prompts(tmp_path / "train.parquet", tokenizer, 2 * longest)


def test_sampling_is_the_trainings(tiny_config):
    config = tiny_config("actor_rollout_ref.rollout.temperature=0.7", "data.curriculum.samples=5", "seed=9")
    sampling = prompt_scores.sampling_of(config)
    assert sampling.protocol == {
        **{"temperature": 0.7, "top_p": 1.0, "top_k": -1, "max_tokens": 32, "samples": 5, "samples_of": {}}
    }
    assert (sampling.context_length, sampling.seed, sampling.engine.dtype) == (96, 9, "float32")


@pytest.mark.parametrize("fresh", [False, True])
def test_scores_replace_scores_alone(tmp_path, fresh):
    target = tmp_path / "train.semantic_entropy.parquet"
    target.write_text("somebody's")
    with pytest.raises(UserError, match="was not written by this command: move it away"):
        prompt_scores.is_scored(target, {"seed": 1}, fresh)
    assert target.read_text() == "somebody's"
