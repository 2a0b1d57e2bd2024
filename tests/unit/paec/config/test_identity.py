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
