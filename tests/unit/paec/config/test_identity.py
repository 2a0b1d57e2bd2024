"""What a checkpoint must agree with."""

from __future__ import annotations

from recipe.paec.config.identity import identity
from recipe.paec.run import checkpoints


def test_mode_and_adapters_are_part_of_a_checkpoints_identity(compose, tiny_files, monkeypatch):
    monkeypatch.setenv("PAEC_TINY_DIR", str(tiny_files))
    plain = identity(compose())
    for override, key in (
        ("mode=colocate_async", "mode"),
        ("lora.rank=8", "lora.rank"),
        ("lora.alpha=8", "lora.alpha"),
    ):
        difference = checkpoints.identity_difference(identity(compose(override)), plain)
        assert difference is not None and difference.startswith(f"{key} is "), difference


def test_a_scorer_is_part_of_a_checkpoints_identity(compose, tiny_files, monkeypatch):
    monkeypatch.setenv("PAEC_TINY_DIR", str(tiny_files))
    plain, own = identity(compose()), identity(compose("reward.scorers.mine=my_pkg:score"))
    assert own.keys() - plain.keys() == {"reward.scorers.mine"}, "runs without one keep their checkpoints"
    difference = checkpoints.identity_difference(identity(compose("reward.scorers.mine=my_pkg:other")), own)
    assert difference is not None and difference.startswith("reward.scorers.mine is "), difference
    assert checkpoints.identity_difference(plain, own) is not None
