"""When the responses of a validation are taken, and when they get their log-prob pass, in each mode."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from recipe.paec.config.schema import TRAINER_MODES


class Recorder:
    """A recorder of validations, and what it was asked to do, in order."""

    def __init__(self, events, waits):
        self.events, self.waits = events, waits

    def keep(self, executor, step):
        self.events.append(f"keep {step}")
        return ["kept"] if self.waits else []

    def put(self, ranks):
        self.events.append(f"put for {ranks}")
        return SimpleNamespace()

    def take(self, batch, vocab_size, tokenizer, executor):
        self.events.append("take")
        self.waits = False
        return 1.5, ["record"]


def trainer_of(mode: str, step: int, waits: bool = True):
    """A trainer in a run of 20 steps whose validation has just ended, and a list of what it does then."""
    from verl.trainer.ppo.v1.trainer_base import get_trainer_cls

    import recipe.paec.driver.trainer  # noqa: F401  (registers the trainers)

    kind = get_trainer_cls(TRAINER_MODES[mode])
    events: list[str] = []
    made = object.__new__(kind)
    made.validation_recorder = Recorder(events, waits)
    made.global_steps, made.total_training_steps = step, 20
    made._dump_futures, made._dump_executor, made.timing_raw = [], None, {}
    made.vocab_size, made.tokenizer = 26, None
    made.heartbeat = SimpleNamespace(beat=lambda what, step: events.append(f"beat {what}"))
    made.actor_rollout_wg = SimpleNamespace(world_size=3, compute_log_prob=lambda batch: events.append("log-probs"))
    made.checkpoint_manager = SimpleNamespace(
        abort_replicas=lambda: events.append("abort"), sleep_replicas=lambda: events.append("sleep")
    )
    made._enable_hybrid_replicas = False
    return made, events


PASS = ["put for 3", "log-probs", "take"]
ROOM = {"sync": ["sleep"], "colocate_async": ["abort", "sleep"], "separate_async": []}


@pytest.mark.parametrize("mode", TRAINER_MODES)
def test_a_validation_waits_for_the_next_log_prob_pass(mode):
    trainer, events = trainer_of(mode, step=10)
    trainer.on_validate_end()
    assert events == ["keep 10"] and trainer._dump_futures == ["kept"], "the rollout stays awake"
    trainer._record_validation("old_log_prob")
    assert events == ["keep 10", *PASS] and trainer._dump_futures == ["kept", "record"]
    assert trainer.timing_raw == {"old_log_prob/record_validation": 1.5}
    trainer._record_validation("old_log_prob")
    assert len(events) == 4, "once"


@pytest.mark.parametrize("mode", TRAINER_MODES)
def test_after_the_last_step_the_rollout_makes_room(mode):
    trainer, events = trainer_of(mode, step=20)
    trainer.on_validate_end()
    assert events == ["keep 20", "beat log-probs of the validation", *ROOM[mode], *PASS]
    assert trainer.timing_raw == {"testing/record_validation": 1.5} and trainer._dump_futures == ["kept", "record"]


def test_a_run_that_is_stopped_also_ends_with_it():
    trainer, events = trainer_of("sync", step=12)
    trainer.on_train_end()
    assert events == ["beat log-probs of the validation", "sleep", *PASS]


def test_without_a_record_nothing_is_put_to_sleep():
    trainer, events = trainer_of("colocate_async", step=20, waits=False)
    trainer.on_validate_end()
    trainer.on_train_end()
    trainer._record_validation("old_log_prob")
    assert events == ["keep 20"] and trainer._dump_futures == [] and trainer.timing_raw == {}
