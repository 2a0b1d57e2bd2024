"""The real pipeline: launch script, Ray, FSDP2, vLLM on CPU; killed with SIGKILL, resumed, finished, exported."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas
import psutil
import pytest
import torch
from pipeline_runs import (
    PROMPTS,
    REPOSITORY,
    SAMPLES,
    STEPS,
    descendants,
    finish,
    records,
    run_directory,
    start,
    wait_for,
)
from torch.utils.data import RandomSampler
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.reproducibility import compare
from recipe.paec.common import folder_kinds
from recipe.paec.common.queue_keys import prompt_of
from recipe.paec.driver.validation_recorder import prompt_name
from recipe.paec.run import token_record
from recipe.paec.run.prompt_record import PROMPTS_FILE
from recipe.paec.tokens.command import content_of
from recipe.paec.tokens.settings import read_request

ANCHOR = "method.anchor_steps=2"

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def killed_and_resumed(tiny, tmp_path_factory) -> dict:
    """One run: SIGKILL of the launcher after step 3 (with a checkpoint at 2), then the same command to its end."""
    root = tmp_path_factory.mktemp("runs")
    first = start(tiny, root, ANCHOR)
    wait_for(lambda: any(path.is_dir() for path in root.iterdir()), first)
    directory = run_directory(root)
    wait_for(lambda: any(record["step"] == 3 for record in records(directory)), first)
    family = descendants(first.pid)
    first.send_signal(signal.SIGKILL)
    first.wait()
    _, survivors = psutil.wait_procs(family, timeout=60)
    checkpoint = json.loads((directory / "checkpoints" / "global_step_2" / "paec_state.json").read_text())
    # What a save leaves that was killed half-way: a folder without the state that is written last.
    remains = directory / "checkpoints" / "global_step_4"
    (remains / "actor").mkdir(parents=True, exist_ok=True)
    (remains / "paec_state.json").unlink(missing_ok=True)
    with open(directory / "metrics.jsonl", "a") as stream:
        stream.write('{"step": 4, "half": ')
    second = start(tiny, root, ANCHOR)
    output = finish(second)
    # A kill between the last checkpoint and the export: the next start makes up for it.
    shutil.move(directory / "huggingface", tmp_path_factory.mktemp("export") / "first")
    third = start(tiny, root, ANCHOR)
    return {
        "directory": directory,
        "survivors": survivors,
        "checkpoint": checkpoint,
        "code": second.returncode,
        "output": output,
        "again": finish(third),
        "again_code": third.wait(),
    }


def test_nothing_survives_a_kill(killed_and_resumed):
    assert [p.name() for p in killed_and_resumed["survivors"] if p.is_running()] == []


def test_resumed_and_finished(killed_and_resumed):
    output = killed_and_resumed["output"]
    assert killed_and_resumed["code"] == 0, output
    assert f"after step 2 of {STEPS}" in output
    assert "global_step_4: its save was interrupted" in output
    for word in ("accuracy", "token entropy", "Hbar", "anchor", "floor", "Hugging Face model"):
        assert word in output, output


def test_one_line_a_step(killed_and_resumed):
    steps = [record["step"] for record in records(killed_and_resumed["directory"])]
    assert steps == list(range(STEPS + 1))  # step 0 is the validation before training


def test_same_anchor(killed_and_resumed):
    """The anchor of steps 1..2 is in the checkpoint, and the resumed run neither measures nor loses it."""
    lines = {record["step"]: record for record in records(killed_and_resumed["directory"])}
    observed = killed_and_resumed["checkpoint"]["methods"]["paec"]["observations"]
    assert len(observed) == 2
    anchor = sum(observed) / 2
    assert lines[1]["actor/paec/selected_entropy"] == pytest.approx(observed[0], rel=1e-12)
    for step in range(2, STEPS + 1):
        assert lines[step]["actor/paec/anchor"] == pytest.approx(anchor, rel=1e-12)
        assert lines[step]["actor/paec/floor"] == pytest.approx(0.8 * anchor, rel=1e-12)
    last = json.loads(
        (killed_and_resumed["directory"] / "checkpoints" / f"global_step_{STEPS}" / "paec_state.json").read_text()
    )
    assert last["methods"]["paec"]["observations"] == observed


def test_data_position(tiny, killed_and_resumed):
    """Every step trained on the rows that its place in the seeded order gives, before and after the kill."""
    table = pandas.read_parquet(tiny / "data" / "train.parquet")
    order = list(RandomSampler(table, generator=torch.Generator().manual_seed(1)))
    for step in range(1, STEPS + 1):
        lines = (killed_and_resumed["directory"] / "rollouts" / f"{step}.jsonl").read_text().splitlines()
        asked = Counter(json.loads(line)["input"].split("\n")[1] for line in lines)
        rows = table.iloc[order[PROMPTS * (step - 1) : PROMPTS * step]]
        expected = Counter({prompt[0]["content"]: 0 for prompt in rows["prompt"]})
        expected.update(prompt[0]["content"] for prompt in rows["prompt"] for _ in range(SAMPLES))
        assert asked == expected, step


def test_right_responses_are_on_record(killed_and_resumed):
    """Each step once, also those that were repeated after the kill, with as many right ones as its rollouts have."""
    directory = killed_and_resumed["directory"]
    lines = [json.loads(line) for line in (directory / PROMPTS_FILE).read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    for line in lines:
        counts = [tuple(of) for rows in line["prompts"].values() for of in rows.values()]
        rollouts = (directory / "rollouts" / f"{line['step']}.jsonl").read_text().splitlines()
        right: dict[str, int] = {}
        for response in map(json.loads, rollouts):
            prompt = prompt_of(response["uid"])
            right[prompt] = right.get(prompt, 0) + int(response["score"] == 1)
        assert sorted(counts) == sorted((number, SAMPLES) for number in right.values()), line["step"]


def test_rollout_and_actor_agree(killed_and_resumed):
    """vLLM really samples from the actor's weights of the step: log-probs agree, after every weight sync."""
    for record in records(killed_and_resumed["directory"])[1:]:
        assert record["training/rollout_probs_diff_max"] < 5e-3, record["step"]


def test_update_measures_what_the_step_measured(killed_and_resumed):
    """`statistics_from=step` is exact for a step's first update: half of the staleness is the second update's."""
    for record in records(killed_and_resumed["directory"])[1:]:
        assert abs(record["actor/paec/update_staleness"]) < 0.2 * record["actor/paec/selected_entropy"]


def test_checkpoints_are_pruned_and_whole(killed_and_resumed):
    root = killed_and_resumed["directory"] / "checkpoints"
    assert sorted(path.name for path in root.glob("global_step_*")) == ["global_step_4", "global_step_6"]
    assert all((path / "paec_state.json").is_file() for path in root.glob("global_step_*"))


def test_a_checkpoint_counts_when_all_of_its_step_is_on_disk(killed_and_resumed):
    """A kill during the last validation must not leave a "finished" run without its result."""
    directory = killed_and_resumed["directory"]
    committed = (directory / "checkpoints" / f"global_step_{STEPS}" / "paec_state.json").stat().st_mtime_ns
    written = ("metrics.jsonl", f"rollouts/{STEPS}.jsonl", f"validation/{STEPS}.jsonl")
    for name in (*written, f"tokens/{STEPS}.parquet", f"tokens/validation/{STEPS}.parquet"):
        assert (directory / name).stat().st_mtime_ns < committed, name


def test_token_records(killed_and_resumed):
    """Every step's, before and after the kill: whole groups under the keys, scores and prompts of `rollouts/`."""
    directory = killed_and_resumed["directory"]
    assert token_record.steps(directory) == list(range(1, STEPS + 1))
    for step in range(1, STEPS + 1):
        record = token_record.read(token_record.path_of(directory, step))
        lines = (directory / "rollouts" / f"{step}.jsonl").read_text().splitlines()
        rows = {row["uid"]: row for row in map(json.loads, lines)}
        assert Counter(one.group for one in record.responses) == {f"{step:06d}-{i:06d}": SAMPLES for i in range(4)}
        for one in record.responses:
            assert (one.input, one.score) == (rows[one.uid]["input"], rows[one.uid]["score"])
            assert abs(one.rollout_log_prob - one.statistics["log_prob"]).max() < 0.02, "both in float32"
            assert (one.statistics["log_prob"] <= one.statistics["top1_log_prob"]).all()
            assert (one.statistics["nucleus_mass"] > 0.799).all() and (one.nucleus_size >= 1).all()


def test_token_records_of_the_validations(tiny, killed_and_resumed):
    """Before training and after the last step: the same prompts, with the texts and scores of `validation/`."""
    directory = killed_and_resumed["directory"]
    assert token_record.steps(directory, validation=True) == [0, STEPS]
    files = {file.name for file in (directory / token_record.VALIDATION).iterdir()}
    assert files == {"0.parquet", f"{STEPS}.parquet"}, "nothing waits any more"
    first, last = (token_record.read(token_record.path_of(directory, step, True)) for step in (0, STEPS))
    table = pandas.read_parquet(tiny / "data" / "validation.parquet")  # of which the seed chooses data.val_max_samples
    rows = {prompt_name(row.data_source, row.extra_info["index"]): row.prompt for row in table.itertuples()}
    assert len({one.group for one in first.responses}) == 4
    for one in first.responses:
        assert one.uid == f"{one.group}_0_0" and rows[one.group][0]["content"] in one.input
    assert [one.uid for one in first.responses] == [one.uid for one in last.responses]
    for record in (first, last):
        lines = (directory / "validation" / f"{record.step}.jsonl").read_text().splitlines()
        written = {(row["input"], row["output"], row["score"]) for row in map(json.loads, lines)}
        for one in record.responses:
            text = AutoTokenizer.from_pretrained(directory / "huggingface").decode(one.ids, skip_special_tokens=True)
            assert (one.input, text, one.score) in written and one.advantages is None
            assert (one.statistics["log_prob"] <= one.statistics["top1_log_prob"]).all()
            assert (one.statistics["nucleus_mass"] > 0.799).all() and (one.nucleus_size >= 1).all()
    assert [one.input for one in first.responses] == [one.input for one in last.responses]


def test_a_validation_is_recorded_under_its_own_policy(tiny, killed_and_resumed):
    """The record before training agrees with the model that it started from, the last one with the exported model."""
    directory = killed_and_resumed["directory"]
    models = [f"model={tiny / 'model'}", f"model={directory / 'huggingface'}"]
    for step, own in ((0, 0), (STEPS, 1)):
        request = read_request([str(directory), str(step), "validation=true", *models])
        recorded, *read = (next(iter(source.statistics.values())) for source in content_of(request).sources)
        apart = [(recorded.log_prob - under.log_prob).abs().mean().item() for under in read]
        assert apart[own] < 5e-3 and apart[own] < 0.2 * apart[1 - own], (step, apart)


def test_recording_changes_nothing_else(tiny, killed_and_resumed, tmp_path):
    """The first steps of the same run without a record: every metric is equal bit for bit, and so is every response."""
    other = start(
        *(tiny, tmp_path, ANCHOR, "run.name=off", "run.record_tokens=0", "run.export=false"),
        *("trainer.total_training_steps=2", "trainer.test_freq=-1"),
    )
    output = finish(other)
    assert other.returncode == 0, output
    steps = compare(killed_and_resumed["directory"], tmp_path / "off")
    assert [step.number for step in steps] == [1, 2]
    assert {step.number: step.different for step in steps if step.different} == {}
    assert all(step.metrics > 60 and step.identical == PROMPTS * SAMPLES for step in steps)
    assert not (tmp_path / "off" / "tokens").exists()
    on, off = (records(folder)[1] for folder in (killed_and_resumed["directory"], tmp_path / "off"))
    assert on["timing_s/old_log_prob/record_validation"] > 0
    assert not [name for name in off if "record_" in name]


def test_run_directory(killed_and_resumed):
    directory = killed_and_resumed["directory"]
    versions = json.loads((directory / "versions.json").read_text())
    assert versions["verl"] == "0.9.1" and versions["python"].startswith("3.")
    assert "method:" in (directory / "config.yaml").read_text() and "${" not in (directory / "config.yaml").read_text()


def test_export_generates(killed_and_resumed):
    """The exported folder is a Hugging Face model whose greedy answer has the task's form."""
    folder = killed_and_resumed["directory"] / "huggingface"
    assert "attn_implementation" not in json.loads((folder / "config.json").read_text())
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "7 5 1 > 2"}], add_generation_prompt=True, return_tensors="pt", return_dict=False
    )
    answer = model.generate(prompt, max_new_tokens=20, do_sample=False)[0, prompt.shape[1] :]
    assert set(tokenizer.decode(answer, skip_special_tokens=True)) <= set("0123456789+-*=,;() ")


def test_finished_run_says_so(killed_and_resumed):
    assert killed_and_resumed["again_code"] == 0
    assert f"is finished: its checkpoint is at step {STEPS} of {STEPS}" in killed_and_resumed["again"]
    assert "run.fresh=true" in killed_and_resumed["again"]
    assert f"exporting the checkpoint of step {STEPS}" in killed_and_resumed["again"]


def test_every_file_of_a_run_is_one_that_a_fresh_start_would_delete(killed_and_resumed):
    directory = killed_and_resumed["directory"]
    assert folder_kinds.mark_of(directory)["name"] == directory.name
    found = folder_kinds.inside(directory, folder_kinds.RUN)
    assert (found.foreign, found.links) == ([], []) and len(found.own) > 20


# ---- evaluation ------------------------------------------------------------------------------------------------------

RESPONSES = 100 * 8  # validation problems x samples


@pytest.fixture(scope="module")
def evaluated(tiny, killed_and_resumed) -> dict:
    """Two checkpoints with vLLM: SIGKILL while two engines generate for the first, then the same on one, to its end."""
    run = killed_and_resumed["directory"]
    command = [sys.executable, "-m", "recipe.paec.evaluate", f"model={run}", "steps=[4,6]", "protocol=tiny"]
    command += [f"benchmarks=[{tiny / 'data' / 'validation.parquet'}]"]
    start = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY)
    first = subprocess.Popen([*command, "cluster.gpus_per_node=2", "cluster.env.OMP_NUM_THREADS=1"], **start)
    folder = run / "evaluation" / "tiny-reasoning_gym_countdown"
    journal = folder / "step_4" / "journal.jsonl"
    wait_for(lambda: journal.is_file() and journal.read_bytes().count(b"\n") >= 20, first)
    family = descendants(first.pid)
    first.send_signal(signal.SIGKILL)
    first.wait()
    _, survivors = psutil.wait_procs(family, timeout=60)
    begun = journal.read_bytes()
    second = subprocess.Popen(command, **start)
    output = finish(second)
    third = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=300)
    return {
        "folder": folder,
        "survivors": survivors,
        "begun": begun,
        "code": second.returncode,
        "output": output,
        "again": third.stdout,
    }


def graded(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_a_killed_evaluation_resumes(evaluated):
    """What was generated before the kill is the journal's beginning; the rest was generated once."""
    assert evaluated["code"] == 0, evaluated["output"]
    assert [p.name() for p in evaluated["survivors"] if p.is_running()] == []
    whole = evaluated["begun"][: evaluated["begun"].rfind(b"\n") + 1]
    before = whole.count(b"\n")
    assert 20 <= before < RESPONSES, "the kill came too late to show anything"
    journal = (evaluated["folder"] / "step_4" / "journal.jsonl").read_bytes()
    assert journal.startswith(whole) and journal.count(b"\n") == RESPONSES
    assert f"generating {RESPONSES - before} of {RESPONSES} responses with 1 vLLM engine(s)" in evaluated["output"]
    keys = Counter((line["problem"], line["sample"]) for line in graded(evaluated["folder"] / "step_4"))
    assert len(keys) == RESPONSES and max(keys.values()) == 1


def test_scores_follow_from_the_samples(evaluated):
    """avg, pass@2 and shares recomputed here from samples.jsonl; the responses themselves scored by arithmetic."""
    for step in (4, 6):
        lines, scores = (
            graded(evaluated["folder"] / f"step_{step}"),
            evaluated["folder"] / f"step_{step}" / "scores.json",
        )
        found = json.loads(scores.read_text())["benchmarks"]["reasoning_gym/countdown"]
        per_problem = Counter(line["problem"] for line in lines if line["correct"])
        assert found["avg"]["value"] == pytest.approx(sum(per_problem.values()) / RESPONSES)
        pairs = [1 - (8 - per_problem[p]) * (7 - per_problem[p]) / (8 * 7) for p in {line["problem"] for line in lines}]
        assert found["pass"]["2"]["value"] == pytest.approx(sum(pairs) / 100)
        assert found["truncated"] == pytest.approx(sum(line["finish_reason"] == "length" for line in lines) / RESPONSES)
        assert found["mean_length"] == pytest.approx(sum(line["tokens"] for line in lines) / RESPONSES)
        right = [line for line in lines if line["correct"]]
        assert right, "240 warm-start steps solve a few problems"
        for line in right:
            target = json.loads(line["ground_truth"])["metadata"]["target"]
            assert set(line["answer"]) <= set("0123456789+-*() ") and eval(line["answer"]) == target


def test_an_evaluation_says_where_it_comes_from(evaluated):
    provenance = json.loads((evaluated["folder"] / "step_4" / "scores.json").read_text())["provenance"]
    assert provenance["step"] == 4 and provenance["protocol"]["name"] == "tiny" and provenance["seed"] == 0
    assert provenance["versions"]["verl"] == "0.9.1" and len(provenance["model_fingerprint"]) == 64
    curve = json.loads((evaluated["folder"] / "curve.json").read_text())
    assert [entry["step"] for entry in curve["steps"]] == [4, 6]
    assert (evaluated["folder"] / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert not (evaluated["folder"] / "step_4" / "model").exists(), "the exported weights are removed"
    assert evaluated["again"].count("is already evaluated:") == 2


def test_training_data_is_checked_for_the_benchmark(evaluated):
    """The quick start's problems are split by numbers and target: none of the benchmark is in the training data."""
    found = json.loads((evaluated["folder"] / "step_4" / "scores.json").read_text())["contamination"]
    assert found["benchmarks"]["reasoning_gym/countdown"]["size"] == 100
    assert found["training_rows"] == 2048 and found["benchmarks"]["reasoning_gym/countdown"]["contaminated"] == 0
