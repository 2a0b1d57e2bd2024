"""Gradients that are not finite or not there, and results that no trainer can use: one sentence names the hook."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from paec_loss import Method, MethodStack
from paec_loss.hooks import HookError
from paec_loss.methods import METHODS
from recipe.lab import __main__ as command
from recipe.lab import grpo
from recipe.lab.diagnosis import no_gradient, not_finite
from recipe.paec.common.errors import UserError

VALUE = "look for a division by 0 or the log of 0 in it"
GRADIENT = "look for a square root, a log or a division that torch.where hides at 0"


def of(hook: str, function: Callable) -> Method:
    return type("Bad", (Method,), {"__module__": "gap", hook: function})()


def hidden_root(self, tokens, context, update):
    """Finite, with the gradient 0 * inf."""
    root = (tokens.entropy - tokens.entropy.detach()).sqrt()
    return tokens.total(torch.where(tokens.entropy >= 0, 0.0, root)) / update.tokens


def outside(self, tokens, context, update):
    """Padding may be anything."""
    return torch.where(tokens.response_mask, tokens.advantages, torch.nan)


@pytest.mark.parametrize(
    "method, sentence",
    [
        (of("loss_term", lambda s, tokens, c, u: tokens.total(tokens.entropy) * torch.nan), "gap.Bad.loss_term is nan"),
        (of("loss_term", lambda s, tokens, c, u: tokens.total(tokens.entropy) / 0), "gap.Bad.loss_term is inf"),
        (of("token_advantages", lambda s, tokens, c, u: tokens.advantages.log()), "gap.Bad.token_advantages is nan"),
        (of("policy_loss", lambda s, tokens, c, u: tokens.log_prob * torch.nan), "gap.Bad.policy_loss is nan"),
        (of("rewards", lambda s, rollouts: rollouts.rewards / 0), "gap.Bad.rewards is nan"),
        (of("advantages", lambda s, rollouts: rollouts.advantages.log()), "gap.Bad.advantages is nan"),
        (of("loss_term", hidden_root), "the gradient of gap.Bad.loss_term is nan"),
    ],
)
def test_the_method_is_named(small, task, method, sentence):
    """Beside another one, and not for what it returns at padding."""
    good = of("token_advantages", outside)
    settings = replace(small("base=dapo", "method=none"), stack=MethodStack([METHODS["entropy_bonus"](), method]))
    with pytest.raises(UserError) as caught:
        grpo.step(grpo.started(settings), settings, task)
    remedy = GRADIENT if "gradient" in sentence else VALUE
    assert str(caught.value) == f"{sentence} at step 1: {remedy}"
    settings = replace(settings, stack=MethodStack([good]))
    assert grpo.step(grpo.started(settings), settings, task)["actor/grad_norm"] > 0


def test_the_policy(small, task, monkeypatch):
    """Methods without fault: the learning rate."""
    settings = small("base=dapo", "method=entropy_bonus")
    monkeypatch.setattr(grpo, "clip_grad_norm_", lambda *_: torch.tensor(torch.inf))
    with pytest.raises(UserError, match="^the gradient norm is inf at step 1: try a lower lr$"):
        grpo.step(grpo.started(settings), settings, task)


def share_of_close(self, tokens, context, update):
    """A number of `masked`, which has no gradient, as a term."""
    return 0.1 * tokens.masked(tokens.entropy).mean()


def detached(self, tokens, context, update):
    return -tokens.advantages * tokens.log_prob.detach()


@pytest.mark.parametrize("hook, function", [("loss_term", share_of_close), ("policy_loss", detached)])
def test_a_loss_without_gradient(small, task, hook, function):
    """Beside another method's term, so that the loss as a whole has one."""
    stack = MethodStack([METHODS["entropy_bonus"](), of(hook, function)])
    settings = replace(small("base=dapo", "method=none"), stack=stack)
    with pytest.raises(HookError) as caught:
        grpo.step(grpo.started(settings), settings, task)
    assert str(caught.value) == no_gradient(f"gap.Bad.{hook}")
    assert str(caught.value).startswith(
        f"gap.Bad.{hook} has no gradient, so nothing would be trained by it: compute it"
    )
    state = grpo.started(settings)
    state.step = 1  # a term may be constant in a later step
    assert grpo.step(state, settings, task)["actor/grad_norm"] > 0


def test_a_loss_of_zeros(small, task):
    """Beside a term it is one way to train by the term alone; with nothing beside it there is nothing to train."""
    zeros = of("policy_loss", lambda self, tokens, context, update: torch.zeros_like(tokens.log_prob))
    settings = replace(small("base=dapo", "method=none"), stack=MethodStack([METHODS["entropy_bonus"](), zeros]))
    metrics = grpo.step(grpo.started(settings), settings, task)
    assert metrics["actor/pg_loss"] == 0 and metrics["actor/grad_norm"] > 0
    settings = replace(settings, stack=MethodStack([zeros]))
    with pytest.raises(UserError) as caught:
        grpo.step(grpo.started(settings), settings, task)
    assert str(caught.value) == no_gradient("at step 1, gap.Bad.policy_loss")


def test_a_term_of_zero_needs_no_gradient(small, task):
    """As a floor that is not reached; the step is GRPO's."""
    nothing = of("loss_term", lambda self, tokens, context, update: torch.zeros(()))
    plain = small("base=dapo", "method=none")
    settings = replace(plain, stack=MethodStack([nothing]))
    found, expected = (grpo.step(grpo.started(s), s, task) for s in (settings, plain))
    assert found["actor/loss"] == expected["actor/loss"] and found["actor/grad_norm"] == expected["actor/grad_norm"]


def test_a_selection_of_padding(small, task):
    """Its losses would count in the mean; looked at in the first step."""
    everything = of("selection", lambda self, tokens, context, update: (torch.ones_like(tokens.response_mask), 99))
    settings = replace(small("base=dapo", "method=none"), stack=MethodStack([everything]))
    with pytest.raises(HookError) as caught:
        grpo.step(grpo.started(settings), settings, task)
    assert str(caught.value) == "gap.Bad.selection selects padding: return the mask & tokens.response_mask"
    inside = of("selection", lambda self, tokens, context, update: (tokens.response_mask, update.tokens))
    settings = replace(settings, stack=MethodStack([inside]))
    assert grpo.step(grpo.started(settings), settings, task)["actor/grad_norm"] > 0


def test_what_is_not_finite():
    values = torch.tensor([1.0, torch.inf, torch.nan])
    assert [not_finite(values[:n]) for n in (1, 2, 3)] == ["", "inf", "nan"]


MODULE = """
from paec_loss import Method

class Term(Method):
    def loss_term(self, tokens, context, update):
        return tokens.entropy
"""


def test_a_hook_with_a_wrong_result_is_one_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_term.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    small = ["prompts=2", "mini_batch=2", "responses=2", "steps=1", "test_every=-1", f"output={tmp_path / 'run'}"]
    assert command.main(["method=own_term.Term", *small]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: own_term.Term.loss_term returned a tensor of shape [4, ")
    assert line.endswith("divide by update.tokens, as in tokens.total(values) / update.tokens")
