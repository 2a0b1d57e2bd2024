"""The part of the trainer that records validations: when responses are taken, and when their log-probs computed."""

from __future__ import annotations

from functools import partial

from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from paec_loss import MethodStack
from recipe.paec.driver import queue_io
from recipe.paec.driver.validation_recorder import SECONDS, ValidationRecorder
from recipe.paec.run.log import Heartbeat


class RecordsValidations(PPOTrainer):
    """A mixin for one of verl's trainers that records its validations; `PAECTrainer` above it sets the attributes."""

    heartbeat: Heartbeat
    stack: MethodStack
    vocab_size: int

    def __init__(self, config):
        super().__init__(config)
        self.timing_raw: dict[str, float] = {}  # verl's, which exists only from the first step on

    def _init_dataloader(self):
        super()._init_dataloader()
        self.validation_recorder = ValidationRecorder(self.config, self.stack.top_p)
        self.val_dataloader = self.validation_recorder.watched(self.val_dataloader)

    def _build_replay_buffer(self):
        buffer = super()._build_replay_buffer()
        buffer.sample = partial(self._sample, buffer.sample)
        return buffer

    def _sample(self, sample, *args, **kwargs):
        batch, metrics = sample(*args, **kwargs)
        if batch.partition_id == "val":
            self.validation_recorder.collect(batch)
        return batch, metrics

    def _load_checkpoint(self):
        super()._load_checkpoint()
        if self.global_steps > 0:
            self.validation_recorder.resume(self.global_steps)

    def on_validate_begin(self):
        self.validation_recorder.begin()
        super().on_validate_begin()

    def on_validate_end(self):
        super().on_validate_end()
        self._dump_futures += self.validation_recorder.keep(self._dump_executor, self.global_steps)
        if self.global_steps >= self.total_training_steps:
            self._record_last_validation()

    def on_train_end(self):
        super().on_train_end()
        self._record_last_validation()  # of a run that was asked to stop

    def _compute_old_log_prob(self, batch, metrics: dict):
        self._record_validation("old_log_prob")
        return super()._compute_old_log_prob(batch, metrics)

    def _record_validation(self, stage: str) -> None:
        """The log-prob pass of a validation's responses, if any wait for it; the policy must still be the same."""
        if self.validation_recorder.waits:
            batch = queue_io.for_the_actor(self.validation_recorder.put(self.actor_rollout_wg.world_size))
            self.actor_rollout_wg.compute_log_prob(batch)
            seconds, writes = self.validation_recorder.take(batch, self.vocab_size, self.tokenizer, self._dump_executor)
            self.timing_raw[f"{stage}/{SECONDS}"] = seconds
            self._dump_futures += writes

    def _record_last_validation(self) -> None:
        """The same where no step follows: the rollout ends here."""
        if self.validation_recorder.waits:
            self.heartbeat.beat("log-probs of the validation", self.global_steps)
            self._make_room()
            self._record_validation("testing")

    def _make_room(self) -> None:
        """End the rollout: the actor needs its memory."""
        self.checkpoint_manager.sleep_replicas()
