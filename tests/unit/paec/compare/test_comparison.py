"""Values, intervals and differences by hand."""

from __future__ import annotations

import json

import pytest
from comparison_cases import evaluation, run

from recipe.paec.compare import comparison, evaluations
from recipe.paec.compare.evaluations import SCORES_FILE
from recipe.paec.scoring.estimators import bootstrap_interval, paired_bootstrap, t_interval


def table_of(folders, metric="avg", names=("grpo", "paec-seed1", "paec-seed2", "paec-seed3")):
    methods = evaluations.read_methods([str(folders / name) for name in names])
    return comparison.compare(methods, metric, methods[0].name)


def test_values_and_intervals_by_hand(folders):
    result = table_of(folders)
    grpo, paec = result["methods"]
    assert list(grpo["benchmarks"]) == ["aime24", "math500"]
    assert (grpo["name"], grpo["interval"], len(grpo["runs"])) == ("grpo", "problems", 1)
    assert (paec["name"], paec["interval"], len(paec["runs"])) == ("paec", "seeds", 3)

    math = [1.0, 1.0, 0.0, 0.5]
    expected = bootstrap_interval(math)
    assert grpo["benchmarks"]["math500"]["value"] == 0.625
    assert (grpo["benchmarks"]["math500"]["low"], grpo["benchmarks"]["math500"]["high"]) == (
        expected.low,
        expected.high,
    )
    assert grpo["average"]["value"] == pytest.approx((0.625 + 3 / 40) / 2)

    seeds = [11 / 16, 12 / 16, 13 / 16]
    expected = t_interval(seeds)
    cell = paec["benchmarks"]["math500"]
    assert (cell["value"], cell["low"], cell["high"]) == pytest.approx((0.75, expected.low, expected.high))
    expected = t_interval([(seed + 22 / 40) / 2 for seed in seeds])
    average = paec["average"]
    assert (average["value"], average["low"], average["high"]) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )


def test_differences_are_paired_by_problem_over_means_of_seeds(folders):
    _, paec = table_of(folders)["methods"]
    means = [1.0, 1.0, (0 + 1 + 1) / 12, (3 + 3 + 4) / 12]
    expected = paired_bootstrap((means, [1.0, 1.0, 0.0, 0.5]))
    difference = paec["benchmarks"]["math500"]["difference"]
    assert difference["value"] == pytest.approx(0.125)
    assert (difference["low"], difference["high"]) == pytest.approx((expected.low, expected.high))
    assert difference["p"] == expected.p > 0.05
    aime = paec["benchmarks"]["aime24"]["difference"]
    assert aime["value"] == pytest.approx(22 / 40 - 3 / 40) and aime["p"] < 0.001
    assert table_of(folders)["methods"][0]["average"]["difference"] is None


def test_intervals_are_those_of_scores_json(folders):
    scores = json.loads((folders / "grpo" / SCORES_FILE).read_text())
    for metric, of in [
        ("avg", lambda b: b["avg"]),
        ("maj", lambda b: b["maj"]["4"]),
        ("pass@2", lambda b: b["pass"]["2"]),
    ]:
        for name, cell in table_of(folders, metric)["methods"][0]["benchmarks"].items():
            theirs = of(scores["benchmarks"][name])
            assert {k: cell[k] for k in theirs} == pytest.approx(theirs)
    average = table_of(folders, "maj")["methods"][0]["average"]
    assert {k: average[k] for k in ("value", "low", "high")} == pytest.approx(scores["average"]["maj"])


def test_the_order_of_problems_in_a_file_does_not_matter(folders):
    path = folders / "grpo" / SCORES_FILE
    before, scores = table_of(folders), json.loads(path.read_text())
    for benchmark in scores["benchmarks"].values():
        benchmark["per_problem"] = dict(reversed(benchmark["per_problem"].items()))
    path.write_text(json.dumps(scores))
    assert table_of(folders) == before


def test_maj_and_pass(folders):
    grpo, _ = table_of(folders, "maj")["methods"]
    assert grpo["benchmarks"]["math500"]["value"] == 0.75  # 2 of 4 is a tie, and the right answer came first
    grpo, _ = table_of(folders, "pass@2")["methods"]
    assert grpo["benchmarks"]["math500"]["value"] == pytest.approx((1 + 1 + 0 + 5 / 6) / 4)


def test_pass_beyond_a_benchmarks_samples_is_left_out(tmp_path, capsys):
    scores = []
    for name in ("a", "b"):
        few = json.loads((evaluation(tmp_path / name / "few", {"math500": [1, 2]}, n=2) / SCORES_FILE).read_text())
        folder = evaluation(tmp_path / name / f"all-{name}", {"aime24": [3, 0]}, n=8)
        many = json.loads((folder / SCORES_FILE).read_text())
        many["benchmarks"] |= few["benchmarks"]
        (folder / SCORES_FILE).write_text(json.dumps(many))
        scores.append(folder)
    code, out, _ = run(capsys, *scores, "--metric", "pass@8")
    row = [cell.strip() for cell in out.splitlines()[2].strip("|").split("|")]
    assert (code, row) == (0, ["all-a", "**50.0** [0.0, 100.0]", "–", "–"])
    assert "In percent: pass@8, n = 8 (AIME24); 2 (MATH500)." in out
    code, _, error = run(capsys, *scores, "--metric", "pass@9")
    assert (code, error) == (2, "error: --metric pass@9: no benchmark has 9 samples per problem, the most is 8\n")
