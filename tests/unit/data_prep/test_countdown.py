"""The countdown task: traces against an independent evaluation, the library's scorer, and disjoint splits."""

import json
import re

import pytest
import reasoning_gym

from data_prep import countdown
from data_prep.contract import validate_rows
from data_prep.countdown import Pools, Problem, correct_traces, problems, rows, solvable, split
from recipe.grading.countdown import DATA_SOURCE
from recipe.paec.rollout.rewards import compute_score


def test_traces_by_hand():
    assert correct_traces((1, 1, 1), 3) == ["1+1=2,1+2=3;1+1+1", "1+1=2,2+1=3;1+1+1"]
    assert correct_traces((9, 9, 9), 1) == []
    assert "7-5=2,1*2=2;1*(7-5)" in correct_traces((7, 5, 1), 2)
    # A right operand keeps its parentheses after a minus only where they change the value.
    assert "3-1=2,9-2=7;9-(3-1)" in correct_traces((9, 3, 1), 7)
    assert "3*1=3,9-3=6;9-3*1" in correct_traces((9, 3, 1), 6)
    assert "3-1=2,9*2=18;9*(3-1)" in correct_traces((9, 3, 1), 18)


def test_solvable_problems():
    keys = solvable()
    assert len(keys) == len(set(keys)) == 1864
    assert {p.key for p in problems(200, seed=0)} <= set(keys)
    assert [target for numbers, target in keys if numbers == (1, 1, 1)] == [1, 2, 3]


def test_order_of_numbers_does_not_change_the_traces():
    assert correct_traces((7, 5, 1), 2) == correct_traces((1, 7, 5), 2)


@pytest.mark.parametrize("problem", problems(40, seed=5 * 10**6))
def test_traces_are_correct(problem):
    traces = correct_traces(problem.numbers, problem.target)
    assert traces
    ground_truth = rows([problem], "train")[0]["reward_model"]["ground_truth"]
    score = reasoning_gym.get_score_answer_fn("countdown")
    for trace in traces:
        assert len(trace) <= 22
        steps, _, expression = trace.partition(";")
        left = list(problem.numbers)
        for step in steps.split(","):
            a, operator, b, value = re.fullmatch(r"(\d+)([-+*])(\d+)=(\d+)", step).groups()
            left.remove(int(a))
            left.remove(int(b))
            assert {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[operator] == int(value)
            left.append(int(value))
        assert left == [problem.target]
        assert eval(expression) == problem.target
        assert sorted(map(int, re.findall(r"\d+", expression))) == sorted(problem.numbers)
        assert score(answer=expression, entry=json.loads(ground_truth)) == 1.0
        assert compute_score(DATA_SOURCE, trace, ground_truth)["score"] == 1.0


def test_problems_are_the_librarys_and_deterministic():
    found = problems(50, seed=10**6)
    assert found == problems(50, seed=10**6)
    assert len(set(found)) == 50
    assert all(len(p.numbers) == 3 and set(p.numbers) <= set(range(1, 10)) and 1 <= p.target <= 99 for p in found)
    first = reasoning_gym.create_dataset(
        "countdown",
        min_numbers=3,
        max_numbers=3,
        min_value=1,
        max_value=9,
        min_target=1,
        max_target=99,
        operators=("+", "-", "*"),
        seed=10**6,
        size=1,
    )[0]["metadata"]
    assert found[0] == Problem(tuple(first["numbers"]), first["target"])


def test_excluded_keys_and_too_few_problems():
    first = {p.key for p in problems(100, seed=0)}
    assert not first & {p.key for p in problems(20, seed=0, exclude=first)}

    class Everything(set):
        def __contains__(self, key):
            return True

    with pytest.raises(ValueError, match="only 0 of 1 distinct problems in 2020 items from seed 0; request fewer"):
        problems(1, seed=0, exclude=Everything())


def test_splits_are_disjoint_and_seeds_apart():
    pools = split(300, 100, 64, seed=0)
    keys = [{p.key for p in pool} for pool in (pools.train, pools.validation, pools.held_out)]
    assert [len(pools.train), len(keys[1]), len(keys[2])] == [300, 100, 64]
    assert not (keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2])
    assert split(300, 100, 64, seed=1).train != pools.train


def test_shared_problem_is_refused():
    with pytest.raises(ValueError, match="pools share 1 problems"):
        Pools([Problem((1, 2, 3), 6)], [Problem((3, 2, 1), 6)], [])


def test_written_files(tmp_path):
    message = countdown.write(tmp_path, train=60, validation=10)
    assert "60 training and 10 validation rows" in message
    train = validate_rows(tmp_path / "train.parquet")
    assert len(train) == 60
    assert len(validate_rows(tmp_path / "validation.parquet")) == 10
    assert list(train.extra_info.map(lambda info: info["index"])) == list(range(60))
    entry = json.loads(train.reward_model[0]["ground_truth"])["metadata"]
    numbers, target = entry["numbers"], entry["target"]
    assert train.prompt[0][0]["content"] == f"{numbers[0]} {numbers[1]} {numbers[2]} > {target}"
    lines = [json.loads(line) for line in (tmp_path / "warm_start.jsonl").read_text().splitlines()]
    keys = {
        name: {(tuple(line["numbers"]), line["target"]) for line in lines if line["split"] == name}
        for name in ("train", "held_out")
    }
    validation = {
        (tuple(sorted(entry["metadata"]["numbers"])), entry["metadata"]["target"])
        for entry in (
            json.loads(r["ground_truth"]) for r in validate_rows(tmp_path / "validation.parquet").reward_model
        )
    }
    assert len(keys["held_out"]) == 64 and len(validation) == 10
    assert not (keys["train"] & keys["held_out"] or (keys["train"] | keys["held_out"]) & validation)
    assert keys["train"] | keys["held_out"] | validation == set(solvable())
    assert all(line["traces"] == correct_traces(line["numbers"], line["target"]) for line in lines)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["train.parquet", "validation.parquet", "warm_start.jsonl"]


def test_the_command_overwrites_nothing_unasked(tmp_path, monkeypatch, capsys):
    (tmp_path / "validation.parquet").write_text("mine")
    command = ["countdown", "--output", str(tmp_path), "--train", "4", "--validation", "4"]
    monkeypatch.setattr("sys.argv", command)
    assert countdown.main() == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/validation.parquet exists: pass --overwrite to replace it, or choose another --output\n"
    )
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("validation.parquet", "mine")]
    monkeypatch.setattr("sys.argv", [*command, "--overwrite"])
    assert countdown.main() == 0
    names = ["train.parquet", "validation.parquet", "warm_start.jsonl"]
    monkeypatch.setattr(countdown, "SEED_STRIDE", 300)
    monkeypatch.setattr("sys.argv", ["countdown", "--output", str(tmp_path / "more"), "--validation", "400"])
    assert countdown.main() == 2
    assert "error: only" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == names
