"""The command: one sentence for each folder that cannot be exported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from export_cases import saved

from recipe.paec.export import command as export_command


def test_command_line(work, tmp_path):
    """No platform has to be named; errors are one sentence and exit code 2."""
    env = {key: value for key, value in os.environ.items() if key != "VERL_PLATFORM"}
    command = [sys.executable, "-m", "recipe.paec.export"]
    done = subprocess.run(
        [*command, str(work / "tied-2"), str(tmp_path / "model"), "--dtype", "bfloat16"],
        env=env, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "writing 0.00 GiB in bfloat16" in done.stdout and (tmp_path / "model" / "model.safetensors").is_file()
    bad = subprocess.run(
        [*command, str(work), str(tmp_path / "other")], env=env, capture_output=True, text=True, timeout=120
    )
    assert bad.returncode == 2
    assert bad.stderr.count("\n") == 1 and bad.stderr.startswith("error: ") and "global_step_N" in bad.stderr


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (
            ["{}/nowhere"],
            "error: {}/nowhere: does not exist: give a folder checkpoints/global_step_N of a run, or a run",
        ),
        (
            ["{}/nowhere", "{}/out"],
            "error: {}/nowhere: does not exist: give a folder checkpoints/global_step_N of a run",
        ),
        (["{}/run"], "error: name the folder to create: python -m recipe.paec.export {}/run TARGET"),
        (
            ["{}/empty", "{}/out"],
            "error: {}/empty: the run has no checkpoint yet (trainer.save_freq): train it first",
        ),
        (["{}/run/checkpoints/global_step_1/..", "{}/run"], "error: {}/run exists and is not empty"),
        (
            ["{}", "{}/out"],
            "error: {}: paec_state.json is missing, so this recipe did not finish saving it: give a folder",
        ),
    ],
)
def test_what_cannot_be_exported(arguments, sentence, tmp_path, monkeypatch, capsys):
    saved(tmp_path / "run", 1)
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["export", *(argument.format(tmp_path) for argument in arguments)])
    assert export_command.main() == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(sentence.format(tmp_path, tmp_path)) and not (tmp_path / "out").exists()
