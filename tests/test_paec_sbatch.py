"""How launch/slurm/paec.sbatch ends a run, without Slurm; with it: tests/integration/test_slurm.py."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = (Path(__file__).resolve().parents[1] / "launch" / "slurm" / "paec.sbatch").read_text(encoding="utf-8")
ENDING = SCRIPT[SCRIPT.index("head='' others=") : SCRIPT.index("# until_ended PID")]
"""Its traps, and the functions that end processes."""
RUN = """
set -euo pipefail
folder=$PWD/job
scontrol() { echo "KillWait                = 17 sec"; }
ENDING
bash -c 'trap "sleep 2; touch saved; exit 0" TERM; touch started; while true; do sleep 0.1; done' &
run=$!
while [[ ! -e started ]]; do sleep 0.1; done
SIGNALS
end "$run" SECONDS_ || code=$?
echo "$code $asked"
"""


def ended(folder: Path, signals: str, seconds: int) -> tuple[str, bool]:
    """The run's exit code and the signal that was taken, and whether it had saved, which takes 2 s."""
    done = subprocess.run(
        ["bash", "-c", RUN.replace("SIGNALS", signals).replace("SECONDS_", str(seconds)).replace("ENDING", ENDING)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip(), (folder / "saved").exists()


@pytest.mark.parametrize(
    "signals, outcome",
    [
        ("asked=USR1", "0 USR1"),
        ("asked=USR1; (sleep 0.7; kill -TERM $$) &", "0 TERM"),
        ("asked=USR1; (sleep 0.7; kill -TERM $$; sleep 0.2; kill -USR1 $$) &", "0 TERM"),
        ("(sleep 0.7; kill -USR1 $$) &", "0 USR1"),
    ],
)
def test_a_run_that_is_saving_is_not_killed_at_a_second_signal(tmp_path, signals, outcome):
    assert ended(tmp_path, signals, 30) == (outcome, True)


def test_a_run_that_takes_too_long_is_killed(tmp_path):
    assert ended(tmp_path, "asked=TERM", 1) == ("137 TERM", False)
