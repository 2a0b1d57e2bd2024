"""What the actor may fetch of a batch."""

from __future__ import annotations

from transfer_queue import KVBatchMeta

from recipe.paec.actor.batches import QUEUED_FIELDS, RESPONSE_NUMBER
from recipe.paec.driver.queue_io import for_the_actor


def test_the_actor_gets_tensors_only():
    batch = KVBatchMeta(keys=["a_0_0"], tags=[{}], partition_id="train")
    assert for_the_actor(batch) is batch and batch.keys == ["a_0_0"]
    assert {"input_ids", "position_ids", "loss_mask", "advantages", "ref_log_prob", RESPONSE_NUMBER} <= {*batch.fields}
    assert {*QUEUED_FIELDS} <= {*batch.fields}
    objects = {"uid", "raw_prompt", "reward_model", "extra_info", "data_source", "extra_fields", "metrics"}
    assert not objects & {*batch.fields}
