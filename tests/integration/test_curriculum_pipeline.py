"""The curriculum for real: prompts scored by vLLM's samples, then training in stages; both killed and resumed."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest
from pipeline_runs import PROMPTS, REPOSITORY, SAMPLES, descendants, finish, records, wait_for

from data_prep import tiny as tiny_data
from data_prep.contract import validate_rows
from recipe.grading.pool import GraderPool
from recipe.paec.config.scored_files import ACCURACY, DIFFICULTY, SCORE
from recipe.paec.driver.curriculum_sampler import CurriculumSampler
from recipe.paec.scoring.difficulty import label_of

pytestmark = [pytest.mark.pipeline, pytest.mark.slow, pytest.mark.timeout(1800)]

ROWS, DRAWN, STEPS = 48, 4, 4
ARGUMENTS = ["curriculum=semantic_entropy", f"data.curriculum.samples={DRAWN}", "method=none", "run.name=staged"]
ARGUMENTS += [f"trainer.total_training_steps={STEPS}", "trainer.save_freq=2", f"trainer.test_freq={STEPS}"]
ARGUMENTS += ["trainer.val_before_train=false", "actor_rollout_ref.rollout.val_kwargs.n=1", "run.export=false"]


def launch(command: str, tiny: Path, root: Path) -> subprocess.Popen:
    options = f"--steps 240 --train {ROWS} --validation 16"
    env = {**os.environ, "PAEC_TINY_DIR": str(tiny), "PAEC_TINY_ARGS": options}
    arguments = [sys.executable, "-m", f"recipe.paec.{command}", *ARGUMENTS, f"run.root={root}"]
    return subprocess.Popen(
        arguments, cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def kill(process: subprocess.Popen) -> None:
    family = descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    psutil.wait_procs(family, timeout=60)


@pytest.fixture(scope="module")
def staged(tmp_path_factory) -> dict:
    """Both commands, each killed on its way and started again."""
    tiny, root = tmp_path_factory.mktemp("tiny"), tmp_path_factory.mktemp("runs")
    tiny_data.make(tiny, steps=240, train=ROWS, validation=16)
    scoring = launch("curriculum", tiny, root)
    wait_for(lambda: any(root.glob("curriculum/*/journal.jsonl")), scoring)
    (journal,) = root.glob("curriculum/*/journal.jsonl")
    wait_for(lambda: journal.stat().st_size > 0, scoring)
    kill(scoring)
    first = journal.read_text().count("\n")
    unfinished = (tiny / "data" / f"train.{SCORE}.parquet").exists()
    outputs = []
    for _ in range(2):
        again = launch("curriculum", tiny, root)
        outputs.append(finish(again))
        assert again.returncode == 0, outputs[-1]
    training = launch("train", tiny, root)
    wait_for(lambda: any(record["step"] == 3 for record in records(root / "staged")), training)
    kill(training)
    resumed = launch("train", tiny, root)
    output = finish(resumed)
    assert resumed.returncode == 0, output
    return {
        "first": first,
        "unfinished": unfinished,
        "outputs": outputs,
        "journal": [json.loads(line) for line in journal.read_text().splitlines()],
        "rows": validate_rows(tiny / "data" / f"train.{SCORE}.parquet").to_dict("records"),
        "plain": validate_rows(tiny / "data" / "train.parquet").to_dict("records"),
        "training": output,
        "directory": root / "staged",
    }


def test_killed_scoring_resumes(staged):
    drawn = Counter((line["problem"], line["sample"]) for line in staged["journal"])
    assert drawn == Counter((str(row), sample) for row in range(ROWS) for sample in range(DRAWN))
    assert staged["first"] > 0 and not staged["unfinished"]
    assert f"of {ROWS * DRAWN} responses" in staged["outputs"][0]
    assert "is already scored" in staged["outputs"][1]


def test_scores_are_those_of_the_samples(staged):
    """Clusters of equivalent answers, P(C) proportional to the summed probability of the responses."""
    samples: dict[int, list[dict]] = {row: [] for row in range(ROWS)}
    for line in sorted(staged["journal"], key=lambda line: line["sample"]):
        samples[int(line["problem"])].append(line)
    with GraderPool(2) as pool:
        for row, drawn in samples.items():
            truth = staged["rows"][row]["reward_model"]["ground_truth"]
            answers = [pool.judge(line["benchmark"], line["response"], truth).answer for line in drawn]
            mass: dict[object, float] = {}
            for place, (group, line) in enumerate(zip(pool.group(drawn[0]["benchmark"], answers), drawn, strict=True)):
                cluster = ("none", place) if group is None else group
                mass[cluster] = mass.get(cluster, 0.0) + math.exp(line["log_prob"])
            shares = [value / sum(mass.values()) for value in mass.values()]
            expected = -sum(p * math.log(p) for p in shares)
            assert staged["rows"][row]["extra_info"][SCORE] == pytest.approx(expected, abs=1e-9), row
    assert all(line["log_prob"] < 0 for line in staged["journal"])


def test_the_file_is_the_training_file_with_scores(staged):
    scored = [
        one | {"extra_info": {k: v for k, v in one["extra_info"].items() if k not in (SCORE, ACCURACY, DIFFICULTY)}}
        for one in staged["rows"]
    ]
    for one in staged["rows"]:
        assert one["extra_info"][DIFFICULTY] == label_of(one["extra_info"][ACCURACY])
    assert json.dumps(scored, default=list) == json.dumps(staged["plain"], default=list)


def test_easy_prompts_first(staged):
    """Steps 1-2 have rows of the easier half, 3-4 of the harder one; exactly the planned ones, also after the kill."""
    assert "resuming staged after step 2" in staged["training"]
    scores = [one["extra_info"][SCORE] for one in staged["rows"]]
    text = [one["prompt"][0]["content"] for one in staged["rows"]]
    halves = CurriculumSampler(scores, 2, STEPS, PROMPTS, seed=1).stages
    order = iter(CurriculumSampler(scores, 2, STEPS, PROMPTS, seed=1))
    for step in range(1, STEPS + 1):
        lines = (staged["directory"] / "rollouts" / f"{step}.jsonl").read_text().splitlines()
        asked = Counter(text.index(json.loads(line)["input"].split("\n")[1]) for line in lines)
        assert set(asked) <= set(halves[0] if step <= 2 else halves[1])
        assert asked == Counter({next(order): SAMPLES for _ in range(PROMPTS)})
    assert max(scores[row] for row in halves[0]) <= min(scores[row] for row in halves[1])
