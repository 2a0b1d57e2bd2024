"""The plane of accuracy and pass@n: its paths, and what is said beside it."""

import json
import re

import pytest
import yaml
from analysed import dumped, lab_run
from report_runs import SOURCE, record, write_run

from recipe.paec.report.command import content_of
from recipe.paec.report.page import render
from recipe.paec.report.plane import findings_of, path_of, places_of, points, section
from recipe.paec.report.runs import read_run
from recipe.paec.report.series import grouped
from recipe.paec.scoring.estimators import Difference, paired_bootstrap

PLACE = (SOURCE, 4)


def groups_of(*folders):
    return grouped([(None, read_run(folder), None) for folder in folders])


def laboratory(folder, method, counts, seed=1, source="gsm8k"):
    """A run of the laboratory with four samples of each problem, and pass@4 among its metrics."""
    lab_run(folder, counts)
    rows = []
    for step, correct in counts.items():
        values = {"avg@4": sum(correct) / 4 / len(correct), "pass@4": sum(c > 0 for c in correct) / len(correct)}
        values = {f"val/{source}/{key}": value for key, value in values.items()}
        rows.append({"step": step, **values, "actor/entropy": step / 8})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"method": {"_target_": f"paec_loss.methods.{method}"}, "seed": seed, "task": "t"}
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "run": {"name": folder.name}}))
    return folder


def test_a_path_of_each_run(tmp_path):
    groups = groups_of(write_run(tmp_path / "a"), write_run(tmp_path / "b", method=None, other=1))
    (found,) = section(groups, {PLACE: ["a sentence"]})
    (chart,) = found["charts"]
    assert (found["id"], chart["id"], chart["kind"]) == ("plane", "plane", "plane")
    assert chart["title"] == "pass@4 over avg@4" and chart["axes"] == ["avg@4", "pass@4"]
    assert [line["label"] for line in chart["series"]] == ["a", "b"] and chart["findings"] == ["a sentence"]
    line = chart["series"][0]
    assert line["steps"] == [0, 4, 8] and line["xs"] == [25, 37.5, 50]
    assert line["ys"] == [record(step)[f"val/{SOURCE}/pass@4"] for step in (0, 4, 8)]


def test_seeds_are_their_mean(tmp_path):
    (group,) = groups_of(write_run(tmp_path / "m-seed0"), write_run(tmp_path / "m-seed1", seed=1, last=6))
    assert path_of(group, PLACE) == {0: pytest.approx((0.255, 0.455)), 4: pytest.approx((0.38, 0.58))}


def test_a_point_without_a_value_is_left_out(tmp_path):
    folder = write_run(tmp_path / "a")
    text = (folder / "metrics.jsonl").read_text().replace('avg@4": 0.375', 'avg@4": NaN')
    (folder / "metrics.jsonl").write_text(text)
    (group,) = groups_of(folder)
    assert [*path_of(group, PLACE)] == [0, 8]


@pytest.mark.parametrize(
    "metrics",
    [
        {"avg@1": 0.5, "pass@1": 0.5},
        {"avg@4": 0.5, "pass@2": 0.75},
        {},
    ],
)
def test_without_repeated_samples_there_is_none(tmp_path, metrics):
    folder = write_run(tmp_path / "a")
    rows = [{"step": step, **{f"val/math/{key}": v for key, v in metrics.items()}} for step in (0, 8)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert section(groups_of(folder), {}) == []


def test_one_validation_of_one_run_is_no_path(tmp_path):
    assert section(groups_of(write_run(tmp_path / "a", last=3)), {}) == []


def test_a_chart_for_each_validation_set(tmp_path):
    folder = write_run(tmp_path / "a")
    keys = [f"val/{source}/{kind}@8" for source in ("zebra", "aime24") for kind in ("avg", "pass")]
    rows = [{"step": step, **dict.fromkeys(keys, 0.5)} for step in (0, 8)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    groups = groups_of(folder)
    assert places_of(groups) == [("aime24", 8), ("zebra", 8)]
    charts = section(groups, {})[0]["charts"]
    assert [(chart["id"], chart["title"]) for chart in charts] == [
        ("plane", "pass@8 over avg@8, aime24"),
        ("plane-1", "pass@8 over avg@8, zebra"),
    ]
    assert "no longer solves in 8 tries" in charts[0]["note"] and charts[1]["note"] == ""


def test_the_difference_is_the_paired_bootstraps(tmp_path):
    """PAEC minus GRPO, whichever comes first; at the last step that both have."""
    counts = {"none": [4, 4, 0, 0, 1], "paec": [3, 4, 1, 1, 2]}
    grpo = laboratory(tmp_path / "grpo", "none.NoMethod", {0: [2] * 5, 8: counts["none"]})
    ours = laboratory(tmp_path / "ours", "paec.PAEC", {0: [2] * 5, 8: counts["paec"], 16: [4] * 5})
    found = findings_of(groups_of(ours, grpo))
    avg = paired_bootstrap([[c / 4 for c in counts[name]] for name in ("paec", "none")])
    solved = paired_bootstrap([[float(c > 0) for c in counts[name]] for name in ("paec", "none")])
    assert (100 * avg.value, 100 * solved.value) == (pytest.approx(10), pytest.approx(40))
    assert found == {
        ("gsm8k", 4): [
            f"ours minus grpo at step 8: avg@4 {points(avg)}, pass@4 {points(solved)} percentage points "
            "(95 % intervals over 5 problems).",
            "Token entropy at step 8, nats: grpo 1.0000, ours 1.0000.",
        ]
    }


def test_seeds_are_resampled_as_in_compare(tmp_path):
    folders = [
        laboratory(tmp_path / f"{name}-seed{seed}", method, {0: [2] * 4, 8: [seed, gain, 4, 0]}, seed)
        for name, method, gain in (("none", "none.NoMethod", 0), ("paec", "paec.PAEC", 3))
        for seed in (1, 2)
    ]
    runs = [(folder.name.partition("-")[0], read_run(folder), None) for folder in folders]
    (sentence, _) = findings_of(grouped(runs))["gsm8k", 4]
    assert sentence.startswith("paec minus none at step 8: avg@4 +18.8 [")
    assert sentence.endswith("(95 % intervals over shared seeds and 4 problems; with 2 seeds they can be too narrow).")


def test_without_samples_there_is_no_interval(tmp_path):
    folders = [write_run(tmp_path / "a"), write_run(tmp_path / "b", seed=3, other=1)]
    (sentence, entropy) = findings_of(groups_of(*folders))[PLACE]
    assert sentence == (
        "b minus a at step 8: avg@4 +3.0, pass@4 +3.0 percentage points "
        "(no intervals: b has neither validation/8.jsonl nor problems.jsonl)."
    )
    assert entropy == "Token entropy at step 8, nats: a 0.3750, b 0.4050."


def test_samples_that_do_not_fit_give_no_interval(tmp_path):
    folders = [write_run(tmp_path / name, other=name) for name in "ab"]
    for folder, problems in zip(folders, ({"p": "AAxx", "q": "AAxx"}, {"p": "AAxx", "r": "AAxx"}), strict=True):
        dumped(folder / "validation" / "8.jsonl", problems)
    (sentence, _) = findings_of(groups_of(*folders))[PLACE]
    assert "(no intervals: the runs were validated on different problems)" in sentence
    dumped(folders[1] / "validation" / "8.jsonl", {"p": "AAxx", "q": "AAAx"})
    (sentence, _) = findings_of(groups_of(*folders))[PLACE]
    assert "(no intervals: the samples of b are not those of its metrics.jsonl)" in sentence
    dumped(folders[1] / "validation" / "8.jsonl", {"p": "Axxx", "q": "AAAx"})
    (sentence, _) = findings_of(groups_of(*folders))[PLACE]
    assert sentence.startswith("b minus a at step 8: avg@4 0.0 [\N{MINUS SIGN}25.0, 25.0], pass@4 0.0 [0.0, 0.0] perc")


def test_of_several_validation_sets_the_samples_are_not_told_apart(tmp_path):
    folders = [laboratory(tmp_path / name, f"{name}.M", {0: [1, 2], 8: [3, 3]}) for name in ("none", "paec")]
    for folder in folders:
        text = (folder / "metrics.jsonl").read_text()
        (folder / "metrics.jsonl").write_text(text.replace('"step"', '"val/aime24/avg@4": 0.5, "step"'))
    (sentence, _) = findings_of(groups_of(*folders))["gsm8k", 4]
    assert "do not say to which of several data sources they belong" in sentence


def test_one_run_has_no_sentence(tmp_path):
    assert findings_of(groups_of(write_run(tmp_path / "a"))) == {}


def test_runs_without_a_common_validation_have_no_sentence(tmp_path):
    folders = [laboratory(tmp_path / "a", "none.M", {0: [1]}), laboratory(tmp_path / "b", "paec.M", {8: [1]})]
    assert findings_of(groups_of(*folders)) == {}


def test_points():
    assert points(Difference(0.01234, -0.005, 0.0296, 0.1)) == "+1.2 [\N{MINUS SIGN}0.5, 3.0]"
    assert points(Difference(-0.0001, None, None, None)) == "0.0"


def test_it_is_the_first_section_of_the_page(tmp_path):
    folders = [write_run(tmp_path / name, other=name) for name in "ab"]
    page = render(content_of([(None, read_run(folder)) for folder in folders]), "made now")
    assert re.findall('<section id="(.*?)"', page)[:3] == ["plane", "runs", "entropy"]
    assert re.findall('href="#([a-z]+)">[GRE]', page)[:3] == ["plane", "runs", "entropy"]
    alone = render(content_of([(None, read_run(folders[0]))]), "made now")
    assert re.findall('<section id="(.*?)"', alone)[:3] == ["entropy", "plane", "validation"]
    (beside,) = re.findall('<div class="beside">(.*?)</div>', page, re.S)
    assert "<p>b minus a at step 8: avg@4 0.0, pass@4 0.0 percentage points (no intervals: " in beside
