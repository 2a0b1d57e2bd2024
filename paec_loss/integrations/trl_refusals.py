"""What is refused before a run with TRL starts: methods that TRL has no place for, options that exclude methods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from paec_loss.method import Method
from paec_loss.stack import MethodStack

ACCUMULATED = ("dapo", "grpo", "dr_grpo")
"""Values of `loss_type` whose sum over the accumulation steps does not depend on how the mini-batch is split."""
CLIPPED = (*ACCUMULATED, "bnpo", "luspo")
"""Values of `loss_type` with PPO's clip range."""
NEUTRAL = {
    "importance_sampling_level": ("token", "the methods change single tokens"),
    "top_entropy_quantile": (1.0, "its quantile is of one accumulation step; the method forking_tokens is the same"),
    "entropy_coef": (0.0, "its mean is of one accumulation step; the method entropy_bonus is the same"),
    "use_adaptive_entropy": (False, "the method entropy_adaptive is the same"),
}
"""Option of GRPOConfig -> the value that it must have beside a method that acts on the loss, and why."""
NEUTRAL_WITH_OWN_LOSS = {
    "off_policy_mask_threshold": (None, "it masks TRL's policy loss"),
}
"""The same beside a method whose policy loss or selection replaces TRL's."""


def refused_method(name: str, method: Method) -> str | None:
    """Why TRL cannot run a method, whatever the options are, and the remedy; None if it can."""
    instead = "choose another method, or train with the verl recipe"
    if method.overrides("sampling"):
        return f"{name} draws some prompts at a temperature of their own, and TRL draws all at one: {instead}"
    if "curriculum" in method.needs:
        return f"{name} needs its prompts in the order of a curriculum, which TRL's sampler does not have: {instead}"
    return None


def condition(method: Method) -> str | None:
    """What else a method needs from the caller; None if nothing."""
    if "answer_ids" in method.needs:
        return "`answer_func`"
    if "reference" in method.needs:
        return "`beta` above 0"
    return None


def refusals(stack: MethodStack, args: Any, answers: bool) -> Iterator[str]:
    """One sentence for each thing refused; `args` is a GRPOConfig, `answers` whether there is an answer_func."""
    for name, method in zip(stack.names, stack.methods, strict=True):
        reason = refused_method(name, method)
        if reason:
            yield reason
        if "answer_ids" in method.needs and not answers:
            yield f"{name} compares the answers of a prompt's responses: pass answer_func=, which returns them"
        if "reference" in method.needs and args.beta == 0:
            yield f"{name} needs a reference policy, which TRL only has if beta is above 0: set args.beta"
    yield from stack.too_few("num_generations", args.num_generations)
    if stack.has("rewards") and args.multi_objective_aggregation != "sum_then_normalize":
        yield _option("multi_objective_aggregation", args, stack.owner("rewards"), "sum_then_normalize", "one reward")
    if stack.has("clip") and args.loss_type not in CLIPPED:
        yield (
            f"loss_type={args.loss_type!r} has no clip range, and {stack.owner('clip')} brings one: choose one of "
            f"{', '.join(CLIPPED)}"
        )
    if stack.acts_in_actor:
        yield from _refused_options(stack, args)


def _refused_options(stack: MethodStack, args: Any) -> Iterator[str]:
    names = " and ".join(stack.names)
    if args.loss_type not in ACCUMULATED:
        yield (
            f"loss_type={args.loss_type!r} cannot be combined with {names}: choose one of {', '.join(ACCUMULATED)}, "
            "which do not depend on how a mini-batch is split"
        )
    if stack.has("selection") and args.loss_type != "dapo":
        yield (
            f"loss_type={args.loss_type!r} is not a mean over tokens, and {stack.owner('selection')} selects those of "
            "the mean: set loss_type='dapo'"
        )
    if args.steps_per_generation % args.gradient_accumulation_steps:
        yield (
            f"steps_per_generation={args.steps_per_generation} is not a multiple of gradient_accumulation_steps="
            f"{args.gradient_accumulation_steps}, so a mini-batch is not generated as a whole before its update, and "
            f"{names} needs it: leave steps_per_generation out, or make it a multiple"
        )
    high = args.epsilon if args.epsilon_high is None else args.epsilon_high
    if args.delta is not None and args.delta < 1 + high:
        yield f"delta={args.delta} is below 1 + epsilon_high = {1 + high}, where {names} cannot follow TRL: raise it"
    neutral = NEUTRAL | (NEUTRAL_WITH_OWN_LOSS if stack.own_surrogate else {})
    for option, (value, why) in neutral.items():
        if getattr(args, option) != value:
            yield _option(option, args, names, value, why)


def _option(option: str, args: Any, names: str, value: Any, why: str) -> str:
    return f"{option}={getattr(args, option)!r} cannot be combined with {names} ({why}): set it to {value!r}"
