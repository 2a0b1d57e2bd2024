"""The settings of an evaluation."""

from __future__ import annotations

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from recipe.paec.common import folder_names, prompts, secrets
from recipe.paec.common.errors import UserError
from recipe.paec.config import rules, values
from recipe.paec.config.schema import EvaluationConfig
from recipe.paec.config.typed import check_types
from recipe.paec.evaluate.benchmarks import Problem
from recipe.paec.evaluate.targets import Target

RULES = {
    "seed": values.SEED,
    "context_length": values.COUNT_OR_NULL,
    "stall_timeout": values.POSITIVE,
    "protocol.samples": values.COUNT,
    "protocol.temperature": values.Rule(
        lambda number: values.NOT_NEGATIVE.accepts(number) and number < 100, "must be a number >= 0 and < 100"
    ),
    "protocol.top_p": values.SHARE,
    "protocol.top_k": values.TOP_K,
    "protocol.max_tokens": values.COUNT,
    "cluster.nodes": values.COUNT,
    "cluster.gpus_per_node": values.COUNT,
    "cluster.num_cpus": values.COUNT_OR_NULL,
    "cluster.tensor_parallel": values.COUNT,
    "reward.scorers": values.SCORERS,
    "grader.workers": values.COUNT_OR_NULL,
    "engine.dtype": values.RULES[f"{values.ROLLOUT}.dtype"],
    "engine.max_num_seqs": values.COUNT_OR_NULL,
    "engine.gpu_memory_utilization": values.SHARE_OR_NULL,
}
"""Key of an evaluation -> allowed values."""


def resolved(config: DictConfig) -> DictConfig:
    """The evaluation's own sections, resolved; UserError for wrong types and values."""
    OmegaConf.resolve(config)
    errors = secrets.check_config(config)
    own = {key: config[key] for key in EvaluationConfig.__dataclass_fields__}
    own["reward"] = {"scorers": config.reward.scorers}  # the clusters add what only a training reads
    given = OmegaConf.create(own)
    if wrong := check_types(given, EvaluationConfig):
        raise UserError(*errors, *wrong)
    typed = OmegaConf.merge(OmegaConf.structured(EvaluationConfig), OmegaConf.to_container(given))
    errors += values.check_values(typed, RULES) or rules.check_scorer_names(typed)
    errors += [f"protocol.samples_of.{k}={v}: must be >= 1" for k, v in typed.protocol.samples_of.items() if v < 1]
    if typed.samples is None and (typed.model.path is None or not typed.benchmarks):
        errors.append("give model=... and benchmarks=[...], or samples=FILE.jsonl to score existing responses")
    if typed.output is not None and (problem := folder_names.path_error("output", typed.output)):
        errors.append(problem)
    if typed.samples is not None and typed.model.path is not None:
        errors.append("samples=... scores existing responses, model=... generates new ones: give only one of them")
    if errors:
        raise UserError(*errors)
    return typed


def check_samples(config: DictConfig, problems: dict[str, list[Problem]]) -> None:
    """UserError for wrong numbers of samples: for a benchmark that is not evaluated, or several greedy samples."""
    for override in HydraConfig.get().overrides.task:
        name = override.lstrip("+").partition("=")[0].removeprefix("protocol.samples_of.")
        if override.lstrip("+").startswith("protocol.samples_of.") and name not in problems:
            raise UserError(f"protocol.samples_of.{name}: must name one of the benchmarks {', '.join(problems)}")
    several = [name for name, n in samples_per_problem(config, problems).items() if n > 1]
    if config.protocol.temperature == 0 and several:
        keys = [
            f"protocol.samples_of.{k}=1" if k in config.protocol.samples_of else "protocol.samples=1" for k in several
        ]
        raise UserError(
            f"protocol.temperature=0 generates the same response every time: also set {' '.join(dict.fromkeys(keys))}"
        )


def samples_per_problem(config: DictConfig, problems: dict[str, list[Problem]]) -> dict[str, int]:
    """Responses per problem, by benchmark."""
    return {name: config.protocol.samples_of.get(name, config.protocol.samples) for name in problems}


def as_trained(config: DictConfig, target: Target) -> DictConfig:
    """The configuration with the chat template of the run that the model comes from, and what it is told.

    Each unless it is given.
    """
    if target.run is None:
        return config
    trained = OmegaConf.load(target.run / "config.yaml")
    own = {
        "chat_template": trained.model.chat_template,
        "apply_chat_template_kwargs": prompts.template_kwargs(trained),
    }
    return OmegaConf.merge(config, {key: value for key, value in own.items() if not config[key]})
