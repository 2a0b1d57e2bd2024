"""A process that is started early: what it has when it begins, and that nothing is left of one that never does."""

from __future__ import annotations

import os
import time

import psutil
import pytest
from omegaconf import OmegaConf
from processes import gone

from recipe.paec.common.child import run_on_ray
from recipe.paec.common.early import environment_of, inherited, started_early

PROCESS = """
import os, sys
from recipe.paec.common.early import EARLY, wait_for_work
print("imports", os.environ["OWN"], "libgomp" in os.environ["LD_PRELOAD"], flush=True)
if os.environ["OWN"] == "dies":
    sys.exit(3)
file = wait_for_work() if sys.argv[1] == EARLY else sys.argv[1]
print("begins", file, "RAY_AUTH_TOKEN_PATH" in os.environ, flush=True)
print("fails", file=sys.stderr)
sys.exit(5)
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """cluster(own): PROCESS's Hydra group `cluster`."""
    (tmp_path / "a_process.py").write_text(PROCESS)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")

    def cluster(own: str = "this", fork: bool = True):
        return OmegaConf.create({"platform": "cpu", "ray_address": None, "fork_workers": fork, "env": {"OWN": own}})

    return cluster


def below() -> set[int]:
    """Processes below this one that the test started; a browser or a server of an earlier test may be there too."""
    return {process.pid for process in psutil.Process().children(recursive=True)} - BEFORE


BEFORE: set[int] = set()


@pytest.fixture(autouse=True)
def before():
    BEFORE.clear()
    BEFORE.update(below())


def run(cluster, tmp_path, early):
    log, file = tmp_path / "a.log", tmp_path / "job.json"
    return run_on_ray("a_process", file, cluster, tmp_path, log, lambda: None, grace=0.5, early=early)


def test_it_begins_as_if_it_had_just_been_started(cluster, tmp_path):
    (tmp_path / "a.log").write_text("of an earlier start\n")
    with started_early("a_process", cluster()) as early:
        (first,) = below()
        ended = run(cluster(), tmp_path, early)
        assert ended.code == 5
        begins = f"begins {tmp_path / 'job.json'} True"
        assert ended.output.splitlines() == ["imports this True", begins, "fails"]
        assert early.begin(tmp_path / "job.json", tmp_path / "a.log", {}) is None, "it begins once"
    assert gone(first)
    assert (tmp_path / "a.log").read_text().startswith("of an earlier start\nimports")


def test_one_that_never_begins_is_ended(cluster):
    with pytest.raises(ValueError), started_early("a_process", cluster()):
        assert len(below()) >= 1
        raise ValueError
    assert below() == set()


def test_one_that_has_died_is_started_anew(cluster, tmp_path):
    with started_early("a_process", cluster(own="dies")) as early:
        deadline = time.monotonic() + 60
        while below() and time.monotonic() < deadline:
            time.sleep(0.1)
            early._tree.process.poll()
        ended = run(cluster(), tmp_path, early)
    assert ended.code == 5
    assert [line.split()[0] for line in ended.output.splitlines()] == ["imports", "imports", "begins", "fails"]


def test_where_nothing_is_forked_nothing_is_started_early(cluster):
    with started_early("a_process", cluster(fork=False)) as early:
        assert early is None and below() == set()


def test_an_nvidia_node_has_no_variable_of_rocm(cluster, monkeypatch):
    """Slurm sets both, also in an interactive shell; on another platform they are left alone."""
    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    cuda = cluster(fork=False)
    cuda.platform = "cuda"
    for made in (environment_of, inherited):
        assert made(cuda).keys() == os.environ.keys() - {"ROCR_VISIBLE_DEVICES"} | {"OWN"}
        assert made(cuda)["CUDA_VISIBLE_DEVICES"] == "0,1"
        assert made(cluster(fork=False))["ROCR_VISIBLE_DEVICES"] == "0,1"
