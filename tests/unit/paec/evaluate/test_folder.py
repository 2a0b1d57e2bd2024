"""The folder of an evaluation: its name, whose it is, and what is left alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from evaluation_cases import row

from data_prep.contract import write_parquet
from recipe.paec.common import folder_kinds, folders
from recipe.paec.common.errors import UserError
from recipe.paec.evaluate import benchmarks, targets
from recipe.paec.evaluate.command import show
from recipe.paec.evaluate.folder import continue_or_start, digests, identity_of, label_of, output_errors


def test_labels_tell_evaluations_apart(evaluation):
    plain = evaluation("model=m", "benchmarks=[a]")
    assert label_of(plain, ["aime24", "math500"]) == "luffy-aime24,math500"
    other = evaluation("model=m", "benchmarks=[a]", "protocol.top_p=0.9", "seed=2")
    assert label_of(other, ["reasoning_gym/countdown"]) == "luffy,top_p=0.9,seed=2-reasoning_gym_countdown"


def test_another_evaluation_is_refused(tmp_path):
    continue_or_start(tmp_path, {"model": "a", "seed": 0}, fresh=False)
    (tmp_path / "journal.jsonl").write_text("{}\n")
    continue_or_start(tmp_path, {"model": "a", "seed": 0}, fresh=False)
    with pytest.raises(UserError, match="its seed is 0, but this command has 1:.*fresh=true"):
        continue_or_start(tmp_path, {"model": "a", "seed": 1}, fresh=False)
    with pytest.raises(UserError, match="its model is 'a', but this command has None"):
        continue_or_start(tmp_path, {"samples": "f"}, fresh=False)
    with pytest.raises(UserError, match="its scorers is None, but this command has {'quiz': 'json'}"):
        continue_or_start(tmp_path, {"benchmarks": {"quiz": "0f"}, "scorers": {"quiz": "json"}}, fresh=False)
    assert (tmp_path / "journal.jsonl").is_file()
    continue_or_start(tmp_path, {"model": "a", "seed": 1}, fresh=True)
    assert not (tmp_path / "journal.jsonl").exists()
    assert json.loads((tmp_path / "evaluation.json").read_text()) == {"model": "a", "seed": 1}


@pytest.mark.parametrize("content", ["null", "[]", "{"])
def test_a_damaged_identity(tmp_path, content):
    continue_or_start(tmp_path, {"seed": 0}, fresh=False)
    (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(UserError, match=r"evaluation.json is damaged \(.*\): start over with fresh=true, or choose"):
        continue_or_start(tmp_path, {"seed": 0}, fresh=False)
    continue_or_start(tmp_path, {"seed": 0}, fresh=True)
    assert json.loads((tmp_path / "evaluation.json").read_text()) == {"seed": 0}


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_with_something_else_is_left_alone(tmp_path, fresh):
    """output= may name a run or a folder with a model by mistake: neither is written into nor deleted."""
    (tmp_path / ".lock").touch()
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match="contains model but no evaluation: choose a new or empty folder with output="):
        continue_or_start(tmp_path, {"seed": 0}, fresh)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".lock", "model"]


@pytest.mark.parametrize("fresh", [False, True])
def test_a_dry_run_knows_what_a_start_would_refuse(evaluation, tmp_path, aime, fresh, capsys):
    problems = {"aime24": benchmarks.load_benchmark(aime / "aime24" / "test.parquet")}
    config = evaluation("model=m", "benchmarks=[a]", f"fresh={str(fresh).lower()}")
    other = evaluation("model=m", "benchmarks=[a]", "seed=7")
    (tmp_path / "model").mkdir()

    def found(output: Path, steps: int = 1) -> list[str]:
        target = targets.Target("m", tmp_path / "model", False, None, None, output)
        return output_errors(config, [target] * steps, problems)

    output = tmp_path / "out" / "step_2"
    assert found(output) == [] and not output.exists(), "a check makes nothing"
    identity = identity_of(other, targets.Target("m", tmp_path / "model", False, None, None, output), problems)
    with folders.lock(output, folder_kinds.EVALUATION):
        continue_or_start(output, identity, fresh=False)
    differs = f"{output} contains another evaluation: its seed is 7, but this command has 0: choose another "
    assert [text[: len(differs)] for text in found(output)] == ([] if fresh else [differs])
    show(config, [targets.Target("m", tmp_path / "model", False, None, None, output)], problems)
    wanted = f"fresh=true deletes the evaluation in {output}: evaluation.json"
    assert (wanted in capsys.readouterr().out) == fresh
    assert found(tmp_path) == [
        f"{tmp_path} contains data but no evaluation: choose a new or empty folder with output=..."
    ]
    assert found(tmp_path / "data" / "aime24" / "test.parquet")[0].endswith(
        "/test.parquet is not a folder: choose a new or empty folder with output=..."
    )
    (problem,) = found(tmp_path / "data" / "aime24" / "test.parquet" / "deeper")
    assert problem.endswith(
        "so " + str(tmp_path / "data/aime24/test.parquet/deeper") + " cannot be created: choose another "
        "folder with output=..."
    )
    assert found(Path("/proc/paec"))[0].startswith("/proc is not writable (")
    (tmp_path / "out" / "curve.png").touch()
    (problem,) = found(tmp_path / "out" / "step_4", steps=2)
    assert problem.startswith(f"{tmp_path / 'out' / 'curve.png'} exists and is not a curve of an evaluation")
    (tmp_path / "out" / "curve.json").write_text('{"run": "r", "steps": []}')
    assert found(tmp_path / "out" / "step_4", steps=2) == []
    (tmp_path / "out" / "curve.json").write_text('["mine"]')
    assert len(found(tmp_path / "out" / "step_4", steps=2)) == 1


def test_two_evaluations_do_not_share_a_folder(tmp_path):
    held = (tmp_path / "out", folder_kinds.EVALUATION)
    with folders.lock(*held), pytest.raises(UserError, match="in use by another evaluation: .*output=..."):
        folders.lock(*held)


def test_what_a_function_reads_is_part_of_the_identity(tmp_path):
    """A column that `--extra` added is what the answers are judged by; where a row stands in its file is not."""

    def of(scorers: dict[str, str], **extra) -> str:
        rows = [row(i, source="math") for i in range(2)]
        for one in rows:
            one["extra_info"] |= {"tol": np.array([0.1]), "source": "a.jsonl:1", **extra}
        write_parquet(rows, tmp_path / "b.parquet")
        return digests({"math": benchmarks.load_benchmark(tmp_path / "b.parquet", scorers)}, scorers)["math"]

    function = {"math": "my_pkg:score"}
    assert of(function) != of(function, tol=np.array([5.0])) and of(function) != of(function, split="train")
    assert of(function) == of(function, source="b.jsonl:7", template="none") != of({})
    assert of({}) == of({}, tol=np.array([5.0])) == of({"math": "exact_match"})
    known = [p.asked() for p in benchmarks.load_benchmark(tmp_path / "b.parquet")]
    before = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    assert of({}) == before, "an evaluation made by an earlier version is continued"
