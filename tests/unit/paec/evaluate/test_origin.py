"""Samples of this recipe that are graded again keep their protocol; others have none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluation_cases import command, line, write_lines

from recipe.paec.compare import command as compare_command
from recipe.paec.evaluate import benchmarks, results, targets
from recipe.paec.evaluate.folder import continue_or_start, identity_of
from recipe.paec.evaluate.grading import journaled


@pytest.fixture
def own(evaluation, aime, tmp_path, tiny_files) -> Path:
    """The folder of an evaluation by this recipe, all but its engine."""
    folder = tmp_path / "own"
    folder.mkdir()
    config = evaluation("model=m", "benchmarks=[aime24]", f"data_root={aime}", "protocol.samples_of.aime24=2", "seed=4")
    problems = benchmarks.load_problems(benchmarks.find_benchmarks(config))
    target = targets.Target("hub/model", tiny_files / "model", False, None, 7, folder)
    identity = identity_of(config, target, problems)
    continue_or_start(folder, identity, fresh=False)
    generation = {"least_room": 30, "chat_template": "t", "engine": {"dtype": "float32"}}
    (folder / "generation.json").write_text(json.dumps(generation))
    responses = [{**line(f"p{i}", n), "response": f"\\boxed{{{100 + i * n}}}"} for i in range(3) for n in range(2)]
    write_lines(folder / "journal.jsonl", responses)
    found = journaled(problems, folder / "journal.jsonl")
    results.write_results(config, folder, target, identity, problems, found)
    return folder


def graded_again(file: Path, output: Path, *more: str) -> dict:
    done = command(f"samples={file}", f"output={output}", *more)
    assert done.returncode == 0, done.stderr
    return json.loads((output / "scores.json").read_text())["provenance"]


@pytest.mark.parametrize("more", [(), ("benchmarks=[aime24]",)])
def test_samples_of_this_recipe_keep_their_protocol(own, aime, tmp_path, more):
    """Graded again they compare with their own evaluation, and so do the samples that this writes."""
    before = json.loads((own / "scores.json").read_text())["provenance"]
    assert before["protocol"]["samples_of"]["aime24"] == 2 and before["model"] == "hub/model"
    first = graded_again(own / "samples.jsonl", tmp_path / "a", *more, f"data_root={aime}")
    again = graded_again(tmp_path / "a" / "samples.jsonl", tmp_path / "b")
    for found in (first, again):
        for key in ("model", "model_fingerprint", "run", "step", "protocol", "seed", "generation", "benchmarks"):
            assert found[key] == before[key]
    assert first["samples"] == str(own / "samples.jsonl") and before["samples"] is None
    assert compare_command.main([str(own), str(tmp_path / "a"), f"again={tmp_path / 'b'}"]) == 0


def test_the_journal_says_whose_samples_they_are(own, tmp_path, capsys):
    """Without scores.json, or with another reference, the responses are still those of the journal."""
    samples_file = own / "samples.jsonl"
    text = samples_file.read_text()
    assert '"ground_truth": "102"' in text
    samples_file.write_text(text.replace('"ground_truth": "102"', '"ground_truth": "103"'))
    found = graded_again(samples_file, tmp_path / "a")
    assert found["protocol"]["name"] == "luffy" and (found["model"], found["step"], found["seed"]) == (
        "hub/model",
        7,
        4,
    )
    assert compare_command.main([str(own), str(tmp_path / "a")]) == 2
    assert "differ in the prompts, references or columns for the scorer of aime24" in capsys.readouterr().err
    samples_file.write_text(text)
    (own / "scores.json").unlink()
    found = graded_again(samples_file, tmp_path / "b")
    assert found["protocol"]["samples_of"]["aime24"] == 2 and found["generation"]["least_room"] == 30
    assert (found["model"], found["step"]) == (None, None)


@pytest.mark.parametrize("edit", ["a response", "fewer samples", "no journal", "another folder"])
def test_other_samples_have_no_protocol(own, tmp_path, edit):
    file, lines = own / "samples.jsonl", (own / "samples.jsonl").read_text().splitlines()
    if edit == "a response":
        lines[0] = lines[0].replace("boxed{100}", "boxed{0}")
    elif edit == "fewer samples":
        lines = lines[:4]
    elif edit == "no journal":
        (own / "journal.jsonl").unlink()
        (own / "scores.json").unlink()
    else:
        file = tmp_path / "samples.jsonl"
    write_lines(file, lines)
    found = graded_again(file, tmp_path / "a")
    assert found["protocol"] == {"name": "samples file"}
    assert all(found[key] is None for key in ("model", "model_fingerprint", "seed", "generation"))
