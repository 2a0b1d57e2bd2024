"""The trackers themselves, through verl's tracking: what they hold of a run, also after it was resumed."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from terminals import ROOT
from verl.utils.tracking import Tracking

from recipe.paec.common import folder_kinds, folders
from recipe.paec.common.errors import UserError
from recipe.paec.driver import tracking
from recipe.paec.driver.tracking import Grouped, chosen, group_names, grouped, resumed_step

RECORD = {
    "actor/entropy": 0.5,
    "actor/paec/floor": 0.48,
    "actor/grad_norm": 0.25,
    "critic/score/mean": 0.375,
    "val/reasoning_gym/countdown/avg@4": 0.25,
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("actor/paec/selected_entropy", "paec/selected_entropy"),
        ("actor/aepo/alpha", "aepo/alpha"),
        ("actor/entropy", "entropy/entropy"),
        ("actor/entropy_loss", "entropy/entropy_loss"),
        ("actor/entropy/right", "entropy/right"),
        ("actor/perf/max_memory_allocated_gb", "perf/max_memory_allocated_gb"),
        ("perf/throughput", "perf/throughput"),
        ("actor/grad_norm", "actor/grad_norm"),
        ("critic/score/mean", "reward/score/mean"),
        ("reward/mixed_prompts", "reward/mixed_prompts"),
        ("response_length/clip_ratio", "length/response_length/clip_ratio"),
        ("global_seqlen/min", "length/global/min"),
        ("rollout_corr/kl", "rollout/kl"),
        ("training/rollout_probs_diff_mean", "rollout/rollout_probs_diff_mean"),
        ("training/off_policy/trajectory_staleness/max", "rollout/off_policy/trajectory_staleness/max"),
        ("training/global_step", "training/global_step"),
        ("timing_s/gen", "time/gen"),
        ("timing_per_token_ms/adv", "time/per_token_ms/adv"),
        ("val/reasoning_gym/countdown/avg@4", "val/reasoning_gym/countdown/avg@4"),
    ],
)
def test_metric_names_in_experiment_trackers(name, expected):
    assert grouped(name) == expected


def test_no_two_metrics_share_a_name():
    kinds = ("score", "rewards", "advantages")
    names = [*RECORD, *(f"critic/{kind}/{part}" for kind in kinds for part in ("mean", "max", "min"))]
    names += [
        f"{kind}/{part}" for kind in ("response_length", "prompt_length", "global_seqlen") for part in ("mean", "min")
    ]
    names += ["reward/format", "actor/perf/cpu_memory_used_gb", "perf/mfu/actor", "actor/entropy_loss", "timing_s/step"]
    assert len({grouped(name) for name in names}) == len(set(names)) == 24


class Tracker:
    def __init__(self):
        self.heard: list = []

    def log(self, data, step):
        self.heard.append((step, data))

    def finish(self, exit_code=None):
        self.heard.append(exit_code)


def test_names_are_grouped_once_and_for_trackers_only():
    trackers = {"tensorboard": Tracker(), "console": Tracker(), "metrics_file": Tracker()}
    inner = dict(trackers)
    group_names(trackers)
    group_names(trackers)
    assert isinstance(trackers["tensorboard"], Grouped) and trackers["console"] is inner["console"]
    for tracker in trackers.values():
        tracker.log(data={"timing_s/gen": 1.0}, step=3)
    trackers["tensorboard"].finish(exit_code=1)
    assert inner["tensorboard"].heard == [(3, {"time/gen": 1.0}), 1]
    assert inner["console"].heard == inner["metrics_file"].heard == [(3, {"timing_s/gen": 1.0})]


def config(folder: Path, tracker: str, resumed: int | None = None) -> dict:
    trainer = {"project_name": "paec", "experiment_name": "first", "logger": [tracker], "resume_mode": "disable"}
    if resumed is not None:
        trainer |= {
            "resume_mode": "resume_path",
            "resume_from_path": str(folder / f"checkpoints/global_step_{resumed}"),
        }
    return {"run": {"directory": str(folder)}, "trainer": trainer}


def test_where_a_start_resumes(tmp_path):
    assert resumed_step(OmegaConf.create(config(tmp_path, "console"))) is None
    assert resumed_step(OmegaConf.create(config(tmp_path, "console", resumed=20))) == 20
    assert chosen(OmegaConf.create({"trainer": {"logger": "wandb"}})) == ["wandb"]


def test_a_tracker_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="trainer.logger: trackio is not installed: docs/trackers.md says how"):
        tracking.prepare(OmegaConf.create(config(tmp_path, "trackio")))


@pytest.mark.parametrize("name", Tracking.supported_backend)
def test_every_tracker_of_verl_that_needs_a_package_is_looked_for(tmp_path, monkeypatch, name):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    if name in ("console", "file"):
        tracking.prepare(OmegaConf.create(config(tmp_path, name)))
        return
    package = r" \(volcengine_ml_platform\)" if name == "vemlp_wandb" else ""
    with pytest.raises(UserError, match=f"^trainer.logger: {name}{package} is not installed: "):
        tracking.prepare(OmegaConf.create(config(tmp_path, name)))


SCRIPT = """
import json, sys
from omegaconf import OmegaConf
from recipe.paec.driver import tracking
config, first, last, record = json.loads(sys.argv[1])
config = OmegaConf.create(config)
tracking.prepare(config)
from verl.utils.tracking import Tracking, ValidationGenerationsLogger
trackers = Tracking("paec", "first", list(config.trainer.logger), OmegaConf.to_container(config))
samples = ValidationGenerationsLogger("paec", "first")
tracking.complete(config, trackers.logger, samples)
tracking.complete(config, trackers.logger, samples)
for step in range(first, last + 1):
    trackers.log(data={key: value + step for key, value in record.items()}, step=step)
    samples.log(list(config.trainer.logger), [("1+1?", f"it is {step}", 0.5), ("2+2?", "four", 1.0)], step)
trackers.finish()
"""


def track(folder: Path, tracker: str, first: int, last: int, resumed: int | None = None, add: float = 0.0) -> None:
    """Log steps `first` to `last` in a process of its own, as a start of a run does."""
    record = {key: value + add for key, value in RECORD.items()}
    given = json.dumps([config(folder, tracker, resumed), first, last, record])
    env = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "TENSORBOARD_", "TRACKIO_", "MLFLOW_"))}
    env |= {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "WANDB__DISABLE_STATS": "true"}
    done = subprocess.run([sys.executable, "-c", SCRIPT, given], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard, which comes with verl")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read() -> EventAccumulator:
        found = EventAccumulator(str(tmp_path / "tensorboard"))
        found.Reload()
        return found

    track(tmp_path, "tensorboard", 1, 4)
    found = read()
    assert found.Tags()["scalars"] == sorted(map(grouped, RECORD), key=found.Tags()["scalars"].index)
    assert [(event.step, event.value) for event in found.Scalars("entropy/entropy")] == [
        (s, s + 0.5) for s in range(1, 5)
    ]
    track(tmp_path, "tensorboard", 3, 6, resumed=2, add=0.25)
    steps = [(event.step, event.value) for event in read().Scalars("entropy/entropy")]
    assert steps == [(1, 1.5), (2, 2.5), *((s, s + 0.75) for s in range(3, 7))], (
        "steps 3 and 4 are those of the resumed run"
    )


def test_wandb_without_an_account(tmp_path):
    pytest.importorskip("wandb", reason="needs wandb, which comes with verl")
    track(tmp_path, "wandb", 1, 2)
    (first,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    recorded = json.loads((tmp_path / "trackers.json").read_text())["wandb"]
    assert first.stem == f"run-{recorded}" and b"entropy/entropy" in first.read_bytes()
    tables = [json.loads(file.read_text()) for file in first.parent.rglob("*.table.json")]
    assert tables and tables[0]["columns"] == [
        "step",
        *(f"{c}_{i}" for i in (1, 2) for c in ("input", "output", "score")),
    ]
    rows = max((table["data"] for table in tables), key=len)
    assert rows == [[step, "1+1?", f"it is {step}", 0.5, "2+2?", "four", 1.0] for step in (1, 2)]
    track(tmp_path, "wandb", 2, 3, resumed=1)
    both = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert [file.name for file in both] == [first.name] * 2, "the same run for wandb sync"
    track(tmp_path, "wandb", 1, 1)
    assert json.loads((tmp_path / "trackers.json").read_text())["wandb"] != recorded, "a run that starts over is new"


def test_trackio_without_an_account(tmp_path):
    pytest.importorskip("trackio", reason="needs trackio: docs/trackers.md has the command")
    track(tmp_path, "trackio", 1, 2)
    track(tmp_path, "trackio", 3, 3, resumed=2)
    with closing(sqlite3.connect(tmp_path / "trackio" / "paec.db")) as data:
        rows = data.execute("SELECT run_id, run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    assert len({run for run, *_ in rows}) == 1 and {name for _, name, *_ in rows} == {"first"}, "one run"
    found = [(step, json.loads(metrics)["entropy/entropy"]) for *_, step, metrics in rows]
    assert found == [(1, 1.5), (2, 2.5), (3, 3.5)]


def test_mlflow_without_an_account(tmp_path):
    """A database in the run's folder; the resumed run is the same one, though its configuration differs."""
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow: docs/trackers.md has the command")
    track(tmp_path, "mlflow", 1, 2)
    recorded = json.loads((tmp_path / "trackers.json").read_text())["mlflow"]
    track(tmp_path, "mlflow", 2, 3, resumed=1, add=0.25)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("paec")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.run_name, run.info.status) == (recorded, "first", "FINISHED")
    assert run.data.params["trainer/resume_mode"] == "disable", "the first start's"
    assert {name.replace("_at_", "@") for name in run.data.metrics} == set(map(grouped, RECORD))
    history = sorted((m.step, m.value) for m in client.get_metric_history(recorded, "entropy/entropy"))
    assert history == [(1, 1.5), (2, 2.5), (2, 2.75), (3, 3.75)]
    (table,) = (tmp_path / "mlflow" / "artifacts").rglob("generations.json")
    content = json.loads(table.read_text())
    assert content["columns"] == ["step", "input", "output", "score"]
    answers = [[f"it is {step}", 0.5] for step in (1, 2, 2, 3)]
    assert [row[2:] for row in content["data"] if row[1] == "1+1?"] == answers and len(content["data"]) == 8
    assert not list(tmp_path.glob("mlruns"))


def test_a_resumed_run_that_mlflow_does_not_have(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="needs mlflow: docs/trackers.md has the command")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "x")  # restored at the end
        monkeypatch.delenv(name)
    (tmp_path / "trackers.json").write_text('{"mlflow": "0123456789abcdef0123456789abcdef", "wandb": "w"}')
    with pytest.raises(
        UserError, match=r"mlflow at sqlite:///.*, run 0123.*not found.*delete .*trackers.json to begin"
    ):
        tracking.prepare(OmegaConf.create(config(tmp_path, "mlflow", resumed=1)))
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    tracking.prepare(OmegaConf.create(config(tmp_path, "mlflow")))
    recorded = json.loads((tmp_path / "trackers.json").read_text())
    assert recorded == {"mlflow": os.environ["MLFLOW_RUN_ID"], "wandb": "w"}, "a run that starts over is new"
    assert not recorded["mlflow"].startswith("0123") and os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_tracker_that_verl_could_not_create_is_an_error(tmp_path):
    """verl would warn and train on."""
    about = OmegaConf.create(config(tmp_path, "mlflow"))
    with pytest.raises(UserError, match="trainer.logger: mlflow could not start a run at"):
        tracking.complete(about, {"console": Tracker()}, SimpleNamespace())
    samples, trackers = SimpleNamespace(), {"mlflow": Tracker()}
    tracking.complete(about, trackers, samples)
    assert isinstance(trackers["mlflow"], Grouped) and samples.log_generations_to_mlflow is tracking._log_table


def test_two_trackers_share_the_record(tmp_path):
    assert tracking._run_id(tmp_path, None) != tracking._record(tmp_path, "mlflow", "m1") == "m1"
    recorded = json.loads((tmp_path / "trackers.json").read_text())
    assert recorded.keys() == {"wandb", "mlflow"}
    assert tracking._run_id(tmp_path, 3) == recorded["wandb"] and tracking._recorded(tmp_path, "mlflow", 3) == "m1"
    assert tracking._recorded(tmp_path, "mlflow", None) is None, "a run that begins"


def test_what_trackers_write_is_the_runs(tmp_path):
    """It does not keep a run from being resumed, and a run that starts over deletes it; wandb's files stay."""
    about = {"experiment": "tiny_cpu", "name": "first"}
    folders.take(tmp_path, folder_kinds.RUN, about, False, print)
    for name in ("tensorboard/events.out.tfevents.1.h.2.0", "trackio/paec.db", "trackio/media/a.png", "trackers.json",
                 "mlflow/mlflow.db", "mlflow/artifacts/r/artifacts/generations.json",
                 "wandb/offline-run-1-x/run-x.wandb"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "wandb" / "latest-run").symlink_to(tmp_path / "wandb" / "offline-run-1-x")
    assert folders.error_of(tmp_path, folder_kinds.RUN, about, False) is None
    folders.take(tmp_path, folder_kinds.RUN, about, True, print)
    left = {
        path.relative_to(tmp_path).as_posix()
        for path in tmp_path.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    assert left == {".paec_folder.json", "wandb/offline-run-1-x/run-x.wandb"}
