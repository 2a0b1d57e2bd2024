"""From input to file: what is refused, what is counted, what is written, and that a failure leaves nothing."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest

from data_prep import prepare as preparation
from data_prep.__main__ import list_sets, main
from data_prep.contract import validate_rows
from data_prep.prepare import contract_rows, describe_counts, is_mathematics, undo_repetition
from data_prep.sets import DATA_SETS, Problem
from data_prep.templates import FOREIGN_SUFFIXES
from recipe.grading import sources


def problems(count, start=0):
    """Problems that are nothing like each other to a search for duplicates."""
    return [
        {"problem": f"Find {n} plus {n * n + 7} times $x_{{{n}}}$.", "answer": str(n % 900)}
        for n in range(start, start + count)
    ]


def put(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def run(tmp_path, data_set, rows, *flags, output="out"):
    source = put(tmp_path / "in.jsonl", rows)
    return main([data_set, "--input", str(source), "--output", str(tmp_path / output), *flags])


def content(tmp_path, name):
    return json.loads((tmp_path / "out" / name).read_text(encoding="utf-8"))


def written(tmp_path, split="train"):
    return [extra["problem"] for extra in validate_rows(tmp_path / "out" / f"{split}.parquet").extra_info]


@pytest.fixture
def small(monkeypatch):
    """The training set math with 5 problems instead of 7,500."""
    monkeypatch.setitem(DATA_SETS, "math", replace(DATA_SETS["math"], counts={"train": (5,), "test": (5,)}))


def test_a_benchmark_from_end_to_end(tmp_path, capsys):
    rows = problems(30)
    assert run(tmp_path, "aime25", rows) == 0
    assert capsys.readouterr().out == f"{tmp_path}/out/test.parquet: read 30, written 30\n"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "test.manifest.json",
        "test.parquet",
        "test.report.json",
    ]
    manifest = content(tmp_path, "test.manifest.json")
    source = (tmp_path / "in.jsonl").read_bytes()
    data = (tmp_path / "out" / "test.parquet").read_bytes()
    assert manifest == {
        "set": "aime25",
        "split": "test",
        "source": {
            "path": str(tmp_path / "in.jsonl"),
            "files": [
                {
                    "path": str(tmp_path / "in.jsonl"),
                    "bytes": len(source),
                    "sha256": hashlib.sha256(source).hexdigest(),
                }
            ],
        },
        "counts": {
            "read": 30,
            "malformed": 0,
            "left_out": {},
            "instructions_stripped": 0,
            "repetition_undone": 0,
            "exact_duplicates": 0,
            "near_duplicates": 0,
            "conflicting": 0,
            "contaminated": 0,
            "written": 30,
        },
        "count_matches": True,
        "template": {
            "name": "boxed",
            "text": "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{}.",
        },
        "options": {
            "drop_malformed": False,
            "allow_count_mismatch": False,
            "keep_duplicates": False,
            "benchmarks": [],
            "drop_contaminated": False,
        },
        "output": {"path": "test.parquet", "sha256": hashlib.sha256(data).hexdigest()},
        "versions": manifest["versions"],
    }
    assert manifest["versions"]["data_prep"] == preparation.VERSION
    assert manifest["versions"]["pandas"] == pd.__version__
    assert content(tmp_path, "test.report.json") == {"malformed": [], "left_out": [], "repetition": None}
    row = validate_rows(tmp_path / "out" / "test.parquet").iloc[29]
    assert (row.data_source, row.ability, row.reward_model) == (
        "aime25",
        "math",
        {"style": "rule", "ground_truth": "29"},
    )
    assert row.extra_info == {
        "split": "test",
        "index": 29,
        "id": "aime25/29",
        "template": "boxed",
        "problem": rows[29]["problem"],
        "source": "in.jsonl, line 30",
    }


def test_equal_input_gives_equal_files(tmp_path):
    for output in ("out", "again.parquet"):
        assert run(tmp_path, "aime25", problems(30), output=output) == 0
    assert (tmp_path / "out" / "test.parquet").read_bytes() == (tmp_path / "again.parquet").read_bytes()
    assert json.loads((tmp_path / "again.manifest.json").read_text())["output"]["path"] == "again.parquet"


def test_existing_output_is_refused_before_the_input_is_read(tmp_path, capsys):
    assert run(tmp_path, "aime25", problems(30)) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert run(tmp_path, "aime25", ["not JSON"]) == 2
    assert capsys.readouterr().err.endswith(
        "out/test.parquet: already exists; pass --overwrite to replace it, or choose another --output\n"
    )
    assert run(tmp_path, "aime25", ["not JSON"], "--overwrite") == 2
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert run(tmp_path, "aime25", problems(30, 50), "--overwrite", "--template", "none") == 0
    assert written(tmp_path, "test")[0] == problems(1, 50)[0]["problem"]
    # What a stopped run left without its data is not silently taken over either.
    (tmp_path / "out" / "test.parquet").unlink()
    assert run(tmp_path, "aime25", problems(30)) == 2
    assert "test.report.json: already exists;" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["test.parquet", "test.report.json", "test.manifest.json"])
def test_a_file_of_somebody_else_is_not_overwritten(tmp_path, capsys, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text('{"mine": 1}')
    assert run(tmp_path, "aime25", problems(30), "--overwrite") == 2
    assert capsys.readouterr().err.endswith(
        f"out/{name}: exists and was not written by this command; move it away, or choose another --output\n"
    )
    assert [(p.name, p.read_text()) for p in (tmp_path / "out").iterdir()] == [(name, '{"mine": 1}')]


def test_what_a_killed_run_left_is_removed(tmp_path, capsys):
    """Before the input is read, so that it goes even when this run fails."""
    left = [f"out/.test.{kind}.partial-99999999-0123abcd" for kind in ("parquet", "report.json", "manifest.json")]
    (tmp_path / "out").mkdir()
    for name in (*left, "out/.test.parquet.partial-mine", "out/.train.parquet.partial-99999999"):
        (tmp_path / name).write_text("half")
    assert run(tmp_path, "aime25", ["not JSON"]) == 2
    err = capsys.readouterr().err
    assert all(f"removed {tmp_path / name}, left by a killed run" in err for name in left)
    rest = [".test.parquet.partial-mine", ".train.parquet.partial-99999999"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == rest


def test_a_run_that_is_killed_while_writing_leaves_nothing_after_the_next(tmp_path):
    script = """
import os, signal, sys
from data_prep import prepare
prepare.version = lambda _: os.kill(os.getpid(), signal.SIGKILL)
from data_prep.__main__ import main
main(sys.argv[1:])
"""
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems(30)))
    options = ["aime25", "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", script, *options], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert len([path for path in (tmp_path / "out").iterdir() if ".partial-" in path.name]) == 3
    assert main(options) == 0
    names = ["test.manifest.json", "test.parquet", "test.report.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names


def test_an_output_that_cannot_be_is_refused_before_the_input_is_read(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.parquet").mkdir()
    for output, message in (
        ("file", "file: is a file, so {}/file/test.parquet cannot be created in it; choose another --output"),
        (
            "file/deep/a.parquet",
            "file: is a file, so {}/file/deep/a.parquet cannot be created in it; choose another --output",
        ),
        ("folder.parquet", "folder.parquet: is a folder; choose another --output"),
    ):
        assert run(tmp_path, "aime25", ["not JSON"], "--overwrite", output=output) == 2
        assert capsys.readouterr().err == f"error: {tmp_path}/{message.format(tmp_path)}\n"


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.PARQUET"])
def test_an_output_with_the_name_of_another_file_is_no_folder(tmp_path, capsys, name):
    assert run(tmp_path, "aime25", problems(30), output=name) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/{name}: the output is a .parquet file or a folder; write rows.parquet\n"
    )
    assert not (tmp_path / name).exists()
    assert run(tmp_path, "aime25", problems(30), output="set.v2") == 0 and (tmp_path / "set.v2/test.parquet").is_file()


FAULTS = [
    "{half",
    {"answer": "1"},
    {"problem": None, "answer": "1"},
    {"problem": "a\x00b?", "answer": "1"},
    {"problem": "a\ud800b?", "answer": "1"},
    {"problem": "x" * 20_001, "answer": "1"},
    {"problem": "one", "answer": ""},
    {"problem": "one", "answer": float("nan")},
    {"problem": "one", "answer": "3.5"},
    {"problem": ["one"], "answer": "3"},
    "[]",
]


def test_every_malformed_row_is_named_and_nothing_is_written(tmp_path, capsys):
    rows = problems(30)
    rows[3:3] = FAULTS
    assert run(tmp_path, "aime25", rows) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0] for line in lines[:-1]] == [
        f"in.jsonl, line {number}" + (f", field {field}" if field != "-" else "")
        for number, field in zip(
            range(4, 15),
            "- problem problem problem problem problem answer answer answer problem -".split(),
            strict=True,
        )
    ]
    assert lines[-1] == (
        "error: 11 malformed rows, so nothing was written; correct the input, or pass --drop-malformed to leave out "
        "what is malformed (the report then lists it all)"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]

    assert run(tmp_path, "aime25", rows, "--drop-malformed") == 0
    assert written(tmp_path, "test") == [row["problem"] for row in problems(30)]
    counts = content(tmp_path, "test.manifest.json")["counts"]
    assert (counts["read"], counts["malformed"], counts["written"]) == (41, 11, 30)
    report = content(tmp_path, "test.report.json")["malformed"]
    assert len(report) == 11
    assert report[7] == {"where": "in.jsonl, line 11", "field": "answer", "problem": "missing"}
    assert "11 malformed rows left out" in capsys.readouterr().err


def test_many_malformed_rows_are_summed_up(tmp_path, capsys):
    assert run(tmp_path, "aime25", [*problems(30), *["{"] * 1500]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 22
    assert lines[20] == "... and 1,480 more malformed rows"


def test_layout_is_known_although_the_first_thousand_rows_are_bad(tmp_path):
    assert run(tmp_path, "aime25", ["{"] * 1500 + problems(30), "--drop-malformed") == 0
    assert content(tmp_path, "test.manifest.json")["counts"]["written"] == 30


def test_unknown_layout_and_empty_input(tmp_path, capsys):
    assert run(tmp_path, "gsm8k", [{"frage": "1+1?", "antwort": "2"}]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/in.jsonl: columns antwort, frage are not a known layout of gsm8k; "
        "known layouts have prompt + reward_model or answer + question\n"
    )
    assert run(tmp_path, "gsm8k", [{}]) == 2
    assert "columns (none)" in capsys.readouterr().err
    assert run(tmp_path, "gsm8k", []) == 2
    assert "has no rows;" in capsys.readouterr().err
    assert run(tmp_path, "aime25", ["{"], "--drop-malformed", "--allow-count-mismatch") == 2
    assert "none of the 1 rows is left" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_rows_of_other_sets_are_left_out_and_reported(tmp_path, capsys):
    rows = [{**row, "url": f"https://example.org/{2022 + i % 2}_AMC_12A"} for i, row in enumerate(problems(80))]
    assert run(tmp_path, "amc23", rows) == 0
    assert "in.jsonl: rows that do not belong to this set: {'other contest': 40}" in capsys.readouterr().err
    assert content(tmp_path, "test.manifest.json")["counts"]["left_out"] == {"other contest": 40}
    report = content(tmp_path, "test.report.json")["left_out"]
    assert len(report) == 40 and report[1] == {"where": "in.jsonl, line 3", "reason": "other contest"}


def test_counts(tmp_path, capsys):
    assert run(tmp_path, "aime25", problems(29)) == 2
    assert capsys.readouterr().err.endswith(
        "error: aime25, test: 29 rows with 29 distinct problems instead of 30 problems; "
        "pass the complete published set, or --allow-count-mismatch\n"
    )
    # A repeated problem in a benchmark is an error whichever way the number comes out.
    for rows in ([*problems(30), problems(1, 4)[0]], [*problems(29), problems(1, 4)[0]]):
        assert run(tmp_path, "aime25", rows) == 2
        line = len(rows)
        assert f"(first repeated problem: in.jsonl, line 5 and in.jsonl, line {line})" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run(tmp_path, "aime25", problems(29), "--allow-count-mismatch") == 0
    assert content(tmp_path, "test.manifest.json")["count_matches"] is False
    assert "29 rows with 29 distinct problems instead of 30 problems; allowed" in capsys.readouterr().err
    assert describe_counts((675, 674)) == "675 or 674"
    assert describe_counts(range(45_000, 47_000)) == "45,000 to 46,999"


def test_repetition_is_undone_loudly(tmp_path, capsys):
    rows = problems(30) * 32
    assert run(tmp_path, "aime25", rows) == 0
    assert "in.jsonl: EVERY ROW IS REPEATED, usually 32 times; one of each is kept: 30 rows" in capsys.readouterr().err
    assert content(tmp_path, "test.manifest.json")["counts"]["repetition_undone"] == 930
    assert written(tmp_path, "test") == [row["problem"] for row in problems(30)]


def test_repetition_rule():
    def made(counts):
        return [Problem(f"p{i}", "a", None, f"{i}.{k}", False) for i, n in enumerate(counts) for k in range(n)]

    assert undo_repetition(made([1, 1, 1])) == (made([1, 1, 1]), None)
    assert undo_repetition(made([2, 1])) == (made([2, 1]), None)
    assert undo_repetition([]) == ([], None)
    # Nearly: 19 of 20 are repeated, one of them twice as often (DAPO has such prompts).
    kept, words = undo_repetition(made([200, 1] + [100] * 18))
    assert [problem.where for problem in kept] == [f"{i}.0" for i in range(20)]
    assert words == "usually 100 times, between 1 and 200"
    assert undo_repetition(made([200, 1, 1] + [100] * 17))[1] is None
    # The same text with another answer is another row.
    two = [Problem("p", "1", None, "x", False), Problem("p", "2", None, "y", False)]
    assert undo_repetition(two * 3) == (two, "usually 3 times")
    # And so it is after another system turn, and with other further columns.
    for more in ({"system": "French"}, {"extra": {"lang": "c"}}):
        rows = [two[0], replace(two[0], **more)]
        assert undo_repetition(rows) == (rows, None)
        assert undo_repetition(rows * 2) == (rows, "usually 2 times")


def test_the_setting_of_a_problem():
    plain = Problem("p", "1", None, "x", False)
    assert plain.setting == (None,) != replace(plain, system="").setting
    assert replace(plain, system="s", extra={"a": "1", "b": "2"}).setting == ("s", "1", "2")


def test_dapo_counts_problems_not_answers(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(DATA_SETS, "dapo_math_17k", replace(DATA_SETS["dapo_math_17k"], counts={"train": (5,)}))
    rows = [{"prompt": row["problem"], "solution": row["answer"]} for row in problems(5)]
    rows[4]["prompt"] = f"{rows[4]['prompt']} {FOREIGN_SUFFIXES[0]}"
    twice = {**rows[2], "solution": "33"}
    assert run(tmp_path, "dapo_math_17k", [*rows, twice, rows[0]] * 100) == 0
    counts = content(tmp_path, "train.manifest.json")["counts"]
    assert counts == {
        "read": 700,
        "malformed": 0,
        "left_out": {},
        "instructions_stripped": 100,
        "repetition_undone": 694,
        "exact_duplicates": 0,
        "near_duplicates": 0,
        "conflicting": 2,
        "contaminated": 0,
        "written": 4,
    }
    assert written(tmp_path) == [row["problem"] for i, row in enumerate(problems(5)) if i != 2]
    assert "in.jsonl: instructions of another recipe stripped from 100 prompts" in capsys.readouterr().err
    group = content(tmp_path, "train.report.json")["duplicates"][0]
    assert (group["kind"], group["answers"], group["where"]) == (
        "exact",
        ["2", "33"],
        ["in.jsonl, line 3", "in.jsonl, line 6"],
    )


def test_duplicates_of_a_training_set(tmp_path, small):
    rows = problems(4)
    rows.append({"problem": rows[1]["problem"].replace("Find", " find"), "answer": "1.0"})
    assert run(tmp_path, "math", rows) == 0
    counts = content(tmp_path, "train.manifest.json")["counts"]
    assert (counts["exact_duplicates"], counts["conflicting"], counts["written"]) == (1, 0, 4)
    assert run(tmp_path, "math", rows, "--keep-duplicates", "--overwrite") == 0
    assert len(written(tmp_path)) == 5
    assert "duplicates" not in content(tmp_path, "train.report.json")
    assert run(tmp_path, "math", rows, "--split", "test") == 0  # a benchmark is never deduplicated
    assert len(written(tmp_path, "test")) == 5


@pytest.mark.parametrize(
    ("source", "found"),
    [
        *((name, True) for name in DATA_SETS),
        *((f"{scorer}/mine", scorer.startswith("math")) for scorer in sources.NAMES[:-1]),
        ("mine", False),
        ("reasoning_gym/countdown", False),
    ],
)
def test_what_is_graded_as_mathematics(source, found):
    assert is_mathematics(source) is found
    (row,) = contract_rows(source, "train", [Problem("p", "1", None, "x", False)], "none")
    assert row["ability"] == ("math" if found else "general")


def test_contamination(tmp_path, small, capsys):
    known = "Let $a$ and $b$ be positive integers whose product is 2024 and whose sum is least; find $a+b$."
    bench = [*problems(29, 500), {"problem": known, "answer": "90"}]
    assert run(tmp_path, "aime25", bench, output="bench") == 0
    file = str(tmp_path / "bench" / "test.parquet")
    rows = [*problems(4), {"problem": known.replace("$", " $ "), "answer": "90"}]
    assert run(tmp_path, "math", rows, "--benchmarks", file) == 0
    overlap = content(tmp_path, "train.report.json")["contamination"]["benchmarks"]["aime25"]
    assert (overlap["size"], overlap["contaminated"]) == (30, 1)
    assert [(copy["problem"], copy["where"]) for copy in overlap["copies"]] == [(29, "in.jsonl, line 5")]
    manifest = content(tmp_path, "train.manifest.json")
    assert (manifest["counts"]["contaminated"], manifest["counts"]["written"]) == (0, 5)
    data = (tmp_path / "bench" / "test.parquet").read_bytes()
    assert manifest["options"]["benchmarks"] == [{"path": file, "sha256": hashlib.sha256(data).hexdigest()}]
    assert "aime25" in capsys.readouterr().err
    assert run(tmp_path, "math", rows, "--benchmarks", file, "--drop-contaminated", "--overwrite") == 0
    counts = content(tmp_path, "train.manifest.json")["counts"]
    assert (counts["contaminated"], counts["written"]) == (1, 4)
    assert written(tmp_path) == [row["problem"] for row in problems(4)]


def test_options_that_do_not_fit_together(tmp_path, small, capsys):
    assert run(tmp_path, "math", problems(5), "--split", "test", "--keep-duplicates") == 2
    assert "--drop-contaminated need --split train" in capsys.readouterr().err
    assert run(tmp_path, "math", problems(5), "--drop-contaminated") == 2
    assert "name prepared files with --benchmarks" in capsys.readouterr().err
    assert run(tmp_path, "math", problems(5), "--benchmarks", str(tmp_path / "absent.parquet")) == 2
    assert "absent.parquet" in capsys.readouterr().err
    for wrong in (["aime25", "--output", "x", "--split", "train"], ["no_set"], ["aime25"], []):
        with pytest.raises(SystemExit) as caught:
            main(wrong)
        assert caught.value.code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("failing", ["write_parquet_part", "version"])
def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch, capsys, failing):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preparation, failing, fail)
    assert run(tmp_path, "aime25", problems(30)) == 2
    assert capsys.readouterr().err.endswith("error: [Errno 28] No space left on device\n")
    assert not list((tmp_path / "out").iterdir())
    monkeypatch.undo()
    assert run(tmp_path, "aime25", problems(30)) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    monkeypatch.setattr(preparation, failing, fail)
    assert run(tmp_path, "aime25", problems(30, 90), "--overwrite") == 2
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_the_manifest_comes_last(tmp_path, monkeypatch):
    """Stopped between two renames, there is data without a manifest, but never a manifest without its data."""
    assert run(tmp_path, "aime25", problems(30)) == 0
    renamed = []
    replace_file = os.replace

    def stop_at_second(source, target):
        final = ".partial-" not in str(target)
        if final and renamed:
            raise OSError("stopped")
        replace_file(source, target)
        renamed.extend([os.path.basename(target)] * final)

    monkeypatch.setattr(os, "replace", stop_at_second)
    assert run(tmp_path, "aime25", problems(30, 90), "--overwrite") == 2
    assert renamed == ["test.parquet"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["test.parquet", "test.report.json"]


def test_list():
    lines = list_sets().splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == [*DATA_SETS, "reasoning_gym"]
    assert "olympiadbench    test 675 or 674            Hothan/OlympiadBench (OE_TO_maths_en_COMP)" in lines


def test_command_line_offline(tmp_path):
    """The real command, without a network: one sentence, exit code 2, nothing written."""
    command = [sys.executable, "-m", "data_prep", "aime24", "--output", str(tmp_path / "out")]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(
        "error: HuggingFaceH4/aime_2024: is neither a local file nor a hub data set that can be loaded (ConnectionError"
    )
    assert done.stderr.endswith(
        "check the name, the network and HF_HUB_OFFLINE, or pass a local copy with --input FILE\n"
    )
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
