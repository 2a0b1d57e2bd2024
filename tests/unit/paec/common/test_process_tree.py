"""The watchdog ends a hanging run with an error that says where it hung; the metrics file survives kills."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import psutil
import pytest

from recipe.paec.common.errors import Stalled
from recipe.paec.common.process_tree import KILL_WAIT, ProcessTree
from recipe.paec.run.log import METRICS_FILE, MetricsFile, read_metrics, truncate_metrics
from recipe.paec.run.summary import closing_lines, step_line
from recipe.paec.train import watch

HANG = """
import subprocess, sys, time
from pathlib import Path
from recipe.paec.run.log import Heartbeat
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
Heartbeat(Path(sys.argv[1])).beat("weight sync", 5)
print("pid", grandchild.pid, flush=True)
time.sleep(600)
"""


def test_watchdog_ends_a_hanging_run(compose, tmp_path):
    config = compose()
    config.run.stall_timeout = 3.0
    progress = watch.Progress(config, tmp_path)
    tree = ProcessTree([sys.executable, "-c", HANG, str(tmp_path)], tmp_path / "log", dict(watch.os.environ))
    started = time.monotonic()
    with pytest.raises(Stalled, match=r"'weight sync' of step 5 .*run.stall_timeout"):
        tree.wait(progress.tick)
    grandchild = int((tmp_path / "log").read_text().split()[1])
    assert psutil.pid_exists(grandchild)
    tree.end()
    assert time.monotonic() - started < 60
    assert tree.process.poll() is not None
    assert not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE


def test_time_limit(compose, tmp_path):
    config = compose()
    config.run.time_limit = 1.0
    tree = ProcessTree([sys.executable, "-c", HANG, str(tmp_path)], tmp_path / "log", dict(watch.os.environ))
    with pytest.raises(Stalled, match="run.time_limit=1 s"):
        tree.wait(watch.Progress(config, tmp_path).tick)
    tree.end()
    assert tree.process.poll() is not None


def test_exit_code_of_the_child(tmp_path):
    tree = ProcessTree([sys.executable, "-c", "raise SystemExit(7)"], tmp_path / "log", {})
    assert tree.wait(lambda: None) == 7
    tree.end()


def test_metrics_file(tmp_path):
    written: list[int] = []
    file = MetricsFile(tmp_path, written.append)
    file.log({"a": 1.5, "b": float("nan")}, step=1)
    file.log({"a": 2.5}, step=2)
    file.log({"a": 3.5}, step=3)
    file.finish()
    assert written == [{"step": 1, "a": 1.5, "b": None}, {"step": 2, "a": 2.5}, {"step": 3, "a": 3.5}]
    path = tmp_path / METRICS_FILE
    with open(path, "a") as stream:
        stream.write('{"step": 4, "a"')
    assert read_metrics(path) == [
        {"step": 1, "a": 1.5, "b": None},
        {"step": 2, "a": 2.5},
        {"step": 3, "a": 3.5},
    ]
    truncate_metrics(path, 2)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_lines_for_people():
    first = {"step": 0, "val/task/avg@8": 0.25}
    middle = {
        "step": 1,
        "actor/entropy": 0.5,
        "actor/paec/selected_entropy": 0.4,
        "actor/paec/anchor": 0.3,
        "actor/paec/floor": 0.24,
        "actor/paec/penalty_active": 1.0,
    }
    last = {**middle, "step": 2, "actor/entropy": 0.45, "val/task/avg@8": 0.5}
    assert step_line(middle, 2).startswith("step    1/2  entropy 0.5000  Hbar 0.4000  anchor 0.3000  floor 0.2400")
    text = "\n".join(closing_lines([first, middle, last], {"metrics": "there"}))
    assert "task/avg@8: 0.250 (step 0) -> 0.500 (step 2)" in text
    assert "0.5000 (step 1) -> 0.4500" in text and "was active in 2 of 2 steps" in text and "metrics: there" in text


def test_failure_is_one_sentence(tmp_path):
    assert "was killed by SIGKILL and gave no reason" in watch.failure_of(tmp_path, -9)
    assert "failed with exit code 3 and gave no reason" in watch.failure_of(tmp_path, 3)
    ray = "(raylet) Raylet is terminated. Termination is unexpected."
    assert watch.failure_of(tmp_path, 1, ray) == "Ray on this node has ended: it was killed, or ran out of memory"
    ray = "rpc_client.h:204: Failed to connect to GCS within 15 seconds. GCS may have been killed."
    assert watch.failure_of(tmp_path, 1, ray).endswith("its gcs_server was killed, or ran out of memory")
    (tmp_path / "failure.json").write_text('{"type": "OSErr')  # what fitted on a full disk
    assert "failed with exit code 3 and gave no reason" in watch.failure_of(tmp_path, 3)
    (tmp_path / "failure.json").write_text(json.dumps({"type": "NonFiniteLogits", "message": "a\nlogits: NaN"}))
    assert watch.failure_of(tmp_path, 1) == "NonFiniteLogits: logits: NaN"


# ---- the keeper ------------------------------------------------------------------------------------------------------

# A daemon of its own session whose parent has ended, deaf to SIGTERM, like some of Ray's; then what is asked for.
DAEMON = """
import subprocess, sys, time
deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
start = f"import subprocess, sys; d = subprocess.Popen([sys.executable, '-c', {deaf!r}], start_new_session=True, "
start += "stdout=subprocess.PIPE); d.stdout.readline(); print('pid', d.pid, flush=True)"
subprocess.run([sys.executable, "-c", start], check=True)
"""


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def daemon_of(log) -> int:
    deadline = time.monotonic() + 60
    while "pid" not in (text := log.read_text() if log.exists() else ""):
        assert time.monotonic() < deadline, text
        time.sleep(0.1)
    return int(text.split()[-1])


def test_a_daemon_whose_parent_has_ended_is_still_ours(tmp_path):
    """Never looked at while its parent lived, and deaf to SIGTERM: killed after the grace."""
    tree = ProcessTree([sys.executable, "-c", DAEMON + "time.sleep(600)"], tmp_path / "log", {})
    daemon = daemon_of(tmp_path / "log")
    began = time.monotonic()
    tree.end(grace=1)
    assert gone(daemon)
    assert time.monotonic() - began < 1 + 2 * KILL_WAIT


def test_the_keeper_leaves_nothing_when_the_command_ends(tmp_path):
    tree = ProcessTree([sys.executable, "-c", DAEMON + "raise SystemExit(3)"], tmp_path / "log", {})
    assert tree.wait(lambda: None) == 3
    assert gone(daemon_of(tmp_path / "log"))
    tree.end()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_the_signal_of_the_command(tmp_path, number):
    kill = f"import os; os.kill(os.getpid(), {int(number)})"
    tree = ProcessTree([sys.executable, "-c", kill], tmp_path / "log", {})
    assert tree.wait(lambda: None) == -number
    tree.end()


def test_sigterm_is_forwarded_to_the_command(tmp_path):
    hears = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(9)); print('pid', 0, flush=True)"
    tree = ProcessTree([sys.executable, "-c", hears + "; time.sleep(600)"], tmp_path / "log", {})
    daemon_of(tmp_path / "log")
    tree.process.terminate()
    assert tree.wait(lambda: None) == 9
    tree.end()


def test_sigkill_of_the_launcher_leaves_nothing(tmp_path):
    """Every process of the tree, daemons that were never looked at included, is gone soon."""
    log = tmp_path / "log"
    launcher = "import sys, time; from pathlib import Path; from recipe.paec.common.process_tree import ProcessTree\n"
    launcher += f"ProcessTree([sys.executable, '-c', {DAEMON + 'time.sleep(600)'!r}], Path({str(log)!r}), {{}})\n"
    process = subprocess.Popen([sys.executable, "-c", launcher + "time.sleep(600)"])
    daemon = daemon_of(log)
    family = psutil.Process(process.pid).children(recursive=True)
    assert daemon in {member.pid for member in family}
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while not all(gone(member.pid) for member in family):
        assert time.monotonic() < deadline, family
        time.sleep(0.05)
