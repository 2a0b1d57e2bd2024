"""The `paec` command: one entry to all commands, and their help."""

import signal
import subprocess
import sys
from contextlib import nullcontext
from importlib import import_module

import pytest

from recipe.paec.__main__ import COMMANDS, main, usage


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_short_and_shows_an_example(name, capsys):
    with pytest.raises(SystemExit) if name in ("compare", "export", "data") else nullcontext() as ended:
        assert main([name, "--help"]) == 0
    assert ended is None or ended.value.code == 0
    shown = capsys.readouterr().out.strip().splitlines()
    assert shown[0].startswith(f"usage: paec {name} ")
    assert any(line.startswith(f"example: paec {name} ") for line in shown)
    if ended is None:  # argparse's own is longer
        assert len(shown) <= 11


def test_all_commands_are_listed(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.strip() == usage()
    assert all(f"  {name} " in shown for name in COMMANDS)


def test_without_a_command(capsys):
    assert main([]) == 2
    assert capsys.readouterr().out.strip() == usage()


def test_a_misspelt_command(capsys):
    assert main(["tarin"]) == 2
    assert capsys.readouterr().err.startswith(
        "error: paec tarin: no such command: did you mean train? The commands are train,"
    )


def test_the_rest_of_the_line_is_the_commands(monkeypatch):
    seen = []
    module = import_module("recipe.paec.plan.command")
    monkeypatch.setattr(module, "main", lambda: seen.append(list(sys.argv)) or 3)
    monkeypatch.setattr(sys, "argv", ["pytest"])
    assert main(["plan", "experiment=qwen7b", "gpu_memory=40"]) == 3
    assert seen == [["paec plan", "experiment=qwen7b", "gpu_memory=40"]]


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_is_one_word(name, monkeypatch, capsys):
    """Where a command does not say more itself."""
    monkeypatch.setattr(import_module(COMMANDS[name][0]), "main", lambda: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr(sys, "argv", ["pytest"])
    assert main([name]) == 130
    assert capsys.readouterr().err == "interrupted\n"


OWN = """
from paec_loss import Method

class Brief(Method):
    def rewards(self, rollouts):
        return rollouts.rewards
"""


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (["train", "--check", "method=own_brief.Brief"], 0, "class_path=own_brief.Brief is valid; --dry-run"),
        (["grid", "--dry-run", "METHODS=own_brief.Brief", "SEEDS=1"], 0, "own_brief.Brief, seed 1: to do"),
        (["lab", "method=own_brief.Brief", "mini_batch=5"], 2, "prompts=32: must be a multiple of mini_batch=5"),
    ],
)
def test_a_class_in_the_current_folder(line, code, words, tmp_path, monkeypatch, capsys):
    """The installed `paec` begins without the current folder in Python's path, as here."""
    (tmp_path / "own_brief.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.delitem(sys.modules, "own_brief", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main(line) == code
    finally:
        signal.signal(signal.SIGTERM, before)
    said = capsys.readouterr()
    assert words in said.out + said.err


@pytest.mark.parametrize("start", [["-m", "recipe.paec", "train"], ["-m", "recipe.paec.train"]])
def test_it_starts_the_same_command(start):
    line = [sys.executable, *start, "experiment=tiny_cpu", "--check", "method.rho=7"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "rho" in done.stderr
