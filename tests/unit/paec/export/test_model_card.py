"""The model card: what it says of a run, and that it names no folder of this machine."""

from __future__ import annotations

from omegaconf import OmegaConf

from data_prep.files import sha256
from recipe.paec.config.resolve import run_suffix
from recipe.paec.export import model_card
from recipe.paec.run import checkpoints


def test_model_card(work, exported):
    card = (exported["tied-2"] / "README.md").read_text()
    run = work.parent
    for line in (
        "# model after 3 steps of paec",
        "| step | 3 |",
        "| workers | 2 |",
        "| sampling in training | temperature 0.7, top_p 0.9, top_k 20 |",
        "| rho | 0.7 |",
        f"| train.parquet | `{sha256(run / 'data' / 'train.parquet')}` |",
        f"| train.manifest.json | `{sha256(run / 'data' / 'train.manifest.json')}` |",
        "| countdown/avg@4 | 0.4321 |",
        "| git_commit | c0ffee |",
        "Its license is that of the base model.",
    ):
        assert line in card, card
    assert "python -m recipe.paec.train experiment=tiny_cpu method.rho=0.7 data.train_files=train.parquet" in card
    assert "0.1000" not in card, "a score of another step"


def test_a_base_model_of_the_hub(work):
    """The configuration names its folder in the cache; the card names what others can download."""
    config = OmegaConf.load(work.parent / "config.yaml")
    config.model.path = "/home/me/.cache/huggingface/hub/models--Qwen--Qwen2.5-Math-7B/snapshots/b101308fe89651ea"
    card = model_card.model_card(checkpoints.read(work / "tied-2"), config, "bfloat16")
    assert "base_model: Qwen/Qwen2.5-Math-7B\n" in card
    assert "# Qwen2.5-Math-7B after 3 steps of paec" in card
    assert "| base model | Qwen/Qwen2.5-Math-7B (revision b101308fe89651ea) |" in card


def test_no_local_path_is_in_the_card(work, compose, tmp_path):
    """Base model, data, run and command are named without the folders they lie in on this machine."""
    secret = tmp_path / "home" / "alice smith" / "secret-project"
    for name in ("a/train.parquet", "b/train.parquet"):
        (secret / name).parent.mkdir(parents=True, exist_ok=True)
        (secret / name).write_text(name)
    files = [str(secret / name) for name in ("a/train.parquet", "b/train.parquet", "gone.parquet")]
    listed = ",".join(f"'{file}'" for file in files)
    config = compose(
        "experiment=tiny_cpu",
        "method.rho=0.6",
        f"model.path='{secret}/my model'",
        f"data.train_files=[{listed}]",
        "data.val_files=../secret-project/val.parquet",
        f"run.root='{secret}/outputs'",
        f"run.prepare_dir='{secret}/prepared'",
        "+data.note='~/secret-project/v.parquet'",
        "+data.more={x:/home/alice/y,z:1}",
        r"+data.escaped=/home/alice\,bob/z",
    )
    checkpoint = checkpoints.read(work / "tied-2")
    checkpoint.state["identity"]["data.train_files"] = files
    card = model_card.model_card(checkpoint, config, "float32")
    for word in ("alice", "smith", "secret", "bob", "home", str(tmp_path)):
        assert word not in card, word
    assert "/" not in card.partition("## Reproduction")[2]
    for line in (
        "# my model after 3 steps of paec",
        "| base model | my model |",
        f"| train.parquet | `{sha256(secret / 'a/train.parquet')}` |",
        f"| train.parquet | `{sha256(secret / 'b/train.parquet')}` |",
        "| gone.parquet | no longer exists |",
        "data.val_files=val.parquet",
        "'+data.more={x:y,z:1}'",
    ):
        assert line in card, card
    assert "base_model:" not in card and "run.root" not in card


def test_a_runs_name_is_shown_without_folders():
    """`config.resolve.run_suffix` puts overrides into it."""
    overrides = ["model.path='/home/alice smith/m'", "method.rho=0.6"]
    name = "tiny_cpu-paec" + run_suffix(overrides)
    assert name == "tiny_cpu-paec-rho=0.6,model.path=__home_alice_smith_m_"
    assert model_card._run_name(name, overrides, "m") == "tiny_cpu-paec-rho=0.6,model.path=_m_"
    assert model_card._run_name("mine", overrides, "m") == "mine"


def test_a_hub_id_stays_in_the_command():
    base = "Qwen/Qwen2.5-Math-7B"
    given = [f"model.path={base}", "run.name=x", "reward.custom_reward_function.path=pkg://recipe.paec.rollout.rewards"]
    assert model_card._reproduction(given, base) == [given[0], given[2]]
    assert model_card._reproduction(["model.path=models/Qwen"], "Qwen") == ["model.path=Qwen"]
