"""The command: what it prints and writes, and what it refuses."""

import json

import pytest
from analysed import lab_run, sampled_evaluation, write_lines

from recipe.paec.analyse.catalogue import ANALYSES
from recipe.paec.analyse.command import main, usage


def test_tables_and_json(tmp_path, capsys):
    run = lab_run(tmp_path / "run", {0: [1, 2, 0], 5: [3, 2, 0], 9: [3, 4, 1]})
    output = tmp_path / "out" / "analysis.json"
    assert main([str(run), "--only", "support", "--output", str(output)]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.startswith("## Support\n\n| policies") and shown.out.rstrip().endswith(str(output))
    content = json.loads(output.read_text())
    assert content["format"] == 1 and content["remarks"] == []
    assert content["analyses"]["support"][0]["counts"] == {"kept": 2, "expanded": 1, "shrunk": 0, "unsolved": 0}


def test_evaluations_against_a_base(tmp_path, capsys):
    base = sampled_evaluation(tmp_path / "base", {"aime24": ["Aa", "bb"]})
    trained = sampled_evaluation(tmp_path / "paec", {"aime24": ["aa", "Bb"]})
    assert main([str(trained), "--base", str(base), "--only", "support"]) == 0
    assert "0/1/1/0" in capsys.readouterr().out


def test_what_is_missing_is_said_and_the_rest_is_shown(tmp_path, capsys):
    run = lab_run(tmp_path / "run", {0: [1, 2], 9: [3, 4]})
    file = write_lines(tmp_path / "other.jsonl", [{"step": 1, "actor/entropy": 0.5}])
    assert main([str(run), str(file), "--only", "support"]) == 0
    shown = capsys.readouterr()
    assert shown.err == "warning: other: support: needs samples: give an evaluation, or a run with validations\n"
    assert "run, validation" in shown.out


def test_nothing_at_all(tmp_path, capsys):
    file = write_lines(tmp_path / "other.jsonl", [{"step": 1, "actor/entropy": 0.5}])
    assert main([str(file), "--only", "support"]) == 2
    assert capsys.readouterr().err.startswith("error: other: support: needs samples")


def test_lists_of_phrases(tmp_path, capsys):
    """A list is mined from the responses and written; then it is an ordinary file."""
    one = sampled_evaluation(tmp_path / "one", {"aime24": ["AAaa", "bbBb"]})
    samples = one / "samples.jsonl"
    samples.write_text(samples.read_text().replace("x" * 99, "we try it again"))
    file = tmp_path / "list.txt"
    assert main([str(one), "--only", "planning", "--mine", str(file)]) == 0
    mined = capsys.readouterr().out
    assert f"3 phrases of {file}" in mined and " 3.000 [3.000, 3.000] " in mined
    assert file.read_text() == "[try it again]\ntry it again\nwe try it\nwe try it again\n"
    assert main([str(one), "--only", "planning", "--phrases", str(file)]) == 0
    assert capsys.readouterr().out == mined
    assert main([str(one), "--only", "planning", "--mine", str(file)]) == 2
    assert "list.txt: exists already: use it with --phrases, or name a new file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["missing"], "missing: does not exist"),
        (["{run}", "--output", "{run}"], "is a folder: give the name of a file"),
        (["{run}", "--base", "{run}"], "is not an evaluation"),
    ],
)
def test_errors(tmp_path, capsys, arguments, sentence):
    run = lab_run(tmp_path / "run", {0: [1, 2], 9: [3, 4]})
    assert main([argument.format(run=run) for argument in arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_the_help_names_every_analysis(capsys):
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.strip() == usage()
    assert all(name in usage() for name in ANALYSES)
