"""Everything that can be known to be wrong before the first worker starts, one sentence each."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from paec_loss import MethodStack
from recipe.grading import sources
from recipe.paec import attention_choice, curriculum_order, keys, prompts, safety, versions
from recipe.paec.config import OWN_SURROGATE, SECTIONS, TRAINER_MODES
from recipe.paec.errors import UserError
from recipe.paec.methods import stack_of
from recipe.paec.model_files import context_length, file_problems, head_dim, model_folder, module_problems, read_config

PLUGIN_GROUPS, PLUGIN_NAME = ("verl.plugins", "vllm.general_plugins"), "paec"
"""Entry-point groups in which this package must be found, and its name there."""


def check_config(config: DictConfig) -> list[str]:
    """Types and ranges of our own sections, combinations that cannot work, and secrets that would be written down."""
    problems = safety.check_config(config) + keys.check_overrides(config.run.overrides)
    values = keys.check_values(config)
    told = {problem.split("=")[0] for problem in values}
    for name, schema in SECTIONS.items():
        section = OmegaConf.to_container(config[name], resolve=True)
        try:
            OmegaConf.merge(OmegaConf.structured(schema), section)
        except OmegaConfBaseException as error:
            key = f"{name}.{error.full_key}" if error.full_key else name
            if key not in told:
                problems.append(f"{key}: {error.msg.splitlines()[0]}")
    try:
        stack = stack_of(config)
    except (ValueError, TypeError) as error:
        problems.append(str(error))
    problems += values
    if problems:
        return list(dict.fromkeys(problems))
    actor = config.actor_rollout_ref.actor
    if config.cluster.platform == "cpu" and actor.strategy != "fsdp2":
        problems.append("actor_rollout_ref.actor.strategy: on cluster=cpu only fsdp2 works, FSDP1 needs a GPU")
    problems += attention_choice.check_config(config)
    problems += _check_batches(config) + _check_mode(config) + _check_loss(config)
    problems += _check_methods(config, stack)
    if actor.loss_agg_mode == "seq-mean-token-sum-norm" and not actor.loss_scale_factor:
        problems.append(
            "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum-norm divides by the longest response of each "
            "micro-batch unless actor_rollout_ref.actor.loss_scale_factor says by what: base=dr_grpo sets both"
        )
    problems += curriculum_order.check_config(config)
    return problems + _check_lengths(config)


def _check_methods(config: DictConfig, stack: MethodStack) -> list[str]:
    """What the methods need of the rest of the configuration."""
    actor, names = config.actor_rollout_ref.actor, " and ".join(stack.names)
    problems = []
    try:
        stack.top_p  # noqa: B018  (two methods may want different nuclei)
    except ValueError as error:
        problems.append(str(error))
    acts = stack.acts_in_actor or stack.needs_rollouts
    if acts and config.actor_rollout_ref.model.use_fused_kernels:
        problems.append(
            f"actor_rollout_ref.model.use_fused_kernels=true never materialises the logits that {names} reads: "
            "set it to false, or method=none"
        )
    passes = stack.needs_rollouts or "step" in stack.sources()
    if passes and config.algorithm.rollout_correction.get("bypass_mode", False):
        problems.append(
            f"algorithm.rollout_correction.bypass_mode=true skips the log-prob pass that {names} reads: set it to "
            "false, or method=none"
        )
    if stack.own_surrogate and actor.policy_loss.loss_mode != OWN_SURROGATE:
        problems.append(
            f"actor_rollout_ref.actor.policy_loss.loss_mode={actor.policy_loss.loss_mode}: {names} brings a policy "
            "loss of its own: leave it out"
        )
    if "curriculum" in stack.needs and config.data.curriculum is None:
        problems.append(
            f"{names} trains on the prompts in an order: add curriculum=semantic_entropy ({curriculum_order.COMMAND} "
            "writes the scores)"
        )
    if stack.has("clip"):
        given = [o for o in config.run.overrides if o.startswith("actor_rollout_ref.actor.clip_ratio")]
        if given:
            problems.append(f"{given[0]}: {names} sets the clip range: give it as a field of the method instead")
    if stack.has("sampling"):
        if trainer_mode(config) != "sync":
            problems.append(f"mode={trainer_mode(config)}: {names} draws some prompts in its own way: mode=sync only")
        if config.algorithm.filter_groups.enable:
            problems.append(
                f"algorithm.filter_groups.enable=true: {names} draws some prompts in its own way: set false"
            )
    return problems


def _check_lengths(config: DictConfig) -> list[str]:
    """Prompt + response against everything that must hold one."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    length = sequence_length(config)
    problems = []
    if config.model.context_length:
        problems += _check_context(length, config.model.context_length, "model.context_length")
    if rollout.max_model_len is not None and length > rollout.max_model_len:
        problems.append(
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
            problems.append(
                f"actor_rollout_ref.{key} x cluster.sequence_parallel = {tokens * config.cluster.sequence_parallel} is "
                f"less than prompt + response = {length}, which verl refuses: raise one of them"
            )
    return problems


def sequence_length(config: DictConfig) -> int:
    """Longest prompt + response, tokens."""
    return config.data.max_prompt_length + config.data.max_response_length


def _check_context(length: int, context: int, source: str) -> list[str]:
    if length <= context:
        return []
    return [
        f"data.max_prompt_length + data.max_response_length = {length} is more than the model's context of {context} "
        f"tokens ({source}): lower one of them"
    ]


def _check_batches(config: DictConfig) -> list[str]:
    batch, mini = config.data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size
    ranks = config.cluster.nodes * config.cluster.gpus_per_node
    problems = []
    for degree in ("tensor_parallel", "sequence_parallel"):
        if ranks % config.cluster[degree]:
            problems.append(f"cluster.{degree}={config.cluster[degree]} does not divide the {ranks} workers")
    if batch % mini:
        problems.append(
            f"data.train_batch_size={batch} must be a multiple of "
            f"actor_rollout_ref.actor.ppo_mini_batch_size={mini} (both count prompts)"
        )
    data_parallel = ranks // config.cluster.sequence_parallel
    if mini * config.actor_rollout_ref.rollout.n % data_parallel:
        problems.append(
            f"ppo_mini_batch_size x rollout.n = {mini * config.actor_rollout_ref.rollout.n} responses cannot be "
            f"divided over {data_parallel} data-parallel ranks"
        )
    return problems


def trainer_mode(config: DictConfig) -> str:
    """`sync`, `colocate_async` or `separate_async`; KeyError for a trainer that is not this recipe's."""
    return {name: mode for mode, name in TRAINER_MODES.items()}[config.trainer.v1.trainer_mode]


def _check_mode(config: DictConfig) -> list[str]:
    chosen, rollout, cluster = config.trainer.v1.trainer_mode, config.actor_rollout_ref.rollout, config.cluster
    if chosen not in TRAINER_MODES.values():
        return [f"trainer.v1.trainer_mode={chosen}: choose with mode={', mode='.join(TRAINER_MODES)}"]
    gpus = cluster.rollout_nodes * cluster.rollout_gpus_per_node
    if trainer_mode(config) != "separate_async":
        if gpus:
            return [
                f"cluster.rollout_nodes={cluster.rollout_nodes}: only mode=separate_async has GPUs for rollout alone"
            ]
        return []
    problems = []
    if gpus < 1:
        problems.append(
            f"mode=separate_async needs GPUs for rollout alone: cluster.rollout_nodes={cluster.rollout_nodes} and "
            f"cluster.rollout_gpus_per_node={cluster.rollout_gpus_per_node} must both be at least 1"
        )
    elif gpus % cluster.tensor_parallel:
        problems.append(f"cluster.tensor_parallel={cluster.tensor_parallel} does not divide the {gpus} rollout GPUs")
    batch, mini = config.data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size
    given = config.trainer.v1.separate_async.parameter_sync_step
    if given is not None and given * mini != batch:
        problems.append(
            f"trainer.v1.separate_async.parameter_sync_step={given}: a step of data.train_batch_size={batch} has "
            f"{batch // mini} mini-batches of {mini}, and weights are sent once a step: leave it out"
        )
    backend = rollout.checkpoint_engine.backend
    if backend == "naive" or (cluster.platform == "cpu" and backend != "gloo"):
        problems.append(
            f"actor_rollout_ref.rollout.checkpoint_engine.backend={backend} cannot carry weights to other "
            f"{'processes without GPU: choose gloo' if cluster.platform == 'cpu' else 'GPUs: choose nccl'}"
        )
    if not config.actor_rollout_ref.hybrid_engine:
        problems.append("actor_rollout_ref.hybrid_engine=false: verl 0.9.1 fails with it, leave it true")
    if config.lora.rank and not config.lora.merge:
        problems.append("lora.merge=false: mode=separate_async sends whole weights, without adapters: lora.merge=true")
    return problems


def _check_loss(config: DictConfig) -> list[str]:
    """Estimator, clip range and number of responses against each other."""
    actor, estimator, n = (
        config.actor_rollout_ref.actor,
        config.algorithm.adv_estimator,
        config.actor_rollout_ref.rollout.n,
    )
    problems = []
    if estimator in keys.GROUPED and n < 2:
        problems.append(
            f"actor_rollout_ref.rollout.n={n}: algorithm.adv_estimator={estimator} compares the responses to one "
            "prompt: draw at least 2, or use algorithm.adv_estimator=reinforce_plus_plus"
        )
    mode = actor.policy_loss.loss_mode
    given = [o for o in config.run.overrides if o.lstrip("+").startswith("actor_rollout_ref.actor.clip_ratio=")]
    if given and mode not in keys.ONE_CLIP_RATIO:
        problems.append(
            f"{given[0]} has no effect with policy_loss.loss_mode={mode}: set "
            "actor_rollout_ref.actor.clip_ratio_low and actor_rollout_ref.actor.clip_ratio_high"
        )
    return problems


def check_versions() -> list[str]:
    """verl and vLLM against the pin, and the plugin's entry point."""
    problems = versions.pin_errors()
    for group in PLUGIN_GROUPS:
        if PLUGIN_NAME not in {point.name for point in entry_points(group=group)}:
            problems.append(
                f"the plugin {PLUGIN_NAME!r} is not installed (entry-point group {group}): "
                f"run launch/setup_env.sh {versions.stack()}, which installs this package"
            )
    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto").strip().lower()
    if policy != "auto" and PLUGIN_NAME not in {name.strip() for name in policy.split(",")}:
        problems.append(
            f"VERL_USE_EXTERNAL_PLUGINS={policy} keeps verl from loading the plugin {PLUGIN_NAME!r}: unset it"
        )
    return problems


def check_cluster(config: DictConfig) -> list[str]:
    """vLLM's plugins, and GPUs of this node against `cluster.gpus_per_node`."""
    plugins = config.cluster.env.get("VLLM_PLUGINS", os.environ.get("VLLM_PLUGINS"))
    if plugins is not None and PLUGIN_NAME not in plugins.split(","):
        return [
            f"VLLM_PLUGINS={plugins} keeps vLLM from loading {PLUGIN_NAME!r}, the other end of the weight sync: add it"
        ]
    if config.cluster.platform == "cpu":
        if versions.stack() != "cpu":
            return ["cluster=cpu needs the CPU build of vLLM: run launch/setup_env.sh cpu"]
        return []
    if config.cluster.platform != "cuda":
        return [f"cluster.platform={config.cluster.platform}: choose cuda or cpu"]
    problems = []
    if versions.stack() == "cpu":
        problems.append(
            "this environment holds the CPU stack: make one for GPUs with VENV=.venv-gpu bash launch/setup_env.sh gpu, "
            "and use it with VENV=.venv-gpu"
        )
    if config.cluster.ray_address is not None or config.cluster.nodes > 1:
        return problems  # The workers' nodes are not this one.
    found, wanted = gpu_count(), config.cluster.gpus_per_node
    also = config.cluster.rollout_nodes * config.cluster.rollout_gpus_per_node
    if found < wanted + also:
        rollout = f" and {also} for rollout" if also else ""
        problems.append(
            f"GPUs: {found} found on this node, cluster.gpus_per_node={wanted}{rollout}: start this on a "
            "node that has them, or lower cluster.gpus_per_node"
        )
    return problems


def gpu_count() -> int:
    """NVIDIA GPUs that nvidia-smi lists here, restricted by CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([entry for entry in visible.split(",") if entry.strip() not in ("", "-1")])
    if shutil.which("nvidia-smi") is None:
        return 0
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False)
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())


def check_model(config: DictConfig, to_come: Path | None = None) -> list[str]:
    """The model's files: configuration, weights, tokenizer. A folder below `to_come` may be missing still."""
    path = config.model.path
    folder = model_folder(path)
    if folder is None and _is_below(path, to_come):
        return []
    if folder is None:
        return [
            f"model.path={path}: no such folder, and not in the Hugging Face cache: {config.model.obtain}, or set "
            "model.path to a local folder"
        ]
    return file_problems(folder, f"model.path={path}")


def _is_below(path: str, folder: Path | None) -> bool:
    return folder is not None and folder.absolute() in Path(path).expanduser().absolute().parents


def check_data(config: DictConfig, tokenizer: Any | None, to_come: Path | None = None) -> list[str]:
    """Every data file: readable, contract, known data source, and prompts that fit (with a tokenizer).

    A file below `to_come` may be missing still.
    """
    from data_prep.contract import ContractError, validate_rows  # imports pandas

    problems = []
    for key in ("train_files", "val_files"):
        files = config.data[key]
        for file in [files] if isinstance(files, str) else list(files):
            path = Path(os.path.expanduser(file))
            if not path.is_file() and _is_below(file, to_come):
                continue
            if not path.is_file():
                problems.append(f"data.{key}: {file} does not exist: {config.data.obtain}")
                continue
            try:
                frame = validate_rows(path)
            except ContractError as error:
                problems.append(f"data.{key}: {error}")
                continue
            for source in sorted(set(frame["data_source"])):
                if not sources.supports(source):
                    problems.append(f"data.{key}: {file}: {sources.why_not(source)}")
            problems += _check_references(key, file, frame)
            if tokenizer is not None:
                problems += _check_prompts(config, key, file, frame, tokenizer)
            if key == "train_files" and len(frame) < config.data.train_batch_size:
                problems.append(
                    f"data.train_files: {file} has {len(frame)} rows, fewer than data.train_batch_size="
                    f"{config.data.train_batch_size}"
                )
    return problems


def _check_references(key: str, file: str, frame) -> list[str]:
    """Reference answers that the scorer cannot read: each would be an error in the middle of a run."""
    bad = [
        (row, problem)
        for row, (source, reward_model) in enumerate(zip(frame["data_source"], frame["reward_model"], strict=True))
        if sources.supports(source)
        and (problem := sources.check_ground_truth(source, reward_model["ground_truth"])) is not None
    ]
    if not bad:
        return []
    row, problem = bad[0]
    more = f" (and {len(bad) - 1} more rows)" if len(bad) > 1 else ""
    return [f"data.{key}: {file}, row {row}, field reward_model.ground_truth: {problem}{more}: prepare the file again"]


def _check_prompts(config: DictConfig, key: str, file: str, frame, tokenizer) -> list[str]:
    limit = config.data.max_prompt_length
    lengths = [len(prompts.encode(tokenizer, prompt)) for prompt in frame["prompt"]]
    too_long = sum(length > limit for length in lengths)
    if too_long == len(lengths):
        return [
            f"data.max_prompt_length={limit}: every prompt of {file} is longer (the shortest has {min(lengths)} tokens)"
        ]
    if too_long and not config.data.filter_overlong_prompts:
        return [
            f"data.max_prompt_length={limit}: {too_long} of {len(lengths)} prompts of {file} are longer, up to "
            f"{max(lengths)} tokens: raise it, or drop them with data.filter_overlong_prompts=true"
        ]
    return []


def identity(config: DictConfig) -> dict[str, Any]:
    """What a checkpoint must agree with to be resumed: method, model, adapters, data, seed, mode, number of workers."""
    folder = model_folder(config.model.path)
    fingerprint = None
    if folder is not None and (folder / "config.json").is_file():
        digest = hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()[:16]
        weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        fingerprint = f"{digest}/{weights}"
    stack = stack_of(config)
    methods = dict(zip(stack.names, stack.methods, strict=True))
    first, *others = stack.names
    files = config.data.train_files
    lora = OmegaConf.to_container(config.lora, resolve=True)
    return {
        "method": first,
        **{f"method.{key}": _plain(value) for key, value in asdict(methods[first]).items()},
        **{f"also.{name}.{key}": _plain(v) for name in others for key, v in asdict(methods[name]).items()},
        "model": fingerprint,
        "data.train_files": [files] if isinstance(files, str) else list(files),
        "data.train_batch_size": config.data.train_batch_size,
        "data.curriculum.stages": config.data.curriculum and config.data.curriculum.stages,
        "seed": config.seed,
        "mode": trainer_mode(config),
        **{f"lora.{key}": value for key, value in lora.items() if key != "merge"},
        "workers": config.cluster.nodes * config.cluster.gpus_per_node,
    }


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value


def check_tokenizer(config: DictConfig, folder: Path, tokenizer: Any) -> list[str]:
    """The tokenizer and the requested lengths against the model's own config.json."""
    path, content = config.model.path, read_config(folder)
    rows, size, end = content["vocab_size"], len(tokenizer), tokenizer.eos_token_id
    problems = []
    if size > rows:
        problems.append(
            f"model.path={path}: the tokenizer has {size} tokens, the model's embedding only {rows} rows (vocab_size): "
            "take the tokenizer that belongs to the model, or resize the embedding (resize_token_embeddings)"
        )
    elif config.cluster.platform == "cpu" and size < rows:
        problems.append(
            f"model.path={path}: the tokenizer has {size} tokens, the model's embedding {rows} rows (vocab_size): on "
            "cluster=cpu they must be equal, for vLLM never draws the ids beyond, which the actor counts: "
            "resize the embedding (resize_token_embeddings)"
        )
    if end is None:
        problems.append(f"model.path={path}: the tokenizer has no eos_token, so no response would end: set one in it")
    if config.cluster.platform == "cpu" and head_dim(content) < 32:
        problems.append(
            f"model.path={path}: its attention heads are {head_dim(content)} wide, vLLM on cluster=cpu needs at least "
            "32: take a model with fewer or wider heads"
        )
    own = context_length(content)
    if own is not None:
        problems += _check_context(sequence_length(config), own, f"{folder / 'config.json'}")
    return problems


def check_inputs(config: DictConfig, to_come: Path | None = None) -> list[str]:
    """Problems of model and data; what lies below `to_come` will be made first, so it may be missing."""
    problems = check_model(config, to_come)
    folder, tokenizer = model_folder(config.model.path), None
    if not problems and config.lora.target_modules != "all-linear":
        problems = module_problems(folder, list(config.lora.target_modules))
    if folder is not None and not problems:
        try:
            tokenizer = prompts.load_tokenizer(
                folder, config.model.chat_template, f"model.path={config.model.path}", "set model.chat_template to one"
            )
            problems = check_tokenizer(config, folder, tokenizer)
        except UserError as error:
            problems = error.problems
    problems += check_data(config, tokenizer, to_come)
    return problems or curriculum_order.check_files(config)
