"""The training's command: its check is light and leaves nothing, the doctor comes first, and a report last."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from doctor_cases import command
from omegaconf import OmegaConf
from report_runs import write_run
from train_check import check

from recipe.paec.common.repository import REPOSITORY
from recipe.paec.report import command as report_command
from recipe.paec.train.command import files_of, write_report
from recipe.paec.train.command import main as train_main


@pytest.mark.cpu_stack
def test_training_begins_with_it(tiny_files, tmp_path):
    done = command(tiny_files, tmp_path / "runs", "cluster.num_cpus=3", module="train")
    assert done.returncode == 2 and "ok    versions: Python" in done.stdout
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("error: CPUs: Ray would offer 3, the run reserves 6")
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import sys
from recipe.paec.train import command as train
sys.argv = ["train", "--check", *sys.argv[1:]]
try:
    code = train.main()
except SystemExit as ended:
    code = ended.code
print(sorted({"torch", "verl", "ray", "vllm", "transformers", "pandas", "pyarrow"} & set(sys.modules)))
sys.exit(code)
"""


@pytest.mark.parametrize("overrides, code", [([], 0), (["method=siren", "also=clip_higher"], 0), (["seed=-1"], 2)])
def test_the_check_imports_nothing_heavy(overrides, code, tmp_path):
    started = time.monotonic()
    before = time.process_time()
    done = subprocess.run([sys.executable, "-c", SCRIPT, *overrides], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert time.monotonic() - started < 60 and time.process_time() - before < 60


def test_the_check_prints_the_configuration_when_asked(monkeypatch, capsys):
    _, out, _ = check(monkeypatch, capsys)
    assert len(out.splitlines()) == 1
    _, out, _ = check(monkeypatch, capsys, "--print-config")
    text, verdict = out.rstrip().rsplit("\n", 1)
    assert verdict.startswith("the configuration of tiny_cpu-paec is valid")
    assert OmegaConf.create(text).trainer.nnodes == 1 and "${" not in text


def test_the_configuration_alone_is_printed_and_nothing_starts(monkeypatch, capsys, tmp_path):
    missing = "data.val_files=[/nowhere/v.parquet]"  # a run would fail on it
    monkeypatch.setattr(
        sys, "argv", ["train", "--print-config", f"run.root={tmp_path / 'runs'}", "run.name=one", missing]
    )
    assert train_main() == 0
    config = OmegaConf.create(capsys.readouterr().out)
    assert (config.run.name, config.data.val_files) == ("one", ["/nowhere/v.parquet"])
    assert list(tmp_path.iterdir()) == []


def test_the_check_leaves_nothing(monkeypatch, capsys, tmp_path):
    code, _, _ = check(monkeypatch, capsys, f"run.root={tmp_path / 'runs'}")
    assert code == 0 and list(Path(tmp_path).iterdir()) == []


def test_the_report_is_named_in_the_summary(tmp_path, capsys):
    folder = write_run(tmp_path / "a")
    assert "report" not in files_of(folder)
    write_report(folder)
    assert files_of(folder)["report"] == str(folder / "report.html")
    assert capsys.readouterr().out == ""


def test_a_run_does_not_fail_because_of_its_report(tmp_path, capsys, monkeypatch):
    def fail(folder, ended):
        raise RecursionError("too deep")

    monkeypatch.setattr(report_command, "report_of", fail)
    write_report(tmp_path)
    assert capsys.readouterr().out == (
        f"no report was written (RecursionError: too deep); paec report {tmp_path} tries again\n"
    )


def test_why_the_run_failed(tmp_path):
    folder = write_run(tmp_path / "a", last=3)
    write_report(folder, ended="no heartbeat for 60 s")
    assert "failed at step 3 of 8: no heartbeat for 60 s" in (folder / "report.html").read_text(encoding="utf-8")
