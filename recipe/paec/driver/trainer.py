"""The trainer: verl's PPO trainers with the methods' hooks, complete checkpoints, and heartbeats.

Only hooks that verl offers are overridden; `fit()` is verl's.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf, open_dict
from verl.trainer.ppo.v1 import PPOTrainerColocateAsync, PPOTrainerSeparateAsync, PPOTrainerSync
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.utils import tensordict_utils
from verl.utils.config import omega_conf_to_dataclass

from paec_loss import Rollouts
from paec_loss.batch import joined
from paec_loss.stack import observed
from recipe.paec.actor.loss import method_loss
from recipe.paec.config.schema import TRAINER_MODES
from recipe.paec.driver import curriculum_sampler, entropy_metrics, queue_io, tracking, validation
from recipe.paec.driver.actor_watch import ActorWatch, RolloutFailed
from recipe.paec.driver.draws import Draws
from recipe.paec.driver.prompt_recorder import PromptRecorder
from recipe.paec.driver.token_recorder import TokenRecorder
from recipe.paec.driver.validation_mixin import RecordsValidations
from recipe.paec.rollout import agent_loop
from recipe.paec.run import checkpoints
from recipe.paec.run.log import STOP_FILE, Heartbeat, MetricsFile
from recipe.paec.run.safe_load import tensors_only

KL_IN_REWARD = "kl_in_reward"
"""Beside the states of the methods, the coefficient that `algorithm.kl_ctrl.type=adaptive` has reached."""


def _rollout_failure(what: str, step: int) -> str:
    return (
        f"the rollout of {what} failed at step {step}: a vLLM engine or a grader has died, or rejects requests; "
        "the first error is in the log"
    )


class PAECTrainer(RecordsValidations):
    """Adds to each step what the methods do on the driver: sampling, rewards, advantages, and their state.

    A mixin for one of verl's trainers, whose mode is `mode`. A step has one log-prob pass, or in separate_async one
    per mini-batch, all of them under the policy that the step began with.
    """

    mode: str

    def __init__(self, config):
        with open_dict(config):
            # verl compares the mode with "sync" in several places; the name it is registered under is not a mode.
            config.trainer.v1.trainer_mode = self.mode
        super().__init__(config)
        self.run_directory = Path(config.run.directory)
        self.checkpoint_root = Path(config.trainer.default_local_dir)
        self.heartbeat = Heartbeat(self.run_directory)
        self.actor_watch = ActorWatch(self.run_directory)
        self.metrics_file = MetricsFile(self.run_directory, written=self._step_recorded)
        self.uncommitted_step: int | None = None
        self.last_checkpoint: int | None = None
        self.identity = OmegaConf.to_container(config.identity, resolve=True)
        self.actor_config = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
        self.stack = self.actor_config.engine.stack
        self.trackers = self.stack.trackers()
        self.vocab_size = 0
        self.draws = Draws(config.algorithm.filter_groups.enable, in_parts=config.data.gen_batch_size is not None)
        self.rollouts: list[Rollouts] = []
        self.recorder = TokenRecorder(config, self.stack.top_p)
        self.prompt_recorder = PromptRecorder(self.run_directory)

    # ---- set-up ------------------------------------------------------------------------------------------------------

    def _init_dataloader(self):
        super()._init_dataloader()
        self.train_dataloader = curriculum_sampler.staged(self.train_dataloader, self.config)

    def _build_replay_buffer(self):
        buffer = super()._build_replay_buffer()
        buffer.poll_interval = self.config.run.poll_interval
        buffer.sample = partial(queue_io.sample_in_order, buffer.sample)
        return buffer

    def _setup(self):
        self.heartbeat.beat("starting workers", 0)
        self.actor_watch.start()
        super()._setup()
        hf_config = omega_conf_to_dataclass(self.config.actor_rollout_ref.model).hf_config
        self.vocab_size = int(hf_config.get_text_config().vocab_size)
        if self.stack.acts_in_actor:
            self.actor_rollout_wg.set_loss_fn(partial(method_loss, config=self.actor_config))

    def on_init_end(self):
        self.heartbeat.beat("first weight sync", self.global_steps)
        super().on_init_end()

    def _load_checkpoint(self):
        with tensors_only(Path(self.config.trainer.resume_from_path or self.checkpoint_root)):
            super()._load_checkpoint()
        if self.global_steps == 0:
            return
        checkpoint = checkpoints.read(checkpoints.folder_of(self.checkpoint_root, self.global_steps))
        for name, tracker in self.trackers.items():
            tracker.load_state_dict(checkpoint.state["methods"][name])
        if KL_IN_REWARD in checkpoint.state["methods"]:
            self.kl_ctrl_in_reward.value = checkpoint.state["methods"][KL_IN_REWARD]["value"]

    # ---- validation, loggers, failed rollouts ------------------------------------------------------------------------

    def on_validate_begin(self):
        self.heartbeat.beat("validation", self.global_steps)
        self._complete_loggers()
        super().on_validate_begin()

    def _val_metrics_update(
        self, data_sources, sample_uids, reward_extra_infos_dict, sample_turns, expected_acc_counts=None
    ):
        if missing := sum(score is None for score in reward_extra_infos_dict["acc"]):
            raise RolloutFailed(_rollout_failure(f"{missing} validation responses", self.global_steps))
        # Instead of verl's: best@k there draws with replacement, which is not pass@k, and votes compare strings.
        samples = (data_sources, sample_uids, reward_extra_infos_dict, expected_acc_counts)
        return validation.validation_scores(*samples, self.config.reward.scorers)

    def _complete_loggers(self) -> None:
        """Add metrics.jsonl and what verl's loggers lack; verl creates them in `fit()`, before these hooks."""
        self.logger.logger["metrics_file"] = self.metrics_file
        tracking.complete(self.config, self.logger.logger, self.validation_generations_logger)

    def on_train_begin(self):
        self._complete_loggers()
        super().on_train_begin()

    def on_sample_begin(self):
        self.heartbeat.beat("rollout", self.global_steps)
        super().on_sample_begin()

    def on_sample_end(self):
        self._check_rollout()  # verl would pad the batch instead
        super().on_sample_end()

    def _step_once(self, *args, **kwargs):
        try:
            return super()._step_once(*args, **kwargs)
        except RuntimeError:
            self._check_rollout()  # with no response at all, verl fails by itself without saying why
            raise

    def _check_rollout(self) -> None:
        if failed := len(self.replay_buffer.failure_keys["train"]):
            raise RolloutFailed(_rollout_failure(f"{failed} prompts", self.global_steps))

    # ---- the step ----------------------------------------------------------------------------------------------------

    def _next_train_batch(self, num_prompts: int | None = None):
        # verl names prompts at random. Sorted by step and position, their order is the same in every run.
        step = self.global_steps
        self.heartbeat.beat("rollout", step)  # a step that replaces prompts draws again and again
        self.draws.ask(step, num_prompts, len(self.train_dataset))
        batch = super()._next_train_batch(num_prompts)
        tensordict_utils.assign_non_tensor_stack(batch, "uid", self.draws.names(step, len(batch)))
        if self.mode == "sync" and any(earlier := self.draws.earlier(step, batch["data_source"], batch["index"])):
            tensordict_utils.assign_non_tensor_stack(batch, agent_loop.EARLIER_DRAWS, earlier)
        if self.stack.has("sampling"):
            sampling = self.stack.sampling(self._signals(), step)
            apart = round(sampling.share * len(batch)) if sampling is not None else 0
            temperatures = [0.0] * (len(batch) - apart) + [sampling.temperature] * apart
            tensordict_utils.assign_non_tensor_stack(batch, agent_loop.ROLLOUT_TEMPERATURE, temperatures)
        return batch

    def step(self, metrics: dict, timing_raw: dict):
        self.rollouts = []
        batch = super().step(metrics, timing_raw)
        self.prompt_recorder.write(self.global_steps, (self.global_steps - 1) // self.steps_per_epoch)
        metrics |= self.stack.scheduled_values(self.global_steps, "actor/")
        self._dump_futures += self.recorder.write(self._dump_executor, self.global_steps, metrics)
        if self.trackers and self.parameter_sync_step > 1:
            metrics.update(self._observe())  # its parts become known one after the other
        return batch

    def _compute_old_log_prob(self, batch, metrics: dict):
        self.heartbeat.beat("log-probs", self.global_steps)
        batch.extra_info["trainer_step"] = self.global_steps
        self.recorder.ask(batch)
        if self.stack.acts_in_actor:
            queue_io.number_responses(batch)
        batch = super()._compute_old_log_prob(queue_io.for_the_actor(batch), metrics)
        infos = self.prompt_recorder.take(batch)
        metrics.update(validation.reward_metrics(infos))
        metrics.update(validation.cut_off(batch.tags, self.config.data.max_response_length))
        if not self.stack.has("rewards"):  # such a method learns from prompts of one score too
            metrics.update(validation.mixed_prompts(batch.keys, infos))
        if self.stack.needs_rollouts:
            read = queue_io.read_rollouts(
                batch, self.stack, self.tokenizer, self.vocab_size, self.global_steps, self.config
            )
            self.rollouts.append(read)
        entropy_metrics.add_entropy(metrics, batch, infos, self.prompt_recorder.sources, self.rollouts, self.config)
        self.recorder.take_statistics(batch, self.vocab_size, self.rollouts[-1] if self.rollouts else None)
        if self.trackers and self.parameter_sync_step == 1:
            metrics.update(self._observe())
        return batch

    def _compute_ref_log_prob(self, batch, metrics: dict):
        return super()._compute_ref_log_prob(queue_io.for_the_actor(batch), metrics)

    def _observe(self) -> dict[str, float]:
        """Show the step's responses to every tracker, once; returns their metrics."""
        return observed(self.trackers, joined(self.rollouts), "actor/")

    def _signals(self) -> dict[str, dict[str, float]]:
        return {name: tracker.signal(self.global_steps) for name, tracker in self.trackers.items()}

    def _compute_advantage(self, batch, metrics: dict):
        if not self.stack.reads_rewards:
            batch = super()._compute_advantage(batch, metrics)
            self.recorder.take_outcome(batch, self.tokenizer)
            return batch
        graded, scores = queue_io.read_rewards(batch)
        rollouts = replace(self.rollouts[-1], rewards=graded)
        if self.stack.has("rewards"):
            rollouts = replace(rollouts, rewards=self.stack.rewards(rollouts, self._signals()))
            queue_io.put_rewards(batch, rollouts.rewards, scores)
            metrics[f"actor/{self.stack.owner('rewards')}/reward"] = rollouts.rewards.double().mean().item()
        batch = super()._compute_advantage(batch, metrics)
        if self.stack.has("rewards"):
            queue_io.put_scores(batch, scores)  # metrics and records keep showing the graded ones
        self.recorder.take_outcome(batch, self.tokenizer)
        queue_io.put_outcome(batch, self.stack, rollouts, graded, self._signals())
        return batch

    def _update_actor(self, batch, metrics: dict):
        self.heartbeat.beat("actor update", self.global_steps)
        batch.extra_info["trainer_step"] = self.global_steps
        batch.extra_info["method_signals"] = self._signals()
        return super()._update_actor(queue_io.for_the_actor(batch), metrics)

    # ---- checkpoints, and the end ------------------------------------------------------------------------------------

    def _save_checkpoint(self):
        self.heartbeat.beat("checkpoint", self.global_steps)
        super()._save_checkpoint()
        self.uncommitted_step = self.global_steps

    def on_step_end(self):
        if self._stop_asked() and self.uncommitted_step != self.global_steps and self.config.trainer.save_freq > 0:
            self._save_checkpoint()
        self.heartbeat.beat("weight sync", self.global_steps)
        super().on_step_end()

    def _step_recorded(self, record: dict[str, Any]) -> None:
        """Validation, metrics and rollouts of a step are written: its checkpoint is now valid, and a run may end here.

        A resumed run starts after its checkpoint's step, so what a kill loses of that step would be lost for good.
        """
        step, metric = record["step"], self.config.run.best_metric
        if self.uncommitted_step == step:
            for dump in self._dump_futures:
                dump.result()
            self._commit_checkpoint(step, validation.best_score(record, metric))
        validation.check_best_metric(record, metric)  # only now: the step is saved
        if self._stop_asked() and (self.last_checkpoint == step or self.config.trainer.save_freq <= 0):
            self.total_training_steps = step  # fit() ends after it

    def _commit_checkpoint(self, step: int, score: float | None) -> None:
        actor = checkpoints.folder_of(self.checkpoint_root, step) / "actor"
        saved = len(list(actor.glob("model_world_size_*_rank_*.pt")))
        if saved != self.identity["workers"]:
            raise checkpoints.CheckpointError(
                f"{actor} holds the shards of {saved} of {self.identity['workers']} workers: set run.root to a folder "
                "that all nodes share"
            )
        methods = {name: tracker.state_dict() for name, tracker in self.trackers.items()}
        if self.config.algorithm.use_kl_in_reward and self.config.algorithm.kl_ctrl.type == "adaptive":
            methods[KL_IN_REWARD] = {"value": float(self.kl_ctrl_in_reward.value)}
        checkpoints.commit(self.checkpoint_root, step, self.identity, methods, score)
        self.uncommitted_step, self.last_checkpoint = None, step
        checkpoints.prune(self.checkpoint_root, self.config.run.keep_checkpoints, self.config.run.keep_best)

    def _stop_asked(self) -> bool:
        return (self.run_directory / STOP_FILE).exists()


@register_trainer(TRAINER_MODES["sync"])
class PAECTrainerSync(PAECTrainer, PPOTrainerSync):
    """Rollout and training take turns."""

    mode = "sync"


@register_trainer(TRAINER_MODES["colocate_async"])
class PAECTrainerColocateAsync(PAECTrainer, PPOTrainerColocateAsync):
    """On the same GPUs, but a step does not wait for its slowest responses: they continue under the next policy."""

    mode = "colocate_async"

    def _make_room(self):
        self.checkpoint_manager.abort_replicas()
        super()._make_room()


@register_trainer(TRAINER_MODES["separate_async"])
class PAECTrainerSeparateAsync(PAECTrainer, PPOTrainerSeparateAsync):
    """Rollout has its own GPUs and never waits; weights are sent once per step, which has one update per mini-batch."""

    mode = "separate_async"

    def __init__(self, config):
        actor, separate = config.actor_rollout_ref.actor, config.trainer.v1.separate_async
        with open_dict(config):
            # The only value that verl accepts.
            separate.parameter_sync_step = config.data.train_batch_size // actor.ppo_mini_batch_size
        super().__init__(config)

    def _make_room(self):
        self.switch_to_trainer()  # nothing, unless verl lends the trainer's GPUs to the rollout
