"""The evaluations that are compared: their names, and scores files that cannot be read."""

from __future__ import annotations

import json
import re

import pytest
from comparison_cases import HIGH, LOW, evaluation

from recipe.paec.common.errors import UserError
from recipe.paec.compare import evaluations
from recipe.paec.compare.evaluations import SCORES_FILE, seed_of, without_seed


@pytest.mark.parametrize(
    ("folder", "name", "seed"),
    [
        ("paec-seed1", "paec", 1),
        ("paec_seed12", "paec", 12),
        ("tiny_cpu-paec-trainer.seed=3", "tiny_cpu-paec", 3),
        ("tiny-data.seed=3,method.rho=0.5", "tiny-method.rho=0.5", 3),
        ("tiny-a=1,data.seed=3,rho=0.7", "tiny-a=1,rho=0.7", 3),
        ("tiny-a=1,data.seed=3", "tiny-a=1", 3),
        ("seed1", "seed1", 1),
        ("paec-seedling", "paec-seedling", None),
        ("aniseed3", "aniseed3", None),
    ],
)
def test_a_name_loses_its_seed(folder, name, seed):
    assert (without_seed(folder), seed_of(folder)) == (name, seed)


def test_seeds_of_a_method(folders):
    (paec,) = evaluations.read_methods([str(folders / f"paec-seed{seed}") for seed in (2, 1, 3)])
    assert paec.seeds == (2, 1, 3)
    named = evaluations.read_methods([f"x={folders / 'paec-seed1'}", f"x={folders / 'grpo'}"])
    assert named[0].seeds is None, "the seed of grpo is not known"
    other = evaluation(folders / "other" / "dapo-seed1", HIGH)
    twice = evaluations.read_methods([f"x={folders / 'paec-seed1'}", f"x={other}"])
    assert twice[0].seeds is None, "one seed, of two methods"
    run = evaluation(folders / "runs" / "step_10", HIGH, run="grpo-seed7")
    assert evaluations.read_methods([str(run)])[0].seeds == (7,), "the training run's"


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


@pytest.mark.parametrize(("field", "what"), [("samples_sha256", "responses"), ("model_fingerprint", "model")])
def test_the_same_model_is_no_second_seed(folders, field, what):
    paths = [folders / f"paec-seed{seed}" for seed in (1, 2)]
    for path, value in zip(paths, ("0f", "0f"), strict=True):
        content = json.loads((path / "scores.json").read_text())
        content["provenance"][field] = value
        (path / "scores.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"count as two seeds of paec, but are of the same {what} .{field}.: leave one"):
        evaluations.read_methods(list(map(str, paths)))
    assert len(evaluations.read_methods([str(paths[0]), f"other={paths[1]}"])) == 2
    for path in paths:
        content = json.loads((path / "scores.json").read_text())
        content["provenance"][field] = None
        (path / "scores.json").write_text(json.dumps(content))
    assert len(evaluations.read_methods(list(map(str, paths)))) == 1, "it is not known"


def test_a_curve_is_in_the_order_of_its_steps(tmp_path):
    entries = [{"step": step, "scores": f"step{step}/scores.json"} for step in ("20", 10)]
    (tmp_path / "curve.json").write_text(json.dumps({"run": "first", "steps": entries}))
    run, files = evaluations.read_curve_file(tmp_path)
    assert run == "first"
    assert [*files.items()] == [(step, tmp_path / f"step{step}" / "scores.json") for step in (10, 20)]
    (tmp_path / "curve.json").write_text('{"run": "first", "steps": []}')
    with pytest.raises(UserError, match="curve.json, field steps: is empty: evaluate the checkpoints of the run"):
        evaluations.read_curve_file(tmp_path)
