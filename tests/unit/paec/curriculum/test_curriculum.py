"""A curriculum: scores by hand, the scored file, the order of the prompts, what is refused, and how it resumes."""

from __future__ import annotations

import json
import math
from collections import Counter

import pyarrow.parquet as pq
import pytest
from torchdata.stateful_dataloader import StatefulDataLoader

from data_prep.contract import validate_rows, write_parquet
from recipe.grading.pool import GraderPool
from recipe.paec.common.errors import UserError
from recipe.paec.config import resolve, rules, scored_files
from recipe.paec.config.identity import identity
from recipe.paec.config.scored_files import SCORE, original_path, scored_path
from recipe.paec.curriculum import command as curriculum_command
from recipe.paec.curriculum import prompt_scores
from recipe.paec.doctor import inputs
from recipe.paec.driver import curriculum_sampler
from recipe.paec.driver.curriculum_sampler import CurriculumSampler
from recipe.paec.evaluate.grading import grade

# Rows 0..7, easiest first: 6, 1, 4, 3 | 0, 7, 2, 5 (equal scores by number).
SCORES = [0.7, 0.1, 0.9, 0.5, 0.1, 2.0, 0.0, 0.7]
EASY, HARD = {6, 1, 4, 3}, {0, 7, 2, 5}


def row(index: int, **extra) -> dict:
    return {
        "data_source": "aime24",
        "prompt": [{"role": "user", "content": f"Problem {index}?"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "204"},
        "extra_info": {"split": "train", "index": index, **extra},
    }


def command(*overrides: str) -> None:
    """The command with these arguments."""
    curriculum_command.run(resolve.composed(*overrides))


@pytest.fixture
def tiny_config(compose, tiny_files, monkeypatch):
    """tiny_config("key=value", ...) -> configuration over a few rows of countdown."""
    monkeypatch.setenv("PAEC_TINY_DIR", str(tiny_files))
    return lambda *overrides: compose("data.train_batch_size=8", "curriculum=semantic_entropy", *overrides)


@pytest.fixture
def scored(tiny_files, tmp_path):
    """A copy of the tiny training file with scores: row i has i / 100."""
    path = tmp_path / "train.semantic_entropy.parquet"
    prompt_scores.write_scores(
        tiny_files / "data" / "train.parquet", path, {i: i / 100 for i in range(64)}, {"seed": 1}
    )
    return path


# ---- scores ----------------------------------------------------------------------------------------------------------


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


# ---- the scored file -------------------------------------------------------------------------------------------------


def test_names():
    assert str(scored_path("a/train.parquet")) == "a/train.semantic_entropy.parquet"
    assert scored_path(scored_path("x.parquet")) == scored_path("x.parquet")
    assert original_path(scored_path("a/x.parquet")) == original_path("a/x.parquet")


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
    with pytest.raises(UserError, match="its seed is 1, here 2: replace it with run.fresh=true"):
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


def test_sampling_is_the_trainings(tiny_config):
    config = tiny_config("actor_rollout_ref.rollout.temperature=0.7", "data.curriculum.samples=5", "seed=9")
    sampling = prompt_scores.sampling_of(config)
    assert sampling.protocol == {
        **{"temperature": 0.7, "top_p": 1.0, "top_k": -1, "max_tokens": 32, "samples": 5, "samples_of": {}}
    }
    assert (sampling.context_length, sampling.seed, sampling.engine.dtype) == (96, 9, "float32")


# ---- the order -------------------------------------------------------------------------------------------------------


def sampler(**changed) -> CurriculumSampler:
    return CurriculumSampler(**{"scores": SCORES, "stages": 2, "steps": 6, "batch_size": 2, "seed": 1, **changed})


def steps_of(order: CurriculumSampler, count: int) -> list[list[int]]:
    drawn, size = iter(order), order.batch_size
    return [[next(drawn) for _ in range(size)] for _ in range(count)]


def test_stages_by_hand():
    """3 steps of 2 easy rows, then 3 of 2 hard ones: the first pass of a stage has all of its four rows once."""
    steps = steps_of(sampler(), 6)
    assert all(set(step) <= EASY for step in steps[:3]) and all(set(step) <= HARD for step in steps[3:])
    assert set(steps[0] + steps[1]) == EASY and set(steps[3] + steps[4]) == HARD
    assert len(sampler()) == 12


def test_the_last_stage_is_endless_and_stages_need_not_divide():
    assert all(set(step) <= HARD for step in steps_of(sampler(), 40)[3:])
    steps = steps_of(sampler(stages=3, batch_size=1), 6)  # parts of 2, 3 and 3 rows, two steps each
    for begin, part in ((0, {6, 1}), (2, {4, 3, 0}), (4, {7, 2, 5})):
        assert set(sum(steps[begin : begin + 2], [])) <= part
    five = steps_of(sampler(steps=5), 5)  # 2 and 3 steps
    assert [set(step) <= EASY for step in five] == [True, True, False, False, False]


def test_one_stage_has_all_rows():
    steps = steps_of(sampler(stages=1, steps=4), 8)
    assert Counter(sum(steps[:4], [])) == Counter(sum(steps[4:], [])) == Counter(range(8))


def test_no_row_twice_in_a_step():
    """Three of four rows a step: the fourth of a pass is left out, another one each time."""
    steps = steps_of(sampler(batch_size=3, steps=40), 20)
    assert all(len(set(step)) == 3 for step in steps)
    assert len({frozenset(step) for step in steps}) == 4


def test_the_order_is_the_seeds():
    assert steps_of(sampler(), 6) == steps_of(sampler(), 6)
    assert steps_of(sampler(), 6) != steps_of(sampler(seed=2), 6)
    passes = steps_of(sampler(stages=1, steps=40), 40)
    assert passes[:4] != passes[4:8]


def test_a_sampler_refuses():
    with pytest.raises(
        ValueError, match="1 of 8 training rows have no extra_info.semantic_entropy: write it with python -m"
    ):
        sampler(scores=[*SCORES[:7], None])
    with pytest.raises(ValueError, match="a stage has 4 of the 8 rows, fewer than data.train_batch_size=5"):
        sampler(batch_size=5)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 2])  # verl draws single prompts in its asynchronous modes
def test_a_resumed_loader_continues_exactly(workers, batch_size):
    def loader() -> StatefulDataLoader:
        return StatefulDataLoader(list(range(8)), batch_size, sampler=sampler(), num_workers=workers, drop_last=True)

    straight, stopped, resumed = loader(), loader(), loader()
    first, second = iter(straight), iter(stopped)
    whole = [next(first).tolist() for _ in range(16 // batch_size)]
    assert sum(whole, []) == sum(steps_of(sampler(), 8), [])
    for _ in range(10 // batch_size):  # into the second stage
        next(second)
    resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())) if not workers else stopped.state_dict())
    third = iter(resumed)
    assert [next(third).tolist() for _ in range(6 // batch_size)] == whole[10 // batch_size :]


# ---- configuration ---------------------------------------------------------------------------------------------------


def test_without_a_curriculum_nothing_changes(compose):
    config = compose()
    assert config.data.curriculum is None and scored_files.check_config(config) == []
    loader = object()
    assert curriculum_sampler.staged(loader, config) is loader


@pytest.mark.parametrize(
    "override, words",
    [
        ("data.curriculum.stages=0", "data.curriculum.stages=0: must be an integer >= 1"),
        ("data.curriculum.stages=two", "data.curriculum.stages=two: must be an integer >= 1"),
        ("data.curriculum.samples=1", "data.curriculum.samples=1: must be an integer >= 2"),
        ("data.curriculum.stages=41", "data.curriculum.stages=41 is more than trainer.total_training_steps=40"),
        ("data.shuffle=false", "data.shuffle=false: a curriculum sets the order and shuffles"),
        ("+algorithm.filter_groups.enable=true", "algorithm.filter_groups.enable=true draws more prompts"),
    ],
)
def test_bad_configurations(tiny_config, override, words):
    override = override.removeprefix("+") if "filter_groups" in override else override
    assert any(words in problem for problem in rules.check_config(tiny_config(override)))


def test_a_file_without_scores_names_the_command(tiny_config):
    (problem,) = inputs.check_inputs(tiny_config())
    assert "64 of 64 rows have no extra_info.semantic_entropy: run python -m recipe.paec.curriculum" in problem


def test_an_existing_scored_file_is_used(tiny_config, tiny_files, scored):
    copy = tiny_files / "data" / scored.name
    copy.write_bytes(scored.read_bytes())
    try:
        config = tiny_config()
        assert config.data.train_files == [str(copy)] and inputs.check_inputs(config) == []
        assert identity(config)["data.curriculum.stages"] == 2
        (problem,) = inputs.check_inputs(tiny_config("data.curriculum.stages=9"))
        assert "a stage has 7 of the 64 rows, fewer than data.train_batch_size=8" in problem
    finally:
        copy.unlink()


@pytest.mark.parametrize("score, words", [(None, "1 of 64 rows have no"), (-1.0, "is -1.0"), (math.nan, "is nan")])
def test_bad_scores(tiny_config, tiny_files, tmp_path, score, words):
    path = tmp_path / "scored.parquet"
    scores = {i: 0.5 for i in range(1, 64)} | ({} if score is None else {0: score})
    prompt_scores.write_scores(tiny_files / "data" / "train.parquet", path, scores, {})
    (problem,) = inputs.check_inputs(tiny_config(f"data.train_files=[{path}]"))
    assert words in problem


def test_the_loader_of_a_run(tiny_config, scored):
    """verl's own data set and loader: the rows of a step by their scores."""
    from verl.trainer.ppo.utils import create_rl_dataset
    from verl.utils.dataset.rl_dataset import collate_fn

    from recipe.paec.common.prompts import load_tokenizer

    config = tiny_config(f"data.train_files=[{scored}]", "trainer.total_training_steps=4")
    tokenizer = load_tokenizer(config.model.path, None, "model", "")
    data = create_rl_dataset(config.data.train_files, config.data, tokenizer, None)
    plain = StatefulDataLoader(data, 8, num_workers=0, collate_fn=collate_fn, drop_last=True)
    steps = iter(curriculum_sampler.staged(plain, config))
    scores = [[extra[SCORE] for extra in next(steps)["extra_info"]] for _ in range(4)]
    assert all(len(step) == 8 for step in scores)
    assert max(sum(scores[:2], [])) < 0.32 <= min(sum(scores[2:], []))


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["curriculum=semantic_entropy", "data.curriculum.samples=1"], "data.curriculum.samples=1: must be"),
        (["curriculum=none"], "curriculum=none: there is nothing to score:"),
        (["curriculum=semantic_entropy", "+data.apply_chat_template_kwargs.a=1"], "data.apply_chat_template_kwargs: "),
        (
            ["curriculum=semantic_entropy", "run.prepare_command=null", "model.path=/nowhere"],
            "model.path=/nowhere: does not exist",
        ),
        (
            ["curriculum=semantic_entropy", "run.prepare_command=null", "data.train_files=[a.parquet]"],
            "a.parquet does not exist",
        ),
    ],
)
def test_the_command_refuses(overrides, words):
    with pytest.raises(UserError) as raised:
        command(*overrides)
    assert any(words in problem for problem in raised.value.errors)
