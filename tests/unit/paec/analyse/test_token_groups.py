"""Kinds of tokens, against loops over the tokens."""

from dataclasses import replace

import numpy as np
import pytest
from analysed import lab_run
from token_records import record_of, response_of, validation_of, write_recorded_run

from recipe.paec.analyse.sources import read_source
from recipe.paec.analyse.token_groups import (
    analyse,
    covariances,
    entropy_tenths,
    kinds_of,
    of_source,
    read_tokens,
    sums,
    table,
    tokens_of,
)
from recipe.paec.common.errors import UserError

FAMILIES = ("A ", "place ", "entropy ")


def record(step=1):
    """Three prompts; the last response has tokens outside the loss."""
    responses = [
        response_of(f"{step:06d}-{p:06d}_{n}_0", 7 + 3 * p + n, 10 * step + 2 * p + n, advantage=[1.5, -0.5, 0][n])
        for p in range(3)
        for n in range(3)
    ]
    responses[-1] = replace(responses[-1], response_mask=np.arange(len(responses[-1].ids)) % 3 > 0)
    return record_of(step, responses)


def rows_of(found):
    """(prompt, log-prob, entropy, advantage, tenth of the response) of every token, one by one."""
    rows = []
    for response in found.responses:
        inside = [t for t in range(len(response.ids)) if response.response_mask[t]]
        for number, t in enumerate(inside):
            statistics = (float(response.statistics[name][t]) for name in ("log_prob", "entropy"))
            rows.append((response.group, *statistics, float(response.advantages[t]), int(10 * number / len(inside))))
    return rows


def test_tokens_of_a_record():
    tokens, rows = tokens_of(record()), rows_of(record())
    assert tokens.step == 1 and len(tokens.entropy) == len(rows)
    assert [*zip(tokens.log_prob, tokens.entropy, tokens.advantage, tokens.place, strict=True)] == [
        row[1:] for row in rows
    ]
    assert len(set(zip(tokens.prompt, (row[0] for row in rows), strict=True))) == 3


@pytest.mark.parametrize(("column", "value"), [("entropy", np.nan), ("log_prob", -np.inf), ("advantages", np.nan)])
def test_a_record_of_a_diverged_step_is_one_sentence(column, value):
    first, *others = record(3).responses
    values = np.array(first.advantages if column == "advantages" else first.statistics[column], np.float32)
    values[2] = value
    changed = {"advantages": values} if column == "advantages" else {"statistics": {**first.statistics, column: values}}
    with pytest.raises(UserError, match=rf"tokens/3.parquet, column {column}: 1 of \d+ values are NaN or infinite"):
        tokens_of(record_of(3, [replace(first, **changed), *others]))


def test_covariances():
    tokens, rows = tokens_of(record()), rows_of(record())
    mean_a, mean_lp = (sum(row[i] for row in rows) / len(rows) for i in (3, 1))
    expected = [(row[3] - mean_a) * (row[1] - mean_lp) for row in rows]
    np.testing.assert_allclose(covariances(tokens), expected, atol=1e-12)
    assert covariances(tokens).mean() == pytest.approx(np.cov(tokens.advantage, tokens.log_prob, bias=True)[0, 1])


def test_tenths_of_entropy():
    np.testing.assert_array_equal(entropy_tenths(np.array([0.5, 0.1, 0.9, 0.1, 0.3])), [6, 0, 8, 2, 4])
    random = np.random.default_rng(0).random(1000)
    tenth = entropy_tenths(random)
    np.testing.assert_array_equal(np.bincount(tenth), [100] * 10)
    assert all(random[tenth == i].max() < random[tenth == i + 1].min() for i in range(9))


def test_every_token_is_of_one_kind_of_each_family():
    kinds = kinds_of(tokens_of(record()))
    for family in FAMILIES:
        members = [mask for name, mask in kinds.items() if name.startswith(family)]
        np.testing.assert_array_equal(np.sum(members, 0), 1)
    tokens = tokens_of(record())
    assert (tokens.advantage[kinds["A > 0"]] > 0).all() and (tokens.advantage[kinds["A = 0"]] == 0).all()


def test_means_of_two_steps_against_loops():
    steps = [record(1), record(2)]
    found = analyse("run", [tokens_of(step) for step in steps])
    assert (found["first_step"], found["last_step"], found["prompts"]) == (1, 2, 6)
    chosen, covariance, total = [], [], 0
    for step in steps:
        rows = rows_of(step)
        total += len(rows)
        mean_a, mean_lp = (np.mean([row[i] for row in rows]) for i in (3, 1))
        chosen += [row[2] for row in rows if row[3] < 0]
        covariance += [(row[3] - mean_a) * (row[1] - mean_lp) for row in rows if row[3] < 0]
    kind = next(kind for kind in found["kinds"] if kind["name"] == "A < 0")
    assert kind["share"]["value"] == pytest.approx(len(chosen) / total)
    assert kind["entropy"]["value"] == pytest.approx(np.mean(chosen))
    assert kind["covariance"]["value"] == pytest.approx(np.mean(covariance))
    assert kind["entropy"]["low"] < kind["entropy"]["value"] < kind["entropy"]["high"]


def test_the_kinds_of_a_family_add_up():
    tokens = tokens_of(record())
    found = analyse("run", [tokens])["kinds"]
    for family in FAMILIES:
        of = [kind for kind in found if kind["name"].startswith(family)]
        assert sum(kind["share"]["value"] for kind in of) == pytest.approx(1)
        for name, values in (("entropy", tokens.entropy), ("covariance", covariances(tokens))):
            assert sum(k["share"]["value"] * k[name]["value"] for k in of) == pytest.approx(values.mean())


def test_kinds_without_tokens_are_left_out():
    names = {kind["name"] for kind in analyse("run", [tokens_of(record_of(1))])["kinds"]}
    assert "A > 0" in names and "A = 0" not in names
    assert sums(tokens_of(record_of(1)))["A = 0"][:, 0].sum() == 0


def test_halves_of_a_run(tmp_path):
    run = write_recorded_run(tmp_path / "run", *(record(step) for step in (1, 2, 5)))
    (run / "metrics.jsonl").write_text('{"step": 1}\n')
    found = of_source(read_source(str(run)))
    assert [(part["first_step"], part["last_step"], part["records"]) for part in found] == [(1, 2, 2), (5, 5, 1)]
    text = table(found)
    assert "run, steps 1 - 2 (2 recorded, 6 prompts)" in text and "entropy 10/10" in text


def test_what_is_missing(tmp_path):
    run = lab_run(tmp_path / "run", {0: [1]})
    with pytest.raises(UserError, match=r"run: tokens: needs tokens/STEP.parquet: train with run.record_tokens"):
        read_tokens(read_source(str(run)), "tokens")
    with pytest.raises(UserError, match="column advantages: is missing"):
        tokens_of(validation_of(3))
    empty = [replace(r, response_mask=np.zeros(len(r.ids), bool)) for r in record().responses]
    with pytest.raises(UserError, match="has no token in the loss"):
        tokens_of(record_of(1, empty))
