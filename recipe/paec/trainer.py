"""The trainer: verl's PPO trainers with the anchor, complete checkpoints, and signs of life.

Only hooks that verl offers are overridden; `fit()` is verl's.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import transfer_queue as tq
from omegaconf import OmegaConf, open_dict
from tensordict import TensorDict
from verl.trainer.ppo.v1 import PPOTrainerColocateAsync, PPOTrainerSeparateAsync, PPOTrainerSync
from verl.trainer.ppo.v1.trainer_base import PPOTrainer, register_trainer
from verl.utils import tensordict_utils
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.utils.padding import response_to_nested

from paec_loss import EntropyAnchor, PAECConfig, penalty_value
from recipe.paec import checkpoints
from recipe.paec.config import TRAINER_MODES
from recipe.paec.guardian import Guardian, RolloutFailed
from recipe.paec.loss import calibrated_policy_loss
from recipe.paec.positions import Positions
from recipe.paec.run_log import STOP_FILE, Heartbeat, MetricsFile
from recipe.paec.safety import tensors_only
from recipe.paec.statistics import QUEUED_FIELDS, padded_mask, queued_statistics
from recipe.paec.validation import best_score, reward_metrics, validation_scores


def _rollout_failure(what: str, step: int) -> str:
    return (
        f"the rollout of {what} failed at step {step}: a vLLM engine or a grader has died, or refuses the requests; "
        "the first error is in the log"
    )


def sample_in_order(sample, *args, **kwargs):
    """What the replay buffer's `sample` returns, by prompt and sample number instead of who finished first."""
    batch, metrics = sample(*args, **kwargs)
    places = [(uid, int(number), int(output)) for uid, number, output in (key.rsplit("_", 2) for key in batch.keys)]
    batch.reorder(sorted(range(len(batch)), key=places.__getitem__))
    return batch, metrics


class PAECTrainer(PPOTrainer):
    """Adds to each step: Hbar, mask and metrics from the log-prob passes, the anchor over steps 1..K, the floor.

    To be mixed into one of verl's trainers, whose mode is `mode`. A step has one log-prob pass, or in separate_async
    one a mini-batch, all of them under the policy that the step began with.
    """

    mode: str

    def __init__(self, config):
        with open_dict(config):
            # verl compares the mode with "sync" in several places; the name it was registered under is not a mode.
            config.trainer.v1.trainer_mode = self.mode
        super().__init__(config)
        self.run_directory = Path(config.run.directory)
        self.checkpoint_root = Path(config.trainer.default_local_dir)
        self.heartbeat = Heartbeat(self.run_directory)
        self.guardian = Guardian(self.run_directory)
        self.metrics_file = MetricsFile(self.run_directory, written=self._step_recorded)
        self.uncommitted_step: int | None = None
        self.last_checkpoint: int | None = None
        self.identity = OmegaConf.to_container(config.identity, resolve=True)
        self.actor_config = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
        method = self.actor_config.engine.method
        self.method = method if isinstance(method, PAECConfig) else None
        self.anchor = EntropyAnchor(self.method) if self.method is not None else None
        self.vocab_size = 0
        self.prompts_drawn: Counter[int] = Counter()
        self.positions: list[Positions] = []

    # ---- set-up ------------------------------------------------------------------------------------------------------

    def _build_replay_buffer(self):
        buffer = super()._build_replay_buffer()
        buffer.poll_interval = self.config.run.poll_interval
        buffer.sample = partial(sample_in_order, buffer.sample)
        return buffer

    def _setup(self):
        self.heartbeat.beat("starting workers", 0)
        self.guardian.start()
        super()._setup()
        if self.method is not None:
            hf_config = omega_conf_to_dataclass(self.config.actor_rollout_ref.model).hf_config
            self.vocab_size = int(hf_config.get_text_config().vocab_size)
            self.actor_rollout_wg.set_loss_fn(partial(calibrated_policy_loss, config=self.actor_config))

    def on_init_end(self):
        self.heartbeat.beat("first weight sync", self.global_steps)
        super().on_init_end()

    def _load_checkpoint(self):
        with tensors_only(Path(self.config.trainer.resume_from_path or self.checkpoint_root)):
            super()._load_checkpoint()
        if self.global_steps == 0:
            return
        checkpoint = checkpoints.read(checkpoints.folder_of(self.checkpoint_root, self.global_steps))
        if self.anchor is not None:
            self.anchor.load_state_dict(checkpoint.state["anchor"])

    # ---- signs of life -----------------------------------------------------------------------------------------------

    def on_validate_begin(self):
        self.heartbeat.beat("validation", self.global_steps)
        self.logger.logger["metrics_file"] = self.metrics_file
        super().on_validate_begin()

    def _val_metrics_update(
        self, data_sources, sample_uids, reward_extra_infos_dict, sample_turns, expected_acc_counts=None
    ):
        missing = sum(score is None for score in reward_extra_infos_dict["acc"])
        if missing:
            raise RolloutFailed(_rollout_failure(f"{missing} validation responses", self.global_steps))
        # Instead of verl's: best@k there draws with replacement, which is not pass@k, and votes compare strings.
        return validation_scores(data_sources, sample_uids, reward_extra_infos_dict, expected_acc_counts)

    def on_train_begin(self):
        self.logger.logger["metrics_file"] = self.metrics_file
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
            self._check_rollout()  # with no response at all, verl fails by itself, without a word on why
            raise

    def _check_rollout(self) -> None:
        failed = len(self.replay_buffer.failure_keys["train"])
        if failed:
            raise RolloutFailed(_rollout_failure(f"{failed} prompts", self.global_steps))

    # ---- the step ----------------------------------------------------------------------------------------------------

    def _next_train_batch(self, num_prompts: int | None = None):
        # verl names prompts at random. By step and place they have an order that is the same in every run.
        batch = super()._next_train_batch(num_prompts)
        step, first = self.global_steps, self.prompts_drawn[self.global_steps]
        self.prompts_drawn[step] += len(batch)
        names = [f"{step:06d}-{first + place:06d}" for place in range(len(batch))]
        tensordict_utils.assign_non_tensor_stack(batch, "uid", names)
        return batch

    def step(self, metrics: dict, timing_raw: dict):
        self.positions = []
        batch = super().step(metrics, timing_raw)
        if self.method is not None:
            metrics.update(self._observe_step(Positions.joined(self.positions)))
        return batch

    def _compute_old_log_prob(self, batch, metrics: dict):
        self.heartbeat.beat("log-probs", self.global_steps)
        batch.extra_info["trainer_step"] = self.global_steps
        batch = super()._compute_old_log_prob(batch, metrics)
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["extra_fields"])
        metrics.update(reward_metrics([extra["reward_extra_info"] for extra in data["extra_fields"]]))
        if self.method is not None:
            self.positions.append(self._queue_positions(batch))
        return batch

    def _queue_positions(self, batch) -> Positions:
        """Positions of `batch` from what its log-prob pass left in the queue; puts there what the updates need."""
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=QUEUED_FIELDS)
        statistics = queued_statistics(data, self.vocab_size)
        response_mask = padded_mask(data["response_mask"], statistics.entropy.shape[1])
        positions = Positions.of(statistics, response_mask, self.method)
        nested = {
            "position_score": response_to_nested(positions.score.float(), data["response_mask"]),
            "position_entropy": response_to_nested(positions.entropy.float(), data["response_mask"]),
        }
        tq.kv_batch_put(
            keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(nested, batch_size=len(batch.keys))
        )
        return positions

    def _observe_step(self, positions: Positions) -> dict[str, float]:
        """Give the anchor Hbar of the whole step, once; returns the step's metrics."""
        step = self.global_steps
        hbar = positions.measurement().selected_entropy(self.method)
        if step <= self.method.anchor_steps:
            self.anchor.observe(step, hbar)
        penalty = penalty_value(hbar, self.anchor.floor(step), self.method)
        summary = positions.summary(self.method) | {
            "selected_entropy": hbar,
            "anchor": self.anchor.value,
            "floor": self.method.rho_min * self.anchor.value,
            "penalty": penalty,
            "penalty_active": float(penalty > 0.0),
        }
        return {f"actor/paec/{key}": value for key, value in summary.items()}

    def _update_actor(self, batch, metrics: dict):
        self.heartbeat.beat("actor update", self.global_steps)
        batch.extra_info["trainer_step"] = self.global_steps
        floor = self.anchor.floor(self.global_steps) if self.anchor is not None else None
        if floor is not None:
            batch.extra_info["entropy_floor"] = floor
        return super()._update_actor(batch, metrics)

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
        """Validation, metrics and rollouts of a step are written: its checkpoint counts, and a run may end here.

        A resumed run starts after its checkpoint's step, so what a kill takes from that step would be gone for good.
        """
        step, score = record["step"], best_score(record, self.config.run.best_metric)
        if self.uncommitted_step == step:
            for dump in self._dump_futures:
                dump.result()
            self._commit_checkpoint(step, score)
        if self._stop_asked() and (self.last_checkpoint == step or self.config.trainer.save_freq <= 0):
            self.total_training_steps = step  # fit() ends after it

    def _commit_checkpoint(self, step: int, score: float | None) -> None:
        actor = checkpoints.folder_of(self.checkpoint_root, step) / "actor"
        saved = len(list(actor.glob("model_world_size_*_rank_*.pt")))
        if saved != self.identity["workers"]:
            raise checkpoints.CheckpointError(
                f"{actor} holds the shards of {saved} of {self.identity['workers']} workers: run.root must be a folder "
                "that all nodes share"
            )
        anchor = self.anchor.state_dict() if self.anchor is not None else None
        checkpoints.commit(self.checkpoint_root, step, self.identity, anchor, score)
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
    """On the same GPUs, but a step does not wait for its slowest responses: they go on under the next policy."""

    mode = "colocate_async"


@register_trainer(TRAINER_MODES["separate_async"])
class PAECTrainerSeparateAsync(PAECTrainer, PPOTrainerSeparateAsync):
    """Rollout has GPUs of its own and never waits; weights travel once a step, which is one update a mini-batch."""

    mode = "separate_async"

    def __init__(self, config):
        actor, separate = config.actor_rollout_ref.actor, config.trainer.v1.separate_async
        with open_dict(config):
            # The only number that verl takes.
            separate.parameter_sync_step = config.data.train_batch_size // actor.ppo_mini_batch_size
        super().__init__(config)
