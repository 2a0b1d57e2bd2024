"""The batch scripts on a real Slurm of this machine (tests/helpers/slurm_cluster.sh): two nodes, real Ray.

The last test trains the tiny experiment over both nodes; the others put a light command in its place.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BATCH = REPOSITORY / "launch" / "slurm" / "paec.sbatch"
SWEEP = REPOSITORY / "launch" / "slurm" / "sweep.sbatch"
CLUSTER = REPOSITORY / "tests" / "helpers" / "slurm_cluster.sh"
MISSING = [program for program in ("slurmctld", "slurmd", "sbatch", "munged") if shutil.which(program) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(MISSING), reason=f"Slurm is not installed: {', '.join(MISSING)} not found"),
]

# Leaves a mark at every start; the first waits for SIGTERM and saves, the second finishes.
RESUMABLE = """
echo "command of start ${SLURM_RESTART_COUNT:-0}"
if [ "${SLURM_RESTART_COUNT:-0}" = 1 ]; then echo "went on from $(cat saved)"; exit 0; fi
trap 'sleep 10; echo step 7 > saved; exit 143' TERM
sleep 600 & wait
"""
# One Ray task on each node, which needs the token, the head's address and both nodes' workers.
PLACES = """
import os, ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
place = ray.remote(num_gpus=1)(lambda: (os.environ["SLURMD_NODENAME"], os.environ["GLOO_SOCKET_IFNAME"]))
nodes = sorted(ray.nodes(), key=lambda node: node["NodeName"])
print("tasks", ray.get([place.options(scheduling_strategy=On(n["NodeID"], soft=False)).remote() for n in nodes]))
print("gpus", [n["Resources"]["GPU"] for n in nodes], "cpus", [n["Resources"]["CPU"] for n in nodes])
raise SystemExit(7)
"""


class Slurm:
    """A Slurm of our own, and the jobs submitted to it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.temporary = folder / "t"
        self.temporary.mkdir()
        cleaned = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "RAY_", "PAEC_"))}
        self.env = {**cleaned, "SLURM_CONF": str(folder / "slurm.conf"), "VENV": sys.prefix}
        self.env["PAEC_TMP"] = str(self.temporary)

    def call(self, *command: str, **env: str) -> str:
        done = subprocess.run(
            command, env={**self.env, **env}, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout.strip()

    def submit(self, *arguments: str, **env: str) -> str:
        """sbatch; returns the job's id."""
        self.until(lambda: self.idle() == ["n1", "n2"], 90)
        return self.call("sbatch", "--parsable", "--output=%j.out", *arguments, **env).split(";")[0]

    def idle(self) -> list[str]:
        listed = self.call("sinfo", "--noheader", "--Node", "--responding", "--states=idle", "--format=%N")
        return sorted(set(listed.split()))  # listed once for every partition

    def output(self, job: str) -> str:
        file = self.folder / f"{job}.out"
        return file.read_text() if file.is_file() else ""

    def state(self, job: str) -> dict[str, str]:
        """JobState, ExitCode, Restarts ... of a job."""
        return dict(re.findall(r"(\w+)=(\S*)", self.call("scontrol", "show", "job", job)))

    def until(self, condition: Callable[[], object], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, [file.read_text() for file in self.folder.glob("*.out")]
            time.sleep(0.3)

    def finish(self, job: str, seconds: float = 150) -> tuple[str, str]:
        """Wait for a job's end; returns its exit code, as Slurm writes it (code:signal), and its output."""
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")  # there are many others, SIGNALING is one
        self.until(lambda: self.state(job)["JobState"] in ended, seconds)
        return self.state(job)["ExitCode"], self.output(job)

    def processes(self) -> list[psutil.Process]:
        """Everything that our jobs run: every process with our folder for Ray in its environment."""
        mark = str(self.temporary)
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("PAEC_TMP") == mark:
                    found.append(process)
            except psutil.Error:
                continue
        return [process for process in found if not process.name().startswith("slurm")]

    def nothing_left(self) -> None:
        """No process, no temporary folder, no token of any job."""
        self.until(lambda: not self.processes(), 20)
        assert list(self.temporary.iterdir()) == []
        places = REPOSITORY / "outputs" / "slurm"
        assert not places.is_dir() or list(places.iterdir()) == []


@pytest.fixture(scope="module")
def slurm():
    # Short, for sockets; and munged wants no folder above that others may write to, but for one like /tmp.
    folder = Path(tempfile.mkdtemp(prefix="p", dir="/tmp"))
    subprocess.run(["bash", str(CLUSTER), "start", str(folder)], check=True, timeout=90)
    started = Slurm(folder)
    yield started
    subprocess.run(["bash", str(CLUSTER), "stop", str(folder)], check=True, timeout=120)
    for process in started.processes():
        process.kill()
    assert list(folder.glob("slurmd-*.pid")) == [] and not (folder / "slurmctld.pid").exists()
    shutil.rmtree(folder)


# ---- what works ------------------------------------------------------------------------------------------------------


def test_both_nodes_work_and_the_exit_code_is_the_commands(slurm):
    script = slurm.folder / "places.py"
    script.write_text(PLACES)
    job = slurm.submit("--nodes=2", str(BATCH), COMMAND=f"{sys.executable} {script}", GPUS_PER_NODE="1")
    code, output = slurm.finish(job)
    assert code == "7:0", output
    assert re.search(r"tasks \[\('n1', '(\w+)'\), \('n2', '\1'\)\]", output), output
    assert "gpus [1.0, 1.0] cpus [16.0, 16.0]" in output
    assert "n2 has joined (2 of 2)" in output and "the run ended with exit code 7" in output
    slurm.nothing_left()


def test_dry_run_of_the_training(slurm):
    """Without COMMAND: experiment and method out of one word, overrides passed on, address and nodes filled in."""
    job = slurm.submit(
        "--nodes=2",
        str(BATCH),
        "--dry-run",
        "--print-config",
        "method.rho_min=0.7",
        EXPERIMENT="tiny_cpu_siren",
        GPUS_PER_NODE="1",
    )
    code, output = slurm.finish(job)
    assert code == "0:0", output
    assert "dry run of tiny_cpu-siren-rho_min=0.7: nothing was started" in output
    assert "Ray on 2 node(s)" in output and "2 FSDP actor worker(s)" in output
    (address,) = re.findall(r"Ray head n1 at (\S+),", output)
    assert f"ray_address: {address}" in output
    slurm.nothing_left()


def test_sweep(slurm):
    """Two methods, two seeds: four runs, two at a time beside each other on this one machine."""
    command = 'echo "pair $METHOD $SEED"; sleep 1'
    arguments = ("--array=0-3", "--nodes=1", "--output=sweep-%a.out", str(SWEEP))
    slurm.submit(*arguments, METHODS="paec none", SEEDS="3 4", COMMAND=command)
    slurm.until(lambda: not slurm.call("squeue", "--noheader"), 150)
    outputs = [(slurm.folder / f"sweep-{task}.out").read_text() for task in range(4)]
    pairs = [re.findall(r"^pair (\w+) (\d+)$", output, re.MULTILINE) for output in outputs]
    assert pairs == [[("paec", "3")], [("none", "3")], [("paec", "4")], [("none", "4")]]
    assert all("exit code 0" in output for output in outputs)
    slurm.nothing_left()


# What a training of one step leaves.
TRAINED = """
folder=$GRID_ROOT/tiny_cpu-$METHOD-seed$SEED
mkdir -p $folder/checkpoints/global_step_1 && echo '{}' > $folder/checkpoints/global_step_1/paec_state.json
mark="{\\"kind\\": \\"run\\", \\"experiment\\": \\"tiny_cpu\\", \\"name\\": \\"$(basename $folder)\\"}"
echo "$mark" > $folder/.paec_folder.json
echo "{\\"step\\": 1, \\"actor/entropy\\": 0.5, \\"response_length/mean\\": 7, \\"timing_s/step\\": 1.0, \\
\\"val/s/avg@4\\": 0.$SEED, \\"val/s/maj@4\\": 0.5, \\"val/s/pass@4\\": 0.5}" > $folder/metrics.jsonl
"""


def test_comparison(slurm):
    """launch/grid.sh as an array: what is done is not submitted, and a job behind it makes the table."""
    root = slurm.folder / "grid"
    slurm.call("bash", "-c", TRAINED, GRID_ROOT=str(root), METHOD="none", SEED="3")
    command = ["bash", str(REPOSITORY / "launch" / "grid.sh"), "METHODS=none paec", "SEEDS=3 4"]
    command += ["SLURM=--nodes=1", f"run.root={root}", "trainer.total_training_steps=1", "run.export=false"]
    slurm.until(lambda: slurm.idle() == ["n1", "n2"], 90)
    said = slurm.call(*command, COMMAND=TRAINED, GRID_ROOT=str(root))
    assert "submitted 3 of 4 runs as the array" in said, said
    again = subprocess.run(command, env=slurm.env, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 2 and re.search(r"job \d+ is already running this grid", again.stderr), again.stderr
    slurm.until(lambda: not slurm.call("squeue", "--noheader"), 200)
    outputs = sorted(file.name for file in root.glob("compare-tiny_cpu/slurm-*.out"))
    assert [name.rpartition("_")[2] for name in outputs[:3]] == ["1.out", "2.out", "3.out"] and len(outputs) == 4
    table = json.loads((root / "compare-tiny_cpu" / "table.json").read_text())
    assert [(m["label"], m["seeds"]) for m in table["methods"]] == [("none", [3, 4]), ("paec", [3, 4])]
    assert table["methods"][1]["accuracy"]["s"]["avg@4"]["value"] == pytest.approx(0.35)
    assert "| 35.0 \N{PLUS-MINUS SIGN} 63.5 |" in slurm.call(*command), "all is done: nothing is submitted"
    assert not slurm.call("squeue", "--noheader")
    slurm.nothing_left()


def test_only_the_named_variables(slurm):
    """--export without ALL: the workers' environment must not shrink with it."""
    variables = f"COMMAND=true,VENV={sys.prefix},PAEC_TMP={slurm.temporary}"
    code, output = slurm.finish(slurm.submit("--nodes=2", f"--export={variables}", str(BATCH)))
    assert code == "0:0" and "n2 has joined (2 of 2)" in output
    slurm.nothing_left()


# ---- time limit, preemption, cancelling ------------------------------------------------------------------------------


def test_time_limit_requeues_and_the_run_resumes(slurm):
    """The signal before the limit -> SIGTERM -> requeue -> a second start, on both nodes again."""
    script = slurm.folder / "resumable.sh"
    script.write_text(RESUMABLE)
    (slurm.folder / "saved").unlink(missing_ok=True)
    limit = ("--time=1", "--signal=B:USR1@10")
    job = slurm.submit("--nodes=2", *limit, str(BATCH), COMMAND=f"cd {slurm.folder} && . {script}")
    code, output = slurm.finish(job, 200)
    assert code == "0:0", output
    order = ["start 1", "command of start 0", "time limit is near", "requeueing", "start 2", "command of start 1"]
    order += ["went on from step 7", "exit code 0"]
    positions = [output.find(text) for text in order]
    assert positions == sorted(positions) and positions[0] >= 0, output
    assert output.count("n2 has joined (2 of 2)") == 2 and slurm.state(job)["Restarts"] == "1"
    slurm.nothing_left()


@pytest.mark.parametrize("how", ["requeue", "urgent job", "urgent job after a grace time"])
def test_preemption(slurm, how):
    """Slurm takes the nodes away, by hand and for a job of a partition with priority; the run resumes later."""
    script = slurm.folder / "resumable.sh"
    script.write_text(RESUMABLE)
    (slurm.folder / "saved").unlink(missing_ok=True)
    partition = "grace" if "grace" in how else "all"
    command = f"cd {slurm.folder} && . {script}"
    job = slurm.submit("--nodes=2", f"--partition={partition}", str(BATCH), COMMAND=command)
    slurm.until(lambda: "command of start 0" in slurm.output(job), 90)
    if how == "requeue":
        slurm.call("scontrol", "requeue", job)
    else:
        urgent = ("--partition=urgent", "--nodes=2", "--exclusive", "--output=urgent-%j.out", "--wrap=sleep 1")
        slurm.call("sbatch", *urgent)
    code, output = slurm.finish(job, 200)
    assert code == "0:0", output
    assert "went on from step 7" in output and slurm.state(job)["Restarts"] == "1"
    # Slurm tells only a job's steps when a grace time begins; without one there is nothing but SIGTERM to all.
    assert ("the job is preempted: the run has 240 s" in output) == (partition == "grace"), output
    slurm.nothing_left()


def test_no_endless_requeueing(slurm):
    command = "trap 'exit 5' TERM; echo waiting; sleep 600 & wait"
    job = slurm.submit("--nodes=1", str(BATCH), COMMAND=command, MAX_RESTARTS="0")
    slurm.until(lambda: "\nwaiting" in slurm.output(job), 90)
    slurm.call("scancel", "--batch", "--signal=USR1", job)
    code, output = slurm.finish(job)
    assert code == "5:0" and "error: not requeued: this was start 1, and MAX_RESTARTS=0" in output, output
    slurm.nothing_left()


def test_a_run_that_ends_in_time_is_not_requeued(slurm):
    job = slurm.submit("--nodes=1", str(BATCH), COMMAND="trap 'exit 0' TERM; echo waiting; sleep 600 & wait")
    slurm.until(lambda: "\nwaiting" in slurm.output(job), 90)
    slurm.call("scancel", "--batch", "--signal=USR1", job)
    code, output = slurm.finish(job)
    assert code == "0:0" and "requeueing" not in output and slurm.state(job)["Restarts"] == "0", output
    slurm.nothing_left()


@pytest.mark.parametrize("moment", ["at once", "joining", "running"])
def test_scancel_leaves_nothing(slurm, moment):
    job = slurm.submit("--nodes=2", str(BATCH), COMMAND="echo waiting; sleep 600; true")
    sign = {"at once": "start 1", "joining": "n1 has joined", "running": "\nwaiting"}[moment]
    slurm.until(lambda: sign in slurm.output(job), 90)
    slurm.call("scancel", job)
    code, output = slurm.finish(job)
    assert code == "143:0", output
    slurm.nothing_left()


# ---- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({}, "error: EXPERIMENT is not set: choose one of "),
        ({"EXPERIMENT": "qwen7b_nothing"}, "error: EXPERIMENT=qwen7b_nothing does not exist: choose "),
    ],
)
def test_wrong_experiment(slurm, env, sentence):
    code, output = slurm.finish(slurm.submit(str(BATCH), **env))
    assert code == "2:0" and output.startswith(sentence) and "tiny_cpu" in output


def test_sweep_without_an_array(slurm):
    code, output = slurm.finish(slurm.submit(str(SWEEP), METHODS="paec none", SEEDS="1 2 3", COMMAND="true"))
    assert (code, output) == ("2:0", "error: 2 methods and 3 seeds: submit with sbatch --array=0-5\n")


def test_a_head_that_cannot_start(slurm):
    code, output = slurm.finish(slurm.submit("--nodes=2", str(BATCH), COMMAND="true", PAEC_INTERFACE="ib7"))
    assert code == "3:0"
    assert "PAEC_INTERFACE=ib7: must be one of this machine's" in output and "Ray exited on the head (n1)" in output
    slurm.nothing_left()


def test_sigkill_of_a_nodes_ray(slurm):
    """The run does not hang: it is ended, and the error names the node."""
    job = slurm.submit("--nodes=2", str(BATCH), COMMAND="echo waiting; sleep 600; true")
    slurm.until(lambda: "\nwaiting" in slurm.output(job), 90)
    (ray,) = [p for p in slurm.processes() if "--address" in " ".join(p.cmdline()) and p.cmdline()[2:3] == ["start"]]
    ray.kill()
    code, output = slurm.finish(job)
    assert code == "3:0" and "error: Ray exited on one of the workers (n2), see above" in output, output
    slurm.nothing_left()


def test_sigkill_of_the_batch_script(slurm):
    """Ray ends with the script even where Slurm does not track processes with cgroups; the next job tidies up."""
    job = slurm.submit("--nodes=2", str(BATCH), COMMAND="exec sleep 600")
    slurm.until(lambda: "running exec sleep" in slurm.output(job), 90)
    (batch,) = [p for p in slurm.processes() if p.cmdline()[-1].endswith("slurm_script") and p.ppid() != 1]
    orphan = next(p for p in slurm.processes() if p.cmdline() == ["sleep", "600"])
    batch.kill()
    assert slurm.finish(job)[0] == "0:9"
    with contextlib.suppress(psutil.NoSuchProcess):
        orphan.kill()  # without cgroups: a command of its own that does not use Ray; a training ends with Ray
    slurm.until(lambda: not slurm.processes(), 40)
    shutil.rmtree(REPOSITORY / "outputs" / "slurm" / job)
    assert slurm.finish(slurm.submit("--nodes=2", str(BATCH), COMMAND="true"))[0] == "0:0"
    slurm.nothing_left()


def test_second_node_never_joins(slurm):
    """A node whose slurmd hangs: the error names it, after JOIN_TIMEOUT; and the cluster is usable again."""
    daemon = psutil.Process(int((slurm.folder / "slurmd-n2.pid").read_text()))
    slurm.until(lambda: slurm.idle() == ["n1", "n2"], 90)
    job = slurm.submit("--nodes=2", "--hold", str(BATCH), COMMAND="echo never", JOIN_TIMEOUT="5")
    daemon.send_signal(signal.SIGSTOP)
    try:
        slurm.call("scontrol", "release", job)
        slurm.until(lambda: " printed nothing" in slurm.output(job), 90)
    finally:
        daemon.send_signal(signal.SIGCONT)
    code, output = slurm.finish(job)
    assert code == "3:0", output
    assert "error: n2 did not join Ray at " in output and "within 5 s (1 of 2 nodes have joined):" in output
    assert "n2: printed nothing" in output and "\nnever" not in output
    # n2 may get its part of the job after the end, and kill it before it can tidy up: the next node there does.
    assert slurm.finish(slurm.submit("--nodes=2", str(BATCH), COMMAND="true"))[0] == "0:0"
    slurm.nothing_left()


# ---- the real thing --------------------------------------------------------------------------------------------------


@pytest.mark.pipeline
@pytest.mark.timeout(2400)
def test_training_over_two_nodes_is_preempted_and_resumes(slurm):
    """The quick start's experiment, an FSDP2 rank and a vLLM replica on each of two nodes, started three times.

    The first start is preempted, the second reaches its time limit, the third finishes; the anchor stays the same.
    """
    root, steps = slurm.folder / "outputs", 24
    overrides = [f"run.root={root}", f"trainer.total_training_steps={steps}", "trainer.save_freq=2"]
    overrides += ["trainer.val_before_train=false", "trainer.test_freq=-1", "method.anchor_steps=2"]
    overrides += ["run.export=false", "cluster.env.OMP_NUM_THREADS=1"]  # two nodes share this machine's cores
    env = {"EXPERIMENT": "tiny_cpu_paec", "GPUS_PER_NODE": "1", "PAEC_TINY_DIR": str(slurm.folder / "tiny")}
    job = slurm.submit("--nodes=2", "--time=60", str(BATCH), *overrides, PAEC_TINY_ARGS="--steps 240", **env)

    def trained(start: int) -> list[int]:
        """Steps that this start has printed."""
        _, _, output = slurm.output(job).partition(f", start {start}\n")
        return [int(step) for step in re.findall(rf"^step +(\d+)/{steps}", output.split(", start ")[0], re.MULTILINE)]

    slurm.until(lambda: 3 in trained(1), 900)
    slurm.call("scontrol", "requeue", job)
    slurm.until(lambda: len(trained(2)) >= 2, 600)
    minutes = int(slurm.call("squeue", "--noheader", "--format=%M", "--job", job).split(":")[-2])
    slurm.call("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes + 4}")  # the signal comes 5 before
    slurm.until(lambda: "time limit is near" in slurm.output(job), 120)
    slurm.call("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    code, output = slurm.finish(job, 900)
    assert code == "0:0", output
    first, second, third = trained(1), trained(2), trained(3)
    assert first[0] == 1 and third[-1:] == [steps], output
    assert first[-1] - 1 <= second[0] <= first[-1] + 1, "more is lost than the steps since the last checkpoint"
    assert second[-1] < steps, output
    assert third == list(range(second[-1] + 1, steps + 1)), "the time limit lost steps"
    anchors = dict(re.findall(rf"^step +(\d+)/{steps} .* anchor (\S+)", output, re.MULTILINE))
    assert len(anchors) == steps
    assert len({anchors[str(step)] for step in range(2, steps + 1)}) == 1
    slurm.nothing_left()
