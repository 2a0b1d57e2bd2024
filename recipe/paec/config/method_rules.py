"""What methods require from the rest of a configuration, in the pipeline and in the laboratory."""

from __future__ import annotations

from omegaconf import DictConfig

from paec_loss import MethodStack
from recipe.paec.config.values import ACTOR


def check_config(config: DictConfig, stack: MethodStack) -> list[str]:
    """Settings with which the methods fail, do nothing, or are no longer what they are."""
    errors = []
    try:
        stack.top_p  # noqa: B018  (two methods may want different nuclei)
    except ValueError as error:
        errors.append(str(error))
    return errors + _check_clip(config, stack) + _check_mean(config, stack) + _check_filter(config, stack)


def _check_clip(config: DictConfig, stack: MethodStack) -> list[str]:
    """Overrides of a clip range that another replaces, or that no policy loss reads."""
    given = [o for o in config.run.overrides if o.lstrip("+").startswith(f"{ACTOR}.clip_ratio")]
    if given and stack.has("clip"):
        return [f"{given[0]}: {' and '.join(stack.names)} sets the clip range: set the method's field instead"]
    unread = [o for o in given if o.lstrip("+").startswith((f"{ACTOR}.clip_ratio_low=", f"{ACTOR}.clip_ratio_high="))]
    if unread and stack.has("policy_loss") and not all(method.uses_clip for method in stack.methods):
        return [f"{unread[0]}: the policy loss of {stack.owner('policy_loss')} does not read it: leave it out"]
    return []


def _check_mean(config: DictConfig, stack: MethodStack) -> list[str]:
    mode = config.actor_rollout_ref.actor.loss_agg_mode
    if mode == "token-mean" or not stack.has("selection"):
        return []
    return [
        f"{ACTOR}.loss_agg_mode={mode} is not a mean over tokens, and {stack.owner('selection')} selects those of the "
        "mean: set it to token-mean"
    ]


def _check_filter(config: DictConfig, stack: MethodStack) -> list[str]:
    """Methods beside DAPO's filter, which leaves out prompts whose responses were all graded the same."""
    if not config.algorithm.filter_groups.enable:
        return []
    errors, key = [], "algorithm.filter_groups.enable"
    if stack.has("sampling"):
        names = " and ".join(stack.names)
        errors.append(f"{key}=true: {names} samples some prompts with its own settings: set it to false")
    if stack.has("rewards") and any(method.own_rewards for method in stack.methods):
        errors.append(
            f"{key}=true leaves out prompts by the graded rewards, and {stack.owner('rewards')} makes its own: set it "
            "to false"
        )
    return errors
