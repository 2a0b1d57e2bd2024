"""Which keys of a training or an evaluation may be overridden, and the check of a command line against them.

`check_overrides` looks at a command line before anything is composed; recipe.paec.config.values at what a resolved
configuration contains. Keys that the recipe sets itself, from its own sections or because it relies on them, are
refused: they would pass every other check and then mean something else. Nothing here imports torch or verl.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recipe.paec.config.composition import defaults
from recipe.paec.config.schema import RENAMED_FIELDS, EvaluationConfig, register_methods
from recipe.paec.config.values import ACTOR, MODEL, ROLLOUT, RULES, closest

GROUPS = ("experiment", "method", "also", "base", "model", "data", "cluster", "mode", "curriculum")
"""Groups of configs/: `<group>=<file>` chooses a file."""

TOP_LEVEL = (
    *("run", "seed", "method", "also", "model", "lora", "cluster"),
    *("actor_rollout_ref", "algorithm", "data", "ray_kwargs", "reward", "trainer", "transfer_queue"),
    *("critic", "custom_reward_function", "distillation", "global_profiler", "model_engine", "reward_model"),
    *("sandbox_fusion", "skip", "identity"),
)
"""Top-level keys of a composed configuration: the recipe's, verl's that are used, verl's that are not."""

OWNED = {
    "run.experiment": "experiment=... (the file), run.name (the name)",
    f"{MODEL}.path": "model.path",
    f"{MODEL}.custom_chat_template": "model.chat_template",
    f"{MODEL}.lora_rank": "lora.rank",
    f"{MODEL}.lora_alpha": "lora.alpha",
    f"{MODEL}.target_modules": "lora.target_modules",
    f"{MODEL}.lora": "lora.rank, lora.alpha, lora.target_modules or lora.merge",
    f"{MODEL}.tokenizer_path": "model.path, a folder with the tokenizer and the weights",
    f"{MODEL}.hf_config_path": "model.path, a folder with config.json and the weights",
    f"{ACTOR}.data_loader_seed": "seed",
    f"{ACTOR}.rollout_n": f"{ROLLOUT}.n",
    f"{ACTOR}.grad_clip": f"{ACTOR}.optim.clip_grad",
    f"{ACTOR}.optim.total_training_steps": "trainer.total_training_steps",
    f"{ACTOR}.ulysses_sequence_parallel_size": "cluster.sequence_parallel",
    f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size": "cluster.sequence_parallel",
    f"{ACTOR}.fsdp_config.methods": "method=... and also=...",
    f"{ACTOR}.fsdp_config.clip": f"{ACTOR}.clip_ratio_low, {ACTOR}.clip_ratio_high or {ACTOR}.clip_ratio_c",
    f"{ACTOR}.fsdp_config.seed": "seed",
    "actor_rollout_ref.ref.rollout_n": f"{ROLLOUT}.n",
    "actor_rollout_ref.ref.ulysses_sequence_parallel_size": "cluster.sequence_parallel",
    f"{ROLLOUT}.tensor_model_parallel_size": "cluster.tensor_parallel",
    f"{ROLLOUT}.seed": "seed",
    f"{ROLLOUT}.prompt_length": "data.max_prompt_length",
    f"{ROLLOUT}.response_length": "data.max_response_length",
    f"{ROLLOUT}.nnodes": "cluster.rollout_nodes (mode=separate_async)",
    f"{ROLLOUT}.n_gpus_per_node": "cluster.rollout_gpus_per_node (mode=separate_async)",
    f"{ROLLOUT}.checkpoint_engine.backend": "cluster.weight_transfer",
    "data.seed": "seed",
    "trainer.nnodes": "cluster.nodes",
    "trainer.n_gpus_per_node": "cluster.gpus_per_node",
    "trainer.device": "cluster=cpu or a cluster with GPUs (configs/cluster)",
    "trainer.experiment_name": "run.name",
    "trainer.default_local_dir": "run.root or run.directory",
    "trainer.rollout_data_dir": "run.root or run.directory",
    "trainer.validation_data_dir": "run.root or run.directory",
    "trainer.max_actor_ckpt_to_keep": "run.keep_checkpoints",
    "trainer.total_epochs": "trainer.total_training_steps",
    "trainer.resume_mode": "the same command, which resumes automatically, or run.fresh=true, which starts over",
    "trainer.resume_from_path": "the same command, which resumes automatically, or run.fresh=true, which starts over",
    "trainer.v1.trainer_mode": "mode=sync, mode=colocate_async or mode=separate_async",
    "ray_kwargs.ray_init.num_cpus": "cluster.num_cpus",
    "ray_kwargs.ray_init.num_gpus": "cluster.gpus_per_node, cluster.num_cpus",
    "ray_kwargs.ray_init.address": "cluster.ray_address",
    "ray_kwargs.ray_init.runtime_env.env_vars": "cluster.env",
}
"""Keys that the recipe sets from its own -> what to use. A key covers everything below it."""

REF = "actor_rollout_ref.ref"
NO_REPLAY = "the actor is FSDP, and verl only replays the routing of experts with Megatron and VeOmni"

FIXED = {
    "identity": "it is computed from the complete configuration",
    "run.overrides": "it records the command line",
    "model_engine": "the actor is FSDP",
    "critic": "no estimator of this recipe has a critic",
    "custom_reward_function": "recipe.grading computes the score; reward.scorers names yours (docs/scorers.md)",
    "reward.custom_reward_function": "recipe.grading computes the score; reward.scorers names yours (docs/scorers.md)",
    "reward_model": "recipe.grading computes the score, not a model (docs/grading.md)",
    "reward.reward_model": "recipe.grading computes the score, not a model (docs/grading.md)",
    "sandbox_fusion": "responses are never run as code (docs/grading.md)",
    "reward.sandbox_fusion": "responses are never run as code (docs/grading.md)",
    "trainer.use_v1": "the recipe extends this trainer of verl",
    "trainer.val_only": "paec evaluate model=... validates a model, or the checkpoints of a run (docs/evaluation.md)",
    "trainer.balance_batch": "this trainer of verl always balances the ranks' tokens",
    "trainer.esi_redundant_time": "this trainer of verl does not read it; SIGTERM saves a checkpoint (docs/faults.md)",
    "algorithm.use_pf_ppo": "this trainer of verl does not read it",
    "algorithm.pf_ppo": "this trainer of verl does not read it",
    "data.reward_fn_key": "verl does not read it; a row's data_source chooses its scorer (docs/scorers.md)",
    "reward_model.reward_manager": "verl now calls it reward.reward_manager.name",
    "reward_model.reward_kwargs": "verl now calls it reward.reward_kwargs",
    "skip.rollout": "this trainer of verl reads skip.rollout_tq",
    "skip.async_rollout": "this trainer of verl reads skip.rollout_tq",
    f"{ROLLOUT}.skip": "verl now calls it skip.rollout_tq",
    f"{ROLLOUT}.trace": "this trainer of verl traces no rollouts; they are in rollouts/ and tokens/ (docs/tokens.md)",
    f"{ROLLOUT}.over_sample_rate": "verl does not read it",
    f"{ROLLOUT}.enable_rollout_routing_replay": NO_REPLAY,
    f"{ACTOR}.router_replay": NO_REPLAY,
    f"{ACTOR}.fsdp_config.router_replay": NO_REPLAY,
    f"{ACTOR}.use_prefix_grouper": "this trainer of verl does not read it",
    f"{ACTOR}.fsdp_config.dtype": f"FSDP does not read it; use {ACTOR}.fsdp_config.mixed_precision.param_dtype",
    f"{REF}.fsdp_config.dtype": f"FSDP does not read it; use {REF}.fsdp_config.mixed_precision.param_dtype",
    "actor_rollout_ref.nccl_timeout": "verl does not read it, and PyTorch's 30 minutes hold; use run.stall_timeout for "
    "the run",
    f"{MODEL}.lora_adapter_path": "adapters of a run start anew: merge yours into a model, and set model.path to it",
    f"{MODEL}.external_lib": "it loads the recipe into every worker",
    f"{ACTOR}.fsdp_config._target_": "it brings the methods into the actor",
    f"{ROLLOUT}.name": "rollouts are generated with vLLM",
    f"{ROLLOUT}.mode": "the trainers only support async rollouts",
    f"{ROLLOUT}.val_kwargs.do_sample": f"verl does not read it; {ROLLOUT}.val_kwargs.temperature=0 is greedy",
    f"{ROLLOUT}.checkpoint_engine.custom_backend_module": "mode=separate_async sets it",
}
"""Keys that cannot be changed -> why; giving one its value is no change. A key covers everything below it."""

LIKE_FLAGS = ("yes", "no", "on", "off", "y", "n", "Yes", "No", "On", "Off", "true", "false")
"""Texts that are all true in Python."""


@dataclass(frozen=True)
class Table:
    """Tables against which a command's overrides are checked."""

    groups: tuple[str, ...]
    top_level: tuple[str, ...]
    owned: Mapping[str, str]
    fixed: Mapping[str, str]
    sections: frozenset[str]
    """Keys that hold others."""
    needed: frozenset[str]
    """Keys that must not be deleted."""

    def owner(self, key: str) -> str | None:
        """The entry of `owned` or `fixed` that covers a key."""
        parts = key.split(".")
        above = (".".join(parts[:depth]) for depth in range(len(parts), 0, -1))
        return next((name for name in above if name in self.owned or name in self.fixed), None)


def _sections(*names: str) -> frozenset[str]:
    return frozenset(".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 1))


TRAINING = Table(
    groups=GROUPS,
    top_level=TOP_LEVEL,
    owned=OWNED,
    fixed=FIXED,
    sections=_sections(
        *(*OWNED, *FIXED, *RULES, *(f"{name}.KEY" for name in TOP_LEVEL if name not in ("seed", "identity"))),
        *("cluster.env.NAME", "algorithm.rollout_correction.KEY", f"{MODEL}.override_config.KEY"),
    ),
    needed=frozenset(RULES),
)
EVALUATION = Table(
    groups=("protocol", "cluster"),
    top_level=tuple(field.name for field in fields(EvaluationConfig)),
    owned={"engine.tensor_parallel_size": "cluster.tensor_parallel"},
    fixed={
        section: "an evaluation does not read it; use engine.* for the engine's settings"
        for section in ("actor_rollout_ref", "trainer", "reward.num_workers", "ray_kwargs", "transfer_queue")
    },
    sections=_sections(
        "cluster.env.NAME",
        "apply_chat_template_kwargs.KEY",
        *(f"{name}.KEY" for name in ("engine", "grader", "model", "reward")),
    ),
    needed=frozenset(field.name for field in fields(EvaluationConfig)),
)


def key_of(override: str) -> str:
    """The key of an override, without plus, tilde and value: `a.b` of `++a.b=1` and of `~a.b`."""
    return override.lstrip("+~").partition("=")[0]


def check_overrides(overrides: Sequence[str], table: Table = TRAINING) -> list[str]:
    """One sentence for every override that would have no effect; Hydra itself reports those it cannot read."""
    read = parsed(overrides)
    return [problem for override in read for problem in _check(override, table)] + _methods_twice(read)


def given_twice(overrides: Sequence[str]) -> list[str]:
    """A note for every key or group that occurs more than once on the command line: Hydra uses the last."""
    return [f"{key} is given {len(lines)} times: {lines[-1]} is used" for key, lines in repeated(overrides).items()]


def repeated(overrides: Sequence[str]) -> dict[str, list[str]]:
    """Key or group -> its overrides, for each that occurs more than once."""
    found: dict[str, list[str]] = {}
    for override in parsed(overrides):
        found.setdefault(override.get_key_element().lstrip("+~"), []).append(override.input_line)
    return {key: lines for key, lines in found.items() if len(lines) > 1}


def parsed(overrides: Sequence[str]) -> list[Override]:
    """The overrides that Hydra can read."""
    parser, found = OverridesParser.create(), []
    for line in overrides:
        try:
            found.append(parser.parse_override(line))
        except HydraException:
            continue
    return found


def _check(override: Override, table: Table) -> Iterator[str]:
    key, line = override.key_or_group, override.input_line
    top, sweep = key.split(".")[0], override.is_sweep_override()
    value = None if sweep else override.value()
    if not key:
        yield f"{line}: is not an override: write key=value"
        return
    if top == "hydra" or "/" in key:
        if key == "hydra.searchpath":
            yield f"{line}: hydra.searchpath cannot be changed: verl's defaults are found through it"
    elif key not in table.groups and top not in table.top_level and top not in table.fixed:
        if override.is_add():
            hint = closest(top, table.top_level, "did you mean {}?") or "use a key of an existing section"
            yield f"{line}: there is no section {top}, so nothing would read it: {hint}"
    elif override.is_delete():
        if key in table.groups:
            yield f"{line}: cannot be deleted: choose another {key} (a file of configs/{key})"
        elif key in table.sections or key in table.needed or table.owner(key) or top in ("method", "also"):
            yield f"{line}: is required and cannot be deleted: give it a value"
    elif key in table.groups and not sweep and not isinstance(value, Mapping):
        names = value if isinstance(value, list) else [value]
        if not all(isinstance(name, str) for name in names):
            yield f"{line}: {key} must be chosen by name: {key}=<file of configs/{key}>"
        elif isinstance(value, list) and key != "also":
            yield one_choice(line, key, names)
    elif (renamed := _renamed_field(key)) and not override.is_add():
        yield f"{line}: this field is now called {renamed}"
    elif key.startswith("cluster.env.") and not sweep and not isinstance(value, str | int | float):
        yield f"{line}: an environment variable must be text or a number"
    elif _holds_others(key, table) and not sweep and not isinstance(value, Mapping):
        yield f"{line}: {key} is a section: set its keys one by one, {key}.<key>=<value>"
    else:
        for leaf, given in leaves(key, value):
            owner = table.owner(leaf)
            if owner in table.owned:
                yield f"{line}: {leaf} is set by the recipe: use {table.owned[owner]}"
            elif owner is not None and (table is not TRAINING or not _has_already(leaf, given)):
                yield f"{line}: {leaf} cannot be changed: {table.fixed[owner]}"
            elif table is TRAINING and given in LIKE_FLAGS and isinstance(_default(leaf), bool):
                yield f"{line}: {leaf} must be true or false"


def one_choice(line: str, key: str, names: Sequence[str]) -> str:
    """The error for several files of a group of which a run has one; Hydra would take the last."""
    others = f" also=[{','.join(names[1:])}]" if key == "method" and len(names) > 1 else ""
    return f"{line}: a run has one {key}: write {key}={names[0] if names else 'NAME'}{others}"


def _holds_others(key: str, table: Table) -> bool:
    is_a_method = key.startswith("also.") and key.count(".") == 1
    return is_a_method or (key in table.sections and table.owner(key) is None)


def _renamed_field(key: str) -> str | None:
    """The current key of a renamed field of a method, such as method.statistics."""
    section, _, field = key.rpartition(".")
    is_field = section == "method" or (section.startswith("also.") and section.count(".") == 1)
    return f"{section}.{RENAMED_FIELDS[field]}" if is_field and field in RENAMED_FIELDS else None


def leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Each key that an override sets, with its value; several for a dict."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from leaves(f"{key}.{name}", inner)
    else:
        yield key, value


def _has_already(key: str, value: Any) -> bool:
    """Whether a training has this value without an override; not for null: mode=separate_async sets a key."""
    found = _default(key)
    return value is not None and type(found) is type(value) and found == value


def _default(key: str) -> Any:
    """The value of a key in a training without overrides; None if there is no such key, or only a run knows it."""
    try:
        return OmegaConf.select(_defaults(), key)
    except OmegaConfBaseException:
        return None


@cache
def _defaults() -> DictConfig:
    """The configuration of a training without overrides."""
    register_methods()
    return defaults("train")


def _methods_twice(read: Sequence[Override]) -> list[str]:
    """An error for a method that `also=` names again; composed twice, it would silently count once."""
    chosen = {
        o.key_or_group: o.value() for o in read if o.key_or_group in ("method", "also") and not o.is_sweep_override()
    }
    also = chosen.get("also", [])
    names = [chosen.get("method"), *([also] if isinstance(also, str) else also if isinstance(also, list) else [])]
    twice = dict.fromkeys(name for name in names if isinstance(name, str) and names.count(name) > 1)
    return [f"also={name}: {name} is already active; name every method once" for name in twice]
