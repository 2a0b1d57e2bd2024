"""Evaluations that cannot be compared are refused, other differences are remarked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from comparison_cases import GENERATION, GRADER, LOW, VERSIONS, evaluation, run

from recipe.paec.compare.evaluations import SCORES_FILE


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
    assert code == 2 and "for the scorer of aime24, math500: evaluate them with the same protocol," in error
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
