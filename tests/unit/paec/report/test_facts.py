"""Key numbers and provenance."""

import json
from dataclasses import replace

from report_runs import write_run

from recipe.paec.report.facts import Fact, facts_of, provenance
from recipe.paec.report.runs import read_run


def test_key_numbers(tmp_path):
    found = {fact.label: (fact.value, fact.detail) for fact in facts_of(read_run(write_run(tmp_path / "a")))}
    assert found == {
        "steps": ("8 of 8", ""),
        "reasoning_gym/countdown/avg@4": ("50.0 %", "step 8; 25.0 % at step 0, best 50.0 % at step 8"),
        "token entropy": ("0.3750 nats", "step 8; 0.4844 at step 1"),
        "H\u0304, selected positions": ("0.4750 nats", "step 8, anchor 0.6000, floor 0.4800"),
        "penalty active": ("1 of 8 steps", ""),
        "score, last tenth": ("0.500", ""),
        "response length, last tenth": ("28.0 tokens", ""),
        "cut off, last tenth": ("6.2 %", ""),
        "time per step": ("10.0 s", "median; 80 s in steps"),
        "memory in use on the machine, peak": ("7.5 GiB", ""),
    }


def test_a_normalised_entropy_has_no_unit(tmp_path):
    run, own = read_run(write_run(tmp_path / "a")), {"entropy": "normalized"}
    for config in ({"method": own}, {"method": {"entropy": "full"}, "also": {"paec": own}}):
        found = {fact.label: fact.value for fact in facts_of(replace(run, config=config))}
        assert found["H\u0304, selected positions"] == "0.4750" and found["token entropy"] == "0.3750 nats"


def test_a_run_that_diverged(tmp_path):
    """From step 3 on its loss, gradient and entropies are NaN: no earlier step stands for the end."""
    folder = write_run(tmp_path / "a")
    text = (folder / "metrics.jsonl").read_text().splitlines()
    for number, line in enumerate(text):
        values = json.loads(line)
        if values["step"] >= 3:
            lost = ("actor/entropy", "actor/grad_norm", "actor/paec/selected_entropy", "critic/score/mean")
            text[number] = json.dumps(values | dict.fromkeys(lost))
    (folder / "metrics.jsonl").write_text("\n".join(text) + "\n")
    run = read_run(folder)
    assert run.remarks == (
        "actor/entropy is NaN or infinite at 6 of 8 steps, first at step 3",
        "actor/grad_norm is NaN or infinite at 6 of 8 steps, first at step 3",
    )
    found = {fact.label: (fact.value, fact.detail) for fact in facts_of(run)}
    assert found["token entropy"] == ("not finite", "since step 3; 0.4844 at step 1")
    assert found["H\u0304, selected positions"] == ("not finite", "since step 3, anchor 0.6000, floor 0.4800")
    assert found["score, last tenth"] == ("not finite", "")


def test_a_run_that_was_never_finite(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "actor/entropy": NaN}\n{"step": 2, "actor/entropy": NaN}\n')
    facts = facts_of(read_run(tmp_path))
    assert facts[1] == Fact("token entropy", "not finite", "since step 1")


def test_a_run_without_steps_has_few(tmp_path):
    (tmp_path / ".paec_folder.json").write_text('{"kind": "run"}')
    assert facts_of(read_run(tmp_path)) == [Fact("steps", "0")]


def test_provenance(tmp_path):
    found = {fact.label: fact.value for fact in provenance(read_run(write_run(tmp_path / "a", seed=3)))}
    assert found == {
        "directory": str(tmp_path / "a"),
        "experiment": "tiny_cpu",
        "command line": "seed=3",
        "method": "paec",
        "training data": "data/train.parquet",
        "seed": "3",
        "workers": "1",
        "commit": "abc123",
        "verl": "0.9.1",
    }
