"""Evaluation without an engine: benchmarks, journal, targets, configuration, and the scoring of a sample file."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import hydra
import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from data_prep.contract import write_parquet
from recipe.grading.pool import GraderPool
from recipe.paec.common import folder_kinds, folders, versions
from recipe.paec.common.errors import UserError
from recipe.paec.common.repository import CONFIGS, REPOSITORY
from recipe.paec.compare import command as compare_command
from recipe.paec.evaluate import benchmarks, results, samples, settings, targets
from recipe.paec.evaluate import generation as evaluate_generation
from recipe.paec.evaluate.benchmarks import Problem
from recipe.paec.evaluate.command import arguments_of, show
from recipe.paec.evaluate.folder import continue_or_start, digests, identity_of, label_of, output_errors
from recipe.paec.evaluate.generation_process import Job, max_new_tokens, missing
from recipe.paec.evaluate.grading import journaled
from recipe.paec.evaluate.journal import journal_keys, read_journal, repair_journal


def row(index: int, truth: str = "204", source: str = "aime24", **extra) -> dict:
    return {
        "data_source": source,
        "prompt": [{"role": "user", "content": f"Problem {index}?\n\nBox it."}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra_info": {"split": "test", "index": index, "id": f"p{index}", "problem": f"Problem {index}?", **extra},
    }


@pytest.fixture
def aime(tmp_path) -> Path:
    write_parquet([row(i, str(100 + i)) for i in range(3)], tmp_path / "data" / "aime24" / "test.parquet")
    return tmp_path / "data"


@pytest.fixture
def evaluation():
    """evaluation("seed=1", ...) -> the resolved configuration of that command line."""

    def make(*overrides: str):
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = hydra.compose("evaluate", overrides=arguments_of(list(overrides)), return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        with open_dict(config):
            del config["hydra"]
        return settings.resolved(config)

    return make


# ---- benchmarks ------------------------------------------------------------------------------------------------------


def test_benchmark_by_hand(aime):
    problems = benchmarks.load_benchmark(aime / "aime24" / "test.parquet")
    assert problems[1] == Problem(
        benchmark="aime24",
        id="p1",
        prompt=[{"role": "user", "content": "Problem 1?\n\nBox it."}],
        ground_truth="101",
        text="Problem 1?",
    )


def test_benchmark_without_ids_or_text(tmp_path):
    bare = [row(i) for i in range(2)]
    for one in bare:
        del one["extra_info"]["id"], one["extra_info"]["problem"]
    write_parquet(bare, tmp_path / "b.parquet")
    assert [(p.id, p.text) for p in benchmarks.load_benchmark(tmp_path / "b.parquet")] == [
        ("aime24-0", "Problem 0?\n\nBox it."),
        ("aime24-1", "Problem 1?\n\nBox it."),
    ]


@pytest.mark.parametrize(
    "rows, words",
    [
        ([row(0), row(1, source="gsm8k")], ["mixes the data sources aime24, gsm8k"]),
        ([row(0), row(1, id="p0")], ["extra_info.id", "'p0' occurs more than once"]),
        (
            [row(0), row(1, truth="\\boxed{3}")],
            ["row 1, field reward_model.ground_truth", "give the content of the box only"],
        ),
    ],
)
def test_bad_benchmarks(tmp_path, rows, words):
    write_parquet(rows, tmp_path / "b.parquet")
    with pytest.raises(UserError) as raised:
        benchmarks.load_benchmark(tmp_path / "b.parquet")
    assert all(word in str(raised.value) for word in words)


def test_benchmarks_by_name_and_path(aime, evaluation):
    path = aime / "aime24" / "test.parquet"
    by_name = evaluation("model=m", "benchmarks=[aime24]", f"data_root={aime}")
    assert benchmarks.find_benchmarks(by_name) == {"aime24": path}
    both = evaluation("model=m", f"benchmarks=[aime24,{path}]", f"data_root={aime}")
    with pytest.raises(UserError, match="is aime24, and so is another file:"):
        benchmarks.load_problems(benchmarks.find_benchmarks(both))
    absent = evaluation("model=m", "benchmarks=[math500]", f"data_root={aime}")
    with pytest.raises(UserError, match="python -m data_prep math500 --output"):
        benchmarks.find_benchmarks(absent)


def test_a_benchmark_nobody_can_grade(tmp_path):
    write_parquet([row(0, source="riddles")], tmp_path / "b.parquet")
    with pytest.raises(UserError, match="no scorer for data_source 'riddles'"):
        benchmarks.load_problems({"b": tmp_path / "b.parquet"})


# ---- journal ---------------------------------------------------------------------------------------------------------


def line(problem: str, sample: int) -> dict:
    response = {"response": "\\boxed{1}\u2028", "finish_reason": "stop", "tokens": 5, "seed": 1}
    return {"benchmark": "aime24", "problem": problem, "sample": sample, **response}


def test_journal_survives_a_kill(tmp_path, aime):
    path = tmp_path / "journal.jsonl"
    whole = [line("p0", 1), line("p2", 0)]
    path.write_text("".join(json.dumps(record) + "\n" for record in whole) + '{"benchmark": "aime24", "pro')
    assert list(read_journal(path)) == [("aime24", "p0", 1), ("aime24", "p2", 0)]
    repair_journal(path)
    with open(path, "a") as stream:
        stream.write(json.dumps(line("p1", 1)) + "\n")
    problems = benchmarks.load_benchmark(aime / "aime24" / "test.parquet")
    left = [(problem.id, sample) for problem, sample in missing(problems, {"aime24": 2}, path)]
    assert left == [("p0", 0), ("p1", 0), ("p2", 1)]


@pytest.mark.parametrize(
    "bad", [b"{half", b"\0" * 9, b"\xff{}", b"[1]", b'{"benchmark": "aime24", "problem": "p0"}', b""]
)
def test_a_damaged_line_of_a_journal_is_named(tmp_path, bad):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(
        json.dumps(line("p0", 0)).encode() + b"\n" + bad + b"\n" + json.dumps(line("p1", 0)).encode() + b"\n"
    )
    for read in (read_journal, journal_keys):
        with pytest.raises(UserError, match=r"journal.jsonl, line 2: incomplete response .*: delete this line, and"):
            read(path)
    repair_journal(path)
    assert path.read_bytes().count(b"\n") == 3  # only a half-written end is cut off


def test_no_journal_is_an_empty_one(tmp_path, aime):
    repair_journal(tmp_path / "none")
    problems = benchmarks.load_benchmark(aime / "aime24" / "test.parquet")
    assert len(missing(problems, {"aime24": 4}, tmp_path / "none")) == 12


def test_room_for_a_response():
    assert max_new_tokens(100, 8192, 4096) == 3996
    assert max_new_tokens(100, 3072, 4096) == 3072


def test_job_travels(tmp_path, aime):
    job = Job("m", None, "j", [], {"aime24": 2}, 0, {"top_p": 1.0}, 64, {}, 1, 1, {}, {"A": "1"})
    job.write(tmp_path / "job.json")
    assert Job.read(tmp_path / "job.json") == job


def test_watch_counts_and_notices_silence(tmp_path, capsys):
    journal = tmp_path / "journal.jsonl"
    journal.write_text("{}\n" * 3)
    watch = evaluate_generation.Watch(journal, 5, timeout=0.2)
    for _ in range(2):
        with open(journal, "a") as stream:
            stream.write("{}\n")
        watch.tick()
    assert "  5/5 responses" in capsys.readouterr().out
    time.sleep(0.15)
    journal.touch()  # what the engines do once they are up
    watch.tick()
    time.sleep(0.15)
    watch.tick()  # 0.3 s after the last response, 0.15 s after the last sign
    time.sleep(0.1)
    with pytest.raises(UserError, match="no response for"):
        watch.tick()


def test_the_time_left_is_that_of_the_responses_alone(tmp_path, capsys, monkeypatch):
    """400 s until the engines are up, 40 s until the first response, then one per second: 30 more take 30 s."""
    now = [0.0]
    monkeypatch.setattr(evaluate_generation.time, "monotonic", lambda: now[0])
    journal = tmp_path / "journal.jsonl"
    journal.write_text("{}\n" * 50)  # of an earlier start
    watch = evaluate_generation.Watch(journal, 111, timeout=1000)

    def at(seconds: float, count: int) -> str:
        now[0] = seconds
        with open(journal, "a") as stream:
            stream.write("{}\n" * (count - journal.read_text().count("\n")))
        watch.tick()
        return capsys.readouterr().out

    now[0] = 400
    journal.touch()
    watch.tick()
    assert capsys.readouterr().out == ""
    assert at(440, 51) == ""
    assert at(449, 60) == ""
    assert at(450, 61) == "  61/111 responses, 1.0 per second, 1 min left\n"
    assert at(455, 66) == ""
    assert at(500, 111) == "  111/111 responses, 1.0 per second, 0 min left\n"


def test_the_error_of_an_earlier_start_is_not_repeated(tmp_path):
    log = tmp_path / "generation.log"
    log.write_text("torch.OutOfMemoryError: CUDA out of memory\n")
    assert evaluate_generation.last_error(log, 0) == "torch.OutOfMemoryError: CUDA out of memory"
    before = log.stat().st_size
    log.write_text(log.read_text() + "loading é\n")
    assert evaluate_generation.last_error(log, before) == "no error message in the log (killed, or out of memory?)"


# ---- configuration ---------------------------------------------------------------------------------------------------

PROTOCOLS = {
    "luffy": (0.6, 1.0, 8192, {"aime24": 32, "amc23": 32, "math500": 8}),
    "dapo": (1.0, 0.7, 8192, {"aime24": 32, "math500": 32}),
    "paec": (0.6, 1.0, 4096, {"aime24": 32, "amc23": 16, "math500": 8}),
    "tiny": (1.0, 1.0, 32, {"reasoning_gym/countdown": 8}),
}


@pytest.mark.parametrize("name", [path.stem for path in (CONFIGS / "protocol").glob("*.yaml")])
@pytest.mark.parametrize("cluster", ["cpu", "gpu_1x1", "gpu_1x8"])
def test_protocols(evaluation, name, cluster):
    config = evaluation("model=m", "benchmarks=[b]", f"protocol={name}", f"cluster={cluster}")
    temperature, top_p, max_tokens, counts = PROTOCOLS[name]
    protocol = config.protocol
    assert (protocol.name, protocol.temperature, protocol.top_p) == (name, temperature, top_p)
    assert (protocol.top_k, protocol.max_tokens) == (-1, max_tokens)
    assert settings.samples_per_problem(config, dict.fromkeys(counts, [])) == counts
    assert config.engine.dtype == ("float32" if cluster == "cpu" else "bfloat16")
    assert config.engine.enforce_eager is (cluster == "cpu")
    assert config.cluster.platform == ("cpu" if cluster == "cpu" else "cuda")


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["model=m"], ["give model=... and benchmarks=[...]"]),
        (["model=m", "benchmarks=[a]", "samples=f"], ["give only one of them"]),
        (["model=m", "benchmarks=[a]", "protocol.samples=0"], ["protocol.samples=0"]),
        (["model=m", "benchmarks=[a]", "protocol.samples_of.aime24=-1"], ["protocol.samples_of.aime24=-1"]),
        (["model=m", "benchmarks=[a]", "protocol.top_k=0"], ["protocol.top_k=0: must be -1"]),
        (["model=m", "benchmarks=[a]", "grader.workers=0"], ["grader.workers=0: must be >= 1"]),
        (["model=m", "benchmarks=[a]", "context_length=0"], ["context_length=0: must be >= 1"]),
        (["model=m", "benchmarks=[a]", "stall_timeout=0"], ["stall_timeout=0.0: must be > 0"]),
        (["model=m", "benchmarks=[a]", "protocol.top_p=1.5"], ["protocol.top_p=1.5"]),
        (["model=m", "benchmarks=[a]", "protocol.temperature=-1"], ["protocol.temperature=-1"]),
        (["model=m", "benchmarks=[a]", "protocol.temperature=hot"], ["protocol.temperature", "hot"]),
        (["model=m", "benchmarks=[a]", "seed=x"], ["seed", "x"]),
        (["model=m", "benchmarks=[a]", "protocol.max_tokens=0"], ["protocol.max_tokens=0"]),
    ],
)
def test_bad_values_are_named(evaluation, overrides, words):
    with pytest.raises(UserError) as raised:
        evaluation(*overrides)
    assert all(word in str(raised.value) for word in words), raised.value


def test_samples_of_a_benchmark(evaluation):
    """Of any benchmark that is evaluated, whether the protocol names it or not; of no other."""
    config = evaluation("model=m", "benchmarks=[a]", "protocol=dapo", "protocol.samples_of.math500=4")
    assert settings.samples_per_problem(config, {"math500": [], "aime24": []}) == {"math500": 4, "aime24": 32}
    settings.check_samples(config, {"math500": []})
    with pytest.raises(UserError, match="protocol.samples_of.math500: must name one of the benchmarks aime24"):
        settings.check_samples(config, {"aime24": []})


def test_greedy_means_one_sample(evaluation):
    """LUFFY draws 32 on AIME, whatever protocol.samples is: the error names the key that counts."""
    greedy = ("model=m", "benchmarks=[a]", "protocol.temperature=0")
    with pytest.raises(UserError, match="also set protocol.samples_of.aime24=1 protocol.samples=1$"):
        settings.check_samples(evaluation(*greedy), {"aime24": [], "math500": []})
    one = evaluation(*greedy, "protocol.samples=1")
    settings.check_samples(one, {"math500": []})
    with pytest.raises(UserError, match="every time: also set protocol.samples_of.aime24=1$"):
        settings.check_samples(one, {"aime24": [], "math500": []})


def test_labels_tell_evaluations_apart(evaluation):
    plain = evaluation("model=m", "benchmarks=[a]")
    assert label_of(plain, ["aime24", "math500"]) == "luffy-aime24,math500"
    other = evaluation("model=m", "benchmarks=[a]", "protocol.top_p=0.9", "seed=2")
    assert label_of(other, ["reasoning_gym/countdown"]) == "luffy,top_p=0.9,seed=2-reasoning_gym_countdown"


def test_paths_may_hold_what_hydra_reads(evaluation):
    """A run's name carries its overrides, so paths have "=" and "," in them."""
    config = evaluation("model=runs/a,rho=0.7", "benchmarks=[a]", "output=it's,b=c", "data_root='quoted=1'")
    assert (config.model.path, config.output, config.data_root) == ("runs/a,rho=0.7", "it's,b=c", "quoted=1")
    assert evaluation("samples=x=y.jsonl", "output=null").samples == "x=y.jsonl"
    config = evaluation("model=m", "benchmarks=[aime24, a b=c/it's.parquet]", "trained_on=x=1/t.parquet")
    assert config.benchmarks == ["aime24", "a b=c/it's.parquet"] and config.trained_on == ["x=1/t.parquet"]
    assert evaluation("model=m", "benchmarks=['a,b.parquet','c']").benchmarks == ["a,b.parquet", "c"]
    assert evaluation("samples=f", "benchmarks=[]", "trained_on=null").benchmarks == []


def command(*overrides: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "recipe.paec.evaluate", *overrides], capture_output=True, text=True, cwd=REPOSITORY
    )


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


# ---- targets ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def run_directory(tmp_path, tiny_files) -> Path:
    """A run with complete checkpoints at 2 and 4 and the remains of one at 6."""
    run = tmp_path / "outputs" / "some-run"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(
        f"model: {{path: {tiny_files / 'model'}, chat_template: null}}\ndata: {{train_files: [/gone.parquet]}}\n"
    )
    for step in (2, 4, 6):
        (run / "checkpoints" / f"global_step_{step}" / "actor").mkdir(parents=True)
        (run / "checkpoints" / f"global_step_{step}" / "actor" / "model.pt").write_bytes(bytes([step]))
    for step in (2, 4):
        targets.checkpoints.commit(run / "checkpoints", step, {}, None)
    return run


def test_targets_of_a_run(evaluation, run_directory, tiny_files):
    config = evaluation(f"model={run_directory}", "benchmarks=[a]")
    found = targets.find_targets(config, "luffy-a")
    assert [(t.step, t.is_checkpoint) for t in found] == [(0, False), (2, True), (4, True)]
    assert found[0].folder == tiny_files / "model"
    assert [t.output for t in found] == [run_directory / "evaluation" / "luffy-a" / f"step_{s}" for s in (0, 2, 4)]
    some = evaluation(f"model={run_directory}", "benchmarks=[a]", "steps=[4]", "output=/tmp/somewhere")
    (only,) = targets.find_targets(some, "luffy-a")
    assert only.step == 4 and only.output == Path("/tmp/somewhere/step_4")
    wrong = evaluation(f"model={run_directory}", "benchmarks=[a]", "steps=[3,4]")
    with pytest.raises(UserError, match=r"steps=\[3\].* has the steps 0, 2, 4 "):
        targets.find_targets(wrong, "luffy-a")


def test_a_run_is_evaluated_with_its_own_chat_template(evaluation, run_directory):
    """Also its step 0, whose tokenizer knows nothing of it; a template on the command line comes first."""
    plain = evaluation(f"model={run_directory}", "benchmarks=[a]")
    start = targets.find_targets(plain, "luffy-a")[0]
    assert settings.as_trained(plain, start).chat_template is None
    file = run_directory / "config.yaml"
    file.write_text(file.read_text().replace("chat_template: null", "chat_template: '{{ messages }}'"))
    assert settings.as_trained(plain, start).chat_template == "{{ messages }}"
    given = evaluation(f"model={run_directory}", "benchmarks=[a]", "chat_template=mine")
    assert settings.as_trained(given, start).chat_template == "mine"


def test_target_of_a_checkpoint(evaluation, run_directory):
    checkpoint = run_directory / "checkpoints" / "global_step_4"
    (target,) = targets.find_targets(evaluation(f"model={checkpoint}", "benchmarks=[a]"), "luffy-a")
    assert (target.step, target.run, target.is_checkpoint) == (4, run_directory, True)
    remains = run_directory / "checkpoints" / "global_step_6"
    broken = run_directory / "checkpoints" / "global_step_2"
    (broken / "paec_state.json").write_text("{")
    with pytest.raises(UserError, match="is damaged: paec_state.json cannot be read"):
        targets.find_targets(evaluation(f"model={broken}", "benchmarks=[a]"), "luffy-a")
    with pytest.raises(UserError, match=r"steps=\[4\]: model=.* is not the folder of a run: leave steps= out"):
        targets.find_targets(evaluation(f"model={checkpoint}", "benchmarks=[a]", "steps=[4]"), "luffy-a")
    with pytest.raises(UserError, match="its save was interrupted"):
        targets.find_targets(evaluation(f"model={remains}", "benchmarks=[a]"), "luffy-a")


def test_target_of_a_folder(evaluation, tiny_files, tmp_path):
    (target,) = targets.find_targets(evaluation(f"model={tiny_files / 'model'}", "benchmarks=[a]"), "luffy-a")
    assert (target.step, target.run, target.is_checkpoint) == (None, None, False)
    assert target.output == Path("outputs/evaluation/model-luffy-a")
    assert targets.context_of(evaluation("model=m", "benchmarks=[a]"), target.folder) == 512
    assert targets.context_of(evaluation("model=m", "benchmarks=[a]", "context_length=64"), target.folder) == 64
    with pytest.raises(UserError, match="hf download nobody/nothing"):
        targets.find_targets(evaluation("model=nobody/nothing", "benchmarks=[a]"), "luffy-a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no config.json"):
        targets.find_targets(evaluation(f"model={tmp_path / 'empty'}", "benchmarks=[a]"), "luffy-a")


@pytest.mark.parametrize("position", [0, 3 * 2**19, 3 * 2**20 - 1])
def test_fingerprint_sees_other_weights(tmp_path, position):
    """First and last MiB of a file are read; training changes weights everywhere, a copied folder nowhere."""
    weights = bytearray(3 * 2**20)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.safetensors").write_bytes(weights)
    assert targets.fingerprint(tmp_path / "a") == targets.fingerprint(tmp_path / "b")
    weights[position] = 1
    (tmp_path / "b" / "model.safetensors").write_bytes(weights)
    same = targets.fingerprint(tmp_path / "a") == targets.fingerprint(tmp_path / "b")
    assert same == (position == 3 * 2**19)  # the middle MiB is not read


@pytest.mark.parametrize(
    "name", ["config.json", "chat_template.jinja", "generation_config.json", "merges.txt", "actor/huggingface/x.jinja"]
)
def test_fingerprint_sees_all_that_responses_depend_on(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    before = targets.fingerprint(tmp_path)
    (tmp_path / name).write_text("a")
    one = targets.fingerprint(tmp_path)
    (tmp_path / name).write_text("b")
    assert len({before, one, targets.fingerprint(tmp_path)}) == 3


def test_revision_of_a_hub_model(tmp_path):
    assert targets.revision(tmp_path / "models--a--b" / "snapshots" / "0f1e") == "0f1e"
    assert targets.revision(tmp_path / "model") is None


def test_another_evaluation_is_refused(tmp_path):
    continue_or_start(tmp_path, {"model": "a", "seed": 0}, fresh=False)
    (tmp_path / "journal.jsonl").write_text("{}\n")
    continue_or_start(tmp_path, {"model": "a", "seed": 0}, fresh=False)
    with pytest.raises(UserError, match="its seed is 0, here 1.*fresh=true"):
        continue_or_start(tmp_path, {"model": "a", "seed": 1}, fresh=False)
    with pytest.raises(UserError, match="its model is 'a', here None"):
        continue_or_start(tmp_path, {"samples": "f"}, fresh=False)
    assert (tmp_path / "journal.jsonl").is_file()
    continue_or_start(tmp_path, {"model": "a", "seed": 1}, fresh=True)
    assert not (tmp_path / "journal.jsonl").exists()
    assert json.loads((tmp_path / "evaluation.json").read_text()) == {"model": "a", "seed": 1}


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
    differs = f"{output} contains another evaluation: its seed is 7, here 0: choose another "
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


def test_a_kill_after_the_last_response_leaves_no_weights(evaluation, tmp_path, aime):
    problems = {"aime24": benchmarks.load_benchmark(aime / "aime24" / "test.parquet")}
    write_lines(tmp_path / "journal.jsonl", [line(f"p{i}", 0) for i in range(3)])
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").touch()
    (tmp_path / "job.json").touch()
    config = evaluation("model=m", "benchmarks=[a]", "protocol=tiny", "protocol.samples=1")
    target = targets.Target("c", tmp_path / "gone", True, None, 4, tmp_path)
    evaluate_generation.generate(config, target, problems)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["data", "journal.jsonl"]


def test_what_decides_how_a_model_is_asked(evaluation, tiny_files):
    """Digits are a token each, so the second prompt is six tokens longer."""
    problems = [Problem("aime24", f"p{n}", [{"role": "user", "content": "1" * n}], "1", "") for n in (3, 9)]
    config = evaluation("model=m", "benchmarks=[a]", "context_length=40", "protocol.max_tokens=32")
    found = evaluate_generation.check_prompts(config, tiny_files / "model", problems)
    shorter = evaluate_generation.check_prompts(config, tiny_files / "model", problems[:1])
    assert found["longest_prompt"] == shorter["longest_prompt"] + 6
    assert found["least_room"] == min(32, 40 - found["longest_prompt"])
    assert found["context_length"] == 40 and found["chat_template"] == shorter["chat_template"]
    other = evaluation("model=m", "benchmarks=[a]", "context_length=40", "chat_template={{ messages[0]['content'] }}")
    assert (
        evaluate_generation.check_prompts(other, tiny_files / "model", problems)["chat_template"]
        != found["chat_template"]
    )


def test_prompt_longer_than_the_context(evaluation, tiny_files):
    config = evaluation("model=m", "benchmarks=[a]", "context_length=20")
    long = Problem("aime24", "p7", [{"role": "user", "content": "x" * 40}], "1", "")
    with pytest.raises(UserError, match="problem p7: its prompt has .* the model's context is 20"):
        evaluate_generation.check_prompts(config, tiny_files / "model", [long])


# ---- a sample file ---------------------------------------------------------------------------------------------------


def write_lines(path: Path, records: list) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records), encoding="utf-8")
    return path


def test_sample_layouts(tmp_path, aime):
    problems = {"aime24": benchmarks.load_benchmark(aime / "aime24" / "test.parquet")}
    ours = [{**line("p1", 1), "finish_reason": "length", "seed": 9}, line("p1", 0)]
    dumps = [{"input": "Problem 0?", "output": output, "gts": "ignored", "score": 1.0} for output in "op"]
    many = {"question": "Problem 2?\n\nBox it.", "responses": ["r1", "r2"], "answer": "also ignored"}
    found = samples.read_samples(write_lines(tmp_path / "s.jsonl", [*ours, *dumps, many]), problems, "aime24")
    short = [(s["problem"], s["sample"], s["response"], s["ground_truth"], s["finish_reason"]) for s in found]
    assert short == [
        ("p1", 0, "\\boxed{1}\u2028", "101", "stop"),  # by its number, not by its place in the file
        ("p1", 1, "\\boxed{1}\u2028", "101", "length"),
        ("p0", 0, "o", "100", None),
        ("p0", 1, "p", "100", None),
        ("p2", 0, "r1", "102", None),
        ("p2", 1, "r2", "102", None),
    ]


def test_samples_with_their_own_references(tmp_path):
    lines = [{"prompt": "1+1?", "gold": 2, "generations": ["2"]}, {"prompt": "1+1?", "gold": 2, "generations": ["3"]}]
    one, two = samples.read_samples(write_lines(tmp_path / "s.jsonl", lines), {}, "math")
    assert one["problem"] == two["problem"] and (one["sample"], two["sample"]) == (0, 1)
    assert one["ground_truth"] == "2" and one["prompt"] == "1+1?"


@pytest.mark.parametrize(
    "bad, words",
    [
        ("{not json", ["line 2", "not JSON"]),
        ("[1]", ["line 2", "must be a JSON object, not list"]),
        ({"prompt": "q", "gold": "1", "output": 5}, ["line 2", "field response", "must be a string, not int"]),
        ({"prompt": "q", "output": "x"}, ["line 2", "field ground_truth"]),
        ({"prompt": "q", "gold": "1"}, ["line 2", "field response"]),
        ({"prompt": "q", "gold": "1", "outputs": []}, ["line 2", "field response: is missing"]),
        ({"gold": "1", "output": "x"}, ["line 2", "field problem: is missing", "question, prompt, input"]),
        ({"prompt": "q", "gold": "2", "output": "x"}, ["line 2", "'2', but an earlier line gives this problem '1'"]),
        ({"prompt": "r", "gts": ["1"], "output": "x"}, ["line 2", "must be a string or a number, not ['1']"]),
        ('{"prompt": "r", "gold": NaN, "output": "x"}', ["line 2", "must be a string or a number, not nan"]),
        (
            {"prompt": "r", "gold": "\\boxed{1}", "output": "x"},
            ["line 2", "field ground_truth", "give the content of the box only"],
        ),
        ({"prompt": "q", "gold": "1", "output": "x", "tokens": 1.5}, ["line 2", "field tokens: must be an integer"]),
        ({"prompt": "q", "gold": "1", "output": "x", "data_source": "riddles"}, ["line 2", "no scorer for"]),
        (
            {**line("q", 0), "sample": "first", "gold": "1"} | {"benchmark": "math"},
            ["line 2", "field sample: must be an integer >= 0, not 'first'"],
        ),
        ("[" * 100_000, ["line 2", "not JSON"]),
        ({"prompt": "r", "gold": "1", "outputs": ["x", "y"]}, ["1 of 2 samples, missing 1"]),
    ],
)
def test_bad_sample_lines(tmp_path, bad, words):
    good = {"prompt": "q", "gold": "1", "output": "x"}
    with pytest.raises(UserError) as raised:
        samples.read_samples(write_lines(tmp_path / "s.jsonl", [good, bad]), {}, "math")
    assert all(word in str(raised.value) for word in words), raised.value


def test_sample_files_of_other_systems(tmp_path):
    """A byte order mark, CRLF and empty lines are read; another encoding is named."""
    path, text = tmp_path / "s.jsonl", json.dumps({"prompt": "é", "gold": "1", "output": "x"}, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + f"{text}\r\n\r\n  \r\n{text}\r\n".encode())
    assert [(s["prompt"], s["sample"]) for s in samples.read_samples(path, {}, "math")] == [("é", 0), ("é", 1)]
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="line 1: is not UTF-8 .*: convert the file"):
        samples.read_samples(path, {}, "math")


def test_samples_that_are_counted_twice_or_not_at_all(tmp_path, aime):
    problems = {"aime24": benchmarks.load_benchmark(aime / "aime24" / "test.parquet")}
    twice = write_lines(tmp_path / "s.jsonl", [line(problem, 0) for problem in ("p0", "p2", "p0", "p1")])
    with pytest.raises(UserError, match="line 3: benchmark aime24, problem p0, sample 0 occurs twice"):
        samples.read_samples(twice, problems, None)
    some = write_lines(tmp_path / "s.jsonl", [line("p1", 0)])
    with pytest.raises(UserError, match=r"no response to 2 of the 3 problems of aime24 \(p0, p2\): add them"):
        samples.read_samples(some, problems, None)


def test_problems_of_samples_without_a_benchmark():
    one = {"benchmark": "math", "problem": "b", "sample": 0, "prompt": "q", "ground_truth": "1"}
    found = benchmarks.problems_in([one, {**one, "sample": 1}, {**one, "problem": "a", "prompt": "r"}])
    turns = [[{"role": "user", "content": text}] for text in "rq"]
    assert found == {"math": [Problem("math", "a", turns[0], "1", "r"), Problem("math", "b", turns[1], "1", "q")]}
    other = benchmarks.problems_in([{**one, "ground_truth": "2"}])
    assert digests({"math": found["math"][1:]})["math"] != digests(other)["math"]


def test_sample_of_an_unknown_problem(tmp_path, aime):
    problems = {"aime24": benchmarks.load_benchmark(aime / "aime24" / "test.parquet")}
    stray = write_lines(tmp_path / "s.jsonl", [{**line("p9", 0), "ground_truth": "1"}])
    with pytest.raises(UserError, match="line 1, field problem: 'p9' is not in the benchmark aime24"):
        samples.read_samples(stray, problems, "aime24")
    nameless = write_lines(tmp_path / "n.jsonl", [{"prompt": "q", "gold": "1", "output": "x"}])
    with pytest.raises(UserError, match="field benchmark: is missing:"):
        samples.read_samples(nameless, {}, None)


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

    write_lines(tmp_path / "s.jsonl", [*lines[:-1], {**lines[-1], "response": "changed"}])
    again = command(f"samples={file}", "benchmarks=[aime24]", f"data_root={aime}", f"output={output}")
    assert again.returncode == 2 and "contains another evaluation: its samples is" in again.stderr
    write_lines(tmp_path / "s.jsonl", lines[:-1])
    partial = command(f"samples={file}", "benchmarks=[aime24]", f"data_root={aime}", f"output={tmp_path / 'o2'}")
    assert partial.returncode == 2 and "p2" in partial.stderr and "3 of 4 samples" in partial.stderr
    assert "graded" not in partial.stdout, "found out before anything is graded"


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
    assert "differ in the prompts or references of aime24" in capsys.readouterr().err
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


def test_contamination_is_shown_with_the_scores(tmp_path, aime):
    """A training file with one benchmark problem in it: named in scores.json and in the table's note."""
    lines = [{"benchmark": "aime24", "problem": f"p{i}", "sample": 0, "response": "\\boxed{100}"} for i in range(3)]
    copied = "Let $a$, $b$ and $c$ be distinct primes with $abc = 2431$. Find the remainder of $a+b+c$ modulo 9."
    rows = [row(0, "100", problem=copied), row(1, "101"), row(2, "102")]
    write_parquet(rows, aime / "aime24" / "test.parquet")
    train = [row(5, "5", source="dapo_math_17k", problem=f"Solve this: {copied}")]
    write_parquet(train, tmp_path / "train.parquet")
    file, output = write_lines(tmp_path / "s.jsonl", lines), tmp_path / "out"
    done = command(
        f"samples={file}",
        "benchmarks=[aime24]",
        f"data_root={aime}",
        f"output={output}",
        f"trained_on=[{tmp_path / 'train.parquet'}]",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((output / "scores.json").read_text())["contamination"]
    assert found["trained_on"] == [str(tmp_path / "train.parquet")]
    assert found["benchmarks"]["aime24"]["ids"] == ["p0"]
    assert found["benchmarks"]["aime24"]["avg_without"]["value"] == 0.0  # only p0 is answered right
    assert "AIME24: 1 of 3; avg@n without them 0.0 [0.0, 0.0]" in done.stdout


def test_training_data_is_read_before_anything_expensive(tmp_path, aime):
    (tmp_path / "t.parquet").write_text("none")
    lines = [{"benchmark": "aime24", "problem": f"p{i}", "sample": 0, "response": "\\boxed{100}"} for i in range(3)]
    given = [f"samples={write_lines(tmp_path / 's.jsonl', lines)}", "benchmarks=[aime24]", f"data_root={aime}"]
    for name, words in {"t.parquet": "is not a readable parquet file", "gone.parquet": "does not exist;"}.items():
        done = command(*given, f"output={tmp_path / 'out'}", f"trained_on=[{tmp_path / name}]")
        assert done.returncode == 2 and f"error: trained_on: {tmp_path / name}: {words}" in done.stderr
        assert not (tmp_path / "out").exists()


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


def test_samples_are_written_whole(tmp_path):
    results.write_samples(tmp_path / "s.jsonl", [{"response": "é\u2028"}, {"response": "b"}])
    assert (tmp_path / "s.jsonl").read_bytes() == b'{"response": "\\u00e9\\u2028"}\n{"response": "b"}\n'
    with pytest.raises(TypeError):
        results.write_samples(tmp_path / "s.jsonl", [{"response": "c"}, {"response": object()}])
    assert (tmp_path / "s.jsonl").read_text().count("\n") == 2 and len(list(tmp_path.iterdir())) == 1


def test_config_dump_has_no_leftovers(evaluation):
    text = OmegaConf.to_yaml(evaluation("model=m", "benchmarks=[a]"))
    assert "${" not in text and "actor_rollout_ref" not in text
