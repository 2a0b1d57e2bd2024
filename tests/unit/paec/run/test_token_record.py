"""Token records on disk: what is written is read, unfinished files do not count, old ones are thinned out."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet
import pytest
from token_records import record_of, response_of

from recipe.paec.common.errors import UserError
from recipe.paec.run import token_record


def test_a_record_is_read_as_it_was_written(tmp_path):
    written = record_of(step=3, responses=[response_of("000003-000000_0_0", 5), response_of("000003-000001_1_0", 1)])
    file = token_record.write(tmp_path, written)
    assert file == tmp_path / "tokens" / "3.parquet" and [f.name for f in file.parent.iterdir()] == ["3.parquet"]
    found = token_record.read(file)
    assert (found.step, found.vocab_size, found.top_p, found.temperature, found.seed) == (3, 64, 0.8, 1.0, 1)
    for ours, theirs in zip(found.responses, written.responses, strict=True):
        assert (ours.uid, ours.input, ours.score, ours.texts) == (theirs.uid, theirs.input, theirs.score, theirs.texts)
        for name in ("prompt_ids", "ids", "response_mask", "advantages", "nucleus_size"):
            assert getattr(ours, name).tolist() == getattr(theirs, name).tolist(), name
        for name in token_record.STATISTICS:
            half = theirs.statistics[name].astype(np.float16).astype(np.float32)
            assert ours.statistics[name].tolist() == half.tolist(), name
    assert found.responses[1].group == "000003-000001"


def test_what_vllm_reported(tmp_path):
    """Three significant digits, nothing where a tool wrote the token; a run may have none."""
    values = np.array([-0.5, -1.23456, np.nan, -7.0], np.float32)
    responses = [replace(response_of(f"000001-00000{i}_0_0", 4), rollout_log_prob=values) for i in range(2)]
    found = token_record.read(token_record.write(tmp_path, record_of(step=1, responses=responses))).responses
    assert [str(one.rollout_log_prob.tolist()) for one in found] == ["[-0.5, -1.234375, nan, -7.0]"] * 2
    file = token_record.write(tmp_path, record_of(step=2, responses=[response_of("000002-000000_0_0", 4)] * 2))
    assert [one.rollout_log_prob for one in token_record.read(file).responses] == [None, None]


def test_a_record_from_before_vllms_log_probs_were_recorded(tmp_path):
    responses = [replace(response_of("000001-000000_0_0", 1), rollout_log_prob=np.zeros(1, np.float32))]
    file = token_record.write(tmp_path, record_of(step=1, responses=responses))
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(file).drop_columns("rollout_log_prob"), file)
    (found,) = token_record.read(file).responses
    assert found.rollout_log_prob is None and found.ids.tolist() == responses[0].ids.tolist()


def test_a_response_without_tokens(tmp_path):
    file = token_record.write(tmp_path, record_of(step=1, responses=[response_of("000001-000000_0_0", 0)]))
    (found,) = token_record.read(file).responses
    assert found.texts == () and found.statistics["entropy"].shape == (0,)


def test_its_size(tmp_path):
    """4 prompts with 8 responses of 3,000 tokens: about 1.5 MB, with random values, which do not compress."""
    responses = [response_of(f"000001-{p:06d}_{n}_0", 3000, seed=8 * p + n) for p in range(4) for n in range(8)]
    size = token_record.write(tmp_path, record_of(step=1, responses=responses)).stat().st_size
    assert 0.8e6 < size < 1.8e6


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "does not exist: the step was not recorded (run.record_tokens)"),
        (b"PAR1 and nothing else", "is not a complete token record: delete it, or choose another step"),
    ],
)
def test_what_cannot_be_read(tmp_path, content, sentence):
    file = tmp_path / "3.parquet"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError) as error:
        token_record.read(file)
    assert error.value.errors == [f"{file}: {sentence}"]


def test_another_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(token_record, "FORMAT", 2)
    file = token_record.write(tmp_path, record_of(step=1))
    monkeypatch.undo()
    with pytest.raises(UserError, match="has format 2, but this version reads 1: choose another step"):
        token_record.read(file)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(table, partial, **options):
        partial.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", full)
    with pytest.raises(OSError):
        token_record.write(tmp_path, record_of(step=1))
    assert list((tmp_path / "tokens").iterdir()) == [] and token_record.steps(tmp_path) == []


def test_resuming_cuts_the_records(tmp_path):
    for step in (1, 2, 3, 4):
        token_record.write(tmp_path, record_of(step=step))
    (tmp_path / "tokens" / ".3.parquet.partial-abc").write_bytes(b"half")
    (tmp_path / "tokens" / "mine.txt").write_text("a note")
    token_record.cut(tmp_path, 2)
    assert sorted(f.name for f in (tmp_path / "tokens").iterdir()) == ["1.parquet", "2.parquet", "mine.txt"]
    token_record.cut(tmp_path / "no run", 2)  # nothing was recorded: no error


def test_which_records_are_kept():
    assert token_record.kept(range(1, 121)) == list(range(1, 121))
    found = token_record.kept(range(1, 122))
    assert found == [1, *range(2, 102, 2), *range(102, 122)]
    assert token_record.kept([]) == []


def test_pruning_step_by_step_is_pruning_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(token_record, "NEWEST", 2)
    monkeypatch.setattr(token_record, "SPREAD", 3)
    for step in range(1, 20):
        token_record.write(tmp_path, record_of(step=step))
    assert token_record.steps(tmp_path) == token_record.kept(range(1, 20)) == [1, 8, 16, 18, 19]


def test_a_validation_is_beside_the_steps(tmp_path):
    """The same form without advantages, in a folder of its own."""
    one = replace(response_of("validation-countdown-3_0_0", 4), advantages=None)
    file = token_record.write(tmp_path, record_of(step=3, responses=[one, one], validation=True))
    token_record.write(tmp_path, record_of(step=2))
    assert file == token_record.path_of(tmp_path, 3, validation=True) == tmp_path / "tokens/validation/3.parquet"
    assert token_record.steps(tmp_path) == [2] and token_record.steps(tmp_path, validation=True) == [3]
    found = token_record.read(file)
    assert found.validation and [one.advantages for one in found.responses] == [None, None]
    assert found.responses[1].group == "validation-countdown-3" and found.responses[1].ids.tolist() == one.ids.tolist()
    assert not token_record.read(token_record.path_of(tmp_path, 2)).validation


def test_a_record_from_before_validations_were_recorded(tmp_path):
    file = token_record.write(tmp_path, record_of(step=1))
    table = pyarrow.parquet.read_table(file)
    about = json.loads(table.schema.metadata[b"paec"])
    assert about.pop("validation") is False
    pyarrow.parquet.write_table(table.replace_schema_metadata({"paec": json.dumps(about)}), file)
    assert token_record.read(file).validation is False


def test_validations_are_thinned_out_by_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr(token_record, "NEWEST", 2)
    monkeypatch.setattr(token_record, "SPREAD", 3)
    token_record.write(tmp_path, record_of(step=1))
    for step in range(0, 95, 5):
        token_record.write(tmp_path, record_of(step=step, validation=True))
    assert token_record.steps(tmp_path) == [1]
    assert token_record.steps(tmp_path, validation=True) == token_record.kept(range(0, 95, 5)) == [0, 40, 80, 85, 90]


@pytest.mark.parametrize(
    ("last_step", "records", "left"),
    [
        (4, (0,), ["0.parquet", "4.waiting.pt"]),  # killed before the next step's pass
        (4, (0, 4), ["0.parquet", "4.parquet"]),  # killed after it, or between the two files
        (2, (0, 4), ["0.parquet"]),  # the checkpoint of step 4 is damaged
        (6, (0, 4), ["0.parquet", "4.parquet"]),  # nothing waits at the checkpoint
        (-1, (0,), []),  # started over
    ],
)
def test_resuming_neither_loses_nor_repeats_a_validation(tmp_path, last_step, records, left):
    for step in records:
        token_record.write(tmp_path, record_of(step=step, validation=True))
    folder = tmp_path / "tokens" / "validation"
    for name in ("4.waiting.pt", ".4.waiting.pt.partial-7-abc", ".4.parquet.partial-7-abc"):
        (folder / name).write_bytes(b"half")
    token_record.cut(tmp_path, last_step)
    assert sorted(file.name for file in folder.iterdir()) == left
