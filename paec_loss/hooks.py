"""The hooks of a method: names and parameters, checked where a class is defined, and what they return, in every call.

Only types, shapes and dtypes of results are checked, never values: a check waits for no device.
"""

from __future__ import annotations

import difflib
import inspect
import json
import numbers
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from paec_loss import _torch as torch
from paec_loss.batch import Clip

SHAPES = {
    "rewards": ("[B]", "one reward for each response"),
    "advantages": ("[B, R]", "one for each token; rollouts.at_tokens(values) spreads one for each response"),
    "response_value": ("[B]", "one number for each response"),
    "token_advantages": ("[B, R]", "one for each token, as in tokens.advantages"),
    "policy_loss": ("[B, R]", "the loss of each token, which the trainer averages"),
    "loss_term": (
        "a scalar",
        "sum over the tokens and divide by update.tokens, as in tokens.total(values) / update.tokens",
    ),
}
"""Hooks that return a tensor -> its shape, and how to get it."""
OTHERS = {
    "sampling": "a Sampling or None",
    "tracker": "an object with observe, signal, state_dict and load_state_dict, or None",
    "clip": "a Clip",
    "selection": "a bool mask [B, R], and the number of selected tokens in the mini-batch as an int",
    "local_sums": "a dict of numbers: .item() makes one of a tensor",
    "metrics": "a dict of numbers: .item() makes one of a tensor",
}
"""Hooks that return something else -> what."""
TRACKER = {"observe": ("rollouts",), "signal": ("step",), "state_dict": (), "load_state_dict": ("state",)}
"""Methods of what the hook `tracker` returns -> their parameters."""
OF_TRACKER = {
    "observe": "a dict of numbers, {} for no metrics: .item() makes one of a tensor",
    "signal": "a dict of numbers, {} for no signal: .item() makes one of a tensor",
    "state_dict": "a dict of JSON types: .item() or .tolist() makes them of a tensor",
}
"""Those that return something -> what."""
OF_NUMBERS = ("local_sums", "metrics", "observe", "signal")
"""Those, and hooks, that return a dict of numbers."""
HOOKS = ("prepare", *SHAPES, *OTHERS, "token_weights")
"""The methods of `paec_loss.Method` that a method overrides."""
NEEDED = {
    "text": "text",
    "token_texts": "token_texts",
    "answer_ids": "answer_ids",
    "rewards": "rewards",
    "ref_log_prob": "reference",
}
"""Field of Rollouts or Tokens that is None without a word in a method's `needs` -> that word."""
SEEN = ("paec_loss.batch", "paec_loss.statistics")
"""Modules of what hooks are given: Rollouts, Tokens, Update, Clip, TokenStatistics."""
CLOSE = 0.75
"""Similarity (difflib) from which another name counts as a misspelt hook."""


class HookError(TypeError):
    """A hook returned what no trainer can use: one sentence that names it, with the remedy."""


def check_hooks(kind: type, base: type) -> None:
    """Checks what a class defines against the hooks of `base`.

    Raises:
        TypeError: a method whose name is nearly a hook's, a hook with other parameters, or a field named as a hook.
    """
    own = vars(kind)
    for name in dict.fromkeys((*own, *inspect.get_annotations(kind))):
        function = getattr(own.get(name), "__func__", own.get(name))  # of a static or a class method
        if name in HOOKS and not callable(function):
            raise TypeError(f"{kind.__name__}.{name}: {name} is a hook, so it must be a method: rename the field")
        if not inspect.isfunction(function):
            continue
        if name in HOOKS:
            wanted = list(inspect.signature(getattr(base, name)).parameters)
            _check_parameters(f"{kind.__name__}.{name}", function, wanted[isinstance(own[name], staticmethod) :])
        elif not name.startswith("_") and not hasattr(base, name):
            for hook in difflib.get_close_matches(name.lower(), HOOKS, n=1, cutoff=CLOSE):
                raise TypeError(
                    f"{kind.__name__}.{name} is not a hook: did you mean {hook}? If not, rename it, for example to "
                    f"_{name}"
                )


def _check_parameters(where: str, function: Any, wanted: Sequence[str]) -> None:
    """TypeError unless it takes as many arguments as the base's, in the same order: calls are by position."""
    signature = inspect.signature(function)
    try:
        signature.bind(*wanted)
        fits = all(one == other or one not in wanted for one, other in zip(signature.parameters, wanted, strict=False))
    except TypeError:
        fits = False
    if not fits:
        raise TypeError(f"{where} takes ({', '.join(signature.parameters)}): it must take ({', '.join(wanted)})")


def check_tracker(where: str, tracker: Any) -> None:
    """TypeError unless each of a tracker's four methods takes what it is called with."""
    for name, wanted in TRACKER.items():
        _check_parameters(f"{where}.{name}", getattr(tracker, name), wanted)


def lacking(name: str, hook: str, seen: Any, error: Exception) -> HookError | None:
    """The error for a hook that failed on a field that only a word in `needs` provides, that only a later hook has, or
    that does not exist.

    None for a hook that reads neither.

    Args:
        name: the method; only functions of its own package are looked at.
        seen: what the hook was given.
        error: what it raised, with its traceback.
    """
    missing = [field for field in NEEDED if getattr(seen, field, "") is None]
    if getattr(seen, "advantages", "") is None:
        missing += ["advantages", "at_tokens"]
    trace = error.__traceback__
    while trace is not None and missing:
        frame, trace = trace.tb_frame, trace.tb_next
        if frame.f_globals.get("__name__", "").partition(".")[0] != name.partition(".")[0]:
            continue
        for field in (field for field in missing if field in frame.f_code.co_names):
            if field not in NEEDED:
                return HookError(
                    f"{name}.{hook} uses {field}, but there are no advantages yet ({type(error).__name__}: {error}): "
                    "do this in the hook advantages"
                )
            return HookError(
                f"{name}.{hook} reads {field}, which is None here ({type(error).__name__}: {error}): write "
                f'needs = {{"{NEEDED[field]}"}} in the class'
            )
    return _misspelt(name, hook, error)


def _misspelt(name: str, hook: str, error: Exception) -> HookError | None:
    """The error for a field that what a hook was given does not have."""
    if not isinstance(error, AttributeError) or type(error.obj).__module__ not in SEEN:
        return None
    frame, line = [*traceback.walk_tb(error.__traceback__)][-1]
    if frame.f_globals.get("__name__", "").partition(".")[0] != name.partition(".")[0]:
        return None
    fields = [field for field in dir(error.obj) if not field.startswith("_")]
    close = difflib.get_close_matches(str(error.name), fields, n=1)
    hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(fields)}"
    return HookError(
        f"{name}.{hook} failed ({frame.f_code.co_filename}, line {line}): {type(error.obj).__name__} has no field "
        f"{error.name}; {hint}"
    )


def check_result(where: str, hook: str, value: Any, shape: Sequence[int] = ()) -> Any:
    """`value`, if it is what a hook must return for tokens [B, R] of this shape.

    Args:
        where: the method and the hook, for the error.

    Raises:
        HookError: another type, shape or dtype.
    """
    if hook in SHAPES:
        text, remedy = SHAPES[hook]
        wanted = {"[B]": shape[:1], "[B, R]": shape}.get(text, ())
        if isinstance(value, torch.Tensor) and value.shape == tuple(wanted):
            if not value.is_floating_point():
                raise HookError(f"{where} returned a tensor of dtype {value.dtype}: must be floating; write .float()")
            return value
        remedy = f"{text}, here {list(wanted)}: {remedy}" if wanted else f"{text}: {remedy}"
    elif _fits(hook, value, tuple(shape)):
        return value
    else:
        remedy = OTHERS.get(hook) or OF_TRACKER[hook]
    found = "None" if value is None else f"a value of type {type(value).__name__}"
    found = f"a tensor of shape {list(value.shape)}" if isinstance(value, torch.Tensor) else found
    if hook in OF_NUMBERS and isinstance(value, Mapping):
        name, other = next((n, v) for n, v in value.items() if not isinstance(v, numbers.Real))
        found = f"a {type(other).__name__} under {name!r}"
    raise HookError(f"{where} returned {found}: it must return {remedy}")


def _fits(hook: str, value: Any, shape: tuple[int, ...]) -> bool:
    if hook == "clip":
        return isinstance(value, Clip)
    if hook == "sampling":
        return value is None or (hasattr(value, "share") and hasattr(value, "temperature"))
    if hook == "tracker":
        return value is None or all(callable(getattr(value, part, None)) for part in TRACKER)
    if hook == "state_dict":
        return isinstance(value, Mapping) and _is_json(value)
    if hook == "selection":
        pair = isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], int)
        mask = value[0] if pair else None
        return isinstance(mask, torch.Tensor) and mask.shape == shape and mask.dtype == torch.bool
    return isinstance(value, Mapping) and all(isinstance(number, numbers.Real) for number in value.values())


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
