"""The command on a file of samples: its arguments, its errors, and scores by hand."""

from __future__ import annotations

import json
import math
import os

import pytest
from evaluation_cases import command, row, write_lines
from omegaconf import OmegaConf

from data_prep.contract import write_parquet
from recipe.grading.pool import GraderPool
from recipe.paec.common import versions
from recipe.paec.evaluate.command import with_cluster


def test_paths_may_hold_what_hydra_reads(evaluation):
    """A run's name carries its overrides, so paths have "=" and "," in them."""
    config = evaluation("model=runs/a,rho=0.7", "benchmarks=[a]", "output=it's,b=c", "data_root='quoted=1'")
    assert (config.model.path, config.output, config.data_root) == ("runs/a,rho=0.7", "it's,b=c", "quoted=1")
    assert evaluation("samples=x=y.jsonl", "output=null").samples == "x=y.jsonl"
    config = evaluation("model=m", "benchmarks=[aime24, a b=c/it's.parquet]", "trained_on=x=1/t.parquet")
    assert config.benchmarks == ["aime24", "a b=c/it's.parquet"] and config.trained_on == ["x=1/t.parquet"]
    assert evaluation("model=m", "benchmarks=['a,b.parquet','c']").benchmarks == ["a,b.parquet", "c"]
    assert evaluation("samples=f", "benchmarks=[]", "trained_on=null").benchmarks == []
    config = evaluation(
        "model=m", "benchmarks=[aime24, 'a b.parquet',\"c,d\", it's]", r"chat_template={{ 'it\'s\n' }}\\"
    )
    assert config.benchmarks == ["aime24", "a b.parquet", "c,d", "it's"]
    assert config.chat_template == r"{{ 'it\'s\n' }}" + "\\\\"
    config = evaluation("model=C:\\m\\", "benchmarks=['x\\'y',z\\]", "output=a\\b")
    assert (config.model.path, config.output, config.benchmarks) == ("C:\\m\\", "a\\b", ["x'y", "z\\"])


@pytest.mark.parametrize(
    ("given", "gpus", "added"),
    [
        ([], 8, ["cluster=gpu_1x8", "cluster.gpus_per_node=8"]),
        (["cluster.gpus_per_node=4"], 8, ["cluster=gpu_1x8"]),
        (["++cluster.gpus_per_node=4"], 2, ["cluster=gpu_1x8"]),
        ([], 1, ["cluster=gpu_1x1"]),
    ],
)
def test_all_gpus_unless_the_command_line_has_their_number(given, gpus, added):
    assert with_cluster(["model=m", *given], gpus) == ["model=m", *given, *added]


@pytest.mark.parametrize(
    "override, words",
    [
        (
            "protocol.temprature=1",
            ["unknown configuration key protocol.temprature", "did you mean protocol.temperature"],
        ),
        ("protocol=lufy", ["no protocol lufy", "did you mean luffy?"]),
        ("benchmarks=[aime24]", ["give model=..."]),
    ],
)
def test_errors_on_the_command_line(override, words):
    done = command(override)
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert all(word in done.stderr for word in words), done.stderr


def test_the_configuration_alone_is_printed_and_nothing_starts(tmp_path):
    done = command("model=/nowhere", "benchmarks=[nothing]", "seed=7", f"output={tmp_path / 'out'}", "--print-config")
    assert done.returncode == 0, done.stderr
    printed = done.stdout[done.stdout.index("model:") :]
    assert OmegaConf.create(printed).seed == 7 and OmegaConf.create(printed).model.path == "/nowhere"
    assert list(tmp_path.iterdir()) == []


def test_scores_of_a_sample_file_by_hand(tmp_path, aime):
    """Three problems (100, 101, 102), four responses each, everything computed by hand."""
    answers = {
        "p0": ["\\boxed{100}", "\\boxed{\\frac{200}{2}}", "\\boxed{7}", "no idea"],  # two ways to say 100: the majority
        "p1": ["\\boxed{9}", "\\boxed{101}", "\\boxed{9}", "\\boxed{101.0}"],  # a tie: 9 came first, so wrong
        "p2": ["\\boxed{1}", "\\boxed{2}", "\\boxed{3}", "it is \\boxed{"],
    }
    lines = [
        {"benchmark": "aime24", "problem": p, "sample": i, "response": r, "tokens": 10 * (i + 1), "finish_reason": f}
        for p, responses in answers.items()
        for i, (r, f) in enumerate(zip(responses, ["stop", "stop", "stop", "length"], strict=True))
    ]
    file, output = write_lines(tmp_path / "s.jsonl", lines), tmp_path / "out"
    done = command(f"samples={file}", "benchmarks=[aime24]", f"data_root={aime}", f"output={output}")
    assert done.returncode == 0, done.stderr
    scores = json.loads((output / "scores.json").read_text())
    found = scores["benchmarks"]["aime24"]
    assert (found["problems"], found["samples"]) == (3, 4)
    assert found["avg"]["value"] == pytest.approx((2 / 4 + 2 / 4 + 0) / 3)
    assert found["maj"]["4"]["value"] == pytest.approx(1 / 3)
    assert found["pass"]["1"]["value"] == pytest.approx(1 / 3)
    assert found["pass"]["2"]["value"] == pytest.approx(2 * (1 - 1 / math.comb(4, 2)) / 3)
    assert found["pass"]["4"]["value"] == pytest.approx(2 / 3)
    assert found["truncated"] == pytest.approx(3 / 12) and found["unparsable"] == pytest.approx(2 / 12)
    assert found["mean_length"] == pytest.approx(25)
    assert {p: v["correct"] for p, v in found["per_problem"].items()} == {"p0": 2, "p1": 2, "p2": 0}

    graded = [json.loads(text) for text in (output / "samples.jsonl").read_text().splitlines()]
    assert [g["group"] for g in graded] == [0, 0, 1, None, 0, 1, 0, 1, 0, 1, 2, None]
    assert [g["correct"] for g in graded] == [True, True, False, False, False, True, False, True] + [False] * 4
    assert graded[0]["ground_truth"] == "100" and graded[3]["status"] == "unparsable" and graded[3]["answer"] is None
    assert "| avg@n" in done.stdout and "AIME24" in (output / "scores.md").read_text()
    assert scores["provenance"]["samples"] == str(file) and scores["contamination"] is None
    limits = {"time_limit": GraderPool().time_limit, "memory_limit": GraderPool().memory_limit}
    grader = {**limits, "math-verify": "0.9.0", "sympy": versions.installed("sympy")}
    assert scores["provenance"]["grader"] == grader and scores["provenance"]["generation"] is None

    (output / "journal.jsonl").touch()
    for fresh in ("fresh=false", "fresh=true"):
        within = command(f"samples={output / 'samples.jsonl'}", f"output={output}", fresh)
        assert within.returncode == 2 and "which this command replaces: choose another folder with" in within.stderr
        assert "fresh=true" not in within.stderr and (output / "samples.jsonl").is_file()

    write_lines(tmp_path / "s.jsonl", [*lines[:-1], {**lines[-1], "response": "changed"}])
    again = command(f"samples={file}", "benchmarks=[aime24]", f"data_root={aime}", f"output={output}")
    assert again.returncode == 2 and "contains another evaluation: its samples is" in again.stderr
    write_lines(tmp_path / "s.jsonl", lines[:-1])
    partial = command(f"samples={file}", "benchmarks=[aime24]", f"data_root={aime}", f"output={tmp_path / 'o2'}")
    assert partial.returncode == 2 and "p2" in partial.stderr and "3 of 4 samples" in partial.stderr
    assert "graded" not in partial.stdout, "found out before anything is graded"


def test_an_output_that_is_a_file_is_one_sentence(tmp_path, aime):
    lines = [{"benchmark": "aime24", "problem": f"p{i}", "sample": 0, "response": "\\boxed{100}"} for i in range(3)]
    (tmp_path / "file").touch()
    done = command(
        f"samples={write_lines(tmp_path / 's.jsonl', lines)}", "benchmarks=[aime24]", f"data_root={aime}",
        f"output={tmp_path / 'file'}",
    )  # fmt: skip
    assert done.returncode == 2
    file = tmp_path / "file"
    assert done.stderr == f"error: output={file}: {file} is a file: give the path of a folder\n"


def test_an_own_scorer_grades_samples_and_is_part_of_the_identity(tmp_path, monkeypatch):
    (tmp_path / "quiz_scorer.py").write_text(
        "def score(response, truth, extra):\n"
        "    if response == 'fails':\n        raise ValueError('no score')\n"
        "    return extra['index'] + len(response) / 4, {'answer': response, 'length': len(response)}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    write_parquet([row(i, "abcd", source="quiz") for i in range(2)], tmp_path / "quiz.parquet")
    responses = {"p0": ["ab", "abcd", "fails"], "p1": ["a", "b", "b"]}
    lines = [
        {"benchmark": "quiz", "problem": problem, "sample": i, "response": response, "tokens": 1}
        for problem, given in responses.items()
        for i, response in enumerate(given)
    ]
    file, output = write_lines(tmp_path / "s.jsonl", lines), tmp_path / "out"
    place = (f"samples={file}", f"benchmarks=[{tmp_path / 'quiz.parquet'}]", f"output={output}")
    done = command(*place, "reward.scorers.quiz=quiz_scorer:score")
    assert done.returncode == 0, done.stderr
    graded = [json.loads(text) for text in (output / "samples.jsonl").read_text().splitlines()]
    assert [g["score"] for g in graded] == [0.5, 1.0, 0.0, 1.25, 1.25, 1.25]
    assert [g["correct"] for g in graded] == [False, True, False, True, True, True]
    assert [g["status"] for g in graded] == ["ok", "ok", "error", "ok", "ok", "ok"]
    assert graded[2]["detail"] == "ValueError: no score" and graded[0]["metrics"] == {"length": 2.0}
    assert [g["group"] for g in graded] == [0, 1, None, 0, 1, 1]
    scores = json.loads((output / "scores.json").read_text())
    found = scores["benchmarks"]["quiz"]
    assert found["score"]["value"] == pytest.approx((0.5 + 1.25) / 2) and found["grader_error"] == pytest.approx(1 / 6)
    assert found["pass"]["3"]["value"] == 1.0 and found["avg"]["value"] == pytest.approx((1 / 3 + 1) / 2)
    assert scores["provenance"]["grader"]["scorer of quiz"] == "quiz_scorer:score"
    assert "mean score" in (output / "scores.md").read_text() and "0.875" in done.stdout

    for scorer, words in (
        ("exact_match", "contains another evaluation: its scorers is {'quiz': 'quiz_scorer:score'}"),
        ("quiz_scorer:nope", "reward.scorers.quiz: scorer quiz_scorer:nope: quiz_scorer has no nope"),
        ("nope", "reward.scorers.quiz: nope is neither package.module:function nor one of math"),
    ):
        refused = command(*place, f"reward.scorers.quiz={scorer}")
        assert refused.returncode == 2 and words in refused.stderr and len(refused.stderr.splitlines()) == 1
    unused = command(*place, "reward.scorers={quiz: exact_match, quizz: json}")
    assert unused.returncode == 2 and "reward.scorers.quizz: must name one of the benchmarks quiz" in unused.stderr


def test_samples_of_a_source_that_is_no_word(evaluation):
    names = {"exact_match/caps": 4, "my.set": 2, "aime24": 3, "odd-name": 5}
    config = evaluation("model=m", "benchmarks=[a]", *(f"protocol.samples_of.{name}={n}" for name, n in names.items()))
    assert {name: config.protocol.samples_of[name] for name in names} == names
    assert config.protocol.samples_of.amc23 == 32, "what the protocol says of others stays"
