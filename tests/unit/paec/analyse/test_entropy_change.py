"""Predicted entropy changes, against a softmax policy's exact change, and their correlations."""

import json

import numpy as np
import pytest
from token_records import record_of, response_of, write_recorded_run

from recipe.paec.analyse.entropy_change import correlation, of_source, predictions, ranks, table
from recipe.paec.analyse.sources import read_source
from recipe.paec.analyse.token_groups import Tokens, tokens_of


def test_predictions_against_loops():
    record = record_of(1)
    rows = [
        (float(a), float(lp), float(h))
        for r in record.responses
        for a, lp, h in zip(r.advantages, r.statistics["log_prob"], r.statistics["entropy"], strict=True)
    ]
    mean_a, mean_lp = np.mean([row[0] for row in rows]), np.mean([row[1] for row in rows])
    found = predictions(tokens_of(record))
    assert found["covariance"] == pytest.approx(-np.mean([(a - mean_a) * (lp - mean_lp) for a, lp, _ in rows]))
    assert found["omega"] == pytest.approx(-np.mean([a * (1 - np.exp(lp)) * (lp + h) for a, lp, h in rows]))


@pytest.mark.parametrize("token", range(5))
def test_their_sign_is_that_of_a_small_update(token):
    """The entropy of a softmax policy after a small step of one token's own logit, computed exactly.

    One unit of the logit changes H by -p (log p + H); Omega / p is that times the gradient 1 - p of log p, at A = 1.
    """
    p = np.array([0.5, 0.25, 0.15, 0.07, 0.03])
    logits, entropy = np.log(p), -(p * np.log(p)).sum()
    moved = logits + 1e-6 * (np.arange(5) == token)
    q = np.exp(moved) / np.exp(moved).sum()
    change = (-(q * np.log(q)).sum() - entropy) / 1e-6
    assert change == pytest.approx(-p[token] * (logits[token] + entropy), abs=1e-5)
    one = np.ones(1)
    found = predictions(Tokens(1, np.zeros(1), logits[token] * one, entropy * one, one, np.zeros(1)))
    assert np.sign(found["omega"]) == np.sign(change)
    assert found["omega"] == pytest.approx(change * (1 - p[token]) / p[token], rel=1e-3)


def test_ranks_and_correlation():
    np.testing.assert_array_equal(ranks(np.array([3.0, 1.0, 3.0, 9.0])), [1.5, 0, 1.5, 3])
    random = np.random.default_rng(0).random((2, 3, 8))
    expected = [np.corrcoef(x, y)[0, 1] for x, y in zip(*random, strict=True)]
    np.testing.assert_allclose(correlation(*random), expected)
    assert np.isnan(correlation(np.ones(4), np.arange(4.0)))
    rounded = np.array([0.1 + 0.2, 0.3, 0.3, 0.3])  # equal but for the last bit
    assert np.isnan(correlation(rounded, np.arange(4.0))) and np.isnan(correlation(np.arange(4.0), rounded))
    assert np.isnan(correlation(np.zeros(4), np.arange(4.0)))
    assert correlation(1e-9 * np.arange(4.0), np.arange(4.0)) == pytest.approx(1)


def recorded_run(folder, entropies, advantage=1.0):
    """A run whose step s has advantages that are the larger the more the entropy falls after it."""
    records = []
    for step in range(1, len(entropies)):
        fall = entropies[step - 1] - entropies[step]
        pair = [
            response_of(f"{step:06d}-000000_{n}_0", 40, seed=n, advantage=(1 - 2 * n) * advantage * fall)
            for n in range(2)
        ]
        records.append(record_of(step, pair))
    run = write_recorded_run(folder, *records)
    lines = [json.dumps({"step": step, "actor/entropy": h}) for step, h in enumerate(entropies, 1)]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return run


def test_a_run_in_which_the_prediction_holds(tmp_path):
    """The same tokens at every step, with advantages in proportion to the fall: both are exact, up to the sign."""
    run = recorded_run(tmp_path / "run", [1.0, 0.95, 0.85, 0.83, 0.7, 0.72])
    remarks = []
    (found,) = of_source(read_source(str(run)), remarks)
    assert len(found["updates"]) == 5 and len(remarks) == 1
    assert "has no column entropy_after" in remarks[0] and "on other tokens" in remarks[0]
    np.testing.assert_allclose([u["measured"] for u in found["updates"]], [-0.05, -0.1, -0.02, -0.13, 0.02])
    for name in ("covariance", "omega"):
        slope = found["updates"][0][name] / found["updates"][0]["measured"]
        assert found[name]["pearson"]["value"] == pytest.approx(np.sign(slope))
        assert found[name]["spearman"]["value"] == pytest.approx(np.sign(slope))
    assert "-Cov(log p, A)" in table([found])


def test_too_few_updates(tmp_path):
    run = recorded_run(tmp_path / "run", [1.0, 0.9, 0.8, 0.75])
    remarks = []
    assert of_source(read_source(str(run)), remarks) == []
    assert remarks == [
        "run: entropy_change: needs 4 recorded steps with actor/entropy whose next step has it too, found 3: give a "
        "longer run"
    ]
