"""Imported in every process that loads the model (`actor_rollout_ref.model.external_lib`): engine, loss, rollout."""

from __future__ import annotations

from recipe.paec import attention, engine, loss, patches, plugin, rollout  # noqa: F401  (they register themselves)

patches.separate_copies()
if plugin.ON_CPU:
    patches.unpinned_offload()
