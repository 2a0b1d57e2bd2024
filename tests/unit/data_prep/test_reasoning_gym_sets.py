"""reasoning_gym rows: disjoint splits, mixtures, and rows whose right answer the project's own scorers accept."""

import json
import os
import re
import subprocess
import sys

import pytest

from data_prep import reasoning_gym_sets
from data_prep.__main__ import main
from data_prep.contract import validate_rows
from data_prep.reading import InputError
from data_prep.reasoning_gym_sets import belongs_to, shares, task_rows
from recipe.grading import countdown
from recipe.grading.extract import extract
from recipe.grading.reasoning_gym import score, scorer


def run(output, *flags):
    return main(["reasoning_gym", "--output", str(output), *flags])


def questions(path):
    return [extra["problem"] for extra in validate_rows(path).extra_info]


def test_a_mixture(tmp_path, capsys):
    mixture = ["--task", "chain_sum:2", "--task", "countdown", "--seed", "3"]
    assert run(tmp_path, *mixture, "--size", "31") == 0
    assert run(tmp_path, *mixture, "--size", "10", "--split", "test") == 0
    frame = validate_rows(tmp_path / "train.parquet")
    assert list(frame.data_source) == ["reasoning_gym/chain_sum"] * 21 + ["reasoning_gym/countdown"] * 10
    assert [extra["index"] for extra in frame.extra_info] == list(range(31))
    assert {(e["split"], e["template"]) for e in frame.extra_info} == {("train", "boxed"), ("train", "semicolon")}
    train, test = questions(tmp_path / "train.parquet"), questions(tmp_path / "test.parquet")
    assert len({*train}) == 31 and len({*test}) == 10 and not {*train} & {*test}
    for row in frame.itertuples():
        entry = json.loads(row.reward_model["ground_truth"])
        assert row.prompt[0]["content"].startswith(entry["question"].strip())
        assert entry["task"] == row.data_source.split("/")[1]
        if entry["task"] == "countdown":
            assert countdown.score(f"So; {entry['answer']}", row.reward_model["ground_truth"])[0] is True
            assert row.prompt[0]["content"].endswith("nothing but your expression after it.")
            assert "/" not in entry["answer"]
        else:
            terms = entry["metadata"]["expression"].replace("- ", "-").replace("+ ", "").split()
            assert int(entry["answer"]) == sum(map(int, terms))
            answer = extract(f"I get \\boxed{{{entry['answer']}}}")
            verdict = score(scorer("chain_sum"), row.reward_model["ground_truth"], answer)
            assert (verdict["status"], verdict["correct"]) == ("ok", True)
    manifest = json.loads((tmp_path / "train.manifest.json").read_text())
    assert manifest["counts"] == {"tasks": {"chain_sum": 21, "countdown": 10}, "written": 31}
    assert manifest["options"] == {"tasks": {"chain_sum": 2.0, "countdown": 1.0}, "size": 31, "seed": 3}
    again = tmp_path / "again.parquet"
    assert run(again, *mixture, "--size", "31") == 0
    assert again.read_bytes() == (tmp_path / "train.parquet").read_bytes()


def test_splits_of_a_small_task_are_disjoint_for_any_seeds():
    """Factorizations of 2..1000 are 999 questions: without a rule, splits of other seeds would share most of these."""
    train, test = set(), set()
    for seed in (0, 1):
        train |= {row["extra_info"]["problem"] for row in task_rows("prime_factorization", 400, seed, "train", "boxed")}
        test |= {row["extra_info"]["problem"] for row in task_rows("prime_factorization", 120, seed, "test", "boxed")}
    assert len(train) > 450 and len(test) > 140  # the seeds differ, and yet
    assert not train & test
    assert {belongs_to(question) for question in train} == {"train"}


def test_a_task_without_a_reference_answer():
    """Colourings are scored by the graph in the metadata; there is no own answer to try."""
    (row,) = task_rows("graph_color", 1, 0, "train", "boxed")
    assert json.loads(row["reward_model"]["ground_truth"])["answer"] is None


def test_item_seeds_do_not_overlap():
    """The library seeds item i with seed + i: the splits' ranges must lie apart, for neighbouring seeds too."""
    numbers = [
        int(task_rows("chain_sum", 1, seed, split, "none")[0]["extra_info"]["id"].rsplit("/", 1)[1])
        for seed in (0, 1)
        for split in ("train", "test")
    ]
    assert [number // 10**6 for number in numbers] == [0, 1, 2, 3]


def test_shares():
    assert shares({"a": 1.0, "b": 2.0}, 30) == {"a": 10, "b": 20}
    assert shares({"a": 1.0, "b": 1.0, "c": 1.0}, 11) == {"a": 4, "b": 4, "c": 3}
    assert shares({"a": 0.001, "b": 1.0}, 5) == {"a": 0, "b": 5}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--task", "n_queens"], "no scorer for data_source 'reasoning_gym/n_queens': its scorer calls eval"),
        (["--task", "composite"], "'reasoning_gym/composite': its scorer depends"),
        (["--task", "no_such"], "no_such: is not a reasoning_gym task"),
        (["--task", "countdwn"], "countdwn: is not a reasoning_gym task; did you mean countdown?"),
        (["--task", "chain_sum", "--task", "chain_sum:2"], "--task: a task is named twice"),
        (["--task", "rearc"], "'reasoning_gym/rearc': its scorer compares tuples"),
        (["--task", "codeio"], """codeio: its own answer '{"s": "}[}}}{(]"}' would be scored as wrong; leave it out"""),
    ],
)
def test_refusals(tmp_path, capsys, flags, message):
    assert run(tmp_path / "out", *flags, "--size", "8") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--size", "1e3"], "argument --size: 1e3: must be an integer >= 1"),
        (["--size", "0"], "argument --size: 0: must be an integer >= 1"),
        (["--seed", "1.0"], "argument --seed: 1.0: must be an integer >= 0"),
        (["--seed=-1"], "argument --seed: -1: must be an integer >= 0"),
        (["--task", "countdown:x"], "argument --task: 'countdown:x': must be NAME or NAME:WEIGHT with a weight > 0"),
        (
            ["--task", "countdown:nan"],
            "argument --task: 'countdown:nan': must be NAME or NAME:WEIGHT with a weight > 0",
        ),
    ],
)
def test_a_value_of_an_option_is_refused_with_a_sentence(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as ended:
        run(tmp_path / "out", "--task", "chain_sum", "--size", "8", *flags)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and f"error: {message}\n" in said and "invalid _" not in said


def test_a_task_that_has_too_few_questions(tmp_path, capsys):
    assert run(tmp_path / "out", "--task", "prime_factorization", "--size", "1000") == 2
    assert re.search(
        r"prime_factorization: only 7\d\d of 1000 distinct questions found: no new one in the last 1000 items; "
        r"request fewer",
        capsys.readouterr().err,
    )


def test_a_split_ends_where_the_next_one_begins(monkeypatch):
    """Rather an error than fewer rows than were asked for, or the items of another split."""
    monkeypatch.setattr(reasoning_gym_sets, "SEED_STRIDE", 40)
    with pytest.raises(
        InputError, match=r"chain_sum: only \d+ of 41 distinct questions found: the seeds of this split are"
    ):
        task_rows("chain_sum", 41, 0, "train", "boxed")


def test_tasks_of_limited_size(monkeypatch):
    """word_ladder takes no size above 20,000; acre has no more items than its size, which it makes beforehand."""
    (ladder,) = task_rows("word_ladder", 1, 0, "train", "boxed")
    assert ladder["extra_info"]["problem"].startswith("Transform the word ladder")
    monkeypatch.setattr(reasoning_gym_sets, "_SIZE", 20)
    assert len(task_rows("acre", 5, 0, "train", "boxed")) == 5
    with pytest.raises(
        InputError, match=r"acre: only \d+ of 900 distinct questions found: the task has no more items \(list index"
    ):
        task_rows("acre", 900, 0, "train", "boxed")


def test_a_task_that_uses_the_global_generator():
    assert task_rows("list_functions", 25, 2, "train", "boxed") == task_rows("list_functions", 25, 2, "train", "boxed")


def test_equal_options_give_equal_files_in_every_process(tmp_path):
    """The library walks through sets of strings in some tasks; their order would be that of the process."""
    options = ["reasoning_gym", "--task", "ransom_note", "--size", "8", "--output"]
    commands = {"1": ["data_prep"], "2": ["data_prep"], "3": ["recipe.paec", "data"]}
    for seed, command in commands.items():
        environment = os.environ | {"PYTHONHASHSEED": seed}
        arguments = [sys.executable, "-m", *command, *options, str(tmp_path / f"{seed}.parquet")]
        subprocess.run(arguments, env=environment, check=True, timeout=120)
    assert len({(tmp_path / f"{seed}.parquet").read_bytes() for seed in commands}) == 1


def test_only_a_process_of_this_command_line_starts_again(tmp_path, monkeypatch):
    """A process that calls `main` for another reason, such as this one, is never replaced."""
    started = []
    monkeypatch.setattr(os, "execve", lambda *given: started.append(given))
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    given = ["reasoning_gym", "--task", "none_such", "--size", "1", "--output", str(tmp_path / "a.parquet")]
    monkeypatch.setattr(sys, "argv", ["paec data", *given])
    assert main() == 2 and not started
    command = [sys.executable, "/bin/paec", "data", *given]
    monkeypatch.setattr(sys, "orig_argv", command)
    assert main() == 2
    ((_, arguments, environment),) = started
    assert arguments == command and environment["PYTHONHASHSEED"] == "0"
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    assert main() == 2 and len(started) == 1


@pytest.mark.parametrize("wrong", [["--size", "0"], ["--size", "1", "--seed", "-1"], ["--size", "1", "--task", "a:0"]])
def test_wrong_usage(tmp_path, wrong):
    with pytest.raises(SystemExit) as caught:
        run(tmp_path, "--task", "chain_sum", *wrong)
    assert caught.value.code == 2
