"""Which charts a report has, of one run and of several."""

import json

import pytest
from report_runs import SOURCE, record, write_run

from recipe.paec.report.catalogue import SECTIONS
from recipe.paec.report.charts import chosen, sections
from recipe.paec.report.responses import read_responses
from recipe.paec.report.runs import read_run
from recipe.paec.report.series import grouped


def groups_of(*folders):
    return grouped([(None, run, read_responses(run.folder, run.last_step)) for run in map(read_run, folders)])


def charts_of(groups):
    return {chart["id"]: chart for section in sections(groups) for chart in section["charts"]}


def lines(chart):
    return [(line["label"], line["key"]) for line in chart["series"]]


def test_responses_that_repeat_themselves(tmp_path):
    """Beside those at the length limit; a run from before the metric has the others."""
    older, run = write_run(tmp_path / "older"), write_run(tmp_path / "a")
    text = (
        (run / "metrics.jsonl")
        .read_text()
        .replace('"critic/score/mean"', '"reward/repetition": 0.5, "critic/score/mean"')
    )
    (run / "metrics.jsonl").write_text(text)
    limit = ("at the length limit", "reward/cut_off")
    charts = charts_of(groups_of(run))
    assert lines(charts["truncation"]) == [limit, ("repeating themselves", "reward/repetition")]
    assert charts["truncation"]["scale"] == 100 and "200 characters" in charts["truncation"]["note"]
    assert lines(charts_of(groups_of(older))["truncation"]) == [limit]


def test_one_run(tmp_path):
    charts = charts_of(groups_of(write_run(tmp_path / "a")))
    assert lines(charts["entropy"]) == [
        ("all tokens", "actor/entropy"),
        ("H\u0304, selected positions", "actor/paec/selected_entropy"),
        ("anchor", "actor/paec/anchor"),
        ("floor", "actor/paec/floor"),
    ]
    assert charts["entropy"]["unit"] == "nats" and charts["entropy"]["x"] == "training step"
    assert lines(charts["avg"]) == [("avg@4", f"val/{SOURCE}/avg@4")] and charts["avg"]["scale"] == 100
    assert [label for label, _ in lines(charts["pass"])] == ["pass@1", "pass@2", "pass@4"]
    assert lines(charts["reward"]) == [("graded score", "critic/score/mean")], "the same numbers are not drawn twice"
    assert lines(charts["memory"]) == [("machine, in use", "actor/perf/cpu_memory_used_gb")], "0 GiB is no device"
    assert "method-paec-mask_mass" in charts and "method-paec-penalty" not in charts
    assert charts["method-paec-mask_mass"]["unit"] == "%"


def test_several_runs_are_overlaid(tmp_path):
    grpo = {"method": "none"}
    folders = [write_run(tmp_path / "a"), write_run(tmp_path / "b", method=None, identity=grpo)]
    charts = charts_of(groups_of(*folders))
    assert lines(charts["entropy"]) == [("a", "actor/entropy"), ("b", "actor/entropy")]
    drawn = [charts["entropy"], charts["hbar"], charts["avg"], charts["passk-0"], charts["method-paec-mask_mass"]]
    assert [[line["colour"] for line in chart["series"]] for chart in drawn] == [[1, 0], [1, 1], [1, 0], [1, 0], [1]]
    assert lines(charts["hbar"]) == [("a", "actor/paec/selected_entropy"), ("a, floor", "actor/paec/floor")]
    assert {charts[f"pass{end}"]["title"] for end in ("", "-1", "-2")} == {"pass@1", "pass@2", "pass@4"}
    assert charts["stages"]["title"] == "Time by stage, a" and charts["stages-1"]["title"] == "Time by stage, b"


def with_update_metrics(folder):
    """What PAEC records of its updates, added to every step of a run."""
    text = (folder / "metrics.jsonl").read_text()
    own = '"actor/paec/update_selected_entropy": 0.5, "actor/paec/update_staleness": 0.25, "critic/score/mean"'
    (folder / "metrics.jsonl").write_text(text.replace('"critic/score/mean"', own))
    return folder


HBAR = ("selected_entropy", "anchor", "floor", "update_selected_entropy", "update_staleness")


def units_of(charts):
    """(unit, number of the run) of every line of Hbar, its anchor and its floor."""
    found = {(c["unit"], line["group"], line["key"]) for c in charts.values() for line in c["series"]}
    return {(unit, group) for unit, group, key in found if key.removeprefix("actor/paec/") in HBAR}


def test_a_normalised_entropy_has_no_unit(tmp_path):
    """So it shares no axis with token entropy, nor with the Hbar of a run in nats."""
    normalised = with_update_metrics(write_run(tmp_path / "a", also={"paec": {"entropy": "normalized"}}))
    charts = charts_of(groups_of(normalised))
    assert lines(charts["entropy"]) == [("all tokens", "actor/entropy")] and charts["entropy"]["unit"] == "nats"
    assert [label for label, _ in lines(charts["hbar"])] == ["H\u0304, selected positions", "anchor", "floor"]
    assert charts["hbar"]["note"].startswith("Normalised entropy, 0 to 1, has no unit.")
    assert units_of(charts) == {("", 0)}
    full = with_update_metrics(write_run(tmp_path / "b", seed=1))
    charts = charts_of(groups_of(full, normalised))
    assert units_of(charts) == {("nats", 0), ("", 1)}
    assert [(charts[name]["unit"], lines(charts[name])[0][0]) for name in ("hbar", "hbar-1")] == [
        ("nats", "b"),
        ("", "a"),
    ]
    assert charts["method-paec-update_staleness-1"]["title"] == charts["method-paec-update_staleness"]["title"]


def test_pass_at_k_over_k(tmp_path):
    (groups,) = (groups_of(write_run(tmp_path / "a")),)
    chart = charts_of(groups)["passk-0"]
    assert [line["label"] for line in chart["series"]] == ["step 0", "step 4", "step 8"]
    assert chart["series"][1]["xs"] == [1, 2, 4]
    assert chart["series"][1]["ys"] == [record(4)[f"val/{SOURCE}/pass@{k}"] for k in (1, 2, 4)]
    assert chart["log"] and chart["x"] == "samples k"


def test_shares_of_time_are_stacked(tmp_path):
    chart = charts_of(groups_of(write_run(tmp_path / "a")))["stages"]
    assert chart["kind"] == "stack"
    assert [label for label, _ in lines(chart)] == ["gen", "update_actor", "other"], "the largest first"


def test_cut_off_responses_are_points(tmp_path):
    """Only some steps have such responses: no line joins them, in a chart of one run or of several."""
    folders = [write_run(tmp_path / "a"), write_run(tmp_path / "b", other=1)]
    for folder in folders:
        text = (folder / "metrics.jsonl").read_text()
        own = '{"step": 3, "actor/entropy/truncated": 0.75, "actor/entropy/right": 0.5, '
        (folder / "metrics.jsonl").write_text(text.replace('{"step": 3, ', own))
    for chosen_folders in (folders[:1], folders):
        charts = charts_of(groups_of(*chosen_folders))
        assert [line.get("points") for line in charts["entropy-cut-off"]["series"]] == [True] * len(chosen_folders)
        assert not any("points" in line for line in charts["entropy-outcome"]["series"])


def test_every_stage_has_a_fill_of_its_own(tmp_path):
    folder = write_run(tmp_path / "a")
    stages = {f"timing_s/stage{i}": 1.0 - i / 100 for i in range(9)}
    lines_of_file = [json.dumps({"step": step, "timing_s/step": 10.0, **stages}) for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("\n".join(lines_of_file) + "\n")
    series = charts_of(groups_of(folder))["stages"]["series"]
    assert [line["label"] for line in series] == ["other", *(f"stage{i}" for i in range(9))]
    assert len({(line["colour"], line["dashes"]) for line in series}) == 10
    assert series[0]["colour"] == 7, "what is left over is grey"


def test_where_the_mask_lies(tmp_path):
    chart = charts_of(groups_of(write_run(tmp_path / "a")))["deciles"]
    assert [line["label"] for line in chart["series"]] == ["step 1", "step 3", "step 6", "step 8"]
    assert chart["series"][0]["xs"] == [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
    assert chart["series"][0]["ys"] == [0.1] * 10


def test_what_is_not_recorded_is_named(tmp_path):
    folder = write_run(tmp_path / "a")
    (folder / "metrics.jsonl").write_text('{"step": 1, "actor/entropy": 0.5}\n')
    found = {section["id"]: section for section in sections(groups_of(folder))}
    assert found["validation"]["charts"] == [] and found["validation"]["absent"] == [
        "Accuracy",
        "Majority vote",
        "pass@k",
    ]
    assert "Gradient norm" in found["update"]["absent"] and found["entropy"]["absent"] == []
    assert found["method"] == {"id": "method", "title": "Method", "charts": [], "absent": []}


@pytest.mark.parametrize(
    "key, chart, label",
    [
        ("actor/pg_clipfrac_positive", "clip", "pg_clipfrac_positive"),
        ("actor/paec/clipfrac_negative", "clip", "clipfrac_negative"),
        ("actor/paec/gradient_share", "share", "gradient_share"),
        ("actor/entropy/right", "entropy-outcome", "right"),
        ("actor/entropy/truncated", "entropy-cut-off", "cut off"),
        ("actor/entropy/reasoning_gym/countdown", "entropy-outcome", "reasoning_gym/countdown"),
        ("actor/siren/width", "method-siren-width", "width"),
        ("actor/siren/a/b", "method-siren-a/b", "a/b"),
    ],
)
def test_metrics_that_only_some_runs_have(tmp_path, key, chart, label):
    folder = write_run(tmp_path / "a")
    (folder / "metrics.jsonl").write_text(json.dumps({**record(1), key: 0.5}) + "\n")
    charts = charts_of(groups_of(folder))
    assert [name for name in charts if (label, key) in lines(charts[name])] == [chart]


def test_validation_sets_are_told_apart(tmp_path):
    folder = write_run(tmp_path / "a")
    both = {"step": 0, "val/math500/avg@4": 0.5, "val/aime24/avg@4": 0.25}
    (folder / "metrics.jsonl").write_text(json.dumps(both) + "\n")
    assert lines(charts_of(groups_of(folder))["avg"]) == [
        ("avg@4 aime24", "val/aime24/avg@4"),
        ("avg@4 math500", "val/math500/avg@4"),
    ]


def test_every_chart_has_its_own_place(tmp_path):
    ids = [spec.id for section in SECTIONS for spec in section.specs]
    assert len(ids) == len(set(ids))
    drawn = [c["id"] for s in sections(groups_of(write_run(tmp_path / "a"))) for c in s["charts"]]
    assert len(drawn) == len(set(drawn))


def test_chosen_steps():
    assert chosen([1, 2, 3], 4) == [1, 2, 3]
    assert chosen(list(range(101)), 5) == [0, 25, 50, 75, 100]


def test_a_line_of_the_same_zeros_stays(tmp_path):
    """Only values that say something make a repeated line superfluous."""
    folder = write_run(tmp_path / "a")
    (folder / "metrics.jsonl").write_text('{"step": 1, "reward/cut_off": 0.0, "response/aborted_ratio": 0.0}\n')
    labels = [label for label, _ in lines(charts_of(groups_of(folder))["truncation"])]
    assert labels == ["at the length limit", "aborted"]
