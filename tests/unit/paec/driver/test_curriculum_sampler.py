"""The order of the prompts by hand, what is refused, and how it resumes."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from torchdata.stateful_dataloader import StatefulDataLoader

from recipe.paec.config import scored_files
from recipe.paec.config.scored_files import SCORE
from recipe.paec.driver import curriculum_sampler
from recipe.paec.driver.curriculum_sampler import CurriculumSampler

# Rows 0..7, easiest first: 6, 1, 4, 3 | 0, 7, 2, 5 (equal scores by number).
SCORES = [0.7, 0.1, 0.9, 0.5, 0.1, 2.0, 0.0, 0.7]
EASY, HARD = {6, 1, 4, 3}, {0, 7, 2, 5}


@pytest.fixture
def tiny_config(compose, tiny_files, monkeypatch):
    """tiny_config("key=value", ...) -> configuration over a few rows of countdown."""
    monkeypatch.setenv("PAEC_TINY_DIR", str(tiny_files))
    return lambda *overrides: compose("data.train_batch_size=8", "curriculum=semantic_entropy", *overrides)


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


def test_without_a_curriculum_nothing_changes(compose):
    config = compose()
    assert config.data.curriculum is None and scored_files.check_config(config) == []
    loader = object()
    assert curriculum_sampler.staged(loader, config) is loader


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
