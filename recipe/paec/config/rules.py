"""Rules between the keys of a configuration: errors that can be found without any file or machine."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from paec_loss import MethodStack
from recipe.grading.sources import check_name
from recipe.paec.common import secrets
from recipe.paec.config import attention, keys, method_rules, scored_files, typed, unread, verl_rules
from recipe.paec.config.identity import trainer_mode
from recipe.paec.config.methods import stack_of
from recipe.paec.config.resolve import no_statistics
from recipe.paec.config.schema import OWN_SURROGATE, SECTIONS, TRAINER_MODES
from recipe.paec.config.values import ACTOR, GROUPED, ROLLOUT, check_values, shown

FILTERS = ("reward", "score", "acc", "format", "strict", "unparsable", "grader_timeout", "grader_error", "repetition")
"""Numbers that DAPO's filter can compare: verl's reward, and those of `recipe.paec.rollout.rewards`."""


def check_config(config: DictConfig) -> list[str]:
    """Types and ranges of our own sections, combinations that cannot work, and secrets that would end up on disk."""
    errors = secrets.check_config(config) + keys.check_overrides(config.run.overrides)
    values = check_values(config)
    told = {problem.split("=")[0] for problem in values}
    for name, schema in SECTIONS.items():
        errors += typed.check_types(config, schema, name, told)
    try:
        stack = stack_of(config)
    except (ValueError, TypeError) as error:
        errors.append(str(error))
    errors += values
    if "reward.scorers" not in told:
        errors += check_scorer_names(config)
    if errors:
        return list(dict.fromkeys(errors))
    actor = config.actor_rollout_ref.actor
    if config.cluster.platform == "cpu" and actor.strategy != "fsdp2":
        errors.append("actor_rollout_ref.actor.strategy: must be fsdp2 on cluster=cpu, FSDP1 needs a GPU")
    errors += attention.check_config(config)
    errors += _check_batches(config) + _check_micro_batches(config) + _check_mode(config)
    errors += _check_loss(config, stack) + _check_filter_metric(config) + _check_rollout_log_probs(config)
    errors += _check_methods(config, stack) + _check_record(config)
    if actor.loss_agg_mode == "seq-mean-token-sum-norm" and not actor.loss_scale_factor:
        errors.append(
            "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum-norm divides by the longest response of each "
            "micro-batch unless actor_rollout_ref.actor.loss_scale_factor is set: base=dr_grpo sets both"
        )
    errors += unread.check_config(config) + verl_rules.check_config(config, stack) + scored_files.check_config(config)
    return errors + _check_lengths(config)


def check_scorer_names(config: DictConfig) -> list[str]:
    """`reward.scorers` whose scorer is neither one of the project nor the name of a function."""
    found = ((source, check_name(scorer)) for source, scorer in config.reward.scorers.items())
    return [f"reward.scorers.{source}: {problem}" for source, problem in found if problem]


def _check_methods(config: DictConfig, stack: MethodStack) -> list[str]:
    """What the methods require from the rest of the configuration."""
    actor, names = config.actor_rollout_ref.actor, " and ".join(stack.names)
    errors = method_rules.check_config(config, stack)
    acts = stack.acts_in_actor or stack.needs_rollouts
    if acts and config.actor_rollout_ref.model.use_fused_kernels:
        errors.append(
            f"actor_rollout_ref.model.use_fused_kernels=true never materialises the logits that {names} reads: "
            "set it to false, or method=none"
        )
    passes = stack.needs_rollouts or "step" in stack.sources()
    if passes and config.algorithm.rollout_correction.get("bypass_mode", False):
        errors.append(
            f"algorithm.rollout_correction.bypass_mode=true skips the log-prob pass that {names} reads: set it to "
            "false, or method=none"
        )
    if stack.own_surrogate and actor.policy_loss.loss_mode != OWN_SURROGATE:
        errors.append(
            f"actor_rollout_ref.actor.policy_loss.loss_mode={actor.policy_loss.loss_mode}: {names} has its own policy "
            "loss: leave it out"
        )
    if "curriculum" in stack.needs and config.data.curriculum is None:
        errors.append(
            f"{names} trains on the prompts in a given order: add curriculum=semantic_entropy ({scored_files.COMMAND} "
            "writes the scores)"
        )
    if stack.has("sampling") and trainer_mode(config) != "sync":
        errors.append(f"mode={trainer_mode(config)}: {names} samples some prompts with its own settings: use mode=sync")
    own = [name for name, method in zip(stack.names, stack.methods, strict=True) if method.own_advantages]
    if own and config.algorithm.use_kl_in_reward:
        errors.append(
            f"algorithm.use_kl_in_reward=true: {own[0]} makes its own advantages from the rewards, without the KL: use "
            f"{ACTOR}.use_kl_loss=true"
        )
    return errors


def _check_record(config: DictConfig) -> list[str]:
    """What the token record reads of the log-prob pass."""
    setting = no_statistics(config)
    if not config.run.record_tokens or setting is None:
        return []
    return [
        f"run.record_tokens={config.run.record_tokens}: with {setting} there are no token statistics to record: set "
        "run.record_tokens=0"
    ]


def _check_lengths(config: DictConfig) -> list[str]:
    """Prompt + response against everything that must have room for it."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    length = sequence_length(config)
    errors = []
    if config.model.context_length:
        errors += check_context(length, config.model.context_length, "model.context_length")
    if rollout.max_model_len is not None and length > rollout.max_model_len:
        errors.append(
            f"actor_rollout_ref.rollout.max_model_len={rollout.max_model_len} is less than prompt + response = {length}"
        )
    budgets = {
        "actor.ppo_max_token_len_per_gpu": actor.use_dynamic_bsz and actor.ppo_max_token_len_per_gpu,
        "rollout.log_prob_max_token_len_per_gpu": (
            rollout.log_prob_use_dynamic_bsz and rollout.log_prob_max_token_len_per_gpu
        ),
    }
    for key, tokens in budgets.items():
        if tokens and tokens * config.cluster.sequence_parallel < length:
            errors.append(
                f"actor_rollout_ref.{key} x cluster.sequence_parallel = {tokens * config.cluster.sequence_parallel} is "
                f"less than prompt + response = {length}, which verl does not accept: raise one of them"
            )
    return errors


def sequence_length(config: DictConfig) -> int:
    """Longest prompt + response, tokens."""
    return config.data.max_prompt_length + config.data.max_response_length


def check_context(length: int, context: int, source: str) -> list[str]:
    """What is wrong if sequences of `length` tokens do not fit the `context` that `source` allows."""
    if length <= context:
        return []
    return [
        f"data.max_prompt_length + data.max_response_length = {length} exceeds the model's context of {context} "
        f"tokens ({source}): lower one of them"
    ]


def _data_parallel(config: DictConfig) -> int:
    """Number of data-parallel ranks; 1 where sequence_parallel leaves none, which `_check_batches` refuses."""
    return max(config.cluster.nodes * config.cluster.gpus_per_node // config.cluster.sequence_parallel, 1)


def _check_batches(config: DictConfig) -> list[str]:
    batch, mini = config.data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size
    ranks = config.cluster.nodes * config.cluster.gpus_per_node
    errors = []
    for degree in ("tensor_parallel", "sequence_parallel"):
        if ranks % config.cluster[degree]:
            errors.append(f"cluster.{degree}={config.cluster[degree]} does not divide the {ranks} workers")
    if batch % mini:
        errors.append(
            f"data.train_batch_size={batch} must be a multiple of "
            f"actor_rollout_ref.actor.ppo_mini_batch_size={mini} (both count prompts)"
        )
    data_parallel = _data_parallel(config)
    if mini * config.actor_rollout_ref.rollout.n % data_parallel:
        errors.append(
            f"ppo_mini_batch_size x rollout.n = {mini * config.actor_rollout_ref.rollout.n} responses cannot be "
            f"divided evenly over {data_parallel} data-parallel ranks"
        )
    fetched, rest = config.data.gen_batch_size, _fetched_one_by_one(config)
    if fetched not in (None, 1) and (rest or batch % fetched):
        reason = f"with {rest} verl fetches prompts one by one" if rest else f"it does not divide {batch} prompts"
        errors.append(f"data.gen_batch_size={fetched}: {reason}: leave it out")
    return errors


def _fetched_one_by_one(config: DictConfig) -> str | None:
    """The setting with which verl replaces data.gen_batch_size by 1; None if it does not."""
    if trainer_mode(config) != "sync":
        return f"mode={trainer_mode(config)}"
    return "algorithm.filter_groups.enable=true" if config.algorithm.filter_groups.enable else None


def _check_micro_batches(config: DictConfig) -> list[str]:
    """Micro-batches of a fixed number of responses, which must divide what a rank has."""
    actor, rollout, ref = (config.actor_rollout_ref[part] for part in ("actor", "rollout", "ref"))
    ranks = _data_parallel(config)
    update = actor.ppo_mini_batch_size * rollout.n // ranks
    # separate_async computes the log-probs of one mini-batch after the other.
    step = update if trainer_mode(config) == "separate_async" else config.data.train_batch_size * rollout.n // ranks
    # With adapters the reference policy is the actor without them.
    has_reference = (actor.use_kl_loss or config.algorithm.use_kl_in_reward) and not config.lora.rank
    passes = {
        "actor.ppo_micro_batch_size_per_gpu": (not actor.use_dynamic_bsz, update),
        "rollout.log_prob_micro_batch_size_per_gpu": (not rollout.log_prob_use_dynamic_bsz, step),
        "ref.log_prob_micro_batch_size_per_gpu": (has_reference and not ref.log_prob_use_dynamic_bsz, step),
    }
    errors = []
    if actor.use_dynamic_bsz != rollout.log_prob_use_dynamic_bsz:
        errors.append(
            f"{ROLLOUT}.log_prob_use_dynamic_bsz={shown(rollout.log_prob_use_dynamic_bsz)}: verl wants the value of "
            f"{ACTOR}.use_dynamic_bsz={shown(actor.use_dynamic_bsz)}: leave it out"
        )
    return errors + [
        f"actor_rollout_ref.{key}={micro}: must divide the {responses} responses of a data-parallel rank"
        for key, (used, responses) in passes.items()
        if used and (micro := OmegaConf.select(config.actor_rollout_ref, key)) and responses % micro
    ]


def _check_mode(config: DictConfig) -> list[str]:
    chosen, rollout, cluster = config.trainer.v1.trainer_mode, config.actor_rollout_ref.rollout, config.cluster
    if chosen not in TRAINER_MODES.values():
        return [f"trainer.v1.trainer_mode={chosen}: choose it with mode={', mode='.join(TRAINER_MODES)}"]
    gpus = cluster.rollout_nodes * cluster.rollout_gpus_per_node
    if trainer_mode(config) != "separate_async":
        if gpus:
            return [
                f"cluster.rollout_nodes={cluster.rollout_nodes}: only mode=separate_async has separate GPUs for rollout"
            ]
        return []
    errors = []
    if gpus < 1:
        errors.append(
            f"mode=separate_async needs separate GPUs for rollout: cluster.rollout_nodes={cluster.rollout_nodes} and "
            f"cluster.rollout_gpus_per_node={cluster.rollout_gpus_per_node} must both be >= 1"
        )
    elif gpus % cluster.tensor_parallel:
        errors.append(f"cluster.tensor_parallel={cluster.tensor_parallel} does not divide the {gpus} rollout GPUs")
    batch, mini = config.data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size
    given = config.trainer.v1.separate_async.parameter_sync_step
    if given is not None and given * mini != batch:
        errors.append(
            f"trainer.v1.separate_async.parameter_sync_step={given}: a step of data.train_batch_size={batch} has "
            f"{batch // mini} mini-batches of {mini}, and weights are sent once per step: leave it out"
        )
    backend = rollout.checkpoint_engine.backend
    if backend == "naive" or (cluster.platform == "cpu" and backend != "gloo"):
        errors.append(
            f"actor_rollout_ref.rollout.checkpoint_engine.backend={backend} cannot carry weights to other "
            f"{'processes without GPU: choose gloo' if cluster.platform == 'cpu' else 'GPUs: choose nccl'}"
        )
    if not config.actor_rollout_ref.hybrid_engine:
        errors.append("actor_rollout_ref.hybrid_engine=false: verl 0.9.1 fails with this value: set it to true")
    if config.lora.rank and not config.lora.merge:
        errors.append("lora.merge=false: mode=separate_async sends full weights without adapters: set lora.merge=true")
    return errors


def _check_loss(config: DictConfig, stack: MethodStack) -> list[str]:
    """Estimator and number of responses against each other."""
    estimator, n = config.algorithm.adv_estimator, config.actor_rollout_ref.rollout.n
    errors = []
    if estimator in GROUPED and n < 2:
        errors.append(
            f"actor_rollout_ref.rollout.n={n}: algorithm.adv_estimator={estimator} compares the responses to one "
            "prompt: draw at least 2, or use algorithm.adv_estimator=reinforce_plus_plus"
        )
    else:
        errors += stack.too_few(f"{ROLLOUT}.n", n)
    return errors


def _check_filter_metric(config: DictConfig) -> list[str]:
    """The number by which DAPO's filter compares the responses to a prompt."""
    metric = config.algorithm.filter_groups.metric
    if not config.algorithm.filter_groups.enable or metric in FILTERS or str(metric).startswith("metric/"):
        return []
    return [
        f"algorithm.filter_groups.metric={shown(metric)}: must be one of {', '.join(FILTERS)}, or metric/<name> of a "
        "scorer of your own"
    ]


def _check_rollout_log_probs(config: DictConfig) -> list[str]:
    """Settings that need the rollout's own log-probs."""
    if config.actor_rollout_ref.rollout.calculate_log_probs:
        return []
    section = config.algorithm.rollout_correction
    needing = [key for key in ("bypass_mode", "rollout_is", "rollout_rs") if section.get(key)]
    if not needing:
        return []
    key = needing[0]
    return [
        f"{ROLLOUT}.calculate_log_probs=false: algorithm.rollout_correction.{key}={shown(section[key])} needs the "
        "rollout's log-probs: set it to true"
    ]
