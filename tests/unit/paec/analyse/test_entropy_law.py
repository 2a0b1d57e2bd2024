"""The entropy law, against hand values, NumPy's polynomial fit, and runs that follow it exactly."""

import numpy as np
import pytest
from analysed import lab_run, write_lines

from recipe.paec.analyse.entropy_law import QUANTITIES, analyse, fit, of_source, predicted, quantities, table
from recipe.paec.analyse.metrics import MEASURED, NEXT, SAME, Validation
from recipe.paec.analyse.sources import read_source

H, R = np.array([1.0, 0.6, 0.3, 0.1]), np.array([0.20, 0.31, 0.37, 0.40])


def test_hand_values():
    a, b = fit(H, R)
    assert (a, b, b - a) == pytest.approx((0.124126, 0.537079, 0.412953), abs=5e-7)
    np.testing.assert_allclose(predicted(fit(H, R), [0.0]), [b - a])


def test_against_numpys_fit_for_many_runs_at_once():
    random = np.random.default_rng(0)
    entropy, accuracy = random.uniform(0, 2, 7), random.random((3, 7))
    for found, values in zip(fit(entropy, accuracy), accuracy, strict=True):
        slope, intercept = np.polyfit(np.exp(entropy), values, 1)
        np.testing.assert_allclose(found, [-slope, intercept], rtol=1e-9)


def test_errors_of_law_and_last_value():
    """The fit sees four points that the law meets exactly; the two others are .01 and .03 above it."""
    entropy = np.log([2.0, 1.8, 1.6, 1.4, 1.2, 1.1])
    accuracy = 0.9 - 0.4 * np.exp(entropy) + np.array([0, 0, 0, 0, 0.01, 0.03])
    found = dict(zip(QUANTITIES, quantities(entropy, accuracy, 4), strict=True))
    assert found["a"] == pytest.approx(0.4) and found["ceiling"] == pytest.approx(0.5)
    assert found["error"] == pytest.approx(0.02)
    # last value .34, the later ones .43 and .49
    assert found["naive_error"] == pytest.approx((0.09 + 0.15) / 2)
    assert found["gain"] == pytest.approx(0.1)


def made(accuracies, entropies=(1.0, 0.8, 0.5, 0.4, 0.2, 0.1)):
    pairs = zip(accuracies, entropies, strict=True)
    return [Validation(10 * i, r, h, None if h is None else MEASURED) for i, (r, h) in enumerate(pairs)]


def test_two_thirds_are_fitted():
    found = analyse("run", "val/a", made([0.1, 0.2, 0.3, 0.35, 0.4, 0.4]))
    assert (found["fitted"], found["predicted"], found["entropy_from"]) == (4, 2, [MEASURED])
    assert found["a"]["low"] is None, "no problems, no interval"
    law = fit([1.0, 0.8, 0.5, 0.4], [0.1, 0.2, 0.3, 0.35])
    np.testing.assert_allclose([p["law"] for p in found["points"]], predicted(law, [1.0, 0.8, 0.5, 0.4, 0.2, 0.1]))
    residuals = np.array([0.1, 0.2, 0.3, 0.35]) - predicted(law, [1.0, 0.8, 0.5, 0.4])
    assert found["residual"] == pytest.approx(np.sqrt((residuals**2).mean()))


def test_validations_without_entropy_are_left_out():
    found = analyse("run", "val/a", made([0.1, 0.9, 0.2, 0.3, 0.35, 0.4], (1.0, None, 0.8, 0.5, 0.4, 0.2)))
    assert (found["fitted"], found["predicted"]) == (4, 1)
    assert [p["step"] for p in found["points"]] == [0, 20, 30, 40, 50]


def test_too_few_validations():
    for accuracies in ([], [0.1, 0.2], [0.1, 0.2, 0.3]):
        sentence = analyse("run", "val/a", made(accuracies, (1.0, 0.8, 0.5)[: len(accuracies)]))
        assert sentence.startswith(f"val/a: {len(accuracies)} validation(s) with entropy and accuracy, the law needs 4")
    assert isinstance(analyse("run", "val/a", made([0.1, 0.2, 0.3, 0.3], (1.0, 0.8, 0.5, 0.4))), dict)


def test_entropy_that_does_not_change():
    assert "cannot be fitted" in analyse("run", "val/a", made([0.1, 0.2, 0.3, 0.3], (0.5, 0.5, 0.5, 0.4)))
    rounded = (0.1 + 0.2, 0.3, 0.3, 0.2)
    assert "cannot be fitted" in analyse("run", "val/a", made([0.1, 0.2, 0.3, 0.3], rounded)), "the last bit differs"


def test_intervals_are_those_of_resampled_problems():
    """Two problems: a resample is one of them twice (1/4 each) or both, so the ends are those of single problems."""
    entropy = (1.0, 0.8, 0.5, 0.4, 0.2, 0.1)
    problems = np.array([[0.1, 0.2, 0.3, 0.4, 0.4, 0.5], [0.3, 0.3, 0.5, 0.5, 0.6, 0.8]])
    found = analyse("run", "val/a", made(problems.mean(0), entropy), problems)
    single = [dict(zip(QUANTITIES, quantities(np.array(entropy), p, 4), strict=True)) for p in problems]
    for name in ("a", "b", "ceiling"):  # linear in the accuracies
        ends = sorted(one[name] for one in single)
        assert (found[name]["low"], found[name]["high"]) == pytest.approx(ends), name
        assert found[name]["value"] == pytest.approx(sum(ends) / 2), name


def test_a_run_of_the_laboratory(tmp_path):
    counts = {0: [1, 0, 2], 5: [2, 1, 2], 10: [2, 2, 3], 15: [3, 2, 3], 20: [4, 2, 4]}
    run = lab_run(tmp_path / "run", counts, entropies=dict(zip(counts, (0.9, 0.7, 0.5, 0.3, 0.2), strict=True)))
    remarks = []
    (found,) = of_source(read_source(str(run)), remarks)
    assert remarks == [] and found["validation"] == "val/gsm8k" and found["fitted"] == 4
    assert found["a"]["low"] < found["a"]["value"] < found["a"]["high"]
    text = table([found])
    assert "run, val/gsm8k" in text and "error of law" in text


def test_counts_of_other_validations_give_no_interval(tmp_path):
    counts = {0: [1, 0], 5: [2, 1], 10: [2, 2], 15: [3, 2], 20: [4, 2]}
    run = lab_run(tmp_path / "run", counts, entropies=dict(zip(counts, (0.9, 0.7, 0.5, 0.3, 0.2), strict=True)))
    rows = (run / "problems.jsonl").read_text().splitlines()
    (run / "problems.jsonl").write_text("\n".join([*rows[:-1], rows[-1].replace("[4, 2]", "[3, 2]")]) + "\n")
    (found,) = of_source(read_source(str(run)), [])
    assert found["a"]["value"] > 0 and found["a"]["low"] is None
    (run / "problems.jsonl").write_text("\n".join(rows[:-1]) + "\n")
    assert of_source(read_source(str(run)), [])[0]["a"]["low"] is None


def test_metrics_of_the_pipeline_and_of_a_recorded_run(tmp_path):
    records = []
    for step in range(9):
        records.append({"step": step, "actor/entropy": 1.0 - step / 10} if step else {"step": 0})
        if step % 2 == 0:
            records[-1]["val/gsm8k/avg@8"] = 0.1 + step / 20
    write_lines(tmp_path / "a" / "metrics.jsonl", records)
    (found,) = of_source(read_source(str(tmp_path / "a")), [])
    assert found["entropy_from"] == [NEXT, SAME] and found["a"]["low"] is None
    assert [round(p["entropy"], 1) for p in found["points"]] == [0.9, 0.7, 0.5, 0.3, 0.2]
    short = [{"step": r["step"], **({"accuracy": r["val/gsm8k/avg@8"]} if "val/gsm8k/avg@8" in r else {}),
              **({"entropy": r["actor/entropy"]} if "actor/entropy" in r else {})} for r in records]  # fmt: skip
    (recorded,) = of_source(read_source(str(write_lines(tmp_path / "none.jsonl", short))), [])
    assert recorded["a"] == found["a"] and recorded["validation"] == "recorded"


def test_without_validations(tmp_path):
    remarks = []
    file = write_lines(tmp_path / "x.jsonl", [{"step": 1, "actor/entropy": 0.5}])
    assert of_source(read_source(str(file)), remarks) == []
    assert remarks == ["x: entropy_law: needs metrics.jsonl with validations: give a run"]
