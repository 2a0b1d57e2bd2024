"""What is wrong with a loss: a gradient that is not finite, and whose it is, or none at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from paec_loss import MethodStack, Rollouts, Tokens
from paec_loss.hooks import HookError


class NotFinite(Exception):
    """What is not finite, and where to look for it."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.remedy = remedy


class Watched(MethodStack):
    """Methods whose results must be finite at the response tokens, and so must their gradients in the statistics."""

    def checked(self, name: str, hook: str, value: Any, seen: Tokens | Rollouts | None = None) -> Any:
        """As in MethodStack.

        Raises:
            NotFinite: the result, or its gradient, is not finite.
        """
        value = super().checked(name, hook, value, seen)
        if not isinstance(value, Tensor) or seen is None:
            return value
        inside = value[seen.response_mask] if value.dim() == 2 else value
        if kind := not_finite(inside):
            raise NotFinite(f"{name}.{hook} is {kind}", "look for a division by 0 or the log of 0 in it")
        found = seen.statistics
        leaves = [leaf for leaf in (found.log_prob, found.entropy, found.nucleus_entropy) if leaf.requires_grad]
        if inside.requires_grad and leaves:
            for gradient in torch.autograd.grad(inside.sum(), leaves, retain_graph=True, allow_unused=True):
                if gradient is not None and (kind := not_finite(gradient[seen.response_mask])):
                    remedy = "look for a square root, a log or a division that torch.where hides at 0"
                    raise NotFinite(f"the gradient of {name}.{hook} is {kind}", remedy)
        return value


class Trained(MethodStack):
    """Methods whose losses must have a gradient, unless they are 0, and that select no padding; for a first step."""

    def checked(self, name: str, hook: str, value: Any, seen: Tokens | Rollouts | None = None) -> Any:
        """As in MethodStack.

        Raises:
            HookError: a loss that no parameter would follow, a term without effect, or a selection of padding.
        """
        value = super().checked(name, hook, value, seen)
        if hook == "selection" and seen is not None and (value[0] & ~seen.response_mask).any():
            raise HookError(f"{name}.selection selects padding: return the mask & tokens.response_mask")
        if hook in ("loss_term", "policy_loss") and seen is not None and not value.requires_grad:
            inside = value[seen.response_mask] if value.dim() == 2 else value
            if inside.any():
                raise HookError(no_gradient(f"{name}.{hook}"))
        return value


def no_gradient(what: str) -> str:
    """One sentence on a loss without gradient."""
    return (
        f"{what} has no gradient, so nothing would be trained by it: compute it from tokens.log_prob, tokens.entropy "
        "or tokens.statistics; what tokens.mean, tokens.masked, detach or item return has none, nor has context"
    )


def not_finite(values: Tensor) -> str:
    """nan or inf if one of the values is; "" if all are finite."""
    if values.isnan().any():
        return "nan"
    return "inf" if values.isinf().any() else ""


def explained(norm: float, step: int, tokens: Tokens, again: Callable[[type[MethodStack], Tokens], object]) -> str:
    """One sentence on a gradient norm that is not finite.

    Args:
        tokens: the mini-batch.
        again: runs the step's hooks in a stack of this class, on these tokens.
    """
    sound = not not_finite(tokens.log_prob[tokens.response_mask])
    fresh = tokens.statistics.map(lambda values: values.detach().requires_grad_(values.is_floating_point()))
    try:
        if sound:
            again(Watched, replace(tokens, statistics=fresh))
    except NotFinite as error:
        return f"{error} at step {step}: {error.remedy}"
    return f"the gradient norm is {norm} at step {step}: try a lower lr"
