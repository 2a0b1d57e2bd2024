"""Values, intervals and differences by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from comparison_cases import HIGH, LOW, evaluation, run

from recipe.paec.compare import comparison, evaluations
from recipe.paec.compare.evaluations import SCORES_FILE
from recipe.paec.scoring.estimators import bootstrap_interval, paired_bootstrap, t_interval
from recipe.paec.scoring.two_level import two_level_difference


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


# ---- several seeds of both -------------------------------------------------------------------------------------------

MATH = {"grpo": [[4, 4, 0, 2], [4, 3, 0, 2], [3, 4, 1, 0]], "paec": [[4, 4, 0, 3], [4, 4, 1, 3], [4, 4, 1, 4]]}
"""Correct samples of 4, by seed (1, 2, 3) and problem."""


def seeded(folder, seeds_of_grpo=(1, 2, 3), seeds_of_paec=(1, 2, 3)):
    """Folders of evaluations, seed by seed; AIME24 is the same for all seeds of a method."""
    made = []
    for name, aime, seeds in (("grpo", LOW["aime24"], seeds_of_grpo), ("paec", HIGH["aime24"], seeds_of_paec)):
        counts = dict(zip(seeds, MATH[name], strict=False))
        made += [evaluation(folder / f"{name}-seed{s}", {"math500": c, "aime24": aime}) for s, c in counts.items()]
    return made


def compared(folders, baseline="grpo"):
    methods = evaluations.read_methods([str(folder) for folder in folders])
    return comparison.compare(methods, "avg", baseline)


def test_with_several_seeds_of_both_the_spread_between_trainings_counts(tmp_path):
    grpo, paec = compared(seeded(tmp_path))["methods"]
    assert (grpo["tested_over"], paec["tested_over"]) == (None, "shared seeds and problems")
    a, b = np.array(MATH["paec"]) / 4, np.array(MATH["grpo"]) / 4
    expected = two_level_difference([(a, b)], True)
    found = paec["benchmarks"]["math500"]["difference"]
    assert found["value"] == pytest.approx(36 / 48 - 27 / 48) and found == pytest.approx(vars(expected))
    over_problems = paired_bootstrap((a.mean(0), b.mean(0)))
    assert found["high"] - found["low"] > over_problems.high - over_problems.low
    aime = (np.array([HIGH["aime24"]] * 3) / 4, np.array([LOW["aime24"]] * 3) / 4)
    both = two_level_difference([aime, (a, b)], True)
    assert paec["average"]["difference"] == pytest.approx(vars(both)), "seeds are drawn for all benchmarks together"


def test_shared_seeds_are_paired_whatever_their_order(tmp_path):
    folders = seeded(tmp_path)
    turned = compared([folders[2], folders[0], folders[1], *folders[3:]])["methods"]
    assert turned[1]["benchmarks"] == compared(folders)["methods"][1]["benchmarks"]


@pytest.mark.parametrize("seeds", [((1, 2, 3), (1, 2)), ((1, 2, 3), (4, 5, 6)), ((1, 2), (2, 3))])
def test_other_or_unequal_seeds_are_drawn_by_themselves(tmp_path, seeds):
    result = compared(seeded(tmp_path, *seeds))
    paec = result["methods"][1]
    assert paec["tested_over"] == "seeds and problems"
    a, b = (np.array(MATH[name][: len(own)]) / 4 for name, own in (("paec", seeds[1]), ("grpo", seeds[0])))
    expected = two_level_difference([(a, b)], False)
    assert paec["benchmarks"]["math500"]["difference"] == pytest.approx(vars(expected))
    few = min(map(len, seeds))
    assert f"bootstrap over seeds and problems, uncorrected for the number of comparisons. With {few} seeds the test " \
        "is too lenient (docs/comparing.md)." in result["caption"]  # fmt: skip


def test_the_caption_says_which_test_is_whose_and_what_one_seed_leaves_out(tmp_path):
    folders = [*seeded(tmp_path), evaluation(tmp_path / "alone", HIGH)]
    caption = compared(folders)["caption"]
    assert (
        "p < 0.05, bootstrap over shared seeds and problems (paec); paired bootstrap over problems (alone)" in caption
    )
    assert "One seed of alone: the spread between trainings is not in its interval, nor in any test of it." in caption
    assert "With 3 seeds the test is too lenient" in caption
    single = compared([folders[0], folders[3]])
    assert single["methods"][1]["tested_over"] == "problems"
    assert "One seed of grpo, paec: the spread between trainings is not in its interval" in single["caption"]
    assert "lenient" not in single["caption"]


def test_five_seeds_have_no_remark(tmp_path):
    folders = [
        evaluation(tmp_path / f"{name}-seed{s}", {"math500": [s % 4, 4, 0, c]})
        for name, c in (("grpo", 1), ("paec", 3))
        for s in range(1, 6)
    ]
    caption = compared(folders)["caption"]
    assert caption.endswith("bootstrap over shared seeds and problems, uncorrected for the number of comparisons.")


def test_trainings_that_all_agree(tmp_path):
    folders = [evaluation(tmp_path / f"{n}-seed{s}", {"math500": [2, 2, 2]}) for n in ("grpo", "paec") for s in (1, 2)]
    found = compared(folders)["methods"][1]["benchmarks"]["math500"]["difference"]
    assert found == {"value": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}


def test_a_problem_that_one_seed_lacks(tmp_path, capsys):
    folders = seeded(tmp_path)
    short = evaluation(tmp_path / "paec-seed4", {"math500": [4, 4, 1], "aime24": HIGH["aime24"]})
    code, out, error = run(capsys, *folders, short)
    assert (code, out) == (2, "")
    assert error == (
        f"error: {short / SCORES_FILE} lacks 1 problem of math500 that {folders[0] / SCORES_FILE} has (math500-3): "
        "evaluate both on the same file\n"
    )
