"""A checkpoint becomes a Hugging Face folder, whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from export_cases import STEP, saved
from run_folders import write
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from recipe.paec.common.errors import UserError
from recipe.paec.common.model_files import fingerprint
from recipe.paec.export import huggingface
from recipe.paec.run import checkpoints


def test_a_changed_checkpoint(work, tmp_path):
    """Found by the digests in its state, before anything is read."""
    folder = shutil.copytree(work / "tied-1", tmp_path / f"global_step_{STEP}")
    checkpoints.commit(tmp_path, STEP, json.loads((folder / "paec_state.json").read_text())["identity"], None)
    (folder / "actor" / "fsdp_config.json").write_text('{"world_size": 2}')
    with pytest.raises(UserError, match="is damaged: actor/fsdp_config.json has"):
        huggingface.export(folder, tmp_path / "target")


def test_precision(work, tmp_path):
    """`--dtype`, else that of the rollouts; a bfloat16 folder is the rounded float32 one."""
    huggingface.export(work / "tied-1", tmp_path / "bf16", dtype="bfloat16")
    huggingface.export(work / "tied-1", tmp_path / "fp32")
    rounded, exact = (load_file(tmp_path / name / "model.safetensors") for name in ("bf16", "fp32"))
    assert all(torch.equal(rounded[name], exact[name].bfloat16()) for name in exact)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "bf16").dtype == torch.bfloat16
    assert "| precision of the weights | bfloat16 |" in (tmp_path / "bf16" / "README.md").read_text()


def test_tokenizer_and_generation(work, exported):
    folder = exported["tied-2-ulysses"]
    assert "attn_implementation" not in (folder / "config.json").read_text()
    assert (folder / "tokenizer.json").read_bytes() == (work / "tied" / "tokenizer.json").read_bytes()
    assert (
        AutoTokenizer.from_pretrained(folder).chat_template
        == AutoTokenizer.from_pretrained(work / "tied").chat_template
    )
    found = GenerationConfig.from_pretrained(folder)
    assert (found.do_sample, found.temperature, found.top_p, found.top_k) == (True, 0.7, 0.9, 20)
    assert (found.eos_token_id, found.pad_token_id) == (258, 256)


def test_no_local_path_is_in_an_exported_folder(work, exported):
    for name, folder in exported.items():
        for file in folder.iterdir():
            if file.suffix in (".json", ".md", ".jinja"):
                assert str(work.parent.parent) not in file.read_text(), (name, file.name)


def test_a_checkpoint_away_from_its_run(work, tmp_path):
    """The weights and the method are known still; what is not known is not made up."""
    shutil.copytree(work / "tied-2", tmp_path / "global_step_3")
    huggingface.export(tmp_path / "global_step_3", tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| base model | unknown |" in card and "its command is not known" in card and "| rho | 0.7 |" in card
    record = json.loads((tmp_path / "model" / "paec_export.json").read_text())
    assert (record["run"], record["step"]) == (None, STEP)
    assert record["files"] == sorted(path.name for path in (tmp_path / "model").iterdir())
    assert GenerationConfig.from_pretrained(tmp_path / "model").eos_token_id == 258


# ---- what cannot be exported -----------------------------------------------------------------------------------------


def cut_off(actor: Path) -> None:
    shard = actor / "model_world_size_2_rank_1.pt"
    shard.write_bytes(shard.read_bytes()[:1000])


def repeated(actor: Path) -> None:
    shutil.copyfile(actor / "model_world_size_2_rank_0.pt", actor / "model_world_size_2_rank_1.pt")


def of_another(actor: Path) -> None:
    config = json.loads((actor / "huggingface" / "config.json").read_text())
    (actor / "huggingface" / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda actor: (actor.parent / "paec_state.json").unlink(), "paec_state.json is missing"),
        (lambda actor: (actor / "model_world_size_2_rank_1.pt").unlink(), "rank_1.pt is missing"),
        (lambda actor: (actor / "fsdp_config.json").unlink(), "fsdp_config.json"),
        (cut_off, "rank_1.pt is damaged"),
        (repeated, "the files are from different checkpoints"),
        (of_another, "do not match its config.json"),
    ],
)
def test_damaged_checkpoints(copy, tmp_path, damage, sentence):
    damage(copy / "actor")
    with pytest.raises(UserError, match=sentence) as error:
        huggingface.export(copy, tmp_path / "model")
    assert len(error.value.errors) == 1 and "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["global_step_3"], "nothing half-written"


def test_an_existing_target(work, tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    huggingface.export(work / "tied-1", target)  # an empty folder is allowed
    weights = (target / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="exists and is not empty"):
        huggingface.export(work / "untied-1", target)
    assert (target / "model.safetensors").read_bytes() == weights
    (target / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="notes.txt is not part of the export"):
        huggingface.export(work / "untied-1", target, replace=True)
    assert (target / "model.safetensors").read_bytes() == weights
    (target / "notes.txt").rename(tmp_path / "notes.txt")
    huggingface.export(work / "untied-1", target, replace=True)
    assert "lm_head.weight" in load_file(target / "model.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "notes.txt"]


def test_no_room(work, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**20, 2**20 - 1000, 1000))
    with pytest.raises(UserError, match="free some space"):
        huggingface.export(work / "tied-1", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_errors_reach_the_one_who_started_it(copy, tmp_path):
    cut_off(copy / "actor")
    with pytest.raises(UserError, match="failed: .*rank_1.pt is damaged.*export.log"):
        huggingface.export_in_process(copy, tmp_path / "model", tmp_path / "export.log")


# ---- which checkpoint ------------------------------------------------------------------------------------------------


def test_a_run_is_its_newest_whole_checkpoint(tmp_path):
    run = saved(tmp_path / "run", 2, 10)
    newest, older = (run / "checkpoints" / f"global_step_{step}" for step in (10, 2))
    assert huggingface.checkpoint_in(run) == huggingface.checkpoint_in(run / "checkpoints") == newest
    assert huggingface.checkpoint_in(older) == older
    (newest / "weights").write_text("changed")
    assert huggingface.checkpoint_in(run) == older
    (older / "weights").unlink()
    with pytest.raises(UserError, match="weights is missing\nno checkpoint in .*checkpoints is complete"):
        huggingface.checkpoint_in(run)


def test_an_export_replaces_an_export_alone(tmp_path):
    target = tmp_path / "model"
    assert huggingface.target_error(target, replace=True) is None
    target.mkdir()
    assert huggingface.target_error(target, replace=False) is None, "an empty folder is allowed"
    write(target, "config.json", "train.py")
    assert "exists and is not empty" in huggingface.target_error(target, replace=False)
    assert "was not written by this command" in huggingface.target_error(target, replace=True)
    (target / "paec_export.json").write_text('{"run": "r", "step": 2}')
    assert f"{target / 'train.py'} is not part of the export" in huggingface.target_error(target, replace=True)
    (target / "train.py").unlink()
    assert huggingface.target_error(target, replace=True) is None
    (tmp_path / "link").symlink_to(target)
    assert "is a symbolic link" in huggingface.target_error(tmp_path / "link", replace=True)
    assert "is a file" in huggingface.target_error(target / "config.json", replace=True)


def test_an_export_is_that_of_the_checkpoint_as_it_is_now(tmp_path):
    """Its step may have been trained again, after the checkpoint was set aside as damaged."""
    run = saved(tmp_path / "run", 2)
    (run / "config.yaml").touch()
    checkpoint, target = run / "checkpoints" / "global_step_2", run / "huggingface"
    target.mkdir()

    def recorded(**record) -> bool:
        (target / "paec_export.json").write_text(json.dumps(record))
        return huggingface.holds(target, checkpoint, 2)

    assert recorded(run="run", step=2, checkpoint=fingerprint(checkpoint))
    assert not recorded(run="run", step=2, checkpoint="0" * 64)
    assert recorded(run="run", step=2), "an export of an earlier version"
    assert not recorded(run="run", step=1) and not recorded(run="other", step=2)


def test_a_run_of_the_laboratory(tmp_path):
    (tmp_path / "config.yaml").write_text("task: countdown\nprompts: 2\nmini_batch: 2\n")
    with pytest.raises(UserError, match="is a run of the laboratory, which writes no checkpoint that can be exported"):
        huggingface.checkpoint_in(tmp_path)
