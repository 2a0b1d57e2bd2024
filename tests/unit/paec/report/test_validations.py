"""The right samples of each problem, from what a validation left on disk."""

import os

import pytest
from analysed import dumped, lab_run, write_lines
from report_runs import write_run

from recipe.paec.common.errors import UserError
from recipe.paec.report.runs import read_run
from recipe.paec.report.validations import counts_of


def test_the_laboratorys_counts(tmp_path):
    lab_run(tmp_path, {0: [1, 2], 50: [4, 0]})
    (tmp_path / "config.yaml").write_text("task: countdown\n")
    run = read_run(tmp_path)
    assert counts_of(run, 50, 4) == {"countdown 0": 4, "countdown 1": 0}
    with pytest.raises(UserError, match="has no 8 samples of each problem at step 50"):
        counts_of(run, 50, 8)
    with pytest.raises(UserError, match="has no 4 samples of each problem at step 25"):
        counts_of(run, 25, 4)


def test_the_held_out_problems_are_others(tmp_path):
    lab_run(tmp_path, {0: [1, 2]})
    rows = [{"step": 0, "split": split, "samples": 4, "correct": [3, 3]} for split in ("validation", "held_out")]
    rows[1]["correct"] = [0, 0]
    write_lines(tmp_path / "problems.jsonl", rows)
    assert [*counts_of(read_run(tmp_path), 0, 4).values()] == [3, 3]


def test_the_pipelines_responses(tmp_path):
    """Problems by prompt and reference; the second with the same text is another problem; a lost sample is wrong."""
    folder = write_run(tmp_path / "a")
    rows = dumped(folder / "validation" / "8.jsonl", {"1+1": "ABx-", "2+2": "A"}).read_text()
    again = dumped(folder / "again.jsonl", {"1+1": "xxxx"}, mark="v").read_text()
    (folder / "validation" / "8.jsonl").write_text(rows + again)
    assert counts_of(read_run(folder), 8, 4) == {"1+1\n1\n1": 2, "1+1\n1\n2": 0, "2+2\n1\n1": 1}


@pytest.mark.parametrize(
    "text, error",
    [
        ("", "has no 4 samples"),
        ("{", "is not JSON lines"),
        ('{"uid": "a_0_0"}\n', "a line that is not a graded response"),
        ("3\n", "a line that is not a graded response"),
    ],
)
def test_damaged_responses(tmp_path, text, error):
    folder = write_run(tmp_path / "a")
    with pytest.raises(UserError, match="a has neither validation/8.jsonl nor problems.jsonl"):
        counts_of(read_run(folder), 8, 4)
    (folder / "validation").mkdir()
    (folder / "validation" / "8.jsonl").write_text(text)
    with pytest.raises(UserError, match=error):
        counts_of(read_run(folder), 8, 4)


def test_what_the_disk_refuses(tmp_path):
    lab_run(tmp_path, {0: [1, 2]})
    (tmp_path / "problems.jsonl").unlink()
    (tmp_path / "validation" / "0.jsonl").parent.mkdir()
    (tmp_path / "validation" / "0.jsonl").write_text("[" * 100_000)
    with pytest.raises(UserError, match="is not JSON lines"):
        counts_of(read_run(tmp_path), 0, 4)
    if os.geteuid():  # root reads everything
        (tmp_path / "validation" / "0.jsonl").chmod(0)
        with pytest.raises(UserError, match="cannot be read: Permission denied"):
            counts_of(read_run(tmp_path), 0, 4)


def test_damaged_counts(tmp_path):
    lab_run(tmp_path, {0: [1, 2]})
    (tmp_path / "problems.jsonl").write_text('{"step": 0}\n')
    with pytest.raises(UserError, match="a line that is not a validation's counts"):
        counts_of(read_run(tmp_path), 0, 4)
