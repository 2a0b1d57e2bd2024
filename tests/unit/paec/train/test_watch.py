"""The watchdog ends a hanging run with an error that says where it hung."""

from __future__ import annotations

import json
import os
import sys
import time

import pytest
from processes import gone

from recipe.paec.common.errors import Stalled
from recipe.paec.common.process_tree import ProcessTree
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
    tree = ProcessTree([sys.executable, "-c", HANG, str(tmp_path)], tmp_path / "log", dict(os.environ))
    started = time.monotonic()
    with pytest.raises(Stalled, match=r"'weight sync' of step 5 .*run.stall_timeout"):
        tree.wait(progress.tick)
    grandchild = int((tmp_path / "log").read_text().split()[1])
    assert not gone(grandchild)
    tree.end()
    assert time.monotonic() - started < 60
    assert tree.process.poll() is not None
    assert gone(grandchild)


def test_time_limit(compose, tmp_path):
    config = compose()
    config.run.time_limit, config.run.fresh = 1.0, True
    tree = ProcessTree([sys.executable, "-c", HANG, str(tmp_path)], tmp_path / "log", dict(os.environ))
    with pytest.raises(Stalled, match="run.time_limit=1 s, .*; resume with the same command without run.fresh=true"):
        tree.wait(watch.Progress(config, tmp_path).tick)
    tree.end()
    assert tree.process.poll() is not None


def test_a_step_without_a_log_prob_pass_counts(compose, tmp_path):
    """Its record has no entropy; from it on, SIGTERM asks for a checkpoint. A validation before it is no step."""
    progress = watch.Progress(compose(), tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as metrics:
        for record, trained in (
            ({"step": 0, "val/x/avg@4": 0.5, "timing_s/testing": 3.0}, False),
            ({"step": 1, "actor/grad_norm": None, "timing_s/step": 2.0}, True),
        ):
            metrics.write(json.dumps(record) + "\n")
            metrics.flush()
            progress.tick()
            assert progress.training == trained
            assert list(progress._signs.current) == (["nan"] if trained else [])


@pytest.mark.parametrize(("method", "warned"), [("none", ["mismatch"]), ("aepo", [])])
def test_another_temperature_is_no_mismatch(compose, tmp_path, method, warned):
    progress = watch.Progress(compose(f"method={method}"), tmp_path)
    record = {"step": 1, "rollout_corr/log_ppl_abs_diff": 0.2, "timing_s/step": 2.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    progress.tick()
    assert list(progress._signs.current) == warned


def test_a_mismatch_names_what_the_configuration_has(compose, tmp_path):
    progress = watch.Progress(compose("actor_rollout_ref.rollout.top_p=0.9"), tmp_path)
    record = {"step": 1, "rollout_corr/log_ppl_abs_diff": 0.08, "timing_s/step": 2.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    progress.tick()
    assert "is off-policy: actor_rollout_ref.rollout.top_p=0.9: vLLM's" in progress._signs.current["mismatch"]


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
