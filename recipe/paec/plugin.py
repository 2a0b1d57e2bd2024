"""What verl loads in every one of its processes (entry-point group `verl.plugins`).

Light on purpose: it registers the CPU platform and, where that platform is selected, the patches that must be in place
before verl's own modules are imported. Engine and loss come with `actor_rollout_ref.model.external_lib`
(`recipe.paec.worker`), the trainer with `recipe.paec.runner`. verl swallows an exception in a plugin:
`train_worker.check_registrations` is how it comes to light.
"""

from __future__ import annotations

import os

from recipe.paec import patches, versions

versions.require_verl()

from recipe.paec import cpu_platform  # noqa: E402, F401  (registers itself)

ON_CPU = os.environ.get("VERL_PLATFORM", "") == "cpu"

if ON_CPU:
    patches.answer_vllm_version()
    patches.gloo_process_group()
