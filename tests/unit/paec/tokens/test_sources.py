"""Records as what a method's hooks see in training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from token_records import record_of, reported, response_of, validation_of, write_recorded_run

from paec_loss.methods import METHODS
from recipe.paec.common.errors import UserError
from recipe.paec.common.queue_keys import response_number
from recipe.paec.tokens.sources import records, responses_of, rollouts_of, source_of


def test_a_record_is_a_mini_batch():
    record = record_of(step=4)
    page = responses_of(record, 10)
    source = source_of(record, 0, 10)
    assert (source.label, source.rows, source.step, source.seed) == ("step 4", (0, 1, 2, 3), 4, 1)
    rollouts, numbers = rollouts_of(source, source.statistics[0.8], page)
    assert rollouts.lengths.tolist() == [30, 35, 30, 35] and rollouts.statistics.vocab_size == 64
    assert numbers.tolist() == [response_number(one.uid) for one in record.responses]
    assert rollouts.group_id.tolist() == [response_number(one.group) for one in record.responses]
    assert rollouts.rewards.tolist() == [1.0, 0.0, 1.0, 0.0]
    assert rollouts.advantages[1, :35].tolist() == [-1.0] * 35 and rollouts.advantages[0, 30:].abs().sum() == 0
    assert rollouts.token_texts[2] == list(record.responses[2].texts)
    recorded = record.responses[1].statistics["entropy"]
    assert np.array_equal(rollouts.entropy[1].numpy(), recorded)
    assert torch.equal(rollouts.statistics.nucleus_size[0, :30], torch.tensor(record.responses[0].nucleus_size).long())


def test_a_page_has_a_limit():
    record = record_of(step=4)
    assert [one.key for one in responses_of(record, 3)] == [one.uid for one in record.responses[:3]]
    assert source_of(record, 5, 3).rows == (5, 6, 7)


def test_tokens_outside_the_loss_are_no_response_tokens():
    one = response_of("000001-000000_0_0", 4)
    one.response_mask[1:3] = False
    record = record_of(responses=[one])
    rollouts, _ = rollouts_of(source_of(record, 0, 1), source_of(record, 0, 1).statistics[0.8], responses_of(record, 1))
    assert rollouts.response_mask.tolist() == [[True, False, False, True]]
    assert METHODS["paec"]().top_p == 0.8


def test_what_vllm_reported():
    responses = [reported(response_of(f"000001-000000_{n}_0", n + 1, n), [0.5, np.nan][: n + 1]) for n in range(2)]
    found = source_of(record_of(responses=responses), 0, 2).rollout_log_prob
    assert found[:, 0].tolist() == [float(one.statistics["log_prob"][0]) + 0.5 for one in responses]
    assert found.shape == (2, 2) and found[:, 1].isnan().all(), "padding, and a token that a tool wrote"
    assert source_of(record_of(), 0, 2).rollout_log_prob is None


def test_the_last_step_or_those_asked_for(tmp_path):
    run = write_recorded_run(tmp_path / "run", *(record_of(step) for step in (1, 2, 4)))
    assert [record.step for record in records(run, ())] == [4]
    assert [record.step for record in records(run, (2, 1, 2))] == [2, 1]
    with pytest.raises(UserError) as error:
        records(run, (3,))
    assert str(error.value) == (
        f"{run}: step 3 was not recorded, or its record was deleted (docs/tokens.md); it has 1, 2, 4"
    )


def test_a_folder_without_a_record(tmp_path):
    with pytest.raises(UserError, match="has no token record .tokens/.: it was started with run.record_tokens=0"):
        records(tmp_path, ())
    with pytest.raises(UserError, match="does not exist: give the directory of a run"):
        records(tmp_path / "none", ())


def test_many_steps_are_abbreviated(tmp_path):
    run = write_recorded_run(tmp_path / "run", *(record_of(step) for step in range(1, 12)))
    with pytest.raises(UserError, match=r"it has 1, 2, 3, \.\.\. 9, 10, 11$"):
        records(run, (50,))


def test_the_validations_of_a_run(tmp_path):
    run = write_recorded_run(tmp_path / "run", record_of(1), record_of(20), validation_of(0), validation_of(20))
    assert [(one.step, one.validation) for one in records(run, (), True)] == [(20, True)]
    assert [one.step for one in records(run, (20, 0), True)] == [20, 0]
    assert [(one.step, one.validation) for one in records(run, (1,))] == [(1, False)]
    with pytest.raises(UserError) as error:
        records(run, (1,), True)
    assert str(error.value) == (
        f"{run}: validation after step 1 was not recorded, or its record was deleted (docs/tokens.md); it has 0, 20"
    )


def test_a_run_without_a_recorded_validation(tmp_path):
    run = write_recorded_run(tmp_path / "run", record_of(1))
    with pytest.raises(UserError, match="has no token record of a validation .tokens/validation/.: it was started"):
        records(run, (), True)


def test_a_validation_has_no_advantages():
    """What needs them says so; the rest is as in training."""
    record = validation_of(20)
    page, source = responses_of(record, 10), source_of(record, 0, 10)
    assert source.label == "validation after step 20"
    rollouts, numbers = rollouts_of(source, source.statistics[0.8], page)
    assert rollouts.advantages is None and rollouts.rewards.tolist() == [1.0, 0.0]
    assert rollouts.lengths.tolist() == [23, 28]
    assert numbers.tolist() == [response_number(f"validation-countdown-{index}_0_0") for index in (3, 8)]


def test_a_run_of_the_laboratory(tmp_path):
    (tmp_path / "config.yaml").write_text("task: countdown\nprompts: 2\nmini_batch: 2\n")
    with pytest.raises(UserError) as error:
        records(tmp_path, ())
    assert str(error.value) == (
        f"{tmp_path}: is a run of the laboratory, which writes no token records: train it with paec train"
    )
