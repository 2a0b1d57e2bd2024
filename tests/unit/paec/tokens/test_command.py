"""`paec tokens` from command line to file."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from token_records import record_of, validation_of, write_recorded_run

from recipe.paec.run import token_record
from recipe.paec.tokens.command import main


def data_of(file):
    (text,) = re.findall(r'id="data">(.*?)</script>', file.read_text(encoding="utf-8"), re.S)
    return json.loads(text)


@pytest.fixture
def run(tmp_path):
    return write_recorded_run(tmp_path / "mine", record_of(1), record_of(2))


def test_a_run(run, capsys):
    assert main([str(run)]) == 0
    file = run / "tokens.html"
    assert capsys.readouterr().out == f"{file} (4 responses, {file.stat().st_size / 1e6:.1f} MB)\n"
    data = data_of(file)
    assert data["title"] == "mine" and [source["label"] for source in data["sources"]] == ["step 2"]
    names = [method["name"] for method in data["methods"]]
    assert names[0] == "paec (this run)" and "paec" not in names, "the run's own method is the default one"
    assert {"siren", "forking_tokens", "clip_cov", "hicra"} <= {*names}


def test_steps_methods_and_output(run, tmp_path):
    output = tmp_path / "o.html"
    given = [str(run), "1", "2", "method=paec", "method.rho=0.5", "methods=steer", f"output={output}", "responses=6"]
    assert main(given) == 0
    data = data_of(output)
    assert [one["step"] for one in data["responses"]] == [1, 1, 1, 1, 2, 2]
    assert [method["name"] for method in data["methods"]] == ["paec (rho=0.5)", "paec (this run)", "steer"]
    assert not (run / "tokens.html").exists()


def test_the_validations_of_two_steps(run, tmp_path):
    """A prompt is the same group in both, which is what the page puts side by side."""
    for step in (0, 2):
        token_record.write(run, validation_of(step))
    output = tmp_path / "o.html"
    assert main([str(run), "0", "2", "validation=true", "methods=paec,clip_cov", f"output={output}"]) == 0
    data = data_of(output)
    assert [source["label"] for source in data["sources"]] == ["validation after step 0", "validation after step 2"]
    groups = [f"validation-countdown-{index}" for index in (3, 8)]
    assert [(one["step"], one["group"]) for one in data["responses"]] == [
        (s, group) for s in (0, 2) for group in groups
    ]
    assert [(one["score"], one["advantage"]) for one in data["responses"]] == [(1, None), (0, None)] * 2
    reasons = {method["name"]: method["reasons"] for method in data["methods"]}
    assert reasons["paec (this run)"] == ["", ""]
    assert reasons["clip_cov"] == ["needs the advantages of the responses"] * 2


def test_a_model_reads_the_recorded_responses(run, tiny_files, tmp_path):
    """Two policies on the same responses; a method with another nucleus has weights under the model only."""
    output = tmp_path / "o.html"
    given = [str(run), f"model={tiny_files / 'model'}", "method=paec", "method.top_p=0.5", f"output={output}"]
    assert main(given) == 0
    data = data_of(output)
    assert [source["label"] for source in data["sources"]] == ["step 2", "model"]
    assert [(one["response"], one["source"]) for one in data["readings"]] == [(i, s) for s in (0, 1) for i in range(4)]
    assert data["candidates"][0] is None and data["candidates"][1] is not None
    assert data["methods"][0]["reasons"] == ["needs a nucleus of mass 0.5, here is one of 0.8", ""]
    assert data["methods"][1]["reasons"] == ["", ""]


def test_a_text_under_two_models(tiny_files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = f"model={tiny_files / 'model'}"
    assert main([model, model, "text=So the sum is 7.", "prompt=3 + 4?"]) == 0
    data = data_of(tmp_path / "tokens.html")
    assert len(data["sources"]) == 2 and len(data["responses"]) == 1
    assert data["responses"][0]["prompt"] == "3 + 4?" and data["responses"][0]["score"] is None
    reasons = {method["name"]: method["reasons"] for method in data["methods"]}
    assert reasons["clip_cov"] == ["needs the advantages of the responses"] * 2 and reasons["paec"] == ["", ""]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "error: nowhere: does not exist: give the directory of a run"),
        (["{run}", "9"], "was not recorded, or its record was deleted (docs/tokens.md); it has 1, 2"),
        (["{run}", "validation=true"], "has no token record of a validation (tokens/validation/)"),
        (["{run}", "output={run}"], "is a folder: give the name of a file"),
        (["{run}", "model=no/such/model"], "error: model=no/such/model: does not exist"),
        ([], "error: give a run, or model=... with text=... or file=..."),
    ],
)
def test_errors_are_one_sentence(run, capsys, arguments, sentence):
    assert main([argument.format(run=run) for argument in arguments]) == 2
    told = capsys.readouterr().err
    assert sentence in told and told.count("\n") == 1
    assert not (run / "tokens.html").exists()


def test_a_record_that_is_broken(run, capsys):
    (run / "tokens" / "2.parquet").write_bytes(b"PAR1")
    assert main([str(run)]) == 2
    assert "2.parquet: is not a complete token record: delete it, or choose another step" in capsys.readouterr().err


def test_help_needs_no_torch():
    code = "import sys; from recipe.paec.tokens.command import main; code = main(['--help'])"
    code += "; print(sorted({'torch', 'pyarrow', 'transformers'} & set(sys.modules))); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: paec tokens RUN") and done.stdout.endswith("[]\n")
