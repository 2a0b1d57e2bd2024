"""The order of a step's batch."""

from __future__ import annotations


def test_batches_have_an_order_of_their_own():
    """By prompt, then sample, then output, as numbers; tags move with their keys."""
    from transfer_queue import KVBatchMeta

    from recipe.paec.driver.trainer import sample_in_order

    keys = ["000002-000001_10_0", "000002-000001_2_1", "000002-000001_2_0", "000002-000000_3_0"]
    batch = KVBatchMeta(partition_id="train", keys=keys, tags=[{"seq_len": number} for number in range(4)])
    ordered, metrics = sample_in_order(lambda step: (batch, {"step": step}), step=2)
    assert ordered.keys == ["000002-000000_3_0", "000002-000001_2_0", "000002-000001_2_1", "000002-000001_10_0"]
    assert [tag["seq_len"] for tag in ordered.tags] == [3, 2, 1, 0]
    assert metrics == {"step": 2}
