"""The real pipeline in other shapes: two FSDP ranks, Ulysses with fused heads, method=none; a NaN in the weights."""

from __future__ import annotations

import shutil

import pytest
from pipeline_runs import finish, records, run_directory, start
from transformers import AutoModelForCausalLM

TWO_WORKERS = ("cluster.gpus_per_node=2", "cluster.env.OMP_NUM_THREADS=1", "trainer.total_training_steps=2")

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(900)]


@pytest.mark.slow
def test_ulysses_on_two_workers(tiny, tmp_path):
    """One sequence-parallel group of two FSDP ranks, fused heads, two replicas, and an export that loads anywhere."""
    fused = "actor_rollout_ref.actor.fsdp_config.fused_head=true"
    process = start(tiny, tmp_path, *TWO_WORKERS, "cluster.sequence_parallel=2", fused)
    output = finish(process)
    assert process.returncode == 0, output
    lines = records(run_directory(tmp_path))
    assert [record["step"] for record in lines] == [0, 1, 2]
    assert all(record["training/rollout_probs_diff_max"] < 5e-3 for record in lines[1:])
    assert all(record["actor/paec/selected_entropy"] > 0 for record in lines[1:])
    assert AutoModelForCausalLM.from_pretrained(run_directory(tmp_path) / "huggingface").config.vocab_size == 259


@pytest.mark.slow
def test_method_none_on_two_workers(tiny, tmp_path):
    """Plain GRPO: two FSDP ranks and two vLLM replicas, validation and export."""
    process = start(tiny, tmp_path, *TWO_WORKERS, "method=none")
    output = finish(process)
    assert process.returncode == 0, output
    lines = records(run_directory(tmp_path))
    assert [record["step"] for record in lines] == [0, 1, 2]
    assert not any("paec" in key for record in lines for key in record)
    assert "actor/entropy" in lines[1]


def test_nan_stops_the_run(tiny, tiny_files, tmp_path):
    """A model with one NaN weight: the log-prob pass of step 1 stops the run, naming tensor and step."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_files / "model", tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    root = tmp_path / "runs"
    process = start(tiny, root, f"model.path={tmp_path / 'model'}", "trainer.val_before_train=false")
    output = finish(process)
    assert process.returncode == 2, output
    (error,) = [line for line in output.splitlines() if line.startswith("error: NonFiniteLogits")]
    assert "logits: NaN or inf" in error and "at step 1;" in error and "parameters were not updated" in error
    assert not list(run_directory(root).glob("checkpoints/global_step_*"))
