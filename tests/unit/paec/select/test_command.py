"""The command: what it prints, and what it refuses."""

from __future__ import annotations

import json

import pytest

from recipe.paec.run import prompt_record
from recipe.paec.run.log import truncate_metrics
from recipe.paec.select.command import main, ranks_of
from recipe.paec.select.ranking import read_rows

HISTORY = [[2, 2, 2, 2], [0, 2, 4, 3], [0, 4, None, None], [4, 4, 4, 4], [0, 0, 0, 1]]


def chosen(path) -> list[int]:
    return [one["extra_info"]["selected_index"] for one in read_rows([str(path)])[str(path)]]


def test_the_first_ranks(run_of, tmp_path, capsys):
    """Deviations 0, .369755, .5, 0, .108253: row 2, then 1, 4, 0, 3; the batch of the run is filled."""
    assert main([str(run_of(HISTORY)), "--top", "3", "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert said.err == "" and chosen(tmp_path / "out" / "train.parquet") == [2, 1, 4, 2]
    assert "| 1    |    0.5000 |    0.500 |     medium |      2 |       gsm8k |     2 |" in said.out
    assert "0.3698" in said.out and "0.1083" in said.out
    assert "5 prompts: 1 easy, 3 medium, 1 hard, 0 never seen; 0 seen in fewer than 2 epochs" in said.out
    file = tmp_path / "out" / "train.parquet"
    assert f"{file}: 4 rows; train on it with 'data.train_files=[{file}]'" in said.out


def test_ranks_by_number_and_more_epochs(run_of, tmp_path):
    run = str(run_of(HISTORY))
    assert main([run, "--rank", "3,1", "--rows", "3", "--epochs", "4", "--output", str(tmp_path / "a.parquet")]) == 0
    assert chosen(tmp_path / "a.parquet") == [0, 1, 0], "row 2 has no rank; 0 and 3 are tied"
    assert json.loads((tmp_path / "a.manifest.json").read_text())["source"]["least_epochs"] == 4


def test_a_resumed_run_gives_the_same(run_of, tmp_path):
    """The steps after the checkpoint are dropped and repeated, also those of a line that was cut off."""
    run = run_of(HISTORY)
    path = run / prompt_record.PROMPTS_FILE
    lines = path.read_text().splitlines(keepends=True)
    lost = lines[2].replace('"3":[4,4]', '"3":[0,4]')
    assert lost != lines[2]
    path.write_text("".join([*lines[:2], lost, '{"step":4,"epoch"']))
    truncate_metrics(path, 2)
    path.write_text(path.read_text() + "".join(lines[2:]))
    assert main([str(run), "--top", "3", "--output", str(tmp_path / "out")]) == 0
    assert chosen(tmp_path / "out" / "train.parquet") == [2, 1, 4, 2]


def test_what_it_wrote_may_be_replaced(run_of, tmp_path, capsys):
    run, output = str(run_of(HISTORY)), tmp_path / "out"
    assert main([run, "--output", str(output)]) == 0
    assert main([run, "--output", str(output), "--rank", "2"]) == 2
    assert "already exists; pass --overwrite to replace it" in capsys.readouterr().err
    assert main([run, "--output", str(output), "--rank", "2", "--overwrite"]) == 0
    assert chosen(output / "train.parquet") == [1] * 4
    (output / "train.parquet").write_text("somebody's")
    assert main([run, "--output", str(output), "--overwrite"]) == 2
    assert "was not written by this command" in capsys.readouterr().err


def test_the_training_file_of_the_run_is_never_replaced(run_of, tmp_path, capsys):
    """Under any name, and although `paec data` wrote it."""
    run, data = str(run_of(HISTORY)), tmp_path / "data"
    before = (data / "train.parquet").read_bytes()
    (tmp_path / "link").symlink_to(data)
    for output in (data, data / "train.parquet", tmp_path / "link"):
        for more in ([], ["--overwrite"]):
            assert main([run, "--output", str(output), *more]) == 2
            assert "is a training file of the run itself (data.train_files): choose" in capsys.readouterr().err
    assert (data / "train.parquet").read_bytes() == before


@pytest.mark.parametrize("name", ["train.parquet", "train.report.json", "train.manifest.json"])
def test_what_paec_data_wrote_is_not_replaced(run_of, tmp_path, capsys, name):
    run, output = str(run_of(HISTORY)), tmp_path / "out"
    output.mkdir()
    if name == "train.parquet":
        (output / name).write_bytes((tmp_path / "data" / "train.parquet").read_bytes())
    else:
        report, manifest = {"malformed": [], "left_out": [], "repetition": None}, {"set": "gsm8k", "split": "train"}
        content = report if "report" in name else {**manifest, "source": {}, "output": {}}
        (output / name).write_text(json.dumps(content))
    before = (output / name).read_bytes()
    assert main([run, "--output", str(output), "--overwrite"]) == 2
    assert f"{output / name}: exists and was not written by this command; move it away" in capsys.readouterr().err
    assert (output / name).read_bytes() == before


def test_steps_of_an_earlier_version_are_missing(run_of, tmp_path, capsys):
    run = run_of(HISTORY)
    (run / "metrics.jsonl").write_text("".join(f'{{"step": {step}}}\n' for step in range(7)))
    assert main([str(run), "--output", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err == (
        f"warning: {run}: 2 step(s) between 5 and 6 are not in prompts.jsonl, so the ranking does not count their "
        "responses\n"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--epochs", "5"],
            "rank 1: only 0 prompts were seen in 5 epochs or more (prompts by epochs: 1 in 2, 4 in 4): ",
        ),
        (["--top", "6"], "rank 6: only 5 prompts were seen in 2 epochs or more"),
        (["--epochs", "1"], "--epochs 1: a deviation needs at least 2"),
        (["--rank", "1,1"], "--rank 1,1: must be different integers >= 1, separated by commas"),
        (["--top", "3", "--rows", "2"], "--rows 2: is less than the 3 chosen prompts"),
    ],
)
def test_errors(run_of, tmp_path, capsys, arguments, sentence):
    assert main([str(run_of(HISTORY)), "--output", str(tmp_path / "out"), *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and sentence in said and not (tmp_path / "out").exists()


def test_filtered_groups_do_not_say_what_the_policy_could_do(run_of, tmp_path, capsys):
    assert main([str(run_of(HISTORY, filtered=True)), "--output", str(tmp_path / "out")]) == 2
    assert "algorithm.filter_groups.enable=true, which leaves out every prompt" in capsys.readouterr().err


def test_no_run(tmp_path, capsys):
    assert main([str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "config.yaml: is not the configuration of a run" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text("a: [")
    assert main([str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "config.yaml: is not the configuration of a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("top", "rank", "expected"), [(None, None, [1]), (3, None, [1, 2, 3]), (None, "1,2,13", [1, 2, 13])]
)
def test_ranks(top, rank, expected):
    assert ranks_of(top, rank) == expected


def test_a_run_of_the_laboratory(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("task: countdown\nprompts: 2\nmini_batch: 2\n")
    assert main([str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    said = f"{tmp_path}: is a run of the laboratory, which writes no record of its prompts: train it with paec train"
    assert capsys.readouterr().err == f"error: {said}\n"
