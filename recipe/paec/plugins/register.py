"""Registers engine, loss, attention and the sender of the weight sync, and patches verl and its queue.

Imported by the driver, and by every process that reads the model's configuration, as its `external_lib`.
"""

from __future__ import annotations

from recipe.paec.actor import engine, loss, packed_sdpa  # noqa: F401  (they register what they define)
from recipe.paec.plugins import patches, queue_rows, queue_shapes, verl_plugin
from recipe.paec.rollout import server_adapter  # noqa: F401  (registers itself)

patches.separate_copies()
patches.whole_micro_batch()
patches.without_value_head()
patches.patch_selected_rows()
patches.plain_numbers()
patches.whole_responses()
queue_rows.rows_in_one_frame()
queue_shapes.shapes_from_offsets()
queue_shapes.shapes_not_copied()
if verl_plugin.ON_CPU:
    patches.unpinned_offload()
