"""Settings of verl that its trainer ignores here, that defeat a method, or that fail only after a rollout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from paec_loss import MethodStack
from recipe.paec.config.values import ACTOR, ROLLOUT, closest, shown

CHECKPOINT = ("model", "optimizer", "extra")
"""What a checkpoint needs to be resumed."""
SINGLE_TURN = "single_turn_agent"
"""verl's agent loop that answers once, without tools."""
CORRECTION = "algorithm.rollout_correction"
REJECTIONS = (
    *("token_k1", "token_k2", "token_k3", "seq_sum_k1", "seq_sum_k2", "seq_sum_k3"),
    *("seq_mean_k1", "seq_mean_k2", "seq_mean_k3", "seq_max_k2", "seq_max_k3"),
)
"""verl's ways to reject tokens and responses (rollout_rs)."""


def check_config(config: DictConfig, stack: MethodStack) -> list[str]:
    """One sentence for each such setting of a configuration whose single values are valid."""
    checks = (_distillation, _entropy_coefficient, _checkpoint, _log_probs_mode, _turns, _overlong, _correction)
    return [problem for check in checks for problem in check(config, stack)]


def notes(config: DictConfig) -> list[str]:
    """Settings that train, but not on the distribution that is measured."""
    rollout = config.actor_rollout_ref.rollout
    given = [f"{ROLLOUT}.top_p={rollout.top_p}"] * (rollout.top_p < 1)
    given += [f"{ROLLOUT}.top_k={rollout.top_k}"] * (rollout.top_k > 0)
    if not given:
        return []
    return [
        f"{' and '.join(given)}: tokens are drawn from a part of the vocabulary, but the actor's log-probs and "
        "entropies are those of all of it, and a correction with the rollout's log-probs multiplies by the mass of "
        f"that part ({CORRECTION}): without these settings the policy trains on what it samples"
    ]


def _distillation(config: DictConfig, stack: MethodStack) -> Iterator[str]:
    if OmegaConf.select(config, "distillation.enabled") and stack.acts_in_actor:
        yield (
            f"distillation.enabled=true: {' and '.join(stack.names)} replaces the loss that would learn from the "
            "teacher: set it to false, or method=none"
        )


def _entropy_coefficient(config: DictConfig, stack: MethodStack) -> Iterator[str]:
    value = config.actor_rollout_ref.actor.entropy_coeff
    if value and "entropy_bonus" in stack.names:
        yield f"{ACTOR}.entropy_coeff={value}: entropy_bonus is the same term: set its coefficient instead"


def _checkpoint(config: DictConfig, stack: MethodStack) -> Iterator[str]:
    for key in ("save_contents", "load_contents"):
        given = OmegaConf.select(config, f"{ACTOR}.checkpoint.{key}")
        named = [given] if isinstance(given, str) else list(given or [])
        if missing := [part for part in CHECKPOINT if part not in named]:
            yield (
                f"{ACTOR}.checkpoint.{key}={shown(given)}: a run could not resume exactly without "
                f"{' and '.join(missing)}: leave it out, or add to [{','.join(CHECKPOINT)}]"
            )
            return  # the other is usually its copy


def _log_probs_mode(config: DictConfig, stack: MethodStack) -> Iterator[str]:
    rollout = config.actor_rollout_ref.rollout
    mode, key = rollout.get("logprobs_mode"), f"{ROLLOUT}.logprobs_mode"
    if mode not in (None, "processed_logprobs", "raw_logprobs"):
        yield f"{key}={shown(mode)}: must be processed_logprobs, or raw_logprobs at temperature 1"
    elif mode == "raw_logprobs" and (rollout.temperature != 1 or stack.has("sampling")):
        yield (
            f"{key}=raw_logprobs: the rollout's log-probs would be those of temperature 1, the actor's are not: use "
            "processed_logprobs"
        )


def _turns(config: DictConfig, stack: MethodStack) -> Iterator[str]:
    rollout = config.actor_rollout_ref.rollout
    for name in ("enable", "tool_config_path", "function_tool_path"):
        if rollout.multi_turn[name] and rollout.agent.default_agent_loop == SINGLE_TURN:
            yield (
                f"{ROLLOUT}.multi_turn.{name}={shown(rollout.multi_turn[name])}: {SINGLE_TURN} answers once, without "
                f"tools: add {ROLLOUT}.agent.default_agent_loop=tool_agent"
            )
            return


def _overlong(config: DictConfig, stack: MethodStack) -> Iterator[str]:
    """DAPO's penalty of long responses, which only its reward manager applies."""
    key, name = "reward.reward_kwargs.overlong_buffer_cfg", "reward.reward_manager.name"
    buffer = OmegaConf.select(config, key)
    if buffer is None or (isinstance(buffer, DictConfig) and buffer.get("enable") is False):
        return
    if OmegaConf.select(config, name) != "dapo":
        yield f"{key}: is only read with {name}=dapo: add it"
        return
    longest = OmegaConf.select(config, "reward.reward_kwargs.max_resp_len")
    missing = [part for part in ("enable", "len", "penalty_factor", "log") if OmegaConf.select(buffer, part) is None]
    if missing:
        yield f"{key}.{missing[0]} is missing: give it a value"
        return
    if longest is None:
        yield (
            "reward.reward_kwargs.max_resp_len is missing: set it to "
            f"data.max_response_length={config.data.max_response_length}"
        )
    elif not 0 < buffer.len <= longest:
        yield f"{key}.len={buffer.len}: must be > 0 and at most reward.reward_kwargs.max_resp_len={longest}"


# ---- rollout correction ----------------------------------------------------------------------------------------------


def _correction(config: DictConfig, stack: MethodStack) -> Iterator[str]:
    section = OmegaConf.select(config, CORRECTION) or {}
    for name in ("rollout_is_threshold", "rollout_rs_threshold"):
        for given in config.run.overrides:
            if given.lstrip("+").startswith(f"{CORRECTION}.{name}=") and "_" in given.partition("=")[2]:
                if not isinstance(section.get(name), str):
                    yield f"""{given}: is read as a number: write '{CORRECTION}.{name}="LOWER_UPPER"'"""
                    return
    if not _bounds(section.get("rollout_is_threshold", 1.0)):
        yield (
            f"{CORRECTION}.rollout_is_threshold={shown(section['rollout_is_threshold'])}: must be a number > 0, or two "
            "of them as lower_upper"
        )
    yield from _rejection(section)


def _rejection(section: DictConfig) -> Iterator[str]:
    """Tokens and responses that are left out: names and thresholds."""
    given = section.get("rollout_rs")
    if given is None:
        return
    key = f"{CORRECTION}.rollout_rs={shown(given)}"
    names = [name.strip() for name in str(given).split(",") if name.strip()]
    if unknown := [name for name in names if name not in REJECTIONS]:
        yield f"{key}: must be of {', '.join(REJECTIONS)}{closest(unknown[0], REJECTIONS)}"
        return
    if not names:
        yield f"{key}: names no way to reject: set it to null, or one of {', '.join(REJECTIONS)}"
        return
    names, threshold = list(dict.fromkeys(names)), section.get("rollout_rs_threshold")
    if threshold is None:
        yield f"{key}: needs a threshold: set {CORRECTION}.rollout_rs_threshold"
        return
    parts = [part.strip() for part in str(threshold).split(",") if part.strip()]
    of_each = parts * len(names) if len(parts) == 1 else parts
    if len(of_each) != len(names) or not all(map(_rejects, names, of_each)):
        yield (
            f"{CORRECTION}.rollout_rs_threshold={shown(threshold)}: must be a number > 0 for all of "
            f"{','.join(names)}, or one for each, separated by commas; with k1 a number >= 1, or lower_upper"
        )


def _rejects(name: str, threshold: str) -> bool:
    """Whether verl takes this threshold; with k1, upper alone means 1 / upper to upper."""
    bounds = _bounds(threshold)
    return len(bounds) == 1 + name.endswith("k1") or (len(bounds) == 1 and bounds[0] >= 1)


def _bounds(threshold: Any) -> list[float]:
    """The bound, or the lower and the upper one, of a threshold as verl reads it; empty if it cannot."""
    if isinstance(threshold, bool):
        return []
    try:
        bounds = [float(part) for part in str(threshold).split("_", 1)]
    except ValueError:
        return []
    return bounds if bounds == sorted(bounds) and all(bound > 0 for bound in bounds) else []
