"""An evaluation ends within ten seconds of SIGTERM, whatever it is doing, and leaves no process; of SIGKILL, too."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from pipeline_runs import REPOSITORY, descendants

from data_prep import tiny_model
from data_prep.contract import write_parquet

TEN = 10
"""Seconds from the signal to the end."""


def start(output: Path, *arguments: str) -> subprocess.Popen:
    """An evaluation that prints into `output`.log."""
    command = [sys.executable, "-m", "recipe.paec.evaluate", f"output={output}", *arguments]
    with open(output.with_suffix(".log"), "wb") as stream:
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=stream, stderr=stream, start_new_session=True)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def ended(process: subprocess.Popen, number: int) -> float:
    """Send a signal; seconds until the process and all below it are gone."""
    family = descendants(process.pid)
    began = time.monotonic()
    process.send_signal(number)
    process.wait(60)
    left = psutil.wait_procs(family, timeout=60)[1]
    assert all(member.status() == psutil.STATUS_ZOMBIE for member in left), left
    return time.monotonic() - began


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    """A benchmark, a training file to look for it in, and samples, graded within 2 s or longer than between two lines
    of progress."""
    folder = tmp_path_factory.mktemp("rows")

    def row(i: int, source: str, text: str) -> dict:
        return {
            "data_source": source,
            "prompt": [{"role": "user", "content": text}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": str(i)},
            "extra_info": {"split": "test", "index": i, "problem": text},
        }

    texts = [
        f"Anna has {i} apples and gives {j} of them to Ben. How many are left?" for i in range(40) for j in range(500)
    ]
    write_parquet([row(i, "aime24", text) for i, text in enumerate(texts[:200])], folder / "aime24" / "test.parquet")
    write_parquet([row(i, "dapo_math_17k", text) for i, text in enumerate(texts)], folder / "train.parquet")
    for name, answer in (("quick", "{i}{n}"), ("slow", r"\frac{{{i}\sqrt{{{n}}}}}{{\sqrt{{{i}{n}}}}}")):
        with open(folder / f"{name}.jsonl", "w", encoding="utf-8") as stream:
            for i in range(200):
                for n in range(2, 18):
                    response = f"\\boxed{{{answer.format(i=i + 1, n=n)}}}"
                    sample = {"benchmark": "aime24", "problem": f"aime24-{i}", "sample": n - 2, "response": response}
                    stream.write(json.dumps(sample) + "\n")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("stage", "samples"), [("start", "quick"), ("  graded ", "slow"), ("graded ", "quick")])
def test_sigterm_while_samples_are_scored(rows, tmp_path, stage, samples):
    """During the imports, in the middle of grading, and after it, in scoring and the search for contamination."""
    output = tmp_path / "out"
    process = start(
        output, f"samples={rows / samples}.jsonl", "benchmarks=[aime24]", f"data_root={rows}",
        f"trained_on=[{rows / 'train.parquet'}]",
    )  # fmt: skip
    log = output.with_suffix(".log")
    if stage == "start":
        time.sleep(1)
    else:
        wait_for(lambda: any(line.startswith(stage) for line in log.read_text().splitlines()), process, log)
    assert ended(process, signal.SIGTERM) < TEN
    assert process.returncode in (143, -signal.SIGTERM)
    assert not (output / "scores.json").exists()


@pytest.mark.pipeline
@pytest.mark.timeout(1800)
def test_the_end_of_a_generation(rows, tmp_path):
    """SIGTERM while Ray and the engine start and while they generate; then SIGKILL, unheard by Ray's agents."""
    tiny_model.build(tmp_path / "model")
    output = tmp_path / "out"
    arguments = (f"model={tmp_path / 'model'}", "benchmarks=[aime24]", f"data_root={rows}", "protocol=tiny")
    arguments += ("protocol.samples=64", "cluster.env.OMP_NUM_THREADS=1", "engine.max_num_seqs=4")
    journal, log = output / "journal.jsonl", output / "generation.log"

    def engine_starts() -> bool:
        return log.is_file() and b"EngineCore" in log.read_bytes()

    def generates() -> bool:
        return journal.is_file() and journal.read_bytes().count(b"\n") > before + 4

    seconds, before = {}, 0
    for name, number, met in (
        ("engine start", signal.SIGTERM, engine_starts),
        ("generation", signal.SIGTERM, generates),
        ("generation, killed", signal.SIGKILL, generates),
    ):
        process = start(output, *arguments)
        try:
            wait_for(met, process, output.with_suffix(".log"))
            seconds[name] = ended(process, number)
        finally:
            process.kill()
        assert process.returncode == (143 if number == signal.SIGTERM else -9)
        before = journal.read_bytes().count(b"\n") if journal.is_file() else 0
    assert max(seconds.values()) < TEN, seconds
    print(seconds, file=sys.stderr)
