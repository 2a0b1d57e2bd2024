"""Methods on the advantages together: in the order given, and none that silently undoes another."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from batches import random_rollouts

from paec_loss.methods.aepo import AEPO
from paec_loss.methods.canon import CANON
from paec_loss.methods.empg import EMPG
from paec_loss.methods.empo import EMPO
from paec_loss.methods.ettrl_advantage import ETTRLAdvantage
from paec_loss.methods.hicra import HICRA
from paec_loss.methods.pear import PEAR
from paec_loss.methods.seed_grpo import SEEDGRPO
from paec_loss.stack import MethodStack


def test_the_order_is_that_of_the_stack():
    rollouts = random_rollouts()
    first, second = ETTRLAdvantage(), EMPG()
    expected = second.advantages(replace(rollouts, advantages=first.advantages(rollouts)))
    torch.testing.assert_close(MethodStack([first, second]).advantages(rollouts), expected, rtol=0, atol=0)
    assert (MethodStack([second, first]).advantages(rollouts) - expected).abs().max() > 0.01


def test_needs_are_collected():
    stack = MethodStack([SEEDGRPO(), EMPG(), AEPO()])
    assert stack.needs == {"answer_ids", "token_texts"}
    assert stack.needs_rollouts
    assert list(stack.trackers()) == ["aepo"]


def test_advantages_of_its_own_come_first():
    MethodStack([CANON(), HICRA(), EMPG()])
    with pytest.raises(ValueError, match="canon makes its own .* discard those of hicra and empg: name it first"):
        MethodStack([HICRA(), EMPG(), CANON()])
    with pytest.raises(ValueError, match="seed_grpo makes its own .* discard those of canon"):
        MethodStack([CANON(), SEEDGRPO()])


def test_one_reward():
    with pytest.raises(ValueError, match="pear and empo each bring a reward"):
        MethodStack([PEAR(), EMPO()])
