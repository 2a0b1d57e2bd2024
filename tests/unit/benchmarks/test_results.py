"""The tables of docs/results.md: hypervolumes and intervals by hand, and the page as its records make it.

Of benchmarks/lab: `records`, `comparison`, `knob_search`, `findings`, `figures` and `results`.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import yaml
from lab_records import runs, write

from benchmarks.lab import comparison, endings, figures, findings, knob_search, other_tasks, pipeline, records, results
from recipe.lab.task import HIGH
from recipe.paec.common.repository import REPOSITORY
from recipe.paec.scoring.estimators import Difference


def test_hypervolume_by_hand():
    x, y = np.array([0.5, 0.4, 0.45, 0.2]), np.array([0.7, 0.9, 0.65, 1.0])
    # Above (0.3, 0.6): 0.2 x 0.1 of the first, and 0.1 x (0.3 - 0.1) more of the second; the others add nothing.
    assert records.hypervolume(x, y, (0.3, 0.6)) == pytest.approx(0.2 * 0.1 + 0.1 * 0.2)
    assert records.hypervolume(x[::-1], y[::-1], (0.3, 0.6)) == pytest.approx(0.04)
    assert records.hypervolume(np.array([0.2]), np.array([0.9]), (0.3, 0.6)) == 0


def test_hypervolume_is_the_share_of_random_points():
    random = np.random.default_rng(0)
    x, y = random.random((5, 7)), random.random((5, 7))
    thrown = random.random((40_000, 2))
    for row in range(5):
        below = ((thrown[:, :1] < x[row]) & (thrown[:, 1:] < y[row])).any(1).mean()
        assert records.hypervolume(x, y, (0.0, 0.0))[row] == pytest.approx(below, abs=0.01)


def test_outcomes_of_counts():
    found = records.outcomes(runs().correct, runs().distinct)
    # Points (0.25, 2/3) and (0.5, 1), distinct 8/3 and 4: the second dominates the first.
    assert found["pass@32"] == pytest.approx([0.2 * 0.4] * 2)
    assert found["expressions"] == pytest.approx([0.2 * 3.0] * 2)


def test_curves_at_equal_accuracy():
    def curve(*pairs):
        return tuple(np.array([v]) for v in np.array(pairs).T)

    flat, falling = curve((0.2, 3.0), (0.6, 3.0)), curve((0.2, 3.0), (0.6, 1.0))
    assert records.gap_at_equal_accuracy(flat, falling) == pytest.approx([1.0])
    assert records.gap_at_equal_accuracy(falling, flat) == pytest.approx([-1.0])
    # Both reach 0.4 to 0.5 only; there the falling one is between 2 and 1.5. The order of the validations is no matter.
    short = curve((0.5, 3.0), (0.4, 3.0), (0.45, 3.0))
    assert records.gap_at_equal_accuracy(short, falling) == pytest.approx([3 - 1.75])
    # Against numpy's interpolation at many places, with two equal accuracies.
    random = np.random.default_rng(1)
    x, y = random.random((4, 7)), random.random((4, 7))
    x[:, 3] = x[:, 5]
    low, high = x.min(-1) - 0.1, x.max(-1) - 0.1
    for row in range(4):
        order = np.argsort(x[row], kind="stable")
        places = low[row] + (high[row] - low[row]) * (np.arange(100_000) + 0.5) / 100_000
        expected = np.interp(places, x[row][order], y[row][order]).mean()
        assert records._mean_height(x, y, low, high)[row] == pytest.approx(expected, abs=1e-4)
        narrow = records._mean_height(x, y, low + 0.3, low + 0.3 + 1e-12)[row]
        assert narrow == pytest.approx(np.interp(low[row] + 0.3, x[row][order], y[row][order]), abs=1e-9)
    same = curve((0.3, 1.0), (0.3, 2.0))
    assert records.gap_at_equal_accuracy(same, flat) == pytest.approx([2.0 - 3.0]), "one accuracy: the last validation"
    gained = comparison.differences(runs(correct=24), runs("none"), draws=20)
    # From (0.25, 8/3) to (0.75, 4), and to (0.5, 4): at 0.25 + a, a <= 0.25, at 8/3 + 8/3 a and 8/3 + 16/3 a.
    assert gained["equal expressions"].value == pytest.approx(-8 / 3 * 0.125)
    assert results.equal_accuracy({"paec": gained})[-1].startswith("| `paec` | -0.083 [")


def test_differences_are_paired():
    same = comparison.differences(runs(), runs("none"), draws=50)
    assert all((one.value, one.low, one.high) == (0, 0, 0) for one in same.values())
    better = comparison.differences(runs(correct=24), runs("none"), draws=200)
    found = better["accuracy"]
    assert [found.value, found.low, found.high] == pytest.approx([0.25] * 3), "every problem gains the same"
    other = runs("none", seeds=(2, 3))
    assert comparison.differences(runs(correct=24), other, draws=5)["accuracy"].value == pytest.approx(0.25)
    uneven = runs()
    uneven.correct[:, 1] = [32, 16, 0]
    found = comparison.differences(uneven, runs("none"), draws=500)["accuracy"]
    assert found.low < 0 < found.high, "which problems are drawn decides"


def test_whether_every_checkpoint_is_matched():
    """Accuracy is half of all responses, and four of them are distinct, in every problem after training."""
    assert comparison.dominated(runs(), runs("none")) == {"pass@32": 2, "expressions": 2}, "as good is enough"
    assert comparison.dominated(runs(correct=15), runs("none")) == {"pass@32": 0, "expressions": 0}
    mixed = runs(seeds=(2, 3, 5))
    mixed.correct[1, 1] = 15
    found = comparison.dominated(mixed, runs("none", seeds=(1, 2, 3)))
    assert found == {"pass@32": 1, "expressions": 1}, "of the common seeds 2 and 3, the second is less accurate"
    fewer = runs()
    fewer.distinct[0, 1, 2] = 3
    assert comparison.dominated(fewer, runs("none")) == {"pass@32": 2, "expressions": 1}
    before = runs()
    before.correct[:, 0] = 0
    assert comparison.dominated(before, runs("none")) == {"pass@32": 2, "expressions": 2}, "the step before training"
    lines = results.domination({"none": runs("none"), "paec": fewer})
    assert lines[-1] == "| `paec` | 2 of 2 | 1 of 2 |"


def test_records_are_read_by_method_and_seed(tmp_path):
    folder = tmp_path / "defaults"
    write(folder, "paec-seed2", "none-seed1", "paec-seed1")
    found = records.read(folder)
    assert list(found) == ["none", "paec"] and found["paec"].seeds == (1, 2)
    assert found["paec"].correct[:, 0, 0].tolist() == [1, 2] and found["paec"].entropy.shape == (2, 2)
    assert found["paec"].dates == ("2026-11-21", "2026-11-22")
    assert records.read(folder, "validation")["paec"].correct[0, 1].tolist() == [16, 16]
    text = results.page(tmp_path, draws=2)
    assert text.endswith("`none` with seed 1 to step 25; `paec` with seed 1, 2 to step 25. No table yet.\n")
    assert "| `" not in text
    write(folder, "paec-seed1", step=(0, 50))
    with pytest.raises(ValueError, match="paec: its seeds were validated at different steps"):
        records.read(folder)


def test_a_section_has_a_row_for_each_method(tmp_path, monkeypatch):
    found = {"none": runs("none"), "paec": replace(runs("paec", correct=24), dates=("2026-11-21",), cores=(2,))}
    monkeypatch.setattr(results, "read", lambda folder: found)
    text = results.section(tmp_path / "defaults", draws=100)
    assert "| `paec` | 0.750 (0.750, 0.750) | 1.000 (1.000, 1.000) | 4.00 (4.00, 4.00) | 0.100 (0.100, 0.100) |" in text
    assert "| `none` | 0.0800 (0.0800, 0.0800) |  |  | 0.600 (0.600, 0.600) |  |  |" in text
    assert "3 test problems x 32 responses, 2 seeds (mean, and each seed), 25 steps; `paec lab sweep" in text
    assert "`python -m benchmarks.lab.results`; 2 cores, no GPU, 2026-11-21." in text
    rows = dict(
        line.strip("| ").split(" | ", 1) for line in text.splitlines() if line.startswith("| ") and "GRPO" in line
    )
    assert rows["Is more accurate than GRPO"].endswith("| +0.250 [+0.250, +0.250] | significant")
    assert rows["Keeps the entropy of the policy above GRPO's"].endswith("| +0.000 [+0.000, +0.000] | not significant")


def test_the_entropy_has_a_t_interval_over_the_pairs_of_seeds():
    """A bootstrap over three seeds alone would give [0.01, 0.03]: the smallest and the largest difference."""
    seeds = (1, 2, 3)
    one, other = runs(seeds=seeds), runs("none", seeds=seeds)
    one.entropy[:, -1] += [0.01, 0.02, 0.03]
    found = comparison.differences(one, other, draws=5)["entropy"]
    half = 4.302653 * 0.01 / 3**0.5
    assert [found.value, found.low, found.high] == pytest.approx([0.02, 0.02 - half, 0.02 + half], rel=1e-6)
    assert found.p == pytest.approx(0.0741799, rel=1e-5)  # t = 2 sqrt(3) with 2 degrees: 1 - t / sqrt(2 + t^2)
    assert found.p == pytest.approx(1 - 12**0.5 / 14**0.5)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"correct": [[1], [2]], "distinct": [[1], [1]]}, "its seeds were measured on different problems"),
        ({"correct": [[1, 2]], "distinct": [[1, 1]]}, "its validations do not all have held_out problems"),
        (None, "its validations do not all have held_out problems"),
    ],
)
def test_records_that_do_not_fit_are_one_sentence(tmp_path, capsys, change, sentence):
    write(tmp_path / "defaults", "none-seed1", "none-seed2", "paec-seed1", "paec-seed2")
    file = tmp_path / "defaults" / "paec-seed2.json"
    found = json.loads(file.read_text())
    if change is None:
        del found["problems"]["held_out"]
    else:
        found["problems"]["held_out"] = change
    file.write_text(json.dumps(found))
    assert results.main(["--records", str(tmp_path), "--output", str(tmp_path / "page")]) == 1
    said = capsys.readouterr().err
    assert sentence in said and not (tmp_path / "page").exists()
    if "held_out" in sentence:
        assert said.endswith(
            ': add held_out=true to "all:" of the file of jobs, and sweep again with another --runs and --records\n'
        )
    (tmp_path / "page").mkdir()
    assert results.main(["--records", str(tmp_path), "--output", str(tmp_path / "page")]) == 1
    assert (tmp_path / "page").is_dir()


def test_another_number_of_responses_is_refused(tmp_path):
    write(tmp_path, "none-seed1")
    found = json.loads((tmp_path / "none-seed1.json").read_text())
    found["validation"][f"held_out/{records.SOURCE}/avg@16"] = [0.1, 0.2]
    (tmp_path / "none-seed1.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match="none: has 16 responses to a problem, not 32: run it with test_samples=32"):
        records.read(tmp_path)


def test_methods_measured_on_different_problems_are_refused(tmp_path):
    write(tmp_path, "none-seed1", "paec-seed1")
    found = json.loads((tmp_path / "paec-seed1.json").read_text())
    found["problems"]["held_out"] = {"correct": [[1], [2]], "distinct": [[1], [1]]}
    (tmp_path / "paec-seed1.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match="its methods were measured on different problems: {'none': 2, 'paec': 1}"):
        records.read(tmp_path)


def test_no_table_of_methods_with_different_steps(tmp_path):
    write(tmp_path / "long", "none-seed1", "none-seed2", "paec-seed1", "paec-seed2")
    for seed in (1, 2):
        write(tmp_path / "long", f"paec-seed{seed}", step=(0, 50))
    text = results.section(tmp_path / "long", draws=5)
    assert "`none` with seed 1, 2 to step 25; `paec` with seed 1, 2 to step 50. No table yet." in text


def test_methods_whose_sweep_is_under_way_are_named_and_in_no_table(tmp_path):
    done = [f"{name}-seed{seed}" for name in ("none", "paec") for seed in (1, 2)]
    write(tmp_path / "main", *done, "siren-seed1")
    text = results.section(tmp_path / "main", draws=5)
    assert "\nNot run to the end yet, so in no table: `siren` with seed 1 to step 25.\n" in text
    assert "| `paec` |" in text and "| `siren` |" not in text
    write(tmp_path / "main", "siren-seed2")
    text = results.section(tmp_path / "main", draws=5)
    assert "| `siren` |" in text and "Not run to the end yet" not in text


def test_a_page_while_the_sweep_is_under_way(tmp_path):
    """Seeds that one of the two lacks, and a folder with the search alone."""
    write(tmp_path / "defaults", "none-seed1", "none-seed2", "paec-seed1")
    assert "In short" not in results.page(tmp_path, draws=5)
    write(tmp_path / "alone" / "search", "none-seed11")
    found = json.loads((tmp_path / "alone" / "search" / "none-seed11.json").read_text())
    del found["problems"]["held_out"]
    (tmp_path / "alone" / "search" / "none-seed11.json").write_text(json.dumps(found))
    assert results.main(["--records", str(tmp_path / "alone"), "--output", str(tmp_path / "page")]) == 0


def test_holms_correction():
    # The smallest of three counts three times, the next twice, and none less than one before it.
    found = comparison.corrected({"a": 0.04, "b": 0.01, "c": 0.03, "d": None})
    assert found == {"a": pytest.approx(0.06), "b": pytest.approx(0.03), "c": pytest.approx(0.06), "d": None}
    assert comparison.corrected({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    said = [
        comparison.in_words(Difference(value, -1, 1, 0.5), p) for value, p in ((0.1, 0.04), (-0.1, 0.04), (0.1, 0.05))
    ]
    assert said == ["better", "worse", "no significant difference"]


def test_what_is_said_in_short(tmp_path):
    assert findings.section(tmp_path, draws=5) == ""
    seeds = [f"{name}-seed{seed}" for name in ("none", "paec") for seed in (1, 2)]
    write(tmp_path / "defaults", *seeds)
    write(tmp_path / "long", *seeds[:3])
    text = findings.section(tmp_path, draws=5)
    nothing = "+0.000 [+0.000, +0.000] | +0.000 [+0.000, +0.000] | +0.00 [+0.00, +0.00] |"
    assert f"| test problems | test | 25 | 2 | 0.200 to 0.100 | 0.100 | {nothing}" in text
    assert f"| validation problems | validation | 25 | 2 | 0.200 to 0.100 | 0.100 | {nothing}" in text
    assert (
        "GRPO's falls in 2 of 2 trainings of different seeds or tasks; PAEC's ends above that of the same seed in 0 "
        "of 2." in text
    )
    assert "PAEC's accuracy is not significantly different in any of 2 rows; pass@32 is not significantly" in text
    assert "| long runs |" not in text and "PAEC's parts" not in text
    write(tmp_path / "long", seeds[3])
    write(tmp_path / "ablations", *(f"{name}-seed{seed}" for name, _ in findings.PARTS for seed in (1, 2)))
    text = findings.section(tmp_path, draws=5)
    assert "| long runs | test | 25 | 2 |" in text and "falls in 2 of 2 trainings" in text
    assert "0.100 with GRPO and 0.100 with PAEC; 0.100 without the floor (`lambda_low=0`), 0.100 with" in text


def test_rows_in_which_a_difference_is_significant():
    test, validation, four = (findings.ROWS[row] for row in (0, 1, 7))
    assert not four.hypervolume
    more, less, unclear = Difference(0.2, 0.1, 0.3, 0.01), Difference(-0.2, -0.3, -0.1, 0.01), Difference(1, -1, 3, 0.3)
    columns = (("accuracy", "accuracy", 3), ("pass@32", "hypervolume", 4))
    gained = {
        test: {"accuracy": more, "pass@32": unclear},
        validation: {"accuracy": less, "pass@32": unclear},
        four: {"accuracy": more, "pass@32": more},
    }
    assert findings._where(gained, columns) == (
        "accuracy is higher in 2 of 3 rows (test problems, four numbers) and lower in 1 of 3 rows (validation "
        "problems); hypervolume is not significantly different in any of 2 rows"
    ), "the hypervolume's reference point was chosen for three numbers"


def test_verdicts():
    found = [Difference(*of) for of in ((0.1, 0.01, 0.2, 0.04), (-0.1, -0.2, -0.01, 0.04), (0.1, 1e-6, 0.2, 0.0504))]
    assert [results.verdict(of) for of in found] == ["significant", "significant, the other way", "not significant"]
    assert results.verdict(Difference(0.1, None, None, None)) == "one seed: no interval"


def test_the_search_takes_the_largest_hypervolume_on_the_validation_problems(tmp_path):
    settings = {"none": 0, "paec.rho_min=0.7": 16, "paec.rho_min=0.9": 24, "siren.top_p=0.8": 20, "siren.top_p=0.9": 20}
    found = {name: runs(name, seeds=(11,), correct=correct) for name, correct in settings.items()}
    assert knob_search.chosen(found, [*settings, "steer.lambda_min=0.5"]) == {
        "none": "none",
        "paec": "paec.rho_min=0.9",
        "siren": "siren.top_p=0.8",
    }
    jobs = {name: [f"method={knob_search.method_of(name)}"] for name in settings}
    jobs["siren.top_p=0.8"] = ["a=[1,2]", 'b="x"']
    written = yaml.safe_load(knob_search.files_of_jobs(found, jobs)["main.yaml"])
    assert [*written["jobs"]] == ["none", "paec.rho_min=0.9", "siren.top_p=0.8"]
    assert written["jobs"]["siren.top_p=0.8"] == ["a=[1,2]", 'b="x"']
    assert written["seeds"] == [1, 2, 3]
    reverse = yaml.safe_load(knob_search.files_of_jobs(found, dict(reversed(jobs.items())))["main.yaml"])
    assert [*map(knob_search.method_of, reverse["jobs"])] == ["siren", "paec", "none"], "in the order of the search"


def test_finalists_are_the_family_and_the_best_others():
    counts = {f"m{n:02}.x={n}": n % 12 for n in range(12)} | {"m05.x=9": 13, "m12": 11}
    settings = {"siren": 0, "paec": 0, "none": 0, "paec_text.lambda_low=5": 0, **counts}
    found = {name: runs(name, seeds=(11,), correct=14 + number) for name, number in settings.items()}
    names = knob_search.finalists(found, [*settings])
    assert names == ["none", "paec", "paec_text", *"m05 m11 m12 m10 m09 m08 m07 m06 m04 m03".split()]
    written = yaml.safe_load(knob_search.files_of_jobs(found, {name: [] for name in settings})["finalists.yaml"])
    assert [*written["jobs"]][2:6] == ["paec_text.lambda_low=5", "m05.x=9", "m11.x=11", "m12"]
    assert (written["all"], written["seeds"]) == (["steps=300", "held_out=true"], [1, 2, 3, 4, 5])


def test_what_the_search_takes():
    """By hand: two methods of three values, of which the hypervolume takes the one with the least entropy once."""
    values = {"a.x=1": (16, 0.1), "a.x=2": (8, 0.3), "b.x=1": (12, 0.2), "b.x=2": (20, 0.4), "c.x=1": (4, 2.0)}
    found = {name: runs(name, seeds=(11,), correct=correct) for name, (correct, _) in values.items()}
    for name, (_, entropy) in values.items():
        found[name].entropy[:, -1] = entropy
    text = knob_search.what_it_takes(found, [*values])
    assert text.startswith("in 1 of 2 methods whose values differ,")
    # Ranks of the hypervolumes (0 below accuracy 0.3): 3, 0.5, 2, 4, 0.5; of accuracy: 3, 1, 2, 4, 0; of entropy: 0, 2,
    # 1, 3, 4. 9.5 / sqrt(9.5 * 10) = 0.975 and -3 / sqrt(9.5 * 10) = -0.308.
    # pass@32 is 1 everywhere at the last step, so it has no correlation.
    assert "ends at is +0.97 with accuracy, +nan with pass@32, -0.31 with token entropy:" in text
    assert knob_search.what_it_takes(found, ["a.x=1", "c.x=1"]) == "", "nothing was chosen"
    alike = {"d.x=1": found["a.x=1"], "d.x=2": found["a.x=1"]}
    assert knob_search.trained_alike([*alike.values()])
    assert not knob_search.trained_alike([found["a.x=1"], found["a.x=2"]])
    assert knob_search.what_it_takes(alike, [*alike]) == ""


def test_a_method_of_the_search_is_shown_once_all_of_its_settings_were_run(tmp_path):
    file = tmp_path / "search.yaml"
    file.write_text("jobs: {none: [], paec.rho_min=0.7: [], paec.rho_min=0.8: [], siren.top_p=0.8: []}")
    write(tmp_path / "records", "none-seed1", "paec.rho_min=0.7-seed1", "paec.rho_min=0.8-seed1", "not_a_job-seed1")
    text = knob_search.section(tmp_path / "records", file)
    # On the validation problems: both half right at the last step, accuracy 0.5 and pass@32 1.
    equal = "0.7: 0.0800 · 0.8: 0.0800 · no effect: the runs are equal"
    assert f"| `paec`, `rho_min` | {equal} | 0.500 | 1.000 | 1.50 | 0.100 |" in text
    assert "| `none` | 0.0800 | 0.500 | 1.000 | 1.50 | 0.100 |" in text
    assert "Not searched to the end yet: `siren`." in text
    assert "not_a_job" not in text
    assert knob_search.section(tmp_path / "nothing", file) == ""


def test_main_runs_are_written_after_the_whole_search(tmp_path, capsys):
    write(tmp_path / "records", "none-seed1")
    place = ["--records", str(tmp_path / "records"), "--output", str(tmp_path)]
    assert knob_search.main(place) == 1
    assert "paec lab sweep benchmarks/lab/search.yaml continues" in capsys.readouterr().err
    assert not (tmp_path / "main.yaml").exists()
    jobs = yaml.safe_load(knob_search.JOBS.read_text())["jobs"]
    write(tmp_path / "records", *(f"{name}-seed1" for name in jobs))
    assert knob_search.main(place) == 0
    written = yaml.safe_load((tmp_path / "main.yaml").read_text())["jobs"]
    assert len(written) == len({knob_search.method_of(name) for name in jobs})
    assert written["pear.alpha=1"] == jobs["pear.alpha=1"]
    longer = yaml.safe_load((tmp_path / "finalists.yaml").read_text())["jobs"]
    assert len(longer) == 1 + 5 + knob_search.BEST and {*longer} <= {*written}


def test_your_own_records_get_a_section(tmp_path, capsys):
    write(tmp_path / "mine-records", "grpo-seed1", "mine-seed1")
    place = ["--records", str(tmp_path), "--output", str(tmp_path / "page")]
    assert results.main(place) == 1
    assert "add `none: [method=none]` to the file of jobs" in capsys.readouterr().err
    write(tmp_path / "mine-records", "none-seed1", "none-seed2", "mine-seed1", "mine-seed2")
    assert [folder.name for folder in results.own_folders(tmp_path)] == ["mine-records"]
    text = results.page(tmp_path, draws=5)
    assert "## mine-records\n" in text and "| `mine` | " in text
    write(tmp_path / "other", "none-seed1")
    assert results.main(place) == 1
    assert "other: no table can be made of `none` with seed 1 to step 25: it needs" in capsys.readouterr().err
    assert "`paec lab sweep`, then" in text
    assert results.own_folders(results.RECORDS) == [], "every folder of this project has its section"


def test_the_page_is_written_where_it_is_asked_for(tmp_path, capsys):
    assert results.main(["--records", str(tmp_path), "--output", str(tmp_path / "page")]) == 1
    assert f"{tmp_path} has no record" in capsys.readouterr().err
    write(tmp_path / "defaults", "none-seed1", "paec-seed1")
    assert results.main(["--records", str(tmp_path), "--output", str(tmp_path / "page")]) == 0
    assert "](results.svg)" in (tmp_path / "page" / "results.md").read_text()
    assert (tmp_path / "page" / "results.svg").read_text().startswith("<?xml")


def test_many_methods_are_drawn_as_differences(tmp_path):
    names = ["none", *(f"method{i}.knob={i}" for i in range(6))]
    few = {name: runs(name) for name in names[:6]}
    many = {name: runs(name, correct=16 + i) for i, name in enumerate(names)}
    for label, of in (("few", few), ("many", many)):
        gained = {name: comparison.differences(one, of["none"], draws=5) for name, one in of.items() if name != "none"}
        figures.draw(of, gained, tmp_path / f"{label}.svg")
    few, many = (re.findall("<!-- (.*) -->", (tmp_path / f"{name}.svg").read_text()) for name in ("few", "many"))
    assert "method4.knob=4" in few and "GRPO" in few and "token entropy, nats" in few
    assert [text for text in many if text.startswith("method")] == [f"method{i}" for i in range(6)]
    assert "hypervolume of accuracy and expressions, minus GRPO's" in many


def test_more_methods_than_colors_have_other_lines(tmp_path):
    """Names of methods with a color of their own keep it; no two of fifteen look alike, and all are in the legend."""
    own = ["none", "paec", "pass_at_k"]
    names = [*own, *(f"method{i}.knob={i}" for i in range(12))]
    styles = figures._styles(names)
    assert [styles[name] for name in own] == [{"color": c, "linestyle": "-"} for c in ("#0072B2", "#D55E00", "#E69F00")]
    looks = [(style["color"], style["linestyle"]) for style in styles.values()]
    assert len(set(looks)) == 15 and [line for _, line in looks].count("-") == 10
    assert len(figures._styles(map(str, range(31)))) == 31, "from then on they repeat"
    curve = np.linspace(0.2, 0.8, 32)
    figures.draw_pass_at_k({"all": (curve, {name: (curve, 2) for name in names})}, tmp_path / "pass.svg")
    figures.draw_other({name: runs(name) for name in names}, tmp_path / "many.svg")
    figures.draw_other({name: runs(name) for name in names[: figures.MOST_CURVES]}, tmp_path / "few.svg")
    drawn = {name: (tmp_path / f"{name}.svg").read_text() for name in ("pass", "many", "few")}
    for name in ("pass", "many"):
        shown = re.findall("<!-- (GRPO|paec|pass_at_k|method.*) -->", drawn[name])
        assert shown == ["GRPO", *names[1:]]
    bands = {name: text.count("PolyCollection") > 0 for name, text in drawn.items()}
    assert bands == {"pass": False, "many": False, "few": True}


def test_the_page_is_what_its_records_make():
    text = (REPOSITORY / "docs" / "results.md").read_text(encoding="utf-8")
    assert text == results.page(results.RECORDS, pipeline.RECORDS)


def test_the_readme_says_what_the_records_say():
    """Of the quick start itself, so of the pipeline's runs."""
    found = records.read(pipeline.RECORDS, "validation")
    none, paec = found["none"], found["paec"]
    text = " ".join((REPOSITORY / "README.md").read_text(encoding="utf-8").split())
    first, *last = none.entropy[:, 0].mean(), none.entropy[:, -1].mean(), paec.entropy[:, -1].mean()
    gained, lost = comparison.differences(paec, none), comparison.differences(none, paec)["accuracy"]
    more = records.interval(gained["last expressions"], 2).replace("+", "")
    assert f"entropy falls from {first:.3f} to {last[0]:.3f} and PAEC's to {last[1]:.3f}, with {more} more" in text
    assert comparison.is_significant(gained["last expressions"].p) and comparison.is_significant(lost.p)
    assert f"reordered, and {records.interval(lost, 3)} less accuracy.".replace("+", "") in text
    reordered = endings.read(results.RECORDS / endings.FOLDER / "defaults_repeated")
    again = endings.differences(reordered["paec"], reordered["none"])
    assert again["solutions"].value < 0.5 * again["expressions"].value and "expressions, mostly reordered," in text


def test_the_readme_says_what_the_outcome_that_decides_says():
    page = (REPOSITORY / "docs" / "results.md").read_text(encoding="utf-8")
    text = " ".join((REPOSITORY / "README.md").read_text(encoding="utf-8").split())
    line = re.search(r"hypervolume of accuracy and pass@32 is (.*) \(uncorrected\)", page)[1]
    rows = {which: re.search(rf"{which} in (\d+) of (\d+) rows", line) for which in ("higher", "lower")}
    better, worse = (int(found[1]) if found else 0 for found in rows.values())
    of = int(next(found for found in rows.values() if found)[2])
    assert f"(hypervolume) it is better in {better} of {of} comparisons, worse in {worse}." in text


def test_the_readme_says_what_the_longer_search_did():
    found = other_tasks.complete(results.RECORDS / "countdown_four")
    ends = endings.read(results.RECORDS / endings.FOLDER / "countdown_four")
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    text = " ".join(readme.split())
    head = "| at the last step | accuracy | pass@32 | expressions | solutions | token entropy | "
    assert f"{head}same, tokens above {HIGH:g} nats counted as 0 |" in text
    assert [*records.levels(found["none"])] == ["accuracy", "pass@32", "expressions", "token entropy"]
    for name, one in {endings.START: found["none"], **found}.items():
        *before, entropy = records.means(one, 0 if name == endings.START else -1)
        solutions, below = ends[name].counts["solutions"].mean(), ends[name].entropy_below.mean()
        label = "before training" if name == endings.START else f"`{name}`"
        assert f"{label} | {' | '.join([*before, f'{solutions:.2f}', entropy, f'{below:.3f}'])} |" in text, name


def test_the_readme_says_what_is_significant_in_the_longer_search():
    found = other_tasks.complete(results.RECORDS / "countdown_four")
    ends = endings.read(results.RECORDS / endings.FOLDER / "countdown_four")
    text = " ".join((REPOSITORY / "README.md").read_text(encoding="utf-8").split())

    def said(difference: Difference, digits: int, words: str) -> bool:
        return f"{records.interval(difference, digits)} {words}".replace("+", "") in text

    def significant(gained: dict, key: str, name: str) -> bool:
        return comparison.is_significant(comparison.corrected({n: of[key].p for n, of in gained.items()})[name])

    others = [name for name in ends if name not in (endings.START, "none")]
    over_grpo = {name: endings.differences(ends[name], ends["none"]) for name in others}
    assert said(over_grpo["paec"]["pass@32"], 3, "more pass@32, ") and significant(over_grpo, "pass@32", "paec")
    assert said(over_grpo["paec"]["solutions"], 2, "more solutions.") and significant(over_grpo, "solutions", "paec")
    accuracy = comparison.differences(found["paec"], found["none"])["accuracy"]
    assert not comparison.is_significant(accuracy.p), "at like accuracy"
    kept = endings.read(results.RECORDS / endings.FOLDER / "countdown_four_kept")
    again = endings.differences(kept["paec"], kept["none"])
    assert len(kept["paec"].seeds) == 3
    for key, digits, end in (("pass@32", 3, " and "), ("solutions", 2, " (three seeds).")):
        assert f"{records.interval(again[key], digits)}{end}".replace("+", "") in text
        assert comparison.is_significant(again[key].p)
    over_paec = {name: endings.differences(ends[name], ends["paec"]) for name in others if name != "paec"}
    assert said(over_paec["pass_at_k"]["solutions"], 2, "more solutions than PAEC")
    assert significant(over_paec, "solutions", "pass_at_k")
    less = {name: comparison.differences(found["paec"], found[name]) for name in others if name != "paec"}
    assert said(less["pass_at_k"]["accuracy"], 3, "less accurate (not significant)")
    assert not significant(less, "accuracy", "pass_at_k")
    everywhere = "paec_no_mask.lambda_low=2"
    most = endings.differences(ends[everywhere], ends["paec"])["pass@32"]
    assert said(most, 3, "more pass@32 than PAEC (not significant)") and not comparison.is_significant(most.p)
    assert said(less[everywhere]["accuracy"], 3, "less accurate. Weaker ones are not run yet.")
    assert significant(less, "accuracy", everywhere)
    both = endings.differences(ends["pass_at_k+paec"], ends["pass_at_k"])
    assert [key for key, of in both.items() if comparison.is_significant(of.p)] == ["expressions"]
    paec, quick = ends["paec"], endings.read(results.RECORDS / endings.FOLDER / "defaults_repeated")["paec"]
    assert f"{paec.share('high', 'tokens'):.0%} of the tokens".replace("%", " %") in text
    assert f"have {paec.share('high_entropy', 'entropy'):.0%} of its entropy".replace("%", " %") in text
    assert paec.share("ungraded_high_entropy", "high_entropy") > 0.98, "no grader reads it"
    assert quick.share("high_entropy", "entropy") < endings.FEW, "none of it in the quick start"


def test_the_readme_says_what_closes_the_loophole():
    text = " ".join((REPOSITORY / "README.md").read_text(encoding="utf-8").split())
    trained = other_tasks.complete(results.RECORDS / "countdown_four_kept")
    ends = endings.read(results.RECORDS / endings.FOLDER / "countdown_four_kept")
    bounded = "paec.entropy=normalized"
    others = [name for name in ends if name not in (endings.START, "none")]
    more = {name: endings.differences(ends[name], ends["none"])["solutions"] for name in others}
    less = {name: comparison.differences(trained[name], trained["none"])["accuracy"] for name in others}
    assert f"{records.interval(more[bounded], 2)} more solutions than GRPO".replace("+", "") in text
    assert f"accuracy {records.interval(less[bounded], 3)} (not significant).".replace("+", "") in text
    for found, significant in ((more, True), (less, False)):
        p = comparison.corrected({name: of.p for name, of in found.items()})
        assert comparison.is_significant(p[bounded]) == significant
    assert ends[bounded].share("high_entropy", "entropy") < 0.1 * ends["paec"].share("high_entropy", "entropy")
